"""The shard as a session has it: what its columns are called, and what an agent is told of that."""

from __future__ import annotations

import datetime as dt
import json

import numpy as np
import pandas as pd
import pytest

import pandas_amr as amr
from pandas_amr._units.parquet import ArrowFrame
from pandas_amr.testing import Call, ScriptedServer

PREVIEW = {"view": "preview", "shard_size": 40}
SAID = "Column 'unit' is called 'unit_' here: `unit` is the row's number."


@pytest.mark.usefixtures("sandboxed")
def test_a_column_of_the_user_s_called_unit_is_not_taken_for_the_unit_s_number():
    frame = pd.DataFrame({"unit": [4, 3, 2, 1, 0], "amount": [10, 11, 12, 13, 14]})
    code = Call("python_repl", {"code": "submit(df.rename(columns={'amount': 'n'})[['unit_', 'n']][['n', 'unit_']])"})
    plain = Call("python_repl", {"code": "submit(df.drop(columns='unit_').rename(columns={'amount': 'n'}))"})
    whole = Call("python_repl", {"code": "submit(df.rename(columns={'amount': 'n'}))"})
    for said, finding in ((code, {"n": int, "unit_": int}), (plain, {"n": int}), (whole, {"n": int, "unit_": int})):
        with ScriptedServer(lambda request, said=said: said) as server:
            found = frame.amr.map(
                "The amount.", finding=finding, plan=PREVIEW, tools=[amr.PythonREPLTool()], lm=server.lm()
            )
            assert SAID in server.requests[0].user
        assert found["n"].tolist() == [10, 11, 12, 13, 14]


def test_a_column_called_unit_gets_the_first_name_that_is_free_and_only_in_a_shard():
    arrow = ArrowFrame.of(pd.DataFrame([[1, 2, 3]], columns=["unit_", "unit", "a"]))
    assert arrow.data("df").labels["columns"] == ("unit_", "unit__", "a")
    assert arrow.changed == (SAID.replace("'unit_'", "'unit__'"),)
    assert arrow.data("answers").labels["columns"] == ("unit_", "unit", "a")
    assert ArrowFrame.of(pd.DataFrame({"a": [1]})).changed == ()


@pytest.mark.parametrize(
    "label", [np.datetime64("2026-01-01"), np.datetime64("2026-01-01T00:00:00.000000001"), np.timedelta64(3, "ns")]
)
def test_a_column_s_name_that_json_does_not_know_is_a_text_and_told(label):
    frame = pd.DataFrame({"x": [1]})
    frame.columns = pd.Index([label], dtype=object)
    arrow = ArrowFrame.of(frame)
    assert json.loads(json.dumps(arrow.data("df").labels))["columns"] == [str(label)]
    assert arrow.changed == (f"The name {str(label)!r} is a text, and was {type(label).__name__}.",)
    numbered = ArrowFrame.of(pd.DataFrame({np.int64(3): [1], np.float64(0.5): [2], np.bool_(True): [3]}))
    assert json.dumps(numbered.columns) == "[3, 0.5, true]"


@pytest.mark.parametrize("days", [106_751_992, 999_999_999, -999_999_999])
def test_a_span_longer_than_pandas_has_any_is_a_text_and_no_error(days):
    span = dt.timedelta(days=days)
    arrow = ArrowFrame.of(pd.DataFrame({"span": pd.Series([span], dtype=object)}))
    assert arrow.table.column("c0").to_pylist() == [f"P{days}DT0H0M0S"]
