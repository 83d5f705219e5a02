"""Show a run while it goes on: from a thread, so that a slow stream delays no request."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from typing import TYPE_CHECKING, TypeAlias

from pandas_amr._context.progress_bars import make_display
from pandas_amr._context.progress_view import make_last_view, make_view
from pandas_amr._records.raised import describe_error
from pandas_amr.models.waits import LOGGER

if TYPE_CHECKING:
    from pandas_amr._context.progress import Watch
    from pandas_amr._context.progress_bars import Display
    from pandas_amr._context.progress_view import Moment, Outcome, ProgressView

MOST_WAITING = 4  # views that a slow stream has not taken yet: no further ones are made
CLOSE_S = 2.0  # a stream that takes longer does not hold up the result

Closed: TypeAlias = "asyncio.Future[None]"

_is_shown: contextvars.ContextVar[bool] = contextvars.ContextVar("pandas_amr_shown", default=False)


class ShownProgress:
    """Shows one run, from its first stage to its end; a run begun within it shows nothing.

    All but the display itself is called on the engine's loop.

    Args:
        watch: knows how far the run is.
        about: what is run, for people.
        shown: as the setting ``progress``.
    """

    def __init__(self, watch: Watch, about: str, *, shown: bool | None) -> None:
        self._watch = watch
        self._about = about
        self._shown = shown
        self._views: queue.SimpleQueue[tuple[ProgressView, Closed | None]] = queue.SimpleQueue()
        self._display: Display | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting = ""

    def begin(self) -> None:
        """Show the run once its first stage begins."""
        if _is_shown.get():
            return
        _is_shown.set(True)
        self._watch.steps.on_stage = self._show_stage
        self._watch.waits.show = self._show_wait

    def _show_stage(self) -> None:
        if self._display is not None:
            self._put("stage")
            return
        try:
            self._display = make_display(self._about, shown=self._shown)
        except Exception as error:  # noqa: BLE001 (a stream of the user's)
            LOGGER.debug("No progress is shown: %s", describe_error(error))
        if self._display is None:
            self._forget()
            return
        context = contextvars.copy_context()  # a notebook finds the cell by it
        thread = threading.Thread(
            target=context.run, args=(self._draw, self._display), name="pandas-amr-progress"
        )
        thread.daemon = True
        thread.start()
        self._put("begin")
        self._start_timer()

    def _show_wait(self, text: str) -> None:
        if self._display is not None and text != self._waiting:
            self._waiting = text
            self._put("wait")

    def _start_timer(self) -> None:
        assert self._display is not None
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._display.tick_s, self._tick)

    def _tick(self) -> None:
        if self._views.qsize() < MOST_WAITING:
            self._put("tick")
        self._start_timer()

    def _put(self, moment: Moment) -> None:
        self._views.put((make_view(self._watch, moment), None))

    def _forget(self) -> None:
        """Show nothing more."""
        self._watch.steps.on_stage = self._watch.waits.show = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def end(self, outcome: Outcome, ending: str, *, is_complete: bool) -> None:
        """Show how the run ended, if anything of it was shown.

        Args:
            outcome: whether it ended well.
            ending: how, in a word.
            is_complete: whether it came to its end, well or not.
        """
        self._forget()
        if self._display is None:
            return
        closed: Closed = asyncio.get_running_loop().create_future()
        view = make_last_view(self._watch, outcome, ending, is_complete=is_complete)
        self._views.put((view, closed))
        await asyncio.wait([closed], timeout=CLOSE_S)

    def _draw(self, display: Display) -> None:
        """Draw one view after the other, on the thread of the display."""
        is_drawn = True
        closed: Closed | None = None
        while closed is None:
            view, closed = self._views.get()
            if not is_drawn:
                continue
            try:
                display.show(view)
            except Exception as error:  # noqa: BLE001 (nobody watches any more, or the stream is the user's)
                LOGGER.debug("Progress is not shown any more: %s", describe_error(error))
                is_drawn = False
        loop = closed.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(_finish, closed)


def _finish(closed: Closed) -> None:
    if not closed.done():
        closed.set_result(None)
