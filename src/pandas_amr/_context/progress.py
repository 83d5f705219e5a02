"""How far a run is, and its findings as they land: for any thread and any event loop."""

from __future__ import annotations

import concurrent.futures
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_amr._context.notices import Notices
from pandas_amr._context.steps import Steps
from pandas_amr._records.counts import counted
from pandas_amr._records.trace import Trace
from pandas_amr._records.usage import Ledger
from pandas_amr.models.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from pandas_amr._context.wiring import Wired
    from pandas_amr._units.units import Units
    from pandas_amr.errors import AMRWarning


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        units: rows, times the maps that run side by side; 0 until they are counted.
        found: how many of them have a finding, those from the journal among them.
        failed: how many failed.
        calls: requests answered.
        tokens: spent.
        seconds: since it began.
        waiting: what its requests wait for, and until when; empty if they are answered.
        done: whether it has ended.
        cached: how many of the units have a finding from the journal.
        money: spent, in the currency of the model's prices; None if these are not known.
        stage: what it is at, such as ``map 40/60 rows``; empty until it is at anything.
    """

    units: int = 0
    found: int = 0
    failed: int = 0
    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0
    waiting: str = ""
    done: bool = False
    cached: int = 0
    money: float | None = 0.0
    stage: str = ""

    def __repr__(self) -> str:
        state = "done" if self.done else self.waiting or self.stage or "running"
        return (
            f"<Progress {self.found + self.failed:,}/{counted(self.units, 'unit')}, "
            f"{self.failed:,} failed, {counted(self.calls, 'call')}, "
            f"{counted(self.tokens, 'token')}, {self.seconds:.1f} s, {state}>"
        )


class Watch:
    """Batches of findings as columns, in the order in which they landed; and how far the run is.

    Attributes:
        waits: what the run's requests wait for.
        notices: issues the run's warnings.
        steps: how far its stages are.
        ledger: what it has spent.
        trace: since when it runs.
        wired: its models, once they are open.
        most_requests: how many requests it may have in flight; None until the plan says so.
        is_static: whether its agents reduce in trees by fan-in, as the plan says.
        listener_warnings: of whoever listens to its events.
        has_logged_stop: whether the log has it at WARNING that the run stops early.
    """

    def __init__(self) -> None:
        self.waits = Waits()
        self.notices = Notices()
        self.steps = Steps()
        self.ledger = Ledger()
        self.trace = Trace()
        self.wired: Wired | None = None
        self.most_requests: int | None = None
        self.is_static = False
        self.listener_warnings: list[AMRWarning] = []
        self.has_logged_stop = False
        self._lock = threading.Lock()
        self._batches: list[tuple[NDArray[np.int64], pa.Table, Units]] = []
        self._waiting: list[concurrent.futures.Future[None]] = []
        self._progress = Progress()
        self._done = False

    @property
    def progress(self) -> Progress:
        """How far it is now."""
        total = self.ledger.total
        return replace(
            self._progress,
            calls=total.calls,
            tokens=total.tokens,
            money=total.money,
            seconds=self.trace.seconds,
            waiting=self.waits.text,
            stage=self.steps.title,
        )

    def warn_of_listener(self, warning: AMRWarning) -> None:
        """Warn that somebody who listens to the run's events is not called any more."""
        self.listener_warnings.append(warning)
        self.notices.begin_issuing([warning])

    def show_progress(self, progress: Progress, *, open_rows: int = 0, maps: int = 1) -> None:
        """Note how many units have what, and how many are still to be mapped, by all maps."""
        self._progress = progress
        self.steps.set_rows(progress.units, progress.units - open_rows, maps=maps)
        self._wake()

    def landed(self, positions: Sequence[int], table: pa.Table, units: Units) -> None:
        """Note some findings."""
        if len(positions):
            with self._lock:
                self._batches.append((np.asarray(positions, dtype=np.int64), table, units))
            self._wake()

    def ended(self) -> None:
        """Nothing more comes."""
        self._done = True
        self._wake()

    def next(self, place: int) -> concurrent.futures.Future[None] | None:
        """Return what ends when a batch is at ``place``; None if it is there or will not be."""
        with self._lock:
            if place < len(self._batches) or self._done:
                return None
            future: concurrent.futures.Future[None] = concurrent.futures.Future()
            self._waiting.append(future)
            return future

    def batch(self, place: int) -> Iterator[dict[str, Any]] | None:
        """Return a batch's findings: ``label`` and ``position`` of the row, then the fields.

        None at the end.
        """
        with self._lock:
            if place >= len(self._batches):
                return None
            positions, table, units = self._batches[place]
        return (
            {"label": units.frame.index[row], "position": row, **record}
            for position, record in zip(positions.tolist(), table.to_pylist(), strict=True)
            for row in units.answered(position).tolist()
        )

    def _wake(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(None)
