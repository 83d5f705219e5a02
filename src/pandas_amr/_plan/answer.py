"""A planner's answer: its form, how it is read, and which parts of it are implausible."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pandas as pd
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from pandas_amr._plan.aggregations import Aggregation
from pandas_amr._plan.plan import View
from pandas_amr._plan.words import (
    TRUTHS,
    is_always,
    is_nothing,
    match_name,
    read_aggregations,
    read_choices,
    read_condition,
    read_description,
    read_field_name,
    read_flag,
    read_function,
    read_names,
    read_ranking,
    read_segmentation,
    read_text,
    read_type,
    read_word,
)
from pandas_amr._units.neighbours import Segmentation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_CHOICES = 50
MOST_INLINE = 200  # rows of a shard
MOST_WITH_CODE = 100_000
MOST_AT_ONCE = 64
SAMPLED_ROWS = 10_000

# When a field's choices are copies of cells. A choice may equal a cell by chance, if it is short.
SHARE_COPIED = 0.5  # of the choices: fewer equal ones are chance
LABEL_CHARACTERS = 20  # a longer choice that equals a cell is a copy
LABEL_WORDS = 3  # likewise a choice of more words
MANY_LABELS = 4  # so many choices, all equal to cells, are copies even if they are short

# Keys beside those of a part of an answer that change nothing of it.
SAYS_NOTHING = frozenset(
    {"name", "alias", "as", "label", "title", "description", "why", "reason", "explanation"}
)
# Keys of other languages of queries, and the parts of a plan that they mean.
MISNAMED: Mapping[str, str] = {
    "filter": "where",
    "filters": "where",
    "condition": "where",
    "having": "where",
    "group_by": "by",
    "groupby": "by",
    "groups": "by",
    "order_by": "ranking",
    "sort_by": "ranking",
    "sort": "ranking",
    "limit": "ranking",
    "top": "ranking",
}

Text = Annotated[str | None, BeforeValidator(read_text)]
Names = Annotated[list[str], BeforeValidator(read_names)]


class PlannedField(BaseModel):
    """One field of a finding, as a planner gives it."""

    name: Annotated[str, BeforeValidator(read_field_name)] = Field(pattern=r"^[a-z][a-z0-9_]*$")
    type: Annotated[
        Literal["str", "int", "float", "bool", "date", "list[str]"], BeforeValidator(read_type)
    ]
    choices: Annotated[list[str] | None, BeforeValidator(read_choices)] = None
    description: Annotated[str, BeforeValidator(read_description)] = ""


class _Part(BaseModel):
    """A part of an answer that has no further keys: one may be a condition, or an order."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_further_keys(cls, given: object) -> object:
        if isinstance(given, dict):
            further = given.keys() - cls.model_fields.keys() - SAYS_NOTHING
            if any(given[key] for key in further):
                keys = " and ".join(cls.model_fields)
                raise ValueError(f"takes {keys} only, and no condition or order beside them")
        return given


class PlannedAggregation(_Part):
    """One computed part of the answer."""

    field: str
    function: Annotated[Aggregation, BeforeValidator(read_function)]


class PlannedRanking(_Part):
    """The rows that rank first, if they are the answer."""

    field: str
    most: int = Field(default=10, ge=1)
    lowest_first: bool = False


class PlannedFields(BaseModel):
    """The fields of a finding, in an answer that may not be a plan otherwise."""

    finding: list[PlannedField]


def _check_says_something(instruction: str) -> str:
    if is_nothing(instruction):
        raise ValueError("an instruction is missing")
    return instruction


class PlanAnswer(BaseModel):
    """What a planner answers."""

    map_instruction: Annotated[str, AfterValidator(_check_says_something)] = Field(min_length=1)
    finding: list[PlannedField] = Field(min_length=1)
    many_per_row: Annotated[bool, BeforeValidator(read_flag)] = False
    many_per_row_why: Text = None
    segmentation: Annotated[Segmentation, BeforeValidator(read_segmentation)] = "rows"
    group_columns: Names = []
    shard_size: Annotated[int, Field(ge=1, le=MOST_INLINE)] | None
    parallelism: Annotated[int, Field(ge=1, le=MOST_AT_ONCE)] | None
    where: Annotated[str | None, BeforeValidator(read_condition)] = None
    by: Names = []
    aggregations: Annotated[list[PlannedAggregation], BeforeValidator(read_aggregations)]
    ranking: Annotated[PlannedRanking | None, BeforeValidator(read_ranking)] = None
    reduce_instruction: Text

    @model_validator(mode="before")
    @classmethod
    def _refuse_misnamed_parts(cls, given: object) -> object:
        """Refuse a key that means one of the parts: without it another question is answered."""
        if isinstance(given, dict):
            for key, part in MISNAMED.items():
                if given.get(key):
                    raise ValueError(f"a plan has no {key!r}; {part} takes {RIGHT[part]}")
        return given


class PlanAnswerWithCode(PlanAnswer):
    """What a planner answers if the agents can run code."""

    view: Annotated[View, BeforeValidator(read_word)]
    shard_size: Annotated[int, Field(ge=1, le=MOST_WITH_CODE)] | None


# What would be right, by the part of an answer that cannot be used.
RIGHT: Mapping[str, str] = {
    "map_instruction": "a text: what the reader of one row has to find out of it",
    "finding": (
        'a list of at least one field, such as {"name": "late", "type": "bool", "choices": null, '
        '"description": "whether it came late"}; a name has small letters, digits and _ only'
    ),
    "many_per_row": "false, or true together with many_per_row_why",
    "many_per_row_why": "null, or a text",
    "segmentation": '"rows", "neighbours" or "groups"',
    "group_columns": "[], or names of columns",
    "shard_size": (
        "a whole number from 1 on, such as 10, "
        f"and at most {MOST_INLINE} of rows that are read one by one"
    ),
    "parallelism": f"a whole number from 1 to {MOST_AT_ONCE}, such as 8",
    "where": "null, or the name of a bool field of the finding",
    "by": "[], or names of columns or fields",
    "aggregations": '[], or a list of such as {"field": "late", "function": "sum"}',
    "ranking": 'null, or such as {"field": "severity", "most": 5, "lowest_first": false}',
    "reduce_instruction": "null, or a text: what is asked of all findings together",
    "view": '"inline" or "preview"',
}


def describe_right_parts(parts: Sequence[str]) -> str:
    """Say what would be right for some parts of an answer, each once."""
    unusable = [part for part in dict.fromkeys(parts) if part in RIGHT]
    return "; ".join(f"{part} takes {RIGHT[part]}" for part in unusable)


@dataclass(frozen=True)
class PlanningContext:
    """What the planner was asked, by which its answer is judged.

    Attributes:
        frame: the table.
        columns: the positions of the content columns, of which the planner has seen a sample.
        names: what the answer may name beside the fields that it plans: columns, and fields that
            the user gave.
        free: whether the user left the type of the answer open.
        number: whether the type that the user asks for is one number.
        last: whether the planner will not be asked again. A condition that names no field is then
            left out.
    """

    frame: pd.DataFrame
    columns: Sequence[int]
    names: frozenset[str]
    free: bool
    number: bool
    last: bool


def drop_implausible(answer: PlanAnswer, context: PlanningContext) -> tuple[PlanAnswer, list[str]]:
    """Take the implausible parts out of an answer.

    Returns:
        The rest of the answer, and a description of each part that was taken out. Of the answer's
        texts the descriptions hold only names of fields, since others may be copies of cells.
    """
    fields = [field.name for field in answer.finding]
    named = context.names.union(fields)
    answer = _with_known_names(answer, fields, named)
    answer = _without_words_for_nothing(answer, named)
    dropped: list[str] = []
    finding = [_with_own_choices(field, context, dropped) for field in answer.finding]
    changes: dict[str, Any] = {"finding": finding}
    if _is_many_without_reason(answer):
        changes["many_per_row"] = False
        dropped.append("many_per_row (no reason was given: one finding per row)")
    if context.last and answer.where not in named and is_always(answer.where):
        changes["where"] = None
        dropped.append("where (it names no field: all rows count)")
    # One number is no rows; it was sent back once.
    is_number = context.number and context.last
    if _is_ranked_beside(answer) and (context.free or is_number):
        changes["ranking"] = None
        dropped.append("the ranking (the answer is computed, and nobody asked for rows beside it)")
    return answer.model_copy(update=changes), dropped


def _is_many_without_reason(answer: PlanAnswer) -> bool:
    """Whether an answer plans many findings per row, and gives no reason, though it was asked."""
    was_asked = "many_per_row_why" in answer.model_fields_set
    return answer.many_per_row and was_asked and answer.many_per_row_why is None


def _is_ranked_beside(answer: PlanAnswer) -> bool:
    """Whether an answer both computes and ranks, and no instruction joins the two."""
    if answer.ranking is None or not answer.aggregations:
        return False
    return answer.reduce_instruction is None


def _with_known_names(
    answer: PlanAnswer, fields: Sequence[str], named: frozenset[str]
) -> PlanAnswer:
    """An answer that writes the names of fields and columns as they are."""

    def spell_as_known(name: str) -> str:
        return match_name(match_name(name, fields), sorted(named))

    aggregations: list[PlannedAggregation] = []
    for part in answer.aggregations:
        field = spell_as_known(part.field)
        aggregations.append(part.model_copy(update={"field": field}))
    changes: dict[str, Any] = {
        "aggregations": aggregations,
        "by": [spell_as_known(name) for name in answer.by],
        "group_columns": [spell_as_known(name) for name in answer.group_columns],
    }
    if answer.where is not None:
        changes["where"] = spell_as_known(answer.where)
    if answer.ranking is not None:
        field = spell_as_known(answer.ranking.field)
        changes["ranking"] = answer.ranking.model_copy(update={"field": field})
    return answer.model_copy(update=changes)


def _without_words_for_nothing(answer: PlanAnswer, named: frozenset[str]) -> PlanAnswer:
    """Take out texts such as ``none`` in place of a name, unless something has that name."""
    by: list[str] = []
    for name in answer.by:
        if name in named or not (is_nothing(name) or is_always(name)):
            by.append(name)
    group_columns = [name for name in answer.group_columns if not _names_nothing(name, named)]
    changes: dict[str, Any] = {"by": by, "group_columns": group_columns}
    if _names_nothing(answer.where, named):
        changes["where"] = None
    if answer.ranking is not None and _names_nothing(answer.ranking.field, named):
        changes["ranking"] = None
    return answer.model_copy(update=changes)


def _names_nothing(name: str | None, named: frozenset[str]) -> bool:
    return name is not None and name not in named and is_nothing(name)


def _with_own_choices(
    field: PlannedField, context: PlanningContext, dropped: list[str]
) -> PlannedField:
    """Take out a field's choices if there are too many, or if they are copies of cells."""
    if not field.choices:
        return field
    if field.type == "bool" and all(choice.casefold() in TRUTHS for choice in field.choices):
        return field.model_copy(update={"choices": []})  # the type says as much
    count = len(field.choices)
    if count > MOST_CHOICES:
        dropped.append(f"the choices of {field.name!r} ({count}, more than {MOST_CHOICES})")
    elif _are_cells(field.choices, context):
        dropped.append(f"the choices of {field.name!r} (they are cells of a column of free text)")
    else:
        return field
    return field.model_copy(update={"choices": []})


def _are_cells(choices: Sequence[str], context: PlanningContext) -> bool:
    columns = [context.frame.iloc[:, position] for position in context.columns]
    return any(_are_copied(choices, column) for column in columns)


def _are_copied(choices: Sequence[str], column: pd.Series) -> bool:
    """Whether choices were copied out of a column of free text, so that they fit no other row."""
    cells = _free_texts(column)
    copied = [choice for choice in choices if _is_cell(_normal(choice), cells)]
    if len(copied) < SHARE_COPIED * len(choices):
        return False
    if len(copied) == len(choices) >= MANY_LABELS:
        return True
    return any(map(_is_too_long, copied))


def _free_texts(column: pd.Series) -> frozenset[str]:
    """Return a column's texts; none if they repeat so often that they may well be classes."""
    is_object = pd.api.types.is_object_dtype(column.dtype)
    if not is_object and not pd.api.types.is_string_dtype(column.dtype):
        return frozenset()
    step = math.ceil(len(column) / SAMPLED_ROWS) or 1
    sample = column.iloc[::step].dropna()
    cells = frozenset(_normal(cell) for cell in sample.tolist() if isinstance(cell, str))
    are_few = len(cells) <= MOST_CHOICES
    if are_few and 2 * len(cells) <= len(sample):
        return frozenset()
    return cells


def _is_too_long(choice: str) -> bool:
    return len(choice) > LABEL_CHARACTERS or len(choice.split()) > LABEL_WORDS


def _is_cell(choice: str, cells: frozenset[str]) -> bool:
    """Whether a choice is a cell, or the beginning of one that the planner saw shortened."""
    if choice in cells:
        return True
    beginning = choice.rstrip(".… ")
    if beginning == choice or len(beginning) <= LABEL_CHARACTERS:
        return False
    return any(cell.startswith(beginning) for cell in cells)


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold()
