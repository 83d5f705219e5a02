"""Compute the aggregates of an answer twice: from the findings, and from labels."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from pandas_amr._plan.aggregations import column_of, function_of, is_named
from pandas_amr._plan.compute import aggregate, group_rows
from pandas_amr._result.compare import is_number
from pandas_amr._result.label_keys import make_label_key
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
    for figure in _list_figures(answer.aggregations):
        problem = comparison.problem(figure)
        if problem is None:
            try:
                rows += comparison.errors(figure)
            except Exception as error:  # noqa: BLE001 (a user's function, not written for labels)
                problem = f"{type(error).__name__}: {error}"
        if problem is not None:
            uncovered.append(f"{figure.name} of {figure.field!r}: {problem}")
    columns = list(COLUMNS)
    if answer.by is None:
        columns.remove("group")
    return pd.DataFrame(rows, columns=columns), tuple(uncovered)


class _Part(NamedTuple):
    """What was computed for a group, or for a value of a table: its label, and the number."""

    label: Any
    computed: Any


class _Figure(NamedTuple):
    """A figure of an answer: the field that is aggregated, its own name, and the function."""

    field: Any
    name: str
    function: Any


def _list_figures(aggregations: Mapping[str, Any]) -> Iterator[_Figure]:
    """Yield the figures of an answer; one aggregation may list several."""
    for name, how in aggregations.items():
        field = column_of(name, how)
        functions = function_of(how)
        if not isinstance(functions, list):
            label = str(name) if is_named(how) else _name_of(functions)
            yield _Figure(field, label, functions)
            continue
        for function in functions:
            label = _name_of(function)
            if is_named(how):
                label = f"{name}_{label}"
            yield _Figure(field, label, function)


def _name_of(function: object) -> str:
    if isinstance(function, str):
        return function
    return getattr(function, "__name__", "function")


@dataclass(frozen=True)
class _Comparison:
    """An answer that is computed twice: from findings, and from labels."""

    frame: pd.DataFrame
    labels: Mapping[Any, pd.Series]
    answer: ComputedAnswer

    def problem(self, figure: _Figure) -> str | None:
        """Say why an aggregate cannot be compared."""
        labels = self.labels.get(figure.field)
        if labels is None or not labels.notna().any():
            return "there are no labels of it"
        if inspect.iscoroutinefunction(figure.function):
            return "its function is asynchronous"
        by = self.answer.by
        where = self.answer.where
        missing: list[Any] = []
        if by is not None:
            missing += find_missing_keys(by, self.frame.columns, self.frame.index)
        if where is not None and where not in self.frame.columns:
            missing.append(where)
        if not missing:
            return None
        return f"the frame has no column {missing[0]!r}"

    def errors(self, figure: _Figure) -> list[dict[str, Any]]:
        """Compute one aggregate twice: one row, or one row per group and value."""
        findings = self.frame[figure.field]
        labels = self.labels[figure.field]
        counted = self._find_labelled_rows(labels)
        found = self._compute(findings, counted, {}, figure.function)
        labelled = self._compute(labels, counted, self.labels, figure.function)
        rows: list[dict[str, Any]] = []
        for group, first, second in _pair_parts(found, labelled, default=None):
            if isinstance(first, pd.Series) or isinstance(second, pd.Series):
                rows += _compare_counts(figure, group, first, second)
            else:
                rows.append(_make_row(figure, group, None, first, second))
        return rows

    def _find_labelled_rows(self, labels: pd.Series) -> NDArray[np.bool_]:
        """Return the rows whose labels say if the row counts, in which group, and its value."""
        rows: NDArray[np.bool_] = labels.notna().to_numpy()
        if self.answer.where in self.labels:
            chosen = self.labels[self.answer.where].tolist()
            counts = np.array([value is True for value in chosen])
            # A row that does not count needs no label of its value.
            ignored = np.array([value is False for value in chosen])
            rows = (rows & counts) | ignored
        for key in self._keys:
            if key in self.labels:
                has_key = self.labels[key].notna().to_numpy()
                rows = rows & has_key
        return rows

    @property
    def _keys(self) -> tuple[Any, ...]:
        if self.answer.by is None:
            return ()
        return tuple(self.answer.by.labels)

    def _compute(
        self,
        values: pd.Series,
        counted: NDArray[np.bool_],
        labels: Mapping[Any, pd.Series],
        how: object,
    ) -> dict[Hashable, _Part]:
        """Compute an aggregate by group of the counted rows; without groups, the group is None.

        Rows are chosen and grouped by ``labels``, and by the frame's columns if those have none.
        """
        if self.answer.where is not None:
            counted = counted & self._find_chosen_rows(self.answer.where, labels)
        objects = values.astype(object)[counted]
        numbers = objects.map(_float_of_decimal).infer_objects()
        table = numbers.to_frame("value")
        if self.answer.by is None:
            return {None: _Part(None, _aggregate(table, how))}
        positions = np.flatnonzero(counted)
        computed: dict[Hashable, _Part] = {}
        for group, rows in self._groups(self.answer.by, positions, labels):
            part = _Part(group, _aggregate(table.iloc[rows], how))
            computed[make_label_key(group)] = part
        return computed

    def _find_chosen_rows(self, where: str, labels: Mapping[Any, pd.Series]) -> NDArray[np.bool_]:
        """Return the rows of which ``where`` is true, by its labels if it has some."""
        chosen = labels.get(where, self.frame[where])
        return np.array([cell(value) is True for value in chosen.tolist()], dtype=bool)

    def _groups(
        self, by: By, positions: NDArray[np.int64], labels: Mapping[Any, pd.Series]
    ) -> Iterator[tuple[Hashable, list[int]]]:
        """Group the rows at some positions, and yield each group with places among those rows."""
        keys = pd.DataFrame(index=self.frame.index[positions])
        for key in self._keys:
            if key in labels:
                column = labels[key]
            else:
                column = make_grouping_keys(self.frame, By(key))[0]
            keys[key] = column.iloc[positions]
        by_of_rows = by.at(positions, keys.index)
        index, groups = group_rows(keys.infer_objects(), by_of_rows)
        yield from zip(index.tolist(), groups, strict=True)


def _aggregate(table: pd.DataFrame, how: object) -> Any:
    return aggregate(table, {"value": how}, None)["value"]


def _float_of_decimal(value: object) -> Any:
    return float(value) if isinstance(value, Decimal) else value


def _compare_counts(
    figure: _Figure, group: object, found: object, labelled: object
) -> list[dict[str, Any]]:
    """Compare an aggregate such as ``value_counts``, which is a table, value by value."""
    found_counts = _as_counts(found)
    labelled_counts = _as_counts(labelled)
    rows: list[dict[str, Any]] = []
    pairs = _pair_parts(found_counts, labelled_counts, default=0)
    for value, first, second in sorted(pairs, key=_written_label):
        rows.append(_make_row(figure, group, value, first, second))
    return rows


def _pair_parts(
    found: Mapping[Hashable, _Part], labelled: Mapping[Hashable, _Part], *, default: Any
) -> Iterator[tuple[Any, Any, Any]]:
    """Yield each label once, with what was computed of the findings and of the labels."""
    default_part = _Part(None, default)
    for key in dict.fromkeys([*found, *labelled]):
        label = found[key].label if key in found else labelled[key].label
        first = found.get(key, default_part).computed
        second = labelled.get(key, default_part).computed
        yield label, first, second


def _written_label(pair: tuple[Any, Any, Any]) -> str:
    return str(pair[0])


def _as_counts(part: object) -> dict[Hashable, _Part]:
    """Return the numbers of a table by the keys of their values."""
    if not isinstance(part, pd.Series):
        return {}
    return {make_label_key(value): _Part(value, number) for value, number in part.items()}


def _make_row(
    figure: _Figure, group: object, value: object, first: object, second: object
) -> dict[str, Any]:
    """Make the row that compares a number that was found with one of the labels."""
    found = _plain_number(first)
    labelled = _plain_number(second)
    error = None
    if is_number(found) and is_number(labelled):
        error = found - labelled
    return {
        "field": figure.field,
        "aggregate": figure.name,
        "group": group,
        "value": value,
        "found": found,
        "labelled": labelled,
        "error": error,
    }


def _plain_number(value: object) -> Any:
    return value.item() if isinstance(value, np.generic) else value
