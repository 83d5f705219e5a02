"""Findings checked: against labels, by a second look, and by a person who is shown the rows most in doubt."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel

import pandas_amr as amr
from pandas_amr.testing import ScriptedServer, Status, findings

KINDS = ("red", "green", "blue")
TRUTH = [KINDS[n % 3] for n in range(90)]
ROWS = pd.DataFrame({"text": [f"row {n}" for n in range(90)], "truth": TRUTH}, index=[f"label {n}" for n in range(90)])
FINDING: dict[str, Any] = {"kind": list(KINDS), "size": float}


def n_of(unit: dict[str, Any]) -> int:
    return int(unit["text"].split()[1])


def erring(n: int) -> dict[str, Any]:
    """Wrong on nine of ninety: every tenth is called blue; sizes are a tenth too large on every thirtieth."""
    return {"kind": "blue" if n % 10 == 1 else TRUTH[n], "size": n * (1.1 if n % 30 == 2 else 1.0)}


def provider(request):
    return findings(request, lambda unit: erring(n_of(unit)))


def result_by(server: ScriptedServer, **options: Any) -> amr.Result:
    options = {"reduce": {"kind": "value_counts", "size": ["sum", "mean"]}, "columns": ["text"]} | options
    return ROWS.amr.map_reduce(map="x", finding=FINDING, lm=server.lm(), **options)


# Score


def test_a_score_counts_what_is_right_by_field_and_class_and_what_that_does_to_the_numbers():
    with ScriptedServer(provider) as server:
        result = result_by(server)
    score = result.score({"kind": "truth", "size": np.arange(90.0)})
    wrong = sum(n % 10 == 1 and TRUTH[n] != "blue" for n in range(90))
    assert score.fields.loc["kind", ["rows", "missing", "right"]].tolist() == [90, 0, 90 - wrong]
    assert score.accuracy["kind"] == (90 - wrong) / 90
    assert score.fields.loc["kind", "low"] < score.accuracy["kind"] < score.fields.loc["kind", "high"]
    errors = [0.1 * n for n in range(90) if n % 30 == 2]
    assert score.fields.loc["size", "mae"] == pytest.approx(sum(errors) / 90)
    assert score.fields.loc["size", "bias"] == pytest.approx(sum(errors) / 90)
    table = score.confusion("kind")
    assert table.loc["red", "blue"] + table.loc["green", "blue"] == wrong
    assert table.loc["blue", "blue"] == 30
    assert score.classes.loc[("kind", "blue"), "recall"] == 1.0
    assert score.classes.loc[("kind", "blue"), "precision"] == pytest.approx(30 / (30 + wrong))
    aggregates = score.aggregates.set_index(["field", "aggregate", "value"])
    assert aggregates.loc[("kind", "value_counts", "blue"), "error"].item() == wrong
    assert aggregates.xs("sum", level="aggregate")["error"].item() == pytest.approx(sum(errors))
    assert aggregates.xs("mean", level="aggregate")["error"].item() == pytest.approx(sum(errors) / 90)
    assert "kind 84/90 right" in repr(score)
    assert "<table" in score._repr_html_()


def test_labels_are_laid_beside_rows_by_label_or_by_place():
    with ScriptedServer(provider) as server:
        result = result_by(server)
    truth = ROWS["truth"].rename("kind")
    expected = result.score({"kind": "truth"}).fields
    for labels in (truth, truth.sample(frac=1, random_state=1), truth.to_frame(), {"kind": TRUTH}, {"kind": truth}):
        pd.testing.assert_frame_equal(result.score(labels).fields, expected)
    some = truth.iloc[::9]
    assert result.score(some).fields.loc["kind", "rows"] == 10
    holes = truth.where(np.arange(90) % 2 == 0)
    assert result.score(holes).fields.loc["kind", "rows"] == 45


def test_what_has_no_finding_counts_as_wrong_and_is_told():
    def failing(request):
        return Status(400, "no") if any(n_of(unit) == 5 for unit in request.units) else provider(request)

    with ScriptedServer(failing) as server:
        score = result_by(server).score({"kind": "truth"})
    assert score.fields.loc["kind", "missing"] == 1
    assert score.confusion("kind").loc["blue", "<missing>"] == 1


def test_numbers_may_differ_by_a_tolerance_and_words_by_case():
    with ScriptedServer(lambda r: findings(r, lambda u: {"kind": "Red", "size": 100.0})) as server:
        frame = ROWS.head(3)
        result = frame.amr.map_reduce(
            map="x", finding={"kind": str, "size": float}, reduce={"size": "sum"}, lm=server.lm()
        )
    score = result.score({"kind": [" red", "RED", "blue"], "size": [101.0, 99.5, 120.0]}, tolerance=0.02)
    assert score.fields["right"].to_dict() == {"kind": 2, "size": 2}


def test_a_loaded_result_is_scored_too(tmp_path):
    plan = {"aggregations": {"kind": "value_counts"}}
    with ScriptedServer(provider) as server:
        result = ROWS.amr.map_reduce(map="x", finding=FINDING, plan=plan, lm=server.lm())
    result.save(tmp_path)
    loaded = amr.load(tmp_path)
    pd.testing.assert_frame_equal(
        loaded.score({"kind": "truth"}).aggregates, result.score({"kind": "truth"}).aggregates
    )
    assert len(loaded.review()) == 0
    with pytest.raises(amr.UsageError, match="loaded"):
        loaded.verify()


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ({"mood": TRUTH}, "not 'mood'"),
        ({"kind": "nowhere"}, "no column 'nowhere'"),
        ({"kind": TRUTH[:5]}, "one label per row: 90"),
        (pd.Series(TRUTH, name="kind"), "no row of the frame"),
        (pd.DataFrame({"mood": TRUTH}), "these name none"),
        (TRUTH, r"named like one of the findings \(.*'kind'.*\), not a list without a name"),
        (pd.Series(TRUTH), "not a Series without a name"),
    ],
)
def test_labels_that_fit_no_finding_say_what_would(labels, reason):
    with ScriptedServer(provider) as server:
        result = result_by(server)
    with pytest.raises(amr.UsageError, match=reason):
        result.score(labels)


DAYS = [dt.date(2026, 1, 1 + n) for n in range(12)]
TIMES = [pd.Timestamp(2026, 1, 1 + n, 12, 30).to_pydatetime() for n in range(12)]
SORTS: dict[str, tuple[Any, list[Any]]] = {
    "decimal": (Decimal, [Decimal(n) + Decimal("0.5") for n in range(12)]),
    "number": (float, [n + 0.5 for n in range(12)]),
    "whole": (int, list(range(12))),
    "truth": (bool, [n % 2 == 0 for n in range(12)]),
    "day": (dt.date, DAYS),
    "time": (dt.datetime, TIMES),
    "digits": (str, [str(n) for n in range(12)]),
}
HALVES = [n + 0.5 for n in range(12)]


def found_to_be(sort: str, **options: Any) -> amr.Result:
    kind, values = SORTS[sort]
    frame = ROWS[["text"]].head(12)
    with ScriptedServer(lambda r: findings(r, lambda u: {"x": as_json(values[n_of(u)])})) as server:
        return frame.amr.map_reduce(
            map="x", finding={"x": kind}, columns=["text"], lm=server.lm(), **({"reduce": {"x": "max"}} | options)
        )


def as_json(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value).replace(" ", "T")


@pytest.mark.parametrize(
    ("sort", "labels"),
    [
        ("decimal", SORTS["decimal"][1]),
        ("decimal", HALVES),
        ("decimal", [f"{n}.5" for n in range(12)]),
        ("number", SORTS["decimal"][1]),
        ("number", [f" {n}.50" for n in range(12)]),
        ("whole", [str(n) for n in range(12)]),
        ("whole", [np.int64(n) for n in range(12)]),
        ("whole", [float(n) for n in range(12)]),
        ("truth", ["True", "false"] * 6),
        ("truth", [1, 0] * 6),
        ("truth", [np.True_, np.False_] * 6),
        ("day", DAYS),
        ("day", pd.to_datetime(pd.Series(DAYS)).tolist()),
        ("day", pd.to_datetime(pd.Series(TIMES)).to_numpy()),
        ("day", [str(day) for day in DAYS]),
        ("time", TIMES),
        ("time", pd.Series(TIMES).to_numpy()),
        ("time", pd.DatetimeIndex(TIMES, tz="UTC").tz_convert("Asia/Tokyo")),
        ("time", [str(time) for time in TIMES]),
        ("time", [f"{time.isoformat()}Z" for time in TIMES]),
        ("digits", list(range(12))),
        ("digits", [float(n) for n in range(12)]),
    ],
)
@pytest.mark.sampled(5)
def test_labels_say_the_same_in_whatever_type_they_stand(sort, labels):
    result = found_to_be(sort)
    score = result.score({"x": labels})
    assert score.fields.loc["x", ["rows", "right"]].tolist() == [12, 12]
    [row] = score.aggregates.to_dict("records")
    assert row["found"] == row["labelled"]
    table = score.confusion("x")
    assert np.trace(table.reindex(columns=table.index).fillna(0).to_numpy()) == 12
    if sort in {"decimal", "number", "whole"}:
        assert score.fields.loc["x", ["mae", "bias"]].tolist() == [0, 0]
        assert row["error"] == 0
    half = [*list(labels)[:6], *[None] * 6]
    assert result.score({"x": half}).fields.loc["x", ["rows", "right"]].tolist() == [6, 6]


def test_decimals_and_numbers_in_texts_have_errors_as_numbers_have():
    labels = [str(n + 0.5 - (n == 3)) for n in range(12)]
    score = found_to_be("decimal", reduce={"x": ["sum", "mean"]}).score({"x": labels})
    assert score.fields.loc["x", "right"] == 11
    assert score.fields.loc["x", "mae"] == pytest.approx(1 / 12)
    assert score.aggregates["error"].tolist() == pytest.approx([1, 1 / 12])


@pytest.mark.parametrize(
    ("sort", "label", "reason"),
    [
        ("whole", "n/a", "are numbers; 'n/a' is not a number"),
        ("whole", [1], "are numbers"),
        ("decimal", dt.date(2026, 1, 1), "are numbers"),
        ("truth", "maybe", "are bools: True or False; 'maybe' is neither"),
        ("truth", 2, "is neither"),
        ("day", "01/02/2026", "ISO 8601; '01/02/2026' is not ISO 8601"),
        ("day", 20260101, "20260101 is not a date"),
        ("time", "soon", "pd.to_datetime"),
    ],
)
def test_labels_of_another_sort_say_what_would_be_right(sort, label, reason):
    with pytest.raises(amr.UsageError, match=f"The labels of 'x' .*{reason}"):
        found_to_be(sort).score({"x": [label] * 12})


def test_a_field_without_labels_and_a_frame_without_rows_have_nothing_right_and_nothing_wrong():
    with ScriptedServer(provider) as server:
        result = result_by(server)
        empty = ROWS.head(0).amr.map_reduce(
            map="x", finding=FINDING, columns=["text"], reduce={"size": "sum"}, lm=server.lm()
        )
    score = result.score(pd.DataFrame({"kind": TRUTH, "size": [None] * 90}, index=ROWS.index))
    assert score.fields["rows"].to_dict() == {"kind": 90, "size": 0}
    assert score.aggregates["field"].unique().tolist() == ["kind"]
    assert score.uncovered == ("sum of 'size': there are no labels of it", "mean of 'size': there are no labels of it")
    assert "size has no labels; aggregates not compared: 2" in repr(score)
    assert "no labels" in score._repr_html_()
    for nothing in (result.score({"kind": [None] * 90}), empty.score({"kind": []}), empty.score({"size": "truth"})):
        assert nothing.fields["rows"].tolist() == [0]
        assert nothing.accuracy.isna().all()
        assert nothing.aggregates.empty


class Line(BaseModel):
    line: int


def test_of_findings_that_hold_many_records_the_lists_and_their_lengths_are_scored(tmp_path):
    def listed(request):
        units = [{"unit": u["unit"], "items": [{"line": n_of(u)}] * (n_of(u) % 3)} for u in request.units]
        return {"findings": units}

    with ScriptedServer(listed) as server:
        result = ROWS.head(12).amr.map_reduce(
            map="x", finding=list[Line], columns=["text"], plan={"aggregations": {"line": "sum"}}, lm=server.lm()
        )
    result.save(tmp_path)
    for one in (result, amr.load(tmp_path)):
        score = one.score({"items_count": [n % 3 for n in range(11)] + [0]})
        assert score.fields.loc["items_count", ["rows", "right"]].tolist() == [12, 11]
        assert score.uncovered == ("sum of 'line': there are no labels of it",)
        with pytest.raises(amr.UsageError, match="'items', 'items_count', not 'line'"):
            one.score({"line": [1] * 12})


def test_a_result_that_holds_no_findings_cannot_be_scored():
    recipe = amr.Recipe().map("x", finding=FINDING, columns=["text"]).then(lambda frame: frame[["text"]])
    with ScriptedServer(provider) as server:
        result = recipe(ROWS, lm=server.lm())
    with pytest.raises(amr.UsageError, match="holds no findings"):
        result.score({"kind": TRUTH})


def small_and_sized(request):
    """Says of the first four that they are small, sizes are the number; 2 is one too large."""
    return findings(
        request, lambda u: {"small": n_of(u) < 4, "size": n_of(u) + (n_of(u) == 2), "kind": KINDS[n_of(u) % 2]}
    )


def sized(**options: Any) -> amr.Result:
    frame = ROWS[["text"]].head(12).assign(shop=["a", "b", "c"] * 4)
    kind = {"small": bool, "size": int, "kind": list(KINDS)}
    with ScriptedServer(small_and_sized) as server:
        return frame.amr.map_reduce(map="x", finding=kind, columns=["text"], lm=server.lm(), **options)


def told_of(score: Any) -> list[list[Any]]:
    return score.aggregates.drop(columns=["field"]).astype(object).where(score.aggregates.notna(), None).values.tolist()


def test_aggregates_are_of_the_rows_that_the_plan_chooses():
    result = sized(reduce={"size": "sum"}, plan={"where": "small"})
    assert result.output["size"] == 7
    size = list(range(12))
    assert told_of(result.score({"size": size})) == [["sum", None, 7, 6, 1]]
    small = [n in {0, 1, 2, 5} for n in range(12)]
    assert told_of(result.score({"size": size, "small": small})) == [["sum", None, 7, 8, -1]]
    only_small = [n if small[n] else None for n in range(12)]
    assert told_of(result.score({"size": only_small, "small": small})) == [["sum", None, 7, 8, -1]]


def test_named_aggregates_are_compared_under_their_names(tmp_path):
    result = sized(
        reduce={"worst": ("size", "max"), "usual": pd.NamedAgg("size", "median"), "kinds": ("kind", "nunique")}
    )
    score = result.score({"size": [*range(11), 20]})
    assert told_of(score) == [["worst", None, 11, 20, -9], ["usual", None, 5.5, 5.5, 0.0]]
    assert score.uncovered == ("kinds of 'kind': there are no labels of it",)


@pytest.mark.parametrize("saved", [False, True])
def test_aggregates_are_compared_by_group(saved, tmp_path):
    plan = {"aggregations": {"size": "sum", "kind": "value_counts"}, "by": ["shop"]}
    result = sized(plan=plan)
    if saved:
        result.save(tmp_path)
        result = amr.load(tmp_path)
    score = result.score({"size": range(12)})
    assert told_of(score) == [
        ["sum", "a", None, 18, 18, 0],
        ["sum", "b", None, 22, 22, 0],
        ["sum", "c", None, 27, 26, 1],
    ]
    kinds = ["red", "green"] * 5 + ["red", "blue"]
    score = result.score({"kind": kinds})
    wrong = score.aggregates[score.aggregates["error"] != 0].set_index(["group", "value"])["error"].to_dict()
    assert wrong == {("c", "blue"): -1, ("c", "green"): 1}


@pytest.mark.parametrize("two_keys", [False, True])
@pytest.mark.parametrize("missing", [float("nan"), None, pd.NA])
def test_a_group_without_a_key_is_one_group(missing, two_keys):
    frame = pd.DataFrame({"k": pd.Series([1.5, missing, missing], dtype=None if missing is not pd.NA else "Float64")})
    frame["shop"] = "a"
    by = ["k", "shop"] if two_keys else ["k"]

    def told_by_key(reduce: dict[str, Any], labels: list[int]) -> list[list[Any]]:
        result = frame.amr.map_reduce(
            map=lambda shard: [{"n": number} for number in (1, 2, 3)],
            finding={"n": int},
            reduce=reduce,
            by=amr.By(*by, dropna=False),
        )
        told: list[list[Any]] = []
        for _, group, *figures in told_of(result.score({"n": labels})):
            key, *others = group if two_keys else (group,)
            assert others == ["a"] * two_keys
            told.append([None if pd.isna(key) else key, *figures])
        return told

    assert told_by_key({"n": "sum"}, [1, 2, 4]) == [[1.5, None, 1, 1, 0], [None, None, 5, 6, -1]]
    assert told_by_key({"n": "value_counts"}, [1, 2, 4]) == [
        [1.5, 1, 1, 1, 0],
        [None, 2, 1, 1, 0],
        [None, 3, 1, 0, 1],
        [None, 4, 0, 1, -1],
    ]


def test_a_missing_value_of_a_table_is_one_value():
    def largest_and_rest(numbers: pd.Series) -> pd.Series:
        return pd.Series([numbers.max(), numbers.sum()], index=[0.5, np.nan])

    result = sized(reduce={"size": largest_and_rest})
    assert told_of(result.score({"size": range(12)})) == [
        ["largest_and_rest", 0.5, 11, 11, 0],
        ["largest_and_rest", None, 67, 66, 1],
    ]


def test_groups_that_were_found_are_compared_with_those_of_labels():
    result = sized(reduce={"size": "sum"}, by=["kind", "small"])
    kinds = [*KINDS[:2] * 5, "red", "blue"]
    score = result.score({"size": range(12), "kind": kinds})
    told = score.aggregates.set_index("group")[["found", "labelled"]].T.to_dict("list")
    assert told.pop(("blue", False))[1] == 11
    assert told == {
        ("green", False): [32, 21],
        ("green", True): [4, 4],
        ("red", False): [28, 28],
        ("red", True): [3, 2],
    }


def test_what_cannot_be_compared_is_said():
    async def slowly(column):
        return len(column)

    def picky(column):
        if column.max() > 12:
            raise ValueError("too large")
        return 1

    score = sized(reduce={"size": ["sum", picky], "n": ("kind", slowly)}).score(
        {"size": [20] * 12, "kind": ["red"] * 12}
    )
    assert told_of(score) == [["sum", None, 67, 240, -173]]
    assert score.uncovered == (
        "picky of 'size': ValueError: too large",
        "n of 'kind': its function is asynchronous",
    )


# Verify


def other_model(request):
    """Sees every fifth row differently."""
    return findings(request, lambda unit: erring(n_of(unit)) | ({"kind": "green"} if n_of(unit) % 5 == 0 else {}))


def test_a_second_model_looks_at_a_share_and_nothing_changes(tmp_path):
    with ScriptedServer(provider) as server, ScriptedServer(other_model) as second:
        result = result_by(server, journal=tmp_path / "j.sqlite")
        before = result.frame.copy()
        seen = result.verify(share=0.5, lm=second.lm(model="another"))
        asked = [n_of(unit) for request in second.requests for unit in request.units]
        assert len(asked) == len(set(asked)) == 45
        assert max(asked) > 80
        assert min(asked) < 10
        again = result.verify(share=0.5, lm=second.lm(model="another"))
        assert len([unit for request in second.requests for unit in request.units]) == 45  # the journal had it
    pd.testing.assert_frame_equal(result.frame, before)
    pd.testing.assert_frame_equal(seen.rows, again.rows)
    differing = [n for n in asked if n % 5 == 0 and erring(n)["kind"] != "green"]
    assert seen.disagreements["label"].tolist() == [f"label {n}" for n in sorted(differing)]
    row = seen.agreement.loc["kind"]
    assert row["rows"] == 45
    assert row["same"] == 45 - len(differing)
    assert row["low"] < row["agreement"] < row["high"]
    assert 0 < row["kappa"] < row["agreement"]
    assert seen.agreement.loc["size", "agreement"] == 1.0
    assert seen.model == "another"
    assert seen.usage["calls"].sum() == len(second.requests)
    assert repr(seen).startswith("<Verification by another: kind ")


def test_a_second_pass_of_the_same_model_asks_it_again(tmp_path):
    with ScriptedServer(provider) as server:
        result = result_by(server, journal=tmp_path / "j.sqlite")
        server.requests.clear()
        seen = result.verify(share=0.1)
        assert sum(len(request.units) for request in server.requests) == 9
        other = result.verify(share=0.1, seed=1)
        assert sum(len(request.units) for request in server.requests) == 18
    assert seen.agreement["agreement"].tolist() == [1.0, 1.0]
    assert seen.rows["position"].tolist() != other.rows["position"].tolist()
    assert seen.agreement["kappa"].isna().tolist() == [False, True]


def test_what_the_second_look_cannot_read_is_counted_and_not_compared():
    with ScriptedServer(provider) as server:
        result = result_by(server)

    def failing(request):
        return Status(400, "no") if any(n_of(unit) % 2 for unit in request.units) else provider(request)

    with ScriptedServer(failing) as second, pytest.warns(amr.FailureWarning):
        seen = result.verify(share=1.0, lm=second.lm())
    assert seen.failed == 45
    assert seen.agreement.loc["kind", "rows"] == 45


@pytest.mark.parametrize(("status", "names"), [(True, ("amr_status", "amr_reason")), (("how", "why"), ("how", "why"))])
def test_the_status_columns_are_no_findings(status, names):
    with ScriptedServer(provider) as server, ScriptedServer(other_model) as second:
        result = result_by(server, plan={"status": status})
        seen = result.verify(share=0.5, lm=second.lm())
        assert set(names) <= set(result.frame.columns)
        assert seen.agreement.index.tolist() == ["kind", "size"]
        assert not seen.rows["field"].isin(names).any()
        assert not any(name in why for name in names for why in result.review(90, verification=seen)["amr_why"])
        with pytest.raises(amr.UsageError, match="'kind', 'size', not"):
            result.score({names[0]: ["ok"] * 90})


def test_a_second_look_at_decimals_compares_numbers():
    _, values = SORTS["decimal"]
    with ScriptedServer(lambda r: findings(r, lambda u: {"x": f"{values[n_of(u)] * 101 / 100}"})) as second:
        result = found_to_be("decimal")
        assert result.verify(share=1, lm=second.lm()).agreement.loc["x", "same"] == 0
        assert result.verify(share=1, lm=second.lm(), tolerance=0.02).agreement.loc["x", "same"] == 12


def test_units_that_are_judged_together_are_looked_at_together():
    frame = pd.DataFrame({"text": [f"row {n}" for n in range(40)], "group": [n // 4 for n in range(40)]})
    plan = {"segmentation": "groups", "group_columns": ["group"]}
    with ScriptedServer(lambda r: findings(r, lambda u: {"size": float(len(r.units))})) as server:
        result = frame.amr.map_reduce(
            map="x", finding={"size": float}, columns=["text"], plan=plan, reduce={"size": "sum"}, lm=server.lm()
        )
        server.requests.clear()
        seen = result.verify(share=0.2)
        assert {len(request.units) for request in server.requests} == {4}
    assert seen.agreement.loc["size", "agreement"] == 1.0


def test_a_share_that_is_none_and_a_result_without_a_model_are_refused():
    with ScriptedServer(provider) as server:
        result = result_by(server)
    for share in (0, 1.5, -1, "half"):
        with pytest.raises(amr.UsageError, match="a share above 0"):
            result.verify(share=share)
    plain = ROWS.amr.map_reduce(map=lambda shard: [{"n": 1}] * len(shard), reduce={"n": "sum"})
    with pytest.raises(amr.UsageError, match="no model mapped"):
        plain.verify()


# Review


def test_the_rows_most_in_doubt_come_first_with_the_reasons():
    def odd(request):
        def found(unit):
            n = n_of(unit)
            if n == 7:
                return {"kind": "purple", "size": 1.0} if not request.repairs else {"kind": "red", "size": 7.0}
            if n == 30:
                return {"kind": "red", "size": 1e6}
            return {"kind": KINDS[n % 3], "size": float(n)} | ({"note": None} if n == 12 else {})

        if any(n_of(unit) == 3 for unit in request.units):
            return Status(400, "cannot be read")
        return findings(request, lambda unit: {"note": "x"} | found(unit))

    frame = pd.concat([ROWS, ROWS.assign(text=[f"row {n}" for n in range(90, 180)])])
    frame["text"] = [f"row {n}" for n in range(180)]
    frame.index = range(180)
    kind = FINDING | {"note": str | None}
    with ScriptedServer(odd) as server:
        result = frame.amr.map_reduce(map="x", finding=kind, columns=["text"], reduce={"size": "sum"}, lm=server.lm())
    with ScriptedServer(lambda r: findings(r, lambda u: {"kind": "blue", "size": 40.0, "note": "x"})) as second:
        seen = result.verify(share=1.0, lm=second.lm())
    doubtful = result.review()
    assert doubtful.index.tolist() == [3, 7, 12, 30]
    assert doubtful["amr_why"].tolist()[2:] == ["note is empty", "size is unusual"]
    assert "cannot be read" in doubtful.loc[3, "amr_why"]
    assert doubtful["amr_doubt"].is_monotonic_decreasing
    assert list(doubtful.columns[:3]) == ["amr_doubt", "amr_why", "text"]
    with_second = result.review(5, verification=seen)
    assert len(with_second) == 5
    assert "the second look says" in with_second.iloc[0]["amr_why"]
