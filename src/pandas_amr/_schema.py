"""Types and JSON schemas, both ways: what a model is promised to answer, and what a plan's file says of it."""

from __future__ import annotations

import enum
import types
import typing
import warnings
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, WithJsonSchema, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from pandas_amr.errors import UsageError

if typing.TYPE_CHECKING:
    from pydantic_core import core_schema

DECIMAL_PATTERN = r"^-?\d+(\.\d+)?$"
TEXT_FINDING = "finding"
NAME = "amr_name"  # in a schema that is kept: what a field is called that is asked for by an alias
RESERVED = frozenset({"unit"})
UNUSABLE = frozenset(name for name in dir(BaseModel) if name.startswith("model_"))  # what pydantic keeps to itself

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


class Record(BaseModel):
    """The base of findings and outputs that are made from a dict or a JSON schema."""

    model_config = ConfigDict(protected_namespaces=())


def record_type(
    name: str, fields: dict[str, Any], *, about: str | None = None, beside: dict[str, Any] | None = None
) -> type[BaseModel]:
    """Make a pydantic model of ``fields``: name to type, to ``(type, description)``, or to a list of choices.

    ``about`` is its description, and ``beside`` what else its JSON schema says.

    Raises:
        UsageError: a name or a type cannot be used.
    """
    definitions: dict[str, Any] = {}
    for field, given in fields.items():
        if not isinstance(field, str) or not field.isidentifier() or field.startswith("_"):
            raise UsageError(f"A finding's field is named like a variable, not {field!r}.")
        if field in UNUSABLE:
            raise UsageError(
                f"A finding's field cannot be named {field!r}: pydantic keeps that name; {field}_ is free."
            )
        definitions[field] = _definition(field, given)
    try:
        with warnings.catch_warnings():
            # A finding named `copy` or `json` hides an attribute of BaseModel that nobody asks these records for.
            warnings.filterwarnings("ignore", message=r".*shadows an attribute", category=UserWarning)
            said = {"json_schema_extra": beside} if beside else {}
            return create_model(name, __base__=Record, __doc__=about, __cls_kwargs__=said, **definitions)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise UsageError(f"{name}: {str(error).splitlines()[0]}") from None


def _definition(field: str, given: Any) -> Any:
    if isinstance(given, tuple) and len(given) == 2:
        kind, about = given
        return given if isinstance(about, FieldInfo) else (kind, Field(description=str(about)))
    if isinstance(given, list) and given:
        return (_choices(given, f"finding[{field!r}]"), ...)
    if isinstance(given, type | types.GenericAlias | types.UnionType) or get_origin(given) is not None or given is Any:
        return (given, ...)
    raise UsageError(f"finding[{field!r}] takes a type, (type, 'description'), or a list of choices, not {given!r}.")


def _choices(given: list[Any], what: str) -> Any:
    """The type that takes nothing but these values.

    Raises:
        UsageError: one of them is no single value.
    """
    wrong = [one for one in given if not (one is None or isinstance(one, str | int | float | enum.Enum))]
    if wrong:
        raise UsageError(f"{what}: a choice is a text, a number, a bool or None, not {wrong[0]!r}.")
    return Literal[tuple(given)]


def json_schema(kind: Any, *, by_alias: bool = True) -> dict[str, Any]:
    """The JSON schema of ``kind``, self-contained, with every property required and none beside them.

    That is the form that strict structured output takes: servers reject ``$ref``, and a default would let an answer
    be left out. Fields that may be missing are nullable, so that a model says so.

    Raises:
        UsageError: the type has no JSON schema, or one that refers to itself.
    """
    try:
        schema = TypeAdapter(kind).json_schema(by_alias=by_alias, schema_generator=_Generator)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise UsageError(f"{kind!r} cannot be asked of a model: {str(error).splitlines()[0]}") from None
    closed: dict[str, Any] = _closed(schema, schema.pop("$defs", {}), ())
    return closed


def asked_as(name: str, field: FieldInfo) -> tuple[str, ...]:
    """What a field may be called in an answer: first what the schema calls it."""
    alias = field.validation_alias
    if alias is None or isinstance(alias, str):
        return (alias or name,)
    paths = alias.convert_to_aliases() if isinstance(alias, AliasChoices) else [alias.convert_to_aliases()]
    return tuple(str(path[0]) for path in sorted(paths, key=len))


def kept_schema(kind: Any) -> dict[str, Any]:
    """The JSON schema as a file keeps it: it says, too, what a field is called that is asked for by an alias."""
    named: dict[str, Any] = _named(json_schema(kind), json_schema(kind, by_alias=False))
    return named


def _named(asked: Any, called: Any) -> Any:
    """``asked``, with the names of ``called``, which is the same by name, where they differ."""
    if isinstance(asked, list):
        return [_named(one, other) for one, other in zip(asked, called, strict=True)]
    if not isinstance(asked, dict):
        return asked
    named = {key: _named(value, called[key]) for key, value in asked.items() if key != "properties"}
    if "properties" in asked:
        pairs = zip(asked["properties"].items(), called["properties"].items(), strict=True)
        named["properties"] = {
            alias: _named(one, other) | ({NAME: name} if name != alias else {}) for (alias, one), (name, other) in pairs
        }
    return {key: named[key] for key in asked}


class _Generator(GenerateJsonSchema):
    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """A decimal is written as a string, so that no digit is lost on the way."""
        del schema
        return {"type": "string", "pattern": DECIMAL_PATTERN}


def _closed(schema: Any, definitions: dict[str, Any], path: tuple[str, ...]) -> Any:
    """``schema`` with references inlined, titles and defaults dropped, objects closed."""
    if isinstance(schema, list):
        return [_closed(part, definitions, path) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(schema, definitions, path)
    closed: dict[str, Any] = {}
    for key, value in schema.items():
        if key in {"title", "default", "discriminator", NAME}:
            continue
        if key == "properties":
            closed[key] = {name: _closed(part, definitions, path) for name, part in value.items()}
        elif key in {"enum", "const", "examples", "required"}:
            closed[key] = value
        else:
            closed[key] = _closed(value, definitions, path)
    if "properties" in closed:
        ends = {"required": list(closed["properties"]), "type": "object", "additionalProperties": False}
        return {key: value for key, value in closed.items() if key not in ends} | ends  # in one order, whatever is said
    return closed


def _inlined(schema: dict[str, Any], definitions: dict[str, Any], path: tuple[str, ...]) -> Any:
    """What a reference refers to, and what is said beside it."""
    name = schema["$ref"].removeprefix("#/$defs/")
    if name in path:
        raise UsageError(f"{name} refers to itself; a model cannot be asked for a record without an end.")
    if name not in definitions:
        raise UsageError(f"The schema refers to {schema['$ref']!r}, which is not there; write it out in place.")
    beside = {key: value for key, value in schema.items() if key not in {"$ref", "default"}}
    return _closed(definitions[name], definitions, (*path, name)) | beside


def is_strict(schema: Any) -> bool:
    """Whether a server can promise the schema: no object with free keys, no value without a type."""
    if isinstance(schema, list):
        return all(is_strict(part) for part in schema)
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        return False
    nested = [*schema.get("properties", {}).values(), *schema.get("anyOf", ()), schema.get("items", True)]
    typed = bool(schema.keys() & {"type", "anyOf", "enum", "const", "$ref"})
    return typed and all(is_strict(part) for part in nested)


def type_of(schema: dict[str, Any], name: str = "Record") -> Any:
    """The type that ``json_schema`` would turn into ``schema`` again.

    Raises:
        UsageError: the schema uses what findings cannot hold.

    Example:
        >>> type_of({"type": "array", "items": {"type": "integer"}})
        list[int]
    """
    if "enum" in schema or "const" in schema:
        return _choices(schema.get("enum", [schema.get("const")]), name)
    if "anyOf" in schema:
        parts = [type_of(part, name) for part in schema["anyOf"]]
        return typing.Union[tuple(parts)]  # noqa: UP007 (made at run time)
    match schema.get("type"):
        case None if not schema.keys() - {"description", "examples", NAME}:
            return Any
        case "object" if "properties" in schema:
            return _record_of(schema, name)
        case "object":
            inner = schema.get("additionalProperties", True)
            return dict[str, type_of(inner, name) if isinstance(inner, dict) else Any]  # type: ignore[misc]
        case "array" if schema.get("prefixItems"):
            return tuple[tuple(type_of(part, name) for part in schema["prefixItems"])]  # type: ignore[misc]
        case "array" if schema.get("uniqueItems"):
            return set[type_of(schema.get("items", {}), name)]  # type: ignore[misc]
        case "array":
            return list[type_of(schema.get("items", {}), name)]  # type: ignore[misc]
        case kind if isinstance(kind, str) and kind in _SCALARS:
            return _scalar_of(schema)
    raise UsageError(f"The schema of {name} uses {schema!r}, which findings cannot hold.")


def named_type(given: Any) -> Any:
    """The type that code in a sandbox means: a name, a list of choices, a JSON schema, or these with a description.

    Raises:
        UsageError: it is none of these.

    Example:
        >>> named_type("list[float]"), named_type(["yes", "no"])
        (list[float], ['yes', 'no'])
    """
    if isinstance(given, str):
        inner = given.removeprefix("list[").removesuffix("]") if given.startswith("list[") else given
        kind = {"str": str, "int": int, "float": float, "bool": bool}.get(inner)
        if kind is None:
            raise UsageError(
                f"A field's type is str, int, float, bool, a list of one, or a list of choices, not {given!r}."
            )
        return list[kind] if inner != given else kind  # type: ignore[valid-type]
    if isinstance(given, list) and given:
        return given
    if isinstance(given, dict) and "kind" in given:
        kind = named_type(given["kind"])
        return (_choices(kind, "kind") if isinstance(kind, list) else kind, str(given.get("description", "")))
    if isinstance(given, dict):
        return type_of(given)
    raise UsageError(f"A field's type is str, int, float, bool, a list of one, or a list of choices, not {given!r}.")


def _record_of(schema: dict[str, Any], name: str) -> type[BaseModel]:
    """The model of an object. What no type of this library says is kept as it was said."""
    said = {"type", "properties", "required", "additionalProperties", "description", "title", "default", "$defs", NAME}
    beside = {key: value for key, value in schema.items() if key not in said}
    parts = {part.get(NAME, alias): (alias, part) for alias, part in schema["properties"].items()}
    fields = {field: _field_of(part, field, alias) for field, (alias, part) in parts.items()}
    about = schema["description"] if isinstance(schema.get("description"), str) else None
    record = record_type(name, fields, about=about, beside=beside)
    made = json_schema(record)["properties"]
    wanted = {field: _closed(part, {}, ()) for field, (_, part) in parts.items()}
    unlike = {field for field, (alias, _) in parts.items() if made[alias] != wanted[field]}
    if not unlike:
        return record
    exact = {field: (Annotated[fields[field][0], WithJsonSchema(wanted[field])], fields[field][1]) for field in unlike}
    return record_type(name, fields | exact, about=about, beside=beside)


def _field_of(schema: dict[str, Any], name: str, alias: str) -> Any:
    parts = [part for part in schema.get("anyOf", ()) if part.get("type") != "null"]
    limited = schema | (parts[0] if len(parts) == 1 else {})  # of a field that may be null, its other type's
    limits = {CONSTRAINTS[key]: value for key, value in limited.items() if key in CONSTRAINTS}
    kind = type_of(schema, name.title().replace("_", ""))
    if without_none(kind)[0] is Decimal:
        limits.pop("pattern", None)
    if "prefixItems" in limited:
        limits = {}
    said = {key: schema[key] for key in ("description", "examples") if key in schema}
    return (kind, Field(alias=alias if alias != name else None, **said, **limits))


def _scalar_of(schema: dict[str, Any]) -> Any:
    import datetime as dt  # noqa: PLC0415

    if schema["type"] != "string":
        return _SCALARS[schema["type"]]
    if schema.get("pattern") == DECIMAL_PATTERN:
        return Decimal
    formats = {"date": dt.date, "date-time": dt.datetime, "time": dt.time, "duration": dt.timedelta}
    return formats.get(schema.get("format", ""), str)


_SCALARS: dict[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool, "null": type(None)}


def without_none(kind: Any) -> tuple[Any, bool]:
    """``kind`` without its None, and whether it had one."""
    if get_origin(kind) in {typing.Union, types.UnionType}:
        rest = tuple(part for part in get_args(kind) if part is not type(None))
        if len(rest) < len(get_args(kind)):
            return (rest[0] if len(rest) == 1 else typing.Union[rest]), True  # noqa: UP007
    return kind, False


def choices_of(kind: Any) -> tuple[Any, ...] | None:
    """The values that a ``Literal`` or an ``Enum`` may take; None for any other type."""
    kind, _ = without_none(kind)
    if get_origin(kind) is Literal:
        return get_args(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return tuple(member.value for member in kind)
    return None
