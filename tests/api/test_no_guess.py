"""A plan is derived by a model or said by the user, never guessed from English."""

from __future__ import annotations

import ast
import json
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
from pydantic import BaseModel

import pandas_amr as amr
from pandas_amr.models.base import Abilities
from pandas_amr.testing import Raw, ScriptedServer, Status, findings
from planner_answers import answer, computed, field

ROWS = pd.DataFrame(
    {
        "agent": ["Ann", "Bob", "Ann", "Cid"],
        "product": ["tea", "tea", "mug", "mug"],
        "region": ["north", "south", "north", "south"],
        "hours": [1.5, 2.0, 0.5, 4.0],
        "text": [f"ticket {n} was closed by the agent" for n in range(4)],
    }
)
NO_PLANNER = Abilities(planning=False)
SMALL = Abilities(tools=False, planning=False, units_per_request=1, context_window=4096)
BIG = Abilities()

SENTENCES = [
    "How many hours were worked?",
    "Complaints by product and region",
    "Which tickets were closed by the agent?",
    "count",
    "Count the late ones, per region.",
    "average",
    "What is the average customer like?",
    "the average handling time of each agent",
    "top five",
    "The top 5 complaints",
    "What are the five most common complaints?",
    "What share of tickets is late?",
    "How many of them, and which share?",
    "total",
    "Sum up what is said.",
    "median",
    "rank them",
    "Find every file without an encoding.",
    "Which is the worst?",
    "How many are not positive?",
    "Wie viele Stunden wurden gearbeitet?",
    "何時間働きましたか",
    "(?P<all>.*)+ [a-z] \\d",
]


READ = "Read it."
COUNTED = answer(READ, field("late", "bool"), aggregations=[computed("late", "sum")])


def provider(planned: Any, **found: Any) -> Any:
    """Scripted: such plans, one after the other, and for each row the same finding."""
    plans = iter(planned if isinstance(planned, list) else [planned] * 10)

    def answered(request: Any) -> Any:
        if request.schema == "plan":
            return next(plans)
        if request.schema == "reduction":
            return {"output": "all in all", "sources": [0]}
        return findings(request, lambda unit: found)

    return answered


def schemas(server: ScriptedServer) -> list[str | None]:
    return [request.schema for request in server.requests]


# A model that cannot plan


@pytest.mark.parametrize("errors", ["coerce", "raise"])
@pytest.mark.parametrize("abilities", [NO_PLANNER, SMALL], ids=["large", "small"])
@pytest.mark.parametrize("task", SENTENCES)
@pytest.mark.sampled(5)
def test_whatever_the_sentence_a_model_that_cannot_plan_is_asked_nothing(task, abilities, errors, refusing):
    lm = refusing.lm(abilities=abilities)
    with pytest.raises(amr.PlanError) as caught:
        ROWS.amr.map_reduce(task, lm=lm, errors=errors)
    assert str(caught.value) == (
        'This task has no plan: scripted cannot plan (lm={"plan": ..., "map": ...} names one that can). No row '
        "was sent, and nothing is guessed. Say map=, finding= and reduce= yourself:\n"
        f'    df.amr.map_reduce(map="...", finding={{...}}, reduce={{...}}, lm=..., errors="{errors}")\n'
        'The columns are "agent", "product", "region", "hours", "text".'
    )  # the same for all: nothing of the sentence is read
    with pytest.raises(amr.PlanError, match=r"df\.amr\.plan\("):
        ROWS.amr.plan(task, lm=lm, errors=errors)
    with pytest.raises(amr.PlanError, match=r"df\.amr\.map_reduce\("):
        ROWS.amr.start(task, lm=lm, errors=errors)


class Ticket(BaseModel):
    mood: Literal["good", "bad"]
    minutes: int
    late: bool
    why: str


class Kind(Enum):
    BUG = "bug"
    WISH = "wish"


def read(shard: pd.DataFrame) -> list[dict[str, Any]]:
    return [{"n": 1} for _ in range(len(shard))]


@amr.tool
def look_up(word: str) -> str:
    """Look a word up."""
    return word


def longest(word: str) -> int:
    """Say how long a word is."""
    return len(word)


CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, 'df.amr.map_reduce(map="...", finding={...}, reduce={...}, lm=...)'),
    "a map": (
        {"map": "What is it?"},
        'df.amr.map_reduce(map="What is it?", reduce={"finding": "count"}, lm=...)',
    ),
    "a finding": (
        {"finding": {"mood": ["good", "bad"], "minutes": int, "late": (bool, "past the date"), "why": str}},
        (
            'df.amr.map_reduce(map="...", finding={"mood": ["good", "bad"], "minutes": int, "late": (bool, "past the date")'
            ', "why": str}, reduce={"mood": "value_counts", "minutes": "mean", "late": "mean", "why": "count"}, lm=...)'
        ),
    ),
    "a model as finding, and a map": (
        {"map": "What is it?", "finding": Ticket},
        (
            'df.amr.map_reduce(map="What is it?", finding=Ticket, '
            'reduce={"mood": "value_counts", "minutes": "mean", "late": "mean", "why": "count"}, lm=...)'
        ),
    ),
    "many findings a row": (
        {"map": "Which?", "finding": list[Ticket]},
        (
            'df.amr.map_reduce(map="Which?", finding=list[Ticket], '
            'reduce={"mood": "value_counts", "minutes": "mean", "late": "mean", "why": "count"}, lm=...)'
        ),
    ),
    "types of all kinds": (
        {"map": "x", "finding": {"a": Kind, "b": Literal["x", "y"], "c": float | None, "d": list[str]}},
        (
            'df.amr.map_reduce(map="x", finding={"a": Kind, "b": Literal["x", "y"], "c": float | None, "d": list[str]}, '
            'reduce={"a": "value_counts", "b": "value_counts", "c": "mean", "d": "count"}, lm=...)'
        ),
    ),
    "named maps": (
        {"map": {"a": "Which?", "b": "What?"}, "finding": {"a": {"mood": ["good", "bad"]}}},
        (
            'df.amr.map_reduce(map={"a": "Which?", "b": "What?"}, finding={"a": {"mood": ["good", "bad"]}}, '
            'reduce={"a_mood": "value_counts", "b": "count"}, lm=...)'
        ),
    ),
    "a function": ({"map": read}, "df.amr.map_reduce(map=read, reduce={...}, lm=...)"),
    "an unnamed function": (
        {"map": lambda shard: read(shard)},
        "df.amr.map_reduce(map=..., reduce={...}, lm=...)",
    ),
    "an agent": (
        {"map": amr.Agent("What is it?", role="a judge")},
        'df.amr.map_reduce(map=amr.Agent("What is it?", ...), reduce={"finding": "count"}, lm=...)',
    ),
    "a reduce of fields that are still to be found": (
        {"reduce": {"n": "sum", "most": ("m", "max"), "hours": "mean"}, "by": ["region", "kind"]},
        (
            'df.amr.map_reduce(map="...", finding={"kind": ..., "n": ..., "m": ...}, '
            'reduce={"n": "sum", "most": ("m", "max"), "hours": "mean"}, by=["region", "kind"], lm=...)'
        ),
    ),
    "a reduce of functions": (
        {"reduce": {"hours": ["sum", len]}, "by": amr.By("region", sort=False)},
        (
            'df.amr.map_reduce(map="...", finding={...}, reduce={"hours": ["sum", len]}, '
            'by=amr.By("region", sort=False), lm=...)'
        ),
    ),
    "a written reduce": (
        {"reduce": "Combine them."},
        'df.amr.map_reduce(map="...", finding={...}, reduce="Combine them.", lm=...)',
    ),
    "a text as output": (
        {"map": "x", "finding": {"n": int}, "output": str},
        'df.amr.map_reduce(map="x", finding={"n": int}, reduce="...", output=str, lm=...)',
    ),
    "a number as output": (
        {"map": "x", "finding": {"n": int}, "output": int},
        'df.amr.map_reduce(map="x", finding={"n": int}, reduce={...}, output=int, lm=...)',
    ),
    "a model as output": (
        {"output": list[Ticket]},
        'df.amr.map_reduce(map="...", finding={...}, reduce="...", output=list[Ticket], lm=...)',
    ),
    "a part of the plan": (
        {"plan": {"map_instruction": "Read.", "shard_size": 5, "where": "late"}, "columns": ["text"]},
        (
            'df.amr.map_reduce(finding={"late": bool}, reduce={...}, columns=["text"], '
            'plan={"map_instruction": "Read.", "shard_size": 5, "where": "late"}, lm=...)'
        ),
    ),
    "a ranking": (
        {"plan": {"ranking": {"field": "anger", "most": 3}}},
        'df.amr.map_reduce(map="...", finding={"anger": ...}, plan={"ranking": {"field": "anger", "most": 3}}, lm=...)',
    ),
    "settings and tools": (
        {
            "tools": [look_up, longest],
            "max_steps": 3,
            "progress": False,
            "journal": Path("kept.sqlite"),
            "budget": None,
        },
        (
            'df.amr.map_reduce(map="...", finding={...}, reduce={...}, tools=[look_up, longest], lm=..., max_steps=3, '
            'progress=False, journal="kept.sqlite")'
        ),
    ),
    "a long map": (
        {"map": "word " * 41},
        'df.amr.map_reduce(map=..., reduce={"finding": "count"}, lm=...)',
    ),
    "a map that is not so long": (
        {"map": "word " * 30},
        f'df.amr.map_reduce(map="{"word " * 30}", reduce={{"finding": "count"}}, lm=...)',
    ),
    "a long finding": (
        {"finding": {f"field_{n}": int for n in range(40)}, "reduce": {"field_1": "sum"}},
        'df.amr.map_reduce(map="...", finding=..., reduce={"field_1": "sum"}, lm=...)',
    ),
}


@pytest.mark.parametrize("case", CALLS)
def test_the_call_is_written_out_as_far_as_it_is_known(case, refusing):
    given, text = CALLS[case]
    with pytest.raises(amr.PlanError) as caught:
        ROWS.amr.map_reduce("How many hours were worked?", lm=refusing.lm(abilities=SMALL), **given)
    lines = str(caught.value).splitlines()
    assert lines[1].strip() == text
    ast.parse(text)
    assert ("a proposal, by the types" in str(caught.value)) == ('reduce={"' in text and "reduce" not in given)
    again = next(line for line in lines if line.startswith("The columns are"))
    assert again == 'The columns are "agent", "product", "region", "hours", "text".'


@pytest.mark.parametrize("case", ["a map", "a finding", "a model as finding, and a map", "many findings a row"])
def test_a_proposed_call_runs_as_it_stands_once_its_placeholders_are_filled(case):
    given, text = CALLS[case]
    found = {"mood": "good", "minutes": 2, "late": True, "why": "so", "finding": "x"}
    if given.get("finding") == list[Ticket]:
        found = {"items": [{name: found[name] for name in Ticket.model_fields}]}

    def provider(request: Any) -> Any:
        wanted = request.body["response_format"]["json_schema"]["schema"]["properties"]
        return {name: found[name] for name in wanted}

    with ScriptedServer(provider) as server:
        scope = {"df": ROWS, "Ticket": Ticket, "lm": server.lm(abilities=SMALL)}
        result = eval(text.replace("lm=...", "lm=lm").replace('map="..."', 'map="Which?"'), scope)
    assert len(result.failures) == 0
    assert result.plan.made_by == "user"
    assert result.output is not None


@pytest.mark.parametrize("case", [name for name, (_, text) in CALLS.items() if "..." in text.replace("lm=...", "")])
def test_a_call_whose_placeholders_are_not_filled_is_refused(case, refusing):
    _, text = CALLS[case]
    scope = {
        "df": ROWS,
        "amr": amr,
        "lm": refusing.lm(abilities=SMALL),
        "look_up": look_up,
        "longest": longest,
        "read": read,
    }
    with pytest.raises(amr.UsageError, match="takes"):
        eval(text.replace("lm=...", "lm=lm"), scope | {"Ticket": Ticket, "Kind": Kind})


def test_a_key_a_client_and_a_task_stand_in_no_message():
    lm = amr.LM("small", api_key="sk-secret-key", base_url="http://127.0.0.1:9", abilities=SMALL)
    with pytest.raises(amr.PlanError) as caught:
        ROWS.amr.map_reduce("What did Mr Smith say?", map={"a": amr.Agent("x", lm=lm), "b": "y"}, lm=lm)
    assert "secret" not in str(caught.value)
    assert "Smith" not in str(caught.value)
    assert "small cannot plan" in str(caught.value)


def test_many_columns_are_shown_in_part(refusing):
    frame = pd.DataFrame([range(30)], columns=[f"c{n}" for n in range(30)])
    with pytest.raises(amr.PlanError, match=r'"c7" and 22 more\.'):
        frame.amr.map_reduce("How?", lm=refusing.lm(abilities=SMALL))


def test_the_planning_model_is_the_one_that_counts(refusing):
    with ScriptedServer(provider(COUNTED, late=True)) as server:
        phases = {"plan": server.lm(), "map": server.lm(abilities=SMALL)}
        result = ROWS.amr.map_reduce("How many are late?", lm=phases)
        assert schemas(server) == ["plan", *["finding"] * 4]
    assert result.output["late"] == 4
    assert result.plan.made_by == "planner"
    with pytest.raises(amr.PlanError, match=r'lm=\{"plan": \.\.\., "map": \.\.\.\}'):
        ROWS.amr.map_reduce("How?", lm={"plan": refusing.lm(abilities=SMALL), "map": refusing.lm()})
    with refusing_settings(refusing), pytest.raises(amr.PlanError, match=r"reduce=\{\.\.\.\}\)"):
        ROWS.amr.map_reduce("How?")


def refusing_settings(server: ScriptedServer) -> amr.settings:
    return amr.settings(lm=server.lm(abilities=SMALL))


def test_what_leaves_nothing_open_runs_on_a_model_that_cannot_plan():
    with ScriptedServer(provider(None, n=2)) as server:
        given: dict[str, Any] = {"map": "Read.", "finding": {"n": int}, "lm": server.lm(abilities=SMALL)}
        result = ROWS.amr.map_reduce("How many by region?", reduce={"n": "sum"}, **given)
        assert schemas(server) == ["finding"] * 4
    assert result.output["n"] == 8
    assert result.plan.by is None  # of the task nothing is read
    assert result.plan.task == "How many by region?"


RECIPES = {
    "the first stage": lambda: amr.Recipe().map_reduce("How many?"),
    "a later stage": lambda: amr.Recipe().map("Read.", finding={"n": int}).map_reduce("How many?"),
    "a map of a task": lambda: amr.Recipe().filter("Those.").map(task="What is it?"),
    "a recipe after another": lambda: amr.Recipe().map("Read.").then(amr.Recipe().map_reduce("How many?")),
    "a recipe of each row": lambda: amr.Recipe().map(amr.Recipe().map_reduce("How many?", columns=["text"])),
    "a recipe that reduces": lambda: (
        amr.Recipe().map("Read.").reduce(amr.Recipe().map_reduce("How many?", map="Read.", finding={"n": int}))
    ),
}


@pytest.mark.parametrize("case", RECIPES)
def test_a_recipe_is_refused_before_its_first_request_whichever_stage_has_a_task(case, refusing):
    with pytest.raises(amr.PlanError, match=r"scripted cannot plan.*Say (map|reduce)=") as caught:
        RECIPES[case]()(ROWS, lm=refusing.lm(abilities=SMALL))
    assert "    df.amr.map" in str(caught.value)
    with pytest.raises(amr.PlanError):
        RECIPES[case]()(ROWS, lm={"plan": refusing.lm(abilities=SMALL), "map": refusing.lm()})


def test_a_recipe_in_a_verb_is_refused_likewise_and_a_stage_with_a_planner_of_its_own_is_not(refusing):
    with pytest.raises(amr.PlanError, match="cannot plan"):
        ROWS.amr.map(amr.Recipe().map_reduce("How many?"), finding={"n": int}, lm=refusing.lm(abilities=SMALL))
    with ScriptedServer(provider(COUNTED, late=True)) as server:
        small = server.lm(abilities=SMALL)
        made = amr.Recipe().filter(lambda shard: shard["hours"] > 1).map_reduce("How many?", lm=server.lm())
        assert made(ROWS, lm=small).output["late"] == 3


# A planner whose answer is no use

CELL = "ticket 2 was closed by the agent"
GARBAGE: dict[str, tuple[Any, int, str]] = {
    "prose": (Raw(f"I cannot plan {CELL}."), 2, "could not be used (the answer is not a JSON object)"),
    "nothing": (Raw(""), 2, "could not be used (the answer is empty)"),
    "cut off": (
        Raw(json.dumps(COUNTED)[:-4], finish_reason="length"),
        2,
        "could not be used (the answer was cut off at its greatest length)",
    ),
    "no finding": (COUNTED | {"finding": []}, 2, "could not be used (finding: List should have at least 1 item"),
    "a size of none": (COUNTED | {"shard_size": 0}, 2, "shard_size: Input should be greater than or equal to 1"),
    "a cell as group": (COUNTED | {"by": [CELL]}, 2, "by names '...'; there is: late, agent, product, region"),
    "a cell as field": (COUNTED | {"aggregations": [computed(CELL, "sum")]}, 2, "aggregations names '...'"),
    "a cell as condition": (COUNTED | {"where": CELL}, 2, "where names '...'"),
    "a cell as name": (answer(READ, field(CELL)), 2, "finding.0.name: String should match pattern"),
    "a cell as function": (
        COUNTED | {"aggregations": [computed("late", CELL)]},
        2,
        "aggregations.0.function: Input should be 'count'",
    ),
    "groups without columns": (COUNTED | {"segmentation": "groups"}, 2, "segmentation 'groups' and group_columns"),
    "choices that would be lost": (
        answer(READ, field("n", "int", ("1", "2")), reduce_instruction="All."),
        2,
        "'n' is of type int and has choices; only a str has them",
    ),
    "a type that does not fit": (
        answer(READ, field("mood", "str", ("good", "bad")), aggregations=[computed("mood", "mean")]),
        2,
        "'mean' takes numbers; 'mood' holds choices",
    ),
    "rejected": (Status(400, "no plans today"), 1, "request failed (The server answered 400: no plans today)"),
    "refused": (Raw(None, refusal="I would rather not."), 1, "request failed ("),
}


@pytest.mark.parametrize("errors", ["coerce", "raise"])
@pytest.mark.parametrize("case", GARBAGE)
@pytest.mark.sampled(3)
def test_a_plan_that_is_no_use_ends_the_call_before_any_row_is_sent(case, errors):
    planned, asked, reason = GARBAGE[case]
    with ScriptedServer(provider(planned)) as server:
        with pytest.raises(amr.PlanError) as caught:
            ROWS.amr.map_reduce("How many are late?", lm=server.lm(), errors=errors)
        assert schemas(server) == ["plan"] * asked
    assert reason in str(caught.value)
    assert f'df.amr.map_reduce(map="...", finding={{...}}, reduce={{...}}, lm=..., errors="{errors}")' in str(
        caught.value
    )
    told = "".join(str(one) for one in (caught.value, caught.value.__cause__) if one is not None)
    assert CELL not in told


def test_what_stops_a_run_stays_what_it_is():
    with ScriptedServer(provider(Status(401, "wrong key"))) as server:
        with pytest.raises(amr.ModelConfigError):
            ROWS.amr.map_reduce("How?", lm=server.lm())
        assert len(server.requests) == 1
    with ScriptedServer(provider(Status(503))) as server, pytest.raises(amr.ModelUnavailable):
        ROWS.amr.map_reduce("How?", lm=server.lm(max_tries=1))
    with ScriptedServer(provider(COUNTED), latency_s=5) as server, pytest.raises(amr.BudgetExceeded):
        ROWS.amr.map_reduce("How?", lm=server.lm(), budget=amr.Budget(seconds=0.05))


@pytest.mark.parametrize("task", SENTENCES)
@pytest.mark.sampled(5)
def test_the_plan_is_the_planner_s_whatever_the_sentence(task):
    planned = answer(READ, field("note"), reduce_instruction="Combine them.")
    with ScriptedServer(provider(planned)) as server:
        plan = ROWS.amr.plan(task, lm=server.lm())
    first, _, rest = plan.to_json().partition(json.dumps(task))
    assert rest  # the task itself is kept, word for word
    assert (first, rest) == _said_by_the_planner(planned)


def _said_by_the_planner(planned: dict[str, Any]) -> tuple[str, str]:
    with ScriptedServer(provider(planned)) as server:
        first, _, rest = ROWS.amr.plan("?", lm=server.lm()).to_json().partition(json.dumps("?"))
    return first, rest


# A part of a plan is repaired or told, never dropped in silence

GIVEN = {"map": "Read.", "finding": {"n": int, "flag": bool}}
REPAIRED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    "an aggregation of a field that the finding has not": (
        GIVEN,
        answer(READ, field("m", "int"), aggregations=[computed("m", "sum")]),
        answer(READ, field("m", "int"), aggregations=[computed("n", "sum")]),
        "aggregations names 'm'; there is: n, flag",
    ),
    "a condition, likewise": (
        GIVEN,
        answer(READ, field("late", "bool"), where="late", reduce_instruction="All."),
        answer(READ, field("late", "bool"), where="flag", reduce_instruction="All."),
        "where names 'late'",
    ),
    "a group, likewise": (
        GIVEN,
        answer(READ, field("kind"), by=["kind"], reduce_instruction="All."),
        answer(READ, field("kind"), by=["region"], reduce_instruction="All."),
        "by names 'kind'",
    ),
    "a ranking, likewise": (
        GIVEN,
        answer(READ, field("anger", "int"), ranking={"field": "anger", "most": 3, "lowest_first": False}),
        answer(READ, field("anger", "int"), ranking={"field": "n", "most": 3, "lowest_first": False}),
        "ranking names 'anger'",
    ),
    "a ranking where a number is wanted": (
        {"output": int},
        answer(
            READ,
            field("n", "int"),
            ranking={"field": "n", "most": 3, "lowest_first": False},
            reduce_instruction="How many?",
        ),
        answer(READ, field("n", "int"), aggregations=[computed("n", "sum")]),
        "a ranking gives rows",
    ),
    "groups where each unit is judged alone": (
        {"plan": {"dedupe": True}},
        answer(READ, field("note"), segmentation="groups", group_columns=["agent"], reduce_instruction="All."),
        answer(READ, field("note"), reduce_instruction="All."),
        "the user fixed dedupe, which takes rows judged alone",
    ),
    "neighbours for readers of one unit": (
        {"small": True},
        answer(READ, field("note"), segmentation="neighbours", reduce_instruction="All."),
        answer(READ, field("note"), reduce_instruction="All."),
        "the readers judge each row alone",
    ),
    "a status column's name": (
        {"plan": {"status": ("state", "reason")}, "finding": {"n": int}},
        answer(READ, field("n", "int"), by=["state"], reduce_instruction="All."),
        answer(READ, field("n", "int"), reduce_instruction="All."),
        "by names 'state'",
    ),
    "fields of a function": (
        {"map": read},
        answer(READ, field("m", "int"), aggregations=[computed("m", "sum")]),
        answer(READ, field("m", "int"), reduce_instruction="All."),
        "aggregations names 'm'",
    ),
    "a column that two share by its text": (
        {"frame": pd.DataFrame([[1, 2, "x"]], columns=[1, "1", "text"])},
        answer(READ, field("note"), by=["1"], reduce_instruction="All."),
        answer(READ, field("note"), by=["text"], reduce_instruction="All."),
        "by names '1'",
    ),
}


@pytest.mark.parametrize("case", REPAIRED)
@pytest.mark.sampled(4)
def test_a_part_that_does_not_fit_is_sent_back_with_the_reason(case):
    given, bad, good, reason = REPAIRED[case]
    given = dict(given)
    frame = given.pop("frame", ROWS)
    small = given.pop("small", False)
    with ScriptedServer(provider([bad, good])) as server:
        lm = {"plan": server.lm(), "map": server.lm(abilities=SMALL if small else BIG)}
        plan = frame.amr.plan("How?", lm=lm, **given)
        assert schemas(server) == ["plan", "plan"]
        assert reason in server.requests[1].body["messages"][-1]["content"]
    assert plan.made_by == "planner"
    with ScriptedServer(provider([bad, bad])) as server:
        lm = {"plan": server.lm(), "map": server.lm(abilities=SMALL if small else BIG)}
        with pytest.raises(amr.PlanError, match="could not be used"):
            frame.amr.plan("How?", lm=lm, **given)


def test_rows_and_groups_that_a_planner_adds_to_the_user_s_reduce_are_told():
    planned = answer(READ, field("n", "int"), field("late", "bool"), where="late", by=["region"])
    with ScriptedServer(provider(planned, n=2, late=True)) as server:
        with pytest.warns(amr.PlanWarning, match=r"also gave where='late' and by=\['region'\]; it is left out"):
            result = ROWS.amr.map_reduce("How many late, by region?", reduce={"n": "sum"}, lm=server.lm())
        with pytest.warns(amr.PlanWarning, match=r"also gave by=\['region'\]"):
            ROWS.amr.plan("How?", reduce={"n": "sum"}, plan={"where": "late"}, lm=server.lm())
        plan = ROWS.amr.plan("How?", reduce={"n": "sum"}, plan={"where": "late"}, by="agent", lm=server.lm())
    assert result.output["n"] == 8
    assert plan.by == amr.By("agent")


def test_what_a_planner_ranks_is_shown_to_who_writes_the_output():
    planned = answer(READ, field("n", "int"), ranking={"field": "n", "most": 2, "lowest_first": False})
    with ScriptedServer(provider(planned, n=2)) as server:
        result = ROWS.amr.map_reduce("Why are the two worst so bad?", output=str, lm=server.lm())
        assert "rank" in server.requests[-1].user
    assert result.output == "all in all"
    assert result.plan.ranking == amr.Ranking(field="n", most=2)
    assert result.plan.reduce_instruction == "Why are the two worst so bad?"


def test_a_planner_s_finding_is_not_put_upon_a_function():
    planned = answer(READ, field("m", "int"), reduce_instruction="All.")
    with ScriptedServer(provider(planned)) as server:
        result = ROWS.amr.map_reduce("How?", map=read, lm=server.lm())
        assert '"map": {"map": "a function of the user\'s"}' in server.requests[0].user
    assert result.frame["n"].tolist() == [1] * 4
    assert len(result.failures) == 0
    assert result.plan.finding is None


def test_a_planner_s_field_never_takes_the_name_of_a_status_column():
    planned = answer(
        READ, field("state"), field("n", "int"), aggregations=[computed("n", "sum")], reduce_instruction="All."
    )
    with ScriptedServer(provider(planned)) as server:
        plan = ROWS.amr.plan("How?", plan={"status": ("state", "reason")}, lm=server.lm())
    assert list(plan.finding.model_fields) == ["state_found", "n"]


def test_a_repair_may_name_what_the_error_does_not():
    """What goes back to the planner holds its own words; what a person reads, in a log perhaps, does not."""
    with ScriptedServer(provider(COUNTED | {"by": [CELL], "view": "inline", "shard_size": 900})) as server:
        with pytest.raises(amr.PlanError, match=r"by names '...'; there is: late") as caught:
            ROWS.amr.plan("How?", tools=[amr.PythonREPLTool()], lm=server.lm())
        assert CELL in server.requests[1].body["messages"][-1]["content"]
    assert CELL not in str(caught.value)


# Defaults by type

TYPES: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "choices, numbers, bools and texts": (
        {"finding": {"mood": ["good", "bad"], "n": int, "late": bool, "why": str}},
        {"mood": "value_counts", "n": "mean", "late": "mean", "why": "count"},
        None,
    ),
    "records": ({"finding": list[Ticket], "map": "x"}, dict.fromkeys(["minutes", "late"], "mean"), None),
    "named maps": (
        {"map": {"a": "x", "b": "y"}, "finding": {"a": {"n": int}, "b": {"kind": Kind}}},
        {"a_n": "mean", "b_kind": "value_counts"},
        None,
    ),
    "a condition": (
        {"finding": {"late": bool, "n": int}, "plan": {"where": "late"}},
        {"late": "sum", "n": "mean"},
        None,
    ),
    "an output that pandas gives": ({"finding": {"n": int}, "output": float}, {"n": "mean"}, None),
    "an output that it does not": (
        {"finding": {"n": int}, "output": str},
        None,
        "Combine the findings into one answer.",
    ),
}


@pytest.mark.parametrize("abilities", [BIG, NO_PLANNER, SMALL], ids=["planner", "large", "small"])
@pytest.mark.parametrize("case", TYPES)
@pytest.mark.sampled(5)
def test_without_a_task_and_a_reduce_pandas_says_what_the_types_allow(case, abilities, refusing):
    given, aggregations, instruction = TYPES[case]
    plan = ROWS.amr.plan(lm=refusing.lm(abilities=abilities), **({"map": "Read."} | given))
    assert (plan.aggregations or {}) | (aggregations or {}) == (plan.aggregations or {})
    assert bool(plan.aggregations) == bool(aggregations)
    assert plan.reduce_instruction == instruction
    assert plan.made_by == "user"


def test_texts_alone_are_written_from_where_a_model_can_and_counted_where_not(refusing):
    written = ROWS.amr.plan(map="Read.", lm=refusing.lm())
    counted = ROWS.amr.plan(map="Read.", lm=refusing.lm(abilities=SMALL))
    assert (written.aggregations, written.reduce_instruction) == (None, "Combine the findings into one answer.")
    assert (counted.aggregations, counted.reduce_instruction) == ({"finding": "count"}, None)


def test_a_valid_plan_that_leaves_the_reduce_open_is_reduced_by_type_too():
    with ScriptedServer(provider(answer(READ, field("mood", "str", ("good", "bad"))))) as server:
        plan = ROWS.amr.plan("How many are good?", lm=server.lm())
    assert plan.aggregations == {"mood": "value_counts"}
    with ScriptedServer(provider(answer(READ, field("gist")))) as server:
        assert ROWS.amr.plan("What is said?", lm=server.lm()).reduce_instruction == "What is said?"


def test_map_reduce_without_a_task_and_a_reduce_is_refused_as_before(refusing):
    with pytest.raises(amr.UsageError, match="map_reduce without a task needs reduce="):
        ROWS.amr.map_reduce(map="Read.", finding={"n": int}, lm=refusing.lm(abilities=SMALL))


# Empty frames

EMPTY = ROWS.head(0)


def test_an_empty_frame_is_never_planned_by_a_guess(refusing):
    with pytest.raises(amr.PlanError, match=r'map="\.\.\."'):
        EMPTY.amr.map_reduce("How many are late?", lm=refusing.lm(abilities=SMALL))


def test_an_empty_batch_takes_the_plan_of_those_before_it(tmp_path):
    with ScriptedServer(provider(COUNTED, late=True)) as server:
        given: dict[str, Any] = {"lm": server.lm(), "journal": tmp_path / "j.sqlite"}
        full = ROWS.amr.map_reduce("How many are late?", **given)
        asked = len(server.requests)
        for _ in range(2):
            empty = EMPTY.amr.map_reduce("How many are late?", **given)
        assert len(server.requests) == asked
    assert list(empty.frame.columns) == list(full.frame.columns)
    assert empty.output["late"] == 0


def test_a_plan_from_the_schema_alone_serves_empty_batches_only(tmp_path):
    blind, seen = answer(READ, field("note"), reduce_instruction="All."), COUNTED
    with ScriptedServer(provider([blind, seen], late=True)) as server:
        given: dict[str, Any] = {"lm": server.lm(), "journal": tmp_path / "j.sqlite"}
        for _ in range(2):
            first = EMPTY.amr.map_reduce("How many are late?", **given)
        assert schemas(server) == ["plan"]
        full = ROWS.amr.map_reduce("How many are late?", **given)
        again = EMPTY.amr.map_reduce("How many are late?", **given)
        assert schemas(server).count("plan") == 2
    assert "note" in first.frame.columns
    assert full.output["late"] == 4
    assert "late" in again.frame.columns


# Plans that were kept

KEPT = {
    "amr_plan": 1,
    "task": "How many are late, by region?",
    "map_instruction": "How many are late, by region?",
    "finding": {
        "type": "object",
        "properties": {"applies": {"type": "boolean"}},
        "required": ["applies"],
        "additionalProperties": False,
    },
    "aggregations": {"applies": "sum"},
    "shard_size": 2,
    "made_by": "rules",
}


@pytest.mark.parametrize("abilities", [BIG, SMALL], ids=["large", "small"])
def test_a_plan_kept_from_before_runs_as_it_says_and_nothing_is_guessed_anew(abilities, tmp_path):
    path = tmp_path / "plan.json"
    kept = KEPT | ({"shard_size": 1} if abilities is SMALL else {})
    path.write_text(json.dumps(kept))
    with ScriptedServer(provider(None, applies=True)) as server:
        for form in (path, json.dumps(kept), amr.Plan(**kept)):
            result = ROWS.amr.map_reduce(plan=form, lm=server.lm(abilities=abilities))
            assert result.output["applies"] == 4
            assert result.plan.made_by == "rules"
            assert (result.plan.by, result.plan.where, result.plan.ranking) == (None, None, None)
            assert json.loads(result.plan.to_json()).items() >= (kept | {"amr_plan": 2}).items()
        assert "plan" not in schemas(server)


def test_what_such_a_plan_leaves_open_is_asked_of_a_planner_or_refused(refusing):
    part = {name: KEPT[name] for name in ("finding", "made_by")}
    with pytest.raises(amr.PlanError, match='map="..."'):
        ROWS.amr.map_reduce("How many?", plan=part, lm=refusing.lm(abilities=SMALL))
    planned = answer(READ, field("x", "bool"), aggregations=[computed("applies", "sum")])
    with ScriptedServer(provider(planned)) as server:
        assert ROWS.amr.plan("How many?", plan=part, lm=server.lm()).made_by == "planner"


# The source

SOURCE = Path(amr.__file__).parent
TEXT_METHODS = {
    *("casefold", "count", "endswith", "find", "index", "lower", "partition", "replace", "rsplit", "split"),
    *("splitlines", "startswith", "title", "translate", "upper"),
}
PATTERN_METHODS = {"compile", "findall", "finditer", "fullmatch", "match", "search", "split", "sub"}


def is_the_task(node: ast.AST) -> bool:
    """Whether an expression is the user's sentence: ``job.task``, ``plan.task``, ``call.task``, or a name for it."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "str" and node.args:
        return is_the_task(node.args[0])
    if isinstance(node, ast.Attribute):
        owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
        return node.attr == "task" and owner in {"job", "plan", "call", "given"}
    return isinstance(node, ast.Name) and node.id == "task"


def readings(tree: ast.AST) -> list[str]:
    """The places where code looks into a task: a pattern over it, a method of texts on it, a word sought in it."""
    found = []
    for node in ast.walk(tree):
        looks = False
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = [node.func.value] if node.func.attr in TEXT_METHODS else []
            given = [*node.args, *(one.value for one in node.keywords)]
            of += given if node.func.attr in PATTERN_METHODS else []
            looks = any(is_the_task(one) for one in of)
        elif isinstance(node, ast.Compare):
            sought = any(isinstance(one, ast.In | ast.NotIn) for one in node.ops)
            looks = sought and any(is_the_task(one) for one in [node.left, *node.comparators])
        elif isinstance(node, ast.Subscript):
            looks = is_the_task(node.value)
        if looks:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "code",
    [
        "re.search(r'how many', job.task)",
        "HOW_MANY.search(task)",
        "PATTERN.findall(str(plan.task))",
        "words = call.task.lower()",
        "'total' in job.task",
        "str(job.task).split()",
        "work.plan.task[:5]",
    ],
)
def test_the_check_below_finds_what_it_looks_for(code):
    assert readings(ast.parse(code))


@pytest.mark.long
def test_no_code_looks_into_the_user_s_task():
    """Wherever a name or an attribute holds it, it is passed on: to a prompt, a plan, the journal."""
    modules = {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text()) for path in SOURCE.rglob("*.py")}
    assert "_plan/planner.py" in modules
    assert "_rules.py" not in modules
    looked = {name: found for name, tree in modules.items() if (found := readings(tree))}
    assert looked == {}


@pytest.mark.parametrize(
    "name",
    [
        "_plan/call",
        "_plan/call_text",
        "_plan/defaults",
        "_plan/plan",
        "_plan/planner",
        "_run/pipeline",
        "_plan/arguments",
        "_agent/prompts/plan",
        "_agent/prompts/map",
        "_run/run",
    ],
)
def test_what_a_task_goes_through_knows_no_patterns(name):
    tree = ast.parse((SOURCE / f"{name}.py").read_text())
    imported = [one.name for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names]
    assert "re" not in imported
