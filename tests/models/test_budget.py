"""Budgets are kept, usage is told, and each phase may have its own model."""

from __future__ import annotations

import functools
import json
from itertools import permutations

import openai
import pandas as pd
import pytest

import pandas_amr as amr
from moments import move_on, never, until
from numbered import number
from pandas_amr._context.prices import price_of
from pandas_amr._records.engine import submit
from pandas_amr._records.usage import Ledger, Usage
from pandas_amr.models.budget import BudgetTracker
from pandas_amr.testing import Call, Raw, ScriptedServer, Status, findings
from versions import once

DF = pd.DataFrame({"text": [f"row {n}" for n in range(100)]})
OPTIONS = {
    "map": "Which?",
    "finding": {"n": int},
    "reduce": {"n": "sum"},
    "plan": {"shard_size": 1},
    "max_parallelism": 4,
}


def provider(request):
    if request.schema == "reduction":
        return {"output": "written", "sources": []}
    if request.schema == "plan":
        return {
            "map_instruction": "Which?",
            "finding": [{"name": "n", "type": "int", "choices": [], "description": ""}],
            "shard_size": 10,
            "parallelism": 2,
            "aggregations": [],
            "reduce_instruction": "Write.",
        }
    return findings(request, number)


@pytest.mark.parametrize(
    ("budget", "spent"),
    [
        (amr.Budget(calls=40), lambda total: total.calls <= 40),
        (amr.Budget(tokens=2000), lambda total: total.tokens <= 2000 + 4 * 150),
        (amr.Budget(money=0.003), lambda total: total.money <= 0.003 + 4 * 0.0003),
    ],
    ids=["calls", "tokens", "money"],
)
def test_a_budget_that_ends_half_way_stops_cleanly_with_what_was_found(budget, spent):
    with ScriptedServer(provider, latency_s=0.002) as server:
        lm = server.lm(prices=(1.0, 10.0))
        result = DF.amr.map_reduce(**OPTIONS, budget=budget, lm=lm)
        assert spent(result.total)
        found = result.findings["n"].notna()
        assert 10 < found.sum() < 100
        assert found.sum() == len(server.requests)
        assert (result.findings["n"].dropna() == [n for n in range(100) if found[n]]).all()
        assert "is used up" in result.stopped
        assert set(result.status["status"]) == {"ok", "skipped"}
        assert result.output is None
        before = len(server.requests)
        rest = result.retry(lm=lm) if budget.calls is None else None
        if rest is not None:
            assert len(server.requests) - before <= 100 - found.sum()


def test_going_on_after_a_budget_pays_only_for_the_rest():
    with ScriptedServer(provider) as server:
        first = DF.amr.map_reduce(**OPTIONS, budget=amr.Budget(calls=60), lm=server.lm())
        assert len(server.requests) == 60
        second = first.retry()
        assert len(server.requests) == 100
    assert second.output["n"] == sum(range(100))


def test_errors_raise_raises_with_the_usage_and_the_partial_result():
    with ScriptedServer(provider) as server, pytest.raises(amr.BudgetExceeded, match="10 calls is used up") as caught:
        DF.amr.map_reduce(**OPTIONS, budget=amr.Budget(calls=10), errors="raise", lm=server.lm())
    assert caught.value.usage.calls == 10
    assert caught.value.partial.findings["n"].notna().sum() == 10


@once
def test_a_deadline_ends_a_run_though_the_server_hangs():
    """Its time passes when twenty answers are in, and as many requests hang as may be under way at once."""

    async def script(request):
        return await never(request) if request.number >= 20 else provider(request)

    with ScriptedServer(script) as server:
        run = DF.amr.start(**OPTIONS, budget=amr.Budget(seconds=200.0), lm=server.lm())
        until(lambda: len(server.requests) == 20 + 4 and run.progress.found == 20)
        move_on(200.0)
        result = run.result()
        assert len(server.requests) == 20 + 4  # had it waited for the answers, more would have been asked
    assert result.findings["n"].notna().sum() == 20
    assert result.stopped == "The budget of 200 seconds is used up."


def test_a_verb_that_gives_a_frame_warns_that_it_stopped():
    with ScriptedServer(provider) as server, pytest.warns(amr.FailureWarning, match="stopped early"):
        found = DF.amr.map(
            "Which?", finding={"n": int}, plan={"shard_size": 1}, budget=amr.Budget(calls=10), lm=server.lm()
        )
    assert found["n"].notna().sum() == 10


def test_a_budget_of_money_needs_prices(refusing):
    with pytest.raises(amr.UsageError, match="those of scripted are not known"):
        DF.amr.map_reduce(**OPTIONS, budget=amr.Budget(money=1), lm=refusing.lm())


@pytest.mark.parametrize("wrong", [{}, {"calls": 0}, {"money": "1"}, {"tokens": True}])
def test_a_budget_that_says_nothing_or_nonsense_is_refused(wrong):
    with pytest.raises(amr.UsageError, match="Budget"):
        amr.Budget(**wrong)


def test_usage_is_told_per_phase_and_model_with_money_where_it_is_known():
    with ScriptedServer(provider) as server:
        result = DF.amr.map_reduce(
            "What is there?",
            lm={
                "plan": server.lm("planner"),
                "map": server.lm("mapper", prices=(1.0, 2.0)),
                "reduce": server.lm("reducer", prices=(1.0, 2.0, 0.1)),
            },
        )
    models = {(request.schema, request.body["model"]) for request in server.requests}
    assert models == {("plan", "planner"), ("findings", "mapper"), ("reduction", "reducer")}
    usage = result.usage
    assert usage["model"].to_dict() == {"plan": "planner", "map": "mapper", "reduce": "reducer"}
    mapped = usage.loc["map"]
    assert mapped["money"] == pytest.approx((mapped["input_tokens"] + 2 * mapped["output_tokens"]) / 1e6)
    assert pd.isna(usage.loc["plan", "money"])
    assert result.total.money is None
    assert usage[["calls", "tries"]].sum().tolist() == [len(server.requests)] * 2
    assert result.trace["money"].notna().sum() == len(result.trace) - 1


def test_phases_that_are_not_named_use_the_maps_model():
    with ScriptedServer(provider) as server:
        DF.head(4).amr.map_reduce(map="Which?", finding={"n": int}, reduce="Write.", lm={"map": server.lm("one")})
        assert {request.body["model"] for request in server.requests} == {"one"}


@pytest.mark.parametrize("wrong", [{}, {"maps": "x"}, {"map": 5}])
def test_a_wrong_dict_of_models_is_refused(wrong, refusing):
    with pytest.raises(amr.UsageError, match="lm="):
        DF.amr.map("Which?", lm=wrong)


def test_a_client_of_ones_own_serves(monkeypatch):
    with ScriptedServer(provider) as server:
        for make in (openai.AsyncOpenAI, _azure):
            client = make(api_key="mine", base_url=server.base_url, max_retries=5)
            frame = DF.head(3).amr.map("Which?", finding={"n": int}, lm=amr.LM("theirs", client=client))
            assert frame["n"].tolist() == [0, 1, 2]
            assert server.requests[-1].body["model"] == "theirs"
            submit(client.close()).result()  # a client of one's own is one's own to close, where it was used
        with pytest.raises(amr.UsageError, match="does not say which model"):
            DF.amr.map("Which?", lm=openai.AsyncOpenAI(api_key="mine", base_url=server.base_url))
        monkeypatch.setenv("AMR_MODEL", "from-the-environment")
        client = openai.AsyncOpenAI(api_key="mine", base_url=server.base_url)
        DF.head(1).amr.map("Which?", finding={"n": int}, lm=client)
        submit(client.close()).result()
        assert server.requests[-1].body["model"] == "from-the-environment"


def _azure(**options):
    return openai.AsyncAzureOpenAI(api_version="2024-10-21", **options)


def test_prices_of_known_models_come_from_the_package_and_unknown_ones_are_none():
    pytest.importorskip("genai_prices")
    usage = Usage(input_tokens=1_000_000, cached_tokens=0, output_tokens=0)
    assert price_of(amr.LM("gpt-4o-mini"))(usage) == pytest.approx(0.15)
    assert price_of(amr.LM("no-such-model"))(usage) is None
    assert price_of(amr.LM("own", prices=(2.0, 8.0, 0.5)))(Usage(input_tokens=10**6, cached_tokens=10**6)) == 0.5


def test_the_stable_part_of_a_prompt_is_cached_by_providers_and_shows_in_the_usage():
    with ScriptedServer(provider) as server:
        result = DF.amr.map_reduce(**OPTIONS, lm=server.lm())
        assert len({request.system for request in server.requests}) == 1
    usage = result.usage.loc["map"]
    assert 0.5 * usage["input_tokens"] < usage["cached_tokens"] < usage["input_tokens"]


def test_usage_adds_and_unknown_money_stays_unknown():
    assert (Usage(calls=1, money=0.5) + Usage(calls=2, money=0.25)).money == 0.75
    assert (Usage(money=0.5) + Usage(money=None)).money is None


@once
def test_a_planner_that_takes_too_long_is_not_waited_for():
    with ScriptedServer(never) as server:
        run = DF.amr.start("How are they?", budget=amr.Budget(seconds=200.0), lm=server.lm())
        until(lambda: server.requests)
        move_on(200.0)
        with pytest.raises(amr.BudgetExceeded, match="budget of 200 seconds"):
            run.result()
        assert [request.schema for request in server.requests] == ["plan"]


# -- whatever is told, no budget is overshot by more than one answer for each request in flight ----------------------

LARGE = {"prompt_tokens": 150, "completion_tokens": 2000, "total_tokens": 2150}
SMALL = {"prompt_tokens": 150, "completion_tokens": 5, "total_tokens": 155}
USAGES = {
    "as it is": ...,
    "null": None,
    "empty": {},
    "a list": [],
    "a text": "many",
    "nulls": {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None},
    "zeros": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    "negative": {"prompt_tokens": -150, "completion_tokens": -5, "total_tokens": -155},
    "texts": {"prompt_tokens": "150", "completion_tokens": "5", "total_tokens": "155"},
    "bools": {"prompt_tokens": True, "completion_tokens": True},
    "prompt alone": {"prompt_tokens": 150},
    "answer alone": {"completion_tokens": 5},
    "total alone": {"total_tokens": 155},
    "total below": {"prompt_tokens": 150, "completion_tokens": 5, "total_tokens": 1},
    "reasoning outside": {"prompt_tokens": 150, "completion_tokens": 5, "total_tokens": 900},
    "cached above": SMALL | {"prompt_tokens_details": {"cached_tokens": 9000}},
    "large": LARGE,
    "large from the fifth on": [SMALL] * 4 + [LARGE] * 500,
    "large now and then": [LARGE if n % 5 == 3 else SMALL for n in range(500)],
}
ANSWERS = 12  # that a budget is for
IN_FLIGHT = [1, 3, 16]
# Each kind of budget and each number in flight; money follows from the tokens, and calls from no usage at all.
WAYS = [("tokens", 1), ("tokens", 16), ("money", 3), ("calls", 16)]
PRICES = {"prices": (1.0, 1.0)}


def telling(usage):
    """A script whose right answers tell their tokens so; of a list of usages each in its turn."""

    def script(request):
        one = usage[request.number] if isinstance(usage, list) and usage else usage
        return Raw(json.dumps(findings(request, number)), usage=one)

    return script


@functools.cache
def without_budget(usage: str) -> tuple[int, int]:
    """What an answer takes at most, and what so many take, as a run tells it; their prompts are as long as each other."""
    with ScriptedServer(telling(USAGES[usage])) as server:
        tokens = DF.head(ANSWERS).amr.map_reduce(**OPTIONS, lm=server.lm(**PRICES)).total.tokens
    largest = LARGE["total_tokens"] if usage.startswith("large") else 2 * tokens // ANSWERS
    return largest, tokens


def budget_of(kind: str, tokens: int) -> amr.Budget:
    return {
        "calls": amr.Budget(calls=ANSWERS),
        "tokens": amr.Budget(tokens=tokens),
        "money": amr.Budget(money=tokens / 1e6),
    }[kind]


def is_kept(budget: amr.Budget, total: Usage, *, largest: int, at_once: int) -> None:
    """Whether no more was spent than the budget and one answer for each request in flight."""
    if budget.calls is not None:
        assert budget.calls - at_once <= total.calls <= budget.calls + at_once
        return
    tokens = budget.tokens if budget.tokens is not None else round(budget.money * 1e6)
    assert total.money == pytest.approx(total.tokens / 1e6)
    assert total.tokens <= tokens + at_once * largest
    assert total.tokens >= tokens / 3  # and it is there to be spent


@once
@pytest.mark.parametrize(("kind", "at_once"), WAYS)
@pytest.mark.parametrize("usage", USAGES)
@pytest.mark.sampled(7)
def test_a_budget_is_not_overshot_by_more_than_an_answer_for_each_request_in_flight(usage, kind, at_once):
    script = telling(USAGES[usage])
    largest, tokens = without_budget(usage)
    budget = budget_of(kind, tokens)
    with ScriptedServer(script, latency_s=0.002) as server:
        options = OPTIONS | {"max_parallelism": at_once}
        result = DF.amr.map_reduce(**options, budget=budget, lm=server.lm(**PRICES))
        assert result.total.calls == result.total.tries == len(server.requests) < len(DF)
    assert result.stopped is not None
    assert result.findings["n"].notna().sum() == len(server.requests)
    is_kept(budget, result.total, largest=largest, at_once=at_once)


def odd(request):
    return request.number % 3 == 1


def refused(request):
    return Raw(refusal="I cannot help with that.") if odd(request) else findings(request, number)


def filtered(request):
    return Raw("", finish_reason="content_filter") if odd(request) else findings(request, number)


def without_message(request):
    body = {"choices": [], "usage": SMALL}
    return Raw(body=json.dumps(body)) if odd(request) else findings(request, number)


def unreadable(request):
    return Raw(body="<html>") if odd(request) else findings(request, number)


def repaired(request):
    return findings(request, number) if request.repairs else {"findings": []}


def cut_off(request):
    return Raw('{"findings": [{"unit": 0', finish_reason="length") if odd(request) else findings(request, number)


def with_a_tool(request):
    if odd(request):
        return Call("lookup", {"key": "x"})
    return {"findings": [{"unit": unit["unit"], **number(unit)} for unit in request.units]}


@amr.tool
def lookup(key: str) -> str:
    """Look a key up."""
    return key


FATES = {
    function.__name__: function
    for function in (refused, filtered, without_message, unreadable, repaired, cut_off, with_a_tool)
}


@once
@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
@pytest.mark.parametrize(("kind", "at_once"), WAYS)
@pytest.mark.parametrize("fate", FATES)
@pytest.mark.sampled(4)
def test_a_budget_counts_answers_of_no_use_too(fate, kind, at_once):
    """Whatever comes of an answer, it is paid for; what is sent once the budget is used up is nothing."""
    script = FATES[fate]
    options = OPTIONS | {"max_parallelism": at_once, "tools": [lookup] if fate == "with_a_tool" else []}
    budget = budget_of(kind, ANSWERS * 160)
    with ScriptedServer(script, latency_s=0.002) as server:
        result = DF.amr.map_reduce(**options, budget=budget, lm=server.lm(**PRICES))
        assert result.total.calls == result.total.tries == len(server.requests)
    assert result.stopped is not None
    is_kept(budget, result.total, largest=500, at_once=at_once)


@once
@pytest.mark.parametrize("at_once", IN_FLIGHT)
@pytest.mark.parametrize("kind", ["tokens", "money"])
def test_a_budget_is_not_overshot_at_all_where_the_size_of_an_answer_is_bounded(kind, at_once):
    script = telling([SMALL, SMALL, SMALL, LARGE] * 100)
    budget = budget_of(kind, 4 * sum([155, 155, 155, 2150]))
    with ScriptedServer(script, latency_s=0.002) as server:
        result = DF.amr.map_reduce(
            **(OPTIONS | {"max_parallelism": at_once}), budget=budget, lm=server.lm(max_output_tokens=2000, **PRICES)
        )
    assert result.stopped is not None
    is_kept(budget, result.total, largest=0, at_once=at_once)


@pytest.mark.parametrize("order", [*permutations((0.1, 0.2, 0.3))])
def test_a_request_that_fits_exactly_waits_for_nobody_once_none_is_in_flight(order):
    """Sums of money are rounded: taken apart in another order they leave 5e-17, or lack it."""
    tracker = BudgetTracker(amr.Budget(money=0.6), Ledger())
    for money in (0.1, 0.2, 0.3):
        is_admitted(tracker.reserve(Usage(calls=1, money=money)))
    for money in order:
        tracker.settle(Usage(calls=1, money=money))
    assert is_admitted(tracker.reserve(Usage(calls=1, money=0.6)))


def is_admitted(reserving):
    """Whether it is over without a wait."""
    with pytest.raises(StopIteration):
        reserving.send(None)
    return True


@once
@pytest.mark.parametrize("kind", ["calls", "tokens", "money"])
def test_a_budget_is_not_spent_on_answers_of_429(kind):
    """They cost nothing: what the budget is for is found in full."""
    budget = budget_of(kind, 10**6)

    def busy(request):
        return Status(429, "slow down", headers={"retry-after-ms": "1"}) if odd(request) else findings(request, number)

    with ScriptedServer(busy) as server:
        result = DF.head(ANSWERS).amr.map_reduce(**OPTIONS, budget=budget, lm=server.lm(rpm=60_000, **PRICES))
    assert result.stopped is None
    assert result.findings["n"].notna().all()
    assert result.total.calls == ANSWERS < result.total.tries == len(server.requests)


@pytest.mark.parametrize("limit", [0, -1, float("nan"), True, "5"])
def test_a_budget_is_a_number_above_nothing(limit):
    with pytest.raises(amr.UsageError, match=r"Budget\(money=...\) takes a number above 0"):
        amr.Budget(money=limit)


@pytest.mark.parametrize("prices", [5, (1,), "12", (1, "2"), (1, -2), (1, float("nan")), [1, 2, 3, 4], (True, 1)])
def test_prices_are_two_or_three_amounts_of_money(prices):
    with pytest.raises(amr.UsageError, match=r"LM\(prices=...\) takes \(input, output\)"):
        amr.LM("m", prices=prices)


def test_prices_in_a_list_are_those_in_a_tuple():
    assert amr.LM("m", prices=[1, 2.5]) == amr.LM("m", prices=(1, 2.5))
