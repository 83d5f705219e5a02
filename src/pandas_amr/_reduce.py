"""The reduce stage: computed by pandas, by the user's function, or written by agents; whole or by groups."""

from __future__ import annotations

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
from pandas_amr._shards import make_shards
from pandas_amr._synthesise import Input, OutputType, Reducer, StaticTree, finding_inputs, row_inputs
from pandas_amr.engines.local import each
from pandas_amr.errors import FailureWarning, ModelConfigError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from pandas_amr._units import Units
    from pandas_amr._work import Work

REDUCE_POSITION = -1


def make_tree(work: Work, leaves: int, computed: Callable[[], str], name: str = "") -> StaticTree:
    """A tree of reduce agents over ``leaves`` batches of findings."""
    assert work.plan.reduce_instruction is not None
    reducer = Reducer(
        model=work.model,
        instruction=work.plan.reduce_instruction,
        output=OutputType(work.plan.output or str),
        tools=work.tools,
        max_steps=work.settings.max_steps,
        max_repairs=work.max_repairs,
    )
    return StaticTree(
        reducer, leaves=leaves, fan_in=work.plan.fan_in or 2, trace=work.trace, name=name, computed=computed
    )


async def reduce(work: Work, units: Units, frame: pd.DataFrame, findings: pd.DataFrame, tree: StaticTree | None) -> Any:
    """The answer; None where nothing is left to reduce, or where it failed, which is then listed."""
    job, plan = work.job, work.plan
    try:
        if job.reducer is not None:
            return checked_output(await call_reducer(job.reducer, findings, frame=frame, by=job.by), plan.output)
        if not work.written:
            return checked_output(compute(frame, job.computed or plan.aggregations or {}, by=job.by), plan.output)
        if job.by:
            return await _written_by_groups(work, units, frame, findings)
        if tree is None:
            return None
        if not job.maps:
            _offer_rows(work, tree, units, range(len(frame)))
        return shaped((await tree.result()).value, plan.output)
    except ModelConfigError:
        raise
    except ModelError as error:
        if work.settings.errors == "raise":
            raise
        _list(work, str(error), error.attempts)
        return None


def leaf_count(work: Work, units: Units, shards: int) -> int:
    """How many batches of findings the tree gets."""
    return shards if work.job.maps else len(_batches(work, units, range(len(units))))


def computed_words(work: Work, frame: pd.DataFrame) -> str:
    """What pandas has computed of the findings, for the agent that writes the answer."""
    return computed_text(compute(frame, work.plan.aggregations)) if work.plan.aggregations else ""


def _list(work: Work, reason: str, attempts: int) -> None:
    work.failures.append(Failure(REDUCE_POSITION, REDUCE_POSITION, "model", f"reduce: {reason}", attempts))
    work.warnings.append(FailureWarning(f"The reduce failed and is listed in failures: {reason}"))


def _batches(work: Work, units: Units, rows: Any) -> list[tuple[int, ...]]:
    """Rows of the frame in batches as large as a shard."""
    positions = np.asarray(list(rows), dtype=np.int64)
    plan = work.plan
    assert plan.shard_size is not None
    assert plan.shard_tokens is not None
    tokens = units.tokens[units.answered_by[positions]]
    shards = make_shards(positions, tokens, shard_size=plan.shard_size, shard_tokens=plan.shard_tokens)
    return [shard.positions for shard in shards]


def _offer_rows(work: Work, tree: StaticTree, units: Units, rows: Any) -> None:
    for leaf, batch in enumerate(_batches(work, units, rows)):
        tree.offer(leaf, (), row_inputs(units, batch))


async def _written_by_groups(work: Work, units: Units, frame: pd.DataFrame, findings: pd.DataFrame) -> pd.DataFrame:
    """One tree a group, side by side; a failed group is a row of ``<NA>`` and listed."""
    groups = group_positions(frame, work.job.by)
    failed = {failure.position for failure in work.failures}
    values: list[Any] = [None] * len(groups)

    async def one(number: int) -> tuple[int, Any]:
        rows = [row for row in groups[number][1] if row not in failed]
        batches = _batches(work, units, rows)
        if not batches:
            return number, None
        words = partial(computed_words, work, frame.iloc[rows])
        tree = make_tree(work, len(batches), words, f"group-{number}-")
        try:
            for leaf, batch in enumerate(batches):
                tree.offer(leaf, (), _group_inputs(work, units, findings, batch))
            return number, (await tree.result()).value
        except ModelConfigError:
            raise
        except ModelError as error:
            if work.settings.errors == "raise":
                raise
            _list(work, f"group {groups[number][0]}: {error}", error.attempts)
            return number, None
        finally:
            await tree.close()

    async for number, value in each(one, range(len(groups)), limit=work.parallelism):
        values[number] = value
    return group_output(values, [key for key, _ in groups], work.job.by, work.plan.output or str)


def _group_inputs(work: Work, units: Units, findings: pd.DataFrame, batch: tuple[int, ...]) -> list[Input]:
    if not work.job.maps:
        return row_inputs(units, batch)
    table = pa.Table.from_pandas(findings.iloc[list(batch)], preserve_index=False)
    return finding_inputs([(batch, table)])
