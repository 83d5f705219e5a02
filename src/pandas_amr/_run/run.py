"""A run: started, awaited, cancelled. The one bridge from sync code to the async engine."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from pandas_amr._context.environment import check_environment
from pandas_amr._context.progress import Progress, Watch
from pandas_amr._context.progress_shown import ShownProgress
from pandas_amr._context.progress_view import Ending
from pandas_amr._context.settings import Settings, current_settings, use_block_settings
from pandas_amr._context.spec import Spec
from pandas_amr._context.tool_use import check_tools
from pandas_amr._context.wiring import check_budget, resolve_lm, resolve_lms
from pandas_amr._journal.journal import open_journal
from pandas_amr._plan.arguments import check
from pandas_amr._plan.call_text import check_planning
from pandas_amr._plan.checks import check_model
from pandas_amr._plan.redact import check_redacted
from pandas_amr._records.callers import find_caller, is_awaited, use_caller
from pandas_amr._records.counts import counted, counted_of
from pandas_amr._records.engine import THREAD, engine_loop, submit
from pandas_amr._records.pickles import refuse_pickling
from pandas_amr._records.public import public
from pandas_amr._records.tracebacks import UserTraceback
from pandas_amr._result.frames import have_findings
from pandas_amr._result.parts import ResultOfParts, StreamedResult
from pandas_amr._result.recent import filtered_rows, remember_parts, remember_result
from pandas_amr._result.result import Result, RunOrigin
from pandas_amr._result.stopped import give_partial, stop_with
from pandas_amr._run.ending import describe_end, reason_of
from pandas_amr._run.execution import Execution, FindingOverride, VerificationSample
from pandas_amr._run.listening import Listeners
from pandas_amr._run.pipeline import Pipeline, run_pipeline
from pandas_amr._run.preview import Draft, PreviewOptions
from pandas_amr._run.redact import redact_where_called
from pandas_amr._run.snapshot import draw_graph_so_far, draw_timeline_so_far
from pandas_amr._run.stream import PartStream, open_stream, read_frame
from pandas_amr._run.streamed import StreamedPipeline
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Mapping
    from types import TracebackType

    from pandas_amr._context.subrun import SharedRun
    from pandas_amr._findings.corrections import Corrections
    from pandas_amr._findings.map_findings import MapFindings
    from pandas_amr._journal.journal import Journal
    from pandas_amr._plan.call import Call, Job
    from pandas_amr._records.estimate import Estimate
    from pandas_amr._records.graph import Graph
    from pandas_amr._records.outgoing import Outgoing
    from pandas_amr._records.timeline import Timeline
    from pandas_amr._records.usage import Phase
    from pandas_amr._run.execution import MakePipeline
    from pandas_amr.models.base import LM

Given = TypeVar("Given")

CANCEL_GRACE_S = 10.0


class Carried(Protocol):
    """Carries a run out."""

    def __call__(
        self, *, watch: Watch, interrupted: Callable[[Result], None]
    ) -> Coroutine[Any, Any, Any]:
        """Begin."""
        ...


@public
class Run(Generic[Given]):
    """One execution: awaitable, iterable, cancellable, and in the end what the verb gives.

    It begins with ``begun()``, or with the wait for it: so an interrupt finds nothing begun, or a
    run to stop.

    In a ``with`` block, or ``async with``, it ends with the block: left by ``break``, ``return`` or
    an error, the block stops the run, and waits until nothing is in flight. Without a block a run
    goes on in the background, and pays, until it ends or ``cancel()`` stops it.

    Args:
        work: carries it out, and tells ``watch`` what comes of it and ``interrupted`` what was
            found when it is cancelled.
        given: makes what the verb gives of what comes of it.
        about: what is run, for people.
        rows: how many rows it is about.
        journaled: whether a journal keeps what is found of them.
        shown: as the setting ``progress``.
        iterable: whether findings are kept as they land, to be iterated.
        listeners: who is told of its events.

    Example:
        >>> import pandas as pd, pandas_amr as amr
        >>> df = pd.DataFrame({"text": ["good", "bad", "good again"]})
        >>> def lengths(shard):
        ...     return [{"length": len(text)} for text in shard["text"]]
        >>> with df.amr.start(map=lengths, reduce={"length": "sum"}) as run:
        ...     for finding in run:
        ...         print(finding["label"], finding["length"])
        ...         break
        0 4
    """

    def __init__(
        self,
        work: Carried,
        given: Callable[[Any], Given],
        about: str,
        *,
        rows: int = 0,
        journaled: bool = False,
        shown: bool | None = None,
        iterable: bool = True,
        listeners: Listeners,
    ) -> None:
        self._listeners = listeners
        self._is_iterable = iterable
        self._work = work
        self._make = given
        self._about = about
        self._rows = rows
        self._journaled = journaled
        self._shown = shown
        self._partial: Result | None = None
        self._watch = Watch()
        self._process = os.getpid()
        self._ended = threading.Event()
        self._unwanted = False
        self._trace: TracebackType | None = None
        self._task: asyncio.Task[Any] | None = None
        self._submitted: concurrent.futures.Future[Any] | None = None

    __reduce_ex__ = refuse_pickling(
        "A run", "Take its result to the other process: result = run.result()."
    )

    def begun(self) -> Self:
        """The run itself, under way.

        Raises:
            KeyboardInterrupt: Ctrl-C came meanwhile, and the run does not go on.
        """
        try:
            _ = self._future
        except BaseException as error:
            self._stop_for(error)
            raise
        return self

    @property
    def _future(self) -> concurrent.futures.Future[Any]:
        """What comes of it; whoever asks begins it."""
        if self._process != os.getpid():
            raise UsageError(
                "This run is another process's, which forked this one: "
                "begin a run of your own here."
            )
        if self._submitted is None:
            self._begin(waits=False)
        assert self._submitted is not None
        return self._submitted

    def _begin(self, *, waits: bool) -> None:
        """Begin it; ``waits`` if this thread waits for its end, and issues its warnings."""
        caller = find_caller()
        self._watch.notices.begin(caller, waits=waits)
        with use_caller(caller):
            self._submitted = submit(self._carry_out_job())

    async def _carry_out_job(self) -> Any:
        self._task = asyncio.current_task()
        try:
            # A task keeps the frames of its error, and those keep this run.
            with UserTraceback():
                async with self._listeners.listen(self._watch) as told:
                    outcome = await self._show_while_working()
                    told.note(_result_of(outcome))
                return outcome
        except Exception as error:
            self._partial = getattr(error, "partial", None)
            self._trace = error.__traceback__
            raise
        finally:
            self._task = None
            self._ended.set()
            self._watch.ended()

    async def _show_while_working(self) -> Any:
        """Give what comes of it, and show how far it is until then."""
        shown = ShownProgress(self._watch, self._about, shown=self._shown)
        shown.begin()
        try:
            outcome = await self._keep_outcome()
        except asyncio.CancelledError:
            await shown.end(Ending("partial", "cancelled"))
            raise
        except BaseException as error:
            is_told = self._watch.notices.waits  # else nobody may ever look
            await shown.end(Ending("failed", "failed", reason_of(error), is_told=is_told))
            raise
        await shown.end(describe_end(_result_of(outcome), self._watch.progress))
        return outcome

    async def _keep_outcome(self) -> Any:
        """What comes of it; kept here too, since an interrupt may come before anybody takes it."""
        if self._unwanted:
            raise asyncio.CancelledError
        outcome = await self._work(watch=self._watch, interrupted=self._note_interrupt)
        self._partial = _result_of(outcome)
        return outcome

    def _note_interrupt(self, partial: Result) -> None:
        self._partial = partial

    def result(self) -> Given:
        """Wait for the end and return what the verb gives; a signal's exception cancels the run.

        Such an exception has what was found as its ``partial``, a ``Result``; the same call goes on
        from there. A ``KeyboardInterrupt`` says how many rows the journal keeps.

        Raises:
            AMRError: the run failed; see the errors' tree.
            UsageError: called on the engine's own thread, which would wait for itself; or awaited:
                ``await run``.
        """
        if threading.current_thread().name == THREAD:
            raise UsageError(
                "This is the engine's own thread: "
                "in async tools and callables, await df.amr.start(...)."
            )
        if is_awaited():
            raise UsageError("result() waits for the end and cannot be awaited: await the run.")
        try:
            if self._submitted is None:
                self._begin(waits=True)
                self._watch.notices.issue_until_done(self._future)
            return self._give(self._future.result())
        except concurrent.futures.CancelledError:
            cancelled = asyncio.CancelledError("The run was cancelled.")
            self._stop_for(cancelled)
            raise cancelled from None
        except BaseException as error:
            self._forget_waits(error)
            self._stop_for(error)
            raise

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        return replace(self._watch.progress, done=self.done())

    def graph(self) -> Graph:
        """Return the graph of the nodes that have begun by now; at the end, that of the result."""
        return draw_graph_so_far(self._watch)

    def timeline(self) -> Timeline:
        """Return what the nodes have done until now; at the end, the timeline of the result."""
        return draw_timeline_so_far(self._watch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Give the findings as they land: ``label`` and ``position`` of the row, then the fields.

        Those from the journal come first. A run that fails raises at the end. ``break`` alone does
        not stop the run, which goes on in the background; out of ``with run:`` it does.
        """
        with UserTraceback():
            try:
                yield from self._list_landed()
            except GeneratorExit:
                raise
            except BaseException as error:  # at whatever moment a signal's handler raises it
                self._stop_for(error)
                raise
            self.result()

    def _check_iterable(self) -> None:
        if not self._is_iterable:
            raise UsageError(
                "This run's findings do not come one by one, since its rows are read part by part: "
                "they are in the parts of the result's frame, run.result().frame."
            )

    def _list_landed(self) -> Iterator[dict[str, Any]]:
        self._check_iterable()
        place = 0
        while True:
            waiting = self._watch.next(place)
            if waiting is not None:
                waiting.result()
                continue
            batch = self._watch.batch(place)
            if batch is None:
                return
            yield from batch
            place += 1

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        """The findings as they land, in async code; see ``__iter__``."""
        self._check_iterable()
        place = 0
        with UserTraceback():
            while True:
                waiting = self._watch.next(place)
                if waiting is not None:
                    await self._wait_for(waiting)
                    continue
                batch = self._watch.batch(place)
                if batch is None:
                    break
                for finding in batch:
                    yield finding
                place += 1
            await self

    def __enter__(self) -> Self:
        """Begin it, if it has not begun."""
        with UserTraceback():
            return self.begun()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it, if it has not ended, and wait until nothing is in flight."""
        if not self.done():
            self._cancel_and_wait()

    async def __aenter__(self) -> Self:
        """Begin it, if it has not begun."""
        with UserTraceback():
            return self.begun()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it, if it has not ended, and wait until nothing is in flight."""
        if not self.done():
            await asyncio.to_thread(self._cancel_and_wait)

    def _cancel_and_wait(self) -> None:
        """Stop the run, and wait until nothing is in flight, but not for ever."""
        self.cancel()
        self._ended.wait(CANCEL_GRACE_S)

    def _stop_for(self, error: BaseException) -> None:
        """Stop the run for an exception from outside it, and give that what was found."""
        if (
            self._submitted is None
            or not self._submitted.done()
            or not isinstance(error, Exception)
        ):
            self.cancel()
            with contextlib.suppress(KeyboardInterrupt):  # the second one asks not to wait
                self._ended.wait(CANCEL_GRACE_S)
            self._describe_stop(error)

    def _forget_waits(self, error: BaseException) -> None:
        """Have the run's error show where it was raised, and not where somebody waited before."""
        run = self._submitted
        if run is not None and run.done() and not run.cancelled() and run.exception() is error:
            error.__traceback__ = self._trace

    def _describe_stop(self, error: BaseException) -> None:
        """Give an exception from outside the run what was found, and say how to go on."""
        give_partial(error, self._partial)
        is_interrupt = isinstance(error, KeyboardInterrupt | asyncio.CancelledError)
        if is_interrupt and not error.args:
            error.args = (self._count_kept(),)

    def _count_kept(self) -> str:
        """Say how many rows have a finding, and where it is kept."""
        if isinstance(self._partial, StreamedResult):
            parts, rows = len(self._partial.parts), self._partial.rows
            written = f"{counted(parts, 'part')} with {counted(rows, 'row')}"
            return f"{written} are written; run it again to go on."
        status = None if self._partial is None else self._partial.status
        found = 0 if status is None else int(have_findings(status).sum())
        count = counted_of(found, self._rows, "row")
        if self._journaled:
            return f"{count} kept in the journal; run it again to go on."
        if not found:
            return f"{count} found, and no journal keeps them; run it again to begin anew."
        return f"{count} found, and no journal keeps them; take them from the exception's .partial."

    async def _wait_for(self, future: concurrent.futures.Future[Any]) -> Any:
        """Wait for a future; if cancelled, stop the run and give the error what was found."""
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError as error:
            self.cancel()
            await asyncio.to_thread(self._ended.wait, CANCEL_GRACE_S)
            self._describe_stop(error)
            raise

    def cancel(self) -> None:
        """Stop the run: what is in flight is dropped, and whoever waits gets ``CancelledError``."""
        if self._submitted is not None:
            self._submitted.cancel()
        else:  # interrupted where it was begun, before anybody knew it by its future
            self._unwanted = True
            engine_loop().call_soon_threadsafe(self._drop)

    def _drop(self) -> None:
        """On the engine: stop the run, or note that it never begins."""
        if self._task is not None:
            self._task.cancel()
        else:
            self._ended.set()
            self._watch.ended()

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._future.done()

    def __await__(self) -> Generator[Any, None, Given]:
        with UserTraceback():
            try:
                outcome = yield from self._wait_for(self._future).__await__()
            except Exception as error:
                self._forget_waits(error)
                raise
            return self._give(outcome)

    def _give(self, outcome: Result | Draft) -> Given:
        """Return what the verb gives."""
        try:
            return self._make(outcome)
        except Exception as error:  # noqa: BLE001 (what is found is paid for)
            stop_with(error, _result_of(outcome), where="its result")

    def __repr__(self) -> str:
        return f"<Run {self._about}, {self._state}>"

    @property
    def _state(self) -> str:
        if self._future.cancelled():
            return "cancelled"
        if self._future.done():
            return "failed" if self._future.exception() else "done"
        return self._watch.waits.text or self._watch.steps.title or "running"


def _result_of(outcome: Result | Draft) -> Result | None:
    return outcome if isinstance(outcome, Result) else outcome.result


def make_run(
    spec: Spec,
    *,
    findings: MapFindings | None = None,
    whole: bool = False,
    preview: PreviewOptions | None = None,
    sample: VerificationSample | None = None,
    stream: PartStream | None = None,
    override: FindingOverride | None = None,
    elsewhere: MakePipeline | None = None,
) -> Run[Any]:
    """Make the run of a checked call; it is not begun yet.

    Args:
        spec: what is asked for.
        findings: what an earlier run found; only the rest is mapped.
        whole: whether it gives the ``Result``, whatever the verb.
        preview: what ``plan()`` wants to know beside the estimate.
        sample: the units that are mapped, if not all are.
        stream: the input, if it is read part by part.
        override: what a person corrected of the findings; then nothing is mapped.
        elsewhere: makes what carries it out, if rows are mapped elsewhere.

    Raises:
        UsageError: the model or the budget does not fit; nothing was sent.
    """
    check_models(spec)
    job, settings = spec.job, spec.settings
    execution = Execution(
        spec,
        journal=_open_journal(spec),
        findings=findings,
        preview=preview,
        sample=sample,
        stream=stream,
        override=override,
        elsewhere=elsewhere,
    )

    rows, about = _describe_rows(job, execution)
    return Run(
        partial(_carry_out, execution),
        partial(_answer, spec, whole=whole),
        about,
        rows=rows,
        journaled=execution.journal is not None and (bool(spec.lms) or job.has_version),
        shown=settings.progress,
        iterable=execution.is_iterable,
        listeners=Listeners.of(settings, job.verb, job.task, rows or None),
    )


async def _carry_out(
    execution: Execution, *, watch: Watch, interrupted: Callable[[Result], None]
) -> Result | Draft:
    with use_block_settings(execution.spec.settings):
        if execution.elsewhere is not None:
            return await run_pipeline(execution.elsewhere(execution, watch), interrupted)
        if execution.stream is not None:
            return await run_pipeline(StreamedPipeline(execution, watch), interrupted)
        return await run_pipeline(Pipeline(execution, watch), interrupted)


def _describe_rows(job: Job, execution: Execution) -> tuple[int, str]:
    """Return how many rows a run is about, 0 if that is not known yet, and its name for people."""
    rows = execution.count_rows()
    if rows is None:
        return 0, job.verb
    if execution.override is not None:
        return len(job.frame), f"override in {counted(rows, 'row')}"
    return rows, f"{job.verb} of {counted(rows, 'row')}"


def _open_journal(spec: Spec) -> Journal | None:
    """Open the journal: by default if models answer that are journaled, or functions by version."""
    lms = spec.lms.values()
    is_journaled = all(lm.journaled for lm in lms) if lms else spec.job.has_version
    return open_journal(spec.settings.journal, by_default=is_journaled)


def check_models(spec: Spec) -> None:
    """Check that the models can do what is asked, and that a budget of money can be kept.

    Raises:
        UsageError: they cannot.
    """
    if not spec.lms:
        return
    check_model(spec.job, spec.lms["map"])
    check_tools(spec)
    own_lms = [resolve_lm(agent.lm) for agent in spec.job.agents if agent.lm is not None]
    check_budget(spec.settings.budget, [*spec.lms.values(), *own_lms])


def _answer(spec: Spec, outcome: Result | Draft, *, whole: bool) -> Any:
    """Return what the verb gives; ``whole`` if that is all that came of the run."""
    if whole:
        return outcome
    if isinstance(outcome, Result):
        return answer_of(spec.job.verb, outcome)
    plan = outcome.plan
    job = replace(spec.job, given=plan, open=(), by=spec.job.by or plan.by)
    planned = PlannedCall(outcome.estimate, outcome.outgoing, replace(spec, job=job))
    return plan.bind_to(planned)


def answer_of(verb: str, result: Result) -> Any:
    """Return what a verb gives of a result: a frame, an answer, or the result itself."""
    if isinstance(result, ResultOfParts) and verb in {"map", "filter"}:
        return remember_parts(result)
    match verb:
        case "map":
            return remember_result(result)
        case "filter":
            return filtered_rows(result)
        case "reduce":
            return result.output
    return result


@dataclass(frozen=True)
class PlannedCall:
    """The call that a plan was made for: what it would take, and send."""

    estimate: Estimate
    outgoing: Outgoing
    spec: Spec

    def sampled(self, units: int) -> Estimate:
        """Estimate what it would take, by a sample that is mapped."""
        return self._preview(PreviewOptions(sample=units)).estimate

    def requests(self, count: int) -> list[dict[str, Any]]:
        """Render the first requests, as they would be sent."""
        return self._preview(PreviewOptions(requests=count)).requests

    def _preview(self, options: PreviewOptions) -> Draft:
        draft: Draft = make_run(self.spec, whole=True, preview=options).result()
        return draft


def run_of(call: Call, changes: Mapping[str, Any] | None = None) -> Run[Any]:
    """Check a call, and give its run, not begun yet.

    Args:
        call: the call.
        changes: the settings that hold for it, as in a block around it.

    Raises:
        UsageError: the call cannot be carried out; nothing was sent.
    """
    settings = current_settings()
    stream = None
    if call.out is None:
        call = replace(call, frame=read_frame(call.frame))
    else:
        call, stream = open_stream(call, settings)
    spec = make_spec(call, settings, changes)
    return make_run(redact_where_called(spec), stream=stream)


def make_spec(call: Call, settings: Settings, changes: Mapping[str, Any] | None = None) -> Spec:
    """Check a call about a frame; nothing is redacted yet.

    Args:
        call: the call.
        settings: those in force.
        changes: the settings that hold for it, as in a block around it.

    Raises:
        UsageError: the call cannot be carried out; nothing was sent.
    """
    if changes:
        of_block = {**settings.of_block, **changes}
        settings = settings.with_changes({**changes, "of_block": of_block})
    job, lms = prepare_call(call, settings)
    spec = Spec(job, settings.with_changes(job.settings), lms)
    check_models(spec)
    return spec


def prepare_call(
    call: Call, settings: Settings, parent: SharedRun | None = None
) -> tuple[Job, Mapping[Phase, LM]]:
    """Check a call and find the models of its phases: in another run that one's, if it names none.

    Raises:
        UsageError: the call cannot be carried out; nothing was sent.
        PlanError: it leaves something open to a model that cannot plan; likewise.
    """
    check_environment()
    job = check(call)
    for agent in job.agents:
        if agent.lm is not None:
            resolve_lm(agent.lm)
    if not job.needs_model:
        return job, {}
    check_redacted(job.given, settings.redact)
    own = (
        next((one.lm for one in job.pipelines if one.lm is not None), None)
        if job.lm is None
        else job.lm
    )
    lms = (
        parent.lms
        if own is None and parent is not None and parent.lms
        else resolve_lms(own, settings)
    )
    if job.open:
        check_planning(job, lms["plan"])
    for pipeline in job.pipelines:
        pipeline.check_planning(lms, settings)
    return job, lms


class Rerun:
    """Carries out once more what a result came from."""

    def retry(self, origin: RunOrigin, lm: object, errors: object) -> Result:
        """Run again what failed."""
        settings = origin.settings
        if errors is not None:
            settings = settings.with_changes({"errors": errors})
        lms = resolve_lms(lm, settings) if lm is not None else origin.lms
        spec = Spec(origin.job, settings, lms)
        findings = origin.findings.copy(leave_skipped=origin.gave_up)
        result: Result = make_run(spec, findings=findings, whole=True).result()
        return result

    def override(self, origin: RunOrigin, corrections: Corrections, *, reduces: bool) -> Result:
        """Correct findings, and reduce again; nothing is mapped."""
        spec = Spec(origin.job, origin.settings, origin.lms)
        override = FindingOverride(corrections, origin.failures, reduces)
        run = make_run(spec, findings=origin.findings.close(), whole=True, override=override)
        result: Result = run.result()
        return result

    def verify(self, origin: RunOrigin, lm: object, share: float, seed: int) -> Result:
        """Map a random share once more, as a result of its own; nothing is reduced."""
        lms = resolve_lms(lm, origin.settings) if lm is not None else origin.lms
        settings = origin.settings.with_changes({"errors": "coerce"})
        job = replace(origin.job, verb="map")
        spec = Spec(job, settings, lms, sample_name=f"second {seed}")
        sample = VerificationSample(share, seed)
        result: Result = make_run(spec, whole=True, sample=sample).result()
        return result


RunOrigin.runner = Rerun()
