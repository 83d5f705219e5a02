"""Find the ends of shards that a model labelled carelessly.

Models grow careless late in a long shard: they repeat one label.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

LEAST_SHARD = 6  # units; the end of a smaller shard is not examined
LEAST_END = 3
HEADS_COUNT = 10  # how many values of a shard's own head the heads of all shards count for
CHANCE = 0.05  # an end is reported only if chance alone makes it less often than this
FALSE_REPORTS = 0.5  # shards that may be reported although they end so by chance
FALSE_SHARE = 0.2  # likewise, as a share of those that are reported


def find_careless_ends(
    column: pd.Series, shards: Mapping[str, Sequence[int]]
) -> Iterator[tuple[list[int], str]]:
    """Yield the positions of the shard ends at which a column is constant, each with the reason.

    An end counts if the values before it vary, and if neither the frame's order nor chance
    explains it.
    """
    values: dict[str, list[Any]] = {}
    ends: dict[str, int] = {}
    for name, positions in shards.items():
        if len(positions) >= LEAST_SHARD:
            values[name] = column.iloc[list(positions)].tolist()
            ends[name] = _varied_end(values[name])
    chances = _chances_of_ends(values, ends)
    highest = _highest_reported(chances.values(), examined=len(values))
    for name, chance in chances.items():
        if chance > highest:
            continue
        positions = shards[name]
        end = ends[name]
        reason = (
            f"{column.name} is the same in the last {end} of the {len(positions)} units of {name}, "
            "not before"
        )
        yield list(positions[-end:]), reason


def _chances_of_ends(
    values: Mapping[str, Sequence[Any]], ends: Mapping[str, int]
) -> dict[str, float]:
    """Return the chance of each constant end, by the shard's name."""
    common: Counter[str] = Counter()
    for name, shard in values.items():
        common.update(_head_of(shard, ends[name]))
    chances: dict[str, float] = {}
    for name, end in ends.items():
        if end:
            chances[name] = _chance_of_end(values[name], end, common)
    return chances


def _highest_reported(chances: Iterable[float], *, examined: int) -> float:
    """Return the highest chance of an end that is reported.

    Of many shards, some end so by chance; among the reported ones these should be few. This is the
    procedure of Benjamini and Hochberg (1995), except that half a false report is always allowed.
    """
    highest = -1.0
    for rank, chance in enumerate(sorted(chances), 1):
        expected = examined * chance  # how many of the shards end so by chance
        if chance <= CHANCE and expected <= max(FALSE_REPORTS, FALSE_SHARE * rank):
            highest = chance
    return highest


def constant_end(values: Sequence[Any]) -> int:
    """Count the equal values at the end of one shard; 0 if chance explains them.

    Example:
        >>> constant_end(["a", "b", "a", "c", "b", "a", "b", "b", "b", "b", "b"])
        5
        >>> constant_end(["a"] * 10 + ["b"])
        0
    """
    end = _varied_end(values)
    if not end:
        return 0
    common = Counter(_head_of(values, end))
    chance = _chance_of_end(values, end, common)
    return end if chance <= CHANCE else 0


def _varied_end(values: Sequence[Any]) -> int:
    """Count the equal values at the end of a shard; 0 if they are too few to be examined.

    That is so if the end is short, if the values before it do not vary, or if an order explains it.
    """
    if len(values) < LEAST_SHARD:
        return 0
    texts = [_comparable(value) for value in values]
    last = texts[-1]
    end = 0
    for text in reversed(texts):
        if text != last:
            break
        end += 1
    before = texts[:-end]
    least = max(LEAST_END, len(texts) / 3)
    varies = len(set(before)) >= 2
    if end < least or not varies or _is_ordered(values, before):
        return 0
    return end


def _is_ordered(values: Sequence[Any], before: Sequence[str]) -> bool:
    """Whether the frame is sorted by the values: numbers rise or fall, classes form blocks.

    Args:
        values: the values of a shard.
        before: those before its constant end, as texts.
    """
    if all(_is_sortable(value) for value in values):
        rises = falls = True
        for first, second in itertools.pairwise(values):
            rises = rises and first <= second
            falls = falls and first >= second
        return rises or falls
    blocks = 1
    for first_text, second_text in itertools.pairwise(before):
        blocks += first_text != second_text
    classes = len(set(before))
    return blocks == classes < len(before)


def _is_sortable(value: object) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float | dt.date)


def _chance_of_end(values: Sequence[Any], end: int, common: Mapping[str, int]) -> float:
    """Return how often a shard ends so if the end has the same distribution as the values before.

    The values before one end are a small sample. Those of all shards, which ``common`` counts, are
    added with the weight of ``HEADS_COUNT`` values.
    """
    last = _comparable(values[-1])
    seen = common.get(last, 0)
    total = sum(common.values())
    # Laplace's rule of succession: a value that was not seen before is still possible.
    common_share = (seen + 1) / (total + 2)
    head = _head_of(values, end)
    hits = head.count(last) + HEADS_COUNT * common_share
    share = hits / (len(head) + HEADS_COUNT)
    equal_to_first = end - 1  # the first value of the end may be any
    return float(share**equal_to_first)


def _head_of(values: Sequence[Any], end: int) -> list[str]:
    """Return the values before a constant end, as texts.

    The value just before the end is left out: it differs by definition.
    """
    length = len(values) - end - 1
    return [_comparable(value) for value in values[:length]]


def _comparable(value: Any) -> str:
    """Return a value as a text to compare; all missing values are equal."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return repr(None)
    return repr(value)
