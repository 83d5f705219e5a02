"""Processes as the kernel lists them."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path


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
        return b"sandbox.zygote" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
