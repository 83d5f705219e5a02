"""The columns that a stage of a recipe hands on, before it has run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._findings.columns import add_findings
from pandas_amr._findings.store import FindingStore
from pandas_amr._plan.call import finding_types
from pandas_amr._result.frames import shown_columns, status_frame

if TYPE_CHECKING:
    from pandas_amr._plan.call import Job


def columns_after(job: Job) -> pd.DataFrame | None:
    """Return the frame of a map with its new columns, typed and missing; None if they are unknown.

    Those of a function without ``finding=``, and of what a planner derives, only the run can tell.
    """
    kinds = finding_types(job, job.given)
    if job.given.axis == "columns" or None in kinds.values():
        return None
    none = np.empty(0, np.int64)
    columns: dict[Any, Any] = {}
    for name, kind in kinds.items():
        columns |= FindingStore(name, kind).columns(none, none)
    places = pd.RangeIndex(len(job.frame))
    found = pd.DataFrame(columns).reindex(places).set_axis(job.frame.index)
    names = job.given.status_columns
    whole = add_findings(job.frame, found)
    if names is None:
        return whole
    no_rows = pd.RangeIndex(0)
    status = status_frame(np.empty(0, dtype=object), np.empty(0, dtype=bool), [], no_rows)
    shown = shown_columns(status, names).reindex(places).set_axis(job.frame.index)
    return add_findings(whole, shown)
