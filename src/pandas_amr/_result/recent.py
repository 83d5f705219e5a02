"""The last results of this process, found again by the frames that verbs returned."""

from __future__ import annotations

import secrets
import sys
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._plan.call import KEEP
from pandas_amr._records.forgetting import when_rows_are_forgotten
from pandas_amr._records.forks import forkable_lock
from pandas_amr._records.tracebacks import user_traceback
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    import pyarrow.dataset as ds
    from numpy.typing import NDArray

    from pandas_amr._result.parts import ResultOfParts
    from pandas_amr._result.result import Result

MOST_BYTES = 256 * 2**20  # of the results that are remembered; the last one always is
LEAST_BYTES = 2**20  # a result counts as beside its frames: for its trace, plan and statuses
ATTRIBUTE = "pandas_amr_result"


class RecentResults:
    """The last results, as many as fit into some bytes, but at least one.

    Args:
        most_bytes: of their frames and findings together.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._results: OrderedDict[str, tuple[Result, int]] = OrderedDict()

    def add(self, key: str, result: Result) -> None:
        """Remember a result, and forget the oldest ones that do not fit beside it."""
        size = _count_bytes(result)
        self._results[key] = (result, size)
        self._bytes += size
        while self._bytes > self._most_bytes and len(self._results) > 1:
            _, (_, size) = self._results.popitem(last=False)
            self._bytes -= size

    def find(self, key: str) -> Result | None:
        """Return the result of a key; None if it is not remembered."""
        found = self._results.get(key)
        return None if found is None else found[0]

    def clear(self) -> None:
        """Forget all results."""
        self._results.clear()
        self._bytes = 0


def _count_bytes(result: Result) -> int:
    """Count what a result keeps in memory; what stands in object columns by its own size."""
    kept = LEAST_BYTES
    frames: list[Any] = [result.frame, result.findings]
    for frame in frames:
        if isinstance(frame, pd.DataFrame):  # a dataset is in files
            kept += _count_cells(frame)
    if result.transcripts is not None:
        kept += result.transcripts.size
    return kept


def _count_cells(frame: pd.DataFrame) -> int:
    """Count the bytes of all cells; pandas' own way takes longer than to map a row."""
    size = 0
    for _, column in frame.items():  # noqa: PERF102 (a frame has no columns as values)
        size += _count_array(column.array)
    return size


def _count_array(cells: Any) -> int:
    if isinstance(cells, pd.Categorical):  # whose own count warns of categories with a zone
        return int(cells.codes.nbytes) + _count_array(cells.categories.array)
    if cells.dtype == object:
        return int(cells.nbytes) + sum(map(sys.getsizeof, cells))
    return int(cells.nbytes)


_recent = RecentResults(MOST_BYTES)
_keys_of_lazy: dict[int, str] = {}  # of frames that have no attrs, by their addresses
_lock = forkable_lock()


def remember_result(result: Result) -> pd.DataFrame:
    """Return the result's frame, marked so that ``result_of`` finds the result of it."""
    key = secrets.token_hex(8)
    with _lock:
        _recent.add(key, result)
    result.frame.attrs[ATTRIBUTE] = key
    return result.frame


def remember_parts(result: ResultOfParts[Any, Any]) -> Any:
    """Return the dataset, or the lazy frame, of a result; ``result_of`` finds the result of it."""
    frame = result.frame
    key = secrets.token_hex(8)
    with _lock:
        _recent.add(key, result)
        _keys_of_lazy[id(frame)] = key
    weakref.finalize(frame, _keys_of_lazy.pop, id(frame), None).atexit = False
    return frame


@when_rows_are_forgotten
def forget_results() -> None:
    """Forget all results: their frames, findings and traces hold rows."""
    with _lock:
        _recent.clear()


def filtered_positions(result: Result) -> NDArray[np.int64]:
    """Return the positions of the rows that a filter keeps.

    A row is kept if it met the criterion. A failed row is kept, too: it might meet it. One without
    content cannot, and is dropped.
    """
    keep = result.frame[KEEP].fillna(True).astype(bool).to_numpy()  # noqa: FBT003 (a value)
    assert result.status is not None
    return np.flatnonzero(keep & (result.status["status"] != "empty").to_numpy())


def filtered_rows(result: Result) -> pd.DataFrame:
    """Return the rows that a filter keeps."""
    frame = remember_result(result)
    is_shown = ~frame.columns.get_level_values(0).isin([KEEP])  # drop() warns of unsorted levels
    rows = frame.loc[:, is_shown].iloc[filtered_positions(result)]
    assert result.origin is not None
    labels = result.origin.job.frame.columns
    if len(labels) == len(rows.columns):  # without columns of the status
        rows.columns = labels  # numbers or dates; beside the name of a finding they were objects
    rows.attrs = dict(frame.attrs)
    return rows


@user_traceback
def result_of(frame: pd.DataFrame | ds.Dataset) -> Result:
    """Return the ``Result`` of a frame, or of a dataset, that a verb gave: failures, usage, plan.

    The process remembers the last results, up to 256 MB of their frames, and the last one whatever
    its size; none from before ``Journal.forget``.

    Raises:
        UsageError: no verb of this process gave the frame, or too long ago.
    """
    if isinstance(frame, pd.DataFrame):
        key = frame.attrs.get(ATTRIBUTE)
    else:
        key = _keys_of_lazy.get(id(frame))
    result = _recent.find(str(key))
    if result is None:
        raise UsageError(
            "result_of() found nothing: it knows the last frames that map and filter gave in this "
            f"process, up to {MOST_BYTES // 2**20} MB of them."
        )
    return result
