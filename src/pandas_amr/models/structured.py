"""Structured output: the best form that a server takes for a schema is found out by asking, once, and remembered."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pandas_amr.errors import ModelConfigError, ModelError, ModelRejected, ModelUnavailable
from pandas_amr.models.base import CallsNoTools, Message, Reply, Request, ToolSpec
from pandas_amr.models.first import FirstRequests
from pandas_amr.models.lessons import made_once
from pandas_amr.models.throttle import asked_now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from pandas_amr.models.base import LM, Model, ResponseSchema

WORDS = "Answer with one JSON object, the {}, that follows this JSON schema:"
RUNGS = ("schema", "tool", "json_object", "prompt")
SCHEMA, TOOL, JSON_OBJECT, PROMPT = range(len(RUNGS))

# Servers that are known to promise no schema. They begin at the form that they take.
FIRST_RUNGS = {
    "api.deepseek.com": JSON_OBJECT,  # api-docs.deepseek.com, "Create Chat Completion"; llm-exe/llm-exe issue 662
    "api.z.ai": JSON_OBJECT,  # docs.z.ai/api-reference/llm/chat-completion, as promptfoo/promptfoo pull 9905 reads it
    "open.bigmodel.cn": JSON_OBJECT,  # the same service: langchain4j/langchain4j-community pull 641
    "api.minimax.io": JSON_OBJECT,  # cisco-ai-defense/skill-scanner pull 115; of one old model it is known otherwise
    "api.minimaxi.com": JSON_OBJECT,
    "api.minimax.chat": JSON_OBJECT,
    "dashscope.aliyuncs.com": JSON_OBJECT,  # Model Studio, "JSON mode"; langchain4j/langchain4j issue 4111
    "dashscope-intl.aliyuncs.com": JSON_OBJECT,
    "dashscope-us.aliyuncs.com": JSON_OBJECT,
    "api.anthropic.com": TOOL,  # docs.anthropic.com, "OpenAI SDK compatibility": response_format is ignored
}

# What servers say when it is the form that they cannot, not the content; or when they do not say what it is. A refusal
# in other words is the row's: each form would cost a request more for every row that is refused.
ABOUT_FORM = re.compile(
    r"response_?format|json|schema|structured|grammar|tool|function|not (supported|implemented|available)|unavailable|"
    r"unsupported|unrecogni[sz]ed|unknown|unexpected|extra|cannot find field|"
    r"parameter|argument|propert(y|ies)|keyword|\bfield|output_config|"
    r"bad request|invalid (request|value|input|body)|provider returned error|unprocessable|no reason given",
    re.IGNORECASE,
)
# ... that they cannot for any schema ...
FOR_ANY = re.compile(
    r"(response_format|json_schema|json_object|tool|function)\S*.{0,40}"
    r"\b(not (supported|implemented|available)|unsupported|unavailable|unknown|unrecogni[sz]ed)|"
    r"\b(not support|unsupported|unknown|unrecogni[sz]ed).{0,40}"
    r"(response_format|json_schema|json_object|tool|function)",
    re.IGNORECASE,
)
# ... and what says that it is the content.
ABOUT_CONTENT = re.compile(
    r"polic(y|ies)|safety|moderat|content.?filter|harmful|flagged|inappropriate", re.IGNORECASE
)
# A router says 404 where none of its servers has what a request needs (OpenRouter: "No endpoints found that support").
NO_SERVER = re.compile(
    r"support.{0,40}(tool|response_format|structured|parameter|json)", re.IGNORECASE
)
REFUSALS = frozenset({400, 404, 422})
# What servers say that take no tools at all: vLLM without a parser, llama.cpp's without templates (500), Ollama and
# Groq of some models, Gemini's endpoint of Gemma, FastAPI; or not these: OpenAI of a schema.
NO_TOOLS = re.compile(
    r"\b(tools?|functions?)\b.{0,40}(\bnot (supported|enabled|available|implemented)|\bunsupported|"
    r"\brequires? .{0,20}--)|--tool-call-parser|\bbody\.tools\b|\binvalid schema for function\b|"
    r"(\bnot support|n[o']t support|\bunsupported|\bno support for|\bunrecogni[sz]ed|\bunknown|\bunexpected).{0,40}"
    r"\b(tools?|functions?)\b",
    re.IGNORECASE,
)

NOT_BUILT = frozenset({500, 501})
TOOLS = "tools"  # the kind of requests that may call some
REPL = "repl"  # of those that may call the REPL alone, and write code in its place

ENOUGH_KINDS = (
    2  # of schemas refused in a form, and none taken, after which others do not begin with it
)
VAIN_DESCENTS = 2  # of a schema, refused in every form, after which a refusal is the row's


@dataclass
class Forms:
    """What one server and model have taught of forms, in this process.

    Attributes:
        first: the form to begin with.
        rungs: the form in which a kind of schema was answered.
        begins: the form in which a kind of schema was read, if not answered.
        taken: forms that were answered for some kind.
        refused: how many kinds were refused in a form and answered in a lower one.
        vain: how often a kind was refused in every form.
        kept: forms in which an answer was of the schema's shape.
        calls_tools: whether a tool was ever called.
        writes_code: whether agents with a REPL are asked for code, since no tool is called here.
    """

    first: int = SCHEMA
    rungs: dict[str, int] = field(default_factory=dict)
    begins: dict[str, int] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)
    refused: dict[int, int] = field(default_factory=dict)
    vain: dict[str, int] = field(default_factory=dict)
    kept: set[int] = field(default_factory=set)
    calls_tools: bool = False
    writes_code: bool = False
    _known: set[str] = field(default_factory=set)
    _first: dict[tuple[int, str, LM], FirstRequests] = field(default_factory=dict)

    def rung_of(self, kind: str, *, strict: bool) -> int:
        """The form in which a kind of schema is asked for next."""
        rung = self.rungs.get(kind, self.begins.get(kind))
        if rung is None:
            rung = self.first if strict else max(self.first, JSON_OBJECT)
            while (
                rung < PROMPT
                and rung not in self.taken
                and self.refused.get(rung, 0) >= ENOUGH_KINDS
            ):
                rung += 1
        return max(rung, self.first)

    def may_descend(self, kind: str, rung: int, error: ModelError) -> bool:
        """Whether a refusal may be of the form, so that a lower one is worth a request."""
        if (
            rung == PROMPT
            or self.rungs.get(kind) == rung
            or self.vain.get(kind, 0) >= VAIN_DESCENTS
        ):
            return False
        if error.status not in REFUSALS or _is_too_long(error):
            return False
        if isinstance(error, ModelConfigError):
            return bool(NO_SERVER.search(str(error)))
        return bool(ABOUT_FORM.search(str(error))) and not ABOUT_CONTENT.search(str(error))

    def takes_no_tools(self, kind: str, error: ModelError) -> bool:
        """Whether a refusal says that tools are not taken, by a server that has answered no request with some."""
        if (
            kind not in {TOOLS, REPL}
            or self._has_taken_tools
            or error.status not in REFUSALS | NOT_BUILT | {403}
        ):
            return False
        of_router = error.status == 404 and NO_SERVER.search(str(error))
        return bool(of_router or NO_TOOLS.search(str(error)))

    def may_write_code(self, kind: str, error: ModelError) -> bool:
        """Whether code is worth a request where calls of the REPL were refused: the refusal may be of the tools."""
        if (
            kind != REPL
            or self._has_taken_tools
            or isinstance(error, ModelConfigError)
            or _is_too_long(error)
        ):
            return False
        if error.status not in REFUSALS or self.vain.get(REPL, 0) >= VAIN_DESCENTS:
            return False
        return bool(ABOUT_FORM.search(str(error))) and not ABOUT_CONTENT.search(str(error))

    @property
    def _has_taken_tools(self) -> bool:
        return self.calls_tools or bool(self._known & {TOOLS, REPL})

    def learn_taken(self, kind: str, rung: int, refusals: Mapping[int, ModelError]) -> None:
        """Remember the form that was answered, and those above it that were refused."""
        self.taken.add(rung)
        self.rungs[kind] = min(rung, self.rungs.get(kind, rung))
        self._learn_refused(refusals)

    def learn_read(self, kind: str, rung: int, refusals: Mapping[int, ModelError]) -> None:
        """Remember the form in which a request was only too long: a server that reads so far has read the form."""
        self.begins[kind] = max(rung, self.begins.get(kind, rung))
        self._learn_refused(refusals)

    def _learn_refused(self, refusals: Mapping[int, ModelError]) -> None:
        for rung, error in refusals.items():
            for_any = FOR_ANY.search(str(error)) or isinstance(error, ModelConfigError)
            self.refused[rung] = self.refused.get(rung, 0) + (ENOUGH_KINDS if for_any else 1)

    def learn_kept(self, rung: int, *, is_kept: bool) -> None:
        """Remember whether a form is kept. A server that takes it and never kept it ignores it: words are left.

        Forced calls are not kept by servers without tools, whose JSON mode may work.
        """
        if is_kept:
            self.kept.add(rung)
        elif rung not in self.kept:
            self.first = max(self.first, JSON_OBJECT if rung == TOOL else PROMPT)

    @contextlib.asynccontextmanager
    async def in_turn(self, kind: str, lm: LM) -> AsyncIterator[None]:
        """Let the first request of its kind go alone.

        Raises:
            ModelRejected: this request was refused, and another one was answered.
            ModelConfigError: nothing that follows could succeed, as the first ones have shown.
        """
        if kind in self._known:
            yield
            return
        key = (id(asyncio.get_running_loop()), kind, lm)
        first = self._first.setdefault(key, FirstRequests())
        try:
            async with first.in_turn():
                yield
                self._known.add(kind)
        finally:
            if first.is_empty:
                self._first.pop(key, None)
        await asyncio.sleep(0)  # who has waited goes before who comes now


def _is_too_long(error: ModelError) -> bool:
    return isinstance(error, ModelRejected) and error.too_long


@made_once
def forms_of(server: str, name: str) -> Forms:  # noqa: ARG001 (what they are known by)
    """What a server and model have taught of forms in this process."""
    return Forms(FIRST_RUNGS.get(urlsplit(server).hostname or "", SCHEMA))


class Structured:
    """Answers like the model inside; a schema is asked for in the best form that the server takes.

    A JSON-schema response, else a forced tool call, which whoever asks reads as an answer, else a JSON object with the
    schema in words, else words alone. A refusal takes a schema one form down; the form that is answered is where the
    next of its kind begins. The first request of a kind goes alone, so that what is refused is refused once; but not in
    a batch, which is one request.
    """

    def __init__(self, model: Model, *, server: str, lm: LM) -> None:
        self._model = model
        self._forms = forms_of(server, lm.model)
        self._lm = lm

    async def complete(self, request: Request) -> Reply:
        """Answer one turn.

        Raises:
            ModelRejected: no form is taken, or it is the content that the server will not take.
            ModelConfigError: the server takes no tools.
            CallsNoTools: likewise, or it never calls any, and the agent can write code instead.
        """
        kind = _kind_of(request)
        if kind == REPL and self._forms.writes_code:
            raise CallsNoTools(f"{self._lm.model} calls no tools.", attempts=0)
        if self._lm.batch:
            return await self._ask(request, kind)
        with asked_now():  # whoever waits for the first of its kind waits for the server, too
            async with self._forms.in_turn(kind, self._lm):
                return await self._ask(request, kind)

    async def _ask(self, request: Request, kind: str) -> Reply:
        if request.schema is not None:
            return await self._descend(request, kind)
        return await self._ask_plain(request, kind)

    async def _ask_plain(self, request: Request, kind: str) -> Reply:
        """Ask without a schema. That a server takes no tools is its configuration, and no row's."""
        try:
            reply = await self._model.complete(request)
        except (ModelRejected, ModelUnavailable, ModelConfigError) as error:
            refuses_tools = self._forms.takes_no_tools(kind, error)
            if not refuses_tools and not self._forms.may_write_code(kind, error):
                raise
            known: dict[str, Any] = {
                "status": error.status,
                "request_id": error.request_id,
                "attempts": error.attempts,
            }
            said = f"{str(error).removesuffix('.')}. Without tools {self._lm.model} can be asked as it is."
            if kind == REPL:
                self._forms.writes_code |= refuses_tools
                self._forms.vain[REPL] = self._forms.vain.get(REPL, 0) + (not refuses_tools)
                raise CallsNoTools(said, **known) from error
            raise ModelConfigError(said, **known) from error
        if reply.message.tool_calls or any(message.tool_calls for message in request.messages):
            self._forms.calls_tools = True
        return reply

    async def _descend(self, request: Request, kind: str) -> Reply:
        """Ask in one form after the other until one is taken. What is taken in none teaches nothing."""
        assert request.schema is not None
        forms = self._forms
        rung = forms.rung_of(kind, strict=request.schema.strict)
        refusals: dict[int, ModelError] = {}
        refused = 0
        while True:
            try:
                reply = await self._model.complete(_asked(request, rung))
            except (ModelRejected, ModelConfigError) as error:
                error.attempts += refused
                if refusals and _is_too_long(error):
                    forms.learn_read(kind, rung, refusals)
                if not forms.may_descend(kind, rung, error):
                    forms.vain[kind] = forms.vain.get(kind, 0) + (rung == PROMPT and bool(refusals))
                    raise
                refusals[rung] = error
                refused = error.attempts
                rung += 1
            else:
                forms.learn_taken(kind, rung, refusals)
                forms.writes_code |= request.code == "found" and not forms.calls_tools
                usage = replace(reply.usage, tries=reply.usage.tries + refused)
                unsure = (
                    rung < PROMPT and rung not in forms.kept and reply.finish_reason != "length"
                )
                text = _answer_in(reply.message, request.schema)
                if unsure and text:
                    forms.learn_kept(rung, is_kept=_has_shape(text, request.schema.schema))
                return replace(reply, usage=usage, form=RUNGS[rung])


def as_asked(request: Request, *, server: str, name: str) -> Request:
    """The request as it would be sent now: in the form that the server is known to take, or the best one."""
    if request.schema is None:
        return request
    rung = forms_of(server, name).rung_of(_kind_of(request), strict=request.schema.strict)
    return _asked(request, rung)


def _kind_of(request: Request) -> str:
    """What requests that are refused alike have in common: the schema, or which tools they have, or none."""
    if request.schema is None:
        kind = REPL if request.code is not None else TOOLS
        return kind if request.tools else ""
    return hashlib.sha256(json.dumps(request.schema.schema).encode()).hexdigest()


def _asked(request: Request, rung: int) -> Request:
    """The request in the form of a rung."""
    schema = request.schema
    assert schema is not None
    match RUNGS[rung]:
        case "schema":
            return request
        case "tool":
            name = _tool_name(schema)
            tool = ToolSpec(name, f"Hand in the {schema.name}.", schema.schema)
            return replace(request, schema=None, tools=(tool,), forced_tool=name)
        case form:
            words = f"{WORDS.format(schema.name)}\n{json.dumps(schema.schema, ensure_ascii=False)}"
            messages = (*request.messages[:-1], _with_words(request.messages[-1], words))
            return replace(
                request, schema=None, messages=messages, json_object=form == "json_object"
            )


def _tool_name(schema: ResponseSchema) -> str:
    return f"submit_{schema.name}"


def _with_words(message: Message, words: str) -> Message:
    return replace(message, content=f"{message.content or ''}\n\n{words}")


def _answer_in(message: Message, schema: ResponseSchema) -> str | None:
    """The text of an answer: what the first call of the forced tool holds, or else what was said."""
    for call in message.tool_calls:
        if call.name == _tool_name(schema):
            return call.arguments
    return message.content


def _has_shape(text: str, schema: Mapping[str, Any]) -> bool:
    """Whether an answer can come of the schema: one JSON object, some of its keys, objects in its lists of objects.

    It is not looked at more closely: a server that leaves out a field may keep to the rest, and is repaired.
    """
    try:
        payload = json.loads(text)
    except (ValueError, RecursionError):
        return False
    properties = schema.get("properties", {})
    if not isinstance(payload, dict) or payload.keys().isdisjoint(properties):
        return False
    for name, value in payload.items():
        part = properties.get(name, {})
        of_objects = part.get("type") == "array" and part["items"].get("type") == "object"
        if (
            of_objects
            and isinstance(value, list)
            and not all(isinstance(one, dict) for one in value)
        ):
            return False
    return True
