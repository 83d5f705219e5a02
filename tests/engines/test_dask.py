"""Dask: what workers map is what this process would have found, and costs no more, whatever happens to them."""

from __future__ import annotations

import contextlib
import os

import pandas as pd
import pytest

from pandas_amr.testing import findings

pytest.importorskip("distributed", reason="the extra [dask] is not installed")

import distributed

FINDING = {"n": int, "odd": bool}
SIZE = {"shard_size": 5}


@contextlib.contextmanager
def workers(count=2, threads=1, **options):
    """A cluster of its own on this machine, and its client."""
    settings = {"dashboard_address": None, "host": "127.0.0.1", **options}
    with distributed.LocalCluster(n_workers=count, threads_per_worker=threads, **settings) as cluster:
        with distributed.Client(cluster) as client:
            yield client


@pytest.fixture(scope="module")
def client():
    """A cluster that no test harms."""
    keys = {"OPENAI_API_KEY": "scripted-key", "AMR_JOURNAL": "off", "AMR_LEASE": "off"}
    before = {name: os.environ.get(name) for name in keys}
    os.environ.update(keys)
    try:
        with workers() as client:
            yield client
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def numbered(rows, groups=3):
    """Rows whose text says their number."""
    return pd.DataFrame(
        {"text": [f"row {number}" for number in range(rows)], "shop": [f"s{number % groups}" for number in range(rows)]}
    )


def read(unit):
    number = int(unit["text"].split()[1])
    return {"n": number, "odd": number % 2 == 1}


def provider(request):
    return findings(request, read)
