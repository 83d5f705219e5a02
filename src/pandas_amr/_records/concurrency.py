"""Bounded concurrent work on the event loop of this process."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from pandas_amr._records.raised import as_ordinary_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

Item = TypeVar("Item")
Value = TypeVar("Value")


def is_cancelled() -> bool:
    """Tell whether the current task is being cancelled.

    If it is not, a ``CancelledError`` came from what the task waited for.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def await_user_code(awaited: Awaitable[Value]) -> Value:
    """Await something that may run functions of the user's.

    An exception that would end the loop, or the waiting task, becomes an ordinary exception.
    """
    try:
        return await awaited
    except Exception:
        raise
    except BaseException as raised:
        if isinstance(raised, asyncio.CancelledError) and is_cancelled():
            raise
        raise as_ordinary_error(raised) from raised


async def run_concurrently(
    work: Callable[[Item], Awaitable[Value]], items: Iterable[Item], *, limit: int
) -> AsyncIterator[Value]:
    """Yield ``work(item)`` for each item, in the order in which they finish.

    At most ``limit`` items are worked on at once. An item is drawn when a task is free. After an
    exception no further item is drawn. Work in flight may be paid for, so it is finished and its
    results are yielded before the first exception is raised. Closing the iterator cancels the work
    in flight.
    """
    workers = _Workers(work, iter(items), limit)
    workers.start_worker()
    try:
        for _ in workers.tasks:  # the list grows: a worker starts the next one before it ends
            while (result := await workers.results.get()) is not None:
                yield result[0]
        if workers.errors:
            raise workers.errors[0]
    finally:
        for task in workers.tasks:
            task.cancel()
        await asyncio.gather(*workers.tasks, return_exceptions=True)


@dataclass(slots=True)
class _Workers(Generic[Item, Value]):
    """Tasks that draw items from one source.

    Attributes:
        results: one tuple per finished item, and None per ended worker.
        errors: what the work raised.
    """

    work: Callable[[Item], Awaitable[Value]]
    source: Iterator[Item]
    limit: int
    results: asyncio.Queue[tuple[Value] | None] = field(default_factory=asyncio.Queue)
    errors: list[Exception] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start_worker(self) -> None:
        self.tasks.append(asyncio.create_task(self._run()))

    async def _run(self) -> None:
        """Work on items until there are none; start the next worker at the first item."""
        has_started_next = False
        try:
            for item in self.source:
                if self.errors:
                    return
                if not has_started_next and len(self.tasks) < self.limit:
                    has_started_next = True
                    self.start_worker()
                value = await self._work_on(item)
                self.results.put_nowait((value,))
        except Exception as error:  # noqa: BLE001 (raised at the end)
            self.errors.append(error)
        finally:
            self.results.put_nowait(None)

    async def _work_on(self, item: Item) -> Value:
        try:
            return await self.work(item)
        except Exception:
            raise
        except asyncio.CancelledError as raised:
            if is_cancelled():
                raise
            raise RuntimeError("The work waited for something that was cancelled.") from raised
        except BaseException as raised:
            raise as_ordinary_error(raised) from raised
