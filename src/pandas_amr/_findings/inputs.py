"""What a map stage found, as a reduce takes it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_amr._findings.citations import Support, nodes_behind
from pandas_amr._findings.columns import with_findings
from pandas_amr._findings.records import record_rows
from pandas_amr._units.cells import ROWS_KEY, cell, line_of, reader_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from pandas_amr._context.work import Work
    from pandas_amr._findings.records import UnitRows
    from pandas_amr._units.by import By
    from pandas_amr._units.units import Units


def found_of(work: Work) -> Found:
    """What is there to be reduced: the findings so far, or the frame itself where nothing is mapped."""
    frame, by, kept = work.job.frame, work.job.by, work.kept
    positions = np.arange(len(frame), dtype=np.int64)
    if kept is None:
        return Found(frame, frame if not work.job.maps else frame[[]], positions, by=by)
    made_by = work.stage.made_by if work.stage is not None else made_by_nobody
    findings = kept.findings()
    if kept.listed is None:
        return Found(with_findings(frame, findings), findings, positions, made_by, by)
    table, records, units = record_rows(frame, findings, kept.listed, by)
    own_by = None if by is None else by.at(units.positions, table.index)
    return Found(table, records, units.positions, made_by, own_by, units)


def made_by_nobody(position: int) -> tuple[str, ...]:
    """The map nodes behind a row that no map has read."""
    del position
    return ()


@dataclass(frozen=True)
class Found:
    """What is reduced: rows of findings, which are units, or records where units hold none or many.

    Attributes:
        table: the findings beside the frame's own columns.
        findings: the findings alone.
        positions: the frame's row behind each row of these.
        made_by: the map nodes behind each of them.
        by: how the rows are grouped.
        units: the units behind records; None if the rows are units.
    """

    table: pd.DataFrame
    findings: pd.DataFrame
    positions: NDArray[np.int64]
    made_by: Callable[[int], tuple[str, ...]] = made_by_nobody
    by: By | None = None
    units: UnitRows | None = None

    def nodes(self, rows: Sequence[int]) -> tuple[str, ...]:
        """The map nodes behind some of these rows, each once."""
        return nodes_behind(self.made_by, (self.positions[row] for row in rows))

    def at(self, rows: NDArray[np.int64]) -> Found:
        """Some of the rows, which something chose."""
        units = None if self.units is None else self.units.at(rows)
        return self._taken(rows, units)

    def of_group(self, rows: NDArray[np.int64]) -> Found:
        """The rows of a group."""
        units = None if self.units is None else self.units.of_group(rows)
        return self._taken(rows, units)

    def _taken(self, rows: NDArray[np.int64], units: UnitRows | None) -> Found:
        table = self.table.iloc[rows]
        return replace(
            self,
            table=table,
            findings=self.findings.iloc[rows],
            positions=self.positions[rows],
            by=None if self.by is None else self.by.at(rows, table.index),
            units=units,
        )


CUT_KEY = "beginning"


@dataclass(frozen=True, slots=True)
class Input:
    """What a reducer reads: one JSON object as text, the frame's positions that it rests on, and who made it.

    Attributes:
        claim: what it rests on, if an agent named that; else its rows are its evidence.
    """

    line: str
    rows: frozenset[int]
    nodes: tuple[str, ...] = ()
    claim: Support | None = None

    @property
    def support(self) -> Support:
        """What it rests on."""
        return Support(self.rows) if self.claim is None else self.claim

    def made_by(self, node: str) -> Input:
        """The same, from another node."""
        return replace(self, nodes=(node,))


def finding_inputs(
    parts: Sequence[tuple[Sequence[int], Mapping[str, Any]]],
    answered: Callable[[int], Sequence[int]],
    *,
    where: Callable[[int, Mapping[str, Any]], bool] | None = None,
) -> list[Input]:
    """Render findings as a reducer's inputs, in frame order: one line per record, the maps side by side.

    All trees render by this, from the columns that the findings have in the frame: one finding gives one line,
    whichever tree reads it, and whichever run found it.

    Args:
        parts: of each map the positions of its findings, and their columns by name. Where units hold none or many
            records, a position stands once for each of them. What a map has not found is null.
        answered: the positions of the rows that a finding stands for; if they are many, the line says how many.
        where: tells by a record's position and cells, by name, whether it is read.
    """
    labels = [label for _, columns in parts for label in columns]
    records: dict[tuple[int, int], dict[str, Any]] = {}
    for positions, columns in parts:
        cells = [[cell(value) for value in array] for array in columns.values()]
        seen: Counter[int] = Counter()
        rows_of_cells = zip(*cells, strict=True) if cells else [()] * len(positions)
        for position, row in zip(positions, rows_of_cells, strict=True):
            record = records.setdefault((position, seen[position]), dict.fromkeys(labels))
            record.update(zip(columns, row, strict=True))
            seen[position] += 1
    keys = reader_keys(labels)
    inputs: list[Input] = []
    for (position, _), record in sorted(records.items(), key=_place):
        if where is not None and not where(position, record):
            continue
        rows = frozenset(answered(position))
        shown = dict(zip(keys, record.values(), strict=True))
        count = {ROWS_KEY: len(rows)} if len(rows) > 1 else {}
        inputs.append(Input(line_of(shown | count), rows))
    return inputs


def _place(item: tuple[tuple[int, int], Any]) -> tuple[int, int]:
    """Order records by their rows' positions."""
    return item[0]


def row_inputs(units: Units, positions: Sequence[int]) -> list[Input]:
    """Rows of the frame as a reducer's inputs: their content columns are the findings."""
    lines = units.reader_lines(positions)
    return [
        Input(line, frozenset((position,))) for line, position in zip(lines, positions, strict=True)
    ]
