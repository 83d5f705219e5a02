"""Any frame goes through one door: the same answers as of pandas' frame, in several shards, with nothing lost.

The libraries themselves take part where they are installed (`make test-extras`); the protocol is tested without them.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import importlib.util
import json
import uuid
import weakref
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pytest
from pydantic import BaseModel

import pandas_amr as amr
from pandas_amr.testing import ScriptedServer, findings

DF = pd.DataFrame(
    {
        "text": ["row 0", "row 1", None, "row 3", "row 4", "row 5", "row 6"],
        "n": [2**60 + 1, 1, 2, 3, 4, 5, 6],
        "stars": [0.5, None, 2.5, 3.0, 4.0, 5.0, 1.0],
        "shop": pd.Categorical(list("abcabca")),
        "when": pd.date_range("2026-03-28 12:00", periods=7, tz="Europe/Berlin"),
        "tags": [["x"], [], ["x", "y"], [], ["z"], ["z"], []],
        "note": [None] * 7,
    }
)
TWO = {"shard_size": 2}  # so that rows are taken, in several shards


class Stream:
    """What has Arrow's protocol and nothing else."""

    def __init__(self, data):
        self._data = data

    def __arrow_c_stream__(self, requested_schema=None):
        return self._data.__arrow_c_stream__(requested_schema)


class Batch:
    """What has the protocol's form for one batch."""

    def __init__(self, data):
        self._data = data

    def __arrow_c_array__(self, requested_schema=None):
        return self._data.__arrow_c_array__(requested_schema)


class Lazy:
    """What has rows when they are collected."""

    def __init__(self, rows):
        self._rows = rows

    def collect(self):
        return self._rows


def views(table):
    """The table with views and nulls for which pyarrow has no kernels, as Polars hands them over."""
    view = pa.string_view()  # made of lists: a cast to views crashes older versions of pyarrow when it is handed over
    codes = pa.array(DF["shop"].cat.codes.tolist(), pa.uint32())
    columns = {
        "text": pa.array(table["text"].to_pylist(), view),
        "shop": pa.DictionaryArray.from_arrays(codes, pa.array(list("abc"), view)),
        "tags": pa.array(table["tags"].to_pylist(), pa.list_(view)),
        "note": pa.nulls(7),
    }
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def chunked(table):
    return pa.concat_tables([table.slice(0, 3), table.slice(3, 1), table.slice(4)])


def plain(df):
    """The table without what pandas writes into its schema."""
    return pa.Table.from_pandas(df).replace_schema_metadata(None)


def records(df):
    return df.astype(object).where(df.notna(), None).to_dict("records")


FRAMES = {
    "DataFrame": lambda df: df,
    "table": pa.Table.from_pandas,
    "table without metadata": plain,
    "views": lambda df: views(plain(df)),
    "views in chunks": lambda df: chunked(views(plain(df))),
    "batch": lambda df: plain(df).to_batches()[0],
    "reader": lambda df: chunked(views(plain(df))).to_reader(),
    "dataset": lambda df: pyarrow.dataset.dataset(plain(df)),
    "protocol": lambda df: Stream(chunked(views(plain(df)))),
    "protocol, one batch": lambda df: Batch(plain(df).to_batches()[0]),
    "lazy": lambda df: Lazy(Stream(views(plain(df)))),
    "lazy frame of pandas": Lazy,
    "list of dicts": records,
    "dict of lists": lambda df: {name: [row[name] for row in records(df)] for name in df.columns},
    "dict of columns": lambda df: {
        name: column if name == "n" else views(plain(df))[name] for name, column in df.items()
    },
}


def polars(df):
    import polars as pl

    return pl.from_arrow(plain(df))


def duckdb(df):
    import duckdb

    connection = duckdb.connect()
    connection.execute("set timezone = 'Europe/Berlin'")  # it has zones of a connection, and not of a column
    return connection.from_arrow(plain(df))


def ibis(df):
    import ibis

    return ibis.memtable(plain(df.drop(columns="note"))).mutate(note=ibis.null(str))


def narwhals(native):
    import narwhals as nw

    return nw.from_native(native)


def into_polars(result):
    import polars as pl

    return pl.DataFrame(result).to_arrow()


def into_duckdb(result):
    import duckdb

    connection = duckdb.connect()
    connection.register("result", result)
    return pa.table(connection.sql("from result"))


LIBRARIES = {
    "polars": {"Polars": polars, "Polars, lazy": lambda df: polars(df).lazy()},
    "duckdb": {"DuckDB": duckdb},
    "ibis": {"Ibis": ibis},
    "narwhals": {"narwhals over pandas": narwhals, "narwhals over Arrow": lambda df: narwhals(plain(df))},
}
READERS = {"polars": into_polars, "duckdb": into_duckdb}
INSTALLED = [name for name in LIBRARIES if importlib.util.find_spec(name) is not None]
for _name in INSTALLED:
    FRAMES |= LIBRARIES[_name]


def number(request):
    if request.schema == "reduction":
        return {"output": "; ".join(sorted(str(one["text"]) for one in request.findings)), "sources": []}
    if "shop a" in request.system:
        return findings(request, lambda unit: {"amr_keep": unit["shop"] == "a"})
    return findings(request, lambda unit: {"number": -1 if unit["text"] is None else int(unit["text"][4:])})


def length(shard):
    return [{"length": len(row["tags"]) + row["n"]} for _, row in shard.iterrows()]


ASKED = {"finding": {"number": int}, "plan": TWO}
VERBS = {
    "map": lambda frame, lm: amr.map(frame, "The number.", lm=lm, **ASKED),
    "map, function": lambda frame, lm: amr.map(frame, length, plan=TWO),
    "map, columns": lambda frame, lm: amr.map(frame, "The number.", columns=["text", "tags"], lm=lm, **ASKED),
    "filter": lambda frame, lm: amr.filter(frame, "Of shop a.", plan=TWO, lm=lm),
    "filter, function": lambda frame, lm: amr.filter(frame, lambda shard: shard["n"] > 2, plan=TWO),
    "reduce": lambda frame, lm: amr.reduce(frame, {"n": "sum", "stars": ["mean", "max"]}, by="shop"),
    "reduce, agents": lambda frame, lm: amr.reduce(frame, "Join.", columns=["text", "tags"], plan={"fan_in": 2}, lm=lm),
    "map_reduce": lambda frame, lm: amr.map_reduce(
        frame, map="The number.", reduce={"number": "sum"}, by="shop", lm=lm, **ASKED
    ),
    "start": lambda frame, lm: amr.start(frame, map="The number.", reduce={"number": "max"}, lm=lm, **ASKED).result(),
    "plan": lambda frame, lm: amr.plan(frame, map="The number.", lm=lm, **ASKED),
    "recipe": lambda frame, lm: (
        amr.Recipe().map("The number.", **ASKED).reduce({"number": "sum"}, by="shop")(frame, lm=lm)
    ),
    "accessor": lambda frame, lm: amr.accessor(frame).map(length, plan=TWO),
}


def is_missing(value):
    return pd.api.types.is_scalar(value) and pd.isna(value)


def shown(given):
    """An answer as texts, without what differs between two dtypes that hold the same."""
    if isinstance(given, amr.Plan):
        return given.to_json(), str(given.estimate())
    if isinstance(given, amr.Result):
        return [shown(part) for part in (given.output, given.frame, given.findings, given.failures)]
    if isinstance(given, pd.Series):
        given = given.to_frame()
    if not isinstance(given, pd.DataFrame):
        return given
    cells = [[None if is_missing(value) else str(value) for value in row] for row in given.itertuples()]
    return [str(label) for label in given.columns], cells


def ask(verb, frame):
    """What a verb gives, and what it asked of the model."""
    with ScriptedServer(number) as server:
        given = VERBS[verb](frame, server.lm())
        asked = sorted(json.dumps([request.units, request.findings]) for request in server.requests)
    return shown(given), asked


@functools.cache
def of_pandas(verb):
    answer, asked = ask(verb, DF)
    if verb in {"map", "map, columns", "filter", "map_reduce", "start", "recipe"}:
        assert len(asked) > 2
    return answer, asked


@pytest.mark.sampled(6)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("frame", FRAMES)
def test_every_verb_gives_of_any_frame_what_it_gives_of_pandas_frame(frame, verb):
    """And asks the same: a model reads the same of every cell."""
    answer, asked = ask(verb, FRAMES[frame](DF))
    assert asked == of_pandas(verb)[1]
    assert answer == of_pandas(verb)[0]


# Types

MOMENT = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
TYPES = {
    "null": (pa.null(), None),
    "bool": (pa.bool_(), True),
    "int8": (pa.int8(), -128),
    "uint64": (pa.uint64(), 2**64 - 1),
    "int64, beyond a float": (pa.int64(), 2**53 + 1),
    "float16": (pa.float16(), np.float16(0.5)),
    "float32": (pa.float32(), 0.5),
    "decimal128": (pa.decimal128(38, 2), Decimal("123456789012345678901234567890.12")),
    "decimal256": (pa.decimal256(60, 2), Decimal("1.10")),
    "string": (pa.string(), "ä"),
    "large_string": (pa.large_string(), "ä"),
    "string_view": (pa.string_view(), "a text that is longer than twelve bytes"),
    "binary": (pa.binary(), b"ab"),
    "binary, fixed": (pa.binary(2), b"ab"),
    "binary_view": (pa.binary_view(), b"ab"),
    "date32": (pa.date32(), dt.date(2026, 1, 2)),
    "date64": (pa.date64(), dt.date(2026, 1, 2)),
    "time32": (pa.time32("s"), dt.time(1, 2)),
    "time64": (pa.time64("us"), dt.time(1, 2, 3, 4)),
    "timestamp": (pa.timestamp("us"), MOMENT.replace(tzinfo=None)),
    "timestamp, far away": (pa.timestamp("s"), dt.datetime(9999, 12, 31)),
    "timestamp, zone": (pa.timestamp("ns", "America/New_York"), MOMENT),
    "timestamp, offset": (pa.timestamp("ms", "+02:00"), MOMENT),
    "duration": (pa.duration("ms"), dt.timedelta(days=1, milliseconds=5)),
    "list": (pa.list_(pa.int64()), [1, None]),
    "list of views": (pa.list_(pa.string_view()), ["a", None]),
    "list of nulls": (pa.list_(pa.null()), [None]),
    "large_list": (pa.large_list(pa.string_view()), ["a"]),
    "list, fixed": (pa.list_(pa.string_view(), 2), ["a", "b"]),
    "list_view": (pa.list_view(pa.string_view()), ["a"]),
    "struct": (
        pa.struct({"a": pa.string_view(), "b": pa.null(), "c": pa.list_(pa.binary_view())}),
        {"a": "x", "b": None, "c": [b"y"]},
    ),
    "struct of times": (pa.struct({"at": pa.timestamp("us", "UTC")}), {"at": MOMENT}),
    "map": (pa.map_(pa.string_view(), pa.string_view()), [("k", "v")]),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), "a"),
    "dictionary of views": (pa.dictionary(pa.uint32(), pa.string_view()), "a"),
    "dictionary of zoned times": (pa.dictionary(pa.int8(), pa.timestamp("us", "Asia/Tokyo")), MOMENT),
    "dictionary of decimals": (pa.dictionary(pa.int8(), pa.decimal128(5, 2)), Decimal("1.50")),
}
DTYPES = {  # without a missing value, with one; the others stay Arrow-typed
    "bool": ("bool", "bool[pyarrow]"),
    "int8": ("int8", "int8[pyarrow]"),
    "uint64": ("uint64", "uint64[pyarrow]"),
    "int64, beyond a float": ("int64", "int64[pyarrow]"),
    "float16": ("float16", "float16"),
    "float32": ("float32", "float32"),
    "timestamp": ("datetime64[us]", "datetime64[us]"),
    "timestamp, far away": ("datetime64[s]", "datetime64[s]"),
    "timestamp, zone": ("datetime64[ns, America/New_York]",) * 2,
    "duration": ("timedelta64[ms]",) * 2,
    "dictionary": ("category", "category"),
    "dictionary of views": ("category", "category"),
    "dictionary of zoned times": ("category", "category"),
    "dictionary of decimals": ("category", "category"),
    "date32": ("date32[day][pyarrow]",) * 2,
    "list of views": ("list<item: large_string>[pyarrow]",) * 2,
    "decimal256": ("decimal256(60, 2)[pyarrow]",) * 2,
}


def array(kind, values):
    if pa.types.is_dictionary(kind):
        codes = [None if value is None else 0 for value in values]
        known = [value for value in values if value is not None][:1]
        return pa.DictionaryArray.from_arrays(pa.array(codes, kind.index_type), array(kind.value_type, known))
    return pa.array(values, kind)


def first_column(frame):
    return [None if is_missing(value) else value for value in frame.iloc[:, 0].tolist()]


@pytest.mark.parametrize("name", TYPES)
def test_values_of_every_type_are_kept_and_can_be_taken_apart(name):
    kind, value = TYPES[name]
    column = pa.chunked_array([array(kind, [value, None, value, None]).slice(2), array(kind, [value])])
    frame = amr.as_frame(pa.table({"x": column}))
    assert first_column(frame) == [value, None, value]
    assert first_column(frame.iloc[np.array([1, 2])]) == [None, value]
    assert len(pd.concat([frame, frame.iloc[1:]])) == 5
    seen = []

    def look(shard):
        seen.append((shard.index[0], first_column(shard)[0]))
        return [{"found": 1}]

    assert amr.map(pa.table({"x": column}), look, plan={"shard_size": 1})["found"].tolist() == [1, 1, 1]
    assert [cell for _, cell in sorted(seen, key=lambda pair: pair[0])] == [value, None, value]
    whole = amr.as_frame(pa.table({"x": array(kind, [value])}))
    empty = amr.as_frame(pa.table({"x": pa.chunked_array([], kind)}))
    assert len(empty) == 0
    if name in DTYPES:
        assert (str(whole["x"].dtype), str(frame["x"].dtype)) == DTYPES[name]
        assert empty["x"].dtype.kind == whole["x"].dtype.kind


STRANGE = {
    "run ends": (pc.run_end_encode(pa.array(["a", "a", None])), ["a", "a", None]),
    "union": (
        pa.UnionArray.from_dense(
            pa.array([0, 1], pa.int8()), pa.array([0, 0], pa.int32()), [pa.array([1]), pa.array(["x"])]
        ),
        [1, "x"],
    ),
    "interval": (pa.array([(0, 2, 3_000), None], pa.month_day_nano_interval()), [pd.Timedelta("2D 3us"), None]),
    "interval of months": (pa.array([(14, 3, -1_500_000_000)], pa.month_day_nano_interval()), ["P14M3DT-1.500000000S"]),
    "decimal32": (pa.array([Decimal("1.5")], pa.decimal32(5, 1)), [Decimal("1.5")]),
    "uuid": (
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([uuid.UUID(int=5).bytes, None], pa.binary(16))),
        [str(uuid.UUID(int=5)), None],
    ),
    "json": (pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":1}', None])), ['{"a":1}', None]),
    "bool8": (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None, 0], pa.int8())), [True, None, False]),
    "tensor": (
        pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.int8(), [2]), pa.array([[1, 2]], pa.list_(pa.int8(), 2))
        ),
        [[1, 2]],
    ),
    "struct of run ends": (
        pa.StructArray.from_arrays([pc.run_end_encode(pa.array(["a", "b"]))], names=["x"]),
        [{"x": "a"}, {"x": "b"}],
    ),
    "dictionary with a null": (
        pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array(["a", None])),
        ["a", None, None],
    ),
    "dictionary with a value twice": (
        pa.DictionaryArray.from_arrays(pa.array([1, 0]), pa.array(["a", "a"])),
        ["a", "a"],
    ),
    "dictionary of lists": (pa.DictionaryArray.from_arrays(pa.array([1, 0]), pa.array([["a"], ["b"]])), [["b"], ["a"]]),
    "dictionary of nulls": (pa.array([None, None]).dictionary_encode(), [None, None]),
}


@pytest.mark.parametrize("name", STRANGE)
def test_types_that_pandas_has_no_form_for_are_kept_as_what_they_mean(name):
    column, values = STRANGE[name]
    frame = amr.as_frame(pa.table({"x": column}))
    assert first_column(frame) == values
    assert first_column(frame.iloc[np.arange(len(values))[::-1]]) == values[::-1]


def test_decimals_of_any_width_have_sums():
    for kind in (pa.decimal32(5, 1), pa.decimal64(5, 1), pa.decimal128(5, 1)):
        table = pa.table({"price": pa.array([Decimal("1.5"), Decimal("2.5"), None], kind)})
        assert amr.reduce(table, {"price": "sum"}).iloc[0] == 4


def test_values_in_lists_of_any_kind_are_counted():
    values = [["a", "b"], None, ["b", "b"]]
    for kind in (
        pa.list_(pa.string()),
        pa.large_list(pa.string_view()),
        pa.list_(pa.string_view(), 2),
        pa.list_view(pa.string()),
    ):
        counts = amr.reduce(pa.table({"tags": pa.array(values, kind)}), {"tags": "value_counts"})
        assert counts.iloc[:, 0].to_dict() == {"b": 3, "a": 1}


def test_dictionaries_of_several_chunks_are_one_set_of_categories():
    chunks = [pa.array(["a", "b"]).dictionary_encode(), pa.array(["b", None, "c"]).dictionary_encode()]
    frame = amr.as_frame(pa.table({"x": pa.chunked_array(chunks)}))
    assert first_column(frame) == ["a", "b", "b", None, "c"]
    assert frame["x"].cat.categories.tolist() == ["a", "b", "c"]
    ordered = pa.DictionaryArray.from_arrays(pa.array([1, 0]), pa.array(["low", "high"]), ordered=True)
    assert amr.as_frame(pa.table({"x": ordered}))["x"].cat.ordered


# What a pandas frame was

INDEXES = {
    "default": pd.RangeIndex(3),
    "range": pd.RangeIndex(5, 11, 2, name="r"),
    "labels": pd.Index(list("xyz"), name="id"),
    "doubled labels": pd.Index(["x", "x", "y"]),
    "dates": pd.date_range("2026-01-01", periods=3, tz="Asia/Tokyo", name="day"),
    "levels": pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["one", None]),
}


@pytest.mark.parametrize("name", INDEXES)
def test_a_pandas_frame_comes_back_with_its_index_and_dtypes(name):
    df = pd.DataFrame(
        {
            "n": [1, 2, 3],
            "text": ["a", None, "c"],
            "wide": pd.array([1, None, 3], dtype="Int64"),
            "month": pd.period_range("2026-01", periods=3, freq="M"),
            "found": pd.array([["a"], None, []], dtype=pd.ArrowDtype(pa.list_(pa.string()))),
        },
        index=INDEXES[name],
    )
    df.attrs["source"] = "survey"
    table = pa.Table.from_pandas(df)
    back = amr.as_frame(table)
    pd.testing.assert_frame_equal(back, df, check_freq=False)
    assert back.attrs == table.schema.pandas_metadata.get("attributes", {})  # older versions of pyarrow write none


def test_labels_of_a_pandas_frame_come_back():
    for columns in (pd.Index([1, 2]), pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")], names=["one", "two"])):
        df = pd.DataFrame([[1, "a"], [2, "b"]], columns=columns)
        pd.testing.assert_frame_equal(amr.as_frame(pa.Table.from_pandas(df)), df)


def test_what_pandas_wrote_into_a_schema_holds_as_far_as_it_is_of_this_table():
    table = pa.Table.from_pandas(pd.DataFrame({"a": [1, 2], "b": [3, 4]}, index=pd.Index(["x", "y"], name="id")))
    assert amr.as_frame(table.append_column("c", [[5, 6]])).columns.tolist() == ["a", "b", "c"]
    assert amr.as_frame(table.select(["b", "id"])).index.tolist() == ["x", "y"]
    assert amr.as_frame(table.select(["a"])).columns.tolist() == ["a"]
    assert amr.as_frame(table.rename_columns(["a", "b", "label"])).columns.tolist() == ["a", "b", "label"]
    assert amr.as_frame(table.slice(1)).index.tolist() == ["y"]
    for told in ("{}", "no JSON", "[]", '{"index_columns": ["id"]}'):
        assert amr.as_frame(table.replace_schema_metadata({"pandas": told})).columns.tolist() == ["a", "b", "id"]


def test_no_rows_keep_their_types_and_no_columns_their_rows():
    empty = amr.as_frame(pa.schema({"a": pa.int8(), "b": pa.date32(), "c": pa.timestamp("us", "UTC")}).empty_table())
    assert [str(dtype) for dtype in empty.dtypes] == ["int8", "date32[day][pyarrow]", "datetime64[us, UTC]"]
    labels = pa.schema({"a": pa.dictionary(pa.int8(), pa.string())})
    without_batches = amr.as_frame(Stream(pa.Table.from_batches([], labels)))
    assert without_batches["a"].dtype == amr.as_frame(Stream(pa.table({"a": ["x"]})))["a"].dtype
    assert amr.as_frame(pa.table({"a": [1, 2]}).select([])).shape == (2, 0)
    assert amr.map(Stream(empty_table := pa.schema({"text": pa.string_view()}).empty_table()), length).empty
    assert empty_table.num_rows == 0


def test_doubled_names_reach_the_error_of_every_frame(refusing):
    doubled = pa.table([["a"], [1]], names=["x", "x"])
    assert amr.as_frame(doubled).dtypes.astype(str).tolist()[1] == "int64"
    with pytest.raises(amr.ColumnError, match=r"Column names must be unique; doubled: \['x'\]"):
        amr.map(doubled, "Read.", lm=refusing.lm())


def test_a_pandas_frame_is_itself_and_what_is_converted_is_not_changed():
    assert amr.as_frame(DF) is DF
    array = np.array([1, 2])
    columns = {"n": array}
    for data in (array, columns):
        frame = amr.as_frame(data)
        frame.iloc[0, 0] = 9
    assert array.tolist() == [1, 2]


# Plain Python and arrays


class Fields(BaseModel):
    a: int


@dataclasses.dataclass
class Spot:
    a: int


ONE_COLUMN = {
    "list": ["a", "b"],
    "tuple": ("a", "b"),
    "Series": pd.Series(["a", "b"]),
    "named Series": pd.Series(["a", "b"], name="text", index=[5, 6]),
    "numpy": np.array(["a", "b"]),
    "objects": np.array(["a", "b"], dtype=object),
    "Index": pd.Index(["a", "b"], name="text"),
    "pandas array": pd.array(["a", "b"]),
    "categorical": pd.Categorical(["a", "b"]),
    "chunked array": pa.chunked_array([["a"], ["b"]]),
    "Arrow array": pa.array(["a", "b"], pa.string_view()),
    "protocol": Stream(pa.chunked_array([pa.array(["a"], pa.string_view()), pa.array(["b"], pa.string_view())])),
    "protocol, one batch": Batch(pa.array(["a", "b"])),
}


@pytest.mark.parametrize("name", ONE_COLUMN)
def test_a_list_a_series_and_an_array_are_one_column(name):
    data = ONE_COLUMN[name]
    frame = amr.map(data, lambda shard: [{"n": 1}] * len(shard), plan={"shard_size": 1})
    label = getattr(data, "name", None) or "value"
    assert frame.columns.tolist() == [label, "n"]
    assert frame[label].tolist() == ["a", "b"]
    index = data.index.tolist() if isinstance(data, pd.Series) else [0, 1]
    assert frame.index.tolist() == index


LISTS = {
    "whole numbers with a gap": ([1, None, 2**53 + 1], [1, None, 2**53 + 1]),
    "whole numbers with NaN": ([1, float("nan")], [1, None]),
    "huge numbers": ([2**70, None], [2**70, None]),
    "huge beside a float": ([2**53 + 1, 0.5], [2**53 + 1, 0.5]),
    "floats": ([1, 0.5], [1.0, 0.5]),
    "bools": ([True, None], [True, None]),
    "mixed": (["a", 1], ["a", 1]),
    "surrogate": (["\ud800", "a"], ["\ud800", "a"]),
    "times": ([MOMENT, None], [MOMENT, None]),
    "decimals": ([Decimal("1.10"), None], [Decimal("1.10"), None]),
    "nothing": ([None, None], [None, None]),
}


@pytest.mark.parametrize("name", LISTS)
def test_values_of_a_list_are_not_altered_in_rows_and_columns_alike(name):
    values, kept = LISTS[name]
    for data in (values, {"value": values}, [{"value": value} for value in values]):
        found = first_column(amr.as_frame(data))
        assert found == kept
        assert [type(one) is bool for one in found] == [type(one) is bool for one in kept]


def test_an_empty_list_and_an_empty_dict_have_no_rows(refusing):
    assert amr.map([], length).columns.tolist() == ["value"]
    with pytest.raises(amr.ColumnError, match="no columns to read"):
        amr.map({}, "Read.", lm=refusing.lm())


def test_rows_with_other_keys_have_gaps():
    frame = amr.as_frame([{"b": 1, "a": "x"}, {"a": "y", "c": [1]}])
    assert frame.columns.tolist() == ["b", "a", "c"]
    assert frame["b"].tolist() == [1, pd.NA]
    assert frame["c"].tolist()[1] == [1]


def test_arrays_of_several_columns_are_frames():
    assert amr.as_frame(np.array([[1, 2], [3, 4]])).shape == (2, 2)
    assert amr.as_frame(np.array([(1, "a")], dtype=[("n", int), ("text", "U1")])).columns.tolist() == ["n", "text"]
    assert amr.as_frame(np.ma.array([2**53 + 1, 2], mask=[False, True]))["value"].tolist() == [2**53 + 1, pd.NA]
    assert amr.as_frame(pd.MultiIndex.from_tuples([(1, "a")], names=["n", None])).columns.tolist() == ["n", 1]
    series = pd.Series([1, 2], index=["x", "y"])
    assert amr.as_frame({"n": series, "text": ["a", "b"]}).index.tolist() == ["x", "y"]


def test_columns_of_structs_are_one_column():
    structs = pa.chunked_array([pa.array([{"a": 1}, None])])
    assert amr.as_frame(structs)["value"].tolist() == [{"a": 1}, pd.NA]


REFUSED = {
    "a number": (lambda: 3, "not int"),
    "None": (lambda: None, "not NoneType"),
    "a class": (lambda: pd.DataFrame, "not type"),
    "a text": (
        lambda: "in/*.txt",
        r"One text is one row: \[text\]. A table is read by pandas .* documents by amr.read_files",
    ),
    "a path": (lambda: Path("in.csv"), r"not PosixPath\. A table is read by pandas \(pd\.read_csv\(path\)\)"),
    "bytes": (lambda: b"x", "One text is one row"),
    "a set": (lambda: {"a"}, r"not set. Pass list\(x\)"),
    "a view": (lambda: {"a": 1}.values(), r"not dict_values. Pass list\(x\)"),
    "another iterable": (lambda: type("Rows", (), {"__iter__": lambda self: iter("ab")})(), r"not Rows\.$"),
    "a generator": (lambda: (text for text in "ab"), r"not generator. Pass list\(x\)"),
    "a list of lists": (lambda: [["a", 1]], r"item 0 is list. Rows are pd.DataFrame\(list, columns="),
    "a list of frames": (lambda: [DF, DF], r"item 0 is DataFrame. Join them: pd.concat\(list\)"),
    "a list of tables": (lambda: [plain(DF)], "Join them to one frame by the methods of their library"),
    "a list of models": (lambda: [Fields(a=1)], r"model_dump\(\)"),
    "a list of dataclasses": (lambda: ["a", Spot(1)], r"item 1 is Spot. Give \[dataclasses.asdict"),
    "dicts beside others": (
        lambda: ["a", {"a": 1}],
        r"item 1 is dict beside others. Dicts that are cells are a column",
    ),
    "a dict of values": (lambda: {"text": "a"}, r"'text' is str. One row is a list of one dict"),
    "a dict of dicts": (lambda: {"a": {"b": 1}}, "'a' is dict"),
    "a dict of frames": (lambda: {"a": DF}, "'a' is DataFrame"),
    "columns of two lengths": (lambda: {"a": [1], "b": [1, 2]}, "'a' has 1, 'b' 2"),
    "Series of two indexes": (lambda: {"a": pd.Series([1]), "b": pd.Series([1], index=[5])}, "must have one index"),
    "an array of no dimension": (lambda: np.array(1), "one dimension or two, not 0"),
    "an array of three": (lambda: np.zeros((1, 1, 1)), "one dimension or two, not 3"),
    "groups": (lambda: DF.groupby("n"), r"Groups have verbs of their own: df.groupby\(...\).amr"),
    "an unknown zone": (
        lambda: pa.table({"at": pa.array([MOMENT], pa.timestamp("us", "Nowhere/Land"))}),
        r"Column 'at' has the Arrow type timestamp\[us, tz=Nowhere/Land\]",
    ),
    "an unknown zone within": (
        lambda: pa.table({"at": pa.array([[MOMENT]], pa.list_(pa.timestamp("us", "Nowhere/Land")))}),
        "Column 'at' has the Arrow type list",
    ),
    "dates beyond Python's": (
        lambda: pa.table({"day": pa.array([5, 2**31 - 1, None], pa.int32()).cast(pa.date32())}),
        "Column 'day' holds a date outside the years 1 to 9999",
    ),
    "interchange": (lambda: type("Old", (), {"__dataframe__": lambda self: None})(), r"\(__dataframe__\) loses types"),
    "convertible": (lambda: type("Other", (), {"to_pandas": lambda self: None})(), r"not Other. Pass x.to_pandas\(\)"),
    "lazy nothing": (lambda: Lazy(3), "not int"),
    "lazy for ever": (lambda: type("Loop", (), {"collect": lambda self: self})(), "not Loop"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_holds_no_rows_is_refused_with_what_would_be_right(name, refusing):
    make, reason = REFUSED[name]
    with pytest.raises(amr.UsageError, match=reason):
        amr.map(make(), "Read.", lm=refusing.lm())


OTHERS = {
    "pyspark.sql.dataframe": ("toPandas", r"DataFrame of Spark, which .*: pass x.toPandas\(\) if .* x.mapInArrow"),
    "pyspark.sql.connect.dataframe": ("toPandas", "of Spark"),
    "pyspark.pandas.frame": ("to_pandas", r"of Spark.*x.to_pandas\(\)"),
    "dask_expr._collection": ("compute", "of Dask"),
    "modin.pandas.dataframe": ("modin", r"of Modin.*x.modin.to_pandas\(\)"),
    "ray.data.dataset": ("to_pandas", r"of Ray.*x.map_batches"),
    "cudf.core.dataframe": ("to_pandas", r"of cuDF.*x.to_pandas\(\)"),
    "vaex.dataframe": ("to_pandas_df", r"of Vaex.*x.to_pandas_df\(\)"),
    "daft.dataframe.dataframe": ("to_pandas", "of Daft"),
    "snowflake.snowpark.dataframe": ("to_pandas", "of Snowpark"),
    "bigframes.dataframe": ("to_pandas", "of BigQuery DataFrames"),
}


def made_elsewhere(module, method):
    """A frame of another library, which is not installed: it has the protocol, and may not be read."""

    def refuse(self, *_):
        raise AssertionError("it was read")

    kind = type(
        "DataFrame", (), {method: refuse, "collect": refuse, "__arrow_c_stream__": refuse, "__module__": module}
    )
    return type("Mine", (kind,), {"__module__": "mine"})()


@pytest.mark.parametrize("module", OTHERS)
def test_frames_in_parts_or_on_a_gpu_are_refused_with_their_library_and_the_way_to_go(module, refusing):
    method, reason = OTHERS[module]
    for data in (made_elsewhere(module, method), Lazy(made_elsewhere(module, method))):
        with pytest.raises(amr.UsageError, match=reason.replace("DataFrame of", "Mine of")):
            amr.map(data, "Read.", lm=refusing.lm())


def test_what_is_of_dask_and_no_frame_is_refused_by_its_engine_and_within_a_lazy_frame_like_the_others(refusing):
    alone = made_elsewhere("dask.dataframe.dask_expr._collection", "compute")
    with pytest.raises(amr.UsageError, match=r"of Dask, which has no rows; pass a Dask DataFrame\.$"):
        amr.map(alone, "Read.", lm=refusing.lm())
    with pytest.raises(amr.UsageError, match=r"of Dask.*x.compute\(\).*x.map_partitions"):
        amr.map(Lazy(alone), "Read.", lm=refusing.lm())


def test_a_module_whose_name_only_begins_alike_is_no_other_library():
    kind = type("Table", (Stream,), {"__module__": "rayon.tables"})
    assert len(amr.as_frame(kind(plain(DF)))) == 7


def test_a_reader_gives_its_rows_once_and_says_so_the_next_time():
    reader = plain(DF).to_reader()
    assert len(amr.map(reader, length, plan=TWO)) == 7
    with pytest.raises(amr.UsageError, match=r"gives them once. Read it before: table = reader.read_all\(\)"):
        amr.map(reader, length)
    gone = weakref.ref(reader)
    del reader
    assert gone() is None


def test_what_goes_wrong_in_another_library_is_named_and_is_the_cause():
    class Broken(Lazy):
        def collect(self):
            raise LookupError("secret cell")

    with pytest.raises(amr.UsageError, match=r"rows of this Broken of \S+ could not be read: LookupError\.$") as caught:
        amr.as_frame(Broken(None))
    assert isinstance(caught.value.__cause__, LookupError)


def test_attributes_that_a_frame_makes_of_its_columns_are_no_methods():
    class Table(Stream):
        def __getattr__(self, name):
            if name.startswith("_"):
                raise AttributeError(name)
            return name  # a column, whatever it is called: dtype, collect

    assert len(amr.as_frame(Table(plain(DF)))) == 7


# Functions and recipes may give frames of other libraries, too

GIVEN = {
    "table": lambda shard: pa.table({"size": pa.array(["x" * n for n in shard["n"]], pa.string_view())}),
    "protocol": lambda shard: Stream(pa.table({"size": ["x" * n for n in shard["n"]]})),
    "column": lambda shard: pa.chunked_array([["x" * n for n in shard["n"]]]),
    "lazy": lambda shard: Lazy(pa.table({"size": ["x" * n for n in shard["n"]]})),
}


@pytest.mark.parametrize("name", GIVEN)
def test_a_function_may_give_its_findings_as_any_frame(name):
    frame = amr.map(pd.DataFrame({"n": range(5)}), GIVEN[name], plan=TWO)
    assert frame.iloc[:, 1].tolist() == ["", "x", "xx", "xxx", "xxxx"]


def test_a_stage_of_a_recipe_may_give_any_frame():
    recipe = (
        amr.Recipe()
        .then(lambda frame: Lazy(Stream(views(plain(frame)))))
        .map(length, plan=TWO)
        .reduce({"length": "sum"})
    )
    assert recipe(Stream(plain(DF))).output["length"] == DF["n"].sum() + 5


# A result as Arrow


def result_of(df, **options):
    return amr.map_reduce(
        df, map=lambda shard: [{"size": len(str(n))} for n in shard.index], reduce={"size": "sum"}, plan=TWO, **options
    )


def test_a_result_is_its_frame_with_named_levels_of_the_index_as_columns():
    index = pd.MultiIndex.from_tuples([(n, "x", f"l{n}") for n in range(7)], names=["id", None, "label"])
    result = result_of(DF.set_axis(index))
    table = pa.table(result)
    assert table.column_names == ["id", "label", *DF.columns, "size"]
    assert table["id"].to_pylist() == list(range(7))
    assert table["n"].to_pylist() == DF["n"].tolist()
    assert table["size"].to_pylist() == result.frame["size"].tolist()
    assert str(table.schema.field("when").type.tz) == "Europe/Berlin"
    assert pa.types.is_dictionary(table.schema.field("shop").type)
    assert pa.table(result_of(DF)).column_names == [*DF.columns, "size"]
    assert pa.RecordBatchReader.from_stream(result).read_all().equals(table)
    assert amr.as_frame(result)["size"].tolist() == result.frame["size"].tolist()


@pytest.mark.parametrize("read", [READERS.get(name, pa.table) for name in ["pyarrow", *INSTALLED]])
def test_a_result_can_be_read_by_what_reads_arrow(read):
    result = result_of(DF.drop(columns="note").rename_axis("id"))
    table = read(result)
    assert table.column_names == ["id", *DF.columns[:-1], "size"]
    assert table["size"].to_pylist() == result.frame["size"].tolist()
    assert table["tags"].to_pylist() == DF["tags"].tolist()
    assert table["text"].to_pylist() == [None if pd.isna(text) else text for text in DF["text"]]
    assert [moment.timestamp() for moment in table["when"].to_pylist()] == [moment.timestamp() for moment in DF["when"]]


def test_labels_that_are_no_texts_are_names_and_choices_of_several_types_json():
    df = pd.DataFrame(
        {1: ["a", "b"], ("x", "y"): [1, 2], "1": pd.Categorical(["a", 2])}, index=pd.Index([0, 1], name=7)
    )
    table = pa.table(result_of(df))
    assert table.column_names == ["7", "1", "x.y", "1_", "size"]
    assert table["1_"].to_pylist() == ['"a"', "2"]
    sparse = pa.table(result_of(pd.DataFrame({"s": pd.arrays.SparseArray([0, 1, 0])})))
    assert sparse["s"].to_pylist() == [0, 1, 0]


def test_a_result_that_arrow_cannot_hold_says_which_column():
    with pytest.raises(amr.UsageError, match=r"Column 'mixed' \(object\) .*astype\(\{'mixed': str\}\)"):
        pa.table(result_of(pd.DataFrame({"mixed": ["a", 1, {"b": 2}]})))
    with pytest.raises(amr.UsageError, match="The index and a column both have the name 'n'"):
        pa.table(result_of(DF.rename_axis("n")))
