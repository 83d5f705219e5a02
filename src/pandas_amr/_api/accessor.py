"""``df.amr``: the verbs, bound to a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Concatenate, Generic, ParamSpec, TypeVar, overload

import pandas as pd

from pandas_amr._api import verbs

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


class _Bound(Generic[P, R]):
    """A verb as a method: the function's own signature and docstring, without the frame."""

    def __init__(self, function: Callable[Concatenate[pd.DataFrame, P], R]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Callable[Concatenate[pd.DataFrame, P], R]: ...
    @overload
    def __get__(self, instance: Accessor, owner: type) -> Callable[P, R]: ...
    def __get__(
        self, instance: Accessor | None, owner: type
    ) -> Callable[P, R] | Callable[Concatenate[pd.DataFrame, P], R]:
        if instance is None:
            return self._function
        bound: Callable[P, R] = self._function.__get__(instance.frame)
        return bound


class Accessor:
    """Agentic map-reduce over rows: ``map_reduce``, ``map``, ``filter``, ``reduce``, ``plan``, ``start``."""

    def __init__(self, frame: pd.DataFrame) -> None:
        # pandas makes an accessor anew at every `df.amr`, and when an editor completes names: nothing happens here.
        self.frame = frame

    start = _Bound(verbs.start)
    map_reduce = _Bound(verbs.map_reduce)
    map = _Bound(verbs.map)
    filter = _Bound(verbs.filter)
    reduce = _Bound(verbs.reduce)
    plan = _Bound(verbs.plan)

    def __repr__(self) -> str:
        return f"<df.amr of {len(self.frame)} rows: start, map_reduce, map, filter, reduce, plan>"


def register() -> None:
    """Make ``df.amr``, once: reloading the package is no reason for a warning."""
    if not hasattr(pd.DataFrame, "amr"):
        pd.api.extensions.register_dataframe_accessor("amr")(Accessor)
