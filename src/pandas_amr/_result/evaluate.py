"""Score findings against labels: how many are right, by field, class and aggregate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._records.html import details, element, escape, root
from pandas_amr._records.public import public
from pandas_amr._result.aggregates import compare_aggregates
from pandas_amr._result.comparable import make_comparable
from pandas_amr._result.compare import compare_columns, is_number, is_same, wilson_interval
from pandas_amr._result.labels import labels_by_field
from pandas_amr._result.tables import frame_table, note
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas_amr._result.aggregates import ComputedAnswer

MISSING = "<missing>"
MOST_CLASSES = 50
MOST_ROWS = 100  # of a table that is shown
CLASS_COLUMNS = ("precision", "recall", "f1", "support")


@public
@dataclass(frozen=True, repr=False)
class Score:
    """How findings compare with labels.

    Attributes:
        fields: one row per field: ``rows`` that have a label, ``missing`` (those without a
            finding, which count as wrong), ``right``, ``accuracy`` with ``low`` and ``high``
            (Wilson's 95 % interval); for numbers also ``mae`` (mean absolute error) and ``bias``
            (mean error).
        classes: one row per field and class: ``precision recall f1 support``.
        aggregates: one row per computed aggregate (and value, if it is a table): ``field aggregate
            value found labelled error``, with ``group`` before the value if there are groups; over
            the rows that have a label. Rows are chosen (``where``) and grouped by labels if there
            are any of that column, else by findings.
        pairs: one row per field and row of the frame: ``field label position found labelled
            right``.
        uncovered: the aggregates of the answer that could not be compared, each with the reason.
    """

    fields: pd.DataFrame
    classes: pd.DataFrame
    aggregates: pd.DataFrame
    pairs: pd.DataFrame
    uncovered: tuple[str, ...] = ()

    @property
    def accuracy(self) -> pd.Series:
        """The share of right findings, by field."""
        return self.fields["accuracy"]

    def confusion(self, field: str) -> pd.DataFrame:
        """Count how often each label (rows) was found as what (columns).

        Raises:
            UsageError: the field has no labels.
        """
        if field not in self.fields.index:
            others = ", ".join(map(repr, self.fields.index))
            raise UsageError(f"There are no labels of {field!r}, only of {others}.")
        is_of_field = self.pairs["field"] == field
        pairs = self.pairs[is_of_field]
        labelled = pairs["labelled"]
        found = pairs["found"].map(_missing_by_name)
        return pd.crosstab(labelled, found)

    def __repr__(self) -> str:
        parts = []
        for name, row in self.fields.iterrows():
            if row.rows:
                share = f"{int(row.right)}/{int(row.rows)} right ({row.accuracy:.1%})"
                parts.append(f"{name} {share}")
            else:
                parts.append(f"{name} has no labels")
        more = f"; aggregates not compared: {len(self.uncovered)}" if self.uncovered else ""
        return f"<Score {'; '.join(parts)}{more}>"

    def _repr_html_(self) -> str:
        tables = {"Fields": self.fields, "Classes": self.classes, "Aggregates": self.aggregates}
        parts = [element("p", element("b", escape(repr(self).strip("<>"))))]
        for title, frame in tables.items():
            if len(frame):
                shown = frame_table(frame.round(3), rows=MOST_ROWS)
                parts.append(details(title, shown, is_open=title == "Fields"))
        if self.uncovered:
            parts.append(note(f"Not compared: {'; '.join(self.uncovered)}."))
        return root(*parts)


def _missing_by_name(value: object) -> Any:
    return MISSING if value is None else value


def score_of(
    frame: pd.DataFrame,
    kinds: Mapping[str, Any],
    labels: object,
    *,
    answer: ComputedAnswer,
    tolerance: float,
) -> Score:
    """Compare columns of a frame, whose types ``kinds`` has, with labels.

    Raises:
        UsageError: the labels name no field, do not match the frame's rows, or have another type.
    """
    columns = labels_by_field(frame, list(kinds), labels)
    figures: dict[str, dict[str, Any]] = {}
    classes: list[pd.DataFrame] = []
    parts: list[pd.DataFrame] = []
    for name, column in columns.items():
        pairs = _compare_field(name, kinds[name], frame[name], column, tolerance)
        parts.append(pairs)
        figures[name] = _figures(pairs)
        if _has_classes(pairs):
            classes.append(_classes(name, pairs, kinds[name]))
    aggregates, uncovered = compare_aggregates(frame, columns, answer)
    return Score(
        fields=pd.DataFrame.from_dict(figures, orient="index").rename_axis("field"),
        classes=pd.concat(classes) if classes else pd.DataFrame(columns=list(CLASS_COLUMNS)),
        aggregates=aggregates,
        pairs=pd.concat(parts, ignore_index=True),
        uncovered=uncovered,
    )


def _compare_field(
    name: str, kind: Any, found: pd.Series, labels: pd.Series, tolerance: float
) -> pd.DataFrame:
    """Compare the findings of a field with its labels: one row per label."""
    return compare_columns(
        name,
        kind,
        found,
        labels,
        np.flatnonzero(labels.notna()),
        names=("labelled", "right"),
        tolerance=tolerance,
    )


def _figures(pairs: pd.DataFrame) -> dict[str, Any]:
    rows = len(pairs)
    right = int(pairs["right"].sum())
    low, high = wilson_interval(right, rows)
    differences: list[float] = []
    for found, labelled in zip(pairs["found"], pairs["labelled"], strict=True):
        if is_number(found) and is_number(labelled):
            differences.append(float(found) - float(labelled))
    errors = np.array(differences)
    return {
        "rows": rows,
        "missing": int(pairs["found"].isna().sum()),
        "right": right,
        "accuracy": right / rows if rows else None,
        "low": low,
        "high": high,
        "mae": float(np.abs(errors).mean()) if differences else None,
        "bias": float(errors.mean()) if differences else None,
    }


def _has_classes(pairs: pd.DataFrame) -> bool:
    """Whether the labels are classes: words or bools, and not too many different ones."""
    labels = pairs["labelled"].tolist()
    if not labels or not all(isinstance(label, str | bool) for label in labels):
        return False
    return len(set(labels)) <= MOST_CLASSES


def _classes(field: str, pairs: pd.DataFrame, kind: Any) -> pd.DataFrame:
    """Return precision and recall of each class."""
    labels = pairs["labelled"].tolist()
    label_forms = [make_comparable(label, kind, lenient=True) for label in labels]
    found_forms = [make_comparable(value, kind, lenient=True) for value in pairs["found"].tolist()]
    rows: list[dict[str, Any]] = []
    for value in sorted(set(labels), key=str):
        form = make_comparable(value, kind, lenient=True)
        is_labelled = np.array([is_same(label, form) for label in label_forms])
        is_found = np.array([is_same(finding, form) for finding in found_forms])
        hits = is_labelled & is_found
        figures = _class_figures(int(hits.sum()), int(is_found.sum()), int(is_labelled.sum()))
        rows.append({"field": field, "class": value, **figures})
    return pd.DataFrame(rows).set_index(["field", "class"])


def _class_figures(hits: int, found: int, support: int) -> dict[str, Any]:
    recall = hits / support
    precision = hits / found if found else None
    f1 = 0.0
    if precision:
        f1 = 2 * precision * recall / (precision + recall)
    return {"precision": precision, "recall": recall, "f1": f1, "support": support}
