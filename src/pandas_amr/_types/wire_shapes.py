"""Make shapes: schemas with one type per part, and marks on parts that are sent in another form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pandas_amr._types.schema import ABSENT, MARKS, OPTIONAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._types.schema import Schema

# Lists count as levels, too: OpenAI writes "10 levels of nesting" and not of what.
MOST_LEVELS = 10

# Marks of a shape. They are not sent to a model.
AS_TEXT = "amr_as_text"  # the value is sent as JSON text
# The dict is sent as an object that holds its entries, since it is an alternative to a list.
WRAPPED = "amr_wrapped"

_SINGLE = frozenset({"string", "integer", "number", "boolean", "null"})
_TYPES = _SINGLE | {"object", "array"}
_IMPLIED = {
    "properties": "object",
    "patternProperties": "object",
    "items": "array",
    "prefixItems": "array",
}
_ANNOTATIONS = ("description", "default", *MARKS)


def make_shape(schema: object, level: int) -> Schema:
    """Make the shape of a schema without references.

    Args:
        schema: the schema.
        level: its level of nesting, from 1.
    """
    parts = _alternatives(schema)
    if len(parts) == 1:
        return _annotate(_make_single_shape(parts[0], level), schema)
    for part in parts:
        if not _types_of(part):  # any value is allowed, so the other alternatives bound nothing
            return _annotate(_make_single_shape({}, level), schema)
    wrapped = any(part["type"] == "array" for part in parts)
    shapes = []
    for part in parts:
        shape = _make_single_shape(part, level, wrapped=wrapped)
        if shape.get(AS_TEXT):
            # Another alternative may be a text, which could not be told from JSON text.
            return _annotate({"anyOf": parts, AS_TEXT: True}, schema)
        shapes.append(shape)
    return _annotate({"anyOf": shapes}, schema)


def is_map(schema: Schema) -> bool:
    """Tell whether a schema is of a dict: an object with any keys."""
    if schema.get("type") != "object" or schema.get("properties"):
        return False
    return "patternProperties" in schema or schema.get("additionalProperties", True) is not False


def drop_repeated(parts: Sequence[Schema]) -> list[Schema]:
    """Return schemas without repeated ones."""
    kept: list[Schema] = []
    for part in parts:
        if part not in kept:
            kept.append(part)
    return kept


def _annotate(shape: Schema, schema: object) -> Schema:
    """Return a shape with the annotations of a schema."""
    annotated = dict(shape)
    for key in _ANNOTATIONS:
        if isinstance(schema, dict) and key in schema:
            annotated[key] = schema[key]
    return annotated


def _alternatives(schema: object) -> list[Schema]:
    """Split a schema into alternatives of one type each; one without a type takes any value."""
    if not isinstance(schema, dict):
        return [{}]
    schema = _merge_all_of(schema)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            parts: list[Schema] = []
            for part in schema[keyword]:
                parts += _alternatives(part)
            return drop_repeated(parts)
    if "enum" in schema:
        return _choices_by_type(schema["enum"], schema)
    if "const" in schema:
        return _choices_by_type([schema["const"]], schema)
    return _split_types(schema)


def _split_types(schema: Schema) -> list[Schema]:
    """Return a schema per type that a schema takes; the schema itself if it names none."""
    types = _types_of(schema)
    if types and schema.get("nullable") is True:  # OpenAPI's keyword
        types.append("null")
    parts = [_of_type(schema, kind) for kind in types]
    return drop_repeated(parts) or [schema]


def _of_type(schema: Schema, kind: str) -> Schema:
    if kind == "null":
        return {"type": "null"}
    return schema | {"type": kind}


def _merge_all_of(schema: Schema) -> Schema:
    """Merge the parts of ``allOf`` into their schema."""
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema.get("allOf", ()):
        if not isinstance(part, dict):
            continue
        inner = _merge_all_of(part)
        properties = inner.get("properties", {}) | merged.get("properties", {})
        required = [*inner.get("required", ()), *merged.get("required", ())]
        merged = inner | merged
        if properties:
            merged |= {"properties": properties, "required": required}
    return merged


def _types_of(schema: Schema) -> list[str]:
    """Return the JSON types that a schema takes; none if it takes any value."""
    kind = schema.get("type")
    if isinstance(kind, list):
        return [name for name in kind if name in _TYPES]
    if kind in _TYPES:
        return [str(kind)]
    for keyword, implied in _IMPLIED.items():
        if keyword in schema:
            return [implied]
    return []


def _choices_by_type(choices: Sequence[Any], schema: Schema) -> list[Schema]:
    """Split choices by their types. A list or an object among them makes it any value."""
    others = {key: value for key, value in schema.items() if key not in {"enum", "const", "type"}}
    by_type: dict[str, list[Any]] = {}
    for choice in choices:
        if isinstance(choice, list | dict):
            return [others | {"enum": list(choices)}]
        by_type.setdefault(_type_of(choice), []).append(choice)
    return [others | {"type": kind, "enum": group} for kind, group in by_type.items()]


def _type_of(value: object) -> str:
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


def _make_single_shape(schema: Schema, level: int, *, wrapped: bool = False) -> Schema:
    """Make the shape of a schema of one type. One that is nested too deep is sent as JSON text."""
    if level + _levels_of(schema, wrapped=wrapped) - 1 > MOST_LEVELS:
        return schema | {AS_TEXT: True}
    if is_map(schema):
        return _make_map_shape(schema, level, wrapped=wrapped)
    match schema.get("type"):
        case "object":
            return _make_object_shape(schema, level)
        case "array":
            return _make_array_shape(schema, level)
    return schema


def _make_map_shape(schema: Schema, level: int, *, wrapped: bool) -> Schema:
    values = schema.get("additionalProperties", {})
    by_pattern = list(schema.get("patternProperties", {}).values())
    if by_pattern:
        values = {"anyOf": by_pattern}
        if len(by_pattern) == 1:
            values = by_pattern[0]
    inner = make_shape(values, level + _levels_of(schema, wrapped=wrapped))
    shape = schema | {"additionalProperties": inner}
    if wrapped:
        return shape | {WRAPPED: True}
    return shape


def _make_object_shape(schema: Schema, level: int) -> Schema:
    properties: Schema = schema.get("properties", {})
    required = schema.get("required", properties)
    shapes = {}
    for name, part in properties.items():
        inner = part if name in required else _allow_null(part)
        shapes[name] = make_shape(inner, level + 1)
    return schema | {"properties": shapes, "required": list(shapes), "additionalProperties": False}


def _allow_null(part: object) -> Schema:
    """Allow null for an optional property: it leaves the property out, unless null is a value."""
    nullable = _annotate({"anyOf": [part, {"type": "null"}]}, part)
    for alternative in _alternatives(part):
        if alternative.get("type") == "null":
            return nullable
    return nullable | {OPTIONAL: ABSENT}


def _make_array_shape(schema: Schema, level: int) -> Schema:
    items = schema.get("items", {})
    shape: Schema = schema | {"items": {}}
    if isinstance(items, dict):
        shape["items"] = make_shape(items, level + 1)
    places = schema.get("prefixItems")
    if places:
        shape["prefixItems"] = [make_shape(part, level + 1) for part in places]
    return shape


def _levels_of(schema: Schema, *, wrapped: bool) -> int:
    """Return how many levels of nesting the sent form of a part adds."""
    if is_map(schema):
        return 3 if wrapped else 2
    return 0 if schema.get("type") in _SINGLE else 1


# References


def inline_references(schema: Schema) -> Schema:
    """Inline the references of a foreign schema.

    A recursive reference, or one to nothing, takes any value.

    Example:
        >>> inline_references({"items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": "integer"}}})
        {'items': {'type': 'integer'}}
    """
    body = {key: value for key, value in schema.items() if key not in {"$defs", "definitions"}}
    inlined: Schema = _inline(body, schema, ())
    return inlined


def _inline(part: object, whole: Schema, path: tuple[str, ...]) -> Any:
    """Inline the references in a part of a schema.

    Args:
        part: the part.
        whole: the schema that references refer to.
        path: the references that lead to this part.
    """
    if isinstance(part, list):
        return [_inline(item, whole, path) for item in part]
    if not isinstance(part, dict):
        return part
    inlined = {key: _inline(value, whole, path) for key, value in part.items()}
    reference = part.get("$ref")
    if not isinstance(reference, str):
        return inlined
    del inlined["$ref"]
    target = None if reference in path else _find_target(reference, whole)
    if not isinstance(target, dict):
        return inlined
    return _inline(target, whole, (*path, reference)) | inlined


def _find_target(reference: str, whole: object) -> Any:
    """Return what a reference within a schema refers to; None if nothing."""
    if not reference.startswith("#"):
        return None
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(whole, dict) or name not in whole:
            return None
        whole = whole[name]
    return whole
