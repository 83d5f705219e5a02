"""A run: started, awaited, cancelled. The one bridge from sync code to the async engine."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import warnings
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pandas_amr._call import Call, check, check_model
from pandas_amr._pipeline import run
from pandas_amr._runtime import current_settings, resolve_lm
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

Given = TypeVar("Given")

CANCEL_GRACE_S = 10.0

_lock = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}  # by process: a fork has no thread of its own


def engine_loop() -> asyncio.AbstractEventLoop:
    """The process's engine: one loop on one daemon thread, begun at the first call."""
    with _lock:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="pandas-amr", daemon=True).start()
            _loops[os.getpid()] = loop
        return loop


def submit(work: Coroutine[Any, Any, Any]) -> concurrent.futures.Future[Any]:
    """Run a coroutine on the engine; the caller's context variables go with it."""
    return asyncio.run_coroutine_threadsafe(work, engine_loop())


class Run(Generic[Given]):
    """One execution of a verb: awaitable, cancellable, and in the end a ``Result``.

    Raises:
        UsageError: the call cannot be carried out; nothing was sent.
    """

    def __init__(self, call: Call) -> None:
        settings = current_settings()
        self._job = job = check(call)
        self._settings = settings.with_changes(job.settings)
        self._lm = resolve_lm(job.lm, settings) if job.needs_model else None
        if self._lm is not None:
            check_model(job, self._lm)
        self._ended = threading.Event()
        self._warned = False
        self._future = submit(self._carried_out())

    async def _carried_out(self) -> Any:
        try:
            return await run(self._job, self._settings, self._lm)
        finally:
            self._ended.set()

    def result(self) -> Given:
        """Wait for the end and give what the verb gives. Ctrl-C cancels the run and raises.

        Raises:
            AMRError: the run failed; see the errors' tree.
            UsageError: called on the engine's own thread, which would wait for itself.
        """
        if threading.current_thread().name == "pandas-amr":
            raise UsageError("This is the engine's own thread: in async tools and callables, await df.amr.start(...).")
        try:
            return self._given(self._future.result())
        except KeyboardInterrupt:
            self.cancel()
            self._ended.wait(CANCEL_GRACE_S)
            raise
        except concurrent.futures.CancelledError:
            raise asyncio.CancelledError("The run was cancelled.") from None

    def cancel(self) -> None:
        """Stop the run: what is in flight is dropped, and whoever waits gets ``CancelledError``."""
        self._future.cancel()

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._future.done()

    def __await__(self) -> Generator[Any, None, Given]:
        given = yield from asyncio.wrap_future(self._future).__await__()
        return self._given(given)

    def _given(self, given: Any) -> Given:
        """What the verb gives; the run's warnings are told once, where the user called."""
        if not self._warned:
            self._warned = True
            for warning in getattr(given, "warnings", ()):
                warnings.warn(warning, stacklevel=4)
        outcome: Given = self._job.given_by_verb(given)
        return outcome

    def __repr__(self) -> str:
        state = "cancelled" if self._future.cancelled() else "done" if self._future.done() else "running"
        return f"<Run {self._job.verb} of {len(self._job.frame)} rows, {state}>"
