"""The door of every verb: make a pandas frame of whatever holds rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.api.extensions import ExtensionArray

from pandas_amr._records.tracebacks import user_traceback
from pandas_amr._units.arrow_tables import frame_of_column, frame_of_table
from pandas_amr._units.columns import UNNAMED, frame_of_series
from pandas_amr._units.other_libraries import describe_refused, refuse_other_library
from pandas_amr._units.python_rows import array_of_values, check_lengths, frame_of_list
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol, TypeAlias

    from numpy.typing import NDArray

    class ArrowStream(Protocol):
        """Anything that gives rows through Arrow's protocol."""

        def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

    class LazyFrame(Protocol):
        """Anything that gives such a frame when it is collected."""

        def collect(self) -> Any: ...

    Frame: TypeAlias = (
        pd.DataFrame
        | pd.Series
        | pd.Index
        | ArrowStream
        | LazyFrame
        | list[Any]
        | tuple[Any, ...]
        | Mapping[str, Any]
        | NDArray[Any]
    )

ARROW = ("__arrow_c_stream__", "__arrow_c_array__")  # the protocol of Arrow, in its two forms
# How what is lazy is read, by the method of its class; each gives rows of a kind that is known.
READERS = ("to_native", "to_pyarrow", "to_table", "collect")
MOST_WRAPPERS = 4  # around rows: narwhals, a lazy frame, what that gives
TAKEN = (
    "a pandas DataFrame or Series; a frame of Polars, DuckDB, Arrow, Ibis or narwhals; "
    "a list of values or of dicts; a dict of lists; or an array"
)

_read: WeakSet[pa.RecordBatchReader] = WeakSet()  # that gave their rows, which they do once


@user_traceback
def as_frame(data: Frame) -> pd.DataFrame:
    """Make a pandas frame of whatever holds rows; every verb does so with its first argument.

    Args:
        data: a pandas DataFrame, which is returned as it is, or a Series; anything with
            ``__arrow_c_stream__`` (a frame of Polars, DuckDB, Arrow, Ibis or narwhals); what is
            lazy is collected; a list of values, which are one column (``value``), or of dicts; a
            dict of lists; an array of numpy.

    Returns:
        The frame. Of Arrow data, floats, times with their zones, texts, and whole numbers and bools
        without missing values have the dtypes of pandas, and dictionaries are categories. All else
        stays Arrow-typed, as findings are. What was a pandas frame before has its index.

    Raises:
        UsageError: it holds no rows, or is of a library that is not collected here (Spark, Dask,
            Modin, Ray, cuDF, Vaex, ...); the message says how to go on.

    Example:
        >>> import pandas_amr as amr
        >>> amr.as_frame(["good", "bad"])
          value
        0  good
        1   bad
        >>> amr.as_frame([{"text": "good", "stars": 5}, {"text": "bad"}]).dtypes["stars"]
        int64[pyarrow]
    """
    rows: Any = data
    for _ in range(MOST_WRAPPERS):
        frame = _make_frame(rows)
        if frame is not None:
            return frame
        reader = _find_reader(rows)
        if reader is None:
            break
        rows = _read_rows(reader, rows)
    raise UsageError(
        f"The first argument must hold rows: {TAKEN}; not {type(rows).__name__}."
        f"{describe_refused(rows)}"
    )


def _make_frame(data: object) -> pd.DataFrame | None:
    """Make a frame of what holds rows itself; None if it is lazy, wraps others, or holds none."""
    if isinstance(data, pd.DataFrame):
        return data
    refuse_other_library(data)
    if isinstance(data, pd.Series):
        return frame_of_series(data)
    if isinstance(data, pd.Index | ExtensionArray | np.ndarray):
        return _frame_of_array(data)
    if isinstance(data, list | tuple):
        return frame_of_list(data)
    if isinstance(data, Mapping):
        return _frame_of_columns(data)
    if _has_arrow(data) and not _is_wrapper(data):
        return _frame_of_arrow(data)
    return None


def is_other_frame(data: object) -> bool:
    """Tell whether data are of a library other than pandas, and hold rows or give them."""
    if isinstance(data, type | pd.DataFrame | pd.Series | pd.Index | ExtensionArray):
        return False
    return _has_arrow(data) or _find_reader(data) is not None


def _has_arrow(data: object) -> bool:
    if isinstance(data, type):
        return False
    return any(hasattr(data, name) for name in ARROW)


def _is_wrapper(data: object) -> bool:
    """Tell whether it stands for a frame of another library, which is better asked itself.

    A pandas frame has an index, and one of Spark is refused.
    """
    library, _, _ = type(data).__module__.partition(".")
    return library == "narwhals" and hasattr(data, "to_native")


def _find_reader(data: object) -> Callable[[], Any] | None:
    """Find the method that reads what is lazy, or unwraps it."""
    if isinstance(data, type):
        return None
    for name in READERS:
        if callable(getattr(type(data), name, None)):
            reader: Callable[[], Any] = getattr(data, name)
            return reader
    return None


def _read_rows(method: Callable[[], Any], data: object) -> Any:
    """Call what reads data of another library.

    Raises:
        UsageError: it failed, for a reason of its own; the error has it as its cause.
    """
    kind = type(data)
    try:
        return method()
    except Exception as error:
        library, _, _ = kind.__module__.partition(".")
        raise UsageError(
            f"The rows of this {kind.__name__} of {library} could not be read: "
            f"{type(error).__name__}."
        ) from error


def _frame_of_arrow(data: object) -> pd.DataFrame:
    """Read a table, or one column, through Arrow's protocol.

    Raises:
        UsageError: it gave its rows to an earlier call, or could not be read.
    """
    if isinstance(data, pa.RecordBatchReader):
        if data in _read:
            raise UsageError(
                "This RecordBatchReader has given its rows to an earlier call, and gives them "
                "once. Read it before: table = reader.read_all()."
            )
        _read.add(data)
    # A column of structs is no table, and looks like one to Arrow.
    is_array = isinstance(data, pa.Array | pa.ChunkedArray)
    if not is_array and not hasattr(type(data), "dtype"):
        table = _read_rows(_TableReader(data), data)
        if table is not None:
            return frame_of_table(table)
    column = _read_rows(_ColumnReader(data), data)
    name = getattr(data, "name", None)
    if not isinstance(name, str) or not name:
        name = UNNAMED
    return frame_of_column(column, name)


class _TableReader:
    """Reads data as a table; None if Arrow says that it is no table."""

    def __init__(self, data: object) -> None:
        self._data = data

    def __call__(self) -> pa.Table | None:
        data = self._data
        # Arrow's own need not go through the protocol: older versions do not get all views through.
        if isinstance(data, pa.Table):
            return data
        if isinstance(data, pa.RecordBatch):
            return pa.Table.from_batches([data])
        if isinstance(data, pa.RecordBatchReader):
            return data.read_all()
        try:
            return pa.table(data)
        except pa.ArrowInvalid as error:
            if "non-struct type" in str(error):
                return None
            raise


class _ColumnReader:
    """Reads data as one column."""

    def __init__(self, data: object) -> None:
        self._data = data

    def __call__(self) -> pa.ChunkedArray:
        data = self._data
        if isinstance(data, pa.ChunkedArray):
            return data
        if hasattr(data, "__arrow_c_stream__"):
            return pa.chunked_array(data)
        return pa.chunked_array([pa.array(data)])


# Arrays and dicts


def _frame_of_array(array: Any) -> pd.DataFrame:
    """Make one column of an array, or one per column of a matrix, level or field.

    Raises:
        UsageError: it has more than two dimensions, or none.
    """
    if isinstance(array, pd.MultiIndex):
        return array.to_frame(index=False, allow_duplicates=True)
    if isinstance(array, pd.Index):
        rows = pd.RangeIndex(len(array))
        return frame_of_series(array.to_series(index=rows))
    if isinstance(array, ExtensionArray):
        return pd.DataFrame({UNNAMED: array})
    if array.ndim not in {1, 2}:
        raise UsageError(f"An array of numpy has one dimension or two, not {array.ndim}.")
    if array.ndim == 2 or array.dtype.names is not None:
        return pd.DataFrame(array, copy=True)
    if array.dtype == object:
        return frame_of_list(array.tolist())
    if isinstance(array, np.ma.MaskedArray):
        return pd.DataFrame({UNNAMED: array_of_values(array.tolist())})
    return pd.DataFrame({UNNAMED: array}, copy=True)


def _frame_of_columns(columns: Mapping[Any, Any]) -> pd.DataFrame:
    """Make a frame of a dict of columns: lists, Series or arrays of any library.

    Raises:
        UsageError: a column is none, or they differ in their lengths or indexes.
    """
    arrays: dict[Any, Any] = {}
    index: pd.Index | None = None
    for name, values in columns.items():
        if isinstance(values, pd.Series):
            if index is not None and not index.equals(values.index):
                raise UsageError(
                    "The Series of a dict must have one index. pd.DataFrame(...) aligns them."
                )
            index = values.index
        arrays[name] = _read_column(name, values)
    check_lengths(arrays)
    return pd.DataFrame(arrays, index=index, copy=True)


def _read_column(name: Any, values: Any) -> Any:
    """Read one column of a dict.

    Raises:
        UsageError: it is none.
    """
    if isinstance(values, list | tuple | range):
        return array_of_values(values)
    is_column = not isinstance(values, str | bytes | Mapping | pd.DataFrame)
    if is_column and (_has_arrow(values) or hasattr(values, "dtype")):
        frame = as_frame(values)
        if len(frame.columns) == 1:
            return frame.iloc[:, 0].array
    raise UsageError(
        f"A dict holds columns, each a list, a Series or an array; {name!r} is "
        f"{type(values).__name__}. One row is a list of one dict: [{{...}}]."
    )
