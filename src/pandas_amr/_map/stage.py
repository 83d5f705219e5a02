"""The map stage: shards are mapped in parallel, and findings become columns."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from pandas_amr._context.progress import Progress
from pandas_amr._context.subrun import SharedRun, share_run, use_parent_run
from pandas_amr._context.wiring import is_embedded
from pandas_amr._findings.corrections import correct_units
from pandas_amr._findings.finding_type import only_list_type
from pandas_amr._findings.map_findings import EMPTY, SKIPPED, MapFindings, none_from_journal
from pandas_amr._findings.store import CORRECTED, FOUND, Failure, FindingStore, MapName
from pandas_amr._map.agent import AgentMapper
from pandas_amr._map.breaker import Breaker, Doom
from pandas_amr._map.cached import CachedFindings, CachedMapper
from pandas_amr._map.corrections import Corrector, recall_corrections
from pandas_amr._map.cut import (
    Sample,
    add_units,
    cut_first_run,
    cut_shards,
    cuts_empty,
    drop_empty,
    make_context,
)
from pandas_amr._map.found_before import FoundBefore
from pandas_amr._map.function import PipelineMapper
from pandas_amr._map.leaves import Leaves, Part
from pandas_amr._map.mappers import make_mappers
from pandas_amr._plan.call import Pipeline
from pandas_amr._records.concurrency import run_concurrently
from pandas_amr._records.counts import counted, counted_of
from pandas_amr._records.engine import in_thread
from pandas_amr._records.events import Failed, Landed
from pandas_amr._records.log import LOGGER
from pandas_amr._records.usage import describe_spend
from pandas_amr.errors import ColumnError, FailureWarning, JournalError, MapFailed, PlanWarning

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._findings.citations import MadeBy
    from pandas_amr._findings.corrections import Correction, Corrections
    from pandas_amr._map.leaves import FindingSink
    from pandas_amr._map.mapper import MappedShard, Mapper
    from pandas_amr._records.trace import Node
    from pandas_amr._records.usage import Usage
    from pandas_amr._units.redaction import Redaction
    from pandas_amr._units.rows import BoolArray, IntArray, ObjectArray, Positions
    from pandas_amr._units.shards import Shard
    from pandas_amr._units.units import Units


class Item(NamedTuple):
    """A shard, and who maps it."""

    shard: Shard
    mapper: Mapper


class MapNode(NamedTuple):
    """A shard that was mapped, by which map, and what that took."""

    shard: Shard
    map: MapName
    node: Node


class MapStage:
    """Maps the units of a run, shard by shard.

    Args:
        spec: what the run was asked for.
        services: what it works with.
        state: takes failures and warnings, and stops the stage.
        units: all units of the run.
        findings: what an earlier run found: only the rest is asked.
        sample: some of the units, each block a shard: only these are asked.
        breaker: decides when to give up; default: by what comes of these units alone.

    Attributes:
        sample: likewise; None if all units are asked.
        recalls_corrections: whether people may have said since what an earlier run's findings are.
    """

    recalls_corrections = False
    _nodes_of: dict[int, tuple[str, ...]] | None = None  # the nodes of each unit, once asked for
    _before: FoundBefore | None = None  # what was found before, once the journal was asked
    _open_rows = 0  # that are still to be mapped, by all maps

    def __init__(
        self,
        spec: Spec,
        services: Services,
        state: State,
        units: Units,
        findings: MapFindings | None = None,
        *,
        sample: Sample | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        self._spec = spec
        self._services = services
        self._state = state
        self._units = units
        self.sample = sample
        self._context = make_context(spec, units)
        self._breaker = breaker or make_breaker(spec)
        self.mappers = make_mappers(spec, services, units, self._context, self._breaker)
        self._is_first = findings is None  # nothing was found before, by a run or in the journal
        self._key_by_whole_shards()
        self.findings = findings or _no_findings(units, self.mappers)
        self._redactions = _redactions_of(spec)
        self._leaves = Leaves(self.findings, spec.plan.where, self._redactions)
        self._counter = _RowCounter(self.findings)
        self._nodes: list[MapNode] = []
        self._waiting: dict[int, dict[MapName, MappedShard]] = {}
        self._items = self._cut_all()

    def _key_by_whole_shards(self) -> None:
        """Make the keys of the shards of a first run, empty units among theirs.

        Without empty units a first run has no others, and neither has a sample.
        """
        has_others = not self._is_first and self.sample is None
        if not has_others and not len(self._units.empty):
            return
        for mapper in self.mappers:
            if isinstance(mapper, CachedMapper) and mapper.keys.by_shard:
                mapper.keys.use_shards(self._all_shards)

    def _ask_failed_units(self) -> None:
        """Ask again what an earlier run found to fail, however long ago: this is its retry."""
        for mapper in self.mappers:
            if isinstance(mapper, CachedMapper):
                mapper.asks_failed_units = True

    def _cut_all(self) -> list[Item]:
        """Cut what is still to be asked into shards, for each map."""
        items: list[Item] = []
        for mapper in self.mappers:
            shards = self._cut(mapper)
            items += [Item(shard, mapper) for shard in shards]
        if self._is_first:  # all maps have the same shards: side by side, each is soon complete
            items.sort(key=lambda item: item.shard.number)
        rows = [self._count_rows(shard.positions) for shard, _ in items]
        self._open_rows = sum(rows)
        return items

    @cached_property
    def _rows(self) -> int:
        """How many rows the stage is about."""
        if self.sample is None:
            return len(self._units)
        return self._count_rows(self.sample.positions)

    def _count_rows(self, positions: Positions) -> int:
        """Count the rows that some asked units answer."""
        units = np.asarray(positions, dtype=np.int64)
        places = np.searchsorted(self._units.asked, units)
        rows = self._counter.rows[places]
        return int(rows.sum())

    def _cut(self, mapper: Mapper) -> list[Shard]:
        if not self._is_first:
            return self._cut_open(self._is_open(mapper.name))
        warns = mapper is self.mappers[0]  # all maps have the same shards
        shards = self._cut_open(self._is_open_or_empty, warns=warns)
        if mapper.reads_empty_units:
            return shards
        return drop_empty(shards, self._units)

    @property
    def _is_open_or_empty(self) -> BoolArray:
        """Tell which of the asked units are cut into shards."""
        if self.sample is None and cuts_empty(self._spec):
            return self._is_open_for_any | self._units.is_empty
        return self._is_open_for_any

    @property
    def open_shards(self) -> list[Shard]:
        """The shards of units that some map is still to be asked about, without empty units."""
        is_open = self._is_open_or_empty
        if not self._is_first:
            is_open = self._is_open_for_any & ~self._units.is_empty
        shards = drop_empty(self._cut_open(is_open), self._units)
        return [shard for shard in shards if shard.positions]

    def _cut_open(self, is_open: BoolArray, *, warns: bool = False) -> list[Shard]:
        unmapped = self._units.only(is_open)
        if self.sample is not None:
            blocks = self.sample.blocks_of(unmapped.asked)
            return cut_shards(self._spec, unmapped, blocks)
        groups = None
        if self._context is not None:
            groups = self._context.groups(unmapped.asked)
        shards = cut_shards(self._spec, unmapped, groups)
        if warns and groups is not None:
            count = len(np.unique(groups))
            if len(shards) > count:
                self._warn_of_split_groups()
        return shards

    def _warn_of_split_groups(self) -> None:
        plan = self._spec.plan
        size, tokens = plan.shard_size, plan.shard_tokens
        message = (
            f"Some groups are larger than a shard ({size} units, {tokens} tokens) and are read in "
            "parts. Fix plan={'shard_size': ..., 'shard_tokens': ...}."
        )
        self._state.warnings.append(PlanWarning(message))

    def shards_of(self, name: MapName) -> list[Shard]:
        """Return the shards that a map is still to be asked about."""
        return [shard for shard, mapper in self._items if mapper.name == name]

    @property
    def open(self) -> IntArray:
        """The units that some map is still to be asked about."""
        return self._units.asked[self._is_open_for_any]

    @property
    def _is_open_for_any(self) -> BoolArray:
        by_map = [self._is_open(name) for name in self.findings.statuses]
        is_open: BoolArray = np.logical_or.reduce(by_map)
        return is_open

    def _is_open(self, name: MapName) -> BoolArray:
        """Tell which of the asked units a map is still to be asked about."""
        if self.findings.is_closed:
            return np.zeros(len(self._units.asked), dtype=bool)
        is_open = np.isin(self.findings.statuses[name], (SKIPPED, "failed"))
        is_open &= ~self.findings.from_journal[name]  # failures that are not asked again yet
        if name in self.findings.left:
            is_open &= ~self.findings.left[name]
        if self.sample is None:
            return is_open
        return is_open & np.isin(self._units.asked, self.sample.positions)

    @property
    def leaves(self) -> int:
        """How many batches a reduce tree gets: one per shard of a first run."""
        if self._is_first:
            return len(self._items) // len(self.mappers)
        return len(self._all_shards)

    @cached_property
    def _all_shards(self) -> list[Shard]:
        """Shards as a first run cuts them: the tree of a later run asks the same questions."""
        shards = cut_first_run(self._spec, self._units, self._context)
        if cuts_empty(self._spec):
            return shards
        return add_units(shards, self._corrected_empty_units)

    @property
    def _corrected_empty_units(self) -> list[int]:
        """Return the units without content of which a person said what the finding is."""
        is_corrected = np.zeros(len(self._units.asked), dtype=bool)
        for column in self.findings.statuses.values():
            is_corrected |= column == CORRECTED
        units = self._units.asked[is_corrected & self._units.is_empty]
        corrected: list[int] = units.tolist()
        return corrected

    async def correct(self, corrections: Corrections) -> None:
        """Put what a person says in place of what was found, and keep it in the journal.

        Args:
            corrections: by the map's name and the unit's position; None takes one back.

        Raises:
            UsageError: rows of equal content are corrected in different ways; nothing is changed.
        """
        shards: Sequence[Shard] = ()
        if self._spec.plan.keyed == "shard":
            shards = self._all_shards
        corrector = Corrector(
            self.mappers,
            self.findings,
            self._state,
            shards,
            has_journal=self._services.journal is not None,
        )
        self.findings = await corrector.correct(corrections)
        self._state.findings = self.findings
        self._leaves = Leaves(self.findings, self._spec.plan.where, self._redactions)
        self._counter = _RowCounter(self.findings)

    async def recall(self) -> None:
        """Take from the journal what it has, unit by unit; then shards are cut of the rest."""
        self._begin_steps()
        self._before = FoundBefore(self._services, self.findings)
        is_earlier = self._before.has_finding
        if self.findings.is_retry:
            self._ask_failed_units()
        if not self.findings.is_closed:
            await self._recall_open()
        if self.findings.has_corrections:
            await self._redact_corrections()
        self._before.trace_all(is_earlier)

    async def _redact_corrections(self) -> None:
        """Redact what reducers read of all maps: a person wrote some of it.

        What agents found of redacted text is redacted already, but stands in the same columns.
        """
        redaction = self._spec.job.redaction
        if redaction is None or not self._spec.is_written:
            return
        self._redactions = dict.fromkeys(self._spec.job.names, redaction)
        self._leaves = Leaves(self.findings, self._spec.plan.where, self._redactions)
        for name, store in self.findings.stores.items():
            _, table = store.by_position()
            await self._redact(name, table)

    async def _recall_open(self) -> None:
        """Take from the journal what it has of the units that are still to be asked."""
        is_first = self._is_first
        for mapper in self.mappers:
            if isinstance(mapper, CachedMapper):
                await self._recall_map(mapper, is_first=is_first)
        if not self._is_first:
            self._items = await self._services.run_large(self._spec, self._cut_all)

    async def _recall_map(self, mapper: CachedMapper, *, is_first: bool) -> None:
        """Take what the journal has of one map: findings, and failures not to be asked again."""
        if mapper.keys.by_shard:
            await self._recall_corrections(mapper, is_first=is_first)
            return
        unmapped = self._open_units(mapper)
        async for found in mapper.look_up_all(unmapped):
            await self._redact(mapper.name, found.table)
            if found.positions:
                self._is_first = False
                mapper.cache.count_recalled(len(found.positions))
                self._add_cached(mapper.name, found)
        await self._recall_corrections(mapper, is_first=is_first)
        failures = await mapper.recall_failures(self._open_units(mapper))
        self._add_remembered(mapper.name, failures)

    def _open_units(self, mapper: Mapper) -> list[int]:
        """Return the units that a map is still to be asked about."""
        is_open = self._is_open(mapper.name)
        units: list[int] = self._units.asked[is_open].tolist()
        return units

    async def _recall_corrections(self, mapper: CachedMapper, *, is_first: bool) -> None:
        """Take from the journal what a person said of units, in place of what was found.

        Units without content are among them, and in a first run those that the journal knows.
        """
        parts = mapper.for_corrections()
        if self.sample is not None or not await parts.cache.is_known():
            return
        is_open = self._is_open(mapper.name)
        is_empty = self.findings.statuses[mapper.name] == EMPTY
        is_wanted = is_open | is_empty | (is_first or self.recalls_corrections)
        positions = self._units.asked[is_wanted].tolist()
        shards: Sequence[Shard] = ()
        if mapper.keys.by_shard:
            shards = self._all_shards
        corrections = await recall_corrections(parts, positions, shards)
        if corrections:
            mapper.keys.use_shards(shards)
            open_units = self._units.asked[is_open].tolist()
            self._add_corrections(mapper, corrections, open_units)

    def _add_corrections(
        self, mapper: CachedMapper, corrections: Mapping[int, Correction], open_units: list[int]
    ) -> None:
        """Put what a person said, as the journal has it, in place of what was found."""
        assert mapper.kind is not None
        self._is_first = False
        new = [position for position in open_units if position in corrections]
        mapper.cache.recalled += len(new)
        correct_units(self.findings, mapper.name, mapper.kind, corrections, from_journal=True)
        self._counter = _RowCounter(self.findings)
        self._open_rows -= self._count_rows(new)
        self._report_progress()

    def _add_cached(self, name: MapName, found: CachedFindings) -> None:
        positions = found.positions
        self.findings.stores[name].add(positions, found.table)
        places = np.searchsorted(self._units.asked, positions)
        with self._counter.changing(name, places):
            self.findings.statuses[name][places] = "ok"
            self._set_repaired(name, found.repaired)
            self.findings.from_journal[name][places] = True
        self._open_rows -= self._count_rows(positions)
        self._report_progress()
        self._show(name, positions, found.table)
        self._tell_landed(positions)

    def _add_remembered(self, name: MapName, failures: Sequence[Failure]) -> None:
        """Add the units that failed before, and are not asked again yet."""
        if not failures:
            return
        self._is_first = False
        positions = [failure.position for failure in failures]
        places = np.searchsorted(self._units.asked, positions)
        with self._counter.changing(name, places):
            self.findings.statuses[name][places] = "failed"
            self.findings.from_journal[name][places] = True
        self._list_failures(failures)
        self._tell_failed(failures)
        self._state.halted |= self._spec.settings.errors == "raise"
        self._open_rows -= self._count_rows(positions)
        self._report_progress()

    def _list_failures(self, failures: Sequence[Failure]) -> None:
        """List the rows of units that failed."""
        for failure in failures:
            rows = self._units.answered(failure.position)
            for row in rows.tolist():
                self._state.failures.append(replace(failure, position=row))

    def _set_repaired(self, name: MapName, positions: Collection[int]) -> None:
        places = np.searchsorted(self._units.asked, sorted(positions))
        self.findings.statuses[name][places] = "repaired"

    async def count_unknown_rows(self) -> int:
        """Count the rows that a model at a server would be asked about, by any map."""
        unknown: set[int] = set()
        for shard, mapper in self._items:
            agent = mapper.mapper if isinstance(mapper, CachedMapper) else mapper
            if not isinstance(agent, AgentMapper) or self._is_embedded(agent):
                continue
            if isinstance(mapper, CachedMapper) and mapper.keys.by_shard:
                unknown.update(await mapper.find_unknown(shard))
            else:
                unknown.update(shard.positions)
        return self._count_rows(sorted(unknown))

    def _is_embedded(self, mapper: AgentMapper) -> bool:
        agent = self._spec.job.map_agents.get(mapper.name)
        return is_embedded(self._spec.lm("map", agent))

    async def run(self, sink: FindingSink | None) -> None:
        """Give every unit a finding or a failure; ``sink`` gets each shard's findings."""
        self._begin_steps()
        workers = self._arm_breaker()
        items = self._draw(sink)
        async for mapped in run_concurrently(self._map_item, items, limit=workers):
            if mapped is not None:
                checked = self._check_columns(mapped)
                self._land(checked, sink)
        if self._breaker.doom is not None:
            self._give_up(self._breaker.doom)
        else:
            await self._write_failures()
            if self.findings.left and not self.findings.is_closed:
                self._warn_of_left()
        if sink is not None and not self._offers_as_they_land and not self._state.halted:
            await self.offer_all(sink)

    async def offer_all(self, sink: FindingSink, made_by: MadeBy | None = None) -> None:
        """Offer all that is found, in the shards of a first run.

        Args:
            sink: takes it.
            made_by: names the nodes behind a row, if others than this stage's have mapped it.
        """
        await self._leaves.offer_all(sink, self._all_shards, made_by or self.made_by)

    async def _write_failures(self) -> None:
        """Have the journal remember the failures that waited for the end of the map."""
        try:
            for mapper in self.mappers:
                if isinstance(mapper, CachedMapper):
                    await mapper.write_failures()
        except JournalError as error:
            self._state.end(error)

    def _begin_steps(self) -> None:
        """Say that the map begins, and how far it is."""
        self._report_progress()
        steps = self._services.watch.steps
        if steps.rows:
            steps.begin_map(len(self._items), is_written=self._spec.is_written)

    def _arm_breaker(self) -> int:
        """Have the breaker watch the maps, and return how many shards to begin at once."""
        shards: dict[MapName, int] = {mapper.name: 0 for mapper in self.mappers}
        for shard, mapper in self._items:
            if isinstance(mapper, PipelineMapper):
                shards[mapper.name] += len(shard.positions)  # each row of a recipe is like one
            elif shard.positions:
                shards[mapper.name] += 1
        items = len(self._items)
        parallelism = self._services.parallelism(self._spec)
        limit = min(parallelism, max(1, items))
        return self._breaker.arm(shards, items=items, limit=limit, on_doom=self._halt)

    def _warn_of_left(self) -> None:
        """Warn of rows that an earlier run skipped and this one leaves so."""
        left = list(self.findings.left.values())
        is_left = np.logical_or.reduce(left)
        is_left_row = is_left[self._units.answered_by]
        rows = int(is_left_row.sum())
        if rows:
            message = (
                f"{rows} rows were skipped by a run that gave up, and are not run again here; "
                "the same call asks about them."
            )
            self._state.warnings.append(FailureWarning(message))

    def _halt(self, doom: Doom) -> None:
        """Begin no more shards, and tell it at once."""
        self._state.halted = True
        total = self._services.ledger.total
        reason = doom.describe(is_quoted=False)
        LOGGER.warning("The run gives up: %s %s.", reason, _describe_total(total))
        self._services.watch.has_logged_stop = True

    def _give_up(self, doom: Doom) -> None:
        """End the run, once what was under way has ended, too."""
        skipped = self.findings.rows_with(SKIPPED)
        spend = _describe_total(self._services.ledger.total)
        parts = [f"{doom.describe()} {spend}."]
        if skipped:
            skipped_rows = counted_of(skipped, len(self._units), "row")
            parts.append(f"{skipped_rows} are skipped; the same call asks about them.")
        parts += [doom.advise(), 'plan={"give_up_after": None} goes on whatever fails.']
        self._state.end(MapFailed(" ".join(parts)))

    def _land(self, mapped: MappedShard, sink: FindingSink | None) -> None:
        """Add what came of a shard, and show it."""
        self._add(mapped)
        rows = self._count_rows(mapped.shard.positions)
        self._open_rows -= rows
        self._report_progress()
        self._show(mapped.map, mapped.positions, mapped.table)
        if self._services.trace.listeners:
            node = self._node_name(mapped.shard, mapped.map)
            is_whole = len(mapped.positions) == len(mapped.shard.positions)
            landed_rows = rows if is_whole else None
            self._tell_landed(mapped.positions, node, landed_rows)
            self._tell_failed(mapped.failures, node)
        if sink is not None and self._offers_as_they_land:
            self._offer(sink, mapped)

    def _tell_landed(
        self, positions: Sequence[int], node: str | None = None, rows: int | None = None
    ) -> None:
        """Tell whoever listens what is found, in which node, if it was not found here."""
        trace = self._services.trace  # to that of a dry run nobody listens
        if not trace.listeners or not positions:
            return
        at = trace.at_node(node)
        if rows is None:
            rows = self._count_rows(positions)
        trace.emit(Landed(*at, units=len(positions), rows=rows))

    def _tell_failed(self, failures: Sequence[Failure], node: str | None = None) -> None:
        """Tell whoever listens what has failed, by who did."""
        trace = self._services.trace
        if not trace.listeners:
            return
        by_who: dict[str, list[int]] = {}
        for failure in failures:
            by_who.setdefault(failure.who, []).append(failure.position)
        for who, positions in by_who.items():
            at = trace.at_node(node)
            rows = self._count_rows(positions)
            trace.emit(Failed(*at, units=len(positions), rows=rows, who=who))

    @property
    def _offers_as_they_land(self) -> bool:
        """Whether findings can be read shard by shard.

        Those of a function without a type cannot: only all of them tell the columns. Nor those of a
        run that goes on: its shards are not the batches of a first run.
        """
        if not self._is_first:
            return False
        return all(mapper.kind is not None for mapper in self.mappers)

    def _draw(self, sink: FindingSink | None) -> Iterator[Item]:
        """Give one shard after the other, until the run is halted."""
        for item in self._items:
            has_failed = sink is not None and sink.failed
            if self._state.halted or has_failed:
                self._breaker.release()  # no further shard comes that could decide
                return
            yield item

    async def _map_item(self, item: Item) -> MappedShard | None:
        """Map one shard; None if the run was halted before its turn."""
        shard, mapper = item
        async with self._breaker.mapping(mapper.name, shard.number):
            if self._state.halted:
                return None
            return await self._map_as_node(shard, mapper)

    async def _map_as_node(self, shard: Shard, mapper: Mapper) -> MappedShard:
        """Map one shard, as a node of the trace."""
        spec, services, state = self._spec, self._services, self._state
        name = self._node_name(shard, mapper.name)
        units = shard.positions
        with services.trace.node(
            "map", id=name, parents=services.parents(units), units=len(units)
        ) as node:
            shared: SharedRun | None = None
            if spec.job.pipelines:
                shared = share_run(spec, services, state, f"{name}/")
            with use_parent_run(shared):
                mapped = await mapper.map_shard(shard)
                await self._redact(mapper.name, mapped.table)
            if shared is not None:
                node.parents += tuple(sorted(shared.ends, key=_natural_key))
            # Here, and not when the findings are added: until then others would begin a shard.
            if mapped.ended_by is not None:
                state.end(mapped.ended_by)
            state.halted |= bool(mapped.failures) and spec.settings.errors == "raise"
            self._nodes.append(MapNode(shard, mapper.name, node))
            self._describe_node(node, mapped)
            return mapped

    async def _redact(self, name: MapName, table: pa.Table) -> None:
        """Redact the texts that a function found, in a thread; they are known from then on."""
        redaction = self._redactions.get(name)
        if redaction is None or not table.num_rows:
            return
        place = "a finding" if name is None else f"a finding of the map {name!r}"
        for column in table.columns:
            values = column.to_pylist()
            await in_thread(redaction.values, values, place)

    def _describe_node(self, node: Node, mapped: MappedShard) -> None:
        node.usage = mapped.usage
        node.form = mapped.form or self._form_without_agent(mapped)
        agent = self._spec.job.map_agents.get(mapped.map)
        if self._spec.has_repl("map", agent):
            node.sandbox = self._spec.sandbox_tier
        if mapped.failures or mapped.ended_by is not None:
            node.status = "partial" if mapped.positions else "failed"

    def _form_without_agent(self, mapped: MappedShard) -> str:
        """Say who mapped a shard, if no agent did: a function, a recipe, the journal."""
        if mapped.positions and len(mapped.cached) == len(mapped.positions):
            return "journal"
        function = self._spec.job.callables.get(mapped.map)
        if function is None:
            return ""
        return "recipe" if isinstance(function, Pipeline) else "function"

    def _node_name(self, shard: Shard, name: MapName) -> str:
        """Name a map's node in the trace."""
        prefix = self._services.prefix
        if name is None:
            return f"{prefix}map-{shard.number}"
        return f"{prefix}map-{name}-{shard.number}"

    def _check_columns(self, mapped: MappedShard) -> MappedShard:
        """Check that a shard's columns go with those of the others; else its units fail.

        Raises:
            ColumnError: two columns would have one name, and no model is asked for anything.
        """
        problem = self.findings.stores[mapped.map].find_clash(mapped.table)
        if problem is None and mapped.positions:
            problem = self._find_doubled_name(mapped)
            if problem is not None and not self._spec.job.needs_model:
                raise ColumnError(problem)
        if problem is None:
            return mapped
        self._state.halted |= self._spec.settings.errors == "raise"
        failures = list(mapped.failures)
        shard = mapped.shard.number
        for position in mapped.positions:
            failure = Failure(position, shard, "callable", problem, 1, mapped.map)
            failures.append(failure)
        return replace(mapped, positions=[], table=pa.table({}), failures=failures)

    def _find_doubled_name(self, mapped: MappedShard) -> str | None:
        """Say which column of a function without a type would be there twice; None if none would.

        Which columns it gives is known only now, and their names depend on how many there are.
        """
        stores = self.findings.stores
        columns = stores[mapped.map].labels(mapped.table)
        for name, store in stores.items():
            if name == mapped.map:
                continue
            doubled = set(columns).intersection(store.labels())
            if doubled:
                first, second = [own for own in stores if own in {name, mapped.map}]
                column = min(doubled, key=columns.index)
                return (
                    f"The maps {first!r} and {second!r} both give a column {column!r}; "
                    "name them apart."
                )
        hidden = [column for column in columns if column in self._taken_labels]
        if not hidden:
            return None
        column = hidden[0]
        whose = "the map" if mapped.map is None else f"the map {mapped.map!r}"
        return f"The column {column!r} of {whose} would hide one of the frame; rename one of them."

    @cached_property
    def _taken_labels(self) -> frozenset[Hashable]:
        """The labels that no column of a finding may have."""
        labels = self._units.frame.columns
        status_columns = self._spec.plan.status_columns or ()
        return frozenset({*labels, *labels.get_level_values(0), *status_columns})

    def _add(self, mapped: MappedShard) -> None:
        """Add what came of a shard to the findings, statuses and failures."""
        self.findings.stores[mapped.map].add(mapped.positions, mapped.table)
        name, asked = mapped.map, self._units.asked
        statuses = self.findings.statuses[name]
        from_journal = self.findings.from_journal[name]
        known = sorted(mapped.cached | mapped.remembered)
        failed = [failure.position for failure in mapped.failures]
        places = np.searchsorted(asked, mapped.shard.positions)
        with self._counter.changing(name, places):
            statuses[np.searchsorted(asked, mapped.positions)] = "ok"
            self._set_repaired(name, mapped.repaired.intersection(mapped.positions))
            from_journal[np.searchsorted(asked, known)] = True
            statuses[np.searchsorted(asked, failed)] = "failed"
        self._list_failures(mapped.failures)

    def _show(self, name: MapName, positions: list[int], table: pa.Table) -> None:
        """Show findings to whoever watches."""
        named = self.findings.stores[name].named(table)
        self._services.watch.landed(positions, named, self._units)

    def _report_progress(self) -> None:
        """Say how far the run is: before its findings are shown, so that none is seen uncounted."""
        counter, maps = self._counter, len(self.mappers)
        progress = Progress(
            units=self._rows * maps - counter.empty,
            found=counter.found,
            failed=counter.failed,
            cached=counter.cached,
        )
        self._services.watch.show_progress(progress, open_rows=self._open_rows, maps=maps)

    def made_by(self, position: int) -> tuple[str, ...]:
        """Name the nodes that found something of a row, or had it from before."""
        if self._nodes_of is None:
            self._nodes_of = {}
            for shard, mapper in self._items:
                name = self._node_name(shard, mapper.name)
                for one in shard.positions:
                    earlier = self._nodes_of.get(one, ())
                    self._nodes_of[one] = (*earlier, name)
        place = int(self._units.answered_by[position])
        unit = int(self._units.asked[place])
        nodes = self._nodes_of.get(unit, ())
        if self._before is None:
            return nodes
        return self._before.nodes_of(place) + nodes

    def keys_of(self, position: int) -> dict[MapName, bytes]:
        """Return the keys of the findings of a row in the journal, by map; none without one."""
        place = self._units.answered_by[position]
        unit = int(self._units.asked[place])
        keys: dict[MapName, bytes] = {}
        for mapper in self.mappers:
            if not isinstance(mapper, CachedMapper):
                continue
            whole = [unit]
            if mapper.keys.by_shard:
                whole = self._shard_with(unit, mapper)
            if unit in whole:
                number = whole.index(unit)
                keys[mapper.name] = mapper.keys.of(whole)[number]
        return keys

    def _shard_with(self, unit: int, mapper: Mapper) -> list[int]:
        """Return the units of the shard of a unit; none if it is in no shard of the run."""
        for shard, own in self._items:
            if own is mapper and unit in shard.positions:
                return list(shard.positions)
        return []

    def model_nodes(self) -> list[MapNode]:
        """List the shards that a model was asked about, by which map, and what that took."""
        return [mapped for mapped in self._nodes if mapped.node.usage.calls]

    def _offer(self, sink: FindingSink, mapped: MappedShard) -> None:
        """Hand a shard on once all its maps are there, in their order, whichever was first."""
        number = mapped.shard.number
        by_map = self._waiting.setdefault(number, {})
        by_map[mapped.map] = mapped
        if len(by_map) < len(self.mappers):
            return
        del self._waiting[number]
        nodes: list[str] = []
        parts: list[Part] = []
        for mapper in self.mappers:
            part = by_map[mapper.name]
            nodes.append(self._node_name(part.shard, part.map))
            parts.append(Part(part.map, part.positions, part.table))
        inputs = self._leaves.inputs(parts)
        sink.offer(number - 1, tuple(nodes), inputs)


class _RowCounter:
    """Counts the rows that have a finding, some from the journal, that failed, and that are empty.

    All maps count together.

    Attributes:
        rows: how many rows each of the asked units answers.
    """

    def __init__(self, findings: MapFindings) -> None:
        self._statuses = findings.statuses
        self._from_journal = findings.from_journal
        units = findings.units
        self.rows = np.bincount(units.answered_by, minlength=len(units.asked))
        self.found = 0
        self.failed = 0
        self.empty = 0  # does not change
        self.cached = 0
        everywhere = np.arange(len(units.asked))
        for name, column in self._statuses.items():
            is_empty = column == EMPTY
            self.empty += int(self.rows[is_empty].sum())
            self._add(name, everywhere, 1)

    def _add(self, name: MapName, places: NDArray[np.int_], sign: int) -> None:
        rows = self.rows[places]
        statuses = self._statuses[name][places]
        is_found = np.zeros(len(places), dtype=bool)
        for status in FOUND:  # np.isin() takes ten times as long for few
            is_found |= statuses == status
        is_failed = statuses == "failed"
        is_cached = is_found & self._from_journal[name][places]
        self.found += sign * int(rows[is_found].sum())
        self.failed += sign * int(rows[is_failed].sum())
        self.cached += sign * int(rows[is_cached].sum())

    @contextmanager
    def changing(self, name: MapName, places: NDArray[np.int_]) -> Iterator[None]:
        """Let the statuses of some of the asked units change in the block."""
        self._add(name, places, -1)
        yield
        self._add(name, places, 1)


def make_breaker(spec: Spec, earlier: Breaker | None = None) -> Breaker:
    """Make what decides when a stage gives up, from what came of an earlier one of the same run."""
    is_batch = bool(spec.lms) and spec.lm("map").batch
    return Breaker(spec.plan.give_up_after, in_order=not is_batch, earlier=earlier)


def _no_findings(units: Units, mappers: Sequence[Mapper]) -> MapFindings:
    """Make the findings that a first run begins with."""
    stores: dict[MapName, FindingStore] = {}
    statuses: dict[MapName, ObjectArray] = {}
    for mapper in mappers:
        column: ObjectArray = np.full(len(units.asked), SKIPPED, dtype=object)
        if not mapper.reads_empty_units:
            column[units.is_empty] = EMPTY
        statuses[mapper.name] = column
        stores[mapper.name] = FindingStore(mapper.name, mapper.kind)
    list_type = only_list_type([mapper.kind for mapper in mappers])
    return MapFindings(units, stores, statuses, none_from_journal(statuses), list_type)


def _redactions_of(spec: Spec) -> dict[MapName, Redaction]:
    """Return what the findings of functions pass before an agent reads them.

    The functions are the user's and read the rows as they are.
    """
    if spec.job.redaction is None or not spec.is_written:
        return {}
    return dict.fromkeys(spec.job.callables, spec.job.redaction)


def _describe_total(total: Usage) -> str:
    """Say in words what was spent."""
    requests = counted(total.tries, "request")
    spend = describe_spend(total) or "nothing"
    return f"{requests} and {spend} were spent"


def _natural_key(node: str) -> list[tuple[int, str]]:
    """Return what sorts a node's name: its numbers as numbers."""
    key: list[tuple[int, str]] = []
    for part in re.split(r"(\d+)", node):
        if part.isdigit():
            key.append((int(part), ""))
        else:
            key.append((0, part))
    return key
