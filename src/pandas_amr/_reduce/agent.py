"""Reduce, where it must be written: a tree of agents over the findings, each answer checked, each claim's rows kept."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pandas_amr._agent import prompts
from pandas_amr._agent.loop import REPL_FORM, Answer, run_agent
from pandas_amr._findings.inputs import CUT_KEY, Input
from pandas_amr._findings.output import FROM_ALL_KEY, SOURCES_KEY, OutputType, Reduced
from pandas_amr._records.concurrency import is_cancelled
from pandas_amr._records.raised import contained
from pandas_amr._records.usage import Usage
from pandas_amr._reduce.packing import group_of, static_sizes
from pandas_amr._types.canonical import canonical_json
from pandas_amr._units.cells import line_of
from pandas_amr.errors import InvalidOutput, ModelError
from pandas_amr.models.base import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pandas_amr._agent.dispatch import AgentTool
    from pandas_amr._agent.repl import Repl
    from pandas_amr._agent.window import Window
    from pandas_amr._journal.cache import AnswerStore
    from pandas_amr._records.tokens import TokenCounter
    from pandas_amr._records.trace import Trace
    from pandas_amr.models.base import Model
    from pandas_amr.tools import Tool

Read = TypeVar("Read")
NUMBER_TOKENS = 8  # of a finding's number and its line's end
LEAST_TOKENS = 8  # of a finding that was cut


@dataclass(slots=True)
class Losses:
    """What a reduce lost on its way: the rows of nodes that failed, and how many findings were cut to fit.

    Attributes:
        tell: lists a node's failure, or raises it where nothing may fail.
    """

    tell: Callable[[str, ModelError], None]
    rows: set[int] = field(default_factory=set)
    cut: int = 0

    def lose(self, node: str, inputs: Sequence[Input], error: ModelError) -> None:
        """Go on without a node.

        Raises:
            ModelError: nothing that follows could succeed, or nothing may fail.
        """
        if error.stops_run:
            raise error
        self.tell(node, error)
        self.rows.update(*(one.rows for one in inputs))


def _name_all(answer: Answer, findings: int) -> None:
    """Name all findings as the sources of what code computed of them and named none; only then it is said so."""
    payload = answer.payload
    if not isinstance(payload, dict):
        return
    payload.pop(FROM_ALL_KEY, None)
    if answer.form == REPL_FORM and SOURCES_KEY not in payload:
        payload |= {SOURCES_KEY: list(range(findings)), FROM_ALL_KEY: True}


class Sized(Protocol):
    """What measures findings."""

    @property
    def count(self) -> TokenCounter:
        """Tokens of a text."""
        ...

    def size(self, one: Input) -> int:
        """Tokens of a finding in the prompt."""
        ...


def _recalled(payload: Any, *, output: OutputType, inputs: Sequence[Input]) -> Reduced:
    """Read a reduction out of the journal.

    Raises:
        InvalidOutput: it is none of this type, or of these findings.
    """
    value, support = output.read(Answer(payload, None, (), Usage()), inputs)
    return Reduced.of(value, support, Usage(recalled=1))


@dataclass(frozen=True, slots=True)
class Reducer:
    """An agent that combines findings, as an intermediate node or as the final one."""

    model: Model
    instruction: str
    output: OutputType
    tools: tuple[Tool, ...]
    max_steps: int
    max_repairs: int
    count: TokenCounter
    room: int
    losses: Losses
    persona: str = ""
    window: Window | None = None
    repls: Callable[[Sequence[str]], Repl] | None = None
    store: AnswerStore | None = None
    raised: Callable[[], ModelError | None] = lambda: None

    def size(self, one: Input) -> int:
        """The tokens of a finding in the prompt."""
        return self.count(one.line) + NUMBER_TOKENS

    def _hand_in(self, repl: Repl | None) -> str:
        """By what a reduction is handed in again; nothing if it is typed."""
        if repl is not None:
            return prompts.by_line(repl.line)
        return prompts.by_tool("reduction") if self.tools else ""

    def of_nothing(self) -> Reduced | None:
        """What comes of a tree in which nothing is left.

        Raises:
            ModelError: nodes failed.
        """
        if self.losses.rows:
            raise ModelError("nothing is left to combine: all nodes before the last failed")
        return self.output.nothing

    async def reduce(
        self, inputs: Sequence[Input], *, final: bool, told: Callable[[], str] = str
    ) -> Reduced:
        """One node's work. Findings that the model's window cannot hold are cut, and counted.

        ``told`` is what is said beside the findings; it is asked again once something was cut.

        Raises:
            ModelError: the service failed, or the answer is not of the promised type after its repairs; or another
                node has failed, and the run is to end with that.
        """
        if (error := self.raised()) is not None:
            raise error
        whole, computed = inputs, told()
        inputs, cut = fitted(whole, self.room - self.count(computed), self)
        if cut:
            self.losses.cut += cut
            computed = told()
            inputs, _ = fitted(whole, self.room - self.count(computed), self)
        output = self.output if final else self.output.partial
        former = [str(final), computed, *(one.line for one in inputs)]
        asked = [*former[:2], *(canonical_json(json.loads(one.line)) for one in inputs)]
        known = None
        if self.store is not None:
            known = await self.store.recall(
                asked, partial(_recalled, output=output, inputs=inputs), former=former
            )
        if known is not None:
            return known
        repl = self.repl_of([one.line for one in inputs], output) if inputs else None
        try:
            reduced, payload = await self._reduced(
                inputs, output, final=final, computed=computed, repl=repl
            )
            if self.store is not None:
                await self.store.keep(asked, payload)
            return reduced
        finally:
            if repl is not None:
                await repl.close()

    def repl_of(self, lines: Sequence[str], output: OutputType) -> Repl | None:
        """The REPL of an agent that reads these findings, if agents have one."""
        if self.repls is None:
            return None
        repl = self.repls(lines)
        repl.line = output.line
        return repl

    def opening(
        self, lines: Sequence[str], *, final: bool, tools: bool, computed: str = ""
    ) -> tuple[Message, ...]:
        """What a node's agent is told first."""
        output = self.output if final else self.output.partial
        shown = (
            {**output.schema} if output.item is None else {"type": "array", "items": output.schema}
        )
        system = prompts.reduce_system(
            self.instruction,
            final=final,
            output=shown,
            tools=tools,
            line=output.line if self.repls is not None else "",
            persona=self.persona,
            enforced=not tools and output.submission().response.strict,
        )
        user = prompts.finding_lines(lines) + (f"\n\n{computed}" if computed else "")
        return Message("system", system), Message("user", user)

    async def _reduced(
        self,
        inputs: Sequence[Input],
        output: OutputType,
        *,
        final: bool,
        computed: str,
        repl: Repl | None,
    ) -> tuple[Reduced, Any]:
        tools: tuple[AgentTool, ...] = self.tools if repl is None else (repl, *self.tools)
        lines = [one.line for one in inputs]
        messages = self.opening(lines, final=final, tools=bool(tools), computed=computed)
        usage = Usage()
        problem = ""
        for _ in range(self.max_repairs + 1):
            answer = await run_agent(
                self.model,
                messages,
                submission=output.submission(),
                phase="reduce",
                tools=tools,
                max_steps=self.max_steps,
                window=self.window,
            )
            usage += answer.usage
            _name_all(answer, len(inputs))
            try:
                value, support = output.read(answer, inputs)
            except InvalidOutput as error:
                problem = str(error)
                words = prompts.answer_repair(problem, hand_in=self._hand_in(repl))
                messages = (*answer.conversation, Message("user", words))
            else:
                return Reduced.of(
                    value, support, usage + (repl.spent if repl else Usage())
                ), answer.payload
        raise InvalidOutput(f"The reduction cannot be used: {problem}.")


@dataclass(slots=True)
class StaticTree:
    """A tree of reduce agents over a known number of leaves. A node starts as soon as its own inputs are there."""

    reducer: Reducer
    leaves: int
    fan_in: int
    trace: Trace
    losses: Losses
    name: str = ""
    computed: Callable[[], str] = str
    sizes: list[int] = field(init=False)
    _waiting: dict[tuple[int, int], dict[int, tuple[tuple[str, ...], list[Input]]]] = field(
        default_factory=dict
    )
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _failed: set[str] = field(default_factory=set)
    _root: asyncio.Future[Reduced | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def __post_init__(self) -> None:
        self.sizes = static_sizes(self.leaves, self.fan_in)

    def offer(self, leaf: int, nodes: tuple[str, ...], inputs: list[Input]) -> None:
        """Hand in a leaf's findings; ``nodes`` made them."""
        self._arrived(0, leaf, nodes, inputs)

    @property
    def failed(self) -> bool:
        """Whether there will be no answer."""
        return (
            self._root.done() and not self._root.cancelled() and self._root.exception() is not None
        )

    async def result(self) -> Reduced | None:
        """The final reduce's answer, once all leaves are handed in; None where there was nothing to write of.

        Raises:
            ModelError: a node failed.
        """
        try:
            return await self._root
        except Exception:
            await asyncio.gather(
                *self._tasks, return_exceptions=True
            )  # what is in flight is paid for, and kept
            raise

    async def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """Stop what is still running; where an error ends the run, once what is in flight is answered."""
        del kind, trace
        if isinstance(error, Exception):
            await self.settle(error)
        await self.close()

    async def settle(self, error: Exception) -> None:
        """Begin no more nodes, for an error that ends the run; what is in flight is paid for, and is waited for."""
        if not self._root.done():
            self._root.set_exception(error)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Stop what is still running."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._root.done() and not self._root.cancelled():
            self._root.exception()  # whoever wanted it has gone: the run ended early
        self._root.cancel()

    def _arrived(self, level: int, index: int, nodes: tuple[str, ...], inputs: list[Input]) -> None:
        group, wanted = group_of(index, level, self.sizes, self.fan_in)
        there = self._waiting.setdefault((level + 1, group), {})
        there[index] = (nodes, inputs)
        if len(there) == wanted and not self.failed:
            del self._waiting[level + 1, group]
            task = asyncio.create_task(
                self._run(level + 1, group, [there[index] for index in sorted(there)])
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _reduced(self, inputs: list[Input], *, final: bool, name: str) -> Reduced:
        """One node's work; where it fails, all but the last goes on without it."""
        try:
            return await self.reducer.reduce(
                inputs, final=final, told=self.computed if final else str
            )
        except ModelError as error:
            if final:
                raise
            self.losses.lose(name, inputs, error)
            self._failed.add(name)
            return Reduced([], (), Usage())

    async def _run(
        self, level: int, index: int, children: list[tuple[tuple[str, ...], list[Input]]]
    ) -> None:
        final = level == len(self.sizes) - 1
        name = f"{self.name}final-reduce" if final else f"{self.name}reduce-{level}-{index}"
        inputs = [one for _, part in children for one in part]
        try:
            with self.trace.node(
                "final-reduce" if final else "reduce",
                id=name,
                level=level,
                parents=tuple(parent for nodes, _ in children for parent in nodes),
                units=len(inputs),
            ) as node:
                reduced: Reduced | None
                if final and not inputs:
                    node.status = "passed"
                    reduced = self.reducer.of_nothing()
                elif not final and (len(children) == 1 or not inputs):
                    node.status = "passed"
                else:
                    reduced = await self._reduced(inputs, final=final, name=name)
                    node.usage = reduced.usage
                    node.status = "failed" if name in self._failed else node.status
                    inputs = reduced.inputs()
            if not final:
                self._arrived(level, index, (name,), inputs)
            elif not self._root.done():
                self._root.set_result(reduced)
        except BaseException as error:  # handed on to whoever awaits the root
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            if not self._root.done():
                self._root.set_exception(contained(error))


def fitted(inputs: Sequence[Input], room: int, reducer: Sized) -> tuple[list[Input], int]:
    """Inputs that fit into ``room`` tokens, and how many were cut for it: the longest are cut, all to one length."""
    count = reducer.count
    sizes = [reducer.size(one) for one in inputs]
    if sum(sizes) <= room:
        return list(inputs), 0
    low, high = 0, max(sizes)
    while low < high:  # the greatest length at which they fit
        middle = (low + high + 1) // 2
        if sum(min(size, middle) for size in sizes) <= room:
            low = middle
        else:
            high = middle - 1
    least = NUMBER_TOKENS + LEAST_TOKENS
    if low < least:  # not even their beginnings fit: of some nothing is shown
        most = max(1, room // least)
        step = len(inputs) / most
        chosen = [inputs[int(number * step)] for number in range(min(most, len(inputs)))]
        return [_cut(one, least - NUMBER_TOKENS, count) for one in chosen], len(inputs)
    made = [
        one if size <= low else _cut(one, low - NUMBER_TOKENS, count)
        for one, size in zip(inputs, sizes, strict=True)
    ]
    return made, sum(size > low for size in sizes)


def _cut(one: Input, tokens: int, count: TokenCounter) -> Input:
    """The beginning of a finding, in at most so many tokens."""
    if count(one.line) <= tokens:
        return one
    low, high = 0, len(one.line)
    while low < high:
        middle = (low + high + 1) // 2
        if count(line_of({CUT_KEY: one.line[:middle]})) <= tokens:
            low = middle
        else:
            high = middle - 1
    return replace(one, line=line_of({CUT_KEY: one.line[:low]}))
