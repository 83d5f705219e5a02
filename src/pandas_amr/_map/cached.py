"""The journal around a mapper: what is known is not asked, and what is found is kept."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa

from pandas_amr._agent.transcriber import note_keys, note_origins, writes_transcripts
from pandas_amr._findings.store import Failure, MapName, Record
from pandas_amr._journal.cache import AnswerCache, release_claim
from pandas_amr._journal.entries import Check, find_readable_form, read_findings
from pandas_amr._journal.first_format import hash_former_piece
from pandas_amr._journal.keys import KEY_BYTES, fingerprint
from pandas_amr._journal.origins import join_origins
from pandas_amr._journal.outcomes import RememberedFailure
from pandas_amr._map.mapper import MappedShard, Mapper
from pandas_amr._records.engine import run_off_loop
from pandas_amr._records.trace import record_wait
from pandas_amr._records.usage import NO_USAGE
from pandas_amr._types.arrow_values import make_table
from pandas_amr._types.canonical import canonical_json
from pandas_amr._units.shards import Shard
from pandas_amr.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from numpy.typing import NDArray

    ByteArray: TypeAlias = NDArray[np.uint8]

    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._journal.claims import Claim
    from pandas_amr._journal.origins import Origins, RowOrigins
    from pandas_amr._map.breaker import Breaker
    from pandas_amr._units.units import Units

KeyByUnit: TypeAlias = "Mapping[int, bytes]"  # in the journal, by the unit's position
# Returns the positions of the rows that are shown beside a shard of some units.
ShownWith: TypeAlias = "Callable[[Sequence[int]], Sequence[int]]"
LOOK_UP_SIZE = 20_000  # keys in one look-up

Id = TypeVar("Id")


class CachedFindings(NamedTuple):
    """What the journal has of some units.

    Attributes:
        positions: the units.
        table: their findings, one row per position.
        repaired: those whose finding came in a repair turn.
    """

    positions: list[int]
    table: pa.Table
    repaired: frozenset[int] = frozenset()


class UnitKeys:
    """The keys of units in the journal, made once per unit.

    Args:
        mapper: gives the fingerprints that keys are made of.
        cache: adds what all answers depend on.
        units: all units of the run.
        by_shard: whether a finding depends on the other units of its shard: then its key is made of
            all of them, and of its place among them.
    """

    def __init__(self, mapper: Mapper, cache: AnswerCache, units: Units, *, by_shard: bool) -> None:
        self._mapper = mapper
        self._cache = cache
        self._units = units
        self.by_shard = by_shard
        self._shard_of: dict[int, Shard] = {}
        self._known: ByteArray | None = None
        self._digests: ByteArray | None = None

    def of(self, positions: Sequence[int], *, former: bool = False) -> list[bytes]:
        """Return the keys of some units, which are those of one shard if keys are ``by_shard``.

        Args:
            positions: the units.
            former: whether keys are made as the journal's first format made them.
        """
        if not self.by_shard and former:
            digests = self._mapper.unit_fingerprints(positions, former=True)
            return [self._cache.key(digest, former=True) for digest in digests]
        if not self.by_shard:
            return self._keys_of_units(positions)
        if not self._shard_of:
            return self._keys_of_shard(positions, former=former)
        keys: dict[int, bytes] = {}
        for shard in dict.fromkeys(self._shard_of[position] for position in positions):
            of_shard = self._keys_of_shard(shard.positions, former=former)
            keys.update(zip(shard.positions, of_shard, strict=True))
        return [keys[position] for position in positions]

    def use_shards(self, shards: Sequence[Shard]) -> None:
        """Make keys of these shards, if only a part of their units is asked.

        A run that goes on asks about some units, and no run about empty ones: but the same call
        looks for whole shards, and so did those before it.
        """
        self._shard_of = {}
        for shard in shards:
            self._shard_of.update(dict.fromkeys(shard.positions, shard))

    def shard_of(self, position: int, default: Sequence[int]) -> tuple[int, ...]:
        """Return the units of the whole shard of a unit; ``default`` if no other is known."""
        shard = self._shard_of.get(position)
        if shard is None:
            return tuple(default)
        return shard.positions

    def find_repeated(self) -> frozenset[bytes]:
        """Return the keys that several of the units have whose keys were asked for.

        Such units were not told apart by what is shown of them: 1 and 1.0, or not at all.
        """
        if self._known is None:
            return frozenset()
        known = self._known[self._known.any(axis=1)]
        numbers = np.ascontiguousarray(known).view(np.uint64).reshape(len(known), -1)
        order = np.lexsort(numbers.T)
        is_again = (numbers[order[1:]] == numbers[order[:-1]]).all(axis=1)
        return frozenset(_as_bytes(known[order[1:][is_again]]))

    def digests_of(self, positions: Sequence[int]) -> list[bytes]:
        """Return the fingerprints of the units alone, whose keys were asked for."""
        assert self._digests is not None
        digests = self._digests[self._places_of(positions)]
        return _as_bytes(digests)

    def _places_of(self, positions: Sequence[int]) -> NDArray[np.intp]:
        return np.searchsorted(self._units.asked, np.asarray(positions, dtype=np.int64))

    def _keys_of_shard(self, positions: Sequence[int], *, former: bool) -> list[bytes]:
        digests = self._mapper.unit_fingerprints(positions, former=former)
        context = self._mapper.context_fingerprints(positions, former=former)
        shard = fingerprint(*digests, *context)
        keys: list[bytes] = []
        for number in range(len(positions)):
            place = number.to_bytes(4, "big")
            keys.append(self._cache.key(shard + place, former=former))
        return keys

    def _keys_of_units(self, positions: Sequence[int]) -> list[bytes]:
        asked = self._units.asked
        if self._known is None or self._digests is None:
            self._known = np.zeros((len(asked), KEY_BYTES), dtype=np.uint8)
            self._digests = np.zeros_like(self._known)
        places = self._places_of(positions)
        is_known = self._known[places].any(axis=1)
        new = places[~is_known]
        if len(new):
            digests = self._mapper.unit_fingerprints(asked[new].tolist())
            keys = [self._cache.key(digest) for digest in digests]
            self._known[new] = _as_array(keys)
            self._digests[new] = _as_array(digests)
        return _as_bytes(self._known[places])


def _as_array(keys: Sequence[bytes]) -> ByteArray:
    flat = np.frombuffer(b"".join(keys), dtype=np.uint8)
    return flat.reshape(-1, KEY_BYTES)


def _as_bytes(keys: ByteArray) -> list[bytes]:
    raw = keys.tobytes()
    starts = range(0, len(raw), KEY_BYTES)
    return [raw[start : start + KEY_BYTES] for start in starts]


@dataclass(frozen=True)
class UnitOrigins:
    """Tells which of the user's rows are behind a unit's finding.

    Attributes:
        rows: those behind the rows of the run's frame.
        units: all units of the run.
        keys: if keys are made by shard, a finding depends on all units of its shard.
        is_found_by_key: whether a key is made of the one row that is behind the finding.
        shown_with: the positions of the rows that are shown beside a shard.
    """

    rows: RowOrigins | None
    units: Units
    keys: UnitKeys
    is_found_by_key: bool = False
    shown_with: ShownWith | None = None

    def of(self, positions: Sequence[int], shard: Sequence[int]) -> list[Origins]:
        """Return what is behind the finding of each of some units of a shard."""
        if self.rows is None:
            return [()] * len(positions)
        if self.is_found_by_key:
            return [(digest,) for digest in self.keys.digests_of(positions)]
        if not self.keys.by_shard:
            return [self.behind([position]) for position in positions]
        behind_shard: dict[tuple[int, ...], Origins] = {}
        origins: list[Origins] = []
        for position in positions:
            whole = self.keys.shard_of(position, shard)
            if whole not in behind_shard:
                behind_shard[whole] = self.behind(whole)
            origins.append(behind_shard[whole])
        return origins

    def behind(self, positions: Sequence[int]) -> Origins:
        """Return what is behind some units: of equal rows each, since other columns may differ."""
        if self.rows is None:
            return ()
        places: list[int] = []
        for position in positions:
            places += self.units.answered(position).tolist()
        if self.shown_with is not None:
            places += self.shown_with(positions)
        return tuple(join_origins(self.rows.of(places)))


class CorrectionParts(NamedTuple):
    """What it takes to find and to keep what a person says in place of a map's findings.

    Attributes:
        cache: the journal's corrections of this map's findings.
        keys: the keys of units among them.
        origins: tells which rows are behind a correction.
        check: the check of a finding.
    """

    cache: AnswerCache
    keys: UnitKeys
    origins: UnitOrigins
    check: Check


class CachedMapper:
    """A mapper that asks for nothing that the journal has or that is being asked for just now.

    Attributes:
        asks_failed_units: whether units that failed before are asked again.

    Args:
        mapper: is asked for the rest.
        cache: the journal's answers to this map's question.
        units: all units of the run.
        by_shard: whether findings depend on the other units of their shard.
        retry_failed_after_s: how long a unit that failed for its content is not asked again; None
            if each run asks it again.
        rows: tells which of the user's rows are behind the rows of the run's frame.
        is_plain: whether a unit is one row of the user's, as it is, and asked what all are asked.
        shown_with: the positions of the rows that are shown beside a shard.
    """

    def __init__(
        self,
        mapper: Mapper,
        cache: AnswerCache,
        units: Units,
        *,
        by_shard: bool,
        rows: RowOrigins | None = None,
        is_plain: bool = False,
        shown_with: ShownWith | None = None,
        retry_failed_after_s: float | None = None,
    ) -> None:
        assert mapper.kind is not None
        self.mapper = mapper
        self.cache = cache
        self.keys = UnitKeys(mapper, cache, units, by_shard=by_shard)
        is_own_row = rows is not None and rows.is_own
        is_found_by_key = is_own_row and is_plain and not by_shard
        self._origins = UnitOrigins(
            rows, units, self.keys, is_found_by_key=is_found_by_key, shown_with=shown_with
        )
        self.retry_failed_after_s = retry_failed_after_s
        self.asks_failed_units = retry_failed_after_s is None
        self._unwritten: dict[bytes, tuple[RememberedFailure, Origins]] = {}
        self._units = units
        self._check = Check(mapper.kind, made=mapper.is_function)
        self._mark: tuple[int, int] | None = None
        self._repeated: frozenset[bytes] = frozenset()

    @property
    def name(self) -> MapName:
        """The map's name."""
        return self.mapper.name

    @property
    def kind(self) -> FindingType | None:
        """The type of a finding."""
        return self.mapper.kind

    @property
    def is_function(self) -> bool:
        """Whether a function of the user's makes the findings."""
        return self.mapper.is_function

    @property
    def reads_empty_units(self) -> bool:
        """Whether the mapper is given units without content, too."""
        return self.mapper.reads_empty_units

    @property
    def breaker(self) -> Breaker:
        """The mapper's own."""
        return self.mapper.breaker

    def unit_fingerprints(self, positions: Sequence[int], *, former: bool = False) -> list[bytes]:
        """Digest each unit, as the mapper does."""
        return self.mapper.unit_fingerprints(positions, former=former)

    def context_fingerprints(
        self, positions: Sequence[int], *, former: bool = False
    ) -> list[bytes]:
        """Digest what is shown beside a shard, as the mapper does."""
        return self.mapper.context_fingerprints(positions, former=former)

    def for_corrections(self) -> CorrectionParts:
        """Return what finds and keeps corrections: they are answers to a question of their own."""
        cache = self.cache.for_corrections()
        keys = UnitKeys(self.mapper, cache, self._units, by_shard=self.keys.by_shard)
        origins = replace(self._origins, keys=keys)
        return CorrectionParts(cache, keys, origins, self._check)

    async def look_up(self, position: int) -> CachedFindings:
        """Look one unit up."""
        unit = [position]
        shard = self.keys.shard_of(position, unit)
        return await self._look_up(unit, self.keys.of(unit), shard)

    async def look_up_all(self, positions: Sequence[int]) -> AsyncIterator[CachedFindings]:
        """Look many units up, in parts.

        The rest is looked up again only if somebody else has written meanwhile, or if it has equal
        units, one of which may have been asked by then.
        """
        release_claim(asyncio.current_task())
        mark = await self.cache.mark()
        for start in range(0, len(positions), LOOK_UP_SIZE):
            part = positions[start : start + LOOK_UP_SIZE]
            keys = await run_off_loop(self.keys.of, part, size=len(part))
            yield await self._look_up(part, keys, part)
        self._mark = mark
        self._repeated = await run_off_loop(self.keys.find_repeated, size=len(positions))

    async def find_unknown(self, shard: Shard) -> list[int]:
        """Return the units of a shard of which the journal has neither finding nor failure."""
        positions = list(shard.positions)
        keys = self.keys.of(positions)
        found = await self._look_up(positions, keys, positions)
        rest = _without(positions, found.positions)
        failures = await self.recall_failures(rest, shard)
        return without_failed(rest, failures)

    async def recall_failures(
        self, positions: Sequence[int], shard: Shard | None = None
    ) -> list[Failure]:
        """Look up which of some units failed before and are not to be asked again yet.

        Args:
            positions: the units, which have no finding.
            shard: their shard; None before shards are cut.
        """
        if self.asks_failed_units or self.retry_failed_after_s is None:
            return []
        asked_with: Sequence[int] = positions
        number = 0
        if shard is not None:
            asked_with, number = shard.positions, shard.number
        keys = await self._keys_by_position(positions, asked_with)
        wanted = list(keys.values())
        remembered = await self.cache.recall_failures(wanted, self.retry_failed_after_s)
        failures: list[Failure] = []
        for position, key in keys.items():
            known = remembered.get(key)
            if known is not None:
                failures.append(_make_failure(position, number, known, self.name))
        if failures and not self._origins.is_found_by_key:
            failed = [failure.position for failure in failures]
            await self._link(failed, keys, asked_with)
        return failures

    async def _keys_by_position(
        self, positions: Sequence[int], shard: Sequence[int]
    ) -> dict[int, bytes]:
        """Return the keys of some units; those of a whole shard are made of all of it."""
        source = shard if self.keys.by_shard else positions
        made: list[bytes] = await run_off_loop(self.keys.of, source, size=len(source))
        by_position = dict(zip(source, made, strict=True))
        return {position: by_position[position] for position in positions}

    async def _remember(self, shard: Shard, mapped: MappedShard, keys: KeyByUnit) -> None:
        """Remember which units failed for their content.

        As long as no unit has succeeded, all may fail for a reason that is not theirs: then they
        wait for ``write_failures``.
        """
        if self.retry_failed_after_s is None:
            return
        failures = [failure for failure in mapped.failures if failure.is_of_content]
        positions = [failure.position for failure in failures]
        behind: list[Origins] = await run_off_loop(
            self._origins.of, positions, shard.positions, size=len(positions)
        )
        for failure, origins in zip(failures, behind, strict=True):
            known = RememberedFailure(failure.who, failure.reason, failure.attempts)
            self._unwritten[keys[failure.position]] = known, origins
        if not self.breaker.is_unproven(self.name):
            await self.write_failures()

    async def write_failures(self) -> None:
        """Write the failures that wait to be remembered: the run did not give up."""
        if not self._unwritten:
            return
        failures: dict[bytes, RememberedFailure] = {}
        origins: dict[bytes, Origins] = {}
        for key, (failure, behind) in self._unwritten.items():
            failures[key] = failure
            origins[key] = behind
        self._unwritten = {}  # before the wait: others may add to it meanwhile
        await self.cache.remember_failures(
            failures, origins, is_found_by_key=self._origins.is_found_by_key
        )

    async def map_shard(self, shard: Shard, cache: object = None) -> MappedShard:
        """Map what is not cached; wait for what another map, run or process asks for."""
        del cache  # it has its own
        if not shard.positions:
            return self._make_empty_part(shard)
        made = self.keys.of(shard.positions)
        keys = dict(zip(shard.positions, made, strict=True))
        claims = self.cache.journal.claims
        parts: list[MappedShard] = []
        rest = list(shard.positions)
        has_waited = False
        while rest and not _has_ended(parts):
            free = _first_unclaimed(rest, keys, claims)
            if free:
                done, of_them = await self._claim_and_map(shard, free, keys, has_waited=has_waited)
                parts += of_them
                rest = _without(rest, done)
            else:
                others = [claims[keys[position]] for position in rest]
                await self._wait_for(shard, others)
            has_waited = True
        cached = frozenset[int]().union(*[part.cached for part in parts])
        self.cache.count_recalled(len(cached))
        return join_parts(shard, self.name, parts, cached)

    async def _wait_for(self, shard: Shard, claims: Sequence[asyncio.Future[None]]) -> None:
        """Wait for one of those who ask about the shard's units; other shards go on meanwhile."""
        async with self.breaker.idle(self.name, shard.number):
            with record_wait("journal"):
                await asyncio.wait(claims)

    async def _claim_and_map(
        self,
        shard: Shard,
        positions: list[int],
        keys: KeyByUnit,
        *,
        has_waited: bool,
    ) -> tuple[list[int], list[MappedShard]]:
        """Look these units up and have the rest mapped, while others who want them wait.

        They are claimed before they are looked up: what was asked for until then is in the journal.

        Returns:
            The units that are done, and what came of them. Other processes ask about the rest.
        """
        journal = self.cache.journal
        wanted = [keys[position] for position in positions]
        try:
            claim = await journal.claim(wanted)
        except JournalError as error:
            nothing = self._make_empty_part(shard)
            return positions, [replace(nothing, ended_by=error)]
        positions = [position for position in positions if keys[position] in claim.keys]
        if not positions:
            journal.end_claim(claim)
            return [], []
        try:
            parts = await self._map_claimed(shard, positions, keys, claim, has_waited)
        except JournalError as error:
            nothing = self._make_empty_part(shard)
            parts = [replace(nothing, ended_by=error)]
        finally:
            journal.end_claim(claim)
        return positions, parts

    async def _map_claimed(
        self,
        shard: Shard,
        positions: list[int],
        keys: KeyByUnit,
        claim: Claim,
        has_waited: bool,  # noqa: FBT001 (private, and named where it is set)
    ) -> list[MappedShard]:
        """Look claimed units up, and have the rest mapped."""
        found = await self._look_up_claimed(shard, positions, keys, has_waited)
        cached = set(found.positions)
        cached_keys = [keys[position] for position in cached]
        self.cache.journal.release(claim, cached_keys)
        parts: list[MappedShard] = []
        if cached:
            parts.append(_make_cached_part(shard, self.name, found))
        rest = [position for position in positions if position not in cached]
        if rest:
            parts += await self._map_rest(shard, rest, keys)
        return parts

    def _make_empty_part(self, shard: Shard) -> MappedShard:
        return _make_cached_part(shard, self.name, self._no_findings())

    def _make_failed_part(self, shard: Shard, failures: list[Failure]) -> MappedShard:
        """Make the units that failed before a part of what comes of a shard."""
        remembered = frozenset(failure.position for failure in failures)
        return replace(self._make_empty_part(shard), failures=failures, remembered=remembered)

    def _no_findings(self) -> CachedFindings:
        table = self._check.kind.arrow.empty_table()
        return CachedFindings([], table)

    async def _look_up_claimed(
        self,
        shard: Shard,
        positions: Sequence[int],
        keys: KeyByUnit,
        has_waited: bool,  # noqa: FBT001 (private, and named where it is set)
    ) -> CachedFindings:
        """Look up what may have been written since all units were looked up."""
        wanted = [keys[position] for position in positions]
        is_asked_once = self._repeated.isdisjoint(wanted)
        if not has_waited and is_asked_once and await self.cache.mark() == self._mark:
            return self._no_findings()
        return await self._look_up(positions, wanted, shard.positions)

    async def _map_rest(
        self, shard: Shard, positions: list[int], keys: KeyByUnit
    ) -> list[MappedShard]:
        """Have units without a finding mapped, but for those that failed before."""
        failures = await self.recall_failures(positions, shard)
        parts: list[MappedShard] = []
        if failures:
            parts.append(self._make_failed_part(shard, failures))
        rest = without_failed(positions, failures)
        if rest:
            parts.append(await self._map_uncached(shard, rest, keys))
        return parts

    async def _map_uncached(
        self, shard: Shard, positions: list[int], keys: KeyByUnit
    ) -> MappedShard:
        """Have these units mapped, and their findings kept."""
        part = Shard(shard.number, shard.of, tuple(positions))
        if writes_transcripts():
            read = partial(self._origins.behind, shard.positions)
            behind = await run_off_loop(read, size=len(shard.positions))
            note_origins(behind)
            note_origins([self.cache.base])  # a plan may have quoted rows in what is asked
        writer = ShardWriter(
            self.cache, self._check, self._units, keys, self._origins, shard.positions
        )
        mapped = await self.mapper.map_shard(part, writer)
        await self._remember(shard, mapped, keys)
        return mapped

    async def _look_up(
        self, positions: Sequence[int], keys: Sequence[bytes], shard: Sequence[int]
    ) -> CachedFindings:
        """Return the units that are cached, and their findings as today's check reads them.

        Args:
            positions: the units.
            keys: their keys.
            shard: the units of their shard: if keys are made by shard, they are made of all of
                these.
        """
        texts = _by_id(positions, keys, await self.cache.recall(keys))
        found: dict[int, Record] = await run_off_loop(
            read_findings, texts, self._check, size=len(texts)
        )
        key_of = dict(zip(positions, keys, strict=True))
        if not self._origins.is_found_by_key:
            await self._link(found, key_of, shard)
        repaired = await self._find_repaired(found, key_of)
        missing = [position for position in positions if position not in found]
        if missing and await self.cache.has_former():
            found |= await self._look_up_former(missing, shard)
        cached = [position for position in positions if position in found]
        records = [found[position] for position in cached]
        schema = self._check.kind.arrow
        table: pa.Table = await run_off_loop(make_table, records, schema, size=len(records))
        return CachedFindings(cached, table, repaired)

    async def _find_repaired(self, found: Collection[int], keys: KeyByUnit) -> frozenset[int]:
        """Find the units among these whose finding came in a repair turn."""
        wanted = [keys[position] for position in found]
        marked = await self.cache.find_repaired(wanted)
        return frozenset(position for position in found if keys[position] in marked)

    async def _link(self, found: Collection[int], keys: KeyByUnit, shard: Sequence[int]) -> None:
        """Note that findings which the journal has are of further rows, too."""
        positions = list(found)
        if not positions:
            return
        origins: list[Origins] = await run_off_loop(
            self._origins.of, positions, shard, size=len(positions)
        )
        found_keys = [keys[position] for position in positions]
        await self.cache.link(dict(zip(found_keys, origins, strict=True)))

    async def _look_up_former(
        self, missing: Sequence[int], shard: Sequence[int]
    ) -> dict[int, Record]:
        """Look units up under the keys that the journal's first format gave them."""
        source = shard if self.keys.by_shard else missing
        make_keys = partial(self.keys.of, former=True)
        former_keys: list[bytes] = await run_off_loop(make_keys, source, size=len(source))
        key_of = dict(zip(source, former_keys, strict=True))
        keys = [key_of[position] for position in missing]
        entries = await self.cache.recall(keys)
        texts = _by_id(missing, keys, entries)
        read = partial(read_findings, former=True)
        found: dict[int, Record] = await run_off_loop(read, texts, self._check, size=len(texts))
        return found


@dataclass(frozen=True, slots=True)
class ShardWriter:
    """Makes the findings of one shard durable, under the keys of its units.

    Attributes:
        origins: tells which rows are behind a finding.
        shard: the units of the shard, those that are known among them.
    """

    cache: AnswerCache
    check: Check
    units: Units
    keys: KeyByUnit
    origins: UnitOrigins | None = None
    shard: Sequence[int] = ()

    async def keep(
        self,
        found: Mapping[int, Record],
        answered: Mapping[int, Record],
        repaired: Collection[int] = (),
    ) -> None:
        """Keep findings by position; see ``_readable_forms``."""
        forms = _readable_forms(found, answered, self.check)
        if not forms:
            return
        positions = list(forms)
        inputs = self._input_texts(positions)
        by_key = {self.keys[position]: form for position, form in forms.items()}
        note_keys({self.keys[position]: position for position in positions})
        repaired_keys = {self.keys[position] for position in repaired}
        if self.origins is None:
            await self.cache.keep(by_key, inputs, repaired=repaired_keys)
            return
        behind: list[Origins] = await run_off_loop(
            self.origins.of, positions, self.shard, size=len(positions)
        )
        origins_by_key = dict(zip(by_key, behind, strict=True))
        await self.cache.keep(
            by_key,
            inputs,
            origins_by_key,
            repaired=repaired_keys,
            is_found_by_key=self.origins.is_found_by_key,
        )

    def _input_texts(self, positions: Sequence[int]) -> dict[bytes, str] | None:
        """Return the texts of some units by key, if the journal keeps those."""
        if not self.cache.journal.keep_inputs:
            return None
        keys = [self.keys[position] for position in positions]
        lines = self.units.lines(positions)
        return dict(zip(keys, lines, strict=True))

    async def keep_pieces(
        self,
        found: Mapping[str, Record],
        answered: Mapping[str, Record],
        position: int | None = None,
    ) -> None:
        """Keep findings of a unit's pieces, by the piece's line."""
        forms = _readable_forms(found, answered, self.check)
        if not forms:
            return
        by_key = {piece_key(self.cache, line): form for line, form in forms.items()}
        origins = dict.fromkeys(by_key, self._behind(position))
        await self.cache.keep(by_key, origins=origins)

    async def recall_pieces(
        self, lines: Sequence[str], position: int | None = None
    ) -> dict[int, Record]:
        """Return the findings of a unit's pieces that are cached, by the number of the line."""
        numbers = range(len(lines))
        keys = [piece_key(self.cache, line) for line in lines]
        entries = await self.cache.recall(keys)
        found = read_findings(_by_id(numbers, keys, entries), self.check)
        if found:
            found_keys = [keys[number] for number in found]
            await self.cache.link(dict.fromkeys(found_keys, self._behind(position)))
        missing = [number for number in numbers if number not in found]
        if missing and await self.cache.has_former():
            digests = [hash_former_piece(lines[number]) for number in missing]
            keys = [self.cache.key(digest, former=True) for digest in digests]
            entries = await self.cache.recall(keys)
            texts = _by_id(missing, keys, entries)
            found |= read_findings(texts, self.check, former=True)
        return found

    def _behind(self, position: int | None) -> Origins:
        """Return what is behind a unit; nothing if no unit is named."""
        if self.origins is None or position is None:
            return ()
        [behind] = self.origins.of([position], self.shard)
        return behind


def piece_key(cache: AnswerCache, line: str) -> bytes:
    content = canonical_json(json.loads(line)).encode()
    return cache.key(fingerprint(b"piece", content))


def _readable_forms(
    found: Mapping[Id, Record], answered: Mapping[Id, Record], check: Check
) -> dict[Id, Record]:
    """Write findings in forms that are read back as the very same findings.

    One that has no such form is left out: the next run asks for it again.
    """
    forms: dict[Id, Record] = {}
    for key, record in found.items():
        form = find_readable_form(record, check, answered.get(key))
        if form is not None:
            forms[key] = form
    return forms


def _first_unclaimed(
    positions: Sequence[int], keys: KeyByUnit, claims: Mapping[bytes, object]
) -> list[int]:
    """Return the units that nobody is asking for; of those with one key the first."""
    first: dict[bytes, int] = {}
    for position in positions:
        key = keys[position]
        if key not in claims:
            first.setdefault(key, position)
    return sorted(first.values())


def _without(positions: Sequence[int], done: Collection[int]) -> list[int]:
    settled = frozenset(done)
    return [position for position in positions if position not in settled]


def _by_id(ids: Sequence[Id], keys: Sequence[bytes], texts: Mapping[bytes, str]) -> dict[Id, str]:
    """Return the entries that are cached, by what their keys stand for."""
    found: dict[Id, str] = {}
    for one, key in zip(ids, keys, strict=True):
        if key in texts:
            found[one] = texts[key]
    return found


def _make_failure(position: int, shard: int, known: RememberedFailure, name: MapName) -> Failure:
    """Make a failure of one that was remembered."""
    who: Any = known.who
    return Failure(position, shard, who, known.reason, known.attempts, name, is_of_content=True)


def without_failed(positions: Sequence[int], failures: Sequence[Failure]) -> list[int]:
    """Return the units that are not among the failed ones."""
    failed = {failure.position for failure in failures}
    return [position for position in positions if position not in failed]


def _make_cached_part(shard: Shard, name: MapName, found: CachedFindings) -> MappedShard:
    """Make what the journal had of a shard a part of what comes of it."""
    positions, table, repaired = found
    cached = frozenset(positions)
    return MappedShard(shard, name, positions, table, repaired, [], NO_USAGE, cached=cached)


def _has_ended(parts: Sequence[MappedShard]) -> bool:
    """Tell whether the last part ended the run."""
    return bool(parts) and parts[-1].ended_by is not None


def join_parts(
    shard: Shard, name: MapName, parts: Sequence[MappedShard], cached: frozenset[int]
) -> MappedShard:
    """Join what came of a shard's parts, in the order of the units."""
    if len(parts) == 1:
        return replace(parts[0], shard=shard, map=name, cached=cached)
    of_parts = [np.asarray(part.positions, dtype=np.int64) for part in parts]
    positions = np.concatenate(of_parts)
    order = np.argsort(positions, kind="stable")
    tables = [part.table for part in parts]
    table = pa.concat_tables(tables, promote_options="permissive")
    table = table.take(pa.array(order))
    joined = MappedShard(
        shard,
        name,
        positions=positions[order].tolist(),
        table=table,
        repaired=frozenset(),
        failures=[],
        usage=NO_USAGE,
        cached=cached,
    )
    for part in parts:
        joined = _add_part(joined, part)
    failures = sorted(joined.failures, key=lambda failure: failure.position)
    return replace(joined, failures=failures)


def _add_part(joined: MappedShard, part: MappedShard) -> MappedShard:
    """Add what came of a part, but for its findings."""
    return replace(
        joined,
        repaired=joined.repaired | part.repaired,
        remembered=joined.remembered | part.remembered,
        failures=joined.failures + part.failures,
        usage=joined.usage + part.usage,
        form=joined.form or part.form,
        ended_by=joined.ended_by or part.ended_by,
    )
