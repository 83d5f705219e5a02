"""Tell which labels of rows and of groups are the same: by value and kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Hashable

MISSING = object()  # the key of every missing label: NaN does not even equal itself


def make_label_key(label: Any) -> Hashable:
    """Return what is equal for labels that are the same, so that a dict finds them.

    Labels are the same if Python has them as equal: a text is no date, a point is no interval.
    Missing ones are one label, also inside of tuples, and a bool is no number.

    Example:
        >>> make_label_key(("a", float("nan"))) == make_label_key(("a", None))
        True
        >>> make_label_key(1) == make_label_key(1.0), make_label_key(1) == make_label_key(True)
        (True, False)
    """
    if isinstance(label, tuple):
        return tuple(map(make_label_key, label))
    if isinstance(label, bool | np.bool_):
        return bool, bool(label)
    if pd.api.types.is_scalar(label) and pd.isna(label):
        return MISSING
    key: Hashable = label
    return key
