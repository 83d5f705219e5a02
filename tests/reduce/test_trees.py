"""Adaptive trees, direct answers, sources, personas, graphs: reduce where it must be written."""

from __future__ import annotations

import asyncio
import json
import math
import random
import threading
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Literal

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import pandas_amr as amr
from examples import examples
from moments import until
from numbered import labelled_rows as rows
from pandas_amr._findings.citations import Support
from pandas_amr._findings.inputs import ReduceInput
from pandas_amr._findings.output import Reduction
from pandas_amr._records.trace import Trace
from pandas_amr._records.usage import Usage
from pandas_amr._reduce.adaptive_tree import AdaptiveTree
from pandas_amr._reduce.failures import LostFindings
from pandas_amr._reduce.packing import first_fit_decreasing, next_level
from pandas_amr.testing import ScriptedServer, Status, findings
from versions import once

MAPS = {"finding", "findings"}  # of one unit, and of several
VECTORS = json.loads((Path(__file__).parents[1] / "data" / "reduce_tree.json").read_text())


def words(text: str) -> int:
    return len(text.split())


def n_of(unit: dict) -> int:
    return int(unit["text"].split()[1])


def provider(request):
    if request.schema in MAPS:
        return findings(request, lambda unit: {"n": n_of(unit)})
    return {"output": "combined", "sources": list(range(len(request.findings)))}


# Bins and levels


@pytest.mark.parametrize("vector", VECTORS["bins"]["vectors"], ids=lambda v: str(v["tokens"]))
def test_bins_are_the_published_ones(vector):
    assert first_fit_decreasing(vector["tokens"], vector["budget"]) == vector["bins"]


@pytest.mark.parametrize("vector", VECTORS["adaptive"]["vectors"], ids=lambda v: f"{v['map_tokens']}/{v['budget']}")
def test_adaptive_trees_have_the_published_shapes(vector):
    """Sizes by the rule alone: groups of one keep their tokens, as the tree passes them through."""
    tokens, budget = list(vector["map_tokens"]), vector["budget"]
    answers = vector["reduce_tokens"] if isinstance(vector["reduce_tokens"], list) else [vector["reduce_tokens"]]
    sizes = [len(tokens)]
    for level in range(10):
        groups = next_level(tokens, budget)
        if groups is None:
            break
        answer = answers[min(level, len(answers) - 1)]
        tokens = [answer if len(group) > 1 else tokens[group[0]] for group in groups]
        sizes.append(len(groups))
    assert [*sizes, 1] == vector["sizes"]


@settings(max_examples=examples(100))
@given(st.lists(st.integers(0, 300), max_size=80), st.integers(1, 200))
def test_no_bin_is_over_the_budget_unless_one_item_alone_is_and_none_is_lost(tokens, budget):
    bins = first_fit_decreasing(tokens, budget)
    assert sorted(item for group in bins for item in group) == list(range(len(tokens)))
    for group in bins:
        assert sum(tokens[item] for item in group) <= budget or len(group) == 1
    open_ = [sum(tokens[i] for i in group) for group in bins if sum(tokens[i] for i in group) <= budget]
    assert sum(2 * size <= budget for size in open_) <= 1  # first fit leaves at most one bin half empty


class Counting:
    """A reducer that answers in as many tokens as it is told, and counts."""

    def __init__(self, answer: int) -> None:
        self.answer = answer
        self.calls: list[tuple[int, bool]] = []
        self.read: list[frozenset[int]] = []
        self.lost = LostFindings()
        self.count = words

    def size(self, one: ReduceInput) -> int:
        return words(one.line)

    async def reduce(self, inputs, *, final, notes=None):
        self.calls.append((sum(self.size(one) for one in inputs), final))
        behind = frozenset().union(*(one.rows for one in inputs))
        if final:
            self.read.append(behind)
        text = " ".join(["x"] * max(1, self.answer - 1))
        return Reduction(text, (Support(behind),), Usage(calls=1))


def grown(sizes: list[int], budget: int, answer: int, **options):
    reducer, trace = Counting(answer), Trace()
    inputs = [
        ReduceInput(" ".join(["w"] * size), Support(frozenset((n,))), (f"map-{n}",)) for n, size in enumerate(sizes)
    ]
    tree = AdaptiveTree(reducer, budget, options.get("levels", 10), trace, parallelism=4)
    reduced = asyncio.run(tree.reduce(inputs))
    return reducer, trace, reduced


@settings(deadline=None, max_examples=examples(100))
@example([1, 30] + [31] * 8, 60, 2)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=120), st.integers(60, 300), st.integers(2, 20))
def test_any_sizes_and_budget_nothing_is_over_lost_or_doubled_and_levels_are_logarithmic(sizes, budget, answer):
    reducer, trace, reduced = grown(sizes, budget, answer)
    assert all(size <= budget for size, _ in reducer.calls)
    assert reduced.support == (Support(frozenset(range(len(sizes)))),)
    made = [node for node in trace.nodes if node.status != "passed"]
    assert len(made) == len(reducer.calls)
    assert sum(node.usage.calls for node in trace.nodes) == len(reducer.calls)
    levels = max(node.level for node in trace.nodes)
    assert levels <= 5 + math.ceil(math.log2(max(2, sum(sizes) / budget)))


def test_findings_just_over_half_of_the_budget_do_not_take_a_level_each():
    """Each level pairs one of them with what the last one made: ten levels, were they not condensed."""
    reducer, trace, reduced = grown([1, 30] + [31] * 40, 60, 2)
    assert max(node.level for node in trace.nodes) <= 4
    assert reducer.lost.truncated == 0
    assert reduced.support == (Support(frozenset(range(42))),)


@pytest.mark.parametrize("answer", [200, 2000])
def test_findings_that_never_shrink_come_to_an_end_within_two_extra_levels(answer):
    reducer, trace, _ = grown([100] * 40, 250, answer)
    assert max(node.level for node in trace.nodes) <= 1 + 2
    assert reducer.lost.truncated > 0
    assert all(size <= 250 for size, _ in reducer.calls)


def test_a_finding_over_the_budget_is_split_and_condensed_once():
    reducer, trace, reduced = grown([1000, 20, 20], 100, 10)
    condensed = [node for node in trace.nodes if node.type == "reduce" and node.parents == ("reduce-1-0",)]
    assert len(condensed) >= 10
    assert all(size <= 100 for size, _ in reducer.calls)
    assert reduced.support == (Support(frozenset(range(3))),)


# Runs


def long_texts(count: int) -> pd.DataFrame:
    chance = random.Random(5)
    return pd.DataFrame(
        {"text": [f"row {n}" for n in range(count)], "size": [chance.randint(50, 2000) for _ in range(count)]}
    )


@once
@pytest.mark.long
def test_10_000_findings_and_an_8_000_token_window_no_request_is_over_it(refusing):
    del refusing
    df = long_texts(10_000)
    sizes = dict(zip(df["text"], df["size"], strict=True))
    window = 8000
    greatest = []

    def mapped(frame):
        return [{"why": " ".join(["w"] * sizes[text])} for text in frame["text"]]

    def script(request):
        greatest.append(sum(words(str(message["content"])) for message in request.messages))
        return {"output": "noted " * 100, "sources": [0, len(request.findings) - 1]}

    with ScriptedServer(script) as server:
        lm = server.lm(abilities=amr.Abilities(context_window=window), token_counter=words, max_output_tokens=500)
        result = df.amr.map_reduce(map=mapped, finding={"why": str}, reduce="All.", lm=lm, max_parallelism=16)
        made = result.trace[(result.trace["type"] != "map") & (result.trace["status"] != "passed")]
        assert len(server.requests) == len(made)
    assert max(greatest) + 500 <= window
    assert result.graph().mode == "adaptive"
    assert result.output.startswith("noted")


def test_what_is_too_much_for_the_window_is_cut_and_told():
    df = pd.DataFrame({"text": [f"row {n}" for n in range(3)]})

    def script(request):
        if request.schema in MAPS:
            return findings(request, lambda unit: {"why": "word " * 900})
        return {"output": "word " * 900, "sources": [0]}

    with ScriptedServer(script) as server:
        lm = server.lm(abilities=amr.Abilities(context_window=2000), token_counter=words, max_output_tokens=100)
        frame = df.amr.map("x", finding={"why": str}, lm=lm)
        with pytest.warns(amr.FailureWarning, match="cut to fit the model's window"):
            frame.amr.reduce("All.", columns=["why"], lm=lm)
    assert all(sum(words(str(m["content"])) for m in r.messages) < 2000 for r in server.requests)
    assert "were cut to fit" in server.requests[-1].user or "beginning" in server.requests[-1].user


def test_a_window_half_of_which_the_prompt_takes_leaves_a_quarter_of_the_rest_for_findings():
    df = pd.DataFrame({"why": [f"a finding of many words, number {number}. " * 12 for number in range(20)]})
    for window in (700, 800, 1000, 2000):  # 881 requests at 800, before
        with ScriptedServer(lambda r: {"output": "so it is", "sources": [0]}) as server:
            lm = server.lm(abilities=amr.Abilities(context_window=window, tools=False))
            df.amr.reduce("All.", lm=lm)
        assert len(server.requests) < 50, window
    with ScriptedServer(lambda r: {"output": "so it is", "sources": [0]}) as server:
        lm = server.lm(abilities=amr.Abilities(context_window=1000, tools=False))
        df.amr.reduce("All.", plan={"budget_ratio": 0.51}, lm=lm)
    assert len(server.requests) > 50  # a share of the user's is taken as it is


def test_plan_fields_of_an_adaptive_tree_are_kept():
    df = rows(40)
    for plan in (
        {"reduce_budget": 80},
        {"context_window": 1000, "budget_ratio": 0.9},
        {"reduce_budget": 80, "max_reduce_levels": 1},
    ):
        with ScriptedServer(provider) as server:
            lm = server.lm(token_counter=words, max_output_tokens=100)
            result = df.amr.map_reduce(map="x", finding={"n": int}, reduce="All.", plan=plan | {"shard_size": 4}, lm=lm)
        reads = [len(request.findings) for request in server.requests if request.schema == "reduction"]
        if "reduce_budget" in plan:
            assert max(reads[:-1]) <= 80 // 10 + 1
            assert result.trace["level"].max() >= 2
        nodes = set(result.trace["id"])
        assert all(parent in nodes for parents in result.trace["parents"] for parent in parents)


def test_a_static_tree_has_done_all_that_does_not_wait_for_a_slow_shard():
    opened = threading.Event()

    async def slow(request):
        if request.units and n_of(request.units[0]) == 1:  # nothing is sent before row 0's answer
            assert await asyncio.to_thread(opened.wait, 60)
        return provider(request)

    with ScriptedServer(slow) as server:
        run = rows(27).amr.start(
            map="x",
            finding={"n": int},
            reduce="All.",
            plan={"shard_size": 1, "fan_in": 3, "parallelism": 9},
            lm=server.lm(),
        )
        until(lambda: len(server.requests) == 27 + 8 + 2 and server.in_flight == 1)
        rows(28).tail(1).amr.map("x", lm=server.lm(), finding={"n": int})  # answered after all that was before it
        opened.set()
        result = run.result()
    trace = result.trace.set_index("id")
    slow_ends = trace.loc["map-2", "start"] + trace.loc["map-2", "seconds"]
    waits = {"reduce-1-0", "reduce-2-0", "final-reduce"}
    for name, node in trace[trace["type"].isin(["reduce", "final-reduce"])].iterrows():
        ended = node["start"] + node["seconds"]
        assert (ended > slow_ends) == (name in waits), name


# Direct


def test_direct_where_everything_fits_and_the_normal_way_where_not():
    df = rows(3)
    joined = sum(words(line) for line in ('{"text": "row 0"}',)) * 3
    for budget, direct in ((joined, True), (joined - 1, False)):
        with ScriptedServer(provider) as server, warnings.catch_warnings():
            warnings.simplefilter("ignore", amr.FailureWarning)  # so small a budget holds no finding whole
            lm = server.lm(token_counter=words, max_output_tokens=100)
            result = df.amr.map_reduce(
                map="x", finding={"n": int}, reduce="All.", plan={"direct": True, "reduce_budget": budget}, lm=lm
            )
        assert (result.trace["type"].tolist() == ["direct"]) == direct
        assert (len(server.requests) == 1) == direct
        assert result.graph().mode == ("direct" if direct else "adaptive")
        assert ("n" in result.frame.columns) == (not direct)
        assert result.output == "combined"
        if direct:
            assert result.sources["label"].tolist() == ["label 0", "label 1", "label 2"]


# Sources


class Theme(BaseModel):
    name: str


def test_sources_are_corrected_and_resolved_through_three_levels_and_explained(tmp_path):
    df = rows(27)
    wrong = []

    def script(request):
        if request.schema in MAPS:
            return provider(request)
        if not wrong and request.findings[0].get("n") == 3:
            wrong.append(1)
            return {"output": [{"name": "invented", "sources": [99]}]}
        read = request.findings
        odd = [f["finding"] for f in read if f.get("n", 1) % 2 == 1 and f.get("name", "odd") == "odd"]
        even = [f["finding"] for f in read if f.get("n", 0) % 2 == 0 and f.get("name", "even") == "even"]
        return {"output": [{"name": "odd", "sources": odd}, {"name": "even", "sources": even}]}

    with ScriptedServer(script) as server:
        result = df.amr.map_reduce(
            map="x",
            finding={"n": int},
            reduce="Themes.",
            output=list[Theme],
            plan={"shard_size": 1, "fan_in": 3},
            lm=server.lm(),
        )
    assert wrong
    assert result.trace["level"].max() == 3
    assert result.output["name"].tolist() == ["odd", "even"]
    labels = {item: part["label"].tolist() for item, part in result.sources.groupby("item")}
    assert labels == {0: [f"label {n}" for n in range(1, 27, 2)], 1: [f"label {n}" for n in range(0, 27, 2)]}
    assert result.explain(0)["n"].tolist() == list(range(1, 27, 2))
    assert result.explain(1).index.tolist() == [f"label {n}" for n in range(0, 27, 2)]
    assert result.coverage == 1.0
    with pytest.raises(amr.UsageError, match="no item 7"):
        result.explain(7)
    result.save(tmp_path)
    loaded = amr.load(tmp_path)
    pd.testing.assert_frame_equal(loaded.explain(1), result.explain(1))
    assert loaded.coverage == 1.0
    assert loaded.graph() == result.graph()


def test_sources_by_groups_and_none_where_pandas_computed():
    df = rows(6).assign(shop=["a", "b"] * 3)
    with ScriptedServer(provider) as server:
        options = {"map": "x", "columns": ["text"], "finding": {"n": int}, "lm": server.lm()}
        grouped = df.amr.map_reduce(reduce="All.", by="shop", **options)
        computed = df.amr.map_reduce(reduce={"n": "sum"}, **options)
    assert grouped.explain(group="b")["n"].tolist() == [1, 3, 5]
    assert computed.sources is None
    with pytest.raises(amr.UsageError, match="no sources"):
        computed.explain()


# Failures on the way


def test_a_node_that_fails_is_listed_and_the_rest_goes_on_and_the_last_is_told():
    def script(request):
        if request.schema in MAPS:
            return provider(request)
        if any(found.get("n") == 4 for found in request.findings):
            return Status(400, "no")
        return {"output": "part", "sources": [0]}

    options = {"map": "x", "finding": {"n": int}, "reduce": "All.", "plan": {"shard_size": 1, "fan_in": 3}}
    with ScriptedServer(script) as server:
        with pytest.warns(amr.FailureWarning, match="reduce-1-1"):
            result = rows(9).amr.map_reduce(lm=server.lm(), **options)
        assert result.output == "part"
        assert result.failures["reason"].str.contains("reduce-1-1").all()
        assert "The findings of 3 rows were lost" in server.requests[-1].user
        assert result.trace.set_index("id").loc["reduce-1-1", "status"] == "failed"
        with pytest.raises(amr.ModelRejected):
            rows(9).amr.map_reduce(lm=server.lm(), errors="raise", **options)


def test_failed_units_are_told_to_whom_writes_the_answer():
    def script(request):
        if request.schema in MAPS and any(n_of(unit) == 2 for unit in request.units):
            return Status(400, "no")
        return provider(request)

    with ScriptedServer(script) as server:
        result = rows(6).amr.map_reduce(map="x", finding={"n": int}, reduce="All.", lm=server.lm())
    assert "1 of 6 rows have no finding" in server.requests[-1].user
    assert result.coverage == pytest.approx(5 / 6)


# Computed


def test_a_number_asked_of_agents_over_numeric_findings_is_computed():
    def script(request):
        if request.schema in MAPS:
            return provider(request)
        assert "pandas computes it" in request.system
        return {"output": {"field": "n", "function": "sum"}, "sources": []}

    with ScriptedServer(script) as server:
        result = rows(500).amr.map_reduce(map="x", finding={"n": int}, reduce="How much?", output=int, lm=server.lm())
        assert sum(request.schema == "reduction" for request in server.requests) == 1
    assert result.output == sum(range(500))
    assert result.coverage == 1.0


@pytest.mark.parametrize("rows", [1000, pytest.param(5000, marks=pytest.mark.long)])
def test_counts_over_thousands_of_rows_equal_those_of_the_findings_exactly(rows):
    """A mapper errs on 5 %: what is computed counts its findings; what an agent writes is what the agent says."""
    chance = random.Random(3)
    truth = [chance.choice(["a", "b", "c"]) for _ in range(rows)]
    df = pd.DataFrame({"text": [f"row {n}" for n in range(rows)], "truth": truth})

    def script(request):
        if request.schema in MAPS:

            def label(unit):
                right = truth[n_of(unit)]
                return {"label": right if random.Random(n_of(unit)).random() > 0.05 else "abc"["abc".index(right) - 1]}

            return findings(request, label)
        counts = dict.fromkeys("abc", 0)
        for place, found in enumerate(request.findings):
            if "label" in found and place % 30 != 29:  # it skips one in thirty of those it reads
                counts[found["label"]] += found.get("rows", 1)
            for key, count in json.loads(found.get("output", "{}")).items():
                counts[key] += count
        return {"output": json.dumps(counts), "sources": []}

    options = {"map": "Label.", "columns": "text", "finding": {"label": Literal["a", "b", "c"]}}
    with ScriptedServer(script) as server:
        computed = df.amr.map_reduce(reduce={"label": "value_counts"}, lm=server.lm(), **options)
        written = df.amr.map_reduce(reduce="Count the labels.", plan={"fan_in": 5}, lm=server.lm(), **options)
    assert (
        computed.output["label"].sort_index().to_dict()
        == pd.Series(computed.frame["label"].astype(str)).value_counts().sort_index().to_dict()
    )
    assert computed.output["label"].sum() == rows
    wrong = (computed.frame["label"].astype(str) != df["truth"]).mean()
    assert 0.03 < wrong < 0.07
    assert sum(json.loads(written.output).values()) == rows - 3 * (rows // 100)  # nothing in the answer shows it


HOWS = ["sum", "mean", "min", "max", "count", "median", "nunique", "first", ["sum", "mean"]]


@settings(deadline=None, max_examples=examples(40))
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from(["x", "y", "z"]), st.integers(-9, 9)),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from(HOWS),
    st.sampled_from([["k"], ["c"], ["k", "c"]]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_by_groups_as_pandas_does_dtypes_and_index_included(records, how, keys, sort, dropna, observed):
    frame = pd.DataFrame(records, columns=["k", "c", "n"])
    frame["c"] = pd.Categorical(frame["c"], categories=["z", "y", "x", "w"])
    by = amr.By(*keys, sort=sort, dropna=dropna, observed=observed)
    key = keys[0] if len(keys) == 1 else keys
    expected = frame.groupby(key, sort=sort, dropna=dropna, observed=observed).agg({"n": how})
    pd.testing.assert_frame_equal(frame.amr.reduce({"n": how}, by=by), expected)
    named = frame.groupby(key, sort=sort, dropna=dropna, observed=observed).agg(total=("n", "sum"), size=("n", "count"))
    given_ = frame.amr.reduce({"total": ("n", "sum"), "size": pd.NamedAgg("n", "count")}, by=by)
    pd.testing.assert_frame_equal(given_, named)
    listed = frame.amr.reduce(lambda part: {"n": int(part["n"].sum())}, by=by)
    pd.testing.assert_index_equal(listed.index, expected.index)
    if len(listed):
        assert (
            listed["n"].tolist() == frame.groupby(key, sort=sort, dropna=dropna, observed=observed)["n"].sum().tolist()
        )


def test_aggregations_and_agents_side_by_side_whole_and_by_groups():
    df = rows(6).assign(shop=["a", "b"] * 3)

    async def spread(column):
        await asyncio.sleep(0)
        return int(column.max() - column.min())

    def script(request):
        if request.schema in MAPS:
            return findings(request, lambda unit: {"n": n_of(unit), "theme": f"theme {n_of(unit)}"})
        assert all(found.keys() <= {"finding", "theme"} for found in request.findings)
        assert "You are an editor." in request.system
        return {"output": ",".join(found["theme"][-1] for found in request.findings), "sources": [0]}

    reduce = {
        "n": "mean",
        "theme": amr.Agent("One name for all.", role="an editor"),
        "spread": ("n", spread),
    }
    options = {"map": "x", "columns": ["text"], "finding": {"n": int, "theme": str}, "reduce": reduce}
    with ScriptedServer(script) as server:
        whole = df.amr.map_reduce(lm=server.lm(), **options)
        grouped = df.amr.map_reduce(lm=server.lm(), by="shop", **options)
    assert whole.output == {"n": 2.5, "theme": "0,1,2,3,4,5", "spread": 5}
    assert list(whole.output) == ["n", "theme", "spread"]
    assert grouped.output.to_dict("index") == {
        "a": {"n": 2.0, "theme": "0,2,4", "spread": 4},
        "b": {"n": 3.0, "theme": "1,3,5", "spread": 4},
    }
    assert whole.explain(group="theme")["n"].tolist() == [0]


def test_an_output_of_free_records_is_a_frame():
    def script(request):
        if request.schema in MAPS:
            return provider(request)
        return {"output": [{"a": 1, "b": "x"}, {"a": 2, "b": None}], "sources": [0]}

    with ScriptedServer(script) as server:
        result = rows(4).amr.map_reduce(
            map="x", finding={"n": int}, reduce="A table.", output=pd.DataFrame, lm=server.lm()
        )
    assert result.output["a"].tolist() == [1, 2]
    assert result.output["b"].isna().tolist() == [False, True]


# Personas


def test_an_agent_has_a_persona_a_model_tools_and_steps_of_its_own():
    @amr.tool
    def own(x: int) -> int:
        """Own."""
        return x

    seen = []

    def script(request):
        seen.append((request.schema or "?", request.body["model"], request.system.splitlines()[:3], request.tools))
        return provider(request)

    with ScriptedServer(script) as server:
        rows(2).amr.map_reduce(
            map=amr.Agent("Find.", role="a reader", goal="truth", background="numbers", lm=server.lm("reader")),
            finding={"n": int},
            reduce=amr.Agent("Combine.", role="a chief", lm=server.lm("chief"), tools=[own], max_steps=1),
            lm=server.lm("default"),
        )
    (map_, reduce) = seen
    assert map_[1] == "reader"
    assert map_[2] == ["You are a reader.", "Your goal: truth", "What you know: numbers"]
    assert reduce[1] == "chief"
    assert reduce[2][0] == "You are a chief."
    assert reduce[3] == ["own", "submit_reduction"]


def test_an_instruction_may_be_a_function_of_the_row_or_of_the_group():
    df = rows(4).assign(shop=["a", "b"] * 2)

    def script(request):
        if request.schema in MAPS:
            assert '- unit 1: "Is it 1?"' in request.user
            return provider(request)
        assert "Combine 2 of" in request.system
        return {"output": "ok", "sources": []}

    with ScriptedServer(script) as server:
        result = df.amr.map_reduce(
            map=amr.Agent(lambda row: f"Is it {row['text'][-1]}?"),
            columns=["text"],
            finding={"n": int},
            reduce=amr.Agent(lambda group: f"Combine {len(group)} of them."),
            by="shop",
            lm=server.lm(),
        )
    assert result.output["output"].tolist() == ["ok", "ok"]
    with pytest.raises(amr.UsageError, match="takes a text, or a function"):
        amr.Agent("")
    with pytest.raises(amr.UsageError, match="max_steps"):
        amr.Agent("x", max_steps=0)


# Graphs


def test_a_graph_before_the_run_has_a_box_for_each_map_and_shard():
    plan = {"shard_size": 5, "fan_in": 2}
    options = {"map": {"a": "x", "b": "y"}, "finding": {"n": int}, "reduce": "All.", "plan": plan}
    with ScriptedServer(provider) as server:
        before = rows(20).amr.plan(lm=server.lm(), **options).graph()
        after = rows(20).amr.map_reduce(lm=server.lm(), **options).graph()
    shapes = [{(n.id, n.type, n.level, frozenset(n.parents)) for n in graph.nodes} for graph in (before, after)]
    assert shapes[0] == shapes[1]


def test_a_graph_before_the_run_is_that_of_the_run():
    plan = {"shard_size": 2, "fan_in": 3}
    options = {"map": "x", "finding": {"n": int}, "reduce": "All.", "plan": plan}
    with ScriptedServer(provider) as server:
        before = rows(20).amr.plan("All?", lm=server.lm(), **options).graph()
        result = rows(20).amr.map_reduce(lm=server.lm(), **options)
    after = result.graph()
    shape = {(node.id, node.type, node.level, node.parents) for node in before.nodes}
    assert {(node.id, node.type, node.level, node.parents) for node in after.nodes} == shape
    assert repr(before) == repr(after) == "<Graph static: 10 -> 4 -> 2 -> 1>"
    assert [level["nodes"] for level in after.levels] == [10, 4, 2, 1]
    path = after.critical_path
    assert path[0].startswith("map-")
    assert path[-1] == "final-reduce"
    assert len(path) == 4
    told = json.loads(after.to_json())
    assert told["mode"] == "static"
    assert len(told["nodes"]) == 17
    assert after.to_mermaid().splitlines()[0] == "flowchart TD"
    assert after.to_mermaid().count("-->") == 10 + 4 + 2
    drawing = ET.fromstring(after.to_svg())
    assert len(drawing.findall(".//{*}g/{*}rect")) == 17
    assert set(after._repr_mimebundle_()) == {"image/svg+xml", "text/plain"}
    with pytest.raises(amr.PlanError, match="not made for a frame"):
        amr.Plan(reduce_instruction="All.").graph()


def test_a_wide_graph_is_drawn_in_part():
    with ScriptedServer(provider) as server:
        result = rows(200).amr.map_reduce(
            map="x", finding={"n": int}, reduce="All.", plan={"shard_size": 1}, lm=server.lm()
        )
    graph = result.graph()
    assert graph.levels[0]["nodes"] == 200
    assert "and 194 more" in graph.to_svg()
    assert "and 194 more" in graph.to_mermaid()
