"""The transcripts beside a journal: what agents read and said, in a file of its own.

It is opened for each piece of work, on the journal's thread, and closed again: a process that is
killed leaves a file that can be read. Only its owner can read it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pandas_amr._journal.database_file import (
    BUSY_S,
    SET_ASIDE,
    create_private,
    is_damaged,
    select_in,
    transaction,
)
from pandas_amr._records.clock import CLOCK
from pandas_amr._records.transcript import decode_node
from pandas_amr.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from pandas_amr._records.transcript import NodeTranscript

END = "-transcripts"  # what the name of the file has after that of the journal
FORMAT = 1
APPLICATION = 0x414D5254  # "AMRT"
SCHEMA = (
    """CREATE TABLE nodes (
        id INTEGER PRIMARY KEY, token BLOB NOT NULL, run INTEGER NOT NULL, node TEXT NOT NULL,
        kind TEXT NOT NULL, made REAL NOT NULL, content TEXT NOT NULL
    )""",
    "CREATE INDEX nodes_of_runs ON nodes (token, node)",
    "CREATE TABLE keys (key BLOB NOT NULL, id INTEGER NOT NULL, position INTEGER)",
    "CREATE INDEX ids_of_keys ON keys (key)",
    """CREATE TABLE origins (
        origin BLOB NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (origin, id)
    ) WITHOUT ROWID""",
    """CREATE TABLE links (
        origin BLOB NOT NULL, key BLOB NOT NULL, PRIMARY KEY (origin, key)
    ) WITHOUT ROWID""",
    "CREATE TABLE readings (columns TEXT PRIMARY KEY) WITHOUT ROWID",
)
ORPHANS = ("keys", "origins")  # tables of what belongs to a node


class WrittenNode(NamedTuple):
    """A node as it is written.

    Attributes:
        kind: the kind of the answers that come of it: as in the journal.
        keys: the keys of these, each with the position of the unit.
        origins: the fingerprints of the rows that its agents may have read.
    """

    node: str
    kind: str
    content: str
    keys: Mapping[bytes, int | None]
    origins: Collection[bytes]


@dataclass(slots=True)
class RunNodes:
    """What of a run is to be written.

    Attributes:
        token: names the run: its number may be that of another one, in a journal that has gone.
        links: sets of rows that were made of others: each row with the key of its set.
        readings: the names of columns that the run reads of rows, as JSON.
    """

    token: bytes
    run: int
    nodes: list[WrittenNode] = field(default_factory=list)
    links: set[tuple[bytes, bytes]] = field(default_factory=set)
    readings: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class FoundNode:
    """A node of an earlier run, and the unit in it that was looked for."""

    node: str
    position: int | None
    transcript: NodeTranscript


def transcripts_path(journal: Path) -> Path:
    """Return where the transcripts beside a journal are."""
    return Path(f"{journal}{END}")


@contextlib.contextmanager
def open_transcripts(journal: Path) -> Iterator[sqlite3.Connection]:
    """Open the transcripts beside a journal; a file that is not there is created.

    Raises:
        JournalError: the file cannot be used. A damaged one is set aside.
    """
    path = transcripts_path(journal)
    try:
        create_private(path)
        database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
        try:
            database.execute("PRAGMA secure_delete=ON")  # what is deleted is overwritten
            _prepare(database, path)
            yield database
        finally:
            database.close()
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, sqlite3.Error) and is_damaged(error):
            name = _set_aside(journal)
            raise JournalError(
                f"The transcripts {path} are damaged ({error}). They are set aside as {name}."
            ) from None
        raise JournalError(f"The transcripts {path} cannot be used: {error}.") from None


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    """Create the tables of a new file, or check the format.

    Raises:
        JournalError: it is another file, or of another version.
    """
    application, version = _read_format(database)
    if not application and not database.execute("SELECT 1 FROM sqlite_master").fetchone():
        with transaction(database):
            if not _read_format(database)[0]:  # another process may have been first
                for statement in SCHEMA:
                    database.execute(statement)
                database.execute(f"PRAGMA user_version={FORMAT}")
                database.execute(f"PRAGMA application_id={APPLICATION}")
        application, version = _read_format(database)
    if application != APPLICATION or version != FORMAT:
        raise JournalError(
            f"{path} holds no transcripts of this version of pandas-amr. Move it away."
        )


def _read_format(database: sqlite3.Connection) -> tuple[int, int]:
    application: int = database.execute("PRAGMA application_id").fetchone()[0]
    version: int = database.execute("PRAGMA user_version").fetchone()[0]
    return application, version


def _set_aside(journal: Path) -> str:
    """Move damaged transcripts away, as damaged journals are; return their new name.

    Raises:
        JournalError: they cannot be moved.
    """
    path = transcripts_path(journal)
    moment = time.strftime("%Y%m%d-%H%M%S")
    target = Path(f"{journal}{SET_ASIDE}{moment}-{os.getpid()}{END}")
    try:
        path.rename(target)
    except FileNotFoundError:  # another process was first
        return "another file"
    except OSError as error:
        raise JournalError(
            f"The transcripts {path} are damaged, and cannot be set aside ({error.strerror})."
        ) from None
    return target.name


# -- writing ---------------------------------------------------------------------------------------


def write_nodes(journal: Path, run: RunNodes, find_forgotten: Callable[[], set[bytes]]) -> None:
    """Write nodes, but for those whose agents may have read a row that was forgotten meanwhile.

    Args:
        journal: the journal's file.
        run: what is written.
        find_forgotten: finds what was forgotten. It is called once nobody else can write here:
            who forgets marks it in the journal first, and then removes what is here.

    Raises:
        JournalError: the file cannot be used.
    """
    with open_transcripts(journal) as database, transaction(database):
        forgotten = find_forgotten()
        links = [link for link in run.links if link[0] not in forgotten]
        database.executemany("INSERT OR IGNORE INTO links VALUES (?, ?)", links)
        readings = [(columns,) for columns in run.readings]
        database.executemany("INSERT OR IGNORE INTO readings VALUES (?)", readings)
        for node in run.nodes:
            if forgotten.isdisjoint(node.origins):
                _insert_node(database, run, node)


def _insert_node(database: sqlite3.Connection, run: RunNodes, node: WrittenNode) -> None:
    row = (run.token, run.run, node.node, node.kind, CLOCK.wall(), node.content)
    insert = "INSERT INTO nodes (token, run, node, kind, made, content) VALUES (?, ?, ?, ?, ?, ?)"
    number = database.execute(insert, row).lastrowid
    keys = [(key, number, position) for key, position in node.keys.items()]
    database.executemany("INSERT INTO keys VALUES (?, ?, ?)", keys)
    origins = [(origin, number) for origin in node.origins]
    database.executemany("INSERT OR IGNORE INTO origins VALUES (?, ?)", origins)


# -- reading ---------------------------------------------------------------------------------------


def has_transcripts(journal: Path) -> bool:
    """Whether there are transcripts beside a journal."""
    return transcripts_path(journal).exists()


def read_node(journal: Path, token: bytes, node: str) -> NodeTranscript | None:
    """Read what a run has written of a node; None if it is not there.

    Raises:
        JournalError: the file cannot be used.
    """
    if not has_transcripts(journal):
        return None
    with open_transcripts(journal) as database:
        query = "SELECT content FROM nodes WHERE token = ? AND node = ? ORDER BY id DESC"
        row = database.execute(query, (token, node)).fetchone()
    return None if row is None else _decode(row[0])


def find_node(journal: Path, key: bytes, run: int, made: float) -> FoundNode | None:
    """Find the node in which an answer of the journal was made; None if it is not there.

    Args:
        journal: the journal's file.
        key: the answer's key.
        run: the run that made it.
        made: when it was made. The node ended after that, and one of a journal that has gone
            before.

    Raises:
        JournalError: the file cannot be used.
    """
    if not has_transcripts(journal):
        return None
    with open_transcripts(journal) as database:
        query = (
            "SELECT node, position, content FROM keys JOIN nodes USING (id) "
            "WHERE key = ? AND run = ? AND made >= ? ORDER BY made LIMIT 1"
        )
        row = database.execute(query, (key, run, made)).fetchone()
    if row is None:
        return None
    node, position, content = row
    transcript = _decode(content)
    return None if transcript is None else FoundNode(node, position, transcript)


def _decode(content: str) -> NodeTranscript | None:
    """Decode a transcript; None if it is damaged."""
    try:
        return decode_node(json.loads(content))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def list_readings(journal: Path) -> list[str]:
    """List the names of columns that the runs with transcripts have read of rows, as JSON."""
    if not has_transcripts(journal):
        return []
    with open_transcripts(journal) as database:
        rows = database.execute("SELECT columns FROM readings ORDER BY columns").fetchall()
    return [columns for (columns,) in rows]


def count_nodes(journal: Path) -> int:
    """Count the nodes with a transcript."""
    if not has_transcripts(journal):
        return 0
    with open_transcripts(journal) as database:
        count: int = database.execute("SELECT count(*) FROM nodes").fetchone()[0]
    return count


def find_transcript_damage(journal: Path) -> list[str]:
    """Return what is wrong with the file, a sentence each."""
    if not has_transcripts(journal):
        return []
    problems: list[str] = []
    try:
        with open_transcripts(journal) as database:
            for (line,) in database.execute("PRAGMA integrity_check").fetchall():
                if line != "ok":
                    problems.append(f"The transcripts: {line}")
            for number, content in database.execute("SELECT id, content FROM nodes"):
                if _decode(content) is None:
                    problems.append(f"The transcript {number} is not what was written.")
    except JournalError as error:
        problems.append(str(error))
    return problems


# -- removing --------------------------------------------------------------------------------------


def remove_made_from(journal: Path, gone: Collection[bytes]) -> int:
    """Remove the nodes that read rows, or made answers, of these fingerprints and keys.

    Returns:
        How many nodes were removed.

    Raises:
        JournalError: the file cannot be used.
    """
    if not has_transcripts(journal):
        return 0
    with open_transcripts(journal) as database:
        with transaction(database):
            reached = _follow_links(database, gone)
            ids: set[int] = set()
            for table, name in (("origins", "origin"), ("keys", "key")):
                query = f"SELECT id FROM {table} WHERE {name} IN ({{marks}})"  # noqa: S608 (of our own)
                ids.update(number for (number,) in select_in(database, query, reached))
            removed = _remove_ids(database, ids)
            rows = [(one,) for one in reached]
            database.executemany("DELETE FROM links WHERE origin = ?", rows)
            _remove_orphans(database)
        database.execute("VACUUM")
    return removed


def _follow_links(database: sqlite3.Connection, gone: Collection[bytes]) -> set[bytes]:
    """Return fingerprints, with those of all sets of rows that were made of their rows."""
    reached, begin = set(gone), set(gone)
    while begin:
        query = "SELECT key FROM links WHERE origin IN ({marks})"
        begin = {key for (key,) in select_in(database, query, begin)} - reached
        reached |= begin
    return reached


def _remove_ids(database: sqlite3.Connection, ids: Collection[int]) -> int:
    database.executemany("DELETE FROM nodes WHERE id = ?", [(number,) for number in ids])
    return len(ids)


def _remove_orphans(database: sqlite3.Connection) -> None:
    """Remove what belongs to nodes that are no longer there."""
    for table in ORPHANS:
        database.execute(f"DELETE FROM {table} WHERE id NOT IN (SELECT id FROM nodes)")  # noqa: S608


def remove_where(
    journal: Path,
    fits: Callable[[TranscriptLabels], bool],
    keys: Collection[bytes] = (),
    *,
    is_quiet: bool = False,
) -> int:
    """Remove the nodes that fit, and those that made answers of these keys.

    Args:
        journal: the journal's file.
        fits: tells which nodes are removed.
        keys: likewise.
        is_quiet: whether no run is under way, so that an empty file is emptied of all else, too.

    Raises:
        JournalError: the file cannot be used.
    """
    if not has_transcripts(journal):
        return 0
    with open_transcripts(journal) as database:
        with transaction(database):
            query = "SELECT id FROM keys WHERE key IN ({marks})"
            ids = {number for (number,) in select_in(database, query, keys)}
            rows = database.execute("SELECT id, run, kind, made, content FROM nodes").fetchall()
            ids.update(number for number, *labels in rows if fits(TranscriptLabels(*labels)))
            removed = _remove_ids(database, ids)
            _remove_orphans(database)
            if is_quiet and database.execute("SELECT 1 FROM nodes").fetchone() is None:
                database.execute("DELETE FROM links")
                database.execute("DELETE FROM readings")
        database.execute("VACUUM")
    return removed


class TranscriptLabels(NamedTuple):
    """What a node's transcript is known by."""

    run: int
    kind: str
    made: float
    content: Any
