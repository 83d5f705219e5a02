"""The list of all attempts."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from pandas_amr.sandbox.conformance.disruptions import integrity_attempts, resource_attempts
from pandas_amr.sandbox.conformance.escapes import escapes, leaks

if TYPE_CHECKING:
    from pandas_amr.sandbox.conformance.attempt import SandboxAttempt


def attempts() -> list[SandboxAttempt]:
    """List the attempts that can be made on this machine."""
    listed = every_attempt()
    if platform.machine() == "x86_64":
        return listed
    return [attempt for attempt in listed if not attempt.uses_call_numbers]


def every_attempt() -> list[SandboxAttempt]:
    """List all attempts. Those by call numbers know the numbers of x86_64 only."""
    return [*escapes(), *resource_attempts(), *integrity_attempts(), *leaks()]
