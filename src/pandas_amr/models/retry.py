"""Retry around a model: an unavailable service is asked again, later."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import tenacity

from pandas_amr._usage import Usage
from pandas_amr.errors import ModelError, ModelUnavailable

if TYPE_CHECKING:
    from pandas_amr.models.base import LM, Model, Reply, Request
    from pandas_amr.models.throttle import Throttle

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0


class Retrying:
    """Answers like the model inside, after as many tries as it takes.

    A service that fails (5xx, time-outs, malformed bodies) gets ``max_tries``, with waits that grow exponentially, with
    full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015). One that says 429, or is not there, is
    waited for: the throttle below sets the pace, and only a silence of ``patience_s`` ends it.
    """

    def __init__(self, model: Model, *, lm: LM, throttle: Throttle) -> None:
        self._model = model
        self._lm = lm
        self._throttle = throttle

    async def complete(self, request: Request) -> Reply:
        """Answer one turn; ``usage.tries`` counts the requests sent.

        Raises:
            ModelUnavailable: the tries are used up; or the server has been silent for too long, which ends the run.
        """
        policy = _Policy(self._lm, self._throttle)
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(ModelUnavailable), stop=policy.stop, wait=policy.wait, reraise=True
        )
        try:
            reply: Reply = await attempts(self._model.complete, request)
        except ModelError as error:
            error.usage = policy.spent_with(error.usage)
            raise
        usage = policy.spent + reply.usage
        return replace(reply, usage=replace(usage, tries=reply.usage.tries + policy.sent))


@dataclass(slots=True)
class _Policy:
    """When one request is given up, and how long it waits until its next try."""

    lm: LM
    throttle: Throttle
    began: float = field(default_factory=time.monotonic)
    failures: int = 0
    sent: int = 0
    spent: Usage = field(default_factory=Usage)

    def spent_with(self, last: Usage | None) -> Usage | None:
        """What the answers took that could not be used, the last one's among them; None if there were none."""
        spent = self.spent + (last or Usage())
        return spent if spent.calls else None

    def stop(self, state: tenacity.RetryCallState) -> bool:
        """Whether this failure was the last."""
        error = _error_of(state)
        self.sent += error.attempts  # of a hedged request it may have been two
        error.attempts = self.sent
        if error.busy or error.gone:
            error.stops_run = min(time.monotonic() - self.began, self.throttle.silent_s) > self.lm.patience_s
            return error.stops_run
        self.failures += 1
        if self.failures >= self.lm.max_tries:
            return True
        if error.usage is not None:
            self.spent += replace(error.usage, tries=0)  # they are in `sent`
        return False

    def wait(self, state: tenacity.RetryCallState) -> float:
        """Seconds until the next try may ask the throttle for a place."""
        error = _error_of(state)
        if error.busy or error.gone:
            return 0.0
        backoff = tenacity.wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S)
        return (error.retry_after_s or 0.0) + backoff(state)


def _error_of(state: tenacity.RetryCallState) -> ModelUnavailable:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, ModelUnavailable)
    return error
