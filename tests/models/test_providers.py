"""Every real provider: right rows on the right labels, told usage as the server bills it, requests within a bound.

A bound is what the work takes where nothing has to be learned, and one request for each lesson about the provider
(``Endpoint.lessons``); what its odd answers cost beside is the profile's ``extra``.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import pytest
from pydantic import BaseModel, Field

import pandas_amr as amr
from endpoint import KEY, Endpoint
from pandas_amr.errors import ModelConfigError, SettingWarning
from providers import PROFILES, DeepSeek, Ollama, OpenAI, VLLMWithoutParser
from strict import strict_problem
from versions import once

pytestmark = once

IN_FLIGHT = 2
ROWS = 12
FLAGGED_ROW = 10  # in the last shard: others have succeeded by then
LABELS = [f"label {n % 9}" for n in range(ROWS)]  # some are doubled
TEXTS = [f"row {n}" for n in range(ROWS)]
PATIENCE = amr.Budget(seconds=30.0)  # a run that hangs is stopped, and told from one that ends
GIVEN: dict[str, Any] = {"max_parallelism": IN_FLIGHT, "budget": PATIENCE, "progress": False}


class Found(BaseModel):
    n: int = Field(ge=0)
    parity: Literal["even", "odd"]
    note: str | None = Field(default=None, max_length=80)
    powers: dict[str, int]


class Coded(BaseModel):
    n: int
    code: str = Field(min_length=1)


@amr.tool
def lookup(key: str) -> dict[str, str]:
    """Look the code of a row up."""
    return {"code of": key}


def frame(texts: list[str] = TEXTS) -> pd.DataFrame:
    return pd.DataFrame({"text": texts}, index=LABELS[: len(texts)])


def has_rows(result: amr.Result, rows: range = range(ROWS), but: frozenset[int] = frozenset()) -> None:
    """Whether each row has its own number, and only those in ``but`` have none."""
    assert result.stopped is None
    assert result.frame.index.tolist() == LABELS[: len(rows)]
    found = [None if pd.isna(n) else int(n) for n in result.frame["n"]]
    assert found == [None if n in but else n for n in rows]
    assert len(result.failures) == len(but)


# -- scenarios -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """A call, what must come of it, and the requests that it takes where there is nothing to learn.

    Attributes:
        busy: the requests that are answered 429.
        needs: fixtures.
        flagged: how many of the ideal's requests hold the flagged row.
    """

    run: Callable[[amr.LM], amr.Result]
    check: Callable[[amr.Result, Endpoint], None]
    ideal: int
    busy: tuple[int, ...] = ()
    needs: tuple[str, ...] = ()
    flagged: int = 0


def map_with_a_schema(lm):
    return frame().amr.map_reduce(
        map="Which row?", finding=Found, reduce={"n": "sum"}, plan={"shard_size": 4}, lm=lm, **GIVEN
    )


def is_mapped(result, server):
    has_rows(result)
    assert result.frame["parity"].tolist() == ["even", "odd"] * (ROWS // 2)
    assert result.frame["note"].isna().all()
    assert [dict(powers) for powers in result.frame["powers"]] == [{"second": n**2, "third": n**3} for n in range(ROWS)]
    assert result.output["n"] == sum(range(ROWS))


def agent_with_a_tool(lm):
    options = {"tools": [lookup], "plan": {"shard_size": 4}, "lm": lm}
    return frame().amr.map_reduce(map="Which row, which code?", finding=Coded, reduce={"n": "sum"}, **options, **GIVEN)


def is_looked_up(result, server):
    has_rows(result)
    assert result.frame["code"].tolist() == [f'{{"code of": "row {n}"}}' for n in range(ROWS)]


def agent_with_a_repl(lm):
    options = {"tools": [amr.PythonREPLTool()], "plan": {"shard_size": ROWS}, "lm": lm}
    return frame().amr.map_reduce(map="Which row?", finding={"n": int}, reduce={"n": "sum"}, **options, **GIVEN)


def is_computed(result, server):
    has_rows(result)
    ways = {way.split(", ")[0] for way in result.trace.loc[result.trace["type"] == "map", "form"]}
    assert ways == {"code"}


def reduce_by_an_agent(lm):
    return frame().amr.map_reduce(
        map="Which row?", finding={"n": int}, reduce="Write.", plan={"shard_size": 4}, lm=lm, **GIVEN
    )


def is_written(result, server):
    has_rows(result)
    assert result.output == f"{ROWS} rows, {sum(range(ROWS))} in all"


def planner(lm):
    return frame().amr.map_reduce("What is the sum of the rows' numbers?", lm=lm, **GIVEN)


def is_planned(result, server):
    has_rows(result)
    assert result.output["n"] == sum(range(ROWS))
    assert result.plan.made_by == "planner"


def rate_limit(lm):
    return frame().amr.map_reduce(
        map="Which row?", finding={"n": int}, reduce={"n": "sum"}, plan={"shard_size": 2}, lm=lm, **GIVEN
    )


def is_waited_for(result, server):
    has_rows(result)
    assert server.refused == 1


def refusal_of_a_row(lm):
    texts = [f"{text} is flagged" if n == FLAGGED_ROW else text for n, text in enumerate(TEXTS)]
    options = {"plan": {"shard_size": 4}, "lm": lm}
    return frame(texts).amr.map_reduce(map="Which row?", finding={"n": int}, reduce={"n": "count"}, **options, **GIVEN)


def is_one_row_short(result, server):
    has_rows(result, but=frozenset({FLAGGED_ROW}))
    assert result.failures["position"].tolist() == [FLAGGED_ROW]
    assert "flagged" not in " ".join(result.failures["reason"]).replace("input was flagged", "")


SCENARIOS = {
    "map with a schema": Scenario(map_with_a_schema, is_mapped, ideal=3),
    # each shard: the calls, then the findings
    "agent with a tool": Scenario(agent_with_a_tool, is_looked_up, ideal=6),
    # a look, then the findings
    "agent with a REPL": Scenario(agent_with_a_repl, is_computed, ideal=2, needs=("sandboxed",)),
    "reduce": Scenario(reduce_by_an_agent, is_written, ideal=4),
    "planner": Scenario(planner, is_planned, ideal=4),
    "rate limit": Scenario(rate_limit, is_waited_for, ideal=7, busy=(4,)),
    # of the flagged row's shard two halves and two quarters; after a refusal in words a repair turn for each of the three
    "refusal of a row": Scenario(refusal_of_a_row, is_one_row_short, ideal=3 + 4, flagged=3),
}


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.__name__)
@pytest.mark.sampled(3)
def test_each_provider_gives_the_right_rows_for_what_it_bills_within_a_bound_of_requests(profile, name, request):
    scenario = SCENARIOS[name]
    for fixture in scenario.needs:
        request.getfixturevalue(fixture)
    with profile(busy=scenario.busy) as server, warned_of(profile.omits):
        result = scenario.run(server.lm())
    scenario.check(result, server)
    is_told(result, server)
    is_strict(server)
    repairs = 0 if profile.tells_refusals else scenario.flagged
    assert len(server.requests) <= bound(scenario.ideal + repairs, profile)
    if isinstance(server, Ollama):
        assert server.runaways <= 1  # the first of its kind goes alone


@contextlib.contextmanager
def warned_of(omits: tuple[str, ...]) -> Iterator[None]:
    """Expect a warning of each setting that is left out, and no other."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield
    told = [one for one in said if "The answer rests on" not in str(one.message)]
    assert [one.category for one in told] == [SettingWarning] * len(omits)
    for setting, one in zip(sorted(omits), sorted(str(one.message) for one in told), strict=True):
        assert f"({setting}=" in one


def bound(ideal: int, profile: type[Endpoint]) -> int:
    """The most requests that a run takes: a lesson costs one, since the first request of a kind goes alone."""
    return ideal + profile.extra + profile.lessons


def is_told(result: amr.Result, server: Endpoint) -> None:
    """Whether what is told is what the server has counted."""
    total = result.total
    assert (total.tries, total.calls) == (len(server.requests), server.paid.answers)
    if server.tells_usage:
        assert (total.tokens, total.estimated) == (server.paid.tokens, 0)
    else:
        assert total.estimated == total.calls
        assert total.tokens > 0


def is_strict(server: Endpoint) -> None:
    """Whether every schema that was asked for is one that the strictest server takes."""
    assert [problem for name, schema in server.schemas if (problem := strict_problem(schema, name))] == []


# -- what ends a run -------------------------------------------------------------------------------------------------


def ends(call: Callable[[], Any], server: Endpoint, requests: int = IN_FLIGHT) -> str:
    """What a run says that ends at once: a word about the setting, and no more than the requests under way."""
    with pytest.raises(ModelConfigError) as stopped:
        call()
    assert len(server.requests) <= requests
    assert stopped.value.partial is not None
    assert server.paid.answers == 0
    return str(stopped.value)


@pytest.mark.parametrize("profile", [one for one in PROFILES if one.checks_key], ids=lambda one: one.__name__)
@pytest.mark.sampled(4)
def test_a_bad_key_ends_a_run_at_once_with_a_word_about_the_key_and_not_the_key(profile):
    with profile() as server:
        said = ends(lambda: map_with_a_schema(server.lm(key="another-key-0123456789")), server)
    assert "key" in said
    assert "another-key-0123456789" not in said


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.__name__)
@pytest.mark.sampled(5)
def test_an_unknown_model_ends_a_run_at_once_with_its_name(profile):
    with profile() as server:
        said = ends(lambda: map_with_a_schema(server.lm("no-such-model")), server)
    assert "no-such-model" in said


class WithoutQuota(OpenAI):
    """https://github.com/openai/openai-cookbook/issues/844: 429, and no waiting would help."""

    def fault(self, asked, request):
        said = "You exceeded your current quota, please check your plan and billing details."
        return self.error(429, said, kind="insufficient_quota", code="insufficient_quota")


class WithoutCode(OpenAI):
    """https://github.com/ayaka14732/ChatGPTAPIFree/issues/16: the same, told by its type alone."""

    def fault(self, asked, request):
        said = "You exceeded your current quota, please check your plan and billing details."
        return self.error(429, said, kind="insufficient_quota")


class WithoutBilling(OpenAI):
    """An account that pays no more (observed)."""

    def fault(self, asked, request):
        said = "Your account is not active, please check your billing details on our website."
        return self.error(429, said, kind="billing_not_active", code="billing_not_active")


class WithoutCredit(DeepSeek):
    """An account without money (observed)."""

    def fault(self, asked, request):
        return self.error(402, "Insufficient Balance", kind="unknown_error")


@pytest.mark.parametrize("profile", [WithoutQuota, WithoutCode, WithoutBilling, WithoutCredit])
def test_an_account_that_may_ask_nothing_more_ends_a_run_at_once(profile):
    with profile() as server:
        said = ends(lambda: map_with_a_schema(server.lm()), server)
    assert "quota" in said or "billing" in said


def test_a_server_that_takes_no_calls_is_told_once_and_not_for_each_row():
    """Forced calls it takes, and schemas: a map goes well, an agent with a tool cannot."""
    with VLLMWithoutParser() as server:
        has_rows(map_with_a_schema(server.lm()))
    with VLLMWithoutParser() as server:
        said = ends(lambda: agent_with_a_tool(server.lm()), server, requests=1)
    assert "--enable-auto-tool-choice" in said
    assert "Without tools" in said


# -- too long --------------------------------------------------------------------------------------------------------

SENTENCE = "row {} goes on."
WINDOW = 2000  # tokens: two of the rows below, not four


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.__name__)
@pytest.mark.sampled(3)
def test_a_shard_that_is_too_long_is_halved_whatever_words_a_provider_has_for_it(profile):
    texts = [" ".join([SENTENCE.format(n)] * 160) for n in range(8)]
    with profile(window=WINDOW) as server, warned_of(profile.omits):
        result = frame(texts).amr.map_reduce(
            map="Which row?", finding={"n": int}, reduce={"n": "sum"}, plan={"shard_size": 8}, lm=server.lm(), **GIVEN
        )
    has_rows(result, range(8))
    is_told(result, server)
    assert 6 <= len(server.requests) <= bound(7, profile)  # 8, 2 x 4, 4 x 2


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.__name__)
@pytest.mark.sampled(4)
def test_a_unit_that_is_too_long_alone_is_read_in_pieces_whatever_words_a_provider_has_for_it(profile):
    texts = ["row 0 is short.", " ".join([SENTENCE.format(1)] * 640)]
    with profile(window=WINDOW) as server, warned_of(profile.omits):
        result = frame(texts).amr.map_reduce(
            map="Which row?", finding={"n": int}, reduce={"n": "sum"}, plan={"shard_size": 1}, lm=server.lm(), **GIVEN
        )
    has_rows(result, range(2))
    is_told(result, server)
    # the short one; the long one whole, which teaches how long a piece may be; then its pieces
    assert 4 <= len(server.requests) <= bound(5, profile)


def test_what_profiles_are_checked_by_can_fail():
    """The rules bind: a request that breaks one is refused, by name."""
    with OpenAI() as server:
        assert KEY in server.lm().api_key
    assert strict_problem({"type": "object", "properties": {"a": {"type": "string"}}, "required": []}, "x") is not None
    assert (
        strict_problem({"type": "object", "properties": {}, "required": [], "additionalProperties": False}, "x") is None
    )
