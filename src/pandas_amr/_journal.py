"""The journal: what was paid for, durable before it counts. Cache and checkpoint in one SQLite file.

It holds accepted answers by fingerprint, what was asked for (instruction, schema, model), and one row a run. It holds
no keys, and no text of rows unless ``keep_inputs`` asks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import platformdirs

from pandas_amr.errors import JournalError, JournalWarning, UsageError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import pandas as pd

Kind = Literal["finding", "plan", "reduction"]
VERSION = 1
APPLICATION = 0x414D524A  # "AMRJ"
BUSY_S = 60.0
BUSY_STEP_S = 0.01
ASKED_AT_ONCE = 5000
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
        _ = self._store

    @property
    def _store(self) -> _Store:
        """The process's own: a fork begins another."""
        return _stores.get((os.getpid(), self.path)) or _store(self.path)

    def __repr__(self) -> str:
        return f"<Journal {self.path.name}, {len(self)} answers>"

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
        return sum(
            part.stat().st_size for part in (Path(f"{self.path}{end}") for end in ("", "-wal", "-shm")) if part.exists()
        )

    def prune(self, *, older_than: dt.timedelta | float | None = None, keep: int | None = None) -> int:
        """Forget answers, and give the room back.

        Args:
            older_than: those made longer ago: a timedelta, or days.
            keep: all but the answers to what the last so many runs asked: instruction, schema and model.

        Returns:
            How many were forgotten.

        Raises:
            UsageError: neither is given.
        """
        if older_than is None and keep is None:
            raise UsageError("prune() takes older_than= (a timedelta, or days), keep= (a number of runs), or both.")
        wanted, values = [], []
        if older_than is not None:
            seconds = older_than * 86_400 if isinstance(older_than, int | float) else older_than.total_seconds()
            wanted.append("made < ?")
            values.append(time.time() - seconds)
        if keep is not None:
            last = "SELECT run FROM runs ORDER BY run DESC LIMIT ?"
            wanted.append(f"base NOT IN (SELECT base FROM uses WHERE run IN ({last}))")  # noqa: S608
            values.append(keep)

        def forget(connection: sqlite3.Connection) -> int:
            with _transaction(connection):
                gone = connection.execute(f"DELETE FROM entries WHERE {' AND '.join(wanted)}", values).rowcount  # noqa: S608
                connection.execute("DELETE FROM bases WHERE base NOT IN (SELECT base FROM entries)")
                connection.execute("DELETE FROM uses WHERE base NOT IN (SELECT base FROM entries)")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return gone

        gone: int = self._store.now(forget)
        return gone

    def export(self) -> pd.DataFrame:
        """All answers as a frame: ``key kind about value run made input``; ``about`` is what was asked, as JSON."""
        names = ["key", "kind", "about", "value", "run", "made", "input"]
        rows = self._rows(
            "SELECT lower(hex(key)), kind, about, value, run, made, input FROM entries LEFT JOIN bases USING (base) "
            "ORDER BY made, key"
        )
        return _frame(rows, names)

    def verify(self) -> list[str]:
        """Read everything; what is wrong, a sentence each. An entry that is wrong is never given to a run."""

        def verified(connection: sqlite3.Connection) -> list[str]:
            told = [str(row[0]) for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
            entries = connection.execute("SELECT key, value, checked FROM entries")
            wrong = [bytes(key).hex() for key, value, checked in entries if _sum(key, value) != checked]
            return told + [f"The entry {key} is not what was written." for key in wrong]

        told: list[str] = self._store.now(verified)
        return told

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._store.now(lambda connection: connection.execute(query).fetchall())
        return rows

    # For runs

    async def begin(self, verb: str, task: str | None, units: int) -> int:
        """Note a run, and give its number."""

        def insert(connection: sqlite3.Connection) -> int:
            with _transaction(connection):
                cursor = connection.execute(
                    "INSERT INTO runs (began, verb, task, units) VALUES (?, ?, ?, ?)", (time.time(), verb, task, units)
                )
            return int(cursor.lastrowid or 0)

        run: int = await self._store.soon(insert)
        return run

    async def end(self, run: int, status: str, *, calls: int, tokens: int, money: float | None, recalled: int) -> None:
        """Note how a run ended."""

        def update(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                connection.execute(
                    "UPDATE runs SET ended=?, status=?, calls=?, tokens=?, money=?, recalled=? WHERE run=?",
                    (time.time(), status, calls, tokens, money, recalled, run),
                )

        await self._store.soon(update)

    async def about(self, base: bytes, about: str, run: int) -> None:
        """Note what stands behind a fingerprint's common part, and that a run asks it."""

        def insert(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                connection.execute("INSERT OR IGNORE INTO bases VALUES (?, ?)", (base, about))
                connection.execute("INSERT OR IGNORE INTO uses VALUES (?, ?)", (run, base))

        await self._store.soon(insert)

    async def recall(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """The answers that are known, by key. What is not as it was written is not known."""
        if self.refresh or not keys:
            return {}
        known: dict[bytes, str] = await self._store.soon(lambda connection: _known(connection, keys))
        return known

    async def mark(self, run: int) -> tuple[int, int]:
        """Changes where anybody but this run has written: another process, or another run of this one."""

        def marked(connection: sqlite3.Connection) -> tuple[int, int]:
            others = sum(count for one, count in self._store.commits.items() if one != run)
            return int(connection.execute("PRAGMA data_version").fetchone()[0]), others

        mark: tuple[int, int] = await self._store.soon(marked)
        return mark

    async def keep(self, entries: Sequence[Entry], run: int) -> None:
        """Make answers durable. Those of several agents are committed together.

        Raises:
            JournalError: they could not be written.
        """
        await self._store.keep(entries, run)

    def told(self) -> list[JournalWarning]:
        """What is to be told of the file since it was asked last."""
        told, self._store.told = self._store.told, []
        return [JournalWarning(one) for one in told]

    @property
    def claims(self) -> dict[bytes, asyncio.Future[None]]:
        """What runs of this process are asking just now, by key."""
        return self._store.claims


@dataclass(slots=True)
class _Store:
    """One file in one process: a connection on a thread of its own."""

    path: Path
    claims: dict[bytes, asyncio.Future[None]] = field(default_factory=dict)
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="pandas-amr-journal")
    )
    _connection: sqlite3.Connection | None = None
    _inode: int = 0
    _waiting: list[tuple[Sequence[Entry], int, asyncio.Future[None]]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    commits: dict[int, int] = field(default_factory=dict)  # by run

    def now(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Do some work and wait for it."""
        try:
            return self._thread.submit(self._done, work).result()
        finally:
            while self.told:
                warnings.warn(JournalWarning(self.told.pop(0)), stacklevel=4)

    async def soon(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Do some work without holding up the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._done, work)

    async def keep(self, entries: Sequence[Entry], run: int) -> None:
        """Write entries, together with those that others have brought meanwhile."""
        loop = asyncio.get_running_loop()
        written = loop.create_future()
        self._waiting.append((entries, run, written))
        if len(self._waiting) == 1:
            loop.call_soon(self._flush)
        await written

    def _flush(self) -> None:
        batch, self._waiting = self._waiting, []
        now = time.time()
        rows = [
            (key, kind, base, run, now, value, _sum(key, value), text)
            for entries, run, _ in batch
            for key, kind, base, value, text in entries
        ]

        def insert(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            for _, run, _ in batch:
                self.commits[run] = self.commits.get(run, 0) + 1

        def told(done: asyncio.Future[Any]) -> None:
            error = None if done.cancelled() else done.exception()
            for _, _, written in batch:
                if not written.done():
                    written.set_exception(error) if error is not None else written.set_result(None)

        loop = asyncio.get_running_loop()
        asyncio.ensure_future(loop.run_in_executor(self._thread, self._done, insert)).add_done_callback(told)

    def _done(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        try:
            return work(self._connected())
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError | sqlite3.IntegrityError):
                raise JournalError(_said(self.path, error)) from None
            self._set_aside(error)
            return work(self._connected())  # what was found since is asked for again by nobody: this run holds it

    def _connected(self) -> sqlite3.Connection:
        """The connection; made anew where the file has gone."""
        if self._connection is not None and self._still_there():
            return self._connection
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self.told.append(f"The journal {self.path} has gone; it is begun anew, without what it held.")
        try:
            self._connection = self._opened()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise JournalError(_said(self.path, error)) from None
            self._set_aside(error)
            self._connection = self._opened()
        return self._connection

    def _opened(self) -> sqlite3.Connection:
        _made(self.path)
        self._inode = self.path.stat().st_ino
        return _opened(self.path)

    def _still_there(self) -> bool:
        try:
            return self.path.stat().st_ino == self._inode
        except OSError:
            return False

    def _set_aside(self, error: Exception) -> None:
        """Keep a damaged file beside a new one, and say so."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if not self._still_there():  # another process was first, and what stands there now is its new one
            self.told.append(f"The journal {self.path} was damaged ({error}), and another process has set it aside.")
            return
        aside = Path(f"{self.path}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
        for end in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}{end}").rename(f"{aside}{end}")
        self.told.append(f"The journal {self.path} is damaged ({error}). It is set aside as {aside.name}.")


_stores: dict[tuple[int, Path], _Store] = {}
_lock = threading.Lock()


def _store(path: Path) -> _Store:
    """The process's one store for a file. Opened at once, so that what cannot be used is told before a run."""
    key = (os.getpid(), path)
    with _lock:
        store = _stores.get(key)
        if store is None:
            store = _stores[key] = _Store(path)
    try:
        store.now(_nothing)
    except JournalError:
        with _lock:
            _stores.pop(key, None)
        raise
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
        raise sqlite3.DatabaseError("its tables are not those of a journal of its format")


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
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _known(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, str]:
    found: dict[bytes, str] = {}
    for start in range(0, len(keys), ASKED_AT_ONCE):
        part = keys[start : start + ASKED_AT_ONCE]
        marks = ",".join("?" * len(part))
        query = f"SELECT key, value, checked FROM entries WHERE key IN ({marks})"  # noqa: S608 (question marks)
        rows = connection.execute(query, part)
        found |= {key: value for key, value, checked in rows if _sum(key, value) == checked}
    return found


def _sum(key: bytes, value: str) -> int:
    """A check on the key and the value together, so that a value never stands for another key."""
    return zlib.crc32(value.encode("utf-8", "surrogatepass"), zlib.crc32(key))


def _said(path: Path, error: Exception) -> str:
    return (
        f"The journal {path} cannot be used: {error}. What was found so far is in the exception's .partial. "
        "Choices: make room, journal='another/path', or journal=False."
    )


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
