"""What is sent is the strictest subset that every provider takes; what is refused is refused once, and learned."""

from __future__ import annotations

import datetime as dt
import enum
import json
import uuid
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, HttpUrl
from typing_extensions import NotRequired, TypedDict  # noqa: UP035 (pydantic takes no other below 3.12)

import pandas_amr as amr
from examples import examples
from numbered import number
from pandas_amr._findings.finding_type import FindingType
from pandas_amr._findings.output import ReductionType
from pandas_amr._types.record import record_type
from pandas_amr._types.schema import stored_schema
from pandas_amr._types.violations import Leniency, find_violation
from pandas_amr._types.wire import make_wire
from pandas_amr._types.wire_shapes import MOST_LEVELS, inline_references
from pandas_amr.models.openai.error_bodies import read_error_body
from pandas_amr.models.openai.settings import settings_of
from pandas_amr.models.structured.forms import Form
from pandas_amr.models.structured.support import FIRST_FORMS, schema_support_of
from pandas_amr.testing import Call, Raw, ScriptedServer, Status, findings
from versions import once

pytestmark = [
    once,
    pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning"),
    pytest.mark.usefixtures("no_time_passes"),  # requests wait two seconds for an answer to the first of their kind
]

ROWS = 16
DF = pd.DataFrame({"text": [f"row {n}" for n in range(ROWS)]})
ONE = DF.head(1)


# The subset, written down a second time


TYPES = {"object", "array", "string", "integer", "number", "boolean", "null"}
BESIDE = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items"},
    "string": {"enum"},
}


def outside(schema: Any, path: str = "$") -> list[str]:
    """What in a sent schema is outside of the subset."""
    if "anyOf" in schema:
        wrong = [f"{path}: {key}" for key in schema.keys() - {"anyOf", "description"}]
        assert len(schema["anyOf"]) > 1, path
        return wrong + [one for n, part in enumerate(schema["anyOf"]) for one in outside(part, f"{path}|{n}")]
    kind = schema.get("type")
    if kind not in TYPES:
        return [f"{path}: type {kind}"]
    wrong = [f"{path}: {key}" for key in schema.keys() - BESIDE.get(kind, set()) - {"type", "description"}]
    if not isinstance(schema.get("description", "x"), str) or not schema.get("description", "x"):
        wrong.append(f"{path}: description")
    if kind == "object":
        if schema.get("additionalProperties") is not False or schema["required"] != list(schema["properties"]):
            wrong.append(f"{path}: open")
        for name, part in schema["properties"].items():
            wrong += outside(part, f"{path}.{name}")
    if kind == "array":
        wrong += outside(schema["items"], f"{path}[]")
    if "enum" in schema and not (schema["enum"] and all(isinstance(one, str) for one in schema["enum"])):
        wrong.append(f"{path}: enum")
    return wrong


def nodes(schema: Any) -> list[Any]:
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", ())]
    inner += [schema["items"]] if "items" in schema else []
    return [schema, *(one for part in inner for one in nodes(part))]


def depth(schema: Any) -> int:
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", ())]
    inner += [schema["items"]] if "items" in schema else []
    return (schema.get("type") in {"object", "array"}) + max((depth(part) for part in inner), default=0)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(ge=1, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: dict[str, int] = {}


class Nothing(BaseModel):
    pass


class Point(NamedTuple):
    x: float
    name: str


class Keyed(TypedDict):
    a: int
    b: NotRequired[str]


class Defaults(BaseModel):
    n: int = 5
    note: str | None = None
    many: list[Color] = Field(default_factory=list, max_length=3)


def deep(levels: int) -> Any:
    kind: Any = int
    for _ in range(levels):
        kind = dict[str, list[kind]]
    return kind


KINDS: dict[str, Any] = {
    "text": Annotated[str, Field(min_length=1, max_length=9)],
    "pattern": Annotated[str, Field(pattern="^[a-z]+$")],
    "number": Annotated[float, Field(ge=0, le=1)],
    "steps": Annotated[int, Field(gt=0, lt=10, multiple_of=3)],
    "enum": Color,
    "numbers to choose": Literal[1, 2, 3],
    "bools to choose": Literal[True],
    "IntEnum": Level,
    "mixed choices": Literal[1, "a", True, 2, "b", None],
    "one choice": Literal["a"],
    "nullable": int | None,
    "nullable choices": Literal["a", "b"] | None,
    "date": dt.date,
    "times": tuple[dt.datetime, dt.time, dt.timedelta],
    "decimal": Decimal,
    "uuid": uuid.UUID,
    "url": HttpUrl,
    "list": Annotated[list[int], Field(min_length=1, max_length=2)],
    "bare list": list,
    "set": set[str],
    "tuple": tuple[int, str, Literal["a"]],
    "pair": tuple[float, float],
    "empty tuple": tuple[()],
    "open tuple": tuple[int, ...],
    "named tuple": Point,
    "dict": dict[str, int],
    "bounded dict": Annotated[dict[str, int], Field(min_length=1, max_length=2)],
    "dict by choice": dict[Color, float],
    "dict by number": dict[int, str],
    "dict by pattern": dict[Annotated[str, Field(pattern="^x")], int],
    "dict of dicts": dict[str, dict[str, list[dict[str, int]]]],
    "dict or list": dict[str, int] | list[int] | None,
    "bare dict": dict,
    "anything": Any,
    "list of anything": list[Any],
    "dict of anything": dict[str, Any],
    "anything or int": Any | int,
    "models": Cat | Dog,
    "told apart": Annotated[Cat | Dog, Field(discriminator="kind")],
    "no fields": Nothing,
    "typed dict": Keyed,
    "defaults": Defaults,
    "deep": deep(12),
    "deep or text": deep(6) | str,
}


@pytest.mark.parametrize("name", KINDS)
def test_all_that_is_sent_is_of_the_subset(name):
    kind = KINDS[name]
    sent = [make_wire(stored_schema(record_type("F", {"x": kind}))), ReductionType(kind).submission().wire]
    sent.append(ReductionType(list[kind]).submission().wire)
    for wire in sent:
        assert outside(wire.schema) == []
        assert depth(wire.schema) <= MOST_LEVELS
        assert wire.strict
        json.dumps(wire.schema)


OF_NO_COLUMN = {"mixed choices", "times", "tuple", "empty tuple", "named tuple", "dict or list", "anything or int"}
HOLDABLE = KINDS.keys() - OF_NO_COLUMN - {"models", "told apart", "deep or text"}


@pytest.mark.parametrize("name", sorted(HOLDABLE))
@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.sampled(3)
def test_findings_are_sent_in_the_subset_whatever_their_fields_are(name, alone):
    kind = FindingType.of(record_type("F", {"x": KINDS[name]}), None)
    assert outside(kind.submission(alone=alone).wire.schema) == []
    assert outside(kind.submission(alone=alone).tool.parameters) == []


WORDS = [
    (Annotated[str, Field(min_length=1)], ["at least 1 character"]),
    (Annotated[str, Field(min_length=2, max_length=9)], ["at least 2 characters", "at most 9 characters"]),
    (Annotated[str, Field(pattern="^[a-z]+$")], ["matching ^[a-z]+$"]),
    (Annotated[float, Field(ge=0, le=1)], ["from 0 to 1"]),
    (Annotated[int, Field(gt=0, multiple_of=3)], ["above 0", "a multiple of 3"]),
    (Literal[1, 2, 3], ["one of 1, 2, 3"]),
    (dt.date, ["date such as 2026-01-31"]),
    (Annotated[list[int], Field(min_length=1)], ["at least 1 item"]),
    (set[str], ["no item twice"]),
    (tuple[int, str], ["exactly 2 items", "item 1: integer", "item 2: text"]),
    (dict[str, int], ["each key once"]),
    (Annotated[dict[str, int], Field(min_length=1)], ["at least 1 entry"]),
    (Annotated[int, Field(description="How many.", ge=1)], ["How many.", "at least 1"]),
    (Annotated[str, Field(examples=["a b"])], ['for example "a b"']),
    (Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})], ['contentEncoding: "base64"']),
]


@pytest.mark.parametrize(("kind", "words"), WORDS, ids=[" ".join(words) for _, words in WORDS])
def test_what_the_subset_cannot_say_stands_in_words(kind, words):
    sent = make_wire(stored_schema(record_type("F", {"x": kind}))).schema["properties"]["x"]
    assert [word for word in words if word not in sent["description"]] == []


# Limits


def test_the_largest_enums_are_words_where_there_are_too_many_choices():
    fields = {f"f{n}": Literal[tuple(f"{n}-{one}" for one in range(240))] for n in range(5)}
    fields["large"] = Literal[tuple(f"{one:0100d}" for one in range(251))]
    wire = make_wire(stored_schema(record_type("F", fields)))
    enums = [node for node in nodes(wire.schema) if "enum" in node]
    assert sum(len(node["enum"]) for node in enums) <= 1000
    assert "enum" not in wire.schema["properties"]["large"]
    assert '"0-239"' in json.dumps(wire.schema).replace('\\"', '"')
    assert len(enums) == 4
    assert outside(wire.schema) == []
    assert wire.strict


@pytest.mark.long
def test_more_properties_than_a_server_takes_are_asked_for_in_words():
    wire = make_wire(stored_schema(record_type("F", {f"f{n}": int for n in range(5001)})))
    assert not wire.strict


@pytest.mark.parametrize("levels", range(1, 9))
def test_what_is_too_deep_is_json_text_and_read_as_what_it_is(levels):
    kind = deep(levels)
    wire = make_wire(stored_schema(record_type("F", {"x": kind})))
    value: Any = 1
    for _ in range(levels):
        value = {"a": [value]}
    assert depth(wire.schema) <= MOST_LEVELS
    assert wire.read({"x": value}) == {"x": value}
    assert wire.read({"x": asked(value, wire.schema["properties"]["x"])}) == {"x": value}


# The way back


def asked(value: Any, sent: Any) -> Any:
    """A value in the form in which a schema asks for it: what a strict server makes a model give."""
    if "anyOf" in sent:
        parts = [part for part in sent["anyOf"] if part.get("type") != "string" or isinstance(value, str)]
        said = [asked(value, part) for part in parts]
        return next(one for one, part in zip(said, parts, strict=True) if fits(one, part))
    match sent["type"]:
        case "string" if not isinstance(value, str):
            return json.dumps(value)
        case "array" if isinstance(value, dict):
            item = sent["items"]["properties"]
            return [{"key": key, "value": asked(one, item["value"])} for key, one in value.items()]
        case "array" if isinstance(value, list):
            return [asked(one, sent["items"]) for one in value]
        case "object" if list(sent["properties"]) == ["entries"] and isinstance(value, dict):
            return {"entries": asked(value, sent["properties"]["entries"])}
        case "object" if list(sent["properties"]) == ["json"] and isinstance(value, dict | list):
            return {"json": json.dumps(value)}
        case "object" if isinstance(value, dict):
            return {name: asked(one, sent["properties"][name]) for name, one in value.items()}
    return value


def fits(value: Any, sent: Any) -> bool:
    return find_violation(value, sent, Leniency(empty_texts=True)) is None


TEXTS = st.text(st.characters(codec="utf-8"), max_size=4)
LEAVES = st.sampled_from([(int, st.integers(-9, 9)), (str, TEXTS), (bool, st.booleans())])


def containers(inner: Any) -> Any:
    def lists(one: Any) -> Any:
        return list[one[0]], st.lists(one[1], max_size=3)

    def dicts(one: Any) -> Any:
        return dict[str, one[0]], st.dictionaries(TEXTS, one[1], max_size=3)

    def maybe(one: Any) -> Any:
        return one[0] | None, st.none() | one[1]

    return inner.map(lists) | inner.map(dicts) | inner.map(maybe)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
TYPED = st.recursive(LEAVES | st.just((Any, JSON_VALUES)), containers, max_leaves=4)


@settings(max_examples=examples(100))
@given(st.data())
def test_what_is_asked_of_a_value_is_read_back_as_the_value(data):
    kind, values = data.draw(TYPED)
    value = data.draw(values)
    wire = make_wire(stored_schema(record_type("F", {"x": kind})))
    said = asked({"x": value}, wire.schema)
    assert find_violation(said, wire.schema, Leniency(empty_texts=True)) is None
    assert wire.read(said) == {"x": value}
    if not {"json", "key"} & set(json.dumps(value).split('"')):
        assert wire.read({"x": value}) == {"x": value}  # servers that promise nothing give it as it is


READ = [
    (dict[str, int] | list[int], {"entries": [{"key": "a", "value": 1}]}, {"a": 1}),
    (dict[str, int] | list[int], [1], [1]),
    (dict[str, int] | list[int], {"entries": 1}, {"entries": 1}),
    (dict[int, str], [{"key": 1, "value": "x"}], {"1": "x"}),
    (tuple[dict[str, int], int], [[{"key": "a", "value": 1}], 2], [{"a": 1}, 2]),
    (Cat | Dog, {"kind": "dog", "tricks": [{"key": "a", "value": 1}]}, {"kind": "dog", "tricks": {"a": 1}}),
    (Any, {"json": "[1]"}, [1]),
    (Any, {"json": "1"}, {"json": "1"}),
    (Any, {"json": "[1"}, {"json": "[1"}),
    (Any, "[1]", "[1]"),
    (dict[str, Any], [{"key": "a", "value": {"json": '{"b": 1}'}}], {"a": {"b": 1}}),
    (dict[str, int], [{"key": "a"}], [{"key": "a"}]),
    (dict[str, int], None, None),
]


@pytest.mark.parametrize(("kind", "said", "value"), READ, ids=str)
def test_what_a_model_says_is_read(kind, said, value):
    assert make_wire(stored_schema(record_type("F", {"x": kind}))).read({"x": said}) == {"x": value}


def found(kind: Any, *answers: Any, **options: Any) -> tuple[amr.Result, list[Any]]:
    """What comes of one row whose field ``x`` is answered so, one request after the other."""

    def provider(request):
        return findings(request, lambda unit: {"x": answers[min(request.number, len(answers) - 1)]})

    with ScriptedServer(provider) as server:
        options |= {"map": "Which?", "reduce": {"x": "count"}, "lm": server.lm()}
        result = ONE.amr.map_reduce(finding={"x": kind}, **options)
    return result, server.requests


ENTRY = {"key": "a", "value": 1}


@pytest.mark.parametrize("said", [[ENTRY], {"a": 1}], ids=["asked", "as it is"])
def test_a_dict_is_asked_as_a_list_of_keys_and_values_and_found_as_a_dict(said):
    result, requests = found(dict[str, int], said)
    assert result.frame["x"][0] == [("a", 1)]
    schema = requests[0].body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["x"]["items"]["required"] == ["key", "value"]
    assert 'list of {"key": string, "value": integer}' in requests[0].system


REPAIRED = [
    (dict[str, int], [ENTRY, ENTRY], "x: names a key twice"),
    (dict[str, int], [{"key": "a"}], 'x: should be a dictionary, as a list of objects with "key" and "value"'),
    (dict[str, dict[str, int]], [{"key": "k", "value": [ENTRY, ENTRY]}], "x.a value: names a key twice"),
    (list[dict[str, int]], [[ENTRY, ENTRY]], "x.0: names a key twice"),
    (Literal[1, 2], 3, "x: "),
    (Annotated[float, Field(ge=0, le=1)], 2.0, "x: "),
]


@pytest.mark.parametrize(("kind", "said", "wrong"), REPAIRED, ids=[wrong for *_, wrong in REPAIRED])
def test_what_cannot_be_read_or_is_forbidden_is_repaired(kind, said, wrong):
    right = {dict[str, int]: {"a": 1}, Literal[1, 2]: 1}.get(kind, 0.5)
    right = {dict[str, dict[str, int]]: {"k": {"a": 1}}, list[dict[str, int]]: [{"a": 1}]}.get(kind, right)
    result, requests = found(kind, said, right)
    assert len(requests) == 2
    assert wrong in requests[1].user
    assert result.status["status"].tolist() == ["repaired"]


class WithDefaults(BaseModel):
    n: int = 5
    note: str | None = None
    tag: str | None = "none"


@pytest.mark.parametrize(
    ("said", "repaired"),
    [
        ({"n": None, "note": None, "tag": None}, True),
        ({"n": 1, "note": None, "tag": None}, False),
        ({"n": 1, "tag": "a"}, False),
        ({"note": "a", "tag": "a"}, True),
    ],
    ids=str,
)
def test_null_is_no_answer_for_a_field_that_has_a_default_and_takes_none(said, repaired):
    def provider(request):
        return findings(request, lambda unit: said if request.number == 0 else {"n": 2, "note": None, "tag": None})

    with ScriptedServer(provider) as server:
        found = ONE.amr.map("Which?", finding=WithDefaults, lm=server.lm())
        assert len(server.requests) == 1 + repaired
    assert found["n"].tolist() == [2 if repaired else 1]


def test_a_reduction_has_its_dicts_read_too():
    answers = iter([[ENTRY, ENTRY], [{"key": "a", "value": 2}]])

    def provider(request):
        if request.schema == "reduction":
            return {"output": next(answers), "sources": [0]}
        return findings(request, lambda unit: {"n": 1})

    with ScriptedServer(provider) as server:
        case = {"map": "Which?", "finding": {"n": int}, "reduce": "Count.", "output": dict[str, int]}
        assert ONE.amr.map_reduce(lm=server.lm(), **case).output == {"a": 2}
        assert "names a key twice" in server.requests[-1].user


# Tools


class Place(BaseModel):
    city: str = Field(min_length=1)
    tags: dict[str, int] = {}


def test_a_tool_s_arguments_are_asked_in_the_subset_and_read():
    seen: list[Any] = []

    @amr.tool
    def look(place: Place, level: Level, limit: int = 10, note: str | None = None, near: float | None = 1.5) -> str:
        """Look."""
        seen.append((place.tags, level, limit, note, near))
        return "ok"

    place = {"city": "Bonn", "tags": [ENTRY]}
    calls = [
        {"place": place, "level": 1, "limit": None, "note": None, "near": None},
        {"place": {"city": "Bonn", "tags": {"a": 1}}, "level": 2},
    ]

    def provider(request):
        if not request.tool_results:
            return [Call("look", call) for call in calls]
        return findings(request, lambda unit: {"n": 1})

    with ScriptedServer(provider) as server:
        ONE.amr.map("Which?", finding={"n": int}, tools=[look], lm=server.lm())
        sent = [tool["function"]["parameters"] for tool in server.requests[0].body["tools"]]
    assert sorted(seen, key=str) == [({"a": 1}, Level.HIGH, 10, None, 1.5), ({"a": 1}, Level.LOW, 10, None, None)]
    asked_for = sent[0]
    assert asked_for["required"] == ["place", "level"]  # arguments with a default may be left out
    assert outside(asked_for | {"required": list(asked_for["properties"])}) == []
    assert "default: 10" in asked_for["properties"]["limit"]["description"]
    assert outside(sent[1]) == []


FOREIGN = {
    "references": {"properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer", "minimum": 1}}},
    "old references": {"properties": {"a": {"$ref": "#/definitions/n"}}, "definitions": {"n": {"type": "string"}}},
    "a tree": {
        "properties": {"a": {"$ref": "#/$defs/t"}},
        "$defs": {"t": {"type": "object", "properties": {"in": {"type": "array", "items": {"$ref": "#/$defs/t"}}}}},
    },
    "nowhere": {"properties": {"a": {"$ref": "https://example.org/x.json"}}},
    "types": {"properties": {"a": {"type": ["string", "integer", "null"], "default": "x"}}},
    "nullable": {"properties": {"a": {"type": "integer", "nullable": True}}},
    "all of": {"properties": {"a": {"allOf": [{"type": "object", "properties": {"b": {"type": "integer"}}}]}}},
    "one of": {"properties": {"a": {"oneOf": [{"type": "integer"}, {"const": "x"}]}}},
    "not": {"properties": {"a": {"type": "string", "not": {"enum": ["x"]}}}},
    "if": {"properties": {"a": {"type": "object", "properties": {}, "if": {}, "then": {}}}},
    "untyped enum": {"properties": {"a": {"enum": [1, "x", None, {"y": 1}]}}},
    "open": {"properties": {"a": {"type": "object", "properties": {"b": {}}, "additionalProperties": True}}},
    "no type": {"properties": {"a": {"properties": {"b": {"type": "string", "format": "email"}}}}},
    "true": {"properties": {"a": True}},
    "no items": {"properties": {"a": {"type": "array"}}},
    "pairs": {"properties": {"a": {"type": "array", "prefixItems": [{"type": "string"}, {}], "items": False}}},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_server_s_schema_is_sent_in_the_subset(name):
    whole = inline_references({"type": "object"} | FOREIGN[name])
    assert "$ref" not in json.dumps(whole)
    assert outside(make_wire(whole | {"required": []}).schema) == []


# What a server takes


def form_of(request) -> str:
    if request.body.get("tool_choice"):
        return "tool"
    wanted = request.body.get("response_format", {}).get("type")
    return {"json_schema": "schema", "json_object": "json_object", None: "prompt"}[wanted]


def answer(request, find=number):
    made = findings(request, find)
    return Call(f"submit_{request.schema}", made) if form_of(request) == "tool" else Raw(json.dumps(made))


OPTIONS = {"map": "Which?", "finding": {"n": int}, "reduce": {"n": "sum"}, "plan": {"shard_size": 1}}
SUM = sum(range(ROWS))

REFUSED = {
    "OpenAI": "Invalid schema for response_format 'findings': In context=(), 'minLength' is not permitted.",
    "DeepSeek": "This response_format type is unavailable now",
    "Gemini": "Request contains an invalid argument.",
    "Gemini, unknown": 'Invalid JSON payload received. Unknown name "additionalProperties": Cannot find field.',
    "Anthropic": "output_config.format.schema: For 'string' type, property 'minLength' is not supported",
    "OpenRouter": "Provider returned error",
    "nothing said": "",
    "vLLM": "The request's grammar is too complex",
}


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("said", REFUSED)
@pytest.mark.sampled(3)
def test_a_refused_schema_is_refused_once_whatever_the_words(said, status):
    def provider(request):
        return Status(status, REFUSED[said]) if form_of(request) == "schema" else answer(request)

    with ScriptedServer(provider) as server:
        result = DF.amr.map_reduce(max_parallelism=16, lm=server.lm(), **OPTIONS)
        forms = [form_of(request) for request in server.requests]
    assert result.output["n"] == SUM
    assert forms == ["schema", *["tool"] * ROWS]
    assert result.total.tries == len(forms)
    assert result.total.tokens == server.tokens


def test_another_kind_of_schema_begins_at_the_top_and_what_is_proven_stays():
    def provider(request):
        if form_of(request) == "schema" and "tags" in str(request.body["response_format"]):
            return Status(400, "Invalid schema: too complex")
        return answer(request, lambda unit: number(unit) | {"tags": {"a": 1}})

    with ScriptedServer(provider) as server:
        lm = server.lm()
        first = DF.head(8).amr.map_reduce(lm=lm, **OPTIONS)
        tagged = OPTIONS | {"finding": {"n": int, "tags": dict[str, int]}}
        second = DF.head(8).amr.map_reduce(lm=lm, **tagged)
        third = DF.head(8).amr.map_reduce(lm=lm, **OPTIONS)
        forms = [form_of(request) for request in server.requests]
    assert forms == [*["schema"] * 9, *["tool"] * 8, *["schema"] * 8]
    assert first.output["n"] == second.output["n"] == third.output["n"] == 28


@pytest.mark.parametrize(("said", "refused"), [("json_schema is not supported", 1), ("Invalid schema", 2)])
def test_where_no_kind_is_taken_others_begin_lower(said, refused):
    def provider(request):
        if form_of(request) == "schema":
            return Status(400, said)
        return answer(request, lambda unit: dict.fromkeys("abcd", 1))

    with ScriptedServer(provider) as server:
        lm = server.lm()
        for name in "abcd":
            DF.head(3).amr.map("Which?", finding={name: int}, plan={"shard_size": 1}, lm=lm)
        assert [form_of(request) for request in server.requests].count("schema") == refused


def test_a_row_that_is_refused_in_every_form_teaches_nothing_and_the_others_are_asked_as_before():
    def provider(request):
        if any(unit["text"] == "row 0" for unit in request.units):
            return Status(400, "Invalid request")
        return answer(request)

    with ScriptedServer(provider) as server:
        result = DF.amr.map_reduce(max_parallelism=8, lm=server.lm(), **OPTIONS)
        others = [form_of(r) for r in server.requests if r.units[0]["text"] != "row 0"]
    assert result.failures["position"].tolist() == [0]
    assert set(others) == {"schema"}
    assert len(server.requests) - len(others) <= 2 * len(Form)


def test_where_all_rows_are_refused_the_forms_are_tried_a_few_times_only():
    with ScriptedServer(lambda request: Status(400, "Invalid request")) as server:
        result = DF.amr.map_reduce(max_parallelism=8, lm=server.lm(), **OPTIONS)
        assert len(server.requests) <= 2 * ROWS + 3 * len(Form)
        assert result.total.tries == len(server.requests)
    assert len(result.failures) == ROWS


IGNORED = {
    "prose": "I think it is seven.",
    "a fence": '```json\n{"a": 1}\n```',
    "another object": '{"result": 7}',
    "a list": "[1, 2]",
    "findings that are none": '{"findings": [1, 2]}',
}


@pytest.mark.parametrize("said", IGNORED)
def test_a_server_that_ignores_the_schema_is_found_out_at_its_first_answer(said):
    def provider(request):
        return answer(request) if form_of(request) == "prompt" else Raw(IGNORED[said])

    with ScriptedServer(provider) as server:
        result = DF.amr.map_reduce(max_parallelism=16, lm=server.lm(), **OPTIONS)
        forms = [form_of(request) for request in server.requests]
    assert result.output["n"] == SUM
    assert forms == ["schema", *["prompt"] * ROWS]
    assert result.total.tokens == server.tokens
    assert "JSON schema" in server.requests[-1].user


def test_a_server_that_has_kept_a_schema_is_not_found_out_by_one_bad_answer():
    def provider(request):
        bad = request.units[0]["text"] == "row 7" and not request.repairs
        return Raw("I think it is seven.") if bad else answer(request)

    with ScriptedServer(provider) as server:
        result = DF.amr.map_reduce(max_parallelism=1, lm=server.lm(), **OPTIONS)
        assert {form_of(request) for request in server.requests} == {"schema"}
    assert result.output["n"] == SUM


def test_forced_calls_that_are_not_made_leave_json_mode():
    def provider(request):
        match form_of(request):
            case "schema":
                return Status(400, "response_format json_schema is not supported")
            case "tool":
                return Raw("I would call a tool.")
        return answer(request)

    with ScriptedServer(provider) as server:
        result = DF.amr.map_reduce(max_parallelism=16, lm=server.lm(), **OPTIONS)
        assert [form_of(r) for r in server.requests] == ["schema", "tool", *["json_object"] * ROWS]
    assert result.output["n"] == SUM


def test_a_router_without_a_server_for_the_form_is_asked_in_a_lower_one():
    def provider(request):
        if form_of(request) in {"schema", "tool"}:
            return Status(404, f"No endpoints found that support {'tool use' if request.tools else 'response_format'}.")
        return answer(request)

    with ScriptedServer(provider) as server:
        result = DF.amr.map_reduce(max_parallelism=16, lm=server.lm(), **OPTIONS)
        assert len(server.requests) == ROWS + 2
    assert result.output["n"] == SUM


@pytest.mark.parametrize("host", FIRST_FORMS)
def test_servers_without_schemas_are_not_asked_for_one(host):
    asked = ONE.amr.plan(lm=amr.LM("m", base_url=f"https://{host}/v1", api_key="k"), **OPTIONS).requests()[0]
    form = asked.get("response_format", {}).get("type") or ("tool" if "tool_choice" in asked else "prompt")
    assert form == FIRST_FORMS[host].label
    assert "json_schema" not in str(asked.get("response_format"))
    assert form != "json_object" or "JSON" in str(asked["messages"])


@pytest.mark.long
def test_what_is_beyond_the_limits_is_asked_as_a_json_object():
    fields = {f"field_{n}": int for n in range(5001)}
    with ScriptedServer(lambda request: answer(request, lambda unit: dict.fromkeys(fields, 1))) as server:
        ONE.amr.map("All.", finding=fields, lm=server.lm(abilities=amr.Abilities(context_window=10**7)))
        assert [form_of(request) for request in server.requests] == ["json_object"]


# Settings that a model refuses


def refusing(name, said, status=400):
    """A model that refuses a setting, where it stands in the body."""

    def provider(request):
        return Status(status, said) if name in request.body else answer(request)

    return provider


OMITTED = [
    ("temperature", 0.2, "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1)"),
    ("temperature", 0.2, "temperature: `temperature` may only be set to 1 when thinking is enabled."),
    ("seed", 7, "property 'seed' is unsupported"),
    ("seed", 7, 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'),
    ("reasoning_effort", "low", "Model m does not support parameter reasoningEffort."),
    ("reasoning_effort", "low", '"m" does not support thinking'),
]
BESIDES = [
    ("parallel_tool_calls", False, "Unsupported parameter: 'parallel_tool_calls' is not supported with this model."),
    ("top_k", 5, "Unrecognized request argument supplied: top_k"),
    ("user", "me", "[{'type': 'extra_forbidden', 'loc': ('body', 'user'), 'msg': 'Extra inputs are not permitted'}]"),
]


@pytest.mark.parametrize("case", [*OMITTED, *BESIDES], ids=lambda case: case[2])
@pytest.mark.parametrize("agent", [True, False], ids=["with tools", "without"])
@pytest.mark.sampled(5)
def test_a_setting_that_is_refused_is_left_out_with_one_warning(case, agent):
    name, value, said = case
    options = {"extra_body": {name: value}} if case in BESIDES else {name: value}

    @amr.tool
    def look() -> str:
        """Look."""
        return "nothing"

    def provider(request):
        made = refusing(name, said)(request)
        return findings(request, number) if agent and isinstance(made, Raw) else made

    with ScriptedServer(provider) as server:
        lm = server.lm(**options)
        case_ = OPTIONS | ({"tools": [look]} if agent else {})
        with pytest.warns(amr.SettingWarning, match=name) as told:
            result = DF.amr.map_reduce(max_parallelism=16, lm=lm, **case_)
        again = DF.amr.map_reduce(max_parallelism=16, lm=lm, **case_)  # a warning would be an error
        assert len(server.requests) == 1 + 2 * ROWS
    assert len(told) == 1
    assert result.output["n"] == again.output["n"] == SUM
    assert result.total.tries == ROWS + 1
    assert result.total.tokens + again.total.tokens == server.tokens


NO_SYSTEM = [
    "System role not supported",
    "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
    "Conversation roles must alternate user/assistant/user/assistant/...",
]


@pytest.mark.parametrize("said", NO_SYSTEM, ids=range(len(NO_SYSTEM)))
def test_a_model_without_a_system_role_reads_its_text_before_the_user_s(said):
    def provider(request):
        return Status(400, said) if request.messages[0]["role"] == "system" else answer(request)

    with ScriptedServer(provider) as server:
        lm = server.lm()
        result = DF.amr.map_reduce(max_parallelism=16, lm=lm, **OPTIONS)
        refused, *answered = server.requests
    assert result.output["n"] == SUM
    assert len(answered) == ROWS
    system, user = refused.messages
    joined = [request.messages[0]["content"] for request in answered]
    assert f"{system['content']}\n\n{user['content']}" in joined
    assert {len(request.messages) for request in answered} == {1}


def test_a_row_that_speaks_of_roles_takes_none_once_requests_were_answered():
    def provider(request):
        is_refused = request.number == 3
        return Status(400, "System role not supported") if is_refused else answer(request)

    with ScriptedServer(provider) as server:
        DF.amr.map_reduce(max_parallelism=1, lm=server.lm(), **OPTIONS)
        assert {request.messages[0]["role"] for request in server.requests} == {"system"}


def test_several_settings_that_are_refused_cost_a_request_each():
    def provider(request):
        for name in ("seed", "temperature"):
            if name in request.body:
                return Status(400, f"Unsupported parameter: '{name}' is not supported with this model.")
        return answer(request)

    with ScriptedServer(provider) as server:
        with pytest.warns(amr.SettingWarning) as told:
            DF.amr.map_reduce(max_parallelism=16, lm=server.lm(seed=1, temperature=0.5), **OPTIONS)
        assert len(server.requests) == ROWS + 2
    assert len(told) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 9.0}, "temperature must be between 0 and 2"),
        ({"reasoning_effort": "none"}, "Invalid value: 'none'. Supported values for 'reasoning_effort' are: 'low'."),
        ({"max_output_tokens": 10**6}, "max_completion_tokens is too large: 1000000. The most is 16384."),
    ],
    ids=str,
)
def test_a_value_that_is_refused_is_one_error(options, said):
    name = next(iter(options))
    with ScriptedServer(lambda request: Status(400, said)) as server:
        with pytest.raises(amr.ModelConfigError, match=rf"Check LM\({name}=...\)"):
            DF.amr.map_reduce(max_parallelism=16, lm=server.lm(**options), errors="raise", **OPTIONS)
        assert len(server.requests) == 1


def test_a_row_that_speaks_of_a_setting_changes_none_once_requests_were_answered():
    def provider(request):
        if request.units[0]["text"] == "row 9":
            return Status(400, "the 'temperature' of this row is not supported")
        return answer(request)

    with ScriptedServer(provider) as server:
        result = DF.amr.map_reduce(max_parallelism=1, lm=server.lm(temperature=0.5), **OPTIONS)
        assert all(request.body["temperature"] == 0.5 for request in server.requests)
    assert result.failures["position"].tolist() == [9]


def test_a_server_that_does_not_know_strict_is_asked_without():
    def provider(request):
        if "strict" in request.body.get("response_format", {}).get("json_schema", {}):
            return Status(400, "Unknown parameter: 'response_format.json_schema.strict'.")
        return answer(request)

    with ScriptedServer(provider) as server:
        DF.amr.map_reduce(max_parallelism=16, lm=server.lm(), **OPTIONS)
        assert [form_of(request) for request in server.requests] == ["schema"] * (ROWS + 1)


# The greatest size of an answer


def limits_of(server) -> list[str]:
    return ["+".join(sorted(k for k in r.body if k.startswith("max_"))) for r in server.requests]


EXTRA = (
    "[{'type': 'extra_forbidden', 'loc': ('body', 'max_completion_tokens'), 'msg': 'Extra inputs are not permitted'}]"
)


@pytest.mark.parametrize(
    ("options", "refused", "said", "other"),
    [
        ({"max_output_tokens": 50}, "max_completion_tokens", EXTRA, "max_tokens"),
        (
            {"extra_body": {"max_tokens": 50}},
            "max_tokens",
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            "max_completion_tokens",
        ),
    ],
)
def test_a_limit_that_is_refused_has_its_other_name(options, refused, said, other):
    with ScriptedServer(refusing(refused, said)) as server:
        DF.amr.map_reduce(max_parallelism=16, lm=server.lm(**options), **OPTIONS)  # without a warning: it is kept
        assert limits_of(server) == [refused, *[other] * ROWS]
        assert server.requests[-1].body[other] == 50


def test_a_limit_that_is_ignored_has_its_other_name_from_the_first_longer_answer_on():
    long = {"prompt_tokens": 10, "completion_tokens": 99, "total_tokens": 109}

    def provider(request):
        usage = long if "max_tokens" not in request.body else {**long, "completion_tokens": 9}
        return Raw(json.dumps(findings(request, number)), usage=usage)

    with ScriptedServer(provider) as server:
        DF.amr.map_reduce(max_parallelism=16, lm=server.lm(max_output_tokens=50), **OPTIONS)
        assert limits_of(server) == ["max_completion_tokens", *["max_tokens"] * (ROWS - 1)]


def test_a_model_without_any_limit_is_asked_without_and_told():
    def provider(request):
        sent = [name for name in request.body if name.startswith("max_")]
        return Status(400, f"Unknown parameter: '{sent[0]}'") if sent else answer(request)

    with ScriptedServer(provider) as server:
        with pytest.warns(amr.SettingWarning, match="max_output_tokens"):
            DF.amr.map_reduce(max_parallelism=16, lm=server.lm(max_output_tokens=50), **OPTIONS)
        assert limits_of(server) == ["max_completion_tokens", "max_tokens", *[""] * ROWS]


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://api.mistral.ai/v1", "max_tokens"),
        ("http://127.0.0.1:11434/v1", "max_tokens"),
        ("http://localhost:1234/v1", "max_tokens"),
    ],
)
def test_servers_that_are_known_to_take_the_old_name_get_it(address, name):
    lm = amr.LM("m", base_url=address, api_key="k", max_output_tokens=50)
    (asked,) = ONE.amr.plan(lm=lm, **OPTIONS).requests()
    assert [key for key in asked if key.startswith("max_")] == [name]


def test_lessons_are_of_a_server_and_a_model():
    assert schema_support_of("http://a/v1", "m") is schema_support_of("http://a/v1", "m")
    assert schema_support_of("http://a/v1", "m") is not schema_support_of("http://a/v1", "n")
    assert settings_of("http://a/v1", "m") is not settings_of("http://b/v1", "m")


def test_a_refusal_is_read_wherever_a_server_puts_it():
    bodies = [
        {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": 7}]},
        [{"error": {"code": 400, "message": 'Unknown name "seed": Cannot find field.'}}],
        {"object": "error", "message": {"detail": [{"loc": ["body", "seed"], "msg": "extra_forbidden"}]}},
    ]
    assert ["seed" in read_error_body(body).message for body in bodies] == [True] * 3
