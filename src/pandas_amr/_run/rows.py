"""Which of the user's rows are behind the units of a run, for the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandas_amr._journal.origins import OwnRows, ShownRows
from pandas_amr._units.columns import find_content_columns
from pandas_amr._units.profile import find_rows_in_profiles

if TYPE_CHECKING:
    from pandas_amr._journal.origins import RowOrigins
    from pandas_amr._plan.call import Job


def trace_rows(job: Job, columns: tuple[int, ...], outer: RowOrigins | None) -> RowOrigins:
    """Tell which rows are behind the rows of a job's frame.

    Args:
        job: the job.
        columns: the positions of the columns by which its rows are told apart.
        outer: what tells it of the rows that the call was given, if these are not the user's own.
    """
    if job.given.axis != "columns":
        return outer or OwnRows(job.frame, columns)
    assert job.call is not None  # whose frame holds what the job's profiles
    frame = job.call.frame
    content = find_content_columns(frame, job.given.columns)
    shown = [find_rows_in_profiles(frame, [column]) for column in content]
    return ShownRows(outer or OwnRows(frame, content), shown)


def list_readings(job: Job) -> list[str]:
    """List the names of columns that a job may read of rows: its content, or all that code sees."""
    frame = job.frame
    content = job.columns
    if job.given.axis == "columns" and job.call is not None:
        frame = job.call.frame
        content = find_content_columns(frame, job.given.columns)
    every = tuple(range(len(frame.columns)))
    readings = {OwnRows(frame, content).reading, OwnRows(frame, every).reading}
    return sorted(readings)
