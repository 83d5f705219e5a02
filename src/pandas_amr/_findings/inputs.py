"""What the reduce stage reads: rows of findings, and one line of JSON per finding."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from pandas_amr._findings.citations import MadeBy, Support, find_nodes
from pandas_amr._findings.columns import add_findings
from pandas_amr._findings.records import spread_records
from pandas_amr._units.cells import ROWS_KEY, cell, make_reader_keys, to_json_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._findings.map_findings import MapFindings
    from pandas_amr._findings.records import UnitRows
    from pandas_amr._units.by import By
    from pandas_amr._units.rows import IntArray
    from pandas_amr._units.units import Units

TRUNCATED_KEY = "beginning"  # of a truncated finding: its line's beginning stands under this key

# Of one map: the positions of its findings, and their columns by name.
FoundColumns: TypeAlias = "tuple[Sequence[int], Mapping[str, Any]]"
RecordPlace: TypeAlias = tuple[int, int]  # the position of a row, and the number of its record


def no_nodes(position: int) -> tuple[str, ...]:
    """Name the map nodes behind a row that no map has read: there are none."""
    del position
    return ()


def collect_finding_rows(
    frame: pd.DataFrame,
    mapped: MapFindings | None,
    *,
    by: By | None,
    is_mapped: bool,
    made_by: MadeBy,
) -> FindingRows:
    """Convert the findings of a map stage into rows to reduce.

    Args:
        frame: the user's frame.
        mapped: the findings so far; None if there are none yet.
        by: how the rows are grouped.
        is_mapped: whether the run has a map. If not, the rows of the frame itself are reduced.
        made_by: names the map nodes behind the row at a position.
    """
    if mapped is None:
        positions = np.arange(len(frame), dtype=np.int64)
        findings = frame[[]] if is_mapped else frame
        return FindingRows(frame, findings, positions, by=by)
    return make_finding_rows(frame, mapped.findings(), mapped.list_type, by=by, made_by=made_by)


def make_finding_rows(
    frame: pd.DataFrame,
    findings: pd.DataFrame,
    list_type: FindingType | None,
    *,
    by: By | None,
    made_by: MadeBy,
) -> FindingRows:
    """Put findings beside the frame; if each unit holds a list of records, a row for each record.

    Args:
        frame: the user's frame.
        findings: one row per row of the frame.
        list_type: the type of the findings, if they are lists of records.
        by: how the rows are grouped.
        made_by: names the map nodes behind the row at a position.
    """
    if list_type is None:
        positions = np.arange(len(frame), dtype=np.int64)
        return FindingRows(add_findings(frame, findings), findings, positions, made_by, by)
    table, records, units = spread_records(frame, findings, list_type, by)
    record_by = None
    if by is not None:
        record_by = by.at(units.positions, table.index)
    return FindingRows(table, records, units.positions, made_by, record_by, units)


@dataclass(frozen=True)
class FindingRows:
    """The rows that a reduce works on: units, or records if each unit holds a list of them.

    Attributes:
        table: the findings beside the frame's own columns.
        findings: the findings alone.
        positions: the position in the frame behind each row.
        made_by: names the map nodes behind a position.
        by: how the rows are grouped.
        units: the units behind records; None if the rows are units.
    """

    table: pd.DataFrame
    findings: pd.DataFrame
    positions: IntArray
    made_by: MadeBy = no_nodes
    by: By | None = None
    units: UnitRows | None = None

    def nodes(self, rows: Sequence[int]) -> tuple[str, ...]:
        """Name the map nodes behind some of these rows, each once."""
        return find_nodes(self.made_by, (self.positions[row] for row in rows))

    def select(self, rows: IntArray) -> FindingRows:
        """Return some of the rows. Units without a selected record do not count any more."""
        units = None
        if self.units is not None:
            units = self.units.select(rows)
        return self._take(rows, units)

    def select_group(self, rows: IntArray) -> FindingRows:
        """Return the rows of a group."""
        units = None
        if self.units is not None:
            units = self.units.select_group(rows)
        return self._take(rows, units)

    def _take(self, rows: IntArray, units: UnitRows | None) -> FindingRows:
        table = self.table.iloc[rows]
        by = None
        if self.by is not None:
            by = self.by.at(rows, table.index)
        return replace(
            self,
            table=table,
            findings=self.findings.iloc[rows],
            positions=self.positions[rows],
            by=by,
            units=units,
        )


@dataclass(frozen=True, slots=True)
class ReduceInput:
    """One finding, or one answer of a lower level, as a reduce agent reads it.

    Attributes:
        line: a JSON object as text.
        support: the rows of the frame that it rests on.
        nodes: the nodes of the trace that made it.
        read: the rows that were read for it, if that are others than it rests on.
    """

    line: str
    support: Support
    nodes: tuple[str, ...] = ()
    read: frozenset[int] = frozenset()

    @property
    def rows(self) -> frozenset[int]:
        """The positions of all rows that it rests on."""
        return self.support.rows

    @property
    def rows_behind(self) -> frozenset[int]:
        """The positions of all rows that were read for it, whether it rests on them or not."""
        return self.rows | self.read

    def with_node(self, node: str) -> ReduceInput:
        """Return the same input, made by another node."""
        return replace(self, nodes=(node,))


def make_finding_inputs(
    parts: Sequence[FoundColumns],
    rows_of: Callable[[int], Sequence[int]],
    *,
    where: Callable[[int, Mapping[str, Any]], bool] | None = None,
) -> list[ReduceInput]:
    """Render findings in the order of the frame: one line per record, the maps side by side.

    All trees render findings here, from the columns that the findings have in the frame. So a
    finding gives the same line, whichever tree reads it and whichever run found it.

    Args:
        parts: for each map the positions of its findings, and their columns by name. A position
            is there once per record if units hold lists. What a map has not found is null.
        rows_of: returns the positions of the rows that share the finding of a unit. If there are
            many, the line says how many.
        where: tells whether a record is read, from its position and its cells by name.
    """
    labels = [label for _, columns in parts for label in columns]
    keys = make_reader_keys(labels)
    inputs: list[ReduceInput] = []
    for (position, _), record in _collect_records(parts, labels):
        if where is not None and not where(position, record):
            continue
        rows = frozenset(rows_of(position))
        fields = dict(zip(keys, record.values(), strict=True))
        if len(rows) > 1:
            fields[ROWS_KEY] = len(rows)
        inputs.append(ReduceInput(to_json_line(fields), Support(rows)))
    return inputs


def _collect_records(
    parts: Sequence[FoundColumns], labels: Sequence[str]
) -> list[tuple[RecordPlace, dict[str, Any]]]:
    """Collect the cells of each record over all maps, in the order of the frame."""
    records: dict[RecordPlace, dict[str, Any]] = {}
    for positions, columns in parts:
        cells: list[list[Any]] = []
        for array in columns.values():
            cells.append([cell(value) for value in array])
        rows = zip(*cells, strict=True) if cells else [()] * len(positions)
        numbers: Counter[int] = Counter()  # of records so far, by position
        for position, row in zip(positions, rows, strict=True):
            place = (position, numbers[position])
            numbers[position] += 1
            record = records.setdefault(place, dict.fromkeys(labels))
            record.update(zip(columns, row, strict=True))
    return sorted(records.items(), key=_place_of)


def _place_of(item: tuple[RecordPlace, Any]) -> RecordPlace:
    return item[0]


def make_row_inputs(units: Units, positions: Sequence[int]) -> list[ReduceInput]:
    """Render rows of the frame, if nothing is mapped: their content columns are the findings."""
    inputs: list[ReduceInput] = []
    lines = units.reader_lines(positions)
    for line, position in zip(lines, positions, strict=True):
        support = Support(frozenset([position]))
        inputs.append(ReduceInput(line, support))
    return inputs
