"""Before a run: its plan with an estimate, a sample that is mapped, the first requests as they would be sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_amr._agent.requests import turn_request
from pandas_amr._map.agent import AgentMapper
from pandas_amr._map.cached import uncached
from pandas_amr._map.cut import make_context
from pandas_amr._map.mappers import make_mappers
from pandas_amr._map.prompt import Pieces
from pandas_amr._map.stage import MapStage
from pandas_amr._records.usage import Usage
from pandas_amr._reduce.direct import DirectAnswer, make_direct_answer
from pandas_amr._reduce.failures import ReduceFailures
from pandas_amr._reduce.inputs import select_where
from pandas_amr._reduce.task import answer_task
from pandas_amr._reduce.trees import ReduceTrees
from pandas_amr._reduce.truncate import NUMBER_TOKENS
from pandas_amr._run.estimate import (
    WRAPPER,
    Measured,
    counted_tokens,
    forecast,
    in_pieces,
    interval,
    pieces_in,
    sample_of,
    shards_of,
)
from pandas_amr.errors import FailureWarning, MapFailed, ModelError
from pandas_amr.models.structured.model import as_asked
from pandas_amr.models.structured.support import forms_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._agent.dispatch import AgentTool
    from pandas_amr._agent.repl import Repl
    from pandas_amr._agent.submission import Submission
    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._findings.inputs import FindingRows
    from pandas_amr._map.cut import Sample
    from pandas_amr._map.mapper import Mapper
    from pandas_amr._map.stage import MapNode
    from pandas_amr._plan.plan import Plan
    from pandas_amr._records.estimate import Estimate
    from pandas_amr._records.usage import Phase
    from pandas_amr._result.result import Result
    from pandas_amr._units.shards import Shard
    from pandas_amr._units.units import Units
    from pandas_amr.errors import AMRWarning
    from pandas_amr.models.base import LM, Message
    from pandas_amr.tools import Tool


@dataclass(frozen=True)
class PreviewOptions:
    """What ``plan()`` wants to know beside the estimate.

    Attributes:
        sample: how many units are mapped to find out.
        requests: how many requests are rendered.
    """

    sample: int = 0
    requests: int = 0


@dataclass(frozen=True)
class Draft:
    """A plan and what it would take, before it runs.

    Attributes:
        result: what it took to find out, as a run's result.
    """

    plan: Plan
    estimate: Estimate
    requests: list[dict[str, Any]] = field(default_factory=list)
    warnings: tuple[AMRWarning, ...] = ()
    result: Result | None = None


async def preview(
    spec: Spec, services: Services, state: State, units: Units, options: PreviewOptions
) -> Draft:
    """What a run would take and send, without running it; with a sample, some units are mapped."""
    answering = (
        await services.run_large(spec, make_direct_answer, spec, services, state, units)
        if spec.lms
        else None
    )
    measured = None
    if options.sample and spec.lms and len(units) and answering is None:
        async with services.time_limit(spec):
            sample = await services.run_large(spec, sample_of, spec, units, options.sample)
            measured = await _measured(spec, services, state, units, sample)
    requests = await _rendered(spec, services, state, units, options.requests, answering)
    estimate = await services.run_large(spec, forecast, spec, services, state, units, measured)
    return Draft(spec.plan, estimate, requests, tuple(state.warnings))


async def _rendered(
    spec: Spec,
    services: Services,
    state: State,
    units: Units,
    count: int,
    answering: DirectAnswer | None,
) -> list[dict[str, Any]]:
    """The bodies of the first requests, in the form that the server is known to take, or the best one."""
    bodies: list[dict[str, Any]] = []
    if not count or services.wired is None:
        return bodies
    if answering is not None:
        return [_body_alone(spec, services, answering)]
    mappers = make_mappers(spec, services, units, make_context(spec, units))
    for shard in await services.run_large(spec, shards_of, spec, units):
        for mapper in mappers:
            agent = uncached(mapper)
            if isinstance(agent, AgentMapper) and len(bodies) < count:
                bodies += await _bodies(spec, services, agent, shard, count - len(bodies))
        if len(bodies) >= count:
            break
    return bodies


async def _bodies(
    spec: Spec, services: Services, agent: AgentMapper, shard: Shard, count: int
) -> list[dict[str, Any]]:
    """The first of an agent's requests about a shard: one, or one a piece of a unit that is larger than a shard."""
    positions = agent.prompt.askable(shard.positions)
    if not positions:
        return []
    lm = spec.lm("map", spec.job.map_agents.get(agent.name))
    repl: Repl | None = None
    if in_pieces(agent, shard):
        pieces = Pieces(shard.positions[0], pieces_in(agent, shard))
        openings = [
            agent.prompt.messages((number,), one_unit=True, pieces=pieces)
            for number in range(min(count, len(pieces.lines)))
        ]
        is_flat = agent.prompt.is_flat(one_unit=True, pieces=pieces)
    else:
        differences: tuple[str, ...] = ()
        if agent.open_repl is not None and agent.frame_differences is not None:
            differences = await agent.frame_differences()
        repl = agent.repl_for(positions)
        one_unit = len(positions) == 1
        openings = [agent.prompt.messages(positions, one_unit=one_unit, differences=differences)]
        is_flat = agent.prompt.is_flat(one_unit=one_unit)
    submission = agent.kind.submission(alone=is_flat)
    asked = _Asked(services, lm, submission, "map")
    return [asked.body(opening, repl, agent.tools) for opening in openings]


@dataclass(frozen=True, slots=True)
class _Asked:
    """An agent's first turn as it would be sent."""

    services: Services
    lm: LM
    submission: Submission
    phase: Phase

    def body(
        self, opening: Sequence[Message], repl: Repl | None, own: Sequence[Tool]
    ) -> dict[str, Any]:
        """The body of the request: a call, or code in its place if the server is known to make no calls."""
        assert self.services.wired is not None
        server = self.services.wired.bare[self.lm]
        tools: list[AgentTool] = [*([] if repl is None else [repl]), *own]
        lessons = forms_of(server.address[0], self.lm.model)
        if repl is not None and lessons.writes_code and repl.code == "possible" and not own:
            repl.code = "found"
        request = turn_request(
            opening, submission=self.submission, phase=self.phase, tools=tools, repl=repl
        )
        return server.body(as_asked(request, server=server.address[0], name=self.lm.model))


def _body_alone(spec: Spec, services: Services, answering: DirectAnswer) -> dict[str, Any]:
    """The request of one agent that answers from the whole content."""
    agent, lines = answering.agent, [one.line for one in answering.inputs]
    lm = spec.lm("reduce", answering.task.agent)
    output = agent.prompt.output
    repl = agent.repl_for(lines, output)
    opening = agent.prompt.messages(lines, final=True)
    return _Asked(services, lm, output.submission(), "reduce").body(opening, repl, agent.tools)


async def _measured(
    spec: Spec, services: Services, state: State, units: Units, sample: Sample
) -> Measured | None:
    """Map a sample, reduce what was found, and see what it took; None where nothing is mapped, or all of it failed.

    Raises:
        RunStopped: a budget ended it, or ``errors="raise"`` met a failure.
    """
    if not spec.job.maps:
        return None
    stage = await services.run_large(
        spec, partial(MapStage, sample=sample), spec, services, state, units
    )
    state.findings, state.made_by = stage.findings, stage.made_by
    await stage.recall()
    before = services.ledger.total
    await stage.run(None)
    mapped = services.ledger.total - before
    if state.ended_by is not None:
        raise state.ended_by
    if _all_failed(spec, state, sample):
        return None
    found = select_where(spec.plan.where, _of(state.finding_rows(spec.job), sample))
    lines = [
        one.line
        for one in ReduceTrees(spec, services, state, units).render_inputs(
            found, np.arange(len(found.positions))
        )
    ]
    asked = stage.model_nodes()
    count = spec.counter("reduce")
    outputs, weights = (
        _outputs(spec, stage, asked)
        if asked
        else ([float(count(one)) for one in lines], [1] * len(lines))
    )
    total = sum((node.usage for _, _, node in asked), Usage())
    inside = _inside(spec, mapped - total)
    return Measured(
        units=len(sample.positions),
        input_ratio=_ratio(stage, asked, total),
        output_tokens=sum(one * weight for one, weight in zip(outputs, weights, strict=True))
        / sum(weights),
        finding_tokens=sum(count(one) + NUMBER_TOKENS for one in lines) / len(lines)
        if lines
        else NUMBER_TOKENS,
        findings=len(lines) / len(sample.positions),
        reduction_tokens=await _reduction_tokens(spec, services, state, units, found)
        if lines
        else None,
        latency_s=total.seconds / max(1, total.calls),
        spread=max(
            interval(
                outputs, weights, of=len(units.asked) * max(1, len({name for _, name, _ in asked}))
            ),
            interval(*_of_pipelines(services), of=len(units.asked)) if inside is not None else 0.0,
        ),
        inside=inside,
    )


def _inside(spec: Spec, mapped: Usage) -> Usage | None:
    """What the pipelines took that rows of a sample went through; None where there is none, or the journal had some."""
    piped = any(getattr(one, "needs_model", False) for one in spec.job.callables.values())
    return mapped if piped and not mapped.recalled else None


def _of_pipelines(services: Services) -> tuple[list[float], list[int]]:
    """The tokens a unit of what pipelines took, by shard, and the shards' units."""
    taken = {
        node.id: 0 for node in services.trace.nodes if node.type == "map" and "/" not in node.id
    }
    sizes = {node.id: node.units for node in services.trace.nodes}
    for node in services.trace.nodes:
        outer, _, inner = node.id.partition("/")
        taken[outer] += node.usage.tokens if inner and outer in taken else 0
    return [tokens / sizes[name] for name, tokens in taken.items()], [sizes[name] for name in taken]


def _all_failed(spec: Spec, state: State, sample: Sample) -> bool:
    """Whether all of a sample failed; what failed of it is told.

    Raises:
        MapFailed: something did, and ``errors="raise"``.
    """
    sampled = set(sample.positions.tolist())
    failures = [one for one in state.sorted_failures(spec.job.names) if one.position in sampled]
    if not failures:
        return False
    rows = len({one.position for one in failures})
    what = f"{rows} of the {len(sampled)} units of the sample failed"
    said = (
        f"{what}; the first, row {failures[0].position}: {failures[0].reason} ({failures[0].who})"
    )
    if spec.settings.errors == "raise":
        raise MapFailed(said)
    nothing = len(failures) == len(sampled) * len(spec.job.names)
    scaled = (
        "The estimate is that without a sample."
        if nothing
        else "The estimate is scaled up from the rest."
    )
    state.warnings.append(FailureWarning(f"{said}. {scaled}"))
    return nothing


def _outputs(
    spec: Spec, stage: MapStage, asked: Sequence[MapNode]
) -> tuple[list[float], list[int]]:
    """The answers' tokens a unit, by shard, and the shards' units."""
    wrapper, agents = spec.counter("map")(WRAPPER), _agents(stage)
    outputs: list[float] = []
    for shard, name, node in asked:
        agent = agents[name]
        flat = isinstance(agent, AgentMapper) and agent.prompt.is_flat(
            one_unit=len(shard.positions) == 1
        )
        outputs.append(
            max(0, node.usage.output_tokens - (0 if flat else wrapper)) / len(shard.positions)
        )
    return outputs, [len(shard.positions) for shard, _, _ in asked]


def _ratio(stage: MapStage, asked: Sequence[MapNode], total: Usage) -> float:
    """What the provider counted of the prompts, to what was counted here."""
    agents = _agents(stage)
    ours = sum(
        counted_tokens(agent, s)
        for s, name, _ in asked
        if isinstance(agent := agents[name], AgentMapper)
    )
    return total.input_tokens / ours if ours and total.input_tokens else 1.0


def _agents(stage: MapStage) -> dict[str | None, Mapper]:
    return {one.name: uncached(one) for one in stage.mappers}


async def _reduction_tokens(
    spec: Spec, services: Services, state: State, units: Units, found: FindingRows
) -> float | None:
    """What a reduce agent writes; None where none does, or one says how the answer is computed."""
    if not spec.is_written or spec.reduce_kind == "chosen_number":
        return None
    line: tuple[Phase, str] = ("reduce", spec.lm("reduce").model)
    before = services.ledger.lines.get(line, Usage())
    try:
        reduced = await ReduceTrees(spec, services, state, units).write(
            found, np.arange(len(found.positions)), answer_task(spec)
        )
    except ModelError as error:
        ReduceFailures(spec, state).add(str(error), error)
        state.warnings.append(
            FailureWarning(
                f"The reduce of the sample failed: {error}. It is reckoned as without one."
            )
        )
        return None
    after = services.ledger.lines.get(line, Usage())
    if after.calls > before.calls:
        return (after.output_tokens - before.output_tokens) / (after.calls - before.calls)
    if reduced is None:
        return None
    return float(
        sum(spec.counter("reduce")(one.line) for one in reduced.inputs())
    )  # the journal had it


def _of(found: FindingRows, sample: Sample) -> FindingRows:
    """What was found of the sample: one row a unit that was asked."""
    return found.select(np.flatnonzero(np.isin(found.positions, sample.positions)))
