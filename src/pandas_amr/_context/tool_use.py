"""Whether the models of a call can use the tools that it names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pandas_amr.errors import UsageError
from pandas_amr.models.structured.support import schema_support_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pandas_amr._agent.agent import Agent
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.wiring import Wired
    from pandas_amr._plan.call import Job
    from pandas_amr._records.usage import Phase
    from pandas_amr.models.base import LM
    from pandas_amr.tools import PythonREPLTool, Tool


@dataclass(frozen=True)
class _ToolUse:
    """The tools that some agents of a call are given, and their model."""

    lm: LM
    tools: tuple[Tool, ...]
    repl: PythonREPLTool | None

    @property
    def is_possible(self) -> bool:
        """Whether the model can use any of them: one that writes code can use the REPL."""
        if self.lm.abilities.tools == "code":
            return self.repl is not None
        return bool(self.lm.abilities.tools)


def check_tools(spec: Spec) -> None:
    """Refuse tools if the models that would get them are known to call none.

    Raises:
        UsageError: no agent of the call could use any of its tools.
    """
    uses = list(_list_uses(spec))
    if not uses or any(use.is_possible for use in uses):
        return
    models = ", ".join(dict.fromkeys(use.lm.model for use in uses))
    if uses[0].lm.abilities.tools == "code":
        raise UsageError(
            f"{models} calls no tools, it writes code: tools= takes amr.PythonREPLTool() then. "
            "Leave the others out, or name a model that calls tools."
        )
    raise UsageError(
        f"{models} calls no tools, as its Abilities(tools=False) say: leave tools= out, or name a "
        "model that calls tools. For one that can write Python, "
        'LM(abilities=amr.Abilities(tools="code")) gives it the REPL.'
    )


def check_tools_at_server(spec: Spec, wired: Wired) -> None:
    """Refuse tools that a server has refused in this process.

    Raises:
        UsageError: the run would end with its first request.
    """
    for use in _list_uses(spec):
        server = wired.bare[use.lm].address[0]
        support = schema_support_of(server, use.lm.model)
        if use.tools and use.lm.abilities.tools is True and support.has_refused_tools:
            raise UsageError(
                f"The server of {use.lm.model} has refused tools: leave tools= out (a REPL alone "
                "can stay: code is then written as an answer), or name a model that calls tools."
            )


def _list_agents(job: Job) -> list[tuple[Phase, Agent | None]]:
    """List the agents of a call: None is one that is an instruction alone."""
    agents: list[tuple[Phase, Agent | None]] = []
    for name in job.names if job.maps else ():
        if name not in job.callables:
            agents.append(("map", job.map_agents.get(name)))
    for column_agent in job.column_agents:
        agents.append(("reduce", column_agent))
    if job.reduces and job.computed is None and not job.is_reduced_by_code:
        agents.append(("reduce", job.reduce_agent))
    return agents


def _list_uses(spec: Spec) -> Iterator[_ToolUse]:
    """List which agents are given tools; none if functions and pandas do all."""
    for phase, agent in _list_agents(spec.job):
        has_own = agent is not None and agent.tools is not None
        tools = agent.own_tools if agent is not None and has_own else spec.job.tools
        repl = spec.repl(agent)
        if tools or repl is not None:
            yield _ToolUse(spec.lm(phase, agent), tuple(tools), repl)
