"""An agent that combines findings: it is asked, and what cannot be used is repaired."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pandas_amr._agent import prompts
from pandas_amr._agent.loop import run_agent
from pandas_amr._agent.submission import REPL_FORM, Answer
from pandas_amr._agent.transcriber import note_origins
from pandas_amr._findings.output import FROM_ALL_KEY, SOURCES_KEY, Reduction, ReductionType
from pandas_amr._records.engine import in_thread, run_off_loop
from pandas_amr._records.events import Repaired
from pandas_amr._records.trace import record_event
from pandas_amr._records.transcript import ABOUT_NO_UNIT, Purpose
from pandas_amr._records.usage import NO_USAGE, Usage
from pandas_amr._reduce.failures import LostFindings
from pandas_amr._reduce.truncate import NUMBER_TOKENS, truncate_to_fit
from pandas_amr._types.canonical import canonical_json
from pandas_amr.errors import InvalidOutput, ModelError
from pandas_amr.models.base import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pandas_amr._agent.dispatch import AgentTool
    from pandas_amr._agent.repl import Repl
    from pandas_amr._agent.window import Window
    from pandas_amr._findings.inputs import ReduceInput
    from pandas_amr._journal.cache import Answers
    from pandas_amr._journal.origins import Origins
    from pandas_amr._records.tokens import TokenCounter
    from pandas_amr._reduce.failures import ReduceFailures
    from pandas_amr._reduce.notes import Notes
    from pandas_amr._reduce.prompt import ReducePrompt
    from pandas_amr.models.base import Model
    from pandas_amr.tools import Tool


@dataclass(frozen=True, slots=True)
class ReduceAgent:
    """The agent at each node of a tree, intermediate or final.

    Attributes:
        max_tokens: what its window holds of findings and notes.
        failures: takes the nodes that fail.
        window: what a prompt may take.
        open_repl: gives an agent that has these findings its REPL.
        cache: the journal's reductions; None without a journal.
        origins_of: gives the fingerprints of the user's rows behind rows of the frame.
        shown: the rows whose values stand in the task or the notes, beside those of the findings.
        lost: what the tree has lost so far.
        redacts: whether notes pass a function of the user's, which is called in a thread.
    """

    prompt: ReducePrompt
    model: Model
    tools: tuple[Tool, ...]
    max_steps: int
    max_repairs: int
    max_tokens: int
    count: TokenCounter
    failures: ReduceFailures
    window: Window | None = None
    open_repl: Callable[[Sequence[str]], Repl] | None = None
    cache: Answers | None = None
    origins_of: Callable[[Iterable[int]], Origins] | None = None
    shown: frozenset[int] = frozenset()
    lost: LostFindings = field(default_factory=LostFindings)
    redacts: bool = False

    def size(self, one: ReduceInput) -> int:
        """Return the tokens of a finding in the prompt."""
        return self.count(one.line) + NUMBER_TOKENS

    def empty_result(self) -> Reduction | None:
        """Return the answer of a tree in which no findings are left.

        Raises:
            ModelError: nodes failed.
        """
        if self.lost.rows:
            raise ModelError("nothing is left to combine: all nodes before the last failed")
        return self.prompt.output.empty_reduction

    def lose_node(self, node: str, inputs: Sequence[ReduceInput], error: ModelError) -> None:
        """Go on without a node that failed.

        Raises:
            ModelError: the failure ends the run.
        """
        if error.fatal:
            raise error
        self.failures.add(f"{node}: {error}", error)
        self.lost.rows.update(*(one.rows for one in inputs))

    async def reduce(
        self, inputs: Sequence[ReduceInput], *, final: bool, notes: Notes | None = None
    ) -> Reduction:
        """Combine findings. What the model's window cannot hold is truncated, and counted.

        Args:
            inputs: the findings.
            final: whether this is the tree's last node.
            notes: writes what the agent is told beside the findings.

        Raises:
            ModelError: the service failed; the answer is not of its type after all repairs; or
                another node failed, and that ends the run.
        """
        self.failures.raise_earlier()
        read = self.shown.union(*(one.rows_behind for one in inputs))
        reduction = await self._reduce(inputs, read, final=final, notes=notes)
        return replace(reduction, read=read)

    async def _reduce(
        self,
        inputs: Sequence[ReduceInput],
        read: frozenset[int],
        *,
        final: bool,
        notes: Notes | None,
    ) -> Reduction:
        """Combine findings that were made from the rows ``read``."""
        inputs, text = await self._fit(inputs, notes)
        output = self.prompt.output_type(final=final)
        lines = [one.line for one in inputs]
        question = [str(final), text, *map(_canonical_line, lines)]
        origins = await self._find_origins(read)
        if self.cache is not None:
            read_cached = partial(_read_cached, output=output, inputs=inputs)
            cached = await self.cache.recall(
                question, read_cached, former=[str(final), text, *lines], origins=origins
            )
            if cached is not None:
                return cached
        messages = self.prompt.messages(lines, final=final, notes=text)
        repl = self.repl_for(lines, output, read) if lines else None
        try:
            reduction, payload = await self._ask_with_repairs(messages, inputs, output, repl)
            await self._make_durable(question, payload, origins)
            return reduction
        finally:
            await _close(repl)

    async def _make_durable(self, question: list[str], payload: object, origins: Origins) -> None:
        """Write an answer to the journal before it counts."""
        if self.cache is not None:
            await self.cache.keep(question, payload, origins)

    async def _find_origins(self, read: frozenset[int]) -> Origins:
        """Find the user's rows behind rows of the frame, for the journal."""
        if self.cache is None or self.origins_of is None:
            return ()
        origins: Origins = await run_off_loop(self.origins_of, read, size=len(read))
        note_origins([*origins, self.cache.keeper.base])
        return origins

    async def _fit(
        self, inputs: Sequence[ReduceInput], notes: Notes | None
    ) -> tuple[list[ReduceInput], str]:
        """Fit the findings into the window; in a thread if the notes pass the user's function."""
        if not self.redacts or notes is None:
            return self._fit_now(inputs, notes)
        fitted: tuple[list[ReduceInput], str] = await in_thread(self._fit_now, inputs, notes)
        return fitted

    def _fit_now(
        self, inputs: Sequence[ReduceInput], notes: Notes | None
    ) -> tuple[list[ReduceInput], str]:
        """Fit the findings into the window, beside the notes.

        The notes say how much was truncated. So they are rendered again if something was.
        """
        text = "" if notes is None else notes.render(self.lost)
        fitting, truncated = truncate_to_fit(inputs, self.max_tokens - self.count(text), self)
        if truncated:
            self.lost.truncated += truncated
            text = "" if notes is None else notes.render(self.lost)
            fitting, _ = truncate_to_fit(inputs, self.max_tokens - self.count(text), self)
        return fitting, text

    def repl_for(
        self, lines: Sequence[str], output: ReductionType, read: frozenset[int] = frozenset()
    ) -> Repl | None:
        """Make the REPL of an agent that has these findings; None if agents have none."""
        if self.open_repl is None:
            return None
        repl = self.open_repl(lines)
        repl.line = output.submit_line
        repl.positions = tuple(sorted(read))
        return repl

    async def _ask_with_repairs(
        self,
        messages: tuple[Message, ...],
        inputs: Sequence[ReduceInput],
        output: ReductionType,
        repl: Repl | None,
    ) -> tuple[Reduction, Any]:
        """Ask, and ask again for what cannot be used, in one REPL.

        Returns:
            The reduction, and the payload that the journal keeps.
        """
        usage = NO_USAGE
        problem = ""
        for attempt in range(self.max_repairs + 1):
            answer = await self._ask_once(messages, output, repl, is_repair=attempt > 0)
            usage += answer.usage
            _cite_all(answer, len(inputs))
            try:
                value, support = output.read(answer, inputs)
            except InvalidOutput as error:
                problem = str(error)
                answer.settle(0, {ABOUT_NO_UNIT: problem})
                text = prompts.answer_repair(problem, hand_in=self._hand_in_text(repl))
                messages = (*answer.conversation, Message("user", text))
                continue
            if repl is not None:
                usage += repl.spent
            answer.settle(1)
            if problem:
                record_event(partial(Repaired, units=1))
            return Reduction(value, support, usage), answer.payload
        raise InvalidOutput(f"The reduction cannot be used: {problem}.")

    async def _ask_once(
        self,
        messages: tuple[Message, ...],
        output: ReductionType,
        repl: Repl | None,
        *,
        is_repair: bool,
    ) -> Answer:
        tools: tuple[AgentTool, ...] = self.tools if repl is None else (repl, *self.tools)
        return await run_agent(
            self.model,
            messages,
            submission=output.submission(),
            phase="reduce",
            tools=tools,
            max_steps=self.max_steps,
            window=self.window,
            purpose=Purpose("reduce", is_repair=is_repair),
        )

    def _hand_in_text(self, repl: Repl | None) -> str:
        """Say by what a reduction is handed in again; nothing if it is typed."""
        if repl is not None:
            return prompts.by_line(repl.line)
        return prompts.by_tool("reduction") if self.tools else ""


def _canonical_line(line: str) -> str:
    return canonical_json(json.loads(line))


async def _close(repl: Repl | None) -> None:
    if repl is not None:
        await repl.close()


def _cite_all(answer: Answer, findings: int) -> None:
    """Cite all findings if code computed the answer and cited none.

    Only here is an answer marked so: a model cannot mark its own.
    """
    payload = answer.payload
    if not isinstance(payload, dict):
        return
    payload.pop(FROM_ALL_KEY, None)
    if answer.form == REPL_FORM and SOURCES_KEY not in payload:
        payload |= {SOURCES_KEY: list(range(findings)), FROM_ALL_KEY: True}


def _read_cached(
    payload: object, *, output: ReductionType, inputs: Sequence[ReduceInput]
) -> Reduction:
    """Read a reduction from the journal.

    Raises:
        InvalidOutput: it is not of this type, or not about these findings.
    """
    value, support = output.read(Answer(payload, None, (), NO_USAGE), inputs)
    return Reduction(value, support, Usage(recalled=1))
