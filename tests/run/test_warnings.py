"""Warnings of a run: when they are issued, where, and how often."""

from __future__ import annotations

import asyncio
import sys
import threading
import warnings
from collections import Counter
from typing import Self

import pandas as pd
import pytest

import pandas_amr as amr
from pandas_amr.testing import ScriptedServer, Status, findings
from planner_answers import answer, field

ROWS = 6
DF = pd.DataFrame({"text": [f"row {number}" for number in range(ROWS)], "shop": ["a", "a", "a", "a", "b", "b"]})
OPTIONS = {"columns": ["text"], "finding": {"n": int}, "plan": {"shard_size": 1}, "max_parallelism": 1}
ENGINE = "pandas-amr"

pytestmark = pytest.mark.filterwarnings("error")  # the one that other tests leave out, too


def n_of(request) -> int:
    return int(request.units[0]["text"].split()[1])


def truth(request):
    return findings(request, lambda unit: {"n": int(unit["text"].split()[1])})


def failing(request):
    """Row 3 fails."""
    return Status(400, "no") if n_of(request) == 3 else truth(request)


def seedless(request):
    """The setting is refused."""
    if "seed" in request.body:
        return Status(400, "Unsupported parameter: 'seed' is not supported with this model.")
    return truth(request)


def failed_frame(frame):
    raise ZeroDivisionError


class Recorder:
    """Records what is issued, with the thread and with how many requests had been sent by then."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.seen: list[tuple[warnings.WarningMessage, str, int]] = []

    def __enter__(self) -> Self:
        self._block = warnings.catch_warnings()
        self._block.__enter__()
        warnings.simplefilter("always")
        warnings.showwarning = self._show
        return self

    def __exit__(self, *exception: object) -> None:
        self._block.__exit__(*exception)

    def _show(self, message, category, filename, lineno, file=None, line=None) -> None:
        warning = warnings.WarningMessage(message, category, filename, lineno, file, line)
        self.seen.append((warning, threading.current_thread().name, len(self.server.requests)))

    @property
    def only(self) -> tuple[warnings.WarningMessage, str, int]:
        assert len(self.seen) == 1, [str(warning.message) for warning, _, _ in self.seen]
        return self.seen[0]


def line() -> int:
    """The line of the test that calls this."""
    return sys._getframe(1).f_lineno


def await_run(run):
    async def wait():
        return await run

    return asyncio.run(wait())


def iterate(run):
    for _ in run:
        pass
    return run.result()


PLANNED = answer("Read it.", field("n", "int"), shard_size=1, parallelism=1, by=["shop"])


def planner(request):
    """Plans groups for a reduce that is the user's: they are left out, and told."""
    return PLANNED if request.schema == "plan" else truth(request)


# What the verbs say

SAID = {
    "map": (lambda lm: DF.amr.map("Which?", lm=lm, **OPTIONS), "1 of 6 units failed; they are <NA>"),
    "filter": (
        lambda lm: DF.amr.filter("Odd.", lm=lm, columns=["text"], plan={"shard_size": 1}, max_parallelism=1),
        "units failed; they are kept",
    ),
    "an aggregate": (
        lambda lm: DF.amr.map_reduce(map="Which?", reduce={"n": "sum"}, lm=lm, **OPTIONS),
        "The answer rests on 5 of 6 rows: 1 failed",
    ),
    "an aggregate by group": (
        lambda lm: DF.amr.map_reduce(map="Which?", reduce={"n": "mean"}, by="shop", lm=lm, **OPTIONS),
        "The answer rests on 5 of 6 rows: 1 failed",
    ),
    "a function": (
        lambda lm: DF.amr.map_reduce(map="Which?", reduce=len, lm=lm, **OPTIONS),
        "The answer rests on 5 of 6 rows: 1 failed",
    ),
    "a recipe": (
        lambda lm: amr.Recipe().map("Which?", columns=["text"], finding={"n": int}, plan={"shard_size": 1})(DF, lm=lm),
        "1 of 6 units failed; they are <NA>",
    ),
    "a pipe": (lambda lm: DF.pipe(amr.map, "Which?", lm=lm, **OPTIONS), "1 of 6 units failed; they are <NA>"),
}  # fmt: skip


def test_rows_that_a_run_left_out_when_it_stopped_are_no_part_of_what_its_answer_rests_on():
    with ScriptedServer(failing) as server, Recorder(server) as recorder:
        DF.amr.map_reduce(map="Which?", reduce={"n": "sum"}, lm=server.lm(), budget=amr.Budget(calls=4), **OPTIONS)
    said = [str(warning.message) for warning, _, _ in recorder.seen]
    rests = "The answer rests on 4 of 6 rows: 1 failed, and are listed in result.failures."
    assert f"{rests} Not asked about, since the run stopped: 1." in said


@pytest.mark.parametrize("what", SAID)
def test_a_warning_is_issued_once_on_the_callers_thread(what):
    call, said = SAID[what]
    with ScriptedServer(failing) as server, Recorder(server) as recorder:
        call(server.lm())
    warning, thread, _ = recorder.only
    assert said in str(warning.message)
    assert warning.category is amr.FailureWarning
    assert warning.filename == __file__
    assert thread == threading.current_thread().name


def test_it_names_the_line_of_the_call_at_whatever_depth():
    with ScriptedServer(failing) as server, Recorder(server) as recorder:
        found = line() + 1
        DF.amr.map("Which?", lm=server.lm(), **OPTIONS)
        piped = line() + 1
        DF.pipe(amr.map, "Which?", lm=server.lm(), **OPTIONS)
        result = amr.map_reduce(DF, map="Which?", reduce={"n": "sum"}, lm=server.lm(), **OPTIONS)
        again = line() + 1
        result.retry()
        verified = line() + 1
        result.verify(share=1.0)
        made = line() + 1
        amr.Recipe().map("Which?", columns=["text"], finding={"n": int}, plan={"shard_size": 1})(DF, lm=server.lm())
    lines = [warning.lineno for warning, _, _ in recorder.seen]
    assert lines[:2] == [found, piped]
    assert lines[3:] == [again, verified, made]


@pytest.mark.parametrize("wait", [amr.Run.result, await_run, iterate])
def test_in_a_run_that_was_started_it_names_the_line_of_the_start_whoever_waits(wait):
    with ScriptedServer(failing) as server, Recorder(server) as recorder:
        started = line() + 1
        run = DF.amr.start(map="Which?", reduce={"n": "sum"}, lm=server.lm(), **OPTIONS)
        wait(run)
        wait_again = run.result()
    warning, thread, _ = recorder.only
    assert (warning.lineno, thread) == (started, ENGINE)
    assert [str(one) for one in wait_again.warnings] == [str(warning.message)]


@pytest.mark.parametrize("file", ["<string>", "models/customers.py"])
def test_code_that_was_compiled_at_run_time_has_its_lines_named_too(file):
    code = compile("\n\ndef model(df, lm, options):\n    return df.amr.map('Which?', lm=lm, **options)\n", file, "exec")
    names: dict = {}  # no __name__ in it, as in a dbt model
    exec(code, names)
    with ScriptedServer(failing) as server, Recorder(server) as recorder:
        names["model"](DF, server.lm(), OPTIONS)
    warning, _, _ = recorder.only
    assert (warning.filename, warning.lineno) == (file, 4)


def test_a_thread_that_runs_no_code_of_the_users_is_warned_as_well():
    with ScriptedServer(failing) as server, Recorder(server) as recorder:
        thread = threading.Thread(
            target=amr.map, args=(DF, "Which?"), kwargs={"lm": server.lm(), **OPTIONS}, name="own"
        )
        thread.start()
        thread.join()
    warning, name, _ = recorder.only
    assert (warning.filename, name) == ("sys", "own")


# When


def test_failed_rows_are_known_before_the_reduce_and_issued_though_that_raises():
    with ScriptedServer(failing) as server, Recorder(server) as recorder:
        seen_at_reduce = []

        def reducer(frame):
            seen_at_reduce.extend(str(warning.message) for warning, _, _ in recorder.seen)
            raise ZeroDivisionError

        with pytest.raises(amr.RunStopped) as caught:
            DF.amr.map_reduce(map="Which?", reduce=reducer, lm=server.lm(), **OPTIONS)
    warning, _, _ = recorder.only
    assert seen_at_reduce == [str(warning.message)]
    assert [str(one) for one in caught.value.partial.warnings] == seen_at_reduce


def test_a_verification_that_failed_in_part_says_so_and_not_of_what_frame():
    with ScriptedServer(truth) as server, ScriptedServer(failing) as second, Recorder(second) as recorder:
        result = DF.amr.map_reduce(map="Which?", reduce={"n": "sum"}, lm=server.lm(), **OPTIONS)
        seen = result.verify(share=1.0, lm=second.lm())
    warning, _, _ = recorder.only
    assert str(warning.message).startswith("The verification failed in part: 1 of 6 rows have no second finding")
    assert seen.failed == 1


def test_a_run_that_stops_says_so_once_as_a_warning_or_as_an_error():
    with ScriptedServer(truth) as server, Recorder(server) as recorder:
        DF.amr.map("Which?", lm=server.lm(), budget=amr.Budget(calls=2), **OPTIONS)
    assert "The run stopped early" in str(recorder.only[0].message)
    with ScriptedServer(truth) as server, Recorder(server) as recorder, pytest.raises(amr.BudgetExceeded):
        DF.amr.map("Which?", lm=server.lm(), budget=amr.Budget(calls=2), errors="raise", **OPTIONS)
    assert recorder.seen == []


def test_an_error_of_failed_units_is_not_told_twice():
    with ScriptedServer(failing) as server, Recorder(server) as recorder, pytest.raises(amr.MapFailed):
        DF.amr.map("Which?", lm=server.lm(), errors="raise", **OPTIONS)
    assert recorder.seen == []


def test_a_setting_that_is_left_out_is_told_while_the_run_goes_on():
    with ScriptedServer(seedless) as server, Recorder(server) as recorder:
        DF.amr.map("Which?", lm=server.lm(seed=1), **OPTIONS)
        sent = len(server.requests)
    warning, thread, requests = recorder.only
    assert warning.category is amr.SettingWarning
    assert thread == threading.current_thread().name
    assert requests < sent


# As errors


def cut_groups(lm):
    """Groups are larger than a shard, which is known once shards are cut."""
    plan = {"shard_size": 2, "segmentation": "groups", "group_columns": ["shop"]}
    DF.amr.map("Which?", lm=lm, columns=["text"], finding={"n": int}, max_parallelism=1, plan=plan)


def plan_groups(lm):
    """The planner's groups are left out, which is known once it has answered."""
    DF.amr.map_reduce("How many?", reduce={"n": "sum"}, columns=["text", "shop"], lm=lm)


def start_plan(lm):
    """The same, of a run that nobody waits for when it is known."""
    DF.amr.start("How many?", reduce={"n": "sum"}, columns=["text", "shop"], lm=lm).result()


PLANS = {cut_groups: 0, plan_groups: 1, start_plan: 1}  # with how many requests are sent before


@pytest.mark.parametrize("call", PLANS)
def test_a_plans_warning_is_issued_before_the_first_row_is_sent(call):
    with ScriptedServer(planner) as server, Recorder(server) as recorder:
        call(server.lm())
        assert len(server.requests) > PLANS[call]
    warning, _, requests = recorder.only
    assert warning.category is amr.PlanWarning
    assert requests == PLANS[call]


@pytest.mark.parametrize("call", PLANS)
def test_a_plans_warning_raised_as_an_error_sends_no_row(call):
    with ScriptedServer(planner) as server, pytest.raises(amr.PlanWarning):
        call(server.lm())
    assert len(server.requests) == PLANS[call]


def test_a_warning_raised_as_an_error_loses_nothing_and_leaves_no_thread(tmp_path):
    journal = tmp_path / "journal.sqlite"
    with ScriptedServer(failing) as server:
        for verb in (
            lambda: DF.amr.map("Which?", lm=server.lm(), journal=journal, **OPTIONS),
            lambda: DF.amr.start(
                map="Which?", reduce={"n": "sum"}, lm=server.lm(), journal=journal, **OPTIONS
            ).result(),
        ):
            with pytest.raises(amr.FailureWarning) as caught:
                verb()
            assert caught.value.partial.frame["n"].isna().tolist() == [n == 3 for n in range(ROWS)]
    with ScriptedServer(truth) as server:
        found = DF.amr.map("Which?", lm=server.lm(), journal=journal, **OPTIONS)
        assert [n_of(request) for request in server.requests] == [3]
    assert found["n"].tolist() == list(range(ROWS))
    assert not [thread for thread in threading.enumerate() if thread.name == "pandas-amr-function"]


def test_a_setting_raised_as_an_error_in_mid_run_finishes_what_is_in_flight_and_begins_no_more(tmp_path):
    journal = tmp_path / "journal.sqlite"
    with ScriptedServer(seedless) as server:
        with pytest.raises(amr.SettingWarning) as caught:
            DF.amr.map("Which?", lm=server.lm(seed=1), journal=journal, **OPTIONS)
        read = caught.value.partial.frame["n"].notna().sum()
        answered = sum(1 for request in server.requests if "seed" not in request.body)
        assert 0 < read == answered < ROWS
        before = len(server.requests)
        DF.amr.map(
            "Which?", lm=server.lm(seed=1), journal=journal, **OPTIONS
        )  # what the server refuses is known by now
        assert len(server.requests) - before == ROWS - read


def test_an_error_goes_before_a_warning_that_is_raised():
    with ScriptedServer(failing) as server, warnings.catch_warnings():
        warnings.filterwarnings("error")
        with pytest.raises(amr.FailureWarning):  # known before the reduce, which does not run
            DF.amr.map_reduce(map="Which?", reduce=failed_frame, lm=server.lm(), **OPTIONS)
    with ScriptedServer(lambda request: Status(401, "no")) as server, pytest.raises(amr.ModelConfigError):
        DF.amr.map("Which?", lm=server.lm(), **OPTIONS)


# with run:


def pages(server):
    return DF.amr.start(map="Which?", reduce={"n": "sum"}, lm=server.lm(), **OPTIONS)


class Gate:
    """Answers the first rows; the others wait until it is opened."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.opened = threading.Event()

    def __call__(self, request):
        if n_of(request) >= self.rows:
            self.opened.wait(60)
        return truth(request)


def leave_by_break(run):
    with run:
        for finding in run:
            first = finding["position"]
            break
    return first


def leave_by_error(run):
    with run:
        for _ in run:
            raise LookupError


def leave_async(run):
    async def leave():
        async with run:
            async for finding in run:
                first = finding["position"]
                break
        return first

    return asyncio.run(leave())


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_error, leave_async])
def test_a_block_that_is_left_stops_the_run(leave):
    gate = Gate(1)
    with ScriptedServer(gate) as server:
        run = pages(server)
        if leave is leave_by_error:
            with pytest.raises(LookupError):
                leave(run)
        else:
            assert leave(run) == 0
        assert run.done()
        assert repr(run).endswith("cancelled>")
        gate.opened.set()
        with pytest.raises(asyncio.CancelledError):
            run.result()
        DF.amr.map("Which?", lm=server.lm(), **OPTIONS)  # the engine has had its turn
        asked = Counter(n_of(request) for request in server.requests)
        assert [asked[row] for row in range(2, ROWS)] == [1] * (ROWS - 2)  # at most row 1 was in flight


def test_a_block_that_is_left_after_the_end_does_nothing():
    async def wait():
        async with pages(server) as run:
            return await run

    with ScriptedServer(truth) as server:
        with pages(server) as run:
            result = run.result()
        assert run.result() is result
        assert result.output["n"] == 15
        assert asyncio.run(wait()).output["n"] == 15


def test_break_without_a_block_lets_the_run_go_on():
    with ScriptedServer(truth) as server:
        run = pages(server)
        for _ in run:
            break
        assert run.result().output["n"] == 15
        assert len(server.requests) == ROWS
