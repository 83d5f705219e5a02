"""The attempts themselves: each is code for one cell, and its control is that code with nothing around it.

What an attempt wants is told by ``wants``:

- ``escape``: it calls ``won()`` where it got what it should not have.
- ``hang``: it should not be able to keep the host waiting beyond its limits.
- ``flood``: it should not be able to make the host take more than its limits: in memory, and in what is handed in.
- ``crash``: it may end its own session, and nothing else; and hands in nothing.
- ``forge``: it should not be able to speak for the runner, or to break the host's side.
- ``stain``: what it says and hands in should not reach a terminal or a log as it is.
"""

from __future__ import annotations

import platform
import signal
from dataclasses import dataclass
from typing import Literal

Wants = Literal["escape", "hang", "flood", "crash", "forge", "stain"]

FLOOD = 64 << 20
WON = "THE-ATTEMPT-WON"

PRELUDE = f"""\
import ctypes, errno, os, signal, socket, struct, sys, threading, time
_libc = ctypes.CDLL(None, use_errno=True)
def syscall(*arguments):
    result = _libc.syscall(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def known(given):
    import hashlib, re
    text = given.decode(errors="replace") if isinstance(given, bytes) else given
    return any(hashlib.sha256(one.encode()).hexdigest() == "<<hash>>" for one in re.findall("[0-9a-f]{{32}}", text))
def won(true=True):
    if true:
        sys.__stdout__ is not None and print({WON[:5]!r} + {WON[5:]!r}, flush=True)
"""
SHARDS = """\
import fcntl, mmap, stat
def shards():
    found = []
    for handle in range(3, 200):
        try:
            about = os.fstat(handle)
        except OSError:
            continue
        if stat.S_ISREG(about.st_mode) and about.st_nlink == 0:
            found.append(handle)
    return found
def turned():
    return any(os.pread(handle, 4, 0) != b"PAR1" for handle in shards())
"""
SESSION = """\
ask, submit = globals().get("ask", print), globals().get("submit", print)
worker = getattr(ask, "__self__", None)
worker = worker if hasattr(worker, "_stream") else None
def question(text, schema={"a": "str"}, instruction="x"):
    asked = {"lengths": [len(text)], "instruction": instruction, "schema": schema}
    worker and worker._stream.send({"id": worker._id, "ask": asked}, text)
def answered(schema={"a": "str"}, instruction="x"):
    question(b"x", schema, instruction)
    return worker is None or worker._stream.receive()[0]["ok"]
def handed_in(payload):
    import json
    packed = json.dumps(payload).encode()
    said = {"id": getattr(worker, "_id", ""), "ok": True, "out": "", "submitted": True}
    print(payload) if worker is None else worker._stream.send(said, packed)
"""
FORGED = (
    SESSION
    + """\
import json
def spoken(*parts):
    for handle in range(3, 200):
        for part in parts:
            try:
                os.write(handle, part)
            except OSError:
                break
def message(**fields):
    text = json.dumps(fields).encode()
    return len(text).to_bytes(4, "big") + text
"""
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way out.

    Attributes:
        kind: what it is after, such as ``secrets`` or ``network``.
        code: one cell; words in double angle brackets are filled in by the world.
        by_root: whether the control works for root only.
        later: a second cell, run a while after the first one, for what goes on between the two.
        dies_of: the signal that ends the control of a crash; 0 where it may end in another way.
        other: a cell for a session that is begun afterwards, and should see nothing of this one; ``<<said>>`` in it is
            what this one printed. The control is two forks of one process.
        least: bytes that the control of a flood says at least.
        times: how often the cell is run, before ``later``.
        cpu_s: processor seconds that it gets, where not as many as all.
        measured: whether it is after the host's memory, or the kernel's, so that nothing runs beside it.
        strong: whether the tier ``strict-lite`` does not hold against it, and does not say so.
    """

    kind: str
    name: str
    code: str
    wants: Wants = "escape"
    by_root: bool = False
    later: str = ""
    dies_of: int = 0
    other: str = ""
    least: int = FLOOD
    times: int = 1
    cpu_s: int = 0
    measured: bool = False
    strong: bool = False

    @property
    def alone(self) -> bool:
        """Whether nothing runs beside it, so that the memory that is taken is by it."""
        return self.measured or self.wants in {"flood", "crash", "stain"}

    @property
    def by_number(self) -> bool:
        """Whether it makes system calls by their numbers, which are those of x86_64."""
        return "syscall(" in self.code

    def __repr__(self) -> str:
        return f"<Attempt {self.kind}/{self.name}>"


def attempts() -> list[Attempt]:
    """All that can be made on this machine."""
    return [one for one in every_attempt() if platform.machine() == "x86_64" or not one.by_number]


def every_attempt() -> list[Attempt]:
    """All of them. Those by system call know the numbers of x86_64 only."""
    return [
        *(Attempt("secrets", name, code, by_root=root) for name, code, root in _SECRETS),
        *(Attempt("files", name, code, by_root=root) for name, code, root in _FILES),
        *(
            Attempt("files", f"shard-{name}", SHARDS + code, by_root=root)
            for name, code, root in _SHARD
        ),
        *(
            Attempt("secrets", f"sibling-{name}", code, by_root=root)
            for name, code, root in _SIBLINGS
        ),
        *(Attempt("network", name, code, by_root=root) for name, code, root in _NETWORK),
        *(Attempt("processes", name, code, by_root=root) for name, code, root in _PROCESSES),
        *(
            Attempt("processes", name, code, wants, later=later)
            for name, code, wants, later in _LINGERING
        ),
        *(Attempt("kernel", name, code, by_root=root) for name, code, root in _KERNEL),
        *(Attempt("resources", name, code, wants) for name, code, wants in _RESOURCES),
        *(
            Attempt("resources", f"kernel-{name}", code, measured=True)
            for name, code in _KERNEL_MEMORY
        ),
        *(
            Attempt("resources", name, SESSION + code, "flood", least=least)
            for name, code, least in _FLOODS
        ),
        Attempt(
            "resources",
            "processor-over-restarts",
            SESSION + _BURNING,
            later="won()",
            times=12,
            cpu_s=2,
        ),
        *(Attempt("crash", name, code, "crash", dies_of=number) for name, code, number in _CRASHES),
        *(Attempt("integrity", name, FORGED + code, "forge") for name, code in _FORGERIES),
        *(Attempt("integrity", name, SESSION + code, "hang") for name, code in _QUESTIONS),
        *(Attempt("integrity", f"asked-{name}", SESSION + code) for name, code in _ASKED),
        *(Attempt("integrity", name, SESSION + code, "stain") for name, code in _STAINS),
        *(Attempt("integrity", f"runner-{name}", code, "crash") for name, code in _RUNNERS),
        *(
            Attempt("secrets", f"channel-{name}", code, other=other)
            for name, code, other in _CHANNELS
        ),
        *(Attempt("secrets", f"seen-{name}", code, strong=strong) for name, code, strong in _SEEN),
    ]


_SECRETS = [
    ("environment", "won(known(os.environ.get('<<variable>>')))", False),
    (
        "environment-in-c",
        "_libc.getenv.restype = ctypes.c_char_p\nwon(known(_libc.getenv(b'<<variable>>')))",
        False,
    ),
    ("proc-self-environ", "won(known(open('/proc/self/environ').read()))", False),
    ("proc-host-environ", "won(known(open('/proc/<<victim>>/environ').read()))", False),
    ("proc-list", "won(any(name.isdigit() for name in os.listdir('/proc')))", False),
    ("proc-host-cmdline", "won(len(open('/proc/<<victim>>/cmdline').read()) > 0)", False),
    ("proc-host-memory", "won(len(open('/proc/<<victim>>/maps').read()) > 0)", False),
    ("proc-parent-fd", "won(len(os.listdir('/proc/<<victim>>/fd')) > 0)", False),
    ("secret-file", "won(known(open('<<secret>>').read()))", False),
    (
        "secret-file-by-pandas",
        "import pandas\nwon(known(str(pandas.read_csv('<<secret>>', header=None))))",
        False,
    ),
    (
        "secret-file-by-arrow",
        "import pyarrow\nwon(known(pyarrow.OSFile('<<secret>>').read()))",
        False,
    ),
    ("folder-listing", "won('secret.txt' in os.listdir('<<folder>>'))", False),
    ("users", "won('root' in open('/etc/passwd').read())", False),
    ("name-service", "import pwd\nwon(len(pwd.getpwall()) > 0)", False),
    ("shadow", "won(len(open('/etc/shadow').read()) > 0)", True),
    ("home", "won(known(open(os.path.expanduser('<<home>>/.netrc')).read()))", False),
    ("inherited-descriptor", "won(any(_read(handle) for handle in range(3, 100)))", False),
    (
        "kernel-log",
        "buffer = ctypes.create_string_buffer(4096)\nwon(syscall(103, 3, buffer, 4096) > 0)",
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
        "import json\nh = os.open(json.__file__, os.O_RDONLY)\nos.fchmod(h, os.fstat(h).st_mode & 0o7777)\nwon()",
        True,
    ),
    (
        "times-of-package",
        "import json\ns = os.stat(json.__file__)\nos.utime(json.__file__, ns=(s.st_atime_ns, s.st_mtime_ns))\nwon()",
        True,
    ),
    ("attributes", "os.setxattr('<<spare>>', 'user.x', b'1')\nwon()", False),
    ("make-folder", "os.mkdir('<<folder>>/made')\nwon()", False),
    ("link-by-name", "os.symlink('<<secret>>', 'way')\nwon(known(open('way').read()))", False),
    ("hard-link", "os.link('<<secret>>', '<<folder>>/hard')\nwon()", False),
    (
        "to-csv",
        "import pandas\npandas.DataFrame({'a': [1]}).to_csv('<<folder>>/out.csv')\nwon()",
        False,
    ),
    (
        "sqlite",
        "import sqlite3\nsqlite3.connect('<<folder>>/x.db').execute('create table t(a)')\nwon()",
        False,
    ),
    ("package-file", "import json\nopen(json.__file__, 'a').close()\nwon()", True),
    (
        "package-folder",
        "import json\np = os.path.dirname(json.__file__) + '/amr_probe'\nopen(p, 'w').close()\nos.remove(p)\nwon()",
        True,
    ),
    ("start-up-file", "open('<<home>>/.bashrc', 'a').close()\nwon()", False),
    ("pipe-by-name", "os.mkfifo('<<folder>>/pipe')\nwon()", False),
    (
        "device-node",
        "import stat\nos.mknod('<<folder>>/null', stat.S_IFCHR | 0o666, os.makedev(1, 3))\nwon()",
        True,
    ),
    (
        "kernel-setting",
        "p = '/proc/sys/kernel/printk_delay'\nv = open(p).read()\nopen(p, 'w').write(v)\nwon()",
        True,
    ),
    (
        "by-handle",
        "b = ctypes.create_string_buffer(b'\\x80\\0\\0\\0' + b'\\0' * 200)\nm = ctypes.c_int()\nsyscall(303, -100, b'<<secret>>', b, ctypes.byref(m), 0)\nwon(known(os.read(syscall(304, os.open('<<folder>>', 0), b, 0), 64)))",
        True,
    ),
    ("climb", "won(known(open('../../../../../../../../..<<secret>>').read()))", False),
]
_SHARD = [
    ("written", "for h in shards(): os.pwrite(h, b'xxxx', 0)\nwon(turned())", False),
    ("cut", "for h in shards(): os.ftruncate(h, 0)\nwon(turned())", False),
    (
        "grown",
        "for h in shards():\n    os.ftruncate(h, 1 << 24)\n    won(os.fstat(h).st_size == 1 << 24)",
        False,
    ),
    (
        "holed",
        "for h in shards(): _libc.fallocate(h, 3, ctypes.c_long(0), ctypes.c_long(4096))\nwon(turned())",
        False,
    ),
    ("sealed-by-code", "for h in shards():\n    fcntl.fcntl(h, 1033, 8)\n    won()", False),
    (
        "mapped",
        "for h in shards(): mmap.mmap(h, 0, mmap.MAP_SHARED)[:4] = b'xxxx'\nwon(turned())",
        False,
    ),
    (
        "opened-again",
        "for h in shards(): os.pwrite(os.open(f'/proc/self/fd/{h}', os.O_RDWR), b'xxxx', 0)\nwon(turned())",
        False,
    ),
    (
        "map-opened",
        "kept = [mmap.mmap(h, 0, mmap.MAP_SHARED, mmap.PROT_READ) for h in shards()]\nf = '/proc/self/map_files'\nfor n in os.listdir(f):\n    if 'memfd' in os.readlink(f'{f}/{n}'): os.pwrite(os.open(f'{f}/{n}', os.O_RDWR), b'xxxx', 0)\nwon(turned())",
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
        "p = '/dev/shm/<<abstract>>'\nopen(p, 'w').close()\nos.remove(p)\nwon()",
        False,
    ),
]
_SIBLINGS = [
    (
        "memory",
        "b = ctypes.create_string_buffer(32)\nsyscall(310, <<sibling>>, struct.pack('QQ', ctypes.addressof(b), 32), 1, struct.pack('QQ', <<address>>, 32), 1, ctypes.c_ulong(0))\nwon(known(b.raw))",
        True,
    ),
    (
        "memory-of-all",
        """\
b = ctypes.create_string_buffer(32)
there, here = struct.pack("QQ", <<address>>, 32), struct.pack("QQ", ctypes.addressof(b), 32)
near = (os.getpid() + step * sign for step in range(300) for sign in (1, -1))
for pid in (<<sibling>>, *near):
    pid > 0 and _libc.process_vm_readv(pid, here, ctypes.c_ulong(1), there, ctypes.c_ulong(1), ctypes.c_ulong(0))
    if known(b.raw):
        won()
        break""",
        True,
    ),
    (
        "memory-written",
        "b = ctypes.create_string_buffer(b'y', 2)\nwon(syscall(311, <<sibling>>, struct.pack('QQ', ctypes.addressof(b), 1), 1, struct.pack('QQ', <<address>> + 32, 1), 1, ctypes.c_ulong(0)) == 1 and <<sibling>> != os.getpid())",
        True,
    ),
    (
        "memory-by-file",
        "h = os.open('/proc/<<sibling>>/mem', os.O_RDONLY)\nwon(known(os.pread(h, 32, <<address>>)))",
        True,
    ),
    ("folder", "won(known(open('<<sibling_folder>>/left.txt').read()))", False),
    ("signal", "os.kill(<<sibling>>, 0)\nwon(<<sibling>> != os.getpid())", False),
    (
        "descriptors",
        "h = os.pidfd_open(<<sibling>>)\nwon(syscall(438, h, 0, 0) >= 0 and <<sibling>> != os.getpid())",
        True,
    ),
    ("traced", "won(syscall(101, 16, <<sibling>>, 0, 0) == 0)", True),
]
_NETWORK = [
    ("tcp", "socket.create_connection(('127.0.0.1', <<tcp>>), 2)\nwon()", False),
    ("tcp-listen", "s = socket.socket()\ns.bind(('127.0.0.1', 0))\ns.listen()\nwon()", False),
    (
        "udp",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', <<udp>>))\nwon()",
        False,
    ),
    ("tcp6", "socket.socket(socket.AF_INET6)\nwon()", False),
    ("unix-by-path", "s = socket.socket(socket.AF_UNIX)\ns.connect('<<unix>>')\nwon()", False),
    (
        "unix-abstract",
        "s = socket.socket(socket.AF_UNIX)\ns.connect('\\0<<abstract>>')\nwon()",
        False,
    ),
    ("unix-datagrams", "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\nwon()", False),
    (
        "url-by-pandas",
        "import pandas\npandas.read_csv('http://127.0.0.1:<<tcp>>/x', header=None)\nwon()",
        False,
    ),
    (
        "url",
        "import urllib.request as r\nr.urlopen('http://127.0.0.1:<<tcp>>/', timeout=2)\nwon()",
        False,
    ),
    (
        "names",
        "socket.getaddrinfo('localhost', 80)[0]\nsocket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.1', 53))\nwon()",
        False,
    ),
    ("raw", "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)\nwon()", True),
    ("packet", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\nwon()", True),
    ("netlink", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\nwon()", False),
    ("vsock", "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)\nwon()", False),
    (
        "vsock-connect",
        "s = socket.socket(40, socket.SOCK_STREAM)\ns.setblocking(False)\ns.connect_ex((2, 1))\nwon()",
        False,
    ),
    (
        "vsock-listen",
        "s = socket.socket(40, socket.SOCK_STREAM)\ns.bind((2 ** 32 - 1, 2 ** 32 - 1))\ns.listen()\nwon()",
        False,
    ),
    ("io-uring", "b = ctypes.create_string_buffer(120)\nwon(syscall(425, 4, b) >= 0)", False),
]
_PROCESSES = [
    ("fork", "pid = os.fork()\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0)\nwon()", False),
    ("vfork", "won(syscall(57) >= 0)", False),
    ("system", "won(os.system('true') == 0)", False),
    ("subprocess", "import subprocess\nsubprocess.run(['/bin/true'], check=True)\nwon()", False),
    (
        "python",
        "import subprocess\nsubprocess.run([sys.executable, '-c', ''], check=True)\nwon()",
        False,
    ),
    ("spawn", "pid = os.posix_spawn('/bin/true', ['true'], {})\nos.waitpid(pid, 0)\nwon()", False),
    (
        "multiprocessing",
        "import multiprocessing as m\np = m.get_context('fork').Process(target=int)\np.start()\np.join()\nwon(p.exitcode == 0)",
        False,
    ),
    (
        "exec",
        f'os.execv(sys.executable, [sys.executable, "-c", "print({WON[:5]!r} + {WON[5:]!r})"])',
        False,
    ),
    (
        "exec-from-memory",
        f"h = os.memfd_create('x', 0)\nos.write(h, b'#!/bin/sh\\necho {WON}')\nos.execve(h, ['x'], {{'PATH': '/bin'}})",
        False,
    ),
    ("clone-by-call", "pid = syscall(56, 17, 0, 0, 0, 0)\nif pid == 0: os._exit(0)\nwon()", False),
    ("signal-others", "os.kill(<<victim>>, 0)\nwon()", False),
    ("signal-parent", "os.kill(os.getppid(), 0)\nwon(os.getppid() > 0)", False),
    ("signal-group", "os.killpg(os.getpgid(<<victim>>), 0)\nwon()", False),
    ("pidfd", "os.pidfd_open(<<victim>>)\nwon()", False),
    ("ptrace", "won(syscall(101, 16, <<victim>>, 0, 0) == 0)", True),
    (
        "read-memory",
        "b = ctypes.create_string_buffer(8)\nv = struct.pack('QQ', ctypes.addressof(b), 8)\na = int(open('/proc/<<victim>>/maps').readline().split('-')[0], 16)\nwon(syscall(310, <<victim>>, v, 1, struct.pack('QQ', a, 8), 1, ctypes.c_ulong(0)) == 8)",
        True,
    ),
    ("priority", "os.setpriority(os.PRIO_PROCESS, 0, -1)\nwon()", True),
    ("affinity", "os.sched_setaffinity(0, os.sched_getaffinity(0))\nwon()", False),
    (
        "session",
        "os.setsid() if os.getpgrp() != os.getpid() else os.setpgid(0, os.getppid())\nwon()",
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
_LINGERING: list[tuple[str, str, Wants, str]] = [
    ("fork-bomb", _FORKS + "for _ in range(6): os.fork()\nended()\nwon()", "escape", ""),
    (
        "many-forks",
        _FORKS + "for number in range(100):\n    os.fork() or ended()\n    won(number == 20)",
        "escape",
        "",
    ),
    (
        "forks-of-all-kinds",
        _FORKS
        + """\
ways = [os.fork, _libc.fork, lambda: syscall(57), lambda: syscall(56, 17, 0, 0, 0, 0), lambda: os.forkpty()[0]]
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
        + "if os.fork() == 0:\n    os.setsid()\n    os.fork() or time.sleep(2)\n    os._exit(0)\nwon()",
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
        "begun = time.monotonic()\nwon(sum(ended + 0.2 < stamp < begun - 0.1 for stamp in stamps) >= 10)",
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
        "pid = syscall(56, 0x10000000 | 17, 0, 0, 0, 0)\nif pid == 0: os._exit(0)\nwon()",
        False,
    ),
    ("mount-namespace", "won(_libc.unshare(0x00020000) == 0)", True),
    (
        "mount",
        "_libc.unshare(0x00020000)\nwon(_libc.mount(b'tmpfs', b'/mnt', b'tmpfs', 0, None) == 0)",
        True,
    ),
    (
        "mount-proc",
        "_libc.unshare(0x10020000)\nwon(_libc.mount(b'none', b'/', None, 0x44000, None) == 0)",
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
        "import resource\nresource.setrlimit(resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE))\nwon()",
        False,
    ),
    (
        "limits-of-others",
        "import resource\nresource.prlimit(<<victim>>, resource.RLIMIT_CORE)\nwon()",
        False,
    ),
    ("personality", "won(syscall(135, 0xFFFFFFFF) >= 0)", False),
    ("host-name", "socket.sethostname(socket.gethostname())\nwon()", True),
    ("shared-memory", "i = syscall(29, 0, 4096, 0o1600)\nsyscall(31, i, 0, 0)\nwon()", False),
    ("semaphores", "i = syscall(64, 0, 1, 0o1600)\nsyscall(66, i, 0, 0)\nwon()", False),
    ("message-queue", "i = syscall(68, 0, 0o1600)\nsyscall(71, i, 0, 0)\nwon()", False),
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
        "r, w = os.pipe()\nb = ctypes.create_string_buffer(8)\nwon(syscall(278, w, struct.pack('QQ', ctypes.addressof(b), 8), 1, 0) == 8)",
        False,
    ),
]
_RESOURCES: list[tuple[str, str, Wants]] = [
    ("memory", "b = bytes(3 << 30)\nwon()", "escape"),
    ("memory-by-numpy", "import numpy\na = numpy.empty(3 << 30, dtype='u1')\nwon()", "escape"),
    ("memory-by-map", "import mmap\nm = mmap.mmap(-1, 3 << 30)\nwon()", "escape"),
    (
        "threads",
        "e = threading.Event()\nfor _ in range(1500): threading.Thread(target=e.wait, daemon=True).start()\nwon()\ne.set()",
        "escape",
    ),
    (
        "disk",
        "with open('big', 'wb') as f:\n    for _ in range(200): f.write(bytes(1 << 20))\nos.remove('big')\nwon()",
        "escape",
    ),
    (
        "disk-by-many",
        "for i in range(100): open(f'p{i}', 'wb').write(bytes(1 << 20))\nwon()\nfor i in range(100): os.remove(f'p{i}')",
        "escape",
    ),
    (
        "sparse-file",
        "with open('sparse', 'wb') as f: f.truncate(1 << 33)\nos.remove('sparse')\nwon()",
        "escape",
    ),
    (
        "inodes",
        "for i in range(3000): open(f'f{i}', 'w').close()\nwon()\nfor i in range(3000): os.remove(f'f{i}')",
        "escape",
    ),
    ("descriptors", "h = [os.open('/dev/null', 0) for _ in range(900)]\nwon()", "escape"),
    ("endless-loop", "while True: pass", "hang"),
    ("sleep", "time.sleep(1000)", "hang"),
    (
        "swallowed-interrupt",
        "while True:\n    try:\n        while True: time.sleep(0.01)\n    except BaseException: pass",
        "hang",
    ),
    ("ignored-interrupt", "signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass", "hang"),
    (
        "blocked-interrupt",
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))\nwhile True: pass",
        "hang",
    ),
    ("big-number", "x = 7 ** (10 ** 8)", "hang"),
    ("pattern", "import re\nre.match('(a+)+$', 'a' * 60 + 'b')", "hang"),
    ("stopped", "os.kill(os.getpid(), signal.SIGTSTP)\nthreading.Event().wait()", "hang"),
    (
        "endless-repr",
        "class R:\n    def __repr__(self):\n        while True: pass\nrepr(R())",
        "hang",
    ),
    (
        "endless-recursion",
        "sys.setrecursionlimit(10 ** 9)\ndef f(n): return f(n + 1)\nf(0)",
        "hang",
    ),
    ("endless-output", "while True: print('x', flush=True)", "hang"),
    (
        "finaliser",
        "class D:\n    def __del__(self):\n        while True: pass\nd = D()\ndel d",
        "hang",
    ),
]
_FLOODS = [
    ("printed-at-once", "print('x' * (100 << 20))", FLOOD),
    ("printed-bit-by-bit", "for _ in range(1000): print('x' * 100_000)", FLOOD),
    ("printed-in-lines", "for _ in range(700_000): print('x' * 99)", FLOOD),
    ("complained", "sys.stderr.write('x' * (100 << 20))", FLOOD),
    (
        "written-to-descriptors",
        "for h in (1, 2) * 500: os.write(h, bytes(65536))\nfor _ in range(600): os.write(1, bytes(65536))",
        FLOOD,
    ),
    (
        "long-repr",
        "class R:\n    def __repr__(self): return 'x' * (100 << 20)\nsys.displayhook(R())\nR()",
        FLOOD,
    ),
    ("long-error", "raise ValueError('x' * (100 << 20))", FLOOD),
    ("long-name-of-error", "raise type('E' * (80 << 20), (Exception,), {})('x')", FLOOD),
    ("long-finding", "submit([{'unit': 0, 'word': 'x' * (100 << 20)}])", FLOOD),
    (
        "many-findings",
        "submit([{'unit': n, 'words': ['x' * 99] * 234_000} for n in range(3)])",
        FLOOD,
    ),
    (
        "long-reply",
        "import json\njson.dumps = lambda *given, **named: 'x' * (100 << 20)\nprint(json.dumps({}))",
        FLOOD,
    ),
    ("long-cell", "submit([{'unit': 0, 'word': 'x' * (12 << 20)}])", 12 << 20),
    (
        "long-cell-by-force",
        "handed_in({'findings': [{'unit': 0, 'word': 'x' * (12 << 20)}]})",
        12 << 20,
    ),
    (
        "values-of-a-cell",
        "submit([{'unit': n, 'words': [1] * 300_000} for n in range(3)])",
        1 << 20,
    ),
    (
        "values-of-a-cell-by-force",
        "handed_in({'findings': [{'unit': n, 'words': [1] * 300_000} for n in range(3)]})",
        1 << 20,
    ),
    ("brackets", "handed_in({'findings': [[[]] * 400_000]})", 1 << 20),
    ("deep", "handed_in({'findings': [eval('[' * 90 + ']' * 90)] * 5000})", 900_000),
    (
        "brackets-in-a-question",
        "question(b'x', [[]] * 400_000)\nworker or print([[]] * 400_000)",
        1 << 20,
    ),
    (
        "texts-of-a-question",
        "question(b'x' * (100 << 20))\nworker or print('x' * (100 << 20))",
        FLOOD,
    ),
    ("long-repair", "submit([{'unit': n, 'words': [[]] * 200_000} for n in range(2)])", 1 << 20),
]
_CRASHES = [
    ("exit", "os._exit(3)", 0),
    ("abort", "os.abort()", signal.SIGABRT),
    ("killed", "signal.raise_signal(signal.SIGKILL)", signal.SIGKILL),
    ("segfault", "ctypes.string_at(1)", signal.SIGSEGV),
    ("write-to-nowhere", "ctypes.memmove(0, b'xxxx', 4)", signal.SIGSEGV),
    (
        "illegal",
        """\
import mmap
page = mmap.mmap(-1, 4096, prot=7)
page.write(b"\\x0f\\x0b\\0\\0")
ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()""",
        signal.SIGILL,
    ),
    ("illegal-by-signal", "signal.raise_signal(signal.SIGILL)", signal.SIGILL),
    (
        "bus",
        """\
import mmap
with open("short", "w+b") as file:
    file.truncate(8192)
    page = mmap.mmap(file.fileno(), 8192)
    file.truncate(0)
page[4096]""",
        signal.SIGBUS,
    ),
    ("bus-by-signal", "signal.raise_signal(signal.SIGBUS)", signal.SIGBUS),
    (
        "stack",
        "_libc.regcomp(ctypes.create_string_buffer(1024), b'(' * 1_000_000, 1)",
        signal.SIGSEGV,
    ),
    ("stack-by-sort", "sys.setrecursionlimit(10 ** 9)\nf = lambda _: sorted([0], key=f)\nf(0)", 0),
    (
        "stack-by-callback",
        "sys.setrecursionlimit(10 ** 9)\nf = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: f())\nf()\nos._exit(3)",
        0,
    ),
    (
        "stack-of-a-thread",
        "threading.stack_size(1 << 16)\nt = threading.Thread(target=lambda: _libc.regcomp(ctypes.create_string_buffer(1024), b'(' * 1_000_000, 1))\nt.start()\nt.join()",
        signal.SIGSEGV,
    ),
]
_CRASHES += [("return-probe", "syscall(335)", 0), ("probe", "syscall(336)", 0)]
_FORGERIES = [
    ("noise", "spoken(b'\\xff' * 64)"),
    ("long-header", "spoken((0xFFFFFFFF).to_bytes(4, 'big'))"),
    (
        "flood",
        "for h in range(3, 200):\n    try: os.set_blocking(h, False); [os.write(h, b'\\0' * 65536) for _ in range(64)]\n    except OSError: pass",
    ),
    (
        "wrong-name",
        "spoken(message(id='0' * 16, ok=True, out='forged', submitted=False, blobs=[]))",
    ),
    ("no-object", "spoken(b'\\0\\0\\0\\x02[]')"),
    ("deep", "spoken((60000).to_bytes(4, 'big') + b'[' * 60000)"),
    ("huge-blob", "spoken(message(id='0' * 16, ok=True, out='', submitted=True, blobs=[1 << 50]))"),
    ("negative-blob", "spoken(message(id='0' * 16, ok=True, out='', submitted=True, blobs=[-5]))"),
    (
        "question",
        "spoken(message(id='0' * 16, ask={'texts': ['x'] * 10, 'instruction': 'x', 'schema': {}}))",
    ),
    (
        "answered-twice",
        "said = {'id': getattr(worker, '_id', ''), 'ok': True, 'out': '', 'submitted': False, 'blobs': []}\nspoken(b'x') if worker is None else [worker._stream.send(said) for _ in range(3)]",
    ),
    ("pickle", "spoken(b'\\x80\\x04\\x95cposix\\nsystem\\n(Vtrue\\ntR.' * 10)"),
    (
        "hang-up",
        "for h in range(3, 200):\n    spoken(b'x')\n    try: os.close(h)\n    except OSError: pass",
    ),
]
_QUESTIONS = [
    (
        "questions-for-ever",
        "while True:\n    try: ask([], 'x')\n    except Exception: pass",
    ),
    (
        "questions-after-the-interrupt",
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True:\n    try: ask([], 'x')\n    except Exception: pass",
    ),
    (
        "answer-never-read",
        "question(os.urandom(1_500_000).hex().encode())\nwhile True: time.sleep(1)",
    ),
    ("answers-never-read", "while True: question(b'x')"),
    (
        "answer-read-slowly",
        """\
question(os.urandom(4_000_000).hex().encode())
while True:
    time.sleep(0.2)
    worker and os.read(worker._stream._source, 65536)""",
    ),
    (
        "answers-read-slowly",
        """\
while True:
    question(os.urandom(1_000_000).hex().encode())
    for _ in range(20):
        time.sleep(0.05)
        worker and os.read(worker._stream._source, 1 << 17)""",
    ),
    (
        "questions-that-are-refused",
        "while True:\n    try: answered({'a': {'type': 'string', 'pattern': 'x'}})\n    except Exception: pass",
    ),
    (
        "question-of-no-form",
        "while True: worker and worker._stream.send({'id': worker._id, 'ask': 1})",
    ),
]
_STAINS = [
    ("controls", "print('\\x00\\x1b[2J\\x1b]0;title\\x07\\x9b')"),
    ("surrogates", "print('\\ud800 \\udfff \\udc80')"),
    ("controls-of-an-error", "raise ValueError('\\x00\\x1b[2J\\x08')"),
    (
        "controls-of-a-repr",
        "class R:\n    def __repr__(self): return '\\x00\\x1bc\\ud800'\nsys.displayhook(R())\nR()",
    ),
    ("controls-of-a-name", "raise type('E\\x1b[31m', (Exception,), {})('x')"),
    (
        "controls-of-a-finding",
        "said = '\\x00\\x1b[2J\\x9b'\nprint(said) if worker is None else submit([{'unit': 0, said: said, 'words': [{said: [said]}]}])",
    ),
    (
        "controls-of-a-finding-by-force",
        "said = '\\x00\\x1b[2J\\x9b'\nprint(said) if worker is None else handed_in({'findings': [{'unit': 0, 'words': [{said: said}]}]})",
    ),
    (
        "controls-in-a-reply",
        "said = {'id': getattr(worker, '_id', ''), 'ok': True, 'out': '\\x00\\x1b[2J\\ud800', 'submitted': False, 'blobs': []}\nprint(said['out']) if worker is None else worker._stream.send(said)",
    ),
]
_RUNNERS = [
    ("dumps", "import json\njson.dumps = None\njson.dumps({})"),
    ("loads", "import json\njson.loads = None\njson.loads('{}')"),
    ("write", "os.write = None\nos.write(1, b'')"),
    ("read", "os.read = None\nos.read(0, 1)"),
    ("len", "import builtins\nbuiltins.len = None\nlen([])"),
    ("isinstance", "import builtins\nbuiltins.isinstance = None\nisinstance(1, int)"),
    ("import", "import builtins\nbuiltins.__import__ = None\nimport csv"),
    (
        "error",
        "import builtins\nbuiltins.BaseException = builtins.Exception = None\nraise Exception",
    ),
    ("modules", "for name in list(sys.modules): sys.modules[name] = None\nimport os"),
    (
        "globals",
        "frame = sys._getframe()\nwhile frame:\n    name, frame = frame.f_globals, frame.f_back\n    name.clear()",
    ),
    ("output", "sys.stdout = sys.stderr = None\nsys.stdout.write('x')"),
    ("output-closed", "sys.stdout.close()\nsys.stdout.write('x')"),
    ("trace", "sys.settrace(lambda *given: 1 / 0)\ndef f(): pass\nf()"),
    ("parser", "import ast\nast.parse = None\nast.parse('1')"),
    (
        "timer",
        "def ended(*given): raise SystemExit(9)\nsignal.signal(signal.SIGALRM, ended)\nsignal.setitimer(signal.ITIMER_REAL, 0.05, 0.01)\ntime.sleep(0.5)",
    ),
]
# What a session takes of the kernel beside its own memory: a hundredth of what would hurt.
_KERNEL_MEMORY = [
    (
        "table-by-close-range",
        "def own(): result.append(_libc.syscall(436, 1000, 1001, 2))\nresult = []\nt = threading.Thread(target=own)\nt.start()\nt.join()\nwon(result == [0])",
    ),
    (
        "table-by-clone",
        """\
stack = ctypes.create_string_buffer(1 << 16)
top = ctypes.c_void_p(ctypes.addressof(stack) + (1 << 16) - (ctypes.addressof(stack) % 16))
won(_libc.clone(ctypes.cast(_libc.sched_yield, ctypes.c_void_p), top, 0x50B00, None) > 0)
time.sleep(0.05)""",
    ),
    ("table-by-unshare", "won(_libc.unshare(0x400) == 0)"),
    (
        "sockets",
        "kept = [socket.socketpair() for _ in range(100)]\nfor one, _ in kept:\n    one.setblocking(False)\n    one.send(b'x' * 65536)\nwon()",
    ),
    (
        "sockets-of-threads",
        """\
kept, left = [], threading.Barrier(4)
def filled():
    _libc.syscall(436, 1000, 1001, 2)
    try:
        for _ in range(30):
            one, other = socket.socketpair()
            kept.append((one, other))
            one.setblocking(False)
            one.send(b"x" * 65536)
    except OSError: pass
    left.wait(5)
threads = [threading.Thread(target=filled) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
won(len(kept) > 100)""",
    ),
    (
        "pipes",
        "kept = [os.pipe() for _ in range(100)]\nfor _, w in kept: os.write(w, bytes(65536))\nwon()",
    ),
    (
        "size-of-a-pipe",
        "import fcntl\nr, w = os.pipe()\nwon(fcntl.fcntl(w, 1031, 1 << 19) == 1 << 19)",
    ),
    (
        "size-of-a-socket",
        "socket.socketpair()[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 19)\nwon()",
    ),
    ("events", "kept = [os.eventfd(0) for _ in range(200)]\nwon()"),
    (
        "watches",
        """\
import select
kept, (r, w) = [select.epoll() for _ in range(20)], os.pipe()
for number in range(60, 110):
    os.dup2(r, number)
    for one in kept: one.register(number)
    os.close(number)
won()""",
    ),
    ("watches-by-call", "won(syscall(291, 0) >= 0)"),
    ("watches-of-files", "won(syscall(294, 0) >= 0)"),
    (
        "locks",
        "import fcntl\nh = os.open(os.__file__, os.O_RDONLY)\nfor n in range(1000): fcntl.lockf(h, fcntl.LOCK_SH, 1, 2 * n)\ntry: fcntl.fcntl(h, fcntl.F_SETLK, struct.pack('hhqqi', 0, 99, 0, 0, 0))\nexcept OSError as error: won(error.errno == errno.EINVAL)",
    ),
    (
        "locks-of-a-description",
        "import fcntl\nh = os.open(os.__file__, os.O_RDONLY)\nfcntl.fcntl(h, 37, struct.pack('hhqqi', 0, 0, 0, 1, 0))\ntry: fcntl.fcntl(h, 37, struct.pack('hhqqi', 0, 99, 0, 0, 0))\nexcept OSError as error: won(error.errno == errno.EINVAL)",
    ),
    (
        "locks-of-files",
        "import fcntl\nfcntl.flock(os.open(os.__file__, os.O_RDONLY), fcntl.LOCK_SH)\nwon()",
    ),
    (
        "leases",
        "import fcntl\nfcntl.fcntl(os.open('lease', os.O_CREAT | os.O_RDONLY, 0o600), 1024, 0)\nwon()",
    ),
    ("notes-of-folders", "import fcntl\nfcntl.fcntl(os.open('.', os.O_RDONLY), 1026, 1)\nwon()"),
    (
        "timers",
        "t = ctypes.c_int()\nwon(all(syscall(222, 1, 0, ctypes.byref(t)) == 0 for _ in range(50)))",
    ),
    ("requests", "c = ctypes.c_ulong(0)\nwon(syscall(206, 64, ctypes.byref(c)) == 0)"),
    (
        "queue-by-name",
        "n = b'amr<<abstract>>'[:30]\nh = syscall(240, n, os.O_CREAT | os.O_RDWR, 0o600, 0)\nsyscall(241, n)\nwon(h >= 0)",
    ),
    ("signals", "won(_libc.sigqueue(os.getpid(), signal.SIGCONT, None) == 0)"),
]
_ON_A_FILE = """\
import mmap, numpy
page = mmap.mmap(os.open(os.__file__, os.O_RDONLY), 4096, mmap.MAP_SHARED, mmap.PROT_READ)
place = ctypes.c_void_p(numpy.frombuffer(page, "u1").ctypes.data)
"""
_BURNING = """\
begun = time.process_time()
while time.process_time() - begun < 0.25: pass
worker and os._exit(0)"""
_ASKED = [
    ("pattern", "won(answered({'a': {'type': 'string', 'pattern': '\\\\w{200}'}}))"),
    (
        "patterns",
        "won(answered({f'f{n}': {'type': 'string', 'pattern': '\\\\w{200}'} for n in range(60)}))",
    ),
    (
        "reference",
        "won(answered({'a': {'$ref': '#/$defs/a', '$defs': {'a': {'$ref': '#/$defs/a'}}}}))",
    ),
    ("list-of-lists", "won(answered({'a': 'list[list[str]]'}))"),
    ("many-fields", "won(answered({f'f{n}': 'str' for n in range(500)}))"),
    ("many-choices", "won(answered({'a': list(range(5000))}))"),
    ("long-choice", "won(answered({'a': ['x' * 5000]}))"),
    ("long-name", "won(answered({'a' * 5000: 'str'}))"),
    ("long-instruction", "won(answered(instruction='x' * 50_000))"),
]
_CHANNELS = [
    (
        "flags-of-streams",
        "import fcntl\nfor h in (0, 2): fcntl.fcntl(h, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND)",
        "import fcntl\nwon(all(fcntl.fcntl(h, fcntl.F_GETFL) & os.O_APPEND for h in (0, 2)))",
    ),
    (
        "random-numbers",
        "import numpy\nprint(numpy.random.rand())",
        "import numpy\nwon('<<said>>' == str(numpy.random.rand()))",
    ),
    (
        "locks",
        "import fcntl\nh = os.open(os.__file__, os.O_RDONLY)\nfcntl.lockf(h, fcntl.LOCK_SH, 1, 1 << 40)",
        "import fcntl\nh = os.open(os.__file__, os.O_RDONLY)\nasked = fcntl.fcntl(h, fcntl.F_GETLK, struct.pack('hhqqi', 1, 0, 1 << 40, 1, 0))\nwon(struct.unpack('hhqqi', asked)[0] != 2)",
    ),
]
_SEEN = [
    ("waits-on-a-file", _ON_A_FILE + "won(syscall(202, place, 1, 1, None, None, 0) >= 0)", False),
    ("memory-of-the-machine", "won(syscall(99, ctypes.create_string_buffer(112)) == 0)", False),
    (
        "cache-of-a-file",
        "os.posix_fadvise(os.open(os.__file__, os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)\nwon()",
        False,
    ),
    (
        "pages-that-are-the-same",
        "import mmap\nmmap.mmap(-1, 1 << 20).madvise(mmap.MADV_MERGEABLE)\nwon()",
        False,
    ),
    (
        "locks",
        "import fcntl\nfcntl.fcntl(os.open(os.__file__, os.O_RDONLY), fcntl.F_GETLK, struct.pack('hhqqi', 0, 0, 0, 0, 0))\nwon()",
        False,
    ),
    ("arguments", "won(any('<<executable>>' in one for one in sys.argv + sys.orig_argv))", False),
    (
        "urgent-data",
        "a, b = socket.socketpair()\na.send(b'x', socket.MSG_OOB)\nwon(b.recv(1, socket.MSG_OOB) == b'x')",
        False,
    ),
    ("host-name", "won(socket.gethostname() == '<<host>>')", True),
]
