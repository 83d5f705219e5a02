"""Carry out ``amr run``: ask, write the rows into place, say what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pandas_amr._api import verbs
from pandas_amr._api.cli.answer import (
    STATUS_OF_EXIT,
    STOPPED,
    count_rows,
    describe_result,
    exit_status,
    print_json,
)
from pandas_amr._api.cli.exits import FAILED, PARTIAL, Signalled
from pandas_amr._api.cli.files import write_frame
from pandas_amr._records.counts import counted_of
from pandas_amr._records.log import LOGGER
from pandas_amr._result.recent import result_of
from pandas_amr.errors import RunStopped

if TYPE_CHECKING:
    from pandas_amr._api.cli.files import Place
    from pandas_amr._api.cli.request import Request
    from pandas_amr._api.cli.values import MostFailed
    from pandas_amr._result.result import Result

AGAIN = "the same command goes on"


def carry_out(request: Request, most_failed: MostFailed) -> int:
    """Run it, write the rows, print the answer, and return the exit status.

    Raises:
        UsageError: the library refuses an argument; nothing was sent.
        RunStopped: the run ended early; what was found is kept, or written.
        Signalled: likewise, by a signal; the answer so far is printed.
    """
    try:
        result = _run(request)
    except RunStopped as error:
        _rescue(request, error.partial)
        raise
    except Signalled as signalled:
        partial = getattr(signalled, "partial", None)
        written = _rescue(request, partial)
        if partial is not None:
            out = request.out.name if written and request.out is not None else None
            print_json(_describe(request, partial, STOPPED, output=None, out=out))
        raise
    try:
        return _finish(request, result, exit_status(result, most_failed))
    except Signalled as signalled:
        kept = _describe_kept(request, count_rows(result).found)
        signalled.args = (f"The run itself had ended; {kept}.",)
        raise


def _run(request: Request) -> Result:
    question = {**request.question, **request.settings}
    if not request.is_map_only:
        return verbs.map_reduce(request.frame, **question)
    instruction = question.pop("map", None)
    return result_of(verbs.map(request.frame, instruction, **question))


def _finish(request: Request, result: Result, status: int) -> int:
    """Write the rows of a run that raised nothing, unless nothing was found, and the answer."""
    out, written = request.out, None
    if out is not None and status != FAILED:
        problem = _write_rows(result, out)
        if problem is None:
            written = out.name
        else:
            LOGGER.error("%s could not be written: %s.", out.name, problem)
            status = FAILED
    output = result.output
    if request.is_map_only and out is None:
        output = result.frame
    _log_status(request, result, status)
    print_json(_describe(request, result, STATUS_OF_EXIT[status], output=output, out=written))
    return status


def _write_rows(result: Result, out: Place) -> str | None:
    """Write the rows into place, and return what hindered it; None if nothing did."""
    try:
        write_frame(result.frame, out)
    except OSError as error:
        return error.strerror or type(error).__name__
    LOGGER.info("%d rows were written to %s.", len(result.frame), out.name)
    return None


def _describe(
    request: Request, result: Result, status: str, *, output: object, out: str | None
) -> dict[str, Any]:
    journal = None if request.journal is None else str(request.journal.path)
    return describe_result(result, status=status, output=output, out=out, journal=journal)


def _log_status(request: Request, result: Result, status: int) -> None:
    """Log what a status other than done means, and how to go on."""
    if status not in {FAILED, PARTIAL}:
        return
    counts = count_rows(result)
    kept = _describe_kept(request, counts.found)
    what = f"{counted_of(counts.found, counts.rows, 'row')} have a finding"
    if status == PARTIAL:
        LOGGER.warning("Partial: %s; %s.", what, kept)
        return
    untouched = "" if request.out is None else f" {request.out.name} is as it was."
    goes_on = f"; {kept}" if counts.found else ""
    LOGGER.error("Failed: %s%s.%s", what, goes_on, untouched)


def _describe_kept(request: Request, found: int) -> str:
    if request.journal is not None:
        return f"{found} kept in the journal, {AGAIN}"
    return "no journal keeps them, the same command begins anew"


def _rescue(request: Request, partial: Result | None) -> bool:
    """Write what was found before a run ended early, unless the journal keeps it; log where it is.

    Returns:
        Whether the rows were written to ``--out``.
    """
    if partial is None:
        return False
    counts = count_rows(partial)
    what = f"{counted_of(counts.found, counts.rows, 'row')} were found"
    if request.journal is not None:
        LOGGER.warning("%s; %s.", what, _describe_kept(request, counts.found))
        return False
    if not counts.found:
        return False
    if request.out is None:
        LOGGER.warning("%s, and lost: there is no journal and no --out.", what)
        return False
    problem = _write_rows(partial, request.out)
    if problem is not None:
        LOGGER.error("%s, and lost: %s could not be written: %s.", what, request.out.name, problem)
        return False
    LOGGER.warning("%s; there is no journal, the same command begins anew.", what)
    return True
