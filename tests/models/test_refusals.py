"""A server that says 429 at any pace does not slow a run down; one that has a limit does, as far as it has to."""

from __future__ import annotations

import asyncio
import random

import pytest
from test_waits import played

from pandas_amr.models.refusals import Refusals
from pandas_amr.models.throttle.rates import Bucket
from versions import once

pytestmark = once

AT_ONCE = 64


class Server:
    """Refuses a share of its requests by chance, and those over its limit; it takes ``latency_s`` for an answer."""

    def __init__(self, *, chance=0.0, per_second=None, latency_s=0.1, hint_s=None, seed=1):
        self.random = random.Random(seed)
        self.chance = chance
        self.latency_s = latency_s
        self.hint_s = hint_s
        self.per_second = per_second
        self.bucket = None
        self.asked = 0
        self.refused = 0

    def refuses(self, now):
        self.asked += 1
        if self.random.random() < self.chance or not self._has_room(now):
            self.refused += 1
            return True
        return False

    def _has_room(self, now):
        if self.per_second is None:
            return True
        if self.bucket is None:
            self.bucket = Bucket(self.per_second, self.per_second, self.per_second, now)
        self.bucket.rate = self.per_second
        self.bucket.refill(now)
        if self.bucket.level < 1:
            return False
        self.bucket.level -= 1
        return True


def seconds_of(server, requests, at_once=AT_ONCE):
    """How long so many requests take, if each is asked again until it is answered."""

    async def scenario(throttle, loop):
        left = iter(range(requests))

        async def work():
            for _ in left:
                while not await answered(throttle, loop):
                    pass

        async def answered(throttle, loop):
            ticket = await throttle.acquire(0)
            refused = server.refuses(loop.time())
            await asyncio.sleep(server.latency_s)
            if refused:
                throttle.record_refusal(ticket, retry_after_s=server.hint_s, limits=None)
            else:
                throttle.record_answer(ticket, tokens=0, limits=None)
            return not refused

        began = loop.time()
        await asyncio.gather(*(work() for _ in range(at_once)))
        return loop.time() - began

    return played(scenario)


@pytest.mark.parametrize("hint_s", [None, 0.0, 0.02])
@pytest.mark.parametrize("latency_s", [0.1, 5.0])
@pytest.mark.parametrize("chance", [0.02, 0.05, 0.1])
@pytest.mark.sampled(4)
def test_refusals_by_chance_do_not_slow_a_run_down(chance, latency_s, hint_s):
    server = Server(chance=chance, latency_s=latency_s, hint_s=hint_s)
    assert seconds_of(server, 5000) < 4 * 5000 * latency_s / AT_ONCE
    assert server.refused > 50


@pytest.mark.parametrize("per_second", [2.0, 20.0, 200.0])
def test_a_limit_is_kept_as_it_was(per_second):
    server = Server(per_second=per_second, latency_s=0.05)
    requests = int(max(500, 50 * per_second))
    assert seconds_of(server, requests) < 1.2 * (requests / per_second - 1)
    assert server.refused / server.asked < 0.1


def test_a_limit_that_comes_later_is_found_though_there_were_refusals_by_chance():
    class Later(Server):
        def refuses(self, now):
            if self.asked == 3000:
                self.per_second = 20.0
            return super().refuses(now)

    server = Later(chance=0.05)
    assert seconds_of(server, 4000) < 6 * 1000 / 20.0
    assert server.refused / server.asked < 0.05 + 0.1


def test_chance_that_is_over_is_forgotten_and_a_limit_then_kept():
    refusals = Refusals(noise=0.1)
    for _ in range(100):
        refusals.note(1.0, refused=False)
    assert refusals.noise == 0.0
    refusals.note(1.0, refused=True)
    assert not refusals.are_noise(10.0)


def test_requests_that_were_sent_before_a_slower_pace_say_nothing_of_it():
    """All that is refused was sent at the faster one: slowing down may well have helped."""
    refusals = Refusals()
    for _ in range(32):
        refusals.note(1.0, refused=True)
    refusals.slow_down(2.0, 100.0)
    for _ in range(32):
        refusals.note(1.5, refused=True)
        refusals.note(2.5, refused=False)
    refusals.note(2.5, refused=True)
    refusals.note(2.5, refused=True)
    assert not refusals.are_noise(50.0)
