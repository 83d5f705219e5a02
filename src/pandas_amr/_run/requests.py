"""The first requests of a run as they would be sent: their bodies, and nothing is sent."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from pandas_amr._run.dry_run import DryRun
from pandas_amr._run.sample import make_sample, shards_of
from pandas_amr._run.units import Part
from pandas_amr.errors import ModelError
from pandas_amr.models.structured.model import in_current_form

if TYPE_CHECKING:
    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._units.units import Units
    from pandas_amr.models.base import LM, Request


async def render_requests(
    spec: Spec, services: Services, units: Units, count: int
) -> list[dict[str, Any]]:
    """Render the bodies of the first ``count`` requests.

    They have the form that the server is known to take; else the one that is tried first.
    """
    if not count or services.wired is None:
        return []
    requests: list[tuple[LM, Request]] = []
    dry = DryRun(Part(spec, units), services, requests=requests)
    with contextlib.suppress(ModelError):  # nothing answers
        await dry.answer_directly()
    if spec.job.maps and not requests:
        shards = await services.run_large(spec, shards_of, spec, units)
        await dry.map(make_sample([shard.positions for shard in shards[:count]]))
    bodies: list[dict[str, Any]] = []
    for lm, request in requests[:count]:
        endpoint = services.wired.bare[lm]
        form = in_current_form(request, server=endpoint.address[0], name=lm.model)
        bodies.append(endpoint.body(form))
    return bodies
