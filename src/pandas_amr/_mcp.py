"""Tools of MCP servers, as tools of agents. By the official SDK, ``pip install "pandas-amr[mcp]"``."""

from __future__ import annotations

import asyncio
import concurrent.futures
import shlex
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, create_model

from pandas_amr._engine import submit
from pandas_amr._wire import wire_of
from pandas_amr._wire_shapes import self_contained
from pandas_amr.errors import UsageError
from pandas_amr.tools import NAME, Tool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONNECT_S = 30.0
CLOSED = -32000, "Connection closed"  # the SDK's word for a server that has gone; servers use the number for more


class MCPTools(list[Tool]):
    """The tools of one MCP server, connected until ``close``, the end of a ``with``, or of the process.

    A server that has died is begun again for the next call.
    """

    def __init__(self, tools: Sequence[Tool], close: Callable[[], None]) -> None:
        super().__init__(tools)
        self._close = close

    def close(self) -> None:
        """Hang up; a server that was begun as a command ends."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def mcp_tools(server: str | Sequence[str], *, prefix: str = "", timeout_s: float | None = 60.0) -> MCPTools:
    """Connect to an MCP server and give its tools.

    Args:
        server: ``"http://..."`` for streamable HTTP; a command, as a text or a list, for stdio.
        prefix: what its tools' names begin with, where two servers have tools of one name.
        timeout_s: seconds that one call may take.

    Returns:
        A list for ``tools=``; also a context manager that hangs up at its end.

    Raises:
        UsageError: the SDK is not installed, or the server cannot be reached.

    Example:
        ``df.amr.map("...", tools=[*amr.mcp_tools("python server.py")])``
    """
    try:
        import mcp  # noqa: PLC0415 (an extra)
    except ImportError:
        raise UsageError('MCP tools need the SDK: pip install "pandas-amr[mcp]".') from None
    if isinstance(server, str) and server.startswith(("http://", "https://")):
        target: Any = server
    else:
        words = shlex.split(server) if isinstance(server, str) else [str(word) for word in server]
        if not words:
            raise UsageError('mcp_tools("http://...") takes an address, or a command: ["python", "server.py"].')
        target = mcp.StdioServerParameters(command=words[0], args=words[1:])
    kept = _Server(lambda: mcp.Client(target), shown=server)
    return MCPTools([_tool(one, prefix, kept, timeout_s) for one in kept.open()], kept.close)


class _Server:
    """A server and the connection to it; where that has ended, there is another one for the next call."""

    def __init__(self, client: Callable[[], Any], shown: Any) -> None:
        self._client = client
        self._shown = shown
        self._connection = _Connection(client(), shown)
        self._one_at_a_time = asyncio.Lock()
        self._closed = False

    def open(self) -> list[Any]:
        """Connect; the tools that the server has."""
        return self._connection.open()

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """Call a tool, on the engine.

        Raises:
            ConnectionError: the server has died, in the call or before it.
        """
        if self._closed:
            raise ConnectionError(f"The connection to the MCP server {self._shown!r} has been closed.")
        async with self._one_at_a_time:
            if self._connection.lost:
                await self._connect_again()
        return await self._connection.call(name, arguments)

    async def _connect_again(self) -> None:
        self._connection.hang_up()
        another = _Connection(self._client(), self._shown)
        try:
            await another.opened()
        except UsageError as error:
            raise ConnectionError(f"It has died, and was begun again in vain. {error}") from None
        if self._closed:
            another.hang_up()
        self._connection = another

    def close(self) -> None:
        """End the connection; there will be no other."""
        self._closed = True
        self._connection.close()


class _Connection:
    """A client of the SDK's, which lives in one task of the engine from its beginning to its end."""

    def __init__(self, client: Any, shown: Any) -> None:
        self._client = client
        self._shown = shown
        self._ready: concurrent.futures.Future[list[Any]] = concurrent.futures.Future()
        self._over: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._life: concurrent.futures.Future[Any] | None = None
        self._found_closed = False

    @property
    def lost(self) -> bool:
        """Whether it has ended: nothing can be called any more."""
        return self._found_closed or (self._life is not None and self._life.done())

    def open(self) -> list[Any]:
        """Connect; the tools that the server has."""
        self._life = submit(self._live())
        try:
            return self._ready.result(CONNECT_S)
        except TimeoutError:
            self._life.cancel()
            raise self._unanswered() from None

    async def opened(self) -> list[Any]:
        """What ``open`` does, on the engine."""
        self._life = submit(self._live())
        try:
            async with asyncio.timeout(CONNECT_S):
                return await asyncio.wrap_future(self._ready)
        except TimeoutError:
            raise self._unanswered() from None
        finally:
            if not self._ready.done() or self._ready.cancelled():
                self._life.cancel()

    def _unanswered(self) -> UsageError:
        return UsageError(f"The MCP server {self._shown!r} did not answer within {CONNECT_S:g} s.")

    async def _live(self) -> None:
        self._over = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        try:
            async with self._client as client:
                self._ready.set_result((await client.list_tools()).tools)
                await self._over.wait()
        except Exception as error:
            if self._ready.done():
                raise
            said = UsageError(f"The MCP server {self._shown!r} cannot be reached: {_innermost(error)}.")
            self._ready.set_exception(said)

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """Call a tool, on the engine."""
        try:
            return await self._client.call_tool(name, arguments)
        except Exception as error:
            if (getattr(error, "code", None), str(error)) != CLOSED:
                raise
            self._found_closed = True
        raise ConnectionError(f"The MCP server {self._shown!r} has died; it is begun again for the next call.")

    def hang_up(self) -> None:
        """Have the connection's task end."""
        if self._loop is not None and self._over is not None:
            self._loop.call_soon_threadsafe(self._over.set)

    def close(self) -> None:
        """End the connection's task, and wait for it."""
        if self._life is not None and not self._life.done():
            self.hang_up()
            self._life.result(CONNECT_S)


def _innermost(error: BaseException) -> str:
    """What went wrong, out of the groups that task groups make of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def _tool(told: Any, prefix: str, server: _Server, timeout_s: float | None) -> Tool:
    name = prefix + told.name
    if not NAME.fullmatch(name):
        name = "".join(letter if NAME.fullmatch(letter) else "_" for letter in name)[:64]

    async def called(**arguments: Any) -> str:
        result = await server.call(told.name, arguments)
        text = "\n".join(part.text if hasattr(part, "text") else f"[{part.type}]" for part in result.content)
        if result.is_error:
            raise RuntimeError(text)
        return text

    schema = told.input_schema if isinstance(told.input_schema, dict) else {}
    free: type[BaseModel] = create_model(name, __config__=ConfigDict(extra="allow"))
    tool = Tool(
        called, name=name, description=told.description or told.title or name, args_schema=free, timeout_s=timeout_s
    )
    asked = {"type": "object", "properties": {}} | schema
    whole = self_contained(asked) | {"type": "object", "additionalProperties": False}
    needed = [str(one) for one in schema.get("required") or ()]
    object.__setattr__(tool, "parameters", asked)
    object.__setattr__(tool, "wire", wire_of(whole | {"required": needed}, required=needed))
    return tool
