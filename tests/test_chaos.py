"""On its worst day a server costs the rows that it broke: all others are found, right, and told as they were billed."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd
import pytest

import pandas_amr as amr
from chaos import ERRORS, FAMILIES, SLOW, STAYS, UNTOLD, Chaos, fault_of
from versions import once

pytestmark = [once, pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")]

KINDS = frozenset(kind for family in FAMILIES for kind in family)
EACH = 2  # rows that meet each fault, in the small mix
PLAIN = 180
SHARD = 4
LARGEST_ANSWER = 2000  # tokens of a prompt and its answer, as they are estimated: there is no larger one
SMALL = frozenset({"429", "429 with zero"})  # where nothing says how long to wait, a run goes slowly: a few do


def mixed(kinds: Collection[str], each: int = EACH, plain: int = PLAIN) -> list[int]:
    """The first rows that meet each of these faults so often, among rows that meet none."""
    left: dict[str | None, int] = dict.fromkeys(kinds, each) | {None: plain}
    picked = []
    for n in range(100_000):
        fault = fault_of(f"row {n}")
        if left.get(fault, 0):
            left[fault] -= 1
            picked.append(n)
    assert not any(left.values())
    return picked


def run(server: Chaos, numbers: list[int]) -> amr.Result:
    df = pd.DataFrame({"text": [f"row {n}" for n in numbers]}, index=numbers)
    return df.amr.map_reduce(
        map="Which row?",
        finding={"n": int},
        reduce={"n": "count"},
        plan={"shard_size": SHARD},
        max_parallelism=16,
        lm=server.lm(timeout_s=1.0),
        budget=amr.Budget(seconds=30.0),
        progress=False,
    )


def is_right(result: amr.Result, server: Chaos) -> None:
    """Whether each row was found with its value, or is one that cannot be, and says why."""
    assert result.stopped is None
    lost = [n for n in result.frame.index if server.stays(f"row {n}")]
    found = [None if pd.isna(n) else int(n) for n in result.frame["n"]]
    assert found == [None if n in lost else n for n in result.frame.index]
    assert sorted(result.failures["label"]) == lost
    assert all(len(reason) > 10 for reason in result.failures["reason"])


@pytest.mark.parametrize("kinds", [KINDS - UNTOLD, KINDS], ids=["usage told", "usage odd too"])
def test_every_row_is_found_or_failed_with_a_reason_and_what_is_told_is_what_was_billed(kinds):
    with Chaos() as server:
        result = run(server, mixed(kinds - SMALL))
    is_right(result, server)
    assert set(server.happened) == kinds - SMALL
    total = result.total
    assert (total.tries, total.calls) == (len(server.requests), server.paid.answers)
    assert total.estimated == server.untold
    assert server.untold <= total.tokens - server.told <= server.untold * LARGEST_ANSWER or not server.untold
    assert server.untold or total.tokens == server.told


@pytest.mark.parametrize("fault", sorted(KINDS - SLOW))
def test_each_fault_alone_loses_no_row_that_it_did_not_break(fault):
    with Chaos() as server:
        result = run(server, mixed([fault], plain=14))
    is_right(result, server)
    assert server.happened[fault] > 0
    assert (result.total.tries, result.total.calls) == (len(server.requests), server.paid.answers)


@pytest.mark.parametrize("fault", sorted(SLOW))
def test_nothing_that_never_ends_outlasts_the_timeout_of_a_request(fault):
    with Chaos() as server:
        result = run(server, mixed([fault], each=1, plain=7))
    is_right(result, server)
    assert server.happened == {fault: 1}
    assert len(server.requests) == 3


def test_what_a_row_meets_is_the_same_each_time():
    assert [fault_of(f"row {n}") for n in range(100)] == [fault_of(f"row {n}") for n in range(100)]
    assert {*STAYS}.isdisjoint(ERRORS)
    assert all(answer is None or answer.status in {400, 403, 404} for answer in STAYS.values())
