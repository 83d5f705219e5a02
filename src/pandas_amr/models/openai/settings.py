"""Settings that a model refuses, or a server names otherwise: learned from a refusal."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pandas_amr.errors import ModelConfigError, ModelError, ModelRejected, SettingWarning
from pandas_amr.models.openai.body import body_of, options_of
from pandas_amr.models.statistics import ProcessCache

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pandas_amr.models.base import LM, Model, Reply, Request

NEW_LIMIT, OLD_LIMIT = "max_completion_tokens", "max_tokens"
# Both names at once are refused by OpenAI (langchain-ai/langgraph issue 5943) and Volcengine.
LIMITS = (NEW_LIMIT, OLD_LIMIT)
STRICT = "strict"  # of a schema response
SYSTEM = "system role"  # without it, its text begins the user's message

# Servers that are known to accept the old name only; the two local ones are known by their usual
# port. Mistral answers 422 extra_forbidden (editor-code-assistant/eca issue 231). Ollama ignores
# the new name (ollama/ollama pull 14464), and so did LM Studio.
OLD_LIMIT_HOSTS = frozenset({"api.mistral.ai", "codestral.mistral.ai"})
OLD_LIMIT_PORTS = frozenset({11434, 1234})

UNSUPPORTED = re.compile(
    r"unsupported|\bnot (yet )?"
    r"(supported|permitted|allowed|implemented|recogni[sz]ed|available|accepted|used)|"
    r"n[o']t (support|allow|accept|take|recogni[sz]e)|unknown|unrecogni[sz]ed|unexpected|"
    r"extra.?(forbidden|input|field)|no longer|deprecated|only the default|may only|"
    r"cannot|can't|invalid (parameter|argument|field|key)|only \S+ is (allowed|supported)|"
    r"same time|incompatible|cannot find field|no such (field|parameter)",
    re.IGNORECASE,
)
# Model Studio says it of some models (infiniflow/ragflow issue 5912), other gateways of all.
WANTS_STREAM = re.compile(
    r"\bonly supports? (the )?stream|\bstream\w* (mode )?(is required|required|only)\b|"
    r"\b(enable|set|use) (the )?['\"`]?stream",
    re.IGNORECASE,
)
# The templates of Gemma (vllm-project/vllm pull 2964) and of the first Mistral models; OpenAI's
# first reasoning models; Gemini's endpoint for Gemma ("Developer instruction is not enabled").
NO_SYSTEM = re.compile(
    r"\b(system|developer) (role|message|prompt|instruction)s?\b.{0,30}\bnot\b|"
    r"\bnot support\w* .{0,20}\bsystem\b|\broles must alternate\b",
    re.IGNORECASE,
)
# A refusal of what a request asks for, and not of what it says, at whatever status. What only a
# request names may stand some words away from the refusal; an ordinary word stands beside it.
FORM_NAMES = (
    r"(response_?format|json_(schema|object)|tool_?choice|parallel_tool_calls|top_p|"
    r"reasoning_effort|max_(completion_)?tokens|stream_options)"
)
FORM_WORDS = r"\b(structured outputs?|grammar|schema|tools|temperature|seed)\b"
REFUSED = (
    r"(unsupported|n[o']t (support|allow|accept|permit|recogni[sz]e)|"
    r"\bnot (yet )?(supported|permitted|allowed|implemented|recogni[sz]ed|accepted|enabled)|"
    r"unrecogni[sz]ed|unknown (name|parameter|argument|field)|extra.?(forbidden|input|field)|"
    r"cannot find field|only the default|must be one of)"
)
REFUSES_NAME = re.compile(
    rf"{FORM_NAMES}.{{0,60}}{REFUSED}|{REFUSED}[^.;]{{0,30}}{FORM_NAMES}", re.IGNORECASE
)
REFUSES_WORD = re.compile(
    rf"{FORM_WORDS}.{{0,10}}{REFUSED}|{REFUSED}[^.;]{{0,10}}{FORM_WORDS}|"
    r"fail(ed|ure) to (parse|compile|initiali[sz]e).{0,20}(grammar|schema)",
    re.IGNORECASE,
)
# What is said of a failure within a server, whatever of a request it names beside.
OF_THE_SERVER = re.compile(
    r"internal( server)? error|temporar|\b(try|retry|again|right now)\b|\btime[d ]?-?out|\bbusy\b|"
    r"out of memory|\bCUDA|\bNCCL|\bupstream|\bdatabase|\bprotocol",
    re.IGNORECASE,
)
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
# Ollama says that the model "does not support thinking".
OTHER_NAMES = {"reasoningeffort": ("thinking", "reasoning")}


@dataclass
class LearnedSettings:
    """What this process has learned about the settings of one server and model.

    Attributes:
        limit: the name of the setting for the largest answer; None if unknown.
        omitted: settings that are left out.
        accepted: settings with which a request was answered.
        is_answered: whether a request was answered at all.
        streams: whether the model answers as a stream only.
    """

    limit: str | None = None
    omitted: set[str] = field(default_factory=set)
    accepted: set[str] = field(default_factory=set)
    is_answered: bool = False
    streams: bool = False
    _refused_limits: set[str] = field(default_factory=set)

    def apply(self, body: dict[str, Any]) -> dict[str, Any]:
        """Give a request's body without the settings that the model refuses."""
        wanted = body | STREAM if self.streams else body
        applied = {name: value for name, value in wanted.items() if name not in self.omitted}
        form = applied.get("response_format")
        if STRICT in self.omitted and isinstance(form, dict) and "json_schema" in form:
            schema = {key: value for key, value in form["json_schema"].items() if key != STRICT}
            applied["response_format"] = form | {"json_schema": schema}
        if SYSTEM in self.omitted and "messages" in applied:
            applied["messages"] = _join_system(applied["messages"])
        if self.limit is None:
            return applied
        return self._rename_limit(applied, self.limit)

    def _rename_limit(self, body: dict[str, Any], limit: str) -> dict[str, Any]:
        """Give a body with its limit under the name that the server accepts."""
        renamed = {name: value for name, value in body.items() if name not in LIMITS}
        for name in LIMITS:
            if name in body:
                renamed.setdefault(limit, body[name])
        return renamed

    def refuse(self, name: str) -> bool:
        """Remember that a setting is refused; tell whether it is left out now.

        A limit is first tried under its other name.
        """
        if name not in LIMITS:
            self.omitted.add(name)
            return True
        self._refused_limits.add(name)
        other = _other_limit(name)
        if other in self._refused_limits:
            self.omitted.update(LIMITS)
        else:
            self.limit = other
        return name in self.omitted

    def ignore_limit(self, name: str) -> None:
        """Remember that an answer was longer than the limit of that name."""
        other = _other_limit(name)
        if other not in self._refused_limits:
            self._refused_limits.add(name)
            self.limit = other


def _join_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the text of the system's message before that of the user's, which follows it."""
    system, user, *rest = messages
    if system["role"] != "system":
        return messages
    return [user | {"content": f"{system['content']}\n\n{user['content']}"}, *rest]


def _other_limit(name: str) -> str:
    return OLD_LIMIT if name == NEW_LIMIT else NEW_LIMIT


_settings: ProcessCache[LearnedSettings] = ProcessCache()


def settings_of(server: str, name: str) -> LearnedSettings:
    """Give what this process has learned about the settings of a server and model."""
    return _settings.get((server, name), partial(_known_settings, server))


def _known_settings(server: str) -> LearnedSettings:
    """Give what is known about a server before its first answer."""
    url = urlsplit(server)
    if url.hostname in OLD_LIMIT_HOSTS or url.port in OLD_LIMIT_PORTS:
        return LearnedSettings(OLD_LIMIT)
    return LearnedSettings()


def sent_body(lm: LM, server: str, request: Request) -> dict[str, Any]:
    """Convert a request into its body, without the settings that its model refuses."""
    return settings_of(server, lm.model).apply(body_of(lm, request))


class Adapting:
    """A model that leaves out settings which the model inside refuses.

    A refused setting is left out, with one warning, and the request is repeated. If the *value* of
    a setting is refused, the user must change it, and the run ends.
    """

    def __init__(
        self, model: Model, *, lm: LM, server: str, warn: Callable[[SettingWarning], None]
    ) -> None:
        self._model = model
        self._lm = lm
        self._settings = settings_of(server, lm.model)
        self._warn = warn

    async def complete(self, request: Request) -> Reply:
        """Answer one turn.

        Raises:
            ModelConfigError: the value of a setting is refused.
        """
        tries = 0
        while True:  # each time with one setting less
            sent = self._settings_sent(request)
            try:
                reply = await self._model.complete(request)
            except ModelRejected as error:
                error.attempts += tries
                self._learn_refusal(error, sent)
                if self._settings_sent(request) == sent:
                    raise
                tries = error.attempts
            else:
                self._settings.accepted.update(sent)
                self._settings.is_answered = True
                self._learn_limit(reply, sent)
                return reply.with_tries(tries)

    def _settings_sent(self, request: Request) -> dict[str, Any]:
        """Give the settings that go with a request."""
        options = options_of(self._lm) | {SYSTEM: True}
        if request.schema is not None:
            options[STRICT] = True
        return self._settings.apply(options)

    def _learn_refusal(self, error: ModelRejected, sent: Mapping[str, Any]) -> None:
        """Learn from a refusal which setting to leave out, or that answers come as streams only.

        Raises:
            ModelConfigError: it is a value that is refused.
        """
        if error.too_long:
            return
        message = str(error)
        if not self._settings.is_answered and self._learn_form(message):
            return
        name = self._find_refused_setting(message, sent)
        if name is None:
            return
        if UNSUPPORTED.search(message):
            is_omitted = self._settings.refuse(name)
            if is_omitted and name != STRICT:
                setting = self._argument(name)
                self._warn(SettingWarning(f"{self._lm.model} refuses {setting}: it is left out."))
        elif name != STRICT and _is_subject(message, name):
            raise self._value_error(error, name) from None

    def _learn_form(self, message: str) -> bool:
        """Learn from a refusal of the first request in which form a model is asked at all."""
        if WANTS_STREAM.search(message):
            self._settings.streams = True
        elif NO_SYSTEM.search(message):
            self._settings.omitted.add(SYSTEM)
        else:
            return False
        return True

    def _find_refused_setting(self, message: str, sent: Mapping[str, Any]) -> str | None:
        """Find the setting that a refusal names first; None if it names none.

        A setting with which a request was answered is not refused: the message is about a row.
        """
        text = _plain(message)
        places: dict[str, int] = {}
        for name in sent:
            if name not in {SYSTEM, *self._settings.accepted} and _names(message, name):
                places[name] = text.find(_plain(name))
        return min(places, key=places.__getitem__, default=None)

    def _value_error(self, error: ModelError, name: str) -> ModelConfigError:
        return ModelConfigError(
            f"{error} Check {self._argument(name)}.",
            status=error.status,
            request_id=error.request_id,
            attempts=error.attempts,
        )

    def _argument(self, name: str) -> str:
        """Give the argument of ``LM`` for a setting."""
        if name in (self._lm.extra_body or {}):
            return f"LM(extra_body={{{name!r}: ...}})"
        if name in LIMITS:
            return "LM(max_output_tokens=...)"
        return f"LM({name}=...)"

    def _learn_limit(self, reply: Reply, sent: Mapping[str, Any]) -> None:
        """Learn from an answer above its limit that the limit has another name here."""
        name = next((limit for limit in LIMITS if limit in sent), None)
        if name is None or not isinstance(sent[name], int) or reply.finish_reason == "length":
            return
        usage = reply.usage
        is_reported = usage.calls == usage.tries == 1 and not usage.estimated
        if is_reported and usage.output_tokens - usage.reasoning_tokens > sent[name]:
            self._settings.ignore_limit(name)


def _names(message: str, name: str) -> bool:
    """Tell whether a refusal names a setting, in whatever spelling.

    A plain word as the name of a user's own setting must stand there as a name.
    """
    if "_" in name or name in {"temperature", "seed"}:
        text, plain = _plain(message), _plain(name)
        for spelling in (plain, *OTHER_NAMES.get(plain, ())):
            if re.search(rf"\b{re.escape(spelling)}\b", text):
                return True
    return _is_subject(message, name)


def _is_subject(message: str, name: str) -> bool:
    """Tell whether a refusal is about a setting, and does not only use its word."""
    text, plain = _plain(message), re.escape(_plain(name))
    patterns = (
        rf"""['"`.\[/(]{plain}['"`\]):]""",
        rf"\b(parameter|argument|field|name|property|body\.):? ?{plain}\b",
        rf"\banswered \d+: {plain}\b",
        rf"\b{plain} (must|should|is|has|out of|exceeds|value)\b",
    )
    return any(re.search(pattern, text) for pattern in patterns)


def refuses_form(message: str) -> bool:
    """Tell whether a refusal is about a setting or a form, by its words alone.

    Example:
        >>> refuses_form("response_format is not supported"), refuses_form("server error")
        (True, False)
    """
    if WANTS_STREAM.search(message) or NO_SYSTEM.search(message):
        return True
    if REFUSES_NAME.search(message):
        return True
    return bool(REFUSES_WORD.search(message)) and not OF_THE_SERVER.search(message)


def _plain(text: str) -> str:
    return text.replace("_", "").lower()
