"""What calls cost: ``Usage`` adds; a ``Ledger`` keeps it per phase and model."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

Phase = Literal["plan", "map", "reduce"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Calls, tokens and seconds of some work; addable.

    Attributes:
        calls: requests that the run needed answered.
        tries: requests sent, re-sends included.
        input_tokens: tokens of the prompts, cached ones included.
        cached_tokens: those of them that the provider had cached.
        output_tokens: tokens of the answers, reasoning included.
        reasoning_tokens: those of them spent on reasoning.
        seconds: time spent waiting for answers, summed over calls.
    """

    calls: int = 0
    tries: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Usage)))

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens


@dataclass(slots=True)
class Ledger:
    """Usage by phase and model, in the order in which they were first met."""

    lines: dict[tuple[Phase, str], Usage] = field(default_factory=dict)

    def add(self, phase: Phase, model: str, usage: Usage) -> None:
        """Add ``usage`` to the line of ``phase`` and ``model``."""
        key = (phase, model)
        self.lines[key] = self.lines.get(key, Usage()) + usage

    @property
    def total(self) -> Usage:
        """All lines together."""
        return sum(self.lines.values(), Usage())
