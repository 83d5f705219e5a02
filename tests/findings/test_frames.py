"""Findings land on the right rows of any frame, and the frame given is never changed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from numbered import provider
from pandas_amr.testing import ScriptedServer, findings

ROWS = 23
INDEXES = {
    "range": pd.RangeIndex(ROWS),
    "shuffled": pd.Index(np.random.default_rng(0).permutation(ROWS)),
    "duplicated": pd.Index([n % 4 for n in range(ROWS)]),
    "all the same": pd.Index(["same"] * ROWS),
    "text": pd.Index([f"label {n}" for n in range(ROWS)], name="name"),
    "multi": pd.MultiIndex.from_tuples([(n % 3, f"x{n % 5}") for n in range(ROWS)], names=["a", "b"]),
    "dates": pd.date_range("2026-01-01", periods=ROWS, tz="UTC"),
}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES.keys())
def test_findings_are_on_the_right_rows_and_the_input_is_unchanged(index):
    df = pd.DataFrame({"text": [f"row {n * 7 % ROWS}" for n in range(ROWS)], "extra": range(ROWS)}, index=index)
    before = df.copy(deep=True)
    with ScriptedServer(provider) as server:
        found = df.amr.map("Which row?", columns="text", finding={"n": int}, plan={"shard_size": 4}, lm=server.lm())
    assert found["n"].tolist() == [n * 7 % ROWS for n in range(ROWS)]
    pd.testing.assert_frame_equal(df, before)
    pd.testing.assert_frame_equal(found[["text", "extra"]], before)
    assert found is not df


def test_changing_the_new_frame_leaves_the_old_one_alone():
    df = pd.DataFrame({"text": ["row 1", "row 2"], "extra": [1, 2]})
    with ScriptedServer(provider) as server:
        found = df.amr.map("Which row?", columns="text", finding={"n": int}, lm=server.lm())
    found.loc[0, "extra"] = 99
    assert df["extra"].tolist() == [1, 2]


def test_multi_level_and_non_string_columns_are_read_and_kept():
    df = pd.DataFrame([["row 3", 1.5]], columns=pd.MultiIndex.from_tuples([("in", "text"), ("in", 7)]))
    with ScriptedServer(lambda r: findings(r, lambda u: {"n": int(u["in.text"].split()[1])})) as server:
        found = df.amr.map("Which row?", finding={"n": int}, lm=server.lm())
        assert server.requests[0].units == [{"unit": 0, "in.text": "row 3", "in.7": 1.5}]
    assert found[("n", "")].tolist() == [3]
    assert found.columns.nlevels == 2


def test_an_empty_frame_costs_no_call_and_gives_typed_empty_columns(refusing):
    df = pd.DataFrame({"text": pd.Series([], dtype="object")})
    result = df.amr.map_reduce(
        map="Which row?", finding={"n": int, "ok": bool, "kind": ["a", "b"]}, reduce={"n": "sum"}, lm=refusing.lm()
    )
    dtypes = {name: str(dtype) for name, dtype in result.findings.dtypes.items()}
    assert dtypes == {"n": "int64[pyarrow]", "ok": "bool[pyarrow]", "kind": "category"}
    assert len(result.frame) == 0
    assert result.output["n"] == 0
    assert df.amr.map_reduce(map="Read.", reduce="Combine.", lm=refusing.lm()).output is None


def test_a_task_on_an_empty_frame_is_planned_from_its_schema():
    planned = {
        "map_instruction": "Which row?",
        "finding": [{"name": "n", "type": "int", "choices": [], "description": ""}],
        "shard_size": 5,
        "parallelism": 2,
        "aggregations": [{"field": "n", "function": "sum"}],
        "reduce_instruction": "",
    }
    df = pd.DataFrame({"text": pd.Series([], dtype="object")})
    with ScriptedServer(lambda request: planned) as server:
        result = df.amr.map_reduce("What is in there?", lm=server.lm())
        assert [request.schema for request in server.requests] == ["plan"]
        assert "The table has 0 rows" in server.requests[0].user
    assert list(result.frame.columns) == ["text", "n"]
    assert result.output["n"] == 0


def test_attrs_are_kept():
    df = pd.DataFrame({"text": ["row 1"]})
    df.attrs["source"] = "here"
    with ScriptedServer(provider) as server:
        assert df.amr.map("Which?", finding={"n": int}, lm=server.lm()).attrs["source"] == "here"


class Places(pd.DataFrame):
    """A frame with something of its own, as geopandas makes it."""

    _metadata = ["system"]  # noqa: RUF012 (pandas' own form)

    @property
    def _constructor(self):
        return Places


# The first pandas 2.2 warns of what it does itself with any subclass.
@pytest.mark.filterwarnings("ignore:Passing a BlockManager:DeprecationWarning")
def test_what_a_subclass_of_a_frame_keeps_is_kept_and_changing_it_leaves_the_old_one_alone():
    df = Places({"text": ["row 1"]})
    df.system, df.attrs["sources"] = "EPSG:4326", ["here"]
    with ScriptedServer(provider) as server:
        mapped = df.amr.map("Which?", finding={"n": int}, lm=server.lm())
        kept = df.amr.filter(lambda shard: [True] * len(shard))
    assert (type(mapped), mapped.system, type(kept), kept.system) == (Places, "EPSG:4326") * 2
    mapped.attrs["sources"].append("there")
    assert df.attrs == {"sources": ["here"]}


def test_equal_rows_are_asked_once_and_answered_for_all():
    df = pd.DataFrame({"text": ["row 1", "row 2", "row 1", "row 1"]})
    with ScriptedServer(provider) as server:
        found = df.amr.map("Which?", finding={"n": int}, lm=server.lm())
        assert [unit["text"] for unit in server.requests[0].units] == ["row 1", "row 2"]
    assert found["n"].tolist() == [1, 2, 1, 1]
    with ScriptedServer(provider) as server:
        df.amr.map("Which?", finding={"n": int}, plan={"dedupe": False}, lm=server.lm())
        assert len(server.requests[0].units) == 4
