"""What a run was asked for: frozen, and read by every stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandas_amr._agent.window import Window
from pandas_amr._context.python_sessions import isolate
from pandas_amr._context.wiring import resolve_lm, sandbox_for
from pandas_amr._findings.output import number_type
from pandas_amr._journal.keys import Question, fingerprint
from pandas_amr._plan.plan import Plan
from pandas_amr._records.tokens import count_tokens, counter_for
from pandas_amr.models.base import Abilities

if TYPE_CHECKING:
    from pandas_amr._agent.agent import Agent
    from pandas_amr._context.settings import Settings
    from pandas_amr._plan.call import Job
    from pandas_amr._records.tokens import TokenCounter
    from pandas_amr._records.usage import Phase
    from pandas_amr.models.base import LM
    from pandas_amr.tools import PythonREPLTool, Tool

ANSWER_TOKENS = 4096  # reserved for an answer if the model's own bound is not known


@dataclass(frozen=True)
class Spec:
    """The checked call, its settings, the models of its phases and, once it is derived, the plan.

    A phase's agents may have a model, tools and turns of their own: methods take the ``agent`` that
    the call names for a map or the reduce, or None.

    Attributes:
        sample_name: names the random sample that ``verify`` maps again; empty for any other run.
    """

    job: Job
    settings: Settings
    lms: Mapping[Phase, LM]
    plan: Plan = field(default_factory=lambda: Plan())  # noqa: PLW0108 (mypy: no plain callable)
    sample_name: str = ""

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
            if tool.isolated:
                usable.append(isolate(tool, sandbox_for(self.repl(agent))))
            else:
                usable.append(tool)
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
    def is_written(self) -> bool:
        """Whether agents write the answer: no function, aggregation or ranking gives it."""
        job = self.job
        is_computed = job.reducer is not None or job.computed is not None
        return job.reduces and not is_computed and bool(self.plan.reduce_instruction)

    @property
    def is_number_chosen(self) -> bool:
        """Whether an agent says how the answer, a number, is computed: it has no REPL for it."""
        if number_type(self.plan.output) is None or not self.is_written:
            return False
        return not self.has_repl("reduce", self.job.reduce_agent)

    @property
    def reduces_as_findings_land(self) -> bool:
        """Whether a tree of agents takes findings as they land: it needs no other finding to begin.

        Groups are known once all findings are; a number is computed of all of them; and a reduce
        agent whose instruction is a function is asked what that says of all of them.
        """
        agent = self.job.reduce_agent
        is_static = self.is_written and self.job.by is None and self.plan.fan_in is not None
        if not is_static or number_type(self.plan.output) is not None:
            return False
        return agent is None or isinstance(agent.instruction, str)

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
