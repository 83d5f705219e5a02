"""``df.groupby(...).amr`` is ``by=``: the keys, the options and the columns that were selected."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pandas as pd
import pytest

import pandas_amr as amr
from pandas_amr.testing import ScriptedServer, findings

DF = pd.DataFrame(
    {
        "shop": ["b", "a", "b", None, "a", "c"],
        "text": [f"row {n}" for n in range(6)],
        "stars": [1, 2, 3, 4, 5, 6],
        "size": pd.Categorical(["s", "m", "s", "m", "s", "m"], categories=["s", "m", "l"]),
        "day": pd.to_datetime(["2026-01-01", "2026-01-04", "2026-01-01", "2026-01-04", "2026-01-04", "2026-01-01"]),
    },
    index=pd.MultiIndex.from_arrays([[1, 1, 2, 2, 3, 3], list("uvuvuv")], names=["visit", "part"]),
)
SHOPS = DF["shop"].rename("where")
HOW = {"stars": ["sum", "count"]}

GROUPS = {
    "a column": lambda df, **o: df.groupby("shop", **o),
    "columns": lambda df, **o: df.groupby(["shop", "size"], **o),
    "a list of one": lambda df, **o: df.groupby(["shop"], **o),
    "a category": lambda df, **o: df.groupby("size", **o),
    "a level by name": lambda df, **o: df.groupby(level="visit", **o),
    "a level by number": lambda df, **o: df.groupby(level=1, **o),
    "levels": lambda df, **o: df.groupby(level=["part", "visit"], **o),
    "the name of a level": lambda df, **o: df.groupby("visit", **o),
    "a level and a column": lambda df, **o: df.groupby(["part", "shop"], **o),
    "a function": lambda df, **o: df.groupby(lambda label: label[0] > 1, **o),
    "a dict": lambda df, **o: df.groupby({(1, "u"): "x", (2, "v"): "y"}, **o),
    "an array": lambda df, **o: df.groupby(np.array([1, 2, 1, 2, 1, 2]), **o),
    "a list of values": lambda df, **o: df.groupby([1, 2, 1, 2, 1, 2], **o),
    "a Series": lambda df, **o: df.groupby(SHOPS, **o),
    "a Series in another order": lambda df, **o: df.groupby(SHOPS.iloc[::-1], **o),
    "a Series and a column": lambda df, **o: df.groupby([SHOPS, "size"], **o),
    "dates": lambda df, **o: df.groupby([pd.Grouper(key="day", freq="D"), "shop"], **o),
    "a Grouper of a level": lambda df, **o: df.groupby(pd.Grouper(level="visit"), **o),
}
OPTIONS = {
    "as they are": {},
    "observed": {"observed": True},
    "all categories": {"observed": False},
    "missing keys": {"dropna": False, "observed": True},
    "as they appear": {"sort": False, "observed": True},
}


def expected(groups):
    """The answer of pandas itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # pandas 2 will change its default
        return groups["stars"].agg(["sum", "count"])


def assert_same_groups(given, wanted):
    wanted.columns = given.columns
    pd.testing.assert_frame_equal(given, wanted, check_dtype=False, check_index_type=False, check_freq=False)


@pytest.mark.sampled(4)
@pytest.mark.filterwarnings("ignore:The default of observed:FutureWarning")
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("groups", GROUPS)
def test_the_groups_are_those_of_pandas(groups, options):
    grouped = GROUPS[groups](DF, **OPTIONS[options])
    assert_same_groups(grouped.amr.reduce(HOW), expected(GROUPS[groups](DF, **OPTIONS[options])))


@pytest.mark.sampled(4)
@pytest.mark.filterwarnings("ignore:The default of observed:FutureWarning")
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("groups", [name for name in GROUPS if name != "dates"])
def test_a_selected_series_has_the_groups_of_the_frame_it_left(groups, options):
    grouped = GROUPS[groups](DF, **OPTIONS[options])["stars"]
    assert_same_groups(grouped.amr.reduce(HOW), expected(GROUPS[groups](DF, **OPTIONS[options])))


@pytest.mark.parametrize(
    "keys", [[1, 2, 1, 2, 1, 2], SHOPS, lambda label: label[1]], ids=["values", "Series", "function"]
)
def test_a_series_can_be_grouped_itself(keys):
    series = DF["stars"]
    assert_same_groups(series.groupby(keys).amr.reduce(HOW), series.groupby(keys).agg(["sum", "count"]))


def test_dates_of_the_index_group_a_series():
    series = pd.Series([1, 2, 3], index=pd.to_datetime(["2026-01-01", "2026-01-03", "2026-01-03"]), name="stars")
    by_day = series.groupby(pd.Grouper(freq="D"))
    assert_same_groups(by_day.amr.reduce(HOW), by_day.agg(["sum", "count"]))


def number(request):
    return findings(request, lambda unit: {"n": int(unit["text"][4:])})


def test_every_verb_with_groups_is_called_by_them_and_reads_the_columns_that_were_selected():
    asked = {"map": "The number.", "finding": {"n": int}, "reduce": {"n": "sum"}, "plan": {"shard_size": 2}}
    with ScriptedServer(number) as server:
        asked["lm"] = server.lm()
        wanted = amr.map_reduce(DF, columns=["text"], by="shop", **asked)
        frame = DF.groupby("shop")[["text"]]
        series = DF.groupby("shop")["text"]
        for grouped in (frame, series):
            result = grouped.amr.map_reduce(**asked)
            assert result.output.to_dict() == wanted.output.to_dict()
            pd.testing.assert_frame_equal(result.findings, wanted.findings)
            assert grouped.amr.start(**asked).result().output.to_dict() == wanted.output.to_dict()
            assert grouped.amr.plan(**asked).by is not None
        assert frame.amr.map_reduce(**asked).plan.by.labels == ["shop"]
        assert list(frame.amr.map_reduce(**asked).frame.columns) == [*DF.columns, "n"]
        assert list(series.amr.map_reduce(**asked).frame.columns) == ["text", "n"]
        assert {tuple(unit) for request in server.requests for unit in request.units} == {("unit", "text")}


def test_agents_write_per_group():
    with ScriptedServer(lambda request: {"output": f"{len(request.findings)} rows", "sources": []}) as server:
        written = DF.groupby("shop")[["text"]].amr.reduce("Sum up.", lm=server.lm())
    assert written["output"].to_dict() == {"a": "2 rows", "b": "2 rows", "c": "1 rows"}


REFUSED = {
    "map": (
        lambda: DF.groupby("shop").amr.map("x"),
        r"map finds something in each row.*df.amr.map\(...\).*group_columns",
    ),
    "filter": (
        lambda: DF.groupby("shop")["text"].amr.filter("x"),
        r"filter finds something in each row.*df.amr.filter",
    ),
    "by again": (lambda: DF.groupby("shop").amr.reduce(HOW, by="size"), r"those of groupby\(...\): leave out by="),
    "columns again": (
        lambda: DF.groupby("shop")[["text"]].amr.reduce(HOW, columns=["text"]),
        "those selected of groupby",
    ),
    "as columns": (lambda: DF.groupby("shop", as_index=False).amr.reduce(HOW), r"as_index=False.*reset_index\(\)"),
    "dates that a Series left": (
        lambda: DF.groupby(pd.Grouper(key="day", freq="D"))["stars"].amr.reduce(HOW),
        r"no column for their Grouper: select a list of columns, df.groupby\(...\)\[\[column\]\]",
    ),
    "an unknown keyword": (
        lambda: DF.groupby("shop").amr.map_reduce("x", colums=["text"]),
        r"takes no 'colums'. Did you mean 'columns'",
    ),
    "a missing reduce": (lambda: DF.groupby("shop").amr.map_reduce(map=len), "needs reduce="),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_groups_cannot_be_asked_is_refused_with_what_would_be_right(name, refusing):
    call, reason = REFUSED[name]
    with amr.settings(lm=refusing.lm()), pytest.raises(amr.UsageError, match=reason):
        call()


def test_an_unknown_verb_is_an_attribute_error_that_suggests_one():
    with pytest.raises(AttributeError, match="groups.amr has no attribute 'reduse'. Did you mean 'reduce'?"):
        _ = DF.groupby("shop").amr.reduse


def test_groups_of_columns_are_refused():
    if pd.__version__ >= "3":  # which has none any more
        with pytest.raises(TypeError, match="axis"):
            DF.groupby({"stars": "x"}, axis=1)
        return
    with pytest.warns(FutureWarning, match="axis=1"):
        grouped = DF[["stars"]].groupby({"stars": "x"}, axis=1)
    with pytest.raises(amr.UsageError, match=r"groupby\(axis=1\) groups columns"):
        grouped.amr.reduce(HOW)


def test_an_accessor_of_groups_has_a_type_and_shows_its_verbs():
    grouped = DF.groupby("shop")
    accessor = amr.accessor(grouped)
    assert type(accessor) is type(grouped.amr) is type(grouped["text"].amr)
    assert repr(accessor) == "<groups.amr of 6 rows: start, map_reduce, reduce, plan>"
    assert "amr" in dir(grouped)
    assert {"start", "map_reduce", "reduce", "plan"} <= set(dir(grouped.amr))


def test_signatures_show_the_options_but_neither_frame_nor_by():
    import inspect

    parameters = inspect.signature(DF.groupby("shop").amr.map_reduce).parameters
    assert {"task", "output", "finding", "lm"} <= set(parameters)
    assert not {"frame", "by"} & set(parameters)


def test_a_column_called_amr_is_still_there_by_its_name():
    df = pd.DataFrame({"amr": [1, 2], "shop": ["a", "b"]})
    assert df.groupby("shop")["amr"].sum().tolist() == [1, 2]
    assert df.groupby("shop").amr.reduce({"amr": "sum"})["amr"].tolist() == [1, 2]


def test_importing_again_registers_no_second_accessor():
    before = pd.api.typing.DataFrameGroupBy.amr
    from pandas_amr._api.accessor import register

    register()
    assert pd.api.typing.DataFrameGroupBy.amr is before
    assert "pandas_amr" in sys.modules


@pytest.mark.parametrize(
    ("keys", "values"),
    [
        ("k", {"k": pd.Series([True, None, False, None], dtype=object)}),
        (["k", "m"], {"k": ["x", None, "y", "x"], "m": [1, 2, 2, 1]}),
        (["m", "k"], {"k": [True, True, False, False], "m": ["x", None, None, "y"]}),
    ],
    ids=["bools", "beside numbers", "beside texts"],
)
def test_a_row_without_a_key_is_in_no_group_of_a_column_that_was_selected(keys, values):
    groups = pd.DataFrame(values).assign(n=[1, 10, 100, 1000]).groupby(keys)["n"]
    assert groups.amr.reduce({"n": "sum"})["n"].to_dict() == groups.sum().to_dict()
