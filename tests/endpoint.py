"""A provider's chat-completions endpoint, with a sensible model behind it: what profiles of real ones change a part of.

It enforces its rules, and counts what it is asked and what it bills.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pandas_amr as amr
from pandas_amr.testing import Call, ScriptedRequest
from sensible import FLAGGED, IN_WORDS, Turn, payload_of, sensible, texts_of, units_of
from strict import strict_problem
from wire import Answer, Asked, Line, Wire

KEY = "key-of-a-profile"
CHARACTERS_PER_TOKEN = 4
SORRY = "I cannot help with that."


@dataclass(frozen=True)
class Paid:
    """What a server bills: answers, and tokens of prompts and answers with their reasoning."""

    answers: int = 0
    tokens: int = 0


class Endpoint(Wire):
    """A server that takes what the protocol says.

    Args:
        busy: the numbers of the requests that are answered 429.
        window: most tokens of a prompt.

    Attributes:
        model: the one model that it serves.
        path: where its API is.
        settings: of ``LM``, as a user of this provider would give them.
        lessons: how many things about it only a refusal tells, or an answer that is no use; each costs a request.
        omits: the settings that it refuses, and that are left out with a warning.
        extra: requests that its odd answers cost in one run, beside the lessons.
        tells_usage: whether its answers tell their tokens.
        checks_key: whether it wants the right key.
        strict: whether it enforces the rules for strict schemas.
        follows_schema: whether it makes its model keep to a schema that is given as ``response_format``.
        tells_refusals: whether it tells in its protocol that it will not have a text, and not only in words.
        reasoning: tokens of reasoning before an answer.
        paid: what it has billed.
        refused: how many requests it has answered 429.
    """

    model: ClassVar[str] = "some-model"
    path: ClassVar[str] = "/v1"
    settings: ClassVar[dict[str, Any]] = {}
    lessons: ClassVar[int] = 0
    omits: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[int] = 0
    tells_usage: ClassVar[bool] = True
    checks_key: ClassVar[bool] = True
    strict: ClassVar[bool] = False
    follows_schema: ClassVar[bool] = True
    tells_refusals: ClassVar[bool] = False
    reasoning: ClassVar[int] = 0

    def __init__(self, *, busy: Collection[int] = (), window: int = 10**9) -> None:
        super().__init__()
        self.busy = frozenset(busy)
        self.window = window
        self.paid = Paid()
        self.refused = 0

    def lm(self, model: str | None = None, *, key: str = KEY, **options: Any) -> amr.LM:
        """The ``LM`` of one who uses it."""
        given = {"base_url": self.address + self.path, "api_key": key, "journaled": False} | self.settings
        return amr.LM(model or self.model, **(given | options))

    @property
    def schemas(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The schemas that answers were asked to follow, each with its name; a user's own tools are not among them."""
        for asked in self.requests:
            body = asked.body
            wanted = body.get("response_format", {}).get("json_schema")
            if wanted is not None:
                yield wanted["name"], wanted["schema"]
            for tool in body.get("tools", ()):
                if tool["function"]["name"].startswith("submit_"):
                    yield tool["function"]["name"], tool["function"]["parameters"]

    # -- requests that it does not take ------------------------------------------------------------------------------

    async def answer(self, asked: Asked, line: Line) -> None:
        """Answer one request."""
        request = ScriptedRequest(asked.number, asked.body, asked.headers)
        await self.send(line, self.fault(asked, request) or self.completion(request))

    async def send(self, line: Line, answer: Answer) -> None:
        """Send an answer, as this provider does."""
        await line.send(answer)

    def fault(self, asked: Asked, request: ScriptedRequest) -> Answer | None:
        """The error that this request is answered with, if it is; in the order in which servers look."""
        if self.checks_key and not self.has_key(asked):
            return self.bad_key()
        if request.body.get("model") != self.model:
            return self.unknown_model(str(request.body.get("model")))
        if asked.number in self.busy:
            self.refused += 1
            return self.too_many()
        return (
            self.body_fault(request.body)
            or self.schema_fault(request)
            or self.conversation_fault(request.messages)
            or (self.too_long(tokens_of(request.messages)) if tokens_of(request.messages) > self.window else None)
            or (self.flagged() if is_flagged(request) else None)
        )

    def has_key(self, asked: Asked) -> bool:
        """Whether a request comes with the right key."""
        return asked.headers.get("authorization") == f"Bearer {KEY}"

    def body_fault(self, body: Mapping[str, Any]) -> Answer | None:
        """What is wrong with the body's keys."""
        del body
        return None

    def schema_fault(self, request: ScriptedRequest) -> Answer | None:
        """What is wrong with the schema that is asked for."""
        wanted = request.body.get("response_format", {}).get("json_schema", {})
        if not self.strict or not wanted.get("strict"):
            return None
        problem = strict_problem(wanted["schema"], wanted["name"])
        return self.error(400, problem, param="response_format") if problem else None

    def conversation_fault(self, messages: list[dict[str, Any]]) -> Answer | None:
        """What is wrong with the turns: each call has its answer (https://github.com/langgenius/dify/issues/32222)."""
        for place, message in enumerate(messages):
            wanted = {call["id"] for call in message.get("tool_calls") or ()}
            answered = set()
            for later in messages[place + 1 :]:
                if later["role"] != "tool":
                    break
                answered.add(later["tool_call_id"])
            if wanted - answered:
                return self.error(
                    400,
                    "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                    f"'tool_call_id'. The following tool_call_ids did not have response messages: {sorted(wanted)}",
                )
        return None

    def error(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """An error, in this provider's form."""
        body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        return Answer(status, body, headers or {})

    def bad_key(self) -> Answer:
        """What a wrong key is answered with."""
        return self.error(401, "Incorrect API key provided.", code="invalid_api_key")

    def unknown_model(self, model: str) -> Answer:
        """What a model that it does not serve is answered with."""
        return self.error(404, f"The model `{model}` does not exist or you do not have access to it.")

    def too_many(self) -> Answer:
        """What is answered where a request is one too many."""
        return self.error(429, "Rate limit reached", code="rate_limit_exceeded", headers={"retry-after-ms": "30"})

    def too_long(self, tokens: int) -> Answer:
        """What a prompt of so many tokens is answered with, if the window does not hold it."""
        said = f"This model's maximum context length is {self.window} tokens. However, your messages resulted in {tokens} tokens."
        return self.error(400, said, code="context_length_exceeded", param="messages")

    def flagged(self) -> Answer | None:
        """The error that a text is answered with that this provider will not have; None if its model declines."""
        return None

    # -- answers -----------------------------------------------------------------------------------------------------

    def completion(self, request: ScriptedRequest) -> Answer:
        """The answer of the model, billed."""
        turn = self.declined() if is_flagged(request) else self.turn(request)
        message = self.message(request, turn)
        reason = self.finish_reason(message)
        prompt = tokens_of(request.messages)
        output = tokens_of(message.get("content") or message.get("tool_calls") or "")
        self.paid = Paid(self.paid.answers + 1, self.paid.tokens + prompt + output + self.reasoning)
        body = {
            "id": f"chatcmpl-{request.number}",
            "object": "chat.completion",
            "created": 1_760_000_000,
            "model": self.model,
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": self.usage(prompt, output) if self.tells_usage else None,
        }
        return Answer(200, body, self.headers())

    def turn(self, request: ScriptedRequest) -> Turn:
        """What the model says."""
        turn = sensible(request)
        given = request.body.get("response_format", {}).get("type")
        if turn.payload is not None and given and not self.follows_schema and not asks_for_json(request):
            return Turn(text=in_prose(payload_of(request)))
        return turn

    def declined(self) -> Turn:
        """What the model says to a text that it will not have."""
        return Turn(text=SORRY)

    def message(self, request: ScriptedRequest, turn: Turn) -> dict[str, Any]:
        """The assistant's message."""
        if turn.calls:
            return {"role": "assistant", "content": None, "tool_calls": spelled(request, turn.calls)}
        text = turn.text if turn.payload is None else json.dumps(turn.payload)
        return {"role": "assistant", "content": text}

    def finish_reason(self, message: Mapping[str, Any]) -> str:
        """Why the answer ends."""
        return "tool_calls" if message.get("tool_calls") else "stop"

    def usage(self, prompt: int, output: int) -> dict[str, Any]:
        """What it tells of the tokens; reasoning is among those of the answer."""
        return {
            "prompt_tokens": prompt,
            "completion_tokens": output + self.reasoning,
            "total_tokens": prompt + output + self.reasoning,
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }

    def headers(self) -> dict[str, str]:
        """The headers of an answer."""
        return {}


def spelled(request: ScriptedRequest, calls: tuple[Call, ...]) -> list[dict[str, Any]]:
    """Calls as the protocol spells them."""
    spelled_calls = []
    for number, call in enumerate(calls):
        arguments = call.arguments if isinstance(call.arguments, str) else json.dumps(dict(call.arguments))
        function = {"name": call.name, "arguments": arguments}
        spelled_calls.append({"id": f"call_{request.number}_{number}", "type": "function", "function": function})
    return spelled_calls


def one_each(turn: Turn) -> Turn:
    """The same turn, with a call of its own for each finding that it hands in."""
    calls: list[Call] = []
    for call in turn.calls:
        found = call.arguments.get("findings") if isinstance(call.arguments, Mapping) else None
        calls += [Call(call.name, {"findings": [one]}) for one in found] if found else [call]
    return replace(turn, calls=tuple(calls))


def asks_for_json(request: ScriptedRequest) -> bool:
    """Whether the words of the prompt give a schema."""
    return any(IN_WORDS in text for text in texts_of(request))


def in_prose(payload: Mapping[str, Any]) -> str:
    """An answer as a model words it that was not made to keep to a schema."""
    parts = [f"{name} is {value}" for name, value in payload.items() if not isinstance(value, list)]
    parts += [f"unit {one['unit']} is number {one.get('n')}" for one in payload.get("findings", ())]
    return f"Here is what I found: {'; '.join(parts)}. Shall I go on?"


def is_flagged(request: ScriptedRequest) -> bool:
    """Whether a provider would not have this text."""
    return any(FLAGGED in unit.get("text", "") for unit in units_of(request))


def tokens_of(value: Any) -> int:
    """The tokens of a part of the protocol."""
    return len(json.dumps(value)) // CHARACTERS_PER_TOKEN + 1
