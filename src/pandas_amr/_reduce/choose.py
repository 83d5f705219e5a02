"""A number that agents are asked for: one of them chooses how it is computed, or that it is to be written."""

from __future__ import annotations

import datetime as dt
import json
import operator
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from pandas_amr._findings.output import OutputType
from pandas_amr._types.schema import closed_object, without_none
from pandas_amr._units.cells import cell, line_of, reader_keys
from pandas_amr._units.profile import shortened, spread
from pandas_amr.errors import InvalidOutput

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from numpy.typing import NDArray

    from pandas_amr._agent.loop import Answer
    from pandas_amr._findings.citations import Support
    from pandas_amr._findings.inputs import Input

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

MOST_FIELDS = 200  # that an agent is shown; more would fill its window
MOST_CHOICES = 50  # that a schema names; of more, the check alone knows
SHOWN_VALUES = 5
SHOWN_CHARACTERS = 40
SAMPLED_ROWS = 1000

WRITTEN = "written"
OF_ROWS = ("count", "share", "percent")  # of rows, or of those that have a value in a field
OF_NUMBERS = ("sum", "mean", "median", "min", "max")
FUNCTIONS: Mapping[type, tuple[str, ...]] = {
    int: ("count", "nunique", "sum", "min", "max"),
    float: (*OF_ROWS, "nunique", *OF_NUMBERS),
}
NUMBERS = frozenset({"whole number", "number", "true or false"})

IS_MISSING, IS_THERE = "is missing", "is not missing"
MISSING = (IS_MISSING, IS_THERE)
EQUAL: Mapping[str, Callable[[Any, Any], bool]] = {"=": operator.eq, "!=": operator.ne}
ORDER: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
ORDERED = frozenset({"whole number", "number", "date", "date and time", "time", "duration"})
INFERRED: Mapping[str, Kind] = {
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
ARROW: tuple[tuple[Callable[[pa.DataType], bool], Kind], ...] = (
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


def number_type(output: Any) -> type[int | float] | None:
    """Tell which number an output is; None if it is something else.

    Example:
        >>> number_type(int | None), number_type(Annotated[float, "a share"]), number_type(bool)
        (<class 'int'>, <class 'float'>, None)
    """
    kind, _ = without_none(output)
    if get_origin(kind) is Annotated:
        return number_type(get_args(kind)[0])
    if get_origin(kind) is not None:  # int | float among them
        return float if set(get_args(kind)) == {int, float} else None
    if kind is int:
        return int
    return float if kind in (float, Decimal) else None


@dataclass(frozen=True, eq=False)
class Field:
    """A column as an agent may choose it.

    Attributes:
        key: what the agent calls it.
        column: its values, one per row that is reduced.
        kind: what sort of values it has.
        read: whether its values may be shown: it is a finding, or a content column.
        source: the column of all rows; that no row is left to reduce does not change what sort of values it has.
    """

    key: str
    column: pd.Series
    read: bool
    source: pd.Series
    kind: Kind = field(init=False)
    choices: tuple[Any, ...] | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", kind_of(self.source))
        categories = (
            self.column.cat.categories
            if isinstance(self.column.dtype, pd.CategoricalDtype)
            else None
        )
        choices = None if categories is None else tuple(cell(one) for one in categories.tolist())
        object.__setattr__(self, "choices", choices)

    @property
    def ordered(self) -> bool:
        """Whether its values have an order."""
        return self.kind in ORDERED or (self.kind == "choice" and bool(self.column.cat.ordered))

    @property
    def comparisons(self) -> tuple[str, ...]:
        """What its values can be asked for."""
        if self.kind == "nested":
            return MISSING
        return (*EQUAL, *(ORDER if self.ordered else ()), *MISSING)

    @property
    def value_schema(self) -> dict[str, Any]:
        """The JSON schema of what they are compared with."""
        null = {"type": "null"}
        if self.kind == "nested":
            return null
        if (
            self.kind == "choice"
            and self.read
            and self.choices
            and len(self.choices) <= MOST_CHOICES
        ):
            texts = {"type": "string"} if all(isinstance(one, str) for one in self.choices) else {}
            return {"anyOf": [texts | {"enum": list(self.choices)}, null]}
        if self.kind == "choice" and not all(isinstance(one, str) for one in self.choices or ()):
            return {"anyOf": [{"type": name} for name in ("string", "number", "boolean", "null")]}
        names = {"whole number": "number", "number": "number", "true or false": "boolean"}
        return {"anyOf": [{"type": names.get(self.kind, "string")}, null]}

    @property
    def line(self) -> str:
        """What an agent is told of it, as a line of JSON; nothing of its values if they are not to be read."""
        told: dict[str, Any] = {"field": self.key, "type": self.kind}
        if not self.read:
            return line_of(told)
        if self.choices is not None and len(self.choices) <= MOST_CHOICES:
            return line_of(told | {"choices": list(self.choices)})
        if self.kind in ORDERED:
            there = [value for value in self.cells if value is not None]
            return line_of(
                told | ({"lowest": cell(min(there)), "highest": cell(max(there))} if there else {})
            )
        if self.kind in {"text", "choice"}:
            return line_of(told | {"values": self._frequent()})
        return line_of(told)

    def _frequent(self) -> list[str]:
        """List its most frequent values in some rows from all over the table."""
        sample = (
            self.column.iloc[spread(len(self.column), SAMPLED_ROWS)]
            if len(self.column)
            else self.column
        )
        counts = Counter(str(cell(value)) for value in sample.tolist() if not is_missing(value))
        return [shortened(text, SHOWN_CHARACTERS) for text, _ in counts.most_common(SHOWN_VALUES)]

    @cached_property
    def cells(self) -> list[Any]:
        """Its values as they are compared and computed with; None if one is missing, the place of a choice."""
        if self.kind == "choice":
            codes: list[int] = self.column.cat.codes.tolist()
            return [None if code < 0 else code for code in codes]
        given = [
            value.item() if isinstance(value, np.generic) else value
            for value in self.column.tolist()
        ]
        return [None if is_missing(value) else value for value in given]

    @cached_property
    def whole(self) -> bool:
        """Whether its numbers are whole: those of integers that turned float by a missing value are."""
        if self.kind in {"whole number", "true or false"}:
            return True
        return self.kind == "number" and all(
            value is None or value == value // 1 for value in self.cells
        )

    def parsed(self, comparison: str, value: Any) -> Any:
        """Read what its values are compared with.

        Raises:
            InvalidOutput: it is not of the field's type, or none of the values that the field can take.
        """
        match self.kind:
            case "whole number" | "number":
                return self._number(comparison, value)
            case "true or false":
                return self._checked(value, "true or false", fits=isinstance(value, bool))
            case "choice":
                return self._place(value)
            case "text":
                return self._text(value)
        self._checked(value, f"the {self.kind} as an ISO 8601 text", fits=isinstance(value, str))
        try:
            return _read_date(value, self.kind, self.column)
        except (ValueError, OverflowError):
            zone = "with a time zone only if the field has one"
            raise InvalidOutput(
                f"the condition on {self.key!r} takes the {self.kind} in ISO 8601, {zone}"
            ) from None

    def _checked(self, value: Any, wanted: str, *, fits: bool) -> Any:
        if not fits:
            raise InvalidOutput(f"the condition on {self.key!r} takes {wanted}")
        return value

    def _number(self, comparison: str, value: Any) -> Any:
        numeric = (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and abs(value) != float("inf")
        )
        self._checked(value, "a number", fits=numeric and not is_nan(value))
        if comparison not in EQUAL:
            return value
        if self.choices is not None and value not in self.choices:
            raise InvalidOutput(f"the condition on {self.key!r} names no value that it can take")
        return self._checked(
            value, "a whole number", fits=self.kind == "number" or value == value // 1
        )

    def _place(self, value: Any) -> int:
        """Find a choice: as JSON tells values apart, to which true is not 1."""
        for place, choice in enumerate(self.choices or ()):
            if isinstance(choice, bool) == isinstance(value, bool) and choice == value:
                return place
        raise InvalidOutput(f"the condition on {self.key!r} names no value that it can take")

    def _text(self, value: Any) -> str:
        """Take any text, for a column can hold any; but not another spelling of what stands in it."""
        text = str(self._checked(value, "a text", fits=isinstance(value, str)))
        there = {str(one) for one in self.cells if one is not None}
        if text not in there and _folded(text) in {_folded(one) for one in there}:
            raise InvalidOutput(
                f"the condition on {self.key!r} names a text that no row has; some have one that differs from it in "
                "upper and lower case, or in spaces, only"
            )
        return text


@dataclass(frozen=True)
class Condition:
    """What rows must meet: a field, how it is compared, and with what."""

    field: Field
    comparison: str
    value: Any = None

    def met(self) -> NDArray[np.bool_]:
        """Tell of each row whether it meets the condition; one without a value meets ``is missing`` alone."""
        values = self.field.cells
        if self.comparison in MISSING:
            missing = np.array([value is None for value in values], dtype=bool)
            return missing if self.comparison == IS_MISSING else ~missing
        if (
            self.field.kind == "date and time" and type(self.value) is dt.date
        ):  # a day, whatever the hour
            values = [None if value is None else value.date() for value in values]
        compare = (EQUAL | ORDER)[self.comparison]  # type: ignore[operator]
        return np.array(
            [value is not None and bool(compare(value, self.value)) for value in values], dtype=bool
        )


@dataclass(frozen=True, eq=False)
class Choice:
    """How a number is computed: by a function, of a field or of rows, over the rows that meet all conditions."""

    function: str
    field: Field | None
    conditions: tuple[Condition, ...]
    rows: NDArray[np.bool_]

    @property
    def called(self) -> str:
        """What it is, in words for a list of failures."""
        return self.function if self.field is None else f"{self.function} of {self.field.key!r}"

    def there(self) -> NDArray[np.bool_]:
        """Tell which rows are looked at: those of which something was found, with a value in the field."""
        if self.field is None:
            return self.rows.copy()
        return self.rows & Condition(self.field, IS_THERE).met()

    def met(self) -> NDArray[np.bool_]:
        """Tell which of these rows meet all conditions."""
        met = self.there()
        for condition in self.conditions:
            met &= condition.met()
        return met

    def computed(
        self, there: NDArray[np.bool_], met: NDArray[np.bool_], rows: NDArray[np.int64]
    ) -> Any:
        """Compute the number over some rows, a group's or all; None if it has none, as a mean of no values."""
        chosen = rows[met[rows]]
        if self.function == "count":
            return len(chosen)
        if self.function in {"share", "percent"}:
            of = int(there[rows].sum())
            parts = 100 if self.function == "percent" else 1
            return parts * len(chosen) / of if of else None
        assert self.field is not None
        values = self.field.cells
        return _aggregated(self.function, [values[row] for row in chosen])


def _aggregated(function: str, values: list[Any]) -> Any:
    """Aggregate values, none of them missing. Whole numbers and decimals are exact at any size."""
    if function == "nunique":
        return len(set(values))
    exact = all(isinstance(value, int | Decimal) for value in values)
    if function == "sum" and exact:
        return sum(values)
    if not values:
        return None
    if function in {"min", "max"}:
        return min(values) if function == "min" else max(values)
    if function == "mean" and exact:
        return sum(values) / len(values)
    return float(pd.Series(values, dtype=float).agg(function))


def kind_of(column: pd.Series) -> Kind:
    """Tell what sort of values a column holds, whatever holds them.

    Example:
        >>> [kind_of(pd.Series(one)) for one in ([1, 2], [0.5], ["a"], [[1]], [True])]
        ['whole number', 'number', 'text', 'nested', 'true or false']
        >>> kind_of(pd.Series(["a"], dtype="category")), kind_of(pd.Series([1], dtype="category"))
        ('choice', 'whole number')
    """
    dtype = column.dtype
    if isinstance(dtype, pd.ArrowDtype):
        return next((kind for fits, kind in ARROW if fits(dtype.pyarrow_dtype)), "nested")
    if isinstance(dtype, pd.CategoricalDtype):
        inferred = _inferred(pd.Series(dtype.categories.tolist(), dtype=object))
        return inferred if inferred in NUMBERS else "choice"
    return _inferred(column)


def _inferred(column: pd.Series) -> Kind:
    kind = INFERRED.get(pd.api.types.infer_dtype(column, skipna=True), "nested")
    if kind == "date and time" and column.dtype == object:
        zoned = {value.tzinfo is not None for value in column.tolist() if not is_missing(value)}
        return (
            kind if len(zoned) == 1 else "nested"
        )  # with a zone and without one, they have no order
    return kind


def is_missing(value: Any) -> bool:
    """Tell whether a cell holds nothing; what JSON shows as null does."""
    if isinstance(value, list | tuple | dict | set | np.ndarray):
        return False
    return value is None or value is pd.NA or value is pd.NaT or is_nan(value)


def is_nan(value: Any) -> bool:
    """Tell whether a value is not a number: such a value alone does not equal itself."""
    return bool(value != value)  # noqa: PLR0124


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _read_date(text: str, kind: Kind, column: pd.Series) -> Any:
    """Read a date, a time or both as the values of a column are.

    Raises:
        ValueError: it is none, or has a zone where the column has none.
    """
    if kind == "date":
        return dt.date.fromisoformat(text)
    if kind == "time":
        return _without_zone(dt.time.fromisoformat(text))
    if kind == "duration":
        return _read_duration(text)
    if "T" not in text and " " not in text.strip():
        return dt.date.fromisoformat(text)
    moment = pd.Timestamp(dt.datetime.fromisoformat(text))
    zone = next((value.tzinfo for value in column.tolist() if not is_missing(value)), None)
    if zone is None:
        return _without_zone(moment)
    return moment if moment.tzinfo is not None else moment.tz_localize(zone)


def _without_zone(moment: Any) -> Any:
    if moment.tzinfo is not None:
        raise ValueError("a time zone where the column has none")
    return moment


def _read_duration(text: str) -> pd.Timedelta:
    if not text.lstrip("-").startswith("P"):
        raise ValueError("no ISO 8601 duration")
    return pd.Timedelta(text)


@dataclass(frozen=True, eq=False)
class Fields:
    """What an agent may choose from: the fields, and the functions that give the number that is asked for.

    Attributes:
        rows: which rows count.
        left_out: how many columns are not among them, there being too many.
    """

    fields: Mapping[str, Field]
    kind: type[int | float]
    rows: NDArray[np.bool_]
    left_out: int = 0

    @classmethod
    def of(
        cls,
        columns: Sequence[tuple[Hashable, pd.Series, bool, pd.Series]],
        *,
        kind: type[int | float],
        rows: NDArray[np.bool_],
        counted: bool,
    ) -> Fields:
        """Make fields of columns, called as reducers read them.

        Args:
            columns: each column's label, its values, whether they may be shown, and the column of all rows; first those
                that reducers read.
            kind: the number that is asked for.
            rows: which rows count: something was found of them.
            counted: whether reducers read how many equal rows there are.
        """
        keys = reader_keys([label for label, *_ in columns], counted=counted)
        shown = list(zip(keys, columns, strict=True))[:MOST_FIELDS]
        made = {key: Field(key, values, read, source) for key, (_, values, read, source) in shown}
        return cls(made, kind, rows, len(columns) - len(shown))

    @property
    def functions(self) -> tuple[str, ...]:
        """The functions that can give the number, of one field at least."""
        wanted = FUNCTIONS[self.kind]
        usable = [
            one
            for one in self.fields.values()
            if one.kind in NUMBERS and (self.kind is float or one.whole)
        ]
        return tuple(one for one in wanted if one not in OF_NUMBERS or usable)

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of a choice."""
        shapes: dict[str, list[Field]] = {}
        for one in self.fields.values():
            shapes.setdefault(json.dumps([one.comparisons, one.value_schema]), []).append(one)
        conditions = [_condition_schema(alike) for alike in shapes.values()]
        null = {"type": "null"}
        of = {"type": "string", "enum": list(self.fields)}
        properties: dict[str, Any] = {
            "field": {"anyOf": [of, null]} if self.fields else null,
            "function": {"type": "string", "enum": [*self.functions, WRITTEN]},
            "condition": {"anyOf": [{"type": "array", "items": _any_of(conditions)}, null]}
            if conditions
            else null,
        }
        return closed_object(properties)

    @property
    def lines(self) -> list[str]:
        """What an agent is told of each field, as JSON."""
        return [one.line for one in self.fields.values()]

    def checked(self, given: Mapping[str, Any]) -> Choice | None:
        """Check a choice; None if the number is to be written.

        Raises:
            InvalidOutput: it cannot be computed, or does not give the number that is asked for.
        """
        unknown = given.keys() - {"field", "function", "condition"}
        if unknown:
            raise InvalidOutput(
                "a choice has `field`, `function` and `condition`, and nothing beside them"
            )
        function = given.get("function")
        if function == WRITTEN:
            return None
        if function not in self.functions:
            number = "a whole number" if self.kind is int else "a number"
            raise InvalidOutput(
                f"the answer is {number}: `function` is one of {', '.join((*self.functions, WRITTEN))}"
            )
        conditions = given.get("condition")
        if not isinstance(conditions, list | None):
            raise InvalidOutput("`condition` is a list of conditions that all must hold, or null")
        choice = Choice(
            function,
            None if given.get("field") is None else self._field(given["field"], "`field`"),
            tuple(self._condition(one) for one in conditions or ()),
            self.rows,
        )
        self._check_function(choice)
        return choice

    def _field(self, key: Any, what: str) -> Field:
        if not isinstance(key, str) or key not in self.fields:
            raise InvalidOutput(
                f"{what} is one of the fields shown, or null if `function` is count, share or percent"
            )
        return self.fields[key]

    def _condition(self, given: Any) -> Condition:
        if not isinstance(given, dict) or not {"field", "comparison"} <= given.keys() <= {
            "field",
            "comparison",
            "value",
        }:
            raise InvalidOutput(
                "a condition has `field`, `comparison` and `value`, and nothing beside them"
            )
        one = self._field(given["field"], "a condition's `field`")
        comparison, value = given["comparison"], given.get("value")
        if comparison not in one.comparisons:
            raise InvalidOutput(
                f"the condition on {one.key!r} compares by one of {', '.join(one.comparisons)}"
            )
        if comparison in MISSING:
            if value is not None:
                raise InvalidOutput(
                    f"the condition on {one.key!r} takes the value null: {comparison!r} says it all"
                )
            return Condition(one, comparison)
        if value is None:
            raise InvalidOutput(
                f"the condition on {one.key!r} takes a value; rows without one are asked for by {IS_MISSING!r}"
            )
        return Condition(one, comparison, one.parsed(comparison, value))

    def _check_function(self, choice: Choice) -> None:
        """Refuse what a function cannot be taken of."""
        of = choice.field
        if choice.function in {"share", "percent"} and not choice.conditions:
            raise InvalidOutput(
                f"{choice.function!r} takes a condition: it is of the rows that meet it among all"
            )
        if choice.function in OF_ROWS:
            return
        if of is None:
            raise InvalidOutput(f"{choice.function!r} takes a field")
        if choice.function == "nunique":
            if of.kind == "nested":
                raise InvalidOutput(f"{choice.called} cannot be counted: its values are nested")
            return
        if of.kind not in NUMBERS:
            raise InvalidOutput(
                f"{choice.function!r} takes a field of numbers; {of.key!r} holds {of.kind}"
            )
        if self.kind is int and not of.whole:
            raise InvalidOutput(f"the answer is a whole number, and {of.key!r} holds others")


def _condition_schema(alike: Sequence[Field]) -> dict[str, Any]:
    """The JSON schema of a condition on fields whose values are compared alike."""
    first = alike[0]
    return closed_object(
        {
            "field": {"type": "string", "enum": [one.key for one in alike]},
            "comparison": {"type": "string", "enum": list(first.comparisons)},
            "value": first.value_schema,
        }
    )


def _any_of(schemas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}


class ChoiceType(OutputType):
    """A reduction that is a choice of how a number is computed; its value is a ``Choice``, or None."""

    strict = False  # `Fields.checked` says what is wrong with a choice

    def __init__(self, fields: Fields) -> None:
        super().__init__(dict[str, Any])
        self._fields = fields
        self.schema = self._asked = fields.schema
        self.insists = False  # whether the last answer was a number, whatever was said

    def read(
        self, answer: Answer, inputs: Sequence[Input]
    ) -> tuple[Choice | None, tuple[Support, ...]]:
        """The choice, checked, and what the agent says that it rests on.

        Raises:
            InvalidOutput: it cannot be computed.
        """
        output = answer.payload.get("output") if isinstance(answer.payload, dict) else None
        self.insists = isinstance(output, int | float) and not isinstance(output, bool)
        if self.insists:
            raise InvalidOutput(
                f"`output` says how the number is computed, or {WRITTEN!r}; it is not the number itself"
            )
        given, support = super().read(answer, inputs)
        return self._fields.checked(given), support


def as_number(value: Any, output: Any, *, held: bool = False) -> int | float:
    """Convert a computed number to the type that is asked for; ``held`` is one that a column is to hold.

    Raises:
        InvalidOutput: the type forbids it, or it is no number.
    """
    kind = number_type(output)
    assert kind is not None
    if value is None or is_nan(value):
        raise InvalidOutput("it has no values")
    try:
        if kind is int and held and not -(2**63) <= value < 2**63:
            raise InvalidOutput("it is beyond 64 bits")
        plain = int(value) if kind is int else value if isinstance(value, Decimal) else float(value)
        checked: int | float = TypeAdapter(output).validate_python(plain)
    except (ValidationError, OverflowError):
        raise InvalidOutput("the type that is asked for does not take it") from None
    return checked
