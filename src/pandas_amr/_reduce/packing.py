"""The shapes of reduce trees, as arithmetic: static by fan-in, adaptive by tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def static_sizes(leaves: int, fan_in: int) -> list[int]:
    """Return the number of nodes per level: the leaves first, the final reduce last.

    While a level has more than ``fan_in`` nodes, the next level has one node per ``fan_in`` of
    them. Then one final reduce follows.

    Example:
        >>> static_sizes(26, 5)
        [26, 6, 2, 1]
    """
    sizes = [leaves]
    nodes = leaves
    while nodes > fan_in:
        nodes = -(-nodes // fan_in)  # rounded up
        sizes.append(nodes)
    return [*sizes, 1]


def level_calls(leaves: Sequence[bool], fan_in: int) -> list[int]:
    """Return the model calls of each level of a tree over leaves, of which some hold nothing.

    There is one per node, but none for a node with one child, or with nothing to read.

    Example:
        >>> level_calls([True] * 7, 3)
        [2, 1]
    """
    calls: list[int] = []
    level = list(leaves)
    while len(level) > fan_in:
        parents: list[bool] = []
        calls_of_level = 0
        for first in range(0, len(level), fan_in):
            children = level[first : first + fan_in]
            has_inputs = any(children)
            if has_inputs and len(children) > 1:
                calls_of_level += 1
            parents.append(has_inputs)
        calls.append(calls_of_level)
        level = parents
    final_calls = int(any(level))
    return [*calls, final_calls]


def group_of(index: int, level: int, sizes: list[int], fan_in: int) -> tuple[int, int]:
    """Return the index of a node's parent, and how many children that has.

    Example:
        >>> group_of(6, 0, [7, 3, 1], 3)
        (2, 1)
    """
    if level + 2 == len(sizes):
        return 0, sizes[level]
    group = index // fan_in
    rest = sizes[level] - group * fan_in
    return group, min(fan_in, rest)


class _FreeSpace:
    """The free space of bins, as a binary tree of maxima: the first bin that fits in O(log n)."""

    def __init__(self, most_bins: int, budget: int) -> None:
        self._size = 1
        while self._size < most_bins:
            self._size *= 2
        self._free = [budget] * (2 * self._size)  # a bin that nothing is in yet has all of it

    def find_first(self, tokens: int) -> int:
        """Return the first bin with at least so much space."""
        node = 1
        while node < self._size:
            left = 2 * node
            node = left if self._free[left] >= tokens else left + 1
        return node - self._size

    def take(self, place: int, tokens: int) -> None:
        """Take space of a bin."""
        node = place + self._size
        self._free[node] -= tokens
        while node > 1:
            node //= 2
            left = 2 * node
            self._free[node] = max(self._free[left], self._free[left + 1])


def first_fit_decreasing(tokens: Sequence[int], budget: int) -> list[list[int]]:
    """Pack items into bins of ``budget`` tokens: the largest first, each into the first that fits.

    An item over the budget gets a bin of its own, and nothing else joins it. See Johnson (1973).
    n items take O(n log n).

    Example:
        >>> first_fit_decreasing([10, 25, 50, 75, 100, 110], 100)
        [[5], [4], [3, 1], [2, 0]]
    """
    order = sorted(range(len(tokens)), key=tokens.__getitem__, reverse=True)
    space = _FreeSpace(max(1, len(tokens)), budget)
    bins: list[list[int]] = []
    for item in order:
        taken = tokens[item]
        if taken > budget:
            place = len(bins)
            taken = budget + 1  # leaves less than no space: not even an empty item joins it
        else:
            place = min(space.find_first(taken), len(bins))
        if place == len(bins):
            bins.append([])
        bins[place].append(item)
        space.take(place, taken)
    return bins


def next_level(tokens: Sequence[int], budget: int) -> list[list[int]] | None:
    """Return the groups of items that the next level reduces, in order of their first item.

    Returns:
        None if there is no next level: all items fit the budget, or each would be a group of its
        own, and nothing would shrink.

    Example:
        >>> next_level([100] * 6, 250)
        [[0, 1], [2, 3], [4, 5]]
        >>> next_level([50, 51], 100) is None
        True
    """
    if sum(tokens) <= budget:
        return None
    groups = first_fit_decreasing(tokens, budget)
    if len(groups) == len(tokens):
        return None
    for group in groups:
        group.sort()
    groups.sort()
    return groups
