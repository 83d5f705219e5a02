"""What is handed to the pipeline: a checked call, and what a run of it begins with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas_amr._context.progress import Watch
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.subrun import SharedRun
    from pandas_amr._findings.corrections import Corrections
    from pandas_amr._findings.map_findings import MapFindings
    from pandas_amr._findings.store import Failure
    from pandas_amr._journal.journal import Journal
    from pandas_amr._run.pipeline import Pipeline
    from pandas_amr._run.preview import PreviewOptions
    from pandas_amr._run.stream import PartStream
    from pandas_amr.models.lease import Leases


@dataclass(frozen=True)
class VerificationSample:
    """A random share of the asked units, which ``verify`` maps once more."""

    share: float
    seed: int


@dataclass(frozen=True)
class FindingOverride:
    """What a person corrected of the findings of an earlier run.

    Attributes:
        corrections: by the map's name and the unit's position; None takes one back.
        failures: the units that have no finding.
        reduces: whether the findings are reduced anew.
    """

    corrections: Corrections
    failures: Sequence[Failure]
    reduces: bool = True


class MakePipeline(Protocol):
    """Makes the pipeline of a run."""

    @property
    def iterable(self) -> bool:
        """Whether findings can be given as they land."""
        ...

    @property
    def rows(self) -> int | None:
        """How many rows it is about; None if that is not known yet."""
        ...

    def __call__(self, execution: Execution, watch: Watch) -> Pipeline:
        """Make it."""
        ...


@dataclass(frozen=True)
class Execution:
    """A run to be carried out.

    Attributes:
        spec: what was asked for, still without a plan.
        journal: where answers are kept.
        findings: what an earlier run found; only the rest is mapped.
        parent: the run that this one is part of.
        preview: what ``plan()`` wants to know beside the estimate.
        sample: the units that are mapped, if not all are.
        stream: the input, if it is read part by part; the spec is then about a sample of it.
        override: what a person corrected of the findings; then nothing is mapped.
        leases: what is shared with other processes; None if the setting says what.
        elsewhere: makes what carries it out, if rows are mapped elsewhere.
    """

    spec: Spec
    journal: Journal | None = None
    findings: MapFindings | None = None
    parent: SharedRun | None = None
    preview: PreviewOptions | None = None
    sample: VerificationSample | None = None
    stream: PartStream | None = None
    override: FindingOverride | None = None
    leases: Leases | None = None
    elsewhere: MakePipeline | None = None

    @property
    def is_iterable(self) -> bool:
        """Whether findings can be given as they land."""
        if self.elsewhere is not None:
            return self.elsewhere.iterable
        return self.stream is None

    def count_rows(self) -> int | None:
        """Return how many rows it is about; None if that is not known yet."""
        if self.elsewhere is not None:
            return self.elsewhere.rows
        return len(self.spec.job.frame) if self.stream is None else self.stream.source.rows
