"""Units: what one finding is about, known by position and told apart by content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_amr._records.counts import counted
from pandas_amr._types.canonical import canonical_json
from pandas_amr._units.cells import (
    COMPACT_ENCODER,
    cell,
    make_json_keys,
    make_reader_keys,
    to_json_line,
)
from pandas_amr._units.rows import combine_chunks, find_range

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from pandas_amr._records.tokens import TokenCounter
    from pandas_amr._units.rows import BoolArray, IntArray, Positions

BLOCK_ROWS = 8192  # rendered at a time, so that memory stays bounded
FEW_ROWS = 64


def _no_positions() -> IntArray:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Units:
    """The rows of a frame as units.

    Attributes:
        frame: the whole frame, unchanged.
        sent: the frame as it is sent: the same rows, redacted; the frame itself if nothing is.
        columns: positions of the content columns.
        keys: the name of each content column in JSON.
        asked: positions of the units that are asked, in frame order; of equal units only the first.
        answered_by: for each unit, the index in ``asked`` of the unit that answers for it.
        tokens: tokens of each asked unit's JSON line; zeros if nothing is sent to a model.
        known_by: positions of the columns that tell units apart in the journal; default: the
            content columns.
        empty: positions of the asked units that no model is asked about, since they have no
            content; in order.
    """

    frame: pd.DataFrame
    sent: pd.DataFrame
    columns: tuple[int, ...]
    keys: tuple[str, ...]
    asked: IntArray
    answered_by: IntArray
    tokens: IntArray
    known_by: tuple[int, ...] = ()
    empty: IntArray = field(default_factory=_no_positions)

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        rows = counted(len(self), "row")
        tokens = counted(int(self.tokens.sum()), "token")
        return f"<Units {rows}, {len(self.asked):,} asked, {tokens}>"

    @property
    def unredacted(self) -> Units:
        """The same units as functions of the user's read them: nothing is redacted."""
        return replace(self, sent=self.frame)

    def only(self, wanted: BoolArray) -> Units:
        """Ask only some of the asked units."""
        return replace(self, asked=self.asked[wanted], tokens=self.tokens[wanted])

    def take(self, rows: IntArray) -> Units:
        """Return the units of some rows, in their order, as those of a frame of their own."""
        answered_by = self.answered_by[rows]
        numbers, firsts, codes = np.unique(answered_by, return_index=True, return_inverse=True)
        order = np.argsort(firsts)
        places = np.argsort(order)  # of each number among those in order
        numbers, asked = numbers[order], firsts[order]
        frame = self.frame.iloc[rows]
        sent = frame
        if self.sent is not self.frame:
            sent = self.sent.iloc[rows]
        return replace(
            self,
            frame=frame,
            sent=sent,
            asked=asked,
            answered_by=places[codes],
            tokens=self.tokens[numbers],
            empty=asked[self.is_empty[numbers]],
        )

    @property
    def is_empty(self) -> BoolArray:
        """Tell of each asked unit whether no model is asked about it."""
        return np.isin(self.asked, self.empty)

    @property
    def is_empty_row(self) -> BoolArray:
        """Tell of each row whether no model is asked about it."""
        rows: BoolArray = self.is_empty[self.answered_by]
        return rows

    def with_content(self) -> Units:
        """Ask only the units that have content."""
        if not len(self.empty):
            return self
        return self.only(~self.is_empty)

    def with_columns(self, columns: tuple[int, ...]) -> Units:
        """Replace the content columns."""
        keys = make_json_keys(self._labels(columns))
        return replace(self, columns=columns, keys=keys)

    def lines(self, positions: Positions) -> list[str]:
        """Write each unit's content as one line of JSON."""
        records = self._records(self.columns, self.keys, positions)
        return [to_json_line(record) for record in records]

    def compact_lines(self, positions: Positions) -> list[str]:
        """Write each unit's content as one line of JSON without spaces, which would cost tokens."""
        records = self._records(self.columns, self.keys, positions)
        return [to_json_line(record, COMPACT_ENCODER) for record in records]

    def reader_lines(self, positions: Positions) -> list[str]:
        """Write each unit's content as reducers read it, beside a finding's number."""
        keys = make_reader_keys(self._labels(self.columns), counted=False)
        records = self._records(self.columns, keys, positions)
        return [to_json_line(record) for record in records]

    def _labels(self, columns: Sequence[int]) -> list[Any]:
        return [self.frame.columns[column] for column in columns]

    def _records(
        self,
        columns: Sequence[int],
        keys: Sequence[str],
        positions: Positions,
    ) -> list[dict[str, Any]]:
        """Convert rows to JSON records, as they are sent."""
        if len(positions) > FEW_ROWS:
            rows = find_range(positions)
            if rows is not None:
                return _convert_rows(self.sent, columns, keys, rows)
            places = np.asarray(positions, dtype=np.int64)
            return _convert_rows(self._combined_sent, columns, keys, places)
        # For a few rows, cell by cell is faster than to have pandas take the rows.
        arrays = [self._arrays[column] for column in columns]
        fields = list(zip(keys, arrays, strict=True))
        records: list[dict[str, Any]] = []
        for row in positions:
            records.append({key: cell(array[row]) for key, array in fields})
        return records

    @cached_property
    def _arrays(self) -> list[Any]:
        numbers = range(len(self.sent.columns))
        return [self.sent.iloc[:, number].array for number in numbers]

    def fingerprints(self, positions: Positions, *, former: bool = False) -> list[bytes]:
        """Hash each unit's content, whatever the order of the columns and the types of numbers.

        With ``former`` as in the journal's first format: numbers as they are shown.
        """
        columns = self.known_by or self.columns
        column_of = dict(zip(make_json_keys(self._labels(columns)), columns, strict=True))
        keys = sorted(column_of)
        sorted_columns = [column_of[key] for key in keys]
        records = self._records(sorted_columns, keys, positions)
        write = to_json_line if former else canonical_json
        return [hash_text(write(record)) for record in records]

    def record(self, position: int) -> dict[str, Any]:
        """Convert a unit's content to a JSON record."""
        [record] = self._records(self.columns, self.keys, [position])
        return record

    def size(self, position: int) -> int:
        """Return the tokens of an asked unit's line."""
        place = np.searchsorted(self.asked, position)
        return int(self.tokens[place])

    def sizes(self, positions: Sequence[int]) -> IntArray:
        """Return the tokens of the lines of some asked units."""
        places = np.searchsorted(self.asked, np.asarray(positions, dtype=np.int64))
        sizes: IntArray = self.tokens[places]
        return sizes

    def answered(self, position: int) -> IntArray:
        """Return the rows that an asked unit answers for, itself among them."""
        order, starts = self._groups
        index = int(np.searchsorted(self.asked, position))
        return order[starts[index] : starts[index + 1]]

    @cached_property
    def _groups(self) -> tuple[IntArray, IntArray]:
        """The rows by the asked unit that answers for them, and where each unit's rows begin."""
        order = np.argsort(self.answered_by, kind="stable")
        units = np.arange(len(self.asked) + 1)
        starts = np.searchsorted(self.answered_by[order], units)
        return order, starts

    def rows(self, positions: Positions) -> pd.DataFrame:
        """Return some rows of the frame with all columns and their labels, for anybody to change.

        They are a copy, as a slice is none in pandas 2; of Arrow's memory, which nobody can change,
        nothing is copied.
        """
        rows = find_range(positions)
        if rows is not None:
            return self.frame.iloc[rows].copy()
        places = np.asarray(positions, dtype=np.int64)
        return self._combined_frame.iloc[places]

    @cached_property
    def _combined_frame(self) -> pd.DataFrame:
        """The frame to take rows of that do not follow each other."""
        return combine_chunks(self.frame)

    def sent_rows(self, positions: Positions) -> pd.DataFrame:
        """Return some rows as they are sent, with all columns and their labels."""
        rows = find_range(positions)
        if rows is not None:
            return self.sent.iloc[rows].copy()
        places = np.asarray(positions, dtype=np.int64)
        return self._combined_sent.iloc[places]

    @cached_property
    def _combined_sent(self) -> pd.DataFrame:
        """The rows as they are sent, to take some of that do not follow each other."""
        if self.sent is self.frame:
            return self._combined_frame
        return combine_chunks(self.sent)


def make_units(
    frame: pd.DataFrame,
    columns: tuple[int, ...],
    *,
    dedupe: bool = True,
    counter: TokenCounter | None = None,
    sent: pd.DataFrame | None = None,
) -> Units:
    """Make one unit of each row; with ``dedupe``, units of equal content are asked once.

    Without a ``counter`` no tokens are counted. ``sent`` is the frame as it is sent, if that is
    another one.
    """
    sent = frame if sent is None else sent
    units = _make_plain_units(frame, sent, columns)
    if not dedupe and counter is None:
        return units
    asked: list[int] = []
    tokens: list[int] = []
    answered_by = np.empty(len(frame), dtype=np.int64)
    index_of: dict[bytes, int] = {}
    for position, line in enumerate(_write_rows(sent, columns, units.keys)):
        index = len(asked)
        if dedupe:
            index = index_of.setdefault(hash_text(line), index)
        if index == len(asked):
            asked.append(position)
            tokens.append(0 if counter is None else counter(line))
        answered_by[position] = index
    return replace(units, asked=_to_array(asked), answered_by=answered_by, tokens=_to_array(tokens))


def hash_rows(frame: pd.DataFrame, columns: tuple[int, ...]) -> Iterator[bytes]:
    """Hash the content of each row: units with equal hashes are asked once."""
    labels = [frame.columns[column] for column in columns]
    keys = make_json_keys(labels)
    for line in _write_rows(frame, columns, keys):
        yield hash_text(line)


def _make_plain_units(frame: pd.DataFrame, sent: pd.DataFrame, columns: tuple[int, ...]) -> Units:
    """Make one unit of each row without reading any."""
    labels = [frame.columns[column] for column in columns]
    keys = make_json_keys(labels)
    rows = np.arange(len(frame), dtype=np.int64)
    tokens = np.zeros_like(rows)
    return Units(frame, sent, columns, keys, asked=rows, answered_by=rows, tokens=tokens)


def _to_array(numbers: list[int]) -> IntArray:
    return np.array(numbers, dtype=np.int64)


def hash_text(text: str) -> bytes:
    """Hash a text to 16 bytes (BLAKE2b, RFC 7693)."""
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16).digest()


def _write_rows(frame: pd.DataFrame, columns: Sequence[int], keys: Sequence[str]) -> Iterator[str]:
    """Write each row as one line of JSON, block by block."""
    for start in range(0, len(frame), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        records = _convert_rows(frame, columns, keys, rows)
        yield from [to_json_line(record) for record in records]


def _convert_rows(
    frame: pd.DataFrame,
    columns: Sequence[int],
    keys: Sequence[str],
    rows: slice | IntArray,
) -> list[dict[str, Any]]:
    """Convert rows to JSON records, column by column."""
    cells: list[list[Any]] = []
    for column in columns:
        values = frame.iloc[rows, column].tolist()
        # No map(): a cell of the user's whose text raises StopIteration would end it in silence.
        cells.append([cell(value) for value in values])
    return [dict(zip(keys, row, strict=True)) for row in zip(*cells, strict=True)]
