"""Agents with a Python: their shard as `df`, findings handed in by code, what the model is asked of by code."""

from __future__ import annotations

from typing import Literal

import pandas as pd
import pytest

import pandas_amr as amr
from pandas_amr.errors import SandboxError
from pandas_amr.sandbox.base import Cell, Submitted
from pandas_amr.testing import Call, ScriptedServer, Status, findings

pytestmark = pytest.mark.usefixtures("sandboxed")

PREVIEW = {"view": "preview", "shard_size": 40}


def code(text: str) -> Call:
    return Call("python_repl", {"code": text})


@pytest.fixture
def amounts() -> pd.DataFrame:
    return pd.DataFrame(
        {"text": [f"row {n}" for n in range(100)], "amount": [n / 4 for n in range(100)]},
        index=[f"label {n}" for n in range(100)],
    )


def test_findings_handed_in_by_code_land_on_their_rows_and_cost_the_same_for_any_number_of_them(amounts):
    def provider(request):
        return code("submit(pd.DataFrame({'double': df['amount'] * 2}, index=df.index)[::-1])")

    tokens = {}
    for size in (10, 50, 100):
        with ScriptedServer(provider) as server:
            result = amounts.head(size).amr.map_reduce(
                map="Twice the amount.",
                finding={"double": float},
                reduce={"double": "sum"},
                plan={"view": "preview", "shard_size": 100},
                tools=[amr.PythonREPLTool()],
                lm=server.lm(),
            )
        assert result.output["double"] == sum(n / 2 for n in range(size))
        assert result.frame["double"].tolist() == [n / 2 for n in range(size)]
        tokens[size] = int(result.usage["output_tokens"].sum())
    assert len(set(tokens.values())) == 1


def test_the_tier_stands_in_the_repr_the_trace_and_the_result(amounts):
    tool = amr.PythonREPLTool()
    with ScriptedServer(lambda request: code("submit(df[['amount']].rename(columns={'amount': 'a'}))")) as server:
        result = amounts.amr.map_reduce(
            map="x", finding={"a": float}, reduce={"a": "max"}, plan=PREVIEW, tools=[tool], lm=server.lm()
        )
    assert result.sandbox in {"strong", "strict-lite"}
    assert f"sandbox {result.sandbox}" in repr(result)
    assert set(result.trace.loc[result.trace["type"] == "map", "sandbox"]) == {result.sandbox}
    assert set(result.trace.loc[result.trace["type"] == "map", "form"]) == {"code"}
    assert repr(tool) == f"<PythonREPLTool {result.sandbox}>"


def test_a_preview_shows_columns_and_a_few_rows_and_an_inline_shard_all(amounts):
    def provider(request):
        return code("submit(df[['amount']].rename(columns={'amount': 'a'}))")

    for view, shown, tools in (
        ("preview", 5, ["python_repl"]),
        ("inline", 40, ["python_repl", "submit_findings"]),
    ):
        with ScriptedServer(provider) as server:
            amounts.head(40).amr.map(
                "x",
                finding={"a": float},
                plan={"view": view, "shard_size": 40},
                tools=[amr.PythonREPLTool()],
                lm=server.lm(),
            )
        (request,) = server.requests
        assert len(request.units) == shown
        assert ("df has 40 rows" in request.user) == (view == "preview")
        assert request.tools == tools


def test_state_lasts_through_an_agent_s_turns_and_agents_do_not_share_it(amounts):
    def provider(request):
        if not request.tool_results:
            return code("seen = globals().get('seen', 0) + len(df)\nseen")
        return code(f"assert seen == {request.tool_results[0].split()[0]}\nsubmit([{{'n': seen}}] * len(df))")

    with ScriptedServer(provider) as server:
        frame = amounts.amr.map("x", finding={"n": int}, plan=PREVIEW, tools=[amr.PythonREPLTool()], lm=server.lm())
    assert frame["n"].tolist() == [40] * 80 + [20] * 20


def test_what_code_hands_in_wrongly_is_repaired_by_code_in_the_same_session(amounts):
    def provider(request):
        if request.repairs:
            return code("submit(good.iloc[" + str(list(request.repairs)) + "])")
        return code(
            "good = pd.DataFrame({'unit': range(len(df)), 'n': range(len(df))})\nsubmit(good.drop(index=[3, 5]))"
        )

    with ScriptedServer(provider) as server:
        result = amounts.head(20).amr.map_reduce(
            map="x",
            finding={"n": int},
            reduce={"n": "sum"},
            plan={"view": "preview", "shard_size": 20},
            tools=[amr.PythonREPLTool()],
            lm=server.lm(),
        )
    assert result.output["n"] == sum(range(20))
    assert result.status["status"].tolist().count("repaired") == 2
    assert len(server.requests) == 2


def test_errors_in_code_are_read_by_the_agent_which_goes_on(amounts):
    def provider(request):
        match len(request.tool_results):
            case 0:
                return code("df['no such column']")
            case 1:
                assert "KeyError" in request.tool_results[0]
                return code("submit([{'n': 1}])")
            case _:
                assert "submit() got 1 findings without `unit`; df has 20 rows" in request.tool_results[1]
                return code("submit([{'unit': i, 'n': i} for i in range(len(df))])")

    with ScriptedServer(provider) as server:
        frame = amounts.head(20).amr.map("x", finding={"n": int}, tools=[amr.PythonREPLTool()], lm=server.lm())
    assert frame["n"].tolist() == list(range(20))


def test_a_preview_whose_agent_finds_nothing_is_given_up_before_it_is_asked_row_by_row(amounts):
    with ScriptedServer(lambda request: code("submit([])")) as server, pytest.raises(amr.MapFailed) as failed:
        amounts.amr.map(
            "x",
            finding={"n": int},
            plan={"view": "preview", "shard_size": 100, "max_repairs": 0},
            tools=[amr.PythonREPLTool()],
            lm=server.lm(),
            errors="raise",
        )
    assert len(failed.value.partial.failures) == 100
    assert len(server.requests) == 1 + 2


def test_rows_that_are_equal_in_the_content_columns_only_are_not_taken_for_the_same():
    frame = pd.DataFrame({"text": ["same"] * 4, "hidden": [1, 2, 3, 4]})
    with ScriptedServer(lambda request: code("submit(df[['hidden']].rename(columns={'hidden': 'n'}))")) as server:
        found = frame.amr.map("x", columns="text", finding={"n": int}, tools=[amr.PythonREPLTool()], lm=server.lm())
    assert found["n"].tolist() == [1, 2, 3, 4]


def test_what_could_not_go_into_the_session_as_it_is_is_told_to_the_agent():
    frame = pd.DataFrame({"a": [1, "two"], "b": [1, 2]})

    def provider(request):
        assert "Column 'a' (object) is text" in request.user
        return code("submit(df[['b']].rename(columns={'b': 'n'}))")

    with ScriptedServer(provider) as server:
        found = frame.amr.map("x", finding={"n": int}, tools=[amr.PythonREPLTool()], lm=server.lm())
    assert found["n"].tolist() == [1, 2]


# Reducers


def test_reducers_have_findings_and_hand_in_what_they_computed(numbers):
    def provider(request):
        if request.schema == "reduction" or "submit_reduction" in request.tools:
            return code("submit(int(findings['n'].sum()))")
        return findings(request, lambda unit: {"n": int(unit["text"].split()[1])})

    with ScriptedServer(provider) as server:
        result = numbers.amr.map_reduce(
            map="The number.",
            finding={"n": int},
            reduce="The sum.",
            output=int,
            plan={"shard_size": 20},
            tools=[amr.PythonREPLTool()],
            lm=server.lm(),
        )
    assert result.output == sum(range(20))


# ask


def test_code_has_the_model_read_what_it_has_chosen_and_gets_a_typed_frame(amounts):
    def provider(request):
        if "python_repl" in request.tools:
            return code(
                "got = ask(df['text'], 'Which number?', {'n': int, 'even': bool, 'kind': ['low', 'high']})\n"
                "assert got.index.equals(df.index)\n"
                "assert [str(t) for t in got.dtypes][:2] == ['int64[pyarrow]', 'bool[pyarrow]'], got.dtypes\n"
                "submit(got)"
            )
        assert request.tools == []
        return findings(
            request,
            lambda unit: {
                "n": int(unit["text"].split()[1]),
                "even": int(unit["text"].split()[1]) % 2 == 0,
                "kind": "low",
            },
        )

    with ScriptedServer(provider) as server:
        result = amounts.amr.map_reduce(
            map="x",
            finding={"n": int, "even": bool, "kind": Literal["low", "high"]},
            reduce={"n": "sum"},
            plan=PREVIEW,
            tools=[amr.PythonREPLTool()],
            lm=server.lm(),
        )
    assert result.output["n"] == sum(range(100))
    assert result.total.calls == len(server.requests) == 3 + 2 + 2 + 1
    assert result.trace["tokens"].sum() == result.total.tokens


def test_what_code_asks_is_bounded_and_counted_in_the_budget(amounts):
    told = []

    def provider(request):
        if "python_repl" not in request.tools:
            return findings(request, lambda unit: {"answer": "x"})
        if request.tool_results:
            told.append(request.tool_results[-1])
            return code("submit([{'n': 1}] * len(df))")
        return code("ask(df['text'], 'x')")

    with ScriptedServer(provider) as server:
        tool = amr.PythonREPLTool(limits=amr.Limits(asks=39))
        amounts.head(40).amr.map("x", finding={"n": int}, plan=PREVIEW, tools=[tool], lm=server.lm())
        assert "39 texts in all" in told[0]
        result = amounts.amr.map_reduce(
            map="x",
            finding={"n": int},
            reduce={"n": "sum"},
            plan=PREVIEW,
            tools=[amr.PythonREPLTool()],
            lm=server.lm(),
            budget=amr.Budget(calls=3),
            max_parallelism=1,
        )
    assert "3 calls" in result.stopped
    assert result.total.calls == 3


def test_texts_without_an_answer_are_missing_and_told(amounts):
    def provider(request):
        if "python_repl" in request.tools:
            if not request.tool_results:
                return code("got = ask(df['text'], 'x', {'n': int})\ngot['n'].isna().sum()")
            assert "1 texts have no answer (text 7: " in request.tool_results[0]
            return code("submit(got.fillna(0))")
        if any(unit["text"] == "row 7" for unit in request.units):
            return Status(400, "no")
        return findings(request, lambda unit: {"n": 1})

    with ScriptedServer(provider) as server:
        found = amounts.head(40).amr.map(
            "x", finding={"n": int}, plan=PREVIEW, tools=[amr.PythonREPLTool()], lm=server.lm()
        )
    assert found["n"].sum() == 39


def test_a_session_holds_no_key(amounts):
    def provider(request):
        if not request.tool_results:
            return code(
                "import os, gc\n[o for o in gc.get_objects() if isinstance(o, str) and 'sk-' in o], dict(os.environ)"
            )
        assert "sk-test-secret" not in request.tool_results[0]
        return code("submit([{'n': 1}] * len(df))")

    with ScriptedServer(provider) as server:
        lm = server.lm(api_key="sk-test-secret-key")
        found = amounts.head(5).amr.map("x", finding={"n": int}, tools=[amr.PythonREPLTool()], lm=lm)
    assert found["n"].tolist() == [1] * 5


# Who failed


class Failing:
    """A sandbox of somebody's own that fails for some shards."""

    tier = "own"

    def __init__(self):
        self.opened = 0

    async def open(self, data, limits):
        self.opened += 1
        outer = self

        class Session:
            async def run(self, text, ask=None):
                if outer.opened == 2:
                    raise SandboxError("the machine burnt down")
                return Cell("", Submitted({"findings": [{"unit": n, "n": 1} for n in range(10)]}))

            async def close(self):
                pass

        return Session()

    async def close(self):
        pass


def test_a_sandbox_that_fails_fails_those_units_and_the_run_goes_on(amounts):
    sandbox = Failing()
    with ScriptedServer(lambda request: code("submit(...)")) as server:
        result = amounts.head(30).amr.map_reduce(
            map="x",
            finding={"n": int},
            reduce={"n": "sum"},
            plan={"shard_size": 10},
            tools=[amr.PythonREPLTool(sandbox=sandbox)],
            lm=server.lm(),
            max_parallelism=1,
        )
    assert result.sandbox == "own"
    assert result.output["n"] == 20
    assert set(result.failures["who"]) == {"sandbox"}
    assert set(result.failures["reason"]) == {"the machine burnt down"}
    assert len(result.failures) == 10


def test_a_session_that_dies_is_the_code_s_failure_and_the_agent_is_told(amounts):
    def provider(request):
        if not request.tool_results:
            return code("import os\nos._exit(1)")
        assert "ended itself, with status 1" in request.tool_results[0]
        return code("submit([{'n': 1}] * len(df))")

    with ScriptedServer(provider) as server:
        found = amounts.head(10).amr.map("x", finding={"n": int}, tools=[amr.PythonREPLTool()], lm=server.lm())
    assert found["n"].tolist() == [1] * 10


# Tools of the user's, inside


@amr.tool(isolated=True)
def outside(path: str) -> str:
    """Try to read a file."""
    import json
    import os

    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        return json.dumps([type(error).__name__, os.environ.get("AMR_TEST_KEY")])


def test_an_isolated_tool_runs_in_a_sandbox(numbers, monkeypatch):
    monkeypatch.setenv("AMR_TEST_KEY", "secret")
    seen = []

    def provider(request):
        if not request.tool_results:
            return Call("outside", {"path": "/etc/passwd"})
        seen.append(request.tool_results[0])
        return findings(request, lambda unit: {"n": 1})

    with ScriptedServer(provider) as server:
        numbers.head(2).amr.map("x", finding={"n": int}, tools=[outside], lm=server.lm())
    assert seen[0] in {'["FileNotFoundError", null]', '["PermissionError", null]'}
    assert outside("/dev/null") == ""


def test_an_isolated_tool_must_be_a_plain_function_of_its_own():
    around = 1

    def uses(x: int) -> int:
        """Use what is around."""
        return x + around

    async def waits(x: int) -> int:
        """Wait."""
        return x

    with pytest.raises(amr.UsageError, match="variables around it"):
        amr.Tool(uses, isolated=True)
    with pytest.raises(amr.UsageError, match="plain function"):
        amr.Tool(waits, isolated=True)
    with pytest.raises(amr.UsageError, match="plain function"):
        amr.Tool(len, name="len", isolated=True)


# Wrong calls


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"packages": "numpy"}, "list of names"),
        ({"packages": ["no_such_package"]}, "no package 'no_such_package'"),
        ({"files": ["/no/such/file"]}, "is not a file"),
        ({"limits": {"memory_mb": 1}}, "amr.Limits"),
        ({"isolation": "weak"}, "'strong', 'strict-lite', 'process'"),
        ({"sandbox": object()}, "takes an object with tier"),
    ],
)
def test_a_wrong_repl_is_told_at_once(options, match):
    with pytest.raises(amr.UsageError, match=match):
        amr.PythonREPLTool(**options)


def test_wrong_calls_with_a_repl_are_told_before_a_request_is_sent(numbers, refusing):
    with pytest.raises(amr.UsageError, match=r"tools=\[amr.PythonREPLTool\(\)\]"):
        numbers.amr.map("x", plan={"view": "preview"}, lm=refusing.lm())
    with pytest.raises(amr.UsageError, match="one PythonREPLTool"):
        numbers.amr.map("x", tools=[amr.PythonREPLTool(), amr.PythonREPLTool()], lm=refusing.lm())
    with pytest.raises(amr.UsageError, match=r"Limits\(memory_mb"):
        amr.Limits(memory_mb=0)
    small = refusing.lm(abilities=amr.Abilities(tools=False))
    with pytest.raises(amr.PlanError, match="calls no tools"):
        numbers.amr.map("x", plan={"view": "preview"}, tools=[amr.PythonREPLTool()], lm=small)


# The planner


def test_a_planner_that_knows_of_the_repl_may_choose_the_preview(amounts):
    def provider(request):
        if request.schema == "plan":
            assert "preview" in request.system
            return {
                "map_instruction": "The amount.",
                "finding": [{"name": "a", "type": "float", "description": "amount", "choices": []}],
                "view": "preview",
                "shard_size": 50,
                "parallelism": 2,
                "aggregations": [{"field": "a", "function": "sum"}],
                "reduce_instruction": "",
            }
        return code("submit(df[['amount']].rename(columns={'amount': 'a'}))")

    with ScriptedServer(provider) as server:
        result = amounts.amr.map_reduce("How much in all?", tools=[amr.PythonREPLTool()], lm=server.lm())
    assert result.plan.view == "preview"
    assert result.plan.shard_size == 50
    assert result.output["a"] == amounts["amount"].sum()


def test_superstore_totals_by_category_are_exact_to_the_cent():
    data = pytest.importorskip("bokeh_sampledata")
    from pathlib import Path

    store = pd.read_csv(Path(data.__file__).parent / "_data" / "SampleSuperstore.csv.gz")
    assert len(store) == 9994

    def provider(request):
        if not request.tool_results:
            return code("df.dtypes")
        return code("submit(pd.DataFrame({'kind': df['Category'], 'amount': df['Sales']}))")

    spent = {}
    for size in (2000, 10_000):
        with ScriptedServer(provider) as server:
            result = store.amr.map_reduce(
                map="The category and the amount.",
                finding={"kind": str, "amount": float},
                reduce={"amount": "sum"},
                by="kind",
                plan={"view": "preview", "shard_size": size},
                tools=[amr.PythonREPLTool()],
                lm=server.lm(),
            )
        truth = store.groupby("Category")["Sales"].sum()
        assert result.output["amount"].round(2).tolist() == truth.round(2).tolist()
        assert result.output.index.tolist() == truth.index.tolist()
        assert round(float(result.output["amount"].sum()), 2) == 2297200.86
        spent[size] = int(result.usage["output_tokens"].sum()) / len(result.trace[result.trace["type"] == "map"])
    assert spent[2000] == spent[10_000]


def test_a_column_of_another_kind_is_another_question_to_code_that_sees_it(tmp_path):
    days = pd.DataFrame({"day": ["2026-01-01T00:00:00", "2026-01-02T00:00:00"]})
    dates = days.assign(day=pd.to_datetime(days["day"]))
    asked = []
    for frame in (days, dates, dates, days):
        with ScriptedServer(lambda request: code("submit([{'n': 1}] * len(df))")) as server:
            frame.amr.map(
                "x",
                finding={"n": int},
                plan={"view": "preview"},
                tools=[amr.PythonREPLTool()],
                lm=server.lm(),
                journal=tmp_path / "j.sqlite",
            )
            asked.append(len(server.requests))
    assert asked == [1, 1, 0, 0]
