"""The rate limits of a scripted provider."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from pandas_amr.models.throttle.rates import Bucket

# How full a bucket must be before a request is admitted. Tokens are counted only after the answer.
LEAST_LEVELS = {"requests": 1, "tokens": 0}


@dataclass
class RateLimit:
    """Limits on requests and tokens per minute, with a burst.

    Args:
        rpm: requests per minute.
        tpm: tokens per minute, input and output together.
        burst_s: how many seconds' worth may come at once.
        headers: whether answers state the limits in ``x-ratelimit-*`` headers.
        retry_after: whether a 429 says how long to wait.
    """

    rpm: float | None = None
    tpm: float | None = None
    burst_s: float = 1.0
    headers: bool = True
    retry_after: bool = False
    _buckets: dict[str, Bucket] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        now = time.monotonic()
        for kind, limit in (("requests", self.rpm), ("tokens", self.tpm)):
            if limit is not None:
                rate = limit / 60
                burst = max(1.0, rate * self.burst_s)
                self._buckets[kind] = Bucket(rate, burst, burst, now)

    def admits(self) -> bool:
        """Whether a request is within the limits now; if it is, count it."""
        now = time.monotonic()
        for bucket in self._buckets.values():
            bucket.refill(now)
        for kind, bucket in self._buckets.items():
            if bucket.level < LEAST_LEVELS[kind]:
                return False
        self.spend("requests", 1)
        return True

    def spend(self, kind: str, amount: float) -> None:
        """Count requests or tokens."""
        if kind in self._buckets:
            self._buckets[kind].level -= amount

    def response_headers(self, *, refused: bool) -> dict[str, str]:
        """Return the headers that state the limits."""
        headers: dict[str, str] = {}
        if self.headers:
            for kind, bucket in self._buckets.items():
                per_minute = bucket.rate * 60
                remaining = max(0.0, bucket.level)
                refill_s = max(0.0, (bucket.burst - bucket.level) / bucket.rate)
                headers[f"x-ratelimit-limit-{kind}"] = f"{per_minute:.0f}"
                headers[f"x-ratelimit-remaining-{kind}"] = f"{remaining:.0f}"
                headers[f"x-ratelimit-reset-{kind}"] = f"{refill_s * 1000:.0f}ms"
        if refused and self.retry_after:
            headers["retry-after-ms"] = f"{self._wait_s() * 1000:.0f}"
        return headers

    def _wait_s(self) -> float:
        """Return how long it takes until every bucket has enough for one request."""
        wait_s = 0.0
        for bucket in self._buckets.values():
            wait_s = max(wait_s, (1 - bucket.level) / bucket.rate)
        return wait_s
