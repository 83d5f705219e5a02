"""Settings that a model refuses or a server spells otherwise: learned from one refusal, and kept to from then on."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pandas_amr.errors import ModelConfigError, ModelError, ModelRejected, SettingWarning
from pandas_amr.models.lessons import made_once
from pandas_amr.models.openai.body import body_of, options_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pandas_amr.models.base import LM, Model, Reply, Request

NEW_LIMIT, OLD_LIMIT = "max_completion_tokens", "max_tokens"
LIMITS = (
    NEW_LIMIT,
    OLD_LIMIT,
)  # both at once are refused by OpenAI (langchain-ai/langgraph issue 5943) and Volcengine
STRICT = "strict"  # of a schema response

# Servers that are known to take the old name only. The two local ones are known by the port that they come with.
# Mistral answers 422 extra_forbidden (editor-code-assistant/eca issue 231), Ollama ignores the new one (ollama/ollama
# pull 14464), LM Studio was observed to.
OLD_LIMIT_HOSTS = frozenset({"api.mistral.ai", "codestral.mistral.ai"})
OLD_LIMIT_PORTS = frozenset({11434, 1234})

UNSUPPORTED = re.compile(
    r"unsupported|\bnot (yet )?(supported|permitted|allowed|implemented|recogni[sz]ed|available|accepted|used)|"
    r"n[o']t (support|allow|accept|take|recogni[sz]e)|unknown|unrecogni[sz]ed|unexpected|"
    r"extra.?(forbidden|input|field)|no longer|deprecated|only the default|may only|"
    r"cannot|can't|invalid (parameter|argument|field|key)|"
    r"same time|incompatible|cannot find field|no such (field|parameter)",
    re.IGNORECASE,
)
OTHER_NAMES = {
    "reasoningeffort": ("thinking", "reasoning")
}  # Ollama: '"model" does not support thinking'


@dataclass
class Settings:
    """What one server and model have taught of settings, in this process.

    Attributes:
        limit: what the greatest size of an answer is called; None while nothing is known.
        omitted: settings that are left out.
        taken: settings that a request was answered with.
    """

    limit: str | None = None
    omitted: set[str] = field(default_factory=set)
    taken: set[str] = field(default_factory=set)
    _refused_limits: set[str] = field(default_factory=set)

    def applied(self, body: dict[str, Any]) -> dict[str, Any]:
        """A request's body without what the model refuses."""
        kept = {name: value for name, value in body.items() if name not in self.omitted}
        wanted = kept.get("response_format")
        if STRICT in self.omitted and isinstance(wanted, dict) and "json_schema" in wanted:
            schema = {key: value for key, value in wanted["json_schema"].items() if key != STRICT}
            kept["response_format"] = wanted | {"json_schema": schema}
        return self._with_limit(kept) if self.limit is not None else kept

    def _with_limit(self, body: dict[str, Any]) -> dict[str, Any]:
        """A body with the limit under the name that the server takes."""
        assert self.limit is not None
        named = {name: value for name, value in body.items() if name not in LIMITS}
        for name in LIMITS:
            if name in body:
                named.setdefault(self.limit, body[name])
        return named

    def refuse(self, name: str) -> bool:
        """Remember that a setting is refused; whether it is left out now. A limit has another name first."""
        if name not in LIMITS:
            self.omitted.add(name)
            return True
        self._refused_limits.add(name)
        other = OLD_LIMIT if name == NEW_LIMIT else NEW_LIMIT
        if other in self._refused_limits:
            self.omitted.update(LIMITS)
        else:
            self.limit = other
        return name in self.omitted

    def ignore_limit(self, name: str) -> None:
        """Remember that an answer was longer than the limit of that name."""
        other = OLD_LIMIT if name == NEW_LIMIT else NEW_LIMIT
        if other not in self._refused_limits:
            self._refused_limits.add(name)
            self.limit = other


@made_once
def settings_of(server: str, name: str) -> Settings:  # noqa: ARG001 (what it is known by)
    """What a server and model have taught of settings in this process."""
    url = urlsplit(server)
    old = url.hostname in OLD_LIMIT_HOSTS or url.port in OLD_LIMIT_PORTS
    return Settings(OLD_LIMIT if old else None)


def sent_body(lm: LM, server: str, request: Request) -> dict[str, Any]:
    """A request as the protocol spells it, without what its model is known to refuse."""
    return settings_of(server, lm.model).applied(body_of(lm, request))


class Adapting:
    """Answers like the model inside; a setting that it refuses is left out, with one warning, and the request repeated.

    A setting whose *value* is refused is the user's to change: it ends the run.
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
        refused = 0
        while True:  # each time with a setting less
            sent = self._sent(request)
            try:
                reply = await self._model.complete(request)
            except ModelRejected as error:
                error.attempts += refused
                self._learn(error, sent)
                if self._sent(request) == sent:
                    raise
                refused = error.attempts
            else:
                self._settings.taken.update(sent)
                self._learn_limit(reply, sent)
                return replace(reply, usage=replace(reply.usage, tries=reply.usage.tries + refused))

    def _sent(self, request: Request) -> dict[str, Any]:
        """The settings that go with a request."""
        strict = {STRICT: True} if request.schema is not None else {}
        return self._settings.applied(options_of(self._lm) | strict)

    def _learn(self, error: ModelRejected, sent: Mapping[str, Any]) -> None:
        """Learn from a refusal which setting is left out.

        Raises:
            ModelConfigError: it is a value that is refused.
        """
        said = str(error)
        name = None if error.too_long else self._refused_in(said, sent)
        if name is None:
            return
        if UNSUPPORTED.search(said):
            is_omitted = self._settings.refuse(name)
            if is_omitted and name != STRICT:
                self._warn(
                    SettingWarning(
                        f"{self._lm.model} refuses {self._spelled(name)}: it is left out."
                    )
                )
        elif name != STRICT and _is_subject(said, name):
            raise self._of_value(error, name) from None

    def _refused_in(self, said: str, sent: Mapping[str, Any]) -> str | None:
        """The setting that a refusal names first; None if it names none.

        A setting with which a request was answered is not refused: then it is a row that speaks of it.
        """
        named = [name for name in sent if name not in self._settings.taken and _names(said, name)]
        text = _plain(said)
        places = {name: text.find(_plain(name)) for name in named}
        return min(named, key=places.__getitem__, default=None)

    def _of_value(self, error: ModelError, name: str) -> ModelConfigError:
        said = f"{error} Check {self._spelled(name)}."
        known: dict[str, Any] = {
            "status": error.status,
            "request_id": error.request_id,
            "attempts": error.attempts,
        }
        return ModelConfigError(said, **known)

    def _spelled(self, name: str) -> str:
        """A setting as the user gave it."""
        if name in (self._lm.extra_body or {}):
            return f"LM(extra_body={{{name!r}: ...}})"
        return f"LM({'max_output_tokens' if name in LIMITS else name}=...)"

    def _learn_limit(self, reply: Reply, sent: Mapping[str, Any]) -> None:
        """Learn from an answer that is longer than it may be that the limit has another name here."""
        name = next((one for one in LIMITS if one in sent), None)
        usage = reply.usage
        is_told = usage.calls == usage.tries == 1 and not usage.estimated
        if (
            name is None
            or not is_told
            or reply.finish_reason == "length"
            or not isinstance(sent[name], int)
        ):
            return
        if usage.output_tokens - usage.reasoning_tokens > sent[name]:
            self._settings.ignore_limit(name)


def _names(said: str, name: str) -> bool:
    """Whether a refusal names a setting, however it spells it; a plain word of the user's own only as a name."""
    plain, text = _plain(name), _plain(said)
    known = "_" in name or name in {"temperature", "seed"}
    if known and any(
        re.search(rf"\b{re.escape(one)}\b", text) for one in (plain, *OTHER_NAMES.get(plain, ()))
    ):
        return True
    return _is_subject(said, name)


def _is_subject(said: str, name: str) -> bool:
    """Whether a refusal is of a setting, and does not only use its word."""
    text, plain = _plain(said), re.escape(_plain(name))
    forms = (
        rf"""['"`.\[/(]{plain}['"`\]):]""",
        rf"\b(parameter|argument|field|name|property|body\.):? ?{plain}\b",
        rf"\banswered \d+: {plain}\b",
        rf"\b{plain} (must|should|is|has|out of|exceeds|value)\b",
    )
    return any(re.search(form, text) for form in forms)


def _plain(text: str) -> str:
    return text.replace("_", "").lower()
