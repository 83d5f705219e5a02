"""Findings checked: against labels, by a second look, and by a person who is shown the rows most in doubt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

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
        ({"kind": TRUTH[:5]}, "one a row: 90"),
        (pd.Series(TRUTH, name="kind"), "no row of the frame"),
        (pd.DataFrame({"mood": TRUTH}), "these name none"),
        (TRUTH, "not None"),
    ],
)
def test_labels_that_fit_no_finding_say_what_would(labels, reason):
    with ScriptedServer(provider) as server:
        result = result_by(server)
    with pytest.raises(amr.UsageError, match=reason):
        result.score(labels)


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
