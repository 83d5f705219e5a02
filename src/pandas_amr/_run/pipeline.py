"""The whole story: plan, units, shards, map, findings, columns, reduce, result."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pandas_amr._agent.threads import called
from pandas_amr._context.progress import Watch
from pandas_amr._context.wiring import wire
from pandas_amr._context.work import Inside, Work
from pandas_amr._findings.columns import with_findings
from pandas_amr._findings.inputs import found_of
from pandas_amr._journal.keys import Question
from pandas_amr._map.stage import MapStage
from pandas_amr._plan.call import check_names
from pandas_amr._plan.defaults import fill_defaults
from pandas_amr._plan.planner import derive, fill_by_type, given_plan
from pandas_amr._records.concurrency import await_contained
from pandas_amr._records.engine import aside
from pandas_amr._records.raised import described
from pandas_amr._records.usage import Ledger
from pandas_amr._reduce.choose import number_type
from pandas_amr._reduce.sources import covered, sources_frame
from pandas_amr._reduce.stage import (
    REDUCE_POSITION,
    Outcome,
    direct,
    list_or_raise,
    make_tree,
    reduce,
)
from pandas_amr._result.result import (
    Origin,
    Result,
    failures_frame,
    late,
    status_frame,
    trace_frame,
    usage_frame,
)
from pandas_amr._result.stopped import stop_with
from pandas_amr._run.estimate import forecast, sample_of
from pandas_amr._run.preview import Draft, Wish, rehearse
from pandas_amr._units.units import Units, make_units
from pandas_amr.errors import (
    BudgetExceeded,
    FailureWarning,
    JournalError,
    MapFailed,
    ModelError,
    ModelUnavailable,
    NotConfirmed,
    UsageError,
)
from pandas_amr.models.waits import LOGGER, noting_waits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pandas_amr._context.settings import Settings
    from pandas_amr._findings.held import Kept
    from pandas_amr._journal.journal import Journal
    from pandas_amr._plan.call import Job
    from pandas_amr._plan.plan import Plan
    from pandas_amr._records.usage import Phase
    from pandas_amr._reduce.agent import StaticTree
    from pandas_amr._result.result import Again, SecondLook
    from pandas_amr.errors import PlanWarning, RunStopped
    from pandas_amr.models.base import LM


PLANNING = "its plan"


@dataclass(frozen=True)
class Look:
    """A second look at a random share of the units that are asked."""

    share: float
    seed: int


async def run(
    job: Job,
    settings: Settings,
    lms: Mapping[Phase, LM],
    *,
    kept: Kept | None = None,
    again: Again | None = None,
    journal: Journal | None = None,
    watch: Watch | None = None,
    interrupted: Callable[[Result], None] | None = None,
    wish: Wish | None = None,
    inside: Inside | None = None,
    second_look: SecondLook | None = None,
    look: Look | None = None,
) -> Result | Draft:
    """Carry out a checked call; with ``kept``, go on from what an earlier run found.

    ``again`` is what ``retry`` calls; ``watch`` is shown what comes of it; ``interrupted`` is given what was found
    where the run is cancelled; ``wish`` is what a plan is asked beside its estimate; ``inside`` is what the run shares
    with another one that it stands inside of; ``second_look`` is what ``verify`` calls, and ``look`` makes a run one.

    Raises:
        RunStopped: the run ended before its end; the error's ``partial`` is the ``Result`` until then. A service that
            serves nothing more, a budget that is used up or a failure where ``errors="raise"`` have types of their own.
        UsageError: the arguments do not fit, as is seen before anything was sent.
    """
    work = Work.of(
        job,
        settings,
        lms,
        inside,
        again=again,
        second_look=second_look,
        look=f"second {look.seed}" if look is not None else "",
        journal=journal,
        watch=watch or Watch(),
        kept=kept,
    )
    try:
        with noting_waits(work.watch.waits):
            outcome = await await_contained(_carried_out(work, wish or Wish(), look))
    except asyncio.CancelledError:
        if interrupted is not None:
            interrupted(_partial(work))
        raise
    except Exception as error:
        _log_end(work, error)
        found = _partial(work) if work.where or work.kept is not None else None
        if isinstance(error, UsageError) and not work.has_begun:
            raise
        stop_with(error, found, where=work.where or "its beginning", planned=work.where == PLANNING)
    _log_end(work, work.ended_by)
    _raise_if_ended(work)
    return outcome


def _log_end(work: Work, error: Exception | None) -> None:
    """Log that a run does not wait for its service any longer: once, and not by each run inside another one."""
    if isinstance(error, ModelUnavailable) and error.stops_run and work.inside is None:
        LOGGER.warning("The run stopped early: %s", error)


def _raise_if_ended(work: Work) -> None:
    """Raise what ended the run early, where the user is to be told so."""
    error = work.ended_by
    if error is None or (_is_clean(error) and work.settings.errors != "raise"):
        return
    if isinstance(error, BudgetExceeded):
        error.usage = work.ledger.total  # what was in flight has ended by now
    stop_with(error, work.result, where=work.where)


def _is_clean(error: RunStopped) -> bool:
    """Tell whether a run that was ended by this has a result all the same: later, or with more, it goes on from it."""
    return isinstance(error, BudgetExceeded) or (
        isinstance(error, ModelUnavailable) and not error.gone
    )


async def _carried_out(work: Work, wish: Wish, look: Look | None) -> Result | Draft:
    job, inside = work.job, work.inside
    async with AsyncExitStack() as stack:
        if work.lms:
            own_lms = [work.lm("map", agent) for agent in job.agents]
            within = inside.wired if inside is not None else None
            wiring = wire(
                [*work.lms.values(), *own_lms], work.ledger, work.settings.budget, within=within
            )
            work.wired = await stack.enter_async_context(wiring)
        if work.journal is not None and inside is None:
            work.run_number = await work.journal.begin(job.verb, job.task, len(job.frame))
            stack.push_async_exit(
                Noted(work.journal, work.run_number, work.ledger, lambda: work.stopped)
            )
        work.where = PLANNING
        work.plan = await _plan(work)
        work.where = "its units"
        units = await work.aside(_units, work)
        if job.verb == "plan":
            work.where = "its estimate"
            draft = await rehearse(work, units, wish)
            return replace(draft, result=_partial(work))
        outcome = await _direct(work, units) if work.kept is None else None
        if outcome is None:
            outcome = await _mapped_and_reduced(work, units, stack, look)
        work.where = "its result"
        result: Result = await aside(_noted, work, outcome, size=len(job.frame))
        return result


async def _mapped_and_reduced(
    work: Work, units: Units, stack: AsyncExitStack, look: Look | None
) -> Outcome:
    work.where = "its map"
    if work.job.maps:
        share = None if look is None else max(1, round(look.share * len(units.asked)))
        sample = None
        if look is not None and share is not None:
            sample = await work.aside(partial(sample_of, seed=look.seed), work, units, share)
        work.stage = await work.aside(partial(MapStage, sample=sample), work, units, work.kept)
        work.kept = work.stage.kept
        await work.stage.recall()
    await _confirmed(work, units)
    work.where = "its map" if work.job.maps else "its reduce"
    tree = _tree(work)
    if tree is not None:
        stack.push_async_exit(tree.leave)
    return await _in_time(work, units, tree)


async def _confirmed(work: Work, units: Units) -> None:
    """Ask whether the estimate of what is still to be done may be spent, where somebody wants to be asked.

    Raises:
        NotConfirmed: it may not.
    """
    ask = work.settings.budget.confirm if work.settings.budget else None
    if ask is None or work.confirmed:
        return
    work.where = "its confirmation"
    open_ = work.stage.open if work.stage is not None else None
    estimate = await work.aside(partial(forecast, open_=open_), work, units)
    said = await called(ask, estimate)
    if not isinstance(said, bool | np.bool_) or not said:
        raise NotConfirmed(f"The estimate was not confirmed: {estimate}.", estimate)
    work.confirmed = True


async def _direct(work: Work, units: Units) -> Outcome | None:
    """One agent's answer, where the plan allows it and everything fits its budget."""
    if not work.plan.direct:
        return None
    await _confirmed(work, units)
    work.where = "its direct answer"
    try:
        async with work.in_time():
            return await direct(work, units)
    except BudgetExceeded as error:
        work.end(error)
    except ModelError as error:
        if not error.stops_run and work.settings.errors != "raise":
            list_or_raise(work, f"direct: {error}", error)
            return None  # the normal way is there still
        work.end(error)
    return Outcome(None)


async def _in_time(work: Work, units: Units, tree: StaticTree | None) -> Outcome:
    """Map and reduce, until the budget's seconds are used up."""
    try:
        async with work.in_time():
            if work.stage is not None:
                await work.stage.run(tree)
            _raise_if_failed(work)
            if work.ended_by is None and work.job.reduces:
                work.where = "its reduce"
                found = await aside(found_of, work, size=len(work.job.frame))
                return await reduce(work, units, found, tree)
            if work.ended_by is not None and tree is not None:
                await tree.settle(work.ended_by)
    except BudgetExceeded as error:
        work.end(error)
    return Outcome(None)


class Noted:
    """Notes in the journal how a run ended, whatever way it did."""

    def __init__(
        self, journal: Journal, number: int, ledger: Ledger, stopped: Callable[[], str | None]
    ) -> None:
        self._journal = journal
        self._number = number
        self._ledger = ledger
        self._stopped = stopped

    async def __aenter__(self) -> None:
        """Nothing: the run is noted already."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        total = self._ledger.total
        status = (
            "cancelled"
            if isinstance(error, asyncio.CancelledError)
            else "failed"
            if error
            else "done"
        )
        with contextlib.suppress(JournalError):  # the run's own outcome is what counts
            await self._journal.end(
                self._number,
                status if self._stopped() is None else "stopped",
                calls=total.calls,
                tokens=total.tokens,
                money=total.money,
                recalled=total.recalled,
            )


def _noted(work: Work, outcome: Outcome) -> Result:
    """The result, with all that is to be said of the run."""
    work.account()
    if work.inside is not None:
        work.inside.ends.extend(_ends(work))
    if work.journal is not None and work.inside is None:
        work.warnings += work.journal.told()
    _warn(work)
    work.result = _result(work, outcome)
    return work.result


def _partial(work: Work) -> Result:
    """What was found until now."""
    if work.result is not None:
        return work.result
    work.account()
    try:
        return _result(work, Outcome(None))
    except Exception as error:  # noqa: BLE001 (what it cost is told, even where what was found cannot be shown)
        work.warnings.append(FailureWarning(f"What was found cannot be shown: {described(error)}."))
        work.kept = work.stage = None
        return _result(work, Outcome(None))


def _ends(work: Work) -> list[str]:
    """The nodes that the answer comes from: the last ones of the reduce, or the maps, or what fed a computed one."""
    own_nodes = work.trace.at(work.prefix)
    last = [node.id for node in own_nodes if node.type in {"final-reduce", "direct"}]
    maps = [node.id for node in own_nodes if node.type == "map"]
    return last or maps or list(work.before(None))


async def _plan(work: Work) -> Plan:
    """Complete what the user left open: by the planner what a task asks for, by default how it is carried out."""
    job = work.job
    if job.open:
        before = work.ledger.total
        with work.trace.node("plan", id=f"{work.prefix}plan", level=-1) as node:
            plan, warning = await _asked_for(work)
            node.usage = work.ledger.total - before
        if warning is not None:
            work.warnings.append(warning)
    else:
        plan = given_plan(job)
    plan = fill_by_type(plan, job, writes=work.abilities("reduce").units_per_request is None)
    plan = fill_defaults(
        plan, job, abilities=work.abilities("map"), parallelism=work.settings.max_parallelism
    )
    work.job = job = replace(job, by=job.by or plan.by)
    check_names(job, plan)
    return plan


async def _asked_for(work: Work) -> tuple[Plan, PlanWarning | None]:
    """The planner's plan.

    Raises:
        BudgetExceeded: the budget's seconds were over before it came; without a plan nothing can go on.
        PlanError: there is none that can be used.
    """
    store = work.answers("plan", "plan", Question())
    async with work.in_time():
        return await derive(
            work.job, model=work.model("plan"), readers=work.abilities("map"), store=store
        )


def _units(work: Work) -> Units:
    """Rows as units: where a model reads them, equal ones are asked once and all are counted in its tokens."""
    job = work.job
    read = (job.maps and not job.all_callable and work.plan.view != "preview") or (
        not job.maps and work.written
    )
    if not work.lms or not read:
        return _known_by(work, make_units(job.frame, job.columns, dedupe=False))
    # Code sees all columns: what is equal in the content columns only is not the same to it.
    same = not work.has_repl("map") or len(job.columns) == len(job.frame.columns)
    same &= all(isinstance(agent.instruction, str) for agent in job.map_agents.values())
    dedupe = bool(work.plan.dedupe) and same and job.maps and not job.callables
    counter = work.counter("map" if job.maps else "reduce")
    return _known_by(work, make_units(job.frame, job.columns, dedupe=dedupe, counter=counter))


def _known_by(work: Work, units: Units) -> Units:
    """Code and functions see all columns: by all of them are units known again."""
    if not work.has_repl("map") and not work.job.all_callable:
        return units
    return replace(units, known_by=tuple(range(len(work.job.frame.columns))))


def _tree(work: Work) -> StaticTree | None:
    """The reduce tree, ready to take findings as they land; none where groups or code reduce, or nothing is mapped."""
    stage = work.stage
    if (
        stage is None
        or not stage.leaves
        or not work.written
        or work.job.by is not None
        or work.plan.fan_in is None
    ):
        return None
    if number_type(work.plan.output) is not None:
        return None  # a number is computed
    if work.job.reduce_agent is not None and not isinstance(work.job.reduce_agent.instruction, str):
        return None  # what it says depends on all findings
    return make_tree(work, stage.leaves, lambda: found_of(work))


def _raise_if_failed(work: Work) -> None:
    """Raise where units failed and the user asked for it.

    Raises:
        MapFailed: units failed.
    """
    if work.ended_by is not None or work.stage is None or not (work.halted and work.failures):
        return
    rows = len(work.job.frame)
    failed = len({failure.position for failure in work.failures})
    nothing = len(work.failures) == rows * len(work.job.names)
    first = work.in_order[0]
    what = "No unit succeeded" if nothing else f"{failed} of {rows} units failed"
    raise MapFailed(f"{what}; the first, row {first.position}: {first.reason} ({first.who})")


def _warn(work: Work) -> None:
    """A frame says nothing of failures, unlike a Result."""
    for failure in work.in_order:
        if failure.position == REDUCE_POSITION:
            said = f"The reduce failed and is listed in failures: {failure.reason.removeprefix('reduce: ')}"
            work.warnings.append(FailureWarning(said))
    rows = len(work.job.frame)
    failed = len({failure.position for failure in work.failures if failure.position >= 0})
    if work.job.verb in {"map", "filter"} and failed:
        what = "<NA>" if work.job.verb == "map" else "kept"
        said = f"{failed} of {rows} units failed; they are {what}, and listed in amr.result_of(frame).failures."
        work.warnings.append(FailureWarning(said))
    told = work.job.verb != "map_reduce" or isinstance(work.ended_by, ModelUnavailable)
    if work.stopped and told:
        work.warnings.append(FailureWarning(f"The run stopped early: {work.stopped}"))


def _result(work: Work, outcome: Outcome) -> Result:
    frame, failures, kept = work.job.frame, work.in_order, work.kept
    found = found_of(work)
    status = None if kept is None else late(status_frame, kept.of_rows(), failures, frame.index)
    if kept is not None:
        frame = found.table if kept.listed is None else with_findings(frame, kept.findings())
    if status is not None and work.plan.status_columns:
        status = status()
        frame = with_findings(frame, status.set_axis(list(work.plan.status_columns), axis=1))
    nodes = work.trace.nodes if work.inside is None else work.trace.at(work.prefix)
    return Result(
        output=outcome.output,
        frame=frame,
        findings=found.findings,
        plan=work.plan,
        usage=late(usage_frame, Ledger(dict(work.ledger.lines))),
        failures=late(failures_frame, failures, frame.index),
        trace=late(trace_frame, [replace(node) for node in nodes]),
        total=work.ledger.total,
        seconds=work.trace.seconds,
        status=status,
        stopped=work.stopped,
        sandbox=work.tier or None,
        made_by=work.stage.made_by if work.stage is not None else None,
        sources=sources_frame(outcome.cited, frame.index) if outcome.cited else None,
        coverage=covered(outcome.cited, len(frame)),
        warnings=tuple(work.warnings),
        origin=_origin(work),
    )


def _origin(work: Work) -> Origin | None:
    """Where what failed can be run again from; None where nothing is mapped, or only a sample of it was."""
    if work.kept is None or work.job.verb == "plan":
        return None
    return Origin(
        work.as_planned(), work.settings, work.lms, work.kept, work.again, work.second_look
    )
