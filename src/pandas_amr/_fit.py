"""Whether what is asked of a finding's fields fits their types: told before the findings are paid for."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import TYPE_CHECKING, Any, Literal, get_origin

from pandas_amr._schema import choices_of, without_none

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

Sort = Literal["number", "bool", "text", "choices", "date", "nested"]

OF_NUMBERS = frozenset({"mean", "median", "std", "var", "sem", "skew", "kurt", "prod"})
OF_ORDERED = frozenset({"min", "max"})


def sort_of(annotation: Any) -> Sort:
    """What sort of values a field holds.

    Example:
        >>> [sort_of(kind) for kind in (int, bool, str | None, list[str], Literal["a", "b"])]
        ['number', 'bool', 'text', 'nested', 'choices']
    """
    kind, _ = without_none(annotation)
    if choices_of(kind) is not None:
        return "choices"
    if kind is bool:
        return "bool"
    if isinstance(kind, type) and get_origin(kind) is None:
        if issubclass(kind, int | float | decimal.Decimal):
            return "number"
        if issubclass(kind, dt.date | dt.time | dt.timedelta):
            return "date"
        if issubclass(kind, str):
            return "text"
    return "nested"


def misfit(function: Any, annotation: Any) -> str | None:
    """Why a pandas function cannot aggregate a field; None where it can, or where only pandas knows."""
    sort = sort_of(annotation)
    numbers = function in OF_NUMBERS and sort in {"text", "choices", "nested"}
    if isinstance(function, str) and (numbers or (function == "sum" and sort in {"choices", "nested"})):
        return f"{function!r} takes numbers"
    if isinstance(function, str) and function in OF_ORDERED and sort in {"choices", "nested"}:
        return f"{function!r} takes what has an order"
    return None


def number_of(function: Any, annotation: Any) -> type[int | float] | None:
    """The number that a pandas function gives of a field; None where it gives something else.

    Example:
        >>> number_of("sum", int), number_of("mean", bool), number_of("value_counts", str)
        (<class 'int'>, <class 'float'>, None)
    """
    if function in ("count", "nunique"):
        return int
    if sort_of(annotation) not in {"number", "bool"} or function not in ("sum", "min", "max", "mean", "median"):
        return None
    kind, _ = without_none(annotation)
    return int if issubclass(kind, int) and function not in ("mean", "median") else float


def misused(
    types: Mapping[Hashable, Any], *, where: Any = None, ranking: Any = None, by: tuple[Any, ...] = ()
) -> str | None:
    """Why fields cannot choose, rank or group rows; None where they can."""
    if where in types and sort_of(types[where]) != "bool":
        return f"where={where!r} takes a bool of the finding"
    if ranking in types and sort_of(types[ranking]) not in {"number", "date"}:
        return f"ranking by {ranking!r} takes numbers or dates"
    nested = next((one for one in by if one in types and sort_of(types[one]) == "nested"), None)
    return f"by={nested!r} takes single values, not lists" if nested is not None else None
