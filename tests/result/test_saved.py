"""What is saved comes back, exactly; what would not is refused before anything is written."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import math
import resource
import shutil
import subprocess
import sys
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

import pandas_amr as amr
from examples import examples
from pandas_amr._units.frame_codec import Encoded, decode_table, encode_frame
from pandas_amr._units.parquet import ArrowFrame
from pandas_amr.sandbox.guest import worker
from pandas_amr.testing import ScriptedServer, Status, findings

OLD = Path(__file__).parents[1] / "data" / "saved-format-1"
NANS = float("nan")
UTC = dt.UTC
OSLO = zoneinfo.ZoneInfo("Europe/Oslo")


class Mood(enum.Enum):
    GOOD = "good"


class Level(enum.IntEnum):
    LOW = 1


class Place(BaseModel):
    city: str
    founded: dt.date | None
    price: Decimal


class Aliased(BaseModel):
    number: int = Field(alias="the number")


class Moody(BaseModel):
    mood: Mood


@dataclasses.dataclass
class Spot:
    x: int


class Told(TypedDict):
    x: int


class Pair(NamedTuple):
    a: int
    b: int


class Own:
    pass


def provider(request):
    if request.schema == "reduction":
        return {"output": "all", "sources": list(range(len(request.findings)))}
    if any(unit["text"] == "row 2" for unit in request.units):
        return Status(400, "no")
    return findings(request, lambda unit: {"n": int(unit["text"].split()[1])})


def run(rows: int = 4, **options: Any) -> amr.Result:
    frame = pd.DataFrame({"text": [f"row {n}" for n in range(rows)], "shop": ["a", "b"] * (rows // 2)})
    with ScriptedServer(provider) as server:
        given = {"map": "n?", "columns": ["text"], "finding": {"n": int}, "reduce": {"n": "sum"}, "lm": server.lm()}
        return frame.amr.map_reduce(plan={"shard_size": 1}, journal=False, **given | options)


@pytest.fixture(scope="module")
def result() -> amr.Result:
    return run()


def with_plan(result: amr.Result, output: Any, kind: Any) -> amr.Result:
    return dataclasses.replace(result, output=output, plan=result.plan.replace(output=kind))


def same_values(one: Any, other: Any) -> bool:
    """Whether two values are the same to the last bit, and of the same types."""
    if type(one) is not type(other):
        return False
    if isinstance(one, pd.DataFrame):
        return same_frames(one, other)
    if isinstance(one, pd.Series):
        return same_values(one.name, other.name) and same_frames(one.to_frame("x"), other.to_frame("x"))
    if isinstance(one, pd.Index):
        return same_indexes(one, other)
    if isinstance(one, pd.api.extensions.ExtensionArray):
        return same_arrays(one, other)
    if isinstance(one, dict | list | tuple | set | frozenset | np.ndarray):
        return same_parts(one, other)
    return same_scalars(one, other)


def same_parts(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return same_values(list(one.items()), list(other.items()))
    if isinstance(one, set | frozenset):
        return len(one) == len(other) and all(any(same_values(a, b) for b in other) for a in one)
    if isinstance(one, np.ndarray):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and same_values(one.ravel().tolist(), other.ravel().tolist())
    return len(one) == len(other) and all(map(same_values, one, other))


def same_scalars(one: Any, other: Any) -> bool:
    if isinstance(one, pd.Timestamp):
        return one.unit == other.unit and str(one.tz) == str(other.tz) and one.asm8 == other.asm8
    if isinstance(one, float | np.floating) and one != one:  # noqa: PLR0124
        return bool(other != other)  # noqa: PLR0124
    return repr(one) == repr(other)


def same_arrays(one: Any, other: Any) -> bool:
    return one.dtype == other.dtype and repr(one.dtype) == repr(other.dtype) and same_values(list(one), list(other))


def same_indexes(one: pd.Index, other: pd.Index) -> bool:
    if type(one) is not type(other) or not same_values(list(one.names), list(other.names)):
        return False
    if isinstance(one, pd.MultiIndex):
        levels = len(one.levels) == len(other.levels) and all(map(same_indexes, one.levels, other.levels))
        return levels and same_values([part.tolist() for part in one.codes], [part.tolist() for part in other.codes])
    if isinstance(one, pd.RangeIndex):
        return (one.start, one.stop, one.step) == (other.start, other.stop, other.step)
    return getattr(one, "freq", None) == getattr(other, "freq", None) and same_arrays(one.array, other.array)


def same_frames(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    marks = [
        {name: value for name, value in part.attrs.items() if name != "pandas_amr_result"} for part in (one, other)
    ]
    return (
        one.shape == other.shape
        and same_indexes(one.index, other.index)
        and same_indexes(one.columns, other.columns)
        and same_values(*marks)
        and one.flags == other.flags
        and all(same_arrays(one.iloc[:, n].array, other.iloc[:, n].array) for n in range(one.shape[1]))
    )


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def arrow(values: list[Any], kind: Any) -> pd.Series:
    return pd.Series(pd.array(values, dtype=pd.ArrowDtype(kind)))


DAYS = pd.to_datetime(["2026-01-01", None, "2026-07-01"])
OBJECTS: dict[str, Any] = {
    "none, nan, NA and NaT": [None, NANS, pd.NA, pd.NaT, np.datetime64("NaT", "ns")],
    "texts and None": ["a", None, "", "é\u2028"],
    "texts and nan": ["a", NANS],
    "half of a character": ["bad \ud800", "x"],
    "texts that are JSON": ['{"tuple": [1]}', "[1]", "null"],
    "bools and numbers": [True, 1, 1.0, -0.0, math.inf, -math.inf],
    "integers beyond 64 bits": [2**80, -(2**70), 1],
    "decimals": [Decimal("1.50"), Decimal("-0"), Decimal("1E+5"), Decimal("NaN"), Decimal("0.1") ** 20],
    "dates": [dt.date(2026, 1, 2), dt.date.min, None],
    "moments": [
        dt.datetime(2026, 1, 2, 3, 4, 5, 6),
        dt.datetime(2026, 1, 2, tzinfo=UTC),
        dt.datetime(2026, 10, 25, 2, 30, tzinfo=OSLO, fold=1),
        dt.datetime(2026, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=1), "XYZ")),
    ],
    "times": [dt.time(9), dt.time(9, 0, 0, 1, tzinfo=UTC), dt.time(1, fold=1)],
    "durations": [dt.timedelta(days=-1, microseconds=3), dt.timedelta.max],
    "pandas scalars": [
        pd.Timestamp("2026-01-01", tz="Europe/Oslo"),
        pd.Timestamp("2026-10-25 00:30", tz="UTC").tz_convert("Europe/Oslo"),
        pd.Timestamp("0001-01-01").as_unit("s"),
        pd.Timestamp(1, unit="ns"),
        pd.Timedelta(3, "ns"),
        pd.Timedelta(days=3).as_unit("s"),
        pd.Period("2026Q1", freq="Q-FEB"),
        pd.Period("2026-01-05", freq="3D"),
        pd.Interval(0, 1.5, closed="left"),
        pd.Interval(pd.Timestamp("2026-01-01"), pd.Timestamp("2026-01-02")),
    ],
    "numpy scalars": [
        np.int8(3),
        np.uint64(2**64 - 1),
        np.float32(0.1),
        np.float16(0.1),
        np.float64("nan"),
        np.bool_(1),
        np.complex64(1 + 2j),
        np.str_("a"),
        np.bytes_(b"a\0b"),
        np.datetime64("2026-01", "M"),
        np.timedelta64(3, "s"),
    ],
    "bytes": [b"raw\xff", bytearray(b"x"), b""],
    "sets": [{1, "1"}, frozenset({(1, 2)}), set()],
    "tuples and lists": [(1, [2, (3,)]), [], (), [(), [[]]]],
    "dicts with keys of any kind": [{1: "a", "1": "b", (1, 2): None, dt.date(2026, 1, 1): 3, None: 4}, {}],
    "dicts that differ": [{"a": 1}, {"b": {1, 2}}, {"a": 2.0}],
    "dicts that look like the form": [{"tuple": [1]}, {"dict": []}],
    "counters": [Counter("abca"), OrderedDict(b=1, a=2), range(1, 9, 2)],
    "complex": [1 + 2j, complex("nan-infj")],
    "arrays": [np.array([[1, 2], [3, 4]]), np.array(["a", None, (1, 2)], dtype=object), np.array([], dtype="U3")],
    "uuids": [uuid.UUID(int=3)],
    "zones and dtypes": [UTC, OSLO, np.dtype("M8[s]"), pd.Int64Dtype(), pd.CategoricalDtype(["a"])],
}


def of_objects(values: list[Any]) -> pd.Series:
    array = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        array[place] = value
    return pd.Series(array, dtype=object)


COLUMNS: dict[str, pd.Series] = {
    **{name: of_objects(values) for name, values in OBJECTS.items()},
    "int64": pd.Series([2**53 + 1, -(2**63)]),
    "uint64": pd.Series([2**64 - 1, 0], dtype="uint64"),
    "Int64 beyond 2**53": pd.Series([2**53 + 1, None, -(2**63)], dtype="Int64"),
    "UInt64": pd.Series([2**64 - 1, None], dtype="UInt64"),
    "Float64 with NaN and NA": pd.Series(pd.array([0.1, None, -0.0], dtype="Float64")),
    "Float32": pd.Series([0.1, None], dtype="Float32"),
    "boolean": pd.Series([True, None], dtype="boolean"),
    "bool": pd.Series([True, False]),
    "float64": pd.Series([-0.0, NANS, math.inf, 5e-324]),
    "float32": pd.Series([0.1, NANS], dtype="float32"),
    "float16": pd.Series([0.1, NANS, -0.0], dtype="float16"),
    "complex128": pd.Series([1 + 2j, complex(NANS, -0.0)]),
    "complex64": pd.Series([1 + 2j], dtype="complex64"),
    **{f"datetime64[{unit}]": pd.Series(DAYS.as_unit(unit)) for unit in ("s", "ms", "us", "ns")},
    **{f"timedelta64[{unit}]": pd.Series((DAYS - DAYS[0]).as_unit(unit)) for unit in ("s", "ms", "us", "ns")},
    "a far year in seconds": pd.Series(np.array(["9999-01-01", "-2000-01-01"], dtype="M8[s]")),
    **{
        f"zone {zone}": pd.Series(DAYS.as_unit("s").tz_localize(zone))
        for zone in ("UTC", "Europe/Oslo", UTC, dt.timezone(dt.timedelta(hours=5, minutes=30)), OSLO)
    },
    "str": pd.Series(["a", None, ""], dtype="str" if pd.__version__ >= "3" else "string"),
    "string": pd.Series(["a", None, ""], dtype="string"),
    "string[python]": pd.Series(["a", None], dtype="string[python]"),
    "string[pyarrow]": pd.Series(["a", None], dtype="string[pyarrow]"),
    "string with nan": pd.Series(["a", None], dtype="string[pyarrow_numpy]")
    if pd.__version__ < "3"
    else pd.Series(["a", None], dtype=pd.StringDtype("python", na_value=np.nan)),
    "period": pd.Series(pd.PeriodIndex(["2026-01", None], freq="M")),
    "period of weeks": pd.Series(pd.period_range("2026-01-01", periods=2, freq="2W-SUN")),
    "interval": pd.Series(pd.interval_range(0, 2)),
    "interval of floats with none": pd.Series(pd.arrays.IntervalArray.from_tuples([(0.0, -0.0), None], closed="both")),
    "interval of moments": pd.Series(pd.interval_range(pd.Timestamp("2026-01-01", tz="UTC"), periods=2)),
    "sparse": pd.Series(pd.arrays.SparseArray([0, 0, 3])),
    "sparse with nan": pd.Series(pd.arrays.SparseArray([NANS, 1.5])),
    "sparse bools": pd.Series(pd.arrays.SparseArray([True, False], fill_value=True)),
    "category": pd.Series(["b", None, "a"], dtype=pd.CategoricalDtype(["b", "a", "unused"], ordered=True)),
    "category of one that is mixed": pd.Series(pd.Categorical([1, "many", True], categories=["many", 1, 2])),
    "category of tuples": pd.Series(
        pd.Categorical.from_codes([0, -1], pd.Index([(1, 2), (3, 4)], tupleize_cols=False))
    ),
    "category of intervals": pd.Series(pd.cut([1, 2, 9, NANS], 2)),
    "category of moments": pd.Series(pd.Categorical(DAYS.tz_localize("Europe/Oslo"))),
    "category of big integers": pd.Series(pd.Categorical([2**53 + 1, 2**53])),
    "category of floats": pd.Series(pd.Categorical([0.1, -0.0, math.inf])),
    "category of nothing": pd.Series(pd.Categorical([None, None])),
    "category of Int64": pd.Series(pd.Categorical(pd.array([2**60 + 1, None], dtype="Int64"))),
    "category of periods": pd.Series(pd.Categorical(pd.period_range("2026", periods=2, freq="D"))),
    "category of Arrow texts": pd.Series(["a", "b"], dtype="string[pyarrow]").astype("category"),
    "category of dates": pd.Series(pd.Categorical([dt.date(2026, 1, 2), None])),
    "arrow integers": arrow([2**60 + 1, None], pa.int64()),
    "arrow floats": arrow([0.1, None], pa.float64()),
    "arrow texts": arrow(["a", None], pa.large_string()),
    "arrow lists": arrow([[1, None], None, []], pa.list_(pa.int64())),
    "arrow structs": arrow([{"a": 1, "b": [0.5]}, None], pa.struct([("a", pa.int8()), ("b", pa.list_(pa.float64()))])),
    "arrow maps": arrow([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
    "arrow decimals": arrow([Decimal("1.50"), None], pa.decimal128(9, 2)),
    "arrow dates": arrow([dt.date(2026, 1, 2), None], pa.date32()),
    "arrow times": arrow([dt.time(9), None], pa.time64("us")),
    "arrow moments": arrow([pd.Timestamp("2026-01-02", tz="UTC"), None], pa.timestamp("ns", "Europe/Oslo")),
    "arrow durations": arrow([pd.Timedelta(3, "s"), None], pa.duration("s")),
    "arrow bytes": arrow([b"a\xff", None], pa.binary()),
    "arrow bools": arrow([True, None], pa.bool_()),
    "arrow nothing": arrow([None, None], pa.null()),
    "arrow categories": arrow(["a", None], pa.dictionary(pa.int8(), pa.string())),
    "empty": pd.Series([], dtype="float64"),
    "empty objects": pd.Series([], dtype=object),
    "empty categories": pd.Series([], dtype="category"),
}


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.sampled(7)
def test_a_column_of_every_kind_comes_back_as_it_is(kind, result, tmp_path):
    column = COLUMNS[kind]
    frame = pd.DataFrame({"x": column, "same": column}, index=range(len(column)))
    dataclasses.replace(result, frame=frame, output=column.rename(("x", 1))).save(tmp_path)
    loaded = amr.load(tmp_path)
    assert same_frames(loaded.frame, frame)
    assert same_values(loaded.output, column.rename(("x", 1)))
    if not kind.startswith(("sparse", "arrow")):
        loaded.frame.iloc[:, 0] = loaded.frame.iloc[:, 1]  # it can be written to


LABELS: dict[str, Any] = {
    "a range with start and step": pd.RangeIndex(5, -5, -5, name="r"),
    "texts, doubled": pd.Index(["a", "a"], name="t"),
    "integers with a name of an odd kind": pd.Index([2**53 + 1, 2], name=(1, dt.date(2026, 1, 1))),
    "NaN": pd.Index([NANS, -0.0]),
    "objects": pd.Index([None, NANS], dtype=object),
    "tuples": pd.Index([(1, 2), (3,)], tupleize_cols=False),
    "mixed": pd.Index([1, "1"], name=pd.Timestamp("2026-01-01", tz="UTC")),
    "bools": pd.Index([True, False]),
    "moments with a frequency": pd.date_range("2026-01-31", periods=2, freq="ME", tz="Europe/Oslo"),
    "moments in seconds": pd.date_range("2026-01-01", periods=2, unit="s"),
    "moments without a frequency": pd.DatetimeIndex([pd.NaT, "2026-01-01"]),
    "durations": pd.timedelta_range("1h", periods=2, freq="2h"),
    "periods": pd.period_range("2026-01", periods=2, freq="Q-NOV"),
    "intervals": pd.interval_range(0, 2, closed="left", name="i"),
    "categories": pd.CategoricalIndex(["b", None], categories=["b", "a"], ordered=True),
    "Int64": pd.Index([2**60 + 1, None], dtype="Int64"),
    "uint8": pd.Index([1, 2], dtype="uint8"),
    "float32": pd.Index([0.1, 2], dtype="float32"),
    "arrow": pd.Index([dt.date(2026, 1, 1), None], dtype=pd.ArrowDtype(pa.date32())),
    "string": pd.Index(["a", None], dtype="string"),
    "dates": pd.Index([dt.date(2026, 1, 1), dt.date(2026, 1, 2)]),
    "two levels": pd.MultiIndex.from_tuples([("a", 1), ("a", 1)], names=["x", None]),
    "levels with what is missing": pd.MultiIndex.from_arrays([[2**53 + 1, None], [NANS, "a"]]),
    "levels of types": pd.MultiIndex.from_arrays(
        [pd.Categorical(["b", "a"]), pd.to_datetime(["2026-01-01", None]), pd.interval_range(0, 2)]
    ),
    "levels of which some do not occur": pd.MultiIndex.from_product([["a", "b"], [1, 2]])[:2],
    "levels of groups without a key": pd.DataFrame({"a": pd.Categorical(["x", None]), "b": [NANS, 1.0]})
    .groupby(["a", "b"], dropna=False, observed=True)
    .size()
    .index,
    "one level": pd.MultiIndex.from_tuples([("a",), ("b",)], names=[("n", 1)]),
    "levels named alike": pd.MultiIndex.from_tuples([(1, 2), (3, 4)], names=["x", "x"]),
    "enough for a range": pd.Index([0, 1]),
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.sampled(2)
def test_labels_of_every_kind_come_back_on_either_axis(kind, result, tmp_path):
    labels = LABELS[kind]
    rows = pd.DataFrame({"x": [1, 2], 3: ["a", "b"]}, index=labels)
    columns = pd.DataFrame([[1, "a"], [2, "b"]]).set_axis(labels, axis=1)
    output = {"columns": columns, "none": columns.iloc[:0], "labels": labels, "rows": rows.iloc[:, :0]}
    dataclasses.replace(result, frame=rows, output=output).save(tmp_path)
    loaded = amr.load(tmp_path)
    assert same_frames(loaded.frame, rows)
    assert same_values(loaded.output, output)


OUTPUTS: dict[str, Any] = {
    **{f"a list of {name}": values for name, values in OBJECTS.items()},
    **{f"{kind} alone": values[0] for kind, values in OBJECTS.items()},
    "a dict of tables, numbers and texts": {
        "a": pd.Series([1, 2]).value_counts(),
        "b": 3,
        ("c", 1): "text",
        None: None,
    },
    "tables in a tuple": ({"x": [pd.DataFrame({"a": [1]})]}, pd.Series([1.5], name=pd.Timestamp("2026-01-01"))),
    "a table without columns": pd.DataFrame(index=[1, 2]),
    "an empty table": pd.DataFrame(),
    "columns of a range": pd.DataFrame([[1, 2]]),
    "doubled columns": pd.DataFrame([[1, "a"]], columns=["x", "x"]),
    "unique": pd.Categorical(["a", "b"]),
    "an array of Int64": pd.array([2**60 + 1, None], dtype="Int64"),
    "a TypedDict": Told(x=1),
    "a group's table": pd.DataFrame({"g": ["a", "b"], "n": [1, 2]}).groupby("g").agg({"n": ["sum", "mean"]}),
    "a Series whose labels are doubled": pd.Series([1, 2], index=["a", "a"], name="s"),
}


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.sampled(5)
def test_an_output_of_every_kind_comes_back_as_it_is(kind, result, tmp_path):
    dataclasses.replace(result, output=OUTPUTS[kind]).save(tmp_path)
    assert same_values(amr.load(tmp_path).output, OUTPUTS[kind])


MODEL = Place(city="Oslo", founded=dt.date(1048, 1, 1), price=Decimal("1.50"))


@pytest.mark.parametrize(
    ("output", "kind"),
    [(MODEL, Place), ({"a": MODEL, "b": MODEL}, dict[str, Place]), (Aliased(**{"the number": 3}), Aliased)],
)
def test_models_come_back_as_the_plan_s_type_has_them(output, kind, result, tmp_path):
    with_plan(result, output, kind).save(tmp_path)
    loaded = amr.load(tmp_path).output
    pairs = [(output, loaded)] if isinstance(output, BaseModel) else [(output[key], loaded[key]) for key in output]
    for one, other in pairs:
        assert isinstance(other, BaseModel)
        assert same_values(other.model_dump(), one.model_dump())


def test_what_a_result_says_of_its_run_comes_back(tmp_path):
    frame = pd.DataFrame({"text": [f"row {n}" for n in range(6)], "shop": ["a", "b"] * 3})
    with ScriptedServer(provider) as server:
        result = frame.amr.map_reduce(
            map="n?",
            columns=["text"],
            finding={"n": int},
            reduce="Say all.",
            by="shop",
            plan={"shard_size": 1},
            lm=server.lm(),
            budget=amr.Budget(calls=4),
            journal=False,
        )
    told = (amr.FailureWarning("some failed"), amr.AMRWarning("é"))
    result = dataclasses.replace(result, warnings=told, sandbox="strong", coverage=1 / 3)
    assert result.stopped
    result.save(tmp_path)
    loaded = amr.load(tmp_path)
    for name in ("stopped", "seconds", "sandbox", "coverage", "total"):
        assert same_values(getattr(loaded, name), getattr(result, name)), name
    assert [(type(one), str(one)) for one in loaded.warnings] == [(type(one), str(one)) for one in result.warnings]
    for name in ("frame", "findings", "usage", "failures", "trace", "spans", "status", "sources", "output"):
        assert same_values(getattr(loaded, name), getattr(result, name)), name
    assert repr(loaded) == repr(result)
    assert loaded.plan.to_json() == result.plan.to_json()


def test_groups_labels_and_parents_come_back(tmp_path):
    frame = pd.DataFrame(
        {"text": [f"row {n}" for n in range(6)], "part": pd.cut(range(6), 2), "day": DAYS[[0, 2, 0, 2, 0, 2]]},
        index=pd.period_range("2026-01", periods=6, freq="M"),
    )
    with ScriptedServer(provider) as server:
        result = frame.amr.map_reduce(
            map="n?",
            columns=["text"],
            finding={"n": int},
            reduce="Say all.",
            by=["part", "day"],
            plan={"shard_size": 1},
            lm=server.lm(),
            journal=False,
        )
    assert result.failures["label"].tolist() == [pd.Period("2026-03", freq="M")]
    result.save(tmp_path)
    loaded = amr.load(tmp_path)
    for name in ("frame", "findings", "usage", "failures", "trace", "spans", "status", "sources", "output"):
        assert same_values(getattr(loaded, name), getattr(result, name)), name
    for group in result.output.index:
        assert same_frames(loaded.explain(group=group), result.explain(group=group))


def test_stages_come_back_whole(tmp_path):
    recipe = amr.Recipe().map("n?", columns=["text"], finding={"n": int}, plan={"shard_size": 1}).reduce({"n": "sum"})
    with ScriptedServer(provider) as server, pytest.warns(amr.FailureWarning):
        result = recipe(pd.DataFrame({"text": ["row 0", "row 2", "row 3"]}, index=[1, 1, 2]), lm=server.lm())
    result.save(tmp_path)
    loaded = amr.load(tmp_path)
    assert len(loaded.stages) == len(result.stages) == 2
    for one, other in zip((loaded, *loaded.stages), (result, *result.stages), strict=True):
        for name in (
            "frame",
            "findings",
            "usage",
            "failures",
            "trace",
            "spans",
            "status",
            "sources",
            "output",
            "total",
        ):
            assert same_values(getattr(one, name), getattr(other, name)), name


def test_what_an_answer_was_computed_by_is_scored_after_loading_and_of_functions_it_is_said(tmp_path):
    def spread(column):
        return column.max() - column.min()

    wanted = {"worst": ("n", "max"), "usual": pd.NamedAgg("n", "median"), "width": ("n", spread)}
    result = run(4, reduce=wanted)
    result.save(tmp_path)
    loaded = amr.load(tmp_path)
    labels = {"n": [0, 1, 2, 9]}
    known, again = result.score(labels), loaded.score(labels)
    assert again.aggregates.to_numpy().tolist() == known.aggregates.iloc[:2].to_numpy().tolist()
    assert any("width" in told and "a function is not saved" in told for told in again.uncovered)
    loaded.save(tmp_path)
    assert amr.load(tmp_path).score(labels).uncovered == again.uncovered


def test_attributes_and_flags_come_back_but_not_whose_result_a_frame_is(result, tmp_path):
    frame = result.frame.copy().set_flags(allows_duplicate_labels=False)
    frame.attrs = {"source": ("a.csv", dt.date(2026, 1, 1)), 3: {4}, "pandas_amr_result": "0"}
    dataclasses.replace(result, frame=frame).save(tmp_path)
    loaded = amr.load(tmp_path).frame
    assert loaded.attrs == {"source": ("a.csv", dt.date(2026, 1, 1)), 3: {4}}
    assert not loaded.flags.allows_duplicate_labels


class OwnFrame(pd.DataFrame):
    pass


def circle() -> list[Any]:
    values: list[Any] = []
    values.append(values)
    return values


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an object in a column": (
        {"frame": pd.DataFrame({"text": ["secret"], "x": [Own()]})},
        "column 'x' holds a test_saved.Own",
    ),
    "an object in a list": ({"frame": pd.DataFrame({"x": [[Own()]]})}, "column 'x' holds a test_saved.Own"),
    "an enum": ({"frame": pd.DataFrame({"x": [Mood.GOOD]})}, "column 'x' holds a test_saved.Mood"),
    "a number that is an enum": ({"frame": pd.DataFrame({"x": [Level.LOW]}, dtype=object)}, "test_saved.Level"),
    "a frame in a cell": ({"frame": pd.DataFrame({"x": [pd.DataFrame()]})}, "column 'x' holds a pandas"),
    "a category": ({"frame": pd.DataFrame({"x": pd.Categorical([Mood.GOOD])})}, "column 'x' holds a test_saved.Mood"),
    "a label": ({"frame": pd.DataFrame({"x": [1]}, index=[Mood.GOOD])}, "the index holds a test_saved.Mood"),
    "a column's name": ({"frame": pd.DataFrame({Mood.GOOD: [1]})}, "names of the columns holds a test_saved.Mood"),
    "the index's name": ({"frame": pd.DataFrame({"x": [1]}, index=pd.Index([1], name=Mood.GOOD))}, "name of the index"),
    "an array with names": ({"frame": pd.DataFrame({"x": [np.zeros(1, dtype=[("a", "i4")])]})}, "column 'x'"),
    "a class of frames": ({"frame": OwnFrame({"x": [1]})}, "OwnFrame"),
    "arrow that Parquet does not know": (
        {"frame": pd.DataFrame({"text": ["secret"], "x": arrow([None], pa.month_day_nano_interval())})},
        "column 'x' is of a type that Parquet does not hold",
    ),
    "a frequency of one's own": (
        {
            "frame": pd.DataFrame(
                {"x": [1, 2]},
                index=pd.date_range("2026-01-05", periods=2, freq=pd.offsets.CDay(holidays=["2026-01-06"])),
            )
        },
        "the index holds dates with a custom frequency",
    ),
    "a circle": ({"output": circle()}, "holds itself"),
    "a class": ({"output": Own}, "a type"),
    "a model without a type": ({"output": MODEL}, "test_saved.Place"),
    "a list of models without a type": ({"output": [MODEL]}, "test_saved.Place"),
    "a dataclass": ({"output": Spot(1)}, "test_saved.Spot"),
    "a named tuple": ({"output": Pair(1, 2)}, "test_saved.Pair"),
    "a defaultdict": ({"output": defaultdict(list)}, "collections.defaultdict"),
    "an enum in a dict": ({"output": {"a": {Mood.GOOD: 1}}}, "test_saved.Mood"),
    "a number of many digits": ({"output": 10**5000}, "thousands of digits"),
    "a frame with such a column in an output": ({"output": [pd.DataFrame({"x": [Own()]})]}, "column 'x' holds"),
    "another frame of the result": (
        {"sources": pd.DataFrame({"x": [Own()]})},
        "result.sources cannot be saved: column 'x'",
    ),
    "a value beside the frame": ({"frame": pd.DataFrame({"x": [1]})}, "attrs holds a test_saved.Own"),
}
REFUSED["a value beside the frame"][0]["frame"].attrs["own"] = Own()


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.sampled(5)
def test_what_would_not_come_back_is_refused_by_name_and_nothing_is_written(kind, result, tmp_path):
    changed, reason = REFUSED[kind]
    folder = tmp_path / "new" / "saved"
    with pytest.raises(amr.UsageError, match="Nothing was written") as refused:
        dataclasses.replace(result, **changed).save(folder)
    assert reason in str(refused.value)
    assert f"result.{next(iter(changed))} cannot be saved" in str(refused.value)
    assert "secret" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []
    result.save(folder)
    before = listing(tmp_path)
    with pytest.raises(amr.UsageError):
        dataclasses.replace(result, **changed).save(folder)
    assert listing(tmp_path) == before


def test_a_model_that_the_plan_s_json_would_change_is_refused(result, tmp_path):
    for output, kind in ((Moody(mood=Mood.GOOD), Moody), (MODEL, Aliased)):
        with pytest.raises(amr.UsageError, match=r"result\.output cannot be saved"):
            with_plan(result, output, kind).save(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


# Folders


def test_a_folder_that_save_made_is_replaced_whole(result, tmp_path):
    tables = {"a": pd.DataFrame({"x": [1]}), "b": pd.Series([1])}
    more = dataclasses.replace(result, output=tables, sources=pd.DataFrame({"item": [0]}), stages=(result, result))
    result.save(tmp_path / "fresh")
    more.save(tmp_path / "folder")
    assert (tmp_path / "folder" / "stage-2" / "frame.parquet").exists()
    result.save(tmp_path / "folder")
    assert listing(tmp_path / "folder").keys() == listing(tmp_path / "fresh").keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "fresh"]
    assert amr.load(tmp_path / "folder").stages == ()
    more.save(tmp_path / "folder")
    assert same_values(amr.load(tmp_path / "folder").output, tables)


def make(path: Path, kind: str, result: amr.Result) -> None:
    """Something that ``save`` must not delete."""
    if kind == "a file":
        path.write_text("mine")
        return
    result.save(path)
    if kind == "a result and a file beside it":
        (path / "notes.txt").write_text("mine")
    elif kind == "a result and a folder beside it":
        (path / "stage-1").mkdir()
        (path / "stage-1" / "notes.txt").write_text("mine")
    elif kind == "a result that lost its name":
        (path / "result.json").unlink()
    elif kind == "somebody's result.json":
        (path / "result.json").write_text('{"format": 2}')
    elif kind == "no JSON":
        (path / "result.json").write_text("{")
    elif kind == "a link in it":
        (path / "status.parquet").unlink()
        (path / "status.parquet").symlink_to(path.parent)
    else:
        shutil.rmtree(path)
        path.mkdir()
        (path / ".hidden" if kind == "a hidden file" else path / "notes.txt").write_text("mine")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("a file", "is a file"),
        ("a file of mine", "Name a new folder, or empty this one"),
        ("a hidden file", "is not empty"),
        ("a result and a file beside it", "is not empty"),
        ("a result and a folder beside it", "is not empty"),
        ("a result that lost its name", "is not empty"),
        ("somebody's result.json", "is not empty"),
        ("no JSON", "is not empty"),
        ("a link in it", "is not empty"),
    ],
)
def test_what_save_did_not_make_is_refused_and_stays(kind, reason, result, tmp_path):
    make(tmp_path / "x", kind, result)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(amr.UsageError, match=reason):
        result.save(tmp_path / "x")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_a_link_a_slash_and_a_parent_that_is_not_there_are_taken(result, tmp_path):
    (tmp_path / "empty").mkdir(mode=0o750)
    result.save(tmp_path / "empty")
    assert (tmp_path / "empty").stat().st_mode & 0o777 == 0o750
    result.save(str(tmp_path / "a" / "b" / "c") + "/")
    (tmp_path / "link").symlink_to("a/b/c")
    dataclasses.replace(result, output="by link").save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert amr.load(tmp_path / "a" / "b" / "c").output == "by link"
    (tmp_path / "ahead").symlink_to("later")
    result.save(tmp_path / "ahead")
    assert amr.load(tmp_path / "later").frame.shape == result.frame.shape
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "ahead", "empty", "later", "link"]


def test_paths_that_can_be_no_folder_are_told(result, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for path, reason in (
        (tmp_path / "file" / "x", "is a file"),
        (tmp_path / "round", "cannot be saved to"),
        (".", "it is in use"),
        (tmp_path, "it is in use"),
        (3, "takes the path of a folder, not int"),
        (None, "takes the path of a folder, not NoneType"),
    ):
        with pytest.raises(amr.UsageError, match=reason):
            result.save(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "here", "round"]


def test_a_disk_that_is_full_leaves_the_old_result_and_nothing_else(result, tmp_path):
    result.save(tmp_path / "saved")
    before = listing(tmp_path)
    more = dataclasses.replace(result, frame=pd.DataFrame({"x": np.random.default_rng(0).random(100_000)}))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        for folder in ("saved", "new/deep"):
            with pytest.raises(OSError, match="too large"):
                more.save(tmp_path / folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert listing(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    more.save(tmp_path / "saved")
    assert len(amr.load(tmp_path / "saved").frame) == 100_000


KILLED = """
import dataclasses, os, pathlib, shutil, signal, sys
import pandas_amr as amr

top = pathlib.Path(sys.argv[1])
new = dataclasses.replace(amr.load(top / "old"), output="new")
steps, status = 0, 9
while status == 9:
    steps += 1
    shutil.copytree(top / "old", top / str(steps))
    child = os.fork()
    if not child:
        count = 0

        def hook(event, args):
            global count
            if ".saving" in str(args):
                count += 1
                if count == steps:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        new.save(top / str(steps))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
print(steps, status)
"""


@pytest.mark.long
def test_a_kill_at_any_step_leaves_the_old_result_or_the_new_one(result, tmp_path):
    dataclasses.replace(result, output="old").save(tmp_path / "old")
    told = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=True)
    steps, status = map(int, told.stdout.split())
    assert status == 0
    seen = [amr.load(tmp_path / str(step)).output for step in range(1, steps + 1)]
    assert seen == sorted(seen, reverse=True)
    assert seen.count("old") > 10
    assert seen.count("new") > 3
    again = tmp_path / "10"
    result.save(again)
    assert same_values(amr.load(again).output, result.output)


# Loading


def test_results_of_the_first_format_still_load_and_are_replaced(tmp_path):
    loaded = amr.load(OLD / "groups")
    assert loaded.output["output"].tolist() == ["all"] * 3
    assert loaded.frame["n8"].tolist() == [1, pd.NA, 3, 4, 5, 6]
    assert loaded.frame["mixed"].tolist() == ["1", '"a"', '{"b": 1}', "null", "2.5", "[1]"]
    assert str(loaded.frame["day"].dtype) == "datetime64[us, Europe/Berlin]"
    assert loaded.frame["shop"].cat.categories.tolist() == ["a", "b", "c"]
    assert loaded.explain(group="a")["n"].tolist() == [0, 3]
    assert loaded.failures["position"].tolist() == [4]
    assert loaded.stopped is None
    stages = amr.load(OLD / "stages")
    assert stages.output["n"].tolist() == [3, 1, 7]
    assert [len(stage.frame) for stage in stages.stages] == [6, 6]
    shutil.copytree(OLD / "stages", tmp_path / "old")
    loaded.save(tmp_path / "old")
    assert same_frames(amr.load(tmp_path / "old").frame, loaded.frame)
    assert not (tmp_path / "old" / "stage-1").exists()


def test_a_folder_that_cannot_be_read_is_told(result, tmp_path):
    for name, text, reason in (
        ("result.json", "{", "not one that save"),
        ("result.json", "[]", "not one that save"),
        ("result.json", '{"format": 99}', "was saved in format 99"),
        ("result.json", '{"format": 2}', "is damaged"),
        ("frame.parquet", "x", "is damaged"),
        ("plan.json", "x", "is damaged"),
    ):
        result.save(tmp_path / name / str(len(text)))
        (tmp_path / name / str(len(text)) / name).write_text(text)
        with pytest.raises(amr.UsageError, match=reason):
            amr.load(tmp_path / name / str(len(text)))
    result.save(tmp_path / "x")
    (tmp_path / "x" / "usage.parquet").unlink()
    with pytest.raises(amr.UsageError, match="is damaged"):
        amr.load(tmp_path / "x")


@pytest.mark.long
def test_what_is_saved_is_read_in_another_process(result, tmp_path):
    frame = pd.DataFrame({"x": [(1, dt.date(2026, 1, 1))], "p": pd.period_range("2026", periods=1, freq="M")})
    dataclasses.replace(result, frame=frame, output={Decimal("1.0"): {2}}).save(tmp_path)
    code = f"import pandas_amr as amr; r = amr.load({str(tmp_path)!r}); print(r.output, r.frame.values.tolist())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == f"{ {Decimal('1.0'): {2}} } {frame.to_numpy().tolist()}"


# Any frame, through both doors

NAMES = st.one_of(
    st.none(),
    st.text(max_size=3),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.dates().map(pd.Timestamp) | st.dates(),
    st.tuples(st.text(max_size=2), st.integers(0, 3)),
    st.decimals(allow_nan=False),
)
CELLS = st.recursive(
    NAMES | st.binary(max_size=3) | st.just(pd.NA) | st.datetimes() | st.timedeltas() | st.uuids(),
    lambda inner: st.lists(inner, max_size=2) | st.lists(inner, max_size=2).map(tuple) | st.dictionaries(NAMES, inner),
    max_leaves=4,
)


@st.composite
def labels_of(draw: Any, size: int) -> pd.Index:
    kind = draw(st.sampled_from(["range", "objects", "integers", "floats", "moments", "levels", "categories"]))
    name = draw(NAMES)
    if kind == "range":
        start, step = draw(st.integers(-9, 9)), draw(st.sampled_from([-3, 1, 2]))
        return pd.RangeIndex(start, start + step * size, step, name=name)
    if kind == "integers":
        return pd.Index(draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=size, max_size=size)), dtype="int64")
    if kind == "floats":
        return pd.Index(draw(st.lists(st.floats(), min_size=size, max_size=size)), dtype="float64").rename(name)
    if kind == "moments":
        days = draw(st.lists(st.integers(-(10**15), 10**15), min_size=size, max_size=size))
        return pd.DatetimeIndex(np.array(days, dtype="M8[us]")).tz_localize("UTC").tz_convert("Asia/Tokyo").rename(name)
    texts = draw(st.lists(st.sampled_from(["a", "b", None]), min_size=size, max_size=size))
    if kind == "categories":
        return pd.CategoricalIndex(texts, categories=["b", "a", "c"]).rename(name)
    if kind == "levels":
        return pd.MultiIndex.from_arrays([texts, [*range(size)]], names=[name, "n"])
    return pd.Index(of_objects(draw(st.lists(NAMES, min_size=size, max_size=size))), dtype=object, tupleize_cols=False)


@st.composite
def frames(draw: Any) -> pd.DataFrame:
    rows, columns = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    frame = pd.DataFrame(index=draw(labels_of(rows)))
    for number in range(columns):
        frame[number] = of_objects(draw(st.lists(CELLS, min_size=rows, max_size=rows))).array
    frame.columns = draw(labels_of(columns))
    return frame


@settings(max_examples=examples(150), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(frames())
def test_any_frame_goes_through_the_saved_form_unchanged(frame):
    encoded = encode_frame(frame)
    again = decode_table(Encoded(encoded.table, json.loads(json.dumps(encoded.labels))))
    assert same_frames(again, frame)


@settings(max_examples=examples(150), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(frames())
def test_any_frame_goes_to_a_session_with_its_rows_and_labels_and_what_changed_is_told(frame):
    arrow = ArrowFrame.of(frame)
    data = arrow.data("df")
    back = worker.load_frame(data.parquet, json.loads(json.dumps(data.labels)))
    assert back.shape == frame.shape
    assert list(map(type, back.index.names)) == list(map(type, arrow.index_names))
    if isinstance(frame.index, pd.RangeIndex):
        assert (back.index.start, back.index.stop, back.index.step) == (
            frame.index.start,
            frame.index.stop,
            frame.index.step,
        )
    for shown, label in zip(back.columns, frame.columns, strict=True):
        assert is_shown(shown, label, " ".join(arrow.changed))


def is_shown(shown: Any, label: Any, told: str) -> bool:
    """Whether a session shows a label: as it is, or as the text that is told of."""
    if isinstance(label, tuple):
        return all(is_shown(one, other, told) for one, other in zip(shown, label, strict=True))
    if label is None or label != label:  # noqa: PLR0124
        return bool(pd.isna(shown))
    if isinstance(label, str | int | float):
        return bool(shown == label)
    return shown == str(label) and f"The name {shown!r} is a text" in told
