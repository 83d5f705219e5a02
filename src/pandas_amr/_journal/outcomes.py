"""What the journal knows of units beside their findings: which were repaired, and which failed.

A failure is remembered only if a plan says for how long (``retry_failed_after``). It has the key
that the unit's finding would have; the finding takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pandas_amr._journal.database_file import (
    KEYS_PER_QUERY,
    checksum,
    find_forgotten,
    transaction,
)
from pandas_amr._journal.entries import decode, encode
from pandas_amr._records.clock import CLOCK

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Sequence


@dataclass(frozen=True, slots=True)
class RememberedFailure:
    """Why a unit failed, and in how many requests it was asked about."""

    who: str
    reason: str
    attempts: int


class FailureEntry(NamedTuple):
    """A failure as it is written: all but ``failure`` is as of the finding that did not come."""

    key: bytes
    base: bytes
    failure: RememberedFailure
    origins: tuple[bytes, ...] = ()
    is_found_by_key: bool = False


# Writing


def write_repaired(
    database: sqlite3.Connection, keys: Iterable[bytes], repaired: Iterable[bytes]
) -> None:
    """Write which of the findings just written were repaired, and drop failures that they mend."""
    written = [(key,) for key in keys]
    database.executemany("DELETE FROM failures WHERE key = ?", written)
    database.executemany("DELETE FROM repaired WHERE key = ?", written)
    database.executemany("INSERT OR IGNORE INTO repaired VALUES (?)", [(key,) for key in repaired])


def write_failures(
    failures: Sequence[FailureEntry], run: int, database: sqlite3.Connection
) -> None:
    """Write failures, in place of earlier ones of the same units.

    Those of rows that were forgotten while the run was under way are left out.
    """
    now = CLOCK.wall()
    rows: list[tuple[object, ...]] = []
    origins: list[tuple[bytes, bytes]] = []
    with transaction(database):
        forgotten = find_forgotten(database, run)
        for key, base, failure, behind, is_found_by_key in failures:
            if not forgotten.isdisjoint(behind):
                continue
            value = encode([failure.who, failure.reason, failure.attempts])
            rows.append((key, base, now, value, checksum(key, value)))
            if not is_found_by_key:
                origins += [(origin, key) for origin in behind]
        database.executemany("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?, ?)", rows)
        database.executemany("INSERT OR IGNORE INTO origins VALUES (?, ?)", origins)


def delete_failures(database: sqlite3.Connection, where: str, values: Sequence[float]) -> None:
    """Delete the failures that meet a condition, and the marks of findings that have gone."""
    database.execute(f"DELETE FROM failures WHERE {where}", values)  # noqa: S608
    database.execute("DELETE FROM repaired WHERE key NOT IN (SELECT key FROM entries)")


# Reading


def find_failures(
    keys: Sequence[bytes], seconds: float, database: sqlite3.Connection
) -> dict[bytes, RememberedFailure]:
    """Find the failures of some units that are at most so many seconds old; no damaged ones."""
    since = CLOCK.wall() - seconds
    failures: dict[bytes, RememberedFailure] = {}
    query = "SELECT key, value, checked FROM failures WHERE made > ? AND key IN ({marks})"
    for part, marks in _parts_of(keys):
        for key, value, checked in database.execute(query.format(marks=marks), (since, *part)):
            failure = _read(value) if checksum(key, value) == checked else None
            if failure is not None:
                failures[key] = failure
    return failures


def _read(text: str) -> RememberedFailure | None:
    match decode(text):
        case [str(who), str(reason), int(attempts)]:
            return RememberedFailure(who, reason, attempts)
    return None


def find_repaired(keys: Sequence[bytes], database: sqlite3.Connection) -> set[bytes]:
    """Find the findings among these that took a repair turn."""
    repaired: set[bytes] = set()
    for part, marks in _parts_of(keys):
        query = f"SELECT key FROM repaired WHERE key IN ({marks})"  # noqa: S608 (question marks)
        repaired.update(key for (key,) in database.execute(query, part))
    return repaired


def _parts_of(keys: Sequence[bytes]) -> Iterator[tuple[Sequence[bytes], str]]:
    """Yield keys in parts that one query takes, each with its question marks."""
    for start in range(0, len(keys), KEYS_PER_QUERY):
        part = keys[start : start + KEYS_PER_QUERY]
        yield part, ",".join("?" * len(part))
