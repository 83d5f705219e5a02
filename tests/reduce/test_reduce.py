"""Reduce: exact where pandas computes it, in a tree where agents write it, by groups where asked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pandas as pd
import pytest
from pydantic import BaseModel

import pandas_amr as amr
from pandas_amr._reduce.packing import level_calls, static_sizes
from pandas_amr.testing import ScriptedServer, Status, findings

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "reduce_tree.json").read_text())
DF = pd.DataFrame({"shop": ["a", "b", "a", "c", "b", "a"], "text": [f"row {n}" for n in range(6)]})


class Theme(BaseModel):
    name: str
    count: int


def provider(request):
    if request.schema in {"finding", "findings"}:
        return findings(request, lambda unit: {"n": int(unit["text"].split()[1])})
    return {"output": f"{len(request.findings)} read", "sources": [0]}


def reduced(**options):
    with ScriptedServer(options.pop("script", provider)) as server:
        result = DF.amr.map_reduce(map="Which?", finding={"n": int}, lm=server.lm(), **options)
    return result, server.requests


@pytest.mark.parametrize("vector", VECTORS["static"]["vectors"], ids=lambda v: f"{v['units']} by {v['fan_in']}")
def test_static_trees_have_the_published_shapes(vector):
    sizes = static_sizes(vector["units"], vector["fan_in"])
    assert sizes == vector["sizes"]
    assert sum(sizes) == vector["tasks"]


@pytest.mark.parametrize(
    "vector", [v for v in VECTORS["static"]["vectors"] if v["units"] < 100], ids=lambda v: v["units"]
)
@pytest.mark.sampled(3)
def test_a_run_has_the_shape_of_its_tree_and_passes_a_group_of_one_without_a_call(vector):
    df = pd.DataFrame({"text": [f"row {n}" for n in range(vector["units"])]})
    plan = {"shard_size": 1, "fan_in": vector["fan_in"]}
    with ScriptedServer(provider) as server:
        result = df.amr.map_reduce(map="Which?", finding={"n": int}, reduce="Combine.", plan=plan, lm=server.lm())
    levels = result.trace.groupby("level").size().tolist()
    assert levels == vector["sizes"]
    calls = sum(request.schema == "reduction" for request in server.requests)
    assert calls == sum(level_calls([True] * vector["units"], vector["fan_in"]))
    assert calls == sum(vector["sizes"][1:]) - (result.trace["status"] == "passed").sum()


def test_reducers_read_the_findings_in_frame_order_whatever_order_they_landed_in():
    df = pd.DataFrame({"text": [f"row {n}" for n in range(12)]})
    read: list[list[int]] = []

    def script(request):
        if request.schema == "reduction":
            read.append([found["n"] for found in request.findings])
        return provider(request)

    with ScriptedServer(script, latency_s=lambda r: 0.05 if r.number % 3 == 0 else 0.0) as server:
        df.amr.map_reduce(
            map="Which?", finding={"n": int}, reduce="All.", plan={"shard_size": 2, "fan_in": 9}, lm=server.lm()
        )
    assert read == [list(range(12))]


def test_equal_rows_count_for_the_reducer_though_they_are_asked_once():
    df = pd.DataFrame({"text": ["row 1", "row 1", "row 2"]})
    with ScriptedServer(provider) as server:
        df.amr.map_reduce(map="Which?", finding={"n": int}, reduce="All.", lm=server.lm())
    assert server.requests[-1].findings == [{"finding": 0, "n": 1, "rows": 2}, {"finding": 1, "n": 2}]


def test_one_aggregation_gives_what_dataframe_agg_gives():
    result, _ = reduced(reduce={"n": "sum"})
    pd.testing.assert_series_equal(result.output, result.frame.agg({"n": "sum"}))
    assert result.output["n"] == 15


def test_aggregations_of_findings_and_of_columns_that_were_there():
    result, requests = reduced(reduce={"n": "mean", "shop": "nunique"})
    assert result.output.to_dict() == {"n": 2.5, "shop": 3}
    assert {request.schema for request in requests} == {"findings"}


def test_a_function_may_stand_among_the_aggregations():
    result, _ = reduced(reduce={"n": lambda column: int((column > 2).sum())})
    assert result.output["n"] == 3


@pytest.mark.parametrize(("kind", "value"), [(int, 15), (float, 15.0), (str, None), (bool, None)])
def test_output_gives_a_computed_scalar_its_type_or_says_that_it_cannot(kind, value):
    if value is None:
        with pytest.raises(amr.UsageError, match="The reduce gave no"):
            reduced(reduce={"n": "sum"}, output=kind)
        return
    result, _ = reduced(reduce={"n": "sum"}, output=kind)
    assert result.output == value
    assert type(result.output) is kind


@pytest.mark.parametrize("how", ["sum", "mean", "max", ["sum", "max"], lambda column: column.max()])
def test_by_groups_as_pandas_does(how):
    result, _ = reduced(reduce={"n": how}, by="shop")
    pd.testing.assert_frame_equal(result.output, result.frame.groupby("shop").agg({"n": how}))


def test_by_two_keys_gives_a_multiindex():
    result, _ = reduced(reduce={"n": "sum"}, by=["shop", "text"])
    pd.testing.assert_frame_equal(result.output, result.frame.groupby(["shop", "text"]).agg({"n": "sum"}))


def test_counts_by_group_give_a_column_a_value():
    def script(request):
        return findings(request, lambda unit: {"odd": "yes" if int(unit["text"].split()[1]) % 2 else "no"})

    with ScriptedServer(script) as server:
        result = DF.amr.map_reduce(
            map="Odd?", finding={"odd": ["yes", "no"]}, reduce={"odd": "value_counts"}, by="shop", lm=server.lm()
        )
    assert result.output.to_dict("index") == {
        "a": {"odd_yes": 1, "odd_no": 2},
        "b": {"odd_yes": 1, "odd_no": 1},
        "c": {"odd_yes": 1, "odd_no": 0},
    }


def test_a_function_reduces_the_findings_sync_or_async_whole_or_by_group():
    async def total(found):
        await asyncio.sleep(0)
        return int(found["n"].sum())

    assert reduced(reduce=total)[0].output == 15
    assert reduced(reduce=lambda found: int(found["n"].sum()), output=float)[0].output == 15.0
    by_shop = reduced(reduce=total, by="shop")[0].output
    assert by_shop["output"].to_dict() == {"a": 7, "b": 5, "c": 3}
    both = reduced(reduce=lambda found: {"low": found["n"].min(), "high": found["n"].max()}, by="shop")[0].output
    assert both.loc["a"].to_dict() == {"low": 0, "high": 5}


def test_what_a_reducer_of_the_users_raises_is_the_cause_of_what_stops_the_run():
    def late(found):
        raise TimeoutError("the warehouse is closed")

    with pytest.raises(amr.RunStopped, match="TimeoutError was raised in its reduce") as stopped:
        reduced(reduce=late)
    assert str(stopped.value.__cause__) == "the warehouse is closed"


def test_an_exception_of_a_reducer_takes_what_was_found_with_it():
    with pytest.raises(amr.RunStopped) as caught:
        reduced(reduce=lambda found: found["no_such_column"])
    assert repr(caught.value.__cause__) == "KeyError('no_such_column')"
    assert caught.value.partial.findings["n"].tolist() == list(range(6))


def test_rows_without_a_key_are_in_no_group_as_groupby_has_it():
    frame = DF.assign(shop=["a", None, "a", "b", float("nan"), "b"])
    with ScriptedServer(provider) as server:
        options = {"map": "Which?", "columns": "text", "finding": {"n": int}, "by": "shop", "lm": server.lm()}
        counted = frame.amr.map_reduce(reduce={"n": "count"}, **options).output["n"].to_dict()
        called = frame.amr.map_reduce(reduce=len, **options).output["output"].to_dict()
        written = frame.amr.map_reduce(reduce="How many?", **options).output["output"].to_dict()
    assert counted == called == {"a": 2, "b": 2}
    assert written == {"a": "2 read", "b": "2 read"}


def test_agents_write_one_answer_a_group():
    def script(request):
        if request.schema in {"finding", "findings"}:
            return provider(request)
        return {"output": " ".join(str(found["n"]) for found in request.findings), "sources": []}

    result, _ = reduced(script=script, reduce="List.", by="shop")
    assert result.output["output"].to_dict() == {"a": "0 2 5", "b": "1 4", "c": "3"}


@pytest.mark.parametrize(
    ("kind", "answer", "expected"),
    [(str, "all", "all"), (bool, True, True), (Theme, {"name": "x", "count": 2}, None)],
)
def test_agents_answer_in_the_type_asked_for(kind, answer, expected):
    def script(request):
        return provider(request) if request.schema in {"finding", "findings"} else {"output": answer, "sources": [0]}

    result, _ = reduced(script=script, reduce="Combine.", output=kind)
    assert result.output == (Theme(**answer) if expected is None else expected)


def test_a_list_of_models_is_a_frame():
    def script(request):
        if request.schema in {"finding", "findings"}:
            return provider(request)
        themes = [{"name": "odd", "count": 3, "sources": [1, 3]}, {"name": "even", "count": 3, "sources": [0]}]
        return {"output": themes}

    result, _ = reduced(script=script, reduce="Find themes.", output=list[Theme])
    assert result.output.to_dict("list") == {"name": ["odd", "even"], "count": [3, 3]}
    assert str(result.output["count"].dtype) == "int64[pyarrow]"


def test_an_answer_of_another_type_or_with_an_invented_source_is_sent_back():
    answers = iter([{"output": "three", "sources": []}, {"output": True, "sources": [99]}])

    def script(request):
        if request.schema in {"finding", "findings"}:
            return provider(request)
        return next(answers) if len(request.messages) == 2 else {"output": True, "sources": [5]}

    result, requests = reduced(script=script, reduce="All?", output=bool)
    assert result.output is True
    assert "valid boolean" in requests[-1].user
    result, requests = reduced(script=script, reduce="All?", output=bool)
    assert "`sources` names finding 99; findings are 0 to 5" in requests[-1].user


def test_scalars_are_written_as_notes_until_the_final_reduce():
    def script(request):
        if request.schema in {"finding", "findings"}:
            return provider(request)
        final = "You are the last" in request.system
        return {"output": True if final else "three of them", "sources": []}

    result, requests = reduced(script=script, reduce="All?", output=bool, plan={"shard_size": 1, "fan_in": 3})
    assert result.output is True
    assert [found["output"] for found in requests[-1].findings] == ["three of them"] * 2


def test_a_reduce_that_fails_is_listed_and_the_findings_stay():
    def script(request):
        return provider(request) if request.schema in {"finding", "findings"} else Status(400, "too much")

    with pytest.warns(amr.FailureWarning, match="The reduce failed"):
        result, _ = reduced(script=script, reduce="Combine.")
    assert result.output is None
    assert result.frame["n"].tolist() == list(range(6))
    assert result.failures["reason"].tolist() == ["reduce: The server answered 400: too much"]


def test_columns_that_are_there_are_reduced_without_a_map():
    frame = pd.DataFrame({"shop": ["a", "a", "b"], "note": ["dear", "slow", "far"]})

    def script(request):
        return {"output": ", ".join(found["note"] for found in request.findings), "sources": [0]}

    with ScriptedServer(script) as server:
        assert frame.amr.reduce("Join.", columns=["note"], lm=server.lm()) == "dear, slow, far"
        assert server.requests[0].findings[0] == {"finding": 0, "note": "dear"}
        by_shop = frame.amr.reduce("Join.", by="shop", lm=server.lm())
    assert by_shop["output"].to_dict() == {"a": "dear, slow", "b": "far"}
    assert frame.amr.reduce({"note": "count"})["note"] == 3
    assert frame.amr.reduce(lambda rows: len(rows)) == 3
