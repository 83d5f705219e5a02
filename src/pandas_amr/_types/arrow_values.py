"""Convert values: from a model's records to what Arrow takes, and from Arrow to JSON."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import typing
from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel, RootModel
from pydantic_core import to_jsonable_python

from pandas_amr._types.arrow import (
    ARROW_SCALARS,
    LIST_TYPES,
    TEXT_LIKE,
    field_types,
    is_json_text,
    is_mixed,
)
from pandas_amr._types.resolve import (
    choices_of,
    is_model,
    object_fields,
    plain_choice,
    without_none,
)
from pandas_amr._types.schema import accepted_names, json_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_JSON_SCALARS = (str, int, float, bool)  # types whose values JSON has as they are


# To Arrow


def plain(value: Any, kind: Any) -> Any:
    """Convert a value of a type to what Arrow takes. ``json_value`` converts it back.

    Records become dicts, members of an Enum their values, and free shapes JSON text.
    """
    if type(value) is kind and kind in _JSON_SCALARS:  # the common case first
        return value
    kind, _ = without_none(kind)
    value = _unwrap(value)
    if value is None:
        return None
    if is_json_text(kind):
        return json.dumps(value, ensure_ascii=False, default=str)
    choices = choices_of(kind)
    if choices is not None:
        if is_mixed(choices):
            return json.dumps(value, ensure_ascii=False)
        return value
    fields = object_fields(kind)
    if fields is not None:
        return {name: plain(_read_field(value, name), part) for name, part in fields.items()}
    if get_origin(kind) in LIST_TYPES:
        return _plain_list(value, get_args(kind)[0])
    if get_origin(kind) is dict:
        inner = get_args(kind)[1]
        return [(json_key(key), plain(item, inner)) for key, item in value.items()]
    return _plain_scalar(value)


def _unwrap(value: Any) -> Any:
    """Return what a root model or a member of an Enum holds; any other value as it is."""
    if isinstance(value, RootModel):
        value = value.root
    return plain_choice(value)


def _plain_list(value: Any, item_kind: Any) -> list[Any]:
    """Convert a list, a tuple or a set; the items of a set are sorted."""
    items = [plain(item, item_kind) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(items, key=str)
    return items


def _plain_scalar(value: object) -> Any:
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        # Arrow would convert the zone without refusing years before 1 and after 9999.
        return value.astimezone(dt.UTC)
    if isinstance(value, TEXT_LIKE):
        return str(value)
    return value


def json_key(key: object) -> str:
    """Return the key of a dict as JSON has it; of a member of an Enum, its value."""
    if type(key) is str:
        return key
    return str(next(iter(to_jsonable_python({key: None}))))


def _read_field(value: object, name: str) -> Any:
    """Return a field of a model, a dataclass or a TypedDict."""
    if isinstance(value, dict):
        return value.get(name)
    return getattr(value, name)


def arrow_record(record: BaseModel) -> dict[str, Any]:
    """Convert a record to what Arrow takes."""
    plain_fields: dict[str, Any] = {}
    for name, kind, is_plain in _plain_kinds(type(record)):
        value = getattr(record, name)
        if not is_plain or isinstance(value, RootModel):
            value = plain(value, kind)
        plain_fields[name] = value
    return plain_fields


@lru_cache(maxsize=256)
def _plain_kinds(model: type[BaseModel]) -> tuple[tuple[str, Any, bool], ...]:
    """Return the model's fields, their types, and whether Arrow takes their values as they are."""
    kinds: list[tuple[str, Any, bool]] = []
    for name, kind in field_types(model).items():
        kinds.append((name, kind, _is_plain(without_none(kind)[0])))
    return tuple(kinds)


def _is_plain(kind: object) -> bool:
    if isinstance(kind, type) and kind in ARROW_SCALARS:
        return True
    if get_origin(kind) is not typing.Literal:
        return False
    if any(isinstance(choice, enum.Enum) for choice in get_args(kind)):
        return False
    return not is_mixed(choices_of(kind) or ())


def check_fits(record: Mapping[str, Any], struct: pa.StructType) -> None:
    """Check by Arrow that a record fits a type.

    Raises:
        pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError, UnicodeEncodeError: a value
        does not fit.
    """
    pa.array([record], type=struct)


def make_table(records: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Make an Arrow table of records.

    Raises:
        pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError, UnicodeEncodeError: a value
        does not fit.
    """
    return pa.Table.from_pylist(list(records), schema=schema)


# To JSON, in the form in which a model gives a value


def json_record(
    record: Mapping[str, Any], model: type[BaseModel], *, former: bool = False
) -> dict[str, Any]:
    """Convert a record from Arrow to the JSON that a model would have given.

    A value whose shape is not that of its type stays as it is: a later check refuses it.

    Args:
        record: as Arrow holds it.
        model: the record's type.
        former: whether the record is in the journal's first format.

    Example:
        >>> class Visit(BaseModel):
        ...     day: dt.date
        ...     costs: dict[str, decimal.Decimal]
        >>> day, fare = dt.date(2026, 1, 31), decimal.Decimal("1.500")
        >>> json_record({"day": day, "costs": [("fare", fare)]}, Visit)
        {'day': '2026-01-31', 'costs': {'fare': '1.5'}}
    """
    form: dict[str, Any] = {}
    for name, alias, kind in json_fields(model):
        if name not in record:
            continue
        value = record[name]
        if kind not in _JSON_SCALARS:
            value = json_value(value, kind, former=former)
        form[alias] = value
    return form


@lru_cache(maxsize=256)
def json_fields(kind: Any) -> tuple[tuple[str, str, Any], ...]:
    """Return the fields of a model, a dataclass or a TypedDict: name, alias, and type of each."""
    fields = object_fields(kind) or {}
    if is_model(kind):
        infos = kind.model_fields
        aliases = {name: accepted_names(name, infos[name])[0] for name in fields}
    else:
        by_alias = json_schema(kind)["properties"]
        by_name = json_schema(kind, by_alias=False)["properties"]
        aliases = dict(zip(by_name, by_alias, strict=True))
    return tuple((name, aliases.get(name, name), part) for name, part in fields.items())


def json_value(value: object, kind: object, *, former: bool = False) -> Any:
    """Convert a value from Arrow to the JSON that a model would have given: undo ``plain``.

    Example:
        >>> json_value([("a", dt.date(2026, 1, 31))], dict[str, dt.date])
        {'a': '2026-01-31'}
    """
    kind, _ = without_none(kind)
    if value is None:
        return None
    choices = choices_of(kind)
    if choices is not None:
        return _choice_form(value, choices, former=former)
    if is_json_text(kind):
        if isinstance(value, str):
            return json.loads(value)
        return value
    if object_fields(kind) is not None:
        return _object_form(value, kind, former=former)
    if get_origin(kind) in LIST_TYPES and isinstance(value, list):
        inner = get_args(kind)[0]
        return [json_value(item, inner, former=former) for item in value]
    if get_origin(kind) is dict and isinstance(value, list):
        return _map_form(value, get_args(kind)[1], former=former)
    return json_scalar(value, kind)


def _object_form(value: object, kind: object, *, former: bool) -> Any:
    if not isinstance(value, dict):
        return value
    form: dict[str, Any] = {}
    for name, alias, part in json_fields(kind):
        if name in value:
            form[alias] = json_value(value[name], part, former=former)
    return form


def _choice_form(value: object, choices: tuple[Any, ...], *, former: bool) -> Any:
    """Convert a choice. Choices of several types are held as JSON.

    The journal's first format held them as plain texts, which may be ambiguous.
    """
    if not isinstance(value, str) or not is_mixed(choices):
        return json_scalar(value, type(value))
    if not former:
        return json.loads(value)
    matching = [choice for choice in choices if value in _former_texts(choice)]
    if len(matching) == 1:
        return matching[0]
    return value


def _former_texts(choice: object) -> tuple[str, str]:
    return str(choice), json.dumps(choice, default=str)


def _map_form(pairs: list[Any], kind: object, *, former: bool) -> Any:
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            return pairs
    return {str(key): json_value(item, kind, former=former) for key, item in pairs}


def json_scalar(value: object, kind: object) -> Any:
    """Convert a single value.

    The journal's first format had durations as microseconds, and dates and decimals as texts.
    """
    if kind is dt.timedelta and isinstance(value, int):
        value = dt.timedelta(microseconds=value)
    if isinstance(value, str):
        value = _parse(value, kind)
    if isinstance(value, decimal.Decimal):
        return format_decimal(value)
    if isinstance(value, str | int | float):
        return value
    return to_jsonable_python(value)


def _parse(text: str, kind: Any) -> Any:
    """Return the value of a text in a column of a type; the text itself if it has none."""
    if kind is decimal.Decimal:
        convert = decimal.Decimal
    elif kind in (dt.datetime, dt.date, dt.time):
        convert = kind.fromisoformat
    else:
        return text
    try:
        return convert(text)
    except (ValueError, decimal.InvalidOperation):
        return text


def format_decimal(value: decimal.Decimal) -> str:
    """Format a decimal without exponent or trailing zeros: columns pad all to the same places."""
    text = f"{value:f}"
    if "." in text:
        return text.rstrip("0").rstrip(".")
    return text
