"""Findings against labels: how many are right, which classes are taken for which, and what that does to the numbers."""

from __future__ import annotations

import datetime as dt
import html
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from pandas_amr._plan.aggregations import column_of, computed, function_of, groups_of, is_named
from pandas_amr._units.by import By, grouping_keys, missing_keys
from pandas_amr._units.cells import cell
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray

    Sort: TypeAlias = Literal["bool", "number", "time", "date", "text"]

Z = 1.96  # 95 %
MISSING = "<missing>"
MOST_CLASSES = 50
AGGREGATES = ("field", "aggregate", "group", "value", "found", "labelled", "error")
TRUTHS = {"true": True, "false": False, "1": True, "0": False}
SAID = {
    "bool": "bools: True or False",
    "number": "numbers",
    "time": "times: pd.to_datetime(...), or ISO 8601",
    "date": "dates: pd.to_datetime(...), or ISO 8601",
}


@dataclass(frozen=True, repr=False)
class Score:
    """How findings compare with labels.

    Attributes:
        fields: one row a field: ``rows`` that have a label, ``missing`` (those of them without a finding, which count
            as wrong), ``right``, ``accuracy`` with ``low`` and ``high`` (Wilson's 95 % interval); of numbers also
            ``mae`` (mean absolute error) and ``bias`` (mean error).
        classes: one row a field and class: ``precision recall f1 support``.
        aggregates: one row a computed aggregate (and value, where it is a table): ``field aggregate value found
            labelled error``, with ``group`` before the value where there are groups; over the rows that have a label.
            Rows are chosen (``where``) and grouped by labels, where there are labels of that, else by what was found.
        pairs: one row a field and row of the frame: ``field label position found labelled right``.
        uncovered: which aggregates of the answer are not among these, each with the reason.
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
        """How often each label (rows) was found as what (columns).

        Raises:
            UsageError: the field has no labels.
        """
        if field not in self.fields.index:
            raise UsageError(
                f"No labels of {field!r}. There is: {', '.join(map(repr, self.fields.index))}."
            )
        part = self.pairs[self.pairs["field"] == field]
        found = part["found"].map(lambda one: MISSING if one is None else one)
        return pd.crosstab(part["labelled"].rename("labelled"), found.rename("found"))

    def __repr__(self) -> str:
        parts = [
            f"{name} {int(row.right)}/{int(row.rows)} right ({row.accuracy:.1%})"
            if row.rows
            else f"{name} has no labels"
            for name, row in self.fields.iterrows()
        ]
        more = f"; aggregates not compared: {len(self.uncovered)}" if self.uncovered else ""
        return f"<Score {'; '.join(parts)}{more}>"

    def _repr_html_(self) -> str:
        tables = [self.fields.round(3), self.classes.round(3), self.aggregates]
        told = (
            f"<p>Not compared: {html.escape('; '.join(self.uncovered))}.</p>"
            if self.uncovered
            else ""
        )
        return "".join(table.to_html(escape=True) for table in tables if len(table)) + told


@dataclass(frozen=True)
class Answer:
    """How an answer is computed: what, of which rows, by which groups."""

    aggregations: Mapping[str, Any]
    where: str | None = None
    by: By | None = None


def score_of(
    frame: pd.DataFrame, fields: list[str], labels: Any, *, answer: Answer, tolerance: float
) -> Score:
    """Compare the columns ``fields`` of a frame with labels.

    Raises:
        UsageError: the labels name no field, cannot be laid beside the frame's rows, or are of another sort.
    """
    beside = {
        name: _fitted(name, frame[name], given)
        for name, given in _beside(frame, fields, labels).items()
    }
    names = ("labelled", "right")
    parts = [
        compared(
            name,
            frame[name],
            labels,
            np.flatnonzero(labels.notna()),
            names=names,
            tolerance=tolerance,
        )
        for name, labels in beside.items()
    ]
    pairs = pd.concat(parts, ignore_index=True)
    told = {name: _figures(pairs[pairs["field"] == name]) for name in beside}
    classes = [_classes(name, pairs[pairs["field"] == name]) for name in beside]
    kept = [one for one in classes if len(one)]
    aggregates, uncovered = _aggregates(frame, beside, answer)
    return Score(
        fields=pd.DataFrame.from_dict(told, orient="index").rename_axis("field"),
        classes=pd.concat(kept)
        if kept
        else pd.DataFrame(columns=["precision", "recall", "f1", "support"]),
        aggregates=aggregates,
        pairs=pairs,
        uncovered=uncovered,
    )


def _beside(frame: pd.DataFrame, fields: list[str], labels: Any) -> dict[str, pd.Series]:
    """The labels of each field, one a row of the frame."""
    if not fields:
        raise UsageError(
            "There is nothing to lay labels beside: the result's frame holds no findings."
        )
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
        raise UsageError(
            f"The labels of {field!r} are a Series by label, or one a row: {len(frame)}."
        )
    return pd.Series(list(values), index=frame.index, dtype=object)


def _fitted(field: str, found: pd.Series, labels: pd.Series) -> pd.Series:
    """Labels as values of the sort that was found: numbers and dates out of texts too; None where there is no label."""
    sort, zone = _sort(found)
    try:
        values = [_as(sort, zone, label) for label in labels.tolist()]
    except ValueError as error:
        raise UsageError(f"The labels of {field!r} are {SAID[str(sort)]}; {error}.") from None
    return pd.Series(values, index=labels.index, dtype=object)


def _sort(found: pd.Series) -> tuple[Sort | None, Any]:
    """Of which one sort the values of a column are, and the time zone of times."""
    if pd.api.types.is_bool_dtype(found.dtype):
        return "bool", None
    if pd.api.types.is_numeric_dtype(found.dtype):
        return "number", None
    values = [value for value in found.tolist() if cell(value) is not None]
    kinds: list[tuple[Sort, type | tuple[type, ...]]] = [
        ("bool", (bool, np.bool_)),
        ("number", (int, float, Decimal, np.number)),
        ("time", dt.datetime),
        ("date", dt.date),
        ("text", str),
    ]
    for sort, kind in kinds:
        if values and all(isinstance(value, kind) for value in values):
            return sort, values[0].tzinfo if sort == "time" else None
    return None, None


def _as(sort: Sort | None, zone: Any, label: Any) -> Any:
    """A label as a value of a sort.

    Raises:
        ValueError: it is none; the text says which.
    """
    blank = isinstance(label, str) and not label.strip() and sort not in {"text", None}
    if blank or cell(label) is None:
        return None
    match sort:
        case "bool":
            return _truth(_plain(label))
        case "number":
            return _number(label)
        case "time":
            return _in_zone(pd.Timestamp(_date(label)), zone)
        case "date":
            date = _date(label)
            return date.date() if isinstance(date, dt.datetime) else date
        case "text" if is_number(plain := _plain(label)):
            whole = (
                isinstance(plain, float) and plain.is_integer()
            )  # a column of numbers with holes
            return str(int(plain) if whole else plain)
    return label


def _truth(label: Any) -> bool:
    told = (
        str(int(label)) if is_number(label) and label in {0, 1} else str(label).strip().casefold()
    )
    if told not in TRUTHS:
        raise ValueError(f"{label!r} is neither")
    return TRUTHS[told]


def _number(label: Any) -> Any:
    number = label.item() if isinstance(label, np.generic) else label
    if isinstance(label, str):
        try:
            number = int(label) if label.strip().lstrip("+-").isdigit() else float(label)
        except ValueError:
            raise ValueError(f"{label!r} is none") from None
    if isinstance(number, bool):
        return int(number)
    if not is_number(number):
        raise ValueError(f"{label!r} is none")
    return None if cell(number) is None else number


def _date(label: Any) -> dt.date:
    """A label as a date, or as a time where it says one."""
    if isinstance(label, str):
        try:
            return dt.datetime.fromisoformat(label.strip())
        except ValueError:
            raise ValueError(f"{label!r} is none") from None
    if isinstance(label, np.datetime64):
        return pd.Timestamp(label)
    if not isinstance(label, dt.date):
        raise ValueError(f"{label!r} is none")  # noqa: TRY004 (told with the others)
    return label


def _in_zone(moment: pd.Timestamp, zone: Any) -> pd.Timestamp:
    """A time in the zone of what was found; where that has none, in UTC without a zone."""
    return moment.tz_localize(zone) if moment.tzinfo is None else moment.tz_convert(zone)


def _plain(value: Any) -> Any:
    """A cell as it is compared: as a model reads it, but decimals as the numbers that they are."""
    return value if isinstance(value, Decimal) and not value.is_nan() else cell(value)


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
    one, other = (
        [_plain(value) for value in column.iloc[places].tolist()] for column in (found, others)
    )
    return pd.DataFrame(
        {
            "field": field,
            "label": pd.Series(list(found.index.take(places)), dtype=object),
            "position": places,
            "found": pd.Series(one, dtype=object),
            names[0]: pd.Series(other, dtype=object),
            names[1]: np.array(
                [same(*pair, tolerance) for pair in zip(one, other, strict=True)], dtype=bool
            ),
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
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _figures(pairs: pd.DataFrame) -> dict[str, Any]:
    rows, right = len(pairs), int(pairs["right"].sum())
    low, high = wilson(right, rows)
    both = [
        (f, t)
        for f, t in zip(pairs["found"], pairs["labelled"], strict=True)
        if is_number(f) and is_number(t)
    ]
    errors: NDArray[np.float64] = np.array([float(f) - float(t) for f, t in both], dtype=float)
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
    if (
        not values
        or not all(isinstance(one, str | bool) for one in values)
        or len(set(values)) > MOST_CLASSES
    ):
        return pd.DataFrame()
    found, rows = pairs["found"].tolist(), []
    for value in sorted(set(values), key=str):
        hits = sum(same(f, value) and same(t, value) for f, t in zip(found, values, strict=True))
        said, support = sum(same(f, value) for f in found), sum(same(t, value) for t in values)
        precision, recall = hits / said if said else None, hits / support
        total = (precision or 0.0) + recall
        f1 = 2 * (precision or 0.0) * recall / total if total else 0.0
        rows.append(
            {
                "field": field,
                "class": value,
                "precision": precision,
                "recall": recall,
                "f1": f1,
                "support": support,
            }
        )
    return pd.DataFrame(rows).set_index(["field", "class"])


def _aggregates(
    frame: pd.DataFrame, beside: dict[str, pd.Series], answer: Answer
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Each computed aggregate over the rows that have a label: of the findings, of the labels, and the difference.

    And which of them cannot be had, with the reason.
    """
    twice = _Twice(frame, beside, answer)
    rows: list[dict[str, Any]] = []
    uncovered: list[str] = []
    for name, how in answer.aggregations.items():
        field, wanted = column_of(name, how), function_of(how)
        for one in wanted if isinstance(wanted, list) else [wanted]:
            called = one if isinstance(one, str) else getattr(one, "__name__", "function")
            if is_named(how):
                called = f"{name}_{called}" if isinstance(wanted, list) else str(name)
            problem = twice.problem(field, one)
            try:
                rows += [] if problem else twice.errors(field, called, one)
            except Exception as error:  # noqa: BLE001 (a function of anybody's, of labels it was not written for; told)
                problem = f"{type(error).__name__}: {error}"
            uncovered += [f"{called} of {field!r}: {problem}"] if problem else []
    columns = [name for name in AGGREGATES if name != "group" or answer.by is not None]
    return pd.DataFrame(rows, columns=columns), tuple(uncovered)


@dataclass(frozen=True)
class _Twice:
    """An answer computed twice: from what was found, and from labels."""

    frame: pd.DataFrame
    labels: Mapping[Any, pd.Series]
    answer: Answer

    def problem(self, field: str, how: Any) -> str | None:
        """Why an aggregate cannot be compared."""
        if field not in self.labels or not self.labels[field].notna().any():
            return "there are no labels of it"
        if inspect.iscoroutinefunction(how):
            return "its function is asynchronous"
        by, where = self.answer.by, self.answer.where
        missing = missing_keys(by, self.frame.columns, self.frame.index) if by is not None else []
        missing += [where] if where is not None and where not in self.frame.columns else []
        return f"{missing[0]!r} is no column of the frame" if missing else None

    def errors(self, field: str, called: str, how: Any) -> list[dict[str, Any]]:
        """One aggregate of the findings and of the labels: one row, or one a group and a value."""
        known = self._known(field)
        found = self._computed(self.frame[field], known, {}, how)
        labelled = self._computed(self.labels[field], known, self.labels, how)
        rows: list[dict[str, Any]] = []
        for group in dict.fromkeys([*found, *labelled]):
            both = (found.get(group), labelled.get(group))
            if any(isinstance(part, pd.Series) for part in both):
                tables = [part.to_dict() if isinstance(part, pd.Series) else {} for part in both]
                values = sorted(set(tables[0]) | set(tables[1]), key=str)
                rows += [
                    _error(field, called, group, value, *(table.get(value, 0) for table in tables))
                    for value in values
                ]
            else:
                rows.append(_error(field, called, group, None, *both))
        return rows

    @property
    def _keys(self) -> tuple[Any, ...]:
        return tuple(self.answer.by.labels) if self.answer.by is not None else ()

    def _known(self, field: str) -> NDArray[np.bool_]:
        """The rows of which the labels say whether and with what they count."""
        known: NDArray[np.bool_] = self.labels[field].notna().to_numpy()
        if self.answer.where in self.labels:
            chosen = self.labels[self.answer.where].tolist()
            known = (known & np.array([one is True for one in chosen])) | np.array(
                [one is False for one in chosen]
            )
        for key in self._keys:
            known = known & (self.labels[key].notna().to_numpy() if key in self.labels else True)
        return known

    def _computed(
        self, values: pd.Series, known: NDArray[np.bool_], first: Mapping[Any, pd.Series], how: Any
    ) -> dict[Hashable, Any]:
        """An aggregate by group of the known rows; the group is None where there is one.

        Rows are chosen and grouped by the columns of ``first``, and where it has none by the frame's.
        """
        if self.answer.where is not None:
            chosen = first.get(self.answer.where, self.frame[self.answer.where])
            known = known & np.array([cell(one) is True for one in chosen.tolist()], dtype=bool)
        kept = values.astype(object)[known].map(
            lambda one: float(one) if isinstance(one, Decimal) else one
        )
        table = kept.infer_objects().to_frame("value")
        if self.answer.by is None:
            return {None: computed(table, {"value": how}, None)["value"]}
        rows = np.flatnonzero(known)
        keys = pd.DataFrame(index=self.frame.index[rows])
        for key in self._keys:
            values = first[key] if key in first else grouping_keys(self.frame, By(key))[0]
            keys[key] = values.iloc[rows]
        index, groups = groups_of(keys.infer_objects(), self.answer.by.at(rows, keys.index))
        return {
            group: computed(table.iloc[rows], {"value": how}, None)["value"]
            for group, rows in zip(index.tolist(), groups, strict=True)
        }


def _error(  # noqa: PLR0917 (a row, in the order of its columns)
    field: str, name: str, group: Any, value: Any, found: Any, labelled: Any
) -> dict[str, Any]:
    found, labelled = (
        one.item() if isinstance(one, np.generic) else one for one in (found, labelled)
    )
    error = found - labelled if is_number(found) and is_number(labelled) else None
    return dict(zip(AGGREGATES, (field, name, group, value, found, labelled, error), strict=True))
