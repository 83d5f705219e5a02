"""The file of a lease: one small SQLite database that processes of one machine write in turn.

It holds numbers about requests, and nothing that was asked or answered. What it says of limits may
be lost at any time: it is about processes that live now. What was spent of a budget is kept.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pandas_amr._journal.database_file import (
    FILE_ENDS,
    create_private,
    is_damaged,
    is_file,
    transaction,
)
from pandas_amr.models.lease import LeaseError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Value = TypeVar("Value")

BUSY_S = 2.0
BUSY_STEP_S = (0.001, 0.004)
PAGES_IN_LOG = 100
SCHEMA = (
    """CREATE TABLE IF NOT EXISTS members (
        name TEXT PRIMARY KEY, space TEXT NOT NULL, pid INTEGER NOT NULL, started INTEGER NOT NULL,
        beat REAL NOT NULL, has_left INTEGER NOT NULL, state TEXT NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS spent (
        calls REAL NOT NULL, tokens REAL NOT NULL, money REAL NOT NULL
    )""",
)


class LeaseBusy(Exception):
    """Other processes write the file; it can be used again soon."""


@dataclass(eq=False, slots=True)
class LeaseFile:
    """The file of one lease in this process.

    No connection is open while the process forks: a child that inherits one would let SQLite take
    the parent's locks for its own (https://www.sqlite.org/howtocorrupt.html, 2.6).

    Attributes:
        path: where it is; its folder exists.
        is_kept: whether its content must survive a loss of power, and damage must be told.
    """

    path: Path
    is_kept: bool
    _database: sqlite3.Connection | None = None
    _inode: int = 0

    def write(self, work: Callable[[sqlite3.Connection], Value]) -> Value:
        """Carry out work in one transaction, and wait for other processes that write.

        Raises:
            LeaseBusy: they take too long.
            LeaseError: the file cannot be used; the text says why, and what to do.
        """
        return self._attempt(self._write, work)

    def read(self, work: Callable[[sqlite3.Connection], Value]) -> Value:
        """Carry out work that only reads: it waits for no process that writes.

        Raises:
            LeaseBusy: the file is being made.
            LeaseError: the file cannot be used; the text says why, and what to do.
        """
        return self._attempt(self._read, work)

    def close(self) -> None:
        """Close the connection; it is opened again at the next use."""
        with _in_use:
            _open.discard(self)
            if self._database is not None:
                self._database.close()
                self._database = None

    def _attempt(
        self,
        carry_out: Callable[[Callable[[sqlite3.Connection], Value]], Value],
        work: Callable[[sqlite3.Connection], Value],
    ) -> Value:
        """Carry out work, again if the file is in use.

        SQLite itself waits longer each time, up to 0.1 s: if many processes write, some would wait
        for seconds.
        """
        until = time.monotonic() + BUSY_S
        while True:
            try:
                with _in_use:
                    return carry_out(work)
            except (sqlite3.Error, OSError) as error:
                if isinstance(error, sqlite3.Error) and _is_busy(error):
                    if time.monotonic() > until:
                        raise LeaseBusy from None
                    time.sleep(random.uniform(*BUSY_STEP_S))  # noqa: S311 (no secret)
                    continue
                self.close()
                if self._may_be_made_anew(error):
                    remove_lease(self.path)
                    continue
                raise LeaseError(_describe_lease_error(self.path, error)) from None

    def _may_be_made_anew(self, error: Exception) -> bool:
        return not self.is_kept and isinstance(error, sqlite3.Error) and is_damaged(error)

    def _write(self, work: Callable[[sqlite3.Connection], Value]) -> Value:
        database = self._connect()
        with transaction(database):
            return work(database)

    def _read(self, work: Callable[[sqlite3.Connection], Value]) -> Value:
        return work(self._connect())

    def _connect(self) -> sqlite3.Connection:
        """Return the connection; a new one if the file was removed."""
        if self._database is not None and is_file(self.path, self._inode):
            return self._database
        self.close()
        create_private(self.path)
        self._inode = self.path.stat().st_ino
        database = sqlite3.connect(
            self.path, timeout=0.0, isolation_level=None, check_same_thread=False
        )
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute(f"PRAGMA synchronous={'FULL' if self.is_kept else 'OFF'}")
            database.execute(f"PRAGMA wal_autocheckpoint={PAGES_IN_LOG}")
            with transaction(database):
                for statement in SCHEMA:
                    database.execute(statement)
        except BaseException:
            database.close()
            raise
        self._database = database
        _open.add(self)
        return database


def remove_lease(path: Path) -> None:
    """Remove a file, and what SQLite has put beside it."""
    for end in FILE_ENDS:
        path.with_name(path.name + end).unlink(missing_ok=True)


def _is_busy(error: sqlite3.Error) -> bool:
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF == sqlite3.SQLITE_BUSY


def _describe_lease_error(path: Path, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return (
        f"{path} cannot be used ({reason}). Choices: AMR_LEASE=/a/local/folder, or AMR_LEASE=off."
    )


# The files of this process

# Held while a connection is in use, and while the process forks.
_in_use = threading.RLock()
_open: set[LeaseFile] = set()


def _close_before_fork() -> None:
    _in_use.acquire()
    for file in list(_open):
        file.close()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_close_before_fork, after_in_parent=_in_use.release, after_in_child=_in_use.release
    )
