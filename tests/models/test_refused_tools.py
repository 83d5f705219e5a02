"""What a server says of tools, of a key or of a parameter is taken for what it is: one error, or a lesson, not each row's."""

from __future__ import annotations

import pandas as pd
import pytest

import pandas_amr as amr
from moments import move_on, turn_engine, until
from numbered import number
from pandas_amr.errors import ModelConfigError
from pandas_amr.testing import Call, ScriptedServer, Status, findings

# Requests wait two seconds for an answer to the first of their kind.
pytestmark = pytest.mark.usefixtures("no_time_passes")

DF = pd.DataFrame({"text": [f"row {n}" for n in range(12)]})
GIVEN = {"map": "Which row?", "finding": {"n": int}, "reduce": {"n": "sum"}, "progress": False}


@amr.tool
def look(x: str) -> str:
    """Look it up."""
    return x


def run(server, **options):
    return DF.amr.map_reduce(**GIVEN, plan={"shard_size": 3}, max_parallelism=4, lm=server.lm(max_tries=1), **options)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),  # vLLM
        (500, "tools param requires --jinja flag"),  # llama.cpp
        (400, "registry.ollama.ai/library/gemma:2b does not support tools"),
        (400, "`tool calling` is not supported with this model"),  # Groq
        (400, "Function calling is not enabled for models/gemma-3-27b-it"),  # Gemini
        (422, "This model doesn't support tool use."),
        (501, "Tools are not implemented."),
        (400, "Unrecognized request argument supplied: tools"),
        (422, "body.tools: Extra inputs are not permitted"),
        (400, "Invalid schema for function 'look': In context=(), 'x' is not permitted."),
    ],
)
def test_a_server_that_takes_no_tools_is_asked_once_and_the_error_says_what_would_go(status, said):
    with ScriptedServer(lambda request: Status(status, said)) as server:
        with pytest.raises(ModelConfigError, match="Without tools") as stopped:
            run(server, tools=[look])
        assert len(server.requests) == 1
    assert said.removesuffix(".") in str(stopped.value)
    assert stopped.value.status == status


def test_a_server_that_takes_no_tools_answers_those_who_have_none():
    with ScriptedServer(lambda r: Status(400, "no support for tools") if r.tools else findings(r, number)) as server:
        with pytest.raises(ModelConfigError):
            run(server, tools=[look])
        assert run(server).output["n"] == sum(range(12))


def test_a_row_that_speaks_of_tools_is_refused_alone_once_tools_were_taken():
    def provider(request):
        if any(unit["text"] == "row 9" for unit in request.units):
            return Status(400, "the tools in this text are not supported")
        return Call("submit_findings", findings(request, number))

    with ScriptedServer(provider) as server:
        result = run(server, tools=[look])
    assert result.failures["position"].tolist() == [9]


@pytest.mark.parametrize(
    ("said", "code"),
    [("API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT"), ("No such model", "invalid_parameter")],
)
def test_a_code_that_stands_for_any_refusal_hides_no_wrong_key_or_model(said, code):
    with ScriptedServer(lambda request: Status(400, said, code=code)) as server:
        with pytest.raises(ModelConfigError):
            run(server)
        assert len(server.requests) <= 3  # a refusal may be of what the first rows say


def test_what_is_refused_for_any_schema_is_learned_of_a_prompt_that_is_too_long_too():
    def provider(request):
        if "response_format" in request.body and request.body["response_format"]["type"] == "json_schema":
            return Status(400, "This response_format type is unavailable now")
        if request.tools:
            return Status(400, "this tool_choice is not supported")
        if len(request.units) > 3:
            return Status(400, "too long", code="context_length_exceeded")
        return findings(request, number)

    with ScriptedServer(provider) as server:
        options = {"plan": {"shard_size": 12}, "max_parallelism": 1}
        assert DF.amr.map_reduce(**GIVEN, **options, lm=server.lm()).output["n"] == sum(range(12))
        asked = [len(request.units) for request in server.requests]
    assert sorted(asked) == [3, 3, 3, 3, 6, 6, 12, 12, 12]


def test_the_first_request_with_tools_goes_alone_however_long_it_waits_until_it_is_sent():
    paused = [Status(429, "slow down", headers={"retry-after": "30"})]

    def provider(request):
        if request.tools:
            return Status(400, "no support for tools")
        return paused.pop() if request.number == 1 else findings(request, number)

    with ScriptedServer(provider) as server:
        lm = server.lm()
        assert DF.head(1).amr.map_reduce(**GIVEN, lm=lm).output["n"] == 0
        paused_run = DF.head(1).amr.start(**GIVEN, lm=lm)
        until(lambda: paused_run.progress.waiting)
        with_tools = DF.amr.start(**GIVEN, plan={"shard_size": 1}, lm=lm, tools=[look])
        until(lambda: with_tools.progress.stage.startswith("map"))
        turn_engine()
        move_on(10.0)
        turn_engine()
        move_on(30.0)
        with pytest.raises(ModelConfigError, match="Without tools"):
            with_tools.result()
        assert paused_run.result().output["n"] == 0
        assert len([request for request in server.requests if request.tools]) == 1
