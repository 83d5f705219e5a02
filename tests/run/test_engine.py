"""How much happens at once."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading

import pytest

from numbered import rows as many
from pandas_amr._records.clock import CLOCK
from pandas_amr._records.concurrency import run_concurrently
from pandas_amr._records.engine import engine_loop, submit
from pandas_amr.testing import Call, ScriptedServer, findings
from together import Together
from versions import once


def found(request):
    return findings(request, lambda unit: {"finding": "x"})


@once
@pytest.mark.parametrize("limit", [1, 3, 16])
def test_requests_in_flight_reach_max_parallelism_and_never_pass_it(limit):
    with ScriptedServer(Together(found, limit), latency_s=0.02) as server:
        many(64).amr.map("Read.", plan={"shard_size": 1}, max_parallelism=limit, lm=server.lm())
    assert server.max_in_flight == limit
    assert len(server.requests) == 64


def test_the_reduce_shares_the_bound_with_the_map():
    """A static tree starts before the map has ended; both stand behind one gate."""

    def provider(request):
        if request.schema == "finding":
            return findings(request, lambda unit: {"finding": unit["text"]})
        return {"output": "some", "sources": []}

    with ScriptedServer(Together(provider, 4), latency_s=0.01) as server:
        many(60).amr.map_reduce(
            map="Read.", reduce="Combine.", plan={"shard_size": 1, "fan_in": 2}, max_parallelism=4, lm=server.lm()
        )
    kinds = [request.schema for request in server.requests]
    assert kinds.index("reduction") < len(kinds) - 1 - kinds[::-1].index("finding")
    assert server.max_in_flight == 4


def test_a_models_own_bound_holds_over_the_runs():
    with ScriptedServer(Together(found, 2), latency_s=0.01) as server:
        many(12).amr.map("Read.", plan={"shard_size": 1}, max_parallelism=8, lm=server.lm(max_parallelism=2))
    assert server.max_in_flight == 2


def test_tasks_are_made_as_they_are_needed_not_one_a_row():
    seen: list[int] = []

    def provider(request):
        seen.append(len(asyncio.all_tasks(engine_loop())))
        return findings(request, lambda unit: {"finding": "x"})

    before = len(asyncio.all_tasks(engine_loop()))
    with ScriptedServer(provider) as server:
        many(300).amr.map("Read.", plan={"shard_size": 1}, max_parallelism=4, lm=server.lm())
    assert len(seen) == 300
    # four workers and the run itself; the HTTP client may add one or two of its own a connection
    assert max(seen) - before <= 4 * 3 + 2


def test_each_yields_in_the_order_of_finishing_and_draws_items_late():
    drawn: list[int] = []
    others = asyncio.Event()

    def source():
        for item in range(5):
            drawn.append(item)
            yield item

    async def work(item):
        await (others.wait() if item == 0 else asyncio.sleep(0))
        if item == 4:
            others.set()
        return item

    async def collect():
        return [(done, len(drawn)) async for done in run_concurrently(work, source(), limit=2)]

    order = asyncio.run(collect())
    assert [done for done, _ in order] == [1, 2, 3, 4, 0]
    assert order[0][1] <= 3


def test_each_draws_nothing_after_an_exception_and_raises_it_once_what_is_in_flight_has_landed():
    drawn, landed = [], []
    raised = asyncio.Event()

    async def work(item):
        drawn.append(item)
        if item == 2:
            raised.set()
            raise KeyError(item)
        await raised.wait()
        for _ in range(10):  # turns in which another item would be drawn
            await asyncio.sleep(0)
        return item

    async def collect():
        async for done in run_concurrently(work, range(9), limit=3):
            landed.append(done)

    with pytest.raises(KeyError):
        asyncio.run(collect())
    assert drawn == [0, 1, 2]
    assert landed == [0, 1]


def test_each_cancels_what_is_in_flight_when_it_is_closed():
    cancelled: list[int] = []

    async def work(item):
        try:
            await asyncio.sleep(0.0 if item == 2 else 3600)
        except asyncio.CancelledError:
            cancelled.append(item)
            raise

    async def first():
        async with contextlib.aclosing(run_concurrently(work, range(9), limit=3)) as results:
            async for _ in results:
                return

    asyncio.run(first())
    assert cancelled[:2] == [0, 1]


def test_each_tells_where_work_was_cancelled_by_nobody():
    async def work(item):
        if item == 1:
            raise asyncio.CancelledError
        return item

    async def collect():
        return [done async for done in run_concurrently(work, range(3), limit=2)]

    with pytest.raises(RuntimeError, match="cancelled"):
        asyncio.run(collect())


def test_what_waits_in_the_engine_goes_on_when_the_clock_is_moved_on():
    began = threading.Event()

    async def wait():
        loop = asyncio.get_running_loop()
        before, until = loop.time(), CLOCK.now() + 3600.0
        loop.call_soon(began.set)
        await asyncio.sleep(3600.0)
        return loop.time() - before >= 3600.0 and CLOCK.now() >= until

    waiting = submit(wait())
    assert began.wait(60)
    assert not waiting.done()
    CLOCK.move_on(3600.0)
    assert waiting.result(60)


# What users do to loops


def exit_later() -> None:
    asyncio.get_running_loop().call_soon(sys.exit)


def exit_in_a_task() -> None:
    async def leave() -> None:
        sys.exit(3)

    exiting.append(asyncio.get_running_loop().create_task(leave()))


def interrupt_later() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    asyncio.get_running_loop().call_soon(interrupt)


def stop_the_loop() -> None:
    asyncio.get_running_loop().stop()


exiting: list[asyncio.Task[None]] = []


@pytest.mark.parametrize("harm", [exit_later, exit_in_a_task, interrupt_later, stop_the_loop])
def test_what_a_tool_does_to_its_loop_ends_neither_this_run_nor_the_next(harm):
    async def look() -> str:
        """Look."""
        harm()
        await asyncio.sleep(0)
        return "looked"

    def provider(request):
        if request.tools and not request.tool_results:
            return Call("look", {})
        assert request.tool_results in ([], ["looked"])
        return found(request)

    with ScriptedServer(provider) as server:
        for _ in range(2):
            frame = many(2).amr.map("Read.", tools=[look], plan={"shard_size": 1}, lm=server.lm())
            assert frame["finding"].tolist() == ["x", "x"]
    while exiting:
        assert isinstance(exiting.pop().exception(), SystemExit)


@once
def test_the_engine_has_a_loop_of_python_s_own_whatever_policy_there_is():
    script = (
        "import asyncio, warnings, pandas as pd\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"  # policies themselves, from Python 3.14 on
        "class Policy(asyncio.DefaultEventLoopPolicy):\n"
        "    def new_event_loop(self): raise RuntimeError('loops are for the main thread')\n"
        "asyncio.set_event_loop_policy(Policy())\n"
        "import pandas_amr\n"
        "found = pd.DataFrame({'a': [1, 2]}).amr.map(lambda rows: [{'b': 3}] * len(rows), finding={'b': int})\n"
        "print(found['b'].tolist())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[3, 3]\n", "")
