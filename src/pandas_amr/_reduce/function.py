"""A reduce by the user's function: its columns are checked, then it is called."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pandas_amr._context.subrun import share_run, use_parent_run
from pandas_amr._plan.aggregations import column_of
from pandas_amr._plan.call import Pipeline
from pandas_amr._plan.compute import all_labels, call_reducer
from pandas_amr._records.raised import describe_error
from pandas_amr._reduce.aggregate import convert_to_output
from pandas_amr._reduce.compute_node import REDUCE, compute_node
from pandas_amr._reduce.failures import UnknownColumns
from pandas_amr._reduce.sources import ReduceOutcome
from pandas_amr._units.by import find_missing_keys
from pandas_amr.errors import AMRError, ColumnError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._findings.inputs import FindingRows


def check_columns(spec: Spec, state: State, rows: FindingRows) -> None:
    """Check that the columns to reduce are there: those of a function are known only now.

    Raises:
        UnknownColumns: one is missing, and a function has found nothing.
        ColumnError: one is missing.
    """
    missing = _missing_columns(spec, rows)
    if not missing:
        return
    problem = f"No column {missing[0]!r} to reduce"
    if _has_unknown_columns(state):
        raise UnknownColumns(problem)
    labels = ", ".join(map(repr, rows.table.columns))
    raise ColumnError(f"{problem}. There is: {labels}.")


def _missing_columns(spec: Spec, rows: FindingRows) -> list[Any]:
    """List the columns that are aggregated, ranked, grouped by or a condition, but not there."""
    wanted: list[Any] = []
    if not spec.is_written:
        wanted += [column_of(name, how) for name, how in spec.aggregations.items()]
    if spec.plan.where is not None:
        wanted.append(spec.plan.where)
    if spec.plan.ranking is not None:
        wanted.append(spec.plan.ranking.field)
    missing: list[Any] = []
    for label in wanted:
        is_of_units = rows.units is not None and rows.units.owns(label)
        if label not in rows.table.columns and not is_of_units:
            missing.append(label)
    if rows.by is not None:
        missing += find_missing_keys(rows.by, all_labels(rows.table), rows.table.index)
    return missing


def _has_unknown_columns(state: State) -> bool:
    """Tell whether a function without a type has found nothing."""
    if state.findings is None:
        return False
    return not all(store.labels() for store in state.findings.stores.values())


async def reduce_by_function(
    spec: Spec, services: Services, state: State, rows: FindingRows
) -> ReduceOutcome:
    """Call the user's function.

    Raises:
        UnknownColumns: it raised, and its columns may not be there.
    """
    function = spec.job.reducer
    assert function is not None
    form = "function"
    if isinstance(function, Pipeline):
        form, function = "recipe", function.reduce_findings
    inner: list[str] = []
    around = partial(_use_own_run, spec, services, state, rows, inner)
    try:
        with compute_node(services, REDUCE, len(rows.positions), form=form) as node:
            try:
                value = await call_reducer(
                    function, rows.findings, frame=rows.table, by=rows.by, around=around
                )
            finally:
                node.parents += tuple(dict.fromkeys(inner))
    except AMRError:
        raise
    except Exception as error:
        if _has_unknown_columns(state):
            raise UnknownColumns(describe_error(error)) from error
        raise
    return ReduceOutcome(convert_to_output(spec, state, value))


def _use_own_run(
    spec: Spec,
    services: Services,
    state: State,
    rows: FindingRows,
    ends: list[str],
    places: Sequence[int],
) -> AbstractContextManager[None]:
    """Let a pipeline that reduces the rows at some places be part of this run.

    ``ends`` takes the names of the nodes that its answer comes from.
    """
    is_group = 0 < len(places) < len(rows.positions)
    group = f"group-{min(places)}/" if is_group else ""
    prefix = f"{services.prefix}{REDUCE}/{group}"
    parents = _NodesBehind(rows, places)
    rows_before = rows.positions[list(places)]
    shared = share_run(spec, services, state, prefix, parents, rows_before)
    return use_parent_run(replace(shared, ends=ends))


@dataclass(frozen=True, slots=True)
class _NodesBehind:
    """Names the map nodes behind the rows at some places, or behind some of these in turn."""

    rows: FindingRows
    places: Sequence[int]

    def __call__(self, positions: Sequence[int] | None) -> tuple[str, ...]:
        if positions is None:
            return self.rows.nodes(self.places)
        return self.rows.nodes([self.places[position] for position in positions])
