"""What a run would take, told before it: estimates against what was spent, requests as they are sent, a yes or a no."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

import pandas_amr as amr
from pandas_amr._run.sample import interval
from pandas_amr.models.base import Abilities
from pandas_amr.testing import Call, RateLimit, ScriptedServer, Status, findings

WORDS = np.random.default_rng(3).integers(3, 40, size=400)
ROWS = pd.DataFrame(
    {
        "text": [f"row {n} " + "word " * int(WORDS[-n]) for n in range(200)],
        "group": [f"g{n % 4}" for n in range(200)],
    }
)
TWICE = pd.concat([ROWS.head(90), ROWS.head(90)], ignore_index=True)
TEXT: dict[str, Any] = {"finding": {"gist": str, "mood": ["good", "bad"]}}


def n_of(unit: dict[str, Any]) -> int:
    return int(unit["text"].split()[1])


def provider(request):
    """Findings of 3 to 40 words each, reductions of about 30."""
    if request.schema == "reduction":
        return {"output": "all in all " * 10, "sources": list(range(min(3, len(request.findings))))}
    fields = str(request.body["response_format"])
    kind = {"gist": "gist", "topic": "topic"}
    wanted = next(kind[name] for name in kind if name in fields)

    def found(unit):
        return {wanted: "word " * int(WORDS[n_of(unit)])} | ({"mood": "good"} if "mood" in fields else {})

    return findings(request, found)


SHAPES: dict[str, dict[str, Any]] = {
    "one row a shard, computed": {"plan": {"shard_size": 1}, "reduce": {"mood": "value_counts"}, **TEXT},
    "shards, computed": {"plan": {"shard_size": 10}, "reduce": {"mood": "value_counts"}, **TEXT},
    "static, wide": {"plan": {"shard_size": 5, "fan_in": 8}, "reduce": "Combine.", **TEXT},
    "static, deep": {"plan": {"shard_size": 7, "fan_in": 2}, "reduce": "Combine.", **TEXT},
    "adaptive, one level": {"plan": {"shard_size": 10}, "reduce": "Combine.", **TEXT},
    "by groups": {"plan": {"shard_size": 10}, "reduce": "Combine.", "by": "group", **TEXT},
    "two maps, static": {
        "map": {"a": "What?", "b": "Which?"},
        "finding": {"a": {"gist": str}, "b": {"topic": str}},
        "plan": {"shard_size": 10, "fan_in": 4},
        "reduce": "Combine.",
    },
    "equal rows": {"frame": TWICE, "plan": {"shard_size": 10, "fan_in": 4}, "reduce": "Combine.", **TEXT},
    "neighbours": {
        "plan": {"shard_size": 10, "segmentation": "neighbours"},
        "reduce": {"mood": "value_counts"},
        **TEXT,
    },
    "groups": {
        "plan": {"segmentation": "groups", "group_columns": ["group"], "shard_size": 10, "fan_in": 6},
        "reduce": "Combine.",
        **TEXT,
    },
}


def counted(text: str) -> int:
    return max(1, len(text) // 4)  # as the scripted server counts


@pytest.mark.filterwarnings("ignore::pandas_amr.PlanWarning")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.sampled(4)
def test_the_estimate_against_the_actual(shape):
    """Calls to the one; tokens, by a sample of 40, within a tenth, and within the interval that is told."""
    case = {"map": "What does it say?"} | SHAPES[shape]
    frame = case.pop("frame", ROWS)
    with ScriptedServer(provider) as server:
        lm = server.lm(token_counter=counted, prices=(1.0, 4.0))
        plan = frame.amr.plan(lm=lm, **case)
        assert server.requests == []
        before, sampled = plan.estimate(), plan.estimate(sample=40)
        server.requests.clear()
        result = frame.amr.map_reduce(lm=lm, **case)
        assert len(server.requests) == before.calls == sampled.calls
    assert before.input_tokens == pytest.approx(
        result.total.input_tokens, rel=0.10 if result.graph().mode == "map" else 0.6
    )
    assert sampled.tokens == pytest.approx(result.total.tokens, rel=0.10)
    low, high = sampled.tokens_between
    assert low <= result.total.tokens <= high
    assert sampled.money == pytest.approx(result.total.money, rel=0.15)
    assert sampled.money_between[0] < sampled.money < sampled.money_between[1]
    assert sampled.seconds > 0
    assert (
        before.tree[1:]
        == sampled.tree[1:]
        == tuple(level["nodes"] for level in result.graph().levels if before.tree)[1:]
    )


def typical(request):
    """The JSON of an answer as the estimate takes it to be: 17 tokens of text, notes of 150."""
    answer = {"output": "n" * 570, "sources": [0]}
    if request.schema != "reduction":
        text = "a sentence of about a dozen words, as a model would write it here"
        fields = str(request.body["response_format"])
        found = {name: text for name in ("gist", "topic") if name in fields}
        found |= {"mood": "good"} if "mood" in fields else {}
        answer = findings(request, lambda unit: found)
    return json.dumps(answer, separators=(",", ":"))


ANALYST = amr.Agent("Combine.", role="a careful analyst of long experience, who reads all and writes little")
WRITTEN: dict[str, dict[str, Any]] = {
    "small budget": {"plan": {"shard_size": 10, "reduce_budget": 700}, "reduce": "Combine.", **TEXT},
    "a role": {"plan": {"shard_size": 10, "fan_in": 3}, "reduce": ANALYST, **TEXT},
    "a column": {"plan": {"shard_size": 10}, "reduce": {"gist": amr.Agent("Sum up.")}, **TEXT},
}


@pytest.mark.filterwarnings("ignore::pandas_amr.PlanWarning")
@pytest.mark.parametrize("shape", SHAPES | WRITTEN)
@pytest.mark.sampled(4)
def test_the_estimate_is_what_answers_of_typical_size_take(shape):
    case = {"map": "What does it say?"} | (SHAPES | WRITTEN)[shape]
    frame = case.pop("frame", ROWS)
    answers: list[str] = []

    def answer(request):
        answers.append(typical(request))
        return answers[-1]

    with ScriptedServer(answer) as server:
        lm = server.lm(token_counter=counted)
        estimate = frame.amr.plan(lm=lm, **case).estimate()
        result = frame.amr.map_reduce(lm=lm, **case)
        assert len(server.requests) == estimate.calls
    assert estimate.input_tokens == pytest.approx(result.total.input_tokens, rel=0.04)
    assert estimate.output_tokens == pytest.approx(sum(map(counted, answers)), rel=0.03)


@pytest.mark.parametrize("by", [None, "group"])
def test_of_rows_that_are_reduced_alone_each_is_counted(by):
    asked: list[amr.Estimate] = []
    budget = amr.Budget(confirm=lambda estimate: asked.append(estimate) or True)
    with ScriptedServer(typical) as server:
        lm = server.lm(token_counter=counted)
        ROWS.amr.reduce("Say it.", columns=["text"], by=by, lm=lm, budget=budget)
        sent = sum(counted(message["content"]) for one in server.requests for message in one.body["messages"])
    assert asked[0].input_tokens == pytest.approx(sent, rel=0.02)


def test_an_adaptive_tree_s_calls_are_near():
    case = {"map": "What?", "reduce": "Combine.", "plan": {"shard_size": 10, "reduce_budget": 700}, **TEXT}
    with ScriptedServer(provider) as server:
        lm = server.lm(token_counter=counted)
        estimate = ROWS.amr.plan(lm=lm, **case).estimate(sample=40)
        server.requests.clear()
        result = ROWS.amr.map_reduce(lm=lm, **case)
    assert estimate.calls == pytest.approx(len(server.requests), rel=0.25)
    assert estimate.tokens == pytest.approx(result.total.tokens, rel=0.15)


@pytest.mark.long
def test_a_model_of_one_row_a_request_is_estimated_too():
    small = Abilities(tools=False, planning=False, units_per_request=1)
    with ScriptedServer(provider) as server:
        lm = server.lm(token_counter=counted, abilities=small)
        case = {"map": "What?", "reduce": {"mood": "value_counts"}, **TEXT}
        estimate = ROWS.amr.plan(lm=lm, **case).estimate(sample=30)
        server.requests.clear()
        result = ROWS.amr.map_reduce(lm=lm, **case)
        assert len(server.requests) == estimate.calls == 200
    assert estimate.tokens == pytest.approx(result.total.tokens, rel=0.10)


def test_a_sample_is_paid_for_once(tmp_path):
    with ScriptedServer(provider) as server:
        lm = server.lm(token_counter=counted)
        case = {"map": "What?", "reduce": {"mood": "value_counts"}, "journal": tmp_path / "j.sqlite", **TEXT}
        first = ROWS.amr.plan(lm=lm, **case)
        first.estimate(sample=40)
        paid = sum(len(request.units) for request in server.requests)
        assert paid == 40
        again = first.estimate(sample=40)
        assert sum(len(request.units) for request in server.requests) == 40
        assert again.sampled == 40
        ROWS.amr.map_reduce(lm=lm, **case)
        assert sum(len(request.units) for request in server.requests) == 200


@pytest.mark.parametrize("plan", [{"segmentation": "neighbours", "shard_size": 10}])
def test_nor_is_one_whose_findings_depend_on_their_neighbours(plan, tmp_path):
    with ScriptedServer(provider) as server:
        lm = server.lm(token_counter=counted)
        case = {"map": "What?", "plan": plan, "reduce": {"mood": "count"}, "journal": tmp_path / "j.sqlite", **TEXT}
        ROWS.amr.plan(lm=lm, **case).estimate(sample=20)
        ROWS.amr.map_reduce(lm=lm, **case)
        assert sum(len(request.units) for request in server.requests) == 200


def test_seconds_are_those_of_the_limits_that_are_known():
    with ScriptedServer(provider) as server:
        case = {"map": "What?", "reduce": {"mood": "count"}, "plan": {"shard_size": 1}, **TEXT}
        assert ROWS.amr.plan(lm=server.lm(), **case).estimate().seconds is None
        told = ROWS.amr.plan(lm=server.lm(rpm=100, model="told"), **case).estimate()
        assert told.seconds == pytest.approx(120)
    with ScriptedServer(provider, limit=RateLimit(rpm=6000)) as server:  # learned from headers
        ROWS.head(5).amr.map("x", lm=server.lm(model="headers"), **TEXT)
        learned = ROWS.amr.plan(lm=server.lm(model="headers"), **case).estimate()
        assert learned.seconds == pytest.approx(2, rel=0.1)


def test_money_that_is_not_known_is_none():
    with ScriptedServer(provider) as server:
        estimate = ROWS.amr.plan(map="What?", reduce={"mood": "count"}, lm=server.lm(), **TEXT).estimate()
    assert estimate.money is None
    assert "money" not in str(estimate)


def test_the_interval_holds_the_truth_in_most_samples():
    """Student's interval over blocks: of 400 samples of 10 blocks of 4, about 95 % hold the mean."""
    rng = np.random.default_rng(1)
    population = rng.gamma(2.0, 20.0, size=2000)
    held = 0
    for _ in range(400):
        blocks = rng.choice(population, size=(10, 4), replace=False)
        per_unit = blocks.mean(axis=1).tolist()
        half = interval(per_unit, [4] * 10, of=2000)
        held += abs(np.mean(per_unit) - population.mean()) <= half * np.mean(per_unit)
    assert 360 <= held <= 396
    assert interval([1.0, 2.0], [5, 5], of=10) == 0.0  # all were sampled


# Requests


@amr.tool
def look(word: str) -> str:
    """Look."""
    return word


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tools": [look]},
        {"plan": {"shard_size": 2, "segmentation": "neighbours"}},
        {"map": amr.Agent("What?", role="reader")},
        {"map": amr.Agent(lambda row: f"What of {row['group']}?")},
    ],
)
@pytest.mark.sampled(3)
def test_requests_are_rendered_as_they_are_sent(options):
    def answered(request):
        found = {"findings": [{"unit": unit["unit"], "gist": "x", "mood": "good"} for unit in request.units]}
        return [Call("submit_findings", found)] if request.tools else found

    case = {
        "map": "What?",
        "plan": {"shard_size": 3},
        "reduce": {"mood": "count"},
        "max_parallelism": 1,
        **TEXT,
    } | options
    with ScriptedServer(answered) as server:
        rendered = ROWS.head(20).amr.plan(lm=server.lm(temperature=0), **case).requests(3)
        assert server.requests == []
        ROWS.head(20).amr.map_reduce(lm=server.lm(temperature=0), **case)
        sent = [request.body for request in server.requests[:3]]
    assert rendered == sent


def test_requests_of_agents_with_python_are_rendered_too(sandboxed):
    frame = pd.DataFrame({"n": range(30), "when": pd.to_datetime(["2026-01-01"] * 30)})
    with ScriptedServer(
        lambda request: [Call("python_repl", {"code": "submit(df[['n']].rename(columns={'n': 'm'}))"})]
    ) as server:
        case = {"map": "x", "finding": {"m": int}, "reduce": {"m": "sum"}, "tools": [amr.PythonREPLTool()]}
        case |= {"plan": {"view": "preview"}}
        rendered = frame.amr.plan(lm=server.lm(), **case).requests()
        assert server.requests == []
        frame.amr.map_reduce(lm=server.lm(), **case)
        assert rendered == [server.requests[0].body]


def test_a_plan_that_was_made_for_no_frame_says_how_to_make_one():
    plan = amr.Plan(map_instruction="x")
    for ask in (plan.estimate, plan.requests):
        with pytest.raises(amr.PlanError, match=r"df\.amr\.plan"):
            ask()


def test_a_sample_that_is_none_is_refused(refusing):
    plan = ROWS.amr.plan(map="x", reduce={"gist": "count"}, lm=refusing.lm(), **TEXT)
    for sample in (0, -1, 2.5, True):
        with pytest.raises(amr.PlanError, match="a number of units"):
            plan.estimate(sample=sample)


# Approval


def test_a_no_spends_nothing_and_says_what_it_would_have_been():
    asked: list[amr.Estimate] = []
    budget = amr.Budget(confirm=lambda estimate: bool(asked.append(estimate)))
    with ScriptedServer(provider) as server:
        case = {"map": "What?", "reduce": "Combine.", "plan": {"shard_size": 10, "fan_in": 4}, **TEXT}
        with pytest.raises(amr.NotConfirmed, match="27 calls") as caught:
            ROWS.amr.map_reduce(lm=server.lm(), budget=budget, **case)
        assert server.requests == []
        assert caught.value.estimate == asked[0] == ROWS.amr.plan(lm=server.lm(), **case).estimate()


@pytest.mark.parametrize("verb", ["map", "filter", "map_reduce", "start"])
@pytest.mark.sampled(2)
def test_a_yes_goes_on_and_is_asked_for_once(verb):
    asked: list[amr.Estimate] = []

    async def confirm(estimate: amr.Estimate) -> bool:
        await asyncio.sleep(0)
        asked.append(estimate)
        return True

    def answered(request):
        if "amr_keep" in str(request.body["response_format"]):
            return findings(request, lambda unit: {"amr_keep": True})
        return provider(request)

    with ScriptedServer(answered) as server:
        options = {"lm": server.lm(), "budget": amr.Budget(confirm=confirm, calls=1000)}
        if verb == "map":
            ROWS.amr.map("What?", **options, **TEXT)
        elif verb == "filter":
            assert len(ROWS.amr.filter("x", **options)) == 200
        elif verb == "map_reduce":
            ROWS.amr.map_reduce(map="What?", reduce={"mood": "count"}, **options, **TEXT)
        else:
            ROWS.amr.start(map="What?", reduce={"mood": "count"}, **options, **TEXT).result()
    assert len(asked) == 1
    assert asked[0].units == 200


def test_what_the_journal_has_is_not_in_the_estimate_that_is_confirmed(tmp_path):
    asked: list[amr.Estimate] = []
    budget = amr.Budget(confirm=lambda estimate: asked.append(estimate) or True)
    with ScriptedServer(provider) as server:
        options = {"lm": server.lm(), "budget": budget, "journal": tmp_path / "j.sqlite", "plan": {"shard_size": 1}}
        ROWS.head(150).amr.map("What?", **options, **TEXT)
        ROWS.amr.map("What?", **options, **TEXT)
    assert [estimate.calls for estimate in asked] == [150, 50]


def test_an_exception_of_the_one_who_is_asked_is_the_cause_of_what_stops_the_run():
    def confirm(estimate: amr.Estimate) -> bool:
        raise ZeroDivisionError

    with ScriptedServer(provider) as server:
        with pytest.raises(amr.RunStopped, match="its confirmation") as stopped:
            ROWS.amr.map("What?", lm=server.lm(), budget=amr.Budget(confirm=confirm), **TEXT)
        assert server.requests == []
    assert isinstance(stopped.value.__cause__, ZeroDivisionError)
    with pytest.raises(amr.UsageError, match="a function of an Estimate"):
        amr.Budget(confirm=True)


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"by": "group"},
        {"plan": {"fan_in": 3, "shard_size": 20}},
        {"instruction": {"text": amr.Agent("Say it.")}},
        {"instruction": {"text": amr.Agent("Say it.")}, "plan": {"fan_in": 3, "shard_size": 20}},
        {"by": "group", "plan": {"fan_in": 3, "shard_size": 9}},
    ],
    ids=["one", "by groups", "static", "a column", "a column, static", "by groups, static"],
)
def test_a_reduce_alone_asks_too_with_its_calls(case):
    asked: list[amr.Estimate] = []
    budget = amr.Budget(confirm=lambda estimate: asked.append(estimate) or True)
    case = {"instruction": "Say it."} | case
    with ScriptedServer(provider) as server:
        lm = server.lm(token_counter=counted)
        ROWS.amr.reduce(case.pop("instruction"), columns=["text"], lm=lm, budget=budget, **case)
        sent = len(server.requests)
    assert [estimate.calls for estimate in asked] == [sent]


class Later:
    """Asked, it gives what can be awaited."""

    def __init__(self, said):
        self.said = said

    async def __call__(self, estimate: amr.Estimate) -> object:
        await asyncio.sleep(0)
        return self.said


@pytest.mark.parametrize(
    "confirm",
    [
        lambda estimate: np.float64(estimate.calls) < 100,
        Later(True),
        lambda estimate: Later(np.True_)(estimate),
    ],
    ids=["of numpy", "an object", "a lambda"],
)
def test_a_yes_is_a_yes_however_it_is_said(confirm):
    with ScriptedServer(provider) as server:
        ROWS.amr.map("What?", lm=server.lm(), budget=amr.Budget(confirm=confirm), **TEXT)
        assert server.requests


@pytest.mark.parametrize("said", [False, np.False_, None, 1, "yes", Later(False)])
def test_anything_else_is_a_no(said, refusing):
    confirm = said if isinstance(said, Later) else lambda estimate: said
    with pytest.raises(amr.NotConfirmed):
        ROWS.amr.map("What?", lm=refusing.lm(), budget=amr.Budget(confirm=confirm), **TEXT)


# A recipe with agents behind map= or reduce=


def of_a_row() -> amr.Recipe:
    return amr.Recipe().map("What?", plan={"shard_size": 1}, **TEXT).reduce({"mood": "count"}, output=int)


@pytest.mark.parametrize(
    "case",
    [
        {"map": of_a_row(), "finding": {"m": int}, "reduce": {"m": "sum"}},
        {"map": {"own": "What?", "inner": of_a_row()}, "finding": {"own": {"gist": str}, "inner": {"m": int}}},
        {"map": "What?", "reduce": of_a_row(), **TEXT},
    ],
    ids=["a map", "one of two maps", "a reduce"],
)
def test_what_a_recipe_inside_takes_is_not_known_and_never_none_at_all(case):
    asked: list[amr.Estimate] = []
    budget = amr.Budget(confirm=lambda estimate: bool(asked.append(estimate)))
    case = {"reduce": len} | case
    with ScriptedServer(provider) as server:
        lm = server.lm(prices=(1.0, 4.0))
        estimate = ROWS.amr.plan(lm=lm, columns=["text"], **case).estimate()
        with pytest.raises(amr.NotConfirmed, match="unknown"):
            ROWS.amr.map_reduce(lm=lm, columns=["text"], budget=budget, **case)
        with pytest.raises(amr.NotConfirmed, match="unknown"):
            amr.Recipe(columns=["text"], **case)(ROWS, lm=lm, budget=budget)
        assert server.requests == []
    for told in (estimate, *asked):
        assert (told.calls, told.input_tokens, told.output_tokens, told.tokens, told.money) == (None,) * 5
        assert "calls, tokens and money are unknown, since a recipe" in str(told)


@pytest.mark.long
def test_a_sample_tells_what_a_recipe_that_maps_takes():
    case = {"map": of_a_row(), "finding": {"m": int}, "reduce": {"m": "sum"}, "columns": ["text"]}
    with ScriptedServer(provider) as server:
        lm = server.lm(token_counter=counted, prices=(1.0, 4.0))
        estimate = ROWS.amr.plan(lm=lm, **case).estimate(sample=40)
        assert len(server.requests) == 40
        result = ROWS.amr.map_reduce(lm=lm, **case)
        assert estimate.calls == len(server.requests) - 40 == 200
    assert estimate.tokens == pytest.approx(result.total.tokens, rel=0.10)
    assert estimate.tokens_between[0] <= result.total.tokens <= estimate.tokens_between[1]
    assert estimate.money == pytest.approx(result.total.money, rel=0.15)
    assert "about 200 calls" in str(estimate)


def test_a_recipe_of_functions_inside_takes_nothing():
    inside = amr.Recipe().map(lambda shard: [{"size": len(shard)}]).reduce({"size": "sum"}, output=int)
    with ScriptedServer(provider) as server:
        plan = ROWS.amr.plan(map=inside, finding={"m": int}, reduce="Combine.", columns=["text"], lm=server.lm())
    assert plan.estimate().calls == 1


# Calls that are known before the run, and those that are not


LONG = pd.DataFrame({"text": ["row 1 " + "word " * 9000, "row 2 short", "row 3 " + "word " * 4000]})


def test_a_unit_that_is_larger_than_a_shard_is_counted_piece_by_piece():
    case = {"map": "What?", "finding": {"n": int}, "reduce": {"n": "sum"}, "plan": {"shard_tokens": 1000}}
    with ScriptedServer(lambda request: findings(request, lambda unit: {"n": 1})) as server:
        lm = server.lm(token_counter=counted)
        plan = LONG.amr.plan(lm=lm, max_parallelism=1, **case)
        estimate, rendered = plan.estimate(), plan.requests(3)
        assert server.requests == []
        result = LONG.amr.map_reduce(lm=lm, max_parallelism=1, **case)
        assert estimate.calls == len(server.requests) > 15
        assert rendered == [request.body for request in server.requests[:3]]
    assert estimate.input_tokens == pytest.approx(result.total.input_tokens, rel=0.10)
    assert f": {estimate.calls} calls" in str(estimate)


def test_one_agent_that_answers_alone_is_one_call_and_its_request_is_shown():
    case = {"map": "What?", "reduce": "Combine.", **TEXT}
    asked: list[amr.Estimate] = []
    budget = amr.Budget(confirm=lambda estimate: asked.append(estimate) or True)
    with ScriptedServer(provider) as server:
        lm = server.lm(token_counter=counted)
        plan = ROWS.amr.plan(lm=lm, plan={"direct": True}, **case)
        estimate, rendered = plan.estimate(), plan.requests(3)
        result = ROWS.amr.map_reduce(lm=lm, plan={"direct": True}, budget=budget, **case)
        assert estimate.calls == len(server.requests) == 1
        assert rendered == [server.requests[0].body]
        assert asked == [estimate]
        assert estimate.input_tokens == pytest.approx(result.total.input_tokens, rel=0.10)
        small = {"direct": True, "reduce_budget": 700, "shard_size": 50}
        assert ROWS.amr.plan(lm=lm, plan=small, **case).estimate().shards == 4  # it does not fit one agent


def test_an_agent_s_own_model_is_paid_at_its_own_price():
    with ScriptedServer(provider) as server:
        lm, dear = server.lm(prices=(1.0, 4.0)), server.lm(model="dear", prices=(100.0, 400.0))
        cheap = ROWS.amr.plan(map="What?", reduce="Combine.", lm=lm, **TEXT).estimate()
        mapped = ROWS.amr.plan(map=amr.Agent("What?", lm=dear), reduce="Combine.", lm=lm, **TEXT).estimate()
        both = amr.Agent("Combine.", lm=dear)
        reduced = ROWS.amr.plan(map=amr.Agent("What?", lm=dear), reduce=both, lm=lm, **TEXT).estimate()
    assert cheap.money < 0.5 * mapped.money < mapped.money < reduced.money
    assert reduced.money == pytest.approx(100 * cheap.money)
    assert reduced.calls == cheap.calls


def with_half(request):
    if request.schema == "reduction":
        return {"output": "all in all", "sources": [0]}
    return findings(request, lambda unit: {"gist": "word", "odd": n_of(unit) % 2 == 1})


@pytest.mark.parametrize(
    "case",
    [
        {"plan": {"fan_in": 3, "shard_size": 4, "where": "odd"}},
        {"by": "group", "plan": {"shard_size": 4, "where": "odd"}},
        {"by": "odd", "plan": {"shard_size": 4}},
    ],
    ids=["static where", "by where", "by a found field"],
)
def test_calls_that_depend_on_what_is_found_are_said_to_be_about_so_many(case):
    with ScriptedServer(with_half) as server:
        estimate = ROWS.amr.plan(
            map="What?", reduce="Combine.", finding={"gist": str, "odd": bool}, lm=server.lm(), **case
        ).estimate()
    assert estimate.about
    assert f"about {estimate.calls} calls" in str(estimate)


def test_a_reduce_of_what_the_journal_has_is_in_the_estimate(tmp_path):
    asked: list[amr.Estimate] = []
    budget = amr.Budget(confirm=lambda estimate: asked.append(estimate) or True)
    with ScriptedServer(provider) as server:
        options = {"lm": server.lm(), "budget": budget, "journal": tmp_path / "j.sqlite", "map": "What?", **TEXT}
        ROWS.amr.map_reduce(reduce={"mood": "count"}, **options)
        sent = len(server.requests)
        ROWS.amr.map_reduce(reduce="Combine.", **options)
        assert len(server.requests) == sent + 1
    assert (asked[1].asked, asked[1].calls, asked[1].about) == (0, 1, True)


# Samples that fail


def refusing_odd(request):
    return Status(400, "no") if any(n_of(unit) % 2 for unit in request.units) else provider(request)


def test_a_sample_that_fails_says_so():
    case = {"map": "What?", "reduce": {"mood": "count"}, "columns": ["text"], **TEXT}
    with ScriptedServer(lambda request: Status(400, "no")) as server:
        plan = ROWS.amr.plan(lm=server.lm(), **case)
        with pytest.warns(
            amr.FailureWarning,
            match="5 of the 5 units of the sample failed; the first, row .*400: no.*without a sample",
        ):
            assert plan.estimate(sample=5) == plan.estimate()
        with pytest.raises(amr.MapFailed, match=r"[1-5] of the 5 units of the sample failed") as all_:
            ROWS.amr.plan(lm=server.lm(), errors="raise", **case).estimate(sample=5)
    assert f"{len(all_.value.partial.failures)} of the 5" in str(all_.value)  # first requests go one after the other
    with ScriptedServer(refusing_odd) as server:
        plan = ROWS.amr.plan(lm=server.lm(), **case)
        with pytest.warns(
            amr.FailureWarning, match=r"of the 20 units of the sample failed; .* scaled up from the rest"
        ):
            assert plan.estimate(sample=20).sampled == 20
        with pytest.raises(amr.MapFailed, match="of the sample failed") as some:
            ROWS.amr.plan(lm=server.lm(), errors="raise", **case).estimate(sample=20)
    assert 0 < some.value.partial.findings["mood"].notna().sum() < 20


def test_a_sample_ends_when_the_budget_s_seconds_are_used_up():
    case = {"map": "What?", "reduce": {"mood": "count"}, "columns": ["text"], **TEXT}
    with ScriptedServer(provider, latency_s=30.0) as server:
        plan = ROWS.amr.plan(lm=server.lm(), budget=amr.Budget(seconds=0.5), **case)
        with pytest.raises(amr.BudgetExceeded, match=r"budget of 0\.5 seconds"):
            plan.estimate(sample=5)
