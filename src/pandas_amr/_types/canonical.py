"""Write equal values as the same JSON text, whatever their types, for the keys of the journal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_JSON_TYPES = frozenset({str, int, bool, type(None)})


def canonical_json(value: object) -> str:
    """Write a value as JSON: ASCII, sorted keys, equal numbers alike. Other objects become texts.

    Example:
        >>> canonical_json({"b": 1.0, "a": (True, "1.0", -0.0)})
        '{"a":[true,"1.0",0],"b":1}'
    """
    return _ENCODER.encode(canonical_value(value))


def canonical_value(value: object) -> Any:
    """Reduce a value to what JSON has. Whole numbers become integers, whatever their type."""
    if type(value) in _JSON_TYPES:
        return value
    if type(value) is float:
        return _canonical_number(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): canonical_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [canonical_value(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted((canonical_value(inner) for inner in value), key=str)
    if isinstance(value, Real):
        return _canonical_number(value)
    return _canonical_object(value)


def _canonical_object(value: object) -> bool | str:
    """Reduce numpy's bool, which is no Python number, to a bool; other objects to their texts."""
    item = getattr(value, "item", None)
    if callable(item):
        inner = item()
        if isinstance(inner, bool):
            return inner
    return str(value)


def _canonical_number(value: Any) -> int | float | str:
    if isinstance(value, Integral):
        return int(value)
    number = float(value)
    if not math.isfinite(number):
        return str(number)
    if number.is_integer():
        return int(number)
    return number
