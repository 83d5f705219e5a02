"""What is public, and what importing costs."""

from __future__ import annotations

import json
import os

import pytest

import pandas_amr as amr
from pandas_amr import errors
from processes import run_python
from versions import once


def told_by(code: str) -> str:
    done = run_python(code)
    done.check_returncode()
    return done.stdout


def test_every_public_name_is_there_and_no_other_is_listed():
    for name in amr.__all__:
        assert getattr(amr, name) is not None
    assert sorted(set(dir(amr)) - {"__version__", "errors", "events", "testing", "tools"}) == sorted(amr.__all__)
    assert set(errors.__all__) <= set(amr.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'mapreduce'"):
        _ = amr.mapreduce


def test_importing_loads_nothing_heavy_and_touches_no_network_and_no_logging():
    """The accessor is the only side effect of the import."""
    code = """
import json, logging, sys
import pandas
before, handlers = set(sys.modules), list(logging.root.handlers)
def audit(event, args):
    if event.startswith("socket."):
        raise RuntimeError(event)
sys.addaudithook(audit)
import pandas_amr
added = set(sys.modules) - before
assert logging.root.handlers == handlers
pandas.DataFrame({"a": [1]}).amr
print(json.dumps(sorted({name.split(".")[0] for name in added})))
"""
    added = set(json.loads(told_by(code)))
    if "AMR_LOWEST" in os.environ:  # pandas loads these, too, but not with so old a numpy
        added -= {"contextvars", "_contextvars"}
    assert added == {"pandas_amr"}


ELSEWHERE = """
import sys
sys.modules["fcntl"] = sys.modules["resource"] = None  # Windows has neither
import pandas as pd, pandas_amr as amr
from pandas_amr.testing import ScriptedServer, findings
sys.platform = "win32"
df = pd.DataFrame({"text": ["a", "b"]})
with ScriptedServer(lambda request: findings(request, lambda unit: {"n": 1})) as server:
    for calls, tools in ((True, []), (False, []), (True, [amr.PythonREPLTool()])):
        lm = amr.LM("m", base_url=server.base_url, api_key="k", abilities=amr.Abilities(tools=calls))
        try:
            print(df.amr.map_reduce(map="Count.", finding={"n": int}, reduce={"n": "sum"}, lm=lm, tools=tools).output["n"])
        except amr.SandboxUnavailable as error:
            print(error)
    print(len(server.requests))
"""


@once
@pytest.mark.long
def test_where_there_is_no_linux_all_but_the_sandbox_works_and_that_is_told_before_a_call():
    *sums, told, calls = told_by(ELSEWHERE).splitlines()
    assert sums == ["2", "2"]
    assert told.startswith("The embedded sandbox needs Linux, and this is win32. What works here is a container")
    assert calls == "2"


def test_every_error_is_an_amr_error_and_the_builtin_one_would_catch():
    assert issubclass(amr.UsageError, amr.AMRError)
    assert issubclass(amr.UsageError, ValueError)
    assert issubclass(amr.ColumnError, KeyError)
    assert issubclass(amr.PlanError, ValueError)
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), (amr.AMRError, amr.AMRWarning))


def test_the_accessor_is_made_anew_at_no_cost_and_shows_its_verbs():
    import pandas as pd

    assert repr(pd.DataFrame({"a": [1]}).amr) == "<df.amr of 1 row: start, map_reduce, map, filter, reduce, plan>"


def test_the_verbs_of_the_accessor_have_the_functions_own_signature_and_docstring():
    import inspect

    import pandas as pd

    bound = pd.DataFrame({"a": [1]}).amr.map_reduce
    assert list(inspect.signature(bound).parameters) == list(inspect.signature(amr.map_reduce).parameters)[1:]
    assert bound.__doc__ == amr.map_reduce.__doc__


def test_public_classes_name_the_package_as_their_module_and_pickles_find_them():
    import pickle

    public = [getattr(amr, name) for name in amr.__all__]
    classes = [value for value in public if isinstance(value, type)]
    assert len(classes) > 40
    for name in set(amr.events.__all__) - {"Event"}:
        kind = getattr(amr.events, name)
        assert f"{kind.__module__}.{kind.__qualname__}" == f"pandas_amr.events.{name}"
        assert pickle.loads(pickle.dumps(kind)) is kind
    for kind in classes:
        assert f"{kind.__module__}.{kind.__qualname__}" == f"pandas_amr.{kind.__name__}"
        assert pickle.loads(pickle.dumps(kind)) is kind
    error = pickle.loads(pickle.dumps(amr.ModelRejected("too long", too_long=True)))
    assert type(error) is amr.ModelRejected
    assert error.too_long
    assert pickle.loads(pickle.dumps(amr.Limits(memory_mb=64))) == amr.Limits(memory_mb=64)
