"""``result.records``: the findings as objects of the user's own type, in the order of ``result.findings``."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import subprocess
import sys
import uuid
import warnings
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import pytest
import typing_extensions
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    PrivateAttr,
    RootModel,
    field_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass

import pandas_amr as amr
from pandas_amr.testing import ScriptedServer, findings

ROWS = pd.DataFrame({"text": ["a", "b", "c"]}, index=["x", "y", "y"])
BAD = "b"  # the text of the row that fails


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Ratio(enum.Enum):
    HALF = 0.5
    ONE = 1


class Mixed(enum.Enum):
    ONE = 1
    TEXT = "1"


class Code(RootModel[str]):
    pass


class Place(BaseModel):
    city: str
    since: dt.date | None = None


class Choices(BaseModel):
    mood: Mood
    level: Level
    ratio: Ratio
    mixed: Mixed
    number: Literal[1, 2.5]
    literal: Literal[Level.LOW]
    perhaps: Mood | None = None


class Times(BaseModel):
    at: AwareDatetime
    local: dt.datetime
    day: dt.date
    time: dt.time
    took: dt.timedelta


class Scalars(BaseModel):
    price: Decimal
    id: uuid.UUID
    url: HttpUrl
    path: Path
    number: int | float
    code: Code


class Containers(BaseModel):
    tags: set[str]  # its repr has no order
    pair: tuple[int, int]
    many: tuple[Mood, ...]
    frozen: frozenset[int]
    sequence: Sequence[Decimal]
    by_level: dict[Level, Place]
    by_day: dict[dt.date, int]
    by_name: dict[str, Any]
    anything: Any
    nothing: list[int] | None = None


class Untyped(BaseModel):
    items: list
    perhaps: list | None
    by_name: dict[str, list]
    sequence: Sequence
    rows: list[list]


class Nested(BaseModel):
    place: Place
    places: list[Place]
    maybe: Place | None = None
    by_name: dict[str, list[Place]]


class Aliased(BaseModel):
    a: int = Field(alias="b")
    b: int = Field(alias="a")
    c: str = Field(validation_alias="the c")


class Twice(BaseModel):
    """Validators that change what they get would change it again."""

    doubled: Annotated[int, AfterValidator(lambda value: value * 2)]
    longer: Annotated[str, BeforeValidator(lambda value: value + "!")]
    shout: str

    @field_validator("shout")
    @classmethod
    def _shout(cls, value: str) -> str:
        if value.isupper():
            raise ValueError("is upper case already")
        return value.upper()


class Private(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    n: int
    _half: int = PrivateAttr(0)

    def model_post_init(self, context: Any, /) -> None:
        self._half = self.n // 2


class Defaults(BaseModel):
    named: str = "somebody"
    count: int | None = None
    tags: list[str] = Field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Spot:
    x: int
    mood: Mood = Mood.BAD
    place: Place | None = None


@dataclasses.dataclass
class Derived:
    words: str

    def __post_init__(self) -> None:
        self.count = len(self.words.split())


@pydantic_dataclass
class Checked:
    n: Annotated[int, AfterValidator(lambda value: value + 1)]


class Keys(typing_extensions.TypedDict):
    x: int
    y: typing_extensions.NotRequired[Mood]


A_TIME = "2026-01-31T10:00:00"
# The type, and a finding as the model gives it. That is expected which pydantic makes of it, if nothing is said.
TYPES: dict[str, tuple[Any, dict[str, Any]]] = {
    "choices": (
        Choices,
        {"mood": "good", "level": 2, "ratio": 1, "mixed": "1", "number": 1, "literal": 1, "perhaps": "bad"},
    ),
    "choices, none": (
        Choices,
        {"mood": "bad", "level": 1, "ratio": 0.5, "mixed": 1, "number": 2.5, "literal": 1, "perhaps": None},
    ),
    "times": (
        Times,
        {"at": f"{A_TIME}+02:00", "local": A_TIME, "day": "2026-01-31", "time": "10:30:00", "took": "PT90S"},
    ),
    "scalars": (
        Scalars,
        {
            "price": "1.5",
            "id": str(uuid.UUID(int=7)),
            "url": "https://example.com/a",
            "path": "a/b",
            "number": 2.5,
            "code": "X1",
        },
    ),
    "containers": (
        Containers,
        {
            "tags": ["b"],
            "pair": [1, 2],
            "many": ["good", "bad"],
            "frozen": [3],
            "sequence": ["0.1"],
            "by_level": [{"key": 2, "value": {"city": "Oslo", "since": None}}],
            "by_day": [{"key": "2026-01-31", "value": 3}],
            "by_name": [{"key": "k", "value": {"json": "[1, null]"}}],
            "anything": {"json": '{"a": [1.5]}'},
            "nothing": None,
        },
    ),
    "lists without a type": (
        Untyped,
        {
            "items": [1, "a", {"json": '{"b": [null]}'}],
            "perhaps": None,
            "by_name": [{"key": "k", "value": [1.5, "a"]}],
            "sequence": [True],
            "rows": [[1], ["a"]],
        },
    ),
    "nested": (
        Nested,
        {
            "place": {"city": "Oslo", "since": "1048-01-01"},
            "places": [{"city": "Rome", "since": None}],
            "maybe": None,
            "by_name": [{"key": "k", "value": [{"city": "Bern", "since": None}]}],
        },
    ),
    "aliases": (Aliased, {"b": 1, "a": 2, "the c": "see"}),
    "validators": (Twice, {"doubled": 3, "longer": "x", "shout": "hey"}),
    "private attributes": (Private, {"n": 8}),
    "defaults": (Defaults, {"named": "me", "count": None, "tags": []}),
    "a dataclass": (Spot, {"x": 1, "mood": "good", "place": {"city": "Oslo", "since": None}}),
    "a dataclass that derives": (Derived, {"words": "one two"}),
    "a pydantic dataclass": (Checked, {"n": 1}),
    "a TypedDict": (Keys, {"x": 1, "y": "good"}),
    "a TypedDict without a key": (Keys, {"x": 1, "y": None}),
}


def _expected(name: str) -> Any:
    kind, given = TYPES[name]
    match name:
        case "containers":
            place = Place(city="Oslo")
            return Containers(
                **(
                    given
                    | {
                        "by_level": {2: place},
                        "by_day": {"2026-01-31": 3},
                        "by_name": {"k": [1, None]},
                        "anything": {"a": [1.5]},
                    }
                )
            )
        case "lists without a type":
            return Untyped(**(given | {"items": [1, "a", {"b": [None]}], "by_name": {"k": [1.5, "a"]}}))
        case "nested":
            return Nested(**(given | {"by_name": {"k": [{"city": "Bern"}]}}))
        case "a TypedDict":
            return {"x": 1, "y": Mood.GOOD}
        case "a TypedDict without a key":
            return {"x": 1}
        case "a dataclass":
            return Spot(1, Mood.GOOD, Place(city="Oslo"))
        case "a dataclass that derives" | "a pydantic dataclass":
            return kind(**given)
    return kind.model_validate(given)


def _answer(given: dict[str, Any]) -> Any:
    def provider(request: Any) -> Any:
        return findings(request, lambda unit: {} if unit["text"] == BAD else given)

    return provider


def _run(kind: Any, given: dict[str, Any], map: Any = "What?") -> amr.Result:
    with ScriptedServer(_answer(given)) as server:
        return ROWS.amr.map_reduce(map=map, finding=kind, reduce=len, lm=server.lm(), journal=False)


def _save(result: amr.Result, folder: Path) -> None:
    with warnings.catch_warnings():  # the plan's JSON cannot hold all checks of the types; records need none of them
        warnings.simplefilter("ignore", amr.PlanWarning)
        result.save(folder)


def _same(record: Any, expected: Any) -> bool:
    return type(record) is type(expected) and record == expected and repr(record) == repr(expected)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.sampled(4)
def test_a_record_is_what_the_type_made_of_the_finding_before_and_after_a_save(name, tmp_path):
    kind, given = TYPES[name]
    result = _run(kind, given)
    expected = _expected(name)
    if name == "times":  # the same moment; a column holds it in UTC
        expected = expected.model_copy(update={"at": expected.at.astimezone(dt.UTC)})
    _save(result, tmp_path / "saved")
    for records in (
        result.records,
        amr.load(tmp_path / "saved").records,
        amr.load(tmp_path / "saved", finding=kind).records,
    ):
        assert list(records.index) == list(result.findings.index) == ["x", "y", "y"]
        assert records.iloc[1] is None
        assert _same(records.iloc[0], expected), (records.iloc[0], expected)
        assert _same(records.iloc[2], expected)


def test_what_a_type_derives_is_there_and_the_records_are_made_once():
    result = _run(Private, {"n": 8})
    assert result.records.iloc[0]._half == 4
    assert result.records is result.records
    assert _run(Derived, {"words": "one two"}).records.iloc[2].count == 2


def test_a_dict_of_types_and_no_type_give_objects_of_a_type_that_was_made(tmp_path):
    result = _run({"mood": ["good", "bad"], "n": int}, {"mood": "good", "n": 3})
    record = result.records.iloc[0]
    assert (type(record).__name__, record.mood, record.n) == ("Finding", "good", 3)
    result.save(tmp_path / "saved")
    again = amr.load(tmp_path / "saved").records.iloc[2]
    assert (again.mood, again.n) == ("good", 3)
    assert _run(None, {"finding": "fine"}).records.iloc[0].finding == "fine"


def test_lists_of_records_stand_as_in_the_findings():
    items = [{"city": "Oslo", "since": None}, {"city": "Rome", "since": "0001-01-01"}]
    result = _run(list[Place], {"items": items})
    assert result.records.tolist() == [Place(**item) for item in items * 2]
    assert list(result.records.index) == list(result.findings.index) == ["x", "x", "y", "y"]
    assert _run(list[Spot], {"items": [{"x": 1, "mood": "bad", "place": None}]}).records.tolist() == [Spot(1), Spot(1)]


def test_maps_by_name_have_a_column_each(tmp_path):
    def lengths(shard: pd.DataFrame) -> list[dict[str, int]]:
        return [{"n": len(text)} for text in shard["text"]]

    kinds = {"mood": Choices, "size": Private, "places": list[Spot]}
    given = TYPES["choices"][1] | {"items": [{"x": 1, "mood": "good", "place": None}]}
    result = _run(kinds, given, {"mood": "Which mood?", "size": lengths, "places": "Which places?"})
    _save(result, tmp_path / "saved")
    for records in (result.records, amr.load(tmp_path / "saved").records):
        assert list(records.columns) == ["mood", "size", "places"]
        assert list(records.index) == ["x", "y", "y"]
        assert records["mood"].iloc[0] == Choices(**TYPES["choices"][1])
        assert records["mood"].iloc[1] is None
        assert records["size"].tolist() == [Private(n=1)] * 3
        assert records["places"].iloc[0] == [Spot(1, Mood.GOOD)]
        assert records["places"].iloc[1] is None


class AllOptional(BaseModel):
    a: int | None = None
    b: str | None = None


def test_a_record_of_nothing_but_none_is_no_missing_record():
    assert _run(AllOptional, {"a": None, "b": None}).records.tolist() == [AllOptional(), None, AllOptional()]


def test_a_class_of_a_function_has_to_be_said_when_the_result_is_loaded(tmp_path):
    class Local(BaseModel):
        n: int

    _run(Local, {"n": 1}).save(tmp_path / "saved")
    loaded = amr.load(tmp_path / "saved")
    with pytest.raises(amr.UsageError, match=r"cannot be imported .*amr\.load\(folder, finding=Local\)"):
        _ = loaded.records
    loaded.save(tmp_path / "again")
    assert amr.load(tmp_path / "again", finding=Local).records.iloc[0] == Local(n=1)
    with pytest.raises(amr.UsageError, match="AllOptional is not the type of these findings"):
        amr.load(tmp_path / "saved", finding=AllOptional)


@pytest.mark.long
def test_a_type_that_another_process_does_not_have_is_one_clear_error(tmp_path):
    _run(Place, {"city": "Oslo", "since": None}).save(tmp_path / "saved")
    script = f"import pandas_amr as amr; result = amr.load({str(tmp_path / 'saved')!r}); print(len(result.findings)); result.records"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "3\n"
    assert "test_records.Place, cannot be imported (ModuleNotFoundError)" in done.stderr.splitlines()[-1]


def untyped(shard: pd.DataFrame) -> list[dict[str, int]]:
    return [{"n": 1} for _ in range(len(shard))]


NO_RECORDS = {
    "a function without a type": (lambda: ROWS.amr.map_reduce(map=untyped, reduce=len), "finding=Model"),
    "a named function without a type": (
        lambda: ROWS.amr.map_reduce(map={"size": untyped, "more": untyped}, reduce=len),
        r"finding=\{'size': Model\}",
    ),
    "a reduce": (lambda: amr.result_of(ROWS.amr.map(untyped)), "without a type"),
    "a recipe": (lambda: amr.Recipe().map(untyped)(ROWS), r"result\.stages\[i\]\.records"),
}


@pytest.mark.parametrize("name", NO_RECORDS)
def test_where_there_are_no_records_an_error_says_what_there_is(name):
    make, message = NO_RECORDS[name]
    with pytest.raises(amr.UsageError, match=message):
        _ = make().records


def test_a_stage_of_a_recipe_a_retry_and_a_filter_have_records():
    with ScriptedServer(_answer({"city": "Oslo", "since": None})) as server:
        recipe = amr.Recipe().map("Where?", finding=Place).reduce(len)
        with pytest.warns(amr.FailureWarning):
            result = recipe(ROWS, lm=server.lm(), journal=False)
        assert result.stages[0].records.tolist() == [Place(city="Oslo"), None, Place(city="Oslo")]
        with pytest.warns(amr.FailureWarning):
            again = result.stages[0].retry()
        assert again.records.tolist() == [Place(city="Oslo"), None, Place(city="Oslo")]
    kept = ROWS.amr.filter(lambda shard: shard["text"] != "c")
    assert [record.amr_keep for record in amr.result_of(kept).records] == [True, True, False]


def test_a_function_gives_objects_of_the_type_and_a_recipe_of_functions_needs_no_model():
    def spots(shard: pd.DataFrame) -> list[Spot]:
        return [Spot(len(text), Mood.GOOD, Place(city="Oslo")) for text in shard["text"]]

    def sizes(shard: pd.DataFrame) -> list[dict[str, int]]:
        return [{"n": 1}] * len(shard)

    result = ROWS.amr.map_reduce(map=spots, finding=Spot, reduce=len)
    assert result.records.tolist() == [Spot(1, Mood.GOOD, Place(city="Oslo"))] * 3
    both = amr.Recipe().map({"spots": spots, "sizes": sizes}, finding={"spots": Spot, "sizes": {"n": int}})
    assert both(ROWS).stages[0].records["spots"].tolist() == result.records.tolist()
