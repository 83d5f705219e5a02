"""The map stage: all shards, side by side; findings become columns as they land, and leaves of the reduce tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from pandas_amr._call import finding_types
from pandas_amr._display import Progress
from pandas_amr._findings import Failure, FindingStore
from pandas_amr._mappers import AgentMapper, CallableMapper, Mapped, Mapper
from pandas_amr._synthesise import StaticTree, finding_inputs
from pandas_amr.engines.local import each

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pandas_amr._shards import Shard
    from pandas_amr._units import Units
    from pandas_amr._work import Work


class MapStage:
    """Maps the shards of a run; ``columns`` holds what was found so far."""

    def __init__(self, work: Work, units: Units, shards: list[Shard]) -> None:
        self._work = work
        self._units = units
        self._shards = shards
        self._mappers = _mappers(work, units)
        self._stores = {mapper.name: FindingStore(mapper.name, mapper.kind) for mapper in self._mappers}
        self._landed: dict[int, list[Mapped]] = {}

    async def run(self, tree: StaticTree | None) -> None:
        """Give every unit a finding or a failure; hand each shard's findings to the tree as they land."""
        work = self._work
        with Progress(shown=work.settings.progress, units=len(self._units.asked) * len(self._mappers)) as progress:
            async for mapped in each(self._one, self._drawn(), limit=work.parallelism):
                self._stores[mapped.map].add(mapped.positions, mapped.table)
                work.failures += _spread(mapped.failures, self._units)
                work.halted |= bool(mapped.failures) and work.settings.errors == "raise"
                size, failed = len(mapped.shard.positions), len(mapped.failures)
                progress.step(size, failed=failed, tokens=work.ledger.total.tokens)
                if tree is not None:
                    self._offer(tree, mapped)

    def findings(self) -> pd.DataFrame:
        """What was found so far: one row a unit, labelled like the frame, ``<NA>`` where there is nothing."""
        columns = {
            name: array
            for store in self._stores.values()
            for name, array in store.columns(self._units.asked, self._units.answered_by).items()
        }
        return pd.DataFrame(columns, index=self._work.job.frame.index)

    def _drawn(self) -> Iterator[tuple[Shard, Mapper]]:
        for shard in self._shards:
            for mapper in self._mappers:
                if self._work.halted:
                    return
                yield shard, mapper

    async def _one(self, item: tuple[Shard, Mapper]) -> Mapped:
        shard, mapper = item
        with self._work.trace.node("map", id=node_id(shard, mapper.name), units=len(shard.positions)) as node:
            mapped = await mapper(shard)
            node.usage = mapped.usage
            if mapped.failures:
                node.status = "partial" if mapped.positions else "failed"
            return mapped

    def _offer(self, tree: StaticTree, mapped: Mapped) -> None:
        """Hand a shard to the tree once all maps of it are there."""
        parts = self._landed.setdefault(mapped.shard.number, [])
        parts.append(mapped)
        if len(parts) < len(self._mappers):
            return
        del self._landed[mapped.shard.number]
        tree.offer(
            mapped.shard.number - 1,
            tuple(node_id(part.shard, part.map) for part in parts),
            finding_inputs([(part.positions, self._stores[part.map].named(part.table)) for part in parts], self._units),
        )


def node_id(shard: Shard, name: str | None) -> str:
    """A map node's name in the trace."""
    return f"map-{shard.number}" if name is None else f"map-{name}-{shard.number}"


def _mappers(work: Work, units: Units) -> list[Mapper]:
    """Who maps: the user's functions, and agents for the rest."""
    kinds = finding_types(work.job, work.plan)
    mappers: list[Mapper] = []
    for name in work.job.names:
        kind = kinds[name]
        if name in work.job.callables:
            mappers.append(CallableMapper(name, work.job.callables[name], kind, units))
            continue
        assert kind is not None
        mappers.append(
            AgentMapper(
                name=name,
                model=work.model,
                instruction=work.instruction(name),
                kind=kind,
                units=units,
                tools=work.tools,
                max_steps=work.settings.max_steps,
                max_repairs=work.max_repairs,
                alone=work.abilities.units_per_request == 1,
            )
        )
    return mappers


def _spread(failures: list[Failure], units: Units) -> Iterator[Failure]:
    """A unit that answers for several equal rows fails for all of them."""
    for failure in failures:
        for position in units.answered(failure.position).tolist():
            yield Failure(position, failure.shard, failure.who, failure.reason, failure.attempts, failure.map)
