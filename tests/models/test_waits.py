"""Nothing hangs, no wait is silent, no limit is mis-learned, and no outage fails rows."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import json
import logging
import math
import random
import socket
import subprocess
import sys
import time
from email.utils import formatdate

import pandas as pd
import pytest

import pandas_amr as amr
from moments import move_on, move_on_until, until
from numbered import provider
from numbered import rows as frame
from pandas_amr._records.clock import CLOCK
from pandas_amr._records.usage import Usage
from pandas_amr.errors import ModelUnavailable
from pandas_amr.models.base import Message, RateLimits, Reply, Request
from pandas_amr.models.first_requests import note_sent
from pandas_amr.models.openai.error_bodies import delay_in, read_error_body
from pandas_amr.models.openai.failures import Failures
from pandas_amr.models.openai.headers import limits_of, reset_of, retry_after_of, seconds_of
from pandas_amr.models.structured.model import Structured
from pandas_amr.models.throttle.pace import LONGEST_PACE_S
from pandas_amr.models.throttle.patience import measure_wait
from pandas_amr.models.throttle.throttle import Throttle
from pandas_amr.testing import Raw, ScriptedServer, Status, findings
from ports import closed_port
from versions import once
from wire import Play

pytestmark = once

ONE_BY_ONE = {"map": "Which?", "finding": {"n": int}, "reduce": {"n": "sum"}, "plan": {"shard_size": 1}}
stops = pytest.mark.filterwarnings("ignore:The run stopped early:pandas_amr.FailureWarning")


def then(answer, *, after: int):
    """A script that answers so many requests well, and all after them like this."""
    return lambda request: provider(request) if request.number < after else answer


# A server that writes bytes as it likes

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
ANSWER = json.dumps({
    "choices": [{"message": {"role": "assistant", "content": '{"findings": [{"unit": 0, "n": 7}]}'}}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 9},
}).encode()  # fmt: skip
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER


def dribbled(data: bytes):
    for byte in data:
        yield bytes([byte])
        yield 0.05


def never_ending(begin: bytes, piece: bytes):
    yield begin
    while True:
        yield piece
        yield 0.05


DRIBBLES = {
    "nothing": lambda: never_ending(b"", b""),
    "headers": lambda: never_ending(b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n"),
    "a header": lambda: dribbled(b"HTTP/1.1 200 OK\r\nx-long: " + b"a" * 10_000),
    "the body": lambda: dribbled(WHOLE),
    "white space": lambda: never_ending(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n\n\r\n"),
}


@pytest.mark.parametrize("kind", DRIBBLES)
@pytest.mark.sampled(3)
def test_what_dribbles_in_does_not_extend_the_time_of_a_request(kind):
    with Play(lambda asked: DRIBBLES[kind]()) as server:
        lm = amr.LM("m", base_url=server.base_url, api_key="k", timeout_s=0.4, max_tries=1)
        result = frame(1).amr.map_reduce(**ONE_BY_ONE, lm=lm)
    assert result.failures["reason"].tolist() == ["No answer within 0.4 s (LM(timeout_s=...))."]


@pytest.mark.parametrize("kind", DRIBBLES)
def test_a_request_that_took_too_long_is_sent_again(kind, monkeypatch):
    monkeypatch.setattr("pandas_amr.models.retry.FIRST_WAIT_S", 0.01)
    with Play(lambda asked: DRIBBLES[kind]() if asked.number == 0 else [WHOLE]) as server:
        lm = amr.LM("m", base_url=server.base_url, api_key="k", timeout_s=1.0)
        result = frame(1).amr.map_reduce(**ONE_BY_ONE, lm=lm)
        assert result.output["n"] == 7
        assert result.total.tries == len(server.requests) == 2


# What a server asks to wait

NOW = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "20"}, 20),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "2m59.56s"}, 179.56),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"x-ms-retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "-1", "retry-after": "3"}, 3),
        ({"retry-after": "Wed, 21 Oct 2026 07:29:30 GMT", "date": NOW}, 90),
        ({"retry-after": "Wednesday, 21-Oct-26 07:29:30 GMT", "date": NOW}, 90),  # RFC 850: obsolete
        ({"retry-after": "Wed Oct 21 07:29:30 2026", "date": NOW}, 90),
        ({"retry-after": "2026-10-21T07:29:30Z", "date": NOW}, 90),
        ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT", "date": NOW}, None),
        ({"retry-after": "Wed, 99 Oct 2026 07:27:00 GMT", "date": NOW}, None),
        *(({"retry-after": text}, None) for text in ("-5", "nan", "inf", "-inf", "", "soon", "1.2.3", "1e999", "0x10")),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "1, 1"}, 1),  # it came twice
        ({"retry-after": "2, soon, 30"}, 30),
        ({"retry-after": "1 second"}, 1),
        ({"retry-after": "2 minutes and 5 Seconds"}, 125),
        ({"x-ratelimit-reset": "60"}, None),  # it does not ask for that
        ({}, None),
    ],
)
def test_what_a_server_asks_to_wait_is_read_from_its_headers(headers, seconds):
    assert retry_after_of(headers) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"ratelimit-reset": "30"}, 30),
        ({"ratelimit-reset": "30, 30", "ratelimit-remaining": "0"}, 30),
        ({"x-ratelimit-reset": "Wed, 21 Oct 2026 07:29:30 GMT", "date": NOW}, 90),
        ({"x-ratelimit-reset": "1000000000"}, None),  # past
        ({"x-rate-limit-reset": "12s"}, 12),
        ({"x-ratelimit-reset-after": "1.5", "x-ratelimit-reset": "60"}, 1.5),
        ({"ratelimit": "limit=100, remaining=0, reset=30"}, 30),
        ({"ratelimit": "limit=100;w=60, remaining=0, reset=30"}, 30),
        ({"ratelimit": '"default";r=0;t=30'}, 30),
        ({"ratelimit": '"second";r=0;t=1, "day";r=500;t=40000'}, 1),
        ({"ratelimit": '"default";r=0'}, None),
        # The limit is not used up: the 429 has another reason.
        ({"ratelimit-reset": "3000", "ratelimit-remaining": "57"}, None),
        ({"ratelimit": "limit=100, remaining=57, reset=3000"}, None),
        ({}, None),
    ],
)
def test_when_a_limit_is_there_again_is_read_from_its_headers(headers, seconds):
    assert reset_of(headers) == (None if seconds is None else pytest.approx(seconds))


def test_a_reset_is_what_a_429_asks_to_wait_and_no_other_failure():
    told = {"x-ratelimit-reset": "60", "x-ratelimit-remaining": "0"}
    waits_s = [meaning(status, "Slow down", told).retry_after_s for status in (429, 500, 503)]
    assert waits_s == [60, None, None]
    assert meaning(429, "Please try again in 7s", told).retry_after_s == 7
    assert meaning(429, "Slow down", told | {"retry-after": "3"}).retry_after_s == 3


def test_a_date_is_laid_beside_our_clock_where_the_server_tells_no_time():
    assert retry_after_of({"retry-after": formatdate(time.time() + 600, usegmt=True)}) == pytest.approx(600, abs=60)
    assert retry_after_of({"retry-after": f"{time.time() + 600:.0f}"}) == pytest.approx(600, abs=60)


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached for gpt-4o. Please try again in 6m0s. Visit https://x/account/limits", 360),
        ("Limit 500 / min. Please try again in 20ms.", 0.02),
        ("Please try again in 1.2s.", 1.2),
        ("Please try again in 7m12s. Need more tokens?", 432),
        ("Please try again in 1h2m3.5s", 3723.5),
        ("Requests to the API have exceeded the limit. Please retry after 55 seconds.", 55),
        ("Please retry in 34.074824224s.", 34.074824224),
        ("Please wait 20 seconds and try again.", 20),
        ("It resets in 3 hours and 20 minutes.", 12_000),
        ("Try again in 2 days", 172_800),
        ("Try again in -5s", None),
        ("Try again in 1.2.3s", None),
        ("Try again later. The limit is 30 seconds of audio.", None),
        ("Limit 30000, Requested 100.", None),
        ("", None),
    ],
)
def test_what_a_server_asks_to_wait_is_read_from_its_sentence(message, seconds):
    assert delay_in(message) == (None if seconds is None else pytest.approx(seconds))


GEMINI_DETAILS = [
    {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": "PerMinute"}]},
    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"},
]


@pytest.mark.parametrize(
    ("body", "message", "code", "status", "wait_s"),
    [
        ({"message": "no", "code": "a", "type": "b"}, "no", "a", None, None),
        ({"error": {"message": "no", "type": "A"}}, "no", "a", None, None),
        ({"error": "no such model"}, "no such model", None, None, None),
        (
            {"object": "error", "message": "no", "type": "BadRequestError", "code": 400},
            "no",
            "badrequesterror",
            400,
            None,
        ),
        ({"detail": [{"loc": ["body"], "msg": "field required"}]}, "body: field required", None, None, None),
        ({"detail": "Not Found"}, "Not Found", None, None, None),
        ({"Message": "no"}, "no", None, None, None),
        ({"message": {"detail": [{"msg": "no", "type": "x"}]}}, "no", "x", None, None),
        (
            [{"error": {"code": 429, "message": "Slow.", "status": "RESOURCE_EXHAUSTED", "details": GEMINI_DETAILS}}],
            "Slow.",
            "resource_exhausted",
            429,
            34,
        ),
        (
            {
                "error": {
                    "message": "Provider returned error",
                    "code": 400,
                    "metadata": {"raw": '{"error": {"message": "prompt is too long", "type": "x"}}'},
                }
            },
            "Provider returned error prompt is too long",
            "x",
            400,
            None,
        ),
        ("litellm.X: Y - {'a': 1}", "litellm.X: Y - {'a': 1}", None, None, None),
        ('litellm.X: Y - {"error": {"message": "no", "code": "c"}}', "litellm.X: Y - no", "c", None, None),
        ("<html><head><title>413 Too Large</title></head><body>x</body></html>", "413 Too Large", None, None, None),
        ("<html><body><h1>502 Bad Gateway</h1></body></html>", "502 Bad Gateway", None, None, None),
        ("plain words", "plain words", None, None, None),
        (None, "", None, None, None),
        (["[" * 50_000], None, None, None, None),
        ("[" * 50_000, None, None, None, None),
        ({"error": {"error": {"error": {"message": "deep"}}}}, "deep", None, None, None),
        ({"message": 7, "code": True}, "", None, None, None),
    ],
)
def test_an_errors_body_is_read_whatever_its_shape(body, message, code, status, wait_s):
    read = read_error_body(body)
    assert message is None or read.message == message
    assert code is None or code in read.codes
    assert read.status == status
    assert read.retry_after_s == wait_s


def meaning(status, body, headers=None):
    """What a server's refusal means to us."""
    failures = Failures(amr.LM("m"), "host", lambda: ("key",))
    return failures.status_error(status, read_error_body(body), headers or {})


@pytest.mark.parametrize("status", [400, 429, 403])
@pytest.mark.parametrize(
    "body",
    [
        {"message": "You exceeded your current quota, please check your plan.", "code": "insufficient_quota"},
        {"message": "no", "type": "insufficient_quota", "code": None},
        [{"error": {"message": "no", "code": "billing_not_active"}}],
        {"error": {"message": "x", "metadata": {"raw": '{"error": {"code": "billing_hard_limit_reached"}}'}}},
        'litellm.RateLimitError: OpenAIException - {"error": {"message": "no", "code": "insufficient_quota"}}',
        "Error code: 429 - insufficient_quota",
        {"message": "Your account is not active, please check your billing details on our website."},
        {"message": "Insufficient Balance"},
    ],
    ids=range(8),
)
def test_an_empty_account_is_no_limit_of_the_moment(status, body):
    assert type(meaning(status, body)) is amr.ModelConfigError


def test_an_empty_account_is_known_by_its_words_where_no_wait_is_told():
    words = "You exceeded your current quota, please check your plan and billing details."
    assert type(meaning(429, {"message": words})) is amr.ModelConfigError


def test_a_minutes_limit_in_the_words_of_an_empty_account_passes():
    """Gemini: the words are those of an empty account, and it tells when to come back."""
    words = "You exceeded your current quota, please check your plan and billing details. Please retry in 34.07s."
    error = meaning(429, [{"error": {"message": words, "status": "RESOURCE_EXHAUSTED", "details": GEMINI_DETAILS}}])
    assert type(error) is ModelUnavailable
    assert error.busy
    assert error.retry_after_s == 34


TOO_LONG = [
    (400, "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."),
    (400, "This model's maximum context length is 4096 tokens. However, you requested 4196 tokens (4096 in the messages, 100 in the completion). Please reduce the length of the messages or completion."),
    (400, {"message": "no words", "code": "context_length_exceeded"}),
    (400, "The prompt (total length 5000) is longer than the maximum model length of 4096."),
    (400, "The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make sure that max_model_len is no smaller."),
    (400, {"message": "the request exceeds the available context size, try increasing it", "type": "exceed_context_size_error", "code": 400}),
    (422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens and 100 `max_new_tokens`", "error_type": "validation"}),
    (422, {"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000"}),
    (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"}}),
    (400, "This model's maximum prompt length is 131072 but the request contains 140000 tokens."),
    (413, "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body></body></html>"),
    (413, {"message": "Payload Too Large"}),
    (400, [{"error": {"code": 400, "message": "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", "status": "INVALID_ARGUMENT"}}]),
    (400, {"message": "Input is too long for requested model."}),
    (400, "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5000. Try using a shorter prompt"),
    (400, "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length"),
    (400, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000 `inputs` tokens and 512 `max_new_tokens`"),
    (400, "This endpoint's maximum context length is 32768 tokens. However, you requested about 40000 tokens (40000 of text input). Please reduce the length of either one"),
    (400, "prompt too long; exceeded max context length by 100 tokens"),
    (500, "the input length exceeds the context length"),
    (400, "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens"),
    (500, "input is too large to process. increase the physical batch size"),
    (400, "Range of input length should be [1, 30720]"),
    (400, "Prompt exceeds max length"),
    (400, "Invalid request: Your request exceeded model token limit: 8192"),
    (400, "context window exceeds limit"),
    (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length or `max_tokens` and try again"}}),
    (400, "The total number of tokens (prompt + max_tokens) exceeds the model's limit"),
    (400, "Token limit exceeded"),
    (413, {"message": "Request body too large for gpt-4o model. Max size: 8000 tokens.", "code": "tokens_limit_reached"}),
    (400, {"message": "Invalid 'messages[1].content': string too long. Expected a string with maximum length 1048576.", "param": "messages[1].content", "code": "string_above_max_length"}),
    (400, {"message": "'max_tokens' or 'max_completion_tokens' is too large: 3000. This model's maximum context length is 4096 tokens and your request has 2000 input tokens (3000 > 4096 - 2000).", "code": 400}),
    (400, "Please reduce the length of the messages or completion."),
    (429, {"message": "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 60000. The input or output tokens must be reduced in order to run successfully.", "type": "tokens", "code": "rate_limit_exceeded"}),
    (413, {"message": "Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 8000, please reduce your message size and try again.", "type": "tokens", "code": "rate_limit_exceeded"}),
    (400, {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": '{"error": {"message": "prompt is too long: 3 tokens > 2 maximum"}}'}}}),
    (400, 'litellm.ContextWindowExceededError: BadRequestError: {"error": {"message": "x", "code": "context_length_exceeded"}}'),
    *((status, "This model's maximum context length is 4096 tokens. You requested 5000 tokens.") for status in (403, 404, 409, 429)),
    (404, "No endpoint takes the requested context length: the prompt has 150000 tokens"),
    (429, "prompt contains 5000 tokens, more than the 4096 that are allowed"),
]  # fmt: skip
NOT_TOO_LONG = [
    (400, "max_tokens is too large: 100000. This model supports at most 4096 completion tokens, whereas you provided 100000."),
    (400, "'max_tokens' is too large: 100000. This model's maximum context length is 4096 tokens and your request has 50 input tokens (100000 > 4096 - 50)."),
    (400, {"message": "Invalid 'user': string too long. Expected a string with maximum length 64, but got a string with length 100 instead.", "param": "user", "code": "string_above_max_length"}),
    (400, "Invalid 'user': string too long. Expected a string with maximum length 64."),
    (400, {"message": "Invalid schema for response_format 'findings': name is required", "param": "response_format"}),
    (400, "Unsupported value: 'temperature' does not support 0 with this model."),
    (400, "`max_new_tokens` must be <= 512. Given: 1000"),
    (400, "input length and `max_tokens` exceed context limit: 50 + 300000 > 200000, decrease input length or `max_tokens` and try again"),
    (400, "Invalid 'tools[0].function.name': string too long."),
    (504, "context deadline exceeded"),
    (500, "The request took too long to process"),
    (503, "upstream request timeout"),
    (500, "oops"),
    (429, {"message": "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000. Please try again in 2s.", "type": "tokens", "code": "rate_limit_exceeded"}),
    (429, "Too many requests"),
    (429, "Too many tokens, please wait before trying again."),
    (408, "request too long"),
    (403, "Input is too long"),
    (403, "Access denied: the request's tokens must be those of a member"),
    (403, "The request token must be valid"),
    (404, "The model `context-window-8k` does not exist"),
    (409, "Conflict: the conversation is in use"),
    (429, "Number of request tokens has exceeded your per-minute rate limit. Please reduce the prompt length, or try again later."),
    (429, "This request would exceed the rate limit for long context requests of 200000 input tokens"),
    (429, "The input tokens exceed the quota of this project"),
    (429, {"message": "The input exceeds 4096 tokens", "retry_after": 5}),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), TOO_LONG, ids=range(len(TOO_LONG)))
def test_too_long_is_known_in_every_wording(status, body):
    error = meaning(status, body)
    assert type(error) is amr.ModelRejected
    assert error.too_long


@pytest.mark.parametrize(("status", "body"), NOT_TOO_LONG, ids=range(len(NOT_TOO_LONG)))
def test_what_less_to_read_would_not_help_is_not_too_long(status, body):
    assert not getattr(meaning(status, body), "too_long", False)


def long_frame():
    return pd.DataFrame({"text": ["row 1 " + "word " * 400, "row 2"]})


@pytest.mark.parametrize(
    "refusal",
    [
        Status(429, "Request too large for m on tokens per min (TPM): Limit 300, Requested 600."),
        Status(413, "Request Entity Too Large"),
        Status(400, "This model's maximum prompt length is 100 but the request contains 500 tokens."),
        Raw(text="", finish_reason="model_length"),
        Raw(body=json.dumps({"error": {"message": "maximum context length", "code": 400}})),
    ],
    ids=["429", "413", "400", "model_length", "200"],
)
def test_a_request_that_is_too_long_is_halved_and_a_lone_unit_read_in_pieces(refusal):
    """The server takes no more than 300 characters of a row: halves and quarters are too long for it."""

    def script(request):
        longest = max(len(unit["text"]) for unit in request.units)
        return refusal if longest > 300 else findings(request, lambda unit: {"n": 1})

    with ScriptedServer(script) as server:
        result = long_frame().amr.map_reduce(map="Which?", finding={"n": int}, reduce={"n": "sum"}, lm=server.lm())
    assert result.output["n"] == 2
    assert len(result.failures) == 0


def test_a_server_that_calls_everything_too_long_ends_in_a_clear_failure():
    with ScriptedServer(lambda request: Status(400, "prompt is too long")) as server:
        result = long_frame().amr.map_reduce(map="Which?", finding={"n": int}, reduce={"n": "sum"}, lm=server.lm())
        assert len(server.requests) < 100
    assert result.failures["reason"].str.contains("prompt is too long").all()
    assert len(result.failures) == 2


# A wait that is longer than the patience ends the run

AWAY = {
    "a day's quota": Status(429, "Rate limit reached for requests per day", headers={"retry-after": "21600"}),
    "a day's quota, in words": Status(429, "Limit reached. Please try again in 6h0m0s."),
    "a date": Status(429, "no", headers={"retry-after": formatdate(time.time() + 86400, usegmt=True)}),
    "maintenance": Status(503, "maintenance", headers={"retry-after": "900"}),
    "a 500": Status(500, "no", headers={"retry-after-ms": "900000"}),
    "a 408": Status(408, "no", headers={"retry-after": "900"}),
    "a 409": Status(409, "no", headers={"retry-after": "900"}),
    "a 425": Status(425, "no", headers={"retry-after": "900"}),
}


@pytest.mark.parametrize("kind", AWAY)
@pytest.mark.sampled(3)
def test_a_wait_longer_than_the_patience_ends_the_run_with_what_was_found(kind, caplog):
    scripts = [then(AWAY[kind], after=10)]
    with ScriptedServer(lambda request: scripts[-1](request)) as server:
        with pytest.warns(amr.FailureWarning, match="call again"), caplog.at_level(logging.WARNING, "pandas_amr"):
            result = frame(300).amr.map_reduce(**ONE_BY_ONE, max_parallelism=4, lm=server.lm(max_tries=1))
        assert len(server.requests) <= 10 + 4
        assert result.findings["n"].notna().sum() == 10
        assert len(result.failures) == 0
        assert "It asks to wait until" in result.stopped
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        scripts.append(provider)
        again = result.retry()
    assert again.stopped is None
    assert again.output["n"] == sum(range(300))


@pytest.mark.parametrize("verb", ["map", "filter", "reduce"])
@pytest.mark.parametrize("errors", ["coerce", "raise"])
def test_each_verb_tells_that_the_service_asks_for_a_longer_wait(verb, errors):
    calls = {
        "map": lambda lm: frame(3).amr.map("Which?", finding={"n": int}, lm=lm, errors=errors),
        "filter": lambda lm: frame(3).amr.filter("Is it?", lm=lm, errors=errors),
        "reduce": lambda lm: frame(3).amr.reduce("Say it.", output=str, lm=lm, errors=errors),
    }
    with ScriptedServer(lambda request: AWAY["a day's quota"]) as server:
        if errors == "raise":
            with pytest.raises(amr.ModelUnavailable, match="call again"):
                calls[verb](server.lm())
        else:
            with pytest.warns(amr.FailureWarning, match="call again"):
                calls[verb](server.lm())


def test_under_raise_the_error_has_what_was_found(caplog):
    with ScriptedServer(then(AWAY["a day's quota"], after=10)) as server, pytest.raises(amr.ModelUnavailable) as caught:
        frame(300).amr.map_reduce(**ONE_BY_ONE, max_parallelism=4, lm=server.lm(), errors="raise")
    assert caught.value.partial.findings["n"].notna().sum() == 10
    assert caught.value.partial.stopped == str(caught.value)
    assert caught.value.retry_after_s == 21600
    assert [record.levelname for record in caplog.records if record.name == "pandas_amr"] == ["WARNING"]


def test_without_a_plan_a_long_wait_is_raised():
    with ScriptedServer(lambda request: AWAY["a day's quota"]) as server:
        with pytest.raises(amr.ModelUnavailable, match="call again"):
            frame(3).amr.map_reduce("Which is it?", lm=server.lm())
        assert len(server.requests) == 1


@stops
@pytest.mark.parametrize("answer", [Status(429, "busy"), Status(503, "later", headers={"retry-after": "0"})], ids=str)
def test_a_server_that_only_puts_off_ends_the_run_after_the_patience(answer):
    with ScriptedServer(then(answer, after=5)) as server:
        result = frame(50).amr.map_reduce(**ONE_BY_ONE, max_parallelism=3, lm=server.lm(patience_s=0.5, max_tries=1))
    assert "Nothing was answered for 0.5 s" in result.stopped
    assert result.findings["n"].notna().sum() == 5
    assert len(result.failures) == 0


def test_a_row_that_is_put_off_for_ever_among_answers_fails_alone():
    def script(request):
        return Status(503, "no", headers={"retry-after": "0"}) if "row 7" in request.user else provider(request)

    with ScriptedServer(script, latency_s=0.01) as server:
        result = frame(40).amr.map_reduce(**ONE_BY_ONE, max_parallelism=4, lm=server.lm(max_tries=2, patience_s=60))
    assert result.failures["position"].tolist() == [7]


# Who is not there


@contextlib.contextmanager
def nobody_accepts():
    """A port whose queue is full: connections to it are neither made nor refused."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


@pytest.mark.parametrize("where", ["a closed port", "no such name", "no route", "nobody accepts"])
@pytest.mark.sampled(2)
def test_a_server_that_was_never_reached_is_told_with_its_address_and_setting(where):
    """However many rows wait; and though a black hole would take two minutes."""
    with nobody_accepts() as full:
        address = {
            "a closed port": f"127.0.0.1:{closed_port()}",
            "no such name": "no-such-host.invalid:8123",
            "no route": "255.255.255.255:8123",
            "nobody accepts": f"127.0.0.1:{full}",
        }[where]
        lm = amr.LM("m", base_url=f"http://{address}/v1", api_key="k")
        with pytest.raises(amr.ModelUnavailable) as caught:
            frame(500).amr.map_reduce(**ONE_BY_ONE, max_parallelism=64, lm=lm)
    assert address in str(caught.value)
    assert "LM(base_url=...)" in str(caught.value)
    assert caught.value.gone
    assert caught.value.partial.total.tries <= 64


def test_to_wait_for_the_first_of_a_kind_is_to_wait_for_the_server():
    """Else each wait for a server that is not there would begin anew once that of the first is over."""
    since = []

    class Inside:
        async def complete(self, request):
            with measure_wait() as one:
                since.append(one)
            note_sent()
            while len(since) < 2:
                await asyncio.sleep(0.01)
            return Reply(Message("assistant", "x"), "stop", Usage())

    async def ask_two():
        structured = Structured(Inside(), server="http://first-of-a-kind", lm=amr.LM("m"))
        asked = [asyncio.create_task(structured.complete(Request((Message("user", "x"),), "map"))) for _ in range(2)]
        await asyncio.sleep(0)
        both_asked = CLOCK.now()
        await asyncio.gather(*asked)
        return both_asked

    both_asked = asyncio.run(ask_two())
    assert max(since) <= both_asked


def test_the_setting_that_is_named_is_the_one_that_was_used(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{closed_port()}/v1")
    with pytest.raises(amr.ModelUnavailable, match="OPENAI_BASE_URL"):
        frame(1).amr.map("Which?", finding={"n": int}, lm=amr.LM("m", api_key="k"))


def test_a_server_that_is_not_there_yet_is_waited_for_where_the_user_said_so(caplog):
    port = closed_port()
    lm = amr.LM("scripted", base_url=f"http://127.0.0.1:{port}/v1", api_key="k", patience_s=60)
    with caplog.at_level(logging.INFO, "pandas_amr"):
        run = frame(20).amr.start(**ONE_BY_ONE, lm=lm, progress=False)
        until(lambda: run.progress.waiting)
        assert "not reached" in run.progress.waiting
        assert f"127.0.0.1:{port}" in run.progress.waiting
        with ScriptedServer(provider, port=port):
            result = run.result()
    assert result.output["n"] == sum(range(20))
    assert run.progress.waiting == ""
    told = [record.getMessage() for record in caplog.records]
    assert len([line for line in told if "not reached for" in line]) == 1
    assert "waiting until" in told[0]


def test_requests_that_wait_for_a_place_end_with_the_run_too():
    """64 agents at a server that has gone: not one probe after the other, each for its time."""
    with ScriptedServer(then(Status(500), after=0), port=closed_port()) as server:
        lm = server.lm(patience_s=1.0)
        with pytest.warns(amr.FailureWarning):  # it has answered, with an error
            frame(1).amr.map("Which?", finding={"n": int}, lm=lm.replace(max_tries=1))
    with pytest.raises(amr.ModelUnavailable) as caught:
        frame(500).amr.map_reduce(**ONE_BY_ONE, max_parallelism=64, lm=lm)
    assert caught.value.partial.total.tries < 64


STARVING = """
import resource, sys
import pandas as pd, pandas_amr as amr
rows = 300
df = pd.DataFrame({"text": [f"row {n}" for n in range(rows)]})
lm = amr.LM("scripted", base_url=sys.argv[1], api_key="k", journaled=False, max_tries=2)
call = dict(map="Which?", finding={"n": int}, reduce={"n": "sum"}, plan={"shard_size": 1}, journal=False, lm=lm)
df.head(2).amr.map_reduce(**call)
import os
used = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (used + 12, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
result = df.amr.map_reduce(**call, max_parallelism=128)
print(int(result.output["n"]), len(result.failures))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="descriptors are counted in /proc")
@pytest.mark.long
def test_too_few_file_descriptors_lower_the_parallelism_and_fail_no_row():
    with ScriptedServer(provider, latency_s=0.02) as server:
        done = subprocess.run(
            [sys.executable, "-c", STARVING, server.base_url], capture_output=True, text=True, timeout=300, check=False
        )
    assert done.stdout.split() == [str(sum(range(300))), "0"], done.stderr
    assert "file descriptors" in done.stderr


# What is learned of limits


def headers(limit, left, reset, what="requests"):
    return {
        f"x-ratelimit-limit-{what}": limit,
        f"x-ratelimit-remaining-{what}": left,
        f"x-ratelimit-reset-{what}": reset,
    }


@pytest.mark.parametrize(
    ("told", "per_minute", "left"),
    [
        (headers("150000", "149984", "6m0s"), 150_000, 149_984),  # OpenAI's documentation
        (headers("60", "59", "1s"), 60, 59),  # likewise
        (headers("14400", "14370", "2m59.56s"), 10, 14_370),  # Groq's: of a day
        (headers("10000", "9999", "8.64s"), 10_000 / 1440, 9999),  # OpenAI's first tier: of a day
        (headers("3600", "3500", "100s"), 60, 3500),  # of an hour
        (headers("60", "0", "1.2.3s"), 60, 0),
        (headers("60", "0", "-5s"), 60, 0),
        (headers("60", "-1", "1s"), 60, None),
        (headers("60", "nan", "1s"), 60, None),
        (headers("60", "100", "1s"), 60, 60),
        (headers("60", "", ""), 60, None),
        (headers("60", "30", "2026-10-21T07:29:30Z"), 60, 30),
        (headers("0", "0", "1s"), None, None),
        (headers("-1", "-1", "0s"), None, None),
        (headers("inf", "5", "1s"), None, None),
        (headers("1", "0", "0s"), None, None),  # a minute does not bring one back at once
        (headers("1", "1", "0"), None, None),
        (headers("20", "3", "0"), None, None),
        (headers("10000", "9999", "0s"), 10_000, 9999),  # rounded
        (
            {"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "49"},
            50,
            49,
        ),
        ({"x-ratelimit-limit-req-minute": "30", "x-ratelimit-remaining-req-minute": "29"}, 30, 29),
    ],
)
def test_limits_are_read_as_they_are_meant(told, per_minute, left):
    read = limits_of(told)
    if per_minute is None:
        assert read is None
        return
    assert read.requests * 60 == pytest.approx(per_minute)
    assert read.requests_left == left


@pytest.mark.parametrize("text", ["1.2.3s", "-5", "-5s", "nan", "inf", "", "s", "1e400", "5x", "9" * 400])
def test_what_is_no_duration_is_none(text):
    assert seconds_of(text) is None


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only where nobody has anything to do."""

    def __init__(self):
        super().__init__()
        self.now = 1000.0

    def time(self):
        return self.now

    def _run_once(self):
        if not self._ready and self._scheduled:
            while self._scheduled and self._scheduled[0]._cancelled:
                heapq.heappop(self._scheduled)._scheduled = False
                self._timer_cancelled_count -= 1
            if self._scheduled:
                self.now = max(self.now, self._scheduled[0]._when)
        super()._run_once()


def played(scenario):
    """Run a scenario of a throttle on a loop with a clock of its own."""
    loop = Loop()
    try:
        throttle = Throttle(clock=loop.time)
        return loop.run_until_complete(scenario(throttle, loop))
    finally:
        loop.close()


def burst_of(limits, *, most=2000):
    """How many requests a throttle lets go at once after one answer with these headers."""

    async def scenario(throttle, loop):
        ticket = await throttle.acquire(10)
        throttle.record_answer(ticket, tokens=10, limits=limits)
        gone = 0
        while gone < most:
            try:
                async with asyncio.timeout(0.001):
                    await throttle.acquire(10)
            except TimeoutError:
                break
            gone += 1
        return gone

    return played(scenario)


@pytest.mark.parametrize(
    ("limits", "least", "most"),
    [
        (RateLimits(requests=20.0, requests_left=1200.0), 1200, 1201),
        (RateLimits(requests=20.0, requests_left=30.0), 30, 31),
        (RateLimits(requests=10 / 60, requests_left=500.0), 500, 501),  # of a day
        (RateLimits(requests=20.0, requests_left=1200.0, tokens=500.0, tokens_left=3000.0), 290, 301),
        (RateLimits(requests=20.0), 1, 30),
    ],
)
def test_what_is_left_may_be_sent_now(limits, least, most):
    assert least <= burst_of(limits) <= most


def test_a_burst_is_bounded_by_the_parallelism():
    async def scenario(throttle, loop):
        throttle.set_limits(5, None, None)
        throttle.record_answer(
            await throttle.acquire(0), tokens=0, limits=RateLimits(requests=20.0, requests_left=1200.0)
        )
        return throttle.limit

    assert played(scenario) == 5


def test_headers_that_leave_room_where_there_is_none_are_not_believed():
    """Each request over the fifth in a second is refused, and the headers say that 1,000 are left."""
    lies = RateLimits(requests=1000.0, requests_left=1000.0)

    async def scenario(throttle, loop):
        admitted, refused = [], 0
        while len(admitted) < 200:
            ticket = await throttle.acquire(0)
            now = loop.time()
            if sum(at > now - 1 for at in admitted) >= 5:
                refused += 1
                throttle.record_refusal(ticket, retry_after_s=None, limits=lies)
            else:
                admitted.append(now)
                throttle.record_answer(ticket, tokens=0, limits=lies)
        return refused, admitted[-1] - admitted[0]

    refused, seconds = played(scenario)
    assert refused < 60
    assert seconds < 120  # at best it takes 40


def test_a_day_of_refusals_does_not_leave_a_crawl_behind():
    """Thirty 429s in a row, and then a server that takes all: within two minutes of its time it is as fast as that."""

    async def scenario(throttle, loop):
        for _ in range(30):
            throttle.record_refusal(await throttle.acquire(0), retry_after_s=None, limits=None)
        began = loop.time()
        for _ in range(500):
            throttle.record_answer(await throttle.acquire(0), tokens=0, limits=None)
        return loop.time() - began

    assert played(scenario) < 200


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.sampled(3)
def test_whatever_a_server_says_each_request_is_let_go_in_the_end(seed):
    """Random headers, refusals, failures and pauses: the next request waits a minute at most, or for the pause."""
    rng = random.Random(seed)

    def limits():
        if rng.random() < 0.3:
            return None
        limit = rng.choice([1, 3, 60, 14_400, 10**6])
        told = headers(
            str(limit), str(rng.choice([0, 1, limit // 2, limit, -1])), rng.choice(["1s", "6m0s", "x", "9h"])
        )
        return limits_of(told | headers(str(limit * 100), str(rng.choice([0, 5, limit])), "6m0s", "tokens"))

    async def scenario(throttle, loop):
        longest = 0.0
        for _ in range(300):
            asked = loop.time()
            ticket = await throttle.acquire(rng.choice([0, 10, 10_000, 10**7]))
            longest = max(longest, loop.time() - asked)
            match rng.randrange(4):
                case 0:
                    throttle.record_refusal(ticket, retry_after_s=rng.choice([None, None, 5.0]), limits=limits())
                case 1:
                    throttle.record_failure(ticket, reached=rng.random() < 0.7)
                case _:
                    throttle.record_answer(ticket, tokens=rng.choice([0, 10, 10**6]), limits=limits())
            assert throttle.in_flight == 0
        return longest

    assert played(scenario) <= LONGEST_PACE_S + 10.0 + 1e-6


@pytest.mark.parametrize("seed", range(10))
def test_a_limit_that_is_told_is_never_exceeded_whatever_is_learned(seed):
    rng = random.Random(seed)

    async def scenario(throttle, loop):
        throttle.set_limits(None, 6.0, None)
        sent = []
        for _ in range(30):
            ticket = await throttle.acquire(0)
            sent.append(loop.time())
            limits = RateLimits(requests=1000.0, requests_left=float(rng.randrange(1000)))
            throttle.record_answer(ticket, tokens=0, limits=limits)
        return sent

    sent = played(scenario)
    assert min(later - before for before, later in itertools.pairwise(sent[1:])) >= 10 - 1e-6
    assert math.isfinite(sent[-1])


# What is told of waits


def test_a_pause_is_logged_once_and_shown_while_it_lasts(caplog):
    """Eight requests are refused with it; the run's progress says what they wait for."""
    put_off = Status(429, "slow down", headers={"retry-after": "2"})
    with (
        ScriptedServer(lambda r: put_off if 0 < r.number < 9 else provider(r)) as server,
        caplog.at_level(logging.INFO, "pandas_amr"),
    ):
        lm = server.lm(timeout_s=200_000)  # that the clock does not reach
        frame(1).amr.map_reduce(**ONE_BY_ONE, lm=lm)  # the first request of a kind goes alone
        run = frame(20).amr.start(**ONE_BY_ONE, max_parallelism=8, lm=lm)
        seen = []
        until(lambda: seen.append(run.progress.waiting) or seen[-1])
        move_on_until(lambda: run.progress.done, server)
        result = run.result()
    assert result.output["n"] == sum(range(20))
    assert ": 429, waiting until" in seen[-1]
    told = [record for record in caplog.records if ": 429, waiting until" in record.getMessage()]
    assert [record.levelname for record in told] == ["INFO"]
    assert "scripted-key" not in caplog.text


def test_a_pause_is_told_though_answers_to_earlier_requests_come_in_it(caplog):
    """The third of four requests is put off; the others are answered when it is, and say nothing of the pause."""
    put_off = asyncio.Event()

    async def script(request):
        if request.number == 3:
            put_off.set()
            return Status(429, "slow down", headers={"retry-after": "9"})
        if 0 < request.number < 5:
            await put_off.wait()
            await asyncio.sleep(0.05)
        return provider(request)

    with ScriptedServer(script) as server, caplog.at_level(logging.INFO, "pandas_amr"):
        frame(1).amr.map_reduce(
            **ONE_BY_ONE, lm=server.lm(), progress=False
        )  # what is learned at the first request is known
        run = frame(8).amr.start(**ONE_BY_ONE, max_parallelism=4, lm=server.lm(), progress=False)
        until(lambda: run.progress.waiting and run.progress.found == 3)
        shown = run.progress.waiting
        move_on(9.0)
        assert run.result().output["n"] == sum(range(8))
    assert "429, waiting until" in shown
    told = [record for record in caplog.records if server.base_url.split("/")[2] in record.getMessage()]
    assert [record.levelname for record in told] == ["INFO"]
    assert run.progress.waiting == ""


def test_the_bar_shows_what_is_waited_for(capsys):
    answers = iter([Status(429, "slow down", headers={"retry-after": "2"})])
    with ScriptedServer(lambda r: next(answers, None) or provider(r)) as server, amr.settings(progress=True):
        frame(2).amr.map_reduce(**ONE_BY_ONE, max_parallelism=1, lm=server.lm())
    assert "waiting until" in capsys.readouterr().err
