"""Any OpenAI-compatible server, through the ``openai`` client."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any, Self

import httpx2
import openai

from pandas_amr._stopped import contained
from pandas_amr.errors import ModelError, ModelUnavailable
from pandas_amr.models.body import body_of
from pandas_amr.models.clients import client_of
from pandas_amr.models.contact import connect_s, has_answered, note_answer
from pandas_amr.models.counts import usage_of
from pandas_amr.models.error_bodies import read_error_body
from pandas_amr.models.failures import Failures
from pandas_amr.models.headers import limits_of
from pandas_amr.models.reply import is_error, reply_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from pandas_amr.models.base import LM, Limits, Reply, Request

LONGEST_CALL_S = 600.0  # of what is no request to the model: a batch's files


class OpenAIModel:
    """One ``LM`` behind one HTTP client, open while the ``async with`` block runs."""

    def __init__(self, lm: LM) -> None:
        self._lm = lm
        self._owned = lm.client is None
        self._client: openai.AsyncOpenAI = lm.client if lm.client is not None else client_of(lm)
        self._key = str(getattr(self._client, "api_key", "") or "")
        url = self._client.base_url
        self._failures = Failures(lm, url.host, self._key, url.port)

    @property
    def address(self) -> tuple[str, str]:
        """The server and the key, by which its limits are known."""
        return str(self._client.base_url), self._key

    @property
    def server(self) -> str:
        """The address that answers; of Azure with the deployment, which its client adds at each request."""
        url = self._client.base_url
        if isinstance(self._client, openai.AsyncAzureOpenAI) and "/deployments" not in url.path:
            return f"{str(url).rstrip('/')}/deployments/{self._lm.model}"
        return str(url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._owned:
            await self._client.close()

    async def complete(self, request: Request) -> Reply:
        """Answer one turn with one HTTP request."""
        began = time.monotonic()
        # What dribbles in never ends a time-out of the transport's, which is one of each read: `call` ends the whole.
        timeout = httpx2.Timeout(self._lm.timeout_s, **self._connect_timeouts())
        # `post` with a raw response: the typed client spends more on models of the answer than the loopback takes.
        raw = await self.call(
            lambda client: client.post(
                "/chat/completions",
                cast_to=httpx2.Response,
                body=self.body(request),
                options={
                    "max_retries": 0,  # retry, throttle and usage are ours
                    "timeout": timeout,
                    "headers": dict(self._lm.extra_headers or {}),
                },
            ),
            timeout_s=self._lm.timeout_s,
        )
        seconds = time.monotonic() - began
        try:
            answer = json.loads(raw.content)
        except ValueError:
            failure = ModelUnavailable("The server's answer is not JSON.")
            failure.usage = usage_of({}, request, self._lm.model, seconds)
            raise failure from None
        if is_error(answer):  # of a gateway's, as if all was well: what it says is what would have been the status
            body = read_error_body(answer)
            if body.status is not None:
                raise self._failures.status_error(body.status, body, raw.headers)
        return self._reply(answer, request, seconds=seconds, limits=limits_of(raw.headers))

    def _connect_timeouts(self) -> dict[str, float | None]:
        """How long making a connection may take; a server that was never reached is told soon.

        There the time for a place in the pool is bounded, too, since aiohttp counts looking up the name as part of it.
        """
        server = self.address[0]
        seconds = connect_s(self._lm, server)
        looks_up = self._owned and not has_answered(server)
        return {"connect": seconds, "pool": seconds if looks_up else None}

    def _reply(self, answer: Any, request: Request, *, seconds: float, limits: Limits | None) -> Reply:
        """The answer in this library's words.

        Raises:
            ModelError: it cannot be used; what it took is the error's ``usage``.
        """
        usage = usage_of(answer, request, self._lm.model, seconds)
        try:
            return reply_of(answer, usage, limits)
        except ModelError as error:
            error.usage = None if is_error(answer) else usage
            raise

    def body(self, request: Request) -> dict[str, Any]:
        """The request as the protocol spells it."""
        return body_of(self._lm, request)

    def read(self, response: Mapping[str, Any], request: Request) -> Reply:
        """An answer that came in a batch: ``status_code`` and ``body``.

        Raises:
            ModelError: the answer is an error.
        """
        status, answer = int(response.get("status_code") or 0), response.get("body")
        if status == 200:
            return self._reply(answer, request, seconds=0.0, limits=None)
        raise self._failures.status_error(status, read_error_body(answer), {})

    async def call(
        self, work: Callable[[openai.AsyncOpenAI], Awaitable[Any]], *, timeout_s: float = LONGEST_CALL_S
    ) -> Any:
        """Ask the client for something, and have all of it within a time; what goes wrong is told in our words.

        Raises:
            ModelError: the service did not answer.
        """
        try:
            async with asyncio.timeout(timeout_s) as deadline:
                answer = await work(self._client)
        except openai.OpenAIError as error:
            # Raised anew below, outside of this block: the client's errors hold the request, and with it the key.
            failure = self._failures.translated(error)
            if isinstance(error, openai.APIStatusError):
                note_answer(self.address[0])
        except TimeoutError:
            if not deadline.expired():  # of a client of the user's
                raise
            failure = self._failures.timed_out()
        except ValueError:  # a 200 whose body is not JSON
            failure = ModelUnavailable("The server's answer is not JSON.")
        except (KeyboardInterrupt, SystemExit) as raised:  # of a client of the user's; they would end the loop
            raise contained(raised) from raised
        else:
            note_answer(self.address[0])
            return answer
        raise failure
