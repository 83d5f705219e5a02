"""Convert types to JSON schemas, in the form in which a model is asked for them."""

from __future__ import annotations

import typing
from typing import Any, TypeAlias

from pydantic import AliasChoices, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind

from pandas_amr._types.json_text import unsendable
from pandas_amr._types.record import check_members
from pandas_amr.errors import UsageError

if typing.TYPE_CHECKING:
    from collections.abc import Collection

    from pydantic.fields import FieldInfo
    from pydantic_core import core_schema

# A JSON schema, or a part of one.
Schema: TypeAlias = dict[str, Any]

DECIMAL_PATTERN = r"^-?\d+(\.\d+)?$"
# ``date-time`` and ``time`` mean RFC 3339, which requires a zone. Times without one have a pattern.
DATETIME_PATTERN = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?$"
TIME_PATTERN = r"^\d{2}:\d{2}:\d{2}(\.\d{1,6})?$"
TEXT_FINDING = "finding"

# Marks of a schema that is stored or checked against. They are not sent to a model.
NAME = "amr_name"  # the name of a field that has an alias
OPTIONAL = "amr_optional"  # the field may be left out, and is None then; or is ABSENT
ABSENT = "absent"
NON_FINITE = "amr_non_finite"  # the type allows NaN and infinity
MARKS = frozenset({NAME, OPTIONAL, NON_FINITE})
RESERVED = frozenset({"unit"})

# JSON Schema keyword -> pydantic's Field argument
CONSTRAINTS = {
    "minimum": "ge",
    "maximum": "le",
    "exclusiveMinimum": "gt",
    "exclusiveMaximum": "lt",
    "multipleOf": "multiple_of",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
    "pattern": "pattern",
}
# Keywords whose values are not schemas.
_PLAIN_KEYWORDS = frozenset({"enum", "const", "examples", "required"})
_DROPPED_KEYWORDS = frozenset({"title", "default", "discriminator", NAME})


def json_schema(kind: Any, *, by_alias: bool = True, marked: bool = False) -> Schema:
    """Return the JSON schema of a type: self-contained, each property required, no other allowed.

    Strict structured output takes this form: servers reject ``$ref``, and a default would let an
    answer be left out. Fields that may be missing are nullable instead.

    Args:
        kind: the type.
        by_alias: whether fields are called by their aliases.
        marked: whether ``MARKS`` stay, which only this library reads.

    Raises:
        UsageError: the type has no JSON schema, or a recursive one.
    """
    try:
        schema = TypeAdapter(kind).json_schema(by_alias=by_alias, schema_generator=_Generator)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise UsageError(
            f"{kind!r} cannot be asked of a model: {str(error).splitlines()[0]}"
        ) from None
    closed: Schema = close_schema(schema, schema.pop("$defs", {}))
    if marked:
        return closed
    unmarked: Schema = without_keywords(closed)
    problem = unsendable(unmarked)
    if problem is not None:
        raise UsageError(f"{kind!r} cannot be asked of a model: its schema {problem}.")
    return unmarked


def without_keywords(
    schema: object, keywords: Collection[str] = MARKS, kept: Collection[Any] = ()
) -> Any:
    """Return a schema without some keywords, but for ``kept`` values of them.

    A property may have the name of a keyword.
    """
    if isinstance(schema, list):
        return [without_keywords(part, keywords, kept) for part in schema]
    if not isinstance(schema, dict):
        return schema
    rest: Schema = {}
    for key, value in schema.items():
        if key == "properties":
            parts = {name: without_keywords(part, keywords, kept) for name, part in value.items()}
            rest[key] = parts
        elif key in _PLAIN_KEYWORDS:
            rest[key] = value
        elif key not in keywords or value in kept:
            rest[key] = without_keywords(value, keywords, kept)
    return rest


def object_schema(properties: dict[str, Any]) -> Schema:
    """Return the schema of an object that requires these properties and allows no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def accepted_names(name: str, field: FieldInfo) -> tuple[str, ...]:
    """Return the names that a field may have in an answer, first that of the schema."""
    alias = field.validation_alias
    if alias is None or isinstance(alias, str):
        return (alias or name,)
    if isinstance(alias, AliasChoices):
        paths = alias.convert_to_aliases()
    else:
        paths = [alias.convert_to_aliases()]
    return tuple(str(path[0]) for path in sorted(paths, key=len))


def stored_schema(kind: object) -> Schema:
    """Return the JSON schema to store: with marks, and the names of fields that have aliases."""
    by_alias = json_schema(kind, marked=True)
    by_name = json_schema(kind, by_alias=False, marked=True)
    named: Schema = _add_names(by_alias, by_name)
    return named


def _add_names(by_alias: Any, by_name: Any) -> Any:
    """Mark the properties of a schema with their names where these differ from the aliases.

    Args:
        by_alias: the schema to mark.
        by_name: the same schema with names in place of aliases.
    """
    if isinstance(by_alias, list):
        return [_add_names(*pair) for pair in zip(by_alias, by_name, strict=True)]
    if not isinstance(by_alias, dict):
        return by_alias
    named: Schema = {}
    for key, value in by_alias.items():
        if key != "properties":
            named[key] = _add_names(value, by_name[key])
            continue
        named[key] = {}
        pairs = zip(value.items(), by_name[key].items(), strict=True)
        for (alias, part), (name, other) in pairs:
            named[key][alias] = _add_names(part, other)
            if name != alias:
                named[key][alias] |= {NAME: name}
    return named


class _Generator(GenerateJsonSchema):
    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        """Warn of no default that JSON has no form for: defaults are not asked of a model."""
        if kind != "non-serializable-default":
            super().emit_warning(kind, detail)

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """Write a decimal as a text, so that no digit is lost."""
        del schema
        return {"type": "string", "pattern": DECIMAL_PATTERN}

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        """Write a time with a zone if the type requires it, else without: a column has one form."""
        if schema.get("tz_constraint") == "aware":
            return {"type": "string", "format": "date-time"}
        return {"type": "string", "pattern": DATETIME_PATTERN}

    def time_schema(self, schema: core_schema.TimeSchema) -> JsonSchemaValue:
        """Write a time of day without a zone: no column holds one with it."""
        del schema
        return {"type": "string", "pattern": TIME_PATTERN}

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        """Write a number. NaN and infinity are allowed only if the field says so itself."""
        allowed = {NON_FINITE: True} if schema.get("allow_inf_nan") else {}
        return super().float_schema(schema) | allowed

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        """Write choices, if JSON can hold each of them."""
        check_members(schema["expected"])
        return super().literal_schema(schema)

    def typed_dict_field_schema(self, schema: core_schema.TypedDictField) -> JsonSchemaValue:
        """Write a key of a TypedDict; null stands for a key that is left out."""
        inner = super().typed_dict_field_schema(schema)
        if schema.get("required", True):
            return inner
        return {"anyOf": [inner, {"type": "null"}], OPTIONAL: ABSENT}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Mark a field that may be left out: the closed schema requires it."""
        inner = super().default_schema(schema)
        if schema.get("default", 0) is None:
            return {OPTIONAL: True} | inner
        return inner


def close_schema(schema: object, definitions: Schema, path: tuple[str, ...] = ()) -> Any:
    """Inline references, drop titles and defaults, and close objects.

    Args:
        schema: a schema, or a part of one.
        definitions: what its references refer to.
        path: the references that lead to this part.

    Raises:
        UsageError: it is recursive, or a reference refers to nothing.
    """
    if isinstance(schema, list):
        return [close_schema(part, definitions, path) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inline_reference(schema, definitions, path)
    closed: Schema = {}
    for key, value in schema.items():
        if key == "properties":
            closed[key] = {}
            for name, part in value.items():
                closed[key][name] = close_schema(part, definitions, path)
        elif key in _PLAIN_KEYWORDS:
            closed[key] = value
        elif key not in _DROPPED_KEYWORDS:
            closed[key] = close_schema(value, definitions, path)
    if "properties" in closed:
        return _close_object(closed)
    return closed


def _close_object(schema: Schema) -> Schema:
    """Require all properties and allow no other; these keywords come last, in one order."""
    last = {
        "required": list(schema["properties"]),
        "type": "object",
        "additionalProperties": False,
    }
    return {key: value for key, value in schema.items() if key not in last} | last


def recursion_error(name: str) -> UsageError:
    """Return the error for a type that contains itself."""
    return UsageError(
        f"Recursive type {name!r} is not supported as finding= or output=: give it a fixed depth."
    )


def _inline_reference(schema: Schema, definitions: Schema, path: tuple[str, ...]) -> Any:
    """Return what a reference refers to, with the keywords beside the reference."""
    name = schema["$ref"].removeprefix("#/$defs/")
    if name in path:
        raise recursion_error(name)
    if name not in definitions:
        raise UsageError(
            f"The schema refers to {schema['$ref']!r}, which it does not define; "
            "write it out in place."
        )
    beside = {key: value for key, value in schema.items() if key not in {"$ref", "default"}}
    return close_schema(definitions[name], definitions, (*path, name)) | beside
