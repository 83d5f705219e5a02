"""Progress: one bar per run, from its plan to its end, and what people are told by it."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import subprocess
import sys
import threading
from typing import Any

import pandas as pd
import pytest

import pandas_amr as amr
from moments import move_on, never, turn_engine, until
from pandas_amr._context.steps import Steps
from pandas_amr.testing import ScriptedServer, Status, findings
from planner_answers import answer, computed, field

ROWS = 12
ONE_BY_ONE = {"shard_size": 1, "fan_in": 3}
MAPPED = {"map": "Which number?", "finding": {"n": int}, "journal": False}
PLANNED = answer(
    "Which number?",
    field("n", "int", description="the number"),
    shard_size=1,
    aggregations=[computed("n", "sum")],
)
GREEN, YELLOW, RED = "\x1b[32m", "\x1b[33m", "\x1b[31m"


def numbered(rows: int = ROWS) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"row {number}" for number in range(rows)]})


def number_of(unit: dict[str, Any]) -> int:
    return int(unit["text"].split()[1])


def answer(request: Any) -> Any:
    if request.schema == "plan":
        return PLANNED
    if request.schema == "reduction":
        return {"output": "All of them.", "sources": []}
    return findings(request, lambda unit: {"n": number_of(unit)})


def refuse(number: int, status: int) -> Any:
    """Answer all but the requests about one row."""

    def script(request: Any) -> Any:
        units = request.units if request.schema in {"finding", "findings"} else []
        return Status(status, "no") if number in map(number_of, units) else answer(request)

    return script


class Terminal(io.StringIO):
    """A stream that is a terminal, for all that anybody can tell."""

    def isatty(self) -> bool:
        return True

    @property
    def drawn(self) -> list[str]:
        """What was drawn, one line after the other."""
        return [line for line in re.split(r"[\r\n]+", self.getvalue()) if "%|" in line]

    @property
    def titles(self) -> list[str]:
        """The titles, each as often as it changed."""
        titles: list[str] = []
        for line in self.drawn:
            title = re.sub(r"\d+", "#", re.match(r"(.*?) +\d+%", line)[1])
            if not titles or titles[-1] != title:
                titles.append(title)
        return titles

    @property
    def percents(self) -> list[int]:
        return [int(re.search(r"(\d+)%\|", line)[1]) for line in self.drawn]

    @property
    def screen(self) -> list[str]:
        """The lines as they stand at the end."""
        lines: dict[int, str] = {}
        row = column = 0
        for token in re.findall(r"\x1b\[[\d;]*[A-Za-z]|[^\x1b]", self.getvalue()):
            line = lines.get(row, "")
            if token == "\n":
                row, column = row + 1, 0
            elif token == "\r":
                column = 0
            elif token == "\x1b[A":
                row -= 1
            elif token == "\x1b[K":
                lines[row] = line[:column]
            elif not token.startswith("\x1b"):
                lines[row] = line[:column].ljust(column) + token + line[column + 1 :]
                column += 1
        return [lines[row].rstrip() for row in sorted(lines) if lines[row].strip()]


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Let ``sys.stderr`` be a terminal for the rest of a test; pytest would replace one of a fixture."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


def run_mapped(server: ScriptedServer, **options: Any) -> Any:
    given = MAPPED | {"reduce": {"n": "sum"}, "plan": ONE_BY_ONE, "lm": server.lm()} | options
    return numbered().amr.map_reduce(**given)


# In a terminal

KINDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "aggregations": ({}, ["map #/# rows", "done"]),
    "a tree of known size": (
        {"reduce": "Say all."},
        ["map #/# rows", "reduce level # of #", "done"],
    ),
    "a tree that one agent reads": (
        {"reduce": "Say all.", "plan": {"shard_size": 1}},
        ["map #/# rows", "reduce", "done"],
    ),
    "two maps": (
        {"map": {"a": "Which?", "b": "Again?"}, "finding": {"a": {"n": int}, "b": {"n": int}}, "reduce": "Say all."},
        ["map #/# rows of # maps", "reduce level # of #", "done"],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_has_one_bar_that_never_falls_and_ends_full_with_the_run(kind, monkeypatch):
    terminal = open_terminal(monkeypatch)
    options, titles = KINDS[kind]
    with ScriptedServer(cited) as server:
        run_mapped(server, **options)
    steps = [title for title in terminal.titles if title in titles]
    assert steps == titles
    assert terminal.percents == sorted(terminal.percents)
    assert terminal.percents[-1] == 100
    assert max(terminal.percents[:-1]) < 100
    assert terminal.getvalue().count("\n") == 1
    assert GREEN in terminal.drawn[-1]


WRITTEN: dict[str, tuple[dict[str, Any], str]] = {
    "levels": ({"plan": ONE_BY_ONE}, "reduce level 3 of 3"),
    "groups": ({"by": "text"}, "reduce 0/12 groups"),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_the_bar_tells_the_levels_of_a_tree_or_the_groups(kind, monkeypatch):
    options, title = WRITTEN[kind]
    terminal = open_terminal(monkeypatch)

    async def once_shown(request: Any) -> Any:
        """Answer the last reductions once the title is drawn."""
        is_last = request.schema == "reduction" and (kind == "groups" or len(server.requests) > ROWS + 6)
        while is_last and title not in terminal.getvalue():
            await asyncio.sleep(0.005)
        return cited(request)

    with ScriptedServer(once_shown) as server:
        run_mapped(server, reduce="Say all.", **options)
    assert terminal.titles[-1] == "done"


def cited(request: Any) -> Any:
    """Answer a reduction with all findings as its sources."""
    if request.schema == "reduction":
        return {"output": "All.", "sources": [one["finding"] for one in request.findings]}
    return answer(request)


def test_a_planner_is_a_part_of_the_same_bar(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with ScriptedServer(answer) as server:
        numbered().amr.map_reduce("What is the sum?", lm=server.lm(), journal=False)
    assert [title for title in terminal.titles if "reduce" not in title] == ["plan", "map #/# rows", "done"]
    assert terminal.percents == sorted(terminal.percents)
    assert terminal.getvalue().count("\n") == 1


ENDS: dict[str, tuple[Any, dict[str, Any], str, str, str]] = {
    # the script, options, colour, title, what the line tells
    "all rows": (answer, {}, GREEN, "done", "12 of 12 rows"),
    "a row failed": (refuse(7, 400), {}, YELLOW, "done, with failures", "11 of 12 rows, 1 failed"),
    "the budget": (answer, {"budget": amr.Budget(calls=5), "max_parallelism": 1}, YELLOW, "stopped", "5 of 12 rows"),
    "no row": (lambda request: Status(400, "no"), {}, RED, "no row succeeded", "12 failed"),
    "the reduce": (
        lambda request: {"output": 1} if request.schema == "reduction" else answer(request),
        {"reduce": "Say all.", "output": str},
        YELLOW,
        "done, but the reduce failed",
        "12 of 12 rows",
    ),
}


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
@pytest.mark.parametrize("end", ENDS)
def test_a_bar_ends_in_the_colour_of_its_run_and_says_how(end, monkeypatch):
    terminal = open_terminal(monkeypatch)
    script, options, colour, title, facts = ENDS[end]
    with ScriptedServer(script) as server:
        run_mapped(server, **options)
    last = terminal.drawn[-1]
    assert colour in last
    assert re.match(rf"{re.escape(title)} +\d+%\|", last)
    assert facts in last
    assert (terminal.percents[-1] == 100) == (end not in {"the budget", "no row"})
    assert terminal.getvalue().endswith("\n")


def test_a_run_that_raises_ends_red_before_the_error_is_shown(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with ScriptedServer(refuse(7, 400)) as server, pytest.raises(amr.MapFailed):
        run_mapped(server, errors="raise")
    assert terminal.titles[-1] == "failed"
    assert RED in terminal.drawn[-1]
    assert terminal.percents[-1] < 100
    assert terminal.getvalue().endswith("\n")


async def hold_last(request: Any) -> Any:
    """Answer all rows but the last one."""
    if ROWS - 1 in map(number_of, request.units):
        await never(request)
    return answer(request)


def begin_held(server: ScriptedServer) -> Any:
    run = numbered().amr.start(**MAPPED, reduce={"n": "sum"}, plan=ONE_BY_ONE, lm=server.lm())
    until(lambda: run.progress.found == ROWS - 1)
    assert repr(run) == f"<Run map_reduce of {ROWS} rows, map {ROWS - 1}/{ROWS} rows>"
    return run


def test_a_cancelled_run_closes_its_bar_and_says_what_it_has(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with ScriptedServer(hold_last) as server:
        run = begin_held(server)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            run.result()
    assert terminal.titles[-1] == "cancelled"
    assert YELLOW in terminal.drawn[-1]
    assert f"{ROWS - 1} of {ROWS} rows" in terminal.drawn[-1]
    assert terminal.getvalue().endswith("\n")


INTERRUPTED = """
import os, signal, sys, threading
import pandas as pd, pandas_amr as amr
from pandas_amr.testing import ScriptedServer
sys.path.insert(0, "tests")
from moments import never, until

class Terminal:
    encoding = "utf-8"
    def __init__(self): self.text = ""
    def write(self, text): self.text += text
    def flush(self): pass
    def isatty(self): return True

sys.stderr = terminal = Terminal()
df = pd.DataFrame({"text": ["a", "b"]})
with ScriptedServer(never) as server:
    def interrupt():
        until(lambda: server.requests)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    try:
        df.amr.map("Which?", finding={"n": int}, lm=server.lm(), journal=False)
    except KeyboardInterrupt:
        print(terminal.text.rstrip().splitlines()[-1].rpartition("\\r")[2].split("%")[0], terminal.text[-1] == "\\n")
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.long
def test_an_interrupt_closes_the_bar_before_it_is_raised():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=100)
    assert done.stdout.split() == ["cancelled", "0", "True"], done.stderr


def test_the_bar_goes_on_if_the_loop_over_the_findings_is_left(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with ScriptedServer(answer) as server:
        run = numbered().amr.start(**MAPPED, reduce={"n": "sum"}, plan=ONE_BY_ONE, lm=server.lm())
        for _finding in run:
            break
        run.result()
    assert terminal.titles[-1] == "done"
    assert terminal.getvalue().count("\n") == 1


def test_runs_at_once_have_a_line_each_whichever_ends_first(monkeypatch):
    terminal = open_terminal(monkeypatch)
    waiting: list[Any] = []

    async def together(request: Any) -> Any:
        """Answer nobody before both runs are under way; each server has a loop of its own."""
        waiting.append(request)
        while len(waiting) < 2:
            await asyncio.sleep(0.005)
        return answer(request)

    with ScriptedServer(together) as server, ScriptedServer(together) as other:
        runs = [
            numbered(rows).amr.start(**MAPPED, plan=ONE_BY_ONE, reduce={"n": "sum"}, lm=one.lm())
            for rows, one in ((3, server), (ROWS, other))
        ]
        for run in runs:
            run.result()
    lines = sorted(terminal.screen, key=lambda line: "12 of" in line)
    assert [line.split("%")[0].split() for line in lines] == [["done", "100"]] * 2
    assert ["3 of 3 rows" in lines[0], "12 of 12 rows" in lines[1]] == [True, True]


def test_runs_within_a_run_have_no_bar_of_their_own(monkeypatch):
    terminal = open_terminal(monkeypatch)

    def inner(shard: pd.DataFrame) -> list[dict[str, int]]:
        found = shard.amr.map("Which?", finding={"n": int}, lm=lms[0], journal=False)
        return [{"m": number} for number in found["n"]]

    recipe = amr.Recipe().map_reduce(map="Which?", finding={"n": int}, reduce={"n": "sum"})
    with ScriptedServer(answer) as server:
        lms = [server.lm()]
        numbered(4).amr.map(inner, plan={"shard_size": 1}, journal=False)
        numbered(4).amr.map(recipe, finding={"n": int}, lm=server.lm(), journal=False)
    assert terminal.titles == ["map #/# rows", "done"] * 2
    assert terminal.getvalue().count("\n") == 2


def test_the_stages_of_a_recipe_share_a_bar(monkeypatch):
    terminal = open_terminal(monkeypatch)
    recipe = amr.Recipe().filter("Even?").map("Which?", finding={"n": int}).reduce({"n": "sum"})
    with ScriptedServer(decide) as server:
        recipe(numbered(), lm=server.lm(), journal=False)
    assert [title for title in terminal.titles if "map" in title or title == "done"] == [
        "stage # of #, filter: map #/# rows",
        "stage # of #, map: map #/# rows",
        "done",
    ]
    assert terminal.percents == sorted(terminal.percents)
    assert terminal.percents[-1] == 100
    assert terminal.getvalue().count("\n") == 1


def decide(request: Any) -> Any:
    """Keep the even ones."""
    if "Even?" not in request.system + request.user:
        return answer(request)
    return findings(request, lambda unit: {"amr_keep": number_of(unit) % 2 == 0})


def test_rows_from_the_journal_count_as_done_and_are_told(monkeypatch, tmp_path):
    terminal = open_terminal(monkeypatch)
    journal = tmp_path / "kept.sqlite"
    with ScriptedServer(answer) as server:
        run_mapped(server, journal=journal, budget=amr.Budget(calls=5), max_parallelism=1)
        result = run_mapped(server, journal=journal)
    assert "12 of 12 rows, 5 from journal" in terminal.drawn[-1]
    assert repr(result).startswith("<Result 12 of 12 rows, 7 calls, 5 from journal, ")


def test_a_retry_begins_where_the_first_run_ended(monkeypatch):
    terminal = open_terminal(monkeypatch)
    refused = refuse(7, 400)
    with ScriptedServer(
        lambda request: refused(request) if len(server.requests) <= ROWS else answer(request)
    ) as server:
        first = run_mapped(server)
        terminal.truncate(0)
        first.retry()
    assert re.match(r"map 11/12 rows +9\d%\|", terminal.drawn[0])
    assert terminal.titles[-1] == "done"


def test_money_tokens_and_requests_in_flight_are_told(monkeypatch):
    terminal = open_terminal(monkeypatch)
    lm = {"prices": (1000, 2000), "max_parallelism": 3}
    with ScriptedServer(hold_last) as server:
        run = numbered().amr.start(**MAPPED, plan=ONE_BY_ONE, reduce={"n": "sum"}, lm=server.lm(**lm))
        until(lambda: f"map {ROWS - 1}/{ROWS} rows" in terminal.getvalue())
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            run.result()
    line = next(line for line in terminal.drawn if f"map {ROWS - 1}/{ROWS} rows" in line)
    assert re.search(r", \$\d+\.\d\d, [\d,]+ tokens, 1 of 3 in flight", line)


class Stuck(Terminal):
    """A terminal that somebody has stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()

    def write(self, text: str) -> int:
        self.goes_on.wait()
        return super().write(text)


def test_a_terminal_that_takes_nothing_holds_up_no_run(monkeypatch):
    terminal = Stuck()
    monkeypatch.setattr(sys, "stderr", terminal)
    try:
        with ScriptedServer(answer) as server:
            run = numbered().amr.start(**MAPPED, plan=ONE_BY_ONE, reduce={"n": "sum"}, lm=server.lm())
            until(lambda: run.progress.found == ROWS)
            until(lambda: move_on(1) or run.done())
            assert run.result().output["n"] == sum(range(ROWS))
    finally:
        terminal.goes_on.set()


class Broken(Terminal):
    """A terminal that has gone."""

    def write(self, text: str) -> int:
        raise OSError("gone")


def test_a_terminal_that_is_gone_takes_no_other_bar_with_it(monkeypatch):
    with ScriptedServer(answer) as server:
        monkeypatch.setattr(sys, "stderr", Broken())
        run_mapped(server)
        terminal = open_terminal(monkeypatch)
        run_mapped(server)
    assert terminal.titles[-1] == "done"
    assert terminal.getvalue().count("\n") == 1


# Where nobody watches


def told(caplog: Any) -> list[str]:
    texts = [record.getMessage() for record in caplog.records if record.name == "pandas_amr"]
    return [re.sub(r"\d+:\d\d", "TIME", text) for text in texts]


def test_without_a_terminal_the_log_tells_begin_and_end(caplog, capsys):
    with caplog.at_level(logging.INFO, "pandas_amr"), ScriptedServer(answer) as server:
        run_mapped(server, lm=server.lm(prices=(0, 0)))
    lines = told(caplog)
    assert lines[0] == "map_reduce of 12 rows: map 0/12 rows, 0%, TIME"
    assert re.fullmatch(r"map_reduce of 12 rows: done, 100%, TIME, 12 of 12 rows, [\d,]+ tokens", lines[1])
    assert len(lines) == 2
    assert {record.levelname for record in caplog.records if record.name == "pandas_amr"} == {"INFO"}
    assert capsys.readouterr().err == ""


def test_the_log_is_told_each_half_minute_and_not_more_often(caplog):
    with caplog.at_level(logging.INFO, "pandas_amr"), ScriptedServer(hold_last) as server:
        run = begin_held(server)
        until(lambda: told(caplog))
        for lines in (2, 3):
            move_on(15)
            turn_engine()
            assert len(told(caplog)) == lines - 1
            move_on(15)
            until(lambda lines=lines: len(told(caplog)) == lines)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            run.result()
    assert [line.split(", ")[0].partition(": ")[2] for line in told(caplog)] == [
        "map 0/12 rows",
        "map 11/12 rows",
        "map 11/12 rows",
        "cancelled",
    ]


SHOWN: dict[str, tuple[bool | None, int, bool]] = {
    # the setting, lines on stderr, whether the log has any
    "none watches": (None, 0, True),
    "forced": (True, 2, False),
    "off": (False, 0, False),
}


@pytest.mark.parametrize("case", SHOWN)
def test_progress_true_writes_lines_where_none_watches_and_false_nothing_anywhere(case, caplog, capsys):
    setting, lines, is_logged = SHOWN[case]
    with caplog.at_level(logging.INFO, "pandas_amr"), ScriptedServer(answer) as server:
        run_mapped(server, progress=setting)
    written = capsys.readouterr().err
    assert len(written.splitlines()) == lines
    assert "\r" not in written
    assert bool(told(caplog)) == is_logged


def test_progress_false_draws_nothing_in_a_terminal(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with ScriptedServer(answer) as server:
        run_mapped(server, progress=False)
    assert terminal.getvalue() == ""


def test_a_wait_is_told_when_it_begins(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    refusals = iter([Status(429, "slow down", headers={"retry-after": "20"})])

    async def script(request: Any) -> Any:
        return next(refusals, None) or answer(request)

    with ScriptedServer(script) as server:
        run = numbered(2).amr.start(**MAPPED, plan=ONE_BY_ONE, lm=server.lm(), reduce={"n": "sum"}, progress=True)
        until(lambda: "waiting until" in stream.getvalue())
        assert "waiting until" in repr(run)
        move_on(20)
        run.result()
    assert len(re.findall("waiting until", stream.getvalue())) == 1


@pytest.mark.parametrize("frame", [numbered(0), numbered(3)], ids=["no rows", "pandas alone"])
def test_what_takes_no_time_has_no_bar(frame, monkeypatch):
    terminal = open_terminal(monkeypatch)
    frame["n"] = 1
    frame.amr.reduce({"n": "sum"}, journal=False)
    if frame.empty:
        with ScriptedServer(answer) as server:
            frame.amr.map("Which?", finding={"m": int}, lm=server.lm(), journal=False)
    assert terminal.getvalue() == ""


# In a notebook

CELL = """
import sys, warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "The answer rests on")  # which is so
if WITHOUT_WIDGETS:
    sys.modules["ipywidgets"] = None
shell = get_ipython()
shell.__class__ = type("Shell", (type(shell),), {})  # as Colab's is
import pandas as pd, pandas_amr as amr
from pandas_amr.testing import ScriptedServer, Status, findings
def answer(request):
    units = [unit["text"] for unit in request.units]
    return Status(400, "no") if "bad" in units else findings(request, lambda unit: {"n": 1})
given = {"map": "Which?", "finding": {"n": int}, "reduce": {"n": "sum"}, "journal": False}
assert not {"tqdm", "ipywidgets.widgets"} & set(sys.modules)
with ScriptedServer(answer) as server:
    runs = []
    for texts in (["a", "b"], ["a", "bad", "c"]):
        df = pd.DataFrame({"text": texts})
        runs.append(df.amr.start(**given, plan={"shard_size": 1}, lm=server.lm()))
    for run in runs:
        run.result()
"""


@pytest.mark.long
@pytest.mark.parametrize("has_widgets", [False, True])
def test_runs_in_a_notebook_have_an_output_each_and_no_warning(has_widgets):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    if has_widgets:
        pytest.importorskip("ipywidgets")
    cell = nbformat.v4.new_code_cell(f"WITHOUT_WIDGETS = {not has_widgets}" + CELL)
    notebook = nbformat.v4.new_notebook(cells=[cell])
    nbclient.NotebookClient(notebook, timeout=100, kernel_name="python3").execute()
    assert [output["output_type"] for output in cell["outputs"]] == ["display_data"] * 2
    texts = [output["data"]["text/plain"] for output in cell["outputs"]]
    texts.sort(key=len)  # whichever began first
    assert [text.split("|")[0].strip() for text in texts] == ["done", "done, with failures"]
    assert ["2 of 2 rows" in texts[0], "2 of 3 rows, 1 failed" in texts[1]] == [True, True]
    is_widget = ["application/vnd.jupyter.widget-view+json" in output["data"] for output in cell["outputs"]]
    assert is_widget == [has_widgets] * 2
    assert (YELLOW in texts[1]) != has_widgets


# The parts


def test_a_share_that_grows_more_slowly_than_thought_waits_and_never_falls():
    steps, shares = Steps(), []
    steps.begin_plan()
    shares.append(steps.share)
    for done in range(0, 11, 5):
        steps.set_rows(10, done, maps=1)
        steps.begin_map(10, is_written=True)
        shares.append(steps.share)
    steps.begin_reduce()
    for level, nodes in enumerate((4, 40, 2, 1), start=1):
        steps.reduce.expect_level(level, nodes, final=nodes == 1)
        for _ in range(nodes):
            with steps.reduce.node(level):
                shares.append(steps.share)
    assert shares == sorted(shares)
    assert shares[-1] < 1
    assert steps.title == "reduce level 4 of 4"


REPRS: dict[str, tuple[dict[str, Any], str]] = {
    "money": ({"lm": {"prices": (1000, 1000)}}, r"<Result 12 of 12 rows, 12 calls, \$\d+\.\d\d>"),
    "no prices": ({}, r"<Result 12 of 12 rows, 12 calls, \d+ tokens>"),
    "failed": ({"script": refuse(7, 400)}, r"<Result 11 of 12 rows, 11 calls, \d+ tokens, 1 failed>"),
    "stopped": (
        {"budget": amr.Budget(calls=5), "max_parallelism": 1},
        r"<Result 5 of 12 rows, 5 calls, \d+ tokens, 7 skipped, stopped: The budget of 5 calls is used up>",
    ),
}


@pytest.mark.parametrize("case", REPRS)
def test_a_result_tells_how_much_of_the_frame_it_has_and_what_it_took(case):
    options, line = REPRS[case]
    given = {"script": answer, "lm": {}} | options
    with ScriptedServer(given.pop("script")) as server:
        result = run_mapped(server, progress=False, **given | {"lm": server.lm(**given["lm"])})
    assert re.fullmatch(line, repr(result))
    assert re.search(line[1:-1], result._repr_html_())


def test_a_result_without_a_model_tells_its_rows_only():
    recipe = amr.Recipe().map(lambda shard: [{"n": 1} for _ in shard["text"]]).reduce({"n": "sum"})
    assert repr(recipe(numbered(3))) == "<Result 3 rows, 0 calls>"
