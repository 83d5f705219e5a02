"""Group rows as ``DataFrame.groupby`` does."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from pandas_amr._records.pickles import CopiedHere, pack, unpack
from pandas_amr._records.public import public
from pandas_amr.errors import ColumnError, UsageError

if TYPE_CHECKING:
    from pandas_amr._units.rows import IntArray

POSITION = "amr_position"


@public
@dataclass(frozen=True, init=False, eq=False)
class By(CopiedHere):
    """Columns to group by, with the options of ``DataFrame.groupby``.

    Args:
        keys: the columns; or what else ``groupby`` takes: names of index levels, a Series with the
            frame's index, an array with one value per row, a function or a dict of index labels, a
            ``pd.Grouper``.
        sort: whether groups are sorted by their keys, or stand as they first appear.
        dropna: whether rows with a missing key are left out.
        observed: whether only the categories that occur make groups.

    Raises:
        UsageError: no key is given.

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
            raise UsageError('By() needs at least one column to group by: By("column").')
        fields = {"keys": keys, "sort": sort, "dropna": dropna, "observed": observed}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def options(self) -> dict[str, Any]:
        """The options of ``groupby``."""
        return {"sort": self.sort, "dropna": self.dropna, "observed": self.observed}

    @property
    def key(self) -> Any:
        """The ``by`` of ``groupby``: one key, or a list."""
        if len(self.keys) == 1:
            return self.keys[0]
        return list(self.keys)

    @property
    def labels(self) -> list[Hashable]:
        """The columns or index levels that the keys name."""
        labels: list[Hashable] = []
        for key in self.keys:
            label = key.key if isinstance(key, pd.Grouper) else key
            if label is not None and not is_code(label):
                labels.append(label)
        return labels

    @property
    def described(self) -> list[Any]:
        """The keys as a reader may see them: without contents of cells or addresses in memory."""
        described: list[Any] = []
        for key in self.keys:
            described.append(describe_key(key) if is_code(key) else key)
        return described

    def replace_keys(self, keys: Iterable[Any]) -> By:
        """Replace the keys, and keep the options."""
        return By(*keys, **self.options)

    def at(self, rows: IntArray, index: pd.Index) -> By:
        """Return the grouping of some rows of the frame, whose labels are now ``index``."""
        keys: list[Any] = []
        for key in self.keys:
            if isinstance(key, pd.Series):
                keys.append(key.iloc[rows].set_axis(index))
            else:
                keys.append(key)
        return self.replace_keys(keys)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, By):
            return NotImplemented
        if self.options != other.options or len(self.keys) != len(other.keys):
            return False
        pairs = zip(self.keys, other.keys, strict=True)
        return all(_is_same_key(own, given) for own, given in pairs)

    def __hash__(self) -> int:
        options = tuple(self.options.values())
        keys = tuple(str(key) for key in self.described)
        return hash((options, keys))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"keys": pack(self.keys, "By()")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, keys=unpack(state["keys"]))

    def __repr__(self) -> str:
        arguments: list[str] = []
        for key in self.keys:
            arguments.append(describe_key(key) if is_code(key) else repr(key))
        for name, value in self.options.items():
            if value is not True:
                arguments.append(f"{name}={value}")
        return f"By({', '.join(arguments)})"


def is_code(key: object) -> bool:
    """Whether a key is more than a label, so that JSON cannot hold it."""
    if isinstance(key, pd.Series | pd.Grouper | Mapping):
        return True
    return _is_array(key) or callable(key)


def _is_array(key: object) -> bool:
    return isinstance(key, np.ndarray | pd.Index | pd.api.extensions.ExtensionArray)


def describe_key(key: object) -> str:
    """Describe a key that is not a label, without its contents.

    Example:
        >>> describe_key(pd.Series([1, 2], name="shop")), describe_key(len)
        ("<Series 'shop'>", '<function len>')
    """
    if isinstance(key, pd.Series):
        return f"<Series {key.name!r}>"
    if isinstance(key, pd.Grouper):
        return _describe_grouper(key)
    if callable(key):
        name = getattr(key, "__name__", type(key).__name__)
        return f"<function {name}>"
    return f"<{type(key).__name__}>"


def _describe_grouper(key: pd.Grouper) -> str:
    frequency = getattr(key, "freq", None)
    options = {
        "key": key.key,
        "level": key.level,
        "freq": getattr(frequency, "freqstr", None),
    }
    shown: list[str] = []
    for name, value in options.items():
        if value is not None:
            shown.append(f"{name}={value!r}")
    return f"<Grouper {', '.join(shown)}>"


def _is_same_key(one: object, other: object) -> bool:
    if one is other:
        return True
    if isinstance(one, pd.Series):
        return isinstance(other, pd.Series) and one.equals(other)
    if isinstance(other, pd.Series):
        return False
    if _is_array(one) or _is_array(other):
        return False
    return bool(one == other)


def resolve_by(by: By, frame: pd.DataFrame) -> By:
    """Evaluate keys that are code against the frame: each becomes a Series with its index.

    Labels and Groupers stay. Functions are called here, once per label of the index.

    Raises:
        UsageError: ``groupby`` does not take a key, or a key does not have one value per row.
    """
    counts = Counter(key for key in by.keys if isinstance(key, str))
    doubled = [name for name, count in counts.items() if count > 1]
    if doubled:
        raise UsageError(f"by= names {min(doubled)!r} twice.")
    return by.replace_keys(_resolve_key(key, frame) for key in by.keys)


def _resolve_key(key: object, frame: pd.DataFrame) -> Any:
    if isinstance(key, pd.Grouper):
        return key
    if isinstance(key, pd.Series):
        return _resolve_series(key, frame)
    if _is_array(key):
        return _resolve_array(key, frame)
    if isinstance(key, Mapping):
        return _map_index(frame.index, key.get)
    is_hashable = isinstance(key, Hashable) and not isinstance(key, slice)
    if is_hashable and (_is_label(key, frame) or not callable(key)):
        return key
    if callable(key):
        return _map_index(frame.index, key)
    raise UsageError(
        "by= takes column labels, a Series, a function or a dict of index labels, a pd.Grouper, "
        f"or a list of these, not {type(key).__name__}."
    )


def _resolve_series(key: pd.Series, frame: pd.DataFrame) -> pd.Series:
    if not key.index.equals(frame.index):
        raise UsageError(
            f"by={describe_key(key)} does not have the frame's index. Give one value per row with "
            "that index: series.set_axis(df.index), or series.reindex(df.index)."
        )
    return key.copy()


def _resolve_array(key: Any, frame: pd.DataFrame) -> pd.Series:
    if getattr(key, "ndim", 1) != 1 or len(key) != len(frame):
        raise UsageError(
            f"by={describe_key(key)} has {len(key)} values, and the frame {len(frame)} rows. Give "
            "one value per row."
        )
    name = getattr(key, "name", None)
    return pd.Series(key, index=frame.index, name=name)


def _is_label(key: Hashable, frame: pd.DataFrame) -> bool:
    try:
        return key in frame.columns or key in frame.index.names
    except TypeError:  # a tuple that holds a list
        return False


def _map_index(index: pd.Index, function: Callable[[Any], Any]) -> pd.Series:
    """Apply a function to each label of the index.

    Raises:
        UsageError: the function raised.
    """
    try:
        mapped = index.map(function)
    except Exception as error:
        raise UsageError(
            f"by={describe_key(function)} raised {type(error).__name__}. It is called with each "
            "label of the index."
        ) from error
    if isinstance(mapped, pd.MultiIndex):
        mapped = mapped.to_flat_index()
    return pd.Series(mapped, index=index, name=None)


def find_missing_keys(by: By, columns: Iterable[Any], index: pd.Index) -> list[Hashable]:
    """Return the labels that are neither columns nor levels of the index."""
    names = {*columns, *index.names}
    return [label for label in by.labels if label not in names]


def column(frame: pd.DataFrame, label: object) -> pd.Series:
    """Return a column; if labels have several levels, the only column below a label.

    Raises:
        ColumnError: several columns stand below it.
    """
    values: Any = frame[label]
    if isinstance(values, pd.DataFrame):
        below = frame.columns[frame.columns.get_loc(label)]
        shown = ", ".join(map(repr, below))
        raise ColumnError(f"{label!r} stands for several columns. Name one of them: {shown}.")
    return cast("pd.Series", values)


def make_grouping_keys(frame: pd.DataFrame, by: By) -> list[Any]:
    """Return the keys that ``groupby`` gets.

    Labels become Series: ``groupby`` could take a column's label for the name of an index level.
    So do Groupers without a ``freq``: of one that sorts, in a list, pandas mixes up the rows.
    """
    keys = [_grouping_key(frame, key) for key in by.keys]
    if len(keys) == 1 or by.dropna:
        return keys
    # Among several keys that keep missing ones, pandas puts a missing date into a group of others.
    return [_label_spans(frame, key) if isinstance(key, pd.Grouper) else key for key in keys]


def _label_spans(frame: pd.DataFrame, grouper: pd.Grouper) -> Any:
    """Return the span of time of each row as a Series; the Grouper itself if no date is missing."""
    spans, numbers = group_numbers(frame, By(grouper))
    if numbers.min(initial=0) >= 0:
        return grouper
    labels = pd.Series(spans, name=spans.name).reindex(numbers)
    return labels.set_axis(frame.index)


def _grouping_key(frame: pd.DataFrame, key: Any) -> Any:
    if isinstance(key, pd.Series):
        return key
    if isinstance(key, pd.Grouper):
        names_one_label = (key.key is None) != (key.level is None)
        if has_frequency(key) or not names_one_label:
            return copy.copy(key)  # pandas writes into those that it uses
        return _take_level(frame, key.level) if key.key is None else _take_column(frame, key.key)
    return _take_column(frame, key) if key in frame.columns else _take_level(frame, key)


def has_frequency(grouper: pd.Grouper) -> bool:
    """Whether a Grouper groups by spans of time."""
    return getattr(grouper, "freq", None) is not None


def _take_column(frame: pd.DataFrame, label: Any) -> pd.Series:
    named: pd.Series = column(frame, label).rename(label)
    return named


def _take_level(frame: pd.DataFrame, level: Any) -> pd.Series:
    return pd.Series(frame.index.get_level_values(level), index=frame.index)


def grouped(
    frame: pd.DataFrame, by: By, source: pd.DataFrame | None = None, *, observed: bool | None = None
) -> Any:
    """Group a frame's rows.

    Args:
        frame: the frame.
        by: the keys and options.
        source: the frame with the columns of the keys, which has the same rows; default: ``frame``.
        observed: replaces the option of ``by``.
    """
    source = frame if source is None else source
    options = by.options
    groupers = [key for key in by.keys if isinstance(key, pd.Grouper)]
    if len(by.keys) == 1:
        for grouper in groupers:  # pandas asks one that stands alone
            options["dropna"] &= grouper.dropna
            options["sort"] &= grouper.sort
    if observed is not None:
        options["observed"] = observed
    frame = _add_grouper_columns(frame, filter(has_frequency, groupers), source)
    return frame.groupby(make_grouping_keys(source, by), **options)


def _add_grouper_columns(
    frame: pd.DataFrame, groupers: Iterable[Any], source: pd.DataFrame
) -> pd.DataFrame:
    """Add the columns that Groupers with a ``freq`` name, with dates that it takes."""
    columns: dict[Any, pd.Series] = {}
    for grouper in groupers:
        if grouper.key is None:
            continue
        columns[grouper.key] = _as_dates(column(source, grouper.key))
    if not columns:
        return frame
    frame = frame.copy(deep=False)
    for label, values in columns.items():
        frame[label] = values
    return frame


def _as_dates(values: pd.Series) -> pd.Series:
    """Convert dates and times of Arrow to numpy's, which a Grouper's ``freq`` needs."""
    kind = getattr(values.dtype, "pyarrow_dtype", None)
    if kind is None:
        return values
    if not pa.types.is_date(kind) and not pa.types.is_timestamp(kind):
        return values
    zone = getattr(kind, "tz", None)
    moments = values.astype(object).where(values.notna(), None)
    converted: Any = pd.to_datetime(moments, utc=zone is not None)
    dtype = f"datetime64[us, {zone}]" if zone is not None else "datetime64[us]"
    return cast("pd.Series", converted.astype(dtype))


def group_numbers(frame: pd.DataFrame, by: By) -> tuple[pd.Index, IntArray]:
    """Number the groups as ``groupby`` makes them.

    Returns:
        The index of the groups, and the number of each row's group; -1 if it has none.
    """
    rows = np.arange(len(frame), dtype=float)
    positions = pd.DataFrame({POSITION: rows}, index=frame.index)
    groups = grouped(positions, by, frame)[POSITION]
    index = groups.size().index
    occurring = grouped(positions, by, frame, observed=True)
    numbered = occurring.ngroup().to_numpy(dtype=float, na_value=-1.0)
    numbers = numbered.astype(np.int64)
    highest = numbers.max(initial=-1)
    if len(index) == highest + 1:
        return index, numbers
    places = _find_places(groups, numbers)
    if not len(places):
        return index, np.full(len(numbers), -1, dtype=np.int64)
    return index, np.where(numbers < 0, -1, places[numbers])


def _find_places(positions: Any, numbers: IntArray) -> IntArray:
    """Find the place of each group that occurs among all groups, by its first row.

    A look-up by key would fail: a missing key is equal to none.
    """
    first_rows = positions.min().to_numpy()
    occurring = np.flatnonzero(~np.isnan(first_rows))
    rows = first_rows[occurring].astype(np.int64)
    highest = numbers.max(initial=-1)
    places = np.full(highest + 1, -1, dtype=np.int64)
    places[numbers[rows]] = occurring
    return places
