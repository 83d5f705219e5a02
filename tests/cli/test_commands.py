"""The command line: what each command exits with, writes to stdout and stderr, and leaves in its folder."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import pandas_amr as amr
import reader
from moments import never, until
from pandas_amr.testing import ScriptedServer, Status

pytest.importorskip("click")

from pandas_amr._api.cli.main import run_command_line

TEXTS = ["The battery died.", "It is fine.", "The strap broke.", "The lid leaks."]
ROWS = "id,shop,text\n" + "".join(f"00{n},{'ab'[n % 2]},{text}\n" for n, text in enumerate(TEXTS))
FIELDS = "severity:int,kind=battery|strap|lid|other"
MAPPED = ["run", "rows.csv", "--map", "What?", "--finding", FIELDS, "--columns", "text"]
MEAN = ["--reduce", "severity:mean"]
ONE_BY_ONE = ["--plan", '{"shard_size": 1}', "--max-parallelism", "1"]
KEY = "sk-that-nobody-may-read"

Script = Any


def one_fails(request: Any) -> Any:
    """The row with the strap fails."""
    return Status(400, "no") if "strap" in request.user else reader.read(request)


def all_fail(request: Any) -> Any:
    return Status(400, "no")


def wrong_key(request: Any) -> Any:
    return Status(401, "no")


def puts_off(request: Any) -> Any:
    """Serve two requests, and nothing more for hours."""
    return reader.read(request) if request.number < 2 else Status(429, "no", headers={"retry-after": "21600"})


def no_reduce(request: Any) -> Any:
    return Status(400, "no") if request.schema == "reduction" else reader.read(request)


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    status: int
    stdout: str
    stderr: str
    requests: int

    @property
    def answer(self) -> Any:
        """What stdout holds, which is one line of JSON."""
        (line,) = self.stdout.splitlines()
        return json.loads(line)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a command, with rows in it; the environment has the model's name and a key."""
    (tmp_path / "rows.csv").write_text(ROWS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AMR_MODEL", "scripted")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Run a command in this process; all commands of a test have a provider at one address."""
    ports = [0]

    def run_it(arguments: list[str], script: Script = reader.read, stdin: bytes = b"") -> Outcome:
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with ScriptedServer(script, port=ports[-1]) as server:
            address = server.base_url.split("/")[2]
            ports.append(int(address.partition(":")[2]))
            monkeypatch.setenv("OPENAI_BASE_URL", f"http://{address}/v1")
            status = run_command_line(arguments)
            requests = len(server.requests)
        written = capsys.readouterr()
        assert KEY not in written.out + written.err
        return Outcome(status, written.out, written.err, requests)

    return run_it


@dataclass(frozen=True)
class Command:
    """A command, and what is expected of it.

    Attributes:
        answer: some of the JSON on stdout; None if there is nothing.
        log: a pattern in stderr.
        files: what it leaves in the folder, beside the rows.
    """

    arguments: list[str]
    status: int = 0
    answer: dict[str, Any] | None = None
    log: str = ""
    files: set[str] = field(default_factory=set)
    requests: int | None = None
    script: Script = reader.read
    stdin: bytes = b""


SEVERITIES = [5, 1, 4, 2]
COMMANDS = {
    "a map and a mean": Command(
        [*MAPPED, *MEAN], answer={"status": "done", "output": {"severity": 3.0}, "rows": 4, "found": 4}, requests=1
    ),
    "a mean by groups": Command(
        [*MAPPED, *MEAN, "--by", "shop"],
        answer={"output": [{"shop": "a", "severity": 4.5}, {"shop": "b", "severity": 1.5}]},
    ),
    "two functions of a field": Command(
        [*MAPPED, "--reduce", "severity:min,severity:max"],
        answer={"output": [{"index": "min", "severity": 1}, {"index": "max", "severity": 5}]},
    ),
    "counts": Command(
        [*MAPPED, "--reduce", "kind:value_counts"],
        answer={"output": [{"index": kind, "kind": 1} for kind in ("battery", "strap", "lid", "other")]},
    ),
    "a text": Command(
        [*MAPPED, "--reduce", "Sum it up."], answer={"status": "done", "output": "4 findings were read."}, requests=2
    ),
    "a number": Command([*MAPPED, *MEAN, "--output", "float"], answer={"output": 3.0}),
    "rows alone": Command(
        [*MAPPED, "--format", "csv"],
        answer={
            "output": [
                {"id": f"00{n}", "shop": "ab"[n % 2], "text": text, "severity": SEVERITIES[n], "kind": kind}
                for n, (text, kind) in enumerate(zip(TEXTS, ("battery", "other", "strap", "lid"), strict=True))
            ]
        },
    ),
    "rows into a file": Command(
        [*MAPPED, "--out", "found.csv"], answer={"output": None, "out": "found.csv"}, files={"found.csv"}
    ),
    "a task": Command(
        ["run", "rows.csv", "--task", "What is complained about?", "--columns", "text"],
        answer={"output": [{"index": kind, "kind": 1} for kind in ("battery", "strap", "lid", "other")]},
        log="plan, 0%",
        requests=2,
    ),
    "rows from stdin": Command(
        ["run", "-", "--format", "jsonl", "--map", "What?", "--finding", "severity:int", *MEAN],
        stdin=b'{"text": "The lid leaks."}\n\n{"text": "It is fine."}\n',
        answer={"rows": 2, "output": {"severity": 1.5}},
    ),
    "rows that are gzipped": Command(
        ["run", "-", "--format", "csv", "--map", "What?", "--finding", "severity:int", "--out", "found.jsonl.gz"],
        stdin=gzip.compress(ROWS.encode()),
        answer={"rows": 4, "out": "found.jsonl.gz"},
        files={"found.jsonl.gz"},
    ),
    "rows without a row": Command(
        ["run", "-", "--format", "csv", "--map", "What?", "--finding", "severity:int", "--out", "found.csv"],
        stdin=b"text\n",
        answer={"status": "done", "rows": 0, "out": "found.csv"},
        files={"found.csv"},
        requests=0,
    ),
    "a row fails": Command(
        [*MAPPED, *MEAN, *ONE_BY_ONE, "--out", "found.csv"],
        status=3,
        script=one_fails,
        answer={"status": "partial", "found": 3, "failed": 1, "out": "found.csv", "stopped": None},
        log="WARNING map_reduce of 4 rows: done, with failures.*WARNING Partial: 3 of 4 rows have a finding",
        files={"found.csv"},
    ),
    "a row may fail": Command(
        [*MAPPED, *MEAN, *ONE_BY_ONE, "--max-failed", "25%"],
        script=one_fails,
        answer={"status": "done", "found": 3, "failed": 1},
        log="WARNING map_reduce of 4 rows: done, with failures",
    ),
    "fewer may fail": Command(
        [*MAPPED, *MEAN, *ONE_BY_ONE, "--max-failed", "24%"], status=3, script=one_fails, answer={"status": "partial"}
    ),
    "one may fail": Command([*MAPPED, *MEAN, *ONE_BY_ONE, "--max-failed", "1"], script=one_fails, answer={"failed": 1}),
    "all rows fail": Command(
        [*MAPPED, *MEAN, *ONE_BY_ONE, "--out", "found.csv", "--max-failed", "100%"],
        status=1,
        script=all_fail,
        answer={"status": "failed", "found": 0, "failed": 4, "out": None},
        log="ERROR Failed: 0 of 4 rows have a finding. found.csv is as it was",
    ),
    "the reduce fails": Command(
        [*MAPPED, "--reduce", "Sum it up.", "--out", "found.csv"],
        status=3,
        script=no_reduce,
        answer={"status": "partial", "output": None, "found": 4, "failed": 0, "out": "found.csv"},
        log="WARNING map_reduce of 4 rows: done, but the reduce failed",
        files={"found.csv"},
    ),
    "the budget": Command(
        [*MAPPED, *MEAN, *ONE_BY_ONE, "--budget", "calls=2", "--out", "found.parquet", "--journal", "journal.db"],
        status=3,
        answer={"status": "partial", "found": 2, "skipped": 2, "stopped": "The budget of 2 calls is used up."},
        log=r"stopped \(The budget of 2 calls is used up\).*2 kept in the journal, the same command goes on",
        files={"found.parquet", "journal.db"},
    ),
    "money": Command(
        [*MAPPED, *MEAN, *ONE_BY_ONE, "--budget", "5", "--prices", "1e9,1e9"],
        status=1,
        answer={"status": "failed", "found": 0},
        log="The budget of 5 money is used up",
        requests=0,
    ),
    "a wrong key": Command(
        [*MAPPED, *MEAN, "--out", "found.csv"], status=1, script=wrong_key, log="ERROR ModelConfigError: ", requests=1
    ),
    "a service that puts off": Command(
        [*MAPPED, *MEAN, *ONE_BY_ONE], status=3, script=puts_off, answer={"found": 2}, log="stopped .The server answered 429"
    ),
    "lines of JSON as the log": Command(
        [*MAPPED, *MEAN, *ONE_BY_ONE, "--log-format", "json"], status=3, script=one_fails, answer={"failed": 1}
    ),
    "a plan": Command(
        ["plan", "rows.csv", "--task", "What is complained about?", "--columns", "text", "--out", "plan.json"],
        answer={"amr_plan": 2, "aggregations": {"kind": "value_counts"}},
        log="Estimate: 4 units",
        files={"plan.json"},
        requests=1,
    ),
    "an estimate": Command(
        ["estimate", *MAPPED[1:], *MEAN, "--prices", "1,2"],
        answer={"units": 4, "calls": 1, "sampled": 0},
        requests=0,
    ),
    "an estimate by a sample": Command(
        ["estimate", *MAPPED[1:], *MEAN, *ONE_BY_ONE, "--sample", "2"], answer={"units": 4, "sampled": 2}, requests=2
    ),
    "no such option": Command([*MAPPED, "--colum", "text"], 2, log="There is no option --colum. Did you mean --columns?"),
    "another library's word": Command([*MAPPED, "--model", "x"], 2, log="Did you mean --lm?"),
    "a key": Command([*MAPPED, f"--api-key={KEY}"], 2, log="set OPENAI_API_KEY in the environment"),
    "a key in the address": Command([*MAPPED, "--base-url", f"http://me:{KEY}@127.0.0.1:9/v1"], 2, log="set OPENAI_API_KEY"),
    "a key in the query": Command([*MAPPED, "--base-url", f"http://127.0.0.1:9/v1?api-key={KEY}"], 2, log="set OPENAI_API_KEY"),
    "a key by another name": Command([*MAPPED, "--openai-token", KEY], 2, log="set OPENAI_API_KEY in the environment"),
    "no such command": Command(["rn", "rows.csv"], 2, log="There is no command 'rn': .* Did you mean 'run'?"),
    "no command": Command([], 2, log="Missing command"),
    "no file": Command(["run"], 2, log="Missing argument 'FILE'"),
    "no such file": Command(["run", "row.csv", "--task", "What?"], 2, log="'row.csv' cannot be read"),
    "no question": Command(["run", "rows.csv"], 2, log="Say what you want: --task"),
    "a model of spaces": Command([*MAPPED, "--lm", " "], 2, log="No model is named: --lm NAME"),
    "no plan": Command([*MAPPED, "--plan", ""], 2, log="--plan is empty"),
    "a field without a function": Command([*MAPPED, "--reduce", "severity:"], 2, log="'severity:' lacks a field or its function"),
    "a function without a field": Command([*MAPPED, "--reduce", ":mean"], 2, log="':mean' lacks a field or its function"),
    "a group twice": Command([*MAPPED, *MEAN, "--by", "shop,shop"], 2, log="by= names 'shop' twice"),
    "a name too long": Command([*MAPPED, "--out", "x" * 245 + ".csv"], 2, log="cannot be written: File name too long"),
    "no model": Command([*MAPPED, "--lm", ""], 2, log="No model is named: --lm NAME"),
    "no format": Command(["run", "-", "--task", "What?"], 2, log="--format csv.parquet.jsonl"),
    "a format of another name": Command([*MAPPED, "--format", "jsonl"], 2, log="contradicts the names"),
    "a mistyped format": Command([*MAPPED, "--format", "cvs"], 2, log="Did you mean 'csv'?"),
    "a mistyped type": Command(["run", "rows.csv", "--map", "x", "--finding", "a:integer"], 2, log="Did you mean 'int'?"),
    "a mistyped column": Command(["run", "rows.csv", "--task", "x", "--columns", "txt"], 2, log="Did you mean 'text'?"),
    "a mistyped group": Command([*MAPPED, *MEAN, "--by", "shp"], 2, log="Did you mean 'shop'?"),
    "a mistyped function": Command([*MAPPED, "--reduce", "severity:avg"], 2, log="Did you mean 'mean'?"),
    "a mistyped plan": Command([*MAPPED, "--plan", '{"shardsize": 1}'], 2, log="Did you mean 'shard_size'?"),
    "a mistyped limit": Command([*MAPPED, "--budget", "cals=5"], 2, log="Did you mean 'calls'?"),
    "groups of nothing": Command([*MAPPED, "--by", "shop"], 2, log="add --reduce"),
    "a finding that hides a column": Command(["run", "rows.csv", "--map", "x", "--finding", "text:str"], 2, log="hide a column"),
    "unknown prices": Command([*MAPPED, "--budget", "5", "--lm", "nobody-knows"], 2, log="--prices INPUT,OUTPUT"),
    "no number": Command([*MAPPED, "--budget", "nan"], 2, log="not 'nan'"),
    "a share of one": Command([*MAPPED, "--max-failed", "0.1"], 2, log="--max-failed takes a share .1%."),
    "the input as output": Command([*MAPPED, "--out", "./rows.csv"], 2, log="is the input"),
    "no folder": Command([*MAPPED, "--out", "none/found.csv"], 2, log="there is no folder"),
    "a device": Command([*MAPPED, "--out", "/dev/null", "--format", "csv"], 2, log="contradicts|is no file"),
    "no such journal": Command(["journal", "ls", "--journal", "none.db"], 2, log="There is no journal 'none.db'"),
    "no journal": Command(["journal", "ls", "--journal", "rows.csv"], 2, log="'rows.csv' is no journal"),
    "rows as the journal": Command([*MAPPED, "--journal", "rows.csv"], 2, log="'rows.csv' is no journal"),
    "a JSON error": Command([*MAPPED, "--colum", "x", "--log-format=json"], 2),
    "help": Command(["run", "--help"], 0),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.sampled(7)
def test_a_command_exits_answers_logs_and_writes_as_its_line_of_the_table_says(name, run, folder):
    command = COMMANDS[name]
    outcome = run(command.arguments, command.script, command.stdin)
    assert outcome.status == command.status, outcome.stderr
    if command.answer is not None:
        assert {key: outcome.answer[key] for key in command.answer} == command.answer
    elif name != "help":
        assert outcome.stdout == ""
    assert re.search(command.log, outcome.stderr, re.DOTALL), outcome.stderr
    left = {path.name for path in folder.iterdir()} - {"rows.csv", "journal.db-wal", "journal.db-shm"}
    assert left == command.files
    if command.status == 2:
        assert len(outcome.stderr.splitlines()) == 1
        assert outcome.requests == 0
    elif command.requests is not None:
        assert outcome.requests == command.requests
    if any("json" in argument for argument in command.arguments if argument.startswith("--log") or argument == "json"):
        lines = [json.loads(line) for line in outcome.stderr.splitlines()]
        assert {"time", "level", "logger", "message"} == set().union(*lines)
        assert "ERROR" in {line["level"] for line in lines} or "WARNING" in {line["level"] for line in lines}


def test_the_package_imports_no_click_and_without_it_one_line_says_what_to_install():
    script = (
        "import sys, pandas_amr; assert 'click' not in sys.modules; sys.modules['click'] = None; "
        "from pandas_amr.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == 'The command line needs click: pip install "pandas-amr[cli]"\n'


# Again, and into place


def test_the_same_command_again_costs_nothing_and_writes_the_same_bytes(run, folder):
    for out in ("found.csv", "found.parquet", "found.jsonl.gz"):
        command = [*MAPPED, *MEAN, "--out", out, "--journal", "journal.db"]
        first = run(command)
        bytes_before = (folder / out).read_bytes()
        again = run(command)
        assert again.requests == 0
        assert again.answer["from_journal"] == 4
        assert again.answer["output"] == first.answer["output"]
        assert (folder / out).read_bytes() == bytes_before


def test_a_partial_run_goes_on_and_ends_as_a_whole_one(run, folder):
    command = [*MAPPED, *MEAN, *ONE_BY_ONE, "--out", "found.csv", "--journal", "journal.db"]
    first = run([*command, "--budget", "calls=3"])
    assert (first.status, first.answer["found"]) == (3, 3)
    second = run(command)
    assert (second.status, second.requests, second.answer["from_journal"]) == (0, 1, 3)
    assert pd.read_csv("found.csv", dtype=str)["severity"].tolist() == ["5", "1", "4", "2"]


def test_a_plan_that_was_written_is_run_as_it_stands(run, folder):
    planned = run(
        ["plan", "rows.csv", "--task", "What is complained about?", "--columns", "text", "--out", "plan.json"]
    )
    assert json.loads((folder / "plan.json").read_text()) == planned.answer
    outcome = run(["run", "rows.csv", "--plan", "plan.json"])
    assert (outcome.status, outcome.requests) == (0, 1)


OLD = "what was there before\n"


def test_what_stood_at_out_stays_until_a_whole_file_takes_its_place(run, folder):
    out = folder / "found.csv"
    out.write_text(OLD)
    out.chmod(0o640)
    run([*MAPPED, "--out", "found.csv"], all_fail)
    assert out.read_text() == OLD
    folder.joinpath("link.csv").symlink_to(out)
    assert run([*MAPPED, "--out", "link.csv"]).status == 0
    assert out.read_text().startswith("id,shop,text,severity,kind\n000,a,The battery died.,5,battery\n")
    assert out.stat().st_mode & 0o777 == 0o640
    assert (folder / "link.csv").is_symlink()


def test_a_folder_that_takes_no_file_is_told_before_anything_is_paid_for(run, folder, monkeypatch):
    closed = folder / "closed"
    closed.mkdir(mode=0o500)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    outcome = run([*MAPPED, "--out", "closed/found.csv"])
    assert (outcome.status, outcome.requests) == (2, 0)
    assert "is not writable" in outcome.stderr


@pytest.mark.parametrize("journal", ["journal.db", "off"])
def test_rows_that_cannot_be_written_in_the_end_are_kept_or_answered_and_the_command_fails(journal, run, folder):
    (folder / "deep").mkdir()

    def remove_folder(request: Any) -> Any:
        if (folder / "deep").exists():
            (folder / "deep").rmdir()
        return reader.read(request)

    command = [*MAPPED, *MEAN, "--out", "deep/found.csv", "--journal", journal]
    outcome = run(command, remove_folder)
    assert outcome.status == 1
    assert (outcome.answer["status"], outcome.answer["out"], outcome.answer["output"]) == (
        "failed",
        None,
        {"severity": 3.0},
    )
    assert "deep/found.csv could not be written: No such file or directory" in outcome.stderr
    (folder / "deep").mkdir()
    assert run(command).requests == (0 if journal == "journal.db" else 1)


def test_a_run_that_raises_in_the_middle_without_a_journal_writes_what_it_found(run, folder):
    def key_is_revoked(request: Any) -> Any:
        return Status(402, "no") if request.number > 1 else reader.read(request)

    outcome = run([*MAPPED, *MEAN, *ONE_BY_ONE, "--out", "found.csv"], key_is_revoked)
    assert outcome.status == 1
    assert pd.read_csv("found.csv")["severity"].tolist()[:2] == [5, 1]
    assert "2 of 4 rows were found; there is no journal" in outcome.stderr


# Files

JSONL = [
    {"text": "The lid leaks.", "n": 12345678901234567890, "list": [1, {"a": "b"}], "flag": True},
    {"text": 'a\rb\nc\u2028d, "e"', "n": None, "list": [], "flag": None},
    {"text": "None", "n": 9007199254740993, "more": 1.5},
]  # fmt: skip


def test_what_jsonl_holds_goes_through_unchanged(run, folder):
    (folder / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in JSONL))
    outcome = run(
        ["run", "in.jsonl", "--map", "What?", "--finding", "severity:int", "--columns", "text", "--out", "out.jsonl"]
    )
    assert outcome.status == 0, outcome.stderr
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().split("\n")[:-1]]
    names = ("text", "n", "list", "flag", "more")
    assert [{name: line[name] for name in names} for line in lines] == [
        {name: record.get(name) for name in names} for record in JSONL
    ]
    assert [line["severity"] for line in lines] == [2, 1, 1]


def test_what_csv_holds_goes_through_unchanged_and_no_text_becomes_a_line(run, folder):
    frame = pd.DataFrame(
        {
            "zip": ["007", "123", "9"], "phone": ["+49151", "5", ""], "none": ["NA", "None", "nan"],
            "commit": ["1e5", "2", "3"], "count": ["1", "2", ""], "price": ["9.99", "-1.5", "0.25"],
            "text": ["The lid leaks.\rid,x", 'The strap, he said: "broke"\nindeed', "It is fine."],
        }
    )  # fmt: skip
    frame.to_csv("in.csv", index=False, quoting=1)
    outcome = run(
        ["run", "in.csv", "--map", "What?", "--finding", "severity:int", "--columns", "text", "--out", "out.csv"]
    )
    assert outcome.status == 0, outcome.stderr
    back = pd.read_csv("out.csv", dtype=str, keep_default_na=False)
    assert back.drop(columns="severity").to_dict("list") == frame.to_dict("list")
    assert back["severity"].tolist() == ["2", "4", "1"]
    assert run(
        [
            "run",
            "in.csv",
            "--map",
            "What?",
            "--finding",
            "a:int",
            "--columns",
            "text",
            "--reduce",
            "price:sum,count:sum",
        ]
    ).answer["output"] == {"price": 8.74, "count": 3.0}


def test_a_parquet_file_keeps_its_types_and_its_index(run, folder):
    frame = pd.DataFrame(
        {"text": TEXTS, "at": pd.to_datetime(["2026-01-01"] * 4, utc=True)}, index=pd.Index([3, 1, 2, 9], name="key")
    )
    frame.to_parquet("in.parquet")
    finding = ["--finding", "tags:list[str],day:date?"]
    script = {"tags": ["x", "y"], "day": None}

    def answer(request: Any) -> Any:
        return {"findings": [{"unit": unit["unit"], **script} for unit in request.units]}

    assert run(["run", "in.parquet", "--map", "What?", *finding, "--out", "out.parquet"], answer).status == 0
    back = pd.read_parquet("out.parquet")
    assert back.index.equals(frame.index)
    assert back["at"].dtype == frame["at"].dtype
    assert [list(tags) for tags in back["tags"]] == [["x", "y"]] * 4
    assert run(["run", "in.parquet", "--map", "What?", *finding, "--out", "out.csv"], answer).status == 0
    assert (folder / "out.csv").read_text().splitlines()[
        1
    ] == '3,The battery died.,2026-01-01 00:00:00+00:00,"[""x"", ""y""]",'


BROKEN = {
    "a doubled name": ("x.csv", b"text,text\na,b\n", "the column 'text' is named twice"),
    "too many cells": ("x.csv", b"text\nsecret,b\n", "more cells than the header"),
    "an open quote": ("x.csv", b'text\n"secret\n', "a quote is not closed"),
    "nothing": ("x.csv", b"", "it is empty"),
    "semicolons": ("x.csv", b"id;text\n1;secret, and more\n", "separated by ';', not by commas"),
    "tabs": ("x.csv", b"\xef\xbb\xbfid\ttext\n1\tsecret\n", r"separated by '\\t', not by commas"),
    "another encoding": ("x.csv", "text\nsecret \xe9\n".encode("latin-1"), "not text in UTF-8"),
    "no JSON": ("x.jsonl", b'{"text": "a"}\nsecret\n', "line 2 is not JSON"),
    "no object": ("x.jsonl", b'["secret"]\n', "line 1 is not an object"),
    "no lines": ("x.jsonl", b"", "has no columns"),
    "half a character": ("x.jsonl", b'{"text": "\\ud800"}\n', "UTF-8|lone surrogate"),
    "no table": ("x.parquet", b"secret", "not parquet"),
    "half of gzip": ("x.csv.gz", gzip.compress(b"text\nsecret\n")[:-9], "gzip data is damaged"),
    "compressed twice": ("x.parquet.gz", b"", "compressed by itself"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_not_what_it_should_be_is_refused_in_one_line_without_its_text(name, run, folder):
    file, data, problem = BROKEN[name]
    (folder / file).write_bytes(data)
    outcome = run(["run", file, "--map", "What?", "--finding", "severity:int", "--out", "found.csv"])
    assert (outcome.status, outcome.requests) == (2, 0)
    assert re.search(problem, outcome.stderr), outcome.stderr
    assert "secret" not in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert not (folder / "found.csv").exists()


def test_the_name_of_a_single_column_may_hold_a_semicolon_in_quotes(run, folder):
    (folder / "x.csv").write_text('"what; why"\na\n')
    outcome = run(["estimate", "x.csv", "--map", "What?", "--finding", "severity:int"])
    assert (outcome.status, outcome.answer["sends"]["columns"]) == (0, ["what; why"])


# Findings

MODULE = """
from pydantic import BaseModel
class Complaint(BaseModel):
    severity: int
"""
SCHEMA = {"type": "object", "properties": {"severity": {"type": "integer"}}, "required": ["severity"]}
FINDINGS = {
    "a field": ["severity:int"],
    "a field that may be missing": ["severity:int?"],
    "two options": ["severity:int", "kind=battery|strap|lid|other"],
    "blanks": [" severity : int , kind = battery | strap | lid | other "],
    "a schema": ["schema.json"],
    "JSON": [json.dumps(SCHEMA)],
    "a class": ["kinds:Complaint"],
}


@pytest.mark.parametrize("name", FINDINGS)
def test_a_finding_is_fields_a_schema_or_a_class(name, run, folder, monkeypatch):
    (folder / "kinds.py").write_text(MODULE)
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    monkeypatch.delitem(sys.modules, "kinds", raising=False)
    options = [part for value in FINDINGS[name] for part in ("--finding", value)]
    outcome = run(["run", "rows.csv", "--map", "What?", *options, *MEAN, "--columns", "text"])
    assert outcome.status == 0, outcome.stderr
    assert outcome.answer["output"] == {"severity": 3.0}


WRONG_FINDINGS = {
    "severity": "For a text of this name: severity:str",
    "severity=5": "has one choice",
    "kind=a||b": "choices are texts",
    "kind:a|b": "For choices: kind=a|b",
    "severity:int,severity:str": "names the field 'severity' twice",
    "none.json": "there is no such JSON file",
    "{": "is not JSON",
    '{"severity": "int"}': "has no 'properties'",
    "nowhere:Complaint": "the module 'nowhere' cannot be imported (ModuleNotFoundError)",
    "severity:Integer": "For a field: severity:int",
    "kinds:Complain": "Did you mean 'Complaint'?",
    "broken:Complaint": "the module 'broken' cannot be imported (ValueError)",
    "kinds:BaseModel": "BaseModel",
    "severity:": "--finding takes",
}


@pytest.mark.parametrize("value", WRONG_FINDINGS)
def test_what_is_no_finding_is_refused_with_what_would_be_right(value, run, folder, monkeypatch):
    (folder / "kinds.py").write_text(MODULE)
    (folder / "broken.py").write_text("raise ValueError('a secret')")
    monkeypatch.delitem(sys.modules, "kinds", raising=False)
    outcome = run(["run", "rows.csv", "--map", "What?", "--finding", value])
    assert (outcome.status, outcome.requests) == (2, 0)
    assert WRONG_FINDINGS[value] in outcome.stderr
    assert "a secret" not in outcome.stderr


# The journal


def test_the_journal_is_listed_written_out_and_pruned(run, folder):
    run([*MAPPED, *MEAN, "--journal", "journal.db"])
    listed = run(["journal", "ls", "--journal", "journal.db"]).answer
    assert listed["answers"] == 4
    assert [(line["verb"], line["units"], line["status"]) for line in listed["runs"]] == [("map_reduce", 4, "done")]
    assert len(run(["journal", "export", "--journal", "journal.db"]).answer["entries"]) == 4
    assert run(["journal", "export", "--journal", "journal.db", "--out", "answers.jsonl"]).answer["answers"] == 4
    assert len((folder / "answers.jsonl").read_text().splitlines()) == 4
    assert "prune takes --older-than AGE" in run(["journal", "prune", "--journal", "journal.db"]).stderr
    assert "not 'soon'" in run(["journal", "prune", "--journal", "journal.db", "--older-than", "soon"]).stderr
    assert run(["journal", "prune", "--journal", "journal.db", "--older-than", "1h"]).answer["deleted"] == 0
    assert run(["journal", "prune", "--journal", "journal.db", "--older-than", "0s"]).answer["answers"] == 0


def test_the_journal_forgets_the_rows_of_a_file_or_what_options_name(run, folder):
    run([*MAPPED, *MEAN, "--journal", "journal.db"])
    forget = ["journal", "forget", "--journal", "journal.db"]
    assert "forget takes a file of rows, or options such as --text TEXT" in run(forget).stderr
    assert run([*forget, "rows.csv", "--text", "x"]).status == 2
    assert run([*forget, "--before", "soon"]).status == 2
    head = (folder / "rows.csv").read_text().splitlines()[:2]
    (folder / "one.csv").write_text("\n".join(head) + "\n")
    assert run([*forget, "one.csv"]).answer["findings"] == 1
    assert run([*forget, "--text", "no such text"]).answer["findings"] == 0
    assert run([*forget, "--after", "2026-01-01"]).answer["findings"] == 3
    assert run(["journal", "ls", "--journal", "journal.db"]).answer["answers"] == 0


def test_a_journal_is_off_where_the_command_or_the_environment_says_so(run, folder):
    assert run([*MAPPED, "--journal", "off"]).answer["journal"] is None
    assert run([*MAPPED]).answer["journal"] is None  # AMR_JOURNAL=off
    assert "it is off" in run(["journal", "ls"]).stderr


# The log


def test_text_of_rows_and_keys_reach_no_log_and_names_do_not_steer_a_terminal(run, folder):
    (folder / "a\x1b[31m.csv").write_text(ROWS)
    outcome = run(["run", "a\x1b[31m.csv", *MAPPED[2:], *ONE_BY_ONE], one_fails)
    assert outcome.status == 3
    assert "\x1b" not in outcome.stderr
    for text in TEXTS:
        assert text not in outcome.stderr


def test_the_log_is_as_it_was_after_a_command(run):
    logger = logging.getLogger("pandas_amr")
    before = (logger.level, logger.propagate, list(logger.handlers))
    run(["run", "rows.csv"])
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


# Signals, in a process of its own


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "status", "journal"),
    [(signal.SIGTERM, 143, "journal.db"), (signal.SIGINT, 130, "off")],
)
def test_a_signal_keeps_or_writes_what_was_found_and_says_how_to_go_on(number, status, journal, folder):
    async def hold(request: Any) -> Any:
        if request.number == 2:
            await never(request)
        return reader.read(request)

    command = [*MAPPED, *MEAN, *ONE_BY_ONE, "--out", "found.csv", "--journal", journal, "--log-format", "json"]
    (folder / "found.csv").write_text(OLD)
    with ScriptedServer(hold) as server:
        address = server.base_url.split("/")[2]
        process = begin(command, address)
        until(lambda: (len(server.requests) > 2 and kept(folder / journal) >= 2) or process.poll() is not None)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == status, stderr
    messages = [json.loads(line)["message"] for line in stderr.splitlines()]
    answer = json.loads(stdout)
    assert (answer["status"], answer["found"], answer["output"]) == ("stopped", 2, None)
    assert messages[-1].startswith(f"Stopped by {number.name}. 2 of 4 rows ")
    assert sorted(path.name for path in folder.glob("*.csv")) == ["found.csv", "rows.csv"]
    if journal == "off":
        assert answer["out"] == "found.csv"
        assert pd.read_csv("found.csv")["severity"].tolist()[:2] == [5, 1]
        return
    assert "kept in the journal" in messages[-1]
    assert (folder / "found.csv").read_text() == OLD
    with ScriptedServer(reader.read, port=int(address.split(":")[1])) as server:  # its address is part of the question
        process = begin(command, address)
        stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 0, stderr
    assert len(server.requests) == 2
    assert pd.read_csv("found.csv")["severity"].tolist() == SEVERITIES


def test_what_turns_text_around_is_escaped_in_the_answer_and_means_the_same(run):
    hostile = "back \u202e, apart \u2066, tag \U000e0041, delete \x7f, next \u2028, and ä 猫 🐈"

    def answer(request: Any) -> Any:
        if request.schema == "reduction":
            return {"output": hostile, "sources": [0]}
        return reader.read(request)

    outcome = run([*MAPPED, "--reduce", "Sum up."], answer)
    assert outcome.answer["output"] == hostile
    assert outcome.stdout.rstrip("\n").isprintable()
    assert "and ä 猫 🐈" in outcome.stdout


def kept(journal: Path) -> int:
    """How many answers a journal holds by now; enough if there is none."""
    if journal.name == "off":
        return 2
    return len(amr.Journal(journal)) if journal.exists() else 0


def begin(command: list[str], address: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OPENAI_BASE_URL": f"http://{address}/v1"}
    return subprocess.Popen(
        [sys.executable, "-m", "pandas_amr", *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
