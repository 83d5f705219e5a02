"""Tracebacks that show the user's lines and not ours; all of them with ``AMR_DEBUG=1``."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from pandas_amr._records.callers import MACHINERY, top_module
from pandas_amr.errors import AMRError, AMRWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

P = ParamSpec("P")
R = TypeVar("R")
AnyClass = TypeVar("AnyClass", bound=type)

DEBUG_VARIABLE = "AMR_DEBUG"
PACKAGE = "pandas_amr"
CALLED_BY_USERS = frozenset({"__init__", "__call__"})
CARRIERS = MACHINERY - {"pandas"}  # below a line of the user's, pandas is what that called
# What fails inside of these, called by us, is nothing of the user's.
LIBRARIES = MACHINERY | {
    "aiohttp", "anyio", "httpcore2", "httpx2", "json", "numpy", "openai", "pyarrow", "pydantic",
    "sqlite3", "ssl", "tiktoken",
}  # fmt: skip
GENERATED = "<string>"  # the file of what `dataclasses` writes
_STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep  # noqa: PTH120 (as frames spell it)


class UserTraceback:
    """Hides the library's frames from what leaves a block.

    Hidden are those of our errors and warnings, of Ctrl-C and of cancellation. Any other exception
    is a bug of ours: it keeps all its frames.
    """

    def __enter__(self) -> None:
        self._handled = sys.exception()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or os.environ.get(DEBUG_VARIABLE, "") not in {"", "0"}:
            return
        if isinstance(error, AMRError | AMRWarning) or not isinstance(error, Exception):
            hide_internals(error, self._handled)


def user_traceback(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function: what it raises shows the line of its caller, and no line of ours.

    The frame of a ``with`` statement that raises again adds itself to no traceback: so the
    decorator's own does not show either.
    """
    hidden = UserTraceback

    def call(*args: P.args, **options: P.kwargs) -> R:
        with hidden():
            return function(*args, **options)

    # Doctest looks only at functions whose globals are those of the module that it tests.
    module = sys.modules[function.__module__]
    own = FunctionType(call.__code__, vars(module), None, None, call.__closure__)
    return functools.update_wrapper(own, function)


def user_tracebacks(kind: AnyClass) -> AnyClass:
    """Decorate a class that users call methods of: see ``user_traceback``."""
    for name, method in list(vars(kind).items()):
        is_public = name in CALLED_BY_USERS or not name.startswith("_")
        if is_public and inspect.isfunction(method) and _may_raise_ours(kind, method):
            setattr(kind, name, user_traceback(method))
    return kind


def _may_raise_ours(kind: type, method: FunctionType) -> bool:
    """Tell whether a call may raise an error of ours.

    A call that makes a coroutine or a generator raises later; and what a dataclass writes as
    ``__init__`` sets fields, which each request does a dozen times.
    """
    if _runs_later(method):
        return False
    is_written = inspect.unwrap(method).__code__.co_filename == GENERATED
    return not is_written or hasattr(kind, "__post_init__")


def _runs_later(method: object) -> bool:
    """Tell whether a call only makes a coroutine or a generator, which raises later."""
    return (
        inspect.iscoroutinefunction(method)
        or inspect.isgeneratorfunction(method)
        or inspect.isasyncgenfunction(method)
    )


def hide_internals(error: BaseException, handled: BaseException | None) -> None:
    """Cut the traceback of an error, and those of its causes, down to the user's frames.

    Args:
        error: what leaves the library.
        handled: the exception that the user's code was handling when it called; Python shows it
            above the error.
    """
    error.__traceback__ = _user_part(error.__traceback__)
    error.__context__ = None if error in _chain(handled) else handled
    error.__suppress_context__ = error.__cause__ is not None
    for cause in _chain(error.__cause__):
        cause.__traceback__ = _user_part(cause.__traceback__)
        context = cause.__context__
        if context is not None and _user_part(context.__traceback__) is None:
            cause.__context__ = None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Give an exception and what Python shows above it, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _user_part(trace: TracebackType | None) -> TracebackType | None:
    """Give a traceback from the user's first line on, without our frames; None if it has none."""
    entries: list[TracebackType] = []
    while trace is not None:
        entries.append(trace)
        trace = trace.tb_next
    part = None
    for entry in reversed(entries[_user_start(entries) :]):
        if top_module(entry.tb_frame) not in CARRIERS:
            part = TracebackType(part, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return part


def _user_start(entries: Sequence[TracebackType]) -> int:
    """Find where the user's part of a traceback begins.

    That is at the first frame that is neither ours nor of an installed library. A function of the
    user's may be installed, too: else it begins below our last frame, unless that called a library
    of ours.
    """
    below_ours = 0
    for place, entry in enumerate(entries):
        if top_module(entry.tb_frame) == PACKAGE:
            below_ours = place + 1
        elif not _is_installed(entry.tb_frame.f_code.co_filename):
            return place
    for place, entry in enumerate(entries[below_ours:], start=below_ours):
        if top_module(entry.tb_frame) not in LIBRARIES:
            return place
    return len(entries)


def _is_installed(file: str) -> bool:
    """Tell whether a file is one of Python's or of an installed library, compiled ones included."""
    is_library = "site-packages" in file or "dist-packages" in file
    is_library = is_library or file.endswith((".pyx", ".pxi"))
    return is_library or file.startswith(("<frozen", _STANDARD_LIBRARY))
