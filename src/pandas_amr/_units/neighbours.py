"""What units are judged in the light of, where not each alone: the rows around a shard, or the group it is of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pandas_amr._agent import prompts
from pandas_amr._types.canonical import canonical_json
from pandas_amr._units.by import By, group_numbers
from pandas_amr._units.units import Units, cell, digest, json_keys, line_of
from pandas_amr.errors import ColumnError

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import numpy as np
    from numpy.typing import NDArray


CONTEXT_ROWS = 3


@dataclass(frozen=True)
class Context:
    """The surroundings of a shard's units.

    Attributes:
        rows: with ``neighbours``, how many rows before and after are shown.
        columns: with ``groups``, the positions of the columns whose equal values make a group.
    """

    units: Units
    segmentation: Segmentation
    rows: int = CONTEXT_ROWS
    columns: tuple[int, ...] = ()

    def words(self, positions: Sequence[int], shown: str) -> str:
        """The units as they are shown, in their surroundings."""
        if self.segmentation == "groups":
            return prompts.group_line(line_of(self._group(positions[0])), shown)
        before, after = self._around(positions)
        return prompts.around_lines(
            self.units.compact_lines(before), shown, self.units.compact_lines(after)
        )

    def fingerprints(self, positions: Sequence[int], *, former: bool = False) -> list[bytes]:
        """The surroundings' content, as that of units."""
        if self.segmentation == "groups":
            group = self._group(positions[0])
            return [digest(line_of(group) if former else canonical_json(group))]
        before, after = self._around(positions)
        fingerprints = self.units.fingerprints
        return [*fingerprints(before, former=former), b"units", *fingerprints(after, former=former)]

    def groups(self, positions: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """A number for each unit, the same within a group; None where shards are cut without regard to groups.

        Raises:
            ColumnError: a column's values cannot make groups, being lists or dicts.
        """
        if self.segmentation != "groups":
            return None
        frame = self.units.frame
        labels: list[Hashable] = [frame.columns[column] for column in self.columns]
        try:
            _, numbers = group_numbers(frame, By(*labels, dropna=False, sort=False))
        except TypeError as error:
            raise ColumnError(f"group_columns={labels!r} cannot make groups: {error}.") from None
        return numbers[positions]

    def _group(self, position: int) -> dict[str, Any]:
        keys = json_keys([self.units.frame.columns[column] for column in self.columns])
        values = [cell(self.units.frame.iloc[position, column]) for column in self.columns]
        return dict(sorted(zip(keys, values, strict=True)))

    def _around(self, positions: Sequence[int]) -> tuple[list[int], list[int]]:
        first, last = min(positions), max(positions)
        before = range(max(0, first - self.rows), first)
        return list(before), list(range(last + 1, min(len(self.units), last + 1 + self.rows)))


Segmentation = Literal["rows", "neighbours", "groups"]
