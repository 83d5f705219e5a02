"""The whole story: plan, units, shards, map, findings, reduce, result."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pandas_amr._agent.agent import Agent
from pandas_amr._agent.threads import call_user_function
from pandas_amr._context.python_sessions import Converted
from pandas_amr._context.recording import begin_recorder, note_rows, open_transcript_file
from pandas_amr._context.services import Services
from pandas_amr._context.state import State
from pandas_amr._context.tool_use import check_tools_at_server
from pandas_amr._context.wiring import wire
from pandas_amr._findings.map_findings import EMPTY
from pandas_amr._findings.store import FOUND
from pandas_amr._journal.keys import Question
from pandas_amr._journal.leases import open_leases
from pandas_amr._map.ask import make_ask
from pandas_amr._map.stage import MapStage
from pandas_amr._plan.aggregations import function_of
from pandas_amr._plan.call import Pipeline as RowPipeline
from pandas_amr._plan.call import finding_types
from pandas_amr._plan.checks import check_names
from pandas_amr._plan.defaults import fill_by_type, fill_defaults
from pandas_amr._plan.planner import derive, find_shown_rows, make_given_plan
from pandas_amr._records.concurrency import await_user_code
from pandas_amr._records.counts import counted_of
from pandas_amr._records.engine import in_thread, run_off_loop
from pandas_amr._reduce.direct import answer_directly
from pandas_amr._reduce.failures import ReduceFailures
from pandas_amr._reduce.sources import ReduceOutcome
from pandas_amr._reduce.stage import reduce
from pandas_amr._reduce.trees import begin_tree
from pandas_amr._result.stopped import stop_with
from pandas_amr._run.estimate import forecast
from pandas_amr._run.outcome import make_partial_result, make_result, warn_of_failed_units
from pandas_amr._run.preview import Draft, PreviewOptions, preview, preview_outgoing
from pandas_amr._run.redact import needs_redaction, note_redaction, redact_spec
from pandas_amr._run.rows import list_readings, trace_rows
from pandas_amr._run.sample import sample_of
from pandas_amr._units.columns import find_content_columns
from pandas_amr._units.empty import find_empty_columns, find_empty_rows
from pandas_amr._units.units import Units, make_units
from pandas_amr.errors import (
    BudgetExceeded,
    JournalError,
    MapFailed,
    ModelError,
    ModelOffline,
    ModelUnavailable,
    NotConfirmed,
    PlanWarning,
    UsageError,
)
from pandas_amr.models.openai.endpoint import OFFLINE
from pandas_amr.models.waits import collect_waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from pandas_amr._context.progress import Watch
    from pandas_amr._context.spec import Spec
    from pandas_amr._journal.journal import Journal
    from pandas_amr._journal.origins import Origins
    from pandas_amr._map.breaker import Breaker
    from pandas_amr._map.cut import Sample
    from pandas_amr._plan.plan import Plan
    from pandas_amr._records.usage import Budget, Ledger, Phase
    from pandas_amr._reduce.static_tree import StaticTree
    from pandas_amr._result.result import Result
    from pandas_amr._run.execution import Execution
    from pandas_amr.errors import AMRWarning, RunStopped
    from pandas_amr.models.lease import Leases

PLANNING = "its plan"
CORRECTING = "its corrections"
OVERRIDE = "override"  # the verb of a run that corrects, in the journal


async def run_pipeline(
    pipeline: Pipeline, on_cancel: Callable[[Result], None] | None = None
) -> Result | Draft:
    """Carry out a run, and see to its end, whatever way it comes.

    Args:
        pipeline: the run.
        on_cancel: is given what was found until then if the run is cancelled.

    Raises:
        RunStopped: the run ended before its end; the error's ``partial`` is the ``Result`` until
            then. A service that serves nothing more, a budget that is used up and a failure under
            ``errors="raise"`` have types of their own.
        UsageError: the arguments do not fit, as is seen before anything was sent.
    """
    state = pipeline.state
    try:
        with collect_waits(pipeline.services.watch.waits):
            result = await await_user_code(pipeline.carry_out())
        await pipeline.issue_warnings()
    except asyncio.CancelledError:
        if on_cancel is not None:
            on_cancel(pipeline.partial_result())
        raise
    except Exception as error:
        has_begun = state.stage != "" or state.findings is not None
        found = pipeline.partial_result() if has_begun else None
        pipeline.begin_issuing()
        if isinstance(error, UsageError) and not pipeline.has_spent:
            raise
        is_planned = state.stage == PLANNING
        stop_with(error, found, where=state.stage or "its beginning", planned=is_planned)
    finally:
        pipeline.leave_notices()
    try:
        pipeline.raise_if_ended()
    finally:
        state.ended_by = None  # the result keeps the state, and the error the result
    return result


class Pipeline:
    """One run, stage by stage; ``carry_out`` is the order in which they follow each other."""

    _earlier_breaker: Breaker | None = None  # of parts of the run that were mapped before

    def __init__(self, execution: Execution, watch: Watch) -> None:
        self.spec = execution.spec
        self.state = State(findings=execution.findings)
        self.services = _begin_services(execution, watch, self._warn)
        self._execution = execution
        self._override = execution.override
        if self._override is not None:
            self.state.failures = list(self._override.failures)
            self.state.has_warned_of_units = not self._override.reduces
        self._parent = execution.parent
        self._is_confirmed = execution.parent is not None and execution.parent.confirmed
        self._result: Result | None = None
        self._notices = self.services.watch.notices
        if self._issues_warnings:
            self._notices.on_raised = self._halt

    async def carry_out(self) -> Result | Draft:
        """Plan, cut into units, map, reduce, and make the result."""
        await self._redact()
        async with AsyncExitStack() as stack:
            await self._open_models(stack)
            await self._begin_journal(stack)
            self.state.stage = PLANNING
            await self._trace_rows(self.spec.job.columns)
            await self._plan()
            await self.issue_warnings()
            self.state.stage = "its units"
            units = await self.services.run_large(self.spec, make_read_units, self.spec)
            await self._trace_rows(units.known_by or units.columns)
            if self.spec.job.verb == "plan":
                return await self._preview(units)
            outcome = await self._answer_directly(units)
            if outcome is None:
                stage = await self._begin_map(units)
                await self.issue_warnings()
                await self._confirm(units, stage)
                tree = self._begin_tree(stage, stack)
                outcome = await self._map_and_reduce(units, stage, tree)
            self.state.stage = "its result"
            self._result = await self._end_with(outcome)
            return self._result

    async def _end_with(self, outcome: ReduceOutcome) -> Result:
        """Make the result: in a thread, if the frame is large."""
        rows = len(self.spec.job.frame)
        result: Result = await run_off_loop(self._make_result, outcome, size=rows)
        return result

    async def _trace_rows(self, columns: tuple[int, ...]) -> None:
        """Have the services know by which fingerprints the journal finds a row again."""
        spec, services = self.spec, self.services
        if services.journal is None:
            return
        outer = services.outer_rows
        services.rows = await services.run_large(spec, trace_rows, spec.job, columns, outer)
        await note_rows(services, services.rows)

    async def _redact(self) -> None:
        """Redact the frame, unless that was done where the call was made.

        It was not if the call is a stage of a recipe, or was made on the engine's own thread.
        """
        spec = self.spec
        if needs_redaction(spec):
            self.spec = await in_thread(redact_spec, spec)
            self.services.frame = Converted(self.spec.job.sent)

    async def _open_models(self, stack: AsyncExitStack) -> None:
        """Open the models of the run's phases and agents; those of an outer run are shared."""
        spec = self.spec
        if not spec.lms:
            return
        lms_of_agents = [spec.lm("map", agent) for agent in spec.job.agents]
        shared = None if self._parent is None else self._parent.services.wired
        wiring = wire(
            [*spec.lms.values(), *lms_of_agents],
            self._metered_ledger,
            self._metered_budget,
            self._open_leases(),
            offline=spec.settings.is_offline,
            within=shared,
        )
        self.services.wired = await stack.enter_async_context(wiring)
        check_tools_at_server(spec, self.services.wired)
        if self._parent is None:
            self.services.watch.wired = self.services.wired

    @property
    def _metered_ledger(self) -> Ledger:
        """The ledger of what counts towards the budget here."""
        return self.services.ledger

    @property
    def _metered_budget(self) -> Budget | None:
        """The budget of what is asked here."""
        return self.spec.settings.budget

    def _open_leases(self) -> Leases | None:
        """Return what is shared with other processes."""
        if self._execution.leases is not None:
            return self._execution.leases
        return open_leases(self.spec.settings.lease)

    async def _begin_journal(self, stack: AsyncExitStack) -> None:
        """Note in the journal that the run has begun; one that is part of another is not noted."""
        services, job = self.services, self.spec.job
        if services.journal is None or self._parent is not None:
            return
        verb = job.verb if self._override is None else OVERRIDE
        rows = len(job.frame)
        readings = list_readings(job)
        number = await services.journal.begin(verb, job.task, rows, readings)
        services.run_number = number
        record = RunRecord(services.journal, number, services.ledger, lambda: self.state.end_reason)
        stack.push_async_exit(record)
        await open_transcript_file(services, stack)

    async def _plan(self) -> None:
        """Complete what the user left open: a task by the planner, the rest by type and default."""
        spec, services = self.spec, self.services
        if spec.job.open:
            services.watch.steps.begin_plan()
            before = services.ledger.total
            with services.trace.node("plan", id=f"{services.prefix}plan", level=-1) as node:
                plan, warning = await self._derive_plan()
                node.usage = services.ledger.total - before
            if warning is not None:
                self.state.warnings.append(warning)
        else:
            plan = make_given_plan(spec.job)
        self.spec = await services.run_large(spec, _complete_plan, spec, plan)
        recorder = services.trace.recorder
        if recorder is not None:
            recorder.learn_words(_list_words(self.spec))
        services.watch.is_static = self.spec.plan.fan_in is not None
        if services.semaphore is None:  # an outer run has bound the requests in flight
            most = services.most_requests(self.spec, tools=True)
            services.semaphore = asyncio.Semaphore(most)
            services.watch.most_requests = most

    async def _derive_plan(self) -> tuple[Plan, PlanWarning | None]:
        """Ask the planner.

        Raises:
            BudgetExceeded: the budget's seconds were over before it answered.
            PlanError: no plan that can be used came.
        """
        spec, services = self.spec, self.services
        store = services.answers(spec, "plan", "plan", Question())
        origins: Origins = ()
        if store is not None:
            shown = await services.run_large(spec, find_shown_rows, spec.job)
            origins = services.origins_of(shown)
        async with services.time_limit(spec):
            derived = await derive(
                spec.job,
                model=services.model(spec, "plan"),
                readers=spec.abilities("map"),
                store=store,
                origins=origins,
            )
        if store is not None:
            services.made_from = tuple(store.used)
        return derived

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
        sample = await self._draw_units(units)
        begin = partial(
            MapStage,
            spec,
            services,
            state,
            units,
            state.findings,
            sample=sample,
            breaker=self._earlier_breaker,
        )
        stage = await services.run_large(spec, begin)
        state.findings, state.made_by, state.keys_of = stage.findings, stage.made_by, stage.keys_of
        if services.journal is None and spec.plan.retry_failed_after is not None:
            self._warn_without_journal()
        if self._override is not None:
            state.stage = CORRECTING
            await stage.correct(self._override.corrections)
            state.stage = "its map"
        await stage.recall()
        self.spec = replace(spec, has_corrections=stage.findings.has_corrections)
        if spec.settings.is_offline:
            await self._check_all_known(stage)
        return stage

    def _warn_without_journal(self) -> None:
        """Warn that failures are to be remembered, and there is no journal to remember them."""
        message = (
            "Failed rows are asked again each time: without a journal nothing remembers them "
            "(retry_failed_after). Give journal='a/path'."
        )
        self.state.warnings.append(PlanWarning(message))

    async def _draw_units(self, units: Units) -> Sample | None:
        """Draw the units that are mapped, if not all are."""
        wanted = self._execution.sample
        if wanted is None:
            return None
        readable = len(units.with_content().asked)
        count = max(1, round(wanted.share * readable))
        draw = partial(sample_of, seed=wanted.seed)
        return await self.services.run_large(self.spec, draw, self.spec, units, count)

    async def _check_all_known(self, stage: MapStage) -> None:
        """Refuse to map offline what the journal does not have.

        Raises:
            ModelOffline: it lacks some rows.
        """
        rows = await stage.count_unknown_rows()
        if not rows:
            return
        place = "and there is no journal"
        if self.services.journal is not None:
            place = f"the journal is {self.services.journal.path}"
        unknown = counted_of(rows, len(self.spec.job.frame), "row")
        message = f"{unknown} would be asked about, {place}. {OFFLINE}"
        raise ModelOffline(message, rows=rows)

    async def _confirm(self, units: Units, stage: MapStage | None) -> None:
        """Ask whether what is still to be done may be paid for, if somebody wants to be asked.

        Raises:
            NotConfirmed: it may not.
        """
        spec, services = self.spec, self.services
        budget = spec.settings.budget
        if budget is None or self._is_confirmed or not self._may_ask:
            return
        confirm = budget.confirm
        if confirm is None:
            return
        self.state.stage = "its confirmation"
        estimate = await forecast(spec, services, units, stage=stage)
        outgoing = await preview_outgoing(spec, services, units, stage)
        shown = replace(estimate, outgoing=outgoing)
        answer = await call_user_function(confirm, shown)
        is_confirmed = isinstance(answer, bool | np.bool_) and bool(answer)
        if not is_confirmed:
            raise NotConfirmed(f"The estimate was not confirmed: {estimate}.", estimate)
        self._is_confirmed = True

    @property
    def _may_ask(self) -> bool:
        """Whether a model may be asked anything: not about rows that a person corrects."""
        return self._override is None or (self._reduces and _asks_in_reduce(self.spec))

    def _begin_tree(self, stage: MapStage | None, stack: AsyncExitStack) -> StaticTree | None:
        """Make the tree that takes findings as they land; None if the reduce waits for all."""
        spec, services, state = self.spec, self.services, self.state
        if stage is None or not self._reduces or not spec.reduces_as_findings_land:
            return None
        if not stage.leaves:
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
                warn_of_failed_units(spec, state)
                await self.issue_warnings()
                if state.ended_by is None and self._reduces:
                    state.stage = "its reduce"
                    if stage is not None or spec.lms:  # else nobody waits for a model
                        services.watch.steps.begin_reduce()
                    rows = await run_off_loop(
                        state.finding_rows, spec.job, size=len(spec.job.frame)
                    )
                    return await reduce(spec, services, state, units, rows, tree=tree)
                if state.ended_by is not None and tree is not None:
                    await tree.settle(state.ended_by)
        except BudgetExceeded as error:
            state.end(error)
        return ReduceOutcome(None)

    @property
    def _reduces(self) -> bool:
        """Whether the findings are reduced."""
        is_wanted = self._override is None or self._override.reduces
        return self.spec.job.reduces and is_wanted

    def _make_result(self, outcome: ReduceOutcome) -> Result:
        spec, services, state = self.spec, self.services, self.state
        if isinstance(state.ended_by, ModelUnavailable) and state.findings is not None:
            done = counted_of(state.findings.rows_with(*FOUND), len(state.findings.units), "row")
            state.ended_by.args = (f"{state.ended_by} {done} are done.",)
        raises = self._ends_in_error
        return make_result(spec, services, state, outcome, self._parent, raises=raises)

    def partial_result(self) -> Result:
        """Return the result, or what was found until now."""
        if self._result is None:
            return make_partial_result(self.spec, self.services, self.state, self._parent)
        return self._result

    @property
    def has_spent(self) -> bool:
        """Whether a request was sent or the journal asked, or something is found."""
        if self.state.stage == CORRECTING:
            return False  # the findings are those of an earlier run
        total = self.services.ledger.total
        if total.tries or total.recalled:
            return True
        findings = self.state.findings
        return findings is not None and findings.has_findings

    @property
    def _issues_warnings(self) -> bool:
        """Whether warnings are issued here, and not by the run that this one is part of."""
        return self._parent is None or self._parent.issues_warnings

    def begin_issuing(self) -> None:
        """Issue the warnings that are known by now; before an error is raised nothing waits."""
        if self._issues_warnings:
            self._notices.begin_issuing(self.state.warnings)

    async def issue_warnings(self) -> None:
        """Issue the warnings that are known by now, while nothing is in flight.

        Raises:
            Warning: a filter raises one. An error that ends the run goes before.
        """
        if not self._issues_warnings:
            return
        await self._notices.issue(self.state.warnings)
        if not self._ends_in_error:
            self._notices.raise_if_raised()

    def leave_notices(self) -> None:
        """Let go of what issues warnings, which outlives the run."""
        if self._issues_warnings:
            self._notices.on_raised = None

    def _warn(self, warning: AMRWarning) -> None:
        """Issue a warning at once, while requests are in flight."""
        self.state.warnings.append(warning)
        self.begin_issuing()

    def _halt(self) -> None:
        """Begin no more shards: a warning was raised as an error, which ends the run."""
        self.state.halted = True

    @property
    def _ends_in_error(self) -> bool:
        """Whether what ended the run early is raised."""
        error = self.state.ended_by
        if error is None:
            return False
        return not _can_be_continued(error) or self.spec.settings.errors == "raise"

    def raise_if_ended(self) -> None:
        """Raise what ended the run early, unless its result says so and it can be continued."""
        error = self.state.ended_by
        if error is None or not self._ends_in_error:
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
        if self.spec.settings.errors != "raise" or state.ended_by is not None:
            return
        if not state.halted or not state.failures:
            return
        rows = len(job.frame)
        readable = rows
        if state.findings is not None:
            readable -= state.findings.rows_with(EMPTY)
        if len(state.failures) == readable * len(job.names):
            what = "No unit succeeded"
        else:
            failed = {failure.position for failure in state.failures}
            what = f"{counted_of(len(failed), rows, 'unit')} failed"
        first, *_ = state.sorted_failures(job.names)
        raise MapFailed(f"{what}; the first, row {first.position}: {first.reason} ({first.who})")


def _begin_services(
    execution: Execution, watch: Watch, warn: Callable[[AMRWarning], None]
) -> Services:
    """Make the services of a run; one that is part of another shares what that one has."""
    frame = Converted(execution.spec.job.sent)
    if execution.parent is None:
        begin_recorder(watch.trace, execution.spec.settings.trace)
        return Services(
            make_ask,
            warn,
            frame,
            journal=execution.journal,
            trace=watch.trace,
            ledger=watch.ledger,
            watch=watch,
        )
    return replace(
        execution.parent.services.begin_part(),
        warn=warn,
        frame=frame,
        rows=None,
        wired=None,
        caches=[],
        made_from=(),
    )


def _asks_in_reduce(spec: Spec) -> bool:
    """Tell whether the reduce may ask a model: agents write the answer, or a part of it."""
    if spec.is_written or isinstance(spec.job.reducer, RowPipeline):
        return True
    functions = [function_of(how) for how in spec.aggregations.values()]
    return any(isinstance(function, Agent) for function in functions)


def _can_be_continued(error: RunStopped) -> bool:
    """Tell whether a run that this ended has a result, which a later run goes on from."""
    if isinstance(error, BudgetExceeded | MapFailed):
        return True
    return isinstance(error, ModelUnavailable) and not error.gone


def _complete_plan(spec: Spec, plan: Plan) -> Spec:
    """Fill in what neither the user nor the planner says, and check the plan against the frame.

    The reduce is filled in by the types of the findings, all else by default.

    Raises:
        UsageError: it does not fit.
    """
    writes = spec.abilities("reduce").units_per_request is None
    plan = fill_by_type(plan, spec.job, writes=writes)
    plan = fill_defaults(
        plan,
        spec.job,
        abilities=spec.abilities("map"),
        parallelism=spec.settings.max_parallelism,
    )
    job = replace(spec.job, by=spec.job.by or plan.by)
    check_names(job, plan)
    return note_redaction(replace(spec, job=job, plan=plan))


def _list_words(spec: Spec) -> list[object]:
    """List the names that a transcript shows in code: those of columns, and of findings' fields."""
    words: list[object] = []
    labels = spec.job.frame.columns
    for level in range(labels.nlevels):
        words += labels.get_level_values(level).tolist()
    for kind in finding_types(spec.job, spec.plan).values():
        if kind is None:
            continue
        words += kind.schema["properties"]
        words += kind.all_columns
    return words


def make_read_units(spec: Spec) -> Units:
    """Make units of the rows; equal ones that a model reads are asked about once, empty ones never.

    Functions are given the empty ones nevertheless.
    """
    job = spec.job
    units = _make_distinct_units(spec)
    if spec.plan.on_empty != "skip" or not job.reads_by_model:
        return units
    if spec.plan.axis != "columns":
        empty = find_empty_rows(job.sent, job.columns, units.asked)
        return replace(units, empty=empty)
    assert job.call is not None  # whose frame holds what the job's profiles
    frame = job.call.frame
    columns = find_content_columns(frame, spec.plan.columns)
    empty_columns = find_empty_columns(frame, columns)
    return replace(units, empty=np.intersect1d(units.asked, empty_columns))


def _make_distinct_units(spec: Spec) -> Units:
    """Make units of the rows; equal ones are asked about once if requests hold their content."""
    job = spec.job
    if job.maps:
        phase: Phase = "map"
        is_read = not job.all_callable and spec.plan.view != "preview"
    else:
        phase = "reduce"
        is_read = spec.is_written
    dedupe = False
    counter = None
    if spec.lms and is_read:
        dedupe = may_dedupe(spec)
        counter = spec.counter(phase)
    units = make_units(job.frame, job.columns, dedupe=dedupe, counter=counter, sent=job.sent)
    if spec.has_repl("map") or job.all_callable:  # code sees all columns: they all make the key
        columns = range(len(job.frame.columns))
        return replace(units, known_by=tuple(columns))
    return units


def may_dedupe(spec: Spec) -> bool:
    """Tell whether units with equal content are equal to whoever maps them."""
    job = spec.job
    if not spec.plan.dedupe or not job.maps or job.callables:
        return False
    reads_all = len(job.columns) == len(job.frame.columns)
    if spec.has_repl("map") and not reads_all:
        return False  # code sees the other columns, too
    instructions = [agent.instruction for agent in job.map_agents.values()]
    return all(isinstance(instruction, str) for instruction in instructions)


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
