"""What the last agent of a tree is told beside the findings."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pandas_amr._agent import prompts
from pandas_amr._findings.map_findings import EMPTY, SKIPPED
from pandas_amr._plan.aggregations import column_of
from pandas_amr._plan.compute import aggregate
from pandas_amr._plan.outputs import describe_computed
from pandas_amr._reduce.inputs import rows_without_findings, select_where
from pandas_amr._reduce.ranking import rank_places
from pandas_amr._units.cells import cell, make_json_keys, make_reader_keys, to_json_line

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import pandas as pd
    from numpy.typing import NDArray

    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._findings.inputs import FindingRows
    from pandas_amr._plan.aggregations import Aggregations
    from pandas_amr._reduce.failures import LostFindings
    from pandas_amr._units.redaction import Redaction


class Notes(Protocol):
    """Writes what an agent is told beside the findings."""

    def render(self, lost: LostFindings) -> str:
        """Render the notes; empty if there is nothing to tell."""
        ...


@dataclass(frozen=True, slots=True)
class FixedNotes:
    """Notes that do not depend on what a tree loses."""

    text: str

    def render(self, lost: LostFindings) -> str:
        """Return the text."""
        del lost
        return self.text


@dataclass(frozen=True, slots=True)
class FindingNotes:
    """Notes about the findings: what pandas computes of them, and which are missing.

    Attributes:
        rows: the rows that are reduced; None for all rows, which are collected once they are read.
        group: the positions of a group's rows; None if there are no groups. The notes of a group
            tell of its own rows only, so that changes elsewhere do not change its cache key.
    """

    spec: Spec
    state: State
    rows: FindingRows | None = None
    group: NDArray[np.int64] | None = None

    def render(self, lost: LostFindings) -> str:
        """Render what was aggregate, the rows that rank first, and what is missing."""
        rows = self.rows
        if rows is None:
            rows = select_where(self.spec.plan.where, self.state.finding_rows(self.spec.job))
        parts = [self._render_aggregates(rows), self._render_ranking(rows)]
        parts.append(self._render_coverage(lost))
        return "\n\n".join(part for part in parts if part)

    def _render_aggregates(self, rows: FindingRows) -> str:
        aggregations = {}
        for name, how in (self.spec.plan.aggregations or {}).items():
            is_of_units = rows.units is not None and rows.units.owns(name)
            if name in rows.table.columns or is_of_units:
                aggregations[name] = how
        if not aggregations:
            return ""
        computed = aggregate(rows.table, aggregations, None, rows.units)
        return describe_computed(computed, self._redact_computed(aggregations))

    def _redact_computed(self, aggregations: Aggregations) -> Callable[[Any], Any] | None:
        """Return what redacts values that are computed; None if all come from redacted text."""
        labels = {column_of(name, how) for name, how in aggregations.items()}
        redactions = [self.spec.redaction_of(label) for label in labels]
        redaction = next((one for one in redactions if one is not None), None)
        if redaction is None:
            return None
        return partial(_redact_computed, redaction=redaction, names={*aggregations, *labels})

    def _render_ranking(self, rows: FindingRows) -> str:
        ranking = self.spec.plan.ranking
        if ranking is None or ranking.field not in rows.table.columns:
            return ""
        first = rows.table.iloc[rank_places(self.spec, rows)]
        return prompts.ranked_lines(_table_lines(first, self.spec))

    def _render_coverage(self, lost: LostFindings) -> str:
        failed = {failure.position for failure in self.state.failures if failure.position >= 0}
        without_any = set(rows_without_findings(self.state).tolist())
        empty = without_any & self._rows_with(EMPTY)
        skipped = without_any & self._rows_with(SKIPPED)
        if self.group is None:
            positions = set(range(len(self.spec.job.frame)))
        else:
            positions = set(self.group.tolist())
        return render_coverage(
            len(positions),
            failed=len((without_any - empty - skipped) & positions),
            empty=len(empty & positions),
            skipped=len(skipped & positions),
            partly_failed=len((failed - without_any) & positions),
            lost=len(lost.rows),
            truncated=lost.truncated,
        )

    def _rows_with(self, status: str) -> set[int]:
        if self.state.findings is None:
            return set()
        rows = np.flatnonzero(self.state.findings.row_statuses() == status)
        return set(rows.tolist())


def render_coverage(
    rows: int,
    *,
    failed: int,
    partly_failed: int,
    lost: int,
    truncated: int,
    empty: int = 0,
    skipped: int = 0,
) -> str:
    """Render what the final agent does not see; empty if it sees all.

    Args:
        rows: how many rows there are.
        failed: the rows without any finding.
        partly_failed: the rows without the finding of some map.
        lost: the rows whose findings were lost with a node.
        truncated: the findings that were truncated.
        empty: the rows without content.
        skipped: the rows that nobody was asked about.
    """
    lines: list[str] = []
    if failed:
        lines.append(f"{failed} of {rows} rows have no finding: they failed.")
    if empty:
        lines.append(f"{empty} of {rows} rows are empty: there is nothing to find in them.")
    if skipped:
        lines.append(f"{skipped} of {rows} rows have no finding: they were not read.")
    if partly_failed:
        lines.append(
            f"{partly_failed} of {rows} rows have a part of their findings: a map failed, "
            "and its fields are null."
        )
    if lost:
        lines.append(f"The findings of {lost} rows were lost where they were combined.")
    if truncated:
        lines.append(f"{truncated} findings were cut to fit.")
    return "\n".join(["Coverage:", *lines]) if lines else ""


def _redact_computed(value: object, *, redaction: Redaction, names: Collection[Any]) -> Any:
    """Return what is sent of a computed value; names of columns stay as they are."""
    if not isinstance(value, dict):
        return value if _is_name(value, names) else redaction.value(value, "a computed value")
    redact = partial(_redact_computed, redaction=redaction, names=names)
    keys = [redact(key) for key in value]
    if len(set(map(str, keys))) < len(keys):  # values that are told apart although they look alike
        keys = list(make_json_keys(keys, taken=()))
    return dict(zip(keys, map(redact, value.values()), strict=True))


def _is_name(value: object, names: Collection[Any]) -> bool:
    return isinstance(value, Hashable) and value in names


def _table_lines(table: pd.DataFrame, spec: Spec) -> list[str]:
    """Render rows of findings beside the frame's columns, a JSON object each."""
    keys = make_reader_keys(list(table.columns))
    columns: list[list[Any]] = []
    for place, label in enumerate(table.columns):
        values = [cell(value) for value in table.iloc[:, place].array]
        redaction = spec.redaction_of(label)
        if redaction is not None:
            values = redaction.values(values, f"a value of {label!r}")
        columns.append(values)
    return [to_json_line(dict(zip(keys, row, strict=True))) for row in zip(*columns, strict=True)]
