"""Units: what one finding is about, known by position and told apart by content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_amr._records.counts import counted
from pandas_amr._types.canonical import canonical_json
from pandas_amr._units.cells import cell, make_json_keys, make_reader_keys, to_json_line
from pandas_amr._units.rows import combine_chunks, find_range

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from pandas_amr._records.tokens import TokenCounter

BLOCK_ROWS = 8192  # rendered at a time, so that memory stays bounded
FEW_ROWS = 64


def _no_positions() -> NDArray[np.int64]:
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
    asked: NDArray[np.int64]
    answered_by: NDArray[np.int64]
    tokens: NDArray[np.int64]
    known_by: tuple[int, ...] = ()
    empty: NDArray[np.int64] = field(default_factory=_no_positions)

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        return (
            f"<Units {counted(len(self), 'row')}, {len(self.asked):,} asked, "
            f"{counted(int(self.tokens.sum()), 'token')}>"
        )

    @property
    def unredacted(self) -> Units:
        """The same units as functions of the user's read them: nothing is redacted."""
        return replace(self, sent=self.frame)

    def only(self, wanted: NDArray[np.bool_]) -> Units:
        """Ask only some of the asked units."""
        return replace(self, asked=self.asked[wanted], tokens=self.tokens[wanted])

    def take(self, rows: NDArray[np.int64]) -> Units:
        """Return the units of some rows, in their order, as those of a frame of their own."""
        numbers, firsts, codes = np.unique(
            self.answered_by[rows], return_index=True, return_inverse=True
        )
        order = np.argsort(firsts)
        places = np.argsort(order)  # of each number among those in order
        frame = self.frame.iloc[rows]
        asked = firsts[order]
        return replace(
            self,
            frame=frame,
            sent=frame if self.sent is self.frame else self.sent.iloc[rows],
            asked=asked,
            answered_by=places[codes],
            tokens=self.tokens[numbers[order]],
            empty=asked[self.is_empty[numbers[order]]],
        )

    @property
    def is_empty(self) -> NDArray[np.bool_]:
        """Tell of each asked unit whether no model is asked about it."""
        return np.isin(self.asked, self.empty)

    @property
    def is_empty_row(self) -> NDArray[np.bool_]:
        """Tell of each row whether no model is asked about it."""
        rows: NDArray[np.bool_] = self.is_empty[self.answered_by]
        return rows

    def with_content(self) -> Units:
        """Ask only the units that have content."""
        return self.only(~self.is_empty) if len(self.empty) else self

    def with_columns(self, columns: tuple[int, ...]) -> Units:
        """Replace the content columns."""
        return replace(self, columns=columns, keys=make_json_keys(self._labels(columns)))

    def lines(self, positions: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Write each unit's content as one line of JSON."""
        return [
            to_json_line(record) for record in self._records(self.columns, self.keys, positions)
        ]

    def compact_lines(self, positions: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Write each unit's content as one line of JSON without spaces, which would cost tokens."""
        records = self._records(self.columns, self.keys, positions)
        return [to_json_line(record, separators=(",", ":")) for record in records]

    def reader_lines(self, positions: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Write each unit's content as reducers read it, beside a finding's number."""
        keys = make_reader_keys(self._labels(self.columns), counted=False)
        return [to_json_line(record) for record in self._records(self.columns, keys, positions)]

    def _labels(self, columns: Sequence[int]) -> list[Any]:
        return [self.frame.columns[column] for column in columns]

    def _records(
        self,
        columns: Sequence[int],
        keys: Sequence[str],
        positions: Sequence[int] | NDArray[np.int64],
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
        return [
            {key: cell(array[row]) for key, array in zip(keys, arrays, strict=True)}
            for row in positions
        ]

    @cached_property
    def _arrays(self) -> list[Any]:
        return [self.sent.iloc[:, column].array for column in range(len(self.sent.columns))]

    def fingerprints(
        self, positions: Sequence[int] | NDArray[np.int64], *, former: bool = False
    ) -> list[bytes]:
        """Hash each unit's content, whatever the order of the columns and the types of numbers.

        With ``former`` as in the journal's first format: numbers as they are shown.
        """
        columns = self.known_by or self.columns
        pairs = sorted(zip(make_json_keys(self._labels(columns)), columns, strict=True))
        keys = [key for key, _ in pairs]
        records = self._records([column for _, column in pairs], keys, positions)
        write = to_json_line if former else canonical_json
        return [hash_text(write(record)) for record in records]

    def record(self, position: int) -> dict[str, Any]:
        """Convert a unit's content to a JSON record."""
        [record] = self._records(self.columns, self.keys, [position])
        return record

    def size(self, position: int) -> int:
        """Return the tokens of an asked unit's line."""
        return int(self.tokens[np.searchsorted(self.asked, position)])

    def sizes(self, positions: Sequence[int]) -> NDArray[np.int64]:
        """Return the tokens of the lines of some asked units."""
        sizes: NDArray[np.int64] = self.tokens[
            np.searchsorted(self.asked, np.asarray(positions, dtype=np.int64))
        ]
        return sizes

    def answered(self, position: int) -> NDArray[np.int64]:
        """Return the rows that an asked unit answers for, itself among them."""
        order, starts = self._groups
        index = int(np.searchsorted(self.asked, position))
        return order[starts[index] : starts[index + 1]]

    @cached_property
    def _groups(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows by the asked unit that answers for them, and where each unit's rows begin."""
        order = np.argsort(self.answered_by, kind="stable")
        return order, np.searchsorted(self.answered_by[order], np.arange(len(self.asked) + 1))

    def rows(self, positions: Sequence[int] | NDArray[np.int64]) -> pd.DataFrame:
        """Return some rows of the frame with all columns and their labels, for anybody to change.

        They are a copy, as a slice is none in pandas 2; of Arrow's memory, which nobody can change,
        nothing is copied.
        """
        rows = find_range(positions)
        if rows is not None:
            return self.frame.iloc[rows].copy()
        return self._combined_frame.iloc[np.asarray(positions, dtype=np.int64)]

    @cached_property
    def _combined_frame(self) -> pd.DataFrame:
        """The frame to take rows of that do not follow each other."""
        return combine_chunks(self.frame)

    def sent_rows(self, positions: Sequence[int] | NDArray[np.int64]) -> pd.DataFrame:
        """Return some rows as they are sent, with all columns and their labels."""
        rows = find_range(positions)
        if rows is not None:
            return self.sent.iloc[rows].copy()
        return self._combined_sent.iloc[np.asarray(positions, dtype=np.int64)]

    @cached_property
    def _combined_sent(self) -> pd.DataFrame:
        """The rows as they are sent, to take some of that do not follow each other."""
        return self._combined_frame if self.sent is self.frame else combine_chunks(self.sent)


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
    units = _make_plain_units(frame, frame if sent is None else sent, columns)
    if not dedupe and counter is None:
        return units
    asked: list[int] = []
    tokens: list[int] = []
    answered_by = np.empty(len(frame), dtype=np.int64)
    index_of: dict[bytes, int] = {}
    for position, line in enumerate(_write_rows(units.sent, columns, units.keys)):
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
    keys = make_json_keys([frame.columns[column] for column in columns])
    for line in _write_rows(frame, columns, keys):
        yield hash_text(line)


def _make_plain_units(frame: pd.DataFrame, sent: pd.DataFrame, columns: tuple[int, ...]) -> Units:
    """Make one unit of each row without reading any."""
    keys = make_json_keys([frame.columns[column] for column in columns])
    rows = np.arange(len(frame), dtype=np.int64)
    return Units(frame, sent, columns, keys, rows, rows, np.zeros_like(rows))


def _to_array(numbers: list[int]) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


def hash_text(text: str) -> bytes:
    """Hash a text to 16 bytes (BLAKE2b, RFC 7693)."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _write_rows(frame: pd.DataFrame, columns: Sequence[int], keys: Sequence[str]) -> Iterator[str]:
    """Write each row as one line of JSON, block by block."""
    for start in range(0, len(frame), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        yield from [to_json_line(record) for record in _convert_rows(frame, columns, keys, rows)]


def _convert_rows(
    frame: pd.DataFrame,
    columns: Sequence[int],
    keys: Sequence[str],
    rows: slice | NDArray[np.int64],
) -> list[dict[str, Any]]:
    """Convert rows to JSON records, column by column."""
    cells: list[list[Any]] = []
    for column in columns:
        # No map(): a cell of the user's whose text raises StopIteration would end it in silence.
        cells.append([cell(value) for value in frame.iloc[rows, column].tolist()])
    return [dict(zip(keys, row, strict=True)) for row in zip(*cells, strict=True)]
