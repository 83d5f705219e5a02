"""What a session costs: against a new process that imports pandas and loads the same shard, in the same run.

python benchmarks/sandbox.py [sessions]
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from pandas_amr._units.parquet import ArrowFrame
from pandas_amr.sandbox.base import Limits
from pandas_amr.sandbox.host.local import LocalSandbox

ROWS = 1000
FIRST = "df['amount'].sum()"
PEER = "import sys, pandas as pd; df = pd.read_parquet(sys.argv[1], dtype_backend='pyarrow'); print(df['amount'].sum())"


def middle(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return f"{1000 * statistics.median(ordered):7.2f} ms (p95 {1000 * ordered[int(0.95 * (len(ordered) - 1))]:.2f})"


async def measured(data, sessions: int) -> float:
    sandbox = LocalSandbox()
    first, cells, grouped = [], [], []
    warm = await sandbox.open(data, Limits())
    await warm.run("1")
    await warm.close()
    await asyncio.sleep(0.2)
    zygote = descendants(sandbox._zygotes[0].pid)
    before, host_before = cpu(zygote), time.process_time()
    for _ in range(sessions):
        session = await sandbox.open(data, Limits())
        await session.run(FIRST)
        await session.close()
    host_spent = (time.process_time() - host_before) / sessions
    await asyncio.sleep(0.2)
    spent = (cpu(zygote) - before) / sessions
    for _ in range(sessions):
        began = time.perf_counter()
        session = await sandbox.open(data, Limits())
        await session.run(FIRST)
        first.append(time.perf_counter() - began)
        for code, kept in (("1 + 1", cells), ("df.groupby('kind')['amount'].sum()", grouped)):
            await session.run(code)
            began = time.perf_counter()
            await session.run(code)
            kept.append(time.perf_counter() - began)
        await session.close()
    print(f"tier {sandbox.tier}, uid {os.getuid()}, {ROWS} rows, {sessions} sessions one after the other")
    print(f"  session to its first answer  {middle(first)}")
    print(f"  trivial cell                 {middle(cells)}")
    print(f"  groupby cell                 {middle(grouped)}")
    print(f"  CPU a session, first cell    {1000 * spent:7.2f} ms, on the sandbox's side")
    print(f"  the same on the host's side  {1000 * host_spent:7.2f} ms")
    zygote = descendants(sandbox._zygotes[0].pid)
    kept = [await sandbox.open(data, Limits()) for _ in range(20)]
    for session in kept:
        await session.run(FIRST)
    if os.getuid() == 0:  # others may not look into a session
        private = [memory(pid) for pid in descendants(sandbox._zygotes[0].pid) if pid not in zygote]
        own, shared = (statistics.median(one[part] for one in private) for part in (0, 1))
        print(f"  memory a session             {own:7.1f} MB private, {shared:.1f} MB PSS")
    for session in kept:
        await session.close()
    await sandbox.close()
    for zygotes in (1, 2):
        sandbox = LocalSandbox(zygotes=zygotes)
        await (await sandbox.open(data, Limits())).run("1")

        async def one(sandbox=sandbox):
            session = await sandbox.open(data, Limits())
            await session.run(FIRST)
            await session.close()

        gate = asyncio.Semaphore(4)

        async def gated(gate=gate, one=one):
            async with gate:
                await one()

        began = time.perf_counter()
        await asyncio.gather(*(gated() for _ in range(sessions)))
        print(
            f"  sessions a second, {zygotes} zygote{'s' * (zygotes > 1)}  {sessions / (time.perf_counter() - began):7.0f}"
        )
        await sandbox.close()
    return statistics.median(first)


def descendants(pid: int) -> set[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, open_ = set(), [pid]
    while open_:
        one = open_.pop()
        found.add(one)
        open_ += children.get(one, [])
    return found


def cpu(pids: set[int]) -> float:
    """Seconds of these and of their children that have ended."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += sum(int(one) for one in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> tuple[float, float]:
    values = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, size = line.split(":")
        values[name] = int(size.split()[0]) / 1024
    return values["Private_Clean"] + values["Private_Dirty"], values["Pss"]


def peer(frame: pd.DataFrame, runs: int = 7) -> float:
    seconds = []
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        frame.to_parquet(file.name)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        for _ in range(runs):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", PEER, file.name], check=True, capture_output=True)
            seconds.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / runs
    print(
        f"subprocess, import pandas, the same load: {middle(seconds)}, {1000 * spent:.0f} ms of CPU, {after.ru_maxrss / 1024:.0f} MB"
    )
    return statistics.median(seconds)


def main() -> None:
    sessions = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "text": [f"row {n} of a table with some text in it" for n in range(ROWS)],
            "kind": random.choice(["a", "b", "c"], ROWS),
            "amount": random.normal(100, 10, ROWS).round(2),
        }
    )
    data = ArrowFrame.of(frame).data("df")
    ours = asyncio.run(measured(data, sessions))
    theirs = peer(frame)
    print(f"to the first answer: {theirs / ours:.0f} times as fast")


if __name__ == "__main__":
    main()
