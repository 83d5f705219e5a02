"""Whether what is asked for can be computed: tried with pandas on a few rows, before the findings are paid for."""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import itertools
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args, get_origin

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import BaseModel, TypeAdapter, ValidationError

from pandas_amr._findings.columns import array_of, with_findings
from pandas_amr._plan.aggregations import (
    SHARE,
    column_of,
    computed,
    fitting_outputs,
    function_of,
    is_named,
    name_of,
    ranked,
)
from pandas_amr._plan.plan import Aggregation
from pandas_amr._types.arrow import arrow_type, is_json_text, plain, sort_of
from pandas_amr._types.schema import CONSTRAINTS, DECIMAL_PATTERN, choices_of, json_schema, type_of
from pandas_amr._units.by import By, column, described_key, group_numbers, is_code
from pandas_amr._units.profile import spread
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from pandas_amr._plan.plan import Ranking

SPREAD_ROWS = 20
PARTS = 7  # of the rows, an output is tried on so many beginnings
SCALARS = (str, int, float, bool)
TRIED = frozenset(
    {"builtins", "numpy", "pandas"}
)  # packages whose functions may be called on a few rows
TAKES = {"min": "what has an order", "max": "what has an order", "value_counts": "single values"}
TAKES |= {SHARE: "single values", "nunique": "single values"}
SORTS = {
    "number": "numbers",
    "bool": "bools",
    "text": "texts",
    "choices": "choices",
    "date": "dates or times",
    "nested": "lists or records",
}

NUMBERS: tuple[int, ...] = (1, 2, 3, 8)  # neither their mean nor their median is a whole number
MOMENTS = tuple(dt.datetime(2026, month, 1, month) for month in NUMBERS)  # noqa: DTZ001 (columns have no zone)
TYPICAL: tuple[tuple[Callable[[pa.DataType], bool], list[Any]], ...] = (
    (pa.types.is_boolean, [True, False, True, True]),
    (pa.types.is_integer, list(NUMBERS)),
    (pa.types.is_floating, [number + 0.25 for number in NUMBERS]),
    (
        pa.types.is_decimal,
        [decimal.Decimal(number) + decimal.Decimal("0.25") for number in NUMBERS],
    ),
    (pa.types.is_timestamp, list(MOMENTS)),
    (pa.types.is_date, [moment.date() for moment in MOMENTS]),
    (pa.types.is_time, [moment.time() for moment in MOMENTS]),
    (pa.types.is_duration, [dt.timedelta(hours=number) for number in NUMBERS]),
    (pa.types.is_string, ["a", "b", "a", "d"]),
    (pa.types.is_large_string, ["a", "b", "a", "d"]),
)


@dataclass(frozen=True)
class Trial:
    """A few rows like those that will be reduced.

    Attributes:
        table: rows of the frame, beside typical values of the fields that are still to be found.
        fields: the types of these fields, by column.
        by: how the rows are grouped.
        may_choose_none: whether no row at all may be left to reduce.
    """

    table: pd.DataFrame
    fields: Mapping[Any, Any]
    by: By | None = None
    may_choose_none: bool = False

    @classmethod
    def of(
        cls,
        frame: pd.DataFrame,
        fields: Mapping[Any, Any],
        used: Iterable[Any],
        by: By | None = None,
    ) -> Trial:
        """Draw rows of the frame in which the columns that are used show all kinds of their values."""
        labels = [*used, *(by.labels if by is not None else ())]
        columns = _positions(frame, labels)
        series = [one for one in (by.keys if by is not None else ()) if isinstance(one, pd.Series)]
        rows = _telling_rows(len(frame), [frame.iloc[:, place] for place in columns] + series)
        part = frame.set_flags(allows_duplicate_labels=True).iloc[rows, columns]
        found = pd.DataFrame(
            {name: typical_column(kind, len(rows)) for name, kind in fields.items()},
            index=part.index,
        )
        own_by = by.at(rows, part.index) if by is not None else None
        return cls(with_findings(part, found), fields, own_by)

    def where_problem(self, where: Any) -> str | None:
        """Tell why a column cannot choose rows; None if it can."""
        if where in self.fields and sort_of(self.fields[where]) != "bool":
            return f"where={where!r} takes a bool of the finding; {self._holds(where)}"
        return None

    def by_problem(self) -> str | None:
        """Tell why nothing can be grouped so; None if it can."""
        by = self.by
        if (
            by is None
            or not self._are_there(by.labels)
            or not _fails(group_numbers, self.table, by)
        ):
            return None
        for key in by.keys:
            if _fails(group_numbers, self.table, by.with_keys([key])):
                return self._key_problem(key)
        return "by= cannot group by these keys together"

    def _key_problem(self, key: Any) -> str:
        if isinstance(key, pd.Grouper):
            return f"by={described_key(key)} cannot group the rows: freq= takes a column, or an index level, of dates"
        shown = described_key(key) if is_code(key) else repr(key)
        if not is_code(key) and key in self.fields:
            return f"by={shown} takes single values, not lists; {self._holds(key)}"
        return (
            f"by={shown} takes single values of one kind that can be compared, not lists or dicts"
        )

    def ranking_problem(self, ranking: Ranking | None) -> str | None:
        """Tell why rows cannot be ranked so; None if they can."""
        if (
            ranking is None
            or not self._are_there([ranking.field])
            or not _fails(self._rank, ranking)
        ):
            return None
        return (
            f"ranking by {ranking.field!r} takes numbers or dates, or else values of one kind that have an order; "
            f"{self._holds(ranking.field)}"
        )

    def _rank(self, ranking: Ranking) -> None:
        values = column(self.table, ranking.field)
        values[values.notna()].max()  # categories without an order have none
        ranked(
            self.table,
            ranking.field,
            most=ranking.most,
            lowest_first=ranking.lowest_first,
            by=self.by,
        )

    def aggregation_problem(self, name: Any, how: Any) -> str | None:
        """Tell why a column cannot be aggregated so; None if it can, or if only a user's function knows."""
        label = column_of(name, how)
        if not self._are_there([label]):
            return None
        wanted = function_of(how)
        for one in wanted if isinstance(wanted, list) else [wanted]:
            alone = {name: (label, one)} if is_named(how) else {label: one}
            if not _is_tried(one):
                continue
            if self._fails_by_groups(alone):
                return self._unfit(label, one)
            if callable(one) and self._fails_of_some(label, alone):
                return self._unfit(label, one)
        if _are_all_tried([how]) and _fails(computed, self.table, {name: how}, self._known_by):
            return f"pandas cannot compute {_shown(how)} of {label!r}; say one function, or a list of their names"
        return None

    def _fails_by_groups(self, aggregations: Mapping[Any, Any]) -> bool:
        """Whether pandas cannot compute it; of groups, whatever rows may stand in one of them together."""
        if _fails(computed, self.table, aggregations, self._known_by):
            return True
        return self._known_by is not None and _fails(
            computed, self.table, aggregations, _one_group(self.table)
        )

    def _fails_of_some(self, label: Any, aggregations: Mapping[Any, Any]) -> bool:
        """Whether a function cannot take rows that may stand in one call of it: pandas' own words can take any."""
        missing = column(self.table, label).isna().to_numpy()
        parts = [np.flatnonzero(missing), np.flatnonzero(~missing), np.arange(min(1, len(missing)))]
        parts = [rows for rows in parts if len(rows)] + [np.arange(0)] * self.may_choose_none
        return any(self._fails_of_rows(rows, aggregations) for rows in parts)

    def _fails_of_rows(self, rows: NDArray[np.int64], aggregations: Mapping[Any, Any]) -> bool:
        part, by = self.table.iloc[rows], self._known_by
        return _fails(computed, part, aggregations, None if by is None else by.at(rows, part.index))

    def _takes_no_missing(self, label: Any, how: Any) -> bool:
        there = np.flatnonzero(column(self.table, label).notna().to_numpy())
        return (
            callable(how)
            and len(there) < len(self.table)
            and not self._fails_of_rows(there, {label: how})
        )

    def _unfit(self, label: Any, how: Any) -> str:
        able = [word for word in get_args(Aggregation) if not self._fails_by_groups({label: word})]
        shown = name_of(how)
        takes = TAKES.get(shown, "numbers")
        if self._takes_no_missing(label, how):
            takes = "no missing value, such as one that a unit leaves which fails"
        elif self._known_by is not None and not _fails(computed, self.table, {label: how}, None):
            takes = "a whole column, not groups"
        return (
            f"{shown!r} takes {takes}; {self._holds(label)}. "
            f"What can be computed of it: {', '.join(able) or 'nothing'}, or a function of yours"
        )

    def joint_problem(self, aggregations: Mapping[Any, Any]) -> str | None:
        """Tell whether aggregations that can be computed each cannot together."""
        tried = {name: how for name, how in aggregations.items() if _are_all_tried([how])}
        if not tried or not self._are_there([column_of(name, how) for name, how in tried.items()]):
            return None
        if not _fails(computed, self.table, tried, self._known_by):
            return None
        names = ", ".join(map(repr, tried))
        return (
            f"pandas cannot compute {names} side by side; name each: {{name: (column, function)}}"
        )

    def output_problem(self, aggregations: Mapping[Any, Any], output: Any) -> str | None:
        """Tell why what is computed is not of the type that is asked for; None if it is, or if only a run can tell."""
        labels = [column_of(name, how) for name, how in aggregations.items()]
        grouped_by_unknown = self.by is not None and self._known_by is None
        known = (
            self._are_there(labels)
            and _are_all_tried(aggregations.values())
            and not grouped_by_unknown
        )
        if output is None or not aggregations or not known:
            return None
        kind = _structure(output)
        if kind is None:
            return None
        everything = len(self.table)
        for size in [*range(1, PARTS + 1), everything] if everything else [0]:
            value = self._computed_of_first(size, aggregations)
            whole = size == everything and (
                size > 0 or output in SCALARS
            )  # of no rows, most of a record is missing
            if not _is_output(value, kind, output, grouped=self._known_by is not None, whole=whole):
                whats = ", ".join(
                    f"{_shown(how)} of {column_of(name, how)!r}"
                    for name, how in aggregations.items()
                )
                return (
                    f"The reduce gave no {_type_name(output)} when it was tried: {whats} gives {_described(value)}. "
                    "Leave output= out, or ask for that type"
                )
        return None

    def _computed_of_first(self, size: int, aggregations: Mapping[Any, Any]) -> Any:
        """What is computed of all rows; or of the first ones, which are one group if there are groups."""
        part = self.table.iloc[:size]
        by = (
            self._known_by
            if self._known_by is None or size == len(self.table)
            else _one_group(part)
        )
        return _tried(computed, part, aggregations, by)

    @property
    def _known_by(self) -> By | None:
        """How the rows are grouped; None if a key is a field that is still to be planned."""
        return self.by if self.by is not None and self._are_there(self.by.labels) else None

    def _are_there(self, labels: Sequence[Any]) -> bool:
        """Whether all are known columns; what a function without a type finds is not."""
        known = (
            set(self.table.columns)
            | set(self.table.columns.get_level_values(0))
            | set(self.table.index.names)
        )
        return all(label in known for label in labels)

    def _holds(self, label: Any) -> str:
        if label in self.fields:
            return f"{label!r} holds {SORTS[sort_of(self.fields[label])]}"
        values = column(self.table, label)
        if values.dtype == object:
            kinds = sorted({type(value).__name__ for value in values.dropna().tolist()})
            return f"{label!r} holds objects ({', '.join(kinds)})"
        unordered = isinstance(values.dtype, pd.CategoricalDtype) and not values.dtype.ordered
        return f"{label!r} holds {'categories without an order' if unordered else values.dtype}"


def _positions(frame: pd.DataFrame, labels: Iterable[Any]) -> list[int]:
    everywhere = np.arange(len(frame.columns))
    places: dict[int, None] = {}
    for label in labels:
        if label in frame.columns:
            places |= dict.fromkeys(
                np.atleast_1d(everywhere[frame.columns.get_loc(label)]).tolist()
            )
    return list(places)


def _telling_rows(size: int, columns: Sequence[pd.Series]) -> NDArray[np.int64]:
    """Rows in which columns show all kinds of their values, these first; their number is a multiple of the values'."""
    if not size:
        return np.array([], dtype=np.int64)
    rows: dict[int, None] = {}
    for one in columns:
        rows |= dict.fromkeys(_telling_places(one))
    rows |= dict.fromkeys(spread(size, SPREAD_ROWS))
    cycle = len(NUMBERS) + 1
    return np.resize(np.array(list(rows), dtype=np.int64), -(-len(rows) // cycle) * cycle)


def _telling_places(values: pd.Series) -> list[int]:
    """The first places of a missing value, of a number that is not whole, and of each type among objects."""
    missing = values.isna().to_numpy()
    places: list[int] = []
    if values.dtype == object:
        kinds: dict[type, int] = {}
        for place, kind in enumerate(map(type, values.tolist())):
            kinds.setdefault(kind, place)
        places += kinds.values()
    elif pd.api.types.is_float_dtype(values.dtype):
        numbers = values.to_numpy(dtype=float, na_value=np.nan)
        there = np.isfinite(numbers)
        places += np.flatnonzero(there & (np.where(there, numbers, 0.0) % 1 != 0))[:1].tolist()
    return [*places, *np.flatnonzero(missing)[:1].tolist()]


def typical_column(kind: Any, size: int) -> Any:
    """Typical values of a field's type, a missing one among them, as the column that findings become."""
    values = [*typical_values(kind), None]
    arrow = arrow_type(kind)
    return array_of(
        pa.chunked_array([pa.array(list(itertools.islice(itertools.cycle(values), size)), arrow)]),
        kind,
    )


def typical_values(kind: Any) -> list[Any]:
    """Some values of a type, as Arrow takes them.

    Example:
        >>> typical_values(int), typical_values(list[bool])
        ([1, 2, 3, 8], [[True, False], [True], [], [True]])
    """
    choices = [one for one in choices_of(kind) or () if one is not None]
    if choices:
        return [
            plain(one, kind) for one in itertools.islice(itertools.cycle(choices), len(NUMBERS))
        ]
    if is_json_text(kind):
        return ['{"a": 1}', '{"a": 2}', '{"a": 1}', "{}"]
    return _of_arrow(arrow_type(kind))


def _of_arrow(kind: pa.DataType) -> list[Any]:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        first, second, third, last = _of_arrow(kind.value_type)
        return [[first, second], [third], [], [last]]
    if pa.types.is_map(kind):
        return [[("a", value)] for value in _of_arrow(kind.item_type)]
    if pa.types.is_struct(kind):
        parts = {field.name: _of_arrow(field.type) for field in kind}
        return [
            {name: values[place] for name, values in parts.items()} for place in range(len(NUMBERS))
        ]
    for is_kind, values in TYPICAL:
        if is_kind(kind):
            return values
    return [None] * len(NUMBERS)


def _is_tried(how: Any) -> bool:
    """Whether pandas can be asked: a function of the user's is not called before its time."""
    if isinstance(how, functools.partial):
        return _is_tried(how.func)
    module = getattr(how, "__module__", None) or ""
    return isinstance(how, str) or (callable(how) and module.partition(".")[0] in TRIED)


def _are_all_tried(hows: Iterable[Any]) -> bool:
    wanted = [function_of(how) for how in hows]
    return all(
        _is_tried(one) for how in wanted for one in (how if isinstance(how, list) else [how])
    )


def _one_group(table: pd.DataFrame) -> By:
    return By(pd.Series(0, index=table.index, name="group"))


def _tried(compute: Callable[..., Any], *arguments: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compute(*arguments)


def _fails(compute: Callable[..., Any], *arguments: Any) -> bool:
    try:
        _tried(compute, *arguments)
    except Exception:  # noqa: BLE001 (pandas and Arrow raise what they like; its text may hold cells)
        return True
    return False


def _is_output(value: Any, kind: Any, output: Any, *, grouped: bool, whole: bool) -> bool:
    """Whether a computed value is of a type; of a missing one, and of some of the rows only, nothing is told."""
    if (
        isinstance(value, pd.DataFrame)
        and get_origin(output) is list
        and get_origin(get_args(output)[0]) is dict
    ):
        return True  # of output=pd.DataFrame
    if grouped and not whole and output not in SCALARS:
        return True
    if isinstance(value, pd.DataFrame) and (grouped or get_origin(kind) is list):
        return _are_rows(value, kind, output)
    candidates = fitting_outputs(value)
    if not whole and not pd.api.types.is_scalar(candidates[0]):
        return True
    if candidates[0] is None:
        return True
    return any(_validates(one, kind, output) for one in candidates)


def _are_rows(value: pd.DataFrame, kind: Any, output: Any) -> bool:
    """Whether the rows of a summary frame are of the type: its cells of a scalar, or each row as a record."""
    if output in SCALARS:
        cells = [fitting_outputs(one)[0] for name in value.columns for one in value[name].tolist()]
        return all(one is None or _validates(one, kind, output) for one in cells)
    item = get_args(kind)[0] if get_origin(kind) is list else kind
    real = get_args(output)[0] if get_origin(output) is list else output
    flat = value.set_axis([str(name) for name in value.columns], axis=1)
    for table in (flat, flat.reset_index()):
        records = [
            {str(name): fitting_outputs(one)[0] for name, one in row.items()}
            for row in table.to_dict("records")
        ]
        filled = [row for row in records if None not in row.values()]
        if all(_validates(row, item, real) for row in filled):
            return True
    return False


def _validates(value: Any, kind: Any, output: Any) -> bool:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        return all(_may_be_left_out(problem, output) for problem in error.errors(include_url=False))
    return True


def _may_be_left_out(problem: Any, output: Any) -> bool:
    """Whether nothing but a field with a default is missing."""
    if problem["type"] != "missing" or not (
        isinstance(output, type) and issubclass(output, BaseModel)
    ):
        return False
    fields = [
        field
        for name, field in output.model_fields.items()
        if problem["loc"][0] in {name, field.alias}
    ]
    return bool(fields) and not fields[0].is_required()


def _structure(output: Any) -> Any:
    """The type without its bounds and validators, which only the true value can meet; None if it cannot be had."""
    try:
        return type_of(_unbounded(json_schema(output)), "Output")
    except UsageError:
        return None


def _unbounded(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_unbounded(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "enum" in schema or "const" in schema:
        kinds = {type(one) for one in schema.get("enum", [schema.get("const")])}
        words = {
            str: "string",
            bool: "boolean",
            int: "integer",
            float: "number",
            type(None): "null",
        }
        return {"anyOf": [{"type": words[kind]} for kind in words if kind in kinds]}
    kept = {
        key: part
        for key, part in schema.items()
        if key not in CONSTRAINTS or part == DECIMAL_PATTERN
    }
    return {
        key: {name: _unbounded(one) for name, one in part.items()}
        if key == "properties"
        else _unbounded(part)
        for key, part in kept.items()
    }


def _shown(how: Any) -> str:
    wanted = function_of(how)
    return ", ".join(
        repr(name_of(one)) for one in (wanted if isinstance(wanted, list) else [wanted])
    )


def _type_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def _described(value: Any) -> str:
    if isinstance(value, pd.DataFrame):
        return "a frame"
    shown = fitting_outputs(value)[0]
    return "a table of several values" if isinstance(shown, dict) else type(shown).__name__
