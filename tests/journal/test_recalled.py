"""What is recalled is checked, and is an answer to the very question: the same one, however its values are held."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import zlib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import openai
import pandas as pd
import pytest
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, field_validator
from test_journal import GOLDEN

import former
import pandas_amr as amr
from numbered import rows
from pandas_amr._findings.finding_type import FindingType
from pandas_amr._journal.cache import AnswerCache
from pandas_amr._journal.entries import Check, find_readable_form, read_findings
from pandas_amr._journal.first_format import make_former_base
from pandas_amr._journal.keys import Question, describe_address, describe_question, describe_type
from pandas_amr._map.cached import ShardWriter, piece_key
from pandas_amr._records.engine import submit
from pandas_amr._types.arrow_values import json_record
from pandas_amr._units.units import make_units
from pandas_amr.models.local import local_lm
from pandas_amr.models.openai.model import OpenAIModel
from pandas_amr.testing import ScriptedServer, findings


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "journal.sqlite"


def play(request: Any) -> Any:
    if request.schema == "reduction":
        return {"output": f"{len(request.findings)} findings", "sources": [0]}
    return findings(request, lambda unit: {"n": 5, "m": None})


def asked(server: ScriptedServer) -> int:
    """Count the units that were asked of the server."""
    return sum(len(request.units) for request in server.requests if request.schema in {"finding", "findings"})


def overwrite(path: Path, value: str, kind: str = "finding") -> None:
    """Write a value by hand over every entry of a kind, so that its check sum fits."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for (key,) in connection.execute("SELECT key FROM entries WHERE kind = ?", (kind,)).fetchall():
            new = (value, zlib.crc32(value.encode(), zlib.crc32(key)), key)
            connection.execute("UPDATE entries SET value = ?, checked = ? WHERE key = ?", new)
        connection.commit()


# The same question, or another one


def paid(path: Path, first: dict[str, Any], second: dict[str, Any]) -> int:
    """Count the units that a second call pays for, whose first call has been answered."""
    with ScriptedServer(play) as server:
        counts = []
        for call in (first, second):
            given = {"frame": rows(3), "instruction": "How many?", "finding": {"n": int}, "lm": {}} | call
            lm = server.lm(**given.pop("lm"))
            given.pop("frame").amr.map(given.pop("instruction"), lm=lm, journal=path, **given)
            counts.append(asked(server))
    return counts[1] - counts[0]


def held(*values: Any, dtype: Any = object) -> pd.DataFrame:
    return pd.DataFrame({"text": "row", "v": pd.Series(list(values), dtype=dtype)})


def prints(frame: pd.DataFrame) -> list[bytes]:
    return make_units(frame, tuple(range(len(frame.columns)))).fingerprints(range(len(frame)))


WHOLE = held(1, 2, 3, dtype="int64")

SAME_ROWS = {
    "an integer column as floats": (WHOLE, held(1, 2, 3, dtype="float64")),
    "an unsigned one": (WHOLE, held(1, 2, 3, dtype="uint8")),
    "a narrow one": (WHOLE, held(1, 2, 3, dtype="float32")),
    "a nullable one": (WHOLE, held(1, 2, 3, dtype="Int64")),
    "a nullable one of floats": (WHOLE, held(1, 2, 3, dtype="Float64")),
    "an Arrow one": (WHOLE, held(1, 2, 3, dtype="int64[pyarrow]")),
    "an Arrow one of floats": (WHOLE, held(1, 2, 3, dtype="double[pyarrow]")),
    "a category": (WHOLE, held(1, 2, 3, dtype="category")),
    "objects": (WHOLE, held(1, np.float64(2), np.int8(3))),
    "zeros of both signs": (held(0.0, dtype="float64"), held(-0.0, dtype="float64")),
    "bools": (held(True, False, dtype="bool"), held(True, False, dtype="boolean")),
    "missing values": (held(None, "a"), held(np.nan, "a")),
    "numbers in lists": (held([1, 2.0]), held((1.0, np.int64(2)))),
    "the order of a dict": (held({"a": 1, "b": [2]}), held({"b": [2.0], "a": 1})),
    "times of another unit": (held("2026-01-02", dtype="datetime64[s]"), held("2026-01-02", dtype="datetime64[ns]")),
    "the order of columns": (rows(2).assign(x=1.0), rows(2).assign(x=1)[["x", "text"]]),
    "a column's index": (rows(2), rows(2).set_axis(["a", "b"])),
}

SAME = {
    "an integer column with one missing value": (
        {"frame": held(1, 2, 3, dtype="int64")},
        {"frame": held(1, 2, None, dtype="float64").iloc[:2]},
    ),
    "temperature": ({"lm": {"temperature": 0}}, {"lm": {"temperature": 0.0}}),
    "numpy's temperature": ({"lm": {"temperature": 0.5}}, {"lm": {"temperature": np.float64(0.5)}}),
    "negative zero as temperature": ({"lm": {"temperature": 0}}, {"lm": {"temperature": -0.0}}),
    "seed": ({"lm": {"seed": 1}}, {"lm": {"seed": np.int64(1)}}),
    "most tokens": ({"lm": {"max_output_tokens": 50}}, {"lm": {"max_output_tokens": np.int32(50)}}),
    "extra_body": (
        {"lm": {"extra_body": {"top_p": 1, "x": {"a": 1, "b": [1]}}}},
        {"lm": {"extra_body": {"x": {"b": (np.int64(1),), "a": 1.0}, "top_p": np.float64(1)}}},
    ),
    "no extra_body": ({}, {"lm": {"extra_body": {}}}),
    "a bound": ({"finding": {"n": (int, Field(ge=0))}}, {"finding": {"n": (int, Field(ge=0.0))}}),
    "a type by another name": (
        {"finding": {"n": int}},
        {"finding": type("Other", (BaseModel,), {"__annotations__": {"n": int}})},
    ),
    "an agent without more": ({}, {"instruction": amr.Agent("How many?")}),
    "how requests are made": ({}, {"lm": {"max_tries": 2, "rpm": 1000, "timeout_s": 9, "prices": (1, 2)}}),
    "the key": ({}, {"lm": {"api_key": "another"}}),
    "the size of shards": ({}, {"plan": {"shard_size": 1, "parallelism": 2, "max_repairs": 3}}),
}  # fmt: skip

OTHER_ROWS = {
    "a bool and a number": (held(1, 0), held(True, False)),
    "a text and a number": (held(1, 2), held("1", "2")),
    "a decimal is a text": (held(1), held(Decimal("1.0"))),
    "a text that looks like a float": (held("1"), held("1.0")),
    "missing and its name": (held(None), held("None")),
    "missing and zero": (held(0.0), held(np.nan)),
    "another number": (held(1), held(1.5)),
    "beyond what a float holds": (held(2**53 + 1), held(float(2**53 + 1))),
    "a list and its only item": (held([1]), held(1)),
    "the order of a list": (held([1, 2]), held([2, 1])),
}

OTHER = {
    "the missing row alone": ({"frame": WHOLE}, {"frame": held(1, None, 3, dtype="float64")}, 1),
    "no temperature": ({"lm": {}}, {"lm": {"temperature": 0}}, 3),
    "another seed": ({"lm": {"seed": 1}}, {"lm": {"seed": 2}}, 3),
    "extra_body": ({"lm": {"extra_body": {"x": 1}}}, {"lm": {"extra_body": {"x": True}}}, 3),
    "the type of a field": ({"finding": {"n": int}}, {"finding": {"n": float}}, 3),
    "the order of fields": (
        {"finding": {"n": int, "m": int | None}},
        {"finding": {"m": int | None, "n": int}},
        3,
    ),
    "a role": ({}, {"instruction": amr.Agent("How many?", role="a clerk")}, 3),
    "a goal that reads as a role": (
        {"instruction": amr.Agent("How many?", role="a clerk")},
        {"instruction": amr.Agent("How many?", goal="a clerk")},
        3,
    ),
    "another model": ({"lm": {"journal_as": None}}, {"lm": {"journal_as": None, "model": "other"}}, 3),
    "a name for the journal": ({"lm": {"journal_as": None}}, {"lm": {"journal_as": "one"}}, 3),
    "another such name": ({"lm": {"journal_as": "one"}}, {"lm": {"journal_as": "two"}}, 3),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME_ROWS)
def test_a_row_is_the_same_however_its_values_are_held(case):
    one, other = SAME_ROWS[case]
    assert prints(one) == prints(other)
    many = pd.concat([other] * 50)  # many are rendered by columns, a few cell by cell
    assert prints(many) == prints(other) * 50


@pytest.mark.parametrize("case", OTHER_ROWS)
def test_a_row_of_other_values_is_another(case):
    one, other = OTHER_ROWS[case]
    assert not set(prints(one)) & set(prints(other))


@pytest.mark.parametrize("case", SAME)
@pytest.mark.sampled(4)
def test_the_same_question_is_paid_for_once(path, case):
    assert paid(path, *SAME[case]) == 0


@pytest.mark.parametrize("case", OTHER)
@pytest.mark.sampled(4)
def test_another_question_is_asked(path, case):
    first, second, units = OTHER[case]
    assert paid(path, first, second) == units


def test_code_sees_the_same_where_one_value_is_missing(path):
    """Of a column that is missing one value the dtype is another, and the other rows are known."""
    whole = rows(3).assign(n=[1, 2, 3], yes=[True, False, True], day=pd.Timestamp("2026-01-02"))
    holed = whole.astype({"n": float, "yes": object, "day": object})
    holed.loc[2, ["n", "yes", "day"]] = None
    options = {"tools": [amr.PythonREPLTool()], "finding": {"found": int}, "journal": path}
    with ScriptedServer(lambda request: findings(request, lambda unit: {"found": 1})) as server:
        for frame, units in ((whole, 3), (holed, 4), (holed.astype({"n": str}), 7)):
            frame.amr.map("How many?", lm=server.lm(), **options)
            assert asked(server) == units


def test_rows_of_equal_numbers_are_asked_once(path):
    """A model is shown 1 and 1.0, and the journal takes the answer to one as that to the other."""
    frame = pd.DataFrame({"v": [1, 1.0, True, "1", np.int8(1), Decimal("1.0"), [1], [1.0]]}, dtype=object)
    known = prints(frame)
    assert [known.index(one) for one in known] == [0, 0, 2, 3, 0, 5, 6, 6]
    with ScriptedServer(play) as server:
        frame.amr.map("How many?", finding={"n": int}, lm=server.lm(), journal=path)
        assert asked(server) == 5


def test_a_function_s_findings_do_not_depend_on_the_model_of_the_rest(path):
    calls = []

    def counts(frame):
        calls.append(len(frame))
        return [{"n": 1}] * len(frame)

    counts.amr_version = "1"
    maps = {"map": {"a": counts, "b": "How many?"}, "finding": {"a": {"n": int}, "b": {"n": int}}}
    with ScriptedServer(play) as server:
        for lm in (server.lm(), server.lm("other")):
            rows(3).amr.map_reduce(**maps, reduce={"a_n": "sum"}, lm=lm, journal=path)
        assert asked(server) == 6
    assert calls == [3]


def test_a_function_that_says_what_is_asked_is_known_by_what_it_says(path):
    def one(row):
        return f"How many of {row['text']}?"

    def two(row):
        return f"How many of {row['text']}?"

    def three(row):
        return f"How much of {row['text']}?"

    assert paid(path, {"instruction": amr.Agent(one)}, {"instruction": amr.Agent(two)}) == 0
    assert paid(path, {"instruction": amr.Agent(one)}, {"instruction": amr.Agent(three)}) == 3


def test_the_order_of_tools_is_no_other_question():
    def tool(name: str) -> amr.Tool:
        return amr.Tool(lambda x: x, name=name, description="d")

    lm, a, b = amr.LM("m"), tool("a"), tool("b")
    assert describe_question(Question(lm=lm, tools=[a, b])) == describe_question(Question(lm=lm, tools=[b, a]))
    assert describe_question(Question(lm=lm, tools=[a])) != describe_question(Question(lm=lm, tools=[b]))


def test_rows_around_are_three_whether_that_is_said_or_not(path):
    def plan(**more: Any) -> dict[str, Any]:
        return {"plan": {"segmentation": "neighbours", **more}}

    assert paid(path, plan(), plan(context_rows=3)) == 0
    assert paid(path, plan(), plan(context_rows=2)) == 3


@pytest.mark.parametrize("named", ["environment", "setting"])
def test_a_relative_path_that_is_set_once_means_one_file(tmp_path, monkeypatch, named):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    monkeypatch.chdir(first)
    name = f"{tmp_path.name}.sqlite"
    settings = {}
    if named == "environment":
        monkeypatch.setenv("AMR_JOURNAL", name)
    else:
        settings = {"journal": name}
    with ScriptedServer(play) as server, amr.settings(**settings):
        for folder in (first, second):
            monkeypatch.chdir(folder)
            rows(2).amr.map("How many?", finding={"n": int}, lm=server.lm())
        assert asked(server) == 2
    assert [part.name for part in first.glob("*.sqlite")] == [name]
    assert not list(second.iterdir())


# Where the model answers


def test_another_address_is_another_question_unless_both_have_one_name(path):
    with ScriptedServer(play) as one, ScriptedServer(play) as two:
        for server, name in ((one, None), (two, None), (one, None), (one, "m"), (two, "m"), (two, "n")):
            rows(2).amr.map("How many?", finding={"n": int}, lm=server.lm(journal_as=name), journal=path)
        assert (asked(one), asked(two)) == (4, 4)
        addresses = {one.base_url, two.base_url}
    abouts = [json.loads(about) for about in amr.Journal(path).export()["about"].unique()]
    assert {about["server"] for about in abouts if "server" in about} == addresses
    assert {about["model"] for about in abouts if "server" in about} == {"scripted"}
    assert {about["journal_as"] for about in abouts if "server" not in about} == {"m", "n"}


def test_the_environment_s_address_is_the_same_as_the_one_that_is_said(path, monkeypatch):
    with ScriptedServer(play) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.base_url}/")
        for address in (None, server.base_url, server.base_url.replace("http:", "HTTP:")):
            lm = amr.LM("m", base_url=address, api_key="k")
            rows(2).amr.map("How many?", finding={"n": int}, lm=lm, journal=path)
        assert asked(server) == 2


def test_a_client_of_one_s_own_is_known_by_its_address():
    client = openai.AsyncOpenAI(api_key="k", base_url="HTTPS://Host:443/v1/")
    for lm in (amr.LM("m", client=client), amr.LM("m", base_url="https://host/v1", api_key="other")):
        assert describe_address(OpenAIModel(lm).server) == "https://host/v1"
    assert describe_address(OpenAIModel(amr.LM("m", api_key="k")).server) == "https://api.openai.com/v1"


ALIKE = [
    ("http://h:8000/v1", "HTTP://H:8000/v1/"),
    ("http://h/v1", "http://h:80/v1"),
    ("https://h/v1", "https://h.:443/v1//"),
    ("https://h", "https://h/"),
    ("https://h/v1", "https://me:secret@h/v1#part"),
    ("http://[::1]/v1", "http://[::1]:80/v1/"),
    ("http://h/v1?a=b", "http://h/v1/?a=b/"),
]
UNLIKE = [
    ("http://h/v1", "https://h/v1"),
    ("http://h/v1", "http://h:443/v1"),
    ("http://h/v1", "http://h/V1"),
    ("http://h/v1", "http://h/v2"),
    ("http://h/v1", "http://h"),
    ("http://h:8000/v1", "http://h:8001/v1"),
    ("http://h/v1", "http://i/v1"),
    ("http://h/v1", "http://h/v1?a=b"),
    ("http://h/v1?a=b", "http://h/v1?a=c"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_an_address_has_one_form(one, other):
    assert describe_address(one) == describe_address(other)


@pytest.mark.parametrize(("one", "other"), UNLIKE)
def test_another_address_has_another_form(one, other):
    assert describe_address(one) != describe_address(other)


def test_an_address_tells_no_secret(path):
    with ScriptedServer(play) as server:
        client = openai.AsyncOpenAI(base_url=server.base_url, api_key="sk-key", default_query={"key": "sk-query"})
        lm = amr.LM("scripted", client=client)
        rows(2).amr.map("How many?", finding={"n": int}, lm=lm, journal=path)
        submit(client.close()).result()
        with pytest.raises(amr.UsageError, match=r"without \? and #"):
            server.lm(base_url=f"{server.base_url}?key=sk-query")
    raw = b"".join(part.read_bytes() for part in path.parent.iterdir())
    assert b"How many?" in raw
    assert b"sk-" not in raw
    assert "sk-" not in describe_address("https://sk-me:sk-secret@h/v1")


def test_azure_s_deployment_is_part_of_the_address():
    def address(model: str, **options: Any) -> str:
        given = {"api_key": "k", "api_version": "2024-10-21", "azure_endpoint": "https://Name.openai.azure.com/"}
        return describe_address(OpenAIModel(amr.LM(model, client=openai.AsyncAzureOpenAI(**given | options))).server)

    known = address("d")
    assert known == "https://name.openai.azure.com/openai/deployments/d"
    assert address("d", azure_endpoint="https://name.openai.azure.com") == known
    assert address("d", azure_deployment="d") == known
    assert address("m", azure_deployment="d") == known
    assert address("e") != known
    assert address("d", azure_endpoint="https://other.openai.azure.com") != known


def test_the_embedded_model_is_the_same_wherever_it_listens():
    pytest.importorskip("xllamacpp")
    try:
        lm = local_lm()
    except amr.ModelConfigError as error:
        pytest.skip(str(error))
    about = describe_question(Question(lm=lm, server=str(lm.base_url)))
    assert about["journal_as"] == "local smollm2-135m-instruct"
    assert "127.0.0.1" not in json.dumps(about)


@pytest.mark.parametrize("wrong", ["", "  ", 1, ["m"], b"m"], ids=repr)
def test_a_name_for_the_journal_is_a_text(wrong):
    with pytest.raises(amr.UsageError, match=r"LM\(journal_as=...\) takes a name"):
        amr.LM("m", journal_as=wrong)


# Findings


class Plain(BaseModel):
    n: int


def bounded(most: int) -> type[BaseModel]:
    """The same schema, and a validator that no schema tells of."""

    class Plain(BaseModel):
        n: int

        @field_validator("n")
        @classmethod
        def at_most(cls, n: int) -> int:
            if n > most:
                raise ValueError("too many")
            return n

    return Plain


def scaled(factor: int) -> type[BaseModel]:
    """The same schema, and a validator that changes what it accepts."""

    class Plain(BaseModel):
        n: int

        @field_validator("n")
        @classmethod
        def times(cls, n: int) -> int:
            return n * factor

    return Plain


def found(path: Path, kind: Any, answer: Any = 5, **options: Any) -> tuple[list[Any], int]:
    """What a run finds, and how many requests it took."""
    with ScriptedServer(lambda request: findings(request, lambda unit: {"n": answer})) as server:
        given = {"frame": rows(3), "finding": kind, "lm": server.lm(), "journal": path} | options
        frame = given.pop("frame").amr.map("How many?", **given)
        return frame["n"].tolist(), len(server.requests)


def test_what_today_s_validators_refuse_is_asked_again_once(path):
    assert found(path, Plain) == ([5, 5, 5], 1)
    assert found(path, bounded(9)) == ([5, 5, 5], 0)
    assert found(path, bounded(4), answer=3) == ([3, 3, 3], 1)
    assert found(path, bounded(4)) == ([3, 3, 3], 0)
    assert found(path, Plain) == ([3, 3, 3], 0)


def test_only_what_is_refused_is_asked_again(path):
    def numbered(request: Any) -> Any:
        return findings(request, lambda unit: {"n": int(unit["text"][-1])})

    with ScriptedServer(numbered) as server:
        rows(5).amr.map("How many?", finding=Plain, lm=server.lm(), journal=path)
    with ScriptedServer(numbered) as server, pytest.warns(amr.FailureWarning):
        frame = rows(5).amr.map("How many?", finding=bounded(2), lm=server.lm(), journal=path)
    assert frame["n"].tolist()[:3] == [0, 1, 2]
    assert frame["n"].isna().tolist() == [False] * 3 + [True] * 2
    assert {unit["text"] for request in server.requests for unit in request.units} == {"row 3", "row 4"}


def test_what_validators_change_is_changed_once_and_as_today_s_do(path):
    assert found(path, scaled(100)) == ([500] * 3, 1)
    assert found(path, scaled(100)) == ([500] * 3, 0)
    assert found(path, scaled(10)) == ([50] * 3, 0)
    assert found(path, Plain) == ([5] * 3, 0)


DAMAGED = [
    '{"n":"five"}',
    '{"n":5.5}',
    '{"n":null}',
    '{"n":[5]}',
    '{"m":5}',
    "{}",
    "[5]",
    "5",
    "null",
    "",
    '{"n":5',
    '{"n":9223372036854775808}',
    "[" * 100_000,
]


@pytest.mark.parametrize("value", DAMAGED, ids=lambda value: value[:12] or "nothing")
def test_what_is_no_finding_is_not_read(value):
    texts = {1: value, 2: '{"n":5}'}
    assert read_findings(texts, Check(FindingType.of(Plain, None))) == {2: {"n": 5}}
    assert read_findings(texts, Check(FindingType.of(Plain, None), made=True)) == {2: {"n": 5}}
    assert read_findings(texts, Check(FindingType.of(Plain, None)), former=True) == {2: {"n": 5}}


@pytest.mark.parametrize("value", ['{"n":"five"}', '{"m":5}', "[5]", "x"])
def test_a_finding_that_was_changed_by_hand_to_none_is_asked_again_once(path, value):
    found(path, Plain)
    overwrite(path, value)
    assert found(path, Plain, answer=6) == ([6] * 3, 1)
    assert found(path, Plain) == ([6] * 3, 0)


def test_findings_of_a_list_and_of_a_shard_known_as_a_whole_are_checked(path):
    groups = {"plan": {"segmentation": "groups", "group_columns": ["group"]}}
    cases = {
        "many": (list[Plain], list[bounded(4)], {}, lambda n: {"items": [{"n": n}]}),
        "groups": (Plain, bounded(4), groups, lambda n: {"n": n}),
    }
    frame = rows(4).assign(group=list("aabb"))
    for name, (kind, stricter, options, form) in cases.items():
        for given, n, expected in ((kind, 5, 4), (kind, 5, 0), (stricter, 3, 4), (stricter, 3, 0)):
            script = lambda request, n=n, form=form: findings(request, lambda unit: form(n))  # noqa: E731
            with ScriptedServer(script) as server:
                journal = path.with_name(name)
                frame.amr.map("How many?", finding=given, lm=server.lm(), journal=journal, **options)
                assert asked(server) == expected, (name, n)


def test_a_function_s_findings_are_checked(path):
    calls = []

    def counts(frame):
        calls.append(len(frame))
        return [{"n": 5}] * len(frame)

    counts.amr_version = "1"

    def again(kind: type[BaseModel], journal: Path = path) -> tuple[list[int], int]:
        calls.clear()
        frame = rows(3).amr.map_reduce(map=counts, finding=kind, reduce={"n": "sum"}, journal=journal).frame
        return frame["n"].tolist(), sum(calls)

    assert again(Plain) == ([5] * 3, 3)
    assert again(bounded(9)) == ([5] * 3, 0)
    assert again(scaled(10)) == ([50] * 3, 0)  # what the function gave is 5
    overwrite(path, '{"n":"five"}')
    assert again(Plain) == ([5] * 3, 3)
    assert again(Plain) == ([5] * 3, 0)
    other = path.with_name("other")
    assert again(scaled(10), other) == ([50] * 3, 3)
    assert again(scaled(10), other) == ([50] * 3, 3)  # 50 would be read as 500: it is not kept


def test_the_findings_of_pieces_are_checked(path):
    long = pd.DataFrame({"text": ["A sentence about row 1. " * 100]})
    tight = {"frame": long, "plan": {"shard_tokens": 300}}
    values, pieces = found(path, Plain, **tight)
    assert values == [5]
    assert pieces > 1
    assert found(path, bounded(9), **tight) == ([5], 0)
    assert found(path, bounded(4), answer=3, **tight) == ([3], pieces)
    assert found(path, bounded(4), **tight) == ([3], 0)
    check = Check(FindingType.of(Plain, None))

    async def known() -> dict[int, Any]:
        cache = AnswerCache(amr.Journal(path), "finding", {"x": 1}, 0)
        writer = ShardWriter(cache, check, make_units(long, (0,)), {})
        await writer.keep_pieces({'{"a": 1.0}': {"n": 1}}, {})
        await cache.keep({piece_key(cache, '{"a": 2}'): {"n": "two"}})
        return await writer.recall_pieces(['{"a": 2}', '{"a": 1}', '{"a": 3}'])

    assert asyncio.run(known()) == {1: {"n": 1}}


def planning(request: Any) -> Any:
    if request.schema == "plan":
        return {
            "map_instruction": "How many?",
            "finding": [{"name": "n", "type": "int", "description": "", "choices": []}],
            "shard_size": 10,
            "parallelism": 1,
            "aggregations": [],
            "reduce_instruction": "Say it.",
        }
    return play(request)


@pytest.mark.parametrize("value", ["{}", "[]", '{"output":1,"sources":[0]}', '{"output":"x","sources":[99]}', "x"])
@pytest.mark.parametrize("kind", ["plan", "reduction"])
@pytest.mark.sampled(3)
def test_a_plan_or_reduction_that_was_changed_by_hand_is_asked_again_once(path, kind, value):
    def again() -> tuple[list[str], int]:
        with ScriptedServer(planning) as server:
            result = rows(3).amr.map_reduce("How many are there?", lm=server.lm(), journal=path)
            assert result.output == "3 findings"
            return [request.schema for request in server.requests], result.total.recalled

    again()
    overwrite(path, value, kind)
    assert again() == ([kind], 4)
    assert again() == ([], 5)


def test_who_waits_for_an_answer_that_was_damaged_gets_the_new_one(path):
    with ScriptedServer(planning) as server:
        rows(3).amr.map_reduce("How many are there?", lm=server.lm(), journal=path)
    overwrite(path, "{}", "plan")
    overwrite(path, "{}", "reduction")
    with ScriptedServer(planning, latency_s=0.1) as server:
        runs = [rows(3).amr.start("How many are there?", lm=server.lm(), journal=path) for _ in range(3)]
        assert {run.result().output for run in runs} == {"3 findings"}
        assert sorted(request.schema for request in server.requests) == ["plan", "reduction"]


def test_a_reduction_of_floats_that_were_whole_numbers_is_known(path):
    with ScriptedServer(play) as server:
        for dtype in ("int64", "float64"):
            pd.DataFrame({"v": [1, 2]}).astype(dtype).amr.reduce("Say it.", lm=server.lm(), journal=path)
        assert len(server.requests) == 1


# The form of a finding


EXPECTED = {
    "whole": 1,
    "real": 2.0,
    "words": "t\u2028\u00fc",
    "yes": True,
    "day": "2026-01-02",
    "moment": "2026-01-02T03:04:05.000006",
    "clock": "03:04:05",
    "long": "P1DT1M30S",
    "exact": "12345.678900001",
    "kind": "a",
    "number": 2,
    "many": ["2026-01-02", "2026-01-03"],
    "some": ["a", "b"],
    "inner": {"on": "2026-01-02", "much": "1.5", "named": {"x": "2.5"}},
    "items": [{"on": "2026-01-02", "much": "1.5", "named": {"x": "2.5"}}] * 2,
    "named": {"x": 1.5, "a": 2.0},
    "free": {"y": [1, None, "2"], "z": {}},
    "whatever": [1, "two"],
    "perhaps": None,
    "default": None,
}


def test_a_record_has_the_form_in_which_a_model_would_have_given_it():
    check = Check(FindingType.of(former.Everything, None))
    record = check(former.EVERYTHING)
    assert json_record(record, former.Everything) == EXPECTED
    assert check.is_stable(EXPECTED, record)
    assert find_readable_form(record, check) == EXPECTED
    assert find_readable_form(record, check, former.EVERYTHING) is former.EVERYTHING


class Choice(BaseModel):
    mixed: Literal[1, 2, "many"]
    doubtful: Literal[1, "1"]


def test_a_text_of_the_first_format_that_may_be_two_choices_is_none_of_them():
    form = json_record({"mixed": "1", "doubtful": "1"}, Choice, former=True)
    assert form == {"mixed": 1, "doubtful": "1"}
    texts = {n: json.dumps({"mixed": mixed, "doubtful": "1"}) for n, mixed in enumerate(["3", 2.5, None])}
    assert read_findings(texts, Check(FindingType.of(Choice, None)), former=True) == {}


# Keys


class Zoned(BaseModel):
    """A moment."""

    at: AwareDatetime
    inner: former.Inner


def test_keys_are_those_of_every_version_from_the_second_format_on():
    """They change neither with what is sent on the wire nor with prompts; a change here asks everything again."""
    assert describe_type(former.Inner)["properties"]["on"] == {"format": "date", "type": "string", "name": "when"}
    tool = amr.Tool(former.look_up, version="2")
    lm = amr.LM("m", temperature=0, extra_body={"top_p": 1})
    about = describe_question(
        Question(
            parts={"instruction": "How many?", "view": "inline", "merge": {}, "alone": False},
            finding=former.Everything,
            agent=former.AGENT,
            lm=lm,
            server="https://api.openai.com/v1/",
            tools=[tool],
        )
    )
    assert sorted(about) == [
        "extra", "finding", "instruction", "model", "persona", "server", "temperature", "tools", "view"
    ]  # fmt: skip
    assert AnswerCache(None, "finding", about, 0).base.hex() == BASES[0]
    zoned = describe_question(Question(finding=Zoned))
    assert zoned["finding"]["properties"]["at"]["zone"] == "aware"
    assert AnswerCache(None, "finding", zoned, 0).base.hex() == BASES[1]


def test_keys_of_the_first_format_are_those_of_then():
    about = {"instruction": "The number.", "schema": {"type": "object"}, "model": "m", "temperature": 0, "tools": []}
    keeper = AnswerCache(None, "finding", about, 0, former=about)
    prints = make_units(GOLDEN, (0, 1, 2, 3, 4)).fingerprints(range(3), former=True)
    assert [one.hex() for one in prints] == FORMER_PRINTS
    assert make_former_base("finding", about).hex() == "95271766ebbfc137859c1af45877f69e"
    assert keeper.key(prints[0], former=True).hex() == "bafbe54a6b97855a6a4dcd5084ab5788"
    assert keeper.key(prints[0]) != keeper.key(prints[0], former=True)


BASES = ["361feafc7f13c6b3e9d91a2ff16d3234", "818884688e1f7d55c2f4968ef5b461b5"]
FORMER_PRINTS = [
    "15912931b44d6ae9280a33e3de7e7bee",
    "f0e4b71fd693c5d90712a1add290023b",
    "eb5afab020fea2282c19090821f5aeee",
]


# The first format


@pytest.fixture
def old(tmp_path) -> Path:
    """The journal that the code before the second format wrote."""
    path = tmp_path / "old.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(former.DUMP.read_text())
    return path


def served(name: str, old: Path) -> None:
    """Check that a call is answered as it was then, and that nothing is asked."""
    with ScriptedServer(former.play) as server:
        before = former.run(name, server, False)
        server.requests.clear()
        result = former.run(name, server, old)
        assert server.requests == []
    pd.testing.assert_frame_equal(result.frame, before.frame)
    assert str(result.output) == str(before.output)
    is_read = result.status["status"] != "empty"  # what has no content was asked then, and is no more
    assert set(result.status["status"][is_read]) == {"ok"}
    assert result.status["from_journal"][is_read].all()
    assert result.total.recalled >= is_read.sum()
    assert amr.Journal(old).verify() == []


@pytest.mark.parametrize("name", [name for name in former.CALLS if name != "code"])
@pytest.mark.sampled(4)
def test_a_journal_of_the_first_format_serves(old, name):
    served(name, old)


@pytest.mark.usefixtures("sandboxed")
def test_what_code_found_and_asked_is_in_a_journal_of_the_first_format(old):
    served("code", old)


def lined(line: int) -> Any:
    return lambda request: findings(request, lambda unit: {"items": [{"name": "f", "line": line}] * unit["size"]})


def above_one(line: int) -> int:
    if line <= 1:
        raise ValueError("too small")
    return line


def one_more(line: int) -> int:
    return line + 1


@pytest.mark.parametrize(("validator", "expected"), [(above_one, 20), (one_more, 30)])
def test_what_was_found_in_the_first_format_is_checked_and_asked_again_once(old, validator, expected):
    """It was written after its validators had seen it: what today's would change once more is asked again, too."""

    class Called(BaseModel):
        name: str
        line: Annotated[int, AfterValidator(validator)]

    for units in (4, 0):
        with ScriptedServer(lined(2)) as server:
            result = former.run("none or many", server, old, finding=list[Called])
            assert (asked(server), int(result.output["line"])) == (units, expected)


@pytest.mark.parametrize("value", ['{"items":[{"name":"f"}]}', '{"items":"x"}', '{"other":[]}', "[]", "", "null"])
def test_what_was_damaged_in_the_first_format_is_asked_again_once(old, value):
    overwrite(old, value)
    for units in (4, 0):
        with ScriptedServer(lined(2)) as server:
            result = former.run("none or many", server, old)
            assert (asked(server), int(result.output["line"])) == (units, 20)


def test_answers_of_the_first_format_are_in_use_and_so_are_not_pruned(old):
    journal = amr.Journal(old)
    count = len(journal)
    with ScriptedServer(former.play) as server:
        former.run("named maps", server, journal)
        assert 0 < journal.prune(keep=1) <= count - 8
        former.run("named maps", server, journal)
        assert server.requests == []
        former.run("named maps", server, amr.Journal(old, refresh=True))
        assert asked(server) == 8
        before = len(server.requests)
        former.run("named maps", server, journal)
        assert len(server.requests) == before


def test_a_journal_without_the_question_is_not_asked_for_the_first_format(path):
    with ScriptedServer(former.play) as server:
        former.run("an agent", server, path)
    keeper = AnswerCache(amr.Journal(path), "finding", {"x": 1}, 0, former={"x": 1})
    assert asyncio.run(keeper.has_former()) is False
    about = amr.Journal(path).export()["about"].map(json.loads)
    assert all("schema" not in one for one in about)
