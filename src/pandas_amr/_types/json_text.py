"""Decode JSON objects strictly; tell what has no form in JSON."""

from __future__ import annotations

import json
import re
from typing import Any

SURROGATE = re.compile("[\ud800-\udfff]")


class RepeatedKey(ValueError):
    """An object names a key twice, so that it is not known which value was meant."""

    def __init__(self) -> None:
        super().__init__("an object in it names a key twice")


def make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of an object's pairs: an ``object_pairs_hook`` that refuses repeated keys.

    Raises:
        DoubledKey: a key is repeated.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        raise RepeatedKey
    return made


def unsendable(value: object) -> str | None:
    r"""Say why a value cannot be sent as JSON, as the end of a sentence; None if it can be.

    Example:
        >>> unsendable({"a": ["text", 1.5]})
        >>> unsendable("\ud800")
        "contains a lone surrogate ('\\ud800') and cannot be encoded as UTF-8"
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return f"holds what JSON has no form for ({error})"
    found = SURROGATE.search(text)
    if found is None:
        return None
    return f"contains a lone surrogate ({found[0]!r}) and cannot be encoded as UTF-8"
