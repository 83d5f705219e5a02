"""A ledger of 9,994 lines of sales: real enough to have traps, small enough to check by pandas.

It is the table SampleSuperstore that the wheel of ``bokeh-sampledata`` carries. Nothing of it is kept in this
repository: the package index gives it once, into ``.data/``.
"""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd

DATA = Path(__file__).resolve().parent.parent / ".data"
PACKAGE = "bokeh-sampledata==2026.1"
TABLE = "bokeh_sampledata/_data/SampleSuperstore.csv.gz"


def ledger() -> pd.DataFrame:
    """The lines, one per kind of goods in an order."""
    return pd.read_csv(io.BytesIO(_table()), encoding="latin-1")


def _table() -> bytes:
    kept = DATA / "sample-superstore.csv"
    if not kept.exists():
        DATA.mkdir(exist_ok=True)
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*fetch, "--dest", str(DATA), PACKAGE], check=True)
        with zipfile.ZipFile(next(DATA.glob("bokeh_sampledata-*.whl"))) as wheel:
            kept.write_bytes(gzip.decompress(wheel.read(TABLE)))
    return kept.read_bytes()
