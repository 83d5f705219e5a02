"""How a run comes to its server: connections, keys, clients of one's own, what is learned, and what holds up nobody."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import pickle
import subprocess
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import openai
import pandas as pd
import pytest

import pandas_amr as amr
from numbered import rows
from pandas_amr.models.openai.endpoint import Endpoint
from pandas_amr.models.openai.model import OpenAIModel
from pandas_amr.models.statistics import statistics_of
from pandas_amr.models.throttle.model import throttle_for
from pandas_amr.testing import ScriptedServer, Status, findings


def ones(request):
    return findings(request, lambda unit: {"n": 1})


def found(lm, count: int = 1, **options) -> list[int]:
    options = {"finding": {"n": int}, "journal": False, "progress": False} | options
    return rows(count).amr.map("Which?", lm=lm, **options)["n"].tolist()


class Provider(ThreadingHTTPServer):
    """A provider that counts its connections and keeps what was sent as it came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.connections = 0
        self.sent: list[tuple[str, dict[str, str]]] = []
        self.headers: dict[str, str] = {}
        self.together = threading.Barrier(1)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def all_of(self, header: str) -> list[str | None]:
        return [headers.get(header) for _, headers in self.sent]


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.sent.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        self.server.together.wait(60)
        content = json.dumps({"findings": [{"unit": 0, "n": 1}]})
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        answer = json.dumps({"choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def provider():
    with Provider() as server:
        yield server


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, which nothing in it may hold up for ever."""
    begin = "import signal, sys; signal.alarm(90)\nimport pandas as pd, pandas_amr as amr\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", begin + code, *arguments],
        capture_output=True, text=True, timeout=600, env=os.environ | environment,
    )  # fmt: skip


# Connections


def test_runs_of_a_process_share_the_connections_to_a_server(provider):
    for _ in range(3):
        assert found(amr.LM("m", base_url=provider.url, api_key="k")) == [1]
    assert (len(provider.sent), provider.connections) == (3, 1)


def test_models_with_other_keys_share_connections_but_neither_key_nor_cookie(provider):
    provider.headers = {"set-cookie": "session=of-the-first-key; Path=/"}
    for key in ("one", "two", "one"):
        found(amr.LM("m", base_url=provider.url, api_key=key))
    assert provider.all_of("authorization") == ["Bearer one", "Bearer two", "Bearer one"]
    assert provider.all_of("cookie") == [None] * 3
    assert provider.connections == 1


def test_the_many_connections_of_a_large_run_are_not_kept(provider):
    lm = amr.LM("m", base_url=provider.url, api_key="k")
    throttle = throttle_for(lm, *Endpoint(lm).address)
    throttle.pace.window.size = 64.0  # it is known to bear them, the first of them, too
    throttle.gate.open()
    for count, after in ((32, 32), (1, 32), (40, 40), (1, 41)):
        provider.together = threading.Barrier(count)
        found(lm, count, plan={"shard_size": 1}, max_parallelism=count)
        assert provider.connections == after


def test_spellings_of_an_address_are_one_server(provider):
    found(amr.LM("m", base_url=provider.url, api_key="k"))
    found(amr.LM("m", base_url=provider.url.replace("http:", "HTTP:") + "/", api_key="k"))
    assert provider.connections == 1
    assert {path for path, _ in provider.sent} == {"/v1/chat/completions"}


def test_what_the_environment_says_of_certificates_holds_for_the_next_run(provider, monkeypatch):
    lm = amr.LM("m", base_url=provider.url, api_key="k")
    found(lm)
    monkeypatch.setenv("SSL_CERT_FILE", "/proc/nowhere/ca.pem")
    with pytest.raises(amr.ModelConfigError, match="SSL_CERT_FILE"):
        found(lm)
    monkeypatch.delenv("SSL_CERT_FILE")
    assert found(lm) == [1]


def test_a_call_that_the_journal_answers_opens_nothing_and_imports_no_client(provider, tmp_path):
    path = str(tmp_path / "journal.sqlite")
    found(amr.LM("m", base_url=provider.url, api_key="k"), journal=path)
    code = """
frame = pd.DataFrame({"text": ["row 0"]})
lm = amr.LM("m", base_url=sys.argv[1], api_key="k")
print(frame.amr.map("Which?", finding={"n": int}, lm=lm, journal=sys.argv[2], progress=False)["n"].tolist())
print(sorted({"openai", "httpx2", "aiohttp"} & sys.modules.keys()))
"""
    done = run_python(code, provider.url, path)
    assert (done.stdout, done.stderr) == ("[1]\n[]\n", "")
    assert (len(provider.sent), provider.connections) == (1, 1)


ONE_CALL = """
def call():
    frame = pd.DataFrame({"text": ["row 0"]})
    lm = amr.LM("m", base_url=sys.argv[1], api_key="k")
    return frame.amr.map("Which?", finding={"n": int}, lm=lm, journal=False, progress=False)["n"].tolist()
"""


@pytest.mark.long
def test_a_process_that_ends_has_closed_its_connections(provider):
    done = run_python(ONE_CALL + "print(call(), call())", provider.url)
    assert (done.stdout, done.stderr) == ("[1] [1]\n", "")
    assert provider.connections == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="takes a fork")
@pytest.mark.long
def test_a_fork_has_connections_of_its_own_and_leaves_its_parent_s_alone(provider):
    code = """
import os, gc
before = call()
child = os.fork()
if child == 0:
    print("child", call(), flush=True)
    from pandas_amr.models.openai.connections import _pools
    for key in [key for key in _pools if key.process != os.getpid()]:
        del _pools[key]  # as at the end of Python
    gc.collect()
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
print("parent", before, call())
"""
    done = run_python(ONE_CALL + code, provider.url)
    assert (done.stdout, done.stderr) == ("child [1]\nparent [1] [1]\n", "")
    assert (len(provider.sent), provider.connections) == (3, 2)


def test_a_loop_that_is_not_the_engine_closes_what_it_opened(provider):
    async def ask() -> None:
        async with Endpoint(amr.LM("m", base_url=provider.url, api_key="k")) as model:
            await model.call(
                lambda client: client.post("/chat/completions", cast_to=httpx2.Response, body={}), timeout_s=5
            )

    for _ in range(2):
        asyncio.run(ask())  # a session that is left open is a ResourceWarning, which is an error here
    assert provider.connections == 2


# What is learned


def test_what_is_learned_of_a_model_holds_for_all_its_runs_and_keys():
    with ScriptedServer(ones) as server:
        for key in ("one", "two"):
            found(server.lm("learned", api_key=key, hedge=True), 30, plan={"shard_size": 1})
        statistics = statistics_of(f"{server.base_url}/", "learned")
    assert len(statistics.latencies) == 60
    assert 0 < statistics.expected_tokens("map") < 50
    assert statistics.expected_tokens("reduce") == 100


def test_a_reduce_by_groups_is_hedged_by_what_the_map_has_learned():
    """The first request of one group is answered only once a second one has come."""
    second = asyncio.Event()
    asked: list[str] = []

    async def script(request):
        if request.schema != "reduction":
            return ones(request)
        slow = '"n": 7' in request.user
        if slow and asked.count(request.user):
            second.set()
        asked.append(request.user)
        if slow:
            await second.wait()
        return {"output": "a text", "sources": [0]}

    df = pd.DataFrame({"text": [f"row {number}" for number in range(40)], "group": [n % 10 for n in range(40)]})
    with ScriptedServer(script) as server:
        lm = server.lm("hedged", hedge=True)
        df.amr.map("Which?", finding={"n": int}, lm=lm, journal=False, plan={"shard_size": 1})
        frame = df.assign(n=df["group"])
        answer = frame.amr.reduce("Write.", output=str, columns=["n"], by="group", lm=lm, journal=False)
    assert len(answer) == 10
    assert second.is_set()


# Keys that rotate


class Keys:
    """A key that is another one each time."""

    def __init__(self) -> None:
        self.count = 0

    def next(self) -> str:
        self.count += 1
        return f"key-{self.count}\n"

    async def soon(self) -> str:
        return self.next()

    def __call__(self) -> str:
        return self.next()


class AsyncKeys(Keys):
    async def __call__(self) -> str:
        return self.next()


ROTATING = {
    "a method": lambda keys: keys.next,
    "an async method": lambda keys: keys.soon,
    "a function": lambda keys: lambda: keys.next(),
    "a function of an awaitable": lambda keys: lambda: keys.soon(),
    "a partial": lambda keys: functools.partial(Keys.next, keys),
    "an async partial": lambda keys: functools.partial(Keys.soon, keys),
    "an object": lambda keys: keys,
    "an async object": lambda _: AsyncKeys(),
}


@pytest.mark.parametrize("make", ROTATING.values(), ids=ROTATING)
def test_a_key_may_be_a_function_that_is_asked_at_each_request(make, provider):
    lm = amr.LM("m", base_url=provider.url, api_key=make(Keys()))
    assert found(lm) + found(lm) == [1, 1]
    assert provider.all_of("authorization") == ["Bearer key-1", "Bearer key-2"]


def test_a_server_keeps_its_throttle_whatever_key_a_function_gives():
    async def addresses() -> set[tuple[str, str]]:
        keys = Keys()
        lms = [amr.LM("m", base_url="http://h/v1", api_key=one) for one in (keys.next, Keys().next)]
        return {Endpoint(lm).address for lm in lms}

    (address,) = asyncio.run(addresses())
    assert address == ("http://h/v1/", f"function {__name__}.Keys.next")


def token(*_) -> str:
    return "sk-token"


def test_a_model_with_a_function_for_its_key_is_hashed_pickled_and_shown_as_any_other():
    lm = amr.LM("m", base_url="http://h/v1", api_key=Keys())
    assert repr(lm) == "<LM m at http://h/v1>"
    assert len({lm, lm.replace(temperature=1.0)}) == 2
    assert pickle.loads(pickle.dumps(amr.LM("m", api_key=token))) == amr.LM("m", api_key=token)


def raising(error):
    def give():
        raise error

    async def give_soon():
        raise error

    return [give, give_soon]


NO_KEYS = [
    *((function, "raised ValueError") for function in raising(ValueError("sk-secret"))),
    *((function, "raised KeyboardInterrupt") for function in raising(KeyboardInterrupt("sk-secret"))),
    *((function, "raised SystemExit") for function in raising(SystemExit("sk-secret"))),
    *((function, "raised TimeoutError") for function in raising(TimeoutError("sk-secret"))),
    *((function, "raised CancelledError") for function in raising(asyncio.CancelledError("sk-secret"))),
    (lambda: None, "gave NoneType"),
    (lambda: b"sk-secret", "gave bytes"),
    (lambda: " \n", "gave an empty text"),
    (lambda: "sk-secret\x07", "gave a text that no HTTP header can hold"),
    (lambda: "sk-secret-\u00e9", "gave a text that no HTTP header can hold"),
    (lambda: asyncio.sleep(60), "gave none within 0.1 s"),
]


@pytest.mark.parametrize(("function", "problem"), NO_KEYS, ids=[problem for _, problem in NO_KEYS])
@pytest.mark.sampled(3)
def test_a_function_that_gives_no_key_is_one_clear_error_without_its_secret(function, problem, provider):
    lm = amr.LM("m", base_url=provider.url, api_key=function, timeout_s=0.2 if "0.1 s" in problem else 20.0)
    with pytest.raises(amr.ModelConfigError, match=rf"LM\(api_key=...\) takes .*\(\) {problem}") as caught:
        found(lm)
    assert "sk-secret" not in "".join(traceback.format_exception(caught.value))
    assert provider.sent == []


@pytest.mark.parametrize("wrong", [5, b"sk-secret", ["sk-secret"], lambda name: name])
def test_what_is_no_key_is_refused_where_it_is_said(wrong):
    with pytest.raises(amr.UsageError, match=r"LM\(api_key=...\) takes a key, or a function") as caught:
        amr.LM("m", api_key=wrong)
    assert "sk-secret" not in str(caught.value)


def test_no_failure_tells_a_key_of_now_or_one_of_before():
    keys = Keys()

    def script(request):
        return Status(
            400, f"{request.headers['authorization']} of key-1 is not welcome, nor is {request.headers['x-token']}"
        )

    with ScriptedServer(script) as server:
        lm = server.lm(api_key=keys.next, extra_headers={"X-Token": "another-secret"})
        with pytest.raises(amr.ModelConfigError) as told:  # it names a key before one was accepted
            rows(2).amr.map_reduce(
                map="Which?", finding={"n": int}, reduce={"n": "sum"}, lm=lm, journal=False,
                plan={"shard_size": 1, "parallelism": 1},
            )  # fmt: skip
    reasons = str(told.value)
    assert "is not welcome" in reasons
    assert "key-" not in reasons
    assert "another-secret" not in reasons


# Clients of one's own


def _own(kind, http=None, **options):
    """Makes a client of a kind for an address."""

    def make(url: str):
        known = {"base_url": url, "api_key": "mine"} | options
        if "Azure" in kind.__name__:
            known |= {"api_version": "2024-10-21"}
        return kind(**known, http_client=http()) if http is not None else kind(**known)

    return make


EXTRAS = {"organization": "org-1", "project": "p-1", "default_headers": {"X-Own": "1"}, "default_query": {"own": "1"}}
CLIENTS = {
    "async": _own(openai.AsyncOpenAI, **EXTRAS),
    "sync": _own(openai.OpenAI, **EXTRAS),
    "async Azure": _own(openai.AsyncAzureOpenAI, **EXTRAS),
    "sync Azure": _own(openai.AzureOpenAI, **EXTRAS),
    "its own httpx": _own(openai.AsyncOpenAI, http=httpx2.AsyncClient, **EXTRAS),
    "its own aiohttp": _own(openai.AsyncOpenAI, http=openai.DefaultAioHttpClient, **EXTRAS),
    "Azure with its own httpx": _own(openai.AsyncAzureOpenAI, http=httpx2.AsyncClient, **EXTRAS),
}


async def _used(client) -> None:
    answer = client.post("/chat/completions", cast_to=httpx2.Response, body={"model": "m", "messages": []})
    assert (await answer if asyncio.iscoroutine(answer) else answer).status_code == 200


@pytest.mark.parametrize("make", CLIENTS.values(), ids=CLIENTS)
@pytest.mark.parametrize("order", ["mapped, used", "used, mapped, mapped", "mapped, used, mapped, used"])
@pytest.mark.sampled(2)
def test_a_client_serves_whatever_loop_it_was_used_on(make, order, provider):
    client = make(provider.url)
    loops = []
    with asyncio.Runner() as other:
        for step in order.split(", "):
            if step == "used":
                other.run(_used(client))
            else:
                assert found(amr.LM("m", client=client)) == [1]
        loops.append(client.close())
        if asyncio.iscoroutine(loops[0]):
            other.run(loops[0])
    first, *rest = [(path, {name: headers.get(name) for name in _SENT}) for path, headers in provider.sent]
    assert first[1]["x-own"] == "1"
    assert first[1]["openai-organization"] == "org-1"
    assert "own=1" in first[0]
    assert ("api-version=2024-10-21" in first[0]) == ("zure" in type(client).__name__)
    assert "mine" in str(first[1])
    assert all(one == first for one in rest)
    assert len(rest) + 1 == len(order.split(", "))


_SENT = ("authorization", "api-key", "openai-organization", "openai-project", "x-own")


def test_a_client_that_was_closed_serves_over_connections_made_here(provider):
    client = CLIENTS["async"](provider.url)

    async def use() -> None:
        async with client:
            await _used(client)

    asyncio.run(use())
    assert found(amr.LM("m", client=client)) == [1]
    assert provider.all_of("x-own") == ["1", "1"]


def test_clients_share_the_connections_of_their_server(provider):
    for make in (CLIENTS["async"], CLIENTS["sync"]):
        client = make(provider.url)
        assert found(amr.LM("m", client=client)) == [1]
        closing = client.close()
        if closing is not None:
            asyncio.run(closing)
    assert provider.connections == 1


def test_azure_s_deployment_and_its_tokens_that_rotate(provider):
    for kind in (openai.AsyncAzureOpenAI, openai.AzureOpenAI):
        keys = Keys()
        client = kind(
            azure_endpoint=provider.url.removesuffix("/v1"), api_version="1", azure_ad_token_provider=keys.next,
        )  # fmt: skip
        lm = amr.LM("deployed", client=client)
        before = OpenAIModel(lm).address
        assert found(lm) + found(lm) == [1, 1]
        assert OpenAIModel(lm).address == before
        closing = client.close()
        if closing is not None:
            asyncio.run(closing)
    assert {path for path, _ in provider.sent} == {"/openai/deployments/deployed/chat/completions?api-version=1"}
    assert provider.all_of("authorization") == ["Bearer key-1", "Bearer key-2"] * 2


def test_a_client_whose_key_is_a_function_keeps_its_address(provider):
    keys = AsyncKeys()
    client = openai.AsyncOpenAI(base_url=provider.url, api_key=keys.soon)
    lm = amr.LM("m", client=client)
    before = OpenAIModel(lm).address
    found(lm)
    found(lm)
    assert OpenAIModel(lm).address == before
    assert provider.all_of("authorization") == ["Bearer key-1", "Bearer key-2"]
    asyncio.run(client.close())


PROXIED = {
    "httpx": lambda url: httpx2.AsyncClient(proxy=url),
    "aiohttp": lambda url: openai.DefaultAioHttpClient(proxy=url),
}


@pytest.mark.parametrize("make", PROXIED.values(), ids=PROXIED)
def test_the_proxy_of_one_s_own_http_client_is_honoured(make, provider):
    proxy = provider.url.removesuffix("/v1")
    client = openai.AsyncOpenAI(base_url="http://model.invalid/v1", api_key="k", http_client=make(proxy))
    with asyncio.Runner() as other:
        other.run(_used(client))
        assert found(amr.LM("m", client=client)) == [1]
        other.run(client.close())
    assert [path for path, _ in provider.sent] == ["http://model.invalid/v1/chat/completions"] * 2


def test_a_transport_of_one_s_own_is_used_as_it_is_and_not_closed(monkeypatch):
    """Certificates that the environment names are none of its business."""
    monkeypatch.setenv("SSL_CERT_FILE", "/proc/nowhere/ca.pem")
    seen: list[str] = []
    closed: list[bool] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(str(request.url))
        content = json.dumps({"findings": [{"unit": 0, "n": 1}]})
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        return httpx2.Response(200, json={"choices": [choice]})

    class Own(httpx2.MockTransport):
        async def aclose(self) -> None:
            closed.append(True)

    http = httpx2.AsyncClient(transport=Own(answer), verify=False)
    client = openai.AsyncOpenAI(base_url="http://model.invalid/v1", api_key="k", http_client=http)
    assert found(amr.LM("m", client=client)) + found(amr.LM("m", client=client)) == [1, 1]
    assert seen == ["http://model.invalid/v1/chat/completions"] * 2
    assert not http.is_closed
    assert closed == []
    asyncio.run(client.close())


def _closed(client):
    asyncio.run(client.close())
    return client


class _Uncopied(openai.AsyncOpenAI):
    def __init__(self) -> None:
        super().__init__(api_key="k", base_url="http://h/v1")


REFUSED = {
    "a sync client with an http_client of its own": (
        lambda: openai.OpenAI(api_key="k", base_url="http://h/v1", http_client=httpx2.Client()), "is not async",
    ),
    "a closed http_client of its own": (
        lambda: _closed(openai.AsyncOpenAI(api_key="k", base_url="http://h/v1", http_client=httpx2.AsyncClient())),
        "is closed",
    ),
    "an http client": (httpx2.AsyncClient, "takes a client of the openai package"),
    "a class of somebody else's that cannot be copied": (
        lambda: _Uncopied(), "a _Uncopied cannot be copied",
    ),
    "a text": (lambda: "sk-secret", "takes a client of the openai package"),
    "a class": (lambda: openai.AsyncOpenAI, "takes a client of the openai package"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "problem"), REFUSED.values(), ids=REFUSED)
def test_a_client_that_cannot_be_used_is_refused_before_the_first_request(make, problem):
    client = make()
    with pytest.raises(amr.UsageError, match=problem) as caught:
        found(amr.LM("m", client=client))
    assert "LM(client=...)" in str(caught.value)
    assert "sk-secret" not in str(caught.value)


def test_a_client_alone_may_stand_for_its_model(provider, monkeypatch):
    monkeypatch.setenv("AMR_MODEL", "from-the-environment")
    for kind in (openai.AsyncOpenAI, openai.OpenAI):
        client = kind(base_url=provider.url, api_key="k")
        assert found(client) == [1]
        closing = client.close()
        if closing is not None:
            asyncio.run(closing)


# Large frames


@pytest.mark.parametrize("verb", ["map", "plan"])
def test_a_frame_that_is_being_prepared_holds_up_no_other_run(verb):
    """Its tokens are counted by a function that waits until another run has ended."""
    counting, over = threading.Event(), threading.Event()

    def count(text: str) -> int:
        counting.set()
        assert over.wait(60)
        return len(text)

    with ScriptedServer(ones) as server:
        large = server.lm("large", token_counter=count)
        options = {"finding": {"n": int}, "lm": large, "journal": False, "progress": False}

        def prepare() -> int:
            if verb == "map":
                return len(rows(3000).amr.map("Which?", **options))
            return len(rows(3000).amr.plan(map="Which?", **options).estimate.__class__.__name__)

        ended: list[int] = []
        thread = threading.Thread(target=lambda: ended.append(prepare()))
        thread.start()
        assert counting.wait(60)
        assert found(server.lm("small"), 3) == [1, 1, 1]
        assert ended == []
        over.set()
        thread.join()
    assert ended[0] > 0


# Forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="takes a fork")
@pytest.mark.long
def test_a_run_of_a_process_is_none_of_its_fork_s(provider):
    code = """
import os
run = amr.start(pd.DataFrame({"text": ["row 0"]}), map="Which?", reduce={"n": "sum"}, finding={"n": int},
                lm=amr.LM("m", base_url=sys.argv[1], api_key="k"), journal=False, progress=False)
child = os.fork()
if child == 0:
    try:
        run.result()
    except amr.UsageError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(run.result().output["n"])
"""
    done = run_python(code, provider.url)
    assert done.stderr == ""
    assert done.stdout.splitlines()[0].startswith("This run is another process's")
    assert done.stdout.splitlines()[1] == "1"


IMPORTING = """
import os, threading
name = sys.argv[2]
begun = threading.Event()

def hook(event, arguments):
    if event == "import" and arguments[0] == name and threading.current_thread() is not threading.main_thread():
        begun.set()

sys.addaudithook(hook)
lm = amr.LM("m", base_url=sys.argv[1], api_key="k")
options = {"finding": {"n": int}, "lm": lm, "journal": False, "progress": False}
run = amr.start(pd.DataFrame({"text": ["row 0"]}), map="Which?", reduce={"n": "sum"}, **options)
assert begun.wait(60)
child = os.fork()
if child == 0:
    signal.alarm(60)
    print("child", call(), flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print("parent", run.result().output["n"])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="takes a fork")
@pytest.mark.parametrize(
    "module", ["openai._models", "aiohttp.client", "tiktoken.core", "pandas_amr.models.openai.model"]
)
@pytest.mark.long
def test_a_fork_while_the_engine_imports_holds_up_no_child(module, provider):
    done = run_python(ONE_CALL + IMPORTING, provider.url, module)
    assert (done.stdout, done.stderr) == ("child [1]\nparent 1\n", "")
