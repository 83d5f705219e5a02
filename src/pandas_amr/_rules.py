"""A plan without a planner: what an English task's words, the columns' names and a finding's types say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, get_args

from pandas_amr._columns import Sort, sort_of
from pandas_amr._plan import Aggregation, Ranking, is_listed
from pandas_amr._schema import record_type

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from pydantic import BaseModel

NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_PART = r"(?:share(?! prices?\b)|per ?cent(?:age)?|proportion|fraction)"
_AMOUNT = r"(?:amount|costs?|due|expenses|hours|price|revenue|sales|spending|sum|turnover|value|weight)"
_UNIT = r"(?:euros?|dollars?|pounds|hours|minutes|days|weeks|kilometres|miles|litres|kilos|tons)"
_MANY = rf"(\d+|{'|'.join(NUMBERS)})"
_MOST = r"most(?! (?:common|frequent|often|popular|mentioned|named|cited)\b)"
_SUPERLATIVE = (  # a list: a guest, a forest and a request end as these do
    rf"(?:{_MOST}|(?!priest\b)\w+iest|best|worst|least|fewest|highest|lowest|largest|smallest|biggest|greatest|longest"
    r"|shortest|oldest|newest|youngest|latest|earliest|cheapest|dearest|poorest|richest|strongest|weakest|harshest"
    r"|loudest|rudest|kindest|nicest|warmest|coldest|hottest|hardest|fastest|slowest|cleanest|clearest|simplest"
    r"|strangest|oddest|safest|closest|nearest|tallest|deepest|brightest|darkest|smartest)"
)

HOW_MANY = re.compile(r"\bhow (?:many|often|frequently)\b|^count\b|\bcount (?:the|all|how|those|them|every|each)\b")
NUMBER_OF = re.compile(r"\bnumber of\b")
SHARE = re.compile(
    rf"\b(?:what|which|in|many) (?:{_PART}\b|%)|\b(?:the|a) {_PART} (?:that|who|with|which)\b|\b{_PART} of\b"
)
SUM = re.compile(
    rf"\b(?:the|in|grand) total\b|\btotal (?:of|{_AMOUNT})\b|\bthe sum\b|\bsum (?:of|the|all|every|each)\b"
    r"|\badd(?:ed)? up (?:the|all|every|each|to)\b"
)
SUMMED_UNITS = re.compile(rf"\bhow many {_UNIT}\b.*\b(?:in total|altogether|in all)\b")
MEAN = re.compile(
    r"\bon average\b|(?:^|\b(?:the|arithmetic|what) )mean\b"
    r"|(?<!above )(?<!below )(?<!than )\baverage\b(?! (?:buyer|client|customer|guest|person|reader|user|visitor)s?\b)"
)
MEDIAN = re.compile(r"\bmedian\b")
RANKED = re.compile(rf"\btop {_MANY}\b|\b{_MANY} {_SUPERLATIVE}\b")
RANK = re.compile(rf"{RANKED.pattern}|^rank\b|\brank (?:the|all|them|these|those|every|each|by)\b")
TOLD = re.compile(  # what is to be written, also of rows that rank first
    r"^(?:what|why|how|where|when) (?:do|does|did|have|has|can|could|should|would|will)\b"
    r"|^(?:compare|describe|discuss|explain|sum up|summari[sz]e)\b"
)
LOWEST = re.compile(r"\b(least|lowest|smallest|cheapest|shortest|fewest)\b")
FIND = re.compile(r"^(which|find|list|show)\b|\bonly (those|the)\b")
GROUPED = (
    r"(?<!made )(?<!said )(?<!sent )(?<!signed )(?<!written )"
    r"\b(?:by|per|for each|for every|in each|in every|of each|of every)\s+(?:the\s+)?{}\b"
    r"(?! (?:of|i|it|he|she|they|we|you)\b)"
)

Wanted = Literal["count", "share", "sum", "mean", "median", "rank", "find"]


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
    words = task.lower().strip()
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
    wanted = _wanted(words)
    by_sort: dict[Sort, dict[Wanted | None, Aggregation]] = {
        "choices": {"share": "share", "count": "value_counts"},
        "bool": {"share": "mean", "count": "sum"},
        "number": {"sum": "sum", "mean": "mean", "median": "median"},
    }
    sorts = {name: sort_of(field.annotation) for name, field in model.model_fields.items()}
    aggregations = {
        name: by_sort[sort][wanted] for name, sort in sorts.items() if sort in by_sort and wanted in by_sort[sort]
    }
    numbers = [name for name, sort in sorts.items() if sort == "number"]
    if numbers and wanted == "rank":
        return {"ranking": _ranking(words, numbers[0])}
    return {"aggregations": aggregations or None}


def _of_words(words: str, taken: set[str]) -> dict[str, Any]:
    """A finding, and what is computed of it, where only the task is known."""
    applies, value, score, reason = (free_name(name, taken) for name in ("applies", "value", "score", "reason"))
    wanted = _wanted(words)
    about = "whether this row is one of those that the task asks for"
    match wanted:
        case "rank":
            far = "how far the row is what the task asks for, from 0 to 100"
            finding = {score: (float, far), reason: (str, "why, in a few words")}
            return {"finding": record_type("Finding", finding), "ranking": _ranking(words, score)}
        case "sum" | "mean" | "median":
            number = "the number that the task asks for, of this row; null where it has none"
            kind = record_type("Finding", {value: (float | None, number)})
            return {"finding": kind, "aggregations": {value: wanted}}
        case "share" | "count":
            counted: Aggregation = "mean" if wanted == "share" else "sum"
            return {"finding": record_type("Finding", {applies: (bool, about)}), "aggregations": {applies: counted}}
        case "find":
            finding = {applies: (bool, about), reason: (str, "what in it says so, in a few words")}
            return {"finding": record_type("Finding", finding), "where": applies}
    return {}


def _wanted(words: str) -> Wanted | None:
    """What a task asks to be computed; None where it is to be written.

    Example:
        >>> [_wanted(task) for task in ("how many complain?", "what share complains?", "sum up what they say.")]
        ['count', 'share', None]
    """
    many = bool(HOW_MANY.search(words))
    if not many and RANK.search(words) and not TOLD.search(words):
        return "rank"
    tried: list[tuple[re.Pattern[str], Wanted]] = [
        (MEDIAN, "median"),
        (MEAN, "mean"),
        (SHARE, "share"),
        (SUMMED_UNITS, "sum"),
        (HOW_MANY, "count"),
        (NUMBER_OF, "count"),
        (SUM, "sum"),
        (FIND, "find"),
    ]
    return next((wanted for pattern, wanted in tried if pattern.search(words)), None)


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
