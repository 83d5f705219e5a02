"""Who listens to a run: a function of the user's, and OpenTelemetry."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pandas_amr._context.delivery import Delivery
from pandas_amr._records.events import RunBegan, RunEnded
from pandas_amr._records.otel import Telemetry, check_telemetry
from pandas_amr._records.trace import Scope, type_name, use_scope
from pandas_amr._result.stopped import give_partial

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from pandas_amr._context.progress import Watch
    from pandas_amr._context.settings import Settings
    from pandas_amr._records.events import Event, RunStatus
    from pandas_amr._result.result import Result


@dataclass(frozen=True)
class Listeners:
    """Who listens to a run, and what they are told of it as it begins.

    Attributes:
        verb: what is run.
        task: the user's task.
        rows: how many rows it is about; None if that is not known yet.
        on_event: the user's function.
        is_traced: whether OpenTelemetry gets spans and metrics.
    """

    verb: str
    task: str | None = None
    rows: int | None = None
    on_event: Callable[[Event], Any] | None = None
    is_traced: bool = False

    @classmethod
    def of(cls, settings: Settings, verb: str, task: str | None, rows: int | None) -> Listeners:
        """Return who listens by the settings in force.

        Raises:
            UsageError: OpenTelemetry is to listen, and is not installed.
        """
        is_traced = settings.is_traced
        if is_traced:
            check_telemetry("telemetry=True")
        return cls(verb, task, rows, settings.on_event, is_traced)

    @contextlib.asynccontextmanager
    async def listen(self, watch: Watch) -> AsyncIterator[Outcome]:
        """Tell whoever listens of the run that the block is, from its begin to its end.

        The block notes what comes of it.

        Raises:
            Warning: a filter raises that of a listener which is not called any more.
        """
        trace, outcome = watch.trace, Outcome()
        with use_scope(Scope(trace)):
            if self.is_traced:
                trace.listeners.append(Telemetry(watch.warn_of_listener))
            delivery = None
            if self.on_event is not None:
                delivery = Delivery(self.on_event, watch.warn_of_listener, trace.listeners)
            if trace.listeners:
                at = Scope(trace).at
                trace.emit(RunBegan(*at, verb=self.verb, task=self.task, rows=self.rows))
            try:
                yield outcome
            except BaseException as error:
                outcome.note_error(error)
                raise
            finally:
                if trace.listeners:
                    _tell_end(watch, outcome)
                if delivery is not None:
                    await delivery.end()
            await watch.notices.issue(watch.listener_warnings)
            try:
                watch.notices.raise_if_raised()
            except Exception as error:
                give_partial(error, outcome.result)
                raise


def _tell_end(watch: Watch, outcome: Outcome) -> None:
    trace = watch.trace
    trace.emit(
        RunEnded(
            *Scope(trace).at,
            status=outcome.status,
            usage=watch.ledger.total,
            seconds=trace.seconds,
            error=outcome.error,
        )
    )


@dataclass
class Outcome:
    """What comes of a run.

    Attributes:
        status: as ``RunEnded`` says it.
        error: likewise.
        result: what it gives; None if it gives no result.
    """

    status: RunStatus = "ok"
    error: str = ""
    result: Result | None = None

    def note(self, result: Result | None) -> None:
        """Note what the run gives."""
        self.result = result
        if result is None:
            return
        if result.stopped is not None:
            self.status = "stopped"
        elif len(result.failures):
            self.status = "partial"

    def note_error(self, error: BaseException) -> None:
        """Note what it raised."""
        is_cancelled = isinstance(error, asyncio.CancelledError)
        self.status = "cancelled" if is_cancelled else "failed"
        self.error = "" if is_cancelled else type_name(error)
