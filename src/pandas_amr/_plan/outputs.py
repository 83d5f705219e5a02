"""Give what was computed, or written, the form of the answer that the user asked for."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any, cast, get_args, get_origin

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from pandas_amr._agent.dispatch import complaint
from pandas_amr._findings.columns import make_records_frame, make_typed_array
from pandas_amr._plan.compute_groups import align_to_groups
from pandas_amr._plan.plan_types import item_type
from pandas_amr._types.resolve import is_model
from pandas_amr._types.violations import LARGEST_EXACT
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import BaseModel

OUTPUT_COLUMN = "output"


def join_answer_parts(
    computed: Any,
    plain: Mapping[Any, Any],
    others: Mapping[Any, Any],
    order: Sequence[Any],
    *,
    grouped: bool,
) -> Any:
    """Join what pandas computed and what agents wrote, in the order in which the call names them.

    Args:
        computed: the result of pandas; None if there is none.
        plain: the aggregations that pandas computed.
        others: the other results, by name.
        order: all names.
        grouped: whether the results are columns, one row per group.
    """
    if grouped:
        return _join_groups(computed, others, order)
    parts: dict[Any, Any] = dict(others)
    if computed is not None:
        for name in plain:
            has_part = len(computed) > 0 and name in computed
            parts[name] = computed[name] if has_part else computed
    return {name: parts[name] for name in order}


def _join_groups(
    computed: pd.DataFrame | None, others: Mapping[Any, pd.Series], order: Sequence[Any]
) -> pd.DataFrame:
    """Join columns of the same groups."""
    frames = [column.to_frame(name) for name, column in others.items()]
    if computed is not None:
        levels = computed.columns.nlevels
        aligned = [_align(frame, computed.index, levels) for frame in frames]
        frames = [computed, *aligned]
    whole = pd.concat(frames, axis=1)
    places: list[int] = []  # of each column in the call
    for label in whole.columns:
        name = _name_in_call(label, order)
        if name not in order:
            return whole
        places.append(order.index(name))
    return whole.iloc[:, np.argsort(places, kind="stable")]


def _align(frame: pd.DataFrame, index: pd.Index, levels: int) -> pd.DataFrame:
    """Give a frame of one column the groups' index, and so many levels of column names."""
    frame = align_to_groups(frame, index)
    if levels == 1:
        return frame
    name: Any = frame.columns[0]
    if not isinstance(name, tuple):
        padding = [""] * (levels - 1)
        name = (name, *padding)
    columns = pd.MultiIndex.from_tuples([name])
    return frame.set_axis(columns, axis=1)


def _name_in_call(label: object, order: Sequence[Any]) -> Any:
    """Return the name in the call that a column of the result belongs to."""
    if isinstance(label, tuple) and label not in order:
        return label[0]
    return label


def describe_computed(result: object, redact: Callable[[Any], Any] | None = None) -> str:
    """Write what was computed, for an agent to read; ``redact`` gives what is sent of a value.

    Example:
        >>> print(describe_computed(pd.Series({"severity": 2.5})))
        Computed exactly over all findings; use these numbers as they are:
        severity: 2.5
    """
    lines = ["Computed exactly over all findings; use these numbers as they are:"]
    parts: list[tuple[Any, Any]] = [("", result)]
    if isinstance(result, dict | pd.Series | pd.DataFrame):
        parts = list(result.items())
    for name, part in parts:
        value = part.to_dict() if isinstance(part, pd.Series) else part
        if redact is None:
            lines.append(f"{name}: {value}")
        else:
            lines.append(f"{redact(name)}: {redact(value)}")
    return "\n".join(lines)


def convert_output(value: Any, kind: Any, *, grouped: bool = True) -> Any:
    """Convert a computed value to the type that the user asked for.

    A frame stays a frame, unless it is the counts of one column and ``kind`` is a dict.

    Raises:
        UsageError: the value does not fit the type.
    """
    if kind is None:
        return value
    candidates = [value]
    if isinstance(value, pd.DataFrame):
        is_counts = not grouped and len(value.columns) == 1
        if not is_counts or get_origin(kind) is not dict:
            return value
        candidates = output_candidates(value)
    elif isinstance(value, pd.Series):
        candidates = output_candidates(value)
    elif isinstance(value, np.generic):
        candidates = [value.item()]
    adapter = TypeAdapter(kind)
    problems: list[str] = []
    for candidate in candidates:
        try:
            valid = adapter.validate_python(candidate)
        except ValidationError as error:
            problems.append(complaint(error))
        else:
            return shape_output(valid, kind)
    raise UsageError(f"The reduce gave no {kind}: {problems[0]}.") from None


def shape_output(value: object, kind: object) -> Any:
    """Convert a list of records to a frame; any other valid output stays as it is."""
    if not isinstance(value, list) or get_origin(kind) is not list:
        return value
    item = get_args(kind)[0]
    if is_model(item):
        return make_records_frame(value, cast("type[BaseModel]", item))
    if get_origin(item) is dict:
        return make_free_frame(value)
    return value


def make_free_frame(records: Sequence[Mapping[Any, Any]]) -> pd.DataFrame:
    """Make a frame of records of any shape; its columns have the types that the values have.

    Example:
        >>> make_free_frame([{"id": 2**53 + 1}, {"name": "a"}])["id"].tolist()
        [9007199254740993, <NA>]
    """
    names = dict.fromkeys(itertools.chain.from_iterable(records))
    columns: dict[Any, pd.Series] = {}
    for name in names:
        values = [record.get(name) for record in records]
        columns[name] = _make_free_column(values)
    return pd.DataFrame(columns, index=pd.RangeIndex(len(records)))


def _make_free_column(values: list[Any]) -> pd.Series:
    column = pd.Series(values, dtype=object)
    wholes = [value for value in values if isinstance(value, int)]
    if all(abs(value) < LARGEST_EXACT for value in wholes):
        return column.convert_dtypes(dtype_backend="pyarrow")
    # pandas would make floats of numbers beside a missing one or a fraction, and round them.
    if all(value is None or type(value) is int for value in values):
        with contextlib.suppress(OverflowError):
            return pd.Series(values, dtype="int64[pyarrow]")
    return column


def output_candidates(value: object) -> list[Any]:
    """Return the plain Python values that a computed value may stand for, None for a missing one.

    Example:
        >>> output_candidates(pd.Series({"n": 3}))
        [3, {'n': 3}]
        >>> output_candidates(pd.Series({"a": 1.5, "b": float("nan")}))
        [{'a': 1.5, 'b': None}]
    """
    if isinstance(value, pd.DataFrame) and len(value.columns) == 1:
        only_column = value.iloc[:, 0]
        return [_as_plain_dict(only_column.to_dict())]
    if isinstance(value, pd.Series):
        by_label = _as_plain_dict(value.to_dict())
        if len(value) != 1:
            return [by_label]
        return [_as_plain(value.iloc[0]), by_label]
    if isinstance(value, dict):
        return [_as_plain_dict(value)]
    return [_as_plain(value)]


def _as_plain_dict(values: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: _as_plain(value) for key, value in values.items()}


def _as_plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    return value


def join_group_outputs(values: Sequence[Any], index: pd.Index, kind: object) -> pd.DataFrame:
    """Join the groups' answers to a frame: one row per group, or per item of a list."""
    item = item_type(kind)
    answers: list[Any] = []
    positions: list[int] = []  # of the group that each answer belongs to
    for position, value in enumerate(values):
        items = value if isinstance(value, list) else [value]
        answers += items
        positions += [position] * len(items)
    labels = index.take(np.array(positions, dtype=np.int64))
    if is_model(item):
        return make_records_frame(answers, item).set_axis(labels)
    if item is dict or get_origin(item) is dict:
        rows = [{} if answer is None else answer for answer in answers]
        return make_free_frame(rows).set_axis(labels)
    column = make_typed_array(answers, item)
    return pd.DataFrame({OUTPUT_COLUMN: column}, index=labels)
