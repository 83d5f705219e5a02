"""Batch first: what a batch does not answer is sent in the ordinary way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pandas_amr._records.usage import NO_USAGE
from pandas_amr.errors import ModelError, ModelUnavailable

if TYPE_CHECKING:
    from pandas_amr.models.base import Model, Reply, Request


def can_wait(request: Request) -> bool:
    """Tell whether a request can wait for a batch: one of a map, without tools and code."""
    return request.phase == "map" and not request.tools and not request.code


@dataclass(frozen=True)
class BatchFirst:
    """A model that sends what can wait through a batch, and all else in the ordinary way.

    A request that expired or failed in a batch is sent in the ordinary way, too.
    """

    batched: Model
    ordinary: Model

    async def complete(self, request: Request) -> Reply:
        """Answer one turn.

        Raises:
            ModelError: as the models inside; its ``usage`` includes what a batch has cost.
        """
        if not can_wait(request):
            return await self.ordinary.complete(request)
        try:
            return await self.batched.complete(request)
        except ModelUnavailable as error:
            if error.fatal:
                raise
            tries, spent = error.attempts, error.usage
        try:
            reply = await self.ordinary.complete(request)
        except ModelError as error:
            error.attempts += tries
            if spent is not None:
                error.usage = spent + (error.usage or NO_USAGE)
            raise
        usage = replace(spent or NO_USAGE, tries=tries) + reply.usage
        return replace(reply, usage=usage)
