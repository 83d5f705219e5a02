"""The findings of a unit's pieces, merged into one by the same schema; by rule where a rule can, texts by an agent."""

from __future__ import annotations

import decimal
import json
from collections import Counter
from typing import TYPE_CHECKING, Any, get_origin

from pandas_amr._columns import field_types, is_json_text
from pandas_amr._schema import choices_of, without_none
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import BaseModel


ORDERED = ("first", "last", "min", "max", "mode")
NUMBERS = ("max", "min", "sum", "first", "last", "mode")


def rules_for(kind: Any) -> tuple[str, ...]:
    """The rules by which values of a type can be merged, the default first.

    Example:
        >>> [rules_for(kind)[0] for kind in (bool, int, list[str], str)]
        ['any', 'max', 'union', 'agent']
    """
    kind, _ = without_none(kind)
    if choices_of(kind) is not None:
        return ("mode", "first", "last")
    if get_origin(kind) in {list, set, tuple, frozenset}:
        return ("union", "concat", "first", "last")
    if is_json_text(kind) or not isinstance(kind, type):
        return ("first", "last")
    if issubclass(kind, bool):
        return ("any", "all", *ORDERED)
    if issubclass(kind, str):
        return ("agent", "concat", *ORDERED)
    if issubclass(kind, float):
        return (*NUMBERS, "mean")
    return NUMBERS if issubclass(kind, int | decimal.Decimal) else ("first", "last", *ORDERED)


def rules_of(model: type[BaseModel], given: Mapping[str, str]) -> dict[str, str]:
    """The rule of each field.

    Raises:
        UsageError: a rule is given for what is no field, or does not suit its type.
    """
    kinds = field_types(model)
    for name, rule in given.items():
        if name not in kinds:
            raise UsageError(f"plan={{'merge': ...}} names {name!r}, which is no field of the finding.")
        if rule not in rules_for(kinds[name]):
            raise UsageError(f"{name!r} cannot be merged by {rule!r}; it can by: {', '.join(rules_for(kinds[name]))}.")
    return {name: given.get(name, rules_for(kind)[0]) for name, kind in kinds.items()}


def merge_values(values: Sequence[Any], rule: str) -> Any:
    """One value of the pieces' values, missing ones left aside; None where all are missing.

    Example:
        >>> merge_values(["a", "b", "b", None], "mode"), merge_values([[1, 2], [2, 3]], "union")
        ('b', [1, 2, 3])
    """
    there = [value for value in values if value is not None]
    return _RULES[rule](there) if there else None


def as_given(record: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """A record as Arrow takes it in the form that a model would have given it, so that it can be checked again."""
    given = dict(record)
    for name, kind in field_types(model).items():
        if given[name] is None:
            continue
        if is_json_text(kind):
            given[name] = json.loads(given[name])
        elif get_origin(without_none(kind)[0]) is dict:
            given[name] = dict(given[name])
    return given


def _union(lists: Sequence[Sequence[Any]]) -> list[Any]:
    joined: list[Any] = []
    for item in _concat(lists):
        if item not in joined:
            joined.append(item)
    return joined


def _concat(lists: Sequence[Any]) -> Any:
    return "\n".join(lists) if isinstance(lists[0], str) else [item for part in lists for item in part]


_RULES: dict[str, Callable[[Sequence[Any]], Any]] = {
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
    "min": min,
    "max": max,
    "sum": sum,
    "mean": lambda values: sum(values) / len(values),
    "any": any,
    "all": all,
    "mode": lambda values: Counter(values).most_common(1)[0][0],  # of equally frequent ones the first met
    "union": _union,
    "concat": _concat,
}
