"""Find the rows that an item of the output is based on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

MOST_NAMED = 5


def find_positions(
    sources: pd.DataFrame | None, item: int, group: object, column: object
) -> NDArray[np.int64]:
    """Return the positions of the rows that an item is based on.

    Args:
        sources: the ``sources`` of a result.
        item: the number of the item in its answer.
        group: its group; None if there are no groups, or for the group without a key.
        column: its column, if agents wrote several columns for each group.

    Raises:
        UsageError: there are no such sources, or the group or the column is missing or needless.
    """
    if sources is None:
        raise UsageError("The output has no sources: no part of it was written by agents.")
    rows = sources[sources["item"] == item]
    rows = _select_group(sources, rows, item, group)
    rows = _select_column(sources, rows, item, column)
    if rows.empty:
        of_group = "" if group is None else f" of group {group!r}"
        raise UsageError(f"There is no item {item!r}{of_group} with sources.")
    return rows["position"].to_numpy()


def _select_group(
    sources: pd.DataFrame, rows: pd.DataFrame, item: int, group: object
) -> pd.DataFrame:
    if "group" not in rows.columns:
        if group is not None:
            raise UsageError(f"This answer has no groups. Leave out group=: explain({item!r}).")
        return rows
    groups = sources["group"]
    if group is None and not any(_is_same_group(other, None) for other in groups):
        raise UsageError(
            "This answer has one part per group or column; pass group= "
            f"(one of {_join_names(groups)}): explain({item!r}, group=...)."
        )
    matches = [_is_same_group(other, group) for other in rows["group"]]
    return rows[np.array(matches, dtype=bool)]


def _select_column(
    sources: pd.DataFrame, rows: pd.DataFrame, item: int, column: object
) -> pd.DataFrame:
    if "column" not in rows.columns:
        if column is not None:
            raise UsageError(
                "Agents did not write this answer by columns. Leave out column=: "
                f"explain({item!r})."
            )
        return rows
    columns = list(dict.fromkeys(sources["column"]))
    if column is None and len(columns) > 1:
        raise UsageError(
            "Agents wrote several columns of this answer; pass column= "
            f"(one of {_join_names(columns)}): explain({item!r}, column=...)."
        )
    wanted = columns[0] if column is None else column
    selected: pd.DataFrame = rows[rows["column"] == wanted]
    return selected


def _join_names(names: Iterable[Any]) -> str:
    distinct = list(dict.fromkeys(map(repr, names)))
    listed = distinct[:MOST_NAMED]
    if len(distinct) > MOST_NAMED:
        listed.append("...")
    return ", ".join(listed)


def _is_same_group(group: object, other: object) -> bool:
    """Whether two groups are the same; missing keys are equal here."""
    if isinstance(group, tuple) and isinstance(other, tuple):
        return len(group) == len(other) and all(map(_is_same_group, group, other))
    if _is_missing(group):
        return _is_missing(other)
    if _is_missing(other):
        return False
    return bool(group == other)


def _is_missing(key: Any) -> bool:
    return bool(pd.api.types.is_scalar(key) and pd.isna(key))
