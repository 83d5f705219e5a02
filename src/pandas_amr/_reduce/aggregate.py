"""A reduce by aggregations: pandas computes the columns, and agents write those marked for them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._agent.agent import Agent
from pandas_amr._plan.aggregations import column_of, function_of
from pandas_amr._plan.compute import compute, find_aggregations_of_units
from pandas_amr._plan.outputs import convert_output, join_answer_parts, output_candidates
from pandas_amr._reduce.compute_node import COMPUTE, compute_node
from pandas_amr._reduce.failures import ReduceFailures
from pandas_amr._reduce.sources import PartSources, ReduceOutcome
from pandas_amr._reduce.task import ReduceTask
from pandas_amr._units.by import column
from pandas_amr.errors import InvalidOutput, ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._findings.inputs import FindingRows
    from pandas_amr._reduce.trees import ReduceTrees


async def aggregate(trees: ReduceTrees, rows: FindingRows) -> ReduceOutcome:
    """Aggregate with pandas. Columns that are marked for agents are written by them."""
    spec = trees.spec
    plain, written_by = _split_columns(spec.aggregations)
    aggregates = None
    if plain:
        with compute_node(trees.services, COMPUTE, len(rows.positions)):
            aggregates = await compute(rows.table, plain, by=rows.by, units=rows.units)
    if not written_by:
        return ReduceOutcome(convert_to_output(spec, trees.state, aggregates))
    written: dict[Any, Any] = {}
    sources: list[PartSources] = []
    of_units = bool(find_aggregations_of_units(plain, rows.units))
    for name, how in written_by.items():
        outcome = await _write_column(trees, rows, name, how, of_units=of_units)
        written[name] = outcome.output
        sources += outcome.sources
    order = list(spec.aggregations)
    output = join_answer_parts(aggregates, plain, written, order, grouped=spec.job.by is not None)
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
    trees: ReduceTrees, rows: FindingRows, name: object, how: object, *, of_units: bool
) -> ReduceOutcome:
    """Have agents write one column: a value, or one per group."""
    job = trees.spec.job
    agent = function_of(how)
    label = column_of(name, how)
    findings = column(rows.table, label).to_frame(str(label))
    rows = replace(rows, findings=findings)
    if not job.maps:  # the agents read this column of the frame only
        place = list(job.frame.columns).index(label)
        trees = replace(trees, units=trees.units.with_columns((place,)))
    task = ReduceTask(agent.text, str, agent)
    if job.by is not None:
        groups = await trees.write_groups(rows, task, prefix=f"{name}-", of_units=of_units)
        written = groups.output.iloc[:, 0].rename(name)
        sources = tuple(part._replace(column=name) for part in groups.sources)
        return ReduceOutcome(written, sources)
    return await _write_value(trees, rows, task, name)


async def _write_value(
    trees: ReduceTrees, rows: FindingRows, task: ReduceTask, name: object
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
    sources = PartSources(name, reduction.support)
    return ReduceOutcome(reduction.value, (sources,))


def convert_to_output(spec: Spec, state: State, value: object) -> Any:
    """Convert a computed value to the type that the user asks for; None if it is missing.

    If it does not fit the type, that is listed as a failure.

    Raises:
        UsageError: it does not fit, and what was computed is the user's own frame or function.
    """
    output = spec.plan.output
    if output is not None and not isinstance(value, pd.DataFrame):
        is_missing = output_candidates(value)[0] is None
        if is_missing:
            return None
    try:
        return convert_output(value, output, grouped=spec.job.by is not None)
    except UsageError as error:
        if not spec.job.maps or spec.job.reducer is not None:
            raise
        ReduceFailures(spec, state).add(str(error), InvalidOutput(str(error)))
        return None
