"""Describe why the fields of a plan cannot be used."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pandas_amr._plan.aggregations import SYNONYMS
from pandas_amr._records.keywords import suggest_keyword
from pandas_amr._records.refused import show_refused
from pandas_amr._records.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

CHOICE = re.compile(r"'([^']*)'")
UNION_PARTS = ("literal[", "list[")  # how pydantic begins the name of a part of a union


def describe_problems(
    error: ValidationError, names: Mapping[str, Sequence[str]], kind: str = "Plan"
) -> str:
    """Describe what is wrong with a plan's fields, and suggest the names that may be meant.

    Args:
        error: what pydantic says of the fields.
        names: the fields of the plan (under ``""``), and those of its records, by field.
        kind: the name of the class that has the fields.
    """
    sentences: list[str] = []
    unusable: list[str] = []
    for problem in error.errors(include_url=False):
        if problem["type"] == "extra_forbidden":
            sentences.append(_describe_unknown(problem, names, kind.lower()))
        elif not _is_repeated(problem):
            unusable.append(_describe_value(problem))
    if unusable:
        each_once = " ".join(dict.fromkeys(unusable))
        sentences.append(f"This {kind.lower()} cannot be used: {each_once}")
    return " ".join(sentences)


def _describe_unknown(problem: ErrorDetails, names: Mapping[str, Sequence[str]], kind: str) -> str:
    *parents, name = problem["loc"]
    parent = ".".join(map(str, parents))
    suggestion = suggest_keyword(str(name), list(names[parent]), "The fields are")
    if not parent:
        return f"Unknown {kind} field {name!r}. {suggestion}"
    return f"Unknown field {name!r} of the plan's {parent}. {suggestion}"


def _is_repeated(problem: ErrorDetails) -> bool:
    """Whether another problem says the same of an aggregation: it is a name, or a list of them."""
    if problem["loc"][:1] != ("aggregations",):
        return False
    if isinstance(problem["input"], list):
        return problem["type"] == "literal_error"
    return problem["type"] == "list_type"


def _describe_value(problem: ErrorDetails) -> str:
    parts = [str(part) for part in problem["loc"]]
    if parts[:1] == ["status"]:
        return "status: True, or the names of two columns: ('status', 'reason')."
    message = problem["msg"].removeprefix("Value error, ").removesuffix(".")
    place = ".".join(part for part in parts if not part.startswith(UNION_PARTS))
    if place:
        message = f"{place}: {message}"
    value = problem["input"]
    if problem["type"] == "literal_error" and isinstance(value, str):
        choices = CHOICE.findall(problem["ctx"]["expected"])
        synonyms = SYNONYMS if parts[0] == "aggregations" else None
        suggestion = did_you_mean(value, choices, synonyms=synonyms)
        return f"{message}, not {show_refused(value)}.{suggestion}"
    if message.endswith("?"):
        return message
    return f"{message}."
