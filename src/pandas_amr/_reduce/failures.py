"""Failures of the reduce: they are listed, or raised if nothing may fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pandas_amr._agent.agent import NoInstruction
from pandas_amr._findings.store import Failure
from pandas_amr.errors import InvalidOutput

if TYPE_CHECKING:
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._findings.store import Who
    from pandas_amr.errors import ModelError

REDUCE_POSITION = -1  # of a failure that is not about a row


class UnknownColumns(InvalidOutput):
    """A column is missing, and may only be missing because a function has found nothing.

    The columns of a function without ``finding=`` are known from what it returns.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"{problem}; a function found nothing, and without finding= its columns are not known"
        )


@dataclass(slots=True)
class LostFindings:
    """What the last agent of a tree does not see.

    Attributes:
        rows: the rows behind nodes that failed.
        truncated: how many findings were truncated to fit a model's window.
    """

    rows: set[int] = field(default_factory=set)
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class ReduceFailures:
    """Takes what a reduce fails at: a node, a group, a column."""

    spec: Spec
    state: State

    def add(self, reason: str, error: ModelError) -> None:
        """List a failure that the reduce goes on without.

        Raises:
            ModelError: later requests would fail the same way, or ``errors="raise"`` is set.
        """
        if error.fatal or self.spec.settings.errors == "raise":
            self.state.reduce_error = self.state.reduce_error or error
            raise error
        who: Who = "model"
        if isinstance(error, NoInstruction | UnknownColumns):
            who = "callable"
        self.state.failures.append(
            Failure(REDUCE_POSITION, REDUCE_POSITION, who, f"reduce: {reason}", error.attempts)
        )

    def raise_earlier(self) -> None:
        """Raise the failure that ends the run, if another node has had it already."""
        if self.state.reduce_error is not None:
            raise self.state.reduce_error
