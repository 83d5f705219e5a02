"""Before a run: its plan with an estimate, a sample that is mapped, the first requests as they would be sent."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_amr._agent.loop import turn_request
from pandas_amr._forecast import Measured, forecast, interval, prompt_tokens, sample_of, shards_of
from pandas_amr._found import found_of
from pandas_amr._keeper import bare
from pandas_amr._map import MapStage, context_of, make_mappers
from pandas_amr._mappers import AgentMapper
from pandas_amr._reduce import chosen, reduce_inputs, the_task, write
from pandas_amr._synthesise import NUMBER_TOKENS
from pandas_amr._usage import Usage
from pandas_amr.models.structured import as_asked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._estimate import Estimate
    from pandas_amr._map import Answered, Sample
    from pandas_amr._mappers import Mapper
    from pandas_amr._plan import Plan
    from pandas_amr._reduce import Found
    from pandas_amr._shards import Shard
    from pandas_amr._units import Units
    from pandas_amr._usage import Phase
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
    for shard in shards_of(work, units):
        for mapper in mappers:
            agent = bare(mapper)
            if isinstance(agent, AgentMapper) and len(bodies) < count:
                bodies.append(await _body(work, agent, shard))
        if len(bodies) >= count:
            break
    return bodies


async def _body(work: Work, agent: AgentMapper, shard: Shard) -> dict[str, Any]:
    assert work.wired is not None
    lm = work.lm("map", work.job.map_agents.get(agent.name))
    server = work.wired.bare[lm]
    changed = await agent.changed() if agent.repls is not None and agent.changed is not None else ()
    repl = [agent.repls(shard.positions)] if agent.repls is not None else []
    request = turn_request(
        agent.opening(shard.positions, changed=changed),
        submission=agent.kind.submission(alone=agent.alone),
        phase="map",
        tools=[*repl, *agent.tools],
    )
    return server.body(as_asked(request, server=server.address[0], name=lm.model))


async def _measured(work: Work, units: Units, sample: Sample) -> Measured | None:
    """Map a sample, reduce what was found, and see what it took; None where all of it failed."""
    stage = MapStage(work, units, sample=sample)
    await stage.recall()
    await stage.run(None)
    if work.ended_by is not None:
        raise work.ended_by
    found = chosen(work.plan.where, _of(found_of(work, stage), sample))
    lines = [one.line for one in reduce_inputs(work, units, found, np.arange(len(found.positions)))]
    asked = list(stage.answered())
    if not asked and not lines:
        return None
    count = work.counter("reduce")
    outputs, weights = (
        _outputs(work, stage, asked) if asked else ([float(count(one)) for one in lines], [1] * len(lines))
    )
    total = sum((node.usage for _, _, node in asked), Usage())
    return Measured(
        units=len(sample.positions),
        input_ratio=_ratio(stage, asked, total),
        output_tokens=sum(one * weight for one, weight in zip(outputs, weights, strict=True)) / sum(weights),
        finding_tokens=sum(count(one) + NUMBER_TOKENS for one in lines) / len(lines) if lines else NUMBER_TOKENS,
        findings=len(lines) / len(sample.positions),
        reduction_tokens=await _reduction_tokens(work, units, found) if lines else None,
        latency_s=total.seconds / max(1, total.calls),
        spread=interval(outputs, weights, of=len(units.asked) * max(1, len({name for _, name, _ in asked}))),
    )


def _outputs(work: Work, stage: MapStage, asked: Sequence[Answered]) -> tuple[list[float], list[int]]:
    """The answers' tokens a unit, by shard, and the shards' units."""
    alone = all(isinstance(agent, AgentMapper) and agent.alone for agent in _agents(stage).values())
    wrapper = 0 if alone else work.counter("map")(json.dumps({"findings": []}))
    outputs = [max(0, node.usage.output_tokens - wrapper) / len(shard.positions) for shard, _, node in asked]
    return outputs, [len(shard.positions) for shard, _, _ in asked]


def _ratio(stage: MapStage, asked: Sequence[Answered], total: Usage) -> float:
    """What the provider counted of the prompts, to what was counted here."""
    agents = _agents(stage)
    ours = sum(prompt_tokens(agent, s) for s, name, _ in asked if isinstance(agent := agents[name], AgentMapper))
    return total.input_tokens / ours if ours and total.input_tokens else 1.0


def _agents(stage: MapStage) -> dict[str | None, Mapper]:
    return {one.name: bare(one) for one in stage.mappers}


async def _reduction_tokens(work: Work, units: Units, found: Found) -> float | None:
    """What a reduce agent writes; None where none does."""
    if not work.written:
        return None
    line: tuple[Phase, str] = ("reduce", work.lm("reduce").model)
    before = work.ledger.lines.get(line, Usage())
    reduced = await write(work, units, found, np.arange(len(found.positions)), the_task(work))
    after = work.ledger.lines.get(line, Usage())
    if after.calls > before.calls:
        return (after.output_tokens - before.output_tokens) / (after.calls - before.calls)
    if reduced is None:
        return None
    return float(sum(work.counter("reduce")(one.line) for one in reduced.inputs()))  # the journal had it


def _of(found: Found, sample: Sample) -> Found:
    """What was found of the sample: one row a unit that was asked."""
    return found.at(np.flatnonzero(np.isin(found.positions, sample.positions)))
