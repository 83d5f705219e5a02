"""The host's side of a session: one cell at a time, every reply bounded and checked, every end told in words.

Nothing that a session says is believed. A message that is too long, no JSON, of the wrong shape or not asked for ends
it.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from typing import TYPE_CHECKING, Any, Protocol

from pandas_amr.errors import AMRError, SandboxError
from pandas_amr.sandbox.base import MIB, Ask, Cell, Data, Limits, Submitted
from pandas_amr.sandbox.worker import MOST_VALUES, values_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

OPEN_S = 30.0
SEND_S = 10.0  # a session that does not read what it is sent is ended
GRACE_S = 2.0  # from the interrupt to the kill
MAX_HEADER = 32 * MIB
PROBLEM_CHARS = 500
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

    async def kill(self, *, hung_up: bool) -> int | None:
        """End it; its exit status where it is known, negative for a signal.

        Where it ``hung_up``, its own end is waited for, so that the status is its own.

        Raises:
            SandboxError: it hung up because what stands behind it failed, and not the code in it.
        """
        ...


class _Broken(Exception):
    """The session said what no session says."""


class ChannelSession:
    """A session over a transport. Where it is lost, the next cell begins a new one with the same data."""

    def __init__(self, begin: Callable[[], Awaitable[Transport]], data: Data, limits: Limits, **opening: Any) -> None:
        self._begin = begin
        self._data = data
        self._limits = limits
        self._opening = opening
        self._transport: Transport | None = None
        self._asked = 0

    async def run(self, code: str, ask: Ask | None = None) -> Cell:
        """Run a cell; see ``Session.run``."""
        transport = self._transport or await self._opened()
        name = secrets.token_hex(8)
        transport.resume()
        try:
            await _sent(transport, {"do": "run", "id": name, "code": _encodable(code)})
            reply, blobs, stopped = await self._answered(transport, name, ask)
            cell = self._cell(reply, blobs, stopped=stopped)
        except TimeoutError:
            await self._end()
            return self._lost(f"The cell ran for more than {self._limits.wall_s:g} s and could not be interrupted.")
        except _Broken as error:
            await self._end()
            return self._lost(f"The session was ended: {error}.")
        except (EOFError, OSError):
            return self._lost(self._why(await self._end(hung_up=True)))
        except BaseException:
            await self._end()
            raise
        transport.pause()
        return cell

    async def close(self) -> None:
        """End the session."""
        await self._end()

    async def _opened(self) -> Transport:
        transport = await self._begin()
        self._transport = transport
        name = secrets.token_hex(8)
        opening = {
            "do": "open",
            "id": name,
            "name": self._data.name,
            "labels": dict(self._data.labels),
            "output_chars": self._limits.output_chars,
            "result_bytes": self._limits.result_mb * MIB,
            **self._opening,
        }
        try:
            async with asyncio.timeout(OPEN_S):
                parquet = [self._data.parquet] if self._data.parquet and not self._opening.get("shared") else []
                await _send(transport, opening, *parquet)
                reply, _ = await self._message(transport, name)
        except (TimeoutError, EOFError, OSError, _Broken):
            status = await self._end(hung_up=True)
            raise SandboxError(f"A session could not be begun: {self._why(status)}") from None
        if reply.get("ok") is not True:
            await self._end()
            raise SandboxError(f"A session could not load its data: {_clean(reply.get('out'), 500)}")
        return transport

    async def _answered(
        self, transport: Transport, name: str, ask: Ask | None
    ) -> tuple[dict[str, Any], list[bytes], bool]:
        """The cell's reply; the questions that it asks on the way are answered, and take none of its time."""
        loop = asyncio.get_running_loop()
        left = self._limits.wall_s
        interrupted = False
        reading: asyncio.Future[tuple[dict[str, Any], list[bytes]]] | None = None
        try:
            while True:
                reading = reading or asyncio.ensure_future(self._message(transport, name))
                begun = loop.time()
                done, _ = await asyncio.wait({reading}, timeout=left)
                left = max(0.0, left - (loop.time() - begun))
                if done:
                    (message, blobs), reading = reading.result(), None
                    if "ask" not in message:
                        return message, blobs, interrupted
                    await self._answer(transport, name, message["ask"], None if interrupted else ask)
                elif interrupted:
                    raise TimeoutError
                else:
                    interrupted, left = True, GRACE_S
                    transport.interrupt()
        finally:
            if reading is not None and not reading.done():
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _answer(
        self,
        transport: Transport,
        name: str,
        asked: Any,
        ask: Ask | None,
    ) -> None:
        """Answer what code asks of the model, within the session's bounds."""
        texts = asked.get("texts") if isinstance(asked, dict) else None
        if not isinstance(texts, list) or not isinstance(asked.get("instruction"), str):
            raise _Broken("it asked in no known form")
        self._asked += max(1, len(texts))
        if ask is None:
            problem = "ask() is not possible here: nothing stands behind it, or the cell's time is over"
        elif self._asked > self._limits.asks:
            problem = f"ask() takes {self._limits.asks} texts in all, and these would be {self._asked}"
        else:
            try:
                answer = await ask(asked)
            except ValueError as error:  # UsageError and what a schema's own errors are
                problem = _clean(str(error), PROBLEM_CHARS)
            except AMRError:
                raise
            except Exception as error:
                raise SandboxError(
                    f"What ask() asked could not be answered: {type(error).__name__}: {error}"
                ) from error
            else:
                reply = {
                    "do": "answer",
                    "id": name,
                    "ok": True,
                    "out": " ".join(answer.changed),
                    "labels": dict(answer.labels),
                }
                await _sent(transport, reply, answer.parquet)
                return
        await _sent(transport, {"do": "answer", "id": name, "ok": False, "out": problem})

    async def _message(self, transport: Transport, name: str) -> tuple[dict[str, Any], list[bytes]]:
        """One message with its blobs, which belongs to what was asked last."""
        size = int.from_bytes(await transport.receive(4), "big")
        if size > MAX_HEADER:
            raise _Broken(f"it sent a message of {size >> 20} MB")
        message = _decoded(await transport.receive(size))
        sizes = message.get("blobs", [])
        if message.get("id") != name:
            raise _Broken("it spoke without being asked")
        if (
            not isinstance(sizes, list)
            or len(sizes) > 1
            or not all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in sizes)
            or sum(sizes) > self._limits.result_mb * MIB
        ):
            raise _Broken("it sent more than `submit` takes")
        return message, [await transport.receive(one) for one in sizes]

    def _cell(self, reply: dict[str, Any], blobs: list[bytes], *, stopped: bool) -> Cell:
        ok = reply.get("ok") is True
        text = _clean(reply.get("out"), self._limits.output_chars + 200)
        if stopped and not ok:
            text += f"\nThe cell was stopped after {self._limits.wall_s:g} s. The variables are kept."
        if reply.get("submitted") is not True:
            return Cell(text, ok=ok)
        if not blobs:
            raise _Broken("it handed in nothing")
        return Cell(text, Submitted(_decoded(blobs[0])), ok=ok)

    def _lost(self, what: str) -> Cell:
        name = self._data.name if self._data.parquet else "its data"
        return Cell(f"{what} {LOST.format(name=name)}", ok=False, lost=True)

    def _why(self, status: int | None) -> str:
        if status is None:
            return "The session ended."
        if status == -24:
            return f"The session ended: it used up its {self._limits.cpu_s} s of processor time."
        if status < 0:
            return f"The session ended: {SIGNALS.get(-status, f'signal {-status}')}."
        return f"The session ended itself, with status {status}."

    async def _end(self, *, hung_up: bool = False) -> int | None:
        transport, self._transport = self._transport, None
        return await transport.kill(hung_up=hung_up) if transport is not None else None


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


def _decoded(given: bytes) -> dict[str, Any]:
    if values_in(given) > MOST_VALUES:
        raise _Broken(f"it sent more than {MOST_VALUES:,} values")
    try:
        decoded = json.loads(given)
    except (ValueError, RecursionError):
        raise _Broken("it sent what is no JSON") from None
    if not isinstance(decoded, dict):
        raise _Broken("it sent no JSON object")
    return decoded


def _clean(given: Any, most: int) -> str:
    """What code printed, as text that a terminal, a log and a model's server take."""
    if not isinstance(given, str):
        raise _Broken("its output is no text")
    return CONTROLS.sub("\ufffd", given[:most])


def _encodable(code: str) -> str:
    return code.encode("utf-8", "replace").decode()
