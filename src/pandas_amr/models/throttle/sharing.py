"""Share a throttle's limits with other processes: reports out, and what they say in."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pandas_amr._records.log import LOGGER
from pandas_amr.models.lease import LeaseError, PaceReport, Peer, in_lease_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr.models.lease import PaceLease
    from pandas_amr.models.throttle.throttle import Throttle

PERIOD_S = 0.1  # between exchanges, if few requests are sent
SHORT_PERIOD_S = 0.02  # if many are, or if processes join
REQUESTS_PER_PERIOD = 2.0
LONGEST_JOINING_S = 0.5  # in which requests go one at a time; a disk that hangs holds up none
JOINING_EXCHANGES = 2  # after which it knows of those that begin at the same moment
JOINING_S = 2.0  # for which a process that has joined counts as one that wants more
HELD_S = 1.0  # likewise one that was held back
USE_S = 1.0  # over which the use of a rate is measured
LEAVE_AFTER_S = 5.0  # without a request

_reported: set[str] = set()  # why nothing is shared


@dataclass(slots=True)
class _Sent:
    """What was sent until a moment."""

    at: float
    requests: float
    tokens: float


@dataclass(eq=False)
class Sharing:
    """Exchanges what processes say of their requests to one server, key and model.

    It goes on while there are requests, on the loop that sends them; the file is used in a thread.
    If the lease cannot be exchanged, this process goes on alone.

    Attributes:
        throttle: whose limits are shared.
        lease: where they are.
    """

    throttle: Throttle
    lease: PaceLease
    _loop: asyncio.AbstractEventLoop | None = None
    _timer: asyncio.TimerHandle | None = None
    _exchange: asyncio.Future[Sequence[Peer]] | None = None
    _joined_at: float = 0.0
    _pending_at: float = 0.0
    _held_at: float = 0.0
    _is_again: bool = False
    _joining: asyncio.TimerHandle | None = None
    _exchanges: int = 0
    _is_informed: bool = False
    _followed_at: float = 0.0
    _changed_at: float = 0.0
    _history: deque[_Sent] = field(default_factory=deque)
    _known: dict[str, PaceReport] = field(default_factory=dict)

    @property
    def is_joining(self) -> bool:
        """Whether this process does not know yet of others; that takes as long as a file.

        Those that began at the same moment are known once it has looked after its first answer.
        """
        return self._joining is not None

    def wake(self) -> None:
        """Begin to share, unless that goes on already: a request wants to be sent."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        self._loop = loop
        now = self.throttle.clock()
        self._joined_at = self._changed_at = self._pending_at = now
        self._history.clear()
        self._known.clear()
        self._exchange = None
        self._exchanges = 0
        self.throttle.begin_counting()
        self.throttle.pace.begin_sharing(now)
        self._joining = loop.call_later(LONGEST_JOINING_S, self._stop_joining)
        self._begin_exchange()

    def _stop_joining(self) -> None:
        """End it, whatever the disk does; at a gate that is shut, requests go one by one anyway."""
        if self._loop is None or self.throttle.gate.is_open:
            self._end_joining()
        else:
            self._joining = self._loop.call_later(LONGEST_JOINING_S, self._stop_joining)

    def _end_joining(self) -> None:
        if self._joining is not None:
            self._joining.cancel()
            self._joining = None
            self.throttle.admit()

    def exchange_soon(self) -> None:
        """Tell the others at once, and not at the end of the period."""
        if self._loop is None:
            return
        if self._exchange is not None:
            self._is_again = True
        else:
            self._begin_exchange()

    def _begin_exchange(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._is_again = False
        self._is_informed = self.throttle.gate.is_open
        now = self.throttle.clock()
        report = self._report(now)
        if report.pending:
            self._pending_at = now
        is_idle = now - self._pending_at > LEAVE_AFTER_S
        if is_idle or self.throttle.sharing is not self:
            self._leave(report)
            return
        self._exchange = in_lease_thread(self.lease.exchange, report)
        self._exchange.add_done_callback(self._end_exchange)

    def _end_exchange(self, exchange: asyncio.Future[Sequence[Peer]]) -> None:
        if exchange is not self._exchange or exchange.cancelled():
            return
        self._exchange = None
        error = exchange.exception()
        if error is not None:
            self._go_on_alone(error)
            return
        now = self.throttle.clock()
        self._follow(exchange.result(), now)
        self._exchanges += 1
        if self._is_informed and self._exchanges >= JOINING_EXCHANGES:
            self._end_joining()
        if self._is_again:
            self._begin_exchange()
        else:
            assert self._loop is not None
            self._timer = self._loop.call_later(self._period_s(now), self._begin_exchange)

    def _follow(self, peers: Sequence[Peer], now: float) -> None:
        """Follow what the others say."""
        living = {peer.name: peer.report for peer in peers if peer.lives}
        has_met = not self._known and bool(living)
        if living.keys() != self._known.keys():
            self._changed_at = now
        self._count_answers(living, now)
        self._followed_at = now
        if has_met:
            self.throttle.pace.meet(now)
        self._known = living
        active = [one for one in living.values() if one.pending or one.requests_per_s]
        self.throttle.follow([peer.report for peer in peers], active, self._joined_at)

    def _count_answers(self, living: dict[str, PaceReport], now: float) -> None:
        """Count the answers to the others since the last exchange."""
        for name, report in living.items():
            former = self._known.get(name)
            if former is None:
                # Only what it did since this process joined concerns it.
                former = PaceReport() if report.joined_at >= self._joined_at else report
            self.throttle.pace.count_others(
                answered=report.answered - former.answered,
                refused=report.refused - former.refused,
                since=self._followed_at,
                now=now,
            )

    def _report(self, now: float) -> PaceReport:
        throttle = self.throttle
        pace = throttle.pace
        history = self._history
        history.append(_Sent(now, pace.sent, pace.sent_tokens))
        while len(history) > 2 and history[1].at < now - USE_S:
            history.popleft()
        first = history[0]
        seconds = max(USE_S, now - first.at)
        if throttle.rate_in_force:
            self._held_at = now
        is_joining = now - self._joined_at < JOINING_S
        is_held = bool(self._held_at) and now - self._held_at < HELD_S
        report = PaceReport(
            joined_at=self._joined_at,
            is_held=is_joining or is_held,
            requests_per_s=(pace.sent - first.requests) / seconds,
            tokens_per_s=(pace.sent_tokens - first.tokens) / seconds,
        )
        return throttle.describe(report)

    def _period_s(self, now: float) -> float:
        """Give the seconds until the next exchange: fewer if more happens in them."""
        if now - self._changed_at < JOINING_S:
            return SHORT_PERIOD_S
        per_s = sum((one.requests_per_s for one in self._known.values()), 0.0)
        if len(self._history) > 1:
            last, before = self._history[-1], self._history[0]
            per_s += (last.requests - before.requests) / max(USE_S, last.at - before.at)
        if not self._known or not per_s:
            return PERIOD_S
        return min(PERIOD_S, max(SHORT_PERIOD_S, REQUESTS_PER_PERIOD / per_s))

    def _leave(self, report: PaceReport) -> None:
        """Leave: nothing was sent for a while. The share stays until others are known again."""
        self._loop = None
        leaving = in_lease_thread(self.lease.leave, report)
        leaving.add_done_callback(self._end_leaving)

    def _end_leaving(self, leaving: asyncio.Future[None]) -> None:
        error = None if leaving.cancelled() else leaving.exception()
        if error is not None:
            self._go_on_alone(error)

    def _go_on_alone(self, error: BaseException) -> None:
        """Share nothing from now on; say so once."""
        self._loop = None
        if self.throttle.sharing is self:
            self.throttle.sharing = None
        text = str(error) if isinstance(error, LeaseError) else repr(error)
        if text not in _reported:
            _reported.add(text)
            LOGGER.warning("The limits are not shared with other processes: %s", text)
        self.throttle.follow([], [], self._joined_at)
        self._end_joining()
