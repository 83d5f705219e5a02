"""The engine: one event loop on one daemon thread per process, and threads for slow functions."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
from typing import TYPE_CHECKING, Any

from pandas_amr._records.clock import CLOCK
from pandas_amr._records.forks import forkable_lock
from pandas_amr._records.raised import as_ordinary_error

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import Callable, Coroutine

THREAD = "pandas-amr"
FEW = 256  # items that are worked on at once, on the loop

_lock = forkable_lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}  # by process: a fork has no thread of its own


def engine_loop() -> asyncio.AbstractEventLoop:
    """Give the engine of this process: one loop on one daemon thread, started at the first call."""
    with _lock:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = _make_loop()
            CLOCK.drive(loop)
            threading.Thread(target=_run, args=(loop,), name=THREAD, daemon=True).start()
            _loops[os.getpid()] = loop
        return loop


def _make_loop() -> asyncio.AbstractEventLoop:
    """Make a loop of Python's own: a policy of the user's may make one for another thread only."""
    kind = getattr(asyncio, "ProactorEventLoop", asyncio.SelectorEventLoop)  # Windows has both
    loop: asyncio.AbstractEventLoop = kind()
    return loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop until the process ends.

    A tool of the user's may stop it, or begin a task that calls ``sys.exit``: other runs go on.
    """
    while True:
        with contextlib.suppress(KeyboardInterrupt, SystemExit):  # the task holds it
            loop.run_forever()


def is_engine(loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether a loop is the engine of this process, which runs until the process ends."""
    return _loops.get(os.getpid()) is loop


def submit(work: Coroutine[Any, Any, Any]) -> concurrent.futures.Future[Any]:
    """Run a coroutine on the engine, with the context variables of the caller."""
    return asyncio.run_coroutine_threadsafe(work, engine_loop())


async def in_thread(function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    """Call a function in a daemon thread, with the context of the caller, and await its result.

    ``asyncio.to_thread`` does not serve: its few threads are shared with everything else, and
    Python waits for them before it ends.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def call() -> None:
        value, error = None, None
        try:
            value = context.run(function, *args, **options)
        except BaseException as raised:  # noqa: BLE001 (raised again where it is awaited)
            error = as_ordinary_error(raised)
        if not loop.is_closed():
            loop.call_soon_threadsafe(_set_result, result, value, error)

    threading.Thread(target=call, name="pandas-amr-function", daemon=True).start()
    return await result


def _set_result(result: asyncio.Future[Any], value: object, error: BaseException | None) -> None:
    if result.done():  # nobody waits any more
        return
    if error is None:
        result.set_result(value)
    else:
        result.set_exception(error)


async def run_off_loop(function: Callable[..., Any], /, *args: Any, size: int) -> Any:
    """Call a function in a thread if it works on many items, else directly.

    In a thread, large work does not block the other runs on the loop.
    """
    if size > FEW:
        return await in_thread(function, *args)
    return function(*args)
