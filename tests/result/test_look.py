"""What agents did can be read afterwards: for any row and node, as much as ``trace=`` says, and harmless."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import html
import json
import pickle
import re
import stat
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest

import pandas_amr as amr
from pandas_amr._agent.transcriber import begin_transcript
from pandas_amr._api.cli.commands import COMMANDS
from pandas_amr._records.code_masks import describe_cell_error, mask_code
from pandas_amr._records.recorder import Recorder, Space
from pandas_amr._records.trace import Trace
from pandas_amr._records.transcript import Purpose
from pandas_amr._result.run_transcripts import RunTranscripts
from pandas_amr.models.base import Message
from pandas_amr.testing import Call, ScriptedServer, Status, findings

SECRET = "Jane Doe"
FINDING = {"said": str}


def people(count: int = 4) -> pd.DataFrame:
    """Rows with labels, of which each text is unlike any word of the library."""
    names = [f"{SECRET} {n}" for n in range(count)]
    return pd.DataFrame({"text": names}, index=[f"row {n}" for n in range(count)])


def quote(request):
    """Answer whatever is asked with all that was read."""
    if request.schema == "plan":
        return {
            "map_instruction": "What is said?",
            "finding": [{"name": "said", "type": "str", "description": "", "choices": []}],
            "shard_size": 2,
            "parallelism": 2,
            "aggregations": [],
            "reduce_instruction": "Say it.",
        }
    if request.schema == "reduction":
        return {"output": f"so says {SECRET}", "sources": [0]}
    return findings(request, lambda unit: {"said": str(unit.get("text"))})


def run(frame, answer=quote, *, counter=None, **options):
    """One run against a server of its own."""
    options = {"map": "What is said?", "finding": FINDING, "reduce": len, "journal": False} | options
    options = {name: value for name, value in options.items() if value is not ...}
    with ScriptedServer(answer) as server:
        return frame.amr.map_reduce(lm=server.lm(token_counter=counter), **options)


def plain(transcript) -> str:
    """The HTML as text."""
    return html.unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", transcript._repr_html_(), flags=re.DOTALL))


# What is shown of a row, whatever became of it


def test_words_of_a_step_stand_apart_on_a_page_that_takes_the_stylesheet_away():
    transcript = run(people(1), trace="full").look("row 0")
    shown = re.sub(r"<style>.*?</style>|<[^>]*>", "", transcript._repr_html_(), flags=re.DOTALL)
    assert re.search(r"instructions \d+ characters", shown)


class Turns:
    """Answers by what a unit says: how often it was asked about decides."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}

    def __call__(self, request):
        if request.schema == "reduction":
            return {"output": "so", "sources": []}
        return findings(request, self.find)

    def find(self, unit):
        text = unit["text"]
        self.asked[text] = self.asked.get(text, 0) + 1
        if text == "never" or (text == "later" and self.asked[text] == 1):
            return {"level": 9}
        return {"level": 1}


LEVEL = {"level": Literal[1, 2]}
ROWS = pd.DataFrame(
    {"text": ["at once", "later", "never", "at once", "", "later still"]},
    index=["first", "repaired", "failed", "equal", "empty", "last"],
)
SHOWN = {
    "first": [
        "status: ok",
        "level: 1",
        "cost: 1 call, ",
        "for 3 rows together",
        "Asked about 3 rows: 'first', 'repaired'",
    ],
    "repaired": ["status: repaired", "Repair of 2 rows: 'repaired', 'failed'", "level does not fit its type"],
    "failed": [
        "status: failed: schema: level: Input should be 1 or 2",
        "level: <NA>",
        "Repair of 2 rows",
        "Asked about row 'failed'",
        "Repair of row 'failed'",
    ],
    "equal": ["It is equal to row 'first', which was asked for both.", "Asked about 3 rows: 'first'"],
    "empty": ["status: empty", "It has no content: no model was asked about it."],
    "last": ["status: ok", "map-2", "Asked about row 'last'"],
}


@pytest.fixture(scope="module")
def levels():
    return run(ROWS, Turns(), map="How bad?", finding=LEVEL, plan={"shard_size": 3})


@pytest.mark.parametrize("label", SHOWN)
def test_a_row_shows_what_was_asked_about_it_in_order_and_what_came_of_it(levels, label):
    text = str(levels.look(label))
    assert [part for part in SHOWN[label] if part not in text] == []
    shown = plain(levels.look(label))
    assert label in shown
    assert all(part.split(": ")[-1] in shown for part in SHOWN[label])
    if label not in {"equal", "empty"}:
        others = set(ROWS.index) - {label}
        assert not any(f"row {other!r}" in text for other in others - {"repaired", "failed"})


def test_asking_repairing_and_halving_stand_in_the_order_in_which_they_happened(levels):
    lines = [line.strip() for line in str(levels.look("failed")).split("\n") if line.startswith("  ")]
    headings = [line for line in lines if line.startswith(("Asked", "Repair"))]
    assert headings == [
        "Asked about 3 rows: 'first', 'repaired', 'failed'",
        "Repair of 2 rows: 'repaired', 'failed'",
        "Asked about row 'failed'",
        "Repair of row 'failed'",
    ]


# What there is to look at: runs of all kinds

LONG = pd.DataFrame({"text": [f"{SECRET} " * 120, "short"]}, index=["row 0", "row 1"])
RECIPE = amr.Recipe().map("What?", finding=FINDING).reduce("Say it.", output=str)
WAYS = {
    "rows": ({}, "row 1", "map-1", ["Asked about"]),
    "one row per shard": ({"plan": {"shard_size": 1}}, "row 1", "map-2", ["Asked about row 'row 1'"]),
    "named maps": (
        {"map": {"a": "Who?", "b": "What?"}, "finding": {"a": FINDING, "b": FINDING}},
        "row 1",
        "map-b-1",
        ["map-a-1", "map-b-1", "a_said", "b_said"],
    ),
    "a function beside an agent": (
        {
            "map": {"a": "Who?", "b": lambda shard: [{"n": 1}] * len(shard)},
            "finding": {"a": FINDING, "b": {"n": int}},
        },
        "row 1",
        "map-a-1",
        ["map-a-1", "Asked about"],
    ),
    "pieces": (
        {"plan": {"shard_tokens": 64}},
        "row 0",
        "map-1",
        ["Asked about piece 1 of ", "Asked to write one text of what "],
    ),
    "a written answer": ({"reduce": "Say it."}, "row 1", "final-reduce", ["Asked about"]),
    "a tree": (
        {"reduce": "Say it.", "plan": {"shard_size": 1, "fan_in": 2}},
        "row 1",
        "reduce-1-0",
        ["Asked about row 'row 1'"],
    ),
    "a plan": (
        {"task": "What is said?", "map": ..., "finding": ..., "reduce": ...},
        "row 1",
        "plan",
        ["Asked about"],
    ),
    "a recipe as map": ({"map": RECIPE, "finding": FINDING}, "row 1", "map-1", ["row-1/", "Asked to combine findings"]),
    "an instruction of its own": ({"map": amr.Agent(lambda row: "What?")}, "row 1", "map-1", ["Asked about"]),
    "a direct answer": (
        {"reduce": "Say it.", "plan": {"direct": True}},
        None,
        "direct",
        [],
    ),
    "columns": ({"axis": "columns"}, "text", "map-1", ["Asked about row 'text'"]),
}


@pytest.mark.parametrize("trace", ["nodes", "full"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.sampled(5)
def test_runs_of_any_kind_can_be_looked_at_by_row_and_by_node(way, trace):
    options, label, node, shown = WAYS[way]
    frame = LONG if way == "pieces" else people()
    result = run(frame, trace=trace, **options)
    if label is not None:
        text = str(result.look(label))
        assert [part for part in shown if part not in text] == []
        assert (SECRET in text.partition("\n\n")[2]) == (trace == "full")
    of_node = result.look(node=node)
    assert str(of_node).startswith(f"Node {node}\n")
    assert of_node.sections
    assert all(section.conversations for section in of_node.sections)
    assert ("| " in str(of_node)) == (trace == "full")
    assert f"Node {node}" in plain(of_node)


def test_of_a_function_it_is_said_that_no_model_was_asked():
    result = people().amr.map_reduce(map=lambda shard: [{"n": 1}] * len(shard), reduce={"n": "sum"}, journal=False)
    assert "A function of yours made its finding: no model was asked." in str(result.look("row 1"))
    assert "A function of yours made it: no model was asked." in str(result.look(node="map-1"))
    assert "pandas computed it: no model was asked." in str(result.look(node=result.trace["id"].iloc[-1]))


def test_stages_of_a_recipe_are_shown_one_after_the_other_and_each_by_itself():
    recipe = amr.Recipe().map("What?", finding=FINDING).filter("Is it?").map("Again?", finding={"again": str})

    def answer(request):
        schema = str(request.body["response_format"])
        if "'amr_keep'" in schema:
            return findings(request, lambda unit: {"amr_keep": "2" not in unit["text"]})
        return findings(request, lambda unit: {"again" if "'again'" in schema else "said": "x"})

    with ScriptedServer(answer) as server:
        result = recipe(people(), lm=server.lm(), journal=False, trace="full")
    text = str(result.look("row 1"))
    places = [text.index(part) for part in ("1-map/map-1", "2-filter/map-1", "3-map/map-1")]
    assert places == sorted(places)
    assert "3-map/map-1" not in str(result.look("row 2"))  # which the filter has not kept
    assert "Asked about 4 rows: 'row 0'" in str(result.look(node="1-map/map-1"))
    assert "Asked about 3 rows: 'row 0', 'row 1', 'row 3'" in str(result.stages[2].look(node="map-1"))
    with pytest.raises(amr.UsageError, match="There is no row 'row 9'. Did you mean 'row 3'|There is no row 'row 9'"):
        result.look("row 9")


def test_rows_of_an_input_that_was_read_part_by_part_are_found_by_their_number(tmp_path):
    for number in range(2):
        people(3).assign(text=lambda f, n=number: f["text"] + f" of {n}").to_parquet(tmp_path / f"{number}.parquet")
    with ScriptedServer(quote) as server:
        options = {"map": "What?", "finding": FINDING, "reduce": {"said": "count"}, "lm": server.lm()}
        out = {"out": tmp_path / "out", "journal": False, "progress": False}
        result = amr.map_reduce(str(tmp_path / "*.parquet"), **options, **out, trace="full")
    text = str(result.look(4))
    assert text.startswith(f"Row 4\n  status: ok\n  said: {SECRET} 1 of 1\n")
    assert "Asked about 3 rows: 3, 4, 5" in text
    assert f"{SECRET} 1 of 1" in text.partition("\n\n")[2]
    assert "map-part-" in str(result.look(node=result.trace["id"].iloc[0]))


def test_a_retry_shows_what_was_asked_before_it_too():
    turns = Turns()
    frame = ROWS.loc[["first", "failed"]]
    with ScriptedServer(turns) as server:
        options = {"map": "How bad?", "finding": LEVEL, "reduce": len, "lm": server.lm(), "journal": False}
        first = frame.amr.map_reduce(**options, plan={"max_repairs": 0})
        before = str(first.look("failed")).count("Asked about")
        turns.find = lambda unit: {"level": 2}
        result = first.retry()
    assert result.look("failed").facts[:2] == [("status", "ok"), ("level", "2")]
    assert str(result.look("failed")).count("Asked about") == before + 1
    assert "Asked about 2 rows: 'first', 'failed'" in str(result.look("first"))


def test_a_corrected_row_shows_what_was_asked_before_it_was_corrected(tmp_path):
    result = run(people(), journal=tmp_path / "j.sqlite")
    corrected = result.override({"row 1": {"said": "nothing"}})
    assert corrected.look("row 1").facts[:2] == [
        ("status", "corrected: a person corrected it"),
        ("said", "nothing"),
    ]
    assert "Asked about 4 rows" in str(corrected.look("row 1"))


# From the journal


def test_what_the_journal_had_is_shown_as_the_run_did_it_that_made_it(tmp_path):
    journal = tmp_path / "journal.sqlite"
    options = {"journal": journal, "reduce": "Say it."}
    for trace, shown in (("full", True), ("nodes", False)):
        path = tmp_path / f"{trace}.sqlite"
        run(people(), **options | {"journal": path}, trace=trace)
        again = run(people().iloc[::-1], **options | {"journal": path}, trace="off")
        text = str(again.look("row 1"))
        made = "The journal had its finding: made by run 1 (map_reduce) at 20"
        assert made in text
        assert ("Asked about 4 rows: another, 'row 1'" in text) == shown
        assert ("of which there is no transcript" in text) != shown
    again = run(people(), **options | {"journal": tmp_path / "full.sqlite"})
    assert "The journal had its answer: made by run 1" in str(again.look(node="final-reduce"))
    assert SECRET in str(again.look(node="final-reduce"))
    assert len(people()) == sum(again.status["from_journal"])


def test_a_plan_from_the_journal_is_shown_as_it_was_made(tmp_path):
    options = {"task": "What is said?", "map": ..., "finding": ..., "reduce": ..., "journal": tmp_path / "j.sqlite"}
    run(people(), **options, trace="full")
    again = run(people(), **options)
    text = str(again.look(node="plan"))
    assert "The journal had its answer: made by run 1" in text
    assert "plan of run 1\n  Asked for a plan" in text


def test_a_transcript_of_a_journal_that_has_gone_is_not_taken_for_that_of_another_run(tmp_path):
    path = tmp_path / "j.sqlite"
    run(people(), journal=path, trace="full")
    for end in ("", "-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    with pytest.warns(amr.JournalWarning, match="has gone"):
        run(people(), journal=path)  # again run 1, of the same rows
    again = run(people(), journal=path)
    assert "of which there is no transcript" in str(again.look("row 1"))


# What is kept of a cell


def cell_texts(trace: str, tmp_path, **options) -> tuple[bytes, amr.Result]:
    """All bytes in which a transcript of a run stands: pickled, saved, shown, and beside the journal."""
    folder = tmp_path / trace
    result = run(people(), journal=folder / "j.sqlite", trace=trace, **options)
    shown = [str(result.look(node=node)) + result.look(node=node)._repr_html_() for node in result.trace["id"]]
    shown += ["".join(map(str, result.look(label).sections)) for label in result.frame.index]
    result.save(tmp_path / f"{trace} saved")
    saved = (tmp_path / f"{trace} saved" / "transcripts.json").read_bytes()
    beside = folder / "j.sqlite-transcripts"
    kept = beside.read_bytes() if beside.exists() else b""
    pickled = pickle.dumps(result.transcripts.detach())
    return b"".join([*(text.encode() for text in shown), saved, kept, pickled]), result


CODE = [
    f"# who is {SECRET}?\njane_doe = df['text'].str.contains('{SECRET}')\nraise ValueError('{SECRET} is here')",
    "class JaneDoe(Exception): pass\nraise JaneDoe(4111222233334444)",
    f"print(f'''{SECRET}''', b'{SECRET}', '\\u004aane Doe'",
    f"hits = ask(df['text'], 'Is it {SECRET}?', {{'said': str}})\nsubmit(hits.assign(said='{SECRET}'))",
]


class Coder:
    """Writes code that quotes cells, calls tools that raise with them, and asks about them."""

    def __init__(self, code) -> None:
        self.code = list(code)

    def __call__(self, request):
        if "lookup" in request.tools and len(self.code) > 1:
            call = Call(f"{SECRET} finder", {"of": SECRET}) if len(self.code) % 2 else Call("lookup", {"name": SECRET})
            self.code.pop(0)
            return call
        if "python_repl" in request.tools and self.code:
            return Call("python_repl", {"code": self.code.pop(0)})
        return quote(request)


def lookup(name: str) -> str:
    """Look a name up."""
    raise KeyError(name)


@pytest.mark.usefixtures("sandboxed")
def test_with_nodes_no_byte_of_a_cell_is_kept_and_with_full_what_was_read_and_said_is(tmp_path):
    options = {"tools": [amr.PythonREPLTool()], "plan": {"view": "preview", "shard_size": 4}}
    kept, result = cell_texts("nodes", tmp_path, answer=Coder(CODE), **options)
    for word in (SECRET, "jane", "JaneDoe", "4111222233334444", "u004aane"):
        assert word.lower().encode() not in kept.lower()
    text = str(result.look(node="map-1"))
    assert "name1 = df['text'].str.contains('<8 characters>')" in text
    assert "ValueError in line 3" in text
    assert "an error in line 2" in text
    assert "characters that are not Python)" in text
    assert "ask() about 4 texts" in text
    kept, result = cell_texts("full", tmp_path, answer=Coder(CODE), **options)
    assert SECRET.encode() in kept
    text = str(result.look(node="map-1"))
    assert f"    | jane_doe = df['text'].str.contains('{SECRET}')" in text
    assert text.index("SyntaxError") < text.index("ask() about 4 texts") < text.index("python_repl gives: 9 characters")


@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize("trace", ["nodes", "full"])
def test_code_with_half_of_a_character_is_kept(trace):
    result = run(people(2), Coder(["x = '\ud800'"]), tools=[amr.PythonREPLTool()], trace=trace, plan={"shard_size": 2})
    text = str(result.look("row 1"))
    assert text.index("calls python_repl") < text.index("x = '") < text.index("python_repl gives")


def test_with_nodes_neither_names_nor_arguments_of_tools_nor_problems_hold_a_cell(tmp_path):
    coder = Coder("abcd")

    def answer(request):
        given = coder(request)
        return given if isinstance(given, Call) else findings(request, lambda unit: {"said": 3, SECRET: SECRET})

    kept, result = cell_texts("nodes", tmp_path, answer=answer, tools=[lookup])
    assert SECRET.encode() not in kept
    text = str(result.look(node="map-1"))
    assert "calls lookup: " in text
    assert "KeyError" in text
    assert "calls a tool that does not exist" in text
    assert "said does not fit its type" in text


def test_off_keeps_nothing(tmp_path):
    result = run(people(), trace="off", journal=tmp_path / "j.sqlite")
    assert 'This run kept no transcript: trace="off".' in str(result.look("row 1"))
    assert 'This run kept no transcript: trace="off".' in str(result.look(node="map-1"))
    assert result.spans is None
    assert "recorded no spans" in repr(result.timeline())
    assert result.transcripts.recorder is None
    assert not (tmp_path / "j.sqlite-transcripts").exists()


def test_contents_are_what_was_sent_if_something_is_redacted(tmp_path):
    with amr.settings(redact=lambda text: text.replace(SECRET, "somebody")):
        kept, result = cell_texts("full", tmp_path)
    assert b"somebody 1" in kept
    assert SECRET.encode() not in kept
    assert '{"unit":1,"text":"somebody 1"}' in str(result.look("row 1"))


def test_no_key_is_in_a_transcript(tmp_path):
    key = "sk-very-secret-key"
    frame = people()
    with ScriptedServer(quote) as server:
        lm = amr.LM("m", base_url=server.base_url, api_key=key)
        result = frame.amr.map_reduce(
            map="What?", finding=FINDING, reduce=len, lm=lm, journal=tmp_path / "j.sqlite", trace="full"
        )
    assert key.encode() not in (tmp_path / "j.sqlite-transcripts").read_bytes()
    assert key.encode() not in pickle.dumps(result.transcripts.detach())


MASKED = [
    ("df['text'] == 'I am Jane'", "df['text'] == '<9 characters>'"),
    ("x = 12345 + 99", "x = <5 digits> + 99"),
    ("x = 'ab' + ', '", "x = 'ab' + ', '"),
    ("total = df.groupby('text').size()", "total = df.groupby('text').size()"),
    ("for jane in df:\n    print(jane.upper())", "for name1 in df:\n    print(name1.upper())"),
    ("x = (1,\n     'Jane Doe')", "x = (1,\n     '<8 characters>')"),
    ("x = 1 + \\\n    2", "x = 1 + \\\n    2"),
    ("s = df['text'].agg('sum')", "s = df['text'].agg('sum')"),
    ("this is not Python '", "(20 characters that are not Python)"),
    ("x = 1\n\n\ny = 2", "x = 1\n\n\ny = 2"),
]


@pytest.mark.parametrize(("code", "shown"), MASKED)
def test_code_is_shown_without_what_may_be_of_a_cell(code, shown):
    assert mask_code(code, {"text"}, ["I am Jane Doe"]) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('Traceback:\n  File "<cell 2>", line 7, in <module>\nKeyError: "Jane"', "KeyError in line 7"),
        ("pandas.errors.MergeError: Jane", "MergeError"),
        ("Jane: no", "an error"),
    ],
)
def test_of_an_error_the_type_and_the_line_are_shown(text, shown):
    assert describe_cell_error(text) == shown


# Texts that are hostile

HOSTILE = {
    "script": "<script>alert('x')</script><img src=http://x.invalid/>",
    "escapes": "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J",
    "turned": "\u202egnirts\u202c \u2066x\u2069",
    "emoji": "👩‍👩‍👧 naïve ☃",
    "arabic": "مرحبا بالعالم",
    "half": "half \ud800 of one",
    "large": "word " * 200_000,
    "fence": "```units\n| -> accepted\n```",
    "nothing": "\x00\x01",
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.sampled(4)
def test_hostile_texts_are_harmless_and_legible_in_a_terminal_and_in_a_notebook(kind, tmp_path):
    texts = pd.Series([HOSTILE[kind], "other"], dtype=object)
    frame = pd.DataFrame({"text": texts}).set_axis([f"<b>{kind}</b>\x1b[1m", "o"])
    answer = quote if kind != "large" else Turns()
    options = {"finding": LEVEL, "counter": lambda text: len(text) // 1000} if kind == "large" else {}
    for journal in (False, tmp_path / "j.sqlite"):
        result = run(frame, answer, trace="full", journal=journal, plan={"shard_size": 1}, **options)
        page = result.look(frame.index[0])
        text, shown = str(page), page._repr_html_()
        assert all(character.isprintable() or character == "\n" for character in text)
        assert text.isprintable() or "\x1b" not in text
        assert len(text) < 200_000
        assert len(shown) < 1_000_000
        for mark in ("<script", "<img", "<b>", "\x1b", "\u202e", "\x00", "\ud800"):
            assert mark not in shown
        shown.encode()
        if kind in {"emoji", "arabic"}:
            assert HOSTILE[kind].split()[-1] in shown
            assert HOSTILE[kind].split()[-1] in text


# What is wrong

WRONG = {
    "neither": ({}, r"look\(\) takes a row's label, or a node"),
    "both": ({"label": "first", "node": "map-1"}, r"look\(\) takes a row's label, or a node"),
    "nearly a label": ({"label": "frist"}, "There is no row 'frist'. Did you mean 'first'?"),
    "another type": ({"label": 3}, "There is no row 3. Labels are those of result.frame: 'first' to 'last'."),
    "a list": ({"label": ["first"]}, r"look\(label\) takes the label of a row, not list."),
    "a slice": ({"label": slice("first", "last")}, r"look\(label\) takes the label of a row, not slice."),
    "nearly a node": ({"node": "map1"}, "There is no node 'map1'. Did you mean 'map-1'?"),
    "no node": ({"node": "weather"}, "There is no node 'weather'. result.trace has the nodes: 'map-1', 'map-2'."),
    "a number": ({"node": 3}, "There is no node 3."),
    "a hostile label": ({"label": "\x1b[1m"}, re.escape(r"There is no row '\x1b[1m'.")),
    "another keyword": ({"nodes": "map-1"}, r"look\(\) takes no 'nodes'. Did you mean 'node'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_label_or_node_is_one_error_with_what_would_be_right(levels, case):
    given, told = WRONG[case]
    with pytest.raises(amr.UsageError, match=told.replace("?", r"\?")):
        levels.look(**given)


@pytest.mark.parametrize(
    ("index", "label", "count"),
    [
        (pd.Index([1, 1, 2]), 1, 2),
        (pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)]), "a", 2),
        (pd.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)]), ("a", 2), 1),
        (pd.Index([None, "x", "y"], dtype=object), None, 1),
        (pd.to_datetime(["2026-01-01", "2026-01-02", "2026-02-01"]), "2026-01", 2),
        (pd.Index(["x"] * 3), "x", 3),
    ],
    ids=str,
)
def test_rows_are_found_by_any_label_that_pandas_knows(index, label, count):
    result = run(people(3).set_axis(index))
    page = result.look(label)
    shown = [page, *page.sections] if count == 1 else page.sections
    assert len([one for one in shown if one.title.startswith("Row ")]) == count


@pytest.mark.parametrize("trace", ["node", "none", "", 1, True, ["full"]])
def test_a_wrong_level_is_refused_before_a_request(refusing, trace):
    told = r'trace= takes "nodes", "full" or "off", not '
    with pytest.raises(amr.UsageError, match=told):
        people().amr.map_reduce(map="x", reduce=len, trace=trace)
    with pytest.raises(amr.UsageError, match=told):
        amr.Recipe().map("x")(people(), trace=trace)
    with pytest.raises(amr.UsageError, match=r'configure\(trace=...\) takes "nodes", "full" or "off"'):
        amr.configure(trace=trace)


def test_the_level_is_a_setting_too():
    with amr.settings(trace="off"):
        off = run(people())
        full = run(people(), trace="full")
    assert (off.transcripts.level, full.transcripts.level) == ("off", "full")


# Kept with the result


@pytest.mark.parametrize("journal", [False, True], ids=["in memory", "beside the journal"])
@pytest.mark.parametrize("trace", ["nodes", "full"])
def test_a_saved_a_pickled_and_a_copied_result_show_the_same(tmp_path, trace, journal):
    path = tmp_path / "j" / "j.sqlite" if journal else False
    result = run(ROWS.assign(text=ROWS["text"] + " x"), Turns(), finding=LEVEL, trace=trace, journal=path)
    result.save(tmp_path / "saved")
    others = [amr.load(tmp_path / "saved"), pickle.loads(pickle.dumps(result)), copy.deepcopy(result)]
    for label in ROWS.index:
        for other in others:
            assert str(other.look(label)) == str(result.look(label))
    for other in others:
        assert str(other.look(node="map-1")) == str(result.look(node="map-1"))
        other.save(tmp_path / "saved")  # a folder that has a transcript is one of save's own


def test_a_result_that_was_saved_without_a_transcript_says_so(tmp_path):
    run(people()).save(tmp_path / "saved")
    (tmp_path / "saved" / "transcripts.json").unlink()
    loaded = amr.load(tmp_path / "saved")
    assert "This result has no transcript" in str(loaded.look("row 1"))
    assert "This result has no transcript" in str(loaded.look(node="map-1"))
    (tmp_path / "saved" / "transcripts.json").write_text('{"nodes": 3}')
    with pytest.raises(amr.UsageError, match="is damaged"):
        amr.load(tmp_path / "saved")


def test_the_result_of_a_frame_and_a_partial_result_can_be_looked_at_too():
    with ScriptedServer(quote) as server:
        frame = people().amr.map("What?", finding=FINDING, lm=server.lm(), journal=False)
    assert "Asked about 4 rows" in str(amr.result_of(frame).look("row 1"))

    def answer(request):
        return findings(request, lambda unit: {"said": 3})

    with pytest.raises(amr.MapFailed) as stopped:
        run(people(), answer, errors="raise")
    assert "said does not fit its type" in str(stopped.value.partial.look("row 1"))


def test_a_service_that_fails_is_shown():
    def answer(request):
        return (
            Status(400, {"error": {"message": f"no {SECRET}"}})
            if f"{SECRET} 1" in str(request.body)
            else quote(request)
        )

    result = run(people(2), answer)
    assert f"no {SECRET}" not in str(result.look("row 1").sections)
    assert "the service failed" in str(result.look("row 1"))
    assert "It did not come to an answer." in str(result.look("row 1"))


# Bounds


def test_a_long_text_is_cut_in_the_middle_and_that_is_said():
    frame = pd.DataFrame({"text": ["b" + "x" * 60_000 + "e"]})
    result = run(frame, Turns(), finding=LEVEL, trace="full")
    [section] = result.look(0).sections
    sent = section.conversations[0].steps[1]
    assert sent.characters > 60_000
    assert len(sent.text) == 20_000
    assert "characters left out here]" in sent.text
    assert "more characters" in str(result.look(0))


@pytest.mark.parametrize(
    ("space", "told"),
    [
        (Space(characters=1_000), r"Left out, since the transcript of the run is full: \d[\d,]* characters\."),
        (Space(steps=0), r"Left out, since the transcript of the run is full: 1 conversation\."),
    ],
    ids=["characters", "steps"],
)
def test_a_run_takes_down_no_more_than_fits_and_says_what_it_left_out(space, told):
    messages = [Message("system", "s" * 600), Message("user", "u" * 600)]
    trace = Trace(recorder=Recorder("full", space=space))
    with trace.node("map", id="map-1") as node:
        transcriber = begin_transcript(Purpose("map", (0,)), messages)
        if transcriber is not None:
            transcriber.add_messages(messages)
    result = dataclasses.replace(run(people(1)), transcripts=RunTranscripts(trace.recorder))
    assert re.search(told, str(result.look(node="map-1")))
    assert sum(len(step.text or "") for one in node.recorded.transcript.conversations for step in one.walk()) <= 1_000


# The file


def test_the_file_is_only_its_owner_s_and_is_counted_with_the_journal(tmp_path, capsys):
    path = tmp_path / "j.sqlite"
    run(people(), journal=path, trace="full", plan={"shard_size": 2})
    beside = tmp_path / "j.sqlite-transcripts"
    assert stat.S_IMODE(beside.stat().st_mode) == 0o600
    journal = amr.Journal(path)
    assert journal.count_transcripts() == 2
    assert journal.size() >= beside.stat().st_size
    assert journal.verify() == []
    assert COMMANDS.main(["journal", "ls", "--journal", str(path)], standalone_mode=False) == 0
    assert json.loads(capsys.readouterr().out)["transcripts"] == 2


def test_a_damaged_file_costs_no_finding_and_is_set_aside(tmp_path):
    path, beside = tmp_path / "j.sqlite", tmp_path / "j.sqlite-transcripts"
    run(people(), journal=path, trace="full")
    content = bytearray(beside.read_bytes())
    content[100:3000] = b"x" * 2900
    beside.write_bytes(content)
    with pytest.warns(amr.JournalWarning, match="are damaged .* They are set aside as j.sqlite.damaged-"):
        result = run(people(2).assign(text="new"), journal=path, trace="full")
    assert (result.status["status"] == "ok").all()
    assert "Asked about" in str(result.look("row 1"))
    assert '{"text":"new"}' in str(result.look("row 1"))  # which stays with the result
    assert amr.Journal(path).forget(people()).files
    assert not list(tmp_path.glob("*damaged*"))


def test_what_is_not_beside_the_journal_any_more_is_said_to_be_so(tmp_path):
    path = tmp_path / "j.sqlite"
    result = run(people(), journal=path, trace="full")
    (tmp_path / "j.sqlite-transcripts").unlink()
    text = str(result.look("row 1"))
    assert "What was read and said is not beside the journal any more." in text
    assert "Asked about 4 rows" in text
    assert SECRET not in text.partition("\n\n")[2]


def test_runs_side_by_side_write_one_file(tmp_path):
    path = tmp_path / "j.sqlite"

    async def both():
        with ScriptedServer(quote) as server:
            options = {"map": "What?", "finding": FINDING, "reduce": len, "lm": server.lm(), "journal": path}
            frames = [people(8).assign(text=lambda f, n=n: f["text"] + f" {n}") for n in range(3)]
            runs = [f.amr.start(**options, trace="full", plan={"shard_size": 1}) for f in frames]
            return [await one for one in runs]

    results = asyncio.run(both())
    assert amr.Journal(path).count_transcripts() == 24
    for number, result in enumerate(results):
        assert f"{SECRET} 7 {number}" in str(result.look("row 7")).partition("\n\n")[2]


def test_of_many_conversations_those_that_went_wrong_are_shown():
    """Why a long cell failed stood in the last one, when its pieces were to be merged."""

    def answer(request):
        if request.schema == "reduction":
            return {"output": {}, "sources": [0]}
        return findings(request, lambda unit: {"said": unit["part"]})

    frame = pd.DataFrame({"text": ["word " * 20_000]}, index=["long"])
    result = run(frame, answer, plan={"shard_tokens": 600})
    shown = str(result.look("long"))
    assert re.search(r"Of 1\d\d conversations 60 are shown: those that went wrong, and the first\.", shown)
    assert "not accepted: row 'long': said does not fit its type" in shown
    assert "piece 59 of" in shown
    assert "piece 60 of" not in shown
