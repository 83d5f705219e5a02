"""What has come of a run so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pandas_amr._findings.inputs import collect_finding_rows, no_nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pandas_amr._findings.inputs import FindingRows
    from pandas_amr._findings.map_findings import MapFindings
    from pandas_amr._findings.store import Failure
    from pandas_amr._plan.call import Job
    from pandas_amr.errors import AMRWarning, ModelError, RunStopped


@dataclass
class State:
    """What a run's stages report, and what makes them stop early.

    Attributes:
        stage: what the run is at, in words for people; empty until it has begun.
        failures: the units that have no finding, and what of the reduce failed.
        warnings: what the user is warned of, in the order in which it was known.
        has_warned_of_units: whether the failed units are among them.
        has_warned_of_reduce: whether what failed of the reduce is.
        halted: whether no more shards are begun.
        ended_by: what ended the run before its end: a budget, or a service that is gone.
        reduce_error: the reduce's failure that the run is about to raise: no more nodes are begun.
        findings: what was mapped so far; from the start, if the run goes on from an earlier one.
        made_by: the map nodes behind the row at a position.
        keys_of: the keys of its findings in the journal, by map; None if nothing is mapped.
    """

    stage: str = ""
    failures: list[Failure] = field(default_factory=list)
    warnings: list[AMRWarning] = field(default_factory=list)
    has_warned_of_units: bool = False
    has_warned_of_reduce: bool = False
    halted: bool = False
    ended_by: RunStopped | None = None
    reduce_error: ModelError | None = None
    findings: MapFindings | None = None
    made_by: Callable[[int], tuple[str, ...]] = no_nodes
    keys_of: Callable[[int], dict[str | None, bytes]] | None = None

    def end(self, error: RunStopped) -> None:
        """Begin nothing more: the budget is used up, or the service will serve nothing more."""
        self.halted = True
        self.ended_by = self.ended_by or error

    def finding_rows(self, job: Job) -> FindingRows:
        """Convert what is found so far into rows to reduce."""
        return collect_finding_rows(
            job.frame, self.findings, by=job.by, is_mapped=job.maps, made_by=self.made_by
        )

    @property
    def end_reason(self) -> str | None:
        """Why the run stopped before its end."""
        return None if self.ended_by is None else str(self.ended_by)

    def sorted_failures(self, names: Sequence[str | None]) -> list[Failure]:
        """Return the failures in the order of the frame and the maps; the reduce's come first."""
        order = {name: place for place, name in enumerate(names)}

        def place(failure: Failure) -> tuple[int, int, str]:
            return failure.position, order.get(failure.map, 0), failure.reason

        return sorted(self.failures, key=place)
