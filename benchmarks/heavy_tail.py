"""Makespan with a heavy tail (lognormal, median 200 ms, sigma 1) against the ideal, with and without hedging.

1,000 one-row calls at 64 at once. The ideal is what no schedule can beat: all latencies shared evenly by 64 places, or
the longest one. A hedged request draws its latency anew, and both are paid for.
"""

from __future__ import annotations

import math
import random
import time

import pandas as pd

import pandas_amr  # noqa: F401 (registers df.amr)
from pandas_amr.testing import ScriptedServer, findings

ROWS = 1000
AT_ONCE = 64
MEDIAN_S = 0.2
SIGMA = 1.0


def provider(request):
    return findings(request, lambda unit: {"n": int(unit["text"].split()[1])})


def measure(*, hedge: bool) -> None:
    rng = random.Random(1)
    drawn: list[float] = []

    def latency(_request) -> float:
        drawn.append(rng.lognormvariate(math.log(MEDIAN_S), SIGMA))
        return drawn[-1]

    df = pd.DataFrame({"text": [f"row {n}" for n in range(ROWS)]})
    with ScriptedServer(provider, latency_s=latency) as server:
        began = time.perf_counter()
        result = df.amr.map_reduce(
            map="Which?",
            finding={"n": int},
            reduce={"n": "sum"},
            plan={"shard_size": 1},
            max_parallelism=AT_ONCE,
            lm=server.lm(hedge=hedge),
            progress=False,
        )
        took = time.perf_counter() - began
    assert result.output["n"] == sum(range(ROWS))
    first = drawn[:ROWS]
    longest = max(first)
    ideal = max(sum(first) / AT_ONCE, longest)
    print(
        f"hedge={hedge!s:5}: {took:.1f} s, {took / ideal:.2f} of the ideal {ideal:.1f} s "
        f"(longest latency {longest:.1f} s), {result.total.tries} requests sent",
        flush=True,
    )


for hedge in (False, True):
    measure(hedge=hedge)
