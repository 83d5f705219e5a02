"""What a reduce gives: the answer, and the rows of the frame behind each part of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from pandas_amr._plan.outputs import shape_output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._findings.citations import Support
    from pandas_amr._findings.output import Reduction


class PartSources(NamedTuple):
    """What a part of the answer rests on.

    Attributes:
        group: the label of the group that the part is of; None if there are no groups.
        items: the rows behind each of its items. A value that is not a list is one item.
        column: the column that agents wrote; None if they wrote the whole answer. Without groups
            the column's name is the ``group``, too.
    """

    group: Any
    items: tuple[Support, ...]
    column: Any = None


@dataclass(frozen=True)
class ReduceOutcome:
    """The answer, and what each part of it rests on; None if there is no answer."""

    output: Any
    sources: tuple[PartSources, ...] = ()


def make_outcome(reduction: Reduction | None, output: object) -> ReduceOutcome:
    """Convert what agents wrote into the answer of the type ``output``."""
    if reduction is None:
        return ReduceOutcome(None)
    answer = shape_output(reduction.value, output)
    sources = PartSources(None, reduction.support)
    return ReduceOutcome(answer, (sources,))


def sources_frame(sources: Sequence[PartSources], index: pd.Index) -> pd.DataFrame:
    """Make a frame with one row per item of the answer and row of the user's frame behind it.

    Its columns are ``group`` and ``column`` (if there are any), ``item``, ``label``, ``position``,
    ``general`` and ``run``. ``general`` marks a row that is not evidence because it was cited in
    bulk; ``run`` marks one that was cited in a run of consecutive numbers.
    """
    columns = _list_source_columns(sources)
    positions = np.array(columns["position"], dtype=np.int64)
    labels = list(index.take(positions))
    frame = pd.DataFrame(
        {
            "group": pd.Series(columns["group"], dtype=object),
            "column": pd.Series(columns["column"], dtype=object),
            "item": np.array(columns["item"], dtype=np.int64),
            "label": pd.Series(labels, dtype=object),
            "position": positions,
            "general": np.array(columns["general"], dtype=bool),
            "run": np.array(columns["run"], dtype=bool),
        }
    )
    if all(part.group is None for part in sources):
        frame = frame.drop(columns="group")
    if all(part.column is None for part in sources):
        frame = frame.drop(columns="column")
    return frame


def _list_source_columns(sources: Sequence[PartSources]) -> dict[str, list[Any]]:
    """List each column's values: one per item and row behind it."""
    columns: dict[str, list[Any]] = {
        "group": [],
        "column": [],
        "item": [],
        "position": [],
        "general": [],
        "run": [],
    }
    for part in sources:
        for item, support in enumerate(part.items):
            positions = sorted(support.rows)
            count = len(positions)
            columns["group"] += [part.group] * count
            columns["column"] += [part.column] * count
            columns["item"] += [item] * count
            columns["position"] += positions
            columns["general"] += [position in support.general for position in positions]
            columns["run"] += [position in support.runs for position in positions]
    return columns


def evidence_share(sources: Sequence[PartSources], rows: int) -> float | None:
    """Return the share of rows that are evidence for the answer; None if nothing is cited."""
    is_cited = False
    evidence: set[int] = set()
    for part in sources:
        for support in part.items:
            is_cited = is_cited or bool(support.rows)
            evidence |= support.evidence
    if not rows or not is_cited:
        return None
    return len(evidence) / rows
