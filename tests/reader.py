"""The model that answers the examples of the docs: it reads the few words that their rows are made of."""

from __future__ import annotations

from typing import Any

from pandas_amr.testing import Call, ScriptedRequest, findings

PARTS = ("battery", "strap", "lid")
SEVERITY = {"died": 5, "broke": 4, "hot": 3, "leaks": 2}
PLAN = {
    "map_instruction": "What is complained about?",
    "finding": [
        {"name": "kind", "type": "str", "description": "what it is about", "choices": [*PARTS, "other"]},
    ],
    "aggregations": [{"field": "kind", "function": "value_counts"}],
    "reduce_instruction": None,
    "shard_size": 20,
    "parallelism": 8,
}


def read(request: ScriptedRequest) -> dict[str, Any] | list[Call]:
    """Answer one request of an example."""
    if request.schema == "plan":
        return PLAN
    if request.schema == "reduction":
        numbers = list(range(len(request.findings)))
        return {"output": f"{len(numbers)} findings were read.", "sources": numbers}
    if "price_of" in request.tools and not request.tool_results:
        return [Call("price_of", {"part": "strap"})]
    return findings(request, find)


def find(unit: dict[str, Any]) -> dict[str, Any]:
    """Find whatever an example may ask of a unit; what it does not ask is left aside."""
    text = " ".join(str(value) for value in unit.values()).lower()
    part = next((part for part in PARTS if part in text), "other")
    severity = next((value for word, value in SEVERITY.items() if word in text), 1)
    return {
        "kind": part,
        "part": part,
        "about": part,
        "severity": severity,
        "complaint": severity > 1,
        "amr_keep": "battery" in text,
    }
