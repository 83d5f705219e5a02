"""The server of a scripted provider."""

from __future__ import annotations

import asyncio
import inspect
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from pandas_amr._records.pickles import refuse_pickling
from pandas_amr.models.base import LM
from pandas_amr.testing.answers import Drop, Raw, Status
from pandas_amr.testing.batches import BatchEndpoints
from pandas_amr.testing.request import ScriptedRequest

if TYPE_CHECKING:
    from types import TracebackType

    from pandas_amr.testing.limits import RateLimit

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 0.05  # for requests that are still running; 0 would mean no limit
TURNS_OF_ACCEPTING = 4
LONGEST_BODY = 2**30
LONGEST_QUEUE = 1024
SHOWN_CHARACTERS = 200
SHOWN_PROBLEMS = 3

Script = Callable[[ScriptedRequest], Any]


async def stop_accepting(listening: Sequence[socket.socket]) -> None:
    """Accept no more, and let what was accepted become connections that the server can close.

    A server that is closed before drops the sockets between an accept and the first step of its
    handler, which takes asyncio some turns of the loop, and leaves them open.
    """
    loop = asyncio.get_running_loop()
    for one in listening:
        loop.remove_reader(one.fileno())
    for _ in range(TURNS_OF_ACCEPTING):
        await asyncio.sleep(0)


class ScriptedServer(BatchEndpoints):
    """The provider, on 127.0.0.1, during the ``with`` block.

    Args:
        script: returns the answer to a request, sync or async: a dict (sent as the request wants
            it: as a schema response or through the submission tool), a text, a ``Call`` or a list
            of them, ``Status``, ``Raw``, ``Drop``; or None for a request that is not in the
            script, which fails the test.
        latency_s: seconds that each answer takes, or a function of the request that returns them.
        usage: whether answers state their tokens, estimated by length.
        port: the port to listen on; 0 takes a free one.
        limit: the provider's rate limits; a request above them is answered 429 without the script.

    Attributes:
        requests: all requests, in the order in which they came.
        in_flight: how many requests are running now.
        max_in_flight: how many requests ran at once at most.
        batches: the batches that were created, by id.
        batch_polls: how many polls a batch takes before it has ended.
        batch_answers: how many requests of a batch are answered before it expires.
        batch_lists: whether it lists its batches and files, as OpenAI does and few compatible
            servers do.
        refused: how many requests ``limit`` answered 429.
        tokens: how many tokens prompts and answers took, whatever the answers state.

    Raises:
        AssertionError: at the end of the block, if the script did not answer a request.
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
        super().__init__()
        self._script = script
        self._latency = latency_s
        self._usage = usage
        self._limit = limit
        self._port = port
        self._name = secrets.token_hex(4)
        self._problems: list[str] = []
        self.refused = 0
        self.in_flight = 0
        self.max_in_flight = 0
        self.base_url = ""

    __reduce_ex__ = refuse_pickling(
        "A scripted server", "Take server.lm() to the other process, and set OPENAI_API_KEY there."
    )

    @property
    def tokens(self) -> int:
        """How many tokens prompts and answers took."""
        return self._writer.tokens

    def lm(self, model: str = "scripted", **options: Any) -> LM:
        """Return the ``LM`` that talks to this server.

        A journal identifies it by the model's name, since the port changes each time; with
        ``journal_as=None`` by the address, as any server.
        """
        defaults: dict[str, Any] = {
            "base_url": self.base_url,
            "api_key": "scripted-key",
            "journaled": False,
            "journal_as": model,
        }
        return LM(model, **defaults | options)

    def __enter__(self) -> Self:
        self._ready = threading.Event()
        self._loop = asyncio.SelectorEventLoop()
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
            raise AssertionError("; ".join(self._problems[:SHOWN_PROBLEMS])) from error

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._run())
        self._loop.close()

    async def _run(self) -> None:
        self._stop = asyncio.Event()
        runner = web.AppRunner(
            self._application(),
            access_log=None,
            shutdown_timeout=STOP_TIMEOUT_S,
            handler_cancellation=True,
        )
        await runner.setup()
        listening = socket.create_server(("127.0.0.1", self._port), backlog=LONGEST_QUEUE)
        await web.SockSite(runner, listening, backlog=LONGEST_QUEUE).start()
        host, port = listening.getsockname()
        self.base_url = f"http://{host}:{port}/{self._name}/v1"
        self._ready.set()
        await self._stop.wait()
        await stop_accepting([listening])
        await runner.cleanup()

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=LONGEST_BODY)
        # What the library learns about a server is stored by its address. Ports are reused, so
        # each server has a path of its own.
        for root in (f"/{self._name}/v1", "/v1"):
            azure = f"{root}/deployments/{{deployment}}"
            app.router.add_post(f"{root}/chat/completions", self._complete)
            app.router.add_post(f"{azure}/chat/completions", self._complete)
            app.router.add_get(f"{root}/models", self._list_models)
            self._add_batch_routes(app.router, root)
        return app

    async def _list_models(self, http: web.Request) -> web.Response:
        del http
        model = {"id": "scripted", "object": "model"}
        return web.json_response({"object": "list", "data": [model]})

    async def _complete(self, http: web.Request) -> web.StreamResponse:
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            # Other requests may arrive meanwhile: the number is given once the body is complete.
            body = await http.json()
            headers = {name.lower(): value for name, value in http.headers.items()}
            request = ScriptedRequest(len(self.requests), body, headers)
            self.requests.append(request)
            return self._response(http, request, await self._limited_answer(request))
        finally:
            self.in_flight -= 1

    async def _limited_answer(self, request: ScriptedRequest) -> Any:
        """Return the script's answer after the latency, or a 429 above the limits."""
        if self._limit is not None and not self._limit.admits():
            self.refused += 1
            headers = self._limit.response_headers(refused=True)
            return Status(429, "rate limit", headers=headers)
        latency = self._latency(request) if callable(self._latency) else self._latency
        if latency:
            await asyncio.sleep(latency)
        return await self._answer(request)

    async def _answer(self, request: ScriptedRequest) -> Any:
        try:
            answer = self._script(request)
            if inspect.isawaitable(answer):
                answer = await answer
        except Exception as error:  # noqa: BLE001 (reported at the end of the block)
            raised = f"{type(error).__name__} on request {request.number}: {error}"
            self._problems.append(f"the script raised {raised}")
            return Status(400, "the script raised")
        if answer is None:
            which = f"request {request.number} (schema {request.schema})"
            shown = request.user[:SHOWN_CHARACTERS]
            self._problems.append(f"{which} is not in the script: {shown}")
            return Status(400, "not in the script")
        return answer

    def _response(
        self, http: web.Request, request: ScriptedRequest, answer: Any
    ) -> web.StreamResponse:
        match answer:
            case Status():
                error = {"message": answer.message, "type": "scripted", "code": answer.code}
                return web.json_response(
                    {"error": error}, status=answer.status, headers=dict(answer.headers)
                )
            case Drop():
                assert http.transport is not None
                http.transport.abort()
                return web.Response()
            case Raw(body=str() as body):
                return web.Response(
                    text=body, content_type="application/json", headers=dict(answer.headers)
                )
        tokens_before = self.tokens
        completion = self._writer.write(request, answer)
        headers = dict(answer.headers) if isinstance(answer, Raw) else {}
        if self._limit is not None:
            self._limit.spend("tokens", self.tokens - tokens_before)
            headers |= self._limit.response_headers(refused=False)
        if not self._usage:
            del completion["usage"]
        return web.json_response(completion, headers=headers)
