"""How long a request has waited, and the errors that end a run when its patience is used up."""

from __future__ import annotations

import copy
from contextvars import ContextVar
from typing import TYPE_CHECKING

from pandas_amr._records.clock import CLOCK
from pandas_amr.errors import ModelUnavailable
from pandas_amr.models.answered_servers import FIRST_CONTACT_S, patience_s
from pandas_amr.models.waits import clock_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from pandas_amr.errors import ModelConfigError
    from pandas_amr.models.base import LM

waiting_since: ContextVar[float | None] = ContextVar("pandas_amr_waiting_since", default=None)
# Whether the request was sent before, and is to be sent again.
is_sent_again: ContextVar[bool] = ContextVar("pandas_amr_is_sent_again", default=False)


class measure_wait:  # noqa: N801 (used as `with measure_wait()`; a generator takes twice as long)
    """Measure from now how long the request in the block waits, unless that is measured already.

    The block is given the time since when it waits.
    """

    __slots__ = ("_clock", "_token")

    def __init__(self, clock: Callable[[], float] = CLOCK.now) -> None:
        self._clock = clock

    def __enter__(self) -> float:
        since = waiting_since.get()
        if since is None:
            since = self._clock()
        self._token = waiting_since.set(since)
        return since

    def __exit__(self, *raised: object) -> None:
        waiting_since.reset(self._token)


def as_unsent(error: ModelUnavailable) -> ModelUnavailable:
    """Give the same failure for a request that was not sent."""
    unsent = ModelUnavailable(
        error.said,
        busy=error.busy,
        gone=error.gone,
        starved=error.starved,
        retry_after_s=error.retry_after_s,
        status=error.status,
        attempts=0,
    )
    unsent.loading = error.loading
    return unsent


def unsent_copy(error: ModelConfigError) -> ModelConfigError:
    """Give the same failure for a request that was not sent: each has its own count of tries."""
    failure = copy.copy(error)
    failure.attempts, failure.usage = 0, None
    return failure


def end_run(error: ModelUnavailable, lm: LM, server: str) -> None:
    """Make an error end its run. Its text then says how long was waited, and when to call again."""
    error.fatal = True
    patience = patience_s(lm, server, gone=error.gone)
    wait_s = error.retry_after_s
    if wait_s is not None and wait_s > patience:
        until = clock_time(wait_s)
        advice = (
            f"It asks to wait until {until}, longer than LM(patience_s={patience:g}) allows: "
            "call again then."
        )
    elif error.gone and patience <= FIRST_CONTACT_S and lm.patience_s is None:
        advice = "It has never answered here. If it is about to start: LM(patience_s=...)."
    elif error.gone:
        advice = f"It was waited for {patience:g} s; LM(patience_s=...) sets for how long."
    else:
        advice = f"Nothing was answered for {patience:g} s (LM(patience_s=...)): call again later."
    failure = error.said.rstrip(". ")
    error.args = (f"{failure}. {advice}",)


def end_failing_run(error: ModelUnavailable, given_up: int) -> None:
    """Make the last one of many failures in a row end its run."""
    error.fatal = True
    failure = error.said.rstrip(". ")
    advice = (
        f"The last {given_up} requests failed, each in all its tries (LM(max_tries=...)), and none "
        "was answered: call again later."
    )
    error.args = (f"{failure}. {advice}",)
