"""Clients of the user's, over connections made here."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx2
import openai
from openai._base_client import AsyncHttpxClientWrapper, SyncHttpxClientWrapper, get_platform

from pandas_amr._records.forks import loading
from pandas_amr.errors import UsageError
from pandas_amr.models.openai.addresses import secret_values

if TYPE_CHECKING:
    from pandas_amr.models.openai.keys import Key


KNOWN_CLASSES = (openai.AsyncOpenAI, openai.AsyncAzureOpenAI, openai.OpenAI, openai.AzureOpenAI)


@functools.cache
def platform() -> Any:
    """What this process runs on, as the client tells its server. Python's own module holds a lock meanwhile."""
    with loading:
        return get_platform()


def spare_platform(client: openai.AsyncOpenAI) -> openai.AsyncOpenAI:
    """Tell a client what it runs on: each finds it out anew, in a thread, before its first request."""
    client._platform = platform()
    return client


@dataclass(frozen=True)
class OwnClient:
    """A client of the user's: its address, key, headers and query are used, over connections made here.

    It may have been used on another loop, be closed, or not be async: what it sends through is not touched. Only where
    its ``http_client`` is the user's own are the settings of that one used, over connections of a copy of it.

    Args:
        client: an ``AsyncOpenAI``, ``AsyncAzureOpenAI``, ``OpenAI`` or ``AzureOpenAI``.

    Raises:
        UsageError: it is something else, or its own ``http_client`` cannot be used here.
    """

    client: Any

    def __post_init__(self) -> None:
        client = self.client
        if not isinstance(client, openai.AsyncOpenAI | openai.OpenAI):
            raise UsageError(
                "LM(client=...) takes a client of the openai package (AsyncOpenAI, AsyncAzureOpenAI, OpenAI or "
                f"AzureOpenAI), not {type(client).__name__}."
            )
        if self.is_sync and not isinstance(client._client, SyncHttpxClientWrapper):
            raise UsageError(
                "LM(client=...): the http_client of this client is not async, and requests are sent side by side. "
                f"Make it with openai.Async{_base_of(client).__name__}(http_client=<an async one>)."
            )
        if self.is_sync and (client.workload_identity is not None or client._provider is not None):
            raise UsageError(
                f"LM(client=...): make this one with openai.Async{_base_of(client).__name__}(...)."
            )
        if type(client) not in KNOWN_CLASSES:
            self._check_copied()
        if self.has_own_http and client.is_closed():
            raise UsageError(
                "LM(client=...): the http_client of this client is closed. Give it an open one: "
                "client.with_options(http_client=...)."
            )

    @property
    def is_sync(self) -> bool:
        """Whether it is not async."""
        return isinstance(self.client, openai.OpenAI)

    @property
    def has_own_http(self) -> bool:
        """Whether its ``http_client`` was given by the user."""
        return not isinstance(self.client._client, AsyncHttpxClientWrapper | SyncHttpxClientWrapper)

    @property
    def key(self) -> str | Any:
        """The key, or the function that gives it, of Azure's tokens too."""
        client = self.client
        token = getattr(client, "_azure_ad_token", None) or getattr(
            client, "_azure_ad_token_provider", None
        )
        return token or client._api_key_provider or client.api_key or ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no text may show, beside the key."""
        given = (self.client.api_key, self.client.admin_api_key)
        return (*(one for one in given if one), *secret_values(self.client._custom_headers))

    def http_client(self) -> httpx2.AsyncClient:
        """A copy of the user's own ``http_client``, with connections of its own."""
        http: httpx2.AsyncClient = copy.copy(self.client._client)
        http._transport = _unconnected(http._transport)
        http._mounts = {pattern: one and _unconnected(one) for pattern, one in http._mounts.items()}
        return http

    def over(self, http: httpx2.AsyncClient, key: Key) -> openai.AsyncOpenAI:
        """The client over other connections; a function for its key is asked through ``key``."""
        options: dict[str, Any] = {"http_client": http, "max_retries": 0}  # retries are ours
        azure = hasattr(self.client, "_azure_ad_token_provider")
        if key.rotates and azure and self.client._azure_ad_token_provider is not None:
            options["azure_ad_token_provider"] = key.current
        elif key.rotates:
            options["api_key"] = key.current
        made: openai.AsyncOpenAI = (
            _async_twin(self.client, options) if self.is_sync else self.client.copy(**options)
        )
        return made

    def _check_copied(self) -> None:
        """Refuse a class of somebody else's that is not made as its parent is.

        Raises:
            UsageError: it cannot be copied.
        """
        try:
            self.client.copy()
        except Exception as error:  # noqa: BLE001 (the class is somebody else's)
            raise UsageError(
                f"LM(client=...): a {type(self.client).__name__} cannot be copied ({type(error).__name__} in its "
                "copy()), and requests need connections of their own. Give a client of the openai package."
            ) from None


def _base_of(client: Any) -> type:
    return openai.AzureOpenAI if isinstance(client, openai.AzureOpenAI) else openai.OpenAI


def _async_twin(client: Any, options: dict[str, Any]) -> openai.AsyncOpenAI:
    """An async client that asks what a sync one would."""
    known: dict[str, Any] = {
        "api_key": client.api_key,
        "admin_api_key": client.admin_api_key,
        "organization": client.organization,
        "project": client.project,
        "webhook_secret": client.webhook_secret,
        "base_url": client.base_url,
        "websocket_base_url": client.websocket_base_url,
        "timeout": client.timeout,
        "default_headers": client._custom_headers,
        "default_query": client._custom_query,
    }
    if not isinstance(client, openai.AzureOpenAI):
        return openai.AsyncOpenAI(**known | options)
    known |= {"api_version": client._api_version, "azure_ad_token": client._azure_ad_token}
    twin = openai.AsyncAzureOpenAI(**known | options)
    twin._azure_endpoint, twin._azure_deployment = client._azure_endpoint, client._azure_deployment
    return twin


def _unconnected(transport: Any) -> httpx2.AsyncBaseTransport:
    """A copy of an HTTP transport, without its connections: they belong to the loop that opened them.

    Of a transport that is neither httpx's nor aiohttp's nothing is known: it is used as it is.
    """
    pool = getattr(transport, "_pool", None)
    made: Any = copy.copy(transport)
    if isinstance(getattr(transport, "client", ""), aiohttp.ClientSession | None):
        made.client = None  # it makes another
    elif hasattr(pool, "_connections") and hasattr(pool, "_requests"):
        made._pool = copy.copy(pool)
        made._pool._connections, made._pool._requests = [], []
    else:
        made = _Borrowed(transport)
    unconnected: httpx2.AsyncBaseTransport = made
    return unconnected


class _Borrowed(httpx2.AsyncBaseTransport):
    """A transport that is not closed here."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request."""
        return await self._transport.handle_async_request(request)
