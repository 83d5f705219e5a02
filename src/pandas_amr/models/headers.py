"""What a server's headers tell: its limits, and when to come back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pandas_amr.models.base import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping


def limits_of(headers: Mapping[str, str]) -> Limits | None:
    """What ``x-ratelimit-*`` headers tell: limits are a minute's, unless their reset speaks of a longer time."""
    requests, requests_left = _limit(headers, "requests")
    tokens, tokens_left = _limit(headers, "tokens")
    if requests is None and tokens is None:
        return None
    return Limits(requests, requests_left, tokens, tokens_left)


def _limit(headers: Mapping[str, str], what: str) -> tuple[float | None, float | None]:
    try:
        limit = float(headers[f"x-ratelimit-limit-{what}"])
        left = float(headers[f"x-ratelimit-remaining-{what}"])
    except (KeyError, ValueError):
        return None, None
    rate = limit / 60
    reset_s = seconds_of(headers.get(f"x-ratelimit-reset-{what}", ""))
    if reset_s and 0 <= left < limit and (limit - left) / reset_s < rate / 2:
        rate = (limit - left) / reset_s  # a day's limit, say
    return (rate, left) if rate > 0 else (None, None)


def seconds_of(text: str) -> float | None:
    """A duration such as ``6m0s``, ``120ms`` or ``1.5``, in seconds."""
    parts = re.findall(r"([\d.]+)(ms|s|m|h|d)", text)
    if parts:
        return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    try:
        return float(text)
    except ValueError:
        return None


_UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from ``retry-after-ms`` or ``retry-after`` (RFC 9110, section 10.2.3; seconds only)."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * scale)
        except (KeyError, ValueError):
            continue
    return None
