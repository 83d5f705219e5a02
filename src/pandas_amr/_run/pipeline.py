"""The whole story: plan, units, shards, map, findings, reduce, result."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pandas_amr._agent.threads import called
from pandas_amr._context.progress import Watch
from pandas_amr._context.python_sessions import Converted
from pandas_amr._context.services import Services
from pandas_amr._context.state import State
from pandas_amr._context.wiring import wire
from pandas_amr._journal.keys import Question
from pandas_amr._map.ask import make_ask
from pandas_amr._map.stage import MapStage
from pandas_amr._plan.checks import check_names
from pandas_amr._plan.defaults import fill_by_type, fill_defaults
from pandas_amr._plan.planner import derive, given_plan
from pandas_amr._records.concurrency import await_user_code
from pandas_amr._records.engine import run_off_loop
from pandas_amr._reduce.direct import answer_directly
from pandas_amr._reduce.failures import ReduceFailures
from pandas_amr._reduce.sources import ReduceOutcome
from pandas_amr._reduce.stage import reduce
from pandas_amr._reduce.trees import begin_tree
from pandas_amr._result.stopped import stop_with
from pandas_amr._run.estimate import forecast
from pandas_amr._run.outcome import make_partial_result, make_result
from pandas_amr._run.preview import Draft, PreviewOptions, preview
from pandas_amr._run.sample import sample_of
from pandas_amr._run.units import make_read_units
from pandas_amr.errors import (
    BudgetExceeded,
    JournalError,
    MapFailed,
    ModelError,
    ModelUnavailable,
    NotConfirmed,
    UsageError,
)
from pandas_amr.models.waits import LOGGER, collect_waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from pandas_amr._journal.journal import Journal
    from pandas_amr._plan.plan import Plan
    from pandas_amr._records.usage import Ledger
    from pandas_amr._reduce.static_tree import StaticTree
    from pandas_amr._result.result import Result
    from pandas_amr._run.execution import Execution
    from pandas_amr._units.units import Units
    from pandas_amr.errors import PlanWarning, RunStopped

PLANNING = "its plan"


async def run(
    execution: Execution,
    watch: Watch | None = None,
    on_cancel: Callable[[Result], None] | None = None,
) -> Result | Draft:
    """Carry out a run.

    Args:
        execution: what is to be carried out.
        watch: is shown what is found, and how far the run is.
        on_cancel: is given what was found until then if the run is cancelled.

    Raises:
        RunStopped: the run ended before its end; the error's ``partial`` is the ``Result`` until
            then. A service that serves nothing more, a budget that is used up and a failure under
            ``errors="raise"`` have types of their own.
        UsageError: the arguments do not fit, as is seen before anything was sent.
    """
    pipeline = Pipeline(execution, watch or Watch())
    state = pipeline.state
    try:
        with collect_waits(pipeline.services.watch.waits):
            result = await await_user_code(pipeline.carry_out())
    except asyncio.CancelledError:
        if on_cancel is not None:
            on_cancel(pipeline.partial_result())
        raise
    except Exception as error:
        pipeline.log_end(error)
        has_begun = state.stage != "" or state.findings is not None
        found = pipeline.partial_result() if has_begun else None
        if isinstance(error, UsageError) and not pipeline.has_spent:
            raise
        is_planned = state.stage == PLANNING
        stop_with(error, found, where=state.stage or "its beginning", planned=is_planned)
    pipeline.log_end(state.ended_by)
    pipeline.raise_if_ended()
    return result


class Pipeline:
    """One run, stage by stage; ``carry_out`` is the order in which they follow each other."""

    def __init__(self, execution: Execution, watch: Watch) -> None:
        self.spec = execution.spec
        self.state = State(findings=execution.findings)
        self.services = _begin_services(execution, watch, self.state)
        self._execution = execution
        self._parent = execution.parent
        self._is_confirmed = execution.parent is not None and execution.parent.confirmed
        self._result: Result | None = None

    async def carry_out(self) -> Result | Draft:
        """Plan, cut into units, map, reduce, and make the result."""
        async with AsyncExitStack() as stack:
            await self._open_models(stack)
            await self._begin_journal(stack)
            self.state.stage = PLANNING
            await self._plan()
            self.state.stage = "its units"
            units = await self.services.run_large(self.spec, make_read_units, self.spec)
            if self.spec.job.verb == "plan":
                return await self._preview(units)
            outcome = await self._answer_directly(units)
            if outcome is None:
                stage = await self._begin_map(units)
                await self._confirm(units, stage)
                tree = self._begin_tree(stage, stack)
                outcome = await self._map_and_reduce(units, stage, tree)
            self.state.stage = "its result"
            rows = len(self.spec.job.frame)
            self._result = await run_off_loop(self._make_result, outcome, size=rows)
            return self._result

    async def _open_models(self, stack: AsyncExitStack) -> None:
        """Open the models of the run's phases and agents; those of an outer run are shared."""
        spec = self.spec
        if not spec.lms:
            return
        own_lms = [spec.lm("map", agent) for agent in spec.job.agents]
        shared = self._parent.services.wired if self._parent is not None else None
        wiring = wire(
            [*spec.lms.values(), *own_lms],
            self.services.ledger,
            spec.settings.budget,
            within=shared,
        )
        self.services.wired = await stack.enter_async_context(wiring)

    async def _begin_journal(self, stack: AsyncExitStack) -> None:
        """Note in the journal that the run has begun; one that is part of another is not noted."""
        services, job = self.services, self.spec.job
        if services.journal is None or self._parent is not None:
            return
        services.run_number = await services.journal.begin(job.verb, job.task, len(job.frame))
        record = RunRecord(
            services.journal, services.run_number, services.ledger, lambda: self.state.end_reason
        )
        stack.push_async_exit(record)

    async def _plan(self) -> None:
        """Complete what the user left open: a task by the planner, the rest by type and default."""
        spec, services, state = self.spec, self.services, self.state
        job = spec.job
        if job.open:
            before = services.ledger.total
            with services.trace.node("plan", id=f"{services.prefix}plan", level=-1) as node:
                plan, warning = await self._derive_plan()
                node.usage = services.ledger.total - before
            if warning is not None:
                state.warnings.append(warning)
        else:
            plan = given_plan(job)
        plan = fill_by_type(plan, job, writes=spec.abilities("reduce").units_per_request is None)
        plan = fill_defaults(
            plan,
            job,
            abilities=spec.abilities("map"),
            parallelism=spec.settings.max_parallelism,
        )
        job = replace(job, by=job.by or plan.by)
        self.spec = replace(spec, job=job, plan=plan)
        check_names(job, plan)
        if services.semaphore is None:
            most = services.most_requests(self.spec, tools=True)
            services.semaphore = asyncio.Semaphore(most)

    async def _derive_plan(self) -> tuple[Plan, PlanWarning | None]:
        """Ask the planner.

        Raises:
            BudgetExceeded: the budget's seconds were over before it answered.
            PlanError: no plan that can be used came.
        """
        spec, services = self.spec, self.services
        store = services.answers(spec, "plan", "plan", Question())
        async with services.time_limit(spec):
            return await derive(
                spec.job,
                model=services.model(spec, "plan"),
                readers=spec.abilities("map"),
                store=store,
            )

    async def _preview(self, units: Units) -> Draft:
        """Estimate what the plan would take, and render what it would send."""
        self.state.stage = "its estimate"
        options = self._execution.preview or PreviewOptions()
        draft = await preview(self.spec, self.services, self.state, units, options)
        return replace(draft, result=self.partial_result())

    async def _answer_directly(self, units: Units) -> ReduceOutcome | None:
        """Have one agent answer from the whole content, if the plan says so and it fits."""
        spec, services, state = self.spec, self.services, self.state
        if not spec.plan.direct or state.findings is not None:
            return None
        await self._confirm(units, None)
        state.stage = "its direct answer"
        try:
            async with services.time_limit(spec):
                return await answer_directly(spec, services, state, units)
        except BudgetExceeded as error:
            state.end(error)
        except ModelError as error:
            if not error.fatal and spec.settings.errors != "raise":
                ReduceFailures(spec, state).add(f"direct: {error}", error)
                return None  # findings first, then a reduce, may still answer
            state.end(error)
        return ReduceOutcome(None)

    async def _begin_map(self, units: Units) -> MapStage | None:
        """Cut shards of what no earlier run and no journal has; None if nothing is mapped."""
        spec, services, state = self.spec, self.services, self.state
        state.stage = "its map"
        if not spec.job.maps:
            return None
        sample = None
        wanted = self._execution.sample
        if wanted is not None:
            count = max(1, round(wanted.share * len(units.asked)))
            draw = partial(sample_of, seed=wanted.seed)
            sample = await services.run_large(spec, draw, spec, units, count)
        begin = partial(MapStage, spec, services, state, units, state.findings, sample=sample)
        stage = await services.run_large(spec, begin)
        state.findings, state.made_by = stage.findings, stage.made_by
        await stage.recall()
        return stage

    async def _confirm(self, units: Units, stage: MapStage | None) -> None:
        """Ask whether what is still to be done may be paid for, if somebody wants to be asked.

        Raises:
            NotConfirmed: it may not.
        """
        spec, services = self.spec, self.services
        confirm = spec.settings.budget.confirm if spec.settings.budget else None
        if confirm is None or self._is_confirmed:
            return
        self.state.stage = "its confirmation"
        estimate = await forecast(spec, services, units, stage=stage)
        answer = await called(confirm, estimate)
        if not isinstance(answer, bool | np.bool_) or not answer:
            raise NotConfirmed(f"The estimate was not confirmed: {estimate}.", estimate)
        self._is_confirmed = True

    def _begin_tree(self, stage: MapStage | None, stack: AsyncExitStack) -> StaticTree | None:
        """Make the tree that takes findings as they land; None if the reduce waits for all."""
        spec, services, state = self.spec, self.services, self.state
        if stage is None or not stage.leaves or not spec.reduces_as_findings_land:
            return None
        tree = begin_tree(spec, services, state, stage.leaves)
        stack.push_async_exit(tree.leave)
        return tree

    async def _map_and_reduce(
        self, units: Units, stage: MapStage | None, tree: StaticTree | None
    ) -> ReduceOutcome:
        """Map, then reduce, until the budget's seconds are used up."""
        spec, services, state = self.spec, self.services, self.state
        state.stage = "its map" if stage is not None else "its reduce"
        try:
            async with services.time_limit(spec):
                if stage is not None:
                    await stage.run(tree)
                self._raise_if_failed()
                if state.ended_by is None and spec.job.reduces:
                    state.stage = "its reduce"
                    rows = await run_off_loop(
                        state.finding_rows, spec.job, size=len(spec.job.frame)
                    )
                    return await reduce(spec, services, state, units, rows, tree=tree)
                if state.ended_by is not None and tree is not None:
                    await tree.settle(state.ended_by)
        except BudgetExceeded as error:
            state.end(error)
        return ReduceOutcome(None)

    def _make_result(self, outcome: ReduceOutcome) -> Result:
        return make_result(self.spec, self.services, self.state, outcome, self._parent)

    def partial_result(self) -> Result:
        """Return the result, or what was found until now."""
        if self._result is None:
            return make_partial_result(self.spec, self.services, self.state, self._parent)
        return self._result

    @property
    def has_spent(self) -> bool:
        """Whether a request was sent or the journal asked, or something is found."""
        total = self.services.ledger.total
        findings = self.state.findings
        has_findings = findings is not None and findings.has_findings
        return bool(total.tries or total.recalled) or has_findings

    def log_end(self, error: Exception | None) -> None:
        """Log that the run waits no longer for its service: once, by the outermost run."""
        is_gone = isinstance(error, ModelUnavailable) and error.fatal
        if is_gone and self._parent is None:
            LOGGER.warning("The run stopped early: %s", error)

    def raise_if_ended(self) -> None:
        """Raise what ended the run early, unless its result says so and it can be continued."""
        error = self.state.ended_by
        if error is None:
            return
        if _can_be_continued(error) and self.spec.settings.errors != "raise":
            return
        if isinstance(error, BudgetExceeded):
            error.usage = self.services.ledger.total  # what was in flight has ended by now
        stop_with(error, self._result, where=self.state.stage)

    def _raise_if_failed(self) -> None:
        """Raise if units failed under ``errors="raise"``.

        Raises:
            MapFailed: units failed.
        """
        job, state = self.spec.job, self.state
        if state.ended_by is not None or not (state.halted and state.failures):
            return
        rows = len(job.frame)
        failed = len({failure.position for failure in state.failures})
        has_nothing = len(state.failures) == rows * len(job.names)
        first = state.sorted_failures(job.names)[0]
        what = "No unit succeeded" if has_nothing else f"{failed} of {rows} units failed"
        raise MapFailed(f"{what}; the first, row {first.position}: {first.reason} ({first.who})")


def _begin_services(execution: Execution, watch: Watch, state: State) -> Services:
    """Make the services of a run; one that is part of another shares what that one has."""
    frame = Converted(execution.spec.job.frame)
    if execution.parent is None:
        return Services(
            make_ask, state.warnings.append, frame, journal=execution.journal, watch=watch
        )
    return replace(
        execution.parent.services,
        warn=state.warnings.append,
        frame=frame,
        wired=None,
        caches=[],
    )


def _can_be_continued(error: RunStopped) -> bool:
    """Tell whether a run that this ended has a result, which a later run goes on from."""
    if isinstance(error, BudgetExceeded):
        return True
    return isinstance(error, ModelUnavailable) and not error.gone


class RunRecord:
    """Notes in the journal how a run ended, whatever way it did."""

    def __init__(
        self,
        journal: Journal,
        number: int,
        ledger: Ledger,
        end_reason: Callable[[], str | None],
    ) -> None:
        self._journal = journal
        self._number = number
        self._ledger = ledger
        self._end_reason = end_reason

    async def __aenter__(self) -> None:
        """Do nothing: the run is noted already."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        status = "done"
        if self._end_reason() is not None:
            status = "stopped"
        elif isinstance(error, asyncio.CancelledError):
            status = "cancelled"
        elif error is not None:
            status = "failed"
        total = self._ledger.total
        with contextlib.suppress(JournalError):  # the run's own outcome is what counts
            await self._journal.end(
                self._number,
                status,
                calls=total.calls,
                tokens=total.tokens,
                money=total.money,
                recalled=total.recalled,
            )
