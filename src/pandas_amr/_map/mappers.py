"""Who maps: agents and functions of the user's, and the journal around them."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from pandas_amr._agent.agent import NoInstruction, check_instruction
from pandas_amr._agent.threads import call_contained
from pandas_amr._journal.code_keys import describe_function
from pandas_amr._journal.first_format import list_former_kinds, write_former_persona
from pandas_amr._journal.keys import Question, describe_question
from pandas_amr._map.agent import AgentMapper
from pandas_amr._map.breaker import Breaker
from pandas_amr._map.cached import CachedMapper, ShownWith
from pandas_amr._map.cut import make_context
from pandas_amr._map.function import FunctionMapper, PipelineMapper
from pandas_amr._map.prompt import MapPrompt
from pandas_amr._plan.call import Pipeline, finding_types, version_of
from pandas_amr._records.raised import describe_error
from pandas_amr._units.cells import make_json_keys
from pandas_amr._units.profile import preview

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pandas_amr._agent.agent import Agent
    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._findings.store import MapName
    from pandas_amr._journal.cache import AnswerCache
    from pandas_amr._map.mapper import Mapper
    from pandas_amr._units.neighbours import Context
    from pandas_amr._units.redaction import Redaction
    from pandas_amr._units.units import Units

MOST_INSTRUCTIONS = 10_000  # that a function of the user's gave and that are remembered

# Of which kind a column of objects is, by what it holds.
KIND_OF_OBJECTS = {
    "integer": "n",
    "floating": "n",
    "mixed-integer-float": "n",
    "boolean": "b",
    "datetime": "M",
    "datetime64": "M",
    "timedelta": "m",
    "timedelta64": "m",
}


def make_mappers(
    spec: Spec,
    services: Services,
    units: Units,
    context: Context | None,
    breaker: Breaker | None = None,
) -> list[Mapper]:
    """Make a mapper for each map of the call: a function of the user's, or an agent.

    Args:
        spec: what the run is asked for.
        services: what it works with.
        units: all units of the run.
        context: what is shown beside a shard.
        breaker: decides for all of them when to give up; without one none does.
    """
    breaker = breaker or Breaker()
    kinds = finding_types(spec.job, spec.plan)
    mappers: list[Mapper] = []
    for name in spec.job.names:
        kind = kinds[name]
        if name in spec.job.callables:
            mappers.append(_make_function_mapper(spec, services, name, kind, units, breaker))
        else:
            assert kind is not None
            mappers.append(_make_agent_mapper(spec, services, name, kind, units, context, breaker))
    return mappers


def describe_maps(spec: Spec, services: Services, units: Units) -> dict[str, Any]:
    """Describe what each map is asked, by its name, as JSON: findings of equal ones are equal."""
    kinds = finding_types(spec.job, spec.plan)
    context = make_context(spec, units)
    described: dict[str, Any] = {}
    for name in spec.job.names:
        function, kind = spec.job.callables.get(name), kinds[name]
        if function is not None:
            question = _function_question(function, kind)
        else:
            assert kind is not None
            agent = spec.job.map_agents.get(name)
            prompt = _make_prompt(spec, name, kind, units, context)
            asked = _agent_question(spec, prompt, agent)
            server = services.server(spec, "map", agent)
            of_model = spec.question("map", asked, agent, server=server)
            question = _add_code(of_model, agent)
        described[name or ""] = describe_question(question)
    return described


def _add_code(question: Question, agent: Agent | None) -> Question:
    """Add the code of a function that says what is asked of each row."""
    if agent is None or not callable(agent.instruction):
        return question
    code = describe_function(agent.instruction)
    return replace(question, parts={**question.parts, "code": code})


def _function_question(function: Any, kind: FindingType | None) -> Question:
    """Describe what the findings of a function depend on: its version, or else its code."""
    model = None if kind is None else kind.model
    return Question(parts=describe_function(function), finding=model)


def _make_function_mapper(
    spec: Spec,
    services: Services,
    name: MapName,
    kind: FindingType | None,
    units: Units,
    breaker: Breaker,
) -> Mapper:
    """Make a mapper of a function or a recipe; one with a version is kept in the journal."""
    function = spec.job.callables[name]
    if isinstance(function, Pipeline):
        limit = services.parallelism(spec)
        return PipelineMapper(
            name, function.map_row, kind, units, limit, function.needs_model, breaker
        )
    units = units.unredacted  # the function is the user's, and runs here
    mapper = FunctionMapper(
        name,
        function,
        kind,
        units,
        raises=not spec.job.needs_model,
        breaker=breaker,
        redaction=spec.job.redaction,
    )
    version = version_of(function)
    if not version or kind is None:
        return mapper
    parts = {"function": getattr(function, "__qualname__", ""), "version": version}
    former = _former_function_parts(spec, units)
    question = Question(parts=parts, finding=kind.model, former=former)
    cache = services.cache(spec, "finding", "map", question, function=True)
    return _add_cache(spec, services, mapper, cache, units, is_plain=True)


def _make_agent_mapper(
    spec: Spec,
    services: Services,
    name: MapName,
    kind: FindingType,
    units: Units,
    context: Context | None,
    breaker: Breaker,
) -> Mapper:
    """Make an agent; its findings are kept if there is a journal."""
    agent = spec.job.map_agents.get(name)
    sessions = services.sessions(spec, "map", agent)
    open_repl = frame_differences = None
    if sessions is not None:
        open_repl, frame_differences = sessions.of_shard, sessions.changed
    mapper = AgentMapper(
        name=name,
        prompt=_make_prompt(spec, name, kind, units, context),
        model=services.model(spec, "map", agent),
        tools=spec.tools("map", agent),
        max_steps=spec.max_steps(agent),
        max_repairs=spec.max_repairs,
        max_tokens=spec.plan.shard_tokens or 1,
        count=spec.counter("map", agent),
        merge_rules=spec.plan.merge or {},
        window=spec.window("map", agent),
        open_repl=open_repl,
        frame_differences=frame_differences,
        breaker=breaker,
    )
    if services.journal is None:
        return mapper
    return _add_agent_cache(spec, services, mapper, agent)


def _add_agent_cache(
    spec: Spec, services: Services, mapper: AgentMapper, agent: Agent | None
) -> Mapper:
    """Put the journal around an agent."""
    prompt = mapper.prompt
    question = _agent_question(spec, prompt, agent)
    cache = services.cache(spec, "finding", "map", question, agent)
    is_plain = prompt.instructions is None and spec.job.redaction is None
    shown_with = None
    if prompt.context is not None:
        shown_with = prompt.context.shown_with
    return _add_cache(
        spec, services, mapper, cache, prompt.units, is_plain=is_plain, shown_with=shown_with
    )


def _make_prompt(
    spec: Spec, name: MapName, kind: FindingType, units: Units, context: Context | None
) -> MapPrompt:
    """Make what writes the first messages to an agent."""
    agent = spec.job.map_agents.get(name)
    persona = "" if agent is None else agent.persona
    return MapPrompt(
        instruction=spec.instruction(name),
        kind=kind,
        units=units,
        is_single=spec.abilities("map", agent).units_per_request == 1,
        persona=persona,
        instructions=_instruct_by_row(agent, units, spec.job.redaction),
        has_tools=bool(spec.tools("map", agent)),
        has_repl=spec.has_repl("map", agent),
        preview=_make_preview(spec, units),
        context=context,
    )


def _add_cache(
    spec: Spec,
    services: Services,
    mapper: Mapper,
    cache: AnswerCache | None,
    units: Units,
    *,
    is_plain: bool,
    shown_with: ShownWith | None = None,
) -> Mapper:
    """Put the journal around a mapper, if there is one."""
    if cache is None:
        return mapper
    seconds = None
    if spec.plan.retry_failed_after is not None:
        seconds = spec.plan.retry_failed_after.total_seconds()
    return CachedMapper(
        mapper,
        cache,
        units,
        by_shard=spec.plan.keyed == "shard",
        retry_failed_after_s=seconds,
        rows=services.rows,
        is_plain=is_plain,
        shown_with=shown_with,
    )


def _make_preview(spec: Spec, units: Units) -> Callable[[Sequence[int]], str] | None:
    """Return what shows units in part; None if the prompt shows them whole."""
    if spec.plan.view != "preview":
        return None

    def show(positions: Sequence[int]) -> str:
        rows = units.sent_rows(positions)
        return preview(rows)

    return show


def _instruct_by_row(
    agent: Agent | None, units: Units, redaction: Redaction | None
) -> Callable[[int], str] | None:
    """Return what gives the instruction for the row at a position; None if it is one text.

    Instructions that are redacted are all made here, since this is no thread of the engine.
    """
    if agent is None or isinstance(agent.instruction, str):
        return None
    function = agent.instruction

    @functools.lru_cache(MOST_INSTRUCTIONS)  # a shard's are needed more than once
    def call(position: int) -> str | NoInstruction:
        row = units.frame.iloc[position]
        try:
            instruction = check_instruction(call_contained(function, row))
        except NoInstruction as error:
            return error
        except Exception as error:  # noqa: BLE001 (the function is the user's: the unit fails)
            return NoInstruction(f"its instruction raised {describe_error(error)}", attempts=0)
        return redact_instruction(instruction, redaction, f"the instruction for row {position}")

    if redaction is not None:
        for position in units.asked.tolist():
            call(position)

    def instruct(position: int) -> str:
        instruction = call(position)
        if isinstance(instruction, NoInstruction):
            raise instruction
        return instruction

    return instruct


def redact_instruction(
    instruction: str, redaction: Redaction | None, place: str
) -> str | NoInstruction:
    """Return what is sent in place of an instruction that a function gave."""
    if redaction is None:
        return instruction
    try:
        return check_instruction(redaction.text(instruction, place))
    except NoInstruction as error:
        return error


def _agent_question(spec: Spec, prompt: MapPrompt, agent: Agent | None) -> Question:
    """Describe what the findings of an agent depend on, beside the units and its model."""
    parts = _view(spec)
    parts["alone"] = prompt.is_single
    former = _former_segmentation(spec)
    former["instruction"] = prompt.instruction
    former["persona"] = write_former_persona(agent)
    if prompt.instructions is None:  # else what is asked of each unit is part of its key
        parts["instruction"] = prompt.instruction
    if prompt.context is not None:
        parts["segmentation"] = [prompt.context.segmentation]
        if prompt.context.segmentation == "neighbours":
            parts["segmentation"].append(prompt.context.rows)
    if spec.plan.view == "preview" or spec.has_repl("map", agent):
        parts["kinds"] = _column_kinds(prompt.units)
        former["kinds"] = list_former_kinds(prompt.units.sent)
    return Question(parts=parts, finding=prompt.kind.model, agent=agent, former=former)


def _former_function_parts(spec: Spec, units: Units) -> dict[str, Any]:
    """Describe what a function's findings depended on in the journal's first format."""
    former = _view(spec) | _former_segmentation(spec)
    former["alone"] = False
    if spec.plan.view == "preview" or spec.has_repl("map"):
        former["kinds"] = list_former_kinds(units.sent)
    return former


def _view(spec: Spec) -> dict[str, Any]:
    """Describe how units are shown, and how the findings of a long one's pieces become one."""
    return {"view": spec.plan.view, "merge": spec.plan.merge or {}}


def _former_segmentation(spec: Spec) -> dict[str, Any]:
    """Describe what is shown beside a shard as the journal's first format did."""
    if spec.plan.segmentation in {None, "rows"}:
        return {}
    return {"segmentation": [spec.plan.segmentation, spec.plan.context_rows]}


def _column_kinds(units: Units) -> list[list[str]]:
    """Name the kind of each column that code sees, by a letter that all types of such values share.

    A column that is missing one value may be stored otherwise: integers as floats, bools as
    objects.
    """
    kinds: list[list[str]] = []
    keys = make_json_keys(list(units.sent.columns))
    for number, key in enumerate(keys):
        kind = _column_kind(units.sent.iloc[:, number])
        kinds.append([key, kind])
    return sorted(kinds)


def _column_kind(column: pd.Series) -> str:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return "c"
    kind = str(getattr(column.dtype, "kind", "O"))
    if kind in "OSUV":
        inferred = pd.api.types.infer_dtype(column, skipna=True)
        kind = KIND_OF_OBJECTS.get(inferred, "O")
    return "n" if kind in "iuf" else kind
