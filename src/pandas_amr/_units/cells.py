"""Cells and rows as JSON, written so that a model reads what a person would."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import enum
import json
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

UNIT_KEY = "unit"
FINDING_KEY = "finding"  # the key of a finding's number, where reducers read it
ROWS_KEY = "rows"  # the key of how many equal rows a finding stands for
CONTAINERS = (
    dict,
    list,
    tuple,
    set,
    frozenset,
    np.ndarray,
    pd.Series,
    pd.Index,
    pd.api.extensions.ExtensionArray,
    pa.Array,
    pa.ChunkedArray,
)
# Made once: `json.dumps` makes one per call.
ENCODER = json.JSONEncoder(ensure_ascii=False)
COMPACT_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
LINE_BREAKS = re.compile("[\x7f\x85\u2028\u2029]")  # those that JSON does not escape


def to_json_line(record: dict[str, Any], encoder: json.JSONEncoder = ENCODER) -> str:
    """Write a record as one line of JSON; characters that Unicode counts as line ends are escaped.

    Other characters stand as they are, unless there is a lone surrogate: then all are escaped.
    """
    line = encoder.encode(record)
    if line.isascii() and "\x7f" not in line:  # as most are
        return line
    if LINE_BREAKS.search(line):
        line = LINE_BREAKS.sub(_escape, line)
    try:
        line.encode()
    except UnicodeEncodeError:
        separators = (encoder.item_separator, encoder.key_separator)
        return json.dumps(record, separators=separators)
    return line


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match.group()):04x}"


def make_json_keys(
    labels: Sequence[Hashable], *, taken: Sequence[str] = (UNIT_KEY,)
) -> tuple[str, ...]:
    """Name columns in JSON: by unique texts, none of which is ``taken``.

    Example:
        >>> make_json_keys(["text", ("a", "b"), "unit", 1, "1"])
        ('text', 'a.b', 'unit_', '1', '1_')
    """
    used = set(taken)
    keys: list[str] = []
    for label in labels:
        key = ".".join(map(str, label)) if isinstance(label, tuple) else str(label)
        while key in used:
            key += "_"
        used.add(key)
        keys.append(key)
    return tuple(keys)


def make_reader_keys(labels: Sequence[Hashable], *, counted: bool = True) -> tuple[str, ...]:
    """Name columns as reducers read them: beside a finding's number.

    With ``counted``, the number of equal rows stands beside them, too.

    Example:
        >>> make_reader_keys(["finding", "rows", "finding_"])
        ('finding_', 'rows_', 'finding__')
    """
    if counted:
        return make_json_keys(labels, taken=(FINDING_KEY, ROWS_KEY))
    return make_json_keys(labels, taken=(FINDING_KEY,))


def cell(value: object) -> Any:
    """Convert a cell to what JSON can hold.

    Missing values of every kind become None, and dates ISO 8601. A value for which JSON has no
    form becomes its text.

    Example:
        >>> cell(float("nan")), cell(pd.Timestamp("2026-01-02")), cell({"a": (1, pd.NA)})
        (None, '2026-01-02T00:00:00', {'a': [1, None]})
    """
    # The order counts: most cells are texts or numbers.
    if isinstance(value, str | bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _convert_infinite(value)
    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, CONTAINERS):
        return _convert_container(value)
    return _convert_scalar(value)


def _convert_infinite(value: float) -> str | None:
    return None if math.isnan(value) else str(value)


def _convert_container(value: Any) -> Any:
    if isinstance(value, dict):
        keys = make_json_keys([str(key) for key in value], taken=())
        return {key: cell(inner) for key, inner in zip(keys, value.values(), strict=True)}
    if isinstance(value, set | frozenset):
        return sorted((cell(inner) for inner in value), key=str)
    if isinstance(value, pd.Series) and not isinstance(value.index, pd.RangeIndex):
        keys = make_json_keys(value.index.tolist(), taken=())
        return dict(zip(keys, map(cell, value.tolist()), strict=True))
    if isinstance(value, np.ndarray):
        return _convert_array(value)
    if isinstance(value, pa.Array | pa.ChunkedArray):
        value = value.to_pylist()
    items = value if isinstance(value, list | tuple) else value.tolist()
    return [cell(inner) for inner in items]


def _convert_array(value: NDArray[Any]) -> Any:
    """Convert an array of numpy's, whose ``tolist`` has numbers for times of nanoseconds."""
    if value.ndim and value.dtype.kind in "mM":
        return [cell(inner) for inner in value]
    if value.dtype.kind in "mM":
        return cell(value[()])
    plain = value.tolist()
    if not value.ndim:
        return cell(plain)
    return [cell(inner) for inner in plain]


def _convert_scalar(value: object) -> Any:
    match value:
        case np.generic():
            return _convert_numpy(value)
        case pd.DataFrame():
            return value.to_csv(lineterminator="\n")
        case pd.Timedelta() | dt.date() | dt.time():
            return value.isoformat()
        case dt.timedelta():
            return _write_duration(value)
        case decimal.Decimal():
            return None if value.is_nan() else str(value)
        case enum.Enum():
            return cell(value.value)
        case bytes() | bytearray() | memoryview():
            return _write_bytes(bytes(value))
        case pa.Scalar():
            return cell(value.as_py())
    return str(value)


def _convert_numpy(value: np.generic) -> Any:
    if isinstance(value, np.datetime64 | np.timedelta64):
        return _write_time(value)
    if isinstance(value, np.longdouble):
        value = np.float64(value)
    plain = value.item()
    if isinstance(plain, np.generic):  # a long complex number
        return str(plain)
    return cell(plain)


def _write_time(value: np.datetime64 | np.timedelta64) -> Any:
    """Write a time of numpy's. Python has none of nanoseconds or of months: ``item`` is a number.

    Example:
        >>> _write_time(np.datetime64("2026-01-02T03:04:05.000000006"))
        '2026-01-02T03:04:05.000000006'
        >>> _write_time(np.datetime64("2026-01-02")), _write_time(np.timedelta64(3, "M"))
        ('2026-01-02', '3 months')
    """
    if np.isnat(value):
        return None
    plain = value.item()
    if not isinstance(plain, int):
        return cell(plain)
    convert: Any = pd.Timestamp if isinstance(value, np.datetime64) else pd.Timedelta
    try:
        return convert(value).isoformat()
    except ValueError:  # pandas has no such unit, or no such year
        return str(value)


def _write_duration(value: dt.timedelta) -> str:
    """Write a duration as pandas does, even one that is too long for pandas (292 years).

    Example:
        >>> _write_duration(dt.timedelta(days=1, microseconds=5))
        'P1DT0H0M0.000005S'
        >>> _write_duration(dt.timedelta(days=106751992, seconds=61))
        'P106751992DT0H1M1S'
    """
    try:
        return pd.Timedelta(value).isoformat()
    except (OverflowError, pd.errors.OutOfBoundsTimedelta):
        hours, rest = divmod(value.seconds, 3600)
        minutes, seconds = divmod(rest, 60)
        fraction = ""
        if value.microseconds:
            fraction = f".{value.microseconds:06d}".rstrip("0")
        return f"P{value.days}DT{hours}H{minutes}M{seconds}{fraction}S"


def _write_bytes(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        encoded = base64.b64encode(value).decode()
        return f"base64:{encoded}"
