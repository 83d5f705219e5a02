"""Try attempts on a sandbox, each with a control that shows that it works without one.

The kit is for every sandbox, this package's own and others'. ``attempts()`` lists the attempts.
``AttackKit`` runs one in a session of the sandbox under test and says what went wrong; it also runs
the controls.

The goals ``crash``, ``forge``, ``flood`` and ``stain`` are about the host: it must go on, limit
what it takes, and trust nothing. Such an attempt may do in its own process what it likes. It fails
in the unconfined ``process`` tier, too, if the host's side is this package's. Only ``escape`` tests
the confinement.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from pandas_amr.sandbox.base import MIB, Data, Limits
from pandas_amr.sandbox.conformance.attempt import PRELUDE, SUCCESS_MARK, SandboxAttempt
from pandas_amr.sandbox.conformance.attempts import attempts
from pandas_amr.sandbox.conformance.memory import Levels, MemoryWatch
from pandas_amr.sandbox.conformance.target_host import TargetHost, read_sibling
from pandas_amr.sandbox.guest.worker import find_large

if TYPE_CHECKING:
    from pandas_amr.sandbox.base import Cell, Sandbox, Session

__all__ = ["AttackKit", "AttemptOutcome", "attempts"]

LIMITS = Limits(
    memory_mb=512,
    wall_s=1.0,
    cpu_s=20,
    scratch_mb=32,
    scratch_files=100,
    threads=16,
    output_chars=4000,
    result_mb=16,
)
# Of the sessions that are not attacked, but show what an attack has done to them.
WITNESS_LIMITS = replace(LIMITS, wall_s=20.0)
MAX_HOST_BYTES = 160 * MIB  # per attempt: what may be submitted, as Python objects
STAIN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
ESCAPED_STAIN = re.compile(r"\\u00(?:0[0-8b]|0c|0e|0f|1[0-9a-f])")  # as JSON writes it
LINGER_S = 0.8
CONTROL_S = 30.0
HANG_S = 1.5
GRACE_S = 8.0
ATTEMPT_S = 60.0
HELPER = """\
def _read(handle):
    try: return is_secret(os.pread(handle, 64, 0))
    except OSError: return False
"""
# The control of an attempt on another session: two forks of one process, with nothing between
# them. The first one lives until the second has ended.
TWO_SESSIONS = """\
import os, signal, sys
import numpy.random
heard, say = os.pipe()
first = os.fork()
if first == 0:
    os.dup2(say, 1)
    exec(<<code>>, {})
    sys.stdout.flush()
    os.write(1, b"\\0")
    signal.pause()
said = b""
while not said.endswith(b"\\0"):
    part = os.read(heard, 4096)
    said += part or b"\\0"
second = os.fork()
if second == 0:
    exec(<<other>>.replace("<<said>>", said[:-1].decode().strip()), {})
    os._exit(sys.stdout.flush() or 0)
os.waitpid(second, 0)
os.kill(first, signal.SIGKILL)
"""


def _make_data(name: str, **columns: list[Any]) -> Data:
    table = pa.table({f"c{number}": column for number, column in enumerate(columns.values())})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    labels = {
        "columns": list(columns),
        "column_names": [None],
        "index_names": [None],
        "range": [0, table.num_rows, 1],
    }
    return Data(name, sink.getvalue().to_pybytes(), labels)


SHARD = _make_data("df", text=["a", "b", "c"], n=[1, 2, 3])


async def _echo(question: dict[str, Any]) -> Data:
    """Answer each text with itself and the schema, however much that is."""
    schema = question.get("schema")
    return _make_data("answers", answer=[f"{text} {schema}" for text in question["texts"]])


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """The outcome of an attempt.

    Attributes:
        problem: what went wrong; None if the sandbox holds.
        levels: the memory that it took; None if it is not known.
    """

    problem: str | None
    levels: Levels | None


class AttackKit:
    """Tries attempts. The targets on the host exist for as long as the ``with`` lasts."""

    def __init__(self) -> None:
        self._host = TargetHost()

    def __enter__(self) -> Self:
        self._host.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._host.__exit__(*exception)

    async def holds(self, attempt: SandboxAttempt, sandbox: Sandbox) -> str | None:
        """Try an attempt in a session; return what went wrong, or None if the sandbox holds."""
        return (await self.try_attempt(attempt, sandbox)).problem

    async def try_attempt(self, attempt: SandboxAttempt, sandbox: Sandbox) -> AttemptOutcome:
        """Try an attempt in a session, next to another one; measure the memory that it takes."""
        limits = replace(WITNESS_LIMITS, cpu_s=attempt.cpu_s) if attempt.cpu_s else LIMITS
        sibling = await sandbox.open(SHARD, WITNESS_LIMITS)
        session = await sandbox.open(SHARD, limits)
        try:
            async with asyncio.timeout(ATTEMPT_S):
                with MemoryWatch(on=attempt.runs_alone) as watch:
                    problem = await self._attack(attempt, sandbox, session, sibling)
        except TimeoutError:
            return AttemptOutcome(f"the host waited for more than {ATTEMPT_S:g} s", None)
        finally:
            await session.close()
            await sibling.close()
        levels = watch.levels
        if problem is None and levels is not None and levels.host_taken > MAX_HOST_BYTES:
            problem = f"the host took {levels.host_taken >> 20} MB"
        return AttemptOutcome(problem, levels)

    async def _attack(
        self, attempt: SandboxAttempt, sandbox: Sandbox, session: Session, sibling: Session
    ) -> str | None:
        """Run the attempt's cells; return what went wrong in it, or in the sessions next to it."""
        fields = read_sibling((await sibling.run(self._host.sibling_code)).text)
        if not fields:
            return "the session next to it did not print what it should"
        wall_s = (WITNESS_LIMITS if attempt.cpu_s else LIMITS).wall_s + GRACE_S
        code = self._fill_in(attempt.code, **fields)
        try:
            for _ in range(attempt.repeat):
                async with asyncio.timeout(wall_s):
                    cell = await session.run(code, _echo)
        except TimeoutError:
            return f"the host waited for more than {wall_s:g} s"
        problem = await self._run_later_cell(attempt, session)
        if problem is not None:
            return problem
        after = await session.run("1 + 1")
        if not after.ok:  # the session may have just ended, or the machine was busy
            after = await session.run("1 + 1")
        damage = await self._find_damage(attempt, sandbox, sibling, cell)
        success = self._find_success(attempt, cell)
        if success is not None:
            return success
        if _expects_session(attempt, cell) and after.text.strip() != "2":
            return f"no session was available afterwards: {after.text[-300:]}"
        return damage

    async def _find_damage(
        self, attempt: SandboxAttempt, sandbox: Sandbox, sibling: Session, cell: Cell
    ) -> str | None:
        """Return what the attempt did to the session next to it, or to a later one."""
        beside = await sibling.run("kept + len(token.value.decode()) + int(df['n'].sum())")
        fresh = await sandbox.open(SHARD, WITNESS_LIMITS)
        try:
            shard = await fresh.run("print(*df['text'], *df['n'])")
            problem = await self._run_other_cell(attempt, fresh, cell)
        finally:
            await fresh.close()
        if problem is not None:
            return problem
        if beside.text.strip() != str(41 + 32 + 6):
            return f"another session suffered: {beside.text[-300:]}"
        if shard.text.strip() != "a b c 1 2 3":
            return f"the shard has changed: {shard.text[-300:]}"
        return None

    async def _run_later_cell(self, attempt: SandboxAttempt, session: Session) -> str | None:
        if not attempt.later_code:
            return None
        await asyncio.sleep(LINGER_S)
        code = attempt.later_code
        if attempt.repeat > 1:  # the session that ran the prelude has ended
            code = self._fill_in(code)
        later = await session.run(code)
        return f"it won: {later.text[-300:]}" if SUCCESS_MARK in later.text else None

    async def _run_other_cell(
        self, attempt: SandboxAttempt, session: Session, cell: Cell
    ) -> str | None:
        if not attempt.other_code:
            return None
        code = self._fill_in(attempt.other_code, said=cell.text.strip())
        other = await session.run(code)
        if SUCCESS_MARK in other.text:
            return f"another session saw it: {other.text[-300:]}"
        return None

    def _find_success(self, attempt: SandboxAttempt, cell: Cell) -> str | None:
        """Return what the attempt achieved; None if nothing."""
        if SUCCESS_MARK in cell.text or "forged" in cell.text.replace(attempt.code, ""):
            return f"it won: {cell.text[-300:]}"
        if self._host.token in cell.text:
            return "the secret is out"
        if len(cell.text) > LIMITS.output_chars + 500:
            return f"the host took {len(cell.text)} characters"
        if STAIN.search(cell.text):
            return f"the host took control characters: {cell.text[-300:]!r}"
        if cell.submitted is None:
            return None
        return _check_submitted(attempt, cell.submitted.payload)

    def _fill_in(self, code: str, **fields: str) -> str:
        """Return a cell with the prelude, and with fields of the host, or those given, filled in."""
        self._host.reset()
        code = PRELUDE + HELPER + code
        for name, value in (self._host.fields | fields).items():
            code = code.replace(f"<<{name}>>", value)
        return code

    # Controls

    def control(self, attempt: SandboxAttempt) -> str | None:
        """Run an attempt without a sandbox; return why it does not work, or None if it does."""
        code = self._control_code(attempt)
        source, sink = os.pipe()
        os.set_blocking(source, False)
        shard = os.memfd_create("shard", os.MFD_ALLOW_SEALING)  # not sealed
        os.write(shard, SHARD.parquet)
        try:
            with tempfile.TemporaryDirectory() as scratch:
                done = subprocess.run(
                    [sys.executable, "-c", code],
                    cwd=scratch,
                    env=os.environ | {"PYTHONIOENCODING": "utf-8:surrogatepass"},
                    pass_fds=(self._host.secret_handle, sink, shard),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=HANG_S if attempt.goal == "hang" else CONTROL_S,
                    check=False,
                )
            sent = os.read(source, 64)
        except subprocess.TimeoutExpired:
            return None if attempt.goal == "hang" else "it did not end"
        except BlockingIOError:
            sent = b""
        finally:
            for handle in (source, sink, shard):
                os.close(handle)
        return _explain_failure(attempt, done, sent)

    def _control_code(self, attempt: SandboxAttempt) -> str:
        code = self._fill_in(attempt.code)
        if attempt.later_code:
            code += f"\ntime.sleep({LINGER_S})\n{attempt.later_code}"
        if attempt.other_code:
            other = self._fill_in(attempt.other_code)
            code = TWO_SESSIONS.replace("<<code>>", repr(code)).replace("<<other>>", repr(other))
        return code


def _expects_session(attempt: SandboxAttempt, cell: Cell) -> bool:
    """Tell whether a session must be available after the attempt."""
    if attempt.cpu_s > 0:  # its processor time is used up
        return False
    # Code that breaks its runner without ending it harms only its own session.
    return attempt.goal != "crash" or cell.lost


def _check_submitted(attempt: SandboxAttempt, payload: Any) -> str | None:
    """Return what is wrong with what the host took; None if nothing."""
    if attempt.goal == "crash":
        return "the host took what a session submitted that ended itself"
    text = json.dumps(payload, ensure_ascii=False)
    if len(text) > LIMITS.result_mb * MIB:
        return "the host took more than may be submitted"
    if STAIN.search(text) or ESCAPED_STAIN.search(text):
        return "the host took findings that a terminal would obey"
    findings = payload.get("findings")
    if isinstance(findings, list):
        for finding in findings:
            if isinstance(finding, dict) and find_large(finding) is not None:
                return "the host took more for one cell of the frame than it may hold"
    return None


def _has_crashed(attempt: SandboxAttempt, status: int) -> bool:
    if attempt.fatal_signal:
        return status == -attempt.fatal_signal
    return status != 0


def _explain_failure(
    attempt: SandboxAttempt, done: subprocess.CompletedProcess[bytes], sent: bytes
) -> str | None:
    """Return why a control that has ended does not show the attempt to work; None if it does."""
    output = done.stdout + done.stderr
    match attempt.goal:
        case "escape":
            if SUCCESS_MARK.encode() in done.stdout:
                return None
            return done.stderr.decode(errors="replace")[-400:] or "it failed"
        case "crash":
            if _has_crashed(attempt, done.returncode):
                return None
            return f"it ended with {done.returncode}"
        case "forge":
            return None if sent else "it sent nothing"
        case "flood":
            return None if len(output) >= attempt.min_bytes else f"it printed {len(output)} bytes"
        case "stain":
            is_stained = STAIN.search(output.decode("utf-8", "surrogatepass"))
            return None if is_stained else "it printed no control characters"
    return "it ended"
