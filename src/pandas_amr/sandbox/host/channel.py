"""The host's side of a session: one cell at a time, every reply bounded and checked, every end told in words.

Nothing that a session says is believed. A message that is too long, no JSON, of the wrong shape or not asked for ends
it.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pandas_amr.errors import AMRError, SandboxError, UsageError
from pandas_amr.sandbox.base import MIB, Ask, Cell, Data, Limits, Submitted
from pandas_amr.sandbox.guest.worker import (
    ASK_BYTES,
    ASK_CHARS,
    CELL_BYTES,
    KIND_NAMES,
    MISSING_TEXT,
    MOST_VALUES,
    find_large,
    values_in,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

OPEN_S = 30.0
SEND_S = (
    10.0  # a session that does not read what it is sent is ended, even where its cell has more time
)
GRACE_S = 2.0  # from the interrupt to the kill
HEADER_BYTES = 256 << 10  # of a message beside its output
ESCAPED = 12  # bytes that JSON takes for a character
OUT_OF_TIME = -24  # SIGXCPU
MOST_REFUSALS = 5  # questions of one session that could not be asked; then it is ended
DECODED_HERE = 64 << 10  # bytes that are decoded on the loop, which is quicker than to ask a thread
PROBLEM_CHARS = 500
ASK_FIELDS = 32
ASK_NAME_CHARS = 64
ASK_CHOICES = 100  # of a field
ASK_CHOICE_CHARS = 200  # of a choice, or of a description
ASKED_KINDS = (
    f"ask(..., schema=) takes for a column {', '.join(KIND_NAMES)} or a list of at most {ASK_CHOICES} choices, alone "
    f"or in a tuple with a description of at most {ASK_CHOICE_CHARS} characters"
)
REPLACEMENT = "\ufffd"
FINDINGS = b'{"findings": ['
REPLACED = "Control characters, such as NUL and those that a terminal obeys, were replaced in what was handed in."
STAINS = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]"
)  # no value needs them: tabs and ends of lines do
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
SIGNALS = {
    4: "it crashed (illegal instruction)",
    6: "it aborted",
    7: "it crashed (bus error)",
    9: "it was killed",
    11: "it crashed (segmentation fault)",
    31: "it made a forbidden system call",
}
LOST = "Its variables are gone; the next cell begins anew, with {name} as it was."


class Transport(Protocol):
    """A process at the other end: bytes both ways, and how it is stopped."""

    async def send(self, *parts: bytes) -> None:
        """Hand over all of the bytes."""
        ...

    async def receive(self, size: int) -> bytes:
        """Exactly so many bytes.

        Raises:
            EOFError: it has hung up.
        """
        ...

    def interrupt(self) -> None:
        """What Ctrl-C would do."""
        ...

    def pause(self) -> None:
        """No processor time between cells."""
        ...

    def resume(self) -> None:
        """Go on after a pause."""
        ...

    async def used(self) -> float | None:
        """Processor seconds that it took, once it was killed; None where that is not known."""
        ...

    async def kill(self, *, hung_up: bool) -> int | None:
        """End it; its exit status where it is known, negative for a signal.

        Where it ``hung_up``, its own end is waited for, so that the status is its own.

        Raises:
            SandboxError: it hung up because what stands behind it failed, and not the code in it.
        """
        ...


class _Broken(Exception):
    """The session said what no session says."""


class _Clock:
    """The time of one cell: all that it makes the host do counts, but for the model's own time.

    Attributes:
        stopped: whether the time was over, and the cell was interrupted.
    """

    def __init__(self, seconds: float, interrupt: Callable[[], None]) -> None:
        self._left = seconds
        self._interrupt = interrupt
        self.stopped = False

    async def spend(self, doing: Awaitable[T]) -> T:
        """Wait for something that the cell does or makes the host do. When its time is over, interrupt it.

        Raises:
            TimeoutError: it goes on after the interrupt.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(doing)
        try:
            while True:
                begun = loop.time()
                done, _ = await asyncio.wait({task}, timeout=self._left)
                self.charge(loop.time() - begun)
                if done:
                    return task.result()
                if self.stopped:
                    raise TimeoutError
                self._stop()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def charge(self, seconds: float) -> None:
        """Take off time that was spent in another way."""
        self._left = max(0.0, self._left - seconds)

    def _stop(self) -> None:
        self.stopped, self._left = True, GRACE_S
        self._interrupt()


class ChannelSession:
    """A session over a transport. Where it is lost, the next cell begins a new one with the same data.

    What may be used up is the agent's, and not anew with each process: ``begin`` is told the processor seconds left.
    """

    def __init__(
        self,
        begin: Callable[[float], Awaitable[Transport]],
        data: Data,
        limits: Limits,
        **opening: Any,
    ) -> None:
        self._begin = begin
        self._data = data
        self._limits = limits
        self._opening = opening
        self._transport: Transport | None = None
        self._ended: Transport | None = None
        self._cpu_left = float(limits.cpu_s)
        self._ran_s = 0.0
        self._asked = 0
        self._refused = 0

    async def run(self, code: str, ask: Ask | None = None) -> Cell:
        """Run a cell; see ``Session.run``."""
        await self._settle()
        if self._transport is None and self._cpu_left <= 0:
            return Cell(
                f"The {self._limits.cpu_s} s of processor time are used up: no more code can run.",
                ok=False,
            )
        transport = self._transport or await self._opened()
        name = secrets.token_hex(8)
        loop = asyncio.get_running_loop()
        clock = _Clock(self._limits.wall_s, transport.interrupt)
        transport.resume()
        begun = loop.time()
        try:
            await clock.spend(_sent(transport, {"do": "run", "id": name, "code": _encodable(code)}))
            reply, blobs = await self._answered(transport, name, ask, clock)
            cell = await clock.spend(self._cell(reply, blobs, stopped=clock.stopped))
        except TimeoutError:
            await self._end()
            return self._lost(
                f"The cell ran for more than {self._limits.wall_s:g} s and could not be interrupted."
            )
        except _Broken as error:
            await self._end()
            return self._lost(f"The session was ended: {error}.")
        except (EOFError, OSError):
            status = await self._end(hung_up=True)
            if status == OUT_OF_TIME:
                self._cpu_left = 0.0
            return self._lost(self._why(status))
        except BaseException:
            await self._end()
            raise
        finally:
            self._ran_s += loop.time() - begun
        transport.pause()
        return cell

    async def close(self) -> None:
        """End the session."""
        await self._end()

    async def _settle(self) -> None:
        """Take off what the last process used, before another one is begun."""
        ended, self._ended = self._ended, None
        if ended is None:
            return
        used = await ended.used()
        self._cpu_left -= (
            self._ran_s if used is None else used
        )  # what is not known was at most so much of one core
        self._ran_s = 0.0

    async def _opened(self) -> Transport:
        transport = await self._begin(self._cpu_left)
        self._transport = transport
        self._refused = 0
        name = secrets.token_hex(8)
        opening = {
            "do": "open",
            "id": name,
            "name": self._data.name,
            "labels": dict(self._data.labels),
            "output_chars": self._limits.output_chars,
            "result_bytes": self._limits.result_mb * MIB,
            "asks": self._limits.asks,
            **self._opening,
        }
        try:
            async with asyncio.timeout(OPEN_S):
                parquet = (
                    [self._data.parquet]
                    if self._data.parquet and not self._opening.get("shared")
                    else []
                )
                await _send(transport, opening, *parquet)
                reply, _ = await self._message(transport, name)
        except (TimeoutError, EOFError, OSError, _Broken):
            status = await self._end(hung_up=True)
            raise SandboxError(f"A session could not be begun: {self._why(status)}") from None
        if reply.get("ok") is not True:
            await self._end()
            raise SandboxError(
                f"A session could not load its data: {_clean(reply.get('out'), 500)}"
            )
        return transport

    async def _answered(
        self, transport: Transport, name: str, ask: Ask | None, clock: _Clock
    ) -> tuple[dict[str, Any], list[bytes]]:
        """The cell's reply; the questions that it asks on the way are answered."""
        while True:
            message, blobs = await clock.spend(self._message(transport, name))
            if "ask" not in message:
                return message, blobs
            asked = await clock.spend(asyncio.to_thread(_question, message["ask"], blobs))
            await self._answer(transport, name, asked, ask, clock)

    async def _answer(
        self, transport: Transport, name: str, asked: dict[str, Any], ask: Ask | None, clock: _Clock
    ) -> None:
        """Answer what code asks of the model, within the session's bounds."""
        self._asked += max(1, len(asked["texts"]))
        if ask is None or clock.stopped:
            problem = (
                "ask() is not possible here: nothing stands behind it, or the cell's time is over"
            )
        elif self._asked > self._limits.asks:
            problem = (
                f"ask() takes {self._limits.asks} texts in all, and these would be {self._asked}"
            )
        else:
            answer = await _answer_of(ask, asked, clock)
            if not isinstance(answer, str):
                reply = {"ok": True, "out": " ".join(answer.changed), "labels": dict(answer.labels)}
                await clock.spend(
                    _sent(transport, {"do": "answer", "id": name, **reply}, answer.parquet)
                )
                return
            problem = answer
        self._refused += 1
        if self._refused > MOST_REFUSALS and clock.stopped:
            raise TimeoutError  # it asks on, though it was interrupted
        if self._refused > MOST_REFUSALS:
            raise _Broken(
                f"it asked {self._refused} times what cannot be asked; the last: {problem}"
            )
        await clock.spend(
            _sent(transport, {"do": "answer", "id": name, "ok": False, "out": problem})
        )

    async def _message(self, transport: Transport, name: str) -> tuple[dict[str, Any], list[bytes]]:
        """One message with its blobs, which belongs to what was asked last."""
        size = int.from_bytes(await transport.receive(4), "big")
        if size > HEADER_BYTES + ESCAPED * self._limits.output_chars:
            raise _Broken(f"it sent a message of {size >> 10} kB")
        message = await _read(_loaded, await transport.receive(size))
        sizes = message.get("blobs", [])
        if message.get("id") != name:
            raise _Broken("it spoke without being asked")
        most, taker = (
            (ASK_BYTES, "ask") if "ask" in message else (self._limits.result_mb * MIB, "submit")
        )
        if (
            not isinstance(sizes, list)
            or len(sizes) > 1
            or not all(
                isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in sizes
            )
            or sum(sizes) > most
        ):
            raise _Broken(f"it sent more than `{taker}` takes")
        return message, [await transport.receive(one) for one in sizes]

    async def _cell(self, reply: dict[str, Any], blobs: list[bytes], *, stopped: bool) -> Cell:
        ok = reply.get("ok") is True
        text = _clean(reply.get("out"), self._limits.output_chars + 200)
        if stopped and not ok:
            text += (
                f"\nThe cell was stopped after {self._limits.wall_s:g} s. The variables are kept."
            )
        if reply.get("submitted") is not True:
            return Cell(text, ok=ok)
        if not blobs:
            raise _Broken("it handed in nothing")
        payload, replaced = await _read(_unstained, blobs[0])
        if replaced:
            text = f"{text.rstrip()}\n{REPLACED}".lstrip()
        return Cell(text, Submitted(payload), ok=ok)

    def _lost(self, what: str) -> Cell:
        name = self._data.name if self._data.parquet else "its data"
        return Cell(f"{what} {LOST.format(name=name)}", ok=False, lost=True)

    def _why(self, status: int | None) -> str:
        if status is None:
            return "The session ended."
        if status == OUT_OF_TIME:
            return f"The session ended: it used up its {self._limits.cpu_s} s of processor time."
        if status < 0:
            return f"The session ended: {SIGNALS.get(-status, f'signal {-status}')}."
        return f"The session ended itself, with status {status}."

    async def _end(self, *, hung_up: bool = False) -> int | None:
        transport, self._transport = self._transport, None
        if transport is None:
            return None
        self._ended = transport
        return await transport.kill(hung_up=hung_up)


async def _answer_of(ask: Ask, asked: dict[str, Any], clock: _Clock) -> Data | str:
    """What is answered, or why nothing is. What it took counts as the cell's time, but for the model's own."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    waited_s = 0.0
    try:
        _check_question(asked)
        answer = await ask(asked)
        waited_s = answer.waited_s
    except ValueError as error:  # UsageError and what a schema's own errors are
        return _clean(str(error), PROBLEM_CHARS)
    except AMRError:
        raise
    except Exception as error:
        raise SandboxError(
            f"What ask() asked could not be answered: {type(error).__name__}: {error}"
        ) from error
    finally:
        clock.charge(loop.time() - begun - waited_s)
    return answer


def _question(asked: Any, blobs: list[bytes]) -> dict[str, Any]:
    """A question as ``Ask`` takes it: the texts came one after the other in a blob, by their lengths.

    Raises:
        _Broken: it has another form.
    """
    lengths = asked.get("lengths") if isinstance(asked, dict) else None
    if (
        not isinstance(lengths, list)
        or not isinstance(asked.get("instruction"), str)
        or len(blobs) != 1
    ):
        raise _Broken("it asked in no known form")
    if not all(type(one) is int and one >= MISSING_TEXT for one in lengths):
        raise _Broken("it asked in no known form")
    if sum(length for length in lengths if length != MISSING_TEXT) != len(blobs[0]):
        raise _Broken("it asked in no known form")
    texts: list[str | None] = []
    start = 0
    for length in lengths:
        if length == MISSING_TEXT:
            texts.append(None)
            continue
        texts.append(blobs[0][start : start + length].decode("utf-8", "replace"))
        start += length
    return {"texts": texts, "instruction": asked["instruction"], "schema": asked.get("schema")}


def _check_question(asked: dict[str, Any]) -> None:
    """Check what code asks of the model: plain types only, and little of them.

    A JSON schema is not taken: its patterns and references are programs that the host would run.

    Raises:
        UsageError: it is something else, or too much.
    """
    fields = asked["schema"]
    if not isinstance(fields, dict) or not 0 < len(fields) <= ASK_FIELDS:
        raise UsageError(
            f"ask(..., schema=) takes a dict of 1 to {ASK_FIELDS} column names to types"
        )
    if len(asked["instruction"]) > ASK_CHARS or len(json.dumps(fields)) > ASK_CHARS:
        raise UsageError(
            f"ask() takes an instruction and a schema of {ASK_CHARS:,} characters each"
        )
    for name, kind in fields.items():
        if len(name) > ASK_NAME_CHARS:
            raise UsageError(f"ask(..., schema=) takes column names of {ASK_NAME_CHARS} characters")
        _check_kind(kind)


def _check_kind(kind: Any) -> None:
    """Check the type of a field that code asks for: a plain one, a list of one, or choices; or that and a description.

    Raises:
        UsageError: it is something else.
    """
    plain = kind
    if isinstance(kind, dict):
        about = kind.get("description")
        if (
            kind.keys() != {"kind", "description"}
            or not isinstance(about, str)
            or len(about) > ASK_CHOICE_CHARS
        ):
            raise UsageError(ASKED_KINDS)
        plain = kind["kind"]
    if isinstance(plain, list):
        scalars = all(isinstance(choice, str | int | float) for choice in plain)
        if not scalars or not 0 < len(plain) <= ASK_CHOICES:
            raise UsageError(ASKED_KINDS)
        if max(len(str(choice)) for choice in plain) > ASK_CHOICE_CHARS:
            raise UsageError(f"ask(..., schema=) takes choices of {ASK_CHOICE_CHARS} characters")
    elif not isinstance(plain, str) or plain not in KIND_NAMES:
        raise UsageError(ASKED_KINDS)


async def _sent(transport: Transport, header: dict[str, Any], *blobs: bytes) -> None:
    """Send what the session waits for.

    Raises:
        TimeoutError: it does not take it.
    """
    async with asyncio.timeout(SEND_S):
        await _send(transport, header, *blobs)


async def _send(transport: Transport, header: dict[str, Any], *blobs: bytes) -> None:
    text = json.dumps(header | {"blobs": [len(blob) for blob in blobs]}).encode()
    await transport.send(len(text).to_bytes(4, "big") + text, *blobs)


async def _read(work: Callable[[bytes], T], given: bytes) -> T:
    """Read what came: at once if it is little, else in a thread."""
    return work(given) if len(given) <= DECODED_HERE else await asyncio.to_thread(work, given)


def _loaded(given: bytes) -> dict[str, Any]:
    """The JSON object of a message."""
    if values_in(given) > MOST_VALUES:
        raise _Broken(f"it sent more than {MOST_VALUES:,} values")
    try:
        decoded = _findings(given.decode()) if given.startswith(FINDINGS) else json.loads(given)
    except (ValueError, RecursionError):
        raise _Broken("it sent what is no JSON") from None
    if not isinstance(decoded, dict):
        raise _Broken("it sent no JSON object")
    return decoded


def _findings(text: str) -> dict[str, Any]:
    """Findings, decoded one after the other: a decoder lets no other thread run until it is done.

    Raises:
        ValueError: it is no JSON object that holds findings alone.
    """
    scan = json.JSONDecoder().raw_decode
    found: list[Any] = []
    place = len(FINDINGS)
    while not text.startswith("]", place):
        one, place = scan(text, place)
        found.append(one)
        if text.startswith(", ", place):
            place += 2
        elif not text.startswith("]", place):
            raise ValueError("no JSON")
    if text[place:] != "]}":
        raise ValueError("no JSON")
    return {"findings": found}


def _unstained(given: bytes) -> tuple[dict[str, Any], bool]:
    """What was handed in, without control characters, and whether it had any."""
    payload = _loaded(given)
    findings = payload.get("findings")
    for finding in findings if isinstance(findings, list) else ():
        if isinstance(finding, dict) and find_large(finding) is not None:
            raise _Broken(f"it handed in more than {CELL_BYTES >> 20} MB for one cell of the frame")
    return payload, _remove_stains(payload)


def _remove_stains(payload: dict[str, Any]) -> bool:
    """Replace control characters in decoded JSON, in its place; whether there were any."""
    found = False
    rest: list[Any] = [payload]
    while rest:
        one = rest.pop()
        for key, value in list(one.items()) if isinstance(one, dict) else enumerate(one):
            if isinstance(value, list | dict):
                rest.append(value)
            elif isinstance(value, str) and STAINS.search(value):
                one[key] = STAINS.sub(REPLACEMENT, value)
                found = True
        if isinstance(one, dict):
            for key in [key for key in one if STAINS.search(key)]:
                one[STAINS.sub(REPLACEMENT, key)] = one.pop(key)
                found = True
    return found


def _clean(given: Any, most: int) -> str:
    """What code printed, as text that a terminal, a log and a model's server take."""
    if not isinstance(given, str):
        raise _Broken("its output is no text")
    return CONTROLS.sub(REPLACEMENT, given[:most])


def _encodable(code: str) -> str:
    return code.encode("utf-8", "replace").decode()
