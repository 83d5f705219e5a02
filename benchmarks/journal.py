"""What the journal costs: a run with and without it in the same run, look-ups of what is known, bytes a finding.

    python benchmarks/journal.py [units]

The aims: under 20 us of CPU a finding, a million look-ups in under 10 s.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

import pandas_amr as amr
from pandas_amr._findings.finding_type import FindingType
from pandas_amr._journal.database import Entry
from pandas_amr._journal.entries import Check, read_findings
from pandas_amr._journal.keys import fingerprint
from pandas_amr._types.record import record_type

ROUNDS = 3


def find(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"length": frame["text"].str.len(), "first": frame["text"].str[0]}, index=frame.index)


find.amr_version = "1"


def run(frame: pd.DataFrame, journal: object) -> tuple[float, float]:
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    result = frame.amr.map_reduce(
        map=find, finding={"length": int, "first": str}, reduce={"length": "sum"}, journal=journal, progress=False
    )
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    assert len(result.failures) == 0
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    units = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    frame = pd.DataFrame({"text": [f"{n} a text of a row that is some words long" for n in range(units)]})
    with tempfile.TemporaryDirectory() as folder:
        without, fresh, again = [], [], []
        run(frame.head(1000), False)
        for number in range(ROUNDS):
            path = Path(folder) / f"{number}.sqlite"
            without.append(run(frame, False))
            fresh.append(run(frame, path))
            again.append(run(frame, path))
        size = amr.Journal(path).size()

        def middle(rounds, part):
            return statistics.median(one[part] for one in rounds)

        print(f"{units:,} units, a function as map, medians of {ROUNDS} rounds")
        for name, rounds in (("without a journal", without), ("with a new one", fresh), ("all known", again)):
            print(f"  {name:18} {middle(rounds, 0):6.2f} s, CPU {middle(rounds, 1):6.2f} s")
        cpu = (middle(fresh, 1) - middle(without, 1)) / units * 1e6
        print(
            f"  the journal costs {cpu:.1f} us of CPU and {(middle(fresh, 0) - middle(without, 0)) / units * 1e6:.1f} us a finding"
        )
        print(f"  {size / units:.0f} bytes a finding on disk")
        for known in (100_000, 1_000_000):
            looked_up, checked = asyncio.run(look_up(Path(folder) / f"k{known}.sqlite", known))
            print(
                f"  {known:9,} look-ups of known units: {looked_up:.2f} s, and {checked:.2f} s to check what they found"
            )


async def look_up(path: Path, known: int) -> tuple[float, float]:
    """Seconds of looking known units up, no two of them alike, and of checking what was found."""
    check = Check(FindingType.of(record_type("Finding", {"length": int, "first": str}), None))
    journal = amr.Journal(path)
    keys = [fingerprint(number.to_bytes(8, "big")) for number in range(known)]
    values = [f'{{"length":{number},"first":"1"}}' for number in range(known)]
    entries = [Entry(key, "finding", b"base", value) for key, value in zip(keys, values, strict=True)]
    for start in range(0, known, 50_000):
        await journal.keep(entries[start : start + 50_000], 0)
    looked_up = checked = 0.0
    found = 0
    for start in range(0, known, 20_000):
        began = time.perf_counter()
        texts = await journal.recall(keys[start : start + 20_000])
        looked_up += time.perf_counter() - began
        began = time.perf_counter()
        found += len(read_findings(texts, check))
        checked += time.perf_counter() - began
    assert found == known
    return looked_up, checked


if __name__ == "__main__":
    os.environ["AMR_JOURNAL"] = "off"
    main()
