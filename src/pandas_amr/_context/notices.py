"""Warnings of a run, issued when they are known: each once, at the line of the user's call."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pandas_amr._records.callers import Caller
    from pandas_amr.errors import AMRWarning


class Notices:
    """Issues the warnings of a run on the thread of its caller, if that waits for the run's end.

    A verb's caller waits from the beginning on. A run of ``start()`` has nobody who surely waits:
    its warnings are issued by the engine, at the line of the start.

    A warning that a filter raises as an error (``-W error``) ends the run, but not at once: what is
    in flight is paid for, so it is finished first.

    Attributes:
        raised: what issuing a warning raised first.
        on_raised: is called then.
    """

    def __init__(self) -> None:
        self.raised: Exception | None = None
        self.on_raised: Callable[[], None] | None = None
        self._caller: Caller | None = None
        self._issued: list[AMRWarning] = []
        # What the waiting thread has to issue, each with what ends once it has; None at the end.
        self._handed: queue.SimpleQueue[tuple[AMRWarning, Future[None]] | None] | None = None
        self._open: list[Future[None]] = []

    def begin(self, caller: Caller, *, waits: bool) -> None:
        """Note the line of the call, and whether its thread waits until the end."""
        self._caller = caller
        if waits:
            self._handed = queue.SimpleQueue()

    @property
    def waits(self) -> bool:
        """Whether the caller's thread waits for the end of the run."""
        return self._handed is not None

    def issue_until_done(self, run: Future[Any]) -> None:
        """Issue what comes, on the thread that waits for a run, until the run has ended."""
        handed = self._handed
        if handed is None:
            return
        run.add_done_callback(self._end)
        while (item := handed.get()) is not None:
            warning, is_issued = item
            self._issue_here(warning)
            is_issued.set_result(None)

    def _end(self, run: Future[Any]) -> None:
        del run
        assert self._handed is not None
        self._handed.put(None)

    def begin_issuing(self, warnings: Sequence[AMRWarning]) -> None:
        """Issue warnings that are not issued yet, without a wait for the thread that does."""
        for warning in warnings:
            if any(warning is issued for issued in self._issued):
                continue
            self._issued.append(warning)
            if self._handed is None:
                self._issue_here(warning)
                continue
            is_issued: Future[None] = Future()
            self._open.append(is_issued)
            self._handed.put((warning, is_issued))

    async def issue(self, warnings: Sequence[AMRWarning]) -> None:
        """Issue warnings that are not issued yet, and wait until they and those before are."""
        self.begin_issuing(warnings)
        while self._open:
            await asyncio.wrap_future(self._open.pop(0))

    def raise_if_raised(self) -> None:
        """Raise what issuing a warning raised.

        Raises:
            Warning: a filter raises it.
            Exception: what shows warnings is a function of the user's, which failed.
        """
        raised, self.raised = self.raised, None
        try:
            if raised is not None:
                raise raised
        finally:
            del raised  # this frame is part of its traceback

    def _issue_here(self, warning: AMRWarning) -> None:
        """Issue a warning on this thread."""
        assert self._caller is not None
        try:
            # If nobody reads stderr, warnings still stand in the result.
            with contextlib.suppress(OSError, ValueError):
                # A copy, which a filter may raise: the result holds the warning, and the error the
                # result.
                self._caller.warn(type(warning)(*warning.args))
        except Exception as error:  # noqa: BLE001 (it ends the run, on the engine)
            self.raised = self.raised or error
            if self.on_raised is not None:
                self.on_raised()
