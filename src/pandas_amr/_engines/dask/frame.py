"""The lazy frame of a result: partitions as they are read, with what was found of their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._engines.dask.messages import Sealed
from pandas_amr._engines.dask.part import digest_rows
from pandas_amr._findings.columns import add_findings
from pandas_amr._plan.call import KEEP
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas_amr._engines.dask.cluster import Cluster
    from pandas_amr._engines.dask.messages import PartOutcome
    from pandas_amr._engines.dask.rows import CollectionRows


class PartFindings:
    """What belongs beside the rows of a partition.

    Attributes:
        number: the partition's.
        added: the columns that are added, a row per row of it; only their types if it was not
            mapped.
        digest: of its rows when they were mapped; empty if they were not.
        kept: which rows a filter keeps; None for all.
    """

    __slots__ = ("added", "digest", "kept", "number")

    def __init__(
        self, number: int, added: pd.DataFrame, digest: bytes, kept: np.ndarray[Any, Any] | None
    ) -> None:
        self.number = number
        self.added = added
        self.digest = digest
        self.kept = kept


def join_found(part: pd.DataFrame, sealed: Sealed) -> pd.DataFrame:
    """Put beside a partition what was found of its rows.

    Raises:
        UsageError: they are other rows than those that were mapped.
    """
    found: PartFindings = sealed.open()
    if not found.digest:
        no_rows = found.added.iloc[:0]
        missing = no_rows.reindex(pd.RangeIndex(len(part)))
        return add_findings(part, missing.set_axis(part.index))
    if len(part) != len(found.added) or digest_rows(part) != found.digest:
        raise UsageError(
            f"Partition {found.number} has other rows than when it was mapped: its input was "
            "changed, or is read in another order each time. Keep it: frame = frame.persist(), "
            "then frame.amr; what the journal has is not paid for again."
        )
    joined = add_findings(part, found.added.set_axis(part.index))
    if found.kept is None:
        return joined
    return joined[found.kept]


def make_lazy_frame(
    rows: CollectionRows,
    added: pd.DataFrame,
    keep: np.ndarray[Any, Any] | None,
    outcomes: Mapping[int, PartOutcome],
    starts: Sequence[int],
) -> Any:
    """Make the frame of a result of a Dask frame.

    Args:
        rows: the Dask frame's partitions.
        added: the columns that are added, a row per row that was mapped.
        keep: which rows a filter keeps; None for all.
        outcomes: what came of the partitions.
        starts: the position of each partition's first row.
    """
    import dask  # noqa: PLC0415 (here once the engine is used)
    import dask.dataframe as dd  # noqa: PLC0415

    join = dask.delayed(join_found, pure=False, traverse=False)
    parts: list[Any] = []
    for number, part in enumerate(rows.delayed):
        inside = slice(starts[number], starts[number + 1])
        added_here = added.iloc[inside].reset_index(drop=True)
        digest = outcomes[number].digest if number in outcomes else b""
        kept = None if keep is None else keep[inside]
        found = PartFindings(number, added_here, digest, kept)
        sealed = Sealed.of(f"findings of partition {number}", found)
        parts.append(join(part, sealed))
    meta = _make_meta(rows.frame, added)
    return dd.from_delayed(parts, meta, divisions=rows.frame.divisions, verify_meta=False)


def _make_meta(frame: Any, added: pd.DataFrame) -> pd.DataFrame:
    """Make the frame without rows that tells Dask the columns and their types."""
    meta: pd.DataFrame = frame._meta  # noqa: SLF001 (those of the Dask frame)
    no_rows = added.iloc[:0].set_axis(meta.index[:0])
    return add_findings(meta, no_rows)


async def read_rows(
    frame: Any, positions: np.ndarray[Any, Any], starts: Sequence[int], cluster: Cluster
) -> pd.DataFrame:
    """Read some rows of a lazy frame, in the order of their positions."""
    import dask  # noqa: PLC0415 (here once the engine is used)

    take = dask.delayed(take_rows, pure=False)
    parts = frame.to_delayed()
    numbers = np.searchsorted(starts, positions, side="right") - 1
    tasks: list[Any] = []
    for number in np.unique(numbers).tolist():
        of_part = positions[numbers == number]
        places = of_part - starts[number]
        tasks.append(take(parts[number], places.tolist()))
    read: list[pd.DataFrame] = [frame._meta]  # noqa: SLF001 (if there are no rows)
    for future in cluster.client.compute(tasks):
        read.append(await cluster.value_of(future))
    # They are read part by part; of each position, the place of its row among them.
    by_part = np.argsort(numbers, kind="stable")
    order = np.argsort(by_part, kind="stable")
    rows: pd.DataFrame = pd.concat(read).iloc[order]
    return rows


def take_rows(part: pd.DataFrame, places: list[int]) -> pd.DataFrame:
    """Take some rows of a partition."""
    return part.iloc[places]


def find_kept_rows(findings: pd.DataFrame, statuses: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Tell which rows a filter keeps: those that it has not refused, and that have content."""
    is_met = findings[KEEP].fillna(True).astype(bool).to_numpy()  # noqa: FBT003 (a value)
    kept: np.ndarray[Any, Any] = is_met & (statuses != "empty")
    return kept
