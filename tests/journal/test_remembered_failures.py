"""A row that fails for its content is asked again when a plan says so, and not paid for every night until then."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3

import numpy as np
import pandas as pd
import pytest

import pandas_amr as amr
from moments import move_on
from numbered import number
from pandas_amr._plan.plan import make_plan
from pandas_amr.testing import ScriptedServer, Status, findings

pytestmark = pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")

DAY_S = 86_400.0
WEEK = {"retry_failed_after": "7d"}


def rows(count: int, *poisoned: int) -> pd.DataFrame:
    """Rows with their numbers; poisoned ones say so."""
    return pd.DataFrame({"text": [f"poison {n}" if n in poisoned else f"row {n}" for n in range(count)]})


def has_poison(request) -> bool:
    return any("poison" in unit["text"] for unit in request.units)


def filtered(request):
    """A provider whose content filter refuses a request that holds poison."""
    if has_poison(request):
        return Status(400, "the content was flagged by the filter")
    return findings(request, number)


def refused(request):
    """A model that declines."""
    if has_poison(request):
        return {"refusal": "I cannot help with that."}
    return findings(request, number)


def invalid(request):
    """A model whose finding of poison has another type, however often it is asked."""
    return findings(request, lambda unit: {"n": "many"} if "poison" in unit["text"] else number(unit))


def unavailable(request):
    """A server that is busy for poison alone."""
    if has_poison(request):
        return Status(503, "busy")
    return findings(request, number)


class Nights:
    """The same call, night after night, against one journal."""

    def __init__(self, journal, **options) -> None:
        self.options = {"finding": {"n": int}, "journal": journal, "plan": WEEK} | options

    def run(self, frame: pd.DataFrame, provider=filtered, lm=None, **options):
        """Run once; the result, and how many requests it took."""
        with ScriptedServer(provider) as server:
            result = frame.amr.map_reduce(
                lm=server.lm(**(lm or {})),
                reduce={"n": "sum"},
                **{"map": "The number."} | self.options | options,
            )
            return result, len(server.requests)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.sqlite"


def test_by_default_a_failed_row_is_asked_each_time(path):
    nights = Nights(path, plan={})
    nights.run(rows(5, 3))
    _, requests = nights.run(rows(5, 3))
    assert requests == 1


def flagged(request):
    """OpenRouter's refusal of a row, which has the status of a key without a right."""
    if has_poison(request):
        return Status(403, "Your chosen model requires moderation and your input was flagged")
    return findings(request, number)


@pytest.mark.parametrize("provider", [filtered, refused, invalid, flagged])
def test_a_failure_of_content_is_not_paid_for_again_while_it_is_remembered(provider, path):
    nights = Nights(path, plan=WEEK | {"status": True})
    first, paid = nights.run(rows(5, 3), provider)
    assert paid > 1
    second, requests = nights.run(rows(5, 3), provider)
    assert requests == 0
    pd.testing.assert_frame_equal(second.frame, first.frame)
    assert second.frame["n"].isna().tolist() == [False, False, False, True, False]
    assert second.status["status"].tolist() == ["ok", "ok", "ok", "failed", "ok"]
    assert second.status["from_journal"].tolist() == [True] * 5
    pd.testing.assert_frame_equal(second.failures.drop(columns="shard"), first.failures.drop(columns="shard"))


def test_new_rows_beside_a_remembered_one_are_asked(path):
    nights = Nights(path)
    nights.run(rows(5, 3))
    result, requests = nights.run(rows(15, 3))
    assert requests == 1
    assert result.status["status"].tolist() == ["ok"] * 3 + ["failed"] + ["ok"] * 11
    assert result.status["from_journal"].tolist() == [True] * 5 + [False] * 10


@pytest.mark.parametrize("provider", [filtered, refused, invalid, flagged])
def test_a_run_about_one_poisoned_row_alone_has_a_result_and_pays_once(provider, path):
    nights = Nights(path)
    first, paid = nights.run(rows(1, 0), provider)
    second, requests = nights.run(rows(1, 0), provider)
    assert (paid > 0, requests) == (True, 0)
    for result in (first, second):
        assert result.frame["n"].isna().all()
        assert result.failures["position"].tolist() == [0]


def test_equal_rows_are_remembered_together(path):
    frame = pd.DataFrame({"text": ["poison 0", "row 1", "poison 0"]})
    nights = Nights(path)
    nights.run(frame)
    result, requests = nights.run(frame)
    assert requests == 0
    assert result.failures["position"].tolist() == [0, 2]


def test_the_warning_says_how_many_were_not_asked_again(path):
    nights = Nights(path)
    with pytest.warns(amr.FailureWarning, match=r"1 failed, and are listed in result\.failures\.$"):
        nights.run(rows(5, 3))
    with pytest.warns(amr.FailureWarning, match="1 of them failed before and were not asked again"):
        nights.run(rows(5, 3))


def test_once_the_time_is_over_the_row_is_asked_and_remembered_anew(path):
    nights = Nights(path)
    nights.run(rows(5, 3))
    move_on(6 * DAY_S)
    _, within = nights.run(rows(5, 3))
    move_on(2 * DAY_S)
    _, after = nights.run(rows(5, 3))
    _, again = nights.run(rows(5, 3))
    assert (within, after, again) == (0, 1, 0)


def test_each_plan_reads_the_age_by_its_own_time(path):
    nights = Nights(path)
    nights.run(rows(5, 3))
    move_on(2 * DAY_S)
    _, short = nights.run(rows(5, 3), plan={"retry_failed_after": "12h"})
    _, none = nights.run(rows(5, 3), plan={})
    assert (short, none) == (1, 1)


def test_a_row_whose_cause_has_gone_is_mended_and_stays_so(path):
    nights = Nights(path)
    nights.run(rows(5, 3))
    mended, requests = nights.run(rows(5, 3), lambda request: findings(request, number), plan={})
    assert requests == 1
    assert mended.status["status"].tolist() == ["ok"] * 5
    again, requests = nights.run(rows(5, 3))
    assert requests == 0
    assert again.status["status"].tolist() == ["ok"] * 5


@pytest.mark.parametrize(
    "change",
    [
        {"map": "Another instruction."},
        {"finding": {"n": (int, "described")}},
        {"lm": {"model": "another"}},
        {"lm": {"temperature": 0.5}},
        {"frame": rows(5, 4)},
    ],
    ids=["instruction", "schema", "model", "sampling", "another row"],
)
@pytest.mark.sampled(3)
def test_what_changes_the_question_asks_anew(change, path):
    nights = Nights(path)
    nights.run(rows(5, 3))
    frame = change.pop("frame", rows(5, 3))
    _, requests = nights.run(frame, **change)
    assert requests > 0


def test_retry_asks_whatever_is_remembered(path):
    with ScriptedServer(filtered) as server:
        options = {"map": "The number.", "finding": {"n": int}, "journal": path, "plan": WEEK}
        rows(5, 3).amr.map_reduce(lm=server.lm(), reduce={"n": "sum"}, **options)
        result = rows(5, 3).amr.map_reduce(lm=server.lm(), reduce={"n": "sum"}, **options)
        before = len(server.requests)
        retried = result.retry()
        assert len(server.requests) == before + 1
    assert not retried.status["from_journal"][3]


def test_a_journal_that_is_refreshed_asks_everything(path):
    nights = Nights(path)
    nights.run(rows(5, 3))
    _, requests = nights.run(rows(5, 3), journal=amr.Journal(path, refresh=True))
    assert requests > 1


def test_a_service_that_is_busy_is_no_failure_of_content(path):
    nights = Nights(path)
    lm = {"max_tries": 1}
    nights.run(rows(5, 3), unavailable, lm=lm)
    result, requests = nights.run(rows(5, 3), lambda request: findings(request, number), lm=lm)
    assert requests == 1
    assert result.status["status"].tolist() == ["ok"] * 5


def test_a_run_that_gives_up_remembers_nothing(path):
    nights = Nights(path, plan=WEEK | {"shard_size": 5})
    broken, _ = nights.run(rows(60), lambda request: Status(400, "this server is set up wrongly"))
    assert broken.stopped is not None
    result, _ = nights.run(rows(60))
    assert result.status["status"].tolist() == ["ok"] * 60


def test_failures_before_the_first_success_are_remembered_at_the_end(path):
    nights = Nights(path, plan=WEEK | {"shard_size": 1, "parallelism": 1})
    nights.run(rows(6, 0, 1))
    _, requests = nights.run(rows(6, 0, 1))
    assert requests == 0


@pytest.mark.parametrize(
    "plan",
    [{"keyed": "shard"}, {"segmentation": "neighbours"}],
    ids=["keyed by shard", "neighbours"],
)
def test_a_row_that_is_judged_with_others_is_remembered_with_them(plan, path):
    nights = Nights(path, plan=WEEK | plan)
    nights.run(rows(5, 3))
    result, requests = nights.run(rows(5, 3))
    assert requests == 0
    assert result.status["from_journal"].all()
    _, requests = nights.run(rows(6, 3))
    assert requests > 0


def test_maps_by_name_remember_each_its_own(path):
    finding = {"one": {"a": int}, "two": {"b": int}}
    maps = {"one": "The first.", "two": "The second."}
    with ScriptedServer(answer_by_fields) as server:
        options = {"map": maps, "finding": finding, "journal": path, "plan": WEEK, "lm": server.lm()}
        first = rows(5, 3).amr.map_reduce(reduce={"one_a": "sum"}, **options)
        before = len(server.requests)
        second = rows(5, 3).amr.map_reduce(reduce={"one_a": "sum"}, **options)
        assert len(server.requests) == before
    pd.testing.assert_frame_equal(first.frame, second.frame)
    assert second.failures["map"].tolist() == ["two"]
    assert second.frame["one_a"].notna().all()


def answer_by_fields(request):
    """Refuse poison to the map that finds ``b``."""
    text = json.dumps(request.body)
    if '"b"' in text and has_poison(request):
        return Status(400, "the content was flagged by the filter")
    field = "b" if '"b"' in text else "a"
    return findings(request, lambda unit: {field: number(unit)["n"]})


def test_an_error_that_is_raised_for_a_failed_row_costs_nothing_the_second_time(path):
    nights = Nights(path, errors="raise")
    for expected in (True, False):
        with ScriptedServer(filtered) as server:
            with pytest.raises(amr.MapFailed, match="flagged"):
                rows(1, 0).amr.map("The number.", lm=server.lm(), **nights.options)
            assert bool(server.requests) == expected


def test_pruned_failures_are_asked_again_and_damaged_ones_are_never_read(path):
    nights = Nights(path)
    nights.run(rows(5, 3))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE failures SET value = replace(value, 'flagged', 'blessed')")
    connection.close()
    assert len(amr.Journal(path).verify()) == 1
    _, requests = nights.run(rows(5, 3))
    assert requests == 1
    amr.Journal(path).prune(older_than=0)
    assert amr.Journal(path).verify() == []
    _, requests = nights.run(rows(5, 3))
    assert requests > 1


def test_without_a_journal_the_user_is_told_that_nothing_is_remembered():
    with ScriptedServer(filtered) as server, pytest.warns(amr.PlanWarning, match="without a journal"):
        rows(2).amr.map("The number.", finding={"n": int}, lm=server.lm(), plan=WEEK, journal=False)


def test_a_repaired_finding_is_repaired_wherever_it_comes_from(path):
    def provider(request):
        answer = findings(request, number)
        if not request.repairs:
            answer["findings"] = [one for one in answer["findings"] if one["n"] != 3]
        return answer

    nights = Nights(path, plan={"status": True})
    first, _ = nights.run(rows(5), provider)
    again, requests = nights.run(rows(5), provider)
    assert requests == 0
    assert first.frame["amr_status"].tolist() == ["ok", "ok", "ok", "repaired", "ok"]
    pd.testing.assert_frame_equal(first.frame, again.frame)
    assert list(again.frame.columns) == ["text", "n", "amr_status", "amr_reason"]
    assert again.status["from_journal"].all()
    nights.run(rows(5), journal=amr.Journal(path, refresh=True))
    last, _ = nights.run(rows(5))
    assert last.frame["amr_status"].tolist() == ["ok"] * 5


# The plan's field


@pytest.mark.parametrize(
    ("given", "seconds", "text"),
    [
        ("7d", 7 * DAY_S, "7d"),
        ("12h", 43_200, "12h"),
        ("90m", 5400, "1h 30m"),
        ("1d12h", 1.5 * DAY_S, "1d 12h"),
        (" 2 W ", 14 * DAY_S, "14d"),
        (dt.timedelta(days=1, seconds=5), DAY_S + 5, "1d 5s"),
        (pd.Timedelta("1h"), 3600, "1h"),
        (np.timedelta64(3, "D"), 3 * DAY_S, "3d"),
        (dt.timedelta(milliseconds=1), 0.001, "1s"),
        (dt.timedelta.max, 100 * 366 * DAY_S, "36600d"),
    ],
    ids=str,
)
def test_a_time_is_read_and_comes_back_from_json(given, seconds, text):
    plan = make_plan({"retry_failed_after": given})
    assert plan.retry_failed_after == dt.timedelta(seconds=seconds)
    assert json.loads(plan.to_json())["retry_failed_after"] == text
    assert make_plan(json.loads(plan.to_json())).to_json() == plan.to_json()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (7, "Did you mean '7d'"),
        ("7", "Did you mean '7d'"),
        (0, "takes a time such as '7d'"),
        (1.5, "takes a time such as '7d'"),
        (True, "takes a time such as '7d'"),
        ("", "takes a time such as '7d'"),
        ("soon", "takes a time such as '7d'"),
        ("7 days", "takes a time such as '7d'"),
        ("-7d", "takes a time such as '7d'"),
        ("0d", "a time above 0"),
        (dt.timedelta(0), "a time above 0"),
        (dt.timedelta(days=-1), "a time above 0"),
        (pd.NaT, "takes a time such as '7d'"),
        (np.timedelta64("NaT", "ns"), "takes a time such as '7d'"),
        (dt.datetime(2026, 1, 1), "takes a time such as '7d'"),
        (["7d"], "takes a time such as '7d'"),
    ],
    ids=repr,
)
def test_what_is_no_time_is_refused_before_a_request(given, said, refusing):
    with pytest.raises(amr.PlanError, match=said):
        rows(2).amr.map("x", lm=refusing.lm(), plan={"retry_failed_after": given})


# Forgetting


@pytest.mark.parametrize(
    "plan",
    [{}, {"keyed": "shard"}, {"segmentation": "neighbours"}],
    ids=["by unit", "keyed by shard", "neighbours"],
)
def test_a_row_that_is_forgotten_leaves_no_failure(plan, path):
    nights = Nights(path, plan=WEEK | plan)
    nights.run(rows(5, 3))
    amr.Journal(path).forget(rows(5, 3).iloc[[3]])
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM failures").fetchone() == (0,)
    connection.close()
    assert b"flagged" not in path.read_bytes()
    _, requests = nights.run(rows(5, 3))
    assert requests > 0


def test_a_row_that_is_forgotten_leaves_the_failures_of_others(path):
    nights = Nights(path)
    nights.run(rows(5, 1, 3))
    amr.Journal(path).forget(rows(5, 3).iloc[[3]])
    result, requests = nights.run(rows(5, 1))
    assert requests == 1  # of the row that is no poison any more
    assert result.failures["position"].tolist() == [1]


def test_a_repaired_finding_that_is_forgotten_leaves_no_mark(path):
    def provider(request):
        answer = findings(request, number)
        if not request.repairs:
            answer["findings"] = []
        return answer

    Nights(path).run(rows(2), provider)
    amr.Journal(path).forget(rows(2))
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM repaired").fetchone() == (0,)
    connection.close()


def test_a_failure_is_known_for_each_row_it_is_found_for(path):
    """Equal content in another frame: either row, forgotten, takes the failure along."""
    one, other = rows(2, 1).assign(who="Ann"), rows(2, 1).assign(who="Bob")
    nights = Nights(path, columns=["text"])
    nights.run(one)
    _, requests = nights.run(other)
    assert requests == 0
    amr.Journal(path).forget(other)
    _, requests = nights.run(one)
    assert requests > 0
