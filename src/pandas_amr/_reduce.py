"""The reduce stage: computed by pandas, by the user's function, or written by agents; whole or by groups."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pandas_amr._compute import (
    call_reducer,
    checked_output,
    compute,
    computed_text,
    group_output,
    group_positions,
    shaped,
)
from pandas_amr._findings import Failure
from pandas_amr._schema import json_schema
from pandas_amr._shards import make_shards
from pandas_amr._synthesise import Input, OutputType, Reducer, StaticTree, finding_inputs, row_inputs
from pandas_amr.engines.local import each
from pandas_amr.errors import BudgetExceeded, FailureWarning, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from pandas_amr._units import Units
    from pandas_amr._work import Work

REDUCE_POSITION = -1


@dataclass(frozen=True)
class Found:
    """What is reduced: rows of findings, which are units, or records where units hold none or many.

    Attributes:
        table: the findings beside the frame's own columns.
        findings: the findings alone.
        positions: the frame's row behind each row of these.
    """

    table: pd.DataFrame
    findings: pd.DataFrame
    positions: NDArray[np.int64]


def make_tree(work: Work, leaves: int, computed: Callable[[], str], name: str = "") -> StaticTree:
    """A tree of reduce agents over ``leaves`` batches of findings."""
    assert work.plan.reduce_instruction is not None
    sessions = work.sessions("reduce")
    reducer = Reducer(
        model=work.model("reduce"),
        instruction=work.plan.reduce_instruction,
        output=OutputType(work.plan.output or str),
        tools=work.tools("reduce"),
        max_steps=work.settings.max_steps,
        max_repairs=work.max_repairs,
        repls=sessions.of_findings if sessions else None,
        store=work.answers("reduction", "reduce", reduce_about(work)),
    )
    return StaticTree(
        reducer, leaves=leaves, fan_in=work.plan.fan_in or 2, trace=work.trace, name=name, computed=computed
    )


def reduce_about(work: Work) -> dict[str, Any]:
    """What a reduction depends on beside its inputs."""
    return {"instruction": work.plan.reduce_instruction, "output": json_schema(work.plan.output or str)}


async def reduce(work: Work, units: Units, found: Found, tree: StaticTree | None) -> Any:
    """The answer; None where nothing is left to reduce, or where it failed, which is then listed.

    ``tree`` is the one that got the findings as they landed, where there is one.
    """
    job, plan = work.job, work.plan
    try:
        if job.reducer is not None:
            given = await call_reducer(job.reducer, found.findings, frame=found.table, by=job.by)
            return checked_output(given, plan.output)
        if not work.written:
            return checked_output(compute(found.table, job.computed or plan.aggregations or {}, by=job.by), plan.output)
        if job.by:
            return await _written_by_groups(work, units, found)
        if tree is not None:
            return shaped((await tree.result()).value, plan.output)
        return shaped(await _written(work, units, found, np.arange(len(found.positions)), ""), plan.output)
    except BudgetExceeded as error:
        work.end(error)
        return None
    except ModelError as error:
        if error.stops_run:
            work.end(error)
            return None
        if work.settings.errors == "raise":
            raise
        _list(work, str(error), error.attempts)
        return None


def computed_words(work: Work, table: pd.DataFrame) -> str:
    """What pandas has computed of the findings, for the agent that writes the answer."""
    return computed_text(compute(table, work.plan.aggregations)) if work.plan.aggregations else ""


def _list(work: Work, reason: str, attempts: int) -> None:
    work.failures.append(Failure(REDUCE_POSITION, REDUCE_POSITION, "model", f"reduce: {reason}", attempts))
    work.warnings.append(FailureWarning(f"The reduce failed and is listed in failures: {reason}"))


async def _written(work: Work, units: Units, found: Found, rows: NDArray[np.int64], name: str) -> Any:
    """What a tree of agents writes of some rows; None where there are none."""
    inputs = _inputs(work, units, found, rows)
    if not inputs:
        return None
    batches = _batches(work, inputs)
    tree = make_tree(work, len(batches), partial(computed_words, work, found.table.iloc[rows]), name)
    try:
        for leaf, batch in enumerate(batches):
            tree.offer(leaf, (), batch)
        return (await tree.result()).value
    finally:
        await tree.close()


def _inputs(work: Work, units: Units, found: Found, rows: NDArray[np.int64]) -> list[Input]:
    """The findings of some rows as reducers read them; what failed is not among them."""
    positions = found.positions[rows]
    if not work.job.maps:
        return row_inputs(units, positions.tolist())
    failed = np.array(sorted({failure.position for failure in work.failures}), dtype=np.int64)
    there = ~np.isin(positions, failed)
    table = pa.Table.from_pandas(found.findings.iloc[rows[there]], preserve_index=False)
    inputs = finding_inputs([(range(table.num_rows), table)])
    return [Input(one.line, frozenset((row,))) for one, row in zip(inputs, positions[there].tolist(), strict=True)]


def _batches(work: Work, inputs: Sequence[Input]) -> list[list[Input]]:
    """Findings in batches as large as a shard."""
    plan = work.plan
    assert plan.shard_size is not None
    assert plan.shard_tokens is not None
    count = work.counter("reduce")
    tokens = np.array([count(one.line) for one in inputs], dtype=np.int64)
    shards = make_shards(np.arange(len(inputs)), tokens, shard_size=plan.shard_size, shard_tokens=plan.shard_tokens)
    return [[inputs[index] for index in shard.positions] for shard in shards]


async def _written_by_groups(work: Work, units: Units, found: Found) -> pd.DataFrame:
    """One tree a group, side by side; a failed group is a row of ``<NA>`` and listed."""
    groups = group_positions(found.table, work.job.by)
    values: list[Any] = [None] * len(groups)

    async def one(number: int) -> tuple[int, Any]:
        key, rows = groups[number]
        try:
            return number, await _written(work, units, found, np.array(rows, dtype=np.int64), f"group-{number}-")
        except ModelError as error:
            if error.stops_run or work.settings.errors == "raise":
                raise
            _list(work, f"group {key}: {error}", error.attempts)
            return number, None

    async for number, value in each(one, range(len(groups)), limit=work.parallelism):
        values[number] = value
    return group_output(values, [key for key, _ in groups], work.job.by, work.plan.output or str)
