"""Convert schemas to the subset that every provider supports, and read answers in it.

The subset: every field is required, null stands for a field that is left out, objects are closed,
enums hold texts only, there are no bounds and no references. Alternatives are ``anyOf``, also for
null: OpenAI, Anthropic and Gemini support it alike, while Gemini refuses a list of types.

What the subset cannot express is put into a description in words, and checked here nevertheless.
What has no form in it gets another form: a dict is a list of keys and values, a value of any type
may be JSON text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pandas_amr._types.schema import object_schema, without_keywords
from pandas_amr._types.violations import drop_absent
from pandas_amr._types.wire_read import ENTRIES, JSON, KEY, VALUE, find_unread, read_value
from pandas_amr._types.wire_shapes import (
    AS_TEXT,
    MOST_LEVELS,
    WRAPPED,
    drop_repeated,
    is_map,
    make_shape,
)
from pandas_amr._types.wire_words import (
    IN_WORDS,
    add_description,
    describe_choices,
    describe_default,
    describe_limits,
    describe_places,
    join_json,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pandas_amr._types.schema import Schema

# Limits of OpenAI's strict mode (platform.openai.com/docs/guides/structured-outputs, "Supported
# schemas"), the only published ones. ``wire_shapes`` limits the depth.
MAX_PROPERTIES = 5_000
MAX_CHOICES = 1_000
MAX_CHARACTERS = 120_000  # of names and choices together
LARGE_ENUM = 250  # an enum of more choices ...
LARGE_ENUM_CHARACTERS = 15_000  # ... may have so many characters

_ANY = ("string", "number", "boolean", "null")


@dataclass(frozen=True)
class Wire:
    """The form in which a schema is sent to a model.

    Attributes:
        schema: the schema to send.
        strict: whether it is within the limits, so that a server can enforce it.
        shape: the original schema, with marks on parts that are sent in another form.
    """

    schema: Schema
    strict: bool
    shape: Schema

    def read(self, payload: object) -> Any:
        """Read an answer into the form of the original schema.

        One that is in that form already stays as it is: a server that does not enforce schemas may
        return either. What cannot be read also stays; a later check refuses it.
        """
        return read_value(payload, self.shape)

    def read_arguments(self, given: object) -> Any:
        """Read a tool's arguments. Null leaves out an argument that has a default."""
        return drop_absent(self.read(given), self.shape)

    def find_unread(self, payload: object) -> str | None:
        """Return which dict could not be read, and why; None if all were."""
        return find_unread(payload, self.shape)


def make_wire(schema: Mapping[str, Any], *, required: Sequence[str] | None = None) -> Wire:
    """Convert a schema without references to the form to send.

    Args:
        schema: of an object; it may have the marks of this library.
        required: the required fields; default: all. A tool's arguments with a default are not.

    Example:
        >>> wire = make_wire({"type": "object", "additionalProperties": {"type": "integer"}})
        >>> wire.read([{"key": "a", "value": 1}])
        {'a': 1}
    """
    shape = make_shape(schema, 1)
    sent = _send(shape)
    if required is not None:
        sent["required"] = [name for name in sent.get("properties", {}) if name in required]
    characters = _fit_enums(sent)
    properties = sum(len(node.get("properties", ())) for node in _nodes(sent))
    strict = properties <= MAX_PROPERTIES and characters <= MAX_CHARACTERS
    return Wire(sent, strict, shape)


def is_enforced(schema: object) -> bool:
    """Tell whether a server that enforces the sent schema enforces all of the original one.

    Example:
        >>> is_enforced({"enum": ["good", "bad"]}), is_enforced({"enum": [1, 2]})
        (True, False)
        >>> is_enforced({"type": "integer", "minimum": 0})
        False
    """
    if not isinstance(schema, dict):
        return False
    if "anyOf" in schema:
        return all(map(is_enforced, schema["anyOf"]))
    if schema.keys() & IN_WORDS or is_map(schema):
        return False
    if "enum" in schema or "const" in schema:
        return _are_sent_as_enum(schema.get("enum", [schema.get("const")]))
    inner = list(schema.get("properties", {}).values())
    if schema.get("type") == "array":
        inner.append(schema.get("items"))
    return "type" in schema and all(map(is_enforced, inner))


def _are_sent_as_enum(choices: Sequence[Any]) -> bool:
    """Tell whether choices are sent as an enum: texts that are not too many."""
    texts: list[str] = []
    for choice in choices:
        if isinstance(choice, str):
            texts.append(choice)
        elif choice is not None:
            return False
    return len(texts) <= MAX_CHOICES and not _is_too_large(texts)


def _send(shape: Schema) -> Schema:
    """Return the schema to send for a shape."""
    if shape.get(AS_TEXT):
        return _send_as_text(shape)
    if "anyOf" in shape:
        parts = [_send(part) for part in shape["anyOf"]]
        return _any_of(parts, shape, describe_default(shape))
    if is_map(shape):
        return _send_map(shape)
    match shape.get("type"):
        case "object":
            properties = {name: _send(part) for name, part in shape["properties"].items()}
            return add_description(object_schema(properties), shape, describe_limits(shape))
        case "array":
            return _send_array(shape)
        case "string" if "enum" in shape:
            sent = {"type": "string", "enum": list(shape["enum"])}
            return add_description(sent, shape, describe_limits(shape))
        case str() as kind:
            words = [*describe_choices(shape), *describe_limits(shape)]
            return add_description({"type": kind}, shape, words)
    return _send_any(shape)


def _any_of(parts: Sequence[Schema], shape: Schema, words: Sequence[str]) -> Schema:
    """Return a schema of alternatives; a single one stands for itself."""
    alternatives = drop_repeated(parts)
    if len(alternatives) == 1:
        return add_description(alternatives[0], shape, words)
    return add_description({"anyOf": alternatives}, shape, words)


def _send_as_text(shape: Schema) -> Schema:
    """Send a part as JSON text, with its schema in the description."""
    left_out = {AS_TEXT, "description", "default"}
    own = {key: value for key, value in shape.items() if key not in left_out}
    text = json.dumps(without_keywords(own), ensure_ascii=False)
    words = [f"JSON text of a value that follows this JSON schema: {text}"]
    return add_description({"type": "string"}, shape, words)


def _send_map(shape: Schema) -> Schema:
    """Send a dict as the list of its entries."""
    key_schema: Schema = {"type": "string"}
    names = shape.get("propertyNames")
    if isinstance(names, dict):
        key_schema |= names
    key = _send(make_shape(key_schema, MOST_LEVELS))
    if "patternProperties" in shape:
        key = add_description(key, {}, [f"matching {' or '.join(shape['patternProperties'])}"])
    entry = object_schema({KEY: key, VALUE: _send(shape["additionalProperties"])})
    sent: Schema = {"type": "array", "items": entry}
    if shape.get(WRAPPED):
        sent = object_schema({ENTRIES: sent})
    return add_description(sent, shape, ["each key once", *describe_limits(shape)])


def _send_array(shape: Schema) -> Schema:
    """Send a list. The places of a tuple are described in words; its items are any of theirs."""
    places = shape.get("prefixItems")
    words = describe_limits(shape)
    if places:
        words += describe_places(places)
    if shape.get("maxItems") == 0:
        items: Schema = {"type": "string"}  # there are none
    elif places:
        items = _send_places(places)
    else:
        items = _send(shape["items"])
    return add_description({"type": "array", "items": items}, shape, words)


def _send_places(places: Sequence[Schema]) -> Schema:
    """Send the items of a tuple, which may each be what any place takes."""
    parts: list[Schema] = []
    for place in places:
        sent = _send(place)
        parts += sent.get("anyOf", [sent])
    return _any_of([_without_description(part) for part in parts], {}, ())


def _without_description(sent: Schema) -> Schema:
    return {key: value for key, value in sent.items() if key != "description"}


def _send_any(shape: Schema) -> Schema:
    """Send a value of any type; a list or an object is JSON text in an object."""
    text = {"type": "string", "description": "a list or an object, as JSON text"}
    parts: list[Schema] = [{"type": kind} for kind in _ANY]
    parts.append(object_schema({JSON: text}))
    return _any_of(parts, shape, [*describe_choices(shape), *describe_limits(shape)])


# Limits


def _fit_enums(sent: Schema) -> int:
    """Replace the largest enums by texts with described choices, until all limits hold.

    Returns:
        The number of characters of names and choices that are left.
    """
    enums: list[Schema] = []
    count = characters = 0
    for node in _nodes(sent):
        characters += _count_characters(node.get("properties", ()))
        choices = node.get("enum", ())
        if _is_too_large(choices):
            _replace_enum(node)
        elif choices:
            enums.append(node)
            count += len(choices)
            characters += _count_characters(choices)
    enums.sort(key=_enum_size)
    while enums and (count > MAX_CHOICES or characters > MAX_CHARACTERS):
        largest = enums.pop()
        count -= len(largest["enum"])
        characters -= _count_characters(largest["enum"])
        _replace_enum(largest)
    return characters


def _is_too_large(choices: Sequence[str]) -> bool:
    return len(choices) > LARGE_ENUM and _count_characters(choices) > LARGE_ENUM_CHARACTERS


def _replace_enum(node: Schema) -> None:
    """Replace an enum by a description of its choices."""
    words = f"one of {join_json(node.pop('enum'))}"
    node["description"] = add_description({}, node, [words])["description"]


def _enum_size(node: Schema) -> int:
    return len(node["enum"]) + _count_characters(node["enum"])


def _count_characters(texts: Sequence[str]) -> int:
    return sum(len(text) for text in texts)


def _nodes(sent: Schema) -> Iterator[Schema]:
    """Yield a schema and all schemas in it."""
    yield sent
    for part in sent.get("properties", {}).values():
        yield from _nodes(part)
    for part in sent.get("anyOf", ()):
        yield from _nodes(part)
    if "items" in sent:
        yield from _nodes(sent["items"])
