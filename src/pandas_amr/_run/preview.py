"""Before a run: its plan with an estimate, a sample that is mapped, the first requests as they would be sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_amr._agent.loop import turn_request
from pandas_amr._findings.inputs import found_of
from pandas_amr._map.agent import AgentMapper, SoFar
from pandas_amr._map.cached import bare
from pandas_amr._map.stage import MapStage, context_of, make_mappers
from pandas_amr._records.usage import Usage
from pandas_amr._reduce.agent import NUMBER_TOKENS
from pandas_amr._reduce.stage import (
    Alone,
    alone,
    chooses,
    chosen,
    list_or_raise,
    reduce_inputs,
    the_task,
    write,
)
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
    from pandas_amr._agent.loop import Submission
    from pandas_amr._agent.repl import Repl
    from pandas_amr._context.work import Work
    from pandas_amr._findings.inputs import Found
    from pandas_amr._map.agent import Mapper
    from pandas_amr._map.stage import Answered, Sample
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
    """A plan and what it would take, before it runs.

    Attributes:
        result: what it took to find out, as a run's result.
    """

    plan: Plan
    estimate: Estimate
    requests: list[dict[str, Any]] = field(default_factory=list)
    warnings: tuple[AMRWarning, ...] = ()
    result: Result | None = None


async def rehearse(work: Work, units: Units, wish: Wish) -> Draft:
    """What a run would take and send, without running it; with a sample, some units are mapped."""
    answering = await work.aside(alone, work, units) if work.lms else None
    measured = None
    if wish.sample and work.lms and len(units) and answering is None:
        async with work.in_time():
            sample = await work.aside(sample_of, work, units, wish.sample)
            measured = await _measured(work, units, sample)
    requests = await _rendered(work, units, wish.requests, answering)
    estimate = await work.aside(forecast, work, units, measured)
    return Draft(work.plan, estimate, requests, tuple(work.warnings))


async def _rendered(
    work: Work, units: Units, count: int, answering: Alone | None
) -> list[dict[str, Any]]:
    """The bodies of the first requests, in the form that the server is known to take, or the best one."""
    bodies: list[dict[str, Any]] = []
    if not count or work.wired is None:
        return bodies
    if answering is not None:
        return [_body_alone(work, answering)]
    mappers = make_mappers(work, units, context_of(work, units))
    for shard in await work.aside(shards_of, work, units):
        for mapper in mappers:
            agent = bare(mapper)
            if isinstance(agent, AgentMapper) and len(bodies) < count:
                bodies += await _bodies(work, agent, shard, count - len(bodies))
        if len(bodies) >= count:
            break
    return bodies


async def _bodies(work: Work, agent: AgentMapper, shard: Shard, count: int) -> list[dict[str, Any]]:
    """The first of an agent's requests about a shard: one, or one a piece of a unit that is larger than a shard."""
    positions = agent.askable(shard.positions)
    if not positions:
        return []
    lm = work.lm("map", work.job.map_agents.get(agent.name))
    repl: Repl | None = None
    state: SoFar | None = None
    if in_pieces(agent, shard):
        lines = pieces_in(agent, shard)
        state = SoFar(
            lambda numbers: [lines[number] for number in numbers],
            single=True,
            of_rows=False,
            of=shard.positions[0],
        )
        openings = [agent.opening((number,), state) for number in range(min(count, len(lines)))]
    else:
        changed = (
            await agent.changed() if agent.repls is not None and agent.changed is not None else ()
        )
        repl = agent.repl_of(positions)
        openings = [agent.opening(positions, changed=changed)]
    submission = agent.kind.submission(alone=agent.is_flat(positions, state))
    asked = _Asked(work, lm, submission, "map")
    return [asked.body(opening, repl, agent.tools) for opening in openings]


@dataclass(frozen=True, slots=True)
class _Asked:
    """An agent's first turn as it would be sent."""

    work: Work
    lm: LM
    submission: Submission
    phase: Phase

    def body(
        self, opening: Sequence[Message], repl: Repl | None, own: Sequence[Tool]
    ) -> dict[str, Any]:
        """The body of the request: a call, or code in its place if the server is known to make no calls."""
        assert self.work.wired is not None
        server = self.work.wired.bare[self.lm]
        tools: list[AgentTool] = [*([] if repl is None else [repl]), *own]
        lessons = forms_of(server.address[0], self.lm.model)
        if repl is not None and lessons.writes_code and repl.code == "possible" and not own:
            repl.code = "found"
        request = turn_request(
            opening, submission=self.submission, phase=self.phase, tools=tools, repl=repl
        )
        return server.body(as_asked(request, server=server.address[0], name=self.lm.model))


def _body_alone(work: Work, answering: Alone) -> dict[str, Any]:
    """The request of one agent that answers from the whole content."""
    reducer, lines = answering.reducer, [one.line for one in answering.inputs]
    lm = work.lm("reduce", answering.task.agent)
    repl = reducer.repl_of(lines, reducer.output)
    opening = reducer.opening(lines, final=True, tools=repl is not None or bool(reducer.tools))
    return _Asked(work, lm, reducer.output.submission(), "reduce").body(
        opening, repl, reducer.tools
    )


async def _measured(work: Work, units: Units, sample: Sample) -> Measured | None:
    """Map a sample, reduce what was found, and see what it took; None where nothing is mapped, or all of it failed.

    Raises:
        RunStopped: a budget ended it, or ``errors="raise"`` met a failure.
    """
    if not work.job.maps:
        return None
    work.stage = stage = await work.aside(partial(MapStage, sample=sample), work, units)
    work.kept = stage.kept
    await stage.recall()
    before = work.ledger.total
    await stage.run(None)
    mapped = work.ledger.total - before
    if work.ended_by is not None:
        raise work.ended_by
    if _all_failed(work, sample):
        return None
    found = chosen(work.plan.where, _of(found_of(work), sample))
    lines = [one.line for one in reduce_inputs(work, units, found, np.arange(len(found.positions)))]
    asked = list(stage.answered())
    count = work.counter("reduce")
    outputs, weights = (
        _outputs(work, stage, asked)
        if asked
        else ([float(count(one)) for one in lines], [1] * len(lines))
    )
    total = sum((node.usage for _, _, node in asked), Usage())
    inside = _inside(work, mapped - total)
    return Measured(
        units=len(sample.positions),
        input_ratio=_ratio(stage, asked, total),
        output_tokens=sum(one * weight for one, weight in zip(outputs, weights, strict=True))
        / sum(weights),
        finding_tokens=sum(count(one) + NUMBER_TOKENS for one in lines) / len(lines)
        if lines
        else NUMBER_TOKENS,
        findings=len(lines) / len(sample.positions),
        reduction_tokens=await _reduction_tokens(work, units, found) if lines else None,
        latency_s=total.seconds / max(1, total.calls),
        spread=max(
            interval(
                outputs, weights, of=len(units.asked) * max(1, len({name for _, name, _ in asked}))
            ),
            interval(*_of_pipelines(work), of=len(units.asked)) if inside is not None else 0.0,
        ),
        inside=inside,
    )


def _inside(work: Work, mapped: Usage) -> Usage | None:
    """What the pipelines took that rows of a sample went through; None where there is none, or the journal had some."""
    piped = any(getattr(one, "needs_model", False) for one in work.job.callables.values())
    return mapped if piped and not mapped.recalled else None


def _of_pipelines(work: Work) -> tuple[list[float], list[int]]:
    """The tokens a unit of what pipelines took, by shard, and the shards' units."""
    taken = {node.id: 0 for node in work.trace.nodes if node.type == "map" and "/" not in node.id}
    sizes = {node.id: node.units for node in work.trace.nodes}
    for node in work.trace.nodes:
        outer, _, inner = node.id.partition("/")
        taken[outer] += node.usage.tokens if inner and outer in taken else 0
    return [tokens / sizes[name] for name, tokens in taken.items()], [sizes[name] for name in taken]


def _all_failed(work: Work, sample: Sample) -> bool:
    """Whether all of a sample failed; what failed of it is told.

    Raises:
        MapFailed: something did, and ``errors="raise"``.
    """
    sampled = set(sample.positions.tolist())
    failures = [one for one in work.in_order if one.position in sampled]
    if not failures:
        return False
    rows = len({one.position for one in failures})
    what = f"{rows} of the {len(sampled)} units of the sample failed"
    said = (
        f"{what}; the first, row {failures[0].position}: {failures[0].reason} ({failures[0].who})"
    )
    if work.settings.errors == "raise":
        raise MapFailed(said)
    nothing = len(failures) == len(sampled) * len(work.job.names)
    scaled = (
        "The estimate is that without a sample."
        if nothing
        else "The estimate is scaled up from the rest."
    )
    work.warnings.append(FailureWarning(f"{said}. {scaled}"))
    return nothing


def _outputs(
    work: Work, stage: MapStage, asked: Sequence[Answered]
) -> tuple[list[float], list[int]]:
    """The answers' tokens a unit, by shard, and the shards' units."""
    wrapper, agents = work.counter("map")(WRAPPER), _agents(stage)
    outputs: list[float] = []
    for shard, name, node in asked:
        agent = agents[name]
        flat = isinstance(agent, AgentMapper) and agent.is_flat(shard.positions)
        outputs.append(
            max(0, node.usage.output_tokens - (0 if flat else wrapper)) / len(shard.positions)
        )
    return outputs, [len(shard.positions) for shard, _, _ in asked]


def _ratio(stage: MapStage, asked: Sequence[Answered], total: Usage) -> float:
    """What the provider counted of the prompts, to what was counted here."""
    agents = _agents(stage)
    ours = sum(
        counted_tokens(agent, s)
        for s, name, _ in asked
        if isinstance(agent := agents[name], AgentMapper)
    )
    return total.input_tokens / ours if ours and total.input_tokens else 1.0


def _agents(stage: MapStage) -> dict[str | None, Mapper]:
    return {one.name: bare(one) for one in stage.mappers}


async def _reduction_tokens(work: Work, units: Units, found: Found) -> float | None:
    """What a reduce agent writes; None where none does, or one says how the answer is computed."""
    if not work.written or chooses(work):
        return None
    line: tuple[Phase, str] = ("reduce", work.lm("reduce").model)
    before = work.ledger.lines.get(line, Usage())
    try:
        reduced = await write(work, units, found, np.arange(len(found.positions)), the_task(work))
    except ModelError as error:
        list_or_raise(work, str(error), error)
        work.warnings.append(
            FailureWarning(
                f"The reduce of the sample failed: {error}. It is reckoned as without one."
            )
        )
        return None
    after = work.ledger.lines.get(line, Usage())
    if after.calls > before.calls:
        return (after.output_tokens - before.output_tokens) / (after.calls - before.calls)
    if reduced is None:
        return None
    return float(
        sum(work.counter("reduce")(one.line) for one in reduced.inputs())
    )  # the journal had it


def _of(found: Found, sample: Sample) -> Found:
    """What was found of the sample: one row a unit that was asked."""
    return found.at(np.flatnonzero(np.isin(found.positions, sample.positions)))
