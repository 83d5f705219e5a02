"""Put sessions into control groups (cgroup v2), which also count what the kernel holds for them.

The limits of a process count its own memory only. A group also counts page tables, socket buffers
and cached names of files. To find out whether this process may make groups, one is made: in its own
group, or beside it.
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
        """Find where groups can be made, by making one; return None if nowhere."""
        for folder in _candidates(proc):
            groups = cls(folder)
            groups.sweep()
            try:
                groups.remove(groups._make(1 << 30, 1))
            except OSError:
                continue
            return groups
        return None

    def enter(self, process: int, *, memory: int, tasks: int) -> Path:
        """Put a process into a new group.

        Args:
            process: a pidfd.
            memory: bytes that the group may hold.
            tasks: processes and threads that may be in it.

        Returns:
            The folder of the group.

        Raises:
            OSError: the process cannot be put there.
        """
        group = self._make(memory, tasks)
        try:
            (group / "cgroup.procs").write_text(str(_pid_of(process)), encoding="ascii")
        except OSError:
            self.remove(group)
            raise
        return group

    def remove(self, group: Path) -> None:
        """Remove a group. One that still has processes is left to a later ``sweep``."""
        with contextlib.suppress(OSError):
            group.rmdir()

    def sweep(self) -> None:
        """Remove the groups that a killed host left behind."""
        for group in self._folder.glob(f"{PREFIX}-*-*"):
            owner = group.name.split("-")[2]
            if owner.isdigit() and not Path(f"/proc/{owner}").exists():
                self.remove(group)

    def _make(self, memory: int, tasks: int) -> Path:
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
    """Yield the group of this process and its parent, if groups in them can be limited."""
    root = _find_root(proc)
    own = next((line[3:] for line in _read_lines(proc / "cgroup") if line.startswith("0::/")), None)
    if root is None or own is None:
        return
    group = root / own.lstrip("/")
    for folder in (group, group.parent):
        controllers = " ".join(_read_lines(folder / CONTROL)).split()
        if folder.is_relative_to(root) and set(CONTROLLERS) <= set(controllers):
            yield folder


def _find_root(proc: Path) -> Path | None:
    """Return where the whole tree of groups is mounted."""
    for line in _read_lines(proc / "mountinfo"):
        fields, _, rest = line.partition(" - ")
        if rest.startswith("cgroup2 ") and fields.split()[3] == "/":
            return Path(fields.split()[4])
    return None


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _pid_of(process: int) -> int:
    """Return the number, in this pid namespace, of the process behind a pidfd."""
    for line in _read_lines(Path(f"/proc/self/fdinfo/{process}")):
        name, _, value = line.partition(":")
        if name == "Pid" and int(value) > 0:
            return int(value)
    raise ProcessLookupError("the process has no number here")
