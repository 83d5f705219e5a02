"""Use a client of the user's over connections of our own."""

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
from pandas_amr.models.base import check_path
from pandas_amr.models.openai.addresses import secret_values

if TYPE_CHECKING:
    from pandas_amr.models.openai.keys import Key


KNOWN_CLASSES = (openai.AsyncOpenAI, openai.AsyncAzureOpenAI, openai.OpenAI, openai.AzureOpenAI)


@functools.cache
def platform() -> Any:
    """Give the platform, which a client reports to its server. Python holds a lock meanwhile."""
    with loading:
        return get_platform()


def spare_platform(client: openai.AsyncOpenAI) -> openai.AsyncOpenAI:
    """Set the platform of a client. Otherwise it finds it out in a thread at its first request."""
    client._platform = platform()
    return client


@dataclass(frozen=True)
class OwnClient:
    """A client of the user's, used over connections of our own.

    Its address, key, headers and query are used. It may have been used on another loop, be closed,
    or not be async: its own connections are not touched. If its ``http_client`` is the user's own,
    then the settings of that are used, over connections of a copy of it.

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
                "LM(client=...) takes a client of the openai package "
                "(AsyncOpenAI, AsyncAzureOpenAI, OpenAI or AzureOpenAI), "
                f"not {type(client).__name__}."
            )
        check_path(str(client.base_url), "The base_url of LM(client=...)")
        if self.is_sync:
            self._check_sync()
        if type(client) not in KNOWN_CLASSES:
            self._check_can_be_copied()
        if self.has_own_http and client.is_closed():
            raise UsageError(
                "LM(client=...): the http_client of this client is closed. Give it an open one: "
                "client.with_options(http_client=...)."
            )

    def _check_sync(self) -> None:
        """Check that an async client can be made from a sync one.

        Raises:
            UsageError: it cannot.
        """
        client = self.client
        async_class = f"openai.Async{_base_of(client).__name__}"
        if not isinstance(client._client, SyncHttpxClientWrapper):
            raise UsageError(
                "LM(client=...): the http_client of this client is not async, and requests are "
                f"sent concurrently. Make it with {async_class}(http_client=<an async one>)."
            )
        if client.workload_identity is not None or client._provider is not None:
            raise UsageError(f"LM(client=...): make this one with {async_class}(...).")

    @property
    def is_sync(self) -> bool:
        """Whether the client is not async."""
        return isinstance(self.client, openai.OpenAI)

    @property
    def has_own_http(self) -> bool:
        """Whether its ``http_client`` is the user's own."""
        return not isinstance(self.client._client, AsyncHttpxClientWrapper | SyncHttpxClientWrapper)

    @property
    def key(self) -> str | Any:
        """The key, or the function that gives it; likewise a token of Azure."""
        client = self.client
        token = getattr(client, "_azure_ad_token", None)
        provider = getattr(client, "_azure_ad_token_provider", None)
        return token or provider or client._api_key_provider or client.api_key or ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no text may show, besides the key."""
        keys = (self.client.api_key, self.client.admin_api_key)
        headers = secret_values(self.client._custom_headers)
        query = secret_values(self.client._custom_query)
        return (*(key for key in keys if key), *headers, *query)

    @property
    def has_other_key(self) -> bool:
        """Whether it may have what stands for a key: in a header, or in code of the user's."""
        if type(self.client) not in KNOWN_CLASSES or self.has_own_http:
            return True
        if self.client.admin_api_key or self.client.workload_identity is not None:
            return True
        return bool(secret_values(self.client._custom_headers))

    def http_client(self) -> httpx2.AsyncClient:
        """Copy the user's own ``http_client``; the copy has connections of its own."""
        http: httpx2.AsyncClient = copy.copy(self.client._client)
        http._transport = _without_connections(http._transport)
        mounts: dict[Any, Any] = {}
        for pattern, transport in http._mounts.items():
            mounts[pattern] = transport and _without_connections(transport)
        http._mounts = mounts
        return http

    def over(self, http: httpx2.AsyncClient, key: Key) -> openai.AsyncOpenAI:
        """Give the client over other connections. If a function gives its key, ``key`` calls it."""
        options: dict[str, Any] = {"http_client": http, "max_retries": 0}  # retries are ours
        azure_function = getattr(self.client, "_azure_ad_token_provider", None)
        if key.rotates and azure_function is not None:
            options["azure_ad_token_provider"] = key.current
        elif key.rotates:
            options["api_key"] = key.current
        if self.is_sync:
            return _make_async(self.client, options)
        copied: openai.AsyncOpenAI = self.client.copy(**options)
        return copied

    def _check_can_be_copied(self) -> None:
        """Check a class that is not of the openai package: its constructor may differ.

        Raises:
            UsageError: it cannot be copied.
        """
        try:
            self.client.copy()
        except Exception as error:  # noqa: BLE001 (the class is somebody else's)
            raise UsageError(
                f"LM(client=...): a {type(self.client).__name__} cannot be copied "
                f"({type(error).__name__} in its copy()), and requests need connections of their "
                "own. Give a client of the openai package."
            ) from None


def _base_of(client: object) -> type:
    return openai.AzureOpenAI if isinstance(client, openai.AzureOpenAI) else openai.OpenAI


def _make_async(client: Any, options: dict[str, Any]) -> openai.AsyncOpenAI:
    """Make an async client with the settings of a sync one."""
    settings: dict[str, Any] = {
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
        return openai.AsyncOpenAI(**settings | options)
    settings |= {"api_version": client._api_version, "azure_ad_token": client._azure_ad_token}
    made = openai.AsyncAzureOpenAI(**settings | options)
    made._azure_endpoint, made._azure_deployment = client._azure_endpoint, client._azure_deployment
    return made


def _without_connections(transport: Any) -> httpx2.AsyncBaseTransport:
    """Copy an HTTP transport without its connections: they belong to the loop that opened them.

    If it is neither httpx's nor aiohttp's, nothing is known about it, and it is used as it is.
    """
    pool = getattr(transport, "_pool", None)
    copied: Any = copy.copy(transport)
    if isinstance(getattr(transport, "client", ""), aiohttp.ClientSession | None):
        copied.client = None  # it makes another one
    elif hasattr(pool, "_connections") and hasattr(pool, "_requests"):
        copied._pool = copy.copy(pool)
        copied._pool._connections, copied._pool._requests = [], []
    else:
        copied = _BorrowedTransport(transport)
    result: httpx2.AsyncBaseTransport = copied
    return result


class _BorrowedTransport(httpx2.AsyncBaseTransport):
    """A transport of the user's, which is not closed here."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request."""
        return await self._transport.handle_async_request(request)
