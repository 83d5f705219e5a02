"""Encode frames as Arrow and JSON without loss, and decode them.

A frame is an Arrow table of columns ``c0``, ``c1``, ... and levels of the index ``i0``, ...,
with labels and dtypes as JSON. The sandbox's guest has the decoder (`sandbox/guest/worker.py`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pandas_amr._units.codec import (
    INDEXES,
    MAKERS,
    CannotEncode,
    decode_value,
    describe_type,
    encode,
    frequency_name,
    objects,
)
from pandas_amr.sandbox.guest.worker import decode_frame

if TYPE_CHECKING:
    from collections.abc import Callable

MARK = "pandas_amr_result"  # in a frame's attrs: the id of its result in this process
TEXT, CELLS = "text", "cells"  # kinds of object columns: texts and None; or each cell as JSON
PLAIN_KINDS = frozenset("biufMm")
REFUSED = (pa.ArrowException, ValueError, TypeError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A frame as a table, with its labels and dtypes as JSON."""

    table: pa.Table
    labels: dict[str, Any]


def encode_frame(frame: pd.DataFrame) -> Encoded:
    """Encode a frame as Arrow and JSON without loss.

    Raises:
        CannotEncode: a part of it would not be decoded as it is; the message names the part.
    """
    if type(frame) is not pd.DataFrame:
        kind = describe_type(type(frame))
        raise CannotEncode(f"it is {kind}, and only a plain DataFrame comes back")
    arrays, dtypes = _encode_columns(frame)
    index = _encode_part("the index", _encode_index, frame.index)
    for number, array in enumerate(index.pop("arrays")):
        arrays[f"i{number}"] = array
    columns = _encode_part("the names of the columns", encode, frame.columns)
    index_names = _encode_part("the name of the index", encode, list(frame.index.names))
    attrs = dict(frame.attrs)
    attrs.pop(MARK, None)
    labels = {
        "dtypes": dtypes,
        "columns": columns,
        "index_names": index_names,
        "attrs": _encode_part("attrs", encode, attrs),
        "unique": not frame.flags.allows_duplicate_labels,
        **index,
    }
    return Encoded(pa.table(arrays), labels)


def _encode_columns(frame: pd.DataFrame) -> tuple[dict[str, Any], list[Any]]:
    """Return the columns as arrays by name, and their dtypes as JSON."""
    arrays: dict[str, Any] = {}
    dtypes: list[Any] = []
    for number, label in enumerate(frame.columns):
        values = _get_values(frame.iloc[:, number])
        array, dtype = _encode_part(f"column {label!r}", encode_array, values)
        arrays[f"c{number}"] = array
        dtypes.append(dtype)
    return arrays, dtypes


def decode_table(encoded: Encoded) -> pd.DataFrame:
    """Decode what ``encode_frame`` returned."""
    frame: pd.DataFrame = decode_frame(encoded.table, encoded.labels, decode_array, MAKERS)
    frame.attrs = decode_value(encoded.labels["attrs"])
    if encoded.labels["unique"]:
        return frame.set_flags(allows_duplicate_labels=False)
    return frame


def _encode_part(part: str, encode_it: Callable[[Any], Any], value: object) -> Any:
    """Encode a part of a frame.

    Raises:
        CannotEncode: it would not be decoded as it is; the message names the part.
    """
    try:
        return encode_it(value)
    except CannotEncode as error:
        raise CannotEncode(f"{part} holds {error}") from None
    except REFUSED:  # whose messages may hold contents of cells
        kind = getattr(value, "dtype", type(value).__name__)
        raise CannotEncode(f"{part} ({kind}) holds what Parquet and JSON cannot") from None


def _get_values(values: Any) -> Any:
    """Return the array of a Series or an Index: numpy's if its dtype is numpy's, else pandas'."""
    if isinstance(values.dtype, np.dtype):
        return values.to_numpy()
    return values.array


def _encode_index(index: pd.Index) -> dict[str, Any]:
    """Encode an index: its ``arrays`` (of levels the codes), and its labels as JSON.

    Raises:
        CannotEncode: it is of another class than pandas' own.
    """
    if type(index) is pd.RangeIndex:
        return {"arrays": [], "range": [index.start, index.stop, index.step]}
    if type(index) is pd.MultiIndex:
        arrays: list[Any] = []
        kinds: list[Any] = []
        for codes in index.codes:
            array, kind = encode_array(np.asarray(codes))
            arrays.append(array)
            kinds.append(kind)
        levels = encode(list(index.levels))
        return {"arrays": arrays, "level_dtypes": kinds, "levels": levels}
    if type(index) not in INDEXES:
        raise CannotEncode(describe_type(type(index)))
    array, kind = encode_array(_get_values(index))
    return {"arrays": [array], "level_dtypes": [kind], "freq": frequency_name(index)}


def encode_array(values: Any) -> tuple[Any, Any]:
    """Encode an array as Arrow, and its kind as JSON: its dtype, or of objects TEXT or CELLS."""
    if values.dtype != object:
        kind = encode(values.dtype)
        return _to_arrow(values, values.dtype), kind
    items = values.tolist()
    if all(item is None or type(item) is str for item in items):
        try:
            return pa.array(items, pa.large_string()), TEXT
        except UnicodeEncodeError:  # a lone surrogate
            pass
    cells = [json.dumps(encode(item)) for item in items]
    return pa.array(cells, pa.large_string()), CELLS


def decode_array(column: pa.ChunkedArray, kind: object) -> Any:
    """Decode what ``encode_array`` returned."""
    if kind == TEXT:
        return objects(column.to_pylist())
    if kind == CELLS:
        cells = [decode_value(json.loads(text)) for text in column.to_pylist()]
        return objects(cells)
    return _from_arrow(column, decode_value(kind))


def _to_arrow(values: Any, dtype: Any) -> Any:
    match dtype:
        case np.dtype():
            return _numbers_to_arrow(values)
        case pd.CategoricalDtype():
            return pa.array(np.asarray(values.codes))
        case pd.DatetimeTZDtype():
            moments = values.tz_convert(None)
            return pa.array(np.asarray(moments))
        case pd.PeriodDtype():
            return pa.array(values.asi8)
        case pd.IntervalDtype():
            left = _to_arrow(_get_values(values.left), dtype.subtype)
            right = _to_arrow(_get_values(values.right), dtype.subtype)
            return pa.StructArray.from_arrays([left, right], names=["left", "right"])
        case pd.SparseDtype():
            return _to_arrow(np.asarray(values), dtype.subtype)
    return pa.array(values)


def _numbers_to_arrow(values: Any) -> Any:
    """Convert numbers, bools and times; those of types that Arrow or Parquet lack, as bytes."""
    dtype = values.dtype
    if dtype.kind in PLAIN_KINDS and dtype.itemsize <= 8 and dtype != np.float16:
        return pa.array(values)
    data = pa.py_buffer(np.ascontiguousarray(values).tobytes())
    kind = pa.binary(dtype.itemsize)
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(values), [None, data])


def _from_arrow(column: pa.ChunkedArray, dtype: Any) -> Any:
    match dtype:
        case np.dtype():
            return _numbers_from_arrow(column, dtype)
        case pd.CategoricalDtype():
            return pd.Categorical.from_codes(column.to_numpy(), dtype=dtype)
        case pd.DatetimeTZDtype():
            moments = column.to_numpy().astype(f"M8[{dtype.unit}]")  # Parquet has no seconds
            index = pd.DatetimeIndex(moments).tz_localize("UTC")
            return index.tz_convert(dtype.tz).array
        case pd.PeriodDtype():
            ordinals: Any = np.array(column.to_numpy())
            return pd.PeriodIndex.from_ordinals(ordinals, freq=dtype.freq).array  # type: ignore[attr-defined]
        case pd.IntervalDtype():
            return _intervals_from_arrow(column, dtype)
        case pd.SparseDtype():
            values = _from_arrow(column, dtype.subtype)
            return pd.arrays.SparseArray(values, dtype=dtype)
    return dtype.__from_arrow__(column)


def _numbers_from_arrow(column: pa.ChunkedArray, dtype: np.dtype) -> Any:
    if pa.types.is_fixed_size_binary(column.type):
        data = b"".join(column.to_pylist())
        return np.frombuffer(data, dtype).copy()
    return np.array(column.to_numpy(), dtype)


def _intervals_from_arrow(column: pa.ChunkedArray, dtype: pd.IntervalDtype) -> Any:
    sides: list[Any] = []
    for side in column.combine_chunks().flatten():
        values = pa.chunked_array([side], side.type)
        sides.append(_from_arrow(values, dtype.subtype))
    left, right = sides
    closed: Any = dtype.closed
    return pd.arrays.IntervalArray.from_arrays(left, right, closed=closed)


def first_difference(one: pa.Table, other: pa.Table) -> str | None:
    """Return the name of the first array in which two tables with the same names differ, if any."""
    for name in one.column_names:
        if not _is_same_array(one[name], other[name]):
            return str(name)
    return None


def _is_same_array(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    if one.type != other.type or len(one) != len(other):
        return False
    if pa.types.is_floating(one.type):
        # Bit by bit, since NaN must be NaN, and -0.0 is not 0.0.
        bits = f"int{one.type.bit_width}"
        one_bits = one.combine_chunks().view(bits)
        other_bits = other.combine_chunks().view(bits)
        return bool(one_bits.equals(other_bits))
    if one.equals(other):
        return True
    # By text, because NaN in nested values is equal to nothing.
    return repr(one.to_pylist()) == repr(other.to_pylist())
