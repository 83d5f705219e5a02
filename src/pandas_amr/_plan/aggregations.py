"""Reduce, where it can be computed: pandas aggregations and functions of the user's, exact, no model involved."""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args, get_origin

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from pandas_amr._agent.dispatch import complaint
from pandas_amr._agent.threads import called
from pandas_amr._findings.columns import records_frame, values_array
from pandas_amr._records.engine import in_thread
from pandas_amr._types.schema import is_model
from pandas_amr._units.by import column as column_at
from pandas_amr._units.by import group_numbers, grouped, missing_keys
from pandas_amr.errors import ColumnError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray
    from pydantic import BaseModel

    from pandas_amr._findings.records import UnitRows
    from pandas_amr._units.by import By

OUTPUT_COLUMN = "output"
SHARE = "share"  # this library's word for value_counts(normalize=True)
TABULAR = frozenset({"value_counts", SHARE})
OF_VALUES = frozenset({"value_counts", SHARE, "nunique"})  # of lists: of the values in them
OF_ANY = frozenset({"idxmax", "idxmin", "argmax", "argmin"})  # pandas raises if there is no value
COPIES_ON_WRITE = int(pd.__version__.partition(".")[0]) >= 3

Rows = TypeVar("Rows", pd.DataFrame, pd.Series)


async def compute(
    frame: pd.DataFrame,
    aggregations: Mapping[str, Any],
    *,
    by: By | None = None,
    units: UnitRows | None = None,
) -> Any:
    """Aggregate columns with pandas: exact, no model.

    Without ``by`` what ``DataFrame.agg`` gives; where tables and scalars would mix, a dict of them by column. With
    ``by`` a frame, one row a group; ``value_counts`` gives one column a value. A pair of a column and a function names
    its result, as named aggregations do. A function gets a column, or a group's part of it, and may be async. Of lists
    the values in them are counted. If the rows are records, ``units`` are those behind them: a column of theirs is
    aggregated over the units.

    Raises:
        ColumnError: an aggregated or grouping column is not there.
    """
    for name, how in aggregations.items():
        wanted = column_of(name, how)
        if wanted not in frame.columns and not (units is not None and units.owns(wanted)):
            raise ColumnError(
                f"No column {wanted!r} to reduce. There is: {', '.join(map(repr, frame.columns))}."
            )
    missing = missing_keys(by, all_labels(frame), frame.index) if by is not None else []
    if missing:
        raise ColumnError(
            f"No column {missing[0]!r} to reduce. There is: {', '.join(map(repr, frame.columns))}."
        )
    asked: list[Asked] = []
    watched = {name: _watched(how, asked) for name, how in aggregations.items()}
    try:
        value = await in_thread(computed, frame, watched, by, units)
        if not any(one.waits for one in asked):
            return value
        for one in asked:
            await one.settle()
        return await in_thread(computed, frame, watched, by, units)
    finally:
        for one in asked:
            one.close()


def all_labels(frame: pd.DataFrame) -> set[Any]:
    """Labels of columns; with several levels of them, what stands above columns too."""
    labels: set[Any] = set(frame.columns)
    return labels | set(frame.columns.get_level_values(0)) if frame.columns.nlevels > 1 else labels


class Asked:
    """A function of the user's as pandas calls it.

    Where it gives what must be awaited, pandas goes through the groups twice: in the first round the function is
    called, then ``settle`` awaits what it gave, and in the second round that is given in the order of the calls.
    """

    def __init__(self, function: Callable[..., Any], how: Any) -> None:
        self.function = function
        self.args: tuple[Any, ...] = (
            getattr(how, "args", ()) if isinstance(how, pd.NamedAgg) else ()
        )
        self.kwargs: dict[str, Any] = (
            getattr(how, "kwargs", {}) if isinstance(how, pd.NamedAgg) else {}
        )
        self.__name__ = name_of(function)  # pandas names a column after it
        self.waits = False
        self._given: list[Any] = []
        self._settled: Iterator[Any] | None = None

    def __call__(self, column: pd.Series) -> Any:
        """What the function gives for a column; in the first round NaN in the place of what must be awaited."""
        if self._settled is not None:
            return next(self._settled)
        value = self.function(column, *self.args, **self.kwargs)
        self._given.append(value)
        if not inspect.isawaitable(value):
            return value
        self.waits = True
        return np.nan

    async def settle(self) -> None:
        """Await what must be, in the order of the calls."""
        self._settled = iter(
            [await one if inspect.isawaitable(one) else one for one in self._given]
        )

    def close(self) -> None:
        """Drop the coroutines that nobody awaits any more."""
        for one in self._given:
            if inspect.iscoroutine(one):
                one.close()


def _watched(how: Any, asked: list[Asked]) -> Any:
    """An aggregation whose functions are ``Asked``; those of Python and numpy stay, which pandas may know by heart."""
    if isinstance(how, list):
        return [_watched(one, asked) for one in how]
    function = function_of(how)
    if is_named(how) and isinstance(function, list):
        return column_of(None, how), _watched(function, asked)
    if not callable(function) or getattr(function, "__module__", None) in {"builtins", "numpy"}:
        return how
    asked.append(Asked(function, how))
    return (column_of(None, how), asked[-1]) if is_named(how) else asked[-1]


def column_of(name: Any, how: Any) -> Any:
    """The column that an aggregation is of."""
    if isinstance(how, tuple):
        return how[0] if is_named(how) else name
    return getattr(how, "column", name) if is_named(how) else name


def function_of(how: Any) -> Any:
    """What aggregates it."""
    if not is_named(how):
        return how
    return how[1] if isinstance(how, tuple) else how.aggfunc


def name_of(how: Any) -> str:
    """What pandas calls a function, or the word that stands for one."""
    if isinstance(how, functools.partial):
        return name_of(how.func)
    return how if isinstance(how, str) else str(getattr(how, "__name__", type(how).__name__))


def is_named(how: Any) -> bool:
    """Whether an aggregation says its column: a pair of a column and a function, or ``pd.NamedAgg``."""
    return (isinstance(how, tuple) and len(how) == 2) or isinstance(how, pd.NamedAgg)


def joined_parts(
    computed: Any,
    plain: Mapping[Any, Any],
    others: Mapping[Any, Any],
    order: Sequence[Any],
    *,
    grouped: bool,
) -> Any:
    """What pandas computed and what others made, in the order in which it was asked for."""
    if grouped:
        return _joined_groups(computed, others, order)
    parts: dict[Any, Any] = dict(others)
    if computed is not None:
        parts |= {
            name: computed[name] if len(computed) and name in computed else computed
            for name in plain
        }
    return {name: parts[name] for name in order}


def _joined_groups(
    computed: pd.DataFrame | None, others: Mapping[Any, pd.Series], order: Sequence[Any]
) -> Any:
    """Columns of the same groups side by side; where pandas gives two levels of names, all have two."""
    frames = [part.to_frame(name) for name, part in others.items()]
    if computed is not None:
        depth = computed.columns.nlevels
        if depth > 1:
            named = [
                name if isinstance(name, tuple) else (name, *[""] * (depth - 1)) for name in others
            ]
            frames = [
                part.set_axis(pd.MultiIndex.from_tuples([one]), axis=1)
                for part, one in zip(frames, named, strict=True)
            ]
        frames = [computed, *(_on(computed.index, part) for part in frames)]
    whole = pd.concat(frames, axis=1)
    labels: list[Any] = list(whole.columns)
    asked = [
        label[0] if isinstance(label, tuple) and label not in order else label for label in labels
    ]
    if not all(name in order for name in asked):
        return whole
    return whole.iloc[:, np.argsort([order.index(name) for name in asked], kind="stable")]


def computed(
    frame: pd.DataFrame,
    aggregations: Mapping[str, Any],
    by: By | None,
    units: UnitRows | None = None,
) -> Any:
    """What pandas computes; see ``compute``."""
    wanted = {name: column_of(name, how) for name, how in aggregations.items()}
    own = {name for name in wanted if units is not None and units.owns(wanted[name])}
    if by is None:
        columns = {
            name: column_at(frame, label) for name, label in wanted.items() if name not in own
        }
        if units is not None and own:
            counted = units.counted()
            columns |= {name: column_at(counted, wanted[name]) for name in own}
        one_table = len(own) in {0, len(wanted)}
        return _whole({name: columns[name] for name in wanted}, aggregations, one_table=one_table)
    if units is None or not own:
        return _by_groups(frame, aggregations, by, flat=_tabular(aggregations))
    return _by_groups_of_units(frame, aggregations, by, units, own)


def _whole(
    columns: Mapping[Any, pd.Series], aggregations: Mapping[str, Any], *, one_table: bool
) -> Any:
    """Aggregate each column; they have the same rows if they are of one table."""
    named = any(is_named(how) for how in aggregations.values())
    lists = any(isinstance(function_of(how), list) for how in aggregations.values())
    tables = _tabular(aggregations)
    if (
        one_table
        and _is_for_pandas(columns, aggregations)
        and (len(columns) == 1 or (lists and not tables))
    ):
        return pd.concat(columns, axis=1).agg(dict(aggregations))
    if len(columns) == 1 and not (named or lists) and tables:
        name, how = next(iter(aggregations.items()))
        counts = unnested(columns[name]).to_frame(name).agg({name: "value_counts"})
        return counts / counts.sum() if _is_share(how) else counts
    parts: dict[Any, Any] = {}
    for name, how in aggregations.items():
        wanted = function_of(how)
        side_by_side = lists and not (named or tables)  # then pandas reads each as a list
        parts[name] = _aggregated(columns[name], _each(wanted) if side_by_side else wanted)
    shown = [isinstance(part, pd.Series | pd.DataFrame) for part in parts.values()]
    if not any(shown):
        return pd.Series(parts)
    return pd.concat(parts, axis=1) if all(shown) and not tables else parts


def _is_for_pandas(columns: Mapping[Any, pd.Series], aggregations: Mapping[str, Any]) -> bool:
    """Whether ``DataFrame.agg`` takes aggregations as they are: names of functions that it has."""
    for name, how in aggregations.items():
        for one in _each(how):
            if not isinstance(one, str) or one == SHARE or one in OF_ANY:
                return False
            if one in OF_VALUES and holds_lists(columns[name]):
                return False
    return True


def labels_of(names: Sequence[Any]) -> pd.Index:
    """Labels as pandas makes them of a dict's keys: tuples become several levels."""
    labels: pd.Index = pd.Index(names)
    return labels


def _each(how: Any) -> list[Any]:
    return how if isinstance(how, list) else [how]


def _tabular(aggregations: Mapping[str, Any]) -> bool:
    hows = [one for how in aggregations.values() for one in _each(function_of(how))]
    return any(isinstance(one, str) and one in TABULAR for one in hows)


def _aggregated(column: pd.Series, how: Any) -> Any:
    """An aggregation of a column; a function gets it whole, whatever the version of pandas would do first."""
    if callable(how):
        return how(own(column))
    if isinstance(how, list):
        parts = [_aggregated(column, part) for part in how]
        names = [name_of(part) for part in how]
        return (
            dict(zip(names, parts, strict=True))
            if _tabular({"": how})
            else pd.Series(parts, index=names)
        )
    if how in OF_ANY and not column.notna().any():
        return pd.NA
    if how in OF_VALUES:
        column = unnested(column)
    return column.value_counts(normalize=True) if _is_share(how) else column.agg(how)


def holds_lists(column: pd.Series) -> bool:
    """Whether a column's values are lists, of Arrow or of Python."""
    kind = getattr(column.dtype, "pyarrow_dtype", None)
    if kind is not None:
        return bool(
            pa.types.is_list(kind)
            or pa.types.is_large_list(kind)
            or pa.types.is_fixed_size_list(kind)
        )
    if column.dtype != object:
        return False
    return not set(map(type, column.tolist())).isdisjoint({list, set, np.ndarray})


def unnested(column: pd.Series) -> pd.Series:
    """The values in a column's lists, each labelled by its row's position; a column of no lists as it is."""
    return column.reset_index(drop=True).explode() if holds_lists(column) else column


def own(rows: Rows) -> Rows:
    """Rows that a function may change: nothing of it reaches whom they are from."""
    return rows.copy(deep=not COPIES_ON_WRITE)


def _is_share(how: Any) -> bool:
    return isinstance(how, str) and how == SHARE


def ranked(
    table: pd.DataFrame, field: str, *, most: int, lowest_first: bool, by: By | None
) -> NDArray[np.int64]:
    """The places of the rows that rank first by a column, in their order; of each group where there are groups.

    Rows without a value rank nowhere; equals stay in the frame's order.
    """
    ranking = column_at(table, field)
    places = np.flatnonzero(ranking.notna().to_numpy())
    values = ranking.iloc[places].reset_index(drop=True)
    order: NDArray[np.int64] = values.sort_values(
        ascending=lowest_first, kind="stable"
    ).index.to_numpy(dtype=np.int64)
    places = places[order]
    if by is None:
        return places[:most]
    _, groups = groups_of(table, by)
    ranks = {int(place): rank for rank, place in enumerate(places)}
    firsts = [
        sorted((row for row in rows if row in ranks), key=ranks.__getitem__)[:most]
        for rows in groups
    ]
    return np.array([place for part in firsts for place in part], dtype=np.int64)


def _by_groups(
    frame: pd.DataFrame, aggregations: Mapping[str, Any], by: By, *, flat: bool
) -> pd.DataFrame:
    """Aggregate groups; ``flat`` says whether columns have one level of names, as ``value_counts`` needs it."""
    labels = list(dict.fromkeys(column_of(name, how) for name, how in aggregations.items()))
    table, hows = _with_care(selected(frame, labels), labels, aggregations)
    groups = grouped(table, by, frame)
    if flat:
        return _side_by_side(table, groups, hows, *group_numbers(frame, by))
    try:
        if any(is_named(how) for how in hows.values()):
            named = {
                str(name): (column_of(name, how), function_of(how)) for name, how in hows.items()
            }
            return cast("pd.DataFrame", groups.agg(**named))
        return cast("pd.DataFrame", groups.agg(hows))
    except ValueError:
        if groups.ngroups or not len(frame):
            raise
        nobody = np.array(
            [], dtype=np.int64
        )  # no row has a key: `describe` can make nothing of that, but of no rows
        return _by_groups(
            frame.iloc[nobody], aggregations, by.at(nobody, frame.index[nobody]), flat=flat
        )


def _side_by_side(
    table: pd.DataFrame,
    groups: Any,
    hows: Mapping[str, Any],
    index: pd.Index,
    numbers: NDArray[np.int64],
) -> pd.DataFrame:
    """Aggregations of groups beside how often each value stands in each group."""
    parts: list[pd.DataFrame] = []
    for name, how in hows.items():
        column, wanted = column_of(name, how), function_of(how)
        for one in _each(wanted):
            called = f"{name}_{name_of(one)}" if isinstance(wanted, list) else str(name)
            if isinstance(one, str) and one in TABULAR:
                counts = _counts(table[column], index, numbers)
                shown = counts.div(counts.sum(axis=1), axis=0) if _is_share(one) else counts
                parts.append(
                    shown.set_axis([f"{called}_{value}" for value in shown.columns], axis=1)
                )
            else:
                parts.append(_on(index, groups.agg(**{called: (column, one)})))
    return pd.concat(parts, axis=1)


def selected(frame: pd.DataFrame, labels: Sequence[Any]) -> pd.DataFrame:
    """Columns by their labels as they were asked for; of a frame with one level of labels the frame itself."""
    if frame.columns.nlevels == 1:
        return frame
    table = pd.concat([column_at(frame, label) for label in labels], axis=1)
    return table.set_axis(labels_of(labels), axis=1)


def _needs_care(column: pd.Series, how: Any) -> bool:
    """Whether pandas cannot call an aggregation on each group of such a column."""
    wanted = _each(function_of(how))
    if "nunique" in [one for one in wanted if isinstance(one, str)] and holds_lists(column):
        return True
    return any(isinstance(one, str) and one in OF_ANY for one in wanted)


def _with_care(
    table: pd.DataFrame, labels: Sequence[Any], aggregations: Mapping[str, Any]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Put functions in the place of names that pandas cannot call on each group.

    Returns:
        The table, in which such columns hold objects: pandas 2.2 would make the results of the column's own type; and
        the aggregations.
    """
    hows = dict(aggregations)
    for label in labels:
        column = table[label]
        named = [name for name, how in aggregations.items() if column_of(name, how) == label]
        if not any(_needs_care(column, aggregations[name]) for name in named):
            continue
        for name in named:
            how = aggregations[name]
            wanted = function_of(how)
            careful = [_careful(column.dtype, one) for one in _each(wanted)]
            function: Any = careful if isinstance(wanted, list) else careful[0]
            hows[name] = (label, function) if is_named(how) else function
        table = table.copy(deep=False)
        table[label] = column.astype(object)
    return table, hows


def _careful(dtype: Any, how: Any) -> Any:
    by_column = isinstance(how, str) and how not in TABULAR and hasattr(pd.Series, how)
    return _ByColumn(how, dtype) if by_column else how


class _ByColumn:
    """An aggregation by name as a function of objects, which has a value for a group without values too."""

    def __init__(self, how: str, dtype: Any) -> None:
        self.__name__ = how
        self._dtype = dtype

    def __call__(self, column: pd.Series) -> Any:
        return _aggregated(
            column if holds_lists(column) else column.astype(self._dtype), self.__name__
        )


def _by_groups_of_units(
    frame: pd.DataFrame, aggregations: Mapping[str, Any], by: By, units: UnitRows, own: set[Any]
) -> pd.DataFrame:
    """Aggregate groups of records, and columns of the units behind them over the units."""
    of_all = units.by is not None and not units.chosen
    table, unit_by = (units.table, units.by) if of_all else units.counted_by(frame, by)
    assert unit_by is not None
    index, _ = group_numbers(table, unit_by)
    flat = _tabular(aggregations)
    named = any(is_named(how) for how in aggregations.values())
    lists = any(isinstance(how, list) for how in aggregations.values()) and not (flat or named)
    parts: list[pd.DataFrame] = []
    for name, given in aggregations.items():
        how = _each(given) if lists else given
        if name in own:
            parts.append(_on(index, _by_groups(table, {name: how}, unit_by, flat=flat)))
        else:
            part = _by_groups(frame, {name: how}, by, flat=flat)
            parts.append(_with_empty_groups(part, index, frame, name, how))
    return pd.concat(parts, axis=1)


def _with_empty_groups(
    part: pd.DataFrame, index: pd.Index, frame: pd.DataFrame, name: Any, how: Any
) -> pd.DataFrame:
    """What was aggregated of records, with rows for the groups of units that have none: aggregations of nothing."""
    if len(part) == len(index):
        return part.set_axis(index)
    filled = part.reindex(index)
    empty = column_at(frame, column_of(name, how)).iloc[:0]
    hows = _each(function_of(how))
    for place, label in enumerate(part.columns):
        one = hows[place] if len(hows) == len(part.columns) else hows[0]
        nothing = _of_nothing(empty, one)
        if not pd.isna(nothing):
            kept = filled.iloc[:, place].astype(object).where(index.isin(part.index), nothing)
            filled[label] = kept.astype(part.dtypes.iloc[place])
    return filled


def _of_nothing(empty: pd.Series, how: Any) -> Any:
    """What an aggregation gives of no values; NA if only a function could say."""
    if not isinstance(how, str):
        return pd.NA
    if how in TABULAR:
        return 0 if how == "value_counts" else pd.NA
    value = (
        _aggregated(empty, how) if hasattr(empty, how) and how not in {"first", "last"} else pd.NA
    )
    return value if pd.api.types.is_scalar(value) else pd.NA


def _on(index: pd.Index, part: pd.DataFrame) -> pd.DataFrame:
    """Rows of the groups in their order, with the groups' index; pandas 2.2 leaves out all where no group occurs."""
    return part.set_axis(index) if len(part) == len(index) else part.reindex(index)


def _counts(column: pd.Series, index: pd.Index, numbers: NDArray[np.int64]) -> pd.DataFrame:
    """How often each value stands in each group: one row a group, one column a value, in the order of the values."""
    values = unnested(column)
    if values is not column:
        numbers = numbers[values.index.to_numpy()]
    if isinstance(values.dtype, pd.CategoricalDtype):
        codes, labels = values.cat.codes.to_numpy(), values.cat.categories
    else:
        codes, labels = _factorized(values)
    there = (codes >= 0) & (numbers >= 0)
    table = np.zeros((len(index), len(labels)), dtype=np.int64)
    np.add.at(table, (numbers[there], codes[there]), 1)
    return pd.DataFrame(table, index=index, columns=labels)


def _factorized(column: pd.Series) -> tuple[NDArray[np.int64], Any]:
    try:
        return column.factorize(sort=True)
    except TypeError:  # values of kinds that have no order among them
        return column.factorize()


def computed_text(result: Any) -> str:
    """What was computed, as an agent reads it.

    Example:
        >>> print(computed_text(pd.Series({"severity": 2.5})))
        Computed exactly over all findings; use these numbers as they are:
        severity: 2.5
    """
    parts = (
        result.items() if isinstance(result, dict | pd.Series | pd.DataFrame) else [("", result)]
    )
    lines = [
        f"{name}: {part.to_dict() if isinstance(part, pd.Series) else part}" for name, part in parts
    ]
    return "\n".join(["Computed exactly over all findings; use these numbers as they are:", *lines])


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
    """Call the user's reducer with the findings; with ``by`` once a group of ``frame``, one row a group.

    Each call stands inside of what ``around`` gives for its rows.
    """
    if by is None:
        with around(range(len(findings))):
            return await called(function, own(findings))
    index, groups = groups_of(frame, by)
    values = []
    for rows in groups:
        with around(rows):
            values.append(await called(function, own(findings.iloc[rows])))
    if values and all(isinstance(value, dict | pd.Series) for value in values):
        return pd.DataFrame([dict(value) for value in values], index=index)
    return pd.DataFrame(
        {OUTPUT_COLUMN: pd.Series(values, index=index, dtype=None if values else object)}
    )


def groups_of(frame: pd.DataFrame, by: By) -> tuple[pd.Index, list[list[int]]]:
    """The groups as ``groupby`` makes them: its index, and the positions of each group's rows in frame order."""
    index, numbers = group_numbers(frame, by)
    rows: list[list[int]] = [[] for _ in range(len(index))]
    for position, number in enumerate(numbers.tolist()):
        if number >= 0:  # as groupby does, rows without a key are in no group
            rows[number].append(position)
    return index, rows


def shaped(value: Any, kind: Any) -> Any:
    """A checked value as the result shows it: a list of records as a frame."""
    item = get_args(kind)[0] if get_origin(kind) is list else None
    if isinstance(value, list) and is_model(item):
        return records_frame(value, cast("type[BaseModel]", item))
    if isinstance(value, list) and get_origin(item) is dict:
        return pd.DataFrame(value).convert_dtypes(dtype_backend="pyarrow")
    return value


def checked_output(value: Any, kind: Any, *, grouped: bool = True) -> Any:
    """A computed value as the type that the user asked for; a frame stays one, but of counts that are no groups'.

    Raises:
        UsageError: it cannot be one.
    """
    counts = (
        isinstance(value, pd.DataFrame)
        and not grouped
        and len(value.columns) == 1
        and get_origin(kind) is dict
    )
    if kind is None or (isinstance(value, pd.DataFrame) and not counts):
        return value
    forms = fitting_outputs(value) if counts or isinstance(value, pd.Series) else [value]
    problems: list[str] = []
    for form in forms:
        try:
            return shaped(
                TypeAdapter(kind).validate_python(
                    form.item() if isinstance(form, np.generic) else form
                ),
                kind,
            )
        except ValidationError as error:
            problems.append(complaint(error))
    raise UsageError(f"The reduce gave no {kind}: {problems[0]}.") from None


def fitting_outputs(value: Any) -> list[Any]:
    """A computed value without pandas, in the forms that an output may have; None stands for missing values.

    Example:
        >>> fitting_outputs(pd.Series({"n": 3})), fitting_outputs(pd.Series({"a": 1.5, "b": float("nan")}))
        ([3, {'n': 3}], [{'a': 1.5, 'b': None}])
    """
    if isinstance(value, pd.DataFrame) and len(value.columns) == 1:
        return [_plain_dict(value.iloc[:, 0].to_dict())]
    if isinstance(value, pd.Series):
        named = _plain_dict(value.to_dict())
        return [_plain(value.iloc[0]), named] if len(value) == 1 else [named]
    return [_plain_dict(value) if isinstance(value, dict) else _plain(value)]


def _plain_dict(values: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: _plain(value) for key, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if pd.api.types.is_scalar(value) and pd.isna(value) else value


def group_output(values: Sequence[Any], index: pd.Index, kind: Any) -> pd.DataFrame:
    """The groups' answers as a summary frame: one row a group, or one an item where an answer is a list."""
    item = get_args(kind)[0] if get_origin(kind) is list else kind
    listed = [value if isinstance(value, list) else [value] for value in values]
    places = [place for place, part in enumerate(listed) for _ in part]
    labels = index.take(np.array(places, dtype=np.int64))
    flat = [one for part in listed for one in part]
    if is_model(item):
        return records_frame(flat, item).set_axis(labels)
    if item is dict or get_origin(item) is dict:
        rows = [one if one is not None else {} for one in flat]
        return pd.DataFrame(rows, index=labels).convert_dtypes(dtype_backend="pyarrow")
    return pd.DataFrame({OUTPUT_COLUMN: values_array(flat, item)}, index=labels)
