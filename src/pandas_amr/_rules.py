"""A plan without a planner: what an English task's words, the columns' names and a finding's types say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, get_args

from pandas_amr._fit import Sort, sort_of
from pandas_amr._plan import Aggregation, Ranking, is_listed
from pandas_amr._schema import record_type

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from pydantic import BaseModel

NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
COUNT = re.compile(r"\bhow many\b|\bnumber of\b|\bcount\b|\bhow often\b|\bfrequen")
SHARE = re.compile(r"\bshare\b|\bper ?cent|%|\bproportion\b|\bfraction\b")
SUM = re.compile(r"\btotal\b|\bsum\b|\badd(ed)? up\b")
MEAN = re.compile(r"\baverage\b|\bmean\b|\bon average\b")
MEDIAN = re.compile(r"\bmedian\b")
_MANY = rf"(\d+|{'|'.join(NUMBERS)})"
RANKED = re.compile(rf"\btop {_MANY}\b|\b{_MANY} (?:most|least|best|worst|\w+est)\b")
RANK = re.compile(rf"{RANKED.pattern}|\brank\b")
LOWEST = re.compile(r"\b(least|lowest|smallest|cheapest|shortest|fewest)\b")
FIND = re.compile(r"^(which|find|list|show)\b|\bonly (those|the)\b")
GROUPED = r"\b(by|per|for each|for every|in each|in every|of each|of every)\s+(the\s+)?{}\b"


def by_words(task: str, columns: Sequence[Hashable], *, finding: Any, open_finding: bool) -> dict[str, Any]:
    """The plan fields that a task's words decide.

    Args:
        task: the sentence.
        columns: the frame's columns: "by shop" groups by a column ``shop``.
        finding: the type of a finding, where it is fixed: counts are then of its choices, sums of its numbers.
        open_finding: whether a type may be chosen: a bool for "how many", a number for "total" and "average".

    Example:
        >>> plan = by_words("How many reviews mention the battery, by shop?", ["text", "shop"],
        ...                 finding=None, open_finding=True)
        >>> plan["by"], plan["aggregations"], list(plan["finding"].model_fields)
        (['shop'], {'applies': 'sum'}, ['applies'])
    """
    words = task.lower()
    fields: dict[str, Any] = {"by": _grouped(words, columns)}
    if finding is not None:
        fields |= _of_types(words, model_of(finding))
    elif open_finding:
        fields |= _of_words(words, {str(name) for name in columns})
    return {name: value for name, value in fields.items() if value is not None}


def _grouped(words: str, columns: Sequence[Hashable]) -> list[Hashable] | None:
    named: list[Hashable] = [
        column
        for column in columns
        if isinstance(column, str) and re.search(GROUPED.format(re.escape(column.lower().replace("_", " "))), words)
    ]
    return named or None


def _of_types(words: str, model: type[BaseModel]) -> dict[str, Any]:
    """What is computed of a finding whose fields are known."""
    aggregations: dict[str, Aggregation] = {}
    for name, field in model.model_fields.items():
        sort = sort_of(field.annotation)
        if sort == "choices":
            wanted: Aggregation | None = (
                "share" if SHARE.search(words) else "value_counts" if COUNT.search(words) else None
            )
        elif sort == "bool":
            wanted = "mean" if SHARE.search(words) else "sum" if COUNT.search(words) else None
        elif sort == "number":
            wanted = _of_numbers(words)
        else:
            wanted = None
        if wanted is not None:
            aggregations[name] = wanted
    numbers = [name for name, field in model.model_fields.items() if sort_of(field.annotation) == "number"]
    if numbers and RANK.search(words) and not aggregations:
        return {"ranking": _ranking(words, numbers[0])}
    return {"aggregations": aggregations or None}


def _of_words(words: str, taken: set[str]) -> dict[str, Any]:
    """A finding, and what is computed of it, where only the task is known."""
    applies, value, score, reason = (free_name(name, taken) for name in ("applies", "value", "score", "reason"))
    if RANK.search(words):
        about = "how far the row is what the task asks for, from 0 to 100"
        finding = {score: (float, about), reason: (str, "why, in a few words")}
        return {"finding": record_type("Finding", finding), "ranking": _ranking(words, score)}
    if (how := _of_numbers(words)) is not None:
        about = "the number that the task asks for, of this row; null where it has none"
        return {"finding": record_type("Finding", {value: (float | None, about)}), "aggregations": {value: how}}
    if SHARE.search(words) or COUNT.search(words):
        about = "whether this row is one of those that the task asks for"
        counted: Aggregation = "mean" if SHARE.search(words) else "sum"
        return {"finding": record_type("Finding", {applies: (bool, about)}), "aggregations": {applies: counted}}
    if FIND.search(words):
        about = "whether this row is one of those that the task asks for"
        finding = {applies: (bool, about), reason: (str, "what in it says so, in a few words")}
        return {"finding": record_type("Finding", finding), "where": applies}
    return {}


def _of_numbers(words: str) -> Aggregation | None:
    if MEDIAN.search(words):
        return "median"
    if MEAN.search(words):
        return "mean"
    return "sum" if SUM.search(words) else None


def _ranking(words: str, field: str) -> Ranking:
    found = RANKED.search(words)
    said = next((one for one in found.groups() if one), "10") if found else "10"
    lowest = bool(LOWEST.search(words)) and field not in {"score", "score_"}  # a score says how far it is the least
    return Ranking(field=field, most=max(1, NUMBERS.get(said) or int(said)), lowest_first=lowest)


def free_name(name: str, taken: set[str]) -> str:
    """``name``, longer where a column has it already."""
    while name in taken:
        name += "_"
    return name


def model_of(finding: Any) -> type[BaseModel]:
    """The model of a finding, or of the items where a unit holds none or many."""
    model: type[BaseModel] = get_args(finding)[0] if is_listed(finding) else finding
    return model


def default_aggregations(finding: type[BaseModel]) -> dict[str, Aggregation]:
    """What pandas can say of each field: counts of choices, means of numbers, the number of texts."""
    return {name: _aggregation_of(field.annotation) for name, field in finding.model_fields.items()}


def _aggregation_of(annotation: Any) -> Aggregation:
    by_sort: dict[Sort, Aggregation] = {"choices": "value_counts", "number": "mean", "bool": "mean"}
    return by_sort.get(sort_of(annotation), "count")
