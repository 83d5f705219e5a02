"""The journal: accepted answers, durable before they count. Cache and checkpoint in one file.

It holds answers by fingerprint, what was asked (instruction, schema, model), and one row per run.
It holds no API keys, and the text of rows only if ``keep_inputs`` is set.
"""

from __future__ import annotations

import functools
import math
import os
import sqlite3
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pandas_amr._journal.database import Store, store_at
from pandas_amr._journal.database_file import (
    FILE_ENDS,
    RunRecord,
    find_damage,
    find_entries,
    find_forgotten,
    flush_to_disk,
    is_damaged,
    remove_set_aside,
    transaction,
    writable,
)
from pandas_amr._journal.forget import (
    ANY_BASE,
    Forgotten,
    forget_labelled,
    forget_rows,
    prune_transcripts,
    remove_unused,
)
from pandas_amr._journal.keys import fingerprint
from pandas_amr._journal.labels import read_labels
from pandas_amr._journal.outcomes import (
    FailureEntry,
    RememberedFailure,
    delete_failures,
    find_failures,
    find_repaired,
    write_failures,
)
from pandas_amr._journal.processes import remove_dead, remove_process, write_beat
from pandas_amr._journal.transcript_file import END as TRANSCRIPTS_END
from pandas_amr._journal.transcript_file import (
    count_nodes,
    find_node,
    find_transcript_damage,
    read_node,
)
from pandas_amr._records.callers import warn_caller
from pandas_amr._records.clock import CLOCK
from pandas_amr._records.counts import counted
from pandas_amr._records.forgetting import let_go_of_rows
from pandas_amr._records.paths import absolute_path, cache_folder
from pandas_amr._records.public import public
from pandas_amr._records.refused import show_refused
from pandas_amr._types.canonical import canonical_json
from pandas_amr.errors import JournalError, JournalWarning, UsageError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Iterable, Sequence

    import pandas as pd

    from pandas_amr._journal.claims import Claim
    from pandas_amr._journal.database import Entry
    from pandas_amr._journal.transcript_file import FoundNode
    from pandas_amr._records.transcript import NodeTranscript
    from pandas_amr._units.frames import Frame

RUN_COLUMNS = (
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
)
ENTRY_COLUMNS = ("key", "kind", "about", "value", "run", "made", "input")
TIME_COLUMNS = ("began", "ended", "made")
MOST_DAYS = 1e9
DEFAULT_NAME = "journal.sqlite"
OFF_WORDS = frozenset({"off", "false", "no", "none", "null", "never", "disabled"})
ON_WORDS = frozenset({"on", "true", "yes", "auto", "default"})
OFF = frozenset({"off", "0", "false"})  # values of the environment's AMR_JOURNAL


@public
class Journal:
    """A journal in a file. Runs that use it pay for no answer that it holds.

    Args:
        path: the file; its folder is created. Several processes may share it.
        refresh: ask everything again, and overwrite what the journal holds.
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
            raise UsageError(f"Journal(path) takes a file's path, not {show_refused(path)}.")
        self.path = absolute_path(path)
        self.refresh = refresh
        self.keep_inputs = keep_inputs
        self._opened: Store | None = None
        _ = self._store  # so that a file that cannot be used fails here

    @property
    def _store(self) -> Store:
        """The store of this process for the file, by any of its names; a fork opens another."""
        if self._opened is None or self._opened.connection.process != os.getpid():
            self._opened = store_at(Path(os.path.realpath(self.path)))
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def __repr__(self) -> str:
        try:
            content = counted(len(self), "answer")
            corrections = self.corrections
        except JournalError:
            return f"<Journal {self.path.name}, cannot be read>"
        if corrections:
            content += f", {corrections} corrections"
        return f"<Journal {self.path.name}, {content}>"

    @property
    def corrections(self) -> int:
        """The number of findings that people corrected."""
        return self._count("kind = 'correction'")

    def __len__(self) -> int:
        """Return the number of answers, without what people corrected."""
        return self._count("kind != 'correction'")

    def _count(self, condition: str) -> int:
        return int(self._rows(f"SELECT count(*) FROM entries WHERE {condition}")[0][0])  # noqa: S608

    def runs(self) -> pd.DataFrame:
        """Return one row per run: when it was, what it asked, about how many units, at what cost.

        ``status`` is missing for a run that was killed or is still running.
        """
        rows = self._rows(f"SELECT {', '.join(RUN_COLUMNS)} FROM runs ORDER BY run")  # noqa: S608
        return _frame(rows, RUN_COLUMNS).set_index("run")

    def size(self) -> int:
        """Return the bytes on disk."""
        ends = (*FILE_ENDS, TRANSCRIPTS_END)
        parts = [Path(f"{self._store.path}{end}") for end in ends]
        return sum(part.stat().st_size for part in parts if part.exists())

    def prune(
        self,
        *,
        older_than: timedelta | float | None = None,
        keep: int | None = None,
        corrections: bool = False,
    ) -> int:
        """Delete answers and transcripts of agents, and return their space to the disk.

        An answer can be asked for again. What a person corrected (``result.override``) cannot, and
        stays.

        Args:
            older_than: delete the answers made longer ago: a timedelta, or days.
            keep: keep only the answers to what the last ``keep`` runs asked: instruction, schema
                and model; and the transcripts of these runs.
            corrections: delete corrections likewise.

        Returns:
            How many answers, and corrections, were deleted.

        Raises:
            UsageError: neither is given, or one is not such a time or number.
            JournalError: the file is damaged; it is set aside.
        """
        if older_than is None and keep is None:
            raise UsageError(
                "prune() takes older_than= (a timedelta, or days), keep= (a number of runs), or "
                "both."
            )
        conditions: list[str] = []
        values: list[float] = []
        if older_than is not None:
            conditions.append("made < ?")
            values.append(CLOCK.wall() - _seconds(older_than))
        if keep is not None:
            last_runs = "SELECT run FROM runs ORDER BY run DESC LIMIT ?"
            last_bases = f"SELECT base FROM uses WHERE run IN ({last_runs})"  # noqa: S608
            conditions.append(f"base NOT IN ({last_bases})")
            values.append(_check_keep(keep))
        where = " AND ".join(conditions)
        store = self._store
        delete = functools.partial(_delete_entries, where, values, corrections=corrections)
        deleted: int = store.read(delete)
        made_before = None if older_than is None else values[0]
        kept_runs = None if keep is None else int(values[-1])
        store.read(functools.partial(prune_transcripts, store.path, made_before, kept_runs))
        return deleted

    def forget(
        self, frame: Frame | None = None, *, where: Mapping[str, Any] | None = None
    ) -> Forgotten:
        """Remove what was found of rows, so that no byte of it is left in the journal's files.

        With what was found of a row go the reductions that were made from it, what code has asked
        about it, a plan whose planner saw it, and the transcripts of agents that may have read it
        (``trace="full"``; that of a shard goes as a whole). Damaged files that were set aside are
        removed, too, and this process remembers no result any more (``result_of``).

        A run that is under way, in any process, goes on; what it finds of these rows from now on is
        in its result and not in the journal, and it warns of that. Until it ends, the journal holds
        the rows' fingerprints. A run that is begun later and reads the rows again finds anew.

        Not in the journal are frames, results and their saved folders, and what a provider keeps
        of requests, such as the files of a batch.

        Args:
            frame: the rows as they were given to the verbs (anything that these take), with all
                columns that these read; equal rows are one.
            where: labels of the answers that are removed, whatever rows they are of, together with
                the reductions that were made from findings among them: ``kind``
                (``"finding"``, ``"reduction"``, ``"plan"``, ``"correction"``), ``model``, ``run``
                (as in ``runs()``),
                ``before`` and ``after`` (when they were made; UTC), ``text`` (in the answer, its
                kept input or what was asked; a task with it goes, too), ``key`` (as in
                ``export()``). Each may be a list. All must hold.

        Returns:
            How much was removed, and what could not be told.

        Raises:
            UsageError: neither or both are given; the frame has none of the columns that runs read;
                a label is unknown.
            JournalError: the file cannot be used.

        Example:
            >>> import tempfile
            >>> import pandas as pd
            >>> journal = Journal(Path(tempfile.mkdtemp()) / "journal.sqlite")
            >>> journal.forget(pd.DataFrame({"text": ["I am Jane."]})).answers
            0
            >>> journal.forget(where={"text": "Jane", "before": "2026-01-01"}).answers
            0
        """
        if (frame is None) == (where is None):
            raise UsageError(
                "forget() takes a frame of rows, or where= (such as {'run': 3}, {'text': '...'})."
            )
        store = self._store
        if frame is None:
            forgotten = forget_labelled(store, read_labels(where))
        else:
            forgotten = forget_rows(store, _read_frame(frame))
        let_go_of_rows()
        forgotten = replace(forgotten, files=remove_set_aside(store.path))
        _warn_of_left(store.path, forgotten)
        return forgotten

    def export(self) -> pd.DataFrame:
        """Return all answers: ``key kind about value run made input``.

        ``about`` is what was asked, as JSON. A ``kind`` of ``correction`` is what a person said in
        the place of a finding (``result.override``): ``value`` has the whole ``finding`` and the
        ``fields`` that were given, ``made`` is when, and ``run`` the call.

        Raises:
            JournalError: the file is damaged; it is set aside.
        """
        rows = self._rows(
            "SELECT lower(hex(key)), kind, about, value, run, made, input FROM entries "
            "LEFT JOIN bases USING (base) ORDER BY made, key"
        )
        return _frame(rows, ENTRY_COLUMNS)

    def verify(self) -> list[str]:
        """Read everything, and return what is wrong, a sentence each.

        No run ever gets an entry that is wrong. Damaged files that were set aside since the last
        call are named, too. A file that is found to be damaged now stays where it is.
        """
        store = self._store
        problems: list[str] = []
        try:
            store.read(functools.partial(_add_damage, store.path, problems))
        except JournalError:
            if not store.aside:
                raise
        notices, store.aside = store.aside, []
        of_transcripts: list[str] = store.run_beside(find_transcript_damage)
        return notices + problems + of_transcripts

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._store.read(functools.partial(_fetch_all, query))
        return rows

    def count_transcripts(self) -> int:
        """Return of how many nodes there are transcripts, which ``trace="full"`` keeps."""
        count: int = self._store.run_beside(count_nodes)
        return count

    # For runs

    @property
    def file(self) -> Path:
        """The file, whatever links its path has."""
        return self._store.path

    async def work(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run work on the journal's thread.

        Raises:
            JournalError: the file cannot be used.
        """
        return await self._store.execute_async(work)

    def read_transcript(self, token: bytes, node: str) -> NodeTranscript | None:
        """Read what a run has kept of a node; None if it is not there.

        Raises:
            JournalError: the file cannot be used.
        """
        transcript: NodeTranscript | None = self._store.run_beside(read_node, token, node)
        return transcript

    def find_transcript(self, key: bytes, made: MadeAnswer) -> FoundNode | None:
        """Find the node in which an answer was made; None if there is no transcript of it.

        Raises:
            JournalError: the file cannot be used.
        """
        found: FoundNode | None = self._store.run_beside(find_node, key, made.run, made.made)
        return found

    def find_made(self, key: bytes) -> MadeAnswer | None:
        """Find which run made an answer, and when; None if the journal does not have it."""
        made: MadeAnswer | None = self._store.read(functools.partial(_find_made, key))
        return made

    async def begin(
        self, verb: str, task: str | None, units: int, readings: Sequence[str] = ()
    ) -> int:
        """Add a run, and return its number.

        ``readings`` are the columns that it may read of rows.
        """
        store = self._store
        shown = None if task is None else writable(task)
        record = RunRecord(time.time(), verb, shown, units, store.token)
        record.readings = {(ANY_BASE, reading) for reading in readings}
        run: int = await store.execute_async(functools.partial(_begin_run, record))
        store.runs[run] = record
        store.show_life()
        return run

    async def end(
        self, run: int, status: str, *, calls: int, tokens: int, money: float | None, recalled: int
    ) -> None:
        """Write how a run ended."""
        store = self._store
        record = store.runs.pop(run, None)
        values = (time.time(), status, calls, tokens, money, recalled, run)
        await store.execute_async(functools.partial(_end_run, record, run, values))

    async def about(
        self,
        base: bytes,
        about: str,
        run: int,
        reading: str = "",
        origins: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Write what a base stands for, and that a run asks it.

        Args:
            base: the base.
            about: what is asked.
            run: the run's number.
            reading: the names of the columns that are read of rows, as JSON.
            origins: pairs of what something is made from, and its key: sets of rows, and this base.
        """
        record = self._store.runs.get(run)
        if record is None:
            return
        readings = {(base, reading)} - record.readings if reading else set()
        new_origins = set(origins) - record.origins
        if base in record.abouts and not readings and not new_origins:
            return
        record.abouts[base] = about
        record.readings |= readings
        record.origins |= new_origins
        write = functools.partial(_write_base, record, run, base, readings, new_origins)
        await self._store.execute_async(write)

    async def link(self, origins: Sequence[tuple[bytes, bytes]], run: int) -> None:
        """Write that entries which the journal has are made from further rows."""
        if origins:
            await self._store.execute_async(functools.partial(_write_origins, origins, run))

    async def has_base(self, base: bytes) -> bool:
        """Whether anything was ever asked under a base."""
        is_known: bool = await self._store.execute_async(functools.partial(_has_base, base))
        return is_known

    async def digest(self, base: bytes) -> bytes:
        """Digest all answers under a base; empty if there are none."""
        digest: bytes = await self._store.execute_async(functools.partial(_digest_answers, base))
        return digest

    async def recall(
        self, keys: Sequence[bytes], run: int = 0, *, is_lasting: bool = False
    ) -> dict[bytes, str]:
        """Return the answers that the journal holds, by key; no damaged ones.

        With ``refresh``, only those that the run itself has written, but for what is lasting: what
        a person said is not asked again.
        """
        refresh = self.refresh and not is_lasting
        if not keys or (refresh and not run):
            return {}
        find = functools.partial(find_entries, keys=keys, run=run if refresh else None)
        answers: dict[bytes, str] = await self._store.execute_async(find)
        return answers

    async def take_back(self, keys: Sequence[bytes]) -> None:
        """Delete what a person said in the place of findings, by key."""
        await self._store.execute_async(functools.partial(_delete_keys, keys))

    async def find_repaired(self, keys: Sequence[bytes]) -> set[bytes]:
        """Find the answers among these that took a repair turn."""
        if not keys:
            return set()
        repaired: set[bytes] = await self._store.execute_async(
            functools.partial(find_repaired, keys)
        )
        return repaired

    async def recall_failures(
        self, keys: Sequence[bytes], seconds: float
    ) -> dict[bytes, RememberedFailure]:
        """Return the failures that are remembered, by key, if they are not older; see ``recall``.

        With ``refresh`` there are none.
        """
        if not keys or self.refresh:
            return {}
        failures: dict[bytes, RememberedFailure] = await self._store.execute_async(
            functools.partial(find_failures, keys, seconds)
        )
        return failures

    async def remember_failures(self, failures: Sequence[FailureEntry], run: int) -> None:
        """Make failures durable.

        Raises:
            JournalError: they could not be written.
        """
        await self._store.execute_async(functools.partial(write_failures, failures, run))

    async def mark(self, base: bytes, writer: int) -> tuple[int, int]:
        """Return a mark of the file's state.

        It changes when others than ``writer`` have written answers with this base, or another
        process has written anything.
        """
        mark: tuple[int, int] = await self._store.execute_async(
            functools.partial(_read_mark, self._store, base, writer)
        )
        return mark

    async def keep(self, entries: Sequence[Entry], run: int, writer: int = 0) -> None:
        """Make answers durable; those of several agents are committed together.

        Raises:
            JournalError: they could not be written.
        """
        await self._store.keep(entries, run, writer)

    def take_warnings(self) -> list[JournalWarning]:
        """Return the warnings about the file since the last call."""
        notices, self._store.notices = self._store.notices, []
        return [JournalWarning(notice) for notice in notices]

    @property
    def claims(self) -> dict[bytes, asyncio.Future[None]]:
        """The keys that are being asked now, by runs of this process or of another one."""
        return self._store.claims

    async def claim(self, keys: Collection[bytes]) -> Claim:
        """Claim keys that no run of this process has claimed; see ``Claims.take``.

        With ``refresh`` the claims of other processes are not heeded: all is asked again anyway.
        """
        return await self._store.claimed.take(keys, yields=not self.refresh)

    def release(self, claim: Claim, keys: Collection[bytes]) -> None:
        """Release some keys of a claim."""
        self._store.claimed.release(claim, keys)

    def end_claim(self, claim: Claim) -> None:
        """End a claim: the answers are there, or nobody asks for them any more."""
        self._store.claimed.end(claim)


# Work on the database


class MadeAnswer(NamedTuple):
    """When an answer was made, in seconds since 1970, and by which run.

    Attributes:
        began: when the run began.
        verb: what it was.
    """

    run: int
    made: float
    began: float | None
    verb: str | None


def _find_made(key: bytes, database: sqlite3.Connection) -> MadeAnswer | None:
    query = "SELECT run, made, began, verb FROM entries LEFT JOIN runs USING (run) WHERE key = ?"
    row = database.execute(query, (key,)).fetchone()
    return None if row is None else MadeAnswer(*row)


def _fetch_all(query: str, database: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return database.execute(query).fetchall()


def _delete_entries(
    where: str, values: Sequence[float], database: sqlite3.Connection, *, corrections: bool
) -> int:
    """Delete entries and the bases that are then unused; return the number of entries."""
    with transaction(database):
        of_entries = f"DELETE FROM entries WHERE {where}"  # noqa: S608
        if not corrections:
            of_entries += " AND kind != 'correction'"
        deleted = database.execute(of_entries, values).rowcount
        delete_failures(database, where, values)
        remove_unused(database)
    database.execute("VACUUM")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return deleted


def _delete_keys(keys: Sequence[bytes], database: sqlite3.Connection) -> None:
    with flush_to_disk(database), transaction(database):
        database.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key in keys])


def _add_damage(path: Path, problems: list[str], database: sqlite3.Connection) -> None:
    try:
        problems.extend(find_damage(database))
    except sqlite3.DatabaseError as error:
        if not is_damaged(error):
            raise
        problems.append(f"The journal {path} is damaged ({error}). The next run sets it aside.")


def _begin_run(record: RunRecord, database: sqlite3.Connection) -> int:
    """Write that a run has begun, and that this process lives."""
    with transaction(database):
        write_beat(database, record.process)
        remove_dead(database, record.process)
        return record.write(database, None)


def _write_base(
    record: RunRecord,
    run: int,
    base: bytes,
    readings: set[tuple[bytes, str]],
    origins: set[tuple[bytes, bytes]],
    database: sqlite3.Connection,
) -> None:
    with transaction(database):
        record.write(database, run, [base])
        record.write_origins(database, readings, _without(find_forgotten(database, run), origins))


def _write_origins(
    origins: Sequence[tuple[bytes, bytes]], run: int, database: sqlite3.Connection
) -> None:
    with transaction(database):
        rows = _without(find_forgotten(database, run), origins)
        database.executemany("INSERT OR IGNORE INTO origins VALUES (?, ?)", rows)


def _without(
    forgotten: set[bytes], origins: Iterable[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    """Leave out what was forgotten while the run was under way."""
    return [pair for pair in origins if pair[0] not in forgotten]


def _end_run(
    record: RunRecord | None, run: int, values: Sequence[Any], database: sqlite3.Connection
) -> None:
    with transaction(database):
        if record is not None:
            record.write(database, run)
            database.execute("DELETE FROM running WHERE run = ?", (run,))
            database.execute("DELETE FROM forgotten WHERE run = ?", (run,))
            others = "SELECT 1 FROM running WHERE process = ?"
            if database.execute(others, (record.process,)).fetchone() is None:
                remove_process(database, record.process)
        database.execute(
            "UPDATE runs SET ended=?, status=?, calls=?, tokens=?, money=?, recalled=? WHERE run=?",
            values,
        )


def _has_base(base: bytes, database: sqlite3.Connection) -> bool:
    row = database.execute("SELECT 1 FROM bases WHERE base = ?", (base,)).fetchone()
    return row is not None


def _digest_answers(base: bytes, database: sqlite3.Connection) -> bytes:
    if not _has_base(base, database):
        return b""  # most often: all answers need not be looked through
    query = "SELECT key, checked FROM entries WHERE base = ? ORDER BY key"
    answers = [
        key + checked.to_bytes(4, "big") for key, checked in database.execute(query, (base,))
    ]
    return fingerprint(*answers) if answers else b""


def _read_mark(
    store: Store, base: bytes, writer: int, database: sqlite3.Connection
) -> tuple[int, int]:
    others = store.commits[base] - store.own[base, writer]
    return int(database.execute("PRAGMA data_version").fetchone()[0]), others


# Arguments and results


def _seconds(older_than: object) -> float:
    """Convert an age, a timedelta or days, to seconds.

    Raises:
        UsageError: it is neither.
    """
    days: Any = older_than
    if isinstance(older_than, timedelta):
        days = older_than / timedelta(days=1)
    elif isinstance(older_than, np.timedelta64):
        days = older_than / np.timedelta64(1, "D")
    elif isinstance(older_than, bool) or not isinstance(older_than, Real):
        days = math.nan
    if not days >= 0:
        given = show_refused(older_than)
        raise UsageError(f"prune(older_than=) takes a timedelta or days, 0 or more, not {given}.")
    return float(min(days, MOST_DAYS)) * 86_400


def _check_keep(keep: object) -> int:
    if isinstance(keep, bool | np.timedelta64) or not isinstance(keep, Integral) or int(keep) < 0:
        raise UsageError(
            f"prune(keep=) takes a whole number of runs, 0 or more, not {show_refused(keep)}."
        )
    return min(int(keep), sys.maxsize)


def _read_frame(data: Any) -> pd.DataFrame:
    """Return the rows that are to be forgotten, of whatever holds rows.

    Raises:
        UsageError: it holds none, or has no columns.
    """
    from pandas_amr._units.frames import as_frame  # noqa: PLC0415 (it loads pandas and Arrow)

    try:
        frame = as_frame(data)
    except UsageError as error:
        advice = " Labels go to where=." if isinstance(data, Mapping) else ""
        raise UsageError(f"{error}{advice}") from None
    if not len(frame.columns):
        raise UsageError("forget() takes a frame of rows with columns, and this one has none.")
    return frame


def _warn_of_left(path: Path, forgotten: Forgotten) -> None:
    """Warn of what may be left of the rows."""
    if forgotten.untraced:
        warn_caller(
            JournalWarning(
                f"The journal {path} has {forgotten.untraced} answers of an earlier version, which "
                "do not say which rows they are of. They are left. forget(where={'before': ...}) "
                "or prune() removes them."
            )
        )
    if forgotten.uncompared:
        columns = ", ".join(map(repr, forgotten.uncompared[0]))
        warn_caller(
            JournalWarning(
                f"The journal {path} has answers about rows of which the frame has a part of the "
                f"columns only, such as {columns}. What was found of these rows so is left: give "
                "the rows with all columns that were read."
            )
        )


def _frame(rows: Iterable[tuple[Any, ...]], names: Sequence[str]) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415 (a journal can be used without a frame)

    frame = pd.DataFrame(list(rows), columns=list(names))
    for name in TIME_COLUMNS:
        if name in frame.columns:
            frame[name] = pd.to_datetime(frame[name].astype("float64"), unit="s", utc=True)
    return frame


def open_journal(given: object, *, by_default: bool) -> Journal | None:
    """Return the journal that ``journal=`` means.

    Args:
        given: a journal, a path, False for none, True or None for the one that the environment
            names, else the default one.
        by_default: whether None means the default one, and not none.

    Raises:
        UsageError: it is none of these.
        JournalError: the file cannot be used. If nobody asked for the default one, that is only a
            warning.
    """
    match given:
        case Journal():
            return given
        case str() if suggest_switch(given):
            raise UsageError(
                f"journal={given!r} would be a file of that name.{suggest_switch(given)} "
                f"For the file: journal='./{given}'."
            )
        case str() | Path():
            return Journal(given)
        case False:
            return None
        case True | None:
            return _default_journal(is_required=given is True, by_default=by_default)
    shown = show_refused(given)
    raise UsageError(f"journal= takes a path, amr.Journal(path), True or False, not {shown}.")


def suggest_switch(text: str, argument: str = "journal") -> str:
    """Suggest True or False for a text that is a word for one of them, and not a path."""
    word = text.strip().casefold()
    if word in OFF_WORDS:
        return f" For no {argument}: {argument}=False."
    return f" For the default one: {argument}=True." if word in ON_WORDS else ""


def _default_journal(*, is_required: bool, by_default: bool) -> Journal | None:
    named = os.environ.get("AMR_JOURNAL", "")
    if named.lower() in OFF:
        return None
    if suggest_switch(named):
        raise UsageError(
            f"AMR_JOURNAL={named} would be a file of that name. It takes a path, or 'off' for no "
            f"journal. For the file: ./{named}."
        )
    if named:
        return Journal(_resolve_once(named))
    if not (is_required or by_default):
        return None
    try:
        return Journal(cache_folder() / DEFAULT_NAME)
    except (JournalError, OSError) as error:
        if is_required:
            raise JournalError(str(error)) from None
        warn_caller(JournalWarning(f"This run keeps no journal. {error}"))
        return None


@functools.cache
def _resolve_once(named: str) -> Path:
    """Return the file that a path in the environment named at its first use."""
    return absolute_path(named)


def about_words(about: Mapping[str, Any]) -> str:
    """Write what a fingerprint stands for: equal questions give equal texts."""
    return canonical_json(about)
