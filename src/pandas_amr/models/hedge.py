"""Hedging: a second request for the slowest few per cent (Dean and Barroso, "The Tail at Scale", 2013)."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pandas_amr._usage import Usage
from pandas_amr.errors import ModelError

if TYPE_CHECKING:
    from pandas_amr.models.base import Model, Reply, Request

SHARE = 0.95  # of requests are answered before a second one is sent
SAMPLES = 200
ENOUGH = 20


@dataclass
class _Sent:
    """How many requests of a pair have left, and whether one of them was answered."""

    count: int = 0
    answered: bool = False


_sent: ContextVar[_Sent | None] = ContextVar("pandas_amr_sent", default=None)


class Noted:
    """Answers like the model inside, which sends at once: a hedged request is noted as sent when it comes here."""

    def __init__(self, model: Model) -> None:
        self._model = model

    async def complete(self, request: Request) -> Reply:
        """Answer one turn."""
        sent = _sent.get() or _Sent()
        if sent.answered:  # while this one waited for its place: it is about to be cancelled
            await asyncio.get_running_loop().create_future()
        sent.count += 1
        reply = await self._model.complete(request)
        sent.answered = True
        return reply


class Hedged:
    """Answers like the model inside, by the first of two requests where one is among the slowest.

    Whatever stands between, the model inside sends through ``Noted``: a request that still waits there was not sent.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._took: deque[float] = deque(maxlen=SAMPLES)

    async def complete(self, request: Request) -> Reply:
        """Answer one turn. Where two requests were sent both are counted, the dropped one as if answered.

        Raises:
            ModelError: neither was answered; its ``attempts`` are the requests sent.
        """
        sent = _Sent()
        mark = _sent.set(sent)
        try:
            return await self._first_of_two(request, sent)
        except ModelError as error:
            error.attempts = sent.count
            raise
        finally:
            _sent.reset(mark)

    async def _first_of_two(self, request: Request, sent: _Sent) -> Reply:
        began = time.monotonic()
        first = asyncio.create_task(self._model.complete(request))
        tasks = {first}
        try:
            await asyncio.wait(tasks, timeout=self._patience_s())
            if not first.done():
                tasks.add(asyncio.create_task(self._model.complete(request)))
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            done = [task for task in tasks if task.done()]
            good = [task for task in done if task.exception() is None]
            if not good and len(done) < len(tasks):  # the faster one failed: the other may yet answer
                await asyncio.wait(tasks - set(done))
                good = [task for task in tasks if task.exception() is None]
            reply = (good or done)[0].result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self._took.append(time.monotonic() - began)
        twice = reply.usage if sent.count > 1 else Usage()
        return replace(reply, usage=reply.usage + replace(twice, calls=0, seconds=0.0))

    def _patience_s(self) -> float | None:
        """How long the first request has, once enough is known."""
        if len(self._took) < ENOUGH:
            return None
        return sorted(self._took)[int(SHARE * len(self._took))]
