"""The journal: nothing that was paid for is lost, nothing is paid for twice, nothing wrong is ever read back."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import os
import random
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from decimal import Decimal
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel

import pandas_amr as amr
from moments import turn_engine, until
from numbered import number
from pandas_amr._journal import database
from pandas_amr._journal.cache import AnswerCache
from pandas_amr._journal.keys import fingerprint
from pandas_amr._units.units import make_units
from pandas_amr.testing import Call, ScriptedServer, Status, findings
from versions import once


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "folder" / "journal.sqlite"


def scripted(request):
    if request.schema == "reduction":
        return {"output": f"{len(request.findings)} findings", "sources": [0]}
    return findings(request, number)


def rows(first: int, last: int) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"row {n}" for n in range(first, last)]})


def asked(server) -> int:
    """How many units were asked of the server."""
    of_maps = [
        request
        for request in server.requests
        if request.schema in {"finding", "findings"}
        or request.tools == ["python_repl"]  # previews hand in by code alone
    ]
    return sum(len(request.units) for request in of_maps)


def run(frame, path, provider=scripted, **options):
    """One run against a server of its own; the result, and how many units and requests it took."""
    options = {"map": "The number.", "finding": {"n": int}, "reduce": {"n": "sum"}} | options
    with ScriptedServer(provider) as server:
        result = frame.amr.map_reduce(lm=server.lm(), journal=path, **options)
        return result, asked(server), len(server.requests)


def forget_what_is_open() -> None:
    """Close all files of this process, as its end does."""
    stores = list(database._stores.values())
    for connection in (*database._abandoned, *(store.connection for store in stores)):
        connection.thread.submit(connection.close).result()
    database._stores.clear()


# The same call again


def test_the_same_call_again_asks_nothing_and_gives_the_same(path):
    first, units, _ = run(rows(0, 50), path, reduce="Say it.")
    again, no_units, no_requests = run(rows(0, 50), path, reduce="Say it.")
    assert (units, no_units, no_requests) == (50, 0, 0)
    pd.testing.assert_frame_equal(first.frame, again.frame)
    assert again.output == first.output
    assert set(again.status["status"]) == {"ok"}
    assert again.status["from_journal"].all()
    assert not first.status["from_journal"].any()
    assert again.usage["recalled"].to_dict() == {"map": 50, "reduce": int(again.usage["recalled"]["reduce"])}
    assert again.total.calls == again.total.tokens == 0


def test_a_plan_is_paid_for_once_and_a_few_rows_more_keep_it(path):
    def provider(request):
        if request.schema == "plan":
            return {
                "map_instruction": "The number.",
                "finding": [{"name": "n", "type": "int", "description": "", "choices": []}],
                "shard_size": 10,
                "parallelism": 2,
                "aggregations": [{"field": "n", "function": "sum"}],
                "reduce_instruction": "",
            }
        return scripted(request)

    options = {"map": None, "finding": None, "reduce": None, "task": "How much?"}
    _, _, requests = run(rows(0, 30), path, provider, **options)
    more, units, few = run(rows(0, 40), path, provider, **options)
    assert (requests, units, few) == (1 + 3, 10, 1)
    assert more.output["n"] == sum(range(40))
    assert more.usage["recalled"]["plan"] == 1


def test_ten_new_rows_pay_for_ten_wherever_they_stand(path):
    run(rows(10, 60), path)
    result, units, _ = run(rows(0, 60).sample(frac=1, random_state=1), path)
    assert units == 10
    assert result.frame["n"].tolist() == [int(text.split()[1]) for text in result.frame["text"]]


@pytest.mark.parametrize(
    "change",
    [
        {"map": "Another instruction."},
        {"finding": {"n": (int, "described")}},
        {"plan": {"merge": {"n": "sum"}}},
        {"tools": [amr.Tool(lambda x: x, name="t", description="d")]},
        {"tools": [amr.Tool(lambda x: x, name="t", description="d", version="2")]},
    ],
    ids=["instruction", "schema", "merge", "tools", "version of a tool"],
)
def test_what_changes_the_question_pays_anew(path, change):
    run(rows(0, 5), path)
    if "tools" in change and change["tools"][0].version:
        run(rows(0, 5), path, tools=[amr.Tool(lambda x: x, name="t", description="d")])
    _, units, _ = run(rows(0, 5), path, **change)
    assert units == 5


def test_another_model_or_sampling_pays_anew(path):
    with ScriptedServer(scripted) as server:
        for lm in (server.lm(), server.lm("other"), server.lm(temperature=0.5), server.lm(extra_body={"top_p": 1})):
            rows(0, 3).amr.map("The number.", finding={"n": int}, lm=lm, journal=path)
        assert asked(server) == 12


def test_failures_are_not_kept_and_repaired_answers_are(path):
    def provider(request):
        if any(unit["text"] == "row 3" for unit in request.units) and not request.repairs:
            return Status(400, "no")
        answer = findings(request, number)
        if not request.repairs:
            answer["findings"] = [one for one in answer["findings"] if one["n"] != 7]
        return answer

    first, _, _ = run(rows(0, 10), path, provider)
    assert first.failures["position"].tolist() == [3]
    assert first.status["status"][7] == "repaired"
    again, units, _ = run(rows(0, 10), path)
    assert units == 1
    assert again.status["status"].tolist() == ["ok"] * 7 + ["repaired"] + ["ok"] * 2
    assert again.status["from_journal"].tolist() == [True] * 3 + [False] + [True] * 6


def test_an_exception_in_a_reducer_costs_nothing_twice(path):
    def broken(frame):
        raise ZeroDivisionError

    with pytest.raises(amr.RunStopped, match="ZeroDivisionError"):
        run(rows(0, 20), path, reduce=broken)
    _, units, _ = run(rows(0, 20), path, reduce=lambda frame: int(frame["n"].sum()))
    assert units == 0


def test_refresh_asks_again_and_overwrites(path):
    run(rows(0, 5), path)
    _, units, _ = run(rows(0, 5), amr.Journal(path, refresh=True), lambda r: findings(r, lambda u: {"n": -1}))
    assert units == 5
    kept, none, _ = run(rows(0, 5), path)
    assert none == 0
    assert kept.frame["n"].tolist() == [-1] * 5


def test_values_of_every_type_come_back_as_they_were(path):
    class Inner(BaseModel):
        when: dt.date
        much: Decimal

    class Everything(BaseModel):
        whole: int
        real: float
        text: str
        yes: bool
        day: dt.date
        moment: dt.datetime
        clock: dt.time
        long: dt.timedelta
        exact: Decimal
        kind: Literal["a", "b"]
        many: list[dt.date]
        inner: Inner
        items: list[Inner]
        named: dict[str, float]
        free: dict
        perhaps: dt.date | None

    inner = {"when": "2026-01-02", "much": "1.5"}
    record = {
        "whole": 1, "real": 0.1, "text": "t\u2028", "yes": True, "day": "2026-01-02", "moment": "2026-01-02T03:04:05.000006",
        "clock": "03:04:05", "long": "PT90S", "exact": "12345.678900001", "kind": "a", "many": ["2026-01-02"],
        "inner": inner, "items": [inner, inner], "named": {"x": 1.5}, "free": {"y": [1]}, "perhaps": None,
    }  # fmt: skip
    options = {"finding": Everything, "reduce": lambda frame: len(frame)}
    frame = pd.DataFrame({"row": [1, 2]})
    first, _, _ = run(frame, path, lambda r: findings(r, lambda u: record), **options)
    again, units, _ = run(frame, path, lambda r: findings(r, lambda u: record), **options)
    assert units == 0
    assert first.frame.dtypes.equals(again.frame.dtypes)
    for name in Everything.model_fields:
        assert name == "perhaps" or first.frame[name].tolist()[0] == again.frame[name].tolist()[0]


def test_none_or_many_and_pieces_of_long_units_and_named_maps_are_kept(path):
    class Called(BaseModel):
        name: str

    many = {"finding": list[Called], "reduce": lambda frame: len(frame)}
    provider = lambda r: findings(r, lambda u: {"items": [{"name": "f"}] * 2})  # noqa: E731
    first, _, _ = run(rows(0, 4), path, provider, **many)
    again, units, _ = run(rows(0, 4), path, provider, **many)
    assert (units, first.output, again.output) == (0, 8, 8)

    long = pd.DataFrame({"text": ["A sentence about row 1. " * 400]})
    tight = {"plan": {"shard_tokens": 300}, "finding": {"n": int}}
    failing = []

    def dies_late(request):
        if len(failing) == 5:
            return Status(401, "no more")
        failing.append(1)
        return findings(request, lambda u: {"n": 1})

    with pytest.raises(amr.ModelConfigError):
        run(long, path, dies_late, **tight)
    _, _, requests = run(long, path, lambda r: findings(r, lambda u: {"n": 1}), **tight)
    _, _, none = run(long, path, **tight)
    assert requests >= 1
    assert none == 0
    with ScriptedServer(lambda r: findings(r, lambda u: {"n": 1})) as server:
        long.amr.map("The number.", lm=server.lm(), journal=False, **tight)
        whole = len(server.requests)
    assert requests <= whole - 5 + 1

    named = {
        "map": {"a": "The number.", "b": "Twice."},
        "finding": {"a": {"n": int}, "b": {"n": int}},
        "reduce": {"a_n": "sum"},
    }
    run(rows(0, 5), path, **named)
    _, units, _ = run(rows(0, 5), path, **named)
    assert units == 0


def test_functions_are_kept_only_where_they_say_their_version(path):
    calls = []

    def found(frame):
        calls.append(len(frame))
        return [{"n": 1}] * len(frame)

    options = {"map": found, "finding": {"n": int}, "reduce": {"n": "sum"}, "journal": path}
    for expected in (1, 2):
        rows(0, 10).amr.map_reduce(**options)
        assert len(calls) == expected
    found.amr_version = "1"
    for _ in range(2):
        rows(0, 10).amr.map_reduce(**options)
        assert len(calls) == 3
    found.amr_version = "2"
    rows(0, 10).amr.map_reduce(**options)
    assert len(calls) == 4


@pytest.mark.usefixtures("sandboxed")
def test_what_code_asks_and_hands_in_is_kept_and_a_preview_by_its_whole_shard(path):
    def provider(request):
        if "python_repl" in request.tools:
            code = "submit(ask(df['text'], 'Which?', {'n': int}))"
            return Call("python_repl", {"code": code})
        return scripted(request)

    options = {"tools": [amr.PythonREPLTool()], "plan": {"view": "preview", "shard_size": 20}}
    first, _, requests = run(rows(0, 40), path, provider, **options)
    assert first.plan.keyed == "shard"
    assert "keyed: shard" in repr(first.plan)
    assert requests == 4
    _, _, none = run(rows(0, 40), path, provider, **options)
    assert none == 0
    _, _, some = run(rows(0, 45), path, provider, **options)
    assert some == 2  # the third shard is new, and so are its texts
    _, units, agents = run(rows(0, 40), path, provider, **options | {"map": "Another instruction."})
    assert (units, agents) == (10, 2)  # previews of five rows; what code asks is known


# Several at once


def test_two_runs_of_one_process_do_not_pay_twice_for_the_same_unit(path):
    with ScriptedServer(scripted, latency_s=0.05) as server:
        runs = [
            rows(0, 100).amr.start(
                map="The number.", finding={"n": int}, reduce={"n": "sum"}, lm=server.lm(), journal=path
            )
            for _ in range(3)
        ]
        outputs = [one.result().output["n"] for one in runs]
        assert outputs == [sum(range(100))] * 3
        assert asked(server) == 100


@pytest.mark.parametrize("parallelism", [1, 3])
def test_pipelines_inside_a_run_do_not_pay_twice_for_the_same_unit(path, parallelism):
    frame = pd.DataFrame({"text": ["row 7"] * 6, "id": range(6)})
    inner = amr.Recipe().map("The number.", finding={"n": int}, columns=["text"]).reduce({"n": "sum"})
    with ScriptedServer(scripted, latency_s=0.05) as server:
        result = frame.amr.map_reduce(
            map=inner,
            finding={"n": int},
            reduce={"n": "sum"},
            lm=server.lm(),
            journal=path,
            max_parallelism=parallelism,
        )
        assert result.output["n"] == 42
        assert asked(server) == 1


@pytest.mark.parametrize("parallelism", [1, 8])
@pytest.mark.parametrize("refresh", [False, True])
def test_maps_that_ask_the_same_pay_once_also_where_all_is_asked_again(path, parallelism, refresh):
    options = {"map": {"a": "The number.", "b": "The number."}, "reduce": {"a_n": "sum", "b_n": "sum"}}
    options |= {"plan": {"shard_size": 5}, "max_parallelism": parallelism}
    if refresh:
        run(rows(0, 10), path)
    result, units, _ = run(rows(0, 10), amr.Journal(path, refresh=refresh), **options)
    assert units == 10
    assert result.output.tolist() == [45, 45]


REPEATED = {
    "not deduped": (["row 1"] * 5, {"plan": {"dedupe": False}}),
    "asked by a function of the row": (["row 1"] * 5, {"map": amr.Agent(lambda row: "The number.")}),
    "shown otherwise": ([{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1.0, "b": 2}], {}),
}


@pytest.mark.parametrize("refresh", [False, True])
@pytest.mark.parametrize("case", REPEATED)
def test_equal_units_in_shards_that_follow_each_other_are_paid_for_once(path, case, refresh):
    values, options = REPEATED[case]
    plan = {"shard_size": 1, "parallelism": 1} | options.get("plan", {})
    answers = iter(range(9))
    result, units, _ = run(
        pd.DataFrame({"text": values}),
        amr.Journal(path, refresh=refresh),
        lambda request: findings(request, lambda unit: {"n": next(answers)}),
        **options | {"plan": plan},
    )
    assert units == 1
    assert result.frame["n"].tolist() == [0] * len(values)
    assert result.status["from_journal"].tolist() == [False] + [True] * (len(values) - 1)


def test_a_file_is_one_journal_whatever_it_is_called(path):
    amr.Journal(path)
    link = path.with_name("link")
    link.symlink_to(path)
    names = [path, path.parent / ".." / path.parent.name / path.name, link]
    options = {"map": "The number.", "finding": {"n": int}, "reduce": {"n": "sum"}}
    with ScriptedServer(scripted, latency_s=0.2) as server:
        runs = [rows(0, 20).amr.start(lm=server.lm(), journal=name, **options) for name in names]
        assert [one.result().output["n"] for one in runs] == [sum(range(20))] * 3
        assert asked(server) == 20
    assert {amr.Journal(name).size() for name in names} == {amr.Journal(path).size()}


def test_each_of_two_runs_that_refresh_asks_everything_again(path):
    options = {"map": "The number.", "finding": {"n": int}, "reduce": {"n": "sum"}}
    with ScriptedServer(scripted, latency_s=0.1) as server:
        again = [amr.Journal(path, refresh=True) for _ in range(2)]
        runs = [rows(0, 20).amr.start(lm=server.lm(), journal=journal, **options) for journal in again]
        assert [one.result().output["n"] for one in runs] == [sum(range(20))] * 2
        assert asked(server) == 40


def planning(request):
    if request.schema == "plan":
        return {
            "map_instruction": "The number.",
            "finding": [{"name": "n", "type": "int", "description": "", "choices": []}],
            "shard_size": 10,
            "parallelism": 2,
            "aggregations": [],
            "reduce_instruction": "Say it.",
        }
    return scripted(request)


def counted(server) -> dict[str, int]:
    """How many requests there were of each kind."""
    return pd.Series([request.schema for request in server.requests]).value_counts().to_dict()


def test_runs_at_once_pay_for_one_plan_and_one_reduction(path):
    with ScriptedServer(planning, latency_s=0.1) as server:
        runs = [rows(0, 20).amr.start("How much?", lm=server.lm(), journal=path) for _ in range(3)]
        assert {one.result().output for one in runs} == {"20 findings"}
        assert counted(server) == {"plan": 1, "findings": 2, "reduction": 1}


@once
@pytest.mark.parametrize("schema", ["plan", "reduction"])
def test_where_who_asks_gets_nothing_one_of_those_who_wait_asks(path, schema):
    refused = []

    def provider(request):
        if request.schema == schema and not refused:
            refused.append(1)
            return Status(400, "no")
        return planning(request)

    with ScriptedServer(provider, latency_s=0.1) as server:
        runs = [rows(0, 20).amr.start("How much?", lm=server.lm(), journal=path) for _ in range(3)]
        errors = []
        for one in runs:
            try:
                assert one.result().output == "20 findings"
            except (amr.AMRError, amr.AMRWarning) as error:
                errors.append(error)
        assert len(errors) <= 1
        assert counted(server)[schema] == 2


def test_where_who_asks_is_cancelled_one_of_those_who_wait_asks(path):
    reducing, go_on = threading.Event(), threading.Event()

    def provider(request):
        if request.schema == "reduction" and not reducing.is_set():
            reducing.set()
            go_on.wait(20)
        return scripted(request)

    options = {"map": "The number.", "finding": {"n": int}, "reduce": "Say it.", "journal": path}
    with ScriptedServer(provider) as server:
        first = rows(0, 5).amr.start(lm=server.lm(), **options)
        assert reducing.wait(20)
        second = rows(0, 5).amr.start(lm=server.lm(), **options)
        first.cancel()
        go_on.set()
        assert second.result().output == "5 findings"
        assert asked(server) == 5
        assert counted(server)["reduction"] == 2


DRIVER = """
import sys, time
import pandas as pd
import pandas_amr as amr

url, path, first, last, out = sys.argv[1:]
frame = pd.DataFrame({"text": [f"row {n}" for n in range(int(first), int(last))]})
lm = amr.LM("scripted", base_url=url, api_key="k")
print("begun", flush=True)
result = frame.amr.map_reduce(
    map="The number.", finding={"n": int}, reduce={"n": "sum"}, plan={"shard_size": 10}, lm=lm, journal=path, max_parallelism=8
)
result.frame.to_parquet(out)
print(int(result.output["n"]), flush=True)
"""


def drive(server, path, out, first=0, last=100, **options):
    environment = {name: value for name, value in os.environ.items() if name != "AMR_JOURNAL"}
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, server.base_url, str(path), str(first), str(last), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


BEGIN = (
    "import sys; from pandas_amr._journal.journal import Journal; sys.stdin.read(1); print(len(Journal(sys.argv[1])))"
)


def test_a_new_file_that_another_process_is_beginning_is_waited_for(path):
    path.parent.mkdir()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    third = sqlite3.connect(path, isolation_level=None)
    with contextlib.closing(third), pytest.raises(sqlite3.OperationalError, match="locked"):
        third.execute("PRAGMA journal_mode=WAL")  # SQLite's own time-out of 5 s does not wait here
    soon = threading.Timer(0.3, other.execute, ["COMMIT"])
    soon.start()
    assert len(amr.Journal(path)) == 0
    soon.join()
    other.close()


@pytest.mark.long
@once
@pytest.mark.parametrize("files", [2, pytest.param(10, marks=pytest.mark.long)])
def test_processes_that_begin_a_file_together_all_have_it(files, path):
    for n in range(files):
        start = [sys.executable, "-c", BEGIN, str(path.with_name(f"{n}.sqlite"))]
        processes = [subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(3)]
        for process in processes:
            process.stdin.write(b"!")
            process.stdin.flush()
        assert [process.communicate(timeout=300)[0] for process in processes] == [b"0\n"] * 3


def test_a_damaged_file_is_set_aside_once_and_not_the_new_one_of_another_process(path):
    run(rows(0, 20), path)
    forget_what_is_open()
    asked = []

    def read_while_another_process_sets_it_aside(connection):
        asked.append(connection)
        if len(asked) == 1:
            for part in list(path.parent.iterdir()):
                part.rename(part.with_name(part.name.replace("journal", "aside")))
            begun = subprocess.run(
                [sys.executable, "-c", BEGIN, str(path)], input=b"!", capture_output=True, check=True
            )
            assert begun.stdout == b"0\n"
            error = sqlite3.DatabaseError("malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        return connection.execute("SELECT count(*) FROM runs").fetchone()

    with pytest.warns(amr.JournalWarning, match="another process has set it aside"):
        assert amr.Journal(path)._store.execute(read_while_another_process_sets_it_aside) == (0,)
    assert not list(path.parent.glob("*.damaged-*"))


def times_asked(server) -> pd.Series:
    """How often each unit was asked of the server."""
    return pd.Series([unit["text"] for request in server.requests for unit in request.units]).value_counts()


@once
@pytest.mark.long
def test_two_processes_share_a_journal_and_each_asks_a_unit_at_most_once(path, tmp_path):
    with ScriptedServer(scripted, latency_s=0.02) as server:
        processes = [drive(server, path, tmp_path / f"{n}.parquet", last=300) for n in range(2)]
        said = [process.communicate(timeout=300) for process in processes]
        assert [out.split()[-1] for out, _ in said] == [str(sum(range(300)))] * 2, said
        assert len(times_asked(server)) == 300
        assert times_asked(server).max() <= 2
        before = asked(server)
        assert drive(server, path, tmp_path / "3.parquet", last=300).communicate(timeout=300)[0].split()[-1]
        assert asked(server) == before


@once
@pytest.mark.long
def test_a_process_asks_for_nothing_that_another_had_before_it_began(path, tmp_path):
    gate = threading.Event()

    def provider(request):
        if any(int(unit["text"].split()[1]) >= 100 for unit in request.units):
            gate.wait(60)
        return scripted(request)

    with ScriptedServer(provider, latency_s=0.02) as server:
        first = drive(server, path, tmp_path / "1.parquet", last=300)
        first.stdout.readline()
        until(lambda: len(amr.Journal(path)) >= 50)
        known = amr.Journal(path).export()["value"].map(json.loads).str["n"].tolist()
        assert len(known) >= 50
        second = drive(server, path, tmp_path / "2.parquet", last=300)
        second.stdout.readline()
        gate.set()
        said = [process.communicate(timeout=300) for process in (first, second)]
        assert [out.split()[-1] for out, _ in said] == [str(sum(range(300)))] * 2, said
        times = times_asked(server)
        assert times.max() <= 2
        assert times[[f"row {n}" for n in known]].max() == 1


@once
@pytest.mark.parametrize(
    ("moments_at_most", "last", "latest_moment"),
    [
        (1, 200, 10),
        pytest.param(5, 1000, 60, marks=pytest.mark.long),
        pytest.param(20, 2000, 250, marks=pytest.mark.long),
    ],
    ids=["one", "few", "many"],
)
def test_killed_at_any_moments_each_unit_is_paid_for_once_but_those_in_flight(
    moments_at_most, last, latest_moment, path, tmp_path
):
    moments = random.Random(7)
    with ScriptedServer(scripted, latency_s=0.03) as server:
        kills, in_flight = 0, 0
        while kills < moments_at_most:
            process = drive(server, path, tmp_path / "out.parquet", last=last)
            process.stdout.readline()
            known = asked(server)
            latest = known + moments.randint(1, latest_moment)
            until(lambda: process.poll() is not None or asked(server) >= latest)  # noqa: B023 (called here)
            if process.poll() is not None:
                process.communicate()
                break
            process.kill()
            process.communicate()
            kills += 1
            in_flight += 8 * 10
        process = drive(server, path, tmp_path / "out.parquet", last=last)
        out, err = process.communicate(timeout=600)
        assert out.split()[-1] == str(sum(range(last))), err
        assert kills >= min(moments_at_most, 5)
        assert asked(server) <= last + in_flight
    undisturbed, _, _ = run(rows(0, last), False, plan={"shard_size": 10})
    undisturbed.frame.to_parquet(tmp_path / "undisturbed.parquet")
    kept = pd.read_parquet(tmp_path / "out.parquet", dtype_backend="pyarrow")
    pd.testing.assert_frame_equal(kept, pd.read_parquet(tmp_path / "undisturbed.parquet", dtype_backend="pyarrow"))


def test_ctrl_c_leaves_the_partial_result_in_the_exception_and_the_next_call_goes_on(path):
    gate = threading.Event()

    async def provider(request):
        if any(unit["text"] == "row 40" for unit in request.units):
            gate.set()
            await asyncio.sleep(3600)
        return scripted(request)

    def interrupt():
        gate.wait()
        until(lambda: len(amr.Journal(path)) == 40)
        turn_engine()  # what is in the journal has been told to the run
        os.kill(os.getpid(), signal.SIGINT)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with ScriptedServer(provider) as server:
            threading.Thread(target=interrupt, daemon=True).start()
            with pytest.raises(KeyboardInterrupt) as stopped:
                rows(0, 100).amr.map_reduce(
                    map="The number.", finding={"n": int}, reduce={"n": "sum"}, plan={"shard_size": 20},
                    lm=server.lm(), journal=path, max_parallelism=1,
                )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, previous)
    partial = stopped.value.partial
    assert partial.frame["n"].notna().sum() == 40
    assert partial.status["status"].value_counts().to_dict()["skipped"] == 60
    _, units, _ = run(rows(0, 100), path, plan={"shard_size": 20})
    assert units == 60
    assert amr.Journal(path).runs()["status"].tolist() == ["cancelled", "done"]


# Trouble with the file


def test_the_file_is_the_user_s_alone_and_holds_no_key_and_no_text_of_rows(path):
    with ScriptedServer(scripted) as server:
        lm = server.lm(api_key="sk-secret-key", extra_body={"token": "another-secret"})
        frame = rows(0, 5).assign(text=lambda f: f["text"] + " PRIVATE")
        frame.amr.map("The number.", finding={"n": int}, lm=lm, journal=path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    raw = b"".join(part.read_bytes() for part in path.parent.iterdir())
    assert not [word for word in (b"sk-secret", b"another-secret", b"PRIVATE") if word in raw]
    kept = amr.Journal(path, keep_inputs=True, refresh=True)
    run(frame, kept)
    assert kept.export()["input"].dropna().str.contains("PRIVATE").sum() == 5


def test_a_read_only_folder_is_told_before_a_request_is_sent(tmp_path, refusing):
    folder = tmp_path / "closed"
    folder.write_text("a file in the folder's place", encoding="ascii")
    with pytest.raises(amr.JournalError, match=r"cannot be written .*journal=False"):
        rows(0, 3).amr.map("x", lm=refusing.lm(), journal=folder / "journal.sqlite")


def test_the_default_journal_is_in_the_cache_folder_and_where_it_cannot_be_had_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.delenv("AMR_JOURNAL")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with ScriptedServer(scripted) as server:
        for _ in range(2):
            rows(0, 3).amr.map("The number.", finding={"n": int}, lm=server.lm(journaled=True))
        assert asked(server) == 3
        assert (tmp_path / "cache" / "pandas-amr" / "journal.sqlite").exists()
        (tmp_path / "file").write_text("x", encoding="ascii")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        with pytest.warns(amr.JournalWarning, match="keeps no journal"):
            frame = rows(0, 3).amr.map("The number.", finding={"n": int}, lm=server.lm(journaled=True))
    assert frame["n"].tolist() == [0, 1, 2]


def test_a_file_that_is_no_journal_is_refused_and_a_later_format_too(path):
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE t(a)")
    other.commit()
    other.close()
    with pytest.raises(amr.JournalError, match="not a journal of pandas-amr"):
        amr.Journal(path)
    path.unlink()
    amr.Journal(path)
    later = sqlite3.connect(path)
    later.execute("PRAGMA user_version=99")
    later.commit()
    later.close()
    forget_what_is_open()
    with pytest.raises(amr.JournalError, match="format 99"):
        amr.Journal(path)


def test_a_damaged_file_is_set_aside_with_a_warning_and_the_run_is_right(path):
    run(rows(0, 20), path)
    forget_what_is_open()
    path.write_bytes(b"not a database at all" * 1000)
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    with pytest.warns(amr.JournalWarning, match=r"is damaged .* set aside as journal.sqlite.damaged"):
        result, units, _ = run(rows(0, 20), path)
    assert units == 20
    assert result.output["n"] == sum(range(20))
    assert [part for part in path.parent.iterdir() if "damaged" in part.name]


@pytest.mark.parametrize("change", ["DROP TABLE uses", "ALTER TABLE entries ADD COLUMN more TEXT"])
def test_a_file_whose_tables_are_not_a_journal_s_is_set_aside_too(path, change):
    run(rows(0, 5), path)
    forget_what_is_open()
    other = sqlite3.connect(path)
    other.execute(change)
    other.commit()
    other.close()
    with pytest.warns(amr.JournalWarning, match="its tables are not those of a journal"):
        result, units, _ = run(rows(0, 5), path)
    assert units == 5
    assert result.output["n"] == sum(range(5))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.sampled(4)
def test_nothing_wrong_is_read_back_from_a_file_with_corrupted_pages(path, seed):
    run(rows(0, 400), path)
    forget_what_is_open()
    raw = bytearray(path.read_bytes())
    chance = random.Random(seed)
    for _ in range(3):
        start = chance.randrange(100, len(raw) - 600)
        raw[start : start + 500] = chance.randbytes(500)
    path.write_bytes(bytes(raw))
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", amr.JournalWarning)
        try:
            result, _, _ = run(rows(0, 400), path)
        except amr.JournalError as error:
            assert "cannot be used" in str(error)  # noqa: PT017
        else:
            assert result.frame["n"].tolist() == list(range(400))


def test_an_entry_that_was_changed_by_hand_is_asked_again(path):
    run(rows(0, 5), path)
    journal = amr.Journal(path)
    journal._store.execute(lambda c: c.execute("UPDATE entries SET value = '{\"n\":99}' WHERE value = '{\"n\":3}'"))
    assert len(journal.verify()) == 1
    result, units, _ = run(rows(0, 5), path)
    assert units == 1
    assert result.frame["n"].tolist() == list(range(5))
    assert journal.verify() == []


def deleting(path):
    """Answers, and deletes the journal once, where row 50 is asked for."""
    deleted = []

    def provider(request):
        if not deleted and any(unit["text"] == "row 50" for unit in request.units):
            deleted.append(1)
            for part in path.parent.iterdir():
                part.unlink()
        return scripted(request)

    return provider


def test_a_journal_deleted_in_mid_run_is_begun_anew_and_the_result_is_right(path):
    with pytest.warns(amr.JournalWarning, match="has gone"):
        result, _, _ = run(rows(0, 100), path, deleting(path), max_parallelism=1)
    assert result.output["n"] == sum(range(100))
    _, units, _ = run(rows(0, 100), path)
    assert 0 < units < 100


def test_a_journal_deleted_in_mid_run_holds_the_run_and_what_it_asks(path):
    with pytest.warns(amr.JournalWarning, match="has gone"):
        run(rows(0, 100), path, deleting(path), plan={"shard_size": 10}, max_parallelism=1)
    journal = amr.Journal(path)
    assert journal.runs()[["units", "status"]].values.tolist() == [[100, "done"]]
    assert len(journal) == 50
    assert journal.export()["about"].notna().all()
    assert journal.prune(keep=1) == 0


def test_pruning_in_mid_run_leaves_what_the_run_asks(path):
    run(rows(0, 3), path, map="Another question.")

    def provider(request):
        amr.Journal(path).prune(older_than=30)
        return scripted(request)

    run(rows(0, 20), path, provider, plan={"shard_size": 5}, max_parallelism=1)
    journal = amr.Journal(path)
    assert journal.export()["about"].notna().all()
    assert journal.prune(keep=1) == 3
    _, units, _ = run(rows(0, 20), path)
    assert units == 0


def corrupted(path) -> None:
    """Overwrite the beginning of each page but the first ones, where the tables are told."""
    forget_what_is_open()
    raw = bytearray(path.read_bytes())
    chance = random.Random(0)
    for start in range(8 * 4096, len(raw), 4096):
        raw[start : start + 200] = chance.randbytes(200)
    path.write_bytes(bytes(raw))


def test_verify_tells_of_a_damaged_file_and_leaves_it_where_it_is(path):
    run(rows(0, 400), path)
    corrupted(path)
    journal = amr.Journal(path)
    for _ in range(2):
        told = journal.verify()
        assert told
        assert "is damaged" in told[-1] or "malformed" in " ".join(told) or "not what was written" in told[-1]
    assert not list(path.parent.glob("*.damaged-*"))


def test_verify_tells_once_of_a_file_that_was_set_aside_before(path):
    run(rows(0, 5), path)
    forget_what_is_open()
    path.write_bytes(b"not a database at all" * 1000)
    with pytest.warns(amr.JournalWarning, match="is damaged"):
        journal = amr.Journal(path)
    assert [told.split(" (")[0] for told in journal.verify()] == [f"The journal {path} is damaged"]
    assert journal.verify() == []


@pytest.mark.parametrize("read", [amr.Journal.export, lambda journal: journal.prune(older_than=1)])
def test_a_damaged_file_is_not_read_as_an_empty_one(path, read):
    run(rows(0, 400), path)
    corrupted(path)
    journal = amr.Journal(path)
    with pytest.raises(amr.JournalError, match=r"is damaged .* set aside as journal.sqlite.damaged"):
        read(journal)
    assert list(path.parent.glob("*.damaged-*"))
    assert "answers" in repr(journal)


def test_half_of_a_surrogate_pair_is_written_as_its_number(path):
    journal = amr.Journal(path)

    async def kept():
        number = await journal.begin("map", "What is \ud800?", 1)
        await journal.keep([database.Entry(b"key", "finding", b"base", "{}", "row \ud800")], number)

    asyncio.run(kept())
    assert journal.runs()["task"].tolist() == ["What is \\ud800?"]
    assert journal.export()["input"].tolist() == ["row \\ud800"]


def test_a_full_disk_ends_the_run_with_one_error_that_has_what_was_found(tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], capture_output=True
    ).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        path = folder / "journal.sqlite"
        provider = lambda r: findings(r, lambda u: {"n": int(u["text"].split()[1]), "why": "x" * 2000})  # noqa: E731
        options = {"finding": {"n": int, "why": str}, "reduce": {"n": "sum"}, "max_parallelism": 1}
        with pytest.raises(amr.JournalError, match=r"full.*journal=False") as stopped:
            run(rows(0, 400), path, provider, **options)
        partial = stopped.value.partial
        found = partial.frame["n"].dropna()
        assert 0 < len(found) < 400
        assert found.tolist() == found.index.tolist()
        assert ".partial" in stopped.value.__notes__[0]
        forget_what_is_open()
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_only_an_error_that_has_what_was_found_says_so(path, refusing):
    journal = amr.Journal(path)
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version=99")
    other.execute("CREATE TRIGGER full BEFORE INSERT ON runs BEGIN SELECT RAISE(ABORT, 'no room'); END")
    other.commit()
    other.close()
    with pytest.raises(amr.JournalError, match=r"no room.*journal=False") as stopped:
        rows(0, 3).amr.map("x", lm=refusing.lm(), journal=journal)
    assert stopped.value.partial is None
    assert "partial" not in str(stopped.value)
    assert not hasattr(stopped.value, "__notes__")


PLAIN = """
import sys
sys.path.insert(0, sys.argv[2])
import pandas_amr as amr
try:
    amr.Journal(sys.argv[1])
except amr.JournalError as error:
    print(error)
"""


@once
@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (None, r"cannot be written \(Permission denied\)"),
        (b"no database" * 1000, r"is damaged .* cannot be set aside \(Permission denied\)"),
    ],
    ids=["new", "damaged"],
)
@pytest.mark.sampled(2)
def test_a_folder_that_cannot_be_written_is_told_and_nothing_is_moved(kept, said, plain):
    with tempfile.TemporaryDirectory() as place:
        folder, room = Path(place) / "closed", Path(place) / "room"
        path = folder / "journal.sqlite"
        folder.mkdir()
        room.mkdir()
        room.chmod(0o1777)
        if kept is not None:
            path.write_bytes(kept)
            path.chmod(0o666)
        for part, mode in ((folder, 0o555), (Path(place), 0o755)):
            part.chmod(mode)
        done = subprocess.run(
            [sys.executable, *plain, "-c", PLAIN, str(path), str(Path(amr.__file__).parents[1])],
            capture_output=True,
            text=True,
            env=os.environ | {"TMPDIR": str(room)},
        )
        there = [part.name for part in folder.iterdir()]
        folder.chmod(0o755)
    assert re.search(said + ".*journal=False", done.stdout), done.stdout + done.stderr
    assert there == ([] if kept is None else ["journal.sqlite"])


def open_files(folder) -> set[str]:
    """The journals in a folder that this process has open."""
    there = []
    for one in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            there.append(os.readlink(f"/proc/self/fd/{one}"))
    return {Path(one).name for one in there if one.startswith(str(folder)) and one.endswith(".sqlite")}


def test_what_no_journal_and_no_run_holds_is_closed(tmp_path):
    held = [amr.Journal(tmp_path / f"{n}.sqlite") for n in range(20)]
    threads = threading.active_count()
    assert len(open_files(tmp_path)) == 20
    journal = held[0]
    del held
    same = amr.Journal(tmp_path / "0.sqlite")
    assert same._store is journal._store
    until(lambda: len(open_files(tmp_path)) == 1 and threading.active_count() <= threads - 19)
    assert open_files(tmp_path) == {"0.sqlite"}
    assert threading.active_count() <= threads - 19
    assert len(journal) == 0


# Fingerprints


def keeper(**changes) -> AnswerCache:
    about = {"instruction": "The number.", "schema": {"type": "object"}, "model": "m", "temperature": 0, "tools": []}
    return AnswerCache(None, "finding", about | changes, 0)


def prints(frame: pd.DataFrame, columns: tuple[int, ...] | None = None) -> list[str]:
    units = make_units(frame, columns or tuple(range(len(frame.columns))))
    return [one.hex() for one in units.fingerprints(range(len(frame)))]


GOLDEN = pd.DataFrame(
    {
        "text": ["one", None, "drei \u00fc"],
        "n": [1, 2, 3],
        "x": [1.5, np.nan, -0.0],
        "day": pd.to_datetime(["2026-01-02 00:00:00", None, "2026-03-04 05:06:07"]),
        "yes": [True, False, True],
    }
)


GOLDEN_PRINTS = [
    "f29388eeb534e79e8607ef14a72cc3e7",
    "ebb5142c44feeb1c745db7e246c6d202",
    "6912b4c6604a4ef674bb4599b9b4e936",
]
GOLDEN_BASE = "6a7c759df78c0315be243db24e172aa7"
GOLDEN_KEY = "0da4cccc9432e01daf1d93bcf82ffc1f"


def test_fingerprints_are_those_of_every_version_of_the_second_format():
    assert prints(GOLDEN) == GOLDEN_PRINTS
    assert keeper().base.hex() == GOLDEN_BASE
    assert keeper().key(bytes.fromhex(GOLDEN_PRINTS[0])).hex() == GOLDEN_KEY


@pytest.mark.long
def test_fingerprints_do_not_depend_on_the_process():
    code = "import sys; sys.path[:0] = sys.argv[1:]; from test_journal import GOLDEN, prints, keeper; print(prints(GOLDEN), keeper().base.hex())"
    said = {
        subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent), str(Path(__file__).parents[1])],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert said == {f"{GOLDEN_PRINTS} {GOLDEN_BASE}\n"}


def test_fingerprints_do_not_depend_on_order_index_or_names_of_the_index():
    known = prints(GOLDEN)
    assert prints(GOLDEN[["yes", "n", "text", "x", "day"]]) == known
    assert prints(GOLDEN.set_axis(["a", "b", "c"]).rename_axis("name")) == known
    assert prints(GOLDEN.iloc[[2, 0, 1]]) == [known[2], known[0], known[1]]
    assert prints(GOLDEN.astype({"text": object})) == known
    assert prints(GOLDEN.astype({"n": "int32"})) == known


def test_fingerprints_differ_for_each_ingredient_changed_alone():
    for column, value in (("text", "two"), ("n", 9), ("x", 2.5), ("yes", False)):
        changed = GOLDEN.copy()
        changed.loc[0, column] = value
        assert prints(changed)[0] != prints(GOLDEN)[0]
        assert prints(changed)[1:] == prints(GOLDEN)[1:]
    assert prints(GOLDEN.astype({"n": str}))[0] != prints(GOLDEN)[0]
    assert prints(GOLDEN.rename(columns={"n": "m"}))[0] != prints(GOLDEN)[0]
    for change in (
        {"instruction": "x"},
        {"schema": {}},
        {"model": "o"},
        {"temperature": 1},
        {"tools": [1]},
        {"view": "preview"},
    ):
        assert keeper(**change).base != keeper().base
    assert AnswerCache(None, "reduction", keeper().about, 0).base != keeper().base
    assert fingerprint(b"ab", b"c") != fingerprint(b"a", b"bc")


# The journal in the hand


def test_runs_export_size_and_prune(path):
    run(rows(0, 10), path)
    run(rows(0, 15), path)
    journal = amr.Journal(path)
    runs = journal.runs()
    assert runs[["units", "recalled", "status"]].values.tolist() == [[10, 0, "done"], [15, 10, "done"]]
    exported = journal.export()
    assert len(exported) == len(journal) == 15
    assert json.loads(exported["about"][0])["instruction"] == "The number."
    assert sorted(json.loads(value)["n"] for value in exported["value"]) == list(range(15))
    assert journal.size() > 0
    assert journal.verify() == []
    assert journal.prune(keep=1) == 0  # the last run used them all
    run(rows(0, 3), path, map="Another question.")
    assert journal.prune(keep=2) == 0
    assert journal.prune(keep=1) == 15
    assert len(journal) == 3
    assert journal.prune(older_than=dt.timedelta(days=1)) == 0
    assert journal.prune(older_than=0) == 3
    with pytest.raises(amr.UsageError, match="older_than="):
        journal.prune()
    with pytest.raises(amr.UsageError, match="takes a file's path"):
        amr.Journal(7)
    with pytest.raises(amr.UsageError, match="journal= takes"):
        rows(0, 2).amr.map("x", lm=amr.LM("m", base_url="http://127.0.0.1:9/v1"), journal=7)


@pytest.mark.parametrize(
    "wrong",
    [
        {"keep": [1]},
        {"keep": "x"},
        {"keep": 1.5},
        {"keep": -1},
        {"keep": True},
        {"older_than": "30d"},
        {"older_than": float("nan")},
        {"older_than": np.timedelta64("NaT", "D")},
        {"older_than": pd.NaT},
        {"older_than": -1},
        {"older_than": True},
    ],
    ids=str,
)
def test_a_wrong_argument_of_prune_is_told_and_nothing_is_forgotten(path, wrong):
    run(rows(0, 5), path)
    with pytest.raises(amr.UsageError, match=rf"prune\({next(iter(wrong))}=\) takes"):
        amr.Journal(path).prune(**wrong)
    assert len(amr.Journal(path)) == 5
    assert not list(path.parent.glob("*.damaged-*"))


def test_prune_takes_numbers_and_times_of_every_kind(path):
    run(rows(0, 5), path)
    journal = amr.Journal(path)
    for right in (np.int64(1), 1.5, float("inf"), 10**400, pd.Timedelta(days=1), np.timedelta64(1, "h")):
        assert journal.prune(older_than=right) == 0
    for right in (np.int64(1), 2**70):
        assert journal.prune(keep=right) == 0
    assert journal.prune(keep=np.int64(0)) == 5


def test_settings_set_the_journal(path):
    with ScriptedServer(scripted) as server, amr.settings(journal=path, lm=server.lm()):
        for _ in range(2):
            rows(0, 4).amr.map("The number.", finding={"n": int})
        assert asked(server) == 4


def test_answers_of_several_agents_are_committed_together(path):
    journal = amr.Journal(path)

    async def kept():
        one = AnswerCache(journal, "finding", {"x": 1}, 0)
        await asyncio.gather(*(one.keep({fingerprint(bytes([n])): {"n": n}}) for n in range(50)))

    asyncio.run(kept())
    assert len(journal) == 50
