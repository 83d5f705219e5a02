"""Exceptions of the user's functions, made harmless to the event loop and readable."""

from __future__ import annotations


def ends_loop(raised: BaseException) -> bool:
    """Tell whether an exception would end more than its function: the loop, or a waiting task."""
    return not isinstance(raised, Exception) or isinstance(raised, StopIteration)


def as_ordinary_error(raised: BaseException) -> Exception:
    """Convert an exception that would end more than its function into an ordinary one."""
    if isinstance(raised, Exception) and not ends_loop(raised):
        return raised
    error = RuntimeError(f"{type(raised).__name__} was raised")
    error.__cause__ = raised
    return error


def describe_error(error: BaseException) -> str:
    """Give the type and text of an error, even if its text raises.

    Example:
        >>> describe_error(ValueError("no number"))
        'ValueError: no number'
    """
    try:
        text = str(error)
    except BaseException as broken:  # noqa: BLE001 (an error of the user's: __str__ may do anything)
        text = f"its text raised {type(broken).__name__}"
    return f"{type(error).__name__}: {text}"
