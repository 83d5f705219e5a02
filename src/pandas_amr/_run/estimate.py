"""What a plan would take, before it runs: a dry run of its stages, in money and in time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pandas_amr._plan.call import may_ask_model
from pandas_amr._records.estimate import Estimate
from pandas_amr._records.graph_shape import Shape
from pandas_amr._run.cost import Cost, least_seconds, sum_costs, total_money
from pandas_amr._run.dry_run import DryRun
from pandas_amr._run.part import Part, draw_part
from pandas_amr._run.shape import make_shape, shape_of_answer

if TYPE_CHECKING:
    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._findings.map_findings import MapFindings
    from pandas_amr._map.stage import MapStage
    from pandas_amr._records.usage import Usage
    from pandas_amr._run.sample import Measurement
    from pandas_amr._units.units import Units


async def forecast(
    spec: Spec,
    services: Services,
    units: Units,
    measurement: Measurement | None = None,
    *,
    stage: MapStage | None = None,
) -> Estimate:
    """Estimate a plan.

    Args:
        spec: what the run is asked for.
        services: what it works with.
        units: all units of the run; what is reduced are all of them.
        measurement: what a sample took, if one was mapped.
        stage: the map that is about to run: what it has already is not asked for.
    """
    unmapped = readable = units.with_content()
    if stage is not None:
        unmapped = readable.only(np.isin(readable.asked, stage.open))
    is_known = not _has_unknown_pipelines(spec, unmapped, measurement)
    parts = await _estimate_parts(spec, services, units, stage, measurement, runs=is_known)
    estimate = _add_up(spec, services, unmapped, parts, measurement)
    if measurement is not None:
        estimate = _with_intervals(estimate, parts, measurement)
    return estimate if is_known else _without_figures(estimate)


def _add_up(
    spec: Spec, services: Services, unmapped: Units, parts: _Parts, measurement: Measurement | None
) -> Estimate:
    total = sum_costs(parts.costs)
    latency_s = measurement.latency_s if measurement is not None else 0.0
    return Estimate(
        units=len(unmapped),
        asked=len(unmapped.asked),
        shards=len(parts.sizes),
        calls=total.calls,
        input_tokens=round(total.input_tokens),
        output_tokens=round(total.output_tokens),
        money=total_money(spec, parts.costs),
        seconds=least_seconds(spec, services, parts.costs, latency_s),
        tree=parts.tree,
        sizes=parts.sizes,
        maps=spec.job.names,
        about=total.about,
        shape=parts.shape,
    )


@dataclass
class _Parts:
    """The parts of an estimate.

    Attributes:
        sizes: the units of each shard.
        tree: nodes per level of a static tree, the maps' shards first; empty for any other.
        shape: what the nodes of the run are expected to be.
    """

    sizes: tuple[int, ...] = ()
    maps: list[Cost] = field(default_factory=list)
    reduces: list[Cost] = field(default_factory=list)
    tree: tuple[int, ...] = ()
    shape: Shape = field(default_factory=Shape)

    @property
    def costs(self) -> list[Cost]:
        """Of maps and reduce together."""
        return [*self.maps, *self.reduces]


async def _estimate_parts(
    spec: Spec,
    services: Services,
    units: Units,
    stage: MapStage | None,
    measurement: Measurement | None,
    *,
    runs: bool,
) -> _Parts:
    """Run the stages dry: the one agent that answers directly; else the maps, then the reduce.

    If it ``runs`` nothing, there is only what is known without that.
    """
    if stage is None:
        answer = await _answer_directly(spec, services, units, measurement)
        if answer is not None:
            return answer
    part = await services.run_large(spec, draw_part, spec, units, stage)
    dry = DryRun(part, services, measurement, _begun_findings(stage))
    parts = _Parts(part.sizes if spec.job.maps else (), tree=dry.tree)
    if runs and spec.lms and len(units.asked):
        await _run_dry(parts, dry, part, measurement)
    shape = partial(make_shape, part, units, stage, parts.tree, dry.reduced)
    parts.shape = await services.run_large(spec, shape)
    return parts


async def _run_dry(parts: _Parts, dry: DryRun, part: Part, measurement: Measurement | None) -> None:
    """Run maps and reduce dry; the parts take what they cost."""
    if part.spec.job.maps:
        parts.maps = dry.map_costs(await dry.map())
    if measurement is not None and measurement.pipelines is not None:
        parts.maps.append(_scale_pipelines(measurement.pipelines, sum(part.sizes), measurement))
    parts.reduces = await dry.reduce()


async def _answer_directly(
    spec: Spec, services: Services, units: Units, measurement: Measurement | None
) -> _Parts | None:
    """Run the one agent dry that answers from the whole content; None if none does."""
    direct = DryRun(Part(spec, units), services, measurement)
    if not await direct.answer_directly():
        return None
    cost = direct.reduce_cost(spec.job.reduce_agent)
    return _Parts(reduces=[cost], shape=shape_of_answer(direct.reduced[0]))


def _begun_findings(stage: MapStage | None) -> MapFindings | None:
    """Return what an earlier run or the journal has, and what is not asked again; None if nothing.

    A sample is mapped whatever is found.
    """
    if stage is None or stage.sample is not None:
        return None
    has_left = any(bool(left.any()) for left in stage.findings.left.values())
    return stage.findings if stage.findings.has_findings or has_left else None


def _scale_pipelines(sampled: Usage, units: int, measurement: Measurement) -> Cost:
    scale = units / measurement.units
    cost = Cost("map", about=True)
    cost.add_usage(sampled)
    cost.scale(scale, scale)
    if sampled.money is not None:
        cost.money = sampled.money * scale
    return cost


def _with_intervals(estimate: Estimate, parts: _Parts, measurement: Measurement) -> Estimate:
    """Add the intervals that hold the tokens and the money in 19 of 20 samples."""
    uncertain = sum_costs(parts.reduces).tokens
    for cost in parts.maps:
        uncertain += cost.output_tokens
        if cost.money is not None:  # recipes: their prompts were sampled, too
            uncertain += cost.input_tokens
    total = sum_costs(parts.costs).tokens
    half = measurement.spread * uncertain
    estimate = replace(
        estimate,
        sampled=measurement.units,
        tokens_between=(math.floor(total - half), math.ceil(total + half)),
    )
    if estimate.money is None:
        return estimate
    share = half / total if total else 0.0
    low, high = estimate.money * (1 - share), estimate.money * (1 + share)
    return replace(estimate, money_between=(low, high))


def _has_unknown_pipelines(spec: Spec, units: Units, measurement: Measurement | None) -> bool:
    """Tell whether a recipe with agents maps or reduces: what it takes shows when it runs."""
    job = spec.job
    if job.reduces and may_ask_model(job.reducer):
        return True
    is_measured = measurement is not None and measurement.pipelines is not None
    if is_measured or not len(units.asked):
        return False
    return any(may_ask_model(function) for function in job.callables.values())


def _without_figures(estimate: Estimate) -> Estimate:
    return replace(
        estimate,
        calls=None,
        input_tokens=None,
        output_tokens=None,
        money=None,
        seconds=None,
        tokens_between=None,
        money_between=None,
    )
