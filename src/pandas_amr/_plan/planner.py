"""From a task to a plan: one model call, checked against what the user fixed; never a guess at what the task says."""

from __future__ import annotations

import contextlib
import itertools
import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import Field, ValidationError

from pandas_amr._agent import prompts
from pandas_amr._agent.agent import Agent
from pandas_amr._agent.dispatch import complaint
from pandas_amr._agent.loop import Submission, run_agent
from pandas_amr._findings.finding_type import ITEMS
from pandas_amr._journal.first_format import PLAN_SYSTEM, PLAN_VIEW
from pandas_amr._journal.keys import describe_type
from pandas_amr._plan.aggregations import column_of, function_of, name_of
from pandas_amr._plan.answer import (
    Asked,
    PlanAnswer,
    PlanAnswerWithCode,
    PlannedFields,
    drop_implausible,
    is_always,
    right_words,
)
from pandas_amr._plan.call import check_names, finding_types, row_types
from pandas_amr._plan.call_text import no_plan, types_given
from pandas_amr._plan.defaults import default_aggregations, free_name, updated
from pandas_amr._plan.plan import Aggregation, Plan, Ranking, View
from pandas_amr._plan.trial import Trial
from pandas_amr._types.arrow import sort_of
from pandas_amr._types.canonical import canonical_json
from pandas_amr._types.schema import RESERVED, TEXT_FINDING, UNUSABLE, json_schema, record_type
from pandas_amr._units.by import By
from pandas_amr._units.cells import cell, json_keys, line_of
from pandas_amr._units.neighbours import Segmentation
from pandas_amr._units.profile import profile_lines, shortened, spread
from pandas_amr.errors import InvalidOutput, ModelError, ModelUnavailable, PlanWarning, UsageError
from pandas_amr.models.base import Message

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

    import pandas as pd

    from pandas_amr._agent.loop import Answer
    from pandas_amr._journal.cache import AnswerStore
    from pandas_amr._plan.answer import PlannedField
    from pandas_amr._plan.call import Job
    from pandas_amr.models.base import Abilities, Model

SAMPLE_ROWS = 8
SAMPLE_CELL_CHARACTERS = 400
PROFILED_VALUES = 5
REPAIRS = 1
DROPPED = "dropped"  # in an answer that is kept: what was taken out of it
NO_ROWS = "no rows"  # marks a plan in the journal that was made from the schema alone

RANKED = frozenset({"number", "date"})  # sorts of values that rank rows

# What a planner chooses from; none of it is a word of its own.
VOCABULARY = frozenset((*get_args(Segmentation), *get_args(View), *get_args(Aggregation)))

_TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "list[str]": list[str],
}


async def ask_planner(
    model: Model,
    job: Job,
    *,
    fixed: Mapping[str, Any],
    known_by: Mapping[str, Any],
    readers: Sequence[str],
    code: bool,
    alone: bool,
    store: AnswerStore | None,
) -> tuple[Plan, PlanWarning | None]:
    """Complete a plan with one model call, from the task, the schema and a sample.

    ``fixed`` is what the user gave, as the planner reads it; ``readers`` says what those who read can do, and
    ``alone`` whether they can judge a unit by itself only.

    In the journal it is known by the task, the columns and what is fixed (``known_by``, as the journal writes types),
    and not by the sample: a frame with some rows more keeps its plan, and so its findings; a frame with none takes the
    plan of those that had some. A plan that was made from the schema alone serves empty frames only.

    Returns:
        The plan, and a warning if a part of the planner's is left out.

    Raises:
        ModelError: the service failed.
        InvalidOutput: the answer cannot be used, after a repair; the message holds none of its own words.
    """
    kind = PlanAnswerWithCode if code else PlanAnswer
    task, frame, columns = str(job.task), job.frame, job.columns
    user = prompts.plan_user(
        task,
        columns=profile_lines(frame, PROFILED_VALUES, content=columns),
        sample=sample_lines(frame, columns),
        rows=len(frame),
        fixed=fixed,
        readers=readers,
    )
    messages: tuple[Message, ...] = (
        Message("system", prompts.PLAN_SYSTEM + (prompts.PLAN_VIEW if code else "")),
        Message("user", user),
    )
    submission = Submission("plan", json_schema(kind))
    named = json.dumps(sorted(key for key, _ in _keyed(frame, columns)))
    asked = ["code" if code else "", task, named, canonical_json(dict(known_by))]
    former = [
        PLAN_SYSTEM + (PLAN_VIEW if code else ""),
        task,
        named,
        json.dumps(dict(fixed), default=str),
    ]
    read = partial(_plan_of, kind, job=job, alone=alone)
    key = asked
    for rows in [[]] if len(frame) else [[], [NO_ROWS]]:
        key = [*asked, *rows]
        known = (
            await store.recall(key, read, former=[*former, *rows]) if store is not None else None
        )
        if known is not None:
            return known
    for attempt in range(REPAIRS + 1):
        answer = await run_agent(model, messages, submission=submission, phase="plan")
        try:
            made, warning, kept = _made_of(
                kind, _whole(answer), job, alone=alone, last=attempt == REPAIRS
            )
        except InvalidOutput as error:
            if attempt == REPAIRS:
                raise InvalidOutput(_without_words_of(answer.payload, str(error), job)) from None
            messages = (*answer.conversation, Message("user", prompts.answer_repair(str(error))))
        else:
            if store is not None:
                await store.keep(key, kept)
            return made, warning
    raise AssertionError("unreachable: the last attempt returns or raises")


def _whole(answer: Answer) -> Any:
    """What an agent handed in.

    Raises:
        InvalidOutput: it is no JSON object, or was cut off: what is missing might be where a plan says most.
    """
    if answer.problem is not None:
        raise InvalidOutput(answer.problem)
    return answer.payload


def _made_of(
    kind: type[PlanAnswer], payload: Any, job: Job, *, alone: bool, last: bool
) -> tuple[Plan, PlanWarning | None, dict[str, Any]]:
    """Read an answer, and take what is implausible out of it.

    Returns:
        The plan, a warning if a part of the answer is left out, and the answer as it is kept.

    Raises:
        InvalidOutput: it cannot be used.
    """
    names = frozenset(map(str, [*job.frame.columns, *types_given(job)]))
    asked = Asked(job.frame, job.columns, names, free=job.given.output is None, last=last)
    whole, dropped = drop_implausible(_validated(kind, payload), asked)
    kept = whole.model_dump() | ({DROPPED: dropped} if dropped else {})
    plan, warning = _plan_of(kind, kept, job, alone=alone)
    return plan, warning, kept


def _validated(kind: type[PlanAnswer], payload: Any) -> PlanAnswer:
    """An answer in its form.

    Raises:
        InvalidOutput: it has not; the message says what would be right for the parts that are wrong.
    """
    try:
        return kind.model_validate(payload)
    except ValidationError as error:
        parts = [str(problem["loc"][0]) for problem in error.errors() if problem["loc"]]
        right = right_words(parts)
        raise InvalidOutput(
            complaint(error) + (f". Right would be: {right}" if right else "")
        ) from None


def _plan_of(
    kind: type[PlanAnswer], payload: Any, job: Job, *, alone: bool
) -> tuple[Plan, PlanWarning | None]:
    """Complete what the user fixed with an answer. What is fixed stands, and the answer has to fit it.

    Raises:
        InvalidOutput: it does not, or it names what is not there.
    """
    whole = _validated(kind, payload)
    dropped = payload.get(DROPPED, ()) if isinstance(payload, dict) else ()
    try:
        answer = _open_parts(whole, job)
        _check_segmentation(answer, job, alone=alone)
        _check_ranking(answer, job)
        derived = {
            name: value for name, value in _fields_of(answer, job).items() if value is not None
        }
        plan = Plan(**(derived | job.given.fixed() | {"task": job.task, "made_by": "planner"}))
        check_names(replace(job, by=plan.by), plan)
    except ValidationError as error:
        raise InvalidOutput(complaint(error)) from None
    except UsageError as error:
        raise InvalidOutput(str(error)) from None
    return plan, _joined_warnings(_left_out(whole, job), _dropped_warning(dropped))


def _joined_warnings(*warnings: PlanWarning | None) -> PlanWarning | None:
    told = [str(warning) for warning in warnings if warning is not None]
    return PlanWarning(" ".join(told)) if told else None


def _dropped_warning(dropped: object) -> PlanWarning | None:
    """Tell what was implausible in an answer."""
    told = [one for one in dropped if isinstance(one, str)] if isinstance(dropped, list) else []
    if not told:
        return None
    return PlanWarning(
        f"Left out of the planner's answer, being implausible: {'; '.join(told)}. Say plan= to fix it."
    )


def _open_parts(answer: PlanAnswer, job: Job) -> PlanAnswer:
    """Take the parts of an answer out that the user has said already."""
    fixed = job.given.fixed()
    said: dict[str, Any] = {}
    if "reduce_instruction" not in job.open:
        said |= {
            "where": None,
            "by": [],
            "aggregations": [],
            "ranking": None,
            "reduce_instruction": None,
        }
    if "where" in fixed:
        said["where"] = None
    if "by" in fixed:
        said["by"] = []
    if "segmentation" in fixed:
        said |= {"segmentation": "rows", "group_columns": []}
    return answer.model_copy(update=said)


def _left_out(answer: PlanAnswer, job: Job) -> PlanWarning | None:
    """Tell which rows and groups a planner would have added to a reduce that is the user's."""
    if not job.reduces or "reduce_instruction" in job.open:
        return None
    fixed = job.given.fixed()
    left_out = []
    if answer.where and "where" not in fixed and not is_always(answer.where):
        left_out.append(f"where={answer.where!r}")
    if answer.by and "by" not in fixed:
        left_out.append(f"by={answer.by!r}")
    if not left_out:
        return None
    told = _without_words_of(answer.model_dump(), " and ".join(left_out), job)
    return PlanWarning(
        f"The planner also gave {told}; it is left out, since the reduce is yours. "
        "Say by=, or plan={'where': ...}, if it is meant."
    )


def _without_words_of(payload: object, said: str, job: Job) -> str:
    """Take an answer's own words out of a message: they may be a cell's. Names of fields and columns stay."""
    known = {str(name) for name in [*job.frame.columns, *types_given(job)]}
    with contextlib.suppress(ValidationError):  # then no message names its fields
        known |= {field.name for field in PlannedFields.model_validate(payload).finding}
    for text in _texts_in(payload) - known - VOCABULARY:
        said = said.replace(repr(text), "'...'")
    return said


def _texts_in(payload: object) -> set[str]:
    """All texts in decoded JSON."""
    match payload:
        case str():
            return {payload}
        case dict():
            parts = list(payload.values())
        case list():
            parts = payload
        case _:
            parts = []
    texts: set[str] = set()
    for part in parts:
        texts |= _texts_in(part)
    return texts


def _keyed(frame: pd.DataFrame, columns: Sequence[int]) -> list[tuple[str, int]]:
    return list(zip(json_keys([frame.columns[column] for column in columns]), columns, strict=True))


def sample_lines(frame: pd.DataFrame, columns: Sequence[int]) -> list[str]:
    """A few rows from all over the frame, the first and the last among them, long cells shortened."""
    rows = spread(len(frame), SAMPLE_ROWS)
    keyed = _keyed(frame, columns)
    return [
        line_of({key: _short(cell(frame.iloc[row, column])) for key, column in keyed})
        for row in rows
    ]


def _short(value: Any) -> Any:
    return shortened(value, SAMPLE_CELL_CHARACTERS) if isinstance(value, str) else value


def _fields_of(answer: PlanAnswer, job: Job) -> dict[str, Any]:
    """The answer as plan fields; a finding never takes the name of a column that is there already.

    It may speak of the fields of a given finding, and then of no others.

    Raises:
        InvalidOutput: a part of it names a field or a column that is not there, or leaves out what the user named.
    """
    labels = _labels(job.frame)
    fields: dict[str, Any] = {}
    if "finding" in job.open:
        named = _free_names(answer, job)
        types: dict[Any, Any] = {named[field.name]: _kind_of(field)[0] for field in answer.finding}
        fields["finding"] = _finding_of(answer, named)
        _check_needed(job, types)
    else:
        types = types_given(job)
        named = {str(name): name for name in types}
        if all(kind is not None for kind in finding_types(job, job.given).values()):
            _check_needed(job, types)
    _check_parts(answer, types, named, labels)
    if "map_instruction" in job.open:
        fields["map_instruction"] = answer.map_instruction
    fields |= {
        "segmentation": answer.segmentation,
        "group_columns": [labels[name] for name in answer.group_columns] or None,
        "view": getattr(answer, "view", None),
        "shard_size": answer.shard_size,
        "parallelism": answer.parallelism,
        "where": named.get(answer.where) if answer.where else None,
        "by": [named.get(name, labels.get(name)) for name in answer.by] or None,
        "aggregations": _aggregations_of(answer, named) or None,
        "ranking": _ranking_of(answer, named),
        "reduce_instruction": answer.reduce_instruction,
    }
    _check_types(fields, types, job)
    if not answer.reduce_instruction and _is_joined(fields, types, job):
        fields["reduce_instruction"] = job.task  # agents read the question as it was asked
    return fields


def _aggregations_of(answer: PlanAnswer, named: Mapping[str, Any]) -> dict[Any, Any]:
    """What is computed, by column: one function, or a list of several."""
    functions: dict[Any, list[Aggregation]] = {}
    for part in answer.aggregations:
        functions.setdefault(named[part.field], []).append(part.function)
    return {
        name: several if len(several) > 1 else several[0] for name, several in functions.items()
    }


def _ranking_of(answer: PlanAnswer, named: Mapping[str, Any]) -> Ranking | None:
    ranking = answer.ranking
    if ranking is None:
        return None
    field = named.get(ranking.field, ranking.field)
    return Ranking(field=field, most=ranking.most, lowest_first=ranking.lowest_first)


def _is_joined(fields: Mapping[str, Any], types: Mapping[Any, Any], job: Job) -> bool:
    """Whether agents make the answer of what is computed: of two answers, or for a type that pandas does not give."""
    output = job.given.output
    if fields["ranking"] is not None:
        return bool(fields["aggregations"]) or output is not None
    return not _gives(fields["aggregations"], output, types, job)


def _check_ranking(answer: PlanAnswer, job: Job) -> None:
    """Whether rows are ranked where one number is asked for.

    Raises:
        InvalidOutput: they are; nothing would come of it.
    """
    output = job.given.output
    if answer.ranking is not None and (output is int or output is float):
        raise InvalidOutput(
            "the user's output is one number, and a ranking gives rows; right would be: null"
        )


def _labels(frame: pd.DataFrame) -> dict[str, Hashable]:
    """The columns by their text; one that two columns share names neither."""
    texts = [str(label) for label in frame.columns]
    return {
        text: label
        for text, label in zip(texts, frame.columns, strict=True)
        if texts.count(text) == 1
    }


def _finding_of(answer: PlanAnswer, names: Mapping[str, str]) -> Any:
    """The type of a finding, as an answer gives it; the fields are called as ``names`` says.

    Raises:
        InvalidOutput: a field cannot be.
    """
    for field in answer.finding:
        if field.choices and field.type != "str":
            raise InvalidOutput(
                f"{field.name!r} is of type {field.type} and has choices; only a str has them"
            )
    try:
        finding = record_type(
            "Finding", {names[field.name]: _kind_of(field) for field in answer.finding}
        )
    except UsageError as error:
        raise InvalidOutput(str(error)) from None
    return list[finding] if answer.many_per_row else finding  # type: ignore[valid-type]


def _check_segmentation(answer: PlanAnswer, job: Job, *, alone: bool) -> None:
    """Whether units can be judged as the answer says.

    Raises:
        InvalidOutput: what the user fixed, or those who read, take units that are judged alone; or the groups' columns
            are missing.
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
    taken |= set(job.given.status_columns or ())
    names = [field.name for field in answer.finding]
    if doubled := next((name for name in names if names.count(name) > 1), None):
        raise InvalidOutput(f"finding names {doubled!r} twice")
    free = {name: name for name in names if name not in taken}
    for name in names:
        if name not in free:
            free[name] = next(
                one for one in _variants(name) if one not in taken | set(names) | set(free.values())
            )
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
    computed = {
        column_of(name, how): function_of(how) for name, how in (job.computed or {}).items()
    }
    ranking = [job.given.ranking.field] if job.given.ranking else []
    for what, names, known in (
        ("where", [job.given.where] if job.given.where else [], types.keys()),
        ("by", job.by.labels if job.by else (), there | set(job.frame.index.names)),
        ("ranking", ranking, there),
        ("reduce", list(computed), there),
    ):
        left_out = [name for name in names if name not in known]
        if left_out:
            raise InvalidOutput(
                f"the user's {what} takes a field {left_out[0]!r}, which the finding has not"
            )
    trial = Trial.of(job.frame, types, [*computed, *ranking], job.by)
    problem = (
        trial.where_problem(job.given.where)
        or trial.by_problem()
        or trial.ranking_problem(job.given.ranking)
    )
    for name, how in (job.computed or {}).items():
        problem = problem or (
            trial.aggregation_problem(name, how) if column_of(name, how) in types else None
        )
    if problem is not None:
        raise InvalidOutput(f"the user asks for what the finding's types cannot give: {problem}")


def _check_parts(
    answer: PlanAnswer,
    types: Mapping[Any, Any],
    named: Mapping[str, Any],
    labels: Mapping[str, Any],
) -> None:
    """Whether the fields and columns are there that the parts of an answer name.

    Raises:
        InvalidOutput: one is not; the message says what there is, and what would be right.
    """
    there = {**named, **labels}
    bools = [name for name, own in named.items() if sort_of(types[own]) == "bool"]
    ranked = [name for name, own in named.items() if sort_of(types[own]) in RANKED]
    _check_named("aggregations", [part.field for part in answer.aggregations], named, list(named))
    _check_named("where", [answer.where] if answer.where else [], named, ["null", *bools])
    _check_named(
        "ranking", [answer.ranking.field] if answer.ranking else [], there, ["null", *ranked]
    )
    _check_named("by", answer.by, there, ["[]", *there])
    _check_named("group_columns", answer.group_columns, labels, ["[]", *labels])


def _check_named(
    what: str, names: Sequence[str], there: Mapping[str, Any], right: Sequence[str]
) -> None:
    unknown = [name for name in names if name not in there]
    if unknown:
        raise InvalidOutput(
            f"{what} names {unknown[0]!r}; there is: {', '.join(there)}. Right would be: {' or '.join(right)}"
        )


def _check_types(fields: Mapping[str, Any], types: Mapping[Any, Any], job: Job) -> None:
    """Refuse a plan that asks for what pandas cannot compute of the fields that it plans.

    Raises:
        InvalidOutput: it does.
    """
    ranking, aggregations = fields["ranking"], fields["aggregations"] or {}
    by = By(*fields["by"]) if fields["by"] else None
    trial = Trial.of(job.frame, types, [*aggregations, *([ranking.field] if ranking else [])], by)
    _check_problem(trial.where_problem(fields["where"]), types, frozenset({"bool"}))
    _check_problem(trial.ranking_problem(ranking), types, RANKED)
    problem = trial.by_problem()
    for name, how in aggregations.items():
        unfit = trial.aggregation_problem(name, how)
        problem = problem or (f"aggregations: {unfit}" if unfit else None)
    if problem is not None:
        raise InvalidOutput(problem)


def _check_problem(problem: str | None, types: Mapping[Any, Any], sorts: frozenset[str]) -> None:
    """Send a part back that a field of another sort would suit, or null.

    Raises:
        InvalidOutput: there is a problem.
    """
    if problem is not None:
        suited = [str(name) for name, kind in types.items() if sort_of(kind) in sorts]
        raise InvalidOutput(f"{problem}. Right would be: {' or '.join(['null', *suited])}")


def _kind_of(field: PlannedField) -> Any:
    import datetime as dt  # noqa: PLC0415

    kind = (
        Literal[tuple(field.choices)]
        if field.choices and field.type == "str"
        else _TYPES.get(field.type, dt.date)
    )
    return (kind | None, Field(description=field.description))


async def derive(
    job: Job, *, model: Model, readers: Abilities, store: AnswerStore | None = None
) -> tuple[Plan, PlanWarning | None]:
    """Complete a plan with one model call, as far as the user left it open. What is given stands.

    ``readers`` are the abilities of the model that maps.

    Returns:
        The plan, and a warning if a part of the planner's is left out.

    Raises:
        PlanError: the planner's request or its answer was no use; the message says what to pass.
        ModelError: the service serves nothing more, or is not to be had now.
    """
    given = job.given.fixed()
    fixed = {name: _shown(name, value) for name, value in given.items()}
    fixed |= _shown_functions(job) | _shown_reduce(job)
    known_by = fixed | {
        name: _described(given[name]) for name in ("finding", "output") if name in given
    }
    code = job.repl is not None and bool(readers.tools)
    tools = {tool.name: tool.description for tool in job.tools} if readers.tools is True else {}
    alone = readers.units_per_request is not None and not job.all_callable
    words = prompts.reader_lines(
        window=readers.context_window, alone=readers.units_per_request == 1, tools=tools
    )
    try:
        return await ask_planner(
            model,
            job,
            fixed=fixed,
            known_by=known_by,
            readers=words,
            code=code,
            alone=alone,
            store=store,
        )
    except InvalidOutput as error:
        raise no_plan(
            f"the planner's answer could not be used ({str(error).removesuffix('.')})", job
        ) from None
    except ModelError as error:
        if error.stops_run or isinstance(error, ModelUnavailable):
            raise
        raise no_plan(
            f"the planner's request failed ({str(error).removesuffix('.')})", job
        ) from error


def given_plan(job: Job) -> Plan:
    """The plan of a call that leaves nothing open."""
    fixed = job.given.fixed()
    if job.task:
        fixed["task"] = job.task
    return Plan(**fixed)


def _gives(
    aggregations: Mapping[str, Any] | None, output: Any, types: Mapping[Any, Any], job: Job
) -> bool:
    """Whether what is computed is what the user asks for: one number. All else an agent writes from it."""
    if not aggregations or output is None:
        return True  # nothing is computed, or nothing else is asked for
    if len(aggregations) != 1 or output not in {int, float}:
        return False
    trial = Trial.of(job.frame, types, aggregations, job.by)
    problems = [trial.aggregation_problem(name, how) for name, how in aggregations.items()]
    return problems == [None] and trial.output_problem(aggregations, output) is None


def _described(types: Any) -> Any:
    """A fixed type, or one for each named map, as the journal writes it."""
    if isinstance(types, dict):
        return {name: describe_type(kind) for name, kind in types.items()}
    return describe_type(types)


def _shown(name: str, value: Any) -> Any:
    """A fixed field as the planner reads it."""
    if name in {"finding", "output"}:
        return (
            {key: json_schema(part) for key, part in value.items()}
            if isinstance(value, dict)
            else json_schema(value)
        )
    if name == "by" and isinstance(value, By):
        return Plan(by=value.with_keys(value.described)).plain()[name]
    return Plan(**{name: value}).plain()[name] if name in {"by", "ranking"} else value


def _shown_functions(job: Job) -> dict[str, Any]:
    """Which maps are functions: nothing is known of what they find but the fields that the user gave."""
    if not job.callables:
        return {}
    return {"map": {name or "map": "a function of the user's" for name in job.callables}}


def _shown_reduce(job: Job) -> dict[str, Any]:
    """What is computed and stands in no plan, as the planner reads it: it has to find the columns of it."""
    if job.computed is None or job.given.aggregations is not None:
        return {}
    hows = {name: function_of(how) for name, how in job.computed.items()}
    said = {name: _said(how) for name, how in hows.items()}
    return {
        "reduce": {
            str(name): {"field": column_of(name, how), "by": said[name]}
            for name, how in job.computed.items()
        }
    }


def _said(how: Any) -> str | list[str]:
    """What an aggregation is called: never by an address, which is another in each process."""
    if isinstance(how, list):
        return [name_of(one) for one in how]
    return how.text if isinstance(how, Agent) else name_of(how)


def fill_by_type(plan: Plan, job: Job, *, writes: bool) -> Plan:
    """Set what no task asks for, by types: a text as the finding, and as the reduce what pandas can say of each field.

    ``writes`` says whether the model that reduces can write from findings. It does where an output is asked for that
    pandas does not give, and where the findings hold nothing that can be computed.
    """
    if job.maps and not job.callables and plan.finding is None:
        name = free_name(TEXT_FINDING, set(map(str, job.frame.columns)))
        plan = updated(
            plan, {"finding": record_type("Finding", {name: (str, Field(min_length=1))})}
        )
    said = (job.reducer, job.computed, plan.ranking, plan.aggregations, plan.reduce_instruction)
    if not job.reduces or any(one is not None for one in said):
        return plan
    types = row_types(finding_types(job, plan))
    if not types and not writes:
        return plan  # what functions find is not known yet
    aggregations = default_aggregations(types)
    if plan.where is not None:
        aggregations[plan.where] = "sum"  # it is true in all rows that are left: how many they are
    texts_only = {how for name, how in aggregations.items() if name != plan.where} == {"count"}
    computed = not (writes and texts_only) and _gives(aggregations, plan.output, types, job)
    if types and computed:
        return updated(plan, {"aggregations": aggregations})
    return updated(plan, {"reduce_instruction": plan.task or prompts.DEFAULT_REDUCE})
