"""A tree of reduce agents over a known number of leaves: findings are combined as they land."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pandas_amr._context.steps import ReduceSteps
from pandas_amr._records.concurrency import is_cancelled
from pandas_amr._records.raised import as_ordinary_error
from pandas_amr._reduce.packing import group_of, static_sizes
from pandas_amr.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._findings.inputs import ReduceInput
    from pandas_amr._findings.output import Reduction
    from pandas_amr._records.trace import Trace
    from pandas_amr._reduce.agent import ReduceAgent
    from pandas_amr._reduce.notes import Notes


class Child(NamedTuple):
    """What a node reads of one child: the names of the nodes that made it, and the findings."""

    nodes: tuple[str, ...]
    inputs: list[ReduceInput]


@dataclass(slots=True)
class StaticTree:
    """Runs each node as soon as the findings of all its children are there.

    Attributes:
        leaves: how many batches of findings are offered.
        fan_in: how many children an intermediate node has.
        notes: writes what the final agent is told beside the findings.
        name: what the names of its nodes in the trace begin with.
        steps: shows how far it is.
        sizes: the nodes per level; the leaves come first.
    """

    agent: ReduceAgent
    leaves: int
    fan_in: int
    trace: Trace
    notes: Notes
    name: str = ""
    steps: ReduceSteps = field(default_factory=ReduceSteps)
    sizes: list[int] = field(init=False)
    _waiting: dict[tuple[int, int], dict[int, Child]] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _root: asyncio.Future[Reduction | None] = field(init=False)

    def __post_init__(self) -> None:
        self.sizes = static_sizes(self.leaves, self.fan_in)
        self.steps.expect(self.sizes[1:])
        self._root = asyncio.get_running_loop().create_future()

    def offer(self, leaf: int, nodes: tuple[str, ...], inputs: list[ReduceInput]) -> None:
        """Take a leaf's findings; ``nodes`` made them."""
        self._add_child(0, leaf, Child(nodes, inputs))

    @property
    def failed(self) -> bool:
        """Whether there will be no answer."""
        if not self._root.done() or self._root.cancelled():
            return False
        return self._root.exception() is not None

    async def result(self) -> Reduction | None:
        """Return the final answer; None if there was nothing to combine.

        It is there once all leaves were offered. If a node fails, requests in flight are answered
        first: they are paid for, and the journal keeps the answers.

        Raises:
            ModelError: a node failed.
        """
        try:
            return await self._root
        except Exception:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            raise

    async def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """Stop what is still running; after an error, once requests in flight are answered."""
        del kind, trace
        if isinstance(error, Exception):
            await self.settle(error)
        await self.close()

    async def settle(self, error: Exception) -> None:
        """Begin no more nodes, since an error ends the run; wait for requests in flight."""
        if not self._root.done():
            self._root.set_exception(error)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """Stop what is still running."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._root.done() and not self._root.cancelled():
            self._root.exception()  # marks it as seen: asyncio logs an error that nobody has read
        self._root.cancel()

    def _add_child(self, level: int, index: int, child: Child) -> None:
        """Give a node's findings to its parent, and begin the parent if they were the last."""
        parent, expected = group_of(index, level, self.sizes, self.fan_in)
        children = self._waiting.setdefault((level + 1, parent), {})
        children[index] = child
        if len(children) < expected or self.failed:
            return
        del self._waiting[level + 1, parent]
        in_order = [children[number] for number in sorted(children)]
        task = asyncio.create_task(self._run_node(level + 1, parent, in_order))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_node(self, level: int, index: int, children: list[Child]) -> None:
        """Run a node. Whatever it raises goes to whoever awaits the final answer."""
        try:
            if level < len(self.sizes) - 1:
                name = f"{self.name}reduce-{level}-{index}"
                with self.steps.node(level):
                    inputs = await self._combine(name, level, children)
                self._add_child(level, index, Child((name,), inputs))
                return
            with self.steps.node(level):
                reduction = await self._answer(level, children)
            if not self._root.done():
                self._root.set_result(reduction)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            if not self._root.done():
                self._root.set_exception(as_ordinary_error(error))

    async def _combine(self, name: str, level: int, children: list[Child]) -> list[ReduceInput]:
        """Have an intermediate agent combine findings; return none of them if it fails."""
        inputs = _inputs_of(children)
        with self.trace.node(
            "reduce", id=name, level=level, parents=_parents_of(children), units=len(inputs)
        ) as node:
            if len(children) == 1 or not inputs:
                node.status = "passed"
                return inputs
            try:
                reduction = await self.agent.reduce(inputs, final=False)
            except ModelError as error:
                self.agent.lose_node(name, inputs, error)
                node.status = "failed"
                return []
            node.usage = reduction.usage
            return reduction.inputs()

    async def _answer(self, level: int, children: list[Child]) -> Reduction | None:
        """Have the final agent write the answer."""
        inputs = _inputs_of(children)
        with self.trace.node(
            "final-reduce",
            id=f"{self.name}final-reduce",
            level=level,
            parents=_parents_of(children),
            units=len(inputs),
        ) as node:
            if not inputs:
                node.status = "passed"
                return self.agent.empty_result()
            reduction = await self.agent.reduce(inputs, final=True, notes=self.notes)
            node.usage = reduction.usage
            return reduction


def _inputs_of(children: Sequence[Child]) -> list[ReduceInput]:
    inputs: list[ReduceInput] = []
    for child in children:
        inputs += child.inputs
    return inputs


def _parents_of(children: Sequence[Child]) -> tuple[str, ...]:
    """Name the nodes behind some children, each once: one may have made what several are."""
    names: dict[str, None] = {}
    for child in children:
        names.update(dict.fromkeys(child.nodes))
    return tuple(names)
