"""Any OpenAI-compatible server, through the ``openai`` client."""

from __future__ import annotations

import asyncio
import contextlib
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import httpx2
import openai

from pandas_amr._records.clock import CLOCK
from pandas_amr._records.engine import in_thread
from pandas_amr._records.raised import contained
from pandas_amr.errors import ModelConfigError, ModelError, ModelUnavailable
from pandas_amr.models.acceptance import acceptance_of
from pandas_amr.models.contact import connect_s, has_answered, note_answer
from pandas_amr.models.counts import usage_of
from pandas_amr.models.openai.addresses import address_of, key_of, secret_values
from pandas_amr.models.openai.clients import OwnClient, platform, spare_platform
from pandas_amr.models.openai.connections import Connections, connections_to
from pandas_amr.models.openai.error_bodies import read_error_body
from pandas_amr.models.openai.failures import BROKEN_ANSWERS, Failures
from pandas_amr.models.openai.headers import cost_of, limits_of
from pandas_amr.models.openai.keys import Key
from pandas_amr.models.openai.reply import is_error, read_body, reply_of
from pandas_amr.models.openai.settings import sent_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from pandas_amr._records.usage import Usage
    from pandas_amr.models.base import LM, Limits, Reply, Request


class OpenAIModel:
    """One ``LM`` behind one HTTP client, open from its first request to ``close``, or the end of an ``async with``.

    Raises:
        UsageError: the address, the key or the client cannot be used.
    """

    def __init__(self, lm: LM) -> None:
        self._lm = lm
        self._own = OwnClient(lm.client) if lm.client is not None else None
        self._key = (
            key_of(lm) if self._own is None else Key(self._own.key, "LM(client=...)", lm.timeout_s)
        )
        self._url = address_of(lm) if self._own is None else str(self._own.client.base_url)
        address = urlsplit(self._url)
        self._failures = Failures(lm, address.hostname or "", self._secrets, address.port)
        self._acceptance = acceptance_of(self._url, self._key.name, lm.model)
        self._opening = asyncio.Lock()
        self._client: openai.AsyncOpenAI | None = None
        self._connections: Connections | None = None

    @property
    def lm(self) -> LM:
        """Which model it is, and how it is asked."""
        return self._lm

    @property
    def address(self) -> tuple[str, str]:
        """The server, and what its limits are known by: the key, or the name of the function that gives it."""
        return self._url, self._key.name

    @property
    def server(self) -> str:
        """The address that answers; of Azure with the deployment, which its client adds at each request."""
        azure = self._own is not None and isinstance(
            self._own.client, openai.AzureOpenAI | openai.AsyncAzureOpenAI
        )
        if azure and "/deployments" not in httpx2.URL(self._url).path:
            return f"{self._url.rstrip('/')}/deployments/{self._lm.model}"
        return self._url

    def _secrets(self) -> tuple[str, ...]:
        """What no text may show."""
        own = self._own.secrets if self._own is not None else ()
        return (*self._key.secrets, *own, *secret_values(self._lm.extra_headers))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let the connections go; they are kept for the next run."""
        if self._connections is not None:
            connections, self._connections, self._client = self._connections, None, None
            await connections.release()

    async def open(self) -> openai.AsyncOpenAI:
        """The client, connected; what takes long at the first one of a process is done off the loop.

        Raises:
            ModelConfigError: no HTTP client can be made here.
        """
        async with self._opening:
            if self._client is None:
                if not platform.cache_info().currsize:
                    await in_thread(platform)
                self._connections = await self._connected()
                self._client = spare_platform(self._made(self._connections.http))
            return self._client

    async def _connected(self) -> Connections:
        if self._own is not None and self._own.has_own_http:
            return Connections(self._own.http_client(), users=1)
        return await connections_to(self._url)

    def _made(self, http: httpx2.AsyncClient) -> openai.AsyncOpenAI:
        """The client over some connections."""
        if self._own is not None:
            return self._own.over(http, self._key)
        # The client insists on a key, of servers without keys too.
        key = self._key.current if self._key.rotates else self._key.name or "none"
        return openai.AsyncOpenAI(api_key=key, base_url=self._url, http_client=http, max_retries=0)

    async def complete(self, request: Request) -> Reply:
        """Answer one turn with one HTTP request.

        Raises:
            ModelError: the service did not answer; or as it says, which is about this request alone if it has answered
                others: a row that a filter does not let pass is no reason to end the run.
        """
        with self._acceptance.attempt():
            try:
                return await self._complete(request)
            except ModelConfigError as error:
                failure = error
            if failure.of_request is not None and await self._acceptance.is_accepted():
                raise failure.of_request
            raise failure

    async def _complete(self, request: Request) -> Reply:
        body = self.body(request)
        began = CLOCK.now()
        # What dribbles in never ends a time-out of the transport's, which is one of each read: `call` ends the whole.
        timeout = httpx2.Timeout(self._lm.timeout_s, **self._connect_timeouts())
        # `post` with a raw response: the typed client spends more on models of the answer than the loopback takes.
        raw = await self.call(
            lambda client: client.post(
                "/chat/completions",
                cast_to=httpx2.Response,
                body=body,
                options={
                    "max_retries": 0,  # retry, throttle and usage are ours
                    "timeout": timeout,
                    "headers": dict(self._lm.extra_headers or {}),
                },
            ),
            timeout_s=self._lm.timeout_s,
        )
        seconds = CLOCK.now() - began
        try:
            answer = read_body(raw.content)
        except ModelError as error:
            error.usage = usage_of({}, request, self._lm.model, seconds, cost=cost_of(raw.headers))
            raise
        if is_error(
            answer
        ):  # of a gateway's, as if all was well: what it says is what would have been the status
            told = read_error_body(answer)
            if told.status is not None:
                raise self._failures.status_error(told.status, told, raw.headers)
        usage = usage_of(answer, request, self._lm.model, seconds, cost=cost_of(raw.headers))
        return self._reply(answer, usage, limits_of(raw.headers))

    def _connect_timeouts(self) -> dict[str, float | None]:
        """How long making a connection may take; a server that was never reached is told soon.

        There the time for a place in the pool is bounded, too, since aiohttp counts looking up the name as part of it.
        """
        server = self.address[0]
        seconds = connect_s(self._lm, server)
        looks_up = self._own is None and not has_answered(server)
        return {"connect": seconds, "pool": seconds if looks_up else None}

    def _reply(self, answer: Any, usage: Usage, limits: Limits | None) -> Reply:
        """The answer in this library's words.

        Raises:
            ModelError: it cannot be used; what it took is the error's ``usage``.
        """
        if not is_error(answer):
            self._acceptance.accept()
        try:
            return reply_of(answer, usage, limits)
        except ModelError as error:
            error.usage = None if is_error(answer) else usage
            raise

    def body(self, request: Request) -> dict[str, Any]:
        """The request as the protocol spells it, without what this model is known to refuse."""
        return sent_body(self._lm, self.address[0], request)

    def read(self, response: Mapping[str, Any], request: Request) -> Reply:
        """An answer that came in a batch: ``status_code`` and ``body``.

        Raises:
            ModelError: the answer is an error.
        """
        status, answer = _number(response.get("status_code")), response.get("body")
        if isinstance(answer, str):  # JSON in JSON
            with contextlib.suppress(ValueError, RecursionError):
                answer = json.loads(answer)
        has_answer = isinstance(answer, dict) and bool(answer.get("choices"))
        if status in range(200, 300) or (status is None and has_answer):
            return self._reply(answer, usage_of(answer, request, self._lm.model, 0.0), None)
        failure = self._batch_failure(status, answer)
        if isinstance(answer, dict) and isinstance(
            answer.get("usage"), dict
        ):  # refused, and paid for
            failure.usage = usage_of(answer, request, self._lm.model, 0.0)
        raise failure

    def _batch_failure(self, status: int | None, answer: Any) -> ModelError:
        """The failure of one request of a batch; one of the configuration is for the ordinary way to judge."""
        told = read_error_body(answer)
        if status is None or status < HTTPStatus.BAD_REQUEST:
            said = self.without_key(told.message or "no reason given")
            return ModelUnavailable(f"The batch has no usable answer to this request: {said}.")
        return self._failures.status_error(status, told, {})

    def without_key(self, text: str) -> str:
        """A server's text, bounded and without what no text may show."""
        return self._failures.scrubbed(text)

    async def call(
        self, work: Callable[[openai.AsyncOpenAI], Awaitable[Any]], *, timeout_s: float
    ) -> Any:
        """Ask the client for something, and have all of it within a time; what goes wrong is told in our words.

        Raises:
            ModelError: the service did not answer.
        """
        try:
            async with asyncio.timeout(timeout_s) as deadline:
                answer = await work(self._client or await self.open())
        except openai.OpenAIError as error:
            # Raised anew below, outside of this block: the client's errors hold the request, and with it the key.
            failure = self._failures.translated(error)
            if isinstance(error, openai.APIStatusError):
                note_answer(self.address[0])
        except ModelError:  # no client can be made
            raise
        except Exception as error:
            if isinstance(error, TimeoutError) and deadline.expired():
                failure = self._failures.timed_out(timeout_s)
            elif self._own is None or isinstance(error, BROKEN_ANSWERS):
                failure = self._failures.unreadable(error)
            else:  # a bug in a client of the user's
                raise
        except (
            KeyboardInterrupt,
            SystemExit,
        ) as raised:  # of a client of the user's; they would end the loop
            raise contained(raised) from raised
        else:
            note_answer(self.address[0])
            return answer
        raise failure


def _number(status: Any) -> int | None:
    """A status that may have been written as a text or with a decimal point; None if it is none."""
    try:
        return int(float(status)) if not isinstance(status, bool) else None
    except (TypeError, ValueError, OverflowError):
        return None
