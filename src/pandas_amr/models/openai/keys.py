"""The key of a server: a text, or a function that gives the one of now."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections import deque
from typing import TYPE_CHECKING, Any

from pandas_amr._records.engine import in_thread
from pandas_amr._records.raised import contained, ends_more
from pandas_amr.errors import ModelConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

REMEMBERED = 8  # keys that an error of a request under way may still name


class Key:
    """A key as it is now.

    Args:
        given: the key; or a function of no arguments, sync or async, that gives it and is called for each request.
        what: where it was given, for people.
        timeout_s: seconds that a request may take; the function, which is a part of it, may take half of them.

    Attributes:
        name: what limits are known by: the key; of a function its own name, whatever it gives.

    Raises:
        UsageError: no HTTP header can hold the key.
    """

    def __init__(self, given: str | Callable[[], Any], what: str, timeout_s: float) -> None:
        self._what = what
        self._longest_s = timeout_s / 2
        self._function = None if isinstance(given, str) else given
        self._known: deque[str] = deque(maxlen=REMEMBERED)
        if isinstance(given, str):
            key = given.strip()  # files of secrets end in a new line
            if not _is_sendable(key):
                raise UsageError(
                    f"The key has characters that no HTTP header can hold: see {what}."
                )
            self._remember(key)
            self.name = key
        else:
            self.name = f"function {function_name(given)}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no text may show: the key, or the last ones."""
        return tuple(self._known)

    @property
    def rotates(self) -> bool:
        """Whether a function gives it."""
        return self._function is not None

    async def current(self) -> str:
        """The key of now.

        Raises:
            ModelConfigError: its function raised, gave no key, or took too long; the text holds nothing of either.
        """
        if self._function is None:
            return self._known[-1] if self._known else ""
        problem = ""
        key: Any = None
        try:
            async with asyncio.timeout(self._longest_s) as deadline:
                key = await _called(self._function)
        except TimeoutError:
            problem = (
                f"gave none within {self._longest_s:g} s"
                if deadline.expired()
                else "raised TimeoutError"
            )
        except Exception as error:  # noqa: BLE001 (the user's function; its text may hold a secret)
            cause = error.__cause__
            problem = f"raised {type(cause if cause is not None and ends_more(cause) else error).__name__}"
        if not problem and not (isinstance(key, str) and key.strip()):
            problem = "gave an empty text" if isinstance(key, str) else f"gave {type(key).__name__}"
        if not problem and not _is_sendable(key.strip()):
            problem = "gave a text that no HTTP header can hold"
        if problem:  # raised here, outside of the except block, which would chain what was raised
            name = function_name(self._function)
            raise ModelConfigError(
                f"{self._what} takes a key or a function that gives one; {name}() {problem}."
            )
        self._remember(key.strip())
        return str(key.strip())

    def _remember(self, key: str) -> None:
        if key and key not in self._known:
            self._known.append(key)


def function_name(function: Any) -> str:
    """Name a function by what is the same in each process and for each of its copies.

    Example:
        >>> function_name(function_name)
        'pandas_amr.models.openai.keys.function_name'
    """
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


async def _called(function: Callable[[], Any]) -> Any:
    """What a function gives: called in a thread if it is not async, since it may ask a server for it."""
    try:
        value = function() if _is_async(function) else await in_thread(function)
        return await value if inspect.isawaitable(value) else value
    except asyncio.CancelledError as raised:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise contained(raised) from raised
    except (KeyboardInterrupt, SystemExit) as raised:  # they would end the loop
        raise contained(raised) from raised


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        type(function).__call__
    )


def _is_sendable(key: str) -> bool:
    return key.isascii() and key.isprintable()
