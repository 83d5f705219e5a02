"""What a run on a cluster of Dask costs the driver: CPU per shard, beside a run in the driver's own process.

2,000 rows, a shard each, by two workers on this machine; the provider is a process of its own. The aim: at most half
of the CPU that the same shards take where they are mapped here. Needs ``pandas-amr[dask]``; takes about a minute.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import tempfile
import time

import pandas as pd

import pandas_amr  # noqa: F401 (registers df.amr)
from pandas_amr import LM
from pandas_amr.testing import ScriptedServer, findings

try:
    from distributed import Client, LocalCluster
except ImportError:
    print("skipped: needs pandas-amr[dask]")
    sys.exit(0)

ROWS = 2000
AIM = 0.5
ASKED = {"finding": {"n": int}, "plan": {"shard_size": 1}, "max_parallelism": 16, "progress": False}


def provider(request):
    return findings(request, lambda unit: {"n": int(unit["text"].split()[1])})


def serve(address, stop) -> None:
    with ScriptedServer(provider) as server:
        address.put(server.base_url)
        stop.wait()


def cpu_per_shard(name: str, df: pd.DataFrame, lm: LM, **options) -> float:
    """Map all rows; print and return the milliseconds of CPU that each shard took in this process."""
    began, cpu = time.perf_counter(), time.process_time()
    found = df.amr.map("Which?", lm=lm, **ASKED, **options)
    each = 1e3 * (time.process_time() - cpu) / ROWS
    assert found["n"].tolist() == list(range(ROWS))
    print(f"{name:8} {each:.2f} ms of CPU per shard, {time.perf_counter() - began:.1f} s")
    return each


def main() -> None:
    context = multiprocessing.get_context("spawn")
    address, stop = context.Queue(), context.Event()
    server = context.Process(target=serve, args=(address, stop))
    server.start()
    os.environ["OPENAI_API_KEY"] = "scripted-key"
    df = pd.DataFrame({"text": [f"row {n}" for n in range(ROWS)]})
    lm = LM("scripted", base_url=address.get())
    cluster = LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL
    )
    with tempfile.TemporaryDirectory() as folder, cluster, Client(cluster) as client:
        df.iloc[:20].amr.map("Which?", lm=lm, engine=client, **ASKED, journal=False)  # imports are paid for here
        df.iloc[:20].amr.map("Which?", lm=lm, **ASKED, journal=False)
        here = cpu_per_shard("here", df, lm, journal=f"{folder}/here.db")
        there = cpu_per_shard("cluster", df, lm, journal=f"{folder}/there.db", engine=client)
    stop.set()
    server.join()
    print(f"the driver's share: {there / here:.2f} (aim: {AIM})")
    assert there / here <= AIM


if __name__ == "__main__":
    main()
