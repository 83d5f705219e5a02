"""A user's functions in threads of their own: one that never returns holds up nothing else, and no end of Python."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from pandas_amr._records.concurrency import await_contained
from pandas_amr._records.engine import in_thread
from pandas_amr._records.raised import contained

if TYPE_CHECKING:
    from collections.abc import Callable


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
