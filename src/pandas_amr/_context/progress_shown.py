"""Show a run while it goes on: from a thread, so that a slow stream delays no request."""

from __future__ import annotations

import asyncio
import contextvars
import os
import queue
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from pandas_amr._context.progress_bars import LogLines, make_display
from pandas_amr._context.progress_view import make_last_view, make_view
from pandas_amr._records.log import LOGGER, has_readers
from pandas_amr._records.raised import describe_error

if TYPE_CHECKING:
    from pandas_amr._context.progress import Watch
    from pandas_amr._context.progress_bars import Display
    from pandas_amr._context.progress_view import Ending, Moment, ProgressView

MOST_QUEUED = 64  # views that a slow stream has not taken yet: no further ticks are queued
CLOSE_S = 2.0  # a stream that takes longer does not hold up the result

Closed: TypeAlias = "asyncio.Future[None]"

_is_shown: contextvars.ContextVar[bool] = contextvars.ContextVar("pandas_amr_shown", default=False)


@dataclass(slots=True)
class Sheet:
    """What one run is drawn on.

    Attributes:
        display: draws.
        context: that of the run, by which a notebook finds the cell.
        is_broken: whether a stream has raised; nothing more is drawn.
    """

    display: Display
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    is_broken: bool = False

    def draw(self, view: ProgressView) -> None:
        """Draw a view, as long as the stream can be written to."""
        if self.is_broken:
            return
        try:
            self.context.run(self.display.show, view)
        except Exception as error:  # noqa: BLE001 (nobody watches any more, or the stream is the user's)
            LOGGER.debug("Progress is not shown any more: %s", describe_error(error))
            self.is_broken = True


class Painter:
    """Draws the views of all runs of this process, one after the other, on a thread of its own."""

    def __init__(self) -> None:
        self._views: queue.SimpleQueue[tuple[Sheet, ProgressView, Closed | None]]
        self._views = queue.SimpleQueue()
        thread = threading.Thread(target=self._draw_all, name="pandas-amr-progress", daemon=True)
        thread.start()

    @property
    def is_late(self) -> bool:
        """Whether many views are still to be drawn."""
        return self._views.qsize() >= MOST_QUEUED

    def draw(self, sheet: Sheet, view: ProgressView, closed: Closed | None = None) -> None:
        """Draw a view soon; ``closed`` is done once it is drawn."""
        self._views.put((sheet, view, closed))

    def _draw_all(self) -> None:
        while True:
            sheet, view, closed = self._views.get()
            sheet.draw(view)
            if closed is not None and not closed.get_loop().is_closed():
                closed.get_loop().call_soon_threadsafe(_finish, closed)


_painters: dict[int, Painter] = {}  # by process: a fork has no thread of its own


def _painter() -> Painter:
    process = os.getpid()
    if process not in _painters:
        _painters[process] = Painter()
    return _painters[process]


class ShownProgress:
    """Shows one run, from its first stage to its end; a run begun within it shows nothing.

    It is used on the engine's loop.

    Args:
        watch: knows how far the run is.
        about: what is run, for people.
        shown: as the setting ``progress``.
    """

    def __init__(self, watch: Watch, about: str, *, shown: bool | None) -> None:
        self._watch = watch
        self._about = about
        self._shown = shown
        self._sheet: Sheet | None = None
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
        if self._sheet is not None:
            self._draw("stage")
            return
        display = make_display(self._about, shown=self._shown)
        if display is None:
            self._end_updates()
            return
        self._sheet = Sheet(display)
        self._draw("begin")
        self._start_timer()

    def _show_wait(self, text: str) -> None:
        if self._sheet is not None and text != self._waiting:
            self._waiting = text
            self._draw("wait")

    def _start_timer(self) -> None:
        assert self._sheet is not None
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._sheet.display.tick_s, self._tick)

    def _tick(self) -> None:
        if not _painter().is_late:
            self._draw("tick")
        self._start_timer()

    def _draw(self, moment: Moment) -> None:
        assert self._sheet is not None
        _painter().draw(self._sheet, make_view(self._watch, moment))

    def _end_updates(self) -> None:
        self._watch.steps.on_stage = self._watch.waits.show = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def end(self, ending: Ending) -> None:
        """Show how the run ended, if anything of it was shown; log what nobody may miss."""
        self._end_updates()
        view = make_last_view(self._watch, ending)
        self._log_end(view, ending)
        if self._sheet is None:
            return
        closed: Closed = asyncio.get_running_loop().create_future()
        _painter().draw(self._sheet, view, closed)
        await asyncio.wait([closed], timeout=CLOSE_S)

    def _log_end(self, view: ProgressView, ending: Ending) -> None:
        """Log how the run ended: at WARNING if not well, whatever else is shown.

        Without anybody who takes what is logged, Python would write that to stderr, where an error
        or a warning stands already.
        """
        title = f"{view.title} ({ending.reason})" if ending.reason else view.title
        line = replace(view, title=title).line
        is_good = ending.outcome == "done" and not ending.reason
        if is_good or self._watch.has_logged_stop:
            if self._sheet is not None and isinstance(self._sheet.display, LogLines):
                LOGGER.info("%s: %s", self._about, line)
        elif has_readers() or not ending.is_told:
            LOGGER.warning("%s: %s", self._about, line)


def _finish(closed: Closed) -> None:
    if not closed.done():
        closed.set_result(None)
