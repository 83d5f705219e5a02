"""Answers that wait until so many requests are under way at once: how fast anything is plays no part."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

from pandas_amr.models.throttle.window import FIRST_WINDOW

WAIT_S = 30.0
LINGER_S = 0.05


class Together:
    """A script around a script; its first answers are held until ``count`` requests are there.

    A server that nothing is known of is asked few requests at once, and one more with each answer: so one answer is
    given as soon as as many are held as can be expected, until it is ``count``. Those are held a moment longer, in
    which one too many would come; then all answers go freely. What never comes is waited for once only.
    """

    def __init__(self, script, count):
        self._script = script
        self._count = count
        self._expected = 1  # the first request goes alone
        self._held = deque()
        self._free = False

    async def __call__(self, request):
        if not self._free:
            await self._hold()
        return self._script(request)

    async def _hold(self):
        mine = asyncio.get_running_loop().create_future()
        self._held.append(mine)
        if len(self._held) >= self._count:
            await asyncio.sleep(LINGER_S)
            self._release()
        elif len(self._held) >= self._expected:
            self._expected = max(self._expected + 1, min(self._count, int(FIRST_WINDOW)))
            self._held.popleft().set_result(None)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(mine, WAIT_S)
        finally:
            if mine in self._held:
                self._release()

    def _release(self):
        self._free = True
        while self._held:
            held = self._held.popleft()
            if not held.done():
                held.set_result(None)
