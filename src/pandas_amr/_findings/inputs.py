"""What a map stage found, as a reduce takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pandas_amr._findings.findings import with_findings
from pandas_amr._findings.records import record_rows
from pandas_amr._reduce.stage import Found, made_by_nobody

if TYPE_CHECKING:
    from pandas_amr._context.work import Work


def found_of(work: Work) -> Found:
    """What is there to be reduced: the findings so far, or the frame itself where nothing is mapped."""
    frame, by, kept = work.job.frame, work.job.by, work.kept
    positions = np.arange(len(frame), dtype=np.int64)
    if kept is None:
        return Found(frame, frame if not work.job.maps else frame[[]], positions, by=by)
    made_by = work.stage.made_by if work.stage is not None else made_by_nobody
    findings = kept.findings()
    if kept.listed is None:
        return Found(with_findings(frame, findings), findings, positions, made_by, by)
    table, records, units = record_rows(frame, findings, kept.listed, by)
    own_by = None if by is None else by.at(units.positions, table.index)
    return Found(table, records, units.positions, made_by, own_by, units)
