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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from pandas_amr.sandbox.base import MIB, Data, Isolation, Limits
from pandas_amr.sandbox.conformance.attempts import PRELUDE, WON, Attempt, attempts, every_attempt
from pandas_amr.sandbox.conformance.memory import Levels, Watch
from pandas_amr.sandbox.guest.worker import find_large

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
OWN_LIMITS = replace(
    LIMITS, wall_s=20.0
)  # of the sessions that are asked what is left, and not attacked
MOST_TAKEN = 160 * MIB  # by the host, for one attempt: what may be handed in, as objects
STAIN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
ESCAPED_STAIN = re.compile(r"\\u00(?:0[0-8b]|0c|0e|0f|1[0-9a-f])")  # as JSON writes them
LINGER_S = 0.8
LEFT_S = 2.0  # how long what a session left behind may take to go
CONTROL_S = 30.0
AT_ONCE = 8
HANG_S = 1.5
GRACE_S = 8.0
MOST_S = 60.0
# Two sessions as forks of one process, which nothing keeps apart; the first one is there until the second has ended.
TWO = """\
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
    pq.write_table(
        pa.table({f"c{number}": column for number, column in enumerate(columns.values())}), sink
    )
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
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="amr-world-", ignore_cleanup_errors=True)
            )
        )
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
            [
                sys.executable,
                "-c",
                self._sibling() + "import sys; sys.stdin.read()",
            ],  # it ends with this process
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
            "executable": sys.executable,
            "host": socket.gethostname(),
            **_beside(victim.stdout.readline()),
        }
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _sibling(self) -> str:
        return SIBLING.replace("<<token>>", self._token)

    def code(self, attempt: Attempt, code: str | None = None, **words: str) -> str:
        """A cell of the attempt, filled in with what there is here; ``words`` in place of the world's own.

        ``code`` is another cell than the first one.
        """
        for spare in self._spares:
            spare.write_text("spare", encoding="ascii")
        for made in ("new", "made", "hard", "pipe", "null", "out.csv", "x.db"):
            path = Path(self.words["folder"]) / made
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        helper = "def _read(handle):\n    try: return known(os.pread(handle, 64, 0))\n    except OSError: return False\n"
        code = PRELUDE + helper + (attempt.code if code is None else code)
        for word, value in (self.words | words).items():
            code = code.replace(f"<<{word}>>", value)
        return code

    def control(self, attempt: Attempt) -> str | None:
        """Run the attempt with nothing around it; None where it works, else why it does not."""
        code = self.code(attempt)
        if attempt.later:
            code += f"\ntime.sleep({LINGER_S})\n{attempt.later}"
        if attempt.other:
            other = self.code(attempt, attempt.other)
            code = TWO.replace("<<code>>", repr(code)).replace("<<other>>", repr(other))
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
        return (await self.tried(attempt, sandbox)).wrong

    async def tried(self, attempt: Attempt, sandbox: Sandbox) -> Tried:
        """Try it in a session, beside another one: what went wrong, and what memory it took of the host."""
        limits = replace(OWN_LIMITS, cpu_s=attempt.cpu_s) if attempt.cpu_s else LIMITS
        beside = await sandbox.open(SHARD, OWN_LIMITS)
        session = await sandbox.open(SHARD, limits)
        try:
            async with asyncio.timeout(MOST_S):
                with Watch(on=attempt.alone) as watch:
                    wrong = await self._attacked(attempt, sandbox, session, beside)
        except TimeoutError:
            return Tried(f"the host waited for more than {MOST_S:g} s", None)
        finally:
            await session.close()
            await beside.close()
        taken = watch.levels
        if wrong is None and taken is not None and taken.host_taken > MOST_TAKEN:
            wrong = f"the host took {taken.host_taken >> 20} MB"
        return Tried(wrong, taken)

    async def _attacked(
        self, attempt: Attempt, sandbox: Sandbox, session: Session, beside: Session
    ) -> str | None:
        sibling = _beside((await beside.run(self._sibling())).text)
        if not sibling:
            return "the session beside it did not say what it was asked"
        most = (OWN_LIMITS if attempt.cpu_s else LIMITS).wall_s + GRACE_S
        try:
            for _ in range(attempt.times):
                async with asyncio.timeout(most):
                    cell = await session.run(self.code(attempt, **sibling), _reader)
        except TimeoutError:
            return f"the host waited for more than {most:g} s"
        if attempt.later:
            await asyncio.sleep(LINGER_S)
            if (
                WON
                in (
                    last := await session.run(
                        attempt.later if attempt.times == 1 else self._alone(attempt)
                    )
                ).text
            ):
                return f"it won: {last.text[-300:]}"
        after = await session.run("1 + 1")
        if not after.ok:  # it may be another one now, or the machine stood still for a moment
            after = await session.run("1 + 1")
        other = await beside.run("kept + len(token.value.decode()) + int(df['n'].sum())")
        fresh = await sandbox.open(SHARD, OWN_LIMITS)
        try:
            shard = await fresh.run("print(*df['text'], *df['n'])")
            if attempt.other and WON in (seen := await fresh.run(self._seen(attempt, cell))).text:
                return f"another session saw it: {seen.text[-300:]}"
        finally:
            await fresh.close()
        own = (
            attempt.wants == "crash" and not cell.lost
        )  # what code does to a runner that goes on is its own loss
        spent = attempt.cpu_s > 0  # of which nothing is left
        return self._wrong(attempt, cell) or _suffered(
            None if own or spent else after, other, shard
        )

    def _alone(self, attempt: Attempt) -> str:
        """The later cell where the session that heard the first one has ended."""
        return self.code(attempt, attempt.later)

    def _seen(self, attempt: Attempt, cell: Cell) -> str:
        return self.code(attempt, attempt.other, said=cell.text.strip())

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
        return None if cell.submitted is None else _wrong_findings(attempt, cell.submitted.payload)


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of an attempt: what went wrong, where something did, and the memory that it took."""

    wrong: str | None
    levels: Levels | None


def _wrong_findings(attempt: Attempt, payload: Any) -> str | None:
    """What is wrong with what was handed in."""
    if attempt.wants == "crash":
        return "what a session handed in that ended itself was taken"
    handed_in = json.dumps(payload, ensure_ascii=False)
    if len(handed_in) > LIMITS.result_mb * MIB:
        return "the host took more than may be handed in"
    if STAIN.search(handed_in) or ESCAPED_STAIN.search(handed_in):
        return "the host took findings that a terminal would obey"
    findings = payload.get("findings")
    for finding in findings if isinstance(findings, list) else ():
        if isinstance(finding, dict) and find_large(finding) is not None:
            return "the host took more for one cell of the frame than it may hold"
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
            return (
                None
                if WON.encode() in done.stdout
                else done.stderr.decode(errors="replace")[-400:] or "it lost"
            )
        case "crash":
            worked = (
                done.returncode == -attempt.dies_of if attempt.dies_of else done.returncode != 0
            )
            return None if worked else f"it ended with {done.returncode}"
        case "forge":
            return None if said else "nothing was said"
        case "flood":
            return None if len(heard) >= attempt.least else f"it said {len(heard)} bytes"
        case "stain":
            return (
                None
                if STAIN.search(heard.decode("utf-8", "surrogatepass"))
                else "it said nothing that stains"
            )
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
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n1,2\n"
                )

    threading.Thread(target=answer, daemon=True).start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, slots=True)
class Report:
    """What came of all attempts.

    Attributes:
        wrong: what went wrong, by ``kind/name``.
        levels: the memory before, during and after each flood, by ``kind/name``; empty where it cannot be told.
    """

    wrong: dict[str, str]
    levels: dict[str, Levels]


async def report(sandbox: Sandbox, world: World, *, at_once: int = AT_ONCE) -> dict[str, str]:
    """Try everything; what came of the attempts that came to something, by ``kind/name``."""
    return (await full_report(sandbox, world, at_once=at_once)).wrong


async def full_report(
    sandbox: Sandbox, world: World, *, at_once: int = AT_ONCE, chosen: list[Attempt] | None = None
) -> Report:
    """Try everything, or what was chosen. What is after memory is tried alone, so that what it took is told."""
    wrong: dict[str, str] = {}
    levels: dict[str, Levels] = {}
    gate = asyncio.Semaphore(at_once)

    async def one(attempt: Attempt) -> None:
        name = f"{attempt.kind}/{attempt.name}"
        async with gate:
            tried = await world.tried(attempt, sandbox)
        if tried.wrong is not None:
            wrong[name] = tried.wrong
        if tried.levels is not None and (attempt.measured or attempt.wants == "flood"):
            levels[name] = tried.levels

    before = await _standing(sandbox)
    listed = attempts() if chosen is None else chosen
    promised = [
        attempt for attempt in listed if not (attempt.strong and sandbox.tier == "strict-lite")
    ]
    await asyncio.gather(*(one(attempt) for attempt in promised if not attempt.alone))
    for attempt in promised:
        if attempt.alone:
            await one(attempt)
    for _ in range(40):
        if (left := len(_below(os.getpid())) - before) <= 0:
            return Report(wrong, levels)
        await asyncio.sleep(LEFT_S / 40)
    wrong["processes/left-behind"] = f"{left} processes are there after the last session's end"
    return Report(wrong, levels)


def sample(listed: list[Attempt], per_kind: int) -> list[Attempt]:
    """Choose at most so many attempts per kind, at equal distances in the list, so that each part of it is tried."""
    chosen: list[Attempt] = []
    for kind in dict.fromkeys(attempt.kind for attempt in listed):
        of_kind = [attempt for attempt in listed if attempt.kind == kind]
        count = min(per_kind, len(of_kind))
        chosen += [of_kind[number * len(of_kind) // count] for number in range(count)]
    return chosen


def inapplicable(tier: str) -> dict[str, str]:
    """Attempts that show nothing here, by ``kind/name``, and why."""
    why: dict[str, str] = {}
    made = {(attempt.kind, attempt.name) for attempt in attempts()}
    for attempt in every_attempt():
        name = f"{attempt.kind}/{attempt.name}"
        if (attempt.kind, attempt.name) not in made:
            why[name] = "it knows the system calls of another processor"
        elif attempt.by_root and os.getuid() != 0:
            why[name] = "only root could do it at all"
        elif attempt.strong and tier == "strict-lite":
            why[name] = "this tier does not hide it, and does not say so"
    return why


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
            parent = (
                (entry / "stat")
                .read_text(encoding="utf-8", errors="replace")
                .rpartition(")")[2]
                .split()[1]
            )
            children.setdefault(int(parent), []).append(int(entry.name))
    found: set[int] = set()
    rest = [pid]
    while rest:
        begun = children.get(rest.pop(), [])
        found.update(begun)
        rest += begun
    return found


def _controls(world: World, chosen: list[Attempt]) -> dict[str, str]:
    """Run each attempt with nothing around it; why some come to nothing, by ``kind/name``.

    Those that only hang do so side by side: nothing is shared among them.
    """
    tried = [one for one in chosen if os.getuid() == 0 or not one.by_root]
    hanging = [one for one in tried if one.wants == "hang"]
    others = [one for one in tried if one.wants != "hang"]
    told = [world.control(one) for one in others]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        told += pool.map(world.control, hanging)
    both = zip([*others, *hanging], told, strict=True)
    return {f"{one.kind}/{one.name}": why for one, why in both if why is not None}


def main() -> int:
    """Say what holds here, a line each; status 1 if not all.

    ``python -m pandas_amr.sandbox.conformance [tier] [--controls] [--per-kind N]``
    """
    from pandas_amr.sandbox.host.local import LocalSandbox  # noqa: PLC0415 (a back end, which the kit itself does not need)

    parser = argparse.ArgumentParser(prog="pandas_amr.sandbox.conformance")
    parser.add_argument("tier", nargs="?", default="auto", choices=get_args(Isolation))
    parser.add_argument(
        "--controls", action="store_true", help="also show that each attempt works unconfined"
    )
    parser.add_argument(
        "--per-kind",
        type=_positive,
        metavar="N",
        help="try a sample: at most N attempts of each kind",
    )
    asked = parser.parse_args()
    listed = every_attempt() if asked.per_kind is None else sample(attempts(), asked.per_kind)
    makeable = {(attempt.kind, attempt.name) for attempt in attempts()}
    chosen = [attempt for attempt in listed if (attempt.kind, attempt.name) in makeable]

    async def tried() -> tuple[Report, str]:
        sandbox = LocalSandbox(asked.tier)
        try:
            return await full_report(sandbox, world, chosen=chosen), sandbox.tier
        finally:
            await sandbox.close()

    with World() as world:
        idle = _controls(world, chosen) if asked.controls else None
        came, tier = asyncio.run(tried())
    print("\n".join(_lines(tier, came, idle, listed)))  # noqa: T201 (a command's output)
    return 1 if came.wrong or idle else 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _lines(
    tier: str, came: Report, idle: dict[str, str] | None, listed: list[Attempt] | None = None
) -> list[str]:
    """What the command says; ``idle`` are the attempts without a control, or None where no controls were run.

    ``listed`` are the attempts it is about: all of them unless a sample was chosen.
    """
    lines = [f"OPEN {name}: {why}" for name, why in sorted(came.wrong.items())]
    lines += [f"NO CONTROL {name}: {why}" for name, why in sorted((idle or {}).items())]
    lines += _table(came.levels)
    every = every_attempt()
    listed = every if listed is None else listed
    names = {f"{attempt.kind}/{attempt.name}" for attempt in listed}
    aside = {name: why for name, why in inapplicable(tier).items() if name in names}
    lines += [f"NOT APPLICABLE {name}: {why}" for name, why in sorted(aside.items())]
    controls = "controls not run" if idle is None else f"{len(idle)} without control"
    sampled = "" if len(listed) == len(every) else f", a sample of {len(every)}"
    lines.append(
        f"{tier}, uid {os.getuid()}: {len(listed) - len(aside)} attempts{sampled}, {len(came.wrong)} open, {controls}, "
        f"{len(aside)} not applicable"
    )
    return lines


def _table(levels: dict[str, Levels]) -> list[str]:
    """Memory of the host's process and of the kernel (slab), before, during and after each flood."""
    if not levels:
        return []
    lines = [f"{'MB of memory, before/during/after':45} {'host process':>20} {'kernel slab':>20}"]
    for name, level in sorted(levels.items()):
        host, slab = (
            "/".join(f"{size >> 20}" for size in sizes) for sizes in (level.host, level.slab)
        )
        lines.append(f"{name:45} {host:>20} {slab:>20}")
    return lines
