"""Check whether pandas can compute what a call asks for, before the findings are paid for.

The computation is tried on a few rows of the frame, beside typical values of the fields that are
still to be found.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd

from pandas_amr._findings.columns import add_findings
from pandas_amr._plan.aggregations import (
    PURE_PACKAGES,
    SHARE,
    Aggregation,
    as_list,
    column_of,
    columns_of,
    function_of,
    is_named,
    name_of,
)
from pandas_amr._plan.compute import aggregate, all_labels, rank_rows
from pandas_amr._plan.output_fit import (
    SCALARS,
    describe_value,
    fits_output,
    type_name,
    unbounded_type,
)
from pandas_amr._plan.sample_rows import choose_rows, column_positions, typical_column
from pandas_amr._records.quiet import ignore_warnings
from pandas_amr._types.arrow import field_kind
from pandas_amr._units.by import By, column, describe_key, group_numbers, has_frequency, is_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from pandas_amr._plan.aggregations import Aggregations
    from pandas_amr._plan.call import ColumnTypes
    from pandas_amr._plan.plan import Ranking

PARTS = 7  # how many beginnings of the rows an output is tried on
ONE_GROUP = "amr_group"
ONE_COLUMN = "amr_column"
TYPICAL_ROWS = 10  # each typical value twice, and a missing one
ARGUMENTS = {
    "min": "values that have an order",
    "max": "values that have an order",
    "value_counts": "single values",
    SHARE: "single values",
    "nunique": "single values",
}  # what an aggregation takes; all others take numbers
SORTS = {
    "number": "numbers",
    "bool": "bools",
    "text": "texts",
    "choices": "choices",
    "date": "dates or times",
    "nested": "lists or records",
}


@dataclass(frozen=True)
class FeasibilityCheck:
    """A few rows like those that will be reduced, on which a computation is tried.

    Each ``..._problem`` method returns None if there is no problem, or if only the run can tell.

    Attributes:
        frame: the frame.
        fields: the types of the fields that are still to be found, by column.
        used: the labels of the columns that are computed.
        keys: how the frame's rows are grouped.
        may_choose_none: whether a run may have no row to reduce.
    """

    frame: pd.DataFrame
    fields: ColumnTypes
    used: Iterable[Any]
    keys: By | None = None
    may_choose_none: bool = False

    @cached_property
    def _columns(self) -> list[int]:
        """The positions of the frame's columns that are computed, or group the rows."""
        key_labels = [] if self.keys is None else self.keys.labels
        return column_positions(self.frame, [*self.used, *key_labels])

    @cached_property
    def _rows(self) -> NDArray[np.int64]:
        """The positions of rows in which these columns show all kinds of their values."""
        columns = [self.frame.iloc[:, position] for position in self._columns]
        keys = [] if self.keys is None else self.keys.keys
        series = [key for key in keys if isinstance(key, pd.Series)]
        return choose_rows(len(self.frame), columns + series)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Rows of the frame, beside typical values of the fields that are still to be found."""
        frame = self.frame.set_flags(allows_duplicate_labels=True)
        part = frame.iloc[self._rows, self._columns]
        typical = pd.DataFrame(
            {name: typical_column(kind, len(part)) for name, kind in self.fields.items()},
            index=part.index,
        )
        return add_findings(part, typical)

    @cached_property
    def by(self) -> By | None:
        """How the rows of the table are grouped."""
        return None if self.keys is None else self.keys.at(self._rows, self.table.index)

    def rows_problem(self, where: object, ranking: Ranking | None) -> str | None:
        """Tell why the rows cannot be chosen, grouped or ranked."""
        return self.where_problem(where) or self.by_problem() or self.ranking_problem(ranking)

    def where_problem(self, where: object) -> str | None:
        """Tell why a column cannot choose rows."""
        if where in self.fields and field_kind(self.fields[where]) != "bool":
            return f"where={where!r} takes a bool field of the finding; {self._describe(where)}"
        return None

    def by_problem(self) -> str | None:
        """Tell why the rows cannot be grouped."""
        by = self.by
        if by is None or not self._has_columns(by.labels):
            return None
        if not _raises(group_numbers, self.table, by):
            return None
        for key in by.keys:
            if _raises(group_numbers, self.table, by.replace_keys([key])):
                return self._key_problem(key)
        return "by= cannot group by these keys together"

    def _key_problem(self, key: object) -> str:
        if isinstance(key, pd.Grouper):
            if has_frequency(key):
                reason = "freq= takes a column, or an index level, of dates"
            else:
                reason = "pd.Grouper takes key=, a column, or level=, a level of the index"
            return f"by={describe_key(key)} cannot group the rows: {reason}"
        if is_code(key):
            json_key = describe_key(key)
        elif key in self.fields:
            return f"by={key!r} takes single values, not lists; {self._describe(key)}"
        else:
            json_key = repr(key)
        return (
            f"by={json_key} takes single values of one kind that can be compared, "
            "not lists or dicts"
        )

    def ranking_problem(self, ranking: Ranking | None) -> str | None:
        """Tell why the rows cannot be ranked."""
        if ranking is None or not self._has_columns([ranking.field]):
            return None
        if not _raises(self._rank, ranking):
            return None
        return (
            f"ranking by {ranking.field!r} takes numbers or dates, "
            f"or else values of one kind that have an order; {self._describe(ranking.field)}"
        )

    def _rank(self, ranking: Ranking) -> None:
        values = column(self.table, ranking.field)
        values[values.notna()].max()  # fails for categories without an order
        rank_rows(
            self.table,
            ranking.field,
            most=ranking.most,
            lowest_first=ranking.lowest_first,
            by=self.by,
        )

    def aggregation_problem(self, name: object, how: object) -> str | None:
        """Tell why a column cannot be aggregated."""
        label = column_of(name, how)
        if not self._has_columns([label]):
            return None
        functions = function_of(how)
        for function in as_list(functions):
            if not _may_be_tried(function) or self._is_computed_of_any(label, function):
                continue
            alone = {name: (label, function)} if is_named(how) else {label: function}
            if self._fails_by_groups(alone):
                return self._unfit_problem(label, function)
            if callable(function) and self._fails_on_parts(label, alone):
                return self._unfit_problem(label, function)
        if not isinstance(functions, list):
            return None  # it was tried above
        if _may_all_be_tried([how]) and self._fails({name: how}):
            return (
                f"pandas cannot compute {_name_functions(how)} of {label!r}; "
                "say one function, or a list of their names"
            )
        return None

    def _is_computed_of_any(self, label: object, function: object) -> bool:
        """Whether a field's type alone tells that pandas computes it: of all rows, by its name."""
        if self.keys is not None or label not in self.fields or not isinstance(function, str):
            return False
        try:
            return _computes(function, self.fields[label])
        except TypeError:  # a type that cannot be hashed
            return False

    def _fails(self, aggregations: Aggregations) -> bool:
        """Whether pandas cannot compute aggregations."""
        return _raises(aggregate, self.table, aggregations, self._usable_by)

    def _fails_by_groups(self, aggregations: Aggregations) -> bool:
        """Whether pandas cannot compute aggregations, however the rows fall into groups."""
        if self._fails(aggregations):
            return True
        if self._usable_by is None:
            return False
        return _raises(_aggregate_one_group, self.table, aggregations)

    def _fails_on_parts(self, label: object, aggregations: Aggregations) -> bool:
        """Whether a function cannot take only missing values, no missing value, one row, or no row.

        A run may call it with any of these. (The aggregations that pandas has by name take all.)
        """
        missing = column(self.table, label).isna().to_numpy()
        first_row = np.arange(min(1, len(missing)))
        parts = [np.flatnonzero(missing), np.flatnonzero(~missing), first_row]
        parts = [rows for rows in parts if len(rows)]
        if self.may_choose_none:
            parts.append(np.arange(0))
        return any(self._fails_on_rows(rows, aggregations) for rows in parts)

    def _fails_on_rows(self, rows: NDArray[np.int64], aggregations: Aggregations) -> bool:
        part = self.table.iloc[rows]
        by = self._usable_by
        if by is not None:
            by = by.at(rows, part.index)
        return _raises(aggregate, part, aggregations, by)

    def _fails_on_missing_values(self, label: object, function: object) -> bool:
        """Whether a function fails, but not on the rows that have a value."""
        if not callable(function):
            return False
        rows = np.flatnonzero(column(self.table, label).notna().to_numpy())
        if len(rows) == len(self.table):
            return False
        return not self._fails_on_rows(rows, {label: function})

    def _fails_only_by_groups(self, label: object, function: object) -> bool:
        if self._usable_by is None:
            return False
        return not _raises(aggregate, self.table, {label: function}, None)

    def _unfit_problem(self, label: object, function: object) -> str:
        name = name_of(function)
        takes = ARGUMENTS.get(name, "numbers")
        if self._fails_on_missing_values(label, function):
            takes = "no missing value, such as that of a unit that failed"
        elif self._fails_only_by_groups(label, function):
            takes = "a whole column, not groups"
        names = get_args(Aggregation)
        possible = [word for word in names if not self._fails_by_groups({label: word})]
        return (
            f"{name!r} takes {takes}; {self._describe(label)}. "
            f"What can be computed of it: {', '.join(possible) or 'nothing'}, "
            "or a function of yours"
        )

    def joint_problem(self, aggregations: Aggregations) -> str | None:
        """Tell whether aggregations that can be computed alone cannot be computed together."""
        tried = {name: how for name, how in aggregations.items() if _may_all_be_tried([how])}
        labels = columns_of(tried)
        if not tried or not self._has_columns(labels):
            return None
        if not self._fails(tried):
            return None
        names = ", ".join(map(repr, tried))
        return (
            f"pandas cannot compute {names} side by side; name each: {{name: (column, function)}}"
        )

    def output_problem(self, aggregations: Aggregations, output: object) -> str | None:
        """Tell why what is computed is not of the type that is asked for."""
        if output is None or not self._can_try_output(aggregations):
            return None
        kind = unbounded_type(output)
        if kind is None:
            return None
        grouped = self._usable_by is not None
        total = len(self.table)
        sizes = [*range(1, PARTS + 1), total] if total else [0]
        for size in sizes:
            value = self._compute_first(size, aggregations)
            # Of no rows, most fields of a record are missing.
            all_rows = size == total and (size > 0 or output in SCALARS)
            if fits_output(value, kind, output, grouped=grouped, all_rows=all_rows):
                continue
            return (
                f"The reduce gave no {type_name(output)} when it was tried: "
                f"{_describe_aggregations(aggregations)} gives {describe_value(value)}. "
                "Leave output= out, or ask for that type"
            )
        return None

    def _can_try_output(self, aggregations: Aggregations) -> bool:
        if not aggregations or (self.by is not None and self._usable_by is None):
            return False
        labels = columns_of(aggregations)
        return self._has_columns(labels) and _may_all_be_tried(aggregations.values())

    def _compute_first(self, size: int, aggregations: Aggregations) -> Any:
        """Compute the first rows; if the rows are grouped and not all are taken, as one group."""
        part = self.table.iloc[:size]
        by = self._usable_by
        if by is not None and size != len(self.table):
            by = _as_one_group(part)
        return _without_warnings(aggregate, part, aggregations, by)

    @property
    def _usable_by(self) -> By | None:
        """How the rows are grouped; None if a key is a field that is still to be planned."""
        by = self.by
        return by if by is not None and self._has_columns(by.labels) else None

    def _has_columns(self, labels: Sequence[Any]) -> bool:
        """Whether all labels are known; what a function without a type finds is not."""
        frame = self.frame
        columns = all_labels(frame) | self.fields.keys() | set(frame.index.names)
        return all(label in columns for label in labels)

    def _describe(self, label: object) -> str:
        """Say what values a column holds."""
        if label in self.fields:
            return f"{label!r} holds {SORTS[field_kind(self.fields[label])]}"
        values = column(self.table, label)
        if values.dtype == object:
            types = sorted({type(value).__name__ for value in values.dropna().tolist()})
            return f"{label!r} holds objects ({', '.join(types)})"
        if isinstance(values.dtype, pd.CategoricalDtype) and not values.dtype.ordered:
            return f"{label!r} holds categories without an order"
        return f"{label!r} holds {values.dtype}"


@functools.lru_cache
def _computes(function: str, kind: object) -> bool:
    """Whether pandas computes a column of a type, by the name of a function."""
    table = pd.DataFrame({ONE_COLUMN: typical_column(kind, TYPICAL_ROWS)})
    return not _raises(aggregate, table, {ONE_COLUMN: function}, None)


def _may_be_tried(function: object) -> bool:
    """Whether a function may be called on a few rows: the user's own must not be."""
    if isinstance(function, functools.partial):
        return _may_be_tried(function.func)
    if isinstance(function, str):
        return True
    module = getattr(function, "__module__", None) or ""
    return callable(function) and module.partition(".")[0] in PURE_PACKAGES


def _may_all_be_tried(hows: Iterable[Any]) -> bool:
    return all(_may_be_tried(function) for how in hows for function in as_list(function_of(how)))


def _as_one_group(table: pd.DataFrame) -> By:
    return By(pd.Series(0, index=table.index, name=ONE_GROUP))


def _aggregate_one_group(table: pd.DataFrame, aggregations: Aggregations) -> None:
    """Aggregate all rows as one group.

    Raises:
        ValueError: it gives rows of the group, as ``cumsum`` and ``head`` do, and not one value.
    """
    value = aggregate(table, aggregations, _as_one_group(table))
    if len(value) > 1 or value.index.names != [ONE_GROUP]:
        raise ValueError("not one row per group")


def _without_warnings(function: Callable[..., Any], *arguments: Any) -> Any:
    with ignore_warnings():
        return function(*arguments)


def _raises(function: Callable[..., Any], *arguments: Any) -> bool:
    try:
        _without_warnings(function, *arguments)
    except Exception:  # noqa: BLE001 (pandas and Arrow raise many types; their texts may hold cells)
        return True
    return False


def _name_functions(how: object) -> str:
    return ", ".join(repr(name_of(function)) for function in as_list(function_of(how)))


def _describe_aggregations(aggregations: Aggregations) -> str:
    texts = [
        f"{_name_functions(how)} of {column_of(name, how)!r}" for name, how in aggregations.items()
    ]
    return ", ".join(texts)
