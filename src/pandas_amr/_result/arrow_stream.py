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


def table_of_frame(frame: pd.DataFrame) -> pa.Table:
    """Convert a frame; named levels of its index are the first columns, others are left out.

    Raises:
        UsageError: a level has the name of a column, or a column holds what Arrow cannot.

    Example:
        >>> index = pd.Index([7, 8], name="id")
        >>> table_of_frame(pd.DataFrame({"text": ["a", "b"]}, index=index)).column_names
        ['id', 'text']
    """
    labels: list[Hashable] = []
    columns: list[pd.Series] = []
    for number, name in enumerate(frame.index.names):
        if name is not None:
            labels.append(name)
            columns.append(pd.Series(frame.index.get_level_values(number)))
    _check_levels(labels, frame)
    for number, label in enumerate(frame.columns):
        labels.append(label)
        columns.append(frame.iloc[:, number])
    arrays: dict[str, Any] = {}
    for name, column in zip(make_json_keys(labels, taken=()), columns, strict=True):
        arrays[name] = _to_one_type(column, name)
    return pa.table(arrays)


def _check_levels(names: list[Hashable], frame: pd.DataFrame) -> None:
    for name in names:
        if name in frame.columns:
            raise UsageError(
                f"The index and a column both have the name {name!r}, and both would be columns. "
                "Rename the index: result.frame.rename_axis(...)."
            )


def _to_one_type(column: pd.Series, name: str) -> pa.Array | pa.ChunkedArray:
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
        return pa.array(values, from_pandas=True)
    except REFUSED as error:
        raise UsageError(
            f"Column {name!r} ({column.dtype}) holds values that are not of one Arrow type "
            f"({type(error).__name__}). Convert it: result.frame.astype({{{name!r}: str}})."
        ) from None


def _with_texts(column: pd.Series) -> pd.Series:
    """Make JSON texts of categories of several types, as a finding's choices are held in Arrow."""
    categories = column.cat.categories
    if len({type(category) for category in categories}) < 2:
        return column
    texts = [json.dumps(category, default=str) for category in categories]
    return column.cat.rename_categories(texts)
