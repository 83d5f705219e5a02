"""A tree of reduce agents by tokens: each gets as many findings as its budget holds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pandas_amr._context.steps import ReduceSteps
from pandas_amr._records.concurrency import run_concurrently
from pandas_amr._records.engine import run_off_loop
from pandas_amr._reduce.packing import next_level
from pandas_amr._reduce.truncate import truncate_to_fit
from pandas_amr._units.cells import to_json_line
from pandas_amr._units.split import split_text
from pandas_amr.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._findings.inputs import ReduceInput
    from pandas_amr._findings.output import Reduction
    from pandas_amr._records.trace import Trace
    from pandas_amr._reduce.agent import ReduceAgent
    from pandas_amr._reduce.notes import Notes

PIECE_KEY = "part"
SHRINKS = 0.75  # a level that leaves more of its findings' number hardly shrinks them
PIECE_SHARE = 0.8  # of the budget: the JSON around a piece takes some


@dataclass(slots=True)
class AdaptiveTree:
    """Packs findings into ``budget`` tokens level by level, until one agent holds all of them.

    A level that would hardly shrink the findings is not run. The large findings are condensed one
    by one instead, in pieces if they exceed the budget. That happens once, so that levels stay
    few. What is then still too much for the final agent is truncated, and the agent is told so.

    Attributes:
        budget: the tokens of findings that one agent gets.
        parallelism: how many nodes of a level run at once.
        notes: writes what the final agent is told beside the findings.
        name: what the names of its nodes in the trace begin with.
        steps: shows how far it is.
    """

    agent: ReduceAgent
    budget: int
    max_levels: int
    trace: Trace
    parallelism: int
    notes: Notes | None = None
    name: str = ""
    steps: ReduceSteps = field(default_factory=ReduceSteps)

    async def reduce(self, inputs: Sequence[ReduceInput]) -> Reduction | None:
        """Return the final agent's answer; None if nothing is left and the type is not a list.

        Raises:
            ModelError: the final node failed, or nothing is left because nodes failed.
        """
        inputs = list(inputs)
        level = 1
        is_condensed = False
        while level <= self.max_levels:
            sizes: list[int] = await run_off_loop(self._sizes, inputs, size=len(inputs))
            groups = next_level(sizes, self.budget)
            if groups is None and (is_condensed or self._nearly_fit(sizes)):
                break
            if groups is None or (not is_condensed and len(groups) > SHRINKS * len(inputs)):
                inputs = await self._condense_large(level, inputs, sizes)
                is_condensed = True
                level += 1
                continue
            inputs = await self._combine_groups(level, inputs, groups)
            level += 1
            if sum(self._sizes(inputs)) >= sum(sizes):
                break  # the answers are no smaller than what they were made of
        if not inputs:
            return self.agent.empty_result()
        return await self._answer(level, inputs)

    def _sizes(self, inputs: Sequence[ReduceInput]) -> list[int]:
        return [self.agent.size(one) for one in inputs]

    def _nearly_fit(self, sizes: Sequence[int]) -> bool:
        """Tell whether the final agent can hold all findings, or can if little is truncated."""
        total = sum(sizes)
        if total <= self.budget:
            return True
        return max(sizes) <= self.budget and total <= 2 * self.budget

    async def _combine_groups(
        self, level: int, inputs: list[ReduceInput], groups: list[list[int]]
    ) -> list[ReduceInput]:
        """Have one agent combine each group; return their answers in order."""
        batches = [[inputs[index] for index in group] for group in groups]
        combined: list[ReduceInput] = []
        for output in await self._run_level(level, batches):
            combined += output
        return combined

    async def _run_level(
        self, level: int, batches: Sequence[list[ReduceInput]], *, may_pass: bool = True
    ) -> list[list[ReduceInput]]:
        """Run the nodes of a level side by side; return what each gives, in order.

        With ``may_pass`` a finding that is alone in its batch goes on as it is.
        """
        outputs: list[list[ReduceInput]] = [[] for _ in batches]
        self.steps.expect_level(level, len(batches))

        async def run_node(number: int) -> None:
            name = f"{self.name}reduce-{level}-{number}"
            batch = batches[number]
            with self.steps.node(level):
                outputs[number] = await self._combine(name, level, batch, may_pass=may_pass)

        async for _ in run_concurrently(run_node, range(len(batches)), limit=self.parallelism):
            pass
        return outputs

    async def _combine(
        self, name: str, level: int, inputs: list[ReduceInput], *, may_pass: bool
    ) -> list[ReduceInput]:
        """Have an intermediate agent combine findings; return none of them if it fails."""
        with self.trace.node(
            "reduce", id=name, level=level, parents=makers(inputs), units=len(inputs)
        ) as node:
            if len(inputs) == 1 and may_pass:
                node.status = "passed"
                return [inputs[0].with_node(name)]
            try:
                reduction = await self.agent.reduce(inputs, final=False)
            except ModelError as error:
                self.agent.lose_node(name, inputs, error)
                node.status = "failed"
                return []
            node.usage = reduction.usage
        return [one.with_node(name) for one in reduction.inputs()]

    async def _condense_large(
        self, level: int, inputs: list[ReduceInput], sizes: list[int]
    ) -> list[ReduceInput]:
        """Condense each finding that is too large for two to fit together, in pieces if need be."""
        pieces: list[list[ReduceInput]] = []
        index_of: list[int] = []  # of the finding that a piece is of
        for index, size in enumerate(sizes):
            if 2 * size > self.budget:
                for piece in self._split(inputs[index]):
                    pieces.append([piece])
                    index_of.append(index)
        outputs = await self._run_level(level, pieces, may_pass=False)
        condensed: dict[int, list[ReduceInput]] = {}
        for index, output in zip(index_of, outputs, strict=True):
            condensed.setdefault(index, []).extend(output)
        result: list[ReduceInput] = []
        for index, one in enumerate(inputs):
            result += condensed.get(index, [one])
        return result

    def _split(self, one: ReduceInput) -> list[ReduceInput]:
        """Split a finding into pieces that fit into the budget."""
        limit = max(1, int(self.budget * PIECE_SHARE))
        pieces: list[ReduceInput] = []
        for span in split_text(one.line, limit=limit, overlap=0, count=self.agent.count):
            text = one.line[span.start : span.end]
            pieces.append(replace(one, line=to_json_line({PIECE_KEY: text})))
        return pieces

    async def _answer(self, level: int, inputs: list[ReduceInput]) -> Reduction:
        """Have the final agent write the answer."""
        inputs, truncated = truncate_to_fit(inputs, self.budget, self.agent)
        self.agent.lost.truncated += truncated
        self.steps.expect_level(level, 1, final=True)
        with (
            self.steps.node(level),
            self.trace.node(
                "final-reduce",
                id=f"{self.name}final-reduce",
                level=level,
                parents=makers(inputs),
                units=len(inputs),
            ) as node,
        ):
            reduction = await self.agent.reduce(inputs, final=True, notes=self.notes)
            node.usage = reduction.usage
        return reduction


def makers(inputs: Sequence[ReduceInput]) -> tuple[str, ...]:
    """Name the nodes that made some inputs, each once, in order."""
    names: dict[str, None] = {}
    for one in inputs:
        names.update(dict.fromkeys(one.nodes))
    return tuple(names)
