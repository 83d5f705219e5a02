"""TODO."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pandas_amr._agent.agent import NoInstruction
from pandas_amr._journal.cache import Keeper, _asks_no_more
from pandas_amr._journal.entries import Check, read_findings, readable_form
from pandas_amr._journal.first_format import former_piece
from pandas_amr._journal.keys import KEY_BYTES, fingerprint
from pandas_amr._map.agent import AgentMapper, Mapped
from pandas_amr._records.engine import aside
from pandas_amr._records.usage import Usage
from pandas_amr._types.arrow import table_of
from pandas_amr._types.canonical import canonical_json
from pandas_amr._units.shards import Shard
from pandas_amr.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._map.agent import Mapper
    from pandas_amr._units.units import Units


RECALLED_AT_ONCE = 20_000


@dataclass(slots=True)
class JournaledMapper:
    """A mapper whose findings are kept, and that asks for nothing that is known or being asked for just now.

    Attributes:
        by_shard: findings depend on their neighbours: the fingerprint is that of the whole shard and the place in it.
        shards: those of the first run, where another goes on with what it left open: the same call looks for them.
    """

    mapper: Mapper
    keeper: Keeper
    units: Units
    by_shard: bool = False
    shards: Sequence[Shard] = ()
    _keys: NDArray[np.uint8] | None = None
    _mark: tuple[int, int] | None = None

    @property
    def name(self) -> str | None:
        """The map's name."""
        return self.mapper.name

    @property
    def kind(self) -> FindingType | None:
        """What a finding is."""
        return self.mapper.kind

    @property
    def label(self) -> str:
        """What usage is listed under."""
        return self.keeper.label

    @property
    def check(self) -> Check:
        """Today's check of a finding."""
        assert self.kind is not None
        return Check(self.kind, made=not isinstance(self.mapper, AgentMapper))

    def keys(self, positions: Sequence[int], *, former: bool = False) -> list[bytes]:
        """The keys of units; of a shard's, where they depend on each other."""
        if not self.by_shard and former:
            return [
                self.keeper.key(one, former=True) for one in self._digests(positions, former=True)
            ]
        if not self.by_shard:
            return self._unit_keys(positions)
        if not self.shards:
            return self._shard_keys(positions, former=former)
        asked = set(positions)
        wholes = [one.positions for one in self.shards if not asked.isdisjoint(one.positions)]
        known: dict[int, bytes] = {}
        for whole in wholes:
            known.update(zip(whole, self._shard_keys(whole, former=former), strict=True))
        return [known[position] for position in positions]

    def _shard_keys(self, positions: Sequence[int], *, former: bool) -> list[bytes]:
        digests = self._digests(positions, former=former)
        mapper = self.mapper
        if isinstance(mapper, AgentMapper) and mapper.context is not None:
            digests = [*digests, b"context", *mapper.context.fingerprints(positions, former=former)]
        whole = fingerprint(*digests)
        numbers = range(len(positions))
        return [
            self.keeper.key(whole + number.to_bytes(4, "big"), former=former) for number in numbers
        ]

    def _digests(self, positions: Sequence[int], *, former: bool) -> list[bytes]:
        """Each unit's content, and what is asked of it where that differs."""
        digests = self.units.fingerprints(positions, former=former)
        mapper = self.mapper
        if not isinstance(mapper, AgentMapper) or mapper.instructions is None:
            return digests
        asked = [_said(mapper.instructions, position).encode() for position in positions]
        return [fingerprint(digest, words) for digest, words in zip(digests, asked, strict=True)]

    def _unit_keys(self, positions: Sequence[int]) -> list[bytes]:
        """Computed once a unit."""
        asked = self.units.asked
        if self._keys is None:
            self._keys = np.zeros((len(asked), KEY_BYTES), dtype=np.uint8)
        places = np.searchsorted(asked, np.asarray(positions, dtype=np.int64))
        unknown = places[~self._keys[places].any(axis=1)]
        if len(unknown):
            made = b"".join(
                self.keeper.key(one) for one in self._digests(asked[unknown].tolist(), former=False)
            )
            self._keys[unknown] = np.frombuffer(made, dtype=np.uint8).reshape(-1, KEY_BYTES)
        raw = self._keys[places].tobytes()
        return [raw[start : start + KEY_BYTES] for start in range(0, len(raw), KEY_BYTES)]

    async def recall_all(
        self, positions: Sequence[int]
    ) -> AsyncIterator[tuple[list[int], pa.Table]]:
        """What is known of many units, in parts. The rest is looked up again only once somebody else has written."""
        _asks_no_more(asyncio.current_task())
        mark = await self.keeper.mark()
        for start in range(0, len(positions), RECALLED_AT_ONCE):
            part = positions[start : start + RECALLED_AT_ONCE]
            yield await self._recall(part, await aside(self.keys, part, size=len(part)), part)
        self._mark = mark

    async def _looked_up(
        self, shard: Shard, positions: Sequence[int], keys: Sequence[bytes], *, waited: bool
    ) -> tuple[list[int], pa.Table]:
        """What is known of some of a shard's units by now."""
        assert self.kind is not None
        if not waited and await self.keeper.mark() == self._mark:
            return [], self.kind.arrow.empty_table()
        return await self._recall(positions, keys, shard.positions)

    async def _recall(
        self, positions: Sequence[int], keys: Sequence[bytes], whole: Sequence[int]
    ) -> tuple[list[int], pa.Table]:
        """The positions of the units that are known, and their findings, as today's check reads them.

        ``whole`` is the shard that they are of: where its units depend on each other, keys are made of all of it.
        """
        check = self.check
        texts = _by_position(positions, keys, await self.keeper.recall(keys))
        found: dict[int, dict[str, Any]] = await aside(read_findings, texts, check, size=len(texts))
        missing = [position for position in positions if position not in found]
        if missing and await self.keeper.has_former():
            wanted = set(missing)
            source = whole if self.by_shard else missing
            former = zip(
                source,
                await aside(partial(self.keys, former=True), source, size=len(source)),
                strict=True,
            )
            key_of = {position: key for position, key in former if position in wanted}
            known_texts = await self.keeper.recall(list(key_of.values()))
            texts = _by_position(list(key_of), list(key_of.values()), known_texts)
            found |= await aside(partial(read_findings, former=True), texts, check, size=len(texts))
        known = [position for position in positions if position in found]
        table: pa.Table = await aside(
            table_of, [found[one] for one in known], check.kind.arrow, size=len(known)
        )
        return known, table

    async def __call__(self, shard: Shard) -> Mapped:
        """Map what nobody knows; wait for what another map or run of this process is asking for."""
        keys = dict(zip(shard.positions, self.keys(shard.positions), strict=True))
        claims = self.keeper.journal.claims
        parts: list[Mapped] = []
        open_ = list(shard.positions)
        waited = False
        while open_ and not (parts and parts[-1].ended_by):
            # Of units that are alike one is asked; the others are known then.
            free = sorted(
                {keys[one]: one for one in reversed(open_) if keys[one] not in claims}.values()
            )
            if free:
                parts += await self._settled(shard, free, keys, waited=waited)
                settled = set(free)
                open_ = [position for position in open_ if position not in settled]
            else:
                await asyncio.wait([claims[keys[position]] for position in open_])
            waited = True
        cached = frozenset().union(*(part.cached for part in parts))
        self.keeper.recalled += len(cached)
        return joined(shard, self.name, parts, cached)

    async def _settled(
        self, shard: Shard, positions: list[int], keys: Mapping[int, bytes], *, waited: bool
    ) -> list[Mapped]:
        """Look these units up and have the rest mapped, while others who want them wait.

        They are claimed before they are looked up: what was asked for until then is in the journal.
        """
        held = {keys[position] for position in positions}
        self.keeper.claim(held)
        try:
            wanted = [keys[position] for position in positions]
            found, table = await self._looked_up(shard, positions, wanted, waited=waited)
            known = set(found)
            self.keeper.release(keys[position] for position in known)
            held -= {keys[position] for position in known}
            parts = [_part(shard, self.name, found, table)] if found else []
            rest = [position for position in positions if position not in known]
            return [*parts, await self._asked(shard, rest, keys)] if rest else parts
        except JournalError as error:
            assert self.kind is not None
            return [
                replace(_part(shard, self.name, [], self.kind.arrow.empty_table()), ended_by=error)
            ]
        finally:
            self.keeper.release(held)

    async def _asked(self, shard: Shard, positions: list[int], keys: Mapping[int, bytes]) -> Mapped:
        """Have these units mapped, and kept."""
        part = Shard(shard.number, shard.of, tuple(positions))
        mapper = self.mapper
        if isinstance(mapper, AgentMapper):
            pieces = Pieces(self.keeper, self.check)
            return await replace(mapper, keep=self._keep(keys), pieces=pieces)(part)
        mapped = await mapper(part)
        check = self.check
        forms = [readable_form(record, check) for record in mapped.table.to_pylist()]
        known = {
            keys[p]: form
            for p, form in zip(mapped.positions, forms, strict=True)
            if form is not None
        }
        try:
            if known:
                await self.keeper.keep(known)
        except JournalError as error:
            return replace(mapped, ended_by=error)
        return mapped

    def _keep(self, keys: Mapping[int, bytes]) -> Callable[[Mapping[int, dict[str, Any]]], Any]:
        async def keep(records: Mapping[int, dict[str, Any]]) -> None:
            inputs = None
            if self.keeper.journal.keep_inputs:
                lines = self.units.lines(list(records))
                inputs = {
                    keys[position]: line for position, line in zip(records, lines, strict=True)
                }
            await self.keeper.keep(
                {keys[position]: record for position, record in records.items()}, inputs
            )

        return keep


@dataclass(frozen=True, slots=True)
class Pieces:
    """The findings of pieces, kept by their text."""

    keeper: Keeper
    check: Check

    async def recall(self, lines: Sequence[str]) -> dict[int, dict[str, Any]]:
        """Those that are known, by number."""
        found = await self._found(dict(enumerate(lines)), former=False)
        missing = {number: line for number, line in enumerate(lines) if number not in found}
        if missing and await self.keeper.has_former():
            found |= await self._found(missing, former=True)
        return found

    async def _found(self, lines: Mapping[int, str], *, former: bool) -> dict[int, dict[str, Any]]:
        keys = [self._key(line, former=former) for line in lines.values()]
        texts = _by_position(list(lines), keys, await self.keeper.recall(keys))
        return read_findings(texts, self.check, former=former)

    async def keep(self, found: Mapping[str, dict[str, Any]]) -> None:
        """Make findings durable, by line."""
        await self.keeper.keep({self._key(line): form for line, form in found.items()})

    def _key(self, line: str, *, former: bool = False) -> bytes:
        if former:
            return self.keeper.key(former_piece(line), former=True)
        return self.keeper.key(fingerprint(b"piece", canonical_json(json.loads(line)).encode()))


def _by_position(
    positions: Sequence[int], keys: Sequence[bytes], texts: Mapping[bytes, str]
) -> dict[int, str]:
    """The entries that are known, by the positions of their units."""
    return {
        position: texts[key] for position, key in zip(positions, keys, strict=True) if key in texts
    }


def bare(mapper: Mapper) -> Mapper:
    """The mapper itself, without what keeps its findings."""
    return mapper.mapper if isinstance(mapper, JournaledMapper) else mapper


def _part(shard: Shard, name: str | None, positions: list[int], table: pa.Table) -> Mapped:
    return Mapped(
        shard, name, positions, table, frozenset(), [], Usage(), cached=frozenset(positions)
    )


def joined(
    shard: Shard, name: str | None, parts: Sequence[Mapped], cached: frozenset[int]
) -> Mapped:
    """What came of a shard, in parts, as one."""
    first, *rest = parts
    if not rest:
        return replace(first, shard=shard, map=name, cached=cached)
    positions = [position for part in parts for position in part.positions]
    order = np.argsort(np.asarray(positions, dtype=np.int64), kind="stable")
    table = pa.concat_tables([part.table for part in parts], promote_options="permissive").take(
        pa.array(order)
    )
    usage = first.usage
    for part in rest:
        usage += part.usage
    return Mapped(
        shard=shard,
        map=name,
        positions=[positions[index] for index in order],
        table=table,
        repaired=frozenset().union(*(part.repaired for part in parts)),
        failures=sorted(
            (one for part in parts for one in part.failures), key=lambda one: one.position
        ),
        usage=usage,
        form=next((part.form for part in parts if part.form), ""),
        ended_by=next((part.ended_by for part in parts if part.ended_by is not None), None),
        cached=cached,
    )


def _said(instructions: Callable[[int], str], position: int) -> str:
    """What is asked of a unit; where nothing is, it is not asked, and nothing is known of it."""
    try:
        return instructions(position)
    except NoInstruction as error:
        return f"\0{error}"
