"""The findings of a unit's pieces, merged into one by the same schema; by rule where a rule can, texts by an agent."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import TYPE_CHECKING, Any, get_origin

from pandas_amr._columns import field_types, is_json_text
from pandas_amr._schema import choices_of, without_none
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import BaseModel


def default_rule(kind: Any) -> str:
    """How values of a type are merged where the plan does not say.

    Example:
        >>> [default_rule(kind) for kind in (bool, int, list[str], str)]
        ['any', 'max', 'union', 'agent']
    """
    kind, _ = without_none(kind)
    if choices_of(kind) is not None:
        return "mode"
    if get_origin(kind) in {list, set, tuple, frozenset}:
        return "union"
    if kind is bool:
        return "any"
    if kind is str:
        return "agent"
    if is_json_text(kind) or not isinstance(kind, type) or issubclass(kind, dt.date | dt.time):
        return "first"
    return "max" if issubclass(kind, int | float) or kind.__name__ == "Decimal" else "first"


def rules_of(model: type[BaseModel], given: Mapping[str, str]) -> dict[str, str]:
    """The rule of each field.

    Raises:
        UsageError: a rule is given for what is no field.
    """
    unknown = sorted(given.keys() - model.model_fields.keys())
    if unknown:
        raise UsageError(f"plan={{'merge': ...}} names {unknown[0]!r}, which is no field of the finding.")
    return {name: given.get(name) or default_rule(kind) for name, kind in field_types(model).items()}


def merge_values(values: Sequence[Any], rule: str) -> Any:
    """One value of the pieces' values, missing ones left aside; None where all are missing.

    Example:
        >>> merge_values(["a", "b", "b", None], "mode"), merge_values([[1, 2], [2, 3]], "union")
        ('b', [1, 2, 3])
    """
    there = [value for value in values if value is not None]
    return _RULES[rule](there) if there else None


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
