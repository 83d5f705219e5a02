"""How far a run is, and its findings as they land: for any thread and any event loop."""

from __future__ import annotations

import concurrent.futures
import contextlib
import sys
import threading
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, TextIO

import numpy as np

from pandas_amr._context.notices import Notices
from pandas_amr.models.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    import pyarrow as pa
    from numpy.typing import NDArray

    from pandas_amr._units.units import Units


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
    """

    units: int = 0
    found: int = 0
    failed: int = 0
    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0
    waiting: str = ""
    done: bool = False

    def __repr__(self) -> str:
        state = "done" if self.done else self.waiting or "running"
        return (
            f"<Progress {self.found + self.failed}/{self.units} units, "
            f"{self.failed} failed, {self.calls} calls, "
            f"{self.tokens} tokens, {self.seconds:.1f} s, {state}>"
        )


class Watch:
    """Batches of findings as columns, in the order in which they landed.

    Attributes:
        waits: what the run's requests wait for.
        notices: issues the run's warnings.
    """

    def __init__(self) -> None:
        self.waits = Waits()
        self.notices = Notices()
        self._lock = threading.Lock()
        self._batches: list[tuple[NDArray[np.int64], pa.Table, Units]] = []
        self._waiting: list[concurrent.futures.Future[None]] = []
        self._progress = Progress()
        self._done = False

    @property
    def progress(self) -> Progress:
        """How far it is now."""
        return replace(self._progress, waiting=self.waits.text)

    def show_progress(self, progress: Progress) -> None:
        """Note how far it is."""
        self._progress = progress
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


class ProgressBar:
    """A bar over the shards, or nothing: for people who watch, not for logs.

    ``shown=None`` shows it in a terminal and in a notebook only.
    """

    def __init__(self, *, shown: bool | None, units: int) -> None:
        self._bar: Any = None
        if units and sys.stderr is not None and (_watched() if shown is None else shown):
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # tqdm warns where a notebook has no widgets; text will do
                from tqdm.auto import tqdm  # noqa: PLC0415

            pace_s = 0.1 if _watched() else 2.0  # a log wants few lines
            with contextlib.suppress(
                Exception
            ):  # it draws itself at once, on a stream that may be anything
                self._bar = tqdm(
                    total=units,
                    unit="unit",
                    desc="map",
                    file=sys.stderr,
                    dynamic_ncols=True,
                    mininterval=pace_s,
                    miniters=1,
                )
            self._failed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            with contextlib.suppress(Exception):
                self._bar.close()

    def step(self, units: int, *, failed: int, tokens: int) -> None:
        """Some units are done."""
        if self._bar is not None:
            self._failed += failed
            self._bar.set_postfix_str(f"{tokens} tokens, {self._failed} failed", refresh=False)
            try:
                self._bar.update(units)
            except Exception:  # noqa: BLE001 (nobody watches any more, or the stream is one of the user's)
                self._bar = None

    def wait(self, what: str) -> None:
        """Requests wait for something; or, if it is empty, no more."""
        if self._bar is not None:
            try:
                self._bar.set_postfix_str(what, refresh=True)
            except Exception:  # noqa: BLE001 (likewise)
                self._bar = None


def _watched() -> bool:
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return _is_terminal(sys.stderr) or type(shell).__name__ == "ZMQInteractiveShell"


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()  # a daemon has none
    except Exception:  # noqa: BLE001 (a stream of the user's)
        return False
