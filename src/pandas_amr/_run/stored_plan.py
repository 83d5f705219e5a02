"""The plan of a run that is read part by part, kept beside its parts: it is made once."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pandas_amr._journal.keys import fingerprint
from pandas_amr._plan.plan import Plan, read_plan
from pandas_amr._types.canonical import canonical_json
from pandas_amr.errors import PlanError

if TYPE_CHECKING:
    from pandas_amr._plan.call import Job
    from pandas_amr._result.part_files import OutFolder


def digest_call(job: Job) -> str:
    """Digest what a planner is asked: the task, what the user fixed, and the columns."""
    call = {
        "task": job.task,
        "given": job.given.plain(),
        "open": list(job.open),
        "functions": [str(name) for name in job.callables],
        "columns": [str(label) for label in job.frame.columns],
    }
    return fingerprint(canonical_json(call).encode()).hex()


def read_stored_plan(folder: OutFolder, call: str, job: Job) -> Plan | None:
    """Read the plan that was derived for the same call; None if there is none."""
    text = folder.read_plan(call)
    if text is None:
        return None
    try:
        derived = read_plan(text).fixed()
    except PlanError:  # of another version of the library
        return None
    return Plan(**(derived | job.given.fixed()))


def write_plan(folder: OutFolder, call: str, plan: Plan) -> None:
    """Keep a derived plan, unless JSON cannot hold it."""
    with contextlib.suppress(PlanError):
        folder.write_plan(call, plan.to_json())
