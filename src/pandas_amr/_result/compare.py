"""Compare values, and two columns row by row."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._result.comparable import make_comparable, plain_value

if TYPE_CHECKING:
    from numpy.typing import NDArray

Z_95 = 1.96  # the normal quantile of a 95 % interval
FLOAT_TOLERANCE = 1e-14  # what is left of floats that were computed in another order


def compare_columns(
    field: str,
    kind: Any,
    found: pd.Series,
    others: pd.Series,
    positions: NDArray[np.int64],
    *,
    names: tuple[str, str],
    tolerance: float,
) -> pd.DataFrame:
    """Compare two columns at some positions: one row each. Free texts may differ by case.

    Args:
        field: the name of the field.
        kind: the type of the field.
        found: its findings.
        others: the values to compare them with.
        positions: which rows.
        names: the columns of the other value and of the verdict.
        tolerance: the relative difference up to which two numbers count as equal.
    """
    first = [plain_value(value) for value in found.iloc[positions].tolist()]
    second = [plain_value(value) for value in others.iloc[positions].tolist()]
    equal: list[bool] = []
    for one, other in zip(first, second, strict=True):
        form = make_comparable(one, kind, lenient=True)
        other_form = make_comparable(other, kind, lenient=True)
        equal.append(is_same(form, other_form, tolerance))
    labels = list(found.index.take(positions))
    return pd.DataFrame(
        {
            "field": field,
            "label": pd.Series(labels, dtype=object),
            "position": positions,
            "found": pd.Series(first, dtype=object),
            names[0]: pd.Series(second, dtype=object),
            names[1]: np.array(equal, dtype=bool),
        }
    )


def is_same(first: Any, second: Any, tolerance: float = 0.0) -> bool:
    """Whether two comparable values are equal: numbers within a tolerance, lists in any order.

    Example:
        >>> is_same(0.1 + 0.2, 0.3), is_same(10_000_000_000_001, 10_000_000_000_002)
        (True, False)
    """
    match first, second:
        case (None, None):
            return True
        case (None, _) | (_, None):
            return False
        case (bool(), _) | (_, bool()):  # which are numbers to Python
            return first is second
        case (list(), list()):
            return _have_same_items(first, second, tolerance)
        case (dict(), dict()):
            if first.keys() != second.keys():
                return False
            return all(is_same(first[name], second[name], tolerance) for name in first)
    if is_number(first) and is_number(second):
        return _is_same_number(first, second, tolerance)
    return bool(first == second)


def _is_same_number(first: Any, second: Any, tolerance: float) -> bool:
    if isinstance(first, float) or isinstance(second, float):
        tolerance = max(tolerance, FLOAT_TOLERANCE)
    if not tolerance:
        return bool(first == second)  # as floats, two large numbers may be one
    return math.isclose(first, second, rel_tol=tolerance)


def _have_same_items(first: list[Any], second: list[Any], tolerance: float) -> bool:
    """Tell whether two lists hold equal items, in whatever order."""
    if len(first) != len(second):
        return False
    others = sorted(second, key=str)
    for item in sorted(first, key=str):
        # The next of the others is equal, but that numbers which differ a little may stand in
        # another order.
        for place, other in enumerate(others):
            if is_same(item, other, tolerance):
                del others[place]
                break
        else:
            return False
    return True


def is_number(value: object) -> bool:
    """Whether a value counts as a number; a bool does not."""
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def wilson_interval(hits: int, rows: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927); (0, 1) without any row.

    Example:
        >>> [round(bound, 3) for bound in wilson_interval(45, 50)]
        [0.786, 0.957]
    """
    if not rows:
        return 0.0, 1.0
    share = hits / rows
    squared = Z_95 * Z_95
    scale = 1 + squared / rows
    middle = (share + squared / (2 * rows)) / scale
    variance = share * (1 - share) / rows + squared / (4 * rows * rows)
    half_width = Z_95 * math.sqrt(variance) / scale
    return max(0.0, middle - half_width), min(1.0, middle + half_width)
