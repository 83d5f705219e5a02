"""What has no content is not asked, not paid for and not failed: its status is `empty`."""

from __future__ import annotations

import decimal
import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest

import pandas_amr as amr
from pandas_amr.testing import ScriptedServer

EMPTY = {
    "None": None,
    "NaN": float("nan"),
    "NaT": pd.NaT,
    "NA": pd.NA,
    "no number": decimal.Decimal("NaN"),
    "no date": np.datetime64("NaT", "ns"),
    "an empty text": "",
    "spaces": " \t\r\n",
    "other spaces": "\u00a0\u2003\u2028",
    "a byte-order mark": "\ufeff",
    "characters without a width": " \u200b\u200d\u2060 ",
    "controls": "\x00\x1f",
    "no bytes": b"",
    "an empty list": [],
    "a list of nothing": [None, "", [" "]],
    "an empty tuple": (),
    "an empty array": np.array([]),
    "an empty set": set(),
    "an empty dict": {},
    "a dict of nothing": {"text": None, "more": []},
}
READ = {
    "zero": 0,
    "False": False,
    "infinity": float("inf"),
    "a letter": " a ",
    "a full stop": ".",
    "the word nan": "nan",
    "the word null": "null",
    "a letter after a mark": "\ufeffa",
    "a mark of its own": "\u0301",
    "half of a character": "\ud800",
    "a list with a number": [None, 0],
    "a dict with a value": {"a": False},
}
STARS = {"finding": {"stars": int}}
MIXED = pd.DataFrame(
    {"text": ["good", "", None, "fine", "  "], "shop": ["a", "a", "b", "c", "b"], "n": range(5)},
    index=["v", "w", "x", "y", "y"],
)
STATUSES = ["ok", "empty", "empty", "ok", "empty"]
NOTHING = MIXED.iloc[[1, 2, 4]]


def model(request):
    """Finds the length of each text; no unit without content may reach it."""
    if request.schema == "reduction":
        return {"output": "fine", "sources": [0]}
    if request.schema == "finding":
        return {"stars": 7}
    found = []
    for unit in request.units:
        assert str(unit["text"]).strip()
        found.append({"unit": unit["unit"], "stars": len(unit["text"]), "amr_keep": unit["text"] == "good"})
    return {"findings": found}


def map_reduce(frame, lm, **options):
    asked = {"map": "How many stars?", "columns": ["text"], "reduce": {"stars": "mean"}, **STARS}
    return frame.amr.map_reduce(lm=lm, **(asked | options))


def statuses(result):
    return result.status["status"].tolist()


@pytest.mark.parametrize("value", EMPTY.values(), ids=EMPTY.keys())
def test_a_unit_without_content_is_not_asked(value):
    frame = pd.DataFrame({"text": pd.Series([value, "good", value], dtype=object)})
    with ScriptedServer(model) as server:
        found = frame.amr.map("How many stars?", lm=server.lm(), **STARS)
        assert [len(request.units or [0]) for request in server.requests] == [1]
    assert found["stars"].isna().tolist() == [True, False, True]
    result = amr.result_of(found)
    assert statuses(result) == ["empty", "ok", "empty"]
    assert result.status["reason"].isna().tolist() == [False, True, False]
    assert len(result.failures) == 0


@pytest.mark.parametrize("value", READ.values(), ids=READ.keys())
def test_a_unit_with_any_content_is_asked(value):
    frame = pd.DataFrame({"text": pd.Series([value], dtype=object)})
    with ScriptedServer(lambda request: {"stars": 1}) as server:
        found = frame.amr.map("How many stars?", lm=server.lm(), **STARS)
    assert found["stars"].tolist() == [1]


@pytest.mark.parametrize("dtype", ["float64", "Int64", "boolean", "category", "string", "datetime64[ns]", "Float32"])
def test_missing_values_of_every_dtype_are_empty(dtype):
    frame = pd.DataFrame({"text": pd.Series([None, None], dtype=dtype)})
    with ScriptedServer(model) as server:
        result = frame.amr.map_reduce(map="x", reduce={"stars": "mean"}, lm=server.lm(), **STARS)
        assert server.requests == []
    assert statuses(result) == ["empty", "empty"]


def test_a_unit_is_empty_if_all_content_columns_are():
    frame = pd.DataFrame({"text": [None, None, "a"], "stars_given": [np.nan, 5.0, np.nan], "other": "x"})
    with ScriptedServer(model_of_all) as server:
        by_both = frame.amr.map("x", columns=["text", "stars_given"], lm=server.lm(), **STARS)
        by_all = frame.amr.map("x", lm=server.lm(), **STARS)
    assert by_both["stars"].isna().tolist() == [True, False, False]
    assert by_all["stars"].isna().tolist() == [False, False, False]


def model_of_all(request):
    return {"findings": [{"unit": unit["unit"], "stars": 1} for unit in request.units]}


def test_on_empty_ask_asks_as_before_and_other_values_are_refused(refusing):
    with ScriptedServer(model_of_all) as server:
        result = map_reduce(MIXED, server.lm(), plan={"on_empty": "ask", "dedupe": False})
        assert [len(request.units) for request in server.requests] == [5]
        assert result.plan.on_empty == "ask"
        assert json.loads(result.plan.to_json())["on_empty"] == "ask"
        assert map_reduce(MIXED, server.lm()).plan.on_empty == "skip"
    assert statuses(result) == ["ok"] * 5
    with pytest.raises(amr.PlanError, match="on_empty: .*'skip' or 'ask', not 'asks'"):
        map_reduce(MIXED, refusing.lm(), plan={"on_empty": "asks"})


@pytest.mark.parametrize("dedupe", [True, False])
@pytest.mark.parametrize("size", [1, 20])
def test_the_result_says_what_is_empty(dedupe, size):
    with ScriptedServer(model) as server:
        result = map_reduce(
            MIXED, server.lm(), plan={"dedupe": dedupe, "shard_size": size, "status": True}, errors="raise"
        )
    assert statuses(result) == result.frame["amr_status"].tolist() == STATUSES
    assert result.frame.index.tolist() == list("vwxyy")
    assert "3 empty" in repr(result)
    assert "failed" not in repr(result)
    assert result.warnings == ()
    assert result.trace.loc[result.trace["type"] == "map", "units"].sum() == 2


def test_aggregates_count_rows_that_were_read():
    with ScriptedServer(model) as server:
        result = map_reduce(MIXED, server.lm(), reduce={"stars": ["count", "mean"]}, by="shop")
    assert result.output[("stars", "count")].to_dict() == {"a": 1, "b": 0, "c": 1}
    assert result.output[("stars", "mean")].isna().tolist() == [False, True, False]


@pytest.mark.parametrize("plan", [{}, {"fan_in": 2, "shard_size": 1}])
def test_reducers_read_what_was_found_and_are_told_how_many_rows_are_empty(plan):
    with ScriptedServer(model) as server:
        result = map_reduce(MIXED, server.lm(), reduce="Sum up.", output=str, plan=plan)
        last = server.requests[-1]
    assert [finding.get("stars", 7) for finding in last.findings] == [7 if plan else 4] * 2
    assert "3 of 5 rows are empty" in last.user
    assert result.sources["position"].tolist() == [0]
    assert result.coverage == 1 / 2


def test_a_group_of_nothing_but_empty_rows_is_not_written():
    with ScriptedServer(model) as server:
        result = map_reduce(MIXED, server.lm(), reduce="Sum up.", output=str, by="shop")
        reductions = [request for request in server.requests if request.schema == "reduction"]
    assert result.output.iloc[:, 0].to_dict() == {"a": "fine", "b": None, "c": "fine"}
    assert len(reductions) == 2


OUTCOMES = {
    "aggregations": ({}, lambda output: output.isna().all()),
    "aggregations by group": ({"by": "shop"}, lambda output: output["stars"].isna().all()),
    "a count": ({"reduce": {"stars": "count"}}, lambda output: output["stars"] == 0),
    "a text": ({"reduce": "Sum up.", "output": str}, lambda output: output is None),
    "a text from a static tree": (
        {"reduce": "Sum up.", "output": str, "plan": {"fan_in": 2}},
        lambda output: output is None,
    ),
    "a text at once": ({"reduce": "Sum up.", "output": str, "plan": {"direct": True}}, lambda output: output is None),
    "a number": ({"reduce": "How many?", "output": float}, lambda output: output is None),
    "items": ({"reduce": "Which?", "output": list[dict]}, lambda output: len(output) == 0),
    "a function": ({"reduce": len}, lambda output: output == 3),
}


@pytest.mark.parametrize(("options", "holds"), OUTCOMES.values(), ids=OUTCOMES.keys())
def test_of_nothing_but_empty_rows_nothing_is_asked_and_nothing_is_made_up(options, holds, refusing):
    result = map_reduce(NOTHING, refusing.lm(), errors="raise", **options)
    assert holds(result.output)
    assert statuses(result) == ["empty"] * 3
    assert result.stopped is None
    assert result.total.tries == 0
    assert len(result.retry().failures) == 0


def test_a_filter_drops_what_is_empty():
    with ScriptedServer(model) as server:
        kept = MIXED.amr.filter("Is it good?", columns=["text"], lm=server.lm(), errors="raise")
        assert len(server.requests) == 1
        assert NOTHING.amr.filter("Is it good?", columns=["text"], lm=server.lm()).index.tolist() == []
        asked = amr.Recipe().filter("Is it good?", columns=["text"]).map("x", columns=["text"], **STARS)
        piped = asked(MIXED, lm=server.lm())
    assert kept.index.tolist() == ["v"]
    assert Counter(statuses(amr.result_of(kept))) == {"ok": 2, "empty": 3}
    assert piped.frame.index.tolist() == ["v"]


def lengths(shard):
    return [{"length": len(str(text))} for text in shard["text"]]


def test_functions_get_what_is_empty():
    seen = MIXED.amr.map_reduce(map=lengths, reduce={"length": "count"}, columns=["text"])
    assert seen.output["length"] == 5
    assert statuses(seen) == ["ok"] * 5
    assert len(MIXED.amr.filter(lambda shard: [True] * len(shard), columns=["text"])) == 5


@pytest.mark.parametrize("plan", [{}, {"shard_size": 1}, {"shard_size": 2, "fan_in": 2}])
def test_beside_a_function_a_model_still_gets_none_of_it(plan, tmp_path):
    both = {"model": "How many stars?", "code": lengths}
    kinds = {"model": {"stars": int}, "code": {"length": int}}
    reduce = {"reduce": "Sum up.", "output": str} if "fan_in" in plan else {"reduce": {"code_length": "count"}}
    with ScriptedServer(model) as server:
        options = {"map": both, "finding": kinds, "plan": plan, "journal": tmp_path / "journal", **reduce}
        result = map_reduce(MIXED, server.lm(), **options)
        asked = len(server.requests)
        again = map_reduce(MIXED, server.lm(), **options)
        assert len(server.requests) == asked
    assert result.frame["model_stars"].isna().tolist() == [False, True, True, False, True]
    assert result.frame["code_length"].notna().all()
    assert statuses(result) == STATUSES
    assert [status for status in statuses(again) if status == "empty"] == ["empty"] * 3
    assert result.output is not None


def test_a_recipe_that_asks_a_model_is_not_given_what_is_empty():
    recipe = amr.Recipe().map("x", columns=["text"], **STARS).reduce({"stars": "mean"})
    with ScriptedServer(lambda request: {"stars": 1}) as server:
        result = MIXED.amr.map_reduce(map=recipe, reduce=len, columns=["text"], lm=server.lm())
        assert len(server.requests) == 2
    assert statuses(result) == STATUSES


def test_a_column_without_a_value_is_empty():
    frame = pd.DataFrame({"a": [1, 2], "b": [None, ""], "c": [np.nan, np.nan], "d": ["", "x"]})

    def script(request):
        assert [unit["column"] for unit in request.units] == ["a", "d"]
        return {"findings": [{"unit": unit["unit"], "what": unit["column"]} for unit in request.units]}

    with ScriptedServer(script) as server:
        result = frame.amr.map_reduce(
            map="What is it?", axis="columns", finding={"what": str}, reduce={"what": "count"}, lm=server.lm()
        )
    assert result.status["status"].to_dict() == {"a": "ok", "b": "empty", "c": "empty", "d": "ok"}
    assert result.output["what"] == 2


@pytest.mark.parametrize(
    "plan",
    [
        {"segmentation": "groups", "group_columns": ["shop"]},
        {"segmentation": "neighbours"},
        {"keyed": "shard"},
    ],
    ids=["groups", "neighbours", "keyed by shard"],
)
def test_units_that_are_judged_together_are_those_with_content(plan, tmp_path):
    with ScriptedServer(lambda request: model(request) if request.schema == "findings" else {"stars": 4}) as server:
        options = {"plan": plan, "journal": tmp_path / "journal"}
        first = map_reduce(MIXED, server.lm(), **options)
        asked = len(server.requests)
        again = map_reduce(MIXED, server.lm(), **options)
        assert len(server.requests) == asked == (2 if "group_columns" in plan else 1)
    assert statuses(first) == statuses(again) == STATUSES
    assert again.status["from_journal"].tolist() == [status == "ok" for status in STATUSES]


def test_the_estimate_and_the_requests_know_what_is_not_asked(refusing):
    plan = MIXED.amr.plan(
        map="x", columns=["text"], reduce="y", output=str, lm=refusing.lm(), plan={"fan_in": 2}, **STARS
    )
    estimate = plan.estimate()
    assert (estimate.units, estimate.asked, estimate.sizes) == (5, 2, (2,))
    (body,) = plan.requests(5)
    assert '"text":""' not in json.dumps(body).replace("\\", "")
    nothing = NOTHING.amr.plan(map="x", columns=["text"], reduce={"stars": "mean"}, lm=refusing.lm(), **STARS)
    assert (nothing.estimate().calls, nothing.requests(5), nothing.estimate(sample=2).sampled) == (0, [], 0)


def test_a_sample_and_a_verification_are_drawn_from_what_has_content():
    frame = pd.DataFrame({"text": ["", "good"] * 20})
    with ScriptedServer(model) as server:
        estimate = frame.amr.plan(map="x", reduce={"stars": "mean"}, lm=server.lm(), plan={"dedupe": False}, **STARS)
        assert estimate.estimate(sample=10).sampled == 10
        result = map_reduce(frame, server.lm(), plan={"dedupe": False})
        seen = result.verify(share=0.5)
    assert seen.agreement["rows"].tolist() == [10]
    assert seen.failed == 0


def test_an_empty_row_is_in_no_doubt_and_comes_back_from_a_file(tmp_path):
    with ScriptedServer(model) as server:
        result = map_reduce(MIXED, server.lm())
        assert len(result.review()) == 0
        result.save(tmp_path / "saved")
        loaded = amr.load(tmp_path / "saved")
        assert statuses(loaded) == STATUSES
        assert repr(loaded) == repr(result)
        before = len(server.requests)
        assert statuses(result.retry()) == STATUSES
        assert len(server.requests) == before


def test_a_journal_from_a_run_that_asked_everything_serves_one_that_does_not(tmp_path):
    with ScriptedServer(model_of_all) as server:
        journal = {"journal": tmp_path / "journal"}
        map_reduce(MIXED, server.lm(), plan={"on_empty": "ask"}, **journal)
        asked = len(server.requests)
        skipped = map_reduce(MIXED, server.lm(), **journal)
        asked_again = map_reduce(MIXED, server.lm(), plan={"on_empty": "ask"}, **journal)
        assert len(server.requests) == asked
    assert statuses(skipped) == STATUSES
    assert skipped.status["from_journal"].tolist() == [status == "ok" for status in STATUSES]
    assert skipped.frame["stars"].isna().tolist() == [False, True, True, False, True]
    assert statuses(asked_again) == ["ok"] * 5
    assert asked_again.status["from_journal"].all()


def test_progress_counts_what_is_asked():
    with ScriptedServer(model) as server:
        run = MIXED.amr.start(map="x", columns=["text"], reduce={"stars": "mean"}, lm=server.lm(), **STARS)
        assert sorted(finding["position"] for finding in run) == [0, 3]
        assert (run.progress.units, run.progress.found) == (2, 2)


def test_only_failures_among_what_was_asked_count_as_failures():
    failed = pytest.raises(amr.MapFailed, match="No unit succeeded")
    with ScriptedServer(lambda request: {"colour": 1}) as server, failed:
        map_reduce(MIXED.iloc[:3], server.lm(), errors="raise")
