"""A wrong call gets one clear error that says what would be right, before any request is sent."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from pydantic import BaseModel

import pandas_amr as amr
from pandas_amr._records.suggest import did_you_mean

DF = pd.DataFrame({"title": ["a", "b"], "text": ["x", "y"]})
KEY = "sk-not-a-key-but-like-one"
HALF = pd.DataFrame([["a", "b"]], columns=pd.Index(["t\ud800", "text"], dtype=object))
DOUBLED = pd.DataFrame([["a", "b"]], columns=["text", "text"])


class Node(BaseModel):
    name: str
    children: list[Node]


class Unfinished(BaseModel):
    later: Later  # noqa: F821 (nobody defines it)


WRONG = {
    "no frame": (
        lambda lm: amr.map(1, "Read.", lm=lm),
        amr.UsageError,
        "must hold rows: a pandas DataFrame .* not int",
    ),
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
    "half a character in a column's name": (
        lambda lm: HALF.amr.map_reduce(map="Read.", columns="text", reduce="Sum up.", lm=lm),
        amr.ColumnError,
        r"The column name 't\\ud800' contains a lone surrogate \('\\ud800'\) and cannot be encoded as UTF-8. Rename",
    ),
    "half a character in the name of a column that is a unit": (
        lambda lm: HALF.amr.map("Read.", axis="columns", lm=lm),
        amr.ColumnError,
        "contains a lone surrogate",
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
        "reduce= names 'mood', which is not a column",
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
    "an aggregation that only groups have": (
        lambda lm: DF.amr.map_reduce(map="Read.", reduce={"finding": "ngroup"}, lm=lm),
        amr.UsageError,
        "'ngroup' is one of groups: by=",
    ),
    "a table in a list of aggregations": (
        lambda lm: DF.amr.map_reduce(map="Read.", reduce={"finding": ["count", "value_counts"]}, lm=lm),
        amr.UsageError,
        "gives a table, so it cannot stand in a list",
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
    "plan that is no JSON": (lambda lm: DF.amr.map("Read.", plan="{", lm=lm), amr.PlanError, "is not JSON"),
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
    "plan that is no path": (lambda lm: DF.amr.map("Read.", plan="a\0b", lm=lm), amr.PlanError, "is not a path"),
    "half a character in a task": (
        lambda lm: DF.amr.map_reduce("How \ud83d?", lm=lm),
        amr.UsageError,
        r"task= contains a lone surrogate \('\\ud83d'\)",
    ),
    "half a character in one of the maps": (
        lambda lm: DF.amr.map({"a": "A", "b": "\udc00"}, lm=lm),
        amr.UsageError,
        "map= contains a lone surrogate",
    ),
    "half a character in a plan": (
        lambda lm: DF.amr.map_reduce(map="Read.", plan='{"reduce_instruction": "\\ud83d"}', lm=lm),
        amr.UsageError,
        "reduce= contains a lone surrogate",
    ),
    "half a character in a field's description": (
        lambda lm: DF.amr.map("Read.", finding={"n": (str, "\ud83d")}, lm=lm),
        amr.UsageError,
        "cannot be asked of a model: its schema contains a lone surrogate",
    ),
    "half a character in a choice": (
        lambda lm: DF.amr.map("Read.", finding={"n": ["a", "\ud83d"]}, lm=lm),
        amr.UsageError,
        r"finding\['n'\]: the choice '\\ud83d' contains a lone surrogate",
    ),
    "a choice that is no number": (
        lambda lm: DF.amr.map("Read.", finding={"n": [1.5, float("nan")]}, lm=lm),
        amr.UsageError,
        r"finding\['n'\]: the choice nan holds what JSON has no form for",
    ),
    "tools that are none": (lambda lm: DF.amr.map("Read.", tools=5, lm=lm), amr.UsageError, "tools= takes"),
    "a tool without words": (lambda lm: DF.amr.map("Read.", tools=[lambda x: x], lm=lm), amr.UsageError, "tool's name"),
    "a model of no kind": (lambda lm: DF.amr.map("Read.", lm=5), amr.UsageError, "lm= takes"),
    "a status column that is there": (
        lambda lm: DF.assign(amr_status=1).amr.map("Read.", plan={"status": True}, lm=lm),
        amr.ColumnError,
        "a column 'amr_status' beside the one .* name the new ones: plan={'status': ",
    ),
    "a finding named like a status column": (
        lambda lm: DF.amr.map("Read.", finding={"amr_status": str}, plan={"status": True}, lm=lm),
        amr.ColumnError,
        "a column 'amr_status' beside the one that plan={'status': True} adds",
    ),
    "groups of what is a level of the index and a finding": (
        lambda lm: DF.set_index("title").amr.map_reduce(
            map="Read.", finding={"title": str, "n": int}, reduce={"n": "sum"}, by="title", lm=lm
        ),
        amr.ColumnError,
        "by= names 'title', which is a level of the index and a finding",
    ),
    "a column that is the index": (
        lambda lm: DF.set_index("title").amr.map("Read.", columns=["title", "text"], lm=lm),
        amr.ColumnError,
        r"No column 'title'\. The index has it: df\.reset_index\('title'\)",
    ),
    "a type that is not known where a model is defined": (
        lambda lm: DF.amr.map("Read.", finding=Unfinished, lm=lm),
        amr.UsageError,
        r"The type 'Later' is not known where its model is defined.*model_rebuild\(\)",
    ),
    "an output of a dict of types": (
        lambda lm: DF.amr.map_reduce(map="Read.", reduce="Sum up.", output={"n": int}, lm=lm),
        amr.UsageError,
        "output= takes .* For several fields: a pydantic model",
    ),
    "a key in the place of a model": (
        lambda lm: DF.amr.map("Read.", lm=KEY),
        amr.UsageError,
        r"lm= takes a model's name, and this looks like a key: amr\.LM\(\"model-name\", api_key=",
    ),
    "a key as a model's name": (lambda lm: amr.LM(KEY), amr.UsageError, "this looks like a key"),
    "a confirmation without an argument": (
        lambda lm: amr.Budget(confirm=lambda: True),
        amr.UsageError,
        r"confirm=...\) takes a function of an Estimate; this one does not take exactly one argument",
    ),
    "parallelism as a text": (lambda lm: amr.LM("m", max_parallelism="8"), amr.UsageError, "from 1, not '8'"),
    "parallelism without end": (lambda lm: amr.LM("m", max_parallelism=math.inf), amr.UsageError, "from 1, not inf"),
    "a part of a request": (lambda lm: amr.LM("m", max_parallelism=1.5), amr.UsageError, "from 1, not 1.5"),
    "a field of a plan that is set": (
        lambda lm: setattr(amr.Plan(), "shard_size", 5),
        amr.PlanError,
        r"A plan is frozen: plan\.replace\(shard_size=",
    ),
}
CELL = "what a customer wrote"
ROWS = pd.DataFrame({"text": [CELL, CELL]})
TAKES_NO_FRAME = (
    *("map", "reduce", "finding", "output", "columns", "axis", "out", "tools", "plan", "lm"),
    *("max_parallelism", "max_steps", "errors", "budget", "journal", "progress", "trace", "on_event", "engine"),
)


HOLDS_ITSELF: dict[str, object] = {}
HOLDS_ITSELF["itself"] = HOLDS_ITSELF

MISTYPED = {
    "a plan's field": ({"plan": {"fanin": 5}}, r"^Unknown plan field 'fanin'\. Did you mean 'fan_in'\?$"),
    "a plan's field in other letters": ({"plan": {"Shard_Size": 5}}, "Did you mean 'shard_size'"),
    "a field of the plan's ranking": (
        {"plan": {"ranking": {"feild": "n"}}},
        r"Unknown field 'feild' of the plan's ranking\. Did you mean 'field'\?",
    ),
    "a plan's field like no other": ({"plan": {"zzz": 5}}, r"Unknown plan field 'zzz'\. The fields are: task, columns"),
    "a choice of a plan": ({"plan": {"view": "previw"}}, "view: .*not 'previw'. Did you mean 'preview'"),
    "a rule of a plan's merge": ({"plan": {"merge": {"n": "unoin"}}}, r"merge\.n: .*Did you mean 'union'"),
    "an aggregation of a plan": ({"plan": {"aggregations": {"n": "avg"}}}, r"aggregations\.n: .*Did you mean 'mean'"),
    "one in a list of them": ({"plan": {"aggregations": {"n": ["sum", "maen"]}}}, r"n\.1: .*Did you mean 'mean'"),
    "a column": ({"columns": ["txt"]}, "Did you mean 'text'"),
    "a column of groups": ({"plan": {"segmentation": "groups", "group_columns": ["titel"]}}, "Did you mean 'title'"),
    "an aggregation": ({"reduce": {"n": "summ"}}, "not 'summ'. Did you mean 'sum'"),
    "an aggregation in other letters": ({"reduce": {"n": "SUM"}}, "Did you mean 'sum'"),
    "another word for an aggregation": ({"reduce": {"n": "average"}}, "Did you mean 'mean'"),
    "a share in other words": ({"reduce": {"n": "percentage"}}, "Did you mean 'share'"),
    "a named aggregation": ({"reduce": {"a": ("n", "averge")}}, "Did you mean 'mean'"),
    "a field to aggregate": ({"reduce": {"lat": "sum"}}, r"reduce= names 'lat', .* Did you mean 'late'\?"),
    "a column to group by": ({"reduce": {"n": "sum"}, "by": "titel"}, r"by= names 'titel', .* Did you mean 'title'"),
    "a field to choose rows by": (
        {"plan": {"where": "Late"}, "reduce": {"n": "sum"}},
        "where names .*Did you mean 'late'",
    ),
    "a field to rank by": ({"plan": {"ranking": {"field": "lte"}}}, "ranking names .*Did you mean 'late'"),
    "errors=": ({"errors": "rais"}, r'takes "coerce" or "raise", not \'rais\'. Did you mean \'raise\''),
    "axis=": ({"axis": "column"}, "Did you mean 'columns'"),
    "output= by a type's name": ({"output": "integer"}, "not 'integer'. Did you mean the type int, without quotes"),
}


@pytest.mark.parametrize(("arguments", "said"), MISTYPED.values(), ids=MISTYPED.keys())
def test_a_mistyped_name_is_refused_with_the_closest_one(arguments, said, refusing):
    given = {"map": "Read.", "finding": {"n": int, "late": bool}, "reduce": {"n": "sum"}} | arguments
    if "ranking" in arguments.get("plan", {}) or "aggregations" in arguments.get("plan", {}):
        del given["reduce"]
    with pytest.raises(amr.AMRError, match=said):
        DF.amr.map_reduce(lm=refusing.lm(), **given)


@pytest.mark.parametrize("name", ["weather", 5, ("a", "b"), ""])
def test_a_name_like_no_other_gets_no_suggestion(name):
    assert did_you_mean(name, ["fan_in", "shard_size"]) == ""
    assert did_you_mean(name, []) == ""


@pytest.mark.parametrize(("call", "error", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_call_is_told_what_would_be_right_and_nothing_is_sent(call, error, said, refusing):
    with pytest.raises(error, match=said) as caught:
        call(refusing.lm())
    assert error is TypeError or isinstance(caught.value, amr.AMRError)


@pytest.mark.parametrize("what", [ROWS, ROWS["text"], ROWS["text"].to_numpy()], ids=["frame", "series", "array"])
@pytest.mark.parametrize("name", TAKES_NO_FRAME)
def test_a_frame_in_the_place_of_an_option_is_refused_without_its_cells(name, what, refusing):
    if name == "columns" and isinstance(what, pd.DataFrame):
        return  # its columns are labels
    given = {"map": "Read.", "finding": {"n": int}, "reduce": {"n": "sum"}, "lm": refusing.lm()}
    with pytest.raises(amr.AMRError) as caught:
        ROWS.amr.map_reduce(**(given | {name: what}))
    assert CELL not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["lm", "max_parallelism", "errors", "budget", "journal", "redact", "trace", "offline"])
def test_a_frame_in_the_place_of_a_setting_is_refused_without_its_cells(name):
    with pytest.raises(amr.UsageError) as caught, amr.settings(**{name: ROWS}):
        pass
    assert CELL not in str(caught.value)


MAKERS = {
    "LM": (
        lambda **given: amr.LM(**{"model": "m"} | given),
        (
            "model base_url temperature timeout_s patience_s max_parallelism max_tries rpm seed prices abilities hedge "
            "max_output_tokens reasoning_effort journal_as"
        ),
    ),
    "Agent": (lambda **given: amr.Agent(**{"instruction": "Read."} | given), "instruction role max_steps"),
    "Budget": (lambda **given: amr.Budget(**{"calls": 5} | given), "money calls seconds shared confirm"),
    "Tool": (lambda **given: amr.Tool(**{"func": len, "name": "size"} | given), "func name timeout_s"),
    "PythonREPLTool": (amr.PythonREPLTool, "limits isolation"),
    "Journal": (amr.Journal, "path"),
}
MADE = [
    pytest.param(make, name, id=f"{kind} {name}") for kind, (make, names) in MAKERS.items() for name in names.split()
]


@pytest.mark.parametrize(("make", "name"), MADE)
def test_a_frame_in_the_place_of_an_argument_of_what_a_call_takes_is_refused_without_its_cells(make, name):
    with pytest.raises(amr.UsageError) as caught:
        make(**{name: ROWS})
    assert CELL not in str(caught.value)
    assert "DataFrame" in str(caught.value)


def test_true_is_no_number_of_steps():
    with pytest.raises(amr.UsageError, match=r"Agent\(max_steps=\.\.\.\) takes a whole number from 1, not True\."):
        amr.Agent("Read.", max_steps=True)


def test_a_key_that_is_taken_for_a_model_is_not_repeated():
    for call in (lambda: DF.amr.map("Read.", lm=KEY), lambda: amr.LM(KEY), lambda: amr.configure(lm=KEY)):
        with pytest.raises(amr.UsageError) as caught:
            call()
        assert KEY not in str(caught.value)
    assert amr.LM("sk-7b").model == "sk-7b"


def test_a_plan_s_file_that_is_no_text_is_told_and_a_mark_before_the_text_is_none_of_it(tmp_path, refusing):
    (tmp_path / "plan.bin").write_bytes(b"\x80\x81\xff")
    with pytest.raises(amr.PlanError, match="is not text"):
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
    with pytest.raises(amr.UsageError, match="model's name, not ' '"):
        amr.LM(" ")


NOT_TO_BE_SENT = {
    "half a character in the name": ({"model": "m\ud83d"}, r"LM\(model=...\) contains a lone surrogate"),
    "no number in the body": (
        {"extra_body": {"a": [math.nan]}},
        r"LM\(extra_body=...\) holds what JSON has no form for",
    ),
    "bytes in the body": ({"extra_body": {"a": b"b"}}, "JSON has no form for .*bytes"),
    "an object in the body": ({"extra_body": {"a": object()}}, "JSON has no form for .*object"),
    "half a character in the body": ({"extra_body": {"a": "\ud83d"}}, "contains a lone surrogate"),
    "a list as the body": ({"extra_body": [1]}, r"LM\(extra_body=...\) takes a dict, not list"),
    "a body that holds itself": ({"extra_body": HOLDS_ITSELF}, r"LM\(extra_body=...\) holds itself"),
    "a header of two lines": (
        {"extra_headers": {"X": "a\nb"}},
        "texts of printable ASCII characters; this is not so for 'X'",
    ),
    "a header of other letters": ({"extra_headers": {"X": "é"}}, "this is not so for 'X'"),
    "a header that is a number": ({"extra_headers": {"X": 5}}, "this is not so for 'X'"),
}


@pytest.mark.parametrize("what", NOT_TO_BE_SENT)
def test_what_of_a_model_cannot_be_sent_is_refused_before_it_is(what):
    options, problem = NOT_TO_BE_SENT[what]
    with pytest.raises(amr.UsageError, match=problem):
        amr.LM(**({"model": "m"} | options))


def test_a_wrong_setting_is_told():
    with pytest.raises(amr.UsageError, match="There is no setting 'model'"):
        amr.configure(model="x")
    with pytest.raises(amr.UsageError, match="max_steps"):
        amr.configure(max_steps=0)
