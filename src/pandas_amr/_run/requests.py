"""The first requests of a run as they would be sent: their bodies, and nothing is sent."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from pandas_amr._run.dry_run import DryRun
from pandas_amr._run.part import Part
from pandas_amr._run.sample import make_sample, shards_of
from pandas_amr.errors import ModelError
from pandas_amr.models.structured.model import in_current_form

if TYPE_CHECKING:
    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.wiring import Wired
    from pandas_amr._map.stage import MapStage
    from pandas_amr._units.units import Units
    from pandas_amr.models.base import LM, Request


async def render_requests(
    spec: Spec, services: Services, units: Units, count: int, stage: MapStage | None = None
) -> list[dict[str, Any]]:
    """Render the bodies of the first ``count`` requests.

    They have the form that the server is known to take; else the one that is tried first.

    Args:
        spec: what the run is asked for.
        services: what it works with.
        units: all units of the run.
        count: how many bodies to render at most.
        stage: the map that is about to run: what it has already is not asked for.
    """
    if not count or services.wired is None:
        return []
    requests: list[tuple[LM, Request]] = []
    dry = DryRun(Part(spec, units), services, requests=requests)
    if stage is None:
        with contextlib.suppress(ModelError):  # nothing answers
            await dry.answer_directly()
    if spec.job.maps and not requests:
        shards = stage.open_shards if stage is not None else shards_of(spec, units)
        await dry.map(make_sample([shard.positions for shard in shards[:count]]))
    return [_render(services.wired, lm, request) for lm, request in requests[:count]]


def _render(wired: Wired, lm: LM, request: Request) -> dict[str, Any]:
    endpoint = wired.bare[lm]
    return endpoint.body(in_current_form(request, server=endpoint.address[0], name=lm.model))
