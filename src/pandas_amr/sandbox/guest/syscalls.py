"""Build the seccomp-BPF filter: an allow-list of the system calls that a session may make.

A call that is not listed fails with EPERM. Some calls are allowed only with harmless arguments.
This module runs inside the sandbox's own processes, so it imports the standard library only.
"""

from __future__ import annotations

import errno
import platform
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

# name: (x86_64, aarch64); None if the architecture has no such call
CALLS: dict[str, tuple[int | None, int | None]] = {
    # open files, and files by path (mounts and Landlock decide which)
    "read": (0, 63),
    "write": (1, 64),
    "open": (2, None),
    "close": (3, 57),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "poll": (7, None),
    "lseek": (8, 62),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "readv": (19, 65),
    "writev": (20, 66),
    "access": (21, None),
    "pipe": (22, None),
    "select": (23, None),
    "dup": (32, 23),
    "dup2": (33, None),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "ftruncate": (77, 46),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    "chdir": (80, 49),
    "rename": (82, None),
    "mkdir": (83, None),
    "rmdir": (84, None),
    "unlink": (87, None),
    "readlink": (89, None),
    "openat": (257, 56),
    "mkdirat": (258, 34),
    "newfstatat": (262, 79),
    "unlinkat": (263, 35),
    "renameat": (264, 38),
    "readlinkat": (267, 78),
    "faccessat": (269, 48),
    "pselect6": (270, 72),
    "ppoll": (271, 73),
    "fallocate": (285, 47),
    "dup3": (292, 24),
    "preadv": (295, 69),
    "pwritev": (296, 70),
    "renameat2": (316, 276),
    "copy_file_range": (326, 285),
    "statx": (332, 291),
    "faccessat2": (439, 439),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    # memory
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "mremap": (25, 216),
    # time, waiting, events
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "times": (100, 153),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    # No epoll: the kernel counts its watches per user, and one file can be watched many times.
    "eventfd2": (290, 19),
    "setitimer": (38, 103),
    "getitimer": (36, 102),
    # threads, and signals to itself
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "membarrier": (324, 283),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "restart_syscall": (219, 128),
    # identity of the process
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getrusage": (98, 165),
    "getrlimit": (97, None),
    "uname": (63, 160),
    "getcpu": (309, 168),
    "getrandom": (318, 278),
    # the stream of the protocol, and the pair of sockets that wakes asyncio
    "getsockname": (51, 204),
    "shutdown": (48, 210),
}

# Values that an argument of a call may have (see ``_argument_rules``).
# FIOCLEX, FIONCLEX, TCGETS, FIONREAD, FIONBIO, TIOCGWINSZ
IOCTLS = (0x5451, 0x5450, 0x5401, 0x541B, 0x5421, 0x5413)
# DUPFD, GETFD, SETFD, GETFL, SETFL, DUPFD_CLOEXEC, GETPIPE_SZ, GET_SEALS
FCNTLS = (0, 1, 2, 3, 4, 1030, 1032, 1034)
# F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW: these report success and take no lock. A real lock
# takes kernel memory, blocks the file for the host, and is visible to others. SQLite needs none
# here: nobody else writes to the files of a session.
LOCKS = (6, 7, 37, 38)
# 0 and CLOSE_RANGE_CLOEXEC. CLOSE_RANGE_UNSHARE would give a thread its own descriptor table with
# its own limit.
CLOSE_RANGES = (0, 4)
PIPES = (0, 0o2000000, 0o4000, 0o2004000)  # O_CLOEXEC, O_NONBLOCK
# All but POSIX_FADV_DONTNEED, which empties the machine's cache of a file.
FILE_ADVICE = (0, 1, 2, 3, 5)
# NORMAL, RANDOM, SEQUENTIAL, WILLNEED, DONTNEED, FREE, DONTFORK, DOFORK, HUGEPAGE, NOHUGEPAGE,
# DONTDUMP, DODUMP: these affect this process only. MERGEABLE would share pages with other processes
# of equal content, and PAGEOUT would evict pages that others read.
MEMORY_ADVICE = (0, 1, 2, 3, 4, 8, 10, 11, 14, 15, 16, 17)
# Every sum of MSG_PEEK, MSG_DONTWAIT and MSG_NOSIGNAL; no MSG_OOB.
MESSAGES = tuple(
    peek | wait | quiet for peek in (0, 2) for wait in (0, 0x40) for quiet in (0, 0x4000)
)
PR_NAMES = (15, 16)  # PR_SET_NAME, PR_GET_NAME
FUTEX_PRIVATE = 128
FUTEX_WAITS = (0, 9, 265)  # FUTEX_WAIT, FUTEX_WAIT_BITSET, and that with FUTEX_CLOCK_REALTIME
MAP_HUGETLB = 0x40000
CLONE_THREAD, CLONE_FILES, CLONE_FS = 0x00010000, 0x00000400, 0x00000200
# A thread with its own descriptor table would have its own limits.
CLONE_SHARED = CLONE_THREAD | CLONE_FILES | CLONE_FS
CLONE_NAMESPACES = 0x7E020080  # every CLONE_NEW* flag

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_LOAD, _EQUALS, _ANY_BIT, _RETURN, _AND = 0x20, 0x15, 0x45, 0x06, 0x54
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_KILL = 0x80000000
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16


class ArgumentRule(NamedTuple):
    """A call that is allowed only if one of its arguments has one of some values."""

    numbers: tuple[int, int]  # of x86_64 and aarch64
    argument: int
    values: tuple[int, ...]


def seccomp_filter(pid: int) -> bytes:
    """Build the filter for the process ``pid``: a packed array of ``struct sock_filter``."""
    column, architecture = ARCHITECTURES[platform.machine()]
    program = [
        _step(_LOAD, _ARCH),
        _step(_EQUALS, architecture, 1, 0),
        _step(_RETURN, _KILL),
    ]
    for rule in _argument_rules(pid):
        program += _check_argument(rule.numbers[column], rule.argument, rule.values)
    program += _check_argument((72, 25)[column], 1, FCNTLS, ignored=LOCKS)
    program += _check_mmap((9, 222)[column])
    program += _check_futex((202, 98)[column])
    program += _check_clone((56, 220)[column], clone3=435)
    program += _check_socketpair((53, 199)[column])
    program += _check_prlimit64((302, 261)[column])
    program.append(_step(_LOAD, _NUMBER))
    for numbers in CALLS.values():
        number = numbers[column]
        if number is not None:
            program += _if_equal(number, [_allow()])
    program.append(_refuse())
    return b"".join(program)


def _argument_rules(pid: int) -> list[ArgumentRule]:
    """List the calls of which one argument is checked. Signals go to the process itself only."""
    return [
        ArgumentRule((16, 29), 1, IOCTLS),
        ArgumentRule((157, 167), 0, PR_NAMES),  # prctl
        ArgumentRule((62, 129), 0, (pid,)),  # kill
        ArgumentRule((234, 131), 0, (pid,)),  # tgkill
        ArgumentRule((436, 436), 2, CLOSE_RANGES),
        ArgumentRule((221, 223), 3, FILE_ADVICE),  # fadvise64
        ArgumentRule((28, 233), 2, MEMORY_ADVICE),  # madvise
        ArgumentRule((293, 59), 1, PIPES),  # pipe2
        ArgumentRule((44, 206), 3, MESSAGES),  # sendto
        ArgumentRule((45, 207), 3, MESSAGES),  # recvfrom
    ]


def _check_argument(
    number: int, index: int, values: tuple[int, ...], ignored: tuple[int, ...] = ()
) -> list[bytes]:
    """Allow a call if the low half of an argument is in ``values`` and its high half is zero.

    If the low half is one of ``ignored``, report success without making the call.
    """
    steps = [
        _load_argument(index, high=True),
        _step(_EQUALS, 0, 1, 0),
        _refuse(),
        _load_argument(index),
    ]
    for value in values:
        steps += _if_equal(value, [_allow()])
    for value in ignored:
        steps += _if_equal(value, [_refuse(0)])
    return _for_call(number, [*steps, _refuse()])


def _check_mmap(number: int) -> list[bytes]:
    """Allow memory except huge pages of the machine, which no limit of a process counts."""
    steps = [
        _load_argument(3),
        _step(_ANY_BIT, MAP_HUGETLB, 1, 0),
        _allow(),
        _refuse(),
    ]
    return _for_call(number, steps)


def _check_futex(number: int) -> list[bytes]:
    """Allow waiting and waking inside the process.

    A shared futex could wake other processes that map the same file, and so signal to them. Joining
    a thread waits on a futex that is not private: such a wait is allowed, and nothing else.
    """
    steps = [_load_argument(1), _step(_ANY_BIT, FUTEX_PRIVATE, 0, 1), _allow()]
    for value in FUTEX_WAITS:
        steps += _if_equal(value, [_allow()])
    return _for_call(number, [*steps, _refuse()])


def _check_clone(clone: int, clone3: int) -> list[bytes]:
    """Allow threads that share their descriptors, and no process.

    ``clone3`` hides its flags behind a pointer: ENOSYS makes the C library fall back to ``clone``.
    """
    steps = [
        _load_argument(0),
        _step(_ANY_BIT, CLONE_NAMESPACES & ~CLONE_THREAD, 3, 0),
        _step(_AND, CLONE_SHARED),
        *_if_equal(CLONE_SHARED, [_allow()]),
        _refuse(),
    ]
    return [
        _step(_LOAD, _NUMBER),
        *_if_equal(clone3, [_refuse(errno.ENOSYS)]),
        *_if_equal(clone, steps),
    ]


def _check_socketpair(number: int) -> list[bytes]:
    """Allow the pair of stream sockets with which asyncio wakes itself, and no other socket."""
    is_stream = [
        _load_argument(1),
        _step(_AND, 0xF),
        *_if_equal(socket.SOCK_STREAM, [_allow()]),
    ]
    steps = [_load_argument(0), *_if_equal(socket.AF_UNIX, is_stream)]
    # For another family the jump above ends at the refusal, as it does for another type.
    return _for_call(number, [*steps, _refuse()])


def _check_prlimit64(number: int) -> list[bytes]:
    """Allow ``prlimit64`` to read the process's own limits, and not to set one."""
    high_is_zero = [_load_argument(2, high=True), *_if_equal(0, [_allow()])]
    new_is_null = [_load_argument(2), *_if_equal(0, high_is_zero)]
    steps = [_load_argument(0), *_if_equal(0, new_is_null)]
    return _for_call(number, [*steps, _refuse()])


def _for_call(number: int, steps: Sequence[bytes]) -> list[bytes]:
    """Run ``steps`` if the call is ``number``; each way through them returns."""
    return [_step(_LOAD, _NUMBER), *_if_equal(number, steps)]


def _if_equal(value: int, steps: Sequence[bytes]) -> list[bytes]:
    """Run ``steps`` if the loaded value equals ``value``, else jump over them."""
    return [_step(_EQUALS, value, 0, len(steps)), *steps]


def _load_argument(index: int, *, high: bool = False) -> bytes:
    """Load the low or the high half of an argument."""
    return _step(_LOAD, _ARGUMENTS + 8 * index + 4 * high)


def _allow() -> bytes:
    return _step(_RETURN, _ALLOW)


def _refuse(error: int = errno.EPERM) -> bytes:
    """Return ``error`` without making the call; 0 reports success."""
    return _step(_RETURN, _ERRNO | error)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value & 0xFFFFFFFF)
