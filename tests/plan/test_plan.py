"""The plan: derived by one call, completed by defaults, and never against what the user gave."""

from __future__ import annotations

import datetime
import json
import warnings
from decimal import Decimal
from typing import Any, Literal

import pandas as pd
import pytest
from pydantic import BaseModel, Field

import pandas_amr as amr
from pandas_amr._types.from_schema import type_from_schema
from pandas_amr._types.schema import json_schema
from pandas_amr.models.base import Abilities
from pandas_amr.testing import Raw, ScriptedServer, Status, findings

DF = pd.DataFrame({"text": [f"row {n}" for n in range(40)], "mood": ["x"] * 40})

PLANNED = {
    "map_instruction": "Say the number and the mood.",
    "finding": [
        {"name": "n", "type": "int", "choices": [], "description": "the number"},
        {"name": "mood", "type": "str", "choices": ["good", "bad"], "description": ""},
    ],
    "shard_size": 7,
    "parallelism": 3,
    "aggregations": [{"field": "n", "function": "sum"}, {"field": "n", "function": "max"}],
    "reduce_instruction": "Describe them.",
}


def planner(answer: Any = PLANNED, *, find=lambda unit: {"n": int(unit["text"].split()[1]), "mood_found": "good"}):
    def provider(request):
        match request.schema:
            case "plan":
                return answer
            case "findings" | "finding":
                return findings(request, find)
            case "reduction":
                return {"output": "all in all", "sources": [0]}

    return provider


def test_one_call_derives_what_is_missing_and_the_run_follows_it():
    with ScriptedServer(planner()) as server:
        result = DF.amr.map_reduce("How are they?", lm=server.lm())
    kinds = [request.schema for request in server.requests]
    assert kinds.count("plan") == 1
    assert kinds.count("findings") == 6  # 40 rows by 7
    assert server.max_in_flight <= 3
    assert result.plan.made_by == "planner"
    assert result.output == "all in all"
    final = server.requests[-1]
    assert "n: {'sum': 780, 'max': 39}" in final.user
    assert result.trace.iloc[0][["id", "type", "level"]].tolist() == ["plan", "plan", -1]


def test_a_planned_finding_never_hides_a_column():
    with ScriptedServer(planner()) as server:
        plan = DF.amr.plan("How are they?", lm=server.lm())
    assert list(plan.finding.model_fields) == ["n", "mood_found"]


@pytest.mark.parametrize(
    "given",
    [
        {"map": "My words."},
        {"finding": {"size": int}},
        {"map": "My words.", "finding": {"size": int}},
        {"reduce": "My reduction."},
        {"reduce": {"text": "count"}},
        {"plan": {"shard_size": 11, "parallelism": 2}},
        {"plan": {"map_instruction": "My words.", "fan_in": 3}},
        {"output": bool},
        {"max_parallelism": 6},
    ],
)
@pytest.mark.sampled(4)
def test_what_the_user_gave_stands_word_for_word_and_the_planner_sees_it(given):
    fits = PLANNED | ({"aggregations": []} if given.keys() & {"map", "finding"} else {})  # its own fields are not there
    with ScriptedServer(planner(fits)) as server:
        plan = DF.amr.plan("How are they?", lm=server.lm(), **given)
    words = {"map": "map_instruction", "reduce": "reduce_instruction", "max_parallelism": None}
    fixed = given.get("plan", {name: value for name, value in given.items() if name != "plan"})
    for name, value in fixed.items():
        field = words.get(name, name)
        if field == "finding":
            assert list(plan.finding.model_fields) == list(value)
        elif field and not isinstance(value, dict):
            assert getattr(plan, field) == value
            assert json.dumps(value if not isinstance(value, type) else json_schema(value)) in server.requests[0].user
    if given.get("reduce") == {"text": "count"}:
        assert plan.aggregations == {"text": "count"}
        assert plan.reduce_instruction is None


def test_nothing_left_open_asks_no_planner():
    with ScriptedServer(planner()) as server:
        DF.amr.plan("How?", map="Read.", finding={"n": int}, reduce={"n": "sum"}, lm=server.lm())
        assert server.requests == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Raw("I cannot plan."), "could not be used"),
        (PLANNED | {"finding": []}, "could not be used.*finding"),
        (PLANNED | {"shard_size": 0}, "shard_size: Input should be greater"),
        (Status(400, "no plans today"), "no plans today"),
    ],
)
def test_where_the_planner_fails_no_row_is_sent_and_the_error_says_why_and_what_to_pass(answer, reason):
    with ScriptedServer(planner(answer, find=lambda unit: {"finding": "x"})) as server:
        with pytest.raises(amr.PlanError, match=reason) as caught:
            DF.amr.map_reduce("How are they?", lm=server.lm())
        assert {request.schema for request in server.requests} == {"plan"}
    assert 'df.amr.map_reduce(map="...", finding={...}, reduce={...}, lm=...)' in str(caught.value)


def test_an_unusable_planners_answer_is_sent_back_once_with_the_reason():
    answers = iter([PLANNED | {"shard_size": 0}, PLANNED])
    with ScriptedServer(lambda request: next(answers)) as server:
        plan = DF.amr.plan("How are they?", lm=server.lm())
    assert plan.made_by == "planner"
    assert "shard_size: Input should be greater than or equal to 1" in server.requests[1].user


def test_a_model_that_cannot_plan_gets_defaults_that_it_can_follow():
    """One unit a request, no tools; where no reduce was asked, pandas does what the types allow."""
    small = Abilities(tools=False, planning=False, units_per_request=1, context_window=4096)

    @amr.tool
    def look(x: int) -> int:
        """Look."""
        return x

    with ScriptedServer(planner(find=lambda unit: {"mood_found": "good", "score": 2.5})) as server:
        lm = server.lm(abilities=small)
        plan = DF.amr.plan(map="How are they?", finding={"mood_found": ["good", "bad"], "score": float}, lm=lm)
        with pytest.raises(amr.UsageError, match="calls no tools"):
            DF.amr.map_reduce(plan=plan, tools=[look], lm=lm)
        assert server.requests == []
        result = DF.amr.map_reduce(plan=plan, lm=lm)
    assert {request.schema for request in server.requests} == {"finding"}
    assert len(server.requests) == 40
    assert result.plan.shard_size == 1
    assert result.plan.made_by == "user"
    assert result.plan.aggregations == {"mood_found": "value_counts", "score": "mean"}
    assert result.output["score"] == 2.5
    first = next(request for request in server.requests if '"row 0"' in request.user)
    assert first.body["messages"] == [
        {"role": "system", "content": "How are they?"},
        {"role": "user", "content": '{"unit": 0, "text": "row 0", "mood": "x"}'},
    ]


def test_a_plan_never_asks_a_model_for_more_units_than_it_can_tell_apart(refusing):
    with pytest.raises(amr.PlanError, match="1 unit per request"):
        DF.amr.map("Read.", plan={"shard_size": 5}, lm=refusing.lm(abilities=Abilities(units_per_request=1)))


class Detail(BaseModel):
    where: str
    how_many: int = Field(ge=0, le=9)


class Everything(BaseModel):
    yes: bool
    count: int = Field(gt=0, description="how many")
    share: float
    text: str | None
    day: datetime.date
    moment: datetime.datetime
    price: Decimal
    kind: Literal["a", "b"]
    tags: list[str]
    details: list[Detail]
    extra: dict[str, int]


@pytest.mark.parametrize(
    "kind", [str, int, float, bool, list[str], Literal["a", "b"], Detail, Everything, list[Everything], str | None]
)
def test_a_type_is_found_again_in_its_schema(kind):
    schema = json_schema(kind)
    assert json_schema(type_from_schema(json.loads(json.dumps(schema)))) == schema


def test_a_plan_survives_its_json_in_a_file(tmp_path):
    plan = amr.Plan(
        map_instruction="Read.",
        finding=Everything,
        reduce_instruction="Combine.",
        output=list[Detail],
        shard_size=3,
        fan_in=2,
    )
    plan.to_json(tmp_path / "plan.json")
    again = amr.Plan(**json.loads((tmp_path / "plan.json").read_text()))
    assert again.to_json() == plan.to_json()
    assert json_schema(again.finding) == json_schema(Everything)


def test_a_plan_its_json_its_path_and_its_fields_mean_the_same(tmp_path):
    made = amr.Plan(map_instruction="Read.", finding={"n": int}, aggregations={"n": "sum"}, shard_size=8)
    path = tmp_path / "plan.json"
    made.to_json(path)
    outputs = []
    for plan in (made, made.to_json(), path, str(path), made.fixed()):
        with ScriptedServer(lambda r: findings(r, lambda u: {"n": int(u["text"].split()[1])})) as server:
            outputs.append(DF.amr.map_reduce(plan=plan, lm=server.lm()).output["n"])
            assert len(server.requests) == 5
    assert outputs == [780] * 5


def test_a_plan_that_ran_runs_again_with_no_planning_call():
    with ScriptedServer(planner()) as server:
        first = DF.amr.map_reduce("How are they?", lm=server.lm())
    with ScriptedServer(planner()) as server:
        second = DF.amr.map_reduce(plan=first.plan.to_json(), lm=server.lm())
        assert "plan" not in {request.schema for request in server.requests}
    assert second.output == first.output
    pd.testing.assert_frame_equal(second.frame, first.frame)


def test_a_plan_is_frozen_and_replace_checks():
    plan = amr.Plan(shard_size=5)
    with pytest.raises(ValueError, match="frozen"):
        plan.shard_size = 6
    assert plan.replace(shard_size=6).shard_size == 6
    with pytest.raises(amr.PlanError, match="shard_size"):
        plan.replace(shard_size=-1)


def test_the_repr_of_a_plan_shows_what_it_does_and_what_it_would_take():
    with ScriptedServer(planner()) as server:
        shown = repr(DF.amr.plan("How are they?", plan={"fan_in": 5}, lm=server.lm()))
    assert "finding: Finding(n: int | None, mood_found: Optional[Literal['good', 'bad']])" in shown
    assert "40 units in 6 shards: 8 calls" in shown
    assert "reduced 6 -> 2 -> 1" in shown


@pytest.mark.parametrize(("rows", "size", "fan_in"), [(1, 1, 2), (9, 1, 3), (26, 1, 5), (40, 7, 2), (40, 3, 4)])
@pytest.mark.sampled(3)
def test_the_estimate_of_a_static_tree_is_exact_in_calls(rows, size, fan_in):
    frame = DF.head(rows)
    options: dict[str, Any] = {"map": "Read.", "reduce": "Combine.", "plan": {"shard_size": size, "fan_in": fan_in}}
    with ScriptedServer(planner(find=lambda unit: {"finding": "x"})) as server:
        estimate = frame.amr.plan(lm=server.lm(), **options).estimate()
        assert server.requests == []
        frame.amr.map_reduce(lm=server.lm(), **options)
        assert len(server.requests) == estimate.calls


def test_no_warning_where_the_user_said_all():
    with ScriptedServer(planner(find=lambda unit: {"finding": "x"})) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        DF.amr.map("Read.", lm=server.lm())
