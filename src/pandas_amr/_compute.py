"""Reduce, where it can be computed: pandas aggregations and functions of the user's, exact, no model involved."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from typing import TYPE_CHECKING, Any, get_args, get_origin

import numpy as np
import pandas as pd
from pydantic import BaseModel, TypeAdapter, ValidationError

from pandas_amr._agent.dispatch import complaint
from pandas_amr._findings import records_frame
from pandas_amr.errors import ColumnError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from pandas_amr._by import By

OUTPUT_COLUMN = "output"
SHARE = "share"  # this library's word for value_counts(normalize=True)
TABULAR = frozenset({"value_counts", SHARE})


async def compute(frame: pd.DataFrame, aggregations: Mapping[str, Any], *, by: By | None = None) -> Any:
    """Aggregate columns with pandas: exact, no model.

    Without ``by`` what ``DataFrame.agg`` gives; where tables and scalars would mix, a dict of them by column. With
    ``by`` a frame, one row a group; ``value_counts`` gives one column a value. A pair of a column and a function names
    its result, as named aggregations do.

    Raises:
        ColumnError: an aggregated or grouping column is not there.
    """
    wanted = [*(column_of(name, how) for name, how in aggregations.items()), *(by.keys if by else ())]
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise ColumnError(f"No column {missing[0]!r} to reduce. There is: {', '.join(map(repr, frame.columns))}.")
    slow = {name: how for name, how in aggregations.items() if inspect.iscoroutinefunction(function_of(how))}
    quick = {name: how for name, how in aggregations.items() if name not in slow}
    if not slow:
        return await asyncio.to_thread(computed, frame, quick, by)
    plainly = await asyncio.to_thread(computed, frame, quick, by) if quick else None
    parts: dict[Any, Any] = {}
    for name, how in slow.items():
        column = frame[column_of(name, how)]
        if by is None:
            parts[name] = await function_of(how)(column)
        else:
            index, groups = groups_of(frame, by)
            parts[name] = pd.Series(
                [await function_of(how)(column.iloc[rows]) for rows in groups], index=index, name=name
            )
    return joined_parts(plainly, quick, parts, list(aggregations), grouped=by is not None)


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


def is_named(how: Any) -> bool:
    """Whether an aggregation says its column: a pair of a column and a function, or ``pd.NamedAgg``."""
    return (isinstance(how, tuple) and len(how) == 2) or isinstance(how, pd.NamedAgg)


def joined_parts(
    computed: Any, plain: Mapping[Any, Any], others: Mapping[Any, Any], order: Sequence[Any], *, grouped: bool
) -> Any:
    """What pandas computed and what others made, in the order in which it was asked for."""
    if grouped:
        frames = [] if computed is None else [computed]
        whole = pd.concat([*frames, *(part.to_frame() for part in others.values())], axis=1)
        first = [name for name in order if name in whole.columns]
        rest = [name for name in whole.columns if name not in first]
        return whole if rest else whole[first]
    parts: dict[Any, Any] = dict(others)
    if computed is not None:
        parts |= {name: computed[name] if len(computed) and name in computed else computed for name in plain}
    return {name: parts[name] for name in order}


def computed(frame: pd.DataFrame, aggregations: Mapping[str, Any], by: By | None) -> Any:
    """What pandas computes; see ``compute``."""
    named = any(is_named(how) for how in aggregations.values())
    if by is not None:
        return _by_groups(frame, aggregations, by)
    lists = any(isinstance(how, list) for how in aggregations.values())
    if not named and list(aggregations.values()) == [SHARE]:
        counts = frame.agg(dict.fromkeys(aggregations, "value_counts"))
        return counts / counts.sum()
    if not named and (len(aggregations) == 1 or (lists and not _tabular(aggregations))):
        return frame.agg(dict(aggregations))
    parts = {name: _aggregated(frame[column_of(name, how)], function_of(how)) for name, how in aggregations.items()}
    return parts if any(isinstance(part, pd.Series | pd.DataFrame) for part in parts.values()) else pd.Series(parts)


def _tabular(aggregations: Mapping[str, Any]) -> bool:
    hows = [function_of(how) for how in aggregations.values()]
    return any(set(how if isinstance(how, list) else [how]) & TABULAR for how in hows if not callable(how))


def _aggregated(column: pd.Series, how: Any) -> Any:
    if not isinstance(how, list):
        return column.value_counts(normalize=True) if _is_share(how) else column.agg(how)
    parts = {str(part): _aggregated(column, part) for part in how}
    return parts if _tabular({"": how}) else pd.Series(parts)


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
            named = {
                str(name): how if isinstance(how, pd.NamedAgg) else (column_of(name, how), function_of(how))
                for name, how in aggregations.items()
            }
            return groups.agg(**named)
        return groups.agg(dict(aggregations))
    parts: list[pd.DataFrame] = []
    for name, how in aggregations.items():
        column, wanted = column_of(name, how), function_of(how)
        for one in wanted if isinstance(wanted, list) else [wanted]:
            called = f"{name}_{one}" if isinstance(wanted, list) else str(name)
            if isinstance(one, str) and one in TABULAR:
                counted = groups[column].value_counts(normalize=_is_share(one))
                counts = counted.unstack(fill_value=0)  # noqa: PD010 (a Series has no pivot_table)
                parts.append(counts.set_axis([f"{called}_{value}" for value in counts.columns], axis=1))
            else:
                parts.append(groups.agg(**{called: (column, one)}))
    return pd.concat(parts, axis=1)


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
            return await _called(function, findings)
    index, groups = groups_of(frame, by)
    values = []
    for rows in groups:
        with around(rows):
            values.append(await _called(function, findings.iloc[rows]))
    if values and all(isinstance(value, dict | pd.Series) for value in values):
        return pd.DataFrame([dict(value) for value in values], index=index)
    return pd.DataFrame({OUTPUT_COLUMN: pd.Series(values, index=index, dtype=None if values else object)})


async def _called(function: Callable[[pd.DataFrame], Any], findings: pd.DataFrame) -> Any:
    if inspect.iscoroutinefunction(function):
        return await function(findings)
    return await asyncio.to_thread(function, findings)


def groups_of(frame: pd.DataFrame, by: By) -> tuple[pd.Index, list[list[int]]]:
    """The groups as ``groupby`` makes them: its index, and the positions of each group's rows in frame order."""
    index = frame.groupby(by.key, **by.options).size().index
    occurring = frame.groupby(by.key, sort=by.sort, dropna=by.dropna, observed=True)
    numbers = occurring.ngroup().to_numpy(dtype=float, na_value=-1.0).astype(np.int64)
    places = np.arange(len(index))
    if not by.observed:  # groups that do not occur stand among the others
        places = index.get_indexer(occurring.size().index)
    rows: list[list[int]] = [[] for _ in range(len(index))]
    for position, number in enumerate(numbers.tolist()):
        if number >= 0:  # as groupby does, rows without a key are in no group
            rows[int(places[number])].append(position)
    return index, rows


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
    return pd.DataFrame({OUTPUT_COLUMN: pd.Series(flat, index=labels, dtype=object).convert_dtypes()})
