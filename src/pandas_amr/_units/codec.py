"""Values and frames as JSON and Arrow hold them exactly: the encoder, and what its decoder makes of each type.

JSON's own values stand for themselves. Any other is an object with one key, the name of its type, and the list of what
it is made of: ``{"tuple": [1, {"Decimal": ["1.50"]}]}``. A frame is an Arrow table of columns ``c0`` and so on and
levels of the index ``i0`` and so on, with labels and dtypes as JSON. The decoder is `sandbox/worker.py`'s. What has no
form here is refused; nothing is made a text of, and no class is imported by its name.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import importlib
import inspect
import json
import math
import uuid
import zoneinfo
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.extensions import ExtensionArray
from pandas.tseries.frequencies import to_offset

from pandas_amr.sandbox.guest.worker import decode, decode_frame, make_tuple

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    Parts: TypeAlias = tuple[str, ...] | Callable[[Any], Iterable[object]]

MARK = "pandas_amr_result"  # in a frame's attrs: which result of this process it is
TEXT, CELLS = "text", "cells"  # kinds of object columns: texts and None; each cell as JSON
DATE = ("year", "month", "day")
TIME = ("hour", "minute", "second", "microsecond", "tzinfo", "fold")
PLAIN_KINDS = frozenset("biufMm")
FIXED_KINDS = PLAIN_KINDS | {"c"}
NAN_IS_SAID = (
    "na_value" in inspect.signature(pd.StringDtype).parameters
)  # pandas 2.2 says it by the storage
NAMED_DTYPES = (
    pd.PeriodDtype,
    pd.BooleanDtype,
    pd.Float32Dtype,
    pd.Float64Dtype,
    pd.Int8Dtype,
    pd.Int16Dtype,
    pd.Int32Dtype,
    pd.Int64Dtype,
    pd.UInt8Dtype,
    pd.UInt16Dtype,
    pd.UInt32Dtype,
    pd.UInt64Dtype,
)
INDEXES = (
    pd.Index,
    pd.DatetimeIndex,
    pd.TimedeltaIndex,
    pd.PeriodIndex,
    pd.IntervalIndex,
    pd.CategoricalIndex,
)
REFUSED = (pa.ArrowException, ValueError, TypeError, OverflowError, RecursionError)


class CannotEncode(TypeError):
    """A value that would not come back as it is; the message says of what type it is."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A frame as a table and what JSON says of it."""

    table: pa.Table
    labels: dict[str, Any]


# Values


def encode(value: Any, aside: Callable[[Any], Any] | None = None) -> Any:
    """A value as JSON; ``decode_value`` makes it again.

    Args:
        value: what to encode.
        aside: what stands for a DataFrame or a Series in it; without it these are refused.

    Raises:
        CannotEncode: it, or a part of it, is of a type that has no form.

    Example:
        >>> encode({"a": (1, decimal.Decimal("1.50"))})
        {'dict': [['a', {'tuple': [1, {'Decimal': ['1.50']}]}]]}
    """
    kind = type(value)
    if value is None or kind in {str, bool, int} or (kind is float and math.isfinite(value)):
        return value
    if kind is list:
        return [encode(part, aside) for part in value]
    if aside is not None and kind in {pd.DataFrame, pd.Series}:
        return aside(value)
    name, parts_of = PARTS.get(kind) or _family(value)
    made_of = _attributes(value, parts_of) if isinstance(parts_of, tuple) else parts_of(value)
    parts = [encode(part, aside) for part in made_of]
    if kind in {set, frozenset}:
        parts.sort(key=json.dumps)  # so that equal sets are told alike
    return {name: parts}


def decode_value(given: Any, more: dict[str, Any] | None = None) -> Any:
    """What ``encode`` was given; ``more`` makes what stood aside, by name."""
    return decode(given, MAKERS | (more or {}))


def _family(value: Any) -> tuple[str, Parts]:
    """The name and the parts of what is known by a class above its own."""
    kind = type(value)
    if isinstance(value, np.generic) and value.dtype.kind in FIXED_KINDS:
        return "scalar", _scalar_parts
    if isinstance(value, np.dtype) and value.kind in FIXED_KINDS | {"O"}:
        return "dtype", ("str",)
    if isinstance(value, ExtensionArray):
        return "array", _array_parts
    if kind.__module__.partition(".")[0] == "pytz" and getattr(value, "zone", None):
        return "pytz", ("zone",)
    raise CannotEncode(_described(kind))


def _described(kind: type) -> str:
    return (
        f"a {kind.__name__}"
        if kind.__module__ == "builtins"
        else f"a {kind.__module__}.{kind.__name__}"
    )


def _attributes(value: Any, names: tuple[str, ...]) -> list[Any]:
    return [getattr(value, name) for name in names]


def _itself(value: Iterable[object]) -> Iterable[object]:
    return value


def _text_parts(value: object) -> Iterable[object]:
    return [str(value)]


def _no_parts(value: object) -> Iterable[object]:
    del value
    return []


def _pairs(value: dict[Any, Any]) -> Iterable[object]:
    return [list(pair) for pair in value.items()]


def _bytes_parts(value: bytes) -> Iterable[object]:
    return [base64.b64encode(value).decode()]


def _datetime_parts(value: dt.datetime) -> Iterable[object]:
    if type(value.tzinfo).__module__.partition(".")[0] == "pytz":
        raise CannotEncode(
            "a datetime with a zone of pytz (a pandas Timestamp with one can be saved)"
        )
    return _attributes(value, DATE + TIME)


def _timezone_parts(value: dt.timezone) -> Iterable[object]:
    arguments: Iterable[object] = value.__getinitargs__()  # type: ignore[attr-defined]
    return arguments


def _zone_info_parts(value: zoneinfo.ZoneInfo) -> Iterable[object]:
    if value.key is None:
        raise CannotEncode("a zone without a name")
    return [value.key]


def _timestamp_parts(value: pd.Timestamp) -> Iterable[object]:
    return [int(value.asm8.view("i8")), value.unit, value.tz]


def _pandas_timedelta_parts(value: pd.Timedelta) -> Iterable[object]:
    return [int(value.asm8.view("i8")), value.unit]


def _scalar_parts(value: np.generic) -> Iterable[object]:
    return [value.dtype.str, *_bytes_parts(value.tobytes())]


def _np_bytes_parts(value: np.bytes_) -> Iterable[object]:
    return [bytes(value)]


def _ndarray_parts(value: np.ndarray) -> Iterable[object]:
    if value.dtype.kind == "O":
        return ["O", list(value.shape), value.ravel().tolist()]
    if value.dtype.kind not in FIXED_KINDS | {"U", "S"}:
        raise CannotEncode(f"an array of {value.dtype}")
    return [value.dtype.str, list(value.shape), *_bytes_parts(value.tobytes())]


def _array_parts(value: Any) -> Iterable[object]:
    return [list(value), value.dtype]


def _arrow_dtype_parts(value: pd.ArrowDtype) -> Iterable[object]:
    schema = pa.schema([pa.field("", value.pyarrow_dtype)])
    return _bytes_parts(schema.serialize().to_pybytes())


def _index_parts(value: pd.Index) -> Iterable[object]:
    return [value.tolist(), value.dtype, value.name, _freq(value)]


def _multi_index_parts(value: pd.MultiIndex) -> Iterable[object]:
    return [list(value.levels), [codes.tolist() for codes in value.codes], list(value.names)]


def _freq(index: pd.Index) -> str | None:
    """The frequency of dates by its name."""
    freq = index.freq if isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex) else None
    if freq is None:
        return None
    try:
        known = to_offset(freq.freqstr) == freq
    except ValueError:
        known = False
    if not known:
        raise CannotEncode(f"dates with a frequency of its own, {type(freq).__name__}")
    return str(freq.freqstr)


def _make_set(*parts: object) -> set[object]:
    return set(parts)


def _make_frozenset(*parts: object) -> frozenset[object]:
    return frozenset(parts)


def _make_dict(*pairs: Any) -> dict[Any, Any]:
    return dict(pairs)


def _make_ordered(*pairs: Any) -> OrderedDict[Any, Any]:
    return OrderedDict(pairs)


def _make_counter(*pairs: Any) -> Counter[Any]:
    return Counter(dict(pairs))


def _make_bytearray(text: str) -> bytearray:
    return bytearray(base64.b64decode(text))


def _make_datetime(*parts: Any) -> dt.datetime:
    return dt.datetime(*parts[:-1], fold=parts[-1])  # noqa: DTZ001 (its zone is among the parts)


def _make_time(*parts: Any) -> dt.time:
    return dt.time(*parts[:-1], fold=parts[-1])


def _make_pytz(name: str) -> object:
    return importlib.import_module("pytz").timezone(name)  # there only where a zone was pytz's


def _make_na() -> object:
    return pd.NA


def _make_nat() -> object:
    return pd.NaT


def _make_timestamp(count: int, unit: Any, zone: Any) -> object:
    naive = pd.Timestamp(np.datetime64(count, unit))
    return naive if zone is None else naive.tz_localize("UTC").tz_convert(zone)


def _make_timedelta(count: int, unit: Any) -> object:
    return pd.Timedelta(np.timedelta64(count, unit))


def _make_period(ordinal: int, freq: str) -> object:
    return pd.Period(ordinal=ordinal, freq=freq)


def _make_scalar(dtype: str, data: str) -> object:
    return np.frombuffer(base64.b64decode(data), np.dtype(dtype))[0]


def _make_ndarray(dtype: str, shape: list[int], data: Any) -> object:
    if dtype == "O":
        return objects(data).reshape(shape)
    kind = np.dtype(dtype)
    if not kind.itemsize:  # empty texts
        return np.empty(shape, kind)
    return np.frombuffer(base64.b64decode(data), kind).reshape(shape).copy()


def _make_string_dtype(storage: Any, missing: Any) -> object:
    if missing is pd.NA:
        return pd.StringDtype(storage)
    if NAN_IS_SAID:
        return pd.StringDtype(storage.removesuffix("_numpy"), na_value=missing)
    storage = "pyarrow_numpy"
    return pd.StringDtype(storage)


def _make_arrow_dtype(schema: str) -> object:
    return pd.ArrowDtype(pa.ipc.read_schema(pa.py_buffer(base64.b64decode(schema))).field(0).type)


def _make_index(values: Any, dtype: Any, name: Any, freq: str | None) -> object:
    given = objects(values) if dtype == "object" else values
    index: Any = pd.Index(given, dtype=dtype, tupleize_cols=False)
    index.name = name
    if freq is not None:
        index.freq = freq
    return index


def _make_range_index(start: int, stop: int, step: int, name: Hashable) -> object:
    return pd.RangeIndex(start, stop, step, name=name)


def _make_multi_index(levels: list[Any], codes: list[list[int]], names: list[Hashable]) -> object:
    # Not looked over: of a level that holds NaN, as groupby makes them, pandas would change the codes.
    return pd.MultiIndex(levels=levels, codes=codes, names=names, verify_integrity=False)


def objects(values: list[Any]) -> Any:
    """An array of the values themselves, lists and tuples among them."""
    array = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        array[place] = value
    return array


# type: its name, what a value is made of (attributes, or what a function gives), and what makes one of that
FORMS: dict[Any, tuple[str, Parts, Callable[..., Any]]] = {
    float: ("float", _text_parts, float),
    complex: ("complex", ("real", "imag"), complex),
    bytes: ("bytes", _bytes_parts, base64.b64decode),
    bytearray: ("bytearray", _bytes_parts, _make_bytearray),
    tuple: ("tuple", _itself, make_tuple),
    set: ("set", _itself, _make_set),
    frozenset: ("frozenset", _itself, _make_frozenset),
    dict: ("dict", _pairs, _make_dict),
    OrderedDict: ("OrderedDict", _pairs, _make_ordered),
    Counter: ("Counter", _pairs, _make_counter),
    range: ("range", ("start", "stop", "step"), range),
    decimal.Decimal: ("Decimal", _text_parts, decimal.Decimal),
    uuid.UUID: ("UUID", _text_parts, uuid.UUID),
    dt.date: ("date", DATE, dt.date),
    dt.datetime: ("datetime", _datetime_parts, _make_datetime),
    dt.time: ("time", TIME, _make_time),
    dt.timedelta: ("timedelta", ("days", "seconds", "microseconds"), dt.timedelta),
    dt.timezone: ("timezone", _timezone_parts, dt.timezone),
    zoneinfo.ZoneInfo: ("ZoneInfo", _zone_info_parts, zoneinfo.ZoneInfo),
    type(pd.NA): ("NA", _no_parts, _make_na),
    type(pd.NaT): ("NaT", _no_parts, _make_nat),
    pd.Timestamp: ("Timestamp", _timestamp_parts, _make_timestamp),
    pd.Timedelta: ("Timedelta", _pandas_timedelta_parts, _make_timedelta),
    pd.Period: ("Period", ("ordinal", "freqstr"), _make_period),
    pd.Interval: ("Interval", ("left", "right", "closed"), pd.Interval),
    np.str_: ("str_", _text_parts, np.str_),
    np.bytes_: ("bytes_", _np_bytes_parts, np.bytes_),
    np.ndarray: ("ndarray", _ndarray_parts, _make_ndarray),
    pd.StringDtype: ("StringDtype", ("storage", "na_value"), _make_string_dtype),
    pd.ArrowDtype: ("ArrowDtype", _arrow_dtype_parts, _make_arrow_dtype),
    pd.CategoricalDtype: ("CategoricalDtype", ("categories", "ordered"), pd.CategoricalDtype),
    pd.DatetimeTZDtype: ("DatetimeTZDtype", ("unit", "tz"), pd.DatetimeTZDtype),
    pd.IntervalDtype: ("IntervalDtype", ("subtype", "closed"), pd.IntervalDtype),
    pd.SparseDtype: ("SparseDtype", ("subtype", "fill_value"), pd.SparseDtype),
    pd.RangeIndex: ("RangeIndex", ("start", "stop", "step", "name"), _make_range_index),
    pd.MultiIndex: ("MultiIndex", _multi_index_parts, _make_multi_index),
    **dict.fromkeys(NAMED_DTYPES, ("pandas_dtype", ("name",), pd.api.types.pandas_dtype)),
    **dict.fromkeys(INDEXES, ("Index", _index_parts, _make_index)),
}
PARTS = {kind: (name, parts) for kind, (name, parts, _) in FORMS.items()}
MAKERS: dict[str, Any] = {
    **{name: make for name, _, make in FORMS.values()},
    "scalar": _make_scalar,
    "dtype": np.dtype,
    "array": pd.array,
    "pytz": _make_pytz,
}


# Frames


def encode_frame(frame: pd.DataFrame) -> Encoded:
    """A frame as Arrow and JSON, exactly.

    Raises:
        CannotEncode: a part of it would not come back; the message names it.
    """
    if type(frame) is not pd.DataFrame:
        raise CannotEncode(
            f"it is {_described(type(frame))}, and only a plain DataFrame comes back"
        )
    arrays: dict[str, Any] = {}
    dtypes: list[Any] = []
    for number, label in enumerate(frame.columns):
        array, kind = _named(f"column {label!r}", encode_array, _values(frame.iloc[:, number]))
        arrays[f"c{number}"] = array
        dtypes.append(kind)
    index = _named("the index", _encode_index, frame.index)
    arrays |= {f"i{level}": array for level, array in enumerate(index.pop("arrays"))}
    attrs = {name: value for name, value in frame.attrs.items() if name != MARK}
    labels = {
        "dtypes": dtypes,
        "columns": _named("the names of the columns", encode, frame.columns),
        "index_names": _named("the name of the index", encode, list(frame.index.names)),
        "attrs": _named("attrs", encode, attrs),
        "unique": not frame.flags.allows_duplicate_labels,
        **index,
    }
    table = pa.table(arrays) if arrays else pa.table({})
    return Encoded(table, labels)


def decode_table(encoded: Encoded) -> pd.DataFrame:
    """The frame that ``encode_frame`` was given."""
    frame: pd.DataFrame = decode_frame(encoded.table, encoded.labels, decode_array, MAKERS)
    frame.attrs = decode_value(encoded.labels["attrs"])
    return frame.set_flags(allows_duplicate_labels=False) if encoded.labels["unique"] else frame


def _named(part: str, encoded: Callable[[Any], Any], value: Any) -> Any:
    """Encode a part of a frame, and name it where that cannot be."""
    try:
        return encoded(value)
    except CannotEncode as error:
        raise CannotEncode(f"{part} holds {error}") from None
    except REFUSED:  # whose messages may hold what stands in cells
        kind = getattr(value, "dtype", type(value).__name__)
        raise CannotEncode(f"{part} ({kind}) holds what Parquet and JSON cannot") from None


def _values(values: Any) -> Any:
    """What stands in a Series or an Index: numpy's array, or pandas' own."""
    return values.to_numpy() if isinstance(values.dtype, np.dtype) else values.array


def _encode_index(index: pd.Index) -> dict[str, Any]:
    """The arrays of an index, and what JSON says of them; of levels the arrays are the codes."""
    if type(index) is pd.RangeIndex:
        return {"arrays": [], "range": [index.start, index.stop, index.step]}
    if type(index) is pd.MultiIndex:
        codes = [encode_array(np.asarray(part)) for part in index.codes]
        kinds = [kind for _, kind in codes]
        return {
            "arrays": [part for part, _ in codes],
            "level_dtypes": kinds,
            "levels": encode(list(index.levels)),
        }
    if type(index) not in INDEXES:
        raise CannotEncode(_described(type(index)))
    array, kind = encode_array(_values(index))
    return {"arrays": [array], "level_dtypes": [kind], "freq": _freq(index)}


def encode_array(values: Any) -> tuple[Any, Any]:
    """An array as Arrow, and its kind as JSON: its dtype, or of objects ``TEXT`` or ``CELLS``."""
    if values.dtype != object:
        kind = encode(values.dtype)
        return _stored(values, values.dtype), kind
    given = values.tolist()
    if all(value is None or type(value) is str for value in given):
        try:
            return pa.array(given, pa.large_string()), TEXT
        except UnicodeEncodeError:  # half of a character
            pass
    return pa.array([json.dumps(encode(value)) for value in given], pa.large_string()), CELLS


def decode_array(column: pa.ChunkedArray, kind: Any) -> Any:
    """The array that ``encode_array`` was given."""
    if kind == TEXT:
        return objects(column.to_pylist())
    if kind == CELLS:
        return objects([decode_value(json.loads(text)) for text in column.to_pylist()])
    return _restored(column, decode_value(kind))


def _stored(values: Any, dtype: Any) -> Any:
    match dtype:
        case np.dtype():
            return _stored_numbers(values)
        case pd.CategoricalDtype():
            return pa.array(np.asarray(values.codes))
        case pd.DatetimeTZDtype():
            return pa.array(np.asarray(values.tz_convert(None)))
        case pd.PeriodDtype():
            return pa.array(values.asi8)
        case pd.IntervalDtype():
            sides = [_stored(_values(side), dtype.subtype) for side in (values.left, values.right)]
            return pa.StructArray.from_arrays(sides, names=["left", "right"])
        case pd.SparseDtype():
            return _stored(np.asarray(values), dtype.subtype)
    return pa.array(values)


def _stored_numbers(values: Any) -> Any:
    """Numbers, bools and times as they are; of what Arrow and Parquet have no type for, the bytes."""
    if (
        values.dtype.kind in PLAIN_KINDS
        and values.dtype.itemsize <= 8
        and values.dtype != np.float16
    ):
        return pa.array(values)
    data = pa.py_buffer(np.ascontiguousarray(values).tobytes())
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(values.dtype.itemsize), len(values), [None, data]
    )


def _restored(column: pa.ChunkedArray, dtype: Any) -> Any:
    match dtype:
        case np.dtype():
            return _restored_numbers(column, dtype)
        case pd.CategoricalDtype():
            return pd.Categorical.from_codes(column.to_numpy(), dtype=dtype)
        case pd.DatetimeTZDtype():
            moments = column.to_numpy().astype(f"M8[{dtype.unit}]")  # Parquet knows no seconds
            return pd.DatetimeIndex(moments).tz_localize("UTC").tz_convert(dtype.tz).array
        case pd.PeriodDtype():
            ordinals: Any = np.array(column.to_numpy())
            return pd.PeriodIndex.from_ordinals(ordinals, freq=dtype.freq).array  # type: ignore[attr-defined]
        case pd.IntervalDtype():
            sides = [
                pa.chunked_array([part], part.type) for part in column.combine_chunks().flatten()
            ]
            left, right = (_restored(side, dtype.subtype) for side in sides)
            closed: Any = dtype.closed
            return pd.arrays.IntervalArray.from_arrays(left, right, closed=closed)
        case pd.SparseDtype():
            return pd.arrays.SparseArray(_restored(column, dtype.subtype), dtype=dtype)
    return dtype.__from_arrow__(column)


def _restored_numbers(column: pa.ChunkedArray, dtype: np.dtype) -> Any:
    if pa.types.is_fixed_size_binary(column.type):
        return np.frombuffer(b"".join(column.to_pylist()), dtype).copy()
    return np.array(column.to_numpy(), dtype)


def first_difference(one: pa.Table, other: pa.Table) -> str | None:
    """The name of the first array in which two tables of the same names differ; None if they are the same."""
    for name in one.column_names:
        if not _is_same_array(one[name], other[name]):
            return str(name)
    return None


def _is_same_array(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    if one.type != other.type or len(one) != len(other):
        return False
    if pa.types.is_floating(one.type):  # bit by bit: NaN is NaN, and -0.0 not 0.0
        bits = f"int{one.type.bit_width}"
        return bool(one.combine_chunks().view(bits).equals(other.combine_chunks().view(bits)))
    return bool(one.equals(other)) or repr(one.to_pylist()) == repr(
        other.to_pylist()
    )  # with NaN in nested values
