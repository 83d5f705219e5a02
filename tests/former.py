"""Calls whose answers a journal of the first format holds, `data/journal_1.sql`.

The dump was written by the code before the second format: ``python tests/former.py tests/data/journal_1.sql``. Since then
these calls are only read by it, so none of them may be changed; a call that is added here has no answer there.
"""

from __future__ import annotations

import datetime as dt
import re
import sqlite3
import sys
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, Field

import pandas_amr as amr
from pandas_amr.testing import Call, ScriptedServer, findings

DUMP = Path(__file__).parent / "data" / "journal_1.sql"
BEGAN = 1767225600.0  # 2026-01-01


class Inner(BaseModel):
    when: dt.date = Field(alias="on")
    much: Decimal
    named: dict[str, Decimal]


class Everything(BaseModel):
    """What a row says, in every type."""

    whole: int = Field(ge=0)
    real: float
    text: str = Field(alias="words", description="as it stands")
    yes: bool
    day: dt.date
    moment: dt.datetime
    clock: dt.time
    long: dt.timedelta
    exact: Decimal
    kind: Literal["a", "b"]
    number: Literal[1, 2]
    many: list[dt.date]
    some: set[str]
    inner: Inner
    items: list[Inner]
    named: dict[str, float]
    free: dict
    whatever: Any
    perhaps: dt.date | None
    default: int | None = None


class Called(BaseModel):
    name: str
    line: int


INNER = {"on": "2026-01-02", "much": "1.50", "named": {"x": "2.5"}}
EVERYTHING = {
    "whole": 1,
    "real": 2,
    "words": "t\u2028\u00fc",
    "yes": True,
    "day": "2026-01-02",
    "moment": "2026-01-02T03:04:05.000006",
    "clock": "03:04:05",
    "long": "P1DT90S",
    "exact": "12345.678900001",
    "kind": "a",
    "number": 2,
    "many": ["2026-01-02", "2026-01-03"],
    "some": ["b", "a"],
    "inner": INNER,
    "items": [INNER, INNER],
    "named": {"x": 1.5, "a": 2},
    "free": {"y": [1, None, "2"], "z": {}},
    "whatever": [1, "two"],
    "perhaps": None,
}

FRAME = pd.DataFrame(
    {
        "said": ["row 0", "row 1", None, "row 3"],
        "size": [1, 2, 3, 4],
        "x": [1.0, 2.5, None, -0.0],
        "date": pd.to_datetime(["2026-01-02 00:00:00", None, "2026-03-04 05:06:07", "2026-03-05 00:00:00"]),
        "group": ["a", "a", "b", "b"],
    }
)
ROWS = FRAME[["said", "group"]]
LONG = pd.DataFrame({"said": ["A sentence about row 1. " * 120]})


def first(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A function that says its version."""
    return [{"letter": str(text)[0], "day": dt.date(2026, 1, 2)} for text in frame["said"]]


first.amr_version = "1"


def found(unit: dict[str, Any]) -> dict[str, Any]:
    return {"n": len(str(unit.get("said"))), "why": str(unit.get("said"))[:5]}


PLANNED = {
    "map_instruction": "How long is the text?",
    "finding": [{"name": "length", "type": "int", "description": "in characters", "choices": []}],
    "shard_size": 2,
    "parallelism": 1,
    "aggregations": [{"field": "length", "function": "sum"}],
    "reduce_instruction": "Say it.",
}


def play(request: Any) -> Any:
    """The provider of all of these calls."""
    if request.schema == "plan":
        return PLANNED
    if request.schema == "reduction" and "read in pieces" in request.system:
        return {"output": {"why": "all of it"}}
    if request.schema == "reduction":
        return {"output": f"{len(request.findings)} findings", "sources": [0]}
    if "python_repl" in request.tools and "row(s) by code" in request.system:
        return Call("python_repl", {"code": "submit(ask(df['said'], 'Which?', {'n': 'int'}))"})
    if "every type" in request.system:
        return findings(request, lambda unit: EVERYTHING)
    if "calls" in request.system:
        return findings(request, lambda unit: {"items": [{"name": "f", "line": 1}] * unit["size"]})
    if "How long" in request.system:
        return findings(request, lambda unit: {"length": len(str(unit["said"]))})
    return findings(request, found)


BOTH = {"n": int, "why": str}
AGENT = amr.Agent("How many?", role="a clerk", goal="to count", background="letters")


def look_up(word: str, times: int = 1) -> str:
    """Look a word up."""
    return word * times


def of_row(row: pd.Series) -> str:
    return f"How many {row['group']}?"


def of_group(rows: pd.DataFrame) -> str:
    return f"Say it of {len(rows)}."


CALLS: dict[str, dict[str, Any]] = {
    "every type": {"frame": FRAME, "map": "every type", "finding": Everything, "reduce": {"whole": "sum"}},
    "none or many": {
        "frame": FRAME[["size"]],
        "map": "The calls.",
        "finding": list[Called],
        "reduce": {"line": "sum"},
    },
    "named maps": {
        "frame": ROWS,
        "map": {"a": "How many?", "b": "How many letters?"},
        "finding": {"a": BOTH, "b": {"n": (int, "described"), "why": ["row 0", "row 1", "row 3", "None"]}},
        "reduce": {"a_n": "sum"},
    },
    "an agent": {"frame": ROWS, "map": AGENT, "finding": BOTH, "reduce": AGENT},
    "a function says what": {
        "frame": ROWS,
        "map": amr.Agent(of_row),
        "finding": BOTH,
        "reduce": amr.Agent(of_group),
        "by": "group",
        "output": str,
    },
    "pieces": {"frame": LONG, "map": "How many?", "finding": BOTH, "reduce": "Say it.", "plan": {"shard_tokens": 300}},
    "a plan": {"frame": FRAME, "task": "How long are they?"},
    "neighbours": {
        "frame": ROWS,
        "map": "How many?",
        "finding": BOTH,
        "reduce": {"n": "sum"},
        "plan": {"segmentation": "neighbours", "context_rows": 1, "shard_size": 2, "merge": {"n": "sum"}},
    },
    "groups": {
        "frame": FRAME,
        "columns": ["said", "x"],
        "map": "How many?",
        "finding": BOTH,
        "reduce": {"n": "sum"},
        "plan": {"segmentation": "groups", "group_columns": ["group"]},
    },
    "tools and sampling": {
        "frame": ROWS,
        "map": "How many?",
        "finding": BOTH,
        "reduce": "Say it.",
        "tools": [amr.Tool(look_up, version="2")],
        "sampling": {"temperature": 0.0, "seed": 1, "extra_body": {"top_p": 1, "a": 0.5}, "max_output_tokens": 500},
    },
    "code": {
        "frame": ROWS.dropna(),
        "map": "row(s) by code",
        "finding": {"n": int},
        "reduce": {"n": "sum"},
        "tools": [amr.PythonREPLTool()],
        "plan": {"view": "preview", "shard_size": 2},
    },
    "a function": {
        "frame": ROWS.dropna(),
        "map": first,
        "finding": {"letter": str, "day": dt.date},
        "reduce": {"letter": "value_counts"},
    },
}


def run(name: str, server: ScriptedServer, journal: Any, **options: Any) -> Any:
    """One of the calls."""
    call = CALLS[name] | options
    frame, sampling = call.pop("frame"), call.pop("sampling", {})
    return frame.amr.map_reduce(
        call.pop("task", None), lm=server.lm(**sampling), journal=journal, max_parallelism=1, **call
    )


def dump(path: Path) -> None:
    """Have every call answered and kept, and write the journal as text."""
    with tempfile.TemporaryDirectory() as folder, ScriptedServer(play) as server:
        file = Path(folder) / "journal.sqlite"
        for name in CALLS:
            result = run(name, server, file)
            assert result.failures.empty, (name, result.failures)
        connection = sqlite3.connect(file)
        connection.execute("UPDATE entries SET made = ?", (BEGAN,))
        connection.execute("UPDATE runs SET began = ?, ended = ?", (BEGAN, BEGAN))
        connection.commit()
        pragmas = [
            f"PRAGMA {name}={connection.execute(f'PRAGMA {name}').fetchone()[0]};"
            for name in ("application_id", "user_version")
        ]
        text = "\n".join([*pragmas, *connection.iterdump()])
        connection.close()
    assert not re.search(r"scripted-key|127\.0\.0\.1|/tmp", text)
    path.write_text(text + "\n")


if __name__ == "__main__":
    dump(Path(sys.argv[1]))
