"""The verbs as users call them: what they take, what help shows, one column as a Series."""

from __future__ import annotations

import inspect

import pandas as pd
import pytest

import pandas_amr as amr
from pandas_amr.testing import ScriptedServer, findings

VERBS = [amr.start, amr.map_reduce, amr.map, amr.filter, amr.reduce, amr.plan]
RUN_OPTIONS = ["lm", "max_parallelism", "max_steps", "errors", "budget", "journal", "progress", "trace", "on_event"]


@pytest.fixture
def frame():
    return pd.DataFrame({"text": ["good", "bad", "fine"]}, index=["a", "b", "c"])


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)
def test_the_signature_and_the_help_name_every_keyword(verb):
    parameters = inspect.signature(verb).parameters
    assert list(parameters)[-len(RUN_OPTIONS) :] == RUN_OPTIONS
    assert all(parameters[name].default is None for name in RUN_OPTIONS)
    assert parameters["plan"].default == "auto"
    assert all(isinstance(one.annotation, str) for one in parameters.values())
    if verb not in (amr.start, amr.plan):  # they take what map_reduce takes, and say so
        assert all(f"\n    {name}: " in inspect.getdoc(verb) for name in parameters)
    assert "{options}" not in verb.__doc__


def test_a_method_has_the_function_s_signature_without_the_frame(frame):
    for verb in VERBS:
        own = list(inspect.signature(verb).parameters)
        assert list(inspect.signature(getattr(frame.amr, verb.__name__)).parameters) == own[1:]


@pytest.mark.parametrize(
    ("verb", "keyword", "meant"),
    [
        ("map_reduce", "colums", "columns"),
        ("map_reduce", "findng", "finding"),
        ("map_reduce", "model", "lm"),
        ("map_reduce", "ouput", "output"),
        ("start", "group_by", "by"),
        ("map", "schema", "finding"),
        ("filter", "error", "errors"),
        ("reduce", "outputs", "output"),
        ("plan", "tool", "tools"),
    ],
)
def test_a_mistyped_keyword_is_told_with_the_one_that_was_meant(frame, refusing, verb, keyword, meant):
    words = [] if verb in ("start", "map_reduce", "plan") else ["x"]
    with pytest.raises(amr.UsageError, match=f"{verb}\\(\\) takes no '{keyword}'. Did you mean '{meant}'") as told:
        getattr(frame.amr, verb)(*words, **{keyword: 1})
    assert isinstance(told.value, TypeError)
    with pytest.raises(amr.UsageError, match="Did you mean"):
        getattr(amr.Recipe(), "map_reduce" if verb in ("start", "plan") else verb)("x", **{keyword: 1})


def test_a_keyword_that_is_like_none_is_told_with_all_that_there_are(frame):
    with pytest.raises(
        amr.UsageError, match=r"filter\(\) takes no 'xyz'. It takes: columns, out, engine, tools, plan, lm"
    ):
        frame.amr.filter("x", xyz=1)
    with pytest.raises(amr.UsageError, match=r"takes no 'xyz'. It takes: lm, errors"):
        amr.Recipe().map(len)(frame, xyz=1)


def test_a_series_is_a_frame_of_one_column(frame):
    with ScriptedServer(lambda request: findings(request, lambda unit: {"n": len(unit["text"])})) as server:
        found = frame["text"].amr.map("How long?", finding={"n": int}, lm=server.lm())
        pd.testing.assert_frame_equal(found, frame.assign(n=pd.array([4, 3, 4], dtype=found["n"].dtype)))
        assert frame["text"].amr.reduce(lambda table: table["text"].str.len().sum()) == 11
        unnamed = frame["text"].rename(None).amr.filter(lambda shard: shard["value"] != "bad")
    assert unnamed["value"].tolist() == ["good", "fine"]
    assert repr(frame["text"].amr).startswith("<series.amr of 3 rows: start, map_reduce")


def test_the_typed_accessor_is_what_the_attribute_is(frame):
    assert type(amr.accessor(frame)) is type(frame.amr)
    assert type(amr.accessor(frame["text"])) is type(frame["text"].amr)
    assert amr.accessor(frame).frame is frame
