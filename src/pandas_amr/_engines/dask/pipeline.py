"""The story of a run on a cluster: one plan, parts that workers map, one reduce over all parts."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from pandas_amr._context.part_progress import PartsProgress
from pandas_amr._context.progress import Progress
from pandas_amr._engines.dask.findings import join_parts, rows_found
from pandas_amr._engines.dask.frame import find_kept_rows, make_lazy_frame, read_rows
from pandas_amr._engines.dask.messages import (
    REPORT_S,
    FailedPart,
    JournalTraits,
    Order,
    PartOrder,
    Sealed,
    own_versions,
)
from pandas_amr._engines.dask.result import as_dask_result
from pandas_amr._engines.dask.rows import CollectionRows
from pandas_amr._engines.dask.service import Service
from pandas_amr._engines.dask.worker import LOST
from pandas_amr._findings.columns import add_findings
from pandas_amr._findings.finding_type import only_list_type
from pandas_amr._findings.store import FindingStore
from pandas_amr._journal.journal import Journal
from pandas_amr._journal.leases import LeaseFolder, open_leases
from pandas_amr._map.stage import MapStage
from pandas_amr._plan.call import KEEP, finding_types
from pandas_amr._records.clock import CLOCK
from pandas_amr._records.engine import in_thread
from pandas_amr._records.log import LOGGER
from pandas_amr._records.pickles import dump_by_value
from pandas_amr._records.usage import NO_USAGE, Budget, Ledger, Usage
from pandas_amr._reduce.sources import ReduceOutcome
from pandas_amr._reduce.stage import reduce
from pandas_amr._result.frames import shown_columns, status_frame
from pandas_amr._run.frame_mapper import mapper_of_run
from pandas_amr._run.outcome import warn_of_failed_units
from pandas_amr._run.part_rows import find_wanted, plain_units
from pandas_amr._run.pipeline import PLANNING, Pipeline, make_read_units, may_dedupe
from pandas_amr.errors import BudgetExceeded, MapFailed, PlanWarning, RunStopped

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pandas_amr._context.progress import Watch
    from pandas_amr._engines.dask.cluster import Cluster
    from pandas_amr._engines.dask.messages import PartOutcome, Report
    from pandas_amr._engines.dask.rows import Rows
    from pandas_amr._engines.dask.service import PartState
    from pandas_amr._findings.map_findings import MapFindings
    from pandas_amr._records.trace import Node
    from pandas_amr._result.result import Result
    from pandas_amr._run.execution import Execution
    from pandas_amr._run.preview import Draft
    from pandas_amr.models.lease import Amounts

MOST_LOST = 5  # times that a part is sent again, though the workers live
STOP_S = 4 * REPORT_S  # for the last reports of parts that are stopped
WAITING_S = 30.0  # between two lines of the log that no worker is there


class OwnLedger(Ledger):
    """Counts what this process asks itself, beside what the whole run does."""

    def __init__(self, whole: Ledger) -> None:
        super().__init__()
        self._whole = whole

    def add(self, phase: Any, model: str, usage: Usage) -> None:
        """Add usage to both."""
        super().add(phase, model, usage)
        self._whole.add(phase, model, usage)


@dataclass(eq=False)
class RunLeases:
    """The leases of a run: whoever has the folder shares limits, and its parts the budget.

    Attributes:
        limits: the folder of limits.
        budgets: the folder of the budget.
    """

    limits: LeaseFolder
    budgets: LeaseFolder

    def pace(self, server: str, key: str, model: str) -> Any:
        """Return the lease of a server, a key and a model."""
        return self.limits.pace(server, key, model)

    def budget(self, name: str, limits: Amounts) -> Any:
        """Return one part's lease of the budget."""
        return self.budgets.budget(name, limits)


@dataclass
class SentPart:
    """A part that is mapped, or will be.

    Attributes:
        number: its place among all.
        rows: how many rows it has; None if that is not known yet.
        state: what the service knows of it.
        node: its node in the trace.
        future: its task; None until it is sent.
        lost: how often it was sent again.
        has_begun: whether a worker has begun it, once or more often.
    """

    number: int
    rows: int | None
    state: PartState
    node: Node | None = None
    future: Any = None
    lost: int = 0
    has_begun: bool = False


class ClusterPipeline(Pipeline):
    """A run whose rows are mapped by the workers of a cluster.

    Args:
        execution: the call: about the rows, or about a frame with their columns.
        watch: is shown how far it is.
        cluster: the workers.
        rows: the rows.
    """

    def __init__(self, execution: Execution, watch: Watch, *, cluster: Cluster, rows: Rows) -> None:
        super().__init__(execution, watch)
        self._cluster = cluster
        self._rows = rows
        self._name = f"cluster-{secrets.token_hex(8)}"
        self._folder: Path | None = None
        self._leases: RunLeases | None = None
        self._service: Service | None = None
        self._order = b""
        self._sent: dict[int, SentPart] = {}
        self._outcomes: dict[int, PartOutcome] = {}
        self._progress = PartsProgress(watch, rows.rows, len(self.spec.job.names))
        self._threads = 1
        self._starts: Sequence[int] = (0,)
        self._journal: Journal | None = None
        self._own_run = 0  # in a journal of this run alone
        self._address = ""

    async def carry_out(self) -> Result | Draft:
        """Plan, have the parts mapped, and reduce over all of them."""
        async with AsyncExitStack() as stack:
            self._open_folder(stack)
            await self._redact()
            await self._open_models(stack)
            await self._begin_journal(stack)
            self.state.stage = PLANNING
            await self._draw_sample()
            if self._rows.are_here:
                await self._trace_rows(self.spec.job.columns)
            await self._plan()
            self._warn_of_borders()
            await self.issue_warnings()
            await self._check_known()
            outcome = await self._map_and_reduce_parts(stack)
            self.state.stage = "its result"
            self._result = await self._end_with(outcome)
            return self._result

    # What parts and driver share

    def _open_folder(self, stack: AsyncExitStack) -> None:
        """Make a folder for what only the parts of this run share."""
        self._folder = Path(tempfile.mkdtemp(prefix="pandas-amr-"))
        stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        own = LeaseFolder(self._folder / "leases")
        shared = open_leases(self.spec.settings.lease) or own
        budget = self.spec.settings.budget
        is_shared = budget is not None and budget.shared is not None
        self._leases = RunLeases(shared, shared if is_shared else own)

    def _open_leases(self) -> RunLeases | None:
        return self._leases

    @property
    def _metered_ledger(self) -> Ledger:
        return OwnLedger(self.services.ledger)

    @property
    def _metered_budget(self) -> Budget | None:
        """The budget under the name by which all parts share it."""
        budget = self.spec.settings.budget
        if budget is None or budget.shared is not None:
            return budget
        if budget.money is None and budget.tokens is None and budget.calls is None:
            return budget
        return replace(budget, shared=self._name)

    # The plan

    async def _draw_sample(self) -> None:
        """Draw the rows that the planner sees, if there is anything to plan."""
        job = self.spec.job
        if not job.open or self._rows.are_here:
            return
        sample = await self._rows.sample(self._cluster)
        self.spec = replace(self.spec, job=replace(job, frame=sample, redacted=None))
        await self._redact()

    def _warn_of_borders(self) -> None:
        """Warn of units that parts keep apart."""
        segmentation = self.spec.plan.segmentation
        if segmentation in {"neighbours", "groups"}:
            message = (
                f"segmentation={segmentation!r}: on a cluster a row's {segmentation} end where its "
                "part ends."
            )
            self.state.warnings.append(PlanWarning(message))

    async def _check_known(self) -> None:
        """Look here what the journal has, if that decides whether anything is begun.

        Raises:
            NotConfirmed: the rest is not to be asked.
            ModelOffline: it may not be asked.
        """
        settings = self.spec.settings
        confirm = settings.budget.confirm if settings.budget is not None else None
        if not self._rows.are_here or (confirm is None and not settings.is_offline):
            return
        units = await self.services.run_large(self.spec, make_read_units, self.spec)
        stage = await self._begin_map(units)
        await self._confirm(units, stage)
        self.state.findings = None  # the parts look it up themselves
        self.state.failures.clear()

    # The map

    async def _map_and_reduce_parts(self, stack: AsyncExitStack) -> ReduceOutcome:
        """Map, then reduce, until the budget's seconds are used up."""
        spec = self.spec
        services = self.services
        state = self.state
        state.stage = "its map"
        services.watch.steps.begin_map(1, is_written=spec.is_written)
        try:
            async with services.time_limit(spec):
                try:
                    await self._map_parts()
                finally:
                    await in_thread(self._join)
                self._raise_if_failed()
                warn_of_failed_units(self.spec, state)
                await self.issue_warnings()
                if state.ended_by is None and spec.job.reduces:
                    return await self._reduce_parts(stack)
        except BudgetExceeded as error:
            state.end(error)
        return ReduceOutcome(None)

    async def _map_parts(self) -> None:
        """Send the parts, and take what comes of them, until all are there or the run halts."""
        await self._start_service()
        assert self._service is not None
        try:
            threads = await self._cluster.count_threads()
            # Workers may come once there are tasks; as many as there may be requests are of use.
            self._threads = threads or self._most_requests
            sizes = self._rows.cut(threads=self._threads, shard_size=self.spec.plan.shard_size or 1)
            self._make_order(len(sizes))
            for number, rows in enumerate(sizes):
                self._sent[number] = SentPart(number, rows, self._service.add_part(number))
            await self._map_sent()
        finally:
            await asyncio.shield(self._stop_service())

    async def _start_service(self) -> None:
        """Listen to the workers."""
        assert self._leases is not None
        assert self._folder is not None
        services, spec = self.services, self.spec
        journal, run_number = services.journal, services.run_number
        if journal is None and (spec.lms or spec.job.has_version):
            # What a worker had found before it died is not asked again, even without a journal.
            path = self._folder / "journal.sqlite"
            journal = await in_thread(Journal, path)
            run_number = self._own_run = await journal.begin(spec.job.verb, None, 0)
        self._service = Service(
            self._name,
            journal,
            run_number,
            limits=self._leases.limits,
            budgets=self._leases.budgets,
            ledger=services.ledger,
            listener=self,
        )
        self._journal = journal
        seconds = spec.settings.budget.seconds if spec.settings.budget else None
        if seconds is not None:
            self._service.ends_at = CLOCK.now() + seconds - services.trace.seconds
        self._address = await self._service.start(
            self._cluster.address, self._cluster.listen_options
        )

    def _make_order(self, parts: int) -> None:
        """Write what all workers need to know.

        Raises:
            UsageError: a function, a tool or a model cannot be sent.
        """
        spec, journal = self.spec, self._journal
        traits = None
        if journal is not None:
            traits = JournalTraits(str(journal.path), journal.refresh, journal.keep_inputs)
        is_filter = spec.job.verb == "filter"
        order = Order(
            mapper_of_run(self._with_share(parts)),
            "filter" if is_filter else "map",
            spec.job.call.map if is_filter and spec.job.call is not None else None,
            _without_confirm(self._metered_budget),
            traits,
        )
        if not self._rows.are_here:
            order = self._with_returned(order)
        self._order = dump_by_value(order, f"{spec.job.verb}(...)")

    def _with_returned(self, order: Order) -> Order:
        """Have the parts return what the reduce and the result need of rows that are not here."""
        spec = self.spec
        list_type = only_list_type(list(finding_types(spec.job, spec.plan).values()))
        wanted = find_wanted(spec, list_type) if spec.job.reduces else set()
        return replace(
            order,
            wanted=None if wanted is None else frozenset(wanted),
            returns_rows=True,
            hashes_units=spec.is_written and may_dedupe(spec),
        )

    def _with_share(self, parts: int) -> Any:
        """Return what is asked for with the requests that each part may have in flight.

        Functions of the user's run as often at once as the plan says, too.
        """
        at_once = min(self._at_once, max(1, parts))
        share = max(1, self._most_requests // at_once)
        plan = self.spec.plan.replace(parallelism=share)
        return replace(self.spec, plan=plan)

    @property
    def _most_requests(self) -> int:
        """How many requests all parts together may have in flight."""
        return self.services.most_requests(self.spec, tools=True)

    @property
    def _at_once(self) -> int:
        """How many parts are mapped at once."""
        return max(1, min(self._threads, self._most_requests))

    async def _map_sent(self) -> None:
        """Have all parts mapped."""
        numbers = list(self._sent)
        most = self._rows.most_at_once(self._threads)
        if self._at_once < self._threads:  # more threads than requests may be in flight
            most = self._at_once
        waiting = numbers if most is None else numbers[:most]
        to_come = iter([] if most is None else numbers[most:])
        await self._send(waiting)
        watcher = asyncio.get_running_loop().create_task(self._watch_workers())
        open_tasks = {self._begin_part(number) for number in waiting}
        try:
            while open_tasks:
                done, open_tasks = await asyncio.wait(
                    open_tasks, return_when=asyncio.FIRST_COMPLETED
                )
                _raise_error_of(done)
                for _ in done:
                    number = None if self.state.halted else next(to_come, None)
                    if number is not None:
                        await self._send([number])
                        open_tasks.add(self._begin_part(number))
        finally:
            for task in [watcher, *open_tasks]:
                task.cancel()
            await asyncio.gather(watcher, *open_tasks, return_exceptions=True)

    def _begin_part(self, number: int) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(self._map_part(self._sent[number]))

    async def _send(self, numbers: Sequence[int]) -> None:
        """Send parts to the cluster; several as one graph."""
        orders: list[tuple[int, str, Sealed]] = []
        for number in numbers:
            part = PartOrder(
                self._address,
                self._name,
                number,
                own_versions(),
                self._order,
            )
            key = f"amr-map-{self._name}-{number}-{self._sent[number].lost}"
            orders.append((number, key, Sealed.of(f"part {number} of {self._name}", part)))
        try:
            futures = await in_thread(self._rows.submit, self._cluster, orders)
        except RuntimeError as error:  # the client's own, if it is closed
            if await self._cluster.is_back():
                raise
            raise self._lost_scheduler() from error
        for number, future in zip(numbers, futures, strict=True):
            self._sent[number].future = future

    async def _map_part(self, part: SentPart) -> None:
        """Wait for what comes of a part, and send it again if its worker is lost."""
        rows = part.rows or 0
        with self.services.trace.node("map", id=f"map-part-{part.number}", units=rows) as node:
            part.node = node
            outcome = await self._wait_for(part)
            if outcome is not None and self._gave_up_alone(outcome):
                part.state = self._begin_again(part.number)
                await self._send([part.number])
                outcome = await self._wait_for(part)
            if outcome is None:
                node.status = "cancelled"
                return
            self._take(part, outcome)

    def _ends_run(self, outcome: PartOutcome | FailedPart) -> bool:
        """Tell whether what came of a part ends the run."""
        if isinstance(outcome, FailedPart):
            return True
        if outcome.error is not None:
            return not self._gave_up_alone(outcome)
        return bool(outcome.failures) and self.spec.settings.errors == "raise"

    def _gave_up_alone(self, outcome: PartOutcome | FailedPart) -> bool:
        """Tell whether a part gave up, since none of its units succeeded, while others go on."""
        assert self._service is not None
        if isinstance(outcome, FailedPart) or not isinstance(outcome.error, MapFailed):
            return False
        return self._service.is_proven and not self.state.halted

    def _begin_again(self, number: int) -> PartState:
        """Have a part mapped again, that no longer gives up."""
        assert self._service is not None
        self._sent[number].lost += 1
        return self._service.add_part(number)

    async def _wait_for(self, part: SentPart) -> PartOutcome | FailedPart | None:
        """Wait for what comes of a part; None if the run is halted before it began."""
        outcome = part.state.outcome
        while True:
            ended = asyncio.ensure_future(self._cluster.end_of(part.future))
            try:
                either: list[asyncio.Future[Any]] = [outcome, ended]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if outcome.done():
                    return outcome.result()
                status = ended.result()
            finally:
                ended.cancel()
            if self.state.halted:
                return await self._last_report(part)
            await self._recover(part, status)
            if outcome.done():
                return outcome.result()
            part.lost += 1
            await self._send([part.number])

    async def _last_report(self, part: SentPart) -> PartOutcome | FailedPart | None:
        """Wait a moment for what a part says that is told to stop; None if nobody is at it."""
        outcome = part.state.outcome
        if part.state.is_alive:
            await asyncio.wait([outcome], timeout=STOP_S)
        if not outcome.done():
            return None
        return outcome.result()

    async def _recover(self, part: SentPart, status: str) -> None:
        """See to a task that has ended without an outcome; return if it is to be sent again.

        Raises:
            RunStopped: it would end so again.
        """
        if status == "error":
            error = await self._cluster.error_of(part.future)
            self._refuse(part, error)
        if status == "finished":
            said = await self._cluster.value_of(part.future)
            await self._wait_for_silence(part)
            if said == LOST and part.lost >= MOST_LOST:
                raise RunStopped(
                    f"The workers do not reach this process at {self._address}: they have to be "
                    "able to connect to it. Run it on a machine of the cluster's network."
                )
            return
        if not await self._cluster.is_back():
            raise self._lost_scheduler()
        await self._wait_for_silence(part)
        if not part.state.outcome.done():
            LOGGER.warning("Part %d is sent to the cluster again.", part.number)

    def _lost_scheduler(self) -> RunStopped:
        """Make the error of a scheduler that is gone."""
        way = "The same call goes on from what the journal has."
        if self.services.journal is None:
            way = "No journal keeps what was found; with one, the same call goes on from there."
        return RunStopped(
            f"The connection to the scheduler at {self._cluster.address} was lost and did not "
            f"come back. {way}"
        )

    async def _wait_for_silence(self, part: SentPart) -> None:
        """Wait while a worker is at a part of which the scheduler knows no more."""
        while part.state.is_alive and not part.state.outcome.done():
            await asyncio.wait([part.state.outcome], timeout=REPORT_S)

    def _refuse(self, part: SentPart, error: BaseException | None) -> NoReturn:
        """Raise why a task could not be run.

        Raises:
            RunStopped: always.
        """
        kind = type(error).__name__
        if kind == "KilledWorker":
            message = (
                f"The workers that mapped part {part.number} died one after the other; Dask gives "
                "it up (distributed.scheduler.allowed-failures). Look at their logs and memory."
            )
        elif isinstance(error, ImportError):
            message = f"A worker lacks the module {error.name!r}: install it there."
        else:
            message = f"Dask could not run part {part.number} ({kind}): look at the worker's log."
        raise RunStopped(message) from error

    async def _watch_workers(self) -> None:
        """Say in the log that no worker is there, as long as none is."""
        while True:
            await asyncio.sleep(WAITING_S)
            if any(part.state.attempt for part in self._sent.values()):
                return
            LOGGER.warning("No worker of the cluster at %s has begun yet.", self._cluster.address)

    # What the service tells

    def part_began(self, number: int) -> None:
        """Note that a worker has begun a part."""
        part = self._sent[number]
        if part.node is not None:
            part.node.start = self.services.trace.seconds
        if part.has_begun:  # by a worker that is lost
            units = (part.rows or 0) * len(self.spec.job.names)
            self._progress.set(number, Progress(units=units), units)
        else:
            part.has_begun = True
            self._progress.begin(number, part.rows or 0)

    def note_part_report(self, number: int, report: Report) -> None:
        """Note how far a part is; no further one begins if it ends the run."""
        if report.outcome is not None and self._ends_run(report.outcome):
            self._halt()
        progress = report.progress
        if progress is None:
            return
        self._progress.set(number, progress, report.open_rows)
        if progress.found > progress.cached and self._service is not None:
            self._service.is_proven = True

    # What comes of parts

    def _take(self, part: SentPart, outcome: PartOutcome | FailedPart) -> None:
        """Take what came of a part; it may end the run."""
        if isinstance(outcome, FailedPart):
            self._halt()
            raise outcome.error
        self._outcomes[part.number] = outcome
        part.rows = outcome.rows
        assert part.node is not None
        part.node.units = outcome.rows
        part.node.usage = sum(outcome.usage.values(), NO_USAGE)
        part.node.status = self._status_of(outcome)
        known = {str(warning) for warning in self.state.warnings}
        for warning in outcome.warnings:
            if str(warning) not in known:
                self.state.warnings.append(warning)
        if outcome.error is not None:
            self._end_for(outcome.error)
        elif outcome.failures and self.spec.settings.errors == "raise":
            self._halt()
        self._progress.end(part.number)
        self._show(part, outcome)

    def _status_of(self, outcome: PartOutcome) -> Any:
        if outcome.error is not None:
            return "failed"
        if outcome.halted:
            return "cancelled"
        return "partial" if outcome.failures else "ok"

    def _end_for(self, error: Exception) -> None:
        """End the run: a part was ended by what concerns all parts.

        Raises:
            Exception: the error, if it is none that a run's result can say.
        """
        self._halt()
        if isinstance(error, BudgetExceeded):
            error.args = (str(error).replace(f" that runs share as {self._name!r}", ""),)
        if not isinstance(error, RunStopped) or type(error) is RunStopped:
            raise error
        self.state.end(error)

    def _halt(self) -> None:
        """Begin no more, in none of the parts."""
        super()._halt()
        if self._service is not None and not self._service.halt:
            self._service.halt = "finish"

    def _show(self, part: SentPart, outcome: PartOutcome) -> None:
        """Show the findings of a part to whoever iterates."""
        if not self._rows.are_here:
            return
        kinds = finding_types(self.spec.job, self.spec.plan)
        units = plain_units(self.spec.job.frame)
        start = sum(self._sent[number].rows or 0 for number in range(part.number))
        for name, found in outcome.maps.items():
            rows, places = rows_found(outcome, found)
            positions = (rows + start).tolist()
            store = FindingStore(name, kinds[name])
            table = store.named(found.table.take(places))
            self.services.watch.landed(positions, table, units)

    async def _stop_service(self) -> None:
        """Stop what is still under way, and hear its last reports."""
        assert self._service is not None
        open_parts = [part for part in self._sent.values() if not part.state.outcome.done()]
        if open_parts:
            self._service.halt = "drop"
            futures = [part.future for part in open_parts if part.future is not None]
            await self._cluster.cancel(futures)
            await self._hear_last_reports(open_parts)
        await self._service.close()
        if self._own_run and self._journal is not None:  # else its store would live on
            await self._journal.end(
                self._own_run, "done", calls=0, tokens=0, money=None, recalled=0
            )

    async def _hear_last_reports(self, parts: Sequence[SentPart]) -> None:
        """Wait a moment for what workers say of parts that they are told to drop."""
        outcomes = [part.state.outcome for part in parts if part.state.attempt]
        if outcomes:
            await asyncio.wait(outcomes, timeout=STOP_S)
        for part in parts:
            if not part.state.outcome.done():
                continue
            outcome = part.state.outcome.result()
            if not isinstance(outcome, FailedPart):
                self._outcomes[part.number] = outcome
                part.rows = outcome.rows

    # The reduce

    def _join(self) -> None:
        """Join what came of the parts, as one map stage would leave it."""
        rows = [self._sent[number].rows or 0 for number in sorted(self._sent)]
        joined = join_parts(self.spec, self._outcomes, rows, are_here=self._rows.are_here)
        self.spec = joined.spec
        self.state.findings = joined.findings
        self.state.made_by = joined.made_by
        self.state.failures += joined.failures
        self._starts = joined.starts

    async def _reduce_parts(self, stack: AsyncExitStack) -> ReduceOutcome:
        """Reduce over all parts, as over a frame that was mapped here."""
        spec, services, state = self.spec, self.services, self.state
        findings = state.findings
        assert findings is not None
        units = findings.units
        state.stage = "its reduce"
        services.watch.steps.begin_reduce()
        tree = None
        if self._rows.are_here and spec.reduces_as_findings_land:
            # The stage of a run whose units are all mapped: it cuts the batches of the tree.
            make_stage = partial(MapStage, spec, services, state, units, findings)
            stage = await services.run_large(spec, make_stage)
            tree = self._begin_tree(stage, stack)
            if tree is not None:
                await stage.offer_all(tree, state.made_by)
        if spec.reduce_kind == "ranking" and not self._rows.are_here:
            return await self._take_first_ranked(findings)
        rows = await in_thread(state.finding_rows, spec.job)
        return await reduce(spec, services, state, units, rows, tree=tree)

    async def _take_first_ranked(self, findings: MapFindings) -> ReduceOutcome:
        """Rank by what is here, and read the rows that rank first from their partitions."""
        frame = self.spec.job.frame.reset_index(drop=True)
        job = replace(self.spec.job, frame=frame)
        spec, state = replace(self.spec, job=job), self.state
        units = replace(findings.units, frame=frame)
        state.findings = replace(findings, units=units)
        try:
            rows = await in_thread(state.finding_rows, job)
            outcome = await reduce(spec, self.services, state, units, rows)
        finally:
            state.findings = findings
        if outcome.output is None:
            return outcome
        lazy = await in_thread(self._make_lazy_frame)
        positions = outcome.output.index.to_numpy(dtype=np.int64)
        first = await read_rows(lazy, positions, self._starts, self._cluster)
        return replace(outcome, output=first)

    def _make_result(self, outcome: ReduceOutcome) -> Result:
        return self._complete(super()._make_result(outcome))

    def partial_result(self) -> Result:
        """Return the result, or what was found until now."""
        if self._result is not None:
            return self._result
        return self._complete(super().partial_result())

    def _complete(self, result: Result) -> Result:
        """Add what workers know alone, and the lazy frame of rows that are not here."""
        sandboxes = {one.sandbox for one in self._outcomes.values() if one.sandbox}
        if sandboxes:
            result = replace(result, sandbox=min(sandboxes))
        if self._rows.are_here:
            return result
        return as_dask_result(result, self._make_lazy_frame(), self._starts)

    def _make_lazy_frame(self) -> Any:
        """Put what was found beside the partitions, once they are read."""
        rows, spec, findings = self._rows, self.spec, self.state.findings
        assert isinstance(rows, CollectionRows)
        if findings is None or not rows.delayed:
            return rows.frame
        added, keep = findings.findings(), None
        statuses = findings.row_statuses()
        if spec.job.verb == "filter":
            keep = find_kept_rows(added, statuses)
            added = added.drop(columns=KEEP)
        if spec.plan.status_columns:
            failures = self.state.sorted_failures(spec.job.names)
            status = status_frame(statuses, None, failures, added.index)
            added = add_findings(added, shown_columns(status, spec.plan.status_columns))
        return make_lazy_frame(rows, added, keep, self._outcomes, self._starts)


def _raise_error_of(tasks: Collection[asyncio.Task[None]]) -> None:
    """Raise the first error of some tasks that have ended; the others' are the same."""
    errors = [error for task in tasks if (error := task.exception()) is not None]
    if errors:
        raise errors[0]


def _without_confirm(budget: Budget | None) -> Budget | None:
    """Return what a budget bounds; None if it only asks whether to begin."""
    if budget is None:
        return None
    limits = (budget.money, budget.tokens, budget.calls, budget.seconds)
    if all(limit is None for limit in limits):
        return None
    return replace(budget, confirm=None)
