"""The ladder of structured output: what a server cannot is found out by asking, once, and remembered."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from pandas_amr.errors import ModelRejected
from pandas_amr.models.base import Message, Reply, Request, ToolSpec

if TYPE_CHECKING:
    from pandas_amr.models.base import Model

RUNGS = ("schema", "tool", "json_object", "prompt")

# What servers say when it is the form that they cannot, not the content.
ABOUT_FORM = re.compile(
    r"response_format|json_schema|json_object|schema|structured|grammar|tool|function|not (supported|implemented)|"
    r"unsupported|unrecogni[sz]ed|unknown (field|parameter|argument)|extra (field|input)",
    re.IGNORECASE,
)

_learned: dict[tuple[int, str, str], int] = {}  # process, server, model -> the first rung that it may stand on
_proven: set[tuple[int, str, str, int]] = set()  # rungs that have answered


class Structured:
    """Answers like the model inside; a schema is asked for in the best form that the server takes.

    A JSON-schema response, else a forced tool call, else a JSON object with the schema in words, else words alone. A
    refusal that speaks of the form takes the request one rung down; the rung that answers is where the next begins.
    """

    def __init__(self, model: Model, *, server: str, name: str) -> None:
        self._model = model
        self._place = (os.getpid(), server, name)

    async def complete(self, request: Request) -> Reply:
        """Answer one turn.

        Raises:
            ModelRejected: no rung holds, or it is the content that the server will not take.
        """
        if request.schema is None:
            return await self._model.complete(request)
        rung = _learned.get(self._place, 0)
        refused = 0
        while True:
            try:
                reply = await self._model.complete(_asked(request, rung))
            except ModelRejected as error:
                error.attempts += refused
                known = (*self._place, rung) in _proven
                if known or error.too_long or rung + 1 == len(RUNGS) or not ABOUT_FORM.search(str(error)):
                    raise
                rung += 1
                refused = error.attempts
            else:
                _learned[self._place] = max(rung, _learned.get(self._place, 0))
                _proven.add((*self._place, rung))
                usage = replace(reply.usage, tries=reply.usage.tries + refused)
                return replace(_read(reply, request, rung), usage=usage)


def as_asked(request: Request, *, server: str, name: str) -> Request:
    """The request as it would be sent now: in the form that the server is known to take, or the best one."""
    return request if request.schema is None else _asked(request, _learned.get((os.getpid(), server, name), 0))


def _asked(request: Request, rung: int) -> Request:
    """The request in the form of a rung."""
    schema = request.schema
    assert schema is not None
    match RUNGS[rung]:
        case "schema":
            return request
        case "tool":
            name = f"submit_{schema.name}"
            tool = ToolSpec(name, f"Hand in the {schema.name}.", schema.schema)
            return replace(request, schema=None, tools=(tool,), forced_tool=name)
        case form:
            words = f"Answer with one JSON object that follows this JSON schema:\n{json.dumps(schema.schema)}"
            messages = (*request.messages[:-1], _with_words(request.messages[-1], words))
            return replace(request, schema=None, messages=messages, json_object=form == "json_object")


def _with_words(message: Message, words: str) -> Message:
    return replace(message, content=f"{message.content or ''}\n\n{words}")


def _read(reply: Reply, request: Request, rung: int) -> Reply:
    """The answer as if it had been a schema response."""
    assert request.schema is not None
    form = RUNGS[rung]
    if form == "tool":
        called = next((call for call in reply.message.tool_calls if call.name == f"submit_{request.schema.name}"), None)
        if called is not None:
            return replace(reply, message=Message("assistant", called.arguments), form=form)
    return replace(reply, form=form)
