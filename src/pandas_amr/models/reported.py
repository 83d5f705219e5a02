"""A model that tells whoever listens to the run of its calls."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pandas_amr._records.events import CallBegan, CallEnded
from pandas_amr._records.trace import CallRecord, Scope, find_timed_scope, type_name, use_scope
from pandas_amr.models.waits import host_of

if TYPE_CHECKING:
    from pandas_amr.models.base import Reply, Request
    from pandas_amr.models.structured.model import Structured


class Reported:
    """A model whose every turn is a call of the run, with a number.

    It is around all else, so that what a turn takes is one call: retries, refused forms and a
    second request by hedging.
    """

    def __init__(self, model: Structured, *, name: str, server: str) -> None:
        self._model = model
        self._name = name
        self._host = host_of(server)

    async def complete(self, request: Request) -> Reply:
        """Answer one turn.

        Raises:
            ModelError: as the model inside.
        """
        scope = find_timed_scope()
        if scope is None:
            return await self._model.complete(request)
        self._model.check_calls(request)  # what is not sent is no call
        record = CallRecord(next(scope.trace.calls), scope.trace.seconds)
        if scope.trace.listeners:
            self._tell_begin(scope, record, request)
        reply, error = None, ""
        try:
            with use_scope(Scope(scope.trace, scope.node, record, scope.tool)):
                reply = await self._model.complete(request)
        except BaseException as raised:
            error = type_name(raised)
            raise
        finally:
            self._end(scope, record, request, reply, error)
        return replace(reply, call=record.number) if request.tools else reply

    def _tell_begin(self, scope: Scope, record: CallRecord, request: Request) -> None:
        event = CallBegan(
            record.began,
            scope.node_id,
            scope.trace.run,
            call=record.number,
            phase=request.phase,
            model=self._name,
            server=self._host,
            tool=0 if scope.tool is None else scope.tool.number,
        )
        scope.trace.emit(event)

    def _end(
        self,
        scope: Scope,
        record: CallRecord,
        request: Request,
        reply: Reply | None,
        error: str,
    ) -> None:
        time, node, run = scope.at
        seconds = time - record.began
        if scope.trace.spans is not None:
            scope.trace.spans.add(node, "model", record.began, seconds, record.number)
        if not scope.trace.listeners:
            return
        event = CallEnded(
            time,
            node,
            run,
            call=record.number,
            phase=request.phase,
            model=self._name,
            server=self._host,
            usage=record.usage,
            seconds=seconds,
            waited=record.waited,
            finish_reason="" if reply is None else reply.finish_reason,
            error=error,
            answered_by="" if reply is None else reply.model,
            response="" if reply is None else reply.id,
        )
        scope.trace.emit(event)
