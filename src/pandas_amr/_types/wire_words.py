"""What the common subset of schemas cannot say, in words: they stand in the description of a part."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pandas_amr._types.schema import MARKS
from pandas_amr._types.violations import form_words
from pandas_amr._types.wire_shapes import AS_TEXT, WRAPPED, is_map

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What a schema says that is sent in words alone.
IN_WORDS = frozenset({
    *("format", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "uniqueItems"),
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "prefixItems"),
})  # fmt: skip
# Keywords that need no words of their own: what is sent has them, or says the same in another form.
_SAID = frozenset({
    *("type", "properties", "required", "additionalProperties", "items", "anyOf", "oneOf", "allOf"),
    *("enum", "const", "description", "title", "propertyNames", "patternProperties", "nullable", "discriminator"),
    *("$schema", "$id", "$comment", "$defs", "definitions", "readOnly", "writeOnly", "deprecated", "contentMediaType"),
    *("contentSchema", "default", "examples", AS_TEXT, WRAPPED, *MARKS, *IN_WORDS),
})  # fmt: skip
_BOUNDS = {"exclusiveMinimum": "above", "exclusiveMaximum": "below", "multipleOf": "a multiple of"}


def described(
    sent: dict[str, Any], shape: Mapping[str, Any], words: Sequence[str]
) -> dict[str, Any]:
    """What is sent, with its description: what the user says of it, and what the subset cannot say."""
    about = []
    for one in (shape, sent):
        text = one.get("description")
        if isinstance(text, str) and text:
            about.append(text)
    limits = "; ".join(dict.fromkeys(words))
    if limits:
        about.append(f"({limits})" if about else limits)
    return sent | {"description": " ".join(about)} if about else sent


def limit_words(shape: Mapping[str, Any]) -> list[str]:
    """What a part asks beside its type."""
    words = [*_range_words(shape), *count_words(shape)]
    if shape.get("uniqueItems"):
        words.append("no item twice")
    form = form_words(shape)
    if form:
        words.append(form)
    if shape.get("examples"):
        words.append(f"for example {spelled(shape['examples'])}")
    for key, value in shape.items():
        if key not in _SAID:
            words.append(f"{key}: {json.dumps(value, ensure_ascii=False)}")
    return words + default_words(shape)


def count_words(shape: Mapping[str, Any]) -> list[str]:
    """How long a text is to be, or how many items or entries there are to be."""
    words = _count_words(shape, "Length", "character", "characters")
    words += _count_words(shape, "Items", "item", "items")
    return words + _count_words(shape, "Properties", "entry", "entries")


def default_words(shape: Mapping[str, Any]) -> list[str]:
    """What stands in for an argument that is left out."""
    return (
        [f"default: {json.dumps(shape['default'], ensure_ascii=False)}"]
        if "default" in shape
        else []
    )


def choice_words(shape: Mapping[str, Any]) -> list[str]:
    """The choices that no enum names: Gemini takes none but of texts (BrokkAi/bifrost issue 25)."""
    if "enum" not in shape or shape.get("type") == "null":
        return []
    choices = spelled(shape["enum"])
    return [f"one of {choices}" if len(shape["enum"]) > 1 else f"always {choices}"]


def place_words(shapes: Sequence[Mapping[str, Any]]) -> list[str]:
    """What stands at each place of a tuple; nothing if all are alike, as its items then say."""
    briefs = [_brief(shape) for shape in shapes]
    if len(set(briefs)) == 1 and "(" not in briefs[0]:
        return []
    return [f"item {number}: {brief}" for number, brief in enumerate(briefs, 1)]


def spelled(values: Sequence[Any]) -> str:
    """Values as JSON, one after the other."""
    return ", ".join(json.dumps(value, ensure_ascii=False) for value in values)


def _brief(shape: Mapping[str, Any]) -> str:
    """A part of a tuple in a few words."""
    if "anyOf" in shape:
        return " or ".join(_brief(part) for part in shape["anyOf"])
    kind = str(shape.get("type", "any value"))
    if kind == "string":
        kind = "text"
    elif is_map(shape):
        kind = "list of keys and values"
    about = [*choice_words(shape), *limit_words(shape)]
    if shape.get("description"):
        about.insert(0, str(shape["description"]))
    return f"{kind} ({', '.join(about)})" if about else kind


def _range_words(shape: Mapping[str, Any]) -> list[str]:
    """The bounds of a number."""
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


def _count_words(shape: Mapping[str, Any], of: str, one: str, many: str) -> list[str]:
    """How many of something there are to be."""
    least, most = shape.get(f"min{of}"), shape.get(f"max{of}")
    if least is not None and least == most:
        return [f"exactly {least} {one if least == 1 else many}"]
    words = []
    if least:
        words.append(f"at least {least} {one if least == 1 else many}")
    if most is not None:
        words.append(f"at most {most} {one if most == 1 else many}")
    return words
