"""A call of a verb: as the user wrote it, and as a job that can be carried out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pandas_amr._agent.agent import Agent
from pandas_amr._findings.finding_type import FindingType
from pandas_amr._plan.aggregations import function_of
from pandas_amr._types.arrow import field_types

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import pandas as pd

    from pandas_amr._plan.plan import Plan
    from pandas_amr._records.usage import Phase
    from pandas_amr._units.by import By
    from pandas_amr._units.redaction import Redaction
    from pandas_amr.models.base import LM
    from pandas_amr.tools import PythonREPLTool, Tool

Verb = Literal["map_reduce", "map", "filter", "reduce", "plan"]
Errors = Literal["coerce", "raise"]
KEEP = "amr_keep"
VERSION = "amr_version"  # an attribute of a user's function


class Pipeline(ABC):
    """A map or a reduce that runs verbs of its own inside the run: a ``Recipe``."""

    @property
    @abstractmethod
    def lm(self) -> Any:
        """The model that the pipeline names."""

    @property
    @abstractmethod
    def needs_model(self) -> bool:
        """Whether the pipeline may ask a model."""

    @abstractmethod
    async def map_row(self, frame: pd.DataFrame, position: int) -> Any:
        """Return the finding of one row.

        Args:
            frame: the row.
            position: where it stands in the frame of the run.
        """

    @abstractmethod
    async def reduce_findings(self, findings: pd.DataFrame) -> Any:
        """Return the answer to a frame of findings."""

    @abstractmethod
    def check_planning(self, lms: Mapping[Phase, LM], settings: Any) -> None:
        """Refuse a task in the pipeline if the model cannot plan."""


def may_ask_model(function: object) -> bool:
    """Tell whether a function is a pipeline that may ask a model."""
    return isinstance(function, Pipeline) and function.needs_model


def version_of(function: object) -> Any:
    """Return the version that the user gave a function; with it, its findings are kept."""
    return getattr(function, VERSION, None)


@dataclass(frozen=True, kw_only=True)
class Call:
    """A verb and its arguments, as the user gave them."""

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
    trace: Any = None
    on_event: Any = None
    out: Any = None
    engine: Any = None


@dataclass(frozen=True)
class Job:
    """A call that can be carried out.

    Attributes:
        given: the plan as far as the user fixed it.
        open: the fields of the plan that a planner may derive.
        names: the names of the maps that run side by side; ``(None,)`` for a single map.
        callables: the maps that are functions, by name.
        reducer: a reduce that is a function.
        computed: a reduce that is aggregations; functions and agents may be among them.
        repl: the REPL that agents get, if any.
        map_agents: the agents that map, by name, if more than an instruction is given.
        reduce_agent: the agent that reduces, likewise.
        settings: the options of the run that the call names.
        call: the call itself, for errors that write it out.
        redaction: applies the user's ``redact`` function to what is sent; None without one.
        redacted: the frame as it is sent, if a ``redact`` function is in force.
    """

    verb: Verb
    frame: pd.DataFrame
    columns: tuple[int, ...]
    task: str | None
    given: Plan
    open: tuple[str, ...]
    names: tuple[str | None, ...]
    callables: Mapping[str | None, Callable[..., Any] | Pipeline]
    reducer: Callable[..., Any] | Pipeline | None
    computed: Mapping[str, Any] | None
    by: By | None
    tools: tuple[Tool, ...]
    repl: PythonREPLTool | None
    lm: Any
    map_agents: Mapping[str | None, Agent] = field(default_factory=dict)
    reduce_agent: Agent | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    call: Call | None = None
    redaction: Redaction | None = None
    redacted: pd.DataFrame | None = None

    @property
    def sent(self) -> pd.DataFrame:
        """The frame as it is sent. Whatever a model reads of rows is read from it."""
        return self.frame if self.redacted is None else self.redacted

    @property
    def sends_all_columns(self) -> bool:
        """Whether more than the content columns, and those of groups, may be sent.

        Code sees all columns, reducers read the rows that rank first whole, and a planner reads of
        all columns.
        """
        if self.open or self.has_repl:
            return True
        return self.reduces and not self.is_reduced_by_code

    @property
    def has_repl(self) -> bool:
        """Whether an agent that the call names has a REPL, or all have one."""
        return self.repl is not None or any(agent.own_repl is not None for agent in self.agents)

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
        if self.open or any(pipeline.needs_model for pipeline in self.pipelines):
            return True
        if self.maps and not self.all_callable:
            return True
        return self.reduces and not self.is_reduced_by_code

    @property
    def is_reduced_by_code(self) -> bool:
        """Whether a function, pandas or a ranking gives the answer, and no model."""
        if self.reducer is not None:
            return True
        if self.computed is not None and not self.column_agents:
            return True
        return self.given.ranking is not None and self.given.reduce_instruction is None

    @property
    def group_labels(self) -> list[Hashable]:
        """The columns, fields or index levels by which the reduce groups."""
        return self.by.labels if self.by is not None else []

    @property
    def column_agents(self) -> list[Agent]:
        """The agents that write a column of the answer."""
        functions = [function_of(how) for how in (self.computed or {}).values()]
        return [function for function in functions if isinstance(function, Agent)]

    @property
    def agents(self) -> list[Agent]:
        """All agents that the call names."""
        agents = [*self.map_agents.values(), *self.column_agents]
        if self.reduce_agent is not None:
            agents.append(self.reduce_agent)
        return agents

    @property
    def has_version(self) -> bool:
        """Whether a function has a version, so that its findings can be kept in the journal."""
        return any(version_of(function) for function in self.callables.values())

    @property
    def pipelines(self) -> list[Pipeline]:
        """The maps and the reduce that run verbs of their own."""
        functions: list[object] = [*self.callables.values(), self.reducer]
        return [function for function in functions if isinstance(function, Pipeline)]

    @property
    def all_callable(self) -> bool:
        """Whether all maps are functions."""
        return self.maps and len(self.callables) == len(self.names)

    @property
    def reads_by_model(self) -> bool:
        """Whether a map asks a model about units: an agent does, and a recipe may."""
        if not self.maps:
            return False
        functions = self.callables.values()
        has_recipe = any(may_ask_model(function) for function in functions)
        return has_recipe or not self.all_callable


# By the name of the map; None for a function whose columns only the run can tell.
FindingTypes: TypeAlias = Mapping[str | None, FindingType | None]
ColumnTypes: TypeAlias = Mapping[Any, Any]  # by the name of the column


def finding_types(job: Job, plan: Plan) -> FindingTypes:
    """Return the finding type of each map."""
    return named_finding_types(job.names, plan)


def named_finding_types(names: Sequence[str | None], plan: Plan) -> FindingTypes:
    """Return the finding type of each map, by the maps' names."""
    kinds: dict[str | None, FindingType | None] = {}
    for name in names:
        kind = plan.finding
        if isinstance(kind, dict):
            kind = kind.get(name)
        kinds[name] = None if kind is None else FindingType.of(kind, name)
    return kinds


def added_types(kinds: FindingTypes) -> ColumnTypes:
    """Return the types of all columns that the findings add, by name.

    If a unit holds many records, both the units' columns and the records' are among them.
    """
    types: dict[Any, Any] = {}
    for kind in kinds.values():
        if kind is not None and kind.item is not None:
            types |= dict(zip(kind.columns, field_types(kind.model).values(), strict=True))
            types[kind.count_column] = int
    return {**types, **reduced_types(kinds)}


def reduced_types(kinds: FindingTypes) -> ColumnTypes:
    """Return the types of the columns that are reduced, by name.

    These are the findings' columns; if a unit holds many records, the records' columns.
    """
    types: dict[Any, Any] = {}
    for kind in kinds.values():
        if kind is None:
            continue
        if kind.item is None:
            columns, model = kind.columns, kind.model
        else:
            columns, model = kind.item_columns, kind.item
        types |= dict(zip(columns, field_types(model).values(), strict=True))
    return types
