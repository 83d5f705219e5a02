"""Merge the findings of a unit's pieces into one: by rules, and texts by an agent."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
import json
import operator
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, get_args, get_origin

from pandas_amr._records.suggest import did_you_mean
from pandas_amr._types.arrow import field_types, is_json_text, is_number_union
from pandas_amr._types.arrow_values import json_fields, json_value
from pandas_amr._types.resolve import choices_of, object_fields, without_none
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import UnionType

    from pydantic import BaseModel


Place: TypeAlias = tuple[str, ...]  # of a text in a finding: its field, and the keys within it

ORDERED = ("first", "last", "min", "max", "mode")
NUMBERS = ("max", "min", "sum", "first", "last", "mode")


def list_merge_rules(kind: object) -> tuple[str, ...]:
    """Return the rules that can merge values of a type, the default first.

    Example:
        >>> [list_merge_rules(kind)[0] for kind in (bool, int, list[str], str, dict[str, int])]
        ['any', 'max', 'union', 'agent', 'fields']
    """
    kind, _ = without_none(kind)
    if choices_of(kind) is not None:
        return ("mode", "first", "last")
    origin = get_origin(kind)
    if object_fields(kind) is not None or is_json_text(kind) or origin is dict:
        return ("fields", "first", "last")
    is_tuple_of_any_length = origin is tuple and ... in get_args(kind)
    if origin in {list, set, frozenset} or is_tuple_of_any_length:
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


def choose_merge_rules(model: type[BaseModel], given: Mapping[str, str]) -> dict[str, str]:
    """Return the rule of each field: the one that is given, or the default of its type.

    Raises:
        UsageError: a rule is given for an unknown field, or does not suit the field's type.
    """
    kinds = field_types(model)
    for name, rule in given.items():
        if name not in kinds:
            raise UsageError(
                f"plan={{'merge': ...}} names {name!r}, which is not a field of the finding."
                f"{did_you_mean(name, kinds)}"
            )
        possible = list_merge_rules(kinds[name])
        if rule not in possible:
            raise UsageError(
                f"{name!r} cannot be merged by {rule!r}. Possible rules: {', '.join(possible)}."
            )
    rules: dict[str, str] = {}
    for name, kind in kinds.items():
        default = list_merge_rules(kind)[0]
        rules[name] = given.get(name, default)
    return rules


def merge_values(values: Sequence[Any], rule: str) -> Any:
    """Merge the pieces' values by a rule; missing ones do not count, and all missing gives None.

    Example:
        >>> merge_values(["a", "b", "b", None], "mode"), merge_values([[1, 2], [2, 3]], "union")
        ('b', [1, 2, 3])
    """
    present = [value for value in values if value is not None]
    if not present:
        return None
    merge = _RULES[rule]
    return merge(present)


@dataclass(slots=True)
class MergedRecord:
    """The merged record in its JSON form, and the texts in it that an agent is still to merge.

    Attributes:
        texts: the pieces' texts by their place: the names of the fields, outermost first.
    """

    values: dict[str, Any]
    texts: dict[Place, list[str]] = field(default_factory=dict)

    def put(self, place: Place, text: str) -> None:
        """Put a merged text into its place."""
        holder: Any = self.values
        for name in place[:-1]:
            holder = holder[name]
        holder[place[-1]] = text


def merge_records(
    records: Sequence[Mapping[str, Any]], model: type[BaseModel], rules: Mapping[str, str]
) -> MergedRecord:
    """Merge the pieces' records: each field by its rule, its parts by the default of their type."""
    merged = MergedRecord({})
    for name, alias, kind in json_fields(model):
        values = _take_key(records, name)
        rule, place = rules[name], (alias,)
        merged.values[alias] = _merge_field(values, kind, rule, place, merged)
    return merged


def _merge_field(
    values: list[Any], kind: object, rule: str, place: Place, merged: MergedRecord
) -> Any:
    """Merge a field's values into its JSON form; texts that differ are left to an agent."""
    if not values:
        return None
    if rule == "fields":
        return _merge_objects(values, kind, place, merged)
    if rule == "agent":
        if len(set(values)) > 1:
            merged.texts[place] = values
        return values[0]
    return json_value(merge_values(values, rule), kind)


def _merge_objects(values: list[Any], kind: object, place: Place, merged: MergedRecord) -> Any:
    """Merge objects key by key, the values of each key by the default rule of their type."""
    kind, _ = without_none(kind)
    if is_json_text(kind):
        forms = [json_value(value, kind) for value in values]
        if _are_all(forms, dict):
            return _merge_untyped(forms)
        return forms[0]
    records = [dict(value) for value in values]
    joined: dict[str, Any] = {}
    for name, alias, part in _list_fields(records, kind):
        present = _take_key(records, name)
        default = list_merge_rules(part)[0]
        inner = (*place, alias)
        joined[alias] = _merge_field(present, part, default, inner, merged)
    return joined


def _list_fields(records: list[dict[str, Any]], kind: object) -> Sequence[tuple[str, str, Any]]:
    """Return of each field of an object its name, its name in JSON, and its type."""
    if get_origin(kind) is not dict:
        return json_fields(kind)
    value_kind = get_args(kind)[1]
    return [(key, key, value_kind) for key in _union_of_keys(records)]


def _union_of_keys(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys of all records, each once, in order."""
    keys: dict[str, None] = {}
    for record in records:
        keys.update(dict.fromkeys(record))
    return list(keys)


def _merge_untyped(parts: list[Any]) -> Any:
    """Merge values without a declared type, if they are of one kind; else take the first."""
    if not parts:
        return None
    if _are_all(parts, dict):
        joined: dict[str, Any] = {}
        for key in _union_of_keys(parts):
            present = _take_key(parts, key)
            joined[key] = _merge_untyped(present)
        return joined
    if _are_all(parts, list):
        return _union(parts)
    if _are_all(parts, bool):
        return any(parts)
    are_numbers = _are_all(parts, int | float)
    if are_numbers and not any(isinstance(part, bool) for part in parts):
        return max(parts)
    if _are_all(parts, str):
        distinct = list(dict.fromkeys(parts))
        return _concat(distinct)
    return parts[0]


def _are_all(parts: list[Any], kind: type | UnionType) -> bool:
    return all(isinstance(part, kind) for part in parts)


def _take_key(records: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    return [record[key] for record in records if record.get(key) is not None]


# Rules


def _union(lists: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the items of all lists, each once; in JSON, unlike in Python, true is not 1."""
    joined: dict[str, Any] = {}
    for item in _concat(lists):
        text = json.dumps(item, sort_keys=True, default=str)
        joined.setdefault(text, item)
    return list(joined.values())


def _sum(values: Sequence[Any]) -> Any:
    return sum(values[1:], start=values[0])  # durations cannot be added to 0


def _mean(values: Sequence[Any]) -> Any:
    return sum(values) / len(values)


def _mode(values: Sequence[Any]) -> Any:
    """Return the most frequent value, the first of equally frequent ones."""
    [(value, _)] = Counter(values).most_common(1)
    return value


def _concat(lists: Sequence[Any]) -> Any:
    """Join texts by lines, or lists."""
    if isinstance(lists[0], str):
        return "\n".join(lists)
    return list(itertools.chain.from_iterable(lists))


_RULES: dict[str, Callable[[Sequence[Any]], Any]] = {
    "first": operator.itemgetter(0),
    "last": operator.itemgetter(-1),
    "min": min,
    "max": max,
    "sum": _sum,
    "mean": _mean,
    "any": any,
    "all": all,
    "mode": _mode,
    "union": _union,
    "concat": _concat,
}
