"""Which servers have answered in this process, and how long a silent one is waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas_amr.models.base import LM

PATIENCE_S = 300.0
FIRST_CONTACT_S = 3.0  # for a server that was never reached: a mistyped address shows soon
CONNECT_S = 15.0
LEAST_CONNECT_S = 1.0

_answered: set[str] = set()


def note_answer(server: str) -> None:
    """Record that a server has answered, be it with an error."""
    _answered.add(server)


def has_answered(server: str) -> bool:
    """Tell whether a server has answered in this process."""
    return server in _answered


def patience_s(lm: LM, server: str, *, gone: bool) -> float:
    """Give the seconds without any answer after which the run ends.

    For a server that is ``gone`` they are few, unless it has answered before or the user set
    ``patience_s``.
    """
    if lm.patience_s is not None:
        return lm.patience_s
    if gone and not has_answered(server):
        return FIRST_CONTACT_S
    return PATIENCE_S


def connect_s(lm: LM, server: str) -> float:
    """Give the seconds that a connection attempt may take."""
    return min(lm.timeout_s, CONNECT_S, max(LEAST_CONNECT_S, patience_s(lm, server, gone=True)))
