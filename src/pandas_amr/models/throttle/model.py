"""A model behind the throttle of its server."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from pandas_amr._records.tokens import learn_token_ratio, tokens_per_character
from pandas_amr.errors import ModelConfigError, ModelError, ModelRejected, ModelUnavailable
from pandas_amr.models.answered_servers import patience_s
from pandas_amr.models.throttle.gate import Gate
from pandas_amr.models.throttle.patience import as_unsent, unsent_copy
from pandas_amr.models.throttle.throttle import Throttle
from pandas_amr.models.waits import WaitReporter

if TYPE_CHECKING:
    from pandas_amr.models.base import LM, Model, Reply, Request
    from pandas_amr.models.statistics import ModelStatistics
    from pandas_amr.models.throttle.pace import Ticket

_throttles: dict[tuple[int, str, str, str], Throttle] = {}


def throttle_for(lm: LM, server: str, key: str) -> Throttle:
    """Give the throttle of a server, key and model in this process.

    The limits that the ``LM`` has hold from then on.
    """
    name = (os.getpid(), server, hashlib.sha256(key.encode()).hexdigest(), lm.model)
    new = Throttle(server=server, reporter=WaitReporter(server), gate=Gate(is_open=False))
    throttle = _throttles.setdefault(name, new)
    throttle.set_limits(lm.max_parallelism, lm.rpm, lm.tpm)
    return throttle


class Throttled:
    """A model that answers at the pace which its server admits.

    The first request of a process to a server, model and key goes alone. Only once one was answered
    others are sent: what is configured wrongly is one error, and no more rows leave.

    If the server asks for a longer wait than ``lm`` has patience, nothing more is sent here;
    another run may still send.
    """

    def __init__(
        self, model: Model, throttle: Throttle, *, lm: LM, statistics: ModelStatistics
    ) -> None:
        self._model = model
        self._throttle = throttle
        self._lm = lm
        self._statistics = statistics
        self._closed_by: ModelUnavailable | ModelConfigError | None = None

    async def complete(self, request: Request) -> Reply:
        """Answer one turn once the throttle admits it; the throttle learns from the outcome.

        Raises:
            ModelUnavailable: among others, the server is no longer waited for; its ``attempts`` are
                then 0.
        """
        self._check_open()
        characters = sum(len(message.content or "") for message in request.messages)
        prompt = characters * tokens_per_character(self._lm.model)
        answer = self._statistics.expected_tokens(request.phase)
        ticket = await self._throttle.acquire(prompt + answer, self._lm)
        try:
            self._check_open()
            with self._throttle.report_slow_start(self._lm):
                reply = await self._model.complete(request)
        except ModelUnavailable as error:
            self._record_failure(ticket, error)
            raise
        except ModelError as error:
            self._record_rejection(ticket, error)
            raise
        except BaseException:
            self._throttle.release()
            raise
        self._throttle.gate.open()
        usage = reply.usage
        if not usage.estimated:
            learn_token_ratio(self._lm.model, characters=characters, tokens=usage.input_tokens)
        self._throttle.record_answer(ticket, tokens=float(usage.tokens), limits=reply.limits)
        return reply

    def _record_rejection(self, ticket: Ticket, error: ModelError) -> None:
        """Record an answer that is an error, or that no request could be sent."""
        throttle = self._throttle
        if isinstance(error, ModelConfigError):
            if error.request_error is None:  # nor would those that wait be served
                self._closed_by = unsent_copy(error)
                throttle.fail_waiting(error, self._lm)
        elif isinstance(error, ModelRejected):
            throttle.gate.count_reached()
        else:  # the model answered: it declined, or what it wrote cannot be used
            throttle.gate.open()
        if error.attempts:
            throttle.record_answer(ticket, tokens=0.0, limits=None)
        else:
            throttle.release()

    def _record_failure(self, ticket: Ticket, error: ModelUnavailable) -> None:
        throttle, wait_s = self._throttle, error.retry_after_s
        if not error.attempts:
            throttle.release()
        elif (wait_s or 0.0) > patience_s(self._lm, throttle.server, gone=False):
            # This run ends; the wait does not concern runs that have more patience.
            self._closed_by = as_unsent(error)
            throttle.record_failure(ticket, reached=True)
        elif error.starved:
            throttle.record_starvation(ticket, error)
        elif error.busy:
            throttle.record_refusal(ticket, retry_after_s=wait_s, limits=error.limits, error=error)
        else:
            if not error.gone and wait_s is None:  # a server error, or out of time
                throttle.gate.count_reached()
            throttle.record_failure(
                ticket, reached=not error.gone, retry_after_s=wait_s, error=error, lm=self._lm
            )

    def _check_open(self) -> None:
        """Raise if the server asked this run for too long a wait, or would serve nothing."""
        if isinstance(self._closed_by, ModelConfigError):
            raise unsent_copy(self._closed_by)
        if self._closed_by is not None:
            raise as_unsent(self._closed_by)
