"""Findings against labels: how many are right, which classes are taken for which, and what that does to the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._compute import TABULAR, computed
from pandas_amr._units import cell
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Z = 1.96  # 95 %
MISSING = "<missing>"
MOST_CLASSES = 50
AGGREGATES = ("field", "aggregate", "value", "found", "labelled", "error")


@dataclass(frozen=True, repr=False)
class Score:
    """How findings compare with labels.

    Attributes:
        fields: one row a field: ``rows`` that have a label, ``missing`` (those of them without a finding, which count
            as wrong), ``right``, ``accuracy`` with ``low`` and ``high`` (Wilson's 95 % interval); of numbers also
            ``mae`` (mean absolute error) and ``bias`` (mean error).
        classes: one row a field and class: ``precision recall f1 support``.
        aggregates: one row a computed aggregate (and value, where it is a table): ``field aggregate value found
            labelled error``, over the rows that have a label.
        pairs: one row a field and row of the frame: ``field label position found labelled right``.
    """

    fields: pd.DataFrame
    classes: pd.DataFrame
    aggregates: pd.DataFrame
    pairs: pd.DataFrame

    @property
    def accuracy(self) -> pd.Series:
        """The share of right findings, by field."""
        return self.fields["accuracy"]

    def confusion(self, field: str) -> pd.DataFrame:
        """How often each label (rows) was found as what (columns).

        Raises:
            UsageError: the field has no labels.
        """
        if field not in self.fields.index:
            raise UsageError(f"No labels of {field!r}. There is: {', '.join(map(repr, self.fields.index))}.")
        part = self.pairs[self.pairs["field"] == field]
        found = part["found"].map(lambda one: MISSING if one is None else one)
        return pd.crosstab(part["labelled"].rename("labelled"), found.rename("found"))

    def __repr__(self) -> str:
        parts = [
            f"{name} {int(row.right)}/{int(row.rows)} right ({row.accuracy:.1%})"
            for name, row in self.fields.iterrows()
        ]
        return f"<Score {'; '.join(parts)}>"

    def _repr_html_(self) -> str:
        tables = [self.fields.round(3), self.classes.round(3), self.aggregates]
        return "".join(table.to_html(escape=True) for table in tables if len(table))


def score_of(
    frame: pd.DataFrame, fields: list[str], labels: Any, *, aggregations: Mapping[str, Any], tolerance: float
) -> Score:
    """Compare the columns ``fields`` of a frame with labels.

    Raises:
        UsageError: the labels name no field, or cannot be laid beside the frame's rows.
    """
    beside = _beside(frame, fields, labels)
    names = ("labelled", "right")
    parts = [
        compared(name, frame[name], labels, np.flatnonzero(labels.notna()), names=names, tolerance=tolerance)
        for name, labels in beside.items()
    ]
    pairs = pd.concat(parts, ignore_index=True)
    told = {name: _figures(pairs[pairs["field"] == name]) for name in beside}
    classes = [_classes(name, pairs[pairs["field"] == name]) for name in beside]
    kept = [one for one in classes if len(one)]
    return Score(
        fields=pd.DataFrame.from_dict(told, orient="index").rename_axis("field"),
        classes=pd.concat(kept) if kept else pd.DataFrame(columns=["precision", "recall", "f1", "support"]),
        aggregates=_aggregates(frame, beside, aggregations),
        pairs=pairs,
    )


def _beside(frame: pd.DataFrame, fields: list[str], labels: Any) -> dict[str, pd.Series]:
    """The labels of each field, one a row of the frame."""
    if isinstance(labels, pd.DataFrame):
        given: dict[Any, Any] = {name: labels[name] for name in labels.columns if name in fields}
    elif isinstance(labels, Mapping):
        given = dict(labels)
    else:
        given = {fields[0] if len(fields) == 1 else getattr(labels, "name", None): labels}
    unknown = [name for name in given if name not in fields]
    if unknown or not given:
        told = f"not {unknown[0]!r}" if unknown else "and these name none"
        raise UsageError(f"Labels are of the findings {', '.join(map(repr, fields))}, {told}.")
    return {name: _column(frame, name, values) for name, values in given.items()}


def _column(frame: pd.DataFrame, field: str, values: Any) -> pd.Series:
    if isinstance(values, str):
        if values not in frame.columns:
            raise UsageError(f"The labels of {field!r} are in no column {values!r} of the frame.")
        return frame[values]
    if isinstance(values, pd.Series) and not values.index.equals(frame.index):
        if not (values.index.is_unique and frame.index.is_unique):
            raise UsageError(
                f"The labels of {field!r} cannot be laid beside the rows: labels of the index are doubled."
            )
        if not values.index.isin(frame.index).any():
            raise UsageError(f"The labels of {field!r} have no row of the frame in their index.")
        return values.reindex(frame.index)
    if not hasattr(values, "__len__") or len(values) != len(frame):
        raise UsageError(f"The labels of {field!r} are a Series by label, or one a row: {len(frame)}.")
    return pd.Series(list(values), index=frame.index, dtype=object)


def compared(
    field: str,
    found: pd.Series,
    others: pd.Series,
    places: NDArray[np.int64],
    *,
    names: tuple[str, str],
    tolerance: float,
) -> pd.DataFrame:
    """Two columns side by side at some places: one row each, with what the second and the verdict are called."""
    one, other = ([cell(value) for value in column.iloc[places].tolist()] for column in (found, others))
    return pd.DataFrame(
        {
            "field": field,
            "label": pd.Series(list(found.index.take(places)), dtype=object),
            "position": places,
            "found": pd.Series(one, dtype=object),
            names[0]: pd.Series(other, dtype=object),
            names[1]: np.array([same(*pair, tolerance) for pair in zip(one, other, strict=True)], dtype=bool),
        }
    )


def same(one: Any, other: Any, tolerance: float = 0.0) -> bool:
    """Whether two values say the same: numbers within ``tolerance`` (relative), texts but for case and spaces."""
    if one is None or other is None:
        return one is None and other is None
    if is_number(one) and is_number(other):
        return math.isclose(one, other, rel_tol=max(tolerance, 1e-9))
    if isinstance(one, str) and isinstance(other, str):
        return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()
    if isinstance(one, list) and isinstance(other, list):
        return sorted(map(str, one)) == sorted(map(str, other))
    return bool(one == other)


def is_number(value: Any) -> bool:
    """Whether a value counts as a number; a bool does not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _figures(pairs: pd.DataFrame) -> dict[str, Any]:
    rows, right = len(pairs), int(pairs["right"].sum())
    low, high = wilson(right, rows)
    both = [(f, t) for f, t in zip(pairs["found"], pairs["labelled"], strict=True) if is_number(f) and is_number(t)]
    errors: NDArray[np.float64] = np.array([f - t for f, t in both], dtype=float)
    return {
        "rows": rows,
        "missing": int(pairs["found"].isna().sum()),
        "right": right,
        "accuracy": right / rows if rows else None,
        "low": low,
        "high": high,
        "mae": float(np.abs(errors).mean()) if len(errors) else None,
        "bias": float(errors.mean()) if len(errors) else None,
    }


def wilson(right: int, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927); all there is where nothing was seen.

    Example:
        >>> [round(bound, 3) for bound in wilson(45, 50)]
        [0.786, 0.957]
    """
    if not rows:
        return 0.0, 1.0
    share, z2 = right / rows, Z * Z
    middle = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = Z * math.sqrt(share * (1 - share) / rows + z2 / (4 * rows * rows)) / (1 + z2 / rows)
    return max(0.0, middle - half), min(1.0, middle + half)


def _classes(field: str, pairs: pd.DataFrame) -> pd.DataFrame:
    """Precision and recall by class, of what has classes: words and bools, not many different ones."""
    values = pairs["labelled"].tolist()
    if not all(isinstance(one, str | bool) for one in values) or len(set(values)) > MOST_CLASSES:
        return pd.DataFrame()
    found, rows = pairs["found"].tolist(), []
    for value in sorted(set(values), key=str):
        hits = sum(same(f, value) and same(t, value) for f, t in zip(found, values, strict=True))
        said, support = sum(same(f, value) for f in found), sum(same(t, value) for t in values)
        precision, recall = hits / said if said else None, hits / support
        total = (precision or 0.0) + recall
        f1 = 2 * (precision or 0.0) * recall / total if total else 0.0
        rows.append(
            {"field": field, "class": value, "precision": precision, "recall": recall, "f1": f1, "support": support}
        )
    return pd.DataFrame(rows).set_index(["field", "class"])


def _aggregates(frame: pd.DataFrame, beside: dict[str, pd.Series], aggregations: Mapping[str, Any]) -> pd.DataFrame:
    """Each computed aggregate over the rows that have a label: of the findings, of the labels, and the difference."""
    rows: list[dict[str, Any]] = []
    for field, how in aggregations.items():
        if field not in beside:
            continue
        kept = beside[field].notna().to_numpy()
        both = pd.DataFrame(
            {"found": frame[field].astype(object)[kept], "labelled": beside[field].astype(object)[kept]}
        )
        both = both.infer_objects()
        for one in how if isinstance(how, list) else [how]:
            rows += _errors(field, one, both)
    return pd.DataFrame(rows, columns=list(AGGREGATES))


def _errors(field: str, how: Any, both: pd.DataFrame) -> list[dict[str, Any]]:
    name = how if isinstance(how, str) else getattr(how, "__name__", "function")
    values = [computed(both[[part]].rename(columns={part: field}), {field: how}, None)[field] for part in both.columns]
    if isinstance(how, str) and how in TABULAR:
        found, labelled = (part.to_dict() for part in values)
        keys = sorted(set(found) | set(labelled), key=str)
        return [_error(field, name, key, found.get(key, 0), labelled.get(key, 0)) for key in keys]
    return [_error(field, name, None, *values)]


def _error(field: str, name: str, value: Any, found: Any, labelled: Any) -> dict[str, Any]:
    found, labelled = (one.item() if isinstance(one, np.generic) else one for one in (found, labelled))
    error = found - labelled if is_number(found) and is_number(labelled) else None
    return dict(zip(AGGREGATES, (field, name, value, found, labelled, error), strict=True))
