"""Rates of requests and tokens: token buckets, and the rate that a server has admitted lately."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

HORIZON_S = 5.0  # over which admitted requests are counted


@dataclass(slots=True)
class Bucket:
    """A token bucket: ``rate`` per second, at most ``burst`` at once.

    More may be taken than is in it; ``level`` is then negative.
    """

    rate: float
    burst: float
    level: float
    at: float

    def refill(self, now: float) -> None:
        """Add what has come since the last refill."""
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now

    def scale(self, factor: float, now: float) -> None:
        """Change the rate from now on; what is in it stays, within the new burst."""
        self.refill(now)
        self.rate *= factor
        self.burst = max(1.0, self.burst * factor)
        self.level = min(self.level, self.burst)

    def wait_s(self, amount: float) -> float:
        """Give the seconds until ``amount`` may be taken.

        More than a burst may be taken once the bucket is full.
        """
        return max(0.0, min(amount, self.burst) - self.level) / self.rate


def bucket_per_minute(limit: float, now: float, *, share: float = 1.0) -> Bucket:
    """Make a full bucket for a share in a limit per minute, with a burst of one second."""
    rate = limit / 60 * share
    burst = max(1.0, rate)
    return Bucket(rate, burst, burst, now)


def update_from_headers(
    bucket: Bucket | None, rate: float, left: float | None, unknown: float, now: float
) -> Bucket:
    """Set a bucket to what the headers of an answer report.

    Args:
        bucket: the one so far; None makes one.
        rate: the limit per second.
        left: how much was left when the answer was sent; None if unknown.
        unknown: how much was sent after the request of this answer: the headers do not count it.
        now: the time.
    """
    level = max(1.0, rate) if left is None else left - unknown
    if bucket is None:
        return Bucket(rate, max(1.0, rate, left or 0.0), max(0.0, level), now)
    bucket.refill(now)
    bucket.rate = rate
    if left is not None:
        bucket.burst = max(bucket.burst, left, 1.0)
        bucket.level = level if level >= 0 else min(bucket.level, 0.0)
    return bucket


@dataclass(slots=True)
class AdmittedRate:
    """The rate at which a server has answered lately."""

    _answered_at: deque[float] = field(default_factory=deque)

    def record_answer(self, now: float) -> None:
        """Count an answer."""
        self._answered_at.append(now)
        while self._answered_at[0] < now - HORIZON_S:
            self._answered_at.popleft()

    def per_second(self, now: float) -> float:
        """Give the answers per second within the horizon; 0 if there were none."""
        recent = [at for at in self._answered_at if at > now - HORIZON_S]
        if not recent:
            return 0.0
        return len(recent) / max(1.0, now - recent[0])
