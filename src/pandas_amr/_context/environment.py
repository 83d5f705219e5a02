"""The environment variables of this library: those that are known, and those that look mistyped."""

from __future__ import annotations

import os

from pandas_amr._records.suggest import closest_name
from pandas_amr.errors import UsageError

PREFIX = "AMR_"
ALIKE = 0.8  # AMR is a word of other programs, too, whose variables are left alone
VARIABLES = ("AMR_MODEL", "AMR_JOURNAL", "AMR_LEASE", "AMR_OFFLINE", "AMR_TELEMETRY")
SWITCHED_ON = frozenset({"1", "true", "yes", "on"})
SWITCHED_OFF = frozenset({"", "0", "false", "no", "off"})


def check_environment() -> None:
    """Refuse a variable whose name is like that of one of ours: it would be left out silently.

    Raises:
        UsageError: there is one, and the variable that is meant is not set.
    """
    alike = [name for name in os.environ if name.upper().startswith(PREFIX)]
    for name in sorted(set(alike) - set(VARIABLES)):
        meant = closest_name(name.upper().removeprefix(PREFIX), _short_names(), least=ALIKE)
        if meant is None or f"{PREFIX}{meant}" in os.environ:
            continue
        raise UsageError(
            f"The environment sets {name}, which is not a variable of pandas-amr. "
            f"Did you mean {PREFIX}{meant}? Rename it, or unset it."
        )


def is_offline_by_environment() -> bool:
    """Tell whether ``AMR_OFFLINE`` lets the journal alone answer.

    Raises:
        UsageError: it is neither on nor off.
    """
    return _is_on("AMR_OFFLINE")


def is_traced_by_environment() -> bool:
    """Tell whether ``AMR_TELEMETRY`` lets OpenTelemetry listen.

    Raises:
        UsageError: it is neither on nor off.
    """
    return _is_on("AMR_TELEMETRY")


def _is_on(variable: str) -> bool:
    text = os.environ.get(variable, "")
    switch = text.strip().casefold()
    if switch in SWITCHED_ON:
        return True
    if switch in SWITCHED_OFF:
        return False
    raise UsageError(f"{variable} takes 1 or 0, not {text!r}.")


def _short_names() -> list[str]:
    return [name.removeprefix(PREFIX) for name in VARIABLES]
