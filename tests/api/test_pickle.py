"""Pickles and copies: every public class comes back equal or refuses in a sentence; no key is in any of them."""

from __future__ import annotations

import concurrent.futures
import copy
import dataclasses
import datetime as dt
import enum
import functools
import importlib
import io
import multiprocessing
import pickle
import sys
import threading
from typing import Annotated, Any, Literal

import cloudpickle
import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel, Field, field_validator
from typing_extensions import TypedDict

import pandas_amr as amr
from pandas_amr import errors, testing
from pandas_amr._api.recipe import Stage
from pandas_amr._context.settings import Settings, current_settings
from pandas_amr.sandbox.host.local import LocalSandbox
from pandas_amr.testing import ScriptedServer, Status, findings
from processes import run_python

SECRET = "sk-a1b2c3d4e5f6g7h8"
FRAME = pd.DataFrame({"text": ["good", "bad", "good again"], "shop": ["a", "b", "a"]}, index=[7, 7, 9])


# What is pickled


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Inner(BaseModel):
    size: int = 0


class Found(BaseModel):
    mood: Mood
    inner: Inner
    score: float | None = Field(ge=0)

    @field_validator("score")
    @classmethod
    def check(cls, value):
        return value


@dataclasses.dataclass
class Spot:
    x: int

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x")


class Keys(TypedDict, total=False):
    x: int


SCHEMA = {
    "type": "object",
    "properties": {
        "p": {"type": "integer", "minimum": 2},
        "q": {"type": "object", "properties": {"r": {"type": "string"}}},
    },
}
KINDS: dict[str, Any] = {
    "dict": {"n": int, "late": bool, "mood": ["good", "bad"], "when": (dt.datetime, "when it was")},
    "bounds": {"n": Annotated[int, Field(ge=1)], "tags": list[str], "mixed": Literal["a", 1]},
    "schema": SCHEMA,
    "model": Found,
    "models": list[Found],
    "dataclass": Spot,
    "dataclasses": list[Spot],
    "typed dict": Keys,
}


@amr.tool
def double(x: int) -> int:
    """Twice x."""
    return 2 * x


def triple(x: int) -> int:
    """Thrice x."""
    return 3 * x


def lengths(shard):
    return [{"length": len(text)} for text in shard["text"]]


def add_text_length(shard: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"length": shard["text"].str.len()}, index=shard.index)


def first_key() -> str:
    return "k"


def masked(text: str) -> str:
    return text.replace("bad", "***")


def confirms(estimate) -> bool:
    return estimate.calls is None or estimate.calls < 10


def ask_why(row) -> str:
    return f"Why {row['text']}?"


def provider(request):
    if request.schema == "reduction":
        return {"output": "a summary", "sources": [0]}
    if request.schema == "plan":
        return {"map_instruction": "Which mood?", "finding": [{"name": "mood", "type": "text"}], "reduce": None}
    return findings(request, lambda unit: {"mood": "good" if "good" in unit["text"] else "bad"})


@functools.cache
def computed() -> amr.Result:
    return FRAME.amr.map_reduce(map=lengths, finding={"length": int}, reduce={"length": "sum"}, by="shop")


@functools.cache
def written() -> amr.Result:
    with ScriptedServer(provider) as server:
        lm = server.lm(api_key=SECRET)
        return FRAME.amr.map_reduce(map="Which mood?", finding={"mood": ["good", "bad"]}, reduce="Sum up.", lm=lm)


def failed() -> amr.Result:
    def refuses(request):
        return Status(400, "filtered") if "bad" in request.user else provider(request)

    with ScriptedServer(refuses) as server:
        options: dict[str, Any] = {"finding": {"mood": str}, "lm": server.lm(api_key=SECRET), "plan": {"shard_size": 1}}
        with pytest.warns(amr.FailureWarning):
            frame = FRAME.amr.map("Which mood?", **options)
        return amr.result_of(frame)


def planned() -> amr.Plan:
    with ScriptedServer(provider) as server:
        return FRAME.amr.plan(map="Which mood?", reduce="Sum up.", lm=server.lm(api_key=SECRET))


def own(name: str) -> Any:
    return getattr(amr, name)


MADE: dict[str, Any] = {
    "Abilities": lambda: amr.Abilities(tools="code", context_window=4096),
    "Agent": lambda: amr.Agent("Which?", role="an auditor", lm=amr.LM("m"), tools=iter([double, triple, amr.PythonREPLTool()])),
    "Budget": lambda: amr.Budget(calls=3, confirm=confirms),
    "By": lambda: amr.By("shop", pd.Series([1, 2, 1], name="n"), pd.Grouper(key="day", freq="D"), sort=False),
    "ContainerSandbox": lambda: amr.ContainerSandbox(["docker", "run", "-i", "python:3.12", "python"]),
    "Estimate": lambda: amr.Estimate(3, 2, 1, 1, 10, tree=(2, 1), money_between=(0.1, 0.2)),
    "FrameMapper": lambda: amr.mapper("Which mood?", finding={"mood": ["good", "bad"]}, lm=amr.LM("m"), tools=[double]),
    "Forgotten": lambda: amr.Forgotten(findings=2, rows=1, uncompared=(("text",),)),
    "Graph": lambda: written().graph(),
    "Limits": lambda: amr.Limits(memory_mb=64),
    "LM": lambda: amr.LM("m", extra_body={"top_p": 0.5, "prompt_cache_key": "a"}, token_counter=len, api_key=first_key),
    "Outgoing": lambda: planned().outgoing(),
    "Plan": lambda: amr.Plan(map_instruction="Which?", finding=KINDS["dict"], output=list[Found], by=amr.By("shop", sort=False)),
    "PythonREPLTool": lambda: amr.PythonREPLTool(limits=amr.Limits(memory_mb=64), packages=["pyarrow"]),
    "Ranking": lambda: amr.Ranking(field="n", most=3),
    "Recipe": lambda: amr.Recipe().map(lengths, finding={"length": int}).then(amr.Recipe().reduce({"length": "sum"})),
    "Result": lambda: written(),
    "Transcript": lambda: written().look(7),
    "Score": lambda: computed().score({"length": [4, 3, 10]}),
    "Tool": lambda: amr.Tool(triple, description="Thrice.", max_result_chars=500),
    "Timeline": lambda: written().timeline(),
    "Usage": lambda: amr.Usage(calls=1, money=None),
    "Verification": lambda: amr.Verification(pd.DataFrame({"rows": [0]}), pd.DataFrame({"same": [True]}), 0, pd.DataFrame({"n": [1]}), "m"),
    "settings": lambda: amr.settings(lm=amr.LM("m"), redact=masked, budget=amr.Budget(calls=1)),
    # not in amr.__all__, or further cases
    "computed result": computed,
    "failed result": failed,
    "decorated tool": lambda: double,
    "tool with a schema": lambda: amr.Tool(triple, args_schema=Inner),
    "function as an instruction": lambda: amr.Agent(ask_why),
    "plan by a field": lambda: amr.Plan(finding={"a": Found}, map_instruction={"a": "Which?"}, give_up_after=None),
    "Settings": lambda: Settings(lm={"map": amr.LM("m")}, budget=amr.Budget(tokens=5), redact=masked, of_block={"errors": "raise"}),
    "accessor": lambda: FRAME.amr,
    **{f"plan of a {name}": lambda kind=kind: amr.Plan(map_instruction="Which?", finding=kind) for name, kind in KINDS.items()},
    **{f"testing.{name}": make for name, make in {
        "Call": lambda: testing.Call("python_repl", {"code": "1"}),
        "Drop": testing.Drop,
        "RateLimit": lambda: testing.RateLimit(60, 1000),
        "Raw": lambda: testing.Raw("x", headers={"a": "b"}),
        "Status": lambda: testing.Status(429, "busy"),
        "ScriptedRequest": lambda: testing.ScriptedRequest(0, {"messages": []}, {}),
    }.items()},
}  # fmt: skip

REFUSED: dict[str, tuple[Any, str]] = {
    "Run": (lambda: FRAME.amr.start(map=lengths, reduce={"length": "sum"}), "run.result()"),
    "configured": (lambda: amr.configure(), "amr.configure(...)"),
    "testing.ScriptedServer": (lambda: ScriptedServer(provider), "server.lm()"),
}
WITHOUT_OBJECTS = {"Sandbox"}  # a protocol


def errors_and_warnings() -> list[str]:
    return list(errors.__all__)


WAYS: dict[str, Any] = {
    f"protocol {number}": functools.partial(pickle.dumps, protocol=number) for number in range(2, 6)
}
WAYS["cloudpickle"] = cloudpickle.dumps


def copies_of(value: Any) -> dict[str, Any]:
    copies = {name: pickle.loads(dump(value)) for name, dump in WAYS.items()}
    return copies | {"copy": copy.copy(value), "deepcopy": copy.deepcopy(value)}


# What could run again is not in a pickle; what of it a score needs is told otherwise, and tested below. The other fields
# follow from those that are compared.
NOT_COMPARED = {"origin", "made_by", "aggregations", "args_schema", "wire", "tools"}


@functools.singledispatch
def assert_same(one: Any, other: Any) -> None:
    """Equal, also where a class leaves ``==`` to its identity, or to frames that have none."""
    assert type(one) is type(other)
    is_plain = isinstance(one, type) or not hasattr(one, "__dict__")
    if not is_plain and type(one).__eq__ is object.__eq__:
        assert_same({**vars(one), "_open": []}, {**vars(other), "_open": []})
    else:
        assert one == other


@assert_same.register
def _(one: pd.DataFrame, other: Any) -> None:
    pd.testing.assert_frame_equal(one, other)


@assert_same.register
def _(one: pd.Series, other: Any) -> None:
    pd.testing.assert_series_equal(one, other)


@assert_same.register
def _(one: pd.Grouper, other: Any) -> None:
    assert (one.key, one.freq) == (other.key, other.freq)


@assert_same.register
def _(one: Exception, other: Any) -> None:
    assert type(one) is type(other)
    assert (str(one), one.args) == (str(other), other.args)
    assert {**vars(one), "partial": None} == {**vars(other), "partial": None}


@assert_same.register
def _(one: dict, other: Any) -> None:
    assert list(one) == list(other)
    for name, part in one.items():
        assert_same(part, other[name])


@assert_same.register(list)
@assert_same.register(tuple)
def _(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    assert len(one) == len(other)
    for part, same_part in zip(one, other, strict=True):
        assert_same(part, same_part)


@assert_same.register(amr.Result)
@assert_same.register(amr.Timeline)
@assert_same.register(amr.Score)
@assert_same.register(amr.Verification)
@assert_same.register(amr.FrameMapper)
@assert_same.register(amr.Agent)
@assert_same.register(amr.By)
@assert_same.register(Stage)
def _(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    for field in dataclasses.fields(one):
        if field.name not in NOT_COMPARED:
            assert_same(getattr(one, field.name), getattr(other, field.name))


@pytest.mark.parametrize("name", MADE)
@pytest.mark.sampled(7)
def test_pickle_every_public_object_comes_back_equal_by_every_way(name):
    value = MADE[name]()
    for way, again in copies_of(value).items():
        assert repr(again) == repr(value), way
        assert_same(value, again)


@pytest.mark.parametrize("name", REFUSED)
def test_pickle_what_belongs_to_a_process_refuses_in_a_sentence_that_says_what_to_take(name):
    make, way = REFUSED[name]
    value = make()
    for each in (*WAYS.values(), copy.copy, copy.deepcopy):
        with pytest.raises(amr.UsageError, match="cannot be pickled or copied") as caught:
            each(value)
        assert way in str(caught.value)


def test_pickle_the_tables_above_name_every_public_class():
    names = set()
    for module, prefix in (
        (amr, ""),
        (errors, ""),
        (testing, "testing."),
        (importlib.import_module("pandas_amr.tools"), ""),
    ):
        for name in module.__all__:
            if isinstance(getattr(module, name), type):
                names.add(f"{prefix}{name}")
    tried = {*MADE, *REFUSED, *errors_and_warnings(), *WITHOUT_OBJECTS, "Journal"}
    assert names <= tried


def test_pickle_a_journal_is_opened_again_by_its_path(tmp_path):
    journal = amr.Journal(tmp_path / "j.sqlite", keep_inputs=True)
    for again in copies_of(journal).values():
        assert (again.path, again.refresh, again.keep_inputs) == (journal.path, False, True)
        assert again.verify() == []


# Errors and warnings


ARGUMENTS: dict[str, Any] = {
    "BudgetExceeded": ("Spent.", amr.Usage(calls=2)),
    "NotConfirmed": ("No.", amr.Estimate(1, 1, 1, 1, 1)),
}
KEYWORDS: dict[str, Any] = {
    "ModelUnavailable": {"retry_after_s": 2.0, "busy": True, "status": 429, "request_id": "r"},
    "ModelRejected": {"too_long": True, "attempts": 3},
}


@pytest.mark.parametrize("name", errors_and_warnings())
def test_pickle_an_error_and_a_warning_come_back_with_all_that_they_tell_but_their_partial(name):
    error = own(name)(*ARGUMENTS.get(name, ("It failed.",)), **KEYWORDS.get(name, {}))
    error.add_note("in shard 3")
    error.partial = threading.Lock()  # a result may hold anything
    for again in copies_of(error).values():
        assert_same(error, again)
        assert again.partial is None
        assert again.__notes__ == ["in shard 3"]


# Results


def test_pickle_a_result_is_whole_after_save_and_load_and_the_other_way_round(tmp_path):
    written().save(tmp_path / "a")
    loaded = amr.load(tmp_path / "a")
    for again in copies_of(loaded).values():
        assert_same(loaded, again)
    pickle.loads(pickle.dumps(written())).save(tmp_path / "b")
    for name in ("frame", "findings", "usage", "failures", "trace", "spans", "status", "output", "total"):
        assert_same(getattr(amr.load(tmp_path / "b"), name), getattr(loaded, name))


def test_pickle_a_result_tells_what_it_told_before_and_what_could_run_again_refuses():
    again = pickle.loads(pickle.dumps(computed()))
    assert_same(again.score({"length": [4, 3, 10]}), computed().score({"length": [4, 3, 10]}))
    assert [record.length for record in again.records] == [4, 3, 10]
    assert again.explain is not None
    assert again.graph() == computed().graph()
    assert list(again.review().columns) == list(computed().review().columns)
    assert again._repr_html_() == computed()._repr_html_()
    for call in (again.retry, again.verify):
        with pytest.raises(amr.UsageError, match="this result was loaded or unpickled"):
            call()


def test_pickle_a_copy_in_the_same_process_can_still_run_again():
    result = failed()
    for again in (copy.copy(result), copy.deepcopy(result)):
        assert again.origin is result.origin
    deep = copy.deepcopy(result)
    deep.frame["mood"] = None
    assert result.frame["mood"].notna().any()


def test_pickle_the_lazy_parts_of_a_result_are_built():
    result = failed()
    assert any(callable(part) and not isinstance(part, type) for part in vars(result).values())
    again = pickle.loads(pickle.dumps(result))
    assert len(vars(again)["failures"]) == 1
    assert not any(isinstance(part, functools.partial) for part in vars(again).values())


def test_pickle_a_recipe_s_result_has_its_stages():
    result = MADE["Recipe"]()(FRAME)
    again = pickle.loads(pickle.dumps(result))
    assert len(again.stages) == 2
    assert_same(result, again)


@pytest.mark.parametrize("rows", [3, 0])
def test_pickle_a_result_with_out_opens_the_same_parts(rows, tmp_path):
    plain = FRAME.reset_index(drop=True).head(rows)
    made = plain.amr.map(lengths, finding={"length": int}, out=tmp_path / "parts")
    result = amr.result_of(made)
    for again in copies_of(result).values():
        assert type(again) is type(result)
        assert repr(again) == repr(result)
        assert (again.folder, list(again.parts), again.unread) == (result.folder, list(result.parts), 0)
        assert again.frame.to_table().equals(result.frame.to_table())
        assert again.findings.to_table().equals(result.findings.to_table())
        for name in ("failures", "status", "usage", "trace"):
            assert_same(getattr(again, name), getattr(result, name))


def test_pickle_a_copy_of_a_recipe_s_result_refuses_what_that_refuses():
    result = MADE["Recipe"]()(FRAME)
    for again in copies_of(result).values():
        with pytest.raises(amr.UsageError, match=r"run again one by one: result\.stages\[i\]"):
            again.retry()


@dataclasses.dataclass
class Opaque:
    lock: Any


def test_pickle_a_result_whose_output_cannot_be_pickled_names_it():
    result = FRAME.amr.map_reduce(map=lengths, reduce=lambda findings: Opaque(threading.Lock()))
    with pytest.raises(amr.UsageError, match=r"result\.output cannot be pickled \(a _thread\.lock\)"):
        pickle.dumps(result)
    with pytest.raises(amr.UsageError, match=r"result\.output cannot be copied \(TypeError\)"):
        copy.deepcopy(result)
    assert copy.copy(result).output is result.output


# Types


@pytest.mark.parametrize("name", KINDS)
def test_pickle_a_type_that_no_module_has_is_the_same_class_in_every_copy(name):
    plan = amr.Plan(map_instruction="Which?", finding=KINDS[name])
    for again in copies_of(plan).values():
        assert again.finding == plan.finding
        assert hash(again.finding) == hash(plan.finding)


SHOW = """
import pickle, sys
import pandas_amr as amr
from pandas_amr._findings.finding_type import FindingType
for data in pickle.load(open(sys.argv[1], "rb")):
    plan, again = pickle.loads(data), pickle.loads(data)
    assert plan == again
    print(FindingType.of(plan.finding, None).schema == FindingType.of(again.finding, None).schema, repr(plan))
"""


@pytest.mark.long
def test_pickle_a_plan_means_the_same_in_another_process(tmp_path):
    plans = [amr.Plan(map_instruction="Which?", finding=kind) for kind in KINDS.values()] * len(WAYS)
    ways = [way for way in WAYS for _ in KINDS]
    dumped = [WAYS[way](plan) for way, plan in zip(ways, plans, strict=True)]
    (tmp_path / "plans").write_bytes(pickle.dumps(dumped))
    done = run_python(f"import sys; sys.path[:0] = {sys.path!r}\n{SHOW}", tmp_path / "plans")
    assert done.stderr == ""
    assert done.stdout == "".join(f"True {plan!r}\n" for plan in plans)


def local_finding() -> type[BaseModel]:
    class Local(BaseModel):
        size: int

    return Local


HIDDEN: dict[str, Any] = {
    "plan": lambda: amr.Plan(map_instruction="Which?", finding=local_finding()),
    "result": lambda: FRAME.amr.map_reduce(map=lambda shard: [{"size": 1}] * len(shard), finding=local_finding(), reduce={"size": "sum"}),
    "mapper": lambda: amr.mapper(lambda shard: [{"n": 1}] * len(shard), finding={"n": int}),
    "recipe": lambda: amr.Recipe().map(lambda shard: [{"n": 1}] * len(shard)),
    "agent": lambda: amr.Agent(lambda row: "Which?"),
    "tool": lambda: amr.Tool(lambda x: x, name="one", description="x"),
    "budget": lambda: amr.Budget(calls=1, confirm=lambda estimate: True),
    "by": lambda: amr.By(lambda label: label),
    "settings": lambda: amr.settings(redact=lambda text: text),
    "LM": lambda: amr.LM("m", token_counter=lambda text: len(text)),
}  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_pickle_what_no_module_has_is_pickled_by_value_or_refused_where_nothing_can(name, monkeypatch):
    value = HIDDEN[name]()
    for dump in WAYS.values():
        assert (
            repr(pickle.loads(dump(value))) == repr(value) or name == "budget"
        )  # whose repr has the function's address
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(
        amr.UsageError, match=r"cannot be pickled \(.*\): it refers to something that no module has"
    ) as caught:
        pickle.dumps(value)
    assert "0x" not in str(caught.value)
    assert "pandas-amr[pickle]" in str(caught.value)
    copies = [copy.copy(value), copy.deepcopy(value)]
    assert [repr(each) for each in copies] == [repr(value)] * 2


def test_pickle_a_function_that_holds_a_lock_is_refused_by_the_name_of_its_argument():
    lock = threading.Lock()

    def locked(shard):
        with lock:
            return lengths(shard)

    with pytest.raises(amr.UsageError, match=r"mapper\(map=\.\.\.\) cannot be pickled \(a _thread\.lock\)"):
        pickle.dumps(amr.mapper(locked, finding={"length": int}))


def test_pickle_a_tool_of_a_module_is_the_module_s_own_and_any_other_works_alike():
    assert pickle.loads(pickle.dumps(double)) is double
    for made in (amr.Tool(double.func, name="other"), amr.Tool(triple), amr.Tool(triple, version="2")):
        for again in copies_of(made).values():
            assert (again.name, again.version, again.parameters, again(4)) == (
                made.name,
                made.version,
                made.parameters,
                made(4),
            )


def test_pickle_a_sandbox_of_one_s_own_starts_processes_of_its_own_in_the_other_process():
    tool = amr.PythonREPLTool(sandbox=LocalSandbox("process", packages=["pyarrow"]))
    for again in copies_of(tool).values():
        assert repr(again) == repr(tool)
        assert again.sandbox._packages == ("pyarrow",)


# Keys


def with_key() -> dict[str, Any]:
    lm = amr.LM("m", base_url="http://127.0.0.1:9/v1", api_key=SECRET)
    return {
        "LM": lm,
        "LM by phase": Settings(lm={"map": lm, "reduce": "m"}, of_block={"lm": lm}),
        "function": amr.LM("m", api_key=lambda: SECRET),
        "partial": amr.LM("m", api_key=functools.partial(str, SECRET)),
        "settings": amr.settings(lm=lm),
        "mapper": amr.mapper("Which?", finding={"n": int}, lm={"map": lm}, tools=[double]),
        "agents": amr.mapper({"a": amr.Agent("Which?", lm=lm)}, lm=lm),
        "recipe": amr.Recipe().map("Which?", lm=lm).then(amr.Recipe(lm=lm, task="x")),
        "result": written(),
        "failed": failed(),
        "plan": planned(),
        "recipe's result": written_by_recipe(),
        "error": refused_key(),
    }


def written_by_recipe() -> amr.Result:
    with ScriptedServer(provider) as server:
        return amr.Recipe().map("Which?", finding={"mood": str})(FRAME, lm=server.lm(api_key=SECRET))


def refused_key() -> amr.AMRError:
    with ScriptedServer(lambda request: Status(401, f"Wrong key {SECRET}")) as server:
        with pytest.raises(amr.ModelConfigError) as caught:
            FRAME.amr.map("Which?", finding={"mood": str}, lm=server.lm(api_key=SECRET))
        return caught.value


def test_pickle_no_key_is_in_any_pickle(monkeypatch):
    for name, value in with_key().items():
        for way, dump in WAYS.items():
            assert SECRET.encode() not in dump(value), (name, way)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    for name, make in MADE.items():
        assert SECRET.encode() not in pickle.dumps(make()), name


def test_pickle_a_copy_in_the_same_process_has_the_key():
    lm = amr.LM("m", api_key=SECRET)
    assert copy.copy(lm) == lm == copy.deepcopy(lm)
    assert copy.deepcopy(Settings(lm=lm)).lm == lm


@pytest.mark.parametrize("key", ["", "EMPTY", "none", "not-needed"])
def test_pickle_what_only_stands_for_a_key_needs_no_variable(key):
    with ScriptedServer(provider) as server:
        lm = pickle.loads(pickle.dumps(server.lm(api_key=key)))
        assert FRAME.amr.map("Which mood?", finding={"mood": str}, lm=lm)["mood"].tolist() == ["good", "bad", "good"]


KEYLESS: dict[str, Any] = {
    "http://127.0.0.1:9/v1": "OPENAI_API_KEY",
    None: "OPENAI_API_KEY",
    "https://api.mistral.ai/v1": "MISTRAL_API_KEY",
}


@pytest.mark.parametrize("address", KEYLESS, ids=str)
def test_pickle_an_unpickled_model_names_the_variable_of_its_key_before_any_request(address, monkeypatch):
    for variable in KEYLESS.values():
        monkeypatch.delenv(variable, raising=False)
    lm = pickle.loads(pickle.dumps(amr.LM("m", base_url=address, api_key=SECRET)))
    if KEYLESS[address] != "OPENAI_API_KEY":
        monkeypatch.setenv("OPENAI_API_KEY", "another provider's")
    with pytest.raises(amr.UsageError, match=f"this process has none: set {KEYLESS[address]} in its environment"):
        FRAME.amr.map("Which mood?", finding={"mood": str}, lm=lm)


def test_pickle_an_unpickled_model_sends_the_key_of_its_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-worker")
    with ScriptedServer(provider) as server:
        lm = pickle.loads(pickle.dumps(server.lm(api_key=SECRET)))
        twice = pickle.loads(pickle.dumps(lm))
        assert lm == twice
        FRAME.amr.map("Which mood?", finding={"mood": str}, lm=lm)
        assert {request.headers["authorization"] for request in server.requests} == {"Bearer sk-of-the-worker"}


def client() -> Any:
    import openai

    return openai.AsyncOpenAI(api_key=SECRET, base_url="http://127.0.0.1:9/v1")


HOLDERS: dict[str, tuple[Any, str]] = {
    "client of a model": (
        lambda: amr.LM("m", client=client()),
        "LM(client=...) cannot be pickled: a client holds a key",
    ),
    "client as a setting": (lambda: amr.settings(lm=client()), "a client holds a key"),
    "client by phase": (lambda: Settings(lm={"map": client()}), "a client holds a key"),
    "client of a mapper": (lambda: amr.mapper("Which?", lm=amr.LM("m", client=client())), "a client holds a key"),
    "client of a recipe": (lambda: amr.Recipe().map("Which?", lm=client()), "a client holds a key"),
    "client of an agent": (lambda: amr.Agent("Which?", lm=client()), "a client holds a key"),
    "header": (lambda: amr.LM("m", extra_headers={"X-Api-Key": SECRET}), "its 'X-Api-Key' may hold a key"),
    "bearer": (
        lambda: amr.LM("m", extra_headers={"authorization": f"Bearer {SECRET}"}),
        "its 'authorization' may hold a key",
    ),
    "body": (lambda: amr.LM("m", extra_body={"litellm": [{"api_key": SECRET}]}), "its 'api_key' may hold a key"),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_pickle_what_may_hold_a_key_beside_api_key_is_refused_without_it(name):
    make, message = HOLDERS[name]
    value = make()
    for dump in WAYS.values():
        with pytest.raises(amr.UsageError) as caught:
            dump(value)
        assert message in str(caught.value)
        assert SECRET not in str(caught.value)
    copies = [copy.copy(value), copy.deepcopy(value)]
    assert all(type(each) is type(value) for each in copies)


# What a pickle refers to


class Recording(pickle.Unpickler):
    """Notes which classes and functions a pickle names."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.named: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.named.add(f"{module}.{name}")
        return super().find_class(module, name)


HARMLESS = (
    "pandas",
    "numpy",
    "pyarrow",
    "pandas_amr",
    "copyreg",
    "builtins",
    "datetime",
    "collections",
    "test_pickle",
    "_codecs",
)


def test_pickle_nothing_that_a_cell_holds_names_code():
    hostile = ["cos\nsystem\n(S'touch /tmp/owned'\ntR.", "\x80\x04\x8c\x02os\x8c\x06system\x93.", "builtins.eval"]
    frame = pd.DataFrame({"text": hostile}, index=hostile)
    with ScriptedServer(lambda request: findings(request, lambda unit: {"mood": unit["text"]})) as server:
        result = frame.amr.map_reduce(map="Which?", finding={"mood": str}, reduce={"mood": "count"}, lm=server.lm())
    reader = Recording(pickle.dumps(result))
    assert reader.load().frame.index.tolist() == hostile
    assert {name.partition(".")[0] for name in reader.named} <= set(HARMLESS)
    assert not {"builtins.eval", "builtins.exec", "os.system", "posix.system"} & reader.named


# Processes


def lengths_of(frame: pd.DataFrame) -> amr.Result:
    return frame.amr.map_reduce(map=add_text_length, finding={"length": int}, reduce={"length": "sum"})


def raise_in_worker(kind: str) -> None:
    raise getattr(amr, kind)(*ARGUMENTS.get(kind, ("It failed.",)), **KEYWORDS.get(kind, {}))


@pytest.mark.long
def test_pickle_results_and_errors_come_back_from_spawned_processes():
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        futures = {
            kind: pool.submit(raise_in_worker, kind) for kind in ("NotConfirmed", "ModelUnavailable", "BudgetExceeded")
        }
        parts = np.array_split(np.arange(3), 3)
        results = list(pool.map(lengths_of, [FRAME.iloc[part] for part in parts]))
        assert [int(result.output["length"]) for result in results] == [4, 3, 10]
        assert [record.length for result in results for record in result.records] == [4, 3, 10]
        for kind, future in futures.items():
            error = future.exception(timeout=60)
            assert type(error) is getattr(amr, kind)
    assert futures["ModelUnavailable"].exception().retry_after_s == 2.0
    assert current_settings().lm is None
