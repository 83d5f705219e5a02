"""Any OpenAI-compatible server, through the ``openai`` client."""

from __future__ import annotations

import asyncio
import contextlib
import json
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import httpx2
import openai

from pandas_amr._records.clock import CLOCK
from pandas_amr._records.engine import in_thread
from pandas_amr._records.json_fields import get_field
from pandas_amr._records.raised import as_ordinary_error
from pandas_amr.errors import ModelConfigError, ModelError, ModelUnavailable
from pandas_amr.models.acceptance import MOST_REFUSED, acceptance_of
from pandas_amr.models.answered_servers import connect_s, has_answered, note_answer
from pandas_amr.models.openai.addresses import address_of, key_of, secret_values
from pandas_amr.models.openai.advice import describe_models, host_and_port
from pandas_amr.models.openai.clients import OwnClient, platform, spare_platform
from pandas_amr.models.openai.connections import Connections, connections_to
from pandas_amr.models.openai.error_bodies import is_web_page, read_error_body
from pandas_amr.models.openai.failures import BROKEN_ANSWERS, Failures
from pandas_amr.models.openai.headers import cost_of, limits_of
from pandas_amr.models.openai.keys import Key
from pandas_amr.models.openai.known_hosts import check_has_key
from pandas_amr.models.openai.reply import error_in, has_choices, model_names, read_body, reply_of
from pandas_amr.models.openai.settings import sent_body
from pandas_amr.models.usage_counts import usage_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import TracebackType

    from pandas_amr._records.usage import Usage
    from pandas_amr.models.base import LM, Reply, Request

COMPLETIONS = "/chat/completions"
LIST_MODELS_S = 2.0  # an error is not held up for longer by the names that would go with it
# So many answers that are no completions, and none that is, show that the address is wrong.
MOST_UNUSABLE = 3
LONGEST_PAGE = 20_000  # bytes in which the title of a web page is looked for


class OpenAIModel:
    """One ``LM`` behind one HTTP client.

    The client is open from the first request to ``close``, or to the end of an ``async with``.

    Raises:
        UsageError: the address, the key or the client cannot be used.
    """

    def __init__(self, lm: LM) -> None:
        self._lm = lm
        self._own_client: OwnClient | None = None
        if lm.client is None:
            self._key = key_of(lm)
            self._url = address_of(lm)
        else:
            self._own_client = OwnClient(lm.client)
            self._key = Key(self._own_client.key, "LM(client=...)", lm.timeout_s)
            self._url = str(lm.client.base_url)
        address = urlsplit(self._url)
        self._failures = Failures(lm, address.hostname or "", self._secrets, self._url)
        self._acceptance = acceptance_of(self._url, self._key.name, lm.model)
        self._opening = asyncio.Lock()
        self._client: openai.AsyncOpenAI | None = None
        self._completions = COMPLETIONS  # where requests are posted to
        self._connections: Connections | None = None
        self._has_listed_models = False

    @property
    def lm(self) -> LM:
        """The model and its settings."""
        return self._lm

    @property
    def address(self) -> tuple[str, str]:
        """The server, and the name under which its limits are tracked: see ``Key.name``."""
        return self._url, self._key.name

    @property
    def server(self) -> str:
        """The address that answers. For Azure it has the deployment, which its client adds."""
        azure = openai.AzureOpenAI | openai.AsyncAzureOpenAI
        is_azure = isinstance(self._lm.client, azure)
        if is_azure and "/deployments" not in httpx2.URL(self._url).path:
            address = self._url.rstrip("/")
            return f"{address}/deployments/{self._lm.model}"
        return self._url

    def _secrets(self) -> tuple[str, ...]:
        """Give what no text may show."""
        secrets = [*self._key.secrets, *secret_values(self._lm.extra_headers)]
        if self._own_client is not None:
            secrets += self._own_client.secrets
        return tuple(secrets)

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
        """Release the connections; they are kept for the next run."""
        if self._connections is not None:
            connections, self._connections, self._client = self._connections, None, None
            await connections.release()

    async def open(self) -> openai.AsyncOpenAI:
        """Give the client with its connections. The first one of a process is set up in a thread.

        Raises:
            ModelConfigError: no HTTP client can be made here, or the server needs a key and there
                is none.
        """
        async with self._opening:
            if self._client is None:
                self._check_has_key()
                if not platform.cache_info().currsize:
                    await in_thread(platform)
                self._connections = await self._open_connections()
                self._client = spare_platform(self._make_client(self._connections.http))
                if self._own_client is None and not self._client.base_url.query:
                    # The client would join address and path anew for each request.
                    self._completions = f"{self._client.base_url}{COMPLETIONS.lstrip('/')}"
            return self._client

    def _check_has_key(self) -> None:
        """Check that a known provider gets a key, be it in a header.

        Raises:
            ModelConfigError: it does not.
        """
        client = self._own_client
        if secret_values(self._lm.extra_headers) or (client and client.has_other_key):
            return
        host = urlsplit(self._url).hostname or ""
        key = "rotates" if self._key.rotates else self._key.name
        check_has_key(self._lm, host, host_and_port(self._url), key)

    async def _open_connections(self) -> Connections:
        if self._own_client is not None and self._own_client.has_own_http:
            return Connections(self._own_client.http_client(), users=1)
        return await connections_to(self._url)

    def _make_client(self, http: httpx2.AsyncClient) -> openai.AsyncOpenAI:
        """Make the client over an HTTP client."""
        if self._own_client is not None:
            return self._own_client.over(http, self._key)
        # The client insists on a key, even if the server needs none.
        key = self._key.current if self._key.rotates else self._key.name or "none"
        return openai.AsyncOpenAI(api_key=key, base_url=self._url, http_client=http, max_retries=0)

    async def complete(self, request: Request) -> Reply:
        """Answer one turn with one HTTP request.

        Raises:
            ModelError: the service did not answer. If it refuses by a status that stands for the
                configuration, but has answered others, the error is about this request alone: a row
                that a filter blocks must not end the run. If it then answers none for long, no
                later one would be served.
        """
        with self._acceptance.attempt():
            try:
                return await self._complete(request)
            except ModelConfigError as error:
                failure = error
            if failure.request_error is None:
                raise failure
            if await self._acceptance.is_accepted():
                if not self._acceptance.has_ended():
                    raise failure.request_error
                failure.request_error = None
                failure.args = (f"{failure} Nothing was answered in {MOST_REFUSED} requests.",)
                raise failure
            if failure.certain:
                failure.request_error = None
            else:
                await self._explain_refusal(failure)
            raise failure

    async def _explain_refusal(self, failure: ModelConfigError) -> None:
        """Ask the server once which models it lists, and add what that says to a refusal.

        If it shows that no request would be served, the failure is not one of its request alone.
        """
        is_azure = isinstance(self._lm.client, openai.AzureOpenAI | openai.AsyncAzureOpenAI)
        if self._has_listed_models or is_azure:  # Azure lists models that are not deployed
            return
        self._has_listed_models = True
        try:
            raw = await self.call(self._get_models, timeout_s=LIST_MODELS_S)
            served = model_names(read_body(raw.content))
        except ModelConfigError as error:
            is_same = error.status == failure.status and error.unknown_path == failure.unknown_path
            if is_same or error.status == HTTPStatus.UNAUTHORIZED:
                failure.request_error = None
            return
        except ModelError:
            return
        is_about_model = failure.status == HTTPStatus.NOT_FOUND or "model" in str(failure).lower()
        if served is not None and self._lm.model not in served and is_about_model:
            failure.request_error = None
            names = self.without_key(describe_models(self._lm.model, served))
            failure.args = (f"{failure} {names}",)

    async def _get_models(self, client: openai.AsyncOpenAI) -> httpx2.Response:
        options: Any = {
            "max_retries": 0,
            "timeout": LIST_MODELS_S,
            "headers": dict(self._lm.extra_headers or {}),
            "follow_redirects": False,
        }
        return await client.get("/models", cast_to=httpx2.Response, options=options)

    async def _complete(self, request: Request) -> Reply:
        body = sent_body(self._lm, self._url, request)
        began = CLOCK.now()
        raw = await self.call(partial(self._post, body), timeout_s=self._lm.timeout_s)
        seconds = CLOCK.now() - began
        cost = cost_of(raw.headers)
        try:
            answer = read_body(raw.content, raw.charset_encoding)
        except ModelError as error:
            failure = self._first_answer_error(error, raw.content)
            failure.usage = usage_of({}, request, self._lm.model, seconds, cost=cost)
            raise failure from None
        usage = usage_of(answer, request, self._lm.model, seconds, cost=cost)
        return self._read_reply(answer, usage, raw.headers)

    async def _post(self, body: dict[str, Any], client: openai.AsyncOpenAI) -> httpx2.Response:
        """Send a request and give the raw response.

        The typed client would spend more time on models of the answer than the loopback takes. The
        time-out of the transport holds for each read; `call` bounds the time of the whole.
        """
        options: Any = {
            "max_retries": 0,  # retry, throttle and usage are ours
            "timeout": httpx2.Timeout(self._lm.timeout_s, **self._connect_timeouts()),
            "headers": dict(self._lm.extra_headers or {}),
            "follow_redirects": False,  # rows would go to another place than the user named
        }
        return await client.post(
            self._completions, cast_to=httpx2.Response, body=body, options=options
        )

    def _connect_timeouts(self) -> dict[str, float | None]:
        """Give the seconds for making a connection; few if the server was never reached.

        Then the wait for a place in the pool is bounded, too, since aiohttp counts the look-up of
        the name as part of it.
        """
        server = self.address[0]
        seconds = connect_s(self._lm, server)
        is_unknown = self._own_client is None and not has_answered(server)
        return {"connect": seconds, "pool": seconds if is_unknown else None}

    def _read_reply(self, answer: object, usage: Usage, headers: Mapping[str, str]) -> Reply:
        """Read a decoded answer.

        Raises:
            ModelError: it cannot be used; the error has its ``usage``.
        """
        told = self._told_error(answer, headers)
        if told is not None:
            if isinstance(get_field(answer, "usage"), dict):
                told.usage = usage
            raise told
        if has_choices(answer):
            self._acceptance.accept()
        try:
            return reply_of(answer, usage, limits_of(headers))
        except ModelError as error:
            failure = error if has_choices(answer) else self._first_answer_error(error)
            failure.usage = usage
            raise failure from None

    def _told_error(self, answer: object, headers: Mapping[str, str]) -> ModelError | None:
        """Give the error that came with the status of a success; None if there is none."""
        error = error_in(answer)
        if error is None:
            return None
        body = read_error_body(error)
        if not body.message and not error.get("error"):  # it tells nothing: no error, and no answer
            return None
        failure = self._failures.error_of_success(body, headers)
        if failure.status is not None or get_field(answer, "choices"):
            return failure
        return self._first_answer_error(failure)

    def _first_answer_error(self, error: ModelError, content: bytes = b"") -> ModelError:
        """Give the error of an answer that is no completion; before all others it is the address's.

        A web page shows that at once, other answers if several come in turn.
        """
        if self._acceptance.accepted:
            return error
        text = content[:LONGEST_PAGE].decode(errors="replace")
        if is_web_page(text):
            return self._failures.web_page(text)
        self._acceptance.unusable += 1
        if self._acceptance.unusable < MOST_UNUSABLE:
            return error
        return self._failures.no_completion(str(error))

    def read(self, response: Mapping[str, Any], request: Request) -> Reply:
        """Read an answer of a batch: its ``status_code`` and ``body``.

        Raises:
            ModelError: the answer is an error.
        """
        status, answer = _read_status(response.get("status_code")), response.get("body")
        if isinstance(answer, str):  # JSON in JSON
            with contextlib.suppress(ValueError, RecursionError):
                answer = json.loads(answer)
        usage = usage_of(answer, request, self._lm.model, 0.0)
        is_answered = status in range(200, 300) or (status is None and get_field(answer, "choices"))
        if is_answered:
            return self._read_reply(answer, usage, {})
        failure = self._batch_failure(status, answer)
        if isinstance(get_field(answer, "usage"), dict):  # refused, but paid for
            failure.usage = usage
        raise failure

    def _batch_failure(self, status: int | None, answer: object) -> ModelError:
        """Make the error of one request of a batch."""
        body = read_error_body(answer)
        if status is None or status < HTTPStatus.BAD_REQUEST:
            reason = self.without_key(body.message or "no reason given")
            return ModelUnavailable(f"The batch has no usable answer to this request: {reason}.")
        return self._failures.status_error(status, body, {})

    def without_key(self, text: str) -> str:
        """Remove secrets from a text of the server, and shorten it."""
        return self._failures.remove_secrets(text)

    async def call(
        self, work: Callable[[openai.AsyncOpenAI], Awaitable[Any]], *, timeout_s: float
    ) -> Any:
        """Call the client, with a limit for the whole time, and translate its errors.

        Raises:
            ModelError: the service did not answer.
        """
        try:
            async with asyncio.timeout(timeout_s) as deadline:
                answer = await work(self._client or await self.open())
        except openai.OpenAIError as error:
            # It is raised below, outside of this block: an error of the client holds the request,
            # and with it the key.
            failure = self._failures.translate(error)
            if isinstance(error, openai.APIStatusError):
                note_answer(self.address[0])
        except ModelError:  # no client can be made
            raise
        except Exception as error:
            if isinstance(error, TimeoutError) and deadline.expired():
                failure = self._failures.timed_out(timeout_s)
            elif self._own_client is None or isinstance(error, BROKEN_ANSWERS):
                failure = self._failures.unreadable(error)
            else:  # a bug in a client of the user's
                raise
        except (KeyboardInterrupt, SystemExit) as raised:  # of a user's client; they end the loop
            raise as_ordinary_error(raised) from raised
        else:
            note_answer(self.address[0])
            return answer
        raise failure


def _read_status(status: Any) -> int | None:
    """Read a status that may be a text or have a decimal point; None if it is not one."""
    if isinstance(status, bool):
        return None
    try:
        return int(float(status))
    except (TypeError, ValueError, OverflowError):
        return None
