"""Reduce at its edges: windows, direct answers, empty answers, failures, groups; and the same call again."""

from __future__ import annotations

import re
import threading
from typing import Literal

import pandas as pd
import pytest
from pydantic import BaseModel

import pandas_amr as amr
from numbered import number, rows
from pandas_amr.models.base import Abilities
from pandas_amr.testing import ScriptedServer, Status, findings
from versions import once

pytestmark = pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")


class Theme(BaseModel):
    name: str


def words(text: str) -> int:
    return len(text.split())


def provider(request):
    if request.schema == "reduction":
        return {"output": "combined", "sources": [0]}
    return findings(request, number)


def run(frame, script=provider, *, journal=False, lm=None, **options):
    """A run against a server of its own: the result, and the requests of the map and of the reduce."""
    options = {"map": "x", "finding": {"n": int}, "reduce": "All of it.", "columns": ["text"]} | options
    with ScriptedServer(script) as server:
        result = frame.amr.map_reduce(lm=server.lm(**(lm or {})), journal=journal, **options)
    reduces = [request for request in server.requests if request.schema == "reduction"]
    return result, [request for request in server.requests if request.schema in {"finding", "findings"}], reduces


# Windows


@pytest.mark.parametrize("window", [3000, 6000, 12000])
@pytest.mark.sampled(3)
def test_no_request_is_larger_than_the_window_that_the_plan_gives(window):
    _, _, reduces = run(rows(1500), plan={"context_window": window}, lm={"token_counter": words})
    assert len(reduces) > 1
    assert max(words(request.system + request.user) for request in reduces) < window


def test_a_direct_answer_leaves_no_row_out():
    result, maps, reduces = run(
        rows(300),
        plan={"direct": True, "reduce_budget": 2000},
        lm={"token_counter": words, "abilities": Abilities(context_window=2600), "max_output_tokens": 100},
    )
    assert maps  # by their text alone they would fit; with their numbers they do not
    assert "direct" not in {node.type for node in result.graph().nodes}
    assert len(reduces[-1].findings) > 0


@pytest.mark.parametrize("fan_in", [2, 3])
def test_what_a_static_tree_cuts_is_told_to_the_user_and_to_the_last_agent(fan_in):
    def long(request):
        if request.schema == "reduction":
            return {"output": "word " * 600, "sources": [0]}
        return findings(request, lambda unit: {"said": "word " * 900})

    result, _, reduces = run(
        rows(3),
        long,
        finding={"said": str},
        plan={"fan_in": fan_in, "shard_size": 1},
        lm={"token_counter": words, "abilities": Abilities(context_window=1500), "max_output_tokens": 100},
    )
    assert any("were cut to fit" in str(warning) for warning in result.warnings)
    assert "cut to fit" in reduces[-1].user
    assert max(words(request.system + request.user) for request in reduces) <= 1500


# Direct answers that fail


def test_a_direct_answer_that_fails_is_listed_and_the_normal_way_gone():
    def once(request):
        if request.schema == "reduction" and request.number == 0:
            return Status(400)
        return provider(request)

    result, maps, _ = run(rows(6), once, plan={"direct": True})
    assert result.output == "combined"
    assert maps
    assert "direct" in result.failures["reason"].iloc[0]


def test_a_direct_answer_that_fails_raises_with_its_partial_where_nothing_may_fail():
    with pytest.raises(amr.ModelError) as failed:
        run(rows(6), lambda request: Status(400), plan={"direct": True}, errors="raise")
    assert len(failed.value.partial.frame) == 6


@once
def test_a_direct_answer_is_bounded_in_time():
    gate = threading.Event()
    with ScriptedServer(provider, latency_s=lambda request: 0.0 if gate.is_set() else 600.0) as server:
        result = rows(6).amr.map_reduce(
            map="x", finding={"n": int}, reduce="All.", plan={"direct": True}, lm=server.lm(), journal=False,
            budget=amr.Budget(seconds=2.0),
        )  # fmt: skip
        gate.set()
    assert result.output is None
    assert "seconds" in result.stopped


# The same call again


def items(request):
    if request.schema == "reduction":
        return {"output": [{"name": "all", "sources": [0]}]}
    return findings(request, lambda unit: {"items": [{"n": number(unit)["n"]}, {"n": -1}]})


def kept(request):
    if request.schema == "reduction":
        return provider(request)
    return findings(request, lambda unit: number(unit) | {"keep": number(unit)["n"] % 3 > 0})


class Number(BaseModel):
    n: int


@pytest.mark.parametrize(
    ("script", "options"),
    [
        (items, {"finding": list[Number], "output": list[Theme], "plan": {"fan_in": 3, "shard_size": 2}}),
        (provider, {"plan": {"fan_in": 2, "shard_tokens": 40, "shard_size": 50}}),
        (kept, {"plan": {"fan_in": 2, "shard_size": 2, "where": "keep"}, "finding": {"n": int, "keep": bool}}),
        (
            provider,
            {
                "plan": {"fan_in": 2, "shard_size": 2},
                "map": {"a": "x", "b": "y"},
                "finding": {"a": {"n": int}, "b": {"n": int}},
            },
        ),
    ],
    ids=["items", "tokens", "where", "named"],
)
@pytest.mark.sampled(2)
def test_a_static_tree_over_findings_that_are_known_asks_what_it_asked_before(tmp_path, script, options):
    first, maps, reduces = run(rows(12), script, journal=tmp_path / "j.sqlite", **options)
    again, no_maps, no_reduces = run(rows(12), script, journal=tmp_path / "j.sqlite", **options)
    assert maps
    assert reduces
    assert (no_maps, no_reduces) == ([], [])
    pd.testing.assert_frame_equal(again.frame, first.frame)
    assert str(again.output) == str(first.output)
    assert again.sources.equals(first.sources)


@pytest.mark.parametrize("late", ["first", "second"])
def test_findings_of_two_maps_are_read_in_the_order_of_the_maps_whichever_comes_first(late):
    with ScriptedServer(provider, latency_s=lambda request: 0.2 * (f"the {late}" in request.system)) as server:
        rows(4).amr.map_reduce(
            map={"a": "the first", "b": "the second"},
            finding={"a": {"n": int}, "b": {"n": int}},
            reduce="All of it.", lm=server.lm(), journal=False, plan={"fan_in": 2, "shard_size": 2},
        )  # fmt: skip
    read = [line for request in server.requests if request.schema == "reduction" for line in request.findings]
    assert [list(line) for line in read] == [["finding", "a_n", "b_n"]] * 4


def test_a_static_tree_with_some_new_rows_asks_only_where_they_are(tmp_path):
    options = {"plan": {"fan_in": 2, "shard_size": 2}, "journal": tmp_path / "j.sqlite"}
    _, _, first = run(rows(8), **options)
    _, maps, second = run(rows(10), **options)
    assert len(maps) == 1
    assert 0 < len(second) < len(first) + 1


# Instructions that are functions


@pytest.mark.parametrize("options", [{}, {"plan": {"fan_in": 2}}, {"plan": {"direct": True}}, {"output": int}])
def test_an_instruction_that_is_a_function_is_called_whatever_the_tree(options):
    def chooses(request):
        if request.schema == "reduction" and "output" in options:
            return {"output": {"field": "n", "function": "sum"}, "sources": [0]}
        return provider(request)

    agent = amr.Agent(lambda frame: f"Combine these {len(frame)} of them.")
    _, _, reduces = run(rows(6), chooses, reduce=agent, **options)
    assert "Combine these 6 of them." in reduces[-1].system


# Empty answers, and answers that rest on nothing


@pytest.mark.parametrize("plan", [{}, {"fan_in": 2, "shard_size": 2}])
def test_an_empty_list_is_an_answer(plan):
    def nothing(request):
        return {"output": []} if request.schema == "reduction" else provider(request)

    result, _, _ = run(rows(8), nothing, output=list[Theme], plan=plan)
    assert len(result.output) == 0
    assert len(result.failures) == 0


@pytest.mark.parametrize("plan", [{}, {"fan_in": 2, "shard_size": 2}])
def test_where_no_row_is_meant_there_is_nothing_to_write_of_and_no_failure(plan):
    def none(request):
        return provider(request) if request.schema == "reduction" else findings(request, lambda unit: {"keep": False})

    result, _, reduces = run(rows(8), none, finding={"keep": bool}, plan=plan | {"where": "keep"})
    assert result.output is None
    assert len(result.failures) == 0
    assert reduces == []


def test_an_answer_that_says_nothing_of_its_sources_is_sent_back():
    def silent(request):
        if request.schema != "reduction":
            return provider(request)
        return {"output": "all"} if len(request.messages) == 2 else {"output": "all", "sources": [0, 1]}

    result, _, reduces = run(rows(4), silent)
    assert len(reduces) == 2
    assert result.sources["position"].tolist() == [0, 1]


# Failures


@pytest.mark.parametrize(("status", "errors"), [(400, "raise"), (401, "coerce")])
def test_a_reduce_that_ends_the_run_ends_the_map_too(status, errors):
    def failing(request):
        return Status(status) if request.schema == "reduction" else provider(request)

    with ScriptedServer(failing, latency_s=0.02) as server, pytest.raises(amr.ModelError) as failed:
        rows(60).amr.map_reduce(
            map="x", finding={"n": int}, reduce="All.", plan={"fan_in": 3, "shard_size": 1}, lm=server.lm(),
            max_parallelism=2, journal=False, errors=errors,
        )  # fmt: skip
    asked = sum(request.schema in {"finding", "findings"} for request in server.requests)
    assert asked < 30
    assert failed.value.partial.frame["n"].notna().sum() <= asked


def test_a_failed_row_of_one_group_is_told_to_that_group_only(tmp_path):
    shops = {"shop": ["a", "b"] * 3}

    def failing(request):
        if request.schema != "reduction" and any(unit["text"] == "row 2" for unit in request.units):
            return Status(400)
        return provider(request)

    options = {"by": "shop", "journal": tmp_path / "j.sqlite", "plan": {"shard_size": 1}}
    _, _, reduces = run(rows(6, **shops), failing, **options)
    told = {bool(re.search("1 of 3 rows have no finding", request.user)) for request in reduces}
    assert told == {True, False}
    _, _, again = run(rows(6, **shops), **options)
    assert len(again) == 1  # the other group's answer stands


def test_groups_that_were_answered_before_the_budget_was_used_up_are_kept():
    result, _, _ = run(
        rows(6, shop=list("aabbcc")), by="shop", max_parallelism=1, plan={"shard_size": 6}, budget=amr.Budget(calls=3)
    )
    assert result.output["output"].notna().tolist() == [True, True, False]
    assert result.stopped


# Numbers


def choosing(field: str, function: str):
    def script(request):
        if request.schema == "reduction":
            return {"output": {"field": field, "function": function}, "sources": [0]}
        return provider(request)

    return script


def test_numbers_by_groups_rest_on_their_group():
    result, _, _ = run(rows(6, shop=["a", "b"] * 3), choosing("n", "sum"), by="shop", output=int)
    assert result.output["n"].tolist() == [0 + 2 + 4, 1 + 3 + 5]
    assert result.explain(group="a")["text"].tolist() == ["row 0", "row 2", "row 4"]


def test_a_number_over_a_column_of_the_frame_is_computed():
    with ScriptedServer(choosing("n", "sum")) as server:
        frame = pd.DataFrame({"n": [1, 2, 3]})
        assert frame.amr.reduce("The sum of n.", output=int, lm=server.lm(), journal=False) == 6


def test_functions_that_give_no_whole_number_are_not_offered_for_one():
    _, _, reduces = run(rows(4), choosing("n", "sum"), output=int)
    offered = str(reduces[0].body["response_format"])
    assert "'sum'" in offered
    assert "'mean'" not in offered


def test_a_number_of_no_values_is_a_listed_failure():
    def missing(request):
        if request.schema == "reduction":
            return {"output": {"field": "n", "function": "max"}, "sources": []}
        return findings(request, lambda unit: {"n": None})

    result, _, _ = run(rows(4), missing, finding={"n": float | None}, output=float)
    assert result.output is None
    assert "no values" in result.failures["reason"].iloc[0]


# Columns that agents write


def test_an_agent_s_column_may_be_one_of_the_frame_s_and_is_all_that_it_reads():
    result, _, reduces = run(rows(4), reduce={"n": "sum", "text": amr.Agent("Say it.")})
    assert result.output["text"] == "combined"
    assert "row 3" in reduces[0].user
    frame = rows(4, secret=["hidden"] * 4)
    with ScriptedServer(provider) as server:
        frame.amr.reduce({"text": amr.Agent("Say it.")}, lm=server.lm(), journal=False)
    assert "row 3" in server.requests[0].user
    assert "hidden" not in server.requests[0].user


def test_an_agent_s_column_may_have_a_name_of_its_own_beside_named_aggregations():
    result, _, reduces = run(rows(4), reduce={"worst": ("n", "max"), "told": ("text", amr.Agent("Say it."))})
    assert (result.output["worst"], result.output["told"]) == (3, "combined")
    assert "row 3" in reduces[0].user
    grouped, _, _ = run(rows(4, shop=list("abab")), reduce={"told": ("text", amr.Agent("Say it."))}, by="shop")
    assert grouped.output["told"].tolist() == ["combined"] * 2


def test_each_column_that_agents_write_of_a_group_has_sources_of_its_own(tmp_path):
    def cites(request):
        if request.schema != "reduction":
            return provider(request)
        return {"output": "x", "sources": [0 if "First" in request.system else 1]}

    agents = {"n": amr.Agent("First."), "text": amr.Agent("Second.")}
    result, _, _ = run(rows(4, shop=list("abab")), cites, reduce=agents, by="shop")
    result.save(tmp_path / "saved")
    for one in (result, amr.load(tmp_path / "saved")):
        assert one.explain(group="a", column="n")["text"].tolist() == ["row 0"]
        assert one.explain(group="b", column="text")["text"].tolist() == ["row 3"]
        with pytest.raises(amr.UsageError, match="pass column="):
            one.explain(group="a")
    plain, _, _ = run(rows(2))
    with pytest.raises(amr.UsageError, match="did not write this answer by columns"):
        plain.explain(column="n")


@pytest.mark.parametrize(
    ("output", "answers", "dtype"),
    [
        (float, [2.0, 3.0], "double[pyarrow]"),
        (bool, [True, False], "bool[pyarrow]"),
        (str, ["a", "b"], "string[pyarrow]"),
        (Literal["good", "bad"], ["good", "bad"], "category"),
    ],
)
def test_answers_by_groups_have_the_type_that_is_asked_for(output, answers, dtype):
    def says(request):
        if request.schema != "reduction":
            return findings(request, lambda unit: {"said": unit["text"]})
        return {"output": answers["row 1" in request.user], "sources": [0]}

    result, _, _ = run(rows(4, shop=list("abab")), says, finding={"said": str}, by="shop", output=output)
    assert result.output["output"].tolist() == answers
    assert str(result.output["output"].dtype).replace("large_", "") == dtype


def test_frames_by_groups_are_one_frame():
    def says(request):
        if request.schema != "reduction":
            return provider(request)
        return {"output": [{"name": "x", "size": 1, "sources": [0]}, {"name": "y", "size": 2, "sources": [1]}]}

    result, _, _ = run(rows(4, shop=list("abab")), says, by="shop", output=pd.DataFrame)
    assert result.output.columns.tolist() == ["name", "size"]
    assert result.output.index.tolist() == ["a", "a", "b", "b"]
