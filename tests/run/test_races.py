"""Whoever comes first, is cancelled, or ends in a user's own function: nothing is lost, paid twice, left or in another order."""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import threading

import openai
import pandas as pd
import pytest

import pandas_amr as amr
from moments import until
from numbered import rows
from pandas_amr._agent.dispatch import dispatch
from pandas_amr._context.progress import Progress, Watch
from pandas_amr._records.engine import submit
from pandas_amr.models.base import ToolCall
from pandas_amr.sandbox.base import Data, Limits
from pandas_amr.sandbox.host.local import LocalSandbox
from pandas_amr.testing import Call, ScriptedServer, Status, findings
from pandas_amr.tools import Tool
from processes import run_python
from versions import once

pytestmark = [pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning"), once]

SUM = {"map": "x", "finding": {"n": int}, "reduce": {"n": "sum"}}


def ones(request):
    if request.schema == "reduction":
        return {"output": "combined", "sources": [0]}
    return findings(request, lambda unit: {"n": 1})


# What is cancelled


def test_runs_that_are_cancelled_give_back_exactly_the_places_that_they_had():
    with ScriptedServer(ones, latency_s=0.2) as server:
        options = SUM | {"lm": server.lm(max_parallelism=2), "plan": {"shard_size": 1, "parallelism": 30}}
        for _ in range(2):
            asked = len(server.requests)
            runs = [rows(20).amr.start(**options) for _ in range(3)]
            until(lambda: len(server.requests) >= asked + 3)  # noqa: B023 (called here)
            for run in runs:
                run.cancel()
            for run in runs:
                with pytest.raises(asyncio.CancelledError):
                    run.result()
        rows(20).amr.map_reduce(**options)
    assert server.max_in_flight == 2


@pytest.mark.long
def test_a_warm_process_whose_begin_is_cancelled_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    async def run():
        for steps in range(8):
            sandbox = LocalSandbox("process")
            opening = asyncio.create_task(sandbox.open(Data("df"), Limits()))
            for _ in range(1 + steps % 4):
                await asyncio.sleep(0)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            await sandbox.close()

    asyncio.run(run())
    assert list(tmp_path.glob("pandas-amr-*")) == []


def test_whoever_gives_up_watching_as_something_lands_does_not_fail_the_run():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(100):
            watch = Watch()
            waiting = [watch.next(10**9) for _ in range(100)]
            giving_up = threading.Thread(target=lambda futures=waiting: [future.cancel() for future in futures])
            giving_up.start()
            watch.show_progress(Progress())
            giving_up.join()
    finally:
        sys.setswitchinterval(interval)


def test_a_call_of_the_same_turn_has_ended_when_another_one_ends_the_run():
    ended = []

    async def refused() -> str:
        """Refused."""
        raise amr.BudgetExceeded("used up", None)

    async def slow() -> str:
        """Slow."""
        await asyncio.sleep(0.1)
        ended.append("slow")
        return "done"

    class Passing(Tool):
        passes = (amr.BudgetExceeded,)

    calls = [ToolCall("1", "refused", "{}"), ToolCall("2", "slow", "{}")]
    with pytest.raises(amr.BudgetExceeded):
        asyncio.run(dispatch(calls, [Passing(refused), Tool(slow)]))
    assert ended == ["slow"]


# What a user's function does


def exits(shard):
    sys.exit(2)


async def cancels(shard):
    raise asyncio.CancelledError


@pytest.mark.parametrize("function", [exits, cancels])
def test_a_function_that_would_end_the_loop_or_its_task_fails_its_rows(function):
    with pytest.raises(amr.MapFailed, match="was raised"):
        rows(3).amr.map_reduce(map=function, finding={"n": int}, reduce={"n": "sum"}, journal=False, errors="raise")
    again = rows(3).amr.map(lambda shard: [{"n": 1}] * len(shard), finding={"n": int}, journal=False)
    assert again["n"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("plan", [{"shard_size": 1}, {"shard_size": 1, "fan_in": 2}])
def test_an_instruction_that_exits_fails_its_row(plan):
    def said(row):
        if row["text"] == "row 1":
            sys.exit("no")
        return "What is it?"

    with ScriptedServer(ones) as server:
        result = rows(3).amr.map_reduce(
            map=amr.Agent(said), finding={"n": int}, reduce={"n": "sum"}, plan=plan, lm=server.lm()
        )
    assert result.status["status"].tolist() == ["ok", "failed", "ok"]


@pytest.mark.parametrize("reduce", [{"n": "sum"}, "All."])
def test_a_tool_that_was_cancelled_by_nobody_here_is_told_to_its_agent(reduce):
    async def look(text: str) -> str:
        """Look it up."""
        raise asyncio.CancelledError

    told = []

    def provider(request):
        if request.schema == "reduction" or request.tool_results or '"row 1"' not in request.user:
            told.extend(request.tool_results)
            answer = ones(request)
            return answer if request.schema == "reduction" else Call("submit_findings", answer)
        return Call("look", {"text": "a"})

    with ScriptedServer(provider) as server:
        result = rows(4).amr.map_reduce(
            map="x",
            finding={"n": int},
            reduce=reduce,
            tools=[look],
            lm=server.lm(),
            plan={"shard_size": 1, "fan_in": 2},
        )
    assert result.status["status"].tolist() == ["ok"] * 4
    assert "look raised RuntimeError: CancelledError was raised" in told[0]


def test_a_tool_s_own_time_out_is_told_as_its_own():
    async def look() -> str:
        """Look."""
        raise TimeoutError("the page did not come")

    (message,), _ = asyncio.run(dispatch([ToolCall("1", "look", "{}")], [Tool(look, timeout_s=None)]))
    assert message.content == "look raised TimeoutError: the page did not come"


# What is paid for


@pytest.mark.parametrize("plan", [{"fan_in": 2, "shard_size": 2}, {"reduce_budget": 60}])
def test_a_budget_reached_in_the_reduce_keeps_what_was_in_flight(tmp_path, plan):
    late = random.Random(1)
    frame = pd.DataFrame({"n": range(32), "text": ["some words that are there " * 3] * 32})
    options = {
        "map": lambda shard: pd.DataFrame({"v": shard["n"] * 2}, index=shard.index),
        "finding": {"v": int},
        "reduce": "All.",
        "plan": plan | {"parallelism": 4},
        "journal": tmp_path / "j.sqlite",
    }
    with ScriptedServer(ones) as server:
        frame.amr.map_reduce(**options | {"journal": tmp_path / "whole.sqlite"}, lm=server.lm())
        needed = len(server.requests)
    with ScriptedServer(ones, latency_s=lambda request: late.random() * 0.1) as server:
        told = 0
        for _ in range(needed):
            result = frame.amr.map_reduce(**options, lm=server.lm(), budget=amr.Budget(calls=4))
            told += result.total.calls
            assert not (result.trace["status"] == "running").any()
            if not result.stopped:
                break
    assert result.output == "combined"
    assert told == len(server.requests) == needed


def test_a_group_that_fails_where_nothing_may_begins_no_more_nodes_of_the_others():
    def provider(request):
        if request.schema == "reduction":
            return Status(400) if request.findings[0]["n"] == 0 else {"output": "part " * 8, "sources": [0]}
        return findings(request, lambda unit: {"n": int(unit["text"].split()[1])})

    frame = rows(64).assign(group=[number % 4 for number in range(64)])
    slow = lambda request: 0.3 if request.schema == "reduction" and request.findings[0]["n"] else 0.0  # noqa: E731
    with ScriptedServer(provider, latency_s=slow) as server, pytest.raises(amr.ModelError):
        frame.amr.map_reduce(
            map="x", finding={"n": int}, reduce="All.", by="group", columns=["text"], errors="raise", lm=server.lm(),
            plan={"fan_in": 2, "shard_size": 2, "parallelism": 4}, journal=False,
        )  # fmt: skip
    reduces = [request for request in server.requests if request.schema == "reduction"]
    assert len(reduces) <= 16  # the four first nodes of four trees, begun together: none has gone on


KILLED = """
import os, sys
import pandas as pd
import pandas_amr as amr
from pydantic import BaseModel, field_validator

class Found(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def checked(cls, n):
        if sys.argv[3] == "die":
            os._exit(9)  # as kill -9 would, once the first answer is there
        return n

lm = amr.LM("scripted", base_url=sys.argv[1], api_key="k", batch=True, batch_poll_s=0.02)
frame = pd.DataFrame({"text": [f"row {n}" for n in range(8)]})
print(frame.amr.map("x", finding=Found, lm=lm, journal=sys.argv[2], plan={"shard_size": 2})["n"].sum())
"""


@pytest.mark.long
def test_a_batch_is_found_again_until_its_answers_are_in_the_journal(tmp_path):
    with ScriptedServer(ones) as server:
        for how, code in (("die", 9), ("live", 0)):
            done = run_python(KILLED, server.base_url, tmp_path / "j.sqlite", how, XDG_CACHE_HOME=tmp_path)
            assert done.returncode == code, done.stderr
    assert done.stdout.strip() == "8"
    assert len(server.batches) == 1
    assert list((tmp_path / "pandas-amr" / "batches").rglob("*.json")) == []


def test_a_batch_whose_record_cannot_be_written_is_answered_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with ScriptedServer(ones) as server:
        lm = server.lm(batch=True, batch_poll_s=0.02, token_counter=len)
        assert rows(4).amr.map("x", finding={"n": int}, lm=lm, journal=False)["n"].sum() == 4
    assert len(server.batches) == 1


# The same call again


SETS = """
import sys
import pandas as pd
import pandas_amr
from pydantic import BaseModel
class Out(BaseModel):
    themes: set[str]
from pandas_amr.models.base import LM
result = pd.DataFrame({"text": [f"row {n}" for n in range(8)]}).amr.map_reduce(
    map="x", finding={"themes": set[str]}, reduce="All.", output=Out, plan={"shard_size": 2, "fan_in": 2},
    lm=LM("scripted", base_url=sys.argv[1], api_key="k"), journal=sys.argv[2],
)
print(result.total.calls, list(result.frame["themes"].iloc[0]))
"""


@pytest.mark.long
def test_a_set_has_one_order_whatever_the_hash_seed(tmp_path):
    themes = ["price", "speed", "taste", "size", "smell"]

    def provider(request):
        if request.schema == "reduction":
            return {"output": {"themes": themes}, "sources": [0]}
        return findings(request, lambda unit: {"themes": themes})

    with ScriptedServer(provider) as server:
        done = [run_python(SETS, server.base_url, tmp_path / "j", PYTHONHASHSEED=seed) for seed in (1, 2, 3)]
    assert [one.returncode for one in done] == [0, 0, 0], done[0].stderr
    (first, listed), *others = (one.stdout.strip().split(" ", 1) for one in done)
    assert int(first) > 0
    assert others == [["0", listed]] * 2


class Scale:
    """A function by another name each time that it is made."""

    def __call__(self, column):
        return column.sum()


@pytest.mark.parametrize("how", [lambda: Scale(), lambda: ["sum", Scale()]], ids=["one", "list"])
def test_a_plan_is_known_again_whatever_the_address_of_a_function(tmp_path, how):
    planned = {
        "map_instruction": "Read.",
        "finding": [{"name": "x", "type": "int", "choices": [], "description": "d"}],
        "shard_size": 4,
        "parallelism": 2,
        "aggregations": [],
        "reduce_instruction": "",
    }
    kept = []
    with ScriptedServer(
        lambda request: planned if request.schema == "plan" else findings(request, lambda unit: {"x": 1})
    ) as server:
        for _ in range(2):
            kept.append(how())  # so that the next one has another address
            frame = rows(4).assign(n=range(4))
            result = frame.amr.map_reduce(
                "What is x of each?", reduce={"n": kept[-1]}, columns=["text"], lm=server.lm(), journal=tmp_path / "j"
            )
    assert result.total.calls == 0
    assert " at 0x" not in "".join(request.user for request in server.requests)


def test_the_columns_of_a_function_s_findings_stand_in_the_order_of_the_frame():
    """The slow one ends after the three others."""
    columns = []
    for slow in (0, 3):
        ended, others = [], asyncio.Event()

        async def look(shard, slow=slow, ended=ended, others=others):
            number = int(shard["text"].iloc[0].split()[1])
            if number == slow:
                await others.wait()
            ended.append(number)
            if len(ended) == 3:
                others.set()
            return [{"first" if number == 0 else "later": number}]

        columns.append(
            list(rows(4).amr.map_reduce(map=look, reduce=len, plan={"shard_size": 1}, journal=False).findings)
        )
    assert columns == [["first", "later"]] * 2


def test_no_key_of_a_function_s_findings_is_dropped():
    found = rows(2).amr.map(lambda shard: [{"a": 1}, {"a": 2, "b": 3}], journal=False)
    assert found["b"].tolist()[1] == 3
    assert found["b"].isna().tolist() == [True, False]


@pytest.mark.parametrize("segmentation", ["rows", "neighbours"])
def test_what_a_retry_paid_for_is_known_to_the_same_call(tmp_path, segmentation):
    broken = [True]

    def provider(request):
        asked = request.user.split("```units")[1].split("```")[0]
        return Status(400) if broken and '"row 5"' in asked else ones(request)

    options = SUM | {"journal": tmp_path / "j", "plan": {"segmentation": segmentation, "shard_size": 4}}
    with ScriptedServer(provider) as server:
        first = rows(8).amr.map_reduce(**options, lm=server.lm())
        assert len(first.failures) == 1
        broken.clear()
        assert len(first.retry().failures) == 0
        server.requests.clear()
        again = rows(8).amr.map_reduce(**options, lm=server.lm())
        assert server.requests == []
    assert again.output["n"] == 8


def test_rows_that_are_alike_have_one_answer_the_first_time_and_again(tmp_path):
    frame = pd.DataFrame({"text": ["same", "other", "same", "same"]})
    given = iter(range(100))
    with ScriptedServer(lambda request: findings(request, lambda unit: {"n": next(given)})) as server:
        first, again = (
            frame.amr.map_reduce(
                map=amr.Agent(lambda row: "What of it?"), finding={"n": int}, reduce={"n": "sum"}, lm=server.lm(),
                journal=tmp_path / "j",
            )
            for _ in range(2)
        )  # fmt: skip
    assert first.findings["n"].tolist() == again.findings["n"].tolist() == [0, 1, 0, 0]


def test_a_retry_that_its_budget_stops_calls_no_row_failed_that_it_did_not_ask():
    broken = [True]

    def provider(request):
        return Status(400) if broken and request.units[0]["text"] != "row 0" else ones(request)

    with ScriptedServer(provider) as server:
        plan = {"shard_size": 1, "parallelism": 1}
        first = rows(8).amr.map_reduce(**SUM, plan=plan, lm=server.lm(), journal=False, budget=amr.Budget(calls=3))
        broken.clear()
        again = first.retry()
    assert again.stopped
    assert {"ok", "skipped"} <= set(again.status["status"])
    failed = again.status.index[again.status["status"] == "failed"]
    assert set(failed) == set(again.failures["position"])


# Models


def test_models_that_differ_in_their_client_alone_are_two():
    with ScriptedServer(ones) as first, ScriptedServer(ones) as second:
        clients = [openai.AsyncOpenAI(base_url=server.base_url, api_key="k") for server in (first, second)]
        one, other = (amr.LM("m", client=client, journaled=False) for client in clients)
        rows(1).amr.map_reduce(
            map={"a": amr.Agent("x", lm=one), "b": amr.Agent("y", lm=other)},
            finding={"a": {"n": int}, "b": {"n": int}},
            reduce={"a_n": "sum"},
            lm=one,
        )
        for client in clients:
            submit(client.close()).result()
    assert (len(first.requests), len(second.requests)) == (1, 1)


def test_a_budget_of_money_wants_the_prices_of_each_agent_s_own_model(refusing):
    with pytest.raises(amr.UsageError, match="those of unpriced are not known"):
        rows(1).amr.map_reduce(
            map=amr.Agent("y", lm=refusing.lm("unpriced")), finding={"n": int}, reduce={"n": "sum"},
            lm=refusing.lm("priced", prices=(1.0, 1.0)), budget=amr.Budget(money=1.0),
        )  # fmt: skip
