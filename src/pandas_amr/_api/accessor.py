"""``df.amr``, ``series.amr``, ``df.groupby(...).amr``: the verbs, bound to what they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

import pandas as pd

from pandas_amr._api import verbs
from pandas_amr._api.grouped import GroupedAccessor
from pandas_amr._records.counts import counted
from pandas_amr._records.public import refuse_attribute
from pandas_amr._units.columns import frame_of_series

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack

    from pandas_amr._api.grouped import AnyGroups
    from pandas_amr._api.options import Groups, Kind, QuestionOptions
    from pandas_amr._result.result import Result
    from pandas_amr._run.run import Run
    from pandas_amr._units.frames import Frame

P = ParamSpec("P")
R = TypeVar("R")
GROUPED = (pd.api.typing.DataFrameGroupBy, pd.api.typing.SeriesGroupBy)
VERBS = ("start", "map_reduce", "map", "filter", "reduce", "plan")


class _Bound(Generic[P, R]):
    """A verb as a method: the function's own signature and docstring, without the frame."""

    def __init__(self, function: Callable[Concatenate[Frame, P], R]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Callable[Concatenate[Frame, P], R]: ...
    @overload
    def __get__(self, instance: Accessor, owner: type) -> Callable[P, R]: ...
    def __get__(
        self, instance: Accessor | None, owner: type
    ) -> Callable[P, R] | Callable[Concatenate[Frame, P], R]:
        if instance is None:
            return self._function
        bound: Callable[P, R] = self._function.__get__(instance.frame)
        return bound


class Accessor:
    """Agentic map-reduce over rows: ``start map_reduce map filter reduce plan``.

    Type checkers cannot see what ``df.amr`` is; ``amr.accessor(df)`` is the same object with its
    type, and the functions ``amr.map_reduce(df, ...)`` have theirs.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        # pandas makes an accessor at every `df.amr`, and editors when they complete names.
        self.frame = frame

    # The functions have overloads, of which a bound one would show the first alone.
    if TYPE_CHECKING:

        def start(
            self,
            task: str | None = None,
            *,
            output: Any = None,
            by: Groups = None,
            **options: Unpack[QuestionOptions[Kind]],
        ) -> Run[Result[Any, Kind]]:
            """Begin a ``map_reduce``."""
            ...

        def map_reduce(
            self,
            task: str | None = None,
            *,
            output: Any = None,
            by: Groups = None,
            **options: Unpack[QuestionOptions[Kind]],
        ) -> Result[Any, Kind]:
            """Map every row and reduce the findings."""
            ...
    else:
        start = _Bound(verbs.start)
        map_reduce = _Bound(verbs.map_reduce)

        def __getattr__(self, name: str) -> Any:
            """Refuse a verb that does not exist, and suggest one."""
            refuse_attribute("df.amr", name, () if name.startswith("_") else VERBS)

    map = _Bound(verbs.map)
    filter = _Bound(verbs.filter)
    reduce = _Bound(verbs.reduce)
    plan = _Bound(verbs.plan)

    def __repr__(self) -> str:
        return f"<df.amr of {counted(len(self.frame), 'row')}: {', '.join(VERBS)}>"


class SeriesAccessor(Accessor):
    """The verbs over one column: its values are the units.

    What a verb gives is what it gives for a frame of this column; a Series without a name is the
    column ``value``.
    """

    def __init__(self, series: pd.Series) -> None:
        super().__init__(frame_of_series(series))

    def __repr__(self) -> str:
        return f"<series.amr of {counted(len(self.frame), 'row')}: {', '.join(VERBS)}>"


@overload
def accessor(data: AnyGroups) -> GroupedAccessor: ...
@overload
def accessor(data: Frame) -> Accessor: ...
def accessor(data: Frame | AnyGroups) -> Accessor | GroupedAccessor:
    """Return ``data.amr`` with its type, for type checkers and editors.

    Data that pandas does not know, such as a frame of Polars, get the verbs so, too.

    Example:
        >>> import pandas as pd, pandas_amr as amr
        >>> amr.accessor(pd.DataFrame({"text": ["good", "bad"]}))
        <df.amr of 2 rows: start, map_reduce, map, filter, reduce, plan>
    """
    if isinstance(data, GROUPED):
        return GroupedAccessor(data)
    if isinstance(data, pd.DataFrame):
        return Accessor(data)
    if isinstance(data, pd.Series):
        return SeriesAccessor(data)
    from pandas_amr._units.frames import as_frame  # noqa: PLC0415 (it loads pyarrow)

    return Accessor(as_frame(data))


def register() -> None:
    """Make ``amr`` of frames, Series and groups, once: reloading the package does not warn."""
    if not hasattr(pd.DataFrame, "amr"):
        pd.api.extensions.register_dataframe_accessor("amr")(Accessor)
    if not hasattr(pd.Series, "amr"):
        pd.api.extensions.register_series_accessor("amr")(SeriesAccessor)
    for kind in GROUPED:
        if not hasattr(kind, "amr"):  # pandas registers none of groups
            setattr(kind, "amr", property(GroupedAccessor, doc=GroupedAccessor.__doc__))  # noqa: B010
