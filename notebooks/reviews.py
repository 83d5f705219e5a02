"""Real product-review sentences, with the judgement of twenty raters kept aside.

They are the Amazon review snippets that the source distribution of ``vaderSentiment`` carries (MIT; Hutto and Gilbert,
"VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM 2014). Nothing of them is
kept in this repository: the package index gives them once, into ``.data/``.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd

DATA = Path(__file__).resolve().parent.parent / ".data"
PACKAGE, VERSION = "vaderSentiment", "3.3.2"
SNIPPETS = "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt"
CLEAR = 1.5  # of a mean rating from -4 to 4


def sentences(reviews: int = 12) -> pd.DataFrame:
    """The sentences of the first reviews: ``review``, ``text`` and, to be kept aside, ``score``."""
    table = pd.read_csv(io.BytesIO(_snippets()), sep="\t", quoting=3, names=["id", "score", "text"], encoding="latin-1")
    table["review"] = table["id"].str.split("_").str[0].astype(int)
    return table.loc[table["review"] <= reviews, ["review", "text", "score"]].reset_index(drop=True)


def _snippets() -> bytes:
    kept = DATA / "amazon-review-snippets.tsv"
    if not kept.exists():
        DATA.mkdir(exist_ok=True)
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*fetch, "--dest", str(DATA), f"{PACKAGE}=={VERSION}"], check=True)
        with tarfile.open(next(DATA.glob("vader*.tar.gz"))) as outer:
            inner = next(name for name in outer.getnames() if name.endswith("hutto_ICWSM_2014.tar.gz"))
            packed = outer.extractfile(inner)
            assert packed is not None
            with tarfile.open(fileobj=io.BytesIO(packed.read())) as tar:
                snippets = tar.extractfile(SNIPPETS)
                assert snippets is not None
                kept.write_bytes(snippets.read())
    return kept.read_bytes()
