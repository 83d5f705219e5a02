"""The usage of an answer, as the service reports it; what is missing is estimated and marked so."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from pandas_amr._records.json_fields import get_field, get_list
from pandas_amr._records.tokens import tokens_per_character
from pandas_amr._records.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr.models.base import Request

# Anthropic's and the Responses API's names, which gateways pass on.
OTHER_PROMPT, OTHER_OUTPUT = "input_tokens", "output_tokens"
# Anthropic counts these outside of its input tokens.
BESIDE_INPUT = ("cache_read_input_tokens", "cache_creation_input_tokens")
# Cached tokens that do not stand among the details: DeepSeek, Moonshot, Anthropic.
CACHED = ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens")
PROMPT_DETAILS = ("prompt_tokens_details", "input_tokens_details")
OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details")
TICKS_PER_USD = 1e10  # xAI
ANSWER_PARTS = ("content", "tool_calls")
WRITTEN_PARTS = ("content", "refusal", "reasoning_content", "tool_calls")
# Ten times the largest context window there is. Above it, one answer would set all later estimates.
MOST_TOKENS = 100_000_000
MOST_MONEY = 10_000.0  # likewise: no answer costs so much


def usage_of(
    answer: object, request: Request, model: str, seconds: float, *, cost: float | None = None
) -> Usage:
    """Give the usage of one answered request.

    A count that is missing, negative, not a number, or more than any model takes is unknown, never
    0: it is estimated by length. If the total is more than its parts, the rest is reasoning that
    was not counted.

    Args:
        answer: the decoded body of the answer.
        request: what was sent.
        model: the model's name, for its tokens per character.
        seconds: how long the answer took.
        cost: its money, as a gateway's headers report it; None if they do not.
    """
    counts = get_field(answer, "usage")
    prompt, output, is_estimated = _prompt_and_output(counts, answer, request, model)
    total = _count(counts, "total_tokens") or 0
    uncounted = max(0, total - prompt - output)
    output += uncounted
    reasoning = _detail(counts, OUTPUT_DETAILS, "reasoning_tokens")
    cached = _detail(counts, PROMPT_DETAILS, "cached_tokens")
    cached = cached or max(_count(counts, name) or 0 for name in CACHED)
    if cost is None:
        cost = _told_cost(counts)
    return Usage(
        calls=1,
        tries=1,
        input_tokens=prompt,
        cached_tokens=min(cached, prompt),
        output_tokens=output,
        reasoning_tokens=min(max(reasoning, uncounted), output),
        seconds=seconds,
        estimated=int(is_estimated),
        money=cost or 0.0,
        billed=int(cost is not None),
    )


def _prompt_and_output(
    counts: object, answer: object, request: Request, model: str
) -> tuple[int, int, bool]:
    """Give the tokens of prompt and output, and whether one of them is an estimate."""
    prompt = _prompt_count(counts)
    output = _count(counts, "completion_tokens")
    if output is None:
        output = _count(counts, OTHER_OUTPUT)
    total = _count(counts, "total_tokens") or 0
    if output == 0 and _written_characters(answer, ANSWER_PARTS):
        output = None
    is_estimated = not prompt or output is None
    if not prompt:  # every request has tokens
        prompt = 0 if output is None else total - output
        if prompt <= 0:
            prompt = _estimate_tokens(_request_characters(request), model)
    if output is None:
        output = total - prompt
        if output <= 0:
            output = _estimate_tokens(_written_characters(answer, WRITTEN_PARTS), model)
    return prompt, output, is_estimated


def _told_cost(counts: object) -> float | None:
    """Give the money that an answer states (OpenRouter, Perplexity, xAI); None if it states none.

    OpenRouter states its own fee, or 0, for what is charged to the user's own key elsewhere.
    """
    cost, divisor = get_field(counts, "cost_in_usd_ticks"), TICKS_PER_USD
    if cost is None:
        cost, divisor = get_field(counts, "cost"), 1.0
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    is_number = isinstance(cost, int | float) and not isinstance(cost, bool)
    if not is_number or get_field(counts, "is_byok") is True:
        return None
    return cost / divisor if 0 < cost < MOST_MONEY * divisor else None


def _prompt_count(counts: object) -> int | None:
    """Read the tokens of the prompt; None if there is no count."""
    prompt = _count(counts, "prompt_tokens")
    if not prompt:
        prompt = _count(counts, OTHER_PROMPT)
        if prompt is not None:
            prompt += sum(_count(counts, name) or 0 for name in BESIDE_INPUT)
    return prompt


def _count(counts: object, name: str) -> int | None:
    """Read a count; None if there is none."""
    value = get_field(counts, name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_TOKENS:
        return None
    return value


def _detail(counts: object, groups: Sequence[str], name: str) -> int:
    """Read a count in a group of details, whichever there is; 0 if there is none."""
    return max(_count(get_field(counts, group), name) or 0 for group in groups)


def _estimate_tokens(characters: int, model: str) -> int:
    return math.ceil(characters * tokens_per_character(model))


def _request_characters(request: Request) -> int:
    characters = 0
    for message in request.messages:
        characters += len(message.content or "")
        for call in message.tool_calls:
            characters += len(call.arguments)
    for tool in request.tools:
        characters += len(json.dumps(dict(tool.parameters))) + len(tool.description)
    if request.schema is not None:
        characters += len(request.schema.text)
    return characters


def _written_characters(answer: object, parts: Sequence[str]) -> int:
    """Count the characters of some parts of the messages of an answer, in whatever form."""
    characters = 0
    for choice in get_list(get_field(answer, "choices")):
        message = get_field(choice, "message")
        for name in parts:
            content = get_field(message, name)
            if isinstance(content, str):
                characters += len(content)
            elif content:
                characters += len(json.dumps(content))
    return characters
