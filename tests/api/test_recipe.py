"""A pipeline without its frame: the same verbs on any frame, and inside one another, as one run."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import subprocess
import sys
import textwrap
from typing import Any

import pandas as pd
import pytest
from pydantic import BaseModel

import pandas_amr as amr
from moments import move_on
from pandas_amr.testing import ScriptedServer, Status, findings
from together import Together
from versions import once

ROWS = pd.DataFrame({"text": [f"row {n}" for n in range(12)]}, index=[f"label {n}" for n in range(12)])
BOOKS = pd.DataFrame(
    {
        "title": ["first", "second", "third"],
        "body": [" ".join(f"{letter}{n}" for n in range(size)) for letter, size in (("u", 20), ("v", 5), ("w", 33))],
    }
)
NUMBER = {"n": int}


def n_of(unit: dict[str, Any]) -> int:
    return int(unit["text"].split()[1])


def provider(request):
    fields = json.dumps(request.body.get("response_format", {}))
    if request.schema == "reduction":
        return {"output": f"of {len(request.findings)}", "sources": list(range(len(request.findings)))}
    if "amr_keep" in fields:
        return findings(request, lambda unit: {"amr_keep": n_of(unit) % 2 == 0})
    if '"words"' in fields:
        return findings(request, lambda unit: {"words": len(unit["chunk"].split())})
    return findings(request, lambda unit: {"n": n_of(unit)})


def by_hand(frame: pd.DataFrame, lm: Any) -> Any:
    kept = frame.amr.filter("even", lm=lm)
    mapped = kept.amr.map("the number", finding=NUMBER, lm=lm)
    return mapped.amr.reduce({"n": "sum"})


def recipe() -> amr.Recipe:
    return amr.Recipe().filter("even").map("the number", finding=NUMBER, plan={"shard_size": 2}).reduce({"n": "sum"})


LATER_MISTAKES = {
    "a column that is not there": (
        amr.Recipe().filter("Keep it?").map("Read.", finding={"n": int}, columns=["txt"]),
        "No column 'txt'. Did you mean 'text'?",
    ),
    "a finding named like a column": (
        amr.Recipe().filter("Keep?").map("Read.", finding={"text": str}),
        "'text' would hide",
    ),
    "a finding found before": (
        amr.Recipe().map("Read.", finding={"n": int}).filter("Keep?").map("Again.", finding={"n": int}),
        "The finding 'n' would hide",
    ),
    "the status found before": (
        amr.Recipe()
        .map("Read.", finding={"n": int}, plan={"status": True})
        .map("Again.", finding={"m": int}, plan={"status": True}),
        "a column 'amr_status' beside the one",
    ),
    "a field that nobody finds": (
        amr.Recipe().map("Read.", finding={"n": int}).reduce({"m": "mean"}),
        "reduce= names 'm'",
    ),
    "groups of none": (
        amr.Recipe().map("Read.", finding={"n": int}).reduce({"n": "mean"}, by="shop"),
        "by= names 'shop'",
    ),
    "a mean of choices": (
        amr.Recipe().map("Read.", finding={"kind": ["a", "b"]}).reduce({"kind": "mean"}),
        "'mean' takes numbers",
    ),
}


@pytest.mark.parametrize("rows", [ROWS, ROWS.iloc[:0]], ids=["rows", "no rows"])
@pytest.mark.parametrize(("recipe", "said"), LATER_MISTAKES.values(), ids=LATER_MISTAKES.keys())
def test_a_mistake_in_a_later_stage_is_told_before_anything_is_sent(recipe, said, rows, refusing):
    with pytest.raises(amr.UsageError) as caught:
        recipe(rows, lm=refusing.lm(), journal=False)
    assert said in str(caught.value)
    assert not isinstance(caught.value, amr.RunStopped)


def test_a_stage_that_nobody_can_foresee_is_left_to_the_run():
    halves = (
        amr.Recipe().filter(lambda shard: shard.index % 2 == 0).reduce({"n": "sum"}, by=pd.Series([0, 1], index=[0, 2]))
    )
    assert halves(pd.DataFrame({"n": [1, 2, 3, 4]})).output["n"].tolist() == [1, 3]
    made = amr.Recipe().map(lambda shard: [{"n": 1}] * len(shard)).reduce({"n": "sum"})
    assert made(ROWS).output["n"] == len(ROWS)
    changed = (
        amr.Recipe()
        .map(len_of, finding={"n": int})
        .then(lambda frame: frame.rename(columns={"n": "m"}))
        .reduce({"m": "sum"})
    )
    assert changed(ROWS).output["m"] == ROWS["text"].str.len().sum()


def len_of(shard: pd.DataFrame) -> list[int]:
    return [len(text) for text in shard["text"]]


def test_a_recipe_gives_what_the_verbs_in_a_row_give_on_any_frame():
    with ScriptedServer(provider) as server:
        for frame in (ROWS, ROWS.head(5), ROWS.iloc[::-1]):
            result = recipe()(frame, lm=server.lm())
            expected = by_hand(frame, server.lm())
            pd.testing.assert_series_equal(result.output, expected)
            piped = frame.pipe(recipe(), lm=server.lm())
            pd.testing.assert_series_equal(piped.output, expected)
    assert repr(recipe()) == "<Recipe filter, map, reduce>"
    assert result.stages[1].frame.index.tolist() == [f"label {n}" for n in (10, 8, 6, 4, 2, 0)]


def test_a_recipe_is_one_run_one_graph_one_usage_one_journal(tmp_path):
    journal = amr.Journal(tmp_path / "j.sqlite")
    with ScriptedServer(provider) as server:
        first = recipe()(ROWS, lm=server.lm(), journal=journal)
        asked = len(server.requests)
        again = recipe()(ROWS, lm=server.lm(), journal=journal)
        assert len(server.requests) == asked
    assert first.total.calls == asked
    assert again.total.calls == 0
    assert again.total.recalled == 18
    runs = journal.runs()
    assert runs["verb"].tolist() == ["recipe", "recipe"]
    assert runs["calls"].tolist() == [asked, 0]
    nodes = {node.id: node for node in first.graph().nodes}
    maps = {"1-filter/map-1", "2-map/map-1", "2-map/map-2", "2-map/map-3"}
    assert set(nodes) == maps | {"3-reduce/compute"}
    assert set(nodes["3-reduce/compute"].parents) == maps - {"1-filter/map-1"}
    assert nodes["2-map/map-2"].parents == ("1-filter/map-1",)
    assert nodes["2-map/map-2"].level == 1
    assert first.trace["tokens"].sum() == first.total.tokens


def test_what_planning_took_is_counted_once_in_each_stage():
    planned = {
        "map_instruction": "x",
        "finding": [{"name": "n", "type": "int", "choices": [], "description": ""}],
        "shard_size": 4,
        "parallelism": 2,
        "aggregations": [{"field": "n", "function": "sum"}],
        "reduce_instruction": "",
    }
    made = amr.Recipe().map("first", finding={"m": int}).map_reduce("How many in all?", columns=["text"])
    with ScriptedServer(
        lambda r: planned if r.schema == "plan" else findings(r, lambda u: {"m" if "first" in r.system else "n": 1})
    ) as server:
        result = made(ROWS, lm=server.lm())
    assert result.output["n"] == 12
    assert result.trace["tokens"].sum() == result.total.tokens
    assert result.trace.set_index("id").loc["2-map_reduce/plan", "type"] == "plan"


def test_edges_between_stages_are_those_of_the_rows():
    with ScriptedServer(provider) as server:
        made = amr.Recipe().filter("even", plan={"shard_size": 3}).map("x", finding=NUMBER, plan={"shard_size": 3})
        made = made.reduce("Combine.", plan={"fan_in": 2})
        result = made(ROWS, lm=server.lm())
    nodes = {node.id: node for node in result.graph().nodes}
    # rows 0 2 | 4 | 6 8 | 10 are kept of the filter's shards; the map's shards are 0 2 4 and 6 8 10
    assert nodes["2-map/map-1"].parents == ("1-filter/map-1", "1-filter/map-2")
    assert nodes["2-map/map-2"].parents == ("1-filter/map-3", "1-filter/map-4")
    assert nodes["3-reduce/final-reduce"].parents == ("2-map/map-1", "2-map/map-2")
    assert [nodes[name].level for name in ("1-filter/map-1", "2-map/map-1", "3-reduce/final-reduce")] == [0, 1, 2]
    assert result.output == "of 6"
    assert result.explain().index.tolist() == [f"label {n}" for n in range(0, 12, 2)]
    assert "2-map/map-1" in result.graph().to_mermaid()


def chunks(frame: pd.DataFrame) -> pd.DataFrame:
    words = frame["body"].iloc[0].split()
    return pd.DataFrame({"chunk": [" ".join(words[start : start + 6]) for start in range(0, len(words), 6)]})


def inner() -> amr.Recipe:
    return (
        amr.Recipe()
        .then(chunks)
        .map("How many words?", finding={"words": int}, plan={"shard_size": 2})
        .reduce({"words": "sum"})
    )


def test_a_recipe_inside_a_recipe_is_one_graph_one_throttle_one_journal_one_usage(tmp_path):
    """Each book, as a frame of its own, is cut into chunks and read; what comes of it is the book's finding."""
    journal = amr.Journal(tmp_path / "j.sqlite")
    outer = amr.Recipe(map=inner(), finding={"words": int}, reduce={"words": ["sum", "max"]})
    with ScriptedServer(Together(provider, 3), latency_s=0.01) as server:
        result = outer(BOOKS, lm=server.lm(), journal=journal, max_parallelism=3)
        asked = len(server.requests)
        assert server.max_in_flight == 3
        again = BOOKS.amr.map_reduce(
            map=inner(), finding={"words": int}, reduce={"words": ["sum", "max"]}, lm=server.lm(), journal=journal
        )
        assert len(server.requests) == asked
    assert result.frame["words"].tolist() == [20, 5, 33]
    assert result.output["words"].to_dict() == {"sum": 58, "max": 33}
    assert again.frame["words"].tolist() == [20, 5, 33]
    assert result.total.calls == asked == 2 + 1 + 3
    assert again.total.recalled == 4 + 1 + 6
    assert len(journal.runs()) == 2
    nodes = {node.id: node for node in result.graph().nodes}
    inside = [f"map-1/row-2/2-map/map-{n}" for n in (1, 2, 3)]
    computed = "map-1/row-2/3-reduce/compute"
    assert sorted(name for name in nodes if name.startswith("map-1/row-2/")) == [*inside, computed]
    assert set(nodes[computed].parents) == set(inside)
    assert computed in nodes["map-1"].parents
    assert [nodes[name].level for name in (inside[0], computed, "map-1", "compute")] == [0, 1, 2, 3]


def test_a_row_whose_pipeline_fails_is_listed_and_costs_no_other():
    def failing(request):
        if "w30" in request.user:
            return Status(400, "no thirties")
        return provider(request)

    strict = amr.Recipe().then(chunks).map("x", finding={"words": int}, errors="raise").reduce({"words": "sum"})
    with ScriptedServer(failing) as server, pytest.warns(amr.FailureWarning, match="1 of 3 units failed"):
        frame = BOOKS.amr.map(strict, finding={"words": int}, lm=server.lm())
    assert frame["words"].tolist()[:2] == [20, 5]
    assert pd.isna(frame["words"].iloc[2])
    failures = amr.result_of(frame).failures
    assert failures[["position", "who"]].to_numpy().tolist() == [[2, "callable"]]
    assert "no thirties" in failures["reason"].iloc[0]


def test_a_recipe_reduces_whole_and_by_groups():
    table = pd.DataFrame({"shop": ["a", "b", "a", "b"], "text": ["row 1", "row 2", "row 3", "row 4"]})
    double = amr.Recipe().map(lambda shard: [{"twice": 2 * n} for n in shard["n"]]).reduce({"twice": "sum"})
    with ScriptedServer(provider) as server:
        whole = table.amr.map_reduce(map="x", finding=NUMBER, reduce=double, lm=server.lm())
        assert whole.output["twice"] == 20
        grouped = table.amr.map_reduce(
            map="x", finding=NUMBER, reduce=double, by="shop", columns=["text"], lm=server.lm()
        )
    assert grouped.output["twice"].to_dict() == {"a": 8, "b": 12}
    assert {"map-1", "reduce/1-map/map-1"} <= set(whole.trace["id"])
    assert whole.trace.set_index("id").loc["reduce/1-map/map-1", "parents"] == ["map-1"]


def test_then_takes_a_recipe_an_async_function_and_what_a_reduce_by_groups_gave():
    async def plus_one(frame: pd.DataFrame) -> pd.DataFrame:
        await asyncio.sleep(0)
        return frame.assign(n=frame["n"] + 1)

    first = amr.Recipe().map("x", finding=NUMBER)
    groups = amr.Recipe().then(first).then(plus_one).then(lambda frame: frame.assign(high=frame["n"] > 6))
    groups = groups.reduce({"n": "sum"}, by="high").map(lambda shard: [{"half": n / 2} for n in shard["n"]])
    with ScriptedServer(provider) as server:
        result = groups(ROWS, lm=server.lm())
    assert result.frame["half"].to_dict() == {False: 10.5, True: 28.5}
    assert result.output is None
    assert result.frame.index.name == "high"


def test_a_recipe_of_functions_alone_is_a_stage_too():
    plain = amr.Recipe().then(lambda frame: frame.head(2))
    result = amr.Recipe().then(plain).map(lambda shard: [{"n": 1}] * len(shard))(ROWS)
    assert result.frame["n"].tolist() == [1, 1]
    assert [len(stage.trace) for stage in result.stages] == [0, 1]


def test_a_stage_s_trace_holds_its_own_nodes():
    with ScriptedServer(provider) as server:
        result = recipe()(ROWS, lm=server.lm())
    assert [{name.partition("/")[0] for name in stage.trace["id"]} for stage in result.stages] == [
        {"1-filter"},
        {"2-map"},
        {"3-reduce"},
    ]
    assert len(result.trace) == sum(len(stage.trace) for stage in result.stages)


def test_a_stage_s_cost_is_its_own_and_the_recipe_s_is_that_of_all(tmp_path):
    again = amr.Recipe().map("once more", finding={"again": int}, columns=["text"])
    made = amr.Recipe().filter("even").map("the number", finding=NUMBER, plan={"shard_size": 2}).then(again)

    def answer(request):
        if '"again"' in json.dumps(request.body):
            return findings(request, lambda unit: {"again": 1})
        return provider(request)

    def totals(result: amr.Result) -> list[amr.Usage]:
        return [stage.total for stage in (*result.stages, *result.stages[2].stages)]

    settings: dict[str, Any] = {"journal": tmp_path / "journal.db"}
    with ScriptedServer(answer) as server:
        lm = server.lm(prices=(1.0, 2.0))
        first = made(ROWS, lm=lm, **settings)
        second = made(ROWS, lm=lm, **settings)
    assert [total.calls for total in totals(first)] == [1, 3, 1, 1]
    assert [total.calls for total in totals(second)] == [0, 0, 0, 0]
    assert [total.recalled for total in totals(second)] == [12, 6, 6, 6]
    assert first.total.calls == len(server.requests) == 5
    assert second.total.recalled == 24
    for count in ("input_tokens", "output_tokens", "money"):
        of_stages = [getattr(stage.total, count) for stage in first.stages]
        assert all(of_stages)
        assert sum(of_stages) == pytest.approx(getattr(first.total, count))
    for stage in first.stages:
        assert stage.usage["calls"].tolist() == [stage.total.calls]


def test_a_stage_that_asks_nothing_costs_nothing():
    made = amr.Recipe().map("the number", finding=NUMBER).reduce({"n": "sum"})
    with ScriptedServer(provider) as server:
        result = made(ROWS, lm=server.lm(), journal=False)
    assert result.total.money is None, "no price is known"
    assert result.stages[1].total == amr.Usage()
    assert result.stages[1].usage.empty


def test_a_stage_s_seconds_begin_with_it():
    def wait(frame: pd.DataFrame) -> pd.DataFrame:
        move_on(1_000)
        return frame

    made = amr.Recipe().map(lambda shard: [{"a": 1}] * len(shard)).then(wait)
    result = made.map(lambda shard: [{"b": 1}] * len(shard)).then(wait)(ROWS)
    assert result.seconds > 2_000
    first, second = result.stages
    assert first.seconds < 1_000
    assert second.seconds < 1_000
    assert first.started - result.started < dt.timedelta(seconds=1_000) <= second.started - first.started


def test_a_budget_is_the_whole_recipe_s():
    with ScriptedServer(provider) as server:
        made = amr.Recipe().map("x", finding=NUMBER, plan={"shard_size": 4}).map("y", finding={"n_again": int})
        with pytest.warns(amr.FailureWarning, match="stopped early"):
            stopped = made(ROWS, lm=server.lm(), budget=amr.Budget(calls=2), max_parallelism=1)
        assert len(server.requests) == 2
    assert "budget of 2 calls" in stopped.stopped
    assert stopped.frame["n"].notna().sum() == 8


def test_a_budget_used_up_inside_a_row_s_pipeline_ends_the_whole_run():
    with ScriptedServer(provider) as server:
        made = amr.Recipe(map=inner(), finding={"words": int}, reduce={"words": "sum"})
        with pytest.warns(amr.FailureWarning, match="stopped early"):
            result = made(BOOKS, lm=server.lm(), budget=amr.Budget(calls=3), max_parallelism=1)
        assert len(server.requests) == 3
    assert "budget of 3 calls" in result.stopped
    assert result.status["status"].tolist() == ["ok", "ok", "skipped"]
    assert len(result.failures) == 0


@pytest.mark.long
@once
def test_an_interrupted_recipe_leaves_what_its_stages_found(tmp_path):
    """Ctrl-C in the second stage: the first one's findings are in the exception's partial."""
    code = f"""
    import os, signal, threading, time, warnings
    import pandas as pd
    import pandas_amr as amr
    from pandas_amr.testing import ScriptedServer, findings
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    df = pd.DataFrame({{"text": ["row 1", "row 2"]}})
    def provider(request):
        return findings(request, lambda unit: {{"m" if "slow" in request.system else "n": 1}})
    with ScriptedServer(provider, latency_s=lambda r: 20.0 if "slow" in r.system else 0.0) as server:
        made = amr.Recipe().map("quick", finding={{"n": int}}).map("slow", finding={{"m": int}})

        def interrupt():
            while not any("slow" in request.system for request in server.requests):
                time.sleep(0.02)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        try:
            made(df, lm=server.lm(), journal={str(tmp_path / "j.sqlite")!r})
        except KeyboardInterrupt as error:
            print(error.partial.stages[0].frame["n"].tolist(), error.partial.total.calls, flush=True)
            os._exit(0)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines() == ["[1, 1] 1"], done.stderr


def test_a_recipe_streams_and_can_be_cancelled():
    with ScriptedServer(provider) as server:
        run = recipe().start(ROWS, lm=server.lm())
        seen = list(run)
        assert sorted(one["n"] for one in seen if "n" in one) == [0, 2, 4, 6, 8, 10]
        assert run.progress.done
    with ScriptedServer(provider, latency_s=5.0) as server:
        run = recipe().start(ROWS, lm=server.lm())
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            run.result()


def test_failures_tell_their_stage():
    def failing(request):
        found = provider(request)
        return Status(400, "no") if any(n_of(unit) == 4 for unit in request.units) else found

    with ScriptedServer(failing) as server, pytest.warns(amr.FailureWarning):
        result = recipe()(ROWS, lm=server.lm())
    assert result.failures[["stage", "label"]].to_numpy().tolist() == [[1, "label 4"], [2, "label 4"]]
    assert result.output["n"] == 0 + 2 + 6 + 8 + 10


def test_a_recipe_s_result_is_saved_with_its_stages(tmp_path):
    def failing(request):
        return Status(400, "no") if any(n_of(unit) == 10 for unit in request.units) else provider(request)

    with ScriptedServer(failing) as server, pytest.warns(amr.FailureWarning):
        result = recipe()(ROWS, lm=server.lm())
    result.save(tmp_path)
    loaded = amr.load(tmp_path)
    pd.testing.assert_frame_equal(loaded.failures, result.failures)
    pd.testing.assert_frame_equal(loaded.frame, result.frame)
    assert [len(stage.frame) for stage in loaded.stages] == [len(stage.frame) for stage in result.stages]
    assert loaded.stages[0].failures["label"].tolist() == ["label 10"]
    assert loaded.graph().to_mermaid() == result.graph().to_mermaid()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda lm: amr.Recipe()(ROWS, lm=lm), "no stage"),
        (lambda lm: amr.Recipe().map("x", journal="j"), "the whole run's"),
        (lambda lm: amr.Recipe().map("x", colums=["text"]), "takes no 'colums'"),
        (lambda lm: amr.Recipe().then(3), "a recipe or a function"),
        (lambda lm: amr.Recipe({"shard_sise": 3}), "shard_sise"),
        (lambda lm: amr.Recipe().map("x", tools=[3]), "A tool is a function"),
        (lambda lm: amr.Recipe().map("x")(ROWS, lm=lm, tools=[]), "takes: lm, errors"),
        (lambda lm: amr.Recipe().map("x", columns=["tex"])(ROWS, lm=lm), "Did you mean 'text'"),
        (lambda lm: amr.Recipe().reduce({"text": "count"}).map("x")(ROWS, lm=lm), "Stage 2, map, takes a frame"),
        (lambda lm: recipe()(1, lm=lm), "must hold rows: a pandas DataFrame .* not int"),
    ],
)
def test_a_wrong_recipe_says_so_before_anything_is_sent(make, reason, refusing):
    with pytest.raises(ValueError, match=reason):
        make(refusing.lm())


def test_a_recipe_of_functions_needs_no_model():
    made = amr.Recipe().map(lambda shard: [{"n": len(text)} for text in shard["text"]]).reduce({"n": "max"})
    assert made(ROWS).output["n"] == 6
    nested = ROWS.amr.map_reduce(
        map=amr.Recipe()
        .map(lambda shard: [{"n": len(text)} for text in shard["text"]])
        .reduce({"n": "max"}, output=int),
        finding={"size": int},
        reduce={"size": "sum"},
    )
    assert nested.output["size"] == 62


def failing_at(*numbers):
    def answered(request):
        return Status(400, "no") if any(n_of(unit) in numbers for unit in request.units) else provider(request)

    return answered


# What a recipe's result says fits its rows


def test_a_recipe_that_ends_in_a_filter_has_the_status_and_findings_of_the_rows_that_are_kept():
    made = amr.Recipe().map("the number", finding=NUMBER, columns=["text"]).filter("even", columns=["text"])
    with ScriptedServer(failing_at(11)) as server, pytest.warns(amr.FailureWarning):
        result = made(ROWS, lm=server.lm())
    assert result.frame["text"].tolist() == [f"row {n}" for n in (0, 2, 4, 6, 8, 10, 11)]
    assert result.findings.index.tolist() == result.status.index.tolist() == result.frame.index.tolist()
    assert result.findings.columns.tolist() == ["n"]
    assert result.status["status"].tolist() == ["ok"] * 6 + ["failed"]
    assert result.review().index.tolist() == ["label 11"]
    assert result.score({"n": [0, 2, 4, 6, 8, 10, 11]}).fields.loc["n", "right"] == 6
    with pytest.raises(amr.UsageError, match="Labels are of the findings 'n'"):
        result.score({"amr_keep": [True] * 7})


def test_what_a_function_made_of_the_rows_has_no_status_but_their_findings():
    made = amr.Recipe().map("x", finding=NUMBER).then(lambda frame: frame.iloc[::-1].head(3))
    with ScriptedServer(failing_at(10)) as server, pytest.warns(amr.FailureWarning):
        result = made(ROWS, lm=server.lm())
    assert result.findings["n"].fillna(-1).tolist() == result.frame["n"].fillna(-1).tolist() == [11, -1, 9]
    assert result.status is None
    assert result.review().index.tolist() == ["label 10"]


def test_an_answer_that_a_function_changed_has_no_sources():
    def answered(request):
        if request.schema == "reduction":
            return {"output": [{"name": "x", "sources": [1]}, {"name": "y", "sources": [3]}]}
        return provider(request)

    class Item(BaseModel):
        name: str

    first = amr.Recipe().map_reduce(map="x", finding=NUMBER, reduce="All.", output=list[Item])
    with ScriptedServer(answered) as server:
        kept = first(ROWS, lm=server.lm())
        changed = first.then(lambda frame: frame.assign(more=1))(ROWS, lm=server.lm())
    assert kept.explain(1).index.tolist() == ["label 3"]
    assert changed.frame["name"].tolist() == ["x", "y"]
    assert changed.coverage is changed.status is None
    with pytest.raises(amr.UsageError, match="no sources"):
        changed.explain(1)


def test_the_stages_of_a_recipe_are_verified_and_run_again_one_by_one():
    failing = [4]
    made = amr.Recipe().map("the number", finding=NUMBER, columns=["text"]).filter("even", columns=["text"])
    with ScriptedServer(lambda request: failing_at(*failing)(request)) as server:
        with pytest.warns(amr.FailureWarning):
            result = made(ROWS, lm=server.lm())
        failing.clear()
        assert result.stages[0].retry().frame["n"].tolist() == list(range(12))
        assert result.stages[1].verify(share=1.0).agreement.loc["amr_keep", "rows"] == 11
        with pytest.raises(amr.UsageError, match=r"result\.stages\[i\]\.retry\(\), i from 0 to 1"):
            result.retry()
        with pytest.raises(amr.UsageError, match=r"result\.stages\[i\]\.verify\(\), i from 0 to 1"):
            result.verify()


# What fails inside, and on the way


def twice(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.assign(text="row 2")])


def test_a_row_whose_pipeline_failed_in_part_is_listed_with_the_reason():
    """Each row has two units inside; one of them fails: no sum of the other one alone is the row's finding."""
    half = amr.Recipe().then(twice).map("x", finding=NUMBER, plan={"shard_size": 1}).reduce({"n": "sum"})
    with ScriptedServer(failing_at(1, 3)) as server:
        result = ROWS.head(4).amr.map_reduce(map=half, finding=NUMBER, reduce={"n": "sum"}, lm=server.lm())
    assert result.frame["n"].fillna(-1).tolist() == [2, -1, 4, -1]
    assert result.status["status"].tolist() == ["ok", "failed", "ok", "failed"]
    assert result.failures[["position", "who"]].to_numpy().tolist() == [[1, "callable"], [3, "callable"]]
    assert "1 of its 2 units failed" in result.failures["reason"].iloc[0]
    assert "400: no (model)" in result.failures["reason"].iloc[0]
    assert result.output["n"] == 6


def test_a_reduce_whose_pipeline_failed_in_part_is_listed_too():
    inside = amr.Recipe().map("again", finding={"m": int}, columns=["text"]).reduce({"m": "sum"})

    def answered(request):
        if '"m"' not in json.dumps(request.body["response_format"]):
            return provider(request)
        failed = any(n_of(unit) == 7 for unit in request.units)
        return Status(400, "no") if failed else findings(request, lambda unit: {"m": n_of(unit)})

    with ScriptedServer(answered) as server, pytest.warns(amr.FailureWarning, match="The reduce failed"):
        result = amr.Recipe().reduce(inside)(ROWS, lm=server.lm())
    assert result.output is None
    assert "1 of its 12 units failed; the first, row 7" in result.failures["reason"].iloc[0]


@pytest.mark.parametrize(
    ("second", "error"),
    [
        ({"answer": Status(401, "the key is wrong")}, amr.ModelConfigError),
        ({"answer": Status(400, "no"), "errors": "raise"}, amr.MapFailed),
        ({"budget": amr.Budget(calls=1), "errors": "raise"}, amr.BudgetExceeded),
        ({"budget": amr.Budget(confirm=lambda estimate: estimate.asked == 12)}, amr.NotConfirmed),
        ({"then": lambda frame: frame["no such column"]}, amr.RunStopped),
    ],
    ids=["401", "nothing succeeded", "budget", "not confirmed", "then raised"],
)
@pytest.mark.parametrize("nested", [False, True])
def test_an_error_in_a_later_stage_takes_what_the_stages_before_it_found(second, error, nested):
    def answered(request):
        fields = json.dumps(request.body["response_format"])
        return second["answer"] if '"m"' in fields and "answer" in second else provider(request)

    made = amr.Recipe().map("the number", finding=NUMBER, columns=["text"]).then(lambda frame: frame.head(6))
    rest = amr.Recipe().then(second["then"]) if "then" in second else amr.Recipe().map("y", finding={"m": int})
    made = amr.Recipe().then(made.then(rest)) if nested else made.then(rest)
    options = {name: second[name] for name in ("budget", "errors") if name in second}
    with ScriptedServer(answered) as server, pytest.raises(error) as caught:
        made(ROWS, lm=server.lm(), **options)
    partial = caught.value.partial
    first = partial.stages[0].stages[0] if nested else partial.stages[0]
    assert first.frame["n"].tolist() == list(range(12))
    assert partial.total.calls == len(server.requests) - ("answer" in second) * (len(server.requests) - 1)
    assert partial.frame["n"].tolist()[:6] == list(range(6))


def test_what_was_found_before_a_no_is_of_the_rows_that_were_kept():
    budget = amr.Budget(confirm=lambda estimate: estimate.units == 12)
    with ScriptedServer(provider) as server, pytest.raises(amr.NotConfirmed) as caught:
        recipe()(ROWS, lm=server.lm(), budget=budget)
    partial = caught.value.partial
    assert partial.frame["text"].tolist() == [f"row {n}" for n in (0, 2, 4, 6, 8, 10)]
    assert partial.status.index.tolist() == partial.findings.index.tolist() == partial.frame.index.tolist()
    assert len(partial.stages) == partial.total.calls == 1


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"errors": "ignore"}, 'takes "coerce" or "raise"'),
        ({"max_parallelism": 0}, "a whole number from 1"),
        ({"max_parallelism": "x"}, "a whole number from 1"),
        ({"max_parallelism": -3}, "a whole number from 1"),
        ({"budget": 5}, r"takes amr\.Budget"),
        ({"progress": "x"}, "takes True or False"),
    ],
)
def test_a_wrong_setting_is_refused_as_the_verbs_do(settings, reason, refusing):
    for made in (recipe(), amr.Recipe().then(recipe())):
        with pytest.raises(amr.UsageError, match=reason):
            made(ROWS, lm=refusing.lm(), **settings)
    if "errors" in settings:
        with pytest.raises(amr.UsageError, match=reason):
            amr.Recipe().map("x", **settings)


def test_then_waits_for_whatever_can_be_awaited():
    class Later:
        async def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
            await asyncio.sleep(0)
            return frame.head(2)

    for later in (Later(), lambda frame: Later()(frame)):
        result = amr.Recipe().then(later).map(lambda shard: [{"n": 1}] * len(shard))(ROWS)
        assert result.frame["n"].tolist() == [1, 1]


def test_a_recipe_whose_agents_are_all_inside_another_has_the_model_that_is_named():
    with ScriptedServer(provider) as server:
        for named, given in (({}, {"lm": server.lm()}), ({"lm": server.lm()}, {})):
            inside = amr.Recipe().map("x", finding=NUMBER, **named).reduce({"n": "sum"})
            mapped = amr.Recipe().map(inside, finding=NUMBER)(ROWS, **given)
            assert mapped.frame["n"].tolist() == list(range(12))
            assert amr.Recipe().reduce(inside)(ROWS, **given).output["n"] == 66


def test_a_recipe_with_agents_at_its_end_asks_before_each_stage():
    asked: list[amr.Estimate] = []
    budget = amr.Budget(confirm=lambda estimate: asked.append(estimate) or True)
    with ScriptedServer(provider) as server:
        result = amr.Recipe().map("x", finding=NUMBER).reduce("Say it.")(ROWS, lm=server.lm(), budget=budget)
    assert result.output == "of 12"
    assert [estimate.calls for estimate in asked] == [1, 1]
