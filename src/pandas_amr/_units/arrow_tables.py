"""Convert Arrow tables to pandas frames without loss."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

PANDAS = b"pandas"  # the key of pandas' own metadata in a schema
NO_CODE = -1  # of a missing value, among the codes of a categorical
DAY_NS = 86_400_000_000_000
INT64_MAX = 2**63 - 1


def frame_of_table(table: pa.Table) -> pd.DataFrame:
    """Convert a table; one that was a pandas frame gets its index, labels and dtypes back.

    Floats, times with their zones, texts, and whole numbers and bools without missing values get
    the dtypes of pandas, dictionaries are categories. All else stays Arrow-typed, as findings are:
    whole numbers and bools with missing values, dates, times of day, decimals, bytes, lists,
    structs, maps.

    Raises:
        UsageError: a column cannot be converted; the message names it.

    Example:
        >>> frame_of_table(pa.table({"n": [1, 2], "m": [1, None], "x": [0.5, None]})).dtypes
        n             int64
        m    int64[pyarrow]
        x           float64
        dtype: object
    """
    names = table.column_names
    columns = _make_all_storable(table)
    known = None
    if columns:
        storable = pa.table(columns, names=names, metadata=table.schema.metadata)
        known = _read_metadata(storable)
    if known is None:
        index = pd.RangeIndex(table.num_rows)
        dtypes = [None] * len(columns)
        known = _Known(pd.Index(names), index, dtypes, attrs={})
    arrays: dict[int, Any] = {}
    for number, dtype in enumerate(known.dtypes):
        if dtype is not _IS_INDEX:
            arrays[number] = _to_named_array(columns[number], names[number], dtype)
    frame = pd.DataFrame(arrays, index=known.index)
    frame.columns = known.columns
    frame.attrs = known.attrs
    return frame


def frame_of_part(table: pa.Table) -> pd.DataFrame:
    """Convert a part of a table: all its columns as columns, each Arrow-typed.

    So the dtypes are those of every other part, whatever is missing in this one.

    Raises:
        UsageError: a column cannot be converted; the message names it.
    """
    plain = pa.table(_make_all_storable(table), names=table.column_names)
    frame: pd.DataFrame = plain.to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
    return frame


def frame_of_column(column: pa.ChunkedArray, name: str) -> pd.DataFrame:
    """Convert one array to a frame of one column.

    Raises:
        UsageError: it cannot be converted.
    """
    # Not as a table: a column of structs is one column, too.
    storable = _make_storable(column, name)
    return pd.DataFrame({name: _to_named_array(storable, name, None)})


def _make_all_storable(table: pa.Table) -> list[pa.ChunkedArray]:
    columns: list[pa.ChunkedArray] = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        columns.append(_make_storable(column, name))
    return columns


# What a table that was a pandas frame says of it


_IS_INDEX = object()  # in place of the dtype of a column that is a level of the index


@dataclass(frozen=True)
class _Known:
    """What becomes of a table's columns.

    Attributes:
        columns: the labels of those that are no level of the index.
        index: the index.
        dtypes: by column, the dtype that pandas gives it; None if the Arrow type says so.
        attrs: the attrs of the frame.
    """

    columns: pd.Index
    index: pd.Index
    dtypes: list[Any]
    attrs: dict[Any, Any]


def _read_metadata(table: pa.Table) -> _Known | None:
    """Read what pandas wrote into the schema; None if it wrote nothing, or of another table.

    Other tools keep this metadata when they rename, drop or add columns: it is then of no table.
    """
    written = table.schema.metadata or {}
    if PANDAS not in written:
        return None
    try:
        metadata = json.loads(written[PANDAS])
        levels = _list_index_columns(metadata)
        _forget_unknown_dtypes(metadata)
    except (ValueError, KeyError, TypeError):
        return None
    names = table.column_names
    is_doubled = len(set(names)) < len(names)
    if is_doubled or not levels.issubset(names):
        return None
    table = table.replace_schema_metadata({PANDAS: json.dumps(metadata)})
    empty = table.schema.empty_table().to_pandas()
    remaining = iter(empty.dtypes)
    dtypes: list[Any] = []
    for name in names:
        dtypes.append(_IS_INDEX if name in levels else next(remaining))
    index_columns = [name for name in names if name in levels]
    index = table.select(index_columns).to_pandas().index
    return _Known(empty.columns, index, dtypes, dict(metadata.get("attributes") or {}))


def _list_index_columns(metadata: dict[str, Any]) -> set[str]:
    """List the columns that are levels of the index; a range is described and has no column."""
    return {level for level in metadata["index_columns"] if isinstance(level, str)}


def _forget_unknown_dtypes(metadata: dict[str, Any]) -> None:
    """Replace dtypes that pandas writes and cannot read, such as ``list<...>[pyarrow]``."""
    for column in metadata["columns"]:
        try:
            pd.api.types.pandas_dtype(column["numpy_type"])
        except TypeError:
            column["numpy_type"] = "object"


# Arrow types that pandas and pyarrow's kernels take


def _make_storable(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Convert views, nulls and other types for which pyarrow lacks kernels.

    A frame of one shard would get by with them; with several, rows must be taken.

    Raises:
        UsageError: values are of a zone that is not known, or cannot be converted.
    """
    _check_dates(column, name)
    try:
        _check_zones(column.type)
        if isinstance(column.type, pa.BaseExtensionType):
            column = _take_out_storage(column)
        if pa.types.is_run_end_encoded(column.type):
            chunks = [pc.run_end_decode(chunk) for chunk in column.chunks]
            column = pa.chunked_array(chunks, column.type.value_type)
        if pa.types.is_interval(column.type):
            return _convert_intervals(column)
        kind = storable_type(column.type)
        if kind == column.type:
            return column
        if _has_part(column.type, _is_list_view):  # a cast loses its place at missing lists
            array = pa.array(column.to_pylist(), kind)
            return pa.chunked_array([array])
        return column.cast(kind)
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise _column_error(name, column.type, error) from error


def storable_type(kind: pa.DataType) -> pa.DataType:
    """Return the type in which values are held, for which there are kernels at any depth.

    Example:
        >>> storable_type(pa.list_(pa.string_view()))
        ListType(list<item: large_string>)
    """
    types = pa.types
    is_variable = types.is_list(kind) or types.is_large_list(kind)
    if is_variable or types.is_fixed_size_list(kind) or _is_list_view(kind):
        # Of lists of another kind, not every pandas counts the values.
        return pa.list_(_storable_field(kind.value_field))
    if types.is_struct(kind):
        fields = [_storable_field(kind.field(number)) for number in range(kind.num_fields)]
        return pa.struct(fields)
    if types.is_map(kind):
        key = _storable_field(kind.key_field)
        item = _storable_field(kind.item_field)
        return pa.map_(key, item, keys_sorted=kind.keys_sorted)
    if types.is_dictionary(kind):
        # Older versions of pyarrow do not convert unsigned numbers of categories.
        value_type = storable_type(kind.value_type)
        return pa.dictionary(pa.int64(), value_type, kind.ordered)
    return _storable_scalar(kind)


def _storable_scalar(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_string_view(kind):
        return pa.large_string()
    if types.is_binary_view(kind):
        return pa.large_binary()
    if types.is_null(kind):
        return pa.string()
    if types.is_decimal(kind) and kind.bit_width < 128:  # smaller ones have no sums
        return pa.decimal128(kind.precision, kind.scale)
    return kind


def _storable_field(field: pa.Field) -> pa.Field:
    return field.with_type(storable_type(field.type))


def _take_out_storage(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Take plain values out of an extension type, but for those that pandas knows."""
    kind = column.type
    name = getattr(kind, "extension_name", "")
    if name.startswith("pandas."):
        return column
    if name == "arrow.uuid":
        return _convert_to_texts(column.to_pylist(), str)
    storage = column.cast(kind.storage_type)
    if name == "arrow.bool8":
        return storage.cast(pa.bool_())
    return storage


def _convert_to_texts(values: list[Any], write: Callable[[Any], str]) -> pa.ChunkedArray:
    texts = [None if value is None else write(value) for value in values]
    array = pa.array(texts, pa.string())
    return pa.chunked_array([array])


def _convert_intervals(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert intervals of months, days and time to durations, or to texts if there are months."""
    values = column.to_pylist()
    lengths: list[int | None] = []
    for value in values:
        if value is None:
            lengths.append(None)
            continue
        length = value.days * DAY_NS + value.nanoseconds
        if value.months or abs(length) > INT64_MAX:
            return _convert_to_texts(values, _write_interval)
        lengths.append(length)
    array = pa.array(lengths, pa.int64()).cast(pa.duration("ns"))
    return pa.chunked_array([array])


def _write_interval(value: Any) -> str:
    """Write an interval as ISO 8601 does.

    Example:
        >>> _write_interval(pa.scalar((14, 3, 1_500_000_000), pa.month_day_nano_interval()).as_py())
        'P14M3DT1.500000000S'
    """
    seconds, rest = divmod(abs(value.nanoseconds), 1_000_000_000)
    sign = "-" if value.nanoseconds < 0 else ""
    time = f"{sign}{seconds}.{rest:09d}"
    return f"P{value.months}M{value.days}DT{time}S"


def _check_zones(kind: pa.DataType) -> None:
    """Refuse a time zone that nobody knows, at any depth, before a cell is read."""
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        pa.scalar(0, pa.timestamp("s", kind.tz)).as_py()
    if pa.types.is_dictionary(kind):
        _check_zones(kind.value_type)
    for number in range(kind.num_fields):
        _check_zones(kind.field(number).type)


def _check_dates(column: pa.ChunkedArray, name: str) -> None:
    """Refuse dates that Python does not have, such as those that stand for infinity in SQL."""
    if not pa.types.is_date(column.type) or column.null_count == len(column):
        return
    days = column.cast(pa.date32()).cast(pa.int32())  # since 1970
    ends = pc.min_max(days).as_py()
    epoch = dt.date(1970, 1, 1).toordinal()
    first = dt.date.min.toordinal() - epoch
    last = dt.date.max.toordinal() - epoch
    if ends["min"] < first or ends["max"] > last:
        raise UsageError(
            f"Column {name!r} holds a date outside the years 1 to 9999, which Python does not "
            "have. Cast it to text, or leave such rows out."
        )


def _column_error(name: str, kind: pa.DataType, error: Exception) -> UsageError:
    return UsageError(
        f"Column {name!r} has the Arrow type {kind}, which cannot be converted to pandas "
        f"({type(error).__name__}). Cast it, or leave it out."
    )


# Columns


def _to_named_array(column: pa.ChunkedArray, name: str, dtype: object) -> Any:
    try:
        return _to_pandas_array(column, dtype)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise _column_error(name, column.type, error) from error


def _to_pandas_array(column: pa.ChunkedArray, dtype: Any = None) -> Any:
    """Convert a column to an array of pandas or numpy.

    Args:
        column: of a storable type.
        dtype: the dtype that pandas wrote into the schema, if it did.
    """
    kind, types = column.type, pa.types
    if types.is_dictionary(kind):
        return _convert_categories(column)
    if _has_part(kind, _has_no_kernels):
        return pd.Series(column.to_pylist(), dtype=object).array
    if dtype is None:
        empty = pa.chunked_array([], kind)
        dtype = empty.to_pandas().dtype
    is_text = types.is_string(kind) or types.is_large_string(kind)
    is_whole = types.is_integer(kind) or types.is_boolean(kind)
    column = _combine_chunks(column)
    if hasattr(dtype, "__from_arrow__") and not isinstance(dtype, pd.DatetimeTZDtype):
        return dtype.__from_arrow__(column)
    is_object = pd.api.types.is_object_dtype(dtype) and not is_text
    if is_object or (is_whole and column.null_count):
        return pd.arrays.ArrowExtensionArray(column)
    return column.to_pandas().array


def _combine_chunks(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Make one chunk of many: rows are taken from many chunks far more slowly."""
    if column.num_chunks < 2:
        return column
    # A table's own method stays within what the offsets of texts can hold.
    return pa.table({"": column}).combine_chunks().column(0)


def _is_list_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def _has_no_kernels(kind: pa.DataType) -> bool:
    types = pa.types
    is_strange = isinstance(kind, pa.BaseExtensionType) or types.is_interval(kind)
    return is_strange or types.is_union(kind) or types.is_run_end_encoded(kind)


def _has_part(kind: pa.DataType, is_meant: Callable[[pa.DataType], bool]) -> bool:
    """Tell whether a type, or one of which it is made, is meant; pandas' own are not."""
    if getattr(kind, "extension_name", "").startswith("pandas."):
        return False
    if is_meant(kind):
        return True
    parts = [kind.field(number).type for number in range(kind.num_fields)]
    return any(_has_part(part, is_meant) for part in parts)


def _convert_categories(column: pa.ChunkedArray) -> Any:
    """Convert a dictionary to categories; to plain values if pandas takes no such categories.

    Without a batch the categories are not known. Texts are plain values then: a warehouse has no
    type for categories of which there are none.
    """
    is_ordered, kind = column.type.ordered, column.type.value_type
    is_nested = pa.types.is_nested(kind) or _has_part(kind, _has_no_kernels)
    is_unknown = not column.num_chunks and pa.types.is_string(kind)
    if not is_nested and not is_unknown:
        column = column.unify_dictionaries()
        first = [chunk.dictionary for chunk in column.chunks[:1]]  # now they all have this one
        values = pa.chunked_array(first, kind)
        categories = pd.Index(_to_pandas_array(values))
        if categories.is_unique and not categories.hasnans:
            indices = [chunk.indices for chunk in column.chunks]
            codes = pa.chunked_array(indices, pa.int64()).fill_null(NO_CODE)
            return pd.Categorical.from_codes(codes.to_numpy(), categories, ordered=is_ordered)
    chunks = [chunk.dictionary_decode() for chunk in column.chunks]
    return _to_pandas_array(pa.chunked_array(chunks, kind))
