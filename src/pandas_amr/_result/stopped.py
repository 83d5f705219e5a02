"""End a run: errors of other libraries become ours, and every error carries the partial result."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from pandas_amr._records.raised import ends_loop
from pandas_amr.errors import AMRError, AMRWarning, PlanError, RunStopped, UsageError

if TYPE_CHECKING:
    from pandas_amr._result.result import Result

HAS_PARTIAL = "The findings so far are in the exception's .partial, a Result."


def give_partial(error: BaseException, partial: Result | None) -> None:
    """Set the ``partial`` of an error, and add a note that says so."""
    if isinstance(error, RunStopped | AMRWarning):
        error.partial = partial
    else:  # Ctrl-C, cancellation and the like keep their own types, which have no such attribute
        vars(error)["partial"] = partial
    if partial is not None and HAS_PARTIAL not in getattr(error, "__notes__", ()):
        error.add_note(HAS_PARTIAL)


def stop_with(
    error: Exception, partial: Result | None, *, where: str, planned: bool = False
) -> NoReturn:
    """Raise the error that ends a run, with what was found until then.

    A ``RunStopped`` keeps its type, and so does a warning that is raised as an error. Any other
    error is raised as a ``RunStopped``, with the original as its cause.

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
    original = cause if cause is not None and ends_loop(cause) else error
    if isinstance(error, AMRError):
        message = str(error)
    else:  # the text of another library's error may quote a cell
        message = f"{type(original).__name__} was raised in {where}."
    is_plan_error = planned and isinstance(error, UsageError)
    stopped = PlanError(message) if is_plan_error else RunStopped(message)
    give_partial(stopped, partial)
    raise stopped from original
