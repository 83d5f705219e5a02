"""The key of a server: a text, or a function that gives the current one."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections import deque
from typing import TYPE_CHECKING, Any

from pandas_amr._records.concurrency import is_cancelled
from pandas_amr._records.engine import in_thread
from pandas_amr._records.raised import as_ordinary_error, ends_loop
from pandas_amr.errors import ModelConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

REMEMBERED = 8  # last keys that an error of a request under way may still contain


class Key:
    """The key of a server, which may change.

    Args:
        source: the key; or a function without arguments, sync or async, that gives it and is called
            for each request.
        place: the argument that holds it, for people.
        timeout_s: seconds that a request may take. The function may take half of them.

    Attributes:
        name: the name under which limits are tracked: the key; or the function's own name, whatever
            it gives.

    Raises:
        UsageError: an HTTP header cannot hold the key.
    """

    def __init__(self, source: str | Callable[[], Any], place: str, timeout_s: float) -> None:
        self._place = place
        self._longest_s = timeout_s / 2
        self._function = None if isinstance(source, str) else source
        self._last_keys: deque[str] = deque(maxlen=REMEMBERED)
        if isinstance(source, str):
            self.name = source.strip()  # files of secrets end in a new line
            if not _is_sendable(self.name):
                raise UsageError(
                    f"The key has characters that no HTTP header can hold: see {place}."
                )
            self._remember(self.name)
        else:
            self.name = f"function {function_name(source)}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no text may show: the key, or the last keys."""
        return tuple(self._last_keys)

    @property
    def rotates(self) -> bool:
        """Whether a function gives the key."""
        return self._function is not None

    async def current(self) -> str:
        """Give the current key.

        Raises:
            ModelConfigError: its function raised, gave no key, or took too long. The text repeats
                neither the key nor the text of the exception, which may hold it.
        """
        if self._function is None:
            return self.name
        key, problem = await self._call_function(self._function)
        if problem:  # raised here: inside the except block it would chain what the function raised
            name = function_name(self._function)
            raise ModelConfigError(
                f"{self._place} takes a key or a function that gives one; {name}() {problem}."
            )
        self._remember(key)
        return key

    async def _call_function(self, function: Callable[[], Any]) -> tuple[str, str]:
        """Call the function of the key; give the key and what is wrong, one of them empty."""
        try:
            async with asyncio.timeout(self._longest_s) as deadline:
                key = await _call(function)
        except TimeoutError:
            if deadline.expired():
                return "", f"gave none within {self._longest_s:g} s"
            return "", "raised TimeoutError"
        except Exception as error:  # noqa: BLE001 (the user's function; its text may hold a secret)
            raised: BaseException = error
            if error.__cause__ is not None and ends_loop(error.__cause__):
                raised = error.__cause__
            return "", f"raised {type(raised).__name__}"
        if not isinstance(key, str):
            return "", f"gave {type(key).__name__}"
        key = key.strip()
        if not key:
            return "", "gave an empty text"
        if not _is_sendable(key):
            return "", "gave a text that no HTTP header can hold"
        return key, ""

    def _remember(self, key: str) -> None:
        if key and key not in self._last_keys:
            self._last_keys.append(key)


def function_name(function: object) -> str:
    """Give a name of a function that is the same in each process and for each of its copies.

    Example:
        >>> function_name(function_name)
        'pandas_amr.models.openai.keys.function_name'
    """
    function = _unwrap(function)
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _unwrap(function: object) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


async def _call(function: Callable[[], Any]) -> Any:
    """Call a function of the user's, in a thread unless it is async: it may ask a server."""
    try:
        if _is_async(function):
            return await function()
        value = await in_thread(function)
        return await value if inspect.isawaitable(value) else value
    except asyncio.CancelledError as raised:
        if is_cancelled():
            raise
        raise as_ordinary_error(raised) from raised
    except (KeyboardInterrupt, SystemExit) as raised:  # they would end the loop
        raise as_ordinary_error(raised) from raised


def _is_async(function: object) -> bool:
    function = _unwrap(function)
    if inspect.iscoroutinefunction(function):
        return True
    return inspect.iscoroutinefunction(type(function).__call__)


def _is_sendable(key: str) -> bool:
    return key.isascii() and key.isprintable()
