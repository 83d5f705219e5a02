"""The process behind a local sandbox: confines itself, loads pandas once, and forks sessions.

It starts with a fixed environment, so its memory never held a key of the user's. It imports pandas
after it has entered its small root. It must have one thread only: a fork copies no other thread.
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
from typing import Any, NamedTuple
from zoneinfo import ZoneInfoNotFoundError

from pandas_amr.sandbox.guest import confine, rights
from pandas_amr.sandbox.guest.syscalls import seccomp_filter
from pandas_amr.sandbox.guest.worker import HostGone, Stream, Worker, load_frame

# Each open file may hold a buffer of the kernel: 64 kB for a pipe, three times as much for a
# socket.
OPEN_FILES = 128
OPTIONS_BYTES = 1 << 18
MANY_TASKS = 1 << 15  # assumed if /proc does not say how many there are
MULTIARCH = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu")
FUTURE_TASKS = 512  # tasks of the same user that may start later
MAX_DESCRIPTORS = 1 << 20
FAILED = 70  # exit status of a session that could not start (EX_SOFTWARE)
PROBE = {
    "memory": 1 << 28,
    "cpu_s": 5,
    "scratch": 1 << 20,
    "inodes": 10,
    "threads": 4,
}


def main() -> None:
    """Read the options from the host, confine this process, and serve.

    The one argument is the number of the host's descriptor. The options (tier, folders to show,
    modules to load, files) come through it as JSON: code could read arguments.
    """
    host = socket.socket(fileno=int(sys.argv[1]))
    sys.argv[:] = sys.orig_argv[:] = [""]
    options = json.loads(host.recv(OPTIONS_BYTES))
    options["proc"] = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    try:
        confine.prefer_for_oom_kill(options["proc"])
        if options["tier"] == "strong":
            _enter_strong(options, host)
        elif options["tier"] == "strict-lite":
            _enter_lite(options)
        zygote = Zygote(host, options)
        zygote.probe()
    except Exception as error:  # noqa: BLE001 (the host gets it, and tries another tier or raises)
        rights.send(host, {"failed": f"{type(error).__name__}: {error}"})
        os._exit(1)
    rights.send(host, {"ready": options["tier"]})
    zygote.serve()


def _enter_strong(options: dict[str, Any], host: socket.socket) -> None:
    """Enter namespaces and a small root, and go on as the first process of a pid namespace."""
    folders = _visible_folders(options)
    os.umask(
        0o022
    )  # a stricter one, inherited from the host, would close the folders of the new root
    if os.getuid() == 0 and _unshare_mounts():
        # The root is built while this process is root and may read all paths.
        confine.enter_small_root(folders, options["files"], _visible_files(options))
        _leave_root()
        _check_readable(folders)
        confine.enter_user_namespace(options["proc"], confine.NEW_MOUNTS)
    else:
        _leave_root()
        confine.enter_user_namespace(options["proc"], confine.NEW_MOUNTS)
        confine.enter_small_root(folders, options["files"], _visible_files(options))
    confine.unshare(confine.NEW_PIDS | confine.NEW_OTHERS)
    confine.hide_host_name()
    child = os.fork()
    if child:
        _watch(child, host.fileno())
    confine.die_with_parent(0)  # the parent is outside the namespace, so its number here is 0
    os.setsid()


def _leave_root() -> None:
    """Become a user who owns nothing.

    If this user namespace maps no other id, the next user namespace does it.

    Raises:
        PermissionError: this is the machine's root, and it may not become another user.
    """
    try:
        confine.leave_root()
    except PermissionError:
        if confine.is_root_outside():
            raise


def _unshare_mounts() -> bool:
    """Enter a mount namespace, and tell whether that was allowed: root in a container may not."""
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
    """Wait for the child, and exit as it did. If the host ends first, kill the child.

    The child may be importing, and would not notice.
    """
    child_end = os.pidfd_open(child)
    poll = select.poll()
    poll.register(child_end, select.POLLIN)
    poll.register(host, 0)  # poll always reports a hang-up
    if all(handle != child_end for handle, _ in poll.poll()):
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _enter_lite(options: dict[str, Any]) -> None:
    folders = [*_visible_folders(options), *map(os.path.dirname, _visible_files(options))]
    readable = all(_is_open_to_all(folder) for folder in folders)
    options["keep_reading"] = not readable and os.getuid() == 0
    confine.no_new_privileges()
    confine.leave_root(keep_reading=options["keep_reading"])
    confine.die_with_parent(os.getppid())


def _is_open_to_all(folder: str) -> bool:
    """Tell whether every user may reach the folder, by its name and by its resolved path."""
    for start in (folder, os.path.realpath(folder)):
        path = start
        while path != "/":
            if not os.stat(path).st_mode & 0o001:
                return False
            path = os.path.dirname(path)
    return True


def _visible_folders(options: dict[str, Any]) -> list[str]:
    """List the folders that code needs: Python, packages, libraries, time zones."""
    paths = sysconfig.get_paths()
    prefixes = {sys.prefix, sys.base_prefix}
    prefixes |= {os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix)}
    below = tuple(prefix + "/" for prefix in prefixes)
    folders = [paths["stdlib"], paths["platstdlib"]]
    folders += [path for path in sys.path if path.startswith(below)]
    folders += [os.path.join(prefix, "lib") for prefix in prefixes if prefix != "/usr"]
    folders += options["folders"]
    folders += _library_folders()
    return [path for path in dict.fromkeys(folders) if os.path.isdir(path)]


def _library_folders() -> list[str]:
    """List the folders of shared libraries, and the time zones."""
    candidates = ("/lib", "/lib64", *MULTIARCH, "/usr/lib64")
    folders = [path for path in candidates if not os.path.islink(path)]
    # Libraries are found through /etc/alternatives.
    folders += ["/usr/local/lib", "/usr/share/zoneinfo", "/etc/alternatives"]
    if not any(os.path.isdir(path) for path in MULTIARCH):
        folders.append("/usr/lib")
    return folders


def _visible_files(options: dict[str, Any]) -> list[str]:
    """List packages that are one file, and the list of libraries that the loader reads."""
    return [path for path in (*options["folders"], "/etc/ld.so.cache") if os.path.isfile(path)]


class SessionProcess(NamedTuple):
    """A forked session."""

    name: str
    pid: int
    cpu_s: int


class Zygote:
    """Loads pandas once, and forks many sessions."""

    def __init__(self, host: socket.socket, options: dict[str, Any]) -> None:
        self._host = host
        self._tier = options["tier"]
        self._keep_reading = options.get("keep_reading", False)
        self._scratch: str | None = options["scratch"]
        self._readable = [
            *_visible_folders(options),
            *_visible_files(options),
            *options["files"].values(),
        ]
        self._readable += [f"/dev/{name}" for name in confine.DEVICES]
        self._sessions: dict[int, SessionProcess] = {}  # by pidfd
        self._own_pidfd = os.pidfd_open(os.getpid())
        self._filter = seccomp_filter(1)  # in the strong tier the pid of a session is 1
        _set_import_path(options["paths"], options["order"])
        _load(options["modules"])
        self._size = _address_space(options["proc"])
        self._tasks = _count_tasks(options["proc"]) if self._tier != "strong" else 0
        _check_one_thread(options["proc"])
        os.close(options["proc"])

    def probe(self) -> None:
        """Confine a child that does nothing, to find out whether the tier is available.

        Raises:
            OSError: it cannot be had.
        """
        source, sink = os.pipe()
        pid = self._fork()
        if pid == 0:
            try:
                os.close(source)
                self._confine(PROBE, keep=(sink,))
                os.write(sink, b"ok")
            except Exception as error:  # noqa: BLE001 (the parent raises it)
                os.write(sink, f"{type(error).__name__}: {error}".encode()[:900])
            os._exit(0)
        os.close(sink)
        outcome = os.read(source, 1000).decode()
        os.close(source)
        os.waitpid(pid, 0)
        self._remove_scratch("probe")
        if outcome != "ok":
            raise OSError(outcome or "the confined process died")

    def serve(self) -> None:
        """Fork sessions on request, and report how they ended, until the host is gone."""
        poll = select.poll()
        poll.register(self._host, select.POLLIN)
        while True:
            for handle, _ in poll.poll():
                if handle == self._host.fileno():
                    self._begin(poll)
                else:
                    poll.unregister(handle)
                    self._report_end(handle)

    def _begin(self, poll: select.poll) -> None:
        """Read a request of the host, and fork a session for it."""
        try:
            text, handles = rights.receive(self._host)
        except ConnectionResetError:
            text, handles = b"", []
        if not text:
            self._finish()
        request = json.loads(text)
        try:
            pid = self._fork()
        except OSError as error:  # no memory or pid for one more: the other sessions go on
            for handle in handles:
                os.close(handle)
            rights.send(self._host, {"failed": request["session"], "why": error.strerror})
            return
        if pid == 0:
            self._run_session(request, handles)
        for handle in handles:
            os.close(handle)
        pidfd = os.pidfd_open(pid)
        name = request["session"]
        self._sessions[pidfd] = SessionProcess(name, pid, request["limits"]["cpu_s"])
        poll.register(pidfd, select.POLLIN)
        rights.send(self._host, {"begun": name}, pidfd)

    def _report_end(self, pidfd: int) -> None:
        session = self._sessions.pop(pidfd)
        _, status, usage = os.wait4(session.pid, 0)
        os.close(pidfd)
        self._remove_scratch(session.name)
        code = os.waitstatus_to_exitcode(status)
        cpu_s = usage.ru_utime + usage.ru_stime
        if code == -signal.SIGKILL and cpu_s >= session.cpu_s:
            # The first process of a namespace ignores SIGXCPU, and is killed a second later.
            code = -signal.SIGXCPU
        with contextlib.suppress(OSError):  # the host has gone: the next poll reports that
            rights.send(self._host, {"ended": session.name, "status": code, "cpu_s": cpu_s})

    def _finish(self) -> None:
        for session in self._sessions.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(session.pid, signal.SIGKILL)
                os.waitpid(session.pid, 0)
        self._remove_scratch()
        os._exit(0)

    def _remove_scratch(self, session: str = "") -> None:
        """Remove a session's folder in the process tier, or all; what code has locked stays."""
        if self._scratch is not None:
            shutil.rmtree(os.path.join(self._scratch, session), ignore_errors=True)

    def _enter_scratch(self, session: str) -> None:
        """Make a folder for the session, and change into it."""
        if self._scratch is not None:
            folder = os.path.join(self._scratch, session)
            os.mkdir(folder)
            os.chdir(folder)
            os.environ.update(HOME=folder, TMPDIR=folder)
            tempfile.tempdir = None  # so that it is looked up again

    def _fork(self) -> int:
        """Fork a child. In the strong tier it is the first process of its own pid namespace."""
        if self._tier != "strong":
            return os.fork()
        confine.unshare(confine.NEW_PIDS)
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid:
                confine.join_namespaces(self._own_pidfd, confine.NEW_PIDS)
        return pid

    def _run_session(self, request: dict[str, Any], handles: list[int]) -> None:
        """Confine this process, and serve cells until the host hangs up. It never returns."""
        status = FAILED
        try:
            gc.disable()
            stream = Stream(handles[0], handles[0])
            try:
                self._confine(request["limits"], keep=tuple(handles), name=request["session"])
            except Exception as error:
                opening, _ = stream.receive()
                problem = f"{type(error).__name__}: {error}"
                stream.send({"id": opening["id"], "ok": False, "out": problem})
                raise
            shard = _map_shard(handles[1]) if len(handles) > 1 else None
            _reseed()
            gc.enable()
            Worker(stream).serve(shard)
        except HostGone:
            status = 0
        finally:
            os._exit(status)

    def _confine(self, limits: dict[str, int], keep: tuple[int, ...], name: str = "probe") -> None:
        """Apply all that the tier promises to this process, in the order in which it is possible.

        Args:
            limits: of the session.
            keep: descriptors that stay open.
            name: the session's name.
        """
        for low, high in _gaps_between(keep):
            os.closerange(low, high)
        confine.replace_standard_streams()
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        self._isolate(limits)
        self._limit_resources(limits)
        if self._tier == "process":
            self._enter_scratch(name)
            return
        confine.hide_memory()
        confine.no_new_privileges()
        if not self._keep_reading:
            confine.drop_capabilities()
        if self._tier == "strict-lite":
            confine.restrict_files(self._readable, ["/dev/null"])
        elif confine.landlock_abi() >= confine.MIN_ABI:  # a second wall: the mounts say the same
            confine.restrict_files(["/"], [rights.SCRATCH, "/dev/null"])
        confine.filter_calls(self._filter if self._tier == "strong" else None)

    def _isolate(self, limits: dict[str, int]) -> None:
        """Give the session its own namespaces and scratch folder, if the tier has them."""
        if self._tier != "strong":
            confine.die_with_parent(os.getppid())
            return
        confine.unshare(confine.NEW_MOUNTS)
        confine.mount_scratch(limits["scratch"], limits["inodes"])
        os.chdir(rights.SCRATCH)
        confine.unshare(confine.NEW_USER | confine.NEW_IPC)

    def _limit_resources(self, limits: dict[str, int]) -> None:
        threads = limits["threads"] + 1
        if self._tier != "strong":  # the limit counts all tasks of the user, not of the session
            threads += self._tasks + FUTURE_TASKS
        confine.limit(
            memory=self._size + limits["memory"],
            cpu_s=limits["cpu_s"],
            file_size=limits["scratch"],
            open_files=OPEN_FILES,
            processes=threads,
        )


def _map_shard(handle: int) -> memoryview | None:
    """Map the shard's bytes into memory, read-only; None if there are none."""
    size = os.fstat(handle).st_size
    shard = None
    if size:
        shard = memoryview(mmap.mmap(handle, size, mmap.MAP_PRIVATE, mmap.PROT_READ))
    os.close(handle)
    return shard


def _set_import_path(added: list[str], order: list[str]) -> None:
    """Add folders to ``sys.path``, in the order of the host's."""
    places = {path: place for place, path in enumerate(order)}
    last = len(places)
    sys.path[:] = sorted([*sys.path, *added], key=lambda path: places.get(path, last))


def _reseed() -> None:
    """Give each session its own random numbers; the module ``random`` does so after a fork."""
    import numpy as np

    seed = int.from_bytes(os.urandom(4), "little")
    np.random.seed(seed)  # noqa: NPY002 (code uses this global state)


def _load(modules: list[str]) -> None:
    """Import what code will use, and run what loads more at its first use."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    for name in modules:
        importlib.import_module(name)
    _warm_up()
    with contextlib.suppress(ZoneInfoNotFoundError):  # small images have no time zones
        pd.Timestamp.now(tz="UTC").tz_convert("Europe/Paris")
    np.linalg.inv(np.eye(2))
    _keep_sqlite_locks_in_process()
    # Sessions may not use epoll.
    selectors.DefaultSelector = selectors.PollSelector  # type: ignore[misc,assignment]
    gc.collect()
    gc.freeze()


def _warm_up() -> None:
    """Read a small frame and use it as code does: the first use of many methods loads modules."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

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
    frame = load_frame(sink.getvalue().to_pybytes(), labels)
    means = frame.groupby("a").agg({"b": "sum", "c": "mean"}).reset_index()
    means.merge(frame, on="a").sort_values("b_x")
    repr(frame)
    repr(frame["d"].dt.year)
    frame.describe()
    frame["a"].str.upper().value_counts()


def _keep_sqlite_locks_in_process() -> None:
    """Have SQLite keep its locks in the process: sessions share no database and take no lock."""
    try:
        library = ctypes.CDLL(importlib.import_module("_sqlite3").__file__)
        find, register = library.sqlite3_vfs_find, library.sqlite3_vfs_register
    except (ImportError, AttributeError):
        return  # Python has no SQLite, or hides its functions: sessions have no WAL then
    find.restype = ctypes.c_void_p
    vfs = find(b"unix-excl")
    if vfs:
        register(ctypes.c_void_p(vfs), 1)


def _address_space(proc: int) -> int:
    pages = _read(proc, "self/statm").split()[0]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _check_one_thread(proc: int) -> None:
    folder = os.open("self/task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=proc)
    tasks = os.listdir(folder)
    os.close(folder)
    if len(tasks) != 1:
        names = [_read(proc, f"self/task/{task}/comm").strip() for task in tasks]
        raise RuntimeError(
            f"the process to fork has {len(tasks)} threads ({names}); it must have one only, "
            "since a fork copies no other"
        )


def _count_tasks(proc: int) -> int:
    """Return how many tasks the machine runs: at most so many are this user's."""
    try:
        return int(_read(proc, "loadavg").split()[3].split("/")[1])
    except FileNotFoundError:  # /proc may show processes only
        return MANY_TASKS


def _read(proc: int, name: str) -> str:
    handle = os.open(name, os.O_RDONLY, dir_fd=proc)
    with os.fdopen(handle) as file:
        return file.read()


def _gaps_between(keep: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the ranges of descriptors to close: all but the standard ones and ``keep``."""
    edges = [2, *sorted(keep), MAX_DESCRIPTORS]
    return [(low + 1, high) for low, high in itertools.pairwise(edges)]
