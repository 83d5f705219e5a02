"""The rows of a run, part by part: slices of a frame here, or partitions of a Dask frame there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from pandas_amr._engines.dask.messages import Sealed
from pandas_amr._engines.dask.worker import map_part
from pandas_amr._records.pickles import pack
from pandas_amr._units.profile import spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._engines.dask.cluster import Cluster

PARTS_PER_THREAD = 4  # so that no worker waits long for the last ones
MOST_ROWS = 20_000  # of a part of a frame
SAMPLE_ROWS = 2_000
SAMPLE_PARTITIONS = 20


class Rows(Protocol):
    """Rows that are mapped part by part.

    Attributes:
        rows: how many there are; None if that is known only at the end.
        are_here: whether this process has them.
    """

    rows: int | None
    are_here: bool

    def cut(self, *, threads: int, shard_size: int) -> Sequence[int | None]:
        """Cut them into parts; return how many rows each has, None if that is not known."""
        ...

    def most_at_once(self, threads: int) -> int | None:
        """Return how many parts are sent at once; None for all."""
        ...

    async def sample(self, cluster: Cluster) -> pd.DataFrame:
        """Draw rows that a plan is made from."""
        ...

    def submit(self, cluster: Cluster, orders: Sequence[tuple[int, str, Sealed]]) -> list[Any]:
        """Send parts: the number of each, its task's key, and its order. Return the futures."""
        ...


class FrameRows:
    """A frame of this process, cut into slices."""

    are_here = True

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame
        self.rows: int | None = len(frame)
        self._starts: list[int] = []
        self._size = 1

    def cut(self, *, threads: int, shard_size: int) -> Sequence[int | None]:
        """Cut slices of whole shards, several per thread."""
        rows = len(self._frame)
        parts = PARTS_PER_THREAD * max(1, threads)
        wanted = min(MOST_ROWS, math.ceil(rows / parts))
        shards = max(1, math.ceil(wanted / shard_size))
        self._size = shard_size * shards
        self._starts = list(range(0, rows, self._size)) or [0]
        return [min(self._size, rows - start) for start in self._starts]

    def most_at_once(self, threads: int) -> int | None:
        """Send two per thread: the rows of the others stay here meanwhile."""
        return 2 * max(1, threads)

    async def sample(self, cluster: Cluster) -> pd.DataFrame:
        """Give the frame itself: a plan's sample is drawn from it as ever."""
        del cluster
        return self._frame

    def submit(self, cluster: Cluster, orders: Sequence[tuple[int, str, Sealed]]) -> list[Any]:
        """Send slices with their tasks.

        Raises:
            UsageError: a cell cannot be pickled.
        """
        futures: list[Any] = []
        for number, key, order in orders:
            start = self._starts[number]
            end = min(start + self._size, len(self._frame))
            places = np.arange(start, end)
            part = self._frame.take(places)  # not a slice, which would pickle what it is cut from
            part.attrs = {}
            rows = _seal_rows(f"rows of part {number}", part)
            futures.append(cluster.submit(map_part, order, rows, key=key))
        return futures


def _seal_rows(about: str, part: pd.DataFrame) -> Sealed:
    """Seal rows; by value what no module has by name.

    Raises:
        UsageError: a cell cannot be pickled.
    """
    try:
        return Sealed.of(about, part)
    except Exception:  # noqa: BLE001 (whatever the methods of cells raise)
        return Sealed.of(about, pack(part, "A cell of the frame"))


class CollectionRows:
    """A Dask frame: its partitions are read where they are mapped."""

    are_here = False

    def __init__(self, frame: Any) -> None:
        self.frame = frame
        self.rows: int | None = None
        self.delayed: list[Any] = []

    def cut(self, *, threads: int, shard_size: int) -> Sequence[int | None]:
        """Take the partitions as they are."""
        del threads, shard_size
        self.delayed = list(self.frame.to_delayed())
        return [None] * len(self.delayed)

    def most_at_once(self, threads: int) -> int | None:
        """Send all: tasks that several partitions need are run once."""
        del threads
        return None

    async def sample(self, cluster: Cluster) -> pd.DataFrame:
        """Draw rows from all over some partitions."""
        import dask  # noqa: PLC0415 (here once the engine is used)

        chosen = spread(self.frame.npartitions, SAMPLE_PARTITIONS)
        each = math.ceil(SAMPLE_ROWS / max(1, len(chosen)))
        draw = dask.delayed(draw_rows, pure=False)
        parts = self.frame.to_delayed()
        drawn = [draw(parts[place], each) for place in chosen]
        futures = cluster.client.compute(drawn)
        tables = [await cluster.value_of(future) for future in futures]
        if not tables:
            empty: pd.DataFrame = self.frame._meta  # noqa: SLF001 (its columns and their types)
            return empty
        drawn_rows: pd.DataFrame = pd.concat(tables)
        return drawn_rows

    def submit(self, cluster: Cluster, orders: Sequence[tuple[int, str, Sealed]]) -> list[Any]:
        """Send tasks that read partitions and map them, as one graph."""
        import dask  # noqa: PLC0415 (here once the engine is used)

        mapped = dask.delayed(map_part, pure=False, traverse=False)
        tasks: list[Any] = []
        for number, key, order in orders:
            tasks.append(mapped(order, self.delayed[number], dask_key_name=key))
        futures: list[Any] = cluster.client.compute(tasks)
        return futures


def draw_rows(part: pd.DataFrame, count: int) -> pd.DataFrame:
    """Draw rows from all over a partition."""
    if not len(part):
        return part
    return part.take(spread(len(part), count))
