"""Frames from files and stdin, and into files: CSV, Parquet, JSON lines, each also gzipped.

A file is written beside its place, and renamed into it.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import secrets
import stat
import sys
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pandas_amr._api.cli.exits import WrongUsage
from pandas_amr._records.suggest import did_you_mean
from pandas_amr._units.cells import cell, make_json_keys, to_json_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Format = Literal["csv", "parquet", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)
ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
# Of what spreadsheets of other countries write as CSV: all of it would be read as one column.
OTHER_SEPARATORS = (";", "\t")
SURROGATE = "\\ud"  # how JSON begins to write half of a pair
GZIPPED = ".gz"
GZIP_MAGIC = b"\x1f\x8b"
STDIN = "-"
PANDAS_KEY = b"pandas"  # of a Parquet file's metadata
# What is read as a number. A ZIP code (007), a telephone number (+49) and a label (1e5) are texts.
INTEGER = r"-?(?:0|[1-9]\d{0,17})"
NUMBER = r"-?(?:0|[1-9]\d{0,14})(?:\.\d+(?:[eE][+-]?\d{1,3})?)?"
CONTAINERS = (dict, list, tuple, set, frozenset, np.ndarray)


@dataclass(frozen=True)
class Place:
    """A file, or stdin, and its format.

    Attributes:
        name: as it was given.
        path: the file; None for stdin.
    """

    name: str
    path: Path | None
    format: Format
    is_gzipped: bool = False


def find_places(source: str, out: str | None, given: Format | None) -> tuple[Place, Place | None]:
    """Find the formats of the input and the output.

    Args:
        source: a file, or ``-`` for stdin.
        out: a file, or None.
        given: the format of those whose names do not tell it.

    Raises:
        WrongUsage: a format is not known, or is given and contradicts the names.
    """
    names = [source] if out is None else [source, out]
    by_name = [_format_of_name(name) for name in names]
    if given is not None and None not in by_name and given not in by_name:
        raise WrongUsage(
            f"--format {given} contradicts the names of the files ({', '.join(map(repr, names))}); "
            "it is for names that do not tell their format."
        )
    places = [_find_place(name, given) for name in names]
    return places[0], places[1] if out is not None else None


def _find_place(name: str, given: Format | None) -> Place:
    kind = _format_of_name(name) or given
    if kind is None:
        raise WrongUsage(_unknown_format(name))
    is_gzipped = name.lower().endswith(GZIPPED)
    if is_gzipped and kind == "parquet":
        raise WrongUsage(f"{name!r}: Parquet is compressed by itself; leave out {GZIPPED}.")
    return Place(name, None if name == STDIN else Path(name), kind, is_gzipped)


def _format_of_name(name: str) -> Format | None:
    path = Path(name.lower())
    if path.suffix == GZIPPED:
        path = path.with_suffix("")
    return ENDINGS.get(path.suffix)


def _unknown_format(name: str) -> str:
    if name == STDIN:
        return f"stdin has no name that tells its format: --format {'|'.join(FORMATS)}."
    suffix = Path(name).suffix
    advice = " Did you mean '.jsonl', an object per line?" if suffix == ".json" else ""
    advice = advice or (did_you_mean(suffix, ENDINGS) if suffix else "")
    return f"{name!r} does not tell its format: --format {'|'.join(FORMATS)}.{advice}"


# Read


def read_frame(place: Place) -> pd.DataFrame:
    """Read a frame.

    Raises:
        WrongUsage: the file cannot be read, or does not have its format. The message quotes
            nothing of it.
    """
    data = _read_bytes(place)
    try:
        if data[:2] == GZIP_MAGIC:
            data = gzip.decompress(data)
        frame = READERS[place.format](data)
    except (OSError, EOFError, zlib.error):
        raise WrongUsage(f"{place.name!r} is not whole: its gzip data is damaged.") from None
    except UnicodeError:
        raise WrongUsage(f"{place.name!r} is not text in UTF-8.") from None
    except _Unreadable as error:
        raise WrongUsage(f"{place.name!r} is not {place.format}: {error}") from None
    if not len(frame.columns):
        raise WrongUsage(f"{place.name!r} has no columns.")
    return frame


def _read_bytes(place: Place) -> bytes:
    try:
        if place.path is None:
            if sys.stdin is None:
                raise WrongUsage("stdin is closed; name a file.")
            return sys.stdin.buffer.read()
        return place.path.read_bytes()
    except IsADirectoryError:
        raise WrongUsage(f"{place.name!r} is a folder; name a file.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not a path"
        raise WrongUsage(f"{place.name!r} cannot be read: {reason}.") from None


class _Unreadable(Exception):
    """Data does not have its format; the text says where, and quotes nothing."""


def _read_csv(data: bytes) -> pd.DataFrame:
    """Read CSV: a column of numbers as numbers, any other as its texts; empty is missing.

    A text such as NA or None is not missing, and 007 is not a number.
    """
    text = data.decode("utf-8-sig")
    try:
        names = next(csv.reader(io.StringIO(text, newline="")), [])
    except csv.Error:
        raise _Unreadable("its first line is no header.") from None
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise _Unreadable(f"the column {doubled[0]!r} is named twice.")
    if not names:
        raise _Unreadable("it is empty.")
    for separator in OTHER_SEPARATORS:
        if separator in names[0] and len(names) == 1 and not text.startswith('"'):
            raise _Unreadable(f"its cells are separated by {separator!r}, not by commas.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # cells beyond the header
            frame = pd.read_csv(
                io.StringIO(text, newline=""),
                dtype=str,
                keep_default_na=False,
                na_values=[""],
                index_col=False,
            )
    except (pd.errors.ParserError, pd.errors.ParserWarning):
        raise _Unreadable(
            "a line has more cells than the header has names, or a quote is not closed."
        ) from None
    for name in frame.columns:
        frame[name] = _read_numbers(frame[name])
    return frame


def _read_numbers(column: pd.Series) -> pd.Series:
    """Convert a column whose every value is a number; give any other as it is."""
    values = column.dropna()
    if values.empty:
        return column
    if values.str.fullmatch(INTEGER).all():
        is_whole = len(values) == len(column)
        return column.astype("int64") if is_whole else column.astype("Int64")
    if values.str.fullmatch(NUMBER).all():
        return column.astype("float64")
    return column


def _read_jsonl(data: bytes) -> pd.DataFrame:
    records: list[dict[str, Any]] = []
    for number, line in enumerate(data.decode("utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            raise _Unreadable(f"line {number} is not JSON.") from None
        if not isinstance(record, dict):
            raise _Unreadable(f"line {number} is not an object.")
        if SURROGATE in line.lower() and not _is_encodable(record):
            raise _Unreadable(f"line {number} contains a lone surrogate, which is no character.")
        records.append(record)
    names = list(dict.fromkeys(name for record in records for name in record))
    columns: dict[str, pd.Series] = {}
    for name in names:
        columns[name] = _make_column([record.get(name) for record in records])
    return pd.DataFrame(columns)


def _is_encodable(record: dict[str, Any]) -> bool:
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _make_column(values: list[Any]) -> pd.Series:
    """Make a column of JSON values: typed, if that changes none of them."""
    kinds = {type(value) for value in values if value is not None}
    is_whole = None not in values
    if kinds == {int} and all(-(2**63) <= value < 2**63 for value in values if value is not None):
        return pd.Series(values, dtype="int64" if is_whole else "Int64")
    if kinds == {bool}:
        return pd.Series(values, dtype="bool" if is_whole else "boolean")
    if kinds == {float}:
        return pd.Series(values, dtype="float64")
    if kinds == {str}:
        return pd.Series(values)
    return pd.Series(values, dtype=object)


def _read_parquet(data: bytes) -> pd.DataFrame:
    try:
        frame: pd.DataFrame = pd.read_parquet(io.BytesIO(data))
    except (pa.ArrowException, OSError, ValueError, NotImplementedError):
        raise _Unreadable("it cannot be read as a table.") from None
    return frame


READERS: dict[Format, Callable[[bytes], pd.DataFrame]] = {
    "csv": _read_csv,
    "parquet": _read_parquet,
    "jsonl": _read_jsonl,
}


# Write


def check_out(out: Place, source: Place) -> None:
    """Check that a file can be written where the output goes, before anything is paid for.

    Raises:
        WrongUsage: it cannot, or it is the input.
    """
    if out.path is None:
        raise WrongUsage("--out takes a file; stdout has the answer as JSON.")
    path = Path(os.path.realpath(out.path))
    with contextlib.suppress(OSError):
        if source.path is not None and path.samefile(source.path):
            raise WrongUsage(f"--out {out.name!r} is the input. Name another file.")
    if path.is_dir():
        raise WrongUsage(f"--out {out.name!r} is a folder; name a file in it.")
    if path.exists() and not path.is_file():
        raise WrongUsage(f"--out {out.name!r} is no file that another could be renamed to.")
    if not path.parent.is_dir():
        raise WrongUsage(f"--out {out.name!r}: there is no folder {str(path.parent)!r}.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise WrongUsage(f"--out {out.name!r}: the folder {str(path.parent)!r} is not writable.")
    beside = _beside(path)
    try:
        beside.touch(exist_ok=False)
        beside.unlink()
    except OSError as error:  # such as a name that is too long, or a quota
        raise WrongUsage(f"--out {out.name!r} cannot be written: {error.strerror}.") from None


def check_rows_fit(frame: pd.DataFrame, out: Place) -> None:
    """Check that the format of the output can hold the input's columns.

    Raises:
        WrongUsage: it cannot.
    """
    if out.format != "parquet":
        return
    for name in frame.columns:
        try:
            pa.Array.from_pandas(frame[name])
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            raise WrongUsage(
                f"Parquet cannot hold the column {name!r}, whose values are of several types. "
                "Write JSON lines: --out NAME.jsonl."
            ) from None


def write_frame(frame: pd.DataFrame, place: Place) -> None:
    """Write a frame as a whole: beside its place, then renamed into it.

    Raises:
        OSError: it could not be written; what was there before is there still.
    """
    assert place.path is not None
    plain = frame.copy(deep=False)
    plain.attrs = {}  # they name a result of this process
    data = WRITERS[place.format](plain)
    if place.is_gzipped:
        data = gzip.compress(data, mtime=0)
    write_whole(data, place.path)


def write_whole(data: bytes, path: Path) -> None:
    """Write a file as a whole: beside its place, then renamed into it; links are followed.

    Raises:
        OSError: it could not be written.
    """
    target = Path(os.path.realpath(path))
    beside = _beside(target)
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            beside.chmod(stat.S_IMODE(target.stat().st_mode))
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.writing")


def _to_csv(frame: pd.DataFrame) -> bytes:
    shown = _with_index_columns(frame)
    columns: dict[str, Any] = {}
    keys = make_json_keys(list(shown.columns), taken=())
    for place, key in enumerate(keys):
        columns[key] = _to_csv_column(shown.iloc[:, place])
    written = pd.DataFrame(columns, index=shown.index)
    text: str = written.to_csv(index=False, lineterminator="\n")
    if (
        "\r" in text
    ):  # Python before 3.13 does not quote one, and readers take it for the line's end
        text = written.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return text.encode("utf-8", "backslashreplace")


def _to_csv_column(column: pd.Series) -> pd.Series:
    """Write lists and objects as JSON; other values are written as pandas does."""
    if column.dtype != object and not isinstance(column.dtype, pd.ArrowDtype):
        return column
    cells: list[Any] = []
    for value in column.tolist():
        is_container = isinstance(value, CONTAINERS)
        cells.append(json.dumps(cell(value), ensure_ascii=False) if is_container else value)
    return pd.Series(cells, index=column.index, dtype=object)


def _to_jsonl(frame: pd.DataFrame) -> bytes:
    lines = [f"{to_json_line(record)}\n" for record in iterate_records(frame)]
    return "".join(lines).encode()


def _to_parquet(frame: pd.DataFrame) -> bytes:
    table = pa.Table.from_pandas(frame)
    metadata = dict(table.schema.metadata)
    metadata[PANDAS_KEY] = _make_readable(metadata[PANDAS_KEY])
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), buffer)
    return buffer.getvalue()


def _make_readable(metadata: bytes) -> bytes:
    """Leave out of pandas' metadata the types that pandas cannot read back, such as of lists."""
    described = json.loads(metadata)
    for column in described["columns"]:
        try:
            pd.api.types.pandas_dtype(column["numpy_type"])
        except (TypeError, NotImplementedError):
            column["numpy_type"] = "object"
    return json.dumps(described).encode()


WRITERS: dict[Format, Callable[[pd.DataFrame], bytes]] = {
    "csv": _to_csv,
    "parquet": _to_parquet,
    "jsonl": _to_jsonl,
}


def iterate_records(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Give each row as JSON has it: its columns, and the levels of an index that says something."""
    shown = _with_index_columns(frame)
    labels = [_join_levels(label) for label in shown.columns]
    keys = make_json_keys(labels, taken=())
    columns = [shown.iloc[:, place].tolist() for place in range(len(keys))]
    for values in zip(*columns, strict=True):
        yield {key: cell(value) for key, value in zip(keys, values, strict=True)}


def _join_levels(label: object) -> Any:
    """Join the levels of a column's label, as (severity, mean)."""
    return "_".join(map(str, label)) if isinstance(label, tuple) else label


def _with_index_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Put the levels of the index before the columns; a mere numbering of the rows is left out."""
    index = frame.index
    if isinstance(index, pd.RangeIndex) and index.name is None:
        return frame
    shown = frame.copy(deep=False)
    shown.columns = pd.Index([_join_levels(label) for label in frame.columns], dtype=object)
    for level in reversed(range(index.nlevels)):
        name = index.names[level]
        if name is None or name in shown.columns:
            name = "index" if index.nlevels == 1 else f"index_{level}"
        values = index.get_level_values(level).astype(object)
        shown.insert(0, name, values, allow_duplicates=True)
    return shown
