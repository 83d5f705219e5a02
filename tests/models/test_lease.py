"""Processes on one key share its limits, and runs of all of them a budget."""

from __future__ import annotations

import asyncio

import pytest

from together_in_time import in_time
from versions import once

pytestmark = once

AIMS = {"headers": (0.03, 1.15), "told": (0.03, 1.15), "unknown": (0.08, 1.25)}  # of 429s; of the ideal time


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
@pytest.mark.parametrize("how", AIMS)
def test_processes_together_keep_a_limit_and_use_all_of_it(how, processes):
    """500 calls at 1,200 a minute, as benchmarks/many_processes.py, in a time that machines cannot disturb."""

    async def scenario(clock, process, provider):
        server = provider(1200, headers=how == "headers")
        rpm = 1200 if how == "told" else None
        made = [process(number, rpm=rpm) for number in range(processes)]
        began = clock()
        await asyncio.gather(*(one.run(server, 500 // processes) for one in made))
        return server, clock() - began

    server, took = in_time(scenario)
    most_refused, longest = AIMS[how]
    calls = 500 // processes * processes
    print(how, processes, server.refused, took)
    assert server.answered == calls
    assert server.refused / (server.refused + calls) <= most_refused
    assert took <= longest * calls / 20
