"""The findings of one map as they arrive, joined with the frame by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pandas_amr._findings.columns import array_of
from pandas_amr._findings.finding_type import UNFIT
from pandas_amr._types.arrow import field_types
from pandas_amr.errors import InvalidOutput

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._units.rows import IntArray

MapName: TypeAlias = str | None  # None if there is one map
Record: TypeAlias = dict[str, Any]  # a finding by field, as Arrow or JSON holds it
Who = Literal["model", "schema", "callable", "sandbox"]
Reason: TypeAlias = tuple[Who, str]  # who failed, and why
CORRECTED = "corrected"  # a person said what the finding is
FOUND = ("ok", "repaired", CORRECTED)  # statuses of units that have a finding


@dataclass(frozen=True, slots=True)
class Failure:
    """A unit without a finding: who failed, why, and in how many requests it was asked.

    Attributes:
        is_of_content: whether the unit would fail again as it is: it was refused or filtered, or
            its finding was invalid after repair. The service may be gone only for a while.
    """

    position: int
    shard: int
    who: Who
    reason: str
    attempts: int
    map: MapName = None
    is_of_content: bool = False


class _Part(NamedTuple):
    """Findings that were added at once: the positions of units, and a row of the table for each."""

    positions: IntArray
    table: pa.Table


class FindingStore:
    """One map's findings as they arrive, in any order; columns in the frame's order at the end.

    They are joined by position alone: each row gets the finding of the unit that answers for it.
    """

    def __init__(self, name: MapName, kind: FindingType | None) -> None:
        self._name = name
        self._kind = kind
        self._parts: list[_Part] = []
        self._schema: pa.Schema | None = None  # that all tables have when they are joined

    def copy(self) -> FindingStore:
        """Return a copy to which findings can be added."""
        store = FindingStore(self._name, self._kind)
        store._parts = list(self._parts)
        store._schema = self._schema
        return store

    def expect(self, schema: pa.Schema | None) -> None:
        """Have what is added be joinable with findings of such columns, which stand elsewhere."""
        if schema is not None and self._schema is None:
            self._schema = schema

    @property
    def is_typed(self) -> bool:
        """Whether the columns are known before anything is found."""
        return self._kind is not None

    @property
    def schema(self) -> pa.Schema | None:
        """The columns that all findings have when they are joined; None if there are none yet."""
        return self._schema if self._kind is None else self._kind.arrow

    def add(self, positions: Sequence[int], table: pa.Table) -> None:
        """Add the findings of some units, one row of ``table`` per unit."""
        assert len(positions) == table.num_rows
        units = np.asarray(positions, dtype=np.int64)
        self._parts.append(_Part(units, table))
        if self._schema is None:
            self._schema = table.schema
        elif not self._schema.equals(table.schema):
            self._schema = _join_schemas(self._schema, table.schema)

    def remove(self, positions: Collection[int]) -> None:
        """Remove the findings of some units."""
        removed = np.fromiter(positions, np.int64, len(positions))
        for number, part in enumerate(self._parts):
            stays = ~np.isin(part.positions, removed)
            if not stays.all():
                table = part.table.filter(pa.array(stays))
                self._parts[number] = _Part(part.positions[stays], table)

    def records(self, positions: Collection[int]) -> dict[int, Record]:
        """Return the findings of some units as Arrow holds them; none of a unit without one."""
        wanted = np.fromiter(positions, np.int64, len(positions))
        records: dict[int, Record] = {}
        for part in self._parts:
            is_wanted = np.isin(part.positions, wanted)
            units = part.positions[is_wanted].tolist()
            found = part.table.filter(pa.array(is_wanted)).to_pylist()
            records.update(zip(units, found, strict=True))
        return records

    def add_named(self, positions: IntArray, table: pa.Table, columns: Sequence[str]) -> None:
        """Add findings that stand under their names in the frame, among other columns.

        Args:
            positions: the units.
            table: a row per row of the frame.
            columns: the map's own names of the columns.
        """
        empty = pa.table({name: pa.nulls(0) for name in columns})
        shown = table.select(self.named(empty).column_names)
        own = shown.rename_columns(list(columns))
        found = own.take(pa.array(positions))
        if self._kind is not None:
            found = found.cast(self._kind.arrow)
        self.add(positions.tolist(), found)

    def find_clash(self, table: pa.Table) -> str | None:
        """Describe why a table cannot be joined with those added before; None if it can."""
        if self._kind is not None or self._schema is None or self._schema.equals(table.schema):
            return None
        try:
            if _join_schemas(self._schema, table.schema).equals(self._schema):
                check_joinable([self._schema.empty_table(), table])
            else:  # those before have values that may not fit the wider types
                tables = [part.table for part in self._parts]
                check_joinable([*tables, table])
        except InvalidOutput as error:
            return str(error)
        return None

    def labels(self, table: pa.Table | None = None) -> list[str]:
        """Return the names of the columns in the frame, including those of ``table``."""
        if self._kind is not None:
            return list(self._kind.all_columns)
        fields: dict[str, None] = {}
        if self._schema is not None:
            fields.update(dict.fromkeys(self._schema.names))
        if table is not None:
            fields.update(dict.fromkeys(table.column_names))
        empty = pa.table({name: pa.nulls(0) for name in fields})
        names: list[str] = self.named(empty).column_names
        return names

    def named(self, table: pa.Table) -> pa.Table:
        """Name a table's columns as in the frame.

        A typed map has its names. The columns of a function without a type carry the map's name.
        """
        if self._kind is not None:
            return table.rename_columns(list(self._kind.columns))
        if self._name is None:
            return table
        names = table.column_names
        if len(names) == 1:
            return table.rename_columns([self._name])
        return table.rename_columns([f"{self._name}_{name}" for name in names])

    def by_position(self) -> tuple[IntArray, pa.Table]:
        """Return the units' positions in order, and the findings in the same order."""
        none = np.empty(0, dtype=np.int64)
        parts = [part.positions for part in self._parts]
        positions = np.concatenate([none, *parts])
        order = np.argsort(positions, kind="stable")
        findings = self._join_tables().take(pa.array(order))
        return positions[order], findings

    def columns(self, asked: IntArray, answered_by: IntArray) -> dict[str, Any]:
        """Return one typed array per field, with one value per row; ``<NA>`` without a finding."""
        return self._arrays(self.row_table(asked, answered_by))

    def row_table(self, asked: IntArray, answered_by: IntArray) -> pa.Table:
        """Return the findings under their names in the frame, with one row per row of it."""
        table = self.named(self._join_tables())
        row_of = np.full(len(asked), -1, dtype=np.int64)
        if self._parts:
            positions = np.concatenate([part.positions for part in self._parts])
            units = np.searchsorted(asked, positions)
            row_of[units] = np.arange(len(positions))
        rows = row_of[answered_by]
        has_none = rows < 0
        return table.take(pa.array(rows, mask=has_none))

    def arrays(self, table: pa.Table) -> dict[str, Any]:
        """Convert some findings to the columns that all of them have in the frame."""
        return self._arrays(self.named(table))

    def _arrays(self, named: pa.Table) -> dict[str, Any]:
        """Convert findings under their names in the frame to its columns."""
        arrays: dict[str, Any] = {}
        if self._kind is None:
            for name in named.column_names:
                arrays[name] = array_of(named.column(name))
            return arrays
        kinds = field_types(self._kind.model).values()
        for name, kind in zip(named.column_names, kinds, strict=True):
            arrays[name] = array_of(named.column(name), kind)
        if self._kind.count_column is not None:
            lists = named.column(0)
            counts = pc.list_value_length(lists).cast(pa.int64())
            arrays[self._kind.count_column] = array_of(counts)
        return arrays

    def _join_tables(self) -> pa.Table:
        """Join the tables in the order in which they were added."""
        if not self._parts:
            schema = pa.schema([]) if self._kind is None else self._kind.arrow
            return schema.empty_table()
        tables = [part.table for part in self._parts]
        joined = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
        if self._kind is not None:
            return joined
        # The columns of a function in the frame's order, whichever shard came first.
        names: dict[str, None] = {}
        for part in sorted(self._parts, key=_first_position):
            names.update(dict.fromkeys(part.table.column_names))
        return joined.select(list(names))


def _first_position(part: _Part) -> list[int]:
    """Return the first unit's position; nothing if the part has none."""
    first: list[int] = part.positions[:1].tolist()
    return first


def _join_schemas(first: pa.Schema, second: pa.Schema) -> pa.Schema:
    """Return the schema of two tables that are joined.

    Raises:
        InvalidOutput: they have a column of types that have none in common.
    """
    try:
        return pa.unify_schemas([first, second], promote_options="permissive")
    except UNFIT as error:
        raise InvalidOutput(_describe_misfit(error)) from None


def _describe_misfit(error: Exception) -> str:
    return f"its values are of other types than those before ({type(error).__name__})"


def check_joinable(tables: Sequence[pa.Table]) -> None:
    """Check that the tables of a function can stand in the same columns.

    Raises:
        InvalidOutput: they hold values of types that have none in common.
    """
    try:
        pa.concat_tables(tables, promote_options="permissive")
    except UNFIT as error:
        raise InvalidOutput(_describe_misfit(error)) from None
