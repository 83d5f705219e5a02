"""What a planner answers: its form, how it is read, and what of it is implausible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import pandas as pd
from pydantic import BaseModel, BeforeValidator, Field

from pandas_amr._plan import Aggregation, Segmentation, View

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_CHOICES = 50
SHARE_COPIED = 0.5  # of a field's choices, from which on they are the sample's and not the planner's
LABEL_CHARACTERS = 20  # a longer choice that equals a cell is a copy of it
LABEL_WORDS = 3  # likewise one of more words
MANY_LABELS = 4  # from so many on, short choices that all equal cells of a free text are copies, too
SAMPLED_ROWS = 10_000

NOTHING = frozenset({"", "null", "none", "nil", "n/a", "-"})  # how models write null in a text
ALWAYS = frozenset({"true", "false", "1", "0", "*", "all"})  # conditions that name no field


def _text_or_none(given: Any) -> Any:
    """Read a text that stands for null as null, and a bare bool or number as its text."""
    if isinstance(given, bool | int | float):
        return str(given).casefold()
    if isinstance(given, str) and given.strip().casefold() in NOTHING:
        return None
    return given


def _list_or_empty(given: Any) -> Any:
    """Read null as an empty list, and leave out texts that stand for null."""
    if given is None:
        return []
    if isinstance(given, list):
        return [one for one in given if _text_or_none(one) is not None]
    return given


def _ranking_or_none(given: Any) -> Any:
    """Read a ranking without a field as none."""
    if isinstance(given, dict) and _text_or_none(given.get("field")) is None:
        return None
    return _text_or_none(given) if isinstance(given, str) else given


Name = Annotated[str | None, BeforeValidator(_text_or_none)]
Names = Annotated[list[str], BeforeValidator(_list_or_empty)]


class PlannedField(BaseModel):
    """One field of a finding, as a planner gives it."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    type: Literal["str", "int", "float", "bool", "date", "list[str]"]
    choices: Annotated[list[str] | None, BeforeValidator(_list_or_empty)]
    description: str


class PlannedAggregation(BaseModel):
    """One computed part of the answer."""

    field: str
    function: Aggregation


class PlannedRanking(BaseModel):
    """The rows that rank first, if they are the answer."""

    field: str
    most: int = Field(default=10, ge=1)
    lowest_first: bool = False


class PlannedFields(BaseModel):
    """The fields of a finding, in an answer that may be no plan otherwise."""

    finding: list[PlannedField]


class PlanAnswer(BaseModel):
    """What a planner answers."""

    map_instruction: str = Field(min_length=1)
    finding: list[PlannedField] = Field(min_length=1)
    many_per_row: bool = False
    many_per_row_why: Name = None
    segmentation: Segmentation = "rows"
    group_columns: Names = []
    shard_size: int = Field(ge=1, le=200)
    parallelism: int = Field(ge=1, le=64)
    where: Name = None
    by: Names = []
    aggregations: Annotated[list[PlannedAggregation], BeforeValidator(_list_or_empty)]
    ranking: Annotated[PlannedRanking | None, BeforeValidator(_ranking_or_none)] = None
    reduce_instruction: Name


class PlanAnswerWithCode(PlanAnswer):
    """What a planner answers where agents can run code."""

    view: View
    shard_size: int = Field(ge=1, le=100_000)


# What would be right, by the part of an answer that cannot be used.
RIGHT: Mapping[str, str] = {
    "map_instruction": "a text: what the reader of one row has to find out of it",
    "finding": (
        'a list of at least one field, such as {"name": "late", "type": "bool", "choices": null, "description": '
        '"whether it came late"}; a name has small letters, digits and _ only'
    ),
    "many_per_row": "false, or true together with many_per_row_why",
    "many_per_row_why": "null, or a text",
    "segmentation": '"rows", "neighbours" or "groups"',
    "group_columns": "[], or names of columns",
    "shard_size": "a whole number from 1 on, such as 10",
    "parallelism": "a whole number from 1 to 64, such as 8",
    "where": "null, or the name of a bool field of the finding",
    "by": "[], or names of columns or fields",
    "aggregations": '[], or a list of such as {"field": "late", "function": "sum"}',
    "ranking": 'null, or such as {"field": "severity", "most": 5, "lowest_first": false}',
    "reduce_instruction": "null, or a text: what is asked of all findings together",
    "view": '"inline" or "preview"',
}


def right_words(parts: Sequence[str]) -> str:
    """Say what would be right for some parts of an answer, each once."""
    told = [f"{part} takes {RIGHT[part]}" for part in dict.fromkeys(parts) if part in RIGHT]
    return "; ".join(told)


def drop_implausible(
    answer: PlanAnswer, frame: pd.DataFrame, columns: Sequence[int], *, last: bool, free: bool
) -> tuple[PlanAnswer, list[str]]:
    """Take what is implausible out of an answer.

    Args:
        answer: what the planner gave.
        frame: the table.
        columns: the positions of its content columns, of which the planner has seen a sample.
        last: whether the planner is not asked again: a condition that names no field is then left out.
        free: whether the user asks for no type of answer.

    Returns:
        The answer without it, and what was taken out, in words that hold none of its own.
    """
    changes: dict[str, Any] = {}
    dropped: list[str] = []
    fields = [_without_poor_choices(field, frame, columns, dropped) for field in answer.finding]
    if fields != answer.finding:
        changes["finding"] = fields
    if answer.many_per_row and answer.many_per_row_why is None and "many_per_row_why" in answer.model_fields_set:
        changes["many_per_row"] = False
        dropped.append("many_per_row (no reason was given: one finding per row)")
    if last and is_always(answer.where) and answer.where not in {field.name for field in answer.finding}:
        changes["where"] = None
        dropped.append("where (it names no field: all rows count)")
    if answer.ranking is not None and answer.aggregations and free and answer.reduce_instruction is None:
        changes["ranking"] = None
        dropped.append("the ranking (the answer is computed, and nobody asked for rows beside it)")
    return answer.model_copy(update=changes), dropped


def is_always(where: str | None) -> bool:
    """Whether a condition is a word for all rows and not a field's name.

    Example:
        >>> is_always("true"), is_always("True"), is_always("late"), is_always(None)
        (True, True, False, False)
    """
    return where is not None and where.strip().casefold() in ALWAYS


def _without_poor_choices(
    field: PlannedField, frame: pd.DataFrame, columns: Sequence[int], dropped: list[str]
) -> PlannedField:
    """A field without its choices if they are too many, or copies of the rows that the planner has seen."""
    if not field.choices:
        return field
    if len(field.choices) > MOST_CHOICES:
        dropped.append(f"the choices of {field.name!r} ({len(field.choices)}, more than {MOST_CHOICES})")
    elif any(_are_copied(field.choices, frame.iloc[:, column]) for column in columns):
        dropped.append(f"the choices of {field.name!r} (they are cells of a column of free text)")
    else:
        return field
    return field.model_copy(update={"choices": []})


def _are_copied(choices: Sequence[str], column: pd.Series) -> bool:
    """Whether choices were copied out of a column of free text: no other row could be given one of them."""
    if not (pd.api.types.is_object_dtype(column.dtype) or pd.api.types.is_string_dtype(column.dtype)):
        return False
    sample = column.iloc[:: max(1, -(-len(column) // SAMPLED_ROWS))].dropna()
    cells = {_normal(cell) for cell in sample.tolist() if isinstance(cell, str)}
    if 2 * len(cells) <= len(sample) and len(cells) <= MOST_CHOICES:
        return False  # its values come again and again: they may well be classes
    copied = [choice for choice in choices if _is_cell(_normal(choice), cells)]
    if len(copied) < SHARE_COPIED * len(choices):
        return False
    if len(copied) == len(choices) >= MANY_LABELS:
        return True
    return any(len(choice) > LABEL_CHARACTERS or len(choice.split()) > LABEL_WORDS for choice in copied)


def _is_cell(choice: str, cells: set[str]) -> bool:
    """Whether a choice is a cell, or the beginning of one that was shown cut."""
    if choice in cells:
        return True
    beginning = choice.rstrip(".… ")
    return beginning != choice and len(beginning) > LABEL_CHARACTERS and any(one.startswith(beginning) for one in cells)


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold()
