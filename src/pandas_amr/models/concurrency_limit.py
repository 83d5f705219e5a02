"""The bound on how many requests of one run are in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandas_amr._records.trace import record_wait

if TYPE_CHECKING:
    import asyncio

    from pandas_amr.models.base import Model, Reply, Request


class ConcurrencyLimited:
    """A model that answers a bounded number of requests at a time.

    It wraps the HTTP call, below agents and reducers, so that nested work cannot exceed the bound.
    It is below the retry, so that a request that waits for its next try does not count.
    """

    def __init__(self, model: Model, semaphore: asyncio.Semaphore) -> None:
        self._model = model
        self._semaphore = semaphore

    async def complete(self, request: Request) -> Reply:
        """Answer one turn once the semaphore admits it."""
        if self._semaphore.locked():
            with record_wait("place"):
                await self._semaphore.acquire()
        else:
            await self._semaphore.acquire()
        try:
            return await self._model.complete(request)
        finally:
            self._semaphore.release()
