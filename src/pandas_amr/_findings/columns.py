"""Findings as columns of a frame."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

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

    from pydantic import BaseModel

    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._units.rows import IntArray


def spread_items(findings: pd.DataFrame, kind: FindingType) -> tuple[pd.DataFrame, IntArray]:
    """Spread the records of units that hold none or many over rows of their own.

    Returns:
        One row per record, labelled by its unit; and the position of each record's unit.
    """
    assert kind.item is not None
    column = pa.array(findings[kind.columns[0]].array)
    lists = pa.chunked_array([column]).combine_chunks()
    positions = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    records = pc.list_flatten(lists)
    fields = field_types(kind.item)
    columns: dict[str, Any] = {}
    for name, field in zip(kind.item_columns, fields, strict=True):
        values = pa.chunked_array([records.field(field)])
        columns[name] = array_of(values, fields[field])
    labels = findings.index[positions]
    return pd.DataFrame(columns, index=labels), positions


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
    # Choices of several types are texts of JSON in Arrow.
    code_of: dict[str | None, int] = {None: -1}
    for code, choice in enumerate(distinct):
        text = json.dumps(choice, ensure_ascii=False)
        code_of[text] = code
    codes = [code_of[value] for value in values]
    categories = pd.Index(distinct, dtype=object)
    return pd.Categorical.from_codes(codes, categories=categories)


def add_findings(frame: pd.DataFrame, findings: pd.DataFrame) -> pd.DataFrame:
    """Return a new frame with the columns of both, in the order and with the index of the first."""
    added = findings
    levels = frame.columns.nlevels
    name: Any = frame.columns.name
    if levels > 1:
        padding = [""] * (levels - 1)
        labels = [(label, *padding) for label in findings.columns]
        columns = pd.MultiIndex.from_tuples(labels, names=frame.columns.names)
        added = findings.set_axis(columns, axis=1)
    elif findings.columns.name != name:
        added = findings.rename_axis(columns=name)
    joined: Any = frame.copy()
    if len(added.columns):
        joined = pd.concat([frame, added], axis=1)
    whole: pd.DataFrame = joined.__finalize__(frame)  # with its attrs, and what a subclass keeps
    return whole


def make_typed_array(values: Sequence[Any], kind: object) -> Any:
    """Convert checked values to a typed array; None becomes ``<NA>``."""
    plain_values = [plain(value, kind) for value in values]
    array = pa.array(plain_values, type=arrow_type(kind))
    return array_of(pa.chunked_array([array]), kind)


def make_records_frame(records: Iterable[BaseModel | None], model: type[BaseModel]) -> pd.DataFrame:
    """Convert checked records to a typed frame; None becomes a row of ``<NA>``."""
    rows: list[dict[str, Any]] = []
    for record in records:
        if record is None:
            rows.append(dict.fromkeys(model.model_fields))
        else:
            rows.append(arrow_record(record))
    table = make_table(rows, arrow_schema(model))
    columns: dict[str, Any] = {}
    for name, kind in field_types(model).items():
        columns[name] = array_of(table.column(name), kind)
    return pd.DataFrame(columns)
