"""Truncate findings that are too long for a model's window."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from pandas_amr._findings.inputs import TRUNCATED_KEY, ReduceInput
from pandas_amr._units.cells import to_json_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pandas_amr._records.tokens import TokenCounter

NUMBER_TOKENS = 8  # of a finding's number and its line's end
LEAST_TOKENS = 8  # of a truncated finding


class Sizer(Protocol):
    """Measures findings in tokens."""

    @property
    def count(self) -> TokenCounter:
        """Counts the tokens of a text."""
        ...

    def size(self, one: ReduceInput) -> int:
        """Return the tokens of a finding in the prompt."""
        ...


def truncate_to_fit(
    inputs: Sequence[ReduceInput], max_tokens: int, sizer: Sizer
) -> tuple[list[ReduceInput], int]:
    """Truncate the longest findings to one length, so that all fit into ``max_tokens``.

    If not even their beginnings fit, some findings from all over are taken, and the others left
    out.

    Returns:
        The findings, and how many of them were truncated or left out.
    """
    sizes = [sizer.size(one) for one in inputs]
    if sum(sizes) <= max_tokens:
        return list(inputs), 0

    def all_fit(length: int) -> bool:
        return sum(min(size, length) for size in sizes) <= max_tokens

    length = _largest(max(sizes), all_fit)
    if length < NUMBER_TOKENS + LEAST_TOKENS:
        return _take_beginnings(inputs, max_tokens, sizer.count), len(inputs)
    truncated = 0
    fitting: list[ReduceInput] = []
    for one, size in zip(inputs, sizes, strict=True):
        if size <= length:
            fitting.append(one)
        else:
            fitting.append(_truncate(one, length - NUMBER_TOKENS, sizer.count))
            truncated += 1
    return fitting, truncated


def _take_beginnings(
    inputs: Sequence[ReduceInput], max_tokens: int, count: TokenCounter
) -> list[ReduceInput]:
    """Take the beginnings of as many findings from all over as fit."""
    most = max(1, max_tokens // (NUMBER_TOKENS + LEAST_TOKENS))
    step = len(inputs) / most
    beginnings: list[ReduceInput] = []
    for number in range(min(most, len(inputs))):
        one = inputs[int(number * step)]
        beginnings.append(_truncate(one, LEAST_TOKENS, count))
    return beginnings


def _truncate(one: ReduceInput, max_tokens: int, count: TokenCounter) -> ReduceInput:
    """Return the beginning of a finding, of at most ``max_tokens`` tokens."""
    if count(one.line) <= max_tokens:
        return one

    def fits(length: int) -> bool:
        return count(to_json_line({TRUNCATED_KEY: one.line[:length]})) <= max_tokens

    length = _largest(len(one.line), fits)
    return replace(one, line=to_json_line({TRUNCATED_KEY: one.line[:length]}))


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number up to ``most`` that fits, by binary search; 0 if none does."""
    low = 0
    high = most
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low
