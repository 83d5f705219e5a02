"""The log of a command: lines on stderr, as text or as JSON."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from pandas_amr._context.progress_bars import draws_bars
from pandas_amr._records.log import LOGGER
from pandas_amr._records.terminal import escape_unprintable
from pandas_amr.errors import AMRWarning

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LOG_FORMATS = ("text", "json")
OPTION = "--log-format"


class JsonLines(logging.Formatter):
    """Writes a record as one JSON object: ``time level logger message``."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        time = dt.datetime.fromtimestamp(record.created, tz=dt.UTC)
        line = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        return json.dumps(line)


class TextLines(logging.Formatter):
    """Writes a record as one line that a terminal can show, whatever a name in it holds."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        return escape_unprintable(super().format(record))


class StderrLines(logging.StreamHandler[Any]):
    """Writes lines to stderr as long as somebody reads it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Do nothing: what could not be written cannot be reported there either."""


def find_log_format(arguments: Sequence[str]) -> str:
    """Find the format that arguments ask for, before they are checked: errors have it, too."""
    words = list(arguments)
    for place, word in enumerate(words):
        name, _, value = word.partition("=")
        if name == OPTION:
            value = value or next(iter(words[place + 1 :]), "")
            return value if value in LOG_FORMATS else "text"
    return "text"


@contextmanager
def use_log(log_format: str) -> Iterator[None]:
    """In the block, write the log from INFO on to stderr; warnings stand in it.

    A bar is drawn only in a terminal that shows the log as text.
    """
    handler = StderrLines(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else TextLines())
    level, propagates = LOGGER.level, LOGGER.propagate
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    token = draws_bars.set(log_format == "text" and _is_terminal())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AMRWarning)  # these are logged by the library
            warnings.showwarning = _log_warning
            yield
    finally:
        draws_bars.reset(token)
        LOGGER.propagate = propagates
        LOGGER.setLevel(level)
        LOGGER.removeHandler(handler)


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Log a warning of another library by its type: its text may quote a cell."""
    del message, filename, lineno, file, line
    LOGGER.warning("%s was issued by another library.", category.__name__)
