"""What card and report tell of a result: its columns, failures, cost and how it ended."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._records.counts import counted_of
from pandas_amr._records.usage import COUNTS, Usage, cost_figures
from pandas_amr._units.part_tables import frame_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas_amr._result.part_files import WrittenPart
    from pandas_amr._result.result import Result


# -- rows and columns ------------------------------------------------------------------------------


def read_head(frame: Any, rows: int) -> pd.DataFrame:
    """Read the first rows of a result's frame; of a dataset no more than these."""
    if isinstance(frame, pd.DataFrame):
        return frame.iloc[:rows]
    return frame_of(frame.head(rows))


def read_rows(frame: Any, positions: Sequence[int]) -> pd.DataFrame:
    """Read the rows at some positions of a result's frame."""
    if isinstance(frame, pd.DataFrame):
        return frame.iloc[list(positions)]
    taken = frame.take(np.asarray(positions, dtype=np.int64))
    return frame_of(taken).set_axis(pd.Index(positions))


def count_rows(frame: Any) -> int:
    """Count the rows of a result's frame; a dataset's files tell it without being read."""
    if isinstance(frame, pd.DataFrame):
        return len(frame)
    return int(frame.count_rows())


@dataclass(frozen=True)
class Columns:
    """The places of a frame's columns, by what they are.

    Attributes:
        content: what was read.
        findings: what was found.
        status: the columns of the status, if the plan added any.
        others: all others.
    """

    content: list[int]
    findings: list[int]
    status: list[int]
    others: list[int]

    def in_order(self, most: int) -> list[int]:
        """List all: the findings stand beside what they were found in.

        Args:
            most: how many of them are shown. If more were read, the findings go before the rest
                of those: a reader looks for what was found.
        """
        found = [*self.findings, *self.status]
        read = max(most - len(found), 1)
        return [*self.content[:read], *found, *self.content[read:], *self.others]


def sort_columns(result: Result, frame: pd.DataFrame, found: Sequence[str]) -> Columns:
    """Sort the columns of a result's frame by what they are.

    Args:
        result: the result.
        frame: its frame, or some rows of it.
        found: the names of the findings' columns.
    """
    columns = Columns([], [], [], [])
    planned = read_columns(result)
    of_status = set(result.plan.status_columns or ())
    labels: list[Any] = list(frame.columns)
    for place, label in enumerate(labels):
        name = label[0] if isinstance(label, tuple) else label
        is_planned = planned is not None and label in planned
        if name in of_status:
            columns.status.append(place)
        elif str(name) in found and not is_planned:
            columns.findings.append(place)
        elif planned is None or is_planned:
            columns.content.append(place)
        else:
            columns.others.append(place)
    return columns


def read_columns(result: Result) -> tuple[Any, ...] | None:
    """Return the labels of the content columns, of a recipe those of all stages; None: all."""
    if not result.stages:
        columns = result.plan.columns
        return None if columns is None else tuple(columns)
    labels: list[Any] = []
    for stage in result.stages:
        of_stage = read_columns(stage)
        if of_stage is None and is_mapped(stage):
            return None
        labels += of_stage or ()
    return tuple(dict.fromkeys(labels)) or None


# -- how it ended ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """Something that a reader must know before the answer is believed.

    Attributes:
        text: a sentence.
        is_fatal: whether there is no answer because of it.
    """

    text: str
    is_fatal: bool = False


def list_problems(result: Result) -> list[Problem]:
    """List why the answer is missing, or rests on less than all rows."""
    problems: list[Problem] = []
    for reason in reduce_failures(result):
        text = f"The reduce failed: {reason}"
        problems.append(Problem(text, is_fatal=result.output is None))
    if result.stopped is not None:
        problems.append(Problem(f"The run stopped early: {result.stopped}"))
    counts = count_statuses(result)
    skipped = counts.get("skipped")
    if skipped:
        total = sum(counts.values())
        rows = counted_of(skipped, total, "row")
        problems.append(Problem(f"Skipped: {rows}; the run ended before their turn."))
    is_unanswered = result.output is None and wants_answer(result)
    is_explained = any(problem.is_fatal for problem in problems)
    if is_unanswered and not is_explained:
        problems.append(Problem("There is no answer: nothing was reduced.", is_fatal=True))
    return problems


def wants_answer(result: Result) -> bool:
    """Whether the call, or at least its plan, says how findings are reduced."""
    if result.origin is not None:
        return result.origin.job.reduces
    plan = result.plan
    return bool(plan.aggregations or plan.reduce_instruction or plan.ranking)


def reduce_failures(result: Result) -> list[str]:
    """List why the reduce failed, each reason once."""
    failures = result.failures
    is_of_reduce = failures["position"].isna()
    texts: dict[str, None] = {}
    for reason in failures.loc[is_of_reduce, "reason"]:
        text = str(reason).removeprefix("reduce: ")
        texts[text] = None
    return list(texts)


def count_statuses(result: Result) -> Mapping[str, int]:
    """Count the rows by their status, those of which there are any."""
    counts: Counter[str] = Counter()
    parts = parts_of(result)
    if parts is not None:
        for part in parts:
            counts.update(part.counts)
        counts["skipped"] += getattr(result, "unread", 0)
    elif result.status is not None:
        for status, count in result.status["status"].value_counts().items():
            counts[str(status)] = int(count)
    return {status: count for status, count in counts.items() if count}


def is_mapped(result: Result) -> bool:
    """Whether rows were read one by one; the statuses of parts are not read for it."""
    return parts_of(result) is not None or result.status is not None


def parts_of(result: Result) -> Sequence[WrittenPart] | None:
    """Return the parts of a run with ``out=``; None if the frame is in memory."""
    parts: Sequence[WrittenPart] | None = getattr(result, "parts", None)
    return parts


@dataclass(frozen=True)
class FailureGroup:
    """Rows that failed for one reason.

    Attributes:
        reason: why.
        who: what failed, such as the model or the map's name.
        labels: of the rows, in the order of the frame.
    """

    reason: str
    who: str
    labels: tuple[Any, ...]


def group_failures(result: Result) -> list[FailureGroup]:
    """Group the failed rows by their reason, the most frequent first."""
    labels_of: dict[tuple[str, str], list[Any]] = {}
    failures = result.failures
    is_of_row = failures["position"].notna()
    rows = failures.loc[is_of_row, ["label", "map", "who", "reason"]]
    for label, map_name, who, reason in rows.itertuples(index=False):
        name = str(who)
        if isinstance(map_name, str):
            name = f"{name} (map {map_name})"
        key = (str(reason), name)
        labels_of.setdefault(key, []).append(label)
    groups: list[FailureGroup] = []
    for (reason, who), labels in labels_of.items():
        groups.append(FailureGroup(reason, who, tuple(labels)))
    return sorted(groups, key=_count_failed, reverse=True)


def _count_failed(group: FailureGroup) -> int:
    return len(group.labels)


# -- what it cost ----------------------------------------------------------------------------------


def cost_rows(result: Result) -> list[list[Any]]:
    """List calls, tokens and money by phase and model, then their sum."""
    rows: list[list[Any]] = []
    lines = result.usage.reset_index().to_dict("records")
    for line in lines:
        counts = {name: int(line[name]) for name in COUNTS if name != "seconds"}
        money = None if pd.isna(line["money"]) else float(line["money"])
        figures = cost_figures(Usage(**counts, money=money))
        rows.append([str(line["phase"]), str(line["model"]), *figures])
    if len(rows) > 1:
        figures = cost_figures(result.total)
        rows.append(["all", "", *figures])
    return rows


# -- what the answer rests on ----------------------------------------------------------------------


@dataclass
class ItemSources:
    """The rows behind an item of the answer.

    Attributes:
        item: its number.
        group: the group it is of; None without groups.
        column: the column that agents wrote; None if they wrote the whole answer.
        labels: of the rows that are evidence for it.
        positions: of these rows.
        general: how many more rows were named in bulk, which are no evidence.
    """

    item: int
    group: Any
    column: Any
    labels: list[Any] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    general: int = 0


def list_sources(result: Result) -> list[ItemSources]:
    """List what each item of the answer rests on, in the order of the answer."""
    if result.sources is None:
        return []
    items: dict[Any, ItemSources] = {}
    rows: Any = result.sources.itertuples(index=False)
    for row in rows:
        group = getattr(row, "group", None)
        column = getattr(row, "column", None)
        key = (_key_of(group), _key_of(column), row.item)
        if key not in items:
            items[key] = ItemSources(int(row.item), group, column)
        item = items[key]
        if row.general:
            item.general += 1
        else:
            item.labels.append(row.label)
            item.positions.append(int(row.position))
    return list(items.values())


def _key_of(group: Any) -> Any:
    """Return what tells groups apart; missing keys are one."""
    if isinstance(group, tuple):
        return tuple(map(_key_of, group))
    if pd.api.types.is_scalar(group) and pd.isna(group):
        return None
    return group
