"""Correct findings as a person says, and reduce them anew without asking about a row."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from pandas_amr._records.refused import show_refused
from pandas_amr._result.computed_anew import KnownCall, correct_without_run, rebuild_findings
from pandas_amr._result.correction_frames import read_frame
from pandas_amr._result.given_corrections import Correctable, CorrectionReader
from pandas_amr._result.records import read_type
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from pandas_amr._findings.corrections import Corrections
    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._result.result import Result

SHAPE = 'override({label: {"field": value}})'


def override_findings(
    result: Result, corrections: object, call: KnownCall, *, by: object, reduce: object
) -> Result:
    """Return a new result in which a person's corrections stand in place of findings.

    Raises:
        UsageError: they do not fit, or the answer cannot be made anew; nothing has changed.
    """
    if by not in {"label", "position"}:
        raise UsageError(f"override(by=...) takes 'label' or 'position', not {show_refused(by)}.")
    if not isinstance(reduce, bool):
        raise UsageError(f"override(reduce=...) takes True or False, not {show_refused(reduce)}.")
    kinds = _find_types(result)
    checked = _read(result, kinds, corrections, call, by=str(by))
    if not any(checked.values()):
        return copy.copy(result)
    if result.origin is None:
        return correct_without_run(result, kinds, checked, call, reduces=reduce)
    return _correct_in_run(result, checked, reduces=reduce)


def _find_types(result: Result) -> dict[str | None, FindingType | None]:
    """Return the type of each map's findings; None of a function without one.

    Raises:
        UsageError: nothing was mapped, or a type cannot be imported.
    """
    kinds: dict[str | None, FindingType | None] = {}
    for name, known in (result.finding_types or {}).items():
        kinds[name] = None if known is None else read_type(result, name, known)
    if not kinds or result.status is None:
        raise UsageError("There are no findings to correct: nothing was mapped.")
    return kinds


def _read(
    result: Result,
    kinds: Mapping[str | None, FindingType | None],
    given: object,
    call: KnownCall,
    *,
    by: str,
) -> Corrections:
    """Read what the user gives.

    Raises:
        UsageError: some of it does not fit.
    """
    origin = result.origin
    if origin is None:
        findings, functions = rebuild_findings(result, kinds, call), frozenset[str | None]()
    else:
        findings, functions = origin.findings, frozenset(origin.job.callables)
    reader = CorrectionReader(Correctable(result.frame, findings, kinds, functions), by)
    if isinstance(given, pd.DataFrame | pd.Series):
        return reader.check(read_frame(reader, given))
    if isinstance(given, Mapping):
        return reader.check(reader.read_dict(given))
    raise UsageError(
        f"Corrections are a dict by label, {SHAPE}, or a frame or a Series with the labels of the "
        f"rows as its index; not a {type(given).__name__}."
    )


def _correct_in_run(result: Result, corrections: Corrections, *, reduces: bool) -> Result:
    """Correct the findings of a result's run, and reduce them, if the run had come to that."""
    origin = result.origin
    assert origin is not None
    is_whole = result.stopped is None and not origin.findings.was_interrupted
    corrected = origin.runner.override(origin, corrections, reduces=reduces and is_whole)
    if is_whole or corrected.origin is None:
        return corrected
    # What the run had left to do is still to be done.
    as_before: dict[str, Any] = {"gave_up": origin.gave_up}
    return replace(corrected, stopped=result.stopped, origin=replace(corrected.origin, **as_before))
