"""Answers come in any order; what is asked, found and listed is the same."""

from __future__ import annotations

import json
import random

import pandas as pd
import pytest

import pandas_amr as amr
from pandas_amr.testing import ScriptedServer, Status, findings
from versions import once

pytestmark = [pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning"), once]

MAPS = {"a": "x", "b": "y", "c": "z"}
NAMED = {"map": MAPS, "finding": {name: {"n": int} for name in MAPS}}
SHAPES = {
    "static": {"plan": {"fan_in": 3, "shard_size": 2}},
    "adaptive": {"plan": {"reduce_budget": 120, "shard_size": 3}},
    "groups": {"plan": {"fan_in": 2, "shard_size": 2}, "by": "group"},
    "neighbours": {"plan": {"segmentation": "neighbours", "context_rows": 1, "shard_size": 3, "fan_in": 2}},
    "maps, static": {"plan": {"fan_in": 2, "shard_size": 2}, **NAMED},
    "maps, adaptive": {"plan": {"reduce_budget": 150, "shard_size": 4}, **NAMED},
    "columns": {"reduce": {"n": "sum", "said": amr.Agent("All.")}, "finding": {"n": int, "said": str}},
}


def answer(request):
    if request.schema == "reduction":
        return {"output": f"of {len(request.findings)}", "sources": [0]}
    if '"row 3"' in request.user or '"row 9"' in request.user:
        return Status(400)
    said = '"said"' in json.dumps(request.body["response_format"])
    found = lambda unit: {"n": int(unit["text"].split()[1])} | ({"said": unit["text"]} if said else {})  # noqa: E731
    return findings(request, found)


def what_came(shape: dict, seed: int) -> dict[str, str]:
    """What was asked and what came of it, where some answers take longer than others."""
    frame = pd.DataFrame({"text": [f"row {number}" for number in range(12)], "group": list("abc") * 4})
    options = {"map": "x", "finding": {"n": int}, "reduce": "All.", "columns": ["text"], "plan": {"shard_size": 2}}
    late = random.Random(seed)
    with ScriptedServer(answer, latency_s=lambda request: late.choice([0.0, 0.0, 0.05, 0.1])) as server:
        result = frame.amr.map_reduce(lm=server.lm(), journal=False, **(options | shape))
    return {
        "requests": "\n".join(sorted(json.dumps(request.body, sort_keys=True) for request in server.requests)),
        "output": str(result.output),
        "frame": result.frame.to_csv(),
        "failures": result.failures.to_csv(),
        "status": result.status.to_csv(),
        "sources": result.sources.to_csv(),
    }


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.sampled(2)
def test_nothing_depends_on_which_answer_comes_first(shape):
    first, *others = (what_came(SHAPES[shape], seed) for seed in range(3))
    assert "row 3" in first["requests"]
    assert "400" in first["failures"]
    for other in others:
        assert other == first
