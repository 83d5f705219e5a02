"""A person's findings in place of those found, reduced anew without a request; and where two results differ."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_validator

import pandas_amr as amr
from examples import examples
from pandas_amr.testing import ScriptedServer, Status, findings

Kind = Literal["strap", "lid", "other"]
KINDS = ("strap", "lid", "other")


class Bug(BaseModel):
    severity: int = Field(ge=0, le=1000)
    kind: Kind


class Item(BaseModel):
    part: str
    price: int


def n_of(unit: dict[str, Any]) -> int:
    """The number in a row's text."""
    return int(str(unit["text"]).split()[1])


def bug_of(n: int) -> dict[str, Any]:
    return {"severity": n, "kind": KINDS[n % 3]}


def found_of(unit: dict[str, Any]) -> dict[str, Any]:
    """What a model finds of a row, whatever is asked."""
    n = n_of(unit)
    items = [{"part": f"part {n}", "price": n + number} for number in range(n % 3)]
    return bug_of(n) | {
        "items": items,
        "n": n,
        "yes": n % 2 == 0,
        "note": f"note {n}",
        "amr_keep": True,
        "finding": f"tone {n}",
    }


def provider(request):
    """Find by the number of the row; a row with the word ``refused`` fails."""
    if request.schema == "reduction":
        lines = sorted(str(sorted(finding.items())) for finding in request.findings)
        return {"output": " | ".join(lines), "sources": [0]}
    if any("refused" in str(unit) for unit in request.units):
        return Status(400, "not this one")
    return findings(request, found_of)


@pytest.fixture(scope="module")
def server():
    with ScriptedServer(provider) as running:
        yield running


class Count:
    """How many requests a block sent."""

    sent = 0


@contextlib.contextmanager
def counted_requests(server: ScriptedServer) -> Iterator[Count]:
    """Count the requests that a block sends."""
    before, count = len(server.requests), Count()
    yield count
    count.sent = len(server.requests) - before


def rows(count: int = 6, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"row {n}" for n in range(count)], **columns})


def call(server: ScriptedServer, frame: pd.DataFrame, **options: Any) -> amr.Result:
    plan = options.pop("plan", {})
    defaults = {"map": "What is wrong?", "finding": Bug, "reduce": {"severity": ["sum", "max"], "kind": "value_counts"}}
    options = defaults | {"lm": server.lm(), "columns": ["text"], "plan": {"shard_size": 4} | plan} | options
    return frame.amr.map_reduce(**options)


def statuses(result: amr.Result) -> list[str]:
    assert result.status is not None
    return result.status["status"].tolist()


def assert_same(first: Any, second: Any) -> None:
    """Two answers are equal."""
    assert type(first) is type(second)
    if isinstance(first, pd.DataFrame):
        pd.testing.assert_frame_equal(first, second)
    elif isinstance(first, pd.Series):
        pd.testing.assert_series_equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert_same(value, second[name])
    else:
        assert first == second


# What is reduced equals pandas over the corrected findings

NUMBERS = st.lists(st.integers(0, 6), min_size=1, max_size=9)
BUGS = st.fixed_dictionaries({}, optional={"severity": st.integers(0, 1000), "kind": st.sampled_from(KINDS)})
CORRECTIONS = st.dictionaries(st.integers(0, 8), BUGS.filter(bool), max_size=6)
COMPUTED: dict[str, Any] = {
    "one": {"severity": "sum"},
    "many": {"severity": ["sum", "mean", "min", "max", "median"]},
    "counts": {"kind": "value_counts"},
    "a table and numbers": {"kind": "value_counts", "severity": "max"},
    "distinct": {"severity": "nunique", "kind": "nunique"},
}


def correct_by_hand(result: amr.Result, corrections: dict[int, dict[str, Any]]) -> pd.DataFrame:
    """The frame of a result, corrected by pandas: equal rows share a finding."""
    corrected = result.frame.copy()
    for field in ("severity", "kind"):
        values = corrected[field].tolist()
        for position, fields in corrections.items():
            for row, text in enumerate(corrected["text"]):
                if field in fields and text == corrected["text"].iloc[position]:
                    values[row] = fields[field]
        corrected[field] = pd.Series(values, index=corrected.index, dtype=corrected[field].dtype)
    return corrected


def usable(frame: pd.DataFrame, corrections: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The corrections of rows that are there, one for each text."""
    chosen: dict[str, tuple[int, dict[str, Any]]] = {}
    for position, fields in corrections.items():
        if position < len(frame):
            chosen.setdefault(frame["text"].iloc[position], (position, fields))
    return dict(chosen.values())


def compute_by_pandas(frame: pd.DataFrame, aggregations: dict[str, Any], by: str | None) -> dict[Any, Any]:
    """Each aggregate by plain pandas, by group, field and function; of a table each count."""
    groups = {None: frame} if by is None else dict(iter(frame.groupby(by)))
    computed: dict[Any, Any] = {}
    for group, part in groups.items():
        for field, functions in aggregations.items():
            for function in functions if isinstance(functions, list) else [functions]:
                value = getattr(part[field], function)()
                if isinstance(value, pd.Series):
                    computed |= {(group, field, kind): int(value.get(kind, 0)) for kind in KINDS}
                else:
                    computed[group, field, function] = value
    return computed


def read_answer(output: Any, aggregations: dict[str, Any], by: str | None) -> dict[Any, Any]:
    """The same of an answer, whatever its form."""
    lines: dict[Any, dict[str, Any]] = {None: {}}
    if by is not None:
        labels = ["_".join(one) if isinstance(one, tuple) else one for one in output.columns]
        lines = {group: dict(zip(labels, line, strict=True)) for group, *line in output.itertuples()}
    else:
        for field, functions in aggregations.items():
            part = output[field]
            if functions == "value_counts" or isinstance(functions, list):
                lines[None] |= {f"{field}_{name}": value for name, value in part.items()}
            else:
                lines[None][field] = part
    read: dict[Any, Any] = {}
    for group, line in lines.items():
        for field, functions in aggregations.items():
            if functions == "value_counts":
                read |= {(group, field, kind): int(line.get(f"{field}_{kind}", 0)) for kind in KINDS}
            elif isinstance(functions, list):
                read |= {(group, field, name): line[f"{field}_{name}"] for name in functions}
            else:
                read[group, field, functions] = line[field]
    return read


@settings(max_examples=examples(30), phases=(Phase.generate,))
@given(st.sampled_from(sorted(COMPUTED)), st.sampled_from([None, "shop"]), NUMBERS, CORRECTIONS)
def test_what_is_computed_equals_pandas_over_the_corrected_findings_and_no_request_is_sent(
    server, name, by, numbers, corrections
):
    frame = pd.DataFrame({"text": [f"row {n}" for n in numbers], "shop": [n % 2 for n in range(len(numbers))]})
    result = call(server, frame, reduce=COMPUTED[name], by=by)
    corrections = usable(frame, corrections)
    before = result.frame.copy()
    with counted_requests(server) as counted:
        corrected = result.override(corrections)
    assert counted.sent == 0
    by_hand = correct_by_hand(result, corrections)
    pd.testing.assert_frame_equal(corrected.frame, by_hand)
    pd.testing.assert_frame_equal(result.frame, before)
    wanted = compute_by_pandas(by_hand, COMPUTED[name], by)
    assert read_answer(corrected.output, COMPUTED[name], by) == pytest.approx(wanted)
    texts = {frame["text"].iloc[position] for position in corrections}
    assert statuses(corrected) == ["corrected" if text in texts else "ok" for text in frame["text"]]
    undone = corrected.override(dict.fromkeys(corrections))
    pd.testing.assert_frame_equal(undone.frame, result.frame)
    assert_same(undone.output, result.output)


def largest(found: pd.DataFrame) -> int:
    return int(found["severity"].max())


REDUCES: dict[str, dict[str, Any]] = {
    "a function": {"reduce": largest},
    "a function per group": {"reduce": largest, "by": "shop"},
    "the first ranked": {"reduce": None, "plan": {"ranking": {"field": "severity", "most": 3}}},
    "the first ranked per group": {
        "reduce": None,
        "plan": {"ranking": {"field": "severity", "most": 1}},
        "by": "shop",
    },
    "named": {"reduce": {"total": ("severity", "sum"), "worst": ("severity", "max")}},
    "a typed output": {"reduce": {"severity": "sum"}, "output": int},
    "rows that meet a condition": {
        "finding": {"severity": int, "yes": bool},
        "reduce": {"severity": "sum"},
        "plan": {"where": "yes"},
    },
    "maps by name": {
        "map": {"bug": "What is wrong?", "tone": "In which tone?"},
        "finding": {"bug": Bug, "tone": str},
        "reduce": {"bug_severity": ["sum", "max"], "tone": "nunique"},
        "by": "shop",
    },
}


def find_again(frame: pd.DataFrame, columns: dict[str, str]) -> Any:
    """A function that finds what stands in some columns of a frame; ``columns`` names their fields."""

    def find(shard: pd.DataFrame) -> list[dict[str, Any]]:
        return [{field: frame[column].iloc[row] for column, field in columns.items()} for row in shard["row"]]

    return find


def maps_that_find(frame: pd.DataFrame, result: amr.Result) -> Any:
    """Functions in place of a result's maps, which find what stands in a frame."""
    columns = result.findings.columns
    if "tone" not in columns:
        return find_again(frame, dict(zip(columns, columns, strict=True)))
    bug = {column: column.removeprefix("bug_") for column in columns if column.startswith("bug_")}
    return {"bug": find_again(frame, bug), "tone": find_again(frame, {"tone": "finding"})}


def fit(result: amr.Result, correction: dict[str, Any]) -> dict[str, Any]:
    """What a correction says of the fields that there are, under the names of the maps if they have some."""
    columns = result.findings.columns
    if "tone" in columns:
        return {"bug": correction, "tone": "so"}
    return {field: value for field, value in correction.items() if field in columns}


UNIQUE = st.lists(st.integers(0, 30), min_size=1, max_size=9, unique=True)


@settings(max_examples=examples(30), phases=(Phase.generate,))
@given(st.sampled_from(sorted(REDUCES)), st.booleans(), UNIQUE, CORRECTIONS)
def test_every_computed_answer_is_that_of_a_call_which_finds_the_corrected_findings(
    server, tmp_path_factory, name, is_loaded, numbers, corrections
):
    """The other call maps by functions, which know the corrected findings."""
    options = REDUCES[name]
    frame = pd.DataFrame({"text": [f"row {n}" for n in numbers], "shop": [n % 2 for n in range(len(numbers))]})
    result = call(server, frame, **options)
    if is_loaded and options["reduce"] is not largest:  # a function is not saved
        folder = tmp_path_factory.mktemp("saved")
        result.save(folder)
        result = amr.load(folder)
    fitting = {position: fit(result, one) for position, one in corrections.items() if position < len(frame)}
    fitting = {position: fields for position, fields in fitting.items() if fields}
    with counted_requests(server) as counted:
        corrected = result.override(fitting)
    assert counted.sent == 0
    for position, fields in fitting.items():
        for field, value in (fields.get("bug", fields) | {}).items():
            column = f"bug_{field}" if "bug" in fields else field
            assert corrected.frame[column].iloc[position] == value
    maps = maps_that_find(corrected.frame, corrected)
    other = call(server, frame.assign(row=range(len(frame))), **{**options, "map": maps, "columns": None}).output
    assert other is not None
    if isinstance(other, pd.DataFrame):
        other = other.drop(columns="row", errors="ignore")
    assert_same(corrected.output, other)


LISTS = st.dictionaries(st.integers(0, 5), st.lists(st.fixed_dictionaries({"price": st.integers(-5, 5)}), max_size=3))


@settings(max_examples=examples(20), phases=(Phase.generate,))
@given(LISTS)
def test_the_whole_list_of_a_row_is_replaced_and_reduced_as_its_records(server, lists):
    result = call(server, rows(6), finding=list[Item], reduce={"price": ["sum", "count"]})
    corrections = {row: [{"part": "x", **item} for item in items] for row, items in lists.items()}
    with counted_requests(server) as counted:
        corrected = result.override(corrections)
    assert counted.sent == 0
    prices: list[int] = []
    for row in range(6):
        found = [n + number for n in [row] for number in range(n % 3)]
        prices += [item["price"] for item in lists[row]] if row in lists else found
    assert corrected.findings["price"].tolist() == prices
    assert corrected.output["price"].tolist() == [sum(prices), len(prices)]
    assert corrected.frame["items_count"].sum() == len(prices)


# What a correction is


FAILED = pd.DataFrame({"text": ["row 1", "row 2 refused", None, "row 4"]}, index=list("abcd"))


def test_a_row_without_a_finding_takes_a_whole_one_and_fails_no_more(server):
    with pytest.warns(amr.FailureWarning, match="2 of 4 rows|3 of 4 rows"):
        result = call(server, FAILED, plan={"status": True})
    assert statuses(result) == ["ok", "failed", "empty", "ok"]
    corrected = result.override({"b": Bug(severity=20, kind="lid"), "c": {"severity": 30, "kind": "other"}})
    assert statuses(corrected) == ["ok", "corrected", "corrected", "ok"]
    assert corrected.frame["amr_status"].tolist() == statuses(corrected)
    assert corrected.status["reason"].dropna().unique().tolist() == ["a person corrected it"]
    assert not len(corrected.failures)
    assert corrected.frame["severity"].tolist() == [1, 20, 30, 4]
    with pytest.warns(amr.FailureWarning):
        undone = corrected.override({"b": None, "c": None})
    pd.testing.assert_frame_equal(undone.frame, result.frame)
    pd.testing.assert_frame_equal(undone.failures, result.failures)
    with counted_requests(server) as counted:
        corrected.retry()
    assert counted.sent == 0


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a value of another type": ({"a": {"severity": "high"}}, {}, r"row 'a': severity: .*valid integer"),
    "a value out of bounds": ({"a": {"severity": 1001}}, {}, r"severity: .*less than or equal to 1000"),
    "no choice": ({"a": {"kind": "zip"}}, {}, "kind: Input should be 'strap', 'lid' or 'other'"),
    "a missing value": ({"a": {"severity": None}}, {}, "severity: Input should be a valid integer"),
    "a mistyped field": ({"a": {"severty": 1}}, {}, r"no field 'severty' \(did you mean 'severity'\?\)"),
    "an unknown label": ({"z": {"severity": 1}}, {}, "no row has the label 'z'"),
    "a position for a label": ({0: {"severity": 1}}, {}, "no row has the label 0"),
    "a position beyond the rows": ({4: {"severity": 1}}, {"by": "position"}, "there are 4 rows, from 0 to 3"),
    "a label for a position": ({"a": {"severity": 1}}, {"by": "position"}, "a position is a whole number"),
    "part of a finding for a failed row": ({"b": {"severity": 1}}, {}, "it is failed .* all fields; .* without kind"),
    "part of a finding for an empty row": ({"c": {"severity": 1}}, {}, "it is empty .* all fields; .* without kind"),
    "a value in place of a dict": ({"a": 5}, {}, r"a dict of fields, such as \{'severity': \.\.\.\}, .* type int"),
    "no field": ({"a": {}}, {}, "it names no field"),
    "what JSON does not hold": ({"a": {"kind": object()}}, {}, "JSON has no form for a value of the type object"),
    "None for what is not corrected": ({"a": None}, {}, "it is not corrected"),
    "a list": ([{"severity": 1}], {}, "a dict by label, .* not a list"),
    "another by": ({}, {"by": "row"}, "by=...\\) takes 'label' or 'position', not 'row'"),
    "another reduce": ({}, {"reduce": "no"}, "reduce=...\\) takes True or False, not 'no'"),
    "a mistyped argument": ({}, {"reduces": False}, "Did you mean 'reduce'"),
    "two rows": ({"a": {"severity": -1}, "d": {"severity": "x"}}, {}, "row 'a': severity: .*; row 'd': severity: "),
    "a Series without a name": (pd.Series({"a": 1}), {}, "the name of a column of findings .severity, kind., not None"),
    "a frame with a mistyped column": (pd.DataFrame({"knd": ["lid"]}, ["a"]), {}, "column 'knd', .* mean 'kind'"),
    "a frame with a column twice": (
        pd.DataFrame([[1, 2]], ["a"], ["severity", "severity"]),
        {},
        "the column 'severity' twice",
    ),
    "a frame without findings": (FAILED, {}, "no column of findings .kind, severity."),
    "a frame whose index was lost": (
        pd.DataFrame({"Unnamed: 0": ["a"], "severity": [1]}),
        {},
        r"Read the file with them as the index: pd.read_csv\(path, index_col=0\)",
    ),
    "a frame of other rows": (
        pd.DataFrame({"text": ["row 4"], "severity": [7]}, ["a"]),
        {},
        "'text' of row 'a' is another one in the corrections",
    ),
}


@pytest.fixture(scope="module")
def failed(server):
    with pytest.warns(amr.FailureWarning):
        return call(server, FAILED)


@pytest.mark.parametrize("name", list(REFUSED))
def test_a_correction_that_does_not_fit_is_refused_with_what_would_be_right_and_nothing_changes(server, failed, name):
    wrong, options, said = REFUSED[name]
    before = failed.frame.copy()
    with counted_requests(server) as counted, pytest.raises(amr.UsageError, match=said):
        failed.override(wrong, **options)
    assert counted.sent == 0
    pd.testing.assert_frame_equal(failed.frame, before)
    assert "corrected" not in statuses(failed)


def test_no_correction_gives_an_equal_result(failed):
    for none in ({}, failed.frame, failed.review()):
        again = failed.override(none)
        assert again is not failed
        pd.testing.assert_frame_equal(again.frame, failed.frame)


class Whole(BaseModel):
    count: int
    ratio: float
    yes: bool
    day: dt.date
    at: dt.datetime
    price: Decimal
    tags: list[str]
    word: str
    kind: Kind
    note: str | None = None


WHOLE = {
    "count": 1,
    "ratio": 0.1,
    "yes": True,
    "day": "2026-01-31",
    "at": "2026-01-31T10:00:00",
    "price": "1.50",
    "tags": ["a", "b"],
    "word": "7",
    "kind": "lid",
    "note": None,
}
EDITS: dict[str, tuple[Any, Any]] = {  # what an analyst writes into a cell, and what is found then
    "count": (3.0, 3),
    "ratio": (1, 1.0),
    "yes": ("False", False),
    "day": ("2026-02-01", dt.date(2026, 2, 1)),
    "at": ("2026-02-01 12:00", dt.datetime(2026, 2, 1, 12)),
    "price": (2.25, Decimal("2.25")),
    "tags": ('["c"]', ["c"]),
    "word": (8, "8"),
    "kind": ("strap", "strap"),
    "note": ("new", "new"),
}


@pytest.fixture(scope="module")
def whole(server):
    with ScriptedServer(lambda request: findings(request, lambda unit: WHOLE)) as own:
        frame = rows(4).set_axis(list("wxyz"))
        return frame.amr.map_reduce(map="x", finding=Whole, reduce=len, lm=own.lm())


def test_a_file_that_nobody_edited_corrects_nothing_and_one_cell_corrects_its_row(whole, tmp_path):
    whole.frame.to_csv(tmp_path / "edited.csv")
    unedited = pd.read_csv(tmp_path / "edited.csv", index_col=0)
    assert statuses(whole.override(unedited)) == ["ok"] * 4
    for field, (written, found) in EDITS.items():
        edited = unedited.astype(object)
        edited.loc["y", field] = written
        edited.sample(frac=1, random_state=1).to_csv(tmp_path / "edited.csv")
        corrected = whole.override(pd.read_csv(tmp_path / "edited.csv", index_col=0))
        assert statuses(corrected) == ["ok", "ok", "corrected", "ok"], field
        value = corrected.frame[field].loc["y"]
        assert (list(value) if isinstance(found, list) else value) == found
        rest = [name for name in EDITS if name != field]
        pd.testing.assert_frame_equal(corrected.frame[rest], whole.frame[rest])


@pytest.mark.parametrize("typed", ["choices", "texts"])
@pytest.mark.parametrize(("yes", "no"), [("true", "false"), ("True", "False"), ("TRUE", "FALSE")])
def test_texts_that_a_file_makes_bools_are_not_edited_and_not_corrected(yes, no, typed, tmp_path):
    said = [yes, no, None, yes]
    flag = Literal[yes, no] if typed == "choices" else str
    with ScriptedServer(lambda r: findings(r, lambda unit: {"flag": said[unit["n"]], "kind": "lid"})) as server:
        result = pd.DataFrame({"n": range(4)}).amr.map_reduce(
            map="x", finding={"flag": flag | None, "kind": Kind}, reduce=len, lm=server.lm()
        )
    result.frame.to_csv(tmp_path / "edited.csv")
    edited = pd.read_csv(tmp_path / "edited.csv", index_col=0)
    assert edited["flag"].dropna().map(type).eq(bool).all()
    assert statuses(result.override(edited)) == ["ok"] * 4
    edited.loc[1, "kind"] = "strap"
    edited.loc[3, "flag"] = False
    corrected = result.override(edited)
    assert statuses(corrected) == ["ok", "corrected", "ok", "corrected"]
    assert corrected.frame["kind"].tolist() == ["lid", "strap", "lid", "lid"]
    assert corrected.frame["flag"].tolist()[:2] == [yes, no]
    assert corrected.frame["flag"].tolist()[3] == (no if typed == "choices" else "False")


def test_large_numbers_that_a_file_with_holes_makes_floats_are_not_edited_and_not_corrected(tmp_path):
    found = [2**60 + 1, None, 2**53 + 1]
    with ScriptedServer(lambda r: findings(r, lambda unit: {"id": found[unit["n"]]})) as server:
        result = pd.DataFrame({"n": range(3)}).amr.map_reduce(
            map="x", finding={"id": int | None}, reduce=len, lm=server.lm()
        )
    result.frame.to_csv(tmp_path / "edited.csv")
    edited = pd.read_csv(tmp_path / "edited.csv", index_col=0)
    assert edited["id"].dtype == float
    assert statuses(result.override(edited)) == ["ok"] * 3
    with pytest.raises(amr.UsageError, match="id: should be an integer with all its digits"):
        result.override(edited.replace({"id": {float(2**60): float(2**61)}}))
    assert result.override({0: {"id": 2**61 + 1}}).frame["id"].tolist() == [2**61 + 1, pd.NA, 2**53 + 1]


def test_a_series_or_the_frame_of_a_review_corrects_the_cells_that_are_there(failed):
    with pytest.warns(amr.FailureWarning):
        corrected = failed.override(pd.Series({"a": 9, "d": None}, name="severity"))
    assert statuses(corrected) == ["corrected", "failed", "empty", "ok"]
    review = failed.review()
    assert "b" in review.index
    review["severity"], review["kind"] = 5, "lid"
    assert statuses(failed.override(review))[1] == "corrected"


def test_edited_records_replace_the_lists_of_their_rows(server):
    result = call(server, rows(6), finding=list[Item], reduce={"price": "sum"})
    records = result.findings.assign(price=[100 if row == 2 else n for row, n in result.findings["price"].items()])
    corrected = result.override(records)
    assert statuses(corrected) == ["ok", "ok", "corrected", "ok", "ok", "ok"]
    assert corrected.findings.loc[2, "price"].tolist() == [100, 100]


LABELS: dict[str, tuple[pd.Index, Any]] = {
    "texts": (pd.Index(list("abcd")), "c"),
    "a level of days": (pd.date_range("2026-01-01", periods=4), pd.Timestamp("2026-01-03")),
    "days as texts": (pd.date_range("2026-01-01", periods=4), "2026-01-03"),
    "two levels": (pd.MultiIndex.from_tuples([("x", 1), ("x", 2), ("y", 1), ("y", 2)]), ("y", 1)),
    "numbers that are no positions": (pd.Index([3, 2, 0, 1]), 0),
    "floats": (pd.Index([0.5, 1.5, 2.5, 3.5]), 2.5),
    "one missing": (pd.Index(["a", "b", None, "d"], dtype=object), None),
}


@pytest.mark.parametrize("name", list(LABELS))
@pytest.mark.sampled(3)
def test_a_row_is_named_by_its_label_whatever_that_is(server, name):
    index, label = LABELS[name]
    result = call(server, rows(4).set_axis(index))
    corrected = result.override({label: {"severity": 50}})
    assert corrected.frame["severity"].tolist() == [0, 1, 50, 3]
    assert corrected.frame.index.equals(index)


def test_labels_that_are_doubled_or_have_levels_are_refused_with_the_way_to_name_one_row(server):
    doubled = call(server, rows(3).set_axis(["a", "a", "b"]))
    with pytest.raises(amr.UsageError, match=r'names 2 rows \(at 0, 1\): .* by="position"'):
        doubled.override({"a": {"severity": 5}})
    assert doubled.override({1: {"severity": 5}}, by="position").frame["severity"].tolist() == [0, 5, 2]
    assert doubled.override({"b": {"severity": 5}}).frame["severity"].tolist() == [0, 1, 5]
    levels = call(server, rows(2).set_axis(pd.MultiIndex.from_tuples([("x", 1), ("x", 2)])))
    with pytest.raises(amr.UsageError, match="a tuple of 2, not 'x'"):
        levels.override({"x": {"severity": 5}})


@pytest.mark.parametrize("options", [{}, {"plan": {"dedupe": False}}], ids=["asked once", "asked each"])
def test_rows_of_equal_content_are_corrected_together_and_alike(server, options, tmp_path):
    frame = pd.DataFrame({"text": ["row 1", "row 2", "row 1"]})
    result = call(server, frame, journal=tmp_path / "journal.sqlite", **options)
    corrected = result.override({0: {"severity": 7}})
    assert corrected.frame["severity"].tolist() == [7, 2, 7]
    assert statuses(corrected) == ["corrected", "ok", "corrected"]
    with pytest.raises(amr.UsageError, match="(same|equal) content.*correct them alike"):
        result.override({0: {"severity": 7}, 2: {"severity": 8}})


def test_rows_that_are_one_to_the_journal_and_two_to_a_reader_are_corrected_together_and_alike(server, tmp_path):
    frame = pd.DataFrame({"text": ["row 1", "row 1", "row 2"], "shelf": pd.Series([1, 1.0, 1], dtype=object)})
    options = {"journal": tmp_path / "journal.sqlite", "columns": ["text", "shelf"]}
    result = call(server, frame, **options)
    corrected = result.override({0: {"severity": 7}})
    again = call(server, frame, **options)
    assert corrected.frame["severity"].tolist() == again.frame["severity"].tolist()
    assert statuses(corrected) == statuses(again) == ["corrected", "corrected", "ok"]
    with pytest.raises(amr.UsageError, match="equal content.*correct them alike"):
        result.override({0: {"severity": 7}, 1: {"severity": 8}})


def test_maps_by_name_are_corrected_by_map_or_by_column(server):
    maps = {"map": {"bug": "?", "tone": "?", "parts": "?"}, "finding": {"bug": Bug, "tone": str, "parts": list[Item]}}
    result = call(server, rows(3), **maps, reduce={"bug_severity": "sum"})
    corrected = result.override({0: {"bug": {"severity": 9}, "tone": "so"}, 1: {"bug_kind": "lid", "parts": []}})
    assert corrected.frame["bug_severity"].tolist() == [9, 1, 2]
    assert corrected.frame["tone"].tolist() == ["so", "tone 1", "tone 2"]
    assert corrected.frame["parts_count"].tolist() == [0, 0, 2]
    assert int(corrected.output["bug_severity"]) == 12
    undone = corrected.override({0: {"bug": None}, 1: None})
    assert undone.frame["bug_severity"].tolist() == [0, 1, 2]
    assert undone.frame["tone"].tolist() == ["so", "tone 1", "tone 2"]
    for wrong, said in (
        ({0: {"bgu": {}}}, r"'bgu' is no map and no column of findings \(did you mean 'bug'"),
        ({0: "so"}, r"by the names of the maps \('bug', 'tone', 'parts'\)"),
        ({0: {"bug": {"severity": -1}}}, "severity: .*greater than or equal to 0"),
    ):
        with pytest.raises(amr.UsageError, match=said):
            result.override(wrong)


def test_maps_that_are_asked_the_same_are_corrected_together_and_alike(server, tmp_path):
    maps = {"map": {"a": "?", "b": "?"}, "finding": {"a": Bug, "b": Bug}, "reduce": len}
    result = call(server, rows(2), **maps, journal=tmp_path / "journal.sqlite")
    corrected = result.override({0: {"a": {"severity": 9}}})
    assert corrected.frame[["a_severity", "b_severity"]].iloc[0].tolist() == [9, 9]
    with pytest.raises(amr.UsageError, match="'a' and 'b' are asked the same, .*correct them alike"):
        result.override({0: {"a": {"severity": 9}, "b": {"severity": 8}}})


def test_columns_are_corrected_by_their_labels(server):
    with ScriptedServer(lambda request: findings(request, lambda unit: {"severity": 1, "kind": "lid"})) as own:
        result = call(own, rows(3, shop=list("xyx")), axis="columns", columns=None)
        corrected = result.override({"shop": {"severity": 5}})
        assert corrected.frame["severity"].to_dict() == {"text": 1, "shop": 5}


def test_an_answer_that_agents_wrote_is_asked_again_only_where_its_input_changed(server, tmp_path):
    tree = {"fan_in": 2, "shard_size": 2}
    options = {"journal": tmp_path / "journal.sqlite", "reduce": "Say it.", "plan": tree}
    result = call(server, rows(8), **options)
    with counted_requests(server) as counted:
        corrected = result.override({0: {"severity": 77}})
    assert counted.sent == 2  # of three nodes: one of the first level, and the last
    assert "77" in corrected.output
    assert corrected.total.calls == 2
    assert corrected.total.recalled == 1
    with counted_requests(server) as counted:
        unreduced = result.override({0: {"severity": 78}}, reduce=False)
    assert counted.sent == 0
    assert unreduced.output is None
    assert unreduced.frame["severity"].iloc[0] == 78


def test_a_correction_of_a_row_without_content_reaches_the_agents(server, tmp_path):
    frame = pd.DataFrame({"text": ["row 0", None, "row 2", "row 3"]})
    for plan in ({"fan_in": 2, "shard_size": 2}, {"reduce_budget": 4000}):
        options = {"journal": tmp_path / f"{len(plan)}.sqlite", "reduce": "Say it.", "plan": plan}
        corrected = call(server, frame, **options).override({1: {"severity": 88, "kind": "lid"}})
        assert "88" in corrected.output
        assert call(server, frame, **options).output == corrected.output


def test_what_a_person_wrote_is_redacted_before_agents_read_it(server, tmp_path):
    with amr.settings(redact=lambda text: text.replace("Jane", "[name]")):
        for plan in ({"fan_in": 2, "shard_size": 2}, {"reduce_budget": 4000}):
            result = call(server, rows(4), finding={"note": str}, reduce="Say it.", plan=plan)
            corrected = result.override({0: {"note": "Jane complains"}})
            assert corrected.frame["note"].iloc[0] == "Jane complains"
            assert "[name] complains" in corrected.output
    assert not any("Jane" in str(request.body) for request in server.requests)


# What is kept of it


def days(server: ScriptedServer, path: Path, frame: pd.DataFrame, **options: Any) -> amr.Result:
    return call(server, frame, journal=path, **options)


PLANS: dict[str, dict[str, Any]] = {
    "rows": {},
    "neighbours": {"plan": {"segmentation": "neighbours", "context_rows": 1}},
    "not deduped": {"plan": {"dedupe": False}},
    "maps by name": {"map": {"a": "1?", "b": "2?"}, "finding": {"a": Bug, "b": Bug}, "reduce": {"a_severity": "sum"}},
    "lists": {"finding": list[Item], "reduce": {"price": "sum"}},
}


@pytest.mark.parametrize("name", list(PLANS))
@pytest.mark.sampled(3)
def test_the_same_call_gives_the_correction_the_next_day_without_asking(server, tmp_path, name):
    options, path = PLANS[name], tmp_path / "journal.sqlite"
    result = days(server, path, rows(6), **options)
    new: Any = {"severity": 60}
    if name == "maps by name":
        new = {"a": new, "b": {"kind": "lid"}}
    if name == "lists":
        new = [{"part": "x", "price": 60}]
    corrected = result.override({4: new})
    with counted_requests(server) as counted:
        again = days(server, path, rows(6), **options)
    assert counted.sent == 0
    pd.testing.assert_frame_equal(again.frame, corrected.frame)
    assert_same(again.output, corrected.output)
    assert statuses(again) == ["ok", "ok", "ok", "ok", "corrected", "ok"]
    assert again.status["from_journal"].all()
    with counted_requests(server) as counted:
        undone = again.override({4: None})
        plain = days(server, path, rows(6), **options)
    assert counted.sent == 0
    for one in (undone, plain):
        pd.testing.assert_frame_equal(one.frame, result.frame)
        assert statuses(one) == ["ok"] * 6


def test_a_correction_of_a_failed_or_empty_row_is_kept_too_and_one_taken_back_is_open_again(server, tmp_path):
    path = tmp_path / "journal.sqlite"
    with pytest.warns(amr.FailureWarning):
        result = days(server, path, FAILED)
    bug = {"severity": 5, "kind": "lid"}
    result.override({"b": bug, "c": bug})
    with counted_requests(server) as counted:
        again = days(server, path, FAILED)
        undone = again.override({"b": None, "c": None})
    assert counted.sent == 0
    assert statuses(again) == ["ok", "corrected", "corrected", "ok"]
    assert statuses(undone) == ["ok", "skipped", "empty", "ok"]
    assert undone.status["reason"].iloc[1].startswith("its correction was taken back")
    with pytest.warns(amr.FailureWarning), counted_requests(server) as counted:
        assert statuses(undone.retry())[1] == "failed"
    assert counted.sent


def test_a_correction_outlives_a_refresh_and_pruning_and_a_failed_row_is_not_remembered(server, tmp_path):
    path = tmp_path / "journal.sqlite"
    days(server, path, rows(3)).override({1: {"severity": 50}})
    journal = amr.Journal(path)
    assert repr(journal) == "<Journal journal.sqlite, 3 answers, 1 corrections>"
    assert (len(journal), journal.corrections) == (3, 1)
    refreshed = days(server, amr.Journal(path, refresh=True), rows(3))
    assert refreshed.frame["severity"].tolist() == [0, 50, 2]
    assert journal.prune(older_than=0) == 3
    assert (len(journal), journal.corrections) == (0, 1)
    with counted_requests(server) as counted:
        again = days(server, path, rows(3))
    assert counted.sent == 1
    assert again.frame["severity"].tolist() == [0, 50, 2]
    assert journal.prune(older_than=0, corrections=True) == 3
    assert days(server, path, rows(3)).frame["severity"].tolist() == [0, 1, 2]
    assert journal.verify() == []


def test_answers_of_a_corrected_run_are_those_of_the_last_run_to_a_pruning(server, tmp_path):
    path = tmp_path / "journal.sqlite"
    options = {"reduce": "Say it.", "plan": {"fan_in": 2, "shard_size": 2}}
    days(server, path, rows(8), **options).override({1: {"severity": 50}})
    journal = amr.Journal(path)
    assert journal.prune(keep=1) == 0
    assert len(journal) == 8 + 3 + 2


@pytest.mark.parametrize("reduce", [{"severity": "sum"}, "Say it."], ids=["computed", "written"])
def test_a_confirmation_is_asked_for_only_if_something_may_be_paid(server, reduce):
    asked: list[amr.Estimate] = []

    def confirm(estimate: amr.Estimate) -> bool:
        asked.append(estimate)
        return True

    result = call(server, rows(2), reduce=reduce, budget=amr.Budget(confirm=confirm))
    result.override({0: {"severity": 9}})
    assert len(asked) == (1 if isinstance(reduce, dict) else 2)


def test_a_frame_whose_columns_have_levels_is_corrected_and_compared_too(server, tmp_path):
    frame = pd.DataFrame({("in", "text"): ["row 0", "row 1"], ("in", "shop"): ["x", "y"]})
    script = {"severity": 1, "kind": "lid"}
    with ScriptedServer(lambda request: findings(request, lambda unit: script)) as own:
        result = call(own, frame, columns=None)
    edited = result.frame.copy()
    edited["severity"] = [1, 5]
    for corrections in ({1: {"severity": 5}}, edited):
        corrected = result.override(corrections)
        assert corrected.frame["severity"].tolist() == [1, 5]
        assert differing(result.diff(corrected)) == {1: "severity"}
    result.save(tmp_path)
    pd.testing.assert_frame_equal(amr.load(tmp_path).override({1: {"severity": 5}}).frame, corrected.frame)


def test_an_export_says_what_a_person_said_and_when_and_the_runs_that_it_was_a_correction(server, tmp_path):
    path = tmp_path / "journal.sqlite"
    days(server, path, rows(3)).override({1: {"severity": 50}})
    journal = amr.Journal(path)
    [entry] = journal.export().query("kind == 'correction'").to_dict("records")
    assert entry["value"] == '{"finding":{"severity":50,"kind":"lid"},"fields":["severity"]}'
    assert json.loads(entry["about"])["instruction"] == "What is wrong?"
    assert journal.runs().loc[entry["run"], "verb"] == "override"
    assert journal.runs().loc[entry["run"], "calls"] == 0
    assert journal.runs().loc[entry["run"], "began"] <= entry["made"]


SECRET = "Jane Doe"


def content_of(path: Path) -> bytes:
    return b"".join(part.read_bytes() for part in sorted(path.parent.iterdir()))


@pytest.mark.parametrize("way", ["row", "text", "kind", "key", "stage"])
def test_what_is_forgotten_of_a_row_is_its_correction_too(server, tmp_path, way):
    path = tmp_path / "folder" / "journal.sqlite"
    frame = pd.DataFrame({"text": ["row 0", f"row 1 of {SECRET}"]})
    if way == "stage":  # whose rows are made of the user's
        recipe = amr.Recipe().map("?", finding={"note": str}).map("?", finding={"n": int})
        result = recipe(frame, lm=server.lm(), journal=path)
        result.stages[1].override({1: {"n": 99_999}})
    else:
        days(server, path, frame, finding={"note": str}, reduce=len).override({1: {"note": f"99999 {SECRET}"}})
    journal = amr.Journal(path)
    assert journal.corrections == 1
    assert b"99999" in content_of(path)
    if way == "row":
        forgotten = journal.forget(frame.iloc[[1]])
    elif way == "stage":
        with pytest.warns(amr.JournalWarning, match="a part of the columns only, such as 'note'"):
            forgotten = journal.forget(frame.iloc[[1]])
    elif way == "text":
        forgotten = journal.forget(where={"text": SECRET})
    else:
        [key] = journal.export().query("kind == 'correction'")["key"]
        forgotten = journal.forget(where={"kind": "correction"} if way == "kind" else {"key": key})
        assert forgotten.findings == 0
    assert forgotten.corrections == 1
    assert journal.corrections == 0
    assert b"99999" not in content_of(path)


@pytest.mark.long  # four processes
def test_the_command_line_counts_corrections_leaves_them_at_pruning_and_takes_them_back(server, tmp_path):
    path = tmp_path / "journal.sqlite"
    days(server, path, rows(3)).override({1: {"severity": 50}})

    def run(*arguments: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "pandas_amr", "journal", *arguments, "--journal", str(path)]
        return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)

    assert (run("ls")["answers"], run("ls")["corrections"]) == (3, 1)
    assert run("prune", "--keep", "0")["deleted"] == 3
    assert run("forget", "--kind", "correction")["corrections"] == 1
    assert run("ls")["corrections"] == 0


def test_the_file_keeps_its_format_so_that_a_journal_from_before_is_read(server, tmp_path):
    path = tmp_path / "journal.sqlite"
    result = days(server, path, rows(3))
    database = sqlite3.connect(path)
    before = database.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
    result.override({1: {"severity": 50}})
    assert database.execute("PRAGMA user_version").fetchone() == (2,)
    assert database.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall() == before
    database.execute("UPDATE entries SET value = '{}' WHERE kind = 'correction'")
    database.commit()
    database.close()
    assert days(server, path, rows(3)).frame["severity"].tolist() == [0, 1, 2]


class Grown(BaseModel):
    severity: int

    @field_validator("severity")
    @classmethod
    def grow(cls, value: int) -> int:
        return value + 1


def test_what_the_journal_cannot_give_back_as_it_is_stays_in_the_result_and_is_told(server, tmp_path):
    result = days(server, tmp_path / "journal.sqlite", rows(2), finding=Grown, reduce={"severity": "sum"})
    assert result.frame["severity"].tolist() == [1, 2]
    corrected = result.override({0: {"severity": 10}})
    assert corrected.frame["severity"].tolist() == [11, 2]
    again = days(server, tmp_path / "journal.sqlite", rows(2), finding=Grown, reduce={"severity": "sum"})
    assert again.frame["severity"].tolist() == [11, 2]

    def find(shard: pd.DataFrame) -> list[dict[str, Any]]:
        return [{"severity": 1}] * len(shard)

    by_function = rows(2).amr.map_reduce(map=find, finding={"severity": int}, reduce=len, journal=tmp_path / "f.sqlite")
    with pytest.warns(amr.JournalWarning, match="in this result only"):
        assert by_function.override({0: {"severity": 3}}).frame["severity"].tolist() == [3, 1]


# Everywhere else


def test_a_verification_a_score_and_a_review_take_a_corrected_finding_as_it_is(server):
    corrected = call(server, rows(4)).override({0: {"severity": 500}})
    assert corrected.verify(share=1.0).disagreements["position"].tolist() == [0]
    assert corrected.retry().frame["severity"].iloc[0] == 500
    assert corrected.score({"severity": [500, 1, 2, 3]}).accuracy["severity"] == 1.0
    assert 0 not in corrected.review().index
    assert repr(corrected) == "<Result 4 of 4 rows, 0 calls, 1 corrected>"
    assert corrected.records.iloc[0] == Bug(severity=500, kind="strap")


@pytest.mark.parametrize("stored", ["saved", "pickled"])
def test_a_result_without_its_run_is_corrected_as_far_as_pandas_alone_computes(server, tmp_path, stored):
    def store(result: amr.Result) -> amr.Result:
        if stored == "pickled":
            return pickle.loads(pickle.dumps(result))
        result.save(tmp_path)
        return amr.load(tmp_path)

    with pytest.warns(amr.FailureWarning):
        result = call(server, FAILED, plan={"status": True}).override({"a": {"severity": 10}})
    bug = {"severity": 5, "kind": "lid"}
    whole, again = result.override({"b": bug, "d": bug}), store(result).override({"b": bug, "d": bug})
    pd.testing.assert_frame_equal(again.frame, whole.frame)
    pd.testing.assert_frame_equal(again.findings, whole.findings)
    pd.testing.assert_frame_equal(again.failures, whole.failures)
    assert_same(again.output, whole.output)
    assert statuses(again) == statuses(whole) == ["corrected", "corrected", "empty", "corrected"]
    with pytest.raises(amr.UsageError, match="does not know what was found before"):
        store(result).override({"a": None})
    assert store(again).override({"c": bug}).frame["severity"].tolist() == [10, 5, 5, 5]
    written = store(call(server, rows(2), reduce="Say it."))
    with pytest.raises(amr.UsageError, match="agents wrote it.*reduce=False"):
        written.override({0: bug})
    assert written.override({0: bug}, reduce=False).output is None
    mapped = amr.result_of(rows(2).amr.map("?", finding=Bug, lm=server.lm()))
    assert store(mapped).override({0: bug}).frame["severity"].tolist() == [5, 1]


def test_what_cannot_be_corrected_says_so(server, tmp_path):
    def find(shard: pd.DataFrame) -> list[dict[str, Any]]:
        return [{"n": 1}] * len(shard)

    with pytest.raises(amr.UsageError, match=r"Give the type in the call: finding=Model"):
        rows(2).amr.map_reduce(map=find, reduce=len).override({0: {"n": 1}})
    with pytest.raises(amr.UsageError, match="nothing was mapped"):
        call(server, rows(2), reduce="Say it.", plan={"direct": True}).override({0: {"n": 1}})
    recipe = amr.Recipe().map("?", finding={"n": int}).filter("?")
    result = recipe(rows(4), lm=server.lm(), journal=tmp_path / "journal.sqlite")
    with pytest.raises(amr.UsageError, match=r"result\.stages\[i\]\.override\(\.\.\.\), i from 0 to 1"):
        result.override({0: {"n": 1}})
    result.stages[0].override({0: {"n": 60}})
    again = recipe(rows(4), lm=server.lm(), journal=tmp_path / "journal.sqlite")
    assert again.frame["n"].tolist()[0] == 60
    rows(2).to_parquet(tmp_path / "in.parquet")
    out = amr.map(tmp_path / "in.parquet", "?", finding=Bug, lm=server.lm(), out=tmp_path / "out")
    for refused in (lambda: amr.result_of(out).override({0: {}}), lambda: amr.result_of(out).diff(result)):
        with pytest.raises(amr.UsageError, match="A result with out= has no"):
            refused()


def test_a_result_that_stopped_early_is_corrected_and_goes_on_later(server):
    stopped = call(server, rows(4), plan={"shard_size": 1, "parallelism": 1}, budget=amr.Budget(calls=2))
    corrected = stopped.override({0: {"severity": 70}})
    assert corrected.stopped == stopped.stopped
    assert corrected.output is None
    assert statuses(corrected)[0] == "corrected"
    assert "skipped" in statuses(corrected)


# Where two results differ


def differing(frame: pd.DataFrame) -> dict[Any, str]:
    return dict(zip(frame.index, frame["amr_differs"], strict=True))


def test_a_diff_gives_the_rows_that_differ_with_both_findings(server):
    first = call(server, rows(5))
    second = first.override({1: {"severity": 100}, 3: {"severity": 4, "kind": "lid"}})
    found = first.diff(second)
    assert differing(found) == {1: "severity", 3: "severity, kind"}
    assert found.columns.tolist() == [
        ("amr_differs", ""),
        ("amr_status", "self"),
        ("amr_status", "other"),
        ("severity", "self"),
        ("severity", "other"),
        ("kind", "self"),
        ("kind", "other"),
    ]
    assert found["severity"].to_numpy().tolist() == [[1, 100], [3, 4]]
    assert found["amr_status", "other"].tolist() == ["corrected", "corrected"]
    assert found.dtypes["severity", "self"] == first.frame["severity"].dtype
    summary = found.attrs["amr_diff"]
    assert (summary["rows"], summary["differ"], summary["other_content"]) == (5, 2, 0)
    assert summary["fields"] == {"severity": {"differ": 2, "of": 5}, "kind": {"differ": 1, "of": 5}}
    assert differing(first.diff(second, tolerance=0.3)) == {1: "severity", 3: "kind"}
    assert not len(first.diff(first))


def test_a_diff_says_which_of_two_failed_and_which_rows_only_one_has(server, tmp_path):
    with pytest.warns(amr.FailureWarning):
        first = call(server, FAILED)
    second = call(server, pd.DataFrame({"text": ["row 1", "row 2", "row 9", "row 5"]}, index=list("abde")))
    for one in (first, second):
        one.save(tmp_path / str(len(one.failures)))
    found = amr.load(tmp_path / "1").diff(amr.load(tmp_path / "0"))
    assert differing(found) == {"b": "status", "c": "only in self", "d": "severity, kind", "e": "only in other"}
    assert found["amr_status"].fillna("-").to_numpy().tolist() == [
        ["failed", "ok"],
        ["empty", "-"],
        ["ok", "ok"],
        ["-", "ok"],
    ]
    summary = found.attrs["amr_diff"]
    assert (summary["only_self"], summary["only_other"], summary["other_content"]) == (["c"], ["e"], 2)


def test_a_diff_compares_lists_as_their_records_and_fields_that_both_have(server):
    first = call(server, rows(4), finding=list[Item], reduce={"price": "sum"})
    second = first.override({2: list(reversed([{"part": "part 2", "price": 2}, {"part": "part 2", "price": 3}]))})
    assert not len(first.diff(second))
    third = first.override({2: [{"part": "part 2", "price": 2.0}, {"part": "part 2", "price": 4}]})
    assert differing(first.diff(third)) == {2: "items"}
    assert not len(first.diff(third, tolerance=0.3))
    more = call(server, rows(4), finding={"severity": int, "note": str}, reduce=len)
    summary = call(server, rows(4)).diff(more).attrs["amr_diff"]
    assert (summary["fields_only_self"], summary["fields_only_other"]) == (["kind"], ["note"])
    named = {"map": {"a": "?", "b": "?"}, "finding": {"a": Bug, "b": Bug}, "reduce": len}
    both = call(server, rows(4), **named)
    assert differing(both.diff(both.override({0: {"b": {"severity": 9}}}))) == {0: "b_severity"}


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (int, 1_234_567_890_123, 1_234_567_890_124),
        (int, 2**60, 2**60 + 1),
        (list[int], [2**60], [2**60 + 1]),
        (Decimal, "12345678901.01", "12345678901.02"),
        (float, 12345678901.01, 12345678901.02),
        (float, 0.0, 1e-9),
    ],
)
def test_numbers_that_differ_in_their_last_digit_differ_unless_a_tolerance_is_given(kind, one, other):
    results = []
    for value in (one, other):
        with ScriptedServer(lambda r, value=value: findings(r, lambda unit: {"x": value})) as server:
            results.append(
                rows(1).amr.map_reduce(map="x", finding={"x": kind}, reduce=len, lm=server.lm(), journal=False)
            )
    first, second = results
    assert differing(first.diff(second)) == {0: "x"}
    assert differing(first.diff(first)) == {}
    if one:
        assert differing(first.diff(second, tolerance=0.01)) == {}
    label = second.frame["x"].iloc[0]
    assert first.score({"x": [label]}).fields["right"].to_dict() == {"x": 0}
    assert second.score({"x": [label]}).fields["right"].to_dict() == {"x": 1}


def test_a_diff_that_cannot_be_made_says_why(server):
    first = call(server, rows(3))
    doubled = call(server, rows(3).set_axis(["a", "a", "b"]))
    assert not len(doubled.diff(doubled))
    for other, said in (
        (doubled, "the other one has labels twice"),
        (first.frame, r"another Result, not a DataFrame; amr.result_of\(frame\)"),
        (call(server, rows(3), finding={"note": str}, reduce=len), "no field in common: this one has severity, kind"),
    ):
        with pytest.raises(amr.UsageError, match=said):
            first.diff(other)
    with pytest.raises(amr.UsageError, match="a share from 0, not -1"):
        first.diff(first, tolerance=-1)


def test_a_diff_of_no_rows_and_of_numpy_columns_is_a_frame(server):
    empty = call(server, rows(0))
    assert empty.diff(empty).empty
    assert np.isfinite(call(server, rows(2)).diff(call(server, rows(3))).attrs["amr_diff"]["rows"])
