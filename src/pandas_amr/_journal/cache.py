"""A map's or a reduce's way to the journal: keys, what is known and passes today's check, and who asks what now."""

from __future__ import annotations

import asyncio
import itertools
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from pandas_amr._journal.database import Entry
from pandas_amr._journal.entries import decode, encode
from pandas_amr._journal.first_format import former_base, former_words
from pandas_amr._journal.journal import about_words
from pandas_amr._journal.keys import fingerprint
from pandas_amr.errors import InvalidOutput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pandas_amr._journal.database import Kind
    from pandas_amr._journal.journal import Journal

Answer = TypeVar("Answer")
FORMAT = 2  # of keys: another one makes every key another; those of the first are in _former


@dataclass(slots=True)
class Keeper:
    """What one map, or the reduce, keeps in the journal under one common part of its keys.

    Attributes:
        about: all that an answer depends on beside its own input: instruction, type, model, options, tools.
        run: the run's number in the journal.
        recalled: how many answers came from the journal.
        who: tells its own commits from others'.
        former: what the journal's first format wrote in place of ``about``.
        label: what usage is listed under.
    """

    journal: Journal
    kind: Kind
    about: Mapping[str, Any]
    run: int
    recalled: int = 0
    who: int = field(default_factory=itertools.count(1).__next__)
    former: Mapping[str, Any] | None = None
    label: str = "function"
    base: bytes = field(init=False)
    _former_base: bytes = b""
    _told: bool = False
    _has_former: bool | None = None

    def __post_init__(self) -> None:
        self.base = fingerprint(
            about_words({"format": FORMAT, "kind": self.kind, **self.about}).encode()
        )
        if self.former is not None:
            self._former_base = former_base(self.kind, self.former)

    def key(self, content: bytes, *, former: bool = False) -> bytes:
        """The key of one answer, or the one that it had in the ``former`` format."""
        return fingerprint(self._former_base if former else self.base, content)

    async def recall(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """The entries that are known, as they are kept."""
        await self._tell()
        return await self.journal.recall(keys, self.run)

    async def has_former(self) -> bool:
        """Whether the journal's first format has answers to this question. They are then in use, as those of now."""
        if self._has_former is None:
            asks_all = self.former is None or self.journal.refresh
            self._has_former = not asks_all and await self.journal.has_base(self._former_base)
            if self._has_former and self.former is not None:
                await self.journal.about(self._former_base, former_words(self.former), self.run)
        return self._has_former

    async def _tell(self) -> None:
        """Note once what is asked."""
        if not self._told:
            self._told = True
            await self.journal.about(self.base, about_words(self.about), self.run)

    async def keep(
        self, answers: Mapping[bytes, Any], inputs: Mapping[bytes, str] | None = None
    ) -> None:
        """Make answers durable."""
        await self._tell()
        texts = inputs if inputs is not None and self.journal.keep_inputs else {}
        entries = [
            Entry(key, self.kind, self.base, encode(answer), texts.get(key))
            for key, answer in answers.items()
        ]
        await self.journal.keep(entries, self.run, self.who)

    async def mark(self) -> tuple[int, int]:
        """Changes where anybody else may have written what this one wants to know."""
        return await self.journal.mark(self.base, self.who)

    def claim(self, keys: Iterable[bytes]) -> None:
        """Let others of this process who want to know these wait."""
        loop = asyncio.get_running_loop()
        self.journal.claims.update({key: loop.create_future() for key in keys})

    def release(self, keys: Iterable[bytes]) -> None:
        """Let those who wait go on: the answers are there, or nobody is asking for them any more."""
        for key in keys:
            claim = self.journal.claims.pop(key, None)
            if claim is not None:
                claim.set_result(None)


@dataclass(frozen=True, slots=True)
class Answers:
    """Reductions and plans, kept by the texts that were asked."""

    keeper: Keeper

    async def recall(
        self, asked: Sequence[str], read: Callable[[Any], Answer], *, former: Sequence[str] = ()
    ) -> Answer | None:
        """The answer as ``read`` takes it today, or None: then this task is to ask, and others of this process wait.

        They wait until the answer is kept, or until this task ends or asks something else: then it has got none, and
        one of those who waited is to ask. ``former`` is what was asked as the journal's first format wrote it.
        """
        task = asyncio.current_task()
        _asks_no_more(task)
        key = self._key(asked)
        claims = self.keeper.journal.claims
        while key in claims:
            await asyncio.wait([claims[key]])
        self.keeper.claim([key])
        if task is not None:
            _asking[task] = (self.keeper, key)
            task.add_done_callback(_asks_no_more)
        known = _read_answer((await self.keeper.recall([key])).get(key), read)
        if known is None and former and await self.keeper.has_former():
            key = self._key(former, former=True)
            known = _read_answer((await self.keeper.recall([key])).get(key), read)
        if known is not None:
            self.keeper.recalled += 1
            _asks_no_more(task)
        return known

    async def keep(self, asked: Sequence[str], payload: Any) -> None:
        """Make an answer durable."""
        try:
            await self.keeper.keep({self._key(asked): payload})
        finally:
            _asks_no_more(asyncio.current_task())

    def _key(self, asked: Sequence[str], *, former: bool = False) -> bytes:
        content = fingerprint(*(one.encode("utf-8", "surrogatepass") for one in asked))
        return self.keeper.key(content, former=former)


def _read_answer(text: str | None, read: Callable[[Any], Answer]) -> Answer | None:
    """An answer as it is read today; None where it is damaged, or is none any more: then it is asked anew."""
    payload = None if text is None else decode(text)
    if payload is None:
        return None
    try:
        return read(payload)
    except (ValidationError, InvalidOutput):
        return None


_asking: weakref.WeakKeyDictionary[asyncio.Task[Any], tuple[Keeper, bytes]] = (
    weakref.WeakKeyDictionary()
)


def _asks_no_more(task: asyncio.Task[Any] | None) -> None:
    """Let those go on who wait for what a task was to ask."""
    if task is not None and (asked := _asking.pop(task, None)) is not None:
        task.remove_done_callback(_asks_no_more)
        keeper, key = asked
        keeper.release([key])
