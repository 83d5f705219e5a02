"""The breaker: a run in which every unit fails for one reason stops, before it halves its way on.

A shard that has failed as a whole reports that before it is split. The first one goes on alone: it
is split down to single units, one half after the other, while the others wait. If a unit succeeds,
all go on. If none does, and enough units of enough shards have failed for the same reason, the run
gives up.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from pandas_amr._records.counts import counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from pandas_amr._findings.store import MapName, Reason, Who

LEAST_SHARDS = 3  # a reason of one or two shards may be that of their rows
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")
WITH_DIGIT = re.compile(r"\S*\d\S*")
EXCEPTION_TEXT = re.compile(r"((?:^|\b\w+ raised )[\w.]+|\b\w*(?:Error|Exception)):.*", re.DOTALL)
REASON_PARTS = 2  # of a text with colons; what follows tends to be a value

ADVICE: dict[Who, str] = {
    "schema": (
        "Try another model, fewer or simpler fields, or fewer units per request "
        '(plan={"shard_size": 1}, or LM(abilities=amr.Abilities(units_per_request=1))).'
    ),
    "model": "Look at what the service says, or try another model.",
    "callable": "Look at the function, or the recipe.",
    "sandbox": "Look at the sandbox, or leave tools= out.",
}

Key: TypeAlias = tuple[str | None, int]  # a map's name, and the number of one of its shards


def find_kind(who: Who, reason: str) -> str:
    """Return what failures of one kind have in common: the reason without numbers and values.

    Example:
        >>> find_kind("schema", "the answer names unit 20; units are 0 to 19")
        'schema: the answer names unit # units are # to #'
        >>> find_kind("callable", "ValueError: could not convert string to float: 'n/a'")
        'callable: ValueError: could not convert string to float'
    """
    parts = QUOTED.sub("#", reason).split(":")
    beginning = ":".join(parts[:REASON_PARTS])
    common = WITH_DIGIT.sub("#", beginning)
    return f"{who}: {common.strip()}"


@dataclass(frozen=True, slots=True)
class Doom:
    """Why a run gives up: so many units of so many shards failed for one reason.

    Attributes:
        map: the map's name, if several run side by side.
        who: who failed.
        reason: the reason of one of the failures.
    """

    map: MapName
    who: Who
    reason: str
    units: int
    shards: int

    def describe(self, *, is_quoted: bool = True) -> str:
        """Say what failed, and why, in one sentence.

        Args:
            is_quoted: whether what a service says is quoted, which may repeat a cell.
        """
        of_map = "" if self.map is None else f" of the map {self.map!r}"
        reason = self.reason.removesuffix(".")
        if self.who == "model" and not is_quoted:
            reason = reason.partition(": ")[0]
        if self.who == "callable":  # an exception's text may quote a cell
            reason = EXCEPTION_TEXT.sub(r"\1", reason)
        units = counted(self.units, "unit")
        shards = counted(self.shards, "shard")
        return (
            f"{units} in {shards}{of_map} failed and none succeeded, all for one reason: "
            f"{reason} ({self.who})."
        )

    def advise(self) -> str:
        """Say what would be right."""
        return ADVICE[self.who]


@dataclass(slots=True)
class _Tally:
    """What has come of one map in this run.

    Attributes:
        has_succeeded: whether a unit has got a finding, other than from the journal.
        failed: the positions of failed units, by kind of failure and number of the shard.
        first: who failed, and why, in the first failure of each kind.
        final: how many units have failed without another way to ask about them.
        has_ended: whether a shard has ended without a finding.
        asking: the shards of which no answer has come yet.
        pioneer: the shard that is split while the others wait.
    """

    has_succeeded: bool = False
    failed: dict[str, dict[int, set[int]]] = field(default_factory=dict)
    first: dict[str, Reason] = field(default_factory=dict)
    final: int = 0
    has_ended: bool = False
    asking: set[int] = field(default_factory=set)
    pioneer: int | None = None

    def add(self, shard: int, failures: Mapping[int, Reason]) -> None:
        """Add the failures of some units of a shard."""
        for position, (who, reason) in failures.items():
            kind = find_kind(who, reason)
            self.first.setdefault(kind, (who, reason))
            by_shard = self.failed.setdefault(kind, {})
            by_shard.setdefault(shard, set()).add(position)

    def of_earlier_part(self) -> _Tally:
        """Return what the next part of the run begins with; its shards have numbers from 1 on."""
        failed: dict[str, dict[int, set[int]]] = {}
        for kind, by_shard in self.failed.items():
            failed[kind] = {}
            for number, positions in enumerate(by_shard.values()):
                failed[kind][-number] = positions
        first = dict(self.first)
        return _Tally(self.has_succeeded, failed, first, self.final, self.has_ended)

    def end(self, shard: int) -> None:
        """Note that a shard has ended."""
        self.asking.discard(shard)
        if self.pioneer == shard:
            self.pioneer = None
        for by_shard in self.failed.values():
            self.has_ended |= shard in by_shard

    def find_doom(self, name: MapName, give_up_after: int) -> Doom | None:
        """Return why to give up; None if there is no reason to, or not yet."""
        is_probed = self.has_ended or self.final >= give_up_after
        if self.has_succeeded or not is_probed:
            return None
        for kind, by_shard in self.failed.items():
            units = sum(len(positions) for positions in by_shard.values())
            if units >= give_up_after and len(by_shard) >= LEAST_SHARDS:
                who, reason = self.first[kind]
                return Doom(name, who, reason, units, len(by_shard))
        return None


class Breaker:
    """Decides for all maps of a stage whether to go on with what has failed.

    Args:
        give_up_after: how many units must have failed; None for never.
        in_order: whether the shard that is split asks about one half after the other. A batch asks
            about both at once: each of its steps takes long, whatever it holds.
        earlier: that of an earlier part of the run, which this one goes on from. Then maps of few
            shards are watched, too.
    """

    def __init__(
        self,
        give_up_after: int | None = None,
        *,
        in_order: bool = True,
        earlier: Breaker | None = None,
    ) -> None:
        self._give_up_after = give_up_after
        self._in_order = in_order
        self._tallies: dict[MapName, _Tally] = {}
        self._earlier: dict[MapName, _Tally] | None = None
        if earlier is not None:
            tallies = earlier._tallies.items()  # noqa: SLF001 (of this class)
            self._earlier = {name: tally.of_earlier_part() for name, tally in tallies}
        self._on_doom: Callable[[Doom], None] | None = None
        self._slots: asyncio.Semaphore | None = None
        self._workers = 0
        self._open_shards = 0  # that have not ended, under way or not
        self._idle: set[Key] = set()  # that wait, for a decision or for somebody's answers
        self._waiting: set[Key] = set()  # those that wait for a decision
        self._is_released = False
        self._woken = asyncio.Event()
        self.doom: Doom | None = None

    def arm(
        self,
        shards: Mapping[MapName, int],
        *,
        items: int,
        limit: int,
        on_doom: Callable[[Doom], None],
    ) -> int:
        """Begin to watch the maps that have enough shards.

        Args:
            shards: how many shards each map has; of a recipe, how many rows.
            items: how many shards there are over all maps.
            limit: how many of them may be mapped at once.
            on_doom: is called once the run gives up.

        Returns:
            How many shards to begin at once: enough to compare, since those that wait do not count
            towards the limit.
        """
        least = LEAST_SHARDS if self._earlier is None else 1
        watched = [name for name, count in shards.items() if count >= least]
        if self._give_up_after is None or not watched:
            return limit
        self._tallies = {name: _Tally() for name in watched}
        if self._earlier is not None:
            self._tallies |= self._earlier
        self._on_doom = on_doom
        self._slots = asyncio.Semaphore(limit)
        self._open_shards = items
        self._workers = max(limit, LEAST_SHARDS * len(shards))
        return self._workers

    @contextlib.asynccontextmanager
    async def mapping(self, name: MapName, shard: int) -> AsyncIterator[None]:
        """Let a shard be mapped in the block, once fewer than ``limit`` others are."""
        if self._slots is None:
            yield
            return
        tally = self._tallies.get(name)
        if tally is not None:
            tally.asking.add(shard)
        try:
            async with self._slots:
                yield
        except BaseException:
            self.release()
            raise
        finally:
            self._open_shards -= 1
            if tally is not None:
                tally.end(shard)
            self._decide()

    def disarm(self) -> None:
        """Watch no longer, and let go of the stage: a later part's breaker may go on from here."""
        self._on_doom = None

    def has_given_up(self, name: MapName) -> bool:
        """Tell whether nothing more is to be asked of a map."""
        tally = self._tallies.get(name)
        return self.doom is not None and tally is not None and not tally.has_succeeded

    def is_unproven(self, name: MapName) -> bool:
        """Tell whether no unit of a map that is watched has succeeded so far."""
        tally = self._tallies.get(name)
        return tally is not None and not tally.has_succeeded

    def asks_in_order(self, name: MapName, shard: int) -> bool:
        """Tell whether halves of a shard are asked about one after the other."""
        tally = self._tallies.get(name)
        if tally is None or self._is_released:
            return False
        return self._in_order and tally.pioneer == shard

    def add_success(self, name: MapName) -> None:
        """Note that a unit has got a finding: its map goes on to its end."""
        tally = self._tallies.get(name)
        if tally is not None and not tally.has_succeeded:
            tally.has_succeeded = True
            tally.pioneer = None
            self._wake()

    def add_failure(self, name: MapName, number: int, position: int, who: Who, reason: str) -> None:
        """Note that a unit has failed which is like a shard of its own, as a recipe's row is."""
        tally = self._tallies.get(name)
        if tally is not None:
            tally.add(number, {position: (who, reason)})
            tally.final += 1
            self._decide(is_waited_for=False)

    async def may_go_on(
        self,
        name: MapName,
        shard: int,
        failures: Mapping[int, Reason],
        *,
        is_final: bool = False,
    ) -> bool:
        """Wait until it is decided whether a shard goes on with units that have failed.

        Args:
            name: the map.
            shard: the shard's number.
            failures: who failed, and why, by the units' positions.
            is_final: whether there is no other way to ask about them.
        """
        tally = self._tallies.get(name)
        if tally is None or tally.has_succeeded:
            return True
        is_whole = shard in tally.asking
        tally.asking.discard(shard)
        tally.add(shard, failures)
        if is_final:
            tally.final += len(failures)
        self._decide()
        if self._must_wait(tally, shard, is_whole=is_whole):
            await self._wait(tally, (name, shard))
        return not self.has_given_up(name)

    def _must_wait(self, tally: _Tally, shard: int, *, is_whole: bool) -> bool:
        """Tell whether a shard waits for others. The first one that failed does not at once."""
        assert self._give_up_after is not None
        if self.doom is not None or self._is_released:
            return False
        if tally.pioneer is None:
            tally.pioneer = shard
        if tally.pioneer != shard:
            return True
        has_probed = tally.final >= self._give_up_after
        return has_probed and (self._in_order or is_whole)

    async def _wait(self, tally: _Tally, key: Key) -> None:
        """Wait for a decision, without a slot."""
        self._waiting.add(key)
        try:
            async with self.idle(*key):
                while not (tally.has_succeeded or self.doom is not None or self._is_released):
                    await self._woken.wait()
        finally:
            self._waiting.discard(key)

    @contextlib.asynccontextmanager
    async def idle(self, name: MapName, shard: int) -> AsyncIterator[None]:
        """Wait in the block for other shards, or for another run, without a slot.

        If all wait for one another, all go on.
        """
        if self._slots is None:
            yield
            return
        tally = self._tallies.get(name)
        was_asking = tally is not None and shard in tally.asking
        self._idle.add((name, shard))
        self._slots.release()
        try:
            if tally is not None:
                tally.asking.discard(shard)
            self._decide()
            yield
        finally:
            self._idle.discard((name, shard))
        if tally is not None and was_asking:
            tally.asking.add(shard)
        await self._slots.acquire()  # not after an exception: then the stage is about to end

    def release(self) -> None:
        """Let all that wait go on, now and from now on."""
        self._is_released = True
        self._wake()

    def _decide(self, *, is_waited_for: bool = True) -> None:
        """Give up if there is a reason to; let all go on if they wait for one another only.

        Args:
            is_waited_for: whether shards without an answer so far are waited for: they may succeed.
        """
        if self._give_up_after is None or self.doom is not None:
            return
        for name, tally in self._tallies.items():
            if tally.asking and is_waited_for and not self._is_released:
                continue
            self.doom = tally.find_doom(name, self._give_up_after)
            if self.doom is not None:
                assert self._on_doom is not None
                self._on_doom(self.doom)
                self._wake()
                return
        under_way = min(self._workers, self._open_shards)
        if self._waiting and len(self._idle) >= under_way:
            self.release()

    def _wake(self) -> None:
        woken, self._woken = self._woken, asyncio.Event()
        woken.set()
