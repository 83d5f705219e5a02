"""Tools of MCP servers as tools of agents, by the official SDK (``pandas-amr[mcp]``)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import shlex
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, create_model

from pandas_amr._records.cut import cut_middle
from pandas_amr._records.engine import submit
from pandas_amr._records.keywords import suggest_keywords
from pandas_amr._records.tracebacks import user_traceback
from pandas_amr._types.wire import make_wire
from pandas_amr._types.wire_shapes import inline_references
from pandas_amr.errors import UsageError
from pandas_amr.tools import MOST_RESULT_CHARS, NAME, Tool, check_result_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONNECT_S = 30.0
LONGEST_NAME = 64  # of a tool, as OpenAI takes it
MOST_PAGES = 250  # of a server's list of tools
MOST_PARTS = 100  # of one answer
MOST_LABEL = 300  # characters of an address or a name; an address may hold the data itself
CLOSED = (
    -32000,
    "Connection closed",
)  # the SDK's word for a server that has gone; servers use the number for more


class MCPTools(list[Tool]):
    """The tools of one MCP server, connected until ``close``, the end of a ``with`` or the process.

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


@user_traceback
@suggest_keywords
def mcp_tools(
    server: str | Sequence[str],
    *,
    prefix: str = "",
    timeout_s: float | None = 60.0,
    max_result_chars: int | None = MOST_RESULT_CHARS,
) -> MCPTools:
    """Connect to an MCP server and give its tools.

    Args:
        server: ``"http://..."`` for streamable HTTP; a command, as a text or a list, for stdio.
        prefix: what its tools' names begin with, where two servers have tools of one name.
        timeout_s: seconds that one call may take.
        max_result_chars: as ``Tool`` has it; of an answer in parts the longest ones are shortened.

    Returns:
        A list for ``tools=``; also a context manager that hangs up at its end.

    Raises:
        UsageError: the SDK is not installed, or the server or one of its tools cannot be used.

    Example:
        ``df.amr.map("...", tools=[*amr.mcp_tools("python server.py")])``
    """
    check_result_limit(max_result_chars)
    try:
        import mcp  # noqa: PLC0415 (an extra)
    except ImportError:
        raise UsageError('MCP tools need the SDK: pip install "pandas-amr[mcp]".') from None
    if isinstance(server, str) and server.startswith(("http://", "https://")):
        target: Any = server
    else:
        words = shlex.split(server) if isinstance(server, str) else [str(word) for word in server]
        if not words:
            raise UsageError(
                'mcp_tools("http://...") takes an address, or a command: ["python", "server.py"].'
            )
        target = mcp.StdioServerParameters(command=words[0], args=words[1:])
    kept = _Server(lambda: mcp.Client(target), shown=server)
    options = {"timeout_s": timeout_s, "max_result_chars": max_result_chars}
    told = kept.open()
    try:
        return MCPTools([_tool(one, prefix, kept, options) for one in told], kept.close)
    except BaseException:  # such as a name that is the library's
        kept.close()
        raise


class _Server:
    """A server and the connection to it; if that has ended, the next call makes another one."""

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
            raise ConnectionError(
                f"The connection to the MCP server {self._shown!r} has been closed."
            )
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
    """A client of the SDK, which lives in one task of the engine from begin to end."""

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
                self._ready.set_result(await _list_tools(client, self._shown))
                await self._over.wait()
        except Exception as error:
            if self._ready.done():
                raise
            cause: BaseException = _innermost(error)
            if not isinstance(cause, UsageError):
                said = f"{type(cause).__name__}: {cause}"
                cause = UsageError(f"The MCP server {self._shown!r} cannot be reached: {said}.")
            self._ready.set_exception(cause)

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """Call a tool, on the engine."""
        try:
            return await self._client.call_tool(name, arguments)
        except Exception as error:
            if (getattr(error, "code", None), str(error)) != CLOSED:
                raise
            self._found_closed = True
        raise ConnectionError(
            f"The MCP server {self._shown!r} has died; it is begun again for the next call."
        )

    def hang_up(self) -> None:
        """Have the connection's task end."""
        if self._loop is not None and self._over is not None:
            self._loop.call_soon_threadsafe(self._over.set)

    def close(self) -> None:
        """End the connection's task, and wait for it."""
        if self._life is not None and not self._life.done():
            self.hang_up()
            self._life.result(CONNECT_S)


def _innermost(error: BaseException) -> BaseException:
    """Give what went wrong, out of the groups that task groups make of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _list_tools(client: Any, shown: Any) -> list[Any]:
    """List all tools of a server, page by page; one that stands on two pages is one.

    Raises:
        UsageError: the list has no end.
    """
    tools: dict[str, Any] = {}
    cursors: set[str] = set()
    cursor: str | None = None
    while True:
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            tools.setdefault(tool.name, tool)
        cursor = page.next_cursor
        if not cursor:  # some servers end the list with an empty one
            return list(tools.values())
        if cursor in cursors or len(cursors) >= MOST_PAGES:
            why = (
                "the same page is named again"
                if cursor in cursors
                else f"more than {MOST_PAGES:,} pages"
            )
            raise UsageError(
                f"The list of tools of the MCP server {shown!r} has no end: {why} (nextCursor)."
            )
        cursors.add(cursor)


def _tool(told: Any, prefix: str, server: _Server, options: dict[str, Any]) -> Tool:
    name = _usable_name(prefix + told.name)

    async def call_on_server(**arguments: Any) -> str:
        result = await server.call(told.name, arguments)
        text = _text_of(result, tool.max_result_chars)
        if result.is_error:
            raise RuntimeError(text)
        return text

    schema = told.input_schema if isinstance(told.input_schema, dict) else {}
    free: type[BaseModel] = create_model(name, __config__=ConfigDict(extra="allow"))
    description = told.description or told.title or name
    tool = Tool(call_on_server, name=name, description=description, args_schema=free, **options)
    asked = {"type": "object", "properties": {}} | schema
    whole = inline_references(asked) | {"type": "object", "additionalProperties": False}
    needed = [str(one) for one in schema.get("required") or ()]
    object.__setattr__(tool, "parameters", asked)
    object.__setattr__(tool, "wire", make_wire(whole | {"required": needed}, required=needed))
    return tool


def _usable_name(name: str) -> str:
    """Replace the characters of a tool's name that models cannot call."""
    if NAME.fullmatch(name):
        return name
    letters: list[str] = []
    for letter in name[:LONGEST_NAME]:
        letters.append(letter if NAME.fullmatch(letter) else "_")
    return "".join(letters)


def _text_of(result: Any, most: int | None) -> str:
    """Write a tool's answer as text: its parts one after the other, the longest shortened."""
    content = list(result.content or ())
    parts = [_part_text(part) for part in content[:MOST_PARTS]]
    if len(content) > MOST_PARTS:
        parts.append(f"[{len(content) - MOST_PARTS:,} more parts are left out]")
    structured = result.structured_content
    texts = [part.text for part in content if part.type == "text"]
    if structured is not None and not _is_told(structured, texts):
        parts.append(json.dumps(structured, ensure_ascii=False))
    return "\n".join(_within(parts, most)) or "[no content]"


def _part_text(part: Any) -> str:
    """Write one part: text as it is, a resource with its text; what is no text is described."""
    match part.type:
        case "text":
            return str(part.text)
        case "resource":
            return _resource_text(part.resource)
        case "resource_link":
            about = [part.title or part.name, part.uri, part.mime_type]
            size = f"{part.size:,} bytes" if part.size is not None else None
            return f"[link to a resource: {_labels(*about, size, part.description)}]"
    size = _size(getattr(part, "data", ""))
    return f"[{part.type}: {_labels(getattr(part, 'mime_type', None), size)}]"


def _resource_text(resource: Any) -> str:
    about = _labels(resource.uri, resource.mime_type)
    if hasattr(resource, "text"):
        return f"[resource: {about}]\n{resource.text}"
    return f"[resource: {about}, {_size(resource.blob)}, not text]"


def _labels(*parts: str | None) -> str:
    labels = []
    for part in parts:
        if part:
            label = " ".join(str(part).split())
            labels.append(label if len(label) <= MOST_LABEL else f"{label[:MOST_LABEL]} ...")
    return ", ".join(labels)


def _size(encoded: str) -> str:
    """Say how many bytes a base64 text holds."""
    return f"{len(encoded.rstrip('=')) * 3 // 4:,} bytes"


def _is_told(structured: Any, texts: Sequence[str]) -> bool:
    """Tell whether structured content stands in the texts, too: whole, or item by item."""
    wanted = [structured]
    if isinstance(structured, dict) and list(structured) == [
        "result"
    ]:  # how SDKs wrap what is no object
        wanted.append(structured["result"])
    decoded = [_decode_if_json(text) for text in texts]
    said = [*decoded, *texts, decoded, list(texts)]
    return any(one == other for one in wanted for other in said)


def _decode_if_json(text: str) -> Any:
    """Give what a text is as JSON; itself if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _within(parts: Sequence[str], most: int | None) -> list[str]:
    """Shorten the longest parts until all, joined by new lines, fit ``most`` characters."""
    if most is None:
        return list(parts)
    left = most - len(parts)
    lengths = sorted(len(part) for part in parts)
    for number, length in enumerate(lengths):
        share = left // (len(lengths) - number)  # of each part that is at least so long
        if length > share:
            return [cut_middle(part, share) for part in parts]
        left -= length
    return list(parts)
