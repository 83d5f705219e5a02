"""Remove keys from texts of a server: keys, and no words that happen to be one."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable

SHORTEST = 4  # characters: what is shorter protects nothing, and is part of any text
SHORT = 8  # characters: what is shorter may be part of another word
LONGEST_WORD = 11  # letters, or digits
# A word that is used as a key ("none", "test") is one only where a text says so.
BEFORE_KEY = (
    r"(\bbearer\s+|"
    r"\b(?:key|token|credential|secret|password)s?(?: provided)?[\"']?\s*[:=]\s*[\"'`]?)"
)
# Keys of others, such as a gateway's own: masked ones, ones with a known beginning, and long ones.
# Each has a digit or a mask, which words have not.
OTHER_KEYS = re.compile(
    r"\b(?:sk|pk|key|rk)[-_](?=[\w.-]*[\d*])[\w*.-]{6,}"
    r"|\bBearer\s+(?=\S*[\d*])[\w*.+/=-]{6,}"
    r"|(?<![\w*])[\w-]{2,}\*{3,}[\w*-]*"
    r"|(?<=key )(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{20,}"
)
REMOVED = "[key]"


def remove_secrets(text: str, secrets: Iterable[str]) -> str:
    """Remove secrets, as they are and as addresses and JSON write them, and what looks like a key.

    Example:
        >>> remove_secrets("Incorrect API key provided: sk-a1b2c3d4.", ["sk-a1b2c3d4"])
        'Incorrect API key provided: [key].'
        >>> remove_secrets("The latest test has none.", ["none", "test"])
        'The latest test has none.'
    """
    parts: set[str] = set()
    for secret in secrets:
        parts.update((secret, *secret.split()))  # "Bearer sk-..."
    for part in sorted(parts, key=len, reverse=True):  # one may be part of another
        for written in _ways_to_write(part):
            text = _remove(text, written)
    return OTHER_KEYS.sub(REMOVED, text)


def _ways_to_write(secret: str) -> list[str]:
    """List how a secret is written: as it is, in an address, in JSON and in a repr."""
    escaped = json.dumps(secret)[1:-1]
    return list(dict.fromkeys((secret, quote(secret, safe=""), quote_plus(secret), escaped)))


def _remove(text: str, secret: str) -> str:
    """Remove one secret: a long one anywhere, a short one if it stands alone."""
    if len(secret) < SHORTEST:
        return text
    pattern = re.escape(secret)
    if _is_word(secret):
        named = re.compile(rf"{BEFORE_KEY}{pattern}(?!\w)", re.IGNORECASE)
        return named.sub(rf"\1{REMOVED}", text)
    if len(secret) < SHORT:
        pattern = rf"(?<![\w-]){pattern}(?![\w-])"
    return re.sub(pattern, REMOVED, text)


def _is_word(secret: str) -> bool:
    """Tell whether a key is a word or a number, which a text may hold as such."""
    if len(secret) > LONGEST_WORD:
        return False
    is_spelled = secret.islower() or secret.isupper() or secret.istitle()
    return secret.isdigit() or (secret.isalpha() and is_spelled)
