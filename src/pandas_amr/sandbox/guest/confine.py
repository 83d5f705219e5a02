"""What confines a process on Linux: namespaces, a small root, Landlock, seccomp, limits. By ``ctypes``, no dependency.

Runs inside the sandbox's own processes, so it imports nothing but the standard library and the table of calls.
"""

from __future__ import annotations

import ctypes
import os
import resource
import stat
from typing import TYPE_CHECKING

from pandas_amr.sandbox.guest.rights import FILES, SCRATCH
from pandas_amr.sandbox.guest.syscalls import seccomp_filter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NEW_MOUNTS, NEW_CGROUP, NEW_UTS, NEW_IPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEW_USER, NEW_PIDS, NEW_NET = 0x10000000, 0x20000000, 0x40000000
NEW_ELSE = NEW_CGROUP | NEW_UTS | NEW_IPC | NEW_NET

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = (
    1,
    4,
    24,
    38,
    47,
)
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, LAST_CAP = 1, 2, 63
SIGKILL = 9

# Landlock (https://docs.kernel.org/userspace-api/landlock.html)
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
MIN_ABI = 3  # below it a file can be cut short by path
READ_FILE, READ_DIR = 1 << 2, 1 << 3
FILES_ALL = (1 << 15) - 1  # execute ... refer, truncate
DEVICE_IOCTL = 1 << 15  # ABI 5
NET_ALL = 3  # TCP bind and connect, ABI 4
SCOPES = 3  # abstract unix sockets and signals, ABI 6
SCRATCH_RIGHTS = FILES_ALL & ~(1 << 0)  # all but execute

MOUNT_SETATTR = 442
NUMBERS = {"x86_64": (155, 126, 317), "aarch64": (41, 91, 277)}  # pivot_root, capset, seccomp

NOBODY = 65533  # whom the sandbox runs as where it was begun by root
MOUNT_POINTS = ("/mnt", "/media", "/srv", "/opt", "/run", "/var", "/tmp", "/home")
HOST_NAME = b"sandbox"
DEVICES = ("null", "zero", "random", "urandom")

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, doing: str) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{doing}: {os.strerror(number)}")
    return result


def _prctl(option: int, value: int) -> None:
    _checked(_libc.prctl(option, value, 0, 0, 0), f"prctl {option}")


def _syscall(number: int, *arguments: object) -> int:
    return _checked(_libc.syscall(number, *arguments), f"syscall {number}")


def unshare(flags: int) -> None:
    """Enter new namespaces."""
    _checked(_libc.unshare(flags), f"unshare {flags:#x}")


def return_to(process: int, flags: int) -> None:
    """Enter the namespaces of the process behind a pidfd."""
    _checked(_libc.setns(process, flags), f"setns {flags:#x}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount a file system, or bind a folder."""
    done = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, flags, options.encode() or None
    )
    _checked(done, f"mount {kind or 'bind'} at {target}")


def offer_to_oom_killer(proc: int) -> None:
    """Be what the kernel ends first when memory runs out; what is forked inherits it. ``proc`` is an open /proc."""
    handle = os.open("self/oom_score_adj", os.O_WRONLY, dir_fd=proc)
    os.write(handle, b"1000")
    os.close(handle)


def hide_host_name() -> None:
    """Give the namespace of names a name that tells nothing."""
    for call in (_libc.sethostname, _libc.setdomainname):
        _checked(call(HOST_NAME, len(HOST_NAME)), "naming the namespace")


def own_standard_streams() -> None:
    """Open /dev/null anew on 0, 1 and 2: flags of a file that was inherited are seen by whoever else has it."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.close(null)


def is_root_outside() -> bool:
    """Whether root of this user namespace is the machine's root: the kernel limits the processes of all others.

    Found out by a child that may begin no process, and tries.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    status = 1
    try:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        status = 0
        if os.fork() == 0:
            os._exit(0)
        os.wait()
    except BlockingIOError:
        status = 1
    finally:
        os._exit(status)


def die_with_parent(parent: int) -> None:
    """Be killed when the parent's thread ends; gone at once where it has ended already."""
    _prctl(PR_SET_PDEATHSIG, SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def hide_memory() -> None:
    """No core file, no ptrace, no /proc/self/mem for others of the same user."""
    _prctl(PR_SET_DUMPABLE, 0)


def leave_root(*, keep_reading: bool = False) -> None:
    """Become a user who owns nothing. Nothing happens where the process is not root's.

    ``keep_reading`` keeps a right to read what the mode bits forbid, for a Python that lives in root's home; Landlock
    then says which folders that reaches, and that nothing is written. Containers have only the wider of the two.
    """
    if os.getuid() != 0:
        return
    if keep_reading:
        _prctl(8, 1)  # PR_SET_KEEPCAPS
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except OSError:  # no right to, or nobody is unknown in a user namespace that maps one id
        raise PermissionError(
            "this root may not become another user (it lacks the right, or its user namespace maps one id), and code "
            "does not run as root: begin as a plain user"
        ) from None
    if keep_reading:
        try:
            _set_capabilities(1 << CAP_DAC_READ_SEARCH)
        except PermissionError:
            _set_capabilities(1 << CAP_DAC_OVERRIDE)


def own_user_namespace(proc: int, extra: int = 0) -> None:
    """A user namespace in which the process has all its rights inside and none outside.

    It is who it was, or nobody where that is root: of a user namespace that maps no other id, so that it could not
    leave root. ``proc`` is an open /proc, which the process may no longer see.
    """
    uid, gid = os.getuid(), os.getgid()
    _prctl(PR_SET_DUMPABLE, 1)  # else /proc/self belongs to root
    unshare(NEW_USER | extra)
    maps = (
        ("setgroups", "deny"),
        ("uid_map", f"{uid or NOBODY} {uid} 1"),
        ("gid_map", f"{gid or NOBODY} {gid} 1"),
    )
    for name, text in maps:
        handle = os.open(f"self/{name}", os.O_WRONLY, dir_fd=proc)
        os.write(handle, text.encode())
        os.close(handle)


def small_root(
    folders: Iterable[str], files: Mapping[str, str], modules: Iterable[str] = ()
) -> None:
    """Make a root that holds only ``folders``, single ``files`` (by name) and ``modules``, read-only, and enter it.

    The old root is gone afterwards, and with it /proc, /sys, /etc and every home.
    """
    shown = _outermost(folders)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    root = next(
        point
        for point in MOUNT_POINTS
        if os.path.isdir(point) and not any(_within(folder, point) for folder in shown)
    )
    placed = {f"{FILES}/{name}": path for name, path in files.items()}
    placed |= {path: path for path in modules if not any(_within(path, folder) for folder in shown)}
    placed |= {f"/dev/{name}": f"/dev/{name}" for name in DEVICES}
    opened = {target: os.open(path, os.O_PATH) for target, path in placed.items()}
    held = {folder: os.open(folder, os.O_PATH | os.O_DIRECTORY) for folder in shown}
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=4m")
    for folder, handle in held.items():
        os.makedirs(root + folder, exist_ok=True)
        mount(f"/proc/self/fd/{handle}", root + folder, flags=MS_BIND | MS_REC)
    for folder in ("/dev", FILES, SCRATCH):
        os.makedirs(root + folder, exist_ok=True)
    for target, handle in opened.items():
        os.makedirs(root + os.path.dirname(target), exist_ok=True)
        os.close(os.open(root + target, os.O_CREAT | os.O_WRONLY, 0o644))
        mount(f"/proc/self/fd/{handle}", root + target, flags=MS_BIND)
    for handle in (*opened.values(), *held.values()):
        os.close(handle)
    _links(root)
    if not os.path.lexists(root + "/tmp"):  # else something that is shown lies in it
        os.symlink(SCRATCH, root + "/tmp")
    _read_only(root)
    for name in DEVICES:
        _read_only(f"{root}/dev/{name}", with_devices=True)
    os.chdir(root)
    pivot = NUMBERS[os.uname().machine][0]
    _syscall(pivot, b".", b".")
    _checked(_libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def _links(root: str) -> None:
    """Links at the top, as /lib -> usr/lib, by which the loader names its files."""
    for name in ("lib", "lib64", "lib32", "bin"):
        if os.path.islink(f"/{name}") and not os.path.lexists(f"{root}/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")


def _read_only(path: str, *, with_devices: bool = False) -> None:
    set_, cleared = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV, 0
    if with_devices:  # what was set for all that lies below stays until it is cleared
        set_, cleared = ATTR_RDONLY | ATTR_NOSUID, ATTR_NODEV
    attributes = (ctypes.c_uint64 * 4)(set_, cleared, 0, 0)
    _syscall(
        MOUNT_SETATTR, AT_FDCWD, path.encode(), AT_RECURSIVE, attributes, ctypes.sizeof(attributes)
    )


def _outermost(folders: Iterable[str]) -> list[str]:
    real = sorted({folder for folder in folders if os.path.isdir(folder)})
    return [
        folder
        for folder in real
        if not any(folder != other and _within(folder, other) for other in real)
    ]


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def mount_scratch(size: int, inodes: int) -> None:
    """A folder of the session's own that is as large as it may be, gone with the session."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("tmpfs", SCRATCH, "tmpfs", flags, f"mode=700,size={size},nr_inodes={inodes}")


def drop_capabilities() -> None:
    """No right is left, and none can come back."""
    for capability in range(LAST_CAP + 1):
        if _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == -1:
            break  # past the last one, or not ours to drop: without new privileges it cannot be used
    _libc.prctl(PR_CAP_AMBIENT, 4, 0, 0, 0)  # PR_CAP_AMBIENT_CLEAR_ALL
    _set_capabilities(0)


def _set_capabilities(mask: int) -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)(mask, mask, 0, 0, 0, 0)
    _syscall(NUMBERS[os.uname().machine][1], header, data)


def no_new_privileges() -> None:
    """Nothing that is executed gains a right."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def landlock_abi() -> int:
    """The kernel's version of Landlock; 0 where it has none."""
    return max(0, int(_libc.syscall(CREATE_RULESET, None, 0, 1)))


def restrict_files(readable: Iterable[str], writable: Iterable[str] = ()) -> None:
    """Landlock: read below ``readable``, write below ``writable``, nothing else; no TCP.

    Raises:
        OSError: the kernel's Landlock is too old.
    """
    abi = landlock_abi()
    if abi < MIN_ABI:
        raise OSError(f"Landlock ABI {abi}, and {MIN_ABI} is needed")
    handled = FILES_ALL | (DEVICE_IOCTL if abi >= 5 else 0)
    words = [handled, *([NET_ALL] if abi >= 4 else []), *([SCOPES] if abi >= 6 else [])]
    attributes = (ctypes.c_uint64 * len(words))(*words)
    rules = _syscall(CREATE_RULESET, attributes, ctypes.sizeof(attributes), 0)
    rights = [(path, READ_FILE | READ_DIR) for path in readable] + [
        (path, SCRATCH_RIGHTS) for path in writable
    ]
    for path, allowed in rights:
        handle = os.open(path, os.O_PATH)
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            allowed &= READ_FILE | 2  # noqa: PLW2901 (read and write of a single file)
        packed = allowed.to_bytes(8, "little") + handle.to_bytes(4, "little")
        _syscall(ADD_RULE, rules, 1, packed, 0)
        os.close(handle)
    _syscall(RESTRICT_SELF, rules, 0)
    os.close(rules)


def filter_calls(program: bytes | None = None) -> None:
    """seccomp: from here on only the calls of the table; with ``program``, a filter that was made before."""
    program = program or seccomp_filter(os.getpid())
    code = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    packed = Program(len(program) // 8, ctypes.cast(code, ctypes.c_void_p))
    _syscall(NUMBERS[os.uname().machine][2], 1, 0, ctypes.byref(packed))  # SECCOMP_SET_MODE_FILTER


def limit(memory: int, cpu_s: int, file_size: int, open_files: int, processes: int) -> None:
    """Resource limits, which cannot be raised again."""
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_NOFILE, open_files),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 256),
    ):
        _, hard = resource.getrlimit(kind)
        told = 1 if kind == resource.RLIMIT_CPU else 0  # a second before it is killed
        bounded = most + told if hard == resource.RLIM_INFINITY else min(most + told, hard)
        resource.setrlimit(kind, (max(0, bounded - told), bounded))
