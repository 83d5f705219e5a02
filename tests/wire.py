"""A raw HTTP/1.1 server on loopback: what stands on the wire, and when, is the test's to say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from pandas_amr.testing.server import stop_accepting

START_TIMEOUT_S = 10.0
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden"} | {
    404: "Not Found",
    413: "Content Too Large",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
}


@dataclass(frozen=True)
class Asked:
    """One HTTP request, read whole; names of headers in lower case."""

    number: int
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        """The JSON body."""
        return json.loads(self.content)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer as it should be; a body that is no text is sent as JSON."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: str = "application/json"

    @property
    def content(self) -> bytes:
        """The body's bytes."""
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()

    @property
    def head(self) -> bytes:
        """The status line and the headers, but for those that tell how long the body is."""
        lines = [f"HTTP/1.1 {self.status} {REASONS[self.status]}", f"content-type: {self.kind}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join(lines).encode()


class Line:
    """One connection, as far as a server writes to it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def send(self, answer: Answer) -> None:
        """Send an answer as HTTP wants it."""
        length = f"\r\ncontent-length: {len(answer.content)}\r\n\r\n".encode()
        await self.write(answer.head + length + answer.content)

    async def send_slowly(self, answer: Answer, *, before: bytes, times: int, every_s: float) -> None:
        """Send ``before`` a number of times while the client waits, then the answer, as one body in chunks."""
        await self.write(answer.head + b"\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(times):
            await self.write(chunk(before))
            await asyncio.sleep(every_s)
        await self.write(chunk(answer.content) + chunk(b""))

    async def write(self, data: bytes) -> None:
        """Send bytes as they are; a client that has gone is no concern of a server's."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    @property
    def is_open(self) -> bool:
        """Whether both ends still hold it."""
        return not self._writer.is_closing()

    def close(self) -> None:
        """End the connection."""
        self._writer.close()

    def reset(self) -> None:
        """End the connection as a crash does."""
        connection = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


def chunk(data: bytes) -> bytes:
    """A chunk of a body in chunks; an empty one ends it."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


class Wire:
    """A server on 127.0.0.1, while the ``with`` block runs; a subclass says what it answers.

    What is learned of a server is known by its address, and ports come round again: so each has a path of its own.

    Attributes:
        requests: all that was posted, in the order in which it was read.
    """

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        self.root = f"/{secrets.token_hex(4)}"
        self.address = ""
        self._problems: list[str] = []

    async def answer(self, asked: Asked, line: Line) -> None:
        """Answer one request."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="wire", daemon=True)
        self._thread.start()
        assert self._ready.wait(START_TIMEOUT_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._problems:
            raise AssertionError("; ".join(self._problems[:3])) from error

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=1024)
        host, port = server.sockets[0].getsockname()
        self.address = f"http://{host}:{port}{self.root}"
        self._ready.set()
        await self._stop.wait()
        await stop_accepting(server.sockets)
        server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the server has to
        finally:
            self._connections.discard(task)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, one after the other."""
        while not writer.is_closing():
            head = await reader.readuntil(b"\r\n\r\n")
            first, *rest = head.decode("latin-1").split("\r\n")
            headers = {}
            for told in filter(None, rest):
                name, _, value = told.partition(":")
                headers[name.strip().lower()] = value.strip()
            content = await reader.readexactly(int(headers.get("content-length", 0)))
            method, path, _ = first.split()
            if method != "POST":  # a gateway that looks around
                await Line(writer).send(Answer(404, {"error": {"message": "not found"}}))
                continue
            target = urlsplit(path)
            asked = Asked(len(self.requests), target.path, parse_qs(target.query), headers, content)
            self.requests.append(asked)
            await self._answer(asked, Line(writer))

    async def _answer(self, asked: Asked, line: Line) -> None:
        try:
            await self.answer(asked, line)
        except ConnectionError:
            raise
        except Exception as problem:  # noqa: BLE001 (the test is told at the end; a line that is closed is tried again)
            self._problems.append(f"the server raised {type(problem).__name__}: {problem}")
            await line.send(Answer(400, {"error": {"message": "the server raised"}}))


class Play(Wire):
    """Writes to each request what ``play`` gives for it, piece by piece, and ends the connection.

    A number is a pause in seconds; None resets the connection.
    """

    def __init__(self, play: Callable[[Asked], Iterable[bytes | float | None]]) -> None:
        super().__init__()
        self._play = play

    @property
    def base_url(self) -> str:
        """The address that clients are given."""
        return f"{self.address}/v1"

    async def answer(self, asked: Asked, line: Line) -> None:
        """Play what stands for a request, as long as its client is there."""
        for piece in self._play(asked):
            if not line.is_open:
                return
            if piece is None:
                line.reset()
            elif isinstance(piece, bytes):
                await line.write(piece)
            else:
                await asyncio.sleep(piece)
        line.close()
