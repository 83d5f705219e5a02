"""Bars and lines that show a run: in a terminal, in a notebook, in a log."""

from __future__ import annotations

import contextlib
import html
import logging
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from pandas_amr._records.log import LOGGER

if TYPE_CHECKING:
    from pandas_amr._context.progress_view import Outcome, ProgressView

TICK_S = 0.2
NOTEBOOK_TICK_S = 0.5  # each is a message to the browser
LINES_TICK_S = 30.0
NEVER_S = 1e9
LENGTH = 1000  # of a bar, in whole steps
TEXT_TITLE, TEXT_BAR = 19, 24  # characters
TITLE_WIDTH, TIMES_WIDTH = "11em", "14em"

ERASE_REST = "\x1b[K"  # of a line: another bar may have been there
TERMINAL_FORMAT = "{desc} {percentage:3.0f}%|{bar:20}| {elapsed}{postfix}" + ERASE_REST
COLOURS: dict[Outcome, str | None] = {
    "running": None,
    "done": "green",
    "partial": "yellow",
    "failed": "red",
}
ANSI_CODES: dict[Outcome, str] = {
    "running": "",
    "done": "\x1b[32m",
    "partial": "\x1b[33m",
    "failed": "\x1b[31m",
}
WIDGET_STYLES: dict[Outcome, str] = {
    "running": "info",
    "done": "success",
    "partial": "warning",
    "failed": "danger",
}


_open_bars: list[TerminalBar] = []  # all are drawn by one thread

# Whether runs draw bars for people who watch; not where the log is all that may stand on stderr.
draws_bars: ContextVar[bool] = ContextVar("pandas_amr_bars", default=True)


class Display(Protocol):
    """Shows views of one run, one after the other, from one thread.

    Attributes:
        tick_s: after how many seconds another view is wanted.
    """

    tick_s: float

    def show(self, view: ProgressView) -> None:
        """Show how far the run is, or how it ended."""
        ...


class TerminalBar:
    """A bar of tqdm: several at once have a line each, those of the user's among them."""

    tick_s = TICK_S

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: Any = None

    def show(self, view: ProgressView) -> None:
        """Draw the line again; at the end leave it, above those of runs that go on."""
        try:
            if self._bar is None:
                self._open()
            self._draw(view)
        except (
            BaseException
        ):  # the stream cannot be written to: other bars do not wait for this one
            self._forget()
            raise

    def _open(self) -> None:
        from tqdm.auto import tqdm  # noqa: PLC0415 (loaded when the first bar is shown)

        self._bar = tqdm(
            total=LENGTH,
            file=self._stream,
            dynamic_ncols=True,
            bar_format=TERMINAL_FORMAT,
            delay=NEVER_S,  # the first view draws it
        )
        _open_bars.append(self)

    def _draw(self, view: ProgressView) -> None:
        bar = self._bar
        bar.n = round(view.share * LENGTH)
        bar.colour = COLOURS[view.outcome]
        bar.set_description_str(view.title, refresh=False)
        bar.set_postfix_str(", ".join(filter(None, (view.left, view.details))), refresh=False)
        if view.moment == "end":
            self._close()
        else:
            bar.refresh()

    def _close(self) -> None:
        """Draw the line for the last time, on top; move up the bars that were below.

        Of itself tqdm lets them stay as far below as they were, and leaves their old lines there.
        """
        _open_bars.remove(self)
        others = [one._bar for one in _open_bars if one._stream is self._stream]  # noqa: SLF001 (of this class)
        with self._bar.get_lock():
            place = self._bar.pos
            for bar in (self._bar, *others):
                bar.clear(nolock=True)
            self._bar.delay = 0
            self._bar.close()
            for bar in others:
                if bar.pos > place:
                    bar.pos -= 1
                bar.refresh(nolock=True)

    def _forget(self) -> None:
        """Draw nothing more, and give the line back to tqdm."""
        if self._bar is not None:
            with contextlib.suppress(Exception):  # of the stream, which is being reported
                self._bar.close()
        if self in _open_bars:
            _open_bars.remove(self)


class WidgetBar:
    """A bar of ipywidgets, with what people may want to know in a line below.

    That of tqdm has all text in one line, which cannot be wrapped.

    Raises:
        ImportError: there are no ipywidgets.
    """

    def __init__(self) -> None:
        import ipywidgets  # noqa: PLC0415 (loaded when the first bar is shown)

        # The texts are as wide while they change, so that bars of several runs stand in a column.
        self._title = ipywidgets.HTML(layout={"min_width": TITLE_WIDTH})
        self._bar = ipywidgets.IntProgress(max=LENGTH, layout={"width": "auto", "flex": "1 1 8em"})
        self._times = ipywidgets.HTML(layout={"min_width": TIMES_WIDTH})
        self._details = ipywidgets.HTML()
        row = ipywidgets.HBox([self._title, self._bar, self._times])
        self._box = ipywidgets.VBox([row, self._details])

    @property
    def bundle(self) -> dict[str, Any]:
        """What a front end needs to show it."""
        bundle: dict[str, Any] = self._box._repr_mimebundle_()
        return bundle

    def change(self, view: ProgressView) -> None:
        """Change it in all places where it is shown."""
        self._bar.value = round(view.share * LENGTH)
        self._bar.bar_style = WIDGET_STYLES[view.outcome]
        self._title.value = html.escape(view.title)
        self._times.value = html.escape(f"{view.share:.0%}, {view.times}")
        self._details.value = html.escape(view.details)


class NotebookBar:
    """A bar in an output of a notebook's cell: a widget; a text that changes, if there are none."""

    tick_s = NOTEBOOK_TICK_S

    def __init__(self) -> None:
        self._widget: WidgetBar | None = None
        self._handle: Any = None

    def show(self, view: ProgressView) -> None:
        """Draw it again; a notebook that is saved has the last view as text."""
        if view.moment == "begin":
            with contextlib.suppress(ImportError):  # pip install "pandas-amr[notebook]" brings them
                self._widget = WidgetBar()
        if self._widget is None:
            self._output({"text/plain": draw_text(view, coloured=True)})
            return
        self._widget.change(view)
        if view.moment in {"begin", "end"}:
            self._output(self._widget.bundle | {"text/plain": draw_text(view)})

    def _output(self, bundle: dict[str, Any]) -> None:
        """Show something in the cell, or in place of what was shown before."""
        from IPython.display import display  # noqa: PLC0415 (loaded when the first bar is shown)

        if self._handle is None:
            self._handle = display(  # type: ignore[no-untyped-call]
                bundle, raw=True, display_id=True
            )
        else:
            self._handle.update(bundle, raw=True)


class StreamLines:
    """Lines on a stream that is no terminal, if the user wants to see them there."""

    tick_s = LINES_TICK_S

    def __init__(self, stream: TextIO, about: str) -> None:
        self._stream = stream
        self._about = about
        self._waiting = ""

    def show(self, view: ProgressView) -> None:
        """Write a line at the begin, now and then, at each wait, and at the end."""
        is_new_wait = bool(view.waiting) and view.waiting != self._waiting
        self._waiting = view.waiting
        if view.moment == "stage" or (view.moment == "wait" and not is_new_wait):
            return
        self._stream.write(f"{self._about}: {view.line}\n")
        self._stream.flush()


class LogLines:
    """Lines in the log; waits and the end are logged by who knows of them."""

    tick_s = LINES_TICK_S

    def __init__(self, about: str) -> None:
        self._about = about

    def show(self, view: ProgressView) -> None:
        """Log a line at the begin and now and then; the end is logged whatever is shown."""
        if view.moment in {"begin", "tick"}:
            LOGGER.info("%s: %s", self._about, view.line)


def draw_text(view: ProgressView, *, coloured: bool = False) -> str:
    """Draw a bar of characters, and a line below; ``coloured`` by how the run ended."""
    full = round(view.share * TEXT_BAR)
    bar = "#" * full + "-" * (TEXT_BAR - full)
    code = ANSI_CODES[view.outcome]
    if coloured and code:
        bar = f"{code}{bar}\x1b[0m"
    title = f"{view.title:<{TEXT_TITLE}}"
    return f"{title} |{bar}| {view.share:.0%}, {view.times}\n{view.details}"


def make_display(about: str, *, shown: bool | None) -> Display | None:
    """Make what shows a run; None if nothing does.

    Args:
        about: what is run, for lines.
        shown: False shows nothing; None shows a bar to people who watch, else lines in the log;
            True writes the lines to ``sys.stderr`` if nobody watches.
    """
    stream = sys.stderr
    if shown is False:
        return None
    if shown is None and not draws_bars.get():
        return _make_log_lines(about)
    if _is_notebook():
        return NotebookBar()
    if _is_terminal(stream):
        return TerminalBar(stream)
    if shown:
        return None if stream is None else StreamLines(stream, about)
    return _make_log_lines(about)


def _make_log_lines(about: str) -> LogLines | None:
    return LogLines(about) if LOGGER.isEnabledFor(logging.INFO) else None


def _is_notebook() -> bool:
    """Tell whether this process is a notebook's kernel: of Jupyter, VS Code, Colab."""
    shells = sys.modules.get("ipykernel.zmqshell")
    if shells is None:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return isinstance(shell, shells.ZMQInteractiveShell)


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()  # a daemon has none
    except Exception:  # noqa: BLE001 (a stream of the user's)
        return False
