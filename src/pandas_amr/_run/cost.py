"""What the agents of a phase take, and what that comes to in money and in time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pandas_amr._context.prices import price_of
from pandas_amr._records.usage import Usage
from pandas_amr.models.throttle.model import throttle_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pandas_amr._agent.agent import Agent
    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._records.usage import Phase
    from pandas_amr.models.base import LM


@dataclass
class Cost:
    """Estimated calls and tokens of one agent of a phase, added up.

    Attributes:
        agent: the call's own agent; None if the call gives a plain instruction.
        money: what it costs, if a sample was paid for; else the model's prices tell.
        about: whether the number of calls depends on what is found.
    """

    phase: Phase
    agent: Agent | None = None
    calls: int = 0
    input_tokens: float = 0.0
    output_tokens: float = 0.0
    money: float | None = None
    about: bool = False

    @property
    def tokens(self) -> float:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    def add(self, calls: int, input_tokens: float, output_tokens: float) -> None:
        """Add some calls and their tokens."""
        self.calls += calls
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens

    def add_usage(self, usage: Usage) -> None:
        """Add what some calls took."""
        self.add(usage.calls, usage.input_tokens, usage.output_tokens)

    def scale(self, calls: float, tokens: float) -> None:
        """Make it so many times as much."""
        self.calls = round(self.calls * calls)
        self.input_tokens *= tokens
        self.output_tokens *= tokens


def sum_costs(costs: Iterable[Cost]) -> Cost:
    """Add up costs, whatever their phases and agents."""
    total = Cost("map")
    for cost in costs:
        total.add(cost.calls, cost.input_tokens, cost.output_tokens)
        total.about |= cost.about
    return total


def takes_turns(spec: Spec, cost: Cost) -> bool:
    """Tell whether agents have tools or a REPL: then they take as many turns as they like."""
    return bool(spec.tools(cost.phase, cost.agent)) or spec.has_repl(cost.phase, cost.agent)


def total_money(spec: Spec, costs: Sequence[Cost]) -> float | None:
    """Add up the money; None if the prices of a model are not known."""
    total = 0.0
    for cost in costs:
        if not cost.calls:
            continue
        money = _money(spec, cost)
        if money is None:
            return None
        total += money
    return total


def _money(spec: Spec, cost: Cost) -> float | None:
    if cost.money is not None:
        return cost.money
    lm = spec.lm(cost.phase, cost.agent)
    usage = Usage(input_tokens=round(cost.input_tokens), output_tokens=round(cost.output_tokens))
    money = price_of(lm)(usage)
    if money is None:
        return None
    is_batch = lm.batch and cost.phase == "map" and not takes_turns(spec, cost)
    return money / 2 if is_batch else money


def least_seconds(
    spec: Spec, services: Services, costs: Sequence[Cost], latency_s: float
) -> float | None:
    """Reckon how long a run takes at least; None if neither a rate limit nor a latency is known.

    Rate limits are the user's, or learned from headers. The latency is 0 without a sample.
    """
    times = _seconds_at_limits(spec, services, costs)
    if latency_s:
        calls = sum(cost.calls for cost in costs)
        rounds = math.ceil(calls / services.parallelism(spec))
        times.append(latency_s * rounds)
    return max(times, default=None)


def _seconds_at_limits(spec: Spec, services: Services, costs: Sequence[Cost]) -> list[float]:
    """Reckon the seconds at each rate limit of each model."""
    times: list[float] = []
    for lm, cost in _costs_by_model(spec, costs).items():
        assert services.wired is not None
        throttle = throttle_for(lm, *services.wired.bare[lm].address)
        if throttle.requests is not None:
            times.append(cost.calls / throttle.requests.rate)
        if throttle.tokens is not None:
            times.append(cost.tokens / throttle.tokens.rate)
    return times


def _costs_by_model(spec: Spec, costs: Sequence[Cost]) -> dict[LM, Cost]:
    by_model: dict[LM, Cost] = {}
    for cost in costs:
        if cost.calls:
            lm = spec.lm(cost.phase, cost.agent)
            total = by_model.setdefault(lm, Cost(cost.phase))
            total.add(cost.calls, cost.input_tokens, cost.output_tokens)
    return by_model
