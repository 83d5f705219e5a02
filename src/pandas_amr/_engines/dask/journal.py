"""The driver's journal, as a part uses it: looked up in large steps, written with the reports."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pandas_amr._engines.dask.messages import BaseNote, Report
from pandas_amr._journal.claims import Claim
from pandas_amr._journal.journal import Journal
from pandas_amr.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pandas_amr._engines.dask.link import Link
    from pandas_amr._engines.dask.messages import (
        Claimed,
        JournalTraits,
        Recalled,
        RememberedFailures,
    )
    from pandas_amr._journal.database import Entry
    from pandas_amr._journal.outcomes import FailureEntry, RememberedFailure
    from pandas_amr.errors import JournalWarning


@dataclass
class KnownAnswers:
    """What a part knows of the journal's answers.

    Attributes:
        found: answers as JSON: those that the part has found, and those that came with a claim.
        repaired: those of ``found`` that took a repair turn.
        granted: keys that only this part may ask about: the journal does not have them.
        open: keys that were looked up in vain, and are not claimed yet.
    """

    found: dict[bytes, str] = field(default_factory=dict)
    repaired: set[bytes] = field(default_factory=set)
    granted: set[bytes] = field(default_factory=set)
    open: set[bytes] = field(default_factory=set)


class DriverJournal(Journal):
    """The driver's journal, in a worker.

    The keys of all units are looked up at once, and claimed at once with the first claim: the
    driver hears nothing of single shards. What is found goes into the next report.

    Args:
        link: leads to the driver.
        part: the part's number, and the attempt at it.
        traits: what is to be known of the journal.
        report: takes what is to be written.
    """

    def __init__(
        self, link: Link, part: tuple[int, str], traits: JournalTraits, report: Report
    ) -> None:
        # Not the file's own __init__: it is the driver's.
        self.path = Path(traits.path)
        self.refresh = traits.refresh
        self.keep_inputs = traits.keep_inputs
        self.report = report
        self.error: JournalError | None = None
        self._link = link
        self._part = part
        self._known = KnownAnswers()
        self._futures: dict[bytes, asyncio.Future[None]] = {}
        self._numbers = itertools.count(1)
        self._wanted: set[bytes] = set()
        self._asking: asyncio.Task[None] | None = None
        self._taken: set[bytes] = set()
        self._watch: asyncio.Task[None] | None = None
        self._writes_of_others = 0

    def __repr__(self) -> str:
        return f"<DriverJournal {self.path.name}>"

    # What is written

    async def begin(
        self, verb: str, task: str | None, units: int, readings: Sequence[str] = ()
    ) -> int:
        """Begin a part: the run is the driver's, which has noted it."""
        del verb, task, units, readings
        return 0

    async def end(
        self, run: int, status: str, *, calls: int, tokens: int, money: float | None, recalled: int
    ) -> None:
        """End a part; likewise."""

    async def about(
        self,
        base: bytes,
        about: str,
        run: int,
        reading: str = "",
        origins: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Report what a base stands for."""
        del run
        self._raise_if_lost()
        self.report.bases.append(BaseNote(base, about, reading, tuple(origins)))

    async def keep(self, entries: Sequence[Entry], run: int, writer: int = 0) -> None:
        """Report answers.

        Raises:
            JournalError: reports do not reach the driver any more.
        """
        del run, writer
        self._raise_if_lost()
        self.report.entries.extend(entries)
        for entry in entries:
            self._known.found[entry.key] = entry.value
            if entry.is_repaired:
                self._known.repaired.add(entry.key)

    async def link(self, origins: Sequence[tuple[bytes, bytes]], run: int) -> None:
        """Report that answers are made from further rows."""
        del run
        self._raise_if_lost()
        self.report.links.extend(origins)

    async def remember_failures(self, failures: Sequence[FailureEntry], run: int) -> None:
        """Report failures.

        Raises:
            JournalError: reports do not reach the driver any more.
        """
        del run
        self._raise_if_lost()
        self.report.failures.extend(failures)

    def _raise_if_lost(self) -> None:
        if self.error is not None:
            raise self.error

    def take_warnings(self) -> list[JournalWarning]:
        """Return no warnings: those about the file are the driver's."""
        return []

    # What is looked up

    async def has_base(self, base: bytes) -> bool:
        """Whether anything was ever asked under a base."""
        has: bool = await self._link.ask("has_base", base)
        return has

    async def recall(
        self, keys: Sequence[bytes], run: int = 0, *, is_lasting: bool = False
    ) -> dict[bytes, str]:
        """Return the answers that the journal holds, by key."""
        del run
        known = self._known
        if is_lasting:  # what a person said, and nobody is asked
            lasting: Recalled = await self._link.ask("recall", keys, True)  # noqa: FBT003
            return dict(lasting[0])
        unknown = [key for key in keys if key not in known.found and key not in known.granted]
        answers = {key: known.found[key] for key in keys if key in known.found}
        if not unknown:
            return answers
        recalled: Recalled = await self._link.ask("recall", unknown)
        found, repaired = recalled
        known.repaired |= repaired
        known.open.update(key for key in unknown if key not in found)
        return answers | dict(found)

    async def find_repaired(self, keys: Sequence[bytes]) -> set[bytes]:
        """Find the answers among these, which were looked up, that took a repair turn."""
        return self._known.repaired.intersection(keys)

    async def recall_failures(
        self, keys: Sequence[bytes], seconds: float
    ) -> dict[bytes, RememberedFailure]:
        """Return the failures that are remembered, by key, if they are not older."""
        if not keys:
            return {}
        remembered: RememberedFailures = await self._link.ask("recall_failures", keys, seconds)
        return dict(remembered)

    async def mark(self, base: bytes, writer: int) -> tuple[int, int]:
        """Return a mark that changes when others have written answers that are wanted here."""
        del base, writer
        return self._writes_of_others, 0

    # What is claimed

    @property
    def claims(self) -> dict[bytes, asyncio.Future[None]]:
        """The keys that are being asked, by this part or by others."""
        return self._futures

    async def claim(self, keys: Collection[bytes]) -> Claim:
        """Claim keys that no task of this part has claimed.

        With the first ones, all that were looked up in vain are claimed at the driver.
        """
        loop = asyncio.get_running_loop()
        self._futures.update({key: loop.create_future() for key in keys})
        claim = Claim(next(self._numbers), set(keys))
        try:
            await self._be_granted(set(keys))
        except BaseException:
            self.end_claim(claim)
            raise
        taken = {key for key in keys if key in self._taken}
        if taken:
            claim.keys -= taken
            self._watch_taken()
        return claim

    def release(self, claim: Claim, keys: Collection[bytes]) -> None:
        """Release some keys of a claim in this part; at the driver, a report does."""
        for key in claim.keys.intersection(keys):
            claim.keys.discard(key)
            self._wake(key)

    def end_claim(self, claim: Claim) -> None:
        """End a claim: the answers are there, or nobody asks for them any more."""
        self.release(claim, list(claim.keys))

    def _wake(self, key: bytes) -> None:
        future = self._futures.pop(key, None)
        if future is not None and not future.done():
            future.set_result(None)

    async def _be_granted(self, keys: set[bytes]) -> None:
        """Have the driver say of these keys who asks about them."""
        self._taken -= keys  # if others had them: they may be free now
        self._wanted |= self._unsettled(keys)
        while self._unsettled(keys):
            if self._asking is None or self._asking.done():
                self._asking = asyncio.get_running_loop().create_task(self._ask_for_wanted())
            await asyncio.shield(self._asking)

    def _unsettled(self, keys: set[bytes]) -> set[bytes]:
        known = self._known
        return keys - known.granted - known.found.keys() - self._taken

    async def _ask_for_wanted(self) -> None:
        """Claim all that is wanted, in one question."""
        known = self._known
        asked = list(self._wanted | known.open)
        self._wanted.clear()
        known.open.clear()
        number, attempt = self._part
        claimed: Claimed = await self._link.ask("claim", number, attempt, asked)
        known.granted |= claimed.granted
        known.repaired |= claimed.repaired
        known.found |= claimed.found
        self._taken |= set(asked) - claimed.granted - claimed.found.keys()
        if claimed.found:
            self._writes_of_others += 1

    def _watch_taken(self) -> None:
        if self._watch is None or self._watch.done():
            self._watch = asyncio.get_running_loop().create_task(self._wait_for_others())

    async def _wait_for_others(self) -> None:
        """Wake those who wait for others' answers, once these are there or will not come."""
        try:
            while waiting := [key for key in self._taken if key in self._futures]:
                free: list[bytes] = await self._link.ask("wait", waiting)
                for key in free:
                    self._wake(key)
        except JournalError as error:
            self.error = self.error or error
        finally:  # those who wait look again, and meet the error themselves
            for key in self._taken:
                self._wake(key)

    async def close(self) -> None:
        """Stop asking."""
        for task in (self._asking, self._watch):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
