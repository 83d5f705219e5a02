"""Confine a process on Linux: namespaces, a small root, Landlock, seccomp, resource limits.

The calls are made by ``ctypes``. This module runs inside the sandbox's own processes, so it imports
the standard library and the table of calls only.
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
NEW_OTHERS = NEW_CGROUP | NEW_UTS | NEW_IPC | NEW_NET

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS = 1, 4, 8
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 24, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, LAST_CAP = 1, 2, 63
SIGKILL = 9

# Landlock (https://docs.kernel.org/userspace-api/landlock.html)
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
MIN_ABI = 3  # older ones do not stop truncation by path
WRITE_FILE, READ_FILE, READ_DIR = 1 << 1, 1 << 2, 1 << 3
FILES_ALL = (1 << 15) - 1  # from execute to refer and truncate
DEVICE_IOCTL = 1 << 15  # ABI 5
NET_ALL = 3  # TCP bind and connect, ABI 4
SCOPES = 3  # abstract unix sockets and signals, ABI 6
SCRATCH_RIGHTS = FILES_ALL & ~(1 << 0)  # all but execute

MOUNT_SETATTR = 442
SECCOMP_SET_MODE_FILTER = 1
NUMBERS = {"x86_64": (155, 126, 317), "aarch64": (41, 91, 277)}  # pivot_root, capset, seccomp

NOBODY = 65533  # the user of the sandbox if root started it
MOUNT_POINTS = ("/mnt", "/media", "/srv", "/opt", "/run", "/var", "/tmp", "/home")
HOST_NAME = b"sandbox"
DEVICES = ("null", "zero", "random", "urandom")

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, action: str) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{action}: {os.strerror(number)}")
    return result


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, value, 0, 0, 0), f"prctl {option}")


def _syscall(number: int, *arguments: object) -> int:
    return _check(_libc.syscall(number, *arguments), f"syscall {number}")


def unshare(flags: int) -> None:
    """Enter new namespaces."""
    _check(_libc.unshare(flags), f"unshare {flags:#x}")


def join_namespaces(process: int, flags: int) -> None:
    """Enter the namespaces of the process behind a pidfd."""
    _check(_libc.setns(process, flags), f"setns {flags:#x}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount a file system, or bind a folder."""
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, flags, options.encode() or None
    )
    _check(result, f"mount {kind or 'bind'} at {target}")


def prefer_for_oom_kill(proc: int) -> None:
    """Have the kernel kill this process and its forks first when memory runs out.

    Args:
        proc: a descriptor of /proc.
    """
    handle = os.open("self/oom_score_adj", os.O_WRONLY, dir_fd=proc)
    os.write(handle, b"1000")
    os.close(handle)


def hide_host_name() -> None:
    """Replace the host name and the domain name in this namespace."""
    for call in (_libc.sethostname, _libc.setdomainname):
        _check(call(HOST_NAME, len(HOST_NAME)), "set host name")


def replace_standard_streams() -> None:
    """Open /dev/null on 0, 1 and 2: all who share an inherited file see its flags."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.close(null)


def is_root_outside() -> bool:
    """Tell whether root of this user namespace is the machine's root.

    The kernel limits the number of processes of every user but that one. So a child sets its limit
    to 0 and forks.
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
    """Have the kernel kill this process when the parent's thread ends; exit if it has ended."""
    _prctl(PR_SET_PDEATHSIG, SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def hide_memory() -> None:
    """Refuse core files, ptrace, and access to /proc/self/mem by processes of the same user."""
    _prctl(PR_SET_DUMPABLE, 0)


def leave_root(*, keep_reading: bool = False) -> None:
    """Become a user who owns nothing; do nothing if the process is not root's.

    Args:
        keep_reading: keep the capability to read what mode bits forbid, for a Python that lives in
            root's home. Landlock then limits it to some folders, and forbids writing.

    Raises:
        PermissionError: this root may not become another user.
    """
    if os.getuid() != 0:
        return
    if keep_reading:
        _prctl(PR_SET_KEEPCAPS, 1)
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except OSError:  # root lacks the right, or its user namespace does not map NOBODY
        raise PermissionError(
            "root may not become another user here (it lacks the right, or its user namespace "
            "maps one id only), and code is not run as root: start as a plain user"
        ) from None
    if keep_reading:
        try:
            _set_capabilities(1 << CAP_DAC_READ_SEARCH)
        except PermissionError:  # containers have only the wider capability
            _set_capabilities(1 << CAP_DAC_OVERRIDE)


def enter_user_namespace(proc: int, extra: int = 0) -> None:
    """Enter a user namespace in which the process has all capabilities inside and none outside.

    The user stays the same. Root becomes nobody: a namespace that maps one id only leaves no other
    user to become.

    Args:
        proc: a descriptor of /proc, which the process may not see any more.
        extra: flags of further namespaces to enter.
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


def enter_small_root(
    folders: Iterable[str], files: Mapping[str, str], modules: Iterable[str] = ()
) -> None:
    """Make a read-only root of some folders and files, and enter it.

    The old root is gone afterwards, and with it /proc, /sys, /etc and every home.

    Args:
        folders: folders to bind at their own paths.
        files: paths of single files, by the names they get below ``FILES``.
        modules: single files to bind at their own paths.
    """
    visible = _drop_nested(folders)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    root = _find_mount_point(visible)
    # All is opened before the new mount can hide a path.
    folder_handles = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in visible}
    targets = _bind_targets(visible, files, modules)
    file_handles = {target: os.open(path, os.O_PATH) for target, path in targets.items()}
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=4m")
    _bind_all(root, folder_handles, file_handles)
    _link_libraries(root)
    if not os.path.lexists(root + "/tmp"):  # it exists if a visible folder lies in it
        os.symlink(SCRATCH, root + "/tmp")
    _make_read_only(root)
    for name in DEVICES:
        _make_read_only(f"{root}/dev/{name}", with_devices=True)
    _pivot_root(root)


def _find_mount_point(visible: list[str]) -> str:
    """Return a folder to mount the new root on: one that holds no visible folder."""
    for point in MOUNT_POINTS:
        if os.path.isdir(point) and not any(_is_within(path, point) for path in visible):
            return point
    raise OSError(f"none of {', '.join(MOUNT_POINTS)} can be mounted on")


def _bind_targets(
    visible: list[str], files: Mapping[str, str], modules: Iterable[str]
) -> dict[str, str]:
    """Map the paths of single files in the new root to their paths in the old one."""
    targets = {f"{FILES}/{name}": path for name, path in files.items()}
    hidden = [path for path in modules if not any(_is_within(path, other) for other in visible)]
    own_paths = (*hidden, *(f"/dev/{name}" for name in DEVICES))
    return targets | {path: path for path in own_paths}


def _bind_all(root: str, folders: Mapping[str, int], files: Mapping[str, int]) -> None:
    """Mount open folders and files in the new root, by their paths in it."""
    for path, handle in folders.items():
        os.makedirs(root + path, exist_ok=True)
        _bind(handle, root + path, MS_REC)
    for path in ("/dev", FILES, SCRATCH):
        os.makedirs(root + path, exist_ok=True)
    for path, handle in files.items():
        os.makedirs(root + os.path.dirname(path), exist_ok=True)
        os.close(os.open(root + path, os.O_CREAT | os.O_WRONLY, 0o644))
        _bind(handle, root + path)


def _bind(handle: int, target: str, flags: int = 0) -> None:
    """Mount an open file or folder at ``target``, and close it."""
    mount(f"/proc/self/fd/{handle}", target, flags=MS_BIND | flags)
    os.close(handle)


def _pivot_root(root: str) -> None:
    """Make ``root`` the root of this mount namespace, and unmount the old one."""
    os.chdir(root)
    _syscall(NUMBERS[os.uname().machine][0], b".", b".")
    _check(_libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def _link_libraries(root: str) -> None:
    """Copy links at the top such as /lib -> usr/lib: the loader names its files by them."""
    for name in ("lib", "lib64", "lib32", "bin"):
        if os.path.islink(f"/{name}") and not os.path.lexists(f"{root}/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{root}/{name}")


def _make_read_only(path: str, *, with_devices: bool = False) -> None:
    to_set, to_clear = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV, 0
    if with_devices:  # the recursive call on the root has set NODEV here: it stays until cleared
        to_set, to_clear = ATTR_RDONLY | ATTR_NOSUID, ATTR_NODEV
    attributes = (ctypes.c_uint64 * 4)(to_set, to_clear, 0, 0)
    _syscall(
        MOUNT_SETATTR, AT_FDCWD, path.encode(), AT_RECURSIVE, attributes, ctypes.sizeof(attributes)
    )


def _drop_nested(folders: Iterable[str]) -> list[str]:
    """Return the existing folders that lie in no other one, sorted."""
    outermost: list[str] = []
    for folder in sorted(set(folders)):
        if os.path.isdir(folder) and not any(_is_within(folder, other) for other in outermost):
            outermost.append(folder)
    return outermost


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def mount_scratch(size: int, inodes: int) -> None:
    """Mount a private folder with a quota of bytes and of files. It ends with the session."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("tmpfs", SCRATCH, "tmpfs", flags, f"mode=700,size={size},nr_inodes={inodes}")


def drop_capabilities() -> None:
    """Give up all capabilities for good."""
    for capability in range(LAST_CAP + 1):
        # It fails past the last capability, and without the right to drop. In the second case
        # ``no_new_privileges`` keeps the capability from being used.
        if _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == -1:
            break
    _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _set_capabilities(0)


def _set_capabilities(mask: int) -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)(mask, mask, 0, 0, 0, 0)
    _syscall(NUMBERS[os.uname().machine][1], header, data)


def no_new_privileges() -> None:
    """Keep executed programs from gaining privileges."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def landlock_abi() -> int:
    """Return the kernel's version of Landlock; 0 if it has none."""
    return max(0, int(_libc.syscall(CREATE_RULESET, None, 0, 1)))


def restrict_files(readable: Iterable[str], writable: Iterable[str] = ()) -> None:
    """Allow reading below ``readable`` and writing below ``writable``, and no TCP, by Landlock.

    Raises:
        OSError: the kernel's Landlock is too old.
    """
    abi = landlock_abi()
    if abi < MIN_ABI:
        raise OSError(f"the kernel has Landlock ABI {abi}; {MIN_ABI} is needed")
    ruleset = _create_ruleset(abi)
    for path in readable:
        _allow_path(ruleset, path, READ_FILE | READ_DIR)
    for path in writable:
        _allow_path(ruleset, path, SCRATCH_RIGHTS)
    _syscall(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _create_ruleset(abi: int) -> int:
    """Create a ruleset that handles all that this version of Landlock can restrict."""
    fields = [FILES_ALL]
    if abi >= 4:
        fields.append(NET_ALL)
    if abi >= 5:
        fields[0] |= DEVICE_IOCTL
    if abi >= 6:
        fields.append(SCOPES)
    attributes = (ctypes.c_uint64 * len(fields))(*fields)
    return _syscall(CREATE_RULESET, attributes, ctypes.sizeof(attributes), 0)


def _allow_path(ruleset: int, path: str, access: int) -> None:
    handle = os.open(path, os.O_PATH)
    if not stat.S_ISDIR(os.fstat(handle).st_mode):
        access &= READ_FILE | WRITE_FILE  # rights of folders are refused for a single file
    rule = access.to_bytes(8, "little") + handle.to_bytes(4, "little")
    _syscall(ADD_RULE, ruleset, 1, rule, 0)
    os.close(handle)


class _FilterProgram(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def filter_calls(program: bytes | None = None) -> None:
    """Allow only the system calls of the table from here on, by seccomp.

    Args:
        program: the filter; None builds it for this process.
    """
    program = program or seccomp_filter(os.getpid())
    code = ctypes.create_string_buffer(program, len(program))
    packed = _FilterProgram(len(program) // 8, ctypes.cast(code, ctypes.c_void_p))
    seccomp = NUMBERS[os.uname().machine][2]
    _syscall(seccomp, SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(packed))


def limit(memory: int, cpu_s: int, file_size: int, open_files: int, processes: int) -> None:
    """Set resource limits, which cannot be raised again."""
    limits = (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_NOFILE, open_files),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 256),
    )
    for kind, value in limits:
        # The soft limit on processor time sends a signal one second before the hard one kills.
        margin = 1 if kind == resource.RLIMIT_CPU else 0
        hard = value + margin
        _, inherited = resource.getrlimit(kind)
        if inherited != resource.RLIM_INFINITY:
            hard = min(hard, inherited)
        resource.setrlimit(kind, (max(0, hard - margin), hard))
