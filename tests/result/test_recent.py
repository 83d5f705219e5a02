"""What the process remembers of past results is bounded by their bytes; the last one is always there."""

from __future__ import annotations

import pandas as pd
import pytest

import pandas_amr as amr
from pandas_amr._result.recent import LEAST_BYTES, MOST_BYTES, RecentResults

ROWS = 40_000  # of an integer and a finding of 8 bytes each


def result_of_rows(count: int):
    frame = pd.DataFrame({"n": range(count)})
    return amr.result_of(frame.amr.map(lambda shard: pd.DataFrame({"twice": shard["n"] * 2}, index=shard.index)))


@pytest.mark.parametrize(
    ("most", "remembered"),
    [
        (1, [2]),  # the last one, whatever its size
        (2.5 * LEAST_BYTES, [1, 2]),
        (3.5 * LEAST_BYTES, [0, 1, 2]),
    ],
)
def test_small_results_count_as_one_size_and_the_oldest_is_forgotten_first(most, remembered):
    recent = RecentResults(most)
    results = [result_of_rows(3) for _ in range(3)]
    for number, result in enumerate(results):
        recent.add(str(number), result)
    assert [number for number in range(3) if recent.find(str(number)) is not None] == remembered


def test_a_large_result_takes_the_place_of_several():
    recent = RecentResults(4.5 * LEAST_BYTES)
    for number in range(4):
        recent.add(str(number), result_of_rows(3))
    large = result_of_rows(ROWS * 4)  # its frame and its findings: 3.75 MB
    recent.add("large", large)
    assert [recent.find(str(number)) for number in range(4)] == [None] * 4
    assert recent.find("large") is large


def test_a_process_remembers_more_than_32_small_frames():
    frame = pd.DataFrame({"n": [1, 2]})
    first = frame.amr.map(lambda shard: [1] * len(shard))
    for _ in range(40):
        frame.amr.map(lambda shard: [1] * len(shard))
    assert MOST_BYTES // LEAST_BYTES > 40
    assert amr.result_of(first).frame is first
