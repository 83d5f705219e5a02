"""How far the stages of a run are: what a bar shows as one length, and in words."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from pandas_amr._records.clock import CLOCK
from pandas_amr._records.counts import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

StageName: TypeAlias = Literal["", "plan", "map", "reduce", "answer"]

PLAN_SHARE = 0.02  # of the bar, if there is a planner
REDUCE_SHARE = 0.2  # of the bar, if agents write the answer in a tree of unknown size
FULL = 0.99  # until the run has ended well
LEAST_ROWS = 3  # mapped by now: fewer tell little of how long the others take


@dataclass(slots=True)
class ReduceSteps:
    """How far the reduce agents are.

    Attributes:
        sizes: the nodes of each level that is known.
        done: the nodes of each of these levels that have ended.
        level: the highest level at which a node has begun.
        is_known: whether no further level comes.
        trees: how many trees there are, if they run side by side: one per group.
        trees_done: how many of them have ended.
    """

    sizes: list[int] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    level: int = 0
    is_known: bool = False
    trees: int = 0
    trees_done: int = 0

    def expect(self, sizes: list[int]) -> None:
        """Expect a tree with so many nodes per level."""
        self.sizes, self.done = list(sizes), [0] * len(sizes)
        self.is_known = True

    def expect_level(self, level: int, nodes: int, *, final: bool = False) -> None:
        """Expect one more level of a tree that grows level by level."""
        while len(self.sizes) < level:
            self.sizes.append(0)
            self.done.append(0)
        self.sizes[level - 1] += nodes
        self.is_known |= final

    @contextlib.contextmanager
    def node(self, level: int) -> Iterator[None]:
        """Count a node that runs while the block does."""
        self.level = max(self.level, level)
        try:
            yield
        finally:
            if level <= len(self.done):
                self.done[level - 1] += 1

    @property
    def share(self) -> float:
        """Which share of the reduce is done, from 0 to 1."""
        if self.trees:
            return self.trees_done / self.trees
        if self.is_known and self.sizes:
            return min(1.0, sum(self.done) / max(1, sum(self.sizes)))
        # How many levels come is unknown: each takes half of what is left.
        share, rest = 0.0, 1.0
        for size, done in zip(self.sizes, self.done, strict=True):
            rest /= 2
            share += rest * min(1.0, done / max(1, size))
        return share

    def __str__(self) -> str:
        if self.trees:
            return f"reduce {self.trees_done:,}/{counted(self.trees, 'group')}"
        if self.level == 0 or self.sizes == [1]:
            return "reduce"
        if self.is_known:
            return f"reduce level {self.level} of {len(self.sizes)}"
        return f"reduce level {self.level}"


@dataclass(slots=True)
class Steps:
    """How far a run is, stage by stage; its parts if it is a recipe.

    Attributes:
        stage: what it is at; empty until it is at anything that takes long.
        rows: how many are mapped, times the maps side by side.
        rows_done: how many of them need not be mapped any more.
        maps: how many maps run side by side.
        reduce: how far the reduce is.
        on_stage: is called when a stage begins.
    """

    stage: StageName = ""
    rows: int = 0
    rows_done: int = 0
    maps: int = 1
    reduce: ReduceSteps = field(default_factory=ReduceSteps)
    on_stage: Callable[[], None] | None = None
    _is_planned: bool = False
    _reduce_share: float = 0.0
    _map_began: float = 0.0
    _rows_before: int = 0
    _part: str = ""
    _span: tuple[float, float] = (0.0, 1.0)
    _shown: float = 0.0

    def begin_plan(self) -> None:
        """Begin to plan."""
        self._is_planned = True
        self._begin("plan")

    def begin_map(self, shards: int, *, is_written: bool) -> None:
        """Begin to map so many shards; ``is_written`` if agents reduce what is found."""
        self._map_began, self._rows_before = CLOCK.now(), self.rows_done
        self._reduce_share = REDUCE_SHARE if is_written else 0.0
        if is_written and self.reduce.is_known:
            nodes = sum(self.reduce.sizes)
            self._reduce_share = nodes / (nodes + shards)
        self._begin("map")

    def begin_reduce(self) -> None:
        """Begin to reduce what was found."""
        if self.stage != "map":
            self._reduce_share = 1.0
        self._begin("reduce")

    def begin_answer(self) -> None:
        """Begin to answer directly, from the whole content."""
        self._begin("answer")

    def _begin(self, stage: StageName) -> None:
        self.stage = stage
        if self.on_stage is not None:
            self.on_stage()

    @contextlib.contextmanager
    def part(self, number: int, of: int, name: str) -> Iterator[None]:
        """Show what runs in the block as one of several parts of the run."""
        low, high = before = self._span
        part = self._part
        width = (high - low) / of
        self._span = (low + (number - 1) * width, low + number * width)
        if not part and of > 1:
            self._part = f"stage {number} of {of}, {name}: "
        self._restart()
        try:
            yield
        finally:
            self._span, self._part = before, part

    def _restart(self) -> None:
        self.stage = ""
        self.rows = self.rows_done = 0
        self.maps = 1
        self.reduce = ReduceSteps()
        self._is_planned, self._reduce_share = False, 0.0

    def set_rows(self, rows: int, done: int, *, maps: int) -> None:
        """Set how many rows are mapped, and how many of them are done."""
        self.rows, self.rows_done, self.maps = rows, done, maps

    @property
    def share(self) -> float:
        """Which share of the run is done, from 0 to 1: it never falls."""
        low, high = self._span
        share = low + (high - low) * self._share_of_part
        self._shown = max(self._shown, min(share, FULL))
        return self._shown

    @property
    def _share_of_part(self) -> float:
        if self.stage == "plan":
            return 0.0
        plan_share = PLAN_SHARE if self._is_planned else 0.0
        rest = 1.0 - plan_share
        is_mapped = self.rows_done / self.rows if self.rows else 0.0
        map_share = (1.0 - self._reduce_share) * is_mapped
        return plan_share + rest * (map_share + self._reduce_share * self.reduce.share)

    @property
    def left_s(self) -> float | None:
        """How many seconds the map still takes, as fast as it was until now; None if unknown."""
        done = self.rows_done - self._rows_before
        if self.stage != "map" or done < LEAST_ROWS:
            return None
        return (CLOCK.now() - self._map_began) / done * (self.rows - self.rows_done)

    @property
    def title(self) -> str:
        """What the run is at."""
        if self.stage == "map":
            maps = f" of {self.maps} maps" if self.maps > 1 else ""
            rows = f"{self.rows_done:,}/{counted(self.rows, 'row')}"
            return f"{self._part}map {rows}{maps}"
        if self.stage == "reduce":
            return f"{self._part}{self.reduce}"
        return f"{self._part}{self.stage}".removesuffix(": ")
