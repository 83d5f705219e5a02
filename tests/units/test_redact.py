"""What a ``redact`` function takes out of rows leaves the machine in no request, and stands in no journal or log."""

from __future__ import annotations

import json
import logging
import re
import threading
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import BaseModel

import pandas_amr as amr
from pandas_amr._journal.code_keys import describe_function
from pandas_amr._units.redaction import Redaction
from pandas_amr.errors import UsageError
from pandas_amr.models.base import Abilities
from pandas_amr.testing import Call, ScriptedServer, findings

EMAIL = re.compile(r"[\w.]+@[\w.]+\w")
CARD = re.compile(r"\b\d{13,16}\b")
CARDS = [4000_0000_0000_0001 + number for number in range(6)]
NAMES = ["ada", "bob", "cyd", "dan", "eve", "fay"]
SECRETS = [f"{name}@home" for name in NAMES] + [str(card) for card in CARDS] + ["eu@office"]


def mask(text: str) -> str:
    """Take out addresses and numbers of cards; it may not be called on the engine's own thread."""
    assert threading.current_thread().name != "pandas-amr"
    return CARD.sub("[CARD]", EMAIL.sub("[EMAIL]", text))


def customers() -> pd.DataFrame:
    """Six rows with a secret in every kind of cell, in the labels of the rows, and in a column that is not content."""
    mails = [f"{name}@home.org" for name in NAMES]
    return pd.DataFrame(
        {
            "text": [f"row {n}: from {mail}, card {CARDS[n]}. " + "And so on. " * 8 for n, mail in enumerate(mails)],
            "mail": mails,
            "kind": pd.Categorical([mails[n % 2] for n in range(6)], categories=mails),
            "card": CARDS,
            "float_card": np.array(CARDS, dtype=float),
            "nested": [{mail: [mail, CARDS[n]], "n": n} for n, mail in enumerate(mails)],
            "raw": [mail.encode() for mail in mails],
            "arrow": pd.array(mails, dtype=pd.ArrowDtype(pa.string())),
            "amount": [1, 2, 3, 4, 5, 6],
        },
        index=pd.Index(mails, name="who"),
    )


class Item(BaseModel):
    note: str


def loud(shard: pd.DataFrame) -> list[dict[str, Any]]:
    """A function of the user's: it reads rows as they are, and what it finds quotes them."""
    assert "@home.org" in shard["text"].iloc[0]
    return [{"quote": text, "size": len(text)} for text in shard["text"]]


def versioned(shard: pd.DataFrame) -> list[dict[str, Any]]:
    return loud(shard)


versioned.amr_version = "1"


def by_row(row: pd.Series) -> str:
    assert "@home.org" in row["mail"]
    return f"Is {row['mail']} angry?"


def by_findings(frame: pd.DataFrame) -> str:
    return f"Sum up what {', '.join(map(str, frame.iloc[:, 0]))} say."


def lookup(name: str) -> dict[str, Any]:
    """Look a customer up."""
    return {"mail": "ada@home.org", "card": CARDS[0], "asked": name}


def broken(name: str) -> str:
    """Look a customer up, and fail."""
    raise ValueError(f"{name}: no card {CARDS[1]} of bob@home.org")


PLANNED = {
    "map_instruction": "Read.",
    "finding": [{"name": "note", "type": "str", "choices": [], "description": "a note"}],
    "shard_size": 7,
    "parallelism": 3,
    "aggregations": [{"field": "note", "function": "value_counts"}],
    "reduce_instruction": "Sum up.",
}
CHOICE = {"field": "mail", "function": "nunique", "condition": None}


def echo(unit: dict[str, Any]) -> dict[str, Any]:
    return {"finding": json.dumps(unit)}


def provider(request: Any, *, find: Any = echo, turns: tuple[Any, ...] = (), output: Any = "all") -> Any:
    """Play the calls in ``turns`` first, then answer by the schema."""
    done = sum(message["role"] == "assistant" for message in request.messages)
    if request.tools and done < len(turns):
        return turns[done]
    if request.schema == "plan":
        return PLANNED
    if request.schema == "reduction":
        return {"output": output, "sources": [0] if request.findings else []}
    return findings(request, find)


def wrong_first(request: Any) -> Any:
    """An answer that needs a repair, and then halves of the shard."""
    if request.schema == "reduction":
        return {"output": "all", "sources": [0]}
    bad = not request.repairs and len(request.units) > 2
    return findings(request, lambda unit: {"finding": 7 if bad else json.dumps(unit)})


def python(text: str) -> Call:
    return Call("python_repl", {"code": text})


# Each feature: what is called, with which options, and how the provider answers.
TEXT = {"map": "Read.", "reduce": "Sum up."}
ALL: dict[str, tuple[str, dict[str, Any], Any]] = {
    "map": ("map", {"instruction": "Read."}, provider),
    "map of one column": ("map", {"instruction": "Read.", "columns": ["text"]}, provider),
    "filter": ("filter", {"criterion": "Angry?"}, partial(provider, find=lambda unit: {"amr_keep": True})),
    "a tree of two levels": ("map_reduce", TEXT | {"plan": {"shard_size": 1, "fan_in": 2}}, provider),
    "an adaptive tree": ("map_reduce", TEXT | {"plan": {"shard_size": 2, "reduce_budget": 40}}, provider),
    "lists of records": (
        "map_reduce",
        {"map": "Read.", "finding": list[Item], "reduce": "Sum up."},
        partial(provider, find=lambda unit: {"items": [{"note": json.dumps(unit)}]}),
    ),
    "one unit a request": (
        "map",
        {"instruction": "Read.", "lm": {"abilities": Abilities(units_per_request=1, tools=False)}},
        provider,
    ),
    "a long unit in pieces": (
        "map",
        {"instruction": "Read.", "columns": ["text"], "plan": {"shard_tokens": 36}},
        partial(provider, output={"finding": "x"}),
    ),
    "neighbours": ("map", {"instruction": "Read.", "plan": {"segmentation": "neighbours"}}, provider),
    "groups": (
        "map",
        {
            "instruction": "Read.",
            "columns": ["amount"],
            "plan": {"segmentation": "groups", "group_columns": ["mail", "kind"]},
        },
        provider,
    ),
    "a function and agents": (
        "map_reduce",
        {"map": {"own": loud, "read": "Read."}, "reduce": "Sum up.", "plan": {"fan_in": 2, "shard_size": 2}},
        provider,
    ),
    "a typed function in a static tree": (
        "map_reduce",
        {
            "map": loud,
            "finding": {"quote": str, "size": int},
            "reduce": "Sum up.",
            "plan": {"fan_in": 2, "shard_size": 2},
        },
        provider,
    ),
    "a function with a version": (
        "map_reduce",
        {"map": versioned, "finding": {"quote": str, "size": int}, "reduce": "Sum up."},
        provider,
    ),
    "lists of records by a function": (
        "map_reduce",
        {
            "map": lambda shard: [[{"note": text}] for text in shard["text"]],
            "finding": list[Item],
            "reduce": "Sum up.",
            "plan": {"fan_in": 2},
        },
        provider,
    ),
    "instructions by row": ("map", {"instruction": amr.Agent(by_row)}, provider),
    "an instruction by findings": ("map_reduce", {"map": loud, "reduce": amr.Agent(by_findings)}, provider),
    "groups of a reduce": ("map_reduce", TEXT | {"by": "mail"}, provider),
    "rows that are reduced": ("reduce", {"instruction": "Sum up."}, provider),
    "rows that are reduced by groups": ("reduce", {"instruction": "Sum up.", "by": ["kind"]}, provider),
    "columns by agents": (
        "map_reduce",
        {"map": "Read.", "reduce": {"mail": amr.Agent("Whose?"), "amount": "sum"}, "columns": ["text"]},
        provider,
    ),
    "columns of the frame by agents": ("reduce", {"instruction": {"mail": amr.Agent("Whose?")}}, provider),
    "aggregates and ranks beside a text": (
        "map_reduce",
        {
            "map": "Read.",
            "finding": {"finding": str},
            "columns": ["text"],
            "plan": {
                "reduce_instruction": "Sum up.",
                "aggregations": {"mail": "value_counts", "card": ["max", "min"], "kind": "value_counts"},
                "ranking": {"field": "amount", "most": 3},
            },
        },
        provider,
    ),
    "a number that is chosen": (
        "map_reduce",
        {"map": "Read.", "reduce": "How many?", "output": int},
        partial(provider, output=CHOICE),
    ),
    "a number of a function's findings": (
        "map_reduce",
        {"map": loud, "reduce": "How many?", "output": int, "by": "mail"},
        partial(provider, output={"field": "quote", "function": "nunique", "condition": None}),
    ),
    "a direct answer": (
        "map_reduce",
        {"plan": {"direct": True, "reduce_instruction": "Sum up."}, "map": "R"},
        provider,
    ),
    "a task": ("map_reduce", {"task": "What is it about?"}, partial(provider, find=lambda unit: {"note": "n"})),
    "columns as units": ("map", {"instruction": "What is it?", "axis": "columns"}, provider),
    "tools": (
        "map",
        {"instruction": "Read.", "tools": [lookup, broken]},
        partial(provider, turns=([Call("lookup", {"name": "x"}), Call("broken", {"name": "x"})],)),
    ),
    "a tool whose result is cut": (
        "map",
        {"instruction": "Read.", "tools": [amr.Tool(lookup, max_result_chars=100)]},
        partial(provider, turns=(Call("lookup", {"name": "y" * 300}),)),
    ),
    "repairs": ("map_reduce", TEXT, wrong_first),
    "a batch": ("map", {"instruction": "Read.", "lm": {"batch": True, "batch_poll_s": 0.01}}, provider),
}
IN_PYTHON: dict[str, tuple[str, dict[str, Any], Any]] = {
    "a shard as df": (
        "map_reduce",
        {"tools": [amr.PythonREPLTool()], "map": "Read.", "reduce": "Sum up."},
        partial(
            provider,
            turns=(python("df.to_csv() if 'df' in dir() else findings.to_csv()"), python("1 / 0 if 0 else df")),
        ),
    ),
    "a preview": (
        "map",
        {"tools": [amr.PythonREPLTool()], "instruction": "Read.", "plan": {"view": "preview"}},
        lambda request: python("print(df.to_dict())\nsubmit(df[['text']].rename(columns={'text': 'finding'}))"),
    ),
    "joined cells": (
        "map",
        {"tools": [amr.PythonREPLTool()], "instruction": "Read.", "columns": ["amount"]},
        partial(provider, turns=(python("print('eu' + '@' + 'office' + '.org')"),)),
    ),
    "ask": (
        "map",
        {"tools": [amr.PythonREPLTool()], "instruction": "Read.", "columns": ["amount"]},
        partial(
            provider,
            find=lambda unit: {"answer": "x"} if "text" in unit and "amount" not in unit else {"finding": "x"},
            turns=(
                python(
                    "mail = 'eu' + '@' + 'office' + '.org'\n"
                    "ask(list(df['text']) + [mail], 'Is it ' + mail, {'answer': str})"
                ),
            ),
        ),
    ),
}


def sent_by(server: ScriptedServer) -> str:
    """All that the server was ever given, as one text without escapes."""
    bodies = [json.dumps(request.body, ensure_ascii=False) for request in server.requests]
    files = list(server._files.values())
    return "\n".join([*bodies, *files]).replace("\\", "")


def assert_no_secret(text: str) -> None:
    leaked = [secret for secret in SECRETS if secret in text]
    assert leaked == [], text[max(0, text.index(leaked[0]) - 300) :][:600] if leaked else ""


def call(frame: pd.DataFrame, server: ScriptedServer, verb: str, options: dict[str, Any]) -> Any:
    options = dict(options)
    lm = server.lm(**options.pop("lm", {}))
    first = next((options.pop(name) for name in ("instruction", "criterion", "task") if name in options), None)
    arguments = [] if first is None else [first]
    return getattr(frame.amr, verb)(*arguments, lm=lm, **options)


def run_case(tmp_path, caplog, verb: str, options: dict[str, Any], script: Any) -> None:
    frame = customers()
    before = frame.copy(deep=True)
    path = tmp_path / "journal.sqlite"
    journal = amr.Journal(path, keep_inputs=True)
    with ScriptedServer(script) as server, caplog.at_level(logging.DEBUG):
        with amr.settings(redact=mask, journal=journal):
            given = call(frame, server, verb, options)
            asked = len(server.requests)
            again = call(frame, server, verb, options)
            assert len(server.requests) == asked or verb == "filter"  # the same call is answered by the journal
        assert asked
        assert_no_secret(sent_by(server))
    del again
    assert_no_secret(caplog.text)
    assert_no_secret("".join(file.read_bytes().decode("latin1") for file in tmp_path.rglob("*") if file.is_file()))
    pd.testing.assert_frame_equal(frame, before)
    if isinstance(given, amr.Result):
        assert_no_secret(given.trace.to_csv() + given.usage.to_csv() + given.plan.to_json())
        given = given.frame
    if isinstance(given, pd.DataFrame) and verb != "reduce" and options.get("axis") is None:
        pd.testing.assert_frame_equal(given[list(before.columns)], before)


@pytest.mark.parametrize("case", ALL)
@pytest.mark.sampled(3)
def test_no_feature_sends_what_is_taken_out(tmp_path, caplog, monkeypatch, case):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run_case(tmp_path, caplog, *ALL[case])


@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize("case", IN_PYTHON)
def test_code_of_a_model_reads_redacted_rows(tmp_path, caplog, case):
    run_case(tmp_path, caplog, *IN_PYTHON[case])


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
@pytest.mark.usefixtures("sandboxed")
@pytest.mark.parametrize("case", ALL | IN_PYTHON)
def test_each_of_these_features_sends_a_secret_if_nothing_is_redacted(tmp_path, monkeypatch, case):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    verb, options, script = (ALL | IN_PYTHON)[case]
    with ScriptedServer(script) as server:
        call(customers(), server, verb, options)
    assert any(secret in sent_by(server) for secret in SECRETS)


@pytest.mark.usefixtures("sandboxed")
def test_what_code_reads_in_a_file_is_redacted_where_it_is_printed(tmp_path):
    path = tmp_path / "mails.txt"
    path.write_text("ada@home.org and 4000000000000001")
    path.chmod(0o644)
    script = partial(provider, turns=(python("open(files['mails.txt']).read()"),))
    repl = amr.PythonREPLTool(files={"mails.txt": path})
    with ScriptedServer(script) as server, amr.settings(redact=mask):
        pd.DataFrame({"text": ["a"]}).amr.map("Read.", tools=[repl], lm=server.lm())
    assert server.requests[-1].tool_results[0].startswith("'[EMAIL] and [CARD]'\n")


# What runs around a verb


def test_a_recipe_redacts_each_stage_where_its_frame_is_known(tmp_path):
    inner = amr.Recipe().map("Look.", finding={"own": str}).reduce("Sum up.", output=str)
    recipe = (
        amr.Recipe()
        .map({"deep": inner, "own": loud}, finding={"deep": str})
        .then(lambda frame: frame.assign(again=frame["mail"]))
        .filter("Angry?")
        .map_reduce(map="Read.", reduce=amr.Recipe().reduce("Sum up."))
    )

    def script(request):
        if request.schema == "reduction":
            return {"output": "all", "sources": [0]}
        found = {"own": "x", "amr_keep": True, "finding": "x", "deep": "x"}
        names = request.body["response_format"]["json_schema"]["schema"]["properties"]
        names = names.get("findings", {}).get("items", {}).get("properties", names)
        return findings(request, lambda unit: {name: found[name] for name in names if name in found})

    with ScriptedServer(script) as server, amr.settings(redact=mask):
        result = recipe(customers(), lm=server.lm(), journal=tmp_path / "journal.sqlite")
    assert result.frame["again"].iloc[0] == "ada@home.org"
    assert len(server.requests) > 12
    assert_no_secret(sent_by(server))


def test_a_recipe_fails_before_its_first_request_if_a_plan_of_any_stage_was_redacted():
    plan = amr.Plan(map_instruction="Read.", redact="mask")
    recipe = amr.Recipe().map("Look.").map(plan=plan)
    with ScriptedServer(provider) as server:
        with pytest.raises(amr.PlanError, match=r"redact=mask.*amr.configure\(redact=mask\)"):
            recipe(customers(), lm=server.lm())
        assert server.requests == []


def test_a_retry_and_a_verification_send_what_the_run_did():
    failing = True

    def script(request):
        bad = failing and any("row 0" in str(unit) for unit in request.units)
        return findings(request, lambda unit: {"finding": "" if bad else json.dumps(unit)})

    with ScriptedServer(script) as server:
        lm = server.lm()
        with amr.settings(redact=mask), pytest.warns(amr.FailureWarning):
            frame = customers().amr.map("Read.", plan={"shard_size": 1}, lm=lm)
        result = amr.result_of(frame)
        failing = False
        whole = result.retry()  # outside of the block
        assert not len(whole.failures)
        whole.verify(share=1.0)
        assert_no_secret(sent_by(server))
    assert_no_secret(result.failures["reason"].to_csv())


def test_findings_are_watched_under_the_labels_of_the_users_frame():
    with ScriptedServer(provider) as server, amr.settings(redact=mask):
        run = customers().amr.start(map="Read.", reduce="Sum up.", lm=server.lm())
        assert {finding["label"] for finding in run} == set(customers().index)


def test_a_sample_and_the_requests_of_a_plan_are_redacted():
    with ScriptedServer(provider) as server, amr.settings(redact=mask):
        plan = customers().amr.plan(map="Read.", reduce="Sum up.", lm=server.lm())
        assert_no_secret(json.dumps(plan.requests()) + repr(plan) + str(plan.outgoing()))
        plan.estimate(sample=3)
        assert_no_secret(sent_by(server))


def test_documents_are_redacted(tmp_path):
    corpus = amr.read_text("Dear ada@home.org, 4000000000000001. " * 50, chunk_tokens=40)
    with ScriptedServer(provider) as server, amr.settings(redact=mask):
        corpus.amr.map("Read.", lm=server.lm())
    assert_no_secret(sent_by(server))
    assert "[EMAIL]" in sent_by(server)


# What is asked once, and what is known again

PAIR = pd.DataFrame({"text": ["a@b.c is angry", "d@e.f is angry", "glad"]})


def names(text: str) -> str:
    return EMAIL.sub("<name>", text)


def test_units_that_are_equal_without_what_is_taken_out_are_asked_once():
    with ScriptedServer(provider) as server, amr.settings(redact=mask):
        frame = PAIR.amr.map("Read.", lm=server.lm())
    assert [unit["text"] for unit in server.requests[0].units] == ["[EMAIL] is angry", "glad"]
    assert frame["finding"].iloc[0] == frame["finding"].iloc[1]
    assert frame["text"].tolist() == PAIR["text"].tolist()


def test_the_key_of_a_finding_is_made_of_the_redacted_text_and_of_the_function(tmp_path):
    journal = tmp_path / "journal.sqlite"
    other_rows = PAIR.replace("a@b.c is angry", "x@y.z is angry")
    untouched = PAIR.tail(1)
    calls = {}
    with ScriptedServer(provider) as server:
        for case, redact, frame in [
            ("first", mask, PAIR),
            ("the same", mask, PAIR),
            ("other secrets", mask, other_rows),
            ("another function", names, untouched),
            ("none", None, untouched),
            ("none again", None, untouched),
        ]:
            before = len(server.requests)
            with amr.settings(redact=redact):
                frame.amr.map("Read.", lm=server.lm(), journal=journal)
            calls[case] = len(server.requests) - before
    assert calls == {
        "first": 1,
        "the same": 0,
        "other secrets": 0,
        "another function": 1,
        "none": 1,
        "none again": 0,
    }


def made(word: str) -> Any:
    def replaced(text: str) -> str:
        return EMAIL.sub(word, text)

    return replaced


class Cleaner:
    def __init__(self, word: str) -> None:
        self.word = word

    def __call__(self, text: str) -> str:
        return EMAIL.sub(self.word, text)

    def clean(self, text: str) -> str:
        return self(text)


def test_functions_are_told_apart_by_their_code_and_what_they_use_or_by_a_version():
    one, two = (lambda text: text), (lambda text: text + "")
    functions = [mask, names, made("a"), made("b"), one, two, Cleaner("a"), Cleaner("b"), Cleaner("a").clean, str.upper]
    functions += [partial(EMAIL.sub, "a"), partial(EMAIL.sub, "b")]
    described = [json.dumps(describe_function(function)) for function in functions]
    assert len(set(described)) == len(functions)
    assert describe_function(made("a")) == describe_function(made("a"))
    assert "0x" not in "".join(described)
    marked = made("a")
    marked.amr_version = "2"
    assert describe_function(marked) == {"function": "made.<locals>.replaced", "version": "2"}


def test_each_distinct_text_is_redacted_once_on_the_callers_thread():
    seen: list[str] = []
    threads = set()

    def counted(text: str) -> str:
        seen.append(text)
        threads.add(threading.current_thread())
        return text

    frame = pd.DataFrame({"text": ["a", "b", "a", "", None], "same": ["b", "a", "c", "c", "c"]})
    with ScriptedServer(provider) as server, amr.settings(redact=counted):
        frame.amr.map("Read.", lm=server.lm())
    assert sorted(seen) == ["a", "b", "c"]
    assert threads == {threading.current_thread()}


def test_a_function_that_is_not_idempotent_is_applied_once():
    frame = pd.DataFrame({"text": ["a", "b"], "n": [1, 2]})
    script = partial(provider, find=lambda unit: {"finding": unit["text"]})
    with ScriptedServer(script) as server, amr.settings(redact="<{}>".format):
        result = frame.amr.map_reduce(
            map={"read": "Read.", "own": lambda shard: shard[["text"]].rename(columns={"text": "own"})},
            reduce="Sum up.",
            columns=["text"],
            lm=server.lm(),
        )
    assert [unit["text"] for unit in server.requests[0].units] == ["<a>", "<b>"]
    read = [(finding["read"], finding["own"]) for finding in server.requests[-1].findings]
    assert read == [("<a>", "<a>"), ("<b>", "<b>")]
    assert result.frame["own"].tolist() == ["a", "b"]


def test_numbers_stay_numbers_unless_something_is_taken_out_of_them():
    frame = pd.DataFrame({"n": [1, 2], "x": [0.5, None], "card": CARDS[:2], "ok": [True, False]})
    with ScriptedServer(provider) as server, amr.settings(redact=mask):
        frame.amr.map("Read.", lm=server.lm())
    assert server.requests[0].units == [
        {"unit": 0, "n": 1, "x": 0.5, "card": "[CARD]", "ok": True},
        {"unit": 1, "n": 2, "x": None, "card": "[CARD]", "ok": False},
    ]


def test_names_of_columns_and_the_users_own_words_are_sent_as_they_are():
    frame = pd.DataFrame({"a@b.c": ["d@e.f"]})
    with ScriptedServer(provider) as server, amr.settings(redact=mask):
        frame.amr.map("Is it x@y.z?", lm=server.lm())
    assert server.requests[0].units == [{"unit": 0, "a@b.c": "[EMAIL]"}]
    assert "Is it x@y.z?" in server.requests[0].system


def test_a_function_whose_findings_are_not_redacted_is_kept_and_one_whose_findings_are_is_called_again(tmp_path):
    called = []

    def sizes(shard: pd.DataFrame) -> pd.Series:
        called.extend(shard["text"])
        return shard["text"].str.replace("a@b.c", "somebody").rename("quote")

    sizes.amr_version = "1"
    options = {"map": sizes, "finding": {"quote": str}, "reduce": "Sum up.", "journal": tmp_path / "journal.sqlite"}
    with ScriptedServer(provider) as server, amr.settings(redact=mask):
        PAIR.amr.map_reduce(lm=server.lm(), **options)
        PAIR.amr.map_reduce(lm=server.lm(), **options)
    assert called == [*PAIR["text"], "d@e.f is angry"]


def test_a_number_is_computed_from_the_rows_and_chosen_by_what_is_shown():
    frame = pd.DataFrame({"text": ["r"] * 4, "mail": ["a@b.c", "d@e.f", "d@e.f", "none"]})
    condition = [{"field": "mail", "comparison": "=", "value": "[EMAIL]"}]
    answer = {"field": "mail", "function": "nunique", "condition": condition}
    with ScriptedServer(partial(provider, output=answer)) as server, amr.settings(redact=mask):
        result = frame.amr.map_reduce(map="Read.", reduce="How many?", output=int, lm=server.lm())
    assert result.output == 2


def test_values_that_look_alike_without_what_is_taken_out_are_still_counted_apart():
    plan = {"reduce_instruction": "Sum up.", "aggregations": {"text": "value_counts"}}
    with ScriptedServer(provider) as server, amr.settings(redact=mask):
        PAIR.amr.map_reduce(map="Read.", plan=plan, lm=server.lm())
    assert "{'[EMAIL] is angry': 1, '[EMAIL] is angry_': 1, 'glad': 1}" in server.requests[-1].user.replace('"', "'")


# What goes wrong


def raises(text: str) -> str:
    if "@" in text:
        raise ValueError(f"cannot read {text}")
    return text


def nothing(text: str) -> Any:
    return None if "@" in text else text


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (raises, r"redact=raises raised ValueError \(test_redact.py, line \d+\)"),
        (nothing, "redact=nothing gave NoneType, not a text"),
        (lambda: "x", r"redact=<lambda> raised TypeError"),
        (lambda text: text.encode(), r"redact=<lambda> gave bytes, not a text"),
    ],
)
@pytest.mark.parametrize("verb", ["map", "start"])
def test_a_function_that_fails_is_one_error_before_any_request_and_quotes_nothing(function, why, verb):
    frame = pd.DataFrame({"text": ["glad", "from ada@home.org"]}, index=["first", "second"])
    options: dict[str, Any] = {"reduce": "Sum up."} if verb == "start" else {}
    options |= {"instruction": "Read."} if verb == "map" else {"map": "Read."}
    with ScriptedServer(provider) as server, amr.settings(redact=function):
        with pytest.raises(UsageError, match=why) as caught:
            getattr(frame.amr, verb)(lm=server.lm(), **options)
        assert server.requests == []
    row = r"row 1 \(label 'second'\)" if function in {raises, nothing} else r"row 0"
    assert re.search(rf"{row}.*column 'text'", str(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "ada@home" not in str(caught.value)


def test_texts_that_no_encoding_takes_are_redacted_like_others():
    texts = pd.Series(["\ud800 ada@home.org", "glad"], dtype=object)
    frame = pd.DataFrame({"text": texts}).set_index(pd.Index(texts, dtype=object))
    sent = Redaction(mask).frame(frame, has_index=True)
    assert sent["text"].tolist() == sent.index.tolist() == ["\ud800 [EMAIL]", "glad"]


def test_a_label_that_cannot_be_redacted_is_not_named():
    frame = pd.DataFrame({"text": ["from ada@home.org"]}, index=["eve@home.org"])
    with pytest.raises(UsageError, match="row 0, column 'text'") as caught, amr.settings(redact=raises):
        frame.amr.map("Read.", lm=amr.LM("m", base_url="http://127.0.0.1:9/v1", api_key="k"))
    assert "@" not in str(caught.value)


def test_a_function_that_fails_on_a_tools_result_ends_the_run_and_nothing_of_it_is_sent():
    script = partial(provider, turns=(Call("lookup", {"name": "x"}),))
    with ScriptedServer(script) as server, amr.settings(redact=raises):
        with pytest.raises(
            amr.AMRError, match="redact=raises raised ValueError.*a result of the tool 'lookup'"
        ) as caught:
            PAIR.tail(1).amr.map("Read.", tools=[lookup], lm=server.lm())
        assert "home" not in sent_by(server)
    assert "home" not in str(caught.value)


@pytest.mark.parametrize("verb", ["map", "reduce"])
def test_it_is_no_option_of_a_call_and_the_error_says_where_it_is_set(verb):
    with pytest.raises(UsageError, match=r"amr.configure\(redact=f\).*with amr.settings\(redact=f\)"):
        getattr(PAIR.amr, verb)("Read.", redact=mask, lm="local")


async def later(text: str) -> str:
    return text


class Later:
    async def __call__(self, text: str) -> str:
        return text


@pytest.mark.parametrize("value", ["mask", EMAIL, 1, later, Later(), [mask]])
def test_a_setting_that_is_no_plain_function_is_refused(value):
    for setting in (amr.configure, amr.settings):
        with pytest.raises(UsageError, match=r"redact=\.\.\.\) takes a plain function"):
            setting(redact=value)


def test_a_block_without_it_takes_the_processs_back():
    try:
        amr.configure(redact=mask)
        with ScriptedServer(provider) as server:
            PAIR.amr.map("Read.", lm=server.lm())
            with amr.settings(redact=None):
                PAIR.amr.map("Read.", lm=server.lm())
        first, second = server.requests
        assert "a@b.c" not in str(first.body)
        assert "a@b.c" in str(second.body)
    finally:
        amr.configure(redact=None)


# Plans


def test_a_plan_says_under_which_function_it_was_made_and_does_not_run_without_one(tmp_path):
    path = tmp_path / "plan.json"
    with ScriptedServer(provider) as server:
        with amr.settings(redact=mask):
            plan = PAIR.amr.plan(map="Read.", reduce="Sum up.", lm=server.lm())
        assert plan.redact == "mask"
        assert_no_secret(plan.to_json(path))
        for given in (plan, path, json.loads(path.read_text())):
            with pytest.raises(amr.PlanError, match=r"amr.configure\(redact=mask\).*plan.replace\(redact=None\)"):
                PAIR.amr.map_reduce(plan=given, lm=server.lm())
        assert server.requests == []
        with amr.settings(redact=names):
            assert PAIR.amr.map_reduce(plan=path, lm=server.lm()).plan.redact == "names"
        PAIR.amr.map_reduce(plan=plan.replace(redact=None), lm=server.lm())


def test_a_planner_is_not_told_of_the_function():
    with ScriptedServer(partial(provider, find=lambda unit: {"note": "n"})) as server, amr.settings(redact=mask):
        customers().amr.map_reduce("What?", plan={"redact": "mask", "shard_size": 6}, lm=server.lm())
    assert "redact" not in server.requests[0].user
