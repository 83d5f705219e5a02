"""The result of a run: what its stages found and made, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pandas_amr._findings.columns import add_findings
from pandas_amr._findings.inputs import no_nodes
from pandas_amr._findings.map_findings import EMPTY, SKIPPED
from pandas_amr._records.counts import counted_of
from pandas_amr._records.raised import describe_error
from pandas_amr._reduce.failures import REDUCE_POSITION
from pandas_amr._reduce.sources import ReduceOutcome, evidence_share, sources_frame
from pandas_amr._result.frames import (
    build_later,
    failures_frame,
    shown_columns,
    status_frame,
    trace_later,
    usage_frame,
)
from pandas_amr._result.result import Result, RunOrigin
from pandas_amr._result.run_transcripts import RunTranscripts
from pandas_amr.errors import FailureWarning, MapFailed, ModelUnavailable

# What these compute does not say of how many rows; what agents write may.
AGGREGATES = frozenset({"aggregations", "chosen_number", "function", "ranking"})

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
    spec: Spec,
    services: Services,
    state: State,
    outcome: ReduceOutcome,
    parent: SharedRun | None,
    *,
    raises: bool,
) -> Result:
    """Make the result of a run that has come to its end; ``raises`` if that is an error."""
    services.account_cached()
    if parent is not None:
        parent.ends.extend(_last_nodes(services))
    add_last_warnings(spec, services, state, parent)
    warn_of_stop(spec, state, raises=raises)
    return _assemble(spec, services, state, outcome, parent)


def warn_of_stop(spec: Spec, state: State, *, raises: bool) -> None:
    """Warn that the run stopped early, unless its result shows it, or an error says it."""
    if raises or not state.end_reason:
        return
    is_fatal = isinstance(state.ended_by, ModelUnavailable | MapFailed)
    if is_fatal or spec.job.verb != "map_reduce":
        state.warnings.append(FailureWarning(f"The run stopped early: {state.end_reason}"))


def make_partial_result(
    spec: Spec, services: Services, state: State, parent: SharedRun | None
) -> Result:
    """Make a result of what was found until now."""
    services.account_cached()
    add_last_warnings(spec, services, state, parent)
    try:
        return _assemble(spec, services, state, ReduceOutcome(None), parent)
    except Exception as error:  # noqa: BLE001 (what it cost is told, even if it cannot be shown)
        warning = FailureWarning(f"What was found cannot be shown: {describe_error(error)}.")
        warning.logged = f"What was found cannot be shown: {type(error).__name__}."
        state.warnings.append(warning)
        state.findings = None
        return _assemble(spec, services, state, ReduceOutcome(None), parent)


def _last_nodes(services: Services) -> list[str]:
    """Name the nodes that the answer comes from: the last reduce, the maps, or the outer run's."""
    last: list[str] = []
    maps: list[str] = []
    for node in services.trace.at(services.prefix):
        if node.type in {"final-reduce", "direct", "compute"}:
            last.append(node.id)
        elif node.type in {"map", "recalled"}:
            maps.append(node.id)
    return last or maps or list(services.parents(None))


def add_last_warnings(
    spec: Spec, services: Services, state: State, parent: SharedRun | None
) -> None:
    """Warn of what happened to the journal and of what failed, as far as nothing has yet."""
    if parent is None and services.journal is not None:
        state.warnings += services.journal.take_warnings()
    _add_listener_warnings(services, state)
    warn_of_failed_units(spec, state)
    if state.has_warned_of_reduce:
        return
    state.has_warned_of_reduce = True
    for failure in state.sorted_failures(spec.job.names):
        if failure.position == REDUCE_POSITION:
            reason = failure.reason.removeprefix("reduce: ")
            happened = "The reduce failed and is listed in failures"
            warning = FailureWarning(f"{happened}: {reason}")
            warning.logged = f"{happened}."
            state.warnings.append(warning)


def _add_listener_warnings(services: Services, state: State) -> None:
    for warning in services.watch.listener_warnings:
        is_known = any(warning is known for known in state.warnings)
        if not is_known:
            state.warnings.append(warning)


def warn_of_failed_units(spec: Spec, state: State) -> None:
    """Warn once of units that failed, if what the verb gives does not show it.

    Under ``errors="raise"`` an error says it.
    """
    if state.has_warned_of_units or spec.settings.errors == "raise":
        return
    failed = {failure.position for failure in state.failures if failure.position >= 0}
    if not failed:
        return
    state.has_warned_of_units = True
    message = _describe_failed_units(spec, state, len(failed))
    if message:
        message += _describe_remembered(state)
        state.warnings.append(FailureWarning(message))


def _describe_failed_units(spec: Spec, state: State, failed: int) -> str:
    """Say what failed units mean for what the verb gives; empty if that shows it."""
    rows = len(spec.job.frame)
    skipped = 0 if state.findings is None else state.findings.rows_with(SKIPPED)
    if spec.sample_name:
        asked = counted_of(failed, rows - skipped, "row")
        return (
            f"The verification failed in part: {asked} have no second finding, and are not "
            "compared."
        )
    return describe_failed_rows(spec, failed, rows, skipped)


def describe_failed_rows(spec: Spec, failed: int, rows: int, skipped: int = 0) -> str:
    """Say what so many failed rows mean for what the verb gives; empty if that shows it.

    Args:
        spec: what was asked.
        failed: how many rows failed.
        rows: how many rows there are.
        skipped: how many of them were not asked about, since the run stopped.
    """
    verb = spec.job.verb
    if verb in {"map", "filter"}:
        fate = "<NA>" if verb == "map" else "kept"
        return (
            f"{counted_of(failed, rows, 'unit')} failed; they are {fate}, "
            "and listed in amr.result_of(frame).failures."
        )
    if verb == "map_reduce" and spec.reduce_kind in AGGREGATES:
        sound = counted_of(rows - failed - skipped, rows, "row")
        if len(spec.job.names) > 1:
            sound = f"at least {sound}"
        others = f" Not asked about, since the run stopped: {skipped:,}." if skipped else ""
        return (
            f"The answer rests on {sound}: {failed:,} failed, and are listed in result.failures."
            f"{others}"
        )
    return ""


def _describe_remembered(state: State) -> str:
    """Say how many of the failed units were not asked again."""
    if state.findings is None:
        return ""
    remembered = state.findings.count_remembered()
    if not remembered:
        return ""
    return (
        f" {remembered} of them failed before and were not asked again: "
        'plan={"retry_failed_after": ...} says when they are.'
    )


def _assemble(
    spec: Spec, services: Services, state: State, outcome: ReduceOutcome, parent: SharedRun | None
) -> Result:
    failures = state.sorted_failures(spec.job.names)
    found = state.finding_rows(spec.job)
    frame, status = _frame_and_status(spec, state, found, failures)
    spent = services.own_ledger
    return Result(
        output=outcome.output,
        frame=frame,
        findings=found.findings,
        plan=spec.plan,
        usage=build_later(usage_frame, spent),
        failures=build_later(failures_frame, failures, frame.index),
        **trace_later(services.trace, _list_nodes(services, parent)),
        total=spent.total,
        seconds=services.own_seconds,
        started=services.own_date,
        status=status,
        stopped=state.end_reason,
        sandbox=spec.sandbox_tier or None,
        made_by=None if state.made_by is no_nodes else state.made_by,
        sources=sources_frame(outcome.sources, frame.index) if outcome.sources else None,
        coverage=_find_coverage(outcome, state, frame),
        warnings=tuple(state.warnings),
        origin=_origin(spec, state),
        finding_types=_finding_types(spec, state),
        transcripts=collect_transcripts(services, state),
    )


def collect_transcripts(services: Services, state: State) -> RunTranscripts:
    """Return what was taken down of a run's agents."""
    recorder = services.trace.recorder
    writer = None if recorder is None else recorder.file
    asked_for = None
    if state.findings is not None:
        units = state.findings.units
        asked_for = units.asked[units.answered_by]
    return RunTranscripts(
        recorder,
        services.prefix,
        journal=services.journal,
        token=b"" if writer is None else writer.token,
        asked_for=asked_for,
        keys_of=state.keys_of,
    )


def _find_coverage(outcome: ReduceOutcome, state: State, frame: pd.DataFrame) -> float | None:
    """Return the share of rows with content that the answer cites; None if it cites none."""
    if not outcome.sources:
        return None
    readable = len(frame)
    if state.findings is not None:
        readable -= state.findings.rows_with(EMPTY)
    return evidence_share(outcome.sources, readable)


def _finding_types(spec: Spec, state: State) -> dict[str | None, Any]:
    """Return the types of what was mapped; none if nothing was."""
    if state.findings is None:
        return {}
    return finding_types_of(spec)


def finding_types_of(spec: Spec) -> dict[str | None, Any]:
    """Return the type of each map's findings; None for a function whose columns it alone knows."""
    planned = spec.plan.finding
    if isinstance(planned, dict):
        return {name: planned.get(name) for name in spec.job.names}
    return dict.fromkeys(spec.job.names, planned)


def _list_nodes(services: Services, parent: SharedRun | None) -> list[Node]:
    """List the nodes of the run in the trace, which goes on if the run is part of another."""
    if parent is None:
        return services.trace.nodes
    return services.trace.at(services.prefix)


def _frame_and_status(
    spec: Spec, state: State, found: FindingRows, failures: list[Failure]
) -> tuple[pd.DataFrame, Any]:
    """Write findings beside the frame's columns, and statuses if the plan says so."""
    findings = state.findings
    if findings is None:
        return spec.job.frame, None
    frame = found.table
    if findings.list_type is not None:
        frame = add_findings(spec.job.frame, findings.findings())
    status = build_later(
        status_frame,
        findings.row_statuses(),
        findings.rows_from_journal(),
        failures,
        spec.job.frame.index,
        findings.rows_taken_back(),
    )
    if spec.plan.status_columns:
        status = status()
        shown = shown_columns(status, spec.plan.status_columns)
        frame = add_findings(frame, shown)
    return frame, status


def _origin(spec: Spec, state: State) -> RunOrigin | None:
    """Name where a retry begins; None if nothing is mapped, or only a sample of it was."""
    if state.findings is None or spec.job.verb == "plan":
        return None
    job = spec.planned_job()
    gave_up = isinstance(state.ended_by, MapFailed)
    of_units = tuple(failure for failure in state.failures if failure.position >= 0)
    return RunOrigin(job, spec.settings, spec.lms, state.findings, gave_up, of_units)
