"""Tools of MCP servers, by stdio and by HTTP."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pandas as pd
import pytest

import pandas_amr as amr
from pandas_amr.testing import Call, ScriptedServer
from ports import closed_port

pytest.importorskip("mcp")

SERVER = """
import sys
from mcp.server import MCPServer

server = MCPServer("prices")

@server.tool()
def price(item: str, pieces: int = 1) -> float:
    '''The price of so many pieces.'''
    if item == "nothing":
        raise ValueError("there is no such item")
    return 2.5 * pieces

if len(sys.argv) > 1:
    server.run(transport="streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
else:
    server.run()
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "server.py"
    path.write_text(SERVER, encoding="utf-8")
    return str(path)


def asked(tools, name="price"):
    """An agent that asks for a price, and for one that does not exist."""
    said = []

    def provider(request):
        match len(request.tool_results):
            case 0:
                return Call(name, {"item": "tea", "pieces": 4})
            case 1:
                return Call(name, {"item": "nothing"})
        said.extend(request.tool_results)
        return {"findings": [{"unit": 0, "n": float(request.tool_results[0])}]}

    with ScriptedServer(provider) as server:
        frame = pd.DataFrame({"text": ["x"]}).amr.map("The price.", finding={"n": float}, tools=tools, lm=server.lm())
        told = server.requests[0].body["tools"][0]["function"]
    return frame["n"].tolist(), said, told


def test_a_command_s_tools_are_called_and_their_errors_told(script):
    with amr.mcp_tools([sys.executable, script]) as tools:
        assert repr(list(tools)) == "[<Tool price(item, pieces)>]"
        found, said, told = asked([*tools])
    assert found == [10.0]
    assert "Error executing tool price" in said[1]
    assert told["description"] == "The price of so many pieces."
    assert told["parameters"]["required"] == ["item"]


def test_an_address_s_tools_are_called(script):
    port = closed_port()
    process = subprocess.Popen(
        [sys.executable, script, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        with amr.mcp_tools(f"http://127.0.0.1:{port}/mcp", prefix="shop_") as tools:
            assert repr(list(tools)) == "[<Tool shop_price(item, pieces)>]"
            found, said, _ = asked([*tools], "shop_price")
            assert found == [10.0]
            assert "Error executing tool price" in said[1]
    finally:
        process.kill()
        process.wait()


MORTAL = """
import os, sys
from mcp.server import MCPServer

server = MCPServer("mortal")

@server.tool()
def whoami() -> str:
    return str(os.getpid())

@server.tool()
def die(last: bool = False) -> str:
    if last:
        os.remove(sys.argv[0])
    os._exit(3)

server.run()
"""


def told_by(tools, *calls):
    """What an agent is told of calls that it makes one after the other."""
    said = []

    def provider(request):
        said[:] = request.tool_results
        if len(said) < len(calls):
            return calls[len(said)]
        return {"findings": [{"unit": 0, "n": 1}]}

    with ScriptedServer(provider) as server:
        pd.DataFrame({"text": ["x"]}).amr.map("x", finding={"n": int}, tools=[*tools], max_steps=99, lm=server.lm())
    return said


@pytest.mark.long
def test_a_server_that_has_died_is_begun_again_for_the_next_call(tmp_path):
    path = tmp_path / "server.py"
    path.write_text(MORTAL, encoding="utf-8")
    who, die = Call("whoami", {}), Call("die", {})
    with amr.mcp_tools([sys.executable, str(path)]) as tools:
        first, died, second, died_again, third = told_by(tools, who, die, who, die, who)
        assert all(one.isdigit() for one in (first, second, third))
        assert len({first, second, third}) == 3
        for one in (died, died_again):
            assert "has died; it is begun again for the next call" in one


@pytest.mark.long
def test_a_server_that_cannot_be_begun_again_is_told_with_the_reason_and_tried_anew(tmp_path):
    path = tmp_path / "server.py"
    path.write_text(MORTAL, encoding="utf-8")
    with amr.mcp_tools([sys.executable, str(path)]) as tools:
        _, gone = told_by(tools, Call("die", {"last": True}), Call("whoami", {}))
        assert "begun again in vain" in gone
        assert "cannot be reached: " in gone
        path.write_text(MORTAL, encoding="utf-8")
        assert told_by(tools, Call("whoami", {}))[0].isdigit()
    (closed,) = told_by(tools, Call("whoami", {}))
    assert "has been closed" in closed


def test_a_server_that_is_not_there_is_told():
    with pytest.raises(amr.UsageError, match="cannot be reached"):
        amr.mcp_tools(["no-such-command-at-all"])
    with pytest.raises(amr.UsageError, match="takes an address"):
        amr.mcp_tools([])


PAGED = """
import sys
import anyio
import mcp.server.stdio
from mcp import types
from mcp.server import Server

PAGES = {
    "three": {None: ("a", "b"), "b": ("b", "c"), "c": ("d", "")},
    "the same": {None: ("a", "x"), "x": ("b", "x")},
    "a circle": {None: ("a", "x"), "x": ("b", "y"), "y": ("c", "x")},
}

def page(kind, cursor):
    if kind == "no end":
        number = int(cursor or 0)
        return f"tool-{number}", str(number + 1)
    if kind == "broken" and cursor is not None:
        raise RuntimeError("no second page")
    return ("a", "x") if kind == "broken" else PAGES[kind][cursor]

async def listed(context, params):
    name, after = page(sys.argv[1], params.cursor if params else None)
    tool = types.Tool(name=name, description=name, input_schema={"type": "object"})
    return types.ListToolsResult(tools=[tool], next_cursor=after)

async def called(context, params):
    return types.CallToolResult(content=[types.TextContent(text=params.name)])

async def main():
    server = Server("paged", on_list_tools=listed, on_call_tool=called)
    async with mcp.server.stdio.stdio_server() as (reads, writes):
        await server.run(reads, writes, server.create_initialization_options())

anyio.run(main)
"""


def paged(tmp_path, kind):
    path = tmp_path / "paged.py"
    path.write_text(PAGED, encoding="utf-8")
    return [sys.executable, str(path), kind]


@pytest.mark.long
def test_a_list_of_tools_is_read_to_its_last_page(tmp_path):
    """The third page repeats nothing; a tool on two pages is one; an empty cursor is the end."""
    with amr.mcp_tools(paged(tmp_path, "three")) as tools:
        assert [one.name for one in tools] == ["a", "b", "d"]
        assert told_by(tools, Call("d", {})) == ["d"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("the same", "has no end: the same page is named again"),
        ("a circle", "has no end: the same page is named again"),
        ("no end", "has no end: more than 250 pages"),
        ("broken", "cannot be reached: MCPError"),
    ],
)
def test_a_list_of_tools_without_an_end_is_told(tmp_path, kind, why):
    with pytest.raises(amr.UsageError, match=why):
        amr.mcp_tools(paged(tmp_path, kind))


PARTS = """
import base64, sys
import anyio
import mcp.server.stdio
from mcp import types
from mcp.server import Server

BLOB = base64.b64encode(bytes(1000)).decode()
text = lambda said: types.TextContent(text=said)
embedded = lambda **known: types.EmbeddedResource(resource=known)
ANSWERS = {
    "text": dict(content=[text("one"), text("two")]),
    "resource": dict(content=[embedded(uri="file:///notes.md", mime_type="text/markdown", text="# Notes")]),
    "no type": dict(content=[embedded(uri="file:///notes", text="Notes")]),
    "blob": dict(content=[embedded(uri="file:///a.png", mime_type="image/png", blob=BLOB)]),
    "link": dict(content=[types.ResourceLink(
        name="report", uri="file:///r.pdf", mime_type="application/pdf", size=2048, description="Last\\nyear")]),
    "bare link": dict(content=[types.ResourceLink(name="report", uri="file:///r.pdf")]),
    "data link": dict(content=[types.ResourceLink(name="inline", uri="data:image/png;base64," + BLOB)]),
    "image": dict(content=[types.ImageContent(data=BLOB, mime_type="image/png"), text("a chart")]),
    "audio": dict(content=[types.AudioContent(data=BLOB, mime_type="audio/wav")]),
    "structured": dict(content=[], structured_content={"price": 2.5, "name": "T\u00e9"}),
    "beside a summary": dict(content=[text("Found two.")], structured_content={"found": [1, 2]}),
    "said twice": dict(content=[text('{"price":  2.5}')], structured_content={"price": 2.5}),
    "wrapped": dict(content=[text("2.5")], structured_content={"result": 2.5}),
    "wrapped text": dict(content=[text("2.5")], structured_content={"result": "2.5"}),
    "item by item": dict(content=[text("a"), text("7")], structured_content={"result": ["a", "7"]}),
    "too deep": dict(content=[text("[" * 100_000)], structured_content={"n": 1}),
    "nothing": dict(content=[]),
    "long": dict(content=[text("<" + "x" * 10**6 + ">"), text("short"), embedded(uri="file:///l", text="y" * 10**6)]),
    "many": dict(content=[text(str(n)) for n in range(5000)]),
    "failed": dict(content=[embedded(uri="file:///log", text="no disk")], is_error=True),
}

async def listed(context, params):
    return types.ListToolsResult(tools=[types.Tool(name="get", input_schema={"type": "object"})])

async def called(context, params):
    return types.CallToolResult(**ANSWERS[params.arguments["what"]])

async def main():
    server = Server("parts", on_list_tools=listed, on_call_tool=called)
    async with mcp.server.stdio.stdio_server() as (reads, writes):
        await server.run(reads, writes, server.create_initialization_options())

anyio.run(main)
"""

TEXTS = {
    "text": "one\ntwo",
    "resource": "[resource: file:///notes.md, text/markdown]\n# Notes",
    "no type": "[resource: file:///notes]\nNotes",
    "blob": "[resource: file:///a.png, image/png, 1,000 bytes, not text]",
    "link": "[link to a resource: report, file:///r.pdf, application/pdf, 2,048 bytes, Last year]",
    "bare link": "[link to a resource: report, file:///r.pdf]",
    "data link": f"[link to a resource: inline, data:image/png;base64,{'A' * 278} ...]",
    "image": "[image: image/png, 1,000 bytes]\na chart",
    "audio": "[audio: audio/wav, 1,000 bytes]",
    "structured": '{"price": 2.5, "name": "Té"}',
    "beside a summary": 'Found two.\n{"found": [1, 2]}',
    "said twice": '{"price":  2.5}',
    "wrapped": "2.5",
    "wrapped text": "2.5",
    "item by item": "a\n7",
    "nothing": "[no content]",
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    path = tmp_path_factory.mktemp("parts") / "server.py"
    path.write_text(PARTS, encoding="utf-8")
    with amr.mcp_tools([sys.executable, str(path)]) as tools:
        yield tools


def test_every_part_of_an_answer_is_text_that_an_agent_can_use(parts):
    said = told_by(parts, *(Call("get", {"what": what}) for what in TEXTS))
    assert dict(zip(TEXTS, said, strict=True)) == TEXTS


def test_long_answers_are_shortened_in_their_longest_parts_and_say_so(parts):
    long, many, deep = told_by(parts, *(Call("get", {"what": what}) for what in ("long", "many", "too deep")))
    for said in (long, many, deep):
        assert len(said) <= 20_000
    first, short, last = long.split("\nshort\n")[0], "\nshort\n", long.split("\nshort\n")[1]
    assert short in long
    assert first.startswith("<xxx")
    assert first.endswith("xxx>")
    for part in (first, last):
        assert 9_900 < len(part) <= 10_000
        assert "characters left out here" in part
    assert last.startswith("[resource: file:///l]\nyyy")
    assert many.split("\n") == [*map(str, range(100)), "[4,900 more parts are left out]"]
    assert deep.endswith('\n{"n": 1}')


@pytest.mark.long
def test_the_bound_of_an_answer_is_the_one_of_its_tool(parts, tmp_path):
    assert {tool.max_result_chars for tool in parts} == {amr.Tool(parts.close, description="x").max_result_chars}
    script = tmp_path / "server.py"
    script.write_text(PARTS, encoding="utf-8")
    for most in (1_000, 100):
        with amr.mcp_tools([sys.executable, str(script)], max_result_chars=most) as tools:
            long, many = told_by(tools, Call("get", {"what": "long"}), Call("get", {"what": "many"}))
            assert len(long) <= most
            assert len(many) <= most
            assert "characters left out here" in long
    with amr.mcp_tools([sys.executable, str(script)], max_result_chars=None) as tools:
        (whole,) = told_by(tools, Call("get", {"what": "long"}))
        assert len(whole) > 100_000
    with pytest.raises(amr.UsageError, match="takes a whole number from 100, or None"):
        amr.mcp_tools(["no such command"], max_result_chars=7)


@pytest.mark.long
def test_an_error_with_a_resource_is_told_with_its_text(parts):
    (said,) = told_by(parts, Call("get", {"what": "failed"}))
    assert "no disk" in said
