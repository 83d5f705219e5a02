"""The host's side of a zygote: a process that has loaded pandas and forks sessions."""

from __future__ import annotations

import asyncio
import contextlib
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandas_amr.errors import SandboxError
from pandas_amr.sandbox.base import LOADED_MB, MIB
from pandas_amr.sandbox.guest import rights
from pandas_amr.sandbox.host.cgroups import SessionGroups

if TYPE_CHECKING:
    from pandas_amr.sandbox.base import Data, Limits

START_S = 60.0
BEGIN_S = 20.0
MAX_BEGINNING = 16  # sessions that start at the same time
RETRY_S = 0.005  # until a full socket is tried again
END_S = 2.0
DIED = "The sandbox's process has died."
ENVIRONMENT = {
    "HOME": rights.SCRATCH,
    "TMPDIR": rights.SCRATCH,
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    # One thread only, since a fork copies no other; and little address space per thread of code.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "ARROW_IO_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    # One heap in large pages: a fork copies half as much.
    "PYTHONMALLOC": "malloc",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
KEPT_VARIABLES = ("LD_LIBRARY_PATH",)  # a Python that was started with it may need it
# Imports the package without its __init__, which would load what the sandbox does not need.
BOOT = (
    "import signal, sys, types; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "signal.signal(signal.SIGCHLD, signal.SIG_DFL); "
    "signal.pthread_sigmask(signal.SIG_SETMASK, []); "
    "p = types.ModuleType('pandas_amr'); p.__path__ = [sys.argv.pop()]; "
    "sys.modules['pandas_amr'] = p; from pandas_amr.sandbox.guest.zygote import main; main()"
)

open_zygotes: weakref.WeakSet[ZygoteProcess] = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """How a session ended.

    Attributes:
        status: its exit status, negative for a signal.
        cpu_s: the processor seconds that it used.
    """

    status: int
    cpu_s: float


class ZygoteProcess:
    """Starts a zygote, requests sessions from it, and records how they end."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._scratch: str | None = None
        self.loop = asyncio.get_running_loop()
        self.last_used = self.loop.time()
        # By the session's name: its pidfd, and how it ended.
        self._begin_futures: dict[str, asyncio.Future[int]] = {}
        self._end_futures: dict[str, asyncio.Future[SessionEnd]] = {}
        self._begin_semaphore = asyncio.Semaphore(MAX_BEGINNING)
        self._groups: SessionGroups | None = None
        self._group_of: dict[str, Path] = {}

    @property
    def alive(self) -> bool:
        """Whether it takes requests."""
        return self._control is not None

    @property
    def idle(self) -> bool:
        """Whether it has no session, and none is starting."""
        return self.alive and self._ready and not self._begin_futures and not self._end_futures

    @property
    def pid(self) -> int | None:
        """The number of the process."""
        return self._process.pid if self._process else None

    async def start(self) -> str | None:
        """Start the process; return the reason if its tier cannot be had."""
        own_end, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        own_end.settimeout(0)
        if self._options["tier"] == "process":
            # Nothing is confined in this tier, but each session has its own folder.
            self._scratch = tempfile.mkdtemp(prefix="pandas-amr-")
        try:
            own_end.send(json.dumps(self._options | {"scratch": self._scratch}).encode())
            await self._launch(own_end, its_end)
        finally:
            its_end.close()
        self._control = own_end
        open_zygotes.add(self)
        problem = await self._wait_until_ready(own_end)
        if problem is not None:
            await self.close()
            return problem
        self._groups = SessionGroups.find()
        self.loop.add_reader(own_end.fileno(), self._read_report)
        self._ready = True
        return None

    async def _launch(self, own_end: socket.socket, its_end: socket.socket) -> None:
        """Start Python in a thread. If the caller is cancelled, end the process."""
        package = str(Path(__file__).parents[2])
        command = [sys.executable, "-s", "-P", "-c", BOOT, str(its_end.fileno()), package]
        start = asyncio.to_thread(
            subprocess.Popen,
            command,
            env=_environment(),
            pass_fds=(its_end.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # Ctrl-C in the terminal is the host's to handle
        )
        launch = asyncio.ensure_future(start)
        try:
            self._process = await asyncio.shield(launch)
        except asyncio.CancelledError:
            self._process = await launch
            own_end.close()
            await self.close()
            raise

    async def _wait_until_ready(self, own_end: socket.socket) -> str | None:
        """Wait until the process has confined itself; return the reason if it cannot."""
        try:
            async with asyncio.timeout(START_S):
                text = await self.loop.sock_recv(own_end, rights.MESSAGE_BYTES)
            if not text:
                return "it died at its start"
            report = json.loads(text)
        except TimeoutError:
            return f"it was not ready within {START_S:g} s"
        except BaseException:
            await self.close()
            raise
        return None if "ready" in report else str(report.get("failed"))

    async def begin(self, data: Data, limits: Limits, cpu_s: float) -> LocalTransport:
        """Fork a session.

        Args:
            data: the frame that it holds.
            limits: what it may use.
            cpu_s: the processor seconds that it may use.

        Raises:
            SandboxError: it could not be forked.
        """
        async with self._begin_semaphore:  # each one holds descriptors of the host until it runs
            return await self._begin(data, limits, cpu_s)

    async def _begin(self, data: Data, limits: Limits, cpu_s: float) -> LocalTransport:
        if self._control is None:
            raise SandboxError(DIED)
        self.last_used = self.loop.time()
        name = secrets.token_hex(8)
        request = {"session": name, "limits": _limits_message(limits, cpu_s)}
        end = self._end_futures[name] = self.loop.create_future()
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self._end_futures.pop, name, None)
            try:
                own_end, its_end = socket.socketpair()
                on_failure.callback(own_end.close)
                own_end.settimeout(0)
                with its_end:
                    pidfd = await self._fork(request, its_end, data.parquet)
                self._limit_group(name, pidfd, limits)
            except (TimeoutError, OSError) as error:
                reason = os.strerror(error.errno) if error.errno else type(error).__name__
                raise SandboxError(f"A session could not be started: {reason}.") from None
            on_failure.pop_all()
        return LocalTransport(self, own_end, pidfd, end)

    async def _fork(self, request: dict[str, Any], stream: socket.socket, parquet: bytes) -> int:
        """Have the process fork a session with a stream and a frame; return its pidfd."""
        name = request["session"]
        begin: asyncio.Future[int] = self.loop.create_future()
        self._begin_futures[name] = begin
        handles = [stream.fileno()]
        try:
            if parquet:
                handles.append(_write_sealed(parquet))
            async with asyncio.timeout(BEGIN_S):
                await self._send(request, *handles)
                return await begin
        finally:
            for shard in handles[1:]:
                os.close(shard)
            self._begin_futures.pop(name, None)

    def _limit_group(self, name: str, pidfd: int, limits: Limits) -> None:
        """Put the session into a control group if possible, before it runs any code.

        The group also counts what the kernel holds for the session.
        """
        if self._groups is None:
            return
        memory = (limits.memory_mb + limits.scratch_mb + LOADED_MB) * MIB
        try:
            self._group_of[name] = self._groups.enter(
                pidfd, memory=memory, tasks=limits.threads + 1
            )
        except ProcessLookupError:
            return  # it has ended already, which its first cell reports
        except OSError:  # groups can be made, but processes cannot be moved into them
            self._groups = None

    async def _send(self, message: dict[str, Any], *handles: int) -> None:
        """Send a message when the socket takes it: the process forks one session at a time."""
        while True:
            if self._control is None:
                raise SandboxError(DIED)
            try:
                rights.send(self._control, message, *handles)
            except BlockingIOError:
                await asyncio.sleep(RETRY_S)
            else:
                return

    def _read_report(self) -> None:
        """Read a report of the process: a session has started, failed to start, or ended."""
        assert self._control is not None
        try:
            text, handles = rights.receive(self._control)
        except BlockingIOError:
            return
        except OSError:
            text, handles = b"", []
        if not text:
            self._handle_death()
            return
        report = json.loads(text)
        if "begun" in report:
            self._handle_begin(self._begin_futures.get(report["begun"]), handles)
        elif "failed" in report:
            problem = f"A session could not be started: {report['why']}."
            _fail(self._begin_futures.get(report["failed"]), SandboxError(problem))
        elif "ended" in report:
            self._handle_end(report)

    def _handle_begin(self, begin: asyncio.Future[int] | None, handles: list[int]) -> None:
        for pidfd in handles:
            if begin is not None and not begin.done():
                begin.set_result(pidfd)
            else:  # nobody waits for it any more
                _signal(pidfd, signal.SIGKILL)
                os.close(pidfd)
        if not handles:
            problem = "A session could not be started: this process has too many open files."
            _fail(begin, SandboxError(problem))

    def _handle_end(self, report: dict[str, Any]) -> None:
        end = self._end_futures.pop(report["ended"], None)
        self._leave_group(report["ended"])
        if end is not None and not end.done():
            end.set_result(SessionEnd(int(report["status"]), float(report["cpu_s"])))

    def _leave_group(self, name: str) -> None:
        group = self._group_of.pop(name, None)
        if group is not None and self._groups is not None:
            self._groups.remove(group)

    def _handle_death(self) -> None:
        self._disconnect()
        futures: list[asyncio.Future[Any]] = [
            *self._begin_futures.values(),
            *self._end_futures.values(),
        ]
        for future in futures:
            if not future.done():
                future.set_exception(SandboxError(DIED))
                future.exception()  # marks it as retrieved: perhaps nobody waits
        if self._process is not None:
            self.loop.run_in_executor(None, self._clean_up, self._process)

    def _clean_up(self, process: subprocess.Popen[bytes], timeout_s: float | None = None) -> None:
        """Wait for the process to end, and remove what it could not."""
        process.wait(timeout_s)
        for name in list(self._group_of):
            self._leave_group(name)
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _disconnect(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            self.loop.remove_reader(control.fileno())
            control.close()

    async def close(self) -> None:
        """End the process and all its sessions."""
        self._disconnect()
        if self._process is not None:
            try:
                await asyncio.to_thread(self._clean_up, self._process, END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                await asyncio.to_thread(self._clean_up, self._process)

    def forget(self) -> None:
        """Drop the connection, in a fork of the host: the process belongs to the parent."""
        if self._control is not None:
            self._control.close()
            self._control = None


class LocalTransport:
    """A forked session: the host's end of its socket, and its pidfd."""

    def __init__(
        self,
        zygote: ZygoteProcess,
        connection: socket.socket,
        pidfd: int,
        end: asyncio.Future[SessionEnd],
    ) -> None:
        self._zygote = zygote  # kept alive as long as its session
        self._connection = connection
        self._pidfd = pidfd
        self._end = end
        self._loop = asyncio.get_running_loop()

    async def send(self, *parts: bytes) -> None:
        """Send all of the bytes."""
        for part in parts:
            await self._loop.sock_sendall(self._connection, part)

    async def receive(self, size: int) -> bytes:
        """Receive exactly ``size`` bytes."""
        content = bytearray()
        while len(content) < size:
            part = await self._loop.sock_recv(self._connection, min(size - len(content), MIB))
            if not part:
                raise EOFError
            content += part
        return bytes(content)

    def interrupt(self) -> None:
        """Send SIGINT, which leaves the variables."""
        _signal(self._pidfd, signal.SIGINT)

    def pause(self) -> None:
        """Send SIGSTOP, so that threads that a cell left behind do not run on."""
        _signal(self._pidfd, signal.SIGSTOP)

    def resume(self) -> None:
        """Send SIGCONT."""
        _signal(self._pidfd, signal.SIGCONT)

    async def cpu_seconds(self) -> float | None:
        """Return its processor seconds, as the kernel reports them at its end."""
        await asyncio.wait({self._end}, timeout=END_S)
        if not self._end.done() or self._end.exception() is not None:
            return None
        return self._end.result().cpu_s

    async def kill(self, *, has_ended: bool) -> int | None:
        """End it. If it has ended by itself, return its status."""
        self._connection.close()
        try:
            if has_ended:
                await asyncio.wait({self._end}, timeout=END_S)
                return self._end.result().status if self._end.done() else None
        finally:
            _signal(self._pidfd, signal.SIGKILL)
            os.close(self._pidfd)
        return None


def _environment() -> dict[str, str]:
    environment = dict(ENVIRONMENT)
    for name in KEPT_VARIABLES:
        if name in os.environ:
            environment[name] = os.environ[name]
    return environment


def _limits_message(limits: Limits, cpu_s: float) -> dict[str, int]:
    """Return the limits in the form that the zygote takes."""
    return {
        "memory": limits.memory_mb * MIB,
        "cpu_s": max(1, math.ceil(cpu_s)),
        "scratch": limits.scratch_mb * MIB,
        "inodes": limits.scratch_files,
        "threads": limits.threads,
    }


def _fail(future: asyncio.Future[int] | None, error: SandboxError) -> None:
    """Let whoever awaits the future get the error."""
    if future is not None and not future.done():
        future.set_exception(error)


def _signal(pidfd: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def _write_sealed(content: bytes) -> int:
    """Write the bytes into memory that nobody can change any more; return its descriptor."""
    import fcntl  # noqa: PLC0415 (Windows has none, and this module is imported there)

    handle = os.memfd_create("shard", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[os.write(handle, remaining) :]
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, seals)
    return handle
