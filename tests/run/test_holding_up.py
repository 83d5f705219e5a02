"""What takes as long as a frame is large does not hold up other runs of the process."""

from __future__ import annotations

import threading

import pandas as pd
import pytest

from moments import LONGEST_S, until
from numbered import rows
from pandas_amr.testing import ScriptedServer, findings

MANY = 400  # rows of a frame that is prepared in a thread


class Waiting:
    """A cell that is read only once the other run has ended; whoever reads it in the engine's loop finds that it has not."""

    def __init__(self, begun: threading.Event, other_ended: threading.Event) -> None:
        self._begun, self._other_ended = begun, other_ended
        self.has_ended: list[bool] = []

    def read(self) -> str:
        if threading.current_thread() is threading.main_thread():  # the call is checked where it is made
            return "text"
        self._begun.set()
        if not self.has_ended:
            self.has_ended.append(self._other_ended.wait(LONGEST_S / 10))
        return "text"

    __str__ = read

    def __hash__(self) -> int:
        return len(self.read())

    def __eq__(self, other: object) -> bool:
        return self is other


def lengths(shard):
    return pd.DataFrame({"n": range(len(shard))}, index=shard.index)


def read_by_model(request):
    if request.schema == "plan":
        return {
            "map_instruction": "Count.",
            "fields": [{"name": "n", "type": "int"}],
            "reduce": {"fields": [{"field": "n", "by": "sum"}]},
        }
    return findings(request, lambda unit: {"n": 1})


CALLS = {
    "a plan": {"task": "How many?", "map": None},
    "units": {"map": "Count.", "finding": {"n": int}, "reduce": {"n": "sum"}},
    "groups of a function": {"map": lengths, "reduce": len, "by": "cell"},
    "groups of agents": {"map": lengths, "reduce": "Sum up.", "by": "cell"},
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_small_run_ends_while_a_large_frame_is_prepared(call):
    begun, ended = threading.Event(), threading.Event()
    cell = Waiting(begun, ended)
    frame = pd.DataFrame({"cell": pd.Series([cell, *["text"] * (MANY - 1)], dtype=object)})
    with ScriptedServer(read_by_model) as server:
        large = frame.amr.start(**call, lm=server.lm(max_parallelism=4), journal=False)
        assert begun.wait(LONGEST_S)
        small = rows(3).amr.map(lengths, journal=False)
        ended.set()
        until(lambda: cell.has_ended)
        large.cancel()
    assert len(small) == 3
    assert set(cell.has_ended) == {True}
