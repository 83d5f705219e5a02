"""Check that a user's function can be called as it will be."""

from __future__ import annotations

import inspect
from typing import Any

from pandas_amr._plan.call import Pipeline
from pandas_amr.errors import UsageError

ROW_NAMES = frozenset({"row", "a_row", "each_row", "one_row"})


def check_function(function: Any, argument: str, frame: str, name: str) -> None:
    """Refuse a function that does not take one frame, or that takes a row by its own account.

    Args:
        function: the user's function.
        argument: what it was given as, for people.
        frame: what it is called with, for people.
        name: what its parameter may be called.

    Raises:
        UsageError: it takes something else.
    """
    if isinstance(function, Pipeline | type):
        return
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # a builtin does not tell
        return
    shown = getattr(function, "__name__", "the function")
    wanted = f"{argument} takes a function of one argument, {frame} as a frame"
    try:
        bound = signature.bind(None)
    except TypeError:
        raise UsageError(f"{wanted}; {shown}{signature} cannot be called so.") from None
    parameter = next(iter(bound.arguments), "")
    if parameter.casefold() in ROW_NAMES:
        raise UsageError(
            f"{wanted}, and {shown} takes a {parameter!r}. For each row: "
            f"lambda {name}: [f(row) for _, row in {name}.iterrows()]. "
            f"If it does take a frame, call its parameter {name!r}."
        )
