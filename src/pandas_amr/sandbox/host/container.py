"""A container as a sandbox: the same worker, over the standard input and output of a command."""

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
from pandas_amr.sandbox.base import MIB, Limits
from pandas_amr.sandbox.guest import worker
from pandas_amr.sandbox.host.channel import ChannelSession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr.sandbox.base import Data

WORKER = str(Path(worker.__file__).absolute())
END_S = 5.0
BY_SIGNAL = 128  # above it, `docker run` and shells tell the signal that ended what they ran
LOADED_MB = 256  # Python with pandas loaded, which a session's limit does not count
LOADED_TASKS = 16  # its threads, and those of its libraries
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_IO_THREADS")


@public
class ContainerSandbox:
    """Sessions in processes that a command begins: containers, virtual machines, another machine.

    The command runs ``worker.py`` of this package with a Python that has pandas and pyarrow. What it confines is what
    the command confines: this class adds the limits on time and output. These words in it are filled in:

    - ``{name}``: the session's name.
    - ``{memory_mb}``: megabytes in all, of the session, of Python with pandas loaded and of the scratch folder.
    - ``{tasks}``: processes and threads in all.
    - ``{cpu_s}``, ``{last_cpu_s}``: processor seconds, and one more, for a limit that first tells and then kills.
    - ``{scratch_mb}``, ``{scratch_files}``: of the scratch folder.

    Args:
        command: the program and its arguments.
        stop: a command that ends the session called ``{name}`` where it does not end with its standard input.
        tier: what results and traces call it.

    Raises:
        UsageError: the command is empty or a text.

    Example:
        >>> ContainerSandbox.docker("python-with-pandas", runtime="runsc")
        <ContainerSandbox runsc: docker run ...>
    """

    def __init__(
        self, command: Sequence[str], *, stop: Sequence[str] = (), tier: str = "container"
    ) -> None:
        if isinstance(command, str) or not command:
            raise UsageError(
                'ContainerSandbox(command) takes a list: ["docker", "run", "-i", ...].'
            )
        self._command = tuple(command)
        self._stop = tuple(stop)
        self.tier = tier

    @classmethod
    def docker(
        cls, image: str, *, runtime: str | None = None, memory_mb: int | None = None
    ) -> ContainerSandbox:
        """A Docker container without network, rights or a disk to write to; ``runtime="runsc"`` for gVisor.

        It may use what the session's ``Limits`` say; ``memory_mb`` is its memory in all in place of that.

        Example:
            >>> " ".join(ContainerSandbox.docker("image").command("n1")[:8])
            'docker run -i --rm --name n1 --network none'
        """
        memory = "{memory_mb}m" if memory_mb is None else f"{memory_mb}m"
        command = [
            *(
                "docker",
                "run",
                "-i",
                "--rm",
                "--name",
                "{name}",
                "--network",
                "none",
                "--read-only",
            ),
            *(
                "--cap-drop",
                "ALL",
                "--security-opt",
                "no-new-privileges",
                "--pids-limit",
                "{tasks}",
            ),
            *("--memory", memory, "--memory-swap", memory, "--ulimit", "cpu={cpu_s}:{last_cpu_s}"),
            *(
                "--tmpfs",
                "/scratch:size={scratch_mb}m,nr_inodes={scratch_files},mode=1777,noexec,nosuid,nodev",
            ),
            *(
                "--user",
                "65534:65534",
                "--workdir",
                "/scratch",
                "--env",
                "TMPDIR=/scratch",
                "--env",
                "HOME=/scratch",
            ),
            *(part for name in THREADS for part in ("--env", f"{name}=1")),
            *("--volume", f"{WORKER}:/worker.py:ro"),
            *(("--runtime", runtime) if runtime else ()),
            *(image, "python", "-I", "/worker.py"),
        ]
        return cls(command, stop=("docker", "kill", "{name}"), tier=runtime or "container")

    def command(self, name: str, limits: Limits | None = None) -> list[str]:
        """The command that begins the session called ``name``, within ``limits``."""
        return _filled(self._command, _words(name, limits or Limits()))

    def __repr__(self) -> str:
        return f"<ContainerSandbox {self.tier}: {' '.join(self._command[:2])} ...>"

    async def open(self, data: Data, limits: Limits) -> ChannelSession:
        """Begin a session; see ``Sandbox.open``."""
        return ChannelSession(partial(self._begun, limits), data, limits)

    async def close(self) -> None:
        """Nothing stands behind the sessions."""

    async def _begun(self, limits: Limits, cpu_s: float) -> ProcessTransport:
        limits = replace(limits, cpu_s=max(1, math.ceil(cpu_s)))
        name = f"amr-{secrets.token_hex(6)}"
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command(name, limits),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal is the host's to hear
            )
        except OSError as error:
            raise SandboxUnavailable(
                f"{self._command[0]} cannot be run: {error.strerror}."
            ) from None
        return ProcessTransport(process, _filled(self._stop, _words(name, limits)))


def _words(name: str, limits: Limits) -> dict[str, str]:
    """What a command may name of a session."""
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


def _filled(command: Sequence[str], words: dict[str, str]) -> list[str]:
    filled = []
    for part in command:
        for word, value in words.items():
            part = part.replace(f"{{{word}}}", value)  # noqa: PLW2901 (filled in word by word)
        filled.append(part)
    return filled


class ProcessTransport:
    """A process at the ends of two pipes."""

    def __init__(self, process: asyncio.subprocess.Process, stop: list[str]) -> None:
        self._process = process
        self._stop = stop

    async def send(self, *parts: bytes) -> None:
        """Hand over all of the bytes."""
        assert self._process.stdin is not None
        for part in parts:
            self._process.stdin.write(part)
            await self._process.stdin.drain()

    async def receive(self, size: int) -> bytes:
        """Exactly so many bytes."""
        assert self._process.stdout is not None
        try:
            return await self._process.stdout.readexactly(size)
        except asyncio.IncompleteReadError:
            raise EOFError from None

    def interrupt(self) -> None:
        """SIGINT, which Docker hands on."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)

    def pause(self) -> None:
        """A container's processor time is the container's own business."""

    def resume(self) -> None:
        """Nothing was paused."""

    async def used(self) -> float | None:
        """Nobody tells what ran in a container."""
        return None

    async def kill(self, *, hung_up: bool) -> int | None:
        """Close its standard input, stop it by its command, kill it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            if not hung_up or await _ended(self._process) is None:
                await self._stopped()
        finally:  # whatever became of the command, and of the wait
            _kill(self._process)
        await self._read_out()
        status = await _ended(self._process)
        return status if status is None or status <= BY_SIGNAL else BY_SIGNAL - status

    async def _read_out(self) -> None:
        """Read what is still in its pipe: until then asyncio does not close its end."""
        assert self._process.stdout is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                while await self._process.stdout.read(MIB):
                    pass

    async def _stopped(self) -> None:
        """Run the command that stops it, for as long as that may take."""
        if not self._stop or self._process.returncode is not None:
            return
        nothing = asyncio.subprocess.DEVNULL
        try:
            stopping = await asyncio.create_subprocess_exec(
                *self._stop, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
            )
        except OSError:
            return  # the process that began the session is killed all the same
        try:
            await _ended(stopping)
        finally:
            _kill(stopping)
        await _ended(stopping)


async def _ended(process: asyncio.subprocess.Process) -> int | None:
    """The status of a process once it has ended; None where that takes too long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_S):
            return await process.wait()
    return process.returncode


def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill a process with what it began: it leads a group of its own."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
