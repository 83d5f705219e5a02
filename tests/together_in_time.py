"""Processes in a time of their own: throttles of one loop whose clock jumps to whatever is due next.

Each throttle stands for a process; they share a lease in memory. Nothing here depends on how fast the machine is.
"""

from __future__ import annotations

import asyncio
import selectors
from dataclasses import dataclass, field

from pandas_amr.models.base import RateLimits
from pandas_amr.models.lease import PaceReport, Peer
from pandas_amr.models.throttle.rates import Bucket
from pandas_amr.models.throttle.sharing import Sharing
from pandas_amr.models.throttle.throttle import Throttle

START_S = 1000.0


class _Selector(selectors.DefaultSelector):
    """Waits for nothing but the thread that exchanges leases; otherwise the time passes at once."""

    def __init__(self):
        super().__init__()
        self.now = START_S
        self.sharings = []

    def select(self, timeout=None):
        if timeout == 0:
            return super().select(0)
        if any(sharing._exchange is not None and not sharing._exchange.done() for sharing in self.sharings):
            return super().select()
        events = super().select(0)
        if not events and timeout:
            self.now += timeout
        return events


class MemoryLease:
    """A lease as a driver of a cluster may serve it: what each process said last, in a dict."""

    def __init__(self, reports, name):
        self.reports: dict[str, PaceReport] = reports
        self.name = name

    def exchange(self, report):
        self.reports[self.name] = report
        return [Peer(name, True, other) for name, other in self.reports.items() if name != self.name]

    def leave(self, report):
        del self.reports[self.name]


@dataclass
class Provider:
    """A server with a limit, and what it has seen."""

    clock: object
    rpm: float
    latency_s: float = 0.05
    headers: bool = False
    retry_after_s: float | None = None
    answered: int = 0
    refused: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    times: list = field(default_factory=list)

    def __post_init__(self):
        rate = self.rpm / 60
        self.bucket = Bucket(rate, max(1.0, rate), max(1.0, rate), self.clock())

    async def answer(self):
        """Answer one request: whether it was admitted, and the limits in the headers."""
        self.times.append(self.clock())
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        self.bucket.refill(self.clock())
        is_admitted = self.bucket.level >= 1
        if is_admitted:
            self.bucket.level -= 1
            await asyncio.sleep(self.latency_s)
            self.answered += 1
        else:
            self.refused += 1
            await asyncio.sleep(0.001)
        self.in_flight -= 1
        self.bucket.refill(self.clock())
        left = float(max(0, round(self.bucket.level)))
        return is_admitted, RateLimits(self.bucket.rate, left) if self.headers else None


class Process:
    """One process: a throttle, and so many calls through it."""

    def __init__(self, lease, clock, **limits):
        self.throttle = Throttle(clock=clock)
        self.throttle.set_limits(limits.get("max_parallelism"), limits.get("rpm"), limits.get("tpm"))
        self.throttle.gate.is_open = False
        if lease is not None:
            self.throttle.share(lease)
        self.answered = 0

    async def run(self, provider, calls):
        await asyncio.gather(*(self._call(provider) for _ in range(calls)))

    async def _call(self, provider):
        while True:
            ticket = await self.throttle.acquire(1.0)
            is_admitted, limits = await provider.answer()
            if is_admitted:
                self.throttle.gate.open()
                self.throttle.record_answer(ticket, tokens=1.0, limits=limits)
                self.answered += 1
                return
            self.throttle.record_refusal(ticket, retry_after_s=provider.retry_after_s, limits=limits)


def in_time(scenario):
    """Carry out a scenario: a coroutine function of a clock, a maker of processes, and a maker of the provider."""
    selector = _Selector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now
    reports: dict[str, PaceReport] = {}

    def clock():
        return selector.now

    def process(number, *, is_shared=True, **limits):
        made = Process(MemoryLease(reports, f"process {number}") if is_shared else None, clock, **limits)
        if is_shared:
            selector.sharings.append(made.throttle.sharing)
        return made

    def provider(rpm, **options):
        return Provider(clock, rpm, **options)

    try:
        return loop.run_until_complete(scenario(clock, process, provider))
    finally:
        loop.close()


assert Sharing
