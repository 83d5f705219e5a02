"""The budget around a model: each request is reserved before it is sent, and settled after."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pandas_amr._records.counts import noun_for
from pandas_amr._records.tokens import tokens_per_character
from pandas_amr._records.trace import add_to_call, record_wait
from pandas_amr._records.usage import NO_USAGE, Budget, Ledger, Usage
from pandas_amr.errors import BudgetExceeded, ModelError
from pandas_amr.models.lease import exceeds
from pandas_amr.models.send_marker import SendRecord, sent_requests

if TYPE_CHECKING:
    from collections.abc import Callable

    from pandas_amr.models.base import Model, Reply, Request
    from pandas_amr.models.statistics import ModelStatistics


@dataclass
class BudgetTracker:
    """Tracks the budget of a run.

    Attributes:
        budget: what may be spent; None if nothing limits it.
        ledger: what was spent.
        reserved: the estimates of the requests in flight.
        in_flight: how many requests have a reserved estimate.
    """

    budget: Budget | None
    ledger: Ledger
    reserved: Usage = NO_USAGE
    in_flight: int = 0
    _waiting: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def needs_prices(self) -> bool:
        """Whether estimates need a price: of a shared budget, another run may limit the money."""
        if self.budget is None:
            return False
        return self.budget.money is not None or self.budget.shared is not None

    async def reserve(self, estimate: Usage) -> None:
        """Reserve an estimate; wait if it only fits once requests in flight are settled.

        Raises:
            BudgetExceeded: it does not fit into what is left of the budget.
        """
        if self.budget is None:
            return
        while (problem := self._exceeded_limit(self.budget, self.reserved + estimate)) is not None:
            if self._exceeded_limit(self.budget, estimate) is not None:
                raise BudgetExceeded(problem, self.ledger.total)
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            with record_wait("budget"):
                await waiting
        self._hold(estimate)

    def _hold(self, estimate: Usage) -> None:
        self.reserved += estimate
        self.in_flight += 1

    def _exceeded_limit(self, budget: Budget, more: Usage) -> str | None:
        """Say which limit is exceeded by ``more`` on top of what was spent; None if none is."""
        total = self.ledger.total + more
        for name, spent, limit in (
            ("calls", total.calls, budget.calls),
            ("tokens", total.tokens, budget.tokens),
            ("money", total.money, budget.money),
        ):
            if limit is not None and spent is not None and exceeds(spent, limit):
                amount = f"{limit:g} {noun_for(limit, name.removesuffix('s'), name)}"
                return f"The budget of {amount} is used up."
        return None

    def settle(self, estimate: Usage) -> None:
        """Release a reserved estimate; what was really spent is in the ledger."""
        if self.budget is None:
            return
        self.in_flight -= 1
        # Nothing is reserved for nobody: what rounding leaves of sums of money, 1e-17 and the like,
        # would be waited for, and no request is left to release it.
        self.reserved = self.reserved - estimate if self.in_flight else NO_USAGE
        self._wake_waiting()

    def _wake_waiting(self) -> None:
        """Let the requests that wait look again whether they fit."""
        released, self._waiting = self._waiting, []
        for waiting in released:
            if not waiting.done():
                waiting.set_result(None)

    async def close(self) -> None:
        """End the run's part of the budget."""


class Metered:
    """A model whose requests are reserved in the budget, and entered in the ledger of the run.

    Args:
        model: the model inside.
        name: its name in the ledger.
        statistics: how large its answers are.
        budget_tracker: tracks the budget.
        price: gives the money of a usage; None if unknown.
        half: whether its requests cost half, as in a batch.
        most: the largest size of an answer in tokens; None if it is not bounded.
    """

    def __init__(
        self,
        model: Model,
        *,
        name: str,
        statistics: ModelStatistics,
        budget_tracker: BudgetTracker,
        price: Callable[[Usage], float | None],
        half: bool,
        most: int | None = None,
    ) -> None:
        self._model = model
        self._name = name
        self._statistics = statistics
        self._tracker = budget_tracker
        self._price = price
        self._half = half
        self._most = most

    async def complete(self, request: Request) -> Reply:
        """Answer one turn.

        Raises:
            BudgetExceeded: the budget does not hold another request.
            ModelError: as the model inside; its ``usage`` has its price.
        """
        estimate = self._estimate(request)
        await self._tracker.reserve(estimate)
        sent = SendRecord()
        token = sent_requests.set(sent)
        try:
            reply = await self._model.complete(request)
        except ModelError as error:
            usage = self._with_price(error.usage or NO_USAGE)
            if error.usage is not None:
                error.usage = usage
            self._enter(request, replace(usage, tries=error.attempts))
            raise
        except BaseException:
            self._enter(request, self._unanswered_usage(sent, estimate))
            raise
        finally:
            sent_requests.reset(token)
            self._tracker.settle(estimate)
        usage = self._with_price(reply.usage)
        self._enter(request, usage)
        return replace(reply, usage=usage)

    def _estimate(self, request: Request) -> Usage:
        characters = sum(len(message.content or "") for message in request.messages)
        answer = self._most or self._statistics.expected_tokens(request.phase)
        usage = Usage(
            calls=1,
            input_tokens=int(characters * tokens_per_character(self._name)),
            output_tokens=int(answer),
        )
        return self._with_price(usage) if self._tracker.needs_prices else usage

    def _unanswered_usage(self, sent: SendRecord, estimate: Usage) -> Usage:
        """Estimate the usage of requests that were sent, and dropped before their answers came."""
        usage = Usage(
            tries=sent.count, input_tokens=sent.open * estimate.input_tokens, estimated=sent.open
        )
        return self._with_price(usage)

    def _enter(self, request: Request, usage: Usage) -> None:
        if usage.tries:
            self._tracker.ledger.add(request.phase, self._name, usage)
            add_to_call(usage)

    def _with_price(self, usage: Usage) -> Usage:
        money = self._price(usage)
        if money is not None and self._half:
            money /= 2
        return replace(usage, money=money)
