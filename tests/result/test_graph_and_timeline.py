"""The graph of a run, before it, while it goes and after it; and the timeline: what its nodes did, and when."""

from __future__ import annotations

import dataclasses
import json
import re
import threading
import xml.etree.ElementTree as ET
from typing import Any

import pandas as pd
import pytest
from tests.moments import until

import pandas_amr as amr
from pandas_amr._records import svg
from pandas_amr._records.graph import Graph, GraphNode
from pandas_amr._records.graph_fold import MOST_ROWS, Fold, fold
from pandas_amr._records.spans import SpanLog
from pandas_amr._records.timeline import Timeline
from pandas_amr._records.timeline_lanes import LANES_OF_MANY, MOST_WAITS, NAMES
from pandas_amr._records.timeline_spans import KINDS, Span, bin_spans, fill_gaps, flatten
from pandas_amr._records.timeline_svg import COLOURS
from pandas_amr._records.timeline_text import LETTERS
from pandas_amr._reduce.packing import static_sizes
from pandas_amr._result.frames import spans_frame
from pandas_amr.testing import Call, ScriptedServer, Status

ROWS = pd.DataFrame({"text": [f"row {n} " + "word " * 20 for n in range(24)], "shop": list("abcd") * 6})
WITH_EMPTY = ROWS.assign(text=[text if n % 8 < 5 else "" for n, text in enumerate(ROWS["text"])])
NUMBER = {"map": "Read.", "finding": {"n": int}}
COMPUTE = {"output": {"field": "n", "function": "sum", "condition": None}, "sources": []}


def provider(request):
    if request.units:
        return {"findings": [{"unit": unit["unit"], "n": 1} for unit in request.units]}
    if "pandas computes it" in request.system or "how it is computed" in request.system:
        return COMPUTE
    return {"output": "x" * 300, "sources": [0]}


def ones(shard: pd.DataFrame) -> list[dict[str, int]]:
    return [{"n": 1}] * len(shard)


def size_of(findings: pd.DataFrame) -> int:
    return len(findings)


def shape_of(graph: Graph) -> list[Any]:
    """All that is known of nodes before a run, in any order."""
    return sorted(
        (n.id, n.type, n.level, sorted(n.parents), n.units, n.form if n.type != "map" else "") for n in graph.nodes
    )


def parsed(drawing: str) -> ET.Element:
    assert len(drawing.encode()) < 200_000
    root = ET.fromstring(drawing)
    kinds = {element.tag.partition("}")[2] for element in root.iter()}
    assert kinds <= {"svg", "g", "title", "rect", "path", "text"}
    assert not [name for element in root.iter() for name in element.attrib if name.startswith("on") or "href" in name]
    return root


def texts_of(drawing: str) -> list[str]:
    return [element.text or "" for element in parsed(drawing).iter("{http://www.w3.org/2000/svg}text")]


# -- before the run

KNOWN: dict[str, dict[str, Any]] = {
    "a tree by fan-in": {**NUMBER, "reduce": "All.", "plan": {"shard_size": 3, "fan_in": 3}},
    "maps side by side": {
        "map": {"a": "x", "b": "y"}, "finding": {"n": int}, "reduce": "All.", "plan": {"shard_size": 3, "fan_in": 3}
    },
    "one agent that reads all": {**NUMBER, "reduce": "All.", "plan": {"shard_size": 3}},
    "a direct answer": {**NUMBER, "reduce": "All.", "plan": {"direct": True}},
    "groups": {**NUMBER, "reduce": "All.", "by": "shop", "plan": {"shard_size": 3}},
    "groups, each a tree": {**NUMBER, "reduce": "All.", "by": "shop", "plan": {"shard_size": 3, "fan_in": 2}},
    "aggregations": {**NUMBER, "reduce": {"n": ["sum", "mean"]}, "plan": {"shard_size": 3}},
    "aggregations by groups": {**NUMBER, "reduce": {"n": "count"}, "by": "shop", "plan": {"shard_size": 3}},
    "columns by pandas and by agents": {
        **NUMBER, "reduce": {"n": "sum", "why": ("n", amr.Agent("Why?"))}, "plan": {"shard_size": 3}
    },
    "columns by agents, by groups": {
        **NUMBER, "reduce": {"why": ("n", amr.Agent("Why?"))}, "by": "shop", "plan": {"shard_size": 3}
    },
    "the first by rank": {**NUMBER, "plan": {"shard_size": 3, "ranking": {"field": "n", "most": 3}}},
    "a function that reduces": {**NUMBER, "reduce": size_of, "plan": {"shard_size": 3}},
    "functions only": {"map": ones, "reduce": size_of, "plan": {"shard_size": 3}},
    "a function and an agent that map": {
        "map": {"a": ones, "b": "y"}, "finding": {"a": {"n": int}, "b": {"n": int}}, "reduce": "All.", "plan": {"shard_size": 3, "fan_in": 3},
    },
}  # fmt: skip
FRAMES = {"all rows": ROWS, "with empty rows": WITH_EMPTY}


# With empty rows: three of them show it, the others are further cases.
SHOW_IT = {"a tree by fan-in", "functions only", "a function and an agent that map"}
CASES = [pytest.param(kind, "all rows", id=kind) for kind in KNOWN]
for _kind in KNOWN:
    marks = () if _kind in SHOW_IT else pytest.mark.long
    CASES.append(pytest.param(_kind, "with empty rows", id=f"{_kind}, empty rows", marks=marks))


@pytest.mark.parametrize(("kind", "frame"), CASES)
@pytest.mark.sampled(5)
def test_before_a_run_the_graph_is_that_of_the_run(kind, frame):
    call = {"columns": ["text"], **KNOWN[kind]}
    with ScriptedServer(provider) as server:
        plan = FRAMES[frame].amr.plan(lm=server.lm(), **call)
        assert not server.requests
        before = plan.graph()
        after = FRAMES[frame].amr.map_reduce(lm=server.lm(), journal=False, **call).graph()
    assert shape_of(before) == shape_of(after)
    assert before.mode == after.mode
    assert not any(node.about or node.status for node in before.nodes)
    assert before.critical_path == []
    assert repr(plan.estimate().graph()) == repr(before) == repr(after)


STATIC = {**NUMBER, "reduce": "All.", "columns": ["text"], "plan": {"shard_size": 4, "fan_in": 3, "shard_tokens": 800}}
SUM = {**NUMBER, "reduce": {"n": "sum"}, "columns": ["text"]}
EDGES: dict[str, tuple[pd.DataFrame, dict[str, Any]]] = {
    "equal rows": (pd.concat([ROWS, ROWS]), STATIC),
    "a row that is read in pieces": (ROWS.assign(text=[*ROWS["text"][1:], "long " * 3000]), STATIC),
    "rows with their neighbours": (ROWS, {**SUM, "plan": {"segmentation": "neighbours", "shard_size": 4}}),
    "rows with their group": (ROWS, {**SUM, "plan": {"segmentation": "groups", "group_columns": ["shop"], "shard_size": 6}}),
    "columns": (ROWS, {**NUMBER, "reduce": "All.", "axis": "columns", "plan": {"fan_in": 2}}),
    "one row": (ROWS.head(1), STATIC),
    "no row": (ROWS.head(0), STATIC),
    "no row, computed": (ROWS.head(0), SUM),
    "nothing but empty rows": (ROWS.assign(text=""), STATIC),
}  # fmt: skip


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.sampled(4)
def test_before_a_run_of_odd_rows_the_graph_is_that_of_the_run(edge):
    frame, call = EDGES[edge]
    with ScriptedServer(provider) as server:
        before = frame.amr.plan(lm=server.lm(), **call).graph()
        after = frame.amr.map_reduce(lm=server.lm(), journal=False, **call).graph()
    assert shape_of(before) == shape_of(after)


UNKNOWN: dict[str, tuple[dict[str, Any], set[str]]] = {
    "a tree by tokens": ({**NUMBER, "reduce": "All.", "plan": {"shard_size": 3, "reduce_budget": 60}}, set()),
    "a number that may be computed": ({**NUMBER, "reduce": "How many?", "output": int}, {"choose"}),
    "rows that meet a condition": (
        {"map": "Read.", "finding": {"n": int, "ok": bool}, "reduce": "All.", "plan": {"where": "ok"}}, set()
    ),
    "groups that are found": ({"map": "Read.", "finding": {"n": int, "kind": str}, "reduce": "All.", "by": "kind"}, set()),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNKNOWN)
def test_before_a_run_what_depends_on_findings_is_about_and_dashed(kind):
    call, certain = UNKNOWN[kind]
    with ScriptedServer(provider) as server:
        graph = ROWS.amr.plan(lm=server.lm(), columns=["text"], **call).graph()
    reduces = [node for node in graph.nodes if node.type != "map"]
    assert reduces
    assert {node.id for node in reduces if not node.about} == certain
    assert not any(node.about for node in graph.nodes if node.type == "map")
    assert "about " in repr(graph)
    drawing = parsed(graph.to_svg())
    boxes = [box for row in fold(graph).rows for box in row]
    assert len(drawing.findall(".//{*}rect[@stroke-dasharray]")) == sum(box.about for box in boxes) > 0
    assert "depends on what is found" in texts_of(graph.to_svg())
    assert "-.->" in graph.to_mermaid()


SCALED: dict[str, tuple[int, dict[str, Any], list[int], bool]] = {
    "a tree by fan-in": (3_600, {"shard_size": 3, "fan_in": 8}, static_sizes(1200, 8), False),
    "a tree by tokens": (3_600, {"shard_size": 3, "reduce_budget": 2_000}, [1200], True),
}


@pytest.mark.parametrize("kind", SCALED)
@pytest.mark.sampled(2)
def test_before_a_run_of_many_shards_the_graph_is_counted_or_scaled_up(kind):
    rows, plan, sizes, about = SCALED[kind]
    frame = pd.DataFrame({"text": [f"row {n}" for n in range(rows)]})
    with ScriptedServer(provider) as server:
        planned = frame.amr.plan(lm=server.lm(), **NUMBER, reduce="All.", plan=plan)
    levels = [level["nodes"] for level in planned.graph().levels]
    assert levels[: len(sizes)] == sizes
    assert levels[-1] == 1
    assert any(node.about for node in planned.graph().nodes) == about
    names = {node.id for node in planned.graph().nodes}
    assert all(set(node.parents) <= names for node in planned.graph().nodes)
    assert sum(levels[1:]) == planned.estimate().calls - 1200
    parsed(planned.graph().to_svg())


def test_before_a_run_of_many_groups_there_is_a_tree_for_each():
    frame = pd.DataFrame({"text": [f"row {n}" for n in range(900)], "shop": [n % 300 for n in range(900)]})
    with ScriptedServer(provider) as server:
        graph = frame.amr.plan(lm=server.lm(), columns=["text"], by="shop", **NUMBER, reduce="All.").graph()
    assert [node.type for node in graph.nodes].count("final-reduce") == 300
    assert "and 294 more" in texts_of(graph.to_svg())


def test_the_boxes_of_groups_say_which_group_they_are():
    frame = pd.DataFrame({"text": [f"row {n}" for n in range(24)], "shop": [f"shop {n:02}" for n in range(24)]})
    with ScriptedServer(provider) as server:
        result = frame.amr.map_reduce(**NUMBER, reduce="Sum up.", by="shop", lm=server.lm(), journal=False)
    names = set(re.findall("group-[0-9]+-final(?=<)", result.graph().to_svg()))
    assert len(names) > 2
    assert "…-final" not in result.graph().to_svg()


def test_a_confirmation_can_show_the_graph_of_what_is_still_to_be_done(tmp_path):
    shown = []

    def confirm(estimate):
        shown.append([(node.id, node.units) for node in estimate.graph().nodes])
        return len(shown) == 1

    call = {
        **NUMBER,
        "reduce": {"n": "sum"},
        "columns": ["text"],
        "journal": tmp_path / "j.sqlite",
        "plan": {"shard_size": 3},
    }
    with ScriptedServer(provider) as server:
        ROWS.head(9).amr.map_reduce(lm=server.lm(), **call)
        ROWS.amr.map_reduce(lm=server.lm(), budget=amr.Budget(confirm=confirm), **call)
        with pytest.raises(amr.NotConfirmed):
            ROWS.amr.filter(
                "Which?", columns=["text"], lm=server.lm(), budget=amr.Budget(confirm=confirm), journal=False
            )
    assert shown[0] == [*((f"map-{n}", 3) for n in range(1, 6)), ("compute", 24)]
    assert shown[1] == [("map-1", 20), ("map-2", 4)]


def test_a_recipe_without_a_frame_has_a_node_for_each_step():
    recipe = amr.Recipe().filter("even").map({"a": "x", "b": ones}, finding={"a": {"n": int}, "b": {"m": int}})
    recipe = recipe.then(lambda frame: frame).reduce({"n": "sum", "why": ("m", amr.Agent("Why?"))})
    nodes = {node.id: node for node in recipe.graph().nodes}
    assert {name: node.form for name, node in nodes.items()} == {
        "1-filter/map": "",
        "2-map/map-a": "",
        "2-map/map-b": "function",
        "3-then/then": "function",
        "4-reduce/compute": "pandas",
        "4-reduce/why-final-reduce": "",
    }
    assert nodes["3-then/then"].parents == ("2-map/map-a", "2-map/map-b")
    assert [level["nodes"] for level in recipe.graph().levels] == [1, 2, 1, 2]
    assert all(node.about for node in nodes.values())
    parsed(recipe.graph().to_svg())
    assert [node.type for node in amr.Recipe(task="Which?").graph().nodes] == ["map", "final-reduce"]


# -- of a run


def test_what_no_agent_reduces_is_a_node_that_says_who_does():
    inner = amr.Recipe().map(lambda shard: [{"m": 1}] * len(shard)).reduce({"m": "sum"})
    cases = {
        "compute": ({"n": "sum"}, "pandas"),
        "reduce": (size_of, "function"),
    }
    for name, (how, form) in cases.items():
        node = ROWS.amr.map_reduce(map=ones, finding={"n": int}, reduce=how).graph().nodes[-1]
        assert (node.id, node.type, node.form, node.units) == (name, "compute", form, 24)
        assert set(node.parents) >= {"map-1"}
    graph = ROWS.amr.map_reduce(map=ones, finding={"n": int}, reduce=inner).graph()
    nodes = {node.id: node for node in graph.nodes}
    assert nodes["reduce"].form == "recipe"
    assert "reduce/2-reduce/compute" in nodes["reduce"].parents
    assert nodes["reduce/1-map/map-1"].parents == ("map-1",)
    assert [nodes[name].level for name in ("map-1", "reduce/1-map/map-1", "reduce/2-reduce/compute", "reduce")] == [
        0,
        1,
        2,
        3,
    ]
    assert "by a recipe" in " ".join(texts_of(graph.to_svg()))


def test_what_was_there_before_is_a_node_that_others_read(tmp_path):
    def one_fails(request):
        return Status(400, "no") if "row 5 " in request.user else provider(request)

    call = {**NUMBER, "reduce": "All.", "columns": ["text"], "journal": tmp_path / "j.sqlite"}
    call["plan"] = {"shard_size": 3, "fan_in": 4, "retry_failed_after": "1d"}
    with ScriptedServer(one_fails) as server:
        first = ROWS.amr.map_reduce(lm=server.lm(), **call)
        again = ROWS.amr.map_reduce(lm=server.lm(), **call)
    assert first.graph().levels[0]["nodes"] == 8
    nodes = {node.id: node for node in again.graph().nodes}
    assert [(node.type, node.form, node.units, node.status) for node in again.graph().nodes[:1]] == [
        ("recalled", "journal", 24, "partial")
    ]
    assert nodes["reduce-1-0"].parents == nodes["reduce-1-1"].parents == ("journal",)
    assert nodes["reduce-1-0"].form == "journal"
    assert "from the journal" in " ".join(texts_of(again.graph().to_svg()))
    with ScriptedServer(provider) as server:
        retried = first.retry(lm=server.lm())
    nodes = {node.id: (node.type, node.form, node.units) for node in retried.graph().nodes}
    assert nodes["earlier-run"] == ("recalled", "result", 23)
    assert nodes["map-1"][2] == 1
    assert "journal" not in nodes
    assert retried.review() is not None
    assert "earlier-run" not in retried.timeline().to_frame()["node"].tolist()


def test_the_parts_of_an_input_are_nodes_and_what_is_done_in_them_is_theirs(tmp_path):
    ROWS.head(12).to_parquet(tmp_path / "a.parquet")
    ROWS.tail(12).to_parquet(tmp_path / "b.parquet")
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    call = {**NUMBER, "reduce": {"n": "sum"}, "columns": ["text"], "out": tmp_path / "out", "journal": False}
    with ScriptedServer(provider) as server:
        first = amr.map_reduce(files, lm=server.lm(), **call)
        again = amr.map_reduce(files, lm=server.lm(), **call)
    shapes = [[(node.id, node.type, node.units) for node in one.graph().nodes] for one in (first, again)]
    assert shapes[0] == [("map-part-0", "map", 12), ("map-part-1", "map", 12), ("compute", "compute", 24)]
    assert shapes[1] == [("map-part-0", "recalled", 12), ("map-part-1", "recalled", 12), ("compute", "compute", 24)]
    assert again.graph().nodes[-1].parents == ("map-part-0", "map-part-1")
    in_model = first.spans[first.spans["kind"] == "model"]
    assert set(in_model["node"]) == {"map-part-0", "map-part-1"}
    assert again.spans.empty


def test_a_run_that_goes_on_shows_what_has_begun():
    release = threading.Event()

    def held(request):
        if request.units and request.units[0]["text"].startswith("row 3 "):
            release.wait(20)
        return provider(request)

    with ScriptedServer(held) as server:
        run = ROWS.head(6).amr.start(
            **NUMBER,
            reduce="All.",
            columns=["text"],
            plan={"shard_size": 3, "fan_in": 2},
            lm=server.lm(),
            journal=False,
        )
        assert isinstance(run.graph(), Graph)
        until(lambda: [node.status for node in run.graph().nodes] == ["ok", "running"])
        nodes = run.graph().nodes
        assert [(node.id, node.status) for node in nodes] == [("map-1", "ok"), ("map-2", "running")]
        assert nodes[1].seconds > 0
        assert "running" in " ".join(texts_of(run.graph().to_svg()))
        frame = run.timeline().to_frame()
        assert "model" in set(frame.loc[frame["node"] == "map-1", "kind"])
        release.set()
        result = run.result()
    assert run.graph() == result.graph()
    assert run.timeline().to_frame().equals(result.timeline().to_frame())


def test_what_a_run_that_ended_in_an_error_has_done_can_be_seen():
    def failing(request):
        return provider(request) if request.units[0]["text"].startswith("row 0 ") else Status(400, "no")

    with ScriptedServer(failing) as server, pytest.raises(amr.MapFailed) as caught:
        ROWS.amr.map_reduce(
            **NUMBER,
            reduce="All.",
            columns=["text"],
            plan={"shard_size": 1},
            errors="raise",
            max_parallelism=1,
            lm=server.lm(),
            journal=False,
        )
    partial = caught.value.partial
    assert [node.status for node in partial.graph().nodes] == ["ok", "failed"]
    assert set(partial.timeline().to_frame()["node"]) == {"map-1", "map-2"}
    failed = parsed(partial.graph().to_svg()).findall(".//{*}rect[@stroke='#c0392b'][@stroke-width='2']")
    assert len(failed) == 1


def test_a_loaded_result_has_its_graph_and_its_timeline_and_one_saved_long_ago_says_what_it_lacks(tmp_path):
    with ScriptedServer(provider) as server:
        result = ROWS.amr.map_reduce(**NUMBER, reduce="All.", columns=["text"], lm=server.lm(), journal=False)
    result.save(tmp_path)
    loaded = amr.load(tmp_path)
    assert loaded.graph() == result.graph()
    assert loaded.timeline().to_frame().equals(result.timeline().to_frame())
    assert repr(loaded.timeline()) == repr(result.timeline())
    description = (tmp_path / "result.json").read_text(encoding="utf-8")
    (tmp_path / "spans.parquet").unlink()
    told = json.loads(description)
    del told["frames"]["spans"]
    (tmp_path / "result.json").write_text(json.dumps(told), encoding="utf-8")
    old = amr.load(tmp_path)
    assert old.spans is None
    assert old.graph() == result.graph()
    assert set(old.timeline().to_frame()["kind"]) == {"other"}
    assert "what the nodes did is not known" in repr(old.timeline())
    assert any("What the nodes did is not known" in text for text in texts_of(old.timeline().to_svg()))


# -- what is drawn


def made_tree(maps: int, fan_in: int, *, failed: frozenset[int] = frozenset()) -> Graph:
    nodes = []
    for number in range(1, maps + 1):
        status = "failed" if number in failed else "partial" if number % 50 == 0 else "ok"
        nodes.append(GraphNode(f"map-{number}", "map", 0, (), 5, 700, number / 16, 1 + number % 7, status))
    names, level = [node.id for node in nodes], 1
    while len(names) > 1:
        groups = [names[start : start + fan_in] for start in range(0, len(names), fan_in)]
        names = [f"reduce-{level}-{number}" for number in range(len(groups))]
        if len(groups) == 1:
            names = ["final-reduce"]
        for name, group in zip(names, groups, strict=True):
            kind = "reduce" if len(groups) > 1 else "final-reduce"
            nodes.append(GraphNode(name, kind, level, tuple(group), len(group), 900, 700.0 + level, 1.0, "ok"))
        level += 1
    return Graph("static", tuple(nodes))


def test_ten_thousand_nodes_are_legible():
    graph = made_tree(10_000, 10, failed=frozenset(range(100, 9000, 500)))
    assert graph.levels[0]["nodes"] == 10_000
    texts = texts_of(graph.to_svg())
    shown = [text for text in texts if text.startswith("map-")]
    failed = [text for text in texts if text.startswith("failed, ")]
    assert len(shown) == 6
    assert len(failed) == 5
    assert graph.critical_path[0] in shown
    assert "and 9,994 more" in texts
    counted = next(text for text in texts if "ok, " in text)
    numbers = [int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", counted)]
    assert sum(numbers) == 9_994
    assert numbers[-1] == 18 - 5
    assert "49,970 units, 7.0 M tokens" in texts
    assert "1 s to 7 s each" in texts
    assert any(text.startswith("from 62 ms to 10 min") for text in texts)
    path = parsed(graph.to_svg()).findall(f".//{{*}}path[@stroke='{svg.EMPHASIS}']")
    assert path[0].attrib["d"].count("M") == 4


def test_every_node_and_every_edge_is_in_what_is_drawn():
    graph = made_tree(300, 5)
    folded = fold(graph)
    boxes = [box for row in folded.rows for box in row]
    shown = sum(len(box.nodes) if isinstance(box, Fold) else 1 for box in boxes)
    assert shown == len(graph.nodes)
    assert sum(edge.count for edge in folded.edges) == sum(len(node.parents) for node in graph.nodes)
    assert graph.to_mermaid().count("-->") == len(folded.edges)
    styled = re.search(r"linkStyle ([\d,]+) stroke", graph.to_mermaid())
    assert len(styled[1].split(",")) == len(graph.critical_path) - 1


def test_many_levels_are_folded_too():
    nodes = [
        GraphNode(f"{n}-map/map-1", "map", n, (f"{n - 1}-map/map-1",) if n else (), 1, 1, n, 1.0, "ok")
        for n in range(200)
    ]
    folded = fold(Graph("map", tuple(nodes)))
    assert len(folded.rows) == MOST_ROWS
    assert [len(row) for row in folded.rows] == [1] * MOST_ROWS
    texts = texts_of(Graph("map", tuple(nodes)).to_svg())
    assert "185 levels: 185 nodes" in texts


def test_a_dense_graph_is_drawn_in_few_bytes():
    rows = [[GraphNode(f"{level}-{n}", "map", level, tuple(f"{level - 1}-{m}" for m in range(40)) if level else (), 1, 1, 0, 1.0, "ok") for n in range(40)] for level in range(40)]  # fmt: skip
    parsed(Graph("map", tuple(node for row in rows for node in row)).to_svg())


HOSTILE = {
    "markup": "<script>alert('x')</script>",
    "quotes": """"'`&#;[]{}|""",
    "a line break": "one\n  n9[evil]\n",
    "terminal escapes": "\x1b[31mred\x07\x00",
    "a text that turns around": "back \u202e txet",
    "right to left": "שלום עולם",
    "emoji": "👩‍👩‍👧 family",
    "half of a character": "half \ud800",
    "no character": "none \ufffe\uffff",
    "a megabyte": "m" * 1_000_000,
    "zalgo": "z" + "\u0301" * 5000,
    "nothing": "",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_names_are_text_whatever_they_hold(kind):
    name = HOSTILE[kind]
    node = GraphNode(f"map-{name}-1", "map", 0, (), 3, 10, 0.0, 1.0, "failed")
    end = GraphNode("final-reduce", "final-reduce", 1, (node.id,), 3, 10, 1.0, 1.0, "ok")
    graph = Graph("static", (node, end))
    drawing = graph.to_svg()
    parsed(drawing)
    assert len(drawing) < 10_000
    assert "\u202e" not in drawing
    mermaid = graph.to_mermaid()
    assert len(mermaid.splitlines()) == 5
    label = re.fullmatch(r'  n0\["(.*)"\]', mermaid.splitlines()[1])
    assert label is not None
    assert not set(label[1].replace("<br/>", "")) & set("\"'<>[]{}|`")
    rows = [(one.id, one.type, one.start, one.seconds, one.status) for one in graph.nodes]
    trace = pd.DataFrame(rows, columns=["id", "type", "start", "seconds", "status"], dtype=object)
    spans = pd.DataFrame([(node.id, "limit", 0.2, 0.5)], columns=["node", "kind", "start", "seconds"], dtype=object)
    timeline = Timeline(trace, spans, 2.0)
    parsed(timeline.to_svg())
    assert len(timeline.to_svg()) < 20_000
    lines = repr(timeline).splitlines()
    assert len(lines) == 5
    assert all(line.isprintable() for line in lines)
    assert all(len(line) < 400 for line in lines)


def contrast(colour: str, ground: str) -> float:
    def luminance(code: str) -> float:
        parts = [int(code[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(colour), luminance(ground)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("ground", ["#ffffff", "#111111"])
def test_lines_and_texts_beside_boxes_have_contrast_on_light_and_on_dark(ground):
    assert contrast(svg.LINE, ground) >= 3
    assert contrast(svg.NOTE, ground) >= 4
    assert contrast(svg.EMPHASIS, ground) >= 4
    assert min(contrast(colour, ground) for colour in COLOURS.values()) >= 2.4


def test_a_notebook_gets_svg_and_text_and_no_mermaid():
    graph = made_tree(4, 2)
    trace = pd.DataFrame({"id": ["map-1"], "type": ["map"], "start": [0.0], "seconds": [1.0], "status": ["ok"]})
    for picture in (graph, Timeline(trace, None, 1.0)):
        bundle = picture._repr_mimebundle_(include=None)
        assert set(bundle) == {"image/svg+xml", "text/plain"}
        assert 'xmlns="http://www.w3.org/2000/svg"' in bundle["image/svg+xml"][:200]
        assert bundle["text/plain"] == repr(picture)


def test_a_graph_of_nothing_is_drawn():
    graph = ROWS.head(0).amr.map_reduce(map=ones, finding={"n": int}, reduce={"n": "sum"}).graph()
    assert [node.id for node in graph.nodes] == ["compute"]
    parsed(Graph("map", ()).to_svg())
    trace = pd.DataFrame({"id": [], "type": [], "start": [], "seconds": [], "status": []})
    parsed(Timeline(trace, None, 0.0).to_svg())
    assert repr(Timeline(trace, None, 0.0)).startswith("<Timeline 0 nodes in 0 s>")


# -- what nodes did


def model_waits(log: SpanLog) -> list[tuple[str, str, float, float]]:
    columns = log.columns({"map-1", "map-2", "map-part-0"})
    return sorted(zip(columns["node"], columns["kind"], columns["start"], columns["seconds"], strict=True))


def test_a_timeline_says_how_many_spans_a_run_did_not_keep(tmp_path):
    result = ROWS.amr.map_reduce(map=ones, reduce=size_of, journal=False)
    assert "left out" not in repr(result.timeline())
    spans = spans_frame(SpanLog(left_out=1_200), ["map-1"], 0, 1_200)
    cut = dataclasses.replace(result, spans=spans)
    said = "1,200 later spans left out, shown as other work: a run keeps 1,000,000"
    assert f"({said})" in repr(cut.timeline())
    assert f"{said}." in texts_of(cut.timeline().to_svg())
    cut.save(tmp_path / "saved")
    assert repr(amr.load(tmp_path / "saved").timeline()) == repr(cut.timeline())


def test_a_call_is_with_the_model_but_for_its_waits():
    log = SpanLog()
    log.add_wait("map-1", "place", 1.0, 0.00001, 1)
    log.add_wait("map-1", "limit", 2.0, 1.0, 1)
    log.add_wait("map-2", "retry", 4.0, 1.0, 2)
    log.add("map-1", "model", 1.0, 5.0, 1)
    log.add("map-2", "model", 3.0, 2.0, 2)
    log.add("map-1", "code", 6.5, 0.5)
    log.add("map-1", "tool", 7.5, 0.5)
    log.add("map-part-0/map-4", "model", 8.0, 1.0, 3)
    log.add("elsewhere", "model", 8.0, 1.0, 4)
    assert model_waits(log) == [
        ("map-1", "code", 6.5, 0.5),
        ("map-1", "limit", 2.0, 1.0),
        ("map-1", "model", 1.0, 1.0),
        ("map-1", "model", 3.0, 3.0),
        ("map-1", "tool", 7.5, 0.5),
        ("map-2", "model", 3.0, 1.0),
        ("map-2", "retry", 4.0, 1.0),
        ("map-part-0", "model", 8.0, 1.0),
    ]


CUT = {
    "nothing": ([], ["other 0-10"]),
    "a gap on each side": ([("model", 2, 4)], ["other 0-2", "model 2-4", "other 4-10"]),
    "a call within code": (
        [("code", 1, 8), ("model", 2, 4)],
        ["other 0-1", "code 1-2", "model 2-4", "code 4-8", "other 8-10"],
    ),
    "a call beside one that waits": ([("limit", 0, 6), ("model", 0, 4)], ["model 0-4", "limit 4-6", "other 6-10"]),
    "two calls at once": ([("model", 0, 6), ("model", 2, 8)], ["model 0-8", "other 8-10"]),
    "what goes on after the node": ([("model", 8, 30)], ["other 0-8", "model 8-10"]),
    "what began before it": ([("place", -3, 1)], ["place 0-1", "other 1-10"]),
}


@pytest.mark.parametrize("case", CUT)
def test_the_spans_of_a_node_follow_each_other_without_gap_or_overlap(case):
    spans, expected = CUT[case]
    filled = fill_gaps(flatten([Span(*span) for span in spans]), 0, 10, "other")
    assert [f"{span.kind} {span.start}-{span.end}" for span in filled] == expected
    assert sum(span.end - span.start for span in filled) == 10
    assert set(bin_spans(filled, 0, 10, 10)) <= set(KINDS)


def code(text: str) -> Call:
    return Call("python_repl", {"code": text})


def test_a_run_tells_limits_retries_code_and_the_model_apart(sandboxed):
    tried: set[str] = set()

    def busy(request):
        for text, answer in (
            ("row 0 ", Status(429, "slow", headers={"retry-after": "0.05"})),
            ("row 6 ", Status(500, "oh")),
        ):
            if text in request.user and text not in tried:
                tried.add(text)
                return answer
        if len(request.messages) == 2 and "row 12 " in request.user:
            return code("print(len(df))")
        return provider(request)

    with ScriptedServer(busy) as server:
        result = ROWS.amr.map_reduce(
            **NUMBER, reduce={"n": "sum"}, columns=["text"], tools=[amr.PythonREPLTool()],
            plan={"shard_size": 6, "view": "inline"}, lm=server.lm(), journal=False,
        )  # fmt: skip
    kinds = {node: set(part["kind"]) for node, part in result.timeline().to_frame().groupby("node")}
    assert "limit" in kinds["map-1"]
    assert "retry" in kinds["map-2"]
    assert "code" in kinds["map-3"]
    assert all("model" in kinds[f"map-{n}"] for n in range(1, 5))
    assert kinds["compute"] == {"compute"}
    frame, trace = result.timeline().to_frame(), result.trace.set_index("id")
    pd.testing.assert_series_equal(
        frame.groupby("node")["seconds"].sum().sort_index(), trace["seconds"].sort_index(), check_names=False
    )
    texts = texts_of(result.timeline().to_svg())
    assert any(re.fullmatch(r"map-\d: .* waiting for .*, from .*", text) for text in texts)
    assert re.search(r"longest wait: map-\d: .* waiting for .*, from ", repr(result.timeline()))
    assert {"map-1", "map-2", "map-3", "map-4", "compute"} <= set(texts)
    for name in ("in the model", "waiting for a rate limit", "waiting for a retry", "in code", "computing"):
        assert any(text.startswith(name) for text in texts)
    assert [line.split()[0] for line in repr(result.timeline()).splitlines()[1:6]] == trace.sort_values(
        "start"
    ).index.tolist()


def test_the_nodes_of_pipelines_inside_have_lanes_and_the_outer_one_says_so():
    inner = amr.Recipe().map("x", finding={"n": int}).reduce({"n": "sum"})
    with ScriptedServer(provider) as server:
        result = ROWS.head(3).amr.map_reduce(
            map=inner, finding={"n": int}, reduce={"n": "sum"}, columns=["text"], lm=server.lm(), journal=False
        )
    frame = result.timeline().to_frame()
    assert set(frame.loc[frame["node"] == "map-1", "kind"]) <= {"inside"}
    assert "model" in set(frame.loc[frame["node"] == "map-1/row-2/1-map/map-1", "kind"])


def many(nodes: int, at_once: int) -> Timeline:
    names = [f"map-{number}" for number in range(nodes)]
    starts = [float(number // at_once) for number in range(nodes)]
    status = ["failed" if number % 1000 == 7 else "ok" for number in range(nodes)]
    trace = pd.DataFrame({"id": names, "type": "map", "start": starts, "seconds": 1.0, "status": status})
    parts = [("place", 0.0, 0.2), ("model", 0.2, 0.5), ("limit", 0.7, 0.2)]
    spans = [
        (name, kind, start + at, seconds)
        for name, start in zip(names, starts, strict=True)
        for kind, at, seconds in parts
    ]
    return Timeline(trace, pd.DataFrame(spans, columns=["node", "kind", "start", "seconds"]), nodes / at_once)


def test_of_ten_thousand_nodes_it_is_drawn_how_many_did_what_and_those_that_stand_out():
    timeline = many(10_000, 32)
    texts = texts_of(timeline.to_svg())
    assert "32 at once" in texts
    assert "Of 10,000 nodes, some that failed and the slowest, from their start:" in texts
    none_failed = dataclasses.replace(timeline, trace=timeline.trace.assign(status="ok"))
    assert "Of 10,000 nodes, the slowest, from their start:" in texts_of(none_failed.to_svg())
    assert len([text for text in texts if text.startswith("map-")]) == LANES_OF_MANY + MOST_WAITS
    assert len([text for text in texts if "failed" in text and text.startswith("1 s, ")]) == 6
    kinds = timeline.to_frame().groupby("kind")["seconds"].sum()
    assert kinds["model"] == pytest.approx(5_000)
    assert kinds.sum() == pytest.approx(10_000)
    lines = repr(timeline).splitlines()
    assert len(lines) < LANES_OF_MANY + 6
    assert "... 9,988 more nodes" in lines
    assert all(len(line) <= 120 for line in lines[: LANES_OF_MANY + 1])


def test_a_node_with_thousands_of_spans_is_drawn_in_few_bytes():
    trace = pd.DataFrame(
        {"id": [f"map-{n}" for n in range(30)], "type": "map", "start": 0.0, "seconds": 9_000.0, "status": "ok"}
    )
    spans = [
        (f"map-{n}", ("model", "code", "limit")[m % 3], float(m), 1.0) for n in range(30) for m in range(0, 9_000, 3)
    ]
    parsed(Timeline(trace, pd.DataFrame(spans, columns=["node", "kind", "start", "seconds"]), 9_000.0).to_svg())


def test_every_kind_of_span_has_a_name_a_colour_and_a_letter():
    assert set(LETTERS) == set(COLOURS) == set(NAMES) == set(KINDS)
    assert len(set(LETTERS.values())) == len(KINDS)
