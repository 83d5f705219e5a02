"""``df.groupby(...).amr``: the verbs that answer per group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np
import pandas as pd

from pandas_amr._api import verbs
from pandas_amr._api.options import Options, QuestionOptions, has_options
from pandas_amr._records.counts import counted
from pandas_amr._records.public import refuse_attribute
from pandas_amr._records.tracebacks import user_traceback
from pandas_amr._units.columns import frame_of_series
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from typing import TypeAlias, Unpack

    from pandas_amr._api.options import Kind, Reduce
    from pandas_amr._plan.plan import Plan
    from pandas_amr._result.result import Result
    from pandas_amr._run.run import Run
    from pandas_amr._units.by import By

    AnyGroups: TypeAlias = (
        pd.api.typing.DataFrameGroupBy[Any, Any] | pd.api.typing.SeriesGroupBy[Any, Any]
    )

GROUPED_VERBS = ("start", "map_reduce", "reduce", "plan")
_NO_GROUPS = (
    "{verb} finds something in each row, so that groups change nothing: df.amr.{verb}(...). "
    'Rows are shown together with their group by plan={{"segmentation": "groups", '
    '"group_columns": [...]}}.'
)


class GroupedAccessor:
    """The verbs over groups: ``df.groupby("shop").amr.reduce(...)`` is ``by="shop"``.

    The options of ``groupby`` hold: ``sort``, ``dropna``, ``observed``, ``level``. Columns that are
    selected, as in ``df.groupby("shop")[["text"]]``, are those of ``columns=``.
    """

    def __init__(self, groups: AnyGroups) -> None:
        # pandas makes an accessor at every access, and editors when they complete names.
        self._groups: Any = groups

    @user_traceback
    @has_options(QuestionOptions)
    def start(
        self,
        task: str | None = None,
        *,
        output: Any = None,
        **options: Unpack[QuestionOptions[Kind]],
    ) -> Run[Result[Any, Kind]]:
        """Begin a ``map_reduce`` per group; takes what that takes."""
        run = self._call_grouped(verbs.start, task, output, options)
        return cast("Run[Result[Any, Kind]]", run)

    @user_traceback
    @has_options(QuestionOptions)
    def map_reduce(
        self,
        task: str | None = None,
        *,
        output: Any = None,
        **options: Unpack[QuestionOptions[Kind]],
    ) -> Result[Any, Kind]:
        """Map every row and reduce the findings of each group.

        Takes what ``df.amr.map_reduce`` takes, but ``by``.
        """
        return cast(
            "Result[Any, Kind]", self._call_grouped(verbs.map_reduce, task, output, options)
        )

    @user_traceback
    @has_options(Options)
    def reduce(self, instruction: Reduce, *, output: Any = None, **options: Unpack[Options]) -> Any:
        """Reduce the columns of each group; takes what ``df.amr.reduce`` takes, but ``by``.

        Example:
            >>> import pandas as pd, pandas_amr as amr
            >>> df = pd.DataFrame({"shop": ["a", "a", "b"], "stars": [5, 3, 4]})
            >>> df.groupby("shop").amr.reduce({"stars": "mean"})
                  stars
            shop
            a       4.0
            b       4.0
        """
        return self._call_grouped(verbs.reduce, instruction, output, options)

    @user_traceback
    @has_options(QuestionOptions)
    def plan(
        self, task: str | None = None, *, output: Any = None, **options: Unpack[QuestionOptions]
    ) -> Plan:
        """Derive the plan of a ``map_reduce`` per group; takes what that takes."""
        return cast("Plan", self._call_grouped(verbs.plan, task, output, options))

    @user_traceback
    def map(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse to map: that is about rows, and not about groups."""
        raise UsageError(_NO_GROUPS.format(verb="map"))

    @user_traceback
    def filter(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse to filter: that is about rows, and not about groups."""
        raise UsageError(_NO_GROUPS.format(verb="filter"))

    def _call_grouped(
        self, verb: Callable[..., Any], first: Any, output: Any, options: Mapping[str, Any]
    ) -> Any:
        """Call a verb on the grouped frame.

        Raises:
            UsageError: the call names groups or columns again, or these groups cannot be had.
        """
        if "by" in options:
            raise UsageError("The groups are those of groupby(...): leave out by=.")
        call = read_groups(self._groups)
        given = dict(options)
        if call.columns is not None:
            if "columns" in options:
                raise UsageError("The columns are those selected of groupby(...): leave out one.")
            given["columns"] = call.columns
        return verb(call.frame, first, output=output, by=call.by, **given)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Refuse a verb that does not exist, and suggest one."""
            refuse_attribute("groups.amr", name, () if name.startswith("_") else GROUPED_VERBS)

    def __repr__(self) -> str:
        return (
            f"<groups.amr of {counted(len(self._groups.obj), 'row')}: {', '.join(GROUPED_VERBS)}>"
        )


@dataclass(frozen=True)
class _GroupedCall:
    """What a verb is called with: a frame, its groups, and the columns that were selected."""

    frame: pd.DataFrame
    by: By
    columns: list[Hashable] | None


def read_groups(groups: Any) -> _GroupedCall:
    """Read what ``groupby`` was given: the frame, the keys, the options, the selected columns.

    Raises:
        UsageError: the verbs do not group so.
    """
    from pandas_amr._units.by import By  # noqa: PLC0415 (it loads pyarrow)

    if getattr(groups, "axis", 0) != 0:
        raise UsageError("groupby(axis=1) groups columns; the verbs group rows.")
    if not groups.as_index:
        raise UsageError(
            "groupby(as_index=False) is not known here: the groups are the index of an answer. "
            "Leave it out, and call reset_index() on the answer."
        )
    frame, columns = groups.obj, None
    if isinstance(frame, pd.Series):
        frame = frame_of_series(frame)
    else:
        selected = groups.head(0).columns  # without a selection, all
        if not selected.equals(frame.columns):
            columns = selected.tolist()
    options = {"sort": groups.sort, "dropna": groups.dropna, "observed": groups.observed}
    return _GroupedCall(frame, By(*_list_keys(groups), **options), columns)


def _list_keys(groups: Any) -> list[Any]:
    """List the keys as ``by=`` takes them.

    Raises:
        UsageError: a Grouper is of a column that the grouped Series no longer has.
    """
    index, keys = groups.obj.index, groups.keys
    if keys is None:
        levels = groups.level if isinstance(groups.level, list | tuple) else [groups.level]
        return [_level_key(groups, level) for level in levels]
    if not isinstance(keys, list):
        keys = [keys]
    if _are_values(keys, groups):
        return [pd.Series(keys, index=index)]
    return [_read_key(key, groups, number) for number, key in enumerate(keys)]


def _are_values(keys: list[Any], groups: Any) -> bool:
    """Tell whether a list is one key with a value per row, and not a list of keys, as pandas does.

    A Series that was selected of a frame's groups does not have the labels any more.
    """
    if len(keys) != len(groups.obj) or not all(map(pd.api.types.is_scalar, keys)):
        return False
    if isinstance(groups.obj, pd.Series):
        return len(keys) > 1 and groups.size().index.nlevels == 1
    return not all(_names_key(key, groups.obj) for key in keys)


def _names_key(key: Any, grouped: Any) -> bool:
    """Tell whether a key is the label of a column or the name of an index level."""
    if not pd.api.types.is_hashable(key):
        return False
    if key in grouped.index.names:
        return True
    return isinstance(grouped, pd.DataFrame) and key in grouped.columns


def _level_key(groups: Any, level: Any) -> Any:
    """Return the key for a level of the index: its name, or its values if that is not clear."""
    index = groups.obj.index
    values = index.get_level_values(level)
    columns = [] if isinstance(groups.obj, pd.Series) else groups.obj.columns
    if values.name is not None and values.name not in columns:
        return values.name
    return pd.Series(values, index=index, name=values.name)


def _read_key(key: Any, groups: Any, number: int) -> Any:
    index = groups.obj.index
    if isinstance(key, pd.Grouper):
        if key.key is not None and isinstance(groups.obj, pd.Series):
            raise UsageError(
                "A Series that was selected of groups has no column for their Grouper: "
                "select a list of columns, df.groupby(...)[[column]].amr."
            )
        return key
    if _names_key(key, groups.obj):
        return key
    if isinstance(key, pd.Series):
        return key if key.index.equals(index) else key.reindex(index)
    if isinstance(key, list):
        return pd.Series(key, index=index)
    if callable(key) or not pd.api.types.is_hashable(key):
        return key
    return _values_of_key(groups, number)


def _values_of_key(groups: Any, number: int) -> pd.Series:
    """Return the key of each row: that of a Series from the groups of a frame, which it left."""
    index = groups.size().index
    level = index.get_level_values(number)
    values = np.full(len(groups.obj), None, dtype=object)
    for group, positions in groups.indices.items():
        value = group[number] if index.nlevels > 1 else group
        for position in positions:
            values[position] = value
    key = pd.Series(values, index=groups.obj.index, name=level.name, dtype=object)
    is_plain = isinstance(level.dtype, np.dtype) and level.dtype.kind in "biu"
    if is_plain and key.isna().any():  # numpy's bools and whole numbers have no missing value
        return key
    return key.astype(level.dtype)
