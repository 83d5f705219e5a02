"""Report what requests wait for: in the log, once per wait and server, and to the run."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pandas_amr._records.clock import CLOCK
from pandas_amr._records.log import LOGGER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPORTED_S = 1.5  # a shorter wait is not reported
LOUD_S = 10.0  # a longer wait is logged as a warning
QUIET_S = 30.0  # after a wait, until one of its kind is reported again
FAR_S = 12 * 3600.0
FARTHEST_S = 366 * 86400.0


def clock_time(seconds: float) -> str:
    """Give the time of day in so many seconds, with the date if that is far."""
    delay = dt.timedelta(seconds=min(max(0.0, seconds), FARTHEST_S))
    at = dt.datetime.now().astimezone() + delay
    if seconds > FARTHEST_S:
        return f"after {at:%Y-%m-%d}"
    if seconds > FAR_S:
        return f"{at:%Y-%m-%d %H:%M}"
    return f"{at:%H:%M:%S}"


def first_sentence(text: str) -> str:
    """Give the first sentence of a text, without its full stop.

    Example:
        >>> first_sentence("No answer within 0.2 s. Check the network.")
        'No answer within 0.2 s'
    """
    return text.partition(". ")[0].rstrip(".")


def host_of(server: str) -> str:
    """Give host and port of a server's address, without user and password.

    Example:
        >>> host_of("http://user:secret@127.0.0.1:8000/v1")
        '127.0.0.1:8000'
    """
    return urlsplit(server).netloc.rpartition("@")[2]


@dataclass(slots=True)
class WaitReporter:
    """Reports the waits for one server.

    Attributes:
        server: its address; only host and port are shown.
        text: the last reported wait; empty once it is over.
    """

    server: str = ""
    text: str = ""
    _kind: str = ""
    _until: float = 0.0
    _logged_at: float = 0.0
    _runs: Counter[Waits] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        """Host and port, for people."""
        return host_of(self.server) or "the server"

    def report(self, kind: str, seconds: float, reason: str, setting: str = "") -> None:
        """Report a wait, if it is long enough and was not reported just now.

        Args:
            kind: waits of one kind are reported once, until they are over for a while.
            seconds: how long it lasts.
            reason: what is waited for.
            setting: which setting bounds it.
        """
        now = CLOCK.now()
        is_repeated = kind == self._kind and now < self._until + QUIET_S
        if seconds < REPORTED_S or is_repeated:
            return
        self._kind, self._until = kind, now + seconds
        bound = f" ({setting})" if setting else ""
        self.text = f"{self.name}: {reason}, waiting until {clock_time(seconds)}{bound}"
        level = logging.WARNING if seconds >= LOUD_S else logging.INFO
        LOGGER.log(level, "%s", self.text)
        self._notify_runs()

    def report_slow_start(self, waited_s: float, left_s: float) -> None:
        """Report that a first request has no answer yet; large models may take so long."""
        self._kind, self._until = "first", CLOCK.now() + left_s
        self.text = (
            f"{self.name}: no answer to the first request for {waited_s:g} s, the others wait for "
            f"it, waiting until {clock_time(left_s)} (timeout_s)"
        )
        LOGGER.info("%s", self.text)
        self._notify_runs()

    def report_ongoing(self, kind: str, reason: str, so_far_s: float, left_s: float) -> None:
        """Report a wait whose end is not known, each time that it goes on.

        The log has its begin as a warning, and then at most one line per ``QUIET_S``.

        Args:
            kind: waits of one kind are one wait, until it is over.
            reason: what is waited for.
            so_far_s: for how long already.
            left_s: for how long it is waited for from now on, by ``patience_s``.
        """
        now = CLOCK.now()
        is_begin = kind != self._kind or not self.text
        self._kind, self._until = kind, now + max(0.0, left_s)
        until = clock_time(left_s)
        reason = f"{reason} for {so_far_s:.0f} s"
        self.text = f"{self.name}: {reason}, waiting until {until} (patience_s)"
        if is_begin:
            LOGGER.warning("%s", self.text)
            self._logged_at = now
        elif now - self._logged_at >= QUIET_S:
            LOGGER.info("%s", self.text)
            self._logged_at = now
        self._notify_runs()

    def warn(self, text: str) -> None:
        """Log something that is not a wait."""
        LOGGER.warning("%s: %s", self.name, text)

    def end_wait(self) -> None:
        """End the wait, if there is one."""
        if not self.text:
            return
        self.text = ""
        if self._kind == "gone":
            self._kind = ""
            LOGGER.warning("%s: reached again", self.name)
        self._notify_runs()

    def _notify_runs(self) -> None:
        for waits in list(self._runs):
            waits.notify()

    @property
    def current(self) -> str:
        """The wait that goes on now; empty if there is none."""
        return self.text if CLOCK.now() < self._until else ""

    def subscribe(self, waits: Waits | None) -> None:
        """Let a run know of waits while one of its requests is under way."""
        if waits is None:
            return
        self._runs[waits] += 1
        waits.reporters[self] += 1
        if self.text:
            waits.notify()

    def unsubscribe(self, waits: Waits | None) -> None:
        """Undo one ``subscribe``."""
        if waits is None:
            return
        self._runs[waits] -= 1
        waits.reporters[self] -= 1
        if not self._runs[waits]:
            del self._runs[waits], waits.reporters[self]
            if self.text:
                waits.notify()

    __hash__ = object.__hash__
    __eq__ = object.__eq__


class Waits:
    """What the requests of one run wait for; ``show`` is called at each change."""

    def __init__(self) -> None:
        self.reporters: Counter[WaitReporter] = Counter()
        self.show: Callable[[str], None] | None = None

    @property
    def text(self) -> str:
        """The waits that go on now, and until when; empty if there are none."""
        waits = [reporter.current for reporter in list(self.reporters)]
        return "; ".join(filter(None, waits))

    def notify(self) -> None:
        """Show the waits that go on now."""
        if self.show is not None:
            self.show(self.text)


run_waits: ContextVar[Waits | None] = ContextVar("pandas_amr_waits", default=None)


@contextlib.contextmanager
def collect_waits(waits: Waits) -> Iterator[None]:
    """Collect the waits of the requests in the block; in a sub-run the parent run collects them."""
    token = run_waits.set(run_waits.get() or waits)
    try:
        yield
    finally:
        run_waits.reset(token)
