"""Typical answers of a schema: what an estimate counts if nothing was mapped yet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._records.tokens import TokenCounter

TYPICAL_TEXT = "a sentence of about a dozen words, as a model would write it here"
TYPICAL_DATE = "2026-01-31"
TYPICAL_ITEMS = 2
TYPICAL_BY_TYPE = {"integer": 12, "number": 12.5, "boolean": False, "null": None}
NOTES_TOKENS = 150  # of free text, or of a cell of code
WRAPPER = '{"findings": []}'  # around the findings of a shard


def typical_finding(kind: FindingType) -> dict[str, Any]:
    """Make a finding as a model would hand it in."""
    fields = kind.schema["properties"]
    return {name: typical_value(schema) for name, schema in fields.items()}


def typical_value(schema: dict[str, Any]) -> Any:
    """Make a value of a schema; it need not pass the checks of a validator."""
    if "enum" in schema:
        by_length = sorted(schema["enum"], key=_text_length)
        return by_length[len(by_length) // 2]
    if "const" in schema:
        return schema["const"]
    if "anyOf" in schema:
        return typical_value(schema["anyOf"][0])
    match schema.get("type"):
        case "array":
            return [typical_value(schema.get("items", {}))] * TYPICAL_ITEMS
        case "object":
            fields = schema.get("properties", {})
            return {name: typical_value(part) for name, part in fields.items()}
        case "string" if schema.get("format") == "date":
            return TYPICAL_DATE
        case kind:
            return TYPICAL_BY_TYPE.get(str(kind), TYPICAL_TEXT)


def _text_length(value: Any) -> int:
    return len(str(value))


def answer_tokens(kind: FindingType, *, is_flat: bool, count: TokenCounter) -> int:
    """Count a typical finding as it stands in an answer: with its unit's number if in a list."""
    finding = typical_finding(kind)
    if not is_flat:
        finding = {"unit": 10, **finding}
    return count(json.dumps(finding, separators=(",", ":")))
