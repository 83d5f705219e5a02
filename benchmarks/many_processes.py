"""500 one-row calls by 1, 2, 4 and 8 processes together, against 1,200 requests a minute on one key.

The processes begin from a barrier after their imports. Prints the share of requests answered 429 and the makespan over
the limit's ideal: with the limit in ``x-ratelimit-*`` headers, told by ``rpm=``, and with neither; then the same with
one process of four killed in the middle, whose share the others take. Aims: with headers or told at most 3 % of 429s
and 1.15 of the ideal; with neither 8 % and 1.25. Takes about 8 minutes; ``--faster 10`` is ten times as fast, and
``--alone`` leaves the lease out.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time

import pandas as pd

import pandas_amr  # noqa: F401 (registers df.amr)
from pandas_amr.testing import RateLimit, ScriptedServer, findings

CALLS = 500
RPM = 1200
MODES = {"headers": (True, False), "told": (False, True), "unknown": (False, False)}
AIMS = {"headers": (0.03, 1.15), "told": (0.03, 1.15), "unknown": (0.08, 1.25)}


def provider(request):
    return findings(request, lambda unit: {"n": int(unit["text"].split()[1])})


def read_rows(lm, rows: range) -> None:
    df = pd.DataFrame({"text": [f"row {n}" for n in rows]})
    options = {"finding": {"n": int}, "plan": {"shard_size": 1}, "reduce": {"n": "sum"}}
    result = df.amr.map_reduce(map="Which?", **options, max_parallelism=64, lm=lm, progress=False)
    assert result.output["n"] == sum(rows)


def import_all() -> None:
    """Have all imported that a first request imports; the processes are forks of this one."""
    with ScriptedServer(provider) as server:
        read_rows(server.lm(), range(2))


def fork(lm, rows: range, ready: int, start: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.write(ready, b"r")
        os.read(start, 1)
        read_rows(lm, rows)
        status = 0
    finally:
        os._exit(status)


def measure(mode: str, processes: int, faster: float, *, kills: bool) -> None:
    headers, told = MODES[mode]
    rpm = RPM * faster
    limit = RateLimit(rpm=rpm, headers=headers, burst_s=1 / faster**0.5)
    server = ScriptedServer(provider, latency_s=0.05 / faster**0.5, limit=limit)
    ready, start = os.pipe(), os.pipe()
    with server:
        lm = server.lm(rpm=rpm if told else None)
        part = CALLS // processes
        pids = [fork(lm, range(n * part, (n + 1) * part), ready[1], start[0]) for n in range(processes)]
        for _ in pids:
            os.read(ready[0], 1)
        limit.__post_init__()
        began = time.perf_counter()
        os.write(start[1], b"s" * processes)
        if kills:
            while len(server.requests) - server.refused < CALLS / 2:
                time.sleep(0.005)
            os.kill(pids[0], signal.SIGKILL)
        statuses = [os.waitpid(pid, 0)[1] for pid in pids]
        took = time.perf_counter() - began
    assert statuses[kills:] == [0] * (processes - kills), statuses
    admitted = len(server.requests) - server.refused
    burst = rpm / 60 * limit.burst_s
    ideal = (admitted - burst) / (rpm / 60)
    share, ratio = server.refused / len(server.requests), took / ideal
    most_refused, longest = AIMS[mode]
    good = "ok" if share <= most_refused and ratio <= longest else "MISSED"
    print(
        f"{mode:8} {processes} processes{', one killed' if kills else '':12} {server.refused:5} answers of 429 "
        f"({share:5.1%})  {took:5.1f} s, {ratio:.2f} of the ideal {ideal:.1f} s  {good}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--faster", type=float, default=1.0)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--modes", nargs="*", default=list(MODES))
    parser.add_argument("--processes", nargs="*", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--times", type=int, default=1)
    options = parser.parse_args()
    os.environ["AMR_JOURNAL"] = "off"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AMR_LEASE"] = "off" if options.alone else folder
        import_all()
        for _ in range(options.times):
            for mode in options.modes:
                for processes in options.processes:
                    measure(mode, processes, options.faster, kills=False)
                if 4 in options.processes:
                    measure(mode, 4, options.faster, kills=True)


if __name__ == "__main__":
    main()
