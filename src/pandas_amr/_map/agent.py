"""An agent that maps a shard. What fails gets a repair turn; then the shard is halved, down to units."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from pandas_amr._agent import prompts
from pandas_amr._agent.agent import NoInstruction
from pandas_amr._agent.loop import REPL_FORM, Submission, run_agent
from pandas_amr._findings.check import Checked, check_alone, check_answer
from pandas_amr._findings.finding_type import FindingType
from pandas_amr._findings.merge import merge_records, rules_of
from pandas_amr._findings.store import Failure, Who
from pandas_amr._journal.entries import Check, readable_form
from pandas_amr._records.concurrency import await_contained, each
from pandas_amr._records.usage import Usage
from pandas_amr._types.arrow import json_form, table_of
from pandas_amr._types.schema import closed_object
from pandas_amr._types.violations import find_violation
from pandas_amr._units.cells import line_of, reader_keys
from pandas_amr._units.split import pieces_of
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
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import pyarrow as pa

    from pandas_amr._agent.repl import Repl
    from pandas_amr._agent.window import Window
    from pandas_amr._records.tokens import TokenCounter
    from pandas_amr._units.neighbours import Context
    from pandas_amr._units.shards import Shard
    from pandas_amr._units.units import Units
    from pandas_amr.models.base import Model
    from pandas_amr.tools import Tool

LEAST_PIECE_TOKENS = 64  # a server that calls less than this too long means something else
PIECES_AT_ONCE = 8
MAX_BARREN = 1  # halvings in a row that brought less than half, where units stand in the REPL: no asking row by row
Numbers = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Mapped:
    """What came of one shard: a table with one row for each of ``positions``, and the failures."""

    shard: Shard
    map: str | None
    positions: list[int]
    table: pa.Table
    repaired: frozenset[int]
    failures: list[Failure]
    usage: Usage
    form: str = ""
    ended_by: RunStopped | None = None
    cached: frozenset[int] = frozenset()


@dataclass(slots=True)
class Attempt:
    """One answer to some units: what was accepted, what is wrong, and the conversation that a repair goes on from."""

    checked: Checked
    who: Who = "schema"
    conversation: tuple[Message, ...] = ()
    halve: bool = True
    too_long: bool = False


class PieceStore(Protocol):
    """Where the findings of pieces are kept, by their text."""

    async def recall(self, lines: Sequence[str]) -> dict[int, dict[str, Any]]:
        """Those that are known, by number."""
        ...

    async def keep(self, found: Mapping[str, dict[str, Any]]) -> None:
        """Make findings durable, by line."""
        ...


class Mapper(Protocol):
    """Whoever finds something of units: an agent, or a callable of the user's."""

    @property
    def name(self) -> str | None:
        """The map's name, where several run side by side."""
        ...

    @property
    def kind(self) -> FindingType | None:
        """What a finding is; None where a function's own columns say it."""
        ...

    async def __call__(self, shard: Shard) -> Mapped:
        """Give each unit of the shard a finding or a failure."""
        ...


@dataclass(slots=True)
class SoFar:
    """What is known so far of units, or of the pieces of one, by position.

    Attributes:
        single: whether the shard is one unit from the start. What is halved out of a larger one is asked about as that
            was, in the words that the provider's prompt cache knows.
    """

    lines: Callable[[Sequence[int]], list[str]]
    single: bool = False
    of_rows: bool = True
    of: int = 0
    found: dict[int, dict[str, Any]] = field(default_factory=dict)
    repaired: set[int] = field(default_factory=set)
    attempts: dict[int, int] = field(default_factory=dict)
    failed: dict[int, tuple[Who, str]] = field(default_factory=dict)
    too_long: set[int] = field(default_factory=set)
    usage: Usage = field(default_factory=Usage)
    form: str = ""


@dataclass(frozen=True, slots=True)
class AgentMapper:
    """A model with tools, asked for one finding per unit.

    Attributes:
        alone: the model takes one unit a request.
        max_tokens: a unit above it is mapped in pieces.
        merge: how the pieces' findings become one, by field.
        persona: who the agent is.
        window: what a prompt may take.
        instructions: what is asked of the unit at a position, where that differs from unit to unit.
        repls: gives an agent that has these units its REPL.
        preview: shows units in part, where agents find them in the REPL and not in the prompt.
        changed: tells what the REPL's frame has not as the user's.
        context: what units are judged in the light of, where not each alone.
        keep: makes findings durable, by position, before they count, in the form that a model gives.
        pieces: does so for the pieces of units that are too large.
    """

    name: str | None
    model: Model
    instruction: str
    kind: FindingType
    units: Units
    tools: tuple[Tool, ...]
    max_steps: int
    max_repairs: int
    alone: bool
    max_tokens: int
    count: TokenCounter
    merge: Mapping[str, str]
    persona: str = ""
    window: Window | None = None
    instructions: Callable[[int], str] | None = None
    repls: Callable[[Sequence[int]], Repl] | None = None
    preview: Callable[[Sequence[int]], str] | None = None
    changed: Callable[[], Awaitable[tuple[str, ...]]] | None = None
    context: Context | None = None
    keep: Callable[[Mapping[int, dict[str, Any]]], Awaitable[None]] | None = None
    pieces: PieceStore | None = None

    async def __call__(self, shard: Shard) -> Mapped:
        """Ask for the shard's findings until each unit has one or has failed alone."""
        state = SoFar(self.units.lines, single=len(shard.positions) == 1)
        ended_by: RunStopped | None = None
        try:
            await self._all(shard, state)
        except (
            BudgetExceeded,
            ModelError,
            SandboxUnavailable,
            JournalError,
        ) as error:  # a ModelError only where it stops the run
            ended_by = error
        positions = sorted(state.found)
        return Mapped(
            shard=shard,
            map=self.name,
            positions=positions,
            table=table_of((state.found[position] for position in positions), self.kind.arrow),
            repaired=frozenset(state.repaired),
            failures=[
                Failure(position, shard.number, who, reason, state.attempts[position], self.name)
                for position, (who, reason) in sorted(state.failed.items())
            ],
            usage=state.usage,
            form=state.form,
            ended_by=ended_by,
        )

    def unasked(self, positions: Sequence[int]) -> dict[int, str]:
        """The units of which the user's function does not say what is asked, and why."""
        problems: dict[int, str] = {}
        if self.instructions is None:
            return problems
        for position in positions:
            try:
                self.instructions(position)
            except NoInstruction as error:
                problems[position] = str(error)
        return problems

    def askable(self, positions: Sequence[int]) -> tuple[int, ...]:
        """The units that can be asked about."""
        problems = self.unasked(positions)
        return tuple(position for position in positions if position not in problems)

    async def _all(self, shard: Shard, state: SoFar) -> None:
        for position, problem in self.unasked(shard.positions).items():  # each fails alone
            state.failed[position] = ("callable", problem)
            state.attempts[position] = 0
        positions = tuple(position for position in shard.positions if position not in state.failed)
        if len(positions) == 1 and self.units.size(positions[0]) > self.max_tokens:
            await self._in_smaller_pieces(positions[0], self.max_tokens, state)
        elif positions:
            await self._settle(positions, state)
            for position in sorted(state.too_long):
                await self._in_smaller_pieces(position, self.units.size(position) // 2, state)

    async def _settle(
        self, positions: Sequence[int], state: SoFar, *, halved: bool = False, barren: int = 0
    ) -> None:
        """Ask, repair, then halve what is left; findings accepted on the way are kept.

        A unit that was alone from the start is asked afresh once, as one that was halved out of a shard is.
        """
        attempt = await self._asked(positions, state)
        problems = {
            positions[number]: problem for number, problem in attempt.checked.problems.items()
        }
        left = list(problems)
        if not left:
            return
        if len(positions) == 1 and not halved and attempt.who == "schema":
            await self._settle(positions, state, halved=True)
            return
        barren = barren + 1 if 2 * len(left) > len(positions) else 0
        given_up = self.preview is not None and barren > MAX_BARREN
        if len(positions) == 1 or not attempt.halve or given_up:
            state.failed |= {position: (attempt.who, problems[position]) for position in left}
            state.too_long |= set(left) if attempt.too_long else set()
            return
        middle = (len(left) + 1) // 2
        halves = [half for half in (left[:middle], left[middle:]) if half]
        done = await asyncio.gather(
            *(
                await_contained(self._settle(half, state, halved=True, barren=barren))
                for half in halves
            ),
            return_exceptions=True,
        )
        for error in done:
            if error is not None:
                raise error

    async def _in_smaller_pieces(self, position: int, limit: int, state: SoFar) -> None:
        """Map a unit in pieces, and in half as large ones as long as the server calls them too long."""
        while await self._in_pieces(position, max(1, limit), state) and limit > LEAST_PIECE_TOKENS:
            limit //= 2

    async def _in_pieces(self, position: int, limit: int, state: SoFar) -> bool:
        """Map a unit in pieces and merge their findings. A piece that fails is the unit's failure: none is left out.

        Returns:
            Whether it failed since a piece was too long.
        """
        lines = pieces_of(
            self.units.record(position), limit=limit, count=self.count, line_of=line_of
        )
        pieces = SoFar(
            lambda numbers: [lines[number] for number in numbers],
            single=True,
            of_rows=False,
            of=position,
        )
        if self.pieces is not None:
            pieces.found |= await self.pieces.recall(lines)
        open_ = [number for number in range(len(lines)) if number not in pieces.found]
        async for _ in each(
            lambda number: self._settle((number,), pieces), open_, limit=PIECES_AT_ONCE
        ):
            pass
        state.usage += pieces.usage
        state.attempts[position] = state.attempts.get(position, 0) + sum(pieces.attempts.values())
        state.failed.pop(position, None)
        if pieces.failed:
            number, (who, reason) = min(pieces.failed.items())
            state.failed[position] = (who, f"piece {number + 1} of {len(lines)}: {reason}")
            return bool(pieces.too_long)
        if pieces.repaired:
            state.repaired.add(position)
        try:
            merged = await self._merged(
                [pieces.found[number] for number in range(len(lines))], state
            )
            await self._durable({position: merged}, {}, state)
            state.found[position] = merged
        except InvalidOutput as error:
            state.failed[position] = (
                "schema",
                f"its {len(lines)} pieces could not be merged: {error}",
            )
        except ModelError as error:
            if error.stops_run:
                raise
            state.failed[position] = (
                "model",
                f"its {len(lines)} pieces could not be merged: {error}",
            )
        return False

    async def _merged(self, records: list[dict[str, Any]], state: SoFar) -> dict[str, Any]:
        """One finding of the pieces': by rule, and texts that differ by an agent."""
        merged = merge_records(records, self.kind.model, rules_of(self.kind.model, self.merge))
        if (
            merged.texts and self.alone
        ):  # a model that small is not asked to write what it read in pieces
            written = {place: "\n".join(texts) for place, texts in merged.texts.items()}
        elif merged.texts:
            written = await self._written(merged.texts, state)
        else:
            written = {}
        for place, text in written.items():
            merged.put(place, text)
        record, problem = self.kind.record(merged.values)
        if record is None:
            raise InvalidOutput(problem or "invalid")
        if not Check(self.kind).is_stable(json_form(record, self.kind.model), record):
            raise InvalidOutput("a validator changes again what it has changed in each of them")
        return record

    async def _written(
        self, texts: Mapping[tuple[str, ...], list[str]], state: SoFar
    ) -> dict[tuple[str, ...], str]:
        """What an agent makes of the texts that the pieces write differently, by their places."""
        named = {
            place[0] if len(place) == 1 else f"{place[0]}_{number}": place
            for number, place in enumerate(texts)
        }
        properties = self.kind.schema["properties"]
        fields: dict[str, Any] = {
            name: properties[name]
            if len(place) == 1
            else {"type": "string", "description": f"a part of {place[0]}"}
            for name, place in named.items()
        }
        output = closed_object(fields)
        schema = closed_object({"output": output})
        keys = reader_keys(list(fields))
        shown = dict(zip(named, keys, strict=True))
        most = max(len(pieces) for pieces in texts.values())
        lines = [
            line_of(
                {
                    shown[name]: texts[place][piece]
                    for name, place in named.items()
                    if piece < len(texts[place])
                }
            )
            for piece in range(most)
        ]
        submission = Submission("reduction", schema)
        enforced = submission.response.strict
        messages = (
            Message("system", prompts.merge_system(self.instruction, fields, enforced=enforced)),
            Message("user", prompts.finding_lines(lines)),
        )
        answer = await run_agent(self.model, messages, submission=submission, phase="map")
        state.usage += answer.usage
        written = answer.payload.get("output") if answer.problem is None else None
        if not isinstance(written, dict):
            raise InvalidOutput(answer.problem or f"without {', '.join(named)}")
        if (wrong := find_violation(written, output)) is not None:
            raise InvalidOutput(wrong)
        return {place: written[name] for name, place in named.items()}

    async def _asked(self, positions: Sequence[int], state: SoFar) -> Attempt:
        """An agent's work on these units and its repairs, with one REPL all the time."""
        repl = self.repl_of(positions) if state.of_rows else None
        try:
            attempt = await self._ask(positions, state, repl)
            repairs = 0
            while attempt.checked.problems and attempt.conversation and repairs < self.max_repairs:
                attempt = await self._repair(positions, attempt, state, repl)
                repairs += 1
            return attempt
        finally:
            if repl is not None:
                state.usage += repl.spent
                await repl.close()

    @property
    def line(self) -> str:
        """The line of code that hands in, if agents have a REPL."""
        return (
            prompts.finding_line(self.kind.schema["properties"]) if self.repls is not None else ""
        )

    def repl_of(self, positions: Sequence[int]) -> Repl | None:
        """The REPL of an agent that has these units; if they stand in it only, nothing but code hands in."""
        if self.repls is None:
            return None
        repl = self.repls(positions)
        repl.line = self.line
        repl.hands_in_alone = self.preview is not None
        return repl

    def opening(
        self, positions: Sequence[int], state: SoFar | None = None, *, changed: Sequence[str] = ()
    ) -> tuple[Message, ...]:
        """The first messages to an agent that has these units, or pieces of one."""
        whole = state is None or state.of_rows
        coded = whole and self.repls is not None
        if self.alone and not coded:
            return self._opening_alone(positions[0], state)
        lines = (
            self.units.compact_lines(positions)
            if state is None or state.of_rows
            else state.lines(positions)
        )
        context = self.context if whole else None
        fields = self.kind.schema["properties"]
        is_flat = self.is_flat(positions, state)
        enforced = self.kind.submission(alone=is_flat).response.strict
        if is_flat:
            system = prompts.flat_system(
                self.instruction, fields, persona=self.persona, enforced=enforced
            )
        else:
            has_tools = coded or bool(self.tools)
            system = prompts.map_system(
                self.instruction,
                fields,
                tools=has_tools,
                preview=coded and self.preview is not None,
                line=self.line if coded else "",
                persona=self.persona,
                segmentation=context.segmentation if context else "rows",
                enforced=enforced and not has_tools,
            )
        user = self.preview(positions) if coded and self.preview else prompts.unit_lines(lines)
        if context is not None:
            user = context.words(positions, user)
        user += self._asked_of_each(positions, state) + prompts.changed_words(changed)
        return Message("system", system), Message("user", user)

    def _opening_alone(self, position: int, state: SoFar | None) -> tuple[Message, ...]:
        """The first messages to a model that takes one unit a request: what is asked, and the unit's line."""
        whole = state is None or state.of_rows
        own = self.instructions(position) if self.instructions and whole else self.instruction
        system = "\n".join(part for part in (self.persona, own) if part)
        lines = self.units.lines((position,)) if state is None else state.lines((position,))
        return Message("system", system), Message("user", prompts.numbered("unit", 0, lines[0]))

    def is_flat(self, positions: Sequence[int], state: SoFar | None = None) -> bool:
        """Whether units are asked about as a single one is: the finding's fields, and no list of findings."""
        whole = state is None or state.of_rows
        coded = whole and self.repls is not None
        if self.alone:
            return not coded
        single = len(positions) == 1 if state is None else state.single
        beside = bool(self.tools) or coded or (whole and self.context is not None)
        return single and not beside

    def _asked_of_each(self, positions: Sequence[int], state: SoFar | None) -> str:
        """What is asked of each unit, where that differs."""
        if self.instructions is None:
            return ""
        rows = positions if state is None or state.of_rows else [state.of] * len(positions)
        return prompts.instruction_lines([self.instructions(position) for position in rows])

    async def _ask(self, positions: Sequence[int], state: SoFar, repl: Repl | None) -> Attempt:
        changed = await self.changed() if repl is not None and self.changed is not None else ()
        opening = self.opening(positions, state, changed=changed)
        return await self._turn(opening, positions, tuple(range(len(positions))), state, repl)

    async def _repair(
        self, positions: Sequence[int], last: Attempt, state: SoFar, repl: Repl | None
    ) -> Attempt:
        problems = last.checked.problems
        if self.alone and self.is_flat(positions, state):
            words = prompts.answer_repair(problems[0])
        else:
            words = prompts.map_repair(problems, hand_in=self._hand_in(repl))
        attempt = await self._turn(
            (*last.conversation, Message("user", words)), positions, tuple(problems), state, repl
        )
        state.repaired.update(positions[number] for number in attempt.checked.accepted)
        return attempt

    def _hand_in(self, repl: Repl | None) -> str:
        """By what findings are handed in again; nothing if they are typed."""
        if repl is not None:
            return prompts.by_line(repl.line)
        return prompts.by_tool("findings") if self.tools else ""

    async def _durable(
        self, found: Mapping[int, dict[str, Any]], said: Mapping[int, dict[str, Any]], state: SoFar
    ) -> None:
        """A finding is kept before it counts: in a form that is read back as the very finding, if there is one."""
        if self.keep is None or self.pieces is None:
            return
        check = Check(self.kind)
        forms = {
            position: readable_form(record, check, said.get(position))
            for position, record in found.items()
        }
        kept = {position: form for position, form in forms.items() if form is not None}
        if kept and state.of_rows:
            await self.keep(kept)
        elif kept:
            lines = state.lines(list(kept))
            await self.pieces.keep(dict(zip(lines, kept.values(), strict=True)))

    async def _turn(
        self,
        messages: tuple[Message, ...],
        positions: Sequence[int],
        asked: Numbers,
        state: SoFar,
        repl: Repl | None,
    ) -> Attempt:
        """One agent's work on the units numbered ``asked`` among ``positions``."""
        flat = self.is_flat(positions, state)
        for number in asked:
            state.attempts[positions[number]] = state.attempts.get(positions[number], 0) + 1
        try:
            answer = await run_agent(
                self.model,
                messages,
                submission=self.kind.submission(alone=flat),
                phase="map",
                tools=self.tools if repl is None else (repl, *self.tools),
                max_steps=self.max_steps,
                window=self.window,
            )
        except SandboxUnavailable:
            raise
        except SandboxError as error:
            problems = dict.fromkeys(asked, str(error))
            return Attempt(Checked(problems=problems), who="sandbox", halve=False)
        except ModelError as error:
            if error.stops_run:
                raise
            state.usage += replace(error.usage or Usage(), tries=error.attempts)
            problems = dict.fromkeys(asked, str(error))
            halve = isinstance(error, ModelRejected | ModelRefused | InvalidOutput)
            too_long = isinstance(error, ModelRejected) and error.too_long
            return Attempt(Checked(problems=problems), who="model", halve=halve, too_long=too_long)
        state.usage += answer.usage
        state.form = answer.ways or state.form
        if flat:
            checked = check_alone(answer, self.kind)
        elif (
            answer.form == REPL_FORM
        ):  # code may hand in as many values as it likes, all of them wrong
            checked = await asyncio.to_thread(
                check_answer, answer, self.kind, asked=asked, of=len(positions)
            )
        else:
            checked = check_answer(answer, self.kind, asked=asked, of=len(positions))
        found = {positions[number]: record for number, record in checked.accepted.items()}
        await self._durable(
            found, {positions[number]: said for number, said in checked.said.items()}, state
        )
        state.found |= found
        return Attempt(checked, conversation=answer.conversation)
