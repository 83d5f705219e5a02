"""Map a sample of units and reduce what was found, to see what that takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from pandas_amr._map.agent import AgentMapper
from pandas_amr._map.cached import uncached
from pandas_amr._map.stage import MapStage
from pandas_amr._plan.call import may_ask_model
from pandas_amr._records.usage import Usage
from pandas_amr._reduce.failures import ReduceFailures
from pandas_amr._reduce.inputs import select_where
from pandas_amr._reduce.task import answer_task
from pandas_amr._reduce.trees import ReduceTrees
from pandas_amr._run.map_estimate import counted_tokens
from pandas_amr._run.sample import Measurement, interval, weighted_mean
from pandas_amr._run.typical import WRAPPER
from pandas_amr.errors import FailureWarning, MapFailed, ModelError

if TYPE_CHECKING:
    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._findings.inputs import FindingRows
    from pandas_amr._map.cut import Sample
    from pandas_amr._map.mapper import Mapper
    from pandas_amr._map.stage import MapNode
    from pandas_amr._records.usage import Phase
    from pandas_amr._units.units import Units


async def measure_sample(
    spec: Spec, services: Services, state: State, units: Units, sample: Sample
) -> Measurement | None:
    """Map a sample, reduce what was found, and measure what that takes.

    Returns:
        None if nothing is mapped, or if all of the sample failed.

    Raises:
        RunStopped: a budget ended it, or ``errors="raise"`` met a failure.
    """
    if not spec.job.maps or not len(sample.positions):
        return None
    mapped = await _map_sample(spec, services, state, units, sample)
    if _has_all_failed(spec, state, sample):
        return None
    found = select_where(spec.plan.where, _found_in(state.finding_rows(spec.job), sample))
    lines = _count_lines(spec, services, state, units, found)
    reduction_tokens: float | None = None
    if lines.sizes:
        reduction_tokens = await _measure_reduction(spec, services, state, units, found)
    answers = mapped.answers() if mapped.nodes else lines
    return Measurement(
        units=len(sample.positions),
        input_ratio=mapped.input_ratio(),
        output_tokens=answers.mean,
        line_tokens=lines.mean,
        findings=len(lines.sizes) / len(sample.positions),
        reduction_tokens=reduction_tokens,
        latency_s=mapped.latency_s,
        spread=mapped.spread(answers, of=len(units.asked)),
        pipelines=mapped.pipelines_usage,
    )


async def _map_sample(
    spec: Spec, services: Services, state: State, units: Units, sample: Sample
) -> _MappedSample:
    """Map a sample.

    Raises:
        RunStopped: a budget ended it, or a service is gone.
    """
    begin = partial(MapStage, sample=sample)
    stage = await services.run_large(spec, begin, spec, services, state, units)
    state.findings, state.made_by = stage.findings, stage.made_by
    await stage.recall()
    before = services.ledger.total
    await stage.run(None)
    if state.ended_by is not None and not isinstance(state.ended_by, MapFailed):
        raise state.ended_by
    return _MappedSample(spec, services, stage, services.ledger.total - before)


@dataclass(frozen=True)
class _UnitTokens:
    """Tokens per unit, block by block, and the units of each block."""

    per_unit: list[float]
    sizes: list[int]

    def add(self, tokens: float, *, units: int) -> None:
        """Add a block that took so many tokens."""
        self.per_unit.append(tokens / units)
        self.sizes.append(units)

    @property
    def mean(self) -> float:
        """Tokens per unit, over all blocks."""
        return weighted_mean(self.per_unit, self.sizes)


@dataclass(frozen=True)
class _MappedSample:
    """A sample that is mapped, and the usage of its map stage."""

    spec: Spec
    services: Services
    stage: MapStage
    usage: Usage

    @cached_property
    def nodes(self) -> list[MapNode]:
        """The shards that agents were asked about."""
        return self.stage.model_nodes()

    @cached_property
    def agents_usage(self) -> Usage:
        """What these agents took."""
        return sum((node.usage for _, _, node in self.nodes), Usage())

    @property
    def latency_s(self) -> float:
        """Seconds per request."""
        return self.agents_usage.seconds / max(1, self.agents_usage.calls)

    @property
    def pipelines_usage(self) -> Usage | None:
        """What recipes took; None if there are none, or if the journal had some of it."""
        functions = self.spec.job.callables.values()
        has_pipelines = any(may_ask_model(function) for function in functions)
        usage = self.usage - self.agents_usage
        return usage if has_pipelines and not usage.recalled else None

    @cached_property
    def _mappers(self) -> dict[str | None, Mapper]:
        return {mapper.name: uncached(mapper) for mapper in self.stage.mappers}

    def input_ratio(self) -> float:
        """Compare the prompts' tokens as the provider counts them with our own count."""
        counted = 0
        for shard, name, _ in self.nodes:
            agent = self._mappers[name]
            if isinstance(agent, AgentMapper):
                counted += counted_tokens(agent, shard)
        tokens = self.agents_usage.input_tokens
        return tokens / counted if counted and tokens else 1.0

    def answers(self) -> _UnitTokens:
        """Measure the agents' answers, without what is around the findings."""
        wrapper_tokens = self.spec.counter("map")(WRAPPER)
        answers = _UnitTokens([], [])
        for shard, name, node in self.nodes:
            agent, size = self._mappers[name], len(shard.positions)
            tokens = node.usage.output_tokens
            if not isinstance(agent, AgentMapper) or not agent.prompt.is_flat(one_unit=size == 1):
                tokens = max(0, tokens - wrapper_tokens)
            answers.add(tokens, units=size)
        return answers

    def spread(self, answers: _UnitTokens, *, of: int) -> float:
        """Compute the wider interval: that of the agents' answers, or that of recipes."""
        maps = len({name for _, name, _ in self.nodes})
        spread = interval(answers.per_unit, answers.sizes, of=of * max(1, maps))
        if self.pipelines_usage is None:
            return spread
        tokens = self._pipeline_tokens()
        return max(spread, interval(tokens.per_unit, tokens.sizes, of=of))

    def _pipeline_tokens(self) -> _UnitTokens:
        """Measure what recipes took: the nodes of their runs are named after the shard's."""
        by_shard: dict[str, int] = {}
        for node in self.services.trace.nodes:
            shard, _, inner = node.id.partition("/")
            if inner:
                by_shard[shard] = by_shard.get(shard, 0) + node.usage.tokens
        tokens = _UnitTokens([], [])
        for node in self.services.trace.nodes:
            if node.type == "map" and "/" not in node.id:
                tokens.add(by_shard.get(node.id, 0), units=node.units)
        return tokens


def _found_in(found: FindingRows, sample: Sample) -> FindingRows:
    """Return what was found of the sample: one row per asked unit."""
    return found.select(np.flatnonzero(np.isin(found.positions, sample.positions)))


def _count_lines(
    spec: Spec, services: Services, state: State, units: Units, found: FindingRows
) -> _UnitTokens:
    """Count what was found, line by line, as a reducer reads it."""
    rows = np.arange(len(found.positions))
    count = spec.counter("reduce")
    lines = _UnitTokens([], [])
    for one in ReduceTrees(spec, services, state, units).render_inputs(found, rows):
        lines.add(count(one.line), units=1)
    return lines


def _has_all_failed(spec: Spec, state: State, sample: Sample) -> bool:
    """Warn of failures in the sample, and tell whether all of it failed.

    Raises:
        MapFailed: something failed under ``errors="raise"``.
    """
    sampled = set(sample.positions.tolist())
    sorted_failures = state.sorted_failures(spec.job.names)
    failures = [failure for failure in sorted_failures if failure.position in sampled]
    if not failures:
        return False
    first = failures[0]
    rows = len({failure.position for failure in failures})
    message = (
        f"{rows} of the {len(sampled)} units of the sample failed; "
        f"the first, row {first.position}: {first.reason} ({first.who})"
    )
    if spec.settings.errors == "raise":
        raise MapFailed(message)
    has_nothing = len(failures) == len(sampled) * len(spec.job.names)
    has_nothing = has_nothing or isinstance(state.ended_by, MapFailed)  # it has given up
    consequence = "The estimate is scaled up from the rest."
    if has_nothing:
        consequence = "The estimate is that without a sample."
    state.warnings.append(FailureWarning(f"{message}. {consequence}"))
    return has_nothing


async def _measure_reduction(
    spec: Spec, services: Services, state: State, units: Units, found: FindingRows
) -> float | None:
    """Have the sample's findings reduced, and count the tokens of an agent's answer.

    Returns:
        None if no agent writes the answer, if it says how the answer is computed, or if it failed.
    """
    if spec.reduce_kind not in {"agents", "agents_by_group"}:
        return None
    line: tuple[Phase, str] = ("reduce", spec.lm("reduce").model)
    before = services.ledger.lines.get(line, Usage())
    trees = ReduceTrees(spec, services, state, units)
    try:
        reduced = await trees.write(found, np.arange(len(found.positions)), answer_task(spec))
    except ModelError as error:
        ReduceFailures(spec, state).add(str(error), error)
        message = f"The reduce of the sample failed: {error}. It is reckoned as without one."
        state.warnings.append(FailureWarning(message))
        return None
    usage = services.ledger.lines.get(line, Usage()) - before
    if usage.calls:
        return usage.output_tokens / usage.calls
    if reduced is None:
        return None
    count = spec.counter("reduce")  # the journal had the answer
    return float(sum(count(one.line) for one in reduced.inputs()))
