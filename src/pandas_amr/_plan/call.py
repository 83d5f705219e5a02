"""A call of a verb, checked: every mistake that can be seen is told here, before a request is sent."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import pandas as pd

from pandas_amr._agent.agent import Agent, is_instruction
from pandas_amr._findings.finding_type import FindingType
from pandas_amr._findings.merge import rules_of
from pandas_amr._findings.output import OutputType
from pandas_amr._plan.aggregations import (
    SHARE,
    TABULAR,
    all_labels,
    column_of,
    function_of,
    is_named,
)
from pandas_amr._plan.plan import Aggregation, Plan, as_finding, as_output, is_record, read_plan
from pandas_amr._plan.trial import SCALARS, Trial
from pandas_amr._records.usage import Budget
from pandas_amr._types.arrow import field_types
from pandas_amr._types.schema import TEXT_FINDING, record_type
from pandas_amr._units.by import By, column, missing_keys, resolve_by
from pandas_amr._units.columns import check_frame, content_columns
from pandas_amr._units.profile import column_units
from pandas_amr.errors import ColumnError, PlanError, UsageError
from pandas_amr.tools import PythonREPLTool, Tool, as_tools

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pandas_amr.models.base import LM

Verb = Literal["map_reduce", "map", "filter", "reduce", "plan"]
KEEP = "amr_keep"
Errors = Literal["coerce", "raise"]
VERSION = "amr_version"  # an attribute of a user's function: with it, what it finds is kept in the journal
ONE_ROW = "amr_one_row"  # an attribute of what is no plain function: gives the finding of a frame of one row
WHOLE = "amr_whole"  # likewise: gives the answer of a frame of findings


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a user said: a verb and its arguments, as given."""

    verb: Verb
    frame: Any
    task: Any = None
    columns: Any = None
    axis: Any = None
    finding: Any = None
    map: Any = None
    reduce: Any = None
    output: Any = None
    by: Any = None
    tools: Any = None
    plan: Any = "auto"
    lm: Any = None
    max_parallelism: Any = None
    max_steps: Any = None
    errors: Any = None
    progress: Any = None
    budget: Any = None
    journal: Any = None


@dataclass(frozen=True)
class Job:
    """A call that can be carried out.

    Attributes:
        given: the plan as far as the user fixed it.
        open: which fields of the plan a planner may derive.
        callables: maps that are functions, by name; the name is None where there is one map.
        names: the names of the maps that run side by side; ``(None,)`` where there is one.
        reducer: a reduce that is a function.
        computed: a reduce that is aggregations, functions among them.
        repl: the REPL that agents get, where they get one.
        map_agents: who maps, by name, where more than an instruction is said.
        reduce_agent: who reduces, likewise.
        call: the call as it was given, for errors that write it out.
    """

    verb: Verb
    frame: pd.DataFrame
    columns: tuple[int, ...]
    task: str | None
    given: Plan
    open: tuple[str, ...]
    names: tuple[str | None, ...]
    callables: Mapping[str | None, Callable[..., Any]]
    reducer: Callable[..., Any] | None
    computed: Mapping[str, Any] | None
    by: By | None
    tools: tuple[Tool, ...]
    repl: PythonREPLTool | None
    lm: Any
    map_agents: Mapping[str | None, Agent] = field(default_factory=dict)
    reduce_agent: Agent | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    call: Call | None = None

    @property
    def maps(self) -> bool:
        """Whether anything is mapped."""
        return self.verb != "reduce"

    @property
    def reduces(self) -> bool:
        """Whether anything is reduced."""
        return self.verb not in {"map", "filter"}

    @property
    def needs_model(self) -> bool:
        """Whether anything may be asked of a model."""
        ranked = self.given.ranking is not None and self.given.reduce_instruction is None
        coded = (
            self.reducer is not None
            or ranked
            or (self.computed is not None and not self.column_agents)
        )
        if any(one.needs_model for one in self.pipelines):
            return True
        return (
            bool(self.open) or (self.maps and not self.all_callable) or (self.reduces and not coded)
        )

    @property
    def column_agents(self) -> list[Agent]:
        """Those that write a column of the answer."""
        given = [function_of(one) for one in (self.computed or {}).values()]
        return [one for one in given if isinstance(one, Agent)]

    @property
    def agents(self) -> list[Agent]:
        """All that are named in the call."""
        given = [*self.map_agents.values(), *self.column_agents, self.reduce_agent]
        return [one for one in given if one is not None]

    @property
    def versioned(self) -> bool:
        """Whether a function says its version, so that what it finds can be kept in the journal."""
        return any(hasattr(function, VERSION) for function in self.callables.values())

    @property
    def pipelines(self) -> list[Any]:
        """What maps and reduces as a run of its own, inside this one."""
        parts = [*self.callables.values(), self.reducer]
        return [one for one in parts if hasattr(one, ONE_ROW)]

    @property
    def all_callable(self) -> bool:
        """Whether no map is asked of a model."""
        return self.maps and len(self.callables) == len(self.names)


def check(call: Call) -> Job:
    """Check a call's arguments against each other and against the frame.

    Raises:
        UsageError: an argument cannot be used; the message says what would be right.
        PlanError: the plan cannot be used.
    """
    check_frame(call.frame)
    _check_words(call)
    if call.verb == "filter":
        call = _as_map(call)
    fixed = read_plan(call.plan).fixed()
    frame, columns = _content(call, fixed)
    agents = _agents(call.map)
    names, callables, instructions = _maps(_without_agents(call.map))
    if call.map is None and isinstance(fixed.get("map_instruction"), dict):
        names = tuple(fixed["map_instruction"])
    if instructions is not None:
        fixed["map_instruction"] = instructions
    if call.finding is not None:
        fixed["finding"] = _finding(call.finding, names, callables)
    elif names != (None,) and "finding" not in fixed and instructions is not None:
        fixed["finding"] = {str(name): as_finding(None) for name in names if name not in callables}
    elif call.map is not None and "finding" not in fixed and not callables:
        fixed["finding"] = as_finding(None)
    _check_named_findings(fixed, names)
    reduce_agent = call.reduce if isinstance(call.reduce, Agent) else None
    by = _by(call) or fixed.get("by")
    if by is not None:
        fixed["by"] = by
    reducer, computed = _reduce(
        _said(reduce_agent) if reduce_agent else call.reduce, fixed, grouped=by is not None
    )
    if call.output is not None:
        fixed["output"] = as_output(call.output)
    tools, repl = as_tools(call.tools)
    job = Job(
        verb=call.verb,
        frame=frame,
        columns=columns,
        task=call.task,
        given=Plan(**fixed),
        open=_open(call, fixed, callables, decided=reducer is not None or computed is not None),
        names=names,
        callables=callables,
        reducer=reducer,
        computed=computed,
        by=by if by is None or call.verb in {"map", "filter"} else resolve_by(by, frame),
        tools=tools,
        repl=repl,
        lm=call.lm,
        map_agents=agents,
        reduce_agent=reduce_agent,
        settings={
            name: value
            for name in ("max_parallelism", "max_steps", "errors", "progress", "budget", "journal")
            if (value := getattr(call, name)) is not None
        },
        call=call,
    )
    _check_wanted(call, job)
    _check_texts(job)
    _check_view(job)
    check_names(job, job.given)
    return job


def _content(call: Call, fixed: dict[str, Any]) -> tuple[pd.DataFrame, tuple[int, ...]]:
    """The frame whose rows are the units, and the positions of its content columns; the plan learns what was given."""
    if call.axis not in {None, "rows", "columns"}:
        raise UsageError(f'axis= takes "rows" or "columns", not {call.axis!r}.')
    given = fixed.get("columns") if call.columns is None else call.columns
    columns = content_columns(call.frame, given)
    if given is not None:
        fixed["columns"] = [call.frame.columns[column] for column in columns]
    if call.axis is not None:
        fixed["axis"] = call.axis
    if fixed.get("axis") != "columns":
        return call.frame, columns
    frame = column_units(call.frame, columns)
    return frame, tuple(range(len(frame.columns)))


def _check_named_findings(fixed: dict[str, Any], names: tuple[str | None, ...]) -> None:
    """Give each named map a finding, and refuse findings by name if no map is named."""
    finding = fixed.get("finding")
    if not isinstance(finding, dict):
        return
    if names == (None,):
        raise UsageError(
            f"finding= is by name ({', '.join(finding)}); map= is one map without a name."
        )
    if "map_instruction" in fixed:
        missing = [name for name in fixed["map_instruction"] if name not in finding]
        fixed["finding"] = finding | {name: as_finding(None) for name in missing}


def _as_map(call: Call) -> Call:
    """A filter maps one bool a row."""
    if not (isinstance(call.map, Agent) or callable(call.map) or is_instruction(call.map)):
        raise UsageError(
            f"filter takes a criterion: a text, an Agent, or a function of a shard's frame, not {call.map!r}."
        )
    said = "whether the row is to be kept: it meets the criterion"
    return replace(call, finding={KEEP: (bool, said)})


def _check_words(call: Call) -> None:
    if call.task is not None and (not isinstance(call.task, str) or not call.task.strip()):
        raise UsageError(f"task= takes a sentence, not {call.task!r}.")
    for name in ("max_parallelism", "max_steps"):
        value = getattr(call, name)
        if value is not None and (
            not isinstance(value, int) or isinstance(value, bool) or value < 1
        ):
            raise UsageError(f"{name}= takes a whole number from 1, not {value!r}.")
    if call.errors is not None and call.errors not in get_args(Errors):
        raise UsageError(f'errors= takes "coerce" or "raise", not {call.errors!r}.')
    if call.budget is not None and not isinstance(call.budget, Budget):
        raise UsageError(
            f"budget= takes amr.Budget(money=, tokens=, calls=, seconds=), not {call.budget!r}."
        )
    if call.progress is not None and not isinstance(call.progress, bool):
        raise UsageError(f"progress= takes True or False, not {call.progress!r}.")


def _maps(given: Any) -> tuple[tuple[str | None, ...], dict[str | None, Any], Any]:
    """The maps' names, those that are functions, and the instructions of the rest."""
    match given:
        case None:
            return (None,), {}, None
        case str() if is_instruction(given):
            return (None,), {}, given
        case dict() if given:
            bad = [
                name for name, one in given.items() if not isinstance(name, str) or not _is_map(one)
            ]
            if bad:
                raise UsageError(
                    f"map[{bad[0]!r}] takes a name, and a text or a function, not {given[bad[0]]!r}."
                )
            functions: dict[str | None, Any] = {
                name: one for name, one in given.items() if callable(one)
            }
            texts = {name: one for name, one in given.items() if isinstance(one, str)}
            return tuple(given), functions, texts or None
    if callable(given):
        return (None,), {None: given}, None
    raise UsageError(
        f"map= takes a text, a function, an Agent, or a dict of them by name, not {given!r}."
    )


def _agents(given: Any) -> dict[str | None, Agent]:
    """Who maps, by name."""
    if isinstance(given, Agent):
        return {None: given}
    named = given.items() if isinstance(given, dict) else ()
    return {name: one for name, one in named if isinstance(one, Agent)}


def _without_agents(given: Any) -> Any:
    """What maps, each agent as what it is asked."""
    if isinstance(given, dict):
        return {name: _said(one) if isinstance(one, Agent) else one for name, one in given.items()}
    return _said(given) if isinstance(given, Agent) else given


def _said(agent: Agent) -> str:
    """What an agent is asked, in a plan's words."""
    return (
        agent.text or f"What {getattr(agent.instruction, '__name__', 'a function')} says of each."
    )


def _is_map(given: Any) -> bool:
    return is_instruction(given) or callable(given)


def _finding(given: Any, names: tuple[str | None, ...], callables: Mapping[str | None, Any]) -> Any:
    """The finding type, or one by name where maps run side by side; a function's own columns say its, if none does."""
    if names == (None,):
        return as_finding(given)
    if isinstance(given, dict) and given and set(given) <= set(names):
        return {name: _named_finding(part) for name, part in given.items()} | {
            str(name): as_finding(None)
            for name in names
            if name not in given and name not in callables
        }
    return {str(name): as_finding(given) for name in names}


def _named_finding(given: Any) -> Any:
    """A named map's finding: a record, a list of records, or the type of its one column."""
    if isinstance(given, dict) or is_record(given):
        return as_finding(given)
    return record_type("Finding", {TEXT_FINDING: given})


def _reduce(given: Any, fixed: dict[str, Any], *, grouped: bool) -> tuple[Any, Any]:
    """A reduce that is code; a text goes into the plan, and so do aggregations that a plan can hold.

    What the call says stands above what its plan says.
    """
    match given:
        case None:
            return None, fixed.get("aggregations") if "reduce_instruction" not in fixed else None
        case str() if is_instruction(given):
            fixed["reduce_instruction"] = given
            for name in ("aggregations", "ranking"):
                fixed.pop(name, None)
            return None, None
        case dict() if given:
            for name, how in given.items():
                _check_aggregation(name, how, grouped=grouped)
            for name in ("reduce_instruction", "ranking", "aggregations"):
                fixed.pop(name, None)
            if all(isinstance(name, str) and _is_planned(how) for name, how in given.items()):
                fixed["aggregations"] = dict(given)
            return None, dict(given)
    if callable(given):
        for name in ("reduce_instruction", "ranking", "aggregations"):
            fixed.pop(name, None)
        return given, None
    raise UsageError(
        f"reduce= takes a text, a function, an Agent, or a dict of aggregations, not {given!r}."
    )


def _is_planned(how: Any) -> bool:
    """Whether a plan can hold an aggregation: by the name that pandas has for it."""
    known = get_args(Aggregation)
    return all(
        isinstance(one, str) and one in known for one in (how if isinstance(how, list) else [how])
    )


def _check_aggregation(name: Any, how: Any, *, grouped: bool) -> None:
    """Refuse what pandas would refuse, before the findings that it is to aggregate are paid for."""
    if is_named(how):
        how = function_of(how)
    if isinstance(how, Agent):
        return
    for one in how if isinstance(how, list) and how else [how]:
        places = (pd.Series, pd.api.typing.SeriesGroupBy) if grouped else (pd.Series,)
        known = one == SHARE or (isinstance(one, str) and any(_has(place, one) for place in places))
        if not known and not callable(one):
            raise UsageError(
                f"reduce[{name!r}] takes what DataFrame.agg takes, such as 'sum' or a function, not {one!r}."
            )
        if isinstance(how, list) and one in TABULAR:
            raise UsageError(
                f"reduce[{name!r}]: {one!r} gives a table; it stands alone, not in a list."
            )


def _has(place: type, name: str) -> bool:
    """Whether pandas aggregates by a name: of a method, or of what a column knows of itself, as its ``size``."""
    return not name.startswith("_") and hasattr(place, name)


def _open(
    call: Call, fixed: dict[str, Any], callables: Mapping[Any, Any], *, decided: bool
) -> tuple[str, ...]:
    """What a planner is asked for: only with a task, and only what the user left open."""
    if call.task is None or call.verb == "reduce":
        return ()
    wanted = [
        name for name in ("map_instruction", "finding") if name not in fixed and not callables
    ]
    if (
        call.verb not in {"map", "filter"}
        and not decided
        and "reduce_instruction" not in fixed
        and "aggregations" not in fixed
        and "ranking" not in fixed
    ):
        wanted.append("reduce_instruction")
    return tuple(wanted)


def open_fields(call: Call) -> tuple[str, ...]:
    """List what a planner would be asked for, of a call whose frame is not there yet.

    Raises:
        UsageError: an argument cannot be used.
    """
    if call.verb == "filter":
        return ()  # its criterion says all
    fixed = read_plan(call.plan).fixed()
    names, callables, instructions = _maps(_without_agents(call.map))
    if instructions is not None:
        fixed["map_instruction"] = instructions
    asked = call.map is not None and not callables
    if call.finding is not None or names != (None,) or asked:
        fixed.setdefault("finding", call.finding)
    reduce = _said(call.reduce) if isinstance(call.reduce, Agent) else call.reduce
    reducer, computed = _reduce(reduce, fixed, grouped=call.by is not None)
    return _open(call, fixed, callables, decided=reducer is not None or computed is not None)


def _by(call: Call) -> By | None:
    given = call.by
    if given is None or isinstance(given, By):
        return given
    if isinstance(given, list | dict) and not given:
        raise UsageError("by= is empty; name the columns to group by, or leave it out.")
    return By(*given) if isinstance(given, list) else By(given)


def _check_wanted(call: Call, job: Job) -> None:
    """Whether the call says enough, and nothing that contradicts itself."""
    plan = job.given
    decided = job.reducer is not None or job.computed is not None
    decided |= plan.reduce_instruction is not None or plan.ranking is not None
    if job.verb == "reduce" and not decided:
        raise UsageError("reduce: say how: a text, a function, or a dict of aggregations.")
    if (
        job.verb == "map"
        and call.map is None
        and call.task is None
        and job.given.map_instruction is None
    ):
        raise UsageError("map: say what to find: a text, a function, or a dict of them by name.")
    if job.verb in {"map_reduce", "plan"} and call.task is None:
        if call.map is None and job.given.map_instruction is None:
            raise UsageError("map_reduce: say what you want: task='...', or map= and reduce=.")
        if not decided and job.verb == "map_reduce":
            raise UsageError(_no_reduce(call))
    if job.computed is not None and len(job.computed) > 1 and job.given.output in SCALARS:
        raise UsageError(
            f"output={job.given.output.__name__} takes one aggregation, not {len(job.computed)}."
        )


def _check_texts(job: Job) -> None:
    """Refuse what cannot be sent, or written to a file: half of a character."""
    plan = job.given
    maps = (
        plan.map_instruction
        if isinstance(plan.map_instruction, dict)
        else {"": plan.map_instruction}
    )
    texts = {
        "task": [job.task, plan.task],
        "map": maps.values(),
        "reduce": [plan.reduce_instruction],
    }
    for name, said in texts.items():
        for text in said:
            halves = [one for one in text or "" if "\ud800" <= one <= "\udfff"]
            if halves:
                raise UsageError(
                    f"{name}= holds {halves[0]!r}, which is half of a character; no text can be sent so."
                )


def _no_reduce(call: Call) -> str:
    if call.plan is None or call.plan == "auto":
        return "map_reduce without a task needs reduce=. To map only: df.amr.map(...)."
    return (
        "This plan holds no reduce: a plan holds a text, a ranking, or aggregations by pandas' own names "
        f"({', '.join(get_args(Aggregation))}). Named aggregations, functions and agents stand in none: "
        "say reduce= again beside plan=. To map only: df.amr.map(...)."
    )


def _check_view(job: Job) -> None:
    if job.given.view == "preview" and job.repl is None and job.maps and not job.all_callable:
        raise UsageError(
            'plan={"view": "preview"} shows units in the REPL: tools=[amr.PythonREPLTool()].'
        )


def check_model(job: Job, lm: LM) -> None:
    """Refuse a plan that asks for more than the model can do.

    Raises:
        PlanError: a shard would hold more units than the model can tell apart.
    """
    if job.given.view == "preview" and not lm.abilities.tools and not job.all_callable:
        raise PlanError(
            f'{lm.model} calls no tools; plan={{"view": "preview"}} needs one that does.'
        )
    most, size = lm.abilities.units_per_request, job.given.shard_size
    if (
        most is not None
        and job.given.segmentation in {"neighbours", "groups"}
        and not job.all_callable
    ):
        raise PlanError(
            f"{lm.model} takes {most} unit a request, judged alone; segmentation={job.given.segmentation!r} needs more."
        )
    if most is not None and size is not None and size > most and job.maps and not job.all_callable:
        raise PlanError(
            f"{lm.model} takes {most} unit a request; plan={{'shard_size': {size}}} asks for more."
        )


def finding_types(job: Job, plan: Plan) -> dict[str | None, FindingType | None]:
    """The finding type of each map; None where a function's own columns say it."""
    kinds: dict[str | None, FindingType | None] = {}
    for name in job.names:
        kind = plan.finding.get(name) if isinstance(plan.finding, dict) else plan.finding
        kinds[name] = None if kind is None else FindingType.of(kind, name)
    return kinds


def check_names(job: Job, plan: Plan) -> None:
    """Refuse findings that would hide a column, and groups and aggregations of columns that will not be there.

    Raises:
        ColumnError: names collide, or one is missing.
    """
    frame = all_labels(job.frame)
    if not job.maps:
        _check_reduced(job, frame, complete=True)
        _check_planned(plan, frame, frame=set(job.frame.columns), complete=True)
        if plan.where is not None and not pd.api.types.is_bool_dtype(column(job.frame, plan.where)):
            raise UsageError(f"where={plan.where!r} takes a column of bools.")
        _check_computed(job, plan, {}, many=False)
        return
    kinds = finding_types(job, plan)
    found = [column for kind in kinds.values() if kind is not None for column in kind.all_columns]
    found += plan.status_columns or ()
    records = [
        column for kind in kinds.values() if kind is not None for column in kind.item_columns
    ]
    for kind in kinds.values():
        if kind is not None and plan.merge:
            rules_of(kind.model, plan.merge)
    there = set(job.frame.columns.get_level_values(0))
    for name in [*found, *records]:
        if name in there:
            raise ColumnError(
                f"The finding {name!r} would hide a column of the frame; rename one of them."
            )
        if found.count(name) > 1:
            raise ColumnError(f"Two maps find {name!r}; name them apart.")
    known = job.reduces and all(
        kind is not None for kind in kinds.values()
    )  # else a plan's reduce is not for now
    fields = set(found) | set(records)
    _check_reduced(job, frame | fields, complete=known)
    _check_planned(plan, fields, frame=set(job.frame.columns), complete=known)
    _check_group_columns(job, plan)
    if job.reduces:
        many = any(kind is not None and kind.item is not None for kind in kinds.values())
        _check_computed(job, plan, found_types(kinds), many=many)


def found_types(kinds: Mapping[str | None, FindingType | None]) -> dict[Any, Any]:
    """The types of the columns that the findings add; of many records a unit, the records' too."""
    types: dict[Any, Any] = {}
    for kind in kinds.values():
        if kind is not None and kind.item is not None:
            types |= dict(zip(kind.columns, field_types(kind.model).values(), strict=True)) | {
                kind.count_column: int
            }
    return types | row_types(kinds)


def row_types(kinds: Mapping[str | None, FindingType | None]) -> dict[Any, Any]:
    """The types of what is reduced row by row: of the findings' columns, or of many records a unit, the records'."""
    types: dict[Any, Any] = {}
    for kind in kinds.values():
        if kind is not None:
            columns, model = (
                (kind.item_columns, kind.item) if kind.item else (kind.columns, kind.model)
            )
            types |= dict(zip(columns, field_types(model).values(), strict=True))
    return types


def _check_computed(job: Job, plan: Plan, types: Mapping[Any, Any], *, many: bool) -> None:
    """Refuse what pandas cannot compute of the frame's columns and of fields of such types.

    ``many`` says that units hold none or many records.

    Raises:
        UsageError: an aggregation, a group, a ranking, a choice of rows or the output's type does not fit.
    """
    aggregations = dict(job.computed or plan.aggregations or {})
    plain = {
        name: how for name, how in aggregations.items() if not isinstance(function_of(how), Agent)
    }
    used = [column_of(name, how) for name, how in plain.items()]
    if plan.ranking is not None:
        used.append(plan.ranking.field)
    trial = replace(
        Trial.of(job.frame, types, used, job.by or plan.by),
        may_choose_none=many or plan.where is not None,
    )
    _refuse(
        trial.where_problem(plan.where) or trial.by_problem() or trial.ranking_problem(plan.ranking)
    )
    for name, how in plain.items():
        problem = trial.aggregation_problem(name, how)
        _refuse(problem and f"reduce[{name!r}]: {problem}")
    _refuse(trial.joint_problem(plain))
    if plan.output is not None:
        agents = job.reducer is None and plan.reduce_instruction is not None
        _ = OutputType(
            plan.output, held=agents and (job.by or plan.by) is not None
        )  # an unusable type is told now
        written = job.reducer is not None or (
            job.computed is None and plan.reduce_instruction is not None
        )
        if not written and plain == aggregations:
            _refuse(trial.output_problem(plain, plan.output) if plain else _ranking_problem(plan))


def _refuse(problem: str | None) -> None:
    if problem is not None:
        raise UsageError(f"{problem}.")


def _ranking_problem(plan: Plan) -> str | None:
    """Tell why the rows that rank first are not of the type that is asked for."""
    origin: Any = get_origin(plan.output)
    if plan.ranking is None or origin is list:
        return None
    return f"output={plan.output} cannot hold a ranking, which gives rows: leave output= out"


def _check_group_columns(job: Job, plan: Plan) -> None:
    if not plan.group_columns:
        return
    by = By(*plan.group_columns, sort=False, dropna=False)
    problem = Trial.of(job.frame, {}, (), by).by_problem()
    if problem is not None:
        raise ColumnError(f"group_columns: {problem.removeprefix('by=')}.")


def _check_planned(plan: Plan, fields: set[Any], *, frame: set[Any], complete: bool) -> None:
    """Refuse a plan that names what is not there."""
    for label in plan.group_columns or ():
        if label not in frame:
            raise ColumnError(f"group_columns names {label!r}, which is no column of the frame.")
    ranking = plan.ranking.field if plan.ranking else None
    for what, label, known in (("where", plan.where, fields), ("ranking", ranking, fields | frame)):
        if complete and label is not None and label not in known:
            raise ColumnError(
                f"{what} names {label!r}, which is not there. There is: {', '.join(sorted(map(repr, known)))}."
            )


def _check_reduced(job: Job, there: set[Any], *, complete: bool) -> None:
    """Refuse groups and aggregations of what is no column."""
    shown = ", ".join(sorted(map(repr, there)))
    missing = missing_keys(job.by, there, job.frame.index) if job.by and complete else []
    if missing:
        raise ColumnError(f"by= names {missing[0]!r}, which is no column. There is: {shown}.")
    aggregated = [column_of(name, how) for name, how in (job.computed or {}).items()]
    for label in aggregated:
        if complete and label not in there:
            raise ColumnError(f"reduce= names {label!r}, which is no column. There is: {shown}.")
    for label in [*aggregated, *(job.by.labels if job.by else ())]:
        if label in job.frame.columns:
            column(job.frame.iloc[:0], label)  # one, not several below one label
