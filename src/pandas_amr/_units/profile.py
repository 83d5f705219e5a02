"""Profiles of columns: name, type, figures and frequent values of each."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._agent.prompts import preview_lines
from pandas_amr._units.cells import cell, make_json_keys, to_json_line

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLED_VALUES = 10
SAMPLED_ROWS = 10_000
VALUE_CHARACTERS = 200
PREVIEW_ROWS = 5
MANY_ROWS = 20  # that hold a value: so many make it a property of the table
SHORT_PROFILE = ("column", "dtype", "distinct")


def profile_columns(frame: pd.DataFrame, columns: Sequence[int]) -> pd.DataFrame:
    """Profile columns, one row per column.

    Returns:
        A frame labelled by the columns' names: ``column dtype rows missing distinct lowest highest
        mean values``. ``values`` lists the most frequent of at most 10,000 rows that are spread
        over the frame.
    """
    labels = frame.columns[list(columns)]
    records: list[dict[str, Any]] = []
    for number, label in zip(columns, labels, strict=True):
        column = frame.iloc[:, number]
        records.append(_profile(column, str(label)))
    empty = pd.Series([], dtype=object)
    names = list(_profile(empty, ""))  # also if there is no column
    return pd.DataFrame(records, index=labels, columns=names)


def write_profiles(
    frame: pd.DataFrame, values: int = SAMPLED_VALUES, *, content: Sequence[int] | None = None
) -> list[str]:
    """Write each column's profile as a line of JSON, with at most ``values`` of its values.

    Args:
        frame: the frame.
        values: most values per column.
        content: the content columns; of the others only the name, the type and the number of
            distinct values are written. Default: all columns.
    """
    lines: list[str] = []
    records = profile_columns(frame, range(len(frame.columns))).to_dict("records")
    for column, record in enumerate(records):
        profile = {str(name): cell(value) for name, value in record.items()}
        del profile["rows"]
        if content is None or column in content:
            profile["values"] = profile["values"][:values]
        else:
            profile = {name: profile[name] for name in SHORT_PROFILE}
        shown = {name: part for name, part in profile.items() if part is not None}
        lines.append(to_json_line(shown))
    return lines


def find_rows_in_profiles(
    frame: pd.DataFrame, columns: Sequence[int], values: int = SAMPLED_VALUES
) -> list[int]:
    """Find the rows of which the profiles of some columns show a value.

    A value that many rows hold tells of the column, and not of a row.
    """
    places: set[int] = set()
    for number in columns:
        column = frame.iloc[:, number]
        profile = _profile(column, "")
        shown = [*profile["values"][:values], profile["lowest"], profile["highest"]]
        places.update(find_rows_holding(column, shown, VALUE_CHARACTERS))
    return sorted(places)


def find_rows_holding(column: pd.Series, shown: Sequence[Any], characters: int) -> list[int]:
    """Find the rows that hold a value that is shown, cut to so many characters, and is rare."""
    texts = {str(value) for value in shown if value is not None}
    try:
        codes, distinct = pd.factorize(column)
    except TypeError:  # lists and dicts
        codes, distinct = pd.factorize(column.map(_whole_text))
    places: list[int] = []
    for code, value in enumerate(distinct):
        text = shorten_text(_whole_text(value), characters)
        if text not in texts:
            continue
        rows = np.flatnonzero(codes == code)
        if len(rows) < MANY_ROWS:
            places += rows.tolist()
    return places


def preview(frame: pd.DataFrame) -> str:
    """Write a frame for a prompt: the columns' profiles, and a few rows, long cells cut."""
    keys = make_json_keys([str(name) for name in frame.columns])
    sample: dict[int, str] = {}
    for row in spread(len(frame), PREVIEW_ROWS):
        record: dict[str, Any] = {}
        for key, value in zip(keys, frame.iloc[row].tolist(), strict=True):
            record[key] = _shorten_cell(value)
        sample[row] = to_json_line(record)
    return preview_lines(write_profiles(frame), len(frame), sample)


def _shorten_cell(value: object) -> Any:
    plain = cell(value)
    if isinstance(plain, str | list | dict):
        return _value_text(plain)
    return plain


def _profile(column: pd.Series, name: str) -> dict[str, Any]:
    step = max(1, math.ceil(len(column) / SAMPLED_ROWS))
    sample = column.iloc[::step].dropna().tolist()
    counts = Counter(_value_text(value) for value in sample)
    is_missing = column.isna()
    lowest = highest = mean = None
    is_number = pd.api.types.is_any_real_numeric_dtype(column)
    has_order = is_number or pd.api.types.is_datetime64_any_dtype(column)
    if has_order and not is_missing.all():
        lowest = cell(column.min())
        highest = cell(column.max())
        if is_number:
            mean = float(column.mean())
    return {
        "column": name,
        "dtype": str(column.dtype),
        "rows": len(column),
        "missing": int(is_missing.sum()),
        "distinct": _count_distinct(column),
        "lowest": lowest,
        "highest": highest,
        "mean": mean,
        "values": [text for text, _ in counts.most_common(SAMPLED_VALUES)],
    }


def _count_distinct(column: pd.Series) -> int:
    try:
        return int(column.nunique())
    except (TypeError, NotImplementedError):  # lists and dicts, of Python and of Arrow
        values = column.dropna().tolist()
        return len({_whole_text(value) for value in values})


def _value_text(value: object) -> str:
    return shorten_text(_whole_text(value), VALUE_CHARACTERS)


def _whole_text(value: object) -> str:
    return str(cell(value))


def spread(rows: int, most: int) -> list[int]:
    """Pick at most ``most`` rows evenly over a frame, the first and the last among them.

    Example:
        >>> spread(100, 5), spread(3, 5)
        ([0, 24, 49, 74, 99], [0, 1, 2])
    """
    evenly = np.linspace(0, rows - 1, min(most, rows))
    places: list[int] = np.unique(evenly.astype(int)).tolist()
    return places


def shorten_text(text: str, most: int) -> str:
    """Cut a text after ``most`` characters, and mark the cut.

    Example:
        >>> shorten_text("a long text", 6)
        'a long ...'
    """
    if len(text) <= most:
        return text
    return f"{text[:most]} ..."
