"""When a call's frame is redacted: before its first request, and never on the engine's thread."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from pandas_amr._plan.redact import redact_job
from pandas_amr._records.engine import THREAD

if TYPE_CHECKING:
    from pandas_amr._context.spec import Spec


def redact_where_called(spec: Spec) -> Spec:
    """Redact the frame on the caller's thread, unless that is the engine's: its loop must go on.

    Raises:
        UsageError: the function raised, or gave no text; nothing was sent.
    """
    if threading.current_thread().name == THREAD or not needs_redaction(spec):
        return spec
    return redact_spec(spec)


def needs_redaction(spec: Spec) -> bool:
    """Tell whether a ``redact`` function is in force that the frame has not passed yet."""
    if spec.settings.redact is None:
        return False
    return spec.job.redaction is None or (bool(spec.lms) and spec.job.redacted is None)


def redact_spec(spec: Spec) -> Spec:
    """Return what is asked for with the frame as it is sent.

    Raises:
        UsageError: the function raised, or gave no text; nothing was sent.
    """
    function = spec.settings.redact
    assert function is not None
    return replace(spec, job=redact_job(spec.job, function, sends=bool(spec.lms)))


def note_redaction(spec: Spec) -> Spec:
    """Note in the plan the name of the function that is in force, if anything is sent."""
    redaction = spec.job.redaction
    if redaction is None or not spec.lms:
        return spec
    return replace(spec, plan=spec.plan.replace(redact=redaction.name))
