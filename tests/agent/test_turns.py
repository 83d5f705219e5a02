"""Turns are echoed as they came, and an answer is read in whichever form a server gives it."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

import pandas_amr as amr
from pandas_amr._agent.answers import decode_answer
from pandas_amr.sandbox.base import Cell, Submitted
from pandas_amr.testing import Call, Raw, ScriptedServer, Status

DF = pd.DataFrame({"text": ["row 1"]})
TWO = pd.DataFrame({"text": ["row 0", "row 1"]})
FOUND = {"findings": [{"unit": 0, "n": 5}]}


@amr.tool
def lookup(key: str = "none") -> str:
    """Look a key up."""
    return f"<{key}>"


def body_of(message: dict[str, Any], reason: str = "stop") -> Raw:
    """A whole answer that holds a message as it is."""
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return Raw(body=json.dumps({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}))


def call_of(name: str = "lookup", arguments: Any = '{"key": "7"}', **more: Any) -> dict[str, Any]:
    return {"id": "call-a", "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def play(*turns: Any, frame: pd.DataFrame = DF, **options: Any):
    """Give these answers, one after the other; return what was found, and the requests."""
    given = iter(turns)
    options = {"tools": [lookup]} | options
    with ScriptedServer(lambda request: next(given)) as server:
        found = frame.amr.map_reduce(
            map="Read.", finding={"n": int}, reduce={"n": "count"}, lm=server.lm(max_tries=1), **options
        )
    check_answered(server.requests)
    return found, server.requests


def check_answered(requests) -> None:
    """Every call in a history has its answer, right after it; no call's name or arguments is one that servers refuse."""
    for request in requests:
        open_: list[str] = []
        for message in request.messages:
            if message["role"] == "tool":
                open_.remove(message["tool_call_id"])
                continue
            assert not open_, f"{open_} without an answer"
            calls = message.get("tool_calls", [])
            open_ = [call["id"] for call in calls]
            assert len(set(open_)) == len(open_)
            for call in calls:
                assert call["type"] == "function"
                assert call["function"]["name"].replace("_", "").replace("-", "").isalnum()
                assert isinstance(json.loads(call["function"]["arguments"]), dict)
            assert message["content"] or calls
        assert not open_, f"{open_} without an answer"


PUT_IN = {
    "DeepSeek's reasoning": {"reasoning_content": "So ..."},
    "empty reasoning": {"reasoning_content": ""},
    "OpenRouter's reasoning": {"reasoning": "So ...", "reasoning_details": [{"type": "x", "data": "abc", "n": 1}]},
    "unknown keys": {"x_state": {"a": [1, None, {"b": "é"}]}, "y": 3},
    "content beside calls": {"content": "I look."},
    "empty content beside calls": {"content": ""},
    "parts": {
        "content": [{"type": "thinking", "thinking": "Hm", "signature": "s"}, {"type": "text", "text": "I look."}]
    },
}


@pytest.mark.parametrize("put_in", PUT_IN.values(), ids=PUT_IN.keys())
@pytest.mark.parametrize("next_turn", ["tool", "repair"])
@pytest.mark.sampled(3)
def test_what_a_provider_puts_into_a_message_goes_back_unchanged(put_in, next_turn):
    if next_turn == "tool":
        said = {"role": "assistant", "content": None, **put_in, "tool_calls": [call_of()]}
    else:
        said = {"role": "assistant", "content": '{"findings": []}', **put_in}
        said["content"] = said["content"] or '{"findings": []}'
    _, requests = play(body_of(said), FOUND, tools=[lookup] if next_turn == "tool" else [])
    echoed = next(message for message in requests[1].messages if message["role"] == "assistant")
    assert echoed == said


def test_a_signature_in_a_call_goes_back_unchanged():
    signed = call_of(extra_content={"google": {"thought_signature": "c2ln"}}, index=0)
    signed["function"]["strict"] = True
    _, requests = play(body_of({"role": "assistant", "tool_calls": [signed]}, "tool_calls"), FOUND)
    assert requests[1].messages[-2]["tool_calls"] == [signed]


@pytest.mark.parametrize(
    "refused",
    [
        {"refusal": None},
        {"audio": None},
        {"annotations": []},
        {"function_call": None},
        {"reasoning_content": None},
        {"tool_calls": None, "content": '{"findings": []}'},
        {"tool_calls": [], "content": '{"findings": []}'},
    ],
    ids=str,
)
def test_what_servers_put_in_empty_and_refuse_is_left_out(refused):
    said = {"role": "assistant", "content": None, "tool_calls": [call_of()], **refused}
    _, requests = play(body_of(said), FOUND)
    echoed = next(message for message in requests[1].messages if message["role"] == "assistant")
    assert not echoed.keys() & (refused.keys() - {"content"})


def test_what_a_server_does_not_take_back_is_left_out():
    """As the first DeepSeek-R1 did: it gave its reasoning, and refused it."""
    said = {"role": "assistant", "content": '{"findings": []}', "reasoning_content": "So ..."}

    def provider(request):
        if any("reasoning_content" in message for message in request.messages):
            return Status(400, "messages[2].reasoning_content: not allowed in the input messages")
        return FOUND if len(request.messages) > 2 else body_of(said)

    with ScriptedServer(provider) as server:
        result = DF.amr.map_reduce(map="Read.", finding={"n": int}, reduce={"n": "count"}, lm=server.lm())
    assert result.frame["n"].tolist() == [5]
    assert result.total.tries == len(server.requests) == 3


def test_half_of_a_character_does_not_keep_a_turn_from_being_sent():
    raw = json.dumps({"role": "assistant", "content": "a \ud83d b", "reasoning": "\udc00", "tool_calls": [call_of()]})
    result, requests = play(Raw(body='{"choices": [{"message": ' + raw + "}]}"), FOUND)
    assert result.frame["n"].tolist() == [5]
    assert requests[1].messages[-2]["content"] == "a \ufffd b"


ARGUMENTS = {  # as the server gives them: what goes back, and what the agent is told
    "none": (None, "{}", "<none>"),
    "empty": ("", "{}", "<none>"),
    "blank": (" \n", "{}", "<none>"),
    "an object": ({"key": "7"}, '{"key": "7"}', "<7>"),
    "encoded twice": (json.dumps('{"key": "7"}'), '{"key": "7"}', "<7>"),
    "no JSON": ("{broken", "{}", "lookup: these arguments do not fit: "),
    "cut off": ('{"key": "7', "{}", "lookup: these arguments do not fit: "),
    "a list": ("[1]", "{}", "lookup: these arguments do not fit: "),
    "a null": ("null", "{}", "lookup: these arguments do not fit: "),
    "NaN": ('{"key": NaN}', "{}", "lookup: these arguments do not fit: "),
    "a doubled key": ('{"key": "1", "key": "2"}', '{"key": "1", "key": "2"}', "names a key twice"),
    "deep": ('{"key": ' + "[" * 5000, "{}", "lookup: these arguments do not fit: "),
    "deep and closed": ('{"key": ' + "[" * 300 + "]" * 300 + "}", None, "lookup: these arguments do not fit: "),
    "half of a character": ('{"key": "\\ud83d"}', '{"key": "\\ud83d"}', "lookup: these arguments do not fit: "),
    "a long number": ('{"key": ' + "1" * 6000 + "}", "{}", "lookup: these arguments do not fit: "),
}


@pytest.mark.parametrize(("given", "echoed", "told"), ARGUMENTS.values(), ids=ARGUMENTS.keys())
@pytest.mark.sampled(4)
def test_arguments_are_repaired_before_they_go_back_and_the_agent_is_told_what_was_wrong(given, echoed, told):
    _, requests = play(body_of({"role": "assistant", "tool_calls": [call_of(arguments=given)]}), FOUND)
    assert told in requests[1].tool_results[0]
    assert len(requests[1].tool_results[0]) < 3000
    if echoed is not None:
        assert requests[1].messages[-2]["tool_calls"][0]["function"]["arguments"] == echoed


def nameless() -> dict[str, Any]:
    return {"id": "call-a", "type": "function", "function": {"arguments": "{}"}}


CALLS = {  # as the server gives them: how they are told
    "without an id": ([{"type": "function", "function": call_of()["function"]}], ["<7>"]),
    "an empty id": ([call_of() | {"id": ""}], ["<7>"]),
    "a number as id": ([call_of() | {"id": 7}], ["<7>"]),
    "doubled ids": ([call_of(), call_of(arguments='{"key": "8"}')], ["<7>", "<8>"]),
    "two without an id": ([call_of() | {"id": None}, call_of() | {"id": None}], ["<7>", "<7>"]),
    "no list": (call_of(), ["<7>"]),
    "without the level `function`": ([{"id": "a", "name": "lookup", "arguments": {"key": "7"}}], ["<7>"]),
    "without a name": ([nameless()], ["There is no tool ''. There is: lookup."]),
    "without a function": ([{"id": "a", "type": "function"}], ["There is no tool ''. There is: lookup."]),
    "an unknown tool": ([call_of("search")], ["There is no tool 'search'. There is: lookup."]),
    "a name with a space": ([call_of("look up!")], ["There is no tool 'look up!'. There is: lookup."]),
    "a name without end": ([call_of("x" * 5000)], [f"There is no tool '{'x' * 64}'. There is: lookup."]),
    "with a namespace": ([call_of("functions.lookup")], ["<7>"]),
    "one that is no object": ([None, "lookup", call_of()], ["<7>"]),
}


@pytest.mark.parametrize(("calls", "told"), CALLS.values(), ids=CALLS.keys())
@pytest.mark.sampled(4)
def test_a_call_is_answered_whatever_its_server_left_out(calls, told):
    result, requests = play(body_of({"role": "assistant", "content": None, "tool_calls": calls}), FOUND)
    assert requests[1].tool_results == told
    assert result.frame["n"].tolist() == [5]


def test_ids_that_are_made_up_are_new_in_each_turn_and_such_as_the_strictest_server_takes():
    turn = body_of({"role": "assistant", "tool_calls": [call_of() | {"id": None}]})
    _, requests = play(turn, turn, turn, FOUND)
    ids = [call["id"] for message in requests[3].messages for call in message.get("tool_calls", [])]
    assert len(set(ids)) == 3
    assert all(len(id_) == 9 and id_.isalnum() for id_ in ids)


def test_a_call_in_the_protocol_s_first_form_is_one():
    said = {"role": "assistant", "content": None, "function_call": {"name": "lookup", "arguments": '{"key": "7"}'}}
    _, requests = play(body_of(said, "function_call"), FOUND)
    assert requests[1].tool_results == ["<7>"]
    assert "function_call" not in requests[1].messages[-2]


def test_a_call_in_both_forms_is_one_call():
    legacy = {"name": "lookup", "arguments": '{"key": "7"}'}
    _, requests = play(body_of({"role": "assistant", "tool_calls": [call_of()], "function_call": legacy}), FOUND)
    assert requests[1].tool_results == ["<7>"]


SUBMIT = Call("submit_findings", FOUND)
LOOK = Call("lookup", {"key": "7"})
EVERY_CALL = {
    "an unknown tool in the last turn": ([LOOK, Call("search", {}), FOUND], {"max_steps": 1}),
    "a known tool in the last turn": ([LOOK, LOOK, FOUND], {"max_steps": 1}),
    "a submission in the last turn": ([LOOK, SUBMIT], {"max_steps": 1}),
    "a submission in the last turn, to be repaired": (
        [LOOK, Call("submit_findings", {"findings": []}), FOUND],
        {"max_steps": 1},
    ),
    "one that is no JSON, then a repair": ([Call("submit_findings", "{broken"), FOUND], {}),
    "a submission beside a call": ([[LOOK, SUBMIT]], {}),
    "a submission beside a call, to be repaired": ([[LOOK, Call("submit_findings", {"findings": []})], FOUND], {}),
    "a submission beside an unknown call": ([[Call("search", {}), SUBMIT, LOOK]], {}),
    "no tools, and called": ([Call("search", {}), FOUND], {"tools": []}),
    "no tools, and a submission called": ([Call("submit_finding", {"n": 5})], {"tools": []}),
    "a call beside the answer, without tools": (
        [body_of({"role": "assistant", "content": json.dumps(FOUND), "tool_calls": [call_of()]})],
        {"tools": []},
    ),
}


@pytest.mark.parametrize(("turns", "options"), EVERY_CALL.values(), ids=EVERY_CALL.keys())
def test_every_call_gets_an_answer_the_last_turn_s_too(turns, options):
    result, requests = play(*turns, **options)
    assert result.frame["n"].tolist() == [5]
    assert len(requests) == len(turns)


def one(unit: int, n: int) -> Call:
    return Call("submit_findings", {"findings": [{"unit": unit, "n": n}]})


SEVERAL = {
    "one per unit": ([[one(0, 4), one(1, 5)]], [4, 5]),
    "one per unit, in the last turn": ([LOOK, [one(0, 4), one(1, 5)]], [4, 5]),
    "one per unit, without tools": ([[one(0, 4), one(1, 5)]], [4, 5]),
    "one of them twice": ([[one(0, 4), one(0, 4), one(1, 5)]], [4, 5]),
    "one of them broken": ([[one(0, 4), Call("submit_findings", "{"), one(1, 5)]], [4, 5]),
    "the last of them broken": ([[one(0, 4), one(1, 5), Call("submit_findings", "{")]], [4, 5]),
    "one of them empty": ([[one(0, 4), Call("submit_findings", {}), one(1, 5)]], [4, 5]),
    "one that contradicts": ([[one(0, 4), one(0, 3), one(1, 5)], {"findings": [{"unit": 0, "n": 4}]}], [4, 5]),
    "one missing": ([[one(0, 4), one(0, 4)], {"findings": [{"unit": 1, "n": 5}]}], [4, 5]),
}


@pytest.mark.parametrize(("turns", "wanted"), SEVERAL.values(), ids=SEVERAL.keys())
def test_several_submissions_of_one_turn_are_one(turns, wanted, request):
    name = request.node.callspec.id
    options = {"tools": []} if "without tools" in name else {"max_steps": 1} if "last turn" in name else {}
    result, requests = play(*turns, frame=TWO, **options)
    assert result.frame["n"].tolist() == wanted
    assert len(requests) == len(turns)


def test_several_submissions_are_one_where_a_forced_tool_is_the_form():
    """The rung of a server without schema responses."""

    def provider(request):
        if request.body.get("response_format"):
            return Status(400, "response_format is not supported")
        return [one(0, 3), one(1, 4)]

    with ScriptedServer(provider) as server:
        assert TWO.amr.map("Read.", finding={"n": int}, lm=server.lm())["n"].tolist() == [3, 4]
        assert len(server.requests) == 2


def of_one(n: int) -> Call:
    return Call("submit_finding", {"n": n})


@pytest.mark.parametrize("said", [[of_one(3), of_one(4)], [of_one(4), of_one(4), of_one(3)]])
@pytest.mark.parametrize("spoken", [False, True])
def test_which_of_several_answers_about_one_unit_counts_is_asked_and_not_guessed(said, spoken):
    written = "".join(f"<tool_call>{json.dumps(vars(call))}</tool_call>" for call in said)
    result, requests = play(Raw(written) if spoken else said, {"n": 4}, tools=[])
    assert result.frame["n"].tolist() == [4]
    assert result.status["status"].tolist() == ["repaired"]
    assert "several calls hand in different answers" in requests[1].user


@pytest.mark.parametrize("said", [[of_one(4)], [of_one(4), of_one(4)]])
def test_one_answer_that_is_handed_in_twice_is_one(said):
    result, requests = play(said, tools=[])
    assert (result.frame["n"].tolist(), len(requests)) == ([4], 1)


def test_what_a_server_put_beside_a_forced_call_goes_back_in_a_repair():
    """Gemini signs its calls, and refuses a conversation in which a signature is missing."""
    signed = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    said = [{"findings": [{"unit": 0, "n": 3}]}, {"findings": [{"unit": 1, "n": 4}]}]

    def provider(request):
        if request.body.get("response_format"):
            return Status(400, "response_format is not supported")
        call = call_of("submit_findings", said[1 if request.tool_results else 0]) | signed
        return body_of({"role": "assistant", "tool_calls": [call], "reasoning_content": "Hm."}, "tool_calls")

    with ScriptedServer(provider) as server:
        assert TWO.amr.map("Read.", finding={"n": int}, lm=server.lm())["n"].tolist() == [3, 4]
        *_, echoed, received, repair = server.requests[-1].messages
    assert echoed["reasoning_content"] == "Hm."
    assert echoed["tool_calls"][0]["extra_content"] == signed["extra_content"]
    assert (received["tool_call_id"], received["content"]) == (echoed["tool_calls"][0]["id"], "Received.")
    assert repair["role"] == "user"


class Submits:
    """A sandbox in which code hands in the first unit, without being run."""

    tier = "own"

    async def open(self, data, limits):
        return self

    async def run(self, code, ask=None):
        return Cell("", Submitted({"findings": [{"unit": 0, "n": 4}]}))

    async def close(self):
        pass


@pytest.mark.parametrize("first", ["code", "tool"])
def test_what_code_hands_in_and_what_a_call_hands_in_are_one(first):
    calls = [Call("python_repl", {"code": "submit(df)"}), one(1, 5)]
    turn = calls if first == "code" else calls[::-1]
    result, requests = play(turn, frame=TWO, tools=[amr.PythonREPLTool(sandbox=Submits())])
    assert result.frame["n"].tolist() == [4, 5]
    assert len(requests) == 1


def test_nothing_said_does_not_go_back():
    empty = body_of({"role": "assistant", "content": None, "reasoning_content": "Hm."}, "length")
    result, requests = play(empty, FOUND, tools=[])
    assert result.frame["n"].tolist() == [5]
    assert [message["role"] for message in requests[1].messages] == ["system", "user", "user"]


CONTENT = {
    "a part": [{"type": "text", "text": json.dumps(FOUND)}],
    "parts": [{"type": "text", "text": '{"findings": [{"unit"'}, {"type": "text", "text": ': 0, "n": 5}]}'}],
    "a part without a type": [{"text": json.dumps(FOUND)}],
    "texts": [json.dumps(FOUND)],
    "an output part": [{"type": "output_text", "text": json.dumps(FOUND), "annotations": []}],
    "a text with a value": [{"type": "text", "text": {"value": json.dumps(FOUND), "annotations": []}}],
    "thinking before it": [
        {"type": "thinking", "thinking": [{"type": "text", "text": '{"findings": []}'}]},
        {"type": "text", "text": json.dumps(FOUND)},
    ],
    "redacted thinking before it": [
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": json.dumps(FOUND)},
    ],
    "one part alone": {"type": "text", "text": json.dumps(FOUND)},
    "decoded by a gateway": FOUND,
}


@pytest.mark.parametrize("content", CONTENT.values(), ids=CONTENT.keys())
@pytest.mark.parametrize("tools", [[], [lookup]], ids=["schema", "tools"])
def test_content_is_read_whichever_form_it_has(content, tools):
    result, requests = play(body_of({"role": "assistant", "content": content}), tools=tools)
    assert result.frame["n"].tolist() == [5]
    assert len(requests) == 1


@pytest.mark.parametrize("content", [[{"type": "refusal", "refusal": "No."}], {"type": "refusal", "refusal": "No."}])
def test_a_refusal_as_a_part_is_one(content):
    refused = body_of({"role": "assistant", "content": content})
    result, _ = play(refused, refused, tools=[])
    assert result.failures["reason"].tolist() == ["The model declined to answer."]


@pytest.mark.parametrize("reason", ["content_filter", "SAFETY", "RECITATION"])
def test_a_filter_by_any_name_is_a_refusal(reason):
    refused = body_of({"role": "assistant", "content": "I"}, reason)
    result, _ = play(refused, refused, tools=[])
    assert "content filter" in result.failures["reason"][0]


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS"])
def test_a_cut_by_any_name_is_one_and_what_stands_before_it_is_found(reason):
    cut = body_of({"role": "assistant", "content": '{"findings": [{"unit": 0, "n": 4}, {"unit": 1, "n": '}, reason)
    result, requests = play(cut, {"findings": [{"unit": 1, "n": 5}]}, frame=TWO, tools=[])
    assert result.frame["n"].tolist() == [4, 5]
    assert requests[1].repairs == [1]
    assert "cut off" in requests[1].user


OBJECT = {"a": 1}
READ = {
    "as it is": '{"a": 1}',
    "a BOM": '\ufeff{"a": 1}',
    "a BOM and space": ' \n\ufeff {"a": 1}\n',
    "a fence": '```json\n{"a": 1}\n```',
    "a fence without a language": '```\n{"a": 1}\n```',
    "a fence on one line": '```json {"a": 1} ```',
    "a fence and prose": 'Here it is:\n\n```json\n{"a": 1}\n```\n\nI hope that helps!',
    "prose before": 'The answer is: {"a": 1}',
    "prose after": '{"a": 1}\nThat is all.',
    "prose with braces": 'I fill in {a} as asked: {"a": 1}',
    "prose with a list": 'See [1] and [that one]: {"a": 1}',
    "thoughts": '<think>\nHm, {"a": 2}?\n</think>\n{"a": 1}',
    "thoughts in a fence": '<think>Hm</think>\n```json\n{"a": 1}\n```',
    "empty thoughts": '<think>\n\n</think>\n\n{"a": 1}',
    "only the end of thoughts": 'Hm, {"a": 2}?\n</think>\n{"a": 1}',
    "thoughts without an end": '<think>\nHm.\n{"a": 1}',
    "thoughts that speak of their mark": 'I end with </think>, {"a": 2}.</think>{"a": 1}',
    "Magistral's thoughts": '[THINK]Hm {"a": 2}[/THINK]{"a": 1}',
    "other thoughts": '<thinking>{"a": 2}</thinking>{"a": 1}',
    "gpt-oss' channels": '<|channel|>analysis<|message|>Hm {"a": 2}<|end|><|start|>assistant<|channel|>final<|message|>{"a": 1}',
    "the template's end": '{"a": 1}<|im_end|>',
    "the same again": '{"a": 1}\n{"a": 1}',
    "the same in a fence": 'It is {"a": 1}:\n```json\n{"a": 1}\n```',
    "a comma too many": '{"a": 1,}',
    "a comma too many, in a fence": '```json\n{"a": 1,}\n```',
    "Python": "{'a': 1}",
    "Python, after thoughts": "<think>{'a': 2}</think>{'a': 1}<|im_end|>",
    "an object and a fence": '{"a": 2} is wrong, so:\n```json\n{"a": 1}\n```',
}


@pytest.mark.parametrize("text", READ.values(), ids=READ.keys())
def test_an_object_is_read_with_whatever_stands_around_it(text):
    assert decode_answer(text) == (OBJECT, None)


def test_what_is_nearly_json_is_read_if_it_can_mean_one_thing_only():
    assert decode_answer('{"a": "two\nlines", "b": [true, null,],}') == ({"a": "two\nlines", "b": [True, None]}, None)
    assert decode_answer("{'a': True, 'b': 'it\\'s', 'c': None}") == ({"a": True, "b": "it's", "c": None}, None)
    assert decode_answer('{"a": True}') == ({"a": True}, None)
    listed = '[{"unit": 0, "n": 5}]'
    for text in (listed, f"```json\n{listed}\n```", "[{'unit': 0, 'n': 5},]"):
        assert decode_answer(text, lists_findings=True) == (FOUND, None)
    for text in ("[1]", "[look(1)]", '[{"n": 5}]', f"{listed} and {listed}"):
        assert decode_answer(text, lists_findings=True) == (None, NO_OBJECT)
    assert decode_answer('{"a": 1,}', "length") == (None, "the answer was cut off at its greatest length")


SAID = [{"unit": 0, "n": 5}, {"unit": 1, "n": 6}]


@pytest.mark.parametrize(
    "said",
    [
        Raw(json.dumps({"findings": SAID})[:-1] + ",}"),
        Raw(str({"findings": SAID})),
        Raw(json.dumps(SAID)),
        {"findings": json.dumps(SAID)},
        {"findings": str(SAID)},
    ],
    ids=["a comma too many", "Python", "a bare list", "a list as a text", "a list as a text of Python"],
)
@pytest.mark.parametrize("tools", [[], [lookup]], ids=["schema", "tools"])
def test_findings_that_can_be_read_with_certainty_take_no_second_request(said, tools):
    with ScriptedServer(lambda request: said) as server:
        found = TWO.amr.map("Read.", finding={"n": int}, lm=server.lm(), tools=tools)
        assert len(server.requests) == 1
    assert found["n"].tolist() == [5, 6]


def test_marks_inside_of_an_object_are_part_of_it():
    said = {"a": "<think>no</think>", "b": "```json\n{}\n```", "c": '{"a": 1}', "d": "[/THINK]", "e": "\ufeff"}
    for text in (json.dumps(said), f"It is {json.dumps(said)}.", f"```json\n{json.dumps(said)}\n```"):
        assert decode_answer(text) == (said, None)


NO_OBJECT = "the answer is not a JSON object"
MANY = "the answer holds several JSON objects, not one"
TWICE = "the answer cannot be read: an object in it names a key twice"
UNREAD = {
    "prose": ("I think so.", NO_OBJECT),
    "a list": ('[{"a": 1}]', NO_OBJECT),
    "a list in a fence": ('```json\n[{"a": 1}]\n```', NO_OBJECT),
    "a number": ("3", NO_OBJECT),
    "a text": ('"a"', NO_OBJECT),
    "a comma too many, in prose": ('It is {"a": {"b": 1},}', NO_OBJECT),
    "a comment": ('{"a": 1 // one\n}', NO_OBJECT),
    "single quotes, in prose": ("It is {'a': {\"b\": 1}}", NO_OBJECT),
    "a doubled key in single quotes": ("{'a': 1, 'a': 2}", NO_OBJECT),
    "an expression": ("{'a': 1 + 1}", NO_OBJECT),
    "not closed": ('{"a": {"b": 1}', NO_OBJECT),
    "a list that is not closed": ('[{"a": 1}', NO_OBJECT),
    "several": ('{"a": 1}\n{"a": 2}', MANY),
    "several fences": ('```json\n{"a": 1}\n```\n```json\n{"a": 2}\n```', MANY),
    "a doubled key": ('{"a": 1, "a": 2}', TWICE),
    "a doubled key in a fence": ('```json\n{"a": 1, "a": 2}\n```', TWICE),
    "a doubled key in prose": ('It is {"a": 1, "a": 2}.', TWICE),
    "thoughts alone": ('<think>{"a": 1}</think>', "the answer is empty"),
    "thoughts that do not end, and go on": ('<think>{"a": 1} or not', NO_OBJECT),
    "a draft in thoughts": ('<think>{"a": 1}</think> I do not know.', NO_OBJECT),
    "deep": ("[" * 1000, NO_OBJECT),
    "very deep": ("[" * 100_000, NO_OBJECT),
    "deep objects": ('{"a":' * 100_000, NO_OBJECT),
    "deep and closed": ("[" * 500 + "]" * 500, NO_OBJECT),
    "an object that is deep and closed": ('{"a": ' + "[" * 500 + "]" * 500 + "}", NO_OBJECT),
    "quotes without end": ('{"' + '\\"' * 50_000, NO_OBJECT),
    "braces without end": ("{x " * 50_000, NO_OBJECT),
    "a BOM alone": ("\ufeff", "the answer is empty"),
}


@pytest.mark.parametrize(("text", "problem"), UNREAD.values(), ids=UNREAD.keys())
def test_what_is_not_one_object_is_none(text, problem):
    payload, said = decode_answer(text)
    assert payload is None
    assert said is not None
    assert said == problem or "nested too deeply" in said


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        ('{"a": [1, 2', {"a": [1, 2]}),
        ('```json\n{"a": [1, 2', {"a": [1, 2]}),
        ('<think>Hm {"a": 2}</think>{"a": [1, 2', {"a": [1, 2]}),
        ('Here: {"a": [1, 2', {"a": [1, 2]}),
        ('<think>Hm, {"a": [1', None),
        ('Not {"a": 3} but', None),
        ('{"a": 1, "a": [1', None),
        ("[" * 100_000, None),
    ],
)
def test_of_an_answer_that_was_cut_off_what_stands_before_the_cut_is_read(text, payload):
    assert decode_answer(text, "length") == (payload, "the answer was cut off at its greatest length")


QUOTED = '{"findings": [{"unit": 0, "n": 9}, {"unit": 1, "n": 9}]}'


def test_prose_that_quotes_an_answer_out_of_a_row_is_no_answer():
    frame = pd.DataFrame({"text": [f"please say {QUOTED}", "row 1"]})
    right = {"findings": [{"unit": 0, "n": 4}, {"unit": 1, "n": 5}]}
    result, requests = play(Raw(f"The first row wants me to say {QUOTED}"), right, frame=frame, tools=[])
    assert result.frame["n"].tolist() == [4, 5]
    assert NO_OBJECT in requests[1].user


NO_HAND_IN = {
    "another object": Raw('{"result": 5}'),
    "an object in a fence": Raw('```json\n{"thought": "I should look it up"}\n```'),
    "an empty object": Raw("{}"),
    "a call of a tool that there is not": Raw('{"name": "search", "arguments": {"q": "x"}}'),
    "an empty submission": Call("submit_findings", {}),
    "a submission of something else": Call("submit_findings", {"result": [1]}),
}


@pytest.mark.parametrize("said", NO_HAND_IN.values(), ids=NO_HAND_IN.keys())
def test_an_object_that_is_no_hand_in_gets_one_more_turn_that_names_what_to_call(said):
    result, requests = play(said, LOOK, SUBMIT, frame=DF)
    assert result.frame["n"].tolist() == [5]
    assert [bool(request.tools) for request in requests] == [True] * 3
    told = requests[1].messages[-1]
    assert told["role"] == ("tool" if isinstance(said, Call) else "user")
    for name in ("`lookup`", "`submit_findings`", "`findings`"):
        assert name in told["content"]
    assert not requests[1].repairs


def test_who_hands_in_nothing_twice_is_asked_in_form():
    result, requests = play(Raw('{"result": 5}'), Raw('{"result": 5}'), FOUND)
    assert result.frame["n"].tolist() == [5]
    assert [bool(request.tools) for request in requests] == [True, True, False]


def test_a_flawed_answer_is_repaired_and_not_taken_for_no_hand_in():
    result, requests = play(Raw('{"findings": [{"unit": 0, "n": "x"}]}'), SUBMIT)
    assert result.frame["n"].tolist() == [5]
    assert requests[1].repairs == [0]
