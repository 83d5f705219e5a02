"""Leases in a folder: a file per server, key and model, and one per shared budget.

The folder is in the user's cache folder, whatever journal is used: processes with journals of their
own have one key, too. The name of a file is a digest, from which no key can be recovered.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandas_amr._journal.journal import OFF, OFF_WORDS, ON_WORDS
from pandas_amr._journal.lease_file import LeaseBusy, LeaseFile, remove_lease
from pandas_amr._journal.local_disk import network_type
from pandas_amr._records.clock import CLOCK
from pandas_amr._records.paths import absolute_path, cache_folder
from pandas_amr._records.processes import ProcessId, this_process
from pandas_amr.errors import UsageError
from pandas_amr.models.lease import Allowance, Amounts, LeaseError, PaceReport, Peer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

FOLDER = "leases"
FORMAT = 1
DIGEST_ROUNDS = 2_000  # so that trying keys takes longer
DIGEST_CHARACTERS = 32
STALE_S = (
    5.0  # without a sign of life: a process that is stopped, or on the other side of a container
)
BUDGET_STALE_S = 30.0
BUSY_TRIES = 15  # of a budget; limits can be exchanged a little later
MOST_FILES = 500
LIMITS_KEPT_S = 3600.0
BUDGETS_KEPT_S = 30 * 86_400.0
REPORT_FIELDS = frozenset(entry.name for entry in fields(PaceReport))

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class _Member:
    """A row of a lease's file: one process, or one run with a budget."""

    name: str
    process: ProcessId
    beat: float
    has_left: bool
    state: dict[str, Any]

    def shares_clock(self, now: float) -> bool:
        """Tell whether its times are of this clock, which begins anew with the machine."""
        return self.beat <= now + STALE_S and not self.process.is_of_earlier_boot

    def lives(self, now: float, stale_s: float) -> bool:
        """Tell whether it is still there, and gives signs of life."""
        if self.has_left or abs(now - self.beat) > stale_s:
            return False
        return not self.process.has_ended()


def _read_members(own_name: str, database: sqlite3.Connection) -> list[_Member]:
    """Read all members but one."""
    members: list[_Member] = []
    for name, space, pid, started, beat, has_left, state in database.execute(
        "SELECT name, space, pid, started, beat, has_left, state FROM members WHERE name <> ?",
        (own_name,),
    ):
        process = ProcessId(space, pid, started)
        members.append(_Member(name, process, beat, bool(has_left), json.loads(state)))
    return members


def _write_member(member: _Member, database: sqlite3.Connection) -> None:
    process = member.process
    database.execute(
        "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            member.name,
            process.space,
            process.pid,
            process.started,
            member.beat,
            member.has_left,
            json.dumps(member.state),
        ),
    )


def _delete_members(names: Sequence[str], database: sqlite3.Connection) -> None:
    database.executemany("DELETE FROM members WHERE name = ?", [(name,) for name in names])


def _sort_members(members: Sequence[_Member], now: float) -> tuple[list[Peer], list[str]]:
    """Give the processes that others have to do with, and the names of those that have ended."""
    peers: list[Peer] = []
    ended: list[str] = []
    for member in members:
        known = {name: value for name, value in member.state.items() if name in REPORT_FIELDS}
        peer = Peer(member.name, member.lives(now, STALE_S), PaceReport(**known))
        is_paused = peer.report.paused_until > now and member.shares_clock(now)
        if peer.lives or is_paused:
            peers.append(peer)
        else:
            ended.append(member.name)
    return peers, ended


def _state_of(report: PaceReport) -> dict[str, Any]:
    """Return a report as JSON; ``dataclasses.asdict`` would copy each number deeply."""
    return {name: getattr(report, name) for name in REPORT_FIELDS}


def _own_name() -> str:
    process = this_process()
    return f"{process.space}/{process.pid}/{process.started}"


@dataclass(eq=False)
class FilePaceLease:
    """The limits of one server, key and model, in a file.

    Attributes:
        folder: where the file is.
        secret: what its name is a digest of.
        name: its name, if that is all that is known.
        member: tells who shares them through this process apart; empty for the process itself.
    """

    folder: LeaseFolder
    secret: tuple[str, ...] = field(repr=False)
    name: str = ""
    member: str = ""
    _file: LeaseFile | None = None
    _last: Sequence[Peer] = ()

    def exchange(self, report: PaceReport) -> Sequence[Peer]:
        """Write what this process does, and return what the others do.

        Raises:
            LeaseError: the file cannot be used.
        """
        now = CLOCK.now()
        own = _Member(self._own, this_process(), now, has_left=False, state=_state_of(report))
        file = self._open()
        try:
            file.write(functools.partial(_write_member, own))
            members = file.read(functools.partial(_read_members, own.name))
            self._last, ended = _sort_members(members, now)
            if ended:
                file.write(functools.partial(_delete_members, ended))
        except LeaseBusy:  # what was known still holds
            return self._last
        return self._last

    def leave(self, report: PaceReport) -> None:
        """Take this process out, and close the file.

        Raises:
            LeaseError: the file cannot be used.
        """
        # If the file is busy: this process gives no signs of life, and counts as gone.
        _write_last(self._open(), functools.partial(self._leave, report))

    @property
    def _own(self) -> str:
        return f"{_own_name()}/{self.member}" if self.member else _own_name()

    def _open(self) -> LeaseFile:
        if self._file is None:
            name = self.name or _digest(*self.secret)
            path = self.folder.prepare() / f"limits-{name}-{FORMAT}.sqlite"
            self._file = LeaseFile(path, is_kept=False)
        return self._file

    def _leave(self, report: PaceReport, database: sqlite3.Connection) -> None:
        """Leave nothing but a pause that the server asked for."""
        now = CLOCK.now()
        if report.paused_until > now:
            own = _Member(self._own, this_process(), now, has_left=True, state=_state_of(report))
            _write_member(own, database)
        else:
            _delete_members([self._own], database)


@dataclass(eq=False)
class FileBudgetLease:
    """One run's part of a shared budget, in a file."""

    folder: LeaseFolder
    name: str
    limits: Amounts
    _number: int = field(default_factory=_numbers.__next__)
    _file: LeaseFile | None = None

    def exchange(self, spent: Amounts, wishes: Sequence[Amounts], *, is_short: bool) -> Allowance:
        """Write what was spent, and what this run may spend from now on.

        What others are allowed to spend counts as spent, so that all together stay within the
        budget. That holds for a process that was killed, too: nobody knows what it has spent last.

        Raises:
            LeaseError: the file cannot be used.
        """
        work = functools.partial(self._exchange, spent, wishes, is_short)
        for _ in range(BUSY_TRIES):
            try:
                return self._open().write(work)
            except LeaseBusy:
                continue
        raise LeaseError("Other processes write its file all the time.")

    def leave(self, spent: Amounts) -> None:
        """Add what was spent to the sum of the runs that have ended.

        Raises:
            LeaseError: the file cannot be used.
        """
        # If the file is busy: all that the run was allowed counts as spent.
        _write_last(self._open(), functools.partial(self._leave, spent))

    def close(self) -> None:
        """Close the file; what the run was allowed counts as spent."""
        if self._file is not None:
            self._file.close()

    @property
    def _member_name(self) -> str:
        return f"{_own_name()}/{self._number}"

    def _open(self) -> LeaseFile:
        if self._file is None:
            path = self.folder.prepare() / f"budget-{_digest(self.name)}-{FORMAT}.sqlite"
            self._file = LeaseFile(path, is_kept=True)
        return self._file

    def _exchange(
        self,
        spent: Amounts,
        wishes: Sequence[Amounts],
        is_short: bool,  # noqa: FBT001
        database: sqlite3.Connection,
    ) -> Allowance:
        now = CLOCK.now()
        ended = _sum_of_ended(database)
        taken, spent_in_all, others_are_short = ended, ended + spent, False
        for member in _read_members(self._member_name, database):
            most = Amounts(*member.state["most"])
            lives = member.lives(now, BUDGET_STALE_S)
            taken += most
            spent_in_all += Amounts(*member.state["spent"]) if lives else most
            others_are_short = others_are_short or (lives and member.state["is_short"])
        most = _largest_that_fits(wishes, taken, self.limits, is_frugal=others_are_short)
        state = {"spent": _as_list(spent), "most": _as_list(most), "is_short": is_short}
        own = _Member(self._member_name, this_process(), now, has_left=False, state=state)
        _write_member(own, database)
        return Allowance(most, spent_in_all)

    def _leave(self, spent: Amounts, database: sqlite3.Connection) -> None:
        ended = _sum_of_ended(database) + spent
        database.execute("DELETE FROM spent")
        database.execute("INSERT INTO spent VALUES (?, ?, ?)", _as_list(ended))
        _delete_members([self._member_name], database)


def _write_last(file: LeaseFile, work: Callable[[sqlite3.Connection], None]) -> None:
    """Write what stays of a member that leaves, if the file is not busy, and close it."""
    try:
        with contextlib.suppress(LeaseBusy):
            file.write(work)
    finally:
        file.close()


def _largest_that_fits(
    wishes: Sequence[Amounts], taken: Amounts, limits: Amounts, *, is_frugal: bool
) -> Amounts:
    """Choose the largest wish that fits beside what others may spend; the first one is had already.

    The last one is more than is needed now; ``is_frugal`` leaves it to others.
    """
    wanted = wishes[:-1] if is_frugal else wishes
    for wish in reversed(wanted):
        if (taken + wish).fits_into(limits):
            return wish
    return wishes[0]


def _sum_of_ended(database: sqlite3.Connection) -> Amounts:
    row = database.execute("SELECT calls, tokens, money FROM spent").fetchone()
    return Amounts(*row) if row is not None else Amounts()


def _as_list(amounts: Amounts) -> list[float]:
    return [amounts.calls, amounts.tokens, amounts.money]


def name_limits(server: str, key: str, model: str) -> str:
    """Name the limits of a server, a key and a model; the key cannot be recovered from it."""
    return _digest(*_secret_of(server, key, model))


def _secret_of(server: str, key: str, model: str) -> tuple[str, ...]:
    return server, hashlib.sha256(key.encode()).hexdigest(), model


def _digest(*parts: str) -> str:
    """Name a file by texts that cannot be recovered from it."""
    text = json.dumps(parts).encode()
    digest = hashlib.pbkdf2_hmac("sha256", text, b"pandas-amr lease", DIGEST_ROUNDS)
    return digest.hex()[:DIGEST_CHARACTERS]


# The folder


@dataclass(eq=False)
class LeaseFolder:
    """The leases of one folder, in this process.

    Attributes:
        path: the folder; it is created when a lease is first used.
    """

    path: Path
    _is_ready: bool = False
    _paces: dict[tuple[str, ...], FilePaceLease] = field(default_factory=dict)

    def pace(self, server: str, key: str, model: str) -> FilePaceLease:
        """Return the lease of a server, a key and a model."""
        secret = _secret_of(server, key, model)
        return self._paces.setdefault(secret, FilePaceLease(self, secret))

    def pace_of_member(self, name: str, member: str) -> FilePaceLease:
        """Return the lease of somebody who shares limits through this process.

        Args:
            name: the name of the limits, as ``name_limits`` gives it.
            member: tells who it is.
        """
        return FilePaceLease(self, (), name, member)

    def budget(self, name: str, limits: Amounts) -> FileBudgetLease:
        """Return one run's lease of the budget of a name."""
        return FileBudgetLease(self, name, limits)

    def prepare(self) -> Path:
        """Create the folder if it is missing, and remove old files from it.

        Raises:
            LeaseError: it cannot be used.
        """
        if self._is_ready and self.path.is_dir():
            return self.path
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            kind = network_type(self.path)
            if not kind:
                _remove_old(self.path)
        except OSError as error:
            raise LeaseError(
                f"{self.path} cannot be written ({error.strerror}). "
                "Choices: AMR_LEASE=/a/local/folder, or AMR_LEASE=off."
            ) from None
        if kind:
            raise LeaseError(_network_sentence(self.path, kind))
        self._is_ready = True
        return self.path


def _network_sentence(folder: Path, kind: str) -> str:
    return (
        f"{folder} is on a network file system ({kind}), where the locks of SQLite do not hold. "
        "Choices: AMR_LEASE=/a/local/folder, or AMR_LEASE=off."
    )


def _remove_old(folder: Path) -> None:
    """Remove files that were not used for a while, and the oldest of too many."""
    now = time.time()
    used: list[tuple[float, Path]] = []
    for path in folder.glob("*.sqlite"):
        try:
            used.append((_used_at(path), path))
        except FileNotFoundError:  # another process is first
            continue
    used.sort()
    surplus = len(used) - MOST_FILES
    for place, (at, path) in enumerate(used):
        is_budget = path.name.startswith("budget-")
        is_old = now - at > (BUDGETS_KEPT_S if is_budget else LIMITS_KEPT_S)
        is_too_much = place < surplus and not is_budget and now - at > STALE_S
        if is_old or is_too_much:
            remove_lease(path)


def _used_at(path: Path) -> float:
    """Give the time when a lease was last written: what is new is in its log first."""
    times = [path.stat().st_mtime]
    with contextlib.suppress(FileNotFoundError):
        times.append(path.with_name(f"{path.name}-wal").stat().st_mtime)
    return max(times)


_folders: dict[Path, LeaseFolder] = {}


def open_leases(given: object) -> LeaseFolder | None:
    """Return the leases that the setting ``lease`` means.

    Args:
        given: a folder; False for none; True or None for the one that the environment names in
            ``AMR_LEASE``, else the one in the user's cache folder.

    Raises:
        UsageError: it is none of these, or on a network file system.
    """
    if given is False:
        return None
    if isinstance(given, str | Path):
        return _open_named_folder(absolute_path(given))
    named = os.environ.get("AMR_LEASE", "")
    if named.lower() in OFF:
        return None
    if named.strip().casefold() in OFF_WORDS | ON_WORDS:
        raise UsageError(
            f"AMR_LEASE={named} would be a folder of that name. It takes a folder, or 'off' to "
            f"share nothing. For the folder: ./{named}."
        )
    if named:
        return _open_named_folder(_lease_path(named))
    try:
        folder = cache_folder() / FOLDER
    except OSError:  # no home, and nobody asked for one
        return None
    return _folders.setdefault(folder, LeaseFolder(folder))


def _open_named_folder(path: Path) -> LeaseFolder:
    kind = network_type(path)
    if kind:
        raise UsageError(_network_sentence(path, kind))
    return _folders.setdefault(path, LeaseFolder(path))


@functools.cache
def _lease_path(named: str) -> Path:
    """Return the folder that a path in the environment named at its first use."""
    return absolute_path(named)
