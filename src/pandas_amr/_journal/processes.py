"""The processes at work on a journal: each says that it lives, and a dead one's claims are free."""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

BEAT_S = 1.0
DEAD_S = 6.0  # without a beat
STOPPED_S = 60.0  # the same, if the kernel has the process: it may wait for a lock on the file
ENDED_STATES = frozenset({"Z", "X", "x"})  # of a process that was killed and not yet waited for


def describe_process(pid: int) -> str:
    """Name a process of this system so that no other one has the name; empty if it cannot be.

    A number alone does not: it is used again, and every container counts its own.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        namespace = Path("/proc/self/ns/pid").readlink()
    except OSError:  # not Linux
        return ""
    return f"{boot} {namespace} {pid} {_start_of(pid)}"


def _start_of(pid: int) -> str:
    """Return when a process began, in the kernel's words; empty if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return ""
    state, *rest = fields.rpartition(")")[2].split()
    return "" if state in ENDED_STATES else rest[18]


@functools.cache
def _place_of(pid: int) -> str:
    """Return the part of the names of processes that those share which can see each other."""
    return describe_process(pid).rpartition(" ")[0].rpartition(" ")[0]


def is_alive(born: str, beat: float) -> bool:
    """Tell whether a process lives: the kernel says so where it can, and the last beat anywhere.

    Args:
        born: its name.
        beat: when it last said that it lives.
    """
    silent_s = abs(time.time() - beat)  # a clock that was set back makes no beat last longer
    place, _, start = born.rpartition(" ")
    place, _, pid = place.rpartition(" ")
    if not place or place != _place_of(os.getpid()):
        return silent_s <= DEAD_S
    return silent_s <= STOPPED_S and _start_of(int(pid)) == start


# Work on the database


def write_beat(connection: sqlite3.Connection, process: bytes) -> None:
    """Write that this process lives."""
    connection.execute(
        "INSERT INTO processes VALUES (?, ?, ?) "
        "ON CONFLICT (process) DO UPDATE SET beat = excluded.beat",
        (process, describe_process(os.getpid()), time.time()),
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
