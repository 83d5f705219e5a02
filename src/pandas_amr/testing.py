"""Play the provider: an OpenAI-compatible server on loopback whose answers a Python function gives.

For tests of pipelines, one's own and this library's: the real client talks HTTP to it, nothing is patched, no key is
needed and nothing is paid. What the function does not answer fails the test.

Example:
    >>> import pandas as pd, pandas_amr as amr
    >>> def provider(request):
    ...     return findings(request, lambda unit: {"mood": "good" if "nice" in unit["text"] else "bad"})
    >>> df = pd.DataFrame({"text": ["a nice day", "rain"]})
    >>> with ScriptedServer(provider) as server:
    ...     df.amr.map("What is the mood?", finding={"mood": ["good", "bad"]}, lm=server.lm())["mood"].tolist()
    ['good', 'bad']
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from pandas_amr._agent.answers import loads
from pandas_amr.models.base import LM
from pandas_amr.models.structured.forms import WORDS
from pandas_amr.models.throttle.rates import Bucket

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "Call",
    "Drop",
    "RateLimit",
    "Raw",
    "ScriptedRequest",
    "ScriptedServer",
    "Status",
    "findings",
]

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 0.05  # for requests that are still under way; 0 would be no bound at all
CHARACTERS_PER_TOKEN = 4
ALL_AGAIN = "Report those of all units again."
IN_WORDS = re.compile("\n\n" + WORDS.format(r"(\w+)"))
FENCE = re.compile(r"^```(\w+)\n(.*?)\n?^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class ScriptedRequest:
    """One chat completion as the provider sees it.

    Attributes:
        number: its number among the requests, from 0.
        body: the whole JSON body.
        headers: the HTTP headers, names in lower case.
    """

    number: int
    body: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation."""
        return list(self.body.get("messages", ()))

    @property
    def system(self) -> str:
        """The first message: what the agent is told to be."""
        return (
            str(self.messages[0]["content"])
            if self.messages and self.messages[0]["role"] == "system"
            else ""
        )

    @property
    def user(self) -> str:
        """The last thing said by the user."""
        return next((str(m["content"]) for m in reversed(self.messages) if m["role"] == "user"), "")

    @property
    def tools(self) -> list[str]:
        """The names of the tools that the agent may call."""
        return [tool["function"]["name"] for tool in self.body.get("tools", ())]

    @property
    def tool_results(self) -> list[str]:
        """What tools have answered so far."""
        return [str(message["content"]) for message in self.messages if message["role"] == "tool"]

    @property
    def schema(self) -> str | None:
        """The name of the schema that the answer must follow: ``findings``, ``finding``, ``reduction`` or ``plan``.

        ``code`` where code is to be written in place of calls; None where code alone hands in, or nothing is said.
        """
        wanted = self.body.get("response_format", {}).get("json_schema", {})
        if "name" in wanted:
            return str(wanted["name"])
        handed_in = [
            name.removeprefix("submit_") for name in self.tools if name.startswith("submit_")
        ]
        in_words = IN_WORDS.search(self.user)
        return handed_in[0] if handed_in else in_words.group(1) if in_words else None

    @property
    def units(self) -> list[dict[str, Any]]:
        """The shard's units, each with its number and its content."""
        return self._lines("units")

    @property
    def findings(self) -> list[dict[str, Any]]:
        """What a reducer got to read, each with its number."""
        return self._lines("findings")

    @property
    def repairs(self) -> list[int]:
        """The unit numbers that a repair turn asks for again; empty where it is none."""
        if len([m for m in self.messages if m["role"] == "user"]) < 2:
            return []
        if ALL_AGAIN in self.user:
            return [int(unit["unit"]) for unit in self.units]
        numbers: list[int] = []
        for ranges in re.findall(r"^- units? ([\d, to]+): ", self.user, re.MULTILINE):
            for part in ranges.split(", "):
                first, _, last = part.partition(" to ")
                numbers += range(int(first), int(last or first) + 1)
        return numbers

    def _lines(self, kind: str) -> list[dict[str, Any]]:
        for message in self.messages:
            if message["role"] != "user":
                continue
            for fence, block in FENCE.findall(str(message["content"])):
                if fence == kind:
                    return [loads(line) for line in block.split("\n") if line]
            if kind == "units" and self.schema == "finding":
                return [loads(IN_WORDS.split(message["content"])[0])]
        return []


@dataclass(frozen=True)
class Call:
    """A tool call in an answer; a list of them is one turn with several."""

    name: str
    arguments: Mapping[str, Any] | str


@dataclass(frozen=True)
class Status:
    """An HTTP error in place of an answer."""

    status: int
    message: str = "scripted"
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw:
    """An answer spelled out: a whole response body, or a choice's parts such as ``finish_reason`` and ``refusal``.

    ``usage`` is what the answer tells of its tokens, in place of what they are by length; ``headers`` come with it.
    """

    text: str | None = None
    body: str | None = None
    finish_reason: str = "stop"
    refusal: str | None = None
    usage: Any = ...
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Drop:
    """The connection is reset in place of an answer."""


@dataclass
class RateLimit:
    """A provider's limits: requests and tokens a minute, with a burst.

    Args:
        rpm: requests a minute.
        tpm: tokens a minute, input and output together.
        burst_s: how many seconds' worth may come at once.
        headers: whether answers tell of the limits in ``x-ratelimit-*`` headers.
        retry_after: whether a 429 says how long to wait.
    """

    rpm: float | None = None
    tpm: float | None = None
    burst_s: float = 1.0
    headers: bool = True
    retry_after: bool = False
    _buckets: dict[str, Bucket] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for what, limit in (("requests", self.rpm), ("tokens", self.tpm)):
            if limit is not None:
                burst = max(1.0, limit / 60 * self.burst_s)
                self._buckets[what] = Bucket(limit / 60, burst, burst, time.monotonic())

    def admits(self) -> bool:
        """Whether a request that comes now is within the limits; it is then counted."""
        for bucket in self._buckets.values():
            bucket.refill(time.monotonic())
        if any(
            bucket.level < (1 if what == "requests" else 0)
            for what, bucket in self._buckets.items()
        ):
            return False
        self.spend("requests", 1)
        return True

    def spend(self, what: str, amount: float) -> None:
        """Count ``amount`` of requests or tokens."""
        if what in self._buckets:
            self._buckets[what].level -= amount

    def told(self, *, refused: bool) -> dict[str, str]:
        """The headers of an answer."""
        headers: dict[str, str] = {}
        for what, bucket in self._buckets.items() if self.headers else ():
            missing_s = max(0.0, (bucket.burst - bucket.level) / bucket.rate)
            headers[f"x-ratelimit-limit-{what}"] = f"{bucket.rate * 60:.0f}"
            headers[f"x-ratelimit-remaining-{what}"] = f"{max(0.0, bucket.level):.0f}"
            headers[f"x-ratelimit-reset-{what}"] = f"{missing_s * 1000:.0f}ms"
        if refused and self.retry_after:
            longest = max(
                (-min(0.0, b.level - 1) / b.rate for b in self._buckets.values()), default=0.0
            )
            headers["retry-after-ms"] = f"{longest * 1000:.0f}"
        return headers


Script = Callable[[ScriptedRequest], Any]


def findings(
    request: ScriptedRequest, find: Callable[[dict[str, Any]], Mapping[str, Any]]
) -> dict[str, Any]:
    """Answer a map agent's request: ``find`` gives the fields of one unit's finding.

    In a repair turn only the units asked for again are answered.
    """
    units = request.units
    if request.schema == "finding":
        return dict(find(units[0]))
    wanted = request.repairs or [unit["unit"] for unit in units]
    return {
        "findings": [
            {"unit": unit["unit"], **find(unit)} for unit in units if unit["unit"] in wanted
        ]
    }


class ScriptedServer:
    """The provider, on 127.0.0.1, while the ``with`` block runs.

    Args:
        script: gives the answer to a request, sync or async: a dict (handed in the way the request asks for: as a
            schema response or through the submission tool), a text, a ``Call`` or a list of them, ``Status``, ``Raw``,
            ``Drop``; or None for a request that the script does not know, which fails the test.
        latency_s: seconds that each answer takes, or a function of the request that gives them.
        usage: whether answers tell their tokens, estimated by length.
        port: the port to listen on; 0 takes a free one.
        limit: the provider's limits; what is over them is answered 429, without asking the script.

    Attributes:
        requests: all requests, in the order in which they came.
        in_flight: requests under way now.
        max_in_flight: the most that ever were under way at once.
        batches: the batches that were created, by id.
        batch_polls: how often a batch is asked after before it has ended.
        batch_answers: how many requests of a batch are answered before it expires.
        batch_lists: whether it lists its batches and files, as OpenAI does and few compatible servers do.
        refused: how many requests were answered 429 by ``limit``.
        tokens: how many tokens its answers took, those of the prompts among them, whatever it tells of them.

    Raises:
        AssertionError: at the end of the block, when a request was not answered by the script.
    """

    def __init__(
        self,
        script: Script,
        *,
        latency_s: float | Callable[[ScriptedRequest], float] = 0.0,
        usage: bool = True,
        limit: RateLimit | None = None,
        port: int = 0,
    ) -> None:
        self._script = script
        self._latency = latency_s
        self._usage = usage
        self._limit = limit
        self._port = port
        self._name = secrets.token_hex(4)
        self.refused = 0
        self._problems: list[str] = []
        self._systems: set[str] = set()
        self._files: dict[str, str] = {}
        self._uploads: dict[str, dict[str, Any]] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.batch_polls = 2
        self.batch_answers = 10**9
        self.batch_lists = False
        self.requests: list[ScriptedRequest] = []
        self.tokens = 0
        self.in_flight = 0
        self.max_in_flight = 0
        self.base_url = ""

    def lm(self, model: str = "scripted", **options: Any) -> LM:
        """The ``LM`` that talks to this server.

        A journal knows it by the model's name, since the port is another one each time; with ``journal_as=None`` by the
        address, as any server.
        """
        given: dict[str, Any] = {
            "base_url": self.base_url,
            "api_key": "scripted-key",
            "journaled": False,
            "journal_as": model,
        }
        return LM(model, **given | options)

    def __enter__(self) -> Self:
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="scripted-server", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_TIMEOUT_S):
            raise RuntimeError("The scripted server did not start.")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._problems:
            raise AssertionError("; ".join(self._problems[:3])) from error

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=2**30)
        # What is learned of a server is known by its address. Ports come round again, so each has a path of its own.
        for root in (f"/{self._name}/v1", "/v1"):
            app.router.add_post(f"{root}/chat/completions", self._complete)
            app.router.add_post(
                f"{root}/deployments/{{deployment}}/chat/completions", self._complete
            )  # as Azure has it
            app.router.add_post(f"{root}/files", self._upload)
            app.router.add_get(f"{root}/files", self._list_files)
            app.router.add_get(f"{root}/files/{{id}}/content", self._download)
            app.router.add_post(f"{root}/batches", self._create_batch)
            app.router.add_get(f"{root}/batches", self._list_batches)
            app.router.add_get(f"{root}/batches/{{id}}", self._show_batch)
            app.router.add_get(f"{root}/models", self._models)
        runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=STOP_TIMEOUT_S, handler_cancellation=True
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self._port, backlog=1024, reuse_address=True)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.base_url = f"http://{host}:{port}/{self._name}/v1"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _models(self, request: web.Request) -> web.Response:
        del request
        return web.json_response(
            {"object": "list", "data": [{"id": "scripted", "object": "model"}]}
        )

    async def _upload(self, http: web.Request) -> web.Response:
        return web.json_response(
            self._kept(*_uploaded(http.headers["Content-Type"], await http.read()))
        )

    def _kept(self, text: str, filename: str | None = None) -> dict[str, Any]:
        name = f"file-{len(self._files)}"
        self._files[name] = text
        self._uploads[name] = {
            "object": "file",
            "id": name,
            "bytes": len(text.encode()),
            "created_at": 0,
            "filename": filename or name,
            "purpose": "batch",
            "status": "processed",
        }
        return self._uploads[name]

    async def _list_files(self, http: web.Request) -> web.Response:
        return self._listed(list(self._uploads.values()), http)

    async def _list_batches(self, http: web.Request) -> web.Response:
        return self._listed([_batch_now(batch) for batch in self.batches.values()], http)

    def _listed(self, entries: list[dict[str, Any]], http: web.Request) -> web.Response:
        if not self.batch_lists:
            return web.json_response({"error": {"message": "method not allowed"}}, status=405)
        return web.json_response(_page(entries, http.query))

    async def _download(self, http: web.Request) -> web.Response:
        return web.Response(text=self._files[http.match_info["id"]])

    async def _create_batch(self, http: web.Request) -> web.Response:
        asked = await http.json()
        lines = [json.loads(line) for line in self._files[asked["input_file_id"]].splitlines()]
        done: list[str] = []
        failed: list[str] = []
        for line in lines[: self.batch_answers]:
            request = ScriptedRequest(len(self.requests), line["body"])
            self.requests.append(request)
            answer = await self._answer(request)
            refused = isinstance(answer, Status)
            body = (
                {"error": {"message": answer.message, "code": answer.code}}
                if refused
                else self._completion(request, answer)
            )
            response = {"status_code": answer.status if refused else 200, "body": body}
            (failed if refused else done).append(
                json.dumps({"custom_id": line["custom_id"], "response": response})
            )
        batch = {
            "id": f"batch-{len(self.batches)}",
            "object": "batch",
            "endpoint": asked["endpoint"],
            "completion_window": "24h",
            "created_at": 0,
            "input_file_id": asked["input_file_id"],
            "metadata": asked.get("metadata"),
            "output_file_id": self._kept("\n".join(done))["id"] if done else None,
            "error_file_id": self._kept("\n".join(failed))["id"] if failed else None,
            "polls": self.batch_polls,
            "ends": "completed" if len(lines) <= self.batch_answers else "expired",
        }
        self.batches[batch["id"]] = batch
        return web.json_response(_batch_now(batch))

    async def _show_batch(self, http: web.Request) -> web.Response:
        batch = self.batches.get(http.match_info["id"])
        if batch is None:
            return web.json_response({"error": {"message": "no such batch"}}, status=404)
        batch["polls"] -= 1
        return web.json_response(_batch_now(batch))

    async def _complete(self, http: web.Request) -> web.StreamResponse:
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            headers = {name.lower(): value for name, value in http.headers.items()}
            body = (
                await http.json()
            )  # others may come meanwhile: it has its number once it is there as a whole
            request = ScriptedRequest(len(self.requests), body, headers)
            self.requests.append(request)
            if self._limit is not None and not self._limit.admits():
                self.refused += 1
                return self._response(
                    http, request, Status(429, "rate limit", headers=self._limit.told(refused=True))
                )
            latency = self._latency(request) if callable(self._latency) else self._latency
            if latency:
                await asyncio.sleep(latency)
            return self._response(http, request, await self._answer(request))
        finally:
            self.in_flight -= 1

    async def _answer(self, request: ScriptedRequest) -> Any:
        try:
            answer = self._script(request)
            if inspect.isawaitable(answer):
                answer = await _typed(answer)
        except Exception as error:  # noqa: BLE001 (the script is the test's; the test is told at the end)
            self._problems.append(
                f"the script raised {type(error).__name__} on request {request.number}: {error}"
            )
            return Status(400, "the script raised")
        if answer is None:
            shown = request.user[:200]
            self._problems.append(
                f"request {request.number} (schema {request.schema}) is not in the script: {shown}"
            )
            return Status(400, "not in the script")
        return answer

    def _response(
        self, http: web.Request, request: ScriptedRequest, answer: Any
    ) -> web.StreamResponse:
        match answer:
            case Status():
                said = {
                    "error": {"message": answer.message, "type": "scripted", "code": answer.code}
                }
                return web.json_response(said, status=answer.status, headers=dict(answer.headers))
            case Drop():
                assert http.transport is not None
                http.transport.abort()
                return web.Response()
            case Raw(body=str() as body):
                return web.Response(
                    text=body, content_type="application/json", headers=dict(answer.headers)
                )
        before = self.tokens
        completion = self._completion(request, answer)
        told: dict[str, str] = dict(answer.headers) if isinstance(answer, Raw) else {}
        if self._limit is not None:
            self._limit.spend("tokens", self.tokens - before)
            told |= self._limit.told(refused=False)
        if not self._usage:
            del completion["usage"]
        return web.json_response(completion, headers=told)

    def _completion(self, request: ScriptedRequest, answer: Any) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None}
        reason = "stop"
        match answer:
            case Raw():
                message |= {"content": answer.text, "refusal": answer.refusal}
                reason = answer.finish_reason
            case str():
                message["content"] = answer
            case dict() if request.tools and request.schema:
                message["tool_calls"] = _spelled([Call(f"submit_{request.schema}", answer)])
            case dict():
                message["content"] = json.dumps(answer)
            case Call() | list():
                message["tool_calls"] = _spelled(answer if isinstance(answer, list) else [answer])
            case _:
                raise TypeError(f"A script cannot answer with {answer!r}.")
        if message.get("tool_calls"):
            reason = "tool_calls"
        spoken = json.dumps(message.get("content") or message.get("tool_calls") or "")
        asked = sum(len(str(m.get("content") or "")) for m in request.messages)
        tokens = [asked // CHARACTERS_PER_TOKEN, len(spoken) // CHARACTERS_PER_TOKEN]
        seen = request.system in self._systems  # as a provider's prompt cache knows a prefix again
        self._systems.add(request.system)
        cached = {"cached_tokens": len(request.system) // CHARACTERS_PER_TOKEN if seen else 0}
        usage: Any = {
            "prompt_tokens_details": cached,
            "prompt_tokens": tokens[0],
            "completion_tokens": tokens[1],
            "total_tokens": sum(tokens),
        }
        self.tokens += sum(tokens)
        if isinstance(answer, Raw) and answer.usage is not ...:
            usage = answer.usage
        return {
            "id": f"scripted-{request.number}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": request.body.get("model", "scripted"),
            "choices": [{"index": 0, "message": message, "finish_reason": reason}],
            "usage": usage,
        }


def _page(entries: list[dict[str, Any]], query: Mapping[str, str]) -> dict[str, Any]:
    """A page of a list, the newest first, after the entry that ``after`` names."""
    newest_first = entries[::-1]
    names = [entry["id"] for entry in newest_first]
    start = names.index(query["after"]) + 1 if query.get("after") in names else 0
    page = newest_first[start : start + int(query.get("limit", 20))]
    more = start + len(page) < len(entries)
    return {"object": "list", "data": page, "has_more": more}


def _uploaded(content_type: str, body: bytes) -> tuple[str, str | None]:
    """Read the file of a form, and its name; aiohttp's reader warns of itself where a chunk ends in a boundary."""
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = re.search(rb'filename="([^"]*)"', head)
        if b'name="file"' in head:
            return content.removesuffix(b"\r\n").decode(), name and name[1].decode()
    raise ValueError("The form has no file.")


def _batch_now(batch: dict[str, Any]) -> dict[str, Any]:
    ended = batch["polls"] <= 0
    hidden = {} if ended else {"output_file_id": None, "error_file_id": None}
    return {**batch, **hidden, "status": batch["ends"] if ended else "in_progress"}


async def _typed(answer: Awaitable[Any]) -> Any:
    return await answer


def _spelled(calls: list[Call]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call-{number}",
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": call.arguments
                if isinstance(call.arguments, str)
                else json.dumps(dict(call.arguments)),
            },
        }
        for number, call in enumerate(calls)
    ]
