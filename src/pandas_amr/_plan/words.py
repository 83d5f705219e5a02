"""How models spell the parts of a plan: nothing, all rows, a name, a function, a type.

A word is read if it can mean one thing only. A condition that pandas cannot meet, or a function
that it does not have, stays as it is and is sent back.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TRUTHS = frozenset({"true", "false", "yes", "no"})
AROUND = " \t\r\n.,;:!-–—_()[]{}\"'`"  # around a word, without a meaning of its own  # noqa: RUF001
NOTHING = frozenset(
    {"", "null", "none", "nil", "nan", "na", "n/a", "n.a", "no", "undefined", "unset", "not set"}
)
OF_NOTHING = re.compile(
    r"(?:no|none|not|null|empty|without)(?: an?| any| the)? "
    r"(?:applicable|available|needed|required|necessary|used|given|specified|condition|conditions|filter|filters|"
    r"filtering|ranking|grouping|groups|reason|string|list|text|value|instruction|field)"
)
# A condition of these words alone names no field, and holds of every row or of none.
QUANTIFIERS = frozenset(
    {"all", "any", "each", "every", "everything", "always", "true", "false", "yes"}
)
BESIDE_QUANTIFIERS = frozenset(
    {
        "the",
        "of",
        "are",
        "is",
        "where",
        "row",
        "rows",
        "record",
        "records",
        "item",
        "items",
        "entry",
        "entries",
    }
)
CONSTANT = re.compile(r"\*|\d+(?:\s*(?:==?|!=|<>|[<>]=?)\s*\d+)?")
IS_TRUE = re.compile(
    r"(?:where\s+)?(?P<name>.+?)\s*(?:==?|\bis\b|\bequals\b)\s*[\"'`]?true[\"'`]?", re.IGNORECASE
)
IN_WHICH = re.compile(
    r"(?:finding|row|record|df|unit)\.(?=\w)", re.IGNORECASE
)  # before a field's name

FUNCTIONS: Mapping[str, str] = {
    "avg": "mean", "average": "mean", "total": "sum",
    "minimum": "min", "maximum": "max", "n_unique": "nunique",
    "count_distinct": "nunique", "valuecounts": "value_counts",
    "percent": "share", "percentage": "share",
    "proportion": "share",
}  # fmt: skip
TYPES: Mapping[str, str] = {
    "string": "str", "text": "str", "integer": "int",
    "number": "float", "double": "float", "boolean": "bool",
    "list": "list[str]", "array": "list[str]",
    "list[string]": "list[str]", "array[string]": "list[str]",
}  # fmt: skip


def is_nothing(text: str) -> bool:
    """Whether a text stands for null.

    Example:
        >>> texts = ("None.", "[]", "n/a", "not applicable", "no filter", "nothing late")
        >>> [is_nothing(text) for text in texts]
        [True, True, True, True, True, False]
    """
    plain = " ".join(text.strip(f"{AROUND}<>").casefold().split())
    return plain in NOTHING or OF_NOTHING.fullmatch(plain) is not None


def is_always(condition: str | None) -> bool:
    """Tell whether a condition names no field: it speaks of all rows, or is always true.

    Example:
        >>> texts = ("true", "1 = 1", "*", "All rows.", "late", "days > 3", None)
        >>> [is_always(text) for text in texts]
        [True, True, True, True, False, False, False]
    """
    if condition is None or not condition.strip():
        return False
    plain = condition.strip(AROUND).casefold()
    if CONSTANT.fullmatch(plain):
        return True
    words = set(plain.replace("=", " ").split()) - {"1"}
    return bool(words & QUANTIFIERS) and words <= QUANTIFIERS | BESIDE_QUANTIFIERS


def read_text(given: object) -> Any:
    """Read a text that stands for null as null."""
    return None if isinstance(given, str) and is_nothing(given) else given


def read_condition(given: object) -> Any:
    """Read a condition as a field's name: ``late == true`` is ``late``, an empty one None."""
    if isinstance(given, bool | int | float):
        return str(given).casefold()
    if given in ([], {}):
        return None
    if not isinstance(given, str):
        return given
    text = given.strip()
    says_true = IS_TRUE.fullmatch(text)
    name = says_true["name"] if says_true is not None else text
    return name.strip() or None


def read_names(given: object) -> Any:
    """Read null as an empty list, a name as a list of it, and leave out empty names."""
    if given is None or (isinstance(given, str) and is_nothing(given)):
        return []
    if isinstance(given, str):
        return [given]
    return (
        [one for one in given if one is not None and one != ""]
        if isinstance(given, list)
        else given
    )


def read_choices(given: object) -> Any:
    """Read null as no choices, numbers and bools as texts; leave out null and empty texts."""
    if given is None or (isinstance(given, str) and is_nothing(given)):
        return []
    if not isinstance(given, list):
        return given
    there = [one for one in given if one is not None and one != ""]
    return [str(one) if isinstance(one, int | float) else one for one in there]


def read_aggregations(given: object) -> Any:
    """Read null as an empty list, one aggregation as a list; each counts once, empty ones never."""
    if given is None or (isinstance(given, str) and is_nothing(given)):
        return []
    parts = [given] if isinstance(given, dict) and "function" in given else given
    if not isinstance(parts, list):
        return given
    kept: list[Any] = []
    for part in parts:
        is_empty = part is None or (isinstance(part, dict) and not any(part.values()))
        if not is_empty and part not in kept:
            kept.append(part)
    return kept


def read_ranking(given: object) -> Any:
    """Read a ranking without a field, or of no rows, as None; leave out null within it."""
    if not given:
        return None
    if isinstance(given, list) and len(given) == 1:
        return read_ranking(given[0])
    if not isinstance(given, dict):
        return read_text(given)
    parts = {name: part for name, part in given.items() if part is not None}
    most = parts.get("most")
    ranks_none = isinstance(most, int) and most < 1
    return None if ranks_none or not parts.get("field") else parts


def read_function(given: object) -> Any:
    """Read a function by the name that it has here."""
    return _known_word(given, FUNCTIONS)


def read_type(given: object) -> Any:
    """Read a field's type by the name that it has here."""
    return _known_word(given, TYPES)


def read_word(given: object) -> Any:
    """Read a word of a few in whatever case."""
    return _known_word(given, {})


def read_segmentation(given: object) -> Any:
    """Read null as rows that are judged alone."""
    return "rows" if read_text(given) is None else read_word(given)


def read_description(given: object) -> Any:
    """Read null as no description."""
    return "" if given is None else given


def read_flag(given: object) -> Any:
    """Read null as false."""
    return False if given is None else given


def _known_word(given: object, words: Mapping[str, str]) -> Any:
    if not isinstance(given, str):
        return given
    word = given.strip().casefold()
    return words.get(word, word)


def read_field_name(given: object) -> Any:
    """Read a field's name in small letters, its words joined by ``_``."""
    return given.strip().casefold().replace("-", "_") if isinstance(given, str) else given


def match_name(name: str, names: Iterable[str]) -> str:
    """Return the name that a model means if it quotes it or writes it in another case.

    Else its own word.

    Example:
        >>> match_name("`Late`", ["late", "days"]), match_name("row.late", ["late"])
        ('late', 'late')
        >>> match_name("A", ["a", "A", "b"])
        'A'
    """
    known = list(names)
    if name in known:
        return name
    wanted = {_plain_name(name), _plain_name(IN_WHICH.sub("", name, count=1))}
    meant = [one for one in known if _plain_name(one) in wanted]
    return meant[0] if len(meant) == 1 else name


def _plain_name(name: str) -> str:
    return name.strip(" \t\r\n;.\"'`").casefold().replace("-", "_")
