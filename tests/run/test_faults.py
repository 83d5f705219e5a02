"""Faults at every seam that a user has, at every stage: what leaves a verb is an ``AMRError`` with its ``partial``.

Nothing is patched: functions of the user's raise, services refuse, the journal is full, cells cannot be shown.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import datetime as dt
import enum
import io
import pickle
import sqlite3
import sys
import threading
import warnings
from typing import Any, Literal, get_origin

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel, create_model, field_validator, model_validator

import pandas_amr as amr
from numbered import number
from pandas_amr.testing import Call, Drop, Raw, ScriptedServer, Status, findings

ROWS = 4
ONE_BY_ONE = {"shard_size": 1}
MAPPED = {"map": "Which?", "finding": {"n": int}, "columns": ["text"], "plan": ONE_BY_ONE, "max_parallelism": 1}


def frame() -> pd.DataFrame:
    return pd.DataFrame({"text": [f"row {n}" for n in range(ROWS)], "shop": list("aabb")})


PLAN = {
    "map_instruction": "Which?",
    "finding": [{"name": "n", "type": "int", "choices": [], "description": "the number"}],
    "shard_size": 1,
    "parallelism": 1,
    "aggregations": [{"field": "n", "function": "sum"}],
    "reduce_instruction": "",
}


def truth(request):
    """A model that does its work."""
    match request.schema:
        case "plan":
            return PLAN
        case "reduction":
            return {"output": f"of {len(request.findings)}", "sources": []}
    return findings(request, number)


def is_right(result: amr.Result, server: ScriptedServer, *, rows: int = ROWS) -> None:
    """What a result holds is true, and what it cost is counted."""
    assert result.total.tries == len(server.requests)
    found = result.frame["n"] if "n" in result.frame.columns else pd.Series([pd.NA] * rows)
    assert len(result.frame) == len(found) == rows
    for position, value in enumerate(found):
        assert pd.isna(value) or value == position
    if result.status is not None and "n" in result.frame.columns:
        missing = {position for position, value in enumerate(found) if pd.isna(value)}
        told = {n for n, status in enumerate(result.status["status"]) if status in {"failed", "skipped"}}
        assert missing == told


def stopped(call, server: ScriptedServer, *, rows: int = ROWS) -> amr.RunStopped:
    """The error that a call ends with, once what it carries was looked at."""
    with pytest.raises(amr.RunStopped) as caught:
        call()
    assert isinstance(caught.value.partial, amr.Result)
    is_right(caught.value.partial, server, rows=rows)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy), copy.partial) == (type(caught.value), str(caught.value), None)
    return caught.value


class Unprintable(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise ZeroDivisionError


class Unpicklable(Exception):
    """It cannot go to another process."""

    def __init__(self) -> None:
        super().__init__(threading.Lock())


class Own(BaseException):
    """No Exception."""


RAISED = {
    "ZeroDivisionError": ZeroDivisionError("cell text"),
    "KeyError": KeyError("cell text"),
    "TimeoutError": TimeoutError("cell text"),
    "StopIteration": StopIteration("cell text"),
    "StopAsyncIteration": StopAsyncIteration("cell text"),
    "SystemExit": SystemExit("cell text"),
    "KeyboardInterrupt": KeyboardInterrupt("cell text"),
    "CancelledError": asyncio.CancelledError("cell text"),
    "GeneratorExit": GeneratorExit("cell text"),
    "RecursionError": RecursionError("cell text"),
    "MemoryError": MemoryError("cell text"),
    "ExceptionGroup": ExceptionGroup("cell text", [ValueError("cell text")]),
    "BaseExceptionGroup": BaseExceptionGroup("cell text", [KeyboardInterrupt("cell text")]),
    "UsageError": amr.ColumnError("No column."),
    "Unprintable": Unprintable(),
    "Unpicklable": Unpicklable(),
    "Own": Own("cell text"),
}
WORST = ["ZeroDivisionError", "StopIteration", "SystemExit", "CancelledError", "Unprintable", "Own"]


def raising(name: str):
    def function(*_: Any, **__: Any) -> Any:
        raise RAISED[name]

    return function


def raising_later(name: str):
    async def function(*_: Any, **__: Any) -> Any:
        await asyncio.sleep(0)
        raise RAISED[name]

    return function


# What stops a run


@pytest.mark.parametrize("errors", ["coerce", "raise"])
@pytest.mark.parametrize("name", RAISED)
@pytest.mark.parametrize("function", [raising, raising_later])
@pytest.mark.sampled(6)
def test_whatever_a_reducer_raises_stands_as_the_cause_of_what_stops_the_run(name, function, errors):
    with ScriptedServer(truth) as server:
        call = lambda: frame().amr.map_reduce(reduce=function(name), errors=errors, lm=server.lm(), **MAPPED)  # noqa: E731
        error = stopped(call, server)
    assert error.partial.frame["n"].tolist() == list(range(ROWS))
    assert error.__cause__ is RAISED[name]
    assert type(error) is amr.RunStopped
    assert "cell text" not in str(error)
    assert "its reduce" in str(error) or name == "UsageError"


REDUCES = {
    "by groups": lambda f: {"reduce": f, "by": "shop"},
    "an aggregation": lambda f: {"reduce": {"n": f}},
    "an aggregation of groups": lambda f: {"reduce": {"n": f}, "by": "shop"},
    "beside others": lambda f: {"reduce": {"n": "sum", "shop": f}},
    "named": lambda f: {"reduce": {"most": ("n", f)}},
    "an instruction": lambda f: {"reduce": amr.Agent(f)},
    "an instruction of groups": lambda f: {"reduce": amr.Agent(f), "by": "shop"},
    "an instruction of a column": lambda f: {"reduce": {"n": amr.Agent(f)}},
    "an instruction of a static tree": lambda f: {"reduce": amr.Agent(f), "plan": ONE_BY_ONE | {"fan_in": 2}},
    "an instruction of one alone": lambda f: {"reduce": amr.Agent(f), "plan": ONE_BY_ONE | {"direct": True}},
}


@pytest.mark.parametrize("name", WORST)
@pytest.mark.parametrize("how", REDUCES)
@pytest.mark.sampled(5)
def test_whatever_a_function_of_the_reduce_raises_stops_the_run_with_what_was_found(name, how):
    with ScriptedServer(truth) as server:
        options = {**MAPPED, **REDUCES[how](raising(name))}
        error = stopped(lambda: frame().amr.map_reduce(lm=server.lm(), **options), server)
    assert error.partial.frame.columns.tolist()[:2] == ["text", "shop"]
    assert (len(server.requests) == 0) == (how == "an instruction of one alone")


def counting(allowed: int, name: str):
    """Counts tokens so often, and then raises."""
    calls: list[int] = []

    def count(text: str) -> int:
        calls.append(1)
        if len(calls) > allowed:
            raise RAISED[name]
        return len(text)

    return count


COUNTS = [None, "3", True, float("nan"), float("inf"), -1, 10**30, 3j, object()]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("later", [False, True])
def test_a_token_counter_that_gives_no_number_is_told_so(count, later):
    calls: list[int] = []

    def counter(text: str) -> Any:
        calls.append(1)
        return count if not later or len(calls) > 3 * ROWS else len(text)

    with ScriptedServer(truth) as server:
        lm = server.lm(token_counter=counter)
        with pytest.raises(amr.AMRError, match=r"LM\(token_counter=...\) must return the number of tokens") as caught:
            frame().amr.map_reduce(reduce="Say it.", lm=lm, **MAPPED)
        assert isinstance(caught.value, amr.RunStopped) == (len(server.requests) > 0) == later
        with pytest.raises(amr.UsageError, match=r"LM\(token_counter=...\) takes a function"):
            server.lm(token_counter=3)
        with pytest.raises(amr.UsageError, match="an async one"):
            server.lm(token_counter=waited)


VERBS = {
    "map": lambda lm: frame().amr.map("Which?", finding={"n": int}, columns=["text"], plan=ONE_BY_ONE, lm=lm),
    "filter": lambda lm: frame().amr.filter("Odd.", lm=lm),
    "reduce": lambda lm: frame().amr.reduce("Say it.", lm=lm),
    "map_reduce": lambda lm: frame().amr.map_reduce(reduce="Say it.", lm=lm, **MAPPED),
    "a static tree": lambda lm: frame().amr.map_reduce(
        reduce="Say it.", lm=lm, **MAPPED | {"plan": ONE_BY_ONE | {"fan_in": 2}}
    ),
    "groups": lambda lm: frame().amr.map_reduce(reduce="Say it.", by="shop", lm=lm, **MAPPED),
    "planned": lambda lm: frame().amr.map_reduce("How many?", columns=["text"], lm=lm),
    "plan": lambda lm: frame().amr.plan("How many?", lm=lm),
    "estimate": lambda lm: frame().amr.plan(reduce="Say it.", lm=lm, **MAPPED).estimate(sample=2),
    "requests": lambda lm: frame().amr.plan(reduce="Say it.", lm=lm, **MAPPED).requests,
    "await": lambda lm: asyncio.run(waited(frame().amr.start(reduce="Say it.", lm=lm, **MAPPED))),
    "iteration": lambda lm: list(frame().amr.start(reduce="Say it.", lm=lm, **MAPPED)),
    "recipe": lambda lm: (
        amr.Recipe().map("Which?", finding={"n": int}, columns=["text"]).reduce("Say it.")(frame(), lm=lm)
    ),
}


async def waited(run):
    return await run


def answering(request):
    """The truth, and all rows are kept."""
    keeps = "amr_keep" in str(request.body.get("response_format"))
    return findings(request, lambda unit: {"amr_keep": True}) if keeps else truth(request)


def ended(call, server: ScriptedServer) -> amr.RunStopped | None:
    """The error that a call ends with, once what it carries was looked at; None where it does not."""
    before = len(server.requests)
    error = None
    try:
        call()
    except amr.RunStopped as stopped_by:
        error = stopped_by
    if error is not None:
        assert isinstance(error.partial, amr.Result)
        assert error.partial.total.tries == len(server.requests) - before
    return error


@pytest.mark.filterwarnings("ignore::pandas_amr.AMRWarning")
@pytest.mark.parametrize("name", ["SystemExit", "CancelledError"])
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.sampled(8)
def test_a_token_counter_that_fails_at_any_call_stops_the_run_with_what_was_found(verb, name):
    """It is called while units are counted, while prompts are made, and while a tree is packed."""
    ends = []
    with ScriptedServer(answering) as server:
        for allowed in (0, ROWS + 1, 3 * ROWS, 10_000):
            lm = server.lm(token_counter=counting(allowed, name))
            error = ended(lambda lm=lm: VERBS[verb](lm), server)
            ends.append(error)
            assert error is None or error.__cause__ is RAISED[name]
    assert ends[-1] is None
    assert verb in {"plan", "requests"} or ends[0] is not None


SERVICE = {
    "drops": Drop(),
    "refuses the key": Status(401, "no"),
    "refuses": Status(400, "no"),
    "fails": Status(500, "no"),
    "declines": Raw(refusal="no"),
    "garbles": Raw("{not json"),
    "answers nonsense": {"findings": "x", "output": {"x": 1}, "sources": 3},
    "gives another plan": {**PLAN, "finding": [{**PLAN["finding"][0], "type": "nothing"}]},
}


@pytest.mark.filterwarnings("ignore::pandas_amr.AMRWarning")
@pytest.mark.parametrize("errors", ["coerce", "raise"])
@pytest.mark.parametrize("fault", SERVICE)
@pytest.mark.parametrize("verb", ["filter", "a static tree", "groups", "planned", "estimate", "recipe"])
@pytest.mark.sampled(14)
def test_a_service_that_fails_from_any_request_on_stops_the_run_or_only_units(verb, fault, errors):
    for first in range(6):
        script = lambda request, first=first: SERVICE[fault] if request.number >= first else answering(request)  # noqa: E731
        with ScriptedServer(script) as server, amr.settings(errors=errors):
            # Only what drops is waited for. A connection is made within the patience, on a machine that is busy, too.
            lm = server.lm(max_tries=1, patience_s=1.0 if fault == "drops" else 60.0)
            error = ended(lambda lm=lm: VERBS[verb](lm), server)
        assert error is None or type(error) is not amr.RunStopped
        if errors == "coerce" and error is not None:  # units alone end nothing
            assert isinstance(error, amr.ModelError | amr.PlanError)
            assert not isinstance(error, amr.InvalidOutput)
        if len(server.requests) <= first:
            assert error is None
            break


# What fails alone


def steps(request, name: str, arguments: dict[str, Any]):
    """An agent that calls a tool once, and then hands in what it found."""
    return truth(request) if request.tool_results else Call(name, arguments)


class Strict(BaseModel):
    """Arguments of a tool whose check fails otherwise than by ValueError."""

    code: str

    @field_validator("code")
    @classmethod
    def check(cls, value: str) -> str:
        raise RAISED[value]


@pytest.mark.parametrize("name", WORST)
@pytest.mark.sampled(3)
def test_what_a_tool_raises_or_gives_is_told_to_its_agent(name):
    class Shown:
        __str__ = __repr__ = raising(name)

    def wrong() -> str:
        """Look."""
        raise RAISED[name]

    def odd() -> Any:
        """Look."""
        return Shown()

    def checked(code: str) -> str:
        """Look."""
        return code

    tools = [amr.tool(wrong), amr.tool(odd), amr.Tool(checked, args_schema=Strict)]
    for tool in tools:
        arguments = {"code": name} if tool.name == "checked" else {}
        with ScriptedServer(lambda r, t=tool, a=arguments: steps(r, t.name, a)) as server:
            result = frame().amr.map_reduce(reduce={"n": "sum"}, tools=[tool], lm=server.lm(), **MAPPED)
            is_right(result, server)
            assert result.output["n"] == 6
            assert "raised" in server.requests[1].tool_results[0]


@pytest.mark.parametrize("given", [None, 3, "", "  ", b"x", ["x"], float("nan")])
@pytest.mark.sampled(3)
def test_an_instruction_that_is_no_text_fails_its_row_alone_before_any_request(given):
    agent = amr.Agent(lambda row: given if row["text"] == "row 1" else "Which?")
    with ScriptedServer(truth) as server:
        result = frame().amr.map_reduce(reduce={"n": "sum"}, lm=server.lm(), **MAPPED | {"map": agent})
        is_right(result, server)
        assert len(server.requests) == ROWS - 1
        assert result.failures[["position", "who", "attempts"]].values.tolist() == [[1, "callable", 0]]
        assert result.output["n"] == 5
        plan = frame().amr.plan(reduce={"n": "sum"}, lm=server.lm(), **MAPPED | {"map": agent})
        assert len(plan.requests(ROWS)) == ROWS - 1
    assert "instead of a text" in result.failures["reason"][0]
    assert not any("None" in str(request.body) for request in server.requests)


@pytest.mark.parametrize("given", [None, " ", 3])
@pytest.mark.parametrize("how", [how for how in REDUCES if "instruction" in how])
@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
@pytest.mark.sampled(4)
def test_an_instruction_that_is_no_text_fails_its_reduce_or_its_group_and_is_listed(how, given):
    function = lambda found: given if found.iloc[0, 0] in {0, "row 0"} else "Say it."  # noqa: E731
    with ScriptedServer(truth) as server:
        result = frame().amr.map_reduce(lm=server.lm(), **{**MAPPED, **REDUCES[how](function)})
        is_right(result, server)
        assert "None" not in "".join(request.system for request in server.requests)
    assert result.frame["n"].tolist() == list(range(ROWS))
    assert set(result.failures["who"]) == {"callable"}
    assert all("its instruction gave" in reason for reason in result.failures["reason"])
    if "groups" in how:
        assert result.output["output"].isna().tolist() == [True, False]


# Nothing succeeded


def refusing(request):
    """A service that reads nothing, and reduces what it is given."""
    return Status(400, "no") if request.schema in {"findings", "finding"} else truth(request)


class Item(BaseModel):
    n: int


ALL_MISSING = {
    "sum": ({"reduce": {"n": "sum"}}, lambda output: int(output["n"]) == 0),
    "mean": ({"reduce": {"n": "mean"}}, lambda output: pd.isna(output["n"])),
    "max": ({"reduce": {"n": "max"}}, lambda output: pd.isna(output["n"])),
    "count": ({"reduce": {"n": "count"}}, lambda output: output["n"] == 0),
    "counts": ({"reduce": {"n": "value_counts"}}, lambda output: len(output) == 0),
    "a typed mean": ({"reduce": {"n": "mean"}, "output": float}, lambda output: output is None),
    "a typed sum": ({"reduce": {"n": "sum"}, "output": int}, lambda output: output == 0),
    "a function": ({"reduce": len}, lambda output: output == ROWS),
    "by groups": ({"reduce": {"n": "mean"}, "by": "shop"}, lambda output: output["n"].isna().tolist() == [True] * 2),
    "counts by groups": ({"reduce": {"n": "value_counts"}, "by": "shop"}, lambda output: output.shape == (2, 0)),
    "by a finding": ({"reduce": {"shop": "count"}, "by": "n"}, lambda output: len(output) == 0),
    "a text": ({"reduce": "Say it."}, lambda output: output is None),
    "a text, static": ({"reduce": "Say it.", "plan": ONE_BY_ONE | {"fan_in": 2}}, lambda output: output is None),
    "items": ({"reduce": "Say it.", "output": list[Item]}, lambda output: output.empty and list(output) == ["n"]),
    "texts by groups": (
        {"reduce": "Say it.", "by": "shop"},
        lambda output: output["output"].isna().tolist() == [True] * 2,
    ),
    "a number": ({"reduce": "How many?", "output": int}, lambda output: output is None),
    "a column": ({"reduce": {"n": amr.Agent("Say it.")}}, lambda output: output == {"n": None}),
    "many": (
        {"reduce": {"n": "sum"}, "finding": list[Item]},
        lambda output: int(output["n"]) == 0,
    ),
    "planned": ({"map": None, "finding": None, "task": "How many?"}, lambda output: int(output["n"]) == 0),
}


@pytest.mark.filterwarnings("ignore::pandas_amr.AMRWarning")
@pytest.mark.parametrize("how", ALL_MISSING)
@pytest.mark.sampled(3)
def test_where_every_unit_failed_a_run_gives_what_is_there_of_nothing_and_a_retry_goes_on(how):
    options, holds = ALL_MISSING[how]
    with ScriptedServer(refusing) as server:
        result = frame().amr.map_reduce(lm=server.lm(), **MAPPED | options)
        assert result.total.tries == len(server.requests)
        assert holds(result.output)
        assert result.status["status"].tolist() == ["failed"] * ROWS
        assert sorted(set(result.failures["position"].dropna())) == list(range(ROWS))
        assert holds(result.retry().output)
        if how != "by a finding":
            with pytest.raises(amr.MapFailed) as caught:
                frame().amr.map_reduce(lm=server.lm(), errors="raise", **MAPPED | options)
            assert "failed" in caught.value.partial.status["status"].tolist()


def test_where_every_unit_failed_a_frame_says_so_once():
    with ScriptedServer(refusing) as server:
        with pytest.warns(amr.FailureWarning) as told:
            found = frame().amr.map("Which?", finding={"n": int}, lm=server.lm())
        assert len(told) == 1
        assert found["n"].isna().all()
        with pytest.warns(amr.FailureWarning) as told:
            kept = frame().amr.filter("Odd.", lm=server.lm())
        assert len(told) == 1
        assert len(kept) == ROWS
        broken = frame().amr.map_reduce(map=raising("KeyError"), finding={"n": int}, reduce={"n": "sum"})
        assert broken.status["status"].tolist() == ["failed"] * ROWS


@pytest.mark.filterwarnings("ignore::pandas_amr.AMRWarning")
def test_where_every_unit_failed_a_recipe_raises_nothing_and_asks_no_more_of_a_row_that_has_failed():
    inside = amr.Recipe().map("Which?", finding={"n": int}, columns=["text"]).map("Again?", finding={"m": int})
    with ScriptedServer(refusing) as server:
        result = (
            amr.Recipe()
            .map("Which?", finding={"n": int}, columns=["text"])
            .reduce({"n": "sum"})(frame(), lm=server.lm())
        )
        assert int(result.output["n"]) == 0
        assert len(result.failures) == ROWS
        before = len(server.requests)
        mapped = amr.Recipe().map(inside.reduce({"m": "sum"}), finding={"n": int})(frame(), lm=server.lm())
        assert mapped.frame["n"].isna().all()
        assert all("inside its pipeline" in reason for reason in mapped.failures["reason"])
        asked = server.requests[before:]
        assert not any('"m"' in str(request.body) for request in asked)
        reduced = amr.Recipe().reduce(inside.reduce({"m": "sum"}))(frame(), lm=server.lm())
        assert reduced.output is None
        whole = amr.Recipe().then(inside).filter("Odd.").reduce(len)(frame(), lm=server.lm())
        assert whole.output == ROWS


# Once requests were sent


def planned_with(**changes: Any):
    return lambda request: {**PLAN, **changes} if request.schema == "plan" else truth(request)


@pytest.mark.filterwarnings("ignore::pandas_amr.AMRWarning")
def test_an_output_that_cannot_be_had_stops_the_run_with_what_was_found():
    with ScriptedServer(truth) as server:
        error = ended(
            lambda: frame().amr.map_reduce(reduce=lambda found: "many", output=int, lm=server.lm(), **MAPPED), server
        )
    assert error.partial.frame["n"].tolist() == list(range(ROWS))
    assert "The reduce gave no" in str(error)


class Broken:
    """A cell that can be shown so often."""

    def __init__(self, name: str, times: int) -> None:
        self.name = name
        self.times = times

    def __str__(self) -> str:
        self.times -= 1
        if self.times < 0:
            raise RAISED[self.name]
        return "row 0"

    __repr__ = __str__


@pytest.mark.filterwarnings("ignore::pandas_amr.AMRWarning")
@pytest.mark.parametrize("name", WORST)
@pytest.mark.parametrize("verb", ["map", "planned", "groups", "recipe", "plan", "reduce", "estimate"])
@pytest.mark.sampled(5)
def test_a_cell_that_cannot_be_shown_stops_the_run_whenever_it_is_read(verb, name, monkeypatch):
    ends = []
    for times in range(8):
        cells = [Broken(name, times), *(f"row {n}" for n in range(1, ROWS))]
        broken = pd.DataFrame({"text": pd.Series(cells, dtype=object), "shop": list("aabb")})
        monkeypatch.setitem(globals(), "frame", lambda broken=broken: broken)
        with ScriptedServer(answering) as server:
            ends.append(ended(lambda s=server: VERBS[verb](s.lm()), server))
    assert ends[0] is not None
    assert all(error is None or error.__cause__ is RAISED[name] for error in ends)
    assert all(error is None or "cell text" not in str(error) for error in ends)


@pytest.mark.parametrize("name", WORST)
@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.sampled(5)
def test_what_a_confirmation_raises_stops_the_run(name, planned):
    budget = amr.Budget(confirm=raising(name))
    with ScriptedServer(truth) as server:
        options = {"columns": ["text"]} if planned else {"reduce": {"n": "sum"}, **MAPPED}
        task = "How many?" if planned else None
        error = stopped(lambda: frame().amr.map_reduce(task, budget=budget, lm=server.lm(), **options), server)
        assert error.__cause__ is RAISED[name]
        assert len(server.requests) == planned
        no = amr.Budget(confirm=lambda estimate: False)
        before = len(server.requests)
        refused = ended(lambda: frame().amr.map_reduce(task, budget=no, lm=server.lm(), **options), server)
        assert type(refused) is amr.NotConfirmed
        assert len(server.requests) - before == planned


SANDBOX = {
    "open": lambda name: (raising_later(name), None, None),
    "run": lambda name: (None, raising_later(name), None),
    "close": lambda name: (None, None, raising_later(name)),
}


class Session:
    def __init__(self, run, close) -> None:
        self._run, self._close = run, close

    async def run(self, code, ask=None):
        from pandas_amr.sandbox.base import Cell

        if self._run is not None:
            await self._run()
        return Cell(text="1")

    async def close(self) -> None:
        if self._close is not None:
            await self._close()


class Sandbox:
    tier = "mine"

    def __init__(self, begin, run, close) -> None:
        self._begin, self._run, self._close = begin, run, close

    async def open(self, data, limits):
        if self._begin is not None:
            await self._begin()
        return Session(self._run, self._close)

    async def close(self) -> None:
        """Nothing to close."""


@pytest.mark.filterwarnings("ignore::pandas_amr.AMRWarning")
@pytest.mark.parametrize("name", WORST)
@pytest.mark.parametrize("where", SANDBOX)
@pytest.mark.sampled(5)
def test_what_a_sandbox_of_the_user_s_raises_stops_the_run_and_is_not_the_agent_s_to_read(where, name):
    sandbox = Sandbox(*SANDBOX[where](name))
    script = lambda request: (  # noqa: E731
        steps(request, "python_repl", {"code": "1"}) if request.number >= 1 else truth(request)
    )
    with ScriptedServer(script) as server:
        tools = [amr.PythonREPLTool(sandbox=sandbox)]
        error = stopped(
            lambda: frame().amr.map_reduce(reduce={"n": "sum"}, tools=tools, lm=server.lm(), **MAPPED), server
        )
        assert not any("raised" in told for request in server.requests for told in request.tool_results)
    assert error.__cause__ is RAISED[name]
    assert error.partial.frame["n"].tolist()[0] == 0


@pytest.mark.filterwarnings("ignore::pandas_amr.AMRWarning")
@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("table", ["entries", "bases"])
def test_a_journal_that_cannot_be_written_any_more_stops_the_run_with_what_was_found(tmp_path, table, after):
    path = tmp_path / "j.sqlite"
    amr.Journal(path)

    def script(request):
        if request.number == after:
            with contextlib.closing(sqlite3.connect(path)) as other:
                other.execute(f"CREATE TRIGGER full BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no room'); END")
                other.commit()
        return truth(request)

    with ScriptedServer(script) as server:
        error = ended(
            lambda: frame().amr.map_reduce("How many?", columns=["text"], journal=path, lm=server.lm()), server
        )
    if table == "entries" or after == 0:
        assert isinstance(error, amr.JournalError)
        assert error.partial.frame["text"].tolist() == frame()["text"].tolist()


@pytest.mark.filterwarnings("ignore::pandas_amr.AMRWarning")
@pytest.mark.parametrize("errors", ["coerce", "raise"])
def test_a_journal_that_is_gone_in_the_middle_ends_nothing_or_the_run(tmp_path, errors):
    path = tmp_path / "folder" / "j.sqlite"
    path.parent.mkdir()
    amr.Journal(path)

    def script(request):
        if request.number == 2:
            for file in path.parent.iterdir():
                file.unlink()
            path.parent.rmdir()
            path.parent.write_text("in its place")
        return truth(request)

    with ScriptedServer(script) as server:
        error = stopped(
            lambda: frame().amr.map_reduce(reduce={"n": "sum"}, journal=path, errors=errors, lm=server.lm(), **MAPPED),
            server,
        )
    assert isinstance(error, amr.JournalError)
    assert error.partial.frame["n"].tolist()[:2] == [0, 1]


class Noisy(io.StringIO):
    """A stream of the user's that takes nothing."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def write(self, text: str) -> int:
        raise RAISED[self.name]

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("name", ["ZeroDivisionError", "KeyError", "closed"])
def test_a_bar_and_warnings_that_nobody_can_read_end_nothing(name, monkeypatch):
    stream = io.StringIO() if name == "closed" else Noisy(name)
    if name == "closed":
        stream.close()
    script = lambda request: Status(400, "no") if request.number == 1 else truth(request)  # noqa: E731
    with ScriptedServer(script) as server, monkeypatch.context() as patched, warnings.catch_warnings():
        patched.setattr(sys, "stderr", stream)
        result = frame().amr.map_reduce(reduce={"n": "sum"}, progress=True, lm=server.lm(), **MAPPED)
        if name == "closed":
            warnings.simplefilter("always")
            patched.setattr(warnings, "showwarning", written_to(stream))
            found = frame().amr.map("Which?", finding={"n": int}, columns=["text"], lm=server.lm(), plan=ONE_BY_ONE)
            assert found["n"].tolist() == list(range(ROWS))
    assert result.output["n"] == 5


def written_to(stream):
    def show(*told: Any, **_: Any) -> None:
        stream.write(str(told))

    return show


def test_what_shows_warnings_may_raise_and_what_was_found_is_not_lost(monkeypatch):
    def script(request):
        return Status(400, "no") if any(unit["text"] == "row 1" for unit in request.units) else truth(request)

    options = {"finding": {"n": int}, "columns": ["text"], "plan": ONE_BY_ONE}
    with ScriptedServer(script) as server, warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", raising("KeyError"))
        error = stopped(lambda: frame().amr.map("Which?", lm=server.lm(), **options), server)
        assert error.__cause__ is RAISED["KeyError"]
        warnings.simplefilter("error")
        for verb in (lambda lm: frame().amr.map("Which?", lm=lm, **options), lambda lm: run_recipe(lm, options)):
            before = len(server.requests)
            with pytest.raises(amr.FailureWarning) as told:
                verb(server.lm())
            assert told.value.partial.frame["n"].isna().tolist() == [False, True, False, False]
            assert told.value.partial.total.tries == len(server.requests) - before


def run_recipe(lm, options):
    return amr.Recipe().map("Which?", **options)(frame(), lm=lm)


@pytest.mark.parametrize("name", WORST)
@pytest.mark.sampled(3)
def test_what_a_step_of_a_recipe_raises_stops_it_with_what_the_stages_found(name):
    first = amr.Recipe().map("Which?", finding={"n": int}, columns=["text"], plan=ONE_BY_ONE)
    for made in (
        first.then(raising(name)),
        first.then(raising_later(name)),
        first.reduce(raising(name)),
        first.then(amr.Recipe().then(raising(name))),
        amr.Recipe().then(first.reduce(raising(name))),
    ):
        with ScriptedServer(truth) as server:
            error = stopped(lambda m=made, s=server: m(frame(), lm=s.lm()), server)
        assert error.__cause__ is RAISED[name]
        assert error.partial.stages[0].frame["n"].tolist() == list(range(ROWS))


def test_a_stage_that_does_not_fit_stops_a_recipe_once_requests_were_sent():
    first = amr.Recipe().map("Which?", finding={"n": int}, columns=["text"], plan=ONE_BY_ONE)
    unknown = first.then(lambda rows: rows)  # what a function gives, only the run can tell
    for made in (
        unknown.map("x", columns=["tex"]),
        first.reduce({"n": "sum"}).map("x"),
        unknown.map("x", finding={"n": int}),
    ):
        with ScriptedServer(truth) as server:
            error = stopped(lambda m=made, s=server: m(frame(), lm=s.lm()), server)
        assert type(error) is amr.RunStopped
        assert isinstance(error.__cause__, amr.UsageError)
        assert str(error) == str(error.__cause__)


def test_a_stage_that_does_not_fit_what_is_known_before_it_is_refused_before_a_request():
    first = amr.Recipe().map("Which?", finding={"n": int}, columns=["text"], plan=ONE_BY_ONE)
    for made in (first.map("x", columns=["tex"]), first.map("x", finding={"n": int})):
        with ScriptedServer(truth) as server:
            with pytest.raises(amr.UsageError):
                made(frame(), lm=server.lm())
            assert not server.requests


@pytest.mark.filterwarnings("ignore::pandas_amr.AMRWarning")
@pytest.mark.parametrize("name", ["ZeroDivisionError", "SystemExit"])
@pytest.mark.parametrize("allowed", [0, 2, 6])
def test_a_retry_that_is_stopped_has_what_was_found_before_it(name, allowed):
    script = lambda request: Status(400, "no") if request.number == 1 else truth(request)  # noqa: E731
    with ScriptedServer(script) as server:
        first = frame().amr.map_reduce(reduce="Say it.", lm=server.lm(), **MAPPED)
        assert first.frame["n"].isna().tolist() == [False, True, False, False]
        before = len(server.requests)
        counter = server.lm(token_counter=counting(allowed, name))
        error = ended(lambda: first.retry(lm=counter), server)
        assert error is not None
        assert error.partial.frame["n"].dropna().tolist()[:1] == [0]
        assert error.partial.frame["n"].tolist()[2:] == [2, 3]
        assert error.partial.total.tries == len(server.requests) - before
        assert error.partial.retry(lm=server.lm()).frame["n"].tolist() == list(range(ROWS))


@pytest.mark.filterwarnings("ignore::pandas_amr.AMRWarning")
def test_a_verification_ends_only_with_what_it_found(monkeypatch):
    with ScriptedServer(truth) as server:
        result = frame().amr.map_reduce(reduce={"n": "sum"}, lm=server.lm(), **MAPPED)
        sent = len(server.requests)
        for tolerance in ("much", -1, None):
            with pytest.raises(amr.UsageError, match="tolerance"):
                result.verify(share=1.0, tolerance=tolerance)
        assert len(server.requests) == sent
        error = ended(lambda: result.verify(share=1.0, lm=server.lm(token_counter=counting(2, "KeyError"))), server)
        assert error.__cause__ is RAISED["KeyError"]
    with ScriptedServer(refusing) as broken:
        looked = result.verify(share=1.0, lm=broken.lm())
        assert looked.failed == ROWS
        assert looked.agreement["rows"].tolist() == [0]
        refused = ended(lambda: frame().amr.map_reduce(reduce={"n": "sum"}, lm=broken.lm(), **MAPPED).verify(), broken)
        assert refused is None


@pytest.mark.parametrize("plan", [ONE_BY_ONE, {"shard_size": 2}, {"shard_size": ROWS}])
def test_values_of_a_function_that_go_into_no_one_column_are_their_rows_failure(plan):
    mixed = lambda shard: [{"n": 1 if text == "row 0" else text} for text in shard["text"]]  # noqa: E731
    result = frame().amr.map_reduce(map=mixed, reduce=len, plan=plan, max_parallelism=1)
    assert result.output == ROWS
    assert result.status["status"].tolist() == ["ok", "failed", "failed", "failed"]
    assert all("other types" in reason for reason in result.failures["reason"])
    with pytest.raises(amr.MapFailed) as caught:
        frame().amr.map_reduce(map=mixed, reduce=len, plan=plan, max_parallelism=1, errors="raise")
    assert caught.value.partial.frame["n"].dropna().tolist() == [1]


def unable(shard):
    """A map that finds nothing."""
    raise ValueError("nothing here")


NEEDING_COLUMNS = {
    "an aggregation": {"reduce": {"v": "sum"}},
    "a typed aggregation": {"reduce": {"v": "sum"}, "output": int},
    "a named aggregation": {"reduce": {"most": ("v", "max")}},
    "a function of a column": {"reduce": {"v": len}},
    "groups": {"reduce": {"v": "sum"}, "by": "shop"},
    "groups of what is found": {"reduce": {"shop": "count"}, "by": "v"},
    "a ranking": {"plan": {"ranking": {"field": "v"}}},
    "chosen rows": {"reduce": {"text": "count"}, "plan": {"where": "v"}},
    "a function": {"reduce": lambda found: found["v"].sum()},
    "a function of groups": {"reduce": lambda found: found["v"].sum(), "by": "shop"},
}


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
@pytest.mark.parametrize("rows", [ROWS, 0])
@pytest.mark.parametrize("how", NEEDING_COLUMNS)
@pytest.mark.sampled(3)
def test_a_reduce_of_columns_that_no_function_gave_is_listed_where_none_found_anything(how, rows):
    result = frame().iloc[:rows].amr.map_reduce(map=unable, **NEEDING_COLUMNS[how])
    if how == "a function of groups" and not rows:
        assert len(result.output) == len(result.failures) == 0  # there are no groups to call it for
        return
    assert result.output is None
    reduces = result.failures[result.failures["position"].isna()]
    assert reduces["who"].tolist() == ["callable"]
    assert "finding=" in reduces["reason"].iloc[0]
    assert len(result.failures) == rows + 1
    assert frame().amr.map_reduce(map=unable, reduce=len).output == ROWS
    with pytest.raises(amr.MapFailed):
        frame().amr.map_reduce(map=unable, errors="raise", **NEEDING_COLUMNS[how])


@pytest.mark.parametrize("how", [how for how in NEEDING_COLUMNS if "a function" not in how])
def test_a_reduce_of_columns_that_a_function_does_not_give_says_which_there_are(how):
    with pytest.raises(amr.RunStopped, match=r"No column 'v' to reduce. There is: .*'w'") as caught:
        frame().amr.map_reduce(map=lambda shard: [{"w": 1}] * len(shard), **NEEDING_COLUMNS[how])
    assert caught.value.partial.frame["w"].tolist() == [1] * ROWS


def two(shard):
    """Columns b and c."""
    return pd.DataFrame({"b": [1] * len(shard), "c": 2}, index=shard.index)


def one(shard):
    """A column without a name."""
    return pd.Series([9] * len(shard), index=shard.index)


def grown(shard):
    """One column, and two of the last row."""
    return [{"b": 1, "c": 2} if text == f"row {ROWS - 1}" else {"b": 1} for text in shard["text"]]


@pytest.mark.parametrize("maps", [{"a": two, "a_b": one}, {"a_b": one, "a": two}, {"a": grown, "a_b": one}])
@pytest.mark.parametrize("plan", [ONE_BY_ONE, {"shard_size": ROWS}])
def test_columns_of_two_functions_that_are_called_alike_are_refused_and_none_overwrites_the_other(maps, plan):
    with pytest.raises(amr.AMRError, match="both give a column 'a_b'"):
        frame().amr.map(maps, plan=plan, max_parallelism=1)
    with ScriptedServer(truth) as server:
        options = {**MAPPED, "map": {"q": "Which?", **maps}, "finding": {"q": {"n": int}}, "plan": plan}
        result = frame().amr.map_reduce(reduce={"q_n": "sum"}, lm=server.lm(), **options)
    assert result.output["q_n"] == 6
    assert any("both give a column 'a_b'" in reason for reason in result.failures["reason"])
    assert result.frame.columns.is_unique
    for column in {"a_b", "a_c"} & set(result.frame.columns):
        assert len(set(result.frame[column].dropna())) == 1


HIDING = {
    "a label that is no text": (pd.DataFrame({"0": [1, 2]}), lambda shard: pd.DataFrame({0: 5}, index=shard.index)),
    "a key that is no text": (pd.DataFrame({"0": [1, 2]}), lambda shard: [{0: 5}] * len(shard)),
    "a label": (pd.DataFrame({"a": [1, 2]}), lambda shard: pd.DataFrame({"a": 5}, index=shard.index)),
    "a level": (pd.DataFrame([[1, 2]], columns=[["a", "a"], ["x", "y"]]), lambda shard: [{"a": 5}]),
    "two labels of one text": (frame(), lambda shard: pd.DataFrame({0: 5, "0": 6}, index=shard.index)),
    "two keys of one text": (frame(), lambda shard: [{0: 5, "0": 6}] * len(shard)),
}


@pytest.mark.parametrize("how", HIDING)
def test_a_function_without_a_type_never_doubles_a_column(how):
    table, function = HIDING[how]
    with pytest.raises(amr.ColumnError, match="hide|two columns of one name"):
        table.amr.map(function)


# From outside


def test_a_run_that_is_cancelled_has_what_was_found():
    async def never(request):
        if request.number >= 2:
            await asyncio.sleep(3600)
        return truth(request)

    async def awaited(server, *, iterated: bool):
        run = frame().amr.start(reduce={"n": "sum"}, lm=server.lm(), **MAPPED)
        task = asyncio.ensure_future(drained(run) if iterated else waited(run))
        await asyncio.sleep(0)  # from now on it waits: three requests may be there before the next line
        while len(server.requests) < 3:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await task
        assert run._ended.is_set()
        return cancelled.value

    for iterated in (False, True):
        with ScriptedServer(never) as server:
            assert asyncio.run(awaited(server, iterated=iterated)).partial.frame["n"].tolist()[:2] == [0, 1]
    with ScriptedServer(never) as server:
        run = frame().amr.start(reduce={"n": "sum"}, lm=server.lm(), **MAPPED)
        while len(server.requests) < 3:
            threading.Event().wait(0.005)
        run.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            run.result()
    assert cancelled.value.partial.frame["n"].tolist()[:2] == [0, 1]


def interrupting(found):
    """A reducer during which Ctrl-C comes; who waits in a lock hears of it when the run is over."""
    _thread.interrupt_main()
    return len(found)


INTERRUPTED = {
    "map_reduce": lambda lm: frame().amr.map_reduce(reduce=interrupting, lm=lm, **MAPPED),
    "start": lambda lm: frame().amr.start(reduce=interrupting, lm=lm, **MAPPED).result(),
    "iteration": lambda lm: list(frame().amr.start(reduce=interrupting, lm=lm, **MAPPED)),
    "recipe": lambda lm: (
        amr.Recipe().map("Which?", finding={"n": int}, columns=["text"]).reduce(interrupting)(frame(), lm=lm)
    ),
}


@pytest.mark.parametrize("how", INTERRUPTED)
def test_an_interrupt_that_comes_while_a_run_ends_has_what_it_found(how):
    with ScriptedServer(truth) as server, pytest.raises(KeyboardInterrupt) as caught:
        INTERRUPTED[how](server.lm())
    assert caught.value.partial.frame["n"].tolist() == list(range(ROWS))


async def drained(run):
    return [finding async for finding in run]


def test_every_error_that_ends_a_run_has_its_partial_in_its_type():
    ends = {kind for kind in vars(amr.errors).values() if isinstance(kind, type) and issubclass(kind, amr.AMRError)}
    others = ends - {amr.AMRError, amr.UsageError, amr.ArgumentError, amr.ColumnError}
    assert all(issubclass(kind, amr.RunStopped) for kind in others)
    assert amr.RunStopped("x").partial is None
    assert not any(hasattr(kind("x"), "partial") for kind in (amr.UsageError, amr.ArgumentError, amr.ColumnError))
    assert amr.RunStopped in others


@pytest.mark.filterwarnings("ignore::pandas_amr.AMRWarning")
@pytest.mark.parametrize("plan", [ONE_BY_ONE, {"shard_size": 2}, {"shard_size": ROWS}])
@pytest.mark.parametrize("name", WORST)
@pytest.mark.sampled(4)
def test_a_validator_that_raises_what_pydantic_lets_pass_stops_the_run_or_only_its_unit(name, plan):
    class Checked(BaseModel):
        n: int

        @field_validator("n")
        @classmethod
        def check(cls, value: int) -> int:
            if value == 2:
                raise RAISED[name]
            return value

    with ScriptedServer(truth) as server:
        options = {**MAPPED, "finding": Checked, "plan": plan, "reduce": {"n": "sum"}}
        error = ended(lambda: frame().amr.map_reduce(lm=server.lm(), **options), server)
    assert error is None or error.__cause__ is RAISED[name]
    assert error is None or "cell text" not in str(error)


def replacing(kind: Any, value: Any, default: Any = ...) -> type[BaseModel]:
    """A finding whose validator gives a value of its own, whatever was said."""
    check = field_validator("n")(classmethod(lambda cls, said: value))
    return create_model("Replacing", n=(kind, default), __validators__={"check": check})


class Forgotten(BaseModel):
    """Its validator forgets to return it."""

    n: int

    @model_validator(mode="after")
    def check(self):
        """Return nothing."""


class Mood(enum.Enum):
    GOOD = "good"
    NONE = None


STRAYS = {
    "a whole record": (Forgotten, 0),
    "nothing": (replacing(int, None), 0),
    "nothing for a text": (replacing(str, None), "a"),
    "a record in a field": (create_model("Outer", n=(Forgotten, ...)), {"n": 0}),
    "a record in a list": (create_model("Outer", n=(list[Forgotten], ...)), [{"n": 0}]),
    "an item": (replacing(list[int], [1, None]), [1]),
    "a value of a dict": (replacing(dict[str, int], {"a": None}), {"a": 1}),
    "no choice": (replacing(Literal["a", "b"], "A"), "a"),
    "no mixed choice": (replacing(Literal["a", 1], "A"), "a"),
    "no member": (replacing(Mood, "bad"), "good"),
    "a part of a number": (replacing(int, 1.5), 1),
    "a bool": (replacing(int, True), 1),
    "a text": (replacing(float, "1.5"), 1.0),
    "bytes": (replacing(str, b"x"), "a"),
    "an instant": (replacing(dt.date, dt.datetime(2026, 1, 31, 9)), "2026-01-31"),
}
OF_THE_TYPE = {
    "nothing": (replacing(int | None, None), 0),
    "nothing by default": (replacing(int, None, default=None), 0),
    "anything": (replacing(Any, None), 0),
    "a member": (replacing(Mood, Mood.NONE), "good"),
    "a member's value": (replacing(Mood, "good"), "good"),
    "another number": (replacing(int, 7), 0),
    "a number of numpy": (replacing(int, np.int64(7)), 0),
    "a float of numpy": (replacing(float, np.float32(1.5)), 0.5),
    "a whole number": (replacing(float, 7), 0.5),
    "a time stamp": (replacing(dt.datetime, pd.Timestamp("2026-01-31")), "2026-01-31T09:00:00"),
    "items": (replacing(list[int], [7]), [0]),
}


@pytest.mark.parametrize("case", STRAYS)
@pytest.mark.sampled(4)
def test_what_a_validator_gives_that_its_type_does_not_take_is_no_finding(case):
    kind, said = STRAYS[case]
    with ScriptedServer(lambda request: findings(request, lambda unit: {"n": said})) as server:
        result = frame().amr.map_reduce(reduce=len, lm=server.lm(), **MAPPED | {"finding": kind})
    assert result.status["status"].tolist() == ["failed"] * ROWS
    assert result.frame["n"].isna().all()
    assert all("what the type does not take" in reason for reason in result.failures["reason"])


@pytest.mark.parametrize("case", OF_THE_TYPE)
def test_what_a_validator_gives_of_its_type_is_the_finding(case):
    kind, said = OF_THE_TYPE[case]
    with ScriptedServer(lambda request: findings(request, lambda unit: {"n": said})) as server:
        result = frame().amr.map_reduce(reduce=len, lm=server.lm(), **MAPPED | {"finding": kind})
    assert result.status["status"].tolist() == ["ok"] * ROWS
    assert len(result.failures) == 0


class Raising(BaseModel):
    """Its validator raises what pydantic lets pass."""

    n: int

    @field_validator("n")
    @classmethod
    def check(cls, value: int) -> int:
        raise KeyError("cell text")


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
@pytest.mark.parametrize("plan", [ONE_BY_ONE, ONE_BY_ONE | {"fan_in": 2}])
@pytest.mark.parametrize("kind", [Raising, list[Raising], Forgotten, list[Forgotten]])
def test_a_validator_of_the_output_that_raises_or_gives_nothing_fails_the_reduce_alone(kind, plan):
    answer = [{"n": 1, "sources": []}] if get_origin(kind) is list else {"n": 1}

    def script(request):
        return {"output": answer, "sources": []} if request.schema == "reduction" else truth(request)

    options = {**MAPPED, "reduce": "Say it.", "output": kind, "plan": plan}
    with ScriptedServer(script) as server:
        result = frame().amr.map_reduce(lm=server.lm(), **options)
        is_right(result, server)
        assert "its validator" in " ".join(result.failures["reason"])
        assert not any("cell text" in reason for reason in result.failures["reason"])
        assert result.frame["n"].tolist() == list(range(ROWS))
        with pytest.raises(amr.InvalidOutput, match="its validator") as caught:
            frame().amr.map_reduce(lm=server.lm(), errors="raise", **options)
    assert caught.value.partial.frame["n"].tolist() == list(range(ROWS))


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
def test_a_second_look_that_sees_nothing_twice_says_so():
    with ScriptedServer(refusing) as server:
        result = frame().amr.map_reduce(reduce=len, lm=server.lm(), **MAPPED)
        seen = result.verify(share=1.0)
    assert repr(seen) == "<Verification by scripted: nothing was seen twice>"
    assert seen._repr_html_()
