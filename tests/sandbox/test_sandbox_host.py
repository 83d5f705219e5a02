"""The sandbox's host side under sessions that do their worst: it waits for nobody, reads no bomb, and blames the right one."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pandas as pd
import pytest

import pandas_amr as amr
from moments import until
from pandas_amr._records.engine import in_thread
from pandas_amr._units.parquet import ArrowFrame
from pandas_amr.errors import SandboxError
from pandas_amr.sandbox.base import Cell, Data, Limits
from pandas_amr.sandbox.host import local
from pandas_amr.sandbox.host.local import LocalSandbox
from pandas_amr.testing import Call, ScriptedServer, findings
from processes import alive, sandbox_processes
from versions import once

pytestmark = [pytest.mark.usefixtures("sandboxed"), once]

QUICK = Limits(wall_s=1.0, memory_mb=512)


def code(text: str) -> Call:
    return Call("python_repl", {"code": text})


def in_session(*cells: str, ask=None, data=None, limits=QUICK, tier="auto", **options) -> list[Cell]:
    """Run cells in one session; what came of each."""

    async def run():
        sandbox = LocalSandbox(tier, **options)
        try:
            session = await sandbox.open(data or Data("df"), limits)
            return [await session.run(cell, ask) for cell in cells]
        finally:
            await sandbox.close()

    return asyncio.run(run())


async def refusing(asked):
    raise amr.UsageError("z" * 1_000_000)


async def answering(asked):
    return ArrowFrame.of(pd.DataFrame({"answer": asked["texts"]})).data("answers")


# The host waits for nobody


@pytest.mark.long
def test_code_that_ignores_the_interrupt_and_asks_for_ever_is_ended():
    stubborn = (
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "while True:\n    try: ask([], 'x')\n    except Exception: time.sleep(0.05)"
    )
    (cell,) = in_session(stubborn, ask=answering)
    assert cell.lost
    assert "could not be interrupted" in cell.text


def test_an_answer_that_nobody_reads_does_not_hold_the_host(monkeypatch):
    monkeypatch.setattr("pandas_amr.sandbox.host.channel.SEND_S", 1.0)
    silent = (
        "import time\nworker = submit.__self__\n"
        "worker._stream.send({'id': worker._id, 'ask': {'texts': ['x'], 'instruction': 'i', 'schema': {'a': 'str'}}})\n"
        "time.sleep(1000)"
    )

    async def long(asked):
        return ArrowFrame.of(pd.DataFrame({"answer": [os.urandom(30_000_000).hex()]})).data("answers")

    (cell,) = in_session(silent, ask=long)
    assert cell.lost


def test_what_is_wrong_with_a_question_comes_back_short():
    (cell,) = in_session("ask(['x'], 'i')", ask=refusing)
    assert not cell.lost
    assert len(cell.text) < 3000


@pytest.mark.long
def test_an_interrupt_while_an_answer_is_read_leaves_the_session_whole():
    async def slow(asked):
        return ArrowFrame.of(pd.DataFrame({"answer": ["x" * 10_000_000]})).data("answers")

    for wait in (0.85, 0.95, 0.99):
        stopped, after = in_session(
            f"import time\ntime.sleep({wait})\nn = len(ask(['x'], 'i'))\ntime.sleep(5)", "1", ask=slow
        )
        assert "stopped after 1 s" in stopped.text
        assert after.text.strip() == "1"


def test_json_that_is_all_brackets_is_not_read():
    bomb = (
        "worker = submit.__self__\nblob = b'{\"findings\":[' + b'{},' * 10_000_000 + b'{}]}'\n"
        "worker._stream.send({'id': worker._id, 'ok': True, 'out': '', 'cut': 0, 'submitted': True}, blob)"
    )
    bombed, told = in_session(bomb, "submit([[1]] * 3_000_000)", limits=Limits(wall_s=60, memory_mb=512))
    assert "more than 1,000,000 values" in bombed.text
    assert not told.ok
    assert not told.lost


def test_questions_are_bounded_whatever_they_hold():
    bad = [
        "ask(['x'], 'i', {'a': {'kind': [[1]]}})",
        "ask(['x'], 'i', {'model_config': int})",
        "ask(['x'], 'i', {f'f{n}': str for n in range(4000)})",
        "ask(['x'], 'i' * 100_000)",
        "ask(['word ' * 400_000], 'i')",
    ]
    told = []

    def provider(request):
        told[:] = request.tool_results
        return code(bad[len(told)]) if len(told) < len(bad) else code("submit([{'n': 1}])")

    with ScriptedServer(provider) as server:
        found = pd.DataFrame({"text": ["a"]}).amr.map(
            "x", finding={"n": int}, tools=[amr.PythonREPLTool(limits=Limits(asks=5))], lm=server.lm(), max_steps=10
        )
        assert len(server.requests) == len(bad) + 1  # none of them reached the model
    assert found["n"].tolist() == [1]
    assert len(told) == len(bad)
    assert all("RuntimeError: " in one for one in told), told


def test_missing_texts_are_not_asked():
    asked = []

    def provider(request):
        if "Say it." not in request.system:
            return code(
                "out = ask(df['text'], 'Say it.', {'said': str})\nsubmit(out['said'].isna().astype(int).to_frame('n'))"
            )
        asked.extend(unit["text"] for unit in request.units)
        return findings(request, lambda unit: {"said": "x"})

    frame = pd.DataFrame({"text": ["a", None, "b"]})
    with ScriptedServer(provider) as server:
        found = frame.amr.map(
            "x",
            finding={"n": int},
            tools=[amr.PythonREPLTool()],
            plan={"on_empty": "ask"},
            lm=server.lm(),
        )
    assert asked == ["a", "b"]
    assert found["n"].tolist() == [0, 1, 0]


# Findings on their rows


def submitted(frame: pd.DataFrame, *cells: str):
    """What agents that run the cells one after the other are told, and the findings."""
    told = []

    def provider(request):
        told[:] = request.tool_results
        return code(cells[len(told)]) if len(told) < len(cells) else findings(request, lambda unit: {"n": -1.0})

    with ScriptedServer(provider) as server:
        found = frame.amr.map("x", finding={"n": float}, tools=[amr.PythonREPLTool()], lm=server.lm())
    return told, found["n"].tolist()


def test_where_labels_are_doubled_only_rows_in_their_order_are_taken_by_the_index():
    frame = pd.DataFrame({"amount": [3.0, 1.0, 2.0]}, index=["a", "a", "a"])
    sort = "submit(df.sort_values('amount')[['amount']].rename(columns={'amount': 'n'}))"
    kept = "submit(df[['amount']].rename(columns={'amount': 'n'}))"
    told, found = submitted(frame, sort, kept)
    assert "cannot tell which rows" in told[0]
    assert found == [3.0, 1.0, 2.0]


def test_a_unit_is_a_whole_number():
    frame = pd.DataFrame({"amount": [3.0, 1.0, 2.0]})
    told, found = submitted(frame, "submit(pd.DataFrame({'unit': [0.9, 1.9, 2.9], 'n': [1., 2., 3.]}))")
    assert "row's number in df" in told[0]
    assert found == [-1.0] * 3


def test_two_cells_of_one_turn_that_hand_in_are_taken_together():
    frame = pd.DataFrame({"amount": [3.0, 1.0, 2.0]})

    def provider(request):
        parts = ("numbered[:2]", "numbered[2:]")
        numbered = "numbered = df.rename(columns={'amount': 'n'}).assign(unit=range(len(df)))"
        return [code(f"{numbered}\nsubmit({part})") for part in parts]

    with ScriptedServer(provider) as server:
        found = frame.amr.map("x", finding={"n": float}, tools=[amr.PythonREPLTool()], lm=server.lm())
        assert len(server.requests) == 1
    assert found["n"].tolist() == [3.0, 1.0, 2.0]


def test_numbers_that_no_float_holds_stay_what_they_are():
    big = 2**60 + 1
    frame = pd.DataFrame({"a": [1, 2]}, index=pd.Index([big, None], dtype="Int64"))
    (cell,) = in_session("int(df.index[0])", data=ArrowFrame.of(frame).data("df"))
    assert cell.text.strip() == str(big)


def test_reducers_have_whole_numbers_though_some_are_missing():
    big = 2**60 + 1

    def provider(request):
        if request.schema == "findings":
            return findings(request, lambda unit: {"n": None if unit["text"] == "1" else big})
        return code("submit(str(int(findings['n'].max())), sources=[0])")

    with ScriptedServer(provider) as server:
        result = pd.DataFrame({"text": ["0", "1"]}).amr.map_reduce(
            map="x", finding={"n": int | None}, reduce=amr.Agent("y", tools=[amr.PythonREPLTool()]), lm=server.lm()
        )
    assert result.output == str(big)


# Who failed


@pytest.mark.long
def test_a_tool_that_never_returns_holds_up_no_other_and_not_the_end_of_python():
    script = """
import time
import pandas as pd, pandas_amr as amr
from pandas_amr.testing import Call, ScriptedServer, findings
def stuck(x: int) -> int:
    "Never returns."
    time.sleep(3600)
def provider(request):
    return findings(request, lambda unit: {"n": 1}) if request.tool_results else Call("stuck", {"x": 1})
tool = amr.Tool(stuck, timeout_s=0.2)
frame = pd.DataFrame({"text": [f"row {n}" for n in range(12)]})
with ScriptedServer(provider) as server:
    found = frame.amr.map("x", finding={"n": int}, tools=[tool], plan={"shard_size": 1}, lm=server.lm(), journal=False)
print(int(found["n"].sum()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "12", done.stderr


def test_what_a_function_in_a_thread_raises_is_raised_where_it_is_waited_for():
    def stops():
        raise StopIteration

    async def run():
        assert await in_thread(max, 1, 2) == 2
        with pytest.raises(ZeroDivisionError):
            await in_thread(lambda: 1 / 0)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await in_thread(stops)
        assert await in_thread(lambda: threading.current_thread().daemon)

    asyncio.run(run())


class Broken:
    """A sandbox whose sessions fail."""

    tier = "own"

    async def open(self, data, limits):
        raise SandboxError("the machine burnt down")

    async def close(self):
        """Nothing is behind it."""


@amr.tool(isolated=True)
def kinds(day: dt.date, number: float) -> str:
    """What the arguments are."""
    return f"{day!r} {number!r}"


def test_a_sandbox_that_fails_under_an_isolated_tool_is_not_the_agent_s_to_read():
    def provider(request):
        return Call("kinds", {"day": "2026-01-02", "number": 0.5})

    with ScriptedServer(provider) as server, pytest.raises(amr.MapFailed) as failed:
        pd.DataFrame({"text": ["a"]}).amr.map(
            "x", finding={"n": int}, tools=[kinds, amr.PythonREPLTool(sandbox=Broken())], lm=server.lm(), errors="raise"
        )
    assert set(failed.value.partial.failures["who"]) == {"sandbox"}


def test_an_isolated_tool_has_its_arguments_as_json_has_them():
    seen = []

    def provider(request):
        if not request.tool_results:
            return Call("kinds", {"day": "2026-01-02", "number": 0.5})
        seen.append(request.tool_results[0])
        return findings(request, lambda unit: {"n": 1})

    with ScriptedServer(provider) as server:
        pd.DataFrame({"text": ["a"]}).amr.map("x", finding={"n": int}, tools=[kinds], lm=server.lm())
    assert seen == ["'2026-01-02' 0.5"]


def test_a_fork_that_fails_fails_that_session_and_no_other(monkeypatch, anybody_s):
    """The zygote's `os.fork` is made to fail at its third call by a package that is loaded into it."""
    (anybody_s / "no_forks.py").write_text(
        "import os\n_fork, _calls = os.fork, []\n"
        "def fork():\n    _calls.append(1)\n    if len(_calls) == 3: raise BlockingIOError(11, 'no room')\n    return _fork()\n"
        "os.fork = fork\n"
    )
    monkeypatch.syspath_prepend(str(anybody_s))

    async def run():
        sandbox = LocalSandbox("auto", packages=["no_forks"])
        try:
            first = await sandbox.open(Data("df"), QUICK)
            assert (await first.run("1")).text.strip() == "1"
            second = await sandbox.open(Data("df"), QUICK)
            with pytest.raises(SandboxError, match="no room"):
                await second.run("2")
            assert (await first.run("3")).text.strip() == "3"
            assert (await second.run("4")).text.strip() == "4"
        finally:
            await sandbox.close()

    asyncio.run(run())


@pytest.mark.long
def test_ctrl_c_in_the_terminal_reaches_no_session():
    script = """
import asyncio, os, signal
import pandas as pd
from pandas_amr._units.parquet import ArrowFrame
from pandas_amr.sandbox.base import Data, Limits
from pandas_amr.sandbox.host.local import LocalSandbox
begun = asyncio.Event()
async def begin(asked):
    begun.set()
    return ArrowFrame.of(pd.DataFrame({"answer": asked["texts"]})).data("answers")
async def main():
    sandbox = LocalSandbox()
    session = await sandbox.open(Data("df"), Limits(wall_s=30))
    await session.run("x = 1")
    running = asyncio.ensure_future(session.run("import time\\nask(['y'], 'i')\\ntime.sleep(1)\\nx", begin))
    await begun.wait()
    os.killpg(0, signal.SIGINT)
    print((await running).text.strip())
    await sandbox.close()
signal.signal(signal.SIGINT, lambda *_: None)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600, process_group=0)
    assert done.stdout.strip() == "1", done.stderr


# What is shown, what is left


SMALL_ROOT = """
import os, sys
from pandas_amr.sandbox.guest import confine
if os.fork():  # a child has one thread, whatever the imports began
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
confine.enter_user_namespace(os.open("/proc", os.O_PATH | os.O_DIRECTORY), confine.NEW_MOUNTS)
confine.enter_small_root(["/usr/lib"], {}, sys.argv[1:])
print([open(path).read() for path in sys.argv[1:]], os.path.islink("/tmp"), flush=True)
os._exit(0)
"""


@pytest.mark.long
def test_the_root_of_a_session_shows_a_file_that_lies_in_the_temporary_folder_alone(strong):
    with tempfile.NamedTemporaryFile("w", dir="/tmp", suffix=".py") as file:
        file.write("VALUE = 41")
        file.flush()
        for shown, seen in (([], "[] True"), ([file.name], "['VALUE = 41'] False")):
            done = subprocess.run([sys.executable, "-c", SMALL_ROOT, *shown], capture_output=True, text=True)
            assert done.stdout.strip() == seen, done.stderr


OPENS = """
import asyncio, sys
from pandas_amr.sandbox.base import Data, Limits
from pandas_amr.sandbox.host.local import LocalSandbox
async def main():
    sandbox = LocalSandbox(sys.argv[1])
    session = await sandbox.open(Data("df"), Limits(wall_s=1))
    await session.run("kept = 40")
    await session.run("while True: pass")
    print((await session.run("kept + 2")).text.strip())
    await sandbox.close()
asyncio.run(main())
"""
HOSTS = {
    "whose files nobody else may read": "import os; os.umask(0o077)",
    "that does not wait for its children": "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "that waits for signals itself": "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])",
    "with no more time than a session may take": "import resource as r; r.setrlimit(r.RLIMIT_CPU, (300, 300))",
    "with a thread beside": "import threading, time; threading.Thread(target=time.sleep, args=[60], daemon=True).start()",
}


@pytest.mark.long
@pytest.mark.parametrize("host", HOSTS)
def test_every_tier_can_be_had_by_a_host(tier, host):
    done = subprocess.run([sys.executable, "-c", f"{HOSTS[host]}\n{OPENS}", tier], capture_output=True, text=True)
    assert done.stdout.strip() == "42", done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="takes a root whose rights can be taken")
@pytest.mark.long
def test_root_in_a_container_has_a_sandbox_wherever_its_python_lies():
    """Docker gives its root neither CAP_DAC_READ_SEARCH nor CAP_SYS_ADMIN."""
    script = f"""
import ctypes, os, sys
libc = ctypes.CDLL(None)
assert libc.prctl(24, 2, 0, 0, 0) == libc.prctl(24, 21, 0, 0, 0) == 0
os.execv(sys.executable, [sys.executable, "-c", {OPENS!r}, "auto"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "42", done.stderr


@pytest.mark.long
def test_a_fork_of_the_host_ends_nothing_of_its_parents(tier):
    script = """
import asyncio, os, sys, threading
from pandas_amr.sandbox.base import Data, Limits
from pandas_amr.sandbox.host.local import LocalSandbox
async def main():
    sandbox = LocalSandbox(sys.argv[1])
    session = await sandbox.open(Data("df"), Limits())
    await session.run("kept = 40")
    if os.fork() == 0:
        asyncio._set_running_loop(None)
        asyncio.run(sandbox.close())
        os._exit(0)
    os.wait()
    print((await session.run("kept + 2")).text.strip())
    await sandbox.close()
asyncio.run(main())
"""
    command = [sys.executable, "-W", "ignore", "-c", script, tier]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == "42", done.stderr


def test_packages_in_a_folder_of_the_users_stand_where_the_host_has_them(monkeypatch, anybody_s, tier):
    for place, value in (("first", 41), ("second", 0)):
        about = anybody_s / place / "vendored-1.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vendored\nVersion: 1.0\n")
        (about / "RECORD").write_text("vendored/__init__.py,,\nbeside.py,,\n../../bin/tool,,\n")
        (anybody_s / place / "vendored").mkdir()
        (anybody_s / place / "vendored" / "__init__.py").write_text(
            f"from beside import MORE\nVALUE = {value} + MORE\n"
        )
        (anybody_s / place / "beside.py").write_text("MORE = 1\n")
        (anybody_s / place / "own").mkdir()
        (anybody_s / place / "own" / "data.txt").write_text("secret")
    (anybody_s / "link").symlink_to(anybody_s / "first")
    monkeypatch.syspath_prepend(str(anybody_s / "second"))
    monkeypatch.syspath_prepend(str(anybody_s / "link"))
    works, secret = in_session(
        "import vendored\nvendored.VALUE",
        f"open({str(anybody_s / 'link' / 'own' / 'data.txt')!r}).read()",
        packages=["vendored"],
        tier=tier,
    )
    assert works.text.strip() == "42"
    assert not secret.ok


@pytest.mark.skipif(os.getuid() != 0, reason="a plain user's packages can be read by the plain user who code runs as")
def test_a_package_that_only_root_can_read_is_named_or_read_by_the_lesser_tier(monkeypatch, anybody_s, strong):
    package = anybody_s / "of_root"
    package.mkdir(mode=0o700)
    (package / "__init__.py").write_text("VALUE = 41\n")
    monkeypatch.syspath_prepend(str(anybody_s))
    with pytest.raises(amr.SandboxUnavailable, match=f"{package} can be read by root only.*chmod -R o.rX"):
        in_session("import of_root", packages=["of_root"], tier="strong")
    (works,) = in_session("import of_root\nof_root.VALUE + 1", packages=["of_root"])
    assert works.text.strip() == "42"


def test_a_package_of_one_file_shows_nothing_of_its_folder(monkeypatch, anybody_s, tier):
    (anybody_s / "one_file.py").write_text("VALUE = 41\n")
    (anybody_s / ".env").write_text("OPENAI_API_KEY=secret")
    monkeypatch.syspath_prepend(str(anybody_s))
    works, listing, secret = in_session(
        "import one_file\none_file.VALUE + 1",
        f"import os\nos.listdir({str(anybody_s)!r})",
        f"open({str(anybody_s / '.env')!r}).read()",
        packages=["one_file"],
        tier=tier,
    )
    assert works.text.strip() == "42"
    assert not secret.ok
    assert ".env" not in listing.text


def test_a_file_that_was_replaced_is_read_as_it_is_now(anybody_s):
    path = anybody_s / "words.txt"
    seen = []

    def provider(request):
        if not request.tool_results:
            return code("print(open(files['words.txt']).read())")
        seen.append(request.tool_results[0].splitlines()[0])
        return findings(request, lambda unit: {"n": 1})

    for word in ("old", "new"):
        fresh = anybody_s / "fresh"
        fresh.write_text(word)
        fresh.chmod(0o644)
        fresh.rename(path)
        with ScriptedServer(provider) as server:
            tools = [amr.PythonREPLTool(files=[path])]
            pd.DataFrame({"text": [word]}).amr.map("x", finding={"n": int}, tools=tools, lm=server.lm())
    assert seen == ["old", "new"]


def test_files_that_code_could_not_read_are_refused_at_once(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.csv").write_text("1")
    with pytest.raises(amr.UsageError, match="two files have the same name"):
        amr.PythonREPLTool(files=[tmp_path / "a" / "same.csv", tmp_path / "b" / "same.csv"])
    if os.getuid() == 0:
        (tmp_path / "a" / "same.csv").chmod(0o600)
        with pytest.raises(amr.UsageError, match="only its owner can read"):
            amr.PythonREPLTool(files=[tmp_path / "a" / "same.csv"])


@pytest.mark.long
def test_few_warm_processes_stand_idle_however_many_kinds_were_asked_for():
    async def run():
        sandboxes = [LocalSandbox(packages=[name]) for name in ("json", "csv", "decimal", "statistics", "difflib")]
        try:
            for sandbox in sandboxes:
                session = await sandbox.open(Data("df"), QUICK)
                assert (await session.run("1")).text.strip() == "1"
                await session.close()
                while any(zygote._end_futures for zygote in sandbox._zygotes):
                    await asyncio.sleep(0.01)
            alive = sum(zygote.alive for sandbox in sandboxes for zygote in sandbox._zygotes)
            again = await sandboxes[0].open(Data("df"), QUICK)
            assert (await again.run("2")).text.strip() == "2"
        finally:
            for sandbox in sandboxes:
                await sandbox.close()
        return alive

    assert asyncio.run(run()) <= local.MAX_IDLE + 1


FOLDERS = """
import asyncio
from pandas_amr.sandbox.base import Data, Limits
from pandas_amr.sandbox.host.local import LocalSandbox
async def main():
    sandbox = LocalSandbox("process")
    session = await sandbox.open(Data("df"), Limits())
    told = await session.run("import os; open('here', 'w').close(); print(os.path.dirname(os.getcwd()))")
    print(told.text.strip(), sandbox._zygotes[0].pid, flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""


def test_a_session_that_is_not_confined_has_a_folder_of_its_own_and_leaves_nothing_elsewhere():
    told = (
        "import os, tempfile\nopen('here', 'w').close()\nprint(os.getcwd(), os.environ['HOME'], tempfile.gettempdir())"
    )

    async def run():
        sandbox = LocalSandbox("process")
        try:
            sessions = [await sandbox.open(Data("df"), QUICK) for _ in range(2)]
            folders = {(await session.run(told)).text.strip() for session in sessions}
            assert len(folders) == 2
            (first, *_), (second, *_) = named = [folder.split() for folder in folders]
            assert all(len(set(names)) == 1 for names in named)
            for session in sessions:
                await session.close()
            while any(zygote._end_futures for zygote in sandbox._zygotes):
                await asyncio.sleep(0.01)
            assert not Path(first).exists()
            assert not Path(second).exists()
            assert Path(first).parent.exists()
        finally:
            await sandbox.close()
        return Path(first).parent

    assert not asyncio.run(run()).exists()


@pytest.mark.parametrize("killed", ["host", "zygote"])
def test_a_folder_of_a_session_that_is_not_confined_goes_with_who_made_it(killed):
    with subprocess.Popen([sys.executable, "-c", FOLDERS], stdout=subprocess.PIPE, text=True) as driver:
        folder, zygote = driver.stdout.readline().split()
        assert Path(folder).exists()
        os.kill(driver.pid if killed == "host" else int(zygote), signal.SIGKILL)
        until(lambda: not Path(folder).exists())
        driver.kill()
    assert not Path(folder).exists()


@pytest.mark.parametrize(
    "limits",
    [{"memory_mb": 512.5}, {"threads": 4.5}, {"cpu_s": float("inf")}, {"wall_s": float("nan")}, {"memory_mb": 1 << 45}],
)
def test_limits_that_no_machine_has_are_refused(limits):
    with pytest.raises(amr.UsageError, match=next(iter(limits))):
        Limits(**limits)


def test_a_host_that_is_killed_while_its_sandbox_still_imports_leaves_nothing(anybody_s, strong):
    (anybody_s / "slow_import.py").write_text("import time\ntime.sleep(3600)\n")
    script = f"""
import asyncio, sys
sys.path.insert(0, {str(anybody_s)!r})
from pandas_amr.sandbox.base import Data, Limits
from pandas_amr.sandbox.host.local import LocalSandbox
async def main():
    sandbox = LocalSandbox("strong", packages=["slow_import"])
    opening = asyncio.ensure_future(sandbox.open(Data("df"), Limits()))
    await asyncio.wait([opening], timeout=5)
    print("" if opening.done() else "importing", flush=True)
    await opening
asyncio.run(main())
"""
    driver = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        expected = 2 if driver.stdout.readline().strip() == "importing" else 0  # who watches, and who imports
        until(lambda: len(sandbox_processes(driver.pid)) == expected)
        inside = sandbox_processes(driver.pid)
        assert len(inside) == expected
        os.kill(driver.pid, signal.SIGKILL)
        until(lambda: not alive(inside))
        assert alive(inside) == set()
    finally:
        driver.kill()
        driver.wait()
        driver.stdout.close()
