"""Forgetting: what was found of rows is gone from every byte beside the journal, and nothing else is."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import former
import pandas_amr as amr
from pandas_amr._journal import database, database_file
from pandas_amr._journal.database import Entry
from pandas_amr.testing import Call, ScriptedServer, findings

SECRET = "Jane Doe"


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "folder" / "journal.sqlite"


def people(count: int = 8) -> pd.DataFrame:
    """Rows of which the second one is a person's who is to be forgotten."""
    names = [f"name {n}" for n in range(count)]
    names[1] = SECRET
    return pd.DataFrame({"name": names, "text": [f"{name} says {n}" for n, name in enumerate(names)]})


def hers(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["name"] == SECRET]


def quote(unit) -> dict[str, str]:
    """A finding that holds all that a unit says."""
    return {"said": " ".join(str(value) for key, value in unit.items() if key != "unit")}


def provider(request):
    """Answer with all that is read, so that whatever is kept of an answer holds it."""
    if request.schema == "plan":
        return {
            "map_instruction": f"What is said? {SECRET if SECRET in str(request.body) else ''}",
            "finding": [{"name": "said", "type": "str", "description": "", "choices": []}],
            "shard_size": 3,
            "parallelism": 2,
            "aggregations": [],
            "reduce_instruction": "Say it.",
        }
    if request.schema == "reduction":
        return {"output": json.dumps(request.findings), "sources": [len(request.findings) - 1]}
    return findings(request, quote)


def run(frame, journal, answer=provider, **options):
    """One run against a server of its own; the result, and how many requests it took."""
    options = {"map": "What is said?", "finding": {"said": str}, "reduce": "Say it."} | options
    options = {name: value for name, value in options.items() if value is not ...}
    with ScriptedServer(answer) as server:
        result = frame.amr.map_reduce(lm=server.lm(), journal=journal, **options)
        return result, len(server.requests)


def raw(path: Path) -> bytes:
    """All bytes of all files beside the journal."""
    return b"".join(part.read_bytes() for part in sorted(path.parent.iterdir()))


def stands(path: Path, *words: str) -> list[str]:
    """The words that stand somewhere in the files."""
    content = raw(path).lower()
    return [word for word in words if word.lower().encode() in content]


def tables(path: Path) -> dict[str, list[tuple]]:
    """All rows of all tables."""
    other = sqlite3.connect(path)
    names = [name for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    rows = {name: other.execute(f"SELECT * FROM {name}").fetchall() for name in names}
    other.close()
    return rows


def holds_fingerprint(path: Path, digests: list[bytes]) -> bool:
    return any(digest in raw(path) for digest in digests)


# Everything that is written

WAYS = {
    "rows": {},
    "shards of one": {"plan": {"shard_size": 1}},
    "one column": {"columns": ["text"]},
    "named maps": {"map": {"a": "Who?", "b": "What?"}, "finding": {"a": {"said": str}, "b": {"said": str}}},
    "groups": {"by": "name"},
    "neighbours": {"plan": {"segmentation": "neighbours", "context_rows": 1, "shard_size": 2}},
    "a static tree": {"plan": {"shard_size": 2, "fan_in": 2}},
    "an adaptive tree": {"plan": {"shard_size": 2, "reduce_budget": 150}},
    "a planned run": {"task": "What is said?", "map": ..., "finding": ..., "reduce": ...},
    "pieces": {"plan": {"shard_tokens": 64}, "columns": ["long"]},
    "an instruction of its own": {"map": amr.Agent(lambda row: f"What of {len(row['name'])}?")},
    "a recipe as map": {"map": amr.Recipe().map("What?", finding={"said": str}).reduce("Say it.", output=str)},
    "a recipe as reduce": {"reduce": amr.Recipe().reduce("Say it.", output=str)},
    "a number": {"reduce": "How many?", "output": int},
    "columns as units": {"axis": "columns"},
}


def choosing(request):
    """The same, and a number is counted."""
    if request.schema == "reduction" and "function" in str(request.body):
        return {"output": {"field": None, "function": "count", "condition": None}, "sources": []}
    return provider(request)


@pytest.mark.parametrize("way", WAYS)
def test_after_a_run_of_any_kind_no_byte_of_a_forgotten_row_is_left(path, way):
    frame = people().assign(long=lambda f: f["text"].str.repeat(40)).reset_index(drop=True)
    run(frame, path, choosing, **WAYS[way])
    journal = amr.Journal(path)
    before = len(journal)
    # What is quoted by a number, a count, is no text of a row.
    assert stands(path, SECRET) or way == "a number"
    forgotten = journal.forget(hers(frame))
    assert stands(path, SECRET) == []
    assert forgotten.rows == 1
    assert forgotten.answers == before - len(journal) > 0
    assert journal.verify() == []
    if way not in {"pieces", "columns as units", "a number"}:
        assert stands(path, "name 7 says 7")
