"""OpenTelemetry: the tree of spans is the graph of the run, under the caller's span, and says nothing of what is read."""

from __future__ import annotations

import functools
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import pandas_amr as amr
import reader
from numbered import number, provider, rows
from pandas_amr.testing import Call, ScriptedServer, Status, findings

NEEDED = "needs opentelemetry-sdk (make test-extras)"
sdk = pytest.importorskip("opentelemetry.sdk.trace", reason=NEEDED)
export = pytest.importorskip("opentelemetry.sdk.trace.export", reason=NEEDED)
in_memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter", reason=NEEDED)
sdk_metrics = pytest.importorskip("opentelemetry.sdk.metrics", reason=NEEDED)
metric_export = pytest.importorskip("opentelemetry.sdk.metrics.export", reason=NEEDED)
trace = pytest.importorskip("opentelemetry.trace", reason=NEEDED)
metrics = pytest.importorskip("opentelemetry.metrics", reason=NEEDED)
context = pytest.importorskip("opentelemetry.context", reason=NEEDED)
baggage = pytest.importorskip("opentelemetry.baggage", reason=NEEDED)

pytestmark = pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")

MAPPED: dict[str, Any] = {"map": "Which number?", "finding": {"n": int}}
SECRET = "sk-a-secret-of-the-test"
NODE = "pandas_amr.node.id"


class Failing(sdk.SpanProcessor):
    """A processor that raises while it is told to."""

    raises = False

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.raises and span.name.startswith("chat"):
            raise RuntimeError("full")


# A process can set its providers once.
EXPORTER, FAILING, READER = in_memory.InMemorySpanExporter(), Failing(), metric_export.InMemoryMetricReader()
PROVIDER = sdk.TracerProvider()
PROVIDER.add_span_processor(export.SimpleSpanProcessor(EXPORTER))
PROVIDER.add_span_processor(FAILING)
trace.set_tracer_provider(PROVIDER)
metrics.set_meter_provider(sdk_metrics.MeterProvider([READER]))
TRACER = trace.get_tracer("the test's")


@pytest.fixture(autouse=True)
def _switched_on():
    EXPORTER.clear()
    READER.get_metrics_data()
    with amr.settings(telemetry=True, journal=False):
        yield
    EXPORTER.clear()


def spans() -> list[Any]:
    """Take the spans that have ended, in the order in which they began."""
    ended = sorted(EXPORTER.get_finished_spans(), key=lambda span: span.start_time)
    EXPORTER.clear()
    return ended


def tree(ended: list[Any]) -> dict[str, Any]:
    """Draw the spans as a tree of names; nodes by their ids, numbered if there are several."""
    below: dict[int | None, list[Any]] = {}
    known = {span.context.span_id for span in ended}
    for span in ended:
        parent = None if span.parent is None else span.parent.span_id
        below.setdefault(parent if parent in known else None, []).append(span)

    def draw(parent: int | None) -> dict[str, Any]:
        drawn: dict[str, Any] = {}
        for number_of, span in enumerate(below.get(parent, ())):
            name = span.attributes.get(NODE, span.name)
            drawn[f"{name} #{number_of}" if name in drawn else name] = draw(span.context.span_id)
        return drawn

    return draw(None)


def node_spans(ended: list[Any]) -> dict[str, Any]:
    return {span.attributes[NODE]: span for span in ended if NODE in span.attributes}


def check_graph(ended: list[Any], result: Any) -> None:
    """Check that the spans of nodes are the nodes of the result's graph, and their links its edges."""
    by_id = node_spans(ended)
    drawn = {node.id: node for node in result.graph().nodes}
    assert by_id.keys() == drawn.keys()
    names = {span.context.span_id: name for name, span in by_id.items()}
    [run] = [span for span in ended if span.name.startswith("invoke_workflow")]
    for name, span in by_id.items():
        node = drawn[name]
        assert span.name == node.type
        assert span.attributes["pandas_amr.node.status"] == node.status
        assert span.attributes["pandas_amr.node.parents"] == node.parents
        assert {names[link.context.span_id] for link in span.links} == set(node.parents)
        tokens = span.attributes["pandas_amr.usage.input_tokens"] + span.attributes["pandas_amr.usage.output_tokens"]
        assert tokens == node.tokens
        outer = max((other for other in drawn if name.startswith(f"{other}/")), key=len, default=None)
        expected = run if outer is None else by_id[outer]
        assert span.parent.span_id == expected.context.span_id


def reducing(request: Any) -> Any:
    if request.schema == "reduction":
        return {"output": "a text", "sources": [0]}
    return provider(request)


def chooses(request: Any) -> Any:
    if request.schema != "reduction":
        return provider(request)
    return (
        {"output": {"field": None, "function": "written", "condition": None}, "sources": []}
        if ("computes" in request.system)
        else {"output": 7, "sources": [0]}
    )


def codes(request: Any) -> Any:
    if "python_repl" not in request.tools:
        return provider(request)
    return Call("python_repl", {"code": "submit(ask(df['text'], 'Which number?', {'n': int}))"})


@amr.tool
def look(what: str) -> str:
    """Look something up."""
    with TRACER.start_as_current_span("mine"):
        return what


def looks_first(request: Any) -> Any:
    return provider(request) if request.tool_results else [Call("look", {"what": "a"})]


def lengths(shard: pd.DataFrame) -> list[dict[str, int]]:
    with TRACER.start_as_current_span("mine"):
        return [{"length": len(text)} for text in shard["text"]]


def map_reduce(frame: pd.DataFrame, **options: Any) -> Any:
    return lambda server: frame.amr.map_reduce(lm=server.lm(), **MAPPED, **options)


def recipe(server: ScriptedServer) -> Any:
    inner = amr.Recipe().map("Which number?", finding={"n": int}).reduce("Write.", output=str)
    outer = amr.Recipe().map(inner, finding={"about": str}).reduce("Write.", output=str)
    return outer(rows(2), lm=server.lm())


GRAPHS: dict[str, tuple[Any, Any]] = {
    "a map": (provider, map_reduce(rows(6), reduce={"n": "sum"}, plan={"shard_size": 2})),
    "a static tree": (reducing, map_reduce(rows(5), reduce="Write.", plan={"shard_size": 1, "fan_in": 2})),
    "an adaptive tree": (
        reducing,
        map_reduce(rows(60), reduce="Write.", plan={"shard_size": 60, "reduce_budget": 300}),
    ),
    "a number to be written": (chooses, map_reduce(rows(4), reduce="How many weeks?", output=int)),
    "a direct answer": (reducing, map_reduce(rows(4), reduce="Write.", output=str, plan={"direct": True})),
    "pipelines within a map": (reducing, recipe),
    "tools": (looks_first, map_reduce(rows(4), reduce={"n": "sum"}, tools=[look])),
    "code": (codes, map_reduce(rows(4), reduce={"n": "sum"}, tools=[amr.PythonREPLTool()])),
    "functions": (provider, lambda _: rows(4).amr.map_reduce(map=lengths, reduce={"length": "sum"})),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_the_tree_of_spans_is_the_graph(name):
    script, call = GRAPHS[name]
    with ScriptedServer(script) as server:
        result = call(server)
    ended = spans()
    check_graph(ended, result)
    chats = [span for span in ended if span.name == "chat scripted"]
    assert len(chats) == len(server.requests)
    total = result.total
    assert sum(span.attributes["gen_ai.usage.input_tokens"] for span in chats) == total.input_tokens
    assert sum(span.attributes["gen_ai.usage.output_tokens"] for span in chats) == total.output_tokens
    assert all(span.status.status_code is trace.StatusCode.UNSET for span in ended)
    assert len({span.context.trace_id for span in ended}) == 1


def test_calls_and_tools_stand_below_what_made_them():
    with ScriptedServer(looks_first) as server:
        map_reduce(rows(4), reduce={"n": "sum"}, tools=[look])(server)
    chat = {"execute_tool look": {"mine": {}}}
    below = {"map-1": {"chat scripted": chat, "chat scripted #1": {}}, "compute": {}}
    assert tree(spans()) == {"invoke_workflow map_reduce": below}


def test_what_code_asks_stands_below_its_tool():
    with ScriptedServer(codes) as server:
        map_reduce(rows(4), reduce={"n": "sum"}, tools=[amr.PythonREPLTool()])(server)
    chat = {"execute_tool python_repl": {"chat scripted": {}}}
    assert tree(spans()) == {"invoke_workflow map_reduce": {"map-1": {"chat scripted": chat}, "compute": {}}}


def test_spans_of_functions_stand_below_their_node_and_the_run_below_its_caller():
    with TRACER.start_as_current_span("caller"), baggage_of("tenant"):
        rows(4).amr.map_reduce(map=lengths, reduce={"length": "sum"})
    assert tree(spans()) == {"caller": {"invoke_workflow map_reduce": {"map-1": {"mine": {}}, "compute": {}}}}


def baggage_of(name: str) -> Any:
    """Set a baggage for the block: what the caller's context holds besides its span stays there."""

    class Attached:
        def __enter__(self) -> None:
            self.token = context.attach(baggage.set_baggage(name, "x"))

        def __exit__(self, *_: object) -> None:
            context.detach(self.token)

    return Attached()


def test_baggage_of_the_caller_reaches_its_functions():
    known: list[Any] = []

    def told(shard: pd.DataFrame) -> list[dict[str, int]]:
        known.append(baggage.get_baggage("tenant"))
        return lengths(shard)

    with baggage_of("tenant"):
        rows(1).amr.map(told, finding={"length": int})
    assert known == ["x"]


def test_a_call_has_the_attributes_of_the_conventions():
    with ScriptedServer(looks_first) as server:
        map_reduce(rows(4), reduce={"n": "sum"}, tools=[look])(server)
        port = int(server.base_url.rpartition(":")[2].partition("/")[0])
    by_name = {span.name: span for span in spans()}
    chat, tool = by_name["chat scripted"], by_name["execute_tool look"]
    attributes = dict(chat.attributes)
    assert attributes.pop("gen_ai.usage.input_tokens") > 0
    assert attributes.pop("gen_ai.usage.output_tokens") > 0
    assert attributes.pop("gen_ai.usage.cache_read.input_tokens") >= 0
    assert attributes.pop("pandas_amr.call.waited") >= 0
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "scripted",
        "gen_ai.response.model": "scripted",
        "gen_ai.response.id": f"scripted-{len(server.requests) - 1}",
        "gen_ai.response.finish_reasons": ("tool_calls",),  # it submits
        "server.address": "127.0.0.1",
        "server.port": port,
        "pandas_amr.call.tries": 1,
    }
    assert chat.kind is trace.SpanKind.CLIENT
    assert dict(tool.attributes) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "look",
        "gen_ai.tool.type": "function",
    }
    assert chat.instrumentation_scope.name == "pandas_amr"
    assert chat.instrumentation_scope.version == amr.__version__


def points(name: str) -> list[Any]:
    """Take the points of a metric."""
    found = []
    data = READER.get_metrics_data()
    for resource in [] if data is None else data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                found += metric.data.data_points if metric.name == name else []
    return found


def test_calls_are_measured_by_the_two_metrics_of_the_conventions():
    with ScriptedServer(provider) as server:
        lm = server.lm("measured")
        result = amr.result_of(rows(6).amr.map("x", finding={"n": int}, plan={"shard_size": 2}, lm=lm))
    data = {
        metric.name: metric
        for resource in READER.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    duration, tokens = data["gen_ai.client.operation.duration"], data["gen_ai.client.token.usage"]
    assert (duration.unit, tokens.unit) == ("s", "{token}")
    [point] = [one for one in duration.data.data_points if one.attributes["gen_ai.request.model"] == "measured"]
    assert point.count == 3
    assert point.explicit_bounds[:2] == (0.01, 0.02)
    assert "error.type" not in point.attributes
    used = [one for one in tokens.data.data_points if one.attributes["gen_ai.request.model"] == "measured"]
    by_type = {one.attributes["gen_ai.token.type"]: one.sum for one in used}
    assert by_type == {"input": result.total.input_tokens, "output": result.total.output_tokens}


def test_tokens_that_the_server_does_not_tell_are_not_reported():
    with ScriptedServer(provider, usage=False) as server:
        rows(2).amr.map("x", finding={"n": int}, lm=server.lm("untold"))
    [chat] = [span for span in spans() if span.name == "chat untold"]
    assert not [name for name in chat.attributes if name.startswith("gen_ai.usage")]
    told = [one for one in points("gen_ai.client.token.usage") if one.attributes["gen_ai.request.model"] == "untold"]
    assert told == []


def test_what_fails_has_the_status_error_and_its_type():
    with ScriptedServer(lambda _: Status(401, "no such key")) as server, pytest.raises(amr.ModelConfigError):
        rows(2).amr.map("x", lm=server.lm("refused"))
    ended = spans()
    assert [span.name for span in ended] == ["invoke_workflow map", "map", "chat refused"]
    for span in ended:
        assert span.status.status_code is trace.StatusCode.ERROR
    assert {span.name: span.attributes.get("error.type") for span in ended} == {
        "invoke_workflow map": "ModelConfigError", "map": "failed", "chat refused": "ModelConfigError",
    }  # fmt: skip
    told = [
        one.attributes.get("error.type")
        for one in points("gen_ai.client.operation.duration")
        if one.attributes["gen_ai.request.model"] == "refused"
    ]
    assert told == ["ModelConfigError"]


def test_a_wait_and_a_retry_are_events_of_the_call_s_span():
    failed: list[int] = []

    def fails_once(request: Any) -> Any:
        if request.number == 1 and not failed:
            failed.append(1)
            return Status(500, "no")
        return provider(request)

    with ScriptedServer(fails_once) as server:
        rows(2).amr.map("x", finding={"n": int}, plan={"shard_size": 1}, lm=server.lm("retried"))
    ended = spans()
    [chat] = [span for span in ended if span.attributes.get("pandas_amr.call.tries") == 2]
    assert "retry" in [event.attributes["pandas_amr.wait.kind"] for event in chat.events]
    assert chat.status.status_code is trace.StatusCode.UNSET


def test_neither_content_nor_key_is_in_a_span_or_a_metric():
    def fails(request: Any) -> Any:
        if "row 3" in request.user:
            return Status(400, "row 3 is bad")
        return looks_first(request)

    with ScriptedServer(fails) as server:
        lm = server.lm(api_key=SECRET)
        frame = rows(4)
        frame.amr.map_reduce(
            "the task", **MAPPED, reduce={"n": "sum"}, plan={"shard_size": 1}, tools=[look], lm=lm,
        )  # fmt: skip
    told = "".join(span.to_json() for span in spans()) + READER.get_metrics_data().to_json()
    for text in ("row ", "Which number", "the task", SECRET, server.base_url.rpartition("/v1")[0].rpartition("/")[2]):
        assert text not in told


def test_parts_of_a_streamed_run_have_their_shards_below_them(tmp_path):
    rows(4).to_parquet(tmp_path / "in.parquet")
    with ScriptedServer(provider) as server:
        result = amr.map_reduce(
            tmp_path / "in.parquet", **MAPPED, reduce={"n": "sum"}, out=tmp_path / "out", lm=server.lm(),
            plan={"shard_size": 2},
        )  # fmt: skip
    ended = spans()
    assert {node.id for node in result.graph().nodes} == {"map-part-0", "compute"}
    shards = {f"map-part-0/map-{shard}": {"chat scripted": {}} for shard in (1, 2)}
    assert tree(ended) == {"invoke_workflow map_reduce": {"map-part-0": shards, "compute": {}}}


def test_runs_side_by_side_stand_below_the_callers_of_each():
    with ScriptedServer(provider) as server:
        runs = []
        for name in "ab":
            with TRACER.start_as_current_span(name):
                runs.append(rows(2).amr.start(**MAPPED, reduce={"n": "sum"}, lm=server.lm()))
        for run in runs:
            run.result()
    below = {"invoke_workflow map_reduce": {"map-1": {"chat scripted": {}}, "compute": {}}}
    assert tree(spans()) == {"a": below, "b": below}


def test_a_mapper_gives_spans_where_it_is_called():
    with ScriptedServer(provider) as server:
        mapper = pickle.loads(pickle.dumps(amr.mapper("x", finding={"n": int}, lm=server.lm(api_key=None))))
        with TRACER.start_as_current_span("partition"), amr.settings(telemetry=False):
            mapper(rows(2))
    assert tree(spans()) == {"partition": {"invoke_workflow map": {"map-1": {"chat scripted": {}}}}}


IN_A_WORKER = """
import pickle, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
import pandas as pd
mapper = pickle.loads(bytes.fromhex(sys.argv[1]))
with trace.get_tracer("worker").start_as_current_span("task"):
    mapper(pd.DataFrame({"text": ["row 1"]}))
spans = {span.context.span_id: span for span in exporter.get_finished_spans()}
for span in spans.values():
    print(span.name, "<", spans[span.parent.span_id].name if span.parent else "")
"""


def test_a_mapper_gives_spans_in_another_process_under_the_span_there():
    with ScriptedServer(provider) as server:
        packed = pickle.dumps(amr.mapper("x", finding={"n": int}, lm=server.lm(api_key=None))).hex()
        done = subprocess.run([sys.executable, "-c", IN_A_WORKER, packed], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "chat scripted < map", "map < invoke_workflow map", "invoke_workflow map < task", "task < ",
    ], done.stderr  # fmt: skip


def test_a_part_of_opentelemetry_that_raises_is_one_warning_and_breaks_nothing():
    FAILING.raises = True
    try:
        with ScriptedServer(provider) as server, pytest.warns(amr.EventWarning, match="RuntimeError") as told:
            frame = rows(3).amr.map("x", finding={"n": int}, plan={"shard_size": 1}, lm=server.lm())
    finally:
        FAILING.raises = False
    assert frame["n"].tolist() == [0, 1, 2]
    assert len(told) == 1
    with TRACER.start_as_current_span("later") as later:
        assert later.parent is None


def test_without_the_setting_nothing_is_traced(monkeypatch):
    with ScriptedServer(provider) as server, amr.settings(telemetry=None):
        call = functools.partial(rows(2).amr.map, "x", finding={"n": int}, lm=server.lm())
        call()
        assert spans() == []
        monkeypatch.setenv("AMR_TELEMETRY", "1")
        call()
        assert len(spans()) == 3
        monkeypatch.setenv("AMR_TELEMETRY", "perhaps")
        with pytest.raises(amr.UsageError, match="AMR_TELEMETRY takes 1 or 0"):
            call()


def test_the_guide_s_example_runs_and_prints_what_stands_below_it(tmp_path):
    guide = Path(__file__).parents[2] / "docs" / "guide" / "events.md"
    [(code, printed)] = re.findall(
        r"^```py\n(.*?)^```\n\n```text\n(.*?)^```", guide.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    with ScriptedServer(reader.read) as server:
        known = {"AMR_MODEL": "scripted", "OPENAI_BASE_URL": server.base_url, "AMR_LEASE": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=os.environ | known
        )
    assert done.stdout == printed, done.stderr


def test_a_run_within_a_function_of_another_stands_below_its_node():
    def runs_inside(shard: pd.DataFrame) -> pd.DataFrame:
        return shard.amr.map(lengths, finding={"length": int})[["length"]]

    rows(2).amr.map(runs_inside, finding={"length": int})
    inner = {"invoke_workflow map": {"map-1": {"mine": {}}}}
    assert tree(spans()) == {"invoke_workflow map": {"map-1": inner}}


def test_spans_and_a_listener_go_together():
    log: list[Any] = []
    with ScriptedServer(lambda request: findings(request, number)) as server:
        rows(2).amr.map("x", finding={"n": int}, lm=server.lm(), on_event=log.append)
    assert len(spans()) == sum(type(event).__name__.endswith("Began") for event in log) == 3
