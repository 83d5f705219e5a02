"""Aggregate one column, the values inside its lists included."""

from __future__ import annotations

import decimal
import math
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from pandas_amr._plan.aggregations import OF_ANY, OF_VALUES, has_table, is_share, name_of
from pandas_amr._types.violations import LARGEST_EXACT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PRODUCTS = frozenset({"prod", "product"})  # pandas has two names for it
EXACT_DIGITS = 76  # of decimals, as many as Arrow's widest have
COPIES_ON_WRITE = int(pd.__version__.partition(".")[0]) >= 3
ARROW_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
PYTHON_LISTS = frozenset({list, set, np.ndarray})

Rows = TypeVar("Rows", pd.DataFrame, pd.Series)


def aggregate_column(column: pd.Series, function: Any) -> Any:
    """Aggregate a column.

    A function gets the column whole. (Some versions of pandas would first try it value by value.)
    """
    if callable(function):
        return function(defensive_copy(column))
    if isinstance(function, list):
        return _aggregate_by_each(column, function)
    if function in OF_ANY and not column.notna().any():
        return pd.NA
    if function in OF_VALUES:
        column = explode(column)
    if overflows(column, function):
        return _aggregate_exactly(column.dropna(), function)
    if is_share(function):
        return column.value_counts(normalize=True)
    return column.agg(function)


def _aggregate_by_each(column: pd.Series, functions: Sequence[Any]) -> Any:
    """Aggregate a column by several functions; a dict if one of them gives a table."""
    names = [name_of(function) for function in functions]
    values = [aggregate_column(column, function) for function in functions]
    if has_table({"": functions}):
        return dict(zip(names, values, strict=True))
    return make_series(values, names)


def make_series(values: list[Any], index: list[Any]) -> pd.Series:
    """Make a Series of results; whole numbers beside fractions keep all their digits."""
    series = pd.Series(values, index=index)
    if series.dtype.kind != "f":
        return series
    wholes = [value for value in values if isinstance(value, int | np.integer)]
    if all(int(float(value)) == value for value in wholes):
        return series
    plain: list[Any] = []
    for value in values:
        plain.append(value.item() if isinstance(value, np.generic) else value)
    return pd.Series(plain, index=index, dtype=object)


def has_large_numbers(column: pd.Series) -> bool:
    """Whether a float may not hold all digits of the whole numbers of a column, or of their sum."""
    if not _is_whole(column):
        return False
    return bool(_magnitude(column).sum() >= LARGEST_EXACT)


def overflows(column: pd.Series, function: object) -> bool:
    """Whether pandas' sum, product or mean may not fit the type in which it is computed.

    It would be another number, and no error.
    """
    kind = _arrow_decimal(column)
    if kind is not None:
        return _overflows_decimal(column, kind, function)
    if function == "sum" and _is_in_nanoseconds(column):
        return bool(column.astype("timedelta64[us]").abs().sum() > pd.Timedelta.max)
    if function not in {"sum", *PRODUCTS} or not _is_whole(column):
        return False
    bits = 64 if column.dtype.kind == "u" else 63
    if function == "sum":
        return bool(_magnitude(column).sum() >= 2.0**bits)
    return _digits_of_product(column) >= bits * math.log10(2)


def _overflows_decimal(
    column: pd.Series, kind: pa.Decimal128Type | pa.Decimal256Type, function: object
) -> bool:
    """Whether Arrow's sum, product or mean may have more digits than its widest type of a kind."""
    most = EXACT_DIGITS if kind.bit_width > 128 else 38
    if function in PRODUCTS:  # each step holds the places of both its factors
        return bool(_digits_of_product(column) + 2 * kind.scale >= most)
    if function not in {"sum", "mean"}:
        return False
    return bool(_magnitude(column).sum() >= 10.0 ** (most - kind.scale))


def _digits_of_product(column: pd.Series) -> float:
    return float(np.log10(_magnitude(column).clip(min=1)).sum())


def _aggregate_exactly(values: pd.Series, function: str) -> Any:
    """Aggregate numbers that are there by Python's, which have no end; spans by microseconds."""
    if _is_in_nanoseconds(values):
        return values.astype("timedelta64[us]").agg(function)
    if _is_whole(values):
        wholes = [int(value) for value in values]
        return sum(wholes) if function == "sum" else math.prod(wholes)
    with decimal.localcontext(prec=EXACT_DIGITS, Emax=decimal.MAX_EMAX):
        decimals = values.tolist()
        if function in PRODUCTS:
            return math.prod(decimals)
        total = sum(decimals)
        return total / len(decimals) if function == "mean" else total


def _arrow_decimal(column: pd.Series) -> pa.Decimal128Type | pa.Decimal256Type | None:
    kind = getattr(column.dtype, "pyarrow_dtype", None)
    return kind if kind is not None and pa.types.is_decimal(kind) else None


def _is_in_nanoseconds(column: pd.Series) -> bool:
    return str(column.dtype) in {"timedelta64[ns]", "duration[ns][pyarrow]"}


def _is_whole(column: pd.Series) -> bool:
    return getattr(column.dtype, "kind", "") in {"i", "u"}


def _magnitude(column: pd.Series) -> NDArray[np.float64]:
    values: NDArray[np.float64] = column.dropna().to_numpy(dtype="float64")
    return np.abs(values)


def defensive_copy(rows: Rows) -> Rows:
    """Copy rows for a function that may change them; since pandas 3 the copy is lazy."""
    return rows.copy(deep=not COPIES_ON_WRITE)


def explode(column: pd.Series) -> pd.Series:
    """Return the values in a column's lists, labelled by the position of their row.

    A column without lists is returned as it is.
    """
    if not holds_lists(column):
        return column
    return column.reset_index(drop=True).explode()


def holds_lists(column: pd.Series) -> bool:
    """Whether a column's values are lists, of Arrow or of Python."""
    if isinstance(column.dtype, pd.ArrowDtype):
        return any(is_kind(column.dtype.pyarrow_dtype) for is_kind in ARROW_LISTS)
    if column.dtype != object:
        return False
    types = {type(value) for value in column.tolist()}
    return not types.isdisjoint(PYTHON_LISTS)
