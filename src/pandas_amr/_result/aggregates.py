"""Compute the aggregates of an answer twice: from the findings, and from labels."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._plan.aggregations import column_of, function_of, is_named
from pandas_amr._plan.compute import aggregate, group_rows
from pandas_amr._result.compare import is_number
from pandas_amr._units.by import By, find_missing_keys, make_grouping_keys
from pandas_amr._units.cells import cell

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping

    from numpy.typing import NDArray

COLUMNS = ("field", "aggregate", "group", "value", "found", "labelled", "error")


@dataclass(frozen=True)
class ComputedAnswer:
    """How an answer is computed: its aggregations, of which rows, by which groups."""

    aggregations: Mapping[str, Any]
    where: str | None = None
    by: By | None = None


def compare_aggregates(
    frame: pd.DataFrame, labels: Mapping[Any, pd.Series], answer: ComputedAnswer
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Compute each aggregate over the rows that have a label: of the findings, and of the labels.

    Returns:
        One row per aggregate, group and value, with the difference; and which aggregates cannot be
        compared, each with the reason.
    """
    comparison = _Comparison(frame, labels, answer)
    rows: list[dict[str, Any]] = []
    uncovered: list[str] = []
    for field, name, function in _single_aggregates(answer.aggregations):
        problem = comparison.problem(field, function)
        if problem is None:
            try:
                rows += comparison.errors(field, name, function)
            except Exception as error:  # noqa: BLE001 (a user's function, not written for labels)
                problem = f"{type(error).__name__}: {error}"
        if problem is not None:
            uncovered.append(f"{name} of {field!r}: {problem}")
    columns = [name for name in COLUMNS if name != "group" or answer.by is not None]
    return pd.DataFrame(rows, columns=columns), tuple(uncovered)


def _single_aggregates(aggregations: Mapping[str, Any]) -> Iterator[tuple[Any, str, Any]]:
    """Yield each aggregate's field, name and function; one aggregation may list several."""
    for name, how in aggregations.items():
        field, functions = column_of(name, how), function_of(how)
        several = isinstance(functions, list)
        for function in functions if several else [functions]:
            label = function
            if not isinstance(function, str):
                label = getattr(function, "__name__", "function")
            if is_named(how):
                label = f"{name}_{label}" if several else str(name)
            yield field, label, function


@dataclass(frozen=True)
class _Comparison:
    """An answer that is computed twice: from findings, and from labels."""

    frame: pd.DataFrame
    labels: Mapping[Any, pd.Series]
    answer: ComputedAnswer

    def problem(self, field: str, how: object) -> str | None:
        """Say why an aggregate cannot be compared."""
        if field not in self.labels or not self.labels[field].notna().any():
            return "there are no labels of it"
        if inspect.iscoroutinefunction(how):
            return "its function is asynchronous"
        by, where = self.answer.by, self.answer.where
        missing: list[Any] = []
        if by is not None:
            missing += find_missing_keys(by, self.frame.columns, self.frame.index)
        if where is not None and where not in self.frame.columns:
            missing.append(where)
        return f"the frame has no column {missing[0]!r}" if missing else None

    def errors(self, field: str, name: str, how: object) -> list[dict[str, Any]]:
        """Compute one aggregate twice: one row, or one row per group and value."""
        labelled_rows = self._labelled_rows(field)
        found = self._compute(self.frame[field], labelled_rows, {}, how)
        labelled = self._compute(self.labels[field], labelled_rows, self.labels, how)
        rows: list[dict[str, Any]] = []
        for group in dict.fromkeys([*found, *labelled]):
            pair = (found.get(group), labelled.get(group))
            for value, values in _value_pairs(pair):
                rows.append(_row(field, name, group, value, values))
        return rows

    def _labelled_rows(self, field: str) -> NDArray[np.bool_]:
        """Return the rows whose labels say if the row counts, in which group, and its value."""
        rows: NDArray[np.bool_] = self.labels[field].notna().to_numpy()
        if self.answer.where in self.labels:
            chosen = self.labels[self.answer.where].tolist()
            counts = np.array([value is True for value in chosen])
            # A row that does not count needs no label of its value.
            ignored = np.array([value is False for value in chosen])
            rows = (rows & counts) | ignored
        for key in self._keys:
            if key in self.labels:
                rows = rows & self.labels[key].notna().to_numpy()
        return rows

    @property
    def _keys(self) -> tuple[Any, ...]:
        return () if self.answer.by is None else tuple(self.answer.by.labels)

    def _compute(
        self,
        values: pd.Series,
        counted: NDArray[np.bool_],
        labels: Mapping[Any, pd.Series],
        how: object,
    ) -> dict[Hashable, Any]:
        """Compute an aggregate by group of the counted rows; without groups, the group is None.

        Rows are chosen and grouped by ``labels``, and by the frame's columns if those have none.
        """
        if self.answer.where is not None:
            chosen = labels.get(self.answer.where, self.frame[self.answer.where])
            counted = counted & np.array(
                [cell(value) is True for value in chosen.tolist()], dtype=bool
            )
        numbers = values.astype(object)[counted].map(_float_of_decimal)
        table = numbers.infer_objects().to_frame("value")
        if self.answer.by is None:
            return {None: _aggregate(table, how)}
        groups = self._groups(self.answer.by, np.flatnonzero(counted), labels)
        return {group: _aggregate(table.iloc[rows], how) for group, rows in groups}

    def _groups(
        self, by: By, positions: NDArray[np.int64], labels: Mapping[Any, pd.Series]
    ) -> Iterator[tuple[Hashable, list[int]]]:
        """Group the rows at some positions, and yield each group with places among those rows."""
        keys = pd.DataFrame(index=self.frame.index[positions])
        for key in self._keys:
            column = labels[key] if key in labels else make_grouping_keys(self.frame, By(key))[0]
            keys[key] = column.iloc[positions]
        index, groups = group_rows(keys.infer_objects(), by.at(positions, keys.index))
        yield from zip(index.tolist(), groups, strict=True)


def _aggregate(table: pd.DataFrame, how: object) -> Any:
    return aggregate(table, {"value": how}, None)["value"]


def _float_of_decimal(value: object) -> Any:
    return float(value) if isinstance(value, Decimal) else value


def _value_pairs(pair: tuple[Any, Any]) -> Iterator[tuple[Any, tuple[Any, Any]]]:
    """Yield what is compared; an aggregate such as ``value_counts`` is a table, value by value."""
    if not any(isinstance(part, pd.Series) for part in pair):
        yield None, pair
        return
    first, second = map(_as_counts, pair)
    for value in sorted({*first, *second}, key=str):
        yield value, (first.get(value, 0), second.get(value, 0))


def _as_counts(part: object) -> dict[Any, Any]:
    return part.to_dict() if isinstance(part, pd.Series) else {}


def _row(
    field: str, name: str, group: object, value: object, pair: tuple[Any, Any]
) -> dict[str, Any]:
    found, labelled = map(_plain_number, pair)
    error = None
    if is_number(found) and is_number(labelled):
        error = found - labelled
    return dict(zip(COLUMNS, (field, name, group, value, found, labelled, error), strict=True))


def _plain_number(value: object) -> Any:
    return value.item() if isinstance(value, np.generic) else value
