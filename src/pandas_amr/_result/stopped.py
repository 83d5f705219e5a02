"""What ends a run: the errors of others become this library's, and take with them what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from pandas_amr._records.raised import ends_more
from pandas_amr.errors import AMRError, AMRWarning, PlanError, RunStopped, UsageError

if TYPE_CHECKING:
    from pandas_amr._result.result import Result

HAS_PARTIAL = "What was found is in the exception's .partial, a Result."


def give_partial(error: BaseException, partial: Result | None) -> None:
    """Give an error what was found."""
    if isinstance(error, RunStopped | AMRWarning):
        error.partial = partial
    else:  # Ctrl-C, cancellation and the like keep their own types, which know of no Result
        vars(error)["partial"] = partial
    if partial is not None and HAS_PARTIAL not in getattr(error, "__notes__", ()):
        error.add_note(HAS_PARTIAL)


def stop_with(
    error: Exception, partial: Result | None, *, where: str, planned: bool = False
) -> NoReturn:
    """Raise what a run ends with: an error that keeps its type, or a ``RunStopped`` in its place.

    Ours keep their types, and so do warnings that are raised as errors.

    Args:
        error: what was raised.
        partial: what was found until then.
        where: the stage in which it was raised.
        planned: whether it is about a plan that a model derived.
    """
    if isinstance(error, RunStopped | Warning):
        give_partial(error, partial)
        raise error
    cause = error.__cause__
    original = cause if cause is not None and ends_more(cause) else error
    # The text of another's error may quote a cell.
    said = (
        str(error)
        if isinstance(error, AMRError)
        else f"{type(original).__name__} was raised in {where}."
    )
    kind = PlanError if planned and isinstance(error, UsageError) else RunStopped
    stopped = kind(said)
    give_partial(stopped, partial)
    raise stopped from original
