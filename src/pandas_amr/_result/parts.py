"""The result of a run that was read part by part: its frame is a dataset of files."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np
import pandas as pd

from pandas_amr._findings.map_findings import STATUSES
from pandas_amr._records.counts import counted, counted_of
from pandas_amr._records.tracebacks import user_tracebacks
from pandas_amr._result.display import line_of_parts
from pandas_amr._result.explain import find_positions
from pandas_amr._result.facts import count_statuses
from pandas_amr._result.frames import failures_frame, status_frame
from pandas_amr._result.part_files import part_starts
from pandas_amr._result.records import Kind
from pandas_amr._result.result import Output, Result
from pandas_amr._result.row_places import PartPlaces
from pandas_amr._units.part_tables import frame_of
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from pandas_amr._findings.store import Failure
    from pandas_amr._result.part_files import WrittenPart
    from pandas_amr._result.row_places import RowPlaces


OVERRIDE_ELSEWHERE = (
    "call the verb for the rows in memory, with the same journal, and correct that result"
)


class ResultOfParts(Result[Output, Kind]):
    """The outcome of a run whose rows are not in memory: what needs all of them is refused.

    Attributes:
        _name: what it is, for people.
        _ways: what to do instead, by the method.
    """

    _name: ClassVar[str] = ""
    _ways: ClassVar[Mapping[str, str]] = {}

    def retry(self, **options: Any) -> NoReturn:
        """Refuse: the same call maps again what failed, and nothing else.

        Raises:
            UsageError: always.
        """
        del options
        self._refuse("retry")

    def score(self, *labels: Any, **options: Any) -> NoReturn:
        """Refuse: it compares a frame in memory.

        Raises:
            UsageError: always.
        """
        del labels, options
        self._refuse("score")

    def verify(self, **options: Any) -> NoReturn:
        """Refuse: it draws from a frame in memory.

        Raises:
            UsageError: always.
        """
        del options
        self._refuse("verify")

    def review(self, *most: Any, **options: Any) -> NoReturn:
        """Refuse: it compares rows in memory.

        Raises:
            UsageError: always.
        """
        del most, options
        self._refuse("review")

    def override(self, *corrections: Any, **options: Any) -> NoReturn:
        """Refuse: it corrects a frame in memory.

        Raises:
            UsageError: always.
        """
        del corrections, options
        self._refuse("override")

    def diff(self, *other: Any, **options: Any) -> NoReturn:
        """Refuse: it compares frames in memory.

        Raises:
            UsageError: always.
        """
        del other, options
        self._refuse("diff")

    def save(self, folder: object) -> NoReturn:
        """Refuse: what stands in files already, or can be written part by part, is not saved.

        Raises:
            UsageError: always.
        """
        del folder
        self._refuse("save")

    def _refuse(self, method: str) -> NoReturn:
        ways = {"override": OVERRIDE_ELSEWHERE, **self._ways}
        way = ways.get(method, "call it for a sample that fits into memory")
        raise UsageError(f"{self._name} has no {method}(): {way}.")


@user_tracebacks  # and not public: pickles find it by the name of its module
@dataclass(frozen=True, eq=False, repr=False)
class StreamedResult(ResultOfParts[Output, Kind]):
    """The outcome of a run with ``out=``.

    ``frame`` and ``findings`` are pyarrow Datasets over the parts, in the order of the input:
    nothing of them is in memory until it is read. If a unit can hold many records, ``findings`` has
    them as a list. ``failures`` has one more column, ``part``: the file that holds the row.
    ``label`` and ``position`` are the row's number in the whole input.

    Attributes:
        folder: where the parts are.
        parts: what each of them is.
        unread: how many rows of the input have no place in the parts, since the run stopped early;
            0 also if the input tells only at its end how many it has.
    """

    folder: Path = field(kw_only=True)
    parts: Sequence[WrittenPart] = field(kw_only=True)
    unread: int = field(default=0, kw_only=True)
    _name: ClassVar[str] = "A result with out="
    _ways: ClassVar[Mapping[str, str]] = {
        "retry": "make the same call again, which maps only the rows that failed",
        "save": "its parts are files already, in result.folder",
    }

    @property
    def rows(self) -> int:
        """How many rows of the input have a place in the parts."""
        return sum(part.rows for part in self.parts)

    def explain(
        self, item: int = 0, *, group: object = None, column: object = None
    ) -> pd.DataFrame:
        """Return the rows of the parts that an item of the output is based on.

        Raises:
            UsageError: as ``Result.explain``.
        """
        positions = find_positions(self.sources, item, group, column)
        frame = frame_of(self.frame.take(np.asarray(positions, dtype=np.int64)))
        return frame.set_axis(positions)

    @property
    def _row_places(self) -> RowPlaces:
        """The rows, and where they stand in the parts."""
        return PartPlaces(self.parts, self.findings)

    def __repr__(self) -> str:
        counts = count_statuses(self)
        problems = {status: counts.get(status, 0) for status in ("failed", "empty", "skipped")}
        total = self.rows + self.unread
        rows = counted_of(total - sum(problems.values()), total, "row")
        parts = counted(len(self.parts), "part")
        return line_of_parts(f"{rows} in {parts}", self, problems)

    def _found_columns(self) -> list[str]:
        """Return the columns of the findings; those of the input have other names."""
        schema: pa.Schema = self.findings.schema
        return list(schema.names)


def failures_of_parts(parts: Sequence[WrittenPart], of_reduce: Sequence[Failure]) -> pd.DataFrame:
    """Build ``failures``: those of the reduce, then those of the rows with the names of the parts.

    A failed reduce has no part.
    """
    failures = list(of_reduce)
    names: list[str | None] = [None] * len(failures)
    for part, start in zip(parts, part_starts(parts), strict=True):
        of_part = _read_failures(part, start)
        failures += of_part
        names += [part.path.name] * len(of_part)
    rows = sum(part.rows for part in parts)
    frame = failures_frame(failures, pd.RangeIndex(rows))
    return frame.assign(part=pd.Series(names, dtype=object))


def status_of_parts(parts: Sequence[WrittenPart]) -> pd.DataFrame:
    """Build ``status``: one row per row of the input."""
    worst: list[NDArray[np.object_]] = [np.array([], dtype=object)]
    failures: list[Failure] = []
    for part, start in zip(parts, part_starts(parts), strict=True):
        worst.append(_worst_statuses(part))
        failures += _read_failures(part, start)
    statuses = np.concatenate(worst)
    return status_frame(statuses, None, failures, pd.RangeIndex(len(statuses)))


def _read_failures(part: WrittenPart, start: int) -> list[Failure]:
    """Read the failures of a part that begins at a position of the whole input."""
    failures: list[Failure] = []
    if not part.failed:
        return failures
    for failure in part.read_failures():
        position = start + failure.position
        failures.append(replace(failure, position=position))
    return failures


def _worst_statuses(part: WrittenPart) -> NDArray[np.object_]:
    """Return the status of each row, the worst of its maps'."""
    ranks = np.zeros(part.rows, dtype=np.int64)
    for column in part.read_statuses().columns:
        own = pd.Categorical(column.to_pylist(), categories=list(STATUSES)).codes
        ranks = np.maximum(ranks, own)
    statuses: NDArray[np.object_] = np.array(STATUSES, dtype=object)[ranks]
    return statuses
