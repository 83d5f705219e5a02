"""A sandbox in a container: the same worker, over the standard input and output of a command."""

from __future__ import annotations

import asyncio
import asyncio.subprocess
import contextlib
import math
import os
import secrets
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pandas_amr._records.public import public
from pandas_amr.errors import SandboxUnavailable, UsageError
from pandas_amr.sandbox.base import LOADED_MB, MIB, Limits
from pandas_amr.sandbox.guest import worker
from pandas_amr.sandbox.host.channel import ChannelSession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr.sandbox.base import Data

WORKER = str(Path(worker.__file__).absolute())
END_S = 5.0
SIGNAL_STATUS = 128  # `docker run` and shells return this plus the signal that ended the process
LOADED_TASKS = 16  # threads of Python and its libraries
SCRATCH_MOUNT = (
    "/scratch:size={scratch_mb}m,nr_inodes={scratch_files},mode=1777,noexec,nosuid,nodev"
)
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_IO_THREADS")


@public
class ContainerSandbox:
    """Runs sessions in processes that a command starts, such as containers or virtual machines.

    The command runs ``worker.py`` of this package with a Python that has pandas and pyarrow. The
    command confines the session; this class adds the limits on time and output. These fields in the
    command are filled in:

    - ``{name}``: the session's name.
    - ``{memory_mb}``: megabytes for the session, Python with pandas loaded, and the scratch folder
      together.
    - ``{tasks}``: processes and threads in all.
    - ``{cpu_s}``, ``{last_cpu_s}``: processor seconds, and one more: soft and hard limit.
    - ``{scratch_mb}``, ``{scratch_files}``: limits of the scratch folder.

    Args:
        command: the program and its arguments.
        stop: a command that ends the session called ``{name}`` if it does not end with its standard
            input.
        tier: its name in results and traces.

    Raises:
        UsageError: the command is empty or a single text.

    Example:
        >>> ContainerSandbox.docker("python-with-pandas", runtime="runsc")
        <ContainerSandbox runsc: docker run ...>
    """

    def __init__(
        self, command: Sequence[str], *, stop: Sequence[str] = (), tier: str = "container"
    ) -> None:
        if isinstance(command, str) or not command:
            raise UsageError(
                'ContainerSandbox(command) takes a list, such as ["docker", "run", "-i", ...].'
            )
        self._command = tuple(command)
        self._stop = tuple(stop)
        self.tier = tier

    @classmethod
    def docker(
        cls, image: str, *, runtime: str | None = None, memory_mb: int | None = None
    ) -> ContainerSandbox:
        """Return a sandbox in Docker containers without network, capabilities or writable disk.

        Args:
            image: has Python with pandas and pyarrow.
            runtime: of Docker; ``"runsc"`` is gVisor.
            memory_mb: memory in all; default: what the session's ``Limits`` allow.

        Example:
            >>> " ".join(ContainerSandbox.docker("image").command("n1")[:8])
            'docker run -i --rm --name n1 --network none'
        """
        memory = "{memory_mb}m" if memory_mb is None else f"{memory_mb}m"
        command = ["docker", "run", "-i", "--rm", "--name", "{name}", "--network", "none"]
        command += ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        command += ["--pids-limit", "{tasks}", "--memory", memory, "--memory-swap", memory]
        command += ["--ulimit", "cpu={cpu_s}:{last_cpu_s}", "--tmpfs", SCRATCH_MOUNT]
        command += ["--user", "65534:65534", "--workdir", "/scratch"]
        command += ["--env", "TMPDIR=/scratch", "--env", "HOME=/scratch"]
        for name in THREADS:
            command += ["--env", f"{name}=1"]
        command += ["--volume", f"{WORKER}:/worker.py:ro"]
        if runtime:
            command += ["--runtime", runtime]
        command += [image, "python", "-I", "/worker.py"]
        return cls(command, stop=("docker", "kill", "{name}"), tier=runtime or "container")

    def command(self, name: str, limits: Limits | None = None) -> list[str]:
        """Return the command that starts the session called ``name``, with ``limits``."""
        return _fill_in(self._command, _fields(name, limits or Limits()))

    def __repr__(self) -> str:
        return f"<ContainerSandbox {self.tier}: {' '.join(self._command[:2])} ...>"

    async def open(self, data: Data, limits: Limits) -> ChannelSession:
        """Start a session; see ``Sandbox.open``."""
        return ChannelSession(partial(self._begin, limits), data, limits)

    async def close(self) -> None:
        """Do nothing: each session is a process of its own."""

    async def _begin(self, limits: Limits, cpu_s: float) -> ProcessTransport:
        limits = replace(limits, cpu_s=max(1, math.ceil(cpu_s)))
        name = f"amr-{secrets.token_hex(6)}"
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command(name, limits),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal is the host's to handle
            )
        except OSError as error:
            raise SandboxUnavailable(
                f"{self._command[0]} cannot be run: {error.strerror}."
            ) from None
        return ProcessTransport(process, _fill_in(self._stop, _fields(name, limits)))


def _fields(name: str, limits: Limits) -> dict[str, str]:
    """Return the fields of a command, with their values for a session."""
    cpu_s, scratch_mb = math.ceil(limits.cpu_s), math.ceil(limits.scratch_mb)
    return {
        "name": name,
        "memory_mb": str(math.ceil(limits.memory_mb) + scratch_mb + LOADED_MB),
        "tasks": str(math.ceil(limits.threads) + LOADED_TASKS),
        "cpu_s": str(cpu_s),
        "last_cpu_s": str(cpu_s + 1),
        "scratch_mb": str(scratch_mb),
        "scratch_files": str(math.ceil(limits.scratch_files)),
    }


def _fill_in(command: Sequence[str], fields: dict[str, str]) -> list[str]:
    """Fill fields such as ``{name}`` in; other braces stay."""
    parts = list(command)
    for name, value in fields.items():
        parts = [part.replace(f"{{{name}}}", value) for part in parts]
    return parts


class ProcessTransport:
    """A process behind two pipes."""

    def __init__(self, process: asyncio.subprocess.Process, stop: list[str]) -> None:
        self._process = process
        self._stop = stop

    async def send(self, *parts: bytes) -> None:
        """Send all of the bytes."""
        assert self._process.stdin is not None
        for part in parts:
            self._process.stdin.write(part)
            await self._process.stdin.drain()

    async def receive(self, size: int) -> bytes:
        """Receive exactly ``size`` bytes."""
        assert self._process.stdout is not None
        try:
            return await self._process.stdout.readexactly(size)
        except asyncio.IncompleteReadError:
            raise EOFError from None

    def interrupt(self) -> None:
        """Send SIGINT, which Docker passes on."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)

    def pause(self) -> None:
        """Do nothing: a container limits its processor time itself."""

    def resume(self) -> None:
        """Do nothing: ``pause`` paused nothing."""

    async def cpu_seconds(self) -> float | None:
        """Return None: what ran in a container is not known."""
        return None

    async def kill(self, *, has_ended: bool) -> int | None:
        """Close its standard input, run the command that stops it, and kill it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            if not has_ended or await _wait(self._process) is None:
                await self._run_stop_command()
        finally:  # even if the command failed, or the wait was cancelled
            _kill(self._process)
        await self._drain_output()
        status = await _wait(self._process)
        if status is not None and status > SIGNAL_STATUS:
            return SIGNAL_STATUS - status
        return status

    async def _drain_output(self) -> None:
        """Read what is left in its pipe: asyncio closes the pipe only then."""
        assert self._process.stdout is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                while await self._process.stdout.read(MIB):
                    pass

    async def _run_stop_command(self) -> None:
        """Run the command that stops the process, and wait for it."""
        if not self._stop or self._process.returncode is not None:
            return
        nothing = asyncio.subprocess.DEVNULL
        try:
            stopping = await asyncio.create_subprocess_exec(
                *self._stop, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
            )
        except OSError:
            return  # the process that started the session is killed in any case
        try:
            await _wait(stopping)
        finally:
            _kill(stopping)
        await _wait(stopping)


async def _wait(process: asyncio.subprocess.Process) -> int | None:
    """Return the status of a process when it has ended; None if that takes too long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_S):
            return await process.wait()
    return process.returncode


def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill a process and its children: it leads a process group."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
