"""Types and JSON schemas, both ways: what a model is promised to answer, and what a plan's file says of it."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import enum
import functools
import types
import typing
import uuid
import warnings
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args, get_origin

import typing_extensions
from pydantic import (
    UUID1,
    UUID3,
    UUID4,
    UUID5,
    AliasChoices,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FutureDate,
    FutureDatetime,
    NaiveDatetime,
    PastDate,
    PastDatetime,
    RootModel,
    TypeAdapter,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from pandas_amr.errors import UsageError

if typing.TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic_core import core_schema

DECIMAL_PATTERN = r"^-?\d+(\.\d+)?$"
# RFC 3339, which `date-time` and `time` stand for, requires a zone; times without one are asked for by pattern.
DATETIME_PATTERN = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?$"
TIME_PATTERN = r"^\d{2}:\d{2}:\d{2}(\.\d{1,6})?$"
TEXT_FINDING = "finding"

# Marks of a schema that is kept or checked against; no model is sent them.
NAME = "amr_name"  # what a field is called that is asked for by an alias
OPTIONAL = (
    "amr_optional"  # the field may be left out, and is None then; or not there at all (ABSENT)
)
ABSENT = "absent"
NON_FINITE = "amr_non_finite"  # the type allows NaN and infinity
MARKS = frozenset({NAME, OPTIONAL, NON_FINITE})
RESERVED = frozenset({"unit"})
UNUSABLE = frozenset(
    name for name in dir(BaseModel) if name.startswith("model_")
)  # what pydantic keeps to itself

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
    name: str,
    fields: dict[str, Any],
    *,
    about: str | None = None,
    beside: dict[str, Any] | None = None,
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
            warnings.filterwarnings(
                "ignore", message=r".*shadows an attribute", category=UserWarning
            )
            said = {"json_schema_extra": beside} if beside else {}
            return create_model(
                name, __base__=Record, __doc__=about, __cls_kwargs__=said, **definitions
            )
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        wrong = next(
            (field for field, (kind, *_) in definitions.items() if not _is_usable(kind)), name
        )
        raise UsageError(f"{wrong!r}: {str(error).splitlines()[0]}") from None


def _is_usable(kind: Any) -> bool:
    try:
        TypeAdapter(kind)
    except (PydanticSchemaGenerationError, PydanticUserError):
        return False
    return True


def _definition(field: str, given: Any) -> Any:
    if isinstance(given, tuple) and len(given) == 2:
        kind, about = given
        return given if isinstance(about, FieldInfo) else (kind, Field(description=str(about)))
    if isinstance(given, list) and given:
        return (_choices(given, f"finding[{field!r}]"), ...)
    if _is_type(given):
        return (given, ...)
    raise UsageError(
        f"finding[{field!r}] takes a type, (type, 'description'), or a list of choices, not {given!r}."
    )


def _is_type(given: Any) -> bool:
    named = isinstance(given, (typing.NewType, *_ALIAS_TYPES))
    generic = (
        isinstance(given, types.GenericAlias | types.UnionType) or get_origin(given) is not None
    )
    return isinstance(given, type) or named or generic or given is Any


def _choices(given: list[Any], what: str) -> Any:
    """The type that takes nothing but these values.

    Raises:
        UsageError: one of them is no single value.
    """
    values = [one.value if isinstance(one, enum.Enum) else one for one in given]
    wrong = [one for one in values if not (one is None or isinstance(one, str | int | float))]
    if wrong:
        raise UsageError(f"{what}: a choice is a text, a number, a bool or None, not {wrong[0]!r}.")
    check_distinct(values, what)
    return Literal[tuple(values)]


def check_members(choices: collections.abc.Iterable[Any]) -> None:
    """Refuse a ``Literal`` of a member of an Enum that is neither text nor number: no JSON is equal to it.

    Raises:
        UsageError: there is one.
    """
    members = [
        one for one in choices if isinstance(one, enum.Enum) and not isinstance(one, str | int)
    ]
    if members:
        raise UsageError(
            f"A Literal of {members[0]} takes no answer in JSON: use {type(members[0]).__name__}."
        )


def check_distinct(choices: collections.abc.Sequence[Any], what: str) -> None:
    """Refuse choices that a category cannot tell apart.

    Raises:
        UsageError: two of different types are equal to pandas, as 1 and True are.
    """
    seen: dict[Any, Any] = {}
    for choice in choices:
        other = seen.setdefault(choice, choice)
        if type(other) is not type(choice):
            raise UsageError(
                f"{what}: the choices {other!r} and {choice!r} are equal to pandas; name one of them apart."
            )


def json_schema(kind: Any, *, by_alias: bool = True, marked: bool = False) -> dict[str, Any]:
    """The JSON schema of ``kind``, self-contained, with every property required and none beside them.

    That is the form that strict structured output takes: servers reject ``$ref``, and a default would let an answer
    be left out. Fields that may be missing are nullable, so that a model says so.

    With ``marked`` it keeps what only this library reads (``MARKS``).

    Raises:
        UsageError: the type has no JSON schema, or one that refers to itself.
    """
    try:
        schema = TypeAdapter(kind).json_schema(by_alias=by_alias, schema_generator=_Generator)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise UsageError(
            f"{kind!r} cannot be asked of a model: {str(error).splitlines()[0]}"
        ) from None
    closed: dict[str, Any] = _closed(schema, schema.pop("$defs", {}), ())
    unmarked: dict[str, Any] = without_marks(closed)
    return closed if marked else unmarked


def without_marks(schema: Any) -> Any:
    """``schema`` without what only this library reads; a property may be called like a mark."""
    if isinstance(schema, list):
        return [without_marks(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain: dict[str, Any] = {}
    for key, value in schema.items():
        if key in MARKS:
            continue
        if key == "properties":
            plain[key] = {name: without_marks(part) for name, part in value.items()}
        elif key in _VALUES:
            plain[key] = value
        else:
            plain[key] = without_marks(value)
    return plain


def closed_object(properties: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object with these properties, each of them required, and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def asked_as(name: str, field: FieldInfo) -> tuple[str, ...]:
    """What a field may be called in an answer: first what the schema calls it."""
    alias = field.validation_alias
    if alias is None or isinstance(alias, str):
        return (alias or name,)
    paths = (
        alias.convert_to_aliases()
        if isinstance(alias, AliasChoices)
        else [alias.convert_to_aliases()]
    )
    return tuple(str(path[0]) for path in sorted(paths, key=len))


def kept_schema(kind: Any) -> dict[str, Any]:
    """The JSON schema as a file keeps it: with its marks, and the name of a field that is asked for by an alias."""
    named: dict[str, Any] = _named(
        json_schema(kind, marked=True), json_schema(kind, by_alias=False, marked=True)
    )
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
            alias: _named(one, other) | ({NAME: name} if name != alias else {})
            for (alias, one), (name, other) in pairs
        }
    return {key: named[key] for key in asked}


_VALUES = frozenset(
    {"enum", "const", "examples", "required"}
)  # keywords whose values are no schemas


class _Generator(GenerateJsonSchema):
    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """A decimal is written as a string, so that no digit is lost on the way."""
        del schema
        return {"type": "string", "pattern": DECIMAL_PATTERN}

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        """A time with a zone if the type requires one, else without: one column never mixes the two."""
        if schema.get("tz_constraint") == "aware":
            return {"type": "string", "format": "date-time"}
        return {"type": "string", "pattern": DATETIME_PATTERN}

    def time_schema(self, schema: core_schema.TimeSchema) -> JsonSchemaValue:
        """A time of day without a zone: no column holds one with it."""
        del schema
        return {"type": "string", "pattern": TIME_PATTERN}

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        """A number; NaN and infinity only if the field says so itself."""
        allowed = {NON_FINITE: True} if schema.get("allow_inf_nan") else {}
        return super().float_schema(schema) | allowed

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        """Choices. A member of an Enum that is neither text nor number is never met by what JSON holds."""
        check_members(schema["expected"])
        return super().literal_schema(schema)

    def typed_dict_field_schema(self, schema: core_schema.TypedDictField) -> JsonSchemaValue:
        """A key that a TypedDict need not have: null says that it is not there."""
        inner = super().typed_dict_field_schema(schema)
        if schema.get("required", True):
            return inner
        return {"anyOf": [inner, {"type": "null"}], OPTIONAL: ABSENT}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """A field that may be left out is marked: its schema alone would require it."""
        inner = super().default_schema(schema)
        return {OPTIONAL: True} | inner if schema.get("default", 0) is None else inner


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
        elif key in _VALUES:
            closed[key] = value
        else:
            closed[key] = _closed(value, definitions, path)
    if "properties" in closed:
        ends = {
            "required": list(closed["properties"]),
            "type": "object",
            "additionalProperties": False,
        }
        return {
            key: value for key, value in closed.items() if key not in ends
        } | ends  # in one order, whatever is said
    return closed


def recursive_words(name: str) -> str:
    """Why a type that holds itself cannot be asked for."""
    return (
        f"Recursive type {name!r} is not supported as finding= or output=: give it a fixed depth."
    )


def _inlined(schema: dict[str, Any], definitions: dict[str, Any], path: tuple[str, ...]) -> Any:
    """What a reference refers to, and what is said beside it."""
    name = schema["$ref"].removeprefix("#/$defs/")
    if name in path:
        raise UsageError(recursive_words(name))
    if name not in definitions:
        raise UsageError(
            f"The schema refers to {schema['$ref']!r}, which is not there; write it out in place."
        )
    beside = {key: value for key, value in schema.items() if key not in {"$ref", "default"}}
    return _closed(definitions[name], definitions, (*path, name)) | beside


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
        case None if not schema.keys() - {"description", "examples", *MARKS}:
            return Any
        case "object" if "properties" in schema:
            return _record_of(schema, name)
        case "object":
            inner = schema.get("additionalProperties", True)
            return dict[str, _item_of(inner, name) if isinstance(inner, dict) else Any]  # type: ignore[misc]
        case "array" if schema.get("prefixItems"):
            return tuple[tuple(_item_of(part, name) for part in schema["prefixItems"])]  # type: ignore[misc]
        case "array" if schema.get("uniqueItems"):
            return set[_item_of(schema.get("items", {}), name)]  # type: ignore[misc]
        case "array":
            return list[_item_of(schema.get("items", {}), name)]  # type: ignore[misc]
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
        inner = (
            given.removeprefix("list[").removesuffix("]") if given.startswith("list[") else given
        )
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
        return (
            _choices(kind, "kind") if isinstance(kind, list) else kind,
            str(given.get("description", "")),
        )
    if isinstance(given, dict):
        return type_of(given)
    raise UsageError(
        f"A field's type is str, int, float, bool, a list of one, or a list of choices, not {given!r}."
    )


def _record_of(schema: dict[str, Any], name: str) -> type[BaseModel]:
    """The model of an object. What no type of this library says is kept as it was said."""
    said = {
        "type",
        "properties",
        "required",
        "additionalProperties",
        "description",
        "title",
        "default",
        "$defs",
        *MARKS,
    }
    beside = {key: value for key, value in schema.items() if key not in said}
    parts = {part.get(NAME, alias): (alias, part) for alias, part in schema["properties"].items()}
    fields = {field: _field_of(part, field, alias) for field, (alias, part) in parts.items()}
    about = schema["description"] if isinstance(schema.get("description"), str) else None
    record = record_type(name, fields, about=about, beside=beside)
    made = json_schema(record, marked=True)["properties"]
    wanted = {field: _closed(part, {}, ()) for field, (_, part) in parts.items()}
    unlike = {field for field, (alias, _) in parts.items() if made[alias] != wanted[field]}
    if not unlike:
        return record
    exact = {
        field: (Annotated[fields[field][0], WithJsonSchema(wanted[field])], fields[field][1])
        for field in unlike
    }
    return record_type(name, fields | exact, about=about, beside=beside)


def bounded_type_of(schema: dict[str, Any], name: str = "Record") -> Any:
    """The type of a value that is no field, with its bounds; but of a list, which is told by its type alone."""
    kind, limits = type_of(schema, name), _limits_of(schema)
    return kind if get_origin(kind) is list else _bounded(kind, limits)


def _item_of(schema: dict[str, Any], name: str) -> Any:
    """The type of the items of a list or the values of a dict, with their bounds."""
    return _bounded(type_of(schema, name), _limits_of(schema))


def _bounded(kind: Any, limits: dict[str, Any]) -> Any:
    return Annotated[kind, Field(**limits)] if limits else kind


def _field_of(schema: dict[str, Any], name: str, alias: str) -> Any:
    """A field as ``record_type`` takes it."""
    kind = type_of(schema, name.title().replace("_", ""))
    said: dict[str, Any] = {
        key: schema[key] for key in ("description", "examples") if key in schema
    }
    if schema.get(OPTIONAL):
        said["default"] = None
    return (kind, Field(alias=alias if alias != name else None, **said, **_limits_of(schema)))


def _limits_of(schema: dict[str, Any]) -> dict[str, Any]:
    """The bounds that a schema says, as pydantic's ``Field`` takes them."""
    parts = [part for part in schema.get("anyOf", ()) if part.get("type") != "null"]
    limited = schema | (
        parts[0] if len(parts) == 1 else {}
    )  # of a field that may be null, its other type's
    if "prefixItems" in limited:
        return {}
    limits = {CONSTRAINTS[key]: value for key, value in limited.items() if key in CONSTRAINTS}
    if limits.get("pattern") in _BY_PATTERN:
        del limits["pattern"]  # it is the type's own
    if limited.get(NON_FINITE):
        limits["allow_inf_nan"] = True
    return limits


def _scalar_of(schema: dict[str, Any]) -> Any:
    if schema["type"] != "string":
        return _SCALARS[schema["type"]]
    by_pattern = _BY_PATTERN.get(schema.get("pattern", ""))
    return by_pattern or _BY_FORMAT.get(schema.get("format", ""), str)


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
_SCALARS: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "null": type(None),
}


# What a type stands for


_ALIAS_TYPES = (
    typing_extensions.TypeAliasType,
    getattr(typing, "TypeAliasType", typing_extensions.TypeAliasType),
)
_KEY_WRAPPERS: set[Any] = {
    typing_extensions.Required,
    typing_extensions.NotRequired,
    typing_extensions.ReadOnly,
}  # of TypedDict
_ALIASES: dict[Any, Any] = {
    NaiveDatetime: dt.datetime,
    PastDatetime: dt.datetime,
    FutureDatetime: dt.datetime,
    PastDate: dt.date,
    FutureDate: dt.date,
    collections.abc.Sequence: list,
    collections.abc.Mapping: dict,
    collections.abc.Set: set,
}


Found = typing.TypeVar("Found")


def remember_types(function: Callable[[Any], Found]) -> Callable[[Any], Found]:
    """Remember what a function says of a type: types are few, and asked about once per value."""
    remembered = functools.lru_cache(maxsize=1024)(function)

    @functools.wraps(function)
    def look_up(kind: Any) -> Found:
        try:
            hash(kind)
        except TypeError:  # an annotation that holds a list, say
            return function(kind)
        return remembered(kind)

    return look_up


@remember_types
def resolved(kind: Any) -> Any:
    """What a type stands for at every depth: no ``Annotated``, ``NewType`` or alias; one ``Literal`` per union of them.

    Example:
        >>> resolved(typing.NewType("UserId", int)), resolved(list[Annotated[int, Field(gt=0)]])
        (<class 'int'>, list[int])
        >>> resolved(Literal["a"] | Literal[1] | None)
        typing.Optional[typing.Literal['a', 1]]
    """
    kind = without_alias(kind)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is not None and not inner:  # typing.List, typing.Hashable: of nothing that is said
        return _ALIASES.get(origin, origin)
    if origin is Annotated or origin in _KEY_WRAPPERS:
        return resolved(inner[0])
    if isinstance(kind, type) and origin is None and issubclass(kind, RootModel):
        return resolved(kind.model_fields["root"].annotation)
    if origin is None or origin is Literal:
        return _ALIASES.get(kind, kind) if isinstance(kind, collections.abc.Hashable) else kind
    parts = tuple(part if part is ... else resolved(part) for part in inner)
    if origin in {typing.Union, types.UnionType}:
        return _union_of(parts)
    return _ALIASES.get(origin, origin)[parts]


def _union_of(parts: tuple[Any, ...]) -> Any:
    """The union of resolved types; of several ``Literal`` and nothing else, one."""
    rest = [part for part in parts if part is not type(None)]
    if len(rest) > 1 and all(get_origin(part) is Literal for part in rest):
        choices = tuple(choice for part in rest for choice in get_args(part))
        parts = (Literal[choices], *([type(None)] if len(rest) < len(parts) else []))
    return typing.Union[parts]  # noqa: UP007 (made at run time)


@remember_types
def without_none(kind: Any) -> tuple[Any, bool]:
    """``kind``, resolved, without its None; and whether it had one."""
    kind = resolved(kind)
    if get_origin(kind) in {typing.Union, types.UnionType}:
        rest = tuple(part for part in get_args(kind) if part is not type(None))
        if len(rest) < len(get_args(kind)):
            inner, _ = without_none(typing.Union[rest])  # noqa: UP007
            return inner, True
    if get_origin(kind) is Literal and None in get_args(kind) and get_args(kind) != (None,):
        return Literal[tuple(choice for choice in get_args(kind) if choice is not None)], True
    return kind, False


@remember_types
def choices_of(kind: Any) -> tuple[Any, ...] | None:
    """The plain values that a ``Literal`` or an ``Enum`` may take, None aside; None for any other type."""
    kind, _ = without_none(kind)
    if get_origin(kind) is Literal:
        return tuple(
            choice.value if isinstance(choice, enum.Enum) else choice for choice in get_args(kind)
        )
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return tuple(member.value for member in kind if member.value is not None)
    return None


def object_fields(kind: Any) -> dict[str, Any] | None:
    """The fields of a model, a dataclass or a TypedDict, each with its resolved type; None for any other type."""
    if is_model(kind):
        return {name: resolved(field.annotation) for name, field in kind.model_fields.items()}
    if is_plain_record(kind):
        hints = typing_extensions.get_type_hints(kind)
        return {name: resolved(hint) for name, hint in hints.items()}
    return None


def is_model(kind: Any) -> bool:
    """Whether a type is a pydantic model with named fields."""
    return (
        isinstance(kind, type) and issubclass(kind, BaseModel) and not issubclass(kind, RootModel)
    )


def without_alias(kind: Any) -> Any:
    """The type that a NewType or an alias names, with all that it says."""
    while True:
        origin = get_origin(kind)
        if isinstance(kind, typing.NewType):
            kind = kind.__supertype__
        elif isinstance(kind, _ALIAS_TYPES):
            kind = kind.__value__
        elif isinstance(origin, _ALIAS_TYPES):
            kind = origin.__value__[get_args(kind)]
        else:
            return kind


def is_plain_record(kind: Any) -> bool:
    """Whether a type is a dataclass or a TypedDict."""
    return isinstance(kind, type) and (
        dataclasses.is_dataclass(kind) or typing_extensions.is_typeddict(kind)
    )


def model_of_fields(kind: Any) -> type[BaseModel]:
    """Make the model that a dataclass or a TypedDict stands for. Its own checks run on every record.

    Raises:
        UsageError: a name or a type cannot be used.
    """
    try:
        adapter = TypeAdapter(kind)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise UsageError(
            f"pydantic cannot check {kind.__name__}: {str(error).splitlines()[0]}"
        ) from None
    optional = _optional_keys(kind)

    def check_whole(record: BaseModel) -> BaseModel:
        """Have the type itself look at the record: its ``__post_init__``, its validators."""
        given = {name: getattr(record, name) for name in type(record).model_fields}
        adapter.validate_python(
            {name: one for name, one in given.items() if one is not None or name not in optional}
        )
        return record

    fields = record_type(kind.__name__, _field_definitions(kind, optional))
    if not _checks_itself(kind):
        return fields
    validators: dict[str, Any] = {"check_whole": model_validator(mode="after")(check_whole)}
    return create_model(kind.__name__, __base__=fields, __validators__=validators)


def _checks_itself(kind: Any) -> bool:
    """Whether a type has checks beside those of its fields."""
    return hasattr(kind, "__post_init__") or hasattr(kind, "__pydantic_decorators__")


def _optional_keys(kind: Any) -> frozenset[str]:
    """The keys of a TypedDict that may be left out. Where annotations are texts, the class itself does not know all."""
    optional: set[str] = set(getattr(kind, "__optional_keys__", ()))
    for name, hint in typing_extensions.get_type_hints(kind, include_extras=True).items():
        wrapper: Any = get_origin(hint)
        if wrapper is typing_extensions.NotRequired:
            optional.add(name)
        elif wrapper is typing_extensions.Required:
            optional.discard(name)
    return frozenset(optional)


def _field_definitions(kind: Any, optional: frozenset[str]) -> dict[str, Any]:
    """Each field of a dataclass or a TypedDict as ``record_type`` takes it: its type and its default."""
    defaults = (
        {one.name: one for one in dataclasses.fields(kind)}
        if dataclasses.is_dataclass(kind)
        else {}
    )
    definitions: dict[str, Any] = {}
    for name, hint in typing_extensions.get_type_hints(kind, include_extras=True).items():
        own = hint
        while get_origin(own) in _KEY_WRAPPERS:
            own = get_args(own)[0]
        if name in optional:
            definitions[name] = (own | None, Field(default=None))
        else:
            definitions[name] = (own, _default_of(defaults.get(name)))
    return definitions


def _default_of(field: Any) -> FieldInfo:
    """The default of a dataclass' field, as pydantic has it; a field without one is required."""
    if field is None:
        return FieldInfo()
    if isinstance(field.default, FieldInfo):
        return field.default
    if field.default is not dataclasses.MISSING:
        return FieldInfo(default=field.default)
    if field.default_factory is not dataclasses.MISSING:
        return FieldInfo(default_factory=field.default_factory)
    return FieldInfo()
