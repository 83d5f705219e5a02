"""A claim's rows: which findings an output rests on, resolved to the frame's labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Cited = tuple[Any, tuple[frozenset[int], ...]]


def nodes_behind(made_by: Callable[[int], tuple[str, ...]], positions: Iterable[int]) -> tuple[str, ...]:
    """The nodes that made the rows at some positions, each once, in order."""
    return tuple(dict.fromkeys(node for position in positions for node in made_by(int(position))))


def sources_frame(cited: Sequence[Cited], index: pd.Index) -> pd.DataFrame:
    """One row an item of the output and row of the frame behind it: ``item label position``, with the ``group`` before.

    ``cited`` has for each group (None where there are none) the positions behind each item.
    """
    rows = [
        (group, item, position)
        for group, items in cited
        for item, positions in enumerate(items)
        for position in sorted(positions)
    ]
    positions = np.array([position for _, _, position in rows], dtype=np.int64)
    frame = pd.DataFrame(
        {
            "group": pd.Series([group for group, _, _ in rows], dtype=object),
            "item": pd.array([item for _, item, _ in rows], dtype="int64"),
            "label": pd.Series(list(index.take(positions)), dtype=object),
            "position": positions,
        }
    )
    return frame if any(group is not None for group, _ in cited) else frame.drop(columns="group")


def covered(cited: Sequence[Cited], rows: int) -> float | None:
    """The share of rows that the output rests on; None where nothing says what it rests on."""
    behind: frozenset[int] = frozenset().union(*(positions for _, items in cited for positions in items))
    return len(behind) / rows if behind and rows else None


def coverage_words(rows: int, failed: int, lost: int, cut: int) -> str:
    """What is not in front of the agent that writes the answer; empty where all is."""
    missing = [
        f"{failed} of {rows} rows have no finding: they failed." if failed else "",
        f"The findings of {lost} rows were lost where they were combined." if lost else "",
        f"{cut} findings were cut to fit." if cut else "",
    ]
    told = [one for one in missing if one]
    return "\n".join(["Coverage:", *told]) if told else ""
