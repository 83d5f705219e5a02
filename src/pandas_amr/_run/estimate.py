"""What a plan would take, before it runs: its maps and its reduce, in money and in time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pandas_amr._records.estimate import Estimate
from pandas_amr._run.cost import least_seconds, total_money
from pandas_amr._run.map_estimate import estimate_maps
from pandas_amr._run.reduce_estimate import estimate_direct, estimate_reduce
from pandas_amr._run.sample import shards_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._run.cost import Cost
    from pandas_amr._run.sample import Measurement
    from pandas_amr._units.shards import Shard
    from pandas_amr._units.units import Units


def forecast(
    spec: Spec,
    services: Services,
    state: State,
    units: Units,
    measurement: Measurement | None = None,
    *,
    open_: NDArray[np.int64] | None = None,
) -> Estimate:
    """Estimate a plan.

    Args:
        spec: what the run is asked for.
        services: what it works with.
        state: what came of it so far.
        units: all units of the run; what is reduced are all of them.
        measurement: what a sample took, if one was mapped.
        open_: the units that are still to be mapped; all if None.
    """
    unmapped = units if open_ is None else units.only(np.isin(units.asked, open_))
    shards: list[Shard] = []
    map_costs: list[Cost] = []
    reduce = estimate_direct(spec, services, state, units)
    if reduce is None:
        shards = shards_of(spec, unmapped)
        map_costs = estimate_maps(spec, services, unmapped, shards, measurement)
        reduce = estimate_reduce(spec, services, state, units, shards, measurement)
    costs = [*map_costs, *reduce.costs]
    latency_s = measurement.latency_s if measurement is not None else 0.0
    estimate = Estimate(
        units=len(unmapped),
        asked=len(unmapped.asked),
        shards=len(shards),
        calls=sum(cost.calls for cost in costs),
        input_tokens=round(sum(cost.input_tokens for cost in costs)),
        output_tokens=round(sum(cost.output_tokens for cost in costs)),
        money=total_money(spec, costs),
        seconds=least_seconds(spec, services, costs, latency_s),
        tree=reduce.tree,
        sizes=tuple(len(shard.positions) for shard in shards),
        maps=spec.job.names,
        about=any(cost.about for cost in costs),
    )
    if measurement is not None:
        estimate = _with_intervals(estimate, map_costs, reduce.costs, measurement)
    if _has_unknown_pipelines(spec, unmapped, measurement):
        return _without_figures(estimate)
    return estimate


def _with_intervals(
    estimate: Estimate,
    map_costs: Sequence[Cost],
    reduce_costs: Sequence[Cost],
    measurement: Measurement,
) -> Estimate:
    """Add the intervals that hold the tokens and the money in 19 of 20 samples."""
    uncertain = sum(cost.output_tokens for cost in map_costs)
    for cost in map_costs:
        if cost.money is not None:  # recipes: their prompts were sampled, too
            uncertain += cost.input_tokens
    uncertain += sum(cost.tokens for cost in reduce_costs)
    total = sum(cost.tokens for cost in (*map_costs, *reduce_costs))
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
    if job.reduces and getattr(job.reducer, "needs_model", False):
        return True
    is_measured = measurement is not None and measurement.pipelines is not None
    if is_measured or not len(units.asked):
        return False
    return any(getattr(function, "needs_model", False) for function in job.callables.values())


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
