"""Types that last: into columns, through Parquet and joins, and a whole result through a folder."""

from __future__ import annotations

import datetime as dt
import enum
import json
from decimal import Decimal
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field

import pandas_amr as amr
from pandas_amr._types.from_schema import parse_type, type_from_schema
from pandas_amr._types.record import record_type
from pandas_amr._types.schema import json_schema
from pandas_amr.testing import ScriptedServer, Status, findings


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Place(BaseModel):
    city: str
    street: str | None


class Everything(BaseModel):
    yes: bool
    count: int
    share: float
    text: str
    day: dt.date
    moment: dt.datetime
    price: Decimal
    kind: Literal["a", "b", "c"]
    level: Literal[1, 2, 3]
    color: Color
    maybe: int | None
    tags: list[str]
    sizes: list[int]
    counts: dict[str, int]
    place: Place
    places: list[Place]
    free: dict = Field(description="anything")


RECORD = {
    "yes": True,
    "count": 3,
    "share": 0.5,
    "text": "é",
    "day": "2026-01-02",
    "moment": "2026-01-02T03:04:05",
    "price": "12.50",
    "kind": "b",
    "level": 2,
    "color": "red",
    "maybe": None,
    "tags": ["x", "y"],
    "sizes": [],
    "counts": {"p": 1},
    "place": {"city": "Oslo", "street": None},
    "places": [{"city": "Rom", "street": "s"}],
    "free": {"deep": [1, {"x": None}]},
}
SCALARS = ["yes", "count", "share", "text", "day", "moment", "price", "kind", "level", "color", "maybe"]
DF = pd.DataFrame({"id": ["row 0", "row 1", "row 2"]})


@pytest.fixture(scope="module")
def found() -> pd.DataFrame:
    """Three rows, the last of which failed."""

    def provider(request):
        if any(unit["id"] == "row 2" for unit in request.units):
            return Status(400, "no")
        return findings(request, lambda unit: RECORD | {"count": int(unit["id"][-1])})

    with ScriptedServer(provider) as server, pytest.warns(amr.FailureWarning):
        return DF.amr.map("All of it.", finding=Everything, lm=server.lm())


def test_every_type_has_its_column(found):
    assert {name: str(dtype) for name, dtype in found.dtypes.items() if name != "id"} == {
        "yes": "bool[pyarrow]",
        "count": "int64[pyarrow]",
        "share": "double[pyarrow]",
        "text": "string[pyarrow]",
        "day": "date32[day][pyarrow]",
        "moment": "timestamp[us][pyarrow]",
        "price": "decimal128(38, 9)[pyarrow]",
        "kind": "category",
        "level": "category",
        "color": "category",
        "maybe": "int64[pyarrow]",
        "tags": "list<item: string>[pyarrow]",
        "sizes": "list<item: int64>[pyarrow]",
        "counts": "map<string, int64>[pyarrow]",
        "place": "struct<city: string, street: string>[pyarrow]",
        "places": "list<item: struct<city: string, street: string>>[pyarrow]",
        "free": "string[pyarrow]",
    }


def test_values_are_those_that_were_found_and_missing_where_none_was(found):
    row = found.iloc[0]
    assert (row["yes"], row["share"], row["text"], row["kind"], row["level"], row["color"]) == (
        True,
        0.5,
        "é",
        "b",
        2,
        "red",
    )
    assert row["day"] == dt.date(2026, 1, 2)
    assert row["moment"] == pd.Timestamp("2026-01-02T03:04:05")
    assert row["price"] == Decimal("12.50")
    assert row["maybe"] is pd.NA
    assert list(row["tags"]) == ["x", "y"]
    assert row["place"] == {"city": "Oslo", "street": None}
    assert row["free"] == '{"deep": [1, {"x": null}]}'
    assert found["count"].tolist()[:2] == [0, 1]
    assert found.iloc[2].drop("id").isna().all()
    assert list(found["kind"].cat.categories) == ["a", "b", "c"]
    assert list(found["level"].cat.categories) == [1, 2, 3]


@pytest.mark.parametrize("column", SCALARS)
def test_scalar_columns_survive_parquet_concat_groupby_and_merge(found, column, tmp_path):
    frame = found[["id", column]]
    frame.to_parquet(tmp_path / "x.parquet")
    again = pd.read_parquet(tmp_path / "x.parquet")
    assert [a if pd.notna(a) else None for a in again[column]] == [b if pd.notna(b) else None for b in frame[column]]
    doubled = pd.concat([frame, frame])
    assert doubled[column].dtype == frame[column].dtype
    sizes = frame.groupby(column, observed=True).size()
    assert sizes.sum() == frame[column].notna().sum()
    merged = frame.merge(frame.rename(columns={"id": "other"}).dropna(), on=column)
    assert len(merged) == sum(size**2 for size in sizes)


def test_nested_columns_survive_parquet_with_the_pyarrow_backend(found, tmp_path):
    found.drop(columns=["id"]).to_parquet(tmp_path / "x.parquet")
    again = pd.read_parquet(tmp_path / "x.parquet", dtype_backend="pyarrow")
    for column in ("tags", "sizes", "place", "places", "counts"):
        assert again[column].tolist()[0] == found[column].tolist()[0]


def test_a_value_that_does_not_fit_its_column_is_a_failure_not_a_crash():
    def provider(request):
        return findings(
            request,
            lambda unit: {"n": 2**70 if unit["id"] == "row 1" else 1, "t": "\ud800" if unit["id"] == "row 2" else "x"},
        )

    with ScriptedServer(provider) as server:
        result = DF.amr.map_reduce(map="n?", finding={"n": int, "t": str}, reduce={"n": "sum"}, lm=server.lm())
    assert result.output["n"] == 1
    assert result.failures["position"].tolist() == [1, 2]


@pytest.mark.parametrize("index", ["range", "multi", "duplicated", "dates"])
@pytest.mark.sampled(2)
def test_a_whole_result_comes_back_from_a_folder(tmp_path, index):
    df = pd.DataFrame(
        {
            "id": ["row 0", "row 1", "row 2"],
            "when": pd.to_datetime(["2026-01-01", None, "2026-01-03"]),
            "size": pd.array([1, None, 3], dtype="Int64"),
            "group": pd.Categorical(["a", "b", "a"]),
            "plain": np.array([1.5, 2.5, np.nan]),
            7: [True, False, True],
        }
    )
    df.index = {
        "range": df.index,
        "multi": pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["x", None]),
        "duplicated": pd.Index(["s", "s", "t"], name="label"),
        "dates": pd.date_range("2026-01-01", periods=3, tz="Europe/Oslo"),
    }[index]

    def provider(request):
        if any(unit["id"] == "row 2" for unit in request.units):
            return Status(400, "no")
        return findings(request, lambda unit: RECORD)

    with ScriptedServer(provider) as server:
        result = df.amr.map_reduce(
            map="All of it.",
            columns=["id"],
            finding=Everything,
            reduce={"count": "sum", "kind": "value_counts"},
            by="group",
            plan={"shard_size": 1, "status": True},
            lm=server.lm(),
        )
    result.save(tmp_path / "saved")
    again = amr.load(tmp_path / "saved")
    for name in ("frame", "findings", "usage", "failures", "trace", "status", "output"):
        pd.testing.assert_frame_equal(
            getattr(again, name), getattr(result, name), check_column_type=False, check_freq=False
        )
    assert repr(again) == repr(result)
    assert again.plan.to_json() == result.plan.to_json()
    with pytest.raises(amr.UsageError, match="Nothing can be run again"):
        again.retry()


@pytest.mark.parametrize(
    ("kind", "output"),
    [(str, "all"), (int, 3), (bool, False), (Place, {"city": "Oslo", "street": None}), (list[Place], None)],
)
@pytest.mark.sampled(3)
def test_outputs_of_every_type_come_back(tmp_path, kind, output):
    answer = [{"city": "Rom", "street": "s", "sources": [0]}] if output is None else output

    def provider(request):
        return (
            findings(request, lambda unit: {"finding": "x"})
            if request.schema == "findings"
            else {"output": answer, "sources": []}
        )

    with ScriptedServer(provider) as server:
        result = DF.amr.map_reduce(map="Read.", reduce="Combine.", output=kind, lm=server.lm())
    result.save(tmp_path)
    again = amr.load(tmp_path).output
    if isinstance(result.output, pd.DataFrame):
        pd.testing.assert_frame_equal(again, result.output)
    elif isinstance(result.output, BaseModel):
        assert again.model_dump() == result.output.model_dump()
    else:
        assert again == result.output
        assert type(again) is type(result.output)


def test_a_field_may_be_named_as_pydantic_names_what_nobody_asks_for():
    names = ["copy", "json", "dict", "schema", "class", "model_size"]
    with ScriptedServer(lambda request: findings(request, lambda unit: dict.fromkeys(names, 1))) as server:
        found = DF.amr.map("All.", finding=dict.fromkeys(names, int), lm=server.lm())
    assert found[names].to_numpy().tolist() == [[1] * len(names)] * 3


class Part(BaseModel):
    """One part."""

    size: int = Field(alias="how-large", ge=0)
    code: str | None = Field(default=None, pattern="^[a-z]+$")


class Documented(BaseModel):
    """What a row says.

    In two paragraphs.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"n": 1}]}, extra="forbid")

    n: int = Field(description="how many", examples=[1, 2], title="N")
    part: Part = Field(description="the largest part")
    parts: list[Part] = Field(min_length=0, max_length=3)


class Aliased(BaseModel):
    n: int = Field(alias="the number")
    m: int = Field(default=1, alias="other")


class Called(BaseModel):
    n: int = Field(validation_alias="the number")
    m: int = Field(validation_alias=AliasChoices(AliasPath("deep", 0), "other", "another"))
    k: int = Field(serialization_alias="not asked for")


class Limited(BaseModel):
    n: int | None = Field(default=None, ge=0, le=10)
    price: Decimal | None
    half: float = Field(multiple_of=0.5, gt=0)
    took: dt.timedelta
    at: dt.time
    mail: str = Field(json_schema_extra={"format": "email"})
    word: str | None = Field(max_length=5)


class Collected(BaseModel):
    pair: tuple[int, int]
    mixed: tuple[str, str] | None
    names: set[str]
    kept: frozenset[int] = Field(max_length=4)
    free: dict[str, int]
    anything: dict


ASKED_AGAIN = [
    (Documented, {"n": 1, "part": {"how-large": 2, "code": None}, "parts": [{"how-large": 3, "code": "x"}]}),
    (Aliased, {"the number": 3, "other": 4}),
    (Called, {"the number": 3, "other": 4, "k": 5}),
    (
        Limited,
        {"n": 3, "price": "1.50", "half": 1.5, "took": "PT3S", "at": "01:02:03", "mail": "a@b.de", "word": None},
    ),
    (Collected, {"pair": [1, 2], "mixed": ["a", "b"], "names": ["x"], "kept": [1], "free": {"a": 1}, "anything": {}}),
    (Everything, RECORD),
    (list[Part], {"items": [{"how-large": 3, "code": "x"}]}),
]


@pytest.mark.parametrize(("kind", "record"), ASKED_AGAIN, ids=[str(kind) for kind, _ in ASKED_AGAIN])
@pytest.mark.sampled(3)
def test_the_plan_s_json_means_the_same_findings_so_nothing_is_asked_again(kind, record, tmp_path):
    with ScriptedServer(lambda request: findings(request, lambda unit: record)) as server:
        first = DF.amr.map_reduce(map="All.", finding=kind, reduce=len, lm=server.lm(), journal=tmp_path / "j.sqlite")
        text = first.plan.to_json()
        server.requests.clear()
        again = DF.amr.map_reduce(plan=text, reduce=len, lm=server.lm(), journal=tmp_path / "j.sqlite")
        assert server.requests == []
    pd.testing.assert_frame_equal(again.frame, first.frame)
    assert again.plan.to_json() == text
    assert len(first.failures) == 0
    assert json_schema(amr.Plan(**json.loads(text)).finding) == json_schema(kind)


def test_a_finding_with_aliases_is_reduced_by_its_own_names_from_json_too():
    with ScriptedServer(lambda request: findings(request, lambda unit: {"the number": 3, "other": 4})) as server:
        plan = DF.amr.plan(map="All.", finding=Aliased, reduce={"n": "sum", "m": "max"}, lm=server.lm())
        assert DF.amr.map_reduce(plan=plan.to_json(), lm=server.lm()).output.to_dict() == {"n": 9, "m": 4}
        asked = server.requests[0].body["response_format"]["json_schema"]["schema"]["properties"]["findings"]["items"]
    assert asked["properties"] == {
        "unit": {"type": "integer"},
        "the number": {"type": "integer"},
        "other": {"type": "integer"},
    }


def test_a_schema_that_refers_elsewhere_is_told():
    with pytest.raises(amr.UsageError, match="cannot hold"):
        type_from_schema({"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}})


def test_code_that_asks_is_told_what_no_field_can_be():
    with pytest.raises(amr.UsageError, match="a choice is a text"):
        parse_type({"kind": [[1]]})
    with pytest.raises(amr.UsageError, match="a choice is a text"):
        parse_type({"enum": [{"a": 1}]})
    with pytest.raises(amr.UsageError, match="pydantic reserves that name"):
        record_type("Answer", {"model_config": parse_type("int")})


def test_columns_that_parquet_cannot_hold_come_back_as_they_are(tmp_path):
    df = pd.DataFrame({"id": ["row 0", "row 1"], "mixed": [{"a": 1}, {"b": {1, 2}}]})
    with ScriptedServer(lambda r: findings(r, lambda u: {"n": 1})) as server:
        result = df.amr.map_reduce(map="n?", columns="id", finding={"n": int}, reduce={"n": "sum"}, lm=server.lm())
    result.save(tmp_path)
    assert amr.load(tmp_path).frame["mixed"].tolist() == [{"a": 1}, {"b": {1, 2}}]


def test_a_folder_without_a_result_is_told(tmp_path):
    with pytest.raises(amr.UsageError, match="holds no saved result"):
        amr.load(tmp_path)


def test_choices_can_have_a_description_which_the_model_reads():
    df = pd.DataFrame({"text": ["a", "b"]})
    with ScriptedServer(lambda request: findings(request, lambda unit: {"kind": "low"})) as server:
        kinds = {"kind": (["low", "high", None], "how urgent it is")}
        frame = df.amr.map("How urgent?", finding=kinds, lm=server.lm(), progress=False)
        assert "how urgent it is" in str(server.requests[0].body)
    assert frame["kind"].tolist() == ["low", "low"]
    assert frame["kind"].cat.categories.tolist() == ["low", "high"]
    for described in ((["low"], None), ([], "none")):
        with pytest.raises(amr.UsageError, match=r"finding\['kind'\] takes a type"):
            df.amr.map("How urgent?", finding={"kind": described}, lm="m")


def test_choices_have_the_order_of_their_own_call_whatever_order_another_call_gave_them():
    df = pd.DataFrame({"text": ["row 1"]})
    for order in (["odd", "even"], ["even", "odd"]):
        for kind in (order, (order, "Which?"), Literal[tuple(order)]):
            found = df.amr.map(lambda shard: [{"word": "odd"}] * len(shard), finding={"word": kind})
            assert found["word"].cat.categories.tolist() == order
