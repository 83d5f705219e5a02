"""What this process has learned about a model at a server; all runs share it."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from pandas_amr._records.usage import Phase, Usage

Arguments = ParamSpec("Arguments")
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


def cached_per_process(make: Callable[Arguments, Value]) -> Callable[Arguments, Value]:
    """Make a function return the same object for the same arguments; a fork starts empty."""
    values: dict[tuple[object, ...], Value] = {}

    @wraps(make)
    def look_up(*args: Arguments.args, **options: Arguments.kwargs) -> Value:
        key = (os.getpid(), *args, *options.items())
        if key not in values:
            values.setdefault(key, make(*args, **options))
        return values[key]

    return look_up


@cached_per_process
def statistics_of(server: str, model: str) -> ModelStatistics:  # noqa: ARG001 (cache key)
    """Give the statistics of a model at a server in this process."""
    return ModelStatistics()
