"""Warnings of runs on several threads: each is shown, though Python's filters are those of the process."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pandas as pd

import pandas_amr as amr
from moments import LONGEST_S
from pandas_amr._records.callers import warn_caller
from pandas_amr._records.quiet import ignore_warnings
from pandas_amr.testing import ScriptedServer, Status

RUNS = 8


def test_blocks_that_ignore_warnings_leave_the_filters_as_they_were():
    before = list(warnings.filters)
    first_is_in, second_may_leave = threading.Event(), threading.Event()

    def first() -> None:
        with ignore_warnings():
            first_is_in.set()

    def second() -> None:
        first_is_in.wait(LONGEST_S)
        with ignore_warnings():
            second_may_leave.wait(LONGEST_S)

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(second), pool.submit(first)]
        running[1].result(LONGEST_S)
        second_may_leave.set()
        running[0].result(LONGEST_S)
    assert warnings.filters == before


def test_a_warning_waits_for_the_end_of_another_thread_s_block(recwarn):
    warnings.simplefilter("always")
    is_in, may_leave = threading.Event(), threading.Event()

    def quiet() -> None:
        with ignore_warnings():
            is_in.set()
            may_leave.wait(LONGEST_S)

    with ThreadPoolExecutor(2) as pool:
        block = pool.submit(quiet)
        is_in.wait(LONGEST_S)
        warned = pool.submit(warn_caller, amr.FailureWarning("two rows failed"))
        may_leave.set()
        block.result(LONGEST_S)
        warned.result(LONGEST_S)
    assert [str(one.message) for one in recwarn] == ["two rows failed"]


def test_runs_on_several_threads_show_a_warning_each(recwarn):
    warnings.simplefilter("always")
    frame = pd.DataFrame({"text": ["a", "b"]})

    def run(number: int) -> None:
        frame.amr.map_reduce(
            map=f"Question {number}?", finding={"n": int}, reduce={"n": ["sum", "mean"]}, lm=lm, journal=False
        )

    with ScriptedServer(lambda request: Status(400, "flagged")) as server:
        lm = server.lm()
        with ThreadPoolExecutor(RUNS) as pool:
            list(pool.map(run, range(RUNS)))
    assert sum(issubclass(one.category, amr.FailureWarning) for one in recwarn) == RUNS
