"""Frames from code go to the right rows or are refused: by `submit`, by a function as `map=`, by `filter`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import pandas_amr as amr
from examples import examples
from pandas_amr.errors import RunStopped, UsageError
from pandas_amr.testing import Call, ScriptedServer, findings

VALUES = [30, 10, 40, 20]
IDS = [3, 1, 0, 2]
LABELS = {
    "0 to n-1": pd.RangeIndex(4),
    "0 to n-1 shuffled": pd.Index([2, 0, 3, 1]),
    "0 to n-1 backwards": pd.RangeIndex(3, -1, -1),
    "0 to n-1 shuffled, as floats": pd.Index([2.0, 0.0, 3.0, 1.0]),
    "0 to n-1 shuffled, as a category": pd.CategoricalIndex([2, 0, 3, 1]),
    "other numbers": pd.Index([12, 10, 13, 11]),
    "texts": pd.Index(["c", "a", "d", "b"], name="letter"),
    "texts of numbers": pd.Index(["2", "0", "3", "1"]),
    "all the same": pd.Index([0, 0, 0, 0]),
    "doubled": pd.Index(["a", "b", "a", "b"]),
    "one missing": pd.Index([2.0, np.nan, 3.0, 1.0]),
    "two missing": pd.Index([2.0, np.nan, np.nan, 1.0]),
    "bools": pd.Index([True, False, True, False]),
    "several types": pd.Index([True, 0, "x", 2.5], dtype=object),
    "dates": pd.date_range("2026-01-01", periods=4)[::-1],
    "several levels": pd.MultiIndex.from_tuples([("b", 1), ("a", 1), ("b", 0), ("a", 0)], names=["s", "n"]),
    "several levels, doubled": pd.MultiIndex.from_tuples([("b", 1), ("a", 1)] * 2),
}
NUMBERED = [kind for kind in LABELS if kind.startswith("0 to n-1 ")]
DOUBLED = ["all the same", "doubled", "two missing", "bools", "several levels, doubled"]
UNIQUE = [kind for kind in LABELS if kind not in DOUBLED]
SOME = ["0 to n-1", "0 to n-1 shuffled", "texts", "all the same"]
NOT_NUMBERED = [kind for kind in LABELS if kind not in NUMBERED]

OWN = "out = df[['v']].rename(columns={'v': 'finding'})"
OTHER_ORDER = f"{OWN}.iloc[[3, 0, 2, 1]]"
SERIES = "out = df['v'].rename('finding')"
FRESH = "out = pd.DataFrame({'finding': df['v'].tolist()})"
UNITS = f"{OWN}.assign(unit=range(4)).sort_values('finding')"
RECORDS = "out = [{'unit': n, 'finding': v} for n, v in enumerate(df['v'].tolist())]"

# What code does, and the kinds of labels for which the rows are known
RIGHT = {
    "the shard's own index": (OWN, LABELS),
    "its own index, of a copy": ("out = df.copy().assign(finding=df['v'] * 1)[['finding']]", SOME),
    "its own index, of a function of each": ("out = df['v'].map(int).to_frame('finding')", SOME),
    "its own index, of groups": (
        "out = df.groupby('id')[['v']].transform('sum').set_axis(['finding'], axis=1)",
        SOME,
    ),
    "its own index, given": ("out = pd.DataFrame({'finding': df['v'].tolist()}, index=df.index)", SOME),
    "its own index, renamed": ("df.index.names = ['k'] * df.index.nlevels\n" + OWN, LABELS),
    "its own index, kept while df got another": (
        "own = df.index\ndf.index = range(4)\n" + OWN + ".set_axis(own)",
        LABELS,
    ),
    "a copy of its index": (OWN + "\nout.index = df.index.copy()", UNIQUE),
    "its labels sorted by values": (OWN + ".sort_values('finding', ascending=False)", UNIQUE),
    "its labels in another order": (OTHER_ORDER, UNIQUE),
    "its labels without their name": (OTHER_ORDER + "\nout.index.names = [None] * out.index.nlevels", UNIQUE),
    "its labels in parts": ("parts = df[df['v'] > 20], df[df['v'] <= 20]\ndf = pd.concat(parts)\n" + OWN, UNIQUE),
    "its labels as a list": (OTHER_ORDER + "\nout.index = pd.Index(out.index.tolist())", UNIQUE),
    "a fresh index": (FRESH, NOT_NUMBERED),
    "a fresh index in place of df's": ("df.index = range(4)\n" + OWN, NOT_NUMBERED),
    "a merged frame": ("out = df.merge(df[['v']].assign(finding=df['v']), on='v')[['finding']]", NOT_NUMBERED),
    "units": (UNITS, SOME),
    "units on a fresh index": (UNITS + ".reset_index(drop=True)", LABELS),
    "units on any index": (UNITS + "\nout.index = ['x'] * 4", SOME),
    "units as floats": (UNITS + "\nout['unit'] = out['unit'].astype(float)", ["0 to n-1 shuffled"]),
    "units as texts": (UNITS + "\nout['unit'] = [str(n) for n in out['unit']]", ["0 to n-1 shuffled"]),
    "a series": (SERIES, LABELS),
    "a series sorted": (SERIES + ".sort_values(ascending=False)", UNIQUE),
    "a series, fresh": ("out = pd.Series(df['v'].tolist())", NOT_NUMBERED),
    "a series called unit": ("out = df['v'].rename('unit')", SOME),
    "a list of values": ("out = df['v'].tolist()", SOME),
    "an array": ("out = np.array(df['v'].tolist())", SOME),
    "an array of pandas": ("out = pd.array(df['v'].tolist(), dtype='Int64')", SOME),
    "a list of dicts": ("out = [{'finding': v} for v in df['v'].tolist()]", SOME),
    "a list of dicts with units": (RECORDS + "[::-1]", SOME),
}
OTHER_ROWS = "their labels are not those of"
UNIT_IS = "the row's number in"
# What code does, the kinds of labels for which that says nothing, and what is told
WRONG = {
    "a fresh index": (FRESH, NUMBERED, "their index is a fresh one"),
    "a fresh index in place of df's": ("df.index = range(4)\n" + OWN, NUMBERED, "their index is a fresh one"),
    "a fresh index, as floats": (FRESH + ".set_axis([0.0, 1.0, 2.0, 3.0])", NUMBERED, "their index is a fresh one"),
    "its labels sorted": (OWN + ".sort_index()", NUMBERED, "their index is a fresh one"),
    "a merged frame": (RIGHT["a merged frame"][0], NUMBERED, "their index is a fresh one"),
    "a series, fresh": ("out = pd.Series(df['v'].tolist())", NUMBERED, "their index is a fresh one"),
    "a fresh index sorted": (FRESH + ".sort_values('finding')", ["texts", "other numbers", "dates"], OTHER_ROWS),
    "a fresh index sorted on doubled labels": (FRESH + ".sort_values('finding')", DOUBLED, "are repeated"),
    "doubled labels sorted": (OWN + ".sort_values('finding')", DOUBLED, "are repeated"),
    "doubled labels backwards": (SERIES + "[::-1]", DOUBLED, "are repeated"),
    "doubled labels as a list": (OWN + "\nout.index = pd.Index(df.index.tolist())", DOUBLED, "are repeated"),
    "one row twice": (OWN + ".iloc[[0, 1, 2, 2]]", UNIQUE, OTHER_ROWS),
    "a part of the rows": (OWN + ".iloc[[1, 3]]", SOME, "4 rows"),
    "a part of the rows, fresh": (OWN + ".iloc[[1, 3]].reset_index(drop=True)", SOME, "4 rows"),
    "too many rows": ("df = pd.concat([df, df])\n" + OWN, SOME, "4 rows"),
    "no rows": (OWN + "[:0]", SOME, "4 rows"),
    "labels of no row": (OWN + ".set_axis([7, 8, 9, 10])", UNIQUE, OTHER_ROWS),
    "labels as texts": (OWN + ".set_axis([f'{n}' for n in df.index])", ["0 to n-1 shuffled", "dates"], OTHER_ROWS),
    "labels as numbers": (OWN + ".set_axis([int(n) for n in df.index])", ["texts of numbers"], OTHER_ROWS),
    "bools for numbers": (
        OWN + ".set_axis(pd.Index([1, False, 'x', 2.5], dtype=object))",
        ["several types"],
        OTHER_ROWS,
    ),
    "numbers for bools": (OWN + ".set_axis([int(n) for n in df.index])", ["bools"], "are repeated"),
    "rows of groups": ("out = df.groupby('id')[['v']].sum().set_axis(['finding'], axis=1)", SOME, "a name that"),
    "a column as labels": ("df = df.set_index('id')\n" + OWN, SOME, "a name that"),
    "units twice": (UNITS + "\nout['unit'] = 1", SOME, UNIT_IS),
    "units from 1": (UNITS + "\nout['unit'] += 1", SOME, UNIT_IS),
    "units below 0": (UNITS + "\nout['unit'] -= 1", SOME, UNIT_IS),
    "units that are not whole": (UNITS + "\nout['unit'] += 0.5", ["0 to n-1"], UNIT_IS),
    "units that are missing": (UNITS + "\nout['unit'] = [0, None, 1, 2]", ["0 to n-1"], UNIT_IS),
    "units that are bools": (
        UNITS + "[:2]\nout = pd.concat([out] * 2).assign(unit=out['unit'] > 1)",
        ["texts"],
        UNIT_IS,
    ),
    "units as other texts": (UNITS + "\nout['unit'] = list('0x12')", ["0 to n-1"], UNIT_IS),
    "a short list": ("out = df['v'].tolist()[1:]", ["0 to n-1"], "4 rows"),
    "a short array": ("out = np.array(df['v'].tolist()[1:])", ["0 to n-1"], "4 rows"),
    "some dicts with units": (RECORDS + "\ndel out[2]['unit']", SOME, "got 3 findings with `unit` and 1 without"),
    "dicts with units twice": (RECORDS + "\nout[2]['unit'] = 1", SOME, UNIT_IS),
    "dicts with units of no row": (RECORDS + "\nout[2]['unit'] = 4", SOME, UNIT_IS),
}


@dataclass
class Case:
    code: str
    kind: str
    told: str = ""


def cases(table, kept=LABELS):
    return [
        pytest.param(Case(code, kind, *told), id=f"{name} - {kind}")
        for name, (code, kinds, *told) in table.items()
        for kind in kinds
        if kind in kept
    ]


def frame_of(kind: str) -> pd.DataFrame:
    return pd.DataFrame({"v": VALUES, "id": IDS}, index=LABELS[kind])


def run(code: str, frame: pd.DataFrame):
    """What code gives for a frame, as it would in a session."""
    names = {"df": frame, "pd": pd, "np": np}
    exec(code, names)
    return names["out"]


def high(given):
    """Whether each finding is above 15, handed in as the findings were."""
    if isinstance(given, pd.DataFrame):
        return given.assign(amr_keep=given["finding"] > 15).drop(columns="finding")
    if isinstance(given, list):
        return [{**one, "amr_keep": one["finding"] > 15} if isinstance(one, dict) else one > 15 for one in given]
    return given > 15


# A function as `map=`


@pytest.mark.parametrize("case", cases(RIGHT))
@pytest.mark.sampled(4)
def test_what_a_function_gives_is_on_its_rows(case):
    found = frame_of(case.kind).amr.map(lambda shard: run(case.code, shard), finding={"finding": int})
    assert found["finding"].tolist() == VALUES
    pd.testing.assert_frame_equal(found[["v", "id"]], frame_of(case.kind))


@pytest.mark.parametrize("case", cases(WRONG))
@pytest.mark.sampled(3)
def test_what_a_function_gives_for_rows_unknown_is_refused(case):
    with pytest.raises(UsageError) as refused:
        frame_of(case.kind).amr.map(lambda shard: run(case.code, shard), finding={"finding": int})
    assert case.told in str(refused.value)
    assert any(word in str(refused.value) for word in ("one finding per row", "index=shard.index", "`unit`"))


# `filter`


@pytest.mark.parametrize("case", cases(RIGHT, SOME))
@pytest.mark.sampled(3)
def test_a_filter_keeps_the_rows_that_its_function_means(case):
    kept = frame_of(case.kind).amr.filter(lambda shard: high(run(case.code, shard)))
    pd.testing.assert_frame_equal(kept, frame_of(case.kind).iloc[[0, 2, 3]])


@pytest.mark.parametrize("case", cases(WRONG, SOME))
@pytest.mark.sampled(3)
def test_a_filter_whose_function_means_rows_unknown_is_refused(case):
    with pytest.raises(UsageError) as refused:
        frame_of(case.kind).amr.filter(lambda shard: high(run(case.code, shard)))
    assert case.told in str(refused.value)


# `submit`


def submitted(frame: pd.DataFrame, cells: list[str]):
    """What an agent is told that runs the cells one after the other, and the findings; -1 is what none handed in."""
    told = []

    def provider(request):
        told[:] = request.tool_results
        if len(told) < len(cells):
            return Call("python_repl", {"code": cells[len(told)]})
        return findings(request, lambda unit: {"finding": -1})

    with ScriptedServer(provider) as server:
        found = frame.amr.map(
            "The value.",
            finding={"finding": int},
            tools=[amr.PythonREPLTool()],
            max_steps=len(cells) + 1,
            lm=server.lm(),
        )
    return told, found["finding"].tolist()


@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize("case", [*cases(RIGHT, SOME), *cases({"a fresh index": RIGHT["a fresh index"]}, DOUBLED)])
@pytest.mark.sampled(5)
def test_what_code_submits_is_on_its_rows(case):
    told, found = submitted(frame_of(case.kind), [f"{case.code}\nsubmit(out)"])
    assert found == VALUES, told


@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.sampled(3)
def test_what_code_submits_for_rows_unknown_is_refused_and_told(kind):
    wrong = [case.values[0] for case in cases(WRONG, [kind])]
    anew = "original = globals().get('original', df)\ndf = original.copy()"
    told, found = submitted(frame_of(kind), [f"{anew}\n{one.code}\nsubmit(out)" for one in wrong])
    assert found == [-1] * 4
    for one, said in zip(wrong, told, strict=True):
        assert "ValueError: submit() " in said
        assert one.told in said
        assert "`unit`" in said


@pytest.mark.usefixtures("sandboxed")
def test_parts_with_units_add_up_and_a_unit_handed_in_twice_is_found_out():
    frame = frame_of("0 to n-1 shuffled")
    parts = f"{UNITS}\nsubmit(out[:1])\nsubmit(out[1:].to_dict('records'))"
    assert submitted(frame, [parts])[1] == VALUES
    told, found = submitted(frame, [f"{UNITS}\nsubmit(out)\nsubmit(out[:1])"])
    assert found == [30, -1, 40, 20], told


@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize("code", ["{1, 2}", "'abcd'", "5", "[[1]] * 4", "np.ones((4, 1))", "[{}, 1, 2, 3]", "None"])
def test_what_is_no_list_of_findings_is_told(code):
    told, found = submitted(frame_of("0 to n-1"), [f"submit({code})"])
    assert "TypeError: submit() takes a frame, or a list of dicts" in told[0]
    assert found == [-1] * 4


def test_an_agent_is_told_the_rule():
    with ScriptedServer(lambda request: findings(request, lambda unit: {"finding": 1})) as server:
        frame_of("texts").amr.map("x", finding={"finding": int}, tools=[amr.PythonREPLTool()], lm=server.lm())
        described = str(server.requests[0].body["tools"])
    for said in ("(index=df.index) or a fresh one", "by label", "`unit` with each row's number in `df`, from 0"):
        assert said in described


# What a function's own frame is matched with


def test_a_column_unit_of_the_user_s_is_no_number_of_a_row():
    frame = pd.DataFrame({"v": VALUES, "unit": ["kg", "g", "kg", "g"]})
    found = frame.amr.map(
        {"a": lambda shard: shard.assign(finding=shard["v"])[["finding", "unit"]][::-1]},
        finding={"a": {"finding": int}},
    )
    assert found["a"].tolist() == VALUES
    listed = frame.amr.map(
        lambda shard: [{"unit": "kg", "finding": v} for v in shard["v"].tolist()], finding={"finding": int}
    )
    assert listed["finding"].tolist() == VALUES


def test_a_function_that_changes_its_frame_in_place_still_gives_its_own_rows():
    def relabelled(shard):
        shard["finding"] = shard["v"]
        shard.index = ["x", "y", "z", "x"]
        return shard[["finding"]]

    def kept(shard):
        own = shard.index
        shard["finding"] = shard["v"]
        shard.index = ["x", "y", "z", "x"]
        return shard[["finding"]].set_axis(own)

    for kind in SOME:
        with pytest.raises(UsageError, match=r"index=shard\.index"):
            frame_of(kind).copy().amr.map(relabelled)
        assert frame_of(kind).copy().amr.map(kept)["finding"].tolist() == VALUES


def test_a_list_of_models_with_units_goes_by_number():
    class Numbered(BaseModel):
        unit: int
        finding: int

    def models(shard):
        return [Numbered(unit=n, finding=v) for n, v in enumerate(shard["v"].tolist())][::-1]

    assert frame_of("texts").amr.map(models)["finding"].tolist() == VALUES


def test_findings_without_a_name_or_with_one_that_is_taken_are_refused():
    frame = frame_of("texts")
    for function, told in (
        (lambda shard: pd.DataFrame(index=shard.index), "gives no column"),
        (lambda shard: [{}] * 4, "gives no column"),
        (lambda shard: [{"v": 1}] * 4, "would hide a column"),
        ({"v": lambda shard: shard["id"]}, "would hide a column"),
        (lambda shard: shard[["v", "v"]].set_axis(["a", "a"], axis=1), "two columns of one name"),
    ):
        with pytest.raises(UsageError, match=told):
            frame.amr.map(function)


# Functions by name


def doubled(shard):
    return shard["v"] * 2


def described(shard):
    return pd.DataFrame({"word": shard["v"].astype(str), "more": shard["v"] + 1})[::-1]


@pytest.mark.parametrize(
    "finding",
    [None, {"a": int, "b": {"word": str, "more": int}}, {"a": int}, {"b": {"word": str, "more": int}}],
    ids=["none", "both", "first", "second"],
)
@pytest.mark.parametrize("kind", ["0 to n-1", "texts"])
def test_functions_alone_map_by_name(kind, finding):
    maps = {"a": doubled, "b": described}
    found = frame_of(kind).amr.map(maps, finding=finding)
    assert found["a"].tolist() == [2 * v for v in VALUES]
    assert found["b_word"].tolist() == [str(v) for v in VALUES]
    assert found["b_more"].tolist() == [v + 1 for v in VALUES]
    result = frame_of(kind).amr.map_reduce(map=maps, finding=finding, reduce={"a": "sum", "b_more": "max"})
    assert result.output["a"] == 200
    assert result.output["b_more"] == 41
    assert frame_of(kind).amr.map({"a": doubled})["a"].tolist() == [2 * v for v in VALUES]


@pytest.mark.parametrize("named", [True, False])
def test_a_versioned_function_kept_in_the_journal_follows_the_rule(tmp_path, named):
    def function(shard):
        return pd.DataFrame({"finding": shard["v"].tolist(), "unit": range(len(shard))})[::-1]

    function.amr_version = "1"
    maps, finding = ({"a": function}, {"a": int}) if named else (function, {"finding": int})
    frame = frame_of("all the same")
    for part in (frame[:2], frame, frame):
        found = part.amr.map(maps, finding=finding, journal=tmp_path / "j.sqlite")
        assert found["a" if named else "finding"].tolist() == VALUES[: len(part)]


def test_beside_a_model_a_function_s_mistake_costs_its_own_units_alone_and_says_what_to_return():
    frame = frame_of("0 to n-1 shuffled")
    maps = {"said": "The value.", "a": lambda shard: pd.DataFrame({"n": shard["v"].tolist()})}
    with ScriptedServer(lambda request: findings(request, lambda unit: {"finding": str(unit["v"])})) as server:
        with pytest.warns(amr.FailureWarning, match="4 of 4 units failed"):
            found = frame.amr.map(maps, finding={"said": str, "a": {"n": int}}, lm=server.lm())
        failures = amr.result_of(found).failures
        with pytest.raises(amr.MapFailed, match=r"index=shard\.index") as stopped:
            frame.amr.map(maps, finding={"said": str, "a": {"n": int}}, errors="raise", lm=server.lm())
    assert found["said"].tolist() == [str(v) for v in VALUES]
    assert found["a_n"].isna().all()
    assert failures["position"].tolist() == [0, 1, 2, 3]
    assert set(failures["who"]) == {"callable"}
    assert all("index=shard.index" in reason and "`unit`" in reason for reason in failures["reason"])
    assert stopped.value.partial.frame["a_n"].isna().all()


# Whatever the labels and whatever code does


ORDERS = st.permutations(range(6))
ANY_LABELS = st.one_of(
    ORDERS.map(pd.Index),
    ORDERS.map(lambda order: pd.Index([float(n) for n in order])),
    ORDERS.map(lambda order: pd.Index([f"{n}" for n in order])),
    st.integers(0, 1).map(lambda label: pd.Index([label] * 6)),
    st.lists(st.integers(0, 2), min_size=6, max_size=6).map(pd.Index),
    st.lists(st.sampled_from([None, np.nan, True, 1, 1.0, "1", 0]), min_size=6, max_size=6).map(
        lambda labels: pd.Index(labels, dtype=object)
    ),
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab")), min_size=6, max_size=6).map(
        pd.MultiIndex.from_tuples
    ),
    st.lists(st.integers(0, 8), min_size=6, max_size=6).map(lambda days: pd.to_datetime(days, unit="D")),
    st.lists(st.sampled_from("abcdefg"), min_size=6, max_size=6).map(pd.CategoricalIndex),
)
STEPS = st.one_of(
    ORDERS.map(lambda order: lambda found: found.iloc[[n for n in order if n < len(found)]]),
    st.just(lambda found: found.sort_values("finding")),
    st.just(lambda found: found.copy()),
    st.just(lambda found: pd.concat([found[::2], found[1::2]])),
    st.just(lambda found: found.set_axis(found.index.tolist())),
    st.just(lambda found: found.rename_axis([f"k{n}" for n in range(found.index.nlevels)])),
    st.just(lambda found: found.drop_duplicates("finding")),
    st.just(lambda found: found.head(4)),
)


@settings(max_examples=examples(100))
@given(
    labels=ANY_LABELS,
    values=st.permutations([1, 2, 3, 4, 5, 6]),
    index=st.sampled_from(["own", "own", "own", "units", "fresh"]),
    steps=st.lists(STEPS, min_size=1, max_size=3),
    size=st.sampled_from([6, 6, 6, 4, 2, 1]),
)
def test_a_value_is_on_its_own_row_or_nowhere(labels, values, index, steps, size):
    def function(shard):
        found = pd.DataFrame({"finding": shard["v"].tolist()}, index=shard.index if index == "own" else None)
        if index == "units":
            found["unit"] = range(len(found))
        for step in steps if index != "fresh" else ():  # a fresh index says: the shard's order
            found = step(found)
        return found

    frame = pd.DataFrame({"v": values}, index=labels)
    try:
        found = frame.amr.map(function, finding={"finding": int}, plan={"shard_size": size})
    except (UsageError, RunStopped) as refused:  # the latter once a shard was found
        assert any(word in str(refused) for word in ("one finding per row", "index=shard.index", "`unit`"))  # noqa: PT017
    else:
        assert found["finding"].tolist() == values


@pytest.mark.parametrize(
    "found",
    [pd.period_range("2026-01", periods=4, freq="M"), pd.IntervalIndex.from_breaks(range(5))],
    ids=lambda found: str(found.dtype),
)
def test_periods_and_intervals_of_a_function_are_periods_and_intervals(found):
    df = pd.DataFrame({"n": range(4)})
    result = df.amr.map_reduce(
        map=lambda shard: pd.DataFrame({"found": found[shard["n"]]}),
        reduce={"n": "sum"},
        by="found",
        plan={"shard_size": 2},
    )
    assert result.frame["found"].tolist() == found.tolist()
    assert result.frame["found"].dtype == found.dtype
    assert result.output.index.tolist() == found.tolist()
