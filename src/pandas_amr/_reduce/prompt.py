"""What a reduce agent is told: its instruction, the type of the answer, the findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pandas_amr._agent import prompts
from pandas_amr.models.base import Message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas_amr._findings.output import ReductionType


@dataclass(frozen=True, slots=True)
class ReducePrompt:
    """Writes the first messages to the agents of one tree.

    Attributes:
        output: the type of the answer.
        persona: who the agent is.
        has_tools: whether agents get tools of the user's.
        has_repl: whether agents that have findings get a REPL.
    """

    instruction: str
    output: ReductionType
    persona: str = ""
    has_tools: bool = False
    has_repl: bool = False

    def output_type(self, *, final: bool) -> ReductionType:
        """Return the type that a final or an intermediate agent writes."""
        return self.output if final else self.output.intermediate

    def messages(
        self, lines: Sequence[str], *, final: bool, notes: str = ""
    ) -> tuple[Message, Message]:
        """Write the first messages to an agent that has these findings.

        Args:
            lines: the findings, a JSON object each.
            final: whether the agent gives the whole answer, and not a part of it.
            notes: what is known beside the findings.
        """
        output = self.output_type(final=final)
        schema: Mapping[str, Any] = output.schema
        if output.item is not None:
            schema = {"type": "array", "items": output.schema}
        has_tools = self.has_tools or (self.has_repl and bool(lines))
        system = prompts.reduce_system(
            self.instruction,
            final=final,
            output=schema,
            tools=has_tools,
            line=output.submit_line if self.has_repl else "",
            persona=self.persona,
            enforced=not has_tools and output.submission().response.strict,
        )
        user = prompts.finding_lines(lines)
        if notes:
            user += f"\n\n{notes}"
        return Message("system", system), Message("user", user)
