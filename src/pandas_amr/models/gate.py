"""The gate below everything: how many requests of a run are in flight, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from pandas_amr._usage import Ledger
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


class Metered:
    """Answers like the model inside and writes each answer's usage into the run's ledger."""

    def __init__(self, model: Model, *, name: str, ledger: Ledger) -> None:
        self._model = model
        self._name = name
        self._ledger = ledger

    async def complete(self, request: Request) -> Reply:
        """Answer one turn."""
        reply = await self._model.complete(request)
        self._ledger.add(request.phase, self._name, reply.usage)
        return reply
