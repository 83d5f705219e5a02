"""The fields of an answer in words, from their JSON schema; and how the answer is submitted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pandas_amr._agent.prompts.code import EXPRESSION
from pandas_amr._types.schema import DATETIME_PATTERN, DECIMAL_PATTERN, TIME_PATTERN
from pandas_amr._types.wire import is_enforced
from pandas_amr._types.wire_words import describe_counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

COMPACT = "on one line without spaces"
FORMS = {
    DATETIME_PATTERN: "date and time without a zone, such as 2026-01-31T12:00:00",
    TIME_PATTERN: "time of day without a zone, such as 12:00:00",
    DECIMAL_PATTERN: "a number in digits, such as 12.50",
    "date-time": "date and time with a zone, such as 2026-01-31T12:00:00+01:00",
    "date": "date such as 2026-01-31",
    "duration": "ISO 8601 duration such as P1DT2H, without years and months",
}
LIMITS = {
    "minimum": "from",
    "maximum": "to",
    "exclusiveMinimum": "above",
    "exclusiveMaximum": "below",
    "multipleOf": "in steps of",
}


def fields_block(head: str, fields: Mapping[str, Any], *, enforced: bool) -> list[str]:
    """Return the lines about the fields to fill.

    If the server enforces the schema, only what the schema cannot express is said.
    """
    lines = meaning_lines(fields) if enforced else field_lines(fields)
    return ["", head, *lines, ""] if lines else []


def meaning_lines(fields: Mapping[str, Any]) -> list[str]:
    """Return what a grammar of the schema does not express: descriptions, and some limits.

    Example:
        >>> late = {"type": "boolean", "description": "after the date"}
        >>> days = {"type": "integer", "minimum": 0}
        >>> meaning_lines({"late": late, "days": days, "mood": {"enum": ["good", "bad"]}})
        ['- late - after the date', '- days: integer from 0']
    """
    lines: list[str] = []
    for name, schema in fields.items():
        if not is_enforced(schema):
            lines += field_lines({name: schema})
        elif schema.get("description"):
            lines.append(f"- {name}{description_words(schema)}")
    return lines


def field_lines(fields: Mapping[str, Any]) -> list[str]:
    """Return one line per field: its name, kind and description."""
    lines = []
    for name, schema in fields.items():
        lines.append(f"- {name}: {kind_words(schema)}{description_words(schema)}")
    return lines


def description_words(schema: Mapping[str, Any]) -> str:
    """Return the description of a value, after a dash."""
    return f" - {schema['description']}" if schema.get("description") else ""


def kind_words(schema: Mapping[str, Any]) -> str:
    """Return the kind of a value in words."""
    if "enum" in schema:
        return f"one of {', '.join(map(_json, schema['enum']))}"
    if "const" in schema:
        return _json(schema["const"])
    if "anyOf" in schema:
        return " or ".join(map(kind_words, schema["anyOf"]))
    match schema.get("type"):
        case "array":
            return _array_words(schema)
        case "object":
            return _object_words(schema)
        case kind:
            return _plain_words(str(kind or "any value"), schema)


def _array_words(schema: Mapping[str, Any]) -> str:
    if schema.get("prefixItems"):
        return f"list of {', '.join(map(kind_words, schema['prefixItems']))}"
    return _with_count(f"list of {kind_words(schema.get('items', {}))}", schema)


def _object_words(schema: Mapping[str, Any]) -> str:
    if "properties" in schema:
        properties = schema["properties"].items()
        return f"{{{', '.join(f'{name}: {kind_words(part)}' for name, part in properties)}}}"
    inner = schema.get("additionalProperties")
    value = kind_words(inner) if isinstance(inner, dict) else "any value"
    return _with_count(f'list of {{"key": string, "value": {value}}}, each key once', schema)


def _plain_words(kind: str, schema: Mapping[str, Any]) -> str:
    limits = [f"{word} {schema[key]}" for key, word in LIMITS.items() if key in schema]
    return _with_count(" ".join([kind, *_form_words(schema), *limits]), schema)


def _with_count(kind: str, schema: Mapping[str, Any]) -> str:
    """Append how long a value may be."""
    words = ", ".join(describe_counts(schema))
    return f"{kind} ({words})" if words else kind


def _form_words(schema: Mapping[str, Any]) -> list[str]:
    """Return how a text is written: in words if they are known, else by pattern or format."""
    form = schema.get("format") or schema.get("pattern")
    if form is None:
        return []
    if FORMS.get(form):
        return [f"({FORMS[form]})"]
    return [f"({form})"] if "format" in schema else [f"(matching {form})"]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def submission_line(
    what: str, schemas: Iterable[Any], *, tools: bool, line: str = "", alone: bool = False
) -> str:
    """Return how the answer is submitted: by a line of code, by a tool, or as JSON.

    Args:
        what: the name of the submission.
        schemas: the schemas of its parts.
        tools: whether the agent has tools.
        line: the line of code that submits; empty without a REPL.
        alone: whether nothing but code can submit.
    """
    if line:
        begin = "Use the tools where they help. When you are done"
        if alone:
            begin = "Compute them there"
        return (
            f"{begin}, and hand in from `python_repl`, with what is found in place of each "
            f"{EXPRESSION}:\n{line}"
        )
    if tools:
        return (
            "Use the tools where they help. When you are done, hand in with the tool "
            f"`submit_{what}`."
        )
    return answer_line(schemas)


def answer_line(schemas: Iterable[Any]) -> str:
    """Return how a JSON answer is written.

    Otherwise models indent it, which takes a third to a half of its tokens. A model that writes
    free texts reads that those keep their spaces.
    """
    between = " between its parts" if any(map(_has_text, schemas)) else ""
    return f"Answer in JSON {COMPACT}{between}."


def _has_text(schema: object) -> bool:
    """Whether a value may be a free text, or contain one."""
    if isinstance(schema, list):
        return any(map(_has_text, schema))
    if not isinstance(schema, dict):
        return False
    if schema.get("type") == "string" and "enum" not in schema and "const" not in schema:
        return True
    parts = [
        *schema.get("properties", {}).values(),
        *schema.get("anyOf", ()),
        *schema.get("prefixItems", ()),
        schema.get("items"),
        schema.get("additionalProperties"),
    ]
    return _has_text(parts)
