"""The embedded sandbox, from the host's side: a warm process that forks a confined session for each agent."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import json
import math
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandas_amr.errors import SandboxError, SandboxUnavailable, UsageError
from pandas_amr.sandbox.base import MIB, Data, Isolation, Limits, found
from pandas_amr.sandbox.guest import rights
from pandas_amr.sandbox.host.cgroups import SessionGroups
from pandas_amr.sandbox.host.channel import ChannelSession

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ORDER: tuple[str, ...] = ("strong", "strict-lite")
START_S = 60.0
BEGIN_S = 20.0
MOST_BEGINNING = 16  # at once
LOADED_MB = 256  # Python with pandas loaded, of which a session may come to have its own copy
AGAIN_S = 0.005  # until it is tried again to hand the process a message
END_S = 2.0
MOST_IDLE = 2  # warm processes without a session
ALWAYS = ("numpy", "pandas", "pyarrow", "pyarrow.parquet")
ENVIRONMENT = {
    "HOME": rights.SCRATCH,
    "TMPDIR": rights.SCRATCH,
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    # One thread only, or what is forked would not be whole; little address space for a thread that code begins.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "ARROW_IO_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    # One heap in large pages: there is half as much to copy when a session is forked.
    "PYTHONMALLOC": "malloc",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
NEEDED = ("LD_LIBRARY_PATH",)  # a Python that was begun with it does not begin without
# The package without its __init__, which would load what the sandbox has no use for.
BOOT = (
    "import signal, sys, types; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "signal.signal(signal.SIGCHLD, signal.SIG_DFL); signal.pthread_sigmask(signal.SIG_SETMASK, []); "
    "p = types.ModuleType('pandas_amr'); p.__path__ = [sys.argv.pop()]; "
    "sys.modules['pandas_amr'] = p; from pandas_amr.sandbox.guest.zygote import main; main()"
)
ELSEWHERE = (
    "What works here is a container: PythonREPLTool(sandbox=amr.ContainerSandbox.docker(...))."
)
CHOICES = (
    'Choices: a container (amr.ContainerSandbox.docker(...)); or isolation="process" where the code is trusted: '
    "it can read and write whatever you can."
)

_open: weakref.WeakSet[Zygote] = weakref.WeakSet()
_made: weakref.WeakSet[LocalSandbox] = weakref.WeakSet()


class LocalSandbox:
    """The embedded sandbox of this machine.

    Args:
        isolation: the tier; ``"auto"`` takes the strongest that can be had, and never less than ``strict-lite``.
        packages: further importable packages of this environment.
        files: further files, read-only, by the names they get.
        zygotes: how many warm processes fork sessions.

    Raises:
        UsageError: a package or a file does not exist.
        SandboxUnavailable: this is not Linux.
    """

    def __init__(
        self,
        isolation: Isolation = "auto",
        *,
        packages: Sequence[str] = (),
        files: Mapping[str, str | Path] | None = None,
        zygotes: int = 1,
    ) -> None:
        if sys.platform != "linux":
            raise SandboxUnavailable(
                f"The embedded sandbox needs Linux, and this is {sys.platform}. {ELSEWHERE}"
            )
        self.isolation = isolation
        self.tier: str = isolation
        self._packages = tuple(packages)
        self._files = {name: str(path) for name, path in (files or {}).items()}
        self._wanted = zygotes
        self._zygotes: list[Zygote] = []
        self._sessions: weakref.WeakSet[ChannelSession] = weakref.WeakSet()
        _made.add(self)
        self._turn = 0
        self._starting: asyncio.Lock | None = None
        self._folders, self._paths = _places(self._packages)
        self._order = [str(Path(path).absolute()) for path in sys.path]

    def __repr__(self) -> str:
        return f"<LocalSandbox {self.tier}>"

    async def open(self, data: Data, limits: Limits) -> ChannelSession:
        """Begin a session; see ``Sandbox.open``."""
        await self._zygote()  # what cannot be had is told before a session is asked for
        shared = {"shared": True} if data.parquet else {}
        names = {name: self._inside(name, path) for name, path in self._files.items()}
        session = ChannelSession(
            partial(self._begun, data, limits), data, limits, files=names, **shared
        )
        self._sessions.add(session)
        return session

    async def close(self) -> None:
        """End the warm processes, and with them every session."""
        for session in list(self._sessions):
            await session.close()
        zygotes, self._zygotes = self._zygotes, []
        for zygote in zygotes:
            await zygote.close()

    def forget(self) -> None:
        """In a fork of the host: what is open is the parent's."""
        self._zygotes, self._sessions, self._starting = [], weakref.WeakSet(), None

    async def _begun(self, data: Data, limits: Limits, cpu_s: float) -> LocalTransport:
        zygote = await self._zygote()
        try:
            return await zygote.begin(data, limits, cpu_s)
        except SandboxError:
            if zygote.alive:
                raise
        return await (await self._zygote()).begin(
            data, limits, cpu_s
        )  # it died meanwhile, and another one is there

    async def _zygote(self) -> Zygote:
        """The next warm process; begun where there are too few."""
        if self._starting is None:
            self._starting = asyncio.Lock()
        async with self._starting:
            self._zygotes = [zygote for zygote in self._zygotes if zygote.alive]
            while len(self._zygotes) < self._wanted:
                await _end_idle()
                self._zygotes.append(await self._begin_zygote())
        self._turn += 1
        return self._zygotes[self._turn % len(self._zygotes)]

    async def _begin_zygote(self) -> Zygote:
        refused: list[str] = []
        for tier in ORDER if self.isolation == "auto" else (self.isolation,):
            asked = {
                "tier": tier,
                "folders": self._folders,
                "paths": self._paths,
                "order": self._order,
                "modules": [*ALWAYS, *self._packages],
                "files": self._files,
            }
            zygote = Zygote(asked)
            reason = await zygote.start()
            if reason is None:
                self.tier = found[self.isolation] = tier
                return zygote
            refused.append(f"{tier}: {reason}")
        raise SandboxUnavailable(f"No sandbox can be had here ({'; '.join(refused)}). {CHOICES}")

    def _inside(self, name: str, path: str) -> str:
        return f"{rights.FILES}/{name}" if self.tier == "strong" else path


async def _end_idle() -> None:
    """End the warm processes that have stood idle longest: few do, however many kinds of sandbox were asked for."""
    loop = asyncio.get_running_loop()
    idle = sorted((one for one in _open if one.idle and one.loop is loop), key=lambda one: one.used)
    for zygote in idle[: max(0, len(idle) - MOST_IDLE + 1)]:
        if zygote.idle:  # a session may have begun while another one was closed
            await zygote.close()


def _places(packages: Sequence[str]) -> tuple[list[str], list[str]]:
    """Folders that must be seen, and what to add to ``sys.path``, for packages outside Python's own prefix."""
    folders, paths = [], []
    for name in dict.fromkeys((*(one.partition(".")[0] for one in ALWAYS), *packages)):
        spec = importlib.util.find_spec(name.partition(".")[0])
        if spec is None:
            raise UsageError(
                f"PythonREPLTool(packages=...): there is no package {name!r} in this environment."
            )
        if spec.origin in {"built-in", "frozen"}:
            continue
        where = Path(
            next(iter(spec.submodule_search_locations or ()), spec.origin or "")
        ).absolute()
        parent = where.parent
        if parent.name in {"site-packages", "dist-packages"}:
            folders.append(str(parent))  # with what the package itself imports
        elif beside := _installed(parent):
            folders += beside
        elif not any(where.is_relative_to(prefix) for prefix in (sys.prefix, sys.base_prefix)):
            folders.append(
                str(where)
            )  # a package's folder, or a module's one file: what lies beside it is not shown
        paths.append(str(parent))
    return list(dict.fromkeys(folders)), list(dict.fromkeys(paths))


def _installed(folder: Path) -> list[str]:
    """What was installed into a folder of the user's, by its own record; not what else lies there."""
    distributions = importlib.metadata.distributions(path=[str(folder)])
    names = {file.parts[0] for one in distributions for file in one.files or ()} - {".."}
    return [str(folder / name) for name in sorted(names) if (folder / name).exists()]


@dataclass(frozen=True, slots=True)
class End:
    """How a session ended: its exit status, negative for a signal, and the processor seconds that it took."""

    status: int
    cpu_s: float


class Zygote:
    """A warm process: begun once, asked for sessions, told how they end."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self._asked = asked
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._scratch: str | None = None
        self.loop = asyncio.get_running_loop()
        self.used = self.loop.time()
        self._begun: dict[str, asyncio.Future[int]] = {}
        self._ended: dict[str, asyncio.Future[End]] = {}
        self._beginning = asyncio.Semaphore(MOST_BEGINNING)
        self._groups: SessionGroups | None = None
        self._group_of: dict[str, Path] = {}

    @property
    def alive(self) -> bool:
        """Whether it can be asked for sessions."""
        return self._control is not None

    @property
    def idle(self) -> bool:
        """Whether no session of it is begun or open."""
        return self.alive and self._ready and not self._begun and not self._ended

    @property
    def pid(self) -> int | None:
        """The process that this one began."""
        return self._process.pid if self._process else None

    async def start(self) -> str | None:
        """Begin it; the reason where its tier cannot be had."""
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mine.settimeout(0)
        if (
            self._asked["tier"] == "process"
        ):  # where nothing is confined, sessions have folders of their own all the same
            self._scratch = tempfile.mkdtemp(prefix="pandas-amr-")
        try:
            mine.send(json.dumps(self._asked | {"scratch": self._scratch}).encode())
            begun = asyncio.ensure_future(
                asyncio.to_thread(
                    subprocess.Popen,
                    [
                        sys.executable,
                        "-s",
                        "-P",
                        "-c",
                        BOOT,
                        str(its.fileno()),
                        str(Path(__file__).parents[2]),
                    ],
                    env=ENVIRONMENT
                    | {name: os.environ[name] for name in NEEDED if name in os.environ},
                    pass_fds=(its.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    start_new_session=True,  # Ctrl-C in the terminal is the host's to handle
                )
            )
            try:
                self._process = await asyncio.shield(begun)
            except asyncio.CancelledError:
                self._process = await begun
                mine.close()
                await self.close()
                raise
        finally:
            its.close()
        self._control = mine
        _open.add(self)
        try:
            async with asyncio.timeout(START_S):
                said = json.loads(
                    await self.loop.sock_recv(mine, rights.NEWS)
                    or b'{"failed": "it died at its start"}'
                )
        except TimeoutError:
            said = {"failed": f"it was not ready within {START_S:g} s"}
        except BaseException:
            await self.close()
            raise
        if "ready" not in said:
            await self.close()
            return str(said.get("failed"))
        self._groups = SessionGroups.find()
        self.loop.add_reader(mine.fileno(), self._news)
        self._ready = True
        return None

    async def begin(self, data: Data, limits: Limits, cpu_s: float) -> LocalTransport:
        """Fork a session that holds ``data`` and may take ``cpu_s`` seconds of the processor.

        Raises:
            SandboxError: it could not be forked.
        """
        async with self._beginning:  # each takes descriptors of this process until it has begun
            return await self._begin(data, limits, cpu_s)

    async def _begin(self, data: Data, limits: Limits, cpu_s: float) -> LocalTransport:
        if self._control is None:
            raise SandboxError("The sandbox's process has died.")
        name = secrets.token_hex(8)
        self.used = self.loop.time()
        begun = self._begun[name] = self.loop.create_future()
        ended = self._ended[name] = self.loop.create_future()
        words = {
            "session": name,
            "limits": {
                "memory": limits.memory_mb * MIB,
                "cpu_s": max(1, math.ceil(cpu_s)),
                "scratch": limits.scratch_mb * MIB,
                "inodes": limits.scratch_files,
                "threads": limits.threads,
            },
        }
        with contextlib.ExitStack() as stack, contextlib.ExitStack() as kept:
            stack.callback(self._begun.pop, name, None)
            kept.callback(self._ended.pop, name, None)
            try:
                mine, its = socket.socketpair()
                kept.callback(mine.close)
                stack.callback(its.close)
                mine.settimeout(0)
                handles = [its.fileno()]
                if data.parquet:
                    handles.append(_sealed(data.parquet))
                    stack.callback(os.close, handles[1])
                async with asyncio.timeout(BEGIN_S):
                    await self._tell(words, *handles)
                    process = await begun
                self._limit_group(name, process, limits)
            except (TimeoutError, OSError) as error:
                reason = os.strerror(error.errno) if error.errno else type(error).__name__
                raise SandboxError(f"A session could not be begun: {reason}.") from None
            kept.pop_all()
        return LocalTransport(self, mine, process, ended)

    def _limit_group(self, name: str, process: int, limits: Limits) -> None:
        """Count what the kernel holds for a session, too, where that can be had; it has run nothing of code's yet."""
        if self._groups is None:
            return
        memory = (limits.memory_mb + limits.scratch_mb + LOADED_MB) * MIB
        try:
            self._group_of[name] = self._groups.enter(
                process, memory=memory, tasks=limits.threads + 1
            )
        except ProcessLookupError:
            return  # it has ended already, which its first cell tells
        except OSError:  # groups can be made, and this process may not be moved: nor may the others
            self._groups = None

    async def _tell(self, words: dict[str, Any], *handles: int) -> None:
        """Send a message to the process as soon as it takes one: it forks one session after the other."""
        while True:
            if self._control is None:
                raise SandboxError("The sandbox's process has died.")
            try:
                rights.send(self._control, words, *handles)
            except BlockingIOError:
                await asyncio.sleep(AGAIN_S)
            else:
                return

    def _news(self) -> None:
        """What the process tells: a session has begun, or ended; or nothing more, ever."""
        assert self._control is not None
        try:
            words, held = rights.receive(self._control)
        except BlockingIOError:
            return
        except OSError:
            words, held = b"", []
        if not words:
            self._died()
            return
        news = json.loads(words)
        if "begun" in news:
            self._has_begun(self._begun.get(news["begun"]), held)
        elif "failed" in news:
            waiting = self._begun.get(news["failed"])
            if waiting is not None and not waiting.done():
                waiting.set_exception(SandboxError(f"A session could not be begun: {news['why']}."))
        elif "ended" in news:
            ended = self._ended.pop(news["ended"], None)
            self._leave_group(news["ended"])
            if ended is not None and not ended.done():
                ended.set_result(End(int(news["status"]), float(news["cpu_s"])))

    def _leave_group(self, name: str) -> None:
        group = self._group_of.pop(name, None)
        if group is not None and self._groups is not None:
            self._groups.remove(group)

    def _has_begun(self, waiting: asyncio.Future[int] | None, held: list[int]) -> None:
        for process in held:
            if waiting is not None and not waiting.done():
                waiting.set_result(process)
            else:
                _signal(process, signal.SIGKILL)
                os.close(process)
        if not held and waiting is not None and not waiting.done():
            waiting.set_exception(
                SandboxError("A session could not be begun: this process has too many open files.")
            )

    def _died(self) -> None:
        self._drop()
        futures: list[asyncio.Future[Any]] = [*self._begun.values(), *self._ended.values()]
        for waiting in futures:
            if not waiting.done():
                waiting.set_exception(SandboxError("The sandbox's process has died."))
                waiting.exception()  # nobody need be waiting
        if self._process is not None:
            self.loop.run_in_executor(None, self._swept, self._process)

    def _swept(self, process: subprocess.Popen[bytes], most_s: float | None = None) -> None:
        """Wait for its end, and remove its sessions' folders, unless it has done so itself."""
        process.wait(most_s)
        for name in list(self._group_of):
            self._leave_group(name)
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _drop(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            self.loop.remove_reader(control.fileno())
            control.close()

    async def close(self) -> None:
        """End it; its sessions end with it."""
        self._drop()
        if self._process is not None:
            try:
                await asyncio.to_thread(self._swept, self._process, END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                await asyncio.to_thread(self._swept, self._process)

    def forget(self) -> None:
        """In a fork of the host: the process is the parent's."""
        if self._control is not None:
            self._control.close()
            self._control = None


class LocalTransport:
    """A forked session: its end of the socket, and the process by its pidfd."""

    def __init__(
        self, zygote: Zygote, wire: socket.socket, process: int, ended: asyncio.Future[End]
    ) -> None:
        self._zygote = zygote
        self._wire = wire
        self._process = process
        self._ended = ended
        self._loop = asyncio.get_running_loop()

    async def send(self, *parts: bytes) -> None:
        """Hand over all of the bytes."""
        for part in parts:
            await self._loop.sock_sendall(self._wire, part)

    async def receive(self, size: int) -> bytes:
        """Exactly so many bytes."""
        parts = bytearray()
        while len(parts) < size:
            part = await self._loop.sock_recv(self._wire, min(size - len(parts), MIB))
            if not part:
                raise EOFError
            parts += part
        return bytes(parts)

    def interrupt(self) -> None:
        """SIGINT, which leaves the variables."""
        _signal(self._process, signal.SIGINT)

    def pause(self) -> None:
        """SIGSTOP: threads that a cell left behind do not go on."""
        _signal(self._process, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        _signal(self._process, signal.SIGCONT)

    async def used(self) -> float | None:
        """Processor seconds that it took, as the kernel tells them at its end."""
        await asyncio.wait({self._ended}, timeout=END_S)
        if not self._ended.done() or self._ended.exception() is not None:
            return None
        return self._ended.result().cpu_s

    async def kill(self, *, hung_up: bool) -> int | None:
        """End it. Where it has ended by itself, its status says how."""
        self._wire.close()
        try:
            if hung_up:
                await asyncio.wait({self._ended}, timeout=END_S)
                return self._ended.result().status if self._ended.done() else None
        finally:
            _signal(self._process, signal.SIGKILL)
            os.close(self._process)
        return None


def _signal(process: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, number)


def _sealed(content: bytes) -> int:
    """The bytes in memory that nobody can change any more."""
    import fcntl  # noqa: PLC0415 (Windows has none, and all but the sandbox works there)

    handle = os.memfd_create("shard", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(handle, rest) :]
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, seals)
    return handle


def _after_fork() -> None:
    for zygote in list(_open):
        zygote.forget()
    for sandbox in list(_made):
        sandbox.forget()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
