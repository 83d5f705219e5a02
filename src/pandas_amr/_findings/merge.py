"""The findings of a unit's pieces, merged into one by the same schema; by rule where a rule can, texts by an agent."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pandas_amr._types.arrow import field_types, is_json_text, is_number_union
from pandas_amr._types.arrow_values import as_said, said_fields
from pandas_amr._types.resolve import choices_of, object_fields, without_none
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import BaseModel


ORDERED = ("first", "last", "min", "max", "mode")
NUMBERS = ("max", "min", "sum", "first", "last", "mode")


def rules_for(kind: Any) -> tuple[str, ...]:
    """The rules by which values of a type can be merged, the default first.

    Example:
        >>> [rules_for(kind)[0] for kind in (bool, int, list[str], str, dict[str, int])]
        ['any', 'max', 'union', 'agent', 'fields']
    """
    kind, _ = without_none(kind)
    if choices_of(kind) is not None:
        return ("mode", "first", "last")
    if object_fields(kind) is not None or is_json_text(kind) or get_origin(kind) is dict:
        return ("fields", "first", "last")
    if get_origin(kind) in {list, set, frozenset} or (
        get_origin(kind) is tuple and ... in get_args(kind)
    ):
        return ("union", "concat", "first", "last")
    if is_number_union(kind):
        return (*NUMBERS, "mean")
    if not isinstance(kind, type):
        return ("first", "last")
    return _rules_for_scalar(kind)


def _rules_for_scalar(kind: type) -> tuple[str, ...]:
    if issubclass(kind, bool):
        return ("any", "all", *ORDERED)
    if issubclass(kind, str):
        return ("agent", "concat", *ORDERED)
    if issubclass(kind, float):
        return (*NUMBERS, "mean")
    if issubclass(kind, int | decimal.Decimal | dt.timedelta):
        return NUMBERS
    return ("first", "last", *ORDERED)


def rules_of(model: type[BaseModel], given: Mapping[str, str]) -> dict[str, str]:
    """The rule of each field.

    Raises:
        UsageError: a rule is given for what is no field, or does not suit its type.
    """
    kinds = field_types(model)
    for name, rule in given.items():
        if name not in kinds:
            raise UsageError(
                f"plan={{'merge': ...}} names {name!r}, which is no field of the finding."
            )
        if rule not in rules_for(kinds[name]):
            raise UsageError(
                f"{name!r} cannot be merged by {rule!r}; it can by: {', '.join(rules_for(kinds[name]))}."
            )
    return {name: given.get(name, rules_for(kind)[0]) for name, kind in kinds.items()}


def merge_values(values: Sequence[Any], rule: str) -> Any:
    """One value of the pieces' values, missing ones left aside; None where all are missing.

    Example:
        >>> merge_values(["a", "b", "b", None], "mode"), merge_values([[1, 2], [2, 3]], "union")
        ('b', [1, 2, 3])
    """
    there = [value for value in values if value is not None]
    return _RULES[rule](there) if there else None


@dataclass(slots=True)
class MergedRecord:
    """One record of the pieces', as Arrow holds it, and the texts in it that an agent is still to merge.

    Attributes:
        texts: where each text stands (what the fields are asked as, outermost first), and what the pieces say there.
    """

    values: dict[str, Any]
    texts: dict[tuple[str, ...], list[str]] = field(default_factory=dict)

    def put(self, place: tuple[str, ...], text: str) -> None:
        """Put a merged text into its place."""
        holder: Any = self.values
        for name in place[:-1]:
            holder = holder[name]
        holder[place[-1]] = text


def merge_records(
    records: Sequence[Mapping[str, Any]], model: type[BaseModel], rules: Mapping[str, str]
) -> MergedRecord:
    """Merge the pieces' records, in the JSON form of each: by the fields' rules, and inside of them by their types'."""
    merged = MergedRecord({})
    for name, alias, kind in said_fields(model):
        values = [record[name] for record in records if record[name] is not None]
        merged.values[alias] = _merge_field(values, kind, rules[name], (alias,), merged)
    return merged


def _merge_field(
    values: list[Any], kind: Any, rule: str, place: tuple[str, ...], merged: MergedRecord
) -> Any:
    """One value of a field's, in JSON form; a text that the pieces write differently is left to an agent."""
    if not values:
        return None
    if rule == "fields":
        return _merge_objects(values, kind, place, merged)
    if rule == "agent":
        if len(set(values)) > 1:
            merged.texts[place] = values
        return values[0]
    return as_said(merge_values(values, rule), kind)


def _merge_objects(
    values: list[Any], kind: Any, place: tuple[str, ...], merged: MergedRecord
) -> Any:
    """Objects key by key, each key's values by the default rule of their type."""
    kind, _ = without_none(kind)
    if is_json_text(kind):
        said = [as_said(value, kind) for value in values]
        return _merge_free(said) if all(isinstance(one, dict) for one in said) else said[0]
    held = [dict(value) for value in values]
    if get_origin(kind) is dict:
        inner = get_args(kind)[1]
        parts = tuple(
            (key, key, inner) for key in dict.fromkeys(key for one in held for key in one)
        )
    else:
        parts = said_fields(kind)
    joined: dict[str, Any] = {}
    for name, alias, part in parts:
        there = [one[name] for one in held if one.get(name) is not None]
        joined[alias] = _merge_field(there, part, rules_for(part)[0], (*place, alias), merged)
    return joined


def _merge_free(parts: list[Any]) -> Any:
    """One value of several of no declared type: by what they are, the first if they are not all alike."""
    if not parts:
        return None
    if all(isinstance(one, dict) for one in parts):
        keys = dict.fromkeys(key for one in parts for key in one)
        return {
            key: _merge_free([one[key] for one in parts if one.get(key) is not None])
            for key in keys
        }
    if all(isinstance(one, list) for one in parts):
        return _union(parts)
    if all(isinstance(one, bool) for one in parts):
        return any(parts)
    if all(isinstance(one, int | float) and not isinstance(one, bool) for one in parts):
        return max(parts)
    if all(isinstance(one, str) for one in parts):
        return _concat(list(dict.fromkeys(parts)))
    return parts[0]


def _union(lists: Sequence[Sequence[Any]]) -> list[Any]:
    """The items of all lists, each once; to JSON, unlike Python, true is not 1."""
    joined: dict[str, Any] = {}
    for item in _concat(lists):
        joined.setdefault(json.dumps(item, sort_keys=True, default=str), item)
    return list(joined.values())


def _sum(values: Sequence[Any]) -> Any:
    return sum(values[1:], start=values[0])  # durations cannot be added to 0


def _concat(lists: Sequence[Any]) -> Any:
    return (
        "\n".join(lists) if isinstance(lists[0], str) else [item for part in lists for item in part]
    )


_RULES: dict[str, Callable[[Sequence[Any]], Any]] = {
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
    "min": min,
    "max": max,
    "sum": _sum,
    "mean": lambda values: sum(values) / len(values),
    "any": any,
    "all": all,
    "mode": lambda values: Counter(values).most_common(1)[0][
        0
    ],  # of equally frequent ones the first met
    "union": _union,
    "concat": _concat,
}
