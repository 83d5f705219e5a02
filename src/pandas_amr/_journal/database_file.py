"""The file of a journal: one SQLite database in write-ahead mode, its format and its damage."""

from __future__ import annotations

import contextlib
import glob
import os
import sqlite3
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandas_amr.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

VERSION = 2
APPLICATION = 0x414D524A  # "AMRJ"
BUSY_S = 60.0
BUSY_STEP_S = 0.01
KEYS_PER_QUERY = 5000
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
FILE_ENDS = ("", "-wal", "-shm")
SET_ASIDE = ".damaged-"
ANSWERS = """
CREATE TABLE bases (base BLOB PRIMARY KEY, about TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE runs (
    run INTEGER PRIMARY KEY AUTOINCREMENT, began REAL NOT NULL, ended REAL, verb TEXT NOT NULL,
    task TEXT, units INTEGER NOT NULL, status TEXT, calls INTEGER, tokens INTEGER, money REAL,
    recalled INTEGER
);
CREATE TABLE uses (run INTEGER NOT NULL, base BLOB NOT NULL, PRIMARY KEY (run, base)) WITHOUT ROWID;
CREATE TABLE entries (
    key BLOB PRIMARY KEY, kind TEXT NOT NULL, base BLOB NOT NULL, run INTEGER NOT NULL,
    made REAL NOT NULL, value TEXT NOT NULL, checked INTEGER NOT NULL, input TEXT
) WITHOUT ROWID;
"""
# Which rows the answers are of, and which processes are at work. New in version 2.
ORIGINS = """
CREATE TABLE readings (
    base BLOB NOT NULL, columns TEXT NOT NULL, PRIMARY KEY (base, columns)
) WITHOUT ROWID;
CREATE TABLE origins (
    origin BLOB NOT NULL, key BLOB NOT NULL, PRIMARY KEY (origin, key)
) WITHOUT ROWID;
CREATE TABLE traced (first_run INTEGER NOT NULL);
CREATE TABLE forgotten (
    run INTEGER NOT NULL, origin BLOB NOT NULL, PRIMARY KEY (run, origin)
) WITHOUT ROWID;
CREATE TABLE processes (
    process BLOB PRIMARY KEY, born TEXT NOT NULL, beat REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE running (run INTEGER PRIMARY KEY, process BLOB NOT NULL);
CREATE TABLE claims (
    process BLOB NOT NULL, number INTEGER NOT NULL, keys BLOB NOT NULL,
    PRIMARY KEY (process, number)
) WITHOUT ROWID;
"""
# What is known of units beside their findings. Likewise.
OUTCOMES = """
CREATE TABLE failures (
    key BLOB PRIMARY KEY, base BLOB NOT NULL, made REAL NOT NULL, value TEXT NOT NULL,
    checked INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE repaired (key BLOB PRIMARY KEY) WITHOUT ROWID;
"""
SCHEMA = ANSWERS + ORIGINS + OUTCOMES


@dataclass(slots=True)
class RunRecord:
    """What a running run has written about itself, so that a new file can get it, too.

    Attributes:
        process: the process of the run.
        abouts: what was asked, by base.
        readings: each base, with the names of the columns that it reads of rows, as JSON.
        origins: what bases and sets of rows were made from, with their keys.
    """

    began: float
    verb: str
    task: str | None
    units: int
    process: bytes
    abouts: dict[bytes, str] = field(default_factory=dict)
    readings: set[tuple[bytes, str]] = field(default_factory=set)
    origins: set[tuple[bytes, bytes]] = field(default_factory=set)

    def write(
        self, connection: sqlite3.Connection, run: int | None, bases: Iterable[bytes] | None = None
    ) -> int:
        """Write what is missing of the run and its bases.

        Args:
            connection: the database.
            run: the run's number; None for a new one.
            bases: the bases to write; default: all.

        Returns:
            The run's number.
        """
        add = "INSERT OR IGNORE INTO"
        row = (run, self.began, self.verb, self.task, self.units)
        added = connection.execute(
            f"{add} runs (run, began, verb, task, units) VALUES (?, ?, ?, ?, ?)", row
        )
        is_new = added.rowcount == 1
        number = int(added.lastrowid or 0) if run is None else run
        for base in self.abouts if bases is None or is_new else self.abouts.keys() & set(bases):
            connection.execute(f"{add} bases VALUES (?, ?)", (base, self.abouts[base]))
            connection.execute(f"{add} uses VALUES (?, ?)", (number, base))
        if is_new:
            connection.execute(f"{add} running VALUES (?, ?)", (number, self.process))
            self.write_origins(connection, self.readings, self.origins)
        return number

    def write_origins(
        self,
        connection: sqlite3.Connection,
        readings: Iterable[tuple[bytes, str]],
        origins: Iterable[tuple[bytes, bytes]],
    ) -> None:
        """Write which columns are read of rows, and what bases and sets of rows are made from."""
        connection.executemany("INSERT OR IGNORE INTO readings VALUES (?, ?)", readings)
        connection.executemany("INSERT OR IGNORE INTO origins VALUES (?, ?)", origins)


# Opening


def create_private(path: Path) -> None:
    """Create a file that only its owner can read, if there is none."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def is_file(path: Path, inode: int) -> bool:
    """Whether a path still names the file of an inode."""
    try:
        return path.stat().st_ino == inode
    except OSError:
        return False


def create_file(path: Path) -> None:
    """Make sure that there is a writable file. Only its owner can read a new one.

    Raises:
        JournalError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        create_private(path)
        os.close(os.open(path, os.O_RDWR))
    except OSError as error:
        raise JournalError(
            f"The journal {path} cannot be written ({error.strerror}). "
            "Choices: journal='another/path', or journal=False."
        ) from None


def open_database(path: Path) -> sqlite3.Connection:
    """Open a journal of this version; an empty file becomes one.

    Raises:
        JournalError: the file is another database, or has another version.
        sqlite3.DatabaseError: it is damaged.
    """
    connection = sqlite3.connect(
        path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
    )
    try:
        _start_write_ahead_log(connection)
        connection.execute("PRAGMA synchronous=NORMAL")  # answers get more: see flush_to_disk
        connection.execute("PRAGMA secure_delete=ON")  # what is deleted is overwritten
        connection.text_factory = _decode_text
        _prepare(connection, path)
        connection.execute("SELECT count(*) FROM runs").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Create the tables, or check those that are there."""
    with transaction(connection):
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        is_empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if is_empty:
            _create_tables(connection, SCHEMA)
            connection.execute("INSERT INTO traced VALUES (0)")
            connection.execute(f"PRAGMA application_id={APPLICATION}")
        elif application == APPLICATION and version == 1:
            _check_tables(connection, ANSWERS)
            _trace_from_now_on(connection)
            version = VERSION
    if not is_empty:
        _check_format(path, application, version)
        _check_tables(connection, SCHEMA)


def _create_tables(connection: sqlite3.Connection, schema: str) -> None:
    for statement in schema.split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version={VERSION}")


def _trace_from_now_on(connection: sqlite3.Connection) -> None:
    """Make a file of the first version one of this version; its answers stay.

    Of those nothing says which rows they are of.
    """
    _create_tables(connection, ORIGINS + OUTCOMES)
    last_run = connection.execute("SELECT max(seq) FROM sqlite_sequence").fetchone()[0]
    connection.execute("INSERT INTO traced VALUES (?)", ((last_run or 0) + 1,))


def _start_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Turn the write-ahead log on, and wait while another process opens the same new file.

    SQLite does not wait here, whatever its time-out: of two connections that hold a read lock and
    want an exclusive one, one fails at once (https://www.sqlite.org/c3ref/busy_handler.html).
    """
    until = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > until:
                raise
            time.sleep(BUSY_STEP_S)
        else:
            return


def _check_format(path: Path, application: int, version: int) -> None:
    if application != APPLICATION:
        raise JournalError(
            f"{path} is a database, but not a journal of pandas-amr. Choose another path."
        )
    if version != VERSION:
        raise JournalError(
            f"The journal {path} has format {version}, and this version reads {VERSION}. "
            "Choose another path, or update pandas-amr."
        )


def _check_tables(connection: sqlite3.Connection, schema: str) -> None:
    """Check that the tables are those of the format; a file with others is damaged."""
    expected = {" ".join(statement.split()) for statement in schema.split(";") if statement.strip()}
    rows = connection.execute(
        "SELECT sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    )
    if expected != {" ".join(sql.split()) for (sql,) in rows}:
        error = sqlite3.DatabaseError("its tables are not those of a journal of its format")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _decode_text(raw: bytes) -> str:
    """Decode any bytes; an answer that was changed fails its checksum later."""
    return raw.decode("utf-8", "replace")


# Reading and writing


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what the block writes, or nothing of it if it raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def flush_to_disk(connection: sqlite3.Connection) -> Iterator[None]:
    """Have the disk hold what the block commits when it ends, and all commits before.

    Other commits survive the process, but a loss of power may take the last ones. They hold notes
    about runs, and no answers.
    """
    connection.execute("PRAGMA synchronous=FULL")
    try:
        yield
    finally:
        connection.execute("PRAGMA synchronous=NORMAL")


def find_entries(
    connection: sqlite3.Connection, keys: Sequence[bytes], run: int | None
) -> dict[bytes, str]:
    """Find the values of keys; with ``run``, only those that this run has written."""
    values: dict[bytes, str] = {}
    for start in range(0, len(keys), KEYS_PER_QUERY):
        part = keys[start : start + KEYS_PER_QUERY]
        marks = ",".join("?" * len(part))
        query = f"SELECT key, value, checked FROM entries WHERE key IN ({marks})"  # noqa: S608 (question marks)
        if run is None:
            rows = connection.execute(query, part)
        else:
            rows = connection.execute(f"{query} AND run = ?", (*part, run))
        values |= {key: value for key, value, checked in rows if checksum(key, value) == checked}
    return values


def select_in(
    database: sqlite3.Connection, query: str, values: Collection[bytes]
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query for many values, which stand at its ``{marks}``."""
    wanted = list(values)
    for start in range(0, len(wanted), KEYS_PER_QUERY):
        part = wanted[start : start + KEYS_PER_QUERY]
        yield from database.execute(query.format(marks=",".join("?" * len(part))), part).fetchall()


def find_forgotten(connection: sqlite3.Connection, run: int) -> set[bytes]:
    """Find the origins that were forgotten while a run was under way."""
    rows = connection.execute("SELECT origin FROM forgotten WHERE run = ?", (run,))
    return {origin for (origin,) in rows}


def checksum(key: object, value: object) -> int | None:
    """Sum up the key and the value together, so that a value never stands for another key."""
    if not (isinstance(key, bytes) and isinstance(value, str)):
        return None
    return zlib.crc32(value.encode("utf-8", "surrogatepass"), zlib.crc32(key))


def writable(text: str) -> str:
    """Convert a text to one that SQLite takes: a lone surrogate becomes its number."""
    return text.encode("utf-8", "backslashreplace").decode()


# Damage


def is_damaged(error: Exception) -> bool:
    """Whether an error of SQLite says that the file is damaged, and not merely unusable now."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in DAMAGED


def find_damage(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield what is not as it was written, a sentence each."""
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield str(line)
    for key, value, checked in connection.execute("SELECT key, value, checked FROM entries"):
        if checksum(key, value) != checked:
            yield f"The entry {bytes(key).hex()} is not what was written."
    for key, value, checked in connection.execute("SELECT key, value, checked FROM failures"):
        if checksum(key, value) != checked:
            yield f"The failure {bytes(key).hex()} is not what was written."


def move_aside(path: Path, target: Path, damage: Exception) -> None:
    """Rename a damaged file, so that a new one can take its place.

    Raises:
        JournalError: it cannot be renamed.
    """
    try:
        for end in FILE_ENDS:
            with contextlib.suppress(FileNotFoundError):
                Path(f"{path}{end}").rename(f"{target}{end}")
    except OSError as error:
        raise JournalError(
            f"The journal {path} is damaged ({damage}), and cannot be set aside "
            f"({error.strerror}). Choices: move it away, journal='another/path', or journal=False."
        ) from None


def remove_set_aside(path: Path) -> tuple[str, ...]:
    """Remove the damaged files that were set aside beside a journal; return their names.

    Raises:
        JournalError: one cannot be removed.
    """
    removed: list[str] = []
    for file in sorted(path.parent.glob(f"{glob.escape(path.name)}{SET_ASIDE}*")):
        try:
            file.unlink()
        except FileNotFoundError:  # another process was first
            continue
        except OSError as error:
            raise JournalError(
                f"The damaged journal {file} cannot be removed ({error.strerror}); it may hold "
                "what was to be forgotten. Remove it."
            ) from None
        removed.append(file.name)
    return tuple(removed)


def describe_dropped(answers: int) -> str:
    """Say that answers are not kept since their rows were forgotten meanwhile."""
    return (
        f"Rows were forgotten while this run was under way: {answers} of its answers are made from "
        "them and are not in the journal."
    )


def describe_error(path: Path, error: Exception) -> str:
    """Describe an error of SQLite, and the way out."""
    return (
        f"The journal {path} cannot be used: {error}. Choices: make room, journal='another/path', "
        "or journal=False."
    )
