"""Every paid answer is in the ledger, and every budget holds, whatever a server tells of usage."""

from __future__ import annotations

import json

import pandas as pd
import pytest

import pandas_amr as amr
from numbered import number
from pandas_amr.testing import Call, Raw, ScriptedServer, Status, findings
from versions import once

pytestmark = [once, pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")]

DF = pd.DataFrame({"text": [f"row {n}" for n in range(24)]})
OPTIONS = {"map": "Which?", "finding": {"n": int}, "reduce": {"n": "count"}, "max_parallelism": 3}


def told(request, usage):
    """A right answer that tells its tokens so."""
    return Raw(json.dumps(findings(request, number)), usage=usage)


def refused(request):
    return Raw(refusal="I cannot help with that.") if request.units[0]["text"] == "row 3" else findings(request, number)


def filtered(request):
    if any(unit["text"] == "row 3" for unit in request.units):
        return Raw("", finish_reason="content_filter")
    return findings(request, number)


def repaired(request):
    return findings(request, number) if request.repairs else {"findings": []}


def halved(request):
    return findings(request, number) if len(request.units) < 3 else Raw("I think so.")


def cut_off(request):
    text = json.dumps(findings(request, number))
    return (
        Raw(text[: len(text) // 2], finish_reason="length") if len(request.messages) < 3 else findings(request, number)
    )


def without_message(request):
    body = {"choices": [], "usage": {"prompt_tokens": 50, "completion_tokens": 5, "total_tokens": 55}}
    return Raw(body=json.dumps(body)) if request.number % 2 == 0 else findings(request, number)


@pytest.mark.parametrize("script", [refused, filtered, repaired, halved, cut_off])
@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.sampled(3)
def test_what_is_told_is_the_server_s_own_count(script, size):
    with ScriptedServer(script) as server:
        result = DF.amr.map_reduce(**OPTIONS, plan={"shard_size": size}, lm=server.lm(prices=(1.0, 1.0)))
        answered = len(server.requests)
    assert (result.total.calls, result.total.tries) == (answered, answered)
    assert result.total.tokens == server.tokens
    assert result.total.money == pytest.approx(server.tokens / 1e6)
    assert result.total.estimated == 0


def test_an_answer_without_a_message_is_paid_for_and_counted_though_it_is_asked_again():
    with ScriptedServer(without_message) as server:
        result = DF.head(2).amr.map_reduce(**(OPTIONS | {"max_parallelism": 1}), plan={"shard_size": 1}, lm=server.lm())
    assert (result.total.calls, result.total.tries, len(server.requests)) == (4, 4, 4)
    assert result.total.tokens == server.tokens + 2 * 55


def test_repairs_of_a_reduce_and_a_plan_that_comes_to_nothing_are_counted():
    def script(request):
        if request.schema in {"reduction", "plan"}:
            return Raw("no JSON")
        return findings(request, number)

    with ScriptedServer(script) as server:
        result = DF.amr.map_reduce(map="Which?", finding={"n": int}, reduce="Write.", lm=server.lm())
        assert (result.total.calls, result.total.tokens) == (len(server.requests), server.tokens)
    with ScriptedServer(script) as server, pytest.raises(amr.PlanError) as stopped:
        DF.amr.map_reduce("Which?", lm=server.lm())
    assert (stopped.value.partial.total.calls, stopped.value.partial.total.tokens) == (2, server.tokens)


def test_what_code_asks_is_counted(sandboxed):
    def script(request):
        if "python_repl" in request.tools:
            code = "submit(pd.DataFrame({'unit': range(len(df)), 'n': ask(df['text'], 'n?', {'n': int})['n']}))"
            return Call("python_repl", {"code": code})
        return findings(request, lambda unit: {"n": 1})

    with ScriptedServer(script) as server:
        result = DF.amr.map_reduce(**OPTIONS, tools=[amr.PythonREPLTool()], lm=server.lm())
    assert result.output["n"] == len(DF)
    assert (result.total.calls, result.total.tokens) == (len(server.requests), server.tokens)


def test_a_rung_that_a_server_refuses_is_a_request_too():
    def script(request):
        if request.body.get("response_format", {}).get("type") == "json_schema":
            return Status(400, "response_format json_schema is not supported")
        units = request.units
        return {"findings": [{"unit": unit["unit"], **number(unit)} for unit in units]}

    with ScriptedServer(script) as server:
        result = DF.amr.map_reduce(**OPTIONS, plan={"shard_size": 24}, lm=server.lm())
    assert (result.total.calls, result.total.tries) == (1, 2)
    assert result.total.tokens == server.tokens


UNKNOWN = [
    None,
    {},
    [],
    "many",
    {"prompt_tokens": None, "completion_tokens": None},
    {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    {"prompt_tokens": -5, "completion_tokens": -5},
    {"prompt_tokens": "120", "completion_tokens": "7"},
    {"prompt_tokens": True, "completion_tokens": False},
    {"prompt_tokens": 12.5, "completion_tokens": float(7)},
    {"completion_tokens": 7},
    {"prompt_tokens": 120},
    {"prompt_tokens": 2**63, "completion_tokens": 2**63, "total_tokens": 2**64},
    {"prompt_tokens": 10**400, "completion_tokens": 10**400, "total_tokens": 10**400},
]


@pytest.mark.parametrize("usage", UNKNOWN, ids=range(len(UNKNOWN)))
@pytest.mark.sampled(4)
def test_what_is_not_told_is_unknown_and_estimated_and_never_0(usage):
    with ScriptedServer(lambda request: told(request, usage)) as server:
        result = DF.amr.map_reduce(**OPTIONS, plan={"shard_size": 1}, lm=server.lm(prices=(1.0, 1.0)))
    total = result.total
    assert total.estimated == total.calls == len(DF)
    assert result.usage["estimated"].sum() == len(DF)
    assert min(total.input_tokens, total.output_tokens) >= len(DF)
    assert total.money > 0


def test_one_absurd_count_does_not_change_what_later_answers_are_estimated_at():
    def script(request):
        return told(request, {"prompt_tokens": 90_000_000, "completion_tokens": 7} if request.number == 0 else None)

    with ScriptedServer(script) as server:
        lm = server.lm("tells absurd counts")
        DF.head(1).amr.map_reduce(**OPTIONS, lm=lm)
        result = DF.head(1).amr.map_reduce(**OPTIONS, lm=lm)
        characters = sum(len(message["content"]) for message in server.requests[-1].messages)
    assert result.total.estimated == 1
    assert result.total.input_tokens < 10 * characters


def test_a_part_that_is_told_is_believed():
    with ScriptedServer(lambda request: told(request, {"prompt_tokens": 120, "total_tokens": 127})) as server:
        result = DF.head(1).amr.map_reduce(**OPTIONS, lm=server.lm())
    assert (result.total.input_tokens, result.total.output_tokens) == (120, 7)


@pytest.mark.parametrize(
    ("usage", "output", "reasoning"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 45}, 35, 30),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 45,
                "completion_tokens_details": {"reasoning_tokens": 30},
            },
            35,
            30,
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 35,
                "total_tokens": 45,
                "completion_tokens_details": {"reasoning_tokens": 30},
            },
            35,
            30,
        ),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 3}, 5, 0),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": None}, 5, 0),
    ],
)
def test_reasoning_that_is_counted_outside_of_the_answer_is_paid_for(usage, output, reasoning):
    with ScriptedServer(lambda request: told(request, usage)) as server:
        total = DF.head(1).amr.map_reduce(**OPTIONS, lm=server.lm()).total
    assert (total.input_tokens, total.output_tokens, total.reasoning_tokens, total.estimated) == (
        10,
        output,
        reasoning,
        0,
    )


def test_more_cached_tokens_than_there_are_tokens_cost_no_less_than_nothing():
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 400}}
    with ScriptedServer(lambda request: told(request, usage)) as server:
        total = DF.head(1).amr.map_reduce(**OPTIONS, lm=server.lm(prices=(2.0, 2.0, 1.0))).total
    assert (total.cached_tokens, total.money) == (10, pytest.approx(20 / 1e6))


CACHED = {
    "OpenAI": {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 80}},
    "DeepSeek": {"prompt_tokens": 100, "completion_tokens": 10, "prompt_cache_hit_tokens": 80},
    "Moonshot": {"prompt_tokens": 100, "completion_tokens": 10, "cached_tokens": 80},
    "Anthropic": {
        "input_tokens": 15,
        "output_tokens": 10,
        "cache_read_input_tokens": 80,
        "cache_creation_input_tokens": 5,
    },
    "the Responses API": {"input_tokens": 100, "output_tokens": 10, "input_tokens_details": {"cached_tokens": 80}},
    "a gateway, under both names": {
        "prompt_tokens": 0,
        "completion_tokens": 10,
        "input_tokens": 100,
        "prompt_tokens_details": {"cached_tokens": 80},
    },
}


@pytest.mark.parametrize("usage", CACHED.values(), ids=CACHED.keys())
def test_cached_tokens_are_counted_wherever_a_server_tells_them(usage):
    with ScriptedServer(lambda request: told(request, usage)) as server:
        total = DF.head(1).amr.map_reduce(**OPTIONS, lm=server.lm(prices=(10.0, 20.0, 1.0))).total
    counted = (total.input_tokens, total.cached_tokens, total.output_tokens, total.estimated)
    assert counted == (100, 80, 10, 0)
    assert total.money == pytest.approx((20 * 10 + 80 * 1 + 10 * 20) / 1e6)


COSTS = {
    "OpenRouter": ({"cost": 0.00123}, 0.00123),
    "Perplexity": ({"cost": {"input_tokens_cost": 0.001, "total_cost": 0.006}}, 0.006),
    "xAI": ({"cost_in_usd_ticks": 318_319_000}, 0.0318319),
    "the fee for a key of the user's own": ({"cost": 0.0001, "is_byok": True}, None),
    "nothing": ({"cost": 0}, None),
    "less than nothing": ({"cost": -1.5}, None),
    "no number": ({"cost": "NaN"}, None),
    "no truth": ({"cost": True}, None),
    "more than anything costs": ({"cost": 10**400}, None),
    "endless": ({"cost_in_usd_ticks": float("inf")}, None),
}


@pytest.mark.parametrize(("cost", "money"), COSTS.values(), ids=COSTS.keys())
def test_the_money_that_an_answer_states_is_its_price(cost, money):
    usage = {"prompt_tokens": 100, "completion_tokens": 10} | cost
    with ScriptedServer(lambda request: told(request, usage)) as server:
        total = DF.head(1).amr.map_reduce(**OPTIONS, lm=server.lm("a model that nobody knows")).total
    assert (total.money, total.billed) == (money, int(money is not None))


BUDGETS = [amr.Budget(calls=7), amr.Budget(tokens=600), amr.Budget(money=0.0006)]


@pytest.mark.parametrize("budget", BUDGETS, ids=repr)
@pytest.mark.parametrize(
    "usage",
    [..., None, {"prompt_tokens": 0}, {"prompt_tokens": 200, "completion_tokens": 5, "total_tokens": 300}],
    ids=str,
)
@pytest.mark.sampled(5)
def test_no_budget_is_overshot_by_more_than_one_answer_per_request_in_flight(budget, usage):
    with ScriptedServer(lambda request: told(request, usage), latency_s=0.002) as server:
        result = DF.amr.map_reduce(**OPTIONS, plan={"shard_size": 1}, budget=budget, lm=server.lm(prices=(1.0, 1.0)))
        most = result.total.tokens / result.total.calls * 2
    assert result.stopped is not None
    assert result.total.calls <= (budget.calls or 10**9)
    assert result.total.tokens <= (budget.tokens or 10**9) + 3 * most
    assert result.total.money <= (budget.money or 10**9) + 3 * most / 1e6
    assert len(server.requests) == result.total.calls


def test_where_an_answer_s_size_is_bounded_a_budget_is_not_overshot_at_all():
    """What is in flight is waited for, where only that stands in the way: a run does not stop before its budget."""
    lm_options = {"prices": (1.0, 1.0), "max_output_tokens": 300}
    with ScriptedServer(lambda r: told(r, {"prompt_tokens": 100, "completion_tokens": 20}), latency_s=0.002) as server:
        budget = amr.Budget(tokens=1700)
        result = DF.amr.map_reduce(**OPTIONS, plan={"shard_size": 1}, budget=budget, lm=server.lm(**lm_options))
    assert result.total.tokens <= 1700
    assert result.total.calls >= 10


@pytest.mark.parametrize("budget", [amr.Budget(calls=3), amr.Budget(tokens=500), amr.Budget(money=0.0005)], ids=repr)
def test_answers_that_are_asked_again_are_in_the_budget_too(budget):
    body = {"choices": [], "usage": {"prompt_tokens": 190, "completion_tokens": 10, "total_tokens": 200}}
    with ScriptedServer(lambda request: Raw(body=json.dumps(body))) as server:
        result = DF.head(2).amr.map_reduce(
            **OPTIONS, plan={"shard_size": 1}, budget=budget, lm=server.lm(prices=(1.0, 1.0), max_tries=20)
        )
    assert result.stopped is not None
    assert result.total.calls == len(server.requests) <= 4


def test_an_error_that_a_gateway_sends_as_an_answer_costs_nothing():
    def script(request):
        if request.number == 0:
            return Raw(body=json.dumps({"error": {"message": "no healthy upstream"}}))
        return findings(request, number)

    with ScriptedServer(script) as server:
        total = DF.head(1).amr.map_reduce(**OPTIONS, lm=server.lm()).total
    assert (total.calls, total.tries, total.tokens) == (1, 2, server.tokens)
