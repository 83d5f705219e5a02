"""An agent: turns of a model and its tools, until it submits or its steps are used up."""

from __future__ import annotations

import asyncio
import functools
import threading
import time

import pandas as pd
import pytest
from pydantic import BaseModel, Field

import pandas_amr as amr
from pandas_amr._agent.answers import decode_answer
from pandas_amr.testing import Call, Raw, ScriptedServer

DF = pd.DataFrame({"text": ["row 1"]})


def ask(provider, **options):
    with ScriptedServer(provider) as server:
        frame = DF.amr.map("Read.", finding={"n": int}, lm=server.lm(), **options)
    return frame["n"].tolist(), server.requests


@amr.tool
def lookup(key: str, times: int = 1) -> str:
    """Look a key up."""
    return key * times


def test_tools_are_told_by_the_system_and_their_results_come_back():
    def provider(request):
        if not request.tool_results:
            return Call("lookup", {"key": "7"})
        return {"findings": [{"unit": 0, "n": int(request.tool_results[0])}]}

    found, requests = ask(provider, tools=[lookup])
    assert found == [7]
    told = requests[0].body["tools"][0]["function"]
    assert told["name"] == "lookup"
    assert told["description"] == "Look a key up."
    assert told["parameters"]["required"] == ["key"]


def test_several_calls_of_one_turn_run_at_once_and_answer_in_order():
    """Each waits for the other: one after another they would time out."""
    barrier = threading.Barrier(3, timeout=120)

    @amr.tool
    def meet(name: str) -> str:
        """Wait for the others."""
        barrier.wait()
        time.sleep(0.01 * (3 - int(name)))
        return name

    def provider(request):
        if not request.tool_results:
            return [Call("meet", {"name": str(n)}) for n in range(3)]
        return {"findings": [{"unit": 0, "n": int("".join(request.tool_results))}]}

    assert ask(provider, tools=[meet])[0] == [12]


def test_async_tools_run_on_the_engine():
    @amr.tool
    async def slow(x: int) -> dict:
        """Take a moment."""
        await asyncio.sleep(0)
        return {"x": x}

    def provider(request):
        if not request.tool_results:
            return Call("slow", {"x": 4})
        assert request.tool_results == ['{"x": 4}']
        return {"findings": [{"unit": 0, "n": 4}]}

    assert ask(provider, tools=[slow])[0] == [4]


def test_what_goes_wrong_with_a_tool_goes_back_to_the_agent_as_text_that_names_it():
    @amr.tool(timeout_s=0.05)
    async def hang() -> str:
        """Never end."""
        await asyncio.sleep(60)
        return ""

    @amr.tool
    def broken(x: int) -> str:
        """Fail."""
        raise KeyError("no such thing")

    calls = [
        Call("broken", {"x": 1}),
        Call("broken", {"y": 1}),
        Call("broken", "{not json"),
        Call("hang", {}),
        Call("search", {}),
    ]

    def provider(request):
        return {"findings": [{"unit": 0, "n": 1}]} if request.tool_results else calls

    _, requests = ask(provider, tools=[broken, hang])
    raised, arguments, syntax, timed_out, unknown = requests[1].tool_results
    assert raised == "broken raised KeyError: 'no such thing'"
    assert "broken: these arguments do not fit: x: Field required; y: Extra inputs" in arguments
    assert "broken: these arguments do not fit" in syntax
    assert timed_out == "hang gave no answer within 0.05 s."
    assert unknown == "There is no tool 'search'. There is: broken, hang."


@pytest.mark.parametrize("max_steps", [1, 3, 6])
def test_after_max_steps_one_turn_without_tools_is_forced(max_steps):
    def provider(request):
        return Call("lookup", {"key": "k"}) if request.tools else {"findings": [{"unit": 0, "n": 5}]}

    found, requests = ask(provider, tools=[lookup], max_steps=max_steps)
    assert found == [5]
    assert [bool(request.tools) for request in requests] == [True] * max_steps + [False]
    assert requests[-1].schema == "findings"
    assert "No more tool calls" in requests[-1].user


def test_six_steps_are_the_default():
    def provider(request):
        return Call("lookup", {"key": "k"}) if request.tools else {"findings": [{"unit": 0, "n": 5}]}

    assert len(ask(provider, tools=[lookup])[1]) == 7


def test_an_answer_in_words_where_a_submission_was_due_is_asked_for_in_form():
    def provider(request):
        return Raw("I am done.") if request.tools else {"findings": [{"unit": 0, "n": 5}]}

    found, requests = ask(provider, tools=[lookup])
    assert found == [5]
    assert len(requests) == 2


def test_findings_in_plain_text_are_taken_as_they_are():
    found, requests = ask(lambda request: Raw('```json\n{"findings": [{"unit": 0, "n": 5}]}\n```'), tools=[lookup])
    assert found == [5]
    assert len(requests) == 1


def test_an_args_schema_of_ones_own_checks_the_arguments():
    class Args(BaseModel):
        count: int = Field(ge=1, description="how many")

    tool = amr.Tool(lambda count: str(count), name="counted", description="Count.", args_schema=Args)

    def provider(request):
        if not request.tool_results:
            return [Call("counted", {"count": 0}), Call("counted", {"count": 2})]
        assert "greater than or equal to 1" in request.tool_results[0]
        return {"findings": [{"unit": 0, "n": int(request.tool_results[1])}]}

    found, requests = ask(provider, tools=[tool])
    assert found == [2]
    assert (
        requests[0].body["tools"][0]["function"]["parameters"]["properties"]["count"]["description"]
        == "how many (at least 1)"
    )


def test_plain_functions_serve_as_tools_and_decorated_ones_stay_functions():
    def double(x: int) -> int:
        """Twice x."""
        return 2 * x

    def provider(request):
        if not request.tool_results:
            return Call("double", {"x": 21})
        return {"findings": [{"unit": 0, "n": int(request.tool_results[0])}]}

    assert ask(provider, tools=[double])[0] == [42]
    assert lookup("a", 3) == "aaa"
    assert repr(lookup) == "<Tool lookup(key, times)>"


def test_a_tool_that_cannot_be_told_to_a_model_is_refused():
    with pytest.raises(amr.UsageError, match="needs a description"):
        amr.Tool(lambda x: x, name="f")
    with pytest.raises(amr.UsageError, match="has its own tool"):
        amr.Tool(lookup.func, name="submit_findings")
    with pytest.raises(amr.UsageError, match="cannot be passed by name"):
        amr.Tool(lambda *xs: xs, name="f", description="F.")
    with pytest.raises(amr.UsageError, match="two tools named lookup"):
        DF.amr.map("Read.", tools=[lookup, lookup], lm=amr.LM("m", base_url="http://127.0.0.1:9"))


# Tools of every kind of callable


class Doubler:
    """Twice x."""

    def __call__(self, x: int) -> int:
        return 2 * x


def times(x: int, by: int = 3) -> Unimported:  # noqa: F821 (as with an import for types only)
    """Some times x."""
    return x * by


def doubled_by_names_of_models(
    json: int, copy: int = 0, model_config: int = 0, _x: int = 0, model_dump_x: int = 0
) -> int:
    """Twice the argument."""
    return 2 * json + copy + model_config + _x + model_dump_x


def doubled_by_fields(x: int = Field(20, ge=0, description="what to double"), y: object = Doubler()) -> int:
    """Twice x, or twice the default."""
    assert isinstance(y, Doubler)
    return 2 * x


def doubled_by_odd_defaults(x: float = float("nan"), y: str = "\ud800") -> int:
    """Forty if all is left out."""
    assert x != x  # noqa: PLR0124 (it is not a number)
    assert y == "\ud800"
    return 40


class Half(str):
    """A text that does what it wants."""

    __slots__ = ()

    def __str__(self) -> str:
        raise SystemExit

    def encode(self, *args: str) -> bytes:
        raise SystemExit


def forty_as_a_text_of_its_own() -> str:
    """Forty."""
    return Half("40")


CALLABLES = {
    "an object": (amr.Tool(Doubler(), name="f"), {"x": 20}),
    "a partial": (amr.Tool(functools.partial(times, by=2), name="f"), {"x": 20}),
    "a partial of positions": (amr.Tool(functools.partial(times, 20), name="f"), {"by": 2}),
    "a cached function": (amr.Tool(functools.lru_cache(times), name="f"), {"x": 20, "by": 2}),
    "names that a model has itself": (amr.Tool(doubled_by_names_of_models, name="f"), {"json": 18, "_x": 2, "copy": 2}),
    "a field as a default": (amr.Tool(doubled_by_fields, name="f"), {}),
    "defaults that JSON has no form for": (amr.Tool(doubled_by_odd_defaults, name="f"), {}),
    "a text of its own": (amr.Tool(forty_as_a_text_of_its_own, name="f"), {}),
}


@pytest.mark.parametrize("kind", CALLABLES)
def test_whatever_can_be_called_is_a_tool(kind):
    tool, arguments = CALLABLES[kind]

    def provider(request):
        if not request.tool_results:
            return Call("f", arguments)
        return {"findings": [{"unit": 0, "n": int(request.tool_results[0])}]}

    found, requests = ask(provider, tools=[tool])
    assert found == [40]
    described = requests[0].body["tools"][0]["function"]
    assert "partial" not in described["description"]
    assert arguments.keys() <= described["parameters"]["properties"].keys()


def test_a_field_that_is_a_default_checks_and_describes_its_argument():
    tool = amr.Tool(doubled_by_fields)
    assert tool.parameters["properties"]["x"]["description"] == "what to double"
    assert tool.parameters["required"] == []

    def provider(request):
        if not request.tool_results:
            return Call(tool.name, {"x": -1})
        assert "greater than or equal to 0" in request.tool_results[0]
        return {"findings": [{"unit": 0, "n": 1}]}

    assert ask(provider, tools=[tool])[0] == [1]


async def yielding(x: int):
    """Yield x."""
    yield x


def of_frames(x: pd.DataFrame) -> int:
    """Take a frame."""
    return len(x)


def of_unknown(x: Unimported) -> int:  # noqa: F821
    """Take what is not here."""
    return x


UNUSABLE_TOOLS = {
    "no signature": ((max,), {}, "the parameters of <built-in function max> cannot be found; use args_schema="),
    "an unknown type": ((of_unknown,), {}, r"cannot be read \(name 'Unimported' is not defined\); use args_schema="),
    "a type of no JSON": ((of_frames,), {}, r"schema for <class 'pandas\..*DataFrame'>\); use args_schema="),
    "a generator of an event loop": ((yielding,), {}, "yields: return a list"),
    "a tool": ((lookup,), {}, r"is a tool already; its function is lookup\.func"),
    "half of a character": ((times,), {"description": "\ud800"}, "contains a lone surrogate"),
    "a blank description": ((times,), {"description": " "}, "needs a description"),
    "a number as the name": ((times,), {"name": 5}, r"Tool\(name=...\) takes a text, not 5"),
    "a number as the description": ((times,), {"description": 5}, r"Tool\(description=...\) takes a text, not 5"),
    "a number as the version": ((times,), {"version": 5}, r"Tool\(version=...\) takes a text, not 5"),
    "a text as a switch": ((times,), {"isolated": "no"}, r"Tool\(isolated=...\) takes True or False, not 'no'"),
    "a dict as the schema": ((times,), {"args_schema": {"x": int}}, "takes a pydantic model, not {'x'"),
    "a text as the time": ((times,), {"timeout_s": "60"}, "takes seconds above 0, or None for no limit, not '60'"),
    "no time": ((times,), {"timeout_s": 0}, "takes seconds above 0"),
    "time that is no number": ((times,), {"timeout_s": float("nan")}, "takes seconds above 0"),
}


@pytest.mark.parametrize("kind", UNUSABLE_TOOLS)
def test_what_is_no_tool_is_refused_with_what_would_be_right(kind):
    arguments, options, problem = UNUSABLE_TOOLS[kind]
    with pytest.raises(amr.UsageError, match=problem):
        amr.Tool(*arguments, **options)


def test_a_tool_that_cancels_its_task_fails_alone():
    @amr.tool
    async def leave() -> None:
        """Leave."""
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    class Unreadable(Exception):
        def __str__(self) -> str:
            raise SystemExit

    @amr.tool
    def broken() -> None:
        """Break."""
        raise Unreadable

    def provider(request):
        if not request.tool_results:
            return [Call("leave", {}), Call("broken", {})]
        assert request.tool_results == [
            "leave raised RuntimeError: CancelledError was raised",
            "broken raised Unreadable: its text raised SystemExit",
        ]
        return {"findings": [{"unit": 0, "n": 1}]}

    assert ask(provider, tools=[leave, broken])[0] == [1]


@pytest.mark.parametrize(
    ("text", "finish", "problem"),
    [
        ("", "stop", "the answer is empty"),
        (" ", "length", "the answer is empty, its tokens were used up"),
        ("{a", "length", "the answer was cut off at its greatest length"),
        ("[1]", "stop", "the answer is not a JSON object"),
        (None, "stop", "the answer is empty"),
    ],
)
def test_what_is_no_answer_is_told_by_its_reason(text, finish, problem):
    assert decode_answer(text, finish) == (None, problem)
