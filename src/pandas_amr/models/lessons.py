"""What this process has learned of a model at a server, whoever asked it: a run, its reduce, a group of it."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from pandas_amr._records.usage import Phase, Usage

Place = ParamSpec("Place")
Known = TypeVar("Known")

FIRST_ANSWER_TOKENS = 100.0
CORRECTION = 0.25
LATENCIES = 200


@dataclass
class Lessons:
    """What was learned of one model at one server, and holds for all keys.

    Attributes:
        latencies: seconds that the last answered requests took, those of hedged calls alone.
    """

    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES))
    _answer_tokens: dict[Phase, float] = field(default_factory=dict)

    def expected_tokens(self, phase: Phase) -> float:
        """How large the next answer of a phase will be, in tokens."""
        return self._answer_tokens.get(phase, FIRST_ANSWER_TOKENS)

    def learn_answer(self, phase: Phase, usage: Usage) -> None:
        """Take in what one answer took."""
        before = self.expected_tokens(phase)
        self._answer_tokens[phase] = before + (usage.output_tokens - before) * CORRECTION


def made_once(make: Callable[Place, Known]) -> Callable[Place, Known]:
    """Give what a function made for the same arguments before, in this process: a fork begins with nothing."""
    known: dict[tuple[object, ...], Known] = {}

    @wraps(make)
    def look_up(*args: Place.args, **options: Place.kwargs) -> Known:
        place = (os.getpid(), *args, *options.items())
        if place not in known:
            known.setdefault(place, make(*args, **options))
        return known[place]

    return look_up


@made_once
def lessons_of(server: str, model: str) -> Lessons:  # noqa: ARG001 (what it is known by)
    """Give what this process has learned of a model at a server; at first that is nothing."""
    return Lessons()
