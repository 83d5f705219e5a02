"""Types to typed Arrow columns: what a finding's field becomes in a frame."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import ipaddress
import json
import numbers
import pathlib
import types
import typing
import uuid
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import numpy as np
import pyarrow as pa
from pydantic import AnyUrl, AwareDatetime, BaseModel, RootModel
from pydantic_core import to_jsonable_python

from pandas_amr._types.schema import (
    asked_as,
    check_distinct,
    check_members,
    choices_of,
    is_model,
    json_schema,
    object_fields,
    recursive_words,
    without_none,
)
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Sort = Literal["number", "bool", "text", "choices", "date", "nested"]

DECIMAL_DIGITS = 38
DECIMAL_PLACES = 9

_SCALARS: tuple[
    tuple[type, pa.DataType], ...
] = (  # in the order in which they are tried: a bool is an int
    (bool, pa.bool_()),
    (int, pa.int64()),
    (float, pa.float64()),
    (str, pa.string()),
    (dt.datetime, pa.timestamp("us")),
    (dt.date, pa.date32()),
    (dt.time, pa.time64("us")),
    (dt.timedelta, pa.duration("us")),
    (decimal.Decimal, pa.decimal128(DECIMAL_DIGITS, DECIMAL_PLACES)),
)
_AS_IT_IS = frozenset(kind for kind, _ in _SCALARS)
_TAKEN_AS: dict[type, Any] = {
    int: numbers.Integral,
    float: numbers.Real,
    decimal.Decimal: (decimal.Decimal, int),
}
TEXT_LIKE = (
    uuid.UUID,
    AnyUrl,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    pathlib.PurePath,
)  # held as their texts
_LISTS = frozenset({list, set, tuple, frozenset})
_AS_THEY_ARE = (str, int, float, bool)  # types whose values JSON has as they are
_TYPES = "bool, int, float, str, dates, Decimal, UUID, Literal, Enum, lists, dicts, models, or one of these | None"


def arrow_type(kind: Any) -> pa.DataType:
    """The Arrow type that holds values of ``kind``; what has no fixed shape is held as JSON text.

    Raises:
        UsageError: no column can hold it.

    Example:
        >>> arrow_type(list[int] | None)
        ListType(list<item: int64>)
    """
    kind, _ = without_none(kind)
    choices = choices_of(kind)
    if choices is not None:
        check_members(get_args(kind))
        return _choice_type(choices)
    if is_json_text(kind):
        return pa.string()
    fields = object_fields(kind)
    if fields is not None:
        return pa.struct([pa.field(name, arrow_type(part)) for name, part in fields.items()])
    origin, inner = get_origin(kind), get_args(kind)
    if origin in _LISTS and inner:
        return pa.list_(_item_type(kind))
    if origin is dict:
        return pa.map_(pa.string(), arrow_type(inner[1]))
    if is_number_union(kind):
        return pa.float64()
    held = _scalar_type(kind) if origin is None else None
    if held is None:
        raise UsageError(f"No column can hold {kind!r}; use {_TYPES}.")
    return held


def _scalar_type(kind: Any) -> pa.DataType | None:
    """The Arrow type of single values; None if there is none."""
    if kind is AwareDatetime:
        return pa.timestamp("us", tz="UTC")
    if not isinstance(kind, type):
        return None
    if issubclass(kind, TEXT_LIKE) or kind is AnyUrl:
        return pa.string()
    return next((held for base, held in _SCALARS if issubclass(kind, base)), None)


def column_type(kind: Any) -> pa.DataType:
    """The Arrow type of a column of values of ``kind``.

    Raises:
        UsageError: no column can hold it, or not as it is said: inside of a value nothing tells a choice from the JSON
            that holds it; or the type holds itself.
    """
    _check_inner(kind, ())
    return arrow_type(kind)


def _check_inner(kind: Any, around: tuple[Any, ...]) -> None:
    """Refuse what stands inside of other types and cannot; ``around`` are those that it stands in."""
    kind, _ = without_none(kind)
    choices = choices_of(kind)
    if choices is not None:
        if around and is_mixed(choices):
            raise UsageError(
                f"No list, dict or nested field can hold {kind!r}, choices of several types: make them texts."
            )
        return
    fields = object_fields(kind)
    if fields is not None and kind in around:
        raise UsageError(recursive_words(kind.__name__))
    for part in get_args(kind) if fields is None else fields.values():
        if part is not ...:
            _check_inner(part, (*around, kind))


def _item_type(kind: Any) -> pa.DataType:
    """The Arrow type of a list's items: those of a tuple must all be of one."""
    parts = [part for part in get_args(kind) if part is not ...]
    held = [arrow_type(part) for part in parts]
    if any(one != held[0] for one in held):
        raise UsageError(
            f"No column can hold {kind!r}, whose items are of several types; use a model with named fields."
        )
    return held[0]


def is_number_union(kind: Any) -> bool:
    """Whether a type is ``int | float``, which a column of floats holds."""
    return get_origin(kind) in {typing.Union, types.UnionType} and set(get_args(kind)) == {
        int,
        float,
    }


def is_json_text(kind: Any) -> bool:
    """Whether values of ``kind`` have no fixed shape, so that a column holds their JSON."""
    kind, _ = without_none(kind)
    return (
        kind is Any
        or kind is dict
        or kind is list
        or (get_origin(kind) is dict and get_args(kind)[1] is Any)
    )


# Choices


def _choice_type(choices: Sequence[Any]) -> pa.DataType:
    """The Arrow type of choices: their own if they are of one, else text, which holds each one's JSON."""
    wrong = [one for one in choices if not isinstance(one, str | bool | int | float)]
    if wrong:
        raise UsageError(f"A choice is a text, a number or a bool, not {wrong[0]!r}.")
    check_distinct(choices, "Literal or Enum")
    if is_mixed(choices):
        return pa.string()
    return (
        pa.float64()
        if any(isinstance(one, float) for one in choices)
        else arrow_type(type(choices[0]))
    )


def is_mixed(choices: Sequence[Any]) -> bool:
    """Whether choices are of types that no one Arrow type holds: texts beside numbers, bools beside either."""
    sorts = {
        bool if isinstance(one, bool) else str if isinstance(one, str) else float for one in choices
    }
    return len(sorts) > 1


def field_types(model: type[BaseModel]) -> dict[str, Any]:
    """The model's fields by name, each with its type, resolved."""
    return object_fields(model) or {}


def arrow_schema(model: type[BaseModel]) -> pa.Schema:
    """One Arrow field per field of the model.

    Raises:
        UsageError: a field's type fits no column; the message names the field.
    """
    parts: list[pa.Field] = []
    for name, kind in field_types(model).items():
        try:
            parts.append(pa.field(name, column_type(kind)))
        except UsageError as error:
            raise UsageError(f"Field {name!r}: {error}") from None
    return pa.schema(parts)


def plain(value: Any, kind: Any) -> Any:
    """``value`` as Arrow takes it: records as dicts, members of an Enum as their values, free shapes as JSON text.

    ``as_said`` is the way back.
    """
    kind, _ = without_none(kind)
    if isinstance(value, RootModel):
        value = value.root
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None:
        return None
    if is_json_text(kind):
        return json.dumps(value, ensure_ascii=False, default=str)
    choices = choices_of(kind)
    if choices is not None:
        return json.dumps(value, ensure_ascii=False) if is_mixed(choices) else value
    fields = object_fields(kind)
    if fields is not None:
        return {name: plain(_field_of(value, name), part) for name, part in fields.items()}
    if get_origin(kind) in _LISTS:
        items = [plain(item, get_args(kind)[0]) for item in value]
        return sorted(items, key=str) if isinstance(value, set | frozenset) else items
    if get_origin(kind) is dict:
        return [(key_text(key), plain(item, get_args(kind)[1])) for key, item in value.items()]
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return value.astimezone(
            dt.UTC
        )  # here, not in Arrow, which would go beyond the first and the last year
    return str(value) if isinstance(value, TEXT_LIKE) else value


def key_text(key: Any) -> str:
    """The key of a dict as JSON has it: of a member of an Enum its value."""
    return key if type(key) is str else str(next(iter(to_jsonable_python({key: None}))))


def _field_of(value: Any, name: str) -> Any:
    """A field of a model, a dataclass or a TypedDict."""
    return value.get(name) if isinstance(value, dict) else getattr(value, name)


# The form that a model gives


def json_form(
    record: Mapping[str, Any], model: type[BaseModel], *, former: bool = False
) -> dict[str, Any]:
    """Turn a record as Arrow takes it into what a model would have said.

    With ``former`` it is one as the journal's first format wrote it.

    A value of another shape than its type's stays as it is: the check refuses it.

    Example:
        >>> class Visit(BaseModel):
        ...     day: dt.date
        ...     costs: dict[str, decimal.Decimal]
        >>> json_form({"day": dt.date(2026, 1, 31), "costs": [("fare", decimal.Decimal("1.500"))]}, Visit)
        {'day': '2026-01-31', 'costs': {'fare': '1.5'}}
    """
    form: dict[str, Any] = {}
    for name, alias, kind in said_fields(model):
        if name in record:
            form[alias] = (
                record[name] if kind in _AS_THEY_ARE else as_said(record[name], kind, former=former)
            )
    return form


@lru_cache(maxsize=256)
def said_fields(kind: Any) -> tuple[tuple[str, str, Any], ...]:
    """The fields of a model, a dataclass or a TypedDict: the name of each, what it is asked as, and its type."""
    fields = object_fields(kind) or {}
    if is_model(kind):
        return tuple(
            (name, asked_as(name, kind.model_fields[name])[0], part)
            for name, part in fields.items()
        )
    asked, named = json_schema(kind)["properties"], json_schema(kind, by_alias=False)["properties"]
    aliases = dict(zip(named, asked, strict=True))
    return tuple((name, aliases.get(name, name), part) for name, part in fields.items())


def as_said(value: Any, kind: Any, *, former: bool = False) -> Any:
    """A value as Arrow holds it, in the JSON form in which a model would have given it: ``plain`` undone.

    Example:
        >>> as_said([("a", dt.date(2026, 1, 31))], dict[str, dt.date])
        {'a': '2026-01-31'}
    """
    kind, _ = without_none(kind)
    if value is None:
        return None
    choices = choices_of(kind)
    if choices is not None:
        return _choice_form(value, choices, former=former)
    if is_json_text(kind):
        return json.loads(value) if isinstance(value, str) else value
    if object_fields(kind) is not None:
        if not isinstance(value, dict):
            return value
        return {
            alias: as_said(value[name], part, former=former)
            for name, alias, part in said_fields(kind)
            if name in value
        }
    if get_origin(kind) in _LISTS and isinstance(value, list):
        inner = (get_args(kind) or (Any,))[0]
        return [as_said(item, inner, former=former) for item in value]
    if get_origin(kind) is dict and isinstance(value, list):
        return _map_form(value, get_args(kind)[1], former=former)
    return scalar_form(value, kind)


def _choice_form(value: Any, choices: tuple[Any, ...], *, former: bool) -> Any:
    """The choice that a column holds: of several types, its JSON; the former format had texts that may mean two."""
    if not isinstance(value, str) or not is_mixed(choices):
        return scalar_form(value, type(value))
    if not former:
        return json.loads(value)
    meant = [
        choice for choice in choices if value in {str(choice), json.dumps(choice, default=str)}
    ]
    return meant[0] if len(meant) == 1 else value


def _map_form(pairs: list[Any], kind: Any, *, former: bool) -> Any:
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        return pairs
    return {str(key): as_said(item, kind, former=former) for key, item in pairs}


def scalar_form(value: Any, kind: Any) -> Any:
    """A single value. The first format wrote durations as microseconds, dates and decimals as texts of their own."""
    if kind is dt.timedelta and isinstance(value, int):
        value = dt.timedelta(microseconds=value)
    if isinstance(value, str):
        value = _parsed(value, kind)
    if isinstance(value, decimal.Decimal):
        return _digits(value)
    return value if isinstance(value, str | int | float) else to_jsonable_python(value)


def _parsed(text: str, kind: Any) -> Any:
    """The value that a text stands for in a column of a type; the text where it stands for none."""
    try:
        if kind is decimal.Decimal:
            return decimal.Decimal(text)
        return kind.fromisoformat(text) if kind in (dt.datetime, dt.date, dt.time) else text
    except (ValueError, decimal.InvalidOperation):
        return text


def _digits(value: decimal.Decimal) -> str:
    """A decimal without an exponent, and without zeros at its end: columns hold all with as many places."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# Records as Arrow takes them


def plain_record(record: BaseModel) -> dict[str, Any]:
    """A record as Arrow takes it."""
    held: dict[str, Any] = {}
    for name, kind, as_it_is in _held(type(record)):
        value = getattr(record, name)
        held[name] = value if as_it_is and not isinstance(value, RootModel) else plain(value, kind)
    return held


@lru_cache(maxsize=256)
def _held(model: type[BaseModel]) -> tuple[tuple[str, Any, bool], ...]:
    """The model's fields, their types, and whether Arrow takes their values as they are."""
    held: list[tuple[str, Any, bool]] = []
    for name, kind in field_types(model).items():
        own = without_none(kind)[0]
        choices = choices_of(own) if get_origin(own) is typing.Literal else None
        members = choices is None or any(isinstance(one, enum.Enum) for one in get_args(own))
        as_it_is = isinstance(own, type) and own in _AS_IT_IS
        held.append((name, kind, as_it_is or not (members or is_mixed(choices or ()))))
    return tuple(held)


def find_stray(record: BaseModel) -> str | None:
    """Name a field that holds what its type does not take: pydantic lets validators of the user's give anything."""
    for name, kind in _own_types(type(record)):
        if is_stray(getattr(record, name), kind):
            return name
    return None


@lru_cache(maxsize=256)
def _own_types(model: type[BaseModel]) -> tuple[tuple[str, Any], ...]:
    """The model's fields and their types; None is of a type if it is the field's default."""
    optional = {name for name, info in model.model_fields.items() if info.default is None}
    return tuple(
        (name, kind | None if name in optional else kind)
        for name, kind in field_types(model).items()
    )


def is_stray(value: Any, kind: Any) -> bool:
    """Whether a value is not of its type, at whatever depth: None, no choice, a text where a number is wanted.

    Example:
        >>> is_stray([1, None], list[int]), is_stray("B", Literal["a", "b"]), is_stray(None, int | None)
        (True, True, False)
    """
    if isinstance(value, RootModel):
        return is_stray(value.root, kind)
    if isinstance(kind, type) and kind in _AS_IT_IS:
        return not _is_of(value, kind)
    own, optional = without_none(kind)
    if value is None:
        return not (optional or _takes_none(own))
    if isinstance(own, type) and own in _AS_IT_IS:
        return not _is_of(value, own)
    choices = choices_of(own)
    if choices is not None:
        return not _is_choice(value.value if isinstance(value, enum.Enum) else value, choices)
    if isinstance(value, BaseModel):
        return find_stray(value) is not None
    if get_origin(own) in _LISTS:
        return any(is_stray(item, get_args(own)[0]) for item in value)
    if get_origin(own) is dict:
        return any(is_stray(item, get_args(own)[1]) for item in value.values())
    return False


def _is_of(value: Any, kind: type) -> bool:
    """Whether a value is of one of the types that Arrow takes as they are; numpy's own numbers are numbers."""
    if kind is bool or isinstance(value, bool | np.bool_):
        return kind is bool and isinstance(value, bool | np.bool_)
    if kind is dt.date:
        return isinstance(value, dt.date) and not isinstance(value, dt.datetime)
    return isinstance(value, _TAKEN_AS.get(kind, kind))


def _is_choice(value: Any, choices: Sequence[Any]) -> bool:
    if value is None:
        return True  # a member of an Enum
    if is_mixed(choices):
        return json.dumps(value, default=str) in {json.dumps(one) for one in choices}
    return value in choices


def _takes_none(kind: Any) -> bool:
    """Whether None is a value of a type without ``| None``, as far as can be told."""
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return any(member.value is None for member in kind)
    if isinstance(kind, type):
        return kind in {Any, object, type(None)}
    return get_origin(kind) not in {*_LISTS, dict, Literal} or None in get_args(kind)


def check_fits(record: Mapping[str, Any], struct: pa.StructType) -> None:
    """Let Arrow try a record.

    Raises:
        pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError, UnicodeEncodeError: a value does not fit.
    """
    pa.array([record], type=struct)


def table_of(records: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Records as one Arrow table.

    Raises:
        pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError, UnicodeEncodeError: a value does not fit.
    """
    return pa.Table.from_pylist(list(records), schema=schema)


def sort_of(annotation: Any) -> Sort:
    """What sort of values a field holds.

    Example:
        >>> [sort_of(kind) for kind in (int, bool, str | None, list[str], Literal["a", "b"])]
        ['number', 'bool', 'text', 'nested', 'choices']
    """
    kind, _ = without_none(annotation)
    if choices_of(kind) is not None:
        return "choices"
    if kind is bool:
        return "bool"
    if isinstance(kind, type) and get_origin(kind) is None:
        if issubclass(kind, int | float | decimal.Decimal):
            return "number"
        if issubclass(kind, dt.date | dt.time | dt.timedelta):
            return "date"
        if issubclass(kind, str):
            return "text"
    return "nested"
