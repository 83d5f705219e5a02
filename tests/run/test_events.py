"""Events: whatever a run does is told, in order and once, and who listens never breaks it."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import pickle
import threading
from collections import Counter
from typing import Any

import msgspec
import pandas as pd
import pytest

import pandas_amr as amr
from moments import LONGEST_S, move_on, never, until
from numbered import number, provider, rows
from pandas_amr import events
from pandas_amr._context import delivery
from pandas_amr._records.usage import Usage
from pandas_amr.events import (
    CallBegan,
    CallEnded,
    Failed,
    Halved,
    Landed,
    NodeBegan,
    NodeEnded,
    Recalled,
    RunBegan,
    RunEnded,
    ToolBegan,
    ToolEnded,
    Waited,
)
from pandas_amr.testing import Call, Drop, Raw, ScriptedServer, Status, findings
from planner_answers import answer, computed, field

pytestmark = pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")

MAPPED: dict[str, Any] = {"map": "Which number?", "finding": {"n": int}}
ALONE = {"shard_size": 1}
CELL = "row 3"  # stands in the rows of every case


def of(log: list[Any], kind: type) -> list[Any]:
    return [event for event in log if isinstance(event, kind)]


def counts(log: list[Any]) -> Counter[str]:
    return Counter(type(event).__name__ for event in log)


def check(log: list[Any], result: Any = None) -> None:
    """Check what holds of the events of any run."""
    check_order(log)
    check_pairs(log)
    spent = sum((event.usage for event in of(log, CallEnded)), Usage())
    recalled = sum(event.answers for event in of(log, Recalled))
    total = log[-1].usage
    assert dataclasses.replace(total, recalled=0, seconds=0, money=0) == dataclasses.replace(spent, seconds=0, money=0)
    assert recalled == total.recalled
    assert CELL not in repr(log)
    if result is not None:
        assert total == result.total
        check_nodes(log, result)


def check_order(log: list[Any]) -> None:
    """Check that the run's begin is first and its end last, and that what has a begin has an end."""
    assert isinstance(log[0], RunBegan)
    assert isinstance(log[-1], RunEnded)
    told = counts(log)
    assert told["RunBegan"] == told["RunEnded"] == 1
    assert len({event.run for event in log}) == 1
    times = [event.time for event in log]
    assert times == sorted(times)
    for began, ended in (("NodeBegan", "NodeEnded"), ("CallBegan", "CallEnded"), ("ToolBegan", "ToolEnded")):
        assert told[began] == told[ended]
    assert [event.call for event in of(log, CallBegan)] == list(range(1, told["CallBegan"] + 1))


def check_pairs(log: list[Any]) -> None:
    """Check that all happens between the begin and the end of what it is a part of."""
    open_nodes: list[str] = []
    open_calls: dict[int, str] = {}
    open_tools: dict[int, Any] = {}
    for event in log:
        match event:
            case NodeBegan():
                assert event.node not in open_nodes
                assert not event.within or event.within in open_nodes
                open_nodes.append(event.node)
            case NodeEnded():
                open_nodes.remove(event.node)
            case CallBegan():
                assert not event.tool or event.tool in open_tools
                open_calls[event.call] = event.node
            case CallEnded():
                assert open_calls.pop(event.call) == event.node
            case ToolBegan():
                assert event.call not in open_calls
                open_tools[event.number] = event
            case ToolEnded():
                assert open_tools.pop(event.number).tool == event.tool
            case Waited():
                assert not event.call or event.call in open_calls
        if not isinstance(event, NodeEnded | Landed | Failed | RunBegan | RunEnded):
            assert not event.node or event.node in open_nodes
    assert (open_nodes, open_calls, open_tools) == ([], {}, {})


def check_nodes(log: list[Any], result: Any) -> None:
    """Check that the nodes that were told are those of the result's graph."""
    told = {event.id: event for event in of(log, NodeEnded)}
    drawn = {node.id: node for node in result.graph().nodes}
    assert told.keys() >= drawn.keys()
    parts = {name for name in told if name.startswith("map-part-")}
    assert all(name.startswith("map-part-") for name in told.keys() - drawn.keys()), parts
    for name, node in drawn.items():
        event = told[name]
        assert (event.type, event.parents, event.status) == (node.type, node.parents, node.status)
        assert event.usage.tokens == node.tokens


def listen(call: Any, **options: Any) -> tuple[list[Any], Any]:
    """Make a call with a listener; return what it was told, and what the call gives."""
    log: list[Any] = []
    given = call(**{"journal": False, "on_event": log.append, **options})
    return log, given


def reducing(request: Any) -> Any:
    """Answer maps with numbers, and reduces with a text."""
    if request.schema == "reduction":
        return {"output": "a text", "sources": [0]}
    return provider(request)


# What is told


def one_bad_row(request: Any) -> Any:
    """Leave out the finding of one row, whenever it is asked for."""
    units = [unit for unit in request.units if unit["text"] != CELL]
    repaired = request.repairs or [unit["unit"] for unit in request.units]
    return {"findings": [{"unit": unit["unit"], **number(unit)} for unit in units if unit["unit"] in repaired]}


def bad_at_first(request: Any) -> Any:
    if request.schema == "reduction":
        text = "a text" if "cannot be used" in request.user else 7
        return {"output": text, "sources": [0]}
    return provider(request) if request.repairs else {"findings": []}


def chooses(request: Any) -> Any:
    if request.schema != "reduction":
        return provider(request)
    return {"output": {"field": "n", "function": "sum"}, "sources": [0]}


def has_it_written(request: Any) -> Any:
    if request.schema == "reduction" and "computes" in request.system:
        return {"output": {"field": None, "function": "written", "condition": None}, "sources": []}
    return {"output": 7, "sources": [0]} if request.schema == "reduction" else provider(request)


def plans(request: Any) -> Any:
    if request.schema != "plan":
        return provider(request)
    return answer(
        "Which number?", field("n", "int", description="the number"), aggregations=[computed("n", "sum")], shard_size=2
    )


def looks_first(request: Any) -> Any:
    return provider(request) if request.tool_results else [Call("look", {"what": "a"}), Call("look", {"what": 3})]


def look(what: str) -> str:
    """Look something up."""
    return what


def codes(request: Any) -> Any:
    if "python_repl" not in request.tools:
        return provider(request)
    if not request.tool_results:
        return Call("python_repl", {"code": "1 / 0"})
    return Call("python_repl", {"code": "submit(ask(df['text'], 'Which number?', {'n': int}))"})


def lengths(shard: pd.DataFrame) -> list[dict[str, int]]:
    return [{"length": len(text)} for text in shard["text"]]


def map_reduce(frame: pd.DataFrame, server: ScriptedServer, **options: Any) -> Any:
    return functools.partial(frame.amr.map_reduce, lm=server.lm(), **options)


def recipe(frame: pd.DataFrame, server: ScriptedServer) -> Any:
    inner = amr.Recipe().map("Which number?", finding={"n": int}).reduce("Write.", output=str)
    outer = amr.Recipe().map(inner, finding={"about": str}).reduce("Write.", output=str)
    return functools.partial(outer, frame, lm=server.lm())


# By name: the script, the call, and how many events of which kind there are.
TOLD: dict[str, tuple[Any, Any, dict[str, int]]] = {
    "shards": (
        reducing,
        lambda server: map_reduce(rows(6), server, **MAPPED, reduce={"n": "sum"}, plan={"shard_size": 2}),
        {"NodeBegan": 3 + 1, "CallBegan": 3, "Landed": 3},
    ),
    "equal rows": (
        reducing,
        lambda server: map_reduce(pd.concat([rows(4)] * 2), server, **MAPPED, reduce={"n": "sum"}, plan=ALONE),
        {"NodeBegan": 4 + 1, "CallBegan": 4, "Landed": 4},
    ),
    "two maps": (
        reducing,
        lambda server: map_reduce(
            rows(4), server, map={"a": "x", "b": "y"}, finding={"a": {"n": int}, "b": {"n": int}}, reduce={"a_n": "sum"}
        ),
        {"NodeBegan": 2 + 1, "CallBegan": 2, "Landed": 2},
    ),
    "a static tree": (
        reducing,
        lambda server: map_reduce(rows(5), server, **MAPPED, reduce="Write.", plan={"shard_size": 1, "fan_in": 2}),
        {"NodeBegan": 5 + 3 + 2 + 1, "CallBegan": 5 + 2 + 1 + 1, "Landed": 5},
    ),
    "an adaptive tree": (
        reducing,
        lambda server: map_reduce(
            rows(60), server, **MAPPED, reduce="Write.", plan={"shard_size": 60, "reduce_budget": 300}
        ),
        {"Landed": 1},
    ),
    "a tree per group": (
        reducing,
        lambda server: map_reduce(rows(4, group=["a", "b"] * 2), server, **MAPPED, reduce="Write.", by="group"),
        {"NodeBegan": 1 + 2, "CallBegan": 1 + 2, "Landed": 1},
    ),
    "a chosen number": (
        chooses,
        lambda server: map_reduce(rows(6), server, **MAPPED, reduce="The sum", output=int),
        {"NodeBegan": 1 + 2, "CallBegan": 2, "Landed": 1},
    ),
    "a direct answer": (
        reducing,
        lambda server: map_reduce(rows(6), server, **MAPPED, reduce="Write.", output=str, plan={"direct": True}),
        {"NodeBegan": 1, "CallBegan": 1},
    ),
    "a plan": (
        plans,
        lambda server: map_reduce(rows(4), server, task="What is the sum of the numbers?"),
        {"NodeBegan": 1 + 2 + 1, "CallBegan": 1 + 2, "Landed": 2},
    ),
    "a pipeline per row": (
        reducing,
        lambda server: recipe(rows(2), server),
        {"NodeBegan": 1 + 2 + 2 + 1, "CallBegan": 5, "Landed": 1 + 2},
    ),
    "functions": (
        provider,
        lambda server: functools.partial(rows(4).amr.map_reduce, map=lengths, reduce={"length": "sum"}),
        {"NodeBegan": 1 + 1, "CallBegan": 0, "Landed": 1},
    ),
    "repairs": (
        bad_at_first,
        lambda server: map_reduce(rows(4), server, **MAPPED, reduce="Write.", output=str, plan={"shard_size": 2}),
        {"NodeBegan": 3, "CallBegan": 6, "Repaired": 3, "Landed": 2},
    ),
    "a row that fails": (
        one_bad_row,
        lambda server: map_reduce(
            rows(8), server, **MAPPED, reduce={"n": "sum"}, plan={"shard_size": 4, "max_repairs": 0}
        ),
        {"Landed": 2, "Failed": 1, "Repaired": 0},
    ),
    "tools": (
        looks_first,
        lambda server: map_reduce(rows(4), server, **MAPPED, reduce={"n": "sum"}, tools=[look]),
        {"CallBegan": 2, "ToolBegan": 2, "Landed": 1},
    ),
    "code that asks": (
        codes,
        lambda server: map_reduce(rows(4), server, **MAPPED, reduce={"n": "sum"}, tools=[amr.PythonREPLTool()]),
        {"NodeBegan": 1 + 1, "CallBegan": 2 + 1, "ToolBegan": 2, "Landed": 1},
    ),
}


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.sampled(4)
def test_what_happens_is_told_in_order_and_once(name):
    script, make_call, expected = TOLD[name]
    with ScriptedServer(script) as server:
        log, result = listen(make_call(server))
        check(log, result)
        assert len(of(log, CallBegan)) == len(server.requests)
    told = counts(log)
    assert {kind: told[kind] for kind in expected} == expected
    assert log[-1].status == ("partial" if told["Failed"] else "ok")


def test_whether_a_number_is_computed_or_written_is_chosen_in_a_node_of_its_own():
    with ScriptedServer(has_it_written) as server:
        log, result = listen(map_reduce(rows(4), server, **MAPPED, reduce="How many weeks?", output=int))
    check(log, result)
    assert [(one.node, one.id) for one in of(log, NodeEnded)][1:] == [
        ("choose", "choose"),
        ("final-reduce", "final-reduce"),
    ]


def test_an_event_says_of_what_and_who_it_is():
    with ScriptedServer(one_bad_row) as server:
        host = server.base_url.partition("//")[2].partition("/")[0]
        options = {**MAPPED, "reduce": {"n": "sum"}, "plan": {"shard_size": 4, "max_repairs": 0}}
        frame = pd.concat([rows(4), rows(4)])
        log, _ = listen(map_reduce(frame, server, **options))
    first = of(log, CallBegan)[0]
    assert (first.phase, first.model, first.server, first.node) == ("map", "scripted", host, "map-1")
    last = of(log, CallEnded)[-1]
    assert (last.finish_reason, last.answered_by, last.error, last.tries) == ("stop", "scripted", "", 1)
    assert last.response == f"scripted-{len(server.requests) - 1}"
    assert [event.units for event in of(log, Halved)] == [1] or of(log, Halved) == []
    assert [(event.units, event.rows) for event in of(log, Landed)] == [(3, 6)]
    assert [(event.units, event.rows, event.who) for event in of(log, Failed)] == [(1, 2, "schema")]
    assert (log[0].verb, log[0].rows, log[0].task) == ("map_reduce", 8, None)


def test_a_shard_that_is_halved_is_told():
    def only_alone(request: Any) -> Any:
        return provider(request) if len(request.units) == 1 else {"findings": []}

    with ScriptedServer(only_alone) as server:
        log, result = listen(
            map_reduce(rows(4), server, **MAPPED, reduce={"n": "sum"}, plan={"shard_size": 4, "max_repairs": 0})
        )
    check(log, result)
    assert sorted(event.units for event in of(log, Halved)) == [2, 2, 4]


def test_a_tool_says_what_went_wrong_and_whose_call_it_was():
    with ScriptedServer(looks_first) as server:
        log, _ = listen(map_reduce(rows(4), server, **MAPPED, reduce={"n": "sum"}, tools=[look]))
    assert [(event.tool, event.call, event.is_code) for event in of(log, ToolBegan)] == [("look", 1, False)] * 2
    assert sorted(event.error for event in of(log, ToolEnded)) == ["", "ValidationError"]


def test_code_that_fails_is_told_and_what_it_asks_stands_in_its_tool():
    with ScriptedServer(codes) as server:
        log, _ = listen(
            map_reduce(rows(4), server, **MAPPED, reduce={"n": "sum"}, tools=[amr.PythonREPLTool()]),
        )
    check(log)
    assert [(event.error, event.is_code) for event in of(log, ToolEnded)] == [("CodeError", True), ("", True)]
    assert [(event.call, event.tool) for event in of(log, CallBegan)] == [(1, 0), (2, 0), (3, 2)]
    assert "1 / 0" not in repr(log)


def test_what_the_journal_has_is_told(tmp_path):
    plan = {"shard_size": 2, "fan_in": 2}
    with ScriptedServer(reducing) as server:
        call = map_reduce(rows(4), server, **MAPPED, reduce="Write.", plan=plan)
        listen(call, journal=tmp_path / "j.db")
        sent = len(server.requests)
        log, result = listen(call, journal=tmp_path / "j.db")
        assert len(server.requests) == sent
    check(log, result)
    assert counts(log)["CallBegan"] == 0
    assert [event.answers for event in of(log, Recalled)] == [4, 1]
    assert [(event.units, event.node) for event in of(log, Landed)] == [(4, "")]


def test_parts_tell_what_their_shards_do(tmp_path):
    paths = []
    for part in range(2):
        paths.append(tmp_path / f"{part}.parquet")
        rows(4).to_parquet(paths[-1])
    log: list[Any] = []
    with ScriptedServer(provider) as server:
        result = amr.map_reduce(
            paths, **MAPPED, reduce={"n": "sum"}, plan={"shard_size": 2}, out=tmp_path / "out", lm=server.lm(),
            journal=False, on_event=log.append,
        )  # fmt: skip
    check(log, result)
    nodes = {event.node: event.within for event in of(log, NodeBegan)}
    assert set(nodes) == {
        "map-part-0", "map-part-0/map-1", "map-part-0/map-2", "map-part-1", "map-part-1/map-1", "map-part-1/map-2",
        "compute",
    }  # fmt: skip
    assert nodes["map-part-1/map-2"] == "map-part-1"
    assert sum(event.rows for event in of(log, Landed)) == 8


# What is waited for


def fails_once(status: int, headers: dict[str, str] | None = None) -> Any:
    failed: list[int] = []

    def script(request: Any) -> Any:
        if not failed and len(request.units) and request.units[0]["text"] == CELL:
            failed.append(request.number)
            return Status(status, "no", headers=headers or {})
        return provider(request)

    return script


def drops_once() -> Any:
    dropped: list[int] = []

    def script(request: Any) -> Any:
        if request.number in {4, 5, 6} and len(dropped) < 3:
            dropped.append(request.number)
            return Drop()
        return provider(request)

    return script


WAITED: dict[str, tuple[Any, dict[str, Any], str, int]] = {
    "a server error": (fails_once(500), {}, "retry", 9),
    "a 429 that says how long": (fails_once(429, {"retry-after-ms": "400"}), {}, "limit", 9),
    "a rate": (provider, {"rpm": 60_000}, "place", 8),
    "a batch": (provider, {"batch": True, "batch_poll_s": 0.01}, "batch", 8),
}


@pytest.mark.parametrize("name", WAITED)
def test_a_wait_is_told_with_its_kind(name):
    script, lm_options, kind, tries = WAITED[name]
    with ScriptedServer(script) as server:
        lm = server.lm(f"waits for {name}", **lm_options)
        log, given = listen(functools.partial(rows(8).amr.map, "Which number?", finding={"n": int}, lm=lm, plan=ALONE))
        assert len(server.requests) == tries
    check(log, amr.result_of(given))
    kinds = {event.kind for event in of(log, Waited)}
    assert kind in kinds
    assert kinds <= {kind, "place"}
    assert counts(log)["CallEnded"] == 8
    assert log[-1].usage.tries == tries
    for event in of(log, CallEnded):
        assert 0 <= event.waited <= event.seconds + 1e-6


def test_a_wait_for_a_budget_is_told():
    async def slow(request: Any) -> Any:
        return provider(request)

    with ScriptedServer(slow, latency_s=0.01) as server:
        lm = server.lm("waits for a budget", max_output_tokens=1000)
        log, _ = listen(
            functools.partial(rows(8).amr.map, "Which number?", finding={"n": int}, lm=lm, plan=ALONE),
            budget=amr.Budget(tokens=2600),
        )
    check(log)
    assert "budget" in {event.kind for event in of(log, Waited)}


def test_what_another_run_asks_is_a_wait_for_the_journal(tmp_path):
    held, logs = threading.Event(), ([], [])

    async def holds(request: Any) -> Any:
        while not held.is_set():
            await asyncio.sleep(0.005)
        return provider(request)

    with ScriptedServer(holds) as server:
        runs = []
        for log in logs:
            runs.append(
                rows(2).amr.start(
                    **MAPPED, reduce={"n": "sum"}, lm=server.lm(), journal=tmp_path / "j.db", on_event=log.append
                )
            )
            until(lambda: server.in_flight)
        until(lambda: counts(logs[1])["NodeBegan"])
        held.set()
        results = [run.result() for run in runs]
        assert len(server.requests) == 1
    for log, result in zip(logs, results, strict=True):
        check(log, result)
    assert [event.kind for event in of(logs[1], Waited)] == ["journal"]
    assert [event.answers for event in of(logs[1], Recalled)] == [2]


def test_a_hedged_request_is_one_call_of_two_tries():
    """Row 30 is never answered at first, and its second request is sent only after ten minutes of the clock."""
    slowest_s = 600.0  # twenty answers took so long, and no other one does, however busy the machine is
    asked: list[str] = []

    async def script(request: Any) -> Any:
        text = request.units[0]["text"]
        asked.append(text)
        if len(asked) <= 20:
            move_on(slowest_s)
        elif text == "row 30" and asked.count(text) == 1:
            await never(request)
        return provider(request)

    with ScriptedServer(script) as server:
        lm = server.lm("hedged and told", hedge=True, timeout_s=100 * slowest_s)
        rows(20).amr.map("Which number?", finding={"n": int}, lm=lm, plan=ALONE, max_parallelism=1, journal=False)
        log: list[Any] = []
        run = rows(40).amr.start(
            **MAPPED, reduce={"n": "sum"}, lm=lm, plan=ALONE, max_parallelism=4, journal=False, on_event=log.append
        )
        until(lambda: run.progress.found == 39 and "row 30" in asked)
        move_on(2 * slowest_s)
        result = run.result()
    check(log, result)
    assert counts(log)["CallBegan"] == 40
    assert result.total.tries == len(asked) - 20 == 41
    assert sorted(event.tries for event in of(log, CallEnded)) == [1] * 39 + [2]


# How a run ends


def test_an_error_that_ends_a_run_is_told_by_its_type():
    log: list[Any] = []
    with ScriptedServer(lambda _: Status(401, f"no such key, {CELL}")) as server, pytest.raises(amr.ModelConfigError):
        rows(4).amr.map("x", lm=server.lm("refuses"), journal=False, on_event=log.append)
    check(log)
    assert [(event.error, event.finish_reason) for event in of(log, CallEnded)] == [("ModelConfigError", "")]
    assert (log[-1].status, log[-1].error) == ("failed", "ModelConfigError")


def test_a_budget_that_is_used_up_is_told():
    with ScriptedServer(provider) as server:
        log, _ = listen(
            map_reduce(rows(8), server, **MAPPED, reduce={"n": "sum"}, plan=ALONE), budget=amr.Budget(calls=3)
        )
    check(log)
    assert log[-1].status == "stopped"


def test_a_run_that_is_cancelled_tells_what_was_under_way():
    log: list[Any] = []
    with ScriptedServer(never) as server:
        run = rows(4).amr.start(**MAPPED, reduce={"n": "sum"}, lm=server.lm(), journal=False, on_event=log.append)
        until(lambda: server.in_flight)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            run.result()
    check(log)
    assert (log[-1].status, log[-1].error) == ("cancelled", "")
    assert [event.status for event in of(log, NodeEnded)] == ["cancelled"]
    assert [event.error for event in of(log, CallEnded)] == ["CancelledError"]


def test_a_plan_that_maps_nothing_is_a_run_too():
    with ScriptedServer(plans) as server:
        log, plan = listen(functools.partial(rows(4).amr.plan, "What is the sum?", lm=server.lm()))
    check(log)
    assert isinstance(plan, amr.Plan)
    assert [event.node for event in of(log, NodeBegan)] == ["plan"]
    assert counts(log).total() == 2 + 2 + 2
    assert (log[0].verb, log[0].task) == ("plan", "What is the sum?")


def test_an_estimate_by_a_sample_tells_what_it_maps_and_nothing_of_what_it_forecasts():
    with ScriptedServer(provider) as server:
        log, plan = listen(
            functools.partial(rows(8).amr.plan, **MAPPED, reduce={"n": "sum"}, lm=server.lm(), plan=ALONE)
        )
        assert [type(event) for event in log] == [RunBegan, RunEnded]
        log.clear()
        plan.estimate(sample=2)
        assert len(server.requests) == 2
    check(log)
    assert [(event.units, event.node) for event in of(log, Landed)] == [(1, event.node) for event in of(log, NodeEnded)]


# Who listens


def small_run(server: ScriptedServer, listener: Any, **options: Any) -> Any:
    frame = rows(6)
    return frame.amr.map(
        "Which number?", finding={"n": int}, lm=server.lm(), journal=False, plan=ALONE, on_event=listener, **options
    )


def test_a_listener_that_raises_is_one_warning_and_not_called_again():
    called: list[Any] = []

    def broken(event: Any) -> None:
        called.append(event)
        raise KeyError("broken")

    with ScriptedServer(provider) as server, pytest.warns(amr.EventWarning) as told:
        frame = small_run(server, broken)
    assert frame["n"].tolist() == list(range(6))
    assert len(called) == 1
    [warning] = told
    assert "KeyError: 'broken'" in str(warning.message)
    assert "test_events.py, line" in str(warning.message)
    assert warning.filename == __file__


def test_what_a_listener_raises_stands_in_the_warnings_of_the_result():
    began = threading.Event()

    def broken(event: Any) -> None:
        began.set()
        raise SystemExit

    async def waits(request: Any) -> Any:
        while not began.is_set():
            await asyncio.sleep(0.005)
        return provider(request)

    with ScriptedServer(waits) as server, pytest.warns(amr.EventWarning, match="SystemExit"):
        frame = small_run(server, broken)
    assert frame["n"].tolist() == list(range(6))
    assert [type(warning) for warning in amr.result_of(frame).warnings] == [amr.EventWarning]


@pytest.mark.filterwarnings("error::pandas_amr.EventWarning")
def test_a_filter_that_makes_its_warning_an_error_raises_with_what_was_found():
    def broken(event: Any) -> None:
        if type(event) is RunEnded:
            raise ValueError

    with ScriptedServer(provider) as server, pytest.raises(amr.EventWarning) as caught:
        small_run(server, broken)
    assert caught.value.partial.findings["n"].tolist() == list(range(6))


@pytest.mark.filterwarnings("ignore::pandas_amr.EventWarning")
def test_a_listener_that_never_returns_does_not_hold_the_run_for_ever(caplog):
    begun, freed = threading.Event(), threading.Event()

    def stuck(event: Any) -> None:
        begun.set()
        freed.wait(LONGEST_S)

    with ScriptedServer(provider) as server:
        run = rows(2).amr.start(**MAPPED, reduce={"n": "sum"}, lm=server.lm(), journal=False, on_event=stuck)
        until(lambda: begun.is_set() and run.progress.found == 2)  # from here on nothing else has a time limit
        until(lambda: move_on(delivery.GRACE_S) or run.done())
        assert run.result().output["n"] == 1
        freed.set()
    assert "on_event is 9 events behind 5 s after the run's end; it is not called again in this run." in caplog.text


def test_a_slow_listener_is_told_everything_before_the_run_ends():
    log: list[Any] = []

    def slow(event: Any) -> None:
        threading.Event().wait(0.002)
        log.append(event)

    with ScriptedServer(provider) as server:
        small_run(server, slow)
    check(log)


def test_a_listener_that_falls_far_behind_is_given_up_and_not_waited_for(monkeypatch):
    monkeypatch.setattr(delivery, "MOST_BEHIND", 10)
    freed = threading.Event()

    def stuck(event: Any) -> None:
        freed.wait(LONGEST_S)

    with ScriptedServer(provider) as server, pytest.warns(amr.EventWarning, match="10 events behind the run") as told:
        frame = small_run(server, stuck)
    freed.set()
    assert frame["n"].tolist() == list(range(6))
    assert len(told) == 1


def test_a_listener_may_use_the_library_itself_and_is_not_told_of_that():
    log: list[Any] = []
    inner: list[Any] = []

    def uses(event: Any) -> None:
        log.append(event)
        if isinstance(event, NodeEnded):
            inner.append(rows(1).amr.map(lengths, finding={"length": int}, journal=False))

    with ScriptedServer(provider) as server, amr.settings(on_event=uses):
        rows(2).amr.map("Which number?", finding={"n": int}, lm=server.lm(), journal=False)
    check(log)
    assert [frame["length"].tolist() for frame in inner] == [[5]]


def test_a_listener_may_cancel_the_run():
    runs: list[Any] = []
    log: list[Any] = []
    ready = threading.Event()

    def cancels(event: Any) -> None:
        log.append(event)
        if isinstance(event, Landed):
            ready.wait(LONGEST_S)
            runs[0].cancel()

    async def only_first(request: Any) -> Any:
        return await never(request) if request.number else provider(request)

    with ScriptedServer(only_first) as server:
        options = {"lm": server.lm(), "journal": False, "plan": ALONE, "on_event": cancels}
        runs.append(rows(4).amr.start(**MAPPED, reduce={"n": "sum"}, **options))
        ready.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            runs[0].result()
    check(log)
    assert log[-1].status == "cancelled"
    assert len(caught.value.partial.findings.dropna()) == 1


def test_events_are_frozen_and_can_be_pickled_and_written_as_json():
    with ScriptedServer(codes) as server:
        log, _ = listen(map_reduce(rows(4), server, **MAPPED, reduce={"n": "sum"}, tools=[amr.PythonREPLTool()]))
    for event in log:
        with pytest.raises(AttributeError):
            event.time = 0.0
        assert pickle.loads(pickle.dumps(event)) == event
        written = msgspec.json.encode(event)
        assert json.loads(written)["event"] == type(event).__name__
        assert msgspec.json.decode(written, type=events.Event) == event
        assert type(event) in events.Event.__args__


def test_the_same_listener_tells_runs_apart():
    log: list[Any] = []
    with ScriptedServer(provider) as server, amr.settings(on_event=log.append):
        runs = [
            rows(3).amr.start(**MAPPED, reduce={"n": "sum"}, lm=server.lm(), journal=False, plan=ALONE)
            for _ in range(3)
        ]
        for run in runs:
            run.result()
    names = {event.run for event in log}
    assert len(names) == 3
    for name in names:
        check([event for event in log if event.run == name])


VERBS = {
    "map": lambda frame: functools.partial(frame.amr.map, "Which number?", finding={"n": int}),
    "filter": lambda frame: functools.partial(frame.amr.filter, "Is it?"),
    "reduce": lambda frame: functools.partial(frame.amr.reduce, "Write.", output=str),
    "map_reduce": lambda frame: functools.partial(frame.amr.map_reduce, **MAPPED, reduce={"n": "sum"}),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("where", ["call", "block", "process"])
def test_every_verb_takes_a_listener_and_so_do_the_settings(verb, where):
    def script(request: Any) -> Any:
        if request.schema == "reduction":
            return {"output": "a text", "sources": [0]}
        return findings(request, lambda unit: {"n": 1, "amr_keep": True})

    log: list[Any] = []
    with ScriptedServer(script) as server:
        call = functools.partial(VERBS[verb](rows(3)), lm=server.lm(), journal=False)
        if where == "call":
            call(on_event=log.append)
        elif where == "block":
            with amr.settings(on_event=log.append):
                call()
        else:
            amr.configure(on_event=log.append)
            try:
                call()
            finally:
                amr.configure(on_event=None)
    check(log)
    assert log[0].verb == verb


def test_what_runs_once_more_tells_the_same_listener():
    with ScriptedServer(one_bad_row) as server:
        log, result = listen(map_reduce(rows(4), server, **MAPPED, reduce={"n": "sum"}))
        check(log)
        log.clear()
        again = result.retry()
        check(log, again)
        log.clear()
        result.verify(share=0.5)
        check(log)


def test_a_mapper_tells_the_listener_that_it_was_made_with():
    log: list[Any] = []
    with ScriptedServer(provider) as server:
        mapper = amr.mapper("Which number?", finding={"n": int}, lm=server.lm(), journal=False, on_event=log.append)
        mapper(rows(3))
    check(log)
    with pytest.raises(amr.UsageError, match="on_event=.*it would collect into a copy"):
        pickle.dumps(mapper)


def top_level_listener(event: Any) -> None:
    """Take an event."""


def test_a_listener_with_a_name_goes_with_a_pickled_mapper():
    with ScriptedServer(provider) as server:
        mapper = amr.mapper("x", finding={"n": int}, lm=server.lm(), on_event=top_level_listener)
        assert pickle.loads(pickle.dumps(mapper)).settings["on_event"] is top_level_listener


def test_a_listener_does_not_change_what_the_journal_knows(tmp_path):
    options = {"lm": None, "journal": tmp_path / "j.db", "finding": {"n": int}}
    with ScriptedServer(provider) as server:
        options["lm"] = server.lm()
        rows(3).amr.map("Which number?", **options)
        rows(3).amr.map("Which number?", **options, on_event=top_level_listener)
        assert len(server.requests) == 1


async def async_listener(event: Any) -> None: ...


class AsyncListener:
    async def __call__(self, event: Any) -> None: ...


WRONG: dict[str, tuple[Any, str]] = {
    "a text": ("print", "such as print, not str"),
    "a list": ([], "such as print, not list"),
    "an async function": (async_listener, "a plain one: nothing awaits"),
    "an async object": (AsyncListener(), "a plain one: nothing awaits"),
    "no argument": (lambda: None, "does not take exactly one argument"),
    "two arguments": (lambda one, two: None, "does not take exactly one argument"),
}


def in_call(server: ScriptedServer, given: Any) -> None:
    rows(2).amr.map("x", lm=server.lm(), on_event=given)


def in_settings(server: ScriptedServer, given: Any) -> None:
    amr.settings(on_event=given)


def in_recipe(server: ScriptedServer, given: Any) -> None:
    amr.Recipe().map("x")(rows(2), lm=server.lm(), on_event=given)


def in_mapper(server: ScriptedServer, given: Any) -> None:
    amr.mapper("x", lm=server.lm(), on_event=given)


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("give", [in_call, in_settings, in_recipe, in_mapper])
def test_what_cannot_be_called_with_an_event_is_refused_before_anything_is_sent(name, give):
    given, message = WRONG[name]
    with ScriptedServer(provider) as server, pytest.raises(amr.UsageError, match=r"on_event=.*" + message):
        give(server, given)
    assert server.requests == []


def test_what_gives_a_coroutine_all_the_same_is_told_so():
    with ScriptedServer(provider) as server, pytest.warns(amr.EventWarning, match="awaited by nobody"):
        frame = small_run(server, lambda event: async_listener(event))
    assert frame["n"].tolist() == list(range(6))


def test_an_answer_without_a_name_says_none():
    def nameless(request: Any) -> Any:
        body = {"choices": [{"message": {"role": "assistant", "content": json.dumps(provider(request))}}]}
        return Raw(body=json.dumps(body))

    with ScriptedServer(nameless) as server:
        log, _ = listen(map_reduce(rows(2), server, **MAPPED, reduce={"n": "sum"}))
    [ended] = of(log, CallEnded)
    assert (ended.answered_by, ended.response) == ("", "")
    assert ended.usage.estimated == 1


def test_nothing_is_built_if_nobody_listens(monkeypatch):
    built: list[Any] = []
    for kind in events.Event.__args__:
        monkeypatch.setattr(kind, "__init__", lambda self, *args, **options: built.append(self))
    with ScriptedServer(codes) as server:
        map_reduce(rows(4), server, **MAPPED, reduce={"n": "sum"}, tools=[amr.PythonREPLTool()], journal=False)()
    assert built == []
