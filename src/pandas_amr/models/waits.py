"""What requests wait for, told: in the log once per wait and server, and to whoever watches a run."""

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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOGGER = logging.getLogger("pandas_amr")
TOLD_S = 1.5  # a wait shorter than this is no news
LOUD_S = 10.0  # and one longer than this is a warning
QUIET_S = 30.0  # until the same is told again
FAR_S = 12 * 3600.0
FARTHEST_S = 366 * 86400.0


def clock_time(seconds: float) -> str:
    """The time of day in so many seconds, with the date if that is far."""
    at = dt.datetime.now().astimezone() + dt.timedelta(seconds=min(max(0.0, seconds), FARTHEST_S))
    if seconds > FARTHEST_S:
        return f"after {at:%Y-%m-%d}"
    return f"{at:%Y-%m-%d %H:%M}" if seconds > FAR_S else f"{at:%H:%M:%S}"


def first_sentence(text: str) -> str:
    """What a text says first, without its full stop.

    Example:
        >>> first_sentence("No answer within 0.2 s. Check the network.")
        'No answer within 0.2 s'
    """
    return text.partition(". ")[0].rstrip(".")


@dataclass(slots=True)
class Teller:
    """Tells the waits of one server.

    Attributes:
        server: its address; only host and port are told.
        text: the last wait that was told; empty once it is over.
    """

    server: str = ""
    text: str = ""
    _kind: str = ""
    _until: float = 0.0
    _listeners: Counter[Waits] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        """Host and port, for people."""
        return urlsplit(self.server).netloc.rpartition("@")[2] or "the server"

    def tell(self, kind: str, seconds: float, reason: str, *, why: str = "") -> None:
        """Tell a wait, if it is long enough and was not told just now.

        Args:
            kind: waits of one kind are told once, until they are over for a while.
            seconds: how long it lasts.
            reason: what is waited for.
            why: which setting bounds it.
        """
        now = CLOCK.now()
        if seconds < TOLD_S or (kind == self._kind and now < self._until + QUIET_S):
            return
        self._kind, self._until = kind, now + seconds
        self.text = f"{self.name}: {reason}, waiting until {clock_time(seconds)}{f' ({why})' if why else ''}"
        LOGGER.log(logging.WARNING if seconds >= LOUD_S else logging.INFO, "%s", self.text)
        for waits in list(self._listeners):
            waits.changed()

    def note(self, text: str) -> None:
        """Tell what is no wait."""
        LOGGER.warning("%s: %s", self.name, text)

    def over(self) -> None:
        """What was waited for has come."""
        if not self.text:
            return
        self.text = ""
        if self._kind == "gone":
            self._kind = ""
            LOGGER.warning("%s: reached again", self.name)
        for waits in list(self._listeners):
            waits.changed()

    @property
    def current(self) -> str:
        """The wait that goes on now; empty if there is none."""
        return self.text if CLOCK.now() < self._until else ""

    def begin(self, waits: Waits | None) -> None:
        """A request of a run begins to wait."""
        if waits is None:
            return
        self._listeners[waits] += 1
        waits.tellers[self] += 1
        if self.text:
            waits.changed()

    def end(self, waits: Waits | None) -> None:
        """It waits no more."""
        if waits is None:
            return
        self._listeners[waits] -= 1
        waits.tellers[self] -= 1
        if not self._listeners[waits]:
            del self._listeners[waits], waits.tellers[self]
            if self.text:
                waits.changed()

    __hash__ = object.__hash__
    __eq__ = object.__eq__


class Waits:
    """What the requests of one run wait for; ``show`` is called whenever that is another thing."""

    def __init__(self) -> None:
        self.tellers: Counter[Teller] = Counter()
        self.show: Callable[[str], None] | None = None

    @contextlib.contextmanager
    def shown_by(self, show: Callable[[str], None]) -> Iterator[None]:
        """Show in the block what is waited for."""
        before, self.show = self.show, show
        try:
            yield
        finally:
            self.show = before

    @property
    def text(self) -> str:
        """What is waited for now, and until when; empty if nothing is."""
        return "; ".join(teller.current for teller in list(self.tellers) if teller.current)

    def changed(self) -> None:
        """Show what is waited for now."""
        if self.show is not None:
            self.show(self.text)


run_waits: ContextVar[Waits | None] = ContextVar("pandas_amr_waits", default=None)


@contextlib.contextmanager
def noting_waits(waits: Waits) -> Iterator[None]:
    """Let requests in the block tell a run what they wait for; inside another run, that one."""
    token = run_waits.set(run_waits.get() or waits)
    try:
        yield
    finally:
        run_waits.reset(token)
