"""A server on its worst day: every misbehaviour that is known, mixed by what is asked, the same each time.

A row's text decides what happens to it: of a hundred rows five meet each family of faults, and the rest none. What
passes happens to a row's first request only; what stays (``STAYS``) is the row's own, comes before what passes, and
costs the row its finding.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from endpoint import Endpoint
from pandas_amr.testing import ScriptedRequest
from sensible import sensible
from wire import Answer, Asked, Line, chunk

SHARE = 5  # of a hundred rows, that each family of faults takes
DEEP = "[" * 5000
TOO_MUCH = 200_000  # characters of one header
HOUR_S = 3600.0
AFTER_A_SUCCESS_S = 0.05  # what stays is said once another answer has certainly been read

HTML = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


# -- the wire breaks: nothing is billed ------------------------------------------------------------------------------


async def reset(line: Line) -> None:
    line.reset()


async def no_answer(line: Line) -> None:
    line.close()


async def bad_status_line(line: Line) -> None:
    await line.write(b"HTTP/1.1 OK 200\r\ncontent-length: 2\r\n\r\n{}")
    line.close()


async def oversized_header(line: Line) -> None:
    await line.write(OK + b"x-much: " + b"a" * TOO_MUCH + b"\r\ncontent-length: 2\r\n\r\n{}")
    line.close()


async def header_without_colon(line: Line) -> None:
    await line.write(OK + b"this is no header\r\ncontent-length: 2\r\n\r\n{}")
    line.close()


async def bad_chunk(line: Line) -> None:
    await line.write(OK + b"transfer-encoding: chunked\r\n\r\n" + chunk(b'{"choices"') + b"zz\r\n: []}\r\n")
    line.close()


async def doubled_lengths(line: Line) -> None:
    await line.write(OK + b"content-length: 2\r\ncontent-length: 40\r\n\r\n{}")
    line.close()


async def short_body(line: Line) -> None:
    await line.write(OK + b'content-length: 4000\r\n\r\n{"choices": [')
    line.close()


async def hang(line: Line) -> None:
    await asyncio.sleep(HOUR_S)


async def dripping_headers(line: Line) -> None:
    await line.write(OK)
    while line.is_open:
        await line.write(b"x-alive: yes\r\n")
        await asyncio.sleep(0.05)


async def dripping_body(line: Line) -> None:
    await line.write(OK + b"transfer-encoding: chunked\r\n\r\n")
    while line.is_open:
        await line.write(chunk(b"\n"))
        await asyncio.sleep(0.05)


BROKEN: dict[str, Callable[[Line], Awaitable[None]]] = {
    function.__name__: function
    for function in (
        *(reset, no_answer, bad_status_line, oversized_header, header_without_colon),
        *(bad_chunk, doubled_lengths, short_body, hang, dripping_headers, dripping_body),
    )
}
SLOW = frozenset({"hang", "dripping_headers", "dripping_body"})  # they end with the client's patience


# -- errors: nothing is billed ---------------------------------------------------------------------------------------


def said(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message} | more}


ERRORS = {
    "500": Answer(500, said("The server had an error while processing your request.")),
    "500 list": Answer(500, [said("Internal error", code=500)]),
    "502 html": Answer(502, HTML, kind="text/html"),
    "503 text": Answer(503, "upstream connect error", kind="text/plain"),
    "429 with retry-after": Answer(429, said("Slow down."), {"retry-after-ms": "20"}),
    "429 with zero": Answer(429, said("Slow down."), {"retry-after": "0"}),
    "429": Answer(429, "Too Many Requests", kind="text/plain"),
    "200 with an error": Answer(200, said("Provider returned error", code=502)),
}
STAYS = {
    "403": Answer(403, said("Your input was not liked.", metadata={"reasons": ["violence"]})),
    "404": Answer(404, said("Nothing is here for this text.")),
    "400 content filter": Answer(400, said("The response was filtered.", code="content_filter", innererror={})),
    "refusal": None,
    "content filter": None,
}


# -- answers: they are billed ----------------------------------------------------------------------------------------

USAGES: dict[str, Any] = {
    "usage null": None,
    "usage empty": {},
    "usage a list": [1, 2],
    "usage negative": {"prompt_tokens": -5, "completion_tokens": -7, "total_tokens": -12},
    "usage texts": {"prompt_tokens": "120", "completion_tokens": "7", "total_tokens": "127"},
    "usage nulls": {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None},
    "usage zeros": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    "usage halves": {"prompt_tokens": 120.5, "completion_tokens": True},
}
BODIES = {
    "body deep": DEEP,
    "body null": "null",
    "body empty": "",
    "body no JSON": "Service is up.",
    "body cut": '{"id": "x", "choices": [{"message": {"con',
}
# What is wrong with the findings, and with how they are said; the usage is told, as it is with an answer that is right.
WRONG = ("missing", "doubled", "extra", "wrong type", "NaN", "deep", "prose", "empty", "cut")
SAID: dict[str, Callable[[str], Any]] = {
    "BOM": "\ufeff{}".format,
    "think": "<think>\nIs it {{0}}, or [1]?\n</think>\n\n{}".format,
    "fence": "Here they are:\n\n```json\n{}\n```\n\nAnything else?".format,
    "parts": lambda text: [{"type": "text", "text": text}],
}
MESSAGES: dict[str, dict[str, Any]] = {
    "message null": {"message": None},
    "refusal": {"message": {"role": "assistant", "content": None, "refusal": "I cannot help with that."}},
    "content filter": {"message": {"role": "assistant", "content": ""}, "finish_reason": "content_filter"},
}
AROUND = {"BOM before the body": "\ufeff", "white space": "\n \n" * 50}

FAMILIES: tuple[tuple[str, ...], ...] = (
    (*(name for name in BROKEN if name not in SLOW),) * 2 + tuple(sorted(SLOW)),  # slow ones are few: they take time
    tuple(ERRORS),
    tuple(STAYS),
    (*USAGES, *BODIES),
    (*WRONG, *SAID, *AROUND, "message null", "no choices", "reasoning outside"),
)
UNTOLD = frozenset({*USAGES, *BODIES})


def fault_of(text: str) -> str | None:
    """What happens to a row with this text."""
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")
    family, kind = number % 100 // SHARE, number // 100
    return FAMILIES[family][kind % len(FAMILIES[family])] if family < len(FAMILIES) else None


class Chaos(Endpoint):
    """The server.

    Attributes:
        happened: how often each fault happened.
        told: the tokens that its answers told.
        untold: how many answers it billed and told nothing of.
    """

    model = "chaos"

    def __init__(self) -> None:
        super().__init__()
        self.happened: Counter[str] = Counter()
        self.told = 0
        self.untold = 0
        self._met: set[str] = set()  # the texts whose fault has passed
        self._succeeded = asyncio.Event()

    def stays(self, text: str) -> bool:
        """Whether a row with this text is one that nothing can be found of."""
        return fault_of(text) in STAYS

    async def answer(self, asked: Asked, line: Line) -> None:
        """Answer one request."""
        request = ScriptedRequest(asked.number, asked.body, asked.headers)
        fault = next((fault_of(unit["text"]) for unit in request.units if self.stays(unit["text"])), None)
        if fault is None:
            fault = self._passing(request)
        if fault is not None:
            self.happened[fault] += 1
        if fault in BROKEN:
            await BROKEN[fault](line)
            return
        if fault in STAYS:
            await self._succeeded.wait()
            await asyncio.sleep(AFTER_A_SUCCESS_S)
        await line.send(ERRORS.get(fault or "") or STAYS.get(fault or "") or self._billed(request, fault))
        if fault is None:
            self._succeeded.set()

    def _passing(self, request: ScriptedRequest) -> str | None:
        """Of the faults that the units asked for have yet to meet, the one that has happened least."""
        new = [unit["text"] for unit in asked_for(request) if unit["text"] not in self._met and fault_of(unit["text"])]
        if not new:
            return None
        text = min(new, key=self._happened)
        self._met.add(text)
        return fault_of(text)

    def _happened(self, text: str) -> int:
        """How often the fault of a row with this text has happened."""
        return self.happened[fault_of(text) or ""]

    def _billed(self, request: ScriptedRequest, fault: str | None) -> Answer:
        """An answer that is paid for, right or not."""
        before = self.paid.tokens
        answer = self.completion(request)
        if fault in UNTOLD:
            self.untold += 1
        else:
            self.told += self.paid.tokens - before
        if fault in BODIES:
            return Answer(200, BODIES[fault])
        if fault in USAGES:
            answer.body["usage"] = USAGES[fault]
        return self._changed(answer, request, fault or "")

    def _changed(self, answer: Answer, request: ScriptedRequest, fault: str) -> Answer:
        """The answer with its fault."""
        body = answer.body
        choice = body["choices"][0]
        message = choice["message"]
        if fault in WRONG:
            message["content"] = wrong(sensible(request).payload or {}, fault)
            choice["finish_reason"] = "length" if fault in {"empty", "cut"} else "stop"
        elif fault in SAID:
            message["content"] = SAID[fault](message["content"])
        elif fault in MESSAGES:
            choice |= MESSAGES[fault]
        elif fault == "no choices":
            body["choices"] = []
        elif fault == "reasoning outside":
            body["usage"]["total_tokens"] += 50
            self.told += 50
        elif fault in AROUND:
            return Answer(200, AROUND[fault] + json.dumps(body))
        return answer


def asked_for(request: ScriptedRequest) -> list[dict[str, Any]]:
    """The units whose findings are asked for: one that stands alone has no number."""
    return [unit for unit in request.units if not request.repairs or unit.get("unit") in {None, *request.repairs}]


def wrong(payload: dict[str, Any], fault: str) -> str:
    """Findings as they should not be: those of a list, or the one of a unit that was asked alone."""
    match fault:
        case "deep":
            return DEEP
        case "prose":
            return "I think that these are numbers."
        case "empty":
            return ""
        case "cut":
            return json.dumps(payload)[:-4]
    found = payload.get("findings", [payload])
    first, rest = found[0], found[1:]
    changed = {
        "missing": rest,
        "doubled": [*found, first | {"n": -1}],
        "extra": [*found, first | {"unit": 999}],
        "wrong type": [first | {"n": "many"}, *rest],
        "NaN": [first | {"n": float("nan")}, *rest],
    }[fault]
    if "findings" in payload:
        return json.dumps({"findings": changed})
    return "\n".join(json.dumps(one) for one in changed)
