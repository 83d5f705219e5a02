"""The scripted server is strict with tests, and plays all parts of the protocol."""

from __future__ import annotations

import gc
import json
import socket
import urllib.request
from urllib.parse import urlsplit

import pandas as pd
import pytest

import pandas_amr as amr
from pandas_amr.testing import Drop, Raw, ScriptedServer, Status, findings
from wire import Play

DF = pd.DataFrame({"text": ["row 1"]})


def test_a_request_that_is_not_in_the_script_fails_the_test():
    with pytest.raises(AssertionError, match=r"request 0 \(schema finding\) is not in the script"):  # noqa: SIM117
        with ScriptedServer(lambda request: None) as server:
            DF.amr.map("Read.", lm=server.lm())


def test_a_script_that_raises_fails_the_test():
    with pytest.raises(AssertionError, match="the script raised ZeroDivisionError"):  # noqa: SIM117
        with ScriptedServer(lambda request: 1 / 0) as server:
            DF.amr.map("Read.", lm=server.lm())


def test_models_are_listed():
    with (
        ScriptedServer(lambda request: None) as server,
        urllib.request.urlopen(f"{server.base_url}/models") as response,
    ):
        assert json.load(response)["data"][0]["id"] == "scripted"


def test_async_scripts_and_usage_left_out():
    async def provider(request):
        return findings(request, lambda unit: {"finding": "x"})

    with ScriptedServer(provider, usage=False) as server:
        result = DF.amr.map_reduce(map="Read.", reduce={"finding": "count"}, lm=server.lm())
    assert result.total.calls == result.total.estimated == 1
    assert result.total.tokens > 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Raw(refusal="I will not."), "declined"),
        (Raw("", finish_reason="length"), "its tokens were used up"),
        (Raw('{"findings": [{"unit": 0', finish_reason="length"), "cut off"),
        (Raw("x", finish_reason="content_filter"), "content filter"),
        (Raw(body="{not json"), "server"),
        (Raw(body='{"choices": []}'), "no message"),
        (Status(422, "bad"), "422: bad"),
        (Drop(), "No connection"),
    ],
)
def test_every_way_of_not_answering_is_a_failure_with_its_reason(answer, reason):
    with ScriptedServer(lambda request: answer) as server, pytest.raises(amr.MapFailed, match=reason):
        DF.amr.map("Read.", lm=server.lm(max_tries=1), errors="raise")


@pytest.mark.long
@pytest.mark.parametrize("make_server", [lambda: ScriptedServer(lambda request: None), lambda: Play(lambda asked: [])])
def test_a_server_closes_the_connections_that_come_while_it_stops(make_server):
    for _ in range(5):
        with make_server() as server:
            address = urlsplit(server.base_url)
            clients = [socket.create_connection((address.hostname, address.port)) for _ in range(40)]
        for client in clients:
            client.close()
        del server
    gc.collect()  # a socket that is left open is a warning here, and warnings are errors
