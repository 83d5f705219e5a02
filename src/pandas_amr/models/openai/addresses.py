"""The address of a model's server in a normal form, and the key for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from pandas_amr.errors import UsageError
from pandas_amr.models.base import SECRET_HEADERS, KeyPlace, check_address
from pandas_amr.models.openai.keys import Key
from pandas_amr.models.openai.known_hosts import key_variable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas_amr.models.base import LM

ADDRESS = "https://api.openai.com/v1"
DEFAULT_PORTS = {"http": 80, "https": 443}
KEY_VARIABLE = "OPENAI_API_KEY"


def address_of(lm: LM) -> str:
    """Give the address of an ``LM`` without a client: its own, the environment's, or OpenAI's.

    Raises:
        UsageError: it is not an address.
    """
    address = lm.base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or ADDRESS
    check_address(address, "LM(base_url=...)" if lm.base_url else "OPENAI_BASE_URL")
    return _normalize(address)


def _normalize(address: str) -> str:
    """Write an address as clients do: in lower case, without a default port, with a final slash.

    Example:
        >>> _normalize("HTTP://Host:80/v1")
        'http://host/v1/'
    """
    parts = urlsplit(address)
    host = host_of(parts)
    if parts.port not in {None, DEFAULT_PORTS.get(parts.scheme)}:
        host = f"{host}:{parts.port}"
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{host}{path}/"


def host_of(parts: SplitResult) -> str:
    """Give the host of an address as addresses write it; empty if there is none."""
    host = parts.hostname or ""
    return f"[{host}]" if ":" in host else host  # IPv6


def key_of(lm: LM) -> Key:
    """Give the key of an ``LM`` without a client: its own, the environment's, or none.

    Raises:
        UsageError: an HTTP header cannot hold it.
    """
    if isinstance(lm.api_key, KeyPlace):
        return _key_of_environment(lm)
    if callable(lm.api_key):
        return Key(lm.api_key, "LM(api_key=...)", lm.timeout_s)
    key = lm.api_key or os.environ.get(KEY_VARIABLE) or ""
    return Key(key, f"LM(api_key=...), {KEY_VARIABLE}", lm.timeout_s)


def _key_of_environment(lm: LM) -> Key:
    """Give the key of an ``LM`` that was unpickled, and had one before.

    A known provider's is in a variable of its own: no other provider's key is sent to it.

    Raises:
        UsageError: the environment has none.
    """
    host = urlsplit(address_of(lm)).hostname or ""
    variable = key_variable(host) or KEY_VARIABLE
    key = os.environ.get(variable, "")
    if not key.strip():
        raise UsageError(
            f"The key of {lm.model} did not enter its pickle, and this process has none: set "
            f"{variable} in its environment. Nothing was sent."
        )
    return Key(key, variable, lm.timeout_s)


def secret_values(headers: Mapping[str, object] | None) -> tuple[str, ...]:
    """Give the values of those headers that may hold a secret."""
    if not headers:
        return ()
    values = [value for name, value in headers.items() if SECRET_HEADERS.search(name)]
    return tuple(value for value in values if isinstance(value, str) and value)
