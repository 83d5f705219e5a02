"""The journal's file: one SQLite database in write-ahead mode, on a thread of its own, shared by all that name it.

Several processes may write it. What is damaged is set aside, and what has gone is begun anew; either is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
import warnings
import weakref
import zlib
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pandas_amr.errors import JournalError, JournalWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Kind = Literal["finding", "plan", "reduction"]
VERSION = 1
APPLICATION = 0x414D524A  # "AMRJ"
BUSY_S = 60.0
BUSY_STEP_S = 0.01
ASKED_AT_ONCE = 5000
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
SCHEMA = """
CREATE TABLE bases (base BLOB PRIMARY KEY, about TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE runs (
    run INTEGER PRIMARY KEY AUTOINCREMENT, began REAL NOT NULL, ended REAL, verb TEXT NOT NULL, task TEXT,
    units INTEGER NOT NULL, status TEXT, calls INTEGER, tokens INTEGER, money REAL, recalled INTEGER
);
CREATE TABLE uses (run INTEGER NOT NULL, base BLOB NOT NULL, PRIMARY KEY (run, base)) WITHOUT ROWID;
CREATE TABLE entries (
    key BLOB PRIMARY KEY, kind TEXT NOT NULL, base BLOB NOT NULL, run INTEGER NOT NULL, made REAL NOT NULL,
    value TEXT NOT NULL, checked INTEGER NOT NULL, input TEXT
) WITHOUT ROWID;
"""


class Entry(NamedTuple):
    """One accepted answer: ``value`` is JSON."""

    key: bytes
    kind: Kind
    base: bytes
    value: str
    input: str | None = None


@dataclass(slots=True)
class Noted:
    """What a run that goes on has written of itself: it is written again where it is no longer there."""

    began: float
    verb: str
    task: str | None
    units: int
    abouts: dict[bytes, str] = field(default_factory=dict)  # by base

    def write(
        self, connection: sqlite3.Connection, run: int | None, bases: Iterable[bytes] | None = None
    ) -> int:
        """Write what is missing of the run and of its bases; without a number it gets one. The number."""
        row = (run, self.began, self.verb, self.task, self.units)
        add = "INSERT OR IGNORE INTO"
        number = connection.execute(
            f"{add} runs (run, began, verb, task, units) VALUES (?, ?, ?, ?, ?)", row
        ).lastrowid
        for base in self.abouts if bases is None else self.abouts.keys() & set(bases):
            connection.execute(f"{add} bases VALUES (?, ?)", (base, self.abouts[base]))
            connection.execute(f"{add} uses VALUES (?, ?)", (run, base))
        return int(number or 0) if run is None else run


@dataclass(slots=True, eq=False)
class _Line:
    """A connection on a thread of its own, and the process that both are of.

    None is open while the process forks. A child that inherits one, though it never touches it, would let SQLite take
    locks for its own that are its parent's, and damage the file (https://www.sqlite.org/howtocorrupt.html, 2.6).
    """

    thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="pandas-amr-journal")
    )
    connection: sqlite3.Connection | None = None
    process: int = field(default_factory=os.getpid)

    def hang_up(self) -> None:
        """Close the connection; it is opened again when it is wanted."""
        with _at_work:
            _open.discard(self)
            if self.connection is not None:
                self.connection.close()
                self.connection = None

    def end(self) -> None:
        """Close the connection and end the thread, without waiting."""
        self.thread.submit(self.hang_up)
        self.thread.shutdown(wait=False)


@dataclass(slots=True, weakref_slot=True, eq=False)
class Store:
    """One file in one process. It is closed once no journal and no run holds it.

    Attributes:
        claims: what is being asked just now, by key; each is over when the answer is there or will not come.
        told: what has happened to the file since somebody was told.
        aside: what damaged files were set aside since somebody verified.
        commits: how many there were, by base.
        own: how many of them by each of those who write.
        runs: those that go on.
    """

    path: Path
    claims: dict[bytes, asyncio.Future[None]] = field(default_factory=dict)
    line: _Line = field(default_factory=_Line)
    told: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    commits: Counter[bytes] = field(default_factory=Counter)
    own: Counter[tuple[bytes, int]] = field(default_factory=Counter)
    runs: dict[int, Noted] = field(default_factory=dict)
    _inode: int = 0
    _waiting: list[tuple[Sequence[Entry], int, int, asyncio.Future[None]]] = field(
        default_factory=list
    )

    def __post_init__(self) -> None:
        weakref.finalize(
            self, _left.append, self.line
        ).atexit = False  # the end of the process closes it anyway

    def now(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Do some work and wait for it; where the file is damaged, on a new one."""
        return self._waited_for(self._done, work)

    def read(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Do some work that wants what the file holds, and wait for it.

        Raises:
            JournalError: the file cannot be used, or is damaged; then it is set aside.
        """
        return self._waited_for(self._read, work)

    def _waited_for(self, do: Callable[..., Any], work: Callable[[sqlite3.Connection], Any]) -> Any:
        _end_what_is_left()
        try:
            return self.line.thread.submit(do, work).result()
        finally:
            while self.told:
                warnings.warn(JournalWarning(self.told.pop(0)), stacklevel=5)

    async def soon(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Do some work without holding up the loop; where the file is damaged, on a new one."""
        return await asyncio.get_running_loop().run_in_executor(self.line.thread, self._done, work)

    async def keep(self, entries: Sequence[Entry], run: int, who: int) -> None:
        """Write entries, together with those that others have brought meanwhile."""
        loop = asyncio.get_running_loop()
        written = loop.create_future()
        self._waiting.append((entries, run, who, written))
        if len(self._waiting) == 1:
            loop.call_soon(self._flush)
        await written

    def _flush(self) -> None:
        batch, self._waiting = self._waiting, []
        now = time.time()
        rows = [
            (
                key,
                kind,
                base,
                run,
                now,
                value,
                _sum(key, value),
                None if text is None else writable(text),
            )
            for entries, run, _, _ in batch
            for key, kind, base, value, text in entries
        ]

        bases = [(run, who, {entry.base for entry in entries}) for entries, run, who, _ in batch]

        def insert(connection: sqlite3.Connection) -> None:
            with _written_through(connection), transaction(connection):
                for run, _, asked in bases:
                    if (noted := self.runs.get(run)) is not None:
                        noted.write(connection, run, asked)
                connection.executemany(
                    "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows
                )
            for _, who, asked in bases:
                self.commits.update(asked)
                self.own.update((base, who) for base in asked)

        def told(done: asyncio.Future[Any]) -> None:
            error = None if done.cancelled() else done.exception()
            for _, _, _, written in batch:
                if not written.done():
                    written.set_exception(error) if error is not None else written.set_result(None)

        loop = asyncio.get_running_loop()
        asyncio.ensure_future(
            loop.run_in_executor(self.line.thread, self._done, insert)
        ).add_done_callback(told)

    def _done(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        try:
            with _at_work:
                try:
                    return work(self._connected())
                except sqlite3.DatabaseError as error:
                    if not is_damaged(error):
                        raise
                    self.told.append(self._set_aside(error))
                    return work(
                        self._connected()
                    )  # nobody asks again for what was found since: this run holds it
        except sqlite3.Error as error:
            raise JournalError(_said(self.path, error)) from None

    def _read(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        try:
            with _at_work:
                return work(self._connected())
        except sqlite3.Error as error:
            raise JournalError(
                self._set_aside(error) if is_damaged(error) else _said(self.path, error)
            ) from None

    def _connected(self) -> sqlite3.Connection:
        """The connection; made anew where the file has gone."""
        if self.line.connection is not None and self._still_there():
            return self.line.connection
        self.line.hang_up()
        if self._inode and not self._still_there():
            self.told.append(
                f"The journal {self.path} has gone; it is begun anew, without what it held."
            )
        self.line.connection = self._opened()
        _open.add(self.line)
        return self.line.connection

    def _opened(self) -> sqlite3.Connection:
        _made(self.path)
        self._inode = self.path.stat().st_ino
        return _opened(self.path)

    def _still_there(self) -> bool:
        try:
            return self.path.stat().st_ino == self._inode
        except OSError:
            return False

    def _set_aside(self, error: Exception) -> str:
        """Keep a damaged file where a new one is not in its way; what is to be said of it.

        Raises:
            JournalError: it cannot be moved.
        """
        self.line.hang_up()
        aside = Path(f"{self.path}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
        told = f"The journal {self.path} is damaged ({error}). It is set aside as {aside.name}."
        if self._still_there():
            _move(self.path, aside, error)
        else:  # another process was first, and what stands there now is its new one
            told = f"The journal {self.path} was damaged ({error}), and another process has set it aside."
        self._inode = 0
        self.aside.append(told)
        return told


def _move(path: Path, aside: Path, damage: Exception) -> None:
    try:
        for end in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{path}{end}").rename(f"{aside}{end}")
    except OSError as error:
        raise JournalError(
            f"The journal {path} is damaged ({damage}), and cannot be set aside ({error.strerror}). "
            "Choices: move it away, journal='another/path', or journal=False."
        ) from None


_stores: weakref.WeakValueDictionary[tuple[int, Path], Store] = weakref.WeakValueDictionary()
_lock = threading.Lock()
_at_work = (
    threading.RLock()
)  # held while anything is done with a connection, and while the process forks
_open: set[_Line] = set()
_left: deque[_Line] = (
    deque()
)  # of stores that nothing holds; a collector of garbage may add to it at any moment


def _end_what_is_left() -> None:
    """Close what was open of stores that nothing holds any more."""
    with contextlib.suppress(IndexError):
        while True:
            line = _left.popleft()
            if line.process == os.getpid():  # and not a fork of it, which has no such thread
                line.end()


def store_at(path: Path) -> Store:
    """The process's one store for a file. Opened at once, so that what cannot be used is told before a run."""
    key = (os.getpid(), path)
    with _lock:
        store = _stores.get(key)
        if store is None:
            store = _stores[key] = Store(path)
    store.now(_nothing)
    return store


def _nothing(connection: sqlite3.Connection) -> None:
    del connection  # it is there, and that was the question


def _made(path: Path) -> None:
    """See that there is a file that can be written; a new one is made so that nobody else can read it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        os.close(os.open(path, os.O_RDWR))
    except OSError as error:
        raise JournalError(
            f"The journal {path} cannot be written ({error.strerror}). "
            "Choices: journal='another/path', or journal=False."
        ) from None


def _opened(path: Path) -> sqlite3.Connection:
    """A connection to a journal of this version."""
    connection = sqlite3.connect(
        path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
    )
    try:
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous=NORMAL")  # but for answers: see _written_through
        connection.text_factory = _text
        with transaction(connection):
            application = connection.execute("PRAGMA application_id").fetchone()[0]
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if empty:
                for statement in SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id={APPLICATION}")
                connection.execute(f"PRAGMA user_version={VERSION}")
        if not empty:
            _check_format(path, application, version)
            _check_tables(connection)
        connection.execute("SELECT count(*) FROM runs").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Turn the write-ahead log on; waiting while another process begins the same file.

    SQLite itself does not wait here: of two that hold a read lock and want the file to themselves, one is told at once
    that the database is locked, whatever its time-out (https://www.sqlite.org/c3ref/busy_handler.html).
    """
    until = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(BUSY_STEP_S)
        else:
            return


def _check_tables(connection: sqlite3.Connection) -> None:
    """Take a file whose tables are not those of its format for what it is: damaged."""
    wanted = {" ".join(statement.split()) for statement in SCHEMA.split(";") if statement.strip()}
    there = connection.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    )
    if wanted != {" ".join(sql.split()) for (sql,) in there}:
        error = sqlite3.DatabaseError("its tables are not those of a journal of its format")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def is_damaged(error: Exception) -> bool:
    """Whether SQLite says that a file is not what was written; any other error leaves the file where it is."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in DAMAGED


def _text(raw: bytes) -> str:
    """Text, whatever stands there: of an answer that is not what was written, its check tells."""
    return raw.decode("utf-8", "replace")


def writable(text: str) -> str:
    """Text that SQLite takes: half of a surrogate pair as its number."""
    return text.encode("utf-8", "backslashreplace").decode()


def wrong(connection: sqlite3.Connection) -> Iterator[str]:
    """What is not as it was written, a sentence each."""
    for (said,) in connection.execute("PRAGMA integrity_check"):
        if said != "ok":
            yield str(said)
    for key, value, checked in connection.execute("SELECT key, value, checked FROM entries"):
        if _sum(key, value) != checked:
            yield f"The entry {bytes(key).hex()} is not what was written."


def _check_format(path: Path, application: int, version: int) -> None:
    if application != APPLICATION:
        raise JournalError(
            f"{path} is a database, and no journal of pandas-amr. Choose another path."
        )
    if version != VERSION:
        raise JournalError(
            f"The journal {path} has format {version}, and this version reads {VERSION}. "
            "Choose another path, or update pandas-amr."
        )


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _written_through(connection: sqlite3.Connection) -> Iterator[None]:
    """Have what is committed in the block stand on the disk when it ends, with all that was committed before it.

    Else a commit survives the process, and only a loss of power may take the last ones: of a run's notes, no answer.
    """
    connection.execute("PRAGMA synchronous=FULL")
    try:
        yield
    finally:
        connection.execute("PRAGMA synchronous=NORMAL")


def known(
    connection: sqlite3.Connection, keys: Sequence[bytes], run: int | None
) -> dict[bytes, str]:
    """What is known of keys; of what one run has written, where it is named."""
    found: dict[bytes, str] = {}
    for start in range(0, len(keys), ASKED_AT_ONCE):
        part = keys[start : start + ASKED_AT_ONCE]
        marks = ",".join("?" * len(part))
        query = f"SELECT key, value, checked FROM entries WHERE key IN ({marks})"  # noqa: S608 (question marks)
        rows = (
            connection.execute(query, part)
            if run is None
            else connection.execute(f"{query} AND run = ?", (*part, run))
        )
        found |= {key: value for key, value, checked in rows if _sum(key, value) == checked}
    return found


def _sum(key: Any, value: Any) -> int | None:
    """A check on the key and the value together, so that a value never stands for another key."""
    if not (isinstance(key, bytes) and isinstance(value, str)):
        return None
    return zlib.crc32(value.encode("utf-8", "surrogatepass"), zlib.crc32(key))


def _said(path: Path, error: Exception) -> str:
    return f"The journal {path} cannot be used: {error}. Choices: make room, journal='another/path', or journal=False."


def _before_fork() -> None:
    _lock.acquire()
    _at_work.acquire()
    for line in list(_open):
        line.hang_up()


def _after_fork() -> None:
    _at_work.release()
    _lock.release()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
