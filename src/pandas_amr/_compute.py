"""Reduce, where it can be computed: pandas aggregations and functions of the user's, exact, no model involved."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, get_args, get_origin

import numpy as np
import pandas as pd
from pydantic import BaseModel, TypeAdapter, ValidationError

from pandas_amr._agent.dispatch import complaint
from pandas_amr._findings import records_frame
from pandas_amr.errors import ColumnError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

OUTPUT_COLUMN = "output"
TABULAR = frozenset({"value_counts"})


def compute(frame: pd.DataFrame, aggregations: Mapping[str, Any], *, by: Sequence[Hashable] = ()) -> Any:
    """Aggregate columns with pandas: exact, no model.

    Without ``by`` what ``DataFrame.agg`` gives; where tables and scalars would mix, a dict of them by column. With
    ``by`` a frame, one row a group; ``value_counts`` gives one column a value.

    Raises:
        ColumnError: an aggregated or grouping column is not there.
    """
    missing = [name for name in [*aggregations, *by] if name not in frame.columns]
    if missing:
        raise ColumnError(f"No column {missing[0]!r} to reduce. There is: {', '.join(map(repr, frame.columns))}.")
    if by:
        return _by_groups(frame, aggregations, list(by))
    lists = any(isinstance(how, list) for how in aggregations.values())
    if len(aggregations) == 1 or (lists and not _tabular(aggregations)):
        return frame.agg(dict(aggregations))
    parts = {name: _aggregated(frame[name], how) for name, how in aggregations.items()}
    return parts if any(isinstance(part, pd.Series | pd.DataFrame) for part in parts.values()) else pd.Series(parts)


def _tabular(aggregations: Mapping[str, Any]) -> bool:
    return any(
        set(how if isinstance(how, list) else [how]) & TABULAR for how in aggregations.values() if not callable(how)
    )


def _aggregated(column: pd.Series, how: Any) -> Any:
    if not isinstance(how, list):
        return column.agg(how)
    parts = {str(part): column.agg(part) for part in how}
    return parts if _tabular({"": how}) else pd.Series(parts)


def _by_groups(frame: pd.DataFrame, aggregations: Mapping[str, Any], by: list[Hashable]) -> pd.DataFrame:
    keys: Any = by if len(by) > 1 else by[0]
    groups = frame.groupby(keys, observed=True)
    if not _tabular(aggregations):
        return groups.agg(dict(aggregations))
    parts: list[pd.DataFrame] = []
    for name, how in aggregations.items():
        if how == "value_counts":
            counts = groups[name].value_counts().unstack(fill_value=0)  # noqa: PD010 (a Series has no pivot_table)
            parts.append(counts.set_axis([f"{name}_{value}" for value in counts.columns], axis=1))
        else:
            part = groups.agg({name: how})
            parts.append(part)
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
    function: Callable[[pd.DataFrame], Any], findings: pd.DataFrame, *, frame: pd.DataFrame, by: Sequence[Hashable]
) -> Any:
    """Call the user's reducer with the findings; with ``by`` once a group of ``frame``, one row a group."""
    if not by:
        return await _called(function, findings)
    groups = group_positions(frame, by)
    values = [await _called(function, findings.iloc[rows]) for _, rows in groups]
    index = group_index([key for key, _ in groups], by)
    if values and all(isinstance(value, dict | pd.Series) for value in values):
        return pd.DataFrame([dict(value) for value in values], index=index)
    return pd.DataFrame({OUTPUT_COLUMN: pd.Series(values, index=index, dtype=None if values else object)})


async def _called(function: Callable[[pd.DataFrame], Any], findings: pd.DataFrame) -> Any:
    if inspect.iscoroutinefunction(function):
        return await function(findings)
    return await asyncio.to_thread(function, findings)


def group_positions(frame: pd.DataFrame, by: Sequence[Hashable]) -> list[tuple[tuple[Any, ...], list[int]]]:
    """The groups' keys in groupby's order, each as a tuple, with the positions of its rows in frame order."""
    numbers = frame.groupby(list(by), observed=True).ngroup().fillna(-1).astype(int)
    keys = frame.groupby(list(by), observed=True).size().index
    rows: list[list[int]] = [[] for _ in range(len(keys))]
    for position, number in enumerate(numbers.tolist()):
        if number >= 0:  # as groupby does, rows without a key are in no group
            rows[number].append(position)
    return [(key if isinstance(key, tuple) else (key,), part) for key, part in zip(keys, rows, strict=True)]


def group_index(keys: Sequence[tuple[Any, ...]], by: Sequence[Hashable]) -> pd.Index:
    """The index of a summary frame, as groupby would give it."""
    if len(by) > 1:
        return pd.MultiIndex.from_tuples(list(keys), names=list(by))
    index: pd.Index = pd.Index([key[0] for key in keys], name=by[0])
    return index


def shaped(value: Any, kind: Any) -> Any:
    """A checked value as the result shows it: a list of records as a frame."""
    item = get_args(kind)[0] if get_origin(kind) is list else None
    if isinstance(value, list) and isinstance(item, type) and issubclass(item, BaseModel):
        return records_frame(value, item)
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


def group_output(
    values: Sequence[Any], keys: Sequence[tuple[Any, ...]], by: Sequence[Hashable], kind: Any
) -> pd.DataFrame:
    """The groups' answers as a summary frame: one row a group, or one an item where an answer is a list."""
    item = get_args(kind)[0] if get_origin(kind) is list else kind
    listed = [value if isinstance(value, list) else [value] for value in values]
    index = group_index([key for key, part in zip(keys, listed, strict=True) for _ in part], by)
    flat = [one for part in listed for one in part]
    if isinstance(item, type) and issubclass(item, BaseModel):
        return records_frame(flat, item).set_axis(index)
    return pd.DataFrame({OUTPUT_COLUMN: pd.Series(flat, index=index, dtype=object).convert_dtypes()})
