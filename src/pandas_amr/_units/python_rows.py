"""Frames of plain Python: a list of values or of dicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import BaseModel

from pandas_amr._units.columns import UNNAMED
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sized

EXACT = 2**53  # the whole numbers up to which a float holds every one


def frame_of_list(values: Sequence[Any]) -> pd.DataFrame:
    """Make a frame of a list: rows if it holds dicts, else one column.

    Raises:
        UsageError: it holds frames or lists, or dicts beside other values.
    """
    if not values:
        return pd.DataFrame({UNNAMED: pd.Series([], dtype=str)})
    kinds = list(dict.fromkeys(map(type, values)))  # few, of however many values
    are_rows = [issubclass(kind, Mapping) for kind in kinds]
    if all(are_rows):
        return _frame_of_rows(values)
    for kind in kinds:
        way = _refuse_item(kind)
        if way:
            number = list(map(type, values)).index(kind)
            beside = " beside others" if any(are_rows) else ""
            raise UsageError(
                "A list holds dicts, one per row, or the values of one column; item "
                f"{number} is {kind.__name__}{beside}. {way}"
            )
    return pd.DataFrame({UNNAMED: array_of_values(values)})


def _refuse_item(kind: type) -> str:
    """Say what would be right if a value of a type is no cell; an empty text if it is one."""
    if issubclass(kind, pd.DataFrame | pd.Series):
        return "Join them: pd.concat(list)."
    if issubclass(kind, Mapping):
        return 'Dicts that are cells are a column: {"value": list}.'
    if issubclass(kind, BaseModel):
        return "Give [item.model_dump() for item in list]."
    if dataclasses.is_dataclass(kind):
        return "Give [dataclasses.asdict(item) for item in list]."
    if issubclass(kind, list | tuple | set | frozenset | np.ndarray):
        return 'Rows are pd.DataFrame(list, columns=[...]); lists as cells, {"value": list}.'
    if hasattr(kind, "__arrow_c_stream__") or hasattr(kind, "__arrow_c_array__"):
        return "Join them to one frame by the methods of their library."
    return ""


def _frame_of_rows(rows: Sequence[Mapping[Any, Any]]) -> pd.DataFrame:
    """Make a frame of dicts; a key that a row does not have is missing there."""
    names: dict[Any, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    columns: dict[Any, Any] = {}
    for name in names:
        columns[name] = array_of_values([row.get(name) for row in rows])
    return pd.DataFrame(columns, index=pd.RangeIndex(len(rows)))


def array_of_values(values: Sequence[Any]) -> Any:
    """Make the array that pandas makes, unless it would alter whole numbers or refuse texts.

    Example:
        >>> array_of_values([1, None, 9007199254740993])
        <ArrowExtensionArray>
        [1, <NA>, 9007199254740993]
        Length: 3, dtype: int64[pyarrow]
    """
    items = list(values)
    try:
        array: Any = pd.Series(items, dtype=None if items else str).array
    except (UnicodeEncodeError, OverflowError, ValueError, TypeError):
        return _objects(items)  # a lone surrogate, or what only Python can hold
    if array.dtype.kind != "f":
        return array
    wholes = [value for value in items if _is_whole_number(value)]
    if not wholes:
        return array
    if all(_is_whole_number(value) or pd.isna(value) for value in items):
        return _nullable_wholes(items)
    is_exact = all(abs(value) <= EXACT for value in wholes)
    return array if is_exact else _objects(items)


def _is_whole_number(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _nullable_wholes(items: list[Any]) -> Any:
    whole = [int(value) if _is_whole_number(value) else None for value in items]
    try:
        array = pa.array(whole, pa.int64())
        return pd.arrays.ArrowExtensionArray(pa.chunked_array([array]))
    except OverflowError:
        return _objects(whole)


def _objects(items: list[Any]) -> Any:
    array = np.empty(len(items), dtype=object)
    for number, item in enumerate(items):
        array[number] = item
    # pandas would look for a dtype of its own if this were no Index.
    return pd.Index(array, dtype=object, tupleize_cols=False)


def check_lengths(columns: Mapping[Any, Sized]) -> None:
    """Check that columns have one length.

    Raises:
        UsageError: they differ; the message names two of them.
    """
    first: tuple[Any, int] | None = None
    for name, values in columns.items():
        if first is None:
            first = (name, len(values))
        elif len(values) != first[1]:
            raise UsageError(
                f"The columns of a dict differ in length: {first[0]!r} has {first[1]}, "
                f"{name!r} {len(values)}."
            )
