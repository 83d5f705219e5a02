"""Dask: what workers map is what this process would have found, and costs no more, whatever happens to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pickle
import signal
import sys
import tempfile
import threading
from collections import Counter
from typing import Literal

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import pandas_amr as amr
from examples import examples
from moments import move_on, never, until
from numbered import labelled_rows, number, provider, rows
from pandas_amr.testing import Call, ScriptedServer, Status, findings
from processes import run_python

pytest.importorskip("distributed", reason="the extra [dask] is not installed")

import cloudpickle
import dask.dataframe as dd
import distributed

import pandas_amr.dask
from pandas_amr._engines.dask.messages import REPORT_S, Sealed

pytestmark = pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers need not import the tests
KEYS = {"OPENAI_API_KEY": "scripted-key", "AMR_JOURNAL": "off", "AMR_LEASE": "off"}
ASKED = {"finding": {"n": int}, "columns": ["text"], "plan": {"shard_size": 5}}


@contextlib.contextmanager
def workers(count=2, threads=1, **options):
    """A cluster of its own on this machine, and its client."""
    before = {name: os.environ.get(name) for name in KEYS}
    os.environ.update(KEYS)
    place = {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1", "silence_logs": logging.CRITICAL}
    try:
        with (
            distributed.LocalCluster(n_workers=count, threads_per_worker=threads, **place) as cluster,
            distributed.Client(cluster, **options) as client,
        ):
            yield client
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@pytest.fixture(scope="module")
def client():
    """A cluster that no test harms."""
    with workers() as client:
        yield client


@pytest.fixture
def harmed():
    """A cluster of the test's own."""
    with workers(timeout="3s") as client:
        yield client


# The same answer


class Claim(BaseModel):
    word: str
    weight: int


def measure(shard):
    """Find two numbers of each row; a shard with a 13 fails until it is alone."""
    if (shard["text"] == "row 13").any():
        raise ValueError("13")
    length = shard["text"].str.len()
    return pd.DataFrame({"length": length, "half": length.astype(float) / 2}, index=shard.index)


def answer(request):
    """Find the number of a row; refuse 13; list what was found."""
    if request.schema == "reduction":
        return {"output": " | ".join(sorted(str(dict(one, finding=0)) for one in request.findings)), "sources": [0]}
    if "row 13" in request.user:
        return Status(400, "no")
    body = json.dumps(request.body)
    if '"weight"' in body:
        return findings(
            request, lambda unit: {"items": [{"word": unit["text"], "weight": n} for n in range(number(unit)["n"] % 3)]}
        )
    return findings(request, all_of)


def all_of(unit):
    one = number(unit)["n"]
    return {"n": one, "kind": "odd" if one % 2 else "even", "big": one > 5, "amr_keep": one % 2 == 0}


def asked_for(fields):
    """An answer with these fields alone."""

    def answer_fields(request):
        given = answer(request)
        if isinstance(given, Status) or "findings" not in given:
            return given
        kept = [
            {"unit": one["unit"]} | {name: one[name] for name in fields if name in one} for one in given["findings"]
        ]
        return {"findings": kept}

    return answer_fields


TYPED = {"map": "Which?", "finding": {"n": int, "kind": Literal["even", "odd"]}}
FUNCTION = {"map": measure}
CALLS = {
    "aggregations": FUNCTION | {"reduce": {"length": ["mean", "std", "nunique"], "price": "sum"}},
    "groups": FUNCTION | {"reduce": {"half": "mean", "n": ("length", "count")}, "by": "shop"},
    "named maps": {"map": {"a": measure, "b": measure}, "reduce": {"a_length": "sum", "b_half": "median"}},
    "a function": FUNCTION | {"reduce": lambda found: float(found["half"].sum())},
    "choices": TYPED | {"reduce": {"kind": "value_counts"}, "by": "shop"},
    "numbers by choice": TYPED | {"reduce": {"n": ["sum", "var"]}, "by": "kind"},
    "the first ones": TYPED | {"plan": {"ranking": {"field": "n", "most": 3}}},
    "records": {"map": "Which?", "finding": list[Claim], "reduce": {"weight": "mean", "price": "sum"}, "by": "shop"},
    "agents": TYPED | {"reduce": "List them.", "output": str},
    "agents in a tree": TYPED | {"reduce": "List them.", "output": str, "plan": {"fan_in": 2}},
    "agents by groups": TYPED | {"reduce": "List them.", "by": "shop"},
    "statuses": TYPED | {"reduce": {"n": "count"}, "plan": {"status": True}},
}
FIELDS = {"the first ones": ("n", "kind")}


def make_frame(numbers, shops):
    frame = pd.DataFrame(
        {
            "text": pd.array([None if one is None else f"row {one}" for one in numbers], "string[pyarrow]"),
            "shop": pd.array([shops[place % len(shops)] for place in range(len(numbers))], "string[pyarrow]"),
            "price": [float(place) for place in range(len(numbers))],
        }
    )
    return frame.set_axis([f"label {place:02d}" for place in range(len(numbers))])


def plain(value):
    """Make a value comparable: frames by their values, types and labels."""
    if isinstance(value, pd.DataFrame | pd.Series):
        frame = value.to_frame() if isinstance(value, pd.Series) else value
        return [
            list(map(str, frame.columns)),
            [*map(str, frame.dtypes)],
            [*map(str, frame.index)],
            frame.astype(str).values.tolist(),
        ]
    return value


def columns_of(frame):
    """The values of a frame as Arrow has them; a category as its values."""
    return {str(name): pa.array(frame[name]).to_pylist() for name in frame}


def described(result, frame):
    """What must be the same wherever rows are mapped."""
    unlike = ["shard", "attempts"]  # shards count from 1 in every part, and end with it
    return {
        "output": plain(result.output),
        "labels": [*map(str, frame.index)],
        "frame": columns_of(frame),
        "findings": columns_of(result.findings),
        "failures": plain(result.failures.drop(columns=unlike)),
        "status": result.status["status"].isin(["ok", "repaired"]).tolist(),
        "rows asked of": [*map(str, result.status.index)],
    }


def same_on_a_cluster(call, frame, partitions, client):
    """Compare a run here with one of the same frame on a cluster, and of a Dask frame."""
    with ScriptedServer(asked_for(["n", "kind", "items"])) as server, tempfile.TemporaryDirectory() as folder:
        options = {"lm": server.lm(), "columns": ["text"]} | call
        options["plan"] = {"shard_size": 3, "give_up_after": None} | call.get("plan", {})
        here = amr.map_reduce(frame, journal=f"{folder}/here.db", **options)
        there = amr.map_reduce(frame, journal=f"{folder}/there.db", engine=client, **options)
        wanted = described(here, here.frame)
        assert described(there, there.frame) == wanted
        lazy = dd.from_pandas(frame, npartitions=partitions, sort=False)
        lazy = amr.map_reduce(lazy, journal=f"{folder}/lazy.db", **options)
        found = described(lazy, lazy.frame.compute())
        if "fan_in" in options["plan"]:  # its batches are as large as a shard, and not the shards
            del found["output"], wanted["output"]
        assert found == wanted


FRAMES = {
    "equal, empty, refused": make_frame([1, 2, None, 2, 13, 5, 6, 1, 13, 9, 10, 2], ["a", "b", "c"]),
    "a row": make_frame([3], ["a"]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_here_and_on_a_cluster_frame_findings_failures_and_answer_are_the_same(call, client):
    same_on_a_cluster(call, FRAMES["equal, empty, refused"], 3, client)


NUMBERS = st.lists(st.one_of(st.none(), st.integers(0, 16)), min_size=1, max_size=12)
SHOPS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4)


@pytest.mark.parametrize("name", ["groups", "agents", "records"])
@settings(max_examples=examples(10), deadline=None, suppress_health_check=list(HealthCheck))
@given(numbers=NUMBERS, shops=SHOPS, partitions=st.integers(1, 4))
def test_whatever_the_rows_and_the_partitions_the_answer_is_the_same(name, client, numbers, shops, partitions):
    same_on_a_cluster(CALLS[name], make_frame(numbers, shops), partitions, client)


def test_a_filter_keeps_on_a_cluster_the_rows_that_it_keeps_here(client):
    def meets(request):
        return findings(request, lambda unit: {"amr_keep": number(unit)["n"] % 3 == 0})

    frame = labelled_rows(11)
    with ScriptedServer(meets) as server:
        lm = server.lm()
        here = frame.amr.filter("Is it so?", lm=lm)
        assert amr.filter(frame, "Is it so?", lm=lm, engine=client).index.tolist() == here.index.tolist()
        lazy = dd.from_pandas(frame, npartitions=3, sort=False).amr.filter("Is it so?", lm=lm)
    assert isinstance(lazy, dd.DataFrame)
    assert lazy.compute().index.tolist() == here.index.tolist()
    assert len(amr.result_of(lazy).status) == 11


def test_a_map_of_a_dask_frame_gives_one_whose_computing_asks_nothing(client):
    frame = labelled_rows(12)
    with ScriptedServer(provider) as server:
        lazy = dd.from_pandas(frame, npartitions=4, sort=False).amr.map("Which?", lm=server.lm(), **ASKED)
        asked = len(server.requests)
        for _ in range(2):
            assert lazy.compute()["n"].to_dict() == {f"label {n}": n for n in range(12)}
        assert lazy.dtypes["n"] == "int64[pyarrow]"
        assert lazy.npartitions == 4
        assert len(server.requests) == asked == 4
        result = amr.result_of(lazy)
        assert (result.total.calls, len(result.trace), len(result.status)) == (4, 4, 12)
        assert repr(result) == f"<Result 12 of 12 rows in 4 partitions, 4 calls, {result.total.tokens:,} tokens>"


def test_rows_that_are_others_when_they_are_read_again_get_no_findings(client, tmp_path):
    rows(6).to_parquet(tmp_path / "rows.parquet")
    with ScriptedServer(provider) as server:
        lazy = dd.read_parquet(tmp_path / "rows.parquet").amr.map("Which?", lm=server.lm(), **ASKED)
        rows(7).iloc[1:].to_parquet(tmp_path / "rows.parquet")
        with pytest.raises(amr.UsageError, match=r"has other rows than when it was mapped.*persist"):
            lazy.compute()


def test_a_task_is_planned_once_from_a_sample_and_mapped_on_the_cluster(client):
    planned = {
        "map_instruction": "Which number?",
        "finding": [{"name": "n", "type": "int", "choices": None, "description": "the number"}],
        "segmentation": "rows",
        "shard_size": 5,
        "parallelism": 2,
        "aggregations": [{"field": "n", "function": "sum"}],
        "reduce_instruction": None,
    }

    def plans(request):
        return planned if request.schema == "plan" else provider(request)

    with ScriptedServer(plans) as server:
        lazy = dd.from_pandas(rows(20), npartitions=2)
        result = lazy.amr.map_reduce("What is the sum?", lm=server.lm())
        assert [request.schema for request in server.requests].count("plan") == 1
        assert server.requests[0].schema == "plan"
    assert int(result.output["n"]) == 190
    assert result.usage.loc["plan", "calls"] == 1


def test_findings_come_part_by_part_to_whoever_iterates_and_progress_counts_them(client):
    with ScriptedServer(provider) as server:
        run = labelled_rows(20).amr.start(map="Which?", reduce={"n": "sum"}, lm=server.lm(), engine=client, **ASKED)
        found = {one["label"]: one["n"] for one in run}
        assert found == {f"label {n}": n for n in range(20)}
        assert int(run.result().output["n"]) == 190
    assert (run.progress.found, run.progress.units, run.progress.calls, run.progress.done) == (20, 20, 4, True)


def test_the_engine_is_a_setting_too_and_what_cannot_go_there_stays_here(client):
    with ScriptedServer(provider) as server, amr.settings(engine=client, lm=server.lm()):
        found = rows(6).amr.map("Which?", **ASKED)
        assert amr.result_of(found).trace["id"].tolist()[0] == "map-part-0"
        assert found.amr.reduce({"n": "sum"})["n"] == 15
        here = rows(3).amr.map(amr.Recipe().map("Which?", finding={"n": int}))
        assert "map-part-0" not in amr.result_of(here).trace["id"].tolist()


def test_what_this_process_found_is_not_asked_on_a_cluster_nor_the_other_way_round(client, tmp_path):
    with ScriptedServer(provider) as server:
        ask = ASKED | {"lm": server.lm(), "journal": tmp_path / "journal.db"}
        rows(10).amr.map("Which?", **ask)
        assert len(server.requests) == 2
        found = rows(20).amr.map("Which?", engine=client, **ask)
        assert len(server.requests) == 4
        assert amr.result_of(found).status["from_journal"].tolist() == [True] * 10 + [False] * 10
        dd.from_pandas(rows(20), npartitions=3).amr.map("Which?", **ask)
        rows(20).amr.map("Which?", **ask)
        assert len(server.requests) == 4
        journal = amr.Journal(tmp_path / "journal.db")
        assert len(journal) == 20
        assert journal.runs()["status"].tolist() == ["done"] * 4
        assert journal.forget(rows(20)).answers == 20


# What is refused, and what goes wrong there


class Locked:
    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, shard):
        return [{"n": 1} for _ in range(len(shard))]


REFUSED = {
    "an engine that is none": (
        lambda client: rows(2).amr.map("x", engine="dask"),
        "engine= takes a dask.distributed.Client",
    ),
    "out": (
        lambda client: rows(2).amr.map("x", engine=client, out="folder"),
        "out= reads part by part in this process",
    ),
    "columns": (lambda client: rows(2).amr.map("x", engine=client, axis="columns"), "profiles the whole frame"),
    "transcripts": (
        lambda client: rows(2).amr.map("x", engine=client, trace="full"),
        "those of a cluster are elsewhere",
    ),
    "a recipe": (lambda client: rows(2).amr.map(amr.Recipe().map("x"), engine=client), "map its stages one by one"),
    "reduce": (lambda client: lazy_rows().amr.reduce("x"), r"reduce\(\) needs all rows here: frame.compute\(\)"),
    "plan": (lambda client: lazy_rows().amr.plan("x"), r"frame.head\(1000\).amr.plan"),
    "a verb that is none": (lambda client: lazy_rows().amr.mapp("x"), "Did you mean"),
    "a column": (lambda client: amr.map(lazy_rows()["text"], "x"), r"pass a frame, x.to_frame\(\)"),
    "a missing column": (lambda client: lazy_rows().amr.map("x", columns=["no"]), "no"),
    "rows of by": (
        lambda client: lazy_rows().amr.map_reduce(map="x", reduce={"finding": "count"}, by=pd.Series([1, 2])),
        "by= takes columns of a Dask frame",
    ),
    "a lock": (lambda client: rows(2).amr.map(Locked(), engine=client), r"cannot be pickled \(a _thread.lock\)"),
    "a client of openai": (
        lambda client: rows(2).amr.map("x", engine=client, lm=openai_client()),
        "a client holds a key and connections",
    ),
    "confirm": (
        lambda client: lazy_rows().amr.map("x", budget=amr.Budget(confirm=bool)),
        "needs an estimate of all rows",
    ),
}


def lazy_rows():
    return dd.from_pandas(rows(2), npartitions=1)


def openai_client():
    import openai

    return amr.LM("scripted", client=openai.AsyncOpenAI(api_key="k", base_url="http://127.0.0.1:9/v1"))


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_go_to_a_cluster_is_refused_before_anything_is_sent(name, client, monkeypatch):
    monkeypatch.setenv("AMR_MODEL", "scripted")
    call, message = REFUSED[name]
    with ScriptedServer(lambda request: None) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        with pytest.raises((amr.AMRError, AttributeError), match=message):
            call(client)
        assert server.requests == []


def test_a_dask_frame_without_a_client_says_how_to_make_one():
    code = """
import dask.dataframe as dd, pandas as pd, pandas_amr as amr
amr.map(dd.from_pandas(pd.DataFrame({"text": ["a"]}), npartitions=1), lambda shard: [{"n": 1}])
"""
    assert "client = dask.distributed.Client()" in run_python(code).stderr


def test_an_exception_of_a_function_fails_its_rows_or_ends_the_run_and_no_log_shows_a_cell(client):
    frame = make_frame([1, 13, 3], ["secret"])
    assert amr.map(frame, measure, engine=client)["length"].isna().tolist() == [False, True, False]
    with pytest.raises(amr.MapFailed, match=r"row 1: ValueError.*13") as raised:
        amr.map(frame, measure, engine=client, errors="raise")
    assert raised.value.partial.failures["position"].tolist() == [1]
    logs = [text for lines in client.get_worker_logs().values() for _, text in lines]
    logs += [text for _, text in client.get_scheduler_logs()]
    assert not [text for text in logs if "row 13" in text or "secret" in text]


def test_a_key_enters_no_pickle_and_a_worker_takes_its_own(client, monkeypatch):
    pickled = []
    monkeypatch.setattr(client, "submit", recording(client.submit, pickled))
    with ScriptedServer(provider) as server:
        rows(4).amr.map("Which?", lm=server.lm(api_key="sk-of-the-driver"), engine=client, **ASKED)
        keys = {request.headers["authorization"] for request in server.requests}
    assert keys == {"Bearer scripted-key"}
    assert pickled
    assert not [data for data in pickled if b"sk-of-the-driver" in data or b"scripted-key" in data]


def recording(submit, pickled):
    def submit_recorded(function, *args, **options):
        pickled.append(cloudpickle.dumps(args))
        pickled.extend(arg.data for arg in args)
        pickled.extend(arg.open().order for arg in args if hasattr(arg.open(), "order"))
        return submit(function, *args, **options)

    return submit_recorded


# Limits


def test_workers_together_stay_within_one_limit(client, tmp_path):
    with ScriptedServer(provider, latency_s=0.05) as server:
        lm = server.lm(max_parallelism=3)
        ask = ASKED | {"plan": {"shard_size": 1}, "max_parallelism": 16}
        with amr.settings(lease=tmp_path / "lease"):
            rows(60).amr.map("Which?", lm=lm, engine=client, **ask)
        assert len(server.requests) == 60
        assert server.max_in_flight <= 3


@pytest.mark.parametrize("shared", [None, "of several"])
def test_workers_together_stay_within_one_budget_and_the_same_call_goes_on(client, tmp_path, shared):
    with ScriptedServer(provider) as server:
        ask = {"finding": {"n": int}, "plan": {"shard_size": 1}, "lm": server.lm(), "engine": client}
        with amr.settings(lease=tmp_path / "lease", journal=tmp_path / "journal.db"):
            found = rows(60).amr.map("Which?", budget=amr.Budget(calls=20, shared=shared), **ask)
            result = amr.result_of(found)
            assert result.stopped.startswith("The budget of 20 calls ")
            assert ("share as" in result.stopped) == bool(shared)
            assert len(server.requests) == 20
            assert result.total.calls == 20
            assert found["n"].notna().sum() == 20
            again = rows(60).amr.map("Which?", **ask)
        assert again["n"].tolist() == list(range(60))
        assert len(server.requests) == 60


def test_a_wrong_key_ends_the_run_with_one_error(client):
    with ScriptedServer(lambda request: Status(401, "wrong key")) as server:
        with pytest.raises(amr.ModelConfigError, match="key") as raised:
            rows(40).amr.map("Which?", lm=server.lm(), engine=client, **ASKED)
        assert len(server.requests) <= 2
    assert raised.value.partial.status["status"].tolist() == ["skipped"] * 40


# Deaths


def counted(asked, hold):
    """Answer with the number of each row, count how often each was asked about, and hold answers while ``hold``."""

    async def answer_counted(request):
        numbers = [one["n"] for one in provider(request)["findings"]]
        asked.update(numbers)
        await hold(len(asked))
        return provider(request)

    return answer_counted


class Disturbance:
    """Does something once so many rows were asked about, while the answers to others are held."""

    def __init__(self, after, act):
        self.after = after
        self.act = act
        self.reached = threading.Event()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        self.reached.wait()
        self.act()
        self.done.set()

    async def hold(self, rows):
        if rows >= self.after:
            self.reached.set()


ROWS = 2000
SHARD = 10
IN_FLIGHT = 8
DISTURBED = {"finding": {"n": int}, "columns": ["text"], "plan": {"shard_size": SHARD}, "max_parallelism": IN_FLIGHT}


def test_a_worker_that_is_killed_costs_what_was_in_flight_there_and_what_it_found_last(harmed, tmp_path):
    pid = min(harmed.run(os.getpid).values())
    asked, open_then = Counter(), []

    def kill_it():
        kept = len(amr.Journal(tmp_path / "journal.db"))
        os.kill(pid, signal.SIGKILL)
        open_then.append(sum(asked.values()) - kept)  # answered, and not reported yet

    kill = Disturbance(ROWS // 5, kill_it)
    with ScriptedServer(counted(asked, kill.hold), latency_s=0.01) as server:
        found = rows(ROWS).amr.map(
            "Which?",
            lm=server.lm(max_parallelism=IN_FLIGHT),
            engine=harmed,
            journal=tmp_path / "journal.db",
            **DISTURBED,
        )
        assert found["n"].tolist() == list(range(ROWS))
        assert server.max_in_flight <= IN_FLIGHT
        assert kill.done.is_set()
        assert len(asked) == ROWS
        assert sum(asked.values()) - ROWS <= open_then[0] + IN_FLIGHT * SHARD
        assert REPORT_S <= 1
    assert len(amr.Journal(tmp_path / "journal.db")) == ROWS


def test_a_connection_to_the_scheduler_that_is_lost_once_costs_nothing(harmed):
    asked = Counter()
    lose = Disturbance(ROWS // 5, lambda: harmed.loop.add_callback(harmed.scheduler_comm.comm.abort))
    with ScriptedServer(counted(asked, lose.hold), latency_s=0.01) as server:
        found = rows(ROWS).amr.map("Which?", lm=server.lm(), engine=harmed, **DISTURBED)
    assert lose.done.is_set()
    assert found["n"].tolist() == list(range(ROWS))
    assert set(asked.values()) == {1}


def test_a_scheduler_that_is_gone_ends_the_run_and_the_same_call_goes_on(harmed, tmp_path):
    asked = Counter()
    scheduler = harmed.cluster.scheduler
    end = Disturbance(ROWS // 5, lambda: scheduler.loop.add_callback(scheduler.close))
    with ScriptedServer(counted(asked, end.hold), latency_s=0.01) as server:
        ask = DISTURBED | {"lm": server.lm(), "journal": tmp_path / "journal.db"}
        with pytest.raises(amr.RunStopped, match="connection to the scheduler .* was lost") as raised:
            rows(ROWS).amr.map("Which?", engine=harmed, **ask)
        assert len(raised.value.partial.status) == ROWS
        known = len(amr.Journal(tmp_path / "journal.db"))
        assert known >= ROWS // 5 - IN_FLIGHT * SHARD
        before = sum(asked.values())
        assert rows(ROWS).amr.map("Which?", **ask)["n"].tolist() == list(range(ROWS))
        assert sum(asked.values()) - before == ROWS - known


def test_a_run_that_is_cancelled_stops_the_workers_and_keeps_what_they_found(client, tmp_path):
    asked = Counter()
    begun = Disturbance(ROWS // 10, lambda: None)
    with ScriptedServer(counted(asked, begun.hold), latency_s=0.01) as server:
        ask = DISTURBED | {"lm": server.lm(), "journal": tmp_path / "journal.db"}
        run = rows(ROWS).amr.start(map="Which?", reduce={"n": "sum"}, engine=client, **ask)
        until(begun.done.is_set)
        with run:
            pass  # which leaves the block at once, and so stops the run
        until(lambda: not server.in_flight)
        stopped_at = sum(asked.values())
        assert stopped_at < ROWS
        known = len(amr.Journal(tmp_path / "journal.db"))
        assert stopped_at - known <= IN_FLIGHT * SHARD
        rows(ROWS).amr.map("Which?", engine=client, **ask)
        assert sum(asked.values()) - stopped_at == ROWS - known


def test_code_of_agents_runs_in_the_sandboxes_of_the_workers(client, sandboxed):
    def script(request):
        if request.tool_results:
            return findings(request, number)
        code = "submit(df.assign(n=df['text'].str.split().str[1].astype(int))[['unit', 'n']])"
        return Call("python_repl", {"code": code})

    with ScriptedServer(script) as server:
        result = rows(10).amr.map_reduce(
            map="Which?", reduce={"n": "sum"}, lm=server.lm(), engine=client, tools=[amr.PythonREPLTool()], **ASKED
        )
    assert int(result.output["n"]) == 45
    assert result.sandbox in {"strong", "strict-lite"}


def test_an_order_is_sealed_so_that_a_log_of_dask_shows_nothing_of_it():
    sealed = Sealed.of("rows of part 3", rows(2))
    assert repr(pickle.loads(pickle.dumps(sealed))) == "<rows of part 3>"
    assert sealed.open()["text"].tolist() == ["row 0", "row 1"]


def test_without_dask_the_package_imports_and_says_what_is_missing():
    code = "import sys, pandas_amr; assert not {'dask', 'distributed'} & set(sys.modules)"
    assert run_python(code).returncode == 0
    hidden = "import sys; sys.modules['distributed'] = None; import pandas_amr.dask"
    shown = run_python(hidden).stderr
    assert "pandas_amr.dask needs 'distributed'" in shown
    assert 'pip install "pandas-amr[dask]"' in shown


# Odd frames, odd clusters


def test_a_frame_without_rows_and_an_empty_partition_are_mapped_as_any(client):
    with ScriptedServer(provider) as server:
        ask = ASKED | {"lm": server.lm()}
        assert rows(0).amr.map("Which?", engine=client, **ask).dtypes["n"] == "int64[pyarrow]"
        lazy = dd.from_pandas(rows(6), npartitions=3)
        found = lazy[lazy["text"] != "row 2"].loc[4:].amr.map("Which?", **ask)
        assert found.compute()["n"].tolist() == [4, 5]
        assert amr.result_of(found).status.index.tolist() == [4, 5]
        none = lazy[lazy["text"] == "x"].amr.map_reduce(map="Which?", reduce={"n": "sum"}, **ask)
        assert len(none.frame.compute()) == 0


def test_what_failed_on_the_cluster_is_tried_again_here(client):
    failing = {"row 3"}

    def refuses(request):
        return Status(400, "no") if any(f'"{one}"' in request.user for one in failing) else provider(request)

    with ScriptedServer(refuses) as server:
        result = rows(6).amr.map_reduce(map="Which?", reduce={"n": "sum"}, lm=server.lm(), engine=client, **ASKED)
        assert result.failures["position"].tolist() == [3]
        failing.clear()
        asked = len(server.requests)
        assert int(result.retry().output["n"]) == 15
        assert len(server.requests) == asked + 1


def test_a_function_with_a_version_is_kept_in_the_journal_of_the_driver(client, tmp_path):
    def count(shard):
        return [{"n": len(text)} for text in shard["text"]]

    count.amr_version = "1"
    ask = {"finding": {"n": int}, "journal": tmp_path / "journal.db"}
    frame = rows(6)
    assert amr.map(frame, count, engine=client, **ask)["n"].tolist() == [5] * 6
    assert amr.result_of(amr.map(frame, count, **ask)).status["from_journal"].all()


def test_the_seconds_of_a_budget_end_the_run_on_the_cluster_with_what_was_found(client):
    async def answers_once(request):
        if "row 0" not in request.user:
            await never(request)
        return provider(request)

    with ScriptedServer(answers_once) as server:
        ask = ASKED | {"lm": server.lm(), "budget": amr.Budget(seconds=6000)}
        run = rows(40).amr.start(map="Which?", reduce={"n": "sum"}, engine=client, **ask)
        until(lambda: run.progress.found == 5)
        move_on(7000)
        result = run.result()
        assert result.stopped == "The budget of 6000 seconds is used up."
        assert result.frame["n"].notna().tolist() == [True] * 5 + [False] * 35
        until(lambda: not server.in_flight)


def test_offline_nothing_is_asked_on_the_cluster_either(client, refusing):
    with amr.settings(offline=True, lm=refusing.lm()):
        with pytest.raises(amr.ModelOffline, match="6 of 6 rows would be asked"):
            rows(6).amr.map("Which?", engine=client, **ASKED)
        with pytest.raises(amr.ModelOffline, match="rows would be asked"):
            dd.from_pandas(rows(6), npartitions=2).amr.map("Which?", **ASKED)


def test_a_budget_that_wants_to_be_confirmed_is_before_anything_is_sent(client):
    seen = []
    with ScriptedServer(provider) as server:
        budget = amr.Budget(confirm=lambda estimate: bool(seen.append(estimate.calls)))
        with pytest.raises(amr.NotConfirmed):
            rows(20).amr.map("Which?", lm=server.lm(), engine=client, budget=budget, **ASKED)
        assert (seen, server.requests) == ([4], [])


def test_a_cluster_of_threads_in_this_process_serves_too(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "scripted-key")
    here = {"processes": False, "n_workers": 1, "threads_per_worker": 2, "dashboard_address": "127.0.0.1:0"}
    with distributed.Client(**here) as threads, ScriptedServer(provider) as server:
        found = rows(20).amr.map("Which?", lm=server.lm(), engine=threads, **ASKED)
    assert found["n"].tolist() == list(range(20))


def test_an_asynchronous_client_serves_in_its_own_loop(client):
    async def in_loop():
        async with distributed.Client(client.scheduler.address, asynchronous=True) as own:
            with ScriptedServer(provider) as server:
                ask = ASKED | {"lm": server.lm(), "engine": own}
                result = await rows(10).amr.start(map="Which?", reduce={"n": "sum"}, **ask)
                lazy = await dd.from_pandas(rows(10), npartitions=2).amr.start(map="Which?", reduce={"n": "max"}, **ask)
        return int(result.output["n"]), int(lazy.output["n"])

    assert asyncio.run(in_loop()) == (45, 9)


def test_a_mapper_made_while_an_engine_is_set_is_pickled_without_it(client):
    with amr.settings(engine=client):
        mapper = amr.mapper(measure, finding={"length": int, "half": float})
    assert pickle.loads(cloudpickle.dumps(mapper))(rows(2))["length"].tolist() == [5, 5]


def test_sources_are_rows_by_their_labels_and_what_needs_all_rows_here_is_refused(client):
    def sources(request):
        return {"output": "all", "sources": [0, 3]} if request.schema == "reduction" else provider(request)

    with ScriptedServer(sources) as server:
        lazy = dd.from_pandas(labelled_rows(8), npartitions=3, sort=False)
        result = lazy.amr.map_reduce(map="Which?", reduce="Sum up.", output=str, lm=server.lm(), **ASKED)
    assert result.sources["label"].tolist() == ["label 0", "label 3"]
    assert result.explain()["n"].tolist() == [0, 3]
    assert [one.n for one in result.records] == list(range(8))
    refused = {
        "retry": result.retry,
        "score": result.score,
        "verify": result.verify,
        "review": result.review,
        "save": lambda: result.save("folder"),
        "to_html": lambda: result.to_html("file.html"),
    }
    for method, call in refused.items():
        with pytest.raises(amr.UsageError, match=rf"A result of a Dask frame has no {method}\(\): "):
            call()
    with pytest.raises(amr.UsageError, match=r"result.frame.compute\(\)"):
        pa.table(result)


def test_what_a_person_corrected_holds_on_the_cluster_too(client, tmp_path):
    with ScriptedServer(provider) as server:
        ask = ASKED | {"lm": server.lm(), "journal": tmp_path / "journal.db"}
        reduced = {"map": "Which?", "reduce": {"n": "sum"}}
        rows(12).amr.map_reduce(**reduced, **ask).override(pd.DataFrame({"n": [70]}, index=[7]))
        there = rows(12).amr.map_reduce(engine=client, **reduced, **ask)
        here = rows(12).amr.map_reduce(**reduced, **ask)
        assert len(server.requests) == 3
    assert int(there.output["n"]) == int(here.output["n"]) == 66 - 7 + 70
    assert there.status["status"].tolist() == here.status["status"].tolist()
    assert there.status["status"].tolist().count("corrected") == 1
