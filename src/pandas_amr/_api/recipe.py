"""A pipeline without its frame: verbs in a row, to be run on any frame or in other pipelines."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from pandas_amr._agent.agent import Agent
from pandas_amr._agent.threads import call_user_function
from pandas_amr._api.recipe_columns import columns_after
from pandas_amr._api.recipe_graph import draw_recipe
from pandas_amr._api.recipe_result import (
    Reached,
    end_reason,
    is_rows,
    join_partial,
    join_results,
    rows_so_far,
)
from pandas_amr._context.progress import Watch
from pandas_amr._context.python_sessions import Converted
from pandas_amr._context.recording import begin_recorder, open_transcript_file
from pandas_amr._context.services import Services
from pandas_amr._context.settings import current_settings, pack_arguments, unpack_arguments
from pandas_amr._context.spec import Spec
from pandas_amr._context.subrun import SharedRun, parent_run
from pandas_amr._context.tool_use import check_tools
from pandas_amr._context.wiring import check_budget, resolve_lms, wire
from pandas_amr._findings.citations import find_nodes
from pandas_amr._journal.journal import open_journal
from pandas_amr._journal.leases import open_leases
from pandas_amr._journal.origins import RowsAt, own_rows
from pandas_amr._map.ask import make_ask
from pandas_amr._plan.aggregations import function_of
from pandas_amr._plan.arguments import check, list_open_fields
from pandas_amr._plan.call import Call, Pipeline, may_ask_model
from pandas_amr._plan.call_text import check_call_planning
from pandas_amr._plan.checks import check_model
from pandas_amr._plan.defaults import PARALLELISM
from pandas_amr._plan.plan import read_plan
from pandas_amr._plan.redact import check_redacted
from pandas_amr._records.concurrency import await_user_code
from pandas_amr._records.counts import counted
from pandas_amr._records.keywords import check_keywords
from pandas_amr._records.pickles import CopiedHere
from pandas_amr._records.public import public
from pandas_amr._records.refused import show_refused
from pandas_amr._result.frames import trace_frame
from pandas_amr._result.recent import filtered_positions
from pandas_amr._result.result import Result
from pandas_amr._result.stopped import stop_with
from pandas_amr._run.execution import Execution
from pandas_amr._run.listening import Listeners
from pandas_amr._run.pipeline import Pipeline as FramePipeline
from pandas_amr._run.pipeline import RunRecord, run_pipeline
from pandas_amr._run.run import Run, answer_of, prepare_call
from pandas_amr._units.frames import as_frame, is_other_frame
from pandas_amr.errors import BudgetExceeded, InvalidOutput, NotConfirmed, RunStopped, UsageError
from pandas_amr.tools import as_tools

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from pandas_amr._context.services import Parents
    from pandas_amr._context.settings import Settings
    from pandas_amr._journal.journal import Journal
    from pandas_amr._journal.origins import RowOrigins
    from pandas_amr._plan.call import Job
    from pandas_amr._records.graph import Graph
    from pandas_amr._records.usage import Phase
    from pandas_amr._units.frames import Frame
    from pandas_amr.errors import AMRWarning
    from pandas_amr.models.base import LM

StageVerb = Literal["map_reduce", "map", "filter", "reduce", "then"]
OF_THE_RUN = ("journal", "budget", "progress", "max_parallelism", "trace", "on_event")
FIRST = {"map": "map", "filter": "map", "reduce": "reduce", "map_reduce": "task"}
_NO_ROWS = pd.DataFrame({"text": []})


@dataclass(frozen=True)
class Stage:
    """One step: a verb and what it is given, or ``then`` with a function or another recipe."""

    verb: StageVerb
    given: Mapping[str, Any]

    @property
    def recipes(self) -> list[Recipe]:
        """Those that are this step, or its maps, or its reduce."""
        how = [self.given.get(name) for name in ("what", "map", "reduce")]
        parts = [part for one in how for part in (one.values() if isinstance(one, dict) else [one])]
        return [one for one in parts if isinstance(one, Recipe)]

    @property
    def lm(self) -> Any:
        """The model that it names, or a recipe of it."""
        named = [self.given.get("lm"), *(one.lm for one in self.recipes)]
        return next((one for one in named if one is not None), None)

    @property
    def needs_model(self) -> bool:
        """Whether anything may be asked of a model."""
        if self.verb == "then":
            return may_ask_model(self.given["what"])
        if self.verb == "map_reduce":
            return True
        how = self.given.get("reduce" if self.verb == "reduce" else "map")
        if not isinstance(how, dict):
            return not callable(how) or may_ask_model(how)
        if self.verb == "reduce":
            functions = [function_of(aggregation) for aggregation in how.values()]
            return any(isinstance(function, Agent) for function in functions)
        return any(not callable(one) or may_ask_model(one) for one in how.values())


@public
class Recipe(CopiedHere, Pipeline):
    """Verbs in a row, without a frame: ``recipe(df)`` runs them as one run.

    Begin with a plan, which is one ``map_reduce``, or with nothing, and add stages: each gets the
    frame that the one before gave. A recipe is a stage of another (``then``), or its ``map=`` (each
    row, as a frame of its own, goes through it, and its answer is the row's finding) or its
    ``reduce=``.

    Args:
        plan: as in ``map_reduce``; None begins without a stage.
        arguments: what else ``map_reduce`` takes, but the frame and what is the run's: ``journal``,
            ``budget``, ``progress``, ``max_parallelism``, ``trace``, ``on_event``; those are said
            when it runs.

    Raises:
        UsageError: an argument is none of the verb's.

    Example:
        >>> import pandas as pd, pandas_amr as amr
        >>> def lengths(shard):
        ...     return [{"length": len(text)} for text in shard["text"]]
        >>> recipe = amr.Recipe().map(lengths)
        >>> recipe = recipe.filter(lambda shard: shard["length"] > 3).reduce({"length": "sum"})
        >>> recipe
        <Recipe map, filter, reduce>
        >>> int(recipe(pd.DataFrame({"text": ["good", "bad", "good again"]})).output["length"])
        14
    """

    def __init__(self, plan: Any = None, **arguments: Any) -> None:
        self._stages: tuple[Stage, ...] = ()
        if plan is not None or arguments:
            self._stages = (
                _stage("map_reduce", arguments if plan is None else {"plan": plan} | arguments),
            )

    def __getstate__(self) -> dict[str, Any]:
        stages = []
        for stage in self._stages:
            given = pack_arguments(stage.given, f"Recipe.{stage.verb}")
            stages.append((stage.verb, given))
        return {"stages": stages}

    def __setstate__(self, state: dict[str, Any]) -> None:
        stages = [Stage(verb, unpack_arguments(given)) for verb, given in state["stages"]]
        self._stages = tuple(stages)

    def _with(self, stage: Stage) -> Recipe:
        recipe = Recipe()
        recipe._stages = (*self._stages, stage)
        return recipe

    def map(self, instruction: Any = None, **arguments: Any) -> Recipe:
        """This recipe and then ``df.amr.map(...)``; takes what that takes."""
        return self._with(_stage("map", arguments | _first("map", instruction)))

    def filter(self, criterion: Any, **arguments: Any) -> Recipe:
        """This recipe and then ``df.amr.filter(...)``; takes what that takes."""
        return self._with(_stage("filter", arguments | _first("filter", criterion)))

    def reduce(self, instruction: Any, **arguments: Any) -> Recipe:
        """This recipe and then ``df.amr.reduce(...)``; takes what that takes."""
        return self._with(_stage("reduce", arguments | _first("reduce", instruction)))

    def map_reduce(self, task: str | None = None, **arguments: Any) -> Recipe:
        """This recipe and then ``df.amr.map_reduce(...)``; takes what that takes."""
        return self._with(_stage("map_reduce", arguments | _first("map_reduce", task)))

    def then(self, what: Recipe | Callable[[pd.DataFrame], Any]) -> Recipe:
        """Return this recipe with another one, or a function of the frame, after it.

        Raises:
            UsageError: it is neither.
        """
        if not isinstance(what, Recipe) and not callable(what):
            raise UsageError(
                f"then takes a recipe or a function of a frame, not {show_refused(what)}."
            )
        return self._with(Stage("then", {"what": what}))

    def __call__(self, frame: Frame, /, **settings: Any) -> Result:
        """Run it on a frame.

        Args:
            frame: the rows, in whatever ``amr.as_frame`` takes; never changed.
            settings: ``lm``, ``errors``, ``journal``, ``budget``, ``progress``,
                ``max_parallelism``, ``trace``, ``on_event``, as in ``map_reduce``; ``lm`` and
                ``errors`` hold for stages that do not say otherwise.

        Returns:
            A ``Result``: ``output`` and ``frame`` of the last stage; ``usage``, ``trace``,
            ``graph()`` and ``failures`` (with the column ``stage``) of all; ``stages`` has each
            stage's own.

        Raises:
            UsageError: an argument cannot be used, or a stage gives no frame for the next.
            RunStopped: as the verbs do. What the stages found until then is in its ``partial``, a
                ``Result`` with their own in ``stages``.
        """
        return self._run(frame, settings).result()

    def graph(self) -> Graph:
        """Return a graph of its stages: one node for each step, before anything is known of rows.

        How many nodes a step has shows when it runs: ``recipe.start(df).graph()``, and
        ``recipe(df).graph()``.
        """
        return draw_recipe(self._stages)

    def start(self, frame: Frame, /, **settings: Any) -> Run[Result]:
        """Begin, and give the ``Run``; takes what a call takes.

        Raises:
            UsageError: an argument cannot be used; nothing was sent.
        """
        return self._run(frame, settings).begun()

    def _run(self, data: Frame, settings: dict[str, Any]) -> Run[Result]:
        if not self._stages:
            raise UsageError(
                'This recipe has no stage: amr.Recipe().map("...").reduce({...}), '
                "or amr.Recipe(plan)."
            )
        check_keywords("A recipe's run", settings, ("lm", "errors", *OF_THE_RUN))
        frame = as_frame(data)
        changed = {name: value for name, value in settings.items() if value is not None}
        lm = changed.pop("lm", self.lm)
        _check_settings(changed)
        known = current_settings().with_changes(changed)
        lms = resolve_lms(lm, known) if self.needs_model else {}
        if lms:
            check_budget(known.budget, lms.values())
        first = self._stages[0]
        if first.verb != "then":  # what is wrong with it is told before anything runs
            call = Call(verb=first.verb, frame=frame, **{"lm": lm, **first.given})
            job, _ = prepare_call(call, known)
            self._check_columns(job)
        self.check_planning(lms, known)  # of the later stages, too
        return self._make_run(frame, known, lms)

    def _check_columns(self, job: Job) -> None:
        """Refuse stages that do not fit the columns before them, as far as these are known.

        Args:
            job: what the first stage does, checked.

        Raises:
            UsageError: there is one; nothing was sent.
        """
        is_filtered = False
        for before, stage in itertools.pairwise(self._stages):
            if before.verb not in {"map", "filter"} or stage.verb == "then":
                return
            is_filtered = is_filtered or before.verb == "filter"
            by = stage.given.get("by")
            if is_filtered and by is not None and not isinstance(by, str):  # it depends on the rows
                return
            frame = columns_after(job) if before.verb == "map" else job.frame
            if frame is None:
                return
            job = check(Call(verb=stage.verb, frame=frame, **stage.given))

    def _make_run(
        self, frame: pd.DataFrame, settings: Settings, lms: Mapping[Phase, LM]
    ) -> Run[Result]:
        """Make the run of a checked recipe; it is not begun yet."""
        is_journaled = bool(lms) and all(lm.journaled for lm in lms.values())
        journal = open_journal(settings.journal, by_default=is_journaled)
        work = partial(self._from_the_top, frame, _Top(settings, lms, journal))
        about = f"recipe of {counted(len(self._stages), 'stage')}, {counted(len(frame), 'row')}"
        is_kept = journal is not None and bool(lms)
        return Run(
            work,
            _itself,
            about,
            rows=len(frame),
            journaled=is_kept,
            shown=settings.progress,
            listeners=Listeners.of(settings, "recipe", None, len(frame)),
        )

    @property
    def lm(self) -> Any:
        """The model that its first stage that names one names."""
        return next((stage.lm for stage in self._stages if stage.lm is not None), None)

    @property
    def needs_model(self) -> bool:
        """Whether anything may be asked of a model."""
        return any(stage.needs_model for stage in self._stages)

    def check_planning(self, lms: Mapping[Phase, LM], settings: Settings) -> None:
        """Refuse a stage that leaves something open to a model that cannot plan.

        Raises:
            PlanError: there is one; nothing was sent.
        """
        for stage in self._stages:
            here = lms if stage.lm is None else resolve_lms(stage.lm, settings)
            if stage.verb != "then":
                if stage.needs_model:
                    check_redacted(read_plan(stage.given.get("plan", "auto")), settings.redact)
                call = Call(verb=stage.verb, frame=None, **stage.given)
                if open_ := list_open_fields(call):
                    check_call_planning(call, open_, here["plan"])
            for recipe in stage.recipes:
                recipe.check_planning(here, settings)

    async def _from_the_top(
        self,
        frame: pd.DataFrame,
        top: _Top,
        *,
        watch: Watch,
        interrupted: Callable[[Result], None],
    ) -> Result:
        parent = self._make_parent(frame, top, watch)
        services = parent.services
        done: list[Result] = []
        try:
            reached = await await_user_code(self._carried_out(frame, parent, done))
        except asyncio.CancelledError:
            interrupted(join_partial(frame, done, services))
            raise
        except Exception as error:
            if isinstance(error, UsageError) and not _has_begun(done, parent):
                raise
            stop_with(error, join_partial(frame, done, services), where="a recipe")
        return join_results(reached, done, services, trace_frame(services.trace.nodes))

    def _make_parent(self, frame: pd.DataFrame, top: _Top, watch: Watch) -> SharedRun:
        """Make what the stages share: models, throttle, journal, usage, trace."""
        warnings: list[AMRWarning] = []
        begin_recorder(watch.trace, top.settings.trace)
        parallelism = watch.most_requests = self._parallelism(top.settings)
        services = Services(
            make_ask,
            warnings.append,
            Converted(frame),
            semaphore=asyncio.Semaphore(parallelism),
            journal=top.journal,
            trace=watch.trace,
            ledger=watch.ledger,
            watch=watch,
        )
        return SharedRun(services, top.settings, top.lms, warnings=warnings, issues_warnings=True)

    async def _carried_out(
        self, frame: pd.DataFrame, parent: SharedRun, done: list[Result]
    ) -> Reached:
        """What the last stage gives, of a run of its own."""
        services, lms = parent.services, parent.lms
        journal = services.journal
        async with AsyncExitStack() as stack:
            if lms:
                settings = parent.settings
                wiring = wire(
                    lms.values(),
                    services.ledger,
                    settings.budget,
                    open_leases(settings.lease),
                    offline=settings.is_offline,
                )
                services.wired = services.watch.wired = await stack.enter_async_context(wiring)
            if journal is not None:
                readings = [own_rows(frame).reading]
                services.run_number = await journal.begin("recipe", None, len(frame), readings)
                record = RunRecord(
                    journal, services.run_number, services.ledger, lambda: end_reason(done)
                )
                stack.push_async_exit(record)
                await open_transcript_file(services, stack)
            return await self.within(frame, parent, done)

    def _parallelism(self, settings: Settings) -> int:
        """Return how many requests of all stages may be in flight, batches not counted."""
        plans = [
            read_plan(stage.given.get("plan", "auto"))
            for stage in self._stages
            if stage.verb != "then"
        ]
        return settings.max_parallelism or max(
            [PARALLELISM, *(plan.parallelism or 0 for plan in plans)]
        )

    async def within(
        self, frame: pd.DataFrame, parent: SharedRun, done: list[Result], *, complete: bool = False
    ) -> Reached:
        """Run the stages as a part of another run; ``done`` takes their results as they come.

        With ``complete`` nothing more is asked once a unit failed, since no answer will be taken.

        Raises:
            UsageError: a stage gives no frame for the next.
        """
        reached = Reached(frame)
        for number, stage in enumerate(self._stages, start=1):
            value = self._check_frame(reached.value, number)
            prefix = f"{number}-{stage.verb}/" if len(self._stages) > 1 else ""
            here = parent.at(prefix, ends=[])
            steps = parent.services.watch.steps
            with steps.part(number, len(self._stages), stage.verb):
                reached, before_next, rows = await _run_stage(stage, value, here, done)
            if end_reason(done) is not None or (complete and _missing(done, parent) is not None):
                break
            parent = parent.at("", parents=before_next, rows=rows)
        parent.ends.extend(here.ends)
        return reached

    def _check_frame(self, value: Any, number: int) -> pd.DataFrame:
        """Return what a stage gave for the next one, if that can take it.

        Raises:
            UsageError: it is no frame.
        """
        if isinstance(value, pd.DataFrame):
            return value
        if is_other_frame(value):
            return as_frame(value)
        before, stage = self._stages[number - 2], self._stages[number - 1]
        raise UsageError(
            f"Stage {number}, {stage.verb}, takes a frame; "
            f"{before.verb} gave {type(value).__name__}."
        )

    async def map_row(self, frame: pd.DataFrame, position: int) -> Any:
        """Run the stages on one row, as a part of the run whose map this recipe is."""
        parent = parent_run()
        assert parent is not None
        ends: list[str] = []
        outer, rows = parent.services.outer_rows, None
        if outer is not None:
            rows = RowsAt(outer, np.array([position], dtype=np.int64))
        here = replace(parent.at(f"row-{position}/", ends=ends, rows=rows), confirmed=True)
        done: list[Result] = []
        reached = await self.within(frame, here, done, complete=True)
        parent.ends.extend(ends)
        missing = _missing(done, parent)
        if not isinstance(missing, InvalidOutput):  # that is listed as the row's failure
            known = {str(warning) for warning in parent.warnings}
            for part in done:
                new = [warning for warning in part.warnings if str(warning) not in known]
                parent.warnings.extend(new)
        if missing is not None:
            raise missing
        return None if is_rows(reached.value, done) else reached.value

    async def reduce_findings(self, findings: pd.DataFrame) -> Any:
        """Run the stages on findings, as a part of the run whose reduce this recipe is."""
        parent = parent_run()
        assert parent is not None
        done: list[Result] = []
        here = replace(parent, confirmed=True)
        reached = await self.within(findings, here, done, complete=True)
        missing = _missing(done, parent)
        if missing is not None:
            raise missing
        return None if is_rows(reached.value, done) else reached.value

    def __repr__(self) -> str:
        verbs = ", ".join(stage.verb for stage in self._stages)
        return f"<Recipe {verbs or 'without a stage'}>"


@dataclass(frozen=True)
class _Top:
    """What holds for a whole recipe's run."""

    settings: Settings
    lms: Mapping[Phase, LM]
    journal: Journal | None


def _stage(verb: StageVerb, given: dict[str, Any]) -> Stage:
    of_the_run = [name for name in given if name in OF_THE_RUN]
    if of_the_run:
        raise UsageError(
            f"{of_the_run[0]}= is the whole run's: recipe(frame, {of_the_run[0]}=...)."
        )
    if "out" in given:
        raise UsageError(
            "A recipe has no out=: its stages hand frames on. Read part by part with amr.map, "
            "amr.filter or amr.map_reduce."
        )
    known = Call.__dataclass_fields__.keys() - {"verb", "frame", "out", *OF_THE_RUN}
    check_keywords(verb, given, sorted(known))
    read_plan(given.get("plan", "auto"))  # what needs no frame to be seen is told now
    as_tools(given.get("tools"))
    _check_settings({name: given[name] for name in ("errors", "max_steps") if name in given})
    return Stage(verb, given)


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse what the verbs refuse."""
    check(Call(verb="map", frame=_NO_ROWS, map=len, **settings))


def _first(verb: str, value: Any) -> dict[str, Any]:
    return {} if value is None else {FIRST[verb]: value}


def _missing(done: Sequence[Result], parent: SharedRun) -> BudgetExceeded | InvalidOutput | None:
    """Why an answer of a pipeline inside another run rests on a part only, where it does.

    A stage stopped before its end; or units failed in it: what they would have found is in no
    answer, and their failures would be listed nowhere.
    """
    gave_up = next((one for one in done if one.origin is not None and one.origin.gave_up), None)
    if gave_up is not None:
        return InvalidOutput(f"inside its pipeline, {gave_up.stopped}")
    if (stopped := end_reason(done)) is not None:
        return BudgetExceeded(stopped, parent.services.ledger.total)
    failed = next((one for one in done if len(one.failures)), None)
    if failed is None:
        return None
    first, units = failed.failures.iloc[0], failed.failures["position"].dropna().nunique()
    where = (
        f"{units} of its {counted(len(failed.frame), 'unit')} failed; "
        f"the first, row {first['position']}: "
        if units
        else ""
    )
    return InvalidOutput(f"inside its pipeline, {where}{first['reason']} ({first['who']})")


async def _run_stage(
    stage: Stage, frame: pd.DataFrame, parent: SharedRun, done: list[Result]
) -> tuple[Reached, Parents, RowOrigins]:
    """Run a stage; ``done`` gets its result, in part if it does not come to its end.

    Returns:
        What it gives, what names the nodes behind its rows, and what tells the user's rows behind
        them.
    """
    rows = parent.services.outer_rows or own_rows(frame)
    if stage.verb == "then":
        reached, parents = await _call_then(stage, frame, parent, done)
        return reached, parents, rows.whole
    result = await _run_verb(stage, frame, parent, done)
    answer = answer_of(stage.verb, result)
    if stage.verb not in {"map", "filter"}:
        value = result.output if stage.verb == "map_reduce" else answer
        return Reached(value), _all_of(parent.ends), rows.whole
    places = filtered_positions(result) if stage.verb == "filter" else np.arange(len(frame))
    nodes = _nodes_of_rows(result, places, parent.ends)
    return Reached(answer, places), nodes, RowsAt(rows, places)


async def _call_then(
    stage: Stage, frame: pd.DataFrame, parent: SharedRun, done: list[Result]
) -> tuple[Reached, Parents]:
    """Run a stage that is a function or a recipe."""
    function = stage.given["what"]
    if isinstance(function, Recipe):
        return await _run_nested(function, frame, parent, done), _all_of(parent.ends)
    return Reached(await call_user_function(function, frame)), _same_parents(parent)


async def _run_verb(
    stage: Stage, frame: pd.DataFrame, parent: SharedRun, done: list[Result]
) -> Result:
    """Run a stage that is a verb, as a part of another run."""
    assert stage.verb != "then"
    call = Call(verb=stage.verb, frame=frame, **stage.given)
    job, lms = prepare_call(call, parent.settings, parent)
    spec = Spec(job, parent.settings.with_changes(job.settings), lms)
    if lms:
        check_model(job, lms["map"])
        check_tools(spec)
    try:
        execution = Execution(spec, parent=parent)
        result = await run_pipeline(FramePipeline(execution, Watch()), done.append)
    except NotConfirmed:  # the stage has not begun
        raise
    except (RunStopped, Warning) as error:
        partial = getattr(error, "partial", None)
        if partial is not None:
            done.append(partial)
        raise
    assert isinstance(result, Result)
    done.append(result)
    return result


def _same_parents(parent: SharedRun) -> Parents:
    """Name the nodes behind all rows for each of them: a function may have made others of them."""
    parents = parent.services.parents(None)

    def nodes(rows: Sequence[int] | None) -> tuple[str, ...]:
        del rows
        return parents

    return nodes


def _nodes_of_rows(result: Result, places: NDArray[np.int64], ends: Sequence[str]) -> Parents:
    """Name the map nodes behind the rows that a stage gives; all its last nodes for all of them."""
    last = tuple(ends)

    def nodes(rows: Sequence[int] | None) -> tuple[str, ...]:
        if rows is None:
            return last
        if result.made_by is None:
            return ()
        return find_nodes(result.made_by, places[list(rows)])

    return nodes


async def _run_nested(
    what: Recipe, frame: pd.DataFrame, parent: SharedRun, done: list[Result]
) -> Reached:
    """Run a recipe as a stage of another; ``done`` gets its result, in part if it does not end."""
    parts: list[Result] = []
    services = parent.services.begin_part()

    def joined(reached: Reached) -> Result:
        traces = [one.trace.astype(object) for one in parts] or [
            trace_frame(())
        ]  # pandas 2 warns of columns of <NA>
        return join_results(
            reached, parts, services, pd.concat(traces, ignore_index=True).infer_objects()
        )

    try:
        reached = await what.within(frame, parent, parts)
    except BaseException:
        if parts:
            done.append(joined(rows_so_far(frame, parts)))
        raise
    done.append(joined(reached))
    return Reached(reached.value, np.arange(len(done[-1].frame)))


def _itself(result: Result) -> Result:
    return result


def _all_of(ends: Sequence[str]) -> Parents:
    """Name the last nodes of a stage for each row of what it gives."""

    def nodes(rows: Sequence[int] | None) -> tuple[str, ...]:
        del rows
        return tuple(ends)

    return nodes


def _has_begun(done: Sequence[Result], parent: SharedRun) -> bool:
    """Whether a request was sent or answered by the journal, or rows were mapped."""
    total = parent.services.ledger.total
    return bool(total.tries or total.recalled) or any(one.status is not None for one in done)
