"""What to change if a server cannot be used: settings by name, addresses with their port."""

from __future__ import annotations

import difflib
import os
import re
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from pandas_amr.models.openai.addresses import DEFAULT_PORTS, host_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr.models.base import LM

# A segment such as "v1", "v1beta" or "v4": the address of an API has one.
VERSION = re.compile(r"/v\d\w*(/|$)", re.IGNORECASE)
MOST_NAMES = 5  # of models that an error lists
LONGEST_NAME = 80


def host_and_port(url: str) -> str:
    """Give the host and the port of an address, the usual port too.

    Example:
        >>> host_and_port("https://api.openai.com/v1/")
        'api.openai.com:443'
    """
    parts = urlsplit(url)
    host = host_of(parts) or "the server"
    port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    return host if port is None else f"{host}:{port}"


def address_setting(lm: LM) -> str:
    """Name the setting that holds the address of a server."""
    if lm.client is not None:
        return "LM(client=...), its base_url"
    if lm.base_url is not None:
        return "LM(base_url=...)"
    if os.environ.get("OPENAI_BASE_URL", "").strip():
        return "OPENAI_BASE_URL"
    return "LM(base_url=...) or OPENAI_BASE_URL (neither is set)"


def key_setting(lm: LM) -> str:
    """Name the setting that holds the key of a server, and say if there is none."""
    if lm.client is not None:
        return "LM(client=...), its api_key"
    setting = "LM(api_key=...), OPENAI_API_KEY"
    if lm.api_key or os.environ.get("OPENAI_API_KEY"):
        return setting
    return f"{setting}; neither is set"


def check_address_advice(lm: LM) -> str:
    """Say which setting holds the address."""
    return f"Check the address, {address_setting(lm)}"


def address_with_version(url: str) -> str | None:
    """Give an address with ``/v1``; None if it has a version already.

    Example:
        >>> address_with_version("http://127.0.0.1:8000/")
        'http://127.0.0.1:8000/v1'
    """
    if VERSION.search(urlsplit(url).path):
        return None
    return f"{url.rstrip('/')}/v1"


def with_scheme(url: str, scheme: str) -> str:
    """Give an address with another scheme."""
    return urlunsplit(urlsplit(url)._replace(scheme=scheme)).rstrip("/")


def proxy_advice(url: str) -> str:
    """Say that the environment names a proxy for this address; empty if it does not."""
    parts = urlsplit(url)
    proxies = getproxies()
    if not (proxies.get(parts.scheme) or proxies.get("all")) or proxy_bypass(parts.hostname or ""):
        return ""
    return f" A proxy is in between: {parts.scheme.upper()}_PROXY, NO_PROXY."


def redirect_target(url: str, location: str) -> str | None:
    """Give where a redirect leads, without query and endpoint; None if to no HTTP address.

    Example:
        >>> redirect_target("http://host/v1/", "https://host/v1/chat/completions?a=b")
        'https://host/v1'
    """
    try:
        parts = urlsplit(urljoin(url, location))
        if not location or parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            return None
    except ValueError:
        return None
    path = parts.path.removesuffix("/").removesuffix("/chat/completions")
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, "", ""))


def describe_models(name: str, served: Sequence[str]) -> str:
    """Say which models a server lists: those of a similar name, or all if they are few.

    Example:
        >>> describe_models("gpt-5-mni", ["gpt-5-mini", "o3"])
        "Did you mean 'gpt-5-mini'?"
    """
    served = [each for each in served if each.isprintable() and len(each) <= LONGEST_NAME]
    close = _similar(name, served)
    if close:
        return f"Did you mean {' or '.join(map(repr, close))}?"
    if not served:
        return "The server lists no model."
    listed = ", ".join(map(repr, served[:MOST_NAMES]))
    more = f" and {len(served) - MOST_NAMES} more" if len(served) > MOST_NAMES else ""
    return f"The server lists {listed}{more}."


def _similar(name: str, served: Sequence[str]) -> list[str]:
    """Give up to three names that are similar, or that have the name as one of their parts."""
    plain = {each: each.lower() for each in served}
    wanted = name.lower()
    close: list[str] = []
    for match in difflib.get_close_matches(wanted, list(plain.values()), n=3, cutoff=0.7):
        close += [each for each, lower in plain.items() if lower == match and each not in close]
    for each, lower in plain.items():
        is_part = wanted in re.split(r"[/:]", lower) or lower in re.split(r"[/:]", wanted)
        if (is_part or lower.startswith(wanted)) and each not in close:
            close.append(each)
    return close[:3]
