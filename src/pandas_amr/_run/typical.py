"""Typical values of a schema: what the counting model answers if nothing was mapped yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pandas_amr._types.from_schema import bounded_type_from_schema
from pandas_amr._types.schema import (
    CONSTRAINTS,
    DATETIME_PATTERN,
    DECIMAL_PATTERN,
    TIME_PATTERN,
    stored_schema,
    without_keywords,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

TYPICAL_TEXT = "a sentence of about a dozen words, as a model would write it here"
TYPICAL_ITEMS = 2
TYPICAL_BY_TYPE = {"integer": 12, "number": 12.5, "boolean": False, "null": None}
TYPICAL_BY_FORM = {
    DECIMAL_PATTERN: "12.5",
    DATETIME_PATTERN: "2026-01-31T12:00:00",
    TIME_PATTERN: "12:00:00",
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT12H",
    **dict.fromkeys(("uuid", "uuid4"), "7d3ac1f0-57a4-4f0b-9d6c-0a3c3f1f2b10"),
}
BOUNDS = frozenset({*CONSTRAINTS, "uniqueItems"})


def typical_value(schema: Mapping[str, Any], text: str = TYPICAL_TEXT) -> Any:
    """Make a value of a schema; ``text`` is what a field of free text holds."""
    if "enum" in schema:
        by_length = sorted(schema["enum"], key=_text_length)
        return by_length[len(by_length) // 2]
    if "const" in schema:
        return schema["const"]
    if "anyOf" in schema:
        return typical_value(schema["anyOf"][0], text)
    form = schema.get("pattern", schema.get("format"))
    match schema.get("type"):
        case "array" if "prefixItems" in schema:
            return [typical_value(part, text) for part in schema["prefixItems"]]
        case "array":
            return [typical_value(schema.get("items", {}), text)] * TYPICAL_ITEMS
        case "object":
            fields = schema.get("properties", {})
            return {name: typical_value(part, text) for name, part in fields.items()}
        case "string" if form in TYPICAL_BY_FORM:
            return TYPICAL_BY_FORM[form]
        case kind:
            return TYPICAL_BY_TYPE.get(str(kind), text)


def _text_length(value: object) -> int:
    return len(str(value))


def unbounded(kind: object) -> Any:
    """Return a type that takes any typical value: without bounds, and without the user's code."""
    if kind is None:
        return None
    schema = without_keywords(stored_schema(kind), BOUNDS, TYPICAL_BY_FORM)
    return bounded_type_from_schema(schema, getattr(kind, "__name__", "Record"))
