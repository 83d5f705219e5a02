"""Retry around a model: if the service is unavailable, the request is sent again later."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pandas_amr._records.trace import record_wait
from pandas_amr._records.usage import NO_USAGE, Usage
from pandas_amr.errors import ModelError, ModelUnavailable
from pandas_amr.models.answered_servers import patience_s
from pandas_amr.models.first_requests import let_next_go
from pandas_amr.models.throttle.patience import (
    end_failing_run,
    end_run,
    is_sent_again,
    measure_wait,
)
from pandas_amr.models.waits import first_sentence, run_waits

if TYPE_CHECKING:
    from pandas_amr.models.base import LM, Model, Reply, Request
    from pandas_amr.models.throttle.throttle import Throttle

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
UNSERVED_WAIT_S = 10.0  # likewise, for a server that is missing behind its gateway
MOST_DOUBLINGS = 10  # of the first wait: that is longer than the longest
# So many requests in a row that used up their tries, and none that was answered, show that a server
# which had answered fails at all, and not at what these hold.
MOST_GIVEN_UP = 50


class Retrying:
    """A model that sends a request again while the service is unavailable.

    A service that fails (5xx, time-outs, malformed bodies) gets ``max_tries``. The waits between
    them grow exponentially, with full jitter (AWS Architecture Blog, "Exponential Backoff And
    Jitter", 2015). A service that says 429, that asks for a wait while it answers nothing, or that
    is gone, is waited for: the throttle below sets the pace, and only a silence of ``patience_s``,
    or a longer wait, ends it. So is one that has answered and is missing behind its gateway now.
    One that has answered and then fails at many requests in a row ends the run, too.
    """

    def __init__(self, model: Model, *, lm: LM, throttle: Throttle) -> None:
        self._model = model
        self._lm = lm
        self._throttle = throttle

    async def complete(self, request: Request) -> Reply:
        """Answer one turn; ``usage.tries`` counts the requests sent.

        Raises:
            ModelUnavailable: the tries are used up; or the server has been silent for too long,
                which ends the run.
        """
        with measure_wait(self._throttle.clock) as began:
            policy = _RetryPolicy(self._lm, self._throttle, began)
            return await self._complete(request, policy)

    async def _complete(self, request: Request, policy: _RetryPolicy) -> Reply:
        waits = run_waits.get()
        self._throttle.reporter.subscribe(waits)
        token = is_sent_again.set(False)
        try:
            reply = await self._send_until_answered(request, policy)
        except ModelError as error:
            error.usage = policy.add_spent(error.usage)
            raise
        finally:
            is_sent_again.reset(token)
            self._throttle.reporter.unsubscribe(waits)
        if not policy.failures and not policy.sent:
            return reply
        usage = policy.spent + reply.usage
        return replace(reply, usage=replace(usage, tries=reply.usage.tries + policy.sent))

    async def _send_until_answered(self, request: Request, policy: _RetryPolicy) -> Reply:
        """Send a request again and again, as long as the policy says."""
        while True:
            try:
                return await self._model.complete(request)
            except ModelUnavailable as error:
                if policy.is_last(error):
                    raise
                seconds = policy.wait_s(error)
            await _sleep(seconds)


@dataclass(slots=True, eq=False)
class _RetryPolicy:
    """Decides when one request is given up, and how long it waits until its next try.

    Attributes:
        began: since when it waits.
        failed_at: when it first failed; 0 if it has not.
        in_vain: how often a gateway answered while nobody was behind it.
        failures: how many count towards ``max_tries``.
        sent: requests sent and not answered.
        spent: usage of the answers that could not be used.
    """

    lm: LM
    throttle: Throttle
    began: float
    failed_at: float = 0.0
    in_vain: int = 0
    failures: int = 0
    sent: int = 0
    spent: Usage = NO_USAGE

    def add_spent(self, last: Usage | None) -> Usage | None:
        """Give the usage of all answers that could not be used, the last included; None if 0."""
        spent = self.spent + (last or NO_USAGE)
        return spent if spent.calls else None

    def is_last(self, error: ModelUnavailable) -> bool:
        """Tell whether this failure was the last; count it."""
        self.failed_at = self.failed_at or self.throttle.clock()
        if error.unserved:
            self.throttle.unserved.add(self)
        self.sent += error.attempts  # of a hedged request it may have been two
        error.attempts = self.sent
        if error.fatal:
            return True
        if self._is_out_of_patience(error):
            end_run(error, self.lm, self.throttle.server)
            return True
        is_counted = error.hung_up and self.lm.patience_s is None  # it may be this request's fault
        if self._waits_for_server(error) and not is_counted:
            self.in_vain += self._is_unserved(error)
            return False
        self.failures += 1
        if self.failures >= self.lm.max_tries:
            self._give_up(error)
            return True
        if error.usage is not None:
            self.spent += replace(error.usage, tries=0)  # `sent` counts them
        return False

    def _give_up(self, error: ModelUnavailable) -> None:
        """Give the request up, and the run if the server has failed at many others in a row."""
        throttle = self.throttle
        error.answers_others = throttle.silent_s < throttle.clock() - self.began
        throttle.given_up += 1
        if throttle.has_answered and throttle.given_up >= MOST_GIVEN_UP:
            throttle.given_up = 0  # the next run has as many
            end_failing_run(error, MOST_GIVEN_UP)

    def _is_out_of_patience(self, error: ModelUnavailable) -> bool:
        """Tell whether the server asks for too long a wait, or has been silent for too long."""
        patience = patience_s(self.lm, self.throttle.server, gone=error.gone)
        if error.retry_after_s is not None and error.retry_after_s > patience:
            return True
        if error.gone and self.throttle.was_never_reached(self.lm):
            return True
        if not self._waits_for_server(error):
            return False
        waited_s = self.throttle.clock() - self.began
        return min(waited_s, self.throttle.silent_s) >= patience

    def _waits_for_server(self, error: ModelUnavailable) -> bool:
        """Tell whether a failure is about the server as a whole, and not about this request.

        If a server asks for a wait, but answers others meanwhile, then this request has failed.
        """
        if error.busy or error.gone or error.starved:
            return True
        if self._is_unserved(error):
            return True
        answers_others = self.throttle.silent_s < self.throttle.clock() - self.failed_at
        return error.retry_after_s is not None and not answers_others

    def _is_unserved(self, error: ModelUnavailable) -> bool:
        """Tell whether a gateway has lost the server that had answered.

        It has if another request failed so, too, since the last answer. If this one alone did, it
        may be what the server fell over.
        """
        if not error.unserved or not self.throttle.has_answered:
            return False
        return bool(self.throttle.unserved - {self})

    def wait_s(self, error: ModelUnavailable) -> float:
        """Give the seconds until the next try may ask the throttle for a place."""
        is_sent_again.set(self.sent > 0)
        if not self.throttle.gate.is_open:
            let_next_go()
        if self._waits_for_server(error) and not error.unserved:
            return 0.0  # the throttle pauses
        doublings = min(self.failures + self.in_vain - 1, MOST_DOUBLINGS)
        most = UNSERVED_WAIT_S if self.in_vain else LONGEST_WAIT_S
        longest = min(FIRST_WAIT_S * 2**doublings, most)
        seconds = random.uniform(0, longest)  # noqa: S311 (no secret)
        self.throttle.reporter.report("retry", seconds, first_sentence(error.said))
        return seconds


async def _sleep(seconds: float) -> None:
    """Wait until the next try."""
    if not seconds:
        await asyncio.sleep(0)
        return
    with record_wait("retry"):
        await asyncio.sleep(seconds)
