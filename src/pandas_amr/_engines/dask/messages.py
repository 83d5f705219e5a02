"""What driver and workers tell each other: the order of a run, reports, what came of a part."""

from __future__ import annotations

import pickle  # as all that Dask sends between its processes
import platform
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

    from pandas_amr._context.progress import Progress
    from pandas_amr._findings.corrections import CorrectedUnit
    from pandas_amr._findings.store import Failure
    from pandas_amr._journal.database import Entry
    from pandas_amr._journal.outcomes import FailureEntry, RememberedFailure
    from pandas_amr._records.usage import Budget, Phase, Usage
    from pandas_amr._run.frame_mapper import FrameMapper
    from pandas_amr.errors import AMRWarning

REPORT_S = 0.5  # between two reports of a part: what a worker's death may cost
SILENT_S = 5.0  # without a report: the part is nobody's any more

Halt: TypeAlias = Literal["", "finish", "drop"]  # go on; begin nothing more; and drop what is open
UsageLines: TypeAlias = "Mapping[tuple[Phase, str], Usage]"


def own_versions() -> tuple[str, str]:
    """Return the versions of this package and of Python, which driver and workers must share."""
    package = sys.modules[__name__.partition(".")[0]]
    major, minor, _ = platform.python_version_tuple()
    return str(package.__version__), f"{major}.{minor}"


class Sealed:
    """A value on its way through Dask, whose logs show the arguments of tasks: not this one's."""

    __slots__ = ("about", "data")

    def __init__(self, about: str, data: bytes) -> None:
        self.about = about
        self.data = data

    @classmethod
    def of(cls, about: str, value: object) -> Sealed:
        """Seal a value that can be pickled."""
        return cls(about, pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL))

    def open(self) -> Any:
        """Return the value."""
        return pickle.loads(self.data)  # noqa: S301 (what the driver sent as the task's argument)

    def __reduce__(self) -> tuple[Any, ...]:
        return Sealed, (self.about, self.data)

    def __repr__(self) -> str:
        return f"<{self.about}>"


@dataclass(frozen=True)
class JournalTraits:
    """What a worker has to know of the driver's journal."""

    path: str
    refresh: bool
    keep_inputs: bool


@dataclass(frozen=True)
class Order:
    """What all workers need to know of a run.

    Attributes:
        mapper: the map, with plan, model and settings.
        verb: the call's.
        criterion: what a filter asks, as it was given; None for a map.
        budget: what the run may spend, under the name that all its parts share.
        journal: the driver's; None if nothing is kept.
        wanted: the columns of the rows that the driver's reduce needs; None for all.
        returns_rows: whether these, the labels and a digest are to be returned: the driver does not
            have the rows.
        hashes_units: whether equal units of several parts are to be recognised.
    """

    mapper: FrameMapper
    verb: Literal["map", "filter"]
    criterion: Any
    budget: Budget | None
    journal: JournalTraits | None
    wanted: frozenset[Any] | None = frozenset()
    returns_rows: bool = False
    hashes_units: bool = False


@dataclass(frozen=True)
class PartOrder:
    """One task: where the driver is, and which part this is.

    Attributes:
        address: where the driver listens.
        run: tells the run apart from others of the driver.
        number: the part's place among all.
        versions: the driver's, as ``own_versions`` gives them.
        order: the ``Order``, as a pickle.
    """

    address: str
    run: str
    number: int
    versions: tuple[str, str]
    order: bytes = field(repr=False)


@dataclass(frozen=True)
class Begun:
    """The driver's answer to a part that begins.

    Attributes:
        seconds: what is left of the budget's seconds; None if these are not bounded.
        is_proven: whether units of other parts have succeeded.
    """

    seconds: float | None
    is_proven: bool


@dataclass(frozen=True)
class BaseNote:
    """What a base in the journal stands for; see ``Journal.about``."""

    base: bytes
    about: str
    reading: str
    origins: Sequence[tuple[bytes, bytes]]


@dataclass
class Report:
    """What a part has found since its last report, and how far it is.

    Attributes:
        usage: what it has spent since it began.
        progress: how many of its units have what.
        open_rows: how many are still to be mapped.
        outcome: what came of it, in its last report.
    """

    bases: list[BaseNote] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    links: list[tuple[bytes, bytes]] = field(default_factory=list)
    failures: list[FailureEntry] = field(default_factory=list)
    usage: UsageLines = field(default_factory=dict)
    progress: Progress | None = None
    open_rows: int = 0
    outcome: PartOutcome | FailedPart | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing for the journal."""
        return not (self.bases or self.entries or self.links or self.failures)


@dataclass(frozen=True)
class Claimed:
    """The driver's answer to keys that a part wants to ask about.

    Attributes:
        granted: those that it may ask about.
        found: what the journal has of them, as JSON.
        repaired: those of ``found`` that took a repair turn.
    """

    granted: frozenset[bytes]
    found: Mapping[bytes, str]
    repaired: frozenset[bytes]


@dataclass(frozen=True)
class MapOutcome:
    """What one map has found of a part.

    Attributes:
        positions: the units with a finding, counted from the beginning of the part.
        table: their findings under the map's own names, a row per unit.
        statuses: the status of each asked unit.
        from_journal: whether the journal had what is known of it.
        corrected: what is known of the units that a person corrected.
    """

    positions: NDArray[Any]
    table: pa.Table
    statuses: NDArray[Any]
    from_journal: NDArray[Any]
    corrected: Mapping[int, CorrectedUnit] = field(default_factory=dict)


@dataclass(frozen=True)
class PartOutcome:
    """What came of a part, be it all of it or not.

    Attributes:
        rows: how many rows it has.
        asked: its units, as in ``Units``.
        answered_by: likewise.
        maps: what each map has found.
        failures: the rows that failed; positions count from the beginning of the part.
        warnings: what the user is to be warned of.
        error: what ended it before its end, for all parts.
        halted: whether a failure is raised, or it was told to halt.
        usage: what it has spent.
        sandbox: what confined code of agents; empty if none ran.
        labels: of its rows, if the driver does not have them.
        columns: the columns that the reduce needs, likewise.
        digest: of its rows, likewise: if they are read again, they must be the same.
        digests: of the content of each asked unit, if equal ones are to be recognised.
    """

    rows: int
    asked: NDArray[Any]
    answered_by: NDArray[Any]
    maps: Mapping[str | None, MapOutcome]
    failures: Sequence[Failure] = ()
    warnings: Sequence[AMRWarning] = ()
    error: Exception | None = None
    halted: bool = False
    usage: UsageLines = field(default_factory=dict)
    sandbox: str = ""
    labels: pd.Index | None = None
    columns: pd.DataFrame | None = None
    digest: bytes = b""
    digests: Sequence[bytes] = ()


@dataclass(frozen=True)
class FailedPart:
    """A part that could not even begin: its order, or its rows, cannot be read."""

    error: Exception


Recalled: TypeAlias = "tuple[Mapping[bytes, str], set[bytes]]"
RememberedFailures: TypeAlias = "Mapping[bytes, RememberedFailure]"
