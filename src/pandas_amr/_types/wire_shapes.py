"""Shapes: schemas with one type per part, and marks where a part is asked of a model in another form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pandas_amr._types.schema import ABSENT, MARKS, OPTIONAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Lists are counted as levels, too: OpenAI says "10 levels of nesting" and not of what.
MOST_LEVELS = 10

# Marks of a shape; no model is sent them.
AS_TEXT = "amr_as_text"  # the value is asked as JSON text
WRAPPED = (
    "amr_wrapped"  # the dict is asked as an object with its entries, since it stands beside lists
)

_SINGLE = frozenset({"string", "integer", "number", "boolean", "null"})
_TYPES = _SINGLE | {"object", "array"}
_IMPLIED = {
    "properties": "object",
    "patternProperties": "object",
    "items": "array",
    "prefixItems": "array",
}
_BESIDE = ("description", "default", *MARKS)  # what a schema says beside its types


def shape_of(schema: Any, level: int) -> dict[str, Any]:
    """The shape of a self-contained schema at a level of nesting."""
    parts = _alternatives(schema)
    if len(parts) == 1:
        return _beside(schema, _shape_of_one(parts[0], level))
    for part in parts:
        if not _types_of(part):  # any value: what the others say is no bound
            return _beside(schema, _shape_of_one({}, level))
    wrapped = any(part["type"] == "array" for part in parts)
    shapes = []
    for part in parts:
        shape = _shape_of_one(part, level, wrapped=wrapped)
        if shape.get(AS_TEXT):  # a text beside it could not be told from JSON text: all of them are
            return _beside(schema, {"anyOf": parts, AS_TEXT: True})
        shapes.append(shape)
    return _beside(schema, {"anyOf": shapes})


def is_map(schema: Mapping[str, Any]) -> bool:
    """Whether a schema is of an object whose keys are free."""
    if schema.get("type") != "object" or schema.get("properties"):
        return False
    return "patternProperties" in schema or schema.get("additionalProperties", True) is not False


def distinct(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Schemas, each once."""
    kept: list[dict[str, Any]] = []
    for part in parts:
        if part not in kept:
            kept.append(part)
    return kept


def _beside(schema: Any, shape: dict[str, Any]) -> dict[str, Any]:
    """A shape with what a schema says beside its types."""
    said = dict(shape)
    for key in _BESIDE:
        if isinstance(schema, dict) and key in schema:
            said[key] = schema[key]
    return said


def _alternatives(schema: Any) -> list[dict[str, Any]]:
    """The schemas of one type each, of which a value follows one; one without a type takes any value."""
    if not isinstance(schema, dict):
        return [{}]
    schema = _merged(schema)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            parts: list[dict[str, Any]] = []
            for part in schema[keyword]:
                parts += _alternatives(part)
            return distinct(parts)
    if "enum" in schema:
        return _choices_by_type(schema["enum"], schema)
    if "const" in schema:
        return _choices_by_type([schema["const"]], schema)
    return _types_apart(schema)


def _types_apart(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """A schema for each of the types that it takes; itself if it names none."""
    types = _types_of(schema)
    if types and schema.get("nullable") is True:  # as OpenAPI spells it
        types.append("null")
    parts = [_of_type(schema, kind) for kind in types]
    return distinct(parts) or [schema]


def _of_type(schema: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"type": "null"} if kind == "null" else schema | {"type": kind}


def _merged(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with the parts of its ``allOf`` in one."""
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema.get("allOf", ()):
        if not isinstance(part, dict):
            continue
        one = _merged(part)
        properties = one.get("properties", {}) | merged.get("properties", {})
        required = [*one.get("required", ()), *merged.get("required", ())]
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
    for keyword, implied in _IMPLIED.items():
        if keyword in schema:
            return [implied]
    return []


def _choices_by_type(choices: Sequence[Any], schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Choices of several types, each type by itself. A list or an object among them leaves any value."""
    beside = {key: value for key, value in schema.items() if key not in {"enum", "const", "type"}}
    by_type: dict[str, list[Any]] = {}
    for choice in choices:
        if isinstance(choice, list | dict):
            return [beside | {"enum": list(choices)}]
        by_type.setdefault(_type_of(choice), []).append(choice)
    return [beside | {"type": kind, "enum": some} for kind, some in by_type.items()]


def _type_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case str():
            return "string"
        case int():
            return "integer"
    return "number"


def _shape_of_one(schema: dict[str, Any], level: int, *, wrapped: bool = False) -> dict[str, Any]:
    """The shape of a schema of one type. A part that is too deep stays as it is, and is asked as JSON text."""
    if level + _levels_of(schema, wrapped=wrapped) - 1 > MOST_LEVELS:
        return schema | {AS_TEXT: True}
    if is_map(schema):
        return _shape_of_map(schema, level, wrapped=wrapped)
    match schema.get("type"):
        case "object":
            return _shape_of_object(schema, level)
        case "array":
            return _shape_of_array(schema, level)
    return schema


def _shape_of_map(schema: dict[str, Any], level: int, *, wrapped: bool) -> dict[str, Any]:
    values = schema.get("additionalProperties", {})
    by_pattern = list(schema.get("patternProperties", {}).values())
    if by_pattern:
        values = by_pattern[0] if len(by_pattern) == 1 else {"anyOf": by_pattern}
    shape = schema | {
        "additionalProperties": shape_of(values, level + _levels_of(schema, wrapped=wrapped))
    }
    return shape | {WRAPPED: True} if wrapped else shape


def _shape_of_object(schema: dict[str, Any], level: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    required = schema.get("required", properties)
    shapes = {}
    for name, part in properties.items():
        shapes[name] = shape_of(part if name in required else _left_out_by_null(part), level + 1)
    return schema | {"properties": shapes, "required": list(shapes), "additionalProperties": False}


def _left_out_by_null(part: Any) -> dict[str, Any]:
    """A property that need not be there: null leaves it out, unless null is a value of its own."""
    made = _beside(part, {"anyOf": [part, {"type": "null"}]})
    for one in _alternatives(part):
        if one.get("type") == "null":
            return made
    return made | {OPTIONAL: ABSENT}


def _shape_of_array(schema: dict[str, Any], level: int) -> dict[str, Any]:
    items = schema.get("items", {})
    shape = schema | {"items": shape_of(items, level + 1) if isinstance(items, dict) else {}}
    first = schema.get("prefixItems")
    return (
        shape | {"prefixItems": [shape_of(part, level + 1) for part in first]} if first else shape
    )


def _levels_of(schema: Mapping[str, Any], *, wrapped: bool) -> int:
    """How many levels of nesting the sent form of a part has by itself."""
    if is_map(schema):
        return 3 if wrapped else 2
    return 0 if schema.get("type") in _SINGLE else 1


# References


def self_contained(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Write a foreign schema's references out in place; one that leads back to itself, or nowhere, takes any value.

    Example:
        >>> self_contained({"items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": "integer"}}})
        {'items': {'type': 'integer'}}
    """
    kept = {key: value for key, value in schema.items() if key not in {"$defs", "definitions"}}
    written: dict[str, Any] = _written_out(kept, schema, ())
    return written


def _written_out(part: Any, whole: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    if isinstance(part, list):
        return [_written_out(one, whole, path) for one in part]
    if not isinstance(part, dict):
        return part
    written = {key: _written_out(one, whole, path) for key, one in part.items()}
    reference = part.get("$ref")
    if not isinstance(reference, str):
        return written
    del written["$ref"]
    target = None if reference in path else _target_of(reference, whole)
    if not isinstance(target, dict):
        return written
    return _written_out(target, whole, (*path, reference)) | written


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
