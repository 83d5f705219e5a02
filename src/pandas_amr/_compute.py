"""Reduce, where it can be computed: pandas aggregations and functions of the user's, exact, no model involved."""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

import numpy as np
import pandas as pd
from pydantic import BaseModel, TypeAdapter, ValidationError

from pandas_amr._agent.dispatch import complaint
from pandas_amr._agent.threads import called, in_thread
from pandas_amr._findings import records_frame
from pandas_amr._schema import record_type
from pandas_amr.errors import ColumnError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from pandas_amr._by import By

OUTPUT_COLUMN = "output"
SHARE = "share"  # this library's word for value_counts(normalize=True)
TABULAR = frozenset({"value_counts", SHARE})
COPIES_ON_WRITE = int(pd.__version__.partition(".")[0]) >= 3

Rows = TypeVar("Rows", pd.DataFrame, pd.Series)


async def compute(frame: pd.DataFrame, aggregations: Mapping[str, Any], *, by: By | None = None) -> Any:
    """Aggregate columns with pandas: exact, no model.

    Without ``by`` what ``DataFrame.agg`` gives; where tables and scalars would mix, a dict of them by column. With
    ``by`` a frame, one row a group; ``value_counts`` gives one column a value. A pair of a column and a function names
    its result, as named aggregations do. A function gets a column, or a group's part of it, and may be async.

    Raises:
        ColumnError: an aggregated or grouping column is not there.
    """
    wanted = [*(column_of(name, how) for name, how in aggregations.items()), *(by.keys if by else ())]
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise ColumnError(f"No column {missing[0]!r} to reduce. There is: {', '.join(map(repr, frame.columns))}.")
    asked: list[Asked] = []
    watched = {name: _watched(how, asked) for name, how in aggregations.items()}
    try:
        value = await in_thread(computed, frame, watched, by)
        if not any(one.waits for one in asked):
            return value
        for one in asked:
            await one.settle()
        return await in_thread(computed, frame, watched, by)
    finally:
        for one in asked:
            one.close()


class Asked:
    """A function of the user's as pandas calls it.

    Where it gives what must be awaited, pandas goes through the groups twice: in the first round the function is
    called, then ``settle`` awaits what it gave, and in the second round that is given in the order of the calls.
    """

    def __init__(self, function: Callable[..., Any], how: Any) -> None:
        self.function = function
        self.args: tuple[Any, ...] = getattr(how, "args", ()) if isinstance(how, pd.NamedAgg) else ()
        self.kwargs: dict[str, Any] = getattr(how, "kwargs", {}) if isinstance(how, pd.NamedAgg) else {}
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
        self._settled = iter([await one if inspect.isawaitable(one) else one for one in self._given])

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
    computed: Any, plain: Mapping[Any, Any], others: Mapping[Any, Any], order: Sequence[Any], *, grouped: bool
) -> Any:
    """What pandas computed and what others made, in the order in which it was asked for."""
    if grouped:
        return _joined_groups(computed, others, order)
    parts: dict[Any, Any] = dict(others)
    if computed is not None:
        parts |= {name: computed[name] if len(computed) and name in computed else computed for name in plain}
    return {name: parts[name] for name in order}


def _joined_groups(computed: pd.DataFrame | None, others: Mapping[Any, pd.Series], order: Sequence[Any]) -> Any:
    """Columns of the same groups side by side; where pandas gives two levels of names, all have two."""
    frames = [part.to_frame(name) for name, part in others.items()]
    if computed is not None:
        depth = computed.columns.nlevels
        if depth > 1:
            named = [name if isinstance(name, tuple) else (name, *[""] * (depth - 1)) for name in others]
            frames = [
                part.set_axis(pd.MultiIndex.from_tuples([one]), axis=1) for part, one in zip(frames, named, strict=True)
            ]
        frames = [computed, *(_on(computed.index, part) for part in frames)]
    whole = pd.concat(frames, axis=1)
    labels: list[Any] = list(whole.columns)
    asked = [label[0] if isinstance(label, tuple) and label not in order else label for label in labels]
    if not all(name in order for name in asked):
        return whole
    return whole.iloc[:, np.argsort([order.index(name) for name in asked], kind="stable")]


def computed(frame: pd.DataFrame, aggregations: Mapping[str, Any], by: By | None) -> Any:
    """What pandas computes; see ``compute``."""
    return _whole(frame, aggregations) if by is None else _by_groups(frame, aggregations, by)


def _whole(frame: pd.DataFrame, aggregations: Mapping[str, Any]) -> Any:
    named = any(is_named(how) for how in aggregations.values())
    lists = any(isinstance(how, list) for how in aggregations.values())
    coded = any(callable(one) for how in aggregations.values() for one in _each(function_of(how)))
    tables = _tabular(aggregations)
    if not named and list(aggregations.values()) == [SHARE]:
        counts = frame.agg(dict.fromkeys(aggregations, "value_counts"))
        return counts / counts.sum()
    if not (named or coded) and (len(aggregations) == 1 or (lists and not tables)):
        return frame.agg(dict(aggregations))
    parts: dict[Any, Any] = {}
    for name, how in aggregations.items():
        wanted = function_of(how)
        side_by_side = lists and not (named or tables)  # then pandas reads each as a list
        parts[name] = _aggregated(frame[column_of(name, how)], _each(wanted) if side_by_side else wanted)
    shown = [isinstance(part, pd.Series | pd.DataFrame) for part in parts.values()]
    if not any(shown):
        return pd.Series(parts)
    return pd.concat(parts, axis=1) if all(shown) and not tables else parts


def _each(how: Any) -> list[Any]:
    return how if isinstance(how, list) else [how]


def _tabular(aggregations: Mapping[str, Any]) -> bool:
    hows = [one for how in aggregations.values() for one in _each(function_of(how))]
    return any(isinstance(one, str) and one in TABULAR for one in hows)


def _aggregated(column: pd.Series, how: Any) -> Any:
    """An aggregation of a column; a function gets it whole, whatever the version of pandas would do first."""
    if callable(how):
        return how(own(column))
    if not isinstance(how, list):
        return column.value_counts(normalize=True) if _is_share(how) else column.agg(how)
    parts = [_aggregated(column, part) for part in how]
    names = [name_of(part) for part in how]
    return dict(zip(names, parts, strict=True)) if _tabular({"": how}) else pd.Series(parts, index=names)


def own(rows: Rows) -> Rows:
    """Rows that a function may change: nothing of it reaches whom they are from."""
    return rows.copy(deep=not COPIES_ON_WRITE)


def _is_share(how: Any) -> bool:
    return isinstance(how, str) and how == SHARE


def ranked(table: pd.DataFrame, field: str, *, most: int, lowest_first: bool, by: By | None) -> NDArray[np.int64]:
    """The places of the rows that rank first by a column, in their order; of each group where there are groups.

    Rows without a value rank nowhere; equals stay in the frame's order.
    """
    places = np.flatnonzero(table[field].notna().to_numpy())
    values = table[field].iloc[places].reset_index(drop=True)
    order: NDArray[np.int64] = values.sort_values(ascending=lowest_first, kind="stable").index.to_numpy(dtype=np.int64)
    places = places[order]
    if by is None:
        return places[:most]
    _, groups = groups_of(table, by)
    ranks = {int(place): rank for rank, place in enumerate(places)}
    firsts = [sorted((row for row in rows if row in ranks), key=ranks.__getitem__)[:most] for rows in groups]
    return np.array([place for part in firsts for place in part], dtype=np.int64)


def _by_groups(frame: pd.DataFrame, aggregations: Mapping[str, Any], by: By) -> pd.DataFrame:
    groups = frame.groupby(by.key, **by.options)
    if not _tabular(aggregations):
        if any(is_named(how) for how in aggregations.values()):
            named = {str(name): (column_of(name, how), function_of(how)) for name, how in aggregations.items()}
            return groups.agg(**named)
        return groups.agg(dict(aggregations))
    index, members = groups_of(frame, by)
    parts: list[pd.DataFrame] = []
    for name, how in aggregations.items():
        column, wanted = column_of(name, how), function_of(how)
        for one in _each(wanted):
            called = f"{name}_{name_of(one)}" if isinstance(wanted, list) else str(name)
            if isinstance(one, str) and one in TABULAR:
                counts = _counts(frame[column], index, members)
                shown = counts.div(counts.sum(axis=1), axis=0) if _is_share(one) else counts
                parts.append(shown.set_axis([f"{called}_{value}" for value in shown.columns], axis=1))
            else:
                parts.append(_on(index, groups.agg(**{called: (column, one)})))
    return pd.concat(parts, axis=1)


def _on(index: pd.Index, part: pd.DataFrame) -> pd.DataFrame:
    """Rows of the groups in their order, with the groups' index; pandas 2.2 leaves out all where no group occurs."""
    return part.set_axis(index) if len(part) == len(index) else part.reindex(index)


def _counts(column: pd.Series, index: pd.Index, groups: Sequence[Sequence[int]]) -> pd.DataFrame:
    """How often each value stands in each group: one row a group, one column a value, in the order of the values."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, values = column.cat.codes.to_numpy(), column.cat.categories
    else:
        codes, values = _factorized(column)
    table = np.zeros((len(groups), len(values)), dtype=np.int64)
    for place, rows in enumerate(groups):
        there = codes[rows]
        table[place] = np.bincount(there[there >= 0], minlength=len(values))
    return pd.DataFrame(table, index=index, columns=values)


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
    parts = result.items() if isinstance(result, dict | pd.Series | pd.DataFrame) else [("", result)]
    lines = [f"{name}: {part.to_dict() if isinstance(part, pd.Series) else part}" for name, part in parts]
    return "\n".join(["Computed exactly over all findings; use these numbers as they are:", *lines])


async def call_reducer(
    function: Callable[[pd.DataFrame], Any],
    findings: pd.DataFrame,
    *,
    frame: pd.DataFrame,
    by: By | None,
    around: Callable[[Sequence[int]], AbstractContextManager[None]] = lambda _: contextlib.nullcontext(),
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
    return pd.DataFrame({OUTPUT_COLUMN: pd.Series(values, index=index, dtype=None if values else object)})


def groups_of(frame: pd.DataFrame, by: By) -> tuple[pd.Index, list[list[int]]]:
    """The groups as ``groupby`` makes them: its index, and the positions of each group's rows in frame order."""
    keys = [frame[key].reset_index(drop=True) for key in by.keys]
    positions = pd.Series(np.arange(len(frame), dtype=float))
    index = positions.groupby(keys, **by.options).size().index
    occurring = positions.groupby(keys, sort=by.sort, dropna=by.dropna, observed=True)
    numbers = occurring.ngroup().to_numpy(dtype=float, na_value=-1.0).astype(np.int64)
    places = np.arange(len(index)) if by.observed else _places(positions.groupby(keys, **by.options), numbers)
    rows: list[list[int]] = [[] for _ in range(len(index))]
    for position, number in enumerate(numbers.tolist()):
        if number >= 0:  # as groupby does, rows without a key are in no group
            rows[int(places[number])].append(position)
    return index, rows


def _places(positions: Any, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each group that occurs stands among all: pandas is asked for each group's first row.

    Keys would not do: a missing one is equal to none.
    """
    firsts = positions.min().to_numpy()
    there = np.flatnonzero(~np.isnan(firsts))
    assert len(there) == numbers.max(initial=-1) + 1, "a group that occurs is not among the groups"
    places = np.empty(len(there), dtype=np.int64)
    places[numbers[firsts[there].astype(np.int64)]] = there
    return places


def shaped(value: Any, kind: Any) -> Any:
    """A checked value as the result shows it: a list of records as a frame."""
    item = get_args(kind)[0] if get_origin(kind) is list else None
    if isinstance(value, list) and isinstance(item, type) and issubclass(item, BaseModel):
        return records_frame(value, item)
    if isinstance(value, list) and get_origin(item) is dict:
        return pd.DataFrame(value).convert_dtypes(dtype_backend="pyarrow")
    return value


def checked_output(value: Any, kind: Any) -> Any:
    """A computed value as the type that the user asked for.

    Raises:
        UsageError: it cannot be one.
    """
    if kind is None or isinstance(value, pd.DataFrame):
        return value
    if isinstance(value, pd.Series):
        value = value.iloc[0] if len(value) == 1 else value.to_dict()
    if isinstance(value, np.generic):
        value = value.item()
    try:
        return shaped(TypeAdapter(kind).validate_python(value), kind)
    except ValidationError as error:
        raise UsageError(f"The reduce gave no {kind}: {complaint(error)}.") from None


def group_output(values: Sequence[Any], index: pd.Index, kind: Any) -> pd.DataFrame:
    """The groups' answers as a summary frame: one row a group, or one an item where an answer is a list."""
    item = get_args(kind)[0] if get_origin(kind) is list else kind
    listed = [value if isinstance(value, list) else [value] for value in values]
    places = [place for place, part in enumerate(listed) for _ in part]
    labels = index.take(np.array(places, dtype=np.int64))
    flat = [one for part in listed for one in part]
    if isinstance(item, type) and issubclass(item, BaseModel):
        return records_frame(flat, item).set_axis(labels)
    if item is dict or get_origin(item) is dict:
        rows = [one if one is not None else {} for one in flat]
        return pd.DataFrame(rows, index=labels).convert_dtypes(dtype_backend="pyarrow")
    typed = record_type("Answer", {OUTPUT_COLUMN: item | None})
    return records_frame([None if one is None else typed(**{OUTPUT_COLUMN: one}) for one in flat], typed).set_axis(
        labels
    )
