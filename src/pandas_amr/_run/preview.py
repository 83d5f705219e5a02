"""Before a run: the plan, what it would take, and the first requests as they would be sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pandas_amr._run.dry_run import DryRun
from pandas_amr._run.estimate import forecast
from pandas_amr._run.measure import measure_sample
from pandas_amr._run.outgoing import describe_outgoing
from pandas_amr._run.part import Part
from pandas_amr._run.requests import render_requests
from pandas_amr._run.sample import sample_of

if TYPE_CHECKING:
    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._map.stage import MapStage
    from pandas_amr._plan.plan import Plan
    from pandas_amr._records.estimate import Estimate
    from pandas_amr._records.outgoing import Outgoing
    from pandas_amr._result.result import Result
    from pandas_amr._run.sample import Measurement
    from pandas_amr._units.units import Units
    from pandas_amr.errors import AMRWarning


@dataclass(frozen=True)
class PreviewOptions:
    """What a preview shows beside the plan and its estimate.

    Attributes:
        sample: how many units are mapped for the estimate.
        requests: how many requests are rendered.
    """

    sample: int = 0
    requests: int = 0


@dataclass(frozen=True)
class Draft:
    """A plan before it runs, and what it would take.

    Attributes:
        outgoing: what it would send.
        requests: the bodies of the first requests.
        result: the result of the preview itself: what a sample found, and what it took.
    """

    plan: Plan
    estimate: Estimate
    outgoing: Outgoing
    requests: list[dict[str, Any]] = field(default_factory=list)
    warnings: tuple[AMRWarning, ...] = ()
    result: Result | None = None


async def preview(
    spec: Spec, services: Services, state: State, units: Units, options: PreviewOptions
) -> Draft:
    """Estimate what a run would take and render what it would send, without running it.

    A sample is really mapped, and paid for.
    """
    measurement: Measurement | None = None
    can_sample = bool(options.sample and spec.lms and len(units))
    if can_sample and not await DryRun(Part(spec, units), services).answer_directly():
        async with services.time_limit(spec):
            sample = await services.run_large(spec, sample_of, spec, units, options.sample)
            measurement = await measure_sample(spec, services, state, units, sample)
    requests = await render_requests(spec, services, units, max(1, options.requests))
    outgoing = describe_outgoing(spec, services, requests)
    estimate = await forecast(spec, services, units, measurement)
    shown = requests[: options.requests]
    return Draft(spec.plan, estimate, outgoing, shown, tuple(state.warnings))


async def preview_outgoing(
    spec: Spec, services: Services, units: Units, stage: MapStage | None
) -> Outgoing:
    """Tell what a run would send, for whoever is to confirm it; ``stage`` as in ``forecast``."""
    requests = await render_requests(spec, services, units, 1, stage)
    return describe_outgoing(spec, services, requests)
