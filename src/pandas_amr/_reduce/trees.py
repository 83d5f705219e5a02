"""Trees of agents that write an answer: one over all findings, or one per group."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_amr._findings.output import ReductionType
from pandas_amr._plan.compute import group_rows, list_rows
from pandas_amr._plan.outputs import join_group_outputs
from pandas_amr._records.concurrency import run_concurrently
from pandas_amr._records.engine import run_off_loop
from pandas_amr._reduce.adaptive_tree import AdaptiveTree, makers
from pandas_amr._reduce.failures import LostFindings, ReduceFailures
from pandas_amr._reduce.inputs import render_findings, render_frame_rows
from pandas_amr._reduce.notes import FindingNotes
from pandas_amr._reduce.sources import PartSources, ReduceOutcome, make_outcome
from pandas_amr._reduce.static_tree import StaticTree
from pandas_amr._reduce.task import answer_task, make_reduce_agent, reduce_budget
from pandas_amr._units.rows import combine_chunks
from pandas_amr._units.shards import make_shards
from pandas_amr.errors import BudgetExceeded, FailureWarning, ModelError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._context.steps import ReduceSteps
    from pandas_amr._findings.inputs import FindingRows, ReduceInput
    from pandas_amr._findings.output import Reduction
    from pandas_amr._reduce.agent import ReduceAgent
    from pandas_amr._reduce.task import ReduceTask
    from pandas_amr._units.units import Units

MAX_LEVELS = 10  # of an adaptive tree, if the plan says nothing


def begin_tree(spec: Spec, services: Services, state: State, leaves: int) -> StaticTree:
    """Begin a tree over ``leaves`` batches of findings, which it takes as they land."""
    return StaticTree(
        make_reduce_agent(spec, services, state, answer_task(spec)),
        leaves=leaves,
        fan_in=spec.plan.fan_in or 2,
        trace=services.trace,
        notes=FindingNotes(spec, state),
        name=services.prefix,
        steps=services.watch.steps.reduce,
    )


async def finish_tree(tree: StaticTree, spec: Spec, state: State) -> ReduceOutcome:
    """Return the answer of a tree that took the findings as they landed."""
    reduction = await tree.result()
    _warn_of_truncated(state, tree.agent.lost)
    return make_outcome(reduction, spec.plan.output)


@dataclass(frozen=True, slots=True)
class ReduceTrees:
    """Runs trees of agents over findings that are all there.

    Attributes:
        units: what the agents read, if nothing is mapped.
    """

    spec: Spec
    services: Services
    state: State
    units: Units

    @property
    def _steps(self) -> ReduceSteps:
        """Show how far the trees are."""
        return self.services.watch.steps.reduce

    @property
    def failures(self) -> ReduceFailures:
        """Takes what fails."""
        return ReduceFailures(self.spec, self.state)

    async def write_answer(self, rows: FindingRows) -> ReduceOutcome:
        """Have the whole answer written, by groups if the call has any."""
        task = answer_task(self.spec)
        if self.spec.job.by is not None:
            return await self.write_groups(rows, task)
        reduction = await self.write(rows, np.arange(len(rows.positions)), task)
        return make_outcome(reduction, self.spec.plan.output)

    async def write_groups(
        self, rows: FindingRows, task: ReduceTask, *, prefix: str = "", of_units: bool = False
    ) -> ReduceOutcome:
        """Run one tree per group, side by side; a group that fails is listed, and is ``<NA>``.

        ``of_units`` groups records as their units are, those without a record among them.
        """
        index, groups, rows = await _find_groups(rows, of_units=of_units)
        reductions: list[Reduction | None] = [None] * len(groups)
        steps = self._steps
        steps.trees += len(groups)

        async def write_group(number: int) -> None:
            places = np.array(groups[number], dtype=np.int64)
            name = f"{prefix}group-{number}-"
            try:
                reductions[number] = await self.write(rows, places, task, name=name)
            except ModelError as error:
                if error.fatal:
                    self.state.end(error)
                else:
                    self.failures.add(f"group {index[number]}: {error}", error)
            except BudgetExceeded as error:  # the answers of other groups count all the same
                self.state.end(error)
            finally:
                steps.trees_done += 1

        parallelism = self.services.parallelism(self.spec)
        async for _ in run_concurrently(write_group, range(len(groups)), limit=parallelism):
            pass
        return _put_groups_together(index, reductions, task.output)

    async def write(
        self, rows: FindingRows, places: NDArray[np.int64], task: ReduceTask, *, name: str = ""
    ) -> Reduction | None:
        """Run one tree over the findings of the rows at some places.

        Args:
            rows: all rows of findings.
            places: the rows among them that the tree reads.
            task: what its agents are asked.
            name: what the names of its nodes begin with, after the run's own prefix.

        Returns:
            None if there are no findings and the type of the answer is not a list.
        """
        spec, services, state = self.spec, self.services, self.state
        inputs: list[ReduceInput] = await services.run_rendering(
            spec, self.render_inputs, rows, places, size=len(places)
        )
        if not inputs:
            return ReductionType(task.output).empty_reduction
        task = await self._instruct(task, rows.findings.iloc[places])
        notes = self._make_notes(rows, places)
        text = await services.run_rendering(spec, notes.render, LostFindings(), size=len(places))
        agent = make_reduce_agent(spec, services, state, task, notes=text)
        name = services.prefix + name
        if spec.plan.fan_in is None:
            reduction = await self._run_adaptive(agent, inputs, task, notes, name)
        else:
            reduction = await self._run_static(agent, inputs, spec.plan.fan_in, notes, name)
        _warn_of_truncated(state, agent.lost)
        return reduction

    async def _instruct(self, task: ReduceTask, findings: pd.DataFrame) -> ReduceTask:
        instruct = partial(task.with_instruction_for, redaction=self.spec.job.redaction)
        return await self.services.run_rendering(self.spec, instruct, findings, size=0)

    def render_inputs(self, rows: FindingRows, places: NDArray[np.int64]) -> list[ReduceInput]:
        """Render what agents read of the rows at some places."""
        if not self.spec.job.maps:
            return render_frame_rows(self.services, self.units, rows, places)
        return render_findings(self.spec, self.state, self.units, rows, places)

    def _make_notes(self, rows: FindingRows, places: NDArray[np.int64]) -> FindingNotes:
        """Make the notes of a tree; with groups, those of the group at these places."""
        if self.spec.job.by is None:
            return FindingNotes(self.spec, self.state, rows)
        group = rows.positions[places]
        return FindingNotes(self.spec, self.state, rows.select_group(places), group)

    async def _run_adaptive(
        self,
        agent: ReduceAgent,
        inputs: list[ReduceInput],
        task: ReduceTask,
        notes: FindingNotes,
        name: str,
    ) -> Reduction | None:
        tree = AdaptiveTree(
            agent,
            budget=reduce_budget(self.spec, task).share,
            max_levels=self.spec.plan.max_reduce_levels or MAX_LEVELS,
            trace=self.services.trace,
            parallelism=self.services.parallelism(self.spec),
            notes=notes,
            name=name,
            steps=self._steps,
        )
        return await tree.reduce(inputs)

    async def _run_static(
        self,
        agent: ReduceAgent,
        inputs: list[ReduceInput],
        fan_in: int,
        notes: FindingNotes,
        name: str,
    ) -> Reduction | None:
        batches: list[list[ReduceInput]] = await run_off_loop(
            _make_batches, self.spec, inputs, size=len(inputs)
        )
        trace = self.services.trace
        tree = StaticTree(agent, len(batches), fan_in, trace, notes, name, self._steps)
        try:
            for leaf, batch in enumerate(batches):
                tree.offer(leaf, makers(batch), batch)
            return await tree.result()
        finally:
            await tree.close()


async def _find_groups(
    rows: FindingRows, *, of_units: bool
) -> tuple[pd.Index, list[list[int]], FindingRows]:
    """Return the groups, the places of each one's rows, and the rows to take these of."""
    size = len(rows.positions)
    index, groups = await run_off_loop(partial(_list_groups, rows, of_units=of_units), size=size)
    table = await run_off_loop(combine_chunks, rows.table, size=size)
    return index, groups, replace(rows, table=table)


def _list_groups(rows: FindingRows, *, of_units: bool) -> tuple[pd.Index, list[list[int]]]:
    assert rows.by is not None
    if of_units and rows.units is not None and rows.units.have_own_groups:
        index, numbers = rows.units.group_records()
        return index, list_rows(numbers, len(index))
    return group_rows(rows.table, rows.by)


def _put_groups_together(
    index: pd.Index, reductions: list[Reduction | None], output: object
) -> ReduceOutcome:
    """Make a frame of the groups' answers, one row per group or item."""
    values: list[Any] = []
    sources: list[PartSources] = []
    for number, reduction in enumerate(reductions):
        if reduction is None:
            values.append(None)
            continue
        values.append(reduction.value)
        sources.append(PartSources(index[number], reduction.support))
    return ReduceOutcome(join_group_outputs(values, index, output), tuple(sources))


def _make_batches(spec: Spec, inputs: list[ReduceInput]) -> list[list[ReduceInput]]:
    """Cut findings into batches as large as a shard."""
    plan = spec.plan
    assert plan.shard_size is not None
    assert plan.shard_tokens is not None
    count = spec.counter("reduce")
    tokens = np.array([count(one.line) for one in inputs], dtype=np.int64)
    shards = make_shards(
        np.arange(len(inputs)), tokens, shard_size=plan.shard_size, shard_tokens=plan.shard_tokens
    )
    return [[inputs[index] for index in shard.positions] for shard in shards]


def _warn_of_truncated(state: State, lost: LostFindings) -> None:
    if lost.truncated:
        message = (
            f"The reduce could not hold all of its findings: {lost.truncated} were cut to fit "
            "the model's window."
        )
        state.warnings.append(FailureWarning(message))
