"""What several arguments refuse alike, and what an error says of it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Callable


def takes_arguments(function: Callable[..., object], count: int) -> bool:
    """Whether a function can be called with so many arguments; of a builtin that is not known.

    Example:
        >>> takes_arguments(lambda event: None, 1), takes_arguments(lambda: None, 1)
        (True, False)
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # a builtin has none
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def is_whole(value: object, least: int) -> TypeGuard[int]:
    """Whether a value is a whole number, at least so large; True and False are none.

    Example:
        >>> is_whole(1, 1), is_whole(0, 1), is_whole(True, 1), is_whole("1", 1)
        (True, False, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def show_refused(value: object) -> str:
    """Return the repr of a value, or what it is if it holds cells: no error repeats those.

    Example:
        >>> import pandas as pd
        >>> show_refused("5"), show_refused(pd.Series(["a cell"]))
        ("'5'", 'Series')
    """
    kind = type(value)
    is_array = hasattr(kind, "__array__") and getattr(value, "ndim", 1) > 0
    if is_array or hasattr(kind, "__arrow_c_stream__"):
        return kind.__name__
    return repr(value)
