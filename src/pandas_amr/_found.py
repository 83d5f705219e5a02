"""What a map stage found, as a reduce takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pandas_amr._findings import items_frame, with_findings
from pandas_amr._reduce import Found

if TYPE_CHECKING:
    from pandas_amr._map import MapStage
    from pandas_amr._work import Work


def found_of(work: Work, stage: MapStage | None) -> Found:
    """What is there to be reduced: the findings so far, or the frame itself where nothing is mapped."""
    frame = work.job.frame
    positions = np.arange(len(frame), dtype=np.int64)
    if stage is None:
        return Found(frame, frame if not work.job.maps else frame[[]], positions)
    findings = stage.findings()
    if stage.listed is None:
        return Found(with_findings(frame, findings), findings, positions, stage.made_by)
    records, positions = items_frame(findings, stage.listed)
    repeated = frame.set_flags(allows_duplicate_labels=True).iloc[positions]
    return Found(with_findings(repeated, records), records, positions, stage.made_by)
