"""Aggregations and functions, whole and by groups: rows in their groups, counts of all, functions of every kind."""

from __future__ import annotations

import functools
import subprocess
import sys

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import pandas_amr as amr
from examples import examples
from numbered import rows as texts
from pandas_amr.testing import ScriptedServer, findings

SHOPS = pd.DataFrame(
    {"shop": ["b", "b", "a", "a", "c"], "mood": ["good", "good", "bad", None, None], "n": [1, 2, 3, 4, 5]}
)


def total(column):
    return int(column.sum())


async def total_later(column):
    return int(column.sum())


class TotalLater:
    async def __call__(self, column):
        return int(column.sum())


LATER = [
    total_later,
    TotalLater(),
    functools.partial(total_later),
    lambda column: total_later(column),  # gives a coroutine
]


# Rows in their groups


def test_rows_without_a_key_stand_in_their_own_group_among_those_that_do_not_occur():
    frame = pd.DataFrame(
        {"k": ["a", "a", "b"], "c": pd.Categorical(["x", None, "y"], categories=["x", "y"]), "n": [1, 10, 100]}
    )
    by = amr.By("k", "c", dropna=False, observed=False)
    sums = frame.amr.reduce(lambda part: {"n": int(part["n"].sum())}, by=by)
    expected = frame.groupby(["k", "c"], dropna=False, observed=False).agg({"n": "sum"})
    pd.testing.assert_frame_equal(sums, expected)
    assert sums["n"].tolist() == [1, 0, 10, 0, 100, 0]


class Item(BaseModel):
    size: int


DAYS = pd.date_range("2026-01-01", periods=4)
days_of = st.sampled_from([None, *DAYS])
units_of = st.tuples(
    st.sampled_from(["b", "a", None]),
    st.sampled_from(["x", "z", None]),
    days_of,
    st.lists(st.integers(1, 9), max_size=2),
)
SPANS = pd.Grouper(key="day", freq="2D")


@settings(deadline=None, max_examples=examples(40))
@given(
    st.lists(units_of, min_size=1, max_size=8),
    st.sampled_from([["k"], ["c"], ["day"], ["k", "c"], ["c", "day"], [SPANS], [SPANS, "k"]]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
@example([("a", "x", DAYS[0], []), ("b", "x", DAYS[1], [5]), ("a", "x", DAYS[2], [7])], ["k"], False, True, True)
@example([("a", "x", DAYS[0], []), ("b", "x", DAYS[1], [5]), ("a", "x", DAYS[2], [7])], [SPANS], True, True, True)
@example([("a", None, DAYS[0], []), (None, "x", DAYS[1], [5])], ["k", "c"], True, False, False)
def test_records_stand_in_the_groups_of_their_units(units, keys, sort, dropna, observed):
    """A unit without a record is in a group, too: it may be the first of it, or begin a span of time."""
    frame = pd.DataFrame(units, columns=["k", "c", "day", "sizes"])
    frame["c"] = pd.Categorical(frame["c"], categories=["z", "y", "x"])
    frame["day"] = pd.to_datetime(frame["day"])
    if SPANS in keys and frame["day"].isna().any():  # of them pandas makes no groups, or wrong ones
        frame["day"] = frame["day"].fillna(pd.Timestamp("2026-01-02"))
    found = frame.amr.map_reduce(
        map=lambda shard: [[{"size": size} for size in sizes] for sizes in shard["sizes"]],
        finding=list[Item],
        reduce={"size": "sum", "items_count": "sum"},
        by=amr.By(*keys, sort=sort, dropna=dropna, observed=observed),
    ).output
    summed = frame.assign(size=frame["sizes"].map(sum), items_count=frame["sizes"].map(len))
    groups = summed.groupby(keys, sort=sort, dropna=dropna, observed=observed)
    pd.testing.assert_frame_equal(found, groups[["size", "items_count"]].sum(), check_dtype=False)


@pytest.mark.parametrize("by", [amr.By("shop", sort=False), pd.Grouper(key="day", freq="2D")], ids=["order", "spans"])
def test_what_agents_write_of_records_stands_beside_what_is_computed_of_their_units(by):
    def provider(request):
        if request.schema == "reduction":
            return {"output": f"of {request.findings[0]['size']}", "sources": [0]}
        return findings(request, lambda unit: {"items": sizes[unit["text"]]})

    sizes = {"t0": [], "t1": [{"size": 5}], "t2": [{"size": 7}]}
    df = pd.DataFrame(
        {"text": ["t0", "t1", "t2"], "shop": ["a", "b", "a"], "day": pd.date_range("2026-01-01", periods=3)}
    )
    with ScriptedServer(provider) as server:
        result = df.amr.map_reduce(
            map="What?",
            finding=list[Item],
            columns=["text"],
            by=by,
            reduce={"size": amr.Agent("Which?"), "items_count": "sum"},
            lm=server.lm(),
        )
    rests_on = dict(zip(result.sources["group"], result.sources["position"], strict=True))
    written = {group: f"of {sizes[df['text'][place]][0]['size']}" for group, place in rests_on.items()}
    assert result.output["size"].to_dict() == written
    assert sorted(written.values()) == ["of 5", "of 7"]


@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("sort", [False, True])
def test_a_row_without_a_date_is_in_no_group_of_others_where_spans_stand_among_several_keys(sort, observed):
    df = pd.DataFrame(
        {
            "day": pd.to_datetime([None, "2026-01-05", "2026-01-01"]),
            "c": pd.Categorical(["q", "p", "q"], categories=["p", "q", "z"]),
            "n": [1, 10, 100],
        }
    )
    by = amr.By(pd.Grouper(key="day", freq="D"), "c", sort=sort, dropna=False, observed=observed)
    sums = df.amr.reduce({"n": "sum"}, by=by)["n"]
    listed = df.amr.reduce(lambda part: part["n"].tolist(), by=by)["output"]
    expected = df.groupby(["day", "c"], sort=sort, dropna=False, observed=observed)["n"].sum()
    pd.testing.assert_series_equal(sums, expected, check_dtype=False)
    assert [sum(values) for values in listed] == sums.tolist()


keys_of = st.tuples(
    st.sampled_from(["a", "b", None]),
    st.sampled_from(["x", "z", None]),
    st.sampled_from(["q", None]),
    st.integers(0, 9),
)


@settings(deadline=None, max_examples=examples(60))
@given(
    st.lists(keys_of, min_size=1, max_size=12),
    st.sampled_from([["k"], ["c"], ["k", "c"], ["c", "d"], ["c", "k", "d"]]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_each_group_holds_the_rows_that_pandas_puts_there_whatever_keys_are_missing(
    records, keys, sort, dropna, observed
):
    frame = pd.DataFrame(records, columns=["k", "c", "d", "n"])
    frame["c"] = pd.Categorical(frame["c"], categories=["z", "y", "x"])
    frame["d"] = pd.Categorical(frame["d"], categories=["p", "q"])
    options = {"sort": sort, "dropna": dropna, "observed": observed}
    grouped = frame.groupby(keys, **options)
    by = amr.By(*keys, **options)
    sums = frame.amr.reduce(lambda part: {"n": int(part["n"].sum())}, by=by)
    assert sums["n"].tolist() == grouped["n"].sum().tolist() if len(sums) else grouped["n"].sum().empty
    counts = frame.amr.reduce({"d": "value_counts", "n": "count"}, by=by)
    pd.testing.assert_frame_equal(counts[["n"]], frame.groupby(by.key, **options).agg({"n": "count"}))
    assert (counts[["d_p", "d_q"]].sum(axis=1) == frame.groupby(by.key, **options)["d"].count()).all()


@pytest.mark.parametrize("sort", [True, False])
def test_counts_have_a_row_for_groups_that_have_no_value_and_their_columns_in_the_order_of_the_values(sort):
    by = amr.By("shop", sort=sort)
    counts = SHOPS.amr.reduce({"mood": "value_counts", "n": "sum"}, by=by)
    assert counts.columns.tolist() == ["mood_bad", "mood_good", "n"]
    assert counts.index.tolist() == (["a", "b", "c"] if sort else ["b", "a", "c"])
    assert counts.loc["c"].tolist() == [0, 0, 5]
    assert set(counts.dtypes) == {SHOPS["n"].dtype}
    pd.testing.assert_frame_equal(SHOPS.amr.reduce({"mood": "value_counts"}, by=by), counts[["mood_bad", "mood_good"]])


def test_shares_of_a_group_without_values_are_missing():
    shares = SHOPS.amr.reduce({"mood": "share"}, by="shop")
    assert shares.loc[["a", "b"]].to_numpy().tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert shares.loc["c"].isna().all()


def test_counts_keep_the_order_of_categories_and_of_values_of_mixed_kind():
    frame = SHOPS.assign(mood=pd.Categorical(SHOPS["mood"], categories=["good", "fair", "bad"]))
    counts = frame.amr.reduce({"mood": "value_counts"}, by="shop")
    assert counts.columns.tolist() == ["mood_good", "mood_fair", "mood_bad"]
    mixed = SHOPS.assign(mood=pd.Series(["x", ("y",), 1, 1, None], dtype=object))
    assert mixed.amr.reduce({"mood": "value_counts"}, by="shop").to_numpy().sum() == 4


# Functions


@pytest.mark.parametrize("function", LATER)
@pytest.mark.sampled(2)
def test_a_function_that_must_be_awaited_is_as_one_that_must_not(function):
    def rows(call):
        return lambda frame: call(frame["n"])

    assert SHOPS.amr.reduce(rows(function)) == 15
    assert SHOPS.amr.reduce({"n": function})["n"] == 15
    for by in (amr.By("shop"), amr.By("shop", "mood", dropna=False, sort=False)):
        pd.testing.assert_frame_equal(SHOPS.amr.reduce({"n": function}, by=by), SHOPS.amr.reduce({"n": total}, by=by))
        named = {"most": ("n", "max"), "all": ("n", function), "again": pd.NamedAgg("n", function)}
        expected = SHOPS.groupby(by.key, **by.options).agg(most=("n", "max"), all=("n", total), again=("n", total))
        pd.testing.assert_frame_equal(SHOPS.amr.reduce(named, by=by), expected)


@pytest.mark.parametrize("function", LATER)
def test_a_reducer_that_must_be_awaited_is_awaited_for_each_group(function):
    class Whole:
        async def __call__(self, found):
            return await function(found["n"])

    assert SHOPS.amr.reduce(Whole(), by="shop")["output"].to_dict() == {"a": 7, "b": 3, "c": 5}


def test_functions_stand_in_lists_beside_words():
    given_ = SHOPS.amr.reduce({"n": ["sum", total_later], "mood": "count"}, by="shop")
    expected = SHOPS.groupby("shop").agg({"n": ["sum", total], "mood": "count"})
    assert given_.columns.tolist()[1] == ("n", "total_later")
    pd.testing.assert_frame_equal(given_.set_axis(expected.columns, axis=1), expected)
    whole = SHOPS.amr.reduce({"n": ["max", total_later], "mood": "count"})
    assert whole["n"].dropna().to_dict() == {"max": 5, "total_later": 15}
    assert whole["mood"].dropna().to_dict() == {"count": 3}


def test_what_an_awaited_function_raises_stops_the_run_and_no_coroutine_is_left_behind():
    async def fails(column):
        raise TimeoutError(f"of {len(column)}")

    with pytest.raises(amr.RunStopped, match="TimeoutError") as stopped:
        SHOPS.amr.reduce({"n": fails}, by="shop")
    assert str(stopped.value.__cause__) == "of 2"


def test_a_function_gets_the_column_whole_and_each_group_once():
    seen = []

    def length(column):
        rows = len(column) if isinstance(column, pd.Series) else 1
        seen.append((type(column), rows))
        return rows

    assert SHOPS.amr.reduce({"n": length})["n"] == 5
    assert SHOPS.amr.reduce({"n": [length, "max"]})["n"].to_dict() == {"length": 5, "max": 5}
    assert seen == [(pd.Series, 5)] * 2
    seen.clear()

    async def later(column):
        return length(column)

    SHOPS.amr.reduce({"n": later}, by="shop")
    assert [rows for _, rows in seen] == [2, 2, 1]


def test_a_map_that_must_be_awaited_is_awaited():
    class Lengths:
        async def __call__(self, shard):
            return [{"length": len(text)} for text in shard["shop"]]

    for function in (Lengths(), lambda shard: Lengths()(shard)):
        assert SHOPS.amr.map(function, finding={"length": int})["length"].tolist() == [1] * 5


def test_what_a_function_does_to_its_rows_does_not_reach_the_users_frame():
    frame = SHOPS.copy()

    def spoil(found):
        found["new"] = 1
        found.loc[found.index[0], "n"] = -1
        return int(found["n"].sum())

    def spoil_column(column):
        column.iloc[0] = -1
        return int(column.sum())

    assert frame.amr.reduce(spoil) == 13
    frame.amr.reduce(spoil, by="shop")
    assert frame.amr.reduce({"n": spoil_column})["n"] == 13
    frame.amr.reduce({"n": spoil_column}, by="shop")
    pd.testing.assert_frame_equal(frame, SHOPS)


# Shapes


def test_tables_of_the_same_kind_are_a_frame_as_dataframe_agg_gives_it():
    frame = SHOPS.assign(f=[1.0, 2.0, 3.0, 4.0, 5.0])
    how = {"n": "describe", "f": "describe"}
    pd.testing.assert_frame_equal(frame.amr.reduce(how), frame.agg(how))
    assert set(frame.amr.reduce({"n": "describe", "f": "mean"})) == {"n", "f"}


def test_a_column_that_agents_write_stands_beside_two_levels_of_names():
    df = pd.DataFrame({"text": [f"row {n}" for n in range(4)], "shop": ["a", "b"] * 2})

    def script(request):
        if request.schema == "findings":
            return findings(request, lambda unit: {"n": int(unit["text"][-1]), "theme": "x"})
        return {"output": "all", "sources": [0]}

    options = {"map": "x", "columns": "text", "finding": {"n": int, "theme": str}, "by": "shop"}
    with ScriptedServer(script) as server:
        reduce = {"theme": amr.Agent("One name."), "n": ["sum", "mean"]}
        output = df.amr.map_reduce(reduce=reduce, lm=server.lm(), **options).output
    assert output.columns.tolist() == [("theme", ""), ("n", "sum"), ("n", "mean")]
    assert isinstance(output.columns, pd.MultiIndex)
    assert output["theme"].tolist() == ["all", "all"]
    assert output["n"]["sum"].to_dict() == {"a": 2, "b": 4}


# The rows behind a group's answer


def written(df, by, **options):
    def script(request):
        if request.schema == "findings":
            return findings(request, lambda unit: {"n": int(unit["text"].split()[1])})
        return {"output": "all", "sources": list(range(len(request.findings)))}

    with ScriptedServer(script) as server:
        options = {
            "map": "x",
            "columns": ["text"],
            "finding": {"n": int},
            "reduce": "All.",
            "lm": server.lm(),
        } | options
        return df.amr.map_reduce(by=by, **options)


@pytest.mark.long
def test_explain_knows_the_group_without_a_key_and_groups_of_several_keys_saved_or_not(tmp_path):
    df = texts(6).assign(
        shop=["a", "b", None] * 2,
        part=pd.cut(range(6), 2),
        day=pd.to_datetime(["2026-01-01", "2026-01-02"] * 3).tz_localize("Europe/Berlin"),
    )
    for number, keys in enumerate((["shop"], ["part"], ["day"], ["shop", "part"], ["day", "shop", "part"])):
        result = written(df, amr.By(*keys, dropna=False))
        result.save(tmp_path / str(number))
        loaded = amr.load(tmp_path / str(number))
        behind = [result.explain(group=group)["n"].tolist() for group in result.output.index]
        for index in (result.output.index, loaded.output.index):
            assert [loaded.explain(group=group)["n"].tolist() for group in index] == behind
        assert sorted(row for rows in behind for row in rows) == list(range(6))
        assert all(len(df.iloc[rows][keys].drop_duplicates()) == 1 for rows in behind)
    assert written(df, amr.By("shop", dropna=False)).explain(group=float("nan"))["n"].tolist() == [2, 5]


def test_explain_says_whether_it_takes_a_group():
    df = texts(4).assign(shop=["a", "b"] * 2)
    with pytest.raises(amr.UsageError, match=r"group= \(one of 'a', 'b'\): explain\(0, group=\.\.\.\)"):
        written(df, "shop").explain()
    with pytest.raises(amr.UsageError, match=r"has no groups. Leave out group=: explain\(0\)"):
        written(df, None).explain(group="a")
    with pytest.raises(amr.UsageError, match="no item 0 of group 'z'"):
        written(df, "shop").explain(group="z")


@pytest.mark.long
@pytest.mark.parametrize(
    "values",
    [
        pd.cut([1, 2, 9], 2),
        pd.cut(pd.to_datetime(["2026-01-01", "2026-01-02", None]), 2),
        pd.Categorical(pd.to_datetime(["2026-01-01", None, "2026-01-02"]), ordered=True),
        pd.Categorical(pd.period_range("2026", periods=3, freq="D")),
        pd.Categorical(pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-02"]).date),
    ],
    ids=lambda values: str(values.categories.dtype),
)
def test_categories_of_any_kind_are_saved_as_they_are_and_read_in_another_process(tmp_path, values):
    df = texts(3).assign(kind=values)
    written(df, "kind", reduce={"n": "sum"}).save(tmp_path)
    loaded = amr.load(tmp_path)
    pd.testing.assert_series_equal(loaded.frame["kind"], df["kind"])
    expected = df.assign(n=range(3)).groupby("kind", observed=True)[["n"]].sum()
    assert loaded.output.index.equals(expected.index)
    told = subprocess.run(
        [sys.executable, "-c", f"import pandas_amr as amr; print(amr.load({str(tmp_path)!r}).frame['kind'].tolist())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == str(df["kind"].tolist())
