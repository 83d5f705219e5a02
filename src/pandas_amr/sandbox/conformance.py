"""What a sandbox must hold against: attempts to get out, each with a control that works where nothing confines it.

A kit for every sandbox, this package's own and others'. ``attempts()`` lists them; ``World`` sets up what there is to be
had on the host, runs a control, and tells whether an attempt in a session of the sandbox under test came to something.

What ``attempts.py`` calls ``crash``, ``forge``, ``flood`` and ``stain`` is about the host: whether it goes on, bounds what
it takes and believes nothing. Such an attempt may well do in its own process what it wants, and where the host's side is
this package's it comes to nothing in the unconfined ``process`` tier, too. What confines is told by ``escape`` alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from pandas_amr.sandbox.attempts import PRELUDE, WON, Attempt, attempts
from pandas_amr.sandbox.base import MIB, Data, Isolation, Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pandas_amr.sandbox.base import Cell, Sandbox, Session

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
OWN_LIMITS = replace(LIMITS, wall_s=20.0)  # of the sessions that are asked what is left, and not attacked
FLOOD = 64 * MIB
STAIN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
LINGER_S = 0.8
LEFT_S = 2.0  # how long what a session left behind may take to go
CONTROL_S = 30.0
AT_ONCE = 8
HANG_S = 1.5
GRACE_S = 8.0
ANSWER_S = 12.0  # how long the host may try to hand over an answer that nobody reads
MOST_S = 60.0
# A session beside the attacked one, and what stands in for it where nothing is confined: something of its own to be had.
SIBLING = """\
import ctypes, os
kept = 41
token = ctypes.create_string_buffer(b"<<token>>", 64)
try:
    with open("left.txt", "w") as file: file.write("<<token>>")
except OSError: pass
print(os.getpid(), ctypes.addressof(token), os.getcwd(), flush=True)
"""


def _data(name: str, **columns: list[Any]) -> Data:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({f"c{number}": column for number, column in enumerate(columns.values())}), sink)
    labels = {
        "columns": list(columns),
        "column_names": [None],
        "index_names": [None],
        "range": [0, max(map(len, columns.values())), 1],
    }
    return Data(name, sink.getvalue().to_pybytes(), labels)


SHARD = _data("df", text=["a", "b", "c"], n=[1, 2, 3])


async def _reader(asked: dict[str, Any]) -> Data:
    """A model in name only, which says what it was asked: as much as code wants."""
    return _data("answers", answer=[f"{text} {asked.get('schema')}" for text in asked["texts"]])


class World:
    """What there is to be had on the host, for as long as the ``with`` lasts: files, sockets, a process, secrets."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.words: dict[str, str] = {}
        self._token = secrets.token_hex(16)
        self._variable = f"AMR_TOKEN_{secrets.token_hex(4).upper()}"
        self._held: int = -1

    def __enter__(self) -> Self:
        stack = self._stack
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amr-world-", ignore_cleanup_errors=True)))
        secret = folder / "secret.txt"
        secret.write_text(self._token, encoding="ascii")
        (folder / "home").mkdir()
        (folder / "home" / ".netrc").write_text(self._token, encoding="ascii")
        spares = [folder / f"spare{number}" for number in range(3)]
        self._spares = spares
        tcp, udp, unix, abstract = (
            stack.enter_context(socket.socket(family, kind))
            for family, kind in (
                (socket.AF_INET, socket.SOCK_STREAM),
                (socket.AF_INET, socket.SOCK_DGRAM),
                (socket.AF_UNIX, socket.SOCK_STREAM),
                (socket.AF_UNIX, socket.SOCK_STREAM),
            )
        )
        tcp.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", 0))
        unix.bind(str(folder / "unix"))
        abstract.bind(f"\0amr-{secret.parent.name}")
        for listening in (unix, abstract):
            listening.listen()
        stack.enter_context(_answering(tcp))
        os.environ[self._variable] = self._token
        stack.callback(os.environ.pop, self._variable, None)
        (folder / "sibling").mkdir()
        victim = subprocess.Popen(
            [sys.executable, "-c", self._sibling() + "import sys; sys.stdin.read()"],  # it ends with this process
            process_group=0,
            cwd=folder / "sibling",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        assert victim.stdin is not None
        assert victim.stdout is not None
        stack.callback(victim.stdout.close)
        stack.callback(victim.stdin.close)
        self._held = os.open(secret, os.O_RDONLY)
        os.set_inheritable(self._held, True)  # noqa: FBT003 (what a careless host leaves open)
        stack.callback(os.close, self._held)
        self.words = {
            "variable": self._variable,
            "secret": str(secret),
            "folder": str(folder),
            "spare": str(spares[0]),
            "spare2": str(spares[1]),
            "spare3": str(spares[2]),
            "home": str(folder / "home"),
            "tcp": str(tcp.getsockname()[1]),
            "udp": str(udp.getsockname()[1]),
            "unix": str(folder / "unix"),
            "abstract": f"amr-{secret.parent.name}",
            "hash": hashlib.sha256(self._token.encode()).hexdigest(),
            "victim": str(victim.pid),
            **_beside(victim.stdout.readline()),
        }
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _sibling(self) -> str:
        return SIBLING.replace("<<token>>", self._token)

    def code(self, attempt: Attempt, **words: str) -> str:
        """The cell, filled in with what there is here; ``words`` in place of the world's own."""
        for spare in self._spares:
            spare.write_text("spare", encoding="ascii")
        for made in ("new", "made", "hard", "pipe", "null", "out.csv", "x.db"):
            path = Path(self.words["folder"]) / made
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        helper = (
            "def _read(handle):\n    try: return known(os.pread(handle, 64, 0))\n    except OSError: return False\n"
        )
        code = PRELUDE + helper + attempt.code
        for word, value in (self.words | words).items():
            code = code.replace(f"<<{word}>>", value)
        return code

    def control(self, attempt: Attempt) -> str | None:
        """Run the attempt with nothing around it; None where it works, else why it does not."""
        code = self.code(attempt)
        if attempt.later:
            code += f"\ntime.sleep({LINGER_S})\n{attempt.later}"
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        shard = os.memfd_create("shard", os.MFD_ALLOW_SEALING)  # of which nothing is sealed
        os.write(shard, SHARD.parquet)
        try:
            with tempfile.TemporaryDirectory() as scratch:
                done = subprocess.run(
                    [sys.executable, "-c", code],
                    cwd=scratch,
                    env=os.environ | {"PYTHONIOENCODING": "utf-8:surrogatepass"},
                    pass_fds=(self._held, theirs, shard),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=HANG_S if attempt.wants == "hang" else CONTROL_S,
                    check=False,
                )
            said = os.read(ours, 64)
        except subprocess.TimeoutExpired:
            return None if attempt.wants == "hang" else "it did not end"
        except BlockingIOError:
            said = b""
        finally:
            for handle in (ours, theirs, shard):
                os.close(handle)
        return _idle(attempt, done, said)

    async def holds(self, attempt: Attempt, sandbox: Sandbox) -> str | None:
        """Try it in a session, beside another one; None where the sandbox holds, else what went wrong."""
        beside = await sandbox.open(SHARD, OWN_LIMITS)
        session = await sandbox.open(SHARD, LIMITS)
        try:
            async with asyncio.timeout(MOST_S):
                return await self._tried(attempt, sandbox, session, beside)
        except TimeoutError:
            return f"the host waited for more than {MOST_S:g} s"
        finally:
            await session.close()
            await beside.close()

    async def _tried(self, attempt: Attempt, sandbox: Sandbox, session: Session, beside: Session) -> str | None:
        sibling = _beside((await beside.run(self._sibling())).text)
        if not sibling:
            return "the session beside it did not say what it was asked"
        most = LIMITS.wall_s + GRACE_S + (ANSWER_S if attempt.asks else 0)
        try:
            async with asyncio.timeout(most):
                cell = await session.run(self.code(attempt, **sibling), _reader)
        except TimeoutError:
            return f"the host waited for more than {most:g} s"
        if attempt.later:
            await asyncio.sleep(LINGER_S)
            if WON in (last := await session.run(attempt.later)).text:
                return f"it won: {last.text[-300:]}"
        after = await session.run("1 + 1")
        if not after.ok:  # it may be another one now, or the machine stood still for a moment
            after = await session.run("1 + 1")
        other = await beside.run("kept + len(token.value.decode()) + int(df['n'].sum())")
        fresh = await sandbox.open(SHARD, OWN_LIMITS)
        try:
            shard = await fresh.run("print(*df['text'], *df['n'])")
        finally:
            await fresh.close()
        own = attempt.wants == "crash" and not cell.lost  # what code does to a runner that goes on is its own loss
        return self._wrong(attempt, cell) or _suffered(None if own else after, other, shard)

    def _wrong(self, attempt: Attempt, cell: Cell) -> str | None:
        """What came of the attempt itself."""
        if WON in cell.text or "forged" in cell.text.replace(attempt.code, ""):
            return f"it won: {cell.text[-300:]}"
        if self._token in cell.text:
            return "the secret is out"
        if len(cell.text) > LIMITS.output_chars + 500:
            return f"the host took {len(cell.text)} characters"
        if STAIN.search(cell.text):
            return f"the host took what no text holds: {cell.text[-300:]!r}"
        if cell.submitted is not None and len(json.dumps(cell.submitted.payload)) > LIMITS.result_mb * MIB:
            return "the host took more than may be handed in"
        return None


def _beside(said: str) -> dict[str, str]:
    """What a sibling tells of itself; empty where that is something else."""
    words = said.split(maxsplit=2)
    if len(words) != 3 or not all(word.isdigit() for word in words[:2]):
        return {}
    return {"sibling": words[0], "address": words[1], "sibling_folder": words[2].strip()}


def _idle(attempt: Attempt, done: subprocess.CompletedProcess[bytes], said: bytes) -> str | None:
    """Why a control that came to an end shows nothing; None where it shows that the attempt works."""
    heard = done.stdout + done.stderr
    match attempt.wants:
        case "escape":
            return None if WON.encode() in done.stdout else done.stderr.decode(errors="replace")[-400:] or "it lost"
        case "crash":
            worked = done.returncode == -attempt.dies_of if attempt.dies_of else done.returncode != 0
            return None if worked else f"it ended with {done.returncode}"
        case "forge":
            return None if said else "nothing was said"
        case "flood":
            return None if len(heard) >= FLOOD else f"it said {len(heard)} bytes"
        case "stain":
            return None if STAIN.search(heard.decode("utf-8", "surrogatepass")) else "it said nothing that stains"
    return "it came to an end"


def _suffered(after: Cell | None, other: Cell, shard: Cell) -> str | None:
    """What the attempt did to what comes after it, and stands beside it."""
    if after is not None and after.text.strip() != "2":
        return f"no session could be had afterwards: {after.text[-300:]}"
    if other.text.strip() != str(41 + 32 + 6):
        return f"another session suffered: {other.text[-300:]}"
    if shard.text.strip() != "a b c 1 2 3":
        return f"the shard is another one: {shard.text[-300:]}"
    return None


@contextlib.contextmanager
def _answering(listening: socket.socket) -> Iterator[None]:
    """A server that says something to whoever connects."""
    listening.listen()

    def answer() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(1)
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n1,2\n")

    threading.Thread(target=answer, daemon=True).start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


async def report(sandbox: Sandbox, world: World, *, at_once: int = AT_ONCE) -> dict[str, str]:
    """Try everything; what came of the attempts that came to something, by ``kind/name``."""
    held: dict[str, str] = {}
    gate = asyncio.Semaphore(at_once)

    async def one(attempt: Attempt) -> None:
        async with gate:
            wrong = await world.holds(attempt, sandbox)
            if wrong is not None:
                held[f"{attempt.kind}/{attempt.name}"] = wrong

    before = await _standing(sandbox)
    await asyncio.gather(*(one(attempt) for attempt in attempts()))
    for _ in range(40):
        if (left := len(_below(os.getpid())) - before) <= 0:
            return held
        await asyncio.sleep(LEFT_S / 40)
    return held | {"processes/left-behind": f"{left} processes are there after the last session's end"}


async def _standing(sandbox: Sandbox) -> int:
    """How many processes there are once a session has come and gone: what stands behind them all."""
    session = await sandbox.open(SHARD, LIMITS)
    await session.run("1")
    await session.close()
    await asyncio.sleep(LINGER_S)
    return len(_below(os.getpid()))


def _below(pid: int) -> set[int]:
    """The processes that a process began, and those that they did; empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(entry.name))
    found: set[int] = set()
    rest = [pid]
    while rest:
        begun = children.get(rest.pop(), [])
        found.update(begun)
        rest += begun
    return found


def _controls(world: World) -> dict[str, str]:
    """Run each attempt with nothing around it; why some come to nothing, by ``kind/name``.

    Those that only hang do so side by side: nothing is shared among them.
    """
    tried = [one for one in attempts() if os.getuid() == 0 or not one.by_root]
    hanging = [one for one in tried if one.wants == "hang"]
    others = [one for one in tried if one.wants != "hang"]
    told = [world.control(one) for one in others]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        told += pool.map(world.control, hanging)
    both = zip([*others, *hanging], told, strict=True)
    return {f"{one.kind}/{one.name}": why for one, why in both if why is not None}


def main() -> int:
    """``python -m pandas_amr.sandbox.conformance [tier] [--controls]``: what holds here, a line each; status 1 if not all."""
    from pandas_amr.sandbox.local import LocalSandbox  # noqa: PLC0415 (a back end, which the kit itself does not need)

    parser = argparse.ArgumentParser(prog="pandas_amr.sandbox.conformance")
    parser.add_argument("tier", nargs="?", default="auto", choices=get_args(Isolation))
    parser.add_argument("--controls", action="store_true", help="also show that each attempt works unconfined")
    asked = parser.parse_args()
    idle: dict[str, str] = {}

    async def tried() -> tuple[dict[str, str], str]:
        sandbox = LocalSandbox(asked.tier)
        try:
            return await report(sandbox, world), sandbox.tier
        finally:
            await sandbox.close()

    with World() as world:
        if asked.controls:
            idle = _controls(world)
        wrong, tier = asyncio.run(tried())
    for name, why in sorted(wrong.items()):
        print(f"OPEN {name}: {why}")  # noqa: T201 (a command's output)
    for name, why in sorted(idle.items()):
        print(f"NO CONTROL {name}: {why}")  # noqa: T201
    print(f"{tier}, uid {os.getuid()}: {len(attempts())} attempts, {len(wrong)} open, {len(idle)} without control")  # noqa: T201
    return 1 if wrong or idle else 0


if __name__ == "__main__":
    raise SystemExit(main())
