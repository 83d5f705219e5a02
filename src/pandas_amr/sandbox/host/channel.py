"""The host's side of a session: send it cells, limit their time, and restart it when it is lost."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pandas_amr.errors import AMRError, SandboxError
from pandas_amr.sandbox.base import MIB, Ask, Cell, Data, Limits, Submitted
from pandas_amr.sandbox.guest.worker import ASK_BYTES
from pandas_amr.sandbox.host.messages import (
    ProtocolError,
    check_question,
    clean_output,
    decode_message,
    decode_off_loop,
    decode_submitted,
    read_question,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

OPEN_S = 30.0
# A session that does not read what it is sent is ended, even if its cell has more time.
SEND_S = 10.0
GRACE_S = 2.0  # from the interrupt to the kill
HEADER_BYTES = 256 << 10  # of a message without its output
ESCAPED_BYTES = 12  # that JSON may take for one character
CPU_TIME_STATUS = -24  # SIGXCPU
MAX_REFUSALS = 5  # refused questions per session; one more ends it
PROBLEM_CHARS = 500
REPLACED = (
    "Control characters, such as NUL and those that a terminal obeys, were replaced in what was "
    "submitted."
)
SIGNALS = {
    4: "it crashed (illegal instruction)",
    6: "it aborted",
    7: "it crashed (bus error)",
    9: "it was killed",
    11: "it crashed (segmentation fault)",
    31: "it made a forbidden system call",
}
LOST = "Its variables are gone. The next cell starts a new session, with {name} as it was."


class Transport(Protocol):
    """A process at the other end: bytes in both directions, and ways to stop it."""

    async def send(self, *parts: bytes) -> None:
        """Send all of the bytes."""
        ...

    async def receive(self, size: int) -> bytes:
        """Receive exactly ``size`` bytes.

        Raises:
            EOFError: the process has closed its end.
        """
        ...

    def interrupt(self) -> None:
        """Interrupt it as Ctrl-C would."""
        ...

    def pause(self) -> None:
        """Stop it between cells, so that it uses no processor time."""
        ...

    def resume(self) -> None:
        """Let it run on after a pause."""
        ...

    async def cpu_seconds(self) -> float | None:
        """Return the processor seconds of the killed process; None if they are not known."""
        ...

    async def kill(self, *, has_ended: bool) -> int | None:
        """End the process.

        Args:
            has_ended: it has closed its end. Its own exit is awaited, so that the status is its
                own.

        Returns:
            Its exit status, negative for a signal; None if it is not known.

        Raises:
            SandboxError: the process ended because the sandbox failed, not because of its code.
        """
        ...


class _Clock:
    """Measures the time of one cell, with all that it makes the host do.

    The model's own time does not count.

    Attributes:
        stopped: whether the time was over, and the cell was interrupted.
    """

    def __init__(self, seconds: float, interrupt: Callable[[], None]) -> None:
        self._left = seconds
        self._interrupt = interrupt
        self.stopped = False

    async def run(self, work: Awaitable[T]) -> T:
        """Await work of the cell, or work that it causes. Interrupt the cell when its time is over.

        Raises:
            TimeoutError: the work goes on after the interrupt.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work)
        try:
            while True:
                start = loop.time()
                done, _ = await asyncio.wait({task}, timeout=self._left)
                self.charge(loop.time() - start)
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
        """Subtract time that was spent outside ``run``."""
        self._left = max(0.0, self._left - seconds)

    def _stop(self) -> None:
        self.stopped, self._left = True, GRACE_S
        self._interrupt()


class ChannelSession:
    """A session over a transport. If it is lost, the next cell starts a new one with the same data.

    The limits hold for the agent over all its processes.

    Args:
        begin: starts a process; it gets the processor seconds that are left.
        data: the frame that the session holds.
        limits: what the session may use.
        opening: further fields of the first message.
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
        await self._charge_ended()
        if self._transport is None and self._cpu_left <= 0:
            return Cell(
                f"The {self._limits.cpu_s} s of processor time are used up: no more code can run.",
                ok=False,
            )
        transport = self._transport or await self._open()
        loop = asyncio.get_running_loop()
        start = loop.time()
        transport.resume()
        try:
            cell = await self._run_cell(transport, code, ask)
        except TimeoutError:
            await self._end()
            return self._lost_cell(
                f"The cell ran for more than {self._limits.wall_s:g} s and could not be "
                "interrupted."
            )
        except ProtocolError as error:
            await self._end()
            return self._lost_cell(f"The session was ended: {error}.")
        except (EOFError, OSError):
            status = await self._end(has_ended=True)
            if status == CPU_TIME_STATUS:
                self._cpu_left = 0.0
            return self._lost_cell(self._explain_end(status))
        except BaseException:
            await self._end()
            raise
        finally:
            self._ran_s += loop.time() - start
        transport.pause()
        return cell

    async def close(self) -> None:
        """End the session."""
        await self._end()

    async def _run_cell(self, transport: Transport, code: str, ask: Ask | None) -> Cell:
        name = secrets.token_hex(8)
        clock = _Clock(self._limits.wall_s, transport.interrupt)
        code = code.encode("utf-8", "replace").decode()
        await clock.run(_send_in_time(transport, {"do": "run", "id": name, "code": code}))
        reply, blobs = await self._receive_reply(transport, name, ask, clock)
        return await clock.run(self._read_cell(reply, blobs, stopped=clock.stopped))

    async def _charge_ended(self) -> None:
        """Subtract what the last process used, before another one starts."""
        ended, self._ended = self._ended, None
        if ended is None:
            return
        used = await ended.cpu_seconds()
        if used is None:  # one core at most, for as long as it ran
            used = self._ran_s
        self._cpu_left -= used
        self._ran_s = 0.0

    async def _open(self) -> Transport:
        """Start a process, and have it load the data."""
        transport = await self._begin(self._cpu_left)
        self._transport = transport
        self._refused = 0
        opening = self._opening_message()
        blobs = []
        if self._data.parquet and not self._opening.get("shared"):
            blobs.append(self._data.parquet)
        try:
            async with asyncio.timeout(OPEN_S):
                await _send(transport, opening, *blobs)
                reply, _ = await self._receive(transport, opening["id"])
        except (TimeoutError, EOFError, OSError, ProtocolError):
            status = await self._end(has_ended=True)
            reason = self._explain_end(status)
            raise SandboxError(f"A session could not be started: {reason}") from None
        if reply.get("ok") is not True:
            await self._end()
            reason = clean_output(reply.get("out"), PROBLEM_CHARS)
            raise SandboxError(f"A session could not load its data: {reason}")
        return transport

    def _opening_message(self) -> dict[str, Any]:
        return {
            "do": "open",
            "id": secrets.token_hex(8),
            "name": self._data.name,
            "labels": dict(self._data.labels),
            "output_chars": self._limits.output_chars,
            "result_bytes": self._limits.result_mb * MIB,
            "asks": self._limits.asks,
            **self._opening,
        }

    async def _receive_reply(
        self, transport: Transport, name: str, ask: Ask | None, clock: _Clock
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Receive the cell's reply; answer the questions that it asks before."""
        while True:
            message, blobs = await clock.run(self._receive(transport, name))
            if "ask" not in message:
                return message, blobs
            question = await clock.run(asyncio.to_thread(read_question, message["ask"], blobs))
            await self._answer(transport, name, question, ask, clock)

    async def _answer(
        self,
        transport: Transport,
        name: str,
        question: dict[str, Any],
        ask: Ask | None,
        clock: _Clock,
    ) -> None:
        """Answer a question of code, within the session's limits."""
        answer = await self._ask(question, ask, clock)
        if isinstance(answer, str):
            self._count_refusal(answer, clock)
            reply = {"do": "answer", "id": name, "ok": False, "out": answer}
            await clock.run(_send_in_time(transport, reply))
            return
        reply = {
            "do": "answer",
            "id": name,
            "ok": True,
            "out": " ".join(answer.changed),
            "labels": dict(answer.labels),
        }
        await clock.run(_send_in_time(transport, reply, answer.parquet))

    async def _ask(self, question: dict[str, Any], ask: Ask | None, clock: _Clock) -> Data | str:
        """Return the answer, or the reason why there is none."""
        self._asked += max(1, len(question["texts"]))
        if ask is None or clock.stopped:
            return "ask() is not possible here: there is no model, or the cell's time is over"
        if self._asked > self._limits.asks:
            return f"ask() takes {self._limits.asks} texts in all, not {self._asked}"
        return await _ask_model(ask, question, clock)

    def _count_refusal(self, problem: str, clock: _Clock) -> None:
        """Count a refused question; the session ends after too many."""
        self._refused += 1
        if self._refused <= MAX_REFUSALS:
            return
        if clock.stopped:
            raise TimeoutError  # it goes on asking after the interrupt
        raise ProtocolError(
            f"it asked {self._refused} times what cannot be asked; the last: {problem}"
        )

    async def _receive(self, transport: Transport, name: str) -> tuple[dict[str, Any], list[bytes]]:
        """Receive one message with its blobs. Its id must be that of the last request."""
        size = int.from_bytes(await transport.receive(4), "big")
        if size > HEADER_BYTES + ESCAPED_BYTES * self._limits.output_chars:
            raise ProtocolError(f"it sent a message of {size >> 10} kB")
        message = await decode_off_loop(decode_message, await transport.receive(size))
        if message.get("id") != name:
            raise ProtocolError("it sent a message that answers no request")
        sizes = self._check_blobs(message)
        return message, [await transport.receive(size) for size in sizes]

    def _check_blobs(self, message: dict[str, Any]) -> list[int]:
        """Return the sizes of the message's blobs: at most one, and not too large."""
        sizes = message.get("blobs", [])
        limit, function = self._limits.result_mb * MIB, "submit"
        if "ask" in message:
            limit, function = ASK_BYTES, "ask"
        is_valid = isinstance(sizes, list) and len(sizes) <= 1
        if not is_valid or not all(type(size) is int and 0 <= size <= limit for size in sizes):
            raise ProtocolError(f"it sent more than `{function}` takes")
        return list(sizes)

    async def _read_cell(self, reply: dict[str, Any], blobs: list[bytes], *, stopped: bool) -> Cell:
        ok = reply.get("ok") is True
        text = clean_output(reply.get("out"), self._limits.output_chars + 200)
        if stopped and not ok:
            text += (
                f"\nThe cell was stopped after {self._limits.wall_s:g} s. The variables are kept."
            )
        if reply.get("submitted") is not True:
            return Cell(text, ok=ok)
        if not blobs:
            raise ProtocolError("it submitted nothing")
        payload, replaced = await decode_off_loop(decode_submitted, blobs[0])
        if replaced:
            text = f"{text.rstrip()}\n{REPLACED}".lstrip()
        return Cell(text, Submitted(payload), ok=ok)

    def _lost_cell(self, reason: str) -> Cell:
        name = self._data.name if self._data.parquet else "its data"
        return Cell(f"{reason} {LOST.format(name=name)}", ok=False, lost=True)

    def _explain_end(self, status: int | None) -> str:
        if status is None:
            return "The session ended."
        if status == CPU_TIME_STATUS:
            return f"The session ended: it used up its {self._limits.cpu_s} s of processor time."
        if status < 0:
            return f"The session ended: {SIGNALS.get(-status, f'signal {-status}')}."
        return f"The session ended itself, with status {status}."

    async def _end(self, *, has_ended: bool = False) -> int | None:
        transport, self._transport = self._transport, None
        if transport is None:
            return None
        self._ended = transport
        return await transport.kill(has_ended=has_ended)


async def _ask_model(ask: Ask, question: dict[str, Any], clock: _Clock) -> Data | str:
    """Check a question, and ask it; return the answer, or why the question is refused.

    Its time counts as the cell's, except the model's own.
    """
    loop = asyncio.get_running_loop()
    start = loop.time()
    waited_s = 0.0
    try:
        check_question(question)
        answer = await ask(question)
        waited_s = answer.waited_s
    except ValueError as error:  # UsageError, and errors of a schema
        return clean_output(str(error), PROBLEM_CHARS)
    except AMRError:
        raise
    except Exception as error:
        raise SandboxError(
            f"A question of ask() could not be answered: {type(error).__name__}: {error}"
        ) from error
    finally:
        clock.charge(loop.time() - start - waited_s)
    return answer


async def _send_in_time(transport: Transport, header: dict[str, Any], *blobs: bytes) -> None:
    """Send a message that the session waits for.

    Raises:
        TimeoutError: the session does not read it.
    """
    async with asyncio.timeout(SEND_S):
        await _send(transport, header, *blobs)


async def _send(transport: Transport, header: dict[str, Any], *blobs: bytes) -> None:
    text = json.dumps(header | {"blobs": [len(blob) for blob in blobs]}).encode()
    await transport.send(len(text).to_bytes(4, "big") + text, *blobs)
