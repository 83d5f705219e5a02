"""What a person says in place of findings: found in the journal, kept there, taken back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pandas_amr._findings.corrections import (
    CorrectedUnit,
    Correction,
    correct_units,
    is_unknown,
    restore_units,
)
from pandas_amr._journal.entries import decode
from pandas_amr._map.cached import CachedMapper
from pandas_amr._records.engine import run_off_loop
from pandas_amr.errors import JournalWarning, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pandas_amr._context.state import State
    from pandas_amr._findings.corrections import Corrections
    from pandas_amr._findings.map_findings import MapFindings
    from pandas_amr._findings.store import MapName, Record
    from pandas_amr._journal.entries import Check
    from pandas_amr._map.cached import CorrectionParts
    from pandas_amr._map.mapper import Mapper
    from pandas_amr._units.shards import Shard


class KeptCorrection(NamedTuple):
    """A correction as the journal has it."""

    form: dict[str, Any]
    fields: tuple[str, ...]


def encode_correction(correction: Correction) -> dict[str, Any]:
    """Write a correction as JSON."""
    return {"finding": correction.form, "fields": list(correction.fields)}


def decode_correction(text: str) -> KeptCorrection | None:
    """Read a correction; return None if it is damaged."""
    match decode(text):
        case {"finding": dict() as form, "fields": list() as fields}:
            return KeptCorrection(form, tuple(map(str, fields)))
    return None


# Find


async def recall_corrections(
    parts: CorrectionParts, positions: Sequence[int], shards: Sequence[Shard]
) -> dict[int, Correction]:
    """Return the corrections of some units that the journal has.

    Args:
        parts: what finds them.
        positions: the units.
        shards: all shards of a first run: if keys are made by shard, they are made of these.
    """
    if parts.keys.by_shard:
        parts.keys.use_shards(shards)
    keys: list[bytes] = await run_off_loop(parts.keys.of, positions, size=len(positions))
    texts = await parts.cache.recall(keys)
    return _read_corrections(dict(zip(positions, keys, strict=True)), texts, parts.check)


def _read_corrections(
    keys: Mapping[int, bytes], texts: Mapping[bytes, str], check: Check
) -> dict[int, Correction]:
    """Read corrections; those that are damaged, or not valid any more, are left out."""
    corrections: dict[int, Correction] = {}
    for position, key in keys.items():
        if key not in texts:
            continue
        kept = decode_correction(texts[key])
        if kept is None:
            continue
        record = check(kept.form)
        if record is not None and all(check.kind.find_fitting([record])):
            corrections[position] = Correction(record, kept.form, kept.fields)
    return corrections


# Make


@dataclass
class Corrector:
    """Corrects findings of a stage, in memory and in the journal.

    Attributes:
        mappers: the maps of the stage.
        findings: what was found.
        state: takes warnings, and has the failures.
        shards: all shards of a first run, if keys are made by shard.
        has_journal: whether the run has a journal.
    """

    mappers: Sequence[Mapper]
    findings: MapFindings
    state: State
    shards: Sequence[Shard]
    has_journal: bool

    async def correct(self, corrections: Corrections) -> MapFindings:
        """Carry out corrections, and take others back.

        Returns:
            The findings then.

        Raises:
            UsageError: rows of equal content are corrected in different ways; nothing is changed.
        """
        wanted: dict[MapName, Mapping[int, Correction | None]] = {}
        for mapper in self.mappers:
            of_map = self._join_maps(mapper, corrections)
            if of_map:
                wanted[mapper.name] = await self._spread(mapper, of_map)
        for mapper in self.mappers:
            if isinstance(mapper, CachedMapper):
                await mapper.cache.recall(())  # its answers count as used by this run
            if mapper.name in wanted:
                await self._correct_map(mapper, wanted[mapper.name])
        return self.findings

    def _join_maps(self, mapper: Mapper, corrections: Corrections) -> dict[int, Correction | None]:
        """Return the corrections of a map, and of those that are asked the very same.

        Raises:
            UsageError: such maps are corrected in different ways.
        """
        joined = dict(corrections.get(mapper.name, {}))
        for other in self.mappers:
            if other is mapper or not _are_asked_the_same(mapper, other):
                continue
            for position, correction in corrections.get(other.name, {}).items():
                first = joined.setdefault(position, correction)
                if not _is_same(first, correction):
                    raise UsageError(
                        f"The maps {mapper.name!r} and {other.name!r} are asked the same, so that "
                        "one finding stands for both: correct them alike."
                    )
        return joined

    async def _spread(
        self, mapper: Mapper, corrections: Mapping[int, Correction | None]
    ) -> Mapping[int, Correction | None]:
        """Give units of equal content the same correction, if the journal has one finding of both.

        Those that are one unit have it already; 1 and 1.0 are two.

        Raises:
            UsageError: they are corrected in different ways.
        """
        if not isinstance(mapper, CachedMapper) or mapper.keys.by_shard:
            return corrections
        asked: list[int] = self.findings.units.asked.tolist()
        keys: list[bytes] = await run_off_loop(mapper.keys.of, asked, size=len(asked))
        key_of = dict(zip(asked, keys, strict=True))
        first: dict[bytes, int] = {}
        for position, correction in corrections.items():
            other = first.setdefault(key_of[position], position)
            if not _is_same(corrections[other], correction):
                raise UsageError(
                    f"Rows {other} and {position} (by position) have equal content, so that one "
                    "finding stands for both: correct them alike."
                )
        spread: dict[int, Correction | None] = {}
        for position, key in key_of.items():
            if key in first:
                spread[position] = corrections[first[key]]
        return spread

    async def _correct_map(
        self, mapper: Mapper, corrections: Mapping[int, Correction | None]
    ) -> None:
        """Correct findings of one map; those that are taken back first."""
        made: dict[int, Correction] = {}
        taken_back: list[int] = []
        for position, correction in corrections.items():
            if correction is None:
                taken_back.append(position)
            else:
                made[position] = correction
        known = self._known_before(mapper.name, taken_back)
        if isinstance(mapper, CachedMapper):
            await self._keep(mapper, made)
            known = await self._take_back(mapper, known)
        elif self.has_journal and made:
            self._warn_of_unkept(mapper.name)
        self._change(mapper, made, known)

    def _change(
        self, mapper: Mapper, made: Mapping[int, Correction], known: Mapping[int, CorrectedUnit]
    ) -> None:
        """Change the findings in memory."""
        findings, state = self.findings, self.state
        name, kind = mapper.name, mapper.kind
        assert kind is not None
        state.failures += restore_units(findings, name, kind, known)
        state.failures = correct_units(
            findings, name, kind, made, state.failures, from_journal=False
        )
        unknown = {position for position, unit in known.items() if is_unknown(unit)}
        taken_back = findings.taken_back.difference(made)
        self.findings = replace(findings, taken_back=taken_back | unknown)

    def _warn_of_unkept(self, name: MapName) -> None:
        whose = "the function" if name is None else f"the function of the map {name!r}"
        message = (
            f"These corrections are in this result only: the journal keeps what {whose} finds "
            "if it has a type (finding=) and a version."
        )
        self.state.warnings.append(JournalWarning(message))

    def _known_before(self, name: MapName, positions: Collection[int]) -> dict[int, CorrectedUnit]:
        """Return what was known of corrected units before; other units are as they were found."""
        corrected = self.findings.corrected.get(name, {})
        return {position: corrected[position] for position in positions if position in corrected}

    async def _keep(self, mapper: CachedMapper, corrections: Mapping[int, Correction]) -> None:
        """Keep corrections in the journal, each as made from the finding in whose place it is."""
        kept = self._encode(corrections)
        if not kept:
            return
        parts = self._parts_of(mapper)
        positions, size = list(kept), len(kept)
        keys: list[bytes] = await run_off_loop(parts.keys.of, positions, size=size)
        of_findings: list[bytes] = await run_off_loop(mapper.keys.of, positions, size=size)
        rows = await run_off_loop(parts.origins.of, positions, positions, size=size)
        forms_by_key = dict(zip(keys, kept.values(), strict=True))
        rows_by_key = dict(zip(keys, rows, strict=True))
        await parts.cache.keep(
            forms_by_key,
            self._input_texts(parts, positions, keys),
            rows_by_key,
            is_found_by_key=parts.origins.is_found_by_key,
        )
        links = list(zip(of_findings, keys, strict=True))
        await parts.cache.journal.link(links, parts.cache.run)

    def _encode(self, corrections: Mapping[int, Correction]) -> dict[int, Record]:
        """Write corrections as JSON, without those that the journal could not give back."""
        encoded: dict[int, Record] = {}
        for position, correction in corrections.items():
            if correction.form is not None:
                encoded[position] = encode_correction(correction)
        left_out = len(corrections) - len(encoded)
        if left_out:
            self._warn_of_unreadable(left_out)
        return encoded

    def _parts_of(self, mapper: CachedMapper) -> CorrectionParts:
        parts = mapper.for_corrections()
        if parts.keys.by_shard:
            parts.keys.use_shards(self.shards)
            mapper.keys.use_shards(self.shards)
        return parts

    def _input_texts(
        self, parts: CorrectionParts, positions: Sequence[int], keys: Sequence[bytes]
    ) -> dict[bytes, str] | None:
        """Return the texts of units by key, if the journal keeps those."""
        if not parts.cache.journal.keep_inputs:
            return None
        lines = self.findings.units.lines(positions)
        return dict(zip(keys, lines, strict=True))

    def _warn_of_unreadable(self, count: int) -> None:
        message = (
            f"{count} corrections are in this result only: a validator of their type changes "
            "what it has made, so that the journal cannot give them back as they are."
        )
        self.state.warnings.append(JournalWarning(message))

    async def _take_back(
        self, mapper: CachedMapper, known: dict[int, CorrectedUnit]
    ) -> dict[int, CorrectedUnit]:
        """Take corrections out of the journal, and return what is known of their units then.

        If this result does not know it, the journal may have an answer.
        """
        if not known:
            return {}
        parts = self._parts_of(mapper)
        keys: list[bytes] = await run_off_loop(parts.keys.of, list(known), size=len(known))
        await parts.cache.journal.take_back(keys)
        answers: dict[int, CorrectedUnit] = {}
        for position, unit in known.items():
            if is_unknown(unit):
                answers |= await _look_up_answer(mapper, position)
        return known | answers


async def _look_up_answer(mapper: CachedMapper, position: int) -> dict[int, CorrectedUnit]:
    """Return the answer that the journal has of a unit, by its position; nothing without one."""
    found = await mapper.look_up(position)
    if not found.positions:
        return {}
    status = "repaired" if found.repaired else "ok"
    [record] = found.table.to_pylist()
    return {position: CorrectedUnit(status, from_journal=True, record=record)}


def _are_asked_the_same(first: Mapper, second: Mapper) -> bool:
    """Tell whether the journal has one answer for both of two maps."""
    if not isinstance(first, CachedMapper) or not isinstance(second, CachedMapper):
        return False
    return first.cache.base == second.cache.base


def _is_same(first: Correction | None, second: Correction | None) -> bool:
    if first is None or second is None:
        return first is second
    return first.record == second.record
