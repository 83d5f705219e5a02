"""Units hold any cell that pandas can, and are cut where they are too large."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import itertools
import json
import re
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

import pandas_amr as amr
from examples import examples
from pandas_amr._records.tokens import counter_for
from pandas_amr._units.cells import cell, make_json_keys, to_json_line
from pandas_amr._units.profile import profile_columns
from pandas_amr._units.split import split_record, split_text
from pandas_amr._units.units import make_units
from pandas_amr.models.base import Abilities
from pandas_amr.testing import ScriptedServer, Status, findings


class Color(enum.Enum):
    RED = "red"


CELLS = {
    "None": (None, None),
    "nan": (float("nan"), None),
    "NaT": (pd.NaT, None),
    "NA": (pd.NA, None),
    "infinity": (float("inf"), "inf"),
    "empty text": ("", ""),
    "surrogates": ("\ud800x", "\ud800x"),
    "NULs": ("a\x00b", "a\x00b"),
    "line separators": ("a\u2028b\x85c", "a\u2028b\x85c"),
    "nested": ({"a": [1, {"b": (2, pd.NA)}]}, {"a": [1, {"b": [2, None]}]}),
    "set": ({"b", "a"}, ["a", "b"]),
    "timedelta": (pd.Timedelta("1D 2h"), "P1DT2H0M0S"),
    "python timedelta": (dt.timedelta(minutes=1), "P0DT0H1M0S"),
    "longest timedelta": (dt.timedelta.max, "P999999999DT23H59M59.999999S"),
    "timestamp": (pd.Timestamp("2026-01-02", tz="UTC"), "2026-01-02T00:00:00+00:00"),
    "date": (dt.date(2026, 1, 2), "2026-01-02"),
    "time": (dt.time(1, 2), "01:02:00"),
    "decimal": (decimal.Decimal("1.10"), "1.10"),
    "decimal nan": (decimal.Decimal("nan"), None),
    "bytes": (b"abc", "abc"),
    "raw bytes": (b"\xff\x00", "base64:/wA="),
    "enum": (Color.RED, "red"),
    "numpy": (np.float32(0.5), 0.5),
    "numpy nan": (np.float64("nan"), None),
    "numpy date": (np.datetime64("2026-01-02"), "2026-01-02"),
    "array": (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    "complex": (1 + 2j, "(1+2j)"),
    "period": (pd.Period("2026-01"), "2026-01"),
    "interval": (pd.Interval(0, 1), "(0, 1]"),
    "numpy nanoseconds": (np.datetime64("2026-01-02T03:04:05.000000006"), "2026-01-02T03:04:05.000000006"),
    "numpy date of another age": (np.datetime64("20000-01-01", "us"), "20000-01-01T00:00:00"),
    "numpy duration": (np.timedelta64(5, "ns"), "P0DT0H0M0.000000005S"),
    "numpy months": (np.timedelta64(3, "M"), "3 months"),
    "numpy no time": (np.timedelta64("NaT", "ns"), None),
    "array of times": (np.array([["2026-01-02"], ["NaT"]], "datetime64[ns]"), [["2026-01-02T00:00:00"], [None]]),
    "array of one time": (np.array("2026-01-02", "datetime64[ns]"), "2026-01-02T00:00:00"),
    "array without a dimension": (np.array(5), 5),
    "masked array": (np.ma.array([1, 2], mask=[False, True]), [1, None]),
    "masked": (np.ma.masked, None),
    "long float": (np.longdouble(1.5), 1.5),
    "long complex": (np.clongdouble(1 + 2j), "(1+2j)"),
    "array of pandas": (pd.array([*range(200), None], dtype="Int64"), [*range(200), None]),
    "array of Arrow": (pa.chunked_array([[2**53 + 1], [None]]), [2**53 + 1, None]),
    "series": (pd.Series([1, 2]), [1, 2]),
    "series with labels": (pd.Series([1, 2], index=["a", "b"]), {"a": 1, "b": 2}),
    "frame": (pd.DataFrame({"a": range(100)}), "".join([",a\n", *(f"{n},{n}\n" for n in range(100))])),
    "an object": (slice(1, 2), "slice(1, 2, None)"),
    "a large number": (10**30, 10**30),
    "1 MB": ("x" * 2**20, "x" * 2**20),
}


@pytest.mark.parametrize(("value", "expected"), CELLS.values(), ids=CELLS.keys())
def test_a_cell_of_any_kind_is_one_line_of_json_that_says_what_it_holds(value, expected):
    line = to_json_line({"cell": cell(value)})
    assert json.loads(line) == {"cell": expected}
    assert len(line.splitlines()) == 1
    line.encode()


def test_a_frame_of_oddities_is_read_and_answered_row_by_row():
    values = [value for name, (value, _) in CELLS.items() if name != "1 MB"]
    df = pd.DataFrame({"odd": pd.Series(values, dtype=object), "id": range(len(values))})
    with ScriptedServer(lambda r: findings(r, lambda u: {"n": u["id"]})) as server:
        found = df.amr.map("Which?", finding={"n": int}, lm=server.lm())
    assert found["n"].tolist() == list(range(len(values)))
    assert found["odd"].tolist()[5:9] == values[5:9]


@pytest.mark.parametrize(
    "column",
    [
        pd.Categorical(["a", None, "b"]),
        pd.array([1, None, 3], dtype="Int64"),
        pd.array([True, None, False], dtype="boolean"),
        pd.array([pd.Timestamp("2026-01-01"), pd.NaT, pd.Timestamp("2026-01-02")]),
        pd.arrays.SparseArray([0, 0, 1]),
        pd.array(["x", None, "y"], dtype="string"),
        pd.arrays.IntervalArray.from_breaks([0, 1, 2, 3]),
        pd.period_range("2026-01", periods=3, freq="M").array,
    ],
    ids=lambda column: str(column.dtype),
)
def test_columns_of_every_dtype_are_read_and_kept(column):
    df = pd.DataFrame({"odd": column})
    with ScriptedServer(lambda r: findings(r, lambda u: {"seen": json.dumps(u["odd"])})) as server:
        found = df.amr.map("What?", finding={"seen": str}, lm=server.lm(), plan={"on_empty": "ask"})
    assert [json.loads(text) for text in found["seen"]] == [cell(value) for value in df["odd"].tolist()]
    pd.testing.assert_frame_equal(found[["odd"]], df)


EVERY_DTYPE = {
    "objects": pd.Series([value for name, (value, _) in CELLS.items() if name != "1 MB"][:3], dtype=object),
    "int8": np.array([1, 2, -3], dtype="int8"),
    "uint64": np.array([1, 2, 2**64 - 1], dtype="uint64"),
    "float32": np.array([0.1, np.nan, np.inf], dtype="float32"),
    "float64": np.array([0.1, np.nan, 1e300]),
    "bool": np.array([True, False, True]),
    "complex": np.array([1j, 2, 3]),
    "datetime": pd.to_datetime(["2026-01-01 01:02:03.000000004", None, "2026-01-02 00:00:00.000000000"]),
    "datetime of seconds": pd.Series(["2026-01-01", None, "2026-01-02"], dtype="datetime64[s]"),
    "datetime of a zone": pd.to_datetime(["2026-01-01", None, "2026-01-02"]).tz_localize("Europe/Berlin"),
    "timedelta": pd.to_timedelta(["1D", None, "00:00:01.5"]),
    "category": pd.Categorical(["a", None, "b"]),
    "category of numbers": pd.Categorical([1, None, 3]),
    "Int64": pd.array([1, None, 3], dtype="Int64"),
    "Float32": pd.array([0.1, None, 3], dtype="Float32"),
    "boolean": pd.array([True, None, False], dtype="boolean"),
    "string": pd.array(["x", None, "y"], dtype="string"),
    "sparse": pd.arrays.SparseArray([0, 0, 1]),
    "interval": pd.arrays.IntervalArray.from_breaks([0, 1, 2, 3]),
    "period": pd.period_range("2026-01", periods=3, freq="M"),
    **{
        f"arrow {kind}": pd.array(pa.array(values, kind), dtype=pd.ArrowDtype(kind))
        for kind, values in (
            (pa.string(), ["x", None, "y"]),
            (pa.large_string(), ["x", None, "y"]),
            (pa.int16(), [1, None, 3]),
            (pa.float64(), [0.5, None, 2.0]),
            (pa.bool_(), [True, None, False]),
            (pa.timestamp("us"), [pd.Timestamp(2026, 1, 1, 2, 3, 4, 5), None, pd.Timestamp(2026, 1, 2)]),
            (pa.timestamp("ns", tz="UTC"), [dt.datetime(2026, 1, 1, tzinfo=dt.UTC), None, None]),
            (pa.date32(), [dt.date(2026, 1, 1), None, dt.date(2026, 1, 2)]),
            (pa.time64("us"), [dt.time(1, 2, 3), None, dt.time(0)]),
            (pa.duration("us"), [dt.timedelta(days=1, microseconds=5), None, dt.timedelta(0)]),
            (pa.decimal128(10, 2), [decimal.Decimal("1.10"), None, decimal.Decimal("2.00")]),
            (pa.binary(), [b"a", None, b"\xff"]),
            (pa.list_(pa.int64()), [[1, None], None, []]),
            (
                pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]),
                [{"a": 1, "b": ["x"]}, None, {"a": None, "b": None}],
            ),
            (pa.map_(pa.string(), pa.int64()), [[("k", 1)], None, []]),
            (pa.dictionary(pa.int32(), pa.string()), ["x", None, "x"]),
        )
    },
}


@pytest.mark.parametrize("column", EVERY_DTYPE.values(), ids=EVERY_DTYPE.keys())
def test_a_row_reads_the_same_alone_and_among_many(column):
    """A few rows are read cell by cell, many by columns: the lines, and so the fingerprints, are the same."""
    few = pd.DataFrame({"odd": column, "n": range(3)})
    many = few.iloc[np.tile(np.arange(3), 50)].reset_index(drop=True)
    units = make_units(many, (0, 1), dedupe=False)
    assert units.lines(range(3)) == units.lines(range(150))[:3]
    assert units.fingerprints(range(3)) == units.fingerprints(range(150))[:3]


@pytest.mark.parametrize(
    "name", ["unit", "amr", "findings", "finding", "part", "rows", "output", "sources", "items", ""]
)
def test_a_column_may_be_called_anything(name):
    df = pd.DataFrame({name: ["row 0", "row 1"], "other": [1, 2]})
    key = make_json_keys([name])[0]
    with ScriptedServer(lambda r: findings(r, lambda u: {"n": int(u[key].split()[1])})) as server:
        found = df.amr.map("Which?", finding={"n": int}, lm=server.lm())
        assert [unit["unit"] for unit in server.requests[0].units] == [0, 1]
    assert found["n"].tolist() == [0, 1]
    assert list(found.columns) == [name, "other", "n"]


def test_equal_content_is_one_unit_and_unequal_content_is_not():
    df = pd.DataFrame({"a": [1, 1, "1", 1.0, None, float("nan"), "", True]}, dtype=object)
    units = make_units(df, (0,))
    assert units.answered_by.tolist() == [0, 0, 1, 2, 3, 3, 4, 5]
    assert units.answered(0).tolist() == [0, 1]
    assert repr(units) == "<Units 8 rows, 6 asked, 0 tokens>"


TEXT = st.text(st.sampled_from("ab .!?\n\u3002\u00e9\U0001f600"), max_size=300)


@settings(max_examples=examples(200), deadline=None)
@given(text=TEXT, limit=st.integers(1, 40), overlap=st.integers(0, 10))
def test_pieces_of_any_text_are_within_the_limit_and_lose_nothing(text, limit, overlap):
    spans = split_text(text, limit=limit, overlap=min(overlap, limit - 1), count=len)
    assert "".join(text[span.fresh : span.end] for span in spans) == text
    assert all(len(text[span.start : span.end]) <= limit for span in spans)
    assert all(span.start <= span.fresh <= span.end for span in spans)


@settings(max_examples=examples(200), deadline=None)
@given(text=TEXT, limit=st.integers(12, 60), overlap=st.integers(1, 11))
def test_a_piece_repeats_as_many_whole_words_as_may_be(text, limit, overlap):
    for span in split_text(text, limit=limit, overlap=overlap, count=len):
        assert span.fresh - span.start <= overlap
        word = re.search(r"\S+\s*$", text[: span.start])
        assert word is None or span.fresh - word.start() > overlap


def test_to_find_what_a_piece_repeats_takes_no_longer_than_to_cut_it():
    """After each word all of them were counted again: a cell of a megabyte held up its run for seconds."""
    counted = {}
    for overlap in (0, 200):
        counted[overlap] = 0

        def words(part: str, overlap: int = overlap) -> int:
            counted[overlap] += len(part)
            return len(part.split())

        split_text("word " * 20_000, limit=1_000 + overlap, overlap=overlap, count=words)
    assert counted[200] < 2 * counted[0]


def test_text_is_cut_at_paragraphs_then_sentences_then_words():
    text = "One is one. Two is two.\n\nThree is a longer sentence of many words. Four."

    def words(part: str) -> int:
        return len(part.split())

    pieces = [text[s.fresh : s.end].strip() for s in split_text(text, limit=6, overlap=0, count=words)]
    assert pieces == ["One is one. Two is two.", "Three is a longer sentence of", "many words. Four."]


@pytest.mark.long
def test_a_300_page_text_in_one_cell_beside_one_liners_gets_one_finding_like_them():
    page = " ".join(f"Sentence {n} of the page says little." for n in range(60))
    book = "\n\n".join(f"PAGE {n}. {page}" for n in range(300))
    df = pd.DataFrame({"title": ["note", "book", "memo"], "text": ["short one", book, "short two"]})

    def provider(request):
        if request.schema == "reduction":
            return {"output": {"about": f"{len(request.findings)} parts"}}
        return findings(
            request,
            lambda unit: {
                "about": unit.get("part", unit["text"]),
                "pages": [int(word.split(".")[0]) for word in unit["text"].split("PAGE ")[1:]],
                "most": unit["text"].count("PAGE"),
                "kind": "long" if "part" in unit else "short",
            },
        )

    with ScriptedServer(provider) as server:
        result = df.amr.map_reduce(
            map="What is it about?",
            finding={"about": str, "pages": list[int], "most": int, "kind": ["long", "short"]},
            reduce={"most": "max"},
            lm=server.lm(patience_s=300),  # a busy machine may take long to accept so many pieces
        )
        count = counter_for("scripted")
        assert max(count(request.user) for request in server.requests) <= 8000 + 200
        parts = [unit for request in server.requests for unit in request.units if "part" in unit]
    assert len(result.failures) == 0
    found = result.frame.set_index("title")
    assert list(found.loc["book", "pages"]) == list(range(300))
    assert found.loc["book", "about"] == f"{len(parts)} parts"
    assert found["kind"].tolist() == ["short", "long", "short"]
    assert {part["title"] for part in parts} == {"book"}
    assert {part["part"] for part in parts} == {f"{number} of {len(parts)}" for number in range(1, len(parts) + 1)}


@settings(max_examples=examples(100), deadline=None)
@given(sizes=st.lists(st.integers(0, 90), min_size=1, max_size=60), limit=st.integers(120, 400))
def test_a_row_of_many_columns_is_read_in_as_few_pieces_as_hold_it(sizes, limit):
    record = {f"c{number}": f"{number} " + "x" * size for number, size in enumerate(sizes)}
    lines = split_record(record, limit=limit, count=len, to_json_line=to_json_line)
    pieces = [json.loads(line) for line in lines]
    assert [piece.pop("part") for piece in pieces] == [f"{n} of {len(pieces)}" for n in range(1, len(pieces) + 1)]
    assert all(list(piece) == [key for key in record if key in piece] for piece in pieces)
    for key, text in record.items():
        assert text in "".join(piece.get(key, "") for piece in pieces)  # one cell may be cut, none is left out
    if len(pieces) > 1:
        assert all(len(line) <= limit for line in lines)
        assert all(len(one) + len(other) > limit / 2 for one, other in itertools.pairwise(lines))


def test_a_row_of_500_columns_takes_no_request_for_each():
    df = pd.DataFrame([{f"column_{number}": f"cell {number} of the row" for number in range(500)}])
    with ScriptedServer(lambda r: findings(r, lambda unit: {"columns": len(unit) - 2})) as server:
        lm = server.lm(abilities=amr.Abilities(context_window=8000))
        found = df.amr.map("How many?", finding={"columns": int}, plan={"merge": {"columns": "sum"}}, lm=lm)
        assert len(server.requests) < 10
    assert found["columns"].tolist() == [500]


def test_the_plan_names_how_pieces_are_merged():
    df = pd.DataFrame({"text": [" ".join(f"w{n}" for n in range(200))]})
    plan = {"shard_tokens": 120, "merge": {"count": "sum", "first": "min", "said": "concat"}}

    def provider(request):
        return findings(
            request, lambda u: {"count": 1, "first": int(u["text"].split()[0][1:]), "said": u["part"].split()[0]}
        )

    with ScriptedServer(provider) as server:
        finding = {"count": int, "first": int, "said": str}
        found = df.amr.map("Count.", finding=finding, plan=plan, lm=server.lm())
        pieces = len(server.requests)
        with pytest.raises(amr.UsageError, match="names 'size', which is not a field"):
            df.amr.map("Count.", finding=finding, plan={"merge": {"size": "sum"}}, lm=server.lm())
        with pytest.raises(amr.UsageError, match="'said' cannot be merged by 'sum'. Possible rules: agent"):
            df.amr.map("Count.", finding=finding, plan={"merge": {"said": "sum"}}, lm=server.lm())
        assert len(server.requests) == pieces
    assert pieces > 3
    assert found["count"][0] == pieces
    assert found["first"][0] == 0
    assert found["said"][0] == "\n".join(str(n + 1) for n in range(pieces))


class Checked(BaseModel):
    total: int = Field(le=3)
    by: dict[str, int]
    free: dict


def test_the_merged_finding_is_checked_like_any_other():
    df = pd.DataFrame({"text": [" ".join(f"w{n}" for n in range(60)), " ".join(f"w{n}" for n in range(300))]})
    plan = {"shard_tokens": 120, "merge": {"total": "sum"}}
    with ScriptedServer(lambda r: findings(r, lambda u: {"total": 1, "by": {"a": 1}, "free": {"b": [2]}})) as server:
        result = df.amr.map_reduce(map="Count.", finding=Checked, reduce={"total": "sum"}, plan=plan, lm=server.lm())
    assert result.findings["total"].tolist() == [pytest.approx(2, abs=1), pd.NA]
    assert result.findings["free"][0] == '{"b": [2]}'
    assert dict(result.findings["by"][0]) == {"a": 1}
    assert "pieces could not be merged: total: Input should be less than or equal to 3" in result.failures["reason"][0]


class Side(BaseModel):
    name: str
    claims: list[str]
    upheld: bool
    most: float | None


class Dispute(BaseModel):
    plaintiff: Side
    sums: dict[str, Decimal]
    words: dict[str, str]
    other: Side | None
    free: dict


SAID_OF_PIECES = [
    {
        "plaintiff": {"name": "A", "claims": ["x"], "upheld": False, "most": 2.5},
        "sums": {"rent": "9.50", "fee": "3.00"},
        "words": {"open": "yes"},
        "other": None,
        "free": {"n": 1, "tags": ["a"], "deep": {"x": 1}},
    },
    {
        "plaintiff": {"name": "A and B", "claims": ["x", "y"], "upheld": True, "most": None},
        "sums": {"rent": "10.00"},
        "words": {"close": "no", "open": "yes"},
        "other": {"name": "C", "claims": [], "upheld": False, "most": None},
        "free": {"n": 3, "tags": ["b"], "deep": {"y": 2}},
    },
]


def test_inside_of_models_and_dicts_pieces_merge_by_the_same_rules():
    df = pd.DataFrame({"text": [" ".join(f"w{n}" for n in range(60))]})

    def provider(request):
        if request.schema == "reduction":
            (name,) = request.body["response_format"]["json_schema"]["schema"]["properties"]["output"]["properties"]
            assert [line[name] for line in request.findings][:2] == ["A", "A and B"]
            return {"output": {name: "A with B"}}
        return findings(request, lambda u: SAID_OF_PIECES[0 if u["part"].startswith("1 ") else 1])

    with ScriptedServer(provider) as server:
        found = df.amr.map("Who?", finding=Dispute, plan={"shard_tokens": 120}, lm=server.lm()).iloc[0]
        assert len([request for request in server.requests if request.schema == "reduction"]) == 1
    assert found["plaintiff"] == {"name": "A with B", "claims": ["x", "y"], "upheld": True, "most": 2.5}
    assert dict(found["sums"]) == {"rent": Decimal(10), "fee": Decimal(3)}
    assert dict(found["words"]) == {"open": "yes", "close": "no"}
    assert found["other"]["name"] == "C"
    assert json.loads(found["free"]) == {"n": 3, "tags": ["a", "b"], "deep": {"x": 1, "y": 2}}


def test_a_piece_that_fails_fails_its_unit_which_says_which_piece():
    df = pd.DataFrame({"text": [" ".join(f"w{n}" for n in range(200)), "w0 short"]})

    def provider(request):
        if any("w150 " in unit["text"] for unit in request.units):
            return Status(400, "no")
        return findings(request, lambda u: {"n": 1})

    with ScriptedServer(provider) as server, pytest.warns(amr.FailureWarning):
        found = df.amr.map("Count.", finding={"n": int}, plan={"shard_tokens": 120}, lm=server.lm())
    assert found["n"].isna().tolist() == [True, False]
    assert amr.result_of(found).failures["reason"][0].startswith("piece ")


def test_a_unit_that_the_server_finds_too_long_is_split_and_asked_in_pieces():
    df = pd.DataFrame({"text": [" ".join(f"w{n}" for n in range(300)), "w0 short"]})

    def provider(request):
        if len(request.user) > 800:
            return Status(400, "This model's maximum context length is 800 characters", "context_length_exceeded")
        return findings(request, lambda u: {"n": len(u["text"].split())})

    with ScriptedServer(provider) as server:
        found = df.amr.map("Count.", finding={"n": int}, plan={"merge": {"n": "sum"}}, lm=server.lm())
    assert found["n"][1] == 2
    assert found["n"][0] >= 300  # the overlaps are counted twice


def test_a_unit_of_which_every_piece_is_too_long_is_not_asked_about_by_all_of_them():
    df = pd.DataFrame({"text": ["short", "short too", " ".join(f"w{n}" for n in range(5_000))]})

    def provider(request):
        if "short" not in request.user:
            return Status(413, "Payload Too Large")
        return findings(request, lambda u: {"n": len(u["text"].split())})

    plan = {"merge": {"n": "sum"}, "shard_size": 1}
    with ScriptedServer(provider) as server:
        with pytest.warns(amr.FailureWarning):
            found = df.amr.map("Count.", finding={"n": int}, plan=plan, max_parallelism=1, lm=server.lm())
        assert len(server.requests) < 100
    assert found["n"].tolist()[:2] == [1, 2]
    assert amr.result_of(found).failures["position"].tolist() == [2]


def test_a_small_model_is_not_asked_to_merge_texts():
    df = pd.DataFrame({"text": [" ".join(f"w{n}" for n in range(200))]})
    small = Abilities(units_per_request=1, tools=False, planning=False, context_window=360)
    with ScriptedServer(lambda r: findings(r, lambda u: {"finding": u["part"].split()[0]})) as server:
        found = df.amr.map("Count.", lm=server.lm(abilities=small))
        assert {request.schema for request in server.requests} == {"finding"}
    assert found["finding"][0].split("\n")[:2] == ["1", "2"]


def test_columns_are_units_with_a_data_dictionary_in_one_call():
    df = pd.DataFrame(
        {
            "price": [1.5, None, 3.0, 3.0],
            "kind": pd.Categorical(["a", "b", "a", "a"]),
            "day": pd.to_datetime(["2026-01-01", "2026-01-03", None, "2026-01-02"]),
            "notes": [["x"], {"y": 1}, None, "z" * 500],
        }
    )
    with ScriptedServer(lambda r: findings(r, lambda u: {"meaning": f"about {u['column']}"})) as server:
        found = df.amr.map("What does the column hold?", finding={"meaning": str}, axis="columns", lm=server.lm())
        units = server.requests[0].units
        some = df.amr.map("What?", columns=["kind"], finding={"meaning": str}, axis="columns", lm=server.lm())
        with pytest.raises(amr.UsageError, match='axis= takes "rows" or "columns"'):
            df.amr.map("What?", axis=2, lm=server.lm())
    assert found.index.tolist() == ["price", "kind", "day", "notes"]
    assert found["meaning"].tolist() == ["about price", "about kind", "about day", "about notes"]
    assert some.index.tolist() == ["kind"]
    price, kind, day, notes = units
    assert (price["lowest"], price["highest"], price["mean"], price["missing"], price["distinct"]) == (
        1.5,
        3.0,
        2.5,
        1,
        2,
    )
    assert kind["values"] == ["a", "b"]
    assert day["lowest"] == "2026-01-01T00:00:00"
    assert notes["missing"] == 1
    assert max(map(len, notes["values"])) < 300


PROFILED = {
    "long texts of one beginning": ([f"{'x' * 500}{n}" for n in range(5)], 5, None),
    "more rows than are sampled": (range(12_345), 12_345, 6172.0),
    "lists": ([[1], [2], [1], None], 2, None),
    "lists of Arrow": (pd.array([[1], [2], [1], None], dtype=pd.ArrowDtype(pa.list_(pa.int64()))), 2, None),
    "complex numbers": ([1j, 2, 3], 3, None),
    "sparse": (pd.arrays.SparseArray([0, 0, 3]), 2, 1.0),
    "sparse without a row": (pd.arrays.SparseArray([], dtype="Sparse[int64]"), 0, None),
}


@pytest.mark.parametrize(("values", "distinct", "mean"), PROFILED.values(), ids=PROFILED)
def test_a_profile_s_figures_are_of_all_rows_and_whole_values(values, distinct, mean):
    [profile] = profile_columns(pd.DataFrame({"a": values}), [0]).to_dict("records")
    assert (profile["distinct"], profile["mean"]) == (distinct, mean)
