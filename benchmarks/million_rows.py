"""A million short rows through units, fingerprints, shards, a callable map and write-back.

Prints microseconds of CPU a row and peak memory over the frame's own, at three sizes, and each stage's share.
Aims: under 30 us a row, under 600 MB, and growth in proportion. Each size runs in a process of its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

SIZES = (250_000, 500_000, 1_000_000)
SHARD_ROWS = 50


def measure(rows: int) -> None:
    import asyncio

    import numpy as np
    import pandas as pd

    from pandas_amr._context.python_sessions import Converted
    from pandas_amr._context.services import Services
    from pandas_amr._context.settings import Settings
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.state import State
    from pandas_amr._findings.columns import add_findings
    from pandas_amr._map.ask import make_ask
    from pandas_amr._map.stage import MapStage
    from pandas_amr._plan.arguments import check
    from pandas_amr._plan.call import Call
    from pandas_amr._plan.defaults import fill_defaults
    from pandas_amr._units.units import make_units
    from pandas_amr.models.base import Abilities

    rng = np.random.default_rng(0)
    df = pd.DataFrame(
        {"text": [f"order {n} arrived late and wet" for n in range(rows)], "stars": rng.integers(1, 6, rows)}
    )
    own = df.memory_usage(deep=True).sum() / 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    stages: dict[str, float] = {}

    def timed(name, work):
        began = time.process_time()
        done = work()
        stages[name] = time.process_time() - began
        return done

    def lengths(shard):
        return [{"n": stars} for stars in shard["stars"].tolist()]

    call = Call(verb="map", frame=df, map=lengths, finding={"n": int}, plan={"shard_size": SHARD_ROWS}, progress=False)
    job = timed("check", lambda: check(call))
    plan = fill_defaults(job.given, job, abilities=Abilities(), parallelism=None)
    spec, state = Spec(job, Settings(progress=False), {}, plan), State()
    services = Services(make_ask, state.warnings.append, Converted(df))
    units = timed("units and fingerprints", lambda: make_units(job.frame, job.columns, dedupe=True))
    stage = timed("shards", lambda: MapStage(spec, services, state, units))
    timed("map and findings", lambda: asyncio.run(stage.run(None)))
    found = timed("columns", stage.findings.findings)
    frame = timed("write-back", lambda: add_findings(df, found))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert frame["n"].sum() == df["stars"].sum()
    print(json.dumps({"rows": rows, "stages": stages, "over_mb": peak - before, "frame_mb": own}))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(int(sys.argv[1]))
        sys.exit()
    for rows in SIZES:
        done = subprocess.run([sys.executable, __file__, str(rows)], capture_output=True, text=True, check=True)
        told = json.loads(done.stdout)
        total = sum(told["stages"].values())
        share = ", ".join(
            f"{name} {seconds / total:.0%}" for name, seconds in told["stages"].items() if seconds > 0.005 * total
        )
        print(
            f"{rows:>9,} rows: {total / rows * 1e6:.1f} us of CPU a row, {told['over_mb']:.0f} MB over the frame's "
            f"{told['frame_mb']:.0f} MB; {share}"
        )
