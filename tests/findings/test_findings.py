"""Exactly one valid finding per unit, or a failure with its reason; one bad row costs only itself."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from pydantic import BaseModel, Field, field_validator

import pandas_amr as amr
from numbered import labelled_rows as frame
from numbered import number
from pandas_amr.testing import Raw, ScriptedServer, Status, findings


class Even(BaseModel):
    n: int = Field(ge=0, le=99)

    @field_validator("n")
    @classmethod
    def even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("say an even number")
        return value


def test_a_repair_turn_names_only_what_was_wrong_and_says_why():
    """Missing, doubled, out of range, mistyped, failed by a validator of the user's own: five units of nine."""

    def provider(request):
        if request.repairs:
            return findings(request, lambda unit: {"n": 2 * number(unit)["n"]})
        wrong = {1: [], 2: [{"n": 4}, {"n": 4}], 3: [{"n": 100}], 4: [{"n": "many"}], 5: [{"n": 7}]}
        told = [
            {"unit": u["unit"], **part} for u in request.units for part in wrong.get(u["unit"], [{"n": 2 * u["unit"]}])
        ]
        return {"findings": told}

    with ScriptedServer(provider) as server:
        result = frame(9).amr.map_reduce(map="Twice?", finding=Even, reduce={"n": "sum"}, lm=server.lm())
    assert result.findings["n"].tolist() == [2 * n for n in range(9)]
    assert len(server.requests) == 2
    assert server.requests[1].repairs == [1, 2, 3, 4, 5]
    said = server.requests[1].user
    for words in (
        "- unit 1: no finding",
        "- unit 2: 2 findings, not one",
        "- unit 3: n: Input should be less than or equal to 99",
        "- units 4 to 5: other problems",
    ):
        assert words in said
    assert result.status["status"].tolist() == ["ok"] + ["repaired"] * 5 + ["ok"] * 3


def test_what_a_repair_does_not_mend_is_halved_until_the_units_that_fail_stand_alone():
    def provider(request):
        return findings(request, lambda unit: {"n": 1} if number(unit)["n"] == 5 else {"n": 2 * number(unit)["n"]})

    with ScriptedServer(provider) as server:
        result = frame(8).amr.map_reduce(map="Twice?", finding=Even, reduce={"n": "count"}, lm=server.lm())
    assert result.findings["n"].isna().tolist() == [n == 5 for n in range(8)]
    assert result.failures[["label", "position", "who"]].values.tolist() == [["label 5", 5, "schema"]]
    assert "say an even number" in result.failures["reason"][0]
    # once with all, once repaired, then alone and repaired: what was found is not asked for again
    assert [len(request.units) for request in server.requests] == [8, 8, 1, 1]
    assert result.failures["attempts"][0] == 4


@pytest.mark.parametrize("repairs", [0, 1, 3])
def test_the_plan_says_how_many_repairs(repairs):
    with ScriptedServer(lambda r: findings(r, lambda u: {"n": 1})) as server, pytest.raises(amr.MapFailed):
        frame(1).amr.map("Twice?", finding=Even, plan={"max_repairs": repairs}, lm=server.lm(), errors="raise")
    assert len(server.requests) == 2 * (1 + repairs)  # alone from the start: asked afresh once


@pytest.mark.parametrize("size", [2, 16, 50, 64])
@pytest.mark.sampled(2)
def test_one_row_of_200_that_is_answered_400_for_ever_costs_itself_and_few_requests(size):
    df = frame(200)

    def provider(request):
        if any(unit["text"] == "row 123" for unit in request.units):
            return Status(400, "we will not process this")
        return findings(request, number)

    with ScriptedServer(provider) as server:
        result = df.amr.map_reduce(
            map="Which?", finding={"n": int}, reduce={"n": "count"}, plan={"shard_size": size}, lm=server.lm()
        )
    assert result.output["n"] == 199
    assert result.findings["n"].dropna().tolist() == [n for n in range(200) if n != 123]
    assert result.failures[["label", "position"]].values.tolist() == [["label 123", 123]]
    assert result.failures["reason"][0] == "The server answered 400: we will not process this"
    extra = len(server.requests) - math.ceil(200 / size)
    assert extra <= 2 + 2 * math.log2(size)


def test_findings_before_a_cut_are_kept_and_the_last_one_is_not_trusted():
    """The number of the last one may be cut in two: 12 of 123."""

    def provider(request):
        if len(request.units) == 4 and not request.repairs:
            text = '{"findings": [{"unit": 0, "n": 0}, {"unit": 1, "n": 123}, {"unit": 2, "n": 12'
            return Raw(text, finish_reason="length")
        return findings(request, lambda unit: {"n": 100 + unit["unit"]})

    with ScriptedServer(provider) as server:
        found = frame(4).amr.map("Which?", finding={"n": int}, lm=server.lm())
    assert found["n"].tolist() == [0, 123, 102, 103]
    assert server.requests[1].repairs == [2, 3]
    assert "cut off" in server.requests[1].user


def test_an_answer_that_may_be_shifted_by_a_row_is_not_taken_at_all():
    """Units counted from 1: every finding would sit one row too low."""

    def provider(request):
        if len(request.messages) == 2:
            return {"findings": [{"unit": u["unit"] + 1, **number(u)} for u in request.units]}
        assert "names unit 3; units are 0 to 2" in request.user
        return findings(request, number)

    with ScriptedServer(provider) as server:
        assert frame(3).amr.map("Which?", finding={"n": int}, lm=server.lm())["n"].tolist() == [0, 1, 2]


def test_an_extra_finding_beside_a_complete_answer_is_ignored():
    def provider(request):
        return {"findings": [*findings(request, number)["findings"], {"unit": 99, "n": 99}]}

    with ScriptedServer(provider) as server:
        assert frame(3).amr.map("Which?", finding={"n": int}, lm=server.lm())["n"].tolist() == [0, 1, 2]
        assert len(server.requests) == 1


class Lenient(BaseModel):
    severity: int = 3
    note: str | None = None


def test_a_default_that_looks_like_an_answer_never_stands_in_for_one():
    def provider(request):
        if request.repairs:
            return findings(request, lambda unit: {"severity": 1})
        return findings(request, lambda unit: {"note": "x"} if unit["unit"] else {"severity": 2})

    with ScriptedServer(provider) as server:
        found = frame(2).amr.map("How bad?", finding=Lenient, lm=server.lm())
        assert "without severity" in server.requests[1].user
    assert found["severity"].tolist() == [2, 1]
    assert found["note"].isna().all()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Raw(""), "the answer is empty"),
        (Raw("", finish_reason="length"), "its tokens were used up"),
        (Raw(refusal="no"), "declined"),
        ({"type": "object", "properties": {"findings": {"type": "array"}}}, "without finding"),
        ({"findings": []}, "no finding"),
        ({"findings": [{"unit": 0, "finding": ""}]}, "at least 1 character"),
        ({"findings": [{"unit": True, "finding": "x"}]}, "units are 0 to 0"),
        ({"findings": [{"unit": "00", "finding": "x"}]}, "units are 0 to 0"),
        ({"findings": ["x"]}, "units are 0 to 0"),
        ({"findings": {"unit": 0}}, "no list `findings`"),
    ],
)
def test_nothing_that_is_no_answer_becomes_a_finding(answer, reason):
    with ScriptedServer(lambda request: answer) as server, pytest.raises(amr.MapFailed) as caught:
        frame(1).amr.map("Read.", lm=server.lm(), errors="raise")
    assert reason in caught.value.partial.failures["reason"][0]
    assert caught.value.partial.frame["finding"].isna().all()


class Call(BaseModel):
    line: int
    name: str


def test_none_or_many_a_unit_give_a_list_a_count_and_one_row_an_item():
    calls = {0: [], 1: [{"line": 3, "name": "foo"}], 2: [{"line": 1, "name": "bar"}, {"line": 9, "name": "foo"}]}

    def provider(request):
        return findings(request, lambda unit: {"items": calls[number(unit)["n"]]})

    with ScriptedServer(provider) as server:
        result = frame(3).amr.map_reduce(
            map="Every call.", finding=list[Call], reduce={"name": "value_counts"}, lm=server.lm()
        )
    assert result.frame["items_count"].tolist() == [0, 1, 2]
    assert [list(items) for items in result.frame["items"]] == [calls[n] for n in range(3)]
    assert result.findings.index.tolist() == ["label 1", "label 2", "label 2"]
    assert result.findings["line"].tolist() == [3, 1, 9]
    assert result.output["name"].to_dict() == {"foo": 2, "bar": 1}


def test_an_empty_list_is_an_answer_and_a_missing_one_is_not():
    def provider(request):
        return findings(request, lambda unit: {"items": []} if unit["text"] == "row 0" else {})

    with ScriptedServer(provider) as server, pytest.warns(amr.FailureWarning, match="1 of 2 units"):
        found = frame(2).amr.map("Every call.", finding=list[Call], lm=server.lm())
    assert found["items_count"].tolist()[0] == 0
    assert found["items_count"].isna().tolist() == [False, True]
    assert "without items" in amr.result_of(found).failures["reason"][0]


def test_records_of_none_or_many_reach_reducers_one_a_line_and_group_as_rows():
    def provider(request):
        if request.schema == "findings":
            return findings(
                request, lambda unit: {"items": [{"line": k, "name": "f"} for k in range(number(unit)["n"])]}
            )
        return {"output": str(len(request.findings)), "sources": []}

    with ScriptedServer(provider) as server:
        df = frame(4).assign(kind=["a", "b", "a", "b"])
        options = {"map": "Every call.", "columns": "text", "finding": list[Call], "lm": server.lm()}
        assert df.amr.map_reduce(reduce="How many?", **options).output == "6"
        assert df.amr.map_reduce(reduce="How many?", by="kind", **options).output["output"].to_dict() == {
            "a": "2",
            "b": "4",
        }
        by_kind = df.amr.map_reduce(reduce={"line": "sum"}, by="kind", **options).output
    assert by_kind["line"].to_dict() == {"a": 1, "b": 3}


def test_status_columns_are_there_when_the_plan_says_so():
    def provider(request):
        if any("row 1" in unit["text"] for unit in request.units):
            return Status(400, "no")
        return findings(request, number)

    with ScriptedServer(provider) as server:
        options = {"finding": {"n": int}, "lm": server.lm()}
        with pytest.warns(amr.FailureWarning):
            found = frame(3).amr.map("Which?", plan={"status": True}, **options)
        with pytest.warns(amr.FailureWarning):
            named = frame(3).amr.map("Which?", plan={"status": ("state", "why")}, **options)
    assert found["amr_status"].tolist() == ["ok", "failed", "ok"]
    assert found["amr_reason"].tolist() == [pd.NA, "model: The server answered 400: no", pd.NA]
    assert list(named.columns) == ["text", "n", "state", "why"]
    with pytest.raises(amr.ColumnError, match="amr_status"):
        found.drop(columns="n").amr.map("Which?", plan={"status": True}, **options)


def test_what_a_stopped_run_never_reached_is_skipped_and_says_so():
    def provider(request):
        return Status(400, "no") if number(request.units[0])["n"] == 2 else findings(request, number)

    with ScriptedServer(provider) as server, pytest.raises(amr.MapFailed) as caught:
        frame(9).amr.map(
            "Which?", finding={"n": int}, errors="raise", plan={"shard_size": 1}, max_parallelism=1, lm=server.lm()
        )
    partial = caught.value.partial
    assert partial.status["status"].tolist()[:3] == ["ok", "ok", "failed"]
    assert partial.status["status"].tolist()[-1] == "skipped"
    assert partial.status["reason"].iloc[-1] == "the run stopped before its turn"


def test_retry_runs_only_what_failed_and_reduces_anew():
    broken = {3, 4}

    def provider(request):
        if request.schema == "reduction":
            return {"output": " ".join(str(found["n"]) for found in request.findings), "sources": []}
        if any(number(unit)["n"] in broken for unit in request.units):
            return Status(400, "not today")
        return findings(request, number)

    with ScriptedServer(provider) as server:
        options = {"map": "Which?", "finding": {"n": int}, "plan": {"shard_size": 2}, "lm": server.lm()}
        first = frame(6).amr.map_reduce(reduce="List.", **options)
        assert first.output == "0 1 2 5"
        broken.clear()
        before = len(server.requests)
        second = first.retry()
        asked = [unit["text"] for request in server.requests[before:] for unit in request.units]
    assert asked == ["row 3", "row 4"]
    assert second.output == "0 1 2 3 4 5"
    assert second.frame["n"].tolist() == list(range(6))
    assert len(second.failures) == 0
    assert first.frame["n"].isna().sum() == 2
    assert second.status["status"].tolist() == ["ok"] * 6


def test_retry_goes_on_after_a_run_that_raised_and_may_use_another_model():
    def weak(request):
        return Status(400, "no") if number(request.units[0])["n"] else findings(request, number)

    with ScriptedServer(weak) as first, ScriptedServer(lambda r: findings(r, number)) as second:
        with pytest.raises(amr.MapFailed) as caught:
            frame(4).amr.map("Which?", finding={"n": int}, errors="raise", plan={"shard_size": 1}, lm=first.lm())
        result = caught.value.partial.retry(lm=second.lm(), errors="coerce")
        assert len(second.requests) == 3
    assert result.frame["n"].tolist() == [0, 1, 2, 3]


def test_a_frame_that_a_verb_gave_leads_to_its_result():
    with ScriptedServer(lambda r: findings(r, number)) as server:
        found = frame(2).amr.map("Which?", finding={"n": int}, lm=server.lm())
    assert amr.result_of(found).total.calls == 1
    assert amr.result_of(found.copy()).frame is found
    with pytest.raises(amr.UsageError, match="found nothing: it knows the last frames"):
        amr.result_of(frame(1))


def test_a_callable_that_fails_on_a_row_loses_that_row_alone():
    def lengths(shard):
        if (shard["text"] == "row 3").any():
            raise RuntimeError("row 3 is bad")
        return pd.DataFrame({"n": shard["text"].str.len()})

    result = frame(10).amr.map_reduce(map=lengths, reduce={"n": "sum"}, finding={"n": int})
    assert result.findings["n"].isna().tolist() == [n == 3 for n in range(10)]
    assert result.failures[["label", "who", "reason"]].values.tolist() == [
        ["label 3", "callable", "RuntimeError: row 3 is bad"]
    ]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda shard: [{"n": int(t.split()[1])} for t in shard["text"]], None),
        (lambda shard: [int(t.split()[1]) for t in shard["text"]], None),
        (lambda shard: pd.DataFrame({"n": shard["text"].str[4:].astype(int)}), None),
        (lambda shard: pd.DataFrame({"n": shard["text"].str[4:].astype(int)}).sort_values("n", ascending=False), None),
        (lambda shard: shard["text"].str[4:].astype(int).rename("n"), None),
        (lambda shard: pd.DataFrame({"n": [int(t.split()[1]) for t in shard["text"]]}), None),
        (lambda shard: [1], "one finding per row"),
        (lambda shard: pd.DataFrame({"n": [1]}), "one finding per row"),
        (lambda shard: 5, "gives a frame or a list"),
    ],
)
@pytest.mark.parametrize("typed", [True, False])
def test_what_a_callable_gives_lands_by_position_or_is_refused(function, expected, typed):
    df = frame(7).sample(frac=1, random_state=3)
    options = {"finding": {"n": int}} if typed else {}
    if expected:
        with pytest.raises(amr.UsageError, match=expected):
            df.amr.map(function, **options)
        return
    found = df.amr.map(function, **options)
    column = found.columns[1]
    assert found[column].tolist() == [int(text.split()[1]) for text in df["text"]]


def test_a_frame_that_could_be_sorted_or_fresh_is_refused_instead_of_guessed():
    df = pd.DataFrame({"text": ["a", "b", "c"]}, index=[2, 0, 1])
    with pytest.raises(amr.UsageError, match="index=shard.index"):
        df.amr.map(lambda shard: pd.DataFrame({"n": [1, 2, 3]}))


@pytest.mark.parametrize("journal", [True, False])
def test_an_instruction_that_fails_for_a_row_fails_that_row_alone(tmp_path, journal):
    def ask(row):
        return f"Of {100 // int(row['n'])}."

    with ScriptedServer(lambda request: findings(request, lambda unit: {"m": 1})) as server:
        result = pd.DataFrame({"text": list("abc"), "n": [1, 0, 2]}).amr.map_reduce(
            map=amr.Agent(ask),
            finding={"m": int},
            reduce={"m": "sum"},
            columns="text",
            lm=server.lm(),
            journal=tmp_path / "j.sqlite" if journal else False,
        )
    assert result.frame["m"].isna().tolist() == [False, True, False]
    assert result.failures[["position", "who", "reason"]].to_numpy().tolist() == [
        [1, "callable", "its instruction raised ZeroDivisionError: integer division or modulo by zero"]
    ]
