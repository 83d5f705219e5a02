"""Forgetting, with ``trace="full"``: of what agents read and said of a row no byte is left either."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from test_forget import SECRET, WAYS, asking, choosing, hers, people, raw, run, stands

import pandas_amr as amr
from pandas_amr.testing import ScriptedServer, findings


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "folder" / "journal.sqlite"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.sampled(4)
def test_after_a_run_of_any_kind_no_byte_of_a_forgotten_row_is_left(path, way):
    frame = people().assign(long=lambda f: f["text"].str.repeat(40))
    run(frame, path, choosing, **WAYS[way], trace="full")
    journal = amr.Journal(path)
    before = journal.count_transcripts()
    assert f"{SECRET} says 1".encode() in Path(f"{path}-transcripts").read_bytes()
    forgotten = journal.forget(hers(frame))
    assert stands(path, SECRET) == []
    assert 0 < forgotten.transcripts == before - journal.count_transcripts()
    assert journal.verify() == []
    if way in {"shards of one", "a static tree"}:
        assert journal.count_transcripts() > 0
        assert b"name 7 says 7" in Path(f"{path}-transcripts").read_bytes()


@pytest.mark.usefixtures("sandboxed")
def test_what_code_has_asked_of_a_row_is_forgotten(path):
    frame = people(6)
    options = {"tools": [amr.PythonREPLTool()], "plan": {"view": "preview", "shard_size": 3}}
    run(frame, path, asking, **options, trace="full")
    amr.Journal(path).forget(hers(frame))
    assert stands(path, SECRET) == []


def test_of_rows_that_failed_the_transcript_is_forgotten_after_all_answers_were_pruned(path):
    frame = people(4)
    run(frame, path, lambda request: findings(request, lambda unit: {}), reduce=len, columns=["text"], trace="full")
    journal = amr.Journal(path)
    assert stands(path, SECRET)
    assert journal.forget(hers(frame)).transcripts == 1
    assert stands(path, SECRET) == []


def test_what_a_function_made_of_all_rows_is_forgotten_with_any_of_them(path):
    frame = people()
    stages = amr.Recipe().then(lambda rows: rows.assign(text=rows["text"].str.upper())[["text"]])
    stages = stages.map("What?", finding={"said": str})
    with ScriptedServer(lambda request: findings(request, lambda unit: {"said": unit["text"]})) as server:
        stages(frame, lm=server.lm(), journal=path, trace="full")
    journal = amr.Journal(path)
    assert journal.forget(hers(frame)).transcripts == 1
    assert stands(path, SECRET, "SAYS") == []


def test_of_parts_of_a_large_input_rows_are_forgotten_too(path, tmp_path):
    frame = people()
    frame.to_parquet(tmp_path / "in.parquet")
    with ScriptedServer(lambda request: findings(request, lambda unit: {"said": str(unit)})) as server:
        options = {"finding": {"said": str}, "lm": server.lm(), "journal": path, "trace": "full", "progress": False}
        amr.map(tmp_path / "in.parquet", "What?", out=tmp_path / "out", **options)
    forgotten = amr.Journal(path).forget(hers(frame))
    assert (forgotten.findings, forgotten.transcripts) == (1, 1)
    assert stands(path, SECRET) == []


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ({"run": 1}, 2),
        ({"run": [1, 2]}, 0),
        ({"kind": "reduction"}, 2),
        ({"kind": "finding"}, 0),  # and what was made from the findings
        ({"before": "2000-01-01"}, 4),
        ({"after": "2000-01-01"}, 0),
        ({"text": "name 3 says 3", "run": 2}, 2),  # its shard, and what was made from it
        ({"text": "nobody says this"}, 4),
        ({"model": "scripted", "run": 2}, 2),
    ],
    ids=str,
)
@pytest.mark.sampled(4)
def test_labels_name_transcripts_too(path, where, left):
    for number in range(2):
        frame = people(4).assign(text=lambda f, n=number: f["text"] + f" for {n}")
        run(frame, path, choosing, trace="full")
    journal = amr.Journal(path)
    assert journal.count_transcripts() == 4  # two of each run: its shard, and its answer
    forgotten = journal.forget(where=where)
    assert journal.count_transcripts() == left == 4 - forgotten.transcripts


def test_pruned_answers_take_their_transcripts_along(path):
    for number in range(3):
        run(people(2).assign(text=f"for {number}"), path, choosing, reduce=len, trace="full")
    journal = amr.Journal(path)
    journal.prune(keep=2)  # keeps all answers: the last runs ask the same
    content = Path(f"{path}-transcripts").read_bytes()
    assert [f"for {number}".encode() in content for number in range(3)] == [False, True, True]
    journal.prune(older_than=0)
    assert journal.count_transcripts() == 0
    assert stands(path, "for 0", "for 1", "for 2") == []


def test_a_run_under_way_writes_no_transcript_of_a_row_that_was_forgotten_meanwhile(path):
    frame = people(4)
    asked, forgotten = threading.Event(), threading.Event()

    def answer(request):
        if "says 3" in str(request.body):
            asked.set()
            assert forgotten.wait(60)
        return findings(request, lambda unit: {"said": str(unit)})

    with ScriptedServer(answer) as server:
        options = {"map": "What?", "finding": {"said": str}, "reduce": len, "lm": server.lm(), "journal": path}
        going = frame.amr.start(**options, trace="full", plan={"shard_size": 2}, max_parallelism=1)
        assert asked.wait(60)
        assert amr.Journal(path).forget(frame.iloc[[3]]).transcripts == 0
        forgotten.set()
        with pytest.warns(amr.JournalWarning, match="Rows were forgotten while this run was under way"):
            result = going.result()
    assert stands(path, "name 3", "name 2 says") == ["name 2 says"]  # in the finding of its neighbour
    assert b"name 2 says" not in Path(f"{path}-transcripts").read_bytes()
    assert "Asked about 2 rows: 2, 3" in str(result.look(3))
    assert amr.Journal(path).count_transcripts() == 1


PROCESS = """
import sys
import pandas as pd, pandas_amr as amr
url, path, name = sys.argv[1:]
frame = pd.DataFrame({"text": [f"{name} says {n}" for n in range(40)]})
lm = amr.LM("m", base_url=url, api_key="k")
print("begun", flush=True)
options = {"map": "What?", "finding": {"said": str}, "reduce": len, "lm": lm, "journal": path, "progress": False}
frame.amr.map_reduce(**options, trace="full", plan={"shard_size": 2})
"""


def wait_for_bytes(path: Path, content: bytes) -> None:
    """Wait until a file holds something: what nodes that have ended said is written soon after."""
    for _ in range(1200):
        if path.exists() and content in path.read_bytes():
            return
        time.sleep(0.05)
    pytest.fail("it was not written")


@pytest.mark.long
def test_processes_write_one_file_and_one_that_is_killed_leaves_it_readable(path):
    seen = threading.Event()

    def answer(request):
        if "slow says 20" in str(request.body):
            wait_for_bytes(Path(f"{path}-transcripts"), b"slow says")
            seen.set()
            time.sleep(0.5)
        return findings(request, lambda unit: {"said": unit["text"]})

    with ScriptedServer(answer) as server:
        names = ["quick", "slow"]
        running = [
            subprocess.Popen([sys.executable, "-c", PROCESS, server.base_url, str(path), name], env=os.environ)
            for name in names
        ]
        assert seen.wait(120)
        running[1].send_signal(signal.SIGKILL)
        codes = [one.wait(120) for one in running]
    assert codes == [0, -signal.SIGKILL]
    journal = amr.Journal(path)
    assert journal.verify() == []
    database = sqlite3.connect(f"{path}-transcripts")
    contents = [content for (content,) in database.execute("SELECT content FROM nodes")]
    database.close()
    assert sum("quick says" in content for content in contents) == 20
    assert any("slow says" in content for content in contents)
    journal.forget(pd.DataFrame({"text": [f"quick says {n}" for n in range(40)]}))
    assert b"quick says" not in raw(path)
    assert b"slow says" in raw(path)
