"""Schemas in the form that every provider takes, and answers in that form read back.

What is sent is the strictest subset that all of them have in common: every field required, null in place of left out,
objects closed, enums of texts only, no bounds and no references. What the subset cannot say stands in a description in
words, and is checked here all the same. Where the subset has no form at all there is another one: a dict is a list of
keys and values, a value of any type may be JSON text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pandas_amr._schema import ABSENT, MARKS, NAME, OPTIONAL
from pandas_amr._violations import Leniency, find_violation, form_words, without_absent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

KEY, VALUE = "key", "value"  # of an entry of a dict
ENTRIES = "entries"  # where a dict stands beside lists: the one field of the object that holds its entries
JSON = "json"  # where any value is taken: the one field of the object that holds a list or an object

# Limits of OpenAI's strict mode (platform.openai.com/docs/guides/structured-outputs, "Supported schemas"), the only
# ones that are published; lists are counted as levels, too, since others count so.
MOST_LEVELS = 10
MOST_PROPERTIES = 5_000
MOST_CHOICES = 1_000
MOST_CHARACTERS = 120_000  # of names and choices together
LARGE_ENUM = 250  # above so many choices ...
LARGE_ENUM_CHARACTERS = 15_000  # ... an enum's texts are bounded

# Marks of a shape, which is a schema of one's own with what is asked otherwise; no model is sent them.
AS_TEXT = "amr_as_text"  # the value is asked as JSON text
WRAPPED = "amr_wrapped"  # the dict is asked as an object with its entries
FITTING = Leniency(empty_texts=True)

_SAID = frozenset({  # keywords that need no words: the sent schema has them, or another form, or they ask for nothing
    *("type", "properties", "required", "additionalProperties", "items", "prefixItems", "anyOf", "oneOf", "allOf"),
    *("enum", "const", "description", "title", "propertyNames", "patternProperties", "nullable", "discriminator"),
    *("$schema", "$id", "$comment", "$defs", "definitions", "readOnly", "writeOnly", "deprecated", "contentMediaType"),
    *("contentSchema", "format", "pattern", "minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength"),
    *("minProperties", "maxProperties", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "uniqueItems"),
    *("default", "examples", AS_TEXT, WRAPPED, *MARKS),
})  # fmt: skip
_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})


@dataclass(frozen=True)
class Wire:
    """How a schema is asked of a model.

    Attributes:
        schema: what is sent.
        strict: whether a server can promise it; else it is beyond the limits.
    """

    schema: dict[str, Any]
    strict: bool
    shape: dict[str, Any]

    def read(self, payload: Any) -> Any:
        """The payload as its own schema has it; what cannot be read stays, and is the check's to refuse.

        A payload that is in that form already is read as it is: servers that promise nothing give either.
        """
        return _read(payload, self.shape)

    def read_arguments(self, given: Any) -> Any:
        """A tool's arguments as its own schema has them; null for one that has a default leaves it out."""
        return without_absent(_read(given, self.shape), self.shape)

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
    shape = _shape_of(schema, 1)
    sent = _sent(shape)
    if required is not None:
        sent["required"] = [name for name in sent.get("properties", {}) if name in required]
    _fit_enums(sent)
    return Wire(sent, _is_within_limits(sent), shape)


def self_contained(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Write a schema's references out in place; one that leads back to itself takes any value.

    Example:
        >>> self_contained({"items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": "integer"}}})
        {'items': {'type': 'integer'}}
    """
    written: dict[str, Any] = _written_out(schema, schema, ())
    return {key: value for key, value in written.items() if key not in {"$defs", "definitions"}}


def _written_out(part: Any, whole: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    if isinstance(part, list):
        return [_written_out(one, whole, path) for one in part]
    if not isinstance(part, dict):
        return part
    reference = part.get("$ref")
    if not isinstance(reference, str):
        return {key: _written_out(one, whole, path) for key, one in part.items() if path or key != "$defs"}
    beside = {key: _written_out(one, whole, path) for key, one in part.items() if key != "$ref"}
    target = None if reference in path else _target_of(reference, whole)
    if not isinstance(target, dict):
        return beside
    return _written_out(target, whole, (*path, reference)) | beside


def _target_of(reference: str, whole: Any) -> Any:
    """What a reference within a schema refers to; None where it leads nowhere."""
    if not reference.startswith("#"):
        return None
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(whole, dict) or name not in whole:
            return None
        whole = whole[name]
    return whole


# From a schema to its shape: one type a part, marks where a part is asked otherwise


def _shape_of(schema: Any, level: int) -> dict[str, Any]:
    """The shape of a schema at a level of nesting."""
    parts = _alternatives(schema)
    if len(parts) == 1:
        return _beside(schema, _shape_of_one(parts[0], level))
    if any(not _types_of(part) for part in parts):
        return _beside(schema, _shape_of_one({}, level))
    listed = any(part.get("type") == "array" for part in parts)
    shapes = [_shape_of_one(part, level, wrapped=listed) for part in parts]
    if any(shape.get(AS_TEXT) for shape in shapes):
        return _beside(schema, {"anyOf": parts, AS_TEXT: True})  # a text among them could not be told from JSON text
    return _beside(schema, {"anyOf": shapes})


def _beside(schema: Any, shape: dict[str, Any]) -> dict[str, Any]:
    """A shape with what a schema says beside its types."""
    if not isinstance(schema, dict):
        return shape
    kept = {key: schema[key] for key in ("description", "default", *MARKS) if key in schema}
    return shape | kept


def _alternatives(schema: Any) -> list[dict[str, Any]]:
    """The schemas of one type each, of which a value follows one; one without a type takes any value."""
    if not isinstance(schema, dict):
        return [{}]
    schema = _merged(schema)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            parts = [one for part in schema[keyword] for one in _alternatives(part)]
            return _distinct(parts)
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if choices is not None:
        return _choices_by_type(choices, schema)
    types = _types_of(schema)
    if schema.get("nullable") is True and types:
        types = [*types, "null"]
    return _distinct([schema | {"type": kind} if kind != "null" else {"type": "null"} for kind in types]) or [schema]


def _merged(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with the parts of its ``allOf`` in one."""
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema.get("allOf", ()):
        one = _merged(part) if isinstance(part, dict) else {}
        properties = merged.get("properties", {}) | one.get("properties", {})
        required = [*merged.get("required", ()), *one.get("required", ())]
        merged = one | merged
        if properties:
            merged |= {"properties": properties, "required": required}
    return merged


def _types_of(schema: Mapping[str, Any]) -> list[str]:
    """The JSON types that a schema takes; none if it takes any value."""
    kind = schema.get("type")
    if isinstance(kind, list):
        return [one for one in kind if one in _TYPES]
    if kind in _TYPES:
        return [str(kind)]
    for keyword, implied in (("properties", "object"), ("patternProperties", "object"), ("items", "array")):
        if keyword in schema:
            return [implied]
    return []


def _choices_by_type(choices: Sequence[Any], schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Choices of several types, each type by itself."""
    by_type: dict[str, list[Any]] = {}
    for choice in choices:
        by_type.setdefault(_type_of(choice), []).append(choice)
    beside = {key: value for key, value in schema.items() if key not in {"enum", "const", "type"}}
    if not by_type.keys() <= _TYPES - {"object", "array"}:
        return [beside | {"enum": list(choices)}]  # without a type: any value, its choices in words
    return [beside | {"type": kind, "enum": some} for kind, some in by_type.items()]


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    for python, kind in ((bool, "boolean"), (str, "string"), (int, "integer"), (float, "number"), (list, "array")):
        if isinstance(value, python):
            return kind
    return "object"


def _distinct(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    distinct: list[dict[str, Any]] = []
    for part in parts:
        if part not in distinct:
            distinct.append(part)
    return distinct


def _shape_of_one(schema: dict[str, Any], level: int, *, wrapped: bool = False) -> dict[str, Any]:
    """The shape of a schema of one type. A part that is too deep stays as it is, and is asked as JSON text."""
    if level + _levels_of(schema, wrapped=wrapped) - 1 > MOST_LEVELS:
        return schema | {AS_TEXT: True}
    if is_map(schema):
        inner = _shape_of(_values_of(schema), level + 2 + wrapped)
        return {**schema, "additionalProperties": inner} | ({WRAPPED: True} if wrapped else {})
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            shapes = {name: _shape_of_field(part, name, schema, level + 1) for name, part in properties.items()}
            return {**schema, "properties": shapes, "required": list(shapes), "additionalProperties": False}
        case "array":
            first = [_shape_of(part, level + 1) for part in schema.get("prefixItems", ())]
            items = schema.get("items", {})
            rest = {"items": _shape_of(items, level + 1)} if isinstance(items, dict) else {"items": {}}
            return {**schema, **rest} | ({"prefixItems": first} if first else {})
    return schema


def _shape_of_field(part: Any, name: str, schema: Mapping[str, Any], level: int) -> dict[str, Any]:
    """The shape of a property; one that is not required may be null, which leaves it out."""
    if name in schema.get("required", schema["properties"]):
        return _shape_of(part, level)
    left_out = {key: part[key] for key in ("description", "default") if isinstance(part, dict) and key in part}
    return _shape_of({"anyOf": [part, {"type": "null"}], **left_out, **_absent_unless_null(part)}, level)


def _absent_unless_null(part: Any) -> dict[str, Any]:
    """The mark of a field whose null stands for nothing; where null is a value of its own it is taken for that."""
    nullable = any(one.get("type") == "null" for one in _alternatives(part))
    return {} if nullable else {OPTIONAL: ABSENT}


def _levels_of(schema: Mapping[str, Any], *, wrapped: bool) -> int:
    """How many levels of nesting the sent form of a part has by itself."""
    if is_map(schema):
        return 3 if wrapped else 2
    return 0 if schema.get("type") in _TYPES - {"object", "array"} else 1


def is_map(schema: Mapping[str, Any]) -> bool:
    """Whether a schema is of an object whose keys are free."""
    free = "patternProperties" in schema or schema.get("additionalProperties", True) is not False
    return schema.get("type") == "object" and not schema.get("properties") and free


def _values_of(schema: Mapping[str, Any]) -> Any:
    """The schema of a dict's values."""
    by_pattern = list(schema.get("patternProperties", {}).values())
    if by_pattern:
        return by_pattern[0] if len(by_pattern) == 1 else {"anyOf": by_pattern}
    return schema.get("additionalProperties", {})


# From a shape to what is sent


def _sent(shape: Mapping[str, Any]) -> dict[str, Any]:
    """What is sent of a shape."""
    if shape.get(AS_TEXT):
        plain = {key: value for key, value in shape.items() if key not in {AS_TEXT, "description", "default", *MARKS}}
        form = f"JSON text of a value that follows this JSON schema: {json.dumps(_unmarked(plain), ensure_ascii=False)}"
        return _described({"type": "string"}, shape, [form])
    if "anyOf" in shape:
        parts = _distinct([_sent(part) for part in shape["anyOf"]])
        return _described(parts[0] if len(parts) == 1 else {"anyOf": parts}, shape, _default_words(shape))
    if is_map(shape):
        return _sent_map(shape)
    match shape.get("type"):
        case "object":
            properties = {name: _sent(part) for name, part in shape["properties"].items()}
            ends = {"required": list(properties), "additionalProperties": False}
            return _described({"type": "object", "properties": properties, **ends}, shape, _words(shape))
        case "array":
            return _sent_array(shape)
        case "string" if "enum" in shape:
            return _described({"type": "string", "enum": list(shape["enum"])}, shape, _words(shape))
        case str() as kind:
            return _described({"type": kind}, shape, [*_choice_words(shape), *_words(shape)])
    return _sent_any(shape)


def _sent_map(shape: Mapping[str, Any]) -> dict[str, Any]:
    """A dict as the list of its entries."""
    names = shape.get("propertyNames", {})
    patterns = list(shape.get("patternProperties", {}))
    key = _sent(_shape_of({"type": "string"} | (names if isinstance(names, dict) else {}), MOST_LEVELS))
    if patterns:
        key = _described(key, {}, [f"matching {' or '.join(patterns)}"])
    entry = {
        "type": "object",
        "properties": {KEY: key, VALUE: _sent(shape["additionalProperties"])},
        "required": [KEY, VALUE],
        "additionalProperties": False,
    }
    entries = {"type": "array", "items": entry}
    words = ["each key once", *_count_words(shape, "Properties", "entry", "entries"), *_words(shape)]
    if not shape.get(WRAPPED):
        return _described(entries, shape, words)
    wrapped = {
        "type": "object",
        "properties": {ENTRIES: entries},
        "required": [ENTRIES],
        "additionalProperties": False,
    }
    return _described(wrapped, shape, words)


def _sent_array(shape: Mapping[str, Any]) -> dict[str, Any]:
    """A list; of a tuple, whose items differ, each place in words."""
    first = shape.get("prefixItems", [])
    if not first:
        items = {"type": "string"} if shape.get("maxItems") == 0 else _sent(shape["items"])
        return _described({"type": "array", "items": items}, shape, _words(shape))
    parts = [part for one in (_sent(part) for part in first) for part in one.get("anyOf", [one])]
    distinct = _distinct([{key: value for key, value in part.items() if key != "description"} for part in parts])
    briefs = [_brief(part) for part in first]
    alike = len(set(briefs)) == 1 and len(distinct) == 1
    places = [] if alike else [f"item {number}: {brief}" for number, brief in enumerate(briefs, 1)]
    items = distinct[0] if len(distinct) == 1 else {"anyOf": distinct}
    return _described({"type": "array", "items": items}, shape, [*_words(shape), *places])


def _sent_any(shape: Mapping[str, Any]) -> dict[str, Any]:
    """Any value: single ones as they are, and a list or an object as JSON text in an object of its own."""
    text = {"type": "string", "description": "a list or an object, as JSON text"}
    nested = {"type": "object", "properties": {JSON: text}, "required": [JSON], "additionalProperties": False}
    kinds = [{"type": kind} for kind in ("string", "number", "boolean", "null")]
    return _described({"anyOf": [*kinds, nested]}, shape, [*_choice_words(shape), *_words(shape)])


def _unmarked(schema: Any) -> Any:
    """A schema without this library's marks."""
    if isinstance(schema, list):
        return [_unmarked(part) for part in schema]
    if isinstance(schema, dict):
        return {key: _unmarked(part) for key, part in schema.items() if key not in MARKS}
    return schema


# Words


def _described(sent: dict[str, Any], shape: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """What is sent, with its description: what the user says of it, and what the subset cannot say."""
    about = [text for text in (shape.get("description"), sent.get("description")) if isinstance(text, str) and text]
    limits = "; ".join(dict.fromkeys(words))
    said = " ".join([*about, f"({limits})"] if about and limits else [*about, *([limits] if limits else [])])
    return sent | {"description": said} if said else sent


def _words(shape: Mapping[str, Any]) -> list[str]:
    """What a schema asks beside its type, in words."""
    words = [*_range_words(shape), *_count_words(shape, "Length", "character", "characters")]
    words += _count_words(shape, "Items", "item", "items")
    if shape.get("uniqueItems"):
        words.append("no item twice")
    form = form_words(shape)
    if form:
        words.append(form)
    if shape.get("examples"):
        words.append(f"for example {_spelled(shape['examples'])}")
    words += [f"{key}: {json.dumps(value)}" for key, value in shape.items() if key not in _SAID]
    return words + _default_words(shape)


def _default_words(shape: Mapping[str, Any]) -> list[str]:
    return [f"default: {json.dumps(shape['default'], ensure_ascii=False)}"] if "default" in shape else []


def _choice_words(shape: Mapping[str, Any]) -> list[str]:
    """The choices that no enum names: Gemini takes none but of texts."""
    if "enum" not in shape or shape.get("type") == "null":
        return []
    choices = _spelled(shape["enum"])
    return [f"one of {choices}" if len(shape["enum"]) > 1 else f"always {choices}"]


def _range_words(shape: Mapping[str, Any]) -> list[str]:
    """The bounds of a number."""
    least, most = shape.get("minimum"), shape.get("maximum")
    words = [f"from {least} to {most}"] if least is not None and most is not None else []
    if not words:
        words = [f"at least {least}"] if least is not None else []
        words += [f"at most {most}"] if most is not None else []
    for keyword, word in (
        ("exclusiveMinimum", "above"),
        ("exclusiveMaximum", "below"),
        ("multipleOf", "a multiple of"),
    ):
        if keyword in shape:
            words.append(f"{word} {shape[keyword]}")
    return words


def _count_words(shape: Mapping[str, Any], of: str, one: str, many: str) -> list[str]:
    """How many characters, items or entries there are to be."""
    least, most = shape.get(f"min{of}"), shape.get(f"max{of}")
    if least is not None and least == most:
        return [f"exactly {least} {one if least == 1 else many}"]
    words = [f"at least {least} {one if least == 1 else many}"] if least else []
    return words + ([f"at most {most} {one if most == 1 else many}"] if most is not None else [])


def _brief(shape: Mapping[str, Any]) -> str:
    """A part of a tuple in a few words."""
    if "anyOf" in shape:
        return " or ".join(_brief(part) for part in shape["anyOf"])
    kind = "text" if shape.get("type") == "string" else str(shape.get("type", "any value"))
    kind = "list of keys and values" if is_map(shape) else kind
    about = [text for text in (shape.get("description"),) if isinstance(text, str) and text]
    said = ", ".join([*about, *_choice_words(shape), *_words(shape)])
    return f"{kind} ({said})" if said else kind


def _spelled(values: Sequence[Any]) -> str:
    return ", ".join(json.dumps(value, ensure_ascii=False) for value in values)


# Limits


def _fit_enums(sent: dict[str, Any]) -> None:
    """Make plain texts of the largest enums, their choices in words, until all limits are kept."""
    enums = [node for node in _nodes(sent) if "enum" in node]
    for node in enums:
        if len(node["enum"]) > LARGE_ENUM and _characters(node["enum"]) > LARGE_ENUM_CHARACTERS:
            _open_enum(node)
    enums = sorted((node for node in enums if "enum" in node), key=_size_of_enum)
    count, characters = sum(len(node["enum"]) for node in enums), _named_characters(sent)
    while enums and (count > MOST_CHOICES or characters > MOST_CHARACTERS):
        largest = enums.pop()
        count -= len(largest["enum"])
        characters -= _characters(largest["enum"])
        _open_enum(largest)


def _open_enum(node: dict[str, Any]) -> None:
    choices = node.pop("enum")
    node["description"] = _described({}, node, [f"one of {_spelled(choices)}"])["description"]


def _size_of_enum(node: Mapping[str, Any]) -> int:
    return len(node["enum"]) + _characters(node["enum"])


def _characters(choices: Sequence[str]) -> int:
    return sum(len(choice) for choice in choices)


def _named_characters(sent: dict[str, Any]) -> int:
    """The characters of all names and choices."""
    names = sum(_characters(list(node.get("properties", ()))) for node in _nodes(sent))
    return names + sum(_characters(node.get("enum", ())) for node in _nodes(sent))


def _is_within_limits(sent: dict[str, Any]) -> bool:
    count = sum(len(node.get("properties", ())) for node in _nodes(sent))
    return count <= MOST_PROPERTIES and _named_characters(sent) <= MOST_CHARACTERS


def _nodes(sent: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All schemas within a sent one, itself first."""
    yield sent
    for part in [*sent.get("properties", {}).values(), *sent.get("anyOf", ())]:
        yield from _nodes(part)
    if "items" in sent:
        yield from _nodes(sent["items"])


# Answers read back


def _read(value: Any, shape: Mapping[str, Any]) -> Any:
    """A value as its schema has it; what is in that form already stays."""
    if shape.get(AS_TEXT):
        return _decoded(value) if isinstance(value, str) else value
    if "anyOf" in shape:
        return _read_one_of(value, shape["anyOf"])
    if is_map(shape):
        return _read_map(value, shape)
    match shape.get("type"):
        case "object" if isinstance(value, dict):
            by_name = {part.get(NAME, name): part for name, part in shape["properties"].items()}
            parts = by_name | shape["properties"]
            return {name: _read(one, parts[name]) if name in parts else one for name, one in value.items()}
        case "array" if isinstance(value, list):
            first, rest = shape.get("prefixItems", []), shape["items"]
            return [_read(one, first[number] if number < len(first) else rest) for number, one in enumerate(value)]
        case None if isinstance(value, dict) and value.keys() == {JSON} and isinstance(value[JSON], str):
            nested = _decoded(value[JSON])
            return nested if isinstance(nested, dict | list) else value
    return value


def _decoded(text: str) -> Any:
    """The value of a JSON text; what is none is a text of its own."""
    try:
        return json.loads(text, object_pairs_hook=_object_of)
    except ValueError:
        return text


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("an object names a key twice")
    return made


def _read_one_of(value: Any, shapes: Sequence[Mapping[str, Any]]) -> Any:
    """A value as the first of several types has it that takes it, before all one that knows all its keys."""
    if not isinstance(value, dict | list):
        return value
    fitting: list[Any] = []
    for shape in shapes:
        read = _read(value, shape)
        if find_violation(read, shape, FITTING) is not None:
            continue
        known = shape.get("properties", {})
        if not isinstance(read, dict) or is_map(shape) or read.keys() <= known.keys():
            return read
        fitting.append(read)
    return fitting[0] if fitting else value


def _read_map(value: Any, shape: Mapping[str, Any]) -> Any:
    """A dict out of the list of its entries. With a key twice it stays a list: nobody can tell which one was meant."""
    inner = shape["additionalProperties"]
    if shape.get(WRAPPED) and isinstance(value, dict) and value.keys() == {ENTRIES}:
        value = value[ENTRIES] if _are_entries(value[ENTRIES]) else value
    elif shape.get(WRAPPED) and isinstance(value, list):
        return value  # a list beside which the dict stands
    if isinstance(value, dict):
        return {key: _read(one, inner) for key, one in value.items()}
    if not _are_entries(value):
        return value
    made = {_key_of(entry[KEY]): _read(entry[VALUE], inner) for entry in value}
    return made if len(made) == len(value) else value


def _are_entries(value: Any) -> bool:
    """Whether a value is a list of keys and values."""
    if not isinstance(value, list):
        return False
    for entry in value:
        if not isinstance(entry, dict) or entry.keys() != {KEY, VALUE}:
            return False
        if isinstance(entry[KEY], dict | list) or entry[KEY] is None:
            return False
    return True


def _key_of(key: Any) -> str:
    """A key as JSON has it; models write numbers as numbers."""
    return key if isinstance(key, str) else json.dumps(key)


def find_unread(value: Any, shape: Mapping[str, Any]) -> str | None:
    """Say which dict could not be read, with its place and without its keys, which may be a cell's text.

    Example:
        >>> twice = [{"key": "a", "value": 1}, {"key": "a", "value": 2}]
        >>> find_unread(twice, wire_of({"type": "object"}).shape)
        'names a key twice'
    """
    if shape.get(AS_TEXT) or value is None:
        return None
    if "anyOf" in shape:
        parts = [part for part in shape["anyOf"] if part.get("type") != "null"]
        return find_unread(value, parts[0]) if len(parts) == 1 else None
    if is_map(shape) and isinstance(value, list):
        if _are_entries(value):
            return "names a key twice"
        return f'should be a dictionary, as a list of objects with "{KEY}" and "{VALUE}" and nothing beside them'
    for place, one, part in _inside(value, shape):
        wrong = find_unread(one, part)
        if wrong is not None:
            inner, colon, rest = wrong.partition(": ")
            return f"{place}.{inner}{colon}{rest}" if colon else f"{place}: {wrong}"
    return None


def _inside(value: Any, shape: Mapping[str, Any]) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """The parts of a value, each with its place and its shape."""
    if isinstance(value, dict):
        known = shape.get("properties", {})
        for name, one in value.items():
            if is_map(shape):
                yield "a value", one, shape["additionalProperties"]
            elif name in known:
                yield name, one, known[name]
    elif isinstance(value, list) and shape.get("type") == "array":
        first = shape.get("prefixItems", [])
        for number, one in enumerate(value):
            yield str(number), one, first[number] if number < len(first) else shape["items"]
