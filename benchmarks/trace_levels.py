"""CPU per call of the transcript: ``trace="off"``, ``"nodes"`` and ``"full"`` in turns, with and without a journal.

One row per call, no latency, the scripted server in a process of its own. The levels take turns, in another order each
time, so that what else the machine does meets all of them; the figure is the median of the differences to ``"off"``.
Aim: ``"nodes"`` costs at most a few tens of microseconds per call.
"""

from __future__ import annotations

import itertools
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import pandas as pd

import pandas_amr as amr
from pandas_amr.testing import ScriptedServer, findings

CALLS = 500
TURNS = 8
LEVELS = ("off", "nodes", "full")


def provider(request):
    return findings(request, lambda unit: {"n": int(unit["text"].split()[1])})


def serve(pipe) -> None:
    with ScriptedServer(provider) as server:
        pipe.send(server.base_url)
        pipe.recv()


def run(url: str, trace: str, journal: Path | bool) -> float:
    """Seconds of CPU of one run."""
    lm = amr.LM("m", base_url=url, api_key="k", journaled=False)
    df = pd.DataFrame({"text": [f"row {number}" for number in range(CALLS)]})
    options = {"map": "Find the number.", "finding": {"n": int}, "reduce": {"n": "sum"}, "lm": lm, "progress": False}
    options |= {"plan": {"shard_size": 1}, "max_parallelism": 64, "trace": trace, "journal": journal}
    began = time.process_time()
    result = df.amr.map_reduce(**options)
    took = time.process_time() - began
    assert result.output["n"] == sum(range(CALLS))
    return took


def measure(url: str, *, has_journal: bool) -> None:
    """Print what each level costs per call, beside that of ``"off"``."""
    orders = itertools.cycle(itertools.permutations(LEVELS))
    more: dict[str, list[float]] = {level: [] for level in LEVELS}
    for _ in range(TURNS):
        took: dict[str, float] = {}
        for level in next(orders):
            with tempfile.TemporaryDirectory() as folder:
                took[level] = run(url, level, Path(folder) / "j.sqlite" if has_journal else False)
        for level in LEVELS:
            more[level].append((took[level] - (took["off"] if level != "off" else 0.0)) / CALLS * 1e6)
    off, nodes, full = (statistics.median(more[level]) for level in LEVELS)
    print(
        f"{'with' if has_journal else 'without'} a journal: off {off:.0f} us per call, "
        f"nodes {nodes:+.0f} us, full {full:+.0f} us",
        flush=True,
    )


if __name__ == "__main__":
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    url = here.recv()
    run(url, "nodes", False)
    for has_journal in (False, True):
        measure(url, has_journal=has_journal)
    here.send("done")
    server.join()
