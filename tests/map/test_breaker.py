"""A run in which everything fails for one reason stops before it halves its way on; any other run goes to its end."""

from __future__ import annotations

import json
import logging
from collections import Counter

import numpy as np
import pandas as pd
import pytest

import pandas_amr as amr
from pandas_amr._map.breaker import find_kind
from pandas_amr.testing import Raw, ScriptedServer, Status

MOST_REQUESTS = 60
STARS = {"finding": {"stars": int}, "reduce": {"stars": "mean"}}
NEVER = {"give_up_after": None}


def rows(count):
    return pd.DataFrame({"text": [f"row {number}" for number in range(count)]})


def answer(request, finding_of):
    return {"findings": [{"unit": unit["unit"], **finding_of(unit)} for unit in request.units]}


def other_fields(request):
    return answer(request, lambda unit: {"colour": "red"})


def stars(request):
    return answer(request, lambda unit: {"stars": 3})


def number_of(unit):
    return int(unit["text"].split()[1])


def run(frame, script, *, lm=None, **options):
    """The result of a map_reduce, and how many requests it took."""
    with ScriptedServer(script) as server:
        result = frame.amr.map_reduce(map="How many stars?", lm=server.lm(**(lm or {})), **(STARS | options))
        return result, len(server.requests)


def statuses(result):
    return dict(Counter(result.status["status"].tolist()))


def shifted(request):
    return {"findings": [{"unit": unit["unit"] + 1, "stars": 3} for unit in request.units]}


DOOMED = {
    "other fields": (other_fields, "without stars"),
    "a flat answer": (lambda request: {"colour": "red"}, "no list `findings`"),
    "prose": (lambda request: "I think so.", "not a JSON object"),
    "nothing": (lambda request: "", "is empty"),
    "numbers from 1": (shifted, "names unit 20"),
    "another type": (lambda request: answer(request, lambda unit: {"stars": unit["text"]}), "valid integer"),
    "refusals": (lambda request: Raw(refusal="No."), "declined"),
    "a filter": (lambda request: Status(400, "flagged by the content policy"), "content policy"),
}


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
@pytest.mark.parametrize(("script", "reason"), DOOMED.values(), ids=DOOMED.keys())
@pytest.mark.sampled(3)
def test_a_doomed_run_of_a_thousand_rows_takes_at_most_sixty_requests(script, reason):
    result, requests = run(rows(1000), script)
    assert requests <= MOST_REQUESTS
    assert set(statuses(result)) == {"failed", "skipped"}
    assert statuses(result)["failed"] == len(result.failures) < 200
    assert reason in result.stopped
    assert result.output is None


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
@pytest.mark.parametrize("most", [1, 2, 3])
def test_few_agents_at_once_compare_three_shards_too(most):
    result, requests = run(rows(1000), other_fields, max_parallelism=most)
    assert requests <= MOST_REQUESTS
    assert statuses(result) == {"failed": 60, "skipped": 940}


def test_agents_that_wait_do_not_let_more_requests_run_at_once():
    with ScriptedServer(other_fields) as server:
        with pytest.warns(amr.FailureWarning):
            rows(200).amr.map("How many?", finding={"stars": int}, lm=server.lm(), max_parallelism=1)
        assert server.max_in_flight == 1


def test_a_run_that_gives_up_says_so_at_once_and_at_the_end(caplog):
    caplog.set_level(logging.WARNING, "pandas_amr")
    with pytest.warns(amr.FailureWarning, match="stopped early") as told:
        result, requests = run(rows(1000), other_fields)
    (record,) = caplog.records
    assert "gives up: 160 units in 8 shards failed and none succeeded" in record.getMessage()
    assert f"{requests} requests" in record.getMessage()
    (warning,) = [str(warning.message) for warning in told if "stopped early" in str(warning.message)]
    for text in (result.stopped, warning):
        for part in (
            "without stars",
            f"{requests} requests",
            f"{result.total.tokens:,} tokens",
            "840 of 1,000",
            "another model",
        ):
            assert part in text
    assert "840 skipped" in repr(result)
    assert "stopped: 160 units in 8 shards failed" in repr(result)
    assert result.status["reason"].iloc[-1] == "the run stopped before its turn"


def test_under_raise_the_error_has_reason_spend_and_what_was_found():
    with pytest.raises(amr.MapFailed, match="without stars .schema.. 54 requests and .* Try another model") as caught:
        run(rows(1000), other_fields, errors="raise")
    partial = caught.value.partial
    assert statuses(partial) == {"failed": 160, "skipped": 840}
    assert str(caught.value) == partial.stopped


# What is not doomed takes what it takes without a breaker.


def of_twenty(bad):
    return lambda request: answer(request, lambda unit: {"colour": 1} if bad(number_of(unit)) else {"stars": 3})


def poisoned(request):
    if any(number_of(unit) % 20 == 0 for unit in request.units):
        return Status(400, "flagged by the content policy")
    return stars(request)


def small_model(request):
    return stars(request) if len(request.units) == 1 else other_fields(request)


def first_half_fails(request):
    """As an off-by-one model that finds its place again in shards of ten."""
    return shifted(request) if len(request.units) > 10 else stars(request)


SERVED = {
    "5 % of the rows fail": (of_twenty(lambda number: number % 20 == 0), 95),
    "every shard holds a poisoned row": (poisoned, 95),
    "half of the rows fail": (of_twenty(lambda number: number % 2), 50),
    "a model for single rows": (small_model, 100),
    "a model that is off by one in long shards": (first_half_fails, 100),
    "all but the last rows fail in each shard": (of_twenty(lambda number: number % 20 < 15), 25),
}


@pytest.mark.parametrize(("script", "found"), SERVED.values(), ids=SERVED.keys())
@pytest.mark.sampled(3)
def test_a_run_in_which_some_rows_succeed_takes_what_it_takes_without_a_breaker(script, found):
    watched, requests = run(rows(100), script)
    unwatched, requests_unwatched = run(rows(100), script, plan=NEVER)
    assert requests == requests_unwatched
    assert watched.stopped is None
    assert statuses(watched) == statuses(unwatched)
    assert len(watched.frame["stars"].dropna()) == found


@pytest.mark.parametrize("count", [20, 40])
def test_less_than_three_shards_run_to_their_end(count):
    result, requests = run(rows(count), other_fields)
    assert requests == 39 * 2 * (count // 20)
    assert result.stopped is None
    assert statuses(result) == {"failed": count}


@pytest.mark.long
def test_none_never_gives_up():
    result, requests = run(rows(60), other_fields, plan=NEVER)
    assert (requests, result.stopped, statuses(result)) == (234, None, {"failed": 60})


WORDS = ["apple", "pear", "plum", "fig", "lime", "date", "kiwi", "nut"]


def test_failures_for_different_reasons_are_not_one_reason():
    def script(request):
        shard = number_of(request.units[0]) // 20
        return Status(400, f"the server dislikes the word {WORDS[shard]}")

    result, _ = run(rows(160), script)
    assert result.stopped is None
    assert statuses(result) == {"failed": 160}


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
@pytest.mark.parametrize(("after", "units"), [(1, 8), (10, 10), (25, 25)])
def test_the_plan_says_after_how_many_units(after, units):
    result, _ = run(rows(100), lambda request: {"colour": 1}, plan={"give_up_after": after, "shard_size": 1})
    assert f"{units} units in {units} shards" in result.stopped
    assert statuses(result) == {"failed": units, "skipped": 100 - units}


KINDS = [
    ("schema", "the answer names unit 20; units are 0 to 19", "the answer names unit 7; units are 0 to 9", True),
    ("schema", "without stars", "without colour", False),
    ("callable", "ValueError: cannot read 'a b'", "ValueError: cannot read 'c'", True),
    ("callable", "ValueError: cannot parse: apples", "ValueError: cannot parse: pears", True),
    ("callable", "ValueError: x", "KeyError: x", False),
    (
        "model",
        "The server answered 400: request req_12ab refused",
        "The server answered 400: request req_9z refused",
        True,
    ),
    ("model", "The server answered 400: too long", "The server answered 400: flagged", False),
]


@pytest.mark.parametrize(("who", "one", "other", "same"), KINDS)
def test_reasons_are_the_same_but_for_numbers_and_values(who, one, other, same):
    assert (find_kind(who, one) == find_kind(who, other)) is same
    assert find_kind(who, one) != find_kind("sandbox", one)


# The plan's field


@pytest.mark.parametrize("value", [0, -1, True, False, "ten", 1.5])
def test_a_wrong_number_of_units_is_refused_before_a_request(value, refusing):
    with pytest.raises(amr.PlanError, match="give_up_after"):
        rows(3).amr.map("x", lm=refusing.lm(), plan={"give_up_after": value})


@pytest.mark.parametrize(("fields", "shown"), [({}, "10"), ({"give_up_after": 3}, "3"), (NEVER, "never")])
def test_the_number_of_units_is_shown_and_saved(fields, shown, tmp_path, refusing):
    plan = rows(3).amr.plan(map="x", reduce="y", lm=refusing.lm(), plan=fields)
    assert f"give_up_after: {shown}" in repr(plan)
    again = amr.Plan(**json.loads(plan.to_json()))
    assert again.give_up_after == plan.give_up_after == fields.get("give_up_after", 10)
    assert plan.replace(shard_size=2).give_up_after == plan.give_up_after
    kept = rows(3).amr.plan(map="x", reduce="y", lm=refusing.lm(), plan=again)
    assert kept.give_up_after == plan.give_up_after


# What comes after


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
def test_a_retry_asks_what_failed_and_the_same_call_asks_the_rest(tmp_path):
    healed = []
    with ScriptedServer(lambda request: stars(request) if healed else other_fields(request)) as server:
        call = {"map": "How many stars?", "lm": server.lm(), "journal": tmp_path / "journal", **STARS}
        first = rows(400).amr.map_reduce(**call)
        healed.append(True)
        before = len(server.requests)
        with pytest.warns(amr.FailureWarning, match="240 rows were skipped by a run that gave up"):
            second = first.retry()
        third = second.retry()
        assert len(server.requests) - before == 8
        assert statuses(second) == statuses(third) == {"ok": 160, "skipped": 240}
        again = rows(400).amr.map_reduce(**call)
        assert len(server.requests) - before == 8 + 12
        assert statuses(again) == {"ok": 400}
        assert again.status["from_journal"].sum() == 160
        assert again.stopped is None


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
def test_what_the_journal_has_is_no_success_of_this_run(tmp_path):
    healthy = [True]
    with ScriptedServer(lambda request: stars(request) if healthy else other_fields(request)) as server:
        call = {"map": "How many stars?", "lm": server.lm(), "journal": tmp_path / "journal", **STARS}
        rows(100).amr.map_reduce(**call)
        healthy.clear()
        before = len(server.requests)
        result = rows(400).amr.map_reduce(**call)
        assert len(server.requests) - before <= MOST_REQUESTS
    assert statuses(result) == {"ok": 100, "failed": 160, "skipped": 140}
    assert result.status["from_journal"].tolist() == [True] * 100 + [False] * 300


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
def test_a_saved_result_says_that_the_run_gave_up(tmp_path):
    result, _ = run(rows(100), other_fields)
    result.save(tmp_path / "saved")
    assert amr.load(tmp_path / "saved").stopped == result.stopped


# All kinds of maps


def named_maps(frame, lm, **options):
    maps = {"good": "good", "bad": "bad"}
    return frame.amr.map_reduce(map=maps, finding={"stars": int}, reduce={"good_stars": "mean"}, lm=lm, **options)


def good_and_bad(request):
    return stars(request) if request.system.startswith("good") else other_fields(request)


@pytest.mark.parametrize("most", [1, 8])
def test_a_map_that_is_doomed_beside_one_that_is_not_ends_the_run(most):
    with ScriptedServer(good_and_bad) as server:
        with pytest.warns(amr.FailureWarning, match="of the map 'bad' failed"):
            result = named_maps(rows(400), server.lm(), max_parallelism=most)
        assert len(server.requests) < 80
    assert result.frame["good_stars"].notna().any()
    assert result.frame["bad_stars"].isna().all()


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
@pytest.mark.parametrize("most", [1, 8])
def test_maps_and_rows_that_wait_for_each_others_answers_end_too(most, tmp_path):
    equal = pd.DataFrame({"text": [f"row {number % 30}" for number in range(200)]})
    with ScriptedServer(other_fields) as server:
        options = {"finding": {"stars": int}, "lm": server.lm(), "max_parallelism": most}
        same = {"a": "Which?", "b": "Which?"}
        maps = rows(200).amr.map_reduce(map=same, reduce={"a_stars": "mean"}, journal=tmp_path / "maps", **options)
        dedupe = {"plan": {"dedupe": False}, "journal": tmp_path / "equal"}
        doubled = equal.amr.map_reduce(map="Which?", reduce={"stars": "mean"}, **dedupe, **options)
    assert "none succeeded" in maps.stopped
    assert "none succeeded" in doubled.stopped


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
def test_two_runs_that_wait_for_each_others_answers_both_give_up(tmp_path):
    frame = rows(400)
    with ScriptedServer(other_fields) as server:
        options = {"map": "Which?", "lm": server.lm(), "journal": tmp_path / "journal", **STARS}
        runs = [one.amr.start(**options) for one in (frame, frame.iloc[::-1])]
        results = [one.result() for one in runs]
    for result in results:
        assert "none succeeded" in result.stopped


def fails(shard):
    raise ValueError(f"cannot read {shard['text'].iloc[0]}")


def no_instruction(row):
    raise KeyError(row["text"])


def recipe():
    return amr.Recipe().map("How many stars?", finding={"stars": int}).reduce({"stars": "mean"})


MAPS = {
    "a function": (fails, {"plan": {"shard_size": 10}}, 0),
    "a recipe": (recipe(), {}, 80),
    "an instruction by row": (amr.Agent(lambda row: f"About {row['text']}"), STARS, 60),
    "an instruction by row that fails": (amr.Agent(no_instruction), STARS, 0),
    "groups": ("Which?", STARS | {"plan": {"segmentation": "groups", "group_columns": ["group"]}}, 60),
    "neighbours": ("Which?", STARS | {"plan": {"segmentation": "neighbours"}}, 60),
    "a static tree": ("Which?", STARS | {"reduce": "Sum up.", "output": str, "plan": {"fan_in": 3}}, 60),
    "one unit a shard": ("Which?", STARS | {"plan": {"shard_size": 1}}, 30),
}


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
@pytest.mark.parametrize(("mapped", "options", "most"), MAPS.values(), ids=MAPS.keys())
@pytest.mark.sampled(3)
def test_the_breaker_holds_for_every_kind_of_map(mapped, options, most, caplog):
    frame = rows(400).assign(group=np.arange(400) // 15)
    with ScriptedServer(lambda request: {"a": 1} if request.schema == "finding" else other_fields(request)) as server:
        result = frame.amr.map_reduce(map=mapped, lm=server.lm(), columns=["text"], **({"reduce": len} | options))
        assert len(server.requests) <= most
    assert "none succeeded" in result.stopped
    assert statuses(result)["skipped"] > 200
    assert "row 0" not in result.stopped.replace("first, row 0:", "")
    assert "row 0" not in caplog.text.replace("first, row 0:", "")


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
def test_the_pieces_of_long_units_count_as_their_unit():
    long = pd.DataFrame({"text": [f"{number} " + "word " * 2000 for number in range(30)]})
    result, requests = run(long, lambda request: {"colour": 1}, plan={"shard_tokens": 1000})
    assert requests <= 80
    assert statuses(result)["skipped"] > 0


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
def test_columns_filters_streams_and_samples_give_up_too():
    with ScriptedServer(other_fields) as server:
        wide = pd.DataFrame(np.ones((2, 100))).rename(columns=str)
        result = wide.amr.map_reduce(map="Which?", axis="columns", lm=server.lm(), **STARS)
        assert "none succeeded" in result.stopped
        kept = rows(200).amr.filter("Is it good?", lm=server.lm())
        assert len(kept) == 200
        assert "none succeeded" in amr.result_of(kept).stopped
        stream = rows(200).amr.start(map="Which?", lm=server.lm(), **STARS)
        assert list(stream) == []
        assert "none succeeded" in stream.result().stopped
        with pytest.warns(amr.FailureWarning, match="that without a sample"):
            estimate = rows(200).amr.plan(map="Which?", lm=server.lm(), **STARS).estimate(sample=100)
        assert (estimate.calls, estimate.sampled) == (10, 0)


def test_a_row_whose_recipe_gives_up_fails_alone():
    split = amr.Recipe().then(lambda frame: rows(100)).map("Which?", finding={"stars": int}).reduce({"stars": "mean"})
    with ScriptedServer(other_fields) as server:
        result = rows(2).amr.map_reduce(map=split, reduce=len, lm=server.lm())
    assert result.stopped is None
    assert all("none succeeded" in reason for reason in result.failures["reason"])
    assert statuses(result) == {"failed": 2}


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
def test_a_budget_that_ends_while_shards_wait_ends_the_run():
    result, requests = run(rows(400), other_fields, budget=amr.Budget(calls=20))
    assert requests == 20
    assert "budget" in result.stopped


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
def test_a_batch_splits_one_shard_in_as_few_steps_as_ever():
    with ScriptedServer(other_fields) as server:
        lm = server.lm(batch=True, batch_poll_s=0.01)
        result = rows(100).amr.map_reduce(map="Which?", lm=lm, **STARS)
        assert len(server.requests) <= 5 * 2 + 38 * 2
        assert len(server.batches) <= 2 * 6
    assert statuses(result) == {"failed": 100}


# Tools


@amr.tool
def look_up(word: str) -> str:
    """Look a word up."""
    return word


NO_TOOLS = {"abilities": amr.Abilities(tools=False)}
CODE = {"abilities": amr.Abilities(tools="code")}
USELESS = {
    "tools": (NO_TOOLS, {"tools": [look_up]}),
    "a REPL": (NO_TOOLS, {"tools": [amr.PythonREPLTool()]}),
    "tools where code is written": (CODE, {"tools": [look_up]}),
    "an agent's own": (NO_TOOLS, {"map": amr.Agent("Which?", tools=[look_up])}),
}


@pytest.mark.parametrize(("lm", "options"), USELESS.values(), ids=USELESS.keys())
def test_tools_are_refused_if_the_model_can_use_none(lm, options, refusing):
    with pytest.raises(amr.UsageError, match="calls no tools.*[Ll]eave"):
        rows(3).amr.map_reduce(**({"map": "Which?", "lm": refusing.lm(**lm)} | STARS | options))


def test_tools_are_refused_at_a_server_that_has_refused_them():
    with ScriptedServer(lambda request: Status(400, "this model does not support tools")) as server:
        with pytest.raises(amr.ModelConfigError, match="Without tools"):
            rows(3).amr.map("Which?", lm=server.lm(), tools=[look_up])
        with pytest.raises(amr.UsageError, match="has refused tools: leave tools= out"):
            rows(3).amr.map("Which?", lm=server.lm(), tools=[look_up])
        assert len(server.requests) == 1


def test_tools_that_one_of_the_models_can_use_stay():
    def script(request):
        return {"output": "fine", "sources": [0]} if request.tools else stars(request)

    with ScriptedServer(script) as server:
        lm = {"map": server.lm(**NO_TOOLS), "reduce": server.lm("able")}
        result = rows(3).amr.map_reduce(
            map="Which?", finding={"stars": int}, reduce="Sum up.", output=str, lm=lm, tools=[look_up]
        )
    assert result.output == "fine"
