"""A name that is mistyped, or a value of another library, gets one error that says what is meant, before any request."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from typing import Any, Literal

import numpy as np
import openai
import pandas as pd
import pytest
from pydantic import BaseModel

import pandas_amr as amr
from pandas_amr._records.suggest import closest_name
from pandas_amr.testing import ScriptedServer

DF = pd.DataFrame({"title": ["a", "b"], "text": ["x", "y"], "stars": [1, 2]})


class Bug(BaseModel):
    label: str
    n: int


def _fits(*args: Any, **options: Any) -> Any:
    """A map with one mistake in its arguments."""
    return lambda lm: DF.amr.map(*(args or ("Read.",)), **({"lm": lm} | options))


def _planned(**fields: Any) -> Any:
    return lambda lm: DF.amr.map("Read.", plan=fields, lm=lm)


def _reduced(**options: Any) -> Any:
    """A map of one number and a reduce, with one mistake."""
    return lambda lm: DF.amr.map_reduce(
        map="Read.", lm=lm, **({"finding": {"n": int}, "reduce": {"n": "mean"}} | options)
    )


def _found(kind: Any) -> Any:
    return lambda lm: DF.amr.map("Read.", finding={"n": kind}, lm=lm)


def _whole(kind: Any) -> Any:
    return lambda lm: DF.amr.map("Read.", finding=kind, lm=lm)


def _two(finding: Any) -> Any:
    return lambda lm: DF.amr.map({"tone": "A?", "size": "B?"}, finding=finding, lm=lm)


def _result() -> amr.Result:
    return DF.amr.map_reduce(map=lambda shard: [{"n": 1}] * len(shard), finding={"n": int}, reduce=len)


U, P, C, A = amr.UsageError, amr.PlanError, amr.ColumnError, AttributeError
MISTAKES: dict[str, tuple[Any, type[Exception], str]] = {
    # fields of a plan and their values
    "a plan field": (_planned(fanin=2), P, "Unknown plan field 'fanin'. Did you mean 'fan_in'?"),
    "a field of a Plan": (
        lambda lm: amr.Plan(shardsize=2),
        P,
        "Unknown plan field 'shardsize'. Did you mean 'shard_size'?",
    ),
    "a field replaced": (lambda lm: amr.Plan().replace(contextwindow=3), P, "Did you mean 'context_window'?"),
    "a value of a Plan": (lambda lm: amr.Plan(view="previw"), P, "not 'previw'. Did you mean 'preview'?"),
    "a field of a Ranking": (
        lambda lm: amr.Ranking(field="n", mots=3),
        P,
        "Unknown ranking field 'mots'. Did you mean 'most'?",
    ),
    "ascending of a Ranking": (lambda lm: amr.Ranking(field="n", ascending=True), P, "Did you mean 'lowest_first'?"),
    "a field of a ranking": (_planned(ranking={"feild": "n"}), P, "of the plan's ranking. Did you mean 'field'?"),
    "the view": (_planned(view="inlin"), P, "not 'inlin'. Did you mean 'inline'?"),
    "the segmentation": (_planned(segmentation="group"), P, "not 'group'. Did you mean 'groups'?"),
    "keyed": (_planned(keyed="shards"), P, "not 'shards'. Did you mean 'shard'?"),
    "a merge rule": (_planned(merge={"finding": "frist"}), P, "not 'frist'. Did you mean 'first'?"),
    "a merged field": (
        lambda lm: DF.amr.map("Read.", finding={"severity": int}, plan={"merge": {"severty": "max"}}, lm=lm),
        U,
        "which is not a field of the finding. Did you mean 'severity'?",
    ),
    "status columns": (
        _planned(status="amr_status"),
        P,
        "status: True, or the names of two columns: ('status', 'reason').",
    ),
    "plan auto": (_fits(plan="atuo"), P, "plan='atuo' is not a file. Did you mean 'auto'?"),
    "an aggregation of a plan": (
        _reduced(reduce=None, plan={"aggregations": {"n": "avg"}}),
        P,
        "not 'avg'. Did you mean 'mean'?",
    ),
    "a type in a plan": (
        _planned(finding={"n": "integer"}),
        P,
        "not 'integer'. Did you mean the type int, without quotes?",
    ),
    "rows to choose": (
        lambda lm: DF.amr.map_reduce(
            map="a", finding={"good": bool}, lm=lm, plan={"where": "goood"}, reduce={"good": "sum"}
        ),
        C,
        "where names 'goood', which does not exist. Did you mean 'good'?",
    ),
    "the key of a ranking": (_reduced(reduce=None, plan={"ranking": {"field": "strs"}}), C, "Did you mean 'stars'?"),
    "columns of groups": (_planned(segmentation="groups", group_columns=["titel"]), C, "Did you mean 'title'?"),
    # keywords
    "a keyword": (_fits(colums=["text"]), U, "map() takes no 'colums'. Did you mean 'columns'?"),
    "another word for it": (_fits(model="gpt"), U, "map() takes no 'model'. Did you mean 'lm'?"),
    "nearly the level": (_fits(traces="full"), U, "map() takes no 'traces'. Did you mean 'trace'?"),
    "another word for a listener": (_fits(callback=print), U, "map() takes no 'callback'. Did you mean 'on_event'?"),
    "a setting of all calls": (
        _fits(telemetry=True),
        U,
        "map() takes no 'telemetry'. It is a setting: amr.configure(telemetry=",
    ),
    "a keyword of start": (
        lambda lm: amr.start(DF, "x", ouput=int),
        U,
        "start() takes no 'ouput'. Did you mean 'output'?",
    ),
    "a keyword of a recipe": (lambda lm: amr.Recipe().map("x", findng={"a": int}), U, "Did you mean 'finding'?"),
    "a keyword of its run": (lambda lm: amr.Recipe().map("x")(DF, jurnal=False), U, "Did you mean 'journal'?"),
    "a keyword of LM": (
        lambda lm: amr.LM("m", temprature=0),
        U,
        "LM() takes no 'temprature'. Did you mean 'temperature'?",
    ),
    "another word of LM": (
        lambda lm: amr.LM("m", max_tokens=5),
        U,
        "LM() takes no 'max_tokens'. Did you mean 'max_output_tokens'?",
    ),
    "a time-out of LM": (lambda lm: amr.LM("m", timeout=5), U, "LM() takes no 'timeout'. Did you mean 'timeout_s'?"),
    "a field of LM replaced": (lambda lm: amr.LM("m").replace(temprature=0), U, "Did you mean 'temperature'?"),
    "a keyword of Budget": (lambda lm: amr.Budget(dollars=3), U, "Budget() takes no 'dollars'. Did you mean 'money'?"),
    "a limit of Budget": (lambda lm: amr.Budget(token=3), U, "Budget() takes no 'token'. Did you mean 'tokens'?"),
    "a keyword of Abilities": (
        lambda lm: amr.Abilities(tool=True),
        U,
        "Abilities() takes no 'tool'. Did you mean 'tools'?",
    ),
    "a keyword of Journal": (lambda lm: amr.Journal("j", refersh=True), U, "Did you mean 'refresh'?"),
    "a keyword of Limits": (
        lambda lm: amr.Limits(memory=5),
        U,
        "Limits() takes no 'memory'. Did you mean 'memory_mb'?",
    ),
    "a keyword of the REPL": (lambda lm: amr.PythonREPLTool(isolaton="strong"), U, "Did you mean 'isolation'?"),
    "a keyword of Tool": (
        lambda lm: amr.Tool(len, timeout=3),
        U,
        "Tool() takes no 'timeout'. Did you mean 'timeout_s'?",
    ),
    "a keyword of tool": (lambda lm: amr.tool(nmae="x"), U, "tool() takes no 'nmae'. Did you mean 'name'?"),
    "a keyword of Agent": (lambda lm: amr.Agent("x", gaol="y"), U, "Agent() takes no 'gaol'. Did you mean 'goal'?"),
    "a keyword of By": (lambda lm: amr.By("title", srot=False), U, "By() takes no 'srot'. Did you mean 'sort'?"),
    "a setting": (lambda lm: amr.configure(eror="raise"), U, "Did you mean configure(errors=...)?"),
    "another word for a setting": (lambda lm: amr.settings(model="m"), U, "Did you mean settings(lm=...)?"),
    "a keyword of score": (lambda lm: _result().score({"n": [1, 2]}, tolerence=1), U, "Did you mean 'tolerance'?"),
    "a keyword of retry": (lambda lm: _result().retry(model="x"), U, "retry() takes no 'model'. Did you mean 'lm'?"),
    "a keyword of override": (lambda lm: _result().override({}, redcue=False), U, "Did you mean 'reduce'?"),
    "a keyword of diff": (lambda lm: _result().diff(_result(), tolerence=1), U, "Did you mean 'tolerance'?"),
    "a field that is corrected": (lambda lm: _result().override({0: {"nn": 1}}), U, "did you mean 'n'?"),
    "a keyword of read_text": (lambda lm: amr.read_text("x", chunk_token=3), U, "Did you mean 'chunk_tokens'?"),
    "a keyword of load": (lambda lm: amr.load("x", findng=3), U, "load() takes no 'findng'. Did you mean 'finding'?"),
    # aggregations
    "an aggregation": (_reduced(reduce={"n": "medain"}), U, "not 'medain'. Did you mean 'median'?"),
    "avg": (_reduced(reduce={"n": "avg"}), U, "not 'avg'. Did you mean 'mean'?"),
    "one of a list": (_reduced(reduce={"n": ["mean", "maximun"]}), U, "not 'maximun'. Did you mean 'max'?"),
    "a named one": (_reduced(reduce={"top": ("n", "averge")}), U, "not 'averge'. Did you mean 'mean'?"),
    "column and aggregation swapped": (
        _reduced(reduce={"mean": "n"}),
        U,
        "The column comes first: reduce={'n': 'mean'}.",
    ),
    "an aggregated column": (lambda lm: DF.amr.reduce({"strs": "mean"}), C, "Did you mean 'stars'?"),
    # columns
    "a content column": (_fits(columns=["txt"]), C, "No column 'txt'. Did you mean 'text'?"),
    "its case": (_fits(columns="Text"), C, "No column 'Text'. Did you mean 'text'?"),
    "an end of a slice": (
        _fits(columns=slice("titel", "text")),
        C,
        "takes two labels of the columns, as df.loc[:, a:b] does; labels in levels must be sorted. Did you mean 'title'?",
    ),
    "a group": (_reduced(by="titel"), C, "by= names 'titel', which is not a column. Did you mean 'title'?"),
    "a group of By": (_reduced(by=amr.By("titel")), C, "Did you mean 'title'?"),
    "a group of a Grouper": (_reduced(by=pd.Grouper(key="titel")), C, "Did you mean 'title'?"),
    "a group of a list": (_reduced(by=["title", "strs"]), C, "Did you mean 'stars'?"),
    "a label to score": (lambda lm: _result().score({"nn": [1, 2]}), U, "not 'nn'. Did you mean 'n'?"),
    # choices
    "the axis": (_fits(axis="row"), U, "not 'row'. Did you mean 'rows'?"),
    "pandas' axis": (_fits(axis="index"), U, "not 'index'. Did you mean 'rows'?"),
    "errors": (_fits(errors="rasie"), U, "not 'rasie'. Did you mean 'raise'?"),
    "pandas' errors": (_fits(errors="ignore"), U, "not 'ignore'. Did you mean 'coerce'?"),
    "errors as a setting": (lambda lm: amr.configure(errors="rase"), U, "not 'rase'. Did you mean 'raise'?"),
    "the effort": (lambda lm: amr.LM("m", reasoning_effort="hihg"), U, "not 'hihg'. Did you mean 'high'?"),
    "the temperature": (
        lambda lm: amr.LM("m", temperature="low"),
        U,
        "LM(temperature=...) takes a number, such as 0.2, not 'low'.",
    ),
    "a switch": (lambda lm: amr.LM("m", hedge="yes"), U, "LM(hedge=...) takes True or False, not 'yes'."),
    "an ability": (lambda lm: amr.Abilities(tools="cod"), U, "not 'cod'. Did you mean 'code'?"),
    "a tier": (lambda lm: amr.PythonREPLTool(isolation="stong"), U, "not 'stong'. Did you mean 'strong'?"),
    "part of a tier": (lambda lm: amr.PythonREPLTool(isolation="strict"), U, "Did you mean 'strict-lite'?"),
    "a container": (
        lambda lm: amr.PythonREPLTool(isolation="docker"),
        U,
        "For a container: sandbox=amr.ContainerSandbox(...).",
    ),
    "no journal": (_fits(journal="off"), U, "For no journal: journal=False."),
    "no journal as a setting": (lambda lm: amr.settings(journal="none"), U, "For no journal: journal=False."),
    # types
    "an integer": (
        _found("integer"),
        U,
        "finding['n'] takes a type, (type, 'description'), or a list of choices, not 'integer'. Did you mean the type int, without quotes?",
    ),
    "int in quotes": (_found("int"), U, "Did you mean the type int, without quotes?"),
    "a string": (_found("string"), U, "not 'string'. Did you mean the type str, without quotes?"),
    "a dtype": (_found("float64"), U, "not 'float64'. Did you mean the type float, without quotes?"),
    "a dtype of pandas": (_found(pd.Int64Dtype()), U, "not Int64Dtype(). Did you mean the type int?"),
    "a dtype of numpy": (_found(np.bool_), U, "Did you mean the type bool?"),
    "a time": (_found("datetime64[ns]"), U, "Did you mean the type datetime.datetime, without quotes?"),
    "a type behind a name": (_found(("boolean", "whether so")), U, "Did you mean the type bool, without quotes?"),
    "a description alone": (
        _found("how many are named"),
        U,
        "Did you mean a description? It stands behind the type: (str, '...').",
    ),
    "choices in other brackets": (_found(("a", "b", "c")), U, "Did you mean a list of choices, in square brackets?"),
    "choices of one field": (
        _whole(["bug", "billing"]),
        U,
        "For one field with these choices: finding={'label': ['bug', 'billing']}.",
    ),
    "a model in a list": (_whole([Bug]), U, "Did you mean list[Bug]?"),
    "a list of a dict": (_whole([{"n": int}]), U, "For many records in a unit, write a model: list[Model]."),
    "an object of the model": (_whole(Bug(label="a", n=1)), U, "Did you mean the class: finding=Bug?"),
    "a type alone": (_whole(int), U, "For one field of this type: finding={'value': int}."),
    "a Literal alone": (
        _whole(Literal["a", "b"]),
        U,
        "For one field of this type: finding={'value': Literal['a', 'b']}.",
    ),
    "the name of a field": (_whole("mood"), U, "For one field of this name: finding={'mood': str}."),
    "a type's name alone": (_whole("integer"), U, "For one field of this type: finding={'value': int}."),
    "a schema of no object": (_whole({"type": "objct", "properties": {}}), U, "not 'objct'. Did you mean 'object'?"),
    "a type of a schema": (
        _whole({"type": "object", "properties": {"n": {"type": "int"}}}),
        U,
        "uses {'type': 'int'}, which findings cannot hold. Did you mean 'integer'?",
    ),
    "the finding of a named map": (_two({"tone": "integer"}), U, "finding['tone'] takes a type"),
    "the name of a map": (
        _two({"tone": str, "sise": int}),
        U,
        "finding= names 'sise', which is not a map. Did you mean 'size'?",
    ),
    "the names of all maps": (_two({"tne": str}), U, "finding= names 'tne', which is not a map. Did you mean 'tone'?"),
    "an output": (_reduced(output="integer"), U, "not 'integer'. Did you mean the type int, without quotes?"),
    "an output as a frame": (_reduced(output="dataframe"), U, "Did you mean the type pd.DataFrame, without quotes?"),
    "an output of models": (_reduced(output=[Bug]), U, "Did you mean list[Bug]?"),
    "an output of choices": (
        _reduced(output=["yes", "no"]),
        U,
        "For one of these choices: output=Literal['yes', 'no'].",
    ),
    # functions
    "a function of a row": (
        _fits(lambda row: row["text"].upper()),
        U,
        "the rows of a shard as a frame, and <lambda> takes a 'row'. For each row: lambda shard: [f(row) for _, row in shard.iterrows()].",
    ),
    "a finding of a row": (_fits(lambda r: {"n": 1}, lm=None), U, "It gets a shard's rows as a frame, not one row: "),
    "a criterion of a row": (
        lambda lm: DF.amr.filter(lambda row: row["stars"] > 1),
        U,
        "filter takes a function of one argument",
    ),
    "a function without arguments": (_fits(lambda: 1), U, "<lambda>() cannot be called so."),
    "a reduce of two arguments": (
        _reduced(reduce=lambda a, b: a),
        U,
        "reduce= takes a function of one argument, the findings as a frame",
    ),
    # models
    "a sync client without a model": (
        _fits(lm=openai.OpenAI(api_key="k", base_url="http://127.0.0.1:9/v1")),
        U,
        'A client does not say which model: lm=amr.LM("model-name", client=client)',
    ),
    "a client's class": (
        _fits(lm=openai.AsyncOpenAI),
        U,
        'Did you mean amr.LM("name", client=openai.AsyncOpenAI(...))?',
    ),
    "openai itself": (_fits(lm=openai), U, 'Did you mean amr.LM("name", client=openai.AsyncOpenAI())?'),
    "LM itself": (_fits(lm=amr.LM), U, 'Did you mean amr.LM("name")?'),
    "a phase": (_fits(lm={"maps": "m"}), U, "not 'maps'. Did you mean 'map'?"),
    "the embedded model": (_fits(lm="Local"), U, "lm= names the model 'Local'. Did you mean 'local'?"),
    # tools
    "Python by name": (_fits(tools="python"), U, "Did you mean [amr.PythonREPLTool()]?"),
    "Python in a list": (_fits(tools=["python_repl"]), U, "Did you mean [amr.PythonREPLTool()]?"),
    "a class of tools": (_fits(tools=amr.PythonREPLTool), U, "Did you mean [amr.PythonREPLTool()]?"),
    "a single tool": (_fits(tools=amr.PythonREPLTool()), U, "Did you mean a list of it, in square brackets?"),
    "a single function": (_fits(tools=closest_name), U, "Did you mean [closest_name]?"),
    "tools by name": (_fits(tools={"a": closest_name}), U, "not a dict: tools=[*tools.values()]."),
    # attributes
    "an attribute of a result": (
        lambda lm: _result().finding,
        A,
        "'Result' object has no attribute 'finding'. Did you mean 'findings'?",
    ),
    "another one": (lambda lm: _result().record, A, "Did you mean 'records'?"),
    "one of its usage": (
        lambda lm: _result().total.token,
        A,
        "'Usage' object has no attribute 'token'. Did you mean 'tokens'?",
    ),
    "a method of a graph": (lambda lm: _result().graph().to_img(), A, "Did you mean 'to_svg'?"),
    "a method of a timeline": (lambda lm: _result().timeline().toframe(), A, "Did you mean 'to_frame'?"),
    "another word for the frame": (lambda lm: _result().df, A, "no attribute 'df'. Did you mean 'frame'?"),
    "another word for the output": (lambda lm: _result().answer, A, "Did you mean 'output'?"),
    "a method of the frame": (lambda lm: _result().to_csv("a.csv"), A, "Did you mean 'frame.to_csv'?"),
    "another word for a field of the plan": (
        _fits(batch_size=5),
        U,
        "map() takes no 'batch_size'. It is a field of the plan: plan={'shard_size': ...}.",
    ),
    "another word for the question": (
        _fits(prompt="Read."),
        U,
        "map() takes no 'prompt'. What is asked stands first, without a name: map(\"...\").",
    ),
    "a name that is a bit like a type's": (
        _whole("sentiment"),
        U,
        "For one field of this name: finding={'sentiment': str}",
    ),
    "a list of a type": (_whole(list[str]), U, "For one field of this type: finding={'value': list[str]}"),
    "two choices in parentheses": (_found(("a", "b")), U, "Did you mean a list of choices, in square brackets?"),
    "choices in a Series": (_found(DF["title"]), U, "not Series. Did you mean a list of choices: values.tolist()?"),
    "a dict within a finding": (_found({"a": int}), U, "For fields within a field: a pydantic model"),
    "an attribute of a plan": (lambda lm: amr.Plan().shardsize, A, "Did you mean 'shard_size'?"),
    "an attribute of a model": (lambda lm: lm.max_trys, A, "Did you mean 'max_tries'?"),
    "a verb": (lambda lm: DF.amr.mapreduce("x"), A, "df.amr has no attribute 'mapreduce'. Did you mean 'map_reduce'?"),
    "what is said of the model": (_fits(temperature=0), U, 'of the model: lm=amr.LM("name", temperature=...)'),
    "another word for that": (_fits(timeout=5), U, 'of the model: lm=amr.LM("name", timeout_s=...)'),
    "another word, mistyped": (_fits(modle="gpt"), U, "Did you mean 'lm'?"),
    "another library's bound": (_fits(max_cost=1.0), U, "Did you mean 'budget'?"),
    "another library's progress": (_fits(verbose=True), U, "Did you mean 'progress'?"),
    "another library's form": (_fits(response_format=Bug), U, "Did you mean 'finding'?"),
    "a verb of a column": (lambda lm: DF["text"].amr.filtr("x"), A, "Did you mean 'filter'?"),
    "a name of the package": (
        lambda lm: amr.Plann,
        A,
        "module 'pandas_amr' has no attribute 'Plann'. Did you mean 'Plan'?",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.sampled(7)
def test_a_mistake_is_told_with_what_is_meant_before_any_request(name):
    make, kind, advice = MISTAKES[name]
    with ScriptedServer(lambda request: None) as server:
        with pytest.raises(kind) as raised:
            make(server.lm())
        assert not server.requests
    assert advice in str(raised.value)
    assert "?." not in str(raised.value)


def test_an_attribute_is_suggested_once():
    with pytest.raises(AttributeError) as raised:
        _ = _result().finding
    text = "".join(traceback.format_exception(raised.value))
    assert text.count("Did you mean") == 1
    assert not hasattr(amr.Plan(), "_repr_latex_")


ENVIRONMENTS = {
    "AMR_MODLE": (
        "gpt",
        "The environment sets AMR_MODLE, which is not a variable of pandas-amr. Did you mean AMR_MODEL?",
    ),
    "AMR_JURNAL": ("off", "Did you mean AMR_JOURNAL? Rename it, or unset it."),
    "amr_journal": ("off", "Did you mean AMR_JOURNAL?"),
    "AMR_JOURNAL": ("none", "It takes a path, or 'off' for no journal."),
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.sampled(2)
def test_a_mistyped_variable_of_the_environment_is_told(name):
    value, advice = ENVIRONMENTS[name]
    environment = {key: text for key, text in os.environ.items() if key != "AMR_JOURNAL"} | {
        name: value,
        "AMR_MODEL_DIR": "/data",
    }
    script = "import pandas as pd, pandas_amr as amr; pd.DataFrame({'text': ['a']}).amr.map('x', lm=amr.LM('m', base_url='http://127.0.0.1:9/v1'))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert advice in done.stderr.splitlines()[-1]


def test_names_of_other_programs_and_new_words_are_left_alone(monkeypatch):
    monkeypatch.setenv("AMR_MODEL_DIR", "/data")
    monkeypatch.setenv("AMR_REFINEMENT", "3")
    assert _result().output == 2
    assert amr.LM("m", reasoning_effort="thorough").reasoning_effort == "thorough"
    with ScriptedServer(lambda request: None) as server:
        fields = DF.amr.plan(
            map={"tone": "A?", "size": "B?"}, finding={"value": int}, reduce=len, lm=server.lm()
        ).finding
    assert [list(kind.model_fields) for kind in fields.values()] == [["value"], ["value"]]
