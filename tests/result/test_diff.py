"""Where two results differ: which rows belong together, and which values are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import pandas_amr as amr
from examples import examples


def found_to_be(values: list[Any], kind: Any, index: Any = None) -> amr.Result:
    """A result whose field ``x`` has these values."""
    frame = pd.DataFrame({"n": range(len(values))}, index=index)
    return frame.amr.map_reduce(
        map=lambda shard: [{"x": values[n]} for n in shard["n"]], finding={"x": kind}, reduce=len
    )


def told_of(found: pd.DataFrame) -> list[str]:
    return sorted(found["amr_differs"])


# Which rows belong together

DAYS = pd.date_range("2026-01-01", periods=3)
TEXTS = DAYS.strftime("%Y-%m-%d")
POINTS = pd.Index([0.5, 1.5, 2.5])
OF_OTHER_KINDS = {
    "a text is no date": (TEXTS, DAYS),
    "a text is no date in a level": (
        pd.MultiIndex.from_product([["a"], TEXTS]),
        pd.MultiIndex.from_product([["a"], DAYS]),
    ),
    "a day is no time": (pd.Index(DAYS.date, dtype=object), DAYS),
    "a period is no time": (DAYS.to_period("D"), DAYS),
    "a point is no interval": (POINTS, pd.interval_range(0, 3)),
    "a text is no number": (POINTS.astype(str), POINTS),
    "a time without a zone has no place in one": (DAYS, DAYS.tz_localize("UTC")),
}


@pytest.mark.parametrize("name", OF_OTHER_KINDS)
def test_labels_of_other_kinds_are_of_other_rows_in_both_directions(name):
    first, second = (found_to_be([1, 2, 3], int, index) for index in OF_OTHER_KINDS[name])
    for one, other in ((first, second), (second, first)):
        found = one.diff(other)
        assert told_of(found) == ["only in other"] * 3 + ["only in self"] * 3
        assert found.index.tolist() == [*one.frame.index, *other.frame.index]
        summary = found.attrs["amr_diff"]
        assert (summary["rows"], summary["rows_only_self"], summary["rows_only_other"]) == (0, 3, 3)


OF_ONE_KIND = {
    "whole numbers as floats": (pd.Index([1, 2, 3]), pd.Index([1.0, 2.0, 4.0])),
    "texts in whatever type": (pd.Index(list("abc"), dtype=object), pd.CategoricalIndex(list("abd"))),
    "times of another zone": (
        DAYS.tz_localize("UTC"),
        (DAYS + pd.to_timedelta([0, 0, 9], "D")).tz_localize("UTC").tz_convert("Asia/Tokyo"),
    ),
    "a missing label, whatever it is": (pd.Index([1.0, np.nan, 3.0]), pd.Index([1, pd.NA, 4], dtype="Int64")),
    "intervals": (pd.interval_range(0, 3), pd.IntervalIndex.from_breaks([0.0, 1.0, 2.0, 4.0])),
    "levels": (
        pd.MultiIndex.from_tuples([("a", 1), ("a", np.nan), ("b", 1)]),
        pd.MultiIndex.from_tuples([("a", 1.0), ("a", None), ("c", 1.0)]),
    ),
}


@pytest.mark.parametrize("name", OF_ONE_KIND)
def test_labels_that_are_the_same_are_matched_in_both_directions(name):
    first, second = (found_to_be([1, 2, 3], int, index) for index in OF_ONE_KIND[name])
    for one, other in ((first, second), (second, first)):
        found = one.diff(other)
        assert told_of(found) == ["only in other", "only in self"]
        assert found.attrs["amr_diff"]["rows"] == 2


LABELS: list[Any] = [*TEXTS[:2], *DAYS[:2], 0.5, 1, True, *pd.interval_range(0, 2), np.nan, ("a", 1)]
REASONS = {(False, False): "x", (False, True): "only in self", (True, False): "only in other"}
SOME_ROWS = st.lists(st.sampled_from(range(len(LABELS))), unique=True)


def index_of(rows: list[int]) -> pd.Index:
    """An index of the type that pandas gives to these labels; tuples among others are no levels."""
    return pd.Index([LABELS[row] for row in rows], tupleize_cols=False)


@settings(max_examples=examples(300), phases=(Phase.generate,))
@given(SOME_ROWS, SOME_ROWS)
def test_every_row_of_both_is_told_once(own, others):
    first = found_to_be(own, int, index_of(own))
    second = found_to_be([row + 100 for row in others], int, index_of(others))
    found = first.diff(second)
    told = found["x"].astype(object).where(found["x"].notna(), None).to_numpy().tolist()
    in_first = [[row, row + 100 if row in others else None] for row in own]
    only_in_second = [[None, row + 100] for row in others if row not in own]
    assert told == in_first + only_in_second
    assert found["amr_differs"].tolist() == [REASONS[one is None, other is None] for one, other in told]


def test_labels_that_are_there_twice_match_by_place_or_not_at_all():
    twice = found_to_be([1, 2, 3], int, ["a", "a", "b"])
    corrected = twice.override({1: {"x": 5}}, by="position")
    assert twice.diff(corrected)["x"].to_numpy().tolist() == [[2, 5]]
    other = found_to_be([1, 2, 3], int, ["a", "b", "c"])
    for first, second, whose in ((twice, other, "this result"), (other, twice, "the other one")):
        with pytest.raises(amr.UsageError, match=f"{whose} has labels twice"):
            first.diff(second)
