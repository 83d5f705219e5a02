"""Ten million short rows in files, mapped by a function with out=, part by part.

Prints microseconds of CPU a row and peak memory at four sizes, each in a process of its own: under 10 us, and at no
size more than 20 % over a smaller one; under 1 GB. Then the largest is killed half-way and begun again: what is done costs nothing.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZES = (1_000_000, 2_000_000, 4_000_000, 10_000_000)
FILE_ROWS = 1_000_000
SHARD_ROWS = 1000
MOST_US = 10.0
MOST_MB = 1024
SPREAD = 1.2


def write(folder: Path, rows: int) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    for start in range(0, rows, FILE_ROWS):
        numbers = np.arange(start, min(start + FILE_ROWS, rows))
        text = pa.array([f"order {number} arrived late and wet" for number in numbers.tolist()])
        table = pa.table({"id": numbers, "shop": numbers % 1000, "text": text})
        pq.write_table(table, folder / f"{start:09d}.parquet", row_group_size=200_000)


def measure(folder: Path, kill_after: int = 0) -> None:
    """Map the files of a folder; with ``kill_after``, kill this process after so many shards."""
    import os

    import pandas as pd

    import pandas_amr as amr

    mapped = []

    def lengths(shard: pd.DataFrame) -> pd.DataFrame:
        mapped.append(len(shard))
        if len(mapped) == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return pd.DataFrame({"length": shard["text"].str.len()}, index=shard.index)

    lengths.amr_version = "1"  # type: ignore[attr-defined]
    pd.DataFrame({"text": ["a"]}).amr.map(lambda shard: [1] * len(shard), progress=False)  # imports are no rows
    cpu, began = time.process_time(), time.monotonic()
    result = amr.map_reduce(
        folder / "in",
        map=lengths,
        reduce={"length": ["sum", "median"], "id": "count"},
        out=folder / "out",
        plan={"shard_size": SHARD_ROWS},
        journal=False,
        progress=False,
    )
    figures = {
        "rows": result.rows,
        "mapped": sum(mapped),
        "cpu_s": time.process_time() - cpu,
        "seconds": time.monotonic() - began,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "sum": float(result.output.loc["sum", "length"]),
    }
    print(json.dumps(figures))


def run(folder: Path, kill_after: int = 0) -> dict | None:
    """Measure in a process of its own; None if it was killed."""
    command = [sys.executable, __file__, str(folder), str(kill_after)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == -signal.SIGKILL:
        return None
    done.check_returncode()
    return json.loads(done.stdout)


def main() -> int:
    problems: list[str] = []
    per_row: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        for rows in SIZES:
            folder = Path(scratch) / str(rows)
            folder.mkdir()
            write(folder / "in", rows)
            figures = run(folder)
            assert figures is not None
            per_row.append(figures["cpu_s"] / rows * 1e6)
            print(
                f"{rows:>10,} rows: {per_row[-1]:5.2f} us of CPU a row, {figures['seconds']:6.1f} s, "
                f"peak {figures['peak_mb']:5.0f} MB",
                flush=True,
            )
            if figures["peak_mb"] > MOST_MB:
                problems.append(f"{rows:,} rows take {figures['peak_mb']:.0f} MB")
        whole = figures["sum"]
        subprocess.run(["rm", "-r", str(folder / "out")], check=True)
        assert run(folder, SIZES[-1] // SHARD_ROWS // 2) is None
        written = len(list((folder / "out").glob("*.parquet")))
        figures = run(folder)
        assert figures is not None
        print(
            f"killed half-way with {written} parts written: {figures['mapped']:,} of {SIZES[-1]:,} rows mapped after it"
        )
        if figures["sum"] != whole or figures["mapped"] > SIZES[-1] * 0.52:
            problems.append("what was done before the kill is done again")
    if max(per_row) > MOST_US:
        problems.append(f"{max(per_row):.1f} us a row")
    if any(later > SPREAD * min(per_row[:place]) for place, later in enumerate(per_row) if place):
        problems.append(f"CPU a row grows with the rows: {per_row}")
    print("; ".join(problems) or "as it should be")
    return bool(problems)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        sys.exit(main())
