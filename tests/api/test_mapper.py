"""A map without its frame: on every partition what ``map`` gives there, with types that are known before it runs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import multiprocessing
import os
import pickle
from typing import Any, Literal

import cloudpickle
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import pandas_amr as amr
from nullable import NULLABLE, Part
from pandas_amr.testing import ScriptedServer, Status, findings

FRAME = pd.DataFrame(
    {
        "text": [f"row {number}" for number in range(6)],
        "day": pd.date_range("2026-01-01", periods=6, tz="Europe/Berlin"),
    },
    index=pd.Index(["a", "b", "b", "c", "d", "e"], name="key"),
)
PLANNED = {
    "map_instruction": "Which number?",
    "finding": [{"name": "n", "type": "int", "choices": None, "description": "the number"}],
    "segmentation": "rows",
    "shard_size": 10,
    "parallelism": 3,
    "aggregations": [{"field": "n", "function": "sum"}],
    "reduce_instruction": None,
}
FINDING = {"n": int, "odd": bool, "word": ["odd", "even"]}


def number_of(unit: dict[str, Any]) -> int:
    return int(unit["text"].split()[1])


def answer(unit: dict[str, Any]) -> dict[str, Any]:
    number = number_of(unit)
    return {"n": number, "odd": number % 2 == 1, "word": "odd" if number % 2 else "even"}


def provider(request):
    if request.schema == "plan":
        return PLANNED
    return findings(request, answer)


def refuses_odd(request):
    if any(f"row {number}" in request.user for number in (1, 3, 5)):
        return Status(400, "filtered", code="content_filter")
    return provider(request)


def lengths(shard: pd.DataFrame) -> list[dict[str, int]]:
    return [{"length": len(text)} for text in shard["text"]]


def parts_with_sizes(shard: pd.DataFrame) -> list[list[dict[str, Any]]]:
    return [[{"name": text, "size": None}] * (len(text) % 3) for text in shard["text"]]


def maps_by_a_verb(shard: pd.DataFrame) -> pd.DataFrame:
    return shard.amr.map("Which number?", finding={"n": int}, columns="text")[["n"]].set_axis(shard.index)


def masked(text: str) -> str:
    return text.replace("row 3", "row 0")


def parts_of(frame: pd.DataFrame) -> list[pd.DataFrame]:
    return [frame.iloc[:2], frame.iloc[2:2], frame.iloc[2:5], frame.iloc[5:]]


def is_like(frame: pd.DataFrame, meta: pd.DataFrame) -> None:
    assert list(frame.columns) == list(meta.columns)
    assert frame.dtypes.tolist() == meta.dtypes.tolist()
    assert frame.index.dtype == meta.index.dtype
    assert frame.index.names == meta.index.names


# Frames


def test_partitions_give_what_map_gives_of_the_whole_and_the_journal_knows_them_as_the_same(tmp_path):
    with ScriptedServer(provider) as server:
        options: dict[str, Any] = {"finding": FINDING, "columns": "text", "lm": server.lm(), "journal": tmp_path / "j"}
        mapper = amr.mapper("Which number?", **options)
        given = FRAME.copy()
        mapped = [mapper(part) for part in parts_of(given)]
        sent = len(server.requests)
        assert sent == 3
        whole = FRAME.amr.map("Which number?", **options)
        assert len(server.requests) == sent
    pd.testing.assert_frame_equal(pd.concat(mapped), whole)
    pd.testing.assert_frame_equal(given, FRAME)
    for frame in mapped:
        is_like(frame, mapper.meta(FRAME))


@pytest.mark.parametrize("name", NULLABLE)
@pytest.mark.sampled(5)
def test_a_partition_has_the_types_of_meta_whatever_is_in_it(name):
    kind, value = NULLABLE[name]

    def script(request):
        if "row 4" in request.user:
            return Status(400, "filtered", code="content_filter")
        return findings(request, lambda unit: {"x": value if number_of(unit) < 2 else None})

    with ScriptedServer(script) as server:
        plan = {"status": True, "shard_size": 1}
        mapper = amr.mapper("Which?", finding={"x": kind}, columns="text", lm=server.lm(), plan=plan)
        meta = mapper.meta(FRAME)
        cases = {"values": FRAME.iloc[:2], "some": FRAME.iloc[1:3], "none": FRAME.iloc[2:4], "empty": FRAME.iloc[:0]}
        with pytest.warns(amr.FailureWarning):
            frames = {"failed": mapper(FRAME.iloc[4:5])}
        frames |= {case: mapper(frame) for case, frame in cases.items()}
        schema = mapper.arrow_schema(table_of(FRAME).schema)
        with pytest.warns(amr.FailureWarning):
            assert mapper(table_of(FRAME.iloc[4:5])).schema == schema
        for frame in cases.values():
            assert mapper(table_of(frame)).schema == schema
    for frame in frames.values():
        is_like(frame, meta)
    assert frames["values"]["x"].notna().all()
    assert frames["none"]["x"].isna().all()
    assert frames["failed"]["amr_status"].tolist() == ["failed"]
    assert frames["failed"]["amr_reason"].str.contains("filtered").all()
    assert frames["values"]["amr_status"].tolist() == ["ok", "ok"]
    joined = pd.concat(frames.values())
    is_like(joined, meta)
    back = pickle.loads(pickle.dumps(meta))
    is_like(back, meta)


MAPS: dict[str, Any] = {
    "function": (lengths, {"length": int}, ["length"]),
    "many records": (parts_with_sizes, list[Part], ["items", "items_count"]),
    "named": ({"a": lengths, "b": lengths}, {"a": {"length": int}, "b": {"length": float}}, ["a_length", "b_length"]),
    "one column": ({"a": lambda shard: [1] * len(shard)}, {"a": int}, ["a"]),
}


@pytest.mark.parametrize("name", MAPS)
def test_functions_need_no_model_and_give_the_columns_of_meta(name):
    instruction, finding, columns = MAPS[name]
    mapper = amr.mapper(instruction, finding=finding)
    expected = FRAME.amr.map(instruction, finding=finding)
    for part in parts_of(FRAME):
        is_like(mapper(part), mapper.meta(FRAME))
    assert list(mapper.meta(FRAME).columns) == [*FRAME.columns, *columns]
    assert mapper.arrow_schema().names == columns
    pd.testing.assert_frame_equal(mapper(FRAME), expected)
    assert mapper.lm is None


def test_columns_in_levels_and_an_index_in_levels_are_kept():
    columns = pd.MultiIndex.from_tuples([("a", "text"), ("b", "n")])
    index = pd.MultiIndex.from_product([["x"], [1, 2]], names=["one", None])
    frame = pd.DataFrame([["row 1", 1], ["row 2", 2]], columns=columns, index=index)
    mapper = amr.mapper(lambda shard: [{"n": 1}] * len(shard), finding={"n": int}, plan={"status": ("state", "why")})
    for part in (frame, frame.iloc[:0]):
        mapped = mapper(part)
        is_like(mapped, mapper.meta(frame))
        assert mapped.columns.tolist() == [("a", "text"), ("b", "n"), ("n", ""), ("state", ""), ("why", "")]
        assert mapped.index.equals(part.index)


# Arrow


def table_of(frame: pd.DataFrame) -> pa.RecordBatch:
    return pa.RecordBatch.from_pandas(frame.reset_index(), schema=pa.Schema.from_pandas(FRAME.reset_index()))


def test_batches_come_back_as_they_went_in_with_the_new_columns():
    with ScriptedServer(provider) as server:
        mapper = amr.mapper("Which number?", finding=FINDING, columns="text", lm=server.lm())
        given = [table_of(part) for part in parts_of(FRAME)]
        mapped = list(mapper.batches(iter(given)))
        schema = mapper.arrow_schema(given[0].schema)
        assert [batch.schema for batch in mapped] == [schema] * 4
        assert [type(batch) for batch in mapped] == [pa.RecordBatch] * 4
        for batch, before in zip(mapped, given, strict=True):
            assert batch.select(before.schema.names).equals(before.replace_schema_metadata(batch.schema.metadata))
        assert pa.Table.from_batches(mapped).column("word").to_pylist() == ["even", "odd"] * 3
        assert b"pandas" not in (schema.metadata or {})
        table = pa.Table.from_batches(given)
        assert mapper(table).equals(pa.Table.from_batches(mapped).combine_chunks())
        reader = pa.RecordBatchReader.from_batches(given[0].schema, given)
        assert list(mapper.batches(reader)) == mapped
        assert [type(frame) for frame in mapper.batches(parts_of(FRAME))] == [pd.DataFrame] * 4
        assert list(mapper.batches(iter([]))) == []


def test_batches_are_mapped_one_after_the_other_as_they_are_taken():
    with ScriptedServer(provider) as server:
        mapper = amr.mapper("Which number?", finding=FINDING, columns="text", lm=server.lm())
        mapped = mapper.batches(table_of(part) for part in parts_of(FRAME))
        assert len(server.requests) == 0
        next(mapped)
        assert len(server.requests) == 1


ARROW: dict[str, pa.Array] = {
    "text": pa.array(["a", None, "c"]),
    "view": pa.array(["a", None, "c"], pa.string_view()),
    "list of views": pa.array([["a"], None, ["c"]], pa.list_(pa.string_view())),
    "bytes": pa.array([b"1", None, b"2"], pa.binary_view()),
    "null": pa.nulls(3),
    "dictionary": pa.array(["a", None, "a"], pa.dictionary(pa.int8(), pa.string())),
    "time": pa.array([0, None, 2], pa.timestamp("ns", "Europe/Berlin")),
    "decimal": pa.array([1, None, 2], pa.decimal128(5, 2)),
    "struct": pa.array([{"a": "1"}, None, {"a": None}], pa.struct([("a", pa.string_view())])),
}


@pytest.mark.parametrize("name", ARROW)
def test_columns_of_every_arrow_type_come_back_as_they_went_in(name):
    batch = pa.record_batch({"text": ["a", "b", "c"], "other": ARROW[name]})
    mapper = amr.mapper(lengths, finding={"length": int}, plan={"shard_size": 1})
    mapped = mapper(batch)
    assert mapped.column("other").equals(batch.column("other"))
    assert mapped.column("length").to_pylist() == [1, 1, 1]
    assert mapped.schema == mapper.arrow_schema(batch)


def test_choices_are_plain_values_in_arrow_and_json_if_they_are_of_two_kinds():
    finding = {"word": ["odd", "even"], "size": [1, 2], "both": ["a", 1]}
    mapper = amr.mapper(lambda shard: [{"word": "odd", "size": 2, "both": "a"}] * len(shard), finding=finding)
    assert mapper(table_of(FRAME)).slice(0, 1).select(list(finding)).to_pylist() == [
        {"word": "odd", "size": 2, "both": '"a"'}
    ]


# What is known before


def test_nothing_is_sent_to_make_a_mapper_or_to_know_its_types(refusing):
    mapper = amr.mapper("Which number?", finding=FINDING, columns="text", lm=refusing.lm())
    assert mapper.meta(FRAME).empty
    assert mapper.arrow_schema().names == ["n", "odd", "word"]
    assert mapper.arrow_schema(FRAME).names == ["text", "day", "n", "odd", "word"]
    assert mapper(FRAME.iloc[:0]).empty
    assert repr(mapper) == "<FrameMapper of scripted: n, odd, word>"


def test_a_task_is_planned_once_and_its_plan_maps_every_partition():
    with ScriptedServer(provider) as server:
        plan = FRAME.amr.plan("Which numbers are there?", lm=server.lm())
        mapper = amr.mapper(instruction=None, plan=plan, lm=server.lm())
        mapped = [mapper(part) for part in parts_of(FRAME)]
        assert [request.schema for request in server.requests].count("plan") == 1
    assert pd.concat(mapped)["n"].tolist() == [0, 1, 2, 3, 4, 5]
    assert mapper.plan.map_instruction == "Which number?"


REFUSED: dict[str, tuple[Any, str]] = {
    "a frame": (lambda: amr.mapper(FRAME), r"takes no frame: mapper = amr.mapper\(...\), then mapper\(frame\)"),
    "a frame by name": (lambda: amr.mapper("Which?", frame=FRAME), "takes no frame"),
    "a Series": (lambda: amr.mapper(FRAME["text"]), "takes no frame"),
    "a frame first": (lambda: amr.mapper(FRAME, "Which?"), "takes no frame"),
    "nothing": (lambda: amr.mapper(), "say what to find"),
    "a plan without an instruction": (lambda: amr.mapper(plan={"task": "x"}), "say what to find"),
    "a task": (lambda: amr.mapper(task="Which?"), r"plan = rows.amr.plan\(task\)"),
    "an axis": (lambda: amr.mapper("Which?", axis="columns"), "maps the rows of partitions"),
    "an axis of the plan": (lambda: amr.mapper("Which?", plan={"axis": "columns"}), "maps the rows of partitions"),
    "a reduce": (lambda: amr.mapper("Which?", reduce={"n": "sum"}), "It maps only"),
    "groups": (lambda: amr.mapper("Which?", by="shop"), "It maps only"),
    "a wrong word": (lambda: amr.mapper("Which?", model="m"), "Did you mean 'lm'"),
    "a wrong plan": (lambda: amr.mapper("Which?", plan={"shard_sise": 3}), "Did you mean 'shard_size'"),
    "a wrong setting": (lambda: amr.mapper("Which?", errors="ignore"), 'errors= takes "coerce" or "raise"'),
    "no model": (lambda: amr.mapper("Which?"), "No model is configured"),
    "a function without types": (lambda: amr.mapper(lengths), "those of a function are not known"),
    "one without types among others": (
        lambda: amr.mapper({"a": lengths, "b": lengths}, finding={"a": {"length": int}}),
        r"finding=\{'b': \{...\}\}",
    ),
    "a plan that was redacted": (
        lambda: amr.mapper(plan={"map_instruction": "Which?", "redact": "f"}),
        "no redact function is in force",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_mapper_can_be_made_of_is_refused_when_it_is_made(name):
    make, message = REFUSED[name]
    with pytest.raises((amr.UsageError, amr.PlanError), match=message) as caught:
        make()
    assert "row 1" not in str(caught.value)


MISUSED: dict[str, tuple[Any, str]] = {
    "a Series": (lambda mapper: mapper(FRAME["text"]), r"not Series. Did you mean series.to_frame\(\)"),
    "a list": (lambda mapper: mapper([FRAME]), r"not list. For an iterator of them: mapper.batches\(iterator\)"),
    "a text": (lambda mapper: mapper("row 1"), "not str"),
    "no iterator": (lambda mapper: mapper.batches(FRAME), r"not DataFrame. A single partition: mapper\(frame\)"),
    "nothing to iterate": (lambda mapper: mapper.batches(3), "not int"),
    "what is no partition in the iterator": (lambda mapper: list(mapper.batches([3])), "not int"),
    "meta of Arrow": (lambda mapper: mapper.meta(table_of(FRAME)), r"mapper.arrow_schema\(data\)"),
    "a schema of nothing": (lambda mapper: mapper.arrow_schema(3), "not int"),
    "a missing column": (lambda mapper: mapper(FRAME[["day"]]), "No column 'text'"),
    "a missing column of nothing": (lambda mapper: mapper.meta(FRAME[["day"]]), "No column 'text'"),
    "a hidden column": (lambda mapper: mapper(FRAME.assign(n=1)), "'n' would hide a column"),
    "a hidden column of Arrow": (lambda mapper: mapper.arrow_schema(pa.schema([("text", pa.string()), ("n", pa.int8())])), "would hide"),
    "doubled columns": (lambda mapper: mapper.arrow_schema(pa.schema([("text", pa.string())] * 2)), "Column names must be unique"),
    "mixed values": (lambda mapper: mapper.arrow_schema(FRAME.assign(x=[1, "a", b"", 2, 3, 4])), "Arrow cannot hold this frame"),
    "awaited": (lambda mapper: asyncio.run(awaits(mapper)), r"asyncio.to_thread\(mapper, frame\)"),
}  # fmt: skip


async def awaits(mapper):
    await mapper(FRAME)


@pytest.mark.parametrize("name", MISUSED)
def test_a_partition_that_does_not_fit_is_refused_before_a_request(name, refusing):
    call, message = MISUSED[name]
    mapper = amr.mapper("Which number?", finding={"n": int}, columns="text", lm=refusing.lm())
    with pytest.raises(amr.UsageError, match=message):
        call(mapper)


def test_a_frame_of_an_engine_is_refused_with_the_way_of_that_engine():
    collection = type("DataFrame", (), {"__module__": "dask.dataframe.dask_expr._collection"})()
    with pytest.raises(amr.UsageError, match=r"For this one: x.map_partitions\(mapper, meta=mapper.meta\(x._meta\)\)"):
        amr.mapper(lengths, finding={"length": int})(collection)


# Failures


def test_what_failed_of_a_partition_is_missing_and_its_status_says_so():
    with ScriptedServer(refuses_odd) as server:
        plan = {"status": True, "shard_size": 1}
        mapper = amr.mapper("Which number?", finding={"n": int}, columns="text", lm=server.lm(), plan=plan)
        with pytest.warns(amr.FailureWarning, match="3 of 6 units failed"):
            mapped = mapper(FRAME)
    assert mapped["n"].isna().tolist() == [False, True] * 3
    assert mapped["amr_status"].tolist() == ["ok", "failed"] * 3
    assert len(amr.result_of(mapped).failures) == 3


def test_with_errors_raise_a_partition_raises_as_map_does():
    with ScriptedServer(refuses_odd) as server:
        plan = {"shard_size": 1}
        mapper = amr.mapper(
            "Which number?", finding={"n": int}, columns="text", lm=server.lm(), plan=plan, errors="raise"
        )
        with pytest.raises(amr.MapFailed) as caught:
            mapper(FRAME)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


# Settings


def test_what_was_set_where_it_was_made_holds_wherever_it_runs():
    with ScriptedServer(provider) as server:
        with amr.settings(lm=server.lm(), redact=masked, errors="raise", max_parallelism=3):
            mapper = amr.mapper("Which number?", finding={"n": int}, columns="text", max_steps=2)
        names = {"redact": masked, "errors": "raise", "max_parallelism": 3, "max_steps": 2, "lm": server.lm()}
        assert mapper.settings == names
        mapped = mapper(FRAME)
    assert mapped["n"].tolist() == [0, 1, 2, 0, 4, 5]
    assert mapped["text"].tolist() == FRAME["text"].tolist()


def test_pickle_a_mapper_of_a_model_by_its_name_goes_to_the_server_that_was_meant_here(monkeypatch):
    with ScriptedServer(provider) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        options: dict[str, Any] = {"finding": {"n": int}, "columns": "text"}
        agent = amr.Agent("Which number?", lm="scripted")
        made = [amr.mapper("Which number?", lm="scripted", **options), amr.mapper(agent, lm="scripted", **options)]
        with amr.settings(lm={"map": "scripted"}):
            made += [amr.mapper("Which number?", **options), amr.mapper(maps_by_a_verb, finding={"n": int})]
        data = [pickle.dumps(mapper) for mapper in made]
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
        for each in data:
            assert pickle.loads(each)(FRAME)["n"].tolist() == [0, 1, 2, 3, 4, 5]
        assert len(server.requests) == 4


def test_pickle_the_embedded_model_is_each_process_s_own():
    mapper = amr.mapper("Which?", finding={"n": int}, lm="local")
    assert pickle.loads(pickle.dumps(mapper)).lm == "local"


def test_pickle_a_mapper_keeps_what_redacts(monkeypatch):
    with amr.settings(redact=masked):
        mapper = amr.mapper("Which?", finding={"n": int}, lm=amr.LM("m"))
    assert pickle.loads(pickle.dumps(mapper)).settings == {"redact": masked}
    with amr.settings(redact=lambda text: text.replace("row 3", "row 0")), ScriptedServer(provider) as server:
        mapper = amr.mapper("Which?", finding={"n": int}, columns="text", lm=server.lm())
        again = pickle.loads(pickle.dumps(mapper))
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        assert again(FRAME)["n"].tolist() == [0, 1, 2, 0, 4, 5]
        assert not any("row 3" in request.user for request in server.requests)


# Processes


def read_part(data: bytes, frame: Any) -> Any:
    return pickle.loads(data)(frame)


def try_without_key(data: bytes, frame: pd.DataFrame) -> str:
    os.environ.pop("OPENAI_API_KEY", None)
    try:
        pickle.loads(data)(frame)
    except amr.UsageError as error:
        return str(error)
    return "no error"


@pytest.mark.long
def test_pickle_a_mapper_maps_partitions_in_spawned_processes_with_the_key_of_their_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-workers")
    spawn = multiprocessing.get_context("spawn")
    with ScriptedServer(provider) as server:
        lm = server.lm(api_key="sk-of-the-driver")
        mapper = amr.mapper("Which number?", finding=FINDING, columns="text", lm=lm, plan={"status": True})
        whole = mapper(FRAME)
        assert {request.headers["authorization"] for request in server.requests} == {"Bearer sk-of-the-driver"}
        del server.requests[:]
        data = {"pickle": pickle.dumps(mapper), "cloudpickle": cloudpickle.dumps(mapper)}
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=spawn) as pool:
            mapped = list(pool.map(mapper, parts_of(FRAME)))
            futures = [pool.submit(read_part, data["cloudpickle"], table_of(part)) for part in parts_of(FRAME)]
            batches = [future.result() for future in futures]
            assert {request.headers["authorization"] for request in server.requests} == {"Bearer sk-of-the-workers"}
            assert len(server.requests) == 6
            without = pool.submit(try_without_key, data["pickle"], FRAME).result()
        assert len(server.requests) == 6
    assert all(b"sk-of-the" not in each for each in data.values())
    pd.testing.assert_frame_equal(pd.concat(mapped), whole)
    assert pa.Table.from_batches(batches).column("n").to_pylist() == whole["n"].tolist()
    assert without == (
        "The key of scripted did not enter its pickle, and this process has none: set OPENAI_API_KEY in its "
        "environment. Nothing was sent."
    )


def test_pickle_every_copy_of_a_mapper_gives_the_same_types():
    mapper = amr.mapper(
        {"a": lengths, "b": lambda shard: ["x"] * len(shard)},
        finding={"a": {"length": int}, "b": Literal["x", "y"]},
        plan={"status": True},
    )
    copies = [pickle.loads(pickle.dumps(mapper, protocol)) for protocol in range(2, 6)]
    copies += [pickle.loads(cloudpickle.dumps(mapper)), copy.copy(mapper), copy.deepcopy(mapper)]
    for again in copies:
        assert again.plan == mapper.plan
        assert repr(again) == repr(mapper)
        is_like(again.meta(FRAME), mapper.meta(FRAME))
        pd.testing.assert_frame_equal(again(FRAME), mapper(FRAME))


def test_threads_map_partitions_side_by_side():
    with ScriptedServer(provider) as server:
        mapper = amr.mapper("Which number?", finding={"n": int}, columns="text", lm=server.lm())
        rows = [FRAME.iloc[[number]] for number in range(6)]
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            mapped = list(pool.map(mapper, rows))
    assert np.concatenate([frame["n"].to_numpy() for frame in mapped]).tolist() == [0, 1, 2, 3, 4, 5]
