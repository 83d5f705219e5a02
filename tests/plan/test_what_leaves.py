"""A plan tells what leaves the machine before it does: to whom, which columns, one request, and what it would cost."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import pandas_amr as amr
from pandas_amr._records.terminal import escape_unprintable
from pandas_amr.testing import ScriptedServer, findings

DF = pd.DataFrame({"text": ["glad", "angry", "calm"], "city": ["Rome", "Oslo", "Bonn"], "n": [1, 2, 3]})
TEXT = {"map": "Read.", "reduce": "Sum up."}


def provider(request):
    if request.schema == "reduction":
        return {"output": "all", "sources": [0]}
    return findings(request, lambda unit: {"finding": "x"})


def lines_of(server: ScriptedServer, frame: pd.DataFrame = DF, **options) -> list[str]:
    plan = frame.amr.plan(**({"lm": server.lm()} | options))
    assert server.requests == []
    return [line.strip() for line in repr(plan).split("\n")]


def test_a_plan_shows_the_model_its_address_the_columns_the_estimate_and_the_first_request():
    with ScriptedServer(provider) as server:
        lm = server.lm(prices=(1.0, 2.0))
        lines = lines_of(server, columns=["text"], lm=lm, **TEXT)
        DF.amr.map_reduce(columns=["text"], lm=lm, **TEXT)
        sent = server.requests[0].messages
    assert f"sends to: scripted at {server.base_url} (map and reduce)" in lines
    assert "columns sent: 'text'" in lines
    assert "columns not sent: 'city', 'n'" in lines
    assert any(line.startswith("estimate: 3 units in 1 shard: 2 calls, about") and "$" in line for line in lines)
    begin = lines.index("first request (schema findings); requests() gives it whole:")
    shown = [line for line in lines[begin + 1 :] if line not in {"system:", "user:"}]
    assert shown == [line.strip() for message in sent for line in message["content"].split("\n")]


@pytest.mark.parametrize(
    ("options", "sent", "unsent"),
    [
        (TEXT, "'text', 'city', 'n'", "none"),
        ({"map": "Read.", "reduce": {"n": "sum"}, "columns": ["text"]}, "'text'", "'city', 'n'"),
        (
            TEXT | {"columns": ["text"], "plan": {"segmentation": "groups", "group_columns": ["city"]}},
            "'text', 'city'",
            "'n'",
        ),
        (
            TEXT
            | {"columns": ["text"], "plan": {"ranking": {"field": "n"}, "reduce_instruction": "x"}, "reduce": None},
            "'text', 'city', 'n'",
            "none",
        ),
        ({"map": "Read.", "columns": ["text"], "reduce": {"city": amr.Agent("Where?")}}, "'text', 'city'", "'n'"),
        ({"map": lambda shard: [{"size": 1}] * len(shard), "reduce": "Sum up."}, "none", "'text', 'city', 'n'"),
        (TEXT | {"axis": "columns", "columns": ["city"]}, "'city'", "'text', 'n'"),
        (TEXT | {"output": int, "columns": ["n"]}, "'n'", "'text', 'city'"),
    ],
    ids=["all", "content", "groups", "ranks", "a column by an agent", "a function", "columns as units", "a number"],
)
def test_the_columns_that_are_sent_are_told(options, sent, unsent):
    with ScriptedServer(provider) as server:
        lines = lines_of(server, **options)
    assert f"columns sent: {sent}" in lines
    assert f"columns not sent: {unsent}" in lines


def test_columns_that_only_code_reads_are_told_apart():
    with ScriptedServer(provider) as server:
        lines = lines_of(server, columns=["text"], tools=[amr.PythonREPLTool()], **TEXT)
    assert "columns sent as far as code of the model prints them: 'city', 'n'" in lines
    assert "columns not sent: none" in lines


def test_columns_that_the_stages_of_a_recipe_may_send_are_told_apart():
    with ScriptedServer(provider) as server:
        lines = lines_of(server, map=amr.Recipe().map("Read.").reduce("Sum up."), reduce={"n": "sum"})
    assert "columns sent as far as a recipe's stages send them: 'text', 'city', 'n'" in lines


def test_each_model_is_told_with_what_it_is_asked_for():
    with ScriptedServer(provider) as first, ScriptedServer(provider) as second:
        lm = {"plan": first.lm(), "map": first.lm("small"), "reduce": second.lm("large")}
        lines = lines_of(first, lm=lm, **TEXT)
    assert f"sends to: small at {first.base_url} (map)" in lines
    assert f"sends to: large at {second.base_url} (reduce)" in lines


def test_a_plan_that_asks_no_model_sends_nothing():
    with ScriptedServer(provider) as server:
        lines = lines_of(server, map=lambda shard: [{"size": 1}] * len(shard), reduce={"size": "sum"}, lm=None)
    assert "sends: nothing" in lines


def test_a_plan_without_a_frame_shows_what_it_does_and_no_more():
    plan = amr.Plan(map_instruction="Read.")
    assert "sends" not in repr(plan)
    with pytest.raises(amr.PlanError, match="not made for a frame"):
        plan.outgoing()


def test_an_address_is_shown_without_user_key_and_query():
    lm = amr.LM("m", base_url="http://127.0.0.1:9/v1", api_key="sk-secret")
    shown = repr(DF.amr.plan(lm=lm, **TEXT))
    assert "m at http://127.0.0.1:9/v1 (" in shown
    assert "sk-secret" not in shown


HOSTILE = "\x1b[31mred\x1b]0;title\x07 \x9b2J \u202eabc\u2066 \u200f\r\b\x00\x7f\u2028\u0085 end"


def is_safe(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def test_no_text_of_a_row_a_label_or_a_planner_steers_the_terminal():
    frame = pd.DataFrame({"text": pd.Series([HOSTILE], dtype=object), HOSTILE[:20]: ["x"]})
    planned = {
        "map_instruction": f"Read. {HOSTILE}\nsends to: nobody",
        "finding": [{"name": "note", "type": "str", "choices": [], "description": ""}],
        "shard_size": 7,
        "parallelism": 3,
        "aggregations": [],
        "reduce_instruction": "Sum up.",
    }
    with ScriptedServer(lambda request: planned) as server:
        plan = frame.amr.plan("What?", lm=server.lm())
    assert is_safe(repr(plan))
    assert is_safe(str(plan.outgoing()))
    assert r"\x9b2J" in repr(plan)
    own = [line for line in repr(plan).split("\n") if line.startswith("  sends to: ")]
    assert len(own) == 1  # what the planner wrote stands further in


def test_the_request_is_shown_in_part_if_it_is_long():
    frame = pd.DataFrame({"text": ["x" * 5000 for _ in range(50)]})
    with ScriptedServer(provider) as server:
        plan = frame.amr.plan(map=amr.Agent("Read.", background="x\n" * 99), reduce="Sum up.", lm=server.lm())
        shown = repr(plan)
        assert "more characters" in shown
        assert "more lines" in shown
        assert len(shown.split("\n")) < 80
        assert max(map(len, shown.split("\n"))) < 400
        assert len(plan.requests(1)[0]["messages"][1]["content"]) > 5000


def test_many_columns_are_counted_not_listed():
    frame = pd.DataFrame(np.ones((2, 60)), columns=[f"c{n}" for n in range(60)])
    with ScriptedServer(provider) as server:
        lines = lines_of(server, frame, map="Read.", reduce={"c1": "sum"})
    [sent] = [line for line in lines if line.startswith("columns sent:")]
    assert sent.endswith("'c19', and 40 more")


@pytest.mark.parametrize("verb", ["map", "reduce"])
def test_who_confirms_is_shown_what_would_leave(verb):
    shown: list[amr.Outgoing | None] = []

    def confirm(estimate: amr.Estimate) -> bool:
        shown.append(estimate.outgoing)
        return False

    with ScriptedServer(provider) as server, amr.settings(redact=str.upper):
        with pytest.raises(amr.NotConfirmed):
            getattr(DF.amr, verb)("Read.", columns=["text"], lm=server.lm(), budget=amr.Budget(confirm=confirm))
        assert server.requests == []
    [outgoing] = shown
    assert outgoing is not None
    assert outgoing.sent == ("text",)
    assert outgoing.unsent == ("city", "n")
    assert outgoing.redact == "upper"
    assert (outgoing.request is None) == (verb == "reduce")
    if verb == "map":
        assert '{"unit":0,"text":"GLAD"}' in str(outgoing)


@pytest.mark.parametrize("text", ["plain", "", "tab\t", "é ü 漢字 😀", "\x1b", "\u202e", "\ud800", "\xad"])
def test_what_is_printable_stands_as_it_is_and_all_else_is_escaped(text):
    shown = escape_unprintable(text)
    assert shown.isprintable()
    assert (shown == text) == text.isprintable()
