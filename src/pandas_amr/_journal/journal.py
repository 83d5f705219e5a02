"""The journal: what was paid for, durable before it counts. Cache and checkpoint in one SQLite file.

It holds accepted answers by fingerprint, what was asked for (instruction, schema, model), and one row a run. It holds
no keys, and no text of rows unless ``keep_inputs`` asks for it.
"""

from __future__ import annotations

import functools
import math
import os
import sqlite3
import sys
import time
import warnings
from datetime import timedelta
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_amr._journal.database import (
    Noted,
    Store,
    is_damaged,
    known,
    store_at,
    transaction,
    writable,
    wrong,
)
from pandas_amr._records.paths import absolute_path, cache_folder
from pandas_amr._records.public import public
from pandas_amr._types.canonical import canonical_json
from pandas_amr.errors import JournalError, JournalWarning, UsageError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

    from pandas_amr._journal.database import Entry

MOST_DAYS = 1e9
DEFAULT_NAME = "journal.sqlite"


@public
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

    def __init__(
        self, path: str | Path, *, refresh: bool = False, keep_inputs: bool = False
    ) -> None:
        if not isinstance(path, str | os.PathLike) or not str(path):
            raise UsageError(f"Journal(path) takes a file's path, not {path!r}.")
        self.path = absolute_path(path)
        self.refresh = refresh
        self.keep_inputs = keep_inputs
        self._held: Store | None = None
        _ = self._store

    @property
    def _store(self) -> Store:
        """The process's own, whatever the file is called: a fork begins another."""
        if self._held is None or self._held.line.process != os.getpid():
            self._held = store_at(Path(os.path.realpath(self.path)))
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
        names = [
            "run",
            "began",
            "ended",
            "verb",
            "task",
            "units",
            "status",
            "calls",
            "tokens",
            "money",
            "recalled",
        ]
        rows = self._rows(f"SELECT {', '.join(names)} FROM runs ORDER BY run")  # noqa: S608
        return _frame(rows, names).set_index("run")

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
            raise UsageError(
                "prune() takes older_than= (a timedelta, or days), keep= (a number of runs), or both."
            )
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
            with transaction(connection):
                entries = f"DELETE FROM entries WHERE {' AND '.join(wanted)}"  # noqa: S608
                gone = connection.execute(entries, values).rowcount
                without = "base NOT IN (SELECT base FROM entries)"
                connection.execute(f"DELETE FROM uses WHERE {without} AND run NOT IN ({going})")  # noqa: S608
                bases = f"DELETE FROM bases WHERE {without} AND base NOT IN (SELECT base FROM uses)"  # noqa: S608
                connection.execute(bases)
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
                found.extend(wrong(connection))
            except sqlite3.DatabaseError as error:
                if not is_damaged(error):
                    raise
                found.append(
                    f"The journal {store.path} is damaged ({error}). The next run sets it aside."
                )

        try:
            store.read(verified)
        except JournalError:
            if not store.aside:
                raise
        told, store.aside = store.aside, []
        return told + found

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._store.read(
            lambda connection: connection.execute(query).fetchall()
        )
        return rows

    # For runs

    async def begin(self, verb: str, task: str | None, units: int) -> int:
        """Note a run, and give its number."""
        noted = Noted(time.time(), verb, None if task is None else writable(task), units)

        def insert(connection: sqlite3.Connection) -> int:
            with transaction(connection):
                return noted.write(connection, None)

        run: int = await self._store.soon(insert)
        self._store.runs[run] = noted
        return run

    async def end(
        self, run: int, status: str, *, calls: int, tokens: int, money: float | None, recalled: int
    ) -> None:
        """Note how a run ended."""
        noted = self._store.runs.pop(run, None)

        def update(connection: sqlite3.Connection) -> None:
            with transaction(connection):
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
            with transaction(connection):
                noted.write(connection, run, [base])

        await self._store.soon(insert)

    async def has_base(self, base: bytes) -> bool:
        """Whether anything was ever asked under a fingerprint's common part."""

        def asked(connection: sqlite3.Connection) -> bool:
            return (
                connection.execute("SELECT 1 FROM bases WHERE base = ?", (base,)).fetchone()
                is not None
            )

        there: bool = await self._store.soon(asked)
        return there

    async def recall(self, keys: Sequence[bytes], run: int = 0) -> dict[bytes, str]:
        """The answers that are known, by key; with ``refresh``, those that the run itself has had.

        What is not as it was written is not known.
        """
        if not keys or (self.refresh and not run):
            return {}
        by = run if self.refresh else None
        answers: dict[bytes, str] = await self._store.soon(
            lambda connection: known(connection, keys, by)
        )
        return answers

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
        raise UsageError(
            f"prune(older_than=) takes a timedelta or days, 0 or more, not {older_than!r}."
        )
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
            raise UsageError(
                f"journal= takes a path, amr.Journal(path), True or False, not {given!r}."
            )
    named = os.environ.get("AMR_JOURNAL", "")
    if named.lower() in {"off", "0", "false"} or (not named and given is None and not by_default):
        return None
    if named:
        return Journal(_path_of(named))
    try:
        return Journal(cache_folder() / DEFAULT_NAME)
    except (JournalError, OSError) as error:
        if given is True:
            raise JournalError(str(error)) from None
        warnings.warn(JournalWarning(f"This run keeps no journal. {error}"), stacklevel=2)
        return None


@functools.cache
def _path_of(named: str) -> Path:
    """The file that the environment names: the one that it was at the first use, where its path is relative."""
    return absolute_path(named)


def about_words(about: Mapping[str, Any]) -> str:
    """What stands behind a fingerprint, canonical: the same for the same, whoever writes it."""
    return canonical_json(about)
