"""How fast requests are sent to one server: the window, the buckets, and what adapts them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pandas_amr.models.refusals import Refusals
from pandas_amr.models.throttle.rates import (
    AdmittedRate,
    Bucket,
    bucket_per_minute,
    update_from_headers,
)
from pandas_amr.models.throttle.shares import ALONE, Share, divide
from pandas_amr.models.throttle.window import ConcurrencyWindow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pandas_amr.models.base import RateLimits
    from pandas_amr.models.lease import PaceReport

BACK_OFF = 0.9  # of the admitted rate, after a 429 that reports no limit
SHARED_BACK_OFF = 0.85  # likewise if processes share the limit: until all know, there are more 429s
FIRST_GUESS = 1.0  # requests per second, if nothing was admitted yet
LEAST_GUESS = 0.05
GROWTH_PER_S = 0.05  # of a guessed rate, while no 429 comes
SOON_S = 5.0  # without a 429; after each further time as long the rate grows faster by as much
LONGEST_PACE_S = 60.0  # a learned rate holds no request back for longer after the one before
DOUBT_S = 60.0  # for which headers are not believed that left room although the server said 429
ROOM = 2.0  # requests: what headers say may be rounded
WITHOUT_BURST = 0.6  # of what is admitted at first, the rest may have been a burst
FIRST_GUESS_S = 1.0  # in which the answers come to what was sent before the first 429
OPENS_AFTER_S = 1.0
NOTICE_S = 0.1  # until processes that share a limit surely know of one that joins them


@dataclass(slots=True)
class Ticket:
    """A request under way.

    Attributes:
        began: when it was admitted.
        tokens: how many it reserved.
        probe: whether it probes for a server that is gone.
        sent: how many requests had been sent until then, itself included.
        sent_tokens: likewise the tokens.
    """

    began: float
    tokens: float
    probe: bool = False
    sent: float = 0.0
    sent_tokens: float = 0.0


@dataclass(frozen=True, slots=True)
class GivenLimits:
    """The limits that the user of one process gave; None if there is none."""

    max_parallelism: int | None = None
    rpm: float | None = None
    tpm: float | None = None


@dataclass(slots=True)
class Slowdown:
    """The last 429 that slowed down all processes which share a limit.

    Attributes:
        at: when it came; 0 if none came.
        began: when the request was sent that it answered.
    """

    at: float = 0.0
    began: float = 0.0


@dataclass
class Pace:
    """The pace of this process's requests to one server.

    If several processes share the server's limits, the buckets hold this one's share of them. What
    is learned is about all of them together.

    Attributes:
        max_parallelism: the limit that the user gave, here or in another process; None if there is
            none.
        rpm: likewise the requests per minute.
        tpm: likewise the tokens per minute.
        window: how many requests may be in flight.
        requests: the bucket of requests, once its rate is given or learned.
        tokens: the bucket of tokens, likewise.
        sent: requests sent so far.
        sent_tokens: tokens sent so far.
        share: this process's share in the limits.
    """

    max_parallelism: int | None = None
    rpm: float | None = None
    tpm: float | None = None
    window: ConcurrencyWindow = field(default_factory=ConcurrencyWindow)
    requests: Bucket | None = None
    tokens: Bucket | None = None
    sent: float = 0.0
    sent_tokens: float = 0.0
    share: Share = ALONE
    _given: GivenLimits = field(default_factory=GivenLimits)
    _sent_at: float = 0.0
    _refusals: Refusals = field(default_factory=Refusals)
    _admitted: AdmittedRate = field(default_factory=AdmittedRate)
    _is_guessed: bool = False
    _first_guess_at: float = 0.0
    _opens_at: float = 0.0
    _grown_at: float = 0.0
    _shrunk_at: float = 0.0
    _doubted_until: float = 0.0
    _slowdown: Slowdown = field(default_factory=Slowdown)

    def set_limits(
        self, max_parallelism: int | None, rpm: float | None, tpm: float | None, now: float
    ) -> None:
        """Set the limits that the user gives; one that is None stays as it is."""
        given = self._given
        self._given = GivenLimits(
            given.max_parallelism if max_parallelism is None else max_parallelism,
            given.rpm if rpm is None else rpm,
            given.tpm if tpm is None else tpm,
        )
        if max_parallelism is not None:
            self.max_parallelism = max_parallelism
        if rpm is not None and rpm != self.rpm:
            self.rpm = rpm
            self.requests = bucket_per_minute(rpm, now, share=self.share.requests)
        if tpm is not None and tpm != self.tpm:
            self.tpm = tpm
            self.tokens = bucket_per_minute(tpm, now, share=self.share.tokens)

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return self.window.limit(self.share.places(self.max_parallelism))

    @property
    def request_rate(self) -> float | None:
        """The rate of requests per second of all processes; None if it is not known."""
        return None if self.requests is None else self.requests.rate / self.share.requests

    @property
    def token_rate(self) -> float | None:
        """The rate of tokens per second of all processes; None if it is not known."""
        return None if self.tokens is None else self.tokens.rate / self.share.tokens

    # -- take from the buckets ---------------------------------------------------------------------

    def wait_s(self, tokens: float, now: float) -> tuple[float, str]:
        """Give the seconds until a request may be sent, and which bucket makes it wait."""
        longest_s, reason = 0.0, ""
        for name, bucket, amount, limit in (
            ("requests", self.requests, 1.0, self.rpm),
            ("tokens", self.tokens, tokens, self.tpm),
        ):
            if bucket is None:
                continue
            bucket.refill(now)
            wait_s = bucket.wait_s(amount)
            if limit is None:  # the rate is learned, and may be wrong
                wait_s = min(wait_s, max(0.0, self._sent_at + LONGEST_PACE_S - now))
            if wait_s > longest_s:
                longest_s, reason = wait_s, name
        return longest_s, reason

    def describe_rate(self, name: str) -> str:
        """Describe the rate of the bucket ``requests`` or ``tokens``; empty if it has none."""
        bucket = self.requests if name == "requests" else self.tokens
        if bucket is None:
            return ""
        rate = f"at most {bucket.rate * 60:.3g} {name} per minute"
        if self.share.processes > 1:
            rate += f" (shared by {self.share.processes} processes)"
        return rate

    def take(self, tokens: float, now: float) -> None:
        """Take a request and its tokens out of the buckets."""
        self.sent += 1
        self.sent_tokens += tokens
        self._sent_at = now
        if self.requests:
            self.requests.level -= 1
        self.return_tokens(-tokens)

    def take_back(self, tokens: float) -> None:
        """Undo ``take`` for a request that is not sent after all."""
        self.sent -= 1
        self.sent_tokens -= tokens
        if self.requests:
            self.requests.level += 1
        self.return_tokens(tokens)

    def return_tokens(self, tokens: float) -> None:
        """Return tokens that were taken and not used."""
        if self.tokens:
            self.tokens.level += tokens

    # -- adapt -------------------------------------------------------------------------------------

    def speed_up(self, began: float, now: float, in_flight: int) -> None:
        """Send faster after an answer to a request that was sent at ``began``."""
        self.window.raise_cap(now)
        self._refusals.note(began, refused=False)
        self._admitted.record_answer(now)
        self.window.grow(now - began, in_flight, self.share.step)
        self._grow_guess(now)

    def slow_down(
        self,
        ticket: Ticket,
        now: float,
        in_flight: int,
        *,
        limits: RateLimits | None,
        retry_after_s: float | None,
    ) -> None:
        """Send more slowly after a 429, if the pace may be its reason."""
        if limits is not None and _leaves_room(limits, ticket):  # the 429 has another reason
            self._doubted_until = now + DOUBT_S
            limits = None
        if limits is not None:
            self.learn_limits(limits, ticket, now)
        self._refusals.note(ticket.began, refused=True)
        if ticket.began < self._shrunk_at:
            return  # one decrease per round: this was sent before the last one
        if limits is not None:
            self.window.shrink_a_little()  # the buckets know the rate better than the window
        elif not self._slow_down_without_limits(ticket.began, now, in_flight, retry_after_s):
            return
        self.window.is_doubling = False
        self._shrunk_at = now

    def _slow_down_without_limits(
        self, began: float, now: float, in_flight: int, retry_after_s: float | None
    ) -> bool:
        """Halve the window and guess a rate; False if the 429 does not depend on the pace.

        The request was sent at ``began``.
        """
        pace, noise = self._current(now), self._refusals.noise
        if self._refusals.are_noise(pace):
            if not noise:
                self._forget_guess()
            return False
        self._refusals.slow_down(now, pace)
        self.window.halve(in_flight)
        self._slowdown = Slowdown(now, began)
        # A single pause that the server asks for tells nothing about a rate.
        is_again = bool(self._shrunk_at) and now - self._shrunk_at < DOUBT_S
        if is_again or retry_after_s is None:
            self._guess_rate(now)
        return True

    def _current(self, now: float) -> float:
        """Give the pace: requests per second, or requests in flight if the rate is given."""
        if self.rpm is not None:
            return self.window.size
        admitted = self._admitted.per_second(now)
        rate = self.request_rate
        if rate is not None and self._is_guessed:
            return min(admitted, rate)
        return admitted

    def _guess_rate(self, now: float) -> None:
        """Guess the rate, if no headers report it: a little less than was admitted lately."""
        if self.rpm is not None:
            return
        back_off = BACK_OFF if self.share.processes == 1 else SHARED_BACK_OFF
        rate = self._admitted.per_second(now) * back_off or FIRST_GUESS
        former = self.request_rate
        if former is not None and self._is_guessed:
            rate = min(rate, former * back_off)
        if former is None or not self._is_guessed:
            self._first_guess_at = now
        self._set_guess(max(rate, LEAST_GUESS), now)

    def _set_guess(self, rate: float, now: float) -> None:
        """Guess the rate of all processes."""
        own_rate = rate * self.share.requests
        self.requests = Bucket(own_rate, max(1.0, own_rate * 0.1), 0.0, now)
        self._is_guessed = True

    def _grow_guess(self, now: float) -> None:
        """Raise a guessed rate, faster the longer no 429 has come (as CUBIC does: RFC 9438)."""
        bucket = self.requests
        if bucket is None or not self._is_guessed or now - self._shrunk_at <= 1.0:
            return
        since = max(self._shrunk_at, self._grown_at)
        quiet = 1 + (now - self._shrunk_at) // SOON_S
        bucket.refill(now)
        bucket.rate *= 1 + GROWTH_PER_S * quiet * min(SOON_S, now - since)
        bucket.burst = max(1.0, bucket.rate * 0.1)
        self._grown_at = now

    def _forget_guess(self) -> None:
        """Drop a guessed rate, and let the window double again."""
        if self._is_guessed:
            self.requests, self._is_guessed = None, False
        self.window.is_doubling = True

    def learn_limits(self, limits: RateLimits, ticket: Ticket, now: float) -> None:
        """Set the buckets to what the headers of an answer report.

        What is left may be sent now: the window opens for it, unless a 429 has closed it.
        """
        if now < self._doubted_until:
            return
        limits = _share_limits(limits, self.share)
        left = limits.requests_left
        if limits.requests is not None and self.rpm is None:
            unknown = self.sent - ticket.sent  # sent after the request of these headers
            self.requests = update_from_headers(self.requests, limits.requests, left, unknown, now)
            self._is_guessed = False
        if limits.tokens is not None and self.tpm is None:
            unknown = self.sent_tokens - ticket.sent_tokens
            self.tokens = update_from_headers(
                self.tokens, limits.tokens, limits.tokens_left, unknown, now
            )
        if left is None or not self.window.is_doubling or now < self._opens_at:
            return
        if limits.tokens_left is not None and ticket.tokens > 0:
            left = min(left, limits.tokens_left / ticket.tokens)
        self.window.open_for(left)

    # -- share the limits with other processes -----------------------------------------------------

    def describe(self, report: PaceReport) -> PaceReport:
        """Complete what this process says to others: its limits, and what it has learned."""
        is_learned = not self._is_guessed
        return replace(
            report,
            max_parallelism=self._given.max_parallelism,
            rpm=self._given.rpm,
            tpm=self._given.tpm,
            request_rate=self.request_rate if self.rpm is None and is_learned else None,
            token_rate=self.token_rate if self.tpm is None else None,
            guessed_rate=self.request_rate if self._is_guessed else None,
            slowed_at=self._slowdown.at,
            slowed_began=self._slowdown.began,
        )

    def follow(
        self, others: Sequence[PaceReport], own_joined_at: float, in_flight: int, now: float
    ) -> None:
        """Take this process's share, and learn what the others have learned.

        Args:
            others: what the other processes say that have requests there.
            own_joined_at: when this process began to share.
            in_flight: its requests in flight.
            now: the time.
        """
        if others:
            self._correct_first_guess(now)
        self._follow_given_limits(others, now)
        self._follow_learned_rates(others, now)
        share = divide(own_joined_at, others, self.request_rate, self.token_rate)
        self._set_share(share, now)
        for other in others:
            self._follow_slowdown(other, in_flight, now)

    def begin_sharing(self, now: float) -> None:
        """Let the window double for a moment, and not open at once: others may begin, too."""
        self._opens_at = now + OPENS_AFTER_S

    def meet(self, now: float) -> None:
        """Have nothing to spend at once when others are met: each may have spent it, whoever began.

        They learn only a little later that they are met.
        """
        for bucket in (self.requests, self.tokens):
            if bucket is not None:
                bucket.refill(now)
                bucket.level = min(bucket.level, -bucket.rate * NOTICE_S)

    def count_others(self, *, answered: int, refused: int, since: float, now: float) -> None:
        """Count what the server has answered to other processes: the limit is one.

        Args:
            answered: requests answered since the last exchange.
            refused: requests answered 429 since then.
            since: when that was.
            now: the time.
        """
        began = since - self.window.last_latency_s  # when they were sent, about
        for _ in range(answered):
            self._admitted.record_answer(now)
            self._refusals.note(began, refused=False)
        for _ in range(refused):
            self._refusals.note(began, refused=True)

    def _correct_first_guess(self, now: float) -> None:
        """Raise a first guess: it was made before the answers to other processes were counted."""
        rate = self.request_rate
        if not self._is_guessed or rate is None or now - self._first_guess_at > FIRST_GUESS_S:
            return
        admitted = self._admitted.per_second(now) * WITHOUT_BURST
        if admitted > rate:
            self._set_guess(admitted, now)

    def _follow_given_limits(self, others: Sequence[PaceReport], now: float) -> None:
        """Hold to the lowest limits that users gave, in whatever process."""
        given = self._given
        places = _lowest([given.max_parallelism, *(other.max_parallelism for other in others)])
        if places is not None:
            self.max_parallelism = int(places)
        rpm = _lowest([given.rpm, *(other.rpm for other in others)])
        if rpm is not None and rpm != self.rpm:
            self.rpm = rpm
            self.requests = bucket_per_minute(rpm, now, share=self.share.requests)
            self._is_guessed = False
            self.requests.level = 0.0
        tpm = _lowest([given.tpm, *(other.tpm for other in others)])
        if tpm is not None and tpm != self.tpm:
            self.tpm = tpm
            self.tokens = bucket_per_minute(tpm, now, share=self.share.tokens)
            self.tokens.level = 0.0

    def _follow_learned_rates(self, others: Sequence[PaceReport], now: float) -> None:
        """Take the rates that others have learned, if none is known here."""
        for other in others:
            if self.requests is None and other.guessed_rate is not None:
                if not self._refusals.noise:
                    self._set_guess(other.guessed_rate, now)
                    self.window.is_doubling = False
            elif self.requests is None and other.request_rate is not None:
                rate = other.request_rate * self.share.requests
                self.requests = Bucket(rate, max(1.0, rate), 0.0, now)
            if self.tokens is None and other.token_rate is not None:
                rate = other.token_rate * self.share.tokens
                self.tokens = Bucket(rate, max(1.0, rate), 0.0, now)

    def _set_share(self, share: Share, now: float) -> None:
        former, self.share = self.share, share
        if share.processes > former.processes:
            self.window.divide(share.processes / former.processes)
        if self.requests is not None and share.requests != former.requests:
            self.requests.scale(share.requests / former.requests, now)
        if self.tokens is not None and share.tokens != former.tokens:
            self.tokens.scale(share.tokens / former.tokens, now)

    def _follow_slowdown(self, other: PaceReport, in_flight: int, now: float) -> None:
        """Slow down as another process has after a 429, if that is news."""
        if other.slowed_at <= self._slowdown.at:
            return
        self._slowdown = Slowdown(other.slowed_at, other.slowed_began)
        is_learned = self.requests is not None and not self._is_guessed
        is_same_round = other.slowed_began < self._shrunk_at
        if is_learned or is_same_round or self._refusals.noise:
            return
        self._refusals.slow_down(now, self._current(now))
        self.window.halve(in_flight)
        self.window.is_doubling = False
        if other.guessed_rate is not None:
            self._guess_rate(now)
        self._shrunk_at = now


def _lowest(limits: Iterable[float | None]) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _share_limits(limits: RateLimits, share: Share) -> RateLimits:
    """Give the share of a process in the limits that headers report."""
    if share.processes == 1:
        return limits
    return replace(
        limits,
        requests=_scale(limits.requests, share.requests),
        requests_left=_scale(limits.requests_left, share.requests),
        tokens=_scale(limits.tokens, share.tokens),
        tokens_left=_scale(limits.tokens_left, share.tokens),
    )


def _scale(amount: float | None, share: float) -> float | None:
    return None if amount is None else amount * share


def _leaves_room(limits: RateLimits, ticket: Ticket) -> bool:
    """Tell whether, by its headers, a server would have admitted the request that it refused."""
    requests, tokens = limits.requests_left, limits.tokens_left
    if requests is not None and requests < ROOM:
        return False
    return tokens is None or tokens >= max(1.0, ticket.tokens)
