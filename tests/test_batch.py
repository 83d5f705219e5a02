"""The batch endpoint: half the price, resumable, partial results accepted."""

from __future__ import annotations

import asyncio
import threading
import time

import pandas as pd
import pytest

import pandas_amr as amr
from pandas_amr.testing import Call, ScriptedServer, Status, findings
from together import Together
from versions import once

pytestmark = once

DF = pd.DataFrame({"text": [f"row {n}" for n in range(60)]})
OPTIONS = {"map": "Which?", "finding": {"n": int}, "reduce": {"n": "sum"}, "plan": {"shard_size": 5}}


def provider(request):
    if request.schema == "reduction":
        return {"output": "written", "sources": []}
    return findings(request, lambda unit: {"n": int(unit["text"].split()[1])})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def records(folder):
    return list((folder / "pandas-amr" / "batches").rglob("*.json"))


def stopped_once(reached, frame, **options):
    """A run that is cancelled as soon as something holds, and waited for until nothing of it goes on."""
    run = frame.amr.start(**options)
    latest = time.monotonic() + 30
    while not reached() and time.monotonic() < latest:
        time.sleep(0.005)
    assert reached()
    run.cancel()
    return run


def stopped_under_way(folder, frame, **options):
    """A run that is stopped when its batch has been sent and remembered."""
    run = stopped_once(lambda: any(file.stat().st_size for file in records(folder)), frame, **options)
    with pytest.raises(asyncio.CancelledError):
        list(run)


def test_maps_without_tools_go_in_one_batch_at_half_the_price(cache):
    with ScriptedServer(provider) as server:
        lm = server.lm(batch=True, batch_poll_s=0.02, prices=(1.0, 1.0))
        result = DF.amr.map_reduce(**(OPTIONS | {"reduce": "Write."}), max_parallelism=2, lm=lm)
        assert len(server.batches) == 1
    assert result.findings["n"].tolist() == list(range(60))
    assert result.output == "written"
    usage = result.usage
    assert usage.loc["map", "money"] == pytest.approx(
        0.5 * (usage.loc["map", ["input_tokens", "output_tokens"]].sum()) / 1e6
    )
    reduced = usage.loc["reduce", ["input_tokens", "output_tokens"]].sum()
    assert usage.loc["reduce", "money"] == pytest.approx(reduced / 1e6)
    assert records(cache) == []


def test_what_a_batch_did_not_answer_goes_into_the_next():
    with ScriptedServer(provider) as server:
        server.batch_answers = 5
        result = DF.amr.map_reduce(**OPTIONS, lm=server.lm(batch=True, batch_poll_s=0.02))
        assert len(server.batches) >= 3  # 12 requests, five at a time at most
        assert len(server.requests) == 12
    assert result.output["n"] == sum(range(60))
    assert result.total.calls == 12
    assert 12 + 7 <= result.total.tries <= 12 + 7 + 2


def test_a_row_that_a_batch_refuses_costs_itself():
    def script(request):
        if any(unit["text"] == "row 33" for unit in request.units):
            return Status(400, "we will not process this")
        return provider(request)

    with ScriptedServer(script) as server:
        result = DF.amr.map_reduce(**OPTIONS, lm=server.lm(batch=True, batch_poll_s=0.02))
    assert result.failures[["position", "reason"]].values.tolist() == [
        [33, "The server answered 400: we will not process this"]
    ]
    assert result.output["n"] == sum(range(60)) - 33


def test_a_run_that_was_stopped_finds_its_batch_again_and_pays_nothing_twice(cache):
    with ScriptedServer(provider) as server:
        server.batch_polls = 10**6
        stopped_under_way(cache, DF, **OPTIONS, lm=server.lm(batch=True, batch_poll_s=0.02))
        assert len(server.batches) == len(records(cache)) == 1
        server.batches["batch-0"]["polls"] = 1
        result = DF.amr.map_reduce(**OPTIONS, lm=server.lm(batch=True, batch_poll_s=0.02))
        assert len(server.batches) == 1
        assert len(server.requests) == 12
    assert result.output["n"] == sum(range(60))


def test_a_batch_that_was_being_created_when_its_run_was_stopped_is_found_again_too(cache):
    """The server takes a second to make the batch of its file; the run, stopped meanwhile, waits for its name."""
    stopped = threading.Event()

    async def creating(request):
        if not stopped.is_set():
            await asyncio.to_thread(stopped.wait, 30)
        return provider(request)

    with ScriptedServer(creating) as server:
        lm = server.lm(batch=True, batch_poll_s=0.02)
        run = stopped_once(lambda: server.requests, DF, **OPTIONS, lm=lm)
        threading.Timer(0.3, stopped.set).start()
        with pytest.raises(asyncio.CancelledError):
            list(run)
        assert len(server.batches) == len(records(cache)) == 1
        result = DF.amr.map_reduce(**OPTIONS, lm=lm)
        assert len(server.batches) == 1
        assert len(server.requests) == 12
    assert result.output["n"] == sum(range(60))


def test_a_batch_under_way_is_found_again_among_other_rows_and_what_it_holds_is_not_asked_twice(cache):
    """Ten rows more, and ten of the first left out: the batch is waited for, and only the new rows go into another."""
    one_row = OPTIONS | {"plan": {"shard_size": 1}}
    with ScriptedServer(provider) as server:
        server.batch_polls = 10**6
        lm = server.lm(batch=True, batch_poll_s=0.02)
        stopped_under_way(cache, DF.head(50), **one_row, lm=lm)
        server.batches["batch-0"]["polls"] = 1
        server.batch_polls = 1
        result = DF.iloc[10:].amr.map_reduce(**one_row, lm=lm)
        assert len(server.batches) == 2
        assert len(server.requests) == 60
        assert result.output["n"] == sum(range(10, 60))
        assert len(records(cache)) == 1  # of the ten that nobody has asked for since
        rest = DF.head(10).amr.map_reduce(**one_row, lm=lm)
        assert len(server.requests) == 60
    assert rest.output["n"] == sum(range(10))
    assert records(cache) == []


def test_a_record_that_was_half_written_costs_a_batch_and_no_more(cache):
    with ScriptedServer(provider) as server:
        server.batch_polls = 10**6
        lm = server.lm(batch=True, batch_poll_s=0.02)
        stopped_under_way(cache, DF, **OPTIONS, lm=lm)
        records(cache)[0].write_text('{"id": "bat')
        server.batch_polls = 1
        result = DF.amr.map_reduce(**OPTIONS, lm=lm)
    assert result.output["n"] == sum(range(60))


def test_a_batch_that_the_server_has_forgotten_is_made_anew(cache):
    with ScriptedServer(provider) as server:
        server.batch_polls = 10**6
        stopped_under_way(cache, DF, **OPTIONS, lm=server.lm(batch=True, batch_poll_s=0.02))
        server.batches.clear()
        server.batch_polls = 1
        result = DF.amr.map_reduce(**OPTIONS, lm=server.lm(batch=True, batch_poll_s=0.02))
    assert result.output["n"] == sum(range(60))


def test_agents_with_tools_do_not_wait_for_a_batch():
    @amr.tool
    def look(x: int) -> int:
        """Look."""
        return x

    def script(request):
        return provider(request) if request.tool_results else Call("look", {"x": 1})

    with ScriptedServer(Together(script, 2), latency_s=0.01) as server:
        result = DF.amr.map_reduce(
            **OPTIONS, tools=[look], max_parallelism=2, lm=server.lm(batch=True, batch_poll_s=0.02)
        )
        assert server.batches == {}
        assert server.max_in_flight == 2
    assert result.output["n"] == sum(range(60))
