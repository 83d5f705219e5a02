"""Which rows of findings a reduce reads, and how its agents read them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_amr._findings.inputs import make_finding_inputs, make_row_inputs
from pandas_amr._units.by import column

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._findings.inputs import FindingRows, ReduceInput
    from pandas_amr._units.units import Units


def select_where(where: str | None, rows: FindingRows) -> FindingRows:
    """Select the rows in which the plan's condition, a column, is true; all if there is none."""
    if where is None:
        return rows
    is_true = column(rows.table, where).isin([True])  # a categorical may not take False for holes
    return rows.select(np.flatnonzero(is_true.to_numpy()))


def rows_without_findings(state: State) -> NDArray[np.int64]:
    """Return the positions of the rows of which no map has found anything.

    No reduce agent reads them.
    """
    if state.findings is None:
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(~state.findings.rows_found())


def render_frame_rows(
    services: Services, units: Units, rows: FindingRows, places: NDArray[np.int64]
) -> list[ReduceInput]:
    """Render the frame's own rows at some places, if nothing is mapped."""
    positions = rows.positions[places].tolist()
    inputs: list[ReduceInput] = []
    for one in make_row_inputs(units, positions):
        nodes = services.parents(sorted(one.rows))
        inputs.append(replace(one, nodes=nodes))
    return inputs


def render_findings(
    spec: Spec, state: State, units: Units, rows: FindingRows, places: NDArray[np.int64]
) -> list[ReduceInput]:
    """Render the findings of the rows at some places, without the rows that have none."""
    without = np.isin(rows.positions[places], rows_without_findings(state))
    places = places[~without]
    shared_by = _group_equal_rows(spec, units, rows, places)
    is_first = np.isin(rows.positions[places], list(shared_by))
    firsts = places[is_first]
    findings = rows.findings.iloc[firsts]
    columns: dict[str, Any] = {}
    for label in findings.columns:
        columns[label] = _sent_array(spec, findings[label])
    part = (rows.positions[firsts].tolist(), columns)
    inputs: list[ReduceInput] = []
    for one in make_finding_inputs([part], shared_by.__getitem__):
        nodes = rows.made_by(min(one.rows))
        inputs.append(replace(one, nodes=nodes))
    return inputs


def _sent_array(spec: Spec, column: pd.Series) -> Any:
    """Return a column's values as agents read them."""
    redaction = spec.redaction_of(column.name)
    if redaction is None:
        return column.array
    return redaction.values(column.array, f"a value of {column.name!r}")


def _group_equal_rows(
    spec: Spec, units: Units, rows: FindingRows, places: NDArray[np.int64]
) -> dict[int, list[int]]:
    """Group the rows that share a finding: by the first position, all positions.

    Rows with equal content share the finding of one unit. But if a column of the frame itself is
    reduced, it may differ among them.
    """
    is_shared = not any(label in spec.job.frame.columns for label in rows.findings.columns)
    by_unit: dict[int, list[int]] = {}
    each_once = dict.fromkeys(rows.positions[places].tolist())
    for position in each_once:
        unit = int(units.answered_by[position]) if is_shared else position
        by_unit.setdefault(unit, []).append(position)
    return {positions[0]: positions for positions in by_unit.values()}
