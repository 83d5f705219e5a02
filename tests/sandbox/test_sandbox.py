"""The sandbox: what holds, what works inside, who failed, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pandas_amr as amr
from pandas_amr._units.parquet import ArrowFrame
from pandas_amr.errors import SandboxError, SandboxUnavailable
from pandas_amr.sandbox.base import Data, Limits
from pandas_amr.sandbox.conformance import kit as conformance
from pandas_amr.sandbox.conformance import report
from pandas_amr.sandbox.guest import confine, syscalls, worker
from pandas_amr.sandbox.host.container import ContainerSandbox
from pandas_amr.sandbox.host.local import LocalSandbox
from processes import alive, sandbox_processes
from versions import once

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the embedded sandbox needs Linux")
TIERS = ("strong", "strict-lite")
SMALL = Limits(wall_s=1.0, memory_mb=512)


def in_session(tier, *cells, data=None, limits=SMALL, **options):
    """Run cells in one session; what came of each."""

    async def run():
        sandbox = tier if not isinstance(tier, str) else LocalSandbox(tier, **options)
        try:
            session = await sandbox.open(data or Data("df"), limits)
            done = [await session.run(cell) for cell in cells]
            await session.close()
            return done
        finally:
            await sandbox.close()

    return asyncio.run(run())


def texts(tier, *cells, **options):
    return [cell.text.strip() for cell in in_session(tier, *cells, **options)]


def kit(tier, *options, as_user=False):
    """The kit's command, as a process of its own."""
    plain = [str(Path(__file__).parents[1] / "plain_user.py")] if as_user else []
    return subprocess.Popen(
        [sys.executable, *plain, "-m", "pandas_amr.sandbox.conformance", tier, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def end(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@contextlib.contextmanager
def begun(kits):
    """Let the kits run side by side, most of whose time is waiting; none outlives the block."""
    try:
        yield kits
    finally:
        for process in kits.values():
            end(process)


@pytest.fixture
def sample(tier):
    """Ten attempts per kind."""
    with begun({tier: kit(tier, *CONTROLS[tier], "--per-kind", "10")}) as kits:
        yield kits[tier]


@pytest.fixture(scope="module")
def kits():
    """The whole kit in both tiers, as root and as a plain user."""
    users = (False, True) if os.getuid() == 0 else (False,)
    whole = {(tier, as_user): kit(tier, *CONTROLS[tier], as_user=as_user) for tier in TIERS for as_user in users}
    with begun(whole):
        yield whole


# What holds

CONTROLS = {"strong": ["--controls"], "strict-lite": []}
HELD = {"strong": "0 open, 0 without control", "strict-lite": "0 open, controls not run"}


@once
class TestAttempts:
    def test_none_of_ten_attempts_per_kind_comes_to_something_and_each_works_unconfined(self, tier, sample):
        out, err = sample.communicate()
        assert sample.returncode == 0, out + err
        assert HELD[tier] in out

    @pytest.mark.long
    @pytest.mark.parametrize("as_user", [False, True], ids=["as-who-runs-the-tests", "as-a-plain-user"])
    def test_none_of_the_attempts_comes_to_something_and_each_works_unconfined(self, tier, as_user, kits, request):
        if as_user and not request.getfixturevalue("plain"):
            pytest.skip("the tests run as a plain user already")
        out, err = kits[tier, as_user].communicate()
        assert kits[tier, as_user].returncode == 0, out + err
        assert HELD[tier] in out

    def test_a_sample_of_the_kit_has_so_many_of_each_kind_from_the_whole_list_and_says_so(self):
        listed = conformance.attempts()
        chosen = report.sample(listed, 10)
        assert Counter(one.kind for one in chosen) == dict.fromkeys({one.kind for one in listed}, 10)
        assert len({(one.kind, one.name) for one in chosen}) == len(chosen)
        halves = Counter(listed.index(one) * 2 // len(listed) for one in chosen)
        assert min(halves[0], halves[1]) >= 10
        assert {one.name for one in report.sample(listed, len(listed))} == {one.name for one in listed}
        nothing = report.Report({}, {})
        *lines, summary = report._lines("auto", nothing, None, chosen)
        skipped = sum(line.startswith("NOT APPLICABLE") for line in lines)
        assert os.getuid() != 0 or not skipped
        assert f"{80 - skipped} attempts, a sample of {len(listed)}, 0 open" in summary
        assert "a sample of" not in report._lines("auto", nothing, None)[-1]

    def test_there_are_at_least_eighty_of_every_kind_and_none_twice(self):
        listed = conformance.attempts()
        assert len(listed) >= 80
        kinds = {"secrets", "files", "network", "processes", "kernel", "resources", "crash", "integrity"}
        assert {one.kind for one in listed} == kinds
        assert len({(one.kind, one.name) for one in listed}) == len(listed)

    def test_the_kit_sees_a_sandbox_that_does_not_hold(self):
        async def run():
            with conformance.AttackKit() as kit:
                sandbox = LocalSandbox("process")
                read = next(one for one in conformance.attempts() if one.name == "secret-file")
                try:
                    return await kit.holds(read, sandbox)
                finally:
                    await sandbox.close()

        assert asyncio.run(run()).startswith("it won")


def test_each_listed_call_has_a_number_that_no_other_has():
    for column in (0, 1):
        numbers = [pair[column] for pair in syscalls.CALLS.values() if pair[column] is not None]
        assert len(set(numbers)) == len(numbers)
    assert len(syscalls.seccomp_filter(1)) % 8 == 0


# What works inside

WORKS = {
    "threads": "import threading\nt = threading.Thread(target=lambda: seen.append(1))\nseen = []\nt.start()\nt.join()\nassert seen == [1]",
    "pool": "from concurrent.futures import ThreadPoolExecutor as P\nwith P(4) as p: assert list(p.map(abs, [-1, 2])) == [1, 2]",
    "timezones": "import zoneinfo\nassert pd.Timestamp.now(tz='America/New_York').utcoffset() is not None",
    "asyncio": "import asyncio\nassert asyncio.run(asyncio.sleep(0.01, 'x')) == 'x'",
    "uuid": "import uuid\nassert len(str(uuid.uuid4())) == 36",
    "pattern": "import re\nassert re.findall(r'\\d+', 'a1b22') == ['1', '22']",
    "blas": "assert abs(float((np.ones((50, 50)) @ np.ones((50, 50)))[0, 0]) - 50) < 1e-9\nnp.linalg.svd(np.eye(20))",
    "sqlite-in-memory": "import sqlite3\nassert sqlite3.connect(':memory:').execute('select 1 + 1').fetchone() == (2,)",
    "lazy-imports": "import xml.dom.minidom, csv, decimal, statistics, html.parser, difflib",
    "plots-of-text": "assert 'a' in pd.DataFrame({'a': [1]}).describe().to_string()",
    "arrow-types": "assert str(pd.Series(['a'], dtype='string[pyarrow]').dtype) == 'string'",
}
WORKS_WITH_A_FOLDER = {
    "temporary-file": "import tempfile\nwith tempfile.NamedTemporaryFile('w+') as f:\n    f.write('x')\n    f.seek(0)\n    assert f.read() == 'x'",
    "parquet": "f = pd.DataFrame({'a': [1, 2]})\nf.to_parquet('f.parquet')\nassert pd.read_parquet('f.parquet').equals(f)",
    "sqlite": "import sqlite3\nc = sqlite3.connect('x.db')\nc.execute('create table t(a)')\nc.execute('insert into t values (1)')\nc.commit()\nassert c.execute('select a from t').fetchone() == (1,)",
    "csv": "pd.DataFrame({'a': [1]}).to_csv('o.csv')\nassert open('o.csv').read() == ',a\\n0,1\\n'",
}


def test_what_must_work_inside_does(tier):
    cases = WORKS | (WORKS_WITH_A_FOLDER if tier == "strong" else {})
    done = in_session(tier, *cases.values(), limits=Limits(wall_s=20))
    assert {name: cell.text for name, cell in zip(cases, done, strict=True) if not cell.ok} == {}


def test_state_lasts_the_last_expression_is_shown_and_tracebacks_show_the_code_only(tier):
    first, second, third, fourth = texts(
        tier, "x = 20", "x + 1", "print('said')\nx * 2", "def f():\n    return 1 / 0\nf()"
    )
    assert (first, second, third) == ("", "21", "said\n40")
    assert fourth.endswith("ZeroDivisionError: division by zero")
    assert "return 1 / 0" in fourth
    assert "worker.py" not in fourth


def test_output_is_cut_in_the_middle_and_the_figure_told(tier):
    (cell,) = in_session(tier, "print('a' * 5000 + 'b' * 5000)", limits=Limits(output_chars=1000))
    assert len(cell.text) < 1100
    assert cell.text.startswith("a" * 600)
    assert cell.text.rstrip().endswith("b" * 390)
    assert "9001 characters cut" in cell.text


def test_what_a_terminal_would_obey_does_not_come_back(tier):
    (cell,) = in_session(tier, "print('\\x1b[31mred\\x1b[0m \\x00 \\ud800 \\x07')")
    assert "red" in cell.text
    assert not set(cell.text) & set("\x1b\x00\x07\ud800")


def test_a_file_and_a_package_that_were_given_are_there_and_the_file_cannot_be_changed(tier, anybody_s):
    (anybody_s / "prices.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    read, write, imported = in_session(
        tier,
        "pd.read_csv(files['prices.csv']).b.sum()",
        "open(files['prices.csv'], 'a')",
        "import hypothesis\nhypothesis.__name__",
        files={"prices.csv": str(anybody_s / "prices.csv")},
        packages=["hypothesis"],
        limits=Limits(wall_s=20),
    )
    assert "2" in read.text
    assert not write.ok
    assert imported.text.strip() == "'hypothesis'"


# Who failed


@once
def test_code_that_runs_too_long_is_stopped_and_keeps_its_variables(tier):
    _, stopped, kept = in_session(tier, "x = 1", "while True: pass", "x")
    assert "stopped after 1 s" in stopped.text
    assert "KeyboardInterrupt" in stopped.text
    assert not stopped.lost
    assert kept.text.strip() == "1"


@once
def test_a_session_that_cannot_be_stopped_is_ended_and_the_next_cell_has_the_data_anew(tier):
    data = ArrowFrame.of(pd.DataFrame({"a": [1, 2]})).data("df")
    _, ended, anew, gone = in_session(
        tier,
        "x = 1\ndf['b'] = 3",
        "import time\nwhile True:\n    try:\n        while True: time.sleep(0.01)\n    except BaseException: pass",
        "df.columns.tolist()",
        "x",
        data=data,
    )
    assert ended.lost
    assert "could not be interrupted" in ended.text
    assert "df as it was" in ended.text
    assert anew.text.strip() == "['a']"
    assert "NameError" in gone.text


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os._exit(3)", "ended itself, with status 3"),
        ("import os; os.abort()", "it (aborted|crashed)"),
        ("import ctypes; ctypes.string_at(1)", "segmentation fault"),
    ],
)
def test_a_session_that_dies_tells_how(tier, code, said):
    (cell,) = in_session(tier, code)
    assert cell.lost
    assert re.search(said, cell.text)


@once
def test_memory_and_processor_time_have_an_end_and_clear_words(tier):
    memory, after = in_session(tier, "b = bytearray(2 << 30)", "1 + 1", limits=Limits(memory_mb=256))
    assert "MemoryError" in memory.text
    assert not memory.lost
    assert after.text.strip() == "2"
    large, after = in_session(tier, "raise ValueError('x' * 100_000_000)", "1 + 1", limits=Limits(memory_mb=256))
    assert (large.ok, large.lost, after.text.strip()) == (False, False, "2")
    (spent,) = in_session(tier, "while True: pass", limits=Limits(cpu_s=1, wall_s=60))
    assert "used up its 1 s of processor time" in spent.text


@once
def test_a_thread_that_a_cell_leaves_behind_does_not_run_between_cells(tier):
    """It keeps the longest time in which it did not run: the second between two cells."""
    code = """
import threading, time
longest = 0.0
def watch():
    global longest
    last = time.monotonic()
    while True:
        now = time.monotonic()
        longest, last = max(longest, now - last), now
threading.Thread(target=watch, daemon=True).start()
while longest == 0.0: time.sleep(0.01)
"""
    told = "until = time.monotonic() + 5\nwhile longest < 0.9 and time.monotonic() < until: time.sleep(0.01)\nlongest"

    async def run():
        sandbox = LocalSandbox(tier)
        try:
            session = await sandbox.open(Data("df"), Limits(wall_s=30))
            assert (await session.run(code)).text == ""
            await asyncio.sleep(1.0)
            return float((await session.run(told)).text)
        finally:
            await sandbox.close()

    assert asyncio.run(run()) >= 0.9


@once
def test_when_the_process_behind_the_sessions_dies_the_sandbox_failed_and_then_goes_on(tier):
    async def run():
        sandbox = LocalSandbox(tier)
        session = await sandbox.open(Data("df"), Limits(wall_s=20))
        assert (await session.run("1")).text.strip() == "1"
        begun = asyncio.Event()

        async def begin(asked):
            begun.set()
            return ArrowFrame.of(pd.DataFrame({"answer": asked["texts"]})).data("answers")

        code = "import time\nask(['x'], 'i')\ntime.sleep(15)"
        running = asyncio.ensure_future(session.run(code, begin))
        await begun.wait()
        os.kill(sandbox._zygotes[0].pid, signal.SIGKILL)
        with pytest.raises(SandboxError, match="has died"):
            await running
        anew = await sandbox.open(Data("df"), SMALL)
        said = (await anew.run("2")).text.strip()
        await sandbox.close()
        return said

    assert asyncio.run(run()) == "2"


def test_no_tier_is_ever_taken_silently():
    class Refusing(LocalSandbox):
        pass

    sandbox = Refusing("strong")
    sandbox._files = {"x": "/does/not/exist"}  # what its root cannot be built with
    with pytest.raises(SandboxUnavailable, match=r"strong: .*docker.*process"):
        asyncio.run(sandbox.open(Data("df"), SMALL))


# Nothing is left behind

DRIVER = """
import asyncio, sys
import pandas as pd
from pandas_amr._units.parquet import ArrowFrame
from pandas_amr.sandbox.base import Limits
from pandas_amr.sandbox.host.local import LocalSandbox
async def main():
    sandbox = LocalSandbox(sys.argv[1])
    data = ArrowFrame.of(pd.DataFrame({"a": range(1000)})).data("df")
    sessions = [await sandbox.open(data, Limits(wall_s=60)) for _ in range(3)]
    for session in sessions:
        await session.run("kept = df.copy()")
    busy = asyncio.ensure_future(sessions[0].run("while True: pass"))
    print(sandbox._zygotes[0].pid, flush=True)
    await asyncio.wait([busy])
    print("ended", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def left_in_memory() -> set[str]:
    """Shared memory with a name that whoever runs sandboxes owns: nobody's user where root does."""
    owner = confine.NOBODY if os.getuid() == 0 else os.getuid()
    return {entry.name for entry in os.scandir("/dev/shm") if entry.stat(follow_symlinks=False).st_uid == owner}


def mounted() -> set[str]:
    """What is mounted, but in folders of tests: another suite may run."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    return {line for line in lines if not line.split()[1].startswith(tempfile.gettempdir() + "/")}


@once
@pytest.mark.parametrize("killed", ["host", "zygote"])
@pytest.mark.sampled(3)
def test_after_a_kill_no_process_no_file_and_no_memory_is_left_within_two_seconds(tier, killed):
    shared, mounts = left_in_memory(), mounted()
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, tier], stdout=subprocess.PIPE, text=True)
    try:
        zygote = int(driver.stdout.readline())
        inside = sandbox_processes(driver.pid)
        assert len(inside) >= 4
        os.kill(driver.pid if killed == "host" else zygote, signal.SIGKILL)
        for _ in range(40):  # looks, of two seconds in all
            if alive(inside):
                time.sleep(0.05)
        assert alive(inside) == set()
    finally:
        driver.kill()
        driver.wait()
        driver.stdout.close()
    assert left_in_memory() <= shared
    assert mounted() <= mounts


def test_after_a_crash_of_a_session_nothing_of_it_is_left_and_the_others_go_on(tier):
    async def run():
        sandbox = LocalSandbox(tier)
        try:
            beside = await sandbox.open(Data("df"), SMALL)
            await beside.run("kept = 1")
            mine = sandbox._zygotes[0].pid
            before = sandbox_processes(mine)
            crashing = await sandbox.open(Data("df"), SMALL)
            assert (await crashing.run("1")).ok
            assert len(sandbox_processes(mine) - before) == 1
            assert (await crashing.run("import os; os._exit(7)")).lost
            until = time.monotonic() + 20.0
            while sandbox_processes(mine) - before and time.monotonic() < until:
                await asyncio.sleep(0.02)
            return sandbox_processes(mine) - before, (await beside.run("kept")).text.strip()
        finally:
            await sandbox.close()

    assert asyncio.run(run()) == (set(), "1")


@pytest.mark.skipif(os.getuid() != 0, reason="only root may look")
def test_the_memory_of_the_process_behind_never_held_what_is_in_the_host_s_environment(tier, monkeypatch):
    monkeypatch.setenv("AMR_TEST_KEY", "sk-secret-123")

    async def run():
        sandbox = LocalSandbox(tier)
        try:
            session = await sandbox.open(Data("df"), SMALL)
            assert "sk-secret" not in (await session.run("import os\ndict(os.environ)")).text
            behind = sandbox._zygotes[0].pid
            inside = {behind, *sandbox_processes(behind)}
            return [Path(f"/proc/{pid}/environ").read_bytes() for pid in inside]
        finally:
            await sandbox.close()

    environments = asyncio.run(run())
    assert environments
    assert not any(b"sk-secret" in one for one in environments)


# The frame


def test_the_shard_is_the_shard_types_index_names_and_missing_values(tier):
    frame = pd.DataFrame(
        {
            "text": ["a", None, "c"],
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "real": [1.5, np.nan, 2.5],
            "day": pd.to_datetime(["2026-01-01", None, "2026-01-03"]),
            "lists": [[1, 2], [], None],
            "records": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}, None],
            "kind": pd.Categorical(["u", "v", "u"]),
            7: [True, False, True],
            ("t", 1): [1, 2, 3],
            "mixed": [1, "two", {"three": 3}],
            "uneven": [{"a": 1}, {"b": 2}, {}],
        },
        index=pd.MultiIndex.from_tuples([("x", 1), ("x", 1), ("y", 2)], names=["g", "n"]),
    )
    arrow = ArrowFrame.of(frame)
    assert sorted(note.split(" ")[1] for note in arrow.changed) == ["'kind'", "'mixed'", "'uneven'"]
    shown = texts(
        tier,
        "{str(k): str(v) for k, v in df.dtypes.items()}",
        "df.index.tolist(), list(df.index.names)",
        "df.isna().sum().tolist(), df['lists'].iloc[0], df['records'].iloc[1]",
        "df['mixed'].tolist(), df['uneven'].tolist(), df.columns.tolist()",
        data=arrow.data("df", [0, 2]),
    )
    assert "'whole': 'int64[pyarrow]'" in shown[0]
    assert "'records': 'struct<a: int64, b: string>[pyarrow]'" in shown[0]
    assert "'day': 'timestamp[" in shown[0]
    assert shown[1] == "([('x', 1), ('y', 2)], ['g', 'n'])"
    assert "[0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]" in shown[2]
    assert "['1', '{\"three\": 3}'], ['{\"a\": 1}', '{}']" in shown[3]
    assert "7, ('t', 1)" in shown[3]


@pytest.mark.parametrize(
    "index",
    [
        pd.RangeIndex(5, 35, 10),
        pd.Index(["b", "a", "b"], name="label"),
        pd.to_datetime(["2026-01-01", "2026-02-01", "2026-03-01"]),
        pd.Index([1.5, 2.5, 3.5]),
    ],
    ids=repr,
)
def test_the_index_is_the_frame_s_own(index):
    frame = pd.DataFrame({"a": [1, 2, 3]}, index=index)
    data = ArrowFrame.of(frame).data("df", [1, 2])
    back = worker.load_frame(data.parquet, dict(data.labels))
    assert back.index.tolist() == frame.index[1:].tolist()
    assert back.index.names == frame.index.names


def test_an_empty_frame_and_strange_cells_go_through():
    for frame in (
        pd.DataFrame({"a": pd.Series([], dtype="int64")}),
        pd.DataFrame({"a": [1 + 2j, None]}, dtype=object),
        pd.DataFrame({"a": [{1, 2}, {3}]}),
        pd.DataFrame({"a": ["bad \ud800", "x"]}, dtype=object),
        pd.DataFrame({"a": pd.period_range("2026-01", periods=2, freq="M")}),
        pd.DataFrame({"a": [np.zeros((2, 2)), np.ones((2, 2))]}),
        pd.DataFrame({"a": [1, 2.5]}, dtype=object),
        pd.DataFrame({"a": [2**80, 1]}, dtype=object),
        pd.DataFrame(index=[1, 2]),
    ):
        arrow = ArrowFrame.of(frame)
        data = arrow.data("df")
        assert len(worker.load_frame(data.parquet, dict(data.labels))) == len(frame)
        assert frame.empty or arrow.changed


# Containers

CONTAINER = ContainerSandbox([sys.executable, "-I", worker.__file__], tier="plain-process")


@once
def test_a_container_speaks_to_the_same_worker_over_stdio():
    data = ArrowFrame.of(pd.DataFrame({"a": [1, 2, 3]})).data("df")
    summed, handed_in, stopped, kept, died, anew = in_session(
        CONTAINER,
        "x = 5\ndf['a'].sum()",
        "submit(df.assign(b=df['a'] * 2)[['b']])",
        "while True: pass",
        "x",
        "import os; os._exit(4)",
        "len(df)",
        data=data,
        limits=Limits(wall_s=1.0),
    )
    assert "6" in summed.text
    assert handed_in.submitted.payload == {"findings": [{"unit": i, "b": 2 * (i + 1)} for i in range(3)]}
    assert "stopped after 1 s" in stopped.text
    assert kept.text.strip() == "5"
    assert died.lost
    assert "status 4" in died.text
    assert anew.text.strip() == "3"


def test_a_container_that_cannot_be_run_is_told_and_the_docker_line_is_the_safe_one():
    with pytest.raises(SandboxUnavailable, match="no-such-program"):
        in_session(ContainerSandbox(["no-such-program"]), "1")
    line = ContainerSandbox.docker("image", runtime="runsc").command("n")
    assert "--network none --read-only --cap-drop ALL" in " ".join(line)
    assert line[line.index("--runtime") + 1] == "runsc"
    with pytest.raises(amr.UsageError, match="takes a list"):
        ContainerSandbox("docker run")
