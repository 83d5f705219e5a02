"""The clock of waits, deadlines and durations: the system's, which a test can move on."""

from __future__ import annotations

import contextlib
import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator


class Clock:
    """Tells seconds as ``time.monotonic`` does, plus those that it was moved on."""

    def __init__(self) -> None:
        self._ahead_s = 0.0
        self._source: Callable[[], float] = time.monotonic
        self._loops: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()

    def now(self) -> float:
        """Seconds since some moment that stays the same."""
        return self._source() + self._ahead_s

    def wall(self) -> float:
        """Seconds since 1970: what other processes, and later ones, can compare with."""
        return time.time() + self._ahead_s

    def drive(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the timers of a loop go by this clock."""
        loop.time = self.now  # type: ignore[method-assign]
        self._loops.add(loop)

    def move_on(self, seconds: float) -> None:
        """Let so many seconds pass at once, from any thread: timers that are due by then fire."""
        self._ahead_s += seconds
        for loop in list(self._loops):
            # A loop that sleeps looks at its timers once it is woken.
            loop.call_soon_threadsafe(_wake)

    @contextlib.contextmanager
    def stand_still(self) -> Iterator[None]:
        """Let no time pass in the block but what the clock is moved on."""
        began = time.monotonic()
        self._source = lambda: began
        try:
            yield
        finally:
            self._source = time.monotonic


def _wake() -> None:
    """Do nothing."""


CLOCK = Clock()
