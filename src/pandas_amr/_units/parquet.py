"""Frames as Parquet bytes for a sandbox: dtypes, names and index go with them, and what could not is told."""

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
from pandas_amr.sandbox.base import Data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SHARD = "df"  # what a session calls a shard, whose rows are units
REFUSED = (
    pa.ArrowInvalid,
    pa.ArrowTypeError,
    pa.ArrowNotImplementedError,
    OverflowError,
    UnicodeEncodeError,
    ValueError,
    TypeError,  # of a Decimal that is infinite
)


@dataclass(frozen=True, slots=True)
class ArrowFrame:
    """A frame as an Arrow table: columns ``c0`` and so on, levels of the index ``i0`` and so on.

    Attributes:
        changed: what is not as in the frame where it is a session's ``df``, a sentence each.
    """

    table: pa.Table
    columns: tuple[Any, ...]
    column_names: tuple[Any, ...]
    index_names: tuple[Any, ...]
    index: pd.Index
    changed: tuple[str, ...]

    @classmethod
    def of(cls, frame: pd.DataFrame) -> ArrowFrame:
        """Convert a whole frame, so that every part of it has the same types."""
        changed: list[str] = []
        arrays: dict[str, pa.Array | pa.ChunkedArray] = {}
        for number in range(len(frame.columns)):
            arrays[f"c{number}"] = _array(
                frame.iloc[:, number], repr(frame.columns[number]), changed
            )
        for number in range(frame.index.nlevels):
            level = frame.index.get_level_values(number).to_series(index=pd.RangeIndex(len(frame)))
            arrays[f"i{number}"] = _array(level, f"level {number} of the index", changed)
        labels = tuple(_label(label, changed) for label in frame.columns)
        changed += [
            f"Column {UNIT_KEY!r} is called {shown!r} here: `{UNIT_KEY}` is the row's number."
            for label, shown in zip(labels, _beside_units(labels), strict=True)
            if label != shown
        ]
        return cls(
            table=pa.table(arrays) if arrays else pa.table({}),
            columns=labels,
            column_names=tuple(_label(name, changed) for name in frame.columns.names),
            index_names=tuple(_label(name, changed) for name in frame.index.names),
            index=frame.index,
            changed=tuple(changed),
        )

    def data(
        self,
        name: str,
        positions: Sequence[int] | NDArray[np.int64] | None = None,
        *,
        numbered: bool = False,
    ) -> Data:
        """The rows at ``positions``, or all of them, called ``name``.

        If they are to be ``numbered``, the last column is ``unit``: it stays with its row when code sorts or filters.
        """
        table, index = self.table, self.index
        if positions is not None:
            chosen = np.asarray(positions, dtype=np.int64)
            consecutive = len(chosen) > 0 and int(chosen[-1] - chosen[0]) == len(chosen) - 1
            consecutive &= bool((np.diff(chosen) == 1).all())
            start = int(chosen[0]) if len(chosen) else 0
            table = table.slice(start, len(chosen)) if consecutive else table.take(pa.array(chosen))
            index = index[start : start + len(chosen)] if consecutive else index[chosen]
        ranged = _as_range(index)
        if ranged is not None:
            table = table.drop_columns(["i0"])
        columns = _beside_units(self.columns) if name == SHARD else self.columns
        if numbered:
            numbers = pa.array(np.arange(len(index), dtype=np.int64))
            table = table.append_column(f"c{len(columns)}", numbers)
            columns = (*columns, _unit_label(len(self.column_names)))
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="snappy", write_statistics=False)
        labels = {
            "columns": tuple(map(encode, columns)),
            "column_names": tuple(map(encode, self.column_names)),
            "index_names": tuple(map(encode, self.index_names)),
            "range": ranged,
        }
        return Data(name, sink.getvalue().to_pybytes(), labels, self.changed)


def _as_range(index: pd.Index) -> list[int] | None:
    if isinstance(index, pd.RangeIndex):
        return [index.start, index.stop, index.step]
    return None


def _label(label: Any, changed: list[str]) -> Any:
    """A name as JSON and a session know it: a text, a number, a bool, None, or a tuple of such."""
    if label is None:
        return None
    if isinstance(label, str):
        return label.encode("utf-8", "replace").decode()
    if isinstance(label, tuple):
        return tuple(_label(part, changed) for part in label)
    times = isinstance(label, np.datetime64 | np.timedelta64)
    plain = label.item() if isinstance(label, np.generic) and not times else label
    for kind in (bool, int, float):
        if isinstance(plain, kind):
            return kind(plain)
    changed.append(f"The name {str(label)!r} is a text, and was {type(label).__name__}.")
    return str(label)


def _unit_label(levels: int) -> Any:
    """The label of the column of the units' numbers; of columns in levels the first one, with nothing below."""
    return UNIT_KEY if levels == 1 else (UNIT_KEY, *[""] * (levels - 1))


def _beside_units(labels: tuple[Any, ...]) -> tuple[Any, ...]:
    """The labels with none that ``submit`` would take for the unit's number."""
    free = UNIT_KEY
    while free in labels:
        free += "_"
    return tuple(free if label == UNIT_KEY else label for label in labels)


def _array(column: pd.Series, name: str, changed: list[str]) -> pa.Array | pa.ChunkedArray:
    """A column as Arrow; what Arrow or Parquet would refuse or bend becomes JSON text, and is told."""
    try:
        array = pa.array(column, from_pandas=True)
        kept = column.dtype != object or _unbent(array, column)
        if pa.types.is_dictionary(array.type):  # of which most methods of text would refuse
            changed.append(f"Column {name} (categorical) holds plain values.")
            array = array.cast(array.type.value_type)
        if kept:
            return _checked(array)
    except REFUSED:
        pass
    changed.append(f"Column {name} ({column.dtype}) is text: JSON of what each cell held.")
    return pa.array([_text(value) for value in column.tolist()], pa.string())


def _checked(array: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The array, once Parquet has taken it."""
    kind = array.type
    if pa.types.is_null(kind):
        return array.cast(pa.string())
    if isinstance(kind, pa.BaseExtensionType):
        raise pa.ArrowInvalid("extension types do not go through Parquet as they are")
    if not (
        pa.types.is_primitive(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    ):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"c0": array.slice(0, 100)}), sink)
        pq.ParquetFile(pa.BufferReader(sink.getvalue())).read()
    return array


def _unbent(array: pa.Array, column: pd.Series) -> bool:
    """Whether Arrow holds the very values: no dict padded, no whole number turned into a float."""
    for held, value in zip(array.to_pylist(), column.tolist(), strict=True):
        if held is None and (value is None or value is pd.NA or value is pd.NaT or value != value):  # noqa: PLR0124
            continue
        if _shape(held) != _shape(value):
            return False
    return True


def _shape(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _shape(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_shape(inner) for inner in value]
    plain = value.item() if isinstance(value, np.generic) else value
    return plain.to_pydatetime() if isinstance(
        plain, pd.Timestamp
    ) else plain if plain == plain else None, type(plain)  # noqa: PLR0124


def _text(value: Any) -> str | None:
    plain = cell(value)
    if plain is None or isinstance(plain, str):
        return None if plain is None else plain.encode("utf-8", "replace").decode()
    return json.dumps(plain, ensure_ascii=True)
