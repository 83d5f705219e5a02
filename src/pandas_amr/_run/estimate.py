"""What a plan would take, before it runs: its maps and its reduce, in money and in time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pandas_amr._plan.call import may_ask_model
from pandas_amr._records.estimate import Estimate
from pandas_amr._run.cost import least_seconds, sum_costs, total_money
from pandas_amr._run.map_estimate import estimate_maps
from pandas_amr._run.reduce_estimate import estimate_direct, estimate_reduce
from pandas_amr._run.sample import shards_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._run.cost import Cost
    from pandas_amr._run.reduce_estimate import ReduceEstimate
    from pandas_amr._run.sample import Measurement
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
    readable = units.with_content()
    unmapped = readable if open_ is None else readable.only(np.isin(readable.asked, open_))
    parts = _estimate_parts(
        spec, services, state, units, unmapped=unmapped, measurement=measurement
    )
    total = sum_costs(parts.costs)
    latency_s = measurement.latency_s if measurement is not None else 0.0
    estimate = Estimate(
        units=len(unmapped),
        asked=len(unmapped.asked),
        shards=len(parts.sizes),
        calls=total.calls,
        input_tokens=round(total.input_tokens),
        output_tokens=round(total.output_tokens),
        money=total_money(spec, parts.costs),
        seconds=least_seconds(spec, services, parts.costs, latency_s),
        tree=parts.reduce.tree,
        sizes=parts.sizes,
        maps=spec.job.names,
        about=total.about,
    )
    if measurement is not None:
        estimate = _with_intervals(estimate, parts, measurement)
    if _has_unknown_pipelines(spec, unmapped, measurement):
        return _without_figures(estimate)
    return estimate


@dataclass(frozen=True)
class _Parts:
    """The parts of an estimate.

    Attributes:
        sizes: the units of each shard.
    """

    sizes: tuple[int, ...]
    maps: list[Cost]
    reduce: ReduceEstimate

    @property
    def costs(self) -> list[Cost]:
        """Of maps and reduce together."""
        return [*self.maps, *self.reduce.costs]


def _estimate_parts(
    spec: Spec,
    services: Services,
    state: State,
    units: Units,
    *,
    unmapped: Units,
    measurement: Measurement | None,
) -> _Parts:
    """Estimate the one agent that answers directly; else the maps, then the reduce."""
    direct = estimate_direct(spec, services, state, units)
    if direct is not None:
        return _Parts((), [], direct)
    is_cut = np.isin(units.asked, unmapped.asked) | units.is_empty
    shards = shards_of(spec, units.only(is_cut))
    maps = estimate_maps(spec, services, unmapped, shards, measurement)
    reduce = estimate_reduce(
        spec, services, state, units.with_content(), shards, measurement=measurement
    )
    sizes = tuple(len(shard.positions) for shard in shards)
    return _Parts(sizes, maps, reduce)


def _with_intervals(estimate: Estimate, parts: _Parts, measurement: Measurement) -> Estimate:
    """Add the intervals that hold the tokens and the money in 19 of 20 samples."""
    uncertain = sum_costs(parts.reduce.costs).tokens
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
