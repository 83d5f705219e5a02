"""Filter: the rows to keep, in order; none is dropped because it could not be read."""

from __future__ import annotations

import pandas as pd
import pytest

import pandas_amr as amr
from pandas_amr.testing import ScriptedServer, Status, findings


def odd(request):
    return findings(request, lambda unit: {"amr_keep": int(unit["text"].split()[1]) % 2 == 1})


def test_rows_that_meet_the_criterion_stay_in_order_with_their_labels_and_types():
    df = pd.DataFrame(
        {"text": [f"row {n}" for n in range(40)], "when": pd.date_range("2026-01-01", periods=40)},
        index=["x", "y"] * 20,
    )
    with ScriptedServer(odd, latency_s=lambda r: 0.05 if r.number == 0 else 0.0) as server:
        kept = df.amr.filter("The number is odd.", columns="text", plan={"shard_size": 7}, lm=server.lm())
        assert "The number is odd." in server.requests[0].system
    pd.testing.assert_frame_equal(kept, df[[n % 2 == 1 for n in range(40)]])
    assert len(amr.result_of(kept).frame) == 40


LABELS = {
    "numbers": pd.RangeIndex(2),
    "dates": pd.DatetimeIndex(["2026-01-01", "2026-01-02"], name="day"),
    "categories": pd.CategoricalIndex(["text", "size"], categories=["size", "text"]),
    "levels": pd.MultiIndex.from_tuples([("text", 1), ("size", 2)], names=["what", None]),
    "tuples": pd.Index([("text", 1), ("size", 2)], tupleize_cols=False),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_a_filter_gives_the_very_labels_of_the_columns(labels):
    df = pd.DataFrame([["a", 1], ["b", 2], ["c", 3]]).set_axis(labels, axis=1)
    kept = df.amr.filter(lambda shard: [True, False, True])
    pd.testing.assert_frame_equal(kept, df.iloc[[0, 2]])
    assert type(kept.columns) is type(df.columns)
    assert len(amr.result_of(kept).frame) == 3
    with_status = df.amr.filter(lambda shard: [True, False, True], plan={"status": True})
    assert len(with_status.columns) > 2


def test_a_unit_that_failed_is_kept_and_listed_or_stops_the_run():
    df = pd.DataFrame({"text": [f"row {n}" for n in range(10)]})

    def provider(request):
        if any(unit["text"] == "row 4" for unit in request.units):
            return Status(400, "no")
        return odd(request)

    with ScriptedServer(provider) as server:
        with pytest.warns(amr.FailureWarning, match="1 of 10 units failed; they are kept"):
            kept = df.amr.filter("Odd.", lm=server.lm())
        assert kept.index.tolist() == [1, 3, 4, 5, 7, 9]
        assert amr.result_of(kept).failures["position"].tolist() == [4]
        with pytest.raises(amr.MapFailed):
            df.amr.filter("Odd.", lm=server.lm(), errors="raise")


def test_rows_whose_turn_did_not_come_are_kept():
    df = pd.DataFrame({"text": [f"row {n}" for n in range(40)]})
    with ScriptedServer(odd) as server, pytest.warns(amr.FailureWarning, match="stopped early"):
        kept = df.amr.filter(
            "Odd.", plan={"shard_size": 10}, lm=server.lm(), budget=amr.Budget(calls=1), max_parallelism=1
        )
    assert kept.index.tolist() == [1, 3, 5, 7, 9, *range(10, 40)]


def test_functions_filter_too_and_verbs_chain():
    df = pd.DataFrame({"text": [f"row {n}" for n in range(20)]})

    async def big(shard):
        return shard["text"].str[4:].astype(int) >= 10

    with ScriptedServer(lambda r: findings(r, lambda u: {"n": int(u["text"][4:])})) as server:
        total = (
            df.amr.filter(lambda shard: shard["text"].str[-1] != "3")
            .amr.filter(big)
            .amr.map("The number.", finding={"n": int}, lm=server.lm())
            .amr.reduce({"n": "sum"})
        )
    assert total["n"] == sum(n for n in range(10, 20) if n != 13)
    assert amr.filter(df, lambda shard: shard["text"] == "row 1").index.tolist() == [1]


def test_empty_frames_and_wrong_calls(refusing):
    empty = pd.DataFrame({"text": pd.Series([], dtype=str)})
    assert empty.amr.filter("x", lm=refusing.lm()).columns.tolist() == ["text"]
    for criterion in ("", None, 7, {"a": "b"}):
        with pytest.raises(amr.UsageError, match="filter takes a criterion"):
            empty.amr.filter(criterion, lm=refusing.lm())
