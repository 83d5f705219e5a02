"""The engine: one event loop on one daemon thread per process, and work in threads that does not hold it up."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from typing import TYPE_CHECKING, Any

from pandas_amr._records.clock import CLOCK
from pandas_amr._records.forks import forkable_lock
from pandas_amr._records.raised import contained

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Coroutine

THREAD = "pandas-amr"
FEW = 256  # items that are worked on at once, on the loop

_lock = forkable_lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}  # by process: a fork has no thread of its own


def engine_loop() -> asyncio.AbstractEventLoop:
    """The process's engine: one loop on one daemon thread, begun at the first call."""
    with _lock:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = asyncio.new_event_loop()
            CLOCK.drive(loop)
            threading.Thread(target=loop.run_forever, name=THREAD, daemon=True).start()
            _loops[os.getpid()] = loop
        return loop


def is_engine(loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether a loop is the process's engine, which runs until the process ends."""
    return _loops.get(os.getpid()) is loop


def submit(work: Coroutine[Any, Any, Any]) -> concurrent.futures.Future[Any]:
    """Run a coroutine on the engine; the caller's context variables go with it."""
    return asyncio.run_coroutine_threadsafe(work, engine_loop())


async def in_thread(function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    """Call the function in a daemon thread, with the caller's context, and wait for what it gives or raises.

    ``asyncio.to_thread`` has few threads, shared with everything else, and Python's end waits for them.
    """
    loop = asyncio.get_running_loop()
    given: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def told(value: Any, error: BaseException | None) -> None:
        if not given.done():  # nobody may be waiting any more
            given.set_result(value) if error is None else given.set_exception(error)

    def run() -> None:
        value, error = None, None
        try:
            value = context.run(function, *args, **options)
        except BaseException as raised:  # noqa: BLE001 (raised again where it is waited for)
            error = contained(raised)
        if not loop.is_closed():
            loop.call_soon_threadsafe(told, value, error)

    threading.Thread(target=run, name="pandas-amr-function", daemon=True).start()
    return await given


async def aside(function: Callable[..., Any], /, *args: Any, size: int) -> Any:
    """Call what takes as long as ``size`` says: in a thread, so that other runs go on, or at once if that is little."""
    return await in_thread(function, *args) if size > FEW else function(*args)
