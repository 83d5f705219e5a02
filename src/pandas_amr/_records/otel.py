"""A run's events as spans and metrics of OpenTelemetry."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from pandas_amr.errors import EventWarning, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pandas_amr._records.events import Event


def check_telemetry(what: str) -> None:
    """Refuse to give spans to an API that is not installed.

    Raises:
        UsageError: it is not.
    """
    try:
        is_there = find_spec("opentelemetry.trace") is not None
    except ModuleNotFoundError:
        is_there = False
    if not is_there:
        raise UsageError(f'{what} needs OpenTelemetry: pip install "pandas-amr[otel]".')


class Telemetry:
    def __init__(self, warn: Callable[[EventWarning], None]) -> None: ...
    def __call__(self, event: Event) -> None: ...
