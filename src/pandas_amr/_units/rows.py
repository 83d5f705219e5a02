"""Some rows of a frame, in time that depends on these rows and not on the frame.

Arrow's ``take`` of a column in many chunks looks through all of them, so that as many takes as
there are shards cost the square of the frame. A slice does not, nor does a take from one chunk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    IntArray: TypeAlias = NDArray[np.int64]
    BoolArray: TypeAlias = NDArray[np.bool_]
    ObjectArray: TypeAlias = NDArray[np.object_]
    Positions: TypeAlias = Sequence[int] | IntArray  # of rows in a frame


def find_range(positions: Positions) -> slice | None:
    """Return the slice that some positions are; None if they do not follow each other.

    Example:
        >>> find_range([3, 4, 5]), find_range([3, 5])
        (slice(3, 6, None), None)
    """
    rows = np.asarray(positions, dtype=np.int64)
    if not len(rows):
        return slice(0, 0)
    start = int(rows[0])
    end = int(rows[-1]) + 1
    if end - start != len(rows):
        return None
    steps = np.diff(rows)
    if not (steps == 1).all():
        return None
    return slice(start, end)


def pandas_dtype(kind: pa.DataType) -> Any:
    """Return the dtype of an Arrow type that pandas made, of periods or intervals; None of others.

    As an Arrow column pandas would show numbers in place of the periods.

    Example:
        >>> pandas_dtype(pa.array(pd.period_range("2026-01", periods=1, freq="M")).type)
        period[M]
    """
    is_made_by_pandas = getattr(kind, "extension_name", "").startswith("pandas.")
    return kind.to_pandas_dtype() if is_made_by_pandas else None


def combine_chunks(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame whose Arrow columns are in one chunk each, and share all else with the first.

    A column of more than 2 GB of texts stays in as few chunks as its type allows.
    """
    combined = frame
    for number in range(len(frame.columns)):
        array = _combine(frame.iloc[:, number].array)
        if array is None:
            continue
        if combined is frame:
            combined = frame.copy(deep=False)
        combined.isetitem(number, array)
    return combined


def _combine(array: Any) -> Any:
    """Put an Arrow array into one chunk; None if it is in one, or not in Arrow's memory."""
    if not hasattr(array, "__arrow_array__") or isinstance(array.dtype, np.dtype):
        return None
    is_arrow = isinstance(array.dtype, pd.ArrowDtype | pd.StringDtype)
    chunks = pa.array(array) if is_arrow else None
    if not isinstance(chunks, pa.ChunkedArray) or chunks.num_chunks < 2:
        return None
    # Not ChunkedArray.combine_chunks, which fails if the texts do not fit one chunk.
    column = pa.table({"column": chunks}).combine_chunks().column(0)
    return type(array)._from_sequence(column, dtype=array.dtype)  # noqa: SLF001 (pandas' protocol)
