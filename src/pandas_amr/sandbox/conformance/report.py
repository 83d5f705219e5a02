"""Try all attempts on a sandbox, and report what does not hold.

The command is ``python -m pandas_amr.sandbox.conformance [tier] [--controls] [--per-kind N]``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pandas_amr.sandbox.base import Isolation
from pandas_amr.sandbox.conformance.attempts import attempts, every_attempt
from pandas_amr.sandbox.conformance.kit import LIMITS, LINGER_S, SHARD, AttackKit

if TYPE_CHECKING:
    from pandas_amr.sandbox.base import Sandbox
    from pandas_amr.sandbox.conformance.attempt import SandboxAttempt
    from pandas_amr.sandbox.conformance.memory import Levels

END_S = 2.0  # for processes of a session to end after it
END_CHECKS = 40
MAX_CONCURRENT = 8


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of all attempts.

    Attributes:
        problems: what went wrong, by ``kind/name``.
        levels: the memory before, during and after each flood, by ``kind/name``; empty if it is not
            known.
    """

    problems: dict[str, str]
    levels: dict[str, Levels]


async def report(sandbox: Sandbox, kit: AttackKit) -> dict[str, str]:
    """Try all attempts; return what went wrong, by ``kind/name``."""
    return (await full_report(sandbox, kit)).problems


async def full_report(
    sandbox: Sandbox, kit: AttackKit, chosen: list[SandboxAttempt] | None = None
) -> Report:
    """Try all attempts, or those that were chosen.

    Those that attack memory run alone, so that their memory is measured.
    """
    result = Report({}, {})
    before = await _count_processes(sandbox)
    concurrent: list[SandboxAttempt] = []
    alone: list[SandboxAttempt] = []
    for attempt in attempts() if chosen is None else chosen:
        if attempt.strong_only and sandbox.tier == "strict-lite":
            continue
        if attempt.runs_alone:
            alone.append(attempt)
        else:
            concurrent.append(attempt)
    semaphore = asyncio.Semaphore(MAX_CONCURRENT)
    await asyncio.gather(
        *(_record(attempt, sandbox, kit, semaphore, result) for attempt in concurrent)
    )
    for attempt in alone:
        await _record(attempt, sandbox, kit, semaphore, result)
    remaining = await _wait_for_processes(before)
    if remaining > 0:
        result.problems["processes/left-behind"] = (
            f"{remaining} processes are left after the last session's end"
        )
    return result


async def _record(
    attempt: SandboxAttempt,
    sandbox: Sandbox,
    kit: AttackKit,
    semaphore: asyncio.Semaphore,
    result: Report,
) -> None:
    """Try one attempt, and add its outcome to the report."""
    async with semaphore:
        outcome = await kit.try_attempt(attempt, sandbox)
    if outcome.problem is not None:
        result.problems[attempt.full_name] = outcome.problem
    if outcome.levels is not None and (attempt.measures_memory or attempt.goal == "flood"):
        result.levels[attempt.full_name] = outcome.levels


async def _wait_for_processes(expected: int) -> int:
    """Wait until no more than ``expected`` processes are left; return how many more there are."""
    for _ in range(END_CHECKS):
        remaining = len(_descendants(os.getpid())) - expected
        if remaining <= 0:
            return 0
        await asyncio.sleep(END_S / END_CHECKS)
    return remaining


async def _count_processes(sandbox: Sandbox) -> int:
    """Count the processes that the sandbox has when no session is open."""
    session = await sandbox.open(SHARD, LIMITS)
    await session.run("1")
    await session.close()
    await asyncio.sleep(LINGER_S)
    return len(_descendants(os.getpid()))


def _descendants(pid: int) -> set[int]:
    """Return the children of a process, and theirs; nothing if there is no /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            parent = stat.rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(entry.name))
    descendants: set[int] = set()
    remaining = [pid]
    while remaining:
        started = children.get(remaining.pop(), [])
        descendants.update(started)
        remaining += started
    return descendants


def sample(listed: list[SandboxAttempt], per_kind: int) -> list[SandboxAttempt]:
    """Choose at most so many attempts per kind, at equal distances in the list."""
    by_kind: dict[str, list[SandboxAttempt]] = {}
    for attempt in listed:
        by_kind.setdefault(attempt.kind, []).append(attempt)
    chosen: list[SandboxAttempt] = []
    for of_kind in by_kind.values():
        count = min(per_kind, len(of_kind))
        chosen += [of_kind[number * len(of_kind) // count] for number in range(count)]
    return chosen


def inapplicable(tier: str) -> dict[str, str]:
    """Return the attempts that show nothing here, by ``kind/name``, with the reason."""
    reasons: dict[str, str] = {}
    possible = {attempt.full_name for attempt in attempts()}
    for attempt in every_attempt():
        name = attempt.full_name
        if name not in possible:
            reasons[name] = "its system calls are those of another processor"
        elif attempt.needs_root and os.getuid() != 0:
            reasons[name] = "it works for root only"
        elif attempt.strong_only and tier == "strict-lite":
            reasons[name] = "this tier does not promise to hold against it"
    return reasons


def _run_controls(kit: AttackKit, chosen: list[SandboxAttempt]) -> dict[str, str]:
    """Run attempts without a sandbox; return why some do not work, by ``kind/name``.

    Those that only hang share nothing, and run concurrently.
    """
    hanging: list[SandboxAttempt] = []
    others: list[SandboxAttempt] = []
    for attempt in chosen:
        if attempt.needs_root and os.getuid() != 0:
            continue
        if attempt.goal == "hang":
            hanging.append(attempt)
        else:
            others.append(attempt)
    reasons = [kit.control(attempt) for attempt in others]
    with ThreadPoolExecutor(MAX_CONCURRENT) as pool:
        reasons += pool.map(kit.control, hanging)
    failures: dict[str, str] = {}
    for attempt, reason in zip([*others, *hanging], reasons, strict=True):
        if reason is not None:
            failures[attempt.full_name] = reason
    return failures


def main() -> int:
    """Run the command. Print one line per problem; return 1 if there is one."""
    parser = argparse.ArgumentParser(prog="pandas_amr.sandbox.conformance")
    parser.add_argument("tier", nargs="?", default="auto", choices=get_args(Isolation))
    parser.add_argument(
        "--controls", action="store_true", help="also show that each attempt works unconfined"
    )
    parser.add_argument(
        "--per-kind", type=_positive, metavar="N", help="try at most N attempts of each kind"
    )
    arguments = parser.parse_args()
    listed = every_attempt()
    if arguments.per_kind is not None:
        listed = sample(attempts(), arguments.per_kind)
    possible = {attempt.full_name for attempt in attempts()}
    chosen = [attempt for attempt in listed if attempt.full_name in possible]
    with AttackKit() as kit:
        failures = _run_controls(kit, chosen) if arguments.controls else None
        result, tier = asyncio.run(_report_local(arguments.tier, kit, chosen))
    print("\n".join(_lines(tier, result, failures, listed)))  # noqa: T201 (a command's output)
    return 1 if result.problems or failures else 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


async def _report_local(
    isolation: Isolation, kit: AttackKit, chosen: list[SandboxAttempt]
) -> tuple[Report, str]:
    """Try attempts on this machine's sandbox; return the report, and the tier in force."""
    # Only the command needs this back end.
    from pandas_amr.sandbox.host.local import LocalSandbox  # noqa: PLC0415

    sandbox = LocalSandbox(isolation)
    try:
        return await full_report(sandbox, kit, chosen), sandbox.tier
    finally:
        await sandbox.close()


def _lines(
    tier: str,
    result: Report,
    failures: dict[str, str] | None,
    listed: list[SandboxAttempt] | None = None,
) -> list[str]:
    """Return the command's output.

    Args:
        tier: the tier in force.
        result: of the attempts.
        failures: controls that failed; None if no controls were run.
        listed: the attempts that the report is about; all, if none are given.
    """
    names = {attempt.full_name for attempt in every_attempt() if listed is None}
    names.update(attempt.full_name for attempt in listed or ())
    lines = [f"OPEN {name}: {why}" for name, why in sorted(result.problems.items())]
    lines += [f"NO CONTROL {name}: {why}" for name, why in sorted((failures or {}).items())]
    lines += _table(result.levels)
    skipped = {name: why for name, why in inapplicable(tier).items() if name in names}
    lines += [f"NOT APPLICABLE {name}: {why}" for name, why in sorted(skipped.items())]
    lines.append(_summary(tier, result, failures, tried=len(names), skipped=len(skipped)))
    return lines


def _summary(
    tier: str, result: Report, failures: dict[str, str] | None, *, tried: int, skipped: int
) -> str:
    """Return the last line of the command's output."""
    controls = "controls not run" if failures is None else f"{len(failures)} without control"
    every = len(every_attempt())
    sampled = "" if tried == every else f", a sample of {every}"
    return (
        f"{tier}, uid {os.getuid()}: {tried - skipped} attempts{sampled}, "
        f"{len(result.problems)} open, {controls}, {skipped} not applicable"
    )


def _table(levels: dict[str, Levels]) -> list[str]:
    """Return a table of the memory before, during and after each flood."""
    if not levels:
        return []
    lines = [f"{'MB of memory, before/during/after':45} {'host process':>20} {'kernel slab':>20}"]
    for name, level in sorted(levels.items()):
        host = _join_sizes(level.host)
        slab = _join_sizes(level.slab)
        lines.append(f"{name:45} {host:>20} {slab:>20}")
    return lines


def _join_sizes(sizes: tuple[int, ...]) -> str:
    return "/".join(f"{size >> 20}" for size in sizes)
