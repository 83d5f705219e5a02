"""A run while it goes: findings as they land, how far it is, several at once, and nothing left when it is stopped."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest

import pandas_amr as amr
from moments import until
from numbered import labelled_rows as rows
from pandas_amr.testing import Call, ScriptedServer, Status, findings
from processes import sandbox_processes
from together import Together
from versions import once


def n_of(unit: dict) -> int:
    return int(unit["text"].split()[1])


def provider(request):
    if request.schema == "reduction":
        return {"output": "all", "sources": [0]}
    return findings(request, lambda unit: {"n": n_of(unit)})


def begun(server, frame, **options):
    options = {"plan": {"shard_size": 1}, "reduce": {"n": "sum"}, "max_parallelism": 4, "lm": server.lm()} | options
    return frame.amr.start(map="x", finding={"n": int}, **options)


def test_findings_come_as_they_land_and_not_in_the_end():
    """The second row's answer is late: all others are seen before it. (Nothing is sent before the first one's.)"""
    others_seen = threading.Event()

    async def late(request):
        if n_of(request.units[0]) == 1:
            assert await asyncio.to_thread(others_seen.wait, 60)
        return provider(request)

    with ScriptedServer(late) as server:
        run = begun(server, rows(20))
        seen = []
        for finding in run:
            seen.append(finding)
            if len(seen) == 19:
                assert run.progress.found == 19
                assert not run.progress.done
                others_seen.set()
        assert seen[-1] == {"label": "label 1", "position": 1, "n": 1}
        assert sorted(one["n"] for one in seen) == list(range(20))
        assert run.result().output["n"] == sum(range(20))
        assert repr(run.progress).startswith("<Progress 20/20 units, 0 failed, 20 calls")
        assert [one["n"] for one in run] == [one["n"] for one in seen]  # again, from the beginning


def test_async_code_iterates_too_and_equal_rows_come_each():
    frame = pd.DataFrame({"text": ["row 1", "row 2", "row 1"]})

    async def read():
        with ScriptedServer(provider) as server:
            run = begun(server, frame)
            return [finding async for finding in run]

    seen = asyncio.run(read())
    assert sorted((one["position"], one["n"]) for one in seen) == [(0, 1), (1, 2), (2, 1)]


def test_a_run_that_fails_raises_at_the_end_and_failures_are_counted():
    def failing(request):
        return Status(400, "no") if n_of(request.units[0]) % 2 else provider(request)

    with ScriptedServer(failing) as server:
        run = begun(server, rows(6))
        assert sorted(one["n"] for one in run) == [0, 2, 4]
        assert run.progress.failed == 3
    with ScriptedServer(lambda r: Status(401, "no")) as server:
        run = begun(server, rows(6))
        with pytest.raises(amr.ModelConfigError):
            list(run)


def test_what_the_journal_has_comes_first(tmp_path):
    with ScriptedServer(provider) as server:
        begun(server, rows(5), journal=tmp_path / "j.sqlite").result()
        run = begun(server, rows(8), journal=tmp_path / "j.sqlite")
        seen = [one["n"] for one in run]
    assert seen[:5] == [0, 1, 2, 3, 4]
    assert sorted(seen[5:]) == [5, 6, 7]


def test_two_runs_at_once_under_one_throttle():
    """Each could have eight requests under way; the model bears three, of both together."""
    with ScriptedServer(Together(provider, 3), latency_s=0.01) as server:
        lm = server.lm(max_parallelism=3)
        runs = [begun(server, rows(30), max_parallelism=8, lm=lm) for _ in range(2)]
        counts = [0, 0]
        iterators = [iter(run) for run in runs]
        for turn in range(60):
            next(iterators[turn % 2])
            counts[turn % 2] += 1
        assert counts == [30, 30]
        assert [run.result().output["n"] for run in runs] == [sum(range(30))] * 2
        assert server.max_in_flight == 3


@pytest.mark.parametrize("phase", ["plan", "map", "reduce"])
def test_a_run_cancelled_in_any_phase_leaves_no_task_and_no_thread(phase):
    reached = threading.Event()

    async def held(request):
        wanted = {"plan": "plan", "map": "findings", "reduce": "reduction"}[phase]
        if request.schema == wanted:
            reached.set()
            await asyncio.sleep(3600)
        if request.schema == "plan":
            return {
                "map_instruction": "x",
                "finding": [{"name": "n", "type": "int", "description": "", "choices": []}],
                "shard_size": 5,
                "parallelism": 2,
                "aggregations": [],
                "reduce_instruction": "All.",
            }
        return provider(request)

    from pandas_amr._records.engine import engine_loop

    engine = engine_loop()

    def tasks() -> set[asyncio.Task]:
        async def all_others() -> set[asyncio.Task]:
            return asyncio.all_tasks() - {asyncio.current_task()}

        return asyncio.run_coroutine_threadsafe(all_others(), engine).result()

    with ScriptedServer(held) as server:
        before, threads = tasks(), threading.active_count()
        run = rows(20).amr.start("All?", lm=server.lm())
        assert reached.wait(30)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            run.result()
        until(lambda: not tasks() - before)
        assert tasks() - before == set()
        assert threading.active_count() <= threads + 1
        assert run.progress.done
        with pytest.raises(asyncio.CancelledError):
            list(run)


def connected(port: int) -> int:
    """Connections of this process to a port, as the kernel lists them."""
    rows = Path("/proc/self/net/tcp").read_text(encoding="utf-8").splitlines()[1:]
    return sum(row.split()[2].endswith(f":{port:04X}") and row.split()[3] == "01" for row in rows)


@once
@pytest.mark.skipif(sys.platform != "linux", reason="counts in /proc")
@pytest.mark.parametrize("busy", ["at the model", "in the sandbox"])
def test_a_run_cancelled_while_agents_have_python_leaves_no_process_and_no_request(busy, sandboxed):
    code = "import time; time.sleep(3600)" if busy == "in the sandbox" else "df"
    sent = 6 if busy == "in the sandbox" else 9
    frame = rows(6)

    def slow(request):
        if "warm" in request.system:
            return [Call("python_repl", {"code": "submit([{'n': 1}] * len(df))"})]
        return [Call("python_repl", {"code": code})]

    with ScriptedServer(slow, latency_s=lambda r: 30.0 if busy == "at the model" and r.tool_results else 0.0) as server:
        options = {"tools": [amr.PythonREPLTool()], "plan": {"shard_size": 2}, "lm": server.lm()}
        frame.amr.map("warm", finding={"n": int}, **options)  # what then is there stays for the next run
        before, port = sandbox_processes(), int(server.base_url.split(":")[2].split("/")[0])
        run = frame.amr.start(map="x", finding={"n": int}, reduce={"n": "sum"}, **options)
        until(lambda: len(sandbox_processes() - before) >= 3 and len(server.requests) >= sent)
        assert len(sandbox_processes() - before) >= 3
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            run.result()
        idle = 3 if busy == "in the sandbox" else 0  # connections without a request are kept for the next run
        until(lambda: connected(port) <= idle and sandbox_processes() <= before)
        assert connected(port) <= idle
        assert sandbox_processes() - before == set()
