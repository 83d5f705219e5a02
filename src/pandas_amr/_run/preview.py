"""Before a run: the plan, what it would take, and the first requests as they would be sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pandas_amr._reduce.direct import make_direct_answer
from pandas_amr._run.estimate import forecast
from pandas_amr._run.measure import measure_sample
from pandas_amr._run.outgoing import describe_outgoing
from pandas_amr._run.requests import render_requests
from pandas_amr._run.sample import sample_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._plan.plan import Plan
    from pandas_amr._records.estimate import Estimate
    from pandas_amr._records.outgoing import Outgoing
    from pandas_amr._reduce.direct import DirectAnswer
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
    answering: DirectAnswer | None = None
    measurement: Measurement | None = None
    if spec.lms:
        answering = await services.run_large(spec, make_direct_answer, spec, services, state, units)
    if options.sample and spec.lms and len(units) and answering is None:
        async with services.time_limit(spec):
            sample = await services.run_large(spec, sample_of, spec, units, options.sample)
            measurement = await measure_sample(spec, services, state, units, sample)
    count = max(1, options.requests)
    requests = await render_requests(spec, services, units, count, answering)
    outgoing = describe_outgoing(spec, services, requests)
    estimate = await services.run_large(spec, forecast, spec, services, state, units, measurement)
    shown = requests[: options.requests]
    return Draft(spec.plan, estimate, outgoing, shown, tuple(state.warnings))


async def preview_outgoing(
    spec: Spec, services: Services, state: State, units: Units, open_: NDArray[np.int64] | None
) -> Outgoing:
    """Tell what a run would send, for whoever is to confirm it; ``open_`` as in ``forecast``."""
    unmapped = units if open_ is None else units.only(np.isin(units.asked, open_))
    answering: DirectAnswer | None = None
    if spec.lms:
        answering = await services.run_large(spec, make_direct_answer, spec, services, state, units)
    requests = await render_requests(spec, services, unmapped, 1, answering)
    return describe_outgoing(spec, services, requests)
