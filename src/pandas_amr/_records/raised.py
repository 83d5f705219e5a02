"""TODO."""

from __future__ import annotations


def ends_more(raised: BaseException) -> bool:
    """Whether an exception would end more than the function that raised it: a loop, or a task that waits."""
    return not isinstance(raised, Exception) or isinstance(raised, StopIteration)


def contained(raised: BaseException) -> Exception:
    """Make what a function raised an error like any other."""
    if isinstance(raised, Exception) and not ends_more(raised):
        return raised
    error = RuntimeError(f"{type(raised).__name__} was raised")
    error.__cause__ = raised
    return error


def described(error: BaseException) -> str:
    """Say an error's type and text, though its text cannot be had.

    Example:
        >>> described(ValueError("no number"))
        'ValueError: no number'
    """
    try:
        text = str(error)
    except Exception as broken:  # noqa: BLE001 (an error of the user's, whose __str__ may do anything)
        text = f"its text raised {type(broken).__name__}"
    return f"{type(error).__name__}: {text}"
