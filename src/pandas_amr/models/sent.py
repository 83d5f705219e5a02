"""Which requests have really left: one that waits for its place was not sent, and is not paid for."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas_amr.models.base import Model, Reply, Request


@dataclass(slots=True)
class Sent:
    """The requests that one call of a model has sent: more than one if it is hedged.

    Attributes:
        count: how many have left.
        open: how many of them have not come back, with an answer or an error.
        answered: whether one was answered.
    """

    count: int = 0
    open: int = 0
    answered: bool = False


sent_requests: ContextVar[Sent | None] = ContextVar("pandas_amr_sent", default=None)


class SendMarker:
    """Answers like the model inside, which sends at once: a request is noted as sent when it comes here."""

    def __init__(self, model: Model) -> None:
        self._model = model

    async def complete(self, request: Request) -> Reply:
        """Answer one turn.

        Raises:
            ModelError: the service did not answer.
        """
        sent = sent_requests.get() or Sent()
        if sent.answered:  # while this one waited for its place: it is about to be cancelled
            await asyncio.get_running_loop().create_future()
        sent.count += 1
        sent.open += 1
        try:
            reply = await self._model.complete(request)
        except Exception:
            sent.open -= 1
            raise
        sent.open -= 1
        sent.answered = True
        return reply
