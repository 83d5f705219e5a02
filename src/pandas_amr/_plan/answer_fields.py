"""Convert a planner's answer to fields of a plan, and refuse what does not fit the call."""

from __future__ import annotations

import datetime as dt
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pandas_amr._findings.finding_type import ITEMS
from pandas_amr._plan.aggregations import as_list, column_of, columns_of
from pandas_amr._plan.call import finding_types
from pandas_amr._plan.call_text import user_finding_types
from pandas_amr._plan.defaults import gives_output
from pandas_amr._plan.feasibility import FeasibilityCheck
from pandas_amr._plan.plan import Ranking
from pandas_amr._types.arrow import field_kind
from pandas_amr._types.record import RESERVED_BY_PYDANTIC, record_type
from pandas_amr._types.schema import RESERVED
from pandas_amr._units.by import By, column
from pandas_amr.errors import InvalidOutput, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

    import pandas as pd

    from pandas_amr._plan.aggregations import Aggregation
    from pandas_amr._plan.answer import PlanAnswer, PlannedField
    from pandas_amr._plan.call import ColumnTypes, Job

RANKED = frozenset({"number", "date"})  # sorts of values that rank rows
OF_NUMBERS = frozenset({"sum", "min", "max"})  # of texts pandas computes them, too
NUMBER = re.compile(r"[^\w\s]{0,2}\d[\d.,' ]*\s*[^\d\s]{0,3}")  # with its currency or unit
RANKED_SAMPLE = 1_000  # cells of a column that are looked at

TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "date": dt.date,
    "list[str]": list[str],
}


@dataclass(frozen=True)
class _Names:
    """What an answer can name.

    Attributes:
        fields: the columns of the finding's fields, by the name in the answer.
        labels: the frame's columns, by their text.
        types: the types of the finding's columns.
    """

    fields: Mapping[str, Any]
    labels: Mapping[str, Hashable]
    types: ColumnTypes

    def fields_of_sorts(self, sorts: Collection[str]) -> list[str]:
        """List the fields whose values are of some sorts, by the name in the answer."""
        return [name for name, column in self.fields.items() if self._sort(column) in sorts]

    def _sort(self, column: object) -> str:
        return field_kind(self.types[column])


def plan_fields(answer: PlanAnswer, job: Job) -> dict[str, Any]:
    """Convert an answer to fields of a plan.

    A field never takes the name of a column that exists already. If the user gave the finding, the
    answer names its fields.

    Raises:
        InvalidOutput: a part names what does not exist, or the finding lacks a field that the
            user's reduce takes.
    """
    fields: dict[str, Any] = {}
    if "finding" in job.open:
        names = _planned_names(answer, job)
        fields["finding"] = _finding_type(answer, names.fields)
        is_complete = True
    else:
        names = _given_names(job)
        # A function may find fields that only the run can tell.
        is_complete = None not in finding_types(job, job.given).values()
    if is_complete:
        _check_user_reduce(job, names.types)
    _check_parts(answer, names)
    if "map_instruction" in job.open:
        fields["map_instruction"] = answer.map_instruction
    group_columns = [names.labels[name] for name in answer.group_columns]
    fields |= {
        "segmentation": answer.segmentation,
        "group_columns": group_columns or None,
        "view": getattr(answer, "view", None),
        "shard_size": answer.shard_size,
        "parallelism": answer.parallelism,
    }
    reduce = _reduce_fields(answer, names)
    _check_types(reduce, names.types, job)
    if not answer.reduce_instruction and _needs_agents(reduce, names.types, job):
        reduce["reduce_instruction"] = job.task  # agents read the question as the user wrote it
    return fields | reduce


def _planned_names(answer: PlanAnswer, job: Job) -> _Names:
    """Return what an answer can name that plans the finding itself."""
    columns = _choose_names(answer, job)
    types: dict[Any, Any] = {}
    for field in answer.finding:
        types[columns[field.name]] = _field_type(field)
    return _Names(columns, _labels_by_text(job.frame), types)


def _given_names(job: Job) -> _Names:
    """Return what an answer can name if the user gave the finding."""
    types = user_finding_types(job)
    columns = {str(name): name for name in types}
    return _Names(columns, _labels_by_text(job.frame), types)


def _reduce_fields(answer: PlanAnswer, names: _Names) -> dict[str, Any]:
    columns = {**names.labels, **names.fields}
    groups = list(dict.fromkeys(columns[name] for name in answer.by))  # a key named twice is one
    aggregations = _aggregations(answer, names)
    return {
        "where": names.fields.get(answer.where or ""),
        "by": groups or None,
        "aggregations": aggregations or None,
        "ranking": _ranking(answer, names),
        "reduce_instruction": answer.reduce_instruction,
    }


def _aggregations(answer: PlanAnswer, names: _Names) -> dict[Any, Any]:
    """Return what pandas computes, by column: one function, or a list of several."""
    functions: dict[Any, list[Aggregation]] = {}
    for part in answer.aggregations:
        several = functions.setdefault(names.fields[part.field], [])
        if part.function not in several:
            several.append(part.function)
    aggregations: dict[Any, Any] = {}
    for name, several in functions.items():
        aggregations[name] = several[0] if len(several) == 1 else several
    return aggregations


def _ranking(answer: PlanAnswer, names: _Names) -> Ranking | None:
    ranking = answer.ranking
    if ranking is None:
        return None
    field = names.fields.get(ranking.field, ranking.field)
    return Ranking(field=field, most=ranking.most, lowest_first=ranking.lowest_first)


def _needs_agents(reduce: Mapping[str, Any], types: ColumnTypes, job: Job) -> bool:
    """Whether agents write the answer from what is computed.

    They do if there are both a table and a ranking, or if pandas does not give the output's type.
    """
    output = job.given.output
    if reduce["ranking"] is not None:
        return bool(reduce["aggregations"]) or output is not None
    return not gives_output(reduce["aggregations"], output, types, job)


def _labels_by_text(frame: pd.DataFrame) -> dict[str, Hashable]:
    """Return the columns by their text; a text that two columns share names neither."""
    by_text: dict[str, list[Hashable]] = {}
    for label in frame.columns:
        by_text.setdefault(str(label), []).append(label)
    return {text: labels[0] for text, labels in by_text.items() if len(labels) == 1}


def _choose_names(answer: PlanAnswer, job: Job) -> dict[str, str]:
    """Choose the column of each field of an answer: its name, or if that is taken, a free one.

    Raises:
        InvalidOutput: two fields have one name, or the columns of many records per row are taken.
    """
    columns_of_frame = job.frame.columns
    labels = [*columns_of_frame, *columns_of_frame.get_level_values(0)]
    taken = {str(label) for label in labels}
    if answer.many_per_row:
        record_columns = {ITEMS, f"{ITEMS}_count"}
        if record_columns & taken:
            raise InvalidOutput(
                f"many_per_row adds the columns {ITEMS} and {ITEMS}_count, which the table has; "
                "plan one finding per row"
            )
        taken |= record_columns
    taken |= RESERVED | RESERVED_BY_PYDANTIC | set(job.given.status_columns or ())
    names = [field.name for field in answer.finding]
    for name in names:
        if names.count(name) > 1:
            raise InvalidOutput(f"finding names {name!r} twice")
    columns = {name: name for name in names if name not in taken}
    taken |= set(names)
    for name in names:
        if name not in columns:
            variant = _free_variant(name, taken)
            columns[name] = variant
            taken.add(variant)
    return columns


def _free_variant(name: str, taken: Collection[str]) -> str:
    variant = f"{name}_found"
    numbers = itertools.count(2)
    while variant in taken:
        variant = f"{name}_found_{next(numbers)}"
    return variant


def _finding_type(answer: PlanAnswer, names: Mapping[str, str]) -> Any:
    """Make the type of a finding; ``names`` holds the columns of the answer's fields.

    Raises:
        InvalidOutput: a field cannot be part of a type.
    """
    fields: dict[str, Any] = {}
    for field in answer.finding:
        if field.choices and field.type != "str":
            raise InvalidOutput(
                f"{field.name!r} is of type {field.type} and has choices; only a str has them"
            )
        description = Field(description=field.description)
        fields[names[field.name]] = (_field_type(field), description)
    try:
        finding = record_type("Finding", fields)
    except UsageError as error:
        raise InvalidOutput(str(error)) from None
    return list[finding] if answer.many_per_row else finding  # type: ignore[valid-type]


def _field_type(field: PlannedField) -> Any:
    if field.choices and field.type == "str":
        return Literal[tuple(field.choices)] | None
    return TYPES[field.type] | None


def check_segmentation(answer: PlanAnswer, job: Job, *, alone: bool) -> None:
    """Refuse a segmentation that does not fit the call.

    Raises:
        InvalidOutput: what the user fixed, or the model that maps, takes units judged alone; or the
            columns of groups are missing.
    """
    if (answer.segmentation == "groups") != bool(answer.group_columns):
        raise InvalidOutput("segmentation 'groups' and group_columns belong together")
    if answer.segmentation == "rows":
        return
    if alone:
        raise InvalidOutput("the readers judge each row alone; segmentation must be 'rows'")
    if job.given.dedupe or job.given.keyed == "unit":
        fixed = "dedupe" if job.given.dedupe else "keyed"
        raise InvalidOutput(
            f"the user fixed {fixed}, which takes rows judged alone; segmentation must be 'rows'"
        )


def check_ranking(answer: PlanAnswer, job: Job) -> None:
    """Refuse a ranking if the user asks for one number.

    Raises:
        InvalidOutput: a ranking gives rows.
    """
    output = job.given.output
    if answer.ranking is not None and (output is int or output is float):
        raise InvalidOutput(
            "the user's output is one number, and a ranking gives rows; right would be: null"
        )


def _check_user_reduce(job: Job, types: ColumnTypes) -> None:
    """Check that the finding has the fields that the user's own reduce takes, and that they fit.

    Raises:
        InvalidOutput: a field is missing, or of a type that pandas cannot compute.
    """
    if not job.reduces:
        return
    plan = job.given
    aggregations = job.computed or {}
    used = columns_of(aggregations)
    _check_needed("reduce", used, job, types)
    _check_needed("where", [plan.where], job, types)
    _check_needed("by", job.group_labels, job, types)
    if plan.ranking is not None:
        _check_needed("ranking", [plan.ranking.field], job, types)
        used.append(plan.ranking.field)
    check = FeasibilityCheck(job.frame, types, used, job.by)
    _refuse_user_reduce(check.rows_problem(plan.where, plan.ranking))
    for name, how in aggregations.items():
        if column_of(name, how) in types:
            _refuse_user_reduce(check.aggregation_problem(name, how))


def _check_needed(part: str, names: Iterable[Any], job: Job, types: ColumnTypes) -> None:
    """Check that a part of the user's reduce names fields of the finding, or other columns."""
    columns = set(types)
    if part != "where":
        columns |= set(job.frame.columns)
    if part == "by":
        columns |= set(job.frame.index.names)
    for name in names:
        if name is not None and name not in columns:
            raise InvalidOutput(
                f"the user's {part} takes a field {name!r}, which the finding does not have"
            )


def _refuse_user_reduce(problem: str | None) -> None:
    if problem is not None:
        raise InvalidOutput(f"the user asks for what the finding's types cannot give: {problem}")


def _check_parts(answer: PlanAnswer, names: _Names) -> None:
    """Check that the fields and columns exist that the parts of an answer name.

    Raises:
        InvalidOutput: one does not; the message says what exists, and what would be right.
    """
    fields = names.fields
    labels = names.labels
    columns = {**fields, **labels}
    aggregated = [part.field for part in answer.aggregations]
    ranking = answer.ranking.field if answer.ranking is not None else None
    bools = names.fields_of_sorts({"bool"})
    ranked = names.fields_of_sorts(RANKED)
    _check_named("aggregations", aggregated, fields, list(fields))
    _check_named("where", [answer.where], fields, ["null", *bools])
    _check_named("ranking", [ranking], columns, ["null", *ranked])
    _check_named("by", answer.by, columns, ["[]", *columns])
    _check_named("group_columns", answer.group_columns, labels, ["[]", *labels])


def _check_named(
    part: str, names: Iterable[str | None], choices: Collection[str], right: Sequence[str]
) -> None:
    for name in names:
        if name is not None and name not in choices:
            raise InvalidOutput(
                f"{part} names {name!r}; there is: {', '.join(choices)}. "
                f"Right would be: {' or '.join(right)}"
            )


def _check_types(reduce: Mapping[str, Any], types: ColumnTypes, job: Job) -> None:
    """Refuse a plan that asks for what pandas cannot compute of the fields that it plans.

    Raises:
        InvalidOutput: it does.
    """
    ranking = reduce["ranking"]
    aggregations = reduce["aggregations"] or {}
    by = By(*reduce["by"]) if reduce["by"] else None
    used = list(aggregations)
    if ranking is not None:
        used.append(ranking.field)
    check = FeasibilityCheck(job.frame, types, used, by)
    _refuse_field(check.where_problem(reduce["where"]), types, {"bool"})
    _refuse_field(check.ranking_problem(ranking), types, RANKED)
    problem = check.by_problem()
    if problem is not None:
        raise InvalidOutput(problem)
    for name, how in aggregations.items():
        problem = check.aggregation_problem(name, how) or _text_problem(name, how, types)
        if problem is not None:
            raise InvalidOutput(f"aggregations: {problem}")
    if ranking is not None and _ranks_texts(ranking.field, types, job):
        _refuse_field(
            f"ranking by {ranking.field!r} takes numbers or dates; of texts 9 ranks above 10",
            types,
            RANKED,
        )


def _text_problem(name: object, how: object, types: ColumnTypes) -> str | None:
    """Tell why a planner's aggregation of texts is no answer, though pandas computes one."""
    if field_kind(types[name]) != "text":
        return None
    wrong = [repr(one) for one in as_list(how) if one in OF_NUMBERS]
    if not wrong:
        return None
    return (
        f"{' and '.join(wrong)} takes numbers; {name!r} is of type str, which pandas would join, "
        "or compare letter by letter. A number has the type int or float"
    )


def _ranks_texts(label: object, types: ColumnTypes, job: Job) -> bool:
    """Whether a ranking is by texts: those of a field, or such of a column as hold numbers."""
    if label in types:
        return field_kind(types[label]) == "text"
    if label not in job.frame.columns:
        return False
    values = column(job.frame, label).head(RANKED_SAMPLE).tolist()
    return any(isinstance(value, str) and NUMBER.fullmatch(value.strip()) for value in values)


def _refuse_field(problem: str | None, types: ColumnTypes, sorts: Collection[str]) -> None:
    """Refuse a field if there is a problem; right would be null, or a field of some sorts.

    Raises:
        InvalidOutput: there is a problem.
    """
    if problem is None:
        return
    right = ["null"]
    right += [str(name) for name, kind in types.items() if field_kind(kind) in sorts]
    raise InvalidOutput(f"{problem}. Right would be: {' or '.join(right)}")
