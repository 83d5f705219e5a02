"""What this process has learned about a model at a server; all runs share it."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from pandas_amr._records.usage import Phase, Usage

Value = TypeVar("Value")

FIRST_ANSWER_TOKENS = 100.0
CORRECTION = 0.25
LATENCIES = 200


@dataclass
class ModelStatistics:
    """Statistics of one model at one server, for all keys.

    Attributes:
        latencies: seconds that the last answered requests took, of hedged calls only.
    """

    latencies: deque[float] = field(default_factory=partial(deque, maxlen=LATENCIES))
    _answer_tokens: dict[Phase, float] = field(default_factory=dict)

    def expected_tokens(self, phase: Phase) -> float:
        """Give the expected size of the next answer of a phase, in tokens."""
        return self._answer_tokens.get(phase, FIRST_ANSWER_TOKENS)

    def learn_answer(self, phase: Phase, usage: Usage) -> None:
        """Correct the expected size by one answer."""
        expected = self.expected_tokens(phase)
        self._answer_tokens[phase] = expected + (usage.output_tokens - expected) * CORRECTION


class ProcessCache(Generic[Value]):
    """Objects that all runs of a process share, by key; a fork starts empty."""

    def __init__(self) -> None:
        self._values: dict[tuple[int, Hashable], Value] = {}

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Give the object of a key; make it if there is none."""
        process_key = (os.getpid(), key)
        if process_key not in self._values:
            self._values.setdefault(process_key, make())
        return self._values[process_key]


_statistics: ProcessCache[ModelStatistics] = ProcessCache()


def statistics_of(server: str, model: str) -> ModelStatistics:
    """Give the statistics of a model at a server in this process."""
    return _statistics.get((server, model), ModelStatistics)
