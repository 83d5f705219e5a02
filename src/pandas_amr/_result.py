"""What a run gives."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import pandas as pd

from pandas_amr._display import result_html, result_line
from pandas_amr._usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pandas_amr._findings import Failure
    from pandas_amr._plan import Plan
    from pandas_amr._trace import Trace
    from pandas_amr._usage import Ledger
    from pandas_amr.errors import AMRWarning


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The outcome of a run.

    Attributes:
        output: the answer: a scalar, a text, an object, a Series or a summary frame; None where nothing was reduced.
        frame: the input plus one column per finding field; same index, same order, ``<NA>`` where a unit failed.
        findings: those columns alone, one row a unit.
        plan: the plan that ran.
        usage: calls, tries, tokens and seconds, one row a phase and model.
        failures: one row a failed unit: ``label position shard map who reason attempts``.
        trace: one row a node: ``id type level parents units start seconds tokens status``.
        total: all of ``usage`` added up.
        seconds: how long the run took.
    """

    output: Any
    frame: pd.DataFrame
    findings: pd.DataFrame
    plan: Plan
    usage: pd.DataFrame
    failures: pd.DataFrame
    trace: pd.DataFrame
    total: Usage
    seconds: float
    warnings: tuple[AMRWarning, ...] = field(default=())

    def __repr__(self) -> str:
        return result_line(self)

    def _repr_html_(self) -> str:
        return result_html(self)


def usage_frame(ledger: Ledger) -> pd.DataFrame:
    """One row a phase and model."""
    rows = [{"phase": phase, "model": model, **asdict(usage)} for (phase, model), usage in ledger.lines.items()]
    return pd.DataFrame(rows, columns=["phase", "model", *(f.name for f in fields(Usage))]).set_index("phase")


def trace_frame(trace: Trace) -> pd.DataFrame:
    """One row a node."""
    columns = ["id", "type", "level", "parents", "units", "start", "seconds", "tokens", "status"]
    rows = [
        (n.id, n.type, n.level, list(n.parents), n.units, n.start, n.seconds, n.usage.tokens, n.status)
        for n in trace.nodes
    ]
    return pd.DataFrame(rows, columns=columns)


def failures_frame(failures: Iterable[Failure], index: pd.Index) -> pd.DataFrame:
    """One row a failed unit, in frame order; a failed reduce has no label and no position."""
    listed = sorted(failures, key=lambda failure: failure.position)
    return pd.DataFrame(
        {
            "label": pd.Series([index[f.position] if f.position >= 0 else None for f in listed], dtype=object),
            "position": pd.array([f.position if f.position >= 0 else None for f in listed], dtype="Int64"),
            "shard": pd.array([f.shard if f.shard >= 0 else None for f in listed], dtype="Int64"),
            "map": pd.Series([f.map for f in listed], dtype=object),
            "who": pd.Series([f.who for f in listed], dtype=object),
            "reason": pd.Series([f.reason for f in listed], dtype=object),
            "attempts": pd.array([f.attempts for f in listed], dtype="Int64"),
        }
    )
