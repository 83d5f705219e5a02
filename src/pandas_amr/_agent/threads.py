"""Call a user's functions in threads of their own.

A function that never returns blocks nothing else, not even the end of the program.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from pandas_amr._records.concurrency import await_contained
from pandas_amr._records.engine import in_thread
from pandas_amr._records.raised import contained

if TYPE_CHECKING:
    from collections.abc import Callable


async def called(function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    """Call a user's function and return its value: sync in a thread, async awaited."""
    if inspect.iscoroutinefunction(function):
        return await await_contained(function(*args, **options))
    value = await in_thread(function, *args, **options)
    return await await_contained(value) if inspect.isawaitable(value) else value


def called_here(function: Callable[..., Any], /, *args: Any) -> Any:
    """Call a short function of the user's in this thread, for callers that cannot wait."""
    try:
        return function(*args)
    except StopIteration as error:
        raise contained(error) from error
    except Exception:
        raise
    except BaseException as error:
        raise contained(error) from error
