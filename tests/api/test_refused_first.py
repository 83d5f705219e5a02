"""What pandas cannot compute, or no output can hold, is refused before a request is sent."""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import re
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel, field_validator

import pandas_amr as amr
from pandas_amr._plan.compute import aggregate
from pandas_amr._plan.feasibility import FeasibilityCheck
from pandas_amr._plan.sample_rows import typical_column

Mood = Literal["good", "bad"]


class Inner(BaseModel):
    x: int


class Finding(BaseModel):
    n: int
    size: float
    ok: bool
    word: str
    mood: Mood
    tags: list[str]
    grid: list[list[str]]
    inner: Inner
    counts: dict[str, int]
    when: dt.date


class Item(BaseModel):
    n: int
    word: str
    ok: bool


class Claim(BaseModel):
    text: str
    sources: list[str]


class Totals(BaseModel):
    n: int


DF = pd.DataFrame(
    {
        "text": ["a", "b", "c", "d", "e"],
        "shop": ["x", "y", "x", "y", None],
        "price": [1.5, 2.0, 3.0, 4.0, None],
        "mixed": np.array([1, "a", 2.5, None, 3], dtype=object),
        "dicts": [{"a": 1}, {}, {"a": 2}, {}, {}],
        "kind": pd.Categorical(["u", "v", "u", "v", "u"]),
    },
    index=list("pqrst"),
)
MANY_ROWS = pd.DataFrame({"text": "a", "mixed": pd.Series([1] * 10_000, dtype=object)})
MANY_ROWS.loc[4_321, "mixed"] = "a"
LEVELS = pd.DataFrame([[1, 2, "a"]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y"), ("text", "")]))


def reduced(reduce, frame=DF, finding=Finding, **options):
    return lambda lm: frame.amr.map_reduce(map="Read.", finding=finding, reduce=reduce, lm=lm, **options)


def columns(given, frame=DF):
    return lambda lm: frame.amr.map("Read.", columns=given, lm=lm)


REFUSED = {
    # aggregations of findings
    "mean of choices": (reduced({"mood": "mean"}), r"reduce\['mood'\]: 'mean' takes numbers; 'mood' holds choices.*count"),
    "max of choices": (reduced({"mood": "max"}), "'max' takes values that have an order"),
    "median of bools": (reduced({"ok": "median"}), "'median' takes numbers; 'ok' holds bools.*sum, mean"),
    "deviation of bools": (reduced({"ok": "std"}), "'std'"),
    "mean of texts": (reduced({"word": "mean"}), "'mean' takes numbers; 'word' holds texts"),
    "mean of texts, by pandas' own function": (reduced({"word": np.mean}), "'mean' takes numbers"),
    "sum of dates": (reduced({"when": "sum"}), "'sum' takes numbers; 'when' holds dates"),
    "sum of lists": (reduced({"tags": "sum"}), "'sum' takes numbers; 'tags' holds lists"),
    "max of lists": (reduced({"tags": "max"}), "'max' takes values that have an order"),
    "counts of lists of lists": (reduced({"grid": "value_counts"}), "'value_counts' takes single values"),
    "counts of records": (reduced({"inner": "value_counts"}), "'value_counts' takes single values"),
    "shares of dicts": (reduced({"counts": "share"}), "'share' takes single values"),
    "mode by groups": (reduced({"mood": "mode"}, by="shop"), "'mode' takes a whole column, not groups"),
    "one of several": (reduced({"n": ["sum", "mean"], "mood": ["count", "mean"]}), r"reduce\['mood'\]: 'mean'"),
    "one of named ones": (reduced({"low": ("mood", "min")}), r"reduce\['low'\]: 'min' takes values that have an order"),
    "by pd.NamedAgg": (reduced({"low": pd.NamedAgg("tags", "min")}), r"reduce\['low'\]: 'min'"),
    "rows by groups": (reduced({"n": "cumsum"}, by="shop"), "'cumsum' takes a whole column, not groups"),
    "some rows by groups": (reduced({"low": ("price", "head")}, by="shop"), "'head' takes a whole column, not groups"),
    "any row by groups": (reduced({"price": "sample"}, by="shop"), "'sample' takes a whole column, not groups"),
    "rows of units by groups of records": (
        reduced({"price": "rank", "word": "count"}, by="ok", finding=list[Item]),
        "'rank' takes a whole column, not groups",
    ),
    "beside a function": (reduced({"mood": [len, "mean"]}), "'mean' takes numbers"),
    "beside an agent": (reduced({"n": amr.Agent("Sum up."), "mood": "mean"}), "'mean' takes numbers"),
    "of records": (reduced({"word": "mean"}, finding=list[Item]), "'mean' takes numbers; 'word' holds texts"),
    "of the lists themselves": (reduced({"items": "mean"}, finding=list[Item]), "'mean' takes numbers"),
    # aggregations of the frame's columns
    "mean of the frame's texts": (reduced({"shop": "mean"}), "'mean' takes numbers; 'shop' holds"),
    "sum of a mixed column": (reduced({"mixed": "sum"}), r"'sum' takes numbers; 'mixed' holds objects \(float, int, str\)"),
    "max of a mixed column": (reduced({"mixed": "max"}, by="shop"), "'max' takes values that have an order"),
    "one odd value of many": (reduced({"mixed": "mean"}, MANY_ROWS), "'mean' takes numbers"),
    "different dicts": (reduced({"dicts": "nunique"}), "'nunique' takes single values"),
    "max of categories": (reduced({"kind": "max"}), "'kind' holds categories without an order"),
    "several columns below a label": (reduced({"a": "sum"}, LEVELS), r"'a' stands for several columns. Name one of them: \('a', 'x'\)"),
    # groups
    "by lists": (reduced({"n": "sum"}, by="tags"), "by='tags' takes single values, not lists"),
    "by records": (reduced({"n": "sum"}, by=["shop", "inner"]), "by='inner' takes single values"),
    "by dicts of the frame": (reduced({"n": "sum"}, by="dicts"), "by='dicts' takes single values"),
    "by several columns below a label": (reduced({"n": "sum"}, LEVELS, by="a"), "'a' stands for several columns"),
    "by a list of lists": (reduced({"n": "sum"}, by=[["shop"]]), "by= takes column labels.*not list"),
    "by a Series of another index": (
        reduced({"n": "sum"}, by=pd.Series(list("aabba"))),
        "does not have the frame's index.*set_axis",
    ),
    "by a shorter Series": (reduced({"n": "sum"}, by=DF["shop"].iloc[:2]), "does not have the frame's index"),
    "by a shorter array": (reduced({"n": "sum"}, by=np.array([1, 2])), "has 2 values, and the frame 5 rows"),
    "by a Series of lists": (reduced({"n": "sum"}, by=pd.Series([[1]] * 5, index=DF.index)), "single values"),
    "by a function that fails": (reduced({"n": "sum"}, by=lambda label: 1 / 0), "raised Zero.*each label of the index"),
    "by months of texts": (reduced({"n": "sum"}, by=pd.Grouper(key="shop", freq="D")), "freq= takes a column.*of dates"),
    "by a level that is not": (reduced({"n": "sum"}, by=pd.Grouper(level="day")), "level=, a level of the index"),
    "by months of no dates": (reduced({"n": "sum"}, by=pd.Grouper(key="n", freq="D")), "of dates"),
    "by months of an index of texts": (reduced({"n": "sum"}, by=pd.Grouper(freq="D")), "of dates"),
    "by a Grouper of no column": (reduced({"n": "sum"}, by=pd.Grouper(key="day")), "by= names 'day', which is not a column"),
    "by nothing": (reduced({"n": "sum"}, by=[]), "by= is empty"),
    "by an empty dict": (reduced({"n": "sum"}, by={}), "by= is empty"),
    # rows that are chosen, or rank first
    "where of no bool": (reduced({"n": "sum"}, plan={"where": "mood"}), "where='mood' takes a bool"),
    "where of a list": (reduced({"n": "sum"}, plan={"where": "tags"}), "where='tags' takes a bool"),
    "ranking by choices": (reduced(None, plan={"ranking": {"field": "mood"}}), "ranking by 'mood' takes numbers or dates"),
    "ranking by lists": (reduced(None, plan={"ranking": {"field": "tags"}}), "ranking by 'tags'.*holds lists"),
    "ranking by a mixed column": (reduced(None, plan={"ranking": {"field": "mixed"}}), r"objects \(float, int, str\)"),
    "ranking by one odd value of many": (
        reduced(None, MANY_ROWS, plan={"ranking": {"field": "mixed"}}),
        "ranking by 'mixed'",
    ),
    "ranking by categories": (reduced(None, plan={"ranking": {"field": "kind"}}), "categories without an order"),
    "ranking by a missing column": (reduced(None, plan={"ranking": {"field": "size2"}}), "ranking names 'size2'"),
    "one number of a ranking": (reduced(None, output=int, plan={"ranking": {"field": "n"}}), "cannot hold a ranking"),
    "group_columns of dicts": (
        lambda lm: DF.amr.map("Read.", lm=lm, plan={"segmentation": "groups", "group_columns": ["dicts"]}),
        "group_columns: 'dicts' takes single values",
    ),
    # the output's type
    "int of a mean": (reduced({"n": "mean"}, output=int), "The reduce gave no int.*'mean' of 'n' gives float"),
    "int of a median": (reduced({"n": "median"}, output=int), "'median' of 'n'"),
    "int of a share of bools": (reduced({"ok": "mean"}, output=int), "'mean' of 'ok'"),
    "int of the frame's floats": (reduced({"price": "sum"}, output=int), "'sum' of 'price' gives float"),
    "int of a text": (reduced({"word": "max"}, output=int), "'max' of 'word' gives str"),
    "str of a sum": (reduced({"n": "sum"}, output=str), "The reduce gave no str.*gives int"),
    "float of a table": (reduced({"mood": "value_counts"}, output=float), "gives a frame"),
    "int of several values": (reduced({"n": ["min", "max"]}, output=int), "The reduce gave no int"),
    "int of a mode": (reduced({"word": "mode"}, output=int), "The reduce gave no int"),
    "a record of a mean": (reduced({"n": "mean"}, output=Totals), "The reduce gave no Totals"),
    "a record of another name": (reduced({"ok": "sum"}, output=Totals), "The reduce gave no Totals"),
    "a list of records of a sum": (reduced({"n": "sum"}, output=list[Totals]), "The reduce gave no list"),
    "int of means by groups": (reduced({"n": "mean"}, by="shop", output=int), "The reduce gave no int"),
    "records of texts by groups": (reduced({"word": "max"}, by="shop", output=list[Totals]), "The reduce gave no list"),
    "a field of the wire's own": (
        lambda lm: DF.amr.map_reduce(map="Read.", reduce="Sum up.", output=list[Claim], lm=lm),
        "output= has a field 'sources'",
    ),
    "a field of the wire's own, of one record": (
        lambda lm: DF.amr.map_reduce("What?", output=Claim, lm=lm),
        "output= has a field 'sources'",
    ),
    # columns
    "columns in a list of lists": (columns([["text"]]), "takes a column label, a list of labels or a slice.*not a list"),
    "columns in a list of sets": (columns([{"text"}]), "not a set within a list"),
    "a slice to no column": (columns(slice("text", "zzz")), "takes two labels of the columns"),
    "a slice of positions": (columns(slice(0, 2)), "takes two labels of the columns"),
    "an empty slice": (columns(slice("price", "shop")), "holds no column"),
    "a column and its level": (columns(["a", ("a", "x")], LEVELS), "names a column twice"),
    "no level": (columns("b", LEVELS), "No column 'b'"),
    "findings by name for one map": (
        lambda lm: DF.amr.map("Read.", plan={"finding": {"a": Totals}}, lm=lm),
        r"finding= is by name \(a\); map= is one map",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "said"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.sampled(7)
def test_what_cannot_be_computed_is_refused_and_nothing_is_sent(call, said, refusing):
    with pytest.raises(amr.UsageError, match=said) as caught:
        call(refusing.lm())
    assert caught.value.__cause__ is None or "by= a function" not in said


@pytest.mark.skipif(pd.__version__ < "3", reason="of pandas 2, a NamedAgg holds no arguments")
@pytest.mark.parametrize("by", [None, "shop"])
@pytest.mark.parametrize("function", ["quantile", np.quantile, sum, np.sum])
def test_arguments_that_would_not_reach_a_function_are_refused(function, by):
    def quantile(values, share):
        return values.quantile(share)

    said = r"reduce\['low'\]: the arguments of a pd.NamedAgg reach a function of yours only, and not"
    with pytest.raises(amr.UsageError, match=said):
        DF.amr.reduce({"low": pd.NamedAgg("price", function, 0.25)}, by=by)
    output = DF.amr.reduce({"low": pd.NamedAgg("price", quantile, 0.25)}, by=by)
    assert np.ravel(output).tolist() == ([1.875] if by is None else [1.875, 2.5])


@pytest.mark.parametrize("what", ["price", "mixed", "shop"])
def test_a_reduce_of_the_frame_s_own_columns_is_refused_alike(what):
    how = "sum" if what == "mixed" else "mean"
    if what == "price":
        assert DF.amr.reduce({what: how})[what] == DF[what].mean()
        return
    with pytest.raises(amr.UsageError, match=f"'{how}' takes numbers"):
        DF.amr.reduce({what: how})


def test_an_error_holds_no_cell():
    secret = pd.DataFrame({"v": pd.Series(["secret-1", 2, ["secret-3"]], dtype=object)})
    for how, options in (("mean", {}), ("max", {}), ("sum", {}), ("count", {"by": "v"})):
        with pytest.raises(amr.UsageError) as caught:
            secret.amr.reduce({"v": how}, **options)
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_user_s_function_and_validator_are_not_called_before_their_time(refusing):
    called = []

    class Strict(BaseModel):
        n: int

        @field_validator("n")
        @classmethod
        def _seen(cls, value):
            called.append(value)
            return value

    def total(column):
        called.append(column)
        return column.sum()

    plan = DF.amr.plan(map="Read.", finding=Finding, reduce={"n": total, "size": "sum"}, lm=refusing.lm())
    assert plan.finding is Finding
    DF.amr.plan(map="Read.", finding=Finding, reduce={"n": "sum"}, output=Strict, lm=refusing.lm())
    assert called == []


def test_the_bounds_of_an_output_are_the_true_value_s_to_meet(refusing):
    class Share(BaseModel):
        ok: float
        note: str = ""

    for output in (Share, Literal["a"], float):
        how = {"word": "max"} if output not in (Share, float) else {"ok": "mean"}
        DF.amr.plan(map="Read.", finding=Finding, reduce=how, output=output, lm=refusing.lm())


BY_CODE = {
    "a Series": DF["shop"],
    "an array": DF["shop"].to_numpy(),
    "a function": len,
    "a dict": {"p": 1},
    "a Grouper": pd.Grouper(key="when", freq="D"),
    "among labels": ["shop", len],
}


@pytest.mark.parametrize("by", BY_CODE.values(), ids=BY_CODE.keys())
def test_a_plan_s_json_says_that_it_cannot_hold_a_key_that_is_code(by, refusing):
    plan = DF.amr.plan(map="Read.", finding=Finding, reduce={"n": "sum"}, by=by, lm=refusing.lm())
    with pytest.raises(amr.PlanError, match=r"JSON cannot hold <.*say by= again") as caught:
        plan.to_json()
    assert "0x" not in str(caught.value) + repr(plan)
    assert "'y'" not in str(caught.value) + repr(plan)


KINDS = {
    "n": int,
    "size": float,
    "ok": bool,
    "word": str,
    "day": dt.date,
    "at": dt.datetime,
    "time": dt.time,
    "length": dt.timedelta,
    "price": decimal.Decimal,
    "mood": Mood,
    "grade": Literal[1, 2, 3],
    "tags": list[str],
    "numbers": list[int],
    "grid": list[list[int]],
    "counts": dict[str, int],
}
HOWS = [
    "count",
    "sum",
    "mean",
    "median",
    "min",
    "max",
    "nunique",
    "value_counts",
    "share",
    "mode",
    "std",
    "var",
    "sem",
    "skew",
    "prod",
    "any",
    "all",
    "first",
    "last",
    "idxmin",
    "idxmax",
    "quantile",
    "size",
    "unique",
    "nlargest",
    "describe",
    "is_unique",
    "argmax",
]
TYPICAL = pd.DataFrame({"group": list("xxyyzzxyyx")} | {name: typical_column(kind, 10) for name, kind in KINDS.items()})
MISSING = TYPICAL.iloc[[4, 9]]  # rows in which no field has a value


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("by", [None, amr.By("group"), amr.By("mood", observed=False), amr.By("n")], ids=repr)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.sampled(13)
def test_what_is_not_refused_is_computed_of_some_rows_of_none_and_of_missing_values(name, by):
    feasibility = FeasibilityCheck(TYPICAL[["group"]], KINDS, [name], by)
    taken = [how for how in HOWS if feasibility.aggregation_problem(name, how) is None]
    assert "count" in taken
    for how in taken:
        for rows in (TYPICAL, TYPICAL.iloc[:0], MISSING, TYPICAL.iloc[:1]):
            aggregate(rows, {name: how}, by)
            aggregate(rows, {"called": (name, how)}, by)


ADDRESSES = [
    "http://user:pa55@127.0.0.1:9/v1",
    "http://pa55@127.0.0.1:9/v1",
    "http://127.0.0.1:9/v1?key=pa55",
    "http://127.0.0.1:9/v1#pa55",
    "127.0.0.1:9/pa55",
    "ftp://host/pa55",
    "http://",
    "http:///pa55",
    "http://host:99999/pa55",
    "http://[pa55/v1",
    " http://host/v1",
    "",
    3,
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_what_is_no_address_is_refused_in_words_without_it(address, monkeypatch):
    with pytest.raises(amr.UsageError, match=r"LM\(base_url=...\) takes a server's address") as caught:
        amr.LM("m", base_url=address)
    assert "pa55" not in str(caught.value)
    if not isinstance(address, str) or address != address.strip() or not address:
        return  # a variable is a text, and an empty one is none
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(amr.UsageError, match="OPENAI_BASE_URL takes a server's address") as caught:
        pd.DataFrame({"text": ["a"]}).amr.map("Which?", finding={"n": int}, lm=amr.LM("m", api_key="k"))
    assert "pa55" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["http://localhost/v1", "https://[::1]:8000", "HTTPS://Host:443/a/b/", "http://a_b/v1"]
)
def test_any_address_of_a_server_is_taken(address):
    assert amr.LM("m", base_url=address).base_url == address


OWN_WORDS = pytest.mark.skipif(pd.__version__ < "3", reason="of groups, pandas 2 takes max for its own word")
SOME = {"n": int, "maybe": int | None, "ok": bool, "mood": ["good", "bad"], "word": str}


@pytest.mark.parametrize(
    ("reduce", "options", "why"),
    [
        ({"n": max}, {}, "'max' takes no missing value, such as that of a unit that failed"),
        ({"n": ["mean", min]}, {}, "'min' takes no missing value"),
        pytest.param({"most": ("n", max)}, {"by": "shop"}, "'max' takes no missing value", marks=OWN_WORDS),
        ({"word": sorted}, {}, "'sorted' takes no missing value"),
        ({"maybe": any}, {}, "'any' takes no missing value"),  # it is the first value that decides what it looks at
        ({"ok": np.ptp}, {}, "'ptp' takes numbers; 'ok' holds bools"),
        ({"mood": pd.Series.mean}, {}, "'mean' takes numbers; 'mood' holds choices"),
        ({"word": functools.partial(pd.Series.quantile, q=0.9)}, {}, "'quantile' takes numbers; 'word' holds texts"),
        pytest.param(
            {"year": max}, {"by": amr.By("mood", observed=False)}, "'max' takes a whole column", marks=OWN_WORDS
        ),
        ({"year": max}, {"plan": {"where": "ok"}}, "'max' takes"),
    ],
)
def test_a_function_that_fails_of_rows_that_may_stand_together_is_refused_before_a_request(
    reduce, options, why, refusing
):
    with pytest.raises(amr.UsageError, match=re.escape(why)):
        DF.assign(year=2026).amr.map_reduce(
            map="What?", finding=SOME, columns=["text"], reduce=reduce, lm=refusing.lm(), **options
        )


@pytest.mark.parametrize(
    "reduce", [{"n": "size"}, {"rows": ("n", "size"), "most": ("n", "max")}, {"n": ["size", "sum"]}]
)
def test_what_a_column_knows_of_itself_is_an_aggregation_as_pandas_says(reduce):
    df = pd.DataFrame({"n": [1, 2, None]})
    named = any(isinstance(how, tuple) for how in reduce.values())
    if named:
        assert df.amr.reduce(reduce).to_dict() == {"rows": 3, "most": 2}
        return
    expected = df.agg(reduce)
    given = df.amr.reduce(reduce)
    assert given.equals(expected), given


@pytest.mark.parametrize(("reduce", "output"), [({"n": "value_counts"}, int), ({"n": "count"}, str)])
def test_an_output_is_refused_of_a_frame_without_rows_as_of_any_other(reduce, output, refusing):
    for df in (DF, DF.iloc[:0]):
        with pytest.raises(amr.UsageError, match=f"no {output.__name__} when it was tried"):
            df.amr.map_reduce(
                map="What?", finding={"n": int}, columns=["text"], reduce=reduce, output=output, lm=refusing.lm()
            )


@pytest.mark.parametrize("output", [float, dict[str, float], Totals])
def test_a_frame_without_rows_is_taken_by_an_output_that_other_frames_are_taken_by(output, refusing):
    result = DF.iloc[:0].amr.map_reduce(
        map="What?", finding={"n": int}, columns=["text"], reduce={"n": "max"}, output=output, lm=refusing.lm()
    )
    assert result.output is None or output is not float
