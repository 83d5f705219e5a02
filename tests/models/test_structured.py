"""The ladder of structured output: every rung, learned once a server, told in the trace."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from pydantic import BaseModel

import pandas_amr as amr
from numbered import number
from pandas_amr.testing import Call, Raw, ScriptedServer, Status, findings

# Requests wait two seconds for an answer to the first of their kind.
pytestmark = pytest.mark.usefixtures("no_time_passes")

DF = pd.DataFrame({"text": [f"row {n}" for n in range(12)]})


class Inner(BaseModel):
    name: str


class Nested(BaseModel):
    n: int
    inner: Inner
    others: list[Inner]


def form_of(request) -> str:
    wanted = request.body.get("response_format", {}).get("type")
    if request.body.get("tool_choice"):
        return "tool"
    return {"json_schema": "schema", "json_object": "json_object", None: "prompt"}[wanted]


REFUSALS = {
    "schema": "response_format.type 'json_schema' is not supported",
    "tool": "this server does not support tools",
    "json_object": "unknown field: response_format",
}


@pytest.mark.parametrize("rung", ["schema", "tool", "json_object", "prompt"])
def test_a_server_is_asked_in_the_best_form_that_it_takes_and_it_is_learned_once(rung):
    rungs = ["schema", "tool", "json_object", "prompt"]

    def provider(request):
        form = form_of(request)
        if rungs.index(form) < rungs.index(rung):
            return Status(400, REFUSALS[form])
        answer = findings(request, number)
        return Call("submit_findings", answer) if form == "tool" else Raw(json.dumps(answer))

    with ScriptedServer(provider) as server:
        lm = server.lm()
        options = {"map": "Which?", "finding": {"n": int}, "plan": {"shard_size": 3}, "max_parallelism": 1, "lm": lm}
        result = DF.amr.map_reduce(reduce={"n": "sum"}, **options)
        first = [form_of(request) for request in server.requests]
        DF.amr.map_reduce(reduce={"n": "sum"}, **options)
        second = [form_of(request) for request in server.requests[len(first) :]]
    assert result.output["n"] == sum(range(12))
    assert first == [*rungs[: rungs.index(rung)], *[rung] * 4]
    assert second == [rung] * 4
    assert set(result.trace.loc[result.trace["type"] == "map", "form"]) == {rung}
    if rung in {"json_object", "prompt"}:
        assert '"properties"' in server.requests[-1].user


def test_a_form_in_which_a_request_is_only_too_long_is_where_the_next_one_begins():
    """DeepSeek, as its servers were in 2025: JSON mode alone, and a window that is narrower than shards are."""

    def provider(request):
        form = form_of(request)
        if form in {"schema", "tool"}:
            return Status(400, {"schema": "This response_format type is unavailable now"}.get(form, REFUSALS[form]))
        if len(request.units) > 3:
            return Status(400, "This model's maximum context length is 500 tokens. However, you requested 3000 tokens.")
        return Raw(json.dumps(findings(request, number)))

    with ScriptedServer(provider) as server:
        found = DF.amr.map("Which?", finding={"n": int}, lm=server.lm(), plan={"shard_size": 12})
    assert found["n"].tolist() == list(range(12))
    assert [form_of(request) for request in server.requests] == ["schema", "tool", *["json_object"] * 7]


def test_a_refusal_of_the_content_does_not_move_down_the_ladder():
    def provider(request):
        if any(unit["text"] == "row 1" for unit in request.units):
            return Status(400, "this content violates our policy")
        return findings(request, number)

    with ScriptedServer(provider) as server:
        result = DF.amr.map_reduce(map="Which?", finding={"n": int}, reduce={"n": "count"}, lm=server.lm())
        assert {form_of(request) for request in server.requests} == {"schema"}
    assert result.failures["position"].tolist() == [1]


def test_a_form_that_has_worked_is_kept_when_a_row_speaks_of_schemas():
    def provider(request):
        if any(unit["text"] == "row 9" for unit in request.units):
            return Status(400, "schema of the content not supported")
        return findings(request, number)

    with ScriptedServer(provider) as server:
        plan = {"shard_size": 3}
        DF.amr.map_reduce(
            map="Which?", finding={"n": int}, reduce={"n": "count"}, plan=plan, max_parallelism=1, lm=server.lm()
        )
        assert {form_of(request) for request in server.requests} == {"schema"}


def test_schemas_are_self_contained_and_closed():
    with ScriptedServer(lambda r: findings(r, lambda u: number(u) | {"inner": {"name": "x"}, "others": []})) as server:
        DF.head(2).amr.map("Which?", finding=Nested, lm=server.lm())
    schema = server.requests[0].body["response_format"]["json_schema"]
    text = json.dumps(schema)
    assert "$ref" not in text
    assert "$defs" not in text
    assert schema["strict"] is True
    item = schema["schema"]["properties"]["findings"]["items"]
    assert item["required"] == ["unit", "n", "inner", "others"]
    assert item["additionalProperties"] is False


@pytest.mark.parametrize(
    "body",
    [
        {"choices": [{"message": {"content": '{"findings": [{"unit": 0, "n": 0}]}'}}]},
        {"choices": [{"message": {"content": '{"findings": [{"unit": 0, "n": 0}]}'}}, {"message": {"content": "no"}}]},
        {
            "choices": [
                {
                    "message": {
                        "role": "assistant",
                        "content": '{"findings": [{"unit": 0, "n": 0}]}',
                        "tool_calls": None,
                    },
                    "finish_reason": None,
                }
            ],
            "usage": None,
        },
    ],
    ids=["bare", "several choices", "nulls"],
)
def test_what_servers_leave_out_is_not_missed(body):
    with ScriptedServer(lambda r: Raw(body=json.dumps(body))) as server:
        result = DF.head(1).amr.map_reduce(map="Which?", finding={"n": int}, reduce={"n": "sum"}, lm=server.lm())
    assert result.output["n"] == 0
    assert result.total.estimated == 1
    assert result.total.tokens > 0


def test_tool_arguments_that_are_no_json_are_sent_back():
    @amr.tool
    def look(x: int) -> int:
        """Look."""
        return x

    answers = iter([Call("submit_findings", "{broken")])
    with ScriptedServer(lambda r: next(answers, None) or findings(r, number)) as server:
        found = DF.head(1).amr.map("Which?", finding={"n": int}, tools=[look], lm=server.lm())
    assert found["n"].tolist() == [0]
    assert "not a JSON object" in server.requests[1].user
