"""How a run ended, for the bar and for the log: without the text of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandas_amr._context.progress_view import Ending
from pandas_amr._records.counts import counted
from pandas_amr._units.profile import shorten_text
from pandas_amr.errors import (
    BudgetExceeded,
    FailureWarning,
    JournalError,
    ModelError,
    SandboxUnavailable,
)
from pandas_amr.models.waits import first_sentence

if TYPE_CHECKING:
    from pandas_amr._context.progress import Progress
    from pandas_amr._result.result import Result

REASON_CHARACTERS = 200
# Errors whose text quotes no cell; that of others may be an exception of a user's function.
PLAIN_ERRORS = (BudgetExceeded, JournalError, ModelError, SandboxUnavailable)


def reason_of(error: BaseException) -> str:
    """Describe the error that ended a run."""
    name = type(error).__name__
    return f"{name}: {_shorten(str(error))}" if isinstance(error, PLAIN_ERRORS) else name


def describe_end(result: Result | None, progress: Progress) -> Ending:
    """Describe how a run ended that raised nothing."""
    if result is None:
        return Ending("done", "done", is_complete=True)
    is_told = bool(result.warnings)
    stopped = _shorten(result.stopped or "")
    is_complete = result.stopped is None
    if progress.failed and not progress.found:
        title = "no row succeeded"
        return Ending("failed", title, stopped, is_complete=is_complete, is_told=is_told)
    if result.stopped is not None:
        return Ending("partial", "stopped", stopped, is_told=is_told)
    if not len(result.failures):
        return Ending("done", "done", _other_problems(result), is_complete=True)
    rows = _count_failed_rows(result)
    title = "done, with failures" if rows else "done, but the reduce failed"
    # The last stage of a recipe, whose progress this is, may have failed at none.
    reason = f"{counted(rows, 'row')} failed" if rows and not progress.failed else ""
    return Ending("partial", title, reason, is_complete=True, is_told=is_told)


def _shorten(text: str) -> str:
    """Shorten a text to its head: behind a colon may stand what a server says, or an exception."""
    head = first_sentence(text).partition(": ")[0]
    return shorten_text(head, REASON_CHARACTERS)


def _other_problems(result: Result) -> str:
    """Describe what was left out of a run in which nothing failed."""
    texts = [str(warning) for warning in result.warnings if isinstance(warning, FailureWarning)]
    return "; ".join(map(_shorten, texts))


def _count_failed_rows(result: Result) -> int:
    positions = result.failures["position"].dropna()
    return int(positions[positions >= 0].nunique())
