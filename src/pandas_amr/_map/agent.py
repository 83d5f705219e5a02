"""An agent that maps a shard: it is asked, what fails is repaired, then the shard is halved."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pandas_amr._agent import prompts
from pandas_amr._agent.loop import run_agent
from pandas_amr._agent.submission import REPL_FORM, Answer
from pandas_amr._findings.check import Checked, check_alone, check_answer
from pandas_amr._findings.store import Failure, Who
from pandas_amr._journal.keys import fingerprint
from pandas_amr._map.mapper import MappedShard
from pandas_amr._map.pieces import PieceMerger
from pandas_amr._map.prompt import Pieces
from pandas_amr._records.concurrency import await_user_code, run_concurrently
from pandas_amr._records.usage import Usage
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
    """

    checked: Checked
    who: Who = "schema"
    conversation: tuple[Message, ...] = ()
    may_halve: bool = True
    too_long: bool = False


@dataclass(slots=True)
class Progress:
    """What is found so far of a shard's units, or of the pieces of one, by position.

    Attributes:
        pieces: the unit that is read in pieces; None if units are rows.
        one_unit: whether it is one unit from the start, and not one that was halved out of several.
        attempts: how often each unit was asked about.
        failed: who failed, and why.
        too_long: the failed units that the server called too long.
        form: the form in which the model answered last, as the trace shows it.
        cache: makes findings durable.
    """

    cache: ShardCache | None = None
    pieces: Pieces | None = None
    one_unit: bool = False
    found: dict[int, dict[str, Any]] = field(default_factory=dict)
    repaired: set[int] = field(default_factory=set)
    attempts: dict[int, int] = field(default_factory=dict)
    failed: dict[int, tuple[Who, str]] = field(default_factory=dict)
    too_long: set[int] = field(default_factory=set)
    usage: Usage = field(default_factory=Usage)
    form: str = ""

    def count_attempt(self, positions: Iterable[int]) -> None:
        """Note that units are asked about once more."""
        for position in positions:
            self.attempts[position] = self.attempts.get(position, 0) + 1

    def add_failures(self, attempt: Attempt, problems: Mapping[int, str]) -> None:
        """Note the units that have failed, and why."""
        for position, problem in problems.items():
            self.failed[position] = (attempt.who, problem)
        if attempt.too_long:
            self.too_long.update(problems)

    def add_pieces(self, pieces: Progress, position: int) -> None:
        """Add what the pieces of a unit took."""
        self.usage += pieces.usage
        self.failed.pop(position, None)
        earlier = self.attempts.get(position, 0)
        self.attempts[position] = earlier + sum(pieces.attempts.values())
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
    """

    name: str | None
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

    def unit_fingerprints(self, positions: Sequence[int], *, former: bool = False) -> list[bytes]:
        """Digest each unit's content, and what is asked of it if that differs from unit to unit."""
        digests = self.units.fingerprints(positions, former=former)
        if self.prompt.instructions is None:
            return digests
        instructions = [self.prompt.instruction_or_problem(position) for position in positions]
        return [
            fingerprint(digest, instruction.encode())
            for digest, instruction in zip(digests, instructions, strict=True)
        ]

    def context_fingerprints(
        self, positions: Sequence[int], *, former: bool = False
    ) -> list[bytes]:
        """Digest the rows that are shown with a shard."""
        context = self.prompt.context
        if context is None:
            return []
        return [b"context", *context.fingerprints(positions, former=former)]

    async def map_shard(self, shard: Shard, cache: ShardCache | None = None) -> MappedShard:
        """Ask for the shard's findings until each unit has one or has failed alone."""
        progress = Progress(cache, one_unit=len(shard.positions) == 1)
        ended_by: RunStopped | None = None
        try:
            await self._map_units(shard, progress)
        except (BudgetExceeded, ModelError, SandboxUnavailable, JournalError) as error:
            ended_by = error  # a ModelError comes here only if it stops the run
        positions = sorted(progress.found)
        records = [progress.found[position] for position in positions]
        failures: list[Failure] = []
        for position, (who, reason) in sorted(progress.failed.items()):
            attempts = progress.attempts[position]
            failures.append(Failure(position, shard.number, who, reason, attempts, self.name))
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
        for position, problem in self.prompt.problems(shard.positions).items():
            progress.failed[position] = ("callable", problem)
            progress.attempts[position] = 0
        positions = [one for one in shard.positions if one not in progress.failed]
        if len(positions) == 1 and self.units.size(positions[0]) > self.max_tokens:
            await self._map_in_pieces(positions[0], self.max_tokens, progress)
        elif positions:
            await self._ask_until_done(positions, progress)
            for position in sorted(progress.too_long):
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
        problems: dict[int, str] = {}
        for number, problem in attempt.checked.problems.items():
            problems[positions[number]] = problem
        if not problems:
            return
        is_alone = len(positions) == 1
        if is_alone and not is_halved and attempt.who == "schema":
            await self._ask_until_done(positions, progress, is_halved=True)
            return
        is_poor = 2 * len(problems) > len(positions)
        poor_halvings = poor_halvings + 1 if is_poor else 0
        is_in_vain = self.prompt.preview is not None and poor_halvings > MOST_POOR_HALVINGS
        if is_alone or not attempt.may_halve or is_in_vain:
            progress.add_failures(attempt, problems)
        else:
            await self._ask_halves(list(problems), progress, poor_halvings)

    async def _ask_halves(
        self, positions: list[int], progress: Progress, poor_halvings: int
    ) -> None:
        """Ask about both halves side by side.

        Raises:
            RunStopped: one of them ended the run; the other one came to its end first.
        """
        middle = (len(positions) + 1) // 2
        tasks = []
        for half in (positions[:middle], positions[middle:]):
            if half:
                asking = self._ask_until_done(
                    half, progress, is_halved=True, poor_halvings=poor_halvings
                )
                tasks.append(await_user_code(asking))
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            if error is not None:
                raise error

    async def _map_in_pieces(self, position: int, limit: int, progress: Progress) -> None:
        """Map a unit in pieces, and in pieces half as long while the server calls them too long."""
        while await self._map_pieces(position, max(1, limit), progress):
            if limit <= LEAST_PIECE_TOKENS:
                return
            limit //= 2

    async def _map_pieces(self, position: int, limit: int, progress: Progress) -> bool:
        """Map a unit in pieces of at most ``limit`` tokens and merge their findings.

        A piece that fails is the unit's failure: no part of a unit is left out.

        Returns:
            Whether the unit failed because a piece was too long.
        """
        record = self.units.record(position)
        lines = split_record(record, limit=limit, count=self.count, to_json_line=to_json_line)
        pieces = Progress(progress.cache, Pieces(position, lines), one_unit=True)
        await self._ask_pieces(pieces, lines)
        progress.add_pieces(pieces, position)
        if pieces.failed:
            number, (who, reason) = min(pieces.failed.items())
            progress.failed[position] = (who, f"piece {number + 1} of {len(lines)}: {reason}")
            return bool(pieces.too_long)
        records = [pieces.found[number] for number in range(len(lines))]
        await self._merge_pieces(position, records, progress)
        return False

    async def _ask_pieces(self, pieces: Progress, lines: list[str]) -> None:
        """Ask about the pieces of a unit that are not cached, several side by side."""
        if pieces.cache is not None:
            pieces.found |= await pieces.cache.recall_pieces(lines)
        rest = [number for number in range(len(lines)) if number not in pieces.found]

        async def ask_piece(number: int) -> None:
            await self._ask_until_done((number,), pieces)

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
        finally:
            progress.usage += merger.usage

    async def _ask_with_repairs(self, positions: Sequence[int], progress: Progress) -> Attempt:
        """Ask about these units, then for what cannot be used again, in one REPL."""
        repl = self.repl_for(positions) if progress.pieces is None else None
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
        attempt = await self._ask_once(messages, positions, tuple(problems), progress, repl)
        progress.repaired.update(positions[number] for number in attempt.checked.accepted)
        return attempt

    def _is_flat(self, progress: Progress) -> bool:
        return self.prompt.is_flat(one_unit=progress.one_unit, pieces=progress.pieces)

    def _hand_in_text(self, repl: Repl | None) -> str:
        """Say by what findings are handed in again; nothing if they are typed."""
        if repl is not None:
            return prompts.by_line(repl.line)
        return prompts.by_tool("findings") if self.tools else ""

    async def _ask_once(
        self,
        messages: tuple[Message, ...],
        positions: Sequence[int],
        numbers: tuple[int, ...],
        progress: Progress,
        repl: Repl | None,
    ) -> Attempt:
        """Have one agent work on the units with these ``numbers`` among ``positions``."""
        progress.count_attempt(positions[number] for number in numbers)
        try:
            answer = await self._run_agent(messages, progress, repl)
        except SandboxUnavailable:
            raise
        except SandboxError as error:
            problems = dict.fromkeys(numbers, str(error))
            return Attempt(Checked(problems=problems), who="sandbox", may_halve=False)
        except ModelError as error:
            if error.fatal:
                raise
            progress.usage += replace(error.usage or Usage(), tries=error.attempts)
            return _failed_attempt(numbers, error)
        progress.usage += answer.usage
        progress.form = answer.ways or progress.form
        checked = await self._check(answer, numbers, positions, progress)
        await self._accept(checked, positions, progress)
        return Attempt(checked, conversation=answer.conversation)

    async def _accept(self, checked: Checked, positions: Sequence[int], progress: Progress) -> None:
        """Make accepted findings durable; only then they count."""
        found = {positions[number]: record for number, record in checked.accepted.items()}
        answered = {positions[number]: form for number, form in checked.said.items()}
        await self._make_durable(found, answered, progress)
        progress.found |= found

    async def _run_agent(
        self, messages: tuple[Message, ...], progress: Progress, repl: Repl | None
    ) -> Answer:
        return await run_agent(
            self.model,
            messages,
            submission=self.kind.submission(alone=self._is_flat(progress)),
            phase="map",
            tools=self.tools if repl is None else (repl, *self.tools),
            max_steps=self.max_steps,
            window=self.window,
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
        if answer.form == REPL_FORM:  # code may hand in any number of values, all of them wrong
            return await asyncio.to_thread(
                check_answer, answer, self.kind, asked=numbers, of=len(positions)
            )
        return check_answer(answer, self.kind, asked=numbers, of=len(positions))

    async def _make_durable(
        self,
        found: Mapping[int, dict[str, Any]],
        answered: Mapping[int, dict[str, Any]],
        progress: Progress,
    ) -> None:
        """Write findings to the journal before they count."""
        cache, pieces = progress.cache, progress.pieces
        if cache is None or not found:
            return
        if pieces is None:
            await cache.keep(found, answered)
            return
        found_by_line = {pieces.lines[number]: record for number, record in found.items()}
        answered_by_line = {pieces.lines[number]: form for number, form in answered.items()}
        await cache.keep_pieces(found_by_line, answered_by_line)


def _failed_attempt(numbers: tuple[int, ...], error: ModelError) -> Attempt:
    """Make the attempt that a model's error is; fewer units help if the content was refused."""
    return Attempt(
        Checked(problems=dict.fromkeys(numbers, str(error))),
        who="model",
        may_halve=isinstance(error, ModelRejected | ModelRefused | InvalidOutput),
        too_long=isinstance(error, ModelRejected) and error.too_long,
    )
