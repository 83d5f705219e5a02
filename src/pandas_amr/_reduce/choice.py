"""How a number is computed: a function of a field, over the rows that meet conditions."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from pandas_amr._findings.output import number_type
from pandas_amr._reduce.field import EQUAL, IS_MISSING, IS_NOT_MISSING, MISSING, ORDER, is_nan
from pandas_amr.errors import InvalidOutput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pandas_amr._reduce.field import Field

COMPARE = {**EQUAL, **ORDER}


@dataclass(frozen=True)
class Condition:
    """What rows must meet: a field, how it is compared, and with what."""

    field: Field
    comparison: str
    value: Any = None

    def is_met(self) -> NDArray[np.bool_]:
        """Tell for each row whether it meets the condition.

        A row without a value meets ``is missing`` only.
        """
        values = self.field.cells
        if self.comparison in MISSING:
            missing = np.array([value is None for value in values], dtype=bool)
            return missing if self.comparison == IS_MISSING else ~missing
        if self.field.kind == "date and time" and type(self.value) is dt.date:
            # A day alone stands for all its hours.
            values = [None if value is None else value.date() for value in values]
        compare = COMPARE[self.comparison]
        is_met = [value is not None and bool(compare(value, self.value)) for value in values]
        return np.array(is_met, dtype=bool)


@dataclass(frozen=True, eq=False)
class Choice:
    """How a number is computed: a function of a field, or of rows, that meet all conditions.

    Attributes:
        field: the field; None if rows are counted.
        rows: which rows have a finding.
    """

    function: str
    field: Field | None
    conditions: tuple[Condition, ...]
    rows: NDArray[np.bool_]

    @property
    def name(self) -> str:
        """What it is, for a message."""
        return self.function if self.field is None else f"{self.function} of {self.field.key!r}"

    def match_rows(self) -> Matches:
        """Tell for each row whether it counts, and whether it meets all conditions."""
        counts = self.rows.copy()
        if self.field is not None:
            counts &= Condition(self.field, IS_NOT_MISSING).is_met()
        is_met = counts.copy()
        for condition in self.conditions:
            is_met &= condition.is_met()
        return Matches(counts, is_met)

    def compute(self, matches: Matches, places: NDArray[np.int64]) -> Any:
        """Compute the number over the rows at some places, a group's or all.

        Returns:
            None if there is no such number, as for the mean of no values.
        """
        places_met = matches.select(places)
        if self.function == "count":
            return len(places_met)
        if self.function in {"share", "percent"}:
            total = int(matches.counts[places].sum())
            if not total:
                return None
            factor = 100 if self.function == "percent" else 1
            return factor * len(places_met) / total
        assert self.field is not None
        values = self.field.cells
        return _aggregate(self.function, [values[place] for place in places_met])


@dataclass(frozen=True, eq=False)
class Matches:
    """Which rows a choice is about.

    Attributes:
        counts: whether a row counts: it has a finding, and a value in the field.
        is_met: whether it counts and meets all conditions.
    """

    counts: NDArray[np.bool_]
    is_met: NDArray[np.bool_]

    def select(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the places of the rows that meet all conditions."""
        return places[self.is_met[places]]


def _aggregate(function: str, values: list[Any]) -> Any:
    """Aggregate values, none of them missing. Whole numbers and decimals are exact at any size."""
    if function == "nunique":
        return len(set(values))
    is_exact = all(isinstance(value, int | Decimal) for value in values)
    if function == "sum" and is_exact:
        return sum(values)
    if not values:
        return None
    if function == "min":
        return min(values)
    if function == "max":
        return max(values)
    if function == "mean" and is_exact:
        return sum(values) / len(values)
    return float(pd.Series(values, dtype=float).agg(function))


def convert_number(value: Any, output: Any, *, in_column: bool = False) -> int | float:
    """Convert a computed number to the type that is asked for.

    Args:
        value: the number; None or NaN if it has no values.
        output: the type.
        in_column: whether a column will hold it.

    Raises:
        InvalidOutput: it has no values, or the type or the column cannot hold it.
    """
    number = number_type(output)
    assert number is not None
    if value is None or is_nan(value):
        raise InvalidOutput("it has no values")
    if number is int and in_column and not -(2**63) <= value < 2**63:
        raise InvalidOutput("it is beyond 64 bits")
    try:
        plain = value
        if number is int:
            plain = int(value)
        elif not isinstance(value, Decimal):
            plain = float(value)
        converted: int | float = TypeAdapter(output).validate_python(plain)
    except (ValidationError, OverflowError):
        raise InvalidOutput("the type that is asked for does not take it") from None
    return converted
