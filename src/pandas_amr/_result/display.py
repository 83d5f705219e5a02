"""Show a result as one line: its repr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pandas_amr._findings.store import CORRECTED
from pandas_amr._records.counts import counted, counted_of
from pandas_amr._records.usage import describe_spend
from pandas_amr._result.frames import have_findings
from pandas_amr._units.profile import shorten_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas_amr._result.result import Result

STOPPED_CHARACTERS = 120


def result_line(result: Result) -> str:
    """Return one line: ``<Result 58 of 60 rows, 22 calls, 21 from journal, $0.04, 2 failed>``."""
    total = result.total
    parts = [_coverage(result), counted(total.calls, "call")]
    recalled = _count_recalled(result)
    if recalled:
        parts.append(f"{recalled} from journal")
    parts += [describe_spend(total), *_count_corrected(result), *_describe_problems(result)]
    if result.sandbox:
        parts.append(f"sandbox {result.sandbox}")
    return f"<Result {', '.join(filter(None, parts))}>"


def line_of_parts(coverage: str, result: Result[Any, Any], problems: Mapping[str, int]) -> str:
    """Return one line of a result whose rows are in files, or on a cluster.

    Args:
        coverage: how many rows have a finding, and where they are.
        result: the result.
        problems: how many rows have none, by their status.
    """
    parts = [coverage, counted(result.total.calls, "call"), describe_spend(result.total)]
    parts += [f"{rows} {status}" for status, rows in problems.items() if rows]
    if result.stopped:
        reason = result.stopped.partition(". ")[0].rstrip(".")
        parts.append(f"stopped: {reason}")
    return f"<Result {', '.join(filter(None, parts))}>"


def _coverage(result: Result) -> str:
    """Say how many rows have a finding; of a result without findings, how many rows there are."""
    rows = len(result.frame)
    if result.status is None:
        return counted(rows, "row")
    return counted_of(int(have_findings(result.status).sum()), rows, "row")


def _count_recalled(result: Result) -> int:
    """Count the rows with a finding from the journal; without findings, the answers from it."""
    if result.status is None:
        return result.total.recalled
    return int((have_findings(result.status) & result.status["from_journal"].to_numpy()).sum())


def _count_corrected(result: Result) -> list[str]:
    """Count the rows that a person corrected."""
    if result.status is None:
        return []
    corrected = int((result.status["status"] == CORRECTED).sum())
    return [f"{corrected} corrected"] if corrected else []


def _describe_problems(result: Result) -> list[str]:
    """Say what failed, and why the run stopped."""
    problems: list[str] = []
    positions = result.failures["position"].dropna()
    rows = int(positions[positions >= 0].nunique())
    if rows:
        problems.append(f"{rows} failed")
    problems += _unread_parts(result)
    if len(positions[positions >= 0]) < len(result.failures):
        problems.append("the reduce failed")
    if result.stopped is not None:
        reason = shorten_text(result.stopped.partition(". ")[0].rstrip("."), STOPPED_CHARACTERS)
        problems.append(f"stopped: {reason}")
    return problems


def _unread_parts(result: Result) -> list[str]:
    """Count the rows that were not read."""
    if result.status is None:
        return []
    counts = result.status["status"].value_counts()
    return [
        f"{counts[status]} {status}" for status in ("empty", "skipped") if counts.get(status, 0)
    ]
