"""Types to typed Arrow columns: what a finding's field becomes in a frame."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel

from pandas_amr._schema import choices_of, without_none
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Sort = Literal["number", "bool", "text", "choices", "date", "nested"]

DECIMAL_DIGITS = 38
DECIMAL_PLACES = 9

_SCALARS: tuple[tuple[type, pa.DataType], ...] = (  # in the order in which they are tried: a bool is an int
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
        return pa.string() if any(isinstance(choice, str) for choice in choices) else arrow_type(type(choices[0]))
    origin, inner = get_origin(kind), get_args(kind)
    if origin in {list, set, tuple, frozenset} and inner:
        return pa.list_(arrow_type(inner[0]))
    if origin is dict and inner[1] is not Any:
        return pa.map_(pa.string(), arrow_type(inner[1]))
    if isinstance(kind, type) and origin is None:
        if issubclass(kind, BaseModel):
            return pa.struct([pa.field(name, arrow_type(part)) for name, part in field_types(kind).items()])
        for base, held in _SCALARS:
            if issubclass(kind, base):
                return held
    if is_json_text(kind):
        return pa.string()
    raise UsageError(f"No column can hold {kind!r}; use bool, int, float, str, dates, Decimal, Literal, lists, models.")


def is_json_text(kind: Any) -> bool:
    """Whether values of ``kind`` have no fixed shape, so that a column holds their JSON."""
    kind, _ = without_none(kind)
    return kind in {Any, dict, list} or (get_origin(kind) is dict and get_args(kind)[1] is Any)


def field_types(model: type[BaseModel]) -> dict[str, Any]:
    """The model's fields by name, each with its type."""
    return {name: field.annotation for name, field in model.model_fields.items()}


def arrow_schema(model: type[BaseModel]) -> pa.Schema:
    """One Arrow field a field of the model.

    Raises:
        UsageError: a field's type fits no column.
    """
    return pa.schema([pa.field(name, arrow_type(kind)) for name, kind in field_types(model).items()])


def plain(value: Any, kind: Any) -> Any:
    """``value`` as Arrow takes it: records as dicts, members of an Enum as their values, free shapes as JSON text."""
    kind, _ = without_none(kind)
    if value is None:
        return None
    if is_json_text(kind):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, BaseModel):
        return plain_record(value)
    if isinstance(value, enum.Enum):
        return value.value
    if get_origin(kind) in {list, set, tuple, frozenset}:
        inner = (get_args(kind) or (Any,))[0]
        made = [plain(item, inner) for item in value]
        return sorted(made, key=str) if isinstance(value, set | frozenset) else made
    if get_origin(kind) is dict:
        return [(str(key), plain(item, get_args(kind)[1])) for key, item in value.items()]
    choices = choices_of(kind)
    if choices is not None and any(isinstance(choice, str) for choice in choices):
        return str(value)
    return value


def plain_record(record: BaseModel) -> dict[str, Any]:
    """A record as Arrow takes it."""
    return {
        name: getattr(record, name) if as_it_is else plain(getattr(record, name), kind)
        for name, kind, as_it_is in _held(type(record))
    }


@lru_cache(maxsize=256)
def _held(model: type[BaseModel]) -> tuple[tuple[str, Any, bool], ...]:
    """The model's fields, their types, and whether Arrow takes their values as they are."""
    plain_types = tuple(base for base, _ in _SCALARS)
    return tuple(
        (name, kind, isinstance(own := without_none(kind)[0], type) and own in plain_types)
        for name, kind in field_types(model).items()
    )


def check_fits(record: Mapping[str, Any], struct: pa.StructType) -> None:
    """Let Arrow try a record.

    Raises:
        pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError, UnicodeEncodeError: a value fits its column not.
    """
    pa.array([record], type=struct)


def table_of(records: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Records as one Arrow table.

    Raises:
        pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError, UnicodeEncodeError: a value fits its column not.
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
