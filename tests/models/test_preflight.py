"""A wrong address, key or model is one error in seconds, which names the setting; no more than one request has left."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading

import openai
import pytest

import pandas_amr as amr
from moments import move_on, move_on_until, turn_engine, until
from numbered import provider, rows
from pandas_amr.models.answered_servers import CONNECT_S, FIRST_CONTACT_S, connect_s
from pandas_amr.models.openai.advice import describe_models
from pandas_amr.models.openai.known_hosts import KEY_VARIABLES
from pandas_amr.models.retry import FIRST_WAIT_S
from pandas_amr.models.throttle.outage import FIRST_CONTACT_TRIES, PROBE_UNKNOWN_S
from pandas_amr.testing import Raw, ScriptedServer, Status
from ports import closed_port
from versions import once
from wire import Play

pytestmark = once

KEY = "sk-secret-0123456789"
ONE_BY_ONE = {"map": "Which?", "finding": {"n": int}, "reduce": {"n": "sum"}, "plan": {"shard_size": 1}}


def run(lm, count=12, **options):
    return rows(count).amr.map_reduce(**ONE_BY_ONE, max_parallelism=8, lm=lm, **options)


def lm_at(base_url, **options):
    return amr.LM("m", base_url=base_url, api_key=KEY, journaled=False, **options)


def http(status, body, headers="", kind="application/json"):
    """The bytes of an answer."""
    content = body if isinstance(body, str) else json.dumps(body)
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\n{headers}content-length: {len(content)}\r\n"
    return f"{head}connection: close\r\n\r\n{content}".encode()


def refusal(status, message, code=None):
    return http(status, {"error": {"message": message, "code": code}})


PAGE = "<!doctype html><html><head><title>Sign in</title></head></html>"
REDIRECT = "location: https://login.example.com/v1/chat/completions?next=secret\r\n"

# What the server does; the path of the address; what the error says; how many requests the server saw.
MISTAKES = {
    "no /v1": (http(404, {"detail": "Not Found"}), "", ["404", "LM(base_url=...)", "did you mean", "/v1'"], 1),
    "no /v1, a page": (http(404, PAGE, kind="text/html"), "", ["404", "did you mean", "/v1'"], 1),
    "no /v1, Go": (http(404, "404 page not found\n", kind="text/plain"), "", ["did you mean", "/v1'"], 1),
    "no POST": (http(405, {"detail": "Method Not Allowed"}), "", ["405", "LM(base_url=...)", "did you mean"], 1),
    "another path": (http(404, {"error": {"message": "not found"}}), "/x/v1", ["404", "address (LM(base_url=...))"], 1),
    "a web page": (http(200, PAGE, kind="text/html"), "/v1", ["web page ('Sign in')", "LM(base_url=...)"], 1),
    "a web page, no /v1": (http(200, PAGE, kind="text/html"), "", ["web page", "did you mean", "/v1'"], 1),
    "a login page": (http(302, "", REDIRECT), "/v1", ["302", "'https://login.example.com/v1'", "LM(base_url=...)"], 1),
    "another host": (http(308, "", REDIRECT), "/v1", ["308", "'https://login.example.com/v1'", "no row is sent"], 1),
    "no API": (http(200, "Ollama is running", kind="text/plain"), "", ["not answer as a chat", "did you mean"], 3),
    "another API": (http(200, {"ok": True}), "/v1", ["not answer as a chat completions API", "LM(base_url=...)"], 3),
    "an error as 200": (
        http(200, {"error": "Unexpected endpoint or method. (POST /chat/completions). Returning 200 anyway"}),
        "",
        ["Unexpected endpoint or method", "LM(base_url=...)", "did you mean", "/v1'"],
        3,
    ),
    "an error as 200, with its message": (
        http(200, {"error": {"message": f"model 'm' not found for {KEY}"}}),
        "/v1",
        ["model 'm' not found", "Check the model's name (LM('m'), AMR_MODEL)"],
        3,
    ),
    "an error as 200 that could be about anything": (
        http(200, {"error": {"message": f"no luck with {KEY}"}}),
        "/v1",
        ["no luck with", "not answer as a chat completions API"],
        3,
    ),
    "TLS is wanted": (http(400, "Client sent an HTTP request to an HTTPS server."), "/v1", ["did you mean 'https://"], 1),
    "TLS, nginx": (
        http(400, "<html><title>400 The plain HTTP request was sent to HTTPS port</title>", kind="text/html"),
        "/v1",
        ["did you mean 'https://"],
        1,
    ),
    "TLS, an alert": (b"\x15\x03\x03\x00\x02\x02\x46", "/v1", ["got an HTTP answer", "'https://", "LM(base_url=...)"], 3),
    "a shell": (b"SSH-2.0-OpenSSH_9.6\r\n", "/v1", ["got an HTTP answer", "its port"], 3),
    "a port that hangs up": (b"", "/v1", ["got an HTTP answer", "its port"], 3),
    "a port that resets": (None, "/v1", ["got an HTTP answer", "its port"], 3),
    "a wrong key": (refusal(401, f"Incorrect API key: {KEY}"), "/v1", ["401", "LM(api_key=...), OPENAI_API_KEY"], 1),
    "a key without a right": (refusal(403, "You have insufficient permissions"), "/v1", ["403", "api_key"], 1),
    "a key without the model": (refusal(403, "Project x does not have access to model m"), "/v1", ["403", "api_key"], 1),
    "no credit": (refusal(402, "Payment required"), "/v1", ["402", "quota and billing"], 1),
    "no quota": (refusal(429, "You exceeded your quota", "insufficient_quota"), "/v1", ["429", "quota and billing"], 1),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.sampled(5)
def test_a_mistake_is_one_error_that_names_the_setting_and_the_address(mistake):
    answer, path, said, seen = MISTAKES[mistake]
    with Play(lambda asked: [answer]) as server, pytest.raises(amr.errors.ModelError) as caught:
        run(lm_at(server.address + path))
    error = caught.value
    assert error.fatal
    for part in said:
        assert part in str(error)
    host_and_port = server.address.split("/")[2]
    assert host_and_port in str(error)
    assert KEY not in str(error)
    assert "secret" not in str(error)
    assert len(server.requests) == seen
    assert error.partial.total.tries == seen
    assert error.attempts <= seen


def test_a_port_where_nobody_listens_and_a_name_that_is_unknown_are_told_after_three_tries():
    for address in (f"127.0.0.1:{closed_port()}", "no-such-host.invalid:8123"):
        with pytest.raises(amr.ModelUnavailable) as caught:
            run(lm_at(f"http://{address}/v1"), count=40)
        assert address in str(caught.value)
        assert "LM(base_url=...)" in str(caught.value)
        assert "LM(patience_s=...)" in str(caught.value)
        assert caught.value.gone
        assert caught.value.partial.total.tries == FIRST_CONTACT_TRIES


def test_what_waits_at_the_first_contact_is_over_within_five_seconds():
    """One connection that is neither made nor refused; or the waits between tries that fail at once."""
    assert connect_s(lm_at("http://127.0.0.1:9/v1"), "http://127.0.0.1:9/v1/") <= FIRST_CONTACT_S <= 4 < CONNECT_S
    assert FIRST_CONTACT_TRIES * max(PROBE_UNKNOWN_S * 2**FIRST_CONTACT_TRIES, FIRST_WAIT_S) < 5


def test_https_to_a_server_without_tls_asks_about_http():
    with ScriptedServer(provider) as server:
        address = server.base_url.replace("http:", "https:")
        with pytest.raises(amr.ModelConfigError) as caught:
            run(lm_at(address))
        assert server.requests == []
    assert f"did you mean {server.base_url!r}?" in str(caught.value)
    assert caught.value.partial.total.tries == 1


# Models that a server does not serve


class Listing(Play):
    """Refuses all requests, and lists its models."""

    def __init__(self, answer, models):
        super().__init__(lambda asked: [answer])
        self.models = models
        self.lists = 0

    async def _talk(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"GET"):
            reader._buffer[:0] = head
            await super()._talk(reader, writer)
            return
        self.lists += 1
        writer.write(http(200, {"data": [{"id": name} for name in self.models]}))
        await writer.drain()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (refusal(404, "The model `gpt-5-mni` does not exist", "model_not_found"), "Did you mean 'gpt-5-mini'"),
        (refusal(400, "model not found: gpt-5-mni"), "Did you mean 'gpt-5-mini'"),
        (http(404, {"error": "not found"}), "Did you mean 'gpt-5-mini'"),
    ],
    ids=["404", "400", "404, in no words"],
)
def test_a_wrong_name_of_a_model_is_told_with_close_ones_after_one_look_at_the_list(answer, said):
    with Listing(answer, ["gpt-5-mini", "o3"]) as server:
        lm = amr.LM("gpt-5-mni", base_url=server.base_url, api_key=KEY, journaled=False)
        with pytest.raises(amr.ModelConfigError) as caught:
            run(lm)
    assert said in str(caught.value)
    assert "LM('gpt-5-mni'), AMR_MODEL" in str(caught.value)
    assert (len(server.requests), server.lists) == (1, 1)


def test_a_wrong_key_looks_at_no_list():
    with Listing(refusal(401, "no"), ["m"]) as server, pytest.raises(amr.ModelConfigError):
        run(lm_at(server.base_url))
    assert (len(server.requests), server.lists) == (1, 0)


@pytest.mark.parametrize(
    ("name", "served", "said"),
    [
        ("llama3", ["llama3:8b", "qwen2:7b"], "Did you mean 'llama3:8b'?"),
        ("GPT-5-Mini", ["gpt-5-mini"], "Did you mean 'gpt-5-mini'?"),
        ("gpt-5-mini", ["openai/gpt-5-mini", "x/y"], "Did you mean 'openai/gpt-5-mini'?"),
        ("abc", ["xyz", "uvw"], "The server lists 'xyz', 'uvw'."),
        ("abc", [f"x{n}" for n in range(9)], "The server lists 'x0', 'x1', 'x2', 'x3', 'x4' and 4 more."),
        ("abc", [], "The server lists no model."),
        ("abc", ["x" * 500, "a\nb"], "The server lists no model."),
    ],
)
def test_models_of_a_similar_name_are_named_or_else_the_first_ones(name, served, said):
    assert describe_models(name, served) == said


# Addresses that are refused before any request

ADDRESSES = {
    "localhost:8000/v1": "Did you mean 'http://localhost:8000/v1'?",
    "127.0.0.1:8000": "Did you mean 'http://127.0.0.1:8000/v1'?",
    "gpu.example.com:8000/v1": "Did you mean 'http://gpu.example.com:8000/v1'?",
    "api.openai.com/v1": "Did you mean 'https://api.openai.com/v1'?",
    "htp://127.0.0.1/v1": "begin with http://",
    "http://127.0.0.1:9/v1/chat/completions": "without '/chat/completions', which is added to it. Did you mean 'http://127.0.0.1:9/v1'?",
    "http://127.0.0.1:9/v1/chat/completions/": "Did you mean 'http://127.0.0.1:9/v1'?",
    "http://127.0.0.1:9/chat/completions": "Did you mean 'http://127.0.0.1:9/v1'?",
    "http://127.0.0.1:9/v1/models": "Did you mean 'http://127.0.0.1:9/v1'?",
    "http://127.0.0.1:9/v1/responses": "Did you mean 'http://127.0.0.1:9/v1'?",
    "http://127.0.0.1:11434/api/chat": "Did you mean 'http://127.0.0.1:11434/v1'?",
    "https://host/api/v1/chat/completions": "Did you mean 'https://host/api/v1'?",
}


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("place", ["LM(base_url=...)", "OPENAI_BASE_URL"])
def test_an_address_that_is_none_is_refused_with_the_one_that_is_meant(address, place, monkeypatch):
    if place == "OPENAI_BASE_URL":
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        monkeypatch.setenv("AMR_MODEL", "m")
        with pytest.raises(amr.UsageError) as caught:
            run(None)
    else:
        with pytest.raises(amr.UsageError) as caught:
            lm_at(address)
    assert place in str(caught.value)
    assert ADDRESSES[address] in str(caught.value)


@pytest.mark.parametrize("address", [KEY, "admin:12345", "user:pass@host:80/v1", "aaa.bbb.ccc"])
def test_what_may_be_a_secret_is_not_repeated(address):
    with pytest.raises(amr.UsageError) as caught:
        lm_at(address)
    assert address not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "https://generativelanguage.googleapis.com/v1beta/openai/",
        "https://x.services.ai.azure.com/models",
        "https://api.deepseek.com",
        "http://127.0.0.1:8080/chat",
    ],
)
def test_an_address_that_may_be_right_is_taken(address):
    assert lm_at(address).base_url == address


def test_a_client_with_an_address_that_is_none_is_refused_too():
    client = openai.AsyncOpenAI(api_key=KEY, base_url="http://127.0.0.1:9/v1/chat/completions")
    with pytest.raises(amr.UsageError, match=re.escape("Did you mean 'http://127.0.0.1:9/v1'?")):
        run(amr.LM("m", client=client))


# Hosts that need a key

HOSTS = sorted({f"x.{suffix}" for suffix in KEY_VARIABLES} | {"api.openai.com", "us-aiplatform.googleapis.com"})


@pytest.mark.parametrize("key", [None, "", "  ", "none", "EMPTY", "your-api-key", "sk-..."])
@pytest.mark.sampled(3)
def test_a_provider_gets_no_row_without_a_key(key, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # if anything were sent, it would end here
    for host in HOSTS[::10] if key is not None else HOSTS:
        lm = amr.LM("m", base_url=f"https://{host}/v1", api_key=key, journaled=False)
        with pytest.raises(amr.ModelConfigError, match=f"{re.escape(host)}:443 needs a key") as caught:
            rows(1).amr.map("Which?", finding={"n": int}, lm=lm)
        assert "LM(api_key=...)" in str(caught.value)
        assert caught.value.partial.total.tries == 0


def test_the_default_host_needs_one_too_and_a_key_of_the_provider_s_own_variable_is_named(monkeypatch):
    with pytest.raises(amr.ModelConfigError, match="api.openai.com:443 needs a key.*OPENAI_API_KEY"):
        run(amr.LM("m", journaled=False))
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    with pytest.raises(amr.ModelConfigError, match="GROQ_API_KEY is set") as caught:
        run(amr.LM("m", base_url="https://api.groq.com/openai/v1", journaled=False))
    assert KEY not in str(caught.value)


def test_an_estimate_needs_no_key():
    plan = rows(3).amr.plan(map="Which?", finding={"n": int}, lm=amr.LM("m", journaled=False))
    assert plan.estimate is not None


@pytest.mark.parametrize("headers", [{"api-key": "k"}, {"Authorization": "Bearer k"}])
def test_a_key_in_a_header_is_one(headers, monkeypatch):
    """The request goes: to a proxy that is not there."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed_port()}")
    lm = amr.LM("m", base_url="https://api.groq.com/openai/v1", extra_headers=headers, journaled=False)
    with pytest.raises(amr.ModelUnavailable, match="HTTPS_PROXY"):
        run(lm)


def test_a_server_of_one_s_own_needs_no_key():
    with ScriptedServer(provider) as server:
        assert run(amr.LM("m", base_url=server.base_url, journaled=False)).output["n"] == 66


# One request ahead


def verify(lm):
    with ScriptedServer(provider) as other:
        result = run(other.lm())
    return result.verify(share=1.0, lm=lm)


VERBS = {
    "map": lambda lm: rows(9).amr.map("Which?", finding={"n": int}, lm=lm, plan={"shard_size": 1}),
    "filter": lambda lm: rows(9).amr.filter("Is it?", lm=lm, plan={"shard_size": 1}),
    "reduce": lambda lm: rows(9).amr.reduce("Say it.", output=str, lm=lm, plan={"fan_in": 2}),
    "map_reduce": run,
    "task": lambda lm: rows(9).amr.map_reduce("Which is it?", lm=lm),
    "plan": lambda lm: rows(9).amr.plan("Which is it?", lm=lm),
    "start": lambda lm: rows(9).amr.start(**ONE_BY_ONE, lm=lm).result(),
    "recipe": lambda lm: amr.Recipe().map("Which?", finding={"n": int}, plan={"shard_size": 1})(rows(9), lm=lm),
    "verify": verify,
    "tools": lambda lm: run(lm, tools=[look]),
}


@amr.tool
def look(x: str) -> str:
    """Look it up."""
    return x


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_ends_with_one_error_after_one_request(verb):
    with ScriptedServer(lambda request: Status(401, "no")) as server:
        with pytest.raises(amr.ModelConfigError, match="OPENAI_API_KEY"):
            VERBS[verb](server.lm())
        assert len(server.requests) == 1


def test_the_model_of_the_environment_is_told_alike(monkeypatch):
    with ScriptedServer(lambda request: Status(401, "no")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("AMR_MODEL", "m")
        for lm in (None, "other"):
            with pytest.raises(amr.ModelConfigError, match=server.base_url.split("/")[2]):
                run(lm)
        client = openai.AsyncOpenAI()
        with pytest.raises(amr.ModelConfigError, match=re.escape("LM(client=...), its api_key")):
            run(client)
        assert len(server.requests) == 3


class Ahead:
    """A provider whose first request is held: it notes how many came meanwhile, by model."""

    def __init__(self, answer=provider):
        self.answer = answer
        self.asked: dict[str, int] = {}
        self.beside: dict[str, int] = {}

    async def __call__(self, request):
        model = request.body["model"]
        self.asked[model] = self.asked.get(model, 0) + 1
        if self.asked[model] > 1:
            return provider(request)
        await asyncio.sleep(0.1)
        self.beside[model] = self.asked[model] - 1
        return self.answer(request)


def test_the_first_request_to_each_model_goes_alone_and_no_later_run_waits():
    ahead = Ahead()
    with ScriptedServer(ahead) as server:
        assert run(server.lm()).output["n"] == 66
        assert ahead.beside == {"scripted": 0}
        latest = threading.Event()

        async def together(request):
            if server.in_flight == 4:
                latest.set()
            while not latest.is_set():
                await asyncio.sleep(0.01)
            return provider(request)

        server._script = together
        assert run(server.lm(), count=4).output["n"] == 6
        server._script = ahead
        lms = {"map": server.lm("one"), "reduce": server.lm("two")}
        options = {"map": "Which?", "finding": {"n": int}, "reduce": {"n": "sum"}, "plan": {"shard_size": 1}}
        rows(5).amr.map_reduce(**options, lm=lms)
        assert run(server.lm(api_key="another"), count=3).output["n"] == 3
    assert ahead.beside["one"] == 0


@pytest.mark.parametrize(
    "first",
    [
        Status(400, "this content cannot be read"),
        Status(422, "no"),
        Raw(text="", finish_reason="content_filter"),
        Raw(refusal="I would rather not."),
    ],
    ids=["400", "422", "a filter", "a refusal"],
)
def test_a_first_row_that_is_refused_fails_alone_and_the_others_go(first):
    ahead = Ahead(lambda request: first)
    with ScriptedServer(ahead) as server:
        result = run(server.lm(max_tries=1))
    assert len(result.failures) <= 1
    assert ahead.beside["scripted"] == 0
    assert result.findings["n"].notna().sum() >= 11


def test_rows_that_are_all_refused_do_not_go_one_by_one_for_ever():
    """Three of them show that the way is right."""
    held = threading.Event()

    async def script(request):
        if request.number < 3:
            assert server.in_flight == 1
            return Status(400, "not this")
        if server.in_flight > 1:
            held.set()
        while not held.is_set():
            await asyncio.sleep(0.01)
        return Status(400, "not this")

    with ScriptedServer(script) as server:
        options = ONE_BY_ONE | {"plan": ONE_BY_ONE["plan"] | {"give_up_after": None}}
        result = rows(12).amr.map_reduce(**options, max_parallelism=8, lm=server.lm())
    assert len(result.failures) == 12


def test_a_first_answer_that_takes_long_is_shown_and_nothing_fails(caplog):
    held = threading.Event()

    async def script(request):
        while not held.is_set():
            await asyncio.sleep(0.01)
        return provider(request)

    with ScriptedServer(script) as server, caplog.at_level(logging.INFO, "pandas_amr"):
        running = rows(5).amr.start(**ONE_BY_ONE, lm=server.lm(), progress=False)
        until(lambda: server.requests)
        move_on(4.5)
        until(lambda: running.progress.waiting)
        shown = running.progress.waiting
        assert len(server.requests) == 1
        held.set()
        assert running.result().output["n"] == 10
    assert "no answer to the first request for 4 s, the others wait for it, waiting until" in shown
    assert running.progress.waiting == ""
    assert [record.levelname for record in caplog.records] == ["INFO"]


# Servers that are waited for

NOT_REACHED = re.compile(r"127\.0\.0\.1:\d+: server not reached for \d+ s, waiting until [\d:]+ \(patience_s\)$")


def test_a_server_that_goes_away_is_waited_for_in_words_and_the_error_counts_the_rows(caplog):
    with ScriptedServer(provider, port=closed_port()) as server:
        lm = server.lm()
        assert run(lm, count=2).output["n"] == 1
    with caplog.at_level(logging.INFO, "pandas_amr"):
        running = rows(9).amr.start(**ONE_BY_ONE, lm=lm)
        until(lambda: running.progress.waiting)
        assert NOT_REACHED.match(running.progress.waiting)
        for _ in range(4):
            before = len(caplog.records)
            move_on(40.0)
            until(lambda before=before: len(caplog.records) > before)
        move_on(300.0)
        with pytest.raises(amr.ModelUnavailable) as caught:
            running.result()
    logged = [record for record in caplog.records if NOT_REACHED.match(record.getMessage())]
    assert [record.levelname for record in logged][:2] == ["WARNING", "INFO"]
    assert {record.levelname for record in logged[1:]} == {"INFO"}
    said = str(caught.value)
    assert "It was waited for 300 s" in said
    assert said.endswith("0 of 9 rows are done.")
    assert server.base_url.split("/")[2] in said


def test_a_server_that_was_never_there_is_waited_for_where_the_user_said_so(caplog):
    port = closed_port()
    lm = lm_at(f"http://127.0.0.1:{port}/v1", patience_s=60)
    with caplog.at_level(logging.INFO, "pandas_amr"):
        running = rows(5).amr.start(**ONE_BY_ONE, lm=lm)
        until(lambda: running.progress.waiting)
        assert NOT_REACHED.match(running.progress.waiting)
        with ScriptedServer(provider, port=port):
            assert running.result().output["n"] == 10
    assert [record.levelname for record in caplog.records if NOT_REACHED.match(record.getMessage())] == ["WARNING"]


@pytest.mark.parametrize(
    "answer",
    [
        Status(503, "Loading model", "unavailable_error"),  # llama.cpp
        Status(503, "Model x is currently loading"),  # Hugging Face
        Status(503, "llm server loading model"),  # Ollama
    ],
    ids=["llama.cpp", "Hugging Face", "Ollama"],
)
def test_a_model_that_is_being_loaded_is_waited_for_however_often_it_says_so(answer, caplog):
    loading = 20

    def script(request):
        return answer if request.number < loading else provider(request)

    with ScriptedServer(script) as server, caplog.at_level(logging.INFO, "pandas_amr"):
        lm = server.lm(max_tries=1, patience_s=20_000, timeout_s=200_000)  # that the clock does not reach
        running = rows(5).amr.start(**ONE_BY_ONE, lm=lm)
        until(lambda: running.progress.waiting)
        shown = running.progress.waiting
        move_on_until(lambda: len(server.requests) > loading, server)
        result = running.result()
    assert result.output["n"] == 10
    assert len(result.failures) == 0
    assert re.search(r"the model is being loaded for \d+ s, waiting until [\d:]+ \(patience_s\)", shown)
    told = [record.levelname for record in caplog.records if "is being loaded" in record.getMessage()]
    assert told[0] == "WARNING"
    assert set(told[1:]) <= {"INFO"}
    assert len(told) < loading


def test_a_model_that_is_being_loaded_is_one_wait_though_a_request_meanwhile_takes_long(caplog):
    is_held = threading.Event()

    async def script(request):
        if request.number > 3:
            return provider(request)
        if request.number == 2:
            while not is_held.is_set():
                await asyncio.sleep(0.005)
        return Status(503, "Loading model", "unavailable_error")

    with ScriptedServer(script) as server, caplog.at_level(logging.INFO, "pandas_amr"):
        lm = server.lm(max_tries=1, patience_s=20_000, timeout_s=200_000)
        running = rows(5).amr.start(**ONE_BY_ONE, lm=lm)
        until(lambda: "is being loaded" in running.progress.waiting)
        move_on_until(lambda: len(server.requests) == 3, server)
        move_on(60.0)
        turn_engine()
        is_held.set()
        move_on_until(lambda: len(server.requests) > 4, server)
        assert running.result().output["n"] == 10
    # A run that another file leaves behind may wait, too.
    of_server = [record for record in caplog.records if server.base_url.split("/")[2] in record.getMessage()]
    told = [record for record in of_server if record.module == "waits"]
    assert all("is being loaded" in record.getMessage() for record in told)
    levels = [record.levelname for record in told]
    assert levels[0] == "WARNING"
    assert set(levels[1:]) == {"INFO"}


@pytest.mark.parametrize(
    "answer", [Status(529, "Overloaded"), Status(503, "The model is overloaded. Please try again later.")], ids=str
)
@pytest.mark.sampled(2)
def test_a_server_with_too_much_to_do_is_waited_for_and_fails_no_row(answer):
    with ScriptedServer(lambda r: answer if 0 < r.number < 3 else provider(r)) as server:
        assert run(server.lm(max_tries=1), count=3).output["n"] == 3
