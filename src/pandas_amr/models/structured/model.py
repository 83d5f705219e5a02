"""A model that requests a schema in the best form that its server accepts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pandas_amr.errors import ModelConfigError, ModelError, ModelRejected, ModelUnavailable
from pandas_amr.models.base import CallsNoTools
from pandas_amr.models.structured.forms import Form, answer_in, has_shape, in_form
from pandas_amr.models.structured.support import REPL, TOOLS, is_too_long, schema_support_of
from pandas_amr.models.throttle.patience import measure_wait

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas_amr.models.base import LM, Model, Reply, Request, ResponseSchema


class Structured:
    """A model that requests a schema in the best form that its server accepts.

    A refusal leads to the next lower form. The next request of the same kind starts with the form
    that was answered. The first request of a kind goes alone, so that what is refused is refused
    only once; but not in a batch, where all are one request.
    """

    def __init__(self, model: Model, *, server: str, lm: LM) -> None:
        self._model = model
        self._support = schema_support_of(server, lm.model)
        self._lm = lm

    async def complete(self, request: Request) -> Reply:
        """Answer one turn.

        Raises:
            ModelRejected: no form is accepted, or the server refuses the content.
            ModelConfigError: the server accepts no tools.
            CallsNoTools: likewise, or it never calls any, and the agent can write code instead.
        """
        self.check_calls(request)
        kind = _kind_of(request)
        if self._lm.batch:
            return await self._complete(request, kind)
        with measure_wait():  # who waits for the first of its kind waits for the server, too
            async with self._support.in_turn(kind, self._lm):
                return await self._complete(request, kind)

    def check_calls(self, request: Request) -> None:
        """Refuse a request that wants tool calls of a server which is known to make none.

        Raises:
            CallsNoTools: it does; nothing was sent.
        """
        if self._support.writes_code and _kind_of(request) == REPL:
            raise CallsNoTools(f"{self._lm.model} makes no tool calls.", attempts=0)

    async def _complete(self, request: Request, kind: str) -> Reply:
        if request.schema is not None:
            return await self._complete_with_schema(request, request.schema, kind)
        return await self._complete_without_schema(request, kind)

    async def _complete_without_schema(self, request: Request, kind: str) -> Reply:
        """Answer one turn; a refusal of all tools becomes an error of the configuration."""
        try:
            reply = await self._model.complete(request)
        except (ModelRejected, ModelUnavailable, ModelConfigError) as error:
            is_refusal = self._support.refuses_tools(kind, error)
            if not is_refusal and not self._support.may_write_code(kind, error):
                raise
            raise self._tools_error(kind, error, is_refusal=is_refusal) from error
        messages = (*request.messages, reply.message)
        if any(message.tool_calls for message in messages):
            self._support.calls_tools = True
        return reply

    def _tools_error(self, kind: str, error: ModelError, *, is_refusal: bool) -> ModelConfigError:
        """Make the error that ends the run, or has the agent write code in place of calls."""
        self._support.has_refused_tools |= is_refusal
        error_class: type[ModelConfigError] = ModelConfigError
        if kind == REPL:
            error_class = CallsNoTools
            if is_refusal:
                self._support.writes_code = True
            else:
                self._support.learn_vain(REPL)
        reason = str(error).removesuffix(".")
        return error_class(
            f"{reason}. Without tools {self._lm.model} can be used as it is.",
            status=error.status,
            request_id=error.request_id,
            attempts=error.attempts,
        )

    async def _complete_with_schema(
        self, request: Request, schema: ResponseSchema, kind: str
    ) -> Reply:
        """Try one form after the other until one is answered."""
        form = self._support.next_form(kind, strict=schema.strict)
        refusals: dict[Form, ModelError] = {}
        tries = 0
        while True:
            try:
                reply = await self._model.complete(in_form(request, schema, form))
            except (ModelRejected, ModelConfigError) as error:
                error.attempts += tries
                if not self._falls_back(kind, form, error, refusals):
                    raise
                refusals[form] = error
                tries = error.attempts
                form = Form(form + 1)
            else:
                self._support.learn_answered(kind, form, refusals)
                if request.code == "found" and not self._support.calls_tools:
                    self._support.writes_code = True
                is_known = form == Form.PROMPT or form in self._support.followed
                if not is_known and reply.finish_reason != "length":
                    self._learn_followed(reply, schema, form)
                return replace(reply.with_tries(tries), form=form.label)

    def _falls_back(
        self, kind: str, form: Form, error: ModelError, refusals: Mapping[Form, ModelError]
    ) -> bool:
        """Tell whether to try the next form after a refusal; learn from it otherwise."""
        if refusals and is_too_long(error):
            self._support.learn_read(kind, form, refusals)
        if self._support.may_fall_back(kind, form, error):
            return True
        if refusals and form == Form.PROMPT:
            self._support.learn_vain(kind)
        return False

    def _learn_followed(self, reply: Reply, schema: ResponseSchema, form: Form) -> None:
        text = answer_in(reply.message, schema)
        if text:
            is_followed = has_shape(text, schema.schema)
            self._support.learn_followed(form, is_followed=is_followed)


def in_current_form(request: Request, *, server: str, name: str) -> Request:
    """Give a request in the form in which it would be sent now."""
    if request.schema is None:
        return request
    form = schema_support_of(server, name).next_form(
        _kind_of(request), strict=request.schema.strict
    )
    return in_form(request, request.schema, form)


def _kind_of(request: Request) -> str:
    """Give what requests have in common that are refused alike: their schema, or their tools."""
    if request.schema is not None:
        return request.schema.digest
    if not request.tools:
        return ""
    return TOOLS if request.code is None else REPL
