"""A budget that several runs share, in whatever process: each is allowed to spend a part of it."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pandas_amr._records.counts import noun_for
from pandas_amr._records.log import LOGGER
from pandas_amr.errors import BudgetExceeded
from pandas_amr.models.budget import BudgetTracker
from pandas_amr.models.lease import Allowance, Amounts, LeaseError, exceeds, in_lease_thread

if TYPE_CHECKING:
    from pandas_amr._records.usage import Budget, Usage
    from pandas_amr.models.lease import BudgetLease

PERIOD_S = 0.05  # between exchanges, while requests wait for what others may give back
IDLE_PERIOD_S = 0.2  # between the other ones: signs of life, and what is not needed any more


def budget_limits(budget: Budget) -> Amounts:
    """Give the limits of a budget; infinite if there is none."""
    return Amounts(
        calls=_or_infinite(budget.calls),
        tokens=_or_infinite(budget.tokens),
        money=_or_infinite(budget.money),
    )


def _or_infinite(limit: float | None) -> float:
    return math.inf if limit is None else limit


def _amounts(usage: Usage) -> Amounts:
    return Amounts(usage.calls, usage.tokens, usage.money or 0.0)


@dataclass(kw_only=True)
class SharedBudgetTracker(BudgetTracker):
    """Tracks one run's part of a shared budget.

    The run is allowed to spend up to some amounts, which are taken from the budget for it, and asks
    for more before it needs them. So a request waits for the lease only at the beginning, and near
    the end of the budget, where others may give back what they do not need.
    """

    budget: Budget
    lease: BudgetLease
    _allowance: Allowance | None = None
    _told: Amounts = field(default_factory=Amounts)
    _wanted: list[Usage] = field(default_factory=list)
    _exchange: asyncio.Task[None] | None = None
    _is_wanted_now: asyncio.Event = field(default_factory=asyncio.Event)
    _failure: str = ""

    async def reserve(self, estimate: Usage) -> None:
        """Reserve an estimate; wait until this run is allowed to spend it.

        Raises:
            BudgetExceeded: it does not fit into what all runs have left of the budget; or what they
                spend can no longer be counted.
        """
        if self._exchange is None:
            self._exchange = asyncio.create_task(self._keep_exchanging())
        self._wanted.append(estimate)
        try:
            while not self._is_allowed(estimate):
                self._raise_if_used_up(estimate)
                self._is_wanted_now.set()
                waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.append(waiting)
                await waiting
        finally:
            self._wanted.remove(estimate)
        self._hold(estimate)
        if not self._is_allowed(estimate):  # the next one would wait
            self._is_wanted_now.set()

    async def close(self) -> None:
        """End the run's part: what it has not spent is free for others."""
        if self._exchange is None:
            return
        self._exchange.cancel()
        await asyncio.gather(self._exchange, return_exceptions=True)
        if self._failure:
            return
        try:
            await in_lease_thread(self.lease.leave, _amounts(self.ledger.total))
        except LeaseError as error:
            # All that this run was allowed counts as spent, which is no less than what it spent.
            LOGGER.warning("The shared budget %r: %s", self.budget.shared, error)

    def _is_allowed(self, estimate: Usage) -> bool:
        if self._allowance is None:
            return False
        most, limits = self._allowance.most, budget_limits(self.budget)
        allowed = Amounts(
            calls=most.calls if math.isfinite(limits.calls) else math.inf,
            tokens=most.tokens if math.isfinite(limits.tokens) else math.inf,
            money=most.money if math.isfinite(limits.money) else math.inf,
        )
        return _amounts(self.ledger.total + self.reserved + estimate).fits_into(allowed)

    def _raise_if_used_up(self, estimate: Usage) -> None:
        """Raise if an estimate would not fit, even if others gave back all that they can."""
        if self._failure:
            raise BudgetExceeded(self._failure, self.ledger.total)
        if self._allowance is None:
            return
        others = self._allowance.spent
        own = _amounts(self.ledger.total + estimate)
        limits = budget_limits(self.budget)
        for name, spent, told, more, limit in (
            ("calls", others.calls, self._told.calls, own.calls, limits.calls),
            ("tokens", others.tokens, self._told.tokens, own.tokens, limits.tokens),
            ("money", others.money, self._told.money, own.money, limits.money),
        ):
            if exceeds(spent - told + more, limit):
                amount = f"{limit:g} {noun_for(limit, name.removesuffix('s'), name)}"
                message = (
                    f"The budget of {amount} that runs share as {self.budget.shared!r} is used up."
                )
                raise BudgetExceeded(message, self.ledger.total)

    async def _keep_exchanging(self) -> None:
        """Exchange the lease when more is wanted, and now and then, until the run ends."""
        while not self._failure:
            self._is_wanted_now.clear()
            spent = _amounts(self.ledger.total)
            is_short = bool(self._wanted)
            try:
                self._allowance = await in_lease_thread(
                    self._exchange_lease, spent, self._wishes(), is_short
                )
            except Exception as error:  # noqa: BLE001 (requests wait for it: they are told)
                reason = str(error) if isinstance(error, LeaseError) else repr(error)
                name = self.budget.shared
                self._failure = f"The shared budget {name!r} can no longer be counted: {reason}"
            self._told = spent
            self._wake_waiting()
            await self._pause()

    def _exchange_lease(
        self,
        spent: Amounts,
        wishes: list[Amounts],
        is_short: bool,  # noqa: FBT001 (called in a thread)
    ) -> Allowance:
        return self.lease.exchange(spent, wishes, is_short=is_short)

    async def _pause(self) -> None:
        """Wait until more is wanted; if requests wait for others, only for a while."""
        if self._wanted:
            await asyncio.sleep(PERIOD_S)
            return
        try:
            async with asyncio.timeout(IDLE_PERIOD_S):
                await self._is_wanted_now.wait()
        except TimeoutError:
            return

    def _wishes(self) -> list[Amounts]:
        """List what the run would like to spend in all: what it has, what it needs, and more.

        More is as much again as what is in flight.
        """
        total = self.ledger.total + self.reserved
        wishes = [_amounts(total)]
        for estimate in self._wanted:
            total += estimate
            wishes.append(_amounts(total))
        wishes.append(_amounts(total + self.reserved))
        return wishes
