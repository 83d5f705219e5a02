"""Which units are empty: nothing in their content columns can be read."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

import numpy as np

from pandas_amr._units.cells import cell

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from pandas_amr._units.rows import BoolArray, IntArray

# Spaces, controls, and characters without a width, such as a byte-order mark.
INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})


def find_empty_rows(frame: pd.DataFrame, columns: Sequence[int], rows: IntArray) -> IntArray:
    """Return those of some rows, in ascending order, in which all of some columns are empty.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"text": ["a", " ", None], "stars": [1.0, float("nan"), 2.0]})
        >>> find_empty_rows(frame, (0, 1), np.arange(3)).tolist()
        [1]
    """
    empty = rows
    for column in columns:
        if not len(empty):
            break
        cells = frame.iloc[:, column]
        if len(empty) < len(cells):
            cells = cells.iloc[empty]
        empty = empty[_are_empty(cells)]
    return empty


def find_empty_columns(frame: pd.DataFrame, columns: Sequence[int]) -> IntArray:
    """Return the places, among some columns, of those in which all cells are empty."""
    empty = [_are_empty(frame.iloc[:, column]).all() for column in columns]
    return np.flatnonzero(empty)


def _are_empty(column: pd.Series) -> BoolArray:
    """Tell of each cell of a column whether nothing in it can be read."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biufcmM":
        return np.asarray(column.isna(), dtype=bool)
    # No map(): a cell of the user's whose text raises StopIteration would end it in silence.
    are_empty = [is_empty(cell(value)) for value in column.tolist()]
    return np.array(are_empty, dtype=bool)


def is_empty(value: object) -> bool:
    """Tell whether nothing in a value of JSON can be read.

    That is a missing value, a text of characters that do not show, and a list or an object that
    holds nothing else. A number is read, and so is False.

    Example:
        >>> [is_empty(value) for value in (None, " ", [None, ""], {"a": []}, 0, False, "-")]
        [True, True, True, True, False, False, False]
    """
    if isinstance(value, str):
        return _is_blank(value)
    if isinstance(value, list):
        return all(is_empty(item) for item in value)
    if isinstance(value, dict):
        return all(is_empty(item) for item in value.values())
    return value is None


def _is_blank(text: str) -> bool:
    rest = text.strip()
    if not rest or rest[0].isprintable():
        return not rest
    return all(unicodedata.category(character) in INVISIBLE for character in rest)
