"""What an error says of a value that it refuses."""

from __future__ import annotations


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
