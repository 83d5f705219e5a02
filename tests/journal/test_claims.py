"""Claims: what one process is asking, another waits for; and nobody waits for the dead, or for who waits."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

import pandas_amr as amr
from moments import until
from numbered import number
from pandas_amr._journal.processes import DEAD_S, STOPPED_S, describe_process, is_alive
from pandas_amr._records.processes import this_process
from pandas_amr.testing import ScriptedServer, Status, findings
from versions import once

OTHER = b"another process."
OPTIONS = {"map": "The number.", "finding": {"n": int}, "reduce": {"n": "sum"}, "plan": {"shard_size": 5}}


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "journal.sqlite"


def rows(first: int = 0, last: int = 10) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"row {n}" for n in range(first, last)]})


def scripted(request):
    if request.schema == "plan":
        return {
            "map_instruction": "The number.",
            "finding": [{"name": "n", "type": "int", "description": "", "choices": []}],
            "shard_size": 5,
            "parallelism": 2,
            "aggregations": [],
            "reduce_instruction": "Say it.",
        }
    if request.schema == "reduction":
        return {"output": f"{len(request.findings)} findings", "sources": [0]}
    return findings(request, number)


def times_asked(server) -> dict[str, int]:
    """How often each unit was asked of the server."""
    return pd.Series([unit["text"] for one in server.requests for unit in one.units]).value_counts().to_dict()


def kinds(server) -> dict[str, int]:
    return pd.Series([one.schema for one in server.requests]).value_counts().to_dict()


def in_file(path, query: str, *values) -> list[tuple]:
    other = sqlite3.connect(path, timeout=60)
    with other:
        found = other.execute(query, values).fetchall()
    other.close()
    return found


def count(path, table: str) -> int:
    try:
        return in_file(path, f"SELECT count(*) FROM {table}")[0][0]
    except sqlite3.OperationalError:  # not begun yet
        return 0


DRIVER = """
import sys, warnings
import pandas as pd
import pandas_amr as amr

url, path, order, what = sys.argv[1:]
warnings.simplefilter("ignore")
frame = pd.DataFrame({"text": [f"row {n}" for n in range(20)][:: int(order)]})
options = {"map": "The number.", "finding": {"n": int}, "reduce": {"n": "sum"}, "plan": {"shard_size": 5}}
if what == "task":
    options = {"task": "How much?"}
lm = amr.LM("scripted", base_url=url, api_key="k", max_tries=1)
result = frame.amr.map_reduce(lm=lm, journal=path, max_parallelism=2, **options)
print(len(result.failures), result.output if what == "task" else int(result.output["n"]), flush=True)
"""


def drive(server, path, order: int = 1, what: str = "rows") -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if name != "AMR_JOURNAL"}
    start = [sys.executable, "-c", DRIVER, server.base_url, str(path), str(order), what]
    return subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def said(process) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.strip()


def once_both_run(path, script=scripted):
    """Answer as the script does, once the journal has two runs under way."""

    both = threading.Event()

    async def answer(request):
        if not both.is_set():
            await asyncio.to_thread(until, lambda: count(path, "running") >= 2)
            both.set()
        return script(request)

    return answer


# Processes


@pytest.mark.long
@once
@pytest.mark.parametrize(
    "orders",
    [(1, 1), pytest.param((1, -1), marks=pytest.mark.long)],
    ids=["the same order", "the other way round"],
)
def test_two_processes_begun_together_pay_once(orders, path):
    with ScriptedServer(once_both_run(path)) as server:
        processes = [drive(server, path, order) for order in orders]
        assert [said(process) for process in processes] == [f"0 {sum(range(20))}"] * 2
        assert times_asked(server) == {f"row {n}": 1 for n in range(20)}
    runs = amr.Journal(path).runs()
    assert runs["recalled"].sum() == 20
    assert [count(path, table) for table in ("claims", "running", "processes")] == [0, 0, 0]


@once
@pytest.mark.long
def test_they_pay_once_for_a_plan_and_a_reduction_too(path):
    with ScriptedServer(once_both_run(path)) as server:
        processes = [drive(server, path, what="task") for _ in range(2)]
        assert [said(process) for process in processes] == ["0 20 findings"] * 2
        assert kinds(server) == {"findings": 4, "plan": 1, "reduction": 1}


@once
@pytest.mark.long
def test_where_the_process_that_asks_is_killed_the_one_that_waits_asks_itself(path):
    begun, killed = threading.Event(), threading.Event()

    async def answer(request):
        if not killed.is_set():
            begun.set()
            await asyncio.to_thread(killed.wait, 60)
        return scripted(request)

    with ScriptedServer(answer) as server:
        first = drive(server, path)
        assert begun.wait(60)
        second = drive(server, path)
        until(lambda: count(path, "running") == 2)
        first.kill()
        first.communicate()
        killed.set()
        assert said(second) == f"0 {sum(range(20))}"
        assert set(times_asked(server).values()) <= {1, 2, 3}
    assert count(path, "claims") == 0


@once
@pytest.mark.long
def test_where_the_unit_fails_the_one_that_waits_asks_itself(path):
    refused = []

    def script(request):
        if any(unit["text"] == "row 7" for unit in request.units) and len(refused) < 3:
            refused.append(len(request.units))  # the shard, its halves, and the row alone
            return Status(400, "no")
        return scripted(request)

    with ScriptedServer(once_both_run(path, script)) as server:
        processes = [drive(server, path) for _ in range(2)]
        outputs = sorted(said(process) for process in processes)
    assert refused == [5, 3, 1]
    assert outputs == sorted([f"1 {sum(range(20)) - 7}", f"0 {sum(range(20))}"])


# A process that is played: what it has claimed stands in the file


def known(path) -> dict[str, bytes]:
    """The keys of the rows, as a run in another journal makes them."""
    elsewhere = path.with_name("elsewhere.sqlite")
    with ScriptedServer(scripted) as server:
        rows().amr.map_reduce(lm=server.lm(), journal=elsewhere, **OPTIONS)
    return {value: key for key, value in in_file(elsewhere, "SELECT key, value FROM entries")}


def claim(path, keys, *, born: str = "", beat: float | None = None) -> None:
    """Claim keys as another process does; one of another machine unless it was ``born`` here."""
    amr.Journal(path)
    in_file(path, "INSERT INTO processes VALUES (?, ?, ?)", OTHER, born, time.time() if beat is None else beat)
    in_file(path, "INSERT INTO claims VALUES (?, 1, ?)", OTHER, b"".join(keys))


def watches(path) -> bool:
    """Whether a run of this process waits for another process."""
    return bool(amr.Journal(path)._store.claimed._others)


class Beating:
    """Has the played process live on."""

    def __init__(self, path):
        self._path, self._ended = path, threading.Event()
        self._thread = threading.Thread(target=self._beat)

    def _beat(self):
        while not self._ended.wait(0.5):
            in_file(self._path, "UPDATE processes SET beat = ? WHERE process = ?", time.time(), OTHER)

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()


@pytest.mark.parametrize("end", ["an answer", "no answer", "no beat"])
def test_what_is_free_is_asked_at_once_and_the_rest_once_it_is_free(path, end):
    keys = known(path)
    mine = keys['{"n":3}']
    claim(path, [mine])
    with ScriptedServer(scripted) as server:
        with Beating(path):
            run = rows().amr.start(lm=server.lm(), journal=path, **OPTIONS)
            until(lambda: watches(path) and len(amr.Journal(path)) == 9)
            assert times_asked(server) == {f"row {n}": 1 for n in range(10) if n != 3}
        if end == "an answer":
            other = sqlite3.connect(path)
            other.execute("ATTACH ? AS other", (str(path.with_name("elsewhere.sqlite")),))
            other.execute("INSERT INTO main.entries SELECT * FROM other.entries WHERE key = ?", (mine,))
            other.execute("DELETE FROM claims WHERE process = ?", (OTHER,))
            other.commit()
            other.close()
        elif end == "no answer":
            in_file(path, "DELETE FROM claims WHERE process = ?", OTHER)
        else:
            in_file(path, "UPDATE processes SET beat = 0")
        assert run.result().output["n"] == 45
        assert times_asked(server).get("row 3", 0) == (0 if end == "an answer" else 1)
    assert not watches(path)
    assert in_file(path, "SELECT * FROM claims WHERE process != ?", OTHER) == []


def test_who_asks_everything_again_waits_for_nobody_s_answers(path):
    claim(path, known(path).values())
    with ScriptedServer(scripted) as server, Beating(path):
        result = rows().amr.map_reduce(lm=server.lm(), journal=amr.Journal(path, refresh=True), **OPTIONS)
        assert result.output["n"] == 45
        assert set(times_asked(server).values()) == {1}


@pytest.mark.parametrize("born", ["", "dead"], ids=["long silent", "gone"])
def test_a_process_alone_does_not_wait_for_what_a_dead_one_has_left(path, born):
    process = subprocess.Popen(["sleep", "600"])
    name = f"{this_process().space} {process.pid} 1" if born else ""
    process.kill()
    process.wait()
    claim(path, known(path).values(), born=name, beat=time.time() if name else 0)
    waited = []

    def watching(request):
        waited.append(watches(path))
        return scripted(request)

    with ScriptedServer(watching) as server:
        assert rows().amr.map_reduce(lm=server.lm(), journal=path, **OPTIONS).output["n"] == 45
    assert waited == [False] * len(waited)
    assert amr.Journal(path)._store.claimed._watch is None
    assert count(path, "processes") == 0


def test_a_run_that_waits_can_be_stopped_and_a_stopped_one_has_no_claims(path):
    claim(path, [known(path)['{"n":3}']])
    with ScriptedServer(scripted) as server, Beating(path):
        run = rows().amr.start(lm=server.lm(), journal=path, **OPTIONS)
        until(lambda: watches(path) and len(amr.Journal(path)) == 9)
        run.cancel()
        until(lambda: amr.Journal(path).runs()["status"].notna().all())
    assert amr.Journal(path).runs()["status"].tolist() == ["cancelled"]
    assert [one for (one,) in in_file(path, "SELECT process FROM claims")] == [OTHER]


def test_a_budget_of_seconds_bounds_the_wait_too(path):
    claim(path, [known(path)['{"n":3}']])
    with ScriptedServer(scripted) as server, Beating(path):
        result = rows().amr.map_reduce(lm=server.lm(), journal=path, budget=amr.Budget(seconds=3), **OPTIONS)
    assert "seconds" in result.stopped
    assert result.frame["n"].isna().sum() == 5  # the shard that waits
    assert len(amr.Journal(path)) == 9


# Who lives


@pytest.mark.parametrize(
    ("born", "silent_s", "lives"),
    [
        ("own", 0, True),
        ("own", DEAD_S + 1, True),  # the kernel has it: it waits for a lock
        ("own", STOPPED_S + 1, False),
        ("reused", 0, False),
        ("elsewhere", 0, True),
        ("elsewhere", DEAD_S + 1, False),
        ("elsewhere", -DEAD_S - 1, False),  # its clock was set back
        ("", 0, True),
        ("", DEAD_S + 1, False),
    ],
)
def test_a_process_lives_while_the_kernel_has_it_and_it_is_not_silent_for_long(born, silent_s, lives):
    own = describe_process()
    if not own:
        pytest.skip("this system does not name its processes")
    place, _, start = own.rpartition(" ")
    names = {
        "own": own,
        "reused": f"{place} 1",
        "elsewhere": f"{this_process().space.partition('/')[0]}/another {os.getpid()} {start}",
    }
    assert is_alive(names.get(born, ""), time.time() - silent_s) is lives
