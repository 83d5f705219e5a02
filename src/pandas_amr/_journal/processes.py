"""The processes at work on a journal: each says that it lives, and a dead one's claims are free."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pandas_amr._records.processes import ProcessId, this_process

if TYPE_CHECKING:
    import sqlite3

BEAT_S = 1.0
DEAD_S = 6.0  # without a beat
STOPPED_S = 60.0  # the same, if the kernel has the process: it may wait for a lock on the file


def describe_process() -> str:
    """Write which process this is; empty if the system does not tell processes apart."""
    own = this_process()
    return f"{own.space} {own.pid} {own.started}" if own.space else ""


def is_alive(born: str, beat: float) -> bool:
    """Tell whether a process lives: the kernel says so where it can, and the last beat anywhere.

    Args:
        born: which process it is.
        beat: when it last said that it lives.
    """
    silent_s = abs(time.time() - beat)  # a clock that was set back makes no beat last longer
    if not born:
        return silent_s <= DEAD_S
    space, pid, started = born.rsplit(" ", 2)
    if ProcessId(space, int(pid), int(started)).has_ended():
        return False
    return silent_s <= (STOPPED_S if space == this_process().space else DEAD_S)


# Work on the database


def write_beat(connection: sqlite3.Connection, process: bytes) -> None:
    """Write that this process lives."""
    connection.execute(
        "INSERT INTO processes VALUES (?, ?, ?) "
        "ON CONFLICT (process) DO UPDATE SET beat = excluded.beat",
        (process, describe_process(), time.time()),
    )


def remove_dead(connection: sqlite3.Connection, process: bytes) -> None:
    """Remove what processes that have died have left behind; not this process."""
    others = connection.execute("SELECT * FROM processes WHERE process != ?", (process,)).fetchall()
    for other, born, beat in others:
        if not is_alive(born, beat):
            remove_process(connection, other)
    # A file that was put aside in mid-run may have lost the rows of processes.
    known = "SELECT process FROM processes"
    connection.execute(f"DELETE FROM running WHERE process NOT IN ({known})")  # noqa: S608
    connection.execute(f"DELETE FROM claims WHERE process NOT IN ({known})")  # noqa: S608
    connection.execute("DELETE FROM forgotten WHERE run NOT IN (SELECT run FROM running)")


def remove_process(connection: sqlite3.Connection, process: bytes) -> None:
    """Remove what says that a process is at work."""
    for table in ("claims", "running", "processes"):
        connection.execute(f"DELETE FROM {table} WHERE process = ?", (process,))  # noqa: S608
