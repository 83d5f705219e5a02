"""20,000 rows against a server on its worst day: five of a hundred rows meet each of five families of faults.

The wire breaks (resets, bad status lines and chunks, doubled lengths, headers that are too large or drip, hangs);
errors (500, HTML, 429 with and without a hint, 200 with an error); usage that is null, negative or of odd types, and
bodies that cannot be read; answers that are wrong or oddly said; and rows that a provider will not have, which alone
cost their finding. All others are found, with the right value, and what is told is what the server has billed.

``tests/chaos.py`` says what happens to which row; ``tests/run/test_chaos.py`` is the small one.
"""

from __future__ import annotations

import os
import re
import sys
import time
import warnings
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import pandas_amr as amr
from chaos import FAMILIES, Chaos, fault_of

ROWS = int(os.environ.get("AMR_CHAOS_ROWS", "20000"))
SHARD = 4
AT_ONCE = 64
NUMBERS = re.compile(r"\d+")


def main() -> None:
    df = pd.DataFrame({"text": [f"row {n}" for n in range(ROWS)]})
    met = sum(fault_of(text) is not None for text in df["text"])
    kinds = {kind for family in FAMILIES for kind in family}
    print(
        f"{ROWS:,} rows, {SHARD} a request, {AT_ONCE} at once; {met:,} rows meet one of {len(kinds)} faults", flush=True
    )
    with Chaos() as server, warnings.catch_warnings():
        warnings.simplefilter("ignore", amr.FailureWarning)
        began = time.perf_counter()
        result = df.amr.map_reduce(
            map="Which row?",
            finding={"n": int},
            reduce={"n": "count"},
            plan={"shard_size": SHARD},
            max_parallelism=AT_ONCE,
            lm=server.lm(timeout_s=2.0),
            progress=False,
        )
        took = time.perf_counter() - began
    report(result, server, took)


def report(result: amr.Result, server: Chaos, took: float) -> None:
    right = result.frame["n"].eq(pd.Series(range(ROWS)))
    lost = result.frame["text"].map(server.stays)
    total = result.total
    print(
        f"found {right.sum():,}, failed {len(result.failures):,} (of {lost.sum():,} that cannot be), wrong "
        f"{(result.frame['n'].notna() & ~right).sum()}"
    )
    for reason, count in result.failures["reason"].map(in_general).value_counts().items():
        print(f"  {count:5,}  {reason}")
    print(
        f"requests {len(server.requests):,}, told {total.tries:,}; answers billed {server.paid.answers:,}, told {total.calls:,}"
    )
    print(
        f"tokens billed and told by the server {server.told:,}; answers without usage {server.untold:,}, estimated "
        f"{total.estimated:,} ({total.tokens - server.told:,} tokens)"
    )
    print(f"faults that happened {sum(server.happened.values()):,} of {len(server.happened)} kinds")
    print(f"{took:.1f} s, {ROWS / took:,.0f} rows a second")
    if result.stopped is not None:
        raise SystemExit(f"stopped: {result.stopped}")
    if not (right | lost).all() or (total.tries, total.calls) != (len(server.requests), server.paid.answers):
        raise SystemExit("not as it should be")


def in_general(reason: str) -> str:
    """A reason without its numbers."""
    return NUMBERS.sub("N", reason)[:100]


main()
