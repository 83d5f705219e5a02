"""Correct a result without a run behind it: what pandas computes is computed anew."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pandas_amr._findings.citations import Support
from pandas_amr._findings.columns import add_findings
from pandas_amr._findings.corrections import correct_units
from pandas_amr._findings.finding_type import only_list_type
from pandas_amr._findings.inputs import collect_finding_rows, no_nodes
from pandas_amr._findings.map_findings import MapFindings, none_from_journal
from pandas_amr._findings.store import CORRECTED, FOUND, FindingStore
from pandas_amr._plan.compute import compute, rank_rows
from pandas_amr._plan.outputs import convert_output, output_candidates
from pandas_amr._records.engine import THREAD, submit
from pandas_amr._records.usage import Ledger, Usage
from pandas_amr._reduce.inputs import select_where
from pandas_amr._reduce.sources import PartSources, evidence_share, sources_frame
from pandas_amr._result.frames import (
    CORRECTED_REASON,
    STATUSES,
    shown_columns,
    trace_frame,
    usage_frame,
)
from pandas_amr._result.recent import ATTRIBUTE
from pandas_amr._types.arrow import field_types
from pandas_amr._types.arrow_values import plain
from pandas_amr._types.resolve import choices_of
from pandas_amr._units.units import make_units
from pandas_amr.errors import AMRError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pandas_amr._findings.corrections import Correction, Corrections
    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._findings.inputs import FindingRows
    from pandas_amr._plan.plan import Ranking
    from pandas_amr._result.result import Result

WAY_OUT = (
    "override(..., reduce=False) gives the corrected frame without an answer; a result of the call "
    "itself has its answer written anew."
)


@dataclass(frozen=True)
class KnownCall:
    """What a result knows of the call that gave it.

    Attributes:
        columns: the columns that findings added to the frame.
        aggregations: the aggregations of the answer, without those that agents write.
    """

    columns: tuple[str, ...]
    aggregations: Mapping[Any, Any]


def rebuild_findings(
    result: Result, kinds: Mapping[str | None, FindingType | None], call: KnownCall
) -> MapFindings:
    """Make findings of a result's frame, as a run had them: each row is a unit."""
    assert result.status is not None
    units = make_units(_own_frame(result, call), (), dedupe=False)
    rows = result.status["status"].astype(object).to_numpy()
    stores: dict[str | None, FindingStore] = {}
    statuses: dict[str | None, NDArray[np.object_]] = {}
    for name, kind in kinds.items():
        stores[name] = FindingStore(name, kind)
        statuses[name] = rows.copy()
        if kind is None:
            continue
        table, has_values = _read_columns(result.frame, kind)
        statuses[name][has_values & ~np.isin(rows, FOUND)] = "ok"  # another map's failed
        _add_found(stores[name], statuses[name], table)
    list_type = only_list_type(list(kinds.values()))
    return MapFindings(units, stores, statuses, none_from_journal(statuses), list_type)


def _add_found(store: FindingStore, statuses: NDArray[np.object_], table: pa.Table) -> None:
    """Add the findings of the rows that have one."""
    places = np.flatnonzero(np.isin(statuses, FOUND))
    store.add(places.tolist(), table.take(pa.array(places)))


def _own_frame(result: Result, call: KnownCall) -> pd.DataFrame:
    """Return the frame of a result as it was given to the call."""
    frame = result.frame
    added = {*call.columns, *(result.plan.status_columns or ())}
    is_own = [label not in added for label in frame.columns.get_level_values(0)]
    own = frame.loc[:, is_own]
    own.attrs = dict(frame.attrs)
    own.attrs.pop(ATTRIBUTE, None)
    return own


def _read_columns(frame: pd.DataFrame, kind: FindingType) -> tuple[pa.Table, NDArray[np.bool_]]:
    """Read the findings of a map out of a frame: as Arrow holds them, and which rows have any."""
    arrays: list[pa.Array] = []
    has_values = np.zeros(len(frame), dtype=bool)
    annotations = field_types(kind.model).values()
    for column, annotation, field in zip(kind.columns, annotations, kind.arrow, strict=True):
        values = frame[column]
        has_values |= values.notna().to_numpy()
        if isinstance(values.dtype, pd.CategoricalDtype) and choices_of(annotation) is not None:
            chosen = [None if pd.isna(value) else value for value in values.tolist()]
            cells = [plain(value, annotation) for value in chosen]
            arrays.append(pa.array(cells, field.type))
        else:
            array = pa.chunked_array([pa.array(values.array)]).combine_chunks()
            arrays.append(array.cast(field.type))
    return pa.table(arrays, schema=kind.arrow), has_values


def correct_without_run(
    result: Result,
    kinds: Mapping[str | None, FindingType | None],
    corrections: Corrections,
    call: KnownCall,
    *,
    reduces: bool,
) -> Result:
    """Return a new result with corrected findings, whose answer is computed anew.

    Raises:
        UsageError: the answer was not computed by pandas alone, or by functions that are not here.
    """
    findings = rebuild_findings(result, kinds, call)
    answer = _Answer(None)
    if reduces:
        before = _find_answer(result, _collect_rows(result, findings), call)
        if not _is_same_answer(before.output, result.output):
            raise UsageError(
                "The answer cannot be made anew: this result was loaded or unpickled, and pandas "
                f"alone did not compute its answer from these findings. {WAY_OUT}"
            )
    for name, of_map in corrections.items():
        kind = kinds[name]
        assert kind is not None
        made = {position: one for position, one in of_map.items() if one is not None}
        correct_units(findings, name, kind, made, from_journal=False)
    rows = _collect_rows(result, findings)
    if reduces:
        answer = _find_answer(result, rows, call)
    return _assemble(result, findings, rows, answer, corrections)


def _collect_rows(result: Result, findings: MapFindings) -> FindingRows:
    frame = findings.units.frame
    return collect_finding_rows(
        frame, findings, by=result.plan.by, is_mapped=True, made_by=no_nodes
    )


@dataclass(frozen=True)
class _Answer:
    """An answer, and the positions of the rows that it consists of, if it is a ranking."""

    output: Any
    ranked: tuple[int, ...] | None = None


def _find_answer(result: Result, rows: FindingRows, call: KnownCall) -> _Answer:
    """Compute the answer of a result as its call did.

    Raises:
        UsageError: agents or functions gave it.
    """
    plan = result.plan
    aggregations = call.aggregations or plan.aggregations or {}
    if not aggregations and plan.ranking is None:
        if plan.reduce_instruction or result.output is not None:
            raise UsageError(
                "The answer cannot be made anew: agents wrote it, or a function gave it, and this "
                f"result was loaded or unpickled. {WAY_OUT}"
            )
        return _Answer(None)
    if threading.current_thread().name == THREAD:
        raise UsageError("This is the engine's own thread: override() has to be called in another.")
    rows = select_where(plan.where, rows)
    if not aggregations:
        assert plan.ranking is not None
        return _rank(rows, plan.ranking)
    try:
        computing = compute(rows.table, aggregations, by=rows.by, units=rows.units)
        value = submit(computing).result()
        return _Answer(_convert(value, plan.output, grouped=plan.by is not None))
    except AMRError as error:
        raise UsageError(f"The answer cannot be made anew: {error} {WAY_OUT}") from error


def _rank(rows: FindingRows, ranking: Ranking) -> _Answer:
    """Return the rows that rank first."""
    places = rank_rows(
        rows.table,
        ranking.field,
        most=ranking.most,
        lowest_first=ranking.lowest_first,
        by=rows.by,
    )
    positions = rows.positions[places].tolist()
    return _Answer(rows.table.iloc[places], tuple(positions))


def _convert(value: Any, kind: Any, *, grouped: bool) -> Any:
    """Convert what was computed to the type of the output; None if it is missing."""
    may_be_missing = kind is not None and not isinstance(value, pd.DataFrame)
    if may_be_missing and output_candidates(value)[0] is None:
        return None
    return convert_output(value, kind, grouped=grouped)


def _is_same_answer(first: Any, second: Any) -> bool:
    """Tell whether two answers are equal, but for how their numbers are stored."""
    if second is None:  # the findings were not reduced
        return True
    if isinstance(first, dict) and isinstance(second, dict):
        if first.keys() != second.keys():
            return False
        return all(_is_same_answer(first[name], second[name]) for name in first)
    if type(first) is not type(second):
        return False
    try:
        if isinstance(first, pd.DataFrame):
            pd.testing.assert_frame_equal(first, second, check_dtype=False, check_freq=False)
        elif isinstance(first, pd.Series):
            pd.testing.assert_series_equal(first, second, check_dtype=False, check_freq=False)
        else:
            own = pd.Series([first], dtype=object)
            other = pd.Series([second], dtype=object)
            pd.testing.assert_series_equal(own, other)
    except AssertionError:
        return False
    return True


def _assemble(
    result: Result,
    findings: MapFindings,
    rows: FindingRows,
    answer: _Answer,
    corrections: Corrections,
) -> Result:
    """Make the new result: what it took is nothing."""
    frame = rows.table
    if findings.list_type is not None:
        frame = add_findings(findings.units.frame, findings.findings())
    status = _correct_status(result, findings)
    if result.plan.status_columns:
        frame = add_findings(frame, shown_columns(status, result.plan.status_columns))
    sources, coverage = None, None
    if answer.ranked is not None:
        items = tuple(Support(frozenset((position,))) for position in answer.ranked)
        of_answer = (PartSources(None, items),)
        sources = sources_frame(of_answer, frame.index) if items else None
        readable = int((status["status"] != "empty").sum())
        coverage = evidence_share(of_answer, readable)
    return replace(
        result,
        output=answer.output,
        frame=frame,
        findings=rows.findings,
        status=status,
        failures=_failures_left(result.failures, corrections),
        usage=usage_frame(Ledger()),
        trace=trace_frame(()),
        total=Usage(),
        seconds=0.0,
        warnings=(),
        sources=sources,
        coverage=coverage,
        made_by=None,
    )


def _correct_status(result: Result, findings: MapFindings) -> pd.DataFrame:
    """Mark the corrected rows in the status."""
    assert result.status is not None
    status = result.status.copy()
    is_corrected = np.zeros(len(status), dtype=bool)
    for units in findings.corrected.values():
        is_corrected[list(units)] = True
    statuses = np.where(is_corrected, findings.row_statuses(), status["status"].astype(object))
    status["status"] = pd.Categorical(statuses, categories=list(STATUSES))
    has_become = is_corrected & (statuses == CORRECTED)
    status.loc[has_become, "reason"] = CORRECTED_REASON
    if "from_journal" in status:
        status["from_journal"] = status["from_journal"].to_numpy() & ~is_corrected
    return status


def _failures_left(failures: pd.DataFrame, corrections: Corrections) -> pd.DataFrame:
    """Leave out the failures of rows that were corrected."""
    is_left = np.ones(len(failures), dtype=bool)
    maps, positions = failures["map"].tolist(), failures["position"].tolist()
    for row, (name, position) in enumerate(zip(maps, positions, strict=True)):
        of_map: Mapping[int, Correction | None] = corrections.get(
            None if pd.isna(name) else name, {}
        )
        is_left[row] = pd.isna(position) or int(position) not in of_map
    return failures.loc[is_left].reset_index(drop=True)
