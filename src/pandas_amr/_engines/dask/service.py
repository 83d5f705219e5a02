"""The driver's side: it answers the parts of a run from its journal, and serves the leases."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from distributed.comm import CommClosedError, listen
from distributed.comm.addressing import get_local_address_for

from pandas_amr._engines.dask.link import RunEnded
from pandas_amr._engines.dask.messages import SILENT_S, Begun, Claimed
from pandas_amr._engines.dask.times import shift
from pandas_amr._records.clock import CLOCK
from pandas_amr.errors import JournalError
from pandas_amr.models.lease import LeaseError, in_lease_thread

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pandas_amr._engines.dask.messages import FailedPart, Halt, PartOutcome, Report
    from pandas_amr._journal.claims import Claim
    from pandas_amr._journal.journal import Journal
    from pandas_amr._journal.leases import FileBudgetLease, FilePaceLease, LeaseFolder
    from pandas_amr._journal.outcomes import RememberedFailure
    from pandas_amr._records.usage import Ledger, Usage
    from pandas_amr.models.lease import Allowance, Amounts, PaceReport, Peer

WAIT_S = 2.0  # for answers that others are asking for, before the worker hears from the driver
WRITER = 0  # of the journal: reports are written for all parts alike


class PartListener(Protocol):
    """Is told how far parts are."""

    def part_began(self, number: int) -> None:
        """Note that a worker has begun a part."""
        ...

    def note_part_report(self, number: int, report: Report) -> None:
        """Note how far it is."""
        ...


@dataclass
class PartState:
    """What the driver knows of a part.

    Attributes:
        attempt: the worker's attempt that holds it; empty if none has begun.
        heard_at: when that was last heard of.
        claims: the keys that it may ask about.
        outcome: done once what came of it is there.
        usage: what the attempt has spent so far.
    """

    outcome: asyncio.Future[PartOutcome | FailedPart]
    attempt: str = ""
    heard_at: float = 0.0
    claims: list[Claim] = field(default_factory=list)
    usage: Mapping[Any, Usage] = field(default_factory=dict)

    @property
    def is_alive(self) -> bool:
        """Whether a worker is at it, as far as is known."""
        return bool(self.attempt) and CLOCK.now() - self.heard_at < SILENT_S


class Service:
    """Answers the workers of one run.

    Args:
        run: the run's name.
        journal: where answers are kept; None if nothing is.
        run_number: the run's number in it.
        limits: where the limits of servers are shared.
        budgets: where the run's budget is.
        ledger: takes what the workers spend.
        listener: is told how far parts are.

    Attributes:
        halt: whether parts are to go on.
        ends_at: when the budget's seconds are over; None if they are not bounded.
        is_proven: whether a unit has succeeded.
    """

    def __init__(
        self,
        run: str,
        journal: Journal | None,
        run_number: int,
        *,
        limits: LeaseFolder,
        budgets: LeaseFolder,
        ledger: Ledger,
        listener: PartListener,
    ) -> None:
        self.run = run
        self.halt: Halt = ""
        self.ends_at: float | None = None
        self.is_proven = False
        self.parts: dict[int, PartState] = {}
        self._journal = journal
        self._run_number = run_number
        self._limits = limits
        self._budgets = budgets
        self._ledger = ledger
        self._listener = listener
        self._paces: dict[tuple[str, str], FilePaceLease] = {}
        self._paced: dict[tuple[str, str], PaceReport] = {}
        self._budget_leases: dict[str, FileBudgetLease] = {}
        self._comms: set[Any] = set()
        self._server: Any = None
        self.error: JournalError | None = None

    # The server

    async def start(self, scheduler: str, options: Mapping[str, Any]) -> str:
        """Listen on the network on which the scheduler is; return the address.

        Args:
            scheduler: the scheduler's address.
            options: the certificates, as ``listen`` of distributed takes them.
        """
        self._server = listen(get_local_address_for(scheduler), self._serve, **options)
        await self._server.start()
        return str(self._server.contact_address)

    async def close(self) -> None:
        """Stop listening, and let go of the claims of parts."""
        if self._server is not None:
            self._server.stop()
        for comm in list(self._comms):
            comm.abort()
        for number in self.parts:
            self._end_claims(number)
        with contextlib.suppress(LeaseError):
            await in_lease_thread(self._close_leases)

    def _close_leases(self) -> None:
        """Let go of what workers share that are gone, or soon will be."""
        for lease in self._budget_leases.values():  # of workers that were killed
            lease.close()
        for key, pace in self._paces.items():
            pace.leave(self._paced[key])

    async def _serve(self, comm: Any) -> None:
        """Answer one connection until it is closed."""
        self._comms.add(comm)
        try:
            while True:
                run, operation, arguments = pickle.loads(await comm.read())  # noqa: S301 (workers)
                answer = await self._answer(run, operation, arguments)
                await comm.write(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))
        except (CommClosedError, OSError):
            return
        finally:
            self._comms.discard(comm)
            comm.abort()

    async def _answer(self, run: str, operation: str, arguments: Sequence[Any]) -> Any:
        if run != self.run:
            return RunEnded("The run has ended.")
        try:
            return await OPERATIONS[operation](self, *arguments)
        except (JournalError, LeaseError) as error:
            if isinstance(error, JournalError):
                self.error = self.error or error
            return error

    # Parts

    def add_part(self, number: int) -> PartState:
        """Expect a part."""
        outcome: asyncio.Future[PartOutcome | FailedPart] = (
            asyncio.get_running_loop().create_future()
        )
        self.parts[number] = PartState(outcome)
        return self.parts[number]

    async def begin(self, number: int, attempt: str) -> Begun | None:
        """Begin a part; None if it is not wanted any more.

        A later attempt takes the place of an earlier one, whose worker is lost for the scheduler.
        """
        part = self.parts.get(number)
        if part is None or part.outcome.done() or self.halt:
            return None
        self._end_claims(number)
        part.attempt, part.heard_at, part.usage = attempt, CLOCK.now(), {}
        self._listener.part_began(number)
        left = None if self.ends_at is None else max(0.0, self.ends_at - CLOCK.now())
        return Begun(left, self.is_proven)

    async def report(self, number: int, attempt: str, report: Report) -> Halt:
        """Take what a part has found; return whether it is to go on.

        Findings of an attempt whose place another one has taken are kept, too: they are paid for.
        """
        part = self.parts[number]
        await self._keep(number, report)
        if part.attempt != attempt:
            return "drop"
        part.heard_at = CLOCK.now()
        self._count_usage(part, report.usage)
        if part.outcome.done():
            return "drop"
        self._listener.note_part_report(number, report)
        if report.outcome is not None:
            self._end_claims(number)
            part.outcome.set_result(report.outcome)
        return self.halt

    def _count_usage(self, part: PartState, usage: Mapping[Any, Usage]) -> None:
        """Add what was spent since the last report."""
        for key, total in usage.items():
            phase, model = key
            spent = total
            if key in part.usage:
                spent = total - part.usage[key]
            self._ledger.add(phase, model, spent)
        part.usage = dict(usage)

    async def _keep(self, number: int, report: Report) -> None:
        """Write what is found to the journal, and release its claims."""
        if self._journal is None or report.is_empty:
            return
        for note in report.bases:
            await self._journal.about(
                note.base, note.about, self._run_number, note.reading, note.origins
            )
        if report.entries:
            await self._journal.keep(report.entries, self._run_number, WRITER)
            keys = [entry.key for entry in report.entries]
            for claim in self.parts[number].claims:
                self._journal.release(claim, keys)
        if report.failures:
            await self._journal.remember_failures(report.failures, self._run_number)
        await self._journal.link(report.links, self._run_number)

    def _end_claims(self, number: int) -> None:
        part = self.parts[number]
        claims, part.claims = part.claims, []
        for claim in claims:
            assert self._journal is not None
            self._journal.end_claim(claim)

    # The journal

    async def claim(self, number: int, attempt: str, keys: Collection[bytes]) -> Claimed:
        """Let a part ask about keys that nobody asks about, and give what the journal has."""
        assert self._journal is not None
        part = self.parts[number]
        if part.attempt != attempt:  # its place is taken: the later attempt has the claims
            raise RunEnded("Another worker maps this part.")
        claims = self._journal.claims
        claim = await self._journal.claim([key for key in dict.fromkeys(keys) if key not in claims])
        part.claims.append(claim)
        found, repaired = await self.recall(list(keys))
        self._journal.release(claim, list(found))
        granted = frozenset(claim.keys)
        return Claimed(granted, found, frozenset(repaired))

    async def recall(
        self,
        keys: Sequence[bytes],
        is_lasting: bool = False,  # noqa: FBT001, FBT002 (from a message)
    ) -> tuple[Mapping[bytes, str], set[bytes]]:
        """Look answers up."""
        assert self._journal is not None
        found = await self._journal.recall(list(keys), self._run_number, is_lasting=is_lasting)
        repaired = await self._journal.find_repaired(list(found))
        return found, repaired

    async def wait(self, keys: Sequence[bytes]) -> list[bytes]:
        """Wait until some of the keys are free, but not for long; return those that are."""
        assert self._journal is not None
        claims = self._journal.claims
        waiting = {claims[key] for key in keys if key in claims}
        if len(waiting) == len(set(keys)):
            await asyncio.wait(waiting, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        return [key for key in keys if key not in self._journal.claims]

    async def has_base(self, base: bytes) -> bool:
        assert self._journal is not None
        return await self._journal.has_base(base)

    async def recall_failures(
        self, keys: Sequence[bytes], seconds: float
    ) -> Mapping[bytes, RememberedFailure]:
        assert self._journal is not None
        return await self._journal.recall_failures(keys, seconds)

    # Leases

    async def exchange_pace(
        self, name: str, member: str, report: PaceReport, now: float
    ) -> list[Peer]:
        """Exchange the lease of a worker's limits; times are those of its clock."""
        ahead = CLOCK.now() - now
        lease = self._paces.get((name, member))
        if lease is None:
            lease = self._paces[name, member] = self._limits.pace_of_member(name, member)
        self._paced[name, member] = own = shift(report, ahead)
        peers = await in_lease_thread(lease.exchange, own)
        return [replace(peer, report=shift(peer.report, -ahead)) for peer in peers]

    async def leave_pace(self, name: str, member: str, report: PaceReport, now: float) -> None:
        lease = self._paces.pop((name, member), None)
        if lease is not None:
            await in_lease_thread(lease.leave, shift(report, CLOCK.now() - now))

    async def exchange_budget(
        self,
        name: str,
        member: str,
        limits: Amounts,
        spent: Amounts,
        wishes: Sequence[Amounts],
        is_short: bool,  # noqa: FBT001 (from a message)
    ) -> Allowance:
        lease = self._budget_leases.get(member)
        if lease is None:
            lease = self._budget_leases[member] = self._budgets.budget(name, limits)
        return await in_lease_thread(_exchange, lease, spent, wishes, is_short)

    async def leave_budget(self, member: str, spent: Amounts) -> None:
        lease = self._budget_leases.pop(member, None)
        if lease is not None:
            await in_lease_thread(lease.leave, spent)


# What workers may ask, by its name in their messages.
OPERATIONS: dict[str, Any] = {
    "begin": Service.begin,
    "report": Service.report,
    "claim": Service.claim,
    "recall": Service.recall,
    "wait": Service.wait,
    "has_base": Service.has_base,
    "recall_failures": Service.recall_failures,
    "pace": Service.exchange_pace,
    "leave_pace": Service.leave_pace,
    "budget": Service.exchange_budget,
    "leave_budget": Service.leave_budget,
}


def _exchange(
    lease: FileBudgetLease,
    spent: Amounts,
    wishes: Sequence[Amounts],
    is_short: bool,  # noqa: FBT001 (called in a thread)
) -> Allowance:
    return lease.exchange(spent, wishes, is_short=is_short)
