"""Compute a reduce: pandas aggregations and the user's functions. Exact; no model is involved."""

from __future__ import annotations

import contextlib
import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._agent.threads import call_user_function
from pandas_amr._plan.aggregations import (
    OF_ANY,
    OF_VALUES,
    are_read_as_lists,
    as_list,
    column_of,
    function_of,
    has_table,
    is_named,
    is_share,
    is_tabular,
    name_of,
)
from pandas_amr._plan.compute_column import (
    aggregate_column,
    defensive_copy,
    explode,
    has_large_numbers,
    holds_lists,
    make_series,
    overflows,
)
from pandas_amr._plan.compute_groups import aggregate_groups, aggregate_groups_of_units
from pandas_amr._plan.outputs import OUTPUT_COLUMN
from pandas_amr._records.engine import in_thread, run_off_loop
from pandas_amr._records.suggest import did_you_mean
from pandas_amr._units.by import column as column_at
from pandas_amr._units.by import find_missing_keys, group_numbers
from pandas_amr._units.rows import combine_chunks
from pandas_amr.errors import ColumnError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from pandas_amr._findings.records import UnitRows
    from pandas_amr._plan.aggregations import Aggregations
    from pandas_amr._units.by import By


async def compute(
    frame: pd.DataFrame,
    aggregations: Aggregations,
    *,
    by: By | None = None,
    units: UnitRows | None = None,
) -> Any:
    """Aggregate columns with pandas, off the event loop. The user's functions may be async.

    Args:
        frame: the rows.
        aggregations: what ``DataFrame.agg`` takes, by column; or named aggregations. A function
            gets a column, or a group's part of it. Of lists, the values in them are counted.
        by: the groups.
        units: if the rows are records, the units behind them. A column of the units is aggregated
            over the units.

    Returns:
        Without ``by``, what ``DataFrame.agg`` gives; if tables and scalars would mix, a dict of
        them by column. With ``by``, a frame with one row per group; ``value_counts`` gives one
        column per value.

    Raises:
        ColumnError: a column to aggregate or to group by is missing.
    """
    _check_columns(frame, aggregations, by, units)
    functions: list[UserFunction] = []
    wrapped: dict[Any, Any] = {}
    for name, how in aggregations.items():
        wrapped[name] = _wrap_functions(how, functions)
    try:
        value = await in_thread(aggregate, frame, wrapped, by, units)
        if not any(function.is_async for function in functions):
            return value
        for function in functions:
            await function.await_results()
        return await in_thread(aggregate, frame, wrapped, by, units)
    finally:
        for function in functions:
            function.close()


def _check_columns(
    frame: pd.DataFrame, aggregations: Aggregations, by: By | None, units: UnitRows | None
) -> None:
    missing: list[Any] = []
    for name, how in aggregations.items():
        label = column_of(name, how)
        is_of_units = units is not None and units.owns(label)
        if label not in frame.columns and not is_of_units:
            missing.append(label)
    if by is not None:
        missing += find_missing_keys(by, all_labels(frame), frame.index)
    if missing:
        label = missing[0]
        suggestion = did_you_mean(label, frame.columns)
        labels = ", ".join(map(repr, frame.columns))
        raise ColumnError(f"No column {label!r} to reduce.{suggestion} There is: {labels}.")


def all_labels(frame: pd.DataFrame) -> set[Any]:
    """Return the labels of columns; of columns with several levels, the upper labels too."""
    labels: set[Any] = set(frame.columns)
    if frame.columns.nlevels > 1:
        labels |= set(frame.columns.get_level_values(0))
    return labels


class UserFunction:
    """A user's function as pandas calls it.

    pandas cannot await. If the function returns awaitables, pandas goes through the columns or
    groups twice. In the first round the function is called, then ``await_results`` awaits what it
    returned, and the second round gets the results in the order of the calls.
    """

    def __init__(self, function: Callable[..., Any], how: object) -> None:
        self.function = function
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}
        if isinstance(how, pd.NamedAgg):  # since pandas 3 it may hold arguments
            self.args = getattr(how, "args", ())
            self.kwargs = getattr(how, "kwargs", {})
        self.__name__ = name_of(function)  # pandas names a column after it
        self.is_async = False
        self._returned: list[Any] = []
        self._results: Iterator[Any] | None = None

    def __call__(self, column: pd.Series) -> Any:
        """Call the function; in the first round NaN stands for what must be awaited."""
        if self._results is not None:
            return next(self._results)
        value = self.function(column, *self.args, **self.kwargs)
        self._returned.append(value)
        if not inspect.isawaitable(value):
            return value
        self.is_async = True
        return np.nan

    async def await_results(self) -> None:
        """Await what the function returned, in the order of the calls."""
        results = []
        for value in self._returned:
            if inspect.isawaitable(value):
                results.append(await value)
            else:
                results.append(value)
        self._results = iter(results)

    def close(self) -> None:
        """Close the coroutines that nobody awaits any more."""
        for value in self._returned:
            if inspect.iscoroutine(value):
                value.close()


def _wrap_functions(how: object, wrapped: list[UserFunction]) -> Any:
    """Wrap an aggregation's functions, and add them to ``wrapped``.

    Functions of Python and numpy stay: pandas computes some of them by faster ways of its own.
    """
    if isinstance(how, list):
        return [_wrap_functions(part, wrapped) for part in how]
    function = function_of(how)
    if isinstance(function, list):
        return column_of(None, how), _wrap_functions(function, wrapped)
    if function in (np.sum, np.prod):  # by name, so that whole numbers beyond 64 bits are exact
        name = name_of(function)
        return (column_of(None, how), name) if is_named(how) else name
    module = getattr(function, "__module__", None)
    if not callable(function) or module in {"builtins", "numpy"}:
        return how
    wrapper = UserFunction(function, how)
    wrapped.append(wrapper)
    if is_named(how):
        return column_of(None, how), wrapper
    return wrapper


def find_aggregations_of_units(aggregations: Aggregations, units: UnitRows | None) -> set[Any]:
    """Find the aggregations of columns of the units behind records; by group, groups are theirs."""
    if units is None:
        return set()
    return {name for name, how in aggregations.items() if units.owns(column_of(name, how))}


def aggregate(
    frame: pd.DataFrame,
    aggregations: Aggregations,
    by: By | None,
    units: UnitRows | None = None,
) -> Any:
    """Aggregate columns with pandas, in this thread; the arguments are those of ``compute``."""
    labels = {name: column_of(name, how) for name, how in aggregations.items()}
    of_units = find_aggregations_of_units(aggregations, units)
    if by is not None:
        if units is None or not of_units:
            return aggregate_groups(frame, aggregations, by, flat=has_table(aggregations))
        return aggregate_groups_of_units(frame, aggregations, by, units, of_units)
    unit_table = units.counted() if units is not None and of_units else frame
    columns: dict[Any, pd.Series] = {}
    for name, label in labels.items():
        table = unit_table if name in of_units else frame
        columns[name] = column_at(table, label)
    one_table = len(of_units) in {0, len(labels)}
    return _aggregate_columns(columns, aggregations, one_table=one_table)


def _aggregate_columns(
    columns: Mapping[Any, pd.Series], aggregations: Aggregations, *, one_table: bool
) -> Any:
    """Aggregate each column; columns of one table have the same rows."""
    read_as_lists = are_read_as_lists(aggregations)
    is_single = len(columns) == 1
    if one_table and (is_single or read_as_lists) and _agg_takes(columns, aggregations):
        table = pd.concat(columns, axis=1)
        return table.agg(dict(aggregations))
    if is_single:
        name, how = next(iter(aggregations.items()))
        if is_tabular(how):
            return _count_values(columns[name], name, share=is_share(how))
    results: dict[Any, Any] = {}
    for name, how in aggregations.items():
        function = as_list(how) if read_as_lists else function_of(how)
        results[name] = aggregate_column(columns[name], function)
    return _join_results(results, has_tables=has_table(aggregations))


def _agg_takes(columns: Mapping[Any, pd.Series], aggregations: Aggregations) -> bool:
    """Whether ``DataFrame.agg`` takes the aggregations as they are: names of its functions.

    It would make floats of whole numbers that stand in a column with fractions, and other numbers
    of what its types do not hold.
    """
    if any(has_large_numbers(columns[name]) for name in aggregations):
        return False
    for name, how in aggregations.items():
        for function in as_list(how):
            if not isinstance(function, str) or is_share(function) or function in OF_ANY:
                return False
            if function in OF_VALUES and holds_lists(columns[name]):
                return False
            if overflows(columns[name], function):
                return False
    return True


def _count_values(column: pd.Series, name: object, *, share: bool) -> pd.DataFrame:
    table: Any = explode(column).to_frame(name)
    counts: pd.DataFrame = table.agg({name: "value_counts"})
    if share:
        counts /= counts.sum()
    return counts


def _join_results(results: Mapping[Any, Any], *, has_tables: bool) -> Any:
    """Join the columns' results: a Series of scalars, a frame of Series, or else a dict."""
    are_tables = [isinstance(result, pd.Series | pd.DataFrame) for result in results.values()]
    if not any(are_tables):
        return make_series(list(results.values()), list(results))
    if all(are_tables) and not has_tables:
        return pd.concat(_keep_digits(results), axis=1)
    return results


def _keep_digits(results: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Make objects of large numbers where pandas would make floats of them: beside missing rows."""
    first, *others = [result.index for result in results.values()]
    if all(index.equals(first) for index in others):
        return results
    kept = dict(results)
    for name, result in results.items():
        if isinstance(result, pd.Series) and has_large_numbers(result):
            kept[name] = result.astype(object)
    return kept


def rank_rows(
    table: pd.DataFrame, field: str, *, most: int, lowest_first: bool, by: By | None
) -> NDArray[np.int64]:
    """Return the positions of the rows that rank first by a column, in their order.

    With ``by``, those of each group. A row without a value does not rank; equal values keep the
    frame's order.
    """
    column = column_at(table, field)
    positions = np.flatnonzero(column.notna().to_numpy())
    values = column.iloc[positions].reset_index(drop=True)
    ordered = values.sort_values(ascending=lowest_first, kind="stable")
    positions = positions[ordered.index.to_numpy(dtype=np.int64)]
    if by is None:
        return positions[:most]
    ranks = {int(position): rank for rank, position in enumerate(positions)}
    firsts: list[int] = []
    _, groups = group_rows(table, by)
    for rows in groups:
        ranked = [row for row in rows if row in ranks]
        ranked.sort(key=ranks.__getitem__)
        firsts += ranked[:most]
    return np.array(firsts, dtype=np.int64)


async def call_reducer(
    function: Callable[[pd.DataFrame], Any],
    findings: pd.DataFrame,
    *,
    frame: pd.DataFrame,
    by: By | None,
    around: Callable[[Sequence[int]], AbstractContextManager[None]] = lambda _: (
        contextlib.nullcontext()
    ),
) -> Any:
    """Call the user's reducer with the findings; with ``by``, once per group of ``frame``.

    Each call runs inside the context manager that ``around`` gives for its rows.

    Returns:
        What the reducer returns; with ``by``, a frame with one row per group.
    """
    if by is None:
        with around(range(len(findings))):
            return await call_user_function(function, defensive_copy(findings))
    index, groups = await run_off_loop(group_rows, frame, by, size=len(frame))
    findings = combine_chunks(findings)
    values = []
    for rows in groups:
        with around(rows):
            of_group = defensive_copy(findings.iloc[rows])
            values.append(await call_user_function(function, of_group))
    if values and all(isinstance(value, dict | pd.Series) for value in values):
        return pd.DataFrame([dict(value) for value in values], index=index)
    column = pd.Series(values, index=index, dtype=None if values else object)
    return pd.DataFrame({OUTPUT_COLUMN: column})


def group_rows(frame: pd.DataFrame, by: By) -> tuple[pd.Index, list[list[int]]]:
    """Group rows as ``groupby`` does.

    Returns:
        The index of the groups, and the positions of each group's rows in the frame's order.
    """
    index, numbers = group_numbers(frame, by)
    return index, list_rows(numbers, len(index))


def list_rows(numbers: NDArray[np.int64], count: int) -> list[list[int]]:
    """List the positions of the rows of each of so many groups, by the rows' groups."""
    rows: list[list[int]] = [[] for _ in range(count)]
    for position, number in enumerate(numbers.tolist()):
        if number >= 0:  # a row without a key is in no group, as in groupby
            rows[number].append(position)
    return rows
