"""Forgetting: what was found of rows is gone from every byte beside the journal, and nothing else is."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import former
import pandas_amr as amr
from pandas_amr._journal import database
from pandas_amr._units.units import make_units
from pandas_amr.testing import Call, ScriptedServer, findings
from versions import once

SECRET = "Jane Doe"


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "folder" / "journal.sqlite"


def people(count: int = 8) -> pd.DataFrame:
    """Rows of which the second one is a person's who is to be forgotten."""
    names = [f"name {n}" for n in range(count)]
    names[1] = SECRET
    return pd.DataFrame({"name": names, "text": [f"{name} says {n}" for n, name in enumerate(names)]})


def hers(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["name"] == SECRET]


def quote(unit) -> dict[str, str]:
    """A finding that holds all that a unit says."""
    return {"said": " ".join(str(value) for key, value in unit.items() if key != "unit")}


def provider(request):
    """Answer with all that is read, so that whatever is kept of an answer holds it."""
    if request.schema == "plan":
        return {
            "map_instruction": f"What is said? {SECRET if SECRET in str(request.body) else ''}",
            "finding": [{"name": "said", "type": "str", "description": "", "choices": []}],
            "shard_size": 3,
            "parallelism": 2,
            "aggregations": [],
            "reduce_instruction": "Say it.",
        }
    if request.schema == "reduction":
        last = len(request.findings) - 1
        return {"output": f"Nobody but {SECRET}" if SECRET in str(request.body) else "Nobody", "sources": [last]}
    return findings(request, quote)


def run(frame, journal, answer=provider, **options):
    """One run against a server of its own; the result, and how many requests it took."""
    options = {"map": "What is said?", "finding": {"said": str}, "reduce": "Say it."} | options
    options = {name: value for name, value in options.items() if value is not ...}
    with ScriptedServer(answer) as server:
        result = frame.amr.map_reduce(lm=server.lm(), journal=journal, **options)
        return result, len(server.requests)


def raw(path: Path) -> bytes:
    """All bytes of all files beside the journal."""
    return b"".join(part.read_bytes() for part in sorted(path.parent.iterdir()))


def stands(path: Path, *words: str) -> list[str]:
    """The words that stand somewhere in the files."""
    content = raw(path).lower()
    return [word for word in words if word.lower().encode() in content]


def tables(path: Path) -> dict[str, list[tuple]]:
    """All rows of all tables."""
    other = sqlite3.connect(path)
    names = [name for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    rows = {name: other.execute(f"SELECT * FROM {name}").fetchall() for name in names}
    other.close()
    return rows


# Everything that is written

WAYS = {
    "rows": {},
    "shards of one": {"plan": {"shard_size": 1}},
    "one column": {"columns": ["text"]},
    "named maps": {"map": {"a": "Who?", "b": "What?"}, "finding": {"a": {"said": str}, "b": {"said": str}}},
    "groups": {"by": "name"},
    "neighbours": {"plan": {"segmentation": "neighbours", "context_rows": 1, "shard_size": 2}},
    "a static tree": {"plan": {"shard_size": 2, "fan_in": 2}},
    "an adaptive tree": {"plan": {"shard_size": 2, "reduce_budget": 150}},
    "a planned run": {"task": "What is said?", "map": ..., "finding": ..., "reduce": ...},
    "pieces": {"plan": {"shard_tokens": 64}, "columns": ["long"]},
    "an instruction of its own": {"map": amr.Agent(lambda row: f"What of {len(row['name'])}?")},
    "a recipe as map": {"map": amr.Recipe().map("What?", finding={"said": str}).reduce("Say it.", output=str)},
    "a recipe as reduce": {"reduce": amr.Recipe().reduce("Say it.", output=str)},
    "a number": {"reduce": "How many?", "output": int},
    "columns as units": {"axis": "columns"},
}


def choosing(request):
    """The same, and a number is counted, of the rows of a name."""
    if request.schema == "reduction" and "comparison" in str(request.body):
        condition = [{"field": "name", "comparison": "=", "value": SECRET}]
        return {"output": {"field": None, "function": "count", "condition": condition}, "sources": []}
    return provider(request)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.sampled(4)
def test_after_a_run_of_any_kind_no_byte_of_a_forgotten_row_is_left(path, way):
    frame = people().assign(long=lambda f: f["text"].str.repeat(40), name=lambda f: f["name"].astype("category"))
    run(frame, path, choosing, **WAYS[way])
    journal = amr.Journal(path)
    before = len(journal)
    assert stands(path, SECRET)
    forgotten = journal.forget(hers(frame))
    assert stands(path, SECRET) == []
    assert forgotten.rows == 1
    assert forgotten.answers == before - len(journal) > 0
    assert journal.verify() == []
    if way not in {"pieces", "columns as units"}:
        assert stands(path, "name 7 says 7")


def asking(request):
    """Agents that have code ask the model about each row, or about each finding."""
    if "python_repl" not in request.tools:
        return provider(request)
    if "submit_reduction" in request.tools:
        return Call("python_repl", {"code": "submit(' '.join(ask(findings['said'], 'Who?', {'said': str})['said']))"})
    return Call("python_repl", {"code": "submit(ask(df['text'], 'Who?', {'said': str}))"})


@pytest.mark.usefixtures("sandboxed")
def test_what_code_has_asked_of_a_row_or_of_its_findings_is_forgotten(path):
    frame = people(6)
    options = {"tools": [amr.PythonREPLTool()], "plan": {"view": "preview", "shard_size": 3}}
    run(frame, path, asking, **options)
    journal = amr.Journal(path)
    assert stands(path, SECRET)
    assert {"finding", "reduction"} == set(journal.export()["kind"])
    journal.forget(hers(frame))
    assert stands(path, SECRET) == []
    assert stands(path, "name 5 says 5")  # the second shard is not hers


def test_of_redacted_rows_what_was_found_is_forgotten_of_each_that_reads_the_same(path):
    frame = people(4).assign(text="says so")
    with amr.settings(redact=lambda text: "nobody" if text.startswith(("name", SECRET)) else text):
        run(frame.iloc[2:], path, reduce=len)
        _, requests = run(frame, path, reduce=len)
    assert requests == 0  # all four are one unit, which is known
    journal = amr.Journal(path)
    assert journal.forget(hers(frame)).findings == 1
    assert len(journal) == 0


# Nothing else


def kinds(journal: amr.Journal) -> dict[str, int]:
    return journal.export()["kind"].value_counts().to_dict()


def test_only_what_was_made_from_the_row_is_forgotten_and_all_else_is_still_known(path):
    frame = people()
    run(frame, path, plan={"shard_size": 2, "fan_in": 2})
    journal = amr.Journal(path)
    assert kinds(journal) == {"finding": 8, "reduction": 3}  # of each half, and of both
    forgotten = journal.forget(hers(frame))
    assert (forgotten.findings, forgotten.reductions, forgotten.plans) == (1, 2, 0)
    assert kinds(journal) == {"finding": 7, "reduction": 1}
    _, requests = run(frame.drop(index=1), path, reduce=lambda found: len(found))
    assert requests == 0
    _, requests = run(frame, path, plan={"shard_size": 2, "fan_in": 2})
    assert requests == 3  # her row, and what is made from it
    assert stands(path, SECRET)


def test_of_equal_rows_one_is_named_and_of_rows_with_other_columns_too_each_is_found(path):
    frame = pd.concat([people(4)] * 3, ignore_index=True).assign(day=pd.Timestamp("2026-01-02"), n=range(12))
    run(frame, path, columns=["name", "text"])
    run(frame, path, columns=["text"])
    run(frame, path, columns=["n", "day", "text"])
    journal = amr.Journal(path)
    one = hers(frame).iloc[[0]].set_axis(["label"]).rename_axis("key")[["n", "text", "day", "name"]]
    forgotten = journal.forget(one)
    assert (forgotten.findings, forgotten.reductions, forgotten.rows) == (3, 3, 1)
    assert kinds(journal) == {"finding": 3 + 3 + 11}
    assert stands(path, SECRET)  # in two rows with a number of their own
    assert journal.forget(hers(frame)).findings == 2
    assert stands(path, SECRET) == []


@pytest.mark.parametrize("keep_inputs", [False, True])
def test_no_fingerprint_of_a_forgotten_row_is_left_either(path, keep_inputs):
    frame = people()
    journal = amr.Journal(path, keep_inputs=keep_inputs)
    run(frame, journal, **WAYS["neighbours"])
    run(frame, journal, **WAYS["a recipe as map"])
    prints = make_units(frame, (0, 1), dedupe=False).fingerprints([1])
    assert any(one in raw(path) for one in prints)
    journal.forget(hers(frame))
    assert not any(one in raw(path) for one in prints)
    assert stands(path, SECRET) == []
    rest = tables(path)
    known = {key for key, *_ in rest["entries"]} | {key for _, key in rest["origins"]}
    assert {key for _, key in rest["origins"]} <= known
    assert rest["forgotten"] == rest["running"] == rest["processes"] == []


def test_what_was_overwritten_or_pruned_before_is_gone_as_well(path):
    frame = people()
    run(frame, path, lambda request: findings(request, lambda unit: {"said": f"once {SECRET}"}), reduce=len)
    run(frame, amr.Journal(path, refresh=True), reduce=len)
    journal = amr.Journal(path)
    journal.forget(hers(frame))
    assert stands(path, SECRET, "once") == []


STAGES = amr.Recipe().map("What?", finding={"said": str}).filter("Is it?").map("Again?", finding={"again": str})


def test_what_later_stages_of_a_recipe_found_of_the_row_is_forgotten_and_of_no_other_row(path):
    def answer(request):
        schema = str(request.body["response_format"])
        if "'amr_keep'" in schema:
            return findings(request, lambda unit: {"amr_keep": True})
        name = "again" if "'again'" in schema else "said"
        return findings(request, lambda unit: {name: quote(unit)["said"]})

    frame = people()
    with ScriptedServer(answer) as server:
        STAGES(frame, lm=server.lm(), journal=path)
        journal = amr.Journal(path)
        assert kinds(journal) == {"finding": 3 * 8}
        assert journal.forget(hers(frame)).findings == 3
        assert stands(path, SECRET) == []
        before = len(server.requests)
        STAGES(frame.drop(index=1), lm=server.lm(), journal=path)
        assert len(server.requests) == before


def test_what_was_found_of_rows_that_a_function_made_from_all_is_forgotten_with_any_of_them(path):
    def answer(request):
        return findings(request, quote)

    frame = people()
    stages = amr.Recipe().then(lambda rows: rows.assign(text=rows["text"].str.upper())[["text"]])
    stages = stages.map("What?", finding={"said": str})
    with ScriptedServer(answer) as server:
        stages(frame, lm=server.lm(), journal=path)
    journal = amr.Journal(path)
    assert journal.forget(people(3).iloc[[2]]).findings == 8
    assert stands(path, SECRET, "says") == []


def test_a_plan_that_saw_the_row_goes_with_what_was_asked_by_it_and_a_plan_that_did_not_stays(path):
    names = [f"name {n}" for n in range(400)]
    names[0] = SECRET
    frame = pd.DataFrame({"name": names, "text": [f"{name} says so" for name in names]})
    planned = WAYS["a planned run"] | {"plan": {"shard_size": 400}}
    run(frame, path, **planned)
    journal = amr.Journal(path)
    assert journal.export()["about"].str.contains(SECRET).any()
    assert journal.forget(frame.iloc[[300]]).plans == 0
    forgotten = journal.forget(frame.iloc[[0]])
    assert (forgotten.plans, forgotten.findings) == (1, 1)
    assert stands(path, SECRET) == []
    assert kinds(journal) == {"finding": 398}


def test_a_finding_of_a_plan_s_question_is_still_read_once_the_plan_has_gone(path):
    frame = people()
    result, _ = run(frame, path, **WAYS["a planned run"])
    amr.Journal(path).forget(hers(frame))
    _, requests = run(frame.drop(index=1), path, plan=result.plan, map=..., finding=..., reduce=...)
    assert requests == 1  # the reduce
    assert "{}" in set(amr.Journal(path).export()["about"])


# Labels


def labelled(path) -> amr.Journal:
    """A journal of runs of two models and of a plan."""
    frame = people(4)
    for model in ("one", "two"):
        with ScriptedServer(provider) as server:
            frame.amr.map_reduce(
                map="What is said?", finding={"said": str}, reduce="Say it.", lm=server.lm(model), journal=path
            )
    run(frame, path, task=f"What of {SECRET}?", map=..., finding=..., reduce=..., plan={"shard_size": 4})
    return amr.Journal(path)


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ({"kind": "plan"}, {"finding": 12, "reduction": 3}),
        ({"kind": ["plan", "reduction"]}, {"finding": 12}),
        ({"kind": "finding"}, {"plan": 1}),  # and what was made from the findings
        ({"run": 3}, {"finding": 8}),  # the same rows were reduced in the other runs
        ({"run": np.array([1, 2, 3])}, {}),
        ({"before": "2000-01-01"}, {"finding": 12, "reduction": 3, "plan": 1}),
        ({"after": pd.Timestamp("2000-01-01", tz="Europe/Berlin")}, {}),
        ({"after": dt.date(2000, 1, 1), "kind": "plan", "run": 1}, {"finding": 12, "reduction": 3, "plan": 1}),
        ({"text": "jane doe", "run": [1, 2]}, {"finding": 10, "plan": 1}),
        ({"text": "nobody says this"}, {"finding": 12, "reduction": 3, "plan": 1}),
        ({"model": "two", "kind": "reduction"}, {"finding": 12, "reduction": 2, "plan": 1}),
    ],
    ids=str,
)
@pytest.mark.sampled(4)
def test_labels_name_answers_and_what_was_made_from_them_goes_too(path, where, left):
    journal = labelled(path)
    before = len(journal)
    forgotten = journal.forget(where=where)
    assert kinds(journal) == left
    assert forgotten.answers == before - len(journal)
    assert forgotten.rows is None
    assert journal.verify() == []


def test_a_text_is_gone_from_answers_questions_and_tasks(path):
    journal = labelled(path)
    assert journal.forget(where={"text": SECRET.upper()}).tasks == 1
    assert stands(path, SECRET) == []
    assert journal.runs()["task"].isna().all()


def test_a_text_is_found_whatever_escapes_json_writes_it_with(path):
    frame = pd.DataFrame({"name": ['J\u00fcrgen "J" M\u00fcller', "other"]})
    run(frame, path, reduce=len)
    assert amr.Journal(path).forget(where={"text": 'j\u00fcrgen "j"'}).findings == 1


def test_keys_of_an_export_are_forgotten(path):
    run(people(), path, reduce=len)
    journal = amr.Journal(path)
    exported = journal.export()
    assert journal.forget(where={"key": exported["key"][exported["value"].str.contains("name [23]")]}).answers == 2
    assert len(journal) == 6


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "takes a frame of rows, or where="),
        ((people(), {"run": 1}), "takes a frame of rows, or where="),
        (({"run": 1}, None), r"A dict holds columns.*Labels go to where="),
        ((7, None), "must hold rows"),
        ((pd.DataFrame(index=[1]), None), "with columns, and this one has none"),
        ((people()[["name"]].rename(columns=str.upper), None), "has none of these sets: 'name', 'text'"),
        ((None, {}), r"takes a dict with one or more of kind, model"),
        ((None, "run"), r"takes a dict with one or more of kind, model"),
        ((None, {"modle": "x"}), r"Unknown name 'modle' .* Did you mean 'model'\?"),
        ((None, {"older_than": 3}), r"Did you mean 'before'\?"),
        ((None, {"weather": 1}), r"It takes kind, model"),
        ((None, {"kind": "row"}), "takes 'finding', 'reduction', 'plan' or 'correction', or several, not 'row'"),
        ((None, {"run": "1"}), "takes the number of a run"),
        ((None, {"run": True}), "takes the number of a run"),
        ((None, {"run": -1}), "takes the number of a run"),
        ((None, {"before": 30}), "takes a date or a time, not 30"),
        ((None, {"before": "soon"}), "takes a date or a time"),
        ((None, {"before": pd.NaT}), "takes a date or a time"),
        ((None, {"text": ""}), "takes a text"),
        ((None, {"text": [SECRET, 7]}), "takes a text, or several"),
        ((None, {"key": "no hex"}), "takes a key"),
        ((None, {"model": amr.LM("m", base_url="http://127.0.0.1:9/v1")}), "takes the name of a model"),
        ((None, {"kind": []}), "takes 'finding', 'reduction', 'plan' or 'correction'"),
    ],
    ids=str,
)
@pytest.mark.sampled(5)
def test_a_wrong_argument_is_refused_and_nothing_is_forgotten(path, given, said):
    run(people(), path)
    journal = amr.Journal(path)
    before = len(journal)
    with pytest.raises(amr.UsageError, match=said) as refused:
        journal.forget(*given[:1], where=given[1]) if given else journal.forget()
    assert SECRET not in str(refused.value) or given[1] is not None
    assert len(journal) == before
    assert stands(path, SECRET)


def test_rows_are_taken_in_any_form_that_the_verbs_take(path):
    for form in (hers, lambda frame: pa.Table.from_pandas(hers(frame)), lambda frame: hers(frame).to_dict("list")):
        run(people(), path, reduce=len)
        assert amr.Journal(path).forget(form(people())).findings == 1


# What else holds rows


def test_rows_that_the_journal_does_not_know_are_none_and_an_empty_journal_has_none(path):
    assert amr.Journal(path).forget(people()) == amr.Forgotten(rows=0)
    run(people(), path)
    assert amr.Journal(path).forget(people().assign(text="else")) == amr.Forgotten(rows=0)
    assert amr.Journal(path).forget(people().iloc[:0]) == amr.Forgotten(rows=0)


def test_what_a_frame_lacks_of_the_columns_that_were_read_is_told(path):
    run(people(), path)
    run(people(), path, columns=["text"])
    journal = amr.Journal(path)
    with pytest.warns(amr.JournalWarning, match=r"a part of the columns only, such as 'name', 'text'"):
        forgotten = journal.forget(hers(people())[["text"]])
    assert (forgotten.findings, forgotten.uncompared) == (1, (("name", "text"),))


def test_damaged_files_that_were_set_aside_are_removed(path):
    run(people(), path)
    aside = path.with_name(f"{path.name}.damaged-20260101-000000-1")
    aside.write_bytes(SECRET.encode())
    Path(f"{aside}-wal").write_bytes(SECRET.encode())
    other = path.with_name("other.sqlite.damaged-1")
    other.write_bytes(b"another journal's")
    forgotten = amr.Journal(path).forget(hers(people()))
    assert forgotten.files == (aside.name, f"{aside.name}-wal")
    assert stands(path, SECRET) == []
    assert other.exists()


def test_this_process_remembers_no_result_from_before(path):
    with ScriptedServer(provider) as server:
        frame = people().amr.map("What is said?", finding={"said": str}, lm=server.lm(), journal=path)
        assert len(amr.result_of(frame).findings) == 8
        amr.Journal(path).forget(people(2))
        with pytest.raises(amr.UsageError, match="found nothing"):
            amr.result_of(frame)


# Runs under way


def test_a_run_under_way_writes_nothing_of_a_forgotten_row_and_says_so(path):
    frame, forgotten = people(), []

    def answer(request):
        if SECRET in str(request.units) and not forgotten:
            forgotten.append(amr.Journal(path).forget(hers(frame)))
        return provider(request)

    with pytest.warns(amr.JournalWarning, match="forgotten while this run was under way: 1 of its answers"):
        result, _ = run(frame, path, answer, reduce=len, plan={"shard_size": 2}, max_parallelism=1)
    assert result.frame["said"].notna().all()
    assert len(amr.Journal(path)) == 7
    assert stands(path, SECRET) == []
    prints = make_units(frame, (0, 1), dedupe=False).fingerprints([1])
    amr.Journal(path).forget(where={"kind": "plan"})  # which empties the log of writes
    assert prints[0] not in raw(path)
    run(frame, path, reduce=len)
    assert stands(path, SECRET)  # a later run was given the row again


@pytest.mark.parametrize("way", ["neighbours", "a planned run", "a recipe as map", "a static tree", "pieces"])
@pytest.mark.sampled(3)
def test_nor_does_it_write_what_is_made_from_it(path, way):
    frame, forgotten = people().assign(long=lambda f: f["text"].str.repeat(40)), []

    def answer(request):
        if SECRET in str(request.units) and not forgotten:
            forgotten.append(amr.Journal(path).forget(hers(frame)))
        return provider(request)

    with pytest.warns(amr.JournalWarning, match="forgotten while this run was under way"):
        run(frame, path, answer, **WAYS[way])
    assert forgotten
    amr.Journal(path).forget(where={"text": "nobody says this"})
    assert stands(path, SECRET) == []
    assert stands(path, "name 7 says 7")


DRIVER = """
import sys, warnings
import pandas as pd
import pandas_amr as amr

url, path = sys.argv[1:]
frame = pd.DataFrame({"name": ["Jane Doe", "other"], "text": ["says", "nothing"]})
warnings.simplefilter("ignore")
result = frame.amr.map_reduce(
    map="What?", finding={"said": str}, reduce=len, plan={"shard_size": 1}, lm=amr.LM("scripted", base_url=url, api_key="k"),
    journal=path, max_parallelism=1,
)
print(len(result.failures), [str(warning) for warning in result.warnings])
"""


@pytest.mark.long
@once
@pytest.mark.parametrize("is_killed", [False, True], ids=["lives", "killed"])
def test_the_run_of_another_process_is_heeded_while_it_lives(path, is_killed):
    frame = pd.DataFrame({"name": [SECRET, "other"], "text": ["says", "nothing"]})
    asked, go_on = threading.Event(), threading.Event()

    async def answer(request):
        asked.set()
        await asyncio.to_thread(go_on.wait, 60)
        return findings(request, quote)

    with ScriptedServer(answer) as server:
        start = [sys.executable, "-c", DRIVER, server.base_url, str(path)]
        environment = {name: value for name, value in os.environ.items() if name != "AMR_JOURNAL"}
        process = subprocess.Popen(start, stdout=subprocess.PIPE, text=True, env=environment)
        assert asked.wait(60)
        if is_killed:
            process.kill()
            process.wait()
        amr.Journal(path).forget(hers(frame))
        held = tables(path)["forgotten"]
        go_on.set()
        out, _ = process.communicate(timeout=120)
    if is_killed:
        assert held == []
        return
    assert held
    assert out.startswith("0 ")
    assert "1 of its answers are made from them" in out
    assert len(amr.Journal(path)) == 1
    amr.Journal(path).forget(where={"kind": "plan"})
    assert stands(path, SECRET) == []
    assert tables(path)["forgotten"] == []


# Files of before


def make_former(path: Path) -> None:
    """Make a journal one of the first version, as that was left by the code before the second."""
    for connection in (*database._abandoned, *(store.connection for store in database._stores.values())):
        connection.thread.submit(connection.close).result()
    database._stores.clear()
    other = sqlite3.connect(path)
    names = {name for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for name in names - {"bases", "runs", "uses", "entries", "sqlite_sequence"}:
        other.execute(f"DROP TABLE {name}")
    other.execute("PRAGMA user_version=1")
    other.commit()
    other.close()


def test_answers_of_the_first_version_are_read_and_forgetting_tells_of_those_it_cannot_trace(path):
    frame = people()
    run(frame, path)
    make_former(path)
    _, requests = run(frame, path)
    assert requests == 0
    more = pd.concat([frame, people(9).iloc[[8]]], ignore_index=True)
    run(more, path)
    journal = amr.Journal(path)
    with pytest.warns(amr.JournalWarning, match="has 7 answers of an earlier version"):
        forgotten = journal.forget(hers(frame))
    # The same question has been asked since: so its findings are known by their keys, and its reduction was read.
    assert (forgotten.findings, forgotten.reductions, forgotten.untraced) == (1, 2, 7)
    assert stands(path, SECRET) == []
    assert journal.forget(where={"run": 1}).findings == 7


def test_an_answer_of_the_first_version_that_nothing_traces_is_left_with_a_word(path):
    run(people(), path)
    make_former(path)
    journal = amr.Journal(path)
    with pytest.warns(amr.JournalWarning, match=r"has 9 answers of an earlier version.*forget\(where="):
        assert journal.forget(hers(people())).answers == 0
    assert stands(path, SECRET)
    assert journal.forget(where={"text": SECRET}).answers == 2
    assert stands(path, SECRET) == []


def test_a_journal_of_the_first_format_is_read_as_before(path):
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.executescript(former.DUMP.read_text("utf-8"))
    entries = other.execute("SELECT count(*) FROM entries").fetchone()[0]
    other.close()
    assert len(amr.Journal(path)) == entries
    assert tables(path)["traced"][0][0] > 1
