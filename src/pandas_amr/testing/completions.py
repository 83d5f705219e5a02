"""Write chat completions from the answers of a script."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from pandas_amr.testing.answers import Call, Raw

if TYPE_CHECKING:
    from pandas_amr.testing.request import ScriptedRequest

CHARACTERS_PER_TOKEN = 4


class CompletionWriter:
    """Writes the bodies of chat completions, and counts their tokens.

    Attributes:
        tokens: the tokens of all prompts and answers so far, estimated by length.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._systems: set[str] = set()

    def write(self, request: ScriptedRequest, answer: Any) -> dict[str, Any]:
        """Return the body of the answer to a request.

        Raises:
            TypeError: a script cannot answer so.
        """
        message, finish_reason = _choice(request, answer)
        usage = self._usage(request, message)
        self.tokens += usage["total_tokens"]
        if isinstance(answer, Raw) and answer.usage is not ...:
            usage = answer.usage
        return {
            "id": f"scripted-{request.number}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": request.body.get("model", "scripted"),
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
            "usage": usage,
        }

    def _usage(self, request: ScriptedRequest, message: dict[str, Any]) -> dict[str, Any]:
        prompt = sum(len(str(part.get("content") or "")) for part in request.messages)
        answer = json.dumps(message.get("content") or message.get("tool_calls") or "")
        prompt_tokens = prompt // CHARACTERS_PER_TOKEN
        answer_tokens = len(answer) // CHARACTERS_PER_TOKEN
        cached_tokens = 0
        if request.system in self._systems:  # the prompt cache of a provider knows the prefix
            cached_tokens = len(request.system) // CHARACTERS_PER_TOKEN
        self._systems.add(request.system)
        return {
            "prompt_tokens_details": {"cached_tokens": cached_tokens},
            "prompt_tokens": prompt_tokens,
            "completion_tokens": answer_tokens,
            "total_tokens": prompt_tokens + answer_tokens,
        }


def _choice(request: ScriptedRequest, answer: Any) -> tuple[dict[str, Any], str]:
    """Return the message and the finish reason of an answer."""
    message: dict[str, Any] = {"role": "assistant", "content": None}
    match answer:
        case Raw():
            message |= {"content": answer.text, "refusal": answer.refusal}
            return message, answer.finish_reason
        case str():
            message["content"] = answer
        case dict() if request.tools and request.schema:
            message["tool_calls"] = _tool_calls([Call(f"submit_{request.schema}", answer)])
        case dict():
            message["content"] = json.dumps(answer)
        case Call():
            message["tool_calls"] = _tool_calls([answer])
        case list():
            message["tool_calls"] = _tool_calls(answer)
        case _:
            raise TypeError(f"A script cannot answer with {answer!r}.")
    return message, "tool_calls" if message.get("tool_calls") else "stop"


def _tool_calls(calls: list[Call]) -> list[dict[str, Any]]:
    encoded = []
    for number, call in enumerate(calls):
        arguments = call.arguments
        if not isinstance(arguments, str):
            arguments = json.dumps(dict(arguments))
        function = {"name": call.name, "arguments": arguments}
        encoded.append({"id": f"call-{number}", "type": "function", "function": function})
    return encoded
