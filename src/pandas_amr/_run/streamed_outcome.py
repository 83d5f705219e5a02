"""The result of a run that was read part by part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from pandas_amr._reduce.failures import REDUCE_POSITION
from pandas_amr._reduce.sources import evidence_share, sources_frame
from pandas_amr._result.frames import build_later, trace_later, usage_frame
from pandas_amr._result.parts import StreamedResult, failures_of_parts, status_of_parts
from pandas_amr._run.outcome import (
    add_last_warnings,
    collect_transcripts,
    finding_types_of,
    warn_of_stop,
)
from pandas_amr._run.part_rows import open_parts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow.dataset as ds

    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._findings.store import Failure
    from pandas_amr._reduce.sources import ReduceOutcome
    from pandas_amr._result.part_files import WrittenPart


def make_streamed_result(
    spec: Spec,
    services: Services,
    state: State,
    folder: Path,
    parts: Sequence[WrittenPart],
    outcome: ReduceOutcome,
    *,
    schema: pa.Schema,
    unread: int,
    raises: bool,
) -> StreamedResult[Any, Any]:
    """Make the result of what is written so far.

    ``unread`` is how many rows it did not come to; ``raises`` says that it ends in an error.
    """
    services.account_cached()
    add_last_warnings(spec, services, state, None)
    warn_of_stop(spec, state, raises=raises)
    dataset = open_parts(parts, schema)
    sources, coverage = _describe_sources(outcome, parts)
    return StreamedResult(
        output=outcome.output,
        frame=dataset,
        findings=_select_findings(spec, dataset, schema),
        plan=spec.plan,
        usage=_usage_later(services),
        failures=build_later(failures_of_parts, tuple(parts), _list_of_reduce(state)),
        **trace_later(services.trace, services.trace.nodes),
        total=services.ledger.total,
        seconds=services.trace.seconds,
        started=services.trace.date,
        status=build_later(status_of_parts, tuple(parts)),
        stopped=state.end_reason,
        sandbox=spec.sandbox_tier or None,
        sources=sources,
        coverage=coverage,
        warnings=tuple(state.warnings),
        finding_types=finding_types_of(spec),
        folder=folder,
        transcripts=collect_transcripts(services, state),
        parts=tuple(parts),
        unread=unread,
    )


def _usage_later(services: Services) -> Any:
    """Return what builds the frame of usage, once somebody reads it."""
    return build_later(usage_frame, services.ledger.copy())


def _list_of_reduce(state: State) -> list[Failure]:
    """List what of the reduce failed; the failures of rows stand in the parts."""
    return [failure for failure in state.failures if failure.position == REDUCE_POSITION]


def _describe_sources(
    outcome: ReduceOutcome, parts: Sequence[WrittenPart]
) -> tuple[pd.DataFrame | None, float | None]:
    """Return the rows that the answer rests on, and their share of the rows that have content."""
    index = pd.RangeIndex(sum(part.rows for part in parts))
    empty = sum(part.counts.get("empty", 0) for part in parts)
    coverage = evidence_share(outcome.sources, len(index) - empty)
    if not outcome.sources:
        return None, coverage
    return sources_frame(outcome.sources, index), coverage


def _select_findings(spec: Spec, dataset: ds.Dataset, schema: pa.Schema) -> ds.Dataset:
    """Return a dataset of the columns that the maps have added."""
    others = set(schema.names) | set(spec.plan.status_columns or ())
    found = [field for field in dataset.schema if field.name not in others]
    return dataset.replace_schema(pa.schema(found))
