"""How findings are grouped: as ``DataFrame.groupby`` groups."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from pandas_amr._records.public import public
from pandas_amr.errors import ColumnError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

POSITION = "amr_position"


@public
@dataclass(frozen=True, init=False, eq=False)
class By:
    """Columns to group by, with the options of ``DataFrame.groupby``.

    Args:
        keys: the columns; or what else ``groupby`` takes beside them: names of index levels, a Series with the frame's
            index, an array of one value per row, a function or a dict of index labels, a ``pd.Grouper``.
        sort: whether groups come sorted by their keys, or as they first appear.
        dropna: whether rows without a key are in no group.
        observed: of categories, whether only those that occur make groups.

    Raises:
        UsageError: no column is named.

    Example:
        >>> By("shop", sort=False)
        By('shop', sort=False)
    """

    keys: tuple[Any, ...]
    sort: bool = True
    dropna: bool = True
    observed: bool = True

    def __init__(
        self, *keys: Any, sort: bool = True, dropna: bool = True, observed: bool = True
    ) -> None:
        if not keys:
            raise UsageError('By("column", ...) names the columns to group by.')
        for name, value in {
            "keys": keys,
            "sort": sort,
            "dropna": dropna,
            "observed": observed,
        }.items():
            object.__setattr__(self, name, value)

    @property
    def options(self) -> dict[str, Any]:
        """What ``groupby`` takes beside the columns."""
        return {"sort": self.sort, "dropna": self.dropna, "observed": self.observed}

    @property
    def key(self) -> Any:
        """What ``groupby`` takes as its columns: one label, or a list."""
        return self.keys[0] if len(self.keys) == 1 else list(self.keys)

    @property
    def labels(self) -> list[Hashable]:
        """The columns or index levels that it names."""
        named = [one.key if isinstance(one, pd.Grouper) else one for one in self.keys]
        return [one for one in named if one is not None and not is_code(one)]

    @property
    def described(self) -> list[Any]:
        """The keys as a reader may see them: never a cell's content or an address."""
        return [described_key(one) if is_code(one) else one for one in self.keys]

    def with_keys(self, keys: Iterable[Any]) -> By:
        """The same options with other keys."""
        return By(*keys, **self.options)

    def at(self, rows: NDArray[np.int64], index: pd.Index) -> By:
        """The same groups of some rows of the frame, which now have the labels ``index``."""
        return self.with_keys(
            one.iloc[rows].set_axis(index) if isinstance(one, pd.Series) else one
            for one in self.keys
        )

    def __eq__(self, other: object) -> bool:
        if (
            not isinstance(other, By)
            or self.options != other.options
            or len(self.keys) != len(other.keys)
        ):
            return NotImplemented if not isinstance(other, By) else False
        return all(_same_key(one, two) for one, two in zip(self.keys, other.keys, strict=True))

    def __hash__(self) -> int:
        return hash((tuple(self.options.values()), tuple(map(str, self.described))))

    def __repr__(self) -> str:
        changed = [f"{name}={value}" for name, value in self.options.items() if value is not True]
        keys = [described_key(one) if is_code(one) else repr(one) for one in self.keys]
        return f"By({', '.join([*keys, *changed])})"


def is_code(key: Any) -> bool:
    """Whether a key is more than a label, so that JSON cannot hold it."""
    return isinstance(key, pd.Series | pd.Grouper | Mapping) or _is_array(key) or callable(key)


def _is_array(key: Any) -> bool:
    return isinstance(key, np.ndarray | pd.Index | pd.api.extensions.ExtensionArray)


def described_key(key: Any) -> str:
    """What a key that is no label is called, without its contents.

    Example:
        >>> described_key(pd.Series([1, 2], name="shop")), described_key(len)
        ("<Series 'shop'>", '<function len>')
    """
    if isinstance(key, pd.Series):
        return f"<Series {key.name!r}>"
    if isinstance(key, pd.Grouper):
        options = {name: getattr(key, name) for name in ("key", "level")} | {
            "freq": getattr(getattr(key, "freq", None), "freqstr", None)
        }
        return f"<Grouper {', '.join(f'{name}={value!r}' for name, value in options.items() if value is not None)}>"
    if callable(key):
        return f"<function {getattr(key, '__name__', type(key).__name__)}>"
    return f"<{type(key).__name__}>"


def _same_key(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, pd.Series) or isinstance(other, pd.Series):
        return isinstance(one, pd.Series) and isinstance(other, pd.Series) and one.equals(other)
    if _is_array(one) or _is_array(other):
        return False
    return bool(one == other)


def resolve_by(by: By, frame: pd.DataFrame) -> By:
    """Evaluate keys that are code against the frame's rows: each becomes a Series beside them.

    Labels and Groupers stay. A function is called now, with the labels of the index, which are known.

    Raises:
        UsageError: a key is nothing that ``groupby`` takes, or does not lie beside the rows.
    """
    return by.with_keys(_resolved_key(one, frame) for one in by.keys)


def _resolved_key(key: Any, frame: pd.DataFrame) -> Any:
    if isinstance(key, pd.Series):
        if not key.index.equals(frame.index):
            raise UsageError(
                f"by={described_key(key)} has another index than the frame. Give it one value per row with the "
                "frame's index: series.set_axis(df.index), or series.reindex(df.index)."
            )
        return key.copy()
    if isinstance(key, pd.Grouper):
        return key
    if _is_array(key):
        if getattr(key, "ndim", 1) != 1 or len(key) != len(frame):
            raise UsageError(
                f"by={described_key(key)} holds {len(key)} values; the frame has {len(frame)} rows: give one per row."
            )
        return pd.Series(key, index=frame.index, name=getattr(key, "name", None))
    if isinstance(key, Mapping):
        return _of_labels(frame.index, key.get)
    if isinstance(key, Hashable) and _is_label(key, frame):
        return key
    if callable(key):
        return _of_labels(frame.index, key)
    if isinstance(key, slice) or not isinstance(key, Hashable):
        raise UsageError(
            "by= takes column labels, a Series, a function or a dict of index labels, a pd.Grouper, or a list of "
            f"these, not {type(key).__name__} within a list or alone."
        )
    return key


def _is_label(key: Hashable, frame: pd.DataFrame) -> bool:
    try:
        return key in frame.columns or key in frame.index.names
    except TypeError:  # a tuple that holds a list
        return False


def _of_labels(index: pd.Index, function: Callable[[Any], Any]) -> pd.Series:
    """What a function says of each label of the index."""
    try:
        mapped = index.map(function)
    except Exception as error:
        raise UsageError(
            f"by={described_key(function)} is called with each label of the index; it raised {type(error).__name__}."
        ) from error
    return pd.Series(
        mapped.to_flat_index() if isinstance(mapped, pd.MultiIndex) else mapped,
        index=index,
        name=None,
    )


def missing_keys(by: By, columns: Iterable[Any], index: pd.Index) -> list[Hashable]:
    """The labels that are neither among some columns nor levels of the index."""
    known = set(columns) | {name for name in index.names if name is not None}
    return [label for label in by.labels if label not in known]


def column(frame: pd.DataFrame, label: Any) -> pd.Series:
    """A column of a frame; with several levels of labels, the one column below a label.

    Raises:
        ColumnError: there are several.
    """
    found: Any = frame[label]
    if isinstance(found, pd.DataFrame):
        shown = ", ".join(repr(one) for one in frame.columns[frame.columns.get_loc(label)])
        raise ColumnError(f"{label!r} stands for several columns; name one: {shown}.")
    return cast("pd.Series", found)


def grouping_keys(frame: pd.DataFrame, by: By) -> list[Any]:
    """What ``groupby`` is given: Series instead of labels, so that no label is taken for an index level's name."""
    return [_grouping_key(frame, key) for key in by.keys]


def _grouping_key(frame: pd.DataFrame, key: Any) -> Any:
    if isinstance(key, pd.Series | pd.Grouper):
        return key
    if key in frame.columns:
        return column(frame, key).rename(key)
    return pd.Series(frame.index.get_level_values(key), index=frame.index)


def grouped(
    frame: pd.DataFrame, by: By, source: pd.DataFrame | None = None, *, observed: bool | None = None
) -> Any:
    """Group a frame's rows; keys are columns of ``source``, which has the same rows, if it is given."""
    source = frame if source is None else source
    options = by.options if observed is None else by.options | {"observed": observed}
    dates: dict[Any, pd.Series] = {}
    for key in by.keys:
        if isinstance(key, pd.Grouper) and key.key is not None:
            dates[key.key] = _as_dates(column(source, key.key))
    if dates:
        frame = frame.copy(deep=False)
        for label, values in dates.items():
            frame[label] = values
    keys = [
        copy.copy(key) if isinstance(key, pd.Grouper) else key for key in grouping_keys(source, by)
    ]
    return frame.groupby(keys, **options)


def _as_dates(values: pd.Series) -> pd.Series:
    """A column as a Grouper's ``freq`` takes it: dates and times that Arrow holds become numpy's."""
    kind = getattr(values.dtype, "pyarrow_dtype", None)
    if kind is None or not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        return values
    zone = f", {kind.tz}" if getattr(kind, "tz", None) else ""
    converted: Any = pd.to_datetime(values.astype(object).where(values.notna(), None))
    return cast("pd.Series", converted.astype(f"datetime64[us{zone}]"))


def group_numbers(frame: pd.DataFrame, by: By) -> tuple[pd.Index, NDArray[np.int64]]:
    """Number the groups as ``groupby`` makes them.

    Returns:
        The index of the groups, and which of them each row is in; -1 if it is in none.
    """
    positions = pd.DataFrame({POSITION: np.arange(len(frame), dtype=float)}, index=frame.index)
    every = grouped(positions, by, frame)[POSITION]
    index = every.size().index
    occurring = grouped(positions, by, frame, observed=True)
    numbers = occurring.ngroup().to_numpy(dtype=float, na_value=-1.0).astype(np.int64)
    if len(index) == numbers.max(initial=-1) + 1:
        return index, numbers
    places = _places(every, numbers)
    return index, np.where(numbers < 0, -1, places[numbers] if len(places) else -1)


def _places(positions: Any, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each group that occurs stands among all: pandas is asked for each group's first row.

    Keys would not do: a missing one is equal to none.
    """
    firsts = positions.min().to_numpy()
    there = np.flatnonzero(~np.isnan(firsts))
    places = np.full(numbers.max(initial=-1) + 1, -1, dtype=np.int64)
    places[numbers[firsts[there].astype(np.int64)]] = there
    return places
