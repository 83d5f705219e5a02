"""Times of one machine's clock as those of another one's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas_amr.models.lease import PaceReport


def shift(report: PaceReport, seconds: float) -> PaceReport:
    """Return a report with its times on a clock that is so many seconds ahead.

    Example:
        >>> from pandas_amr.models.lease import PaceReport
        >>> shift(PaceReport(joined_at=5.0, paused_until=9.0), 100.0).paused_until
        109.0
    """
    return replace(
        report,
        joined_at=report.joined_at + seconds,
        slowed_at=_shift_set(report.slowed_at, seconds),
        slowed_began=_shift_set(report.slowed_began, seconds),
        paused_until=_shift_set(report.paused_until, seconds),
        gone_since=None if report.gone_since is None else report.gone_since + seconds,
    )


def _shift_set(moment: float, seconds: float) -> float:
    """Shift a moment, unless it is 0: then it has not come."""
    return moment + seconds if moment else moment
