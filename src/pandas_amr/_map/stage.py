"""The map stage: all shards, side by side; findings become columns as they land, and leaves of the reduce tree."""

from __future__ import annotations

import asyncio
import functools
import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from pandas_amr._agent.agent import NoInstruction, check_instruction
from pandas_amr._agent.threads import called_here
from pandas_amr._context.progress import Progress, ProgressBar
from pandas_amr._context.work import standing_inside
from pandas_amr._findings.citations import nodes_behind
from pandas_amr._findings.columns import items_frame
from pandas_amr._findings.held import SKIPPED, Kept
from pandas_amr._findings.inputs import Input, finding_inputs
from pandas_amr._findings.store import FOUND, Failure, FindingStore
from pandas_amr._journal.first_format import former_dtypes, former_persona
from pandas_amr._journal.keys import Question
from pandas_amr._map.agent import AgentMapper, Mapped, Mapper
from pandas_amr._map.cached import JournaledMapper
from pandas_amr._map.function import CallableMapper, UnitMapper
from pandas_amr._plan.call import ONE_ROW, VERSION, finding_types
from pandas_amr._records.concurrency import each
from pandas_amr._records.raised import described
from pandas_amr._units.cells import cell, json_keys
from pandas_amr._units.neighbours import CONTEXT_ROWS, Context
from pandas_amr._units.profile import preview
from pandas_amr._units.shards import Shard, make_shards
from pandas_amr.errors import ColumnError, PlanWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pandas_amr._agent.agent import Agent
    from pandas_amr._context.work import Work
    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._journal.cache import Keeper
    from pandas_amr._records.trace import Node
    from pandas_amr._reduce.agent import StaticTree
    from pandas_amr._units.units import Units

    Answered: TypeAlias = tuple[Shard, str | None, Node]

INSTRUCTIONS = 10_000


@dataclass(frozen=True)
class Sample:
    """Some of the asked units, in blocks: ``blocks`` has a number for each of ``positions``."""

    positions: NDArray[np.int64]
    blocks: NDArray[np.int64]

    def blocks_of(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The blocks of some of them."""
        order = np.argsort(self.positions)
        return self.blocks[order][np.searchsorted(self.positions[order], positions)]


class MapStage:
    """Maps the units of a run, shard by shard; holds what was found so far.

    With ``kept``, only the units that have no finding yet are asked; with ``sample``, only some, each block a shard.
    """

    def __init__(
        self, work: Work, units: Units, kept: Kept | None = None, *, sample: Sample | None = None
    ) -> None:
        self._work = work
        self._units = units
        self._sample = sample
        self._context = context_of(work, units)
        self._mappers = make_mappers(work, units, self._context)
        if kept is not None and sample is None:
            for mapper in self._mappers:
                if isinstance(mapper, JournaledMapper) and mapper.by_shard:
                    mapper.shards = self._all_shards
        self._fresh = kept is None
        self.kept = kept or Kept(
            units,
            stores={
                mapper.name: FindingStore(mapper.name, mapper.kind) for mapper in self._mappers
            },
            statuses={
                mapper.name: np.full(len(units.asked), SKIPPED, dtype=object)
                for mapper in self._mappers
            },
            listed=_listed(self._mappers),
        )
        self._sizes = np.bincount(units.answered_by, minlength=len(units.asked))
        everything = np.arange(len(units.asked))
        self._counted = sum(
            (self._count(name, everything) for name in self.kept.statuses), np.zeros(2, dtype=int)
        )
        self._items: list[tuple[Shard, Mapper]] = []
        self._landed: dict[int, dict[str | None, Mapped]] = {}
        self._nodes: list[tuple[Shard, str | None, Node]] = []
        self._node_of: dict[int, tuple[str, ...]] | None = None
        self._cut_all()

    def _cut_all(self) -> None:
        self._items = [(shard, mapper) for mapper in self._mappers for shard in self._cut(mapper)]
        if (
            self._fresh
        ):  # all maps have the same shards: side by side, so that each is soon complete
            self._items.sort(key=lambda item: item[0].number)

    async def recall(self) -> None:
        """Take from the journal what it has, unit by unit, before shards are cut of the rest."""
        for mapper in self._mappers:
            if not isinstance(mapper, JournaledMapper) or mapper.by_shard:
                continue
            statuses = self.kept.statuses[mapper.name]
            async for found, table in mapper.recall_all(
                self._units.asked[self._open(mapper.name)].tolist()
            ):
                if found:
                    self._fresh = False
                    self.kept.stores[mapper.name].add(found, table)
                    known = np.searchsorted(self._units.asked, found)
                    self._counted -= self._count(mapper.name, known)
                    statuses[known] = "cached"
                    self._counted += self._count(mapper.name, known)
                    self._tell()
                    mapper.keeper.recalled += len(found)
                    self._landing(mapper.name, found, table)
        if not self._fresh:
            await self._work.aside(self._cut_all)

    @property
    def open(self) -> NDArray[np.int64]:
        """The units that some map is still to be asked about."""
        return self._units.asked[
            np.logical_or.reduce([self._open(name) for name in self.kept.statuses])
        ]

    def _open(self, name: str | None) -> NDArray[np.bool_]:
        """Which of the asked units a map is still to be asked about."""
        wanted = np.isin(self.kept.statuses[name], (SKIPPED, "failed"))
        return (
            wanted
            if self._sample is None
            else wanted & np.isin(self._units.asked, self._sample.positions)
        )

    @property
    def leaves(self) -> int:
        """How many batches of findings a reduce tree gets: as many as shards would be cut of all that is asked."""
        return len(self._items) // len(self._mappers) if self._fresh else len(self._all_shards)

    @cached_property
    def _all_shards(self) -> list[Shard]:
        """Shards as the first run cuts them, whatever was found before, so that a tree is asked what it was asked."""
        groups = self._context.groups(self._units.asked) if self._context is not None else None
        return cut(self._work, self._units, groups)

    @property
    def _offers_as_they_land(self) -> bool:
        """Whether a shard's findings are read as they land: of a function without a type, only all tell the columns."""
        return self._fresh and all(mapper.kind is not None for mapper in self._mappers)

    async def run(self, tree: StaticTree | None) -> None:
        """Give every unit a finding or a failure; hand each shard's findings to the tree as they land."""
        work = self._work
        total = sum(len(shard.positions) for shard, _ in self._items)
        with (
            ProgressBar(shown=work.settings.progress, units=total) as progress,
            work.watch.waits.shown_by(progress.wait),
        ):
            self._tell()
            limit = min(work.parallelism, max(1, len(self._items)))
            async for done in each(self._one, self._drawn(tree), limit=limit):
                mapped = self._joinable(done)
                self._keep(mapped)
                told = self._tell()
                self._landing(mapped.map, mapped.positions, mapped.table)
                size, failed = len(mapped.shard.positions), len(mapped.failures)
                progress.step(size, failed=failed, tokens=told.tokens)
                if tree is not None and self._offers_as_they_land:
                    self._offer(tree, mapped)
        if tree is not None and not self._offers_as_they_land and not work.halted:
            await self._offer_all(tree)

    def _landing(self, name: str | None, positions: list[int], table: pa.Table) -> None:
        """Show findings to whoever watches."""
        self._work.watch.landed(positions, self.kept.stores[name].named(table), self._units)

    def _count(self, name: str | None, places: NDArray[np.int_]) -> NDArray[np.int_]:
        """How many rows have a finding, and how many failed, among some of the asked units."""
        statuses, sizes = self.kept.statuses[name][places], self._sizes[places]
        return np.array([sizes[np.isin(statuses, FOUND)].sum(), sizes[statuses == "failed"].sum()])

    def _tell(self) -> Progress:
        """Say how far the run is: before its findings are shown, so that none is seen that was not counted."""
        total = self._work.ledger.total
        progress = Progress(
            units=len(self._units) * len(self._mappers),
            found=int(self._counted[0]),
            failed=int(self._counted[1]),
            calls=total.calls,
            tokens=total.tokens,
            seconds=self._work.trace.seconds,
        )
        self._work.watch.told(progress)
        return progress

    def made_by(self, position: int) -> tuple[str, ...]:
        """The nodes that found something of a row; none where the journal had it."""
        if self._node_of is None:
            self._node_of = {}
            for shard, mapper in self._items:
                for one in shard.positions:
                    self._node_of[one] = (
                        *self._node_of.get(one, ()),
                        self._named(shard, mapper.name),
                    )
        return self._node_of.get(int(self._units.asked[self._units.answered_by[position]]), ())

    @property
    def mappers(self) -> list[Mapper]:
        """Who maps."""
        return self._mappers

    def answered(self) -> Iterator[Answered]:
        """The shards that a model was asked about, by which map, and what that took."""
        return (one for one in self._nodes if one[2].usage.calls)

    def _cut(self, mapper: Mapper) -> list[Shard]:
        asked = self._units.only(self._open(mapper.name))
        if self._sample is not None:
            return cut(self._work, asked, self._sample.blocks_of(asked.asked))
        groups = self._context.groups(asked.asked) if self._context is not None else None
        shards = cut(self._work, asked, groups)
        first = mapper is self._mappers[0] and self._fresh
        if groups is not None and first and len(shards) > len(np.unique(groups)):
            size, tokens = self._work.plan.shard_size, self._work.plan.shard_tokens
            said = f"Some groups are larger than a shard ({size} units, {tokens} tokens) and are read in parts."
            self._work.warnings.append(
                PlanWarning(f"{said} Fix plan={{'shard_size': ..., 'shard_tokens': ...}}.")
            )
        return shards

    def _joinable(self, mapped: Mapped) -> Mapped:
        """What came of a shard; where its columns do not go with those of others, the failure of its units.

        Raises:
            ColumnError: they do not by their names, and no model is asked for anything.
        """
        problem = self.kept.stores[mapped.map].clash(mapped.table)
        if problem is None:
            problem = self._doubled(mapped) if mapped.positions else None
            if problem is not None and not self._work.job.needs_model:
                raise ColumnError(problem)
        if problem is None:
            return mapped
        self._work.halted |= self._work.settings.errors == "raise"
        failures = [
            Failure(one, mapped.shard.number, "callable", problem, 1, mapped.map)
            for one in mapped.positions
        ]
        return replace(
            mapped, positions=[], table=pa.table({}), failures=[*mapped.failures, *failures]
        )

    def _doubled(self, mapped: Mapped) -> str | None:
        """Why a column of a function without a type would be there twice; None where none would.

        Which columns it gives is known only now, and with more than one they are called otherwise than the only one.
        """
        columns = self.kept.stores[mapped.map].labels(mapped.table)
        for name, store in self.kept.stores.items():
            others = [] if name == mapped.map else store.labels()
            if both := [column for column in columns if column in others]:
                first, second = (one for one in self.kept.stores if one in {name, mapped.map})
                return f"The maps {first!r} and {second!r} both give a column {both[0]!r}; name them apart."
        labels = self._units.frame.columns
        taken = {*labels, *labels.get_level_values(0), *(self._work.plan.status_columns or ())}
        if hidden := [column for column in columns if column in taken]:
            whose = "the map" if mapped.map is None else f"the map {mapped.map!r}"
            return f"The column {hidden[0]!r} of {whose} would hide one of the frame; rename one of them."
        return None

    def _keep(self, mapped: Mapped) -> None:
        self.kept.stores[mapped.map].add(mapped.positions, mapped.table)
        statuses, asked = self.kept.statuses[mapped.map], self._units.asked
        places = np.searchsorted(asked, mapped.shard.positions)
        self._counted -= self._count(mapped.map, places)
        statuses[np.searchsorted(asked, mapped.positions)] = "ok"
        for position in mapped.repaired.intersection(mapped.positions):
            statuses[np.searchsorted(asked, position)] = "repaired"
        if mapped.cached:
            statuses[np.searchsorted(asked, sorted(mapped.cached))] = "cached"
        for failure in mapped.failures:
            statuses[np.searchsorted(asked, failure.position)] = "failed"
        self._counted += self._count(mapped.map, places)
        self._work.failures += _spread(mapped.failures, self._units)

    def _drawn(self, tree: StaticTree | None) -> Iterator[tuple[Shard, Mapper]]:
        for item in self._items:
            if self._work.halted or (tree is not None and tree.failed):
                return
            yield item

    async def _one(self, item: tuple[Shard, Mapper]) -> Mapped:
        shard, mapper = item
        name = self._named(shard, mapper.name)
        with self._work.trace.node("map", id=name, units=len(shard.positions)) as node:
            node.parents = self._work.before(shard.positions)
            room = self._work.room(f"{name}/") if self._work.job.pipelines else None
            with standing_inside(room):
                mapped = await mapper(shard)
            node.parents += tuple(sorted(room.ends, key=_by_number)) if room is not None else ()
            # Told here, and not when the findings are kept: until then other workers would begin another shard.
            if mapped.ended_by is not None:
                self._work.end(mapped.ended_by)
            self._work.halted |= bool(mapped.failures) and self._work.settings.errors == "raise"
            node.usage = mapped.usage
            self._nodes.append((shard, mapper.name, node))
            node.form = mapped.form
            who = self._work.job.map_agents.get(mapper.name)
            node.sandbox = self._work.tier if self._work.has_repl("map", who) else ""
            if mapped.failures:
                node.status = "partial" if mapped.positions else "failed"
            return mapped

    def _named(self, shard: Shard, name: str | None) -> str:
        """A map node's name in the trace."""
        own = f"map-{shard.number}" if name is None else f"map-{name}-{shard.number}"
        return self._work.prefix + own

    def _offer(self, tree: StaticTree, mapped: Mapped) -> None:
        """Hand a shard to the tree once all maps of it are there: in the order of the maps, whichever was first."""
        landed = self._landed.setdefault(mapped.shard.number, {})
        landed[mapped.map] = mapped
        if len(landed) < len(self._mappers):
            return
        del self._landed[mapped.shard.number]
        parts = [landed[mapper.name] for mapper in self._mappers]
        nodes = tuple(self._named(part.shard, part.map) for part in parts)
        found = [(part.map, part.positions, part.table) for part in parts]
        tree.offer(mapped.shard.number - 1, nodes, self._inputs(found))

    def _inputs(self, found: Sequence[tuple[str | None, Sequence[int], pa.Table]]) -> list[Input]:
        """Render a batch of findings for reducers, as ``reduce_inputs`` renders all of them."""
        parts: list[tuple[Sequence[int], Mapping[str, Any]]] = []
        for name, positions, table in found:
            columns = self.kept.stores[name].arrays(table)
            if self.kept.listed is None:
                parts.append((positions, columns))
                continue
            records, places = items_frame(pd.DataFrame(columns), self.kept.listed)
            behind = np.asarray(positions, dtype=np.int64)[places].tolist()
            parts.append((behind, {label: records[label].array for label in records.columns}))
        return finding_inputs(
            parts, self._answered, where=self._meant if self._work.plan.where else None
        )

    def _answered(self, position: int) -> list[int]:
        """List the rows that a unit answers for."""
        rows: list[int] = self._units.answered(position).tolist()
        return rows

    def _meant(self, position: int, record: Mapping[str, Any]) -> bool:
        """Tell whether the plan's ``where`` holds for a record; it names a field, or else a column of the frame."""
        where = str(self._work.plan.where)
        return (
            record[where] if where in record else cell(self._units.frame[where].iloc[position])
        ) is True

    async def _offer_all(self, tree: StaticTree) -> None:
        """Hand over everything, in the batches of a first run."""
        held = {name: store.by_position() for name, store in self.kept.stores.items()}
        for leaf, shard in enumerate(self._all_shards):
            found = []
            for name, (positions, table) in held.items():
                rows = np.searchsorted(positions, shard.positions)
                there = [
                    (position, row)
                    for position, row in zip(shard.positions, rows.tolist(), strict=True)
                    if row < len(positions) and positions[row] == position
                ]
                part = table.take(pa.array([row for _, row in there], pa.int64()))
                found.append((name, [position for position, _ in there], part))
            tree.offer(leaf, nodes_behind(self.made_by, shard.positions), self._inputs(found))
            await asyncio.sleep(0)  # others' turn: there may be as many as rows


def _listed(mappers: Sequence[Mapper]) -> FindingType | None:
    kind = mappers[0].kind
    return kind if len(mappers) == 1 and kind is not None and kind.item is not None else None


def cut(work: Work, units: Units, groups: NDArray[np.int64] | None) -> list[Shard]:
    """The asked units in shards as the plan has them; with ``groups``, none of two of them."""
    size, tokens = work.plan.shard_size, work.plan.shard_tokens
    assert size is not None
    assert tokens is not None
    return make_shards(
        units.asked, units.tokens, shard_size=size, shard_tokens=tokens, groups=groups
    )


def context_of(work: Work, units: Units) -> Context | None:
    """What units are judged in the light of; None where each is judged alone."""
    plan = work.plan
    if plan.segmentation in {None, "rows"} or work.job.all_callable:
        return None
    assert plan.segmentation is not None
    labels = list(work.job.frame.columns)
    columns = tuple(labels.index(label) for label in plan.group_columns or ())
    return Context(units, plan.segmentation, plan.context_rows or CONTEXT_ROWS, columns)


def make_mappers(work: Work, units: Units, context: Context | None) -> list[Mapper]:
    """Who maps: the user's functions, and agents for the rest."""
    kinds = finding_types(work.job, work.plan)
    mappers: list[Mapper] = []
    for name in work.job.names:
        kind = kinds[name]
        if name in work.job.callables:
            function = work.job.callables[name]
            if hasattr(function, ONE_ROW):
                one_row = getattr(function, ONE_ROW)
                mappers.append(UnitMapper(name, one_row, kind, units, work.parallelism))
                continue
            plain = CallableMapper(name, function, kind, units, raises=not work.job.needs_model)
            version = getattr(plain.function, VERSION, None)
            mappers.append(_journaled_function(plain, work, version) if version and kind else plain)
            continue
        assert kind is not None
        who = work.job.map_agents.get(name)
        sessions = work.sessions("map", who)
        agent = AgentMapper(
            name=name,
            model=work.model("map", who),
            instruction=work.instruction(name),
            kind=kind,
            units=units,
            persona=who.persona if who else "",
            window=work.window("map", who),
            instructions=_of_rows(who, units),
            tools=work.tools("map", who),
            max_steps=work.max_steps(who),
            max_repairs=work.max_repairs,
            alone=work.abilities("map", who).units_per_request == 1,
            max_tokens=work.plan.shard_tokens or 1,
            count=work.counter("map", who),
            merge=work.plan.merge or {},
            repls=sessions.of_shard if sessions else None,
            preview=(lambda positions: preview(units.rows(positions)))
            if work.plan.view == "preview"
            else None,
            changed=sessions.changed if sessions else None,
            context=context,
        )
        mappers.append(_journaled_agent(agent, work, who))
    return mappers


def _of_rows(agent: Agent | None, units: Units) -> Callable[[int], str] | None:
    """What an agent's function says of the row at a position."""
    if agent is None or isinstance(agent.instruction, str):
        return None
    function = agent.instruction

    @functools.lru_cache(
        INSTRUCTIONS
    )  # a shard's are needed more than once, and are the same each time
    def known(position: int) -> str | NoInstruction:
        try:
            return check_instruction(called_here(function, units.frame.iloc[position]))
        except NoInstruction as error:
            return error
        except Exception as error:  # noqa: BLE001 (the function is the user's; what it raises is that unit's failure)
            return NoInstruction(f"its instruction raised {described(error)}", attempts=0)

    def instruct(position: int) -> str:
        instruction = known(position)
        if isinstance(instruction, NoInstruction):
            raise instruction
        return instruction

    return instruct


def _journaled_function(mapper: CallableMapper, work: Work, version: str) -> Mapper:
    """The function with its findings kept, if there is a journal; whatever model the rest of the run asks."""
    assert mapper.kind is not None
    parts = {"function": getattr(mapper.function, "__qualname__", ""), "version": version}
    former = _view_of(work) | {"alone": False} | _former_surroundings(work)
    if work.plan.view == "preview" or work.has_repl("map"):
        former["kinds"] = former_dtypes(mapper.units.frame)
    question = Question(parts=parts, finding=mapper.kind.model, former=former)
    return _journaled(mapper, work, work.keeper("finding", "map", question, function=True))


def _journaled_agent(mapper: AgentMapper, work: Work, agent: Agent | None) -> Mapper:
    """The agent with its findings kept, if there is a journal."""
    parts: dict[str, Any] = _view_of(work) | {"alone": mapper.alone}
    former: dict[str, Any] = {"instruction": mapper.instruction, "persona": former_persona(agent)}
    former |= _former_surroundings(work)
    if mapper.instructions is None:  # else what is asked of each unit is part of its key
        parts["instruction"] = mapper.instruction
    if mapper.context is not None:
        neighbours = mapper.context.segmentation == "neighbours"
        parts["segmentation"] = [
            mapper.context.segmentation,
            *([mapper.context.rows] if neighbours else []),
        ]
    if work.plan.view == "preview" or work.has_repl("map", agent):
        parts["kinds"] = _kinds(mapper.units)
        former["kinds"] = former_dtypes(mapper.units.frame)
    question = Question(parts=parts, finding=mapper.kind.model, agent=agent, former=former)
    return _journaled(mapper, work, work.keeper("finding", "map", question, agent))


def _journaled(mapper: AgentMapper | CallableMapper, work: Work, keeper: Keeper | None) -> Mapper:
    if keeper is None:
        return mapper
    return JournaledMapper(mapper, keeper, mapper.units, by_shard=work.plan.keyed == "shard")


def _view_of(work: Work) -> dict[str, Any]:
    """How units are shown, and how the findings of a long one's pieces become one."""
    return {"view": work.plan.view, "merge": work.plan.merge or {}}


def _former_surroundings(work: Work) -> dict[str, Any]:
    if work.plan.segmentation in {None, "rows"}:
        return {}
    return {"segmentation": [work.plan.segmentation, work.plan.context_rows]}


def _kinds(units: Units) -> list[list[str]]:
    """Of which kind each column is that code sees, in a letter that is the same for all types that hold its values.

    A column that is missing one value may be held otherwise: whole numbers as floats, bools and dates as objects.
    """
    kinds: list[list[str]] = []
    for number, label in enumerate(json_keys(list(units.frame.columns))):
        kinds.append([label, _letter(units.frame.iloc[:, number])])
    return sorted(kinds)


def _letter(column: pd.Series) -> str:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return "c"
    kind = str(getattr(column.dtype, "kind", "O"))
    if kind in "OSUV":
        kind = _INFERRED.get(pd.api.types.infer_dtype(column, skipna=True), "O")
    return "n" if kind in "iuf" else kind


_INFERRED = {
    "integer": "n",
    "floating": "n",
    "mixed-integer-float": "n",
    "boolean": "b",
    "datetime": "M",
    "datetime64": "M",
    "timedelta": "m",
    "timedelta64": "m",
}


def _by_number(node: str) -> list[tuple[int, str]]:
    """A node's name as it is sorted: its numbers as such."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", node)]


def _spread(failures: list[Failure], units: Units) -> Iterator[Failure]:
    """A unit that answers for several equal rows fails for all of them."""
    for failure in failures:
        for position in units.answered(failure.position).tolist():
            yield Failure(
                position, failure.shard, failure.who, failure.reason, failure.attempts, failure.map
            )
