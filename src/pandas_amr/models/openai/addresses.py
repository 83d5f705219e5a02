"""Where a model answers: its address in one form, whoever wrote it, and the key that goes there."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pandas_amr.models.base import check_address
from pandas_amr.models.openai.keys import Key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas_amr.models.base import LM

ADDRESS = "https://api.openai.com/v1"
DEFAULT_PORTS = {"http": 80, "https": 443}
SECRET_HEADERS = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)


def address_of(lm: LM) -> str:
    """Give the address of an ``LM`` that brings no client: its own, the environment's, or OpenAI's.

    Raises:
        UsageError: it is not one.
    """
    address = lm.base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or ADDRESS
    check_address(address, "LM(base_url=...)" if lm.base_url else "OPENAI_BASE_URL")
    return _normalized(address)


def _normalized(address: str) -> str:
    """Write scheme and host in lower case, without a default port and with a slash at the end, as clients do.

    Example:
        >>> _normalized("HTTP://Host:80/v1")
        'http://host/v1/'
    """
    parts = urlsplit(address)
    host = parts.hostname or ""
    place = f"[{host}]" if ":" in host else host
    if parts.port not in {None, DEFAULT_PORTS.get(parts.scheme)}:
        place = f"{place}:{parts.port}"
    return f"{parts.scheme}://{place}{parts.path.rstrip('/')}/"


def key_of(lm: LM) -> Key:
    """Give the key of an ``LM`` that brings no client: its own, the environment's, or none.

    Raises:
        UsageError: no HTTP header can hold it.
    """
    if callable(lm.api_key):
        return Key(lm.api_key, "LM(api_key=...)", lm.timeout_s)
    key = lm.api_key or os.environ.get("OPENAI_API_KEY") or ""
    return Key(key, "LM(api_key=...), OPENAI_API_KEY", lm.timeout_s)


def secret_values(headers: Mapping[str, object] | None) -> tuple[str, ...]:
    """Give what stands in headers that may hold a secret."""
    values = [value for name, value in (headers or {}).items() if SECRET_HEADERS.search(name)]
    return tuple(value for value in values if isinstance(value, str) and value)
