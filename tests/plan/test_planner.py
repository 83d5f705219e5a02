"""From one sentence to a plan, by a planner: ten kinds of task; what is given is never overridden."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import itertools
import json
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import pandas_amr as amr
from examples import examples
from pandas_amr._plan.compute import compute
from pandas_amr._types.schema import json_schema
from pandas_amr.models.base import Abilities
from pandas_amr.testing import ScriptedServer, findings
from planner_answers import answer, computed, field

REVIEWS = pd.DataFrame(
    {
        "shop": ["north", "south", "north", "east"] * 10,
        "stars": [1, 5, 3, 4] * 10,
        "text": [f"review {n}: the parcel was {'late' if n % 3 else 'on time'}" for n in range(40)],
    }
)
INVOICES = pd.DataFrame({"scan": [f"Invoice {n}, total due {n}.50 EUR" for n in range(30)]})
FILES = pd.DataFrame({"path": ["a.py", "b.py"], "content": ["x = open('a')\n", "y = 1\n"]})
PAIRS = pd.DataFrame({"question": ["2+2?"] * 6, "answer": ["4", "5", "4", "4", "3", "4"]})
BOOK = pd.DataFrame({"text": [f"Chapter {n}. She went on." for n in range(12)], "start": range(12)})
TALK = pd.DataFrame({"thread": [1, 1, 2, 2, 2, 1], "said": ["hello", "no", "why", "because", "ah", "yes"]})


KINDS: dict[str, dict[str, Any]] = {
    "classify and count": {
        "frame": REVIEWS,
        "task": "How many reviews complain of delivery, and how many of the product?",
        "answer": answer(
            "Say what is complained of.",
            field("subject", choices=("delivery", "product", "nothing")),
            aggregations=[computed("subject", "value_counts")],
        ),
        "planned": {"aggregations": {"subject": "value_counts"}, "reduce_instruction": None},
    },
    "extract and sum": {
        "frame": INVOICES,
        "task": "What is the total of all invoices?",
        "answer": answer("Read the total due.", field("due", "float"), aggregations=[computed("due", "sum")]),
        "planned": {"finding": ["due"], "aggregations": {"due": "sum"}},
    },
    "summarise by group": {
        "frame": REVIEWS,
        "task": "What do customers say, for each shop?",
        "answer": answer("Say the gist.", field("gist"), by=["shop"], reduce_instruction="Sum it up."),
        "planned": {"by": ("shop",), "reduce_instruction": "Sum it up.", "aggregations": None},
    },
    "find and rank": {
        "frame": REVIEWS,
        "task": "Which are the five angriest reviews?",
        "answer": answer(
            "How angry is it, from 0 to 10?",
            field("anger", "int"),
            ranking={"field": "anger", "most": 5, "lowest_first": False},
        ),
        "planned": {"ranking": amr.Ranking(field="anger", most=5), "reduce_instruction": None},
    },
    "compare columns": {
        "frame": PAIRS,
        "task": "What share of the answers is right?",
        "answer": answer("Is it right?", field("right", "bool"), aggregations=[computed("right", "mean")]),
        "planned": {"finding": ["right"], "aggregations": {"right": "mean"}},
    },
    "profile a table": {
        "frame": REVIEWS,
        "task": "Describe each column.",
        "given": {"axis": "columns"},
        "answer": answer("Describe it.", field("meaning"), reduce_instruction="Describe the table."),
        "planned": {"axis": "columns", "finding": ["meaning"], "reduce_instruction": "Describe the table."},
    },
    "sweep code": {
        "frame": FILES,
        "task": "Find every file that is opened without an encoding.",
        "given": {"columns": ["path", "content"]},
        "answer": answer(
            "Every open() without encoding=.",
            field("line", "int"),
            field("call"),
            many_per_row=True,
            reduce_instruction="List them as file:line.",
        ),
        "planned": {"many": True, "columns": ["path", "content"], "finding": ["line", "call"]},
    },
    "long text": {
        "frame": BOOK,
        "task": "Who meets whom, and when?",
        "answer": answer(
            "Who meets whom here?",
            field("meetings", "list[str]"),
            segmentation="neighbours",
            reduce_instruction="Tell it in order.",
        ),
        "planned": {"segmentation": "neighbours", "keyed": "shard", "dedupe": False},
    },
    "filter then reduce": {
        "frame": REVIEWS,
        "task": "List what the reviews that speak of parcels have in common.",
        "answer": answer(
            "Does it speak of a parcel, and what of it?",
            field("parcel", "bool"),
            field("what"),
            where="parcel",
            reduce_instruction="What have they in common?",
        ),
        "planned": {"where": "parcel", "reduce_instruction": "What have they in common?"},
    },
    "free question": {
        "frame": TALK,
        "task": "What is going on here?",
        "answer": answer(
            "What does this turn do?",
            field("act"),
            segmentation="groups",
            group_columns=["thread"],
            reduce_instruction="What is going on?",
        ),
        "planned": {"segmentation": "groups", "group_columns": ["thread"], "keyed": "shard"},
    },
}


def seen(plan: amr.Plan) -> dict[str, Any]:
    """A plan as the expectations speak of it."""
    many = not isinstance(plan.finding, type)
    model = get_args(plan.finding)[0] if many else plan.finding
    told = {name: getattr(plan, name) for name in type(plan).model_fields}
    return told | {"finding": list(model.model_fields), "many": many, "by": plan.by.keys if plan.by else None}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.sampled(4)
def test_a_planner_s_plan_is_the_expected_one(kind):
    case = KINDS[kind]
    with ScriptedServer(lambda request: case["answer"]) as server:
        plan = case["frame"].amr.plan(case["task"], lm=server.lm(), **case.get("given", {}))
        assert len(server.requests) == 1
    print(f"{kind}: {plan}")  # noqa: T201 (to be read: pytest -s)
    assert {name: seen(plan)[name] for name in case["planned"]} == case["planned"]
    assert plan.made_by == "planner"
    assert case["answer"]["map_instruction"] in repr(plan)


def value_of(schema: dict[str, Any], unit: dict[str, Any]) -> Any:
    """A value that a field of such a schema takes."""
    kinds = [part.get("type") for part in schema.get("anyOf", [schema])]
    if "enum" in schema or any("enum" in part for part in schema.get("anyOf", ())):
        return next(part["enum"] for part in schema.get("anyOf", [schema]) if "enum" in part)[0]
    if "array" in kinds:
        items = schema.get("items") or next(p["items"] for p in schema["anyOf"] if p.get("type") == "array")
        wanted = items.get("properties")
        return [{n: value_of(s, unit) for n, s in wanted.items()}] if wanted else ["x"]
    number = unit["unit"]
    return {"string": f"found {number}", "boolean": number % 2 == 0, "integer": number, "number": number + 0.5}[
        kinds[0]
    ]


def by_type(request: Any) -> Any:
    """Scripted: to each unit a value for each field, by its type; a reduction is a text."""
    if request.schema == "reduction":
        return {"output": "Some of them.", "sources": [0]}
    schema = request.body["response_format"]["json_schema"]["schema"]
    schema = schema if request.schema == "finding" else schema["properties"]["findings"]["items"]
    fields = {name: one for name, one in schema["properties"].items() if name != "unit"}
    return findings(request, lambda unit: {name: value_of(one, unit) for name, one in fields.items()})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.sampled(4)
def test_every_plan_runs_and_its_json_runs_the_same(kind, tmp_path):
    """The plan's JSON in a file repeats the run, with no planning call and nothing said again."""
    case = KINDS[kind]

    def provider(request):
        if request.schema == "plan":
            return case["answer"]
        if request.schema == "reduction":
            return {"output": f"from {len(request.findings)}", "sources": [0]}
        return by_type(request)

    outputs = []
    with ScriptedServer(provider) as server:
        first = case["frame"].amr.map_reduce(case["task"], lm=server.lm(), **case.get("given", {}))
        first.plan.to_json(tmp_path / "plan.json")
        server.requests.clear()
        again = case["frame"].amr.map_reduce(plan=tmp_path / "plan.json", lm=server.lm())
        assert "plan" not in {request.schema for request in server.requests}
        outputs = [first.output, again.output]
    assert again.plan.replace(made_by="user").to_json() == first.plan.replace(made_by="user").to_json()
    assert len(first.failures) == 0
    assert str(outputs[0]) == str(outputs[1])
    assert outputs[0] is not None


def test_only_rows_that_count_are_reduced_and_ranked_rows_come_whole_and_in_order():
    def provider(request):
        if request.schema == "reduction":
            told = [one["n"] if "n" in one else one["output"] for one in request.findings]
            return {"output": " ".join(told), "sources": list(range(len(told)))}
        return findings(request, lambda unit: {"n": f"n{unit['id']}", "big": unit["id"] > 6, "size": unit["id"] % 5})

    frame = pd.DataFrame({"id": range(10)}, index=[f"label {n}" for n in range(10)])
    kind = {"n": str, "big": bool, "size": int}
    for extra in ({}, {"fan_in": 2, "shard_size": 3}):
        with ScriptedServer(provider) as server:
            plan: dict[str, Any] = {"where": "big", **extra}
            result = frame.amr.map_reduce(map="x", finding=kind, reduce="Join.", plan=plan, lm=server.lm())
            assert len(result.findings) == 10
            assert result.output == "n7 n8 n9"
            assert result.explain().index.tolist() == ["label 7", "label 8", "label 9"]
        with ScriptedServer(provider) as server:
            ranked = frame.amr.map_reduce(
                map="x", finding=kind, plan={"where": "big", "ranking": {"field": "size", "most": 2}}, lm=server.lm()
            )
            assert ranked.output.index.tolist() == ["label 9", "label 8"]
            assert list(ranked.output.columns) == ["id", "n", "big", "size"]
            assert ranked.explain(1).index.tolist() == ["label 8"]
            assert {request.schema for request in server.requests} == {"findings"}
    with ScriptedServer(provider) as server:
        by_group = frame.amr.map_reduce(
            map="x",
            finding=kind,
            by="big",
            plan={"ranking": {"field": "size", "most": 1, "lowest_first": True}},
            lm=server.lm(),
        )
    assert by_group.output.index.tolist() == ["label 0", "label 7"]


def test_a_share_is_computed_too():
    frame = pd.DataFrame({"mood": ["a", "a", "b", "a"], "shop": ["x", "y", "y", "y"]})
    shares = frame.amr.reduce({"mood": "share"})
    assert shares["mood"].to_dict() == {"a": 0.75, "b": 0.25}  # as value_counts alone gives it
    grouped = frame.amr.reduce({"mood": "share"}, by="shop")
    assert grouped.loc["y"].round(3).to_dict() == {"mood_a": 0.667, "mood_b": 0.333}
    both = compute(frame, {"mood": ["share", "nunique"]}, by=amr.By("shop"))  # as a planner may say it
    assert list(asyncio.run(both).columns) == ["mood_share_a", "mood_share_b", "mood_nunique"]


# What is given stands


GIVEN: dict[str, Any] = {
    "map": "My words.",
    "finding": {"size": int, "flag": bool},
    "reduce": "My reduction.",
    "output": bool,
    "by": ["shop"],
    "columns": ["text", "stars"],
    "max_parallelism": 6,
}
PLANNED: dict[str, Any] = {
    "shard_size": 11,
    "parallelism": 2,
    "view": "inline",
    "segmentation": "neighbours",
    "context_rows": 2,
    "where": "flag",
    "dedupe": True,
    "keyed": "unit",
    "fan_in": 3,
    "ranking": {"field": "size", "most": 3},
}
EVERYTHING = answer(
    "A planner's words.",
    field("mood", choices=("good", "bad")),
    field("size", "int"),
    field("flag", "bool"),
    segmentation="groups",
    group_columns=["shop"],
    where="flag",
    by=["stars"],
    aggregations=[computed("mood", "value_counts"), computed("size", "sum")],
    ranking={"field": "size", "most": 4, "lowest_first": True},
    reduce_instruction="A planner's reduction.",
)


def is_reduced_by_the_user(arguments: set[str], fields: set[str]) -> bool:
    return "reduce" in arguments or "ranking" in fields


def fields_that_are_there(arguments: set[str]) -> set[str]:
    if "finding" in arguments:
        return set(GIVEN["finding"])
    return {"finding"} if "map" in arguments else {"mood", "size", "flag"}


def fitting(arguments: set[str], fields: set[str]) -> dict[str, Any]:
    """``EVERYTHING``, as far as it fits what is given: what a planner answers when it is told what does not."""
    fit, there = dict(EVERYTHING), fields_that_are_there(arguments)
    if fields & {"dedupe", "keyed"} and "segmentation" not in fields:
        fit |= {"segmentation": "rows", "group_columns": []}
    if is_reduced_by_the_user(arguments, fields):
        return fit
    fit["aggregations"] = [part for part in EVERYTHING["aggregations"] if part["field"] in there]
    if "flag" not in there and "where" not in fields:
        fit["where"] = ""
    if "size" not in there:
        fit["ranking"] = {"field": "", "most": 10, "lowest_first": False}
    return fit


def by_planner(arguments: set[str], fields: set[str]) -> dict[str, Any]:
    """What is not given, the planner decides: the fields of the plan that it does, as ``EVERYTHING`` says them."""
    reduces, finds = not is_reduced_by_the_user(arguments, fields), not arguments & {"map", "finding"}
    if not reduces and "map" in arguments:
        return {}
    known = fields_that_are_there(arguments)
    alone = fields & {"segmentation", "dedupe", "keyed"}
    aggregations = {"mood": "value_counts", "size": "sum"}
    decided: dict[str, Any] = {
        "map_instruction": "A planner's words.",
        "finding": ["mood", "size", "flag"],
        "segmentation": "rows" if alone else "groups",
        "group_columns": None if alone else ["shop"],
        "shard_size": 10,
        "parallelism": 4,
    }
    if not finds:
        del decided["finding"]
    if "map" in arguments:
        del decided["map_instruction"]
    if reduces:
        decided |= {
            "reduce_instruction": "A planner's reduction.",
            "by": ("stars",),
            "where": "flag" if "flag" in known else None,
            "aggregations": {name: how for name, how in aggregations.items() if name in known} or None,
            "ranking": amr.Ranking(field="size", most=4, lowest_first=True) if "size" in known else None,
        }
    return {name: value for name, value in decided.items() if name not in arguments | fields}


def left_out(arguments: set[str], fields: set[str]) -> bool:
    """Whether a planner chose rows or groups for a reduce that is the user's, which is told."""
    return is_reduced_by_the_user(arguments, fields) and not ("by" in arguments and "where" in fields)


def check_given(arguments: dict[str, Any], fields: dict[str, Any]) -> None:
    contradictory = fields.get("segmentation") == "neighbours" and (fields.get("dedupe") or fields.get("keyed"))
    fit, decided = fitting(set(arguments), set(fields)), by_planner(set(arguments), set(fields))
    answers = iter([EVERYTHING, fit])
    told = pytest.warns(amr.PlanWarning, match="it is left out, since the reduce is yours")
    with ScriptedServer(lambda request: next(answers)) as server:
        if contradictory:
            with pytest.raises(amr.PlanError):
                REVIEWS.amr.plan("How are they?", lm=server.lm(), plan=fields, **arguments)
            assert server.requests == []
            return
        with told if decided and left_out(set(arguments), set(fields)) else contextlib.nullcontext():
            plan = REVIEWS.amr.plan("How are they?", lm=server.lm(), plan=fields, **arguments)
        asked = [request for request in server.requests if request.schema == "plan"]
    shown_plan = seen(plan)
    assert {name: shown_plan[name] for name in decided} == decided
    assert len(asked) == (0 if not decided else 1 if fit == EVERYTHING else 2)
    words = {"map": "map_instruction", "reduce": "reduce_instruction"}
    for name, value in arguments.items():
        kept = getattr(plan, words.get(name, name), None)
        match name:
            case "finding":
                assert list(kept.model_fields) == list(value)
                shown = json.dumps(json_schema(kept))
            case "by":
                assert list(kept.keys) == value
                shown = json.dumps(value)
            case "max_parallelism":
                continue  # a bound of the run, not of the plan
            case "output":
                assert kept is value
                shown = json.dumps(json_schema(value))
            case _:
                assert kept == value
                shown = json.dumps(value)
        first = asked[:1]  # a repair's last message speaks of what was wrong
        assert all(f'"{words.get(name, name)}": {shown}' in request.user for request in first)
    for name, value in fields.items():
        if name == "ranking" and "reduce" in arguments:
            assert plan.ranking is None  # the call's own words stand above the plan's
            continue
        kept = getattr(plan, name)
        assert (kept.model_dump(exclude_defaults=True) if name == "ranking" else kept) == value
        if name != "ranking":
            assert all(f'"{name}": {json.dumps(value)}' in request.user for request in asked[:1])


@pytest.mark.parametrize("sizes", [(0, 7), pytest.param((1, 2, 3, 4, 5, 6), marks=pytest.mark.long)], ids=str)
def test_the_planner_never_overrides_any_subset_of_the_arguments(sizes):
    """All 128 subsets of the arguments, by their sizes; what is not given, the planner decides."""
    names = list(GIVEN)
    assert len(names) == 7
    for size in sizes:
        for subset in itertools.combinations(names, size):
            check_given({name: GIVEN[name] for name in subset}, {})


@settings(max_examples=examples(60), deadline=None)
@given(st.sets(st.sampled_from(list(GIVEN))), st.sets(st.sampled_from(list(PLANNED))))
def test_nor_any_subset_of_the_plan_s_fields_with_any_of_the_arguments(arguments, fields):
    names = arguments | ({"finding"} if fields & {"where", "ranking"} else set())
    if "ranking" in fields and "reduce" not in names:
        names -= {"output"}  # the rows that rank first are no bool: that is refused before a planner is asked
    check_given({name: GIVEN[name] for name in names}, {name: PLANNED[name] for name in fields})


def test_a_planner_may_speak_of_the_fields_that_were_given_and_named_maps_are_known_by_their_columns():
    planned = answer(
        "x",
        field("anything"),
        where="flag",
        by=["flag"],
        aggregations=[computed("size", "sum")],
        reduce_instruction="",
    )
    with ScriptedServer(lambda request: planned) as server:
        plan = REVIEWS.amr.plan("How?", finding={"size": int, "flag": bool}, lm=server.lm())
        assert plan.aggregations == {"size": "sum"}
        assert plan.where == "flag"
        assert plan.by == amr.By("flag")
        maps = {"map": {"a": "What?", "b": "Which?"}, "finding": {"a": {"size": int}, "b": {"flag": bool}}}
        named = planned | {"aggregations": [computed("a_size", "sum")], "where": "b_flag", "by": ["shop"]}
    with ScriptedServer(lambda request: named) as server:
        plan = REVIEWS.amr.plan("How?", lm=server.lm(), **maps)
    assert plan.aggregations == {"a_size": "sum"}
    assert plan.where == "b_flag"
    assert plan.by == amr.By("shop")


def test_the_planner_sees_a_sample_from_all_over_the_profile_the_tools_and_the_reader():
    @amr.tool
    def look_up(word: str) -> str:
        """Look a word up in the house's dictionary."""
        return word

    frame = REVIEWS.assign(secret=[f"private {n}" for n in range(40)])
    with ScriptedServer(lambda request: EVERYTHING | {"segmentation": "rows", "group_columns": []}) as server:
        lm = server.lm(abilities=Abilities(context_window=9000))
        frame.amr.plan("How?", columns=["text", "stars"], tools=[look_up], lm=lm)
        told = server.requests[0].user
    numbers = [n for n in range(40) if f"review {n}:" in told.split("```sample")[1]]
    assert numbers[0] == 0
    assert numbers[-1] == 39
    assert max(np.diff(numbers)) <= 7
    assert '"column": "stars", "dtype": "int64", "missing": 0, "distinct": 4, "lowest": 1.0, "highest": 5.0' in told
    assert "the tool look_up: Look a word up" in told
    assert "9000 tokens" in told
    assert '"secret"' in told
    assert "private" not in told  # what is no content column goes to no model


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"where": "nothing"}, "where names 'nothing'"),
        ({"by": ["nowhere"]}, "by names 'nowhere'"),
        ({"segmentation": "groups"}, "belong together"),
        ({"aggregations": [computed("nothing", "sum")]}, "aggregations names 'nothing'"),
        ({"ranking": {"field": "nothing", "most": 1, "lowest_first": False}}, "ranking names 'nothing'"),
        ({"ranking": {"field": "mood", "most": 1, "lowest_first": False}}, "'mood' takes numbers or dates"),
        ({"where": "size"}, "'size' takes a bool"),
        ({"aggregations": [computed("mood", "mean")]}, "'mean' takes numbers; 'mood' holds choices"),
    ],
)
@pytest.mark.sampled(3)
def test_a_plan_that_names_what_is_not_there_is_sent_back_with_what_is(part, reason):
    good: dict[str, Any] = EVERYTHING | {"segmentation": "rows", "group_columns": []}
    answers = iter([good | part, good])
    with ScriptedServer(lambda request: next(answers)) as server:
        plan = REVIEWS.amr.plan("How?", lm=server.lm())
        assert reason in server.requests[1].user
    assert plan.made_by == "planner"


LATE = answer(
    "Is it late, by how many days, and whose is it?",
    field("late", "bool"),
    field("days", "int"),
    field("cost"),
    aggregations=[computed("days", "mean")],
)
COSTS = pd.DataFrame({"text": ["a", "b", "c"], "cost (EUR)": ["9", "1,000", "10 EUR"], "day": ["2026-01-02", "x", "y"]})

# What would have answered another question than was asked, without a word.
OTHERS = {
    "a condition in an aggregation": {"aggregations": [computed("days", "sum") | {"where": "late"}]},
    "a distinct count": {"aggregations": [computed("days", "count") | {"distinct": True}]},
    "an order in a ranking": {"aggregations": [], "ranking": {"field": "days", "most": 3, "order": "asc"}},
    "groups by another name": {"group_by": ["text"]},
    "a condition by another name": {"filter": "late"},
    "an order by another name": {"aggregations": [], "order_by": "days", "limit": 3},
    "a sum of texts": {"aggregations": [computed("cost", "sum")]},
    "the largest text": {"aggregations": [computed("cost", "max")]},
    "a ranking by texts": {"aggregations": [], "ranking": {"field": "cost", "most": 1, "lowest_first": False}},
    "a ranking by numbers as texts": {
        "aggregations": [],
        "ranking": {"field": "cost (EUR)", "most": 1, "lowest_first": False},
    },
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_plan_that_would_answer_another_question_is_sent_back_and_then_refused(kind):
    answers = iter([LATE | OTHERS[kind], LATE])
    with ScriptedServer(lambda request: next(answers)) as server:
        assert COSTS.amr.plan("How late?", lm=server.lm()).aggregations == {"days": "mean"}
        assert len(server.requests) == 2
    with (
        ScriptedServer(lambda request: LATE | OTHERS[kind]) as server,
        pytest.raises(amr.PlanError, match="could not be used"),
    ):
        COSTS.amr.plan("How late?", lm=server.lm())


def test_keys_that_change_nothing_of_a_plan_are_left_aside():
    said = LATE | {"aggregations": [computed("days", "mean") | {"alias": "mean_days", "where": None}], "why": "so"}
    said |= {"filter": None, "limit": 0}
    with ScriptedServer(lambda request: said) as server:
        assert COSTS.amr.plan("How late?", lm=server.lm()).aggregations == {"days": "mean"}
        by_date = LATE | {"aggregations": [], "ranking": {"field": "day", "most": 1, "lowest_first": False}}
        said = by_date
        assert COSTS.amr.plan("Which is the last?", lm=server.lm()).ranking == amr.Ranking(field="day", most=1)
        assert len(server.requests) == 2


def test_a_count_of_a_bool_is_sent_back_and_if_it_is_meant_told_in_a_warning():
    counted = LATE | {"aggregations": [computed("late", "count")]}
    answers = iter([counted, LATE | {"aggregations": [computed("late", "sum")]}])
    with ScriptedServer(lambda request: next(answers)) as server:
        assert COSTS.amr.plan("How many are late?", lm=server.lm()).aggregations == {"late": "sum"}
        assert "'sum' counts those in which it is true" in server.requests[1].user
    with ScriptedServer(lambda request: counted) as server:
        with pytest.warns(amr.PlanWarning, match="'count' of 'late' counts all rows"):
            plan = COSTS.amr.plan("How many are there?", lm=server.lm())
        assert plan.aggregations == {"late": "count"}
    with ScriptedServer(lambda request: counted | {"where": "late"}) as server:
        assert COSTS.amr.plan("How many are late?", lm=server.lm()).aggregations == {"late": "count"}
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"segmentation": "groups"}, "belong together"),
        ({"group_columns": ["shop"]}, "belong together"),
        ({"segmentation": "neighbours", "dedupe": True}, "judged alone"),
        ({"aggregations": {"a": "sum"}, "ranking": {"field": "a"}}, "two answers"),
        ({"amr_plan": 99}, "format 99.*Upgrade"),
        ({"segmentation": "chapters"}, "segmentation"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused_with_the_way_out(fields, reason, refusing):
    with pytest.raises(amr.PlanError, match=reason):
        REVIEWS.amr.map_reduce("How?", plan=fields, lm=refusing.lm())


def test_groups_and_where_that_are_not_there_are_told_before_anything_is_sent(refusing):
    with pytest.raises(amr.ColumnError, match="'thread', which is not a column"):
        REVIEWS.amr.map("x", plan={"segmentation": "groups", "group_columns": ["thread"]}, lm=refusing.lm())
    for wrong, reason in (
        ({"reduce": {"mood": "mean"}}, "'mean' takes numbers; 'mood' holds choices"),
        ({"reduce": {"top": ("mood", "max")}}, "'max' takes values that have an order"),
        ({"reduce": {"size": "sum"}, "plan": {"where": "mood"}}, "takes a bool"),
        ({"reduce": {"size": "sum"}, "by": "tags"}, "single values, not lists"),
        ({"plan": {"ranking": {"field": "mood"}}}, "numbers or dates"),
        ({"plan": {"aggregations": {"tags": "sum"}}}, "'sum' takes numbers"),
    ):
        kind = {"mood": ["good", "bad"], "size": int, "tags": list[str]}
        with pytest.raises(amr.UsageError, match=reason):
            REVIEWS.amr.map_reduce(map="x", finding=kind, lm=refusing.lm(), **wrong)
    with pytest.raises(amr.UsageError, match="a column of bools"):
        REVIEWS.amr.reduce({"stars": "sum"}, plan={"where": "shop"})
    with pytest.raises(amr.ColumnError, match="where names 'flag'"):
        REVIEWS.amr.map_reduce(map="x", finding={"n": int}, reduce="y", plan={"where": "flag"}, lm=refusing.lm())
    small = refusing.lm(abilities=Abilities(units_per_request=1))
    with pytest.raises(amr.PlanError, match="judged alone"):
        REVIEWS.amr.map("x", plan={"segmentation": "neighbours"}, lm=small)


# A plan keeps the reduce


def numbers(request: Any) -> Any:
    """Scripted: each row's stars, as `n`, and whether they are many; a reduction counts what it got."""
    if request.schema == "reduction":
        return {"output": f"{len(request.findings)} findings", "sources": [0]}
    return findings(request, lambda unit: {"n": unit["stars"], "flag": unit["stars"] > 3})


@pytest.mark.parametrize(
    "wanted",
    [
        {"reduce": {"n": "sum"}},
        {"reduce": {"n": ["sum", "mean"], "flag": "share"}},
        {"reduce": {"n": "sum"}, "by": "shop"},
        {"reduce": {"n": "sum"}, "by": amr.By("shop", sort=False), "plan": {"where": "flag"}},
        {"reduce": "Count.", "plan": {"where": "flag"}},
        {"reduce": "Count.", "by": ["shop"]},
    ],
)
@pytest.mark.sampled(3)
def test_a_plan_reduces_again_as_it_was_told_whatever_form_it_comes_in(wanted, tmp_path):
    given: dict[str, Any] = {"map": "x", "finding": {"n": int, "flag": bool}, "columns": ["stars"]}
    with ScriptedServer(numbers) as server:
        plan = REVIEWS.amr.plan("How much?", lm=server.lm(), **given, **wanted)
        first = REVIEWS.amr.map_reduce("How much?", lm=server.lm(), **given, **wanted)
        plan.to_json(tmp_path / "plan.json")
        assert plan.aggregations == (wanted["reduce"] if isinstance(wanted["reduce"], dict) else None)
        for form in (plan, plan.to_json(), tmp_path / "plan.json", str(tmp_path / "plan.json"), first.plan):
            again = REVIEWS.amr.map_reduce(plan=form, lm=server.lm())
            assert str(again.output) == str(first.output)
            assert again.plan.replace(made_by="user").to_json() == first.plan.replace(made_by="user").to_json()
            assert str(amr.Recipe(form)(REVIEWS, lm=server.lm()).output) == str(first.output)
    assert first.output is not None


def test_a_plan_says_what_reduces_and_no_more():
    """What the call says stands above its plan: none of the plan's own reduce stays beside a function."""
    given: dict[str, Any] = {"map": "x", "finding": {"n": int, "flag": bool}, "columns": ["stars"]}
    with ScriptedServer(numbers) as server:
        plan = REVIEWS.amr.plan(reduce={"n": "sum"}, lm=server.lm(), **given)
        counted = REVIEWS.amr.map_reduce(plan=plan, reduce=len, lm=server.lm())
        named = REVIEWS.amr.map_reduce(plan=plan, reduce={"most": ("n", "max")}, lm=server.lm())
    assert counted.output == 40
    assert counted.plan.aggregations is None
    assert named.output["most"] == 5
    assert named.plan.aggregations is None


def test_a_map_takes_a_plan_whose_reduce_is_not_for_now():
    with ScriptedServer(by_type) as server:
        plan = REVIEWS.amr.plan(
            map="x", finding={"n": int, "flag": bool}, reduce={"n": "sum"}, plan={"where": "flag"}, lm=server.lm()
        )
        found = REVIEWS.amr.map("Other.", finding={"m": str}, plan=plan, lm=server.lm())
        kept = REVIEWS.amr.filter("Those?", plan=plan, lm=server.lm())
    assert list(found.columns) == [*REVIEWS.columns, "m"]
    assert list(kept.columns) == list(REVIEWS.columns)


@pytest.mark.parametrize(
    "labels",
    [
        list(pd.date_range("2026-01-01", periods=3)),
        list(pd.date_range("2026-01-01 00:00:00.000000001", periods=3, tz="Europe/Oslo")),
        [dt.date(2026, 1, 1), dt.date(2026, 1, 2), dt.datetime(2026, 1, 2, 3)],
        list(np.arange(3)),
        [np.float64(0.5), np.bool_(True), np.str_("c")],
        [("a", 1), ("a", 2), ("b", pd.Timestamp("2026-01-01"))],
    ],
    ids=["days", "moments", "dates", "numbers", "numpy's", "tuples"],
)
@pytest.mark.sampled(3)
def test_labels_of_every_kind_survive_a_plan_s_json(labels):
    frame = pd.DataFrame([["x", 1, "u"], ["y", 2, "v"]])
    frame.columns = pd.Index(labels, tupleize_cols=False)
    with ScriptedServer(lambda request: findings(request, lambda unit: {"n": 1})) as server:
        plan = frame.amr.plan(
            map="x", finding={"n": int}, reduce={"n": "sum"}, columns=labels[:2], by=[labels[2]], lm=server.lm()
        )
        again = amr.Plan(**json.loads(plan.to_json()))
        assert again.columns == list(labels[:2])
        assert again.by == amr.By(labels[2])
        assert again.to_json() == plan.to_json()
        result = frame.amr.map_reduce(plan=plan.to_json(), lm=server.lm())
    assert result.output["n"].tolist() == [1, 1]


def test_a_label_that_json_has_no_word_for_is_told():
    with pytest.raises(amr.PlanError, match="cannot hold the column label Period"):
        amr.Plan(columns=[pd.Period("2026-01")]).to_json()


# The planner and what the user wants


class Total(BaseModel):
    total: int


COMPUTED = [computed("n", "sum")]
BOTH = [computed("n", "sum"), computed("n", "mean")]


@pytest.mark.parametrize(
    ("output", "parts", "said", "expected"),
    [
        (str, COMPUTED, "130 in all.", "130 in all."),
        (bool, COMPUTED, True, True),
        (Total, COMPUTED, {"total": 130}, Total(total=130)),
        (list[Total], COMPUTED, [{"total": 130, "sources": [0]}], None),
        (float, BOTH, {"field": "n", "function": "mean"}, 3.25),
        (int, [computed("n", "mean")], {"field": "n", "function": "sum"}, 130),
        (int, [computed("n", "value_counts")], {"field": "n", "function": "sum"}, 130),
        (int, COMPUTED, None, 130),
        (float, [computed("n", "mean")], None, 3.25),
    ],
)
@pytest.mark.sampled(4)
def test_a_wanted_output_is_given_whatever_the_planner_would_have_computed(output, parts, said, expected):
    """One number is computed where a number is wanted; all else is written, from what was computed."""

    def provider(request):
        if request.schema == "plan":
            return answer("x", field("n", "int"), aggregations=parts)
        return {"output": said, "sources": [0]} if request.schema == "reduction" else numbers(request)

    frame = REVIEWS[["stars"]]
    with ScriptedServer(provider) as server:
        result = frame.amr.map_reduce("How much?", output=output, lm=server.lm())
        assert ("reduction" in {request.schema for request in server.requests}) == (said is not None)
    assert result.plan.reduce_instruction == (None if said is None else "How much?")
    if expected is None:
        assert result.output["total"].tolist() == [130]
    else:
        assert result.output == expected
        assert isinstance(result.output, output)


def test_fields_get_names_that_are_free():
    """Of a column, of each other, of what many records a row add, and of what pydantic keeps to itself."""
    planned = answer(
        "x",
        *(field(name) for name in ("mood", "mood_found_2", "model_config", "unit")),
        where="flag",
        by=["mood"],
        reduce_instruction="All",
    )
    planned["finding"].append(field("flag", "bool"))
    frame = REVIEWS.assign(mood="x", mood_found="y")
    with ScriptedServer(lambda request: planned) as server:
        plan = frame.amr.plan("How?", columns=["text"], lm=server.lm())
        many = REVIEWS.amr.plan("How?", columns=["text"], lm=server.lm())
    assert list(plan.finding.model_fields) == [
        "mood_found_3",
        "mood_found_2",
        "model_config_found",
        "unit_found",
        "flag",
    ]
    assert plan.by == amr.By("mood_found_3")
    assert next(iter(many.finding.model_fields)) == "mood"
    listed = answer("x", field("items"), field("items_count", "int"), many_per_row=True, reduce_instruction="All")
    with ScriptedServer(lambda request: listed) as server:
        records = REVIEWS.amr.plan("How?", lm=server.lm())
    assert list(get_args(records.finding)[0].model_fields) == ["items_found", "items_count_found"]


def test_a_group_that_a_planner_names_twice_is_one():
    planned = answer("x", field("mood"), by=["shop", "mood", "shop"], reduce_instruction="All")
    with ScriptedServer(lambda request: planned) as server:
        plan = REVIEWS.amr.plan("How?", columns=["text"], lm=server.lm())
    assert plan.by == amr.By("shop", "mood")


def test_a_task_can_be_asked_of_its_own_result_again_and_again():
    planned = answer("x", field("mood"), reduce_instruction="All")
    frame = REVIEWS[["text"]]
    with ScriptedServer(lambda request: planned if request.schema == "plan" else by_type(request)) as server:
        for _ in range(4):
            frame = frame.amr.map_reduce("How are they?", columns=["text"], lm=server.lm()).frame
    assert len([column for column in frame.columns if column.startswith("mood")]) == 4


@pytest.mark.parametrize(
    ("given", "bad", "reason"),
    [
        ({}, answer("x", field("n"), field("n", "int"), reduce_instruction="All"), "finding names 'n' twice"),
        ({"reduce": {"n": "sum"}}, answer("x", field("m", "int")), "the user's reduce takes a field 'n'"),
        ({"reduce": {"most": ("n", "max")}}, answer("x", field("most", "int")), "the user's reduce takes a field 'n'"),
        ({"reduce": {"n": "mean"}}, answer("x", field("n")), "'mean' takes numbers"),
        ({"reduce": "x", "by": "n"}, answer("x", field("m")), "the user's by takes a field 'n'"),
        (
            {"reduce": "x", "plan": {"where": "n"}},
            answer("x", field("m", "bool")),
            "the user's where takes a field 'n'",
        ),
        ({"plan": {"ranking": {"field": "n"}}}, answer("x", field("m", "int")), "the user's ranking takes a field 'n'"),
        ({"items": True}, answer("x", field("n"), many_per_row=True, reduce_instruction="All"), "many_per_row adds"),
    ],
)
@pytest.mark.sampled(3)
def test_an_answer_that_the_user_s_own_words_contradict_is_sent_back_before_the_map(given, bad, reason):
    good = answer("x", field("n", "int" if "ranking" in given.get("plan", {}) else "bool"), reduce_instruction="All")
    arguments = {name: value for name, value in given.items() if name != "items"}
    frame = REVIEWS.assign(items=1) if "items" in given else REVIEWS
    answers = iter([bad, good])
    with ScriptedServer(lambda request: next(answers)) as server:
        plan = frame.amr.plan("How?", columns=["text"], lm=server.lm(), **arguments)
        assert reason in server.requests[1].user
    assert plan.made_by == "planner"


@pytest.mark.parametrize(
    "given",
    [
        {"reduce": {"n": "sum"}},
        {"reduce": {"most": ("n", "max")}},
        {"reduce": "x", "by": "n"},
        {"reduce": "x", "plan": {"where": "n"}},
        {"plan": {"ranking": {"field": "n"}}},
    ],
)
def test_what_the_user_named_and_the_planner_does_not_find_is_told_before_the_map(given):
    with ScriptedServer(lambda request: answer("x", field("m", "int"), reduce_instruction="All")) as server:
        with pytest.raises(amr.PlanError, match="takes a field 'n', which the finding does not have") as stopped:
            REVIEWS.amr.map_reduce("How?", columns=["text"], lm=server.lm(), **given)
        assert stopped.value.partial.total.calls == 2
        assert [request.schema for request in server.requests] == ["plan", "plan"]


def test_the_planner_sees_a_reduce_that_no_plan_can_hold():
    planned = answer("x", field("n", "int"))
    with ScriptedServer(lambda request: planned) as server:
        REVIEWS.amr.plan("How?", reduce={"most": ("n", "max"), "n": len}, lm=server.lm())
        assert (
            '"reduce": {"most": {"field": "n", "by": "max"}, "n": {"field": "n", "by": "len"}}'
            in server.requests[0].user
        )


# Segmentation


def test_neighbours_are_shown_around_a_shard_and_get_no_finding():
    def provider(request):
        return findings(request, lambda unit: {"n": unit["start"]})

    with ScriptedServer(provider) as server:
        plan = {"segmentation": "neighbours", "context_rows": 2, "shard_size": 4}
        frame = BOOK.amr.map("Go on.", finding={"n": int}, plan=plan, lm=server.lm())
        assert frame["n"].tolist() == list(range(12))
        shown = {request.units[0]["start"]: request.user for request in server.requests}
        middle = shown[4]
        before, units, after = middle.split("\n\n")
        assert [json.loads(line)["start"] for line in before.split("\n")[1:-1]] == [2, 3]
        assert [json.loads(line)["start"] for line in after.split("\n")[1:-1]] == [8, 9]
        assert units.startswith("```units")
        assert shown[0].startswith("```units")
        assert "in its context" in server.requests[0].system


def test_a_group_is_read_together_and_never_mixed_with_another():
    def provider(request):
        return findings(request, lambda unit: {"thread_found": len(request.units)})

    with ScriptedServer(provider) as server:
        plan = {"segmentation": "groups", "group_columns": ["thread"]}
        frame = TALK.amr.map("Go.", finding={"thread_found": int}, columns=["said"], plan=plan, lm=server.lm())
        shards = sorted([unit["said"] for unit in request.units] for request in server.requests)
        assert shards == [["hello", "no", "yes"], ["why", "because", "ah"]]
        first = next(request.user for request in server.requests if request.units[0]["said"] == "hello")
        assert 'Their group: {"thread": 1}' in first
    assert frame["thread_found"].tolist() == [3] * 6


def test_a_group_larger_than_a_shard_is_read_in_parts_and_told():
    plan = {"segmentation": "groups", "group_columns": ["thread"], "shard_size": 2}
    with ScriptedServer(lambda request: findings(request, lambda unit: {"n": 1})) as server:
        with pytest.warns(amr.PlanWarning, match="larger than a shard"):
            TALK.amr.map("Go.", finding={"n": int}, plan=plan, lm=server.lm())
        assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("plan", "changed", "asked"),
    [
        ({"segmentation": "groups", "group_columns": ["thread"]}, 5, 1),  # one more in thread 1: that group anew
        ({"segmentation": "neighbours", "context_rows": 1, "shard_size": 2}, 5, 1),  # the last shard alone
        ({"segmentation": "neighbours", "context_rows": 1, "shard_size": 2}, 4, 2),  # and whoever had it in sight
        ({"segmentation": "rows", "shard_size": 2}, 5, 1),
    ],
)
def test_a_changed_row_costs_what_was_judged_in_its_light_and_no_more(plan, changed, asked, tmp_path):
    other = TALK.copy()
    other.loc[changed, "said"] = "something else"
    with ScriptedServer(lambda request: findings(request, lambda unit: {"n": 1})) as server:
        for frame in (TALK, TALK, other):
            server.requests.clear()
            frame.amr.map("Go.", finding={"n": int}, plan=plan, lm=server.lm(), journal=tmp_path / "j.sqlite")
        assert len(server.requests) == asked


def test_an_old_plan_s_json_is_read_as_it_was(tmp_path):
    """Stable across versions: this text is never changed, and must always mean the same."""
    text = (
        '{"amr_plan": 1, "task": "How?", "columns": ["text", ["a", 1]], "map_instruction": "Read.", "finding": '
        '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false}, '
        '"by": {"keys": ["shop"], "sort": false, "dropna": true, "observed": true}, "where": "flag", '
        '"ranking": {"field": "n", "most": 3, "lowest_first": true}, "segmentation": "groups", "group_columns": ["shop"], '
        '"view": "inline", "shard_size": 7, "fan_in": 3, "made_by": "planner"}'
    )
    plan = amr.Plan(**json.loads(text))
    assert plan.columns == ["text", ("a", 1)]
    assert plan.by == amr.By("shop", sort=False)
    assert json.loads(plan.to_json())["columns"] == ["text", ["a", 1]]
    assert amr.Plan(**json.loads(plan.to_json())).to_json() == plan.to_json()
    before_formats = {name: value for name, value in json.loads(text).items() if name != "amr_plan"}
    assert amr.Plan(**before_formats).to_json() == plan.to_json()
