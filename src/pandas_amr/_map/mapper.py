"""The port of the map stage: whoever finds something of a shard's units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import pyarrow as pa

    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._findings.store import Failure, MapName, Record
    from pandas_amr._map.breaker import Breaker
    from pandas_amr._records.usage import Usage
    from pandas_amr._units.shards import Shard
    from pandas_amr.errors import RunStopped


@dataclass(frozen=True, slots=True)
class MappedShard:
    """What came of one shard.

    Attributes:
        map: the map's name; None if there is one map.
        positions: the units that have a finding.
        table: their findings, one row per position.
        repaired: those whose finding came in a repair turn.
        failures: the units that have none, and why.
        form: in which form the model was asked, as the trace shows it.
        ended_by: what ended the run while the shard was mapped.
        cached: those whose finding the journal had.
        remembered: those whose failure it had, so that they were not asked again.
    """

    shard: Shard
    map: MapName
    positions: list[int]
    table: pa.Table
    repaired: frozenset[int]
    failures: list[Failure]
    usage: Usage
    form: str = ""
    ended_by: RunStopped | None = None
    cached: frozenset[int] = frozenset()
    remembered: frozenset[int] = frozenset()


class ShardCache(Protocol):
    """Makes the findings of a shard durable before they count."""

    async def keep(
        self,
        found: Mapping[int, Record],
        answered: Mapping[int, Record],
        repaired: Collection[int] = (),
    ) -> None:
        """Keep findings by position.

        Args:
            found: the findings.
            answered: what the model said for each, if it did.
            repaired: those that took a repair turn.
        """
        ...

    async def keep_pieces(
        self,
        found: Mapping[str, Record],
        answered: Mapping[str, Record],
        position: int | None = None,
    ) -> None:
        """Keep findings of the pieces of the long unit at a position, by the piece's line."""
        ...

    async def recall_pieces(
        self, lines: Sequence[str], position: int | None = None
    ) -> dict[int, Record]:
        """Return the findings of a unit's pieces that are cached, by the number of the line."""
        ...


class Mapper(Protocol):
    """Finds something of units: an agent, or a function of the user's.

    The fingerprints are what a unit's key in the journal is made of.
    """

    @property
    def name(self) -> MapName:
        """The map's name, if several run side by side."""
        ...

    @property
    def kind(self) -> FindingType | None:
        """The type of a finding; None if a function's own columns say it."""
        ...

    @property
    def is_function(self) -> bool:
        """Whether a function of the user's makes the findings, and no model."""
        ...

    @property
    def reads_empty_units(self) -> bool:
        """Whether it is given units without content, too: a function is, a model is not."""
        ...

    @property
    def breaker(self) -> Breaker:
        """What decides whether units that failed are worth going on with."""
        ...

    def unit_fingerprints(self, positions: Sequence[int], *, former: bool = False) -> list[bytes]:
        """Digest each unit and what is asked of it; ``former`` as the first format did."""
        ...

    def context_fingerprints(
        self, positions: Sequence[int], *, former: bool = False
    ) -> list[bytes]:
        """Digest what is shown beside a shard of these units; nothing if nothing is."""
        ...

    async def map_shard(self, shard: Shard, cache: ShardCache | None = None) -> MappedShard:
        """Give each unit of the shard a finding or a failure."""
        ...
