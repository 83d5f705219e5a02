"""Match labels with the rows of a result, and convert them to the type of its findings."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sized
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from pandas_amr._records.suggest import did_you_mean
from pandas_amr._result.comparable import plain_value
from pandas_amr._result.compare import is_number
from pandas_amr._units.cells import cell
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    ValueKind: TypeAlias = Literal["bool", "number", "time", "date", "text"]

TRUTHS = {"true": True, "false": False, "1": True, "0": False}
WANTED = {
    "bool": "bools: True or False",
    "number": "numbers",
    "time": "times: pd.to_datetime(...), or ISO 8601",
    "date": "dates: pd.to_datetime(...), or ISO 8601",
}
KINDS: tuple[tuple[ValueKind, type | tuple[type, ...]], ...] = (
    ("bool", (bool, np.bool_)),
    ("number", (int, float, Decimal, np.number)),
    ("time", dt.datetime),
    ("date", dt.date),
    ("text", str),
)


def labels_by_field(frame: pd.DataFrame, fields: list[str], labels: object) -> dict[str, pd.Series]:
    """Return the labels of each field: one per row of the frame, None for a row without a label.

    Raises:
        UsageError: the labels name no field, do not match the rows, or have another type.
    """
    by_field = _name_fields(fields, labels)
    matched = {name: _match_rows(frame, name, values) for name, values in by_field.items()}
    converted: dict[str, pd.Series] = {}
    for name, column in matched.items():
        converted[name] = _convert(name, frame[name], column)
    return converted


def _name_fields(fields: list[str], labels: object) -> dict[Any, Any]:
    if not fields:
        raise UsageError(
            "There is nothing to compare labels with: the result's frame holds no findings."
        )
    by_field = _split_by_name(fields, labels)
    listed = ", ".join(map(repr, fields))
    if not by_field:
        raise UsageError(f"Labels are of the findings {listed}, and these name none of them.")
    if None in by_field and None not in fields:
        raise UsageError(
            "Labels are a frame, a dict, or a Series that is named like one of the findings "
            f"({listed}), not a {type(labels).__name__} without a name."
        )
    for name in by_field:
        if name not in fields:
            suggestion = did_you_mean(name, fields)
            raise UsageError(f"Labels are of the findings {listed}, not {name!r}.{suggestion}")
    return by_field


def _split_by_name(fields: list[str], labels: object) -> dict[Any, Any]:
    """Return labels by the names that they have; what has no name is of the only field."""
    if isinstance(labels, pd.DataFrame):
        known = [name for name in labels.columns if name in fields]
        return {name: labels[name] for name in known}
    if isinstance(labels, Mapping):
        return dict(labels)
    if len(fields) == 1:
        return {fields[0]: labels}
    return {getattr(labels, "name", None): labels}


def _match_rows(frame: pd.DataFrame, field: str, values: Any) -> pd.Series:
    """Return one label per row of the frame: by column name, by index, or by order."""
    if isinstance(values, str):
        if values not in frame.columns:
            raise UsageError(f"The labels of {field!r}: the frame has no column {values!r}.")
        return frame[values]
    if isinstance(values, pd.Series) and not values.index.equals(frame.index):
        return _match_index(frame.index, field, values)
    fits = isinstance(values, Sized) and len(values) == len(frame)
    if not fits:
        raise UsageError(
            f"The labels of {field!r} are a Series with the frame's index, or one label per row: "
            f"{len(frame)}."
        )
    return pd.Series(list(values), index=frame.index, dtype=object)


def _match_index(index: pd.Index, field: str, values: pd.Series) -> pd.Series:
    if not values.index.is_unique or not index.is_unique:
        raise UsageError(
            f"The labels of {field!r} cannot be matched with the rows: the index has duplicates. "
            "Pass one label per row, as a list."
        )
    if not values.index.isin(index).any():
        raise UsageError(f"The labels of {field!r} have no row of the frame in their index.")
    return values.reindex(index)


def _convert(field: str, found: pd.Series, labels: pd.Series) -> pd.Series:
    """Convert labels to the type of the findings: texts become numbers and dates."""
    kind, zone = _kind_of(found)
    try:
        values = [_convert_label(kind, zone, label) for label in labels.tolist()]
    except ValueError as error:
        raise UsageError(f"The labels of {field!r} are {WANTED[str(kind)]}; {error}.") from None
    return pd.Series(values, index=labels.index, dtype=object)


def _kind_of(found: pd.Series) -> tuple[ValueKind | None, dt.tzinfo | None]:
    """Return the one kind of a column's values, if they have one, and the time zone of times."""
    if pd.api.types.is_bool_dtype(found.dtype):
        return "bool", None
    if pd.api.types.is_numeric_dtype(found.dtype):
        return "number", None
    values = [value for value in found.tolist() if cell(value) is not None]
    if not values:
        return None, None
    for kind, types in KINDS:
        if all(isinstance(value, types) for value in values):
            return kind, values[0].tzinfo if kind == "time" else None
    return None, None


def _convert_label(kind: ValueKind | None, zone: dt.tzinfo | None, label: object) -> Any:
    """Convert one label to a kind; None if it is missing or blank.

    Raises:
        ValueError: it is not of that kind.
    """
    if cell(label) is None:
        return None
    if kind not in {"text", None} and isinstance(label, str) and not label.strip():
        return None
    match kind:
        case "bool":
            return _to_bool(plain_value(label))
        case "number":
            return _to_number(label)
        case "time":
            return _to_zone(pd.Timestamp(_to_date(label)), zone)
        case "date":
            date = _to_date(label)
            return date.date() if isinstance(date, dt.datetime) else date
        case "text":
            return _to_text(label)
    return label


def _to_bool(label: object) -> bool:
    if is_number(label) and label in {0, 1}:
        return bool(label)
    text = str(label).strip().casefold()
    if text not in TRUTHS:
        raise ValueError(f"{label!r} is neither")
    return TRUTHS[text]


def _to_number(label: object) -> Any:
    number = label
    if isinstance(label, np.generic):
        number = label.item()
    if isinstance(label, str):
        is_whole = label.strip().lstrip("+-").isdigit()
        try:
            number = int(label) if is_whole else float(label)
        except ValueError:
            raise ValueError(f"{label!r} is not a number") from None
    if isinstance(number, bool):
        return int(number)
    if not is_number(number):
        raise ValueError(f"{label!r} is not a number")
    return None if cell(number) is None else number


def _to_date(label: object) -> dt.date:
    """Convert a label to a date; to a ``datetime`` if it has a time."""
    if isinstance(label, str):
        try:
            return dt.datetime.fromisoformat(label.strip())
        except ValueError:
            raise ValueError(f"{label!r} is not ISO 8601") from None
    if isinstance(label, np.datetime64):
        return pd.Timestamp(label)
    if not isinstance(label, dt.date):
        raise ValueError(f"{label!r} is not a date")  # noqa: TRY004 (caught with the others)
    return label


def _to_zone(moment: pd.Timestamp, zone: dt.tzinfo | None) -> pd.Timestamp:
    """Convert a time to the zone of the findings; to UTC without a zone, if they have none."""
    if moment.tzinfo is None:
        return moment.tz_localize(zone)
    return moment.tz_convert(zone)


def _to_text(label: object) -> Any:
    number = plain_value(label)
    if not is_number(number):
        return label
    # A column of whole numbers with holes holds floats: 3.0 is the label "3".
    if isinstance(number, float) and number.is_integer():
        return str(int(number))
    return str(number)
