"""Structured output: find the best form that a server accepts for a schema, and remember it.

A JSON-schema response is best; then a forced tool call, which is read as an answer; then a JSON
object with the schema in words; then words alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pandas_amr.errors import ModelConfigError, ModelError, ModelRejected, ModelUnavailable
from pandas_amr.models.base import CallsNoTools, Message, Reply, Request, ToolSpec
from pandas_amr.models.first import FirstRequests
from pandas_amr.models.lessons import cached_per_process
from pandas_amr.models.throttle.patience import measure_wait

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from pandas_amr.models.base import LM, Model, ResponseSchema

WORDS = "Answer with one JSON object, the {}, that follows this JSON schema:"


class Form(IntEnum):
    """The forms in which structured output is requested, the best one first."""

    SCHEMA = 0
    TOOL = 1
    JSON_OBJECT = 2
    PROMPT = 3

    @property
    def label(self) -> str:
        """Its name in a trace."""
        return self.name.lower()


# Servers that are known not to guarantee a schema. They start with the form that they accept.
FIRST_FORMS = {
    # api-docs.deepseek.com, "Create Chat Completion"; llm-exe/llm-exe issue 662
    "api.deepseek.com": Form.JSON_OBJECT,
    # docs.z.ai/api-reference/llm/chat-completion, as promptfoo/promptfoo pull 9905 reads it
    "api.z.ai": Form.JSON_OBJECT,
    # the same service: langchain4j/langchain4j-community pull 641
    "open.bigmodel.cn": Form.JSON_OBJECT,
    # cisco-ai-defense/skill-scanner pull 115; one old model is known to differ
    "api.minimax.io": Form.JSON_OBJECT,
    "api.minimaxi.com": Form.JSON_OBJECT,
    "api.minimax.chat": Form.JSON_OBJECT,
    # Model Studio, "JSON mode"; langchain4j/langchain4j issue 4111
    "dashscope.aliyuncs.com": Form.JSON_OBJECT,
    "dashscope-intl.aliyuncs.com": Form.JSON_OBJECT,
    "dashscope-us.aliyuncs.com": Form.JSON_OBJECT,
    # docs.anthropic.com, "OpenAI SDK compatibility": response_format is ignored
    "api.anthropic.com": Form.TOOL,
}

# What servers say if they refuse the form and not the content, or do not say what they refuse. Any
# other refusal is about the row: to try all forms would cost more requests for each such row.
ABOUT_FORM = re.compile(
    r"response_?format|json|schema|structured|grammar|tool|function|"
    r"not (supported|implemented|available)|unavailable|"
    r"unsupported|unrecogni[sz]ed|unknown|unexpected|extra|cannot find field|"
    r"parameter|argument|propert(y|ies)|keyword|\bfield|output_config|"
    r"bad request|invalid (request|value|input|body)|provider returned error|unprocessable|"
    r"no reason given",
    re.IGNORECASE,
)
# What they say if they refuse the form for every schema.
FOR_ANY_SCHEMA = re.compile(
    r"(response_format|json_schema|json_object|tool|function)\S*.{0,40}"
    r"\b(not (supported|implemented|available)|unsupported|unavailable|unknown|unrecogni[sz]ed)|"
    r"\b(not support|unsupported|unknown|unrecogni[sz]ed).{0,40}"
    r"(response_format|json_schema|json_object|tool|function)",
    re.IGNORECASE,
)
# What they say if they refuse the content.
ABOUT_CONTENT = re.compile(
    r"polic(y|ies)|safety|moderat|content.?filter|harmful|flagged|inappropriate", re.IGNORECASE
)
# A router says 404 if none of its servers has what a request needs (OpenRouter: "No endpoints found
# that support").
NO_SERVER = re.compile(
    r"support.{0,40}(tool|response_format|structured|parameter|json)", re.IGNORECASE
)
REFUSALS = frozenset({400, 404, 422})
# What servers say that accept no tools at all: vLLM without a parser, llama.cpp without templates
# (500), Ollama and Groq for some models, Gemini's endpoint for Gemma, FastAPI. OpenAI says it if it
# does not accept the schema of a tool.
NO_TOOLS = re.compile(
    r"\b(tools?|functions?)\b.{0,40}"
    r"(\bnot (supported|enabled|available|implemented)|\bunsupported|\brequires? .{0,20}--)|"
    r"--tool-call-parser|\bbody\.tools\b|\binvalid schema for function\b|"
    r"(\bnot support|n[o']t support|\bunsupported|\bno support for|\bunrecogni[sz]ed|\bunknown|"
    r"\bunexpected).{0,40}\b(tools?|functions?)\b",
    re.IGNORECASE,
)

NOT_BUILT = frozenset({500, 501})
TOOLS = "tools"  # the kind of requests that may call tools
REPL = "repl"  # the kind of those that may call only the REPL, and write code instead of calls

# So many kinds of schemas refused in a form, and none answered: others do not start with it.
ENOUGH_KINDS = 2
# So often a kind was refused in every form: a further refusal is about the row.
VAIN_FALLBACKS = 2


@dataclass
class SchemaSupport:
    """What this process has learned about structured output of one server and model.

    Attributes:
        first: the form to start with.
        answered: the form in which a kind of schema was answered.
        read: the form in which a kind of schema was read, though not answered.
        accepted: forms that were answered for some kind.
        refused: how many kinds were refused in a form and answered in a lower one.
        vain: how often a kind was refused in every form.
        followed: forms in which an answer had the shape of the schema.
        calls_tools: whether a tool was ever called.
        writes_code: whether agents with a REPL write code, since no tool is called here.
    """

    first: Form = Form.SCHEMA
    answered: dict[str, Form] = field(default_factory=dict)
    read: dict[str, Form] = field(default_factory=dict)
    accepted: set[Form] = field(default_factory=set)
    refused: dict[Form, int] = field(default_factory=dict)
    vain: dict[str, int] = field(default_factory=dict)
    followed: set[Form] = field(default_factory=set)
    calls_tools: bool = False
    writes_code: bool = False
    _known_kinds: set[str] = field(default_factory=set)
    _first_requests: dict[tuple[int, str, LM], FirstRequests] = field(default_factory=dict)

    def next_form(self, kind: str, *, strict: bool) -> Form:
        """Give the form in which to request a kind of schema next."""
        form = self.answered.get(kind, self.read.get(kind))
        if form is not None:
            return max(form, self.first)
        form = self.first if strict else max(self.first, Form.JSON_OBJECT)
        while form < Form.PROMPT and self._is_refused(form):
            form = Form(form + 1)
        return form

    def _is_refused(self, form: Form) -> bool:
        return form not in self.accepted and self.refused.get(form, 0) >= ENOUGH_KINDS

    def may_fall_back(self, kind: str, form: Form, error: ModelError) -> bool:
        """Tell whether a refusal may be about the form, so that a lower one is worth a request."""
        if form == Form.PROMPT or self.answered.get(kind) == form:
            return False
        if self.vain.get(kind, 0) >= VAIN_FALLBACKS:
            return False
        if error.status not in REFUSALS or _is_too_long(error):
            return False
        message = str(error)
        if isinstance(error, ModelConfigError):
            return bool(NO_SERVER.search(message))
        return bool(ABOUT_FORM.search(message)) and not ABOUT_CONTENT.search(message)

    def refuses_tools(self, kind: str, error: ModelError) -> bool:
        """Tell whether an error says that the server accepts no tools.

        It does not say so if the server has answered a request with tools before.
        """
        if kind not in {TOOLS, REPL} or error.status not in REFUSALS | NOT_BUILT:
            return False
        if self.calls_tools or self._known_kinds & {TOOLS, REPL}:
            return False
        return bool(NO_TOOLS.search(str(error)))

    def learn_answered(self, kind: str, form: Form, refusals: Mapping[Form, ModelError]) -> None:
        """Remember the form that was answered, and the better ones that were refused."""
        self.accepted.add(form)
        self.answered[kind] = min(form, self.answered.get(kind, form))
        self._learn_refused(refusals)

    def learn_read(self, kind: str, form: Form, refusals: Mapping[Form, ModelError]) -> None:
        """Remember the form of a request that was too long: so the server has read the form."""
        self.read[kind] = max(form, self.read.get(kind, form))
        self._learn_refused(refusals)

    def _learn_refused(self, refusals: Mapping[Form, ModelError]) -> None:
        for form, error in refusals.items():
            kinds = 1
            if isinstance(error, ModelConfigError) or FOR_ANY_SCHEMA.search(str(error)):
                kinds = ENOUGH_KINDS
            self.refused[form] = self.refused.get(form, 0) + kinds

    def learn_vain(self, kind: str) -> None:
        """Remember that a kind was refused in every form."""
        self.vain[kind] = self.vain.get(kind, 0) + 1

    def learn_followed(self, form: Form, *, is_followed: bool) -> None:
        """Remember whether an answer followed the schema in a form.

        A server that accepts a form and never followed it ignores it: words are left. If it ignores
        forced calls, it has no tools, but its JSON mode may work.
        """
        if is_followed:
            self.followed.add(form)
        elif form not in self.followed:
            lower = Form.JSON_OBJECT if form == Form.TOOL else Form.PROMPT
            self.first = max(self.first, lower)

    @contextlib.asynccontextmanager
    async def in_turn(self, kind: str, lm: LM) -> AsyncIterator[None]:
        """Let the first request of a kind go alone.

        Raises:
            ModelRejected: this request was refused, and another one was answered.
            ModelConfigError: no later request could succeed, as the first ones show.
        """
        if kind in self._known_kinds:
            yield
            return
        key = (id(asyncio.get_running_loop()), kind, lm)
        first = self._first_requests.setdefault(key, FirstRequests())
        try:
            async with first.in_turn():
                yield
                self._known_kinds.add(kind)
        finally:
            if first.is_empty:
                self._first_requests.pop(key, None)
        await asyncio.sleep(0)  # those who have waited go before those who come now


def _is_too_long(error: ModelError) -> bool:
    return isinstance(error, ModelRejected) and error.too_long


@cached_per_process
def forms_of(server: str, name: str) -> SchemaSupport:  # noqa: ARG001 (cache key)
    """Give what this process has learned about structured output of a server and model."""
    return SchemaSupport(FIRST_FORMS.get(urlsplit(server).hostname or "", Form.SCHEMA))


class Structured:
    """A model that requests a schema in the best form that its server accepts.

    A refusal leads to the next lower form. The next request of the same kind starts with the form
    that was answered. The first request of a kind goes alone, so that what is refused is refused
    only once; but not in a batch, where all are one request.
    """

    def __init__(self, model: Model, *, server: str, lm: LM) -> None:
        self._model = model
        self._support = forms_of(server, lm.model)
        self._lm = lm

    async def complete(self, request: Request) -> Reply:
        """Answer one turn.

        Raises:
            ModelRejected: no form is accepted, or the server refuses the content.
            ModelConfigError: the server accepts no tools.
            CallsNoTools: likewise, or it never calls any, and the agent can write code instead.
        """
        kind = _kind_of(request)
        if kind == REPL and self._support.writes_code:
            raise CallsNoTools(f"{self._lm.model} makes no tool calls.", attempts=0)
        if self._lm.batch:
            return await self._complete(request, kind)
        with measure_wait():  # who waits for the first of its kind waits for the server, too
            async with self._support.in_turn(kind, self._lm):
                return await self._complete(request, kind)

    async def _complete(self, request: Request, kind: str) -> Reply:
        if request.schema is not None:
            return await self._complete_with_schema(request, request.schema, kind)
        return await self._complete_without_schema(request, kind)

    async def _complete_without_schema(self, request: Request, kind: str) -> Reply:
        """Answer one turn; a refusal of all tools becomes an error of the configuration."""
        try:
            reply = await self._model.complete(request)
        except (ModelRejected, ModelUnavailable) as error:
            if not self._support.refuses_tools(kind, error):
                raise
            raise self._tools_error(kind, error) from error
        if reply.message.tool_calls or any(message.tool_calls for message in request.messages):
            self._support.calls_tools = True
        return reply

    def _tools_error(self, kind: str, error: ModelError) -> ModelConfigError:
        error_class: type[ModelConfigError] = ModelConfigError
        if kind == REPL:
            self._support.writes_code = True
            error_class = CallsNoTools
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
                reply = await self._model.complete(_in_form(request, schema, form))
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
                self._learn_followed(reply, schema, form)
                usage = replace(reply.usage, tries=reply.usage.tries + tries)
                return replace(reply, usage=usage, form=form.label)

    def _falls_back(
        self, kind: str, form: Form, error: ModelError, refusals: Mapping[Form, ModelError]
    ) -> bool:
        """Tell whether to try the next form after a refusal; learn from it otherwise."""
        if refusals and _is_too_long(error):
            self._support.learn_read(kind, form, refusals)
        if self._support.may_fall_back(kind, form, error):
            return True
        if refusals and form == Form.PROMPT:
            self._support.learn_vain(kind)
        return False

    def _learn_followed(self, reply: Reply, schema: ResponseSchema, form: Form) -> None:
        is_known = form == Form.PROMPT or form in self._support.followed
        if is_known or reply.finish_reason == "length":
            return
        text = _answer_in(reply.message, schema)
        if text:
            is_followed = _has_shape(text, schema.schema)
            self._support.learn_followed(form, is_followed=is_followed)


def as_asked(request: Request, *, server: str, name: str) -> Request:
    """Give a request in the form in which it would be sent now."""
    if request.schema is None:
        return request
    form = forms_of(server, name).next_form(_kind_of(request), strict=request.schema.strict)
    return _in_form(request, request.schema, form)


def _kind_of(request: Request) -> str:
    """Give what requests have in common that are refused alike: their schema, or their tools."""
    if request.schema is not None:
        return hashlib.sha256(json.dumps(request.schema.schema).encode()).hexdigest()
    if not request.tools:
        return ""
    return TOOLS if request.code is None else REPL


def _in_form(request: Request, schema: ResponseSchema, form: Form) -> Request:
    """Give the request in a form."""
    if form == Form.SCHEMA:
        return request
    if form == Form.TOOL:
        name = _tool_name(schema)
        tool = ToolSpec(name, f"Hand in the {schema.name}.", schema.schema)
        return replace(request, schema=None, tools=(tool,), forced_tool=name)
    words = f"{WORDS.format(schema.name)}\n{json.dumps(schema.schema, ensure_ascii=False)}"
    last = request.messages[-1]
    last = replace(last, content=f"{last.content or ''}\n\n{words}")
    return replace(
        request,
        schema=None,
        messages=(*request.messages[:-1], last),
        json_object=form == Form.JSON_OBJECT,
    )


def _tool_name(schema: ResponseSchema) -> str:
    return f"submit_{schema.name}"


def _answer_in(message: Message, schema: ResponseSchema) -> str | None:
    """Give the text of an answer: the arguments of the forced tool's call, or the content."""
    for call in message.tool_calls:
        if call.name == _tool_name(schema):
            return call.arguments
    return message.content


def _has_shape(text: str, schema: Mapping[str, Any]) -> bool:
    """Tell whether an answer follows a schema roughly.

    It must be one JSON object with some of the keys, and hold objects in lists of objects. No more
    is checked: a server that leaves out a field may follow the rest, and gets a repair turn.
    """
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError):
        return False
    properties = schema.get("properties", {})
    if not isinstance(payload, dict) or payload.keys().isdisjoint(properties):
        return False
    for name, value in payload.items():
        wanted = properties.get(name, {})
        takes_objects = wanted.get("type") == "array" and wanted["items"].get("type") == "object"
        if not takes_objects or not isinstance(value, list):
            continue
        if not all(isinstance(item, dict) for item in value):
            return False
    return True
