"""Work on this machine's loop: bounded, drawn as places become free, results as they land."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from pandas_amr._records.raised import contained

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

Item = TypeVar("Item")
Done = TypeVar("Done")


def is_cancelled() -> bool:
    """Whether somebody cancels the task that runs here: else a ``CancelledError`` came from what it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def await_contained(awaited: Awaitable[Done]) -> Done:
    """Await what may run functions of the user's: what would end the loop, or the task that waits, is its failure."""
    try:
        return await awaited
    except Exception:
        raise
    except BaseException as raised:
        if isinstance(raised, asyncio.CancelledError) and is_cancelled():
            raise
        raise contained(raised) from raised


async def _done(work: Callable[[Item], Awaitable[Done]], item: Item) -> Done:
    try:
        return await work(item)
    except Exception:
        raise
    except asyncio.CancelledError as raised:
        if is_cancelled():
            raise
        raise RuntimeError("What was waited for has been cancelled.") from raised
    except BaseException as raised:
        raise contained(raised) from raised


async def each(
    work: Callable[[Item], Awaitable[Done]], items: Iterable[Item], *, limit: int
) -> AsyncIterator[Done]:
    """Yield ``work(item)`` for each item, in the order in which they finish, at most ``limit`` at once.

    There are at most ``limit`` tasks, each begun by the one before it once that has an item; an item is drawn when a
    task is free. After an exception none is drawn; what is in flight, and may be paid for, comes to its end and is
    yielded before the first exception goes on. Whoever closes the iterator cancels what is in flight.
    """
    source = iter(items)
    landed: asyncio.Queue[tuple[Done] | None] = asyncio.Queue()
    errors: list[Exception] = []
    workers: list[asyncio.Task[None]] = []

    async def worker() -> None:
        is_first = True
        try:
            for item in source:
                if errors:
                    return
                if is_first and len(workers) < limit:
                    is_first = False
                    workers.append(asyncio.create_task(worker()))
                landed.put_nowait((await _done(work, item),))
        except Exception as error:  # noqa: BLE001 (raised at the end)
            errors.append(error)
        finally:
            landed.put_nowait(None)

    workers.append(asyncio.create_task(worker()))
    try:
        for _ in workers:  # a worker begins the next one before it ends: the list grows meanwhile
            while (done := await landed.get()) is not None:
                yield done[0]
        if errors:
            raise errors[0]
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
