"""What an answer took, as the service tells it; what it does not tell is estimated, and marked so."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from pandas_amr._records.tokens import per_character
from pandas_amr._records.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr.models.base import Request

WRITTEN = ("content", "refusal", "reasoning_content", "tool_calls")


def usage_of(
    answer: Any, request: Request, model: str, seconds: float, *, cost: float | None = None
) -> Usage:
    """The usage of one answered request; ``cost`` is what a gateway says that it cost.

    A count that is missing, negative or no number is unknown, never 0: it is estimated by length. Where the total is
    more than its parts (reasoning that is counted outside of them), the total is believed.
    """
    given = answer.get("usage") if isinstance(answer, dict) else None
    counts = given if isinstance(given, dict) else {}
    prompt, output = _count(counts, "prompt_tokens"), _count(counts, "completion_tokens")
    total = _count(counts, "total_tokens") or 0
    reasoning = _count(counts.get("completion_tokens_details"), "reasoning_tokens") or 0
    if output == 0 and _characters_of(answer, ("content", "tool_calls")):
        output = None
    is_told = bool(prompt) and output is not None
    if not prompt:  # no request is without a token
        known = total - output if output is not None else 0
        prompt = known if known > 0 else _estimated(_asked_characters(request), model)
    if output is None:
        output = (
            total - prompt if total > prompt else _estimated(_characters_of(answer, WRITTEN), model)
        )
    outside = max(0, total - prompt - output)
    cached = _count(counts.get("prompt_tokens_details"), "cached_tokens") or 0
    return Usage(
        calls=1,
        tries=1,
        input_tokens=prompt,
        cached_tokens=min(cached, prompt),
        output_tokens=output + outside,
        reasoning_tokens=min(max(reasoning, outside), output + outside),
        seconds=seconds,
        estimated=0 if is_told else 1,
        money=cost or 0.0,
        billed=0 if cost is None else 1,
    )


def _count(counts: Any, name: str) -> int | None:
    """A count as the service tells it; None if it is none."""
    value = counts.get(name) if isinstance(counts, dict) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _estimated(characters: int, model: str) -> int:
    return math.ceil(characters * per_character(model))


def _asked_characters(request: Request) -> int:
    messages = sum(len(message.content or "") for message in request.messages)
    calls = sum(len(call.arguments) for message in request.messages for call in message.tool_calls)
    tools = sum(
        len(json.dumps(dict(tool.parameters))) + len(tool.description) for tool in request.tools
    )
    schema = len(json.dumps(dict(request.schema.schema))) if request.schema is not None else 0
    return messages + calls + tools + schema


def _characters_of(answer: Any, parts: Sequence[str]) -> int:
    """The characters of what a model has written into some parts of its messages, whatever form it has."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    written = 0
    for choice in choices if isinstance(choices, list) else ():
        message = choice.get("message") if isinstance(choice, dict) else None
        if isinstance(message, dict):
            said = [message.get(name) for name in parts]
            written += sum(
                len(one if isinstance(one, str) else json.dumps(one)) for one in said if one
            )
    return written
