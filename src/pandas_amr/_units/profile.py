"""Columns as units: each with its name, type, profile and sampled values, as the row of a frame of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._agent.prompts import preview_lines
from pandas_amr._units.units import cell, json_keys, line_of

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLED_VALUES = 10
SAMPLED_ROWS = 10_000
VALUE_CHARACTERS = 200
PREVIEW_ROWS = 5


def column_units(frame: pd.DataFrame, columns: Sequence[int]) -> pd.DataFrame:
    """One row a column, labelled by its name: ``column dtype rows missing distinct lowest highest mean values``.

    ``distinct`` is counted in, and ``values`` are the most frequent of, at most 10,000 rows from all over the frame.
    """
    labels = frame.columns[list(columns)]
    records = [_profile(frame.iloc[:, column], str(frame.columns[column])) for column in columns]
    return pd.DataFrame(
        records, index=labels, columns=list(_profile(pd.Series([], dtype=object), ""))
    )


def profile_lines(
    frame: pd.DataFrame, values: int = SAMPLED_VALUES, *, content: Sequence[int] | None = None
) -> list[str]:
    """A line of JSON for each column: its type and profile, at most so many of its values.

    With ``content``, of the columns beside these only the name, the type and how many values they have.
    """
    profiles = column_units(frame, range(len(frame.columns))).to_dict("records")
    told = [
        {str(key): cell(value) for key, value in one.items() if key != "rows"} for one in profiles
    ]
    shown = [
        one | {"values": one["values"][:values]}
        if content is None or column in content
        else {key: one[key] for key in ("column", "dtype", "distinct")}
        for column, one in enumerate(told)
    ]
    return [
        line_of({key: value for key, value in one.items() if value is not None}) for one in shown
    ]


def preview(frame: pd.DataFrame) -> str:
    """A frame for a prompt: each column's type and profile, and a few rows from all over it, long cells shortened."""
    rows = spread(len(frame), PREVIEW_ROWS)
    keys = json_keys([str(name) for name in frame.columns])
    sample = {
        row: line_of(
            dict(zip(keys, [_cut(value) for value in frame.iloc[row].tolist()], strict=True))
        )
        for row in rows
    }
    return preview_lines(profile_lines(frame), len(frame), sample)


def _cut(value: Any) -> Any:
    plain = cell(value)
    return _shown(plain) if isinstance(plain, str | list | dict) else plain


def _profile(column: pd.Series, name: str) -> dict[str, Any]:
    sample = column.iloc[:: max(1, -(-len(column) // SAMPLED_ROWS))]
    texts = sample.dropna().map(_shown)
    counts = texts.value_counts()
    ordered = _is_ordered(column) and column.notna().any()
    return {
        "column": name,
        "dtype": str(column.dtype),
        "rows": len(column),
        "missing": int(column.isna().sum()),
        "distinct": len(counts),
        "lowest": cell(column.min()) if ordered else None,
        "highest": cell(column.max()) if ordered else None,
        "mean": float(column.mean()) if ordered and pd.api.types.is_numeric_dtype(column) else None,
        "values": counts.index[:SAMPLED_VALUES].tolist(),
    }


def _is_ordered(column: pd.Series) -> bool:
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return bool(numeric or pd.api.types.is_datetime64_any_dtype(column))


def _shown(value: Any) -> str:
    return shortened(str(cell(value)), VALUE_CHARACTERS)


def spread(rows: int, most: int) -> list[int]:
    """At most so many rows from all over a frame, the first and the last among them.

    Example:
        >>> spread(100, 5), spread(3, 5)
        ([0, 24, 49, 74, 99], [0, 1, 2])
    """
    places: list[int] = np.unique(np.linspace(0, rows - 1, min(most, rows)).astype(int)).tolist()
    return places


def shortened(text: str, most: int) -> str:
    """The beginning of a text that is too long, and a sign that it is one.

    Example:
        >>> shortened("a long text", 6)
        'a long ...'
    """
    return text if len(text) <= most else text[:most] + " ..."
