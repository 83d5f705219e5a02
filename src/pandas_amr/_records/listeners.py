"""Check what is to be called with events."""

from __future__ import annotations

import inspect
from collections import deque
from typing import TYPE_CHECKING, Any

from pandas_amr._records.refused import takes_arguments
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

COLLECTIONS = (list, deque, set, dict)


def runs_later(function: Callable[..., Any]) -> bool:
    """Whether a call of the function gives what runs after it."""
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    return any(is_kind(function) for is_kind in kinds)


def check_listener(given: object, where: str) -> None:
    """Refuse what cannot be called with an event.

    Args:
        given: what was given.
        where: the argument, for people.

    Raises:
        UsageError: it cannot; the message says what would be right.
    """
    wanted = f"{where} takes a function of one event"
    if not callable(given):
        raise UsageError(f"{wanted}, such as print, not {type(given).__name__}.")
    if runs_later(given) or runs_later(type(given).__call__):
        raise UsageError(
            f"{wanted}, and a plain one: nothing awaits what an async one gives. It is called on a "
            "thread of its own; to reach your loop: "
            "lambda event: loop.call_soon_threadsafe(queue.put_nowait, event)."
        )
    if not takes_arguments(given, 1):
        raise UsageError(f"{wanted}; this one does not take exactly one argument.")


def refuse_collector(given: object, where: str) -> None:
    """Refuse to pickle what collects into a list of this process: events elsewhere would be lost.

    Raises:
        UsageError: it does.
    """
    if isinstance(getattr(given, "__self__", None), COLLECTIONS):
        raise UsageError(
            f"{where} cannot be pickled: in another process it would collect into a copy, which "
            "nobody sees. Name a function that writes to where you look for it."
        )
