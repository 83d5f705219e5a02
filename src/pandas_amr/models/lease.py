"""The port of leases: what processes share on one server, key and model, or of one budget.

A lease is exchanged in the background: each process says what it does, and is given what the others
do. No request waits for that. What stands behind it may be a file, or a driver of a cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pandas_amr._records.forks import forkable_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Value = TypeVar("Value")
THREAD = "pandas-amr-lease"
ROUNDED = 1 + 1e-9  # so much of a limit a sum may be, since money is summed in several orders


class LeaseError(Exception):
    """A lease cannot be exchanged; the text is one for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceReport:
    """What one process says of its requests to a server, with one key, to one model.

    Times are those of the machine's monotonic clock. Rates are per second, and those of all
    processes together.

    Attributes:
        joined_at: when it began to share.
        pending: its requests in flight, and those that wait.
        is_held: whether a rate holds requests back.
        answered: requests answered since it joined.
        refused: requests answered 429 since it joined.
        requests_per_s: requests that it sends per second, lately.
        tokens_per_s: likewise the tokens.
        max_parallelism: the limit that its user gave; None if there is none.
        rpm: likewise the requests per minute.
        tpm: likewise the tokens per minute.
        request_rate: the rate of requests that headers report; None if they do not.
        token_rate: likewise the rate of tokens.
        guessed_rate: the rate of requests that was guessed from 429s; None if none was.
        slowed_at: when the last 429 came that slowed all down; 0 if none came.
        slowed_began: when the request was sent that it answered.
        paused_until: until when the server asks to wait.
        gone_since: since when the server cannot be reached; None if it can.
    """

    joined_at: float = 0.0
    pending: int = 0
    is_held: bool = False
    answered: int = 0
    refused: int = 0
    requests_per_s: float = 0.0
    tokens_per_s: float = 0.0
    max_parallelism: int | None = None
    rpm: float | None = None
    tpm: float | None = None
    request_rate: float | None = None
    token_rate: float | None = None
    guessed_rate: float | None = None
    slowed_at: float = 0.0
    slowed_began: float = 0.0
    paused_until: float = 0.0
    gone_since: float | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """Another process that shares a lease.

    Attributes:
        name: tells it apart from others.
        lives: whether it shares the limits still; if not, a pause that it was asked for may hold.
        report: what it last said.
    """

    name: str
    lives: bool
    report: PaceReport


class PaceLease(Protocol):
    """The limits of one server, key and model, shared by processes. Its methods may block."""

    def exchange(self, report: PaceReport) -> Sequence[Peer]:
        """Say what this process does, and return what the others do.

        Raises:
            LeaseError: that is not possible, and will not be.
        """
        ...

    def leave(self, report: PaceReport) -> None:
        """End the share of this process. ``exchange`` begins it again.

        Raises:
            LeaseError: that is not possible.
        """
        ...


@dataclass(frozen=True, slots=True)
class Amounts:
    """Amounts of a budget: each is a sum over requests.

    Attributes:
        calls: answered requests.
        tokens: input and output tokens.
        money: in the currency of the prices.
    """

    calls: float = 0.0
    tokens: float = 0.0
    money: float = 0.0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.calls + other.calls, self.tokens + other.tokens, self.money + other.money
        )

    def fits_into(self, limits: Amounts) -> bool:
        """Tell whether no amount is above its limit, but for what rounding makes of sums."""
        return not (
            exceeds(self.calls, limits.calls)
            or exceeds(self.tokens, limits.tokens)
            or exceeds(self.money, limits.money)
        )


def exceeds(amount: float, limit: float) -> bool:
    """Tell whether a sum is above its limit, by more than rounding makes of sums."""
    return amount > limit * ROUNDED


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one run may spend of a shared budget.

    Attributes:
        most: what it may have spent and reserved in all.
        spent: what all runs have spent, as far as they said.
    """

    most: Amounts
    spent: Amounts


class BudgetLease(Protocol):
    """One run's part of a budget that several share. Its methods may block."""

    def exchange(self, spent: Amounts, wishes: Sequence[Amounts], *, is_short: bool) -> Allowance:
        """Say what was spent, and be allowed more.

        Args:
            spent: what this run has spent.
            wishes: what it would like to have spent and reserved in all, from what it has now to
                the most. The largest one that fits into the budget is granted.
            is_short: whether a request waits for it. Then no other run is granted more than it
                needs.

        Raises:
            LeaseError: the budget cannot be counted.
        """
        ...

    def leave(self, spent: Amounts) -> None:
        """End this run's part: what it has not spent is free for others.

        Raises:
            LeaseError: the budget cannot be counted.
        """
        ...


class Leases(Protocol):
    """Where leases come from. Nothing is opened before their first exchange."""

    def pace(self, server: str, key: str, model: str) -> PaceLease:
        """Return the lease of a server, a key and a model."""
        ...

    def budget(self, name: str, limits: Amounts) -> BudgetLease:
        """Return one run's lease of the budget of a name; ``limits`` are infinite if not set."""
        ...


# The thread that exchanges leases

_lock = forkable_lock()
_queues: dict[int, queue.SimpleQueue[_Work]] = {}  # by process


@dataclass(slots=True, eq=False)
class _Work:
    """A call, and the future of its result."""

    function: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    result: asyncio.Future[Any]

    def carry_out(self) -> None:
        value, error = None, None
        try:
            value = self.function()
        except BaseException as raised:  # noqa: BLE001 (raised again where it is awaited)
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(self._settle, value, error)

    def _settle(self, value: object, error: BaseException | None) -> None:
        if self.result.done():  # nobody waits any more
            return
        if error is None:
            self.result.set_result(value)
        else:
            self.result.set_exception(error)


def in_lease_thread(function: Callable[..., Value], /, *args: Any) -> asyncio.Future[Value]:
    """Call a function in the thread of this process that exchanges leases.

    It is a daemon: a disk that hangs does not keep the process from its end.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Value] = loop.create_future()
    _queue().put(_Work(functools.partial(function, *args), loop, result))
    return result


def _queue() -> queue.SimpleQueue[_Work]:
    """Give the queue of the thread; start the thread at the first call of a process."""
    with _lock:
        works = _queues.get(os.getpid())
        if works is None:
            works = queue.SimpleQueue()
            thread = threading.Thread(target=_work_off, args=(works,), name=THREAD, daemon=True)
            thread.start()  # may fail: a queue that no thread works off is not kept
            _queues[os.getpid()] = works
        return works


def _work_off(works: queue.SimpleQueue[_Work]) -> None:
    while True:
        works.get().carry_out()
