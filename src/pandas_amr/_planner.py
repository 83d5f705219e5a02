"""From a task to a plan: one model call where the model can, rules where it cannot."""

from __future__ import annotations

import itertools
import json
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from pandas_amr import _prompts
from pandas_amr._agent.dispatch import complaint
from pandas_amr._agent.loop import Submission, run_agent
from pandas_amr._by import By
from pandas_amr._call import finding_types, found_types
from pandas_amr._canonical import canonical_json
from pandas_amr._compute import column_of, function_of, name_of
from pandas_amr._findings import ITEMS
from pandas_amr._former import PLAN_SYSTEM, PLAN_VIEW
from pandas_amr._persona import Agent
from pandas_amr._plan import Aggregation, Plan, Ranking, Segmentation, View
from pandas_amr._profile import profile_lines, shortened, spread
from pandas_amr._questions import describe_type
from pandas_amr._rules import by_words, default_aggregations, free_name, model_of
from pandas_amr._schema import RESERVED, TEXT_FINDING, UNUSABLE, json_schema, record_type
from pandas_amr._trial import Trial
from pandas_amr._units import cell, json_keys, line_of
from pandas_amr.errors import InvalidOutput, ModelError, PlanWarning, UsageError
from pandas_amr.models.base import Message

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd

    from pandas_amr._call import Job
    from pandas_amr._synthesise import AnswerStore
    from pandas_amr.models.base import Abilities, Model

SAMPLE_ROWS = 8
SAMPLE_CELL_CHARACTERS = 400
PROFILED_VALUES = 5
REPAIRS = 1
REDUCE_FIELDS = frozenset({"reduce_instruction", "aggregations", "ranking", "where", "by"})

SHARD_SIZE = 20
CALLABLE_SHARD_SIZE = 1000
GROUP_SHARD_SIZE = 200
PREVIEW_SHARD_SIZE = 10_000
SHARD_TOKENS = 8000
PARALLELISM = 8
MAX_REPAIRS = 1

_TYPES: dict[str, Any] = {"str": str, "int": int, "float": float, "bool": bool, "list[str]": list[str]}


class PlannedField(BaseModel):
    """One field of a finding, as a planner gives it."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    type: Literal["str", "int", "float", "bool", "date", "list[str]"]
    choices: list[str]
    description: str


class PlannedAggregation(BaseModel):
    """One computed part of the answer."""

    field: str
    function: Aggregation


class PlannedRanking(BaseModel):
    """The rows that rank first, where they are the answer; without a field there is no ranking."""

    field: str = ""
    most: int = Field(default=10, ge=1)
    lowest_first: bool = False


class PlanAnswer(BaseModel):
    """What a planner answers."""

    map_instruction: str = Field(min_length=1)
    finding: list[PlannedField] = Field(min_length=1)
    many_per_row: bool = False
    segmentation: Segmentation = "rows"
    group_columns: list[str] = []
    shard_size: int = Field(ge=1, le=200)
    parallelism: int = Field(ge=1, le=64)
    where: str = ""
    by: list[str] = []
    aggregations: list[PlannedAggregation]
    ranking: PlannedRanking = PlannedRanking()
    reduce_instruction: str


class PlanAnswerWithCode(PlanAnswer):
    """What a planner answers where agents can run code."""

    view: View
    shard_size: int = Field(ge=1, le=100_000)


async def ask_planner(
    model: Model,
    job: Job,
    *,
    fixed: Mapping[str, Any],
    known_by: Mapping[str, Any],
    readers: Sequence[str],
    code: bool,
    store: AnswerStore | None,
) -> dict[str, Any]:
    """The fields of a plan that one model call derives from the task, the schema and a sample.

    ``fixed`` is what the user gave, as the planner reads it; ``readers`` says what those who read can do.

    In the journal it is known by the task, the columns and what is fixed (``known_by``, as the journal writes types),
    and not by the sample: a frame with some rows more keeps its plan, and so its findings.

    Raises:
        ModelError: the service failed.
        ValidationError: the answer cannot be used, after a repair.
        InvalidOutput: it names what is not there, likewise.
    """
    kind = PlanAnswerWithCode if code else PlanAnswer
    task, frame, columns = str(job.task), job.frame, job.columns
    user = _prompts.plan_user(
        task,
        columns=profile_lines(frame, PROFILED_VALUES, content=columns),
        sample=sample_lines(frame, columns),
        rows=len(frame),
        fixed=fixed,
        readers=readers,
    )
    messages: tuple[Message, ...] = (
        Message("system", _prompts.PLAN_SYSTEM + (_prompts.PLAN_VIEW if code else "")),
        Message("user", user),
    )
    submission = Submission("plan", json_schema(kind))
    named = json.dumps(sorted(key for key, _ in _keyed(frame, columns)))
    asked = ["code" if code else "", task, named, canonical_json(dict(known_by))]
    former = [PLAN_SYSTEM + (PLAN_VIEW if code else ""), task, named, json.dumps(dict(fixed), default=str)]
    known = None
    if store is not None:
        known = await store.recall(asked, partial(_recalled, kind=kind, job=job), former=former)
    if known is not None:
        return known
    for attempt in range(REPAIRS + 1):
        answer = await run_agent(model, messages, submission=submission, phase="plan")
        try:
            planned = _fields_of(kind.model_validate(answer.payload), job)
        except (ValidationError, InvalidOutput) as error:
            if attempt == REPAIRS:
                raise
            problem = answer.problem or (str(error) if isinstance(error, InvalidOutput) else complaint(error))
            messages = (*answer.conversation, Message("user", _prompts.answer_repair(problem)))
        else:
            if store is not None:
                await store.keep(asked, answer.payload)
            return planned
    raise AssertionError("unreachable: the last attempt returns or raises")


def _recalled(payload: Any, *, kind: type[PlanAnswer], job: Job) -> dict[str, Any]:
    """Read a plan out of the journal.

    Raises:
        ValidationError, InvalidOutput: it is none any more, or speaks of what is not there.
    """
    return _fields_of(kind.model_validate(payload), job)


def _keyed(frame: pd.DataFrame, columns: Sequence[int]) -> list[tuple[str, int]]:
    return list(zip(json_keys([frame.columns[column] for column in columns]), columns, strict=True))


def sample_lines(frame: pd.DataFrame, columns: Sequence[int]) -> list[str]:
    """A few rows from all over the frame, the first and the last among them, long cells shortened."""
    rows = spread(len(frame), SAMPLE_ROWS)
    keyed = _keyed(frame, columns)
    return [line_of({key: _short(cell(frame.iloc[row, column])) for key, column in keyed}) for row in rows]


def _short(value: Any) -> Any:
    return shortened(value, SAMPLE_CELL_CHARACTERS) if isinstance(value, str) else value


def _fields_of(answer: PlanAnswer, job: Job) -> dict[str, Any]:
    """The answer as plan fields; a finding never takes the name of a column that is there already.

    It may speak of the fields that were given, too.

    Raises:
        InvalidOutput: a part of it names a field or a column that is not there, or leaves out what the user named.
    """
    labels = {str(name): name for name in job.frame.columns}
    given = found_types(finding_types(job, job.given)) if job.given.finding is not None else {}
    named = _free_names(answer, job)
    try:
        finding = record_type("Finding", {named[field.name]: _kind_of(field) for field in answer.finding})
    except UsageError as error:
        raise InvalidOutput(str(error)) from None
    types = {named[field.name]: _kind_of(field)[0] for field in answer.finding} | dict(given)
    named |= {name: name for name in given}
    _check_named("aggregations", [part.field for part in answer.aggregations], named)
    _check_named("where", [answer.where] if answer.where else [], named)
    _check_named("ranking", [answer.ranking.field] if answer.ranking.field else [], named | labels)
    _check_named("by", answer.by, named | labels)
    _check_named("group_columns", answer.group_columns, labels)
    _check_needed(job, types)
    aggregations: dict[str, list[Aggregation]] = {}
    for part in answer.aggregations:
        aggregations.setdefault(named[part.field], []).append(part.function)
    ranking = answer.ranking
    fields = {
        "map_instruction": answer.map_instruction,
        "finding": list[finding] if answer.many_per_row else finding,  # type: ignore[valid-type]
        "segmentation": answer.segmentation,
        "group_columns": [labels[name] for name in answer.group_columns] or None,
        "view": getattr(answer, "view", None),
        "shard_size": answer.shard_size,
        "parallelism": answer.parallelism,
        "where": named.get(answer.where),
        "by": [named.get(name, labels.get(name)) for name in answer.by] or None,
        "aggregations": {name: parts if len(parts) > 1 else parts[0] for name, parts in aggregations.items()} or None,
        "ranking": Ranking(
            field=named.get(ranking.field, ranking.field), most=ranking.most, lowest_first=ranking.lowest_first
        )
        if ranking.field
        else None,
        "reduce_instruction": answer.reduce_instruction or None,
    }
    _check_types(fields, types, job)
    if fields["ranking"] and fields["aggregations"] and not fields["reduce_instruction"]:
        fields["reduce_instruction"] = job.task  # two computed answers: an agent joins them
    if (answer.segmentation == "groups") != bool(answer.group_columns):
        raise InvalidOutput("segmentation 'groups' and group_columns belong together")
    return fields


def _free_names(answer: PlanAnswer, job: Job) -> dict[str, str]:
    """What each field of the answer is called: its own name, or where something has that already, a free one.

    Raises:
        InvalidOutput: two fields have one name, or the columns of many records a row are taken.
    """
    columns = {str(name) for name in [*job.frame.columns, *job.frame.columns.get_level_values(0)]}
    counted = {ITEMS, f"{ITEMS}_count"}
    if answer.many_per_row and counted & columns:
        raise InvalidOutput(
            f"many_per_row adds the columns {ITEMS} and {ITEMS}_count, which the table has; plan one finding a row"
        )
    taken = columns | RESERVED | UNUSABLE | (counted if answer.many_per_row else set())
    names = [field.name for field in answer.finding]
    if doubled := next((name for name in names if names.count(name) > 1), None):
        raise InvalidOutput(f"finding names {doubled!r} twice")
    free = {name: name for name in names if name not in taken}
    for name in names:
        if name not in free:
            free[name] = next(one for one in _variants(name) if one not in taken | set(names) | set(free.values()))
    return free


def _variants(name: str) -> Iterator[str]:
    yield f"{name}_found"
    yield from (f"{name}_found_{number}" for number in itertools.count(2))


def _check_needed(job: Job, types: Mapping[Any, Any]) -> None:
    """Whether the fields are there that the user's own ``where``, ``by`` and ``reduce`` name, and fit them.

    Raises:
        InvalidOutput: one is not.
    """
    if not job.reduces:
        return
    there = types.keys() | set(job.frame.columns)
    computed = {column_of(name, how): function_of(how) for name, how in (job.computed or {}).items()}
    ranking = [job.given.ranking.field] if job.given.ranking else []
    for what, names, known in (
        ("where", [job.given.where] if job.given.where else [], types.keys()),
        ("by", job.by.labels if job.by else (), there | set(job.frame.index.names)),
        ("ranking", ranking, there),
        ("reduce", list(computed), there),
    ):
        left_out = [name for name in names if name not in known]
        if left_out:
            raise InvalidOutput(f"the user's {what} takes a field {left_out[0]!r}, which the finding has not")
    trial = Trial.of(job.frame, types, [*computed, *ranking], job.by)
    problem = trial.where_problem(job.given.where) or trial.by_problem() or trial.ranking_problem(job.given.ranking)
    for name, how in (job.computed or {}).items():
        problem = problem or (trial.aggregation_problem(name, how) if column_of(name, how) in types else None)
    if problem is not None:
        raise InvalidOutput(f"the user asks for what the finding's types cannot give: {problem}")


def _check_named(what: str, names: Sequence[str], there: Mapping[str, Any]) -> None:
    unknown = [name for name in names if name not in there]
    if unknown:
        raise InvalidOutput(f"{what} names {unknown[0]!r}; there is: {', '.join(there)}")


def _check_types(fields: Mapping[str, Any], types: Mapping[Any, Any], job: Job) -> None:
    """Refuse a plan that asks for what pandas cannot compute of the fields that it plans.

    Raises:
        InvalidOutput: it does.
    """
    ranking, aggregations = fields["ranking"], fields["aggregations"] or {}
    by = By(*fields["by"]) if fields["by"] else None
    trial = Trial.of(job.frame, types, [*aggregations, *([ranking.field] if ranking else [])], by)
    problem = trial.where_problem(fields["where"]) or trial.by_problem() or trial.ranking_problem(ranking)
    for name, how in aggregations.items():
        unfit = trial.aggregation_problem(name, how)
        problem = problem or (f"aggregations: {unfit}" if unfit else None)
    if problem is not None:
        raise InvalidOutput(problem)


def _kind_of(field: PlannedField) -> Any:
    import datetime as dt  # noqa: PLC0415

    kind = Literal[tuple(field.choices)] if field.choices and field.type == "str" else _TYPES.get(field.type, dt.date)
    return (kind | None, Field(description=field.description))


async def derive(
    job: Job, *, model: Model | None, abilities: Abilities, readers: Abilities, store: AnswerStore | None = None
) -> tuple[Plan, PlanWarning | None]:
    """Complete a plan with one model call, as far as the user left it open. What is given stands.

    ``abilities`` are the planning model's, ``readers`` those of the model that maps.

    Returns:
        The plan, and a warning where the model cannot plan or its answer cannot be used: rules do the rest then.
    """
    fixed = job.given.fixed()
    task = {"task": job.task} if job.task else {}
    if not job.open:
        return Plan(**(fixed | task)), None
    derived, warning = await _planned(job, model, abilities, readers=readers, fixed=fixed, store=store)
    if "reduce_instruction" not in job.open:
        derived = {name: value for name, value in derived.items() if name not in REDUCE_FIELDS}
    kept = _agreeing({name: value for name, value in derived.items() if name not in fixed}, job)
    return Plan(**(kept | fixed | task | {"made_by": "rules" if warning else "planner"})), warning


def _agreeing(derived: Mapping[str, Any], job: Job, finding: Any = None) -> dict[str, Any]:
    """What was derived without what contradicts what is fixed, or speaks of fields that a fixed finding has not."""
    fixed = job.given.fixed() | ({"finding": finding} if finding is not None else {})
    kept = {name: value for name, value in derived.items() if value is not None}
    if fixed.get("dedupe") or fixed.get("keyed") == "unit" or "segmentation" in fixed or "group_columns" in fixed:
        kept = {name: value for name, value in kept.items() if name not in {"segmentation", "group_columns"}}
    types = found_types(finding_types(job, Plan(finding=fixed.get("finding") or kept.get("finding"))))
    if "finding" in fixed:
        kept = _of_fields(kept, set(types), job)
    if fixed.get("output") is not None:
        kept.pop("ranking", None)
        if "reduce_instruction" in job.open and not _gives(kept.get("aggregations"), fixed["output"], types, job):
            kept = {"reduce_instruction": job.task} | kept
    return kept


def _gives(aggregations: Mapping[str, Any] | None, output: Any, types: Mapping[Any, Any], job: Job) -> bool:
    """Whether what is computed is what the user asks for: one number. All else an agent writes from it."""
    if not aggregations or output is None:
        return True  # nothing is computed, or nothing else is asked for
    if len(aggregations) != 1 or output not in {int, float}:
        return False
    trial = Trial.of(job.frame, types, aggregations, job.by)
    problems = [trial.aggregation_problem(name, how) for name, how in aggregations.items()]
    return problems == [None] and trial.output_problem(aggregations, output) is None


def _of_fields(derived: Mapping[str, Any], known: set[Any], job: Job) -> dict[str, Any]:
    """What was derived, as far as it speaks of fields and columns that are there."""
    kept = dict(derived)
    parts = {name: how for name, how in (kept.pop("aggregations", None) or {}).items() if name in known}
    there = {"where": known, "by": known | set(job.frame.columns)}
    for name, names in there.items():
        asked = kept.get(name)
        if not set(asked if isinstance(asked, list) else [asked]) <= names:
            kept.pop(name, None)
    if "ranking" in kept and kept["ranking"].field not in known | set(job.frame.columns):
        del kept["ranking"]
    return kept | ({"aggregations": parts} if parts else {})


async def _planned(
    job: Job,
    model: Model | None,
    abilities: Abilities,
    *,
    readers: Abilities,
    fixed: dict[str, Any],
    store: AnswerStore | None,
) -> tuple[dict[str, Any], PlanWarning | None]:
    if not len(job.frame):
        reason = "the frame is empty"
    elif model is None or not abilities.planning:
        reason = "this model cannot plan"
    else:
        shown = {name: _shown(name, value) for name, value in fixed.items()} | _shown_reduce(job)
        code = job.repl is not None and readers.tools
        tools = {tool.name: tool.description for tool in job.tools} if readers.tools else {}
        words = _prompts.reader_lines(window=readers.context_window, alone=readers.units_per_request == 1, tools=tools)
        try:
            fields = await ask_planner(
                model,
                job,
                fixed=shown,
                known_by=shown | {name: _described(fixed[name]) for name in ("finding", "output") if fixed.get(name)},
                readers=words,
                code=code,
                store=store,
            )
        except ValidationError as error:
            reason = f"the planner's answer could not be used ({complaint(error)})"
        except InvalidOutput as error:
            reason = f"the planner's answer could not be used ({error})"
        except ModelError as error:
            if error.stops_run:
                raise
            reason = str(error)
        else:
            return fields, None
    return {}, PlanWarning(f"The plan was made by rule: {reason}. Fix what you want in plan=, map=, finding=, reduce=.")


def _described(types: Any) -> Any:
    """A fixed type, or one for each named map, as the journal writes it."""
    if isinstance(types, dict):
        return {name: describe_type(kind) for name, kind in types.items()}
    return describe_type(types)


def _shown(name: str, value: Any) -> Any:
    """A fixed field as the planner reads it."""
    if name in {"finding", "output"}:
        return (
            {key: json_schema(part) for key, part in value.items()} if isinstance(value, dict) else json_schema(value)
        )
    if name == "by" and isinstance(value, By):
        return Plan(by=value.with_keys(value.described)).plain()[name]
    return Plan(**{name: value}).plain()[name] if name in {"by", "ranking"} else value


def _shown_reduce(job: Job) -> dict[str, Any]:
    """What is computed and stands in no plan, as the planner reads it: it has to find the columns of it."""
    if job.computed is None or job.given.aggregations is not None:
        return {}
    hows = {name: function_of(how) for name, how in job.computed.items()}
    said = {name: _said(how) for name, how in hows.items()}
    return {
        "reduce": {str(name): {"field": column_of(name, how), "by": said[name]} for name, how in job.computed.items()}
    }


def _said(how: Any) -> str | list[str]:
    """What an aggregation is called: never by an address, which is another in each process."""
    if isinstance(how, list):
        return [name_of(one) for one in how]
    return how.text if isinstance(how, Agent) else name_of(how)


def complete_by_rule(plan: Plan, job: Job, *, abilities: Abilities, parallelism: int | None) -> Plan:
    """Fill in what is still open, by rules that anyone can read here and in ``_rules``."""
    of_callables = job.all_callable
    if plan.made_by == "rules" and not of_callables:
        plan = _ruled(plan, job, pandas_only=abilities.units_per_request is not None)
    alone = plan.segmentation in {None, "rows"}
    size = abilities.units_per_request or (SHARD_SIZE if plan.segmentation != "groups" else GROUP_SHARD_SIZE)
    rules: dict[str, Any] = {
        "segmentation": None if of_callables else "rows",
        "view": None if of_callables else "inline",
        "shard_size": CALLABLE_SHARD_SIZE if of_callables else PREVIEW_SHARD_SIZE if plan.view == "preview" else size,
        "shard_tokens": min(SHARD_TOKENS, abilities.context_window // 3),
        "parallelism": parallelism or PARALLELISM,
        "dedupe": alone,
        "keyed": "shard" if plan.view == "preview" or not alone else "unit",
        "max_repairs": MAX_REPAIRS,
    }
    if job.maps and not job.callables:
        rules["map_instruction"] = plan.task or _prompts.DEFAULT_MAP
        if plan.finding is None:
            rules["finding"] = record_type("Finding", {free_name(TEXT_FINDING, set(map(str, job.frame.columns))): str})
    decided = job.reducer is not None or job.computed is not None or plan.ranking is not None
    if job.reduces and not decided and plan.aggregations is None and plan.reduce_instruction is None:
        rules |= _reduced_by_rule(plan, plan.finding or rules.get("finding"), job, abilities)
    plan = _bearable(plan, abilities)
    return _updated(plan, {name: value for name, value in rules.items() if getattr(plan, name) is None})


def _reduced_by_rule(plan: Plan, finding: Any, job: Job, abilities: Abilities) -> dict[str, Any]:
    """A text, where the model writes one or the output is one; else what pandas can say of each field."""
    written = {"reduce_instruction": plan.task or _prompts.DEFAULT_REDUCE}
    if abilities.units_per_request is None:
        return written
    if finding is None or isinstance(finding, dict):
        return {}
    found = {plan.where: "sum"} if plan.where is not None else default_aggregations(model_of(finding))
    types = found_types(finding_types(job, Plan(finding=finding)))
    return {"aggregations": found} if _gives(found, plan.output, types, job) else written


def _ruled(plan: Plan, job: Job, *, pandas_only: bool) -> Plan:
    """What the task's words and the columns' names say, as far as it is open; small models write nothing."""
    finding = plan.finding if not isinstance(plan.finding, dict) else None
    open_ = plan.finding is None and not job.callables
    derived = by_words(plan.task or "", list(job.frame.columns), finding=finding, open_finding=open_)
    if "reduce_instruction" not in job.open:
        derived = {name: value for name, value in derived.items() if name not in REDUCE_FIELDS}
    if pandas_only:
        derived.pop("reduce_instruction", None)
    kept = {name: value for name, value in derived.items() if getattr(plan, name) is None and value is not None}
    return _updated(plan, _agreeing(kept, job, plan.finding))


def _updated(plan: Plan, changes: dict[str, Any]) -> Plan:
    """A copy with some fields more, checked; who made it stays."""
    return Plan(**({name: getattr(plan, name) for name in plan.model_fields_set} | changes))


def _bearable(plan: Plan, abilities: Abilities) -> Plan:
    """What a planner asked for, as far as the model that maps can do it."""
    most = abilities.units_per_request
    if most is None:
        return plan
    changes: dict[str, Any] = {}
    if plan.shard_size is not None and plan.shard_size > most:
        changes["shard_size"] = most
    if plan.segmentation in {"neighbours", "groups"}:
        changes |= {"segmentation": "rows", "group_columns": None}
    return _updated(plan, changes)
