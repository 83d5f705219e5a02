"""Before a run: its plan with an estimate, a sample that is mapped, the first requests as they would be sent."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_amr._agent.loop import turn_request
from pandas_amr._forecast import Measured, cut, forecast, interval, prompt_tokens, sample_of
from pandas_amr._found import found_of
from pandas_amr._keeper import JournaledMapper
from pandas_amr._map import MapStage, context_of, make_mappers
from pandas_amr._mappers import AgentMapper
from pandas_amr._reduce import Found, chosen, reduce_inputs, the_task, write
from pandas_amr._synthesise import NUMBER_TOKENS
from pandas_amr.models.structured import as_asked

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pandas_amr._estimate import Estimate
    from pandas_amr._map import Sample
    from pandas_amr._plan import Plan
    from pandas_amr._shards import Shard
    from pandas_amr._units import Units
    from pandas_amr._work import Work
    from pandas_amr.errors import AMRWarning


@dataclass(frozen=True)
class Wish:
    """What is wanted of a rehearsal, beside the estimate.

    Attributes:
        sample: how many units are mapped to find out.
        requests: how many requests are rendered.
    """

    sample: int = 0
    requests: int = 0


@dataclass(frozen=True)
class Draft:
    """A plan and what it would take, before it runs."""

    plan: Plan
    estimate: Estimate
    requests: list[dict[str, Any]] = field(default_factory=list)
    warnings: tuple[AMRWarning, ...] = ()


async def rehearse(work: Work, units: Units, wish: Wish) -> Draft:
    """What a run would take and send, without running it; with a sample, some units are mapped."""
    measured = await _measured(work, units, sample_of(work, units, wish.sample)) if wish.sample and work.lms else None
    requests = await _rendered(work, units, wish.requests)
    return Draft(work.plan, forecast(work, units, measured), requests, tuple(work.warnings))


async def _rendered(work: Work, units: Units, count: int) -> list[dict[str, Any]]:
    """The bodies of the first requests, in the form that the server is known to take, or the best one."""
    bodies: list[dict[str, Any]] = []
    if not count or work.wired is None:
        return bodies
    mappers = make_mappers(work, units, context_of(work, units))
    for shard in cut(work, units):
        for mapper in mappers:
            agent = mapper.mapper if isinstance(mapper, JournaledMapper) else mapper
            if isinstance(agent, AgentMapper) and len(bodies) < count:
                bodies.append(await _body(work, agent, shard))
        if len(bodies) >= count:
            break
    return bodies


async def _body(work: Work, agent: AgentMapper, shard: Shard) -> dict[str, Any]:
    assert work.wired is not None
    lm = work.lm("map", work.job.map_agents.get(agent.name))
    bare = work.wired.bare[lm]
    changed = await agent.changed() if agent.repls is not None and agent.changed is not None else ()
    repl = [agent.repls(shard.positions)] if agent.repls is not None else []
    request = turn_request(
        agent.opening(shard.positions, changed=changed),
        submission=agent.kind.submission(alone=agent.alone),
        phase="map",
        tools=[*repl, *agent.tools],
    )
    return bare.body(as_asked(request, server=bare.address[0], name=lm.model))


async def _measured(work: Work, units: Units, sample: Sample) -> Measured | None:
    """Map a sample, reduce what was found, and see what it took."""
    stage = MapStage(work, units, sample=sample)
    await stage.recall()
    await stage.run(None)
    ended = work.ended_by
    if ended is not None:
        raise ended
    mapped = list(stage.answered())
    if not mapped:
        return None
    found = _of(found_of(work, stage), sample)
    counted = chosen(work.plan.where, found)
    rows = np.arange(len(counted.positions))
    lines = reduce_inputs(work, units, counted, rows)
    count = work.counter("reduce")
    before = work.ledger.lines.get(("reduce", work.lm("reduce").model))
    written: float | None = None
    if work.written and lines:
        await write(work, units, counted, rows, the_task(work))
        after = work.ledger.lines[("reduce", work.lm("reduce").model)]
        calls = after.calls - (before.calls if before else 0)
        written = (after.output_tokens - (before.output_tokens if before else 0)) / calls if calls else None
    agents = {one.name: one.mapper if isinstance(one, JournaledMapper) else one for one in stage.mappers}
    ours = wrapped = 0
    for shard, name, _ in mapped:
        agent = agents[name]
        assert isinstance(agent, AgentMapper)
        ours += prompt_tokens(agent, shard)
        wrapped = 0 if agent.alone else count(json.dumps({"findings": []}))
    nodes = [node for _, _, node in mapped]
    told = sum(node.usage.input_tokens for node in nodes)
    maps = len({name for _, name, _ in mapped})
    weights = [len(shard.positions) for shard, _, _ in mapped]
    outputs = [max(0, node.usage.output_tokens - wrapped) / len(shard.positions) for shard, _, node in mapped]
    return Measured(
        units=len(sample.positions),
        input_ratio=told / ours if ours else 1.0,
        output_tokens=sum(one * weight for one, weight in zip(outputs, weights, strict=True)) / sum(weights),
        finding_tokens=sum(count(one.line) + NUMBER_TOKENS for one in lines) / len(lines) if lines else NUMBER_TOKENS,
        findings=len(lines) / len(sample.positions),
        reduction_tokens=written,
        latency_s=sum(node.usage.seconds for node in nodes) / max(1, sum(node.usage.calls for node in nodes)),
        spread=interval(outputs, weights, of=len(units.asked) * maps),
    )


def _of(found: Found, sample: Sample) -> Found:
    """What was found of the sample: one row a unit that was asked."""
    kept: NDArray[np.int64] = np.flatnonzero(np.isin(found.positions, sample.positions))
    return Found(found.table.iloc[kept], found.findings.iloc[kept], found.positions[kept], found.made_by)
