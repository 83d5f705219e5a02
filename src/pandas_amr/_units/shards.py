"""Shards: token-bounded batches of units, in frame order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pandas_amr._units.rows import IntArray


@dataclass(frozen=True, slots=True)
class Shard:
    """A batch of units for one map agent: ``positions`` are rows of the frame."""

    number: int
    of: int
    positions: tuple[int, ...]

    def __repr__(self) -> str:
        return f"<Shard {self.number}/{self.of} rows={len(self.positions)}>"


def make_shards(
    asked: IntArray,
    tokens: IntArray,
    *,
    shard_size: int,
    shard_tokens: int,
    groups: IntArray | None = None,
) -> list[Shard]:
    """Cut units into shards of at most ``shard_size`` units and ``shard_tokens`` tokens.

    A unit that alone exceeds the bound gets a shard of its own.

    Args:
        asked: the units' positions in the frame, in order.
        tokens: the tokens of each unit.
        shard_size: most units of a shard.
        shard_tokens: most tokens of a shard.
        groups: a number for each unit: a shard then holds units of one group only. Groups come in
            the order in which they begin, their units in the frame's order.

    Example:
        >>> import numpy as np
        >>> make_shards(np.arange(5), np.array([4, 4, 9, 1, 1]), shard_size=3, shard_tokens=8)
        [<Shard 1/3 rows=2>, <Shard 2/3 rows=1>, <Shard 3/3 rows=2>]
    """
    if not len(asked):
        return []
    begins_group = np.zeros(len(asked), dtype=bool)
    if groups is not None:
        ranks = _rank_groups(groups)
        order = np.argsort(ranks, kind="stable")
        asked, tokens = asked[order], tokens[order]
        begins_group = np.diff(ranks[order], prepend=-1) != 0
    starts = _find_starts(tokens.tolist(), begins_group.tolist(), shard_size, shard_tokens)
    positions = asked.tolist()
    bounds = itertools.pairwise([*starts, len(positions)])
    return [
        Shard(number, len(starts), tuple(positions[start:end]))
        for number, (start, end) in enumerate(bounds, start=1)
    ]


def _find_starts(
    tokens: list[int], begins_group: list[bool], shard_size: int, shard_tokens: int
) -> list[int]:
    """Find the index of the first unit of each shard."""
    starts = [0]
    total = 0
    for index, (size, is_first_of_group) in enumerate(zip(tokens, begins_group, strict=True)):
        count = index - starts[-1]
        is_full = count == shard_size or total + size > shard_tokens
        if count and (is_first_of_group or is_full):
            starts.append(index)
            total = 0
        total += size
    return starts


def _rank_groups(groups: IntArray) -> IntArray:
    """Number the groups from 0 in the order in which they begin."""
    _, firsts, codes = np.unique(groups, return_index=True, return_inverse=True)
    ranks = np.empty(len(firsts), dtype=np.int64)
    ranks[np.argsort(firsts)] = np.arange(len(firsts))
    return ranks[codes]
