"""Aggregations: how a call names them, and which of them pandas has.

An aggregation has a name and says ``how`` it is computed: by a function, by the name that pandas
has for one, by a list of these, or by a pair (column, function). An agent may stand for a function.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import pandas as pd

from pandas_amr._agent.agent import Agent
from pandas_amr._records.refused import show_refused
from pandas_amr._records.suggest import did_you_mean
from pandas_amr.errors import UsageError

Aggregation = Literal[
    "count", "sum", "mean", "median", "min", "max", "nunique", "value_counts", "share"
]
# Aggregations by the name of their result: what ``DataFrame.agg`` takes, or named aggregations.
Aggregations: TypeAlias = Mapping[Any, Any]

SHARE = "share"  # this library's word for value_counts(normalize=True)
TABULAR = frozenset({"value_counts", SHARE})
OF_VALUES = frozenset({"value_counts", SHARE, "nunique"})  # of lists: of the values in them
OF_ANY = frozenset({"idxmax", "idxmin", "argmax", "argmin"})  # pandas raises if there is no value

PURE_PACKAGES = frozenset({"builtins", "numpy", "pandas"})  # their functions may be tried

# What is suggested for a name that pandas does not have. It takes more names than these.
SUGGESTED = (*get_args(Aggregation), "std", "var", "first", "last", "any", "all", "size", "mode")
SYNONYMS = {
    "avg": "mean",
    "average": "mean",
    "total": "sum",
    "maximum": "max",
    "minimum": "min",
    "len": "size",
    "length": "size",
    "distinct": "nunique",
    "count_distinct": "nunique",
    "unique": "nunique",
    "frequency": "value_counts",
    "percent": SHARE,
    "percentage": SHARE,
    "proportion": SHARE,
    "stdev": "std",
    "stddev": "std",
}


def is_named(how: object) -> bool:
    """Whether an aggregation names its column: a pair (column, function), or ``pd.NamedAgg``."""
    return (isinstance(how, tuple) and len(how) == 2) or isinstance(how, pd.NamedAgg)


def column_of(name: object, how: object) -> Any:
    """Return the column that is aggregated: the one that is named, or else ``name``."""
    if isinstance(how, tuple) and len(how) == 2:
        return how[0]
    return how.column if isinstance(how, pd.NamedAgg) else name


def columns_of(aggregations: Aggregations) -> list[Any]:
    """Return the columns that are aggregated, in the order of the aggregations."""
    return [column_of(name, how) for name, how in aggregations.items()]


def function_of(how: object) -> Any:
    """Return what aggregates the column: a function, pandas' name of one, a list, an agent."""
    if isinstance(how, tuple) and len(how) == 2:
        return how[1]
    return how.aggfunc if isinstance(how, pd.NamedAgg) else how


def as_list(functions: object) -> list[Any]:
    """Return a list of functions as it is, and a single one as a list."""
    return functions if isinstance(functions, list) else [functions]


def name_of(function: object) -> str:
    """Return the name that pandas gives to a function's column.

    Example:
        >>> name_of("sum"), name_of(len), name_of(functools.partial(max, 3))
        ('sum', 'len', 'max')
    """
    if isinstance(function, functools.partial):
        return name_of(function.func)
    if isinstance(function, str):
        return function
    return str(getattr(function, "__name__", type(function).__name__))


def is_share(function: object) -> bool:
    """Whether an aggregation is the share of each value."""
    return isinstance(function, str) and function == SHARE


def is_tabular(function: object) -> bool:
    """Whether an aggregation of one column gives a table: one entry per value."""
    return isinstance(function, str) and function in TABULAR


def has_table(aggregations: Aggregations) -> bool:
    """Whether one of the aggregations gives a table."""
    functions: list[Any] = []
    for how in aggregations.values():
        functions += as_list(function_of(how))
    return any(map(is_tabular, functions))


def are_read_as_lists(aggregations: Aggregations) -> bool:
    """Whether pandas reads every function as a list of one, since another one is a list."""
    hows = aggregations.values()
    if any(map(is_named, hows)) or has_table(aggregations):
        return False
    return any(isinstance(how, list) for how in hows)


def is_planned(how: object) -> bool:
    """Whether a plan can hold an aggregation: one that ``Aggregation`` names, or a list of such."""
    functions = as_list(how)
    if not all(isinstance(function, str) for function in functions):
        return False
    return set(functions) <= set(get_args(Aggregation))


def check_aggregation(name: object, how: object, *, grouped: bool) -> None:
    """Refuse what pandas would refuse, before the findings that it is to aggregate are paid for.

    Raises:
        UsageError: pandas does not have the function, a list holds one that gives a table, or
            arguments are given to one that does not get them.
    """
    wanted = function_of(how)
    if isinstance(wanted, Agent):
        return
    _check_arguments(name, how)
    for function in as_list(wanted) or [wanted]:
        if not callable(function) and not _is_known(function, grouped=grouped):
            suggestion = _suggest(name, function, grouped=grouped)
            raise UsageError(
                f"reduce[{name!r}] takes what DataFrame.agg takes, such as 'sum' or a function, "
                f"not {show_refused(function)}.{suggestion}"
            )
        if isinstance(wanted, list) and is_tabular(function):
            raise UsageError(
                f"reduce[{name!r}]: {function!r} gives a table, so it cannot stand in a list: "
                f"say {function!r} alone."
            )


def _check_arguments(name: object, how: object) -> None:
    """Refuse arguments in a ``pd.NamedAgg``, which it may hold since pandas 3, of a named function.

    pandas itself calls functions with them only.
    """
    given = [*getattr(how, "args", ()), *getattr(how, "kwargs", ())]
    function = function_of(how)
    module = getattr(function, "__module__", None) or ""
    is_users = callable(function) and module.partition(".")[0] not in PURE_PACKAGES
    if is_named(how) and given and not is_users:
        raise UsageError(
            f"reduce[{name!r}]: the arguments of a pd.NamedAgg reach a function of yours only, and "
            f"not {name_of(function)!r}. Write one, such as (column, lambda values: "
            "values.quantile(0.9))."
        )


def _suggest(name: object, function: object, *, grouped: bool) -> str:
    """Say what may be meant by an aggregation that pandas does not have; empty if nothing may."""
    if _is_known(function, grouped=True):
        return f" {function!r} is one of groups: by=..."
    known = [one for one in SUGGESTED if _is_known(one, grouped=grouped)]
    suggestion = did_you_mean(function, known, synonyms=SYNONYMS)
    if not suggestion and isinstance(function, str) and name in SUGGESTED:
        return f" The column comes first: reduce={{{function!r}: {name!r}}}."
    return suggestion


def _is_known(function: object, *, grouped: bool) -> bool:
    """Whether pandas has an aggregation: a method, or an attribute of a column such as ``size``."""
    if not isinstance(function, str) or function.startswith("_"):
        return False
    if is_share(function) or hasattr(pd.Series, function):
        return True
    return grouped and hasattr(pd.api.typing.SeriesGroupBy, function)
