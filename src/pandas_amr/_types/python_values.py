"""Make Python values of checked ones: from Arrow to the objects of the user's own types."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
from typing import Annotated, Any, Literal, get_args, get_origin

import typing_extensions
from pydantic import BaseModel, RootModel, TypeAdapter

from pandas_amr._types.arrow import LIST_TYPES, TEXT_LIKE, is_json_text, is_mixed
from pandas_amr._types.arrow_values import format_decimal, json_key
from pandas_amr._types.record import optional_keys
from pandas_amr._types.resolve import (
    KEY_WRAPPERS,
    UNIONS,
    choices_of,
    is_model,
    is_plain_record,
    plain_choice,
    resolve_type,
    without_alias,
    without_none,
)


def python_value(value: Any, kind: Any) -> Any:
    """Convert a value from Arrow to an object of its type: undo ``plain``.

    Nothing is validated, since the value was: a validator that changes what it gets would change it
    twice.

    Example:
        >>> class Visit(BaseModel):
        ...     day: dt.date
        ...     costs: dict[str, decimal.Decimal]
        >>> day, fare = dt.date(2026, 1, 31), decimal.Decimal("1.500000000")
        >>> python_value({"day": day, "costs": [("fare", fare)]}, Visit)
        Visit(day=datetime.date(2026, 1, 31), costs={'fare': Decimal('1.5')})
    """
    kind = _without_wrappers(kind)
    if isinstance(kind, type) and issubclass(kind, RootModel):
        root = kind.model_fields["root"].annotation
        return kind.model_construct(python_value(value, root))
    if value is None:
        return _empty_member(kind)
    if get_origin(kind) in UNIONS:
        return _value_of_union(value, kind)
    if is_json_text(kind):
        return json.loads(value)
    choices = choices_of(kind)
    if choices is not None:
        return find_choice(json.loads(value) if is_mixed(choices) else value, kind)
    if is_model(kind) or is_plain_record(kind):
        return make_record(value, kind)
    origin = get_origin(resolve_type(kind))  # of Sequence[int] it is list
    if origin in LIST_TYPES:
        return origin(_items(value, get_args(kind)))
    if origin is dict:
        return _dict_of(value, *get_args(kind))
    return _scalar(value, kind)


def _without_wrappers(kind: object) -> Any:
    """Return what an alias, ``Annotated`` or ``NotRequired`` stands for; its parts stay as is."""
    kind = without_alias(kind)
    while get_origin(kind) is Annotated or get_origin(kind) in KEY_WRAPPERS:
        kind = without_alias(get_args(kind)[0])
    return kind


def _empty_member(kind: object) -> Any:
    """Return the member whose value is None if the type is an Enum that has one; else None."""
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        for member in kind:
            if member.value is None:
                return member
    return None


def _value_of_union(value: object, kind: object) -> Any:
    """Convert a value, not None, of a union: of one type and None, of choices, of numbers."""
    inner, _ = without_none(kind)
    if choices_of(inner) is not None:
        return python_value(value, inner)
    if get_origin(inner) in UNIONS:  # int | float
        return value
    others = [part for part in get_args(kind) if part is not type(None)]
    return python_value(value, others[0])


def find_choice(value: object, kind: object) -> Any:
    """Return the choice of a ``Literal``, or the member of an Enum, that has a plain value."""
    inner, _ = without_none(kind)
    options = get_args(inner) if get_origin(inner) is Literal else tuple(inner)
    for option in options:
        if plain_choice(option) == value:
            return option
    return value


def _items(values: list[Any], kinds: tuple[Any, ...]) -> list[Any]:
    """Convert the items of a list, a set or a tuple; those of a tuple have a type each."""
    if not kinds:  # as written; it stands for list[Any]
        kinds = (Any,)
    if len(kinds) == 1 or kinds[1] is ...:
        return [python_value(value, kinds[0]) for value in values]
    return [python_value(value, kind) for value, kind in zip(values, kinds, strict=True)]


def _dict_of(pairs: list[tuple[str, Any]], key_kind: object, item_kind: object) -> dict[Any, Any]:
    """Convert a dict, which Arrow holds as pairs."""
    return {_dict_key(key, key_kind): python_value(item, item_kind) for key, item in pairs}


def _dict_key(text: str, kind: Any) -> Any:
    """Convert a dict's key, which Arrow holds as the text that JSON has."""
    if without_none(kind)[0] in (str, Any):
        return text
    if choices_of(kind) is not None:
        inner, _ = without_none(kind)
        options = get_args(inner) if get_origin(inner) is Literal else tuple(inner)
        return next((option for option in options if json_key(option) == text), text)
    return TypeAdapter(kind).validate_strings(text)


def _scalar(value: Any, kind: Any) -> Any:
    """Convert a single value to its type: a path from its text, a subclass from its base."""
    kind = resolve_type(kind)
    if isinstance(value, decimal.Decimal):  # a column pads all of its values to the same places
        return decimal.Decimal(format_decimal(value))
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return value.astimezone(dt.UTC)
    if not isinstance(kind, type) or isinstance(value, kind):
        return value
    if issubclass(kind, (*TEXT_LIKE, str, int, float)):
        return kind(value)
    return value


def make_record(values: dict[str, Any], kind: object) -> Any:
    """Make an object of a model, a dataclass or a TypedDict from the fields that Arrow holds.

    Args:
        values: by the name of the field.
        kind: the type of the object.
    """
    return build_record(
        {name: python_value(values[name], part) for name, part in annotations_of(kind).items()},
        kind,
    )


def annotations_of(kind: Any) -> dict[str, Any]:
    """Return the fields of a model, a dataclass or a TypedDict with their types as written."""
    if is_model(kind):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return typing_extensions.get_type_hints(kind, include_extras=True)


def build_record(values: dict[str, Any], kind: Any) -> Any:
    """Put checked values into a new object of a model, a dataclass or a TypedDict.

    What the type does after it was made runs, since other attributes may come from it; the values
    of the fields are put back then, so that they are those that were found.
    """
    if is_model(kind):
        model = kind.model_construct(set(values), **_by_alias(values, kind))
        vars(model).update(values)
        return model
    if typing_extensions.is_typeddict(kind):
        absent_if_none = optional_keys(kind)
        return {
            name: value
            for name, value in values.items()
            if value is not None or name not in absent_if_none
        }
    record = object.__new__(kind)
    _set_fields(record, values)
    finish = getattr(kind, "__post_init__", None)
    if finish is not None:
        finish(record)
        _set_fields(record, values)
    return record


def _set_fields(record: object, values: dict[str, Any]) -> None:
    for name, value in values.items():
        object.__setattr__(record, name, value)  # whether it is frozen or not


def _by_alias(values: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Return the values by the names under which ``model_construct`` takes them."""
    by_alias: dict[str, Any] = {}
    for name, value in values.items():
        by_alias[model.model_fields[name].alias or name] = value
    return by_alias
