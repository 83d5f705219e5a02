"""A container as a sandbox: the same worker, over the standard input and output of a command."""

from __future__ import annotations

import asyncio
import asyncio.subprocess
import contextlib
import secrets
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from pandas_amr.errors import SandboxUnavailable, UsageError
from pandas_amr.sandbox import worker
from pandas_amr.sandbox.channel import ChannelSession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr.sandbox.base import Data, Limits

WORKER = str(Path(worker.__file__).absolute())
END_S = 5.0


class ContainerSandbox:
    """Sessions in processes that a command begins: containers, virtual machines, another machine.

    The command runs ``worker.py`` of this package with a Python that has pandas and pyarrow; ``{name}`` in it becomes
    the session's name. What it confines is what the command confines: this class adds the limits on time and output.

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

    def __init__(self, command: Sequence[str], *, stop: Sequence[str] = (), tier: str = "container") -> None:
        if isinstance(command, str) or not command:
            raise UsageError('ContainerSandbox(command) takes a list: ["docker", "run", "-i", ...].')
        self._command = tuple(command)
        self._stop = tuple(stop)
        self.tier = tier

    @classmethod
    def docker(cls, image: str, *, runtime: str | None = None, memory_mb: int = 2048) -> ContainerSandbox:
        """A Docker container without network, rights or a disk to write to; ``runtime="runsc"`` for gVisor.

        Example:
            >>> " ".join(ContainerSandbox.docker("image").command("n1")[:8])
            'docker run -i --rm --name n1 --network none'
        """
        command = [
            *("docker", "run", "-i", "--rm", "--name", "{name}", "--network", "none", "--read-only"),
            *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", "64"),
            *("--memory", f"{memory_mb}m", "--user", "65534:65534"),
            *("--tmpfs", "/scratch:size=256m,nr_inodes=1000,mode=1777,noexec,nosuid,nodev"),
            *("--workdir", "/scratch", "--env", "TMPDIR=/scratch", "--env", "HOME=/scratch"),
            *("--volume", f"{WORKER}:/worker.py:ro"),
            *(("--runtime", runtime) if runtime else ()),
            *(image, "python", "-I", "/worker.py"),
        ]
        return cls(command, stop=("docker", "kill", "{name}"), tier=runtime or "container")

    def command(self, name: str) -> list[str]:
        """The command that begins the session called ``name``."""
        return [part.replace("{name}", name) for part in self._command]

    def __repr__(self) -> str:
        return f"<ContainerSandbox {self.tier}: {' '.join(self._command[:2])} ...>"

    async def open(self, data: Data, limits: Limits) -> ChannelSession:
        """Begin a session; see ``Sandbox.open``."""
        return ChannelSession(self._begun, data, limits)

    async def close(self) -> None:
        """Nothing stands behind the sessions."""

    async def _begun(self) -> ProcessTransport:
        name = f"amr-{secrets.token_hex(6)}"
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command(name),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            raise SandboxUnavailable(f"{self._command[0]} cannot be run: {error.strerror}.") from None
        return ProcessTransport(process, [part.replace("{name}", name) for part in self._stop])


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

    async def kill(self, *, hung_up: bool) -> int | None:
        """Close its standard input, stop it by its command, kill it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if hung_up:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    return await self._process.wait()
        if self._process.returncode is None:
            if self._stop:
                stopping = await asyncio.create_subprocess_exec(
                    *self._stop, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
                )
                await stopping.wait()
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        async with asyncio.timeout(END_S):
            return await self._process.wait()
