"""The line of a user's code that called the library: warnings are attributed to it.

Frames are told apart by the name of their module, so that code without a file (a notebook's cell,
``exec``, a dbt model) is found like a script's.
"""

from __future__ import annotations

import dis
import inspect
import sys
import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pandas_amr._records.dbt_models import find_dbt_model, is_model_code, log_in_dbt
from pandas_amr._records.log import LOGGER, has_readers
from pandas_amr._records.quiet import filters_lock
from pandas_amr.errors import FailureWarning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

# Modules that stand between a user's line and ours: pandas makes accessors and pipes, the others
# carry calls to another thread or task.
MACHINERY = frozenset({
    "pandas_amr", "pandas", "asyncio", "concurrent", "contextlib", "functools", "nest_asyncio",
    "threading",
})  # fmt: skip
AWAITS = frozenset({"GET_AWAITABLE", "GET_AITER", "BEFORE_ASYNC_WITH"})
COROUTINES = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def top_module(frame: FrameType) -> str:
    """Name the top package of the module that a frame runs; empty if it has no name."""
    name = frame.f_globals.get("__name__")
    return name.partition(".")[0] if isinstance(name, str) else ""


def find_user_frame() -> FrameType | None:
    """Find the nearest frame of a user's code; None if this thread runs none."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 (inspect.currentframe is this)
    while frame is not None and top_module(frame) in MACHINERY:
        frame = frame.f_back
    return frame


@dataclass(frozen=True)
class Caller:
    """A line of a user's code.

    Attributes:
        file: its file, or what stands for one: ``<string>``, a cell of a notebook.
        line: its number.
        module: the name of its module, which filters of warnings may name.
        registry: which warnings of that module Python has shown.
        is_in_dbt: whether dbt runs the code, whose log is to have the warnings, too.
    """

    file: str
    line: int
    module: str
    registry: dict[Any, Any] = field(repr=False, compare=False)
    is_in_dbt: bool = False

    def warn(self, warning: Warning) -> None:
        """Issue a warning as one of this line, and log it.

        Failures are logged at the end of their run: a warning of one may quote an exception.

        Raises:
            Warning: a filter raises it.
        """
        if has_readers() and not isinstance(warning, FailureWarning):
            LOGGER.warning("%s", getattr(warning, "logged", None) or warning)
        with filters_lock:
            warnings.warn_explicit(
                warning,
                type(warning),
                self.file,
                self.line,
                module=self.module,
                registry=self.registry,
            )
        if self.is_in_dbt:
            text = getattr(warning, "logged", None) or str(warning)
            log_in_dbt(f"{self.file}:{self.line}: {type(warning).__name__}: {text}")


_run_caller: ContextVar[Caller | None] = ContextVar("pandas_amr_caller", default=None)


@contextmanager
def use_caller(caller: Caller | None) -> Iterator[None]:
    """In the block, ascribe warnings to a caller if no code of the user's stands on the stack."""
    token = _run_caller.set(caller)
    try:
        yield
    finally:
        _run_caller.reset(token)


def find_caller() -> Caller:
    """Find the line of the user's code that called, at whatever depth below it."""
    frame = find_user_frame()
    if frame is None:
        known = _run_caller.get()
        return known or Caller("sys", 1, "sys", {})  # as Python's own, beyond the last frame
    module = frame.f_globals.get("__name__")
    file = frame.f_code.co_filename
    dbt_model = find_dbt_model(frame)
    if dbt_model is not None and is_model_code(frame):
        file = dbt_model
    return Caller(
        file,
        frame.f_lineno,
        module if isinstance(module, str) else "<string>",
        frame.f_globals.setdefault("__warningregistry__", {}),
        is_in_dbt=dbt_model is not None,
    )


def warn_caller(warning: Warning) -> None:
    """Issue a warning at the line of the user's code that called.

    Raises:
        Warning: a filter raises it.
    """
    find_caller().warn(warning)


def is_awaited() -> bool:
    """Tell whether the user's code awaits what this call is going to return.

    The instruction after the call says so: only then can a call that returns no awaitable be
    refused before it has cost anything.
    """
    frame = find_user_frame()
    if frame is None or not frame.f_code.co_flags & COROUTINES:
        return False
    for instruction in dis.get_instructions(frame.f_code):
        if instruction.offset > frame.f_lasti and instruction.opname != "CACHE":
            return instruction.opname in AWAITS
    return False
