"""Check whether what is computed of a few rows is of the type that the user asks for.

Bounds and validators of the type are left out: only the run's own value can meet them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args, get_origin

import pandas as pd
from pydantic import BaseModel, TypeAdapter, ValidationError

from pandas_amr._plan.outputs import output_candidates
from pandas_amr._plan.plan_types import item_type
from pandas_amr._types.from_schema import type_from_schema
from pandas_amr._types.schema import CONSTRAINTS, DECIMAL_PATTERN, json_schema
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

SCALARS = (str, int, float, bool)
JSON_TYPES: Mapping[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}


def unbounded_type(output: object) -> Any:
    """Return a type without its bounds and validators; None if it has no such form."""
    try:
        return type_from_schema(_drop_bounds(json_schema(output)), "Output")
    except UsageError:
        return None


def _drop_bounds(schema: object) -> Any:
    if isinstance(schema, list):
        return [_drop_bounds(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "enum" in schema or "const" in schema:
        return _types_of_choices(schema.get("enum", [schema.get("const")]))
    unbounded: dict[str, Any] = {}
    for key, part in schema.items():
        if key in CONSTRAINTS and part != DECIMAL_PATTERN:
            continue
        if key == "properties":
            unbounded[key] = {name: _drop_bounds(field) for name, field in part.items()}
        else:
            unbounded[key] = _drop_bounds(part)
    return unbounded


def _types_of_choices(choices: Sequence[Any]) -> dict[str, Any]:
    kinds = {type(choice) for choice in choices}
    types = [{"type": name} for kind, name in JSON_TYPES.items() if kind in kinds]
    return {"anyOf": types}


def fits_output(
    value: object, kind: object, output: object, *, grouped: bool, all_rows: bool
) -> bool:
    """Whether a computed value is of the type that is asked for, or may be.

    Args:
        value: what pandas computed.
        kind: the type without its bounds.
        output: the type.
        grouped: whether the value has one row per group.
        all_rows: whether it was computed of all rows. Of some rows, and for a missing value, most
            types cannot be judged: then True.
    """
    if grouped and not all_rows and output not in SCALARS:
        return True
    if isinstance(value, pd.DataFrame):
        if _is_frame_type(output):
            return True
        if grouped or get_origin(kind) is list:
            return _do_rows_fit(value, kind, output)
    candidates = output_candidates(value)
    first = candidates[0]
    if first is None or (not all_rows and not pd.api.types.is_scalar(first)):
        return True
    return any(_validates(candidate, kind, output) for candidate in candidates)


def _is_frame_type(output: object) -> bool:
    """Whether a type is that of ``output=pd.DataFrame``: a list of dicts."""
    if get_origin(output) is not list:
        return False
    item = get_args(output)[0]
    return get_origin(item) is dict


def _do_rows_fit(value: pd.DataFrame, kind: object, output: object) -> bool:
    """Whether a frame's cells are of a scalar type, or its rows of a type of records."""
    if output in SCALARS:
        return all(_do_cells_fit(value[name], kind, output) for name in value.columns)
    item = item_type(kind)
    output_item = item_type(output)
    without_groups = value.set_axis([str(name) for name in value.columns], axis=1)
    for table in (without_groups, without_groups.reset_index()):
        rows = [_plain_row(row) for row in table.to_dict("records")]
        complete = [row for row in rows if None not in row.values()]
        if all(_validates(row, item, output_item) for row in complete):
            return True
    return False


def _plain_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): output_candidates(cell)[0] for name, cell in row.items()}


def _do_cells_fit(column: pd.Series, kind: object, output: object) -> bool:
    for value in column.tolist():
        cell = output_candidates(value)[0]
        if cell is not None and not _validates(cell, kind, output):
            return False
    return True


def _validates(value: Any, kind: Any, output: Any) -> bool:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        return all(_may_be_missing(problem, output) for problem in problems)
    return True


def _may_be_missing(problem: ErrorDetails, output: Any) -> bool:
    """Whether the only problem is a missing field that has a default."""
    is_record = isinstance(output, type) and issubclass(output, BaseModel)
    if problem["type"] != "missing" or not is_record:
        return False
    missing = problem["loc"][0]
    for name, field in output.model_fields.items():
        if missing in {name, field.alias}:
            return not field.is_required()
    return False


def describe_value(value: object) -> str:
    """Describe what an aggregation gives, without its contents."""
    if isinstance(value, pd.DataFrame):
        return "a frame"
    plain = output_candidates(value)[0]
    if isinstance(plain, dict):
        return "a table of several values"
    return type(plain).__name__


def type_name(kind: object) -> str:
    """Write a type as in Python."""
    if isinstance(kind, type) and not get_args(kind):
        return kind.__name__
    return str(kind)
