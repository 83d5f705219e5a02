"""Which servers have answered in this process, and how long one that does not is waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas_amr.models.base import LM

PATIENCE_S = 300.0
FIRST_CONTACT_S = 3.0  # for a server that nobody has ever reached: a typing error is told soon
CONNECT_S = 15.0
LEAST_CONNECT_S = 1.0

_answered: set[str] = set()


def note_answer(server: str) -> None:
    """Note that a server has answered something, were it an error."""
    _answered.add(server)


def has_answered(server: str) -> bool:
    """Tell whether a server has answered in this process."""
    return server in _answered


def patience_s(lm: LM, server: str, *, gone: bool) -> float:
    """Tell for how long a server may answer nothing until the run ends.

    One that is ``gone`` is hardly waited for, unless it has answered before or the user gave ``patience_s``.
    """
    if lm.patience_s is not None:
        return lm.patience_s
    return FIRST_CONTACT_S if gone and not has_answered(server) else PATIENCE_S


def connect_s(lm: LM, server: str) -> float:
    """Tell how long making a connection may take."""
    return min(lm.timeout_s, CONNECT_S, max(LEAST_CONNECT_S, patience_s(lm, server, gone=True)))
