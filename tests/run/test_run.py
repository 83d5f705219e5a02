"""One engine for scripts, notebooks and async code; interrupted cleanly."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import time

import pandas as pd
import pytest

import pandas_amr as amr
from numbered import provider
from pandas_amr.testing import Call, ScriptedServer, Status, findings
from versions import once

DF = pd.DataFrame({"text": ["row 1", "row 2"]})


def test_the_same_call_works_in_a_live_loop_as_in_a_notebook():
    async def cell():
        with ScriptedServer(provider) as server:
            return DF.amr.map("Which?", finding={"n": int}, lm=server.lm())

    assert asyncio.run(cell())["n"].tolist() == [1, 2]


def test_a_run_can_be_awaited_and_others_go_on_meanwhile():
    enough = threading.Event()

    def waiting(request):
        assert enough.wait(30)
        return provider(request)

    async def main():
        with ScriptedServer(waiting) as server:
            run = DF.amr.start(map="Which?", finding={"n": int}, reduce={"n": "sum"}, lm=server.lm())
            beats = 0
            while not run.done():
                await asyncio.sleep(0.005)
                beats += 1
                if beats > 2:
                    enough.set()
            return beats, await run

    beats, result = asyncio.run(main())
    assert beats > 2
    assert result.output["n"] == 3


def test_several_runs_at_once_from_several_threads():
    with ScriptedServer(provider, latency_s=0.01) as server:
        found = []

        def work():
            found.append(DF.amr.map("Which?", finding={"n": int}, lm=server.lm())["n"].tolist())

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [[1, 2]] * 8


def test_a_cancelled_run_says_so_and_asks_for_nothing_more():
    with ScriptedServer(provider, latency_s=5.0) as server:
        run = amr.start(
            DF,
            map="Which?",
            finding={"n": int},
            reduce={"n": "sum"},
            plan={"shard_size": 1},
            max_parallelism=1,
            lm=server.lm(),
        )
        while not server.requests:
            time.sleep(0.005)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            run.result()
        assert run._ended.wait(30)
        assert repr(run) == "<Run map_reduce of 2 rows, cancelled>"
        assert len(server.requests) == 1


def test_cancelling_the_await_cancels_the_run():
    async def main():
        with ScriptedServer(provider, latency_s=5) as server:
            run = DF.amr.start(map="Which?", finding={"n": int}, reduce={"n": "sum"}, lm=server.lm())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(run, 0.2)
            assert run._ended.wait(30)

    asyncio.run(main())


@once
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_cancels_and_raises_and_the_next_call_works():
    code = """
    import os, signal, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    import pandas as pd, pandas_amr as amr
    from pandas_amr.testing import ScriptedServer, findings
    df = pd.DataFrame({"text": [f"row {n}" for n in range(50)]})
    def provider(request):
        if request.number == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return findings(request, lambda unit: {"finding": "x"})
    with ScriptedServer(provider, latency_s=0.05) as server:
        options = dict(lm=server.lm(), plan={"shard_size": 1}, max_parallelism=2)
        try:
            df.amr.map("Read.", **options)
            print("not interrupted")
        except KeyboardInterrupt:
            print("interrupted")
        again = df.head(20).amr.map("Read.", **options)["finding"].tolist()  # a run that goes on would ask as often
        latest = time.monotonic() + 120
        while server.in_flight and time.monotonic() < latest:
            time.sleep(0.005)
        print("again", again == ["x"] * 20, len(server.requests) <= 4 + 2 * 2 + 20, server.in_flight)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == ["interrupted", "again True True 0"], done.stderr
    assert done.stderr == ""


@pytest.mark.long
@once
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_at_any_moment_of_a_calls_beginning_leaves_no_run_that_goes_on():
    """The signal comes at the first, second, ... step of the calling thread once the engine has been given the run."""
    code = """
    import asyncio, os, signal, sys, threading, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    import pandas as pd, pandas_amr as amr
    from pandas_amr.testing import ScriptedServer, findings
    df = pd.DataFrame({"text": ["row 0"]})
    async def never(request):
        await asyncio.sleep(3600)
    def interrupt_at(step):
        steps = []
        def watched(frame, event, argument):
            if steps or (event == "return" and frame.f_code.co_name == "run_coroutine_threadsafe"):
                steps.append(event)
                if len(steps) == step:
                    sys.setprofile(None)
                    os.kill(os.getpid(), signal.SIGINT)
        sys.setprofile(watched)
    with ScriptedServer(lambda request: findings(request, lambda unit: {"finding": "x"})) as others:
        df.amr.map("Read.", lm=others.lm())
        for step in range(1, 6):
            with ScriptedServer(never) as server:
                late = threading.Timer(20, os.kill, (os.getpid(), signal.SIGINT))  # where there are not so many steps
                late.start()
                try:
                    interrupt_at(step)
                    df.amr.map("Read.", lm=server.lm())
                except KeyboardInterrupt as error:
                    late.cancel()
                    for _ in range(10):  # in the time of so many requests a run that goes on has sent its own
                        df.amr.map("Read.", lm=others.lm())
                    latest = time.monotonic() + 60
                    while server.in_flight and time.monotonic() < latest:
                        time.sleep(0.005)
                    print(step, hasattr(error, "partial"), server.in_flight, flush=True)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=600)
    assert done.stdout.splitlines() == [f"{step} True 0" for step in range(1, 6)], done.stderr
    assert done.stderr == ""


def test_a_sync_call_from_the_engines_own_thread_is_refused_instead_of_hanging():
    async def nested(rows):
        return DF.amr.map(lambda inner: [{"n": 1}] * len(inner), finding={"n": int})

    with pytest.raises(amr.UsageError, match=r"engine's own thread.*await df.amr.start"):
        DF.amr.map(nested, finding={"n": int})


def one_fails(shard):
    return [{"n": 12 // (1 - int(label))} for label in shard.index]  # row 1 divides by zero


def test_settings_hold_for_the_process_or_for_a_block():
    with ScriptedServer(provider) as server:
        with amr.settings(lm=server.lm(), max_parallelism=1):
            assert DF.amr.map("Which?", finding={"n": int})["n"].tolist() == [1, 2]
            with amr.settings(errors="raise"), pytest.raises(amr.MapFailed, match="1 of 2 units failed"):
                DF.amr.map(one_fails, finding={"n": int})
            with pytest.warns(amr.FailureWarning, match="1 of 2 units failed"):
                DF.amr.map(one_fails, finding={"n": int})
        with pytest.raises(amr.UsageError, match="No model"):
            DF.amr.map("Which?")
        amr.configure(lm=server.lm())
        try:
            seen = []
            thread = threading.Thread(
                target=lambda: seen.append(DF.amr.map("Which?", finding={"n": int})["n"].tolist())
            )
            thread.start()
            thread.join()
            assert seen == [[1, 2]]
        finally:
            amr.configure(lm=None)


def test_the_environment_names_the_model(monkeypatch):
    with ScriptedServer(provider) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
        monkeypatch.setenv("AMR_MODEL", "their-model")
        assert DF.amr.map("Which?", finding={"n": int})["n"].tolist() == [1, 2]
        assert server.requests[0].body["model"] == "their-model"
        assert server.requests[0].headers["authorization"] == "Bearer from-the-environment"


def test_errors_raise_stops_scheduling_and_carries_what_was_found():
    df = pd.DataFrame({"text": [f"row {n}" for n in range(20)]})

    def script(request):
        return Status(400, "no") if request.units[0]["text"] == "row 3" else provider(request)

    options = {"finding": {"n": int}, "plan": {"shard_size": 1}, "max_parallelism": 1}
    with ScriptedServer(script) as server:
        with pytest.raises(
            amr.MapFailed, match="1 of 20 units failed; the first, row 3: The server answered 400: no"
        ) as caught:
            df.amr.map("Which?", errors="raise", lm=server.lm(), **options)
        assert len(server.requests) < 7
        partial = caught.value.partial
        assert partial.frame["n"].tolist()[:3] == [0, 1, 2]
        with pytest.warns(amr.FailureWarning, match="1 of 20 units failed"):
            found = df.amr.map("Which?", lm=server.lm(), **options)
    assert found["n"].isna().sum() == 1


def test_nothing_at_all_succeeded_raises_only_where_errors_says_so():
    with ScriptedServer(lambda request: Status(400, "no")) as server:
        with pytest.raises(amr.MapFailed, match="No unit succeeded"):
            DF.amr.map("Which?", lm=server.lm(), plan={"shard_size": 1}, max_parallelism=2, errors="raise")
        with pytest.warns(amr.FailureWarning, match="2 of 2 units failed"):
            found = DF.amr.map("Which?", lm=server.lm())
    assert found["finding"].isna().all()


def test_a_wrong_key_stops_the_run_with_one_error_that_names_the_setting_and_not_the_key():
    df = pd.DataFrame({"text": [f"row {n}" for n in range(50)]})
    secret = "sk-very-secret-123456"
    script = lambda request: Status(401, f"Incorrect API key provided: {secret}")  # noqa: E731
    with ScriptedServer(script, latency_s=0.01) as server:
        with pytest.raises(amr.ModelConfigError, match="OPENAI_API_KEY") as caught:
            df.amr.map("Which?", plan={"shard_size": 1}, max_parallelism=4, lm=server.lm(api_key=secret))
        assert len(server.requests) <= 8
    error: BaseException | None = caught.value
    while error is not None:
        assert secret not in f"{error} {error!r} {vars(error)}"
        error = error.__cause__ or error.__context__
    assert secret not in repr(server.lm(api_key=secret))


def test_an_unknown_model_is_told():
    with ScriptedServer(lambda r: Status(404, "no such model", "model_not_found")) as server:
        with pytest.raises(amr.ModelConfigError, match=r"Check the model's name \(LM\('nope'\), AMR_MODEL\)"):
            DF.amr.map("Which?", lm=server.lm("nope"))
        assert len(server.requests) == 1


@once
@pytest.mark.parametrize("passing", [Status(429), Status(500), Status(408), Status(503, headers={"retry-after": "0"})])
def test_an_unavailable_service_is_asked_again_and_the_tries_are_counted(passing, monkeypatch):
    monkeypatch.setattr("pandas_amr.models.retry.FIRST_WAIT_S", 0.01)
    answers = iter([passing, passing])
    with ScriptedServer(lambda request: next(answers, None) or provider(request)) as server:
        result = DF.amr.map_reduce(map="Which?", finding={"n": int}, reduce={"n": "sum"}, lm=server.lm())
    assert result.output["n"] == 3
    assert result.usage.loc["map", ["calls", "tries"]].tolist() == [1, 3]


@once
def test_a_service_that_stays_away_fails_the_units_with_its_reason():
    with ScriptedServer(lambda request: Status(503, "down")) as server, pytest.raises(amr.MapFailed, match="503: down"):
        DF.amr.map("Which?", lm=server.lm(max_tries=1), errors="raise")
    with pytest.raises(amr.ModelUnavailable, match="No connection to 127.0.0.1") as caught:
        DF.amr.map("Which?", lm=amr.LM("m", base_url="http://127.0.0.1:9/v1", api_key="k", patience_s=0.5))
    assert caught.value.partial.status["status"].tolist() == ["skipped", "skipped"]


def test_options_of_the_model_reach_the_request():
    with ScriptedServer(provider) as server:
        lm = server.lm(
            temperature=0.5, seed=7, reasoning_effort="low", max_output_tokens=99, extra_headers={"x-team": "a"},
            extra_body={"top_k": 3}, token_counter=len,
        )  # fmt: skip
        DF.amr.map("Which?", finding={"n": int}, lm=lm)
        body, headers = server.requests[0].body, server.requests[0].headers
    assert (body["temperature"], body["seed"], body["reasoning_effort"], body["max_completion_tokens"]) == (
        0.5,
        7,
        "low",
        99,
    )
    assert (headers["x-team"], body["top_k"]) == ("a", 3)


def test_the_prompt_of_the_map_is_the_same_for_all_shards_up_to_the_units():
    df = pd.DataFrame({"text": [f"row {n}" for n in range(9)]})
    with ScriptedServer(provider) as server:
        df.amr.map("Which?", finding={"n": int}, plan={"shard_size": 3}, lm=server.lm())
    assert len({request.system for request in server.requests}) == 1


def test_a_tool_may_run_another_frame_through_the_library():
    """Sync tools run in threads of their own, from which a nested call may wait."""
    with ScriptedServer(lambda r: _nested(r)) as server:

        @amr.tool
        def inner(text: str) -> int:
            """Ask about another frame."""
            frame = pd.DataFrame({"text": [text]})
            return int(frame.amr.map("Which?", finding={"n": int}, lm=server.lm())["n"][0])

        assert DF.amr.map("Which?", finding={"n": int}, tools=[inner], lm=server.lm())["n"].tolist() == [9, 9]


def _nested(request):
    if "inner" not in request.tools:
        return provider(request)
    if not request.tool_results:
        return Call("inner", {"text": "row 9"})
    return findings(request, lambda unit: {"n": int(request.tool_results[0])})
