"""The journal: what was paid for, durable before it counts. Cache and checkpoint in one SQLite file.

It holds accepted answers by fingerprint, what was asked for (instruction, schema, model), and one row a run. It holds
no keys, and no text of rows unless ``keep_inputs`` asks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import sqlite3
import sys
import threading
import time
import warnings
import weakref
import zlib
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import platformdirs

from pandas_amr.errors import JournalError, JournalWarning, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import pandas as pd

Kind = Literal["finding", "plan", "reduction"]
VERSION = 1
APPLICATION = 0x414D524A  # "AMRJ"
BUSY_S = 60.0
BUSY_STEP_S = 0.01
ASKED_AT_ONCE = 5000
MOST_DAYS = 1e9
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
DEFAULT_NAME = "journal.sqlite"
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


class Journal:
    """A journal in a file of its own. Runs that are given it pay for nothing that it has.

    Args:
        path: the file; its folder is made. Several processes may share it.
        refresh: ask everything again, and overwrite.
        keep_inputs: also keep each unit's text beside its finding.

    Raises:
        JournalError: the file cannot be used; the message says why, and what to do.

    Example:
        >>> import tempfile
        >>> journal = Journal(Path(tempfile.mkdtemp()) / "journal.sqlite")
        >>> journal
        <Journal journal.sqlite, 0 answers>
        >>> journal.verify()
        []
    """

    def __init__(self, path: str | Path, *, refresh: bool = False, keep_inputs: bool = False) -> None:
        if not isinstance(path, str | os.PathLike) or not str(path):
            raise UsageError(f"Journal(path) takes a file's path, not {path!r}.")
        self.path = Path(path).expanduser().absolute()
        self.refresh = refresh
        self.keep_inputs = keep_inputs
        self._held: _Store | None = None
        _ = self._store

    @property
    def _store(self) -> _Store:
        """The process's own, whatever the file is called: a fork begins another."""
        if self._held is None or self._held.line.process != os.getpid():
            self._held = _store(Path(os.path.realpath(self.path)))
        return self._held

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_held": None}

    def __repr__(self) -> str:
        try:
            held = f"{len(self)} answers"
        except JournalError:
            held = "cannot be read"
        return f"<Journal {self.path.name}, {held}>"

    def __len__(self) -> int:
        """How many answers it holds."""
        return int(self._rows("SELECT count(*) FROM entries")[0][0])

    def runs(self) -> pd.DataFrame:
        """One row a run: when, what was asked, of how many units, at what cost.

        ``status`` is missing for a run that was killed or goes on.
        """
        names = ["run", "began", "ended", "verb", "task", "units", "status", "calls", "tokens", "money", "recalled"]
        return _frame(self._rows(f"SELECT {', '.join(names)} FROM runs ORDER BY run"), names).set_index("run")  # noqa: S608

    def size(self) -> int:
        """Bytes on disk."""
        parts = (Path(f"{self._store.path}{end}") for end in ("", "-wal", "-shm"))
        return sum(part.stat().st_size for part in parts if part.exists())

    def prune(self, *, older_than: timedelta | float | None = None, keep: int | None = None) -> int:
        """Forget answers, and give the room back.

        Args:
            older_than: those made longer ago: a timedelta, or days.
            keep: all but the answers to what the last so many runs asked: instruction, schema and model.

        Returns:
            How many were forgotten.

        Raises:
            UsageError: neither is given, or one is no such time or number.
            JournalError: the file is damaged; it is set aside.
        """
        if older_than is None and keep is None:
            raise UsageError("prune() takes older_than= (a timedelta, or days), keep= (a number of runs), or both.")
        wanted: list[str] = []
        values: list[float] = []
        if older_than is not None:
            wanted.append("made < ?")
            values.append(time.time() - _seconds(older_than))
        if keep is not None:
            last = "SELECT run FROM runs ORDER BY run DESC LIMIT ?"
            wanted.append(f"base NOT IN (SELECT base FROM uses WHERE run IN ({last}))")  # noqa: S608
            values.append(_runs_kept(keep))
        going = "SELECT run FROM runs WHERE ended IS NULL"  # what they are about is written again by nobody

        def forget(connection: sqlite3.Connection) -> int:
            with _transaction(connection):
                gone = connection.execute(f"DELETE FROM entries WHERE {' AND '.join(wanted)}", values).rowcount  # noqa: S608
                without = "base NOT IN (SELECT base FROM entries)"
                connection.execute(f"DELETE FROM uses WHERE {without} AND run NOT IN ({going})")  # noqa: S608
                connection.execute(f"DELETE FROM bases WHERE {without} AND base NOT IN (SELECT base FROM uses)")  # noqa: S608
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return gone

        gone: int = self._store.read(forget)
        return gone

    def export(self) -> pd.DataFrame:
        """All answers as a frame: ``key kind about value run made input``; ``about`` is what was asked, as JSON.

        Raises:
            JournalError: the file is damaged; it is set aside.
        """
        names = ["key", "kind", "about", "value", "run", "made", "input"]
        rows = self._rows(
            "SELECT lower(hex(key)), kind, about, value, run, made, input FROM entries LEFT JOIN bases USING (base) "
            "ORDER BY made, key"
        )
        return _frame(rows, names)

    def verify(self) -> list[str]:
        """Read everything; what is wrong, a sentence each. An entry that is wrong is never given to a run.

        A damaged file that was set aside since the last look is told, too; one that is found here stays where it is.
        """
        store = self._store
        found: list[str] = []

        def verified(connection: sqlite3.Connection) -> None:
            try:
                found.extend(_wrong(connection))
            except sqlite3.DatabaseError as error:
                if not _damaged(error):
                    raise
                found.append(f"The journal {store.path} is damaged ({error}). The next run sets it aside.")

        try:
            store.read(verified)
        except JournalError:
            if not store.aside:
                raise
        told, store.aside = store.aside, []
        return told + found

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._store.read(lambda connection: connection.execute(query).fetchall())
        return rows

    # For runs

    async def begin(self, verb: str, task: str | None, units: int) -> int:
        """Note a run, and give its number."""
        noted = _Noted(time.time(), verb, None if task is None else _writable(task), units)

        def insert(connection: sqlite3.Connection) -> int:
            with _transaction(connection):
                return noted.write(connection, None)

        run: int = await self._store.soon(insert)
        self._store.runs[run] = noted
        return run

    async def end(self, run: int, status: str, *, calls: int, tokens: int, money: float | None, recalled: int) -> None:
        """Note how a run ended."""
        noted = self._store.runs.pop(run, None)

        def update(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                if noted is not None:
                    noted.write(connection, run)
                connection.execute(
                    "UPDATE runs SET ended=?, status=?, calls=?, tokens=?, money=?, recalled=? WHERE run=?",
                    (time.time(), status, calls, tokens, money, recalled, run),
                )

        await self._store.soon(update)

    async def about(self, base: bytes, about: str, run: int) -> None:
        """Note what stands behind a fingerprint's common part, and that a run asks it."""
        noted = self._store.runs.get(run)
        if noted is None or base in noted.abouts:
            return
        noted.abouts[base] = about

        def insert(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                noted.write(connection, run, [base])

        await self._store.soon(insert)

    async def recall(self, keys: Sequence[bytes], run: int = 0) -> dict[bytes, str]:
        """The answers that are known, by key; with ``refresh``, those that the run itself has had.

        What is not as it was written is not known.
        """
        if not keys or (self.refresh and not run):
            return {}
        by = run if self.refresh else None
        known: dict[bytes, str] = await self._store.soon(lambda connection: _known(connection, keys, by))
        return known

    async def mark(self, base: bytes, who: int) -> tuple[int, int]:
        """Changes where others than ``who`` have written answers with this base, or another process anything."""

        def marked(connection: sqlite3.Connection) -> tuple[int, int]:
            others = self._store.commits[base] - self._store.own[base, who]
            return int(connection.execute("PRAGMA data_version").fetchone()[0]), others

        mark: tuple[int, int] = await self._store.soon(marked)
        return mark

    async def keep(self, entries: Sequence[Entry], run: int, who: int = 0) -> None:
        """Make answers durable. Those of several agents are committed together; ``who`` writes them.

        Raises:
            JournalError: they could not be written.
        """
        await self._store.keep(entries, run, who)

    def told(self) -> list[JournalWarning]:
        """What is to be told of the file since it was asked last."""
        told, self._store.told = self._store.told, []
        return [JournalWarning(one) for one in told]

    @property
    def claims(self) -> dict[bytes, asyncio.Future[None]]:
        """What runs of this process are asking just now, by key."""
        return self._store.claims


@dataclass(slots=True)
class _Noted:
    """What a run that goes on has written of itself: it is written again where it is no longer there."""

    began: float
    verb: str
    task: str | None
    units: int
    abouts: dict[bytes, str] = field(default_factory=dict)  # by base

    def write(self, connection: sqlite3.Connection, run: int | None, bases: Iterable[bytes] | None = None) -> int:
        """Write what is missing of the run and of its bases; without a number it gets one. The number."""
        row = (run, self.began, self.verb, self.task, self.units)
        add = "INSERT OR IGNORE INTO"
        number = connection.execute(f"{add} runs (run, began, verb, task, units) VALUES (?, ?, ?, ?, ?)", row).lastrowid
        for base in self.abouts if bases is None else self.abouts.keys() & set(bases):
            connection.execute(f"{add} bases VALUES (?, ?)", (base, self.abouts[base]))
            connection.execute(f"{add} uses VALUES (?, ?)", (run, base))
        return int(number or 0) if run is None else run


@dataclass(slots=True)
class _Line:
    """A connection on a thread of its own, and the process that both are of."""

    thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="pandas-amr-journal")
    )
    connection: sqlite3.Connection | None = None
    process: int = field(default_factory=os.getpid)

    def hang_up(self) -> None:
        """Close the connection. Only its own thread may."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def end(self) -> None:
        """Close the connection and end the thread, without waiting."""
        self.thread.submit(self.hang_up)
        self.thread.shutdown(wait=False)


@dataclass(slots=True, weakref_slot=True, eq=False)
class _Store:
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
    runs: dict[int, _Noted] = field(default_factory=dict)
    _inode: int = 0
    _waiting: list[tuple[Sequence[Entry], int, int, asyncio.Future[None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        weakref.finalize(self, _left.append, self.line).atexit = False  # the end of the process closes it anyway

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
            (key, kind, base, run, now, value, _sum(key, value), None if text is None else _writable(text))
            for entries, run, _, _ in batch
            for key, kind, base, value, text in entries
        ]

        bases = [(run, who, {entry.base for entry in entries}) for entries, run, who, _ in batch]

        def insert(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                for run, _, asked in bases:
                    if (noted := self.runs.get(run)) is not None:
                        noted.write(connection, run, asked)
                connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            for _, who, asked in bases:
                self.commits.update(asked)
                self.own.update((base, who) for base in asked)

        def told(done: asyncio.Future[Any]) -> None:
            error = None if done.cancelled() else done.exception()
            for _, _, _, written in batch:
                if not written.done():
                    written.set_exception(error) if error is not None else written.set_result(None)

        loop = asyncio.get_running_loop()
        asyncio.ensure_future(loop.run_in_executor(self.line.thread, self._done, insert)).add_done_callback(told)

    def _done(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        try:
            try:
                return work(self._connected())
            except sqlite3.DatabaseError as error:
                if not _damaged(error):
                    raise
                self.told.append(self._set_aside(error))
                return work(self._connected())  # what was found since is asked for again by nobody: this run holds it
        except sqlite3.Error as error:
            raise JournalError(_said(self.path, error)) from None

    def _read(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        try:
            return work(self._connected())
        except sqlite3.Error as error:
            raise JournalError(self._set_aside(error) if _damaged(error) else _said(self.path, error)) from None

    def _connected(self) -> sqlite3.Connection:
        """The connection; made anew where the file has gone."""
        if self.line.connection is not None and self._still_there():
            return self.line.connection
        if self.line.connection is not None:
            self.line.hang_up()
            self.told.append(f"The journal {self.path} has gone; it is begun anew, without what it held.")
        self.line.connection = self._opened()
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


_stores: weakref.WeakValueDictionary[tuple[int, Path], _Store] = weakref.WeakValueDictionary()
_lock = threading.Lock()
_left: deque[_Line] = deque()  # of stores that nothing holds; a collector of garbage may add to it at any moment
_of_others: list[_Line] = []  # a fork neither uses nor closes what is its parent's


def _end_what_is_left() -> None:
    """Close what was open of stores that nothing holds any more."""
    with contextlib.suppress(IndexError):
        while True:
            line = _left.popleft()
            if line.process == os.getpid():
                line.end()
            else:
                _of_others.append(line)


def _store(path: Path) -> _Store:
    """The process's one store for a file. Opened at once, so that what cannot be used is told before a run."""
    key = (os.getpid(), path)
    with _lock:
        store = _stores.get(key)
        if store is None:
            store = _stores[key] = _Store(path)
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
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    try:
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous=FULL")
        connection.text_factory = _text
        with _transaction(connection):
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
    there = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    if wanted != {" ".join(sql.split()) for (sql,) in there}:
        error = sqlite3.DatabaseError("its tables are not those of a journal of its format")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _damaged(error: Exception) -> bool:
    """Whether SQLite says that a file is not what was written; any other error leaves the file where it is."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in DAMAGED


def _text(raw: bytes) -> str:
    """Text, whatever stands there: of an answer that is not what was written, its check tells."""
    return raw.decode("utf-8", "replace")


def _writable(text: str) -> str:
    """Text that SQLite takes: half of a surrogate pair as its number."""
    return text.encode("utf-8", "backslashreplace").decode()


def _wrong(connection: sqlite3.Connection) -> Iterator[str]:
    """What is not as it was written, a sentence each."""
    for (said,) in connection.execute("PRAGMA integrity_check"):
        if said != "ok":
            yield str(said)
    for key, value, checked in connection.execute("SELECT key, value, checked FROM entries"):
        if _sum(key, value) != checked:
            yield f"The entry {bytes(key).hex()} is not what was written."


def _check_format(path: Path, application: int, version: int) -> None:
    if application != APPLICATION:
        raise JournalError(f"{path} is a database, and no journal of pandas-amr. Choose another path.")
    if version != VERSION:
        raise JournalError(
            f"The journal {path} has format {version}, and this version reads {VERSION}. "
            "Choose another path, or update pandas-amr."
        )


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
            connection.execute("ROLLBACK")
        raise


def _known(connection: sqlite3.Connection, keys: Sequence[bytes], run: int | None) -> dict[bytes, str]:
    """What is known of keys; of what one run has written, where it is named."""
    found: dict[bytes, str] = {}
    for start in range(0, len(keys), ASKED_AT_ONCE):
        part = keys[start : start + ASKED_AT_ONCE]
        marks = ",".join("?" * len(part))
        query = f"SELECT key, value, checked FROM entries WHERE key IN ({marks})"  # noqa: S608 (question marks)
        rows = (
            connection.execute(query, part) if run is None else connection.execute(f"{query} AND run = ?", (*part, run))
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


def _seconds(older_than: Any) -> float:
    """An age in seconds, of a timedelta or of days."""
    days: Any = older_than
    if isinstance(older_than, timedelta):
        days = older_than / timedelta(days=1)
    elif isinstance(older_than, np.timedelta64):
        days = older_than / np.timedelta64(1, "D")
    elif isinstance(older_than, bool) or not isinstance(older_than, Real):
        days = math.nan
    if not days >= 0:
        raise UsageError(f"prune(older_than=) takes a timedelta or days, 0 or more, not {older_than!r}.")
    return float(min(days, MOST_DAYS)) * 86_400


def _runs_kept(keep: Any) -> int:
    if isinstance(keep, bool | np.timedelta64) or not isinstance(keep, Integral) or int(keep) < 0:
        raise UsageError(f"prune(keep=) takes a whole number of runs, 0 or more, not {keep!r}.")
    return min(int(keep), sys.maxsize)


def _frame(rows: Iterable[tuple[Any, ...]], names: Sequence[str]) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415 (a journal can be used without a frame)

    frame = pd.DataFrame(list(rows), columns=list(names))
    for name in ("began", "ended", "made"):
        if name in frame.columns:
            frame[name] = pd.to_datetime(frame[name].astype("float64"), unit="s", utc=True)
    return frame


def journal_for(given: Any, *, by_default: bool) -> Journal | None:
    """The journal that ``journal=`` means: a journal, a path, False, or None for the default one.

    Raises:
        UsageError: it is none of these.
        JournalError: the file cannot be used; of the default one that is a warning, and there is none.
    """
    match given:
        case Journal():
            return given
        case False:
            return None
        case str() | Path():
            return Journal(given)
        case None | True:
            pass
        case _:
            raise UsageError(f"journal= takes a path, amr.Journal(path), True or False, not {given!r}.")
    named = os.environ.get("AMR_JOURNAL", "")
    if named.lower() in {"off", "0", "false"} or (not named and given is None and not by_default):
        return None
    if named:
        return Journal(named)
    try:
        return Journal(Path(platformdirs.user_cache_dir("pandas-amr")) / DEFAULT_NAME)
    except JournalError as error:
        if given is True:
            raise
        warnings.warn(JournalWarning(f"This run keeps no journal. {error}"), stacklevel=2)
        return None


def about_words(about: Mapping[str, Any]) -> str:
    """What stands behind a fingerprint, canonical: the same for the same, whoever writes it."""
    return json.dumps(about, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
