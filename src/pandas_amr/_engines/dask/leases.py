"""The leases of a worker: the driver keeps them, so that all workers together stay within one."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pandas_amr._journal.leases import name_limits
from pandas_amr._records.clock import CLOCK
from pandas_amr._records.engine import engine_loop
from pandas_amr.errors import JournalError
from pandas_amr.models.lease import LeaseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._engines.dask.link import Link
    from pandas_amr.models.lease import Allowance, Amounts, PaceReport, Peer

ANSWER_S = 20.0
PERIOD_S = 0.1
FEW_PEERS = 10
JOINING_EXCHANGES = 10  # which follow each other as they come: so workers soon know of each other


def ask_driver(link: Link, operation: str, *arguments: Any) -> Any:
    """Ask the driver from another thread than the engine's.

    Raises:
        LeaseError: it does not answer.
    """
    asked = asyncio.run_coroutine_threadsafe(link.ask(operation, *arguments), engine_loop())
    try:
        return asked.result(ANSWER_S)
    except (JournalError, TimeoutError) as error:
        raise LeaseError(f"The driver does not answer: {error or 'time-out'}") from None


@dataclass(eq=False)
class DriverPaceLease:
    """The limits of one server, key and model, as the driver knows them."""

    link: Link
    name: str
    member: str
    _last: Sequence[Peer] = ()
    _asked: int = 0
    _asked_at: float = 0.0

    def exchange(self, report: PaceReport) -> Sequence[Peer]:
        """Say what this process does, and return what the others do.

        Raises:
            LeaseError: the driver does not answer.
        """
        is_soon = CLOCK.now() - self._asked_at < self._period_s
        if self.link.is_idle or is_soon:  # if idle, the run may be over
            return self._last
        self._asked += 1
        self._asked_at = CLOCK.now()
        try:
            self._last = ask_driver(self.link, "pace", self.name, self.member, report, CLOCK.now())
        except LeaseError:
            if not self.link.is_idle:  # else the run has ended meanwhile
                raise
        return self._last

    @property
    def _period_s(self) -> float:
        """The seconds between two exchanges: more of them if many share the driver."""
        if self._asked < JOINING_EXCHANGES:
            return 0.0
        return PERIOD_S * max(1.0, len(self._last) / FEW_PEERS)

    def leave(self, report: PaceReport) -> None:
        """End the share of this process.

        Raises:
            LeaseError: the driver does not answer.
        """
        if self.link.is_idle:
            return
        try:
            ask_driver(self.link, "leave_pace", self.name, self.member, report, CLOCK.now())
        except LeaseError:
            if not self.link.is_idle:
                raise


@dataclass(eq=False)
class DriverBudgetLease:
    """A part's share of the budget, as the driver counts it."""

    link: Link
    name: str
    limits: Amounts
    member: str = field(default_factory=secrets.token_hex)

    def exchange(self, spent: Amounts, wishes: Sequence[Amounts], *, is_short: bool) -> Allowance:
        """Say what was spent, and be allowed more.

        Raises:
            LeaseError: the driver does not answer.
        """
        allowance: Allowance = ask_driver(
            self.link, "budget", self.name, self.member, self.limits, spent, wishes, is_short
        )
        return allowance

    def leave(self, spent: Amounts) -> None:
        """End the share: what is not spent is free for others.

        Raises:
            LeaseError: the driver does not answer.
        """
        ask_driver(self.link, "leave_budget", self.member, spent)


@dataclass(eq=False)
class DriverLeases:
    """The leases that a driver serves, in this process: one member for all its parts."""

    link: Link
    member: str = field(default_factory=secrets.token_hex)
    _paces: dict[str, DriverPaceLease] = field(default_factory=dict)

    def pace(self, server: str, key: str, model: str) -> DriverPaceLease:
        """Return the lease of a server, a key and a model. The key stays in this process."""
        name = name_limits(server, key, model)
        return self._paces.setdefault(name, DriverPaceLease(self.link, name, self.member))

    def budget(self, name: str, limits: Amounts) -> DriverBudgetLease:
        """Return a part's lease of the run's budget."""
        return DriverBudgetLease(self.link, name, limits)
