"""What is asked for is what is computed: equal to plain pandas over what the model truly found."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Context, Decimal
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import BaseModel

import pandas_amr as amr
from pandas_amr.testing import ScriptedServer, findings

Mood = Literal["good", "fair", "bad"]


class Finding(BaseModel):
    n: int | None
    size: float | None
    ok: bool | None
    mood: Mood | None
    word: str
    tags: list[str] | None
    moods: list[Mood]
    when: dt.date


class Item(BaseModel):
    sev: int
    ok: bool
    kind: str


ROWS = 8
TRUTH = pd.DataFrame(
    {
        "n": pd.array([1, 2, 3, 8, None, 5, 6, 7], dtype="Int64"),
        "size": [1.5, 2.0, None, 4.0, 5.0, 6.0, 7.0, 8.0],
        "ok": pd.array([True, False, True, True, None, False, True, False], dtype="boolean"),
        "mood": pd.Categorical(["good", "bad", "good", None, "bad", "good", "good", "bad"], ["good", "fair", "bad"]),
        "word": list("abacabad"),
        "tags": [["x", "y"], [], ["x"], None, ["z", "x"], ["y"], ["x", "x"], []],
        "moods": [["good"], ["bad", "good"], [], ["bad"], ["good"], [], ["bad"], ["good"]],
        "when": [dt.date(2026, 1 + number % 5, 1 + number) for number in range(ROWS)],
    }
)
DF = pd.DataFrame(
    {
        "row": range(ROWS),
        "shop": ["x", "y", "x", "y", "x", None, "y", "x"],
        "price": [1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
        "day": pd.date_range("2026-01-15", periods=ROWS, freq="17D"),
        "labels": [["a"], ["b", "a"], [], ["c"], ["a"], ["b"], [], ["a", "a"]],
    },
    index=pd.Index(list("pqrstuvw"), name="id"),
)
BOTH = pd.concat([DF, TRUTH.set_axis(DF.index)], axis=1)
RECORDS = [
    [{"sev": 1, "ok": True, "kind": "a"}, {"sev": 2, "ok": False, "kind": "b"}],
    [],
    [{"sev": 4, "ok": True, "kind": "a"}, {"sev": 5, "ok": True, "kind": "a"}, {"sev": 9, "ok": False, "kind": "a"}],
    [{"sev": 3, "ok": False, "kind": "b"}],
    [],
    [{"sev": 7, "ok": True, "kind": "b"}],
    [{"sev": 8, "ok": False, "kind": "a"}],
    [],
]


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, np.generic):
        value = value.item()
    return None if pd.isna(value) else value


def truth(request):
    if request.schema == "reduction":
        return {"output": "written", "sources": [0]}
    if (
        "items"
        in request.body["response_format"]["json_schema"]["schema"]["properties"]["findings"]["items"]["properties"]
    ):
        return findings(request, lambda unit: {"items": RECORDS[unit["row"]]})
    return findings(request, lambda unit: {name: plain(TRUTH[name].iloc[unit["row"]]) for name in TRUTH.columns})


def row_of(unit: dict) -> int:
    return unit["row"]


def run(reduce=None, frame=DF, finding=Finding, script=truth, **options):
    with ScriptedServer(script) as server:
        return frame.amr.map_reduce(map="Read.", finding=finding, reduce=reduce, lm=server.lm(), **options)


def cells(value: Any) -> Any:
    """A result in plain Python: values by label, missing ones as None."""
    if isinstance(value, pd.DataFrame):
        return {name: cells(value[name]) for name in value.columns}
    if isinstance(value, pd.Series):
        return {plain_label(label): cells(one) for label, one in value.items()}
    if isinstance(value, dict):
        return {name: cells(one) for name, one in value.items()}
    if isinstance(value, np.generic):
        value = value.item()
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    return round(value, 9) if isinstance(value, float) else value


def plain_label(label: Any) -> Any:
    return tuple(map(plain_label, label)) if isinstance(label, tuple) else None if pd.isna(label) else label


def tags(frame=BOTH, column="tags"):
    return frame.explode(column)


# Lists: the values in them are counted


LISTS = {
    "counts": ({"tags": "value_counts"}, {}, {"tags": {"x": 5, "y": 2, "z": 1}}),
    "shares": ({"tags": "share"}, {}, {"tags": {"x": 0.625, "y": 0.25, "z": 0.125}}),
    "how many": ({"tags": "nunique"}, {}, {"tags": 3}),
    "rows that have a list": ({"tags": "count"}, {}, {"tags": 7}),
    "side by side": ({"tags": ["nunique", "count"]}, {}, {"tags": {"nunique": 3, "count": 7}}),
    "named": ({"kinds": ("tags", "nunique")}, {}, {"kinds": 3}),
    "of choices": ({"moods": "value_counts"}, {}, {"moods": {"good": 4, "bad": 3}}),
    "of the frame, as objects": ({"labels": "value_counts"}, {}, {"labels": {"a": 5, "b": 2, "c": 1}}),
    "beside a number": (
        {"tags": "value_counts", "n": "sum"},
        {},
        {"tags": {"x": 5, "y": 2, "z": 1}, "n": 32},
    ),
    "counts by groups": (
        {"tags": "value_counts"},
        {"by": "shop"},
        {"tags_x": {"x": 3, "y": 2}, "tags_y": {"x": 1, "y": 0}, "tags_z": {"x": 1, "y": 0}},
    ),
    "how many by groups": ({"tags": "nunique"}, {"by": "shop"}, {"tags": {"x": 3, "y": 1}}),
    "both by groups": (
        {"tags": ["nunique", "count"]},
        {"by": "shop"},
        {("tags", "nunique"): {"x": 3, "y": 1}, ("tags", "count"): {"x": 4, "y": 2}},
    ),
    "shares by groups": (
        {"labels": "share"},
        {"by": "mood"},
        {
            "labels_a": {"good": 0.5, "bad": 0.8},
            "labels_b": {"good": 0.5, "bad": 0.2},
            "labels_c": {"good": 0.0, "bad": 0.0},
        },
    ),
}


@pytest.mark.parametrize(("reduce", "options", "expected"), LISTS.values(), ids=LISTS.keys())
@pytest.mark.sampled(4)
def test_of_lists_the_values_in_them_are_counted(reduce, options, expected):
    assert cells(run(reduce, **options).output) == expected


@pytest.mark.parametrize("kind", ["object", "arrow", "array", "set"])
def test_lists_in_a_frame_s_column_are_counted_alike_whatever_holds_them(kind):
    import pyarrow as pa

    lists: Any = DF["labels"]
    if kind == "arrow":
        lists = pd.array(pa.array(lists.tolist()), dtype=pd.ArrowDtype(pa.list_(pa.string())))
    elif kind != "object":
        lists = [np.array(one) if kind == "array" else set(one) for one in lists]
    frame = DF.assign(labels=lists)
    expected = {"a": 4 if kind == "set" else 5, "b": 2, "c": 1}
    assert cells(frame.amr.reduce({"labels": "value_counts"})["labels"]) == expected
    assert frame.amr.reduce({"labels": "nunique"}, output=int) == 3
    grouped = frame.amr.reduce({"labels": "value_counts"}, by="shop")
    assert grouped.sum().sum() == sum(expected.values()) - 1  # the row without a shop is in no group


# Groups: by what groupby takes


def by_month(frame):
    return frame.groupby(pd.Grouper(key="day", freq="MS"))


BY: dict[str, tuple[Any, Any]] = {
    "a label": ("shop", "shop"),
    "two labels": (["shop", "mood"], ["shop", "mood"]),
    "the index's name": ("id", "id"),
    "a Series": (DF["shop"].str.upper(), BOTH["shop"].str.upper()),
    "a Series without a name": (DF["price"] > 4, BOTH["price"] > 4),
    "an array": (np.arange(ROWS) % 3, np.arange(ROWS) % 3),
    "a function of the labels": (lambda label: label > "s", lambda label: label > "s"),
    "a dict of the labels": ({"p": "one", "q": "one", "r": "two"}, {"p": "one", "q": "one", "r": "two"}),
    "months": (pd.Grouper(key="day", freq="MS"), pd.Grouper(key="day", freq="MS")),
    "days, most of them empty": (pd.Grouper(key="day", freq="5D"), pd.Grouper(key="day", freq="5D")),
    "a Grouper of a column": (pd.Grouper(key="shop"), pd.Grouper(key="shop")),
    "a list of these": (["shop", pd.Grouper(key="day", freq="MS")], ["shop", pd.Grouper(key="day", freq="MS")]),
    "a Series and a field": ([DF["price"] > 4, "ok"], [BOTH["price"] > 4, "ok"]),
    "a function and a field": ([str.upper, "ok"], [str.upper, "ok"]),
}


CONDITIONS = {
    "categories without False": pd.Categorical([True, None, True]),
    "categories with both": pd.Categorical([True, False, True]),
    "nullable": pd.array([True, None, True], dtype="boolean"),
    "plain": [True, False, True],
}


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS.keys())
def test_where_takes_the_rows_that_are_true_of_any_column_of_bools(condition):
    frame = pd.DataFrame({"v": [1, 2, 4], "c": condition})
    assert frame.amr.reduce({"v": "sum"}, plan={"where": "c"})["v"] == 5


@pytest.mark.parametrize(("by", "pandas_by"), BY.values(), ids=BY.keys())
@pytest.mark.parametrize("where", [None, "ok"])
@pytest.mark.sampled(3)
def test_by_takes_what_groupby_takes(by, pandas_by, where):
    reduce = {"n": "sum", "price": ["max", "count"], "word": "nunique"}
    rows = np.flatnonzero((BOTH["ok"].fillna(False) if where else BOTH["row"] >= 0).to_numpy())
    expected_by = pandas_by
    if where:
        expected_by = [
            one.iloc[rows] if isinstance(one, pd.Series) else one[rows] if isinstance(one, np.ndarray) else one
            for one in (pandas_by if isinstance(pandas_by, list) else [pandas_by])
        ]
        expected_by = expected_by if isinstance(pandas_by, list) else expected_by[0]
    expected = BOTH.iloc[rows].groupby(expected_by, observed=True).agg(reduce)
    output = run(reduce, by=by, plan={"where": where} if where else "auto").output
    assert cells(output) == cells(expected)
    assert list(output.index.names) == list(expected.index.names)


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
@pytest.mark.parametrize("moments", [[], [None, None], [dt.datetime(2026, 3, 29, 1), None]], ids=len)
def test_by_days_of_arrow_s_times_of_whatever_zone_none_of_them_there(zone, moments):
    kind = pd.ArrowDtype(pa.timestamp("us", zone))
    df = pd.DataFrame({"at": pd.array(moments, dtype=kind), "n": range(len(moments))})
    there = [moment for moment in moments if moment is not None]
    if there or not moments or pd.__version__ >= "3":  # before that, pandas itself raises if all are missing
        by_day = df.amr.reduce({"n": "count"}, by=pd.Grouper(key="at", freq="D"))
        assert by_day["n"].tolist() == [1] * len(there)
    by_moment = df.amr.reduce({"n": "count"}, by=pd.Grouper(key="at"))
    assert (by_moment.index.dtype, by_moment["n"].tolist()) == (kind, [1] * len(there))


@pytest.mark.parametrize("options", [{}, {"dropna": False}, {"sort": True}, {"sort": True, "dropna": False}], ids=str)
@pytest.mark.parametrize("grouped", [False, True])
def test_a_grouper_that_stands_alone_sorts_and_keeps_missing_keys_as_it_says(grouped, options):
    df = pd.DataFrame({"shop": ["b", None, "a", None], "n": [1, 2, 3, 4]})
    by = pd.Grouper(key="shop", **options)
    output = df.groupby(by).amr.reduce({"n": "sum"}) if grouped else df.amr.reduce({"n": "sum"}, by=by)
    expected = df.groupby(by)["n"].sum()
    assert output["n"].tolist() == expected.tolist()
    assert output.index.fillna("none").tolist() == expected.index.fillna("none").tolist()


@pytest.mark.parametrize("sort", [False, True])
def test_a_grouper_in_a_list_groups_as_its_label_does(sort):
    """Of one that sorts pandas mixes up the rows."""
    df = pd.DataFrame({"shop": ["b", "a", "b"], "day": [1, 1, 2], "n": [1, 2, 3]}).rename_axis("row")
    output = df.amr.reduce({"n": "sum"}, by=[pd.Grouper(key="shop", sort=sort), "day"])
    assert cells(output) == {"n": cells(df.groupby(["shop", "day"])["n"].sum())}
    output = df.amr.reduce({"n": "sum"}, by=["shop", pd.Grouper(level="row", sort=sort)])
    assert cells(output) == {"n": cells(df.groupby(["shop", "row"])["n"].sum())}


def test_by_months_of_dates_that_were_found():
    output = run({"n": "sum"}, by=pd.Grouper(key="when", freq="MS")).output
    expected = BOTH.assign(when=pd.to_datetime(BOTH["when"])).groupby(pd.Grouper(key="when", freq="MS"))["n"].sum()
    assert cells(output) == {"n": cells(expected)}


def test_by_a_column_that_is_also_the_index_s_name_takes_the_column():
    frame = DF.rename_axis("shop")
    output = run({"n": "sum"}, frame, by="shop").output
    assert cells(output) == {"n": cells(BOTH.groupby("shop")["n"].sum())}
    levels = DF.set_index(["shop", "price"], drop=False)
    assert cells(run({"n": "sum"}, levels, by="shop").output) == cells(output)
    grouped = DF.rename_axis("shop").amr.map(
        "Read.", finding=Finding, lm=(server := ScriptedServer(truth)).__enter__().lm(),
        plan={"segmentation": "groups", "group_columns": ["shop"]},
    )  # fmt: skip
    server.__exit__(None, None, None)
    assert grouped["n"].tolist() == run({"n": "sum"}).frame["n"].tolist()


@pytest.mark.parametrize("by", [DF["shop"], "shop", pd.Grouper(key="shop")], ids=["Series", "label", "Grouper"])
def test_groups_that_agents_write_of_hold_the_rows_of_theirs(by):
    seen = []

    def script(request):
        if request.schema == "reduction":
            seen.append(len(request.findings))
            return {"output": "written", "sources": [0]}
        return truth(request)

    output = run("Sum up.", script=script, by=by).output
    assert output.index.tolist() == ["x", "y"]
    assert sorted(seen) == [3, 4]


def test_rows_that_rank_first_of_each_group_of_code():
    output = run(None, by=DF["price"] > 4, plan={"ranking": {"field": "n", "most": 1}}).output
    assert output["n"].tolist() == [8, 7]
    assert run(None, plan={"ranking": {"field": "ok", "most": 2}}).output["row"].tolist() == [0, 2]


# Columns of several levels


LEVELS = DF[["row", "shop", "price"]].set_axis(
    pd.MultiIndex.from_tuples([("row", ""), ("of", "shop"), ("of", "price")]), axis=1
)


def at_levels(request):
    return findings(
        request,
        lambda unit: {"n": plain(TRUTH["n"].iloc[unit["row."]]), "mood": plain(TRUTH["mood"].iloc[unit["row."]])},
    )


LEVEL_CASES = {
    "a field": ({"n": "sum"}, None, {"n": 32}),
    "a field's counts": ({"mood": "value_counts"}, None, {"mood": {"good": 4, "bad": 3, "fair": 0}}),
    "a column": ({("of", "price"): "sum"}, None, {("of", "price"): 36.5}),
    "a field by a column": ({"n": "sum"}, ("of", "shop"), {"n": {"x": 11, "y": 16}}),
    "a field by a field": ({"n": "sum"}, "mood", {"n": {"good": 15, "bad": 9}}),
    "both by a column": (
        {"n": ["sum", "count"], ("of", "price"): ["max"]},
        ("of", "shop"),
        {("n", "sum"): {"x": 11, "y": 16}},
    ),
    "counts by a column": (
        {"mood": "value_counts"},
        ("of", "shop"),
        {"mood_good": {"x": 2, "y": 1}, "mood_fair": {"x": 0, "y": 0}, "mood_bad": {"x": 2, "y": 1}},
    ),
}


@pytest.mark.parametrize(("reduce", "by", "expected"), LEVEL_CASES.values(), ids=LEVEL_CASES.keys())
@pytest.mark.sampled(3)
def test_a_frame_with_several_levels_of_columns_is_reduced_as_any(reduce, by, expected):
    output = run(reduce, LEVELS, {"n": int | None, "mood": (Mood | None, "mood")}, at_levels, by=by).output
    found = cells(output)
    assert {name: found[name] for name in expected} == expected


COLUMNS = {
    "a label": ("price", ["price"]),
    "a list": (["price", "row"], ["price", "row"]),
    "a slice": (slice("shop", "day"), ["shop", "price", "day"]),
    "a slice to the end": (slice("day", None), ["day", "labels"]),
    "a slice with a step": (slice(None, None, 2), ["row", "price", "labels"]),
    "a slice among labels": (["row", slice("price", "day")], ["row", "price", "day"]),
}


@pytest.mark.parametrize(("given", "names"), COLUMNS.values(), ids=COLUMNS.keys())
def test_columns_are_those_that_pandas_means(given, names, refusing):
    assert DF.amr.plan(map="Read.", reduce="All.", columns=given, lm=refusing.lm()).columns == names
    assert DF.amr.plan(map="Read.", reduce="All.", plan={"columns": given}, lm=refusing.lm()).columns == names


def test_a_label_of_the_first_level_stands_for_all_columns_below_it(refusing):
    below = [("of", "shop"), ("of", "price")]
    for given in ("of", ["of"], below):
        assert LEVELS.amr.plan(map="Read.", reduce="All.", columns=given, lm=refusing.lm()).columns == below
    assert LEVELS.amr.plan(map="x", reduce="y", columns="row", lm=refusing.lm()).columns == [("row", "")]


# Records: what is a unit's own is aggregated over the units


FLAT = pd.DataFrame([{"row": row, **record} for row, records in enumerate(RECORDS) for record in records])
ITEMS = FLAT.merge(DF, on="row")
PRICE = DF["price"].sum()

PER_UNIT = {
    "alone": ({"price": "sum"}, {}, {"price": 36.5}),
    "beside a record's field": ({"sev": "mean", "price": "sum"}, {}, {"sev": 39 / 8, "price": 36.5}),
    "in a list": ({"sev": ["sum"], "price": ["sum", "count"]}, {}, {"price": {"sum": 36.5, "count": 8}}),
    "named": ({"total": ("price", "sum"), "worst": ("sev", "max")}, {}, {"total": 36.5, "worst": 9}),
    "how many records a unit holds": ({"items_count": "mean"}, {}, {"items_count": 1.0}),
    "of chosen records": ({"price": "sum", "sev": "sum"}, {"plan": {"where": "ok"}}, {"price": 10.5, "sev": 17}),
    "by a column of the units": (
        {"price": "sum", "sev": "sum"},
        {"by": "shop"},
        {"price": {"x": 17.5, "y": 13.0}, "sev": {"x": 21, "y": 11}},
    ),
    "by a record's field": ({"price": "sum", "sev": "max"}, {"by": "kind"}, {"price": {"a": 11.5, "b": 11.5}, "sev": {"a": 9, "b": 7}}),
    "by both": (
        {"price": "sum"},
        {"by": ["shop", "kind"]},
        {"price": {("x", "a"): 4.5, ("x", "b"): 1.5, ("y", "a"): 7.0, ("y", "b"): 4.0}},
    ),
    "by a unit without a record": (
        {"price": "sum", "sev": "sum", "kind": "count", "ok": "mean"},
        {"by": "row"},
        {
            "price": dict(enumerate(DF["price"])),
            "sev": {0: 3, 1: 0, 2: 18, 3: 3, 4: 0, 5: 7, 6: 8, 7: 0},
            "kind": {0: 2, 1: 0, 2: 3, 3: 1, 4: 0, 5: 1, 6: 1, 7: 0},
        },
    ),
    "counts by a unit without a record": (
        {"kind": "value_counts", "price": "max"},
        {"by": "row"},
        {"kind_a": {0: 1, 1: 0, 2: 3, 3: 0, 4: 0, 5: 0, 6: 1, 7: 0}},
    ),
    "by a Series": ({"price": "sum", "sev": "sum"}, {"by": DF["shop"].str.upper()}, {"price": {"X": 17.5, "Y": 13.0}}),
    "by a function": ({"price": "sum"}, {"by": lambda label: label < "r"}, {"price": {False: 33.0, True: 3.5}}),
    "of chosen records by a column": (
        {"price": "sum"},
        {"by": "shop", "plan": {"where": "ok"}},
        {"price": {"x": 4.5}},
    ),
    "of chosen records by a Series": (
        {"price": "sum"},
        {"by": DF["shop"], "plan": {"where": "ok"}},
        {"price": {"x": 4.5}},
    ),
    "lists by a record's field": ({"labels": "value_counts"}, {"by": "kind"}, {"labels_a": {"a": 1, "b": 1}, "labels_b": {"a": 0, "b": 1}, "labels_c": {"a": 0, "b": 1}}),
}  # fmt: skip


@pytest.mark.parametrize(("reduce", "options", "expected"), PER_UNIT.values(), ids=PER_UNIT.keys())
@pytest.mark.sampled(5)
def test_a_column_of_the_units_counts_once_per_unit_however_many_records_it_holds(reduce, options, expected):
    found = cells(run(reduce, finding=list[Item], **options).output)
    assert {name: found[name] for name in expected} == {name: cells(one) for name, one in expected.items()}


def test_what_reducers_are_told_is_computed_alike():
    told = []

    def script(request):
        if request.schema == "reduction":
            told.append(request.user)
        return truth(request)

    plan = {"aggregations": {"price": "sum", "sev": "sum"}, "reduce_instruction": "Sum up."}
    run(None, finding=list[Item], script=script, plan=plan)
    assert "price: 36.5" in told[0]
    told.clear()
    run(None, finding=list[Item], script=script, plan=plan, by="shop")
    assert sorted("price: 17.5" in one for one in told) == [False, True]
    assert sorted("price: 13.0" in one for one in told) == [False, True]
    told.clear()
    run(None, finding=list[Item], script=script, plan=plan, by="kind")
    assert all("price: 11.5" in one for one in told)


def test_a_score_computes_alike():
    result = run({"items_count": "mean", "price": "sum"}, finding=list[Item])
    score = result.score({"items_count": [len(records) for records in RECORDS]})
    row = score.aggregates.set_index("field").loc["items_count"]
    assert (row["found"], row["labelled"]) == (result.output["items_count"], 1.0)
    grouped = run({"n": "mean"}, by=DF["shop"].rename("where"))
    compared = grouped.score({"n": TRUTH["n"].tolist()}).aggregates
    assert compared["found"].tolist() == compared["labelled"].tolist() == grouped.output["n"].tolist()


# Nothing: counts and sums are 0, what needs a value is missing


NOTHING = {
    "n": {"count": 0, "sum": 0, "nunique": 0, "mean": None, "median": None, "min": None, "max": None, "std": None, "idxmax": None},
    "size": {"count": 0, "sum": 0, "mean": None, "median": None, "max": None},
    "ok": {"count": 0, "sum": 0, "mean": None, "max": None},
    "word": {"count": 0, "nunique": 0, "max": None},
    "mood": {"count": 0, "nunique": 0, "value_counts": {"good": 0, "fair": 0, "bad": 0}, "share": dict.fromkeys(["good", "fair", "bad"])},
    "tags": {"count": 0, "nunique": 0, "value_counts": {}, "share": {}},
    "when": {"count": 0, "max": None},
    "price": {"count": 0, "sum": 0, "mean": None},
    "shop": {"count": 0, "value_counts": {}},
}  # fmt: skip
NO_ROWS = [(name, how, value) for name, hows in NOTHING.items() for how, value in hows.items()]


def never(request):
    if request.schema == "reduction":
        return truth(request)
    return findings(
        request, lambda unit: {name: plain(TRUTH[name].iloc[unit["row"]]) for name in TRUTH.columns} | {"ok": False}
    )


@pytest.mark.parametrize(("name", "how", "expected"), NO_ROWS)
@pytest.mark.sampled(7)
def test_of_no_rows_counts_are_0_and_what_needs_a_value_is_missing(name, how, expected):
    output = run({name: how}, script=never, plan={"where": "ok"}).output
    assert cells(output[name]) == expected


def test_of_no_rows_groups_are_none_or_those_that_pandas_has():
    by = amr.By("mood", observed=False)
    output = run({"n": "sum", "size": "mean"}, script=never, plan={"where": "ok"}, by=by).output
    assert cells(output) == {"n": {"good": 0, "fair": 0, "bad": 0}, "size": dict.fromkeys(["good", "fair", "bad"])}
    for one in ("mood", "shop", DF["shop"], len):
        assert len(run({"n": "sum"}, script=never, plan={"where": "ok"}, by=one).output) == 0


@pytest.mark.parametrize(
    ("how", "kind", "value"), [("sum", int, 0), ("count", int, 0), ("max", int, None), ("mean", float, None)]
)
def test_an_output_of_no_rows_is_0_or_nothing(how, kind, value):
    result = run({"n": how}, script=never, plan={"where": "ok"}, output=kind)
    assert result.output == value
    assert result.failures.empty


def test_of_no_records_a_column_of_the_units_counts_still():
    none = lambda request: findings(request, lambda unit: {"items": []})  # noqa: E731
    output = run({"sev": "sum", "price": "sum"}, finding=list[Item], script=none).output
    assert cells(output) == {"sev": 0, "price": 36.5}
    chosen = run({"sev": "sum", "price": "sum"}, finding=list[Item], script=none, plan={"where": "ok"}).output
    assert cells(chosen) == {"sev": 0, "price": 0}


def test_each_value_that_is_counted_by_groups_has_a_column_of_its_own():
    df = pd.DataFrame({"shop": list("xxy"), "n": pd.Series([1, "1", 1], dtype=object), "m": ["a", "b", "a"]})
    output = df.amr.reduce({"n": "value_counts"}, by="shop")
    assert output.to_dict("list") == {"n_1": [1, 1], "n_'1'": [1, 0]}
    output = df.amr.reduce({"m": "value_counts", "m_a": ("n", "count")}, by="shop")
    assert output.to_dict("list") == {"m_a_": [1, 1], "m_b": [1, 0], "m_a": [2, 1]}


# Numbers of more digits than a float or 64 bits hold


LARGE = [2**62, 2**62 + 1, 2**62]
LARGE_COLUMNS = {
    "int64": LARGE,
    "Int64": pd.array(LARGE, dtype="Int64"),
    "uint64": np.array([one * 2 for one in LARGE], dtype="uint64"),
    "Arrow": pd.array(LARGE, dtype="int64[pyarrow]"),
    "sparse": pd.arrays.SparseArray(LARGE),
}


@pytest.mark.parametrize("column", LARGE_COLUMNS.values(), ids=LARGE_COLUMNS)
def test_sums_and_products_beyond_64_bits_are_exact_whole_and_by_groups(column):
    df = pd.DataFrame({"shop": ["x", "x", "y"], "n": column, "price": [0.5, 1.5, 2.5]})
    first, second, third = map(int, df["n"])
    expected = {"sum": (first + second, third), "prod": (first * second, third)}
    whole = {"sum": first + second + third, "prod": first * second * third}
    # older versions of pandas have no product of a sparse column
    for how in ("sum",) if isinstance(df["n"].dtype, pd.SparseDtype) else ("sum", "prod"):
        assert df.amr.reduce({"n": how})["n"] == whole[how]
        assert df.amr.reduce({"n": getattr(np, how)})["n"] == whole[how]
        assert df.amr.reduce({"all": ("n", getattr(np, how))}, by="shop")["all"].tolist() == [*expected[how]]
        assert df.amr.reduce({"n": how}, output=int) == whole[how]
        assert df.amr.reduce({"n": ["count", how]})["n"].tolist() == [3, whole[how]]
        assert df.amr.reduce({"n": how, "price": "mean"}).tolist() == [whole[how], 1.5]
        assert df.amr.reduce({"n": how, "price": "mean"}, by="shop")["n"].tolist() == [*expected[how]]
        assert df.amr.reduce({"n": how, "price": "value_counts"}, by="shop")["n"].tolist() == [*expected[how]]


def test_a_product_beyond_64_bits_of_small_numbers_is_exact():
    df = pd.DataFrame({"shop": list("xxxx"), "n": [10**6] * 4, "price": [0.5, 1.5, 2.5, 3.5]})
    assert df.amr.reduce({"n": "prod"})["n"] == 10**24
    assert df.amr.reduce({"n": "product"})["n"] == 10**24
    assert df.amr.reduce({"n": ["prod", "sum"]})["n"].tolist() == [10**24, 4 * 10**6]
    assert df.amr.reduce({"n": "prod", "price": "mean"}).tolist() == [10**24, 2.0]
    assert df.amr.reduce({"n": "prod"}, by="shop")["n"].tolist() == [10**24]


DECIMALS = {
    "a sum": (38, 2, "9" * 36, "sum", Decimal(3 * int("9" * 36))),
    "a mean": (38, 2, "9" * 36, "mean", Decimal("9" * 36)),
    "a product": (38, 9, "1234567.89", "prod", Decimal("1234567.89") ** 3),
    "a product of few places": (
        14,
        2,
        "999999999999.99",
        "prod",
        Decimal(99999999999999**3).scaleb(-6, Context(prec=60)),
    ),
}


@pytest.mark.parametrize(("digits", "places", "value", "how", "expected"), DECIMALS.values(), ids=DECIMALS)
def test_decimals_of_arrow_that_its_own_sums_do_not_hold_are_exact(digits, places, value, how, expected):
    dtype = pd.ArrowDtype(pa.decimal128(digits, places))
    df = pd.DataFrame({"shop": list("xxxx"), "n": pd.array([Decimal(value)] * 3 + [None], dtype=dtype)})
    assert df.amr.reduce({"n": how})["n"] == expected
    assert df.amr.reduce({"n": ["count", how]})["n"].tolist() == [3, expected]
    assert df.amr.reduce({"n": how}, by="shop")["n"].tolist() == [expected]


def test_decimals_that_fit_stay_as_pandas_has_them():
    df = pd.DataFrame({"n": pd.array([Decimal("1.10"), Decimal("2.20")], dtype=pd.ArrowDtype(pa.decimal128(10, 2)))})
    for how in ("sum", "mean", "prod"):
        assert df.amr.reduce({"n": how}).equals(df.agg({"n": how}))


@pytest.mark.parametrize("dtype", ["timedelta64[ns]", "duration[ns][pyarrow]"])
def test_a_sum_of_durations_beyond_nanoseconds_is_one_of_microseconds(dtype):
    spans = pd.Series([pd.Timedelta(days=40_000)] * 3).astype(dtype)  # nanoseconds end at 106,751 days
    df = pd.DataFrame({"shop": list("xxx"), "open": spans})
    assert df.amr.reduce({"open": "sum"})["open"] == dt.timedelta(days=120_000)
    assert df.amr.reduce({"open": "sum"}, by="shop")["open"].tolist() == [dt.timedelta(days=120_000)]
    assert df.amr.reduce({"open": "mean"})["open"] == pd.Timedelta(days=40_000)


def test_a_whole_number_beside_a_fraction_keeps_its_digits():
    df = pd.DataFrame({"id": [2**53 + 1, 5], "price": [0.5, 1.5]})
    largest = 2**53 + 1
    assert df.amr.reduce({"id": "max", "price": "mean"}).tolist() == [largest, 1.0]
    assert df.amr.reduce({"last": ("id", "max"), "mean": ("id", "mean")})["last"] == largest
    assert df.amr.reduce({"id": ["max", "std"]}).loc["max", "id"] == largest
    assert df.amr.reduce({"id": ["max"], "price": ["mean"]}).loc["max", "id"] == largest
    halves = pd.DataFrame({"n": [2**53 - 1, 2]})
    assert halves.amr.reduce({"n": ["sum", "mean"]}).loc["sum", "n"] == largest
    assert df.amr.reduce({"price": "max", "id": "count"}).dtype == float  # as pandas has it


# The output's type


class Counts(BaseModel):
    n: int
    price: float


OUTPUTS = {
    "a count": ({"mood": "count"}, {}, int, 7),
    "a mean": ({"n": "mean"}, {}, float, 32 / 7),
    "a text": ({"word": "max"}, {}, str, "d"),
    "a date": ({"when": "min"}, {}, dt.date, dt.date(2026, 1, 1)),
    "counts as a dict": ({"mood": "value_counts"}, {}, dict[str, int], {"good": 4, "bad": 3, "fair": 0}),
    "a record": ({"n": "sum", "price": "sum"}, {}, Counts, Counts(n=32, price=36.5)),
}


@pytest.mark.parametrize(("reduce", "options", "kind", "expected"), OUTPUTS.values(), ids=OUTPUTS.keys())
@pytest.mark.sampled(3)
def test_an_output_that_holds_what_is_computed_is_given(reduce, options, kind, expected):
    assert run(reduce, output=kind, **options).output == expected


# A plan of named maps


def test_a_plan_of_named_maps_runs_alone(tmp_path):
    def script(request):
        return findings(request, lambda unit: {"finding": f"{unit['row']}"})

    with ScriptedServer(script) as server:
        lm = server.lm()
        plan = DF.amr.plan(
            map={"tone": "Which tone?", "place": "Where?"}, reduce={"tone": "nunique", "place": "count"}, lm=lm
        )
        plan.to_json(tmp_path / "plan.json")
        for given in (plan, tmp_path / "plan.json", json.loads(plan.to_json())):
            result = DF.amr.map_reduce(plan=given, lm=lm)
            assert cells(result.output) == {"tone": 8, "place": 8}
        short = {"map_instruction": {"tone": "Which tone?", "place": "Where?"}, "aggregations": {"tone": "count"}}
        assert DF.amr.map_reduce(plan=short, lm=lm).frame[["tone", "place"]].notna().all(axis=None)
