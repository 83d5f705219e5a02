"""Findings as columns of a frame."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pandas_amr._types.arrow import arrow_schema, arrow_type, field_types, is_mixed
from pandas_amr._types.arrow_values import arrow_record, make_table, plain
from pandas_amr._types.resolve import choices_of
from pandas_amr._units.rows import pandas_dtype

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from pydantic import BaseModel

    from pandas_amr._findings.finding_type import FindingType


def spread_items(
    findings: pd.DataFrame, kind: FindingType
) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Spread the records of units that hold none or many over rows of their own.

    Returns:
        One row per record, labelled by its unit; and the position of each record's unit.
    """
    assert kind.item is not None
    lists = pa.chunked_array([pa.array(findings[kind.columns[0]].array)]).combine_chunks()
    positions = pc.list_parent_indices(lists).to_numpy()
    records = pc.list_flatten(lists)
    fields = field_types(kind.item)
    columns: dict[str, Any] = {}
    for name, (field, annotation) in zip(kind.item_columns, fields.items(), strict=True):
        columns[name] = array_of(pa.chunked_array([records.field(field)]), annotation)
    return pd.DataFrame(columns, index=findings.index[positions]), positions.astype(np.int64)


def array_of(column: pa.ChunkedArray, kind: object = None) -> Any:
    """Convert an Arrow column to a pandas array: choices to a category, all else Arrow-typed."""
    own = pandas_dtype(column.type)
    if own is not None:
        return own.__from_arrow__(column)
    choices = choices_of(kind)
    if choices is None:
        return pd.array(column.combine_chunks(), dtype=pd.ArrowDtype(column.type))
    distinct = list(dict.fromkeys(choices))
    values = column.to_pylist()
    if not is_mixed(distinct):
        return pd.Categorical(values, categories=pd.Index(distinct))
    code_of = {json.dumps(choice, ensure_ascii=False): code for code, choice in enumerate(distinct)}
    codes = [-1 if value is None else code_of[value] for value in values]
    return pd.Categorical.from_codes(codes, categories=pd.Index(distinct, dtype=object))


def add_findings(frame: pd.DataFrame, findings: pd.DataFrame) -> pd.DataFrame:
    """Return a new frame with the columns of both, in the order and with the index of the first."""
    added = findings
    levels = frame.columns.nlevels
    if levels > 1:
        padded = [(name, *[""] * (levels - 1)) for name in findings.columns]
        columns = pd.MultiIndex.from_tuples(padded, names=frame.columns.names)
        added = findings.set_axis(columns, axis=1)
    elif findings.columns.name != frame.columns.name:
        added = findings.rename_axis(columns=cast("Any", frame.columns.name))
    joined: Any = pd.concat([frame, added], axis=1) if len(added.columns) else frame.copy()
    whole: pd.DataFrame = joined.__finalize__(frame)  # with its attrs, and what a subclass keeps
    return whole


def make_typed_array(values: Sequence[Any], kind: object) -> Any:
    """Convert checked values to a typed array; None becomes ``<NA>``."""
    array = pa.array([plain(value, kind) for value in values], type=arrow_type(kind))
    return array_of(pa.chunked_array([array]), kind)


def make_records_frame(records: Iterable[BaseModel | None], model: type[BaseModel]) -> pd.DataFrame:
    """Convert checked records to a typed frame; None becomes a row of ``<NA>``."""
    missing = dict.fromkeys(model.model_fields)
    rows = [missing if record is None else arrow_record(record) for record in records]
    table = make_table(rows, arrow_schema(model))
    kinds = field_types(model)
    return pd.DataFrame({name: array_of(table.column(name), kind) for name, kind in kinds.items()})
