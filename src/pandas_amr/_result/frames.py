"""The frames of a result: usage, trace, failures and status."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from functools import cache, partial
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa

from pandas_amr._findings.columns import array_of
from pandas_amr._findings.store import FOUND
from pandas_amr._records.spans import LEFT_OUT
from pandas_amr._records.usage import Phase, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from pandas_amr._findings.store import Failure
    from pandas_amr._records.spans import SpanLog
    from pandas_amr._records.trace import Node, Trace
    from pandas_amr._records.usage import Ledger

STATUSES = ("ok", "repaired", "failed", "skipped", "empty", "corrected")
EMPTY_REASON = "its content is empty"
SKIPPED_REASON = "the run stopped before its turn"
CORRECTED_REASON = "a person corrected it"
TAKEN_BACK_REASON = "its correction was taken back, and nothing else is known of it"
REASONS = {
    "skipped": SKIPPED_REASON,
    "empty": EMPTY_REASON,
    "corrected": CORRECTED_REASON,
}
TRACE_COLUMNS = (
    "id",
    "type",
    "level",
    "parents",
    "units",
    "start",
    "seconds",
    "tokens",
    "money",
    "form",
    "sandbox",
    "status",
)


class LazyField:
    """A field of a result; what ``build_later`` made is built at the first access."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, result: object, owner: type | None = None) -> Any:
        if result is None:
            return self
        values = vars(result)
        if isinstance(values[self._name], partial):
            values[self._name] = values[self._name]()
        return values[self._name]

    def __set__(self, result: object, value: object) -> None:
        vars(result)[self._name] = value


def build_later(build: Callable[..., pd.DataFrame], *args: Any) -> Any:
    """Delay the building of a frame until it is read.

    A call about one row should not take the time of four frames that nobody reads.
    """
    return partial(build, *args)


def usage_frame(ledger: Ledger) -> pd.DataFrame:
    """Build ``Result.usage``: one row per phase and model, in the order of the phases."""
    phases = get_args(Phase)
    keys = sorted(ledger.lines, key=lambda key: (phases.index(key[0]), key[1]))
    rows = []
    for phase, model in keys:
        usage = ledger.lines[phase, model]
        rows.append({"phase": phase, "model": model, **asdict(usage)})
    columns = ["phase", "model", *(part.name for part in fields(Usage))]
    return pd.DataFrame(rows, columns=columns).set_index("phase")


def trace_frame(nodes: Sequence[Node]) -> pd.DataFrame:
    """Build ``Result.trace``: one row per node."""
    levels = levels_of(nodes)
    rows = []
    for node in nodes:
        row = (
            node.id,
            node.type,
            levels[node.id],
            list(node.parents),
            node.units,
            node.start,
            node.seconds,
            node.usage.tokens,
            node.usage.money,
            node.form,
            node.sandbox or None,
            node.status,
        )
        rows.append(row)
    return pd.DataFrame(rows, columns=list(TRACE_COLUMNS))


def trace_later(trace: Trace, nodes: Sequence[Node]) -> dict[str, Any]:
    """Delay the building of ``Result.trace`` and ``Result.spans`` of some nodes, which are copied.

    Spans are None if nobody keeps them.
    """
    copied = [replace(node) for node in nodes]
    spans = spans_later(trace, [node.id for node in nodes])
    return {"trace": build_later(trace_frame, copied), "spans": spans}


def spans_later(trace: Trace, nodes: Iterable[str]) -> Any:
    """Delay the building of the spans of some nodes; None if nobody keeps them."""
    if trace.spans is None:
        return None
    return build_later(
        spans_frame, trace.spans, list(nodes), len(trace.spans), trace.spans.left_out
    )


def spans_frame(spans: SpanLog, nodes: Sequence[str], count: int, left_out: int) -> pd.DataFrame:
    """Build ``Result.spans``: one row per span of some nodes, in the order in which they ended.

    What a node within a part of the input did is the part's.

    Args:
        spans: those of the whole run, to which more may have been added.
        nodes: the ids of the nodes.
        count: how many spans there were when the nodes were copied.
        left_out: how many more the run had by then; the frame's ``attrs`` say it.
    """
    columns = spans.columns(frozenset(nodes), count)
    frame: dict[str, pd.Series] = {}
    for name, values in columns.items():
        dtype = object if name in {"node", "kind"} else float
        frame[name] = pd.Series(values, dtype=dtype)
    built = pd.DataFrame(frame)
    if left_out:
        built.attrs[LEFT_OUT] = left_out
    return built


def levels_of(nodes: Sequence[Node]) -> dict[str, int]:
    """Return the level of each node; a sub-run's nodes are counted from the nodes that feed it."""
    levels = {node.id: node.level for node in nodes}
    if not any("/" in name for name in levels):
        return levels
    parents: dict[str, list[str]] = {}
    for node in nodes:
        parents[node.id] = [parent for parent in node.parents if parent in levels]
    for name in TopologicalSorter(parents).static_order():
        after_parents = [levels[parent] + 1 for parent in parents[name]]
        levels[name] = max([levels[name], *after_parents])
    return levels


def shown_columns(status: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return what a result's frame shows of its status, under these names.

    Where a finding came from is not shown: the same call again gives the same frame.
    """
    return status[["status", "reason"]].set_axis(list(names), axis=1)


def have_findings(status: pd.DataFrame) -> NDArray[np.bool_]:
    """Tell which rows of ``Result.status`` are of units with a finding."""
    return np.isin(status["status"].to_numpy(dtype=object), FOUND)


def failures_frame(failures: Iterable[Failure], index: pd.Index) -> pd.DataFrame:
    """Build ``Result.failures``: one row per failed unit.

    A failed reduce has no label and no position.
    """
    listed = list(failures)
    if not listed:
        return _empty_failures().copy()
    labels: list[Any] = []
    positions: list[int | None] = []
    for failure in listed:
        of_unit = failure.position >= 0
        labels.append(index[failure.position] if of_unit else None)
        positions.append(failure.position if of_unit else None)
    return _make_failures(listed, labels, positions)


@cache
def _empty_failures() -> pd.DataFrame:
    """Return the frame of a run without failures: each run looks whether there are any."""
    return _make_failures([], [], [])


def _make_failures(
    listed: Sequence[Failure], labels: list[Any], positions: list[int | None]
) -> pd.DataFrame:
    shards = [_none_if_negative(failure.shard) for failure in listed]
    return pd.DataFrame(
        {
            "label": pd.Series(labels, dtype=object),
            "position": pd.array(positions, dtype="Int64"),
            "shard": pd.array(shards, dtype="Int64"),
            "map": pd.Series([failure.map for failure in listed], dtype=object),
            "who": pd.Series([failure.who for failure in listed], dtype=object),
            "reason": pd.Series([failure.reason for failure in listed], dtype=object),
            "attempts": pd.array([failure.attempts for failure in listed], dtype="Int64"),
        }
    )


def _none_if_negative(number: int) -> int | None:
    return number if number >= 0 else None


def _list_reasons(
    statuses: NDArray[np.object_], taken_back: NDArray[np.int64] | None
) -> list[str | None]:
    """List the reasons that statuses alone give."""
    reasons: list[str | None] = [None] * len(statuses)
    for status, reason in REASONS.items():
        for position in np.flatnonzero(statuses == status).tolist():
            reasons[position] = reason
    for position in [] if taken_back is None else taken_back.tolist():
        if statuses[position] == "skipped":
            reasons[position] = TAKEN_BACK_REASON
    return reasons


def status_frame(
    statuses: NDArray[np.object_],
    from_journal: NDArray[np.bool_] | None,
    failures: Iterable[Failure],
    index: pd.Index,
    taken_back: NDArray[np.int64] | None = None,
) -> pd.DataFrame:
    """Build ``Result.status``: one row per unit, with the reason if no model found its finding.

    The column ``from_journal`` is left out if it is not known. ``taken_back`` are the rows of which
    nothing is known since a correction was taken back.
    """
    reasons = _list_reasons(statuses, taken_back)
    for failure in failures:
        if failure.position < 0:  # the reduce failed, and not a unit
            continue
        reason = f"{failure.who}: {failure.reason}"
        earlier = reasons[failure.position]
        reasons[failure.position] = reason if earlier is None else f"{earlier}; {reason}"
    columns: dict[str, Any] = {
        "status": pd.Categorical(statuses, categories=list(STATUSES)),
        "reason": array_of(pa.chunked_array([pa.array(reasons, pa.string())])),
    }
    if from_journal is not None:
        columns["from_journal"] = from_journal
    return pd.DataFrame(columns, index=index)
