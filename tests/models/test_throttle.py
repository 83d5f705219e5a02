"""As fast as the server lets us, and no faster; nothing that was paid for is thrown away."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import threading
import time

import pytest

import pandas_amr as amr
from moments import move_on, never, turn_engine, until
from numbered import number, provider
from numbered import rows as frame
from pandas_amr.models.openai.headers import _limit, seconds_of
from pandas_amr.models.throttle.model import _throttles, throttle_for
from pandas_amr.models.throttle.pace import Pace
from pandas_amr.models.throttle.throttle import Throttle
from pandas_amr.models.throttle.window import ConcurrencyWindow
from pandas_amr.testing import Drop, RateLimit, Raw, ScriptedServer, Status
from ports import closed_port
from together import Together
from versions import once

pytestmark = once


TIMEOUT_S = 6000.0  # by a clock that is moved on
ONE_BY_ONE = {"map": "Which?", "finding": {"n": int}, "reduce": {"n": "sum"}, "plan": {"shard_size": 1}}


@pytest.mark.parametrize("what", ["requests", "tokens"])
@pytest.mark.parametrize("headers", [True, False], ids=["headers", "no headers"])
@pytest.mark.sampled(4)
def test_a_limit_that_is_not_told_is_found_and_kept_and_all_rows_come_back(what, headers):
    """Ten times as fast as benchmarks/rate_limits.py, which measures the makespan too."""
    told = {"rpm": 12_000} if what == "requests" else {"tpm": 12_000 * 139}
    limit = RateLimit(**told, burst_s=0.3, headers=headers)
    with ScriptedServer(provider, latency_s=0.02, limit=limit) as server:
        result = frame(1000).amr.map_reduce(**ONE_BY_ONE, max_parallelism=64, lm=server.lm())
    assert result.output["n"] == sum(range(1000))
    assert len(result.failures) == 0
    assert server.refused / len(server.requests) <= (0.03 if headers else 0.10)
    assert result.total.tries == len(server.requests)


def test_a_limit_that_is_told_is_kept_from_the_first_request():
    with ScriptedServer(provider, limit=RateLimit(rpm=6000, headers=False)) as server:
        result = frame(300).amr.map_reduce(**ONE_BY_ONE, max_parallelism=64, lm=server.lm(rpm=5000))
    assert result.output["n"] == sum(range(300))
    assert server.refused == 0


def test_retry_after_is_obeyed():
    """Nothing is sent while the server asks for a pause."""
    times: list[float] = []

    def script(request):
        times.append(time.monotonic())
        if request.number == 2:
            return Status(429, "slow down", headers={"retry-after-ms": "400"})
        return provider(request)

    with ScriptedServer(script) as server:
        frame(6).amr.map_reduce(**ONE_BY_ONE, max_parallelism=1, lm=server.lm())
    assert len(times) == 7
    assert times[3] - times[2] >= 0.4


def test_a_429_is_never_a_rows_failure():
    """Thirty in a row for one request: more than any count of tries would bear."""
    refusals = iter([Status(429)] * 30)
    with ScriptedServer(lambda r: next(refusals, None) or provider(r)) as server:
        result = frame(3).amr.map_reduce(**ONE_BY_ONE, max_parallelism=1, lm=server.lm(max_tries=1, rpm=60_000))
    assert result.output["n"] == 3
    assert result.total.tries == 33


@pytest.mark.long
def test_faults_of_every_kind_together_lose_no_row_and_resends_are_counted():
    """5 % of 500s, 2 % resets, 2 % hangs, 2 % malformed bodies, 1 % wrong JSON.

    Which rows hang is fixed, once each: they are waited for side by side, and time out once all others are found.
    """
    rng = random.Random(5)
    faults = {"error": 0.05, "reset": 0.02, "malformed": 0.02, "wrong": 0.01}
    counted = dict.fromkeys([*faults, "hang", "good"], 0)
    hanging = set(range(10, 410, 20))

    def kind_of(request):
        row = number(request.units[0])["n"]
        if row in hanging:
            hanging.remove(row)
            return "hang"
        draw = rng.random()
        for name, share in faults.items():
            if draw < share:
                return name
            draw -= share
        return "good"

    answers = {
        "error": Status(500, "oops"),
        "reset": Drop(),
        "malformed": Raw(body='{"choices": [{'),
        "wrong": {"findings": [{"unit": 0, "m": "?"}]},
    }

    async def script(request):
        kind = kind_of(request)
        counted[kind] += 1
        if kind == "hang":
            await never(request)
        return answers.get(kind) or provider(request)

    with ScriptedServer(script) as server:
        run = frame(1000).amr.start(**ONE_BY_ONE, max_parallelism=64, lm=server.lm(timeout_s=TIMEOUT_S))
        until(lambda: run.progress.found == 980 and server.in_flight == 20)
        move_on(TIMEOUT_S)
        result = run.result()
    assert result.output["n"] == sum(range(1000))
    assert len(result.failures) == 0
    assert counted["hang"] == 20
    assert min(counted.values()) > 0
    assert result.total.tries == len(server.requests) == sum(counted.values())
    # as many as answers with wrong JSON that were waited for; a second one for the same unit mends no other
    assert 0 < (result.status["status"] == "repaired").sum() <= counted["wrong"]


def answering(count):
    """A script that answers so many requests, and those after them never."""

    async def script(request):
        if request.number >= count:
            await never(request)
        return provider(request)

    return script


def test_a_scripted_server_that_ends_hangs_up_on_what_it_never_answers():
    with ScriptedServer(answering(1)) as server:
        lm = server.lm(timeout_s=10.0, max_tries=1)
        frame(1).amr.map_reduce(**ONE_BY_ONE, lm=lm)  # the first request goes alone
        run = frame(3).iloc[1:].amr.start(**ONE_BY_ONE, lm=lm, errors="raise")
        until(lambda: len(server.requests) == 3)
    with pytest.raises(amr.MapFailed, match="No connection"):  # and not: no answer within 10 s
        run.result()


def test_requests_are_numbered_when_they_are_there_as_a_whole():
    """The first one's body is long on its way, and another one overtakes it."""
    body = b'{"messages": []}'

    def begun(address, length):
        connection = socket.create_connection(address)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode() + body[:5])
        return connection

    with ScriptedServer(lambda request: "hello") as server:
        host, _, port = server.base_url.split("/")[2].partition(":")
        with begun((host, int(port)), len(body)) as slow, begun((host, int(port)), len(body)) as fast:
            until(lambda: server.in_flight == 2)
            for connection in (fast, slow):
                connection.sendall(body[5:])
                assert connection.recv(12) == b"HTTP/1.1 200"
        assert [request.number for request in server.requests] == [0, 1]


def test_a_server_that_dies_and_comes_back_is_waited_for_and_the_run_ends_whole():
    port = closed_port()
    lm = amr.LM("scripted", base_url=f"http://127.0.0.1:{port}/v1", api_key="k")
    with ScriptedServer(answering(50), latency_s=0.01, port=port) as first:
        run = frame(200).amr.start(**ONE_BY_ONE, max_parallelism=4, lm=lm)
        until(lambda: len(first.requests) >= 50 + 4)
    until(lambda: run.progress.waiting)
    assert not run.done()
    with ScriptedServer(provider, port=port) as second:
        result = run.result()
        assert len(second.requests) <= 200 - 50 + 4 + 4
    assert result.output["n"] == sum(range(200))
    assert len(result.failures) == 0


def test_a_server_that_never_comes_back_ends_the_run_with_one_error_and_the_findings_kept():
    errors = []

    def work():
        try:
            frame(200).amr.map_reduce(**ONE_BY_ONE, max_parallelism=2, lm=lm)
        except amr.ModelUnavailable as error:
            errors.append(error)

    with ScriptedServer(answering(20), latency_s=0.01, port=closed_port()) as server:
        lm = server.lm(patience_s=1.0)
        thread = threading.Thread(target=work)
        thread.start()
        until(lambda: len(server.requests) >= 20 + 2)
    thread.join(60)
    (error,) = errors
    assert "No connection to 127.0.0.1" in str(error)
    assert error.partial.findings["n"].notna().sum() == 20
    assert set(error.partial.status["status"]) == {"ok", "skipped"}
    assert error.partial.stopped == str(error)


@pytest.mark.parametrize("status", [Status(401), Status(402), Status(429, "no", "insufficient_quota")], ids=str)
def test_what_cannot_succeed_stops_the_run_with_one_error_after_what_was_in_flight(status):
    def script(request):
        return provider(request) if request.number < 10 else status

    with ScriptedServer(script, latency_s=0.01) as server, pytest.raises(amr.ModelConfigError) as caught:
        frame(300).amr.map_reduce(**ONE_BY_ONE, max_parallelism=4, lm=server.lm())
    assert len(server.requests) <= 10 + 4
    assert caught.value.partial.findings["n"].notna().sum() == 10


def test_the_window_doubles_while_it_can_and_halves_once_a_round_on_429():
    async def scenario():
        throttle = Throttle()
        under_way = [await throttle.acquire(0) for _ in range(throttle.limit)]
        for _ in range(8 + 16 + 32):  # three rounds of a window that is always full
            throttle.record_answer(under_way.pop(0), tokens=0, limits=None)
            while throttle.in_flight < throttle.limit:
                under_way.append(await throttle.acquire(0))
        grown = throttle.limit
        for ticket in under_way:
            throttle.record_refusal(ticket, retry_after_s=None, limits=None)
        return grown, throttle.limit

    assert asyncio.run(scenario()) == (64, 32)


def test_the_window_shrinks_when_the_server_queues_and_a_few_slow_answers_are_no_queue():
    async def scenario(latencies):
        throttle = Throttle(Pace(window=ConcurrencyWindow(64.0)))
        windows = []
        for latency in latencies:
            ticket = await throttle.acquire(0)
            ticket.began -= latency
            throttle.in_flight += 63  # a window that is full
            throttle.record_answer(ticket, tokens=0, limits=None)
            throttle.in_flight -= 63
            windows.append(throttle.pace.window.size)
        return windows

    queueing = asyncio.run(scenario([0.1] * 64 + [1.0] * 200))
    assert queueing[63] == 128
    assert queueing[-1] < max(queueing) - 15
    tail = asyncio.run(scenario([0.1, 0.1, 2.0, 0.1] * 66))
    assert tail == sorted(tail)


def test_places_are_given_in_the_order_of_asking_and_given_back_by_who_gives_up():
    async def scenario():
        throttle = Throttle(Pace(max_parallelism=1))
        order = []

        async def one(name):
            ticket = await throttle.acquire(0)
            order.append(name)
            throttle.record_answer(ticket, tokens=0, limits=None)

        held = await throttle.acquire(0)
        tasks = [asyncio.create_task(one(name)) for name in "abc"]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        throttle.record_answer(held, tokens=0, limits=None)
        await asyncio.gather(*tasks, return_exceptions=True)
        return order, throttle.in_flight

    assert asyncio.run(scenario()) == (["a", "c"], 0)


def test_one_throttle_serves_all_runs_on_a_server_key_and_model():
    lm = amr.LM("m", base_url="http://127.0.0.1:1/v1")
    same = throttle_for(lm, "http://s", "key")
    assert throttle_for(lm, "http://s", "key") is same
    assert throttle_for(lm, "http://s", "other") is not same
    assert throttle_for(lm.replace(rpm=60), "http://s", "key") is same
    assert same.requests.rate == 1
    names = [name for name in _throttles if name[1] == "http://s"]
    assert len(names) == 2
    assert "key" not in repr(names)


def test_two_runs_at_once_stay_within_one_limit():
    with ScriptedServer(Together(provider, 3), latency_s=0.01) as server:
        lm = server.lm(max_parallelism=3)
        runs = [amr.start(frame(30), **ONE_BY_ONE, max_parallelism=3, lm=lm) for _ in range(3)]
        assert [int(run.result().output["n"]) for run in runs] == [sum(range(30))] * 3
    assert server.max_in_flight == 3


@pytest.mark.parametrize(
    ("headers", "rate", "left"),
    [
        ({"limit": "1200", "remaining": "10", "reset": "500ms"}, 20.0, 10.0),
        ({"limit": "60", "remaining": "59", "reset": "1s"}, 1.0, 59.0),
        ({"limit": "10000", "remaining": "9999", "reset": "8.64s"}, 1 / 8.64, 9999.0),  # a day's
        ({"limit": "many", "remaining": "9", "reset": "1s"}, None, None),
        ({}, None, None),
    ],
)
def test_headers_are_read_as_providers_write_them(headers, rate, left):
    spelled = {f"x-ratelimit-{name}-requests": value for name, value in headers.items()}
    found, there = _limit(spelled, "requests")
    assert found == (None if rate is None else pytest.approx(rate))
    assert there == left


@pytest.mark.parametrize(
    ("text", "seconds"), [("6m0s", 360), ("120ms", 0.12), ("1h2m", 3720), ("1.5", 1.5), ("soon", None)]
)
def test_durations_are_read_as_providers_write_them(text, seconds):
    assert seconds_of(text) == (None if seconds is None else pytest.approx(seconds))


SLOWEST_S = 600.0  # by the clock: longer than any other answer takes, however busy the machine is
HEDGED_S = 2 * SLOWEST_S  # by then a second request is due


def hedged_after_slow_answers(server):
    """A model that sends a second request only after ``SLOWEST_S``: twenty answers before took so long."""
    lm = server.lm(hedge=True, timeout_s=TIMEOUT_S)
    frame(20).amr.map_reduce(**ONE_BY_ONE, max_parallelism=1, lm=lm)
    server.requests.clear()
    return lm


def slow_at_first(script):
    """A script, of which the first twenty answers take ``SLOWEST_S``."""
    begun = itertools.count()

    async def answer(request):
        if next(begun) < 20:
            move_on(SLOWEST_S)
            return provider(request)
        return await script(number(request.units[0])["n"], request)

    return answer


def test_hedging_takes_the_first_answer_and_counts_both():
    """The first request for three rows is never answered: that the run ends at all is the second one's doing."""
    slow = {60, 75, 90}

    async def script(row, request):
        if row in slow:
            slow.remove(row)
            await never(request)
        return provider(request)

    with ScriptedServer(slow_at_first(script)) as server:
        lm = hedged_after_slow_answers(server)
        run = frame(100).amr.start(**ONE_BY_ONE, max_parallelism=8, lm=lm)
        until(lambda: run.progress.found == 97 and server.in_flight == 3)
        assert len(server.requests) == 100
        move_on(HEDGED_S)
        result = run.result()
    assert result.output["n"] == sum(range(100))
    assert result.total.calls == 100
    assert result.total.tries == len(server.requests) == 103


def test_a_request_that_was_sent_before_it_was_known_what_is_slow_is_hedged_too():
    """The first request for row 3 is never answered; those that show how slow that is come after it."""
    slow = {3}

    async def answer(request):
        row = number(request.units[0])["n"]
        if row in slow:
            slow.remove(row)
            await never(request)
        elif row <= 20 and row != 3:  # twenty rows: as many as must be known
            move_on(SLOWEST_S)
        return provider(request)

    with ScriptedServer(answer) as server:
        result = frame(40).amr.map_reduce(
            **ONE_BY_ONE, max_parallelism=2, lm=server.lm(hedge=True, timeout_s=SLOWEST_S * 100)
        )
    assert result.output["n"] == sum(range(40))
    assert (result.total.calls, result.total.tries, len(server.requests)) == (40, 41, 41)


def test_hedged_requests_that_both_fail_are_both_counted():
    """Row 40's first two requests are never answered and time out; the third is."""
    asked = []

    async def script(row, request):
        asked.append(row)
        if row == 40 and asked.count(40) < 3:
            await never(request)
        return provider(request)

    with ScriptedServer(slow_at_first(script)) as server:
        lm = hedged_after_slow_answers(server)
        run = frame(60).amr.start(**ONE_BY_ONE, max_parallelism=8, lm=lm)
        until(lambda: run.progress.found == 59 and asked.count(40) == 1)
        move_on(HEDGED_S)
        until(lambda: asked.count(40) == 2)
        move_on(TIMEOUT_S)
        result = run.result()
    assert result.output["n"] == sum(range(60))
    assert asked.count(40) == 3
    assert result.total.tries == len(server.requests) == 62


def test_a_second_request_that_waits_for_its_place_is_neither_counted_nor_sent():
    """One place only, which the first request holds: the second is never sent."""
    released = threading.Event()

    async def script(row, request):
        if row == 30:
            assert await asyncio.to_thread(released.wait, 60)
        return provider(request)

    with ScriptedServer(slow_at_first(script)) as server:
        lm = hedged_after_slow_answers(server)
        run = frame(40).amr.start(**ONE_BY_ONE, max_parallelism=1, lm=lm)
        until(lambda: run.progress.found == 30 and server.in_flight == 1)
        move_on(HEDGED_S)
        turn_engine()
        released.set()
        result = run.result()
    assert result.output["n"] == sum(range(40))
    assert result.total.tries == len(server.requests) == 40
