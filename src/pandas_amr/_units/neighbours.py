"""Context shown with a shard: the rows around it, or the group that its units belong to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pandas_amr._agent import prompts
from pandas_amr._types.canonical import canonical_json
from pandas_amr._units.by import By, group_numbers
from pandas_amr._units.cells import cell, make_json_keys, to_json_line
from pandas_amr._units.units import Units, hash_text
from pandas_amr.errors import ColumnError

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from pandas_amr._units.rows import IntArray

CONTEXT_ROWS = 3
Segmentation = Literal["rows", "neighbours", "groups"]


@dataclass(frozen=True)
class Context:
    """The context of a shard's units.

    Attributes:
        rows: with ``neighbours``, how many rows before and after the shard are shown.
        columns: with ``groups``, the positions of the columns whose equal values make a group.
    """

    units: Units
    segmentation: Segmentation
    rows: int = CONTEXT_ROWS
    columns: tuple[int, ...] = ()

    def words(self, positions: Sequence[int], shown: str) -> str:
        """Put the context around the text that shows the units at some positions."""
        if self.segmentation == "groups":
            group = to_json_line(self._group(positions[0]))
            return prompts.group_line(group, shown)
        before, after = self._around(positions)
        lines_before = self.units.compact_lines(before)
        lines_after = self.units.compact_lines(after)
        return prompts.around_lines(lines_before, shown, lines_after)

    def fingerprints(self, positions: Sequence[int], *, former: bool = False) -> list[bytes]:
        """Return the fingerprints of the context, made as those of units are."""
        if self.segmentation == "groups":
            group = self._group(positions[0])
            write = to_json_line if former else canonical_json
            return [hash_text(write(group))]
        before, after = self._around(positions)
        of_before = self.units.fingerprints(before, former=former)
        of_after = self.units.fingerprints(after, former=former)
        return [*of_before, b"units", *of_after]

    def shown_with(self, positions: Sequence[int]) -> list[int]:
        """Return the positions of the rows that are shown beside a shard."""
        if self.segmentation == "groups":
            return []
        before, after = self._around(positions)
        return before + after

    def groups(self, positions: IntArray) -> IntArray | None:
        """Return each unit's group by number; None if shards are cut without regard to groups.

        Raises:
            ColumnError: a column's values (lists or dicts) cannot make groups.
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
        """Return the values that a unit shares with its group, by key, as they are sent."""
        labels = [self.units.frame.columns[column] for column in self.columns]
        keys = make_json_keys(labels)
        group: dict[str, Any] = {}
        for key, column in zip(keys, self.columns, strict=True):
            value = self.units.sent.iloc[position, column]
            group[key] = cell(value)
        return {key: group[key] for key in sorted(group)}

    def _around(self, positions: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the positions of the rows before and after some units."""
        first, end = min(positions), max(positions) + 1
        start = max(0, first - self.rows)
        stop = min(len(self.units), end + self.rows)
        before = range(start, first)
        after = range(end, stop)
        return list(before), list(after)
