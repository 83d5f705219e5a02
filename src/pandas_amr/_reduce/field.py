"""A column as an agent may choose it to compute a number from."""

from __future__ import annotations

import datetime as dt
import operator
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from pandas_amr._units.cells import cell, to_json_line
from pandas_amr._units.profile import find_rows_holding, shorten_text, spread
from pandas_amr.errors import InvalidOutput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Kind = Literal[
    "whole number",
    "number",
    "true or false",
    "choice",
    "text",
    "date",
    "date and time",
    "time",
    "duration",
    "nested",
]

MOST_CHOICES = 50  # that a schema names; of more, only the check knows them
SHOWN_VALUES = 5
SHOWN_CHARACTERS = 40
SAMPLED_ROWS = 1000

NUMBERS: frozenset[Kind] = frozenset({"whole number", "number", "true or false"})
ORDERED: frozenset[Kind] = frozenset(
    {"whole number", "number", "date", "date and time", "time", "duration"}
)

IS_MISSING, IS_NOT_MISSING = "is missing", "is not missing"
MISSING = (IS_MISSING, IS_NOT_MISSING)
EQUAL: Mapping[str, Callable[[Any, Any], bool]] = {"=": operator.eq, "!=": operator.ne}
ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
JSON_TYPES: Mapping[Kind, str] = {
    "whole number": "number",
    "number": "number",
    "true or false": "boolean",
}  # all others are strings
INFERRED_KINDS: Mapping[str, Kind] = {
    "string": "text",
    "boolean": "true or false",
    "integer": "whole number",
    "integer-na": "whole number",
    "floating": "number",
    "mixed-integer-float": "number",
    "empty": "text",  # no value at all: whatever a condition names, no row has it
    "decimal": "number",
    "date": "date",
    "datetime": "date and time",
    "datetime64": "date and time",
    "time": "time",
    "timedelta": "duration",
    "timedelta64": "duration",
}
ARROW_KINDS: tuple[tuple[Callable[[pa.DataType], bool], Kind], ...] = (
    (pa.types.is_boolean, "true or false"),
    (pa.types.is_integer, "whole number"),
    (pa.types.is_floating, "number"),
    (pa.types.is_decimal, "number"),
    (pa.types.is_string, "text"),
    (pa.types.is_large_string, "text"),
    (pa.types.is_date, "date"),
    (pa.types.is_timestamp, "date and time"),
    (pa.types.is_time, "time"),
    (pa.types.is_duration, "duration"),
)


@dataclass(frozen=True, eq=False)
class Field:
    """A column as an agent may choose it.

    Attributes:
        key: what the agent calls it.
        column: its values, one per row that is reduced.
        is_shown: whether the agent may see its values: it is a finding, or a content column.
        source: the column of all rows. It tells the kind even if no row is left to reduce.
        kind: what sort of values it has.
        choices: the values that it can have, if it is categorical.
    """

    key: str
    column: pd.Series
    is_shown: bool
    source: pd.Series
    kind: Kind = field(init=False)
    choices: tuple[Any, ...] | None = field(init=False)

    def __post_init__(self) -> None:
        choices = None
        if isinstance(self.column.dtype, pd.CategoricalDtype):
            choices = tuple(cell(one) for one in self.column.cat.categories.tolist())
        object.__setattr__(self, "kind", kind_of(self.source))
        object.__setattr__(self, "choices", choices)

    @property
    def is_ordered(self) -> bool:
        """Whether its values have an order."""
        if self.kind == "choice":
            return bool(self.column.cat.ordered)
        return self.kind in ORDERED

    @property
    def comparisons(self) -> tuple[str, ...]:
        """The comparisons that a condition on it may use."""
        if self.kind == "nested":
            return MISSING
        if self.is_ordered:
            return (*EQUAL, *ORDER, *MISSING)
        return (*EQUAL, *MISSING)

    @property
    def value_schema(self) -> dict[str, Any]:
        """The JSON schema of the value in a condition on it."""
        null = {"type": "null"}
        if self.kind == "nested":
            return null
        if self.kind == "choice":
            return self._choice_schema()
        return {"anyOf": [{"type": JSON_TYPES.get(self.kind, "string")}, null]}

    def _choice_schema(self) -> dict[str, Any]:
        """Return the schema of a choice. It names the choices if they may be shown and are few."""
        null = {"type": "null"}
        choices = self.choices or ()
        are_texts = all(isinstance(one, str) for one in choices)
        if self.is_shown and 0 < len(choices) <= MOST_CHOICES:
            types = {"type": "string"} if are_texts else {}
            return {"anyOf": [types | {"enum": list(choices)}, null]}
        if are_texts:
            return {"anyOf": [{"type": "string"}, null]}
        return {"anyOf": [{"type": name} for name in ("string", "number", "boolean", "null")]}

    @property
    def line(self) -> str:
        """What an agent is told of it, as a line of JSON."""
        description: dict[str, Any] = {"field": self.key, "type": self.kind}
        if self.is_shown:
            description |= self._describe_values()
        return to_json_line(description)

    def _describe_values(self) -> dict[str, Any]:
        """Describe its values: all choices, the range, or the most frequent texts."""
        if self.choices is not None and len(self.choices) <= MOST_CHOICES:
            return {"choices": list(self.choices)}
        if self.kind in ORDERED:
            values = [value for value in self.cells if value is not None]
            if not values:
                return {}
            return {"lowest": cell(min(values)), "highest": cell(max(values))}
        if self.kind in {"text", "choice"}:
            return {"values": self._list_frequent()}
        return {}

    @property
    def shown_rows(self) -> list[int]:
        """The rows, by number, of which the agent sees a value that is not that of many rows."""
        if not self.is_shown:
            return []
        shown: list[Any] = []
        for description in self._describe_values().values():
            if isinstance(description, list):  # choices, or texts
                shown += description
            else:
                shown.append(description)
        cells = [cell(value) for value in shown]
        return find_rows_holding(self.column, cells, SHOWN_CHARACTERS)

    def _list_frequent(self) -> list[str]:
        """List its most frequent values in some rows from all over the table."""
        sample = self.column
        if len(sample):
            sample = sample.iloc[spread(len(sample), SAMPLED_ROWS)]
        texts = [str(cell(value)) for value in sample.tolist() if not is_missing(value)]
        frequent = Counter(texts).most_common(SHOWN_VALUES)
        return [shorten_text(text, SHOWN_CHARACTERS) for text, _ in frequent]

    @cached_property
    def cells(self) -> list[Any]:
        """Its values as they are compared and computed with.

        A missing value is None. A choice is its place among the categories.
        """
        if self.kind == "choice":
            codes: list[int] = self.column.cat.codes.tolist()
            return [None if code < 0 else code for code in codes]
        cells: list[Any] = []
        for value in self.column.tolist():
            plain = value.item() if isinstance(value, np.generic) else value
            cells.append(None if is_missing(plain) else plain)
        return cells

    @cached_property
    def is_whole(self) -> bool:
        """Whether its numbers are whole. pandas makes integers with a missing value floats."""
        if self.kind in {"whole number", "true or false"}:
            return True
        if self.kind != "number":
            return False
        return all(value is None or value == value // 1 for value in self.cells)

    def parse(self, comparison: str, value: Any) -> Any:
        """Parse the value in a condition.

        Raises:
            InvalidOutput: it is not of the field's type, or the field cannot have it.
        """
        match self.kind:
            case "whole number" | "number":
                return self._parse_number(comparison, value)
            case "true or false":
                return self._check(value, "true or false", fits=isinstance(value, bool))
            case "choice":
                return self._find_choice(value)
            case "text":
                return self._parse_text(value)
        self._check(value, f"the {self.kind} as an ISO 8601 text", fits=isinstance(value, str))
        try:
            return _parse_time(value, self.kind, self.column)
        except (ValueError, OverflowError):
            zone = "with a time zone only if the field has one"
            raise InvalidOutput(
                f"the condition on {self.key!r} takes the {self.kind} in ISO 8601, {zone}"
            ) from None

    def _check(self, value: object, wanted: str, *, fits: bool) -> Any:
        """Return the value if it fits.

        Raises:
            InvalidOutput: it does not.
        """
        if not fits:
            raise InvalidOutput(f"the condition on {self.key!r} takes {wanted}")
        return value

    def _parse_number(self, comparison: str, value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_finite = is_number and abs(value) != float("inf") and not is_nan(value)
        self._check(value, "a number", fits=is_finite)
        if comparison not in EQUAL:
            return self._as_held(value)
        if self.choices is not None and value not in self.choices:
            raise InvalidOutput(f"the condition on {self.key!r} names no value that it can take")
        fits = self.kind == "number" or value == value // 1
        return self._as_held(self._check(value, "a whole number", fits=fits))

    def _as_held(self, value: float) -> Any:
        """Return a number as the column holds it: to Python, no decimal is equal to 0.1."""
        if any(isinstance(one, Decimal) for one in self.cells):
            return Decimal(str(value))
        if is_single_precision(self.column.dtype):
            with np.errstate(over="ignore"):  # beyond all that the column can hold
                return float(np.float32(value))
        return value

    def _find_choice(self, value: object) -> int:
        """Find the place of a choice. As in JSON, true is not 1."""
        for place, choice in enumerate(self.choices or ()):
            if isinstance(choice, bool) == isinstance(value, bool) and choice == value:
                return place
        raise InvalidOutput(f"the condition on {self.key!r} names no value that it can take")

    def _parse_text(self, value: object) -> str:
        """Take any text, since a column can hold any; but not another spelling of one in it."""
        text = str(self._check(value, "a text", fits=isinstance(value, str)))
        texts = {str(one) for one in self.cells if one is not None}
        if text in texts:
            return text
        if _fold(text) in {_fold(one) for one in texts}:
            raise InvalidOutput(
                f"the condition on {self.key!r} names a text that no row has; some rows have one "
                "that differs from it only in upper and lower case, or in spaces"
            )
        return text


def kind_of(column: pd.Series) -> Kind:
    """Tell what sort of values a column holds, whatever its dtype.

    Example:
        >>> [kind_of(pd.Series(one)) for one in ([1, 2], [0.5], ["a"], [[1]], [True])]
        ['whole number', 'number', 'text', 'nested', 'true or false']
        >>> kind_of(pd.Series(["a"], dtype="category")), kind_of(pd.Series([1], dtype="category"))
        ('choice', 'whole number')
    """
    dtype = column.dtype
    if isinstance(dtype, pd.ArrowDtype):
        for fits, kind in ARROW_KINDS:
            if fits(dtype.pyarrow_dtype):
                return kind
        return "nested"
    if isinstance(dtype, pd.CategoricalDtype):
        inferred = _infer_kind(pd.Series(dtype.categories.tolist(), dtype=object))
        return inferred if inferred in NUMBERS else "choice"
    return _infer_kind(column)


def is_single_precision(dtype: Any) -> bool:
    """Tell whether a dtype is of floats of 32 bits, of numpy, of pandas or of Arrow.

    Example:
        >>> is_single_precision(pd.Float32Dtype()), is_single_precision(np.dtype(float))
        (True, False)
    """
    return bool(pd.api.types.is_float_dtype(dtype)) and getattr(dtype, "itemsize", 8) == 4


def _infer_kind(column: pd.Series) -> Kind:
    inferred = pd.api.types.infer_dtype(column, skipna=True)
    kind = INFERRED_KINDS.get(inferred, "nested")
    if kind == "date and time" and column.dtype == object:
        has_zone = {value.tzinfo is not None for value in column.tolist() if not is_missing(value)}
        if len(has_zone) != 1:  # times with a zone and times without one have no order
            return "nested"
    return kind


def is_missing(value: object) -> bool:
    """Tell whether a cell holds no value: JSON shows it as null."""
    if isinstance(value, list | tuple | dict | set | np.ndarray):
        return False
    return value is None or value is pd.NA or value is pd.NaT or is_nan(value)


def is_nan(value: object) -> bool:
    """Tell whether a value is not a number: only such a value does not equal itself."""
    return bool(value != value)  # noqa: PLR0124


def _fold(text: str) -> str:
    """Fold a text, so that other spellings of it are equal."""
    return " ".join(text.casefold().split())


def _parse_time(text: str, kind: Kind, column: pd.Series) -> Any:
    """Parse a date, a time, both or a duration into a value as the column holds it.

    A date and time without a zone is in the column's zone, if that has one. A date alone stands
    for the whole day.

    Raises:
        ValueError: it is not of the kind, or has a zone where the column has none.
    """
    if kind == "date":
        return dt.date.fromisoformat(text)
    if kind == "time":
        return _check_no_zone(dt.time.fromisoformat(text))
    if kind == "duration":
        return _parse_duration(text)
    if "T" not in text and " " not in text.strip():
        return dt.date.fromisoformat(text)
    moment = pd.Timestamp(dt.datetime.fromisoformat(text))
    zone = next((value.tzinfo for value in column.tolist() if not is_missing(value)), None)
    if zone is None:
        return _check_no_zone(moment)
    return moment if moment.tzinfo is not None else moment.tz_localize(zone)


def _check_no_zone(moment: Any) -> Any:
    if moment.tzinfo is not None:
        raise ValueError("a time zone where the column has none")
    return moment


def _parse_duration(text: str) -> pd.Timedelta:
    if not text.lstrip("-").startswith("P"):
        raise ValueError("no ISO 8601 duration")
    return pd.Timedelta(text)
