"""The process behind a local sandbox: it confines itself, loads pandas once, and forks a confined session per agent.

Begun with a fixed environment and nothing of the user's: its memory never held a key. It imports pandas after it has
gone into its own small root, and is asserted to have one thread: what is forked is whole.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import itertools
import json
import mmap
import os
import select
import selectors
import shutil
import signal
import socket
import sys
import sysconfig
import tempfile
from typing import Any
from zoneinfo import ZoneInfoNotFoundError

from pandas_amr.sandbox.guest import confine, rights
from pandas_amr.sandbox.guest.syscalls import seccomp_filter
from pandas_amr.sandbox.guest.worker import Gone, Stream, Worker, loaded

OPEN_FILES = (
    128  # each may hold a buffer of the kernel's: of a pipe 64 kB, of a socket three times as much
)
ASKED_BYTES = 1 << 18
MANY_TASKS = 1 << 15
MULTIARCH = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu")
OTHERS = 512  # tasks of the same user that may come to be
MOST_DESCRIPTORS = 1 << 20
PROBE = {
    "memory": 1 << 28,
    "cpu_s": 5,
    "scratch": 1 << 20,
    "inodes": 10,
    "threads": 4,
}


def main() -> None:
    """Argument: the host's descriptor, by which come the tier, folders to show, modules to load and files, as JSON.

    What the host asks is no argument: arguments stay where code can read them.
    """
    host = socket.socket(fileno=int(sys.argv[1]))
    sys.argv[:] = sys.orig_argv[:] = [""]
    asked = json.loads(host.recv(ASKED_BYTES))
    asked["proc"] = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    try:
        confine.offer_to_oom_killer(asked["proc"])
        if asked["tier"] == "strong":
            _enter_strong(asked, host)
        elif asked["tier"] == "strict-lite":
            _enter_lite(asked)
        zygote = Zygote(host, asked)
        zygote.probe()
    except Exception as error:  # noqa: BLE001 (told to the host, which asks for another tier or for help)
        rights.send(host, {"failed": f"{type(error).__name__}: {error}"})
        os._exit(1)
    rights.send(host, {"ready": asked["tier"]})
    zygote.serve()


def _enter_strong(asked: dict[str, Any], host: socket.socket) -> None:
    """Namespaces and a small root; from here on a child that is the first process of its own."""
    folders = _folders(asked)
    os.umask(0o022)  # of whoever begins the host, it would shut the folders of the new root
    if (
        os.getuid() == 0 and _own_mounts()
    ):  # the root is built before root's rights, and its paths, are given up
        confine.small_root(folders, asked["files"], _modules(asked))
        _leave_root()
        _check_readable(folders)
        confine.own_user_namespace(asked["proc"], confine.NEW_MOUNTS)
    else:
        _leave_root()
        confine.own_user_namespace(asked["proc"], confine.NEW_MOUNTS)
        confine.small_root(folders, asked["files"], _modules(asked))
    confine.unshare(confine.NEW_PIDS | confine.NEW_ELSE)
    confine.hide_host_name()
    child = os.fork()
    if child:
        _watch(child, host.fileno())
    confine.die_with_parent(0)  # the parent is outside the namespace, and has no number here
    os.setsid()


def _leave_root() -> None:
    """Become a user who owns nothing; or leave that to the next user namespace, where this one knows no other id.

    Raises:
        PermissionError: this root may not become another user, and is the machine's.
    """
    try:
        confine.leave_root()
    except PermissionError:
        if confine.is_root_outside():
            raise


def _own_mounts() -> bool:
    """Enter a mount namespace; root in a container may not, and has to do what a plain user does."""
    try:
        confine.unshare(confine.NEW_MOUNTS)
    except PermissionError:
        return False
    return True


def _check_readable(folders: list[str]) -> None:
    for folder in folders:
        if not os.access(folder, os.R_OK | os.X_OK):
            raise PermissionError(
                f"{folder} can be read by root only, and code does not run as root: chmod -R o+rX"
            )


def _watch(child: int, host: int) -> None:
    """Wait for the child; where the host ends first, end the child, which may be importing and looks at nothing."""
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(host, 0)  # its end is always told
    if all(handle != ended for handle, _ in poll.poll()):
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _enter_lite(asked: dict[str, Any]) -> None:
    hidden = not all(
        _open_to_all(folder)
        for folder in [*_folders(asked), *map(os.path.dirname, _modules(asked))]
    )
    asked["keep_reading"] = hidden and os.getuid() == 0
    confine.no_new_privileges()
    confine.leave_root(keep_reading=asked["keep_reading"])
    confine.die_with_parent(os.getppid())


def _open_to_all(folder: str) -> bool:
    """Whether everybody may walk to the folder, by its name and by where links lead."""
    for path in (folder, os.path.realpath(folder)):
        while path != "/":
            if not os.stat(path).st_mode & 0o001:
                return False
            path = os.path.dirname(path)  # noqa: PLW2901 (up to the root)
    return True


def _folders(asked: dict[str, Any]) -> list[str]:
    """What code needs to see: Python, packages, libraries, time zones."""
    paths = sysconfig.get_paths()
    prefixes = {os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix)} | {
        sys.prefix,
        sys.base_prefix,
    }
    below = [path for path in sys.path if any(path.startswith(prefix + "/") for prefix in prefixes)]
    wanted = [
        paths["stdlib"],
        paths["platstdlib"],
        *below,
        *(os.path.join(prefix, "lib") for prefix in prefixes if prefix != "/usr"),
        *asked["folders"],
        *(
            path
            for path in ("/lib", "/lib64", *MULTIARCH, "/usr/lib64")
            if not os.path.islink(path)
        ),
        "/usr/local/lib",
        "/usr/share/zoneinfo",
        "/etc/alternatives",  # by which libraries are found
    ]
    if not any(os.path.isdir(path) for path in MULTIARCH):
        wanted.append("/usr/lib")
    return [path for path in dict.fromkeys(wanted) if os.path.isdir(path)]


def _modules(asked: dict[str, Any]) -> list[str]:
    """Packages that are a single file; and the list of libraries, which the loader reads."""
    return [path for path in (*asked["folders"], "/etc/ld.so.cache") if os.path.isfile(path)]


class Zygote:
    """Loads once, forks many."""

    def __init__(self, host: socket.socket, asked: dict[str, Any]) -> None:
        self._host = host
        self._tier = asked["tier"]
        self._keep_reading = asked.get("keep_reading", False)
        self._scratch: str | None = asked["scratch"]
        self._readable = [
            *_folders(asked),
            *_modules(asked),
            *asked["files"].values(),
            *(f"/dev/{name}" for name in confine.DEVICES),
        ]
        self._sessions: dict[
            int, tuple[str, int, int]
        ] = {}  # pidfd: the session's name, pid and seconds
        self._myself = os.pidfd_open(os.getpid())
        self._filter = seccomp_filter(1)  # in the strong tier a session is number 1
        places = {path: place for place, path in enumerate(asked["order"])}
        sys.path[:] = sorted(
            [*sys.path, *asked["paths"]], key=lambda path: places.get(path, len(places))
        )
        _load(asked["modules"])
        self._size = _address_space(asked["proc"])
        self._tasks = _tasks(asked["proc"]) if self._tier != "strong" else 0
        _assert_one_thread(asked["proc"])
        os.close(asked["proc"])

    def probe(self) -> None:
        """Confine a child that does nothing: what cannot be had is found out by doing it.

        Raises:
            OSError: it cannot be had.
        """
        said, say = os.pipe()
        pid = self._fork()
        if pid == 0:
            try:
                os.close(said)
                self._confined(PROBE, keep=(say,))
                os.write(say, b"ok")
            except Exception as error:  # noqa: BLE001 (said to the parent)
                os.write(say, f"{type(error).__name__}: {error}".encode()[:900])
            os._exit(0)
        os.close(say)
        words = os.read(said, 1000).decode()
        os.close(said)
        os.waitpid(pid, 0)
        self._remove("probe")
        if words != "ok":
            raise OSError(words or "the confined process died")

    def serve(self) -> None:
        """Fork sessions as the host asks, and tell how they ended, until the host is gone."""
        poll = select.poll()
        poll.register(self._host, select.POLLIN)
        while True:
            for handle, _ in poll.poll():
                if handle == self._host.fileno():
                    self._begin(poll)
                else:
                    poll.unregister(handle)
                    self._ended(handle)

    def _begin(self, poll: select.poll) -> None:
        try:
            words, handles = rights.receive(self._host)
        except ConnectionResetError:
            words, handles = b"", []
        if not words:
            self._finish()
        asked = json.loads(words)
        try:
            pid = self._fork()
        except OSError as error:  # no room for one more now: the others go on
            for handle in handles:
                os.close(handle)
            rights.send(self._host, {"failed": asked["session"], "why": error.strerror})
            return
        if pid == 0:
            self._session(asked, handles)
        for handle in handles:
            os.close(handle)
        watch = os.pidfd_open(pid)
        self._sessions[watch] = (asked["session"], pid, asked["limits"]["cpu_s"])
        poll.register(watch, select.POLLIN)
        rights.send(self._host, {"begun": asked["session"]}, watch)

    def _ended(self, handle: int) -> None:
        name, pid, cpu_s = self._sessions.pop(handle)
        _, status, used = os.wait4(pid, 0)
        os.close(handle)
        self._remove(name)
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGKILL and used.ru_utime + used.ru_stime >= cpu_s:
            code = (
                -signal.SIGXCPU
            )  # the first process of a namespace is not told, and killed a second later
        with contextlib.suppress(OSError):  # the host has gone, which the next turn sees
            rights.send(
                self._host, {"ended": name, "status": code, "cpu_s": used.ru_utime + used.ru_stime}
            )

    def _finish(self) -> None:
        for _, pid, _ in self._sessions.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        self._remove()
        os._exit(0)

    def _remove(self, session: str = "") -> None:
        """Remove the folder of a session in the process tier, or of all; what code has locked stays."""
        if self._scratch is not None:
            shutil.rmtree(os.path.join(self._scratch, session), ignore_errors=True)

    def _settle(self, session: str) -> None:
        """Stand in a folder of the session's own."""
        if self._scratch is not None:
            folder = os.path.join(self._scratch, session)
            os.mkdir(folder)
            os.chdir(folder)
            os.environ.update(HOME=folder, TMPDIR=folder)
            tempfile.tempdir = None  # it is found afresh

    def _fork(self) -> int:
        """A child; in the strong tier the first process of a namespace of its own."""
        if self._tier != "strong":
            return os.fork()
        confine.unshare(confine.NEW_PIDS)
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid:
                confine.return_to(self._myself, confine.NEW_PIDS)
        return pid

    def _session(self, asked: dict[str, Any], handles: list[int]) -> None:
        status = 70
        try:
            gc.disable()
            stream, *rest = handles
            try:
                self._confined(asked["limits"], keep=tuple(handles), name=asked["session"])
            except Exception as error:
                opening, _ = Stream(stream, stream).receive()
                Stream(stream, stream).send(
                    {"id": opening["id"], "ok": False, "out": f"{type(error).__name__}: {error}"}
                )
                raise
            shard = None
            if rest:
                size = os.fstat(rest[0]).st_size
                shard = (
                    memoryview(mmap.mmap(rest[0], size, mmap.MAP_PRIVATE, mmap.PROT_READ))
                    if size
                    else None
                )
                os.close(rest[0])
            _reseed()
            gc.enable()
            Worker(Stream(stream, stream)).serve(shard)
        except Gone:
            status = 0
        finally:
            os._exit(status)

    def _confined(self, limits: dict[str, int], keep: tuple[int, ...], name: str = "probe") -> None:
        """Everything that the tier promises a session of that name, in the order in which it can still be done."""
        for low, high in _gaps(keep):
            os.closerange(low, high)
        confine.own_standard_streams()
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        threads = limits["threads"] + 1
        if self._tier == "strong":
            confine.unshare(confine.NEW_MOUNTS)
            confine.mount_scratch(limits["scratch"], limits["inodes"])
            os.chdir(rights.SCRATCH)
            confine.unshare(confine.NEW_USER | confine.NEW_IPC)
        else:  # the limit counts all of the user's, and not only this session's
            confine.die_with_parent(os.getppid())
            threads += self._tasks + OTHERS
        confine.limit(
            self._size + limits["memory"], limits["cpu_s"], limits["scratch"], OPEN_FILES, threads
        )
        if self._tier == "process":
            self._settle(name)
            return
        confine.hide_memory()
        confine.no_new_privileges()
        if not self._keep_reading:
            confine.drop_capabilities()
        if self._tier == "strict-lite":
            confine.restrict_files(self._readable, ["/dev/null"])
        elif confine.landlock_abi() >= confine.MIN_ABI:  # behind mounts that say the same
            confine.restrict_files(["/"], [rights.SCRATCH, "/dev/null"])
        confine.filter_calls(self._filter if self._tier == "strong" else None)


def _reseed() -> None:
    """Let no session draw the numbers that another one draws. The module ``random`` sees to itself at a fork."""
    import numpy as np

    np.random.seed(int.from_bytes(os.urandom(4), "little"))  # noqa: NPY002 (that is the state which code would find)


def _load(modules: list[str]) -> None:
    """Import what code will want, and walk the paths that load something at their first use."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    for name in modules:
        importlib.import_module(name)
    dates = pd.to_datetime(pd.Series(["2026-01-01", "2026-01-02"]))
    table = pa.table(
        {
            "c0": ["a", "b"],
            "c1": [1, 2],
            "c2": pa.array([1.5, None]),
            "c3": dates.to_numpy(),
            "i0": [1, 2],
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    labels = {"columns": ["a", "b", "c", "d"], "column_names": [None], "index_names": [None]}
    frame = loaded(sink.getvalue().to_pybytes(), labels)
    frame.groupby("a").agg({"b": "sum", "c": "mean"}).reset_index().merge(
        frame, on="a"
    ).sort_values("b_x")
    repr(frame), repr(frame["d"].dt.year), frame.describe(), frame["a"].str.upper().value_counts()
    with contextlib.suppress(ZoneInfoNotFoundError):  # small images have no time zones
        pd.Timestamp.now(tz="UTC").tz_convert("Europe/Paris")
    np.linalg.inv(np.eye(2))
    _lock_by_process()
    selectors.DefaultSelector = selectors.PollSelector  # type: ignore[misc,assignment] # epoll is refused to sessions
    gc.collect()
    gc.freeze()


def _lock_by_process() -> None:
    """Have SQLite keep its locks in the process: a session can ask the kernel for none, and shares no database."""
    try:
        library = ctypes.CDLL(importlib.import_module("_sqlite3").__file__)
        find, register = library.sqlite3_vfs_find, library.sqlite3_vfs_register
    except (
        ImportError,
        AttributeError,
    ):  # a Python without it, or that hides it: there is no WAL in the session
        return
    find.restype = ctypes.c_void_p
    found = find(b"unix-excl")
    if found:
        register(ctypes.c_void_p(found), 1)


def _address_space(proc: int) -> int:
    pages = _read(proc, "self/statm").split()[0]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _assert_one_thread(proc: int) -> None:
    folder = os.open("self/task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=proc)
    tasks = os.listdir(folder)
    os.close(folder)
    if len(tasks) != 1:
        names = [_read(proc, f"self/task/{task}/comm").strip() for task in tasks]
        raise RuntimeError(
            f"the process to fork has {len(tasks)} threads ({names}): what is forked would not be whole"
        )


def _tasks(proc: int) -> int:
    """How many tasks the machine runs, which bounds how many of them are this user's; many, where that is not told."""
    try:
        return int(_read(proc, "loadavg").split()[3].split("/")[1])
    except FileNotFoundError:  # /proc may hold processes only
        return MANY_TASKS


def _read(proc: int, name: str) -> str:
    handle = os.open(name, os.O_RDONLY, dir_fd=proc)
    with os.fdopen(handle) as file:
        return file.read()


def _gaps(keep: tuple[int, ...]) -> list[tuple[int, int]]:
    """The ranges of descriptors to close: all but the standard ones and those kept."""
    edges = [2, *sorted(keep), MOST_DESCRIPTORS]
    return [(low + 1, high) for low, high in itertools.pairwise(edges)]
