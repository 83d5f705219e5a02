"""The rows that a claim rests on.

The few findings that an agent cites for a claim are evidence. Those that it cites in bulk are
not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

FEW = 8  # of so few findings, all may be evidence
MadeBy: TypeAlias = "Callable[[int], tuple[str, ...]]"  # names the map nodes behind a row
RUN = 5  # so many consecutive numbers are hardly chosen one by one


class Support(NamedTuple):
    """The rows behind a claim, as positions.

    Attributes:
        rows: all of them.
        general: those that are not evidence: an agent cited more than half of many findings.
        runs: those that an agent cited in a run of consecutive numbers.
    """

    rows: frozenset[int]
    general: frozenset[int] = frozenset()
    runs: frozenset[int] = frozenset()

    @property
    def evidence(self) -> frozenset[int]:
        """The rows that are evidence."""
        return self.rows - self.general


class HasSupport(Protocol):
    """A finding that rests on rows."""

    @property
    def support(self) -> Support:
        """The rows it rests on."""
        ...


def resolve_support(numbers: Sequence[int], findings: Sequence[HasSupport]) -> Support:
    """Resolve the numbers of the findings that an agent cites, among those that it has read.

    A row that was cited in bulk at a lower level is not evidence, unless another finding cites it
    as evidence.
    """
    cited = sorted(set(numbers))
    supports = [findings[number].support for number in cited]
    rows = _union(support.rows for support in supports)
    evidence = _union(support.evidence for support in supports)
    runs = _union(support.runs for support in supports)
    if len(findings) > FEW:
        in_runs = find_in_runs(cited)
        runs |= _union(findings[number].support.rows for number in in_runs)
        if 2 * len(cited) > len(findings):
            evidence = frozenset()
    return Support(rows, general=rows - evidence, runs=runs)


def find_in_runs(numbers: Sequence[int]) -> list[int]:
    """Return the numbers that stand in a run of at least ``RUN`` consecutive ones.

    Example:
        >>> find_in_runs([1, 4, 5, 6, 7, 8, 20])
        [4, 5, 6, 7, 8]
    """
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    in_long_runs: list[int] = []
    for run in runs:
        if len(run) >= RUN:
            in_long_runs += run
    return in_long_runs


def _union(parts: Iterable[frozenset[int]]) -> frozenset[int]:
    return frozenset().union(*parts)


def find_nodes(made_by: MadeBy, positions: Iterable[int]) -> tuple[str, ...]:
    """Return the nodes that made the rows at some positions, each once, in order."""
    nodes: dict[str, None] = {}
    for position in positions:
        nodes.update(dict.fromkeys(made_by(int(position))))
    return tuple(nodes)
