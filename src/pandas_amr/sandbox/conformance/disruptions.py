"""Attempts to harm the host: at its resources, its trust in replies, its terminal, its runner."""

from __future__ import annotations

import signal

from pandas_amr.sandbox.conformance.attempt import (
    FLOOD_BYTES,
    FORGED,
    SESSION,
    Goal,
    SandboxAttempt,
)


def resource_attempts() -> list[SandboxAttempt]:
    """Attempts to use more than the limits: of memory, time, files, output."""
    attempts = [SandboxAttempt("resources", name, code, goal) for name, code, goal in _RESOURCES]
    for name, code in _KERNEL_MEMORY:
        attempts.append(SandboxAttempt("resources", f"kernel-{name}", code, measures_memory=True))
    for name, code, least in _FLOODS:
        attempts.append(SandboxAttempt("resources", name, SESSION + code, "flood", min_bytes=least))
    attempts.append(
        SandboxAttempt(
            "resources",
            "processor-over-restarts",
            SESSION + _BURNING,
            later_code="won()",
            repeat=12,
            cpu_s=2,
        )
    )
    return attempts


def integrity_attempts() -> list[SandboxAttempt]:
    """Attempts to crash the session, forge replies, keep the host busy, or patch the runner."""
    attempts: list[SandboxAttempt] = []
    for name, code, number in _CRASHES:
        attempts.append(SandboxAttempt("crash", name, code, "crash", fatal_signal=number))
    for name, code in _FORGERIES:
        attempts.append(SandboxAttempt("integrity", name, FORGED + code, "forge"))
    for name, code in _QUESTIONS:
        attempts.append(SandboxAttempt("integrity", name, SESSION + code, "hang"))
    for name, code in _ASKED:
        attempts.append(SandboxAttempt("integrity", f"asked-{name}", SESSION + code))
    for name, code in _STAINS:
        attempts.append(SandboxAttempt("integrity", name, SESSION + code, "stain"))
    for name, code in _RUNNERS:
        attempts.append(SandboxAttempt("integrity", f"runner-{name}", code, "crash"))
    return attempts


_RESOURCES: list[tuple[str, str, Goal]] = [
    ("memory", "b = bytes(3 << 30)\nwon()", "escape"),
    (
        "memory-by-numpy",
        """\
import numpy
a = numpy.empty(3 << 30, dtype='u1')
won()""",
        "escape",
    ),
    (
        "memory-by-map",
        """\
import mmap
m = mmap.mmap(-1, 3 << 30)
won()""",
        "escape",
    ),
    (
        "threads",
        """\
e = threading.Event()
for _ in range(1500): threading.Thread(target=e.wait, daemon=True).start()
won()
e.set()""",
        "escape",
    ),
    (
        "disk",
        """\
with open('big', 'wb') as f:
    for _ in range(200): f.write(bytes(1 << 20))
os.remove('big')
won()""",
        "escape",
    ),
    (
        "disk-by-many",
        """\
for i in range(100): open(f'p{i}', 'wb').write(bytes(1 << 20))
won()
for i in range(100): os.remove(f'p{i}')""",
        "escape",
    ),
    (
        "sparse-file",
        """\
with open('sparse', 'wb') as f: f.truncate(1 << 33)
os.remove('sparse')
won()""",
        "escape",
    ),
    (
        "inodes",
        """\
for i in range(3000): open(f'f{i}', 'w').close()
won()
for i in range(3000): os.remove(f'f{i}')""",
        "escape",
    ),
    ("descriptors", "h = [os.open('/dev/null', 0) for _ in range(900)]\nwon()", "escape"),
    ("endless-loop", "while True: pass", "hang"),
    ("sleep", "time.sleep(1000)", "hang"),
    (
        "swallowed-interrupt",
        """\
while True:
    try:
        while True: time.sleep(0.01)
    except BaseException: pass""",
        "hang",
    ),
    (
        "ignored-interrupt",
        """\
signal.signal(signal.SIGINT, signal.SIG_IGN)
while True: pass""",
        "hang",
    ),
    (
        "blocked-interrupt",
        """\
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
while True: pass""",
        "hang",
    ),
    ("big-number", "x = 7 ** (10 ** 8)", "hang"),
    ("pattern", "import re\nre.match('(a+)+$', 'a' * 60 + 'b')", "hang"),
    (
        "stopped",
        """\
os.kill(os.getpid(), signal.SIGTSTP)
threading.Event().wait()""",
        "hang",
    ),
    (
        "endless-repr",
        """\
class R:
    def __repr__(self):
        while True: pass
repr(R())""",
        "hang",
    ),
    (
        "endless-recursion",
        """\
sys.setrecursionlimit(10 ** 9)
def f(n): return f(n + 1)
f(0)""",
        "hang",
    ),
    ("endless-output", "while True: print('x', flush=True)", "hang"),
    (
        "finaliser",
        """\
class D:
    def __del__(self):
        while True: pass
d = D()
del d""",
        "hang",
    ),
]
_FLOODS = [
    ("printed-at-once", "print('x' * (100 << 20))", FLOOD_BYTES),
    ("printed-bit-by-bit", "for _ in range(1000): print('x' * 100_000)", FLOOD_BYTES),
    ("printed-in-lines", "for _ in range(700_000): print('x' * 99)", FLOOD_BYTES),
    ("complained", "sys.stderr.write('x' * (100 << 20))", FLOOD_BYTES),
    (
        "written-to-descriptors",
        """\
for h in (1, 2) * 500: os.write(h, bytes(65536))
for _ in range(600): os.write(1, bytes(65536))""",
        FLOOD_BYTES,
    ),
    (
        "long-repr",
        """\
class R:
    def __repr__(self): return 'x' * (100 << 20)
sys.displayhook(R())
R()""",
        FLOOD_BYTES,
    ),
    ("long-error", "raise ValueError('x' * (100 << 20))", FLOOD_BYTES),
    ("long-name-of-error", "raise type('E' * (80 << 20), (Exception,), {})('x')", FLOOD_BYTES),
    ("long-finding", "submit([{'unit': 0, 'word': 'x' * (100 << 20)}])", FLOOD_BYTES),
    (
        "many-findings",
        "submit([{'unit': n, 'words': ['x' * 99] * 234_000} for n in range(3)])",
        FLOOD_BYTES,
    ),
    (
        "long-reply",
        """\
import json
json.dumps = lambda *given, **named: 'x' * (100 << 20)
print(json.dumps({}))""",
        FLOOD_BYTES,
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
        """\
question(b'x', [[]] * 400_000)
worker or print([[]] * 400_000)""",
        1 << 20,
    ),
    (
        "texts-of-a-question",
        """\
question(b'x' * (100 << 20))
worker or print('x' * (100 << 20))""",
        FLOOD_BYTES,
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
    (
        "stack-by-sort",
        """\
sys.setrecursionlimit(10 ** 9)
f = lambda _: sorted([0], key=f)
f(0)""",
        0,
    ),
    (
        "stack-by-callback",
        """\
sys.setrecursionlimit(10 ** 9)
f = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: f())
f()
os._exit(3)""",
        0,
    ),
    (
        "stack-of-a-thread",
        """\
threading.stack_size(1 << 16)
t = threading.Thread(target=lambda: _libc.regcomp(ctypes.create_string_buffer(1024), \
b'(' * 1_000_000, 1))
t.start()
t.join()""",
        signal.SIGSEGV,
    ),
]
_CRASHES += [("return-probe", "syscall(335)", 0), ("probe", "syscall(336)", 0)]
_FORGERIES = [
    ("noise", "spoken(b'\\xff' * 64)"),
    ("long-header", "spoken((0xFFFFFFFF).to_bytes(4, 'big'))"),
    (
        "flood",
        """\
for h in range(3, 200):
    try: os.set_blocking(h, False); [os.write(h, b'\\0' * 65536) for _ in range(64)]
    except OSError: pass""",
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
        """\
said = {'id': getattr(worker, '_id', ''), 'ok': True, 'out': '', 'submitted': False, 'blobs': []}
spoken(b'x') if worker is None else [worker._stream.send(said) for _ in range(3)]""",
    ),
    ("pickle", "spoken(b'\\x80\\x04\\x95cposix\\nsystem\\n(Vtrue\\ntR.' * 10)"),
    (
        "hang-up",
        """\
for h in range(3, 200):
    spoken(b'x')
    try: os.close(h)
    except OSError: pass""",
    ),
]
_QUESTIONS = [
    (
        "questions-for-ever",
        """\
while True:
    try: ask([], 'x')
    except Exception: pass""",
    ),
    (
        "questions-after-the-interrupt",
        """\
signal.signal(signal.SIGINT, signal.SIG_IGN)
while True:
    try: ask([], 'x')
    except Exception: pass""",
    ),
    (
        "answer-never-read",
        """\
question(os.urandom(1_500_000).hex().encode())
while True: time.sleep(1)""",
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
        """\
while True:
    try: answered({'a': {'type': 'string', 'pattern': 'x'}})
    except Exception: pass""",
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
        """\
class R:
    def __repr__(self): return '\\x00\\x1bc\\ud800'
sys.displayhook(R())
R()""",
    ),
    ("controls-of-a-name", "raise type('E\\x1b[31m', (Exception,), {})('x')"),
    (
        "controls-of-a-finding",
        """\
said = '\\x00\\x1b[2J\\x9b'
print(said) if worker is None else submit([{'unit': 0, said: said, 'words': [{said: [said]}]}])""",
    ),
    (
        "controls-of-a-finding-by-force",
        """\
said = '\\x00\\x1b[2J\\x9b'
print(said) if worker is None else handed_in({'findings': [{'unit': 0, \
'words': [{said: said}]}]})""",
    ),
    (
        "controls-in-a-reply",
        """\
said = {'id': getattr(worker, '_id', ''), 'ok': True, 'out': '\\x00\\x1b[2J\\ud800', \
'submitted': False, 'blobs': []}
print(said['out']) if worker is None else worker._stream.send(said)""",
    ),
]
_RUNNERS = [
    (
        "dumps",
        """\
import json
json.dumps = None
json.dumps({})""",
    ),
    (
        "loads",
        """\
import json
json.loads = None
json.loads('{}')""",
    ),
    ("write", "os.write = None\nos.write(1, b'')"),
    ("read", "os.read = None\nos.read(0, 1)"),
    (
        "len",
        """\
import builtins
builtins.len = None
len([])""",
    ),
    (
        "isinstance",
        """\
import builtins
builtins.isinstance = None
isinstance(1, int)""",
    ),
    (
        "import",
        """\
import builtins
builtins.__import__ = None
import csv""",
    ),
    (
        "error",
        """\
import builtins
builtins.BaseException = builtins.Exception = None
raise Exception""",
    ),
    (
        "modules",
        """\
for name in list(sys.modules): sys.modules[name] = None
import os""",
    ),
    (
        "globals",
        """\
frame = sys._getframe()
while frame:
    name, frame = frame.f_globals, frame.f_back
    name.clear()""",
    ),
    ("output", "sys.stdout = sys.stderr = None\nsys.stdout.write('x')"),
    ("output-closed", "sys.stdout.close()\nsys.stdout.write('x')"),
    (
        "trace",
        """\
sys.settrace(lambda *given: 1 / 0)
def f(): pass
f()""",
    ),
    (
        "parser",
        """\
import ast
ast.parse = None
ast.parse('1')""",
    ),
    (
        "timer",
        """\
def ended(*given): raise SystemExit(9)
signal.signal(signal.SIGALRM, ended)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.01)
time.sleep(0.5)""",
    ),
]
# What a session takes of the kernel beside its own memory: a hundredth of what would hurt.
_KERNEL_MEMORY = [
    (
        "table-by-close-range",
        """\
def own(): result.append(_libc.syscall(436, 1000, 1001, 2))
result = []
t = threading.Thread(target=own)
t.start()
t.join()
won(result == [0])""",
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
        """\
kept = [socket.socketpair() for _ in range(100)]
for one, _ in kept:
    one.setblocking(False)
    one.send(b'x' * 65536)
won()""",
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
        """\
kept = [os.pipe() for _ in range(100)]
for _, w in kept: os.write(w, bytes(65536))
won()""",
    ),
    (
        "size-of-a-pipe",
        """\
import fcntl
r, w = os.pipe()
won(fcntl.fcntl(w, 1031, 1 << 19) == 1 << 19)""",
    ),
    (
        "size-of-a-socket",
        """\
socket.socketpair()[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 19)
won()""",
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
        """\
import fcntl
h = os.open(os.__file__, os.O_RDONLY)
for n in range(1000): fcntl.lockf(h, fcntl.LOCK_SH, 1, 2 * n)
try: fcntl.fcntl(h, fcntl.F_SETLK, struct.pack('hhqqi', 0, 99, 0, 0, 0))
except OSError as error: won(error.errno == errno.EINVAL)""",
    ),
    (
        "locks-of-a-description",
        """\
import fcntl
h = os.open(os.__file__, os.O_RDONLY)
fcntl.fcntl(h, 37, struct.pack('hhqqi', 0, 0, 0, 1, 0))
try: fcntl.fcntl(h, 37, struct.pack('hhqqi', 0, 99, 0, 0, 0))
except OSError as error: won(error.errno == errno.EINVAL)""",
    ),
    (
        "locks-of-files",
        """\
import fcntl
fcntl.flock(os.open(os.__file__, os.O_RDONLY), fcntl.LOCK_SH)
won()""",
    ),
    (
        "leases",
        """\
import fcntl
fcntl.fcntl(os.open('lease', os.O_CREAT | os.O_RDONLY, 0o600), 1024, 0)
won()""",
    ),
    (
        "notes-of-folders",
        """\
import fcntl
fcntl.fcntl(os.open('.', os.O_RDONLY), 1026, 1)
won()""",
    ),
    (
        "timers",
        """\
t = ctypes.c_int()
won(all(syscall(222, 1, 0, ctypes.byref(t)) == 0 for _ in range(50)))""",
    ),
    (
        "requests",
        """\
c = ctypes.c_ulong(0)
won(syscall(206, 64, ctypes.byref(c)) == 0)""",
    ),
    (
        "queue-by-name",
        """\
n = b'amr<<abstract>>'[:30]
h = syscall(240, n, os.O_CREAT | os.O_RDWR, 0o600, 0)
syscall(241, n)
won(h >= 0)""",
    ),
    ("signals", "won(_libc.sigqueue(os.getpid(), signal.SIGCONT, None) == 0)"),
]
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
