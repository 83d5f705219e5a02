"""Compare two results row by row: where they differ, with both findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._result.compare import is_same, plain_value
from pandas_amr._result.frames import have_findings
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pandas_amr._result.result import Result

DIFFERS_COLUMN = "amr_differs"
STATUS_COLUMN = "amr_status"
STATUS = "status"  # in what rows differ, if one has no finding
SUMMARY = "amr_diff"
SIDES = ("self", "other")
MOST_LABELS = 100  # that the summary lists of rows which only one of the two has


@dataclass(frozen=True)
class _Side:
    """One of the two results.

    Attributes:
        frame: its rows with their findings.
        fields: the columns of its findings that can be compared.
        statuses: the status of each row.
        has_finding: whether each row has a finding.
    """

    frame: pd.DataFrame
    fields: list[str]
    statuses: list[Any]
    has_finding: NDArray[np.bool_]

    def values(self, field: str, places: NDArray[np.int64]) -> list[Any]:
        """Return the cells of a column at some places; None if the row is not there."""
        column = self.frame[field].tolist()
        return [column[place] if place >= 0 else None for place in places.tolist()]

    def statuses_at(self, places: NDArray[np.int64]) -> list[Any]:
        """Return the statuses of some rows; None of a row that is not there."""
        return [self.statuses[place] if place >= 0 else None for place in places.tolist()]


@dataclass(frozen=True)
class _Pairs:
    """The rows of both: their labels, and where each stands in either; -1 if it is not there."""

    labels: pd.Index
    first: NDArray[np.int64]
    second: NDArray[np.int64]

    @property
    def in_both(self) -> NDArray[np.bool_]:
        """Whether each row is in both."""
        both: NDArray[np.bool_] = (self.first >= 0) & (self.second >= 0)
        return both


def compare_results(
    first: tuple[Result, Sequence[str]], second: tuple[Result, Sequence[str]], *, tolerance: float
) -> pd.DataFrame:
    """Return the rows in which two results differ.

    Args:
        first: a result, and the columns of its findings.
        second: the other one.
        tolerance: the relative difference up to which two numbers count as equal.

    Raises:
        UsageError: one is not in memory, or the two cannot be compared.
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not tolerance >= 0:
        raise UsageError(f"diff(tolerance=...) takes a share from 0, not {tolerance!r}.")
    sides = _read_side(*first), _read_side(*second)
    fields = [field for field in sides[0].fields if field in sides[1].fields]
    if not fields:
        raise UsageError(
            "The two results have no field in common: this one has "
            f"{', '.join(sides[0].fields) or 'none'}, the other "
            f"{', '.join(sides[1].fields) or 'none'}."
        )
    pairs = _match_rows(sides[0].frame.index, sides[1].frame.index)
    return _Comparison(sides, pairs, fields, tolerance).frame()


def _read_side(result: Result, columns: Sequence[str]) -> _Side:
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
    fields = [name for name in columns if not _is_count(name, columns)]
    status = result.status
    if status is None:
        return _Side(frame, fields, ["ok"] * len(frame), np.ones(len(frame), dtype=bool))
    return _Side(frame, fields, status["status"].tolist(), have_findings(status))


def _note(reasons: list[list[str]], rows: NDArray[np.int64], reason: str) -> None:
    """Note in what some rows differ."""
    for row in rows.tolist():
        reasons[row].append(reason)


def _is_count(name: str, columns: Sequence[str]) -> bool:
    """Whether a column counts the records of another one: it differs if that does."""
    return name.endswith("_count") and name.removesuffix("_count") in columns


def _match_rows(first: pd.Index, second: pd.Index) -> _Pairs:
    """Match rows by label; by place, if the labels of both are the same in the same order.

    Raises:
        UsageError: labels are doubled, and do not tell which rows belong together.
    """
    if first.equals(second):
        places = np.arange(len(first), dtype=np.int64)
        return _Pairs(first, places, places)
    for index, whose in ((first, "this result"), (second, "the other one")):
        if not index.is_unique:
            raise UsageError(
                f"Rows are matched by label, and {whose} has labels twice: give the rows labels of "
                "their own before the call (df.set_index(...), df.reset_index())."
            )
    if first.nlevels != second.nlevels:
        raise UsageError(
            f"Rows are matched by label: those of this result have {first.nlevels} levels, those "
            f"of the other {second.nlevels}."
        )
    in_second = second.get_indexer(first).astype(np.int64)
    added = np.flatnonzero(first.get_indexer(second) < 0).astype(np.int64)
    labels = first.append(second[added])
    of_first = np.concatenate([np.arange(len(first)), np.full(len(added), -1)]).astype(np.int64)
    return _Pairs(labels, of_first, np.concatenate([in_second, added]))


@dataclass(frozen=True)
class _Comparison:
    """Two results, with the rows and fields that they have in common."""

    sides: tuple[_Side, _Side]
    pairs: _Pairs
    fields: list[str]
    tolerance: float

    def frame(self) -> pd.DataFrame:
        """Return the rows in which they differ, side by side, with the summary."""
        has_first = self._has_finding(self.sides[0], self.pairs.first)
        has_second = self._has_finding(self.sides[1], self.pairs.second)
        reasons: list[list[str]] = [[] for _ in self.pairs.labels]
        figures: dict[str, dict[str, int]] = {}
        for field in self.fields:
            rows, compared = self._find_differing(field, has_first, has_second)
            figures[field] = {"differ": len(rows), "of": compared}
            _note(reasons, rows, field)
        _note(reasons, np.flatnonzero(self.pairs.in_both & (has_first != has_second)), STATUS)
        self._note_only(reasons)
        shown = self._show(reasons)
        shown.attrs[SUMMARY] = self._summarise(reasons, figures)
        return shown

    def _has_finding(self, side: _Side, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        if not len(side.has_finding):
            return np.zeros(len(places), dtype=bool)
        has_finding: NDArray[np.bool_] = side.has_finding[places] & (places >= 0)
        return has_finding

    def _note_only(self, reasons: list[list[str]]) -> None:
        """Note the rows that only one of the two has."""
        for side, places in zip(SIDES, (self.pairs.second, self.pairs.first), strict=True):
            _note(reasons, np.flatnonzero(places < 0), f"only in {side}")

    def _find_differing(
        self, field: str, has_first: NDArray[np.bool_], has_second: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], int]:
        """Return the rows whose findings of a field differ, and how many were compared.

        If one of several maps failed, the row counts as failed; the others' findings are there.
        """
        is_in_both = self.pairs.in_both
        rows = np.flatnonzero(is_in_both & (has_first | has_second))
        first = self.sides[0].values(field, self.pairs.first[rows])
        second = self.sides[1].values(field, self.pairs.second[rows])
        differing: list[int] = []
        compared = 0
        for row, one, other in zip(rows.tolist(), first, second, strict=True):
            pair = plain_value(one), plain_value(other)
            if None in pair and not (has_first[row] and has_second[row]):
                continue
            compared += 1
            if not is_same(*pair, self.tolerance):
                differing.append(row)
        return np.array(differing, dtype=np.int64), compared

    def _find_changed_content(self, rows: NDArray[np.int64]) -> set[int]:
        """Return those of some rows whose own columns differ: they are other rows by now."""
        changed: set[int] = set()
        own = self._own_columns(0)
        for column in own:
            if column not in self._own_columns(1):
                continue
            first = self.sides[0].values(column, self.pairs.first[rows])
            second = self.sides[1].values(column, self.pairs.second[rows])
            for row, one, other in zip(rows.tolist(), first, second, strict=True):
                if plain_value(one) != plain_value(other):
                    changed.add(row)
        return changed

    def _own_columns(self, side: int) -> list[Any]:
        """Return the columns of a frame that are no findings, each of which is there once."""
        frame, fields = self.sides[side].frame, self.sides[side].fields
        if frame.columns.nlevels > 1 or not frame.columns.is_unique:
            return []
        return [
            name
            for name in frame.columns
            if name not in fields and not _is_count(str(name), fields)
        ]

    def _show(self, reasons: list[list[str]]) -> pd.DataFrame:
        """Return the rows that there is a reason for, side by side."""
        rows = np.flatnonzero([bool(noted) for noted in reasons])
        why = [", ".join(noted) for noted in reasons if noted]
        columns: dict[tuple[str, str], Any] = {(DIFFERS_COLUMN, ""): pd.array(why, dtype="string")}
        places = (self.pairs.first[rows], self.pairs.second[rows])
        sides = list(zip(SIDES, self.sides, places, strict=True))
        for name, side, own in sides:
            columns[STATUS_COLUMN, name] = pd.array(side.statuses_at(own), dtype="string")
        for field in self.fields:
            for name, side, own in sides:
                columns[field, name] = side.frame[field].array.take(own, allow_fill=True)
        return pd.DataFrame(columns, index=self.pairs.labels[rows])

    def _summarise(
        self, reasons: list[list[str]], figures: dict[str, dict[str, int]]
    ) -> dict[str, Any]:
        """Return the summary: of plain values, since pandas compares what stands in attrs."""
        has_reason = np.array([bool(noted) for noted in reasons], dtype=bool)
        rows = np.flatnonzero(has_reason & self.pairs.in_both)
        labels, own = self.pairs.labels, [set(side.fields) for side in self.sides]
        only_self, only_other = labels[self.pairs.second < 0], labels[self.pairs.first < 0]
        return {
            "rows": int(self.pairs.in_both.sum()),
            "differ": len(rows),
            "other_content": len(self._find_changed_content(rows)),
            "fields": figures,
            "rows_only_self": len(only_self),
            "rows_only_other": len(only_other),
            "only_self": only_self[:MOST_LABELS].tolist(),
            "only_other": only_other[:MOST_LABELS].tolist(),
            "fields_only_self": sorted(own[0] - own[1]),
            "fields_only_other": sorted(own[1] - own[0]),
        }
