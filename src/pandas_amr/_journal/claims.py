"""Claims: what one task is asking, no other asks; not in this process, and not in another one.

A claim stands in the journal's file, so that processes see those of each other. It is made at once
for all of its keys, in one transaction, and before the keys are looked up. Who finds a key claimed
waits without a claim of its own: so no two wait for each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from pandas_amr._journal.database_file import transaction
from pandas_amr._journal.keys import KEY_BYTES
from pandas_amr._journal.processes import is_alive, remove_dead, write_beat
from pandas_amr.errors import JournalError

if TYPE_CHECKING:
    import sqlite3
    import weakref
    from collections.abc import Collection, Sequence

    from pandas_amr._journal.database import Store

LOGGER = logging.getLogger("pandas_amr")
OF_OTHERS = "SELECT process, keys FROM claims WHERE process != ?"
POLL_S = 0.1  # between two looks at the claims of other processes, while one is waited for


@dataclass(slots=True, eq=False)
class Claim:
    """Keys that one task is asking.

    Attributes:
        number: its number among those of this process.
        keys: those that are still claimed.
    """

    number: int
    keys: set[bytes]


@dataclass(frozen=True, slots=True)
class _Request:
    """A claim that is to be written, and the future of the keys that other processes have."""

    number: int
    keys: frozenset[bytes]
    yields: bool
    taken: asyncio.Future[set[bytes]]


@dataclass(slots=True, eq=False)
class Claims:
    """The claims on one file: those of this process, and those of others that it waits for.

    Attributes:
        place: refers to the file's store, which has these claims.
        futures: by key; a future is done when the answer is there, or will not come.
    """

    place: weakref.ReferenceType[Store]
    futures: dict[bytes, asyncio.Future[None]]
    _number: int = 0
    _held: set[int] = field(default_factory=set)  # claims that the file has, or will have
    _others: set[bytes] = field(default_factory=set)  # keys of other processes
    _requests: list[_Request] = field(default_factory=list)
    _ended: list[int] = field(default_factory=list)
    _watch: asyncio.Task[None] | None = None

    @property
    def is_held(self) -> bool:
        """Whether this process has claims."""
        return bool(self._held)

    async def take(self, keys: Collection[bytes], *, yields: bool) -> Claim:
        """Claim keys that no task of this process has claimed.

        Args:
            keys: the keys.
            yields: whether the claims of other processes are heeded.

        Returns:
            A claim of those keys that no other process has claimed. The others can be waited for.

        Raises:
            JournalError: the file cannot be used.
        """
        loop = asyncio.get_running_loop()
        self.futures.update({key: loop.create_future() for key in keys})
        self._number += 1
        claim = Claim(self._number, set(keys))
        self._held.add(claim.number)
        request = _Request(claim.number, frozenset(keys), yields, loop.create_future())
        self._schedule_exchange()
        self._requests.append(request)
        try:
            taken = await request.taken
        except BaseException:
            self.end(claim)
            raise
        if taken:
            claim.keys -= taken
            self._wait_for_others(taken)
        return claim

    def release(self, claim: Claim, keys: Collection[bytes]) -> None:
        """Release some keys of a claim: their answers are there, or nobody asks for them."""
        for key in claim.keys.intersection(keys):
            claim.keys.discard(key)
            self._wake(key)

    def end(self, claim: Claim) -> None:
        """End a claim, and release the keys that it still has."""
        self.release(claim, list(claim.keys))
        if claim.number in self._held:
            self._held.discard(claim.number)
            self._schedule_exchange()
            self._ended.append(claim.number)

    def _wake(self, key: bytes) -> None:
        future = self.futures.pop(key, None)
        if future is not None and not future.done():
            future.set_result(None)

    # The file

    def _schedule_exchange(self) -> None:
        """Have the file changed once the tasks that are due have said what they claim and end."""
        if not self._requests and not self._ended:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and so will the process
                asyncio.get_running_loop().call_soon(self._exchange)

    def _exchange(self) -> None:
        requests, self._requests = self._requests, []
        ended, self._ended = self._ended, []
        store = self.place()
        if store is None:  # nobody has the journal any more
            return
        if self._held:
            store.show_life()
        work = partial(_write_claims, store.token, requests, ended)
        written = asyncio.get_running_loop().create_task(store.execute_async(work))
        written.add_done_callback(partial(_finish, requests))

    # Other processes

    def _wait_for_others(self, keys: set[bytes]) -> None:
        """Watch the file until these keys, whose futures are there, are free."""
        if not self._others:
            LOGGER.info("Another process is asking for the same answers; they are waited for.")
        self._others |= keys
        if self._watch is None or self._watch.done():
            self._watch = asyncio.get_running_loop().create_task(self._watch_others())

    async def _watch_others(self) -> None:
        try:
            while self._others:
                await asyncio.sleep(POLL_S)
                store = self.place()
                if store is None:
                    return
                find = partial(_find_claimed, store.token)
                claimed: set[bytes] = await store.execute_async(find)
                self._free(self._others - claimed)
                del store  # it may go while this sleeps
        except JournalError as error:
            LOGGER.info("The claims of other processes cannot be read: %s", error)
        finally:  # those who wait look again, and meet the error themselves
            self._free(self._others)

    def _free(self, keys: set[bytes]) -> None:
        self._others = self._others - keys
        for key in keys:
            self._wake(key)


def _finish(requests: Sequence[_Request], written: asyncio.Future[list[set[bytes]]]) -> None:
    """Tell those who claim which of their keys other processes have."""
    error = None if written.cancelled() else written.exception()
    for number, request in enumerate(requests):
        if request.taken.done():
            continue
        if written.cancelled():
            request.taken.cancel()
        elif error is not None:
            request.taken.set_exception(error)
        else:
            request.taken.set_result(written.result()[number])


# Work on the database


def _write_claims(
    process: bytes,
    requests: Sequence[_Request],
    ended: Sequence[int],
    database: sqlite3.Connection,
) -> list[set[bytes]]:
    """End claims and write new ones; return the keys of each that other processes have."""
    with transaction(database):
        database.executemany(
            "DELETE FROM claims WHERE process = ? AND number = ?",
            [(process, number) for number in ended],
        )
        if not requests:
            return []
        if database.execute(OF_OTHERS, (process,)).fetchone() is not None:
            remove_dead(database, process)
        others = _find_claimed(process, database)
        taken: list[set[bytes]] = []
        rows: list[tuple[bytes, int, bytes]] = []
        for request in requests:
            had = set(request.keys & others) if request.yields else set()
            taken.append(had)
            if request.number not in ended and request.keys != had:
                rows.append((process, request.number, b"".join(request.keys - had)))
        database.executemany("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", rows)
        _make_known(process, database)
    return taken


def _make_known(process: bytes, database: sqlite3.Connection) -> None:
    """Write that this process lives, if the file does not have it; else its claims are void."""
    found = database.execute("SELECT 1 FROM processes WHERE process = ?", (process,))
    if found.fetchone() is None:
        write_beat(database, process)


def _find_claimed(process: bytes, database: sqlite3.Connection) -> set[bytes]:
    """Find the keys that other processes have claimed, as long as they live."""
    rows = database.execute(OF_OTHERS, (process,)).fetchall()
    if not rows:
        return set()
    alive = {
        other
        for other, born, beat in database.execute("SELECT process, born, beat FROM processes")
        if is_alive(born, beat)
    }
    claimed: set[bytes] = set()
    for other, packed in rows:
        if other in alive:
            claimed.update(
                packed[start : start + KEY_BYTES] for start in range(0, len(packed), KEY_BYTES)
            )
    return claimed
