"""Hedging: a second request for the slowest few per cent.

Dean and Barroso, "The Tail at Scale", 2013.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from pandas_amr._records.clock import CLOCK
from pandas_amr._records.trace import use_scope_of_second_request
from pandas_amr.errors import ModelError
from pandas_amr.models.send_marker import SendRecord, sent_requests

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pandas_amr.models.base import Model, Reply, Request
    from pandas_amr.models.statistics import ModelStatistics

SHARE = 0.95  # of requests are answered before a second one is sent
ENOUGH = 20  # latencies, to know how long such a share takes
LOOK_AGAIN_S = 1.0  # until a request that was sent before it was known is looked at again


class Hedged:
    """A model that sends a second request if the first is among the slowest.

    The model inside must send through ``SendMarker``: a request that still waits was not sent.
    """

    def __init__(self, model: Model, statistics: ModelStatistics) -> None:
        self._model = model
        self._latencies = statistics.latencies

    async def complete(self, request: Request) -> Reply:
        """Answer one turn. If two requests were sent, the dropped one is counted as if answered.

        Raises:
            ModelError: neither was answered; its ``attempts`` are the requests sent.
        """
        sent = sent_requests.get() or SendRecord()
        token = sent_requests.set(sent)
        try:
            return await self._complete(request, sent)
        except ModelError as error:
            error.attempts = sent.count
            raise
        finally:
            sent_requests.reset(token)

    async def _complete(self, request: Request, sent: SendRecord) -> Reply:
        began = CLOCK.now()
        tasks = [asyncio.create_task(self._model.complete(request))]
        try:
            reply = await self._race(request, tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self._latencies.append(CLOCK.now() - began)
        usage = reply.usage
        if sent.open:
            usage += replace(usage, calls=0, seconds=0.0, estimated=sent.open)
            sent.open = 0  # so that nobody counts it again
        return replace(reply, usage=replace(usage, tries=sent.count))

    async def _race(self, request: Request, tasks: list[asyncio.Task[Reply]]) -> Reply:
        """Await the first answer; if the first task is slow, append a second one to ``tasks``."""
        await self._wait_while_usual(tasks[0])
        if not tasks[0].done():
            with use_scope_of_second_request():
                tasks.append(asyncio.create_task(self._model.complete(request)))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        ended = [task for task in tasks if task.done()]
        answered = _without_error(ended)
        if not answered:  # the faster one failed: the other one may still answer
            await asyncio.wait(tasks)
            answered = _without_error(tasks)
        return (answered or ended)[0].result()

    async def _wait_while_usual(self, task: asyncio.Task[Reply]) -> None:
        """Wait for an answer as long as most take. What that is may be known only meanwhile."""
        began = CLOCK.now()
        while not task.done():
            after_s = self._hedge_after_s()
            left_s = LOOK_AGAIN_S if after_s is None else began + after_s - CLOCK.now()
            if left_s <= 0:
                return
            await asyncio.wait([task], timeout=left_s)

    def _hedge_after_s(self) -> float | None:
        """Give the seconds after which a second request is sent; None while too few are known."""
        if len(self._latencies) < ENOUGH:
            return None
        return sorted(self._latencies)[int(SHARE * len(self._latencies))]


def _without_error(tasks: Iterable[asyncio.Task[Reply]]) -> list[asyncio.Task[Reply]]:
    return [task for task in tasks if task.exception() is None]
