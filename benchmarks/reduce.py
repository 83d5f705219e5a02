"""An adaptive reduce of many findings through a small window: requests, the greatest of them, levels, peak memory.

python benchmarks/reduce.py [findings]
"""

from __future__ import annotations

import random
import sys
import tracemalloc

import pandas as pd

import pandas_amr as amr
from pandas_amr.testing import ScriptedServer

WINDOW = 8000
ANSWER = 500


def words(text: str) -> int:
    return len(text.split())


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    chance = random.Random(5)
    sizes = [chance.randint(50, 2000) for _ in range(count)]
    frame = pd.DataFrame({"text": [f"row {n}" for n in range(count)], "size": sizes})
    greatest = requests = 0

    def provider(request):
        nonlocal greatest, requests
        requests += 1
        greatest = max(greatest, sum(words(str(message["content"])) for message in request.messages))
        return {"output": "noted " * 100, "sources": [0, len(request.findings) - 1]}

    with ScriptedServer(provider) as server:
        lm = server.lm(abilities=amr.Abilities(context_window=WINDOW), token_counter=words, max_output_tokens=ANSWER)
        tracemalloc.start()
        result = frame.amr.map_reduce(
            map=lambda part: [{"why": " ".join(["w"] * size)} for size in part["size"]],
            finding={"why": str},
            reduce="All.",
            lm=lm,
            max_parallelism=16,
            progress=False,
            journal=False,
        )
        peak = tracemalloc.get_traced_memory()[1]
    levels = [level["nodes"] for level in result.graph().levels]
    text = sum(size * 2 for size in sizes) / 2**20
    print(f"{count:,} findings of 50 to 2,000 tokens ({text:.0f} MB of text), a window of {WINDOW} tokens")
    print(f"  nodes a level: {' -> '.join(map(str, levels))}; {requests} requests")
    print(
        f"  the greatest prompt {greatest} tokens and {ANSWER} for the answer: over the window {greatest + ANSWER > WINDOW}"
    )
    print(
        f"  peak memory of Python objects {peak / 2**20:.0f} MB, the scripted server's and the requests it keeps among them"
    )
    print(f"  {result.seconds:.1f} s (traced)")


if __name__ == "__main__":
    main()
