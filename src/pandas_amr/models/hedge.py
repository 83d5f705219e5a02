"""Hedging: a second request for the slowest few per cent (Dean and Barroso, "The Tail at Scale", 2013)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from pandas_amr._records.clock import CLOCK
from pandas_amr._records.usage import Usage
from pandas_amr.errors import ModelError
from pandas_amr.models.sent import Sent, sent_requests

if TYPE_CHECKING:
    from pandas_amr.models.base import Model, Reply, Request
    from pandas_amr.models.lessons import Lessons

SHARE = 0.95  # of requests are answered before a second one is sent
ENOUGH = 20


class Hedged:
    """Answers like the model inside, by the first of two requests where one is among the slowest.

    Whatever stands between, the model inside sends through ``SendMarker``: a request that waits there was not sent.
    """

    def __init__(self, model: Model, lessons: Lessons) -> None:
        self._model = model
        self._took = lessons.latencies

    async def complete(self, request: Request) -> Reply:
        """Answer one turn. Where two requests were sent both are counted, the dropped one as if answered.

        Raises:
            ModelError: neither was answered; its ``attempts`` are the requests sent.
        """
        sent = sent_requests.get() or Sent()
        mark = sent_requests.set(sent)
        try:
            return await self._first_of_two(request, sent)
        except ModelError as error:
            error.attempts = sent.count
            raise
        finally:
            sent_requests.reset(mark)

    async def _first_of_two(self, request: Request, sent: Sent) -> Reply:
        began = CLOCK.now()
        first = asyncio.create_task(self._model.complete(request))
        tasks = {first}
        try:
            await asyncio.wait(tasks, timeout=self._patience_s())
            if not first.done():
                tasks.add(asyncio.create_task(self._model.complete(request)))
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            done = [task for task in tasks if task.done()]
            good = [task for task in done if task.exception() is None]
            if not good and len(done) < len(
                tasks
            ):  # the faster one failed: the other may yet answer
                await asyncio.wait(tasks - set(done))
                good = [task for task in tasks if task.exception() is None]
            reply = (good or done)[0].result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self._took.append(CLOCK.now() - began)
        dropped = (
            replace(reply.usage, calls=0, seconds=0.0, estimated=sent.open)
            if sent.open
            else Usage()
        )
        sent.open = 0  # it is counted here
        return replace(reply, usage=replace(reply.usage + dropped, tries=sent.count))

    def _patience_s(self) -> float | None:
        """How long the first request has, once enough is known."""
        if len(self._took) < ENOUGH:
            return None
        return sorted(self._took)[int(SHARE * len(self._took))]
