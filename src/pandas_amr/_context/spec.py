"""What a run was asked for: frozen, and read by every stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pandas_amr._agent.window import Window
from pandas_amr._context.python_sessions import isolate
from pandas_amr._context.wiring import resolve_lm, sandbox_for
from pandas_amr._findings.output import number_type
from pandas_amr._journal.keys import Question, fingerprint
from pandas_amr._plan.call import finding_types
from pandas_amr._plan.plan import Plan
from pandas_amr._records.tokens import count_tokens, counter_for
from pandas_amr._units.redaction import make_text_redaction
from pandas_amr.models.base import Abilities
from pandas_amr.tools import with_redaction

if TYPE_CHECKING:
    from pandas_amr._agent.agent import Agent
    from pandas_amr._context.settings import Settings
    from pandas_amr._plan.call import Job
    from pandas_amr._records.tokens import TokenCounter
    from pandas_amr._records.usage import Phase
    from pandas_amr._units.redaction import Redaction
    from pandas_amr.models.base import LM
    from pandas_amr.tools import PythonREPLTool, Tool

ANSWER_TOKENS = 4096  # reserved for an answer if the model's own bound is not known

ReduceKind: TypeAlias = Literal[
    "none",
    "function",  # of the user's
    "aggregations",  # by pandas; agents may write some of the columns
    "ranking",  # the rows that rank first
    "chosen_number",  # an agent says how the number is computed
    "agents_by_group",  # one tree of agents per group
    "agents",  # one tree of agents over all findings
]
WRITTEN_KINDS: frozenset[ReduceKind] = frozenset({"chosen_number", "agents_by_group", "agents"})


@dataclass(frozen=True)
class Spec:
    """The checked call, its settings, the models of its phases and, once it is derived, the plan.

    A phase's agents may have a model, tools and turns of their own: methods take the ``agent`` that
    the call names for a map or the reduce, or None.

    Attributes:
        sample_name: names the random sample that ``verify`` maps again; empty for any other run.
        has_corrections: whether a person wrote some of the findings.
    """

    job: Job
    settings: Settings
    lms: Mapping[Phase, LM]
    plan: Plan = field(default_factory=lambda: Plan())  # noqa: PLW0108 (mypy: no plain callable)
    sample_name: str = ""
    has_corrections: bool = False

    def lm(self, phase: Phase, agent: Agent | None = None) -> LM:
        """Return the model of a phase, or the agent's own."""
        if agent is None or agent.lm is None:
            return self.lms[phase]
        return resolve_lm(agent.lm)

    def abilities(self, phase: Phase, agent: Agent | None = None) -> Abilities:
        """Return what the model can do; the defaults if no model is asked anything."""
        if phase not in self.lms:
            return Abilities()
        return self.lm(phase, agent).abilities

    def counter(self, phase: Phase, agent: Agent | None = None) -> TokenCounter:
        """Return a function that counts tokens as the model does."""
        lm = self.lm(phase, agent)
        if lm.token_counter is not None:
            return partial(count_tokens, lm.token_counter)
        return counter_for(lm.model)

    def window(self, phase: Phase, agent: Agent | None = None) -> Window:
        """Return what a prompt may take of the context window; the rest is for the answer."""
        lm = self.lm(phase, agent)
        window_tokens = lm.abilities.context_window
        answer_tokens = min(lm.max_output_tokens or ANSWER_TOKENS, window_tokens // 4)
        return Window(window_tokens, window_tokens - answer_tokens, self.counter(phase, agent))

    def max_steps(self, agent: Agent | None = None) -> int:
        """Return the most turns with tools."""
        if agent is None or agent.max_steps is None:
            return self.settings.max_steps
        return agent.max_steps

    @property
    def max_repairs(self) -> int:
        """Repair turns of an answer that cannot be used."""
        return 1 if self.plan.max_repairs is None else self.plan.max_repairs

    def tools(self, phase: Phase, agent: Agent | None = None) -> tuple[Tool, ...]:
        """Return the user's tools for a phase's agents.

        There are none if the model cannot call any, or writes code in place of calls.
        """
        if self.abilities(phase, agent).tools is not True:
            return ()
        has_own_tools = agent is not None and agent.tools is not None
        tools = agent.own_tools if agent is not None and has_own_tools else self.job.tools
        usable: list[Tool] = []
        for tool in tools:
            own = isolate(tool, sandbox_for(self.repl(agent))) if tool.isolated else tool
            redact = make_text_redaction(self.job.redaction, f"a result of the tool {tool.name!r}")
            usable.append(own if redact is None else with_redaction(own, redact))
        return tuple(usable)

    def repl(self, agent: Agent | None) -> PythonREPLTool | None:
        """Return the REPL that the call, or the agent, names."""
        if agent is None or agent.tools is None:
            return self.job.repl
        return agent.own_repl

    def has_repl(self, phase: Phase, agent: Agent | None = None) -> bool:
        """Tell whether the agents of a phase get a REPL."""
        return self.repl(agent) is not None and bool(self.abilities(phase, agent).tools)

    @property
    def sandbox_tier(self) -> str:
        """What confines code of agents; empty if none may run, or if none has run yet."""
        isolated = any(tool.isolated for tool in self.job.tools)
        if self.job.repl is None and not isolated:
            return ""
        if not any(self.abilities(phase).tools for phase in self.lms):
            return ""
        tier = sandbox_for(self.job.repl).tier
        return "" if tier == "auto" else tier

    @property
    def reduce_kind(self) -> ReduceKind:
        """Which reduce runs. Every stage that depends on it asks here."""
        job, plan = self.job, self.plan
        if not job.reduces:
            return "none"
        if job.reducer is not None:
            return "function"
        if job.computed is not None or not plan.reduce_instruction:
            is_ranking = plan.ranking is not None and not self.aggregations
            return "ranking" if is_ranking else "aggregations"
        is_number = number_type(plan.output) is not None
        if is_number and not self.has_repl("reduce", job.reduce_agent):
            return "chosen_number"
        return "agents" if job.by is None else "agents_by_group"

    @property
    def aggregations(self) -> Mapping[Any, Any]:
        """What pandas computes, by column: as the call says it, or else the plan."""
        return self.job.computed or self.plan.aggregations or {}

    @property
    def is_written(self) -> bool:
        """Whether agents write the answer: no function, aggregation or ranking gives it."""
        return self.reduce_kind in WRITTEN_KINDS

    @property
    def may_answer_directly(self) -> bool:
        """Whether one agent may answer from the whole content, if that fits its budget."""
        job = self.job
        is_one_answer = job.verb in {"map_reduce", "plan"} and job.by is None
        return bool(self.plan.direct) and is_one_answer and self.is_written

    @property
    def reduces_as_findings_land(self) -> bool:
        """Whether a tree of agents takes findings as they land: it needs no other finding to begin.

        Groups are known once all findings are; a number is computed of all of them; and a reduce
        agent whose instruction is a function is asked what that says of all of them.
        """
        if self.reduce_kind != "agents" or self.plan.fan_in is None:
            return False
        if number_type(self.plan.output) is not None:
            return False
        agent = self.job.reduce_agent
        return agent is None or isinstance(agent.instruction, str)

    def redaction_of(self, label: object) -> Redaction | None:
        """Return what a column passes before a reducer reads it; None if it is read as it is.

        What agents found, they found in redacted text. Columns of the frame are not redacted, nor
        is what functions of the user's found, who read the rows as they are, nor what a person
        wrote.
        """
        name = label
        if isinstance(label, tuple) and not any(label[1:]):  # beside columns of several levels
            name = label[0]
        is_found = name in self._agent_columns and label not in self.job.frame.columns
        is_found = is_found and not self.has_corrections
        return None if is_found else self.job.redaction

    @cached_property
    def _agent_columns(self) -> frozenset[Any]:
        columns: set[Any] = set()
        if not self.job.maps:
            return frozenset()
        for name, kind in finding_types(self.job, self.plan).items():
            if kind is not None and name not in self.job.callables:
                columns.update(kind.all_columns)
                columns.update(kind.item_columns)
        return frozenset(columns)

    def instruction(self, name: str | None) -> str:
        """Return what the agents of a map are asked."""
        instructions = self.plan.map_instruction
        if isinstance(instructions, dict):
            return instructions[str(name)]
        return str(instructions)

    def planned_job(self) -> Job:
        """Return the call with nothing left open: carried out again, it needs no planner."""
        return replace(self.job, given=self.plan, open=())

    def question(
        self, phase: Phase, question: Question, agent: Agent | None, *, server: str
    ) -> Question:
        """Complete what an answer's key depends on: the model, its tools, its Python."""
        python = _describe_python(self.repl(agent)) if self.has_repl(phase, agent) else None
        return replace(
            question,
            lm=self.lm(phase, agent),
            server=server,
            tools=self.tools(phase, agent),
            python=python,
        )


def _describe_python(repl: PythonREPLTool | None) -> dict[str, Any]:
    """Name what code may use: packages, and files by a digest of their content."""
    if repl is None:
        return {"packages": [], "files": {}}
    digests: dict[str, str] = {}
    if isinstance(repl.files, Mapping):
        for name, path in sorted(repl.files.items()):
            digests[name] = fingerprint(Path(path).read_bytes()).hex()
    return {"packages": sorted(repl.packages), "files": digests}
