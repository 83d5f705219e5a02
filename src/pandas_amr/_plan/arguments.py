"""Read a call's arguments, and refuse what is wrong with them before a request is sent."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, get_args

from pandas_amr._agent.agent import Agent, is_instruction
from pandas_amr._plan.aggregations import Aggregation, check_aggregation, is_planned
from pandas_amr._plan.call import KEEP, Errors, Job, may_ask_model
from pandas_amr._plan.checks import check_names
from pandas_amr._plan.functions import check_function
from pandas_amr._plan.named_findings import check_map_names
from pandas_amr._plan.output_fit import SCALARS
from pandas_amr._plan.plan import Plan, read_plan
from pandas_amr._plan.plan_types import as_finding, as_output, is_record
from pandas_amr._records.listeners import check_listener
from pandas_amr._records.refused import is_whole, show_refused
from pandas_amr._records.suggest import did_you_mean
from pandas_amr._records.transcript import TraceLevel
from pandas_amr._records.usage import Budget
from pandas_amr._types.json_text import unsendable
from pandas_amr._types.record import record_type
from pandas_amr._types.schema import TEXT_FINDING
from pandas_amr._units.by import By, resolve_by
from pandas_amr._units.columns import check_labels_encode, find_content_columns
from pandas_amr._units.profile import profile_columns
from pandas_amr.errors import UsageError
from pandas_amr.tools import as_tools

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

    from pandas_amr._plan.aggregations import Aggregations
    from pandas_amr._plan.call import Call

SETTINGS = (
    "max_parallelism",
    "max_steps",
    "errors",
    "progress",
    "budget",
    "journal",
    "engine",
    "trace",
    "on_event",
)
CHOICE_SYNONYMS = {  # what other libraries call it, by the argument
    "axis": {"index": "rows", "units": "rows", "cols": "columns"},
    "trace": {"all": "full", "contents": "full", "none": "off", "false": "off", "true": "nodes"},
    "errors": {"ignore": "coerce", "skip": "coerce", "null": "coerce", "strict": "raise"},
}
NOTHING_TO_FIND = "map: say what to find: a text, a function, or a dict of them by name."
REDUCE_FIELDS = ("reduce_instruction", "aggregations", "ranking")


@dataclass(frozen=True)
class _Maps:
    """What ``map=`` says.

    Attributes:
        names: the names of the maps; ``(None,)`` for a single map.
        functions: the maps that are functions, by name.
        agents: the maps that are agents, by name.
        instructions: the text of a single map, or texts by name; None if all maps are functions.
    """

    names: tuple[str | None, ...] = (None,)
    functions: Mapping[str | None, Callable[..., Any]] = field(default_factory=dict)
    agents: Mapping[str | None, Agent] = field(default_factory=dict)
    instructions: str | dict[str, str] | None = None

    @property
    def are_named(self) -> bool:
        return self.names != (None,)


@dataclass(frozen=True)
class _Reduce:
    """What ``reduce=`` says, if it is code: a function, or aggregations. A text is in the plan."""

    function: Callable[..., Any] | None = None
    aggregations: Mapping[str, Any] | None = None

    @property
    def is_code(self) -> bool:
        return self.function is not None or self.aggregations is not None


def check(call: Call) -> Job:
    """Check a call's arguments against each other and against the frame.

    Raises:
        UsageError: an argument cannot be used; the message says what would be right.
        PlanError: the plan cannot be used.
    """
    _check_options(call)
    if call.verb == "filter":
        call = _as_map(call)
    job = _read_call(call)
    _check_completeness(call, job)
    _check_encoding(job)
    if job.given.view == "preview":
        _check_preview(job)
    check_names(job, job.given)
    return job


def _read_call(call: Call) -> Job:
    """Read each argument. ``fixed`` collects the fields of the plan that the user fixed."""
    fixed = read_plan(call.plan).fixed()
    frame, columns = _read_content(call, fixed)
    maps = _read_maps(call, fixed)
    _read_finding(call, fixed, maps)
    by = _read_by(call, fixed)
    reduce = _read_reduce(call.reduce, fixed, grouped=by is not None)
    if call.output is not None:
        fixed["output"] = as_output(call.output)
    tools, repl = as_tools(call.tools)
    if by is not None and call.verb not in {"map", "filter"}:
        by = resolve_by(by, frame)
    return Job(
        verb=call.verb,
        frame=frame,
        columns=columns,
        task=call.task,
        given=Plan(**fixed),
        open=_list_open_fields(call, fixed, maps, reduce),
        names=maps.names,
        callables=maps.functions,
        reducer=reduce.function,
        computed=reduce.aggregations,
        by=by,
        tools=tools,
        repl=repl,
        lm=call.lm,
        map_agents=maps.agents,
        reduce_agent=call.reduce if isinstance(call.reduce, Agent) else None,
        settings=_read_settings(call),
        call=call,
    )


def _read_settings(call: Call) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name in SETTINGS:
        value = getattr(call, name)
        if value is not None:
            settings[name] = value
    return settings


def list_open_fields(call: Call) -> tuple[str, ...]:
    """List what a planner would be asked for, in a call that has no frame yet.

    Raises:
        UsageError: an argument cannot be used.
    """
    if call.verb == "filter":
        return ()  # a criterion is all that it takes
    fixed = read_plan(call.plan).fixed()
    maps = _read_maps(call, fixed)
    has_finding = call.map is not None and (maps.are_named or not maps.functions)
    if call.finding is not None or has_finding:
        fixed.setdefault("finding", call.finding)
    reduce = _read_reduce(call.reduce, fixed, grouped=call.by is not None)
    return _list_open_fields(call, fixed, maps, reduce)


@dataclass(frozen=True)
class FramelessMap:
    """A map that has no frame yet.

    Attributes:
        plan: with the type of every finding, so that the columns are known before anything runs.
        names: the names of the maps that run side by side; ``(None,)`` for a single map.
        code: the functions and agents of the maps; None if the plan has all.
        needs_model: whether a model may be asked anything.
    """

    plan: Plan
    names: tuple[str | None, ...]
    code: Any
    needs_model: bool


def read_map(call: Call) -> FramelessMap:
    """Read a map that has no frame yet, and leave nothing of it open.

    Raises:
        UsageError: an argument cannot be used, or does not say which columns the map adds.
        PlanError: the plan cannot be used.
    """
    _check_options(call)
    fixed = read_plan(call.plan).fixed()
    maps = _read_maps(call, fixed)
    if call.map is None and "map_instruction" not in fixed:
        raise UsageError(NOTHING_TO_FIND)
    _read_finding(call, fixed, maps)
    if maps.functions:
        _check_has_types(fixed.get("finding"), maps)
    fixed.setdefault("finding", as_finding(None))
    has_instructions = len(maps.functions) < len(maps.names)
    needs_model = has_instructions or any(map(may_ask_model, maps.functions.values()))
    code = call.map if maps.functions or maps.agents else None
    return FramelessMap(Plan(**fixed), maps.names, code, needs_model)


def _check_has_types(finding: object, maps: _Maps) -> None:
    """Refuse a function whose columns only a run can tell.

    Raises:
        UsageError: there is one.
    """
    for name in maps.functions:
        known = finding.get(name) if isinstance(finding, dict) else finding
        if known is None:
            argument = "finding={...}"
            if name is not None:
                argument = f"finding={{{name!r}: {{...}}}}"
            raise UsageError(
                "A mapper says which columns it adds before it runs, and those of a function are "
                f"not known then: give their types, {argument}."
            )


def _list_open_fields(
    call: Call, fixed: Mapping[str, Any], maps: _Maps, reduce: _Reduce
) -> tuple[str, ...]:
    """List what a planner is asked for: only with a task, and only what the user left open."""
    if call.task is None or call.verb == "reduce":
        return ()
    fields: list[str] = []
    if not maps.functions:
        fields += [name for name in ("map_instruction", "finding") if name not in fixed]
    is_reduce_open = not reduce.is_code and not any(name in fixed for name in REDUCE_FIELDS)
    if is_reduce_open and call.verb not in {"map", "filter"}:
        fields.append("reduce_instruction")
    return tuple(fields)


def _check_options(call: Call) -> None:
    """Check the arguments that depend on no other."""
    if call.task is not None and not _is_sentence(call.task):
        raise UsageError(f"task= takes a sentence, not {show_refused(call.task)}.")
    _check_counts(call)
    if call.errors is not None:
        _check_choice("errors", call.errors, get_args(Errors))
    if call.trace is not None:
        _check_choice("trace", call.trace, get_args(TraceLevel))
    if call.budget is not None and not isinstance(call.budget, Budget):
        raise UsageError(
            "budget= takes amr.Budget(money=, tokens=, calls=, seconds=), "
            f"not {show_refused(call.budget)}."
        )
    if call.progress is not None and not isinstance(call.progress, bool):
        raise UsageError(f"progress= takes True or False, not {show_refused(call.progress)}.")
    if call.on_event is not None:
        check_listener(call.on_event, "on_event=")


def _check_counts(call: Call) -> None:
    for name in ("max_parallelism", "max_steps"):
        value = getattr(call, name)
        if value is not None and not is_whole(value, least=1):
            raise UsageError(f"{name}= takes a whole number from 1, not {show_refused(value)}.")


def _is_sentence(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if isinstance(value, str) and value in choices:
        return
    *first, last = [f'"{choice}"' for choice in choices]
    texts = f"{', '.join(first)} or {last}"
    suggestion = did_you_mean(value, choices, synonyms=CHOICE_SYNONYMS.get(name))
    raise UsageError(f"{name}= takes {texts}, not {show_refused(value)}.{suggestion}")


def _as_map(call: Call) -> Call:
    """Convert a filter to a map with one bool per row."""
    criterion = call.map
    if not (isinstance(criterion, Agent) or callable(criterion) or is_instruction(criterion)):
        raise UsageError(
            "filter takes a criterion: a text, an Agent, or a function of a shard's frame, "
            f"not {show_refused(criterion)}."
        )
    if not isinstance(criterion, str | Agent):
        check_function(criterion, "filter", "the rows of a shard", "shard")
    # The description is part of the requests and of the journal's keys: it must not change.
    description = "whether the row is to be kept: it meets the criterion"
    return replace(call, finding={KEEP: (bool, description)})


def _read_content(call: Call, fixed: dict[str, Any]) -> tuple[pd.DataFrame, tuple[int, ...]]:
    """Read ``columns=`` and ``axis=``, and put them into the plan's fields.

    Returns:
        The frame whose rows are the units, and the positions of its content columns.
    """
    if call.axis is not None:
        _check_choice("axis", call.axis, ("rows", "columns"))
    labels = fixed.get("columns") if call.columns is None else call.columns
    columns = find_content_columns(call.frame, labels)
    if labels is not None:
        fixed["columns"] = [call.frame.columns[column] for column in columns]
    if call.axis is not None:
        fixed["axis"] = call.axis
    if call.verb != "reduce":  # findings are to stand beside the columns
        check_labels_encode(call.frame)
    if fixed.get("axis") != "columns":
        return call.frame, columns
    frame = profile_columns(call.frame, columns)
    return frame, tuple(range(len(frame.columns)))


def _read_maps(call: Call, fixed: dict[str, Any]) -> _Maps:
    """Read ``map=``, or else the plan's instructions; put instructions into the plan's fields."""
    planned = fixed.get("map_instruction")
    if call.map is not None:
        maps = _maps_of(call.map)
    elif isinstance(planned, dict):
        return _Maps(names=tuple(planned))
    else:
        return _Maps()
    if maps.instructions is not None:
        fixed["map_instruction"] = maps.instructions
    return maps


def _maps_of(value: Any) -> _Maps:
    if isinstance(value, dict) and value:
        return _read_named_maps(value)
    if isinstance(value, Agent):
        return _Maps(agents={None: value}, instructions=_instruction_text(value))
    if is_instruction(value):
        return _Maps(instructions=value)
    if callable(value):
        check_function(value, "map=", "the rows of a shard", "shard")
        return _Maps(functions={None: value})
    raise UsageError(
        "map= takes a text, a function, an Agent, or a dict of them by name, "
        f"not {show_refused(value)}."
    )


def _read_named_maps(value: Mapping[Any, Any]) -> _Maps:
    functions: dict[str | None, Any] = {}
    agents: dict[str | None, Agent] = {}
    instructions: dict[str, str] = {}
    for name, part in value.items():
        if isinstance(name, str) and isinstance(part, Agent):
            agents[name] = part
            instructions[name] = _instruction_text(part)
        elif isinstance(name, str) and is_instruction(part):
            instructions[name] = part
        elif isinstance(name, str) and callable(part):
            check_function(part, f"map[{name!r}]", "the rows of a shard", "shard")
            functions[name] = part
        else:
            raise UsageError(
                f"map[{name!r}] takes a name, and a text or a function, not {show_refused(part)}."
            )
    return _Maps(tuple(value), functions, agents, instructions or None)


def _instruction_text(agent: Agent) -> str:
    """Return an agent's instruction as a plan holds it."""
    if agent.text:
        return agent.text
    function = getattr(agent.instruction, "__name__", "a function")
    return f"What {function} says of each."


def _read_finding(call: Call, fixed: dict[str, Any], maps: _Maps) -> None:
    """Read ``finding=`` and put it into the plan's fields, with a type for each named map.

    Raises:
        UsageError: findings are given by name, and the map has none.
    """
    if call.finding is not None:
        fixed["finding"] = _finding_type(call.finding, maps)
    elif "finding" not in fixed:
        if maps.are_named and maps.instructions is not None:
            fixed["finding"] = _default_findings(maps)
        elif call.map is not None and not maps.functions:
            fixed["finding"] = as_finding(None)
    finding = fixed.get("finding")
    if not isinstance(finding, dict):
        return
    if not maps.are_named:
        raise UsageError(
            f"finding= is by name ({', '.join(finding)}); map= is one map without a name."
        )
    instructions = fixed.get("map_instruction")
    if isinstance(instructions, dict):
        fixed["finding"] = dict(finding)
        for name in instructions:
            if name not in finding:
                fixed["finding"][name] = as_finding(None)


def _finding_type(value: object, maps: _Maps) -> Any:
    """Return the finding type, or one per named map."""
    if not maps.are_named:
        return as_finding(value)
    if isinstance(value, dict) and value and set(value) <= set(maps.names):
        types = {name: _named_finding(name, part) for name, part in value.items()}
        for name, default in _default_findings(maps).items():
            types.setdefault(name, default)
        return types
    check_map_names(value, maps.names)
    return {str(name): as_finding(value) for name in maps.names}


def _default_findings(maps: _Maps) -> dict[str, Any]:
    """Return a text as the finding of each named map that is not a function."""
    return {str(name): as_finding(None) for name in maps.names if name not in maps.functions}


def _named_finding(name: str, value: object) -> Any:
    """Return a named map's finding: a record, a list of records, or the type of its one column."""
    if isinstance(value, dict) or is_record(value):
        return as_finding(value)
    return record_type("Finding", {TEXT_FINDING: value}, place=f"finding[{name!r}]")


def _read_by(call: Call, fixed: dict[str, Any]) -> By | None:
    """Read ``by=``, or else the plan's groups, and put them into the plan's fields."""
    value = call.by
    if value is None:
        planned: By | None = fixed.get("by")
        return planned
    if isinstance(value, list | dict) and not value:
        raise UsageError("by= is empty; name the columns to group by, or leave it out.")
    if isinstance(value, list):
        value = By(*value)
    elif not isinstance(value, By):
        value = By(value)
    fixed["by"] = value
    return value


def _read_reduce(value: object, fixed: dict[str, Any], *, grouped: bool) -> _Reduce:
    """Read ``reduce=``, which replaces the plan's reduce.

    A text, and aggregations that a plan can hold, are put into the plan's fields.
    """
    if value is None:
        if "reduce_instruction" in fixed:
            return _Reduce()
        return _Reduce(aggregations=fixed.get("aggregations"))
    if isinstance(value, Agent):
        value = _instruction_text(value)
    if is_instruction(value):
        _replace_reduce(fixed, {"reduce_instruction": value})
        return _Reduce()
    if isinstance(value, dict) and value:
        for name, how in value.items():
            check_aggregation(name, how, grouped=grouped)
        planned = {"aggregations": dict(value)} if _are_planned(value) else {}
        _replace_reduce(fixed, planned)
        return _Reduce(aggregations=dict(value))
    if callable(value):
        check_function(value, "reduce=", "the findings", "findings")
        _replace_reduce(fixed, {})
        return _Reduce(function=value)
    raise UsageError(
        "reduce= takes a text, a function, an Agent, or a dict of aggregations, "
        f"not {show_refused(value)}."
    )


def _are_planned(aggregations: Aggregations) -> bool:
    """Whether a plan can hold aggregations."""
    if not all(isinstance(name, str) for name in aggregations):
        return False
    return all(map(is_planned, aggregations.values()))


def _replace_reduce(fixed: dict[str, Any], fields: Mapping[str, Any]) -> None:
    for name in REDUCE_FIELDS:
        fixed.pop(name, None)
    fixed |= fields


def _check_completeness(call: Call, job: Job) -> None:
    """Refuse a call that does not say what to find or how to reduce, or asks for two numbers."""
    problem = _missing_problem(call, job)
    if problem is not None:
        raise UsageError(problem)
    aggregations = job.computed or {}
    output = job.given.output
    if len(aggregations) > 1 and output in SCALARS:
        raise UsageError(
            f"output={output.__name__} takes one aggregation, not {len(aggregations)}."
        )


def _missing_problem(call: Call, job: Job) -> str | None:
    plan = job.given
    parts = (job.reducer, job.computed, plan.reduce_instruction, plan.ranking)
    is_reduced = any(part is not None for part in parts)
    if job.verb == "reduce":
        if is_reduced:
            return None
        return "reduce: say how: a text, a function, or a dict of aggregations."
    says_what = call.task is not None or call.map is not None or plan.map_instruction is not None
    if not says_what:
        if job.verb == "map":
            return NOTHING_TO_FIND
        return "map_reduce: say what you want: task='...', or map= and reduce=."
    if job.verb == "map_reduce" and call.task is None and not is_reduced:
        return _missing_reduce_problem(call)
    return None


def _missing_reduce_problem(call: Call) -> str:
    if call.plan is None or call.plan == "auto":
        return "map_reduce without a task needs reduce=. To map only: df.amr.map(...)."
    return (
        "This plan holds no reduce. A plan holds a text, a ranking, or aggregations by name "
        f"({', '.join(get_args(Aggregation))}). It cannot hold named aggregations, functions "
        "and agents: say reduce= again beside plan=. To map only: df.amr.map(...)."
    )


def _check_encoding(job: Job) -> None:
    """Refuse texts that can be neither sent nor written to a file: with a lone surrogate."""
    plan = job.given
    maps = plan.map_instruction
    instructions = list(maps.values()) if isinstance(maps, dict) else [maps]
    texts = {
        "task": [job.task, plan.task],
        "map": instructions,
        "reduce": [plan.reduce_instruction],
    }
    for name, values in texts.items():
        for text in values:
            problem = unsendable(text)
            if problem is not None:
                raise UsageError(f"{name}= {problem}.")


def _check_preview(job: Job) -> None:
    if job.maps and not job.all_callable and job.repl is None:
        raise UsageError(
            'plan={"view": "preview"} shows units in the REPL, '
            "which needs tools=[amr.PythonREPLTool()]."
        )
