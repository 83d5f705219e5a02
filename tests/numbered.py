"""Rows whose text says their number, and a model that reads it: a finding on a wrong row shows."""

from __future__ import annotations

from typing import Any

import pandas as pd

from pandas_amr.testing import findings


def rows(count: int, **columns: Any) -> pd.DataFrame:
    """Make a frame of so many rows; other columns by name."""
    return pd.DataFrame({"text": [f"row {n}" for n in range(count)]} | columns)


def labelled_rows(count: int) -> pd.DataFrame:
    """Make a frame whose labels are not its positions."""
    return rows(count).set_axis([f"label {n}" for n in range(count)])


def number(unit: dict[str, Any]) -> dict[str, Any]:
    """Read a row's number: its finding."""
    return {"n": int(unit["text"].split()[1])}


def provider(request: Any) -> Any:
    """Answer with the number of each row."""
    return findings(request, number)
