"""The types of a plan's fields, read from what users and JSON files hold, and written as JSON."""

from __future__ import annotations

import datetime as dt
import functools
import math
import re
from typing import Annotated, Any, NoReturn, get_args, get_origin

import numpy as np
import pandas as pd
from pydantic import BaseModel, BeforeValidator, Field, PlainSerializer

from pandas_amr._records.refused import is_whole, show_refused
from pandas_amr._records.suggest import did_you_mean
from pandas_amr._types.from_schema import bounded_type_from_schema, type_from_schema
from pandas_amr._types.record import is_type, model_of_fields, record_type
from pandas_amr._types.resolve import is_model, is_plain_record, without_alias
from pandas_amr._types.schema import (
    DATETIME_PATTERN,
    TEXT_FINDING,
    TIME_PATTERN,
    json_schema,
    stored_schema,
)
from pandas_amr._types.type_advice import advise_type, type_of_name
from pandas_amr._units.by import By, describe_key, is_code
from pandas_amr.errors import PlanError, UsageError

CACHED_RECORDS = 64
SURELY_A_TYPE = 0.75  # "sentiment" is 0.6 like "time", and is the name of a field
SECONDS_OF = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
DURATION_PART = re.compile(r"(\d+)\s*([wdhms])", re.IGNORECASE)
DURATION = re.compile(rf"({DURATION_PART.pattern}\s*)+", re.IGNORECASE)
LONGEST_S = 100 * 366 * 86_400  # what is longer means "never again"
PLAIN_TYPES = frozenset({str, int, float, bool, dt.date, dt.datetime})
ZONELESS_PATTERNS = {"date-time": DATETIME_PATTERN, "time": TIME_PATTERN}


def as_finding(value: Any) -> Any:
    """Convert what ``finding=`` takes to a pydantic model, or to a list of one.

    A list means that a unit holds none or many records. A dict of types and a JSON schema become a
    model; None becomes a model with one text.

    Raises:
        UsageError: it is none of these.
    """
    if value is None:
        return record_type("Finding", {TEXT_FINDING: (str, Field(min_length=1))})
    if is_pydantic_model(value) or is_list_of_models(value):
        return value
    if is_plain_record(value):
        return model_of_fields(value)
    item = item_type(value)
    if is_plain_record(item):
        return list[model_of_fields(item)]  # type: ignore[misc]
    if _is_schema(value):
        return type_from_schema(value, str(value.get("title", "Finding")))
    if isinstance(value, dict) and value:
        if isinstance(value.get("properties"), dict) and isinstance(value.get("type"), str):
            _refuse_schema_type(value["type"])
        return _record_of(value)
    raise UsageError(
        "finding= takes a pydantic model, a dataclass, a TypedDict, a list[...] of one, "
        f"a dict of types, or nothing, not {show_refused(value)}.{_advise_finding(value)}"
    )


def _refuse_schema_type(kind: str) -> NoReturn:
    """Refuse what looks like a JSON schema, but is not one of an object.

    Raises:
        UsageError: always.
    """
    suggestion = did_you_mean(kind, ("object", "array"))
    raise UsageError(
        "finding= takes a JSON schema of the type 'object', or 'array' of one, not "
        f"{kind!r}.{suggestion}"
    )


def _advise_finding(value: object) -> str:
    """Suggest the finding that is meant by something that is none."""
    if isinstance(value, list | tuple | set) and value:
        return _advise_list(list(value))
    if isinstance(value, BaseModel):
        return f" Did you mean the class: finding={type(value).__name__}?"
    if isinstance(value, str):
        meant = type_of_name(value, least=SURELY_A_TYPE)
        if meant is not None:
            return f" For one field of this type: finding={{'value': {meant}}}."
        return f" For one field of this name: finding={{{value!r}: str}}." if value else ""
    if is_type(value):
        name = value.__name__ if isinstance(value, type) else str(value).replace("typing.", "")
        return f" For one field of this type: finding={{'value': {name}}}."
    return ""


def _advise_list(values: list[Any]) -> str:
    """Suggest the finding that is meant by a list: a list of records, or choices."""
    if len(values) == 1 and is_record(values[0]):
        return f" Did you mean list[{values[0].__name__}]?"
    if any(isinstance(value, dict) or is_type(value) for value in values):
        return " For many records in a unit, write a model: list[Model]."
    return f" For one field with these choices: finding={{'label': {values!r}}}."


def _record_of(fields: dict[str, Any]) -> type[BaseModel]:
    """Make the model of a dict of types.

    Equal dicts of plain types give the same model: a model and its schemas take a while to make.
    """
    key: list[tuple[Any, ...]] = []
    for name, value in fields.items():
        kind, *description = value if isinstance(value, tuple) else (value,)
        if isinstance(kind, list) and not description and _are_texts(kind):
            key.append((name, list, *kind))
        elif isinstance(kind, type) and kind in PLAIN_TYPES and _are_texts(description):
            key.append((name, kind, *description))
        else:
            return record_type("Finding", fields)
    return _plain_record(*key)


def _are_texts(values: list[Any]) -> bool:
    return all(type(value) is str for value in values)


@functools.lru_cache(CACHED_RECORDS)
def _plain_record(*fields: tuple[Any, ...]) -> type[BaseModel]:
    """Make the model of plain fields.

    A field is its name, its type and perhaps a description; or its name, ``list`` and its choices.
    """
    types: dict[str, Any] = {}
    for name, kind, *rest in fields:
        if kind is list:
            types[name] = rest
        elif rest:
            types[name] = (kind, *rest)
        else:
            types[name] = kind
    return record_type("Finding", types)


def is_pydantic_model(kind: object) -> bool:
    """Whether a type is a pydantic model."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def is_list_of_models(kind: object) -> bool:
    """Whether a type is ``list[Model]``."""
    return getattr(kind, "__origin__", None) is list and is_pydantic_model(get_args(kind)[0])


def is_record(kind: object) -> bool:
    """Whether a type is a model, a dataclass or a TypedDict, or a list of one."""
    item = item_type(kind)
    return is_model(item) or is_plain_record(item)


def item_type(kind: object) -> Any:
    """Return the type of a list's items; any other type as it is."""
    return get_args(kind)[0] if get_origin(kind) is list else kind


def _is_schema(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    if value.get("type") == "array":
        return _is_schema(value.get("items"))
    return value.get("type") == "object" and isinstance(value.get("properties"), dict)


def _as_findings(value: object) -> Any:
    """Convert a plan's finding: one type, or one per named map."""
    if value is None:
        return None
    if isinstance(value, dict) and value and not _is_schema(value):
        parts = value.values()
        if all(isinstance(part, dict) or is_record(part) for part in parts):
            return {name: as_finding(part) for name, part in value.items()}
    return as_finding(value)


def as_output(value: object) -> Any:
    """Convert what ``output=`` takes to a type.

    Raises:
        UsageError: it is neither a type nor a JSON schema.
    """
    if value is None:
        return None
    if isinstance(value, dict) and not any(is_type(part) for part in value.values()):
        return bounded_type_from_schema(value, "Output")
    if _is_data_frame(value):
        return list[dict[str, Any]]
    kind = without_alias(value)
    if isinstance(kind, type) or get_origin(kind) is not None:
        json_schema(kind)  # raises if the type has none
        return kind
    raise UsageError(
        "output= takes str, int, float, bool, a pydantic model, list[Model] or pd.DataFrame, "
        f"not {show_refused(value)}.{_advise_output(value)}"
    )


def _advise_output(value: object) -> str:
    """Suggest the output that is meant by something that is no type."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], type):
        return f" Did you mean list[{value[0].__name__}]?"
    if isinstance(value, list) and value and _are_texts(value):
        return f" For one of these choices: output=Literal[{', '.join(map(repr, value))}]."
    if isinstance(value, BaseModel):
        return f" Did you mean the class: output={type(value).__name__}?"
    if isinstance(value, dict):
        return " For several fields: a pydantic model, a dataclass or a TypedDict."
    return advise_type(value) if isinstance(value, str) else ""


def _is_data_frame(value: object) -> bool:
    """Whether something is ``pd.DataFrame``, or the frame of a library that has pandas' names."""
    module = str(getattr(value, "__module__", ""))
    return getattr(value, "__name__", "") == "DataFrame" and module.startswith("pandas")


def _types_to_json(kind: object) -> Any:
    if kind is None:
        return None
    if isinstance(kind, dict):
        return {name: stored_schema(part) for name, part in kind.items()}
    return stored_schema(kind)


def remove_zones(schema: object) -> Any:
    """Convert a schema of a plan of format 1: its dates and times had no zone."""
    if isinstance(schema, list):
        return [remove_zones(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("format")
    if schema.get("type") == "string" and kind in ZONELESS_PATTERNS:
        rest = {key: value for key, value in schema.items() if key != "format"}
        return rest | {"pattern": ZONELESS_PATTERNS[kind]}
    return {key: remove_zones(value) for key, value in schema.items()}


def _as_by(value: object) -> By | None:
    if value is None or isinstance(value, By):
        return value
    if not isinstance(value, dict):
        return By(*_labels_from_json(value))
    options = {}
    for name in ("sort", "dropna", "observed"):
        if name in value:
            options[name] = bool(value[name])
    return By(*_labels_from_json(value.get("keys")), **options)


def _by_to_json(by: By | None) -> Any:
    if by is None:
        return None
    keys = labels_to_json(list(by.keys))
    if all(by.options.values()):
        return keys
    return {"keys": keys} | by.options


def _labels_from_json(value: object) -> list[Any]:
    """Read column labels; JSON has no tuples and no dates, and no label is a list or a dict."""
    if value is None:
        return []
    labels: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    return [_label_from_json(label) for label in labels]


def _label_from_json(value: object) -> Any:
    match value:
        case list():
            return tuple(_label_from_json(part) for part in value)
        case {"datetime": str(when)}:
            return pd.Timestamp(when)
        case {"date": str(when)}:
            return dt.date.fromisoformat(when)
    return value


def labels_to_json(labels: list[Any] | None) -> list[Any] | None:
    """Write column labels as JSON has them; ``_labels_from_json`` reads them.

    Raises:
        PlanError: JSON has no form for a label.
    """
    if labels is None:
        return None
    return [_label_to_json(label) for label in labels]


def _label_to_json(label: object) -> Any:
    if isinstance(label, tuple):
        return [_label_to_json(part) for part in label]
    if label is None or isinstance(label, str | bool | int | float):
        return label
    if isinstance(label, dt.datetime):
        return {"datetime": label.isoformat()}
    if isinstance(label, dt.date):
        return {"date": label.isoformat()}
    if isinstance(label, np.number | np.bool_):
        return label.item()
    if is_code(label):
        raise PlanError(
            f"A plan's JSON cannot hold {describe_key(label)} as a key of by=: "
            "name a column instead, or say by= again beside plan=."
        )
    raise PlanError(
        f"A plan's JSON cannot hold the column label {label!r}: "
        "name the column by a text, a number or a date."
    )


def _as_duration(value: object) -> dt.timedelta | None:
    """Read a time such as ``"7d"``, ``"1d 12h"`` or a ``timedelta``.

    Raises:
        ValueError: it is none, or not above 0.
    """
    if value is None:
        return None
    seconds = _seconds_of(value)
    if seconds is None:
        advice = f" Did you mean '{value}d'?" if _is_count(value) else ""
        given = show_refused(value)
        message = f"takes a time such as '7d', '12h', '30m' or a timedelta, not {given}.{advice}"
        raise ValueError(message)
    if not seconds > 0:
        given = show_refused(value)
        message = f"takes a time above 0, not {given}; without it failed rows are always asked"
        raise ValueError(message)
    return dt.timedelta(seconds=min(seconds, LONGEST_S))


def _seconds_of(value: object) -> float | None:
    """Return how many seconds a time is; None if it is none."""
    if isinstance(value, dt.timedelta) and not pd.isna(value):
        return value.total_seconds()
    if isinstance(value, np.timedelta64) and not np.isnat(value):
        return float(value / np.timedelta64(1, "s"))
    if not isinstance(value, str) or not DURATION.fullmatch(value.strip()):
        return None
    seconds = 0
    for count, unit in DURATION_PART.findall(value):
        seconds += int(count) * SECONDS_OF[unit.lower()]
    return seconds


def _is_count(value: object) -> bool:
    """Whether a value is a number of something that is not said."""
    if isinstance(value, str):
        return value.strip().isdecimal()
    return is_whole(value, least=1)


def _duration_to_json(value: dt.timedelta | None) -> str | None:
    """Write a time as ``_as_duration`` reads it: in whole seconds, rounded up."""
    if value is None:
        return None
    rest = math.ceil(value.total_seconds())
    parts: list[str] = []
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, SECONDS_OF[unit])
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts)


def _check_not_bool(value: object) -> Any:
    if isinstance(value, bool):
        message = f"takes a whole number from 1, or None for never, not {show_refused(value)}"
        raise ValueError(message)  # noqa: TRY004 (what pydantic reads)
    return value


def _labels_or_none(value: object) -> list[Any] | None:
    return None if value is None else _labels_from_json(value)


DurationField = Annotated[
    dt.timedelta | None, BeforeValidator(_as_duration), PlainSerializer(_duration_to_json)
]
CountOrNever = Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_check_not_bool)]
ByField = Annotated[Any, BeforeValidator(_as_by), PlainSerializer(_by_to_json)]
LabelsField = Annotated[
    list[Any] | None, BeforeValidator(_labels_or_none), PlainSerializer(labels_to_json)
]
FindingField = Annotated[Any, BeforeValidator(_as_findings), PlainSerializer(_types_to_json)]
OutputField = Annotated[Any, BeforeValidator(as_output), PlainSerializer(_types_to_json)]
