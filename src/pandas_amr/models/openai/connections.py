"""Connections to servers: made once per process and server, kept between runs, and never shared over a fork."""

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

IDLE_S = 60.0  # that a connection is kept without a request, unless its server closes it: less than what routers keep
MOST_IDLE = (
    32  # connections that are kept between runs: a run that had more begins the next one without
)
MOST_SERVERS = 32  # whose connections are kept between runs
EXIT_S = 2.0
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")


class Environment(NamedTuple):
    """What of the environment connections are made by: another one makes others."""

    proxies: tuple[str | None, ...]
    certificates: tuple[tuple[str | None, int], ...]


class Place(NamedTuple):
    """Whose connections they are, where to, and made by what."""

    process: int
    loop: asyncio.AbstractEventLoop
    address: str
    environment: Environment


@dataclass(eq=False)
class Connections:
    """The connections to a server that a process has on one loop; no key is known to them, and no cookie kept.

    Attributes:
        place: None if they are one run's alone.
        users: how many runs use them now.
    """

    http: httpx2.AsyncClient
    place: Place | None = None
    users: int = 0

    async def release(self) -> None:
        """Let go. What nobody uses is kept for the next run, where the loop goes on."""
        self.users -= 1
        if self.users == 0 and not self._is_kept:
            await self._close()
        elif len(_known) > MOST_SERVERS:
            for connections in _idle()[: len(_known) - MOST_SERVERS]:
                await connections._close()  # noqa: SLF001 (others like this one)

    @property
    def _is_kept(self) -> bool:
        return (
            self.place is not None
            and is_engine(self.place.loop)
            and getattr(self.http, "most", 0) <= MOST_IDLE
        )

    async def _close(self) -> None:
        if self.place is not None:
            _known.pop(self.place, None)
        await self.http.aclose()


_known: dict[Place, Connections] = {}
_contexts: dict[tuple[tuple[str | None, int], ...], ssl.SSLContext] = {}


async def connections_to(address: str) -> Connections:
    """Give the connections of this process and loop to a server, made if there are none; ``release`` lets them go.

    Raises:
        ModelConfigError: none can be made here.
    """
    environment = current_environment()
    if environment.certificates not in _contexts:
        await in_thread(context_of, environment)
    place = Place(os.getpid(), asyncio.get_running_loop(), address, environment)
    connections = _known.get(place)
    if connections is None:
        # No cookie is kept: one that a server gave to one key would go to it with another.
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        http = _Client(verify=context_of(place.environment), cookies=no_cookies)
        connections = _known[place] = Connections(http, place)
    connections.users += 1
    return connections


def current_environment() -> Environment:
    """Read what of the environment connections are made by; of certificates also which version of the file it is."""
    proxies = tuple(os.environ.get(name) for low in PROXIES for name in (low, low.upper()))
    paths = [os.environ.get(name) for name in CERTIFICATES]
    return Environment(proxies, tuple((path, _version(path)) for path in paths))


def _version(path: str | None) -> int:
    try:
        return os.stat(path).st_mtime_ns if path else 0  # noqa: PTH116 (once per run, and sooner than a Path)
    except OSError:
        return 0


def context_of(environment: Environment) -> ssl.SSLContext:
    """Give the SSL context of an environment: reading the certificates takes 20 ms.

    Raises:
        ModelConfigError: they cannot be read.
    """
    context = _contexts.get(environment.certificates)
    if context is None:
        try:
            with loading:
                context = httpx2.create_ssl_context()
        except OSError as error:
            said = f"No HTTP client can be made ({error}): check SSL_CERT_FILE and SSL_CERT_DIR."
            raise ModelConfigError(said) from None
        _contexts[environment.certificates] = context
    return context


class _Client(openai.DefaultAioHttpClient):
    """An HTTP client whose sessions are made here; ``most`` is how many requests it had under way at once."""

    most = 0
    _under_way = 0

    async def send(self, *args: Any, **options: Any) -> httpx2.Response:
        """Send a request."""
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        try:
            return await super().send(*args, **options)
        finally:
            self._under_way -= 1

    def _init_transport(self, *args: Any, **options: Any) -> httpx2.AsyncBaseTransport:
        return _with_sessions(super()._init_transport(*args, **options))

    def _init_proxy_transport(self, *args: Any, **options: Any) -> httpx2.AsyncBaseTransport:
        return _with_sessions(super()._init_proxy_transport(*args, **options))


def _with_sessions(transport: Any) -> httpx2.AsyncBaseTransport:
    made: httpx2.AsyncBaseTransport = transport
    transport.client = partial(
        _session, transport.ssl_context, transport.limits.max_connections or 0
    )
    return made


def _session(context: ssl.SSLContext, most: int) -> aiohttp.ClientSession:
    connector = _Connector(ssl=context, limit=most, keepalive_timeout=IDLE_S)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


class _Connector(aiohttp.TCPConnector):
    """Connections that a fork leaves alone: closing its copy of one would take it from the loop of its parent.

    Both have one ``epoll``: what the child takes out of it, its parent no longer hears of.
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
    """This process's connections that no run uses, the oldest first."""
    own = [
        one for one in _known.values() if one.place is not None and one.place.process == os.getpid()
    ]
    return [one for one in own if one.users == 0]


def _close_at_exit() -> None:
    """Close what is kept, on its loop: its thread is still there, and is waited for."""
    for connections in _idle():
        assert connections.place is not None
        closing = asyncio.run_coroutine_threadsafe(connections._close(), connections.place.loop)  # noqa: SLF001
        with contextlib.suppress(
            concurrent.futures.TimeoutError
        ):  # the loop is held up, and ends with the process
            closing.result(EXIT_S)


atexit.register(_close_at_exit)
