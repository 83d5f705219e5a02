"""An estimate is a dry run of the run's own stages: its calls are the run's, and it does nothing else."""

from __future__ import annotations

import contextlib
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
from pandas_amr._run import part
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
@pytest.mark.sampled(4)
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
@pytest.mark.sampled(3)
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
    with contextlib.closing(sqlite3.connect(path)) as journal:
        assert journal.execute("SELECT count(*) FROM entries").fetchone() == (0,)


# What is not asked: empty rows, and what a run that gave up has left

EMPTY = ROWS.assign(
    text=[" " if n % 5 == 1 or n // 7 == 3 or n % 4 == 3 else text for n, text in enumerate(ROWS["text"])]
)  # among them a whole shard of 7, and a whole group
SIZED = noted("map", lambda rows: [{"size_": 12}] * len(rows))
WITH_EMPTY: dict[str, dict[str, Any]] = {
    "adaptive": SHAPES["adaptive"],
    "static": SHAPES["static"],
    "static, keyed by shard": {**FOUND, "reduce": "C.", "plan": {**STATIC, "dedupe": False, "keyed": "shard"}},
    "static, with a function": {**SHAPES["an agent and a function"], "map": {"a": "What?", "b": SIZED}},
    "neighbours": SHAPES["neighbours"],
    "by groups": SHAPES["by groups"],
    "direct": SHAPES["direct"],
    "a number": SHAPES["a number"],
    "all are asked": {**FOUND, "reduce": "C.", "plan": {**STATIC, "on_empty": "ask"}},
}


@pytest.mark.parametrize("shape", WITH_EMPTY)
@pytest.mark.sampled(4)
def test_empty_rows_cost_in_an_estimate_what_they_cost_in_the_run(shape):
    case = dict(WITH_EMPTY[shape])
    with ScriptedServer(typical) as server:
        lm = server.lm(token_counter=counted)
        estimate = EMPTY.amr.plan(lm=lm, columns=["text"], **case).estimate()
        result = EMPTY.amr.map_reduce(lm=lm, columns=["text"], **case)
        assert estimate.calls == len(server.requests)
    assert len(result.failures) == 0
    assert estimate.input_tokens == pytest.approx(result.total.input_tokens, rel=0.03)
    if estimate.tree:
        assert estimate.tree[1:] == tuple(level["nodes"] for level in result.graph().levels)[1:]


def first_gist(found: pd.DataFrame) -> str:
    return found["gist"].iloc[0]


def test_a_recipe_that_asks_a_model_is_estimated_without_the_empty_rows():
    """What its agents take is measured by a sample; the reduce beside it reads no empty row."""
    recipe = amr.Recipe().map("What?", finding={"gist": str}, columns=["text"]).reduce(first_gist)
    case = {"map": recipe, "finding": {"gist": str}, "reduce": "C.", "columns": ["text"], "plan": STATIC}
    with ScriptedServer(typical) as server:
        lm = server.lm(token_counter=counted)
        estimate = EMPTY.amr.plan(lm=lm, **case).estimate(sample=20)
        server.requests.clear()
        result = EMPTY.amr.map_reduce(lm=lm, **case)
        assert estimate.calls == len(server.requests)
    assert estimate.input_tokens == pytest.approx(result.total.input_tokens, rel=0.1)


def test_a_retry_of_a_run_that_gave_up_is_estimated_by_what_it_asks_again():
    asked: list[amr.Estimate] = []
    budget = amr.Budget(confirm=lambda estimate: asked.append(estimate) or True)
    answer = [lambda request: Status(400, "no")]
    case = {**FOUND, "columns": ["text"], "reduce": {"mood": "count"}, "budget": budget}
    plan = {"shard_size": 2, "give_up_after": 3}
    with ScriptedServer(lambda request: answer[0](request)) as server, warnings.catch_warnings():
        warnings.simplefilter("ignore", amr.AMRWarning)
        first = ROWS.amr.map_reduce(lm=server.lm(token_counter=counted), plan=plan, **case)
        answer[0] = typical
        server.requests.clear()
        first.retry()
        assert (asked[0].calls, asked[0].asked) == (40, 80)
        assert asked[1].calls == len(server.requests) < 10


def test_a_verification_is_estimated_by_the_shards_of_its_sample():
    asked: list[amr.Estimate] = []
    budget = amr.Budget(confirm=lambda estimate: asked.append(estimate) or True)
    with ScriptedServer(typical) as server:
        lm = server.lm(token_counter=counted)
        result = ROWS.amr.map_reduce(lm=lm, columns=["text"], budget=budget, **SHAPES["static"])
        server.requests.clear()
        result.verify(share=0.3)
        assert (asked[1].calls, asked[1].asked) == (len(server.requests), 24)
    assert asked[1].shards == len(asked[1].sizes) == asked[1].calls


def test_instructions_that_fail_for_all_rows_take_no_call_and_no_run_gives_up(refusing, caplog):
    agent = amr.Agent(lambda row: 1 / 0)
    plan = ROWS.amr.plan(lm=refusing.lm(), **{**FOUND, "map": agent, "reduce": {"mood": "count"}})
    assert (plan.estimate().calls, plan.requests(3), caplog.text) == (0, [], "")


# What is redacted


class Mask:
    """Takes digits out, and notes what it is given."""

    __name__ = "mask"

    def __init__(self) -> None:
        self.given: list[str] = []

    def __call__(self, text: str) -> str:
        self.given.append(text)
        return "".join("#" if letter.isdigit() else letter for letter in text)


REDACTED = [
    "static",
    "by groups",
    "direct",
    "instruction by row",
    "an agent and a function",
    "columns by groups",
    "a number",
    "transposed",
]


@pytest.mark.parametrize("shape", REDACTED)
@pytest.mark.sampled(3)
def test_an_estimate_counts_what_a_run_sends_that_redacts(shape):
    case = dict(SHAPES[shape])
    columns = {} if shape == "transposed" else {"columns": ["text"]}
    mask = Mask()
    with ScriptedServer(typical) as server, amr.settings(redact=mask):
        lm = server.lm(token_counter=counted)
        plan = ROWS.amr.plan(lm=lm, **columns, **case)
        estimate, planned = plan.estimate(), list(mask.given)
        (body,) = plan.requests(1)
        result = ROWS.amr.map_reduce(lm=lm, **columns, **case)
        assert estimate.calls == len(server.requests)
        assert body["messages"] == server.requests[0].body["messages"]
    assert "row 1" not in json.dumps(body)
    assert estimate.input_tokens == pytest.approx(result.total.input_tokens, rel=0.03)
    values = {str(value) for column in ROWS for value in ROWS[column]}
    instructions = {f"What of {group}?" for group in ROWS["group"]}
    assert set(planned) <= values | instructions | set(ROWS.columns)  # nothing that only a dry run has found
    assert len(planned) == len(set(planned))


@pytest.mark.parametrize("shape", ["static", "an agent and a function", "instruction by row"])
def test_a_redact_function_that_fails_is_one_error_and_nothing_is_sent(shape, refusing):
    def redact(text: str) -> str:
        if text in {ROWS["text"][3], "What of g3?"}:
            raise ValueError(text)
        return text

    with amr.settings(redact=redact), pytest.raises(amr.UsageError, match="redact=redact raised ValueError") as raised:
        ROWS.amr.plan(lm=refusing.lm(), columns=["text"], **SHAPES[shape])
    assert ROWS["text"][3] not in str(raised.value)


# Large frames


def many(count: int) -> pd.DataFrame:
    texts = [f"row {n} " + "word " * int(WORDS[n % 200]) for n in range(count)]
    return pd.DataFrame({"text": texts, "group": [f"g{n // 2}" for n in range(count)]})


LARGE: dict[str, tuple[int, dict[str, Any]]] = {
    "a static tree": (3100, {**FOUND, "reduce": "C.", "plan": {"shard_size": 20, "fan_in": 12}}),
    "an adaptive tree": (3300, {**FOUND, "reduce": "C.", "plan": {"shard_size": 20, "reduce_budget": 6000}}),
    "groups": (500, {**FOUND, "reduce": "C.", "by": "group", "plan": {"shard_size": 20}}),
}


@pytest.mark.long
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


@pytest.mark.long
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


FIVE = np.random.default_rng(2).choice(list("abcde"), size=4000, p=[0.9, 0.04, 0.03, 0.02, 0.01])
SKEWED = [f"g{int(rank) % 900}" for rank in np.random.default_rng(2).zipf(1.6, size=4000)]
IN_PART: dict[str, tuple[list[str], dict[str, Any]]] = {
    "pieces": (FIVE, {"map": "W", "finding": {"n": int}, "plan": {"shard_tokens": 900}, "reduce": {"n": "sum"}}),
    "a static tree": (FIVE, {**FOUND, "plan": {"fan_in": 7}}),
    "columns": (FIVE, {**FOUND, "plan": {"fan_in": 7}, "reduce": {"gist": amr.Agent("S.")}}),
    "an adaptive tree": (FIVE, {**FOUND, "plan": {"reduce_budget": 9000}}),
    "few groups": (FIVE, {**FOUND, "by": "group", "plan": {"reduce_budget": 9000}}),
    "many groups": (SKEWED, {**FOUND, "by": "group", "plan": {"reduce_budget": 9000}}),
}


@pytest.mark.parametrize("empty", [False, pytest.param(True, marks=pytest.mark.long)], ids=["", "empty"])
@pytest.mark.parametrize(
    "shape", [*list(IN_PART)[:2], *(pytest.param(shape, marks=pytest.mark.long) for shape in list(IN_PART)[2:])]
)
def test_a_part_of_a_frame_tells_what_the_whole_would(shape, empty, refusing, monkeypatch):
    groups, case = IN_PART[shape]
    frame = many(4000).assign(group=groups)
    frame.loc[frame.index % 499 == 7, "text"] *= 60  # longer than a shard
    if empty:
        frame.loc[frame.index % 3 == 1, "text"] = " "
    plan = frame.amr.plan(lm=refusing.lm(token_counter=counted), columns=["text"], **({"reduce": "C."} | case))
    part_of_it = plan.estimate()
    monkeypatch.setattr(part, "MOST_UNITS", 10**6)
    monkeypatch.setattr(part, "MOST_GROUPS", 10**6)
    plan = frame.amr.plan(lm=refusing.lm(token_counter=counted), columns=["text"], **({"reduce": "C."} | case))
    whole = plan.estimate()
    assert part_of_it.calls == pytest.approx(whole.calls, rel=0.05 if part_of_it.about else 0)
    assert part_of_it.input_tokens == pytest.approx(whole.input_tokens, rel=0.05)
    assert part_of_it.output_tokens == pytest.approx(whole.output_tokens, rel=0.05)
    assert (part_of_it.tree, part_of_it.sizes) == (whole.tree, whole.sizes)
    assert part_of_it.about or not whole.about


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
