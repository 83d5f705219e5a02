"""The task of a worker: a part is mapped as a run of its own, for the driver's journal and limits.

Nothing is raised to Dask, whose log would show the arguments of the task: what went wrong goes to
the driver with the last report.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import secrets
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from distributed import get_worker

from pandas_amr._context.progress import Watch
from pandas_amr._context.settings import current_settings
from pandas_amr._engines.dask.journal import DriverJournal
from pandas_amr._engines.dask.leases import DriverLeases
from pandas_amr._engines.dask.link import Link, RunEnded
from pandas_amr._engines.dask.messages import (
    REPORT_S,
    FailedPart,
    PartOutcome,
    Report,
    Sealed,
    own_versions,
)
from pandas_amr._engines.dask.part import PartPipeline, digest_rows
from pandas_amr._plan.call import Call
from pandas_amr._records.engine import engine_loop, in_thread, submit
from pandas_amr._records.log import LOGGER
from pandas_amr._records.pickles import unpack
from pandas_amr._run.execution import Execution
from pandas_amr._run.redact import redact_where_called
from pandas_amr._run.run import make_spec
from pandas_amr.errors import AMRError, JournalError, RunStopped, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from pandas_amr._context.spec import Spec
    from pandas_amr._engines.dask.messages import Begun, Halt, Order, PartOrder

IDLE_S = 10.0  # for which a connection to a driver is kept that sends no part
LEAST_S = 1e-3  # of a budget, which must be above 0
DONE, UNWANTED, LOST = "done", "unwanted", "lost"  # what a task says of itself
_contexts: dict[str, _RunContext] = {}
_lock = threading.Lock()


@dataclass(eq=False)
class _RunContext:
    """What the parts of one run share in this process."""

    link: Link
    leases: DriverLeases
    parts: int = 0


@contextlib.contextmanager
def _run_context(part: PartOrder) -> Any:
    """Share the connection to a driver with the other parts of its run in this process."""
    with _lock:
        context = _contexts.get(part.run)
        if context is None:
            link = Link(part.address, part.run, _connection_options())
            context = _contexts[part.run] = _RunContext(link, DriverLeases(link))
        context.parts += 1
        context.link.is_idle = False
    try:
        yield context
    finally:
        with _lock:
            context.parts -= 1
            context.link.is_idle = context.parts == 0
        loop = engine_loop()
        loop.call_soon_threadsafe(loop.call_later, IDLE_S, _close_if_idle, part.run)


def _close_if_idle(run: str) -> None:
    """Close the connection to a driver of which no part has come for a while."""
    with _lock:
        context = _contexts.get(run)
        if context is None or context.parts:
            return
        del _contexts[run]
    context.link.close()


def _connection_options() -> dict[str, Any]:
    """Return the certificates of this worker."""
    options: dict[str, Any] = get_worker().security.get_connection_args("worker")
    return options


def map_part(sealed: Sealed, rows: Sealed | pd.DataFrame) -> str:
    """Map a part, and report to the driver what comes of it.

    Args:
        sealed: the part's order.
        rows: its rows.

    Returns:
        ``done``; ``unwanted`` if the driver wants it no more; ``lost`` if it cannot be reached.
    """
    part: PartOrder = sealed.open()
    attempt = secrets.token_hex(8)
    with _run_context(part) as context:
        try:
            begun: Begun | None = _wait(context.link.ask("begin", part.number, attempt))
            if begun is None:
                return UNWANTED
            _wait(_report_part(part, rows, context, attempt, begun))
        except RunEnded:
            return UNWANTED
        except JournalError as error:
            LOGGER.info("Part %d is given up: %s", part.number, error)
            return LOST
    return DONE


def _wait(work: Any) -> Any:
    """Run a coroutine on this process's engine, from a thread of Dask."""
    return submit(work).result()


async def _report_part(
    part: PartOrder,
    rows: Sealed | pd.DataFrame,
    context: _RunContext,
    attempt: str,
    begun: Begun,
) -> None:
    """Map a part, with a report each half second, and the outcome in the last one."""
    reporter = Reporter(context.link, part.number, attempt)
    reporter.start()
    try:
        reporter.report.outcome = await _map_reported(part, rows, context, reporter, begun)
    finally:
        await reporter.stop()
    await reporter.send()


async def _map_reported(
    part: PartOrder,
    rows: Sealed | pd.DataFrame,
    context: _RunContext,
    reporter: Reporter,
    begun: Begun,
) -> Any:
    """Map a part; what goes wrong is its outcome."""
    try:
        order, frame = await in_thread(_open_part, part, rows)
        pipeline = await in_thread(_make_pipeline, order, frame, context, reporter, begun)
    except Exception as error:  # noqa: BLE001 (the driver raises it)
        return FailedPart(_portable(error))
    outcome = await pipeline.map_part(reporter.watch_over)
    return await in_thread(_complete_outcome, outcome, order, frame)


def _open_part(part: PartOrder, rows: Sealed | pd.DataFrame) -> tuple[Order, pd.DataFrame]:
    """Read the order and the rows.

    Raises:
        UsageError: this worker cannot.
    """
    (here, python_here), (there, python_there) = own_versions(), part.versions
    if own_versions() != part.versions:
        raise UsageError(
            f"A worker has pandas-amr {here} on Python {python_here}, the driver {there} on "
            f"Python {python_there}. Both need the same."
        )
    try:
        order: Order = pickle.loads(part.order)  # noqa: S301 (the driver's)
        frame = unpack(rows.open()) if isinstance(rows, Sealed) else rows
    except ImportError as error:
        raise UsageError(
            f"A worker cannot import {error.name!r}, which the call refers to: install it there, "
            "or client.upload_file('that_module.py')."
        ) from None
    return order, frame


def _make_pipeline(
    order: Order,
    frame: pd.DataFrame,
    context: _RunContext,
    reporter: Reporter,
    begun: Begun,
) -> PartPipeline:
    """Make what maps these rows, for the driver's journal, limits and budget."""
    spec = _make_spec(order, frame, begun)
    journal = None
    if order.journal is not None:
        part = (reporter.number, reporter.attempt)
        journal = DriverJournal(context.link, part, order.journal, reporter.report)
        reporter.journal = journal
    execution = Execution(spec, journal=journal, leases=context.leases)
    return PartPipeline(
        execution,
        reporter.watch,
        is_proven=begun.is_proven,
        hashes_units=order.hashes_units,
    )


def _make_spec(order: Order, frame: pd.DataFrame, begun: Begun) -> Spec:
    """Check the call for these rows, as the driver has for its own."""
    mapper = order.mapper
    is_filter = order.verb == "filter"
    call = Call(
        verb=order.verb,
        frame=frame,
        columns=mapper.columns,
        map=order.criterion if is_filter else mapper.map,
        tools=mapper.tools or None,
        plan="auto" if is_filter else mapper.plan,
        lm=mapper.lm,
    )
    spec = make_spec(call, current_settings(), mapper.settings)
    budget = order.budget
    if budget is not None and begun.seconds is not None:
        budget = replace(budget, seconds=max(begun.seconds, LEAST_S))
    changes = {"budget": budget, "journal": False, "progress": False, "trace": "off"}
    settings = spec.settings.with_changes(changes)
    job = replace(spec.job, given=mapper.plan, open=())
    return redact_where_called(replace(spec, job=job, settings=settings))


def _complete_outcome(outcome: PartOutcome, order: Order, frame: pd.DataFrame) -> PartOutcome:
    """Add what the driver's reduce and result need of rows that it does not have."""
    if not order.returns_rows:
        return outcome
    names = list(frame.columns)
    if order.wanted is not None:
        names = [name for name in names if name in order.wanted]
    return replace(
        outcome, labels=frame.index, columns=frame[names].copy(), digest=digest_rows(frame)
    )


def _portable(error: Exception) -> Exception:
    """Return an error that another process can have, and whose text quotes no cell."""
    if isinstance(error, AMRError):
        return error
    return RunStopped(f"{type(error).__name__} was raised by a worker that began a part.")


class PartReportWatch(Watch):
    """Notes how far a part is, for its next report."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report

    def show_progress(self, progress: Any, *, open_rows: int = 0, maps: int = 1) -> None:
        """Note how many units have what."""
        super().show_progress(progress, open_rows=open_rows, maps=maps)
        self._report.progress = progress
        self._report.open_rows = open_rows

    def landed(self, positions: Any, table: Any, units: Any) -> None:
        """Leave findings to the outcome."""
        del positions, table, units


class Reporter:
    """Reports to the driver what a part finds, and obeys if that wants it to halt.

    Args:
        link: leads to the driver.
        number: the part's.
        attempt: tells this attempt at the part from others.
    """

    def __init__(self, link: Link, number: int, attempt: str) -> None:
        self.number = number
        self.attempt = attempt
        self.report = Report()
        self.watch = PartReportWatch(self.report)
        self.journal: DriverJournal | None = None
        self._link = link
        self._timer: asyncio.Task[None] | None = None
        self._work: asyncio.Task[Any] | None = None
        self._pipeline: PartPipeline | None = None

    def start(self) -> None:
        """Report from now on."""
        self._timer = asyncio.get_running_loop().create_task(self._keep_reporting())

    async def stop(self) -> None:
        """Report no more."""
        assert self._timer is not None
        self._timer.cancel()
        await asyncio.gather(self._timer, return_exceptions=True)
        if self.journal is not None:
            await self.journal.close()

    def watch_over(self, pipeline: PartPipeline, work: asyncio.Task[Any]) -> None:
        """Stop this work if the driver wants that."""
        self._pipeline, self._work = pipeline, work

    async def _keep_reporting(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            try:
                self._obey(await self.send())
            except JournalError as error:
                self._lose(error)
                return

    async def send(self) -> Halt:
        """Send what is new; what could not be sent is sent with the next report."""
        report = self.report
        sent = replace(report, usage=dict(self.watch.ledger.lines))
        report.bases, report.entries, report.links, report.failures = [], [], [], []
        try:
            halt: Halt = await self._link.ask("report", self.number, self.attempt, sent)
        except BaseException:
            report.bases = sent.bases + report.bases
            report.entries = sent.entries + report.entries
            report.links = sent.links + report.links
            report.failures = sent.failures + report.failures
            raise
        return halt

    def _obey(self, halt: Halt) -> None:
        if halt and self._pipeline is not None:
            self._pipeline.state.halted = True
        if halt == "drop" and self._work is not None:
            self._work.cancel()

    def _lose(self, error: JournalError) -> None:
        """Stop: nobody takes what is found."""
        if self.journal is not None:
            self.journal.error = error
        self._obey("drop")
