"""Derive a plan from a task: one model call, checked against what the user fixed. No guessing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pandas_amr._agent import prompts
from pandas_amr._agent.agent import Agent
from pandas_amr._agent.loop import run_agent
from pandas_amr._agent.submission import Submission
from pandas_amr._agent.transcriber import note_origins
from pandas_amr._journal.first_format import PLAN_SYSTEM, PLAN_VIEW
from pandas_amr._journal.keys import describe_type
from pandas_amr._plan.aggregations import column_of, function_of, name_of
from pandas_amr._plan.answer import PlanAnswer, PlanAnswerWithCode
from pandas_amr._plan.answer_plan import AnswerReader, mask_answer_texts
from pandas_amr._plan.call_text import no_plan_error
from pandas_amr._plan.plan import Plan
from pandas_amr._records.engine import run_off_loop
from pandas_amr._records.events import Repaired
from pandas_amr._records.trace import record_event
from pandas_amr._records.transcript import ABOUT_NO_UNIT, Purpose
from pandas_amr._types.canonical import canonical_json
from pandas_amr._types.schema import json_schema
from pandas_amr._units.cells import cell, make_json_keys, to_json_line
from pandas_amr._units.profile import (
    find_rows_in_profiles,
    shorten_text,
    spread,
    write_profiles,
)
from pandas_amr.errors import InvalidOutput, ModelError, ModelUnavailable, PlanWarning
from pandas_amr.models.base import Message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from pandas_amr._agent.submission import Answer
    from pandas_amr._journal.cache import Answers
    from pandas_amr._journal.origins import Origins
    from pandas_amr._plan.call import Job
    from pandas_amr.models.base import Abilities, Model

SAMPLE_ROWS = 8
SAMPLE_CELL_CHARACTERS = 400
PROFILED_VALUES = 5
REPAIRS = 1
NO_ROWS = "no rows"  # in the journal: the plan was made from the schema alone


async def derive(
    job: Job,
    *,
    model: Model,
    readers: Abilities,
    store: Answers | None = None,
    origins: Origins = (),
) -> tuple[Plan, PlanWarning | None]:
    """Complete a plan with one model call, as far as the user left it open.

    Args:
        job: the call; what it fixes stays.
        model: the model that plans.
        readers: the abilities of the model that maps.
        store: where plans are kept.
        origins: the fingerprints of the rows that the planner sees something of.

    Returns:
        The plan, and a warning if a part of the planner's answer is left out.

    Raises:
        PlanError: the request failed, or its answer is unusable; the message says what to pass.
        ModelError: the service failed for good, or cannot be reached now.
    """
    query: PlanQuery = await run_off_loop(_make_query, job, readers, origins, size=len(job.frame))
    note_origins(query.origins)
    reader = AnswerReader(
        PlanAnswerWithCode if query.code else PlanAnswer,
        job,
        alone=readers.units_per_request is not None and not job.all_callable,
    )
    try:
        return await ask_planner(model, query, reader, store)
    except InvalidOutput as error:
        problem = str(error).removesuffix(".")
        raise no_plan_error(f"the planner's answer could not be used ({problem})", job) from None
    except ModelError as error:
        if error.fatal or isinstance(error, ModelUnavailable):
            raise
        problem = str(error).removesuffix(".")
        raise no_plan_error(f"the planner's request failed ({problem})", job) from error


def make_given_plan(job: Job) -> Plan:
    """Return the plan of a call that leaves nothing open."""
    fixed = job.given.fixed()
    if job.task:
        fixed["task"] = job.task
    return Plan(**fixed)


@dataclass(frozen=True)
class PlanQuery:
    """What a planner is asked.

    In the journal the query is known by the task, the columns' names and what is fixed, but not by
    the sample: a frame with some more rows keeps its plan, and so its findings.

    Attributes:
        messages: the prompt.
        code: whether the agents can run code.
        key: the query in the journal.
        former_key: the same, as the first format of the journal has it.
        has_rows: whether the frame has rows.
        origins: the fingerprints of the rows behind the prompt.
    """

    messages: tuple[Message, ...]
    code: bool
    key: list[str]
    former_key: list[str]
    has_rows: bool
    origins: Origins = ()

    @property
    def full_key(self) -> list[str]:
        """The key under which a new plan is kept."""
        return self.key if self.has_rows else [*self.key, NO_ROWS]


def find_shown_rows(job: Job) -> list[int]:
    """Find the rows that the planner sees something of: the sample, and those of rare values."""
    rows = spread(len(job.frame), SAMPLE_ROWS)
    return sorted({*rows, *find_rows_in_profiles(job.sent, job.columns, PROFILED_VALUES)})


def _make_query(job: Job, readers: Abilities, origins: Origins) -> PlanQuery:
    fixed = _describe_fixed(job)
    code = job.repl is not None and bool(readers.tools)
    task = str(job.task)
    columns = json.dumps(sorted(key for key, _ in _keyed_columns(job.frame, job.columns)))
    former_system = PLAN_SYSTEM + (PLAN_VIEW if code else "")
    in_journal = canonical_json(fixed | _describe_types(job))
    return PlanQuery(
        messages=_make_messages(job, readers, fixed, code=code),
        code=code,
        key=["code" if code else "", task, columns, in_journal],
        former_key=[former_system, task, columns, json.dumps(fixed, default=str)],
        has_rows=len(job.frame) > 0,
        origins=origins,
    )


def _make_messages(
    job: Job, readers: Abilities, fixed: Mapping[str, Any], *, code: bool
) -> tuple[Message, ...]:
    tools: dict[str, str] = {}
    if readers.tools is True:
        tools = {tool.name: tool.description for tool in job.tools}
    reader_lines = prompts.reader_lines(
        window=readers.context_window, alone=readers.units_per_request == 1, tools=tools
    )
    user = prompts.plan_user(
        str(job.task),
        columns=write_profiles(job.sent, PROFILED_VALUES, content=job.columns),
        sample=sample_lines(job.sent, job.columns),
        rows=len(job.frame),
        fixed=fixed,
        readers=reader_lines,
    )
    system = prompts.PLAN_SYSTEM + (prompts.PLAN_VIEW if code else "")
    return (Message("system", system), Message("user", user))


async def ask_planner(
    model: Model, query: PlanQuery, reader: AnswerReader, store: Answers | None
) -> tuple[Plan, PlanWarning | None]:
    """Look the plan up in the journal, or ask the model for it.

    Returns:
        The plan, and a warning if a part of the planner's answer is left out.

    Raises:
        ModelError: the service failed.
        InvalidOutput: the answer is unusable, after a repair. The message holds no text of it.
    """
    if store is not None:
        cached = await _recall_plan(store, query, reader)
        if cached is not None:
            return cached
    messages = query.messages
    for attempt in range(REPAIRS + 1):
        is_last = attempt == REPAIRS
        answer = await _ask_once(model, messages, reader, attempt)
        try:
            plan, warning, kept = reader.read_new(_payload_of(answer), is_last=is_last)
        except InvalidOutput as error:
            problem = str(error)
            answer.settle(0, {ABOUT_NO_UNIT: problem})
            if is_last:
                raise InvalidOutput(
                    mask_answer_texts(answer.payload, problem, reader.job)
                ) from None
            messages = (*answer.conversation, Message("user", prompts.answer_repair(problem)))
        else:
            answer.settle(1)
            if attempt:
                record_event(partial(Repaired, units=1))
            if store is not None:
                await store.keep(query.full_key, kept, query.origins)
            return plan, warning
    raise AssertionError("unreachable: the last attempt returns or raises")


async def _ask_once(
    model: Model, messages: Sequence[Message], reader: AnswerReader, attempt: int
) -> Answer:
    purpose = Purpose("plan", is_repair=attempt > 0)
    submission = Submission("plan", json_schema(reader.form))
    return await run_agent(model, messages, submission=submission, phase="plan", purpose=purpose)


async def _recall_plan(
    store: Answers, query: PlanQuery, reader: AnswerReader
) -> tuple[Plan, PlanWarning | None] | None:
    """Look a plan up in the journal.

    A frame without rows takes the plan of one with rows. A plan that was made from the schema alone
    serves frames without rows only.
    """
    origins = query.origins
    cached = await store.recall(query.key, reader.read, former=query.former_key, origins=origins)
    if cached is not None or query.has_rows:
        return cached
    return await store.recall(
        [*query.key, NO_ROWS], reader.read, former=[*query.former_key, NO_ROWS]
    )


def _payload_of(answer: Answer) -> Any:
    """Return what an agent submitted.

    Raises:
        InvalidOutput: it is not a JSON object; or it was cut off, so that a part may be missing.
    """
    if answer.problem is not None:
        raise InvalidOutput(answer.problem)
    return answer.payload


def sample_lines(frame: pd.DataFrame, columns: Sequence[int]) -> list[str]:
    """Write some rows from the whole frame as JSON lines, long cells shortened."""
    keyed = _keyed_columns(frame, columns)
    lines = []
    for row in spread(len(frame), SAMPLE_ROWS):
        values = {key: cell(frame.iloc[row, column]) for key, column in keyed}
        lines.append(to_json_line({key: _shorten(value) for key, value in values.items()}))
    return lines


def _keyed_columns(frame: pd.DataFrame, columns: Sequence[int]) -> list[tuple[str, int]]:
    keys = make_json_keys([frame.columns[column] for column in columns])
    return list(zip(keys, columns, strict=True))


def _shorten(value: object) -> Any:
    if isinstance(value, str):
        return shorten_text(value, SAMPLE_CELL_CHARACTERS)
    return value


def _describe_fixed(job: Job) -> dict[str, Any]:
    """Return what the user fixed as the planner reads it."""
    fixed: dict[str, Any] = {}
    for name, value in job.given.fixed().items():
        if name != "redact":  # what was taken out is no part of the question
            fixed[name] = _describe_field(name, value)
    return fixed | _describe_functions(job) | _describe_reduce(job)


def _describe_field(name: str, value: Any) -> Any:
    if name in {"finding", "output"}:
        if isinstance(value, dict):
            return {key: json_schema(part) for key, part in value.items()}
        return json_schema(value)
    if name == "by":
        return Plan(by=value.replace_keys(value.described)).plain()[name]
    if name == "ranking":
        return Plan(ranking=value).plain()[name]
    return value


def _describe_types(job: Job) -> dict[str, Any]:
    """Return the types that the user fixed as the journal has them."""
    described: dict[str, Any] = {}
    for field in ("finding", "output"):
        kind = getattr(job.given, field)
        if isinstance(kind, dict):
            described[field] = {name: describe_type(part) for name, part in kind.items()}
        elif kind is not None:
            described[field] = describe_type(kind)
    return described


def _describe_functions(job: Job) -> dict[str, Any]:
    """Tell the planner which maps are functions; of what they find it knows only given fields."""
    if not job.callables:
        return {}
    return {"map": {name or "map": "a function of the user's" for name in job.callables}}


def _describe_reduce(job: Job) -> dict[str, Any]:
    """Tell the planner which columns the user aggregates, unless the plan holds it."""
    if job.computed is None or job.given.aggregations is not None:
        return {}
    described: dict[str, Any] = {}
    for name, how in job.computed.items():
        function = _function_text(function_of(how))
        described[str(name)] = {"field": column_of(name, how), "by": function}
    return {"reduce": described}


def _function_text(function: object) -> str | list[str]:
    """Name an aggregation, but not by its address, which differs from process to process."""
    if isinstance(function, list):
        return [name_of(part) for part in function]
    if isinstance(function, Agent):
        return function.text
    return name_of(function)
