"""Which system calls a session may make: names, their numbers, and the filter that the kernel runs (seccomp-BPF).

An allow-list: what is not named is refused with EPERM. Some are allowed only with harmless arguments. Runs inside the
sandbox's own processes, so it imports nothing but the standard library.
"""

from __future__ import annotations

import errno
import platform
import socket
import struct

# name: (x86_64, aarch64); None where the architecture has no such call
CALLS: dict[str, tuple[int | None, int | None]] = {
    # files that are open, and files by path (the mounts and Landlock say which)
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
    "eventfd2": (
        290,
        19,
    ),  # and no epoll: the kernel counts watches per user, and one file can be watched many times
    "setitimer": (38, 103),
    "getitimer": (36, 102),
    # threads, signals of its own
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
    # who and where it is
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
    # the protocol's own stream, and asyncio's wake-up pair
    "getsockname": (51, 204),
    "shutdown": (48, 210),
}

# Allowed with some arguments: name, numbers, index of the argument looked at, values that it may have.
IOCTLS = (
    0x5451,
    0x5450,
    0x5401,
    0x541B,
    0x5421,
    0x5413,
)  # FIOCLEX FIONCLEX TCGETS FIONREAD FIONBIO TIOCGWINSZ
FCNTLS = (
    0,
    1,
    2,
    3,
    4,
    1030,
    1032,
    1034,
)  # DUPFD GETFD SETFD GETFL SETFL DUPFD_CLOEXEC GETPIPE_SZ GET_SEALS
# Answered with success and not made: F_SETLK F_SETLKW F_OFD_SETLK F_OFD_SETLKW. Nobody shares what a session may write,
# so that SQLite needs none; a lock that is made takes kernel memory, shuts a file against the host, and can be seen.
LOCKS = (6, 7, 37, 38)
CLOSE_RANGES = (
    0,
    4,
)  # CLOSE_RANGE_CLOEXEC; UNSHARE would give a thread a table of its own, and limits of its own
PIPES = (0, 0o2000000, 0o4000, 0o2004000)  # O_CLOEXEC, O_NONBLOCK
FILE_ADVICE = (
    0,
    1,
    2,
    3,
    5,
)  # all but POSIX_FADV_DONTNEED, which empties the machine's cache of a file
# NORMAL RANDOM SEQUENTIAL WILLNEED DONTNEED FREE DONTFORK DOFORK HUGEPAGE NOHUGEPAGE DONTDUMP DODUMP: what stays in the
# process. MERGEABLE would share pages with others who hold the same, and PAGEOUT throw out what others read.
MEMORY_ADVICE = (0, 1, 2, 3, 4, 8, 10, 11, 14, 15, 16, 17)
MESSAGES = tuple(
    peek | wait | quiet for peek in (0, 2) for wait in (0, 0x40) for quiet in (0, 0x4000)
)  # no MSG_OOB
PR_NAMES = (15, 16)  # PR_SET_NAME, PR_GET_NAME
FUTEX_PRIVATE = 128
FUTEX_WAITS = (0, 9, 265)  # FUTEX_WAIT, FUTEX_WAIT_BITSET, and that with FUTEX_CLOCK_REALTIME
MAP_HUGETLB = 0x40000
CLONE_THREAD, CLONE_FILES, CLONE_FS = 0x00010000, 0x00000400, 0x00000200
CLONE_SHARED = (
    CLONE_THREAD | CLONE_FILES | CLONE_FS
)  # a thread with a table of its own would have limits of its own
CLONE_NAMESPACES = 0x7E020080  # every CLONE_NEW* flag

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_LOAD, _EQUALS, _ANY_BIT, _RETURN, _AND = 0x20, 0x15, 0x45, 0x06, 0x54
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000
_KILL = 0x80000000
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16


def seccomp_filter(pid: int) -> bytes:
    """The filter as the kernel takes it: a packed array of ``struct sock_filter``, for the process ``pid``."""
    column, architecture = ARCHITECTURES[platform.machine()]
    program = [
        _step(_LOAD, _ARCH),
        _step(_EQUALS, architecture, 1, 0),
        _step(_RETURN, _KILL),
    ]
    for numbers, index, values in _by_argument(pid):
        number = numbers[column]
        if number is not None:
            program += _with_argument(number, index, values)
    program += _with_argument((72, 25)[column], 1, FCNTLS, pretended=LOCKS)
    program += _mmap((9, 222)[column])
    program += _futex((202, 98)[column])
    program += _clone((56, 220)[column], (435, 435)[column])
    program += _socketpair((53, 199)[column])
    program += _only_null((302, 261)[column])
    program.append(_step(_LOAD, _NUMBER))
    for pair in CALLS.values():
        number = pair[column]
        if number is not None:
            program += [_step(_EQUALS, number, 0, 1), _step(_RETURN, _ALLOW)]
    program.append(_step(_RETURN, _REFUSE | errno.EPERM))
    return b"".join(program)


def _by_argument(pid: int) -> list[tuple[tuple[int | None, int | None], int, tuple[int, ...]]]:
    me = (pid,)
    return [
        ((16, 29), 1, IOCTLS),
        ((157, 167), 0, PR_NAMES),
        ((62, 129), 0, me),  # kill
        ((234, 131), 0, me),  # tgkill
        ((436, 436), 2, CLOSE_RANGES),
        ((221, 223), 3, FILE_ADVICE),  # fadvise64
        ((28, 233), 2, MEMORY_ADVICE),  # madvise
        ((293, 59), 1, PIPES),  # pipe2
        ((44, 206), 3, MESSAGES),  # sendto
        ((45, 207), 3, MESSAGES),  # recvfrom
    ]


def _with_argument(
    number: int, index: int, values: tuple[int, ...], pretended: tuple[int, ...] = ()
) -> list[bytes]:
    """Allow the call where the low half of its argument is one of ``values`` and the high half is empty.

    Where it is one of ``pretended``, the call is answered with success and not made.
    """
    outcomes = [(value, _ALLOW) for value in values] + [(value, _REFUSE) for value in pretended]
    steps = len(outcomes) * 2 + 5
    return [
        _step(_LOAD, _NUMBER),
        _step(_EQUALS, number, 0, steps),
        _step(_LOAD, _ARGUMENTS + 8 * index + 4),
        _step(_EQUALS, 0, 1, 0),
        _step(_RETURN, _REFUSE | errno.EPERM),
        _step(_LOAD, _ARGUMENTS + 8 * index),
        *(
            step
            for value, outcome in outcomes
            for step in (_step(_EQUALS, value, 0, 1), _step(_RETURN, outcome))
        ),
        _step(_RETURN, _REFUSE | errno.EPERM),
    ]


def _mmap(number: int) -> list[bytes]:
    """Memory but for huge pages of the machine's pool, which no limit of a process counts."""
    return [
        _step(_LOAD, _NUMBER),
        _step(_EQUALS, number, 0, 4),
        _step(_LOAD, _ARGUMENTS + 24),
        _step(_ANY_BIT, MAP_HUGETLB, 1, 0),
        _step(_RETURN, _ALLOW),
        _step(_RETURN, _REFUSE | errno.EPERM),
    ]


def _futex(number: int) -> list[bytes]:
    """Waiting and waking inside the process. Others who have a file in memory could be woken by it, and tell by that.

    A thread that is joined wakes by a futex that is not private, so that such a wait is allowed, and no more.
    """
    waits = [
        step
        for value in FUTEX_WAITS
        for step in (_step(_EQUALS, value, 0, 1), _step(_RETURN, _ALLOW))
    ]
    return [
        _step(_LOAD, _NUMBER),
        _step(_EQUALS, number, 0, 4 + len(waits)),
        _step(_LOAD, _ARGUMENTS + 8),
        _step(_ANY_BIT, FUTEX_PRIVATE, 0, 1),
        _step(_RETURN, _ALLOW),
        *waits,
        _step(_RETURN, _REFUSE | errno.EPERM),
    ]


def _clone(clone: int, clone3: int) -> list[bytes]:
    """Threads that share descriptors, and nothing else.

    ``clone3`` hides its flags behind a pointer: ENOSYS makes the C library fall back.
    """
    return [
        _step(_LOAD, _NUMBER),
        _step(_EQUALS, clone3, 0, 1),
        _step(_RETURN, _REFUSE | errno.ENOSYS),
        _step(_EQUALS, clone, 0, 6),
        _step(_LOAD, _ARGUMENTS),
        _step(_ANY_BIT, CLONE_NAMESPACES & ~CLONE_THREAD, 3, 0),
        _step(_AND, CLONE_SHARED),
        _step(_EQUALS, CLONE_SHARED, 0, 1),
        _step(_RETURN, _ALLOW),
        _step(_RETURN, _REFUSE | errno.EPERM),
    ]


def _socketpair(number: int) -> list[bytes]:
    """A pair of connected ends inside the process, which asyncio wakes itself with; no other socket."""
    return [
        _step(_LOAD, _NUMBER),
        _step(_EQUALS, number, 0, 7),
        _step(_LOAD, _ARGUMENTS),
        _step(_EQUALS, socket.AF_UNIX, 0, 4),
        _step(_LOAD, _ARGUMENTS + 8),
        _step(_AND, 0xF),
        _step(_EQUALS, socket.SOCK_STREAM, 0, 1),
        _step(_RETURN, _ALLOW),
        _step(_RETURN, _REFUSE | errno.EPERM),
    ]


def _only_null(number: int) -> list[bytes]:
    """``prlimit64`` that reads its own limits and sets none."""
    pid, new = _ARGUMENTS, _ARGUMENTS + 16
    return [
        _step(_LOAD, _NUMBER),
        _step(_EQUALS, number, 0, 8),
        _step(_LOAD, pid),
        _step(_EQUALS, 0, 0, 5),
        _step(_LOAD, new),
        _step(_EQUALS, 0, 0, 3),
        _step(_LOAD, new + 4),
        _step(_EQUALS, 0, 0, 1),
        _step(_RETURN, _ALLOW),
        _step(_RETURN, _REFUSE | errno.EPERM),
    ]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value & 0xFFFFFFFF)
