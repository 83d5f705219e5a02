"""The window: how many requests may be in flight at once."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial

FIRST_WINDOW = 8.0
LARGEST_WINDOW = 4096.0
SHRINK = 0.5
SHRINK_SLOWLY = 0.1  # per answer: a tenth of the window per round, while the server queues
BACK_OFF = 0.9
SLOWER = 3.0  # times the least median latency: the server queues
FAST_S = 0.05  # a server that answers within this does not queue
LATENCIES = 32  # of which the median is taken: a heavy tail moves it little
DRIFT = 1.002  # per answer: the least latency so far need not be possible for ever
RAISE_CAP_AFTER_S = 5.0  # without a further lack of file descriptors


@dataclass(slots=True)
class ConcurrencyWindow:
    """How many requests may be in flight.

    Attributes:
        size: how many.
        cap: how many at most, since this process has too few file descriptors.
        is_doubling: whether each answer adds one, which doubles the window per round; otherwise a
            whole round adds one.
    """

    size: float = FIRST_WINDOW
    cap: float = LARGEST_WINDOW
    is_doubling: bool = True
    _capped_at: float = 0.0
    _latencies: deque[float] = field(default_factory=partial(deque, maxlen=LATENCIES))
    _least_median_s: float = 0.0

    def limit(self, max_parallelism: int | None) -> int:
        """Give the whole number of requests that may be in flight, within the user's limit."""
        limit = min(self.size, self.cap, max_parallelism or LARGEST_WINDOW)
        return max(1, int(limit))

    @property
    def last_latency_s(self) -> float:
        """How long the last answer took; 0 if there was none."""
        return self._latencies[-1] if self._latencies else 0.0

    def divide(self, parts: float) -> None:
        """Leave other processes their part, while all look for how many a server admits."""
        if self.is_doubling:
            self.size = max(1.0, self.size / parts)

    def grow(self, latency_s: float, in_flight: int, step: float = 1.0) -> None:
        """Grow after an answer, by ``step`` while it doubles; shrink if answers become slow."""
        if self._is_queueing(latency_s):
            self.is_doubling = False
            self.size = max(min(self.size, FIRST_WINDOW), self.size - SHRINK_SLOWLY)
        elif in_flight + 1 >= self.size / 2:  # only a window in use shows that more is needed
            more = step if self.is_doubling else 1 / self.size
            self.size = min(LARGEST_WINDOW, self.size + more)

    def _is_queueing(self, latency_s: float) -> bool:
        """Tell whether the server is slower than before: it puts requests into a queue."""
        latencies = self._latencies
        latencies.append(latency_s)
        median_s = sorted(latencies)[len(latencies) // 2]
        if self._least_median_s:
            self._least_median_s = min(median_s, self._least_median_s * DRIFT)
        else:
            self._least_median_s = median_s
        if len(latencies) < LATENCIES:
            return False
        return median_s > max(SLOWER * self._least_median_s, FAST_S)

    def open_for(self, requests: float) -> None:
        """Open the window for so many requests, which the headers of the server admit."""
        self.size = min(LARGEST_WINDOW, max(self.size, requests))

    def shrink_a_little(self) -> None:
        """Shrink after a 429 of a server whose headers set the rate."""
        self.size = max(1.0, self.size * BACK_OFF)

    def halve(self, in_flight: int) -> None:
        """Shrink after a 429: to half of what is used."""
        self.size = max(1.0, min(self.size, in_flight + 1.0) * SHRINK)

    def lower_cap(self, in_flight: int, now: float) -> None:
        """Cap the window at the requests in flight: this process cannot open more connections."""
        self._capped_at = now
        self.is_doubling = False
        self.cap = max(1.0, min(self.cap, float(in_flight)))
        self.size = min(self.size, self.cap)

    def raise_cap(self, now: float) -> None:
        """Raise the cap after an answer: other parts of the process may have closed files."""
        if now - self._capped_at > RAISE_CAP_AFTER_S:
            self.cap = min(LARGEST_WINDOW, self.cap + 1 / self.cap)
