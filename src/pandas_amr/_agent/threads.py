"""A user's functions in threads of their own: one that never returns holds up nothing else, and no end of Python."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from typing import TYPE_CHECKING, Any

from pandas_amr._stopped import contained
from pandas_amr.engines.local import await_contained

if TYPE_CHECKING:
    from collections.abc import Callable


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


async def called(function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    """What a function of the user's gives: called in a thread, where it is no coroutine function, and awaited."""
    if inspect.iscoroutinefunction(function):
        return await await_contained(function(*args, **options))
    value = await in_thread(function, *args, **options)
    return await await_contained(value) if inspect.isawaitable(value) else value


def called_here(function: Callable[..., Any], /, *args: Any) -> Any:
    """What a short function of the user's gives, where there is no waiting."""
    try:
        return function(*args)
    except Exception as error:
        if isinstance(error, StopIteration):
            raise contained(error) from error
        raise
    except BaseException as raised:
        raise contained(raised) from raised
