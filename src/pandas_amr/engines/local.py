"""Work on this machine's loop: bounded, drawn as places become free, results as they land."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

Item = TypeVar("Item")
Done = TypeVar("Done")


async def each(work: Callable[[Item], Awaitable[Done]], items: Iterable[Item], *, limit: int) -> AsyncIterator[Done]:
    """Yield ``work(item)`` for each item, in the order in which they finish, at most ``limit`` at once.

    There are ``limit`` tasks, however many items there are; an item is drawn when a task is free. The first exception
    ends it: what is in flight is cancelled, and awaited, before the exception goes on.
    """
    source = iter(items)
    landed: asyncio.Queue[tuple[Done] | BaseException | None] = asyncio.Queue()

    async def worker() -> None:
        try:
            for item in source:
                landed.put_nowait((await work(item),))
        except Exception as error:  # noqa: BLE001 (handed on to the consumer, which raises it)
            landed.put_nowait(error)
        finally:
            landed.put_nowait(None)

    workers = [asyncio.create_task(worker()) for _ in range(limit)]
    try:
        working = len(workers)
        while working:
            match await landed.get():
                case None:
                    working -= 1
                case BaseException() as error:
                    raise error
                case (done,):
                    yield done
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
