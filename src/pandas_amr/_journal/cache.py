"""The part of the journal that one map, the reduce or the planner uses: keys, look-ups and claims.

A claim is of keys that a task is asking now; other tasks that need their answers wait for them.
"""

from __future__ import annotations

import asyncio
import itertools
import weakref
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from pandas_amr._agent.transcriber import note_keys, note_recalled
from pandas_amr._journal.database import Entry
from pandas_amr._journal.entries import decode, encode
from pandas_amr._journal.first_format import make_former_base, write_former_question
from pandas_amr._journal.journal import about_words
from pandas_amr._journal.keys import fingerprint
from pandas_amr._journal.origins import join_origins
from pandas_amr._journal.outcomes import FailureEntry
from pandas_amr._records.engine import run_off_loop
from pandas_amr._records.events import Recalled
from pandas_amr._records.trace import current_node, record_event, record_wait
from pandas_amr.errors import InvalidOutput

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from pandas_amr._journal.claims import Claim
    from pandas_amr._journal.database import Kind
    from pandas_amr._journal.journal import Journal
    from pandas_amr._journal.origins import Origins, RowOrigins
    from pandas_amr._journal.outcomes import RememberedFailure

Answer = TypeVar("Answer")
FORMAT = 2  # of keys; a new one changes every key. Those of the first are in `first_format.py`.


@dataclass(slots=True)
class AnswerCache:
    """The answers of one map, or of the reduce: its part of the journal.

    Attributes:
        about: all that an answer depends on, besides its own input: instruction, type, model,
            options, tools.
        run: the run's number in the journal.
        recalled: how many answers came from the journal.
        who: the writer's number, which tells its commits from those of others.
        former: what the journal's first format wrote in place of ``about``.
        label: the phase in the frame of usage.
        rows: tells which of the user's rows are behind a row of the run.
        made_from: the keys of what the question itself was made from: a plan.
        is_about_rows: whether the question holds values of rows.
        base: the part that all keys have in common: the fingerprint of ``about``.
    """

    journal: Journal
    kind: Kind
    about: Mapping[str, Any]
    run: int
    recalled: int = 0
    who: int = field(default_factory=itertools.count(1).__next__)
    former: Mapping[str, Any] | None = None
    label: str = "function"
    rows: RowOrigins | None = None
    made_from: tuple[bytes, ...] = ()
    is_about_rows: bool = False
    base: bytes = field(init=False)
    _former_base: bytes = b""
    _has_begun: bool = False
    _has_former: bool | None = None

    def __post_init__(self) -> None:
        self.base = fingerprint(
            about_words({"format": FORMAT, "kind": self.kind, **self.about}).encode()
        )
        if self.former is not None:
            self._former_base = make_former_base(self.kind, self.former)

    def for_corrections(self) -> AnswerCache:
        """Return the cache of what people say in place of these answers.

        Its question is another one, since the kind is a part of it, and is written when it is used.
        """
        return replace(
            self,
            kind="correction",
            recalled=0,
            former=None,
            _has_begun=False,
            _has_former=None,
        )

    def key(self, content: bytes, *, former: bool = False) -> bytes:
        """Make the key of an answer; with ``former`` the one that it had in the first format."""
        return fingerprint(self._former_base if former else self.base, content)

    async def recall(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """Look up answers; return those that the journal has, as JSON."""
        await self._begin()
        return await self.journal.recall(keys, self.run, is_lasting=self.kind == "correction")

    async def is_known(self) -> bool:
        """Whether the journal has ever had an answer to this question."""
        return self._has_begun or await self.journal.has_base(self.base)

    def count_recalled(self, answers: int) -> None:
        """Count answers that came from the journal."""
        self.recalled += answers
        if answers:
            record_event(partial(Recalled, answers=answers))

    async def has_former(self) -> bool:
        """Whether the journal has answers to this question in its first format.

        If it has, they count as used by this run.
        """
        if self._has_former is not None:
            return self._has_former
        self._has_former = False
        if self.former is not None and not self.journal.refresh:
            self._has_former = await self.journal.has_base(self._former_base)
            if self._has_former:
                await self.journal.about(
                    self._former_base, write_former_question(self.former), self.run
                )
        return self._has_former

    async def _begin(self) -> None:
        """Write once what is asked."""
        if not self._has_begun:
            self._has_begun = True
            links = [(plan, self.base) for plan in self.made_from]
            reading = ""
            if self.rows is not None:
                reading = self.rows.reading
                links += await run_off_loop(self.rows.links, size=self.rows.size)
            await self.journal.about(self.base, about_words(self.about), self.run, reading, links)

    async def recall_failures(
        self, keys: Sequence[bytes], seconds: float
    ) -> dict[bytes, RememberedFailure]:
        """Look up units that failed at most so many seconds ago."""
        return await self.journal.recall_failures(keys, seconds)

    async def remember_failures(
        self,
        failures: Mapping[bytes, RememberedFailure],
        origins: Mapping[bytes, Origins],
        *,
        is_found_by_key: bool,
    ) -> None:
        """Make failures durable, by the keys of the findings that did not come; see ``keep``."""
        await self._begin()
        entries: list[FailureEntry] = []
        for key, failure in failures.items():
            entry = FailureEntry(
                key, self.base, failure, origins[key], is_found_by_key=is_found_by_key
            )
            entries.append(entry)
        await self.journal.remember_failures(entries, self.run)

    async def find_repaired(self, keys: Sequence[bytes]) -> set[bytes]:
        """Find the answers among these that took a repair turn."""
        return await self.journal.find_repaired(keys)

    async def keep(
        self,
        answers: Mapping[bytes, Any],
        inputs: Mapping[bytes, str] | None = None,
        origins: Mapping[bytes, Origins] | None = None,
        *,
        repaired: Collection[bytes] = (),
        is_found_by_key: bool = False,
    ) -> None:
        """Make answers durable.

        Args:
            answers: the answers by key.
            inputs: the texts of what they are about, in case that these are kept.
            origins: the fingerprints of the rows that each is made from.
            repaired: the keys of those that took a repair turn.
            is_found_by_key: whether each key is made of the row alone.
        """
        await self._begin()
        texts = inputs if inputs is not None and self.journal.keep_inputs else {}
        behind = origins or {}
        entries: list[Entry] = []
        for key, answer in answers.items():
            entry = Entry(
                key,
                self.kind,
                self.base,
                encode(answer),
                texts.get(key),
                behind.get(key, ()),
                is_found_by_key=is_found_by_key,
                is_repaired=key in repaired,
            )
            entries.append(entry)
        await self._link_question(behind)
        await self.journal.keep(entries, self.run, self.who)

    async def link(self, origins: Mapping[bytes, Origins]) -> None:
        """Write that answers which the journal has are made from these rows, too."""
        await self._begin()
        pairs = [(origin, key) for key, rows in origins.items() for origin in rows]
        await self.journal.link(pairs, self.run)
        await self._link_question(origins)

    async def _link_question(self, origins: Mapping[bytes, Origins]) -> None:
        """Write that the question holds values of these rows, if it does."""
        if self.is_about_rows:
            rows = join_origins(origins.values())
            await self.journal.link([(origin, self.base) for origin in rows], self.run)

    async def mark(self) -> tuple[int, int]:
        """Return a mark that changes when anyone else may have written answers of this base."""
        return await self.journal.mark(self.base, self.who)


@dataclass(frozen=True, slots=True)
class Answers:
    """Reductions and plans in the journal, by the texts that were asked.

    Attributes:
        used: the keys of the answers that were found or kept.
    """

    keeper: AnswerCache
    used: list[bytes] = field(default_factory=list)

    async def recall(
        self,
        asked: Sequence[str],
        read: Callable[[Any], Answer],
        *,
        former: Sequence[str] = (),
        origins: Origins = (),
    ) -> Answer | None:
        """Look up an answer; return None if this task must ask.

        Then this task holds the claim, and other tasks of this process wait: until it keeps an
        answer, ends, or looks up something else. Without an answer, one that waited must ask.

        Args:
            asked: what is asked.
            read: reads the answer, and raises if it is not valid any more.
            former: what is asked as the journal's first format wrote it.
            origins: the fingerprints of the rows behind what is asked.
        """
        task = asyncio.current_task()
        release_claim(task)
        key = self.key(asked)
        claim = await self._claim(key)
        if task is not None:
            _asking[task] = (self.keeper.journal, claim)
            task.add_done_callback(release_claim)
        answer = await self._look_up(key, read)
        if answer is None and former and await self.keeper.has_former():
            key = self.key(former, former=True)
            answer = await self._look_up(key, read)
        if answer is not None:
            self.used.append(key)
            note_recalled(key)
            await self.keeper.link({key: origins})
            self.keeper.count_recalled(1)
            release_claim(task)
            node = current_node()
            if node is not None:
                node.form = "journal"
        return answer

    async def _claim(self, key: bytes) -> Claim:
        """Claim a key, once nobody else has claimed it."""
        journal = self.keeper.journal
        while True:
            while key in journal.claims:
                with record_wait("journal"):
                    await asyncio.wait([journal.claims[key]])
            claim = await journal.claim([key])
            if claim.keys:
                return claim
            journal.end_claim(claim)  # another process has it

    async def _look_up(self, key: bytes, read: Callable[[Any], Answer]) -> Answer | None:
        values = await self.keeper.recall([key])
        return _read_answer(values.get(key), read)

    async def keep(self, asked: Sequence[str], payload: object, origins: Origins = ()) -> None:
        """Make an answer durable, and release its claim."""
        key = self.key(asked)
        self.used.append(key)
        note_keys({key: None})
        try:
            await self.keeper.keep({key: payload}, origins={key: origins})
        finally:
            release_claim(asyncio.current_task())

    def key(self, asked: Sequence[str], *, former: bool = False) -> bytes:
        """Make the key of what is asked."""
        content = fingerprint(*(text.encode("utf-8", "surrogatepass") for text in asked))
        return self.keeper.key(content, former=former)


def _read_answer(text: str | None, read: Callable[[Any], Answer]) -> Answer | None:
    """Read an answer; return None if it is damaged or not valid any more."""
    payload = None if text is None else decode(text)
    if payload is None:
        return None
    try:
        return read(payload)
    except (ValidationError, InvalidOutput):
        return None


# The claim that each task holds.
_asking: weakref.WeakKeyDictionary[asyncio.Task[Any], tuple[Journal, Claim]] = (
    weakref.WeakKeyDictionary()
)


def release_claim(task: asyncio.Task[Any] | None) -> None:
    """Release the claim that a task holds, if any."""
    if task is None or _asking.get(task) is None:
        return
    journal, claim = _asking.pop(task)
    task.remove_done_callback(release_claim)
    journal.end_claim(claim)
