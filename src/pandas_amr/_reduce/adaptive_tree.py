"""Reduce by tokens: level by level, as many findings to an agent as its budget holds, until one holds all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pandas_amr._records.concurrency import each
from pandas_amr._records.engine import aside
from pandas_amr._reduce.agent import Losses, Reducer, fitted
from pandas_amr._reduce.packing import next_level
from pandas_amr._units.cells import line_of
from pandas_amr._units.split import split_text
from pandas_amr.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pandas_amr._findings.inputs import Input
    from pandas_amr._findings.output import Reduced
    from pandas_amr._records.trace import Trace

PIECE_KEY = "part"
SHRINKS = 0.75  # a level that leaves more of its findings' number shrinks next to nothing
PIECE_SHARE = 0.8  # of the budget: JSON around a piece takes some


@dataclass(slots=True)
class AdaptiveTree:
    """First-fit-decreasing into ``budget`` tokens, level by level, and one final reduce.

    A level that would shrink nothing, or next to nothing, is not run. Findings too large to be put together are
    condensed one by one, those over the budget in pieces, once, so that levels stay few; what is still too much for the
    final agent is cut, and told.
    """

    reducer: Reducer
    budget: int
    max_levels: int
    trace: Trace
    losses: Losses
    parallelism: int
    name: str = ""
    computed: Callable[[], str] = str

    async def reduce(self, inputs: Sequence[Input]) -> Reduced | None:
        """The final reduce's answer.

        Raises:
            ModelError: the final node failed, or nothing is left to combine.
        """
        held = list(inputs)
        level = 1
        condensed = False
        while level <= self.max_levels:
            sizes: list[int] = await aside(self._sizes, held, size=len(held))
            groups = next_level(sizes, self.budget)
            if groups is None and (
                sum(sizes) <= self.budget
                or condensed
                or (max(sizes) <= self.budget and sum(sizes) <= 2 * self.budget)
            ):
                break  # it fits, or what the last agent cannot hold is little
            if groups is None or (not condensed and len(groups) > SHRINKS * len(held)):
                held = await self._condensed(level, held, sizes)
                condensed = True
            else:
                held = await self._level(level, held, groups)
                if sum(self.reducer.size(one) for one in held) >= sum(sizes):
                    level += 1
                    break  # the answers are no smaller than what they were made of
            level += 1
        if not held:
            return self.reducer.of_nothing()
        return await self._final(level, held)

    def _sizes(self, inputs: Sequence[Input]) -> list[int]:
        return [self.reducer.size(one) for one in inputs]

    async def _level(self, level: int, inputs: list[Input], groups: list[list[int]]) -> list[Input]:
        """Reduce each group; their answers in order. A group of one goes on as it is."""
        made: list[list[Input]] = [[] for _ in groups]

        async def one(number: int) -> tuple[int, list[Input]]:
            return number, await self._node(
                level, number, [inputs[index] for index in groups[number]]
            )

        async for number, done in each(one, range(len(groups)), limit=self.parallelism):
            made[number] = done
        return [one for part in made for one in part]

    async def _node(
        self, level: int, number: int, inputs: list[Input], *, alone: bool = False
    ) -> list[Input]:
        name = f"{self.name}reduce-{level}-{number}"
        with self.trace.node(
            "reduce", id=name, level=level, parents=makers(inputs), units=len(inputs)
        ) as node:
            if len(inputs) == 1 and not alone:
                node.status = "passed"
                return [one.made_by(name) for one in inputs]
            try:
                reduced = await self.reducer.reduce(inputs, final=False)
            except ModelError as error:
                self.losses.lose(name, inputs, error)
                node.status = "failed"
                return []
            node.usage = reduced.usage
        return [one.made_by(name) for one in reduced.inputs()]

    async def _condensed(self, level: int, inputs: list[Input], sizes: list[int]) -> list[Input]:
        """Findings of which no two fit together, each condensed alone; one over the budget in pieces that fit."""
        pieces: list[tuple[int, Input]] = []
        for index, (one, size) in enumerate(zip(inputs, sizes, strict=True)):
            if 2 * size > self.budget:
                limit = max(1, int(self.budget * PIECE_SHARE))
                texts = [
                    one.line[span.start : span.end]
                    for span in split_text(
                        one.line, limit=limit, overlap=0, count=self.reducer.count
                    )
                ]
                pieces += [(index, replace(one, line=line_of({PIECE_KEY: text}))) for text in texts]
        made: dict[int, list[Input]] = {}

        async def condense(number: int) -> tuple[int, list[Input]]:
            return number, await self._node(level, number, [pieces[number][1]], alone=True)

        done = {
            n: part async for n, part in each(condense, range(len(pieces)), limit=self.parallelism)
        }
        for number, (index, _) in enumerate(pieces):
            made.setdefault(index, []).extend(done[number])
        return [part for index, one in enumerate(inputs) for part in made.get(index, [one])]

    async def _final(self, level: int, inputs: list[Input]) -> Reduced:
        name = f"{self.name}final-reduce"
        inputs, cut = fitted(inputs, self.budget, self.reducer)
        self.losses.cut += cut
        with self.trace.node(
            "final-reduce", id=name, level=level, parents=makers(inputs), units=len(inputs)
        ) as node:
            reduced = await self.reducer.reduce(inputs, final=True, told=self.computed)
            node.usage = reduced.usage
        return reduced


def makers(inputs: Sequence[Input]) -> tuple[str, ...]:
    """The nodes that made some inputs, each once, in order."""
    return tuple(dict.fromkeys(node for one in inputs for node in one.nodes))
