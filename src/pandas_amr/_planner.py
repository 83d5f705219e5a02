"""From a task to a plan: one model call where the model can, rules where it cannot."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, Field, ValidationError

from pandas_amr import _prompts
from pandas_amr._agent.dispatch import complaint
from pandas_amr._agent.loop import Submission, run_agent
from pandas_amr._plan import Aggregation, Plan, View
from pandas_amr._schema import choices_of, json_schema, record_type, without_none
from pandas_amr._units import cell, json_keys, line_of
from pandas_amr.errors import ModelError, PlanWarning
from pandas_amr.models.base import Message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from pandas_amr._call import Job
    from pandas_amr.models.base import Abilities, Model

SAMPLE_ROWS = 8
SAMPLE_CELL_CHARACTERS = 400
REPAIRS = 1

SHARD_SIZE = 20
CALLABLE_SHARD_SIZE = 1000
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


class PlanAnswer(BaseModel):
    """What a planner answers."""

    map_instruction: str = Field(min_length=1)
    finding: list[PlannedField] = Field(min_length=1)
    shard_size: int = Field(ge=1, le=200)
    parallelism: int = Field(ge=1, le=64)
    aggregations: list[PlannedAggregation]
    reduce_instruction: str


class PlanAnswerWithCode(PlanAnswer):
    """What a planner answers where agents can run code."""

    view: View
    shard_size: int = Field(ge=1, le=100_000)


async def ask_planner(
    model: Model,
    task: str,
    *,
    frame: pd.DataFrame,
    columns: Sequence[int],
    fixed: Mapping[str, Any],
    code: bool,
    store: PlanStore | None,
) -> dict[str, Any]:
    """The fields of a plan that one model call derives from the task, the schema and a sample.

    In the journal it is known by the task, the schema and what is fixed, and not by the sample: a frame with some rows
    more keeps its plan, and so its findings.

    Raises:
        ModelError: the service failed.
        ValidationError: the answer cannot be used, after a repair.
    """
    kind = PlanAnswerWithCode if code else PlanAnswer
    kinds = {key: str(frame.dtypes.iloc[column]) for key, column in _keyed(frame, columns)}
    user = _prompts.plan_user(
        task,
        columns=kinds,
        sample=sample_lines(frame, columns),
        rows=len(frame),
        fixed=fixed,
    )
    messages: tuple[Message, ...] = (
        Message("system", _prompts.PLAN_SYSTEM + (_prompts.PLAN_VIEW if code else "")),
        Message("user", user),
    )
    submission = Submission("plan", json_schema(kind))
    asked = [str(messages[0].content), task, json.dumps(sorted(kinds)), json.dumps(dict(fixed), default=str)]
    known = await store.recall(asked) if store is not None else None
    if known is not None:
        with contextlib.suppress(ValidationError):  # then it is asked anew
            return _fields_of(kind.model_validate(known), frame)
    for attempt in range(REPAIRS + 1):
        answer = await run_agent(model, messages, submission=submission, phase="plan")
        try:
            planned = _fields_of(kind.model_validate(answer.payload), frame)
        except ValidationError as error:
            if attempt == REPAIRS:
                raise
            problem = answer.problem or complaint(error)
            messages = (*answer.conversation, Message("user", _prompts.answer_repair(problem)))
        else:
            if store is not None:
                await store.keep(asked, answer.payload)
            return planned
    raise AssertionError("unreachable: the last attempt returns or raises")


def _keyed(frame: pd.DataFrame, columns: Sequence[int]) -> list[tuple[str, int]]:
    return list(zip(json_keys([frame.columns[column] for column in columns]), columns, strict=True))


def sample_lines(frame: pd.DataFrame, columns: Sequence[int]) -> list[str]:
    """A few rows from all over the frame, long cells shortened."""
    step = max(1, len(frame) // SAMPLE_ROWS)
    keyed = _keyed(frame, columns)
    return [
        line_of({key: _short(cell(frame.iloc[row, column])) for key, column in keyed})
        for row in range(0, len(frame), step)
    ][:SAMPLE_ROWS]


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > SAMPLE_CELL_CHARACTERS:
        return value[:SAMPLE_CELL_CHARACTERS] + " ..."
    return value


def _fields_of(answer: PlanAnswer, frame: pd.DataFrame) -> dict[str, Any]:
    """The answer as plan fields; a finding never takes the name of a column that is there already."""
    taken = {str(name) for name in frame.columns} | {"unit"}
    named = {field.name: field.name if field.name not in taken else f"{field.name}_found" for field in answer.finding}
    aggregations: dict[str, list[Aggregation]] = {}
    for part in answer.aggregations:
        if part.field in named:
            aggregations.setdefault(named[part.field], []).append(part.function)
    return {
        "map_instruction": answer.map_instruction,
        "finding": record_type("Finding", {named[field.name]: _kind_of(field) for field in answer.finding}),
        "view": getattr(answer, "view", None),
        "shard_size": answer.shard_size,
        "parallelism": answer.parallelism,
        "aggregations": {name: parts if len(parts) > 1 else parts[0] for name, parts in aggregations.items()} or None,
        "reduce_instruction": answer.reduce_instruction or None,
    }


def _kind_of(field: PlannedField) -> Any:
    import datetime as dt  # noqa: PLC0415

    kind = Literal[tuple(field.choices)] if field.choices and field.type == "str" else _TYPES.get(field.type, dt.date)
    return (kind | None, Field(description=field.description))


class PlanStore(Protocol):
    """Where accepted plans are kept, by what was asked."""

    async def recall(self, asked: Sequence[str]) -> Any:
        """The answer's payload, or None."""
        ...

    async def keep(self, asked: Sequence[str], payload: Any) -> None:
        """Make an answer durable."""
        ...


async def derive(
    job: Job, *, model: Model | None, abilities: Abilities, store: PlanStore | None = None
) -> tuple[Plan, PlanWarning | None]:
    """Complete a plan with one model call, as far as the user left it open. What is given stands.

    Returns:
        The plan, and a warning where the model cannot plan or its answer cannot be used: rules do the rest then.
    """
    fixed = job.given.fixed()
    task = {"task": job.task} if job.task else {}
    if not job.open:
        return Plan(**(fixed | task)), None
    derived, warning = await _planned(job, model, abilities, fixed, store)
    if "reduce_instruction" not in job.open:
        derived = {name: value for name, value in derived.items() if name not in {"reduce_instruction", "aggregations"}}
    kept = {name: value for name, value in derived.items() if name not in fixed and value is not None}
    return Plan(**(kept | fixed | task | {"made_by": "rules" if warning else "planner"})), warning


async def _planned(
    job: Job, model: Model | None, abilities: Abilities, fixed: dict[str, Any], store: PlanStore | None
) -> tuple[dict[str, Any], PlanWarning | None]:
    if not len(job.frame):
        reason = "the frame is empty"
    elif model is None or not abilities.planning:
        reason = "this model cannot plan"
    else:
        shown = {name: json_schema(value) if name in {"finding", "output"} else value for name, value in fixed.items()}
        code = job.repl is not None and abilities.tools
        try:
            fields = await ask_planner(
                model, str(job.task), frame=job.frame, columns=job.columns, fixed=shown, code=code, store=store
            )
        except ValidationError as error:
            reason = f"the planner's answer could not be used ({complaint(error)})"
        except ModelError as error:
            if error.stops_run:
                raise
            reason = str(error)
        else:
            return fields, None
    return {}, PlanWarning(f"The plan was made by rule: {reason}. Fix what you want in plan=, map=, finding=, reduce=.")


def complete_by_rule(plan: Plan, job: Job, *, abilities: Abilities, parallelism: int | None) -> Plan:
    """Fill in what is still open, by rules that anyone can read here."""
    of_callables = job.all_callable
    size = PREVIEW_SHARD_SIZE if plan.view == "preview" else abilities.units_per_request or SHARD_SIZE
    rules: dict[str, Any] = {
        "view": None if of_callables else "inline",
        "shard_size": CALLABLE_SHARD_SIZE if of_callables else size,
        "shard_tokens": min(SHARD_TOKENS, abilities.context_window // 3),
        "parallelism": parallelism or PARALLELISM,
        "dedupe": True,
        "keyed": "shard" if plan.view == "preview" else "unit",
        "max_repairs": MAX_REPAIRS,
    }
    if job.maps and not job.callables:
        rules["map_instruction"] = plan.task or _prompts.DEFAULT_MAP
        if plan.finding is None:
            rules["finding"] = record_type("Finding", {"finding": str})
    decided = job.reducer is not None or job.computed is not None
    if job.reduces and not decided and plan.aggregations is None and plan.reduce_instruction is None:
        if abilities.units_per_request is None:
            rules["reduce_instruction"] = plan.task or _prompts.DEFAULT_REDUCE
        elif isinstance(finding := plan.finding or rules.get("finding"), type):
            rules["aggregations"] = default_aggregations(finding)
    plan = _bearable(plan, abilities)
    return plan.model_copy(update={name: value for name, value in rules.items() if getattr(plan, name) is None})


def _bearable(plan: Plan, abilities: Abilities) -> Plan:
    """What a planner asked for, as far as the model that maps can do it."""
    most = abilities.units_per_request
    if most is not None and plan.shard_size is not None and plan.shard_size > most:
        return plan.model_copy(update={"shard_size": most})
    return plan


def default_aggregations(finding: type[BaseModel]) -> dict[str, Aggregation]:
    """What pandas can say of each field: counts of choices, means of numbers, the number of texts."""
    return {name: _aggregation_of(field.annotation) for name, field in finding.model_fields.items()}


def _aggregation_of(annotation: Any) -> Aggregation:
    kind, _ = without_none(annotation)
    if choices_of(kind) is not None:
        return "value_counts"
    return "mean" if isinstance(kind, type) and issubclass(kind, int | float) else "count"
