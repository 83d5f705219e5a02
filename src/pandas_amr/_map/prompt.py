"""What a map agent is told of a shard: its instruction, the fields of a finding, the units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pandas_amr._agent import prompts
from pandas_amr._agent.agent import NoInstruction
from pandas_amr.models.base import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._units.neighbours import Context
    from pandas_amr._units.units import Units


@dataclass(frozen=True, slots=True)
class Pieces:
    """One long unit that is read in pieces: the numbers of units are those of its pieces.

    Attributes:
        position: the unit's.
        lines: each piece as the JSON object of a unit.
    """

    position: int
    lines: list[str]

    def lines_of(self, numbers: Sequence[int]) -> list[str]:
        """Return the lines of some pieces."""
        return [self.lines[number] for number in numbers]


@dataclass(frozen=True, slots=True)
class MapPrompt:
    """Writes the first messages to the agents of one map.

    Attributes:
        is_single: whether the model takes one unit per request.
        persona: who the agent is.
        instructions: what is asked of the unit at a position, if that differs from unit to unit.
        has_tools: whether agents get tools of the user's.
        has_repl: whether agents of rows get a REPL. Those of pieces never do.
        preview: shows units in part, if agents find them in the REPL and not in the prompt.
        context: rows that are shown with a shard: its neighbours, or its group.
    """

    instruction: str
    kind: FindingType
    units: Units
    is_single: bool
    persona: str = ""
    instructions: Callable[[int], str] | None = None
    has_tools: bool = False
    has_repl: bool = False
    preview: Callable[[Sequence[int]], str] | None = None
    context: Context | None = None

    def problems(self, positions: Sequence[int]) -> dict[int, str]:
        """Name the units of which the user's function does not say what is asked, and why."""
        problems: dict[int, str] = {}
        if self.instructions is None:
            return problems
        for position in positions:
            try:
                self.instructions(position)
            except NoInstruction as error:
                problems[position] = str(error)
        return problems

    def instruction_or_problem(self, position: int) -> str:
        """Return what is asked of a unit; if it cannot be asked about, why it cannot."""
        if self.instructions is None:
            return self.instruction
        try:
            return self.instructions(position)
        except NoInstruction as error:
            return f"\0{error}"

    @property
    def submit_line(self) -> str:
        """The line of code that hands in, if agents have a REPL."""
        if not self.has_repl:
            return ""
        return prompts.finding_line(self.kind.schema["properties"])

    def is_flat(self, *, one_unit: bool, pieces: Pieces | None = None) -> bool:
        """Tell whether an answer is the finding itself and not a list of findings.

        It is for a model that takes one unit per request, and for a shard of one unit without
        tools or rows around it: a call for one row takes the fewest tokens in this form.
        """
        has_repl = self.has_repl and pieces is None
        if self.is_single:
            return not has_repl
        has_context = self.context is not None and pieces is None
        return one_unit and not (self.has_tools or has_repl or has_context)

    def messages(
        self,
        positions: Sequence[int],
        *,
        one_unit: bool,
        pieces: Pieces | None = None,
        differences: Sequence[str] = (),
    ) -> tuple[Message, Message]:
        """Write the first messages to an agent that has these units, or pieces of one.

        Args:
            positions: the units; the numbers of the pieces, if there are ``pieces``.
            one_unit: whether the shard was one unit from the start. What is halved out of a larger
                one is asked about as that was, in the words that a provider's prompt cache knows.
            pieces: the unit that is read in pieces.
            differences: in what the REPL's frame differs from the user's, a sentence each.
        """
        has_repl = self.has_repl and pieces is None
        if self.is_single and not has_repl:
            return self._single_messages(positions[0], pieces)
        is_flat = self.is_flat(one_unit=one_unit, pieces=pieces)
        context = self.context if pieces is None else None
        system = self._system(is_flat=is_flat, has_repl=has_repl, context=context)
        user = self._units_block(positions, pieces, has_repl=has_repl, is_flat=is_flat)
        if context is not None:
            user = context.words(positions, user)
        user += self._instructions_block(positions, pieces)
        user += prompts.changed_words(differences)
        return Message("system", system), Message("user", user)

    def _system(self, *, is_flat: bool, has_repl: bool, context: Context | None) -> str:
        """Write what the agent is, what a finding is, and how findings are handed in."""
        fields = self.kind.schema["properties"]
        is_enforced = self.kind.submission(alone=is_flat).response.strict
        if is_flat:
            return prompts.flat_system(
                self.instruction, fields, persona=self.persona, enforced=is_enforced
            )
        has_tools = has_repl or self.has_tools
        return prompts.map_system(
            self.instruction,
            fields,
            tools=has_tools,
            preview=has_repl and self.preview is not None,
            line=self.submit_line if has_repl else "",
            persona=self.persona,
            segmentation="rows" if context is None else context.segmentation,
            enforced=is_enforced and not has_tools,
        )

    def _units_block(
        self,
        positions: Sequence[int],
        pieces: Pieces | None,
        *,
        has_repl: bool,
        is_flat: bool,
    ) -> str:
        """Write the units: whole, or in part if the REPL has them.

        The unit of the flat form has a number only if an instruction of its own names that.
        """
        if has_repl and self.preview is not None:
            return self.preview(positions)
        if pieces is None:
            lines = self.units.compact_lines(positions)
        else:
            lines = pieces.lines_of(positions)
        if is_flat and self.instructions is None:
            return prompts.flat_unit(lines[0])
        return prompts.unit_lines(lines)

    def _instructions_block(self, positions: Sequence[int], pieces: Pieces | None) -> str:
        """Write what is asked of each unit, if that differs."""
        if self.instructions is None:
            return ""
        rows = positions
        if pieces is not None:
            rows = [pieces.position] * len(positions)
        instructions = [self.instructions(position) for position in rows]
        return prompts.instruction_lines(instructions)

    def _single_messages(self, position: int, pieces: Pieces | None) -> tuple[Message, Message]:
        """Write to a model that takes one unit per request: what is asked, and the unit's line."""
        instruction, lines = self.instruction, []
        if pieces is None:
            lines = self.units.lines((position,))
            if self.instructions is not None:
                instruction = self.instructions(position)
        else:
            lines = pieces.lines_of((position,))
        system = "\n".join(part for part in (self.persona, instruction) if part)
        user = prompts.numbered("unit", 0, lines[0])
        return Message("system", system), Message("user", user)
