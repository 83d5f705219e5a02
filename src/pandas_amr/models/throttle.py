"""The throttle: as fast as a server lets us, and no faster. One per server, key and model for the whole process.

It stands at the HTTP call, below agents, reducers and retries. Three things hold a request back: a window over requests
in flight, which doubles while it can, then grows by one a round and halves when the server says 429 (additive
increase, multiplicative decrease: Chiu and Jain 1989; slow start: Jacobson 1988); buckets of requests and tokens a
minute, told or learned from ``x-ratelimit-*`` headers, or from the 429s themselves; and pauses that the server asks
for, or that a dead server makes necessary.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pandas_amr._tokens import learn, per_character
from pandas_amr.errors import ModelError, ModelUnavailable

if TYPE_CHECKING:
    from pandas_amr.models.base import LM, Limits, Model, Reply, Request
    from pandas_amr.models.lessons import Lessons

FIRST_WINDOW = 8.0
LARGEST_WINDOW = 4096.0
SHRINK = 0.5
SHRINK_SLOWLY = 0.1  # an answer: a tenth of the window a round, while the server queues
BACK_OFF = 0.9  # of the rate that was admitted, after a 429 that tells nothing
FIRST_GUESS = 1.0  # requests a second, where nothing was admitted yet
LEAST_GUESS = 0.05
GROWTH_PER_S = 0.05  # of a learned rate, while no 429 comes
SLOWER = 3.0  # times the least median latency: the server queues
FAST_S = 0.05  # a server that answers within this does not queue
LATENCIES = 32  # of which the median is taken: a heavy tail moves it little
DRIFT = 1.002  # an answer: what was the least once need not be for ever
HORIZON_S = 5.0  # over which admitted requests are counted
DEAD_AFTER = 5  # requests in a row that found no server
PROBE_FIRST_S = 0.5
PROBE_LONGEST_S = 10.0


@dataclass(slots=True)
class Bucket:
    """So much a second, with a burst; what is taken before it is there is owed."""

    rate: float
    burst: float
    level: float
    at: float

    def refill(self, now: float) -> None:
        """Let time fill it."""
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now

    def wait_s(self, amount: float) -> float:
        """Seconds until ``amount`` may be taken; what is more than a burst goes when the burst is full."""
        return max(0.0, min(amount, self.burst) - self.level) / self.rate


@dataclass(slots=True)
class Ticket:
    """A request under way: what it reserved and when."""

    began: float
    tokens: float
    probe: bool = False


@dataclass
class Throttle:
    """Admits requests to one server.

    Attributes:
        window: how many may be in flight.
        in_flight: how many are.
        requests: the bucket of requests, once it is told or learned.
        tokens: the bucket of tokens, likewise.
    """

    told_parallelism: int | None = None
    told_rpm: float | None = None
    told_tpm: float | None = None
    window: float = FIRST_WINDOW
    in_flight: int = 0
    _reserved: float = 0.0
    requests: Bucket | None = None
    tokens: Bucket | None = None
    _growing: bool = True
    _shrunk_at: float = 0.0
    _paused_until: float = 0.0
    _answered_at: float = 0.0
    _latencies: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES))
    _least_median: float = 0.0
    _admitted: deque[float] = field(default_factory=deque)
    _guessed: bool = False
    _dead_in_a_row: int = 0
    _dead_since: float | None = None
    _probe_wait_s: float = PROBE_FIRST_S
    _probing: bool = False
    _waiting: deque[tuple[asyncio.Future[None], float]] = field(default_factory=deque)
    _timer: asyncio.TimerHandle | None = None

    def tell(self, parallelism: int | None, rpm: float | None, tpm: float | None) -> None:
        """Take over limits that the user knows; what is None stays as it is."""
        now = time.monotonic()
        if parallelism is not None:
            self.told_parallelism = parallelism
        if rpm is not None and rpm != self.told_rpm:
            self.told_rpm, self.requests = rpm, Bucket(rpm / 60, max(1.0, rpm / 60), max(1.0, rpm / 60), now)
        if tpm is not None and tpm != self.told_tpm:
            self.told_tpm, self.tokens = tpm, Bucket(tpm / 60, max(1.0, tpm / 60), max(1.0, tpm / 60), now)

    def __repr__(self) -> str:
        rpm = f"{self.requests.rate * 60:.0f}" if self.requests else "unknown"
        tpm = f"{self.tokens.rate * 60:.0f}" if self.tokens else "unknown"
        return f"<Throttle window={self.window:.1f} in_flight={self.in_flight} rpm={rpm} tpm={tpm}>"

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        most = self.told_parallelism or LARGEST_WINDOW
        return max(1, int(min(self.window, most)))

    @property
    def silent_s(self) -> float:
        """Seconds since the server last answered anything."""
        return time.monotonic() - self._answered_at

    async def acquire(self, tokens: float) -> Ticket:
        """Wait for a place, in the order of asking, and reserve ``tokens``."""
        if self._waiting or self._delay_s(tokens) > 0:
            waiting = (asyncio.get_running_loop().create_future(), tokens)
            self._waiting.append(waiting)
            self._wake()
            try:
                await waiting[0]
            except asyncio.CancelledError:
                if waiting in self._waiting:
                    self._waiting.remove(waiting)
                elif not waiting[0].cancelled():  # it had its place already
                    self._give_back(tokens)
                self._wake()
                raise
        else:
            self._take(tokens)
        return Ticket(time.monotonic(), tokens, probe=self._dead_since is not None)

    def _take(self, tokens: float) -> None:
        self.in_flight += 1
        self._reserved += tokens
        self._probing = self._dead_since is not None
        if self.requests:
            self.requests.level -= 1
        if self.tokens:
            self.tokens.level -= tokens

    def _give_back(self, tokens: float) -> None:
        self.in_flight -= 1
        self._reserved -= tokens
        self._probing = False
        if self.requests:
            self.requests.level += 1
        if self.tokens:
            self.tokens.level += tokens

    def _delay_s(self, tokens: float) -> float:
        """Seconds until a request may go; infinity where only the end of another one can tell."""
        now = time.monotonic()
        if self.in_flight >= self.limit or (self._dead_since is not None and self._probing):
            return float("inf")
        waits = [self._paused_until - now]
        for bucket, amount in ((self.requests, 1.0), (self.tokens, tokens)):
            if bucket is not None:
                bucket.refill(now)
                waits.append(bucket.wait_s(amount))
        return max(0.0, *waits)

    def _wake(self) -> None:
        """Let go whoever may; come back when the next one may."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            place, tokens = self._waiting[0]
            delay = self._delay_s(tokens)
            if delay == float("inf"):
                return
            if delay > 0:
                self._timer = asyncio.get_running_loop().call_later(delay, self._wake)
                return
            self._waiting.popleft()
            if not place.cancelled():
                self._take(tokens)
                place.set_result(None)

    # -- what came of a request --------------------------------------------------------------------------------------

    def answered(self, ticket: Ticket, *, tokens: float, limits: Limits | None) -> None:
        """A request was answered; ``tokens`` is what it took, as far as known."""
        now = self._answered_at = time.monotonic()
        self._back(ticket)
        self._admitted.append(now)
        while self._admitted and self._admitted[0] < now - HORIZON_S:
            self._admitted.popleft()
        if self.tokens and tokens:
            self.tokens.level += ticket.tokens - tokens
        self._grow(now - ticket.began)
        if self._guessed and self.requests and now - self._shrunk_at > 1.0:
            self.requests.rate *= 1 + GROWTH_PER_S * min(1.0, 1 / max(1.0, self.requests.rate))
        if limits is not None:
            self._learn(limits, now)
        self._wake()

    def refused(self, ticket: Ticket, *, retry_after_s: float | None, limits: Limits | None) -> None:
        """The server said 429."""
        now = time.monotonic()
        self._back(ticket)
        if self.tokens:
            self.tokens.level += ticket.tokens
        if limits is not None:
            self._learn(limits, now)
        if ticket.began >= self._shrunk_at:  # one decrease a round: those sent before the last one knew nothing of it
            self._growing = False
            self._shrunk_at = now
            if limits is not None:
                self.window = max(1.0, self.window * BACK_OFF)  # the buckets know better than the window
            else:
                self.window = max(1.0, min(self.window, self.in_flight + 1.0) * SHRINK)
                self._guess(now)
        if retry_after_s is not None:
            self._paused_until = max(self._paused_until, now + retry_after_s)
        self._wake()

    def failed(self, ticket: Ticket, *, reached: bool) -> None:
        """No answer: an error of the server's, a time-out; or, where it was not ``reached``, no server at all."""
        self._back(ticket, alive=reached)
        if self.tokens:
            self.tokens.level += ticket.tokens
        if not reached:
            self._dead_in_a_row += 1
            if self._dead_in_a_row >= DEAD_AFTER:
                now = time.monotonic()
                self._dead_since = self._dead_since or now
                self._paused_until = max(self._paused_until, now + self._probe_wait_s)
                if ticket.probe:
                    self._probe_wait_s = min(PROBE_LONGEST_S, self._probe_wait_s * 2)
        self._wake()

    def dropped(self, ticket: Ticket) -> None:
        """The request was cancelled by its run."""
        self.in_flight -= 1
        self._reserved -= ticket.tokens
        self._probing = False
        self._wake()

    def _back(self, ticket: Ticket, *, alive: bool = True) -> None:
        self.in_flight -= 1
        self._reserved -= ticket.tokens
        if ticket.probe or alive:
            self._probing = False
        if alive:
            self._dead_in_a_row = 0
            self._dead_since = None
            self._probe_wait_s = PROBE_FIRST_S

    def _grow(self, latency_s: float) -> None:
        self._latencies.append(latency_s)
        median = sorted(self._latencies)[len(self._latencies) // 2]
        self._least_median = min(median, self._least_median * DRIFT) if self._least_median else median
        if median > max(SLOWER * self._least_median, FAST_S) and len(self._latencies) == LATENCIES:
            self._growing = False
            self.window = max(min(self.window, FIRST_WINDOW), self.window - SHRINK_SLOWLY)
        elif self.in_flight + 1 >= self.window / 2:  # only a window that is used says that a larger one is needed
            self.window = min(LARGEST_WINDOW, self.window + (1.0 if self._growing else 1 / self.window))

    def _learn(self, limits: Limits, now: float) -> None:
        """Take over what the server's headers say."""
        if limits.requests is not None and self.told_rpm is None:
            self.requests = _learned(self.requests, limits.requests, limits.requests_left, self.in_flight, now)
            self._guessed = False
        if limits.tokens is not None and self.told_tpm is None:
            self.tokens = _learned(self.tokens, limits.tokens, limits.tokens_left, self._reserved, now)

    def _guess(self, now: float) -> None:
        """Without headers, what was admitted lately is what the server admits."""
        if self.told_rpm is not None:
            return
        since = [at for at in self._admitted if at > now - HORIZON_S]
        rate = len(since) / max(1.0, now - since[0]) * BACK_OFF if since else FIRST_GUESS
        if self.requests is not None and self._guessed:
            rate = min(rate, self.requests.rate * BACK_OFF)
        rate = max(rate, LEAST_GUESS)
        self.requests = Bucket(rate, max(1.0, rate * 0.1), 0.0, now)
        self._guessed = True


def _learned(bucket: Bucket | None, rate: float, left: float | None, owed: float, now: float) -> Bucket:
    """A bucket as the server describes it: its rate, and no more in it than is left there."""
    there = rate if left is None else max(0.0, left - owed)
    if bucket is None or bucket.rate != rate:
        return Bucket(rate, max(1.0, rate), there, now)
    bucket.refill(now)
    bucket.level = min(bucket.level, there)
    return bucket


_throttles: dict[tuple[int, str, str, str], Throttle] = {}


def throttle_for(lm: LM, server: str, key: str) -> Throttle:
    """The process's throttle of a server, key and model; limits that an ``LM`` tells hold from then on."""
    name = (os.getpid(), server, hashlib.sha256(key.encode()).hexdigest(), lm.model)
    throttle = _throttles.setdefault(name, Throttle())
    throttle.tell(lm.max_parallelism, lm.rpm, lm.tpm)
    return throttle


class Throttled:
    """Answers like the model inside, at the pace that the server allows."""

    def __init__(self, model: Model, throttle: Throttle, *, name: str, lessons: Lessons) -> None:
        self._model = model
        self._throttle = throttle
        self._name = name
        self._lessons = lessons

    async def complete(self, request: Request) -> Reply:
        """Answer one turn once there is a place for it; what comes of it teaches the throttle."""
        characters = sum(len(message.content or "") for message in request.messages)
        answer = self._lessons.expected_tokens(request.phase)
        ticket = await self._throttle.acquire(characters * per_character(self._name) + answer)
        try:
            reply = await self._model.complete(request)
        except ModelUnavailable as error:
            if error.busy:
                self._throttle.refused(ticket, retry_after_s=error.retry_after_s, limits=error.limits)
            else:
                self._throttle.failed(ticket, reached=not error.gone)
            raise
        except ModelError:
            self._throttle.answered(ticket, tokens=0.0, limits=None)
            raise
        except BaseException:
            self._throttle.dropped(ticket)
            raise
        usage = reply.usage
        if not usage.estimated:
            learn(self._name, characters=characters, tokens=usage.input_tokens)
        self._throttle.answered(ticket, tokens=float(usage.tokens), limits=reply.limits)
        return reply
