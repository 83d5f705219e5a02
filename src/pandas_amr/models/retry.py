"""Retry around a model: an unavailable service is asked again, later."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import tenacity

from pandas_amr._records.usage import Usage
from pandas_amr.errors import ModelError, ModelUnavailable
from pandas_amr.models.contact import patience_s
from pandas_amr.models.throttle import asked_now, end_run
from pandas_amr.models.waits import first_sentence, run_waits

if TYPE_CHECKING:
    from pandas_amr.models.base import LM, Model, Reply, Request
    from pandas_amr.models.throttle import Throttle

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0


class Retrying:
    """Answers like the model inside, after as many tries as it takes.

    A service that fails (5xx, time-outs, malformed bodies) gets ``max_tries``, with waits that grow exponentially, with
    full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015). One that says 429, asks for a time to
    wait while it answers nothing, or is not there, is waited for: the throttle below sets the pace, and only a silence
    of ``patience_s``, or a wait that is longer, ends it.
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
        with asked_now(self._throttle.clock) as began:
            return await self._tried(request, _Policy(self._lm, self._throttle, began))

    async def _tried(self, request: Request, policy: _Policy) -> Reply:
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(ModelUnavailable),
            stop=policy.stop,
            wait=policy.wait,
            reraise=True,
        )
        waits = run_waits.get()
        self._throttle.teller.begin(waits)
        try:
            reply: Reply = await attempts(self._model.complete, request)
        except ModelError as error:
            error.usage = policy.spent_with(error.usage)
            raise
        finally:
            self._throttle.teller.end(waits)
        usage = policy.spent + reply.usage
        return replace(reply, usage=replace(usage, tries=reply.usage.tries + policy.sent))


@dataclass(slots=True)
class _Policy:
    """When one request is given up, and how long it waits until its next try."""

    lm: LM
    throttle: Throttle
    began: float
    failed_at: float = 0.0  # for the first time
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
        self.failed_at = self.failed_at or self.throttle.clock()
        self.sent += error.attempts  # of a hedged request it may have been two
        error.attempts = self.sent
        if error.stops_run:
            return True
        patience = patience_s(self.lm, self.throttle.server, gone=error.gone)
        if error.retry_after_s is not None and error.retry_after_s > patience:
            end_run(error, self.lm, self.throttle.server)
            return True
        if self._is_waited_for(error):
            if min(self.throttle.clock() - self.began, self.throttle.silent_s) < patience:
                return False
            end_run(error, self.lm, self.throttle.server)
            return True
        self.failures += 1
        if self.failures >= self.lm.max_tries:
            return True
        if error.usage is not None:
            self.spent += replace(error.usage, tries=0)  # they are in `sent`
        return False

    def _is_waited_for(self, error: ModelUnavailable) -> bool:
        """Tell whether a failure is the server's own, and none of this request's.

        A server that asks to come back later, and answers others meanwhile, fails this request.
        """
        if error.busy or error.gone or error.starved:
            return True
        answers_others = self.throttle.silent_s < self.throttle.clock() - self.failed_at
        return error.retry_after_s is not None and not answers_others

    def wait(self, state: tenacity.RetryCallState) -> float:
        """Seconds until the next try may ask the throttle for a place."""
        error = _error_of(state)
        if self._is_waited_for(error):
            return 0.0  # the throttle pauses
        backoff = tenacity.wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S)
        seconds: float = backoff(state)
        self.throttle.teller.tell("retry", seconds, first_sentence(error.said))
        return seconds


def _error_of(state: tenacity.RetryCallState) -> ModelUnavailable:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, ModelUnavailable)
    return error
