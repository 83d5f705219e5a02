"""Where the rows of a result stand in the nodes of its runs, and how they are named."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from pandas_amr._result.part_files import part_starts
from pandas_amr._units.profile import shorten_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pandas_amr._result.part_files import WrittenPart
    from pandas_amr._result.run_transcripts import RunTranscripts

LABEL_CHARACTERS = 60
ROW_OF_RECIPE = re.compile(r"(?:^|/)map-[^/]*/row-(\d+)/")


class RowPlaces(Protocol):
    """Knows the rows of a result: their labels, their findings, and their places in its nodes."""

    @property
    def index(self) -> pd.Index:
        """The labels of the rows."""
        ...

    def findings_at(self, position: int) -> dict[object, object]:
        """Return what was found of the row at a position, by column."""
        ...

    def find(self, run: RunTranscripts, position: int) -> tuple[str, int]:
        """Return what the names of the nodes of a row begin with, and the unit asked for it."""
        ...

    def name(self, run: RunTranscripts, node: str, units: Iterable[int]) -> dict[int, str]:
        """Return the labels of units of a node, as they are shown."""
        ...

    def find_equal(self, run: RunTranscripts, position: int) -> str | None:
        """Return the label of the row that was asked for an equal one; None if it was itself."""
        ...


class FramePlaces:
    """The rows of a frame.

    Args:
        frame: the frame.
        found: the names of the columns that hold findings.
    """

    def __init__(self, frame: pd.DataFrame, found: Sequence[str]) -> None:
        self._frame = frame
        self._found = found

    @property
    def index(self) -> pd.Index:
        """The labels of the rows."""
        return self._frame.index

    def findings_at(self, position: int) -> dict[object, object]:
        """Return what was found of the row at a position, by column."""
        values: dict[object, object] = {}
        names = self._frame.columns.get_level_values(0).tolist()
        for name in self._found:
            values[name] = self._frame.iloc[position, names.index(name)]
        return values

    def find(self, run: RunTranscripts, position: int) -> tuple[str, int]:
        """Return the prefix of the run, and the unit."""
        return run.prefix, run.unit_of(position)

    def name(self, run: RunTranscripts, node: str, units: Iterable[int]) -> dict[int, str]:
        """Return the labels of units; those of a recipe's nodes are the row that it is of."""
        own = node.removeprefix(run.prefix)
        if "/" not in own:
            rows = len(self.index)
            return {unit: self._label(unit) for unit in units if unit < rows}
        row = ROW_OF_RECIPE.search(own)
        if row is None:
            return {}
        label = self._label(int(row[1]))
        return dict.fromkeys(units, label)

    def find_equal(self, run: RunTranscripts, position: int) -> str | None:
        """Return the label of the row that was asked."""
        unit = run.unit_of(position)
        if unit == position:
            return None
        return self._label(unit)

    def _label(self, position: int) -> str:
        if position >= len(self.index):
            return str(position)
        return name_label(self.index[position])


class PartPlaces:
    """The rows of parts, each of which was mapped by itself.

    Args:
        parts: what is written.
        findings: a Dataset over what was found in them.
    """

    def __init__(self, parts: Sequence[WrittenPart], findings: Any) -> None:
        self._starts = part_starts(parts)
        self._numbers = [part.number for part in parts]
        self._findings = findings
        rows = sum(part.rows for part in parts)
        self.index: pd.Index = pd.RangeIndex(rows)

    def findings_at(self, position: int) -> dict[object, object]:
        """Return what was found of the row at a position, by column."""
        [values] = self._findings.take([position]).to_pylist()
        return dict(values)

    def find(self, run: RunTranscripts, position: int) -> tuple[str, int]:
        """Return the prefix of the part's nodes, and the place in the part."""
        part = bisect_right(self._starts, position) - 1
        node = f"{run.prefix}map-part-{self._numbers[part]}/"
        unit = position - self._starts[part]
        return node, unit

    def name(self, run: RunTranscripts, node: str, units: Iterable[int]) -> dict[int, str]:
        """Return the numbers of rows in the whole input."""
        for start, number in zip(self._starts, self._numbers, strict=True):
            prefix = f"{run.prefix}map-part-{number}/"
            if node.startswith(prefix):
                return {unit: str(start + unit) for unit in units}
        return {}

    def find_equal(self, run: RunTranscripts, position: int) -> str | None:
        """Return None: which rows of a part are equal is not kept."""
        del run, position
        return None


def name_label(label: object) -> str:
    """Return a label as it is shown."""
    if isinstance(label, np.generic):
        label = label.item()
    return shorten_text(repr(label), LABEL_CHARACTERS)
