"""What a sandbox must hold against: attempts to get out, each with a control that works where nothing confines it.

A kit for every sandbox, this package's own and others'. ``attempts()`` lists them; ``World`` sets up what there is to be
had on the host, runs a control, and tells whether an attempt in a session of the sandbox under test came to something.

An attempt is code for one cell. What it wants is told by ``wants``:

- ``escape``: it calls ``won()`` where it got what it should not have.
- ``hang``: it should not be able to keep the host waiting beyond its limits.
- ``crash``: it may end its own session, and nothing else.
- ``forge``: it should not be able to speak for the runner, or to break the host's side.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import os
import platform
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, get_args

from pandas_amr.sandbox.base import Data, Isolation, Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pandas_amr.sandbox.base import Cell, Sandbox

Wants = Literal["escape", "hang", "crash", "forge"]

WON = "THE-ATTEMPT-WON"
LIMITS = Limits(memory_mb=512, wall_s=1.0, cpu_s=20, scratch_mb=32, scratch_files=100, threads=16, output_chars=4000)
CONTROL_S = 30.0
HANG_S = 1.5
GRACE_S = 8.0
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
FORGED = """\
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


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way out.

    Attributes:
        kind: what it is after, such as ``secrets`` or ``network``.
        code: one cell; words in double angle brackets are filled in by the world.
        by_root: whether the control works for root only.
    """

    kind: str
    name: str
    code: str
    wants: Wants = "escape"
    by_root: bool = False

    def __repr__(self) -> str:
        return f"<Attempt {self.kind}/{self.name}>"


def attempts() -> list[Attempt]:
    """All of them. Those by system call know the numbers of x86_64 only."""
    known = [
        *(Attempt("secrets", name, code, by_root=root) for name, code, root in _SECRETS),
        *(Attempt("files", name, code, by_root=root) for name, code, root in _FILES),
        *(Attempt("network", name, code, by_root=root) for name, code, root in _NETWORK),
        *(Attempt("processes", name, code, by_root=root) for name, code, root in _PROCESSES),
        *(Attempt("kernel", name, code, by_root=root) for name, code, root in _KERNEL),
        *(Attempt("resources", name, code, wants) for name, code, wants in _RESOURCES),
        *(Attempt("crash", name, code, "crash") for name, code in _CRASHES),
        *(Attempt("integrity", name, FORGED + code, "forge") for name, code in _FORGERIES),
    ]
    return [one for one in known if platform.machine() == "x86_64" or "syscall(" not in one.code]


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
    ("secret-file-by-pandas", "import pandas\nwon(known(str(pandas.read_csv('<<secret>>', header=None))))", False),
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
    ("kernel-log", "buffer = ctypes.create_string_buffer(4096)\nwon(syscall(103, 3, buffer, 4096) > 0)", True),
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
    ("to-csv", "import pandas\npandas.DataFrame({'a': [1]}).to_csv('<<folder>>/out.csv')\nwon()", False),
    ("sqlite", "import sqlite3\nsqlite3.connect('<<folder>>/x.db').execute('create table t(a)')\nwon()", False),
    ("package-file", "import json\nopen(json.__file__, 'a').close()\nwon()", True),
    (
        "package-folder",
        "import json\np = os.path.dirname(json.__file__) + '/amr_probe'\nopen(p, 'w').close()\nos.remove(p)\nwon()",
        True,
    ),
    ("start-up-file", "open('<<home>>/.bashrc', 'a').close()\nwon()", False),
    ("pipe-by-name", "os.mkfifo('<<folder>>/pipe')\nwon()", False),
    ("device-node", "import stat\nos.mknod('<<folder>>/null', stat.S_IFCHR | 0o666, os.makedev(1, 3))\nwon()", True),
    ("kernel-setting", "p = '/proc/sys/kernel/printk_delay'\nv = open(p).read()\nopen(p, 'w').write(v)\nwon()", True),
    (
        "by-handle",
        "b = ctypes.create_string_buffer(b'\\x80\\0\\0\\0' + b'\\0' * 200)\nm = ctypes.c_int()\nsyscall(303, -100, b'<<secret>>', b, ctypes.byref(m), 0)\nwon(known(os.read(syscall(304, os.open('<<folder>>', 0), b, 0), 64)))",
        True,
    ),
    ("climb", "won(known(open('../../../../../../../../..<<secret>>').read()))", False),
]
_NETWORK = [
    ("tcp", "socket.create_connection(('127.0.0.1', <<tcp>>), 2)\nwon()", False),
    ("tcp-listen", "s = socket.socket()\ns.bind(('127.0.0.1', 0))\ns.listen()\nwon()", False),
    ("udp", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', <<udp>>))\nwon()", False),
    ("tcp6", "socket.socket(socket.AF_INET6)\nwon()", False),
    ("unix-by-path", "s = socket.socket(socket.AF_UNIX)\ns.connect('<<unix>>')\nwon()", False),
    ("unix-abstract", "s = socket.socket(socket.AF_UNIX)\ns.connect('\\0<<abstract>>')\nwon()", False),
    ("unix-datagrams", "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\nwon()", False),
    ("url-by-pandas", "import pandas\npandas.read_csv('http://127.0.0.1:<<tcp>>/x', header=None)\nwon()", False),
    ("url", "import urllib.request as r\nr.urlopen('http://127.0.0.1:<<tcp>>/', timeout=2)\nwon()", False),
    (
        "names",
        "socket.getaddrinfo('localhost', 80)[0]\nsocket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.1', 53))\nwon()",
        False,
    ),
    ("raw", "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)\nwon()", True),
    ("packet", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\nwon()", True),
    ("netlink", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\nwon()", False),
    ("io-uring", "b = ctypes.create_string_buffer(120)\nwon(syscall(425, 4, b) >= 0)", False),
]
_PROCESSES = [
    ("fork", "pid = os.fork()\nif pid == 0: os._exit(0)\nos.waitpid(pid, 0)\nwon()", False),
    ("vfork", "won(syscall(57) >= 0)", False),
    ("system", "won(os.system('true') == 0)", False),
    ("subprocess", "import subprocess\nsubprocess.run(['/bin/true'], check=True)\nwon()", False),
    ("python", "import subprocess\nsubprocess.run([sys.executable, '-c', ''], check=True)\nwon()", False),
    ("spawn", "pid = os.posix_spawn('/bin/true', ['true'], {})\nos.waitpid(pid, 0)\nwon()", False),
    (
        "multiprocessing",
        "import multiprocessing as m\np = m.get_context('fork').Process(target=int)\np.start()\np.join()\nwon(p.exitcode == 0)",
        False,
    ),
    ("exec", f'os.execv(sys.executable, [sys.executable, "-c", "print({WON[:5]!r} + {WON[5:]!r})"])', False),
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
        "b = ctypes.create_string_buffer(8)\nv = struct.pack('QQ', ctypes.addressof(b), 8)\na = int(open('/proc/<<victim>>/maps').readline().split('-')[0], 16)\nwon(syscall(310, <<victim>>, v, 1, struct.pack('QQ', a, 8), 1, 0) == 8)",
        True,
    ),
    ("priority", "os.setpriority(os.PRIO_PROCESS, 0, -1)\nwon()", True),
    ("affinity", "os.sched_setaffinity(0, os.sched_getaffinity(0))\nwon()", False),
    ("session", "os.setsid() if os.getpgrp() != os.getpid() else os.setpgid(0, os.getppid())\nwon()", False),
    ("outlive-parent", "won(_libc.prctl(1, 0, 0, 0, 0) == 0)", False),
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
    ("mount", "_libc.unshare(0x00020000)\nwon(_libc.mount(b'tmpfs', b'/mnt', b'tmpfs', 0, None) == 0)", True),
    ("mount-proc", "_libc.unshare(0x10020000)\nwon(_libc.mount(b'none', b'/', None, 0x44000, None) == 0)", True),
    ("chroot", "os.chroot('/')\nwon()", True),
    ("setns", "won(syscall(308, os.open('/proc/self/ns/mnt', 0), 0) == 0)", True),
    ("bpf", "won(syscall(321, 0, struct.pack('IIII', 2, 4, 4, 1) + b'\\0' * 100, 72) >= 0)", True),
    ("perf", "won(syscall(298, struct.pack('IIQ', 1, 112, 0) + b'\\0' * 100, 0, -1, -1, 0) >= 0)", True),
    ("userfaultfd", "won(syscall(323, 0) >= 0)", True),
    ("key", "won(syscall(248, b'user', b'amr', b'x', 1, -3) > 0)", False),
    (
        "raise-limits",
        "import resource\nresource.setrlimit(resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE))\nwon()",
        False,
    ),
    ("limits-of-others", "import resource\nresource.prlimit(<<victim>>, resource.RLIMIT_CORE)\nwon()", False),
    ("personality", "won(syscall(135, 0xFFFFFFFF) >= 0)", False),
    ("host-name", "socket.sethostname(socket.gethostname())\nwon()", True),
    ("shared-memory", "i = syscall(29, 0, 4096, 0o1600)\nsyscall(31, i, 0, 0)\nwon()", False),
    ("semaphores", "i = syscall(64, 0, 1, 0o1600)\nsyscall(66, i, 0, 0)\nwon()", False),
    ("message-queue", "i = syscall(68, 0, 0o1600)\nsyscall(71, i, 0, 0)\nwon()", False),
    ("memory-file", "os.memfd_create('x')\nwon()", False),
    ("inotify", "won(syscall(253) >= 0)", False),
    ("fanotify", "won(syscall(300, 0x200, 0) >= 0)", True),
    ("capabilities", "won(syscall(126, struct.pack('Ii', 0x20080522, 0), b'\\0' * 24) == 0)", False),
    ("loose-seccomp", "won(_libc.prctl(22, 0, 0, 0, 0) == 0 or _libc.prctl(21, 0, 0, 0, 0) == 0)", False),
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
    ("sparse-file", "with open('sparse', 'wb') as f: f.truncate(1 << 33)\nos.remove('sparse')\nwon()", "escape"),
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
    ("blocked-interrupt", "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))\nwhile True: pass", "hang"),
    ("big-number", "x = 7 ** (10 ** 8)", "hang"),
    ("pattern", "import re\nre.match('(a+)+$', 'a' * 60 + 'b')", "hang"),
    ("stopped", "os.kill(os.getpid(), signal.SIGTSTP)\nthreading.Event().wait()", "hang"),
    ("endless-repr", "class R:\n    def __repr__(self):\n        while True: pass\nrepr(R())", "hang"),
    ("finaliser", "class D:\n    def __del__(self):\n        while True: pass\nd = D()\ndel d", "hang"),
]
_CRASHES = [
    ("exit", "os._exit(3)"),
    ("abort", "os.abort()"),
    ("segfault", "ctypes.string_at(1)"),
    ("illegal", "signal.raise_signal(signal.SIGKILL)"),
    (
        "stack",
        "sys.setrecursionlimit(10 ** 9)\ndef f(): return f()\nclass A:\n    def __getattr__(self, n): return getattr(self, n)\nctypes.memset(ctypes.c_void_p(0), 0, 1)",
    ),
    ("bus", "ctypes.memmove(0, b'xxxx', 4)"),
]
_FORGERIES = [
    ("noise", "spoken(b'\\xff' * 64)"),
    ("long-header", "spoken((0xFFFFFFFF).to_bytes(4, 'big'))"),
    (
        "flood",
        "for h in range(3, 200):\n    try: os.set_blocking(h, False); [os.write(h, b'\\0' * 65536) for _ in range(64)]\n    except OSError: pass",
    ),
    ("wrong-name", "spoken(message(id='0' * 16, ok=True, out='forged', submitted=False, blobs=[]))"),
    ("no-object", "spoken(b'\\0\\0\\0\\x02[]')"),
    ("deep", "spoken((60000).to_bytes(4, 'big') + b'[' * 60000)"),
    ("huge-blob", "spoken(message(id='0' * 16, ok=True, out='', submitted=True, blobs=[1 << 50]))"),
    ("negative-blob", "spoken(message(id='0' * 16, ok=True, out='', submitted=True, blobs=[-5]))"),
    ("question", "spoken(message(id='0' * 16, ask={'texts': ['x'] * 10, 'instruction': 'x', 'schema': {}}))"),
    ("pickle", "spoken(b'\\x80\\x04\\x95cposix\\nsystem\\n(Vtrue\\ntR.' * 10)"),
    ("hang-up", "for h in range(3, 200):\n    spoken(b'x')\n    try: os.close(h)\n    except OSError: pass"),
]


class World:
    """What there is to be had on the host, for as long as the ``with`` lasts: files, sockets, a process, secrets."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.words: dict[str, str] = {}
        self._token = secrets.token_hex(16)
        self._variable = f"AMR_TOKEN_{secrets.token_hex(4).upper()}"
        self._held: int = -1

    def __enter__(self) -> Self:
        stack = self._stack
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amr-world-", ignore_cleanup_errors=True)))
        secret = folder / "secret.txt"
        secret.write_text(self._token, encoding="ascii")
        (folder / "home").mkdir()
        (folder / "home" / ".netrc").write_text(self._token, encoding="ascii")
        spares = [folder / f"spare{number}" for number in range(3)]
        self._spares = spares
        tcp, udp, unix, abstract = (
            stack.enter_context(socket.socket(family, kind))
            for family, kind in (
                (socket.AF_INET, socket.SOCK_STREAM),
                (socket.AF_INET, socket.SOCK_DGRAM),
                (socket.AF_UNIX, socket.SOCK_STREAM),
                (socket.AF_UNIX, socket.SOCK_STREAM),
            )
        )
        tcp.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", 0))
        unix.bind(str(folder / "unix"))
        abstract.bind(f"\0amr-{secret.parent.name}")
        for listening in (unix, abstract):
            listening.listen()
        stack.enter_context(_answering(tcp))
        os.environ[self._variable] = self._token
        stack.callback(os.environ.pop, self._variable, None)
        victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], process_group=0)
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        self._held = os.open(secret, os.O_RDONLY)
        os.set_inheritable(self._held, True)  # noqa: FBT003 (what a careless host leaves open)
        stack.callback(os.close, self._held)
        self.words = {
            "variable": self._variable,
            "secret": str(secret),
            "folder": str(folder),
            "spare": str(spares[0]),
            "spare2": str(spares[1]),
            "spare3": str(spares[2]),
            "home": str(folder / "home"),
            "tcp": str(tcp.getsockname()[1]),
            "udp": str(udp.getsockname()[1]),
            "unix": str(folder / "unix"),
            "abstract": f"amr-{secret.parent.name}",
            "hash": hashlib.sha256(self._token.encode()).hexdigest(),
            "victim": str(victim.pid),
        }
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def code(self, attempt: Attempt) -> str:
        """The cell, filled in with what there is here."""
        for spare in self._spares:
            spare.write_text("spare", encoding="ascii")
        for made in ("new", "made", "hard", "pipe", "null", "out.csv", "x.db"):
            path = Path(self.words["folder"]) / made
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        helper = (
            "def _read(handle):\n    try: return known(os.pread(handle, 64, 0))\n    except OSError: return False\n"
        )
        code = PRELUDE + helper + attempt.code
        for word, value in self.words.items():
            code = code.replace(f"<<{word}>>", value)
        return code

    def control(self, attempt: Attempt) -> str | None:
        """Run the attempt with nothing around it; None where it works, else why it does not."""
        code = self.code(attempt)
        ours, theirs = os.pipe()
        try:
            with tempfile.TemporaryDirectory() as scratch:
                done = subprocess.run(
                    [sys.executable, "-c", code],
                    cwd=scratch,
                    pass_fds=(self._held, theirs),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=HANG_S if attempt.wants == "hang" else CONTROL_S,
                    check=False,
                )
            os.close(theirs)
            theirs = -1
            said = os.read(ours, 64)
        except subprocess.TimeoutExpired:
            return None if attempt.wants == "hang" else "it did not end"
        finally:
            os.close(ours)
            if theirs >= 0:
                os.close(theirs)
        if attempt.wants == "escape":
            return None if WON.encode() in done.stdout else done.stderr.decode(errors="replace")[-400:]
        if attempt.wants == "crash":
            return None if done.returncode != 0 else "it ended well"
        if attempt.wants == "forge":
            return None if said else "nothing was said"
        return "it came to an end"

    async def holds(self, attempt: Attempt, sandbox: Sandbox) -> str | None:
        """Try it in a session, beside another one; None where the sandbox holds, else what went wrong."""
        beside = await sandbox.open(Data("df"), LIMITS)
        session = await sandbox.open(Data("df"), LIMITS)
        try:
            if (await beside.run("kept = 41")).text.strip():
                return "a session spoke without being asked"
            began = time.monotonic()
            cell = await session.run(self.code(attempt))
            seconds = time.monotonic() - began
            after = await session.run("1 + 1")
            if after.lost:
                after = await session.run("1 + 1")
            other = await beside.run("kept + 1")
        finally:
            await session.close()
            await beside.close()
        return self._wrong(attempt, cell, after, other, seconds)

    def _wrong(self, attempt: Attempt, cell: Cell, after: Cell, other: Cell, seconds: float) -> str | None:
        if WON in cell.text or "forged" in cell.text.replace(attempt.code, ""):
            return f"it won: {cell.text[-300:]}"
        if self._token in cell.text:
            return "the secret is out"
        if seconds > LIMITS.wall_s + GRACE_S:
            return f"the host waited for {seconds:.1f} s"
        if len(cell.text) > LIMITS.output_chars + 500:
            return f"the host took {len(cell.text)} characters"
        if after.text.strip() != "2":
            return f"no session could be had afterwards: {after.text[-300:]}"
        if other.text.strip() != "42":
            return f"another session suffered: {other.text[-300:]}"
        return None


@contextlib.contextmanager
def _answering(listening: socket.socket) -> Iterator[None]:
    """A server that says something to whoever connects."""
    listening.listen()

    def answer() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(1)
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\n1,2\n")

    threading.Thread(target=answer, daemon=True).start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


async def report(sandbox: Sandbox, world: World, *, at_once: int = 8) -> dict[str, str]:
    """Try everything; what came of the attempts that came to something, by ``kind/name``."""
    held: dict[str, str] = {}
    gate = asyncio.Semaphore(at_once)

    async def one(attempt: Attempt) -> None:
        async with gate:
            wrong = await world.holds(attempt, sandbox)
            if wrong is not None:
                held[f"{attempt.kind}/{attempt.name}"] = wrong

    await asyncio.gather(*(one(attempt) for attempt in attempts()))
    return held


def main() -> int:
    """``python -m pandas_amr.sandbox.conformance [tier] [--controls]``: what holds here, a line each; status 1 if not all."""
    from pandas_amr.sandbox.local import LocalSandbox  # noqa: PLC0415 (a back end, which the kit itself does not need)

    parser = argparse.ArgumentParser(prog="pandas_amr.sandbox.conformance")
    parser.add_argument("tier", nargs="?", default="auto", choices=get_args(Isolation))
    parser.add_argument("--controls", action="store_true", help="also show that each attempt works unconfined")
    asked = parser.parse_args()
    as_root = os.getuid() == 0
    idle: dict[str, str] = {}

    async def tried() -> tuple[dict[str, str], str]:
        sandbox = LocalSandbox(asked.tier)
        try:
            return await report(sandbox, world), sandbox.tier
        finally:
            await sandbox.close()

    with World() as world:
        if asked.controls:
            for attempt in attempts():
                why = world.control(attempt) if as_root or not attempt.by_root else None
                if why is not None:
                    idle[f"{attempt.kind}/{attempt.name}"] = why
        wrong, tier = asyncio.run(tried())
    for name, why in sorted(wrong.items()):
        print(f"OPEN {name}: {why}")  # noqa: T201 (a command's output)
    for name, why in sorted(idle.items()):
        print(f"NO CONTROL {name}: {why}")  # noqa: T201
    print(f"{tier}, uid {os.getuid()}: {len(attempts())} attempts, {len(wrong)} open, {len(idle)} without control")  # noqa: T201
    return 1 if wrong or idle else 0


if __name__ == "__main__":
    raise SystemExit(main())
