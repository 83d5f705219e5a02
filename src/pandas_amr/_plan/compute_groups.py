"""Aggregate the columns of each group."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pandas as pd

from pandas_amr._plan.aggregations import (
    OF_ANY,
    TABULAR,
    are_read_as_lists,
    as_list,
    column_of,
    columns_of,
    function_of,
    has_table,
    is_named,
    is_share,
    is_tabular,
    name_of,
)
from pandas_amr._plan.compute_column import (
    aggregate_column,
    explode,
    holds_lists,
    overflows,
)
from pandas_amr._units.by import By, group_numbers, grouped
from pandas_amr._units.by import column as column_at
from pandas_amr._units.cells import make_json_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pandas_amr._findings.records import UnitRows
    from pandas_amr._plan.aggregations import Aggregations


def aggregate_groups(
    frame: pd.DataFrame, aggregations: Aggregations, by: By, *, flat: bool
) -> pd.DataFrame:
    """Aggregate columns by groups: one row per group.

    ``flat`` says that the result has one level of column names, as ``value_counts`` needs.
    """
    labels = list(dict.fromkeys(columns_of(aggregations)))
    table = _select_columns(frame, labels)
    table, replaced = _replace_failing_names(table, labels, aggregations)
    groups = grouped(table, by, frame)
    if flat:
        return _join_side_by_side(table, groups, replaced, *group_numbers(frame, by))
    try:
        return _agg_groups(groups, replaced)
    except ValueError:
        if groups.ngroups or not len(frame):
            raise
        # No row has a key. `describe` fails on that, but not on a frame without rows.
        none = np.array([], dtype=np.int64)
        empty_by = by.at(none, frame.index[none])
        return aggregate_groups(frame.iloc[none], aggregations, empty_by, flat=flat)


def _agg_groups(groups: Any, aggregations: Aggregations) -> pd.DataFrame:
    if not any(map(is_named, aggregations.values())):
        return cast("pd.DataFrame", groups.agg(aggregations))
    named: dict[str, Any] = {}
    for name, how in aggregations.items():
        named[str(name)] = (column_of(name, how), function_of(how))
    return cast("pd.DataFrame", groups.agg(**named))


def _join_side_by_side(
    table: pd.DataFrame,
    groups: Any,
    aggregations: Aggregations,
    index: pd.Index,
    numbers: NDArray[np.int64],
) -> pd.DataFrame:
    """Put aggregations of groups beside how often each value occurs in each group."""
    parts: list[pd.DataFrame] = []
    taken = _list_titles(aggregations)
    for name, how in aggregations.items():
        column = column_of(name, how)
        wanted = function_of(how)
        for function in as_list(wanted):
            title = _title(name, wanted, function)
            if not is_tabular(function):
                part = groups.agg(**{title: (column, function)})
                parts.append(align_to_groups(part, index))
                continue
            counts = _count_by_group(table[column], index, numbers)
            if is_share(function):
                counts = counts.div(counts.sum(axis=1), axis=0)
            titles = _title_counts(title, counts.columns.tolist(), taken)
            taken += titles
            parts.append(counts.set_axis(titles, axis=1))
    return pd.concat(parts, axis=1)


def _title(name: object, wanted: object, function: object) -> str:
    if isinstance(wanted, list):
        return f"{name}_{name_of(function)}"
    return str(name)


def _list_titles(aggregations: Aggregations) -> list[str]:
    """Return the names of the columns that the call itself names."""
    titles: list[str] = []
    for name, how in aggregations.items():
        wanted = function_of(how)
        for function in as_list(wanted):
            if not is_tabular(function):
                titles.append(_title(name, wanted, function))
    return titles


def _title_counts(title: str, values: Sequence[Any], taken: Sequence[str]) -> list[str]:
    """Name the columns of counts, each by another name, which is none of those that are taken.

    Example:
        >>> _title_counts("n", ["a", 1, "1"], ["n_a"])
        ['n_a_', 'n_1', "n_'1'"]
    """
    occurrences = Counter(map(str, values))
    titles: list[str] = []
    for value in values:
        text = str(value)
        if occurrences[text] > 1:
            text = repr(value)
        titles.append(f"{title}_{text}")
    return list(make_json_keys(titles, taken=taken))


def _select_columns(frame: pd.DataFrame, labels: Sequence[Any]) -> pd.DataFrame:
    """Return the columns under the labels that the call names.

    A frame with one level of labels is returned as it is.
    """
    if frame.columns.nlevels == 1:
        return frame
    columns = [column_at(frame, label) for label in labels]
    table = pd.concat(columns, axis=1)
    names: pd.Index = pd.Index(labels)  # tuples become several levels, as pandas makes them
    return table.set_axis(names, axis=1)


def _replace_failing_names(
    table: pd.DataFrame, labels: Sequence[Any], aggregations: Aggregations
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Replace names that pandas cannot call on each group by functions.

    Returns:
        The table, and the aggregations. The columns in question hold objects: pandas 2.2 would
        cast the results to the column's own type.
    """
    replaced = dict(aggregations)
    for label in labels:
        column = table[label]
        names = [name for name, how in aggregations.items() if column_of(name, how) == label]
        if not any(_fails_by_group(column, aggregations[name]) for name in names):
            continue
        for name in names:
            how = aggregations[name]
            functions = _as_functions(function_of(how), column.dtype)
            replaced[name] = (label, functions) if is_named(how) else functions
        table = table.copy(deep=False)
        table[label] = column.astype(object)
    return table, replaced


def _fails_by_group(column: pd.Series, how: object) -> bool:
    """Whether pandas cannot call an aggregation on each group of such a column."""
    functions = as_list(function_of(how))
    names = {function for function in functions if isinstance(function, str)}
    if not names.isdisjoint(OF_ANY):
        return True
    if any(overflows(column, name) for name in names):
        return True
    return "nunique" in names and holds_lists(column)


def _as_functions(wanted: object, dtype: object) -> Any:
    """Return a list of functions, or a single one, with functions in place of methods' names."""
    if isinstance(wanted, list):
        return [_as_functions(function, dtype) for function in wanted]
    if isinstance(wanted, str) and wanted not in TABULAR and hasattr(pd.Series, wanted):
        return _ObjectAggregation(wanted, dtype)
    return wanted


class _ObjectAggregation:
    """An aggregation, named by a method, as a function of a column of objects.

    Unlike pandas' own it has a result for a group without values.
    """

    def __init__(self, name: str, dtype: Any) -> None:
        self.__name__ = name
        self._dtype = dtype

    def __call__(self, column: pd.Series) -> Any:
        if not holds_lists(column):
            column = column.astype(self._dtype)
        return aggregate_column(column, self.__name__)


def aggregate_groups_of_units(
    frame: pd.DataFrame,
    aggregations: Aggregations,
    by: By,
    units: UnitRows,
    of_units: set[Any],
) -> pd.DataFrame:
    """Aggregate groups of records, and columns of the units over the units behind them.

    ``of_units`` names the aggregations of the units' columns.
    """
    groups = _find_unit_groups(frame, by, units)
    flat = has_table(aggregations)
    read_as_lists = are_read_as_lists(aggregations)
    parts: list[pd.DataFrame] = []
    for name, how in aggregations.items():
        wanted = as_list(how) if read_as_lists else how
        if name in of_units:
            part = aggregate_groups(groups.units, {name: wanted}, groups.units_by, flat=flat)
            parts.append(align_to_groups(part, groups.labels))
        else:
            part = aggregate_groups(frame, {name: wanted}, groups.records_by, flat=flat)
            column = column_at(frame, column_of(name, how))
            functions = as_list(function_of(wanted))
            filled = _add_empty_groups(part, groups.keys, column, functions)
            parts.append(filled.set_axis(groups.labels))
    return pd.concat(parts, axis=1)


class _UnitGroups(NamedTuple):
    """The groups of units, and of the records in them.

    Attributes:
        labels: of the groups, their index.
        units: one row per unit and group.
        units_by: how these are grouped.
        records_by: how the records are grouped.
        keys: the groups' keys by ``records_by``, in the order of the groups.
    """

    labels: pd.Index
    units: pd.DataFrame
    units_by: By
    records_by: By
    keys: pd.Index


def _find_unit_groups(records: pd.DataFrame, by: By, units: UnitRows) -> _UnitGroups:
    if units.by is None or not units.have_own_groups:
        table, units_by = units.units_per_group(records, by)
        index, _ = group_numbers(table, units_by)
        return _UnitGroups(index, table, units_by, by, index)
    # Records grouped by themselves stand in another order, or in other spans of time.
    index, numbers = units.group_records()
    records_by = _group_by_number(numbers, records.index)
    return _UnitGroups(index, units.table, units.by, records_by, pd.RangeIndex(len(index)))


def _group_by_number(numbers: NDArray[np.int64], index: pd.Index) -> By:
    """Group rows by their groups' numbers; -1 is in none."""
    keys = pd.Series(numbers.astype(float), index=index)
    return By(keys.where(keys >= 0))


def _add_empty_groups(
    part: pd.DataFrame, index: pd.Index, column: pd.Series, functions: Sequence[Any]
) -> pd.DataFrame:
    """Add rows for the groups of units that have no record: the aggregations of no values."""
    if len(part) == len(index):
        return part.set_axis(index)
    filled = part.reindex(index)
    empty = column.iloc[:0]
    if len(functions) != len(part.columns):  # the first gives them all
        functions = [functions[0]] * len(part.columns)
    for position, label in enumerate(part.columns):
        result = _aggregate_empty(empty, functions[position])
        if not pd.isna(result):
            values = filled.iloc[:, position].astype(object)
            values = values.where(index.isin(part.index), result)
            filled[label] = values.astype(part.dtypes.iloc[position])
    return filled


def _aggregate_empty(empty: pd.Series, function: object) -> Any:
    """Return what an aggregation gives of no values; NA if only a function could tell."""
    if not isinstance(function, str) or is_share(function):
        return pd.NA
    if function == "value_counts":
        return 0
    if function in {"first", "last"} or not hasattr(empty, function):
        return pd.NA
    value = aggregate_column(empty, function)
    return value if pd.api.types.is_scalar(value) else pd.NA


def align_to_groups(part: pd.DataFrame, index: pd.Index) -> pd.DataFrame:
    """Give the groups' index to their rows; pandas 2.2 leaves out all rows if no group occurs."""
    if len(part) == len(index):
        return part.set_axis(index)
    return part.reindex(index)


def _count_by_group(column: pd.Series, index: pd.Index, numbers: NDArray[np.int64]) -> pd.DataFrame:
    """Count each value in each group: one row per group, one column per value, in their order."""
    values = explode(column)
    if values is not column:
        numbers = numbers[values.index.to_numpy()]
    if isinstance(values.dtype, pd.CategoricalDtype):
        codes = values.cat.codes.to_numpy()
        labels = values.cat.categories
    else:
        codes, labels = _factorize(values)
    is_counted = (codes >= 0) & (numbers >= 0)
    table = np.zeros((len(index), len(labels)), dtype=np.int64)
    np.add.at(table, (numbers[is_counted], codes[is_counted]), 1)
    return pd.DataFrame(table, index=index, columns=labels)


def _factorize(column: pd.Series) -> tuple[NDArray[np.int64], Any]:
    try:
        return column.factorize(sort=True)
    except TypeError:  # the values' types have no common order
        return column.factorize()
