"""Map a sample of units and reduce what was found, to see what that takes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pandas_amr._map.agent import AgentMapper
from pandas_amr._map.cached import uncached
from pandas_amr._map.stage import MapStage
from pandas_amr._records.usage import Usage
from pandas_amr._reduce.stage import chosen, list_or_raise, reduce_inputs, the_task, write
from pandas_amr._run.map_estimate import counted_tokens
from pandas_amr._run.sample import Measurement, interval, weighted_mean
from pandas_amr._run.typical import WRAPPER
from pandas_amr.errors import FailureWarning, MapFailed, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._findings.inputs import Found
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
    if not spec.job.maps:
        return None
    begin = partial(MapStage, sample=sample)
    stage = await services.run_large(spec, begin, spec, services, state, units)
    state.findings, state.made_by = stage.findings, stage.made_by
    await stage.recall()
    before = services.ledger.total
    await stage.run(None)
    usage = services.ledger.total - before
    if state.ended_by is not None:
        raise state.ended_by
    if _has_all_failed(spec, state, sample):
        return None

    found = chosen(spec.plan.where, _found_in(state.found(spec.job), sample))
    rows = np.arange(len(found.positions))
    lines = [one.line for one in reduce_inputs(spec, services, state, units, found, rows)]
    count = spec.counter("reduce")
    line_tokens = [float(count(line)) for line in lines]
    reduction_tokens: float | None = None
    if lines:
        reduction_tokens = await _measure_reduction(spec, services, state, units, found)

    nodes = stage.model_nodes()
    agents_usage = sum((node.usage for _, _, node in nodes), Usage())
    pipelines = _pipelines_usage(spec, usage - agents_usage)
    outputs, weights = line_tokens, [1] * len(lines)
    if nodes:
        outputs, weights = _outputs_per_unit(spec, stage, nodes)
    maps = len({name for _, name, _ in nodes})
    spread = interval(outputs, weights, of=len(units.asked) * max(1, maps))
    if pipelines is not None:
        per_unit, sizes = _pipeline_tokens_per_unit(services)
        spread = max(spread, interval(per_unit, sizes, of=len(units.asked)))
    return Measurement(
        units=len(sample.positions),
        input_ratio=_input_ratio(stage, nodes, agents_usage),
        output_tokens=weighted_mean(outputs, weights),
        line_tokens=sum(line_tokens) / len(lines) if lines else 0.0,
        findings=len(lines) / len(sample.positions),
        reduction_tokens=reduction_tokens,
        latency_s=agents_usage.seconds / max(1, agents_usage.calls),
        spread=spread,
        pipelines=pipelines,
    )


def _found_in(found: Found, sample: Sample) -> Found:
    """Return what was found of the sample: one row per asked unit."""
    return found.at(np.flatnonzero(np.isin(found.positions, sample.positions)))


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
    consequence = "The estimate is scaled up from the rest."
    if has_nothing:
        consequence = "The estimate is that without a sample."
    state.warnings.append(FailureWarning(f"{message}. {consequence}"))
    return has_nothing


def _pipelines_usage(spec: Spec, usage: Usage) -> Usage | None:
    """Return what recipes took; None if there are none, or if the journal had some of it."""
    functions = spec.job.callables.values()
    has_pipelines = any(getattr(function, "needs_model", False) for function in functions)
    return usage if has_pipelines and not usage.recalled else None


def _pipeline_tokens_per_unit(services: Services) -> tuple[list[float], list[int]]:
    """Return the tokens per unit that recipes took, by shard, and the shards' sizes."""
    tokens: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for node in services.trace.nodes:
        if node.type == "map" and "/" not in node.id:
            tokens[node.id] = 0
            sizes[node.id] = node.units
    for node in services.trace.nodes:
        shard, _, inner = node.id.partition("/")
        if inner and shard in tokens:
            tokens[shard] += node.usage.tokens
    return [tokens[shard] / sizes[shard] for shard in tokens], list(sizes.values())


def _outputs_per_unit(
    spec: Spec, stage: MapStage, nodes: Sequence[MapNode]
) -> tuple[list[float], list[int]]:
    """Return the tokens of the answers per unit, by shard, and the shards' sizes."""
    wrapper_tokens = spec.counter("map")(WRAPPER)
    agents = _mappers_by_name(stage)
    outputs: list[float] = []
    sizes: list[int] = []
    for shard, name, node in nodes:
        agent, size = agents[name], len(shard.positions)
        tokens = node.usage.output_tokens
        if not isinstance(agent, AgentMapper) or not agent.prompt.is_flat(one_unit=size == 1):
            tokens = max(0, tokens - wrapper_tokens)
        outputs.append(tokens / size)
        sizes.append(size)
    return outputs, sizes


def _input_ratio(stage: MapStage, nodes: Sequence[MapNode], usage: Usage) -> float:
    """Compare the prompts' tokens as the provider counts them with our own count."""
    agents = _mappers_by_name(stage)
    counted = 0
    for shard, name, _ in nodes:
        agent = agents[name]
        if isinstance(agent, AgentMapper):
            counted += counted_tokens(agent, shard)
    return usage.input_tokens / counted if counted and usage.input_tokens else 1.0


def _mappers_by_name(stage: MapStage) -> dict[str | None, Mapper]:
    return {mapper.name: uncached(mapper) for mapper in stage.mappers}


async def _measure_reduction(
    spec: Spec, services: Services, state: State, units: Units, found: Found
) -> float | None:
    """Have the sample's findings reduced, and count the tokens of an agent's answer.

    Returns:
        None if no agent writes the answer, if it says how the answer is computed, or if it failed.
    """
    if not spec.is_written or spec.is_number_chosen:
        return None
    line: tuple[Phase, str] = ("reduce", spec.lm("reduce").model)
    before = services.ledger.lines.get(line, Usage())
    rows = np.arange(len(found.positions))
    try:
        reduced = await write(spec, services, state, units, found, rows, the_task(spec))
    except ModelError as error:
        list_or_raise(spec, state, str(error), error)
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
