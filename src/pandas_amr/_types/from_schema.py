"""Convert JSON schemas to types, and the types that code in a sandbox names."""

from __future__ import annotations

import datetime as dt
import typing
import uuid
from decimal import Decimal
from typing import Annotated, Any, get_origin

from pydantic import UUID1, UUID3, UUID4, UUID5, AwareDatetime, BaseModel, Field, WithJsonSchema

from pandas_amr._records.suggest import did_you_mean
from pandas_amr._types.record import literal_of, record_type
from pandas_amr._types.schema import (
    CONSTRAINTS,
    DATETIME_PATTERN,
    DECIMAL_PATTERN,
    MARKS,
    NAME,
    NON_FINITE,
    OPTIONAL,
    TIME_PATTERN,
    Schema,
    close_schema,
    json_schema,
)
from pandas_amr.errors import UsageError

_NAMED_TYPES: dict[str, Any] = {"str": str, "int": int, "float": float, "bool": bool}
_BY_PATTERN: dict[str, Any] = {
    DECIMAL_PATTERN: Decimal,
    DATETIME_PATTERN: dt.datetime,
    TIME_PATTERN: dt.time,
}
_BY_FORMAT: dict[str, Any] = {
    "date": dt.date,
    "date-time": AwareDatetime,
    "time": dt.time,
    "duration": dt.timedelta,
    "uuid": uuid.UUID,
    "uuid1": UUID1,
    "uuid3": UUID3,
    "uuid4": UUID4,
    "uuid5": UUID5,
}
SCHEMA_TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")
SCHEMA_SYNONYMS = {
    "str": "string",
    "text": "string",
    "int": "integer",
    "float": "number",
    "double": "number",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
    "none": "null",
}
_SCALARS: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "null": type(None),
}
# Keywords of an object's schema that its model has in another form.
_MODEL_KEYWORDS = frozenset({
    *("type", "properties", "required", "additionalProperties"),
    *("description", "title", "default", "$defs", *MARKS),
})  # fmt: skip


def type_from_schema(schema: Schema, name: str = "Record") -> Any:
    """Return the type whose ``json_schema`` is ``schema``.

    Args:
        schema: a schema without references.
        name: for models, and for error messages.

    Raises:
        UsageError: the schema uses what findings cannot hold.

    Example:
        >>> type_from_schema({"type": "array", "items": {"type": "integer"}})
        list[int]
    """
    if "enum" in schema or "const" in schema:
        return literal_of(schema.get("enum", [schema.get("const")]), name)
    if "anyOf" in schema:
        parts = [type_from_schema(part, name) for part in schema["anyOf"]]
        return typing.Union[tuple(parts)]  # noqa: UP007 (made at run time)
    kind = schema.get("type")
    if kind is None and not schema.keys() - {"description", "examples", *MARKS}:
        return Any
    if kind == "object":
        return _object_type(schema, name)
    if kind == "array":
        return _array_type(schema, name)
    if isinstance(kind, str) and kind in _SCALARS:
        return _scalar_type(schema)
    suggestion = did_you_mean(kind, SCHEMA_TYPES, synonyms=SCHEMA_SYNONYMS) if kind else ""
    raise UsageError(
        f"The schema of {name} uses {schema!r}, which findings cannot hold.{suggestion}"
    )


def _object_type(schema: Schema, name: str) -> Any:
    """Return a model if the schema has properties, else a dict."""
    if "properties" in schema:
        return _record_type(schema, name)
    values = schema.get("additionalProperties", True)
    kind = _item_type(values, name) if isinstance(values, dict) else Any
    return dict[str, kind]  # type: ignore[valid-type]


def _array_type(schema: Schema, name: str) -> Any:
    """Return a tuple, a set or a list."""
    places = schema.get("prefixItems")
    if places:
        return tuple[tuple(_item_type(part, name) for part in places)]  # type: ignore[misc]
    item = _item_type(schema.get("items", {}), name)
    if schema.get("uniqueItems"):
        return set[item]  # type: ignore[valid-type]
    return list[item]  # type: ignore[valid-type]


def _scalar_type(schema: Schema) -> Any:
    if schema["type"] != "string":
        return _SCALARS[schema["type"]]
    by_pattern = _BY_PATTERN.get(schema.get("pattern", ""))
    return by_pattern or _BY_FORMAT.get(schema.get("format", ""), str)


def parse_type(given: object) -> Any:
    """Return the type that code in a sandbox means.

    Args:
        given: a name, a list of choices, a JSON schema, or ``{"kind": ..., "description": ...}``.

    Returns:
        A type, a list of choices, or a type with its description, as ``record_type`` takes it.

    Raises:
        UsageError: it is something else.

    Example:
        >>> parse_type("list[float]"), parse_type(["yes", "no"])
        (list[float], ['yes', 'no'])
    """
    if isinstance(given, str):
        return _type_by_name(given)
    if isinstance(given, list) and given:
        return given
    if isinstance(given, dict) and "kind" in given:
        kind = parse_type(given["kind"])
        if isinstance(kind, list):
            kind = literal_of(kind, "kind")
        return kind, str(given.get("description", ""))
    if isinstance(given, dict):
        return type_from_schema(given)
    raise _unknown_type(given)


def _type_by_name(name: str) -> Any:
    inner = name
    if name.startswith("list["):
        inner = name.removeprefix("list[").removesuffix("]")
    kind = _NAMED_TYPES.get(inner)
    if kind is None:
        raise _unknown_type(name)
    return list[kind] if inner != name else kind  # type: ignore[valid-type]


def _unknown_type(given: object) -> UsageError:
    return UsageError(
        "A field's type is str, int, float, bool, a list of one of these, or a list of choices, "
        f"not {given!r}."
    )


def _record_type(schema: Schema, name: str) -> type[BaseModel]:
    """Return the model of an object. Keywords that no type expresses are kept in its schema."""
    beside = {key: value for key, value in schema.items() if key not in _MODEL_KEYWORDS}
    about = _description_of(schema)
    properties = schema["properties"]
    fields: dict[str, Any] = {}
    aliases: dict[str, str] = {}
    for alias, part in properties.items():
        field = part.get(NAME, alias)
        aliases[field] = alias
        fields[field] = _field_definition(part, field, alias)
    record = record_type(name, fields, about=about, beside=beside)
    inexact = _inexact_fields(record, properties, aliases)
    if not inexact:
        return record
    for field, wanted in inexact.items():
        kind, options = fields[field]
        fields[field] = (Annotated[kind, WithJsonSchema(wanted)], options)
    return record_type(name, fields, about=about, beside=beside)


def _description_of(schema: Schema) -> str | None:
    description = schema.get("description")
    return description if isinstance(description, str) else None


def _inexact_fields(
    record: type[BaseModel], properties: Schema, aliases: dict[str, str]
) -> dict[str, Any]:
    """Return the fields of a model whose schema differs from the given one, with the given one."""
    made = json_schema(record, marked=True)["properties"]
    inexact: dict[str, Any] = {}
    for field, alias in aliases.items():
        wanted = close_schema(properties[alias], {})
        if made[alias] != wanted:
            inexact[field] = wanted
    return inexact


def bounded_type_from_schema(schema: Schema, name: str = "Record") -> Any:
    """Return the type of a value outside a record, with its bounds; a list has none."""
    kind, bounds = type_from_schema(schema, name), _bounds_of(schema)
    if get_origin(kind) is list:
        return kind
    return _add_bounds(kind, bounds)


def _item_type(schema: Schema, name: str) -> Any:
    """Return the type of the items of a list or the values of a dict, with their bounds."""
    return _add_bounds(type_from_schema(schema, name), _bounds_of(schema))


def _add_bounds(kind: object, bounds: dict[str, Any]) -> Any:
    if bounds:
        return Annotated[kind, Field(**bounds)]
    return kind


def _field_definition(schema: Schema, name: str, alias: str) -> Any:
    """Return a field as ``record_type`` takes it."""
    kind = type_from_schema(schema, name.title().replace("_", ""))
    options = _bounds_of(schema)
    for key in ("description", "examples"):
        if key in schema:
            options[key] = schema[key]
    if schema.get(OPTIONAL):
        options["default"] = None
    return (kind, Field(alias=alias if alias != name else None, **options))


def _bounds_of(schema: Schema) -> dict[str, Any]:
    """Return the bounds of a schema as arguments of pydantic's ``Field``."""
    parts = [part for part in schema.get("anyOf", ()) if part.get("type") != "null"]
    if len(parts) == 1:  # a field that may be null has the bounds of its other type
        schema = schema | parts[0]
    if "prefixItems" in schema:
        return {}
    bounds = {CONSTRAINTS[key]: value for key, value in schema.items() if key in CONSTRAINTS}
    if bounds.get("pattern") in _BY_PATTERN:
        del bounds["pattern"]  # the type implies it
    if schema.get(NON_FINITE):
        bounds["allow_inf_nan"] = True
    return bounds
