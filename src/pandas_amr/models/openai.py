"""Any OpenAI-compatible server, through the ``openai`` client."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any, Self

import httpx2
import openai

from pandas_amr._stopped import contained
from pandas_amr.errors import ModelError, ModelUnavailable
from pandas_amr.models.body import body_of
from pandas_amr.models.clients import client_of
from pandas_amr.models.counts import usage_of
from pandas_amr.models.failures import Failures
from pandas_amr.models.headers import limits_of
from pandas_amr.models.reply import is_error, reply_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from pandas_amr.models.base import LM, Limits, Reply, Request


class OpenAIModel:
    """One ``LM`` behind one HTTP client, open while the ``async with`` block runs."""

    def __init__(self, lm: LM) -> None:
        self._lm = lm
        self._owned = lm.client is None
        self._client: openai.AsyncOpenAI = lm.client if lm.client is not None else client_of(lm)
        self._key = str(getattr(self._client, "api_key", "") or "")
        self._failures = Failures(lm, self._client.base_url.host, self._key)

    @property
    def lm(self) -> LM:
        """Which model it is, and how it is asked."""
        return self._lm

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
        # `post` with a raw response: the typed client spends more on models of the answer than the loopback takes.
        raw = await self.call(
            lambda client: client.post(
                "/chat/completions",
                cast_to=httpx2.Response,
                body=self.body(request),
                options={
                    "max_retries": 0,  # retry, throttle and usage are ours
                    "timeout": self._lm.timeout_s,
                    "headers": dict(self._lm.extra_headers or {}),
                },
            )
        )
        seconds = time.monotonic() - began
        try:
            answer = json.loads(raw.content)
        except ValueError:
            failure = ModelUnavailable("The server's answer is not JSON.")
            failure.usage = usage_of({}, request, self._lm.model, seconds)
            raise failure from None
        return self._reply(answer, request, seconds=seconds, limits=limits_of(raw.headers))

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
        status, answer = _number(response.get("status_code")), response.get("body")
        if isinstance(answer, str):  # JSON in JSON
            with contextlib.suppress(ValueError, RecursionError):
                answer = json.loads(answer)
        has_answer = isinstance(answer, dict) and bool(answer.get("choices"))
        if status in range(200, 300) or (status is None and has_answer):
            return self._reply(answer, request, seconds=0.0, limits=None)
        failure = self._batch_failure(status, answer)
        if isinstance(answer, dict) and isinstance(answer.get("usage"), dict):  # refused, and paid for
            failure.usage = usage_of(answer, request, self._lm.model, 0.0)
        raise failure

    def _batch_failure(self, status: int | None, answer: Any) -> ModelError:
        """The failure of one request of a batch."""
        told = answer.get("error") if isinstance(answer, dict) else None
        known = told if isinstance(told, dict) else {"message": told}
        message, code = known.get("message"), known.get("code")
        said = message if isinstance(message, str) and message else "no reason given"
        if status is None or status < 400:
            return ModelUnavailable(f"The batch has no usable answer to this request: {self.without_key(said)}.")
        return self._failures.status_error(status, code if isinstance(code, str) else None, said, {}, None)

    def without_key(self, text: str) -> str:
        """A server's text, bounded and without what no text may show."""
        return self._failures.scrubbed(text)

    async def call(self, work: Callable[[openai.AsyncOpenAI], Awaitable[Any]]) -> Any:
        """Ask the client for something; what goes wrong is told in this library's words.

        Raises:
            ModelError: the service did not answer.
        """
        try:
            return await work(self._client)
        except openai.OpenAIError as error:
            # Raised anew below, outside of this block: the client's errors hold the request, and with it the key.
            failure = self._failures.translated(error)
        except ValueError:  # a 200 whose body is not JSON
            failure = ModelUnavailable("The server's answer is not JSON.")
        except (KeyboardInterrupt, SystemExit) as raised:  # of a client of the user's; they would end the loop
            raise contained(raised) from raised
        raise failure


def _number(status: Any) -> int | None:
    """A status that may have been written as a text or with a decimal point; None if it is none."""
    try:
        return int(float(status)) if not isinstance(status, bool) else None
    except (TypeError, ValueError, OverflowError):
        return None
