"""The journal's database in this process: one connection per file, on a thread of its own.

Several processes may write the same file. A damaged file is set aside, and one that was removed is
created anew; the user is warned of either.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pandas_amr._journal.claims import Claims
from pandas_amr._journal.database_file import (
    SET_ASIDE,
    RunRecord,
    checksum,
    create_file,
    describe_dropped,
    describe_error,
    find_forgotten,
    flush_to_disk,
    is_damaged,
    is_file,
    move_aside,
    open_database,
    transaction,
    writable,
)
from pandas_amr._journal.outcomes import write_repaired
from pandas_amr._journal.processes import BEAT_S, write_beat
from pandas_amr._records.callers import warn_caller
from pandas_amr._records.clock import CLOCK
from pandas_amr.errors import JournalError, JournalWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TOKEN_BYTES = 16

Kind = Literal["finding", "plan", "reduction", "correction"]


class Entry(NamedTuple):
    """One accepted answer: ``value`` is JSON.

    ``origins`` are the fingerprints of the rows that it was made from. They are written unless the
    key is made of one of them: then ``forget`` finds the entry by its key.
    """

    key: bytes
    kind: Kind
    base: bytes
    value: str
    input: str | None = None
    origins: tuple[bytes, ...] = ()
    is_found_by_key: bool = False
    is_repaired: bool = False


@dataclass(slots=True, eq=False)
class _DatabaseConnection:
    """A connection to the database on a thread of its own, and the process of both.

    No connection is open while the process forks. A child that inherits one, even if it does not
    use it, would let SQLite take the parent's locks for its own, and damage the file
    (https://www.sqlite.org/howtocorrupt.html, 2.6).
    """

    thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="pandas-amr-journal")
    )
    database: sqlite3.Connection | None = None
    process: int = field(default_factory=os.getpid)

    def close(self) -> None:
        """Close the connection; it is opened again at the next use."""
        with _in_use:
            _open.discard(self)
            if self.database is not None:
                self.database.close()
                self.database = None

    def end(self) -> None:
        """Close the connection and end the thread, without waiting."""
        self.thread.submit(self.close)
        self.thread.shutdown(wait=False)


@dataclass(frozen=True, slots=True)
class _Write:
    """Entries that wait to be committed, and the future of those who wait for it."""

    entries: Sequence[Entry]
    bases: frozenset[bytes]
    run: int
    writer: int
    written: asyncio.Future[None]


@dataclass(slots=True, weakref_slot=True, eq=False)
class Store:
    """One file in one process. It is closed when no journal and no run refers to it.

    Attributes:
        claims: the keys that are being asked, by this process or another; a future is done when
            the answer is there, or will not come.
        claimed: makes and ends claims.
        notices: what happened to the file since the user was last warned.
        aside: the damaged files that were set aside since the last ``verify``.
        commits: the number of commits, by base.
        own: the number of commits by each writer, by base and writer.
        runs: the records of running runs.
        token: names this process in the file.
    """

    path: Path
    claims: dict[bytes, asyncio.Future[None]] = field(default_factory=dict)
    claimed: Claims = field(init=False)
    connection: _DatabaseConnection = field(default_factory=_DatabaseConnection)
    notices: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    commits: Counter[bytes] = field(default_factory=Counter)
    own: Counter[tuple[bytes, int]] = field(default_factory=Counter)
    runs: dict[int, RunRecord] = field(default_factory=dict)
    token: bytes = field(default_factory=partial(os.urandom, TOKEN_BYTES))
    _life: asyncio.Task[None] | None = None
    _inode: int = 0
    _waiting: list[_Write] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.claimed = Claims(weakref.ref(self), self.claims)
        abandoned = weakref.finalize(self, _abandoned.append, self.connection)
        abandoned.atexit = False  # the end of the process closes it: `_close_open`

    def execute(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run work on the database and wait for it; on a new file if this one is damaged.

        Raises:
            JournalError: the file cannot be used.
        """
        return self._wait_for(self._work, work)

    def read(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run work that needs what the file holds, and wait for it.

        Raises:
            JournalError: the file cannot be used, or is damaged; then it is set aside.
        """
        return self._wait_for(self._work_on_this_file, work)

    def run_beside(self, work: Callable[..., Any], *args: Any) -> Any:
        """Run work on a file beside this one, which is not open while the process forks.

        Raises:
            JournalError: the file cannot be used.
        """
        return self._wait_for(_work_beside, partial(work, self.path, *args))

    def _wait_for(self, run_work: Callable[..., Any], work: Callable[..., Any]) -> Any:
        _close_abandoned()
        try:
            return self.connection.thread.submit(run_work, work).result()
        finally:
            while self.notices:
                warn_caller(JournalWarning(self.notices.pop(0)))

    async def execute_async(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run work on the database without blocking the loop; on a new file if it is damaged."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.connection.thread, self._work, work)

    async def keep(self, entries: Sequence[Entry], run: int, writer: int) -> None:
        """Write entries, in one commit with those that others bring meanwhile."""
        loop = asyncio.get_running_loop()
        bases = frozenset(entry.base for entry in entries)
        write = _Write(entries, bases, run, writer, loop.create_future())
        self._waiting.append(write)
        if len(self._waiting) == 1:
            loop.call_soon(self._flush)
        await write.written

    def _flush(self) -> None:
        """Commit all writes that wait."""
        writes, self._waiting = self._waiting, []
        insert = partial(self._insert, writes)
        loop = asyncio.get_running_loop()
        committed = loop.run_in_executor(self.connection.thread, self._work, insert)
        committed.add_done_callback(partial(_finish, writes))

    def show_life(self) -> None:
        """Have the file know that this process lives, as long as it has runs or claims."""
        if self._life is None or self._life.done():
            self._life = asyncio.get_running_loop().create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            if not self.runs and not self.claimed.is_held:
                return
            with contextlib.suppress(JournalError):  # the runs meet it themselves
                await self.execute_async(self._write_life)

    def _write_life(self, database: sqlite3.Connection) -> None:
        with transaction(database):
            write_beat(database, self.token)
            # A process that was stopped for long may have been taken for dead.
            running = [(run, self.token) for run in list(self.runs)]
            database.executemany("INSERT OR IGNORE INTO running VALUES (?, ?)", running)

    def _insert(self, writes: Sequence[_Write], database: sqlite3.Connection) -> None:
        with flush_to_disk(database), transaction(database):
            for write in writes:
                record = self.runs.get(write.run)
                if record is not None:
                    record.write(database, write.run, write.bases)
            kept = [_without_forgotten(database, write) for write in writes]
            database.executemany(
                "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)", _make_rows(kept)
            )
            database.executemany("INSERT OR IGNORE INTO origins VALUES (?, ?)", _list_origins(kept))
            entries = [entry for write in kept for entry in write.entries]
            repaired = [entry.key for entry in entries if entry.is_repaired]
            write_repaired(database, [entry.key for entry in entries], repaired)
        dropped = _count_entries(writes) - _count_entries(kept)
        if dropped:
            self.notices.append(describe_dropped(dropped))
        for write in writes:
            self.commits.update(write.bases)
            self.own.update((base, write.writer) for base in write.bases)

    def _work(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run work on the database; if it is damaged, set it aside and use a new one."""
        try:
            with _in_use:
                try:
                    return work(self._connect())
                except sqlite3.DatabaseError as error:
                    if not is_damaged(error):
                        raise
                    self.notices.append(self._set_aside(error))
                    # What the run has found since stays with it, so nothing is asked again.
                    return work(self._connect())
        except sqlite3.Error as error:
            raise JournalError(describe_error(self.path, error)) from None

    def _work_on_this_file(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run work on the database; if it is damaged, set it aside and raise."""
        try:
            with _in_use:
                return work(self._connect())
        except sqlite3.Error as error:
            if is_damaged(error):
                raise JournalError(self._set_aside(error)) from None
            raise JournalError(describe_error(self.path, error)) from None

    def _connect(self) -> sqlite3.Connection:
        """Return the connection; a new one if the file was removed."""
        if self.connection.database is not None and is_file(self.path, self._inode):
            return self.connection.database
        self.connection.close()
        if self._inode and not is_file(self.path, self._inode):
            self.notices.append(
                f"The journal {self.path} has gone. A new one is created, without its answers."
            )
        create_file(self.path)
        self._inode = self.path.stat().st_ino
        database = open_database(self.path)
        self.connection.database = database
        _open.add(self.connection)
        return database

    def _set_aside(self, error: Exception) -> str:
        """Move a damaged file away, so that a new one can take its place.

        Returns:
            What to tell the user.

        Raises:
            JournalError: the file cannot be moved.
        """
        self.connection.close()
        moment = time.strftime("%Y%m%d-%H%M%S")
        target = Path(f"{self.path}{SET_ASIDE}{moment}-{os.getpid()}")
        if is_file(self.path, self._inode):
            move_aside(self.path, target, error)
            notice = (
                f"The journal {self.path} is damaged ({error}). It is set aside as {target.name}."
            )
        else:  # another process was first, and the path names its new file
            notice = (
                f"The journal {self.path} was damaged ({error}), and another process has set it "
                "aside."
            )
        self._inode = 0
        self.aside.append(notice)
        return notice


def _work_beside(work: Callable[[], Any]) -> Any:
    with _in_use:
        return work()


def _without_forgotten(database: sqlite3.Connection, write: _Write) -> _Write:
    """Leave out what is made from rows that were forgotten while its run was under way."""
    forgotten = find_forgotten(database, write.run)
    if not forgotten:
        return write
    return replace(
        write, entries=[one for one in write.entries if forgotten.isdisjoint(one.origins)]
    )


def _count_entries(writes: Sequence[_Write]) -> int:
    return sum(len(write.entries) for write in writes)


def _make_rows(writes: Sequence[_Write]) -> list[tuple[Any, ...]]:
    """Make the rows of the table of entries."""
    now = CLOCK.wall()
    rows: list[tuple[Any, ...]] = []
    for write in writes:
        for key, kind, base, value, text, *_ in write.entries:
            shown = None if text is None else writable(text)
            rows.append((key, kind, base, write.run, now, value, checksum(key, value), shown))
    return rows


def _list_origins(writes: Sequence[_Write]) -> list[tuple[bytes, bytes]]:
    """List the rows of the table of origins."""
    rows: list[tuple[bytes, bytes]] = []
    for write in writes:
        for entry in write.entries:
            if not entry.is_found_by_key:
                rows += [(origin, entry.key) for origin in entry.origins]
    return rows


def _finish(writes: Sequence[_Write], committed: asyncio.Future[None]) -> None:
    """Wake those who wait for a commit."""
    error = None if committed.cancelled() else committed.exception()
    for write in writes:
        if write.written.done():
            continue
        if error is None:
            write.written.set_result(None)
        else:
            write.written.set_exception(error)


# The stores of this process

_stores: weakref.WeakValueDictionary[tuple[int, Path], Store] = weakref.WeakValueDictionary()
_lock = threading.Lock()
# Held while a connection is in use, and while the process forks.
_in_use = threading.RLock()
_open: set[_DatabaseConnection] = set()
# Connections whose store was collected. The garbage collector may add one at any moment.
_abandoned: deque[_DatabaseConnection] = deque()


def _close_abandoned() -> None:
    """Close the connections of stores that nothing refers to any more."""
    with contextlib.suppress(IndexError):
        while True:
            connection = _abandoned.popleft()
            if connection.process == os.getpid():  # a fork does not have its thread
                connection.end()


def store_at(path: Path) -> Store:
    """Return the process's one store for a file.

    Raises:
        JournalError: the file cannot be used.
    """
    key = (os.getpid(), path)
    with _lock:
        store = _stores.get(key)
        if store is None:
            store = _stores[key] = Store(path)
    store.execute(_do_nothing)  # opens the file, so that a run does not start in vain
    return store


def _do_nothing(database: sqlite3.Connection) -> None:
    del database


def _close_open() -> None:
    for connection in list(_open):
        connection.close()


def _before_fork() -> None:
    _lock.acquire()
    _in_use.acquire()
    _close_open()


def _after_fork() -> None:
    _in_use.release()
    _lock.release()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
# A file that the last process closed is whole: nothing of it is left in a log beside it, which who
# copies the file would leave behind. The threads of the connections have ended by then.
atexit.register(_close_open)
