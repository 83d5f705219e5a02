"""A wrong call gets one clear error that says what would be right, before any request is sent."""

from __future__ import annotations

import pandas as pd
import pytest
from pydantic import BaseModel

import pandas_amr as amr

DF = pd.DataFrame({"title": ["a", "b"], "text": ["x", "y"]})
DOUBLED = pd.DataFrame([["a", "b"]], columns=["text", "text"])


class Node(BaseModel):
    name: str
    children: list[Node]


WRONG = {
    "no frame": (lambda lm: amr.map([1], "Read.", lm=lm), amr.UsageError, "a pandas DataFrame, not list"),
    "missing column": (
        lambda lm: DF.amr.map("Read.", columns=["txt"], lm=lm),
        amr.ColumnError,
        r"No column 'txt'. Did you mean 'text'\?",
    ),
    "missing column, as text": (
        lambda lm: DF.amr.map("Read.", columns="zzz", lm=lm),
        KeyError,
        "There is: 'title', 'text'",
    ),
    "no columns": (lambda lm: DF.amr.map("Read.", columns=[], lm=lm), amr.ColumnError, "columns= is empty"),
    "a column twice": (lambda lm: DF.amr.map("Read.", columns=["text", "text"], lm=lm), amr.ColumnError, "twice"),
    "doubled column names": (lambda lm: DOUBLED.amr.map("Read.", lm=lm), amr.ColumnError, r"doubled: \['text'\]"),
    "a finding that hides a column": (
        lambda lm: DF.amr.map("Read.", finding={"title": str}, lm=lm),
        amr.ColumnError,
        "The finding 'title' would hide a column",
    ),
    "two maps that find one column": (
        lambda lm: DF.amr.map({"a": "A", "a_b": "B"}, finding={"a": {"b": str, "c": str}, "a_b": str}, lm=lm),
        amr.ColumnError,
        "Two maps find 'a_b'",
    ),
    "unknown argument": (lambda lm: DF.amr.map("Read.", colums="text", lm=lm), TypeError, "colums"),
    "finding of no type": (
        lambda lm: DF.amr.map("Read.", finding=5, lm=lm),
        amr.UsageError,
        "a pydantic model, a dataclass",
    ),
    "field of no type": (
        lambda lm: DF.amr.map("Read.", finding={"a": 5}, lm=lm),
        amr.UsageError,
        r"finding\['a'\] takes",
    ),
    "field with a bad name": (
        lambda lm: DF.amr.map("Read.", finding={"a b": int}, lm=lm),
        amr.UsageError,
        "like a variable",
    ),
    "field named unit": (lambda lm: DF.amr.map("Read.", finding={"unit": int}, lm=lm), amr.UsageError, "unit's number"),
    "type without a column": (
        lambda lm: DF.amr.map("Read.", finding={"a": complex}, lm=lm),
        amr.UsageError,
        "complex",
    ),
    "type that refers to itself": (
        lambda lm: DF.amr.map("Read.", finding=Node, lm=lm),
        amr.UsageError,
        "Recursive type 'Node'",
    ),
    "output of no type": (
        lambda lm: DF.amr.map_reduce(map="a", reduce="b", output=3, lm=lm),
        amr.UsageError,
        "output= takes",
    ),
    "empty instruction": (lambda lm: DF.amr.map(" ", lm=lm), amr.UsageError, "map= takes"),
    "nothing asked": (lambda lm: DF.amr.map_reduce(lm=lm), amr.UsageError, "say what you want"),
    "map without reduce": (lambda lm: DF.amr.map_reduce(map="Read.", lm=lm), amr.UsageError, r"df.amr.map\(...\)"),
    "task of no text": (lambda lm: DF.amr.map_reduce(5, lm=lm), amr.UsageError, "task= takes a sentence"),
    "a map that is none": (lambda lm: DF.amr.map({"a": 5}, lm=lm), amr.UsageError, r"map\['a'\] takes"),
    "a reduce that is none": (lambda lm: DF.amr.reduce(5, lm=lm), amr.UsageError, "reduce= takes"),
    "aggregation of a missing column": (
        lambda lm: DF.amr.map_reduce(map="Read.", reduce={"mood": "sum"}, lm=lm),
        amr.ColumnError,
        "reduce= names 'mood', which is no column",
    ),
    "group by a missing column": (
        lambda lm: DF.amr.map_reduce(map="Read.", reduce={"finding": "count"}, by="shop", lm=lm),
        amr.ColumnError,
        "by= names 'shop'",
    ),
    "an aggregation that pandas has not": (
        lambda lm: DF.amr.map_reduce(map="Read.", reduce={"finding": "summ"}, lm=lm),
        amr.UsageError,
        r"reduce\['finding'\] takes what DataFrame.agg takes.*'summ'",
    ),
    "a table in a list of aggregations": (
        lambda lm: DF.amr.map_reduce(map="Read.", reduce={"finding": ["count", "value_counts"]}, lm=lm),
        amr.UsageError,
        "stands alone",
    ),
    "a function that gives a column of the frame": (
        lambda lm: DF.amr.map(lambda shard: shard[["text"]]),
        amr.ColumnError,
        "gives 'text', which would hide a column",
    ),
    "two aggregations, one number": (
        lambda lm: DF.amr.map_reduce(map="Read.", reduce={"finding": "count", "text": "count"}, output=int, lm=lm),
        amr.UsageError,
        "one aggregation, not 2",
    ),
    "a plan whose reduce no plan can hold": (
        lambda lm: DF.amr.map_reduce(
            plan=DF.amr.plan(map="Read.", finding={"n": int}, reduce={"worst": ("n", "max")}, lm=lm).to_json(), lm=lm
        ),
        amr.UsageError,
        "This plan holds no reduce.*say reduce= again beside plan=",
    ),
    "a field that pydantic keeps to itself": (
        lambda lm: DF.amr.map("Read.", finding={"model_config": int}, lm=lm),
        amr.UsageError,
        "'model_config': pydantic reserves that name",
    ),
    "a field that every record has as a method": (
        lambda lm: DF.amr.map("Read.", finding={"model_dump": int}, lm=lm),
        amr.UsageError,
        "'model_dump': pydantic reserves that name",
    ),
    "a choice that is a list": (
        lambda lm: DF.amr.map("Read.", finding={"kind": [["a"], ["b"]]}, lm=lm),
        amr.UsageError,
        r"finding\['kind'\]: a choice is a text.* not \['a'\]",
    ),
    "no parallelism": (lambda lm: DF.amr.map("Read.", max_parallelism=0, lm=lm), amr.UsageError, "whole number from 1"),
    "no steps": (lambda lm: DF.amr.map("Read.", max_steps=True, lm=lm), amr.UsageError, "max_steps= takes"),
    "unknown errors=": (lambda lm: DF.amr.map("Read.", errors="ignore", lm=lm), amr.UsageError, "coerce"),
    "plan with an unknown field": (
        lambda lm: DF.amr.map("Read.", plan={"shards": 5}, lm=lm),
        amr.PlanError,
        "shards.*shard_size",
    ),
    "plan with a bad value": (lambda lm: DF.amr.map("Read.", plan={"fan_in": 1}, lm=lm), amr.PlanError, "fan_in"),
    "plan that is no file": (lambda lm: DF.amr.map("Read.", plan="none.json", lm=lm), amr.PlanError, "cannot be read"),
    "plan that is no JSON": (lambda lm: DF.amr.map("Read.", plan="{", lm=lm), amr.PlanError, "no JSON"),
    "plan whose finding is empty": (
        lambda lm: DF.amr.map("Read.", plan={"finding": {}}, lm=lm),
        amr.PlanError,
        "finding= takes",
    ),
    "plan with a field of no name": (
        lambda lm: DF.amr.map("Read.", plan={1: 2}, lm=lm),
        amr.PlanError,
        "fields have names, not 1: task, columns",
    ),
    "plan that is no path": (lambda lm: DF.amr.map("Read.", plan="a\0b", lm=lm), amr.PlanError, "is no path"),
    "half a character in a task": (
        lambda lm: DF.amr.map_reduce("How \ud83d?", lm=lm),
        amr.UsageError,
        r"task= holds '\\ud83d', which is half of a character",
    ),
    "half a character in one of the maps": (
        lambda lm: DF.amr.map({"a": "A", "b": "\udc00"}, lm=lm),
        amr.UsageError,
        "map= holds",
    ),
    "half a character in a plan": (
        lambda lm: DF.amr.map_reduce(map="Read.", plan='{"reduce_instruction": "\\ud83d"}', lm=lm),
        amr.UsageError,
        "reduce= holds",
    ),
    "tools that are none": (lambda lm: DF.amr.map("Read.", tools=5, lm=lm), amr.UsageError, "tools= takes"),
    "a tool without words": (lambda lm: DF.amr.map("Read.", tools=[lambda x: x], lm=lm), amr.UsageError, "tool's name"),
    "a model of no kind": (lambda lm: DF.amr.map("Read.", lm=5), amr.UsageError, "lm= takes"),
}


@pytest.mark.parametrize(("call", "error", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_call_is_told_what_would_be_right_and_nothing_is_sent(call, error, said, refusing):
    with pytest.raises(error, match=said) as caught:
        call(refusing.lm())
    assert error is TypeError or isinstance(caught.value, amr.AMRError)


def test_a_plan_s_file_that_is_no_text_is_told_and_a_mark_before_the_text_is_none_of_it(tmp_path, refusing):
    (tmp_path / "plan.bin").write_bytes(b"\x80\x81\xff")
    with pytest.raises(amr.PlanError, match="is no text"):
        DF.amr.map("Read.", plan=tmp_path / "plan.bin", lm=refusing.lm())
    (tmp_path / "plan.json").write_text('\ufeff{"shard_size": 7}', encoding="utf-8")
    assert DF.amr.plan(map="Read.", plan=tmp_path / "plan.json", lm=refusing.lm()).shard_size == 7


def test_no_model_gives_one_error_that_lists_the_three_ways():
    with pytest.raises(amr.UsageError) as caught:
        DF.amr.map("Read.")
    for way in ("OPENAI_API_KEY", "AMR_MODEL", "amr.configure(lm=", 'lm="local"'):
        assert way in str(caught.value)


def test_a_model_without_a_server_is_told_before_anything_is_sent():
    with pytest.raises(amr.UsageError, match="neither OPENAI_API_KEY nor OPENAI_BASE_URL"):
        DF.amr.map("Read.", lm="gpt-5-mini")


def test_a_wrong_option_of_a_model_is_told():
    with pytest.raises(amr.UsageError, match="LM has no tempreature"):
        amr.LM("m").replace(tempreature=1)
    with pytest.raises(amr.UsageError, match="timeout_s"):
        amr.LM("m", timeout_s=0)
    with pytest.raises(amr.UsageError, match="timeout_s=.*number above 0, not '60'"):
        amr.LM("m", timeout_s="60")
    with pytest.raises(amr.UsageError, match=r"takes amr.Abilities\(...\), not \{'tools': False\}"):
        amr.LM("m", abilities={"tools": False})
    with pytest.raises(amr.UsageError, match="model's name"):
        amr.LM("")


def test_a_wrong_setting_is_told():
    with pytest.raises(amr.UsageError, match="There is no setting 'model'"):
        amr.configure(model="x")
    with pytest.raises(amr.UsageError, match="max_steps"):
        amr.configure(max_steps=0)
