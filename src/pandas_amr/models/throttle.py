"""The throttle: as fast as a server lets us, and no faster. One per server, key and model for the whole process.

It stands at the HTTP call, below agents, reducers and retries. Three things hold a request back: a window over requests
in flight, which doubles while it can, then grows by one a round and halves when the server says 429 (additive
increase, multiplicative decrease: Chiu and Jain 1989; slow start: Jacobson 1988); buckets of requests and tokens a
minute, told or learned from ``x-ratelimit-*`` headers, or from the 429s themselves; and pauses that the server asks
for, or that a dead server makes necessary.

What is learned is never a wall. What headers say is left now may be sent now, whatever the rate; a server that says 429
though its headers leave room is believed in its 429s; a learned rate lets one request go each minute at the least; and
no request waits for a place longer than the patience with a server that answers nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pandas_amr._records.clock import CLOCK
from pandas_amr._records.tokens import learn, per_character
from pandas_amr.errors import ModelError, ModelUnavailable
from pandas_amr.models.contact import has_answered, patience_s
from pandas_amr.models.refusals import Refusals
from pandas_amr.models.waits import Teller, clock_time, first_sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
SOON_S = 5.0  # without a 429; after each further time as long it grows faster by as much again
LONGEST_PACE_S = (
    60.0  # a learned rate holds a request back no longer than this after the one before
)
DOUBT_S = 60.0  # for which headers are not believed that left room where there was none
NO_TIME_S = 1e-6  # what rounding leaves of a wait that is over
ROOM = 2.0  # requests: what is told may be rounded
SLOWER = 3.0  # times the least median latency: the server queues
FAST_S = 0.05  # a server that answers within this does not queue
LATENCIES = 32  # of which the median is taken: a heavy tail moves it little
DRIFT = 1.002  # an answer: what was the least once need not be for ever
HORIZON_S = 5.0  # over which admitted requests are counted
DEAD_AFTER = 5  # requests in a row that found no server
PROBE_FIRST_S = 0.5
PROBE_LONGEST_S = 10.0
PROBES = 4  # within the patience, at the least


asked_at: ContextVar[float | None] = ContextVar(
    "pandas_amr_asked_at", default=None
)  # before its first try


@contextlib.contextmanager
def asked_now(clock: Callable[[], float] = CLOCK.now) -> Iterator[float]:
    """Count from now how long the request in the block waits, unless it has waited already; gives since when."""
    since = asked_at.get()
    since = clock() if since is None else since
    mark = asked_at.set(since)
    try:
        yield since
    finally:
        asked_at.reset(mark)


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
    """A request under way: what it reserved and when; and how much had been sent until then, itself included."""

    began: float
    tokens: float
    probe: bool = False
    sent: float = 0.0
    sent_tokens: float = 0.0


@dataclass
class Throttle:
    """Admits requests to one server.

    Attributes:
        window: how many may be in flight.
        in_flight: how many are.
        requests: the bucket of requests, once it is told or learned.
        tokens: the bucket of tokens, likewise.
        server: the address behind it.
        clock: tells the time in seconds.
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
    _paused_by: str = ""
    _answered_at: float = 0.0
    _latencies: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES))
    _least_median: float = 0.0
    _admitted: deque[float] = field(default_factory=deque)
    _guessed: bool = False
    _dead_in_a_row: int = 0
    _dead_since: float | None = None
    _probe_wait_s: float = PROBE_FIRST_S
    _probing: bool = False
    _waiting: deque[tuple[asyncio.Future[Ticket], float]] = field(default_factory=deque)
    _timer: asyncio.TimerHandle | None = None
    server: str = ""
    clock: Callable[[], float] = CLOCK.now
    _sent: float = 0.0
    _sent_tokens: float = 0.0
    _taken_at: float = 0.0
    _grown_at: float = 0.0
    _doubted_until: float = 0.0
    _most: float = LARGEST_WINDOW
    _starved_at: float = 0.0
    _trouble: ModelUnavailable | None = None
    _alarm: asyncio.Future[None] | None = None
    teller: Teller = field(default_factory=Teller)
    _refusals: Refusals = field(default_factory=Refusals)

    def tell(self, parallelism: int | None, rpm: float | None, tpm: float | None) -> None:
        """Take over limits that the user knows; what is None stays as it is."""
        now = self.clock()
        if parallelism is not None:
            self.told_parallelism = parallelism
        if rpm is not None and rpm != self.told_rpm:
            self.told_rpm, self.requests = (
                rpm,
                Bucket(rpm / 60, max(1.0, rpm / 60), max(1.0, rpm / 60), now),
            )
        if tpm is not None and tpm != self.told_tpm:
            self.told_tpm, self.tokens = (
                tpm,
                Bucket(tpm / 60, max(1.0, tpm / 60), max(1.0, tpm / 60), now),
            )

    def __repr__(self) -> str:
        rpm = f"{self.requests.rate * 60:.0f}" if self.requests else "unknown"
        tpm = f"{self.tokens.rate * 60:.0f}" if self.tokens else "unknown"
        return f"<Throttle window={self.window:.1f} in_flight={self.in_flight} rpm={rpm} tpm={tpm}>"

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        most = min(self.told_parallelism or LARGEST_WINDOW, self._most)
        return max(1, int(min(self.window, most)))

    @property
    def silent_s(self) -> float:
        """Seconds since the server last answered anything."""
        return self.clock() - self._answered_at

    async def acquire(self, tokens: float, lm: LM | None = None) -> Ticket:
        """Wait for a place, in the order of asking, and reserve ``tokens``.

        Raises:
            ModelUnavailable: the server has answered nothing for longer than ``lm`` is patient; nothing was sent.
        """
        if self._waiting or self._delay(tokens)[0] > 0:
            return await self._wait(tokens, lm)
        return self._take(tokens)

    async def _wait(self, tokens: float, lm: LM | None) -> Ticket:
        """Stand in the line until there is a place."""
        began = asked_at.get()
        began = self.clock() if began is None else began
        place: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
        waiting = (place, tokens)
        self._waiting.append(waiting)
        try:
            self._wake()
            while not place.done():
                left_s = self._patience_left_s(lm, began)
                await asyncio.wait(
                    (place, self._news()), timeout=left_s, return_when=asyncio.FIRST_COMPLETED
                )
        except BaseException:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            elif place.done():  # it had its place already
                self._give_back(tokens)
            self._wake()
            raise
        return place.result()

    def _news(self) -> asyncio.Future[None]:
        """What is done as soon as something is wrong with the server, or something else."""
        if self._alarm is None:
            self._alarm = asyncio.get_running_loop().create_future()
        return self._alarm

    def _set_trouble(self, error: ModelUnavailable | None) -> None:
        """Note what is wrong with the server; those who wait look how long they still may."""
        is_news = error is not None and (self._trouble is None or error.gone != self._trouble.gone)
        self._trouble = error
        if is_news and self._alarm is not None:
            self._alarm.set_result(None)
            self._alarm = None

    def _patience_left_s(self, lm: LM | None, began: float) -> float | None:
        """Tell how long a request that began to wait then may still wait; None if nothing is wrong with the server.

        Raises:
            ModelUnavailable: no longer.
        """
        if self._trouble is None or lm is None:
            return None
        patience = patience_s(lm, self.server, gone=self._trouble.gone)
        left_s = max(began, self._answered_at) + patience - self.clock()
        if left_s > 0:
            return left_s
        error = _unsent(self._trouble)
        end_run(error, lm, self.server)
        raise error

    def _take(self, tokens: float) -> Ticket:
        self.in_flight += 1
        self._reserved += tokens
        self._sent += 1
        self._sent_tokens += tokens
        self._taken_at = self.clock()
        self._probing = self._dead_since is not None
        if self.requests:
            self.requests.level -= 1
        if self.tokens:
            self.tokens.level -= tokens
        return Ticket(self._taken_at, tokens, self._probing, self._sent, self._sent_tokens)

    def _give_back(self, tokens: float) -> None:
        self.in_flight -= 1
        self._reserved -= tokens
        self._sent -= 1
        self._sent_tokens -= tokens
        self._probing = False
        if self.requests:
            self.requests.level += 1
        if self.tokens:
            self.tokens.level += tokens

    def _delay(self, tokens: float) -> tuple[float, str]:
        """Seconds until a request may go, and why not now; infinity where only the end of another one can tell."""
        now = self.clock()
        if self.in_flight >= self.limit or (self._dead_since is not None and self._probing):
            return float("inf"), ""
        delay, why = max(0.0, self._paused_until - now), "pause"
        for bucket, amount, told, what in (
            (self.requests, 1.0, self.told_rpm, "requests"),
            (self.tokens, tokens, self.told_tpm, "tokens"),
        ):
            if bucket is None:
                continue
            bucket.refill(now)
            wait_s = bucket.wait_s(amount)
            if told is None:
                wait_s = min(wait_s, max(0.0, self._taken_at + LONGEST_PACE_S - now))
            if wait_s > delay:
                delay, why = wait_s, what
        return (delay, why) if delay > NO_TIME_S else (0.0, "")

    def _wake(self) -> None:
        """Let go whoever may; come back when the next one may."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            place, tokens = self._waiting[0]
            delay, why = self._delay(tokens)
            if delay == float("inf"):
                return
            if delay > 0:
                self._say(delay, why)
                self._timer = asyncio.get_running_loop().call_later(delay, self._wake)
                return
            self._waiting.popleft()
            if not place.done():
                place.set_result(self._take(tokens))

    def _say(self, delay: float, why: str) -> None:
        """Tell of a wait, if it is a long one; of a server that is gone `failed` tells."""
        bucket = self.requests if why == "requests" else self.tokens
        if why == "pause":
            if self._dead_since is None and self._paused_by:
                self.teller.tell(why, delay, self._paused_by)
        elif bucket is not None:
            self.teller.tell(why, delay, f"at most {bucket.rate * 60:.3g} {why} per minute")

    # -- what came of a request --------------------------------------------------------------------------------------

    def answered(self, ticket: Ticket, *, tokens: float, limits: Limits | None) -> None:
        """A request was answered; ``tokens`` is what it took, as far as known."""
        now = self._answered_at = self.clock()
        self._back(ticket)
        self._set_trouble(None)
        if now >= self._paused_until:  # else it was sent before the pause
            self.teller.over()
        if now - self._starved_at > SOON_S:
            self._most = min(
                LARGEST_WINDOW, self._most + 1 / self._most
            )  # others may have closed their files
        self._refusals.note(ticket.began, refused=False)
        self._admitted.append(now)
        while self._admitted and self._admitted[0] < now - HORIZON_S:
            self._admitted.popleft()
        if self.tokens and tokens:
            self.tokens.level += ticket.tokens - tokens
        self._grow(now - ticket.began)
        if self._guessed and self.requests and now - self._shrunk_at > 1.0:
            self._grow_rate(self.requests, now)
        if limits is not None:
            self._learn(limits, ticket, now)
        self._wake()

    def _grow_rate(self, bucket: Bucket, now: float) -> None:
        """Raise a guessed rate: the faster, the longer no 429 has come (as CUBIC does: RFC 9438)."""
        since = max(self._shrunk_at, self._grown_at)
        quiet = 1 + (now - self._shrunk_at) // SOON_S
        bucket.refill(now)
        bucket.rate *= 1 + GROWTH_PER_S * quiet * min(SOON_S, now - since)
        bucket.burst = max(1.0, bucket.rate * 0.1)
        self._grown_at = now

    def refused(
        self,
        ticket: Ticket,
        *,
        retry_after_s: float | None,
        limits: Limits | None,
        error: ModelUnavailable | None = None,
    ) -> None:
        """The server said 429."""
        now = self.clock()
        self._back(ticket)
        self._set_trouble(error)
        if self.tokens:
            self.tokens.level += ticket.tokens
        if limits is not None and _leaves_room(
            limits, ticket
        ):  # and yet it says 429: it is something else
            self._doubted_until = now + DOUBT_S
            limits = None
        if limits is not None:
            self._learn(limits, ticket, now)
        self._refusals.note(ticket.began, refused=True)
        if (
            ticket.began >= self._shrunk_at
        ):  # one decrease a round: those sent before the last one knew nothing of it
            self._slow_down(now, limits, retry_after_s)
        self._pause(now, retry_after_s, error)
        self._wake()

    def _slow_down(self, now: float, limits: Limits | None, retry_after_s: float | None) -> None:
        """Send more slowly, if the pace may be why the server said 429."""
        again = bool(self._shrunk_at) and now - self._shrunk_at < DOUBT_S
        pace, known = self._pace(now), self._refusals.noise
        if limits is not None:
            self.window = max(
                1.0, self.window * BACK_OFF
            )  # the buckets know better than the window
        elif self._refusals.are_noise(pace):
            if not known:
                self._forget_guess()
            return
        else:
            self._refusals.slow_down(now, pace)
            self.window = max(1.0, min(self.window, self.in_flight + 1.0) * SHRINK)
            if again or retry_after_s is None:  # one pause that is told says nothing of a rate
                self._guess(now)
        self._growing = False
        self._shrunk_at = now

    def _pace(self, now: float) -> float:
        """How fast requests are sent: so many a second, or so many at once where the rate is told."""
        if self.told_rpm is not None:
            return self.window
        admitted = self._admitted_rate(now)
        return (
            min(admitted, self.requests.rate)
            if self.requests is not None and self._guessed
            else admitted
        )

    def _admitted_rate(self, now: float) -> float:
        """Requests a second that the server has admitted lately; 0 if there were none."""
        since = [at for at in self._admitted if at > now - HORIZON_S]
        return len(since) / max(1.0, now - since[0]) if since else 0.0

    def _forget_guess(self) -> None:
        """Send as fast as the window lets again, and let it double."""
        if self._guessed:
            self.requests, self._guessed = None, False
        self._growing = True

    def _pause(
        self, now: float, retry_after_s: float | None, error: ModelUnavailable | None
    ) -> None:
        if retry_after_s is not None and now + retry_after_s > self._paused_until:
            self._paused_until = now + retry_after_s
            self._paused_by = "" if error is None else _short(error)

    def failed(
        self,
        ticket: Ticket,
        *,
        reached: bool,
        retry_after_s: float | None = None,
        error: ModelUnavailable | None = None,
        lm: LM | None = None,
    ) -> None:
        """No answer: an error of the server's, a time-out; or, where it was not ``reached``, no server at all."""
        now = self.clock()
        self._back(ticket, alive=reached)
        if self.tokens:
            self.tokens.level += ticket.tokens
        if not reached:
            self._not_reached(ticket, now, error, lm)
        elif retry_after_s is not None:
            self._set_trouble(error)
            self._pause(now, retry_after_s, error)
        elif (
            self._trouble is not None and self._trouble.gone
        ):  # it is there again, whatever it says
            self._set_trouble(None)
        self._wake()

    def _not_reached(
        self, ticket: Ticket, now: float, error: ModelUnavailable | None, lm: LM | None
    ) -> None:
        self._set_trouble(error)
        self._dead_in_a_row += 1
        if self._dead_in_a_row < DEAD_AFTER and has_answered(self.server):
            return
        self._dead_since = self._dead_since or now
        self._paused_until = max(self._paused_until, now + self._probe_wait_s)
        patience = (
            PROBE_LONGEST_S * PROBES if lm is None else patience_s(lm, self.server, gone=True)
        )
        if ticket.probe:
            self._probe_wait_s = min(PROBE_LONGEST_S, patience / PROBES, self._probe_wait_s * 2)
        gone_s = now - self._dead_since
        self.teller.tell(
            "gone",
            patience - gone_s,
            f"not reached for {gone_s:.0f} s",
            why=f"LM(patience_s={patience:g})",
        )

    def starved(self, ticket: Ticket, error: ModelUnavailable | None = None) -> None:
        """This process had no file descriptor for a connection: from now on fewer are open at once."""
        now = self._starved_at = self.clock()
        self._back(ticket, alive=False)
        self._set_trouble(error)
        if self.tokens:
            self.tokens.level += ticket.tokens
        self._growing = False
        if self._most == LARGEST_WINDOW:
            self.teller.note(
                "too few file descriptors (ulimit -n): fewer requests at once from now on"
            )
        self._most = max(1.0, min(self._most, float(self.in_flight)))
        self.window = min(self.window, self._most)
        if not self.in_flight:  # somebody else has them all
            self._paused_until = max(self._paused_until, now + PROBE_FIRST_S)
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
            if self._dead_since is not None:
                self.teller.over()
                self._paused_until = 0.0  # for its return
            self._dead_in_a_row = 0
            self._dead_since = None
            self._probe_wait_s = PROBE_FIRST_S

    def _grow(self, latency_s: float) -> None:
        self._latencies.append(latency_s)
        median = sorted(self._latencies)[len(self._latencies) // 2]
        self._least_median = (
            min(median, self._least_median * DRIFT) if self._least_median else median
        )
        if median > max(SLOWER * self._least_median, FAST_S) and len(self._latencies) == LATENCIES:
            self._growing = False
            self.window = max(min(self.window, FIRST_WINDOW), self.window - SHRINK_SLOWLY)
        elif (
            self.in_flight + 1 >= self.window / 2
        ):  # only a window that is used says that a larger one is needed
            self.window = min(
                LARGEST_WINDOW, self.window + (1.0 if self._growing else 1 / self.window)
            )

    def _learn(self, limits: Limits, ticket: Ticket, now: float) -> None:
        """Take over what the server's headers say. What was sent after the request that they answer they do not know.

        What is left may be sent now: the window opens for it, where no 429 has closed it.
        """
        if now < self._doubted_until:
            return
        left = limits.requests_left
        if limits.requests is not None and self.told_rpm is None:
            self.requests = _learned(
                self.requests, limits.requests, left, self._sent - ticket.sent, now
            )
            self._guessed = False
        if limits.tokens is not None and self.told_tpm is None:
            owed = self._sent_tokens - ticket.sent_tokens
            self.tokens = _learned(self.tokens, limits.tokens, limits.tokens_left, owed, now)
        if left is not None and self._growing:
            if limits.tokens_left is not None and ticket.tokens > 0:
                left = min(left, limits.tokens_left / ticket.tokens)
            self.window = min(LARGEST_WINDOW, max(self.window, left))

    def _guess(self, now: float) -> None:
        """Without headers, what was admitted lately is what the server admits."""
        if self.told_rpm is not None:
            return
        rate = self._admitted_rate(now) * BACK_OFF or FIRST_GUESS
        if self.requests is not None and self._guessed:
            rate = min(rate, self.requests.rate * BACK_OFF)
        rate = max(rate, LEAST_GUESS)
        self.requests = Bucket(rate, max(1.0, rate * 0.1), 0.0, now)
        self._guessed = True


def _learned(
    bucket: Bucket | None, rate: float, left: float | None, owed: float, now: float
) -> Bucket:
    """A bucket as the server describes it: its rate, and as much in it as is left there."""
    there = max(1.0, rate) if left is None else left - owed
    if bucket is None:
        return Bucket(rate, max(1.0, rate, left or 0.0), max(0.0, there), now)
    bucket.refill(now)
    bucket.rate = rate
    if left is not None:
        bucket.burst = max(bucket.burst, left, 1.0)
        bucket.level = there if there >= 0 else min(bucket.level, 0.0)
    return bucket


def _leaves_room(limits: Limits, ticket: Ticket) -> bool:
    """Tell whether by its headers a server would have taken the request that it refused."""
    requests, tokens = limits.requests_left, limits.tokens_left
    return (requests is None or requests >= ROOM) and (
        tokens is None or tokens >= max(1.0, ticket.tokens)
    )


def _short(error: ModelUnavailable) -> str:
    return str(error.status) if error.status is not None else first_sentence(str(error))


def _unsent(error: ModelUnavailable) -> ModelUnavailable:
    """The same failure, of a request that was not even sent."""
    return ModelUnavailable(
        error.said,
        busy=error.busy,
        gone=error.gone,
        starved=error.starved,
        retry_after_s=error.retry_after_s,
        status=error.status,
        attempts=0,
    )


def end_run(error: ModelUnavailable, lm: LM, server: str) -> None:
    """Make an error end its run: it says how long the server was waited for, and when to call again."""
    error.stops_run = True
    said = f"{error.said.rstrip('. ')}."
    patience = patience_s(lm, server, gone=error.gone)
    wait_s = error.retry_after_s
    if wait_s is not None and wait_s > patience:
        until = clock_time(wait_s)
        more = f"It asks to wait until {until}, longer than LM(patience_s={patience:g}) allows: call again then."
    elif error.gone:
        more = f"It was waited for {patience:g} s; LM(patience_s=...) sets for how long."
    else:
        more = f"Nothing was answered for {patience:g} s (LM(patience_s=...)): call again later."
    error.args = (f"{said} {more}",)


_throttles: dict[tuple[int, str, str, str], Throttle] = {}


def throttle_for(lm: LM, server: str, key: str) -> Throttle:
    """The process's throttle of a server, key and model; limits that an ``LM`` tells hold from then on."""
    name = (os.getpid(), server, hashlib.sha256(key.encode()).hexdigest(), lm.model)
    throttle = _throttles.setdefault(name, Throttle(server=server, teller=Teller(server)))
    throttle.tell(lm.max_parallelism, lm.rpm, lm.tpm)
    return throttle


class Throttled:
    """Answers like the model inside, at the pace that the server allows.

    Of a server that asks for a longer wait than ``lm`` is patient nothing more is asked here; another run may ask it.
    """

    def __init__(self, model: Model, throttle: Throttle, *, lm: LM, lessons: Lessons) -> None:
        self._model = model
        self._throttle = throttle
        self._lm = lm
        self._lessons = lessons
        self._closed: ModelUnavailable | None = None

    async def complete(self, request: Request) -> Reply:
        """Answer one turn once there is a place for it; what comes of it teaches the throttle.

        Raises:
            ModelUnavailable: among others, the server is not waited for any longer; its ``attempts`` are then 0.
        """
        self._check_open()
        characters = sum(len(message.content or "") for message in request.messages)
        answer = self._lessons.expected_tokens(request.phase)
        ticket = await self._throttle.acquire(
            characters * per_character(self._lm.model) + answer, self._lm
        )
        try:
            self._check_open()
            reply = await self._model.complete(request)
        except ModelUnavailable as error:
            self._note_failure(ticket, error)
            raise
        except ModelError:
            self._throttle.answered(ticket, tokens=0.0, limits=None)
            raise
        except BaseException:
            self._throttle.dropped(ticket)
            raise
        usage = reply.usage
        if not usage.estimated:
            learn(self._lm.model, characters=characters, tokens=usage.input_tokens)
        self._throttle.answered(ticket, tokens=float(usage.tokens), limits=reply.limits)
        return reply

    def _note_failure(self, ticket: Ticket, error: ModelUnavailable) -> None:
        """Tell the throttle of a failure. A wait that this run does not bear is not the business of others."""
        throttle, wait_s = self._throttle, error.retry_after_s
        if not error.attempts:
            throttle.dropped(ticket)
        elif (wait_s or 0.0) > patience_s(self._lm, throttle.server, gone=False):
            self._closed = _unsent(error)
            throttle.failed(ticket, reached=True)
        elif error.starved:
            throttle.starved(ticket, error)
        elif error.busy:
            throttle.refused(ticket, retry_after_s=wait_s, limits=error.limits, error=error)
        else:
            throttle.failed(
                ticket, reached=not error.gone, retry_after_s=wait_s, error=error, lm=self._lm
            )

    def _check_open(self) -> None:
        """Send nothing more to a server that asked this run to go away for long."""
        if self._closed is not None:
            raise _unsent(self._closed)
