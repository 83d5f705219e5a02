"""The HTTP client behind a model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import openai

from pandas_amr.errors import ModelConfigError, UsageError
from pandas_amr.models.base import check_address

if TYPE_CHECKING:
    from pandas_amr.models.base import LM

ADDRESS = "https://api.openai.com/v1"


def client_of(lm: LM) -> openai.AsyncOpenAI:
    """Make the client of an ``LM`` that brings none.

    Raises:
        UsageError: no HTTP header can hold the key, or the address is none.
        ModelConfigError: no HTTP client can be made here.
    """
    key = (lm.api_key or os.environ.get("OPENAI_API_KEY") or "").strip()  # files of secrets end in a new line
    if not (key.isascii() and key.isprintable()):
        raise UsageError("The key has characters that no HTTP header can hold: see LM(api_key=...), OPENAI_API_KEY.")
    address = lm.base_url or os.environ.get("OPENAI_BASE_URL", "").strip() or ADDRESS
    check_address(address, "LM(base_url=...)" if lm.base_url else "OPENAI_BASE_URL")
    try:
        http = openai.DefaultAioHttpClient()
    except OSError as error:
        said = f"No HTTP client can be made ({error}): check SSL_CERT_FILE and SSL_CERT_DIR."
        raise ModelConfigError(said) from None
    return openai.AsyncOpenAI(
        api_key=key or "none",  # servers without keys: the client insists
        base_url=address,
        http_client=http,
    )
