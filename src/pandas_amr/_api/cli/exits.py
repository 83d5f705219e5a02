"""Exit statuses, and what ends a command before its end."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

DONE, FAILED, USAGE, PARTIAL = 0, 1, 2, 3
SIGNALLED = 128  # plus the number of the signal
CAUGHT = (signal.SIGINT, signal.SIGTERM)


class WrongUsage(Exception):
    """The command cannot be carried out as it was written; nothing was sent."""


class Signalled(KeyboardInterrupt):
    """SIGINT or SIGTERM came; a run ends as it does for Ctrl-C.

    Attributes:
        number: which signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()  # without arguments: a run says in them what is kept
        self.number = number


@contextmanager
def signals_raise() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise ``Signalled`` in the block; a second one ends the process.

    A signal that is ignored, as Ctrl-C is for jobs in the background of a script, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[signal.Signals, Any] = {}
    for number in CAUGHT:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, _raise_signalled)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_signalled(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    for other in CAUGHT:
        if signal.getsignal(other) is _raise_signalled:
            signal.signal(other, signal.SIG_DFL)
    raise Signalled(number)
