"""Compare two results row by row: where they differ, with both findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from pandas_amr._records.refused import show_refused
from pandas_amr._result.comparable import make_comparable, plain_value
from pandas_amr._result.compare import is_same
from pandas_amr._result.frames import have_findings
from pandas_amr._result.label_keys import make_label_key
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Container, Hashable, Mapping, Sequence

    from numpy.typing import NDArray
    from pandas.api.extensions import ExtensionArray

    from pandas_amr._result.result import Result

DIFFERS_COLUMN = "amr_differs"
STATUS_COLUMN = "amr_status"
STATUS = "status"  # in what rows differ, if one has no finding
SUMMARY = "amr_diff"
SELF = "self"
OTHER = "other"
MOST_LABELS = 100  # that the summary lists of rows which only one of the two has

Places: TypeAlias = "NDArray[np.int64]"
Mask: TypeAlias = "NDArray[np.bool_]"


@dataclass(frozen=True)
class _Side:
    """One of the two results.

    Attributes:
        frame: its rows with their findings.
        fields: the columns of its findings that can be compared.
        kinds: the type of each column of its findings.
        statuses: the status of each row.
        has_finding: whether each row has a finding.
    """

    frame: pd.DataFrame
    fields: list[str]
    kinds: Mapping[str, Any]
    statuses: list[Any]
    has_finding: Mask

    def have_findings_at(self, places: Places) -> Mask:
        """Tell which of some rows have a finding; those that are not here have none."""
        if not len(self.has_finding):
            return np.zeros(len(places), dtype=bool)
        is_here = places >= 0
        has_finding: Mask = self.has_finding[places] & is_here
        return has_finding

    def statuses_at(self, places: Places) -> ExtensionArray:
        """Return the statuses of some rows; NA of a row that is not here."""
        statuses = pd.array(self.statuses, dtype="string")
        return statuses.take(places, allow_fill=True)

    def cells_at(self, field: str, places: Places) -> ExtensionArray:
        """Return the cells of a field in some rows; NA in a row that is not here."""
        cells: ExtensionArray = self.frame[field].array.take(places, allow_fill=True)
        return cells

    def findings_at(self, field: str, places: Places) -> list[Any]:
        """Return the findings of a field in some rows that are here, as they are compared."""
        kind = self.kinds[field]
        values = self.values_at(field, places)
        return [make_comparable(value, kind, lenient=False) for value in values]

    def values_at(self, column: Any, places: Places) -> list[Any]:
        """Return the cells of a column in some rows that are here, as plain values."""
        cells = self.frame[column].iloc[places].tolist()
        return [plain_value(cell) for cell in cells]


@dataclass(frozen=True)
class _Pairs:
    """The rows of both: their labels, and where each stands in either; -1 if it is not there."""

    labels: pd.Index
    first: Places
    second: Places

    @property
    def in_both(self) -> Mask:
        """Whether each row is in both."""
        both: Mask = (self.first >= 0) & (self.second >= 0)
        return both


def compare_results(
    first: tuple[Result, Mapping[str, Any]],
    second: tuple[Result, Mapping[str, Any]],
    *,
    tolerance: float,
) -> pd.DataFrame:
    """Return the rows in which two results differ.

    Args:
        first: a result, and the columns of its findings, each with its type.
        second: the other one.
        tolerance: the relative difference up to which two numbers count as equal.

    Raises:
        UsageError: one is not in memory, or the two cannot be compared.
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not tolerance >= 0:
        raise UsageError(
            f"diff(tolerance=...) takes a share from 0, not {show_refused(tolerance)}."
        )
    own = _read_side(*first)
    other = _read_side(*second)
    fields = [field for field in own.fields if field in other.fields]
    if not fields:
        raise UsageError(
            "The two results have no field in common: this one has "
            f"{', '.join(own.fields) or 'none'}, the other "
            f"{', '.join(other.fields) or 'none'}."
        )
    pairs = _match_rows(own.frame.index, other.frame.index)
    return _Comparison(own, other, pairs, fields, tolerance).frame()


def _read_side(result: Result, kinds: Mapping[str, Any]) -> _Side:
    """Read what is compared of a result.

    Raises:
        UsageError: it is not in memory.
    """
    frame: Any = result.frame
    if not isinstance(frame, pd.DataFrame):
        raise UsageError(
            "A result with out= is not compared row by row: call the verb for a sample that fits "
            "into memory."
        )
    fields = [name for name in kinds if not _is_count(name, kinds)]
    if result.status is None:
        statuses = ["ok"] * len(frame)
        has_finding = np.ones(len(frame), dtype=bool)
    else:
        statuses = result.status["status"].tolist()
        has_finding = have_findings(result.status)
    return _Side(frame, fields, kinds, statuses, has_finding)


def _is_count(name: str, columns: Container[str]) -> bool:
    """Whether a column counts the records of another one: it differs if that does."""
    return name.endswith("_count") and name.removesuffix("_count") in columns


def _match_rows(first: pd.Index, second: pd.Index) -> _Pairs:
    """Match rows by label; by place, if the labels of both are the same in the same order.

    A row of the second that no row of the first is matched with is only in the second.

    Raises:
        UsageError: labels are doubled, and do not tell which rows belong together.
    """
    keys = [make_label_key(label) for label in first.tolist()]
    others = [make_label_key(label) for label in second.tolist()]
    places = np.arange(len(first), dtype=np.int64)
    if keys == others:
        return _Pairs(first, places, places)
    _check_distinct(keys, "this result")
    _check_distinct(others, "the other one")
    if first.nlevels != second.nlevels:
        raise UsageError(
            f"Rows are matched by label: those of this result have {first.nlevels} levels, those "
            f"of the other {second.nlevels}."
        )
    places_in_second = _find_places(keys, others)
    added = np.setdiff1d(np.arange(len(second), dtype=np.int64), places_in_second)
    not_in_first = np.full(len(added), -1, dtype=np.int64)
    return _Pairs(
        labels=_append_labels(first, second[added]),
        first=np.concatenate([places, not_in_first]),
        second=np.concatenate([places_in_second, added]),
    )


def _append_labels(labels: pd.Index, added: pd.Index) -> pd.Index:
    """Append labels to others; pandas 2 warns where one side is empty, and of another type."""
    if not len(added):
        return labels
    if not len(labels):
        return added
    return labels.append(added)


def _find_places(keys: Sequence[Hashable], others: Sequence[Hashable]) -> Places:
    """Find where each key stands among others; -1 if it does not.

    Not by pandas' ``get_indexer``: an index of times finds texts, which do not find the times.
    """
    place_of = {key: place for place, key in enumerate(others)}
    return np.array([place_of.get(key, -1) for key in keys], dtype=np.int64)


def _check_distinct(keys: Sequence[Hashable], whose: str) -> None:
    """Check that no two rows have the same label.

    Raises:
        UsageError: two have.
    """
    if len(set(keys)) < len(keys):
        raise UsageError(
            f"Rows are matched by label, and {whose} has labels twice: give the rows labels of "
            "their own before the call (df.set_index(...), df.reset_index())."
        )


@dataclass(frozen=True)
class _Comparison:
    """Two results, with the rows and fields that they have in common."""

    first: _Side
    second: _Side
    pairs: _Pairs
    fields: list[str]
    tolerance: float

    def frame(self) -> pd.DataFrame:
        """Return the rows in which they differ, side by side, with the summary."""
        has_first = self.first.have_findings_at(self.pairs.first)
        has_second = self.second.have_findings_at(self.pairs.second)
        reasons: list[list[str]] = [[] for _ in self.pairs.labels]
        figures: dict[str, dict[str, int]] = {}
        for field in self.fields:
            rows, compared = self._find_differing(field, has_first, has_second)
            figures[field] = {"differ": len(rows), "of": compared}
            for row in rows:
                reasons[row].append(field)
        one_has_none = self.pairs.in_both & (has_first != has_second)
        _note(reasons, one_has_none, STATUS)
        _note(reasons, self.pairs.second < 0, f"only in {SELF}")
        _note(reasons, self.pairs.first < 0, f"only in {OTHER}")
        shown = self._show(reasons)
        shown.attrs[SUMMARY] = self._summarise(reasons, figures)
        return shown

    def _find_differing(
        self, field: str, has_first: Mask, has_second: Mask
    ) -> tuple[list[int], int]:
        """Return the rows whose findings of a field differ, and how many were compared.

        If one of several maps failed, the row counts as failed; the others' findings are there.
        """
        one_has_finding = has_first | has_second
        rows = np.flatnonzero(self.pairs.in_both & one_has_finding)
        first = self.first.findings_at(field, self.pairs.first[rows])
        second = self.second.findings_at(field, self.pairs.second[rows])
        differing: list[int] = []
        compared = 0
        for row, one, other in zip(rows.tolist(), first, second, strict=True):
            is_missing = one is None or other is None
            both_have_findings = has_first[row] and has_second[row]
            if is_missing and not both_have_findings:
                continue
            compared += 1
            if not is_same(one, other, self.tolerance):
                differing.append(row)
        return differing, compared

    def _find_changed_content(self, rows: Places) -> set[int]:
        """Return those of some rows whose own columns differ: they are other rows by now."""
        changed: set[int] = set()
        columns_of_second = self._own_columns(self.second)
        for column in self._own_columns(self.first):
            if column not in columns_of_second:
                continue
            first = self.first.values_at(column, self.pairs.first[rows])
            second = self.second.values_at(column, self.pairs.second[rows])
            for row, one, other in zip(rows.tolist(), first, second, strict=True):
                if one != other:
                    changed.add(row)
        return changed

    def _own_columns(self, side: _Side) -> list[Any]:
        """Return the columns of a frame that are no findings, each of which is there once."""
        columns = side.frame.columns
        if columns.nlevels > 1 or not columns.is_unique:
            return []
        own: list[Any] = []
        for name in columns:
            is_finding = name in side.fields or _is_count(str(name), side.fields)
            if not is_finding:
                own.append(name)
        return own

    def _show(self, reasons: list[list[str]]) -> pd.DataFrame:
        """Return the rows that there is a reason for, side by side."""
        rows = np.flatnonzero([bool(noted) for noted in reasons])
        differs = [", ".join(reasons[row]) for row in rows]
        in_first = self.pairs.first[rows]
        in_second = self.pairs.second[rows]
        columns: dict[tuple[str, str], Any] = {}
        columns[DIFFERS_COLUMN, ""] = pd.array(differs, dtype="string")
        columns[STATUS_COLUMN, SELF] = self.first.statuses_at(in_first)
        columns[STATUS_COLUMN, OTHER] = self.second.statuses_at(in_second)
        for field in self.fields:
            columns[field, SELF] = self.first.cells_at(field, in_first)
            columns[field, OTHER] = self.second.cells_at(field, in_second)
        return pd.DataFrame(columns, index=self.pairs.labels[rows])

    def _summarise(
        self, reasons: list[list[str]], figures: dict[str, dict[str, int]]
    ) -> dict[str, Any]:
        """Return the summary: of plain values, since pandas compares what stands in attrs."""
        in_both = self.pairs.in_both
        has_reason = np.array([bool(noted) for noted in reasons], dtype=bool)
        rows = np.flatnonzero(has_reason & in_both)
        changed = self._find_changed_content(rows)
        only_self = self.pairs.labels[self.pairs.second < 0]
        only_other = self.pairs.labels[self.pairs.first < 0]
        fields_of_self = set(self.first.fields)
        fields_of_other = set(self.second.fields)
        return {
            "rows": int(in_both.sum()),
            "differ": len(rows),
            "other_content": len(changed),
            "fields": figures,
            "rows_only_self": len(only_self),
            "rows_only_other": len(only_other),
            "only_self": only_self[:MOST_LABELS].tolist(),
            "only_other": only_other[:MOST_LABELS].tolist(),
            "fields_only_self": sorted(fields_of_self - fields_of_other),
            "fields_only_other": sorted(fields_of_other - fields_of_self),
        }


def _note(reasons: list[list[str]], applies: Mask, reason: str) -> None:
    """Note in what some rows differ."""
    for row in np.flatnonzero(applies):
        reasons[row].append(reason)
