"""Tools of MCP servers, as tools of agents. By the official SDK, ``pip install "pandas-amr[mcp]"``."""

from __future__ import annotations

import asyncio
import concurrent.futures
import shlex
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, create_model

from pandas_amr._run import submit
from pandas_amr.errors import UsageError
from pandas_amr.tools import NAME, Tool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONNECT_S = 30.0


class MCPTools(list[Tool]):
    """The tools of one MCP server, connected until ``close``, the end of a ``with``, or of the process."""

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
    connection = _Connection(mcp.Client(target), shown=server)
    listed = connection.open()
    return MCPTools([_tool(one, prefix, connection, timeout_s) for one in listed], connection.close)


class _Connection:
    """A client of the SDK's, which lives in one task of the engine from its beginning to its end."""

    def __init__(self, client: Any, shown: Any) -> None:
        self._client = client
        self._shown = shown
        self._ready: concurrent.futures.Future[list[Any]] = concurrent.futures.Future()
        self._over: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._life: concurrent.futures.Future[Any] | None = None

    def open(self) -> list[Any]:
        """Connect; the tools that the server has."""
        self._life = submit(self._live())
        try:
            return self._ready.result(CONNECT_S)
        except TimeoutError:
            self._life.cancel()
            raise UsageError(f"The MCP server {self._shown!r} did not answer within {CONNECT_S:g} s.") from None

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
        return await self._client.call_tool(name, arguments)

    def close(self) -> None:
        """End the connection's task, and wait for it."""
        if self._loop is not None and self._over is not None and self._life is not None and not self._life.done():
            self._loop.call_soon_threadsafe(self._over.set)
            self._life.result(CONNECT_S)


def _innermost(error: BaseException) -> str:
    """What went wrong, out of the groups that task groups make of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def _tool(told: Any, prefix: str, connection: _Connection, timeout_s: float | None) -> Tool:
    name = prefix + told.name
    if not NAME.fullmatch(name):
        name = "".join(letter if NAME.fullmatch(letter) else "_" for letter in name)[:64]

    async def called(**arguments: Any) -> str:
        result = await connection.call(told.name, arguments)
        text = "\n".join(part.text if hasattr(part, "text") else f"[{part.type}]" for part in result.content)
        if result.is_error:
            raise RuntimeError(text)
        return text

    schema = told.input_schema if isinstance(told.input_schema, dict) else {}
    free: type[BaseModel] = create_model(name, __config__=ConfigDict(extra="allow"))
    tool = Tool(
        called, name=name, description=told.description or told.title or name, args_schema=free, timeout_s=timeout_s
    )
    object.__setattr__(tool, "parameters", {"type": "object", "properties": {}} | schema)
    return tool
