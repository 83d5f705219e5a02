"""One odd answer costs its rows, never the run: broken HTTP, answers without end, results of any kind, odd refusals."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import gzip
import itertools
import json
import pathlib
import re
import uuid
import zlib
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import BaseModel

import pandas_amr as amr
from numbered import number
from numbered import rows as frame_of
from pandas_amr._agent.results import as_text
from pandas_amr._records.cut import cut_middle
from pandas_amr.models.base import Abilities
from pandas_amr.models.openai.connections import LARGEST_BODY
from pandas_amr.models.openai.error_bodies import read_error_body
from pandas_amr.models.openai.failures import Failures
from pandas_amr.testing import Call, Drop, Raw, ScriptedServer, Status, findings
from wire import Asked, Play

ONE_BY_ONE = {"shard_size": 1}


def mapped(frame: pd.DataFrame, lm: amr.LM, **options: Any) -> amr.Result:
    return frame.amr.map_reduce(map="Which?", finding={"n": int}, reduce={"n": "count"}, lm=lm, **options)


# Answers that are none: bytes on the wire


class RawServer(Play):
    """Answers each request with bytes that a function of the row's number gives; None resets the connection."""

    def __init__(self, answer) -> None:
        super().__init__(self._bytes)
        self._of_row = answer
        self.asked: list[int] = []

    def _bytes(self, asked: Asked) -> list[bytes | None]:
        row = int(re.search(r"row (\d+)", json.dumps(asked.body["messages"]))[1])
        self.asked.append(row)
        return [self._of_row(row, self.asked.count(row))]

    def lm(self, **options: Any) -> amr.LM:
        return amr.LM("raw", base_url=self.base_url, api_key="k", journaled=False, **options)


def http(
    body: bytes, *, status: str = "200 OK", headers: bytes = b"Content-Type: application/json\r\n", length: bool = True
) -> bytes:
    told = b"Content-Length: %d\r\n" % len(body) if length else b""
    return b"HTTP/1.1 " + status.encode() + b"\r\n" + headers + told + b"Connection: close\r\n\r\n" + body


def good(row: int) -> bytes:
    content = json.dumps({"findings": [{"unit": 0, "n": row}]})
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return json.dumps({"choices": [{"message": {"content": content}}], "usage": usage}).encode()


ANY = good(0)
BROKEN = {
    "a status that is no number": http(ANY, status="OK fine"),
    "a status of five digits": http(ANY, status="99999 OK"),
    "a status beyond all": http(ANY, status="999 OK"),
    "a status of the protocol's own": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "nothing new": b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n",
    "no content": b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    "on and on": b"HTTP/1.1 100 Continue\r\n\r\n",
    "no HTTP at all": b"220 smtp.example.org ESMTP\r\n\r\n",
    "HTTP 0.9": ANY,
    "half a status line": b"HTTP/1.",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "a header without end": http(ANY, headers=b"X-A: " + b"a" * 200_000 + b"\r\n"),
    "headers without end": http(ANY, headers=b"".join(b"X-%d: a\r\n" % n for n in range(5000))),
    "a header that is none": http(ANY, headers=b"this is no header\r\n"),
    "a header with a NUL": http(ANY, headers=b"X-A: a\x00b\r\n"),
    "two lengths": http(ANY, headers=b"Content-Length: 3\r\n"),
    "a length below nothing": http(ANY, headers=b"Content-Length: -3\r\n", length=False),
    "a length that is none": http(ANY, headers=b"Content-Length: many\r\n", length=False),
    "more promised than sent": http(ANY, headers=b"Content-Length: 100000\r\n", length=False),
    "a bad chunk": http(b"zz\r\nabc\r\n0\r\n\r\n", headers=b"Transfer-Encoding: chunked\r\n", length=False),
    "a cut chunk": http(b"ff\r\n{", headers=b"Transfer-Encoding: chunked\r\n", length=False),
    "chunks and a length": http(ANY, headers=b"Transfer-Encoding: chunked\r\n"),
    "no gzip": http(ANY, headers=b"Content-Encoding: gzip\r\n"),
    "a cut deflate": http(zlib.compress(ANY * 50)[:20], headers=b"Content-Encoding: deflate\r\n"),
    "no UTF-8": http(b'{"choices": "\xff\xfe"}'),
    "UTF-16": http(b"\xff\xfe{"),
    "nothing": b"",
    "an empty body": http(b""),
    "half a body": http(ANY[: len(ANY) // 2]),
    "HTML": http(b"<html>Welcome</html>", headers=b"Content-Type: text/html\r\n"),
    "no object": http(b"[]"),
    "a number": http(b"3"),
    "a number without end": http(b'{"choices": ' + b"1" * 10_000 + b"}"),
    "nested": http(b"[" * 1000),
    "nested without end": http(b"[" * 100_000),
    "nested and closed": http(b'{"choices": ' + b"[" * 500 + b"]" * 500 + b"}"),
    "an error of bytes": http(b"\xff\xfe<html>", status="500 X", headers=b"Content-Type: text/html; charset=nope\r\n"),
    "an error in a charset that is none": http(
        b"\xff", status="502 X", headers=b"Content-Type: a/b; charset=rot13\r\n"
    ),
    "an error that cannot be decoded": http(b"\xff..a", status="503 X", headers=b"Content-Type: a/b; charset=idna\r\n"),
    "an error without end": http(b"[" * 100_000, status="500 X"),
    "a redirect to nowhere": http(b"", status="307 X", headers=b"Location: http://[::1\r\n"),
    "a redirect to another protocol": http(b"", status="307 X", headers=b"Location: gopher://x/\r\n"),
    "a redirect without an address": http(b"", status="302 X"),
    "a reset": None,
}


def test_a_broken_answer_is_asked_again_like_a_reset():
    broken = list(BROKEN.values())
    with RawServer(lambda row, times: broken[row] if times == 1 else http(good(row))) as server:
        result = mapped(frame_of(len(broken)), server.lm(max_tries=3), plan=ONE_BY_ONE)
    assert result.failures.empty, result.failures[["position", "reason"]]
    assert result.frame["n"].tolist() == list(range(len(broken)))
    assert result.total.tries >= 2 * len(broken)


def test_an_answer_that_is_always_broken_costs_its_rows_and_no_others():
    broken = list(BROKEN.values())
    rows = 2 * len(broken)
    with RawServer(lambda row, times: http(good(row)) if row % 2 else broken[row // 2]) as server:
        result = mapped(frame_of(rows), server.lm(max_tries=2), plan=ONE_BY_ONE)
    assert result.failures["position"].tolist() == list(range(0, rows, 2))
    assert set(result.failures["who"]) == {"model"}
    assert result.frame["n"].dropna().tolist() == list(range(1, rows, 2))


LARGE = b" " * (LARGEST_BODY + 1)
TOO_LARGE = {
    "as it is": http(LARGE),
    "compressed to a thousandth": http(gzip.compress(LARGE * 4), headers=b"Content-Encoding: gzip\r\n"),
    "an error": http(gzip.compress(LARGE), status="400 X", headers=b"Content-Encoding: gzip\r\n"),
    "in chunks": http(
        b"".join(b"100000\r\n" + b" " * 2**20 + b"\r\n" for _ in range(64)) + b"0\r\n\r\n",
        headers=b"Transfer-Encoding: chunked\r\n",
        length=False,
    ),
}


NOT_UTF_8 = {
    "as its headers say": ("caf\xe9", "iso-8859-1", "; charset=ISO-8859-1", "caf\xe9"),
    "nobody says what": ("caf\xe9", "latin-1", "", "caf\ufffd"),
    "a charset that is none": ("caf\xe9", "latin-1", "; charset=rot13", "caf\ufffd"),
}


@pytest.mark.parametrize(("said", "encoding", "charset", "read"), NOT_UTF_8.values(), ids=NOT_UTF_8.keys())
def test_a_byte_that_is_no_utf_8_does_not_make_an_answer_useless(said, encoding, charset, read):
    content = json.dumps({"findings": [{"unit": 0, "place": said}]}, ensure_ascii=False)
    body = json.dumps({"choices": [{"message": {"content": content}}]}, ensure_ascii=False).encode(encoding)
    headers = f"Content-Type: application/json{charset}\r\n".encode()
    with RawServer(lambda row, times: http(body, headers=headers)) as server:
        found = frame_of(1).amr.map("Where?", finding={"place": str}, lm=server.lm())
    assert found["place"].tolist() == [read]
    assert len(server.asked) == 1


@pytest.mark.parametrize("large", TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_a_body_that_is_larger_than_any_answer_is_not_read(large):
    with RawServer(lambda row, times: http(good(row)) if row else large) as server:
        lm = server.lm(max_tries=2, timeout_s=60)
        mapped(frame_of(2).tail(1), lm, plan=ONE_BY_ONE)
        result = mapped(frame_of(2), lm, plan=ONE_BY_ONE)
    assert result.failures["reason"].tolist() == ["The server's answer is larger than 32 MB and is not read."]
    assert result.frame["n"].dropna().tolist() == [1]


def content_of(row: int) -> str:
    return json.dumps({"findings": [{"unit": 0, "n": row}]})


def choices(*of_row: dict[str, Any] | None) -> bytes:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return http(json.dumps({"choices": of_row, "usage": usage}).encode())


# Each with who answers so.
PLACES = {
    "vLLM, LM Studio: all is thought": lambda text: [{"message": {"content": None, "reasoning_content": text}}],
    "OpenRouter: all is thought": lambda text: [{"message": {"content": "", "reasoning": "\n" + text}}],
    "a gateway: none, and one": lambda text: [None, {"message": {"content": text}}],
    "a gateway: an empty one, and one": lambda text: [{"message": {"content": None}}, {"message": {"content": text}}],
    "vLLM: aborted at its end": lambda text: [{"message": {"content": text}, "finish_reason": "abort"}],
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_an_answer_is_found_wherever_a_server_puts_it(place):
    with RawServer(lambda row, times: choices(*place(content_of(row)))) as server:
        result = mapped(frame_of(3), server.lm(), plan=ONE_BY_ONE)
    assert result.frame["n"].tolist() == [0, 1, 2]
    assert len(server.asked) == 3


THOUGHTS = {
    "prose": "I think of {it}.",
    "cut": '{"findings": [{"unit": 0, "n"',
    "no object": "[1]",
}


@pytest.mark.parametrize("thought", THOUGHTS.values(), ids=THOUGHTS.keys())
def test_thoughts_that_are_no_answer_are_none(thought):
    with RawServer(lambda row, times: choices({"message": {"content": None, "reasoning_content": thought}})) as server:
        result = mapped(frame_of(1), server.lm(), plan=ONE_BY_ONE)
    assert result.failures["reason"].tolist() == ["the answer is empty"]


BROKEN_OFF = pytest.mark.parametrize("reason", ["error", "insufficient_system_resource", "network_error", "abort"])


@BROKEN_OFF
def test_an_answer_that_a_server_breaks_off_is_paid_for_and_asked_again(reason):
    def answer(row, times):
        content = content_of(row)
        if times == 1:
            return choices({"message": {"content": content[:20]}, "finish_reason": reason})
        return choices({"message": {"content": content}, "finish_reason": "stop"})

    with RawServer(answer) as server:
        result = mapped(frame_of(2), server.lm(), plan=ONE_BY_ONE)
    assert result.frame["n"].tolist() == [0, 1]
    assert set(result.status["status"]) == {"ok"}
    assert (result.total.calls, result.total.tries, len(server.asked)) == (4, 4, 4)


@BROKEN_OFF
def test_an_answer_that_is_always_broken_off_is_a_failure_of_the_server_s(reason):
    broken = choices({"message": {"content": ""}, "finish_reason": reason})
    with RawServer(lambda row, times: http(good(row)) if row else broken) as server:
        result = mapped(frame_of(2), server.lm(max_tries=2), plan=ONE_BY_ONE)
    assert result.failures[["position", "who", "attempts"]].values.tolist() == [[0, "model", 1]]
    assert reason in result.failures["reason"][0]


def stream(*events: Any, end: str = "data: [DONE]\n\n") -> bytes:
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return http("".join([*lines, end]).encode(), headers=b"Content-Type: text/event-stream\r\n")


def delta(finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    return {"object": "chat.completion.chunk", "choices": choices, "usage": None}


USAGE_EVENT = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}
LINE_ENDS = "\u2028\u2029\x85"  # JSON has them as they are
STREAMS = {
    "as documented": lambda text: stream(
        delta(role="assistant", content=""),
        delta(content=text[:9]),
        delta(content=text[9:]),
        delta("stop"),
        USAGE_EVENT,
    ),
    "thoughts first": lambda text: stream(
        delta(reasoning_content="{"), delta(reasoning_content="?"), delta(content=text), delta("stop"), USAGE_EVENT
    ),
    "without an end mark": lambda text: stream(delta(content=text), delta("stop"), USAGE_EVENT, end=""),
    "all in one event": lambda text: stream(USAGE_EVENT | {"choices": [{"message": {"content": text}}]}, end=""),
    "lines of other fields": lambda text: http(
        f": waiting\r\n\r\nevent: message\r\nid: 1\r\ndata:{json.dumps(delta('stop', content=text))}\r\n\r\n"
        f"data:{json.dumps(USAGE_EVENT)}\r\n\r\n".encode()
    ),
    "other ends of lines within texts": lambda text: http(
        b"\xef\xbb\xbf"
        + f"data: {json.dumps(delta(reasoning_content=LINE_ENDS), ensure_ascii=False)}\n\n".encode()
        + f"data: {json.dumps(delta('stop', content=text))}\n\ndata: {json.dumps(USAGE_EVENT)}\n\n".encode()
    ),
    "an error behind it": lambda text: stream(
        delta("stop", content=text), {"error": {"message": "no more is known"}}, USAGE_EVENT
    ),
}


@pytest.mark.parametrize("played", STREAMS.values(), ids=STREAMS.keys())
def test_an_answer_that_comes_as_a_stream_is_read(played):
    with RawServer(lambda row, times: played(content_of(row))) as server:
        result = mapped(frame_of(3), server.lm(), plan=ONE_BY_ONE)
    assert result.frame["n"].tolist() == [0, 1, 2]
    assert (result.total.calls, result.total.tokens, result.total.estimated) == (3, 45, 0)


BROKEN_STREAMS = {
    "broken off": stream(delta(content='{"findings": [{"unit": 0, "n": 7}]}'), end=""),
    "an event that is none": stream(delta("stop", content="{}"), end="data: {\n\n"),
    "an error": stream(delta(content="{"), {"error": {"code": 502, "message": "Provider disconnected"}}),
    "no event": http(b": waiting\n\n: waiting\n\n"),
}


@pytest.mark.parametrize("broken", BROKEN_STREAMS.values(), ids=BROKEN_STREAMS.keys())
def test_a_stream_that_is_broken_is_asked_again(broken):
    with RawServer(lambda row, times: http(good(row)) if times == 2 or row else broken) as server:
        result = mapped(frame_of(2), server.lm(), plan=ONE_BY_ONE)
    assert result.frame["n"].tolist() == [0, 1]
    assert (result.total.tries, len(server.asked)) == (3, 3)


def test_half_of_a_character_in_the_name_of_a_call_is_not_sent_back():
    @amr.tool
    def look(at: str) -> str:
        """Look."""
        return "seen"

    call = {"id": "c\ud800", "type": "function", "function": {"name": "look", "arguments": '{"at": "x"}'}}

    def answer(row: int, times: int) -> bytes:
        if times > 1:
            return http(good(row))
        return http(json.dumps({"choices": [{"message": {"content": None, "tool_calls": [call]}}]}).encode())

    with RawServer(answer) as server:
        result = mapped(frame_of(1), server.lm(), tools=[look])
    assert result.frame["n"].tolist() == [0]
    assert len(server.asked) == 2


def test_calls_in_a_stream_are_put_together():
    looked = []

    @amr.tool
    def look(at: str) -> str:
        """Look."""
        looked.append(at)
        return "seen"

    def part(index: int, **function: Any) -> dict[str, Any]:
        return {"index": index, "function": function}

    def answer(row, times):
        if times > 1:
            arguments = content_of(row)
            call = {"id": "c", "type": "function"} | part(0, name="submit_findings", arguments=arguments)
            return stream(delta("tool_calls", tool_calls=[call]))
        return stream(
            delta(tool_calls=[{"id": "a", "type": "function"} | part(0, name="look", arguments="")]),
            delta(tool_calls=[part(0, arguments='{"at": ')]),
            delta(tool_calls=[part(0, arguments='"it"}')]),
            delta("tool_calls", tool_calls=[{"id": "b"} | part(1, name="look", arguments='{"at": "that"}')]),
        )

    with RawServer(answer) as server:
        result = mapped(frame_of(1), server.lm(), plan=ONE_BY_ONE, tools=[look])
    assert (result.frame["n"].tolist(), sorted(looked), len(server.asked)) == ([0], ["it", "that"], 2)


ONLY_STREAMS = [
    "This model only support stream mode, please enable the stream parameter to access the model. ",
    "Stream is required",
    "Non-streaming requests are not supported: set 'stream' to true.",
]


@pytest.mark.parametrize("said", ONLY_STREAMS, ids=range(len(ONLY_STREAMS)))
def test_a_model_that_is_served_as_streams_only_is_asked_so_after_one_refusal(said):
    class Streaming(RawServer):
        def _bytes(self, asked: Asked) -> list[bytes | None]:
            if not asked.body.get("stream"):
                error = {"error": {"message": said, "type": "invalid_request_error"}}
                return [http(json.dumps(error).encode(), status="400 Bad Request")]
            assert asked.body["stream_options"] == {"include_usage": True}
            return super()._bytes(asked)

    with Streaming(lambda row, times: STREAMS["as documented"](content_of(row))) as server:
        result = mapped(frame_of(3), server.lm(), plan=ONE_BY_ONE)
        assert result.frame["n"].tolist() == [0, 1, 2]
        assert (len(server.requests), result.total.tries, result.total.tokens) == (4, 4, 45)


def test_a_call_beside_a_text_in_a_choice_of_its_own_is_made():
    """GitHub Copilot's endpoint puts them so."""
    call = {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    looks = {"message": {"role": "assistant", "content": None, "tool_calls": [call]}, "finish_reason": "tool_calls"}
    looked = []

    @amr.tool
    def look() -> str:
        """Look."""
        looked.append(1)
        return "seen"

    def answer(row, times):
        if times == 1:
            return choices({"message": {"content": "I will look."}, "finish_reason": "stop"}, looks)
        submission = {"name": "submit_findings", "arguments": content_of(row)}
        return choices({"message": {"tool_calls": [{"id": "b", "type": "function", "function": submission}]}})

    with RawServer(answer) as server:
        result = mapped(frame_of(1), server.lm(), plan=ONE_BY_ONE, tools=[look])
    assert (result.frame["n"].tolist(), looked, len(server.asked)) == ([0], [1], 2)


@pytest.mark.parametrize("tools", [False, True])
def test_content_without_end_costs_its_row(tools):
    @amr.tool
    def look() -> str:
        """Look."""
        return ""

    def provider(request):
        row = request.units[0]["text"]
        if row == "row 1":
            return Raw("[" * 100_000)
        if row == "row 2":
            return Raw('{"findings": ' + "[" * 1000)
        if row == "row 3":
            return Raw(json.dumps({"findings": [{"unit": 0, "n": None}]}).replace("null", "[" * 300 + "]" * 300))
        return findings(request, number)

    with ScriptedServer(provider) as server:
        result = mapped(frame_of(6), server.lm(), plan=ONE_BY_ONE, tools=[look] if tools else [])
    assert result.failures["position"].tolist() == [1, 2, 3]
    assert set(result.failures["who"]) == {"schema"}
    assert result.frame["n"].dropna().tolist() == [0, 4, 5]


ODD_VALUES = {
    "NaN": "NaN",
    "infinity": "Infinity",
    "too many digits": "1" * 5000,
    "a number beyond the column": "1" * 30,
    "half of a character": '"\\ud83d"',
    "a NUL": '"\\u0000"',
    "a deep list": "[" * 50 + "]" * 50,
}


@pytest.mark.parametrize("value", ODD_VALUES.values(), ids=ODD_VALUES.keys())
def test_an_odd_value_costs_its_row_and_not_its_shard(value):
    def provider(request):
        text = json.dumps(findings(request, number))
        return Raw(re.sub(r'("unit": \d+, "n": )2\b', lambda match: match.group(1) + value, text))

    with ScriptedServer(provider) as server:
        result = mapped(frame_of(5), server.lm())
    assert result.failures["position"].tolist() == [2]
    assert result.frame["n"].dropna().tolist() == [0, 1, 3, 4]


# What a tool gives


class Colour(enum.Enum):
    RED = "red"


class Point(BaseModel):
    x: float
    when: dt.date


class AnyModel(BaseModel):
    model_config = {"arbitrary_types_allowed": True}

    value: Any


@dataclasses.dataclass
class Pair:
    left: int
    right: Any


class Unprintable:
    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


class Ending:
    def __str__(self) -> str:
        raise SystemExit


class Strange:
    """It has everything, and nothing of it works."""

    def __getattr__(self, name: str) -> Any:
        raise OSError(name)

    def __str__(self) -> str:
        return "strange"


def loop() -> list[Any]:
    made: list[Any] = [1]
    made.append({"again": made})
    return made


def deep(levels: int) -> Any:
    made: Any = 1
    for _ in range(levels):
        made = [made]
    return made


def laughs() -> Any:
    """Ten to the twelfth leaves of thirteen lists."""
    made: Any = ["lol"] * 10
    for _ in range(12):
        made = [made] * 10
    return made


NOW = dt.datetime(2026, 1, 31, 12, 30)
RESULTS = {
    "a text": ("é", "é"),
    "nothing": (None, "null"),
    "a number": (3, "3"),
    "true": (True, "true"),
    "NaN": (float("nan"), "null"),
    "infinity": (float("-inf"), "-inf"),
    "a number beyond JSON": (10**5000, "a number of 16,610 bits"),
    "a list": ([1, "a", None, float("nan")], '[1, "a", null, null]'),
    "a tuple and a set": (((1, 2), {3}), "[[1, 2], [3]]"),
    "keys that are timestamps": ({pd.Timestamp(NOW): 1}, '{"2026-01-31T12:30:00": 1}'),
    "keys that are tuples": ({("a", 1): 1}, "{\"('a', 1)\": 1}"),
    "keys that are no texts": (
        {None: 1, True: 2, 1.5: 3, Colour.RED: 4},
        '{"null": 1, "true": 2, "1.5": 3, "Colour.RED": 4}',
    ),
    "keys that are alike as texts": ({1: "a", "1": "b"}, '{"1": "a", "1 (str)": "b"}'),
    "keys that cannot be printed": ({Unprintable(): 1}, '{"<Unprintable: its text raised ZeroDivisionError>": 1}'),
    "a cycle": (loop(), '[1, {"again": "<list that holds itself>"}]'),
    "times": ([NOW, NOW.date(), NOW.time(), pd.NaT], '["2026-01-31T12:30:00", "2026-01-31", "12:30:00", "NaT"]'),
    "a span of time": (dt.timedelta(hours=1), "1:00:00"),
    "other scalars": (
        [decimal.Decimal("1.50"), uuid.UUID(int=0), pathlib.PurePosixPath("/a"), Colour.RED, 1 + 2j],
        '["1.50", "00000000-0000-0000-0000-000000000000", "/a", "red", "(1+2j)"]',
    ),
    "numpy's": ([np.int64(3), np.float32(0.5), np.bool_(True), np.array([[1, 2]]), np.datetime64("2026-01-31")], None),
    "numpy's times": (
        [np.datetime64("2026-01-31T00:00:00.000000001"), np.array(["2026-01-31"], "datetime64[ns]")],
        '["2026-01-31T00:00:00.000000001", ["2026-01-31T00:00:00.000000000"]]',
    ),
    "numpy's durations": ([np.timedelta64(5, "ns"), np.array(3, "timedelta64[M]")], '["5 nanoseconds", "3 months"]'),
    "an index of times": (pd.DatetimeIndex(["2026-01-31"]), '["2026-01-31T00:00:00"]'),
    "bytes": (b"abc", "abc"),
    "bytes that are no text": (b"\xff\xfe", "//4="),
    "bytes inside": ([b"\xff"], '["/w=="]'),
    "a frame": (pd.DataFrame({"a": [1, 2]}, index=["x", "y"]), ",a\nx,1\ny,2\n"),
    "a frame inside": ({"f": pd.DataFrame({"a": [1]})}, '{"f": ",a\\n0,1\\n"}'),
    "an Arrow table": (pa.table({"a": [1, None]}), '[{"a": 1}, {"a": null}]'),
    "an index": (pd.Index([1, 2]), None),
    "a model": (Point(x=1.5, when=NOW.date()), '{"x": 1.5, "when": "2026-01-31"}'),
    "a model of anything": (AnyModel(value=Unprintable()), None),
    "a dataclass": (Pair(1, Colour.RED), '{"left": 1, "right": "red"}'),
    "a generator": ((n for n in range(3)), "[0, 1, 2]"),
    "a range": (range(3), "range(0, 3)"),
    "one that cannot be printed": (Unprintable(), "<Unprintable: its text raised ZeroDivisionError>"),
    "one that ends Python": (Ending(), None),
    "one inside that cannot be printed": ([Unprintable()], '["<Unprintable: its text raised ZeroDivisionError>"]'),
    "one that fails at everything": (Strange(), "strange"),
    "a type": (int, "<class 'int'>"),
    "half of a character": ("a \ud83d b", "a \ufffd b"),
    "half of a character inside": (["\udc00"], '["\ufffd"]'),
    "depth": (deep(5000), None),
    "width without end": (itertools.count(), None),
    "leaves without end": (laughs(), None),
}


@pytest.mark.parametrize(("value", "text"), RESULTS.values(), ids=RESULTS.keys())
def test_a_result_of_any_kind_becomes_text(value, text):
    made = as_text(value)
    assert text is None or made == text
    assert made.encode()
    assert made


def told_of(value: Any, **options: Any) -> str:
    """What an agent is told of a tool's result."""

    @amr.tool(**options)
    def give() -> Any:
        """Give."""
        return value

    def provider(request):
        return findings(request, number) if request.tool_results else Call("give", {})

    with ScriptedServer(provider) as server:
        result = mapped(frame_of(1), server.lm(), tools=[give])
    assert result.frame["n"].tolist() == [0]
    return server.requests[1].tool_results[0]


LARGE = {
    "a text": "a" * 1_000_000 + "the end",
    "a list": list(range(200_000)),
    "a frame": pd.DataFrame({"a": np.arange(100_000)}),
    "leaves without end": laughs(),
    "width without end": itertools.count(),
    "bytes": b"\xff" * 1_000_000,
}


@pytest.mark.parametrize("value", LARGE.values(), ids=LARGE.keys())
@pytest.mark.sampled(3)
def test_a_large_result_is_cut_in_the_middle_and_says_so(value):
    told = told_of(value)
    assert 19_900 <= len(told) <= 20_000
    assert re.search(r"\[[\d,]+ characters left out here\]", told)
    if isinstance(value, str):
        assert told.endswith("the end")


@pytest.mark.parametrize("most", [100, 5000, None])
def test_the_bound_is_the_tool_s_own(most):
    told = told_of("lorem ipsum " * 5000, max_result_chars=most)
    assert len(told) == 60_000 if most is None else most - 5 <= len(told) <= most


def test_a_result_is_cut_to_the_character():
    for most in (60, 61, 99, 100):
        cut = cut_middle("x" * 100, most)
        left_out = re.search(r"\[(\d+) characters", cut)
        assert len(cut) <= most
        assert left_out is None or cut.count("x") + int(left_out[1]) == 100


def test_a_long_complaint_is_cut_too():
    class Args(BaseModel):
        items: list[int]

    def wide(items: list[int]) -> int:
        raise ValueError("x" * 1_000_000)

    tool = amr.Tool(wide, description="Add.", args_schema=Args)
    calls = [Call("wide", {"items": ["x"] * 5000}), Call("wide", {"items": [1]}), Call("y" * 100_000, {})]

    def provider(request):
        return findings(request, number) if request.tool_results else calls

    with ScriptedServer(provider) as server:
        mapped(frame_of(1), server.lm(), tools=[tool])
    complaint, raised, unknown = server.requests[1].tool_results
    assert len(complaint) < 1100
    assert complaint.endswith("and 4,997 more")
    assert 19_900 <= len(raised) <= 20_000
    assert len(unknown) < 200


@pytest.mark.parametrize("most", [0, 99, -1, True, "20000", 2.5])
def test_a_bound_that_is_none_is_refused(most):
    with pytest.raises(amr.UsageError, match=r"max_result_chars=.*whole number from 100, or None"):
        amr.Tool(number, description="Read a number.", max_result_chars=most)


# The window


WINDOW = 4000


def tokens_of(request) -> int:
    """At least as many as it has: the texts here are words of letters."""
    return sum(len(str(message.get("content") or "")) for message in request.messages) // 8


def test_a_conversation_that_grows_beyond_the_window_loses_its_oldest_results_first():
    @amr.tool(max_result_chars=None)
    def read(page: int) -> str:
        """Read a page."""
        return f"page {page} " + "lorem ipsum dolor " * 500

    def provider(request):
        read_so_far = len(request.tool_results)
        return Call("read", {"page": read_so_far}) if read_so_far < 6 else findings(request, number)

    with ScriptedServer(provider) as server:
        lm = server.lm(abilities=Abilities(context_window=WINDOW), max_output_tokens=200)
        result = mapped(frame_of(1), lm, tools=[read], max_steps=8)
    assert result.frame["n"].tolist() == [0]
    results = server.requests[-1].tool_results
    assert results[-1].startswith("page 5 lorem")
    assert all(re.fullmatch(r"\[This result of [\d,]+ characters was left out: .*\]", one) for one in results[:4])
    assert max(tokens_of(request) for request in server.requests) < WINDOW


def test_one_result_that_the_window_cannot_hold_is_cut_to_it():
    @amr.tool(max_result_chars=None)
    def read() -> str:
        """Read all."""
        return "lorem ipsum dolor " * 100_000

    def provider(request):
        return findings(request, number) if request.tool_results else [Call("read", {}), Call("read", {})]

    with ScriptedServer(provider) as server:
        lm = server.lm(abilities=Abilities(context_window=WINDOW), max_output_tokens=200)
        result = mapped(frame_of(1), lm, tools=[read])
    assert result.frame["n"].tolist() == [0]
    assert all("characters left out here" in one for one in server.requests[1].tool_results)
    assert 1000 < tokens_of(server.requests[1]) < WINDOW


def test_a_shard_that_the_window_cannot_hold_is_halved_before_it_is_sent():
    frame = pd.DataFrame({"text": [f"row {n} " + "lorem ipsum dolor " * 100 for n in range(16)]})
    with ScriptedServer(lambda request: findings(request, number)) as server:
        lm = server.lm(abilities=Abilities(context_window=WINDOW), max_output_tokens=200)
        result = mapped(frame, lm, plan={"shard_size": 16, "shard_tokens": 100_000})
    assert result.frame["n"].tolist() == list(range(16))
    assert result.total.tries == len(server.requests) == 2
    assert max(tokens_of(request) for request in server.requests) < WINDOW


def test_what_a_model_said_without_end_is_cut_where_the_window_cannot_hold_it():
    @amr.tool
    def read() -> str:
        """Read."""
        return ""

    def provider(request):
        return Raw("no " * 50_000) if request.number == 0 else findings(request, number)

    with ScriptedServer(provider) as server:
        lm = server.lm(abilities=Abilities(context_window=WINDOW), max_output_tokens=200)
        result = mapped(frame_of(1), lm, tools=[read])
    assert result.frame["n"].tolist() == [0]
    assert tokens_of(server.requests[1]) < WINDOW


def test_a_window_that_is_wide_enough_changes_nothing():
    @amr.tool
    def read() -> str:
        """Read all."""
        return "x" * 5000

    def provider(request):
        return findings(request, number) if len(request.tool_results) > 3 else Call("read", {})

    with ScriptedServer(provider) as server:
        mapped(frame_of(1), server.lm(), tools=[read])
    assert server.requests[-1].tool_results == ["x" * 5000] * 4


# Refusals of one row, and of all


OF_A_ROW = {
    "403": Status(403, "Your input was flagged"),
    "404": Status(404, "not found"),
    "404, the model": Status(404, "The model `x` does not exist", "model_not_found"),
    "400, a key": Status(400, "API key not valid. Please pass a valid API key."),
    "400, a model": Status(400, "Invalid model name passed in model=x"),
}


@pytest.mark.parametrize("refusal", OF_A_ROW.values(), ids=OF_A_ROW.keys())
@pytest.mark.parametrize("refused", [0, 3])
@pytest.mark.parametrize("slow", [False, True], ids=["at once", "before any other is answered"])
@pytest.mark.sampled(3)
def test_a_refusal_of_one_row_among_answers_is_that_row_s_failure(refusal, refused, slow):
    def provider(request):
        return refusal if request.units[0]["text"] == f"row {refused}" else findings(request, number)

    def latency_s(request) -> float:
        return 0.3 if slow and request.units[0]["text"] != f"row {refused}" else 0.0

    with ScriptedServer(provider, latency_s=latency_s) as server:
        result = mapped(frame_of(8), server.lm(), plan={**ONE_BY_ONE, "parallelism": 8})
    assert result.failures["position"].tolist() == [refused]
    assert str(refusal.status) in result.failures["reason"][0]
    assert "Check the" not in result.failures["reason"][0]
    assert len(result.frame["n"].dropna()) == 7


def test_a_refusal_of_one_row_in_a_shard_is_found_by_halving():
    def provider(request):
        if any(unit["text"] == "row 5" for unit in request.units):
            return Status(403, "flagged")
        return findings(request, number)

    with ScriptedServer(provider) as server:
        lm = server.lm()
        mapped(frame_of(1), lm)  # this key and this model are served
        result = mapped(frame_of(8), lm, plan={"shard_size": 8})
    assert result.failures["position"].tolist() == [5]


CONFIGURATION = {
    "403": (Status(403, "no access"), "key"),
    "404": (Status(404, "not here"), "name"),
    "Gemini, a bad key": (Status(400, "API key not valid. Please pass a valid API key.", "API_KEY_INVALID"), "key"),
    "Gemini, an old key": (Status(400, "API key expired. Please renew the API key."), "key"),
    "xAI, a bad key": (Status(400, "Incorrect API key provided: ab***cd. You can obtain an API key from ..."), "key"),
    "Mistral": (Status(400, "Invalid model: mistral-huge"), "name"),
    "DeepSeek": (Status(400, "Model Not Exist"), "name"),
    "OpenRouter": (Status(400, "gpt-9 is not a valid model ID"), "name"),
    "LiteLLM, a model": (Status(400, "Invalid model name passed in model=gpt-9. Call `/v1/models` to view"), "name"),
    "LiteLLM, a key": (Status(400, "No connected db."), "key"),
    "GitHub": (Status(400, "Unknown model: gpt-9", "unknown_model"), "name"),
    "Groq": (Status(400, "The model `x` has been decommissioned", "model_decommissioned"), "name"),
    "Azure": (Status(400, "The API deployment for this resource does not exist"), "key"),
    "LM Studio": (Status(400, "No models loaded. Please load a model in the developer page."), "name"),
    "LiteLLM, a model, in full": (
        Status(
            400, "/chat/completions: Invalid model name passed in model=x. Call `/v1/models` to view those of your key."
        ),
        "name",
    ),
    "LiteLLM, no provider": (
        Status(400, "litellm.BadRequestError: LLM Provider NOT provided. You passed model=x"),
        "name",
    ),
    "LiteLLM, an old key": (Status(400, "Authentication Error - Expired Key. Key Expiry time 2024"), "key"),
    "OpenRouter, no key": (Status(400, "No auth credentials found"), "key"),
    "Portkey": (Status(400, "Invalid virtual key. Error Code: 03"), "key"),
    "Kong": (Status(400, "cannot use own model - must be: gpt-4"), "name"),
    "Kong, none": (Status(400, "model parameter not found in request, nor in gateway configuration"), "name"),
    "Cloudflare": (Status(400, "Authentication error"), "key"),
    "Cloudflare, a model": (Status(400, "AiError: No such model @cf/x or task"), "name"),
    "Azure, a key": (Status(400, "Access denied due to invalid subscription key or wrong API endpoint."), "key"),
    "Azure, a model": (Status(400, "The operation does not work with the specified model, x."), "name"),
    "Bedrock": (Status(400, "Invocation of model ID x with on-demand throughput isn't supported."), "name"),
    "a region": (Status(400, "This model is not available in your region"), "name"),
    "none": (Status(400, "No model specified in request."), "name"),
}


@pytest.mark.parametrize(("refusal", "way_out"), CONFIGURATION.values(), ids=CONFIGURATION.keys())
@pytest.mark.sampled(5)
def test_where_nothing_was_ever_answered_a_refusal_is_the_configuration_and_ends_the_run(refusal, way_out):
    with ScriptedServer(lambda request: refusal) as server, pytest.raises(amr.errors.ModelConfigError) as caught:
        mapped(frame_of(20), server.lm(), plan={**ONE_BY_ONE, "parallelism": 4})
    assert f"Check the {'key' if way_out == 'key' else 'model'}" in str(caught.value)
    assert caught.value.partial is not None
    assert len(server.requests) <= 4


SAID = {
    "LiteLLM's budget": (400, "Budget has been exceeded! Current cost: 12.0, Max budget: 10.0", "ModelConfigError"),
    "the same as 429": (429, "ExceededBudget: User=x over budget.", "ModelConfigError"),
    "Anthropic's credit": (
        400,
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade.",
        "ModelConfigError",
    ),
    "OpenRouter's limit of a key": (
        403,
        "Key limit exceeded (monthly limit). Manage it using https://openrouter.ai/settings/keys",
        "ModelConfigError",
    ),
    "Groq's restriction": (
        400,
        "Organization has been restricted. Please reach out to support if you believe this was in error.",
        "ModelConfigError",
    ),
    "Moonshot's suspension": (
        403,
        "Your account x<ak-y> is not active, current state: suspended, you may consider to check your account balance",
        "ModelConfigError",
    ),
    "a proxy's": (407, "Proxy Authentication Required", "ModelConfigError"),
    "a token that is none": (498, "Invalid token", "ModelConfigError"),
    "an engine that failed": (424, "Request failed during generation: Server error: ", "ModelUnavailable"),
    "Gemini's cancellation": (499, "The operation was cancelled.", "ModelUnavailable"),
    "another connection": (421, "Misdirected Request", "ModelUnavailable"),
    "Portkey's budget": (412, "Virtual key budget exhausted", "ModelConfigError"),
    "Cloudflare's day": (429, "AiError: you have used up your daily free allocation of neurons", "ModelConfigError"),
    "a limit that passes": (429, "usage limit exceeded, try again in 20 s", "ModelUnavailable"),
    "no healthy deployment": (400, "There are no healthy deployments for this model.", "ModelUnavailable"),
    "Cloudflare's pace as 400": (400, "Rate limited", "ModelUnavailable"),
    "the key's pace": (403, "Rate limit exceeded for this key", "ModelUnavailable"),
    "LiteLLM's end": (400, "litellm.BadRequestError: bad row. Received Model Group=x", "ModelRejected"),
    "a filter": (400, "Filtered due to content management policy of this model", "ModelRejected"),
    "a form": (400, "tool use is not supported by this model", "ModelRejected"),
    "no form": (400, "This model does not support logprobs", "ModelRejected"),
    "what came": (400, "The model produced invalid content.", "ModelRejected"),
    "a key of an object": (400, "Failed to parse the body as JSON: key must be a string", "ModelRejected"),
    "a word of no model": (400, "bad request", "ModelRejected"),
}


@pytest.mark.parametrize("case", SAID)
def test_what_a_gateway_says_is_told_apart_by_its_words(case):
    status, message, kind = SAID[case]
    failures = Failures(amr.LM("x", base_url="http://127.0.0.1:9/v1", api_key="none"), "127.0.0.1", tuple)
    error = failures.status_error(status, read_error_body({"error": {"message": message}}), {})
    assert type(error).__name__ == kind
    if status == 412 or "udget" in message:
        assert str(error).endswith("Check the account's quota and billing.")


REFUSED_FIRST = {
    "1 of them": (403, 1, 16, None),
    "2 of them": (403, 2, 16, None),
    "3 of them": (403, 3, 16, 3),
    "all": (404, 20, 16, 3),
    "all, one at a time": (404, 20, 1, 1),
    "all, two at a time": (404, 20, 2, 2),
    "all, and the key is wrong": (401, 20, 16, 1),
    "1 of them, and the account is empty": (402, 1, 16, 1),
}


@pytest.mark.parametrize(("status", "refused", "at_once", "ends_after"), REFUSED_FIRST.values(), ids=REFUSED_FIRST)
def test_first_rows_that_are_refused_are_their_own_failure_if_one_of_few_is_answered(
    status, refused, at_once, ends_after
):
    def provider(request):
        return Status(status, "no") if request.number < refused else findings(request, number)

    with ScriptedServer(provider) as server:
        given = {"lm": server.lm(), "plan": {**ONE_BY_ONE, "parallelism": at_once}}
        if ends_after is None:
            result = mapped(frame_of(20), **given)
            asked = [number(request.units[0])["n"] for request in server.requests]
            assert sorted(result.failures["position"]) == sorted(asked[:refused])
            assert result.frame["n"].dropna().tolist() == sorted(asked[refused:])
            assert result.total.tries == len(server.requests)
            return
        with pytest.raises(amr.errors.ModelConfigError) as caught:
            mapped(frame_of(20), **given)
    assert len(server.requests) == ends_after
    assert caught.value.partial.total.tries <= ends_after


def test_answers_with_another_key_or_model_say_nothing_of_this_one():
    def provider(request):
        refused = request.body["model"] == "other" or "other-key" in request.headers["authorization"]
        return Status(404, "no such thing") if refused else findings(request, number)

    with ScriptedServer(provider) as server:
        mapped(frame_of(2), server.lm())
        for lm in (server.lm("other"), server.lm(api_key="other-key")):
            with pytest.raises(amr.errors.ModelConfigError):
                mapped(frame_of(2), lm)


@pytest.mark.parametrize(
    "refusal",
    [
        Status(401, "bad key"),
        Status(402, "pay first"),
        Status(429, "no quota", "insufficient_quota"),
        Status(400, "Your credit balance is too low to access the Anthropic API."),
        Status(403, "Key limit exceeded (total limit)."),
        Status(401, "x", "account_deactivated"),
    ],
    ids=str,
)
def test_the_account_s_end_ends_the_run_after_answers_too(refusal):
    def provider(request):
        return findings(request, number) if request.number < 3 else refusal

    with ScriptedServer(provider) as server, pytest.raises(amr.errors.ModelConfigError) as caught:
        mapped(frame_of(20), server.lm(), plan=ONE_BY_ONE, max_parallelism=1)
    assert caught.value.partial.frame["n"].dropna().tolist() == [0, 1, 2]
    assert len(server.requests) == 4


@pytest.mark.parametrize("fault", [Status(500, "oops"), Drop(), Raw(body="{")], ids=["500", "reset", "no JSON"])
@pytest.mark.sampled(3)
def test_a_row_that_a_server_fails_at_fails_alone(fault):
    def is_poisoned(request) -> bool:
        return any(unit["text"] == "row 13" for unit in request.units)

    def provider(request):
        return fault if is_poisoned(request) else findings(request, number)

    # So others are answered before it fails, as is what tells a row's fault from the server's.
    with ScriptedServer(provider, latency_s=lambda request: 0.2 * is_poisoned(request)) as server:
        result = mapped(frame_of(40), server.lm(max_tries=2), plan={"shard_size": 10})
    assert result.failures["position"].tolist() == [13]
    assert set(result.failures["who"]) == {"model"}
    assert len(server.requests) <= 4 + 2 * 2 * 4 + 1


def test_shards_are_not_halved_while_a_server_answers_nobody():
    def provider(request):
        return findings(request, number) if request.number < 2 else Status(500, "oops")

    with ScriptedServer(provider) as server:
        result = mapped(frame_of(40), server.lm(max_tries=2, max_parallelism=1), plan={"shard_size": 10})
    assert result.failures["position"].tolist() == list(range(20, 40))
    assert len(server.requests) == 2 + 2 * 2


@pytest.mark.parametrize(("status", "said"), [(403, "Forbidden"), (404, "The model was retired"), (410, "Gone")])
@pytest.mark.parametrize("size", [1, 20])
def test_a_server_that_refuses_all_after_answers_is_not_asked_about_each_row(status, said, size):
    def provider(request):
        return findings(request, number) if request.number < 3 else Status(status, said)

    with ScriptedServer(provider) as server, pytest.raises(amr.errors.ModelConfigError) as caught:
        mapped(frame_of(1000), server.lm(max_parallelism=4), plan={"shard_size": size})
    assert "Nothing was answered in 100 requests." in str(caught.value)
    assert len(caught.value.partial.frame["n"].dropna()) == 3 * size
    assert len(server.requests) < 3 + 100 + 4


def test_refusals_that_answers_come_between_are_those_of_their_rows():
    def provider(request):
        is_refused = number(request.units[0])["n"] % 50 != 0
        return Status(403, "Forbidden") if is_refused else findings(request, number)

    with ScriptedServer(provider) as server:
        result = mapped(frame_of(301), server.lm(max_parallelism=1), plan=ONE_BY_ONE)
    assert result.frame["n"].dropna().tolist() == [0, 50, 100, 150, 200, 250, 300]
    assert len(server.requests) == 301


NOT_CONFIGURATION = {
    "a form": "response_format json_schema is not supported by this model",
    "a parameter": "Unsupported parameter: 'max_tokens' is not supported with this model. The model does not exist.",
    "a length": "This model's maximum context length is 4096 tokens",
    "content": "this content violates our policy",
}


@pytest.mark.parametrize("said", NOT_CONFIGURATION.values(), ids=NOT_CONFIGURATION.keys())
def test_what_names_a_model_and_means_the_request_is_no_configuration(said):
    with ScriptedServer(lambda request: Status(400, said)) as server:
        result = mapped(frame_of(1), server.lm())
    assert len(result.failures) == 1


@pytest.mark.parametrize(("status", "said"), [(404, "no healthy upstream"), (400, "The model is currently overloaded")])
def test_a_gateway_that_has_nobody_behind_it_is_asked_again(status, said):
    def provider(request):
        return Status(status, said) if request.number == 0 else findings(request, number)

    with ScriptedServer(provider) as server:
        result = mapped(frame_of(1), server.lm())
    assert result.frame["n"].tolist() == [0]


def test_what_a_server_says_of_an_error_does_not_steer_a_terminal():
    said = "no \x1b[31mred\x07 \u202e"
    with ScriptedServer(lambda request: Status(400, said)) as server:
        result = mapped(frame_of(1), server.lm())
    assert result.failures["reason"].tolist() == ["The server answered 400: no \\x1b[31mred\\x07 \\u202e"]
    with ScriptedServer(lambda request: Status(401, said)) as server, pytest.raises(amr.ModelConfigError) as caught:
        mapped(frame_of(1), server.lm())
    assert r"no \x1b[31mred\x07 \u202e" in str(caught.value)
