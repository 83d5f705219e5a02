"""An agent that maps a shard: it is asked, what fails is repaired, then the shard is halved."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pandas_amr._agent import prompts
from pandas_amr._agent.loop import run_agent
from pandas_amr._agent.submission import REPL_FORM, Answer
from pandas_amr._findings.check import Checked, check_alone, check_answer
from pandas_amr._findings.store import Failure, MapName, Reason, Record, Who
from pandas_amr._journal.keys import fingerprint
from pandas_amr._map.breaker import Breaker
from pandas_amr._map.mapper import MappedShard
from pandas_amr._map.pieces import PieceMerger
from pandas_amr._map.prompt import Pieces
from pandas_amr._records.concurrency import await_user_code, run_concurrently
from pandas_amr._records.events import Halved, Repaired
from pandas_amr._records.trace import record_event
from pandas_amr._records.transcript import Purpose
from pandas_amr._records.usage import NO_USAGE, Usage
from pandas_amr._types.arrow_values import make_table
from pandas_amr._units.cells import to_json_line
from pandas_amr._units.split import split_record
from pandas_amr.errors import (
    BudgetExceeded,
    InvalidOutput,
    JournalError,
    ModelError,
    ModelRefused,
    ModelRejected,
    ModelUnavailable,
    RunStopped,
    SandboxError,
    SandboxUnavailable,
)
from pandas_amr.models.base import Message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from pandas_amr._agent.repl import Repl
    from pandas_amr._agent.window import Window
    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._map.mapper import ShardCache
    from pandas_amr._map.prompt import MapPrompt
    from pandas_amr._records.tokens import TokenCounter
    from pandas_amr._units.shards import Shard
    from pandas_amr._units.units import Units
    from pandas_amr.models.base import Model
    from pandas_amr.tools import Tool

LEAST_PIECE_TOKENS = 64  # a server that calls less than this too long means something else
PIECES_AT_ONCE = 8
OF_CONTENT = (ModelRejected, ModelRefused, InvalidOutput)  # errors of what was asked, not of a day
MOST_POOR_HALVINGS = 1  # in a row, if units stand in the REPL only: rows are not asked one by one


@dataclass(slots=True)
class Attempt:
    """One answer about some units.

    Attributes:
        checked: the findings that were accepted, and what is wrong with the others.
        who: who failed.
        conversation: what a repair goes on from; empty if there was no answer.
        may_halve: whether fewer units may fare better.
        too_long: whether the server said that the prompt is too long.
        is_of_content: whether the same units would fail again.
    """

    checked: Checked
    who: Who = "schema"
    conversation: tuple[Message, ...] = ()
    may_halve: bool = True
    too_long: bool = False
    is_of_content: bool = True

    def failures(self, positions: Sequence[int]) -> dict[int, Reason]:
        """Return who failed, and why, for each of the units at ``positions`` that did."""
        failures: dict[int, Reason] = {}
        for number, problem in self.checked.problems.items():
            position = positions[number]
            failures[position] = (self.who, problem)
        return failures


@dataclass(slots=True)
class Progress:
    """What is found so far of a shard's units, or of the pieces of one, by position.

    Attributes:
        shard: the shard's number.
        pieces: the unit that is read in pieces; None if units are rows.
        one_unit: whether it is one unit from the start, and not one that was halved out of several.
        attempts: how often each unit was asked about.
        failed: who failed, and why.
        too_long: the failed units that the server called too long.
        of_content: those that would fail again as they are.
        form: the form in which the model answered last, as the trace shows it.
        cache: makes findings durable.
    """

    shard: int
    cache: ShardCache | None = None
    pieces: Pieces | None = None
    one_unit: bool = False
    found: dict[int, Record] = field(default_factory=dict)
    repaired: set[int] = field(default_factory=set)
    attempts: dict[int, int] = field(default_factory=dict)
    failed: dict[int, Reason] = field(default_factory=dict)
    too_long: set[int] = field(default_factory=set)
    of_content: set[int] = field(default_factory=set)
    usage: Usage = NO_USAGE
    form: str = ""

    def count_attempt(self, positions: Iterable[int]) -> None:
        """Note that units are asked about once more."""
        for position in positions:
            self.attempts[position] = self.attempts.get(position, 0) + 1

    def add_failures(self, failures: Mapping[int, Reason], attempt: Attempt | None = None) -> None:
        """Note the units that have failed, and why: in an attempt, or since none is made."""
        self.failed.update(failures)
        if attempt is not None and attempt.too_long:
            self.too_long.update(failures)
        if attempt is not None and attempt.is_of_content:
            self.of_content.update(failures)

    def add_pieces(self, pieces: Progress, position: int) -> None:
        """Add what the pieces of a unit took."""
        self.usage += pieces.usage
        self.failed.pop(position, None)
        self.of_content.discard(position)
        earlier = self.attempts.get(position, 0)
        of_pieces = sum(pieces.attempts.values())
        self.attempts[position] = earlier + of_pieces
        if pieces.repaired:
            self.repaired.add(position)


@dataclass(frozen=True, slots=True)
class AgentMapper:
    """A model with tools, asked for one finding per unit.

    Attributes:
        max_tokens: a unit above it is mapped in pieces.
        merge_rules: how the pieces' findings become one, by field.
        window: what a prompt may take.
        open_repl: gives an agent that has these units its REPL.
        frame_differences: tells in what the REPL's frame differs from the user's.
        breaker: decides whether what has failed is worth further requests.
    """

    name: MapName
    prompt: MapPrompt
    model: Model
    tools: tuple[Tool, ...]
    max_steps: int
    max_repairs: int
    max_tokens: int
    count: TokenCounter
    merge_rules: Mapping[str, str]
    window: Window | None = None
    open_repl: Callable[[Sequence[int]], Repl] | None = None
    frame_differences: Callable[[], Awaitable[tuple[str, ...]]] | None = None
    breaker: Breaker = field(default_factory=Breaker)

    @property
    def kind(self) -> FindingType:
        """The type of a finding."""
        return self.prompt.kind

    @property
    def units(self) -> Units:
        """The units of the run."""
        return self.prompt.units

    @property
    def is_function(self) -> bool:
        """Whether a function of the user's makes the findings: it does not."""
        return False

    @property
    def reads_empty_units(self) -> bool:
        """Whether it is asked about units without content: it is not."""
        return False

    def unit_fingerprints(self, positions: Sequence[int], *, former: bool = False) -> list[bytes]:
        """Digest each unit's content, and what is asked of it if that differs from unit to unit."""
        digests = self.units.fingerprints(positions, former=former)
        if self.prompt.instructions is None:
            return digests
        fingerprints: list[bytes] = []
        for digest, position in zip(digests, positions, strict=True):
            instruction = self.prompt.instruction_or_problem(position)
            fingerprints.append(fingerprint(digest, instruction.encode()))
        return fingerprints

    def context_fingerprints(
        self, positions: Sequence[int], *, former: bool = False
    ) -> list[bytes]:
        """Digest the rows that are shown with a shard."""
        context = self.prompt.context
        if context is None:
            return []
        digests = context.fingerprints(positions, former=former)
        return [b"context", *digests]

    async def map_shard(self, shard: Shard, cache: ShardCache | None = None) -> MappedShard:
        """Ask for the shard's findings until each unit has one or has failed alone."""
        progress = Progress(shard.number, cache, one_unit=len(shard.positions) == 1)
        ended_by: RunStopped | None = None
        try:
            await self._map_units(shard, progress)
        except (BudgetExceeded, ModelError, SandboxUnavailable, JournalError) as error:
            ended_by = error  # a ModelError comes here only if it stops the run
        positions = sorted(progress.found)
        records = [progress.found[position] for position in positions]
        failures: list[Failure] = []
        for position, (who, reason) in sorted(progress.failed.items()):
            failure = Failure(
                position,
                shard.number,
                who,
                reason,
                progress.attempts[position],
                self.name,
                is_of_content=position in progress.of_content,
            )
            failures.append(failure)
        return MappedShard(
            shard=shard,
            map=self.name,
            positions=positions,
            table=make_table(records, self.kind.arrow),
            repaired=frozenset(progress.repaired),
            failures=failures,
            usage=progress.usage,
            form=progress.form,
            ended_by=ended_by,
        )

    async def _map_units(self, shard: Shard, progress: Progress) -> None:
        """Map the units that can be asked about; one that is too long for a shard in pieces."""
        if self.breaker.has_given_up(self.name):
            return
        for position, problem in self.prompt.problems(shard.positions).items():
            progress.failed[position] = ("callable", problem)
            progress.attempts[position] = 0
        positions = [one for one in shard.positions if one not in progress.failed]
        if not positions:
            if progress.failed:
                await self._may_go_on(progress.failed, progress, is_final=True)
        elif len(positions) == 1 and self.units.size(positions[0]) > self.max_tokens:
            await self._map_in_pieces(positions[0], self.max_tokens, progress)
        else:
            await self._ask_until_done(positions, progress)
            for position in sorted(progress.too_long):
                if self.breaker.has_given_up(self.name):
                    return
                half = self.units.size(position) // 2
                await self._map_in_pieces(position, half, progress)

    async def _ask_until_done(
        self,
        positions: Sequence[int],
        progress: Progress,
        *,
        is_halved: bool = False,
        poor_halvings: int = 0,
    ) -> None:
        """Ask, repair, then halve what is left; findings that are accepted on the way are kept.

        A unit that was alone from the start is asked afresh once, as one that was halved out of a
        shard is.
        """
        attempt = await self._ask_with_repairs(positions, progress)
        failures = attempt.failures(positions)
        if not failures:
            return
        is_alone = len(positions) == 1
        is_asked_afresh = is_alone and not is_halved and attempt.who == "schema"
        is_poor = 2 * len(failures) > len(positions)
        if is_poor:
            poor_halvings += 1
        else:
            poor_halvings = 0
        is_split = not is_alone and self._may_halve(attempt, poor_halvings)
        # A unit that is too long may still be read in pieces.
        is_final = not (is_asked_afresh or is_split or attempt.too_long)
        goes_on = await self._may_go_on(failures, progress, is_final=is_final)
        if goes_on and is_asked_afresh:
            await self._ask_until_done(positions, progress, is_halved=True)
        elif goes_on and is_split:
            record_event(partial(Halved, units=len(failures)))
            await self._ask_halves(failures, progress, poor_halvings)
        else:
            progress.add_failures(failures, attempt)

    def _may_halve(self, attempt: Attempt, poor_halvings: int) -> bool:
        """Tell whether fewer units may fare better; in the REPL only if some halves did."""
        is_in_vain = self.prompt.preview is not None and poor_halvings > MOST_POOR_HALVINGS
        return attempt.may_halve and not is_in_vain

    async def _may_go_on(
        self, failures: Mapping[int, Reason], progress: Progress, *, is_final: bool
    ) -> bool:
        """Ask the breaker whether to go on. The pieces of a unit count together, at its end."""
        if progress.pieces is not None:
            return not self.breaker.has_given_up(self.name)
        return await self.breaker.may_go_on(self.name, progress.shard, failures, is_final=is_final)

    async def _ask_halves(
        self, failures: Mapping[int, Reason], progress: Progress, poor_halvings: int
    ) -> None:
        """Ask about both halves of the units that failed, side by side.

        While nothing has succeeded, the second half waits: the first one may show that it is in
        vain.

        Raises:
            RunStopped: one of them ended the run; the other one came to its end first.
        """
        positions = list(failures)
        middle = (len(positions) + 1) // 2
        halves = [positions[:middle]]
        if middle < len(positions):
            halves.append(positions[middle:])
        if not self.breaker.asks_in_order(self.name, progress.shard):
            tasks = [self._ask_half(half, progress, poor_halvings) for half in halves]
            errors = await asyncio.gather(*tasks, return_exceptions=True)
            for error in errors:
                if error is not None:
                    raise error
            return
        for half in halves:
            if self.breaker.has_given_up(self.name):
                left = {position: failures[position] for position in half}
                progress.add_failures(left)
            else:
                await self._ask_half(half, progress, poor_halvings)

    async def _ask_half(
        self, positions: Sequence[int], progress: Progress, poor_halvings: int
    ) -> None:
        asking = self._ask_until_done(
            positions, progress, is_halved=True, poor_halvings=poor_halvings
        )
        await await_user_code(asking)

    async def _map_in_pieces(self, position: int, limit: int, progress: Progress) -> None:
        """Map a unit in pieces, and in pieces half as long while the server calls them too long."""
        while await self._map_pieces(position, max(1, limit), progress):
            if limit <= LEAST_PIECE_TOKENS:
                break
            limit //= 2
        if position in progress.failed:
            failure = {position: progress.failed[position]}
            await self._may_go_on(failure, progress, is_final=True)

    async def _map_pieces(self, position: int, limit: int, progress: Progress) -> bool:
        """Map a unit in pieces of at most ``limit`` tokens and merge their findings.

        A piece that fails is the unit's failure: no part of a unit is left out.

        Returns:
            Whether the unit failed because a piece was too long.
        """
        record = self.units.record(position)
        lines = split_record(record, limit=limit, count=self.count, to_json_line=to_json_line)
        pieces = Progress(progress.shard, progress.cache, Pieces(position, lines), one_unit=True)
        await self._ask_pieces(pieces, lines)
        progress.add_pieces(pieces, position)
        if pieces.failed:
            number = min(pieces.failed)
            who, reason = pieces.failed[number]
            place = f"piece {number + 1} of {len(lines)}"
            progress.failed[position] = (who, f"{place}: {reason}")
            if number in pieces.of_content:
                progress.of_content.add(position)
            return bool(pieces.too_long)
        records = [pieces.found[number] for number in range(len(lines))]
        await self._merge_pieces(position, records, progress)
        return False

    async def _ask_pieces(self, pieces: Progress, lines: list[str]) -> None:
        """Ask about the pieces of a unit that are not cached, several side by side.

        While nothing has succeeded, the first one goes alone: if it fails, so does the unit. Once
        one is too long no further ones are asked: the unit will be cut anew, or fail.
        """
        if pieces.cache is not None:
            assert pieces.pieces is not None
            position = pieces.pieces.position
            pieces.found |= await pieces.cache.recall_pieces(lines, position)
        rest = [number for number in range(len(lines)) if number not in pieces.found]

        async def ask_piece(number: int) -> None:
            if not pieces.too_long:
                await self._ask_until_done((number,), pieces)

        if rest and self.breaker.is_unproven(self.name):
            first = rest.pop(0)
            await ask_piece(first)
            if pieces.failed:
                return
        async for _ in run_concurrently(ask_piece, rest, limit=PIECES_AT_ONCE):
            pass

    async def _merge_pieces(
        self, position: int, records: list[dict[str, Any]], progress: Progress
    ) -> None:
        """Make the pieces' findings the unit's, or list why they could not be merged."""
        merger = PieceMerger(
            self.model,
            self.prompt.instruction,
            self.kind,
            self.merge_rules,
            by_agent=not self.prompt.is_single,
            purpose=Purpose("merge", (position,), pieces=len(records)),
        )
        try:
            merged = await merger.merge(records)
            await self._make_durable({position: merged}, {}, progress)
            progress.found[position] = merged
        except ModelError as error:
            if error.fatal:
                raise
            who: Who = "schema" if isinstance(error, InvalidOutput) else "model"
            reason = f"its {len(records)} pieces could not be merged: {error}"
            progress.failed[position] = (who, reason)
            if isinstance(error, OF_CONTENT):
                progress.of_content.add(position)
        finally:
            progress.usage += merger.usage

    async def _ask_with_repairs(self, positions: Sequence[int], progress: Progress) -> Attempt:
        """Ask about these units, then for what cannot be used again, in one REPL."""
        repl = None
        if progress.pieces is None:
            repl = self.repl_for(positions)
        try:
            attempt = await self._ask_first(positions, progress, repl)
            for _ in range(self.max_repairs):
                if not attempt.checked.problems or not attempt.conversation:
                    break
                attempt = await self._ask_for_repair(positions, attempt, progress, repl)
            return attempt
        finally:
            if repl is not None:
                progress.usage += repl.spent
                await repl.close()

    def repl_for(self, positions: Sequence[int]) -> Repl | None:
        """Make the REPL of an agent that has these units; None if agents have none."""
        if self.open_repl is None:
            return None
        repl = self.open_repl(positions)
        repl.line = self.prompt.submit_line
        repl.hands_in_alone = self.prompt.preview is not None
        repl.positions = tuple(positions)
        return repl

    async def _ask_first(
        self, positions: Sequence[int], progress: Progress, repl: Repl | None
    ) -> Attempt:
        differences: tuple[str, ...] = ()
        if repl is not None and self.frame_differences is not None:
            differences = await self.frame_differences()
        messages = self.prompt.messages(
            positions,
            one_unit=progress.one_unit,
            pieces=progress.pieces,
            differences=differences,
        )
        numbers = tuple(range(len(positions)))
        return await self._ask_once(messages, positions, numbers, progress, repl)

    async def _ask_for_repair(
        self, positions: Sequence[int], last: Attempt, progress: Progress, repl: Repl | None
    ) -> Attempt:
        problems = last.checked.problems
        if self._is_flat(progress):
            text = prompts.answer_repair(problems[0])
        else:
            text = prompts.map_repair(problems, hand_in=self._hand_in_text(repl))
        messages = (*last.conversation, Message("user", text))
        numbers = tuple(problems)
        return await self._ask_once(messages, positions, numbers, progress, repl, is_repair=True)

    def _is_flat(self, progress: Progress) -> bool:
        return self.prompt.is_flat(one_unit=progress.one_unit, pieces=progress.pieces)

    def _hand_in_text(self, repl: Repl | None) -> str:
        """Say by what findings are handed in again; nothing if they are typed."""
        if repl is not None:
            return prompts.by_line(repl.line)
        if self.tools:
            return prompts.by_tool("findings")
        return ""

    async def _ask_once(
        self,
        messages: tuple[Message, ...],
        positions: Sequence[int],
        numbers: tuple[int, ...],
        progress: Progress,
        repl: Repl | None,
        *,
        is_repair: bool = False,
    ) -> Attempt:
        """Have one agent work on the units with these ``numbers`` among ``positions``."""
        progress.count_attempt(positions[number] for number in numbers)
        purpose = _purpose_of(positions, numbers, progress, is_repair=is_repair)
        try:
            answer = await self._run_agent(messages, progress, repl, purpose)
        except SandboxUnavailable:
            raise
        except SandboxError as error:
            return _sandbox_attempt(numbers, error)
        except ModelError as error:
            if error.fatal:
                raise
            usage = error.usage or NO_USAGE
            progress.usage += replace(usage, tries=error.attempts)
            return _make_failed_attempt(numbers, error)
        progress.usage += answer.usage
        progress.form = answer.ways or progress.form
        checked = await self._check(answer, numbers, positions, progress)
        self._settle(answer, checked, purpose)
        if is_repair:
            self._count_repaired(checked, positions, progress)
        await self._accept(checked, positions, progress)
        return Attempt(checked, conversation=answer.conversation)

    def _settle(self, answer: Answer, checked: Checked, purpose: Purpose) -> None:
        """Have it taken down what came of an answer."""
        if answer.transcriber is None:
            return
        problems: dict[int, str] = {}
        for number, problem in checked.problems.items():
            place = 0 if purpose.piece else number
            unit = purpose.units[place]
            problems[unit] = problem
        answer.settle(len(checked.accepted), problems, self.kind.schema["properties"])

    def _count_repaired(
        self, checked: Checked, positions: Sequence[int], progress: Progress
    ) -> None:
        """Count the findings that came in a repair turn."""
        repaired = [positions[number] for number in checked.accepted]
        if repaired:
            progress.repaired.update(repaired)
            record_event(partial(Repaired, units=len(repaired)))

    async def _accept(self, checked: Checked, positions: Sequence[int], progress: Progress) -> None:
        """Make accepted findings durable; only then they count."""
        found: dict[int, Record] = {}
        answered: dict[int, Record] = {}
        for number, record in checked.accepted.items():
            position = positions[number]
            found[position] = record
            answered[position] = checked.said[number]
        await self._make_durable(found, answered, progress)
        progress.found |= found
        if found:
            self.breaker.add_success(self.name)

    async def _run_agent(
        self,
        messages: tuple[Message, ...],
        progress: Progress,
        repl: Repl | None,
        purpose: Purpose,
    ) -> Answer:
        submission = self.kind.submission(alone=self._is_flat(progress))
        return await run_agent(
            self.model,
            messages,
            submission=submission,
            phase="map",
            tools=self.tools if repl is None else (repl, *self.tools),
            max_steps=self.max_steps,
            window=self.window,
            purpose=purpose,
        )

    async def _check(
        self,
        answer: Answer,
        numbers: tuple[int, ...],
        positions: Sequence[int],
        progress: Progress,
    ) -> Checked:
        """Match an answer with the units that it is about, and check its findings."""
        if self._is_flat(progress):
            return check_alone(answer, self.kind)
        units = len(positions)
        if answer.form != REPL_FORM:
            return check_answer(answer, self.kind, asked=numbers, of=units)
        # Code may hand in any number of values, all of them wrong.
        return await asyncio.to_thread(check_answer, answer, self.kind, asked=numbers, of=units)

    async def _make_durable(
        self,
        found: Mapping[int, Record],
        answered: Mapping[int, Record],
        progress: Progress,
    ) -> None:
        """Write findings to the journal before they count."""
        cache, pieces = progress.cache, progress.pieces
        if cache is None or not found:
            return
        if pieces is None:
            repaired = progress.repaired.intersection(found)
            await cache.keep(found, answered, repaired)
            return
        lines = pieces.lines
        found_by_line = {lines[number]: record for number, record in found.items()}
        answered_by_line = {lines[number]: form for number, form in answered.items()}
        await cache.keep_pieces(found_by_line, answered_by_line, pieces.position)


def _purpose_of(
    positions: Sequence[int], numbers: tuple[int, ...], progress: Progress, *, is_repair: bool
) -> Purpose:
    """Say what a conversation is for: which units, or which piece of one, it is about."""
    pieces = progress.pieces
    if pieces is None:
        return Purpose("map", tuple(positions), asked=numbers, is_repair=is_repair)
    return Purpose(
        "map",
        units=(pieces.position,),
        piece=positions[0] + 1,
        pieces=len(pieces.lines),
        asked=(0,),
        is_repair=is_repair,
    )


def _sandbox_attempt(numbers: tuple[int, ...], error: SandboxError) -> Attempt:
    """Make the attempt that a sandbox's error is; fewer units do not help."""
    checked = Checked(problems=dict.fromkeys(numbers, str(error)))
    return Attempt(checked, who="sandbox", may_halve=False, is_of_content=False)


def _make_failed_attempt(numbers: tuple[int, ...], error: ModelError) -> Attempt:
    """Make the attempt that a model's error is; fewer units help if one of them is the cause."""
    checked = Checked(problems=dict.fromkeys(numbers, str(error)))
    is_of_content = isinstance(error, OF_CONTENT)
    is_of_request = isinstance(error, ModelUnavailable) and error.answers_others
    is_too_long = isinstance(error, ModelRejected) and error.too_long
    return Attempt(
        checked,
        who="model",
        may_halve=is_of_content or is_of_request,
        too_long=is_too_long,
        is_of_content=is_of_content,
    )
