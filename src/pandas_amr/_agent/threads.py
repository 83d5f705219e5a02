"""Call a user's functions in threads of their own.

A function that never returns blocks nothing else, not even the end of the program.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from pandas_amr._records.concurrency import await_user_code
from pandas_amr._records.engine import in_thread
from pandas_amr._records.raised import as_ordinary_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def call_user_function(function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    """Call a user's function and return its value: sync in a thread, async awaited."""
    if inspect.iscoroutinefunction(function):
        return await _await_in_task(function(*args, **options))
    value = await in_thread(function, *args, **options)
    return await _await_in_task(value) if inspect.isawaitable(value) else value


async def _await_in_task(awaited: Awaitable[Any]) -> Any:
    """Await something in a task of its own: code that cancels its task cancels no other."""
    return await await_user_code(asyncio.ensure_future(await_user_code(awaited)))


def call_contained(function: Callable[..., Any], /, *args: Any) -> Any:
    """Call a short function of the user's in this thread, for callers that cannot wait."""
    try:
        return function(*args)
    except StopIteration as error:
        raise as_ordinary_error(error) from error
    except Exception:
        raise
    except BaseException as error:
        raise as_ordinary_error(error) from error
