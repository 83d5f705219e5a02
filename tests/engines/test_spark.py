"""A mapper on Spark: what a frame becomes there, and what a worker's death costs. Where Java is."""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pandas_amr as amr
import reader
from nullable import NULLABLE
from pandas_amr.testing import ScriptedServer, Status, findings

# What py4j leaves open, the collector closes.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
PAGE = Path(__file__).parents[2] / "docs" / "guide" / "cluster.md"
TRIES = 3
BATCH = 5  # rows
ZONE = "Europe/Berlin"


@pytest.fixture(scope="module")
def spark():
    """A session of two workers on this machine; skip where it cannot be had, with the reason."""
    sql = pytest.importorskip("pyspark.sql", reason="make test-spark has pyspark")
    if not shutil.which("java") and "JAVA_HOME" not in os.environ:
        pytest.skip("Spark needs Java, and there is none here")
    environment = pytest.MonkeyPatch()
    environment.setenv("PYSPARK_PYTHON", sys.executable)
    environment.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # of this module's types
    environment.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    builder = sql.SparkSession.builder.master(f"local[2,{TRIES}]")
    options = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",  # begins sooner
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(BATCH),
        "spark.sql.session.timeZone": ZONE,
        "spark.executorEnv.OPENAI_API_KEY": "scripted",
        "spark.executorEnv.AMR_JOURNAL": "off",
        "spark.executorEnv.AMR_LEASE": "off",
        "spark.log.level": "OFF",
    }
    for name, value in options.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    yield session
    session.stop()
    environment.undo()


def number_of(unit: dict[str, Any]) -> int:
    return int(unit["text"].split()[1])


def answer(request: Any) -> Any:
    """Find the number of a row, and refuse those that end with 7."""
    if any(number_of(unit) % 10 == 7 for unit in request.units):
        return Status(400, "filtered", code="content_filter")
    return findings(request, lambda unit: {"n": number_of(unit), "word": "odd" if number_of(unit) % 2 else "even"})


FRAME = pd.DataFrame({"text": [f"row {number}" for number in range(40)]})
QUESTION: dict[str, Any] = {
    "finding": {"n": int, "word": ["odd", "even"]},
    "columns": "text",
    "plan": {"status": True, "shard_size": 1},
}
TOTALS = {"total": ("n", "sum"), "words": ("word", "count")}


def times_asked(server: ScriptedServer) -> Counter[int]:
    """How often each row was asked about."""
    return Counter(number_of(unit) for request in server.requests for unit in request.units)


def map_on_spark(frame: Any, mapper: amr.FrameMapper) -> pa.Table:
    """What Spark makes of a frame, by the rows' order."""
    mapped = frame.mapInArrow(mapper.batches, mapper.spark_schema(frame))
    return mapped.toArrow().sort_by("text")


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
def test_a_local_run_one_in_parts_and_one_on_spark_give_the_same(spark, tmp_path):
    FRAME.to_parquet(tmp_path / "rows.parquet")
    with ScriptedServer(answer) as server:
        asked = {**QUESTION, "lm": server.lm()}
        local = FRAME.amr.map_reduce(map="Which number?", reduce=TOTALS, **asked)
        rows = tmp_path / "rows.parquet"
        streamed = amr.map_reduce(rows, map="Which number?", reduce=TOTALS, out=tmp_path / "out", **asked)
        before = len(server.requests)
        mapper = amr.mapper("Which number?", **asked)
        sdf = spark.read.parquet(str(rows)).repartition(4)
        spread = map_on_spark(sdf, mapper)
        assert len(server.requests) - before == before / 2
    whole = local.frame.sort_values("text", ignore_index=True)
    expected = [
        {name: None if pd.isna(value) else value for name, value in row.items()} for row in whole.to_dict("records")
    ]
    assert spread.to_pylist() == expected
    assert streamed.frame.to_table().sort_by("text").select(spread.column_names).to_pylist() == expected
    failed = {row["text"] for row in spread.to_pylist() if row["amr_status"] == "failed"}
    assert failed == set(FRAME["text"].iloc[local.failures["position"]]) == {"row 7", "row 17", "row 27", "row 37"}
    output = amr.reduce(spread, TOTALS).to_dict()
    assert output == local.output.to_dict() == streamed.output.to_dict()


SCALARS = (
    "int",
    "bool",
    "float",
    "text",
    "choices",
    "date",
    "time without a zone",
    "time with a zone",
    "decimal",
    "uuid",
)


def ask_of(names: Any) -> tuple[dict[str, Any], Any]:
    """The finding of some kinds, and a provider that leaves every second row's values out."""
    kinds = {f"{name.replace(' ', '_')}_": NULLABLE[name] for name in names}

    def script(request: Any) -> Any:
        return findings(
            request,
            lambda unit: {name: value if number_of(unit) % 2 else None for name, (_, value) in kinds.items()},
        )

    return {name: kind for name, (kind, _) in kinds.items()}, script


@pytest.mark.parametrize(("way", "names"), [("mapInArrow", tuple(NULLABLE)), ("mapInPandas", SCALARS)])
def test_a_column_has_on_spark_the_values_that_it_has_in_arrow(way, names, spark):
    finding, script = ask_of(names)
    rows = FRAME.iloc[:4]
    with ScriptedServer(script) as server:
        mapper = amr.mapper("Which?", finding=finding, columns="text", lm=server.lm())
        sdf = spark.createDataFrame([(text,) for text in rows["text"]], "text string")
        mapped = getattr(sdf, way)(mapper.batches, mapper.spark_schema(sdf))
        table = mapped.toArrow().sort_by("text")
        expected = mapper(pa.Table.from_pandas(rows, preserve_index=False))
    for name in finding:
        assert table[name].to_pylist() == expected[name].to_pylist(), name


def test_a_time_without_a_zone_is_not_moved_by_the_zone_of_the_session(spark):
    def times(shard: pd.DataFrame) -> list[dict[str, Any]]:
        return [{"at": dt.datetime(2026, 1, 31, 10)}] * len(shard)

    mapper = amr.mapper(times, finding={"at": dt.datetime})
    sdf = spark.createDataFrame([("row 1",)], "text string")
    mapped = sdf.mapInArrow(mapper.batches, mapper.spark_schema(sdf))
    assert mapped.selectExpr("cast(at as string)").first()["at"] == "2026-01-31 10:00:00"


def test_columns_of_the_frame_keep_their_types(spark):
    values = "'row 1', smallint(1), 1.50, timestamp'2026-01-31 10:00:00', array('a', null), map('a', 1)"
    sdf = spark.sql(f"select * from values ({values}) as rows (text, n, money, at, tags, by_name)")
    mapper = amr.mapper(lambda shard: [{"found": 1}] * len(shard), finding={"found": int})
    mapped = sdf.mapInArrow(mapper.batches, mapper.spark_schema(sdf))
    assert mapped.schema[:-1] == sdf.schema
    assert mapped.drop("found").collect() == sdf.collect()


def test_a_worker_that_is_killed_costs_what_was_in_flight(spark, tmp_path):
    killed = tmp_path / "killed"
    with ScriptedServer(answer) as server:
        rows = FRAME[~FRAME["text"].str.endswith("7")]
        mapper = amr.mapper("Which number?", lm=server.lm(), journal=tmp_path / "journal.db", **QUESTION)

        def batches(parts: Any) -> Any:
            for found in mapper.batches(parts):
                yield found
                if not killed.exists():
                    killed.touch()
                    os.kill(os.getpid(), signal.SIGKILL)

        sdf = spark.createDataFrame([(text,) for text in rows["text"]], "text string").coalesce(1)
        mapped = sdf.mapInArrow(batches, mapper.spark_schema(sdf)).toArrow()
        assert killed.exists()
        assert sorted(mapped["n"].to_pylist()) == sorted(int(text.split()[1]) for text in rows["text"])
        assert times_asked(server) == dict.fromkeys(mapped["n"].to_pylist(), 1)
        assert len(amr.Journal(tmp_path / "journal.db").runs()) > len(rows) / BATCH


def test_workers_of_a_machine_share_a_budget(spark, tmp_path):
    calls, rows = 7, FRAME[~FRAME["text"].str.endswith("7")]  # a request that is refused is no call
    with ScriptedServer(answer) as server, amr.settings(lease=tmp_path / "lease"):
        budget = amr.Budget(calls=calls, shared="nightly")
        mapper = amr.mapper("Which number?", lm=server.lm(), budget=budget, **QUESTION)
        sdf = spark.createDataFrame([(text,) for text in rows["text"]], "text string").repartition(4)
        table = map_on_spark(sdf, mapper)
        assert len(server.requests) == calls
    assert Counter(table["amr_status"].to_pylist()) == {"ok": calls, "skipped": len(rows) - calls}


def test_what_the_guide_says_runs_as_it_stands(spark, tmp_path, monkeypatch):
    text = PAGE.read_text(encoding="utf-8").split("## Spark\n")[1]
    block = re.search(r"^```py\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert block is not None
    code = block[1].replace("/tmp/journal.db", str(tmp_path / "journal.db"))
    code = re.sub(r'"(\w+\.parquet)"', lambda found: repr(str(tmp_path / found[1])), code)
    texts = ["The battery died.", "It is fine.", "The strap broke."]
    pq.write_table(pa.table({"text": texts}), tmp_path / "reviews.parquet")
    with ScriptedServer(reader.read) as server:
        monkeypatch.setenv("AMR_MODEL", "scripted")
        monkeypatch.setenv("OPENAI_API_KEY", "scripted")
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        names: dict[str, Any] = {}
        exec(compile(code, str(PAGE), "exec"), names)
        asked = len(server.requests)
        assert {row["kind"]: row["avg(severity)"] for row in names["severity"].collect()} == {
            "battery": 5.0,
            "other": 1.0,
            "strap": 4.0,
        }
        assert names["failed"].count() == 0
        assert len(server.requests) == asked  # what was written is read
    assert names["advice"] == "3 findings were read."


def of_module(module: str, name: str) -> Any:
    return type(name, (), {"__module__": module})()


WRONG: dict[str, tuple[Any, str]] = {
    "a pandas frame": (FRAME, r"takes a Spark DataFrame or the schema of one, not DataFrame\.$"),
    "an Arrow schema": (pa.schema({"text": pa.string()}), r"not Schema\.$"),
    "a text": ("text string", r"not str\.$"),
    "none": (None, r"not NoneType\.$"),
    "a class": (pd.DataFrame, r"not type\.$"),
    "pandas on Spark": (
        of_module("pyspark.pandas.frame", "DataFrame"),
        r"not DataFrame\. For this one: x\.to_spark\(\)\.$",
    ),
    "a column": (of_module("pyspark.sql.classic.column", "Column"), r"not Column\.$"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_spark_frame_is_refused(case):
    given, reason = WRONG[case]
    with pytest.raises(amr.UsageError, match=reason):
        amr.mapper(len, finding={"n": int}).spark_schema(given)


def test_a_frame_that_the_mapper_does_not_fit_is_refused_before_a_job(spark, refusing):
    mapper = amr.mapper("Which number?", lm=refusing.lm(), **QUESTION)
    for schema, error in {"body string": amr.ColumnError, "text string, n int": amr.UsageError}.items():
        with pytest.raises(error):
            mapper.spark_schema(spark.createDataFrame([], schema))


def test_a_mapper_that_is_given_a_spark_frame_says_the_whole_call(spark):
    sdf = spark.createDataFrame([("row 1",)], "text string")
    with pytest.raises(amr.UsageError, match=re.escape("x.mapInArrow(mapper.batches, mapper.spark_schema(x))")):
        amr.mapper(len, finding={"n": int})(sdf)
