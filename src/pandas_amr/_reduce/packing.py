"""The shapes of reduce trees, as arithmetic: static by fan-in, adaptive by tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def static_sizes(leaves: int, fan_in: int) -> list[int]:
    """Boxes a level: the leaves first, the final reduce last.

    While a level has more than ``fan_in`` boxes, the next has one for each ``fan_in`` of them; then one final reduce.

    Example:
        >>> static_sizes(26, 5)
        [26, 6, 2, 1]
    """
    sizes = [leaves]
    while sizes[-1] > fan_in:
        sizes.append(-(-sizes[-1] // fan_in))
    return [*sizes, 1]


def reduce_calls(sizes: list[int], fan_in: int) -> int:
    """Model calls that a tree needs where each box needs one: a group of one is passed through without.

    Example:
        >>> reduce_calls([7, 3, 1], 3)
        3
    """
    passed = sum(below % fan_in == 1 for below in sizes[:-2])
    return sum(sizes[1:]) - passed


def group_of(index: int, level: int, sizes: list[int], fan_in: int) -> tuple[int, int]:
    """The box one level up that a box feeds, and how many feed it: ``(index, inputs)``.

    Example:
        >>> group_of(6, 0, [7, 3, 1], 3)
        (2, 1)
    """
    if level + 2 == len(sizes):
        return 0, sizes[level]
    group = index // fan_in
    return group, min(fan_in, sizes[level] - group * fan_in)


def first_fit_decreasing(tokens: Sequence[int], budget: int) -> list[list[int]]:
    """Items packed into bins of ``budget`` tokens: the largest first, each into the first bin where it fits.

    An item over the budget gets a bin of its own, which nothing joins. Johnson (1973); the first bin is found in a
    tree of free room, so that n items take O(n log n).

    Example:
        >>> first_fit_decreasing([10, 25, 50, 75, 100, 110], 100)
        [[5], [4], [3, 1], [2, 0]]
    """
    order = sorted(range(len(tokens)), key=lambda item: -tokens[item])
    size = 1
    while size < max(1, len(tokens)):
        size *= 2
    free = [budget] * (2 * size)  # bins that nothing is in yet have all of it
    bins: list[list[int]] = []
    for item in order:
        if tokens[item] > budget:
            place = len(bins)
        else:
            place = 1
            while place < size:
                place = 2 * place if free[2 * place] >= tokens[item] else 2 * place + 1
            place -= size
        if place >= len(bins):
            place = len(bins)
            bins.append([])
        bins[place].append(item)
        node = place + size
        free[node] = -1 if tokens[item] > budget else free[node] - tokens[item]
        while node > 1:
            node //= 2
            free[node] = max(free[2 * node], free[2 * node + 1])
    return bins


def next_level(tokens: Sequence[int], budget: int) -> list[list[int]] | None:
    """The groups that the next level reduces, each in order, by their first item; None where there is no such level.

    There is none where all fits the budget already, and where every group would hold one item: nothing would shrink.

    Example:
        >>> next_level([100] * 6, 250)
        [[0, 1], [2, 3], [4, 5]]
        >>> next_level([50, 51], 100) is None
        True
    """
    if sum(tokens) <= budget:
        return None
    groups = sorted(sorted(group) for group in first_fit_decreasing(tokens, budget))
    return None if len(groups) == len(tokens) else groups
