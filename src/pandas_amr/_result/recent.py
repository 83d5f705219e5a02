"""The last results of this process, found again by the frames that verbs returned."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np

from pandas_amr._plan.call import KEEP
from pandas_amr._records.forgetting import when_rows_are_forgotten
from pandas_amr._records.forks import forkable_lock
from pandas_amr._records.tracebacks import user_traceback
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from pandas_amr._result.result import Result

MOST_RECENT = 32
ATTRIBUTE = "pandas_amr_result"

_recent: OrderedDict[str, Result] = OrderedDict()
_lock = forkable_lock()


def remember_result(result: Result) -> pd.DataFrame:
    """Return the result's frame, marked so that ``result_of`` finds the result of it."""
    key = secrets.token_hex(8)
    with _lock:
        _recent[key] = result
        while len(_recent) > MOST_RECENT:
            _recent.popitem(last=False)
    result.frame.attrs[ATTRIBUTE] = key
    return result.frame


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
    rows = frame.drop(columns=KEEP).iloc[filtered_positions(result)]
    rows.attrs = dict(frame.attrs)
    return rows


@user_traceback
def result_of(frame: pd.DataFrame) -> Result:
    """Return the ``Result`` of a frame that a verb gave: its failures, usage, plan and trace.

    The process remembers the last 32 results, and none from before ``Journal.forget``.

    Raises:
        UsageError: no verb of this process gave the frame, or too long ago.
    """
    attributes = getattr(frame, "attrs", {})
    result = _recent.get(str(attributes.get(ATTRIBUTE)))
    if result is None:
        raise UsageError(
            f"result_of() found nothing: it knows the last {MOST_RECENT} frames returned by "
            "df.amr.* in this process."
        )
    return result
