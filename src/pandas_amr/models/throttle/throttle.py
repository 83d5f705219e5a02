"""``Throttle`` admits requests to one server, and learns from what comes of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pandas_amr._records.clock import CLOCK
from pandas_amr._records.trace import record_wait
from pandas_amr.errors import ModelUnavailable
from pandas_amr.models.answered_servers import has_answered, patience_s
from pandas_amr.models.throttle.gate import Gate
from pandas_amr.models.throttle.outage import (
    FIRST_CONTACT_TRIES,
    PROBE_FIRST_S,
    PROBE_LONGEST_S,
    PROBES,
    Outage,
)
from pandas_amr.models.throttle.pace import Pace, Ticket
from pandas_amr.models.throttle.patience import (
    as_unsent,
    end_run,
    is_sent_again,
    unsent_copy,
    waiting_since,
)
from pandas_amr.models.throttle.sharing import Sharing
from pandas_amr.models.throttle.window import LARGEST_WINDOW
from pandas_amr.models.waits import WaitReporter, first_sentence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pandas_amr._records.events import WaitKind
    from pandas_amr.errors import ModelConfigError
    from pandas_amr.models.base import LM, RateLimits
    from pandas_amr.models.lease import PaceLease, PaceReport
    from pandas_amr.models.throttle.rates import Bucket

NO_TIME_S = 1e-6  # what rounding leaves of a wait that is over
ASKED_ANOTHER = "The server asked another process to wait."
SLOW_FIRST_S = 4.0  # a first answer that takes longer is reported; by then a connection was made


@dataclass(slots=True, eq=False)
class _Place:
    """The place of a request in the queue; the ticket is there once it is admitted.

    Attributes:
        wait: what events say that it waits for.
    """

    ticket: asyncio.Future[Ticket]
    tokens: float
    lm: LM | None
    wait: record_wait


@dataclass
class Throttle:
    """Admits requests to one server.

    Attributes:
        pace: how fast they are sent.
        in_flight: how many have no outcome yet.
        server: the address of the server.
        clock: gives the time in seconds.
        reporter: reports long waits.
        unserved: the requests since the last answer for which a gateway had no server.
        given_up: how many requests since the last answer have used up their tries.
        gate: whether more than one request may be sent at a time.
        sharing: exchanges with other processes that have the same limits; None if there is no
            lease.
    """

    pace: Pace = field(default_factory=Pace)
    in_flight: int = 0
    server: str = ""
    clock: Callable[[], float] = CLOCK.now
    reporter: WaitReporter = field(default_factory=WaitReporter)
    unserved: set[object] = field(default_factory=set)
    given_up: int = 0
    gate: Gate = field(default_factory=Gate)
    sharing: Sharing | None = None
    _answered: int = 0
    _refused: int = 0
    _waiting: deque[_Place] = field(default_factory=deque)
    _timer: asyncio.TimerHandle | None = None
    _answered_at: float = 0.0
    _paused_until: float = 0.0
    _asked_until: float = 0.0  # by the server, of this process
    _reached_at: float = 0.0
    _pause_reason: str = ""
    _trouble: ModelUnavailable | None = None
    _trouble_signal: asyncio.Future[None] | None = None
    _outage: Outage = field(default_factory=Outage)
    _loading_since: float | None = None

    def set_limits(self, max_parallelism: int | None, rpm: float | None, tpm: float | None) -> None:
        """Set the limits that the user gives; one that is None stays as it is."""
        self.pace.set_limits(max_parallelism, rpm, tpm, self.clock())

    def share(self, lease: PaceLease | None) -> None:
        """Share the limits with the other processes that have a lease; None shares nothing."""
        former = None if self.sharing is None else self.sharing.lease
        if lease is not former:
            self.sharing = None if lease is None else Sharing(self, lease)

    def __repr__(self) -> str:
        requests, tokens = self.pace.requests, self.pace.tokens
        rpm = f"{requests.rate * 60:.0f}" if requests else "unknown"
        tpm = f"{tokens.rate * 60:.0f}" if tokens else "unknown"
        window = f"{self.pace.window.size:.1f}"
        return f"<Throttle window={window} in_flight={self.in_flight} rpm={rpm} tpm={tpm}>"

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        is_joining = self.sharing is not None and self.sharing.is_joining
        return self.pace.limit if self.gate.is_open and not is_joining else 1

    @property
    def requests(self) -> Bucket | None:
        """The bucket of requests, once its rate is given or learned."""
        return self.pace.requests

    @property
    def tokens(self) -> Bucket | None:
        """The bucket of tokens, once its rate is given or learned."""
        return self.pace.tokens

    @property
    def rate_in_force(self) -> str:
        """The rate that holds requests back now, for people; empty if none does."""
        if not self._waiting:
            return ""
        delay, reason = self._delay(self._waiting[0].tokens)
        if delay in {0.0, float("inf")} or reason == "pause":
            return ""
        return self.pace.describe_rate(reason)

    @property
    def silent_s(self) -> float:
        """Seconds since the server last answered anything."""
        return self.clock() - self._answered_at

    @property
    def has_answered(self) -> bool:
        """Whether the server has answered any request."""
        return self._answered_at > 0

    # -- admit a request ---------------------------------------------------------------------------

    async def acquire(self, tokens: float, lm: LM | None = None) -> Ticket:
        """Wait until a request is admitted, in order of arrival, and reserve its tokens.

        Raises:
            ModelUnavailable: the server has answered nothing for longer than the patience of
                ``lm``; nothing was sent.
        """
        if self.sharing is not None:
            self.sharing.wake()
        if self._waiting or self._delay(tokens)[0] > 0:
            return await self._wait(tokens, lm)
        return self._admit(tokens)

    async def _wait(self, tokens: float, lm: LM | None) -> Ticket:
        with record_wait(self._wait_kind) as wait:
            return await self._wait_in_queue(tokens, lm, wait)

    async def _wait_in_queue(self, tokens: float, lm: LM | None, wait: record_wait) -> Ticket:
        since = waiting_since.get()
        if since is None:
            since = self.clock()
        ticket: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
        place = _Place(ticket, tokens, lm, wait)
        self._queue(place)
        try:
            self._admit_waiting()
            wait.is_told = not ticket.done()
            while not ticket.done():
                left_s = self._patience_left_s(lm, since)
                await asyncio.wait(
                    (ticket, self._next_trouble()),
                    timeout=left_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
        except BaseException:
            if place in self._waiting:
                self._waiting.remove(place)
            elif ticket.done() and ticket.exception() is None:  # it was admitted already
                self.in_flight -= 1
                self.pace.take_back(tokens)
                self._outage.is_probing = False
            self._admit_waiting()
            raise
        try:
            return ticket.result()
        finally:
            del ticket, place  # an error holds this frame: it would hold itself

    @property
    def _wait_kind(self) -> WaitKind:
        """What a request would wait for that comes now."""
        if self._outage.since is not None or self._loading_since is not None:
            return "server"
        return "limit" if self.clock() < self._paused_until else "place"

    def _note_wait_kind(self) -> None:
        """Note what those who wait wait for now, if it is more than their place."""
        kind = self._wait_kind
        if kind == "place":
            return
        for place in self._waiting:
            place.wait.kind = kind

    def _queue(self, place: _Place) -> None:
        """Add a place to the queue, at its end.

        At a gate that is shut, a request that is sent again is the next but one: so it is tried
        twice before a third one goes, and one that is broken by its content does not hold up all.
        """
        if self.gate.is_open or not is_sent_again.get():
            self._waiting.append(place)
        else:
            self._waiting.insert(1, place)

    def fail_waiting(self, error: ModelConfigError, lm: LM) -> None:
        """Fail the requests of a model that wait: none of them would be served."""
        for place in list(self._waiting):
            if place.lm != lm or place.ticket.done():
                continue
            self._waiting.remove(place)
            place.ticket.set_exception(unsent_copy(error))

    @contextlib.contextmanager
    def report_slow_start(self, lm: LM) -> Iterator[None]:
        """Report the first request to a server if it takes long; the others wait for it.

        That the server loads its model is reported already, and is why.
        """
        if self.gate.is_open or self._loading_since is not None:
            yield
            return
        loop = asyncio.get_running_loop()
        left_s = lm.timeout_s - SLOW_FIRST_S
        report = self.reporter.report_slow_start
        timer = loop.call_later(SLOW_FIRST_S, report, SLOW_FIRST_S, left_s)
        try:
            yield
        finally:
            timer.cancel()

    def _next_trouble(self) -> asyncio.Future[None]:
        """Give a future that is done as soon as something new is wrong with the server."""
        if self._trouble_signal is None:
            self._trouble_signal = asyncio.get_running_loop().create_future()
        return self._trouble_signal

    def _set_trouble(self, error: ModelUnavailable | None) -> None:
        """Set what is wrong with the server. If it is new, those who wait check their patience.

        Likewise if the server did not answer in as many requests as it has for its first answer.
        """
        is_new = error is not None and (self._trouble is None or error.gone != self._trouble.gone)
        is_last = self._outage.failures == FIRST_CONTACT_TRIES
        self._trouble = error
        if (is_new or is_last) and self._trouble_signal is not None:
            self._trouble_signal.set_result(None)
            self._trouble_signal = None

    def _patience_left_s(self, lm: LM | None, since: float) -> float | None:
        """Give how long a request may still wait; None if nothing is wrong with the server.

        Raises:
            ModelUnavailable: its patience is used up.
        """
        if self._trouble is None or lm is None:
            return None
        patience = patience_s(lm, self.server, gone=self._trouble.gone)
        left_s = max(since, self._answered_at) + patience - self.clock()
        is_hopeless = self._trouble.gone and self.was_never_reached(lm)
        if left_s > 0 and not is_hopeless:
            return left_s
        error = as_unsent(self._trouble)
        end_run(error, lm, self.server)
        raise error

    def was_never_reached(self, lm: LM) -> bool:
        """Tell whether no server answered here, in as many requests as are enough to know.

        If the user set ``patience_s``, the server is waited for.
        """
        if lm.patience_s is not None or has_answered(self.server):
            return False
        return self._outage.failures >= FIRST_CONTACT_TRIES

    def _admit(self, tokens: float) -> Ticket:
        now = self.clock()
        self.in_flight += 1
        self.pace.take(tokens, now)
        is_probe = self._outage.since is not None
        self._outage.is_probing = is_probe
        return Ticket(now, tokens, is_probe, self.pace.sent, self.pace.sent_tokens)

    def _delay(self, tokens: float) -> tuple[float, str]:
        """Give the seconds until a request may be sent, and the reason.

        They are infinite if only the end of another request can admit it.
        """
        now = self.clock()
        if self.in_flight >= self.limit or self._outage.blocks:
            return float("inf"), ""
        pause_s = max(0.0, self._paused_until - now)
        pace_s, reason = self.pace.wait_s(tokens, now)
        if max(pause_s, pace_s) <= NO_TIME_S:
            return 0.0, ""
        if pace_s > pause_s:
            return pace_s, reason
        return pause_s, "pause"

    def _admit_waiting(self) -> None:
        """Admit all that may be sent now, in order; set a timer for the next one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            place = self._waiting[0]
            delay, reason = self._delay(place.tokens)
            if delay == float("inf"):
                return
            if delay > 0:
                self._report_wait(delay, reason)
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(delay, self._admit_waiting)
                return
            self._waiting.popleft()
            if not place.ticket.done():
                place.ticket.set_result(self._admit(place.tokens))

    def _report_wait(self, delay: float, reason: str) -> None:
        """Report a wait; that of a server which is gone is reported by ``record_failure``."""
        if reason != "pause":
            self.reporter.report(reason, delay, self.pace.describe_rate(reason))
        elif self._outage.since is None and self._pause_reason:
            self.reporter.report(reason, delay, self._pause_reason)

    # -- learn from the outcome of a request -------------------------------------------------------

    def record_answer(self, ticket: Ticket, *, tokens: float, limits: RateLimits | None) -> None:
        """Record that a request was answered; ``tokens`` is its usage, 0 if unknown."""
        now = self._answered_at = self.clock()
        self._answered += 1
        self.unserved.clear()
        self.given_up = 0
        self._end(ticket)
        self._loading_since = None
        if now >= self._paused_until:  # otherwise it was sent before the pause
            self._set_trouble(None)
            self.reporter.end_wait()
        if tokens:
            self.pace.return_tokens(ticket.tokens - tokens)
        self.pace.speed_up(ticket.began, now, self.in_flight)
        if limits is not None:
            self.pace.learn_limits(limits, ticket, now)
        if self.sharing is not None and self.sharing.is_joining:
            self.sharing.exchange_soon()
        self._admit_waiting()

    def record_refusal(
        self,
        ticket: Ticket,
        *,
        retry_after_s: float | None,
        limits: RateLimits | None,
        error: ModelUnavailable | None = None,
    ) -> None:
        """Record that the server said 429."""
        now = self.clock()
        self._refused += 1
        self._end(ticket)
        self._set_trouble(error)
        self.pace.return_tokens(ticket.tokens)
        self.pace.slow_down(ticket, now, self.in_flight, limits=limits, retry_after_s=retry_after_s)
        self._pause(now, retry_after_s, error)
        self._tell_others()
        self._note_wait_kind()
        self._admit_waiting()

    def record_failure(
        self,
        ticket: Ticket,
        *,
        reached: bool,
        retry_after_s: float | None = None,
        error: ModelUnavailable | None = None,
        lm: LM | None = None,
    ) -> None:
        """Record that there was no answer.

        Args:
            ticket: the request.
            reached: whether the server was reached: it had an error, or ran out of time.
            retry_after_s: how long the server asks to wait.
            error: what went wrong.
            lm: whose patience counts.
        """
        now = self.clock()
        self._end(ticket, reached=reached)
        self.pace.return_tokens(ticket.tokens)
        if not reached:
            self._record_outage(ticket, now, error, lm)
        elif retry_after_s is not None:
            self._set_trouble(error)
            self._pause(now, retry_after_s, error)
            self._tell_others()
            self._report_loading(now, error, lm)
        elif self._trouble is not None and self._trouble.gone:  # it is there again
            self._set_trouble(None)
        self._note_wait_kind()
        self._admit_waiting()

    def record_starvation(self, ticket: Ticket, error: ModelUnavailable | None = None) -> None:
        """Record that this process could open no connection: fewer are open from now on."""
        now = self.clock()
        self._end(ticket, reached=False)
        self._set_trouble(error)
        self.pace.return_tokens(ticket.tokens)
        window = self.pace.window
        if window.cap == LARGEST_WINDOW:
            self.reporter.warn(
                "too few file descriptors (ulimit -n): fewer requests at once from now on"
            )
        window.lower_cap(self.in_flight, now)
        if not self.in_flight:  # another part of the process has them all
            self._paused_until = max(self._paused_until, now + PROBE_FIRST_S)
        self._admit_waiting()

    def release(self) -> None:
        """Release the place of a request whose outcome tells nothing: its run has cancelled it."""
        self.in_flight -= 1
        self._outage.is_probing = False
        self._admit_waiting()

    def _end(self, ticket: Ticket, *, reached: bool = True) -> None:
        """Release the place of a request; end the outage if the server was reached."""
        self.in_flight -= 1
        if ticket.probe:
            self._outage.is_probing = False
        if not reached:
            return
        self._reached_at = self.clock()
        if self._outage.since is not None:
            self.reporter.end_wait()
            self._paused_until = 0.0  # it was a pause for the outage
        self._outage.end()

    def _record_outage(
        self, ticket: Ticket, now: float, error: ModelUnavailable | None, lm: LM | None
    ) -> None:
        is_known = has_answered(self.server)
        is_outage = self._outage.count_failure(now, has_answered=is_known)
        self._set_trouble(error)
        if not is_outage:
            return
        self._paused_until = max(self._paused_until, now + self._outage.probe_wait_s)
        patience = PROBE_LONGEST_S * PROBES
        if lm is not None:
            patience = patience_s(lm, self.server, gone=True)
        if ticket.probe:
            self._outage.extend_probe_wait(patience)
        gone_s = now - (self._outage.since or now)
        is_waited_for = is_known or lm is None or lm.patience_s is not None
        if is_waited_for:
            self.reporter.report_ongoing("gone", "server not reached", gone_s, patience - gone_s)
        self._tell_others()

    def _report_loading(self, now: float, error: ModelUnavailable | None, lm: LM | None) -> None:
        """Report that the server loads its model, if it does."""
        if error is None or lm is None or not error.loading:
            return
        since = self._loading_since = self._loading_since or now
        loading_s = now - since
        left_s = patience_s(lm, self.server, gone=False) - loading_s
        self.reporter.report_ongoing("loading", "the model is being loaded", loading_s, left_s)

    def _pause(
        self, now: float, retry_after_s: float | None, error: ModelUnavailable | None
    ) -> None:
        if retry_after_s is not None and now + retry_after_s > self._paused_until:
            self._paused_until = self._asked_until = now + retry_after_s
            self._pause_reason = "" if error is None else _shorten(error)

    # -- share with other processes ----------------------------------------------------------------

    def describe(self, report: PaceReport) -> PaceReport:
        """Complete what this process says to others that have the same limits."""
        report = replace(
            report,
            pending=self.in_flight + len(self._waiting),
            answered=self._answered,
            refused=self._refused,
            paused_until=self._asked_until,
            gone_since=self._outage.since,
        )
        return self.pace.describe(report)

    def begin_counting(self) -> None:
        """Count from now on what the server answers, to tell the others."""
        self._answered = self._refused = 0

    def admit(self) -> None:
        """Admit what may be sent now."""
        self._admit_waiting()

    def follow(
        self, others: Sequence[PaceReport], active: Sequence[PaceReport], own_joined_at: float
    ) -> None:
        """Follow what other processes say that have the same limits.

        Args:
            others: all of them, those too that have ended while a pause goes on.
            active: those that have requests.
            own_joined_at: when this process began to share.
        """
        for other in others:
            if other.paused_until > self._paused_until:
                self._paused_until = other.paused_until
                self._pause_reason = "another process was asked to wait"
                self._set_trouble(self._trouble or ModelUnavailable(ASKED_ANOTHER, busy=True))
        for other in active:
            if other.gone_since is not None and other.gone_since > self._reached_at:
                self._outage.begin(other.gone_since)  # one request goes, and shows it
        self.pace.follow(active, own_joined_at, self.in_flight, self.clock())
        self._admit_waiting()

    def _tell_others(self) -> None:
        if self.sharing is not None:
            self.sharing.exchange_soon()


def _shorten(error: ModelUnavailable) -> str:
    """Give the reason of a pause in few words; empty if it is reported as a longer wait."""
    if error.loading:
        return ""
    if error.status is not None:
        return str(error.status)
    return first_sentence(str(error))
