"""A claim's rows: which findings an output rests on, resolved to the frame's labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._findings.citations import Support


class Cited(NamedTuple):
    """What a part of the output rests on: of which group, for each of its items the rows, of which column.

    Where agents write columns and there are no groups, each column is its own ``group``.
    """

    group: Any
    items: tuple[Support, ...]
    column: Any = None


def sources_frame(cited: Sequence[Cited], index: pd.Index) -> pd.DataFrame:
    """One row an item of the output and row of the frame behind it: ``item label position general run``.

    Before them the ``group``, and the ``column``, where there are some. ``general`` marks what is no evidence, since
    it was named in bulk; ``run`` what stands in a run of consecutive numbers.
    """
    rows: list[tuple[Cited, int, int]] = []
    general: list[bool] = []
    runs: list[bool] = []
    for part in cited:
        for item, support in enumerate(part.items):
            for position in sorted(support.rows):
                rows.append((part, item, position))
                general.append(position in support.general)
                runs.append(position in support.runs)
    positions = np.array([position for _, _, position in rows], dtype=np.int64)
    frame = pd.DataFrame(
        {
            "group": pd.Series([part.group for part, _, _ in rows], dtype=object),
            "column": pd.Series([part.column for part, _, _ in rows], dtype=object),
            "item": pd.array([item for _, item, _ in rows], dtype="int64"),
            "label": pd.Series(list(index.take(positions)), dtype=object),
            "position": positions,
            "general": np.array(general, dtype=bool),
            "run": np.array(runs, dtype=bool),
        }
    )
    without = [
        name for name in ("group", "column") if all(getattr(part, name) is None for part in cited)
    ]
    return frame.drop(columns=without)


def covered(cited: Sequence[Cited], rows: int) -> float | None:
    """The share of rows that are evidence for the output; None where nothing says what it rests on."""
    supports = [support for part in cited for support in part.items]
    if not rows or not any(support.rows for support in supports):
        return None
    return len(frozenset().union(*(support.evidence for support in supports))) / rows


def coverage_words(rows: int, failed: int, lost: int, cut: int, *, partly: int = 0) -> str:
    """What is not in front of the agent that writes the answer; empty where all is.

    ``failed`` rows have no finding at all; ``partly`` failed ones have those of some maps.
    """
    missing = [
        f"{failed} of {rows} rows have no finding: they failed." if failed else "",
        f"{partly} of {rows} rows have a part of their findings: a map failed, and its fields are null."
        if partly
        else "",
        f"The findings of {lost} rows were lost where they were combined." if lost else "",
        f"{cut} findings were cut to fit." if cut else "",
    ]
    told = [one for one in missing if one]
    return "\n".join(["Coverage:", *told]) if told else ""
