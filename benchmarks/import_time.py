"""What ``import pandas_amr`` adds to ``import pandas``: milliseconds, median of fresh processes. Aim: at most 60."""

from __future__ import annotations

import statistics
import subprocess
import sys

PROCESSES = 15
CODE = """
import time, pandas
began = time.perf_counter()
import pandas_amr
print((time.perf_counter() - began) * 1000)
"""

took = [
    float(subprocess.run([sys.executable, "-c", CODE], capture_output=True, check=True).stdout)
    for _ in range(PROCESSES)
]
print(f"import pandas_amr after import pandas: median {statistics.median(took):.1f} ms, worst {max(took):.1f} ms")
sys.exit(statistics.median(took) > 60)
