"""Moments: until something holds, and a clock that is moved on instead of slept through."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from pandas_amr._records.clock import CLOCK
from pandas_amr._records.engine import submit
from pandas_amr.testing import ScriptedServer

LONGEST_S = 120.0  # only what has failed waits so long
NEVER_S = 7 * 86400.0
TURNS = 200  # far more than a task takes from the moment it is woken to what it does then


def until(reached: Callable[[], Any]) -> None:
    """Wait until something holds; what comes after says whether it does."""
    latest = time.monotonic() + LONGEST_S
    while not reached() and time.monotonic() < latest:
        time.sleep(0.005)


async def never(request: Any) -> None:
    """Leave a request without an answer."""
    await asyncio.sleep(NEVER_S)


def turn_engine() -> None:
    """Let whatever is due in the engine, and needs no answer from outside, be done."""
    for _ in range(TURNS):
        submit(asyncio.sleep(0)).result(LONGEST_S)


def move_on(seconds: float) -> None:
    """Let so many seconds pass at once, for all that waits in the library."""
    CLOCK.move_on(seconds)


def move_on_until(reached: Callable[[], Any], server: ScriptedServer) -> None:
    """Let one second after the other pass until something holds; none while a request is under way."""

    def look() -> Any:
        if not server.in_flight:
            move_on(1.0)
        return reached()

    until(look)
