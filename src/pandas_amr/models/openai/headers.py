"""What a server's headers tell: its limits, when to come back, and what an answer cost."""

from __future__ import annotations

import datetime as dt
import math
import re
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from pandas_amr.models.base import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86400.0
AGREES = 0.2  # by which share a reset may differ from what a window predicts
EPOCH_S = 1e9  # a number of seconds above it is a time since 1970, and no wait
EPOCH_MS = 1e12

# Where limits are told, by what is limited: the names of limit, remaining and reset.
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
# Of this gateway, and of one behind it, whose headers LiteLLM passes on.
COST_PREFIXES = ("x-litellm-response-cost", "llm_provider-x-litellm-response-cost")
_UNITS_S = {"ms": 1e-3, "s": 1.0, "m": MINUTE_S, "h": HOUR_S, "d": DAY_S}
NUMBER = r"\d+(?:\.\d+)?"
DURATION = re.compile(rf"(?:{NUMBER}(?:ms|s|m|h|d)\s*)+")
PLAIN = re.compile(rf"{NUMBER}|\.\d+")


def limits_of(headers: Mapping[str, str]) -> Limits | None:
    """Read the limits that headers tell: a minute's, unless limit, rest and reset together are an hour's or a day's."""
    requests, requests_left = _limit(headers, "requests")
    tokens, tokens_left = _limit(headers, "tokens")
    if requests is None and tokens is None:
        return None
    return Limits(requests, requests_left, tokens, tokens_left)


def _limit(headers: Mapping[str, str], what: str) -> tuple[float | None, float | None]:
    """Read how much a second is admitted, and how much is left now; None for what is not known."""
    for limit_name, left_name, reset_name in SPELLINGS[what]:
        limit = _number(headers.get(limit_name, ""))
        if not limit:
            continue
        left = _number(headers.get(left_name, ""))
        if left is not None:
            left = min(left, limit)
        reset_s = _reset_s(headers.get(reset_name, ""), headers)
        return limit / _window_s(limit, left, reset_s), left
    return None, None


def _window_s(limit: float, left: float | None, reset_s: float | None) -> float:
    """Tell over which time a limit holds.

    Servers do not say it. Some tell in how many seconds all of it is there again; where that is what a day's (or an
    hour's) limit takes to refill what is used, it is a day's. Nothing else is concluded from a reset: OpenAI documents
    16 tokens used of 150,000 with a reset in six minutes, and that is no limit of three tokens a minute.
    """
    if left is None or not reset_s or left >= limit:
        return MINUTE_S
    used = limit - left
    for window_s in (DAY_S, HOUR_S):
        refill_s = used * window_s / limit
        if refill_s > 1.0 and abs(reset_s - refill_s) <= AGREES * refill_s:
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
    """A number that is written as one; None for -1, NaN and the like, which servers send for what they do not know."""
    text = text.strip()
    if not PLAIN.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def cost_of(headers: Mapping[str, str]) -> float | None:
    """Read what a gateway says that an answer cost; None if it says nothing.

    LiteLLM's proxy tells it in money, and in its parts: before a discount and a margin. Of models whose price it does
    not know it says nothing, or 0.0 (BerriAI/litellm issue 13790), so that 0 tells nothing either.

    Example:
        >>> cost_of({"x-litellm-response-cost": "3.45e-05"}), cost_of({"x-litellm-response-cost": "0.0"})
        (3.45e-05, None)
    """
    for prefix in COST_PREFIXES:
        cost = _amount(headers.get(prefix, ""))
        original = _amount(headers.get(f"{prefix}-original", ""))
        if cost is None and original is not None:
            less = _amount(headers.get(f"{prefix}-discount-amount", "")) or 0.0
            more = _amount(headers.get(f"{prefix}-margin-amount", "")) or 0.0
            cost = original - less + more
        if cost is not None and cost > 0:
            return cost
    return None


def _amount(text: str) -> float | None:
    """An amount of money, written with an exponent or without; None if it is none."""
    try:
        amount = float(text)
    except ValueError:
        return None
    return amount if math.isfinite(amount) and amount >= 0 else None


def seconds_of(text: str) -> float | None:
    """A duration such as ``6m0s``, ``120ms`` or ``1.5``, in seconds; None if it is none.

    Example:
        >>> seconds_of("6m0s"), seconds_of("1.2.3s"), seconds_of("-5")
        (360.0, None, None)
    """
    text = text.strip().lower()
    if DURATION.fullmatch(text):
        parts = re.findall(rf"({NUMBER})(ms|s|m|h|d)", text)
        total = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
        return total if math.isfinite(total) else None
    return _number(text)


def retry_after_of(headers: Mapping[str, str]) -> float | None:
    """Read how many seconds a server asks to wait (RFC 9110, section 10.2.3, and what is in use beside it).

    In milliseconds, in seconds, or as a date, which is laid beside the server's own clock if it tells it. What is
    negative or no number is as if it was not there.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        milliseconds = _number(headers.get(name, ""))
        if milliseconds is not None:
            return milliseconds / 1000
    text = headers.get("retry-after", "")
    seconds = seconds_of(text)
    if seconds is None:
        return _seconds_until(text, headers)
    return seconds if seconds < EPOCH_S else seconds_until_epoch(seconds)


def seconds_until_epoch(number: float) -> float | None:
    """Seconds until a time that is given in seconds or milliseconds since 1970; None if it is past."""
    at = number / 1000 if number >= EPOCH_MS else number
    left = at - time.time()
    return left if left >= 0 else None


def _seconds_until(text: str, headers: Mapping[str, str]) -> float | None:
    """Seconds until a date; None if it is none, or past."""
    until = _date(text)
    if until is None:
        return None
    now = _date(headers.get("date", "")) or dt.datetime.now(dt.UTC)
    left = (until - now).total_seconds()
    return left if left >= 0 else None


def _date(text: str) -> dt.datetime | None:
    """An HTTP date, or one of ISO 8601; None if it is none."""
    if not re.search(r"\d:\d", text):
        return None
    for read in (parsedate_to_datetime, dt.datetime.fromisoformat):
        try:
            date = read(text.strip())
            return date.replace(tzinfo=dt.UTC) if date.tzinfo is None else date.astimezone(dt.UTC)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return None
