"""Retry around a model: an unavailable service is asked again, later."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import tenacity

from pandas_amr.errors import ModelUnavailable

if TYPE_CHECKING:
    from pandas_amr.models.base import Model, Reply, Request

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0


class Retrying:
    """Answers like the model inside, after as many tries as it takes and ``max_tries`` allows.

    Waits grow exponentially with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015); a
    ``retry-after`` is the least that is waited.
    """

    def __init__(self, model: Model, *, max_tries: int) -> None:
        self._model = model
        self._max_tries = max_tries
        self._backoff = tenacity.wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S)

    async def complete(self, request: Request) -> Reply:
        """Answer one turn; ``usage.tries`` counts the requests sent."""
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(ModelUnavailable),
            stop=tenacity.stop_after_attempt(self._max_tries),
            wait=self._wait,
            reraise=True,
        )
        try:
            reply: Reply = await attempts(self._model.complete, request)
        except ModelUnavailable as error:
            error.attempts = self._max_tries
            raise
        tries = int(attempts.statistics["attempt_number"])
        return replace(reply, usage=replace(reply.usage, tries=tries))

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after_s if isinstance(error, ModelUnavailable) else None
        return (asked or 0.0) + self._backoff(state)
