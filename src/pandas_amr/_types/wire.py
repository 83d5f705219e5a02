"""Schemas in the form that every provider takes, and answers in that form read back.

What is sent is the strictest subset that all of them have in common: every field required, null in place of left out,
objects closed, enums of texts only, no bounds and no references. "Or" is ``anyOf``, as for null: OpenAI, Anthropic and
Gemini take it alike, while Gemini refuses a list of types. What the subset cannot say stands in a description in words,
and is checked here all the same. Where the subset has no form at all there is another one: a dict is a list of keys and
values, a value of any type may be JSON text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pandas_amr._types.schema import closed_object, without_marks
from pandas_amr._types.violations import without_absent
from pandas_amr._types.wire_read import ENTRIES, JSON, KEY, VALUE, find_unread, read_value
from pandas_amr._types.wire_shapes import AS_TEXT, MOST_LEVELS, WRAPPED, distinct, is_map, shape_of
from pandas_amr._types.wire_words import (
    IN_WORDS,
    choice_words,
    default_words,
    described,
    limit_words,
    place_words,
    spelled,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Limits of OpenAI's strict mode (platform.openai.com/docs/guides/structured-outputs, "Supported schemas"), the only
# ones that are published. How deep a schema may be, ``_wire_shapes`` sees to.
MOST_PROPERTIES = 5_000
MOST_CHOICES = 1_000
MOST_CHARACTERS = 120_000  # of names and choices together
LARGE_ENUM = 250  # above so many choices ...
LARGE_ENUM_CHARACTERS = 15_000  # ... an enum's texts are bounded

_ANY = ("string", "number", "boolean", "null")


@dataclass(frozen=True)
class Wire:
    """How a schema is asked of a model.

    Attributes:
        schema: what is sent.
        strict: whether a server can promise it; else it is beyond the limits.
        shape: the schema of one's own, with marks where a part is asked in another form.
    """

    schema: dict[str, Any]
    strict: bool
    shape: dict[str, Any]

    def read(self, payload: Any) -> Any:
        """The payload as its own schema has it; what cannot be read stays, and is the check's to refuse.

        A payload that is in that form already is read as it is: servers that promise nothing give either.
        """
        return read_value(payload, self.shape)

    def read_arguments(self, given: Any) -> Any:
        """A tool's arguments as its own schema has them; null for one that has a default leaves it out."""
        return without_absent(self.read(given), self.shape)

    def find_unread(self, payload: Any) -> str | None:
        """Say which dict could not be read, and why; None if all were."""
        return find_unread(payload, self.shape)


def wire_of(schema: Mapping[str, Any], *, required: Sequence[str] | None = None) -> Wire:
    """Convert a self-contained schema to what is sent of it.

    Args:
        schema: of an object; marks of this library's may stand in it.
        required: which fields are; default: all. The arguments of a tool that have a default may be left out.

    Example:
        >>> wire = wire_of({"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}})
        >>> wire.read([{"key": "a", "value": 1}])
        {'a': 1}
    """
    shape = shape_of(schema, 1)
    sent = _sent(shape)
    if required is not None:
        sent["required"] = [name for name in sent.get("properties", {}) if name in required]
    characters = _fit_enums(sent)
    count = sum(len(node.get("properties", ())) for node in _nodes(sent))
    return Wire(sent, count <= MOST_PROPERTIES and characters <= MOST_CHARACTERS, shape)


def is_held(schema: Any) -> bool:
    """Whether a server that holds answers to what is sent of a schema holds them to all of it.

    Example:
        >>> is_held({"enum": ["good", "bad"]}), is_held({"enum": [1, 2]}), is_held({"type": "integer", "minimum": 0})
        (True, False, False)
    """
    if not isinstance(schema, dict):
        return False
    if "anyOf" in schema:
        return all(map(is_held, schema["anyOf"]))
    if schema.keys() & IN_WORDS or is_map(schema):
        return False
    if "enum" in schema or "const" in schema:
        return _is_held_choice(schema.get("enum", [schema.get("const")]))
    inner = list(schema.get("properties", {}).values())
    if schema.get("type") == "array":
        inner.append(schema.get("items"))
    return "type" in schema and all(map(is_held, inner))


def _is_held_choice(choices: Sequence[Any]) -> bool:
    """Whether choices are sent as an enum, as texts are that are not too many."""
    texts = [choice for choice in choices if isinstance(choice, str)]
    others = [choice for choice in choices if choice is not None and not isinstance(choice, str)]
    return not others and len(texts) <= MOST_CHOICES and not _is_too_large(texts)


def _sent(shape: Mapping[str, Any]) -> dict[str, Any]:
    """What is sent of a shape."""
    if shape.get(AS_TEXT):
        return _sent_as_text(shape)
    if "anyOf" in shape:
        return _any_of([_sent(part) for part in shape["anyOf"]], shape, default_words(shape))
    if is_map(shape):
        return _sent_map(shape)
    match shape.get("type"):
        case "object":
            properties = {name: _sent(part) for name, part in shape["properties"].items()}
            return described(closed_object(properties), shape, limit_words(shape))
        case "array":
            return _sent_array(shape)
        case "string" if "enum" in shape:
            return described(
                {"type": "string", "enum": list(shape["enum"])}, shape, limit_words(shape)
            )
        case str() as kind:
            return described({"type": kind}, shape, [*choice_words(shape), *limit_words(shape)])
    return _sent_any(shape)


def _any_of(
    parts: Sequence[dict[str, Any]], shape: Mapping[str, Any], words: Sequence[str]
) -> dict[str, Any]:
    """One of several schemas; a single one by itself."""
    kept = distinct(parts)
    return described(kept[0] if len(kept) == 1 else {"anyOf": kept}, shape, words)


def _sent_as_text(shape: Mapping[str, Any]) -> dict[str, Any]:
    """A part as JSON text, its own schema in words."""
    own = {
        key: value for key, value in shape.items() if key not in {AS_TEXT, "description", "default"}
    }
    text = json.dumps(without_marks(own), ensure_ascii=False)
    return described(
        {"type": "string"}, shape, [f"JSON text of a value that follows this JSON schema: {text}"]
    )


def _sent_map(shape: Mapping[str, Any]) -> dict[str, Any]:
    """A dict as the list of its entries."""
    names = shape.get("propertyNames")
    key = _sent(
        shape_of({"type": "string"} | (names if isinstance(names, dict) else {}), MOST_LEVELS)
    )
    if "patternProperties" in shape:
        key = described(key, {}, [f"matching {' or '.join(shape['patternProperties'])}"])
    entry = closed_object({KEY: key, VALUE: _sent(shape["additionalProperties"])})
    entries = {"type": "array", "items": entry}
    sent = closed_object({ENTRIES: entries}) if shape.get(WRAPPED) else entries
    return described(sent, shape, ["each key once", *limit_words(shape)])


def _sent_array(shape: Mapping[str, Any]) -> dict[str, Any]:
    """A list; of a tuple each place in words, and its items any of what stands at the places."""
    first = shape.get("prefixItems")
    if shape.get("maxItems") == 0:
        items: dict[str, Any] = {"type": "string"}  # of none
    elif not first:
        items = _sent(shape["items"])
    else:
        parts: list[dict[str, Any]] = []
        for place in first:
            sent = _sent(place)
            parts += sent.get("anyOf", [sent])
        items = _any_of([_without_description(part) for part in parts], {}, ())
    words = [*limit_words(shape), *(place_words(first) if first else ())]
    return described({"type": "array", "items": items}, shape, words)


def _without_description(sent: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sent.items() if key != "description"}


def _sent_any(shape: Mapping[str, Any]) -> dict[str, Any]:
    """Any value: single ones as they are, and a list or an object as JSON text in an object of its own."""
    text = {"type": "string", "description": "a list or an object, as JSON text"}
    parts: list[dict[str, Any]] = [{"type": kind} for kind in _ANY]
    return _any_of(
        [*parts, closed_object({JSON: text})], shape, [*choice_words(shape), *limit_words(shape)]
    )


# Limits


def _fit_enums(sent: dict[str, Any]) -> int:
    """Make plain texts of the largest enums, their choices in words, until all limits are kept.

    Returns:
        The characters of names and choices that are left.
    """
    enums: list[dict[str, Any]] = []
    count = characters = 0
    for node in _nodes(sent):
        characters += _characters(node.get("properties", ()))
        choices = node.get("enum", ())
        if _is_too_large(choices):
            _say_choices(node)
        elif choices:
            enums.append(node)
            count += len(choices)
            characters += _characters(choices)
    enums.sort(key=_size_of_enum)
    while enums and (count > MOST_CHOICES or characters > MOST_CHARACTERS):
        largest = enums.pop()
        count -= len(largest["enum"])
        characters -= _characters(largest["enum"])
        _say_choices(largest)
    return characters


def _is_too_large(choices: Sequence[str]) -> bool:
    return len(choices) > LARGE_ENUM and _characters(choices) > LARGE_ENUM_CHARACTERS


def _say_choices(node: dict[str, Any]) -> None:
    words = f"one of {spelled(node.pop('enum'))}"
    node["description"] = described({}, node, [words])["description"]


def _size_of_enum(node: Mapping[str, Any]) -> int:
    return len(node["enum"]) + _characters(node["enum"])


def _characters(texts: Sequence[str]) -> int:
    return sum(len(text) for text in texts)


def _nodes(sent: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All schemas within a sent one, itself first."""
    yield sent
    for part in sent.get("properties", {}).values():
        yield from _nodes(part)
    for part in sent.get("anyOf", ()):
        yield from _nodes(part)
    if "items" in sent:
        yield from _nodes(sent["items"])
