"""Calls that must type-check; never run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict, assert_type

import pandas as pd
from pydantic import BaseModel

import pandas_amr as amr
from pandas_amr import events


class Finding(BaseModel):
    mood: str


@dataclass
class Spot:
    x: int


class Keys(TypedDict):
    x: int


def listen(event: events.Event) -> None:
    """Listen to a run."""
    assert_type(event.time, float)
    if isinstance(event, events.CallEnded):
        assert_type(event.usage, amr.Usage)
        assert_type(event.tries, int)


@amr.tool
def lookup(key: str) -> str:
    """Look it up."""
    return key


@amr.tool(name="other", timeout_s=1.0)
def another(key: str) -> str:
    """Look it up elsewhere."""
    return key


def script(df: pd.DataFrame) -> None:
    result = amr.map_reduce(df, "What?", columns=["a"], finding=Finding, tools=[lookup, another], max_parallelism=3)
    assert_type(result, amr.Result[Any, Finding])
    assert_type(result.records.tolist(), list[Finding])
    assert_type([record.mood for record in result.records], list[str])
    assert_type(result.retry().records.iloc[0], Any)
    many = amr.map_reduce(df, "What?", finding=list[Finding], output=int)
    assert_type(many, amr.Result[int, list[Finding]])
    assert_type(many.records.tolist(), list[Finding])
    assert_type(amr.map_reduce(df, "What?", finding=Spot).records.tolist(), list[Spot])
    assert_type(amr.map_reduce(df, "What?", finding=Keys).records.tolist(), list[Keys])
    assert_type(amr.map_reduce(df, "What?", finding={"a": int}).records.tolist(), list[Any])
    assert_type(amr.accessor(df).map_reduce("What?", finding=Finding).records.tolist(), list[Finding])
    assert_type(amr.start(df, "What?", finding=Finding).result().records.tolist(), list[Finding])
    assert_type(result.frame, pd.DataFrame)
    assert_type(result.total.calls, int)
    assert_type(amr.map(df, {"a": "A", "b": lambda shard: shard}, finding={"a": str}), pd.DataFrame)
    mapper = amr.mapper("What?", finding=Finding, plan={"status": True})
    assert_type(mapper, amr.FrameMapper)
    assert_type(mapper(df), pd.DataFrame)
    assert_type(mapper.meta(df), pd.DataFrame)
    assert_type(list(mapper.batches([df])), list[pd.DataFrame])
    assert_type(amr.plan(df, "What?", plan={"shard_size": 5}), amr.Plan)
    assert_type(amr.plan(df, "What?").to_json(), str)
    amr.reduce(df, {"a": ["mean", "sum"]}, by=["b"])
    amr.reduce(df, lambda frame: len(frame), output=int)
    amr.configure(lm=amr.LM("m", base_url="http://127.0.0.1:1/v1"), errors="raise")
    with amr.settings(lm="local", errors="coerce"):
        amr.map(df, "What?")
    amr.from_documents(["a", "b"])
    amr.read_files(["src/**/*.py", "README.md"])
    plan = amr.plan(df, "What?", lm="local")
    assert_type(plan.estimate(sample=20), amr.Estimate)
    assert_type(plan.requests(3)[0]["model"], Any)
    assert_type(result.score({"mood": "label"}).accuracy, "pd.Series[Any]")
    assert_type(result.verify(share=0.1, lm="local").disagreements, pd.DataFrame)
    assert_type(result.review(5), pd.DataFrame)
    assert_type(result.override({0: {"mood": "good"}, 1: None}, by="position"), amr.Result[Any, Finding])
    assert_type(result.override(result.review(), reduce=False).diff(result, tolerance=0.1), pd.DataFrame)
    assert_type(result.to_html("report.html", columns=["a"], max_rows=10), str | None)
    assert_type(result.graph().critical_path, list[str])
    assert_type(result.timeline(), amr.Timeline)
    assert_type(result.timeline().to_frame(), pd.DataFrame)
    assert_type(plan.graph(), amr.Graph)
    assert_type(plan.estimate().graph(), amr.Graph)
    assert_type(amr.Recipe(plan).graph(), amr.Graph)
    assert_type(amr.start(df, "What?").graph(), amr.Graph)
    assert_type(amr.start(df, "What?").timeline(), amr.Timeline)
    recipe = amr.Recipe(plan).then(lambda frame: frame).filter("even?").map("x", finding={"n": int})
    few = amr.Budget(confirm=lambda estimate: estimate.calls is not None and estimate.calls < 9)
    assert_type(recipe(df, lm="local", budget=few), amr.Result)
    assert_type(df.pipe(recipe, lm="local"), amr.Result)
    amr.map_reduce(df, map=recipe, reduce=recipe)
    assert_type(amr.map_reduce(df, "What?", output=int).output, int)
    assert_type(amr.map_reduce(df, "What?", output=Finding).output, Finding)
    assert_type(amr.map_reduce(df, "What?", output=list[Finding]).output, pd.DataFrame)
    assert_type(amr.map_reduce(df, "What?", by="a").output, Any)
    assert_type(amr.accessor(df).map_reduce("What?", columns=["a"]), amr.Result)
    assert_type(amr.accessor(df).map("What?", finding={"a": str}), pd.DataFrame)
    assert_type(amr.accessor(df["a"]).filter("What?"), pd.DataFrame)
    grouped = amr.accessor(df.groupby("shop"))
    assert_type(grouped.map_reduce("What?", finding=Finding).records.tolist(), list[Finding])
    assert_type(grouped.start("What?", finding=Finding).result().records.tolist(), list[Finding])
    assert_type(grouped.plan("What?", plan={"shard_size": 5}), amr.Plan)
    amr.accessor(df.groupby("shop")["a"]).reduce({"a": "mean"}, columns=["a"])
    grouped.map_reduce("What?", by="shop")  # type: ignore[call-arg]
    amr.map_reduce(df, "What?", colums=["a"])  # type: ignore[call-overload]
    amr.map(df, "What?", colums=["a"])  # type: ignore[call-arg]
    amr.map(df, "What?", on_event=listen)
    amr.map(df, "What?", trace="full")
    amr.mapper("What?", trace="off")
    amr.map(df, "What?", trace="all")  # type: ignore[arg-type]
    with amr.settings(trace="nodes"):
        shown: amr.Transcript = amr.map_reduce(df, map="What?", reduce=len).look("row 1")
        shown = amr.map_reduce(df, map="What?", reduce=len).look(node="map-1")
        amr.map_reduce(df, map="What?", reduce=len).look(node=1)  # type: ignore[arg-type]
        str(shown)
    amr.start(df, "What?", on_event=print)
    amr.mapper("What?", on_event=listen)
    with amr.settings(on_event=listen, telemetry=True):
        amr.map(df, "What?", on_event="print")  # type: ignore[arg-type]
    amr.mapper("What?", axis="columns")  # type: ignore[call-arg]
    amr.accessor(df).filter("What?", colums=["a"])  # type: ignore[call-arg]


class Rows:
    """A frame of another library."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return None


class Later:
    """A lazy frame of another library."""

    def collect(self) -> Rows:
        return Rows()


def other_frames(df: pd.DataFrame) -> None:
    assert_type(amr.as_frame(Rows()), pd.DataFrame)
    assert_type(amr.map(Rows(), "What?"), pd.DataFrame)
    assert_type(amr.map(Later(), "What?"), pd.DataFrame)
    assert_type(amr.filter(["a", "b"], "What?"), pd.DataFrame)
    assert_type(amr.map_reduce([{"a": 1}], "What?", output=int).output, int)
    assert_type(amr.map_reduce({"a": [1, 2]}, "What?", finding=Finding).records.tolist(), list[Finding])
    assert_type(amr.start(df["a"], "What?", output=str).result().output, str)
    assert_type(amr.plan(df["a"].to_numpy(), "What?"), amr.Plan)
    assert_type(amr.accessor(Rows()).map("What?"), pd.DataFrame)
    assert_type(amr.Recipe().map("What?")(Rows()), amr.Result)
    assert_type(amr.map(amr.map_reduce(df, "What?"), "What?"), pd.DataFrame)
    amr.map(3, "What?")  # type: ignore[arg-type]
    amr.map("What?", "What?")  # type: ignore[arg-type]


async def notebook(df: pd.DataFrame) -> None:
    run = amr.start(df, "What?")
    assert_type(run, "amr.Run[amr.Result]")
    assert_type(await run, amr.Result)
    assert_type(run.result(), amr.Result)
    run.cancel()
