"""The four patterns that people know from other libraries, each in one call."""

from __future__ import annotations

from typing import Literal

import pandas as pd
from pydantic import BaseModel

import pandas_amr as amr
from pandas_amr.testing import Call, ScriptedServer, Status, findings
from together import Together


class Review(BaseModel):
    sentiment: Literal["positive", "negative"]
    stars: int


def test_500_reviews_in_batches_of_20_at_most_5_at_once_failures_apart_counts_summed_exactly():
    texts = [f"review {n} is {'fine' if n % 3 else 'awful'}" + (" POISON" if n == 77 else "") for n in range(500)]
    df = pd.DataFrame({"review": texts})

    def provider(request):
        if any("POISON" in unit["review"] for unit in request.units):
            return Status(400, "the content cannot be processed")
        return findings(
            request,
            lambda unit: {
                "sentiment": "positive" if "fine" in unit["review"] else "negative",
                "stars": int(unit["review"].split()[1]) % 5 + 1,
            },
        )

    with ScriptedServer(Together(provider, 5), latency_s=0.005) as server:
        result = df.amr.map_reduce(
            map="What does the customer feel?",
            finding=Review,
            reduce={"stars": "sum", "sentiment": "value_counts"},
            plan={"shard_size": 20},
            max_parallelism=5,
            lm=server.lm(),
        )
        asked = [len(request.units) for request in server.requests]
    assert server.max_in_flight == 5
    assert max(asked) == 20
    truth = pd.Series([n % 5 + 1 for n in range(500) if n != 77])
    assert result.output["stars"] == truth.sum()
    assert result.output["sentiment"].to_dict() == {"positive": 333 - 1, "negative": 167}
    assert result.failures[["position", "who"]].values.tolist() == [[77, "model"]]
    assert "cannot be processed" in result.failures["reason"][0]
    assert result.frame.loc[77, ["sentiment", "stars"]].isna().all()


class Expenses(BaseModel):
    total: float
    highest_category: str


def test_four_expense_reports_totalled_through_a_tool_a_grand_total_and_the_highest_category():
    reports = pd.DataFrame(
        {
            "report": [
                "taxi 12.50, hotel 200.00",
                "hotel 180.25, food 20.75",
                "food 33.10, taxi 8.40",
                "flight 420.00, food 15.00",
            ]
        }
    )
    added: list[list[float]] = []

    @amr.tool
    def add(amounts: list[float]) -> float:
        """Add amounts exactly."""
        added.append(amounts)
        return round(sum(amounts), 2)

    def provider(request):
        if request.schema != "findings":
            return None
        amounts = {part.split()[0]: float(part.split()[1]) for part in request.units[0]["report"].split(", ")}
        if not request.tool_results:
            return Call("add", {"amounts": list(amounts.values())})
        return findings(
            request,
            lambda unit: {"total": float(request.tool_results[-1]), "highest_category": max(amounts, key=amounts.get)},
        )

    with ScriptedServer(provider) as server:
        result = reports.amr.map_reduce(
            map="Total the expenses of the report and name its most expensive category.",
            finding=Expenses,
            reduce=lambda found: {
                "grand_total": round(float(found["total"].sum()), 2),
                "highest": found.loc[found["total"].idxmax(), "highest_category"],
            },
            tools=[add],
            plan={"shard_size": 1},
            lm=server.lm(),
        )
    assert result.output == {"grand_total": 890.0, "highest": "flight"}
    assert len(added) == 4
    assert all(request.tools == ["add", "submit_findings"] for request in server.requests)


def test_a_list_of_items_a_description_to_map_and_one_to_combine_in_one_call():
    items = ["the sea", "a forest", "two lakes"]

    def provider(request):
        if request.schema == "findings":
            return findings(request, lambda unit: {"finding": unit["text"].upper()})
        return {"output": " + ".join(found["finding_"] for found in request.findings), "sources": [0, 1, 2]}

    with ScriptedServer(provider) as server:
        result = amr.from_documents(items).amr.map_reduce(
            map="Say it loudly.", reduce="Join what was said.", lm=server.lm()
        )
    assert result.output == "THE SEA + A FOREST + TWO LAKES"
    assert result.frame["finding"].tolist() == ["THE SEA", "A FOREST", "TWO LAKES"]


def test_two_named_maps_over_the_same_rows_fan_in_to_one_custom_reducer_that_sorts():
    df = pd.DataFrame({"title": ["b", "c", "a"]}, index=["x", "y", "z"])

    def provider(request):
        if "warm" in request.system:
            return findings(request, lambda unit: {"finding": f"tone of {unit['title']}"})
        return findings(request, lambda unit: {"finding": f"topic of {unit['title']}"})

    with ScriptedServer(provider) as server:
        result = df.amr.map_reduce(
            map={"tone": "Is it warm?", "topic": "What is it about?"},
            reduce=lambda found: found.sort_values("topic"),
            lm=server.lm(),
        )
    assert list(result.findings.columns) == ["tone", "topic"]
    assert result.output.index.tolist() == ["z", "x", "y"]
    assert result.output["tone"].tolist() == ["tone of a", "tone of b", "tone of c"]
    assert len(server.requests) == 2
