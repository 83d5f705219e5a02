"""The embedded sandbox, on the host's side: starts zygotes, which fork a session per agent."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import sys
import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandas_amr.errors import SandboxError, SandboxUnavailable, UsageError
from pandas_amr.sandbox.base import Data, Isolation, Limits, tiers_in_force
from pandas_amr.sandbox.guest import rights
from pandas_amr.sandbox.host.channel import ChannelSession
from pandas_amr.sandbox.host.zygote import ZygoteProcess, open_zygotes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas_amr.sandbox.host.zygote import LocalTransport

ORDER: tuple[str, ...] = ("strong", "strict-lite")
MAX_IDLE = 2  # zygotes without a session
ALWAYS = ("numpy", "pandas", "pyarrow", "pyarrow.parquet")
ELSEWHERE = (
    "What works here is a container: PythonREPLTool(sandbox=amr.ContainerSandbox.docker(...))."
)
CHOICES = (
    'Choices: a container (amr.ContainerSandbox.docker(...)); or isolation="process" if you trust '
    "the code: it can read and write whatever you can."
)

_sandboxes: weakref.WeakSet[LocalSandbox] = weakref.WeakSet()


class LocalSandbox:
    """The embedded sandbox of this machine.

    Args:
        isolation: the tier; ``"auto"`` takes the strongest available one, at least ``strict-lite``.
        packages: further importable packages of this environment.
        files: further read-only files, by the names they get.
        zygotes: how many zygotes fork sessions.

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
        self._zygote_count = zygotes
        self._zygotes: list[ZygoteProcess] = []
        self._sessions: weakref.WeakSet[ChannelSession] = weakref.WeakSet()
        _sandboxes.add(self)
        self._turn = 0
        self._start_lock: asyncio.Lock | None = None
        self._folders, self._paths = _find_packages(self._packages)
        self._order = [str(Path(path).absolute()) for path in sys.path]

    def __reduce__(self) -> tuple[Any, ...]:
        """Take the sandbox apart; a copy starts processes of its own."""
        options: dict[str, Any] = {"packages": self._packages, "files": self._files}
        options["zygotes"] = self._zygote_count
        return partial(LocalSandbox, self.isolation, **options), ()

    def __repr__(self) -> str:
        return f"<LocalSandbox {self.tier}>"

    async def open(self, data: Data, limits: Limits) -> ChannelSession:
        """Start a session; see ``Sandbox.open``."""
        await self._next_zygote()  # so that an unavailable tier raises here
        shared = {"shared": True} if data.parquet else {}
        files = {name: self._visible_path(name, path) for name, path in self._files.items()}
        begin = partial(self._begin_session, data, limits)
        session = ChannelSession(begin, data, limits, files=files, **shared)
        self._sessions.add(session)
        return session

    async def close(self) -> None:
        """End all sessions and zygotes."""
        for session in list(self._sessions):
            await session.close()
        zygotes, self._zygotes = self._zygotes, []
        for zygote in zygotes:
            await zygote.close()

    def forget(self) -> None:
        """Drop all that is open, in a fork of the host: it belongs to the parent."""
        self._zygotes, self._sessions, self._start_lock = [], weakref.WeakSet(), None

    async def _begin_session(self, data: Data, limits: Limits, cpu_s: float) -> LocalTransport:
        zygote = await self._next_zygote()
        try:
            return await zygote.begin(data, limits, cpu_s)
        except SandboxError:
            if zygote.alive:
                raise
        zygote = await self._next_zygote()  # the first one has died
        return await zygote.begin(data, limits, cpu_s)

    async def _next_zygote(self) -> ZygoteProcess:
        """Return the next zygote in turn; start some if there are too few."""
        if self._start_lock is None:
            self._start_lock = asyncio.Lock()
        async with self._start_lock:
            self._zygotes = [zygote for zygote in self._zygotes if zygote.alive]
            while len(self._zygotes) < self._zygote_count:
                await _end_idle()
                self._zygotes.append(await self._start_zygote())
        self._turn += 1
        return self._zygotes[self._turn % len(self._zygotes)]

    async def _start_zygote(self) -> ZygoteProcess:
        """Start a zygote in the first tier that is available.

        Raises:
            SandboxUnavailable: none can.
        """
        reasons: list[str] = []
        for tier in ORDER if self.isolation == "auto" else (self.isolation,):
            options = {
                "tier": tier,
                "folders": self._folders,
                "paths": self._paths,
                "order": self._order,
                "modules": [*ALWAYS, *self._packages],
                "files": self._files,
            }
            zygote = ZygoteProcess(options)
            reason = await zygote.start()
            if reason is None:
                self.tier = tiers_in_force[self.isolation] = tier
                return zygote
            reasons.append(f"{tier}: {reason}")
        raise SandboxUnavailable(f"No sandbox is available here ({'; '.join(reasons)}). {CHOICES}")

    def _visible_path(self, name: str, path: str) -> str:
        return f"{rights.FILES}/{name}" if self.tier == "strong" else path


async def _end_idle() -> None:
    """End the zygotes that have been idle longest, so that few are idle at a time."""
    loop = asyncio.get_running_loop()
    idle = [zygote for zygote in open_zygotes if zygote.idle and zygote.loop is loop]
    idle.sort(key=_last_used)
    for zygote in idle[: max(0, len(idle) - MAX_IDLE + 1)]:
        if zygote.idle:  # a session may have started while another zygote was closed
            await zygote.close()


def _last_used(zygote: ZygoteProcess) -> float:
    return zygote.last_used


def _find_packages(packages: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the folders that packages need, and the paths to add to ``sys.path`` for them."""
    folders: list[str] = []
    paths: list[str] = []
    always = [name.partition(".")[0] for name in ALWAYS]
    for name in dict.fromkeys((*always, *packages)):
        location = _locate(name)
        if location is None:
            continue
        folders += _list_needed_folders(location)
        paths.append(str(location.parent))
    return list(dict.fromkeys(folders)), list(dict.fromkeys(paths))


def _locate(name: str) -> Path | None:
    """Return a package's folder, or a module's one file; None if it is built in.

    Raises:
        UsageError: there is no such package.
    """
    spec = importlib.util.find_spec(name.partition(".")[0])
    if spec is None:
        raise UsageError(
            f"PythonREPLTool(packages=...): there is no package {name!r} in this environment."
        )
    if spec.origin in {"built-in", "frozen"}:
        return None
    folders = list(spec.submodule_search_locations or ())
    return Path(folders[0] if folders else spec.origin or "").absolute()


def _list_needed_folders(location: Path) -> list[str]:
    """Return what must be visible so that the package at ``location`` can be imported."""
    parent = location.parent
    if parent.name in {"site-packages", "dist-packages"}:
        return [str(parent)]  # with what the package itself imports
    installed = _installed_in(parent)
    if installed:
        return installed
    if any(location.is_relative_to(prefix) for prefix in (sys.prefix, sys.base_prefix)):
        return []  # part of Python, which is visible
    return [str(location)]  # and not what else lies in its folder


def _installed_in(folder: Path) -> list[str]:
    """List what was installed into a user's folder, by its records; not what else lies there."""
    names: set[str] = set()
    for distribution in importlib.metadata.distributions(path=[str(folder)]):
        names.update(file.parts[0] for file in distribution.files or ())
    names.discard("..")
    return [str(folder / name) for name in sorted(names) if (folder / name).exists()]


def _after_fork() -> None:
    for zygote in list(open_zygotes):
        zygote.forget()
    for sandbox in list(_sandboxes):
        sandbox.forget()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
