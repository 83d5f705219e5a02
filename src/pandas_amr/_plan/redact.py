"""A call's frame as it is sent, if a ``redact`` function is in force."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pandas_amr._units.profile import profile_columns
from pandas_amr._units.redaction import Redaction
from pandas_amr.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from pandas_amr._plan.call import Job
    from pandas_amr._plan.plan import Plan


def redact_job(job: Job, function: Callable[[str], str], *, sends: bool) -> Job:
    """Return the call with its frame as it is sent.

    Args:
        job: the call.
        function: the user's.
        sends: whether anything is sent at all.

    Raises:
        UsageError: the function raised, or gave no text; nothing was sent.
    """
    redaction = Redaction(function)
    redacted = _redact_frame(job, redaction) if sends else None
    return replace(job, redaction=redaction, redacted=redacted)


def _redact_frame(job: Job, redaction: Redaction) -> pd.DataFrame:
    if job.given.axis == "columns" and job.call is not None:
        return _redact_profiles(job, redaction)
    columns: set[int] | None = None
    if not job.sends_all_columns:
        labels = list(job.frame.columns)
        groups = [labels.index(label) for label in job.given.group_columns or ()]
        columns = {*job.columns, *groups}
    return redaction.frame(job.frame, columns, has_index=job.has_repl)


def _redact_profiles(job: Job, redaction: Redaction) -> pd.DataFrame:
    """Profile the columns of the redacted frame: a profile cuts texts, and would cut secrets."""
    assert job.call is not None
    frame = job.call.frame
    labels = list(frame.columns)
    columns = [labels.index(label) for label in job.given.columns or labels]
    redacted = redaction.frame(frame, columns, has_index=False)
    return profile_columns(redacted, columns)


def check_redacted(plan: Plan, function: Callable[[str], str] | None) -> None:
    """Refuse a plan that was made under a ``redact`` function, if none is in force.

    Raises:
        PlanError: likewise; nothing was sent.
    """
    if plan.redact is None or function is not None:
        return
    argument = plan.redact if plan.redact.isidentifier() else "..."
    raise PlanError(
        f"This plan was made under redact={plan.redact}, and no redact function is in force. Set "
        f"it before the call: amr.configure(redact={argument}). To send the texts as they are: "
        "plan.replace(redact=None)."
    )
