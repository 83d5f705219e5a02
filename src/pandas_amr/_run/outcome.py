"""The result of a run: what its stages found and made, put together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pandas_amr._findings.columns import add_findings
from pandas_amr._findings.inputs import no_nodes
from pandas_amr._findings.map_findings import EMPTY
from pandas_amr._records.raised import describe_error
from pandas_amr._records.usage import Ledger
from pandas_amr._reduce.failures import REDUCE_POSITION
from pandas_amr._reduce.sources import ReduceOutcome, evidence_share, sources_frame
from pandas_amr._result.frames import (
    build_later,
    failures_frame,
    status_frame,
    trace_frame,
    usage_frame,
)
from pandas_amr._result.result import Result, RunOrigin
from pandas_amr.errors import FailureWarning, MapFailed, ModelUnavailable

if TYPE_CHECKING:
    import pandas as pd

    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._context.subrun import SharedRun
    from pandas_amr._findings.inputs import FindingRows
    from pandas_amr._findings.store import Failure
    from pandas_amr._records.trace import Node


def make_result(
    spec: Spec, services: Services, state: State, outcome: ReduceOutcome, parent: SharedRun | None
) -> Result:
    """Make the result of a run that has come to its end."""
    services.account_cached()
    if parent is not None:
        parent.ends.extend(_last_nodes(services))
    elif services.journal is not None:
        state.warnings += services.journal.take_warnings()
    _add_warnings(spec, state)
    return _assemble(spec, services, state, outcome, parent)


def make_partial_result(
    spec: Spec, services: Services, state: State, parent: SharedRun | None
) -> Result:
    """Make a result of what was found until now."""
    services.account_cached()
    try:
        return _assemble(spec, services, state, ReduceOutcome(None), parent)
    except Exception as error:  # noqa: BLE001 (what it cost is told, even if it cannot be shown)
        message = f"What was found cannot be shown: {describe_error(error)}."
        state.warnings.append(FailureWarning(message))
        state.findings = None
        return _assemble(spec, services, state, ReduceOutcome(None), parent)


def _last_nodes(services: Services) -> list[str]:
    """Name the nodes that the answer comes from: the last reduce, the maps, or the outer run's."""
    nodes = services.trace.at(services.prefix)
    last = [node.id for node in nodes if node.type in {"final-reduce", "direct"}]
    maps = [node.id for node in nodes if node.type == "map"]
    return last or maps or list(services.parents(None))


def _add_warnings(spec: Spec, state: State) -> None:
    """Warn of failures that the answer does not show: a frame, unlike a Result."""
    verb = spec.job.verb
    for failure in state.sorted_failures(spec.job.names):
        if failure.position == REDUCE_POSITION:
            reason = failure.reason.removeprefix("reduce: ")
            message = f"The reduce failed and is listed in failures: {reason}"
            state.warnings.append(FailureWarning(message))
    rows = len(spec.job.frame)
    failed = len({failure.position for failure in state.failures if failure.position >= 0})
    if verb in {"map", "filter"} and failed:
        fate = "<NA>" if verb == "map" else "kept"
        message = (
            f"{failed} of {rows} units failed; they are {fate}, "
            "and listed in amr.result_of(frame).failures."
        )
        state.warnings.append(FailureWarning(message))
    is_hidden = verb != "map_reduce" or isinstance(state.ended_by, ModelUnavailable | MapFailed)
    if state.end_reason and is_hidden:
        state.warnings.append(FailureWarning(f"The run stopped early: {state.end_reason}"))


def _assemble(
    spec: Spec, services: Services, state: State, outcome: ReduceOutcome, parent: SharedRun | None
) -> Result:
    failures = state.sorted_failures(spec.job.names)
    found = state.finding_rows(spec.job)
    frame, status = _frame_and_status(spec, state, found, failures)
    nodes = _copy_nodes(services, parent)
    return Result(
        output=outcome.output,
        frame=frame,
        findings=found.findings,
        plan=spec.plan,
        usage=build_later(usage_frame, Ledger(dict(services.ledger.lines))),
        failures=build_later(failures_frame, failures, frame.index),
        trace=build_later(trace_frame, nodes),
        total=services.ledger.total,
        seconds=services.trace.seconds,
        status=status,
        stopped=state.end_reason,
        sandbox=spec.sandbox_tier or None,
        made_by=None if state.made_by is no_nodes else state.made_by,
        sources=sources_frame(outcome.sources, frame.index) if outcome.sources else None,
        coverage=evidence_share(outcome.sources, _count_readable(state, frame)),
        warnings=tuple(state.warnings),
        origin=_origin(spec, state),
        finding_types=_finding_types(spec, state),
    )


def _count_readable(state: State, frame: pd.DataFrame) -> int:
    """Count the rows that have content."""
    if state.findings is None:
        return len(frame)
    return len(frame) - state.findings.rows_with(EMPTY)


def _finding_types(spec: Spec, state: State) -> dict[str | None, Any]:
    """Return the type of each map's findings; None for a function whose columns it alone knows."""
    if state.findings is None:
        return {}
    planned = spec.plan.finding
    if isinstance(planned, dict):
        return {name: planned.get(name) for name in spec.job.names}
    return dict.fromkeys(spec.job.names, planned)


def _copy_nodes(services: Services, parent: SharedRun | None) -> list[Node]:
    """Copy the nodes of the run out of the trace, which goes on if the run is part of another."""
    nodes = services.trace.nodes if parent is None else services.trace.at(services.prefix)
    return [replace(node) for node in nodes]


def _frame_and_status(
    spec: Spec, state: State, found: FindingRows, failures: list[Failure]
) -> tuple[pd.DataFrame, Any]:
    """Write findings beside the frame's columns, and statuses if the plan says so."""
    findings, index = state.findings, spec.job.frame.index
    if findings is None:
        return spec.job.frame, None
    frame = found.table
    if findings.list_type is not None:
        frame = add_findings(spec.job.frame, findings.findings())
    status = build_later(status_frame, findings.row_statuses(), failures, index)
    if spec.plan.status_columns:
        status = status()
        named = status.set_axis(list(spec.plan.status_columns), axis=1)
        frame = add_findings(frame, named)
    return frame, status


def _origin(spec: Spec, state: State) -> RunOrigin | None:
    """Name where a retry begins; None if nothing is mapped, or only a sample of it was."""
    if state.findings is None or spec.job.verb == "plan":
        return None
    gave_up = isinstance(state.ended_by, MapFailed)
    return RunOrigin(spec.planned_job(), spec.settings, spec.lms, state.findings, gave_up)
