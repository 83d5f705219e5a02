"""Attempts to get out of a session: to files, secrets, the network, the kernel, other sessions."""

from __future__ import annotations

from pandas_amr.sandbox.conformance.attempt import (
    SHARDS,
    SUCCESS_MARK,
    Goal,
    SandboxAttempt,
    attempts_from,
)


def escapes() -> list[SandboxAttempt]:
    """Attempts to reach what a session should not have."""
    processes = attempts_from("processes", _PROCESSES)
    for name, code, goal, later in _LINGERING:
        processes.append(SandboxAttempt("processes", name, code, goal, later_code=later))
    return [
        *attempts_from("secrets", _SECRETS),
        *attempts_from("files", _FILES),
        *attempts_from("files", _SHARD, prefix="shard-", prelude=SHARDS),
        *attempts_from("secrets", _SIBLINGS, prefix="sibling-"),
        *attempts_from("network", _NETWORK),
        *processes,
        *attempts_from("kernel", _KERNEL),
    ]


def leaks() -> list[SandboxAttempt]:
    """Attempts to learn about the machine, or to signal to a session that starts later."""
    attempts: list[SandboxAttempt] = []
    for name, code, other in _CHANNELS:
        attempts.append(SandboxAttempt("secrets", f"channel-{name}", code, other_code=other))
    for name, code, strong_only in _SEEN:
        attempts.append(SandboxAttempt("secrets", f"seen-{name}", code, strong_only=strong_only))
    return attempts


_SECRETS = [
    ("environment", "won(is_secret(os.environ.get('<<variable>>')))", False),
    (
        "environment-in-c",
        """\
_libc.getenv.restype = ctypes.c_char_p
won(is_secret(_libc.getenv(b'<<variable>>')))""",
        False,
    ),
    ("proc-self-environ", "won(is_secret(open('/proc/self/environ').read()))", False),
    ("proc-host-environ", "won(is_secret(open('/proc/<<victim>>/environ').read()))", False),
    ("proc-list", "won(any(name.isdigit() for name in os.listdir('/proc')))", False),
    ("proc-host-cmdline", "won(len(open('/proc/<<victim>>/cmdline').read()) > 0)", False),
    ("proc-host-memory", "won(len(open('/proc/<<victim>>/maps').read()) > 0)", False),
    ("proc-parent-fd", "won(len(os.listdir('/proc/<<victim>>/fd')) > 0)", False),
    ("secret-file", "won(is_secret(open('<<secret>>').read()))", False),
    (
        "secret-file-by-pandas",
        """\
import pandas
won(is_secret(str(pandas.read_csv('<<secret>>', header=None))))""",
        False,
    ),
    (
        "secret-file-by-arrow",
        """\
import pyarrow
won(is_secret(pyarrow.OSFile('<<secret>>').read()))""",
        False,
    ),
    ("folder-listing", "won('secret.txt' in os.listdir('<<folder>>'))", False),
    ("users", "won('root' in open('/etc/passwd').read())", False),
    ("name-service", "import pwd\nwon(len(pwd.getpwall()) > 0)", False),
    ("shadow", "won(len(open('/etc/shadow').read()) > 0)", True),
    ("home", "won(is_secret(open(os.path.expanduser('<<home>>/.netrc')).read()))", False),
    ("inherited-descriptor", "won(any(_read(handle) for handle in range(3, 100)))", False),
    (
        "kernel-log",
        """\
buffer = ctypes.create_string_buffer(4096)
won(syscall(103, 3, buffer, 4096) > 0)""",
        True,
    ),
    ("keyring", "won(syscall(250, 0, -4, 1) > 0)", False),
    ("cgroups", "won(len(os.listdir('/sys/fs/cgroup')) > 0)", False),
    ("devices", "won(len(os.listdir('/sys/class/net')) > 0)", False),
]
_FILES = [
    ("write-new", "open('<<folder>>/new', 'w').write('x')\nwon()", False),
    ("overwrite", "open('<<secret>>', 'a').write('')\nwon()", False),
    ("truncate-by-path", "os.truncate('<<spare>>', 0)\nwon()", False),
    ("truncate-by-call", "syscall(76, b'<<spare>>', 0)\nwon()", False),
    ("remove", "os.remove('<<spare2>>')\nwon()", False),
    ("rename", "os.rename('<<spare3>>', '<<spare3>>x')\nwon()", False),
    ("chmod", "os.chmod('<<spare>>', 0o777)\nwon()", False),
    ("chown", "os.chown('<<spare>>', os.getuid(), os.getgid())\nwon()", False),
    ("times", "os.utime('<<spare>>', (1, 1))\nwon()", False),
    ("mode-by-descriptor", "os.fchmod(os.open('<<spare>>', os.O_RDONLY), 0o777)\nwon()", False),
    (
        "mode-of-package",
        """\
import json
h = os.open(json.__file__, os.O_RDONLY)
os.fchmod(h, os.fstat(h).st_mode & 0o7777)
won()""",
        True,
    ),
    (
        "times-of-package",
        """\
import json
s = os.stat(json.__file__)
os.utime(json.__file__, ns=(s.st_atime_ns, s.st_mtime_ns))
won()""",
        True,
    ),
    ("attributes", "os.setxattr('<<spare>>', 'user.x', b'1')\nwon()", False),
    ("make-folder", "os.mkdir('<<folder>>/made')\nwon()", False),
    (
        "link-by-name",
        """\
os.symlink('<<secret>>', 'way')
won(is_secret(open('way').read()))""",
        False,
    ),
    ("hard-link", "os.link('<<secret>>', '<<folder>>/hard')\nwon()", False),
    (
        "to-csv",
        """\
import pandas
pandas.DataFrame({'a': [1]}).to_csv('<<folder>>/out.csv')
won()""",
        False,
    ),
    (
        "sqlite",
        """\
import sqlite3
sqlite3.connect('<<folder>>/x.db').execute('create table t(a)')
won()""",
        False,
    ),
    (
        "package-file",
        """\
import json
open(json.__file__, 'a').close()
won()""",
        True,
    ),
    (
        "package-folder",
        """\
import json
p = os.path.dirname(json.__file__) + '/amr_probe'
open(p, 'w').close()
os.remove(p)
won()""",
        True,
    ),
    ("start-up-file", "open('<<home>>/.bashrc', 'a').close()\nwon()", False),
    ("pipe-by-name", "os.mkfifo('<<folder>>/pipe')\nwon()", False),
    (
        "device-node",
        """\
import stat
os.mknod('<<folder>>/null', stat.S_IFCHR | 0o666, os.makedev(1, 3))
won()""",
        True,
    ),
    (
        "kernel-setting",
        """\
p = '/proc/sys/kernel/printk_delay'
v = open(p).read()
open(p, 'w').write(v)
won()""",
        True,
    ),
    (
        "by-handle",
        """\
b = ctypes.create_string_buffer(b'\\x80\\0\\0\\0' + b'\\0' * 200)
m = ctypes.c_int()
syscall(303, -100, b'<<secret>>', b, ctypes.byref(m), 0)
won(is_secret(os.read(syscall(304, os.open('<<folder>>', 0), b, 0), 64)))""",
        True,
    ),
    ("climb", "won(is_secret(open('../../../../../../../../..<<secret>>').read()))", False),
]
_SHARD = [
    ("written", "for h in shards(): os.pwrite(h, b'xxxx', 0)\nwon(turned())", False),
    ("cut", "for h in shards(): os.ftruncate(h, 0)\nwon(turned())", False),
    (
        "grown",
        """\
for h in shards():
    os.ftruncate(h, 1 << 24)
    won(os.fstat(h).st_size == 1 << 24)""",
        False,
    ),
    (
        "holed",
        """\
for h in shards(): _libc.fallocate(h, 3, ctypes.c_long(0), ctypes.c_long(4096))
won(turned())""",
        False,
    ),
    (
        "sealed-by-code",
        """\
for h in shards():
    fcntl.fcntl(h, 1033, 8)
    won()""",
        False,
    ),
    (
        "mapped",
        """\
for h in shards(): mmap.mmap(h, 0, mmap.MAP_SHARED)[:4] = b'xxxx'
won(turned())""",
        False,
    ),
    (
        "opened-again",
        """\
for h in shards(): os.pwrite(os.open(f'/proc/self/fd/{h}', os.O_RDWR), b'xxxx', 0)
won(turned())""",
        False,
    ),
    (
        "map-opened",
        """\
kept = [mmap.mmap(h, 0, mmap.MAP_SHARED, mmap.PROT_READ) for h in shards()]
f = '/proc/self/map_files'
for n in os.listdir(f):
    if 'memfd' in os.readlink(f'{f}/{n}'): os.pwrite(os.open(f'{f}/{n}', os.O_RDWR), b'xxxx', 0)
won(turned())""",
        True,
    ),
    (
        "map-laid-open",
        """\
import numpy
maps = [mmap.mmap(h, 0, mmap.MAP_SHARED, mmap.PROT_READ) for h in shards()]
frame = sys._getframe()
while frame:
    maps += [value for value in frame.f_locals.values() if isinstance(value, memoryview)]
    frame = frame.f_back
for one in maps:
    place = numpy.frombuffer(one, dtype="u1").ctypes.data
    _libc.mprotect(ctypes.c_void_p(place), 4096, 3) == 0 and ctypes.memmove(place, b"xxxx", 4)
won(turned())""",
        False,
    ),
    (
        "shared-by-name",
        """\
p = '/dev/shm/<<abstract>>'
open(p, 'w').close()
os.remove(p)
won()""",
        False,
    ),
]
_SIBLINGS = [
    (
        "memory",
        """\
b = ctypes.create_string_buffer(32)
syscall(310, <<sibling>>, struct.pack('QQ', ctypes.addressof(b), 32), 1, struct.pack('QQ', \
<<address>>, 32), 1, ctypes.c_ulong(0))
won(is_secret(b.raw))""",
        True,
    ),
    (
        "memory-of-all",
        """\
b = ctypes.create_string_buffer(32)
there, here = struct.pack("QQ", <<address>>, 32), struct.pack("QQ", ctypes.addressof(b), 32)
near = (os.getpid() + step * sign for step in range(300) for sign in (1, -1))
for pid in (<<sibling>>, *near):
    pid > 0 and _libc.process_vm_readv(pid, here, ctypes.c_ulong(1), there, ctypes.c_ulong(1), \
ctypes.c_ulong(0))
    if is_secret(b.raw):
        won()
        break""",
        True,
    ),
    (
        "memory-written",
        """\
b = ctypes.create_string_buffer(b'y', 2)
won(syscall(311, <<sibling>>, struct.pack('QQ', ctypes.addressof(b), 1), 1, struct.pack('QQ', \
<<address>> + 32, 1), 1, ctypes.c_ulong(0)) == 1 and <<sibling>> != os.getpid())""",
        True,
    ),
    (
        "memory-by-file",
        """\
h = os.open('/proc/<<sibling>>/mem', os.O_RDONLY)
won(is_secret(os.pread(h, 32, <<address>>)))""",
        True,
    ),
    ("folder", "won(is_secret(open('<<sibling_folder>>/left.txt').read()))", False),
    ("signal", "os.kill(<<sibling>>, 0)\nwon(<<sibling>> != os.getpid())", False),
    (
        "descriptors",
        """\
h = os.pidfd_open(<<sibling>>)
won(syscall(438, h, 0, 0) >= 0 and <<sibling>> != os.getpid())""",
        True,
    ),
    ("traced", "won(syscall(101, 16, <<sibling>>, 0, 0) == 0)", True),
]
_NETWORK = [
    ("tcp", "socket.create_connection(('127.0.0.1', <<tcp>>), 2)\nwon()", False),
    (
        "tcp-listen",
        """\
s = socket.socket()
s.bind(('127.0.0.1', 0))
s.listen()
won()""",
        False,
    ),
    (
        "udp",
        """\
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', <<udp>>))
won()""",
        False,
    ),
    ("tcp6", "socket.socket(socket.AF_INET6)\nwon()", False),
    (
        "unix-by-path",
        """\
s = socket.socket(socket.AF_UNIX)
s.connect('<<unix>>')
won()""",
        False,
    ),
    (
        "unix-abstract",
        """\
s = socket.socket(socket.AF_UNIX)
s.connect('\\0<<abstract>>')
won()""",
        False,
    ),
    (
        "unix-datagrams",
        """\
socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
won()""",
        False,
    ),
    (
        "url-by-pandas",
        """\
import pandas
pandas.read_csv('http://127.0.0.1:<<tcp>>/x', header=None)
won()""",
        False,
    ),
    (
        "url",
        """\
import urllib.request as r
r.urlopen('http://127.0.0.1:<<tcp>>/', timeout=2)
won()""",
        False,
    ),
    (
        "names",
        """\
socket.getaddrinfo('localhost', 80)[0]
socket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.1', 53))
won()""",
        False,
    ),
    (
        "raw",
        """\
socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
won()""",
        True,
    ),
    ("packet", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\nwon()", True),
    (
        "netlink",
        """\
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
won()""",
        False,
    ),
    ("vsock", "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)\nwon()", False),
    (
        "vsock-connect",
        """\
s = socket.socket(40, socket.SOCK_STREAM)
s.setblocking(False)
s.connect_ex((2, 1))
won()""",
        False,
    ),
    (
        "vsock-listen",
        """\
s = socket.socket(40, socket.SOCK_STREAM)
s.bind((2 ** 32 - 1, 2 ** 32 - 1))
s.listen()
won()""",
        False,
    ),
    (
        "io-uring",
        """\
b = ctypes.create_string_buffer(120)
won(syscall(425, 4, b) >= 0)""",
        False,
    ),
]
_PROCESSES = [
    (
        "fork",
        """\
pid = os.fork()
if pid == 0: os._exit(0)
os.waitpid(pid, 0)
won()""",
        False,
    ),
    ("vfork", "won(syscall(57) >= 0)", False),
    ("system", "won(os.system('true') == 0)", False),
    (
        "subprocess",
        """\
import subprocess
subprocess.run(['/bin/true'], check=True)
won()""",
        False,
    ),
    (
        "python",
        """\
import subprocess
subprocess.run([sys.executable, '-c', ''], check=True)
won()""",
        False,
    ),
    (
        "spawn",
        """\
pid = os.posix_spawn('/bin/true', ['true'], {})
os.waitpid(pid, 0)
won()""",
        False,
    ),
    (
        "multiprocessing",
        """\
import multiprocessing as m
p = m.get_context('fork').Process(target=int)
p.start()
p.join()
won(p.exitcode == 0)""",
        False,
    ),
    (
        "exec",
        (
            "os.execv(sys.executable, [sys.executable, "
            f'"-c", "print({SUCCESS_MARK[:5]!r} + {SUCCESS_MARK[5:]!r})"])'
        ),
        False,
    ),
    (
        "exec-from-memory",
        f"""\
h = os.memfd_create('x', 0)
os.write(h, b'#!/bin/sh\\necho {SUCCESS_MARK}')
os.execve(h, ['x'], {{'PATH': '/bin'}})""",
        False,
    ),
    (
        "clone-by-call",
        """\
pid = syscall(56, 17, 0, 0, 0, 0)
if pid == 0: os._exit(0)
won()""",
        False,
    ),
    ("signal-others", "os.kill(<<victim>>, 0)\nwon()", False),
    ("signal-parent", "os.kill(os.getppid(), 0)\nwon(os.getppid() > 0)", False),
    ("signal-group", "os.killpg(os.getpgid(<<victim>>), 0)\nwon()", False),
    ("pidfd", "os.pidfd_open(<<victim>>)\nwon()", False),
    ("ptrace", "won(syscall(101, 16, <<victim>>, 0, 0) == 0)", True),
    (
        "read-memory",
        """\
b = ctypes.create_string_buffer(8)
v = struct.pack('QQ', ctypes.addressof(b), 8)
a = int(open('/proc/<<victim>>/maps').readline().split('-')[0], 16)
won(syscall(310, <<victim>>, v, 1, struct.pack('QQ', a, 8), 1, ctypes.c_ulong(0)) == 8)""",
        True,
    ),
    ("priority", "os.setpriority(os.PRIO_PROCESS, 0, -1)\nwon()", True),
    ("affinity", "os.sched_setaffinity(0, os.sched_getaffinity(0))\nwon()", False),
    (
        "session",
        """\
os.setsid() if os.getpgrp() != os.getpid() else os.setpgid(0, os.getppid())
won()""",
        False,
    ),
    ("outlive-parent", "won(_libc.prctl(1, 0, 0, 0, 0) == 0)", False),
]
_FORKS = """\
first = os.getpid()
def ended():
    if os.getpid() != first:
        time.sleep(0.5)
        os._exit(0)
"""
_LINGERING: list[tuple[str, str, Goal, str]] = [
    (
        "fork-bomb",
        _FORKS
        + """\
for _ in range(6): os.fork()
ended()
won()""",
        "escape",
        "",
    ),
    (
        "many-forks",
        _FORKS
        + """\
for number in range(100):
    os.fork() or ended()
    won(number == 20)""",
        "escape",
        "",
    ),
    (
        "forks-of-all-kinds",
        _FORKS
        + """\
ways = [os.fork, _libc.fork, lambda: syscall(57), lambda: syscall(56, 17, 0, 0, 0, 0), \
lambda: os.forkpty()[0]]
for way in ways * 20:
    try:
        made = way()
    except OSError:
        continue
    ended()
    won(made != -1)""",
        "escape",
        "",
    ),
    (
        "daemon",
        _FORKS
        + """\
if os.fork() == 0:
    os.setsid()
    os.fork() or time.sleep(2)
    os._exit(0)
won()""",
        "escape",
        "",
    ),
    (
        "thread-between-cells",
        """\
stamps = []
def stamped():
    while True:
        time.sleep(0.02)
        stamps.append(time.monotonic())
threading.Thread(target=stamped, daemon=True).start()
ended = time.monotonic()""",
        "escape",
        """\
begun = time.monotonic()
won(sum(ended + 0.2 < stamp < begun - 0.1 for stamp in stamps) >= 10)""",
    ),
    (
        "thread-after-the-session",
        """\
def deaf():
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
    while True: time.sleep(0.01)
threading.Thread(target=deaf).start()""",
        "hang",
        "",
    ),
    (
        "thread-that-writes-on",
        """\
out = sys.stdout
def written():
    while True:
        out.write("late")
        time.sleep(0.01)
threading.Thread(target=written).start()""",
        "hang",
        "",
    ),
    ("end-that-waits", "import atexit\natexit.register(time.sleep, 1000)", "hang", ""),
]
_KERNEL = [
    ("setuid", "os.setresuid(0, 0, 0)\nwon(os.getuid() == 0)", True),
    ("setgroups", "os.setgroups([0])\nwon()", True),
    ("user-namespace", "won(_libc.unshare(0x10000000) == 0)", False),
    (
        "user-namespace-by-clone",
        """\
pid = syscall(56, 0x10000000 | 17, 0, 0, 0, 0)
if pid == 0: os._exit(0)
won()""",
        False,
    ),
    ("mount-namespace", "won(_libc.unshare(0x00020000) == 0)", True),
    (
        "mount",
        """\
_libc.unshare(0x00020000)
won(_libc.mount(b'tmpfs', b'/mnt', b'tmpfs', 0, None) == 0)""",
        True,
    ),
    (
        "mount-proc",
        """\
_libc.unshare(0x10020000)
won(_libc.mount(b'none', b'/', None, 0x44000, None) == 0)""",
        True,
    ),
    ("chroot", "os.chroot('/')\nwon()", True),
    ("setns", "won(syscall(308, os.open('/proc/self/ns/mnt', 0), 0) == 0)", True),
    ("bpf", "won(syscall(321, 0, struct.pack('IIII', 2, 4, 4, 1) + b'\\0' * 100, 72) >= 0)", True),
    (
        "perf",
        "won(syscall(298, struct.pack('IIQ', 1, 112, 0) + b'\\0' * 100, 0, -1, -1, 0) >= 0)",
        True,
    ),
    ("userfaultfd", "won(syscall(323, 0) >= 0)", True),
    ("key", "won(syscall(248, b'user', b'amr', b'x', 1, -3) > 0)", False),
    (
        "raise-limits",
        """\
import resource
resource.setrlimit(resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE))
won()""",
        False,
    ),
    (
        "limits-of-others",
        """\
import resource
resource.prlimit(<<victim>>, resource.RLIMIT_CORE)
won()""",
        False,
    ),
    ("personality", "won(syscall(135, 0xFFFFFFFF) >= 0)", False),
    ("host-name", "socket.sethostname(socket.gethostname())\nwon()", True),
    (
        "shared-memory",
        """\
i = syscall(29, 0, 4096, 0o1600)
syscall(31, i, 0, 0)
won()""",
        False,
    ),
    (
        "semaphores",
        """\
i = syscall(64, 0, 1, 0o1600)
syscall(66, i, 0, 0)
won()""",
        False,
    ),
    (
        "message-queue",
        """\
i = syscall(68, 0, 0o1600)
syscall(71, i, 0, 0)
won()""",
        False,
    ),
    ("memory-file", "os.memfd_create('x')\nwon()", False),
    ("inotify", "won(syscall(253) >= 0)", False),
    ("fanotify", "won(syscall(300, 0x200, 0) >= 0)", True),
    (
        "capabilities",
        "won(syscall(126, struct.pack('Ii', 0x20080522, 0), b'\\0' * 24) == 0)",
        False,
    ),
    (
        "loose-seccomp",
        "won(_libc.prctl(22, 0, 0, 0, 0) == 0 or _libc.prctl(21, 0, 0, 0, 0) == 0)",
        False,
    ),
    ("secret-memory", "won(syscall(319, b'x', 0) >= 0)", False),
    (
        "vmsplice",
        """\
r, w = os.pipe()
b = ctypes.create_string_buffer(8)
won(syscall(278, w, struct.pack('QQ', ctypes.addressof(b), 8), 1, 0) == 8)""",
        False,
    ),
]
_ON_A_FILE = """\
import mmap, numpy
page = mmap.mmap(os.open(os.__file__, os.O_RDONLY), 4096, mmap.MAP_SHARED, mmap.PROT_READ)
place = ctypes.c_void_p(numpy.frombuffer(page, "u1").ctypes.data)
"""
_CHANNELS = [
    (
        "flags-of-streams",
        """\
import fcntl
for h in (0, 2): fcntl.fcntl(h, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND)""",
        """\
import fcntl
won(all(fcntl.fcntl(h, fcntl.F_GETFL) & os.O_APPEND for h in (0, 2)))""",
    ),
    (
        "random-numbers",
        "import numpy\nprint(numpy.random.rand())",
        "import numpy\nwon('<<said>>' == str(numpy.random.rand()))",
    ),
    (
        "locks",
        """\
import fcntl
h = os.open(os.__file__, os.O_RDONLY)
fcntl.lockf(h, fcntl.LOCK_SH, 1, 1 << 40)""",
        """\
import fcntl
h = os.open(os.__file__, os.O_RDONLY)
asked = fcntl.fcntl(h, fcntl.F_GETLK, struct.pack('hhqqi', 1, 0, 1 << 40, 1, 0))
won(struct.unpack('hhqqi', asked)[0] != 2)""",
    ),
]
_SEEN = [
    ("waits-on-a-file", _ON_A_FILE + "won(syscall(202, place, 1, 1, None, None, 0) >= 0)", False),
    ("memory-of-the-machine", "won(syscall(99, ctypes.create_string_buffer(112)) == 0)", False),
    (
        "cache-of-a-file",
        """\
os.posix_fadvise(os.open(os.__file__, os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
won()""",
        False,
    ),
    (
        "pages-that-are-the-same",
        """\
import mmap
mmap.mmap(-1, 1 << 20).madvise(mmap.MADV_MERGEABLE)
won()""",
        False,
    ),
    (
        "locks",
        """\
import fcntl
fcntl.fcntl(os.open(os.__file__, os.O_RDONLY), fcntl.F_GETLK, struct.pack('hhqqi', 0, 0, 0, 0, 0))
won()""",
        False,
    ),
    ("arguments", "won(any('<<executable>>' in one for one in sys.argv + sys.orig_argv))", False),
    (
        "urgent-data",
        """\
a, b = socket.socketpair()
a.send(b'x', socket.MSG_OOB)
won(b.recv(1, socket.MSG_OOB) == b'x')""",
        False,
    ),
    ("host-name", "won(socket.gethostname() == '<<host>>')", True),
]
