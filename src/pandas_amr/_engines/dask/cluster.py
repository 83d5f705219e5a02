"""The cluster, as the engine of this process sees it: tasks out, and how they end.

A client of Dask lives on a loop of its own. What is awaited there is awaited here through it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pandas_amr._records.clock import CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

RECONNECT_S = 30.0
POLL_S = 0.1
Ending: TypeAlias = Literal["finished", "error", "cancelled"]


class Cluster:
    """What a run needs of a client of Dask.

    Args:
        client: a ``distributed.Client``.

    Attributes:
        address: the scheduler's.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self.address = str(client.scheduler.address)  # a client that is closed has forgotten it

    @property
    def listen_options(self) -> dict[str, Any]:
        """How to listen to workers: the cluster's certificates."""
        options: dict[str, Any] = self.client.security.get_listen_args("client")
        return options

    async def _there(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
        """Await a coroutine on the client's loop."""
        loop = self.client.loop.asyncio_loop
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(function(*args), loop))

    async def count_threads(self) -> int:
        """Count the tasks that run at once; 0 if no worker is there yet."""
        threads: dict[str, int] = await self._there(self._ask_threads)
        return sum(threads.values())

    async def _ask_threads(self) -> Any:
        return await self.client.scheduler.ncores()

    def submit(self, function: Callable[..., Any], *args: Any, key: str) -> Any:
        """Send a task; return its future."""
        return self.client.submit(function, *args, key=key, pure=False)

    async def end_of(self, future: Any) -> Ending:
        """Wait until a task has ended, one way or another."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def wake(_: Any) -> None:
            loop.call_soon_threadsafe(ended.set)

        future.add_done_callback(wake)  # which Dask calls in a thread of its own
        await ended.wait()
        status = str(future.status)
        if status in {"finished", "error"}:
            return status  # type: ignore[return-value]
        return "cancelled"

    async def error_of(self, future: Any) -> BaseException | None:
        """Return why a task failed."""
        error: BaseException | None = await self._there(_exception_of, future)
        return error

    async def value_of(self, future: Any) -> Any:
        """Return what a task gave.

        Raises:
            Exception: what it raised.
        """
        return await self._there(_result_of, future)

    async def cancel(self, futures: list[Any]) -> None:
        """Cancel tasks that nobody waits for."""
        if self.client.status == "running":
            await self._there(self._cancel, futures)

    async def _cancel(self, futures: list[Any]) -> None:
        await self.client.cancel(futures, asynchronous=True)

    async def is_back(self) -> bool:
        """Wait until the scheduler is connected again; False if it does not come back."""
        latest = CLOCK.now() + RECONNECT_S
        while CLOCK.now() < latest:
            status = str(self.client.status)
            if status == "running":
                return True
            if status in {"closed", "closing"}:
                return False
            await asyncio.sleep(POLL_S)
        return False


async def _exception_of(future: Any) -> Any:
    return await future._exception()  # noqa: SLF001 (the public one waits on the caller's thread)


async def _result_of(future: Any) -> Any:
    return await future._result()  # noqa: SLF001 (likewise)
