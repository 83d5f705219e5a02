"""Read the headers of an answer: rate limits, when to come back, and what it cost."""

from __future__ import annotations

import datetime as dt
import math
import re
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from pandas_amr.models.base import RateLimits

if TYPE_CHECKING:
    from collections.abc import Mapping

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86400.0
TOLERANCE = 0.2  # by which share a reset may differ from what a window predicts
EPOCH_S = 1e9  # so many seconds or more are a time since 1970, not a wait
EPOCH_MS = 1e12

# The headers of limits, by what is limited: the names of limit, remaining and reset.
SPELLINGS = {
    "requests": (
        (
            "x-ratelimit-limit-requests",
            "x-ratelimit-remaining-requests",
            "x-ratelimit-reset-requests",
        ),
        (
            "anthropic-ratelimit-requests-limit",
            "anthropic-ratelimit-requests-remaining",
            "anthropic-ratelimit-requests-reset",
        ),
        ("x-ratelimit-limit-req-minute", "x-ratelimit-remaining-req-minute", ""),  # Mistral
    ),
    "tokens": (
        ("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
        (
            "anthropic-ratelimit-tokens-limit",
            "anthropic-ratelimit-tokens-remaining",
            "anthropic-ratelimit-tokens-reset",
        ),
        ("x-ratelimit-limit-tokens-minute", "x-ratelimit-remaining-tokens-minute", ""),  # Mistral
        (
            "ratelimitbysize-limit",
            "ratelimitbysize-remaining",
            "ratelimitbysize-reset",
        ),  # Mistral, before that
    ),
}
# The headers of this gateway, and those of one behind it, which LiteLLM passes on.
COST_PREFIXES = ("x-litellm-response-cost", "llm_provider-x-litellm-response-cost")
_UNITS_S = {
    "ms": 1e-3, "millisecond": 1e-3, "s": 1.0, "sec": 1.0, "second": 1.0,
    "m": MINUTE_S, "min": MINUTE_S, "minute": MINUTE_S, "h": HOUR_S, "hr": HOUR_S, "hour": HOUR_S,
    "d": DAY_S, "day": DAY_S,
}  # fmt: skip
UNIT = r"(?:milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)(?![a-z])"
NUMBER = r"\d+(?:\.\d+)?"
PART = re.compile(rf"({NUMBER})\s*({UNIT})")
DURATION_PATTERN = rf"{NUMBER}\s*{UNIT}(?:[\s,]*(?:and\s+)?{NUMBER}\s*{UNIT})*"
DURATION = re.compile(DURATION_PATTERN)
PLAIN = re.compile(rf"{NUMBER}|\.\d+")
# When a limit is there again, and what is left of it until then: Discord, the first drafts of the
# IETF, many gateways.
RESETS = (
    ("x-ratelimit-reset-after", "x-ratelimit-remaining"),
    ("ratelimit-reset", "ratelimit-remaining"),
    ("x-ratelimit-reset", "x-ratelimit-remaining"),
    ("x-rate-limit-reset", "x-rate-limit-remaining"),
)
# The later drafts put both into one header: "limit=9, remaining=0, reset=30" and, of each policy,
# '"minute";r=0;t=30'.
OF_POLICIES = re.compile(r";\s*t\s*=")
LEFT_IN_POLICY = re.compile(r"\b(?:remaining|r)\s*=\s*(\d+)")
RESET_IN_POLICY = re.compile(r"\b(?:reset|t)\s*=\s*(\d+)")


def limits_of(headers: Mapping[str, str]) -> RateLimits | None:
    """Read the rate limits; None if there are none.

    They are per minute, unless limit, rest and reset together fit an hour or a day.
    """
    requests, requests_left = _limit(headers, "requests")
    tokens, tokens_left = _limit(headers, "tokens")
    if requests is None and tokens is None:
        return None
    return RateLimits(requests, requests_left, tokens, tokens_left)


def _limit(headers: Mapping[str, str], what: str) -> tuple[float | None, float | None]:
    """Read how much is admitted per second, and how much is left now; None if unknown."""
    for limit_name, left_name, reset_name in SPELLINGS[what]:
        limit = _number(headers.get(limit_name, ""))
        if not limit:
            continue
        left = _number(headers.get(left_name, ""))
        if left is not None:
            left = min(left, limit)
        reset_s = _reset_s(headers.get(reset_name, ""), headers)
        if reset_s == 0 and _refill_s(limit, left) > 1.0:
            continue  # what a minute brings back slowly is there at once: it is no such limit
        return limit / _window_s(limit, left, reset_s), left
    return None, None


def _refill_s(limit: float, left: float | None) -> float:
    """Give the seconds in which a limit per minute brings back what is used, one at the least."""
    used = 1.0 if left is None else max(1.0, limit - left)
    return used * MINUTE_S / limit


def _window_s(limit: float, left: float | None, reset_s: float | None) -> float:
    """Find the time over which a limit holds; the headers do not say it.

    Some servers say in how many seconds the whole limit is there again. If that is how long the
    limit of a day (or an hour) takes to refill what is used, then it is one of a day. Nothing else
    is concluded from a reset: OpenAI documents 16 tokens used of 150,000 with a reset in six
    minutes, and that is not a limit of three tokens per minute.
    """
    if left is None or not reset_s or left >= limit:
        return MINUTE_S
    used = limit - left
    for window_s in (DAY_S, HOUR_S):
        refill_s = used * window_s / limit
        if refill_s > 1.0 and abs(reset_s - refill_s) <= TOLERANCE * refill_s:
            minute_refill_s = used * MINUTE_S / limit
            if reset_s > 2 * minute_refill_s:
                return window_s
    return MINUTE_S


def _reset_s(text: str, headers: Mapping[str, str]) -> float | None:
    seconds = seconds_of(text)
    if seconds is None:
        return _seconds_until(text, headers)
    return None if seconds >= EPOCH_S else seconds


def _number(text: str) -> float | None:
    """Read a plain number; None for -1, NaN and the like, which servers send if they know none."""
    text = text.strip()
    if not PLAIN.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def cost_of(headers: Mapping[str, str]) -> float | None:
    """Read what an answer cost, as a gateway reports it; None if it does not.

    LiteLLM's proxy reports the money, and its parts: before a discount and a margin. For a model
    without a known price it reports nothing, or 0.0 (BerriAI/litellm issue 13790), so 0 is unknown.

    Example:
        >>> cost_of({"x-litellm-response-cost": "3.45e-05"})
        3.45e-05
        >>> cost_of({"x-litellm-response-cost": "0.0"}) is None
        True
    """
    for prefix in COST_PREFIXES:
        cost = _amount(headers.get(prefix, ""))
        original = _amount(headers.get(f"{prefix}-original", ""))
        if cost is None and original is not None:
            discount = _amount(headers.get(f"{prefix}-discount-amount", "")) or 0.0
            margin = _amount(headers.get(f"{prefix}-margin-amount", "")) or 0.0
            cost = original - discount + margin
        if cost is not None and cost > 0:
            return cost
    return None


def _amount(text: str) -> float | None:
    """Read an amount of money, with or without an exponent; None if it is not one."""
    try:
        amount = float(text)
    except ValueError:
        return None
    return amount if math.isfinite(amount) and amount >= 0 else None


def seconds_of(text: str) -> float | None:
    """Read a duration, in seconds; None if it is not one.

    It is one such as ``6m0s``, ``120ms``, ``1 minute and 2 seconds`` or ``1.5``.

    Example:
        >>> seconds_of("6m0s"), seconds_of("1.2.3s"), seconds_of("-5")
        (360.0, None, None)
    """
    text = text.strip().lower()
    if DURATION.fullmatch(text):
        total = 0.0
        for number, unit in PART.findall(text):
            seconds = _UNITS_S.get(unit) or _UNITS_S[unit.removesuffix("s")]
            total += float(number) * seconds
        return total if math.isfinite(total) else None
    return _number(text)


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Read how many seconds a server asks to wait; None if it does not ask.

    RFC 9110, section 10.2.3, and what else is in use: milliseconds, seconds, or a date, which is
    compared with the server's own clock if the headers have it. Anything else is ignored.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        milliseconds = _number(headers.get(name, ""))
        if milliseconds is not None:
            return milliseconds / 1000
    return _wait_in(headers.get("retry-after", ""), headers)


def reset_of(headers: Mapping[str, str]) -> float | None:
    """Read in how many seconds a limit is there again that is used up; None if no header tells.

    That is not what a server asks to wait, but after a 429 it is the time to come back.

    Example:
        >>> reset_of({"ratelimit-reset": "30"}), reset_of({"ratelimit": '"minute";r=0;t=7'})
        (30.0, 7.0)
    """
    for reset, left in RESETS:
        wait_s = _wait_in(headers.get(reset, ""), headers)
        if wait_s is not None and (_number(headers.get(left, "")) or 0.0) < 1:
            return wait_s
    waits_s: list[float] = []
    text = headers.get("ratelimit", "")
    for policy in text.split(",") if OF_POLICIES.search(text) else [text]:
        left_in, reset_in = LEFT_IN_POLICY.search(policy), RESET_IN_POLICY.search(policy)
        if reset_in is not None and left_in is not None and not int(left_in[1]):
            waits_s.append(float(reset_in[1]))
    return max(waits_s, default=None)


def _wait_in(text: str, headers: Mapping[str, str]) -> float | None:
    """Read a wait, or a time that is waited for; if a header came twice, the longer one counts."""
    seconds = seconds_of(text)
    if seconds is None:
        until_s = _seconds_until(text, headers)
        if until_s is not None:
            return until_s
        parts_s = [seconds_of(part) for part in text.split(",")]
        seconds = max((part for part in parts_s if part is not None), default=None)
    if seconds is None or seconds < EPOCH_S:
        return seconds
    return seconds_until_epoch(seconds)


def seconds_until_epoch(number: float) -> float | None:
    """Give the seconds until a time in seconds or milliseconds since 1970; None if it is past."""
    at = number / 1000 if number >= EPOCH_MS else number
    left = at - time.time()
    return left if left >= 0 else None


def _seconds_until(text: str, headers: Mapping[str, str]) -> float | None:
    """Give the seconds until a date; None if it is not one, or past."""
    until = _date(text)
    if until is None:
        return None
    now = _date(headers.get("date", "")) or dt.datetime.now(dt.UTC)
    left = (until - now).total_seconds()
    return left if left >= 0 else None


def _date(text: str) -> dt.datetime | None:
    """Read an HTTP date, or one of ISO 8601; None if it is not one."""
    if not re.search(r"\d:\d", text):
        return None
    for read in (parsedate_to_datetime, dt.datetime.fromisoformat):
        try:
            date = read(text.strip())
            if date.tzinfo is None:
                return date.replace(tzinfo=dt.UTC)
            return date.astimezone(dt.UTC)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return None
