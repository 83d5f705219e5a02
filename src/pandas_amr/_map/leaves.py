"""Findings as the leaves of a reduce tree: one batch per shard."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from pandas_amr._findings.citations import find_nodes
from pandas_amr._findings.columns import spread_items
from pandas_amr._findings.inputs import ReduceInput, make_finding_inputs
from pandas_amr._units.cells import cell

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pandas_amr._findings.map_findings import MapFindings
    from pandas_amr._units.redaction import Redaction
    from pandas_amr._units.shards import Shard

# Of one map: its name, the positions of findings, and a row for each of them.
Part: TypeAlias = tuple[str | None, Sequence[int], pa.Table]


class FindingSink(Protocol):
    """Takes findings as they land: a reduce tree."""

    @property
    def failed(self) -> bool:
        """Whether it takes nothing more."""
        ...

    def offer(self, leaf: int, nodes: tuple[str, ...], inputs: list[ReduceInput]) -> None:
        """Take a shard's findings; ``nodes`` made them."""
        ...


def _rows_at(positions: NDArray[np.int64], wanted: Sequence[int]) -> tuple[list[int], list[int]]:
    """Find the wanted positions that have a finding, and the rows where it stands."""
    found: list[int] = []
    rows: list[int] = []
    places = np.searchsorted(positions, wanted)
    for position, place in zip(wanted, places.tolist(), strict=True):
        if place < len(positions) and positions[place] == position:
            found.append(position)
            rows.append(place)
    return found, rows


class Leaves:
    """Renders findings for reducers, as ``ReduceTrees`` renders all of them at once.

    Args:
        findings: what the map stage has found.
        where: the plan's condition: a field, or else a column of the frame, that is true of a row.
        redactions: what the columns of some maps pass before a reducer reads them, by the map's
            name.
    """

    def __init__(
        self,
        findings: MapFindings,
        where: str | None,
        redactions: Mapping[str | None, Redaction],
    ) -> None:
        self._findings = findings
        self._units = findings.units
        self._where = where
        self._redactions = redactions

    def inputs(self, parts: Sequence[Part]) -> list[ReduceInput]:
        """Render a batch of findings: those of all maps, in the order of the maps."""
        columns_of: list[tuple[Sequence[int], Mapping[str, Any]]] = []
        for name, positions, table in parts:
            columns = self._findings.stores[name].arrays(table)
            if self._findings.list_type is None:
                columns_of.append((positions, self._as_sent(name, columns)))
                continue
            records, places = spread_items(pd.DataFrame(columns), self._findings.list_type)
            rows = np.asarray(positions, dtype=np.int64)[places].tolist()
            arrays = {label: records[label].array for label in records.columns}
            columns_of.append((rows, self._as_sent(name, arrays)))
        where = self._is_wanted if self._where else None
        return make_finding_inputs(columns_of, self._rows_of, where=where)

    def _as_sent(self, name: str | None, columns: Mapping[str, Any]) -> Mapping[str, Any]:
        """Redact the columns of a map; its texts are known by now (``MapStage``)."""
        redaction = self._redactions.get(name)
        if redaction is None:
            return columns
        return {
            label: redaction.values(array, f"a finding in {label!r}")
            for label, array in columns.items()
        }

    async def offer_all(
        self,
        sink: FindingSink,
        shards: Sequence[Shard],
        made_by: Callable[[int], tuple[str, ...]],
    ) -> None:
        """Hand over everything, in the batches of a first run."""
        by_map = {name: store.by_position() for name, store in self._findings.stores.items()}
        for leaf, shard in enumerate(shards):
            parts: list[Part] = []
            for name, (positions, table) in by_map.items():
                found, rows = _rows_at(positions, shard.positions)
                parts.append((name, found, table.take(pa.array(rows, pa.int64()))))
            sink.offer(leaf, find_nodes(made_by, shard.positions), self.inputs(parts))
            await asyncio.sleep(0)  # others' turn: there may be as many shards as rows

    def _rows_of(self, position: int) -> list[int]:
        """List the rows that a unit answers for."""
        rows: list[int] = self._units.answered(position).tolist()
        return rows

    def _is_wanted(self, position: int, record: Mapping[str, Any]) -> bool:
        where = str(self._where)
        if where in record:
            return record[where] is True
        return cell(self._units.frame[where].iloc[position]) is True
