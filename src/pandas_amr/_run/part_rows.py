"""What a reduce reads of parts: the columns that it needs, as a map stage would leave them."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from pandas_amr._findings.columns import array_of
from pandas_amr._findings.finding_type import only_list_type
from pandas_amr._findings.inputs import FindingRows, make_finding_rows
from pandas_amr._findings.map_findings import MapFindings, none_from_journal
from pandas_amr._findings.store import FindingStore
from pandas_amr._plan.aggregations import columns_of
from pandas_amr._plan.call import finding_types
from pandas_amr._result.part_files import joined_schema, part_starts
from pandas_amr._run.pipeline import may_dedupe
from pandas_amr._types.arrow import field_types
from pandas_amr._units.part_tables import frame_of
from pandas_amr._units.redaction import Redaction
from pandas_amr._units.units import Units, hash_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pandas_amr._context.spec import Spec
    from pandas_amr._findings.finding_type import FindingType
    from pandas_amr._findings.store import Failure
    from pandas_amr._plan.call import Job
    from pandas_amr._reduce.sources import ReduceOutcome
    from pandas_amr._result.part_files import WrittenPart

READ_WHOLE = frozenset({"chosen_number"})  # any column may be the one that is chosen
READ_FINDINGS = frozenset({"function", "agents", "agents_by_group"})

Statuses: TypeAlias = "NDArray[np.object_]"  # of each row, for one map


@dataclass(frozen=True)
class PartRows:
    """What a reduce works on.

    Attributes:
        job: the call, about the columns of the input that the reduce needs.
        units: the rows as units; equal ones share a unit if agents read what was found of it.
        rows: the rows of findings.
        findings: the columns of each map, and the statuses of the rows if agents read the findings.
        failures: of the rows, likewise.
        reader: reads further columns.
    """

    job: Job
    units: Units
    rows: FindingRows
    findings: MapFindings
    failures: list[Failure]
    reader: PartReader

    def complete(self, outcome: ReduceOutcome) -> ReduceOutcome:
        """Read the other columns of the rows that rank first, if these are the answer."""
        output = outcome.output
        if self.reader.is_whole or self.reader.spec.reduce_kind != "ranking" or output is None:
            return outcome
        positions = output.index.to_numpy(dtype=np.int64)
        return replace(outcome, output=self.reader.read_rows(positions))


@dataclass(frozen=True, slots=True)
class PartNodes:
    """Names the node of the part that a row belongs to, if this run has mapped it.

    Attributes:
        starts: the position of each part's first row.
        nodes: the nodes of the run.
    """

    starts: Sequence[int]
    nodes: frozenset[str]

    def __call__(self, position: int) -> tuple[str, ...]:
        """Name the node of the row at a position."""
        part = bisect_right(self.starts, position) - 1
        name = f"map-part-{part}"
        return (name,) if name in self.nodes else ()


class PartReader:
    """Reads columns of parts, those of the input and those of the maps.

    Args:
        spec: what the run was asked for.
        parts: all parts, in the order of the input.
    """

    def __init__(self, spec: Spec, parts: Sequence[WrittenPart]) -> None:
        self.spec = spec
        self.parts = parts
        self.rows = sum(part.rows for part in parts)
        self._dataset = open_parts(parts)
        self._kinds = finding_types(spec.job, spec.plan)
        self._columns = self._name_columns()
        self._wanted = self._find_wanted()

    def _name_columns(self) -> dict[str | None, list[str]]:
        """Name the columns of each map's findings in the parts."""
        columns: dict[str | None, list[str]] = {}
        inputs = set(self.spec.job.frame.columns)
        for number, name in enumerate(self.spec.job.names):
            kind = self._kinds[name]
            if kind is not None:
                columns[name] = list(kind.all_columns)
                continue
            empty = self._own_schema(number).empty_table()
            shown = FindingStore(name, None).named(empty).column_names
            columns[name] = [label for label in shown if label not in inputs]
        return columns

    def _own_schema(self, number: int) -> pa.Schema:
        """Return the columns of a map without a type, as it calls them, but not their types."""
        names: dict[str, None] = {}
        for part in self.parts:
            names |= dict.fromkeys(part.columns[number])
        fields = [(name, pa.null()) for name in names]
        return pa.schema(fields)

    def _find_wanted(self) -> set[Any] | None:
        """Return the columns that the reduce needs; None for all."""
        wanted = find_wanted(self.spec, self.list_type)
        if wanted is None:
            return None
        reads_findings = self.spec.reduce_kind in READ_FINDINGS
        if reads_findings or self.list_type is not None:
            for columns in self._columns.values():
                wanted.update(columns)
        return wanted

    @property
    def is_whole(self) -> bool:
        """Whether all columns are read."""
        return self._wanted is None

    @property
    def list_type(self) -> FindingType | None:
        """The type of the findings, if each unit holds a list of records and there is one map."""
        return only_list_type(list(self._kinds.values()))

    def _select(self, labels: Sequence[str]) -> list[str]:
        """Leave out what the reduce does not need."""
        if self._wanted is None:
            return list(labels)
        return [label for label in labels if label in self._wanted]

    def read_frame(self) -> pd.DataFrame:
        """Read the columns of the input that the reduce needs."""
        labels = self._select(list(self.spec.job.frame.columns))
        if not labels:
            return pd.DataFrame(index=pd.RangeIndex(self.rows))
        table = self._dataset.to_table(columns=labels)
        return frame_of(table)

    def read_findings(self, index: pd.Index) -> pd.DataFrame:
        """Read the columns of the findings that the reduce needs, as they are in memory."""
        columns: dict[str, Any] = {}
        for name, labels in self._columns.items():
            wanted = self._select(labels)
            table = self._dataset.to_table(columns=wanted)
            columns |= self._arrays_of(name, table)
        return pd.DataFrame(columns, index=index)

    def _arrays_of(self, name: str | None, table: pa.Table) -> dict[str, Any]:
        """Convert findings of a map to the arrays that it gives."""
        kind = self._kinds[name]
        types: Mapping[str, Any] = {}
        if kind is not None:
            of_fields = field_types(kind.model).values()
            types = dict(zip(kind.columns, of_fields, strict=True))
        arrays: dict[str, Any] = {}
        for label in table.column_names:
            arrays[label] = array_of(table.column(label), types.get(label))
        return arrays

    def read_rows(self, positions: NDArray[np.int64]) -> pd.DataFrame:
        """Read some rows whole."""
        inputs = list(self.spec.job.frame.columns)
        table = self._dataset.take(pa.array(positions))
        frame = frame_of(table.select(inputs)).set_axis(positions)
        for name, labels in self._columns.items():
            arrays = self._arrays_of(name, table.select(labels))
            for label, array in arrays.items():
                frame[label] = array
        return frame

    def read_statuses(self) -> list[Statuses]:
        """Read the status of each row, for each map."""
        tables = [part.read_statuses() for part in self.parts]
        whole = pa.concat_tables(tables)
        return [np.array(column.to_pylist(), dtype=object) for column in whole.columns]

    def read_failures(self) -> list[Failure]:
        """Read the failures of all parts, with positions in the whole input."""
        failures: list[Failure] = []
        starts = part_starts(self.parts)
        for part, start in zip(self.parts, starts, strict=True):
            for failure in part.read_failures():
                position = start + failure.position
                failures.append(replace(failure, position=position))
        return failures

    def share_units(self, frame: pd.DataFrame, statuses: Sequence[Statuses]) -> Units:
        """Make one unit of the rows with equal content and status, as a run over all of them."""
        units = plain_units(frame)
        if not may_dedupe(self.spec):
            return units
        index_of: dict[Any, int] = {}
        asked: list[int] = []
        answered_by: list[int] = []
        for position, digest in enumerate(self._hash_content()):
            of_row = [column[position] for column in statuses]
            key = (digest, *of_row)
            if key not in index_of:
                index_of[key] = len(asked)
                asked.append(position)
            answered_by.append(index_of[key])
        return replace(
            units,
            asked=np.array(asked, dtype=np.int64),
            answered_by=np.array(answered_by, dtype=np.int64),
        )

    def _hash_content(self) -> Iterator[bytes]:
        """Hash the content columns of each row, a part at a time."""
        job = self.spec.job
        labels = [job.frame.columns[column] for column in job.columns]
        for part in self.parts:
            table = part.read(labels).select(labels)
            frame = frame_of(table)
            if job.redaction is not None:
                redaction = Redaction(job.redaction.function)
                frame = redaction.frame(frame, None, has_index=False)
            columns = tuple(range(len(labels)))
            yield from hash_rows(frame, columns)

    def make_findings(self, units: Units, statuses: Sequence[Statuses]) -> MapFindings:
        """Make what the map stage would have left, but for the findings, which are read apart."""
        names = self.spec.job.names
        stores: dict[str | None, FindingStore] = {}
        for number, name in enumerate(names):
            store = FindingStore(name, self._kinds[name])
            if self._columns[name]:
                store.expect(self._own_schema(number))
            stores[name] = store
        by_map: dict[str | None, Statuses] = {}
        for name, column in zip(names, statuses, strict=False):
            by_map[name] = column[units.asked]
        return MapFindings(units, stores, by_map, none_from_journal(by_map), self.list_type)


def find_wanted(spec: Spec, list_type: FindingType | None) -> set[Any] | None:
    """Return the columns that a reduce names, of the input or of the findings; None for all."""
    plan = spec.plan
    is_read_by_rank = plan.ranking is not None and (spec.is_written or list_type)
    if spec.reduce_kind in READ_WHOLE or is_read_by_rank:
        return None
    wanted: set[Any] = set(spec.job.group_labels)
    wanted.update(columns_of(spec.aggregations))
    if plan.where is not None:
        wanted.add(plan.where)
    if plan.ranking is not None:
        wanted.add(plan.ranking.field)
    return wanted


def open_parts(parts: Sequence[WrittenPart], schema: pa.Schema | None = None) -> ds.Dataset:
    """Open parts as one dataset, in their order."""
    if not parts:
        return ds.dataset([], schema=schema)
    paths = [str(part.path) for part in parts]
    return ds.dataset(paths, schema=joined_schema(parts), format="parquet", partitioning=None)


def plain_units(frame: pd.DataFrame) -> Units:
    """Make a unit of each row, of which nothing is read."""
    rows = np.arange(len(frame), dtype=np.int64)
    return Units(
        frame=frame,
        sent=frame,
        columns=(),
        keys=(),
        asked=rows,
        answered_by=rows,
        tokens=np.zeros_like(rows),
    )


def collect_part_rows(spec: Spec, parts: Sequence[WrittenPart], nodes: frozenset[str]) -> PartRows:
    """Read what the reduce needs: some columns of the parts, and for agents the statuses.

    Args:
        spec: what the run was asked for.
        parts: all parts, in the order of the input.
        nodes: the nodes of the run's trace.
    """
    reader = PartReader(spec, parts)
    frame = reader.read_frame()
    findings = reader.read_findings(frame.index)
    job = select_columns(spec, frame)
    units = plain_units(frame)
    statuses: list[Statuses] = []
    failures: list[Failure] = []
    if spec.is_written or spec.job.column_agents:
        statuses = reader.read_statuses()
        failures = reader.read_failures()
        units = reader.share_units(frame, statuses)
    mapped = reader.make_findings(units, statuses)
    made_by = PartNodes(part_starts(parts), nodes)
    rows = make_finding_rows(frame, findings, reader.list_type, by=job.by, made_by=made_by)
    return PartRows(job, units, rows, mapped, failures, reader)


def select_columns(spec: Spec, frame: pd.DataFrame) -> Job:
    """Return the call about some of its columns, as they are sent."""
    labels = spec.job.frame.columns
    content = {labels[column] for column in spec.job.columns}
    places = [place for place, label in enumerate(frame.columns) if label in content]
    job = replace(spec.job, frame=frame, columns=tuple(places), redacted=None)
    if job.redaction is None or not spec.lms:
        return job
    redacted = job.redaction.frame(frame, None, has_index=job.has_repl)
    return replace(job, redacted=redacted)
