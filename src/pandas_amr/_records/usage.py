"""What calls cost: ``Usage`` adds; a ``Ledger`` keeps it per phase and model."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from pandas_amr._records.public import public
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pandas_amr._records.estimate import Estimate

Phase = Literal["plan", "map", "reduce"]


@public
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
        money: what it cost, in the prices' currency, or as a gateway tells it; None where neither is known.
        recalled: answers that the journal had, and that cost nothing.
        estimated: requests of which the service did not tell the tokens: what is said of them here is an estimate.
        billed: requests of which a gateway told the cost. It is their money, unless ``LM(prices=...)`` is given.
    """

    calls: int = 0
    tries: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    seconds: float = 0.0
    money: float | None = 0.0
    recalled: int = 0
    estimated: int = 0
    billed: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(  # spelled out: it is done ten times a request
            calls=self.calls + other.calls,
            tries=self.tries + other.tries,
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            seconds=self.seconds + other.seconds,
            money=None if self.money is None or other.money is None else self.money + other.money,
            recalled=self.recalled + other.recalled,
            estimated=self.estimated + other.estimated,
            billed=self.billed + other.billed,
        )

    def __sub__(self, other: Usage) -> Usage:
        """What came since ``other``."""
        money = None if self.money is None or other.money is None else self.money - other.money
        counts = {
            f.name: getattr(self, f.name) - getattr(other, f.name)
            for f in fields(self)
            if f.name != "money"
        }
        return Usage(**counts, money=money)

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens


@public
@dataclass(frozen=True, kw_only=True, repr=False)
class Budget:
    """What a run may spend. At the limit it stops cleanly: what was found is there, and ``result.stopped`` says why.

    Calls are reserved before they are sent, so that no more is spent than the budget and the error of the estimates of
    the calls in flight.

    Args:
        money: in the currency of the model's prices (``LM(prices=...)`` or ``pandas-amr[prices]``).
        tokens: input and output tokens together.
        calls: requests answered.
        seconds: time since the run began; requests in flight are then dropped.
        confirm: a function, async or not, that is asked once, with the ``Estimate`` of what the journal has not, before
            anything is mapped; unless it gives True the run ends with ``NotConfirmed``. A plan that had to be derived
            has cost its one call by then. A recipe asks once a stage, since only what one found tells what the next
            takes: after a no, what the stages before it found is in the error's ``partial``. Calls and money that
            nobody knows are None: ``estimate.money is not None and estimate.money < 5``.

    Raises:
        UsageError: no limit is given, or one that is not above 0.

    Example:
        >>> Budget(tokens=200_000, seconds=600)
        Budget(tokens=200000, seconds=600)
    """

    money: float | None = None
    tokens: int | None = None
    calls: int | None = None
    seconds: float | None = None
    confirm: Callable[[Estimate], Any] | None = None

    def __post_init__(self) -> None:
        given = {
            f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None
        }
        if not given:
            raise UsageError(
                "Budget takes at least one of money=, tokens=, calls=, seconds=, confirm=."
            )
        confirm = given.pop("confirm", None)
        if confirm is not None and not callable(confirm):
            raise UsageError(
                f"Budget(confirm=...) takes a function of an Estimate, not {confirm!r}."
            )
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise UsageError(f"Budget({name}=...) takes a number above 0, not {value!r}.")

    def __repr__(self) -> str:
        given = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in fields(self)
            if getattr(self, f.name) is not None
        ]
        return f"Budget({', '.join(given)})"


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
