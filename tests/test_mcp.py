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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
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
        pd.DataFrame({"text": ["x"]}).amr.map("x", finding={"n": int}, tools=[*tools], lm=server.lm())
    return said


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
