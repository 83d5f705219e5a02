"""Frames as Arrow tables for other libraries: pandas' index as columns, each column of one type."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pandas_amr._units.cells import make_json_keys
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Hashable

REFUSED = (pa.ArrowException, ValueError, TypeError, OverflowError, UnicodeError)


def table_of_frame(frame: pd.DataFrame, name: str = "result.frame") -> pa.Table:
    """Convert a frame; named levels of its index are the first columns, others are left out.

    A column of objects without a value is one of texts: that is what pandas 2 has for those.

    Args:
        frame: the frame.
        name: how it is called, for people.

    Raises:
        UsageError: a level has the name of a column, or a column holds what Arrow cannot.

    Example:
        >>> index = pd.Index([7, 8], name="id")
        >>> table_of_frame(pd.DataFrame({"text": ["a", "b"]}, index=index)).column_names
        ['id', 'text']
    """
    labels: list[Hashable] = []
    columns: list[pd.Series] = []
    for number, level in enumerate(frame.index.names):
        if level is None:
            continue
        values = frame.index.get_level_values(number)
        labels.append(level)
        columns.append(pd.Series(values))
    _check_levels(labels, frame, name)
    for number, label in enumerate(frame.columns):
        labels.append(label)
        columns.append(frame.iloc[:, number])
    keys = make_json_keys(labels, taken=())
    arrays: dict[str, Any] = {}
    for key, column in zip(keys, columns, strict=True):
        arrays[key] = _to_one_type(column, key, name)
    return pa.table(arrays)


def table_of_summary(summary: pd.DataFrame) -> pa.Table:
    """Convert a summary by group: what groups are known by are its first columns.

    A level without a name is called ``group``, or ``group_1`` and so on if there are several.

    Raises:
        UsageError: as of ``table_of_frame``.

    Example:
        >>> summary = pd.DataFrame({"stars": [4.5, 2.0]}, index=[True, False])
        >>> table_of_summary(summary).column_names
        ['group', 'stars']
    """
    levels = summary.index.names
    names: list[Any] = []
    for number, name in enumerate(levels):
        unnamed = "group" if len(levels) == 1 else f"group_{number + 1}"
        names.append(unnamed if name is None else name)
    return table_of_frame(summary.rename_axis(index=names), "result.output")


def _check_levels(levels: list[Hashable], frame: pd.DataFrame, name: str) -> None:
    for level in levels:
        if level in frame.columns:
            raise UsageError(
                f"The index and a column both have the name {level!r}, and both would be columns. "
                f"Rename the index: {name}.rename_axis(...)."
            )


def _to_one_type(column: pd.Series, label: str, name: str) -> pa.Array | pa.ChunkedArray:
    """Convert a column.

    Raises:
        UsageError: it holds what Arrow cannot; the message names it.
    """
    values: Any = column
    if isinstance(column.dtype, pd.SparseDtype):
        values = np.asarray(column)
    elif isinstance(column.dtype, pd.CategoricalDtype):
        values = _with_texts(column)
    try:
        array = pa.array(values, from_pandas=True)
        return array.cast(pa.string()) if pa.types.is_null(array.type) else array
    except REFUSED as error:
        raise UsageError(
            f"Column {label!r} ({column.dtype}) holds values that are not of one Arrow type "
            f"({type(error).__name__}). Convert it: {name}.astype({{{label!r}: str}})."
        ) from None


def _with_texts(column: pd.Series) -> pd.Series:
    """Make JSON texts of categories of several types, as a finding's choices are held in Arrow."""
    categories = column.cat.categories
    if len({type(category) for category in categories}) < 2:
        return column
    texts = [json.dumps(category, default=str) for category in categories]
    return column.cat.rename_categories(texts)
