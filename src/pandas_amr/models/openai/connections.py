"""Connections to servers: one pool per process and server, kept between runs, not after a fork."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
from dataclasses import dataclass
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import httpx2
import openai

from pandas_amr._records.engine import in_thread, is_engine
from pandas_amr._records.forks import loading
from pandas_amr.errors import ModelConfigError

if TYPE_CHECKING:
    import ssl

# How long a connection is kept without a request; routers keep theirs longer.
IDLE_S = 60.0
MOST_IDLE = 32  # connections per server that are kept between runs; a pool that had more is closed
MOST_SERVERS = 32  # whose connections are kept between runs
EXIT_S = 2.0
# Bytes of a body, decompressed: ten times the longest answer of any model. Files of a batch are
# larger.
LARGEST_BODY = 32 << 20
FILES = "/files/"
PROXIES = (
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
)
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")


class Environment(NamedTuple):
    """What the connections depend on in the environment: if it changes, new ones are made."""

    proxies: tuple[str | None, ...]
    certificates: tuple[tuple[str | None, int], ...]


class PoolKey(NamedTuple):
    """Which process, loop, server and environment a pool belongs to."""

    process: int
    loop: asyncio.AbstractEventLoop
    address: str
    environment: Environment


@dataclass(eq=False)
class Connections:
    """The connection pool of one server, process and loop; it knows no key and stores no cookie.

    Attributes:
        key: None if the pool belongs to one run alone.
        users: how many runs use it now.
    """

    http: httpx2.AsyncClient
    key: PoolKey | None = None
    users: int = 0

    async def release(self) -> None:
        """Release the pool. Once nobody uses it, it is kept for the next run, if the loop lives."""
        self.users -= 1
        if self.users == 0 and not self._is_kept:
            await self.close()
        elif len(_pools) > MOST_SERVERS:
            for connections in _idle()[: len(_pools) - MOST_SERVERS]:
                await connections.close()

    @property
    def _is_kept(self) -> bool:
        if self.key is None or not is_engine(self.key.loop):
            return False
        return getattr(self.http, "most", 0) <= MOST_IDLE

    async def close(self) -> None:
        """Close the pool."""
        if self.key is not None:
            _pools.pop(self.key, None)
        await self.http.aclose()


_pools: dict[PoolKey, Connections] = {}
_contexts: dict[tuple[tuple[str | None, int], ...], ssl.SSLContext] = {}


async def connections_to(address: str) -> Connections:
    """Give the pool of a server in this process and loop; make it if there is none.

    Raises:
        ModelConfigError: none can be made here.
    """
    environment = current_environment()
    if environment.certificates not in _contexts:
        await in_thread(context_of, environment)
    key = PoolKey(os.getpid(), asyncio.get_running_loop(), address, environment)
    connections = _pools.get(key)
    if connections is None:
        # A cookie that a server gave to one key would be sent with another key: none is stored.
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        http = _HttpClient(verify=context_of(environment), cookies=no_cookies)
        connections = _pools[key] = Connections(http, key)
    connections.users += 1
    return connections


def current_environment() -> Environment:
    """Read what the connections depend on; for certificates also the version of the file."""
    proxies = tuple(map(os.environ.get, PROXIES))
    paths = [os.environ.get(name) for name in CERTIFICATES]
    return Environment(proxies, tuple((path, _version(path)) for path in paths))


def _version(path: str | None) -> int:
    if not path:
        return 0
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 (once per run, and faster than a Path)
    except OSError:
        return 0


def context_of(environment: Environment) -> ssl.SSLContext:
    """Give the SSL context of an environment; it is cached, since reading certificates takes 20 ms.

    Raises:
        ModelConfigError: the certificates cannot be read.
    """
    context = _contexts.get(environment.certificates)
    if context is None:
        try:
            with loading:
                context = httpx2.create_ssl_context()
        except OSError as error:
            raise ModelConfigError(
                f"No HTTP client can be made ({error}): check SSL_CERT_FILE and SSL_CERT_DIR."
            ) from None
        _contexts[environment.certificates] = context
    return context


class BodyTooLarge(ValueError):
    """A body is larger than any answer; to read it would take the memory of the process."""


class _HttpClient(openai.DefaultAioHttpClient):
    """An HTTP client that makes its sessions here, and reads no more than an answer may take.

    Attributes:
        most: most requests that it had under way at once.
    """

    most = 0
    _under_way = 0

    async def send(
        self, request: httpx2.Request, *, stream: bool = False, **options: Any
    ) -> httpx2.Response:
        """Send a request.

        Raises:
            BodyTooLarge: the body of the response is, and it is not a file.
        """
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        try:
            if stream or FILES in request.url.path:
                return await super().send(request, stream=stream, **options)
            response = await super().send(request, stream=True, **options)
            try:
                await _read_body(response)
            except BaseException:
                await response.aclose()
                raise
            return response
        finally:
            self._under_way -= 1

    def _init_transport(self, *args: Any, **options: Any) -> httpx2.AsyncBaseTransport:
        return _set_session_factory(super()._init_transport(*args, **options))

    def _init_proxy_transport(self, *args: Any, **options: Any) -> httpx2.AsyncBaseTransport:
        return _set_session_factory(super()._init_proxy_transport(*args, **options))


async def _read_body(response: httpx2.Response) -> None:
    """Read a body as ``Response.aread`` does, up to the largest size.

    Raises:
        BodyTooLarge: it is longer.
    """
    parts: list[bytes] = []
    size = 0
    async with contextlib.aclosing(response.aiter_bytes()) as body:
        async for part in body:
            size += len(part)
            if size > LARGEST_BODY:
                raise BodyTooLarge
            parts.append(part)
    response._content = b"".join(parts)  # noqa: SLF001 (httpx2 knows no bound)


def _set_session_factory(transport: Any) -> httpx2.AsyncBaseTransport:
    most = transport.limits.max_connections or 0
    transport.client = partial(_make_session, transport.ssl_context, most)
    result: httpx2.AsyncBaseTransport = transport
    return result


def _make_session(context: ssl.SSLContext, most: int) -> aiohttp.ClientSession:
    connector = _Connector(ssl=context, limit=most, keepalive_timeout=IDLE_S)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


class _Connector(aiohttp.TCPConnector):
    """Connections that a fork does not close: they are those of its parent's loop.

    Parent and child share one ``epoll``: what the child removes from it, its parent misses.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._process = os.getpid()

    @property
    def closed(self) -> bool:
        return self._process != os.getpid() or super().closed

    def __del__(self, *args: Any) -> None:
        if self._process == os.getpid():
            super().__del__(*args)


def _idle() -> list[Connections]:
    """Give the pools of this process that no run uses, the oldest first."""
    idle: list[Connections] = []
    for connections in _pools.values():
        key = connections.key
        if key is not None and key.process == os.getpid() and connections.users == 0:
            idle.append(connections)
    return idle


def _close_at_exit() -> None:
    """Close the idle pools on their loops: the engine's thread still runs, and is waited for."""
    for connections in _idle():
        assert connections.key is not None
        closing = asyncio.run_coroutine_threadsafe(connections.close(), connections.key.loop)
        # If the loop is blocked, it ends with the process.
        with contextlib.suppress(concurrent.futures.TimeoutError):
            closing.result(EXIT_S)


atexit.register(_close_at_exit)
