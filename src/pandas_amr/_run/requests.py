"""The first requests of a run as they would be sent: their bodies, and nothing is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pandas_amr._agent.requests import turn_request
from pandas_amr._map.agent import AgentMapper
from pandas_amr._map.cached import uncached
from pandas_amr._map.cut import make_context
from pandas_amr._map.mappers import make_mappers
from pandas_amr._map.prompt import Pieces
from pandas_amr._run.map_estimate import is_in_pieces, pieces_in
from pandas_amr._run.sample import shards_of
from pandas_amr.models.structured.model import in_current_form
from pandas_amr.models.structured.support import schema_support_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._agent.dispatch import AgentTool
    from pandas_amr._agent.repl import Repl
    from pandas_amr._agent.submission import Submission
    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._records.usage import Phase
    from pandas_amr._reduce.direct import DirectAnswer
    from pandas_amr._units.shards import Shard
    from pandas_amr._units.units import Units
    from pandas_amr.models.base import LM, Message
    from pandas_amr.tools import Tool


async def render_requests(
    spec: Spec, services: Services, units: Units, count: int, answering: DirectAnswer | None
) -> list[dict[str, Any]]:
    """Render the bodies of the first ``count`` requests.

    They have the form that the server is known to take; else the one that is tried first.
    """
    if not count or services.wired is None:
        return []
    if answering is not None:
        return [_render_direct(spec, services, answering)]
    bodies: list[dict[str, Any]] = []
    if not spec.job.maps:
        return bodies
    context = make_context(spec, units)
    mappers = await services.run_large(spec, make_mappers, spec, services, units, context)
    agents = [one for one in map(uncached, mappers) if isinstance(one, AgentMapper)]
    for shard in await services.run_large(spec, shards_of, spec, units):
        for agent in agents:
            if len(bodies) < count:
                missing = count - len(bodies)
                bodies += await _render_map(spec, services, agent, shard, missing)
        if len(bodies) >= count:
            break
    return bodies


async def _render_map(
    spec: Spec, services: Services, agent: AgentMapper, shard: Shard, count: int
) -> list[dict[str, Any]]:
    """Render an agent's first requests about a shard: one, or one per piece of a long unit."""
    positions = agent.prompt.askable(shard.positions)
    if not positions:
        return []
    lm = spec.lm("map", spec.job.map_agents.get(agent.name))
    if is_in_pieces(agent, shard):
        pieces = Pieces(positions[0], pieces_in(agent, shard))
        return _render_pieces(services, agent, lm, pieces, count)
    one_unit = len(positions) == 1
    differences: tuple[str, ...] = ()
    if agent.open_repl is not None and agent.frame_differences is not None:
        differences = await agent.frame_differences()
    messages = agent.prompt.messages(positions, one_unit=one_unit, differences=differences)
    submission = agent.kind.submission(alone=agent.prompt.is_flat(one_unit=one_unit))
    turn = _FirstTurn(services, lm, submission, "map")
    return [turn.body(messages, agent.repl_for(positions), agent.tools)]


def _render_pieces(
    services: Services, agent: AgentMapper, lm: LM, pieces: Pieces, count: int
) -> list[dict[str, Any]]:
    is_flat = agent.prompt.is_flat(one_unit=True, pieces=pieces)
    turn = _FirstTurn(services, lm, agent.kind.submission(alone=is_flat), "map")
    bodies: list[dict[str, Any]] = []
    for number in range(min(count, len(pieces.lines))):
        messages = agent.prompt.messages((number,), one_unit=True, pieces=pieces)
        bodies.append(turn.body(messages, None, agent.tools))
    return bodies


def _render_direct(spec: Spec, services: Services, answering: DirectAnswer) -> dict[str, Any]:
    """Render the request of one agent that answers from the whole content."""
    agent = answering.agent
    lines = [one.line for one in answering.inputs]
    lm = spec.lm("reduce", answering.task.agent)
    output = agent.prompt.output
    repl = agent.repl_for(lines, output)
    messages = agent.prompt.messages(lines, final=True)
    turn = _FirstTurn(services, lm, output.submission(), "reduce")
    return turn.body(messages, repl, agent.tools)


@dataclass(frozen=True, slots=True)
class _FirstTurn:
    """Renders an agent's first turn as its model would send it."""

    services: Services
    lm: LM
    submission: Submission
    phase: Phase

    def body(
        self, opening: Sequence[Message], repl: Repl | None, own_tools: Sequence[Tool]
    ) -> dict[str, Any]:
        """Render a request: with tools, or for code if the server is known to make no calls."""
        assert self.services.wired is not None
        endpoint = self.services.wired.bare[self.lm]
        server, name = endpoint.address[0], self.lm.model
        tools: list[AgentTool] = [*own_tools]
        if repl is not None:
            tools.insert(0, repl)
            writes_code = schema_support_of(server, name).writes_code
            if writes_code and repl.code == "possible" and not own_tools:
                repl.code = "found"
        request = turn_request(
            opening, submission=self.submission, phase=self.phase, tools=tools, repl=repl
        )
        return endpoint.body(in_current_form(request, server=server, name=name))
