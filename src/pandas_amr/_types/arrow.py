"""Convert types to Arrow types: what a finding's field becomes as a column of a frame."""

from __future__ import annotations

import datetime as dt
import decimal
import ipaddress
import pathlib
import uuid
from typing import TYPE_CHECKING, Any, ForwardRef, Literal, get_args, get_origin

import pyarrow as pa
from pydantic import AnyUrl, AwareDatetime

from pandas_amr._records.refused import show_refused
from pandas_amr._types.record import check_distinct, check_members
from pandas_amr._types.resolve import UNIONS, choices_of, object_fields, without_none
from pandas_amr._types.schema import recursion_error
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

Sort = Literal["number", "bool", "text", "choices", "date", "nested"]

DECIMAL_DIGITS = 38
DECIMAL_PLACES = 9

# In the order in which they are tried: a bool is an int, a datetime is a date.
_SCALARS: tuple[tuple[type, pa.DataType], ...] = (
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
ARROW_SCALARS = frozenset(kind for kind, _ in _SCALARS)
# Held as texts.
TEXT_LIKE = (uuid.UUID, AnyUrl, ipaddress.IPv4Address, ipaddress.IPv6Address, pathlib.PurePath)
LIST_TYPES = frozenset({list, set, tuple, frozenset})
_SUPPORTED = (
    "bool, int, float, str, dates, Decimal, UUID, Literal, Enum, lists, dicts, models, "
    "or one of these | None"
)


def arrow_type(kind: object) -> pa.DataType:
    """Return the Arrow type for values of a type; JSON text if they have no fixed shape.

    Raises:
        UsageError: no column can hold them.

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
    if origin in LIST_TYPES and inner:
        return pa.list_(_item_type(kind))
    if origin is dict:
        return pa.map_(pa.string(), arrow_type(inner[1]))
    if is_number_union(kind):
        return pa.float64()
    scalar = _scalar_type(kind) if origin is None else None
    if isinstance(kind, ForwardRef):
        raise UsageError(
            f"The type {kind.__forward_arg__!r} is not known where its model is defined. Define it "
            "before the model, at the top of the module, or call Model.model_rebuild()."
        )
    if scalar is None:
        raise UsageError(f"No column can hold {kind!r}; use {_SUPPORTED}.")
    return scalar


def _scalar_type(kind: object) -> pa.DataType | None:
    """Return the Arrow type of single values; None if there is none."""
    if kind is AwareDatetime:
        return pa.timestamp("us", tz="UTC")
    if not isinstance(kind, type):
        return None
    if issubclass(kind, TEXT_LIKE) or kind is AnyUrl:
        return pa.string()
    for base, scalar in _SCALARS:
        if issubclass(kind, base):
            return scalar
    return None


def column_type(kind: object) -> pa.DataType:
    """Return the Arrow type of a column of values of a type.

    Raises:
        UsageError: no column can hold them; or the type is recursive; or it has choices of several
            types inside of another type, where a choice cannot be told from the JSON that holds it.
    """
    _check_inner(kind, ())
    return arrow_type(kind)


def _check_inner(kind: Any, path: tuple[Any, ...]) -> None:
    """Refuse recursive types, and choices of several types inside of other types.

    Args:
        kind: the type.
        path: the types that it is part of.
    """
    kind, _ = without_none(kind)
    choices = choices_of(kind)
    if choices is not None:
        if path and is_mixed(choices):
            raise UsageError(
                f"No list, dict or nested field can hold {kind!r}, choices of several types: "
                "make all of them texts."
            )
        return
    fields = object_fields(kind)
    if fields is not None and kind in path:
        raise recursion_error(kind.__name__)
    parts = get_args(kind) if fields is None else fields.values()
    for part in parts:
        if part is not ...:
            _check_inner(part, (*path, kind))


def _item_type(kind: object) -> pa.DataType:
    """Return the Arrow type of a list's items; those of a tuple must all have the same."""
    item_types = [arrow_type(part) for part in get_args(kind) if part is not ...]
    for item_type in item_types:
        if item_type != item_types[0]:
            raise UsageError(
                f"No column can hold {kind!r}, whose items are of several types; "
                "use a model with named fields."
            )
    return item_types[0]


def is_number_union(kind: object) -> bool:
    """Tell whether a type is ``int | float``, which a column of floats holds."""
    return get_origin(kind) in UNIONS and set(get_args(kind)) == {int, float}


def is_json_text(kind: object) -> bool:
    """Tell whether values of a type have no fixed shape, so that a column holds their JSON."""
    kind, _ = without_none(kind)
    if get_origin(kind) is dict:
        return get_args(kind)[1] is Any
    return kind is Any or kind is dict


def _choice_type(choices: Sequence[Any]) -> pa.DataType:
    """Return the Arrow type of choices. Those of several types are held as JSON text."""
    for choice in choices:
        if not isinstance(choice, str | bool | int | float):
            raise UsageError(f"A choice is a text, a number or a bool, not {show_refused(choice)}.")
    check_distinct(choices, "Literal or Enum")
    if is_mixed(choices):
        return pa.string()
    kind = arrow_type(type(choices[0]))
    if any(isinstance(choice, float) for choice in choices):
        kind = pa.float64()
    try:
        pa.array(choices, kind)
    except (OverflowError, pa.ArrowInvalid):
        raise UsageError(
            f"No column can hold the choices {list(choices)!r}: whole numbers have 64 bits, and "
            "beside fractions 53. Make all of them texts."
        ) from None
    return kind


def is_mixed(choices: Sequence[Any]) -> bool:
    """Tell whether no one Arrow type holds all choices: texts and numbers, or bools and others."""
    types: set[type] = set()
    for choice in choices:
        if isinstance(choice, bool):
            types.add(bool)
        elif isinstance(choice, str):
            types.add(str)
        else:
            types.add(float)
    return len(types) > 1


def field_types(model: type[BaseModel]) -> dict[str, Any]:
    """Return the resolved types of a model's fields, by name."""
    return object_fields(model) or {}


def arrow_schema(model: type[BaseModel]) -> pa.Schema:
    """Return a schema with one Arrow field per field of the model.

    Raises:
        UsageError: no column can hold a field's type; the message names the field.
    """
    fields: list[pa.Field] = []
    for name, kind in field_types(model).items():
        try:
            fields.append(pa.field(name, column_type(kind)))
        except UsageError as error:
            raise UsageError(f"Field {name!r}: {error}") from None
    return pa.schema(fields)


def field_kind(annotation: object) -> Sort:
    """Return what kind of values a field holds.

    Example:
        >>> [field_kind(kind) for kind in (int, bool, str | None, list[str], Literal["a", "b"])]
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
