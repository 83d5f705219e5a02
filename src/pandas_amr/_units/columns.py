"""Choose the content columns of a frame, as ``columns=`` names them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._records.suggest import closest_name
from pandas_amr._types.json_text import unsendable
from pandas_amr.errors import ColumnError

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN_COLUMNS = 20
UNNAMED = "value"  # the label of a column that has none


def frame_of_series(series: pd.Series) -> pd.DataFrame:
    """Make a frame of one column, with the index of the Series."""
    name = UNNAMED if series.name is None else series.name
    return series.to_frame(name)


def find_content_columns(frame: pd.DataFrame, columns: object) -> tuple[int, ...]:
    """Return the positions of the content columns.

    Args:
        frame: the frame.
        columns: a label, a slice of labels, or a list of these; None for all columns. If labels
            have several levels, a label of the first level means all columns below it.

    Raises:
        ColumnError: a column does not exist, or a label is not unique.
    """
    if not frame.columns.is_unique:
        doubled = list(dict.fromkeys(frame.columns[frame.columns.duplicated()]))
        raise ColumnError(
            f"Column names must be unique; doubled: {doubled}. Rename them: df.columns = [...]."
        )
    if columns is None:
        if not len(frame.columns):
            raise ColumnError("The frame has no columns to read.")
        return tuple(range(len(frame.columns)))
    labels = _list_labels(columns, frame)
    positions: list[int] = []
    for label in labels:
        positions += _find_positions(label, frame)
    if not positions:
        raise ColumnError(f"columns={_quote(labels)} holds no column. {_suggest([], frame)}")
    if len(set(positions)) < len(positions):
        raise ColumnError(f"columns= names a column twice: {labels}.")
    return tuple(positions)


def check_labels_encode(frame: pd.DataFrame) -> None:
    """Refuse a column whose name has half of a surrogate pair.

    pandas itself has no place for such a name among new columns, so that what was found of the rows
    could not be put beside it.

    Raises:
        ColumnError: there is one.
    """
    labels: list[Any] = list(frame.columns)
    for label in labels:
        for part in label if isinstance(label, tuple) else (label,):
            problem = unsendable(part) if isinstance(part, str) else None
            if problem is not None:
                raise ColumnError(f"The column name {part!r} {problem}. Rename the column.")


def _list_labels(columns: Any, frame: pd.DataFrame) -> list[Any]:
    """Return the labels and slices that ``columns=`` holds.

    Raises:
        ColumnError: there are none, or one is not a column's label.
    """
    _refuse_cells(columns, frame)
    labels = [columns]
    if not _is_single(columns, frame):
        labels = list(columns)
    if not labels:
        raise ColumnError(
            "columns= is empty; name at least one column, or leave it out to read all."
        )
    missing: list[Hashable] = []
    for label in labels:
        if isinstance(label, slice):
            ends = _missing_ends(label, frame)
            if ends:
                raise _slice_error(label, ends, frame)
            continue
        if not _is_hashable(label):
            raise ColumnError(
                "columns= takes a column label, a list of labels or a slice of them, not a "
                f"{type(label).__name__} within a {type(columns).__name__}. {_suggest([], frame)}"
            )
        if label not in frame.columns:
            missing.append(label)
    if missing:
        raise ColumnError(f"No column {_quote(missing)}. {_suggest(missing, frame)}")
    return labels


def _refuse_cells(columns: object, frame: pd.DataFrame) -> None:
    """Refuse a column in the place of its label; the error does not list its cells.

    Raises:
        ColumnError: it is one, since no value of it is a label.
    """
    if not isinstance(columns, pd.Series | np.ndarray):
        return
    if any(_is_hashable(value) and value in frame.columns for value in columns):
        return
    name = getattr(columns, "name", None)
    raise ColumnError(
        f"columns= takes labels, not {type(columns).__name__}. {_suggest([name], frame)}"
    )


def _missing_ends(labels: slice, frame: pd.DataFrame) -> list[str]:
    """Return the ends of a slice that are no labels.

    pandas accepts any text if the labels happen to be sorted, a mistyped one too.
    """
    columns = frame.columns
    if columns.nlevels > 1 or pd.api.types.is_datetime64_any_dtype(columns.dtype):
        return []
    ends = (labels.start, labels.stop)
    return [end for end in ends if isinstance(end, str) and end not in columns]


def _slice_error(label: object, ends: Sequence[Hashable], frame: pd.DataFrame) -> ColumnError:
    return ColumnError(
        f"columns={label!r} takes two labels of the columns, as df.loc[:, a:b] does; labels in "
        f"levels must be sorted. {_suggest(ends, frame)}"
    )


def _is_single(columns: object, frame: pd.DataFrame) -> bool:
    """Whether ``columns=`` is one label or slice, and not a list."""
    if isinstance(columns, str | slice) or not isinstance(columns, Iterable):
        return True
    return isinstance(columns, tuple) and _is_hashable(columns) and columns in frame.columns


def _is_hashable(label: object) -> bool:
    try:
        hash(label)
    except TypeError:
        return False
    return True


def _find_positions(label: object, frame: pd.DataFrame) -> list[int]:
    """Return the positions of the columns of a label, or of a slice of labels.

    Raises:
        ColumnError: an end of a slice is not a label.
    """
    everywhere = np.arange(len(frame.columns))
    chosen: Any
    try:
        if isinstance(label, slice):
            chosen = frame.columns.slice_indexer(label.start, label.stop, label.step)
        else:
            chosen = frame.columns.get_loc(label)
    except (KeyError, TypeError, ValueError):
        raise _slice_error(label, [], frame) from None
    positions: list[int] = np.atleast_1d(everywhere[chosen]).tolist()
    return positions


def _quote(labels: Sequence[Hashable]) -> str:
    return ", ".join(map(repr, labels))


def _suggest(missing: Sequence[Hashable], frame: pd.DataFrame) -> str:
    """Suggest the columns that are closest to missing ones, or list the first columns."""
    levels = [label for label in missing if label is not None and label in frame.index.names]
    if levels:
        return f"The index has it: df.reset_index({levels[0]!r}) makes a column of it."
    close: list[Any] = []
    for label in missing:
        closest = closest_name(label, frame.columns)
        if closest is not None:
            close.append(closest)
    if close:
        return f"Did you mean {_quote(close)}?"
    return f"There is: {_quote(list(frame.columns[:SHOWN_COLUMNS]))}."
