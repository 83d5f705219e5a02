"""1,000 one-row calls against 1,200 requests a minute, or the tokens a minute that come to the same, not told.

Prints the share of requests answered 429 and the makespan over the limit's ideal, with the limits told in headers and
without. Aims: 429 at most 3 % with headers and 10 % without; makespan at most 1.10 with headers. Takes about 4 minutes.
"""

from __future__ import annotations

import time

import pandas as pd

import pandas_amr  # noqa: F401 (registers df.amr)
from pandas_amr.testing import RateLimit, ScriptedServer, findings

ROWS = 1000
RPM = 1200
TOKENS_A_ROW = 139  # what the scripted server counts for one


def provider(request):
    return findings(request, lambda unit: {"n": int(unit["text"].split()[1])})


def measure(what: str, limit: RateLimit) -> None:
    df = pd.DataFrame({"text": [f"row {n}" for n in range(ROWS)]})
    with ScriptedServer(provider, latency_s=0.05, limit=limit) as server:
        began = time.perf_counter()
        result = df.amr.map_reduce(
            map="Which?",
            finding={"n": int},
            reduce={"n": "sum"},
            plan={"shard_size": 1},
            max_parallelism=64,
            lm=server.lm(),
            progress=False,
        )
        took = time.perf_counter() - began
    assert result.output["n"] == sum(range(ROWS))
    spent = ROWS if limit.rpm else result.total.tokens
    rate = (limit.rpm or limit.tpm) / 60
    ideal = (spent - rate * limit.burst_s) / rate
    told = "headers on " if limit.headers else "headers off"
    print(
        f"{what} a minute, {told}: {server.refused / len(server.requests):.1%} answered 429, "
        f"{took:.1f} s, {took / ideal:.2f} of the ideal {ideal:.1f} s",
        flush=True,
    )


for headers in (True, False):
    measure("requests", RateLimit(rpm=RPM, headers=headers))
    measure("tokens  ", RateLimit(tpm=RPM * TOKENS_A_ROW, headers=headers))
