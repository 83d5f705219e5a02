"""The shape of a static reduce tree, as arithmetic."""

from __future__ import annotations


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
