"""Answers that are computed from the findings: by the user's function, or by pandas."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._agent.agent import Agent
from pandas_amr._context.subrun import share_run, use_parent_run
from pandas_amr._plan.aggregations import (
    all_labels,
    call_reducer,
    checked_output,
    column_of,
    compute,
    fitting_outputs,
    function_of,
    joined_parts,
)
from pandas_amr._plan.call import WHOLE
from pandas_amr._records.raised import described
from pandas_amr._reduce.failures import ReduceFailures, UnknownColumns
from pandas_amr._reduce.sources import PartSources, ReduceOutcome
from pandas_amr._reduce.task import ReduceTask
from pandas_amr._units.by import column, missing_keys
from pandas_amr.errors import AMRError, ColumnError, InvalidOutput, ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._findings.inputs import FindingRows
    from pandas_amr._reduce.trees import ReduceTrees


def check_columns(spec: Spec, state: State, rows: FindingRows) -> None:
    """Check that the columns to reduce are there: those of a function are known only now.

    Raises:
        UnknownColumns: one is missing, and a function has found nothing.
        ColumnError: one is missing.
    """
    missing = _missing_columns(spec, rows)
    if not missing:
        return
    labels = ", ".join(map(repr, rows.table.columns))
    problem = f"No column {missing[0]!r} to reduce. There is: {labels}"
    if _has_unknown_columns(state):
        raise UnknownColumns(problem)
    raise ColumnError(f"{problem}.")


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
        missing += missing_keys(rows.by, all_labels(rows.table), rows.table.index)
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
    function: Any = getattr(spec.job.reducer, WHOLE, spec.job.reducer)
    around = partial(_use_own_run, spec, services, state, rows)
    try:
        value = await call_reducer(
            function, rows.findings, frame=rows.table, by=rows.by, around=around
        )
    except AMRError:
        raise
    except Exception as error:
        if _has_unknown_columns(state):
            raise UnknownColumns(described(error)) from error
        raise
    return ReduceOutcome(_convert_to_output(spec, state, value))


def _use_own_run(
    spec: Spec, services: Services, state: State, rows: FindingRows, places: Sequence[int]
) -> AbstractContextManager[None]:
    """Let a pipeline that reduces the rows at some places be part of this run."""
    is_group = 0 < len(places) < len(rows.positions)
    group = f"{min(places)}" if is_group else ""
    prefix = f"{services.prefix}reduce{group}/"
    parents = _NodesBehind(rows, places)
    return use_parent_run(share_run(spec, services, state, prefix, parents))


@dataclass(frozen=True, slots=True)
class _NodesBehind:
    """Names the map nodes behind the rows at some places, or behind some of these in turn."""

    rows: FindingRows
    places: Sequence[int]

    def __call__(self, positions: Sequence[int] | None) -> tuple[str, ...]:
        if positions is None:
            return self.rows.nodes(self.places)
        return self.rows.nodes([self.places[position] for position in positions])


async def aggregate(trees: ReduceTrees, rows: FindingRows) -> ReduceOutcome:
    """Aggregate with pandas. Columns that are marked for agents are written by them."""
    spec = trees.spec
    plain, written_by = _split_columns(spec.aggregations)
    aggregates = None
    if plain:
        aggregates = await compute(rows.table, plain, by=rows.by, units=rows.units)
    if not written_by:
        return ReduceOutcome(_convert_to_output(spec, trees.state, aggregates))
    written: dict[Any, Any] = {}
    sources: list[PartSources] = []
    for name, how in written_by.items():
        outcome = await _write_column(trees, rows, name, how)
        written[name] = outcome.output
        sources += outcome.sources
    order = list(spec.aggregations)
    output = joined_parts(aggregates, plain, written, order, grouped=spec.job.by is not None)
    return ReduceOutcome(output, tuple(sources))


def _split_columns(aggregations: Mapping[Any, Any]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Split aggregations into those of pandas and those that agents write."""
    plain: dict[Any, Any] = {}
    written_by: dict[Any, Any] = {}
    for name, how in aggregations.items():
        if isinstance(function_of(how), Agent):
            written_by[name] = how
        else:
            plain[name] = how
    return plain, written_by


async def _write_column(
    trees: ReduceTrees, rows: FindingRows, name: Any, how: Any
) -> ReduceOutcome:
    """Have agents write one column: a value, or one per group."""
    job = trees.spec.job
    agent, label = function_of(how), column_of(name, how)
    rows = replace(rows, findings=column(rows.table, label).to_frame(str(label)))
    if not job.maps:  # the agents read this column of the frame only
        place = list(job.frame.columns).index(label)
        trees = replace(trees, units=trees.units.with_columns((place,)))
    task = ReduceTask(agent.text, str, agent)
    if job.by is not None:
        groups = await trees.write_groups(rows, task, prefix=f"{name}-")
        sources = tuple(part._replace(column=name) for part in groups.sources)
        return ReduceOutcome(groups.output.iloc[:, 0].rename(name), sources)
    return await _write_value(trees, rows, task, name)


async def _write_value(
    trees: ReduceTrees, rows: FindingRows, task: ReduceTask, name: Any
) -> ReduceOutcome:
    """Have agents write the value of a column; if they fail, that is listed."""
    places = np.arange(len(rows.positions))
    try:
        reduction = await trees.write(rows, places, task, name=f"{name}-")
    except ModelError as error:
        trees.failures.add(f"{name}: {error}", error)
        return ReduceOutcome(None)
    if reduction is None:
        return ReduceOutcome(None)
    return ReduceOutcome(reduction.value, (PartSources(name, reduction.support),))


def _convert_to_output(spec: Spec, state: State, value: Any) -> Any:
    """Convert a computed value to the type that the user asks for; None if it is missing.

    If it does not fit the type, that is listed as a failure.

    Raises:
        UsageError: it does not fit, and what was computed is the user's own frame or function.
    """
    output = spec.plan.output
    if output is not None and not isinstance(value, pd.DataFrame):
        is_missing = fitting_outputs(value)[0] is None
        if is_missing:
            return None
    try:
        return checked_output(value, output, grouped=spec.job.by is not None)
    except UsageError as error:
        if not spec.job.maps or spec.job.reducer is not None:
            raise
        ReduceFailures(spec, state).add(str(error), InvalidOutput(str(error)))
        return None
