"""The result of a run that was read part by part."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from pandas_amr._records.usage import Ledger
from pandas_amr._reduce.failures import REDUCE_POSITION
from pandas_amr._reduce.sources import evidence_share, sources_frame
from pandas_amr._result.frames import build_later, trace_frame, usage_frame
from pandas_amr._result.parts import StreamedResult, failures_of_parts, status_of_parts
from pandas_amr._run.outcome import add_last_warnings, finding_types_of
from pandas_amr._run.part_rows import open_parts
from pandas_amr.errors import FailureWarning, MapFailed, ModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._reduce.sources import ReduceOutcome
    from pandas_amr._result.part_files import Part


def make_streamed_result(
    spec: Spec,
    services: Services,
    state: State,
    folder: Path,
    parts: Sequence[Part],
    outcome: ReduceOutcome,
    *,
    schema: pa.Schema,
    raises: bool,
) -> StreamedResult[Any, Any]:
    """Make the result of what is written so far; ``raises`` if the run ends in an error."""
    services.account_cached()
    add_last_warnings(spec, services, state, None)
    is_hidden = spec.job.verb != "map_reduce" or isinstance(
        state.ended_by, ModelUnavailable | MapFailed
    )
    if state.end_reason and is_hidden and not raises:  # an error says it itself
        state.warnings.append(FailureWarning(f"The run stopped early: {state.end_reason}"))
    dataset = open_parts(parts, schema)
    inputs = set(schema.names) | set(spec.plan.status_columns or ())
    found = [field for field in dataset.schema if field.name not in inputs]
    of_reduce = [one for one in state.failures if one.position == REDUCE_POSITION]
    rows = sum(part.rows for part in parts)
    empty = sum(part.counts.get("empty", 0) for part in parts)
    index = pd.RangeIndex(rows)
    return StreamedResult(
        output=outcome.output,
        frame=dataset,
        findings=dataset.replace_schema(pa.schema(found)),
        plan=spec.plan,
        usage=build_later(usage_frame, Ledger(dict(services.ledger.lines))),
        failures=build_later(failures_of_parts, tuple(parts), of_reduce),
        trace=build_later(trace_frame, [replace(node) for node in services.trace.nodes]),
        total=services.ledger.total,
        seconds=services.trace.seconds,
        status=build_later(status_of_parts, tuple(parts)),
        stopped=state.end_reason,
        sandbox=spec.sandbox_tier or None,
        sources=sources_frame(outcome.sources, index) if outcome.sources else None,
        coverage=evidence_share(outcome.sources, rows - empty),
        warnings=tuple(state.warnings),
        finding_types=finding_types_of(spec),
        folder=folder,
        parts=tuple(parts),
    )
