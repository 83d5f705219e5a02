"""Shards: token-bounded batches of units, in frame order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
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
    asked: NDArray[np.int64], tokens: NDArray[np.int64], *, shard_size: int, shard_tokens: int
) -> list[Shard]:
    """Cut the asked units, in order, so that no shard has more than ``shard_size`` units or ``shard_tokens`` tokens.

    A unit that alone is over the bound stands alone.

    Example:
        >>> import numpy as np
        >>> make_shards(np.arange(5), np.array([4, 4, 9, 1, 1]), shard_size=3, shard_tokens=8)
        [<Shard 1/3 rows=2>, <Shard 2/3 rows=1>, <Shard 3/3 rows=2>]
    """
    bounds = [0]
    held = 0
    for index, size in enumerate(tokens.tolist()):
        count = index - bounds[-1]
        if count and (count == shard_size or held + size > shard_tokens):
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
