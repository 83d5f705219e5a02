"""Where two results differ: which rows belong together, and which values are the same."""

from __future__ import annotations

import enum
import json
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import pandas_amr as amr
from examples import examples
from pandas_amr.testing import ScriptedServer, findings


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


# Which values are the same


class Deal(BaseModel):
    roles: dict[str, str]
    more: dict[str, Any]


class Land(enum.Enum):
    UPPER = "US"
    LOWER = "us"


PARTIES = {"seller": "buyer", "broker": "Ann"}
SWAPPED = {"buyer": "seller", "broker": "Ann"}
REORDERED = {"broker": "Ann", "seller": "buyer"}
Country = Literal["US", "us", "CH"]

# Name: the type, a value, those that are the same, and those that are not.
VALUES: dict[str, tuple[Any, Any, list[Any], list[Any]]] = {
    "a dict": (dict[str, str], PARTIES, [REORDERED], [SWAPPED, {"seller": "buyer"}, {**PARTIES, "broker": "Bob"}]),
    "a dict of lists": (dict[str, list[str]], {"a": ["b", "c"]}, [{"a": ["c", "b"]}], [{"b": ["a", "c"]}]),
    "a dict of dicts": (
        dict[str, dict[str, str]],
        {"x": PARTIES, "y": {}},
        [{"y": {}, "x": REORDERED}],
        [{"x": SWAPPED, "y": {}}, {"x": {}, "y": PARTIES}],
    ),
    "a list of dicts": (
        list[dict[str, str]],
        [PARTIES, {"a": "b"}],
        [[{"a": "b"}, REORDERED]],
        [[SWAPPED, {"a": "b"}], [PARTIES, {"b": "a"}]],
    ),
    "a model": (
        Deal,
        {"roles": PARTIES, "more": {"a": {"b": 1, "c": 2}}},
        [{"roles": REORDERED, "more": {"a": {"c": 2, "b": 1}}}],
        [{"roles": SWAPPED, "more": {"a": {"b": 1, "c": 2}}}, {"roles": PARTIES, "more": {"a": {"b": 2, "c": 1}}}],
    ),
    "a list of models": (
        list[Deal],
        [{"roles": {"a": "b"}, "more": {}}, {"roles": {}, "more": {"k": "v"}}],
        [[{"roles": {}, "more": {"k": "v"}}, {"roles": {"a": "b"}, "more": {}}]],
        [[{"roles": {"b": "a"}, "more": {}}, {"roles": {}, "more": {"k": "v"}}]],
    ),
    "an optional dict": (dict[str, str] | None, {"a": "b"}, [], [{"b": "a"}, None]),
    "JSON text": (
        dict,
        {"A": "x  y", "n": [1, {"b": 2, "c": 3}]},
        [{"n": [{"c": 3, "b": 2}, 1], "A": "x  y"}],
        [
            {"a": "x  y", "n": [1, {"b": 2, "c": 3}]},
            {"A": "x y", "n": [1, {"b": 2, "c": 3}]},
            {"A": "X  y", "n": [1, {"b": 2, "c": 3}]},
            {"A": "x  y", "n": [True, {"b": 2, "c": 3}]},
            {"A": "x  y", "n": ["1", {"b": 2, "c": 3}]},
        ],
    ),
    "anything": (Any, "a", [], ["A", ["a"], None, {"a": "a"}]),
    "choices that differ by case": (Country, "US", [], ["us", "CH"]),
    "members that differ by case": (Land, "US", [], ["us"]),
    "a list of choices that differ by case": (list[Country], ["US", "CH"], [["CH", "US"]], [["us", "CH"]]),
}
FREE_TEXTS: dict[str, tuple[Any, Any, list[Any], list[Any]]] = {
    "a text": (str, "x y", ["X y", " x  y "], ["xy"]),
    "a list of texts": (list[str], ["a", "b"], [["B", "a "]], [["a", "c"]]),
    "texts in a dict": (dict[str, str], {"a": "b"}, [{"a": "B"}], [{"A": "b"}]),
    "choices that differ by more": (Literal["Red", "blue"], "Red", [" red"], ["blue"]),
}


def find_each(kind: Any, values: list[Any]) -> amr.Result:
    """A result whose field ``x`` a model found to have these values."""
    frame = pd.DataFrame({"n": range(len(values))})
    with ScriptedServer(lambda r: findings(r, lambda unit: {"x": values[unit["n"]]})) as server:
        return frame.amr.map_reduce(map="x", finding={"x": kind}, reduce=len, lm=server.lm(), journal=False)


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("name", VALUES)
def test_a_diff_tells_values_that_are_not_the_same(name, loaded, tmp_path):
    kind, value, same, others = VALUES[name]
    second_values = [value, *same, *others]
    first = find_each(kind, [value] * len(second_values))
    second = find_each(kind, second_values)
    if loaded:
        second.save(tmp_path)
        second = amr.load(tmp_path)
    differing = list(range(1 + len(same), len(second_values)))
    assert first.diff(second).index.tolist() == second.diff(first).index.tolist() == differing


@pytest.mark.parametrize("name", VALUES | FREE_TEXTS)
def test_score_and_verify_tell_them_too_but_for_case_and_spaces_of_free_texts(name):
    kind, value, same, others = (VALUES | FREE_TEXTS)[name]
    labels = [value, *same, *[other for other in others if other is not None]]
    result = find_each(kind, [value] * len(labels))
    right = [True] * (1 + len(same)) + [False] * (len(labels) - 1 - len(same))
    assert result.score({"x": labels}).pairs["right"].tolist() == right
    if name != "choices that differ by more":  # no model may give another case
        with ScriptedServer(lambda r: findings(r, lambda unit: {"x": labels[unit["n"]]})) as second:
            assert result.verify(share=1.0, lm=second.lm()).rows["same"].tolist() == right


def test_the_case_and_the_spaces_of_free_texts_count_in_a_diff():
    first = found_to_be(["x y"] * 4, str)
    second = found_to_be(["x y", "X y", "x  y", "x y "], str)
    assert first.diff(second).index.tolist() == [1, 2, 3]
    lists = found_to_be([["a", "b"]] * 3, list[str])
    assert lists.diff(found_to_be([["b", "a"], ["B", "a"], ["a", "b "]], list[str])).index.tolist() == [1, 2]


def test_classes_whose_names_differ_by_case_are_scored_apart():
    result = find_each(Country, ["US", "us", "us", "CH"])
    score = result.score({"x": ["US", "US", "us", "CH"]})
    assert score.fields.loc["x", "right"] == 3
    assert score.classes["support"].to_dict() == {("x", "CH"): 1, ("x", "US"): 2, ("x", "us"): 1}
    assert score.classes["recall"].to_dict() == {("x", "CH"): 1.0, ("x", "US"): 0.5, ("x", "us"): 1.0}


def test_labels_of_json_text_may_be_texts_as_a_file_has_them():
    values = [{"a": "b"}, {"a": "B"}]
    result = find_each(dict, values)
    labels = [json.dumps(value, indent=1) for value in values]
    assert result.score({"x": labels}).fields.loc["x", "right"] == 2
    assert result.score({"x": labels[::-1]}).fields.loc["x", "right"] == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 1) | st.sampled_from(["", "a", "A", "1"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abA"), inner, max_size=2),
    max_leaves=4,
)
DICTS = st.dictionaries(st.sampled_from("abA"), JSON, max_size=2)


def write_canonically(value: Any) -> str:
    """One text for values that are the same: keys in order, and items of a list, too."""
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {write_canonically(value[key])}" for key in sorted(value)]
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(sorted(map(write_canonically, value))) + "]"
    return json.dumps(value)


@settings(max_examples=examples(300), phases=(Phase.generate,))
@given(st.lists(st.tuples(DICTS, DICTS), min_size=1, max_size=8))
def test_json_values_are_the_same_if_they_are_but_for_the_order_of_keys_and_items(pairs):
    first = found_to_be([one for one, _ in pairs], dict)
    second = found_to_be([other for _, other in pairs], dict)
    differing = [row for row, (one, other) in enumerate(pairs) if write_canonically(one) != write_canonically(other)]
    assert first.diff(second).index.tolist() == second.diff(first).index.tolist() == differing
