"""What a server supports of structured output and tools, as its answers and refusals show."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pandas_amr.errors import ModelConfigError, ModelError, ModelRejected
from pandas_amr.models.first_requests import FirstRequests
from pandas_amr.models.statistics import ProcessCache
from pandas_amr.models.structured.forms import Form

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from pandas_amr.models.base import LM

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
# With 500 and above only a refusal that names the form is one.
REFUSALS = frozenset({400, 404, 422, 500, 501, 502})
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
        has_refused_tools: whether the server has said that it accepts no tools.
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
    has_refused_tools: bool = False
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
        if error.status not in REFUSALS or is_too_long(error):
            return False
        message = str(error)
        if isinstance(error, ModelConfigError):
            return bool(NO_SERVER.search(message))
        return bool(ABOUT_FORM.search(message)) and not ABOUT_CONTENT.search(message)

    def refuses_tools(self, kind: str, error: ModelError) -> bool:
        """Tell whether an error says that the server accepts no tools.

        It does not say so if the server has answered a request with tools before.
        """
        if kind not in {TOOLS, REPL} or self._has_accepted_tools:
            return False
        if error.status not in REFUSALS | {403}:
            return False
        if error.status == 404 and NO_SERVER.search(str(error)):
            return True
        return bool(NO_TOOLS.search(str(error)))

    def may_write_code(self, kind: str, error: ModelError) -> bool:
        """Tell whether code is worth a request: the refusal of a call may be about the tools."""
        if kind != REPL or self._has_accepted_tools:
            return False
        if isinstance(error, ModelConfigError) or is_too_long(error):
            return False
        if error.status not in REFUSALS or self.vain.get(REPL, 0) >= VAIN_FALLBACKS:
            return False
        message = str(error)
        return bool(ABOUT_FORM.search(message)) and not ABOUT_CONTENT.search(message)

    @property
    def _has_accepted_tools(self) -> bool:
        return self.calls_tools or bool(self._known_kinds & {TOOLS, REPL})

    def learn_answered(self, kind: str, form: Form, refusals: Mapping[Form, ModelError]) -> None:
        """Remember the form that was answered, and the better ones that were refused."""
        self.accepted.add(form)
        self.answered[kind] = min(form, self.answered.get(kind, form))
        if refusals:
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


def is_too_long(error: ModelError) -> bool:
    """Tell whether a request was refused since it is too long."""
    return isinstance(error, ModelRejected) and error.too_long


_supports: ProcessCache[SchemaSupport] = ProcessCache()


def schema_support_of(server: str, name: str) -> SchemaSupport:
    """Give what this process has learned about structured output of a server and model."""
    first = FIRST_FORMS.get(urlsplit(server).hostname or "", Form.SCHEMA)
    return _supports.get((server, name), partial(SchemaSupport, first))
