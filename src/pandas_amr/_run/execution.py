"""What is handed to the pipeline: a checked call, and what a run of it begins with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas_amr._context.spec import Spec
    from pandas_amr._context.subrun import SharedRun
    from pandas_amr._findings.map_findings import MapFindings
    from pandas_amr._journal.journal import Journal
    from pandas_amr._run.preview import PreviewOptions
    from pandas_amr._run.stream import PartStream
    from pandas_amr.models.lease import Leases


@dataclass(frozen=True)
class VerificationSample:
    """A random share of the asked units, which ``verify`` maps once more."""

    share: float
    seed: int


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
        leases: what is shared with other processes; None if the setting says what.
    """

    spec: Spec
    journal: Journal | None = None
    findings: MapFindings | None = None
    parent: SharedRun | None = None
    preview: PreviewOptions | None = None
    sample: VerificationSample | None = None
    stream: PartStream | None = None
    leases: Leases | None = None
