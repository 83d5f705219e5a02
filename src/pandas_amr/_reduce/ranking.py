"""The rows that rank first by a column."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandas_amr._findings.citations import Support
from pandas_amr._plan.compute import rank_rows
from pandas_amr._reduce.sources import PartSources, ReduceOutcome

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pandas_amr._context.spec import Spec
    from pandas_amr._findings.inputs import FindingRows


def take_first_ranked(spec: Spec, rows: FindingRows) -> ReduceOutcome:
    """Return the rows that rank first, whole. Each is its own source."""
    places = rank_places(spec, rows)
    positions: list[int] = rows.positions[places].tolist()
    items = tuple(Support(frozenset((position,))) for position in positions)
    sources = PartSources(None, items)
    return ReduceOutcome(rows.table.iloc[places], (sources,))


def rank_places(spec: Spec, rows: FindingRows) -> NDArray[np.int64]:
    """Return the places of the rows that rank first, in their order."""
    ranking = spec.plan.ranking
    assert ranking is not None
    return rank_rows(
        rows.table,
        ranking.field,
        most=ranking.most,
        lowest_first=ranking.lowest_first,
        by=rows.by,
    )
