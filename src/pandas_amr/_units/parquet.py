"""Frames as Parquet bytes for a sandbox, with their dtypes, names and index.

What a sandbox cannot have as it is, is changed, and each change is reported.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pandas_amr._units.cells import UNIT_KEY, cell
from pandas_amr._units.codec import encode
from pandas_amr._units.rows import find_range
from pandas_amr.sandbox.base import Data

if TYPE_CHECKING:
    from pandas_amr._units.rows import Positions

SHARD = "df"  # a session's name for a shard, whose rows are units
REFUSED = (
    pa.ArrowInvalid,
    pa.ArrowTypeError,
    pa.ArrowNotImplementedError,
    OverflowError,
    UnicodeEncodeError,
    ValueError,
    TypeError,  # for an infinite Decimal
)


@dataclass(frozen=True, slots=True)
class ArrowFrame:
    """A frame as an Arrow table: columns ``c0``, ``c1``, ... and levels of the index ``i0``, ...

    Attributes:
        changed: the differences between a session's ``df`` and the frame, a sentence each.
    """

    table: pa.Table
    columns: tuple[Any, ...]
    column_names: tuple[Any, ...]
    index_names: tuple[Any, ...]
    index: pd.Index
    changed: tuple[str, ...]

    @classmethod
    def of(cls, frame: pd.DataFrame) -> ArrowFrame:
        """Convert a frame as a whole, so that every part of it has the same types."""
        changed: list[str] = []
        table = _convert_frame(frame, changed)
        labels = tuple(_label(label, changed) for label in frame.columns)
        for label, shown in zip(labels, _avoid_unit(labels), strict=True):
            if label != shown:
                changed.append(
                    f"Column {UNIT_KEY!r} is called {shown!r} here: `{UNIT_KEY}` is the row's "
                    "number."
                )
        column_names = tuple(_label(name, changed) for name in frame.columns.names)
        index_names = tuple(_label(name, changed) for name in frame.index.names)
        return cls(
            table=table,
            columns=labels,
            column_names=column_names,
            index_names=index_names,
            index=frame.index,
            changed=tuple(changed),
        )

    def data(
        self,
        name: str,
        positions: Positions | None = None,
        *,
        numbered: bool = False,
    ) -> Data:
        """Write rows as Parquet.

        Args:
            name: the session's name for the frame.
            positions: the rows; default: all.
            numbered: append the column ``unit``, which keeps the number of a row when code sorts
                or filters.
        """
        table, index = self._take(positions)
        row_range = None
        if isinstance(index, pd.RangeIndex):
            row_range = [index.start, index.stop, index.step]
            table = table.drop_columns(["i0"])
        columns = self.columns
        if name == SHARD:
            columns = _avoid_unit(columns)
        if numbered:
            numbers = pa.array(np.arange(len(index), dtype=np.int64))
            table = table.append_column(f"c{len(columns)}", numbers)
            columns = (*columns, _unit_label(len(self.column_names)))
        labels = {
            "columns": tuple(map(encode, columns)),
            "column_names": tuple(map(encode, self.column_names)),
            "index_names": tuple(map(encode, self.index_names)),
            "range": row_range,
        }
        return Data(name, _write_parquet(table), labels, self.changed)

    def _take(self, positions: Positions | None) -> tuple[pa.Table, pd.Index]:
        """Return some rows of the table and their labels."""
        if positions is None:
            return self.table, self.index
        span = find_range(positions)
        if span is not None:
            length = span.stop - span.start
            return self.table.slice(span.start, length), self.index[span]
        rows = np.asarray(positions, dtype=np.int64)
        table = self.table.take(pa.array(rows))
        return table, self.index[rows]


def _write_parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="snappy", write_statistics=False)
    parquet: bytes = sink.getvalue().to_pybytes()
    return parquet


def _convert_frame(frame: pd.DataFrame, changed: list[str]) -> pa.Table:
    """Convert the columns of a frame and the levels of its index."""
    arrays: dict[str, pa.Array | pa.ChunkedArray] = {}
    for number, label in enumerate(frame.columns):
        column = frame.iloc[:, number]
        arrays[f"c{number}"] = _convert_column(column, repr(label), changed)
    rows = pd.RangeIndex(len(frame))
    for number in range(frame.index.nlevels):
        level = frame.index.get_level_values(number)
        column = level.to_series(index=rows)
        arrays[f"i{number}"] = _convert_column(column, f"level {number} of the index", changed)
    return pa.table(arrays).combine_chunks()  # rows are taken of it, shard by shard


def _label(label: object, changed: list[str]) -> Any:
    """Convert a label to a text, a number, a bool, None, or a tuple of these."""
    if label is None:
        return None
    if isinstance(label, str):
        return _replace_surrogates(label)
    if isinstance(label, tuple):
        return tuple(_label(part, changed) for part in label)
    plain = label
    if isinstance(label, np.generic) and not isinstance(label, np.datetime64 | np.timedelta64):
        plain = label.item()
    for kind in (bool, int, float):
        if isinstance(plain, kind):
            return kind(plain)
    changed.append(f"The name {str(label)!r} is a text, and was {type(label).__name__}.")
    return str(label)


def _replace_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _unit_label(levels: int) -> Any:
    """Return the label of the column of unit numbers; with several levels, all but one empty."""
    if levels == 1:
        return UNIT_KEY
    padding = [""] * (levels - 1)
    return (UNIT_KEY, *padding)


def _avoid_unit(labels: tuple[Any, ...]) -> tuple[Any, ...]:
    """Rename a label that ``submit`` would take for the unit's number."""
    free = UNIT_KEY
    while free in labels:
        free += "_"
    renamed = [free if label == UNIT_KEY else label for label in labels]
    return tuple(renamed)


def _convert_column(column: pd.Series, name: str, changed: list[str]) -> pa.Array | pa.ChunkedArray:
    """Convert a column to Arrow; to JSON text if Arrow or Parquet would refuse or alter values."""
    try:
        array = pa.array(column, from_pandas=True)
        is_exact = column.dtype != object or _holds_same(array, column)
        if pa.types.is_dictionary(array.type):  # most methods for texts refuse it
            changed.append(f"Column {name} (categorical) holds plain values.")
            array = array.cast(array.type.value_type)
        if is_exact:
            return _check_parquet(array)
    except REFUSED:
        pass
    changed.append(f"Column {name} ({column.dtype}) is text: JSON of what each cell held.")
    texts = [_json_text(value) for value in column.tolist()]
    return pa.array(texts, pa.string())


def _check_parquet(array: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return an array that Parquet takes.

    Raises:
        pa.ArrowException: Parquet refuses its type.
    """
    kind = array.type
    if pa.types.is_null(kind):
        return array.cast(pa.string())
    if isinstance(kind, pa.BaseExtensionType):
        raise pa.ArrowInvalid("Parquet does not keep extension types as they are")
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not is_text and not pa.types.is_primitive(kind):
        first_rows = pa.table({"c0": array.slice(0, 100)})
        sink = pa.BufferOutputStream()
        pq.write_table(first_rows, sink)
        source = pa.BufferReader(sink.getvalue())
        pq.ParquetFile(source).read()
    return array


def _holds_same(array: pa.Array, column: pd.Series) -> bool:
    """Whether Arrow did not alter values, as by padding a dict or making a float of an integer."""
    for converted, value in zip(array.to_pylist(), column.tolist(), strict=True):
        if converted is None and _is_missing(value):
            continue
        if _shape(converted) != _shape(value):
            return False
    return True


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or value != value  # noqa: PLR0124


def _shape(value: object) -> Any:
    """Return what makes two values the same: contents and types."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _shape(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_shape(inner) for inner in value]
    plain: Any = value
    if isinstance(value, np.generic):
        plain = value.item()
    if isinstance(plain, pd.Timestamp):
        return plain.to_pydatetime(), type(plain)
    if plain != plain:  # noqa: PLR0124 (NaN)
        return None, type(plain)
    return plain, type(plain)


def _json_text(value: object) -> str | None:
    plain = cell(value)
    if plain is None:
        return None
    if isinstance(plain, str):
        return _replace_surrogates(plain)
    return json.dumps(plain, ensure_ascii=True)
