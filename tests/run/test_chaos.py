"""On its worst day a server costs the rows that it broke: all others are found, right, and told as they were billed."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from contextlib import ExitStack

import pandas as pd
import pytest

import pandas_amr as amr
from chaos import ERRORS, FAMILIES, SLOW, STAYS, UNTOLD, Chaos, fault_of
from pandas_amr.models.answered_servers import note_answer
from pandas_amr.models.openai.endpoint import Endpoint
from pandas_amr.models.throttle.model import throttle_for
from versions import once

pytestmark = [once, pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")]

KINDS = frozenset(kind for family in FAMILIES for kind in family)
EACH = 2  # rows that meet each fault, in the small mix
SHARD = 4
LARGEST_ANSWER = 2000  # tokens of a prompt and its answer, as they are estimated: there is no larger one


def mixed(kinds: Collection[str], *, each: int = EACH, plain: int | None = None) -> list[int]:
    """The first rows that meet each of these faults so often, and some that meet none.

    One row of each fault has a shard of its own with rows that meet none: that it happens is certain. The others share
    theirs, where what happens to one may let another one pass. A 429 comes late: a server that has admitted little yet
    is asked slowly after one.
    """
    kinds = sorted(kinds, reverse=True)
    plain = (SHARD - 1) * len(kinds) if plain is None else plain
    left: dict[str | None, int] = dict.fromkeys(kinds, each) | {None: plain}
    picked: dict[str | None, list[int]] = {kind: [] for kind in left}
    for n in itertools.count():
        if not any(left.values()):
            break
        fault = fault_of(f"row {n}")
        if left.get(fault, 0):
            left[fault] -= 1
            picked[fault].append(n)
    fine = picked.pop(None)
    numbers = []
    for rows in picked.values():
        numbers += [rows.pop(), *fine[: SHARD - 1]]
        del fine[: SHARD - 1]
    return numbers + fine + [n for rows in picked.values() for n in rows]


def start(server: Chaos, numbers: list[int], timeout_s: float = 2.5) -> amr.Run:
    df = pd.DataFrame({"text": [f"row {n}" for n in numbers]}, index=numbers)
    lm = server.lm(timeout_s=timeout_s)
    # Some rows are refused only after another one was answered; the first request would go alone. So it is as if the
    # server had answered before.
    address = Endpoint(lm).address
    note_answer(address[0])
    throttle_for(lm, *address).gate.open()
    return df.amr.start(
        map="Which row?",
        finding={"n": int},
        reduce={"n": "count"},
        plan={"shard_size": SHARD},
        max_parallelism=16,
        lm=lm,
        budget=amr.Budget(seconds=60.0),
        progress=False,
    )


@pytest.fixture(scope="module")
def alone() -> Iterator[dict[str, tuple[Chaos, amr.Run]]]:
    """A server and a run for each fault: they wait, so they do it side by side."""
    with ExitStack() as servers:
        begun = {}
        for fault in sorted(KINDS - SLOW):
            server = servers.enter_context(Chaos())
            begun[fault] = server, start(server, mixed([fault], plain=14), timeout_s=30.0)
        yield begun


def is_right(result: amr.Result, server: Chaos) -> None:
    """Whether each row was found with its value, or is one that cannot be, and says why."""
    assert result.stopped is None
    lost = [n for n in result.frame.index if server.stays(f"row {n}")]
    found = [None if pd.isna(n) else int(n) for n in result.frame["n"]]
    assert found == [None if n in lost else n for n in result.frame.index]
    assert list(result.failures["label"]) == lost
    assert all(len(reason) > 10 for reason in result.failures["reason"])


@pytest.mark.parametrize(
    "kinds",
    [pytest.param(KINDS - UNTOLD, marks=pytest.mark.long, id="usage told"), pytest.param(KINDS, id="usage odd too")],
)
def test_every_row_is_found_or_failed_with_a_reason_and_what_is_told_is_what_was_billed(kinds):
    with Chaos() as server:
        result = start(server, mixed(kinds)).result()
    is_right(result, server)
    assert set(server.happened) == kinds
    total = result.total
    assert (total.tries, total.calls) == (len(server.requests), server.paid.answers)
    assert total.estimated == server.untold
    assert server.untold <= total.tokens - server.told <= server.untold * LARGEST_ANSWER or not server.untold
    assert server.untold or total.tokens == server.told


@pytest.mark.parametrize("fault", sorted(KINDS - SLOW))
@pytest.mark.sampled(5)
def test_each_fault_alone_loses_no_row_that_it_did_not_break(fault, alone):
    server, run = alone[fault]
    result = run.result()
    is_right(result, server)
    assert server.happened[fault] > 0
    assert (result.total.tries, result.total.calls) == (len(server.requests), server.paid.answers)


@pytest.mark.parametrize("fault", sorted(SLOW))
def test_nothing_that_never_ends_outlasts_the_timeout_of_a_request(fault):
    with Chaos() as server:
        result = start(server, mixed([fault], each=1, plain=7), timeout_s=1.0).result()
    is_right(result, server)
    assert server.happened == {fault: 1}
    assert len(server.requests) == 3


def test_what_a_row_meets_is_the_same_each_time():
    assert [fault_of(f"row {n}") for n in range(100)] == [fault_of(f"row {n}") for n in range(100)]
    assert {*STAYS}.isdisjoint(ERRORS)
    assert all(answer is None or answer.status in {400, 403, 404} for answer in STAYS.values())
