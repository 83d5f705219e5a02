"""What a user sees of an error: their own line, the message, and none of our frames."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import weakref
from pathlib import Path

import pandas as pd
import pytest

import pandas_amr as amr
from pandas_amr.models.openai.scrub import remove_secrets
from pandas_amr.testing import ScriptedServer, Status, findings

DF = pd.DataFrame({"text": [f"row {number}" for number in range(6)]})
PACKAGE = str(Path(amr.__file__).parent) + os.sep
HERE = __file__
MAPPED = {"map": "Which?", "finding": {"n": int}, "plan": {"shard_size": 1}, "max_parallelism": 1}
LINES = 7  # "Traceback", two for the test's line and its marks, the lambda's likewise, the message, the note


def truth(request):
    return findings(request, lambda unit: {"n": int(unit["text"].split()[1])})


@pytest.fixture(scope="module")
def lm():
    with ScriptedServer(truth) as server:
        yield server.lm()


@pytest.fixture(scope="module")
def refused():
    with ScriptedServer(lambda request: Status(401, "Incorrect API key provided.")) as server:
        yield server.lm()


def bad_reducer(frame):
    raise ZeroDivisionError(len(frame))


async def bad_async_reducer(frame):
    await asyncio.sleep(0)
    return bad_reducer(frame)


@amr.tool
def bad_tool(text: str) -> int:
    """Fail."""
    return bad_reducer(text)


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def ended(call) -> amr.AMRError:
    with pytest.raises(amr.AMRError) as caught:
        call()
    return caught.value


def iterate(run):
    for _ in run:
        pass


def await_in_loop(make):
    async def wait():
        return await make()

    return asyncio.run(wait())


def iterate_in_loop(make):
    async def wait():
        async for _ in make():
            pass

    return asyncio.run(wait())


def in_block(run):
    with run:
        run.result()


# What goes wrong, in words; each with the models that it may use: one that answers, one that refuses the key.
MISTAKES = {
    "a wrong key": lambda lm, refused: DF.amr.map("Which?", lm=refused),
    "a wrong key, of a run": lambda lm, refused: DF.amr.start(reduce={"n": "sum"}, lm=refused, **MAPPED).result(),
    "a wrong key, of a loop": lambda lm, refused: iterate(DF.amr.start(reduce={"n": "sum"}, lm=refused, **MAPPED)),
    "a wrong key, of a block": lambda lm, refused: in_block(DF.amr.start(reduce={"n": "sum"}, lm=refused, **MAPPED)),
    "a wrong key, of a recipe": lambda lm, refused: amr.Recipe().map("Which?")(DF, lm=refused),
    "a keyword": lambda lm, refused: DF.amr.map("Which?", lm=lm, colums=["text"]),
    "a column": lambda lm, refused: DF["text"].to_frame().amr.filter("Odd.", lm=lm, columns=["tex"]),
    "a column, of a Series": lambda lm, refused: DF["text"].amr.map("Which?", lm=lm, columns=["tex"]),
    "by a pipe": lambda lm, refused: DF.pipe(amr.reduce, {"no": "sum"}),
    "a plan": lambda lm, refused: DF.amr.plan("Which?", lm=lm, plan={"fan_inn": 3}),
    "a plan's field": lambda lm, refused: amr.Plan().replace(fan_inn=3),
    "an address": lambda lm, refused: amr.LM("m", base_url="nowhere"),
    "an agent": lambda lm, refused: amr.Agent(3),
    "a tool": lambda lm, refused: amr.tool(3),
    "a journal": lambda lm, refused: amr.Journal(""),
    "a setting": lambda lm, refused: amr.configure(lm=3),
    "a setting of a block": lambda lm, refused: amr.settings(errors="no"),
    "a pattern": lambda lm, refused: amr.read_files("/no/such/folder/*.txt"),
    "a file": lambda lm, refused: amr.read_text(Path("/no/such/file")),
    "a folder": lambda lm, refused: amr.load("/no/such/folder"),
    "a frame": lambda lm, refused: amr.result_of(DF),
    "a recipe": lambda lm, refused: amr.Recipe()(DF),
    "a result's method": lambda lm, refused: amr.Recipe().map(len_of)(DF).verify(share=0.5),
    "a failed unit": lambda lm, refused: DF.amr.map(bad_reducer, errors="raise"),
}


def len_of(shard):
    return [{"n": len(text)} for text in shard["text"]]


@pytest.mark.parametrize("what", MISTAKES)
def test_an_error_shows_the_users_line_and_the_message_and_no_frame_of_ours(what, lm, refused):
    with pytest.raises(amr.AMRError) as caught:
        MISTAKES[what](lm, refused)
    own = traceback.extract_tb(caught.value.__traceback__)
    assert PACKAGE not in shown(caught.value)
    assert caught.value.__context__ is None
    assert {frame.filename for frame in own} == {HERE} or what == "by a pipe"
    assert own[-1].filename == HERE or what == "by a pipe"
    assert str(caught.value) in shown(caught.value)


def test_a_call_of_one_line_gives_a_traceback_of_a_few(refused):
    with pytest.raises(amr.ModelConfigError) as caught:
        DF.amr.map("Which?", lm=refused)
    assert len(shown(caught.value).splitlines()) <= LINES


@pytest.mark.parametrize("wait", [await_in_loop, iterate_in_loop])
def test_so_does_one_that_is_awaited(wait, refused):
    with pytest.raises(amr.ModelConfigError) as caught:
        wait(lambda: DF.amr.start(reduce={"n": "sum"}, lm=refused, **MAPPED))
    assert PACKAGE not in shown(caught.value)


def test_so_does_one_on_another_thread_and_one_that_is_raised_twice(refused):
    run = DF.amr.start(reduce={"n": "sum"}, lm=refused, **MAPPED)
    texts = []

    def wait():
        try:
            run.result()
        except amr.AMRError as error:
            texts.append(shown(error))

    for _ in range(2):
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
    assert PACKAGE not in texts[0]
    assert texts[0] == texts[1]


def test_with_amr_debug_all_frames_are_shown(refused, monkeypatch):
    monkeypatch.setenv("AMR_DEBUG", "1")
    with pytest.raises(amr.ModelConfigError) as caught:
        DF.amr.map("Which?", lm=refused)
    assert PACKAGE in shown(caught.value)
    monkeypatch.setenv("AMR_DEBUG", "0")
    with pytest.raises(amr.ModelConfigError) as caught:
        DF.amr.map("Which?", lm=refused)
    assert PACKAGE not in shown(caught.value)


@pytest.mark.parametrize("reducer", [bad_reducer, bad_async_reducer])
def test_an_exception_of_the_users_function_keeps_its_lines_and_is_the_cause(reducer, lm):
    with pytest.raises(amr.RunStopped, match="ZeroDivisionError was raised in its reduce") as caught:
        DF.amr.map_reduce(reduce=reducer, lm=lm, **MAPPED)
    cause = caught.value.__cause__
    assert isinstance(cause, ZeroDivisionError)
    names = [frame.name for frame in traceback.extract_tb(cause.__traceback__)]
    assert names == list(dict.fromkeys([reducer.__name__, "bad_reducer"]))
    assert PACKAGE not in shown(caught.value)


def test_what_a_users_function_was_handling_stays_above_its_exception(lm):
    def reducer(frame):
        try:
            return bad_reducer(frame)
        except ZeroDivisionError:
            raise LookupError("no rate") from None

    def chained(frame):
        try:
            return bad_reducer(frame)
        except ZeroDivisionError as error:
            raise LookupError("no rate") from error

    with pytest.raises(amr.RunStopped) as caught:
        DF.amr.map_reduce(reduce=chained, lm=lm, **MAPPED)
    assert isinstance(caught.value.__cause__.__cause__, ZeroDivisionError)
    assert "in bad_reducer" in shown(caught.value)
    with pytest.raises(amr.RunStopped) as caught:
        DF.amr.map_reduce(reduce=reducer, lm=lm, **MAPPED)
    assert "in bad_reducer" not in shown(caught.value)


def test_what_the_user_was_handling_stays_above_the_error(lm):
    def call():
        try:
            bad_reducer([])
        except ZeroDivisionError:
            DF.amr.map("Which?", lm=lm, columns=["no"])

    error = ended(call)
    assert isinstance(error.__context__, ZeroDivisionError)
    assert "During handling of the above exception" in shown(error)


def test_an_error_that_is_handled_where_it_is_raised_again_is_not_its_own_context(refused):
    run = DF.amr.start(reduce={"n": "sum"}, lm=refused, **MAPPED)

    def call():
        try:
            run.result()
        except amr.ModelConfigError:
            run.result()

    assert ended(call).__context__ is None


def test_a_bug_of_ours_keeps_all_its_frames():
    class Odd(pd.DataFrame):
        @property
        def columns(self):
            raise RuntimeError("odd")

    with pytest.raises(RuntimeError) as caught:
        amr.map(Odd(), "Which?", lm="m")
    assert PACKAGE in shown(caught.value)


def test_an_error_can_be_pickled(refused):
    with pytest.raises(amr.ModelConfigError) as caught:
        DF.amr.map("Which?", lm=refused)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy), copy.partial) == (amr.ModelConfigError, str(caught.value), None)


class Big:
    """Something that a frame of the user's holds."""


@pytest.mark.parametrize("what", ["a wrong key", "a failed unit", "a reducer"])
@pytest.mark.sampled(3)
def test_an_error_that_is_let_go_of_keeps_no_frame_alive(what, lm, refused):
    calls = MISTAKES | {
        "a reducer": lambda lm, refused: DF.amr.map_reduce(reduce=bad_reducer, lm=lm, **MAPPED),
    }

    def handle():
        big = Big()
        seen = weakref.ref(big)
        try:
            calls[what](lm, refused)
        except (amr.AMRError, amr.AMRWarning):
            return seen
        raise AssertionError(what)

    handle()  # what the first call of a process sets up holds frames of its own
    gc.collect()
    gc.disable()
    try:
        seen = handle()
        for _ in range(500):  # the engine may not have left the run yet
            if seen() is None:
                break
            time.sleep(0.01)
        assert seen() is None
    finally:
        gc.enable()


# Awaited by mistake

AWAITED = [
    "await df.amr.map_reduce(map='x', reduce={'n': 'sum'}, lm=lm)",
    "await amr.map_reduce(df, map='x', reduce={'n': 'sum'}, lm=lm)",
    "result = (await df.amr.map('x', lm=lm))",
    "return await amr.map(df, 'x', lm=lm)",
    "await df.pipe(amr.filter, 'x', lm=lm)",
    "await df['text'].amr.filter('x', lm=lm)",
    "await df.amr.reduce('x', lm=lm)",
    "await df.amr.plan('x', lm=lm)",
    "async for row in df.amr.map('x', lm=lm): pass",
    "[row async for row in df.amr.map('x', lm=lm)]",
    "await df.amr.start(map='x', reduce={'n': 'sum'}, lm=lm, **{'finding': {'n': int}}).result()",
]


@pytest.mark.parametrize("statement", AWAITED)
def test_what_is_awaited_and_is_no_awaitable_is_refused_before_a_request(statement):
    started = ".start(" in statement
    with ScriptedServer(truth) as server:
        names = {"df": DF, "amr": amr, "lm": server.lm()}
        exec(compile(f"async def main():\n    {statement}", "<compiled>", "exec"), names)
        with pytest.raises(
            amr.UsageError, match="await the run" if started else r"await .*\.(start|filter|reduce|plan|map)\b"
        ):
            asyncio.run(names["main"]())
        assert started or server.requests == []


UNAWAITED = [
    "df.amr.map('Which?', **options); await asyncio.sleep(0)",
    "await asyncio.sleep(len(df.amr.map('Which?', **options)) * 0)",
    "found = df.amr.map('Which?', **options)\n    await asyncio.sleep(0)",
    "await asyncio.to_thread(df.amr.map, 'Which?', **options)",
    "await df.amr.start(map='Which?', reduce={'n': 'sum'}, **options)",
    "async for finding in df.amr.start(map='Which?', reduce={'n': 'sum'}, **options): pass",
]


@pytest.mark.parametrize("statement", UNAWAITED)
def test_what_is_called_in_async_code_without_await_is_not(statement):
    with ScriptedServer(truth) as server:
        names = {"df": DF, "amr": amr, "asyncio": asyncio, "options": {"lm": server.lm(), "finding": {"n": int}}}
        exec(compile(f"async def main():\n    {statement}", "<compiled>", "exec"), names)
        asyncio.run(names["main"]())
        assert server.requests


# Keys

TEXTS = [
    ("The latest test has none.", ["none", "test"], "The latest test has none."),
    ("A short key: abc1.", ["abc1"], "A short key: [key]."),
    ("abc12 and xabc1x stay", ["abc1"], "abc12 and xabc1x stay"),
    ("Incorrect API key provided: test. Run the test again.", ["test"], "Incorrect API key provided: [key]. Run the test again."),
    ("Incorrect API key provided: sk-a1b2c3d4e5.", ["sk-a1b2c3d4e5"], "Incorrect API key provided: [key]."),
    ("API key required; key provided is unknown", [], "API key required; key provided is unknown"),
    ("Bearer authentication is required", [], "Bearer authentication is required"),
    ("authorization: Bearer none", ["none"], "authorization: Bearer [key]"),
    ("key sk-proj-****abcd is wrong", [], "key [key] is wrong"),
    ("GET /v1?key=a%2Fb%2Bc12345%3D%3D failed", ["a/b+c12345=="], "GET /v1?key=[key] failed"),
    ('{"key": "a\\"quoted1"}', ['a"quoted1'], '{"key": "[key]"}'),
    ("token Zm9vYmFyQUJD in a header", ["Bearer Zm9vYmFyQUJD"], "token [key] in a header"),
    ("at most 5 rows", ["5"], "at most 5 rows"),
    ("limit 12345 tokens", ["12345"], "limit 12345 tokens"),
    ("The model k is unknown", ["k"], "The model k is unknown"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "secrets", "scrubbed"), TEXTS)
def test_keys_are_removed_from_a_text_and_words_are_not(text, secrets, scrubbed):
    assert remove_secrets(text, secrets) == scrubbed


@pytest.mark.parametrize("key", ["none", "test", "sk-a1b2c3d4e5f6", "AbCdEfGhIjKl"])
def test_an_error_shows_the_words_of_the_server_and_never_the_key(key):
    said = "Incorrect API key provided; the test model takes none."
    with ScriptedServer(lambda request: Status(401, f"{said} key={key}")) as server:
        error = ended(lambda: DF.amr.map("Which?", lm=server.lm(api_key=key)))
    assert said in str(error)
    assert f"key={key}" not in str(error)
    assert f"key={key}" not in "".join(error.__notes__) + repr(error)


# In a process of its own

SCRIPT = """
import os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
import pandas as pd, pandas_amr as amr
from pandas_amr.testing import ScriptedServer, Status, findings
df = pd.DataFrame({"text": [f"row {number}" for number in range(60)]})
times, journal = int(sys.argv[1]), sys.argv[2] if sys.argv[2] != "off" else False
told = threading.Event()
def answer(request):
    number = int(request.units[0]["text"].split()[1])
    if number < 21:
        return findings(request, lambda unit: {"n": number})
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)
    told.wait(60)
server = ScriptedServer(answer)
lm = server.__enter__().lm()
try:
    df.amr.map("Which?", finding={"n": int}, plan={"shard_size": 1}, max_parallelism=1, lm=lm, journal=journal)
except KeyboardInterrupt as error:
    print(type(error) is KeyboardInterrupt, int(error.partial.frame["n"].notna().sum()), flush=True)
    raise
finally:
    told.set()
"""


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("journaled", [True, False])
def test_ctrl_c_says_how_many_rows_are_kept_and_how_to_go_on(times, journaled, tmp_path):
    where = str(tmp_path / "journal.sqlite") if journaled else "off"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(times), where], capture_output=True, text=True, timeout=120, check=False
    )
    kept = "kept in the journal; run it again to go on." if journaled else "found, and no journal keeps them; "
    assert f"KeyboardInterrupt: 21 of 60 rows {kept}" in done.stderr
    assert done.stdout.split() == ["True", "21"]
    assert PACKAGE not in done.stderr
    assert len(done.stderr.splitlines()) <= LINES


CELLS = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance(colors="NoColor")
shell.run_cell('''
import pandas as pd, pandas_amr as amr
from pandas_amr.testing import ScriptedServer, Status
df = pd.DataFrame({"text": ["a", "b"]})
server = ScriptedServer(lambda request: Status(401, "no")); lm = server.__enter__().lm()
def reducer(frame):
    return 1 / 0
''')
for cell in (
    "df.amr.map('x', lm=lm)",
    "await df.amr.map('x', lm=lm)",
    "df.amr.map_reduce(map=lambda shard: [{'n': 1}] * len(shard), reduce=reducer)",
    "run = await df.amr.start(map=lambda shard: [{'n': 1}] * len(shard), reduce=reducer)",
):
    print("### cell")
    shell.run_cell(cell)
"""


@pytest.mark.long
def test_ipython_shows_as_few_lines():
    pytest.importorskip("IPython")
    done = subprocess.run([sys.executable, "-c", CELLS], capture_output=True, text=True, timeout=120, check=False)
    _, key, awaited, reducer, awaited_reducer = done.stdout.split("### cell\n")
    for text, most in ((key, 8), (awaited, 8), (reducer, 18), (awaited_reducer, 18)):
        assert PACKAGE not in text
        assert len(text.splitlines()) <= most, text
    assert "answered 401: no. Check the key" in key
    assert "UsageError: map() waits for its result and cannot be awaited; nothing was sent." in awaited
    assert "return 1 / 0" in reducer
    assert "return 1 / 0" in awaited_reducer


PYTEST = """
import pandas as pd, pandas_amr as amr
def test_it():
    pd.DataFrame({"text": ["a"]}).amr.map("x", lm="m", colums=3)
"""


@pytest.mark.long
def test_pytest_shows_no_frame_of_ours(tmp_path):
    (tmp_path / "test_it.py").write_text(textwrap.dedent(PYTEST))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
        capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert "map() takes no 'colums'" in done.stdout
    assert PACKAGE not in done.stdout
