"""Hand events to a function of the user's: in order, on a thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import queue
import threading
import traceback
from collections import deque
from typing import TYPE_CHECKING, Any

from pandas_amr._context.settings import settings
from pandas_amr._records.raised import describe_error
from pandas_amr.errors import EventWarning

if TYPE_CHECKING:
    from collections.abc import Callable

    from pandas_amr._records.events import Event
    from pandas_amr._records.trace import Listener

GRACE_S = 5.0  # for which a run that has ended waits until its listener has had all events
MOST_BEHIND = 100_000  # events that wait for a slow listener
HAND_OVER_S = 0.1  # between hand-overs: each wakes the thread, which takes more than an event
WAKE, END = True, False  # what the thread is told
NOT_AGAIN = "it is not called again in this run"


class Delivery:
    """Hands events to a function, in order, on a thread of its own.

    So a slow function does not hold up the run, and it may itself use this library. If it raises,
    or does not keep up, there is one warning, and it is not called again.

    It is used on the engine's loop.

    Args:
        function: the user's.
        warn: takes the warning, on the loop.
        listeners: those of the run: it is one of them as long as it hands events over.
    """

    def __init__(
        self,
        function: Callable[[Event], Any],
        warn: Callable[[EventWarning], None],
        listeners: list[Listener],
    ) -> None:
        self._function = function
        self._warn = warn
        self._listeners = listeners
        self._loop = asyncio.get_running_loop()
        self._events: deque[Event] = deque()  # the first one may be with the function just now
        self._wakes: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._idle: asyncio.Future[None] = self._loop.create_future()
        self._is_over = False
        context = contextvars.copy_context()
        threading.Thread(
            target=context.run, args=(self._serve,), name="pandas-amr-events", daemon=True
        ).start()
        # There are six events for each call of a model: an append takes the least.
        listeners.append(self._events.append)
        self._timer = self._loop.call_later(HAND_OVER_S, self._hand_over)

    def _hand_over(self) -> None:
        """Wake the thread if there are events, and again after a while."""
        self._timer = self._loop.call_later(HAND_OVER_S, self._hand_over)
        if self._events and self._wakes.empty():
            self._wakes.put(WAKE)
        if len(self._events) > MOST_BEHIND:
            self._stop(f"on_event is {MOST_BEHIND:,} events behind the run; {NOT_AGAIN}.")

    async def end(self) -> None:
        """Wait until the function has had all events, but not for ever."""
        self._hand_over()
        self._timer.cancel()
        self._wakes.put(END)
        if self._is_over:
            return
        await asyncio.wait([self._idle], timeout=GRACE_S)
        if not self._idle.done() and not self._is_over:
            behind = f"{len(self._events):,} events behind"
            self._stop(f"on_event is {behind} {GRACE_S:g} s after the run's end; {NOT_AGAIN}.")

    def _stop_for(self, error: BaseException) -> None:
        """Say what the function raised, and where."""
        place = ""
        frames = traceback.extract_tb(error.__traceback__)
        if len(frames) > 1:  # the first one is ours
            place = f" ({frames[-1].filename}, line {frames[-1].lineno})"
        happened = f"on_event raised {type(error).__name__}"
        self._stop(
            f"on_event raised {describe_error(error)}{place}; {NOT_AGAIN}.",
            logged=f"{happened}; {NOT_AGAIN}.",
        )

    def _stop(self, reason: str, *, logged: str | None = None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._timer.cancel()
        self._listeners.remove(self._events.append)
        warning = EventWarning(reason)
        warning.logged = logged
        self._warn(warning)

    def _serve(self) -> None:
        """Call the function with one event after the other; it is not called for its own runs."""
        with settings(on_event=None):
            self._call_until_end()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_finish, self._idle)

    def _call_until_end(self) -> None:
        function, events = self._function, self._events
        try:
            while self._wakes.get():
                while events and not self._is_over:
                    given = function(events[0])
                    if given is not None:
                        _refuse_coroutine(given)
                    events.popleft()
        except BaseException as error:  # noqa: BLE001 (a listener never breaks a run)
            self._loop.call_soon_threadsafe(self._stop_for, error)


def _refuse_coroutine(given: object) -> None:
    """Refuse what an asynchronous listener gives: nobody would await it."""
    if inspect.iscoroutine(given):
        given.close()
        raise TypeError("what it gives is awaited by nobody")


def _finish(idle: asyncio.Future[None]) -> None:
    if not idle.done():
        idle.set_result(None)
