"""``ddf.amr``: the verbs, bound to a Dask frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pandas_amr._api.accessor import Accessor
from pandas_amr._records.counts import counted

if TYPE_CHECKING:
    import pandas as pd

VERBS = ("start", "map_reduce", "map", "filter")


class DaskAccessor(Accessor):
    """Agentic map-reduce over the partitions of a Dask frame: ``start map_reduce map filter``.

    The workers of the cluster map them. ``map`` and ``filter`` give a Dask frame, and a ``Result``
    has one: nothing more is asked when it is computed.
    """

    def __init__(self, frame: Any) -> None:
        rows: pd.DataFrame = frame  # the verbs take whatever holds rows
        super().__init__(rows)

    def __repr__(self) -> str:
        partitions = getattr(self.frame, "npartitions", 0)
        return f"<ddf.amr of {counted(partitions, 'partition')}: {', '.join(VERBS)}>"
