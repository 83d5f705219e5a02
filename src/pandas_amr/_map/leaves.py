"""Findings as the leaves of a reduce tree: one batch per shard."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from pandas_amr._findings.citations import MadeBy, find_nodes
from pandas_amr._findings.columns import spread_items
from pandas_amr._findings.inputs import FoundColumns, ReduceInput, make_finding_inputs
from pandas_amr._units.cells import cell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas_amr._findings.map_findings import MapFindings
    from pandas_amr._findings.store import MapName
    from pandas_amr._units.redaction import Redaction
    from pandas_amr._units.rows import IntArray
    from pandas_amr._units.shards import Shard


class Part(NamedTuple):
    """Findings of one map: the positions of units, and a row of the table for each."""

    map: MapName
    positions: Sequence[int]
    table: pa.Table


class FindingSink(Protocol):
    """Takes findings as they land: a reduce tree."""

    @property
    def failed(self) -> bool:
        """Whether it takes nothing more."""
        ...

    def offer(self, leaf: int, nodes: tuple[str, ...], inputs: list[ReduceInput]) -> None:
        """Take a shard's findings; ``nodes`` made them."""
        ...


def _rows_at(positions: IntArray, wanted: Sequence[int]) -> tuple[list[int], list[int]]:
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
        redactions: Mapping[MapName, Redaction],
    ) -> None:
        self._findings = findings
        self._units = findings.units
        self._where = where
        self._redactions = redactions

    def inputs(self, parts: Sequence[Part]) -> list[ReduceInput]:
        """Render a batch of findings: those of all maps, in the order of the maps."""
        list_type = self._findings.list_type
        columns_of: list[FoundColumns] = []
        for part in parts:
            columns = self._findings.stores[part.map].arrays(part.table)
            positions = part.positions
            if list_type is not None:
                records, places = spread_items(pd.DataFrame(columns), list_type)
                columns = {label: records[label].array for label in records.columns}
                of_units = np.asarray(positions, dtype=np.int64)
                positions = of_units[places].tolist()
            columns_of.append((positions, self._as_sent(part.map, columns)))
        where = self._is_wanted if self._where else None
        return make_finding_inputs(columns_of, self._rows_of, where=where)

    def _as_sent(self, name: MapName, columns: Mapping[str, Any]) -> Mapping[str, Any]:
        """Redact the columns of a map; its texts are known by now (``MapStage``)."""
        redaction = self._redactions.get(name)
        if redaction is None:
            return columns
        redacted: dict[str, Any] = {}
        for label, array in columns.items():
            redacted[label] = redaction.values(array, f"a finding in {label!r}")
        return redacted

    async def offer_all(
        self,
        sink: FindingSink,
        shards: Sequence[Shard],
        made_by: MadeBy,
    ) -> None:
        """Hand over everything, in the batches of a first run."""
        stores = self._findings.stores
        by_map = {name: store.by_position() for name, store in stores.items()}
        for leaf, shard in enumerate(shards):
            parts: list[Part] = []
            for name, (positions, table) in by_map.items():
                found, rows = _rows_at(positions, shard.positions)
                findings = table.take(pa.array(rows, pa.int64()))
                parts.append(Part(name, found, findings))
            nodes = find_nodes(made_by, shard.positions)
            sink.offer(leaf, nodes, self.inputs(parts))
            await asyncio.sleep(0)  # others' turn: there may be as many shards as rows

    def _rows_of(self, position: int) -> list[int]:
        """List the rows that a unit answers for."""
        rows: list[int] = self._units.answered(position).tolist()
        return rows

    def _is_wanted(self, position: int, record: Mapping[str, Any]) -> bool:
        where = str(self._where)
        if where in record:
            return record[where] is True
        # Not a field of the finding, but a column of the frame.
        return cell(self._units.frame[where].iloc[position]) is True
