"""Processes: a Python of one's own, and those that the kernel lists."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path


def run_python(script: str, *arguments: object, **environment: object) -> subprocess.CompletedProcess[str]:
    """A script in a Python of its own, to its end; in this environment but for what is named."""
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {name: str(value) for name, value in environment.items()},
    )


def sandbox_processes(of: int | None = None) -> set[int]:
    """The processes of sandboxes that a process began, this one unless told, itself or through others."""
    own, parents = of or os.getpid(), {}
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        state, parent = _stat(pid)
        if state:
            parents[pid] = parent

    def below(pid: int) -> bool:
        while pid in parents:
            pid = parents[pid]
            if pid == own:
                return True
        return False

    return {pid for pid in parents if below(pid) and _is_sandbox(pid)}


def alive(pids: Collection[int]) -> set[int]:
    """Those that have not ended; a zombie has."""
    return {pid for pid in pids if _stat(pid)[0] not in {"", "Z"}}


def _stat(pid: int) -> tuple[str, int]:
    """The state of a process and its parent; nothing where it has gone."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace").rpartition(")")[2].split()[:2]
    except OSError:
        return "", 0
    return state, int(parent)


def _is_sandbox(pid: int) -> bool:
    try:
        return b"sandbox.guest.zygote" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
