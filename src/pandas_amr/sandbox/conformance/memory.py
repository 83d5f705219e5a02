"""Measure the memory of this process and of the kernel while something runs."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

INTERVAL_S = 0.02


@dataclass(frozen=True, slots=True)
class Levels:
    """Bytes before, at most in between, and after.

    Attributes:
        host: of this process.
        slab: of the kernel's slab.
    """

    host: tuple[int, int, int]
    slab: tuple[int, int, int]

    @property
    def host_taken(self) -> int:
        """By how much this process grew at most."""
        return self.host[1] - self.host[0]


class MemoryWatch:
    """Measures memory repeatedly, from a thread, while the ``with`` lasts.

    Args:
        on: whether it measures at all.

    Attributes:
        levels: the result, at the end; None if it was off, or there is no ``/proc``.
    """

    def __init__(self, *, on: bool = True) -> None:
        self._on = on
        self.levels: Levels | None = None
        self._stop = threading.Event()
        self._samples: list[tuple[int, int]] = []
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Self:
        before = _read_sample() if self._on else None
        if before is not None:
            self._samples.append(before)  # here: on a busy machine the thread begins late
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        if not self._thread.is_alive():
            return
        self._thread.join()
        host, slab = zip(*self._samples, strict=True)
        self.levels = Levels((host[0], max(host), host[-1]), (slab[0], max(slab), slab[-1]))

    def _sample(self) -> None:
        while True:
            is_last = self._stop.is_set()
            sample = _read_sample()
            if sample is not None:
                self._samples.append(sample)
            if is_last:
                return
            self._stop.wait(INTERVAL_S)


def _read_sample() -> tuple[int, int] | None:
    """Return the bytes of this process and of the kernel's slab; None if there is no ``/proc``."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("Slab:")), 0)
    return pages * os.sysconf("SC_PAGE_SIZE"), kilobytes << 10
