"""Remove what was found of rows, or what labels name, so that no byte of it stays in the file."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from pandas_amr._journal.database_file import select_in, transaction
from pandas_amr._journal.keys import fingerprint
from pandas_amr._journal.origins import fingerprint_rows, write_reading
from pandas_amr._journal.processes import remove_dead
from pandas_amr._journal.transcript_file import (
    TranscriptLabels,
    list_readings,
    remove_made_from,
    remove_where,
)
from pandas_amr._records.public import public
from pandas_amr._units.cells import make_json_keys
from pandas_amr.errors import JournalError, UsageError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Sequence
    from pathlib import Path

    import pandas as pd

    from pandas_amr._journal.database import Kind, Store
    from pandas_amr._journal.labels import Labels

ANY_BASE = b""  # of a reading: its run has begun, and has asked nothing yet
FORGOTTEN_WORDS = "{}"  # in place of what was asked, if that was made from a forgotten row
MOST_NAMES = 8


@public
@dataclass(frozen=True, slots=True)
class Forgotten:
    """What ``Journal.forget`` has removed.

    Attributes:
        findings: how many findings, those of pieces of long rows and of ``ask`` among them.
        corrections: how many findings that a person had corrected.
        reductions: how many answers of reducers.
        plans: how many plans.
        rows: how many rows of the frame the journal knew; None if labels were given.
        untraced: how many answers are left that an earlier version wrote: they do not say which
            rows they are of.
        uncompared: names of columns that runs read of rows, and that the frame had in part only: it
            could not be told whether these runs read its rows.
        tasks: how many texts of tasks.
        transcripts: how many nodes of runs with ``trace="full"``: all that agents read and said in
            them.
        files: the files that were removed: damaged ones that had been set aside.
    """

    findings: int = 0
    reductions: int = 0
    plans: int = 0
    rows: int | None = None
    untraced: int = 0
    uncompared: tuple[tuple[str, ...], ...] = ()
    tasks: int = 0
    files: tuple[str, ...] = ()
    transcripts: int = 0
    corrections: int = 0

    @property
    def answers(self) -> int:
        """How many answers of models and functions there were in all."""
        return self.findings + self.reductions + self.plans


class Removed(NamedTuple):
    """What was removed, and the keys and fingerprints that stood for it."""

    forgotten: Forgotten
    gone: set[bytes]


# Of rows


@dataclass(slots=True)
class _Rows:
    """The rows that are to be forgotten, and their fingerprints by the columns that runs read."""

    frame: pd.DataFrame
    by_reading: dict[str, list[bytes] | None] = field(default_factory=dict)

    def read(self, readings: Collection[str]) -> None:
        """Hash the rows as runs with these readings did; as a whole, too, for those to come."""
        for reading in (*readings, write_reading(make_json_keys(list(self.frame.columns)))):
            if reading not in self.by_reading:
                names = json.loads(reading)
                self.by_reading[reading] = fingerprint_rows(self.frame, names)

    @property
    def digests(self) -> set[bytes]:
        """All fingerprints of the rows."""
        return {digest for digests in self.by_reading.values() for digest in digests or ()}


def forget_rows(store: Store, frame: pd.DataFrame) -> Forgotten:
    """Remove what was found of rows, and what was made from that.

    Raises:
        UsageError: the frame has none of the columns that runs read.
        JournalError: the file cannot be used.
    """
    rows = _Rows(frame)
    readings: list[str] = store.read(_list_readings)
    transcribed: list[str] = store.run_beside(list_readings)
    while True:
        readings = sorted({*readings, *transcribed})
        rows.read(readings)
        _check_columns(rows, readings)
        found = store.read(functools.partial(_remove_rows, rows, store.token))
        if isinstance(found, Removed):
            break
        readings = found  # a run has begun meanwhile
    store.read(clean_file)
    transcripts: int = store.run_beside(remove_made_from, found.gone)
    return replace(found.forgotten, uncompared=_find_uncompared(rows), transcripts=transcripts)


def _list_readings(database: sqlite3.Connection) -> list[str]:
    rows = database.execute("SELECT DISTINCT columns FROM readings ORDER BY columns")
    return [columns for (columns,) in rows]


def _check_columns(rows: _Rows, readings: Sequence[str]) -> None:
    """Refuse a frame that cannot hold rows of any run."""
    if not readings or any(rows.by_reading[reading] is not None for reading in readings):
        return
    read = [", ".join(map(repr, json.loads(reading))) for reading in readings[:MOST_NAMES]]
    raise UsageError(
        "forget() takes rows with the columns that runs read, and this frame has none of these "
        f"sets: {'; '.join(read)}."
    )


def _find_uncompared(rows: _Rows) -> tuple[tuple[str, ...], ...]:
    """Find what runs read that the frame has in part only."""
    own = set(make_json_keys(list(rows.frame.columns)))
    uncompared: list[tuple[str, ...]] = []
    for reading, digests in rows.by_reading.items():
        names = json.loads(reading)
        if digests is None and own.intersection(names):
            uncompared.append(tuple(names))
    return tuple(uncompared)


def _remove_rows(rows: _Rows, process: bytes, database: sqlite3.Connection) -> Removed | list[str]:
    """Remove what rows lead to; or return the readings that are new since they were hashed."""
    with transaction(database):
        readings = _list_readings(database)
        if not rows.by_reading.keys() >= set(readings):
            return readings
        remove_dead(database, process)
        by_key = _find_by_key(database, rows)
        # What stands in the place of a finding was made from it.
        reached = _find_reached(database, rows.digests | by_key.keys())
        forgotten = _count(database, by_key.keys() | reached.keys())
        known = set().union(*by_key.values(), *reached.values())
        _delete(database, by_key.keys() | reached.keys(), rows.digests)
        _hide_from_running(database, rows.digests | reached.keys())
        untraced = "SELECT count(*) FROM entries WHERE run < (SELECT first_run FROM traced)"
        forgotten = replace(
            forgotten,
            rows=_count_rows(rows, known),
            untraced=database.execute(untraced).fetchone()[0],
        )
        return Removed(forgotten, rows.digests | reached.keys() | by_key.keys())


def _count_rows(rows: _Rows, known: set[bytes]) -> int:
    """Count the rows that something was found of."""
    places: set[int] = set()
    for digests in rows.by_reading.values():
        places.update(place for place, one in enumerate(digests or ()) if one in known)
    return len(places)


def _find_by_key(database: sqlite3.Connection, rows: _Rows) -> dict[bytes, set[bytes]]:
    """Find what has a key made of a row alone, each with the row's fingerprint."""
    origin_of: dict[bytes, set[bytes]] = {}
    for base, reading in database.execute("SELECT base, columns FROM readings"):
        for digest in set(rows.by_reading[reading] or ()):
            origin_of[fingerprint(base, digest)] = {digest}
    known: dict[bytes, set[bytes]] = {}
    for table in ("entries", "failures"):
        query = f"SELECT key FROM {table} WHERE key IN ({{marks}})"  # noqa: S608 (of our own)
        for (key,) in select_in(database, query, origin_of):
            known[key] = origin_of[key]
    return known


def _find_reached(
    database: sqlite3.Connection, origins: Collection[bytes]
) -> dict[bytes, set[bytes]]:
    """Find all that was made from something, directly or not, each with the origins behind it."""
    query = "SELECT origin, key FROM origins WHERE origin IN ({marks})"
    behind: dict[bytes, set[bytes]] = {}
    begin = {origin: {origin} for origin in origins}
    while begin:
        further: dict[bytes, set[bytes]] = {}
        for origin, key in select_in(database, query, begin):
            new = begin[origin] - behind.get(key, set())
            if new:
                behind.setdefault(key, set()).update(new)
                further.setdefault(key, set()).update(new)
        begin = further
    return behind


def _hide_from_running(database: sqlite3.Connection, origins: Collection[bytes]) -> None:
    """Have runs that are under way write nothing more that was made from these origins."""
    for (run,) in database.execute("SELECT run FROM running").fetchall():
        rows = [(run, origin) for origin in origins]
        database.executemany("INSERT OR IGNORE INTO forgotten VALUES (?, ?)", rows)


# By labels


def forget_labelled(store: Store, labels: Labels) -> Forgotten:
    """Remove the answers that labels name, and what was made from them.

    That is reductions, and what people corrected.
    """
    removed: Removed = store.read(functools.partial(_remove_labelled, labels, store.token))
    store.read(clean_file)
    transcripts: int = store.run_beside(remove_where, labels.fit_transcript, removed.gone)
    return replace(removed.forgotten, transcripts=transcripts)


def _remove_labelled(labels: Labels, process: bytes, database: sqlite3.Connection) -> Removed:
    with transaction(database):
        remove_dead(database, process)
        keys = labels.find_keys(database)
        origins = _find_origins(database, keys)
        corrections = _select_kind(database, "correction", _find_reached(database, keys))
        reductions = _select_kind(database, "reduction", _find_reached(database, origins))
        keys.update(reductions, corrections)
        forgotten = _count(database, keys)
        derived = _find_reached(database, keys).keys()
        _delete(database, keys | derived, set())
        _hide_from_running(database, keys)
        forgotten = replace(forgotten, tasks=labels.remove_tasks(database))
        return Removed(forgotten, keys | derived)


def _select_kind(database: sqlite3.Connection, kind: Kind, keys: Collection[bytes]) -> list[bytes]:
    """Return the keys among these that are of answers of a kind."""
    query = f"SELECT key FROM entries WHERE kind = '{kind}' AND key IN ({{marks}})"  # noqa: S608 (of our own)
    return [key for (key,) in select_in(database, query, keys)]


def _find_origins(database: sqlite3.Connection, keys: Collection[bytes]) -> set[bytes]:
    """Find the rows that findings are of: by what is written, or by how a key is made of a row."""
    query = (
        "SELECT key, base FROM entries WHERE kind IN ('finding', 'correction') AND key IN ({marks})"
    )
    base_of = dict(select_in(database, query, keys))
    wanted, bases = base_of.keys(), set(base_of.values())
    query = "SELECT origin FROM origins WHERE key IN ({marks})"
    origins = {origin for (origin,) in select_in(database, query, wanted)}
    for (origin,) in database.execute("SELECT DISTINCT origin FROM origins"):
        if any(fingerprint(base, origin) in wanted for base in bases):
            origins.add(origin)
    return origins


# Both


def _count(database: sqlite3.Connection, keys: Collection[bytes]) -> Forgotten:
    counts = {"finding": 0, "reduction": 0, "plan": 0, "correction": 0}
    query = "SELECT kind FROM entries WHERE key IN ({marks})"
    for (kind,) in select_in(database, query, keys):
        counts[kind] += 1
    return Forgotten(
        counts["finding"], counts["reduction"], counts["plan"], corrections=counts["correction"]
    )


def _delete(
    database: sqlite3.Connection, keys: Collection[bytes], origins: Collection[bytes]
) -> None:
    """Delete entries, the ways to them, and what bases that were made from them ask."""
    one_by_one = [(key,) for key in keys]
    database.executemany("DELETE FROM entries WHERE key = ?", one_by_one)
    database.executemany("DELETE FROM failures WHERE key = ?", one_by_one)
    database.executemany("DELETE FROM repaired WHERE key = ?", one_by_one)
    database.executemany(
        "UPDATE bases SET about = ? WHERE base = ?", [(FORGOTTEN_WORDS, key) for key in keys]
    )
    ways = [(one,) for one in {*keys, *origins}]
    database.executemany("DELETE FROM origins WHERE origin = ?", ways)
    database.execute("CREATE TEMP TABLE IF NOT EXISTS gone (key BLOB PRIMARY KEY)")
    database.executemany("INSERT OR IGNORE INTO gone VALUES (?)", one_by_one)
    database.execute("DELETE FROM origins WHERE key IN (SELECT key FROM gone)")
    database.execute("DROP TABLE gone")
    remove_unused(database)


def prune_transcripts(
    path: Path, made_before: float | None, keep: int | None, database: sqlite3.Connection
) -> None:
    """Remove the transcripts of nodes that ended before a time, of runs that are not the last."""
    kept: set[int] = set()
    if keep is not None:
        last_runs = "SELECT run FROM runs ORDER BY run DESC LIMIT ?"
        kept = {run for (run,) in database.execute(last_runs, (keep,))}
    is_quiet = database.execute("SELECT 1 FROM running").fetchone() is None

    def fits(labels: TranscriptLabels) -> bool:
        is_old = made_before is None or labels.made < made_before
        return is_old and labels.run not in kept

    remove_where(path, fits, is_quiet=is_quiet)


def remove_unused(database: sqlite3.Connection) -> None:
    """Delete the bases that have no entries any more, and what leads to entries that have gone."""
    # A running run does not write its bases again, so they stay.
    running = "SELECT run FROM runs WHERE ended IS NULL"
    unused = "base NOT IN (SELECT base FROM entries UNION SELECT base FROM failures)"
    database.execute(f"DELETE FROM uses WHERE {unused} AND run NOT IN ({running})")  # noqa: S608
    database.execute(
        f"DELETE FROM bases WHERE {unused} AND base NOT IN (SELECT base FROM uses)"  # noqa: S608
    )
    if database.execute("SELECT 1 FROM running").fetchone() is None:
        database.execute("DELETE FROM readings WHERE base NOT IN (SELECT base FROM bases)")
        places = (
            "SELECT key FROM entries UNION SELECT key FROM failures UNION "
            "SELECT base FROM bases UNION SELECT origin FROM origins"
        )
        database.execute(f"DELETE FROM origins WHERE key NOT IN ({places})")  # noqa: S608


def clean_file(database: sqlite3.Connection) -> None:
    """Write the file anew without what was deleted, and empty the log of writes.

    Raises:
        JournalError: another process has read for so long that the log could not be emptied.
    """
    database.execute("VACUUM")
    is_busy, _, _ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if is_busy:
        raise JournalError(
            "The answers are deleted, but another process reads the journal, and bytes of them are "
            "still in its -wal file. Call it again once that process has ended."
        )
