"""An estimate is a dry run of the run's own stages: its calls are the run's, and it does nothing else."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import sqlite3
import warnings
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import pydantic
import pytest

import pandas_amr as amr
from pandas_amr._run.counting_model import CountingModel
from pandas_amr._run.typical import unbounded
from pandas_amr.models.base import Abilities, Message, Request
from pandas_amr.testing import Call, ScriptedServer, Status, findings

WORDS = np.random.default_rng(3).integers(3, 40, size=200)
ROWS = pd.DataFrame(
    {
        "text": [f"row {n} " + "word " * int(WORDS[n]) for n in range(80)],
        "group": [f"g{n % 4}" for n in range(80)],
        "size": range(80),
    }
)
LONG = pd.DataFrame({"text": ["word " * n for n in (400, 3, 150, 90)]})
FOUND: dict[str, Any] = {"map": "What?", "finding": {"gist": str, "mood": ["good", "bad"]}}
STATIC = {"shard_size": 7, "fan_in": 3}
CALLED: list[str] = []
ANSWERED: list[str] = []


def counted(text: str) -> int:
    return max(1, len(text) // 4)  # as the scripted server counts


def typical(request):
    """Answer as an estimate takes it that a model answers."""
    model = CountingModel(counted, {})
    messages = tuple(Message(one["role"], one.get("content")) for one in request.body["messages"])
    if request.tools:
        tool = request.body["tools"][-1]["function"]
        name, schema = tool["name"], tool["parameters"]
    else:
        name, schema = (request.body["response_format"]["json_schema"][key] for key in ("name", "schema"))
    ANSWERED.append(model._write(name.removeprefix("submit_"), schema, Request(messages, phase="map")))
    return [Call(name, json.loads(ANSWERED[-1]))] if request.tools else ANSWERED[-1]


def noted(name: str, value: Any = None):
    def function(*args: Any) -> Any:
        CALLED.append(name)
        return value(*args) if callable(value) else value

    return function


@amr.tool
def look(word: str) -> str:
    """Look."""
    CALLED.append("tool")
    return word


class Item(pydantic.BaseModel):
    name: str
    count: int


class Answer(pydantic.BaseModel):
    title: str
    points: list[str]


SHAPES: dict[str, dict[str, Any]] = {
    "nothing reduced by agents": {**FOUND, "reduce": {"mood": "count"}},
    "adaptive": {**FOUND, "reduce": "C.", "plan": {"shard_size": 10}},
    "adaptive, small budget": {**FOUND, "reduce": "C.", "plan": {"shard_size": 10, "reduce_budget": 400}},
    "static": {**FOUND, "reduce": "C.", "plan": STATIC},
    "by groups": {**FOUND, "reduce": "C.", "by": "group"},
    "by groups, static": {**FOUND, "reduce": "C.", "by": "group", "plan": {"shard_size": 4, "fan_in": 3}},
    "by a found field": {**FOUND, "reduce": "C.", "by": "mood"},
    "direct": {**FOUND, "reduce": "C.", "plan": {"direct": True}},
    "one unit a shard": {**FOUND, "reduce": "C.", "plan": {"shard_size": 1}},
    "neighbours": {**FOUND, "reduce": "C.", "plan": {"segmentation": "neighbours", "shard_size": 6}},
    "groups": {**FOUND, "reduce": "C.", "plan": {"segmentation": "groups", "group_columns": ["group"]}},
    "pieces, merged by rule": {"map": "W", "finding": {"n": int}, "reduce": {"n": "sum"}, "plan": {"shard_tokens": 20}},
    "lists": {"map": "W", "finding": list[Item], "reduce": "C."},
    "lists, static": {"map": "W", "finding": list[Item], "reduce": "C.", "plan": STATIC},
    "two maps, static": {
        "map": {"a": "What?", "b": "Which?"},
        "finding": {"a": {"gist": str}, "b": {"topic": str}},
        "reduce": "C.",
        "plan": STATIC,
    },
    "an agent and a function": {
        "map": {"a": "What?", "b": noted("map", lambda rows: [{"size_": 12}] * len(rows))},
        "finding": {"a": {"gist": str}, "b": {"size_": int}},
        "reduce": "C.",
        "plan": STATIC,
    },
    "instruction by row": {**FOUND, "map": amr.Agent(lambda row: f"What of {row['group']}?"), "reduce": "C."},
    "tools": {**FOUND, "reduce": "C.", "tools": [look]},
    "an object": {**FOUND, "reduce": "C.", "output": Answer, "plan": STATIC},
    "objects": {**FOUND, "reduce": "C.", "output": list[Answer], "plan": STATIC},
    "texts": {**FOUND, "reduce": "C.", "output": list[str]},
    "a choice": {**FOUND, "reduce": "C.", "output": Literal["yes", "no"]},
    "a number": {**FOUND, "reduce": "How many?", "output": int},
    "a number by groups": {**FOUND, "reduce": "How many?", "output": float, "by": "group"},
    "columns": {**FOUND, "reduce": {"gist": amr.Agent("S."), "mood": noted("aggregation", 1)}},
    "columns by groups": {**FOUND, "reduce": {"x": ("gist", amr.Agent("S.")), "mood": "count"}, "by": "group"},
    "a function reduces": {**FOUND, "reduce": noted("reduce", 1)},
    "transposed": {**FOUND, "reduce": "C.", "axis": "columns"},
}


@pytest.mark.filterwarnings("ignore::pandas_amr.PlanWarning")
@pytest.mark.parametrize("shape", SHAPES)
def test_calls_and_prompts_are_those_of_the_run_if_answers_are_typical(shape):
    case = dict(SHAPES[shape])
    frame = LONG if shape.startswith("pieces") else ROWS
    columns = {} if shape == "transposed" else {"columns": ["text"]}
    CALLED.clear()
    ANSWERED.clear()
    with ScriptedServer(typical) as server:
        lm = server.lm(token_counter=counted)
        estimate = frame.amr.plan(lm=lm, **columns, **case).estimate()
        assert server.requests == []
        assert CALLED == []  # no function or tool of the user's
        result = frame.amr.map_reduce(lm=lm, **columns, **case)
        assert estimate.calls == len(server.requests)
    assert len(result.failures) == 0
    assert estimate.input_tokens == pytest.approx(result.total.input_tokens, rel=0.02)
    assert estimate.output_tokens == pytest.approx(sum(map(counted, ANSWERED)), rel=0.02)


class Bounded(pydantic.BaseModel):
    """Fields of which no typical value is valid, and a validator of the user's."""

    when: dt.date
    at: dt.datetime
    price: decimal.Decimal = pydantic.Field(max_digits=3)
    score: int = pydantic.Field(ge=1, le=5, alias="the score")
    code: str = pydantic.Field(pattern=r"^[A-Z]{3}-\d{4}$")
    short: str = pydantic.Field(max_length=10)
    tags: list[str] = pydantic.Field(min_length=3)
    parts: dict[str, int]
    pattern: int | None = None

    @pydantic.field_validator("short")
    @classmethod
    def refuse(cls, text: str) -> str:
        CALLED.append("validator")
        raise ValueError(text)


@pytest.mark.parametrize(
    ("case", "calls"),
    [
        ({"map": "W", "finding": Bounded}, 18),
        ({"map": "W", "finding": Bounded, "by": "score"}, 18),
        ({"map": "W", "finding": list[Bounded]}, 18),
        ({"map": "W", "finding": list[Bounded], "by": "score"}, 12 + 12),  # two items of each unit
        ({**FOUND, "output": Bounded}, 18),
        ({**FOUND, "output": list[Bounded]}, 18),
    ],
)
def test_bounds_and_validators_of_the_user_s_do_not_change_the_number_of_calls(case, calls, refusing):
    CALLED.clear()
    plan = ROWS.amr.plan(lm=refusing.lm(), reduce="C.", plan=STATIC, columns=["text"], **case)
    assert plan.estimate().calls == calls
    assert CALLED == []


def test_a_type_without_bounds_has_the_names_of_the_fields():
    kind = unbounded(Bounded)
    assert list(kind.model_fields) == list(Bounded.model_fields)


@pytest.mark.parametrize("tools", [True, "code"])
@pytest.mark.parametrize("plan", [{"view": "preview", "shard_size": 10}, {"shard_size": 10}], ids=["preview", "inline"])
def test_agents_with_python_are_run_dry_without_a_sandbox(tools, plan, refusing):
    class Sandbox:
        tier = "none"

        async def open(self, data: object, limits: object) -> Any:
            raise AssertionError("a session")

        async def close(self) -> None:
            """Close nothing."""

    lm = refusing.lm(abilities=Abilities(tools=tools))
    python = amr.PythonREPLTool(sandbox=Sandbox())
    estimate = ROWS.amr.plan(lm=lm, reduce="C.", tools=[python], plan=plan, **FOUND).estimate()
    assert (estimate.calls, estimate.about) == (9, True)
    assert estimate.output_tokens > 0


@pytest.mark.parametrize(
    ("reduce", "by", "calls"),
    [("C.", None, 1), ("C.", "kind", 1), ({"m": amr.Agent("S.")}, None, 1), ({"m": amr.Agent("S.")}, "kind", 1)],
)
def test_columns_that_only_a_function_knows_are_not_missed(reduce, by, calls, refusing):
    function = noted("map", lambda rows: [{"m": 1, "kind": "a"}] * len(rows))
    CALLED.clear()
    assert ROWS.amr.plan(lm=refusing.lm(), map=function, reduce=reduce, by=by).estimate().calls == calls
    assert CALLED == []


def test_a_function_that_instructs_reduce_agents_is_not_called(refusing):
    agent = amr.Agent(noted("instruction", "C."))
    CALLED.clear()
    assert ROWS.amr.plan(lm=refusing.lm(), reduce=agent, plan=STATIC, **FOUND).estimate().calls == 18
    assert CALLED == []


def refusing_odd(request):
    if any(int(unit["text"].split()[1]) % 2 for unit in request.units):
        return Status(400, "no")
    return typical(request)


def test_a_retry_is_estimated_by_what_is_still_open_and_what_was_found():
    asked: list[amr.Estimate] = []
    budget = amr.Budget(confirm=lambda estimate: asked.append(estimate) or True)
    answer = [refusing_odd]
    with ScriptedServer(lambda request: answer[0](request)) as server, warnings.catch_warnings():
        warnings.simplefilter("ignore", amr.FailureWarning)
        case = {**FOUND, "reduce": "C.", "plan": STATIC, "budget": budget, "columns": ["text"]}
        first = ROWS.amr.map_reduce(lm=server.lm(token_counter=counted), **case)
        answer[0] = typical
        server.requests.clear()
        again = first.retry()
        assert asked[1].calls == len(server.requests)
    assert (asked[1].asked, asked[1].about) == (40, True)
    assert asked[1].input_tokens == pytest.approx(again.total.input_tokens, rel=0.02)


@pytest.mark.parametrize(
    "output",
    [
        int | None,
        int | float,
        decimal.Decimal,
        Annotated[float, pydantic.Field(ge=0, le=1)],
        Annotated[int, "how many"],
    ],
)
def test_a_number_is_chosen_in_one_call_whatever_its_type(output, refusing):
    plan = ROWS.amr.plan(lm=refusing.lm(), reduce="How many?", output=output, plan={"shard_size": 10}, **FOUND)
    assert (plan.estimate().calls, plan.estimate().about) == (9, True)


def test_an_estimate_writes_no_journal(tmp_path, refusing):
    path = tmp_path / "j.sqlite"
    ROWS.amr.plan(lm=refusing.lm(), reduce="C.", journal=path, **FOUND).estimate()
    with sqlite3.connect(path) as journal:
        assert journal.execute("SELECT count(*) FROM entries").fetchone() == (0,)


# Large frames


def many(count: int) -> pd.DataFrame:
    texts = [f"row {n} " + "word " * int(WORDS[n % 200]) for n in range(count)]
    return pd.DataFrame({"text": texts, "group": [f"g{n // 2}" for n in range(count)]})


LARGE: dict[str, tuple[int, dict[str, Any]]] = {
    "a static tree": (1050, {**FOUND, "reduce": "C.", "plan": {"shard_size": 1, "fan_in": 12}}),
    "an adaptive tree": (1300, {**FOUND, "reduce": "C.", "plan": {"shard_size": 1, "reduce_budget": 6000}}),
    "groups": (2400, {**FOUND, "reduce": "C.", "by": "group", "plan": {"shard_size": 40}}),
}


@pytest.mark.parametrize(
    "shape", [*(["a static tree"]), *[pytest.param(name, marks=pytest.mark.long) for name in list(LARGE)[1:]]]
)
def test_of_many_shards_or_groups_some_are_run_dry_and_scaled(shape):
    rows, case = LARGE[shape]
    frame = many(rows)
    with ScriptedServer(typical) as server:
        lm = server.lm(token_counter=counted)
        estimate = frame.amr.plan(lm=lm, columns=["text"], **case).estimate()
        result = frame.amr.map_reduce(lm=lm, columns=["text"], **case)
        assert estimate.calls == pytest.approx(len(server.requests), rel=0.01 if estimate.about else 0)
    assert estimate.input_tokens == pytest.approx(result.total.input_tokens, rel=0.03)
    if estimate.tree:
        assert estimate.tree == tuple(level["nodes"] for level in result.graph().levels)


@pytest.mark.parametrize(
    ("case", "calls"),
    [
        ({"plan": {"shard_size": 10, "fan_in": 100}}, 2000 + 20 + 1),
        pytest.param({"plan": {"shard_size": 10, "fan_in": 2}}, 2000 + 1999, marks=pytest.mark.long),
        pytest.param({"by": "group", "plan": {"shard_size": 10}}, 2000 + 10_000, marks=pytest.mark.long),
        ({"output": int, "plan": {"shard_size": 10}}, 2000 + 1),
    ],
    ids=["static", "deep", "groups", "a number"],
)
def test_calls_of_a_large_frame_are_exact_where_one_call_per_node_is_certain(case, calls, refusing):
    frame = many(20_000)
    lm = refusing.lm(token_counter=counted)
    estimate = frame.amr.plan(lm=lm, columns=["text"], **FOUND, **({"reduce": "C."} | case)).estimate()
    assert estimate.calls == calls
    assert (estimate.units, estimate.shards, sum(estimate.sizes)) == (20_000, 2000, 20_000)


@pytest.mark.long
def test_of_shards_of_many_units_few_are_run_dry(refusing):
    case = {**FOUND, "reduce": "C.", "plan": {"shard_size": 2000, "shard_tokens": 10**6, "fan_in": 5}}
    estimate = many(40_000).amr.plan(lm=refusing.lm(token_counter=counted), columns=["text"], **case).estimate()
    assert (estimate.calls, estimate.tree, estimate.sizes) == (20 + 4 + 1, (20, 4, 1), (2000,) * 20)


@pytest.mark.parametrize("by", [None, pytest.param("group", marks=pytest.mark.long)])
def test_rows_of_a_large_frame_that_nothing_maps_are_run_in_part(by, refusing):
    asked: list[amr.Estimate] = []
    budget = amr.Budget(confirm=lambda estimate: bool(asked.append(estimate)))
    frame = many(30_000)
    with pytest.raises(amr.NotConfirmed):
        frame.amr.reduce(
            "C.", columns=["text"], by=by, lm=refusing.lm(token_counter=counted), budget=budget, plan={"shard_size": 10}
        )
    tokens = sum(counted(text) for text in frame["text"])
    assert tokens < asked[0].input_tokens < 12 * tokens
    assert (asked[0].calls == 15_000) if by else (5 < asked[0].calls < 40)


def test_findings_of_a_sample_are_the_answers_of_the_dry_run():
    """Half of the rows meet the condition, and the texts are long: both show in the reduce."""

    def answer(request):
        if request.schema == "reduction":
            return {"output": "all in all", "sources": [0]}
        return findings(request, lambda unit: {"gist": "word " * 60, "ok": int(unit["text"].split()[1]) % 2 == 1})

    case = {"map": "W", "finding": {"gist": str, "ok": bool}, "reduce": "C.", "columns": ["text"]}
    case["plan"] = {"where": "ok", "shard_size": 10}
    with ScriptedServer(answer) as server:
        lm = server.lm(token_counter=counted)
        estimate = ROWS.amr.plan(lm=lm, **case).estimate(sample=40)
        server.requests.clear()
        result = ROWS.amr.map_reduce(lm=lm, **case)
        assert estimate.calls == len(server.requests)
    assert estimate.input_tokens == pytest.approx(result.total.input_tokens, rel=0.1)
    assert estimate.output_tokens == pytest.approx(result.total.output_tokens, rel=0.1)
