"""One JSON text for equal values, whatever type held them: what is told apart by its content is told apart by this."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
_AS_THEY_ARE = frozenset({str, int, bool, type(None)})


def canonical_json(value: Any) -> str:
    """Write a value as JSON: ASCII, keys in order, equal numbers alike. What JSON has no form for is its text.

    Example:
        >>> canonical_json({"b": 1.0, "a": (True, "1.0", -0.0)})
        '{"a":[true,"1.0",0],"b":1}'
    """
    return _ENCODER.encode(canonical_value(value))


def canonical_value(value: Any) -> Any:
    """Reduce a value to what JSON has: a whole number is an integer, be it a float or numpy's; a bool is no number."""
    if type(value) in _AS_THEY_ARE:
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
    item = getattr(value, "item", None)  # numpy's bool is none of Python's numbers
    return item() if callable(item) and isinstance(item(), bool) else str(value)


def _canonical_number(value: Any) -> int | float | str:
    if isinstance(value, Integral):
        return int(value)
    number = float(value)
    if not math.isfinite(number):
        return str(number)
    return int(number) if number.is_integer() else number
