"""Control groups (cgroup v2) for sessions: what the kernel holds for one counts as its memory.

Limits of a process count its own memory only. A group counts page tables, buffers of sockets and names that were looked
up, too. Whether this process may make groups is found out by making one: in its own group, or beside it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "pandas-amr"
CONTROLLERS = ("memory", "pids")
CONTROL = "cgroup.subtree_control"


class SessionGroups:
    """A folder of control groups in which this process may make more.

    Args:
        folder: the group above those of the sessions.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def find(cls, proc: Path = Path("/proc/self")) -> SessionGroups | None:
        """Find where groups can be made, by making one; None where they cannot."""
        for folder in _candidates(proc):
            groups = cls(folder)
            groups.sweep()
            try:
                groups.remove(groups._made(1 << 30, 1))
            except OSError:
                continue
            return groups
        return None

    def enter(self, process: int, *, memory: int, tasks: int) -> Path:
        """Put a process into a group of its own.

        Args:
            process: a pidfd.
            memory: bytes that the group may hold.
            tasks: processes and threads that may be in it.

        Raises:
            OSError: it cannot be put there.
        """
        group = self._made(memory, tasks)
        try:
            (group / "cgroup.procs").write_text(str(_pid_of(process)), encoding="ascii")
        except OSError:
            self.remove(group)
            raise
        return group

    def remove(self, group: Path) -> None:
        """Remove a group whose processes have ended; one that still has some is left to a later sweep."""
        with contextlib.suppress(OSError):
            group.rmdir()

    def sweep(self) -> None:
        """Remove the groups of processes that were killed before they could do so."""
        for group in self._folder.glob(f"{PREFIX}-*-*"):
            owner = group.name.split("-")[2]
            if owner.isdigit() and not Path(f"/proc/{owner}").exists():
                self.remove(group)

    def _made(self, memory: int, tasks: int) -> Path:
        group = self._folder / f"{PREFIX}-{os.getpid()}-{secrets.token_hex(4)}"
        group.mkdir()
        try:
            (group / "memory.max").write_text(str(memory), encoding="ascii")
            (group / "pids.max").write_text(str(tasks), encoding="ascii")
        except OSError:
            self.remove(group)
            raise
        return group


def _candidates(proc: Path) -> Iterator[Path]:
    """The group that this process is in, and the one above it, where groups below them are limited."""
    mounted = _mounted(proc)
    own = next((line[3:] for line in _lines(proc / "cgroup") if line.startswith("0::/")), None)
    if mounted is None or own is None:
        return
    folder = mounted / own.lstrip("/")
    for one in (folder, folder.parent):
        if one.is_relative_to(mounted) and set(CONTROLLERS) <= set(
            " ".join(_lines(one / CONTROL)).split()
        ):
            yield one


def _mounted(proc: Path) -> Path | None:
    """Where the tree of groups is mounted whole."""
    for line in _lines(proc / "mountinfo"):
        fields, _, rest = line.partition(" - ")
        if rest.startswith("cgroup2 ") and fields.split()[3] == "/":
            return Path(fields.split()[4])
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _pid_of(process: int) -> int:
    """The number here of the process behind a pidfd."""
    for line in _lines(Path(f"/proc/self/fdinfo/{process}")):
        name, _, value = line.partition(":")
        if name == "Pid" and int(value) > 0:
            return int(value)
    raise ProcessLookupError("the process has no number here")
