"""What a session may take of the kernel, of the host and of time, and that nothing passes from one session to another."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import platform
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pydantic import BaseModel, ValidationError

import pandas_amr as amr
from pandas_amr._agent import prompts
from pandas_amr._agent.dispatch import complaint
from pandas_amr._units.parquet import ArrowFrame
from pandas_amr.errors import SandboxError
from pandas_amr.sandbox.base import Cell, Data, Limits, Submitted
from pandas_amr.sandbox.conformance import kit as conformance
from pandas_amr.sandbox.conformance import report
from pandas_amr.sandbox.conformance.memory import Levels
from pandas_amr.sandbox.guest import syscalls
from pandas_amr.sandbox.host import messages
from pandas_amr.sandbox.host.cgroups import SessionGroups
from pandas_amr.sandbox.host.local import LocalSandbox
from pandas_amr.testing import Call, ScriptedServer, findings
from processes import sandbox_processes
from versions import once

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded sandbox needs Linux"),
    pytest.mark.usefixtures("sandboxed"),
]
QUICK = Limits(wall_s=1.0, memory_mb=512)
PATIENT = Limits(wall_s=30.0, memory_mb=512)
GUARD_S = 40.0  # until a test says that the host waited, instead of waiting itself
SOURCE = str(Path(amr.__file__).parents[1])
# What code does to speak to the host without the functions that it is given.
FORCE = """\
import json, os, time
worker = submit.__self__
def ask_by_force(text=b"x", schema={"a": "str"}, instruction="i"):
    asked = {"lengths": [len(text)], "instruction": instruction, "schema": schema}
    worker._stream.send({"id": worker._id, "ask": asked}, text)
def told():
    return worker._stream.receive()[0]
def submit_by_force(payload):
    said = {"id": worker._id, "ok": True, "out": "", "submitted": True}
    worker._stream.send(said, json.dumps(payload).encode())
"""


def in_session(*cells: str, tier="auto", ask=None, data=None, limits=PATIENT, **options) -> list[Cell]:
    """Run cells in one session; what came of each."""

    async def run():
        sandbox = LocalSandbox(tier, **options)
        try:
            session = await sandbox.open(data or Data("df"), limits)
            async with asyncio.timeout(GUARD_S):
                return [await session.run(cell, ask) for cell in cells]
        finally:
            await sandbox.close()

    return asyncio.run(run())


def code(text: str) -> Call:
    return Call("python_repl", {"code": text})


class Asked:
    """Answers whatever it is asked, and keeps it."""

    def __init__(self, answer: str = "y", *, waits_s: float = 0.0, waited_s: float = 0.0) -> None:
        self.questions: list[dict] = []
        self._answer = answer
        self._waits_s = waits_s
        self._waited_s = waited_s

    async def __call__(self, asked):
        self.questions.append(asked)
        await asyncio.sleep(self._waits_s)
        data = ArrowFrame.of(pd.DataFrame({"answer": [self._answer] * len(asked["texts"])})).data("answers")
        return Data(data.name, data.parquet, data.labels, waited_s=self._waited_s)


# Which calls reach the kernel: the filter's program, run here as the kernel runs it

ALLOWED, PRETENDED, REFUSED = "allowed", "answered and not made", "refused"
THREAD = 0x3D0F00  # what the C library begins a thread with
CALLS = [
    ("a range of descriptors is closed", (436, 436), (3, 100, 0), ALLOWED),
    ("a range of descriptors is closed later", (436, 436), (3, 100, 4), ALLOWED),
    ("a table of descriptors of its own", (436, 436), (3, 100, 2), REFUSED),
    ("and closed later", (436, 436), (3, 100, 6), REFUSED),
    ("flags in the high half", (436, 436), (3, 100, 1 << 32), REFUSED),
    ("a thread", (56, 220), (THREAD,), ALLOWED),
    ("a thread with a table of its own", (56, 220), (THREAD & ~0x400,), REFUSED),
    ("a thread with a folder of its own", (56, 220), (THREAD & ~0x200,), REFUSED),
    ("a process", (56, 220), (17,), REFUSED),
    ("a thread in a namespace", (56, 220), (THREAD | 0x10000000,), REFUSED),
    ("a lock", (72, 25), (3, 6), PRETENDED),
    ("a lock that is waited for", (72, 25), (3, 7), PRETENDED),
    ("a lock of a description", (72, 25), (3, 37), PRETENDED),
    ("and waited for", (72, 25), (3, 38), PRETENDED),
    ("locks of others", (72, 25), (3, 5), REFUSED),
    ("locks of others by description", (72, 25), (3, 36), REFUSED),
    ("a larger pipe", (72, 25), (3, 1031), REFUSED),
    ("a lease", (72, 25), (3, 1024), REFUSED),
    ("notes of a folder", (72, 25), (3, 1026), REFUSED),
    ("flags", (72, 25), (3, 4), ALLOWED),
    ("a lock of a file", (73, 32), (3, 1), REFUSED),
    ("watches", (291, 20), (0,), REFUSED),
    ("watches, the old way", (213, None), (1,), REFUSED),
    ("a watch", (233, 21), (3, 1, 4), REFUSED),
    ("a message", (44, 206), (3, 0, 1, 0x4000), ALLOWED),
    ("an urgent message", (44, 206), (3, 0, 1, 1), REFUSED),
    ("and quietly", (44, 206), (3, 0, 1, 0x4001), REFUSED),
    ("an urgent message is read", (45, 207), (3, 0, 1, 1), REFUSED),
    ("a peek", (45, 207), (3, 0, 1, 0x42), ALLOWED),
    ("a pipe", (293, 59), (0, 0o2000000), ALLOWED),
    ("a pipe of notes", (293, 59), (0, 0x80), REFUSED),
    ("the probe's return", (335, None), (), REFUSED),
    ("the probe", (336, None), (), REFUSED),
    ("a wait", (202, 98), (0, 128), ALLOWED),
    ("a wake", (202, 98), (0, 129), ALLOWED),
    ("a thread is joined", (202, 98), (0, 265), ALLOWED),
    ("others are woken", (202, 98), (0, 1), REFUSED),
    ("others are moved", (202, 98), (0, 3), REFUSED),
    ("memory", (9, 222), (0, 4096, 3, 0x22), ALLOWED),
    ("huge pages of the pool", (9, 222), (0, 1 << 21, 3, 0x40022), REFUSED),
    ("pages are given back", (28, 233), (0, 4096, 4), ALLOWED),
    ("pages that are the same", (28, 233), (0, 4096, 12), REFUSED),
    ("pages of files are thrown out", (28, 233), (0, 4096, 21), REFUSED),
    ("a file will be read", (221, 223), (3, 0, 0, 3), ALLOWED),
    ("a file's cache is emptied", (221, 223), (3, 0, 0, 4), REFUSED),
    ("memory of the machine", (99, 179), (0,), REFUSED),
]


def outcome(program: bytes, number: int, architecture: int, arguments: tuple[int, ...]) -> str:
    """What a seccomp filter says of a call."""
    call = struct.pack("<IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    steps = [struct.unpack_from("<HBBI", program, place) for place in range(0, len(program), 8)]
    place, value = 0, 0
    while True:
        operation, if_true, if_false, constant = steps[place]
        place += 1
        if operation == 0x20:
            (value,) = struct.unpack_from("<I", call, constant)
        elif operation == 0x54:
            value &= constant
        elif operation == 0x15:
            place += if_true if value == constant else if_false
        elif operation == 0x45:
            place += if_true if value & constant else if_false
        else:
            assert operation == 0x06
            return {0x7FFF0000: ALLOWED, 0x00050000: PRETENDED, 0x00050001: REFUSED}[constant]


@once
@pytest.mark.parametrize(("what", "numbers", "arguments", "expected"), CALLS, ids=[call[0] for call in CALLS])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_call_that_takes_of_the_kernel_or_tells_of_others_is_not_made(
    what, numbers, arguments, expected, machine, monkeypatch
):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    column, architecture = syscalls.ARCHITECTURES[machine]
    number = numbers[column]
    if number is None:
        pytest.skip(f"{machine} has no such call")
    assert outcome(syscalls.seccomp_filter(1), number, architecture, arguments) == expected, what


# What the kernel holds

HELD = {
    "sockets of threads with tables of their own": """\
import ctypes, socket, threading
kept, left = [], threading.Barrier(4)
def filled():
    ctypes.CDLL(None).syscall(436, 1000, 1001, 2)
    try:
        while len(kept) < 500: kept.append(socket.socketpair())
    except OSError: pass
    left.wait(10)
threads = [threading.Thread(target=filled) for _ in range(4)]
for one in threads: one.start()
for one in threads: one.join()
len(kept) < 64""",
    "pipes": """\
import os
kept = []
try:
    while len(kept) < 500: kept.append(os.pipe())
except OSError: pass
len(kept) < 64""",
    "locks": """\
import fcntl, os, struct
h = os.open(os.__file__, os.O_RDONLY)
for n in range(100): fcntl.lockf(h, fcntl.LOCK_SH, 1, 2 * n)
fcntl.fcntl(h, fcntl.F_SETLK, struct.pack("hhqqi", 0, 99, 0, 0, 0)) is not None""",
}


@once
@pytest.mark.parametrize("code_", HELD.values(), ids=HELD.keys())
@pytest.mark.sampled(3)
def test_the_kernel_holds_for_a_session_what_few_descriptors_hold(tier, code_):
    (cell,) = in_session(code_, tier=tier)
    assert cell.text.strip() == "True"


WORKS = {
    "asyncio": "import asyncio\nassert asyncio.run(asyncio.wait_for(asyncio.to_thread(abs, -1), 5)) == 1",
    "pool": "from concurrent.futures import ThreadPoolExecutor as P\nwith P(8) as p: assert sum(p.map(abs, range(99))) == 4851",
    "arrow": "import pyarrow.compute as pc\nassert pc.sum(df['a'].array._pa_array).as_py() == 3 if 'df' in globals() else True",
    "advice": "import mmap\nm = mmap.mmap(-1, 8192)\nm.madvise(mmap.MADV_DONTNEED)\nassert m[:1] == b'\\0'",
}
WORKS_IN_A_FOLDER = {
    "sqlite": "import sqlite3\na, b = sqlite3.connect('x.db'), sqlite3.connect('x.db')\na.execute('create table t(n)')\na.execute('insert into t values (1)')\na.commit()\nb.execute('insert into t values (2)')\nb.commit()\nassert a.execute('select sum(n) from t').fetchone() == (3,)",
    "sqlite with a log": "import sqlite3\na, b = sqlite3.connect('y.db'), sqlite3.connect('y.db')\nassert a.execute('pragma journal_mode=wal').fetchone() == ('wal',)\na.execute('create table t(n)')\na.commit()\nb.execute('insert into t values (2)')\nb.commit()\nassert a.execute('select n from t').fetchall() == [(2,)]",
    "pandas and sqlite": "import sqlite3\nc = sqlite3.connect('z.db')\npd.DataFrame({'a': [1]}).to_sql('t', c)\nassert pd.read_sql('select a from t', c)['a'].tolist() == [1]",
    "memory map": "f = np.memmap('m', dtype='u1', mode='w+', shape=9)\nf[:] = 7\ndel f\nassert np.fromfile('m', dtype='u1').sum() == 63",
    "devices": "import os\nopen(os.devnull, 'w').write('x')\nfor name in ('zero', 'random', 'urandom'): assert len(open(f'/dev/{name}', 'rb').read(4)) == 4",
}


@once
def test_what_the_bounds_leave_works(tier):
    cases = WORKS | (WORKS_IN_A_FOLDER if tier == "strong" else {})
    done = in_session(*cases.values(), tier=tier)
    assert {name: cell.text for name, cell in zip(cases, done, strict=True) if not cell.ok} == {}


@once
def test_the_kernel_takes_a_session_and_never_the_host(tier):
    async def run():
        sandbox = LocalSandbox(tier)
        try:
            session = await sandbox.open(Data("df"), QUICK)
            await session.run("1")
            standing = sandbox_processes()
            scores = {Path(f"/proc/{pid}/oom_score_adj").read_text().strip() for pid in standing}
            await session.close()
            return scores
        finally:
            await sandbox.close()

    assert asyncio.run(run()) == {"1000"}


@once
def test_where_groups_can_be_made_a_session_is_in_one_of_its_own_with_its_limits(tmp_path):
    own = tmp_path / "groups" / "user" / "app.scope"
    own.mkdir(parents=True)
    (own.parent / "cgroup.subtree_control").write_text("cpu memory pids\n")
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text("1:name=systemd:/\n0::/user/app.scope\n")
    (proc / "mountinfo").write_text(f"30 24 0:26 / {tmp_path / 'groups'} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n")
    groups = SessionGroups.find(proc)
    process = os.pidfd_open(os.getpid())
    try:
        group = groups.enter(process, memory=7 << 20, tasks=9)
    finally:
        os.close(process)
    assert group.parent == own.parent
    said = {name: (group / name).read_text() for name in ("memory.max", "pids.max", "cgroup.procs")}
    assert said == {"memory.max": str(7 << 20), "pids.max": "9", "cgroup.procs": str(os.getpid())}


@once
@pytest.mark.parametrize(
    "said", ["", "0::/user/app.scope\n", "3:memory:/x\n"], ids=["nothing", "no limits", "the first"]
)
def test_where_no_groups_can_be_made_there_are_none(tmp_path, said):
    (tmp_path / "cgroup").write_text(said)
    (tmp_path / "mountinfo").write_text(f"30 24 0:26 / {tmp_path} rw - cgroup2 cgroup2 rw\n")
    assert SessionGroups.find(tmp_path) is None


# What code asks

REFUSED_QUESTIONS = {
    "a pattern": {"schema": {"a": {"type": "string", "pattern": "\\w{200}"}}},
    "many patterns": {"schema": {f"f{n}": {"type": "string", "pattern": "(\\w{200}){9}"} for n in range(60)}},
    "a JSON schema": {"schema": {"a": {"type": "integer"}}},
    "a reference": {"schema": {"a": {"$ref": "#/$defs/a"}}},
    "a schema with a kind": {"schema": {"a": {"kind": {"type": "string", "pattern": "x"}, "description": "d"}}},
    "a kind and more": {"schema": {"a": {"kind": "str", "description": "d", "pattern": "x"}}},
    "a list of lists": {"schema": {"a": "list[list[str]]"}},
    "another type": {"schema": {"a": "bytes"}},
    "no fields": {"schema": {}},
    "no schema": {"schema": []},
    "many fields": {"schema": {f"f{n}": "str" for n in range(100)}},
    "a long name": {"schema": {"a" * 1000: "str"}},
    "many choices": {"schema": {"a": [str(n) for n in range(1000)]}},
    "no choices": {"schema": {"a": []}},
    "choices of choices": {"schema": {"a": [["x"]]}},
    "a long choice": {"schema": {"a": ["x" * 1000]}},
    "a long description": {"schema": {"a": {"kind": "str", "description": "x" * 1000}}},
    "a long instruction": {"instruction": "x" * 20_000},
}


@once
@pytest.mark.parametrize("question", REFUSED_QUESTIONS.values(), ids=REFUSED_QUESTIONS.keys())
@pytest.mark.sampled(5)
def test_what_code_may_not_ask_reaches_nobody_and_is_told(question):
    asked = Asked()
    call = f"{FORCE}\nask_by_force(**json.loads({json.dumps(json.dumps(question))}))\ntold()['ok'], time.sleep(0)"
    (cell,) = in_session(call, ask=asked)
    assert asked.questions == []
    assert cell.text.strip() == "(False, None)"


SCHEMAS = {
    "types": ("{'a': str, 'b': int, 'c': float, 'd': bool}", {"a": "str", "b": "int", "c": "float", "d": "bool"}),
    "lists": ("{'a': list[str], 'b': 'list[int]'}", {"a": "list[str]", "b": "list[int]"}),
    "choices": ("{'a': ['x', 1, True]}", {"a": ["x", 1, True]}),
    "a description": ("{'a': (int, 'how many')}", {"a": {"kind": "int", "description": "how many"}}),
}


@once
@pytest.mark.parametrize(("schema", "expected"), SCHEMAS.values(), ids=SCHEMAS.keys())
@pytest.mark.sampled(2)
def test_plain_types_lists_of_them_and_choices_can_be_asked_for(schema, expected):
    asked = Asked()
    (cell,) = in_session(f"len(ask(['é', None, 'b'], 'Which?', {schema}))", ask=asked)
    assert cell.text.strip() == "3"
    assert asked.questions == [{"texts": ["é", None, "b"], "instruction": "Which?", "schema": expected}]


@once
@pytest.mark.parametrize(
    "call",
    ["ask(['x'] * 5, 'i')", "ask(['x'], 'i', {'a': dict})", "ask(['x' * (17 << 20)], 'i')", "ask(['x'], 'i' * 9000)"],
    ids=["too many texts", "a type that is none of them", "too long texts", "a long instruction"],
)
@pytest.mark.sampled(2)
def test_code_is_told_what_ask_takes_without_asking_the_host(call):
    asked = Asked()
    (cell,) = in_session(call, ask=asked, limits=Limits(asks=4, wall_s=30))
    assert "RuntimeError: ask(" in cell.text
    assert asked.questions == []


@once
def test_a_session_that_asks_again_and_again_what_cannot_be_asked_is_ended():
    stubborn = FORCE + "for _ in range(50):\n    ask_by_force(schema={'a': {'pattern': 'x'}})\n    told()"
    asked = Asked()
    ended, after = in_session(stubborn, "1", ask=asked)
    assert ended.lost
    assert "it asked 6 times what cannot be asked" in ended.text
    assert after.text.strip() == "1"
    assert asked.questions == []


@once
@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("worker._stream.send({'id': worker._id, 'ask': [[]] * 400_000})", "a message of"),
        ("worker._stream.send({'id': worker._id, 'ok': True, 'out': 'x' * 2_000_000})", "a message of"),
        ("ask_by_force(b'x' * (20 << 20))", "more than `ask` takes"),
        ("worker._stream.send({'id': worker._id, 'ask': {'texts': ['x'], 'instruction': 'i', 'schema': {}}})", "form"),
        (
            "worker._stream.send({'id': worker._id, 'ask': {'lengths': [9], 'instruction': 'i', 'schema': {}}}, b'x')",
            "form",
        ),
        (
            "worker._stream.send({'id': worker._id, 'ask': {'lengths': [True], 'instruction': 'i', 'schema': {}}}, b'x')",
            "form",
        ),
    ],
    ids=["brackets", "a long output", "long texts", "another form", "other lengths", "no numbers"],
)
@pytest.mark.sampled(3)
def test_a_message_is_as_small_as_what_it_may_say(message, told):
    (cell,) = in_session(FORCE + message, ask=Asked())
    assert cell.lost
    assert told in cell.text


# Whose time it is

SLOW = {
    "one answer, a little at a time": """\
ask_by_force()
while True:
    time.sleep(0.1)
    os.read(worker._stream._source, 1000)""",
    "one answer after the other": """\
while True:
    ask_by_force()
    for _ in range(10):
        time.sleep(0.2)
        os.read(worker._stream._source, 1 << 18)""",
}


@once
@pytest.mark.parametrize("reading", SLOW.values(), ids=SLOW.keys())
@pytest.mark.sampled(2)
def test_a_session_that_reads_slowly_has_no_more_time(reading):
    deaf = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    asked = Asked(os.urandom(1_500_000).hex())
    (cell,) = in_session(FORCE + deaf + reading, ask=asked, limits=QUICK)
    assert cell.lost
    assert "ran for more than 1 s" in cell.text
    assert len(asked.questions) < 10


@once
def test_what_a_question_takes_of_the_host_is_the_cell_s_time_and_the_model_s_own_is_not():
    call = "len(ask(['x'], 'i'))\nlen(ask(['x'], 'i'))\nimport time\ntime.sleep(0.05)\n7"
    roomy = Limits(wall_s=3.0, memory_mb=512)  # on a busy machine the questions themselves take a while
    (patient,) = in_session(call, ask=Asked(waits_s=1.6, waited_s=1.6), limits=roomy)
    (hurried,) = in_session(call, ask=Asked(waits_s=0.8), limits=QUICK)
    assert patient.text.strip() == "7"
    assert "stopped after 1 s" in hurried.text


@once
@pytest.mark.long
def test_processor_time_is_the_agent_s_over_deaths_of_its_session(tier):
    burn = "import os, time\nbegun = time.process_time()\nwhile time.process_time() - begun < 0.6: pass\nos._exit(0)"
    done = in_session(*[burn] * 4, "1", tier=tier, limits=Limits(cpu_s=1, wall_s=30))
    assert "with status 0" in done[0].text
    assert ["used up" in cell.text for cell in done[2:]] == [True] * 3


# What code hands in


def submitted(text: str, **options) -> Cell:
    (cell,) = in_session(FORCE + text, data=ArrowFrame.of(pd.DataFrame({"a": [1, 2]})).data("df"), **options)
    return cell


@once
@pytest.mark.parametrize(
    "value",
    ["'x' * (2 << 20)", "'é' * (1 << 20)", "['x'] * 200_000", "[[]] * 100_000", "{str(n): n for n in range(99_000)}"],
    ids=["a text", "a text of two bytes each", "a list", "brackets", "a dict"],
)
@pytest.mark.sampled(3)
def test_a_cell_of_the_frame_holds_a_megabyte_and_code_is_told(value):
    told = submitted(f"submit([{{'a': 1}}, {{'word': {value}}}])")
    assert told.submitted is None
    assert "takes 1 MB per field, and 'word' of unit 1 has more" in told.text
    forced = submitted(f"submit_by_force({{'findings': [{{'unit': 0, 'word': {value}}}]}})")
    assert forced.submitted is None
    assert "more than 1 MB for one cell" in forced.text


@once
def test_what_fits_is_handed_in_as_it_is():
    word = "tab\t, lines\r\n and é 😀" + "x" * 1_000_000
    cell = submitted(f"submit([{{'word': {word[:30]!r} + 'x' * {len(word) - 30}}}, {{'word': None}}])")
    assert [one["word"] for one in cell.submitted.payload["findings"]] == [word, None]
    assert cell.text.strip() == ""


@once
@pytest.mark.parametrize("by", ["submit", "submit_by_force"])
def test_findings_hold_nothing_that_a_terminal_obeys_and_code_is_told(by):
    stain = "\\x00\\x1b[2J\\x9b\\x7f"
    given = f"[{{'unit': 0, 'word': 'a{stain}b', 'deep': [{{'k{stain}': ['{stain}']}}]}}, {{'unit': 1}}]"
    cell = submitted(f"{by}({given if by == 'submit' else '{' + repr('findings') + ': ' + given + '}'})")
    held = json.dumps(cell.submitted.payload, ensure_ascii=False)
    assert conformance.STAIN.search(held) is None
    assert "\\u00" not in held
    assert cell.submitted.payload["findings"][0]["word"] == "a\ufffd\ufffd[2J\ufffd\ufffdb"
    assert "Control characters" in cell.text


@once
@pytest.mark.parametrize(
    "text",
    [b'{"findings": [{}{}]}', b'{"findings": [{}], "more": 1}', b'{"findings": [', b'{"findings": [1 2]}', b"[]", b"{"],
)
def test_what_is_no_json_is_not_read_as_if_it_were(text):
    with pytest.raises(messages.ProtocolError):
        messages.decode_message(text)


@once
@pytest.mark.parametrize(
    "payload", [{"findings": []}, {"findings": [{"unit": 0, "a": [1, {"b": "]}"}]}, 2, "x"]}, {"output": 1}]
)
def test_json_is_read_as_json(payload):
    assert messages.decode_message(json.dumps(payload).encode()) == payload


# What a repair says


class Words(BaseModel):
    words: list[int]


class Named(BaseModel):
    numbers: dict[str, int]


def test_a_complaint_names_three_errors_within_a_thousand_characters():
    with pytest.raises(ValidationError) as wrong:
        Words.model_validate({"words": ["x"] * 1000})
    told = complaint(wrong.value)
    assert told.count("words.") == 3
    assert told.endswith("and 997 more")
    with pytest.raises(ValidationError) as wrong:
        Named.model_validate({"numbers": {"x" * 100_000: "y", "z" * 100_000: "y"}})
    assert complaint(wrong.value).startswith("numbers.xxx")
    assert len(complaint(wrong.value)) <= 1000


@pytest.mark.parametrize("count", [1, 2, 30, 200])
def test_a_repair_says_an_equal_problem_once_within_a_thousand_characters(count):
    told = prompts.map_repair(dict.fromkeys(range(count), "y" * 5000))
    assert len(told) < 1300
    problems = [line.split(": ")[0] for line in told.splitlines() if line.startswith("- ")]
    assert problems == ["- unit 0" if count == 1 else f"- units 0 to {count - 1}"]
    assert len(prompts.answer_repair("z" * 5000)) < 1300


def test_a_repair_names_three_problems_and_the_numbers_of_the_others():
    told = prompts.map_repair({number: f"problem {number % 5}" for number in range(10)})
    assert told.splitlines()[1:] == [
        "- units 0, 5: problem 0",
        "- units 1, 6: problem 1",
        "- units 2, 7: problem 2",
        "- units 3 to 4, 8 to 9: other problems",
    ]


def test_a_repair_of_more_units_than_it_can_name_asks_for_all():
    told = prompts.map_repair(dict.fromkeys(range(0, 2000, 2), "no finding"))
    assert len(told) < 1000
    assert "Report those of all units again" in told
    assert "- unit 0: no finding" in told


@pytest.mark.parametrize("by", ["tool", "line", "hand"])
def test_a_repair_names_the_tool_or_the_line_that_hands_in(by):
    lookup = amr.Tool(lambda word: word, name="lookup", description="Look a word up.")
    tools = {"tool": [lookup], "line": [amr.PythonREPLTool()], "hand": []}[by]
    repairs = []

    def provider(request):
        if request.repairs:
            repairs.append(request.user)
        right = bool(request.repairs)
        if by == "line":
            return code(f"submit([{{'n': {1 if right else repr('x')}}} for _ in range(40)])")
        answer = findings(request, lambda unit: {"n": 1 if right else "x"})
        return Call("submit_findings", answer) if by == "tool" else answer

    with ScriptedServer(provider) as server:
        found = pd.DataFrame({"id": range(40)}).amr.map(
            "x", finding={"n": int}, lm=server.lm(), tools=tools, plan={"shard_size": 40}
        )
    assert found["n"].tolist() == [1] * 40
    (repair,) = repairs
    assert "- units 0 to 39: n: " in repair
    last = {
        "tool": "Hand in with the tool `submit_findings`.",
        "line": 'submit(pd.DataFrame({"unit": df["unit"], "n": <expression>}))',
        "hand": "- units 0 to 39: n: Input should be a valid integer",
    }[by]
    assert repair.splitlines()[-1].startswith(last)


def test_a_scripted_provider_knows_every_unit_that_a_repair_names():
    repaired = []

    def provider(request):
        if request.repairs:
            repaired.extend(request.repairs)
            return findings(request, lambda unit: {"n": 1})
        return findings(request, lambda unit: {"n": "x" * 50 if unit["id"] % 3 else 1})

    frame = pd.DataFrame({"id": range(60)})
    with ScriptedServer(provider) as server:
        found = frame.amr.map("x", finding={"n": int}, lm=server.lm(), plan={"shard_size": 60})
    assert found["n"].tolist() == [1] * 60
    assert repaired == [number for number in range(60) if number % 3]


@pytest.mark.parametrize("by_code", [True, False], ids=["code", "the model"])
def test_a_repair_is_bounded_whoever_wrote_the_answer(by_code):
    wrong = 50_000 if by_code else 20_000
    repairs = []

    def provider(request):
        if request.repairs:
            repairs.append(request.messages[-1]["content"])
            return findings(request, lambda unit: {"words": [1]})
        if by_code:
            return code(f"submit([{{'words': ['x'] * {wrong}}} for _ in range(2)])")
        return findings(request, lambda unit: {"words": ["x"] * wrong})

    tools = [amr.PythonREPLTool()] if by_code else []
    with ScriptedServer(provider) as server:
        found = pd.DataFrame({"text": ["a", "b"]}).amr.map(
            "x", finding={"words": list[int]}, tools=tools, lm=server.lm(), plan={"shard_size": 2}
        )
    assert [list(words) for words in found["words"]] == [[1], [1]]
    assert len(repairs) == 1
    assert len(repairs[0]) < 1500


# From one session to another


@once
@pytest.mark.parametrize("kind", ["channel-", "seen-"])
def test_nothing_passes_from_a_session_to_another(tier, kind):
    async def run():
        sandbox = LocalSandbox(tier)
        tried = [one for one in conformance.attempts() if one.name.startswith(kind)]
        try:
            with conformance.AttackKit() as kit:
                return {
                    one.name: await kit.holds(one, sandbox) for one in tried if tier == "strong" or not one.strong_only
                }
        finally:
            await sandbox.close()

    held = asyncio.run(run())
    assert held
    assert held == dict.fromkeys(held)


@once
def test_a_file_that_was_given_cannot_be_locked_against_the_host(tier, anybody_s):
    path = anybody_s / "given.txt"
    path.write_text("x", encoding="ascii")
    path.chmod(0o644)
    lock = (
        "import fcntl, os\nh = os.open(files['given.txt'], os.O_RDONLY)\nfcntl.lockf(h, fcntl.LOCK_SH)\nopen(h).read()"
    )

    async def run():
        sandbox = LocalSandbox(tier, files={"given.txt": path})
        try:
            session = await sandbox.open(Data("df"), PATIENT)
            cell = await session.run(lock.replace("open(h).read()", "os.read(h, 9)"))
            with path.open("r+") as mine:
                fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return cell
        finally:
            await sandbox.close()

    assert asyncio.run(run()).text.strip() == "b'x'"


@once
def test_a_session_knows_neither_the_host_s_name_nor_its_paths(tier, anybody_s):
    path = anybody_s / "known-to-the-host.txt"
    path.write_text("x", encoding="ascii")
    arguments, name = in_session(
        "import sys\nsys.argv + sys.orig_argv",
        "import socket\nsocket.gethostname()",
        tier=tier,
        files={"given.txt": path},
    )
    assert arguments.text.strip() == "['', '']"
    assert (socket.gethostname() in name.text) == (tier == "strict-lite")


# Where it can be had

# A user namespace that maps one id, that of root, as `unshare --user --map-root-user` makes it; then a session in it.
ONE_ID = f"""
import asyncio, ctypes, os, sys
uid, gid = os.getuid(), os.getgid()
assert ctypes.CDLL(None).unshare(0x10000000) == 0  # while there is one thread
sys.path.insert(0, {SOURCE!r})
from pandas_amr.errors import SandboxUnavailable
from pandas_amr.sandbox.base import Data, Limits
from pandas_amr.sandbox.host.local import LocalSandbox
for name, text in (("setgroups", "deny"), ("uid_map", f"0 {{uid}} 1"), ("gid_map", f"0 {{gid}} 1")):
    with open(f"/proc/self/{{name}}", "w") as file: file.write(text)
async def run():
    sandbox = LocalSandbox("strong")
    try:
        return (await (await sandbox.open(Data("df"), Limits(wall_s=30))).run("import os\\nprint(os.getuid() == 0, 1 + 1)")).text
    except SandboxUnavailable as error:
        return str(error)
    finally:
        await sandbox.close()
print(asyncio.run(run()))
"""


@pytest.mark.long
@once
def test_a_user_namespace_that_maps_one_id_has_a_sandbox(strong, plain):
    done = subprocess.run([sys.executable, *plain, "-c", ONE_ID], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False 2", done.stderr


@once
@pytest.mark.skipif(os.getuid() != 0, reason="only root can map root")
def test_a_user_namespace_that_maps_root_alone_is_refused_with_the_reason(strong):
    done = subprocess.run([sys.executable, "-c", ONE_ID], capture_output=True, text=True, check=False)
    assert "its user namespace maps one id" in done.stdout, done.stderr


@once
@pytest.mark.long
def test_six_hundred_sessions_can_be_begun_at_once():
    async def run():
        sandbox = LocalSandbox()

        async def one() -> str:
            session = await sandbox.open(Data("df"), PATIENT)
            try:
                return (await session.run("1 + 1")).text.strip()
            finally:
                await session.close()

        try:
            return await asyncio.gather(*(one() for _ in range(600)), return_exceptions=True)
        finally:
            await sandbox.close()

    assert {repr(one) for one in asyncio.run(run())} == {"'2'"}


# The kit


def test_the_kit_says_that_controls_were_not_run():
    nothing = report.Report({}, {})
    assert "0 open, controls not run" in report._lines("strong", nothing, None)[-1]
    assert "0 open, 0 without control" in report._lines("strong", nothing, {})[-1]


def test_the_kit_names_what_shows_nothing_here():
    skipped = report.inapplicable("strict-lite")
    assert "secrets/seen-host-name" in skipped
    assert ("kernel/chroot" in skipped) == (os.getuid() != 0)
    last = report._lines("strict-lite", report.Report({}, {}), {})
    assert f"{len(skipped)} not applicable" in last[-1]
    assert sum(line.startswith("NOT APPLICABLE") for line in last) == len(skipped)


def test_the_kit_has_a_table_of_both_memories():
    levels = {"resources/x": Levels((1 << 20, 9 << 20, 2 << 20), (5 << 20, 6 << 20, 5 << 20))}
    lines = report._lines("strong", report.Report({}, levels), None)
    (row,) = [line for line in lines if line.startswith("resources/x")]
    assert row.split() == ["resources/x", "1/9/2", "5/6/5"]


class Careless:
    """A sandbox that holds, but for what it hands on from an attacked session, or takes for it."""

    tier = "careless"

    def __init__(self, payload, taken: int = 0) -> None:
        self._sandbox = LocalSandbox("process")
        self._payload = payload
        self._taken = taken
        self._kept = bytearray()

    async def open(self, data, limits):
        session = await self._sandbox.open(data, limits)
        return self if limits is conformance.LIMITS and self._attacked(session) else session

    def _attacked(self, session) -> bool:
        self._session = session
        return True

    async def run(self, code, ask=None):
        cell = await self._session.run("1 + 1")
        if code == "1 + 1":
            return cell
        self._kept = bytearray(os.urandom(4096) * (self._taken // 4096))  # until it is closed
        return Cell(f"{len(self._kept)}", None if self._payload is None else Submitted(self._payload))

    async def close(self):
        self._kept = bytearray()
        with contextlib.suppress(AttributeError, SandboxError):
            await self._session.close()


@pytest.mark.long
@once
@pytest.mark.parametrize(
    ("name", "payload", "taken", "wrong"),
    [
        ("controls-of-a-finding", {"findings": [{"word": "\x1b[2J"}]}, 0, "a terminal would obey"),
        ("controls-of-a-finding", {"findings": [{"word": "\x9b"}]}, 0, "a terminal would obey"),
        ("long-cell", {"findings": [{"word": "x" * (2 << 20)}]}, 0, "one cell of the frame"),
        ("printed-at-once", None, 400 << 20, "the host took"),
        ("exit", {"findings": [{"word": "x"}]}, 0, "ended itself"),
        ("controls-of-a-finding", {"findings": [{"word": "x\r\n\t"}]}, 0, None),
    ],
)
def test_the_kit_judges_what_is_handed_in_and_the_host_s_memory(name, payload, taken, wrong):
    async def run():
        sandbox = Careless(payload, taken)
        attempt = next(one for one in conformance.attempts() if one.name == name)
        try:
            with conformance.AttackKit() as kit:
                return await kit.holds(attempt, sandbox)
        finally:
            await sandbox._sandbox.close()

    said = asyncio.run(run())
    assert said is None if wrong is None else wrong in said
