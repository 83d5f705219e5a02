"""Check that values have their types: pydantic lets a user's validators return anything."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import math
import numbers
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args, get_origin

import numpy as np
from pydantic import AwareDatetime, BaseModel, RootModel, TypeAdapter

from pandas_amr._types.arrow import ARROW_SCALARS, LIST_TYPES, field_types, is_mixed
from pandas_amr._types.arrow_values import json_fields
from pandas_amr._types.resolve import (
    cache_by_type,
    choices_of,
    object_fields,
    plain_choice,
    without_none,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas_amr._types.schema import Schema

MERGED_KEY = "names a key twice, in two forms"

# Types that Arrow takes in place of others.
_ACCEPTED: dict[type, Any] = {
    int: numbers.Integral,
    float: numbers.Real,
    decimal.Decimal: (decimal.Decimal, int),
}


# Types whose values may have a zone, which their columns do not hold.
_WITHOUT_ZONE = frozenset({dt.datetime, dt.time})
_EXACT = ARROW_SCALARS - _WITHOUT_ZONE

# Of pydantic's core schemas: those whose values are single ones of JSON.
_FLAT_CORES = frozenset({"str", "int", "float", "bool", "literal", "none"})

# Types whose values need no check in a field of the type, with their names in JSON schemas.
_UNCHECKED = {str: "string", int: "integer", float: "number", bool: "boolean"}


def is_flat(model: type[BaseModel]) -> bool:
    """Tell whether each field of a model is a single value of JSON, without checks of the user's.

    What pydantic then makes of a record has the types that it should have.

    Example:
        >>> class Visit(BaseModel):
        ...     city: str
        ...     days: int | None
        >>> class Trip(BaseModel):
        ...     cities: list[str]
        >>> is_flat(Visit), is_flat(Trip)
        (True, False)
    """
    core: Any = TypeAdapter(model).core_schema
    if core["type"] != "model" or core["schema"]["type"] != "model-fields":
        return False
    if core.get("custom_init") or core.get("post_init"):
        return False
    for field in core["schema"]["fields"].values():
        inner = field["schema"]
        if inner["type"] == "nullable":
            inner = inner["schema"]
        if inner["type"] not in _FLAT_CORES:
            return False
    return True


def list_unchecked_types(
    model: type[BaseModel], properties: Mapping[str, Schema]
) -> dict[str, frozenset[type]] | None:
    """List for each field the types whose values, unless they are not finite, need no check in it.

    Args:
        model: a type of records.
        properties: the JSON schema of each field, with marks (``stored_schema``).

    Returns:
        None if a field is checked for more than its type, or has another name in JSON.

    Example:
        >>> class Visit(BaseModel):
        ...     days: int
        >>> list_unchecked_types(Visit, {"days": {"type": "integer"}})
        {'days': frozenset({<class 'int'>})}
        >>> list_unchecked_types(Visit, {"days": {"enum": [1, 2]}})
    """
    core: Any = TypeAdapter(model).core_schema
    if not is_flat(model) or core.get("config", {}).keys() - {"title"}:
        return None
    types: dict[str, frozenset[type]] = {}
    for name, field in core["schema"]["fields"].items():
        unchecked = _unchecked_types(field["schema"], properties.get(name, {}))
        if unchecked is None:
            return None
        types[name] = unchecked
    return types


def _unchecked_types(core: Any, schema: Schema) -> frozenset[type] | None:
    """Return the types whose values need no check, by pydantic's core schema and JSON's."""
    is_nullable = core["type"] == "nullable"
    own = core["schema"] if is_nullable else core
    checks = {word: part for word, part in schema.items() if word not in {"description", "title"}}
    for kind, name in _UNCHECKED.items():
        only: Schema = {"type": name}
        if is_nullable:
            only = {"anyOf": [only, {"type": "null"}]}
        if own == {"type": kind.__name__} and checks == only:
            return frozenset({kind, type(None)}) if is_nullable else frozenset({kind})
    return None


def are_of_types(values: Sequence[Any], types: frozenset[type]) -> bool:
    """Tell whether each value has one of some types, no subclass of it, and each float is finite.

    Example:
        >>> number = frozenset({float})
        >>> are_of_types([0.5], number), are_of_types([1], number), are_of_types([math.inf], number)
        (True, False, False)
    """
    found = set(map(type, values))
    if not found <= types:
        return False
    return float not in found or all(value is None or math.isfinite(value) for value in values)


class _FieldType(NamedTuple):
    """A field and its type.

    Attributes:
        name: the name of the field.
        kind: its type.
        exact: the types whose values are all of the field's type, but for their subclasses' values.
        choices: the members of an Enum, or the values of a ``Literal`` if they are of one type.
    """

    name: str
    kind: Any
    exact: frozenset[type]
    choices: tuple[Any, ...]


def find_mistyped_field(record: BaseModel) -> str | None:
    """Return the name of a field whose value does not have its type; None if all have."""
    for name, kind, exact, choices in _list_fields(type(record)):
        value = getattr(record, name)
        if type(value) in exact or value in choices:  # nearly always
            continue
        if is_mistyped(value, kind):
            return name
    return None


@lru_cache(maxsize=256)
def _list_fields(model: type[BaseModel]) -> tuple[_FieldType, ...]:
    """Return the model's fields and their types; a field with the default None may be None."""
    fields: list[_FieldType] = []
    for name, kind in field_types(model).items():
        is_optional = name in model.model_fields and model.model_fields[name].default is None
        fields.append(_describe_field(name, kind | None if is_optional else kind))
    return tuple(fields)


def _describe_field(name: str, kind: Any) -> _FieldType:
    own, takes_none = without_none(kind)
    exact: set[type] = set()
    if takes_none:
        exact.add(type(None))
    if isinstance(own, type) and own in _EXACT:
        exact.add(own)
    choices = choices_of(own) or ()
    if isinstance(own, enum.EnumMeta):
        choices = tuple(own)
    elif is_mixed(choices):
        choices = ()
    return _FieldType(name, kind, frozenset(exact), choices)


def is_mistyped(value: object, kind: object) -> bool:
    """Tell whether a value does not have its type, at any depth.

    Example:
        >>> is_mistyped([1, None], list[int]), is_mistyped("B", Literal["a", "b"])
        (True, True)
        >>> is_mistyped(None, int | None)
        False
    """
    if type(value) is kind and kind in _EXACT:  # the common case first
        return False
    if isinstance(value, RootModel):
        return is_mistyped(value.root, kind)
    own, optional = without_none(kind)
    if value is None:
        return not (optional or _takes_none(own))
    if isinstance(own, type) and own in ARROW_SCALARS:
        return not _is_scalar(value, own)
    if own is AwareDatetime:
        return not isinstance(value, dt.datetime) or value.tzinfo is None
    choices = choices_of(own)
    if choices is not None:
        return not _is_choice(plain_choice(value), choices)
    return _has_stray_part(value, own)


def _has_stray_part(value: Any, kind: Any) -> bool:
    """Tell whether a part of a record, a list or a dict does not have its type."""
    if isinstance(value, BaseModel):
        return find_mistyped_field(value) is not None
    inner = get_args(kind)
    if get_origin(kind) is tuple and ... not in inner:
        return any(map(is_mistyped, value, inner))
    if get_origin(kind) in LIST_TYPES:
        return any(is_mistyped(item, inner[0]) for item in value)
    if get_origin(kind) is dict:
        return any(is_mistyped(item, inner[1]) for item in value.values())
    return False


def find_merged_key(given: Mapping[str, Any], model: type[BaseModel]) -> str | None:
    """Return the name of a field of which two keys are one to pydantic; None if there is none.

    It would keep the value of the last one.

    Args:
        given: a record in JSON, which the model has accepted.
        model: its type.

    Example:
        >>> class Counts(BaseModel):
        ...     by_year: dict[int, int]
        >>> find_merged_key({"by_year": {"7": 1, "07": 2}}, Counts)
        'by_year'
    """
    for name, alias, kind in _list_fields_with_typed_keys(model):
        if has_merged_key(given.get(alias, given.get(name)), kind):
            return name
    return None


@lru_cache(maxsize=256)
def _list_fields_with_typed_keys(model: type[BaseModel]) -> tuple[tuple[str, str, Any], ...]:
    return tuple(field for field in json_fields(model) if _has_typed_keys(field[2]))


def has_merged_key(said: Any, kind: Any) -> bool:
    """Tell whether two keys of a dict in JSON are one, at any depth of its type."""
    if not _has_typed_keys(kind) or not isinstance(said, dict | list):
        return False
    kind, _ = without_none(kind)
    if isinstance(said, list):
        return any(has_merged_key(item, get_args(kind)[0]) for item in said)
    if get_origin(kind) is not dict:
        return find_merged_key(said, kind) is not None
    key, item = get_args(kind)
    keys = {TypeAdapter(key).validate_python(one) for one in said}
    return len(keys) < len(said) or any(has_merged_key(part, item) for part in said.values())


@cache_by_type
def _has_typed_keys(kind: Any) -> bool:
    """Tell whether a type holds a dict whose keys are no texts, so that two texts may be one."""
    kind, _ = without_none(kind)
    if choices_of(kind) is not None:
        return False
    if get_origin(kind) is dict and get_args(kind)[0] is not str:
        return True
    fields = object_fields(kind)
    parts = get_args(kind) if fields is None else fields.values()
    return any(map(_has_typed_keys, parts))


def _is_scalar(value: object, kind: type) -> bool:
    """Tell whether Arrow takes a value as one of a type; numpy's numbers are numbers."""
    if kind is bool or isinstance(value, bool | np.bool_):
        return kind is bool and isinstance(value, bool | np.bool_)
    if kind is dt.date:
        return isinstance(value, dt.date) and not isinstance(value, dt.datetime)
    if kind in _WITHOUT_ZONE:
        return isinstance(value, kind) and getattr(value, "tzinfo", None) is None
    return isinstance(value, _ACCEPTED.get(kind, kind))


def _is_choice(value: object, choices: Sequence[Any]) -> bool:
    if value is None:
        return True  # a member of an Enum
    if is_mixed(choices):
        return json.dumps(value, default=str) in {json.dumps(choice) for choice in choices}
    return value in choices


def _takes_none(kind: object) -> bool:
    """Tell whether None is a value of a type without ``| None``, as far as that is known."""
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return any(member.value is None for member in kind)
    if isinstance(kind, type):
        return kind in {Any, object, type(None)}
    return get_origin(kind) not in {*LIST_TYPES, dict, Literal} or None in get_args(kind)
