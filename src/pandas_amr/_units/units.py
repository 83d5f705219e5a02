"""Units: what one finding is about. Known by position, rendered as JSON, told apart by a digest of their content."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import enum
import hashlib
import json
import math
import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._types.canonical import canonical_json
from pandas_amr.errors import ColumnError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from pandas_amr._records.tokens import TokenCounter

UNIT_KEY = "unit"
FINDING_KEY = "finding"  # of a finding's number, where reducers read it
ROWS_KEY = "rows"  # of how many equal rows a finding stands for
BLOCK_ROWS = 8192
FEW_ROWS = 64
LINE_BREAKS = re.compile("[\x7f\x85\u2028\u2029]")  # those that JSON lets stand


@dataclass(frozen=True)
class Units:
    """The rows of a frame as units.

    Attributes:
        frame: the whole frame, as given.
        columns: positions of the content columns.
        keys: what each content column is called in JSON.
        asked: positions of the units that are asked, in frame order; equal units only once.
        answered_by: for each unit, the index in ``asked`` of the one that answers for it.
        tokens: tokens of each asked unit's JSON line; zeros where nothing is sent to a model.
        known_by: positions of the columns that tell units apart in the journal; default: the content columns.
    """

    frame: pd.DataFrame
    columns: tuple[int, ...]
    keys: tuple[str, ...]
    asked: NDArray[np.int64]
    answered_by: NDArray[np.int64]
    tokens: NDArray[np.int64]
    known_by: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        return f"<Units {len(self)} rows, {len(self.asked)} asked, {int(self.tokens.sum())} tokens>"

    def only(self, wanted: NDArray[np.bool_]) -> Units:
        """The same frame, of which only some of the asked units are to be asked."""
        return replace(self, asked=self.asked[wanted], tokens=self.tokens[wanted])

    def with_columns(self, columns: tuple[int, ...]) -> Units:
        """The same units, of which other columns are read."""
        return replace(
            self,
            columns=columns,
            keys=json_keys([self.frame.columns[column] for column in columns]),
        )

    def lines(self, positions: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Each unit's content as one line of JSON."""
        return self._rendered(self.columns, self.keys, positions)

    def compact_lines(self, positions: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Likewise, without spaces between the parts: each is a token of a prompt, several times per row."""
        records = self._records(self.columns, self.keys, positions)
        return [line_of(record, separators=(",", ":")) for record in records]

    def reader_lines(self, positions: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Render units as reducers read them, beside a finding's number."""
        keys = reader_keys([self.frame.columns[column] for column in self.columns], counted=False)
        return self._rendered(self.columns, keys, positions)

    def _rendered(
        self,
        columns: Sequence[int],
        keys: Sequence[str],
        positions: Sequence[int] | NDArray[np.int64],
    ) -> list[str]:
        return [line_of(record) for record in self._records(columns, keys, positions)]

    def _records(
        self,
        columns: Sequence[int],
        keys: Sequence[str],
        positions: Sequence[int] | NDArray[np.int64],
    ) -> list[dict[str, Any]]:
        """Rows as records: a few cell by cell, which is sooner than to have pandas take rows."""
        if len(positions) > FEW_ROWS:
            return _records(
                self.frame, tuple(columns), tuple(keys), np.asarray(positions, dtype=np.int64)
            )
        arrays = [self._arrays[column] for column in columns]
        return [
            {key: cell(array[row]) for key, array in zip(keys, arrays, strict=True)}
            for row in positions
        ]

    @cached_property
    def _arrays(self) -> list[Any]:
        return [self.frame.iloc[:, column].array for column in range(len(self.frame.columns))]

    def fingerprints(
        self, positions: Sequence[int] | NDArray[np.int64], *, former: bool = False
    ) -> list[bytes]:
        """Each unit's content as 16 bytes, whatever the order of the columns and the types of numbers.

        With ``former`` as the journal's first format had them: numbers as they are shown.
        """
        columns = self.known_by or self.columns
        keys = json_keys([self.frame.columns[column] for column in columns])
        ordered = sorted(zip(keys, columns, strict=True))
        records = self._records(
            [column for _, column in ordered], [key for key, _ in ordered], positions
        )
        write = line_of if former else canonical_json
        return [digest(write(record)) for record in records]

    def record(self, position: int) -> dict[str, Any]:
        """A unit's content, as JSON takes it."""
        return {
            key: cell(self.frame.iloc[position, column])
            for key, column in zip(self.keys, self.columns, strict=True)
        }

    def size(self, position: int) -> int:
        """The tokens of an asked unit's line."""
        return int(self.tokens[np.searchsorted(self.asked, position)])

    def answered(self, position: int) -> NDArray[np.int64]:
        """The rows that the asked unit at ``position`` answers for, itself among them."""
        order, starts = self._groups
        index = int(np.searchsorted(self.asked, position))
        return order[starts[index] : starts[index + 1]]

    @cached_property
    def _groups(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        order = np.argsort(self.answered_by, kind="stable")
        return order, np.searchsorted(self.answered_by[order], np.arange(len(self.asked) + 1))

    def rows(self, positions: Sequence[int] | NDArray[np.int64]) -> pd.DataFrame:
        """The units as a frame of their own, all columns, index kept."""
        return self.frame.iloc[np.asarray(positions, dtype=np.int64)]


def content_columns(frame: pd.DataFrame, columns: Any) -> tuple[int, ...]:
    """The positions of the content columns: of a label, a slice of labels, or a list of these.

    With several levels of labels, a label of the first level stands for all columns below it.

    Raises:
        ColumnError: a column is missing, or a label stands for two columns.
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
    labels = _listed(columns, frame)
    if not labels:
        raise ColumnError(
            "columns= is empty; name at least one column, or leave it out to read all."
        )
    missing = [
        label for label in labels if not isinstance(label, slice) and not _is_there(label, frame)
    ]
    if missing:
        raise ColumnError(f"No column {_named(missing)}. {_suggestion(missing, frame)}")
    positions = [position for label in labels for position in _positions(label, frame)]
    if not positions:
        raise ColumnError(f"columns={_named(labels)} holds no column; {_suggestion([], frame)}")
    if len(set(positions)) < len(positions):
        raise ColumnError(f"columns= names a column twice: {labels}.")
    return tuple(positions)


def _listed(columns: Any, frame: pd.DataFrame) -> list[Any]:
    """The labels and slices that ``columns=`` holds."""
    alone = isinstance(columns, str | slice) or not isinstance(columns, Iterable)
    if alone or (
        isinstance(columns, tuple) and isinstance(columns, Hashable) and _is_there(columns, frame)
    ):
        return [columns]
    labels = list(columns)
    for label in labels:
        if not isinstance(label, slice) and not _is_hashable(label):
            raise ColumnError(
                f"columns= takes a column label, a list of labels or a slice of them, not a {type(label).__name__} "
                f"within a {type(columns).__name__}. {_suggestion([], frame)}"
            )
    return labels


def _is_hashable(label: Any) -> bool:
    try:
        hash(label)
    except TypeError:
        return False
    return True


def _is_there(label: Hashable, frame: pd.DataFrame) -> bool:
    return _is_hashable(label) and label in frame.columns


def _positions(label: Any, frame: pd.DataFrame) -> list[int]:
    """Where the columns of a label, or of a slice of labels, stand.

    Raises:
        ColumnError: an end of a slice is no label.
    """
    everywhere = np.arange(len(frame.columns))
    try:
        if isinstance(label, slice):
            found: Any = frame.columns.slice_indexer(label.start, label.stop, label.step)
        else:
            found = frame.columns.get_loc(label)
    except (KeyError, TypeError, ValueError):
        raise ColumnError(
            f"columns={label!r} takes two labels of the columns, sorted if they have levels, as df.loc[:, a:b] does. "
            f"{_suggestion([], frame)}"
        ) from None
    positions: list[int] = np.atleast_1d(everywhere[found]).tolist()
    return positions


def _named(labels: Sequence[Hashable]) -> str:
    return ", ".join(repr(label) for label in labels)


def _suggestion(missing: Sequence[Hashable], frame: pd.DataFrame) -> str:
    import difflib  # noqa: PLC0415 (only on the way to an error)

    names = [str(name) for name in frame.columns]
    close = [
        match for label in missing for match in difflib.get_close_matches(str(label), names, n=1)
    ]
    return (
        f"Did you mean {_named(close)}?"
        if close
        else f"There is: {_named(list(frame.columns[:20]))}."
    )


def json_keys(labels: Sequence[Hashable], *, taken: Sequence[str] = (UNIT_KEY,)) -> tuple[str, ...]:
    """Name columns in JSON: text, unique, and none that is taken by what stands beside them, as the unit's number.

    Example:
        >>> json_keys(["text", ("a", "b"), "unit", 1, "1"])
        ('text', 'a.b', 'unit_', '1', '1_')
    """
    used = set(taken)
    keys: list[str] = []
    for label in labels:
        key = ".".join(str(part) for part in label) if isinstance(label, tuple) else str(label)
        while key in used:
            key += "_"
        used.add(key)
        keys.append(key)
    return tuple(keys)


def reader_keys(labels: Sequence[Hashable], *, counted: bool = True) -> tuple[str, ...]:
    """Name columns as reducers read them: beside a finding's number, and where equal rows are ``counted``, their count.

    Example:
        >>> reader_keys(["finding", "rows", "finding_"])
        ('finding_', 'rows_', 'finding__')
    """
    return json_keys(labels, taken=(FINDING_KEY, ROWS_KEY) if counted else (FINDING_KEY,))


def make_units(
    frame: pd.DataFrame,
    columns: tuple[int, ...],
    *,
    dedupe: bool = True,
    counter: TokenCounter | None = None,
) -> Units:
    """Make one unit of each row; equal content is asked once where ``dedupe`` says so.

    Without a ``counter`` nothing is rendered unless ``dedupe`` needs it.
    """
    keys = json_keys([frame.columns[column] for column in columns])
    everything = np.arange(len(frame), dtype=np.int64)
    if not dedupe and counter is None:
        return Units(
            frame, columns, keys, everything, everything, np.zeros(len(frame), dtype=np.int64)
        )
    first: dict[bytes, int] = {}
    asked: list[int] = []
    tokens: list[int] = []
    answered_by = np.empty(len(frame), dtype=np.int64)
    for start, lines in _blocks(frame, columns, keys):
        for position, line in enumerate(lines, start):
            known = first.setdefault(digest(line), len(asked)) if dedupe else len(asked)
            if known == len(asked):
                asked.append(position)
                tokens.append(counter(line) if counter else 0)
            answered_by[position] = known
    return Units(
        frame, columns, keys, np.array(asked, np.int64), answered_by, np.array(tokens, np.int64)
    )


def digest(text: str) -> bytes:
    """A unit's content as 16 bytes (BLAKE2b, RFC 7693)."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _blocks(
    frame: pd.DataFrame, columns: tuple[int, ...], keys: tuple[str, ...]
) -> Iterator[tuple[int, list[str]]]:
    for start in range(0, len(frame), BLOCK_ROWS):
        positions = np.arange(start, min(start + BLOCK_ROWS, len(frame)), dtype=np.int64)
        yield start, [line_of(record) for record in _records(frame, columns, keys, positions)]


def _records(
    frame: pd.DataFrame,
    columns: tuple[int, ...],
    keys: tuple[str, ...],
    positions: NDArray[np.int64],
) -> list[dict[str, Any]]:
    cells = [
        [cell(value) for value in frame.iloc[positions, column].tolist()] for column in columns
    ]
    return [dict(zip(keys, row, strict=True)) for row in zip(*cells, strict=True)]


def line_of(record: dict[str, Any], *, separators: tuple[str, str] = (", ", ": ")) -> str:
    """A record as one line of JSON, whoever breaks lines: readable text, unless it holds what UTF-8 cannot."""
    line = json.dumps(record, ensure_ascii=False, separators=separators)
    if LINE_BREAKS.search(line):
        line = LINE_BREAKS.sub(lambda match: f"\\u{ord(match.group()):04x}", line)
    try:
        line.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(record, separators=separators)
    return line


def cell(value: Any) -> Any:
    """A cell as JSON takes it, so that a model reads what a person would.

    Missing values of every kind become null; dates are ISO 8601; what JSON has no form for becomes its text.

    Example:
        >>> [cell(value) for value in (float("nan"), pd.Timestamp("2026-01-02"), b"raw", {"a": (1, pd.NA)})]
        [None, '2026-01-02T00:00:00', 'raw', {'a': [1, None]}]
    """
    if isinstance(value, str | bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return (float(value) if math.isfinite(value) else str(value)) if value == value else None  # noqa: PLR0124
    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, dict):
        keys = json_keys([str(key) for key in value], taken=())
        return {key: cell(inner) for key, inner in zip(keys, value.values(), strict=True)}
    if isinstance(value, list | tuple):
        return [cell(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted((cell(inner) for inner in value), key=str)
    if isinstance(value, np.ndarray | pd.Series | pd.Index):
        return [cell(inner) for inner in value.tolist()]
    return _text(value)


def _text(value: Any) -> Any:
    match value:
        case np.generic():
            return cell(value.item())
        case pd.Timedelta():
            return value.isoformat()
        case dt.date() | dt.time():
            return value.isoformat()
        case dt.timedelta():
            return _duration(value)
        case decimal.Decimal():
            return None if value.is_nan() else str(value)
        case enum.Enum():
            return cell(value.value)
        case bytes() | bytearray() | memoryview():
            return _bytes(bytes(value))
    if hasattr(value, "as_py"):
        return cell(value.as_py())
    return str(value)


def _duration(value: dt.timedelta) -> str:
    """A duration as pandas writes it, were it longer than pandas' 292 years.

    Example:
        >>> _duration(dt.timedelta(days=1, microseconds=5)), _duration(dt.timedelta(days=106751992, seconds=61))
        ('P1DT0H0M0.000005S', 'P106751992DT0H1M1S')
    """
    try:
        return pd.Timedelta(value).isoformat()
    except (OverflowError, pd.errors.OutOfBoundsTimedelta):
        hours, rest = divmod(value.seconds, 3600)
        minutes, seconds = divmod(rest, 60)
        fraction = f".{value.microseconds:06d}".rstrip("0") if value.microseconds else ""
        return f"P{value.days}DT{hours}H{minutes}M{seconds}{fraction}S"


def _bytes(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(value).decode()


def check_frame(frame: Any) -> None:
    """Refuse what is no DataFrame.

    Raises:
        UsageError: the first argument is something else.
    """
    if not isinstance(frame, pd.DataFrame):
        raise UsageError(f"The first argument is a pandas DataFrame, not {type(frame).__name__}.")
