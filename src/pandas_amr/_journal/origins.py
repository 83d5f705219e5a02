"""Which rows an answer was made from: by their fingerprints, so that they can be forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeAlias

from pandas_amr._journal.keys import fingerprint
from pandas_amr._types.canonical import canonical_json
from pandas_amr._units.cells import make_json_keys
from pandas_amr._units.units import Units, make_units

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

Origins: TypeAlias = tuple[bytes, ...]


class RowOrigins(Protocol):
    """Gives the fingerprints of the user's rows behind the rows of a run's frame."""

    @property
    def is_own(self) -> bool:
        """Whether the run's rows are the user's, and not made of them by an earlier stage."""
        ...

    @property
    def reading(self) -> str:
        """The names of the columns that the fingerprints are made of, as JSON."""
        ...

    @property
    def size(self) -> int:
        """How many rows of the user's ``links`` hashes."""
        ...

    @property
    def whole(self) -> RowOrigins:
        """Rows each of which may have been made of any of these."""
        ...

    def of(self, positions: Sequence[int]) -> list[Origins]:
        """Return the fingerprints behind each of the rows at some positions."""
        ...

    def links(self) -> list[tuple[bytes, bytes]]:
        """Return the fingerprints behind each fingerprint of a whole set of rows, in pairs."""
        ...


@dataclass(frozen=True, eq=False)
class OwnRows:
    """The rows of the user's frame itself, as they are before anything is taken out of them.

    Attributes:
        columns: the positions of the columns by which rows are told apart.
    """

    frame: pd.DataFrame
    columns: tuple[int, ...]
    is_own: bool = True
    size: int = 0

    @cached_property
    def _units(self) -> Units:
        return make_units(self.frame, self.columns, dedupe=False)

    @cached_property
    def reading(self) -> str:
        """The names of the columns, as JSON."""
        return write_reading(self._units.keys)

    @cached_property
    def whole(self) -> RowOrigins:
        """Rows each of which may have been made of any of these."""
        return AllRows(self, len(self.frame))

    def of(self, positions: Sequence[int]) -> list[Origins]:
        """Return the fingerprint of each row."""
        return [(digest,) for digest in self._units.fingerprints(positions)]

    def links(self) -> list[tuple[bytes, bytes]]:
        """Return nothing: there is no set."""
        return []


def own_rows(frame: pd.DataFrame) -> OwnRows:
    """Tell the rows of a frame apart by all of its columns."""
    return OwnRows(frame, tuple(range(len(frame.columns))))


@dataclass(frozen=True, eq=False)
class _RowsOver:
    """What all rows have that stand for others.

    Attributes:
        outer: the rows behind them.
    """

    outer: RowOrigins

    @property
    def is_own(self) -> bool:
        """They are not the user's."""
        return False

    @property
    def reading(self) -> str:
        """The names of the columns of the rows behind."""
        return self.outer.reading

    @property
    def size(self) -> int:
        """How many rows ``links`` hashes."""
        return self.outer.size

    def links(self) -> list[tuple[bytes, bytes]]:
        """Return those of the rows behind."""
        return self.outer.links()


@dataclass(frozen=True, eq=False)
class RowsAt(_RowsOver):
    """Rows that a stage gave one for one of some rows before it.

    Attributes:
        outer: the rows before it.
        places: their positions.
    """

    places: NDArray[np.int64]

    @cached_property
    def whole(self) -> RowOrigins:
        """Rows each of which may have been made of any of these."""
        return AllRows(self, len(self.places))

    def of(self, positions: Sequence[int]) -> list[Origins]:
        """Return what is behind the row that each was made of."""
        return self.outer.of(self.places[list(positions)].tolist())


@dataclass(frozen=True, eq=False)
class AllRows(_RowsOver):
    """Rows each of which may have been made of any row before it: those of a function, of groups.

    Attributes:
        outer: the rows before.
        count: how many they are.
    """

    count: int

    @property
    def size(self) -> int:
        """How many rows ``links`` hashes."""
        return self.count + self.outer.size

    @property
    def whole(self) -> RowOrigins:
        """The same: any of the rows before is behind each of these."""
        return self

    @cached_property
    def _behind(self) -> list[bytes]:
        """The fingerprints of all rows before, each once."""
        return join_origins(self.outer.of(range(self.count)))

    @cached_property
    def _key(self) -> bytes:
        return fingerprint(b"rows", *self._behind)

    def of(self, positions: Sequence[int]) -> list[Origins]:
        """Return the fingerprint of the whole set for each row."""
        return [(self._key,)] * len(positions)

    def links(self) -> list[tuple[bytes, bytes]]:
        """Return each row before, with the fingerprint of the set."""
        return [*self.outer.links(), *((origin, self._key) for origin in self._behind)]


@dataclass(frozen=True, eq=False)
class ShownRows(_RowsOver):
    """Units that each show the values of some rows: columns, by their profiles.

    Attributes:
        outer: the rows of the frame.
        shown: the positions of the rows behind each unit.
    """

    shown: Sequence[Sequence[int]]

    @cached_property
    def whole(self) -> RowOrigins:
        """Rows each of which may have been made of any of these."""
        return AllRows(self, len(self.shown))

    def of(self, positions: Sequence[int]) -> list[Origins]:
        """Return what is behind the rows that each unit shows."""
        return [tuple(join_origins(self.outer.of(self.shown[one]))) for one in positions]


@dataclass(frozen=True, eq=False)
class SameRows:
    """Texts that code has chosen, from one and the same rows."""

    behind: Callable[[], Origins]
    is_own: bool = False
    reading: str = ""
    size: int = 0

    @property
    def whole(self) -> RowOrigins:
        """The same."""
        return self

    def of(self, positions: Sequence[int]) -> list[Origins]:
        """Return what is behind all of them."""
        return [self.behind()] * len(positions)

    def links(self) -> list[tuple[bytes, bytes]]:
        """Return nothing: the run that chose them has written its own."""
        return []


def join_origins(origins: Iterable[Origins]) -> list[bytes]:
    """Return the fingerprints behind several rows, each once, in order."""
    joined: dict[bytes, None] = {}
    for one in origins:
        joined.update(dict.fromkeys(one))
    return list(joined)


def write_reading(keys: Iterable[str]) -> str:
    """Write the names of columns, in any order, as one text."""
    return canonical_json(sorted(keys))


def fingerprint_rows(frame: pd.DataFrame, names: Sequence[str]) -> list[bytes] | None:
    """Hash rows as a run does that reads the columns of these names; None if one is missing."""
    places = {key: place for place, key in enumerate(make_json_keys(list(frame.columns)))}
    if not places.keys() >= set(names):
        return None
    columns = tuple(places[name] for name in names)
    return make_units(frame, columns, dedupe=False).fingerprints(range(len(frame)))
