"""A value is stored as it was said, or is not accepted: types, choices, times, numbers, texts; whoever says it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import ipaddress
import json
import math
import re
import uuid
from collections.abc import Callable, Hashable
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType, NotRequired, get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    UUID4,
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    Json,
    PastDate,
    PositiveInt,
    RootModel,
    field_validator,
    model_validator,
)
from typing_extensions import TypeAliasType, TypedDict

import pandas_amr as amr
from examples import examples
from pandas_amr._findings.finding_type import FindingType
from pandas_amr._types.arrow_values import make_table
from pandas_amr._types.record import record_type
from pandas_amr._types.schema import json_schema
from pandas_amr._types.type_check import is_flat
from pandas_amr._types.violations import find_violation
from pandas_amr.errors import InvalidOutput
from pandas_amr.testing import Call, Raw, ScriptedServer, findings
from versions import once

UTC = dt.UTC
UserId = NewType("UserId", int)
Tags = TypeAliasType("Tags", list[str])
Numbers = RootModel[list[int]]


class Mixed(enum.Enum):
    ONE = 1
    MANY = "many"
    UNKNOWN = None


class Place(BaseModel):
    city: str
    street: str | None


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Town(BaseModel):
    city: str = Field(alias="ort")
    size: int = Field(alias="zahl")


class Phone(TypedDict):
    number: int
    kind: NotRequired[str]


class Years(BaseModel):
    of: dict[dt.date, int]


class Word(RootModel[str]):
    pass


def found_of(kind: Any, said: Any, *, repaired: Any = None) -> pd.DataFrame:
    """What the frame has in the column ``x`` for a model that says ``said`` of both rows; ``<NA>`` if it failed."""

    def provider(request):
        value = repaired if request.repairs and repaired is not None else said
        return findings(request, lambda unit: {"x": value})

    with ScriptedServer(provider) as server:
        return pd.DataFrame({"text": ["a", "b"]}).amr.map_reduce(
            map="Which?", finding={"x": kind}, reduce=len, lm=server.lm(), errors="coerce"
        )


def is_stored(kind: Any, said: Any) -> Any:
    """The value in the column, or None if it was not accepted."""
    result = found_of(kind, said)
    column = result.frame["x"]
    assert column.isna().all() == (len(result.failures) == 2)
    return None if column.isna().all() else column.iloc[0]


AS_SAID = [
    ([0, 0.5, 1], 0.5, 0.5),
    ([0, 0.5, 1], 0, 0),
    ([0, 0.5, 1], 1, 1),
    ([1, 2, "many"], 1, 1),
    ([1, 2, "many"], "many", "many"),
    ([True, False, "unknown"], True, True),
    ([True, False, "unknown"], False, False),
    ([True, False, "unknown"], "unknown", "unknown"),
    ([None, 1, 2], 2, 2),
    (["1", 2], "1", "1"),
    (["1", 2], 2, 2),
    (["true", True], "true", "true"),
    (["true", True], True, True),
    (Literal["a", "b"] | Literal[1], 1, 1),
    (Literal["a"] | Literal["b"] | None, "b", "b"),
    (Mixed, 1, 1),
    (Mixed, "many", "many"),
    (PositiveInt | None, 3, 3),
    (list[Annotated[int, Field(gt=0)]], [1, 2], [1, 2]),
    (UserId, 7, 7),
    (Tags, ["a", "b"], ["a", "b"]),
    (Numbers, [1, 2], [1, 2]),
    (list[Numbers], [[1], [2, 3]], [[1], [2, 3]]),
    (tuple[int, int], [1, 2], [1, 2]),
    (tuple[float, ...], [1.5], [1.5]),
    (int | float, 3, 3),
    (int | float, 0.5, 0.5),
    (int, 3.0, 3),
    (int, 2**60 + 1, 2**60 + 1),
    (int, float(2**53 - 1), 2**53 - 1),
    (float, 3, 3.0),
    (uuid.UUID, "12345678-1234-5678-1234-567812345678", "12345678-1234-5678-1234-567812345678"),
    (HttpUrl, "https://example.org/a", "https://example.org/a"),
    (ipaddress.IPv4Address, "127.0.0.1", "127.0.0.1"),
    (AwareDatetime, "2026-01-02T03:04:05+02:00", dt.datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)),
    (AwareDatetime, "2026-01-02T03:04:05Z", dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
    (dt.datetime, "2026-01-02T03:04:05", dt.datetime(2026, 1, 2, 3, 4, 5)),
    (dt.date, "2026-01-02", dt.date(2026, 1, 2)),
    (PastDate, "2020-01-02", dt.date(2020, 1, 2)),
    (dt.time, "03:04:05", dt.time(3, 4, 5)),
    (dt.timedelta, "P1DT2H", dt.timedelta(days=1, hours=2)),
    (Decimal, "12.50", Decimal("12.50")),
    (Annotated[float, Field(allow_inf_nan=True)], math.inf, math.inf),
    (Literal["", "x"], "x", "x"),
    (Any, {"a": [1, "x"]}, '{"a": [1, "x"]}'),
    (dict[str, int], {"a": 1}, [("a", 1)]),
    (dict[Color, int], {"red": 1}, [("red", 1)]),
    (dict[int, str], {"7": "a", "8": "b"}, [("7", "a"), ("8", "b")]),
    (dict[dt.date, int], {"2026-01-02": 1}, [("2026-01-02", 1)]),
    (dict[dt.datetime, int], {"2026-01-02T03:04:05": 1}, [("2026-01-02T03:04:05", 1)]),
    (Word, "x", "x"),
    (Word | None, "x", "x"),
    (RootModel[Color], "red", "red"),
    ([Color.RED, 1], "red", "red"),
    (Town, {"ort": "Rom", "zahl": 3}, {"city": "Rom", "size": 3}),
    (Phone, {"number": 1}, {"number": 1, "kind": None}),
    (Phone, {"number": 1, "kind": None}, {"number": 1, "kind": None}),
    (Phone, {"number": 1, "kind": "x"}, {"number": 1, "kind": "x"}),
    (list[Phone], [{"number": 1}], [{"number": 1, "kind": None}]),
]


@pytest.mark.parametrize(("kind", "said", "stored"), AS_SAID, ids=[f"{kind} {said}" for kind, said, _ in AS_SAID])
@pytest.mark.sampled(7)
def test_a_value_is_stored_as_it_was_said(kind, said, stored):
    value = is_stored(kind, said)
    assert (list(value) if isinstance(stored, list) else value) == stored
    if isinstance(said, bool | str) and not isinstance(kind, type | TypeAliasType):
        assert type(value) is type(stored) or isinstance(stored, dt.date | Decimal)


NOT_ACCEPTED = [
    ([0, 0.5, 1], 0.25, "one of the choices|Input should be"),
    ([1, 2, "many"], True, "one of the choices|Input should be"),
    ([1, 2, "many"], "1", "Input should be"),
    ([True, False, "unknown"], 1, "one of the choices|Input should be"),
    ([True, False, "unknown"], "true", "Input should be"),
    (["a", "b"], ["a"], "Input should be"),
    (int, "3", "an integer"),
    (int, True, "an integer"),
    (int, 3.5, "integer"),
    (int, None, "integer"),
    (int, 2**70, "beyond 64 bits"),
    (int, float(2**60 + 1), "an integer with all its digits"),
    (list[int], [1.0, float(2**53)], "x.1: should be an integer with all its digits"),
    (float, "3.5", "a number"),
    (float, True, "a number"),
    (float, math.nan, "finite"),
    (float, math.inf, "finite"),
    (float, "nan", "a number"),
    (float, "Infinity", "a number"),
    (float, 2**60 + 1, "more digits than a float holds"),
    (int | float, 2**60 + 1, r"beyond 2\*\*53"),
    (float | None, math.nan, "finite"),
    (bool, "yes", "true or false"),
    (bool, 1, "true or false"),
    (bool, "false", "true or false"),
    (str, 3, "valid string"),
    (str, "", "is empty"),
    (str, " \n", "is empty"),
    (str | None, "", "is empty"),
    (list[str], ["a", ""], "is empty"),
    (dict[str, str], {"a": ""}, "is empty"),
    (Place, {"city": "", "street": None}, "x.city: is empty"),
    (list[Place], [{"city": "Rom", "street": " "}], "x.0.street: is empty"),
    (str, "\ud800", "surrogate"),
    (dt.date, "2024", "date"),
    (dt.date, 2024, "date"),
    (dt.date, "1700000000", "date"),
    (dt.date, "2026-01-02T00:00:00", "a date such as"),
    (dt.date, "02.01.2026", "date"),
    (dt.datetime, "2026-01-02", "without a zone"),
    (dt.datetime, "2026-01-02T03:04:05Z", "without a zone"),
    (dt.datetime, "2026-01-02T03:04:05+02:00", "without a zone"),
    (dt.datetime, 1700000000, "without a zone"),
    (AwareDatetime, "2026-01-02T03:04:05", "timezone"),
    (dt.time, 9, "time"),
    (dt.time, "9", "time"),
    (dt.time, "03:04:05Z", "without a zone"),
    (dt.timedelta, 60, "duration"),
    (dt.timedelta, "P1M", "duration"),
    (dt.timedelta, "12:00:00", "duration"),
    (Decimal, 12.5, "written as a text"),
    (Decimal, "1e5", "written as a text"),
    (Decimal, "NaN", "finite|written as a text"),
    (uuid.UUID, "{12345678-1234-5678-1234-567812345678}", "a UUID"),
    (list[int], "[1]", "list"),
    (list[int], {"0": 1}, "list"),
    (list[int], ["1"], "an integer"),
    (set[str], ["a", "a"], "twice"),
    (dict[str, int], {"a": "1"}, "an integer"),
    (dict[str, int], [["a", 1]], "dictionary"),
    (dict[int, int], {"7": 1, "07": 2}, "x: names a key twice, in two forms"),
    (Annotated[dict[int, int], ["what is not to be hashed"]], {"7": 1, "07": 2}, "x: names a key twice, in two forms"),
    (dict[bool, str] | None, {"true": "a", "1": "b"}, "x: names a key twice, in two forms"),
    (list[dict[str, dict[int, int]]], [{}, {"a": {"7": 1, "7.0": 2}}], "x: names a key twice, in two forms"),
    (list[Years], [{"of": {}}, {"of": {"2026-01-01": 1, "2026-01-01T00:00:00": 2}}], "names a key twice, in two"),
    (tuple[int, int], [1], "x"),
    (tuple[int, int], [1, 2, 3], "x"),
    (Any, {"a": math.nan}, "not finite"),
    (dict, {"a": [math.inf]}, "not finite"),
    (Any, "", "is empty"),
    (dict, {"a": " "}, "is empty"),
    (list[Any], [1, ""], "is empty"),
    (dict[str, Any], {"a": {"b": [""]}}, "is empty"),
    (Word, "", "is empty"),
    (Town, {"ort": "", "zahl": 1}, "x.ort: is empty"),
    (Phone, {"number": 1, "kind": ""}, "x.kind: is empty"),
    (AwareDatetime, "0001-01-01T00:00:00+14:00", "beyond the years"),
    (list[AwareDatetime], ["9999-12-31T23:59:59-14:00"], "beyond the years"),
    (PositiveInt | None, 0, "greater than 0"),
    (list[Annotated[int, Field(gt=0)]], [0], "greater than 0"),
    (PastDate, "2100-01-01", "past"),
]


@pytest.mark.parametrize(("kind", "said", "reason"), NOT_ACCEPTED, ids=[f"{k} {s}" for k, s, _ in NOT_ACCEPTED])
@pytest.mark.sampled(5)
def test_what_the_schema_forbids_is_not_accepted(kind, said, reason):
    result = found_of(kind, said)
    assert result.frame["x"].isna().all()
    assert result.failures["reason"].str.contains(reason).all(), result.failures["reason"][0]


@pytest.mark.parametrize(
    ("kind", "said", "right"), [(float, math.nan, 1.5), (int, "3", 3), (dt.date, "2024", "2024-01-01")]
)
def test_what_was_not_accepted_may_be_repaired(kind, said, right):
    result = found_of(kind, said, repaired=right)
    assert result.status["status"].tolist() == ["repaired", "repaired"]


REFUSED = [
    (tuple[int, str], "several types"),
    (int | str, "No column can hold"),
    (bytes, "cannot be asked|No column can hold"),
    (complex, "complex"),
    (Place | Numbers, "No column can hold"),
    ([1, True], "equal to pandas"),
    ([0, 0.0], "equal to pandas"),
    ([1, [2]], "a choice is a text"),
    (list[Literal[1, "a"]], "choices of several types"),
    (dict[str, Literal[True, "a"]], "choices of several types"),
    (Hashable, "No column can hold"),
    (Callable, "No column can hold"),
    (range, "'x': Unable"),
    (Literal[Color.RED], "use Color"),
]


@pytest.mark.parametrize(("kind", "why"), REFUSED, ids=[str(kind) for kind, _ in REFUSED])
def test_a_type_that_no_column_holds_is_refused_by_name_before_a_request(kind, why, refusing):
    with pytest.raises(amr.UsageError, match=why) as caught:
        pd.DataFrame({"text": ["a"]}).amr.map("Which?", finding={"x": kind}, lm=refusing.lm())
    assert "x" in str(caught.value)


class Mark(BaseModel):
    label: Literal[1, "many"]


def test_choices_of_several_types_are_fields_of_many_records():
    with ScriptedServer(lambda r: findings(r, lambda u: {"items": [{"label": 1}, {"label": "many"}]})) as server:
        result = pd.DataFrame({"text": ["a"]}).amr.map_reduce(
            map="Which?", finding=list[Mark], reduce=len, lm=server.lm()
        )
    assert result.findings["label"].tolist() == [1, "many"]
    with pytest.raises(amr.UsageError, match="choices of several types"):
        found_of(Mark, {"label": 1})


def test_a_root_model_alone_is_no_finding(refusing):
    with pytest.raises(amr.UsageError, match="named fields"):
        pd.DataFrame({"text": ["a"]}).amr.map("Which?", finding=Numbers, lm=refusing.lm())


@dataclasses.dataclass
class Bill:
    total: float
    day: dt.date
    note: str | None = None

    def __post_init__(self):
        if self.total < 0:
            raise ValueError("a total is not negative")


class Card(TypedDict):
    name: str
    phone: NotRequired[str]


@pytest.mark.parametrize(
    ("kind", "said", "expected"),
    [
        (Bill, {"total": 1.5, "day": "2026-01-02"}, [1.5, dt.date(2026, 1, 2), pd.NA]),
        (Card, {"name": "x"}, ["x", pd.NA]),
        (Card, {"name": "x", "phone": "1"}, ["x", "1"]),
    ],
)
def test_a_dataclass_and_a_typed_dict_are_findings(kind, said, expected):
    with ScriptedServer(lambda request: findings(request, lambda unit: said)) as server:
        found = pd.DataFrame({"text": ["a"]}).amr.map("Which?", finding=kind, lm=server.lm())
        many = pd.DataFrame({"text": ["a"]}).amr.plan(map="Which?", finding=list[kind], lm=server.lm())
    assert found.iloc[0].tolist()[1:] == expected
    assert list(many.finding.__args__[0].model_fields) == list(found.columns[1:])


def test_a_dataclass_checks_itself():
    with ScriptedServer(lambda r: findings(r, lambda u: {"total": -1, "day": "2026-01-02"})) as server:
        result = pd.DataFrame({"text": ["a"]}).amr.map_reduce(
            map="Which?", finding=Bill, reduce=len, lm=server.lm(), errors="coerce"
        )
    assert "a total is not negative" in result.failures["reason"][0]


@pytest.mark.parametrize("number", ["0", 0.0, 0])
def test_the_number_of_a_unit_may_be_written_as_a_text_or_a_float(number):
    with ScriptedServer(lambda request: {"findings": [{"unit": number, "x": 1}]}) as server:
        assert pd.DataFrame({"text": ["a"]}).amr.map("n?", finding={"x": int}, lm=server.lm())["x"].tolist() == [1]


@pytest.mark.parametrize("number", ["00", "+0", " 0", "zero", "٠", 0.5, None, [0], "0" * 5000])
def test_but_only_where_it_can_mean_nothing_else(number):
    with ScriptedServer(lambda request: {"findings": [{"unit": number, "x": 1}]}) as server:
        result = pd.DataFrame({"text": ["a"]}).amr.map_reduce(
            map="n?", finding={"x": int}, reduce=len, lm=server.lm(), errors="coerce"
        )
    assert result.frame["x"].isna().all()


def test_one_unit_named_in_two_ways_is_named_twice():
    def provider(request):
        if request.repairs:
            return findings(request, lambda unit: {"x": 3})
        return {"findings": [{"unit": 0, "x": 1}, {"unit": "0", "x": 2}]}

    with ScriptedServer(provider) as server:
        assert pd.DataFrame({"text": ["a"]}).amr.map("n?", finding={"x": int}, lm=server.lm())["x"].tolist() == [3]
        assert "2 findings, not one" in server.requests[1].user


def test_mixed_choices_are_counted_grouped_and_read_by_reducers_as_what_they_are():
    said = [1, 2, "many", True, "true"]
    lines: list[dict] = []

    def provider(request):
        if request.schema == "reduction":
            lines.extend(request.findings)
            return {"output": "done", "sources": []}
        return findings(request, lambda unit: {"x": said[int(unit["text"])]})

    df = pd.DataFrame({"text": ["0", "2", "2", "4"]})
    with ScriptedServer(provider) as server:
        options = {"map": "Which?", "finding": {"x": [1, 2, "many", "true"]}, "lm": server.lm()}
        counts = df.amr.map_reduce(reduce={"x": "value_counts"}, **options).output["x"]
        sizes = df.amr.map_reduce(reduce={"text": "count"}, by="x", **options).output["text"]
        df.amr.map_reduce(reduce="List.", **options)
    assert counts.to_dict() == {"many": 2, 1: 1, "true": 1, 2: 0}
    assert sizes.to_dict() == {1: 1, "many": 2, "true": 1}
    assert sorted(str(line["x"]) for line in lines) == ["1", "many", "true"]
    assert {type(line["x"]) for line in lines} == {int, str}


def test_a_column_never_mixes_times_with_a_zone_and_without():
    said = {"a": "2026-01-02T03:04:05", "b": "2026-01-02T03:04:05+02:00"}
    df = pd.DataFrame({"text": ["a", "b"]})
    with ScriptedServer(lambda r: findings(r, lambda unit: {"x": said[unit["text"]]})) as server:
        options = {"map": "When?", "reduce": len, "lm": server.lm(), "errors": "coerce"}
        naive = df.amr.map_reduce(finding={"x": dt.datetime}, **options).frame["x"]
        aware = df.amr.map_reduce(finding={"x": AwareDatetime}, **options).frame["x"]
    assert naive.isna().tolist() == [False, True]
    assert aware.isna().tolist() == [True, False]
    assert str(aware.dtype) == "timestamp[us, tz=UTC][pyarrow]"


@pytest.mark.parametrize(
    ("kind", "value", "stored"),
    [
        (dt.date, pd.Timestamp("2026-01-02"), dt.date(2026, 1, 2)),
        (dt.datetime, pd.Timestamp("2026-01-02"), dt.datetime(2026, 1, 2)),
        (dt.datetime, dt.datetime(2026, 1, 2, 3, 4, 5), dt.datetime(2026, 1, 2, 3, 4, 5)),
        (dt.time, dt.time(9, 30), dt.time(9, 30)),
        (dt.timedelta, pd.Timedelta("1h"), dt.timedelta(hours=1)),
        (Decimal, Decimal("1E+2"), Decimal(100)),
        (float | None, float("nan"), None),
        (str, "", ""),
        (list[int], (1, 2), [1, 2]),
        (set[int], {2, 1}, [1, 2]),
        (Place, Place(city="Rom", street=None), {"city": "Rom", "street": None}),
        (uuid.UUID, uuid.UUID(int=1), str(uuid.UUID(int=1))),
        ([1, "many"], 1, 1),
        (dict[Color, int], {Color.RED: 1}, [("red", 1)]),
        (list[dt.date], [pd.Timestamp("2026-01-02")], [dt.date(2026, 1, 2)]),
        (dt.datetime, np.datetime64("2026-01-02T03:04:05", "ns"), dt.datetime(2026, 1, 2, 3, 4, 5)),
    ],
)
def test_a_function_s_python_values_are_stored_as_they_are(kind, value, stored):
    frame = pd.DataFrame({"text": ["a"]}).amr.map(lambda shard: [{"x": value}] * len(shard), finding={"x": kind})
    found = frame["x"].iloc[0]
    assert pd.isna(found) if stored is None else (list(found) if isinstance(stored, list) else found) == stored


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (dt.date, "2024"),
        (dt.date, 2024),
        (dt.time, 9),
        (int, "3"),
        (float, float("inf")),
        (dt.date, pd.Timestamp("2026-01-02 03:00")),
        (dt.datetime, pd.Timestamp("2026-01-02", tz="UTC")),
        (dt.datetime, pd.Timestamp("2026-01-02 00:00:00.000000001")),
        ([0, 1], True),
        (str, object()),
        (str, re.compile("a")),
        (str, 1j),
    ],
)
@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
def test_nor_is_a_function_s_value_bent_into_another(kind, value):
    def function(shard):
        return [{"x": value}] * len(shard)

    result = pd.DataFrame({"text": ["a"]}).amr.map_reduce(map=function, finding={"x": kind}, reduce=len)
    assert result.frame["x"].isna().all()
    assert result.failures["who"].tolist() == ["callable"]


@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize(
    ("kind", "code", "stored"),
    [
        (dt.date, "pd.Timestamp('2026-01-02')", dt.date(2026, 1, 2)),
        (list[dt.date], "[pd.Timestamp('2026-01-02')]", [dt.date(2026, 1, 2)]),
        (dt.timedelta, "__import__('datetime').timedelta(hours=1)", dt.timedelta(hours=1)),
        (Decimal, "__import__('decimal').Decimal('1E+2')", Decimal(100)),
        (uuid.UUID, "__import__('uuid').UUID(int=1)", str(uuid.UUID(int=1))),
        (str, "object()", None),
        (str, "__import__('re').match('a', 'a')", None),
        (str, "''", None),
        (list[dt.date], "np.array(['2026-01-02'], 'datetime64[ns]')", [dt.date(2026, 1, 2)]),
        (Any, "np.array(['2026-01-02'], 'datetime64[ns]')", '["2026-01-02T00:00:00"]'),
        (list[dt.timedelta], "np.array([5_000], 'timedelta64[ns]')", [dt.timedelta(microseconds=5)]),
    ],
)
def test_what_code_submits_is_stored_as_it_is_or_not_accepted(kind, code, stored):
    def provider(request):
        if request.tool_results:
            return findings(request, lambda unit: {"x": 3.5})  # which fits none of the types
        return Call("python_repl", {"code": f"submit([{{'x': {code}}}])"})

    with ScriptedServer(provider) as server:
        frame = pd.DataFrame({"text": ["a"]}).amr.map_reduce(
            map="Which?",
            finding={"x": kind},
            reduce=len,
            tools=[amr.PythonREPLTool()],
            lm=server.lm(),
            errors="coerce",
        )
    found = frame.frame["x"].iloc[0]
    if stored is None:
        assert pd.isna(found)
    else:
        assert (list(found) if isinstance(stored, list) else found) == stored


def test_a_validator_that_raises_what_pydantic_lets_pass_fails_its_row_alone():
    class Ratio(BaseModel):
        x: int

        @field_validator("x")
        @classmethod
        def divide(cls, value: int) -> int:
            return 6 // value

    df = pd.DataFrame({"text": ["0", "2"]})
    with ScriptedServer(lambda r: findings(r, lambda unit: {"x": int(unit["text"])})) as server:
        result = df.amr.map_reduce(map="n?", finding=Ratio, reduce={"x": "sum"}, lm=server.lm())
    assert result.frame["x"].tolist() == [pd.NA, 3]
    assert "its validator raised ZeroDivisionError" in result.failures["reason"][0]


SCHEMAS = [
    int,
    float,
    str,
    bool,
    int | None,
    list[int],
    list[str] | None,
    dict[str, int],
    set[int],
    tuple[int, bool],
    Place,
    list[Place],
    Literal[0, 0.5, "x"],
    Literal[True, "x", None],
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2, width=16) | st.sampled_from(["x", "1", "Rom"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["city", "street", "a"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@once
@settings(max_examples=examples(400))
@given(kind=st.sampled_from(SCHEMAS), value=JSON)
def test_what_is_forbidden_is_what_the_json_schema_s_own_library_forbids(kind, value):
    """But for keys that nobody asked for, which are left aside, and nullable ones, which may be left out."""
    import jsonschema

    schema = json_schema(kind, marked=True)
    expected = jsonschema.Draft202012Validator(_lenient(schema)).is_valid(value)
    assert (find_violation(value, schema) is None) == expected


def _lenient(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_lenient(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _lenient(value) for key, value in schema.items() if key not in {"maxItems", "minItems"}}
    if "properties" in schema:
        kept["additionalProperties"] = True
        kept["required"] = [name for name, part in schema["properties"].items() if "anyOf" not in part]
    if "prefixItems" in schema:
        kept["minItems"] = len(schema["prefixItems"])
    return kept


STRAYING = [
    (dt.datetime, "2026-01-02T03:04:05", lambda said: said.replace(tzinfo=UTC)),
    (dt.time, "03:04:05", lambda said: said.replace(tzinfo=UTC)),
    (AwareDatetime, "2026-01-02T03:04:05Z", lambda said: said.replace(tzinfo=None)),
    (AwareDatetime | None, "2026-01-02T03:04:05Z", lambda said: said.date()),
    (list[dt.datetime], ["2026-01-02T03:04:05"], lambda said: [one.replace(tzinfo=UTC) for one in said]),
    (dict[str, dt.time], {"a": "03:04:05"}, lambda said: {"a": said["a"].replace(tzinfo=UTC)}),
]


@pytest.mark.parametrize(("kind", "said", "change"), STRAYING)
def test_a_time_whose_validator_adds_or_takes_its_zone_is_not_stored_as_another_one(kind, said, change):
    assert not found_of(kind, said).frame["x"].isna().any()
    result = found_of(Annotated[kind, AfterValidator(change)], said)
    assert result.frame["x"].isna().all()
    assert "its validator gave what the type does not take: x" in result.failures["reason"][0]


@pytest.mark.parametrize("said", ["0.12345678901", "1" * 30, "1" * 60])
def test_a_decimal_of_too_many_digits_is_told_how_many_its_column_holds(said):
    reason = found_of(Decimal, said).failures["reason"][0]
    assert "a decimal does not fit the column type (up to 29 digits before the point, 9 after it)" in reason


BEYOND_64_BITS = enum.Enum("BEYOND_64_BITS", {"SMALL": 1, "LARGE": -(2**64)})


@pytest.mark.parametrize(
    "kind", [[1, 2**63], [0.5, 2**53 + 1], Literal[2**63], BEYOND_64_BITS, list[Literal[2**63]] | None]
)
def test_choices_that_no_column_holds_are_refused_before_a_request(kind):
    with ScriptedServer(lambda request: pytest.fail("asked")) as server:
        with pytest.raises(amr.UsageError, match=r"'x': No column can hold the choices .* all of them texts"):
            pd.DataFrame({"text": ["a"]}).amr.map("Which?", finding={"x": kind}, lm=server.lm())
        assert server.requests == []


def test_numbers_that_json_does_not_have_are_refused_in_every_form_of_an_answer():
    text = '{"findings": [{"unit": 0, "x": NaN}]}'
    with ScriptedServer(lambda request: Raw(text)) as server:
        result = pd.DataFrame({"text": ["a"]}).amr.map_reduce(
            map="n?", finding={"x": float}, reduce=len, lm=server.lm(), errors="coerce"
        )
    assert result.frame["x"].isna().all()


class Checked(BaseModel):
    a: int = Field(ge=0, le=9)
    price: Decimal = Field(ge=0)
    word: Annotated[str, AfterValidator(str.lower)]
    past: PastDate
    sizes: list[Annotated[int, Field(gt=0)]]
    note: str | None = None

    @field_validator("a")
    @classmethod
    def even(cls, value: int) -> int:
        return value


def test_what_a_plan_s_json_cannot_hold_is_said_and_the_plan_made_of_it_is_marked():
    plan = amr.Plan(map_instruction="Read.", finding=Checked)
    with pytest.warns(amr.PlanWarning, match="finding: a: the validator even"):
        text = plan.to_json()
    again = amr.Plan(**json.loads(text))
    assert again.left_out == [
        "finding: a: the validator even",
        "finding: price: ge=0",
        "finding: word: the validator lower",
        "finding: past: now_op=past",
    ]
    assert "left_out" in repr(again)
    assert again.to_json() == text


def test_optional_fields_and_bounds_of_items_come_back_from_a_plan_s_json():
    kind = record_type("Finding", {"n": (int | None, Field(default=None)), "m": list[Annotated[int, Field(gt=0)]]})
    again = amr.Plan(**json.loads(amr.Plan(finding=kind).to_json())).finding
    assert not again.model_fields["n"].is_required()
    assert again(m=[1]).n is None
    with pytest.raises(ValueError, match="greater than 0"):
        again(m=[0])


def test_times_of_a_plan_kept_before_zones_were_told_apart_are_still_without_one():
    kept = {
        "amr_plan": 1,
        "finding": {"type": "object", "properties": {"x": {"type": "string", "format": "date-time"}}},
    }
    plan = amr.Plan(**kept)
    assert plan.finding.model_fields["x"].annotation is dt.datetime


# What a reduce gives


class Report(BaseModel):
    title: str
    count: int
    day: dt.date | None = None


def halve(value: float) -> float:
    return value / 2


class Halved(BaseModel):
    x: Annotated[float, AfterValidator(halve)]


def output_of(kind: Any, said: Any, **options: Any) -> Any:
    """The result of a reduce whose agent says ``said``."""

    def provider(request):
        if request.schema == "reduction":
            listed = isinstance(said, list) and said and isinstance(said[0], dict)
            return {"output": [{**one, "sources": [0]} for one in said] if listed else said, "sources": [0]}
        return findings(request, lambda unit: {"finding": "x"})

    with ScriptedServer(provider) as server:
        return pd.DataFrame({"text": ["a", "b"], "g": [1, 2]}).amr.map_reduce(
            map="What?", reduce="Sum up.", output=kind, lm=server.lm(), errors="coerce", **options
        )


NO_OUTPUT = [
    (str, "", "is empty"),
    (str, " \n", "is empty"),
    (str | None, "", "is empty"),
    (list[str], ["a", ""], "1: is empty"),
    (list[list[str]], [[""]], "is empty"),
    (dict[str, str], {"a": ""}, "is empty"),
    (dict, {"a": [""]}, "is empty"),
    (pd.DataFrame, [{"a": ""}], "is empty"),
    (Report, {"title": "", "count": 1, "day": None}, "title: is empty"),
    (list[Report], [{"title": " ", "count": 1, "day": None}], "title: is empty"),
    (Town, {"ort": "", "zahl": 1}, "ort: is empty"),
    (Phone, {"number": 1, "kind": ""}, "kind: is empty"),
    (Word, "", "is empty"),
    (Report, {"title": "a", "count": "1", "day": None}, "an integer"),
    (Report, {"title": "a", "count": 1, "day": "2024"}, "day: "),
    (Report, {"title": "a", "count": 1, "day": "2026-01-02T00:00:00"}, "a date such as"),
    (bool, "yes", "true or false"),
    (bool, 1, "true or false"),
    (dt.datetime, "2026-01-02T03:04:05Z", "without a zone"),
    (Literal[1, "a"], True, "choices"),
    (set[int], [1, 1], "twice"),
    (dict[str, int], {"a": "1"}, "an integer"),
    (dict[int, int], {"7": 1, "07": 2}, "a key twice, in two forms"),
    (Annotated[dict[int, int], ["what is not to be hashed"]], {"7": 1, "07": 2}, "a key twice, in two forms"),
    (Decimal, 1.5, "written as a text"),
    (list[Report], [{"title": "a", "count": 2**70, "day": None}], "beyond 64 bits"),
    (list[Report], [{"title": "\ud800", "count": 1, "day": None}], "surrogate"),
]


@pytest.mark.parametrize("by", [None, "g"])
@pytest.mark.parametrize(("kind", "said", "reason"), NO_OUTPUT, ids=[f"{k} {s}" for k, s, _ in NO_OUTPUT])
@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
@pytest.mark.sampled(3)
def test_an_output_is_checked_as_strictly_as_a_finding(kind, said, reason, by):
    result = output_of(kind, said, by=by)
    assert result.failures["reason"].str.contains(reason).all(), result.failures["reason"][0]
    assert len(result.failures) == (1 if by is None else 2)
    assert result.output is None if by is None else result.output.isna().all(axis=None)


FREE_FRAMES = [
    ([{"id": 2**60 + 1}, {"name": "a"}], {"id": [2**60 + 1, None], "name": [None, "a"]}, "int64[pyarrow]"),
    ([{"id": 2**60 + 1}, {"id": 0.5}], {"id": [2**60 + 1, 0.5]}, "object"),
    ([{"id": 2**70}, {"id": None}], {"id": [2**70, None]}, "object"),
    ([{"id": 1}, {"name": "a"}], {"id": [1, None], "name": [None, "a"]}, "int64[pyarrow]"),
    ([{"id": 1}, {"id": 0.5}], {"id": [1.0, 0.5]}, "double[pyarrow]"),
    ([{"id": "007"}], {"id": ["007"]}, "string[pyarrow]"),
]


@pytest.mark.parametrize("by", [None, "g"])
@pytest.mark.parametrize(("said", "columns", "dtype"), FREE_FRAMES)
def test_a_frame_of_any_shape_holds_what_was_said(said, columns, dtype, by):
    output = output_of(pd.DataFrame, said, by=by).output.iloc[: len(said)]
    assert str(output["id"].dtype) == dtype
    assert {
        name: [None if pd.isna(value) else value for value in output[name].tolist()] for name in output.columns
    } == columns


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
def test_a_tuple_of_several_types_is_an_output():
    assert output_of(tuple[int, str], [1, "a"]).output == (1, "a")
    assert output_of(tuple[int, str], [1, 2]).output is None


OUTPUTS = [
    (Word, "x", Word("x"), "x"),
    (list[Word], ["x"], [Word("x")], "x"),
    (UserId, 3, 3, 3),
    (TypeAliasType("Labels", list[str]), ["a"], ["a"], "a"),
    (Annotated[float, AfterValidator(halve)], 4.0, 2.0, 2.0),
    (Phone, {"number": 1}, {"number": 1}, {"number": 1, "kind": None}),
    (Phone, {"number": 1, "kind": None}, {"number": 1}, {"number": 1, "kind": None}),
    (Bill, {"total": 1.0, "day": "2026-01-02", "note": None}, Bill(1.0, dt.date(2026, 1, 2)), None),
]


@pytest.mark.parametrize(
    ("kind", "said", "whole", "cell"), OUTPUTS, ids=[re.sub(r" at 0x\w+", "", str(kind)) for kind, *_ in OUTPUTS]
)
@pytest.mark.sampled(3)
def test_an_output_is_what_was_said_whole_and_by_groups(kind, said, whole, cell):
    assert output_of(kind, said).output == whole
    grouped = output_of(kind, said, by="g").output
    assert grouped.columns.tolist() == ["output"]
    assert cell is None or grouped["output"].tolist() == [cell, cell]


def test_validators_see_the_answer_of_a_group_once():
    assert output_of(Halved, {"x": 4.0}, by="g").output["x"].tolist() == [2.0, 2.0]


@pytest.mark.parametrize("kind", [int | str, tuple[int, str], bytes, complex, Place | Report])
def test_what_no_column_holds_is_no_output_of_groups(kind, refusing):
    with pytest.raises(amr.UsageError, match="No column can hold"):
        pd.DataFrame({"text": ["a"], "g": [1]}).amr.map_reduce(
            map="What?", reduce="Sum up.", output=kind, by="g", lm=refusing.lm()
        )


# Units that are read in pieces


def merged_of(kind: Any, first: Any, second: Any, *, written: str = "both", **plan: Any) -> Any:
    """The result for one long unit whose first piece says one finding, and the others another one."""

    def provider(request):
        if request.schema == "reduction":
            fields = request.body["response_format"]["json_schema"]["schema"]["properties"]["output"]["properties"]
            return {"output": dict.fromkeys(fields, written)}
        return findings(request, lambda unit: first if unit["part"].startswith("1 ") else second)

    frame = pd.DataFrame({"text": [" ".join(f"word{n}" for n in range(500))]})
    with ScriptedServer(provider) as server:
        return frame.amr.map_reduce(
            map="What?", finding=kind, reduce=len, lm=server.lm(), errors="coerce", plan={"shard_tokens": 800, **plan}
        )


class Deep(BaseModel):
    title: str = Field(alias="titel")
    town: Town = Field(alias="stadt")


@dataclasses.dataclass
class Trip:
    days: dict[str, int]
    start: dt.date


MERGED = [
    (
        Deep,
        {"titel": "a", "stadt": {"ort": "Rom", "zahl": 1}},
        {"titel": "b", "stadt": {"ort": "Ulm", "zahl": 3}},
        {"title": "both", "town": {"city": "both", "size": 3}},
    ),
    (
        {"x": Trip},
        {"x": {"days": {"a": 1}, "start": "2026-01-02"}},
        {"x": {"days": {"a": 2, "b": 1}, "start": "2026-01-03"}},
        {"x": {"days": [("a", 2), ("b", 1)], "start": dt.date(2026, 1, 2)}},
    ),
    ({"x": Phone}, {"x": {"number": 1}}, {"x": {"number": 2}}, {"x": {"number": 2, "kind": None}}),
    ({"x": ["1", 1]}, {"x": "1"}, {"x": 1}, {"x": 1}),
    ({"x": dict[Color, int]}, {"x": {"red": 1}}, {"x": {"red": 2}}, {"x": [("red", 2)]}),
    ({"x": dict[str, str]}, {"x": {"a": "x"}}, {"x": {"a": "y"}}, {"x": [("a", "both")]}),
    ({"x": dict}, {"x": {"a": [1]}}, {"x": {"a": [True]}}, {"x": '{"a": [1, true]}'}),
    ({"x": Word}, {"x": "a"}, {"x": "b"}, {"x": "both"}),
    ({"x": RootModel[dict[str, int]]}, {"x": {"a": 1}}, {"x": {"b": 1}}, {"x": [("a", 1), ("b", 1)]}),
]


@pytest.mark.parametrize(("kind", "first", "second", "expected"), MERGED, ids=[str(kind) for kind, *_ in MERGED])
def test_pieces_of_a_long_unit_merge_at_every_depth_and_by_any_name(kind, first, second, expected):
    result = merged_of(kind, first, second)
    assert result.status["status"].tolist() == ["ok"], result.failures["reason"].tolist()
    assert result.frame.drop(columns="text").iloc[0].to_dict() == expected


def test_durations_of_pieces_add_up():
    result = merged_of({"x": dt.timedelta}, {"x": "PT1H"}, {"x": "PT2H"}, merge={"x": "sum"})
    assert result.frame["x"].tolist() == [dt.timedelta(hours=5)]


@pytest.mark.parametrize(
    ("kind", "first", "second", "reason"),
    [
        ({"x": str}, {"x": "a"}, {"x": "b"}, "x: is empty"),
        ({"x": Place}, {"x": {"city": "a", "street": None}}, {"x": {"city": "b", "street": None}}, "is empty"),
        (Halved, {"x": 4.0}, {"x": 8.0}, "a validator changes again"),
    ],
)
def test_a_merged_finding_is_checked_as_one_that_was_said(kind, first, second, reason):
    result = merged_of(kind, first, second, written=" ")
    assert reason in result.failures["reason"][0]
    assert result.frame.drop(columns="text").isna().all(axis=None)


# Types of single values, of which less has to be checked


class Flat(BaseModel):
    text: str
    count: int
    share: float | None
    sure: bool = Field(alias="is-sure")
    mood: Literal["good", "bad", 3] | None


class Watched(Flat):
    @model_validator(mode="after")
    def give_it_back(self):
        return self


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["good", 3.0, 2**53, "3"])
)
JSON_VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2)
)
NAMES = st.sampled_from(["text", "count", "share", "is-sure", "sure", "mood", "unit"])


@settings(max_examples=examples(2_000), deadline=None)
@given(st.dictionaries(NAMES, JSON_VALUES), st.booleans(), st.booleans())
def test_a_type_of_single_values_takes_what_one_with_a_check_of_its_own_takes(said, coded, empty_texts):
    assert is_flat(Flat)
    assert not is_flat(Watched)
    options = {"coded": coded, "empty_texts": empty_texts}
    fields = {"text": "a", "count": 1, "share": 0.5, "is-sure": True, "mood": "bad", **said}
    for given_fields in (said, fields):
        flat = FindingType.of(Flat, None).record(given_fields, **options)
        assert repr(flat) == repr(FindingType.of(Watched, None).record(given_fields, **options))


class Label(str):
    __slots__ = ()


class Stripped(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)
    one: str
    other: int | None


class Renamed(BaseModel):
    one: str = Field(alias="other")
    other: str = Field(alias="one")


FIELD_TYPES = [
    *(str, int, float, bool),
    *(str | None, int | None, float | None, bool | None),
    *(Annotated[str, Field(max_length=1)], Annotated[str, Field(description="a text")]),
    *(Annotated[str, Field(json_schema_extra={"format": "date"})], Annotated[str, AfterValidator(str.upper)]),
    *(Annotated[int, Field(ge=0)], Annotated[float, Field(allow_inf_nan=False)], Annotated[int, Field(strict=True)]),
    *(Literal["a", "b"], Literal[1, 3], Color, list[int], dt.date, Any),
]
OF_TWO = st.tuples(st.sampled_from(FIELD_TYPES), st.sampled_from(FIELD_TYPES)).map(
    lambda kinds: record_type("Pair", {"one": kinds[0], "other": kinds[1]})
)
MODELS = st.sampled_from([Stripped, Renamed]) | OF_TWO
OWN_VALUES = {  # of each type, but some are refused nevertheless
    str: ["a", " a ", "2026-01-31"],
    int: [1, 3, -1],
    float: [0.5, -0.0, math.inf],
    bool: [True, False],
}
OTHER_VALUES = ["", "\ud800", "1", Label("a"), Color.RED, 3.0, 2**53 + 1, 2**63, math.nan, 1, True, 0.5, None, pd.NA]
OTHER_VALUES += [np.int64(3), np.float64(0.5), np.bool_(True), [1], dt.date.max, b"a"]


def draw_value(draw, annotation):
    """Draw one of the type's own values mostly, so that findings are valid as often as not."""
    own = [values for kind, values in OWN_VALUES.items() if annotation is kind or kind in get_args(annotation)]
    values = draw(st.sampled_from([*own * 9, OTHER_VALUES]))
    return draw(st.sampled_from(values))


@st.composite
def given_findings(draw):
    """Draw a type of findings, and what a function gives as such."""
    model = draw(MODELS)
    annotations = {info.alias or name: info.annotation for name, info in model.model_fields.items()}
    for change in draw(st.lists(st.sampled_from(["without", "more"]), max_size=1)):
        annotations = {"one": str} if change == "without" else {**annotations, 1: int}
    rows = range(draw(st.integers(0, 3)))
    return model, [{name: draw_value(draw, kind) for name, kind in annotations.items()} for _ in rows]


def outcome(check):
    """Tell what a check of findings gives, or what is wrong with them."""
    try:
        return repr(check().to_pylist())
    except InvalidOutput as error:
        return str(error)


@settings(max_examples=examples(5_000), deadline=None)
@given(given_findings())
def test_findings_of_a_function_are_checked_together_as_one_by_one(case):
    model, found = case
    kind = FindingType.of(model, None)
    singly = outcome(lambda: make_table([kind.valid(finding) for finding in found], kind.arrow))
    assert outcome(lambda: kind.valid_table(found)) == singly


def test_a_whole_number_that_no_column_holds_fails_its_row_alone_in_what_a_function_gives():
    df = pd.DataFrame({"n": [1, 2**63, 3]})
    with pytest.warns(amr.FailureWarning):
        found = df.amr.map(lambda shard: [{"m": n} for n in shard["n"]], finding={"m": int})
    assert found["m"].tolist() == [1, pd.NA, 3]
    failures = amr.result_of(found).failures
    assert "does not fit the column type" in failures["reason"].item()


# What a plan's JSON cannot hold


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", str_max_length=5)
    x: str


@pytest.mark.parametrize(
    ("kind", "lost"),
    [
        (HttpUrl, "the type url"),
        (Json[list[int]], "the type json"),
        (UUID4, None),
        (Phone, None),
        (Bill, "the validator"),
        (list[Town], None),
        (Strict, "str_max_length=5"),
        (Word, None),
        (Color, None),
        (list[AwareDatetime], None),
        (dict[str, Annotated[int, Field(ge=0)]], None),
    ],
)
@pytest.mark.parametrize("place", ["finding", "output"])
def test_a_plan_s_json_holds_a_type_or_says_what_it_lost(kind, lost, place):
    given = {"finding": record_type("Finding", {"x": kind})} if place == "finding" else {"output": kind}
    plan = amr.Plan(map_instruction="Read.", **given)
    if lost is None:
        text = plan.to_json()
        assert amr.Plan(**json.loads(text)).to_json() == text
        return
    with pytest.warns(amr.PlanWarning, match=lost):
        text = plan.to_json()
    assert lost in str(amr.Plan(**json.loads(text)).left_out)


def test_bounds_of_an_output_come_back_from_a_plan_s_json():
    again = amr.Plan(**json.loads(amr.Plan(output=Annotated[str, Field(min_length=3)]).to_json()))
    assert json_schema(again.output) == {"type": "string", "minLength": 3}


def test_a_finding_s_own_check_is_said_to_be_lost():
    with pytest.warns(amr.PlanWarning, match="check_whole"):
        amr.Plan(finding=Bill).to_json()
    amr.Plan(finding=Card).to_json()
