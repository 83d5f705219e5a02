"""The batch endpoint: half the price, resumable, partial results accepted."""

from __future__ import annotations

import asyncio
import collections
import json
import re
import shutil
import threading

import pandas as pd
import pytest
from aiohttp import web

import pandas_amr as amr
from moments import move_on, until
from pandas_amr.testing import CHARACTERS_PER_TOKEN, Call, ScriptedServer, Status, findings
from together import Together
from versions import once

pytestmark = once

DF = pd.DataFrame({"text": [f"row {n}" for n in range(60)]})
OPTIONS = {"map": "Which?", "finding": {"n": int}, "reduce": {"n": "sum"}, "plan": {"shard_size": 5}}


def provider(request):
    if request.schema == "reduction":
        return {"output": "written", "sources": []}
    return findings(request, lambda unit: {"n": int(unit["text"].split()[1])})


def told_tokens(request):
    """What the server counts for a request and its answer."""
    asked = sum(len(str(message.get("content") or "")) for message in request.messages)
    answer = json.dumps(json.dumps(provider(request)))
    return asked // CHARACTERS_PER_TOKEN, len(answer) // CHARACTERS_PER_TOKEN


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def records(folder):
    return list((folder / "pandas-amr" / "batches").rglob("*.json"))


def stopped_once(reached, frame, **options):
    """A run that is cancelled as soon as something holds, and waited for until nothing of it goes on."""
    run = frame.amr.start(**options)
    until(reached)
    assert reached()
    run.cancel()
    return run


def stopped_under_way(folder, frame, **options):
    """A run that is stopped when its batch has been sent and remembered."""
    run = stopped_once(lambda: any(file.stat().st_size for file in records(folder)), frame, **options)
    with pytest.raises(asyncio.CancelledError):
        list(run)


def test_maps_without_tools_go_in_one_batch_at_half_the_price(cache):
    with ScriptedServer(provider) as server:
        lm = server.lm(batch=True, batch_poll_s=0.02, prices=(1.0, 1.0))
        result = DF.amr.map_reduce(**(OPTIONS | {"reduce": "Write."}), max_parallelism=2, lm=lm)
        assert len(server.batches) == 1
    assert result.findings["n"].tolist() == list(range(60))
    assert result.output == "written"
    usage = result.usage
    assert usage.loc["map", "money"] == pytest.approx(
        0.5 * (usage.loc["map", ["input_tokens", "output_tokens"]].sum()) / 1e6
    )
    reduced = usage.loc["reduce", ["input_tokens", "output_tokens"]].sum()
    assert usage.loc["reduce", "money"] == pytest.approx(reduced / 1e6)
    assert records(cache) == []


def test_what_a_batch_did_not_answer_is_asked_in_the_ordinary_way_at_the_full_price():
    with ScriptedServer(provider, latency_s=0.01) as server:
        server.batch_answers = 5
        lm = server.lm(batch=True, batch_poll_s=0.02, prices=(1.0, 1.0))
        result = DF.amr.map_reduce(**OPTIONS, max_parallelism=2, lm=lm)
        assert len(server.batches) == 1
        assert len(server.requests) == 12  # five in the batch, seven directly
        assert server.max_in_flight == 2
        tokens = [sum(told_tokens(request)) for request in server.requests]
    assert result.output["n"] == sum(range(60))
    assert result.total.calls == 12
    assert result.total.tries == 12 + 7
    assert result.total.tokens == sum(tokens)
    assert result.total.money == pytest.approx((0.5 * sum(tokens[:5]) + sum(tokens[5:])) / 1e6)


def test_a_row_that_a_batch_refuses_costs_itself():
    def script(request):
        if any(unit["text"] == "row 33" for unit in request.units):
            return Status(400, "we will not process this")
        return provider(request)

    with ScriptedServer(script) as server:
        result = DF.amr.map_reduce(**OPTIONS, lm=server.lm(batch=True, batch_poll_s=0.02))
    assert result.failures[["position", "reason"]].values.tolist() == [
        [33, "The server answered 400: we will not process this"]
    ]
    assert result.output["n"] == sum(range(60)) - 33


def test_a_run_that_was_stopped_finds_its_batch_again_and_pays_nothing_twice(cache):
    with ScriptedServer(provider) as server:
        server.batch_polls = 10**6
        stopped_under_way(cache, DF, **OPTIONS, lm=server.lm(batch=True, batch_poll_s=0.02))
        assert len(server.batches) == len(records(cache)) == 1
        server.batches["batch-0"]["polls"] = 1
        result = DF.amr.map_reduce(**OPTIONS, lm=server.lm(batch=True, batch_poll_s=0.02))
        assert len(server.batches) == 1
        assert len(server.requests) == 12
    assert result.output["n"] == sum(range(60))


def test_a_batch_that_was_being_created_when_its_run_was_stopped_is_found_again_too(cache):
    """The server takes a second to make the batch of its file; the run, stopped meanwhile, waits for its name."""
    stopped = threading.Event()

    async def creating(request):
        if not stopped.is_set():
            await asyncio.to_thread(stopped.wait, 30)
        return provider(request)

    with ScriptedServer(creating) as server:
        lm = server.lm(batch=True, batch_poll_s=0.02)
        run = stopped_once(lambda: server.requests, DF, **OPTIONS, lm=lm)
        threading.Timer(0.3, stopped.set).start()
        with pytest.raises(asyncio.CancelledError):
            list(run)
        assert len(server.batches) == len(records(cache)) == 1
        result = DF.amr.map_reduce(**OPTIONS, lm=lm)
        assert len(server.batches) == 1
        assert len(server.requests) == 12
    assert result.output["n"] == sum(range(60))


def test_a_batch_under_way_is_found_again_among_other_rows_and_what_it_holds_is_not_asked_twice(cache):
    """Ten rows more, and ten of the first left out: the batch is waited for, and only the new rows go into another."""
    one_row = OPTIONS | {"plan": {"shard_size": 1}}
    with ScriptedServer(provider) as server:
        server.batch_polls = 10**6
        lm = server.lm(batch=True, batch_poll_s=0.02)
        stopped_under_way(cache, DF.head(50), **one_row, lm=lm)
        server.batches["batch-0"]["polls"] = 1
        server.batch_polls = 1
        result = DF.iloc[10:].amr.map_reduce(**one_row, lm=lm)
        assert len(server.batches) == 2
        assert len(server.requests) == 60
        assert result.output["n"] == sum(range(10, 60))
        assert len(records(cache)) == 1  # of the ten that nobody has asked for since
        rest = DF.head(10).amr.map_reduce(**one_row, lm=lm)
        assert len(server.requests) == 60
    assert rest.output["n"] == sum(range(10))
    assert records(cache) == []


def test_a_record_that_was_half_written_costs_a_batch_and_no_more(cache):
    with ScriptedServer(provider) as server:
        server.batch_polls = 10**6
        lm = server.lm(batch=True, batch_poll_s=0.02)
        stopped_under_way(cache, DF, **OPTIONS, lm=lm)
        records(cache)[0].write_text('{"id": "bat')
        server.batch_polls = 1
        result = DF.amr.map_reduce(**OPTIONS, lm=lm)
    assert result.output["n"] == sum(range(60))


def test_a_batch_that_the_server_has_forgotten_is_made_anew(cache):
    with ScriptedServer(provider) as server:
        server.batch_polls = 10**6
        stopped_under_way(cache, DF, **OPTIONS, lm=server.lm(batch=True, batch_poll_s=0.02))
        server.batches.clear()
        server.batch_polls = 1
        result = DF.amr.map_reduce(**OPTIONS, lm=server.lm(batch=True, batch_poll_s=0.02))
    assert result.output["n"] == sum(range(60))


def test_agents_with_tools_do_not_wait_for_a_batch():
    @amr.tool
    def look(x: int) -> int:
        """Look."""
        return x

    def script(request):
        return provider(request) if request.tool_results else Call("look", {"x": 1})

    with ScriptedServer(Together(script, 2), latency_s=0.01) as server:
        result = DF.amr.map_reduce(
            **OPTIONS, tools=[look], max_parallelism=2, lm=server.lm(batch=True, batch_poll_s=0.02)
        )
        assert server.batches == {}
        assert server.max_in_flight == 2
    assert result.output["n"] == sum(range(60))


# A server on a bad day

LOST = "it is done, and the connection reset before the answer"
DROPPED = "the connection is reset before anything is done"


class BadDay(ScriptedServer):
    """A server whose steps go wrong: ``faults`` has for each what happens instead, one by one, then all is well.

    A fault is a ``Status``, ``LOST``, ``DROPPED``, or a function of the right answer that gives another.
    """

    def __init__(self, script, **options):
        super().__init__(script, **options)
        self.batch_lists = True
        self.faults = collections.defaultdict(list)
        self.posts = collections.Counter()
        self.headers = []

    async def _step(self, step, http, real):
        self.posts[step] += 1
        self.headers.append(http.headers)
        fault = self.faults[step].pop(0) if self.faults[step] else None
        if fault is DROPPED:
            http.transport.abort()
            return web.Response()
        if isinstance(fault, Status):
            return web.json_response({"error": {"message": fault.message, "code": fault.code}}, status=fault.status)
        response = await real(http)
        if fault is LOST:
            http.transport.abort()
        elif callable(fault):
            changed = fault(response.text)
            return web.Response(body=changed if isinstance(changed, bytes) else changed.encode())
        return response

    async def _upload(self, http):
        return await self._step("upload", http, super()._upload)

    async def _create_batch(self, http):
        return await self._step("create", http, super()._create_batch)

    async def _show_batch(self, http):
        return await self._step("show", http, super()._show_batch)

    async def _download(self, http):
        return await self._step("download", http, super()._download)

    async def _list_batches(self, http):
        return await self._step("list", http, super()._list_batches)

    async def _list_files(self, http):
        return await self._step("list files", http, super()._list_files)

    def known(self, **options):
        return self.lm(**({"batch": True, "batch_poll_s": 0.01} | options))

    @property
    def direct(self):
        """The requests that were asked in the ordinary way."""
        return [request for request in self.requests if request.headers]

    def fill(self, count):
        """Batches of others."""
        for number in range(count):
            other = {"id": f"other-{len(self.batches)}-{number}", "polls": 0, "ends": "completed", "metadata": None}
            self.batches[other["id"]] = other | {"output_file_id": None, "error_file_id": None}


def changed(**parts):
    """The same answer with some parts changed."""
    return lambda text: json.dumps(json.loads(text) | parts)


def own(server):
    return [name for name in server.batches if not name.startswith("other")]


def ended(match, server, *, frame=DF, options=OPTIONS, journal=None, **known):
    """What was found by a run that its service ends."""
    with pytest.warns(amr.FailureWarning, match="The run stopped early"):
        result = frame.amr.map_reduce(**options, journal=journal, lm=server.known(**known))
    assert re.search(match, result.stopped)
    return result


def all_found(server, **options):
    result = DF.amr.map_reduce(**OPTIONS, lm=server.known(**options))
    assert result.output["n"] == sum(range(60))
    return result


LOST_CREATIONS = {
    "a reset": [LOST],
    "two resets": [LOST, LOST],
    "a reset and a gateway's error": [DROPPED, Status(502, "bad gateway"), LOST],
    "an answer that is not JSON": [lambda text: "<html>busy</html>"],
    "an answer that is no batch": [lambda text: "[]"],
    "an answer without an id": [changed(id=None)],
    "an answer that is too deep": [lambda text: "[" * 100_000],
}


@pytest.mark.parametrize(("case", "knows"), [*((case, "digest") for case in LOST_CREATIONS), ("a reset", "file")])
@pytest.mark.sampled(3)
def test_a_batch_whose_creation_was_not_told_is_found_and_not_made_again(case, knows):
    with BadDay(provider) as server:
        server.fill(250)
        server.faults["create"] = list(LOST_CREATIONS[case])
        if knows == "file":  # the server forgets metadata
            server.faults["list"] = [str, *[forget_metadata] * 20]
        result = all_found(server)
        assert len(own(server)) == 1
        assert len(server.requests) == 12
    assert result.total.tries == 12


def forget_metadata(text):
    listed = json.loads(text)
    return json.dumps(listed | {"data": [batch | {"metadata": None} for batch in listed["data"]]})


def test_a_batch_is_found_on_a_later_page():
    with BadDay(provider) as server:

        def lost_among_others(text):
            server.fill(250)
            return "lost"

        server.faults["create"] = [lost_among_others]
        all_found(server)
        assert len(own(server)) == 1
        assert server.posts["list"] == 1 + 3


@pytest.mark.parametrize(
    "odd", [changed(has_more=True), changed(data=None), changed(data=[None, 3, {"id": 7}]), str.upper]
)
def test_an_odd_list_of_batches_is_read_within_bounds(odd):
    with BadDay(provider) as server:
        server.faults["list"] = [odd] * 3
        all_found(server)
        assert server.posts["list"] <= 6


def test_what_is_not_known_to_be_created_is_not_paid_for_twice():
    with BadDay(provider) as server:
        server.batch_lists = False
        server.faults["create"] = [LOST]
        ended("not known whether a batch was created.*lists none", server)
        assert len(server.batches) == server.posts["create"] == 1
        assert server.direct == []


def test_a_batch_whose_creation_another_run_was_not_told_of_is_found():
    """The first run ends before the list can be read; the second has other rows, too."""
    one_row = OPTIONS | {"plan": {"shard_size": 1}}
    with BadDay(provider) as server:
        server.faults["create"] = [LOST]
        server.faults["list"] = [str, Status(500, "busy")]
        ended("busy", server, frame=DF.head(50), options=one_row, max_tries=1)
        assert len(server.requests) == 50
        result = DF.amr.map_reduce(**one_row, lm=server.known())
        assert len(server.batches) == 2
        assert len(server.requests) == 60
    assert result.output["n"] == sum(range(60))


def test_a_batch_of_the_same_content_that_is_under_way_is_joined_though_nothing_remembers_it(cache):
    with BadDay(provider) as server:
        server.batch_polls = 10**6
        stopped_under_way(cache, DF, **OPTIONS, lm=server.known())
        shutil.rmtree(cache / "pandas-amr")
        server.batches["batch-0"]["polls"] = 1
        all_found(server)
        assert len(server.batches) == 1
        server.batch_polls = 1
        all_found(server)  # it has ended, and there is no journal: who asks again wants another answer
        assert len(server.batches) == 2


@pytest.mark.parametrize("fault", [LOST, DROPPED, Status(503, "busy"), Status(429, "slow down"), lambda text: "{"])
def test_a_file_is_uploaded_again_only_if_it_is_not_there(fault):
    with BadDay(provider) as server:
        server.faults["upload"] = [fault]
        all_found(server)
        uploads = [one for one in server._uploads.values() if one["filename"].startswith("pandas-amr")]
        assert len(uploads) == 1
        assert len(server.batches) == 1


FAILING = {
    "upload": (["upload"], Status(500, "out of order")),
    "creation": (["create"], Status(500, "out of order")),
    "download": (["download"], Status(500, "out of order")),
}


@pytest.mark.parametrize("case", FAILING)
def test_a_step_is_tried_as_often_as_a_request_and_then_ends_the_run(case):
    steps, fault = FAILING[case]
    with BadDay(provider) as server:
        server.faults[steps[0]] = [fault] * 100
        ended("out of order", server, max_tries=3)
        assert server.posts[steps[0]] == 3  # the SDK's retries are off
        assert server.direct == []
        server.faults.clear()
        all_found(server)
        assert len(server.requests) == 12


@pytest.mark.parametrize("step", ["upload", "create", "show", "download"])
def test_a_429_at_a_step_is_waited_for(step):
    with BadDay(provider) as server:
        server.faults[step] = [Status(429, "slow down")] * 3
        all_found(server, max_tries=1)
        assert len(server.batches) == 1


@pytest.mark.parametrize("step", ["create", "show", "list"])
@pytest.mark.sampled(2)
def test_an_answer_that_dribbles_in_does_not_hold_up_a_step(step):
    """Each piece comes within the time that one read may take; the whole never does."""

    class Dribbling(BadDay):
        dribbled = 0

        async def _step(self, name, http, real):
            if name != step or self.dribbled >= 2:
                return await super()._step(name, http, real)
            self.dribbled += 1
            response = web.StreamResponse()
            await response.prepare(http)
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.05)  # in which it is read
                move_on(20.0)

    with Dribbling(provider) as server:
        all_found(server, timeout_s=50.0)
        assert server.dribbled == 2
        assert len(server.batches) == 1


@pytest.mark.parametrize("status", [404, 405, 501])
@pytest.mark.parametrize("step", ["upload", "create"])
def test_a_server_without_a_batch_api_is_told_before_anything_is_paid(step, status):
    with BadDay(provider) as server:
        server.faults[step] = [Status(status, "nothing here")]
        with pytest.raises(
            amr.ModelConfigError, match=rf"LM\(batch=True\) needs a batch API.*answered {status}"
        ) as caught:
            all_found(server)
        assert server.posts[step] == 1
        assert server.requests == []
    assert caught.value.attempts == 0


def test_a_file_that_is_not_known_everywhere_yet_is_waited_for():
    with BadDay(provider) as server:
        server.faults["create"] = [Status(400, "Cannot find file file-0, or project does not have access to it.")] * 2
        all_found(server)
        assert (len(server.batches), server.posts["upload"]) == (1, 1)


def test_a_server_that_takes_no_metadata_gets_none():
    with BadDay(provider) as server:
        server.faults["create"] = [Status(400, "Unknown parameter: 'metadata'.")]
        all_found(server)
        assert server.batches["batch-0"]["metadata"] is None


def test_a_batch_that_the_server_refuses_is_told():
    with BadDay(provider) as server:
        server.faults["create"] = [Status(400, "Invalid value: '/v1/chat/completions'.")]
        with pytest.raises(amr.ModelConfigError, match=r"takes no such batch \(LM\(batch=True\)\).*Invalid value"):
            all_found(server)


def test_headers_of_the_user_s_go_with_every_step():
    with BadDay(provider) as server:
        all_found(server, extra_headers={"x-team": "reading"})
        assert {headers["x-team"] for headers in server.headers} == {"reading"}


# What a batch says of itself


def failed(*errors):
    return changed(status="failed", errors={"object": "list", "data": list(errors)})


def test_the_errors_of_a_failed_batch_are_told_with_their_lines():
    errors = [{"code": "invalid_request", "line": n, "message": f"Wrong {n}, key scripted-key."} for n in range(1, 6)]
    with BadDay(provider) as server:
        server.faults["show"] = [failed(*errors)]
        with pytest.raises(amr.ModelConfigError, match="line 1: Wrong 1.*line 3: Wrong 3.*and 2 more") as caught:
            all_found(server)
        assert "scripted-key" not in str(caught.value)
        assert server.direct == []


@pytest.mark.parametrize("errors", [None, [], {}, {"data": None}, {"data": [None, 3]}])
def test_a_failed_batch_without_a_reason_is_told_too(errors):
    with BadDay(provider) as server:
        server.faults["show"] = [changed(status="failed", errors=errors)]
        with pytest.raises(amr.ModelConfigError, match="it does not say why"):
            all_found(server)


@pytest.mark.parametrize("status", ["IN_PROGRESS", "queued", "", None, 3, "validating", "cancelling"])
@pytest.mark.sampled(3)
def test_a_status_that_is_no_end_is_waited_through(status):
    with BadDay(provider) as server:
        server.faults["show"] = [changed(status=status, output_file_id="file-9")] * 3
        all_found(server)
        assert server.direct == []


@pytest.mark.parametrize("status", ["COMPLETED", "succeeded", " completed "])
def test_an_end_in_other_words_is_an_end(status):
    with BadDay(provider) as server:
        server.faults["show"] = [str, changed(status=status)]
        all_found(server)
        assert server.direct == []


@pytest.mark.parametrize("fault", [DROPPED, Status(500, "busy"), Status(404, "no such batch"), lambda text: "null"])
@pytest.mark.sampled(2)
def test_polls_may_fail_but_not_for_ever(fault):
    with BadDay(provider) as server:
        server.faults["show"] = [fault] * 3
        all_found(server, max_tries=1)
        server.faults["show"] = [fault] * 10**6
        ended("no longer reports the batch batch-1", server, patience_s=0.2)
        server.faults.clear()
        all_found(server)
        assert len(server.batches) == 2
        assert server.direct == []


def test_a_batch_that_is_cancelled_meanwhile_ends_the_run_and_what_it_has_answered_is_used_first(cache):
    """The first call keeps what was answered, in the journal; the second asks the rest, in a new batch."""
    with BadDay(provider) as server:
        server.batch_answers = 5
        server.faults["show"] = [str, changed(status="cancelled", output_file_id="file-1")]
        journal = cache / "journal.sqlite"
        result = ended("was cancelled before it had answered 7 of its requests", server, journal=journal)
        assert len(result.findings.dropna()) == 25
        assert server.direct == []
        server.batch_answers = 10**9
        server.batches["batch-0"]["ends"] = "cancelled"
        result = DF.amr.map_reduce(**OPTIONS, journal=journal, lm=server.known())
        assert len(server.batches) == 2
        assert len(server.requests) == 12
    assert result.output["n"] == sum(range(60))


@pytest.mark.parametrize("ends", ["cancelled", "failed", "expired"])
def test_a_batch_that_was_given_up_between_two_runs_gives_what_it_has_answered(ends, cache):
    with BadDay(provider) as server:
        server.batch_polls, server.batch_answers = 10**6, 5
        stopped_under_way(cache, DF, **OPTIONS, lm=server.known())
        server.batches["batch-0"] |= {"polls": 0, "ends": ends}
        server.batch_polls, server.batch_answers = 1, 10**9
        result = all_found(server)
        assert len(server.requests) == 12
        assert len(server.batches) == (1 if ends == "expired" else 2)
        assert len(server.direct) == (7 if ends == "expired" else 0)
    assert result.total.calls == 12


# A queue that is full


QUEUE_FULL = "Enqueued token limit reached for scripted in organization org-1. Limit: 90,000 enqueued tokens."


class SmallQueue(BadDay):
    """A server that takes so many requests in its queue, and fails a batch that has more, or refuses it at once."""

    def __init__(self, script, most, *, at_once):
        super().__init__(script)
        self.most = most
        self.at_once = at_once
        self.largest = 0

    async def _create_batch(self, http):
        lines = len(self._files[(await http.json())["input_file_id"]].splitlines())
        if self.at_once and lines > self.most:
            return web.json_response({"error": {"message": QUEUE_FULL, "code": None}}, status=self.at_once)
        response = await super()._create_batch(http)
        batch = self.batches[json.loads(response.text)["id"]]
        self.largest = max(self.largest, lines)
        if lines > self.most:
            batch |= {"ends": "failed", "output_file_id": None, "error_file_id": None}
            batch["errors"] = {"data": [{"code": "token_limit_exceeded", "line": None, "message": QUEUE_FULL}]}
        return response


@pytest.mark.parametrize("at_once", [400, 429, None])
def test_a_batch_that_is_too_large_for_the_queue_is_asked_in_smaller_ones(at_once):
    with SmallQueue(provider, 4, at_once=at_once) as server:
        all_found(server)
        assert server.direct == []
        ended = [one["ends"] for one in server.batches.values()]
        assert ended.count("completed") == 4  # of three each


def test_a_file_that_is_too_large_is_asked_in_two():
    with BadDay(provider) as server:
        server.faults["upload"] = [Status(413, "Request Entity Too Large")]
        all_found(server)
        assert len(server.batches) == 2
        assert len(server.requests) == 12


@pytest.mark.parametrize("at_once", [400, None])
def test_a_queue_without_any_place_is_waited_for_with_patience_and_told(at_once):
    with SmallQueue(lambda request: {"findings": []}, 0, at_once=at_once) as server:
        said = "queue of batch tokens has no place.*Enqueued token limit"
        ended(said, server, frame=DF.head(3), patience_s=0.2)
        assert server.direct == []


def test_under_raise_a_batch_that_ends_its_run_raises_with_what_was_found():
    with BadDay(provider) as server:
        server.batch_answers = 5
        server.faults["show"] = [str, changed(status="cancelled", output_file_id="file-1")]
        with pytest.raises(amr.ModelUnavailable, match="was cancelled before it had answered") as caught:
            DF.amr.map_reduce(**OPTIONS, errors="raise", lm=server.known())
    assert caught.value.partial.stopped == str(caught.value)
    assert len(caught.value.partial.findings.dropna()) == 25


# Lines


def lines_changed(change):
    """The file of answers with its lines changed: ``change`` gives another list of them."""

    def other(text):
        lines = [json.loads(line) for line in text.splitlines()]
        return "\n".join(one if isinstance(one, str) else json.dumps(one) for one in change(lines))

    return other


def first(**parts):
    """The first line with some parts changed."""
    return lambda lines: [lines[0] | parts, *lines[1:]]


def response(**parts):
    return lambda lines: [lines[0] | {"response": lines[0]["response"] | parts}, *lines[1:]]


EXPIRED = {
    "code": "batch_expired",
    "message": "This request could not be executed before the completion window expired.",
}
LINES = {
    # what is read all the same
    "a status as text": (response(status_code="200"), 0),
    "a status with a point": (response(status_code=200.0), 0),
    "a status of another success": (response(status_code=201), 0),
    "no status": (response(status_code=None), 0),
    "a body that is JSON in JSON": (lambda lines: response(body=json.dumps(lines[0]["response"]["body"]))(lines), 0),
    "other orders": (lambda lines: lines[::-1], 0),
    "lines twice": (lambda lines: lines * 2, 0),
    "requests of others": (lambda lines: [{**lines[0], "custom_id": "other"}, *lines, {"custom_id": None}], 0),
    "an error and then the answer": (lambda lines: [{**lines[0], "response": None, "error": EXPIRED}, *lines], 0),
    "empty lines": (lambda lines: ["", *lines, "  ", ""], 0),
    "a mark of the byte order": (lambda lines: ["\ufeff" + json.dumps(lines[0]), *lines[1:]], 0),
    "carriage returns": (lambda lines: [json.dumps(line) + "\r" for line in lines], 0),
    "other ends of lines in a text": (
        lambda lines: [json.dumps(line | {"note": "\u2028 \x85 \x0c \u2029"}, ensure_ascii=False) for line in lines],
        0,
    ),
    # what is asked again in the ordinary way
    "expired": (first(response=None, error=EXPIRED), 1),
    "all expired": (lambda lines: [line | {"response": None, "error": EXPIRED} for line in lines], 12),
    "no response": (lambda lines: [{"custom_id": lines[0]["custom_id"]}, *lines[1:]], 1),
    "a response of another kind": (first(response=["200"]), 1),
    "missing": (lambda lines: lines[2:], 2),
    "no lines": (lambda lines: [], 12),
    "a line that is cut off": (lambda lines: [json.dumps(lines[0])[:-9], *lines[1:]], 1),
    "a line that is too deep": (lambda lines: ["[" * 100_000, *lines[1:]], 1),
    "a line that is no object": (lambda lines: ["3", *lines[1:]], 1),
    "a line that is no text": (lambda lines: ["\udcff", *lines[1:]], 1),
    "a service's error": (response(status_code=500, body={"error": {"message": "busy"}}), 1),
    "a rate limit": (response(status_code=429, body={"error": {"message": "slow down"}}), 1),
    "a model that one line may not use": (response(status_code=404, body={"error": {"message": "no model"}}), 1),
    "a key that one line may not use": (response(status_code=403, body={"error": "forbidden"}), 1),
    "a status that is none": (response(status_code="odd", body=None), 1),
    "a status from before an answer": (response(status_code=102), 1),
    "a status of nothing": (response(status_code=0, body={}), 1),
    "an answer without a message": (response(body={"choices": []}), 1),
    "a body that is none": (response(body=None), 1),
    "a body that is text": (response(body="done"), 1),
}


def as_bytes(other):
    return lambda text: other(text).encode(errors="surrogateescape")


@pytest.mark.parametrize("case", LINES)
@pytest.mark.sampled(5)
def test_odd_lines_cost_no_row_and_at_most_a_request_of_their_own(case):
    change, direct = LINES[case]
    with BadDay(provider) as server:
        server.faults["download"] = [as_bytes(lines_changed(change))] * 2  # a damaged file is read twice
        all_found(server)
        assert len(server.direct) == direct
        assert len(server.batches) == 1


def test_a_file_whose_lines_were_damaged_on_the_way_is_read_again():
    with BadDay(provider) as server:
        server.faults["download"] = [lambda text: text[:-100]]
        all_found(server)
        assert server.direct == []
        assert server.posts["download"] == 2


def test_what_failed_in_a_batch_and_was_paid_is_counted():
    """A refused line, an error with its usage, a line that was answered twice: all of them stand in the usage."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010}

    def change(lines):
        refused = {"choices": [{"message": {"refusal": "no"}, "finish_reason": "stop"}], "usage": usage}
        error = {"error": {"message": "busy"}, "usage": usage}
        again = lines[2]["response"]["body"] | {"id": "another", "usage": usage}
        lines[0]["response"]["body"] = refused
        lines[1]["response"] = {"status_code": 500, "body": error}
        return [*lines, {"custom_id": lines[2]["custom_id"], "response": {"status_code": 200, "body": again}}]

    one_row = OPTIONS | {"plan": {"shard_size": 1}}
    with BadDay(provider) as server:
        server.faults["download"] = [lines_changed(change)]
        result = DF.amr.map_reduce(**one_row, lm=server.known(prices=(1.0, 1.0)))
        assert len(server.direct) == 1
        direct = sum(told_tokens(server.direct[0]))
        # two of those answered in the batch tell another usage than the server has counted
        replaced = sum(sum(told_tokens(request)) for request in server.requests[:60]) - tokens_of_used(server)
    assert result.total.tokens == tokens_of_used(server) + 3 * 1010 + direct
    assert result.total.money == pytest.approx((0.5 * (result.total.tokens - direct) + direct) / 1e6)
    assert replaced > 0
    assert len(result.failures) == 1


def tokens_of_used(server):
    """What the server counts for those of a batch's requests whose lines were left as they were."""
    lines = [json.loads(line) for line in server._files["file-0"].splitlines()]
    changed_ids = {line["custom_id"] for line in lines[:2]}
    bodies = [json.dumps(line["body"], sort_keys=True) for line in lines if line["custom_id"] not in changed_ids]
    return sum(
        sum(told_tokens(request))
        for request in server.requests
        if not request.headers and json.dumps(request.body, sort_keys=True) in bodies
    )


def test_equal_rows_that_are_to_be_asked_each_have_a_line_each():
    df = pd.DataFrame({"text": ["row 1"] * 3})
    with BadDay(provider) as server:
        plan = {"shard_size": 1, "dedupe": False}
        result = df.amr.map_reduce(**(OPTIONS | {"plan": plan}), lm=server.known())
        assert len(server.requests) == 3
        assert len({line["custom_id"] for line in map(json.loads, server._files["file-0"].splitlines())}) == 3
        assert result.total.tokens == server.tokens
    assert result.output["n"] == 3
