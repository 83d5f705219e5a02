"""Shards: token-bounded batches of units, in frame order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Shard:
    """A batch of units that one map agent gets: ``positions`` are rows of the frame."""

    number: int
    of: int
    positions: tuple[int, ...]

    def __repr__(self) -> str:
        return f"<Shard {self.number}/{self.of} rows={len(self.positions)}>"


def make_shards(
    asked: NDArray[np.int64],
    tokens: NDArray[np.int64],
    *,
    shard_size: int,
    shard_tokens: int,
    groups: NDArray[np.int64] | None = None,
) -> list[Shard]:
    """Cut the asked units, in order, so that no shard has more than ``shard_size`` units or ``shard_tokens`` tokens.

    A unit that alone is over the bound stands alone. With ``groups``, a number for each unit, a shard holds units of
    one group only: the groups in the order in which they begin, each in the frame's order.

    Example:
        >>> import numpy as np
        >>> make_shards(np.arange(5), np.array([4, 4, 9, 1, 1]), shard_size=3, shard_tokens=8)
        [<Shard 1/3 rows=2>, <Shard 2/3 rows=1>, <Shard 3/3 rows=2>]
    """
    numbers = _by_beginning(groups) if groups is not None else None
    if numbers is not None:
        order = np.argsort(numbers, kind="stable")
        asked, tokens, numbers = asked[order], tokens[order], numbers[order]
    bounds = [0]
    held = 0
    for index, size in enumerate(tokens.tolist()):
        count = index - bounds[-1]
        ends = numbers is not None and count and numbers[index] != numbers[index - 1]
        if count and (ends or count == shard_size or held + size > shard_tokens):
            bounds.append(index)
            held = 0
        held += size
    bounds.append(len(asked))
    positions = asked.tolist()
    return [
        Shard(number, len(bounds) - 1, tuple(positions[start:end]))
        for number, (start, end) in enumerate(itertools.pairwise(bounds), start=1)
        if end > start
    ]


def _by_beginning(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """The groups numbered in the order in which they begin."""
    _, firsts, codes = np.unique(groups, return_index=True, return_inverse=True)
    ranks = np.empty(len(firsts), dtype=np.int64)
    ranks[np.argsort(firsts)] = np.arange(len(firsts))
    return ranks[codes]
