"""The gate below everything: how many requests of one run are in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from pandas_amr.models.base import Model, Reply, Request


class Gated:
    """Answers like the model inside, a bounded number of requests at a time.

    It stands at the HTTP call, below agents and reducers, so that nested work cannot overshoot it; and below the
    retry, so that a request that waits for its next try holds no place.
    """

    def __init__(self, model: Model, gate: asyncio.Semaphore) -> None:
        self._model = model
        self._gate = gate

    async def complete(self, request: Request) -> Reply:
        """Answer one turn once there is a place."""
        async with self._gate:
            return await self._model.complete(request)
