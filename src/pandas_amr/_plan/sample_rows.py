"""Make a few rows like those of a run: rows of the frame, and typical values of fields."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pandas_amr._findings.columns import array_of
from pandas_amr._types.arrow import arrow_type, is_json_text
from pandas_amr._types.arrow_values import plain
from pandas_amr._types.resolve import choices_of
from pandas_amr._units.profile import spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

SPREAD_ROWS = 20

NUMBERS: tuple[int, ...] = (1, 2, 3, 8)  # neither their mean nor their median is a whole number
MOMENTS = [
    dt.datetime(2026, month, 1, month)  # noqa: DTZ001 (columns of findings have no zone)
    for month in NUMBERS
]
FRACTIONS = [number + 0.25 for number in NUMBERS]
DECIMALS = [decimal.Decimal(fraction) for fraction in FRACTIONS]
DATES = [moment.date() for moment in MOMENTS]
TIMES = [moment.time() for moment in MOMENTS]
DURATIONS = [dt.timedelta(hours=number) for number in NUMBERS]
TEXTS = ["a", "b", "a", "d"]
JSON_TEXTS = ['{"a": 1}', '{"a": 2}', '{"a": 1}', "{}"]
TYPICAL: tuple[tuple[Callable[[pa.DataType], bool], list[Any]], ...] = (
    (pa.types.is_boolean, [True, False, True, True]),
    (pa.types.is_integer, list(NUMBERS)),
    (pa.types.is_floating, FRACTIONS),
    (pa.types.is_decimal, DECIMALS),
    (pa.types.is_timestamp, MOMENTS),
    (pa.types.is_date, DATES),
    (pa.types.is_time, TIMES),
    (pa.types.is_duration, DURATIONS),
    (pa.types.is_string, TEXTS),
    (pa.types.is_large_string, TEXTS),
)


def column_positions(frame: pd.DataFrame, labels: Iterable[Any]) -> list[int]:
    """Return the positions of the columns under some labels, each once."""
    all_positions = np.arange(len(frame.columns))
    positions: dict[int, None] = {}
    for label in labels:
        if label in frame.columns:
            where = frame.columns.get_loc(label)  # a number, a slice or a mask
            found = np.atleast_1d(all_positions[where])
            positions |= dict.fromkeys(found.tolist())
    return list(positions)


def choose_rows(size: int, columns: Sequence[pd.Series]) -> NDArray[np.int64]:
    """Choose rows of a frame of so many rows, in which its columns show all kinds of values.

    Rows of rare kinds come first. Rows repeat until their number is a multiple of that of the
    typical values, so that every typical value stands in equally many rows.
    """
    if not size:
        return np.array([], dtype=np.int64)
    positions: list[int] = []
    for column in columns:
        positions += _positions_of_kinds(column)
    positions += spread(size, SPREAD_ROWS)
    each_once = list(dict.fromkeys(positions))
    cycle = len(NUMBERS) + 1  # the typical values, and a missing one
    cycles = math.ceil(len(each_once) / cycle)
    rows = np.array(each_once, dtype=np.int64)
    return np.resize(rows, cycles * cycle)


def _positions_of_kinds(values: pd.Series) -> list[int]:
    """Return the first positions of each type among objects, of a fraction, of a missing value."""
    positions: list[int] = []
    if values.dtype == object:
        firsts: dict[type, int] = {}
        for position, value in enumerate(values.tolist()):
            firsts.setdefault(type(value), position)
        positions += firsts.values()
    elif pd.api.types.is_float_dtype(values.dtype):
        numbers = values.to_numpy(dtype=float, na_value=np.nan)
        finite = np.where(np.isfinite(numbers), numbers, 0.0)
        fractions = np.flatnonzero(finite % 1 != 0)
        positions += fractions[:1].tolist()
    missing = np.flatnonzero(values.isna().to_numpy())
    positions += missing[:1].tolist()
    return positions


def typical_column(kind: object, size: int) -> Any:
    """Make the column that findings of a type become, of typical values and a missing one."""
    cycle = itertools.cycle([*typical_values(kind), None])
    values = list(itertools.islice(cycle, size))
    column = pa.array(values, arrow_type(kind))
    return array_of(pa.chunked_array([column]), kind)


def typical_values(kind: object) -> list[Any]:
    """Return some values of a type, as Arrow takes them.

    Example:
        >>> typical_values(int), typical_values(list[bool])
        ([1, 2, 3, 8], [[True, False], [True], [], [True]])
    """
    choices = [plain(choice, kind) for choice in choices_of(kind) or () if choice is not None]
    if choices:
        cycle = itertools.cycle(choices)
        return list(itertools.islice(cycle, len(NUMBERS)))
    if is_json_text(kind):
        return JSON_TEXTS
    return _typical_arrow_values(arrow_type(kind))


def _typical_arrow_values(kind: pa.DataType) -> list[Any]:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        first, second, third, last = _typical_arrow_values(kind.value_type)
        return [[first, second], [third], [], [last]]
    if pa.types.is_map(kind):
        return [[("a", value)] for value in _typical_arrow_values(kind.item_type)]
    if pa.types.is_struct(kind):
        return _typical_records(kind)
    for is_kind, values in TYPICAL:
        if is_kind(kind):
            return values
    return [None] * len(NUMBERS)


def _typical_records(kind: pa.StructType) -> list[Any]:
    records: list[Any] = [{} for _ in NUMBERS]
    for field in kind:
        values = _typical_arrow_values(field.type)
        for record, value in zip(records, values, strict=True):
            record[field.name] = value
    return records
