"""How much memory a process and the kernel hold while something goes on: before, at most, and after."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

EVERY_S = 0.02


@dataclass(frozen=True, slots=True)
class Levels:
    """Bytes before, at most in between, and after: of this process, and of the kernel's slab."""

    host: tuple[int, int, int]
    slab: tuple[int, int, int]

    @property
    def host_taken(self) -> int:
        """What this process took at most."""
        return self.host[1] - self.host[0]


class Watch:
    """Looks at memory all the time, from a thread, while the ``with`` lasts.

    Args:
        on: whether it looks at all.

    Attributes:
        levels: what was seen, at the end; None where there is no ``/proc``, or it did not look.
    """

    def __init__(self, *, on: bool = True) -> None:
        self._on = on
        self.levels: Levels | None = None
        self._ended = threading.Event()
        self._seen: list[tuple[int, int]] = []
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        if self._on and _levels() is not None:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        if not self._thread.is_alive():
            return
        self._thread.join()
        host, slab = zip(*self._seen, strict=True)
        self.levels = Levels((host[0], max(host), host[-1]), (slab[0], max(slab), slab[-1]))

    def _look(self) -> None:
        while True:
            ended = self._ended.is_set()
            level = _levels()
            if level is not None:
                self._seen.append(level)
            if ended:
                return
            self._ended.wait(EVERY_S)


def _levels() -> tuple[int, int] | None:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("Slab:")), 0)
    return pages * os.sysconf("SC_PAGE_SIZE"), kilobytes << 10
