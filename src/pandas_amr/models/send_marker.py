"""Which requests were really sent: one that waits for its place was not, and is not paid for."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pandas_amr.models.first_requests import note_sent

if TYPE_CHECKING:
    from pandas_amr.models.base import Model, Reply, Request


@dataclass(slots=True)
class SendRecord:
    """The requests that one call of a model has sent: more than one if it is hedged.

    Attributes:
        count: how many were sent.
        open: how many of them have neither an answer nor an error yet.
        answered: whether one was answered.
    """

    count: int = 0
    open: int = 0
    answered: bool = False


@dataclass(slots=True)
class InFlight:
    """How many requests of a run are in flight."""

    count: int = 0


sent_requests: ContextVar[SendRecord | None] = ContextVar("pandas_amr_sent", default=None)


class SendMarker:
    """A model that records each request as sent; the model inside sends at once."""

    def __init__(self, model: Model, in_flight: InFlight) -> None:
        self._model = model
        self._in_flight = in_flight

    async def complete(self, request: Request) -> Reply:
        """Answer one turn.

        Raises:
            ModelError: the service did not answer.
        """
        sent = sent_requests.get() or SendRecord()
        if sent.answered:  # while this one waited for its place: it is about to be cancelled
            await asyncio.get_running_loop().create_future()
        sent.count += 1
        sent.open += 1
        self._in_flight.count += 1
        note_sent()
        try:
            reply = await self._model.complete(request)
        except Exception:
            sent.open -= 1
            raise
        finally:
            self._in_flight.count -= 1
        sent.open -= 1
        sent.answered = True
        return reply
