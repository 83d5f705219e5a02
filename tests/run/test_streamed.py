"""What is larger than memory: the same answer part by part as in one frame, whatever the parts; nothing is mapped twice."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import re
import signal
import tempfile
import threading
from decimal import Decimal
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import pandas_amr as amr
from examples import examples
from moments import LONGEST_S
from numbered import number
from pandas_amr._units.batches import MOST_BYTES, cut_tables
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
    for place, (start, end) in enumerate(itertools.pairwise(bounds)):
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
    if '"weight"' in json.dumps(request.body):
        return findings(
            request, lambda unit: {"items": [{"word": unit["text"], "weight": n} for n in range(number(unit)["n"] % 3)]}
        )
    return findings(request, lambda unit: {"n": number(unit)["n"], "kind": "odd" if number(unit)["n"] % 2 else "even"})


TYPED = {"map": "Which?", "finding": {"n": int, "kind": Literal["even", "odd", "none"]}}
FUNCTION = {"map": measure}
CALLS = {
    "aggregations": FUNCTION | {"reduce": {"length": ["mean", "std", "median", "nunique"], "price": "sum"}},
    "groups": FUNCTION
    | {"reduce": {"half": "mean", "n": ("length", "count"), "most": ("half", spread_of)}, "by": "shop"},
    "named maps": {"map": {"a": measure, "b": measure}, "reduce": {"a_length": "sum", "b_half": "median"}},
    "a function": FUNCTION | {"reduce": lambda found: float(found["half"].sum())},
    "a function by groups": FUNCTION | {"reduce": lambda found: len(found), "by": amr.By("shop", sort=False)},
    "choices": TYPED | {"reduce": {"kind": "value_counts"}, "by": "shop"},
    "numbers by choice": TYPED | {"reduce": {"n": ["sum", "var"]}, "by": "kind"},
    "the first ones": TYPED | {"plan": {"ranking": {"field": "n", "most": 3}}},
    "those that are even": TYPED
    | {"reduce": {"n": "sum"}, "plan": {"where": "big"}, "finding": {"n": int, "big": bool}},
    "records": {"map": "Which?", "finding": list[Claim], "reduce": {"weight": "mean", "price": "sum"}, "by": "shop"},
    "agents": TYPED | {"reduce": "List them.", "output": str},
    "agents by groups": TYPED | {"reduce": "List them.", "by": "shop"},
    "a column of agents": TYPED | {"reduce": {"n": "max", "kind": amr.Agent("List them.")}},
    "statuses": TYPED | {"reduce": {"n": "count"}, "plan": {"status": True}},
}


def answer(request):
    if '"big"' in json.dumps(request.body):
        return findings(request, lambda unit: {"n": number(unit)["n"], "big": number(unit)["n"] % 2 == 0})
    return read_row(request)


def plain(value):
    """Make a value comparable: frames by their values, types and labels."""
    if isinstance(value, pd.DataFrame | pd.Series):
        frame = value.to_frame() if isinstance(value, pd.Series) else value
        return [
            str(list(frame.columns)),
            str(frame.dtypes.tolist()),
            str(frame.index.tolist()),
            frame.astype(str).values.tolist(),
        ]
    return value


def columns_of(frame: pd.DataFrame) -> dict:
    """Return the values of a frame as Arrow has them; a category as its values."""
    return {name: pa.array(frame[name]).to_pylist() for name in frame}


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
            assert columns_of(parts.findings.to_table().to_pandas(types_mapper=pd.ArrowDtype)) == columns_of(
                whole.findings
            )
        unlike = ["shard", "attempts"]  # shards count from 1 in every part, and end with it
        assert plain(parts.failures.drop(columns=[*unlike, "part"])) == plain(whole.failures.drop(columns=unlike))
        found = lambda status: status.isin(["ok", "cached"])  # noqa: E731 (equal rows of two parts are asked once)
        assert found(parts.status["status"]).tolist() == found(whole.status["status"]).tolist()
        assert parts.status["reason"].isna().tolist() == whole.status["reason"].isna().tolist()


NUMBERS = st.lists(st.one_of(st.none(), st.integers(0, 16)), min_size=1, max_size=14)
SHOPS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4)
CUTS = st.lists(st.integers(0, 14), max_size=4)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@settings(max_examples=examples(4), deadline=None, suppress_health_check=list(HealthCheck))
@given(numbers=NUMBERS, shops=SHOPS, cuts=CUTS)
@pytest.mark.sampled(4)
def test_whole_and_in_parts_the_frame_findings_failures_and_answer_are_the_same(call, numbers, shops, cuts):
    same_in_parts(call, make_table(numbers, shops), cuts)


# Going on


def lengths_of(counted: list[str], failing: str = ""):
    """Make a function that notes its rows; whatever it notes, its code is the same."""

    def lengths(shard):
        counted.extend(shard["text"].tolist())
        if failing and (shard["text"] == failing).any():
            raise ValueError("this one")
        return pd.DataFrame({"length": shard["text"].str.len()}, index=shard.index)

    lengths.amr_version = "1"
    return lengths


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_files(tmp_path / "in", make_table(list(range(12)), ["a", "b"]), [4, 8])


def mapped_again(files, out, **options) -> list[str]:
    counted: list[str] = []
    amr.map(files, lengths_of(counted), journal=False, out=out, **options)
    return counted


def test_files_below_a_home_that_is_itself_in_a_hidden_folder_are_found(tmp_path, monkeypatch):
    home = tmp_path / "_homes" / ".me"
    (home / "data" / "_notes").mkdir(parents=True)
    (home / "data" / "rows.csv").write_text("text\na\n")
    (home / "data" / "_notes" / "more.csv").write_text("text\nb\n")
    monkeypatch.setenv("HOME", str(home))
    for place, pattern in enumerate(("~/data/*.csv", "~/data/**/*.csv", str(home / "data" / "*.csv"))):
        assert mapped_again(pattern, tmp_path / f"out-{place}") == ["a"]


def test_a_folder_that_one_run_wrote_is_read_by_the_next(files, tmp_path):
    assert len(mapped_again(files, tmp_path / "first")) == 12
    doubled = amr.map(
        str(tmp_path / "first"),
        lambda shard: [{"doubled": 2 * length} for length in shard["length"]],
        journal=False,
        out=tmp_path / "second",
    )
    table = doubled.to_table(columns=["length", "doubled"]).to_pydict()
    assert table["doubled"] == [2 * length for length in table["length"]]
    assert len(table["doubled"]) == 12


def test_the_same_call_again_maps_nothing_and_a_file_written_anew_alone(files, tmp_path):
    out = tmp_path / "out"
    assert len(mapped_again(files, out)) == 12
    assert mapped_again(files, out) == []
    pq.write_table(make_table([90, 91], ["a"]), files[1])
    assert mapped_again(files, out) == ["row 90", "row 91"]
    assert [one.name.split("-")[1] for one in sorted(out.glob("*.parquet"))] == ["00000", "00001", "00002"]
    assert ds.dataset(out).to_table()["text"].to_pylist() == [f"row {n}" for n in (0, 1, 2, 3, 90, 91, 8, 9, 10, 11)]


def test_files_that_come_before_others_or_go_change_the_places_of_parts_and_map_nothing_else(files, tmp_path):
    out = tmp_path / "out"
    mapped_again(files, out)
    first = files[0].parent / "!.parquet"
    pq.write_table(make_table([50], ["a"]), first)
    assert mapped_again([first, files[0], files[2]], out) == ["row 50"]
    assert ds.dataset(out).to_table()["text"].to_pylist() == [f"row {n}" for n in (50, 0, 1, 2, 3, 8, 9, 10, 11)]


def test_a_folder_of_another_value_is_another_part_and_its_rows_are_mapped_again(tmp_path):
    """What stands in the rows and in no file: the value of a partition whose folder is the one that is read."""
    write_files(tmp_path / "in" / "day=1", make_table([1, 2], ["a"]), [])
    assert len(mapped_again(f"{tmp_path}/in/day=1/*.parquet", tmp_path / "out")) == 2
    (tmp_path / "in" / "day=1").rename(tmp_path / "in" / "day=2")
    assert len(mapped_again(f"{tmp_path}/in/day=2/*.parquet", tmp_path / "out")) == 2
    assert mapped_again(f"{tmp_path}/in/day=2/*.parquet", tmp_path / "out") == []
    assert set(ds.dataset(tmp_path / "out").to_table()["day"].to_pylist()) == {2}


CODES = pa.schema([("text", pa.string()), ("code", pa.string())])
LATIN = ds.CsvFileFormat(read_options=pacsv.ReadOptions(encoding="latin1"))
READ_TWICE = {  # what is read of one file, in two ways
    "a type": ({"format": "parquet"}, {"format": "parquet", "schema": CODES}, "code", [7, 7], ["7", "7"]),
    "a column": (
        {"format": "parquet"},
        {"format": "parquet", "schema": pa.schema([("text", pa.string())])},
        "code",
        [7, 7],
        None,
    ),
    "a type of a text": ({"format": "csv"}, {"format": "csv", "schema": CODES}, "code", [7, 7], ["007", "007"]),
    "the encoding": ({"format": LATIN}, {"format": "csv"}, "text", ["row \u00c3\u00a9"] * 2, ["row \u00e9"] * 2),
}


@pytest.mark.parametrize("case", READ_TWICE)
def test_a_dataset_that_reads_the_same_file_otherwise_is_mapped_again(tmp_path, case):
    first, second, column, before, after = READ_TWICE[case]
    path = tmp_path / "in"
    if first["format"] == "parquet":
        pq.write_table(pa.table({"text": ["row 1", "row 2"], "code": [7, 7]}), path)
    else:
        path.write_text("text,code\nrow \u00e9,007\nrow \u00e9,007\n", "utf-8")
    out = tmp_path / "out"
    for reading, values in ((first, before), (second, after)):
        assert len(mapped_again(ds.dataset(path, **reading), out, columns=["text"])) == 2
        assert mapped_again(ds.dataset(path, **reading), out, columns=["text"]) == []
        found = ds.dataset(out).to_table()
        assert (found[column].to_pylist() if column in found.column_names else None) == values


class Untimed(pafs.FileSystemHandler):
    """One file in memory, of which no time is told: so are the file systems of many object stores."""

    def __init__(self, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="none")
        self.content = sink.getvalue()

    def get_file_info(self, paths):
        return [pafs.FileInfo(path, pafs.FileType.File, size=self.content.size) for path in paths]

    def open_input_file(self, path):
        return pa.PythonFile(pa.BufferReader(self.content), mode="r")

    def normalize_path(self, path):
        return path

    def get_type_name(self):
        return "untimed"

    def _refused(self, *given):
        raise NotImplementedError

    get_file_info_selector = create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = _refused
    delete_file = move = copy_file = open_input_stream = open_output_stream = open_append_stream = _refused


def test_a_file_without_a_time_is_known_by_its_rows(tmp_path):
    for first in ("row 1", "row 3"):
        handler = Untimed(pa.table({"text": [first, "row 2"]}))
        for rows in ([first, "row 2"], []):
            dataset = ds.dataset("in.parquet", filesystem=pafs.PyFileSystem(handler), format="parquet")
            assert mapped_again(dataset, tmp_path / "out") == rows
        assert ds.dataset(tmp_path / "out").to_table()["text"].to_pylist() == [first, "row 2"]


def test_what_a_person_corrects_with_the_same_journal_stands_in_the_parts_at_the_next_call(files, tmp_path):
    call = {"finding": {"n": int}, "columns": ["text"], "journal": tmp_path / "j.db"}
    rows = pd.concat([pd.read_parquet(path) for path in files], ignore_index=True)
    with ScriptedServer(answer) as server:
        call["lm"] = server.lm()

        def in_parts() -> tuple[list[int], list[str]]:
            found = amr.map(files, "Which?", out=tmp_path / "out", **call)
            return found.to_table()["n"].to_pylist(), amr.result_of(found).status["status"].tolist()

        found = in_parts()
        assert found == (list(range(12)), ["ok"] * 12)
        requests = len(server.requests)
        corrected = amr.result_of(rows.amr.map("Which?", **call)).override({5: {"n": 50}})
        assert in_parts() == ([*range(5), 50, *range(6, 12)], ["ok"] * 5 + ["corrected"] + ["ok"] * 6)
        amr.Journal(tmp_path / "j.db").prune(keep=0)  # what was found is in the parts
        corrected = corrected.override({7: {"n": 70}})
        assert in_parts()[0] == [*range(5), 50, 6, 70, *range(8, 12)]
        corrected.override({5: None, 7: None})
        assert len(server.requests) == requests
        assert in_parts() == found
        assert len(server.requests) == requests + 1  # about these two: the journal has nothing of them any more


def test_a_journal_that_is_refreshed_asks_about_the_rows_of_written_parts_too(files, tmp_path):
    options = {"finding": {"n": int}, "columns": ["text"], "out": tmp_path / "out"}
    with ScriptedServer(answer) as server:
        for journal, requests in (
            (tmp_path / "j.db", 3),
            (tmp_path / "j.db", 3),
            (amr.Journal(tmp_path / "j.db", refresh=True), 6),
        ):
            found = amr.map(files, "Which?", lm=server.lm(), journal=journal, **options)
            assert len(server.requests) == requests
        assert found.to_table()["n"].to_pylist() == list(range(12))
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 3


def test_another_reduce_maps_nothing_again(files, tmp_path):
    counted: list[str] = []
    for reduce, output in (({"length": "sum"}, {"length": 12 * 5 + 2}), ({"length": "max"}, {"length": 6})):
        result = amr.map_reduce(files, map=lengths_of(counted), reduce=reduce, journal=False, out=tmp_path / "out")
        assert result.output.to_dict() == output
    assert len(counted) == 12


@pytest.mark.parametrize(
    "change",
    [
        {"plan": {"shard_size": 2}},
        {"columns": ["text"]},
        {"plan": {"status": True}},
    ],
    ids=str,
)
def test_another_plan_maps_all_of_it_again_and_says_so_in_one_warning(files, tmp_path, change):
    mapped_again(files, tmp_path / "out")
    with pytest.warns(
        amr.PlanWarning, match="3 parts in .* were made by another plan, model or function, and are mapped"
    ) as told:
        assert len(mapped_again(files, tmp_path / "out", **change)) == 12
    assert len(told) == 1
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 3


def one_way(shard):
    return [{"n": 1} for _ in range(len(shard))]


def other_way(shard):
    return [{"n": 2} for _ in range(len(shard))]


def times(factor):
    return lambda shard: [{"n": factor} for _ in range(len(shard))]


def written_in(text):
    return lambda shard: [{"n": int(str(text))} for _ in range(len(shard))]


def day_of(day):
    return lambda shard: [{"n": day.day} for _ in range(len(shard))]


def first_of(numbers):
    return lambda shard: [{"n": int(numbers[0])} for _ in range(len(shard))]


WAYS = {
    "code": (one_way, other_way),
    "a variable": (times(1), times(2)),
    "a number of numpy": (times(np.int64(1)), times(np.int64(2))),
    "a decimal": (written_in(Decimal(1)), written_in(Decimal(2))),
    "a path": (written_in(Path("1")), written_in(Path("2"))),
    "a day": (day_of(dt.date(2026, 1, 1)), day_of(dt.date(2026, 1, 2))),
    "a time of pandas": (day_of(pd.Timestamp("2026-01-01")), day_of(pd.Timestamp("2026-01-02"))),
    "an array": (first_of(np.array([1, 0])), first_of(np.array([2, 0]))),
}


@pytest.mark.parametrize(("first", "second"), WAYS.values(), ids=WAYS)
def test_a_function_whose_code_or_variable_is_another_is_another(files, tmp_path, first, second):
    out = tmp_path / "out"
    assert set(amr.map(files, first, journal=False, out=out).to_table()["n"].to_pylist()) == {1}
    with pytest.warns(amr.PlanWarning, match="mapped again"):
        assert set(amr.map(files, second, journal=False, out=out).to_table()["n"].to_pylist()) == {2}


def test_another_model_is_asked_again_and_the_same_one_is_not(files, tmp_path):
    with ScriptedServer(answer) as server:
        options = {"finding": {"n": int}, "columns": ["text"], "journal": False, "out": tmp_path / "out"}
        for model, requests in (("one", 3), ("one", 3), ("two", 6)):
            with pytest.warns(amr.PlanWarning) if requests == 6 else contextlib.nullcontext():
                amr.map(files, "Which?", lm=server.lm(model=model), **options)
            assert len(server.requests) == requests


def test_only_the_rows_that_failed_are_mapped_again(files, tmp_path):
    out, counted = tmp_path / "out", []
    found = amr.map(files, lengths_of(counted, "row 5"), journal=False, out=out, plan={"shard_size": 4})
    assert found.to_table()["length"].to_pylist().count(None) == 1
    assert amr.result_of(found).failures[["label", "position", "part"]].values.tolist() == [
        [5, 5, min(out.glob("part-00001-*.parquet")).name]
    ]
    counted.clear()
    found = amr.map(files, lengths_of(counted), journal=False, out=out, plan={"shard_size": 4})
    assert counted == ["row 5"]
    assert found.to_table()["length"].to_pylist() == [5] * 10 + [6] * 2
    assert len(amr.result_of(found).failures) == 0


KILLED = """
import os, sys, pandas as pd, pandas_amr as amr
folder, seen = sys.argv[1], []
def lengths_of():
    def lengths(shard):
        seen.append(len(shard))
        if len(seen) == 2:
            os.kill(os.getpid(), 9)
        return pd.DataFrame({"length": shard["text"].str.len()}, index=shard.index)
    lengths.amr_version = "1"
    return lengths
amr.map(f"{folder}/in/*.parquet", lengths_of(), journal=False, out=f"{folder}/out")
"""


@pytest.mark.long
def test_a_process_that_is_killed_costs_the_part_that_was_under_way(files, tmp_path):
    assert run_python(KILLED, tmp_path).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 1
    assert mapped_again(f"{tmp_path}/in/*.parquet", tmp_path / "out") == [f"row {n}" for n in range(4, 12)]


def test_with_a_journal_not_even_the_answers_of_the_part_under_way_are_paid_again(files, tmp_path):
    def dying(request):
        return Status(401, "no") if "row 6" in request.user else answer(request)

    options = {"finding": {"n": int}, "columns": ["text"], "journal": tmp_path / "j.db", "out": tmp_path / "out"}
    options |= {"plan": {"shard_size": 1}, "max_parallelism": 1}
    with ScriptedServer(dying) as server:
        with pytest.raises(amr.ModelConfigError) as caught:
            amr.map(files, "Which?", lm=server.lm(), **options)
        answered = len(server.requests) - 1
    assert caught.value.partial.rows == 4
    assert answered > 4
    with ScriptedServer(answer) as server:
        found = amr.map(files, "Which?", lm=server.lm(), **options)
        assert len(server.requests) == 12 - answered
    assert found.to_table()["n"].to_pylist() == list(range(12))


# The run's limits, not each part's


def test_a_budget_is_that_of_all_parts_and_what_is_done_counts(files, tmp_path):
    with ScriptedServer(answer) as server:
        options = {
            "map": "Which?",
            "finding": {"n": int},
            "columns": ["text"],
            "reduce": {"n": "sum"},
            "lm": server.lm(),
        }
        options |= {"journal": False, "out": tmp_path / "out", "plan": {"shard_size": 2}, "max_parallelism": 1}
        first = amr.map_reduce(files, budget=amr.Budget(calls=3), **options)
        assert (len(server.requests), first.rows, first.output) == (3, 4, None)
        assert "budget" in first.stopped
        assert repr(first).startswith("<Result 4 of 12 rows in 1 part, 3 calls, ")
        assert repr(first).endswith(", 8 skipped, stopped: The budget of 3 calls is used up>")
        assert "Skipped: 8 of 12 rows; the run ended before their turn." in first._repr_html_()
        second = amr.map_reduce(files, **options)
    assert (second.output["n"], first.unread, second.unread) == (sum(range(12)), 8, 0)


def test_a_run_gives_up_over_all_parts_of_which_each_is_too_small_to_tell(tmp_path):
    files = write_files(tmp_path / "in", make_table(list(range(20)), ["a"]), list(range(2, 20, 2)))
    counted: list[str] = []

    def failing(shard):
        counted.extend(shard["text"].tolist())
        raise ValueError("always")

    result = amr.map_reduce(files, map=failing, reduce=len, out=tmp_path / "out", plan={"give_up_after": 6})
    assert re.match(r"00\d.parquet: \d+ units in \d shards failed and none succeeded", result.stopped)
    assert len(set(counted)) < 12
    assert result.rows < 12


def test_errors_raise_names_the_file_and_the_row_and_writes_nothing_of_its_part(files, tmp_path):
    with pytest.raises(
        amr.MapFailed, match=r"001.parquet: a unit failed, row 5: ValueError: this one \(callable\)"
    ) as caught:
        amr.map(files, lengths_of([], "row 5"), journal=False, out=tmp_path / "out", errors="raise")
    assert caught.value.partial.frame.to_table()["text"].to_pylist() == [f"row {n}" for n in range(4)]


def test_progress_is_that_of_all_parts(files, tmp_path):
    run = amr.start(files, map=lengths_of([], "row 5"), reduce={"length": "sum"}, journal=False, out=tmp_path / "out")
    run.result()
    assert (run.progress.units, run.progress.found, run.progress.failed) == (12, 11, 1)
    with pytest.raises(amr.UsageError, match="in the parts"):
        list(run)


PLANNED = {
    "map_instruction": "Which?",
    "finding": [{"name": "n", "type": "int", "choices": [], "description": "the number"}],
    "shard_size": 4,
    "parallelism": 1,
    "aggregations": [{"field": "n", "function": "sum"}],
    "reduce_instruction": "",
}


def planned(request):
    return PLANNED if request.schema == "plan" else findings(request, number)


def test_a_plan_is_made_once_from_rows_of_all_files_and_again_not_at_all(files, tmp_path):
    with ScriptedServer(planned) as server:
        options = {"columns": ["text"], "lm": server.lm(), "journal": False, "out": tmp_path / "out"}
        first = amr.map_reduce(files, "How many in all?", **options)
        asked = [one for one in server.requests if one.schema == "plan"]
        assert len(asked) == 1
        for rows_of_file in ((0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)):
            assert any(f'"row {n}"}}' in asked[0].user for n in rows_of_file)
        again = amr.map_reduce(files, "How many in all?", **options)
        assert [one.schema for one in server.requests].count("plan") == 1
        refreshed = amr.Journal(tmp_path / "j.db", refresh=True)
        amr.map_reduce(files, "How many in all?", **options | {"journal": refreshed})
        assert [one.schema for one in server.requests].count("plan") == 2
    assert first.output.to_dict() == again.output.to_dict() == {"n": sum(range(12))}


# Inputs


BATCHES = pa.Table.from_batches(make_table(list(range(12)), ["a", "b"]).to_batches(max_chunksize=5))
SOURCES = {
    "a glob": lambda folder: f"{folder}/in/*.parquet",
    "a folder": lambda folder: folder / "in",
    "a list": lambda folder: [str(one) for one in sorted((folder / "in").iterdir())],
    "a dataset": lambda folder: ds.dataset(folder / "in"),
    "a dataset with a filter": lambda folder: ds.dataset(folder / "in").filter(ds.field("price") >= 0),
    "a reader": lambda _: BATCHES.to_reader(),
    "a table": lambda _: BATCHES,
    "frames": lambda _: (in_memory(BATCHES.slice(start, 5)) for start in range(0, 12, 5)),
    "frames of numpy": lambda _: (BATCHES.slice(start, 5).to_pandas() for start in range(0, 12, 5)),
    "batches": lambda _: iter(BATCHES.to_batches()),
    "a frame": lambda _: BATCHES.to_pandas(),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.sampled(4)
def test_whatever_the_input_the_rows_and_the_answer_are_the_same_and_again_nothing_is_mapped(files, tmp_path, source):
    counted: list[str] = []
    for rows in (12, 12):
        found = amr.map(source(tmp_path), lengths_of(counted), journal=False, out=tmp_path / "out")
        assert found.to_table(columns=["text", "price", "length"]).to_pydict() == {
            "text": [f"row {n}" for n in range(12)],
            "price": [float(n) for n in range(12)],
            "length": [5] * 10 + [6] * 2,
        }
        assert len(counted) == rows


def test_labels_are_numbers_over_all_rows(files, tmp_path):
    found = amr.map(files, lambda shard: [{"label": int(label)} for label in shard.index], out=tmp_path / "out")
    assert found.to_table()["label"].to_pylist() == list(range(12))


def test_a_named_index_becomes_a_column(tmp_path):
    frame = pd.DataFrame({"text": ["a", "b"]}, index=pd.Index(["x", "y"], name="id"))
    assert amr.map(iter([frame]), one_way, out=tmp_path / "out").to_table().to_pydict() == {
        "id": ["x", "y"],
        "text": ["a", "b"],
        "n": [1, 1],
    }


def test_filter_keeps_rows_with_those_that_failed(files, tmp_path):
    def is_even(shard):
        if (shard["text"] == "row 7").any():
            raise ValueError("7")
        return [int(text.split()[1]) % 2 == 0 for text in shard["text"]]

    kept = amr.filter(files, is_even, out=tmp_path / "out")
    assert kept.to_table()["text"].to_pylist() == [f"row {n}" for n in (0, 2, 4, 6, 7, 8, 10)]
    assert kept.schema.names == ["text", "shop", "price"]
    assert amr.result_of(kept).failures["label"].tolist() == [7]


ALL_NULL = {
    "first": [[None, None], [1, 2]],
    "last": [[1, 2], [None]],
    "whole numbers before others": [[1, 2], [1.5], [None]],
    "failed": [["fails"], [1]],
}


@pytest.mark.parametrize("values", ALL_NULL.values(), ids=ALL_NULL)
def test_all_parts_have_the_same_types_whatever_the_first_one_shows(tmp_path, values):
    (tmp_path / "in").mkdir()
    for place, part in enumerate(values):
        pq.write_table(
            pa.table({"text": pa.array([str(value) for value in part])}), tmp_path / "in" / f"{place}.parquet"
        )

    def read(shard):
        if (shard["text"] == "fails").any():
            raise ValueError("no")
        return [
            {"value": None if text == "None" else float(text) if "." in text else int(text)} for text in shard["text"]
        ]

    found = amr.map(tmp_path / "in", read, out=tmp_path / "out")
    schemas = [pq.read_schema(path).remove_metadata() for path in sorted((tmp_path / "out").glob("*.parquet"))]
    assert len(schemas) == len(values)
    assert all(schema.equals(found.schema) for schema in schemas)
    flat = [None if value == "fails" else value for part in values for value in part]
    assert found.to_table()["value"].to_pylist() == flat


def test_periods_of_files_are_read_and_computed_as_those_of_a_frame(tmp_path):
    (tmp_path / "in").mkdir()
    months = pd.period_range("2026-01", periods=4, freq="M")
    for place in (0, 2):
        frame = pd.DataFrame({"month": months[place : place + 2]})
        frame.to_parquet(tmp_path / "in" / f"{place}.parquet")
    reduce = {"month": "max", "said": "nunique"}
    with ScriptedServer(lambda r: findings(r, lambda unit: {"said": unit["month"]})) as server:
        result = amr.map_reduce(
            tmp_path / "in", map="Which?", finding={"said": str}, reduce=reduce, out=tmp_path / "out", lm=server.lm()
        )
    assert result.frame.to_table()["said"].to_pylist() == ["2026-01", "2026-02", "2026-03", "2026-04"]
    assert result.output.tolist() == [months[3], 4]


def test_files_with_a_column_of_types_that_no_number_of_it_fits_are_refused_by_name(tmp_path):
    (tmp_path / "in").mkdir()
    pd.DataFrame({"text": ["a"], "id": [2**53 + 1]}).to_parquet(tmp_path / "in" / "0.parquet")
    pd.DataFrame({"text": ["a"], "id": [0.5]}).to_parquet(tmp_path / "in" / "1.parquet")
    with pytest.raises(amr.UsageError, match=r"'0\.parquet' cannot be read"):
        amr.map(tmp_path / "in", len, out=tmp_path / "out")


def test_parts_are_bounded_by_rows_and_by_bytes():
    wide = pa.table({"text": ["x" * 1_000_000] * 200})
    parts = [table.num_rows for table in cut_tables([wide, wide])]
    assert sum(parts) == 400
    assert max(parts) * 1_000_000 <= 1.1 * MOST_BYTES
    many = pa.table({"n": range(250_000)})
    assert [table.num_rows for table in cut_tables([many])] == [100_000, 100_000, 50_000]
    assert [
        table.num_rows for table in cut_tables(many.slice(start, 30_000) for start in range(0, 250_000, 30_000))
    ] == [100_000, 100_000, 50_000]


# What is refused, before anything is read or asked


def refused_calls(folder: Path) -> dict:
    files, out = f"{folder}/in/*.parquet", folder / "out"
    return {
        "path without out": ((files,), {}, r"With out='folder/' it is read part by part"),
        "iterator without out": ((iter([1]),), {}, r"With out='folder/' it is read part by part"),
        "no files": ((f"{folder}/in/*.csv",), {"out": out}, "No file is named"),
        "no folder": ((f"{folder}/nothing/*.parquet",), {"out": out}, "There is no folder"),
        "a bucket": (("s3://bucket/in",), {"out": out}, "pass a pyarrow Dataset"),
        "a number": ((3,), {"out": out}, "With out= the first argument is a path"),
        "frames of numbers": ((iter([3]),), {"out": out}, "Item 1 of the iterator is no frame"),
        "no frames": ((iter([]),), {"out": out}, "gives no frame"),
        "labels": ((iter([pd.DataFrame({"a": [1]}, index=["x"])]),), {"out": out}, "labels without a name"),
        "mixed cells": ((iter([pd.DataFrame({"a": [1, "x"]})]),), {"out": out}, "column 'a' .* holds what a Parquet"),
        "a label that is no text": ((iter([pd.DataFrame({1: [1]})]),), {"out": out}, "whose name is not a text"),
        "out in the input": ((folder / "in",), {"out": folder / "in" / "out"}, "is in the folder that is read"),
        "out that the glob finds": ((files,), {"out": folder / "in" / "out.parquet"}, "is in the folder that is read"),
        "out in a folder of several": (
            ([folder / "in", folder / "in" / "*.parquet"],),
            {"out": folder / "in" / "new"},
            "is in the folder that is read",
        ),
        "out too long": ((files,), {"out": folder / ("x" * 300)}, "is not a path: File name too long"),
        "out of nobody": ((files,), {"out": "~nobody-of-this-name/out"}, "is not a path: "),
        "out with a NUL": ((files,), {"out": "a\0b"}, "takes the path of a folder"),
        "out with half of a character": ((files,), {"out": "\ud800"}, "is not a path: "),
        "a blank out": ((files,), {"out": " "}, "takes the path of a folder"),
        "a blank input": (("",), {"out": out}, r"'' is not a path; for the working folder: '\.'"),
        "out is the input": ((files,), {"out": folder / "in"}, "is in the folder that is read|nothing of it is"),
        "out is a file": ((files,), {"out": folder / "in" / "000.parquet"}, "is a file"),
        "out is no path": ((files,), {"out": 3}, "out= takes the path of a folder, not 3"),
        "out is elsewhere": ((files,), {"out": "s3://bucket"}, "a folder of this machine"),
        "columns": ((files,), {"out": out, "axis": "columns"}, "rows are the units"),
        "direct": ((files,), {"out": out, "plan": {"direct": True}}, "reads everything at once"),
        "a recipe": ((files,), {"out": out, "map": amr.Recipe().map(one_way)}, "A recipe as map="),
        "confirm": ((files,), {"out": out, "budget": amr.Budget(confirm=bool)}, "confirm"),
        "a series": ((files,), {"out": out, "by": pd.Series([1])}, "by= takes columns with out="),
        "no such column": ((files,), {"out": out, "columns": ["txt"]}, "Did you mean 'text'"),
        "a typo": ((files,), {"outt": out}, "out"),
    }


@pytest.mark.parametrize("name", list(refused_calls(Path("x"))))
def test_what_does_not_go_with_parts_is_refused_before_anything_is_asked(files, tmp_path, name):
    del files
    (source,), options, message = refused_calls(tmp_path)[name]
    with pytest.raises(amr.UsageError, match=message):
        amr.map_reduce(source, **{"map": one_way, "reduce": len, "journal": False} | options)
    assert not list((tmp_path / "out").glob("*.parquet"))


@pytest.mark.parametrize("damage", ["cut off", "empty", "in a page", "columns of one name"])
def test_a_file_that_cannot_be_read_is_named_before_anything_is_asked(files, tmp_path, damage):
    path = files[1]
    content = bytearray(path.read_bytes())
    if damage == "columns of one name":
        path = files[0]
        pq.write_table(pa.table([[1], [2]], names=["text", "text"]), path)
    elif damage == "in a page":
        content[4:60] = bytes(56)
        path.write_bytes(content)
    else:
        path.write_bytes(content[: {"cut off": 50, "empty": 0}[damage]])
    with pytest.raises(amr.UsageError, match=rf"{path.name}' cannot be read|duplicate field names\.$"):
        amr.map(files, one_way, out=tmp_path / "out", journal=False)


def test_a_folder_with_other_files_is_refused_and_left_as_it_is(files, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    pq.write_table(pa.table({"a": [1]}), out / "part-00000-0.parquet")
    with pytest.raises(amr.UsageError, match=r"nothing of it is overwritten: 'mine.txt', 'part-00000-0.parquet'"):
        amr.map(files, one_way, out=out)
    assert {one.name for one in out.iterdir()} == {"mine.txt", "part-00000-0.parquet"}


def test_two_runs_do_not_write_to_one_folder(files, tmp_path):
    inside, go_on = threading.Event(), threading.Event()

    def slow(shard):
        inside.set()
        assert go_on.wait(LONGEST_S)
        return one_way(shard)

    run = amr.start(files, map=slow, reduce=len, out=tmp_path / "out")
    assert inside.wait(LONGEST_S)
    with pytest.raises(amr.UsageError, match="Another run writes to"):
        amr.map(files, one_way, out=tmp_path / "out")
    go_on.set()
    assert run.result().output == 12


WITHOUT_PARTS = {
    "reduce": (lambda out: amr.reduce("in", "x", out=out), r"reduce\(\) takes no 'out'"),
    "plan": (lambda out: amr.plan("in", "x", out=out), r"plan\(\) makes no parts"),
    "mapper": (lambda out: amr.mapper("x", out=out), r"mapper\(\) takes no 'out'"),
    "recipe": (lambda out: amr.Recipe().map("x", out=out), "A recipe has no out="),
}


@pytest.mark.parametrize(("call", "message"), WITHOUT_PARTS.values(), ids=WITHOUT_PARTS)
def test_what_makes_no_parts_takes_no_out(tmp_path, call, message):
    with pytest.raises(amr.UsageError, match=message):
        call(tmp_path / "out")


NOT_OF_PARTS = {
    "retry": lambda result: result.retry(),
    "score": lambda result: result.score({"n": "n"}),
    "verify": lambda result: result.verify(share=0.5),
    "review": lambda result: result.review(3),
    "save": lambda result: result.save("x"),
    "records": lambda result: result.records,
}


@pytest.mark.parametrize("ask", NOT_OF_PARTS.values(), ids=NOT_OF_PARTS)
def test_what_needs_a_frame_in_memory_says_what_to_do_instead(files, tmp_path, ask):
    result = amr.map_reduce(files, map=one_way, reduce={"n": "sum"}, out=tmp_path / "out")
    with pytest.raises(amr.UsageError, match=r"A result with out= has no"):
        ask(result)


def test_a_result_shows_itself_and_is_found_by_its_dataset(files, tmp_path):
    result = amr.map_reduce(files, map=one_way, reduce={"n": "sum"}, out=tmp_path / "out")
    assert repr(result) == "<Result 12 of 12 rows in 3 parts, 0 calls>"
    assert "first 5 of 12 rows" in result._repr_html_()
    assert result.trace["id"].tolist() == ["map-part-0", "map-part-1", "map-part-2", "compute"]
    found = amr.map(files, one_way, out=tmp_path / "out")
    assert amr.result_of(found).rows == 12


def test_what_redact_takes_out_leaves_from_no_part_and_stands_in_the_parts(files, tmp_path):
    with ScriptedServer(lambda request: findings(request, lambda unit: {"seen": unit["text"]})) as server:
        with amr.settings(redact=lambda text: text.replace("row", "xxx")):
            options = {"finding": {"seen": str}, "columns": ["text"], "lm": server.lm(), "out": tmp_path / "out"}
            found = amr.map(files, "Which?", **options)
        assert not any("row" in request.user.replace("rows", "") for request in server.requests)
    assert found.to_table(columns=["text", "seen"]).to_pylist()[5] == {"text": "row 5", "seen": "xxx 5"}


def test_agents_name_the_rows_of_all_parts_as_their_sources(files, tmp_path):
    with ScriptedServer(answer) as server:
        options = {"map": "Which?", "finding": {"n": int, "kind": str}, "reduce": "List them.", "output": str}
        result = amr.map_reduce(files, columns=["text"], lm=server.lm(), out=tmp_path / "out", **options)
    assert result.explain()["text"].tolist() == ["row 0"]
    assert result.sources["label"].tolist() == [0]
