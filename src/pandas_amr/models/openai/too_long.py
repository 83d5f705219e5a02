"""Tell whether a refusal means that the prompt was too long.

Servers have few codes for it, and dozens of wordings.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas_amr.models.openai.error_bodies import ErrorBody

CODES = frozenset({
    "context_length_exceeded",
    "context_window_exceeded",
    "contextwindowexceedederror",  # LiteLLM
    "exceed_context_size_error",  # llama.cpp
    "tokens_limit_reached",  # GitHub Models
    "request_too_large",  # Anthropic
    "model_context_window_exceeded",
})  # fmt: skip
PARTS = ("messages", "prompt", "input", "contents")

# Each wording with the servers that use it. Wordings about the size of the answer alone are not
# here: a shorter prompt would not help.
READ = (
    r"(prompt|inputs?|request|messages?|text|conversation|content|document|query|payload|body|"
    r"entity|sequence)"
)
WORDINGS = (
    # OpenAI, Azure, DeepSeek, vLLM, llama.cpp, LM Studio, OpenRouter
    r"context[ _-]?(length|window|size|limit)",
    r"maximum context",
    r"exceeds? .{0,60}\bcontext\b",
    r"\bcontext\b.{0,40}(exceed|overflow|too (long|small))",
    r"max(imum)?[ _]model[ _]len(gth)?",  # vLLM
    r"max(imum)? (prompt|input|sequence|message) (length|size|tokens)",  # xAI, SageMaker
    # Anthropic, Bedrock, Mistral, nginx, llama.cpp, GitHub Models
    READ + r"\b[^.]{0,80}\btoo (long|large|big)",
    r"too (long|large|many tokens) (for|to fit)",
    r"too many (input |prompt )?tokens",  # Cohere
    # Gemini, TGI, Together, watsonx
    READ
    + r"`?[^.]{0,60}\btokens?\b[^.]{0,60}"
    + r"(exceed|greater|more than|larger|longer|must be|must have|over the)",
    # DashScope, SageMaker, Ollama
    READ
    + r"('s)? (token )?(length|count|size)[^.]{0,60}"
    + r"(exceed|greater|larger|longer|should be|must be|over the)",
    r"must have (less|fewer) than \d+ tokens",  # TGI
    r"exceed\w*[^.]{0,40}\b(model )?token limit",  # Moonshot
    r"\btoken limit[^.]{0,20}exceeded",
    r"\+ ?`?max_(new_)?tokens`?\)? exceeds?",
    r"tokens in the prompt cannot exceed",  # Cohere
    r"(prompt|input) exceeds? (the )?max",  # Zhipu
    r"range of input length",  # DashScope
    r"reduce (the|your) (length|size) of (the|your) (messages?|prompt|input)",  # Groq
)
SAYS_TOO_LONG = re.compile("|".join(WORDINGS), re.IGNORECASE)
OF_THE_ANSWER = re.compile(
    r"`?'?\bmax_(completion_|output_|new_)?tokens\b.{0,80}"
    r"(too (large|big|high)|exceeds?|must be|at most|greater)|"
    r"\b(completion|output) tokens\b.{0,60}(at most|maximum|exceed)|"
    r"supports? at most \d+ (completion|output) tokens",
    re.IGNORECASE,
)
OF_BOTH = (  # Anthropic
    r"\b(prompt|inputs?)`?( length| tokens?)? ?(\+|and|plus) ?"
    r"`?max_(completion_|output_|new_)?tokens"
)
OF_INPUTS_TOO = re.compile(
    OF_BOTH + r"|inputs?`? tokens? ?\+|in the messages|\bprompt contains\b", re.IGNORECASE
)
# "The request took too long", "context deadline exceeded"
OF_TIME = re.compile(r"\b(took|taking|waited|waiting|time[sd]?[ -]?out|deadline)\b", re.IGNORECASE)
# vLLM: "'max_tokens' is too large: 3000. ... (3000 > 4096 - 2000)": a shorter prompt would fit
ANSWER_ABOVE_REST = re.compile(r"\((?P<answer>\d+) > (?P<limit>\d+) - \d+\)")
# Anthropic says of the input and max_tokens, "... exceed context limit: 190000 + 20000 > 200000"
SUM_ABOVE = re.compile(r"\d+ \+ (?P<answer>\d+) > (?P<limit>\d+)")

# A rate limit for which no waiting helps: a single request is above it.
ONE_IS_TOO_LARGE = re.compile(
    r"\b(request|prompt|input|message)s?\b[^.]{0,20} too (large|long|big)", re.IGNORECASE
)
LIMIT_AND_REQUESTED = re.compile(
    r"limit:?\s*([\d,]+)\b.{0,80}?\brequested:?\s*([\d,]+)", re.IGNORECASE | re.DOTALL
)

NEVER = frozenset({401, 402, 408, 425})
# With these it is seldom meant. A refused key has a token, too, and a limit per minute a size.
SELDOM = frozenset({403, 404, 409, 429})
OF_SIZE = re.compile(r"\b(tokens|characters|context (length|window|size|limit))\b", re.IGNORECASE)
OF_ACCESS = re.compile(
    r"auth|\bkey\b|credential|permission|access|denied|login|signature", re.IGNORECASE
)
OF_A_RATE = re.compile(
    r"\brate\b|rate[ _-]?limit|\bper[ -](second|minute|hour|day)|quota|\b[tr]p[mdh]\b|\bagain\b|"
    r"\bwait\b|too many requests",
    re.IGNORECASE,
)


def is_too_long(status: int, body: ErrorBody) -> bool:
    """Tell whether a refusal means that a shorter prompt would be served.

    A 413 always means so, and a code for it at any status. A 429 means so if a single request is
    above the limit, too. Otherwise the words decide.
    """
    if status == 413 or body.codes & CODES:
        return True
    if status in NEVER:
        return False
    if status == 429 and _is_above_limit(body.message):
        return True
    if status in SELDOM and not _is_about_size(body):
        return False
    is_about_prompt = body.param.startswith(PARTS)
    if body.param and not is_about_prompt and "string too long" in body.message.lower():
        return False
    if "string_above_max_length" in body.codes:
        return is_about_prompt
    return _says_too_long(body.message)


def _is_about_size(body: ErrorBody) -> bool:
    """Tell whether a refusal is about a size, and not about a key's rights or a rate."""
    if body.retry_after_s is not None or not OF_SIZE.search(body.message):
        return False
    return not OF_ACCESS.search(body.message) and not OF_A_RATE.search(body.message)


def _says_too_long(message: str) -> bool:
    if OF_TIME.search(message):
        return False
    sizes = ANSWER_ABOVE_REST.search(message) or SUM_ABOVE.search(message)
    if sizes is not None:
        return int(sizes["answer"]) < int(sizes["limit"])
    if OF_THE_ANSWER.search(message) and not OF_INPUTS_TOO.search(message):
        return False
    return SAYS_TOO_LONG.search(message) is not None


def _is_above_limit(message: str) -> bool:
    numbers = LIMIT_AND_REQUESTED.search(message)
    if numbers is not None:
        limit, requested = (int(number.replace(",", "")) for number in numbers.groups())
        return requested > limit
    return ONE_IS_TOO_LARGE.search(message) is not None
