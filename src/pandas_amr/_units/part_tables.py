"""Arrow tables as the library's frames, and frames as tables that a file can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from pandas_amr._units.rows import pandas_dtype
from pandas_amr.errors import ColumnError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

PANDAS_INDEX = "__index_level_"  # how pandas names an index without a name in a file
UNJOINABLE = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError)


def frame_of(table: pa.Table, start: int = 0) -> pd.DataFrame:
    """Convert a table to a frame of Arrow columns; its labels are numbers from ``start`` on."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=_dtype_of, ignore_metadata=True)
    frame.index = pd.RangeIndex(start, start + len(frame))
    return frame


def _dtype_of(kind: pa.DataType) -> Any:
    """Return the dtype of a column; a dictionary becomes a category."""
    if pa.types.is_dictionary(kind):
        return None
    return pandas_dtype(kind) or pd.ArrowDtype(kind)


def table_of(item: object, number: int) -> pa.Table:
    """Convert a frame or a batch to a table.

    Raises:
        UsageError: it is neither, or a file cannot hold what is in it.
    """
    if isinstance(item, pd.DataFrame):
        return _table_of_frame(item, number)
    if isinstance(item, pa.RecordBatch):
        return pa.Table.from_batches([item])
    if isinstance(item, pa.Table):
        return item
    if hasattr(item, "__arrow_c_stream__") or hasattr(item, "__arrow_c_array__"):
        return pa.table(item)
    raise UsageError(
        f"Item {number} of the iterator is no frame and no Arrow batch, but {type(item).__name__}."
    )


def _table_of_frame(frame: pd.DataFrame, number: int) -> pa.Table:
    """Convert a frame; the named levels of its index become columns."""
    if not all(isinstance(label, str) for label in frame.columns):
        raise ColumnError(f"Frame {number} has a column whose name is not a text; rename it.")
    if not frame.columns.is_unique:
        raise ColumnError(f"Frame {number} has two columns of one name; rename one of them.")
    is_numbered = isinstance(frame.index, pd.RangeIndex) and frame.index.name is None
    if not is_numbered:
        if any(name is None for name in frame.index.names):
            raise UsageError(
                f"Frame {number} has labels without a name, and out= keeps columns only: name the "
                'index, frame.rename_axis("name"), or drop it, frame.reset_index(drop=True).'
            )
        frame = frame.reset_index()
    columns: dict[str, Any] = {}
    for label in frame.columns:
        try:
            table = pa.Table.from_pandas(frame[[label]], preserve_index=False)
            columns[label] = table.column(0)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
            raise UsageError(
                f"Frame {number}: column {label!r} ({frame[label].dtype}) holds what a Parquet "
                f"file cannot ({type(error).__name__}); convert it."
            ) from None
    return pa.table(columns)


def check_labels(schema: pa.Schema) -> None:
    """Check that every column has a name of its own.

    Raises:
        ColumnError: two have the same.
    """
    doubled = {name for name in schema.names if schema.names.count(name) > 1}
    if doubled:
        raise ColumnError(f"Column names must be unique; doubled: {sorted(doubled)}.")


def plain_schema(schema: pa.Schema, *, keeps_null: bool = False) -> pa.Schema:
    """Return a schema without types that most of Arrow's functions do not take: views, and null.

    Args:
        schema: that of a file or a batch.
        keeps_null: whether a column without a value has no type yet: a later batch may tell it.
    """
    fields: list[pa.Field] = []
    for field in schema:
        kind = field.type
        is_open = keeps_null and pa.types.is_null(kind)
        if not is_open:
            kind = _plain_type(kind)
        fields.append(pa.field(field.name, kind))
    return pa.schema(fields)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_null(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_binary_view(kind):
        return pa.binary()
    if types.is_list(kind) or types.is_list_view(kind):
        return pa.list_(_plain_type(kind.value_type))
    if types.is_large_list(kind) or types.is_large_list_view(kind):
        return pa.large_list(_plain_type(kind.value_type))
    if types.is_struct(kind):
        fields = [pa.field(field.name, _plain_type(field.type)) for field in kind]
        return pa.struct(fields)
    return kind


def plain_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Cast a table to a schema, without the notes of whoever wrote it."""
    table = table.replace_schema_metadata(None)
    if table.schema.equals(schema):
        return table
    return table.cast(schema)


def join_schemas(first: pa.Schema, second: pa.Schema) -> pa.Schema:
    """Return the schema that holds the rows of both.

    Raises:
        UsageError: a column has types that have none in common.
    """
    try:
        return pa.unify_schemas([first, second], promote_options="permissive")
    except UNJOINABLE:
        for field in second:
            place = first.get_field_index(field.name)
            if place < 0:
                continue
            before = first.field(place)
            if not _are_joinable(before, field):
                raise UsageError(
                    f"column {field.name!r} is {before.type} before and {field.type} now, which "
                    "have no type in common"
                ) from None
        raise


def _are_joinable(first: pa.Field, second: pa.Field) -> bool:
    schemas = [pa.schema([first]), pa.schema([second])]
    try:
        pa.unify_schemas(schemas, promote_options="permissive")
    except UNJOINABLE:
        return False
    return True


def join_file_schemas(
    schema: pa.Schema, fragments: Sequence[Any], names: Sequence[str]
) -> pa.Schema:
    """Return the schema of a dataset, as wide as all of its files need it.

    Raises:
        UsageError: a file has other columns than the dataset, or of types that do not fit.
    """
    joined = schema.remove_metadata()
    labels: set[str] | None = None
    for fragment, name in zip(fragments, names, strict=True):
        own = fragment.physical_schema.remove_metadata()
        if labels is None:
            labels = set(own.names)
        if set(own.names) != labels:
            differing = sorted(labels.symmetric_difference(own.names))
            raise UsageError(
                f"{name!r} has other columns than the files before ({', '.join(differing)}); a "
                "pyarrow Dataset with the schema= that you want reads both."
            )
        try:
            joined = join_schemas(joined, own)
        except UsageError as error:
            raise UsageError(f"{name!r}: {error}.") from None
    return joined
