"""What a claim rests on: the few findings that carry it are evidence; those that are named in bulk are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

FEW = 8  # of so many findings or fewer, all may carry a claim
RUN = 5  # so many consecutive numbers or more were hardly chosen one by one


class Support(NamedTuple):
    """The rows behind a claim, as positions.

    Attributes:
        rows: all of them.
        general: those of them that are no evidence, since an agent named more than half of many findings at once.
        runs: those that stand in a run of consecutive numbers of an agent.
    """

    rows: frozenset[int]
    general: frozenset[int] = frozenset()
    runs: frozenset[int] = frozenset()

    @property
    def evidence(self) -> frozenset[int]:
        """The rows that were chosen."""
        return self.rows - self.general


class Supported(Protocol):
    """A finding that rests on rows itself."""

    @property
    def support(self) -> Support:
        """What it rests on."""
        ...


def support_of(numbers: Sequence[int], findings: Sequence[Supported]) -> Support:
    """Resolve the numbers of the findings that an agent names, out of those that it has read.

    What was named in bulk on a lower level stays so, unless another finding brings it as evidence.
    """
    chosen = sorted(set(numbers))
    behind = [findings[number].support for number in chosen]
    rows = _union(support.rows for support in behind)
    evidence = _union(support.evidence for support in behind)
    is_bulk = len(findings) > FEW and 2 * len(chosen) > len(findings)
    runs = _union(support.runs for support in behind)
    if len(findings) > FEW:
        runs |= _union(findings[number].support.rows for number in in_runs(chosen))
    return Support(rows, general=rows if is_bulk else rows - evidence, runs=runs)


def in_runs(numbers: Sequence[int]) -> list[int]:
    """The numbers that stand in a run of at least ``RUN`` consecutive ones.

    Example:
        >>> in_runs([1, 4, 5, 6, 7, 8, 20])
        [4, 5, 6, 7, 8]
    """
    found: list[int] = []
    run: list[int] = []
    for number in sorted(set(numbers)):
        if run and number != run[-1] + 1:
            found += run if len(run) >= RUN else []
            run = []
        run.append(number)
    return found + (run if len(run) >= RUN else [])


def _union(parts: Iterable[frozenset[int]]) -> frozenset[int]:
    return frozenset().union(*parts)


def nodes_behind(
    made_by: Callable[[int], tuple[str, ...]], positions: Iterable[int]
) -> tuple[str, ...]:
    """The nodes that made the rows at some positions, each once, in order."""
    return tuple(dict.fromkeys(node for position in positions for node in made_by(int(position))))
