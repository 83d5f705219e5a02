"""What is larger than memory: the same answer part by part as in one frame, whatever the parts; nothing is mapped twice."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import pandas_amr as amr
from examples import examples
from moments import until
from numbered import number, provider
from pandas_amr.testing import ScriptedServer, Status, findings
from processes import run_python

pytestmark = pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")


class Claim(BaseModel):
    word: str
    weight: int


def in_memory(table: pa.Table) -> pd.DataFrame:
    return table.to_pandas(types_mapper=pd.ArrowDtype)


def write_files(folder: Path, table: pa.Table, cuts: list[int]) -> list[Path]:
    """Write the rows between the cuts as a file each."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    bounds = sorted({0, *(min(cut, table.num_rows) for cut in cuts), table.num_rows})
    for place, (start, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
        paths.append(folder / f"{place:03d}.parquet")
        pq.write_table(table.slice(start, end - start), paths[-1])
    return paths


def make_table(numbers: list[int | None], shops: list[str]) -> pa.Table:
    return pa.table(
        {
            "text": pa.array([None if one is None else f"row {one}" for one in numbers], pa.string()),
            "shop": pa.array([shops[place % len(shops)] for place in range(len(numbers))], pa.string()),
            "price": pa.array([float(place) for place in range(len(numbers))], pa.float64()),
        }
    )


def measure(shard: pd.DataFrame) -> pd.DataFrame:
    """Find two numbers of each row; a shard with a 13 fails until it is alone."""
    if (shard["text"] == "row 13").any():
        raise ValueError("13")
    length = shard["text"].str.len()
    return pd.DataFrame({"length": length, "half": length.astype(float) / 2, "label": shard.index}, index=shard.index)


def spread_of(values: pd.Series) -> float:
    return float(values.max() - values.min()) if len(values.dropna()) else -1.0


def read_row(request):
    if request.schema == "reduction":
        lines = sorted(str(sorted(one.items())) for one in [dict(one, finding=0) for one in request.findings])
        return {"output": " | ".join(lines), "sources": [0]}
    if "row 13" in request.user:
        return Status(400, "no")
    if '"weight"' in str(request.body["response_format"]):
        return findings(request, lambda unit: {"items": [{"word": unit["text"], "weight": n} for n in range(number(unit)["n"] % 3)]})
    return findings(request, lambda unit: {"n": number(unit)["n"], "kind": "odd" if number(unit)["n"] % 2 else "even"})


TYPED = {"map": "Which?", "finding": {"n": int, "kind": Literal["even", "odd", "none"]}}
FUNCTION = {"map": measure}
CALLS = {
    "aggregations": FUNCTION | {"reduce": {"length": ["mean", "std", "median", "nunique"], "price": "sum"}},
    "groups": FUNCTION | {"reduce": {"half": "mean", "n": ("length", "count"), "most": ("half", spread_of)}, "by": "shop"},
    "named maps": {"map": {"a": measure, "b": measure}, "reduce": {"a_length": "sum", "b_half": "median"}},
    "a function": FUNCTION | {"reduce": lambda found: float(found["half"].sum())},
    "a function by groups": FUNCTION | {"reduce": lambda found: len(found), "by": amr.By("shop", sort=False)},
    "choices": TYPED | {"reduce": {"kind": "value_counts"}, "by": "shop"},
    "numbers by choice": TYPED | {"reduce": {"n": ["sum", "var"]}, "by": "kind"},
    "the first ones": TYPED | {"plan": {"ranking": {"field": "n", "most": 3}}},
    "those that are even": TYPED | {"reduce": {"n": "sum"}, "plan": {"where": "big"}, "finding": {"n": int, "big": bool}},
    "records": {"map": "Which?", "finding": list[Claim], "reduce": {"weight": "mean", "price": "sum"}, "by": "shop"},
    "agents": TYPED | {"reduce": "List them.", "output": str},
    "agents by groups": TYPED | {"reduce": "List them.", "by": "shop"},
    "a column of agents": TYPED | {"reduce": {"n": "max", "kind": amr.Agent("List them.")}},
    "statuses": TYPED | {"reduce": {"n": "count"}, "plan": {"status": "state"}},
}


def answer(request):
    if '"big"' in str(request.body["response_format"]):
        return findings(request, lambda unit: {"n": number(unit)["n"], "big": number(unit)["n"] % 2 == 0})
    return read_row(request)


def plain(value):
    """Make a value comparable: frames by their values, types and labels."""
    if isinstance(value, pd.DataFrame | pd.Series):
        frame = value.to_frame() if isinstance(value, pd.Series) else value
        return [str(list(frame.columns)), str(frame.dtypes.tolist()), str(frame.index.tolist()), frame.astype(str).values.tolist()]
    return value


def columns_of(frame: pd.DataFrame) -> dict:
    """Return the values of a frame as Arrow has them; a category as its values."""
    table = pa.table({name: pa.chunked_array(pa.array(frame[name].array)) if False else pa.array(frame[name]) for name in frame})
    return {name: table[name].to_pylist() for name in table.column_names}


def same_in_parts(call: dict, table: pa.Table, cuts: list[int]) -> None:
    """Compare a run over files with one over the same rows in a frame."""
    with tempfile.TemporaryDirectory() as folder, ScriptedServer(answer) as server:
        paths = write_files(Path(folder) / "in", table, cuts)
        options = {"lm": server.lm(), "columns": ["text"]} | call
        options["plan"] = {"shard_size": 3, "give_up_after": None} | call.get("plan", {})
        whole = amr.map_reduce(in_memory(table), journal=f"{folder}/whole.db", **options)
        parts = amr.map_reduce(paths, journal=f"{folder}/parts.db", out=f"{folder}/out", **options)
        assert parts.frame.count_rows() == table.num_rows
        assert plain(parts.output) == plain(whole.output)
        assert columns_of(parts.frame.to_table().to_pandas(types_mapper=pd.ArrowDtype)) == columns_of(whole.frame)
        if call.get("finding") != list[Claim]:
            assert columns_of(parts.findings.to_table().to_pandas(types_mapper=pd.ArrowDtype)) == columns_of(whole.findings)
        unlike = ["shard"]  # which counts from 1 in every part
        assert plain(parts.failures.drop(columns=[*unlike, "part"])) == plain(whole.failures.drop(columns=unlike))
        found = lambda status: status.isin(["ok", "cached"])  # noqa: E731 (equal rows of two parts are asked once)
        assert found(parts.status["status"]).tolist() == found(whole.status["status"]).tolist()
        assert parts.status["reason"].tolist() == whole.status["reason"].tolist() or parts.status["reason"].isna().tolist() == whole.status["reason"].isna().tolist()
        assert parts.total.calls == whole.total.calls or call.get("map") == "Which?"


NUMBERS = st.lists(st.one_of(st.none(), st.integers(0, 16)), min_size=1, max_size=14)
SHOPS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4)
CUTS = st.lists(st.integers(0, 14), max_size=4)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@settings(max_examples=examples(4), deadline=None, suppress_health_check=list(HealthCheck))
@given(numbers=NUMBERS, shops=SHOPS, cuts=CUTS)
def test_whole_and_in_parts_the_frame_findings_failures_and_answer_are_the_same(call, numbers, shops, cuts):
    same_in_parts(call, make_table(numbers, shops), cuts)
