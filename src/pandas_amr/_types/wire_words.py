"""Describe in words what the common subset of schemas cannot express."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pandas_amr._types.schema import MARKS
from pandas_amr._types.violations import describe_format
from pandas_amr._types.wire_shapes import AS_TEXT, WRAPPED, is_map

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas_amr._types.schema import Schema

# Keywords that are sent in words only.
IN_WORDS = frozenset({
    *("format", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("multipleOf", "uniqueItems", "minLength", "maxLength", "minItems", "maxItems"),
    *("minProperties", "maxProperties", "prefixItems"),
})  # fmt: skip
# Keywords that need no description: the sent schema has them in one form or another.
_HANDLED = frozenset({
    *("type", "properties", "required", "additionalProperties", "items", "anyOf", "oneOf", "allOf"),
    *("enum", "const", "description", "title", "propertyNames", "patternProperties", "nullable"),
    *("discriminator", "$schema", "$id", "$comment", "$defs", "definitions", "readOnly"),
    *("writeOnly", "deprecated", "contentMediaType", "contentSchema", "default", "examples"),
    *(AS_TEXT, WRAPPED, *MARKS, *IN_WORDS),
})  # fmt: skip
_BOUNDS = {"exclusiveMinimum": "above", "exclusiveMaximum": "below", "multipleOf": "a multiple of"}


def add_description(sent: Schema, shape: Schema, words: Sequence[str]) -> Schema:
    """Return a schema with a description: the user's, and the words for what it cannot express."""
    parts = []
    for schema in (shape, sent):
        text = schema.get("description")
        if isinstance(text, str) and text:
            parts.append(text)
    limits = "; ".join(dict.fromkeys(words))
    if limits:
        parts.append(f"({limits})" if parts else limits)
    if parts:
        return sent | {"description": " ".join(parts)}
    return sent


def describe_limits(shape: Schema) -> list[str]:
    """Describe what a part requires besides its type."""
    words = [*_describe_range(shape), *describe_counts(shape)]
    if shape.get("uniqueItems"):
        words.append("no item twice")
    form = describe_format(shape)
    if form:
        words.append(form)
    if shape.get("examples"):
        words.append(f"for example {join_json(shape['examples'])}")
    for key, value in shape.items():
        if key not in _HANDLED:
            words.append(f"{key}: {json.dumps(value, ensure_ascii=False)}")
    return words + describe_default(shape)


def describe_counts(shape: Mapping[str, Any]) -> list[str]:
    """Describe how long a text must be, or how many items or entries there must be."""
    words = _describe_count(shape, "Length", "character", "characters")
    words += _describe_count(shape, "Items", "item", "items")
    return words + _describe_count(shape, "Properties", "entry", "entries")


def describe_default(shape: Schema) -> list[str]:
    """Describe the default of an argument."""
    if "default" not in shape:
        return []
    return [f"default: {json.dumps(shape['default'], ensure_ascii=False)}"]


def describe_choices(shape: Schema) -> list[str]:
    """Describe choices. Gemini takes enums of texts only (BrokkAi/bifrost issue 25)."""
    if "enum" not in shape or shape.get("type") == "null":
        return []
    choices = join_json(shape["enum"])
    if len(shape["enum"]) > 1:
        return [f"one of {choices}"]
    return [f"always {choices}"]


def describe_places(shapes: Sequence[Schema]) -> list[str]:
    """Describe the places of a tuple, unless all have the same plain type."""
    briefs = [_describe_part(shape) for shape in shapes]
    if len(set(briefs)) == 1 and "(" not in briefs[0]:
        return []
    return [f"item {number}: {brief}" for number, brief in enumerate(briefs, 1)]


def join_json(values: Sequence[Any]) -> str:
    """Write values as JSON, separated by commas."""
    return ", ".join(json.dumps(value, ensure_ascii=False) for value in values)


def _describe_part(shape: Schema) -> str:
    """Describe a place of a tuple in a few words."""
    if "anyOf" in shape:
        return " or ".join(_describe_part(part) for part in shape["anyOf"])
    kind = str(shape.get("type", "any value"))
    if kind == "string":
        kind = "text"
    elif is_map(shape):
        kind = "list of keys and values"
    details = [*describe_choices(shape), *describe_limits(shape)]
    if shape.get("description"):
        details.insert(0, str(shape["description"]))
    if details:
        return f"{kind} ({', '.join(details)})"
    return kind


def _describe_range(shape: Schema) -> list[str]:
    """Describe the bounds of a number."""
    least, most = shape.get("minimum"), shape.get("maximum")
    words = []
    if least is not None and most is not None:
        words.append(f"from {least} to {most}")
    elif least is not None:
        words.append(f"at least {least}")
    elif most is not None:
        words.append(f"at most {most}")
    for keyword, word in _BOUNDS.items():
        if keyword in shape:
            words.append(f"{word} {shape[keyword]}")
    return words


def _describe_count(
    shape: Mapping[str, Any], keyword: str, singular: str, plural: str
) -> list[str]:
    """Describe the bounds of a number of things: ``minItems`` and ``maxItems``, for example."""
    least, most = shape.get(f"min{keyword}"), shape.get(f"max{keyword}")
    if least is not None and least == most:
        return [f"exactly {_counted(least, singular, plural)}"]
    words = []
    if least:
        words.append(f"at least {_counted(least, singular, plural)}")
    if most is not None:
        words.append(f"at most {_counted(most, singular, plural)}")
    return words


def _counted(count: int, singular: str, plural: str) -> str:
    return f"{count} {singular if count == 1 else plural}"
