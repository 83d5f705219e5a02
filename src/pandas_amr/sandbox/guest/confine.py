"""Confine a process on Linux: namespaces, a small root, Landlock, seccomp, resource limits.

The calls are made by ``ctypes``. This module runs inside the sandbox's own processes, so it imports
the standard library and the table of calls only.
"""

from __future__ import annotations

import ctypes
import os
import resource
import stat
from typing import TYPE_CHECKING, NamedTuple

from pandas_amr.sandbox.guest.rights import FILES, SCRATCH
from pandas_amr.sandbox.guest.syscalls import seccomp_filter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The numbers of Linux: namespaces, as unshare(2) has them
NEW_MOUNTS = 0x00020000
NEW_CGROUP = 0x02000000
NEW_UTS = 0x04000000
NEW_IPC = 0x08000000
NEW_USER = 0x10000000
NEW_PIDS = 0x20000000
NEW_NET = 0x40000000
NEW_OTHERS = NEW_CGROUP | NEW_UTS | NEW_IPC | NEW_NET

# Flags of mount(2) and umount2(2)
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

# The call mount_setattr(2), and its flags
MOUNT_SETATTR = 442
AT_FDCWD = -100
AT_RECURSIVE = 0x8000
ATTR_RDONLY = 1
ATTR_NOSUID = 2
ATTR_NODEV = 4

# Operations of prctl(2)
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
SIGKILL = 9

# What capset(2) takes, and capabilities(7)
CAPABILITY_VERSION = 0x20080522  # the third, of 64 capabilities
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
LAST_CAP = 63

# Landlock (https://docs.kernel.org/userspace-api/landlock.html)
CREATE_RULESET = 444
ADD_RULE = 445
RESTRICT_SELF = 446
ASK_VERSION = 1  # a flag of CREATE_RULESET
PATH_BENEATH = 1  # a type of rule
MIN_ABI = 3  # older ones do not stop truncation by path
EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
FILES_ALL = (1 << 15) - 1  # from execute to refer and truncate
DEVICE_IOCTL = 1 << 15  # ABI 5
NET_ALL = 3  # TCP bind and connect, ABI 4
SCOPES = 3  # abstract unix sockets and signals, ABI 6
SCRATCH_RIGHTS = FILES_ALL & ~EXECUTE

SECCOMP_SET_MODE_FILTER = 1


class _CallNumbers(NamedTuple):
    """The numbers of the system calls that have others on another architecture."""

    pivot_root: int
    capset: int
    seccomp: int


NUMBERS = {
    "x86_64": _CallNumbers(pivot_root=155, capset=126, seccomp=317),
    "aarch64": _CallNumbers(pivot_root=41, capset=91, seccomp=277),
}

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
    kind_or_null = kind.encode() or None
    options_or_null = options.encode() or None
    result = _libc.mount(source.encode(), target.encode(), kind_or_null, flags, options_or_null)
    _check(result, f"mount {kind or 'bind'} at {target}")


def prefer_for_oom_kill(proc: int) -> None:
    """Have the kernel kill this process and its forks first when memory runs out.

    Args:
        proc: a descriptor of /proc.
    """
    _write_own(proc, "oom_score_adj", "1000")


def _write_own(proc: int, name: str, text: str) -> None:
    """Write to a file of this process below /proc, of which ``proc`` is a descriptor."""
    handle = os.open(f"self/{name}", os.O_WRONLY, dir_fd=proc)
    os.write(handle, text.encode())
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
        _, wait_status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(wait_status) == 0
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
    uid = os.getuid()
    gid = os.getgid()
    _prctl(PR_SET_DUMPABLE, 1)  # else /proc/self belongs to root
    unshare(NEW_USER | extra)
    _write_own(proc, "setgroups", "deny")  # before gid_map, which is refused else
    _write_own(proc, "uid_map", f"{uid or NOBODY} {uid} 1")
    _write_own(proc, "gid_map", f"{gid or NOBODY} {gid} 1")


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
    hidden = [path for path in modules if not _is_in_any(path, visible)]
    targets |= {path: path for path in hidden}
    for name in DEVICES:
        device = f"/dev/{name}"
        targets[device] = device
    return targets


def _bind_all(root: str, folders: Mapping[str, int], files: Mapping[str, int]) -> None:
    """Mount open folders and files in the new root, by their paths in it."""
    for path, handle in folders.items():
        target = root + path
        os.makedirs(target, exist_ok=True)
        _bind(handle, target, MS_REC)
    for path in ("/dev", FILES, SCRATCH):
        os.makedirs(root + path, exist_ok=True)
    for path, handle in files.items():
        target = root + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        empty = os.open(target, os.O_CREAT | os.O_WRONLY, 0o644)
        os.close(empty)
        _bind(handle, target)


def _bind(handle: int, target: str, flags: int = 0) -> None:
    """Mount an open file or folder at ``target``, and close it."""
    mount(f"/proc/self/fd/{handle}", target, flags=MS_BIND | flags)
    os.close(handle)


def _pivot_root(root: str) -> None:
    """Make ``root`` the root of this mount namespace, and unmount the old one."""
    numbers = NUMBERS[os.uname().machine]
    os.chdir(root)
    _syscall(numbers.pivot_root, b".", b".")
    _check(_libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def _link_libraries(root: str) -> None:
    """Copy links at the top such as /lib -> usr/lib: the loader names its files by them."""
    for name in ("lib", "lib64", "lib32", "bin"):
        link = f"/{name}"
        copy = root + link
        if os.path.islink(link) and not os.path.lexists(copy):
            os.symlink(os.readlink(link), copy)


def _make_read_only(path: str, *, with_devices: bool = False) -> None:
    to_set = ATTR_RDONLY | ATTR_NOSUID
    to_clear = 0
    if with_devices:
        to_clear = ATTR_NODEV  # the recursive call on the root has set it here
    else:
        to_set |= ATTR_NODEV
    attributes = (ctypes.c_uint64 * 4)(to_set, to_clear, 0, 0)
    size = ctypes.sizeof(attributes)
    _syscall(MOUNT_SETATTR, AT_FDCWD, path.encode(), AT_RECURSIVE, attributes, size)


def _drop_nested(folders: Iterable[str]) -> list[str]:
    """Return the existing folders that lie in no other one, sorted."""
    outermost: list[str] = []
    for folder in sorted(set(folders)):
        if os.path.isdir(folder) and not _is_in_any(folder, outermost):
            outermost.append(folder)
    return outermost


def _is_in_any(path: str, folders: Iterable[str]) -> bool:
    return any(_is_within(path, folder) for folder in folders)


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
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    # Effective, permitted and inheritable ones: the lower 32 bits of each, then the upper.
    data = (ctypes.c_uint32 * 6)(mask, mask, 0, 0, 0, 0)
    numbers = NUMBERS[os.uname().machine]
    _syscall(numbers.capset, header, data)


def no_new_privileges() -> None:
    """Keep executed programs from gaining privileges."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def landlock_abi() -> int:
    """Return the kernel's version of Landlock; 0 if it has none."""
    version = int(_libc.syscall(CREATE_RULESET, None, 0, ASK_VERSION))
    return max(0, version)


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
    _syscall(ADD_RULE, ruleset, PATH_BENEATH, rule, 0)
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
    instructions = len(program) // 8
    packed = _FilterProgram(instructions, ctypes.cast(code, ctypes.c_void_p))
    numbers = NUMBERS[os.uname().machine]
    _syscall(numbers.seccomp, SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(packed))


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
