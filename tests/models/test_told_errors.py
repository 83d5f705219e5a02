"""What an error means is read from its words where its status does not say it: errors with the status of a success,
and refusals of a form or a setting with that of a server's failure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

import pandas_amr as amr
from moments import move_on, until
from numbered import provider, rows
from pandas_amr.testing import Drop, Raw, ScriptedServer, Status
from wire import Asked, Play

TOO_LONG = "This model's maximum context length is 4096 tokens, however you requested 5000 tokens."
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def http(body: Any, status: int = 200) -> bytes:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + content


def rows_of(asked: Asked) -> list[int]:
    """Give the numbers of the rows that stand in the user's message."""
    asking = next(message for message in reversed(asked.body["messages"]) if message["role"] == "user")
    return [int(number) for number in re.findall(r"row (\d+)", asking["content"])]


def answered(asked: Asked, **choice: Any) -> bytes:
    found = [{"unit": unit, "n": row} for unit, row in enumerate(rows_of(asked))]
    content = json.dumps({"findings": found})
    message = {"role": "assistant", "content": content}
    return http({"choices": [{"message": message, "finish_reason": "stop", **choice}], "usage": USAGE})


def body_of(answer: bytes) -> str:
    return answer.partition(b"\r\n\r\n")[2].decode()


def ask(answer: Callable[[Asked], bytes], *, size: int = 2, count: int = 4, **options: Any) -> tuple[amr.Result, int]:
    """Map rows with a server that answers so; give the result and the number of requests."""
    requests: list[Asked] = []

    def play(asked: Asked) -> list[bytes]:
        requests.append(asked)
        return [answer(asked)]

    with Play(play) as server:
        lm = amr.LM("m", base_url=server.base_url, api_key="k", journaled=False, max_tries=2, **options)
        frame = rows(count)
        plan = {"shard_size": size, "parallelism": 1}
        result = frame.amr.map_reduce(map="Which?", finding={"n": int}, reduce={"n": "count"}, lm=lm, plan=plan)
    return result, len(requests)


# Errors with the status of a success

SHAPES: dict[str, Callable[[str], Any]] = {
    "an error": lambda said: {"error": {"message": said}},
    "a text": lambda said: {"error": said},
    "FastChat": lambda said: {"object": "error", "message": said, "code": 40303},
    "FastAPI": lambda said: {"detail": said},
    "a message": lambda said: {"message": said},
    "MiniMax": lambda said: {"base_resp": {"status_code": 2013, "status_msg": said}, "choices": None},
    "Baidu": lambda said: {"error_code": 336007, "error_msg": said},
    "beside no choice": lambda said: {"error": {"message": said}, "choices": []},
    "in a choice": lambda said: {"choices": [{"error": {"message": said}, "message": {"content": ""}}]},
    "in a choice that was begun": lambda said: {
        "choices": [{"error": {"message": said}, "message": {"content": '{"find'}, "finish_reason": "error"}]
    },
    "in a stream": lambda said: f"data: {json.dumps({'error': {'message': said}})}\n\n",
    "vLLM's stream": lambda said: f"data: {json.dumps({'object': 'error', 'message': said})}\n\ndata: [DONE]\n\n",
    "llama.cpp's stream": lambda said: f"error: {json.dumps({'message': said})}\n\n",
    "an event": lambda said: f"event: error\ndata: {json.dumps({'message': said})}\n\n",
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_refusal_of_a_long_prompt_as_a_success_halves_the_shard(shape):
    def answer(asked: Asked) -> bytes:
        return http(shape(TOO_LONG)) if len(rows_of(asked)) > 1 else answered(asked)

    result, requests = ask(answer)
    assert result.frame["n"].tolist() == [0, 1, 2, 3]
    assert requests == 6  # two shards and four halves
    assert (result.total.calls, result.total.tokens) == (4, 60)  # an error is not paid for


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_passing_error_as_a_success_is_asked_again(shape):
    told: list[bytes] = []

    def answer(asked: Asked) -> bytes:
        if told:
            return answered(asked)
        told.append(http(shape("We have trouble")))
        return told[0]

    result, requests = ask(answer)
    assert result.frame["n"].tolist() == [0, 1, 2, 3]
    assert (requests, result.total.calls) == (3, 2)


MEANT: dict[str, tuple[dict[str, Any], str]] = {
    "no quota": (
        {"message": "You exceeded it", "code": "insufficient_quota"},
        "Check the account's quota and billing.",
    ),
    "no balance": ({"message": "insufficient balance"}, "Check the account's quota and billing."),
    "a key": ({"message": "Incorrect API key provided", "code": "invalid_api_key"}, "Check the key"),
    "a login": ({"message": "no", "type": "authentication_error"}, "Check the key"),
    "a model": ({"message": "The model `m` does not exist"}, "Check the model's name"),
}


@pytest.mark.parametrize(("error", "advice"), MEANT.values(), ids=MEANT.keys())
def test_a_configuration_that_is_refused_as_a_success_ends_the_run_with_its_way_out(error, advice):
    with pytest.raises(amr.errors.ModelConfigError, match=r"answered with an error: .*") as caught:
        ask(lambda asked: http({"error": error}))
    assert advice in str(caught.value)
    assert "chat completions API" not in str(caught.value)


BUSY = {
    "a rate": {"message": "slow down", "type": "rate_limit_error"},
    "requests": {"message": "Too many requests"},
    "Anthropic": {"message": "Overloaded", "type": "overloaded_error"},
}


@pytest.mark.parametrize("error", BUSY.values(), ids=BUSY.keys())
@pytest.mark.sampled(3)
def test_a_busy_server_that_says_so_as_a_success_is_waited_for(error):
    busy = [http({"error": error | {"retry_after": 0}})] * 3  # more than `max_tries`

    result, requests = ask(lambda asked: busy.pop() if busy else answered(asked))
    assert result.frame["n"].tolist() == [0, 1, 2, 3]
    assert requests == 5


NOT_NOW = {
    "a model": {"message": "The model is currently not available, try again"},
    "a model that is loaded": {"message": "Failed to load model"},
    "a provider": {"message": "Error contacting provider"},
    "a time-out": {"message": "Timeout waiting for model"},
    "a deployment": {"message": "The deployment is restarting, not ready"},
    "the server's code": {"message": "invalid credentials for the cache", "type": "server_error"},
    "a word of filters": {"message": "sensitive data store failed"},
    "a word of limits": {"message": "could not read the rate limit table"},
}


@pytest.mark.parametrize("error", NOT_NOW.values(), ids=NOT_NOW.keys())
def test_an_error_that_may_pass_is_not_taken_for_the_configuration_s_or_the_row_s(error):
    failed = [http({"error": error})]
    result, requests = ask(lambda asked: failed.pop() if failed else answered(asked))
    assert result.frame["n"].tolist() == [0, 1, 2, 3]
    assert requests == 3


def test_a_code_counts_before_the_words():
    error = {"message": "Incorrect. A right one may send 60 requests per minute", "code": "invalid_api_key"}
    with pytest.raises(amr.errors.ModelConfigError, match="Check the key"):
        ask(lambda asked: http({"error": error}))


def test_a_row_that_is_filtered_as_a_success_fails_after_one_request():
    def answer(asked: Asked) -> bytes:
        return http({"error": {"message": "input new_sensitive"}}) if rows_of(asked) == [1] else answered(asked)

    result, requests = ask(answer, size=1)
    assert result.failures["reason"].tolist() == ["The server answered with an error: input new_sensitive"]
    assert requests == 4


def test_an_error_that_was_paid_for_is_counted():
    error = {"error": {"message": "the answer was flagged by moderation"}, "usage": USAGE}
    result, _ = ask(lambda asked: http(error) if rows_of(asked) == [1] else answered(asked), size=1)
    assert (result.total.calls, result.total.tokens, result.total.estimated) == (4, 60, 0)


@pytest.mark.parametrize("around", ["{}", "So:\n```json\n{}\n```"], ids=["as it is", "in prose"])
def test_an_answer_beside_an_error_is_read(around):
    def answer(asked: Asked) -> bytes:
        found = [{"unit": unit, "n": row} for unit, row in enumerate(rows_of(asked))]
        content = around.replace("{}", json.dumps({"findings": found}))
        message = {"role": "assistant", "content": content}
        return answered(asked, error={"message": "a late warning"}, message=message)

    result, requests = ask(answer)
    assert result.frame["n"].tolist() == [0, 1, 2, 3]
    assert requests == 2


def test_comments_before_an_answer_are_not_part_of_it():
    def answer(asked: Asked) -> bytes:
        return http(": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\n" + body_of(answered(asked)))

    result, requests = ask(answer)
    assert result.frame["n"].tolist() == [0, 1, 2, 3]
    assert requests == 2


# Refusals with the status of a failure

Refused = tuple[Callable[[dict[str, Any]], bool], str, dict[str, Any]]
REFUSED: dict[str, Refused] = {
    "a form": (lambda body: "response_format" in body, "response_format is not supported", {}),
    "a schema": (
        lambda body: body.get("response_format", {}).get("type") == "json_schema",
        "'response_format.type' must be one of 'text', 'json_object'",
        {},
    ),
    "llama.cpp's grammar": (lambda body: "response_format" in body, "Failed to parse grammar", {}),
    "a temperature": (
        lambda body: "temperature" in body,
        "litellm.APIConnectionError: 'temperature' does not support 0.0 with this model.",
        {"temperature": 0.0},
    ),
    "a seed": (lambda body: "seed" in body, 'Unknown name "seed": Cannot find field.', {"seed": 1}),
    "a limit": (
        lambda body: "max_completion_tokens" in body,
        "Unrecognized request argument supplied: max_completion_tokens",
        {"max_output_tokens": 500},
    ),
    "a system role": (lambda body: body["messages"][0]["role"] == "system", "System role not supported", {}),
    "roles": (
        lambda body: body["messages"][0]["role"] == "system",
        "Conversation roles must alternate user/assistant/user/assistant/...",
        {},
    ),
    "Gemini's Gemma": (
        lambda body: body["messages"][0]["role"] == "system",
        "Developer instruction is not enabled for models/gemma-3-27b-it",
        {},
    ),
}


@pytest.mark.parametrize("status", [200, 400, 500, 501])
@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.sampled(4)
@pytest.mark.filterwarnings("ignore::pandas_amr.SettingWarning")
def test_what_a_model_refuses_is_left_out_after_one_refusal_at_any_status(refused, status):
    is_refused, said, options = refused

    def answer(asked: Asked) -> bytes:
        return http({"error": {"message": said}}, status) if is_refused(asked.body) else answered(asked)

    result, requests = ask(answer, **options)
    assert result.frame["n"].tolist() == [0, 1, 2, 3]
    assert requests == 3


SAID_OF_A_SETTING = {
    "Moonshot": ({"message": "invalid temperature: only 1 is allowed for this model"}, {"temperature": 0.0}),
    "OpenAI, beside its words": (
        {"message": "Unsupported value: 'low' is not supported with this model.", "param": "reasoning_effort"},
        {"reasoning_effort": "low"},
    ),
}


@pytest.mark.parametrize(("error", "options"), SAID_OF_A_SETTING.values(), ids=SAID_OF_A_SETTING.keys())
def test_a_setting_is_found_in_a_refusal(error, options):
    def answer(asked: Asked) -> bytes:
        return http({"error": error}, 400) if options.keys() & asked.body.keys() else answered(asked)

    with pytest.warns(amr.SettingWarning, match=next(iter(options))):
        result, requests = ask(answer, **options)
    assert result.frame["n"].tolist() == [0, 1, 2, 3]
    assert requests == 3


PASSING = [
    "The server had an error while processing your request. Sorry about that!",
    "Internal error: unexpected end of stream",
    "upstream failure: cannot allocate a tensor",
    "Unknown error in function 'decode'",
    "Internal server error: tools service is not allowed to be reached",
    "schema migration of the cache failed: column not supported",
    "Internal error: schema cache unsupported version, please retry",
    "Failed to parse JSON schema response from upstream worker",
    "the engine does not support more sequences at once; its max_tokens are in use",
    "CUDA error: operation not supported on seed stream",
]


@pytest.mark.parametrize("said", PASSING)
def test_a_failure_that_names_no_form_is_asked_again(said):
    failed = [http({"error": {"message": said}}, 500)]
    result, requests = ask(lambda asked: failed.pop() if failed else answered(asked))
    assert result.frame["n"].tolist() == [0, 1, 2, 3]
    assert requests == 3


# Reasons for which an answer ended

FILTERS = [
    "content_filter",
    "content_filter: PROHIBITED_CONTENT",
    "SAFETY",
    "SPII",
    "refusal",
    "guardrail_intervened",
]


@pytest.mark.parametrize("reason", FILTERS)
def test_a_row_that_a_filter_stopped_is_not_asked_again_and_says_why(reason):
    def answer(asked: Asked) -> bytes:
        if rows_of(asked) != [1]:
            return answered(asked)
        return answered(asked, finish_reason=reason, message={"role": "assistant", "content": ""})

    result, requests = ask(answer, size=1)
    assert result.failures["reason"].tolist() == ["The provider's content filter stopped the answer."]
    assert requests == result.total.calls == 4


# A server that is missing behind its gateway

MISSING = {
    "nginx": Status(502, "Bad Gateway"),
    "nginx, a page": Status(503, "<html><head><title>Service Temporarily Unavailable</title></head></html>"),
    "Envoy": Status(503, "no healthy upstream"),
    "Cloudflare": Status(521, "error code: 521"),
}


def start(server: ScriptedServer, **options: Any) -> amr.Run:
    lm = server.lm(timeout_s=200_000, **options)  # no request ends since the clock is moved
    return rows(8).amr.start(
        map="Which?",
        finding={"n": int},
        reduce={"n": "count"},
        lm=lm,
        plan={"shard_size": 1, "parallelism": 4},
        progress=False,
    )


def pass_time(server: ScriptedServer, running: amr.Run) -> None:
    def is_done() -> bool:
        if not server.in_flight:  # no time passes for a request that is under way
            move_on(1.0)
        return running.progress.done

    until(is_done)


@pytest.mark.parametrize("missing", MISSING.values(), ids=MISSING.keys())
def test_a_server_that_is_missing_behind_its_gateway_is_waited_for_and_fails_no_row(missing):
    with ScriptedServer(lambda r: missing if 0 < r.number < 100 else provider(r)) as server:
        running = start(server, patience_s=20_000)
        pass_time(server, running)
        result = running.result()
    assert result.frame["n"].tolist() == list(range(8))
    assert result.total.tries == len(server.requests) == 107


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
def test_one_that_does_not_come_back_ends_the_run_with_what_was_found():
    with ScriptedServer(lambda r: Status(502, "Bad Gateway") if r.number else provider(r)) as server:
        running = start(server)
        pass_time(server, running)
        result = running.result()
    assert "Nothing was answered for 300 s (LM(patience_s=...)): call again later." in result.stopped
    assert result.frame["n"].notna().sum() == 1
    assert len(result.failures) == 0


@pytest.mark.parametrize("parallelism", [1, 4])
def test_a_row_that_a_server_falls_over_fails_alone(parallelism):
    def script(request: Any) -> Any:
        is_poisoned = request.units[0]["text"] == "row 5"
        return Status(502, "Bad Gateway") if is_poisoned else provider(request)

    with ScriptedServer(script) as server:
        lm = server.lm(max_tries=2, max_parallelism=parallelism)
        plan = {"shard_size": 1}
        result = rows(8).amr.map_reduce(map="Which?", finding={"n": int}, reduce={"n": "count"}, lm=lm, plan=plan)
    assert result.failures["position"].tolist() == [5]
    assert len(server.requests) == 9


# A server that fails at everything after it has answered

FAILS = {
    "500": Status(500, "oops"),
    "504": Status(504, "Gateway Time-out"),
    "reset": Drop(),
    "no JSON": Raw(body="{"),
    "a success": Raw(body='{"error": "oops"}'),
}


def mapped(script: Callable[[Any], Any], *, count: int, **options: Any) -> tuple[amr.Result, int]:
    with ScriptedServer(script) as server:
        result = rows(count).amr.map_reduce(
            map="Which?",
            finding={"n": int},
            reduce={"n": "count"},
            lm=server.lm(max_tries=2, max_parallelism=4, **options),
            plan={"shard_size": 1},
        )
        return result, len(server.requests)


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
@pytest.mark.parametrize("fails", FAILS.values(), ids=FAILS.keys())
@pytest.mark.sampled(2)
def test_a_server_that_fails_at_everything_after_answers_ends_the_run_with_what_was_found(fails, monkeypatch):
    monkeypatch.setattr("pandas_amr.models.retry.FIRST_WAIT_S", 0.001)
    result, requests = mapped(lambda r: provider(r) if r.number < 5 else fails, count=300)
    assert result.frame["n"].notna().sum() == 5
    assert "The last 50 requests failed, each in all its tries" in result.stopped
    assert requests <= 5 + 2 * (50 + 4)
    assert len(result.failures) < 50 + 4  # all others are asked when the run is called again


def test_rows_that_a_server_fails_at_are_their_own_as_long_as_it_answers_others(monkeypatch):
    monkeypatch.setattr("pandas_amr.models.retry.FIRST_WAIT_S", 0.001)

    def script(request: Any) -> Any:
        number = int(request.units[0]["text"].split()[1])
        return provider(request) if number % 40 == 0 else Status(500, "oops")

    result, requests = mapped(script, count=200)
    assert result.stopped is None
    assert result.frame["n"].dropna().tolist() == [0, 40, 80, 120, 160]
    assert requests == 5 + 2 * 195
