"""Encode values as JSON without loss, and decode them.

JSON's own values stand for themselves. Any other value is an object with one key, the name of its
type, and the list of its parts: ``{"tuple": [1, {"Decimal": ["1.50"]}]}``. The sandbox's guest has
the decoder (`sandbox/guest/worker.py`). A value of another type is refused: it is neither turned
into text nor pickled, and no class is imported by its name.
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
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.extensions import ExtensionArray
from pandas.tseries.frequencies import to_offset

from pandas_amr.sandbox.guest.worker import decode, make_tuple

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    Parts: TypeAlias = tuple[str, ...] | Callable[[Any], Iterable[object]]

DATE = ("year", "month", "day")
TIME = ("hour", "minute", "second", "microsecond", "tzinfo", "fold")
FIXED_KINDS = frozenset("biufMmc")  # of numpy's dtypes
# pandas 2.2 has no parameter for the missing value of texts, and another name for the storage.
HAS_NA_VALUE = "na_value" in inspect.signature(pd.StringDtype).parameters
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


class CannotEncode(TypeError):
    """A value that would not be decoded as it is; the message names its type."""


def encode(value: Any, aside: Callable[[Any], Any] | None = None) -> Any:
    """Encode a value as JSON.

    Args:
        value: the value.
        aside: encodes a DataFrame or a Series in it; without it these are refused.

    Raises:
        CannotEncode: the value, or a part of it, is of a type that has no form.

    Example:
        >>> encode({"a": (1, decimal.Decimal("1.50"))})
        {'dict': [['a', {'tuple': [1, {'Decimal': ['1.50']}]}]]}
    """
    kind = type(value)
    if value is None or kind in {str, bool, int}:
        return value
    if kind is float and math.isfinite(value):
        return value
    if kind is list:
        return [encode(part, aside) for part in value]
    if aside is not None and kind in {pd.DataFrame, pd.Series}:
        return aside(value)
    name, parts = _take_apart(value)
    encoded = [encode(part, aside) for part in parts]
    if kind in {set, frozenset}:
        encoded.sort(key=json.dumps)  # so that equal sets are encoded alike
    return {name: encoded}


def decode_value(given: object, more: dict[str, Any] | None = None) -> Any:
    """Decode what ``encode`` returned; ``more`` has further functions that make values, by name."""
    return decode(given, MAKERS | (more or {}))


def _take_apart(value: object) -> tuple[str, Iterable[Any]]:
    """Return the name of a value's type, and its parts."""
    known = PARTS.get(type(value))
    name, take_parts = known or _find_family(value)
    if isinstance(take_parts, tuple):
        return name, _attributes(value, take_parts)
    return name, take_parts(value)


def _find_family(value: object) -> tuple[str, Parts]:
    """Return the name and the parts of a type that is known by its base class.

    Raises:
        CannotEncode: it is not known.
    """
    if isinstance(value, np.generic) and value.dtype.kind in FIXED_KINDS:
        return "scalar", _scalar_parts
    if isinstance(value, np.dtype) and value.kind in FIXED_KINDS | {"O"}:
        return "dtype", ("str",)
    if isinstance(value, ExtensionArray):
        return "array", _array_parts
    if _is_of_pytz(value) and getattr(value, "zone", None):
        return "pytz", ("zone",)
    raise CannotEncode(describe_type(type(value)))


def _is_of_pytz(value: object) -> bool:
    package, _, _ = type(value).__module__.partition(".")
    return package == "pytz"


def describe_type(kind: type) -> str:
    if kind.__module__ == "builtins":
        return f"a {kind.__name__}"
    return f"a {kind.__module__}.{kind.__name__}"


def _attributes(value: object, names: tuple[str, ...]) -> list[Any]:
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
    if _is_of_pytz(value.tzinfo):
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
    count = int(value.asm8.view("i8"))
    return [count, value.unit, value.tz]


def _pandas_timedelta_parts(value: pd.Timedelta) -> Iterable[object]:
    count = int(value.asm8.view("i8"))
    return [count, value.unit]


def _scalar_parts(value: np.generic) -> Iterable[object]:
    return [value.dtype.str, *_bytes_parts(value.tobytes())]


def _np_bytes_parts(value: np.bytes_) -> Iterable[object]:
    return [bytes(value)]


def _ndarray_parts(value: np.ndarray) -> Iterable[object]:
    dtype, shape = value.dtype, list(value.shape)
    if dtype.kind == "O":
        return ["O", shape, value.ravel().tolist()]
    if dtype.kind not in FIXED_KINDS | {"U", "S"}:
        raise CannotEncode(f"an array of {dtype}")
    return [dtype.str, shape, *_bytes_parts(value.tobytes())]


def _array_parts(value: Any) -> Iterable[object]:
    return [list(value), value.dtype]


def _arrow_dtype_parts(value: pd.ArrowDtype) -> Iterable[object]:
    field = pa.field("", value.pyarrow_dtype)
    schema = pa.schema([field])
    return _bytes_parts(schema.serialize().to_pybytes())


def _index_parts(value: pd.Index) -> Iterable[object]:
    return [value.tolist(), value.dtype, value.name, frequency_name(value)]


def _multi_index_parts(value: pd.MultiIndex) -> Iterable[object]:
    codes = [part.tolist() for part in value.codes]
    return [list(value.levels), codes, list(value.names)]


def frequency_name(index: pd.Index) -> str | None:
    """Return the name of the frequency of dates.

    Raises:
        CannotEncode: pandas does not know the frequency by its name.
    """
    if not isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex) or index.freq is None:
        return None
    name = str(index.freq.freqstr)
    try:
        is_known = to_offset(name) == index.freq
    except ValueError:
        is_known = False
    if not is_known:
        raise CannotEncode(f"dates with a custom frequency, {type(index.freq).__name__}")
    return name


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
    *arguments, fold = parts
    return dt.datetime(*arguments, fold=fold)  # noqa: DTZ001 (the parts hold its zone)


def _make_time(*parts: Any) -> dt.time:
    *arguments, fold = parts
    return dt.time(*arguments, fold=fold)


def _make_pytz(name: str) -> object:
    pytz = importlib.import_module("pytz")  # optional: only its own zones need it
    zone: object = pytz.timezone(name)
    return zone


def _make_na() -> object:
    return pd.NA


def _make_nat() -> object:
    return pd.NaT


def _make_timestamp(count: int, unit: Any, zone: Any) -> object:
    moment = np.datetime64(count, unit)
    naive = pd.Timestamp(moment)
    if zone is None:
        return naive
    return naive.tz_localize("UTC").tz_convert(zone)


def _make_timedelta(count: int, unit: Any) -> object:
    length = np.timedelta64(count, unit)
    return pd.Timedelta(length)


def _make_period(ordinal: int, freq: str) -> object:
    return pd.Period(ordinal=ordinal, freq=freq)


def _make_scalar(dtype: str, data: str) -> object:
    [scalar] = np.frombuffer(base64.b64decode(data), np.dtype(dtype))
    return scalar


def _make_ndarray(dtype: str, shape: list[int], data: Any) -> object:
    if dtype == "O":
        return objects(data).reshape(shape)
    kind = np.dtype(dtype)
    if not kind.itemsize:  # empty texts
        return np.empty(shape, kind)
    array = np.frombuffer(base64.b64decode(data), kind)
    return array.reshape(shape).copy()  # which can be written to


def _make_string_dtype(storage: Any, missing: Any) -> object:
    if missing is pd.NA:
        return pd.StringDtype(storage)
    if not HAS_NA_VALUE:
        storage = "pyarrow_numpy"
        return pd.StringDtype(storage)
    return pd.StringDtype(storage.removesuffix("_numpy"), na_value=missing)


def _make_arrow_dtype(schema: str) -> object:
    data = pa.py_buffer(base64.b64decode(schema))
    field = pa.ipc.read_schema(data).field(0)
    return pd.ArrowDtype(field.type)


def _make_index(values: Any, dtype: Any, name: Any, freq: str | None) -> object:
    if dtype == "object":
        values = objects(values)
    index: Any = pd.Index(values, dtype=dtype, tupleize_cols=False)
    index.name = name
    if freq is not None:
        index.freq = freq
    return index


def _make_range_index(start: int, stop: int, step: int, name: Hashable) -> object:
    return pd.RangeIndex(start, stop, step, name=name)


def _make_multi_index(levels: list[Any], codes: list[list[int]], names: list[Hashable]) -> object:
    # Verification would change the codes of a level that holds NaN, as groupby makes them.
    return pd.MultiIndex(levels=levels, codes=codes, names=names, verify_integrity=False)


def objects(values: list[Any]) -> Any:
    """Make an array of objects; unlike numpy's own, it does not unpack lists."""
    array = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        array[index] = value
    return array


# Of each type its name, the parts of a value (attributes, or a function's result), and the function
# that makes a value of them.
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
PARTS: dict[Any, tuple[str, Parts]] = {
    kind: (name, parts) for kind, (name, parts, _) in FORMS.items()
}
MAKERS: dict[str, Any] = {
    **{name: make for name, _, make in FORMS.values()},
    "scalar": _make_scalar,
    "dtype": np.dtype,
    "array": pd.array,
    "pytz": _make_pytz,
}
