"""The story of what is larger than memory: one plan, part by part, one reduce over all parts."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pandas_amr._context.part_progress import PartsProgress
from pandas_amr._map.breaker import Breaker
from pandas_amr._records.engine import in_thread
from pandas_amr._reduce.sources import ReduceOutcome
from pandas_amr._reduce.stage import reduce
from pandas_amr._result.part_files import joined_schema
from pandas_amr._run.outcome import describe_failed_rows
from pandas_amr._run.part_rows import collect_part_rows
from pandas_amr._run.part_run import (
    PartRun,
    PlacedPart,
    digest_corrections,
    digest_question,
    has_few_rows,
    node_of_part,
)
from pandas_amr._run.pipeline import PLANNING, Pipeline
from pandas_amr._run.stored_plan import digest_call, read_stored_plan, write_plan
from pandas_amr._run.streamed_outcome import make_streamed_result
from pandas_amr.errors import BudgetExceeded, FailureWarning, MapFailed, PlanWarning

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

    from pandas_amr._context.progress import Watch
    from pandas_amr._plan.plan import Plan
    from pandas_amr._result.part_files import WrittenPart
    from pandas_amr._result.result import Result
    from pandas_amr._run.execution import Execution
    from pandas_amr._run.preview import Draft
    from pandas_amr._units.batches import InputPart


class StreamedPipeline(Pipeline):
    """A run over an input that is read part by part, each of which becomes a file of its folder."""

    def __init__(self, execution: Execution, watch: Watch) -> None:
        super().__init__(execution, watch)
        assert execution.stream is not None
        self._source = execution.stream.source
        self._folder = execution.stream.folder
        self._parts: dict[int, WrittenPart] = {}
        self._in_flight: dict[asyncio.Task[None], PartRun] = {}
        self._breaker = Breaker()
        self._progress = PartsProgress(watch, self._source.rows, len(self.spec.job.names))
        self._schemas: dict[str | None, pa.Schema] = {}
        self._corrections = ""

    async def carry_out(self) -> Result | Draft:
        """Plan, map what is not mapped yet part by part, and reduce over all parts."""
        async with AsyncExitStack() as stack:
            self._folder.open()
            stack.callback(self._folder.close)
            await self._open_models(stack)
            await self._begin_journal(stack)
            await self._redact()
            self.state.stage = PLANNING
            await self._plan()
            self._folder.question = await in_thread(digest_question, self.spec, self.services)
            self._corrections = await digest_corrections(self.spec, self.services)
            self._warn_of_others()
            await self.issue_warnings()
            outcome = await self._map_and_reduce_parts()
            self.state.stage = "its result"
            self._result = await in_thread(self._make_result, outcome)
            return self._result

    async def _derive_plan(self) -> tuple[Plan, PlanWarning | None]:
        """Take the plan of an earlier run into the same folder, or ask the planner."""
        call = digest_call(self.spec.job)
        if not self._asks_all_again:
            stored = read_stored_plan(self._folder, call, self.spec.job)
            if stored is not None:
                return stored, None
        plan, warning = await super()._derive_plan()
        write_plan(self._folder, call, plan)
        return plan, warning

    def _warn_of_others(self) -> None:
        """Warn of parts that are mapped again, and of units that parts keep apart."""
        others, segmentation = len(self._folder.others), self.spec.plan.segmentation
        if others:
            message = (
                f"{others} parts in {str(self._folder.path)!r} were made by another plan, model or "
                "function, and are mapped again."
            )
            self.state.warnings.append(PlanWarning(message))
        if segmentation in {"neighbours", "groups"}:
            message = (
                f"segmentation={segmentation!r}: with out= a row's {segmentation} end where its "
                "part ends."
            )
            self.state.warnings.append(PlanWarning(message))

    async def _map_and_reduce_parts(self) -> ReduceOutcome:
        """Map, then reduce, until the budget's seconds are used up."""
        spec, services, state = self.spec, self.services, self.state
        state.stage = "its map"
        try:
            async with services.time_limit(spec):
                await self._map_parts()
                if state.ended_by is None and not state.halted:
                    await in_thread(self._finish_folder)
                    self._warn_of_failed_rows()
                    await self.issue_warnings()
                    if spec.job.reduces:
                        return await self._reduce_parts()
        except BudgetExceeded as error:
            state.end(error)
        return ReduceOutcome(None)

    async def _map_parts(self) -> None:
        """Map the parts in order; small ones side by side, and the next one is read meanwhile."""
        services = self.services
        services.watch.steps.begin_map(1, is_written=self.spec.is_written)
        try:
            offset = 0
            async for number, input_part in self._read_parts():
                await self._wait_for_room(input_part)
                if self.state.halted:
                    break
                if input_part.table is None:
                    await self._keep(number, input_part)
                else:
                    self._begin(number, input_part, offset)
                offset += input_part.rows
            await self._wait_until(0)
        finally:
            await self._stop_parts()

    async def _read_parts(self) -> Any:
        """Read one part after the other, each with its number."""
        done = {key: part.rows for key, part in self._same.items() if self._is_done(part)}
        parts: Iterator[InputPart] = self._source.parts(done)
        number = 0
        while not self.state.halted:
            input_part = await in_thread(next, parts, None)
            if input_part is None:
                return
            yield number, input_part
            number += 1

    @property
    def _asks_all_again(self) -> bool:
        """Whether the user wants nothing of earlier runs to be used."""
        journal = self.services.journal
        return journal is not None and journal.refresh

    @property
    def _same(self) -> Mapping[str, WrittenPart]:
        """The parts of earlier runs that were asked the same; none if all is asked again."""
        return {} if self._asks_all_again else self._folder.same

    def _is_done(self, part: WrittenPart) -> bool:
        """Tell whether nothing is left to do for a part of an earlier run."""
        if self.services.journal is not None and part.corrections != self._corrections:
            return False
        return not part.failed

    async def _wait_for_room(self, input_part: InputPart) -> None:
        """Wait until a part can be mapped beside those that are under way.

        Functions of the user's run as often at once as the plan says, so that there are no two
        parts of them; nor are there two until the first one has shown that anything succeeds.
        """
        if not self._in_flight:
            return
        is_alone = bool(self.spec.job.callables) or not self._parts
        while self._in_flight:
            beside = [one.placed.input for one in self._in_flight.values()]
            if not is_alone and has_few_rows([*beside, input_part]):
                return
            await self._wait_until(len(self._in_flight) - 1)
            is_alone = bool(self.spec.job.callables)

    async def _wait_until(self, most: int) -> None:
        """Wait until at most so many parts are under way.

        Raises:
            Exception: a part's. No further one is begun; those under way are finished.
        """
        while len(self._in_flight) > most:
            done, _ = await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                del self._in_flight[task]
                if task.exception() is not None:
                    self._halt()
                    if self._in_flight:
                        await asyncio.wait(self._in_flight)
                    task.result()

    async def _stop_parts(self) -> None:
        """Stop what is still under way: the run is cancelled, or its time is over."""
        for task in self._in_flight:
            task.cancel()
        if self._in_flight:
            await asyncio.wait(self._in_flight)

    def _begin(self, number: int, input_part: InputPart, offset: int) -> None:
        """Begin to map a part."""
        before = self._same.get(input_part.key)
        run = PartRun(
            self.spec,
            self.services,
            PlacedPart(number, offset, input_part, before, self._corrections),
            watch=self._progress.begin(number, input_part.rows),
            earlier=self._breaker,
            schemas=self._schemas,
        )
        task = asyncio.get_running_loop().create_task(self._map_part(run))
        self._in_flight[task] = run

    async def _map_part(self, run: PartRun) -> None:
        """Map a part, and write it if all of it could be mapped."""
        try:
            new = await run.map()
        finally:
            run.breaker.disarm()  # else its stage, and so the part's rows, stay until a collection
        self._breaker = run.breaker
        self._add_warnings(run)
        if new is None:
            if run.state.ended_by is not None or run.state.failures:
                self._stop_for(run)
            return
        part = await in_thread(self._folder.write, new)
        self._schemas |= run.schemas
        self._parts[run.placed.number] = part
        self._progress.end(run.placed.number)

    def _stop_for(self, run: PartRun) -> None:
        """Begin nothing more: a part ended the run, or has a failure that is raised."""
        error, placed = run.state.ended_by, run.placed
        if isinstance(error, MapFailed):
            error.args = (f"{placed.input.name}: {error}",)
        if error is None:
            first = run.state.sorted_failures(self.spec.job.names)[0]
            row = placed.offset + first.position
            error = MapFailed(
                f"{placed.input.name}: a unit failed, row {row}: {first.reason} ({first.who})"
            )
        self.state.end(error)
        self._halt()

    def _halt(self) -> None:
        """Begin no more shards, in none of the parts."""
        super()._halt()
        for run in self._in_flight.values():
            run.state.halted = True

    def _add_warnings(self, run: PartRun) -> None:
        """Take over the warnings of a part that no part before had."""
        known = {str(warning) for warning in self.state.warnings}
        for warning in run.state.warnings:
            if str(warning) not in known:
                self.state.warnings.append(warning)

    async def _keep(self, number: int, input_part: InputPart) -> None:
        """Take a part over that an earlier run has made."""
        earlier = self._same[input_part.key]
        name = node_of_part(number)
        with self.services.trace.node("recalled", id=name, units=earlier.rows) as node:
            node.form = "result"
            part = await in_thread(self._folder.keep, earlier, number)
        self._parts[number] = part
        self._progress.skip(part.rows, part.counts)

    def _finish_folder(self) -> None:
        """Give all parts the same types, and remove those that others have replaced."""
        parts = self.parts
        schema = joined_schema(parts)
        for number, part in sorted(self._parts.items()):
            if not part.schema.equals(schema):
                self._parts[number] = self._folder.rewrite(part, schema)
        self._folder.keep_only(self.parts)

    @property
    def parts(self) -> list[WrittenPart]:
        """The parts that are written, in the order of the input."""
        return [self._parts[number] for number in sorted(self._parts)]

    def _warn_of_failed_rows(self) -> None:
        """Warn once of rows that failed, if what the verb gives does not show it."""
        failed = sum(part.failed for part in self.parts)
        self.state.has_warned_of_units = True
        if not failed or self.spec.settings.errors == "raise":
            return
        rows = sum(part.rows for part in self.parts)
        message = describe_failed_rows(self.spec, failed, rows)
        if message:
            self.state.warnings.append(FailureWarning(message))

    async def _reduce_parts(self) -> ReduceOutcome:
        """Reduce over the columns of the parts that the reduce needs, as over a frame in memory."""
        self.state.stage = "its reduce"
        self.services.watch.steps.begin_reduce()
        nodes = frozenset(node.id for node in self.services.trace.nodes)
        read = await in_thread(collect_part_rows, self.spec, self.parts, nodes)
        spec = replace(self.spec, job=read.job)
        self.state.findings = read.findings
        self.state.failures += read.failures
        outcome = await reduce(spec, self.services, self.state, read.units, read.rows)
        self.state.findings = None  # as large as all else together
        completed: ReduceOutcome = await in_thread(read.complete, outcome)
        return completed

    def _make_result(self, outcome: ReduceOutcome) -> Result:
        return make_streamed_result(
            self.spec,
            self.services,
            self.state,
            self._folder.path,
            self.parts,
            outcome,
            schema=self._source.schema,
            unread=self._count_unread(),
            raises=self._ends_in_error,
        )

    def _count_unread(self) -> int:
        """Count the rows that a run which stopped early did not come to; 0 if nothing tells."""
        rows = self._source.rows
        if self.state.end_reason is None or rows is None:
            return 0
        return max(0, rows - sum(part.rows for part in self.parts))

    def partial_result(self) -> Result:
        """Return the result, or what was found until now."""
        return self._result if self._result is not None else self._make_result(ReduceOutcome(None))

    @property
    def has_spent(self) -> bool:
        """Whether a request was sent or the journal asked, or a part is there."""
        return bool(self._parts) or super().has_spent
