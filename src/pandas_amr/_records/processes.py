"""Which process this is, and whether another one of this machine still lives."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

ENDED_STATES = frozenset({"Z", "X", "x"})  # a zombie's parent has not asked for its status yet
STATE_FIELD, START_FIELD = 0, 19  # of /proc/PID/stat, after the name


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, so that another one that gets its number later is told apart.

    Attributes:
        space: in which its number means something: the boot of the machine and the PID namespace,
            which each container has of its own; empty if the system does not say.
        pid: its number.
        started: when it was started, as the kernel counts; 0 if that is unknown.
    """

    space: str
    pid: int
    started: int

    def has_ended(self) -> bool:
        """Tell whether it has surely ended; False if it may live."""
        if self.is_of_earlier_boot:
            return True
        own = this_process()
        if not self.space or not own.space:
            return False
        if own.space != self.space:  # another container's: its numbers mean nothing here
            return False
        return _read_start(self.pid) != self.started

    @property
    def is_of_earlier_boot(self) -> bool:
        """Whether the machine has surely been started again since: nothing of it is left."""
        own = this_process()
        if not self.space or not own.space:
            return False
        return own.space.partition("/")[0] != self.space.partition("/")[0]


def this_process() -> ProcessId:
    """Give this process, which may be a fork of another."""
    return _identify(os.getpid())


@functools.cache
def _identify(pid: int) -> ProcessId:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        space = f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return ProcessId("", pid, 0)
    return ProcessId(space, pid, _read_start(pid) or 0)


def _read_start(pid: int) -> int | None:
    """Read when a process was started; None if there is none of this number, or it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    if fields[STATE_FIELD] in ENDED_STATES:
        return None
    return int(fields[START_FIELD])
