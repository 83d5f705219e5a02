"""Tokens in and out per row: shards of 1 to 50 rows, rows of 20 to 500 tokens, with the tokenizer o200k_base.

Counted is what is sent (messages, and the schema, which a provider puts into the prompt) and what comes back, against
the row's own tokens and against what people write first: one row per call of the `openai` client, its schema made of a
pydantic model by that client. Nothing is sent: the requests are those that `plan.requests()` shows.

An answer is counted as the prompt asks for it: on one line without spaces if it says so, else as models write JSON if
nobody says how, indented by two; the plain call's as well.

Aims: at most 1.25 times the row's own tokens at 100 tokens a row in shards of 20; at most a plain call's tokens in
shards of one. The second is missed by twelve tokens per row: the fence, the row's column, the line that the row is data
and the line that asks for an answer without spaces take 24 more than a plain call, and the shorter schema and answer
give 12 back. In money it is reached, since answers cost more: `OUTPUT_PRICE` times what is sent.
"""

from __future__ import annotations

import json
from typing import Any, Literal

import pandas as pd
from openai.lib._parsing._completions import type_to_response_format_param
from pydantic import BaseModel

import pandas_amr as amr
from pandas_amr._records.tokens import counter_for

SHARDS = (1, 5, 10, 20, 50)
ROW_TOKENS = (20, 100, 500)
OUTPUT_PRICE = 4  # of a token that comes back, in tokens that are sent: gpt-4o and most others
MESSAGE_TOKENS = 3  # of the marks around each message, as OpenAI counts them
INSTRUCTION = "What is the mood of this review?"
ANSWER = {"mood": "negative"}
WORDS = (
    "The parcel came three days late and the box was open, so I called the shop and nobody knew what had happened. "
    "They said that it would be sent again, but a week went by without any word, and now I want my money back. "
)
count = counter_for("gpt-4o")  # o200k_base


class Review(BaseModel):
    mood: Literal["positive", "negative"]


def text_of(tokens: int, number: int) -> str:
    """A text of so many tokens, another one for each number."""
    words = f"{number}. {WORDS * (tokens // 20 + 1)}".split(" ")
    low = next(size for size in range(1, len(words)) if count(" ".join(words[: size + 1])) > tokens)
    return " ".join(words[:low])


def tokens_in(body: dict[str, Any]) -> int:
    """What a request takes: its messages, and the schema of its answer."""
    messages = sum(count(message["content"]) + MESSAGE_TOKENS for message in body["messages"])
    return messages + count(json.dumps(body["response_format"]["json_schema"], separators=(",", ":")))


def answer_to(body: dict[str, Any], rows: int) -> str:
    """An answer to a request, written as it asks."""
    flat = body["response_format"]["json_schema"]["name"] == "finding"
    answer: Any = ANSWER if flat else {"findings": [{"unit": number, **ANSWER} for number in range(rows)]}
    if "one line" in body["messages"][0]["content"]:
        return json.dumps(answer, separators=(",", ":"))
    return json.dumps(answer, indent=2)


def ours(tokens: int, rows: int) -> tuple[float, float]:
    """Tokens in and out per row, in shards of so many rows."""
    frame = pd.DataFrame({"text": [text_of(tokens, number) for number in range(rows)]})
    lm = amr.LM("gpt-4o", base_url="http://127.0.0.1:9/v1", api_key="none", journaled=False)
    finding = {name: field.annotation for name, field in Review.model_fields.items()}
    plan = frame.amr.plan(
        map=INSTRUCTION,
        finding=finding,
        reduce={"mood": "value_counts"},
        plan={"shard_size": rows, "shard_tokens": 100_000},
        lm=lm,
    )
    (body,) = plan.requests(2)
    return tokens_in(body) / rows, count(answer_to(body, rows)) / rows


def plain(tokens: int) -> tuple[int, int]:
    """Tokens in and out of a plain call."""
    body = {
        "messages": [{"content": INSTRUCTION}, {"content": text_of(tokens, 0)}],
        "response_format": type_to_response_format_param(Review),
    }
    return tokens_in(body), count(json.dumps(ANSWER, indent=2))


def in_money(sent: float, answered: float) -> float:
    """What tokens cost, in tokens that are sent."""
    return sent + OUTPUT_PRICE * answered


def main() -> None:
    print(f"{'row':>5} {'shard':>6} {'in':>8} {'out':>7} {'sum':>8} {'/ row':>7} {'/ plain':>8}")
    for tokens in ROW_TOKENS:
        given, got = plain(tokens)
        print(f"{tokens:>5} {'plain':>6} {given:>8.1f} {got:>7.1f} {given + got:>8.1f} {(given + got) / tokens:>7.2f}")
        for rows in SHARDS:
            sent, answered = ours(tokens, rows)
            total = sent + answered
            ratios = f"{total / tokens:>7.2f} {total / (given + got):>8.2f}"
            print(f"{tokens:>5} {rows:>6} {sent:>8.1f} {answered:>7.1f} {total:>8.1f} {ratios}")
    twenty, alone, once = sum(ours(100, 20)), sum(ours(100, 1)), sum(plain(100))
    paid_alone, paid_once = in_money(*ours(100, 1)), in_money(*plain(100))
    print(f"\n100 tokens a row in shards of 20: {twenty / 100:.2f} of the row's own tokens; aim: at most 1.25")
    print(f"100 tokens a row in shards of one: {alone / once:.2f} of a plain call; aim: at most 1")
    print(f"The same in money: {paid_alone / paid_once:.2f} of a plain call")


if __name__ == "__main__":
    main()
