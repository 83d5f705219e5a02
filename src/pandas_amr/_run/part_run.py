"""One part of the input: mapped as a run of its own would be, and made into what its file holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pandas_amr._context.python_sessions import Converted
from pandas_amr._context.recording import note_rows
from pandas_amr._context.state import State
from pandas_amr._findings.finding_type import only_list_type
from pandas_amr._findings.map_findings import EMPTY, SKIPPED, MapFindings, none_from_journal
from pandas_amr._findings.store import CORRECTED, FOUND, FindingStore
from pandas_amr._journal.code_keys import describe_function
from pandas_amr._journal.keys import fingerprint
from pandas_amr._map.cached import CachedMapper
from pandas_amr._map.cut import make_context
from pandas_amr._map.mappers import describe_maps, make_mappers
from pandas_amr._map.stage import MapStage, make_breaker
from pandas_amr._plan.call import KEEP, finding_types
from pandas_amr._records.engine import in_thread
from pandas_amr._records.usage import NO_USAGE, Usage
from pandas_amr._result.frames import shown_columns, status_frame
from pandas_amr._result.part_files import NewPart
from pandas_amr._run.pipeline import make_read_units
from pandas_amr._run.redact import redact_spec
from pandas_amr._run.rows import trace_rows
from pandas_amr._types.canonical import canonical_json
from pandas_amr._units.batches import MOST_BYTES, MOST_ROWS
from pandas_amr._units.part_tables import frame_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from pandas_amr._context.progress import Watch
    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._map.breaker import Breaker
    from pandas_amr._records.trace import Trace
    from pandas_amr._result.part_files import WrittenPart
    from pandas_amr._units.batches import InputPart
    from pandas_amr._units.units import Units

# Fields of the plan that the rows of a part depend on, beside the questions of the maps.
ROW_FIELDS = ("columns", "status", "on_empty", "segmentation", "group_columns", "context_rows")
SHARD_FIELDS = ("shard_size", "shard_tokens")  # if what is found of a unit depends on its shard


def digest_question(spec: Spec, services: Services) -> str:
    """Digest what the rows of a part depend on, beside the rows of the input."""
    units = make_read_units(spec)
    plan, redaction = spec.plan.plain(), spec.job.redaction
    fields = list(ROW_FIELDS)
    if spec.job.callables or plan.get("keyed") == "shard":
        fields += SHARD_FIELDS
    question = {
        "maps": describe_maps(spec, services, units),
        "plan": {name: plan.get(name) for name in fields},
        "filter": spec.job.verb == "filter",
        "redact": None if redaction is None else describe_function(redaction.function),
        "content": [str(spec.job.frame.columns[column]) for column in spec.job.columns],
    }
    return fingerprint(canonical_json(question).encode()).hex()


async def digest_corrections(spec: Spec, services: Services) -> str:
    """Digest what the journal has of people who said what findings are; empty if nothing."""
    if services.journal is None:
        return ""
    units = await in_thread(make_read_units, spec)
    asking = replace(services, caches=[])
    digests: list[bytes] = []
    for mapper in await in_thread(make_mappers, spec, asking, units, make_context(spec, units)):
        if isinstance(mapper, CachedMapper):
            cache = mapper.for_corrections().cache
            digests.append(await cache.journal.digest(cache.base))
    return fingerprint(*digests).hex() if any(digests) else ""


def has_few_rows(parts: Sequence[InputPart]) -> bool:
    """Tell whether parts can be in memory side by side: together they are no larger than one."""
    rows = sum(part.rows for part in parts)
    size = sum(part.table.nbytes for part in parts if part.table is not None)
    return rows <= MOST_ROWS and size <= MOST_BYTES


def node_of_part(number: int) -> str:
    """Name the node of a part in the trace."""
    return f"map-part-{number}"


@dataclass(frozen=True)
class PlacedPart:
    """A part of the input, and where it stands.

    Attributes:
        number: its place among all parts.
        offset: how many rows of the input come before it.
        input: its rows.
        before: the same part as an earlier run has written it: with rows that failed, or before
            people said what findings are.
        corrections: a digest of what people have said; empty if nothing.
    """

    number: int
    offset: int
    input: InputPart
    before: WrittenPart | None = None
    corrections: str = ""

    @property
    def node(self) -> str:
        """The name of its node in the trace."""
        return node_of_part(self.number)


class PartRun:
    """Maps one part of the input.

    Args:
        spec: what the whole run was asked for.
        services: what it works with.
        placed: the part.
        watch: is shown how far it is.
        earlier: what decided when to give up in the parts before.
        schemas: the columns that functions without a type gave in the parts before.
    """

    def __init__(
        self,
        spec: Spec,
        services: Services,
        placed: PlacedPart,
        *,
        watch: Watch,
        earlier: Breaker,
        schemas: Mapping[str | None, pa.Schema],
    ) -> None:
        assert placed.input.table is not None
        self.placed = placed
        self.state = State()
        self.breaker = make_breaker(spec, earlier)
        self.schemas = dict(schemas)
        self._table = placed.input.table
        self._whole = services
        frame = frame_of(self._table, placed.offset)
        job = replace(spec.job, frame=frame, redacted=None)
        self._spec = replace(spec, job=job)
        self._services = replace(
            services,
            frame=Converted(frame),
            trace=services.trace.part(),
            prefix=f"{placed.node}/",
            watch=watch,
            caches=[],
        )

    async def map(self) -> NewPart | None:
        """Map the part; None if a unit was not mapped, or has a failure that is raised."""
        rows = self.placed.input.rows
        with self._whole.trace.node("map", id=self.placed.node, units=rows) as node:
            await self._redact()
            findings = await self._map_units()
            self._services.account_cached()
            node.usage = _sum_usage(self._services.trace)
            if self.state.failures:
                node.status = "partial"
            if self._is_unfinished:
                node.status = "cancelled" if self.state.ended_by is None else "failed"
                return None
            new: NewPart = await in_thread(self._make_part, findings)
            return new

    async def _redact(self) -> None:
        """Redact the rows, if the rows of the whole run are."""
        if self._spec.job.redaction is not None:
            self._spec = await in_thread(redact_spec, self._spec)
            self._services.frame = Converted(self._spec.job.sent)

    async def _map_units(self) -> MapFindings:
        """Map the units that no earlier run and no journal has."""
        spec, services = self._spec, self._services
        units = await services.run_large(spec, make_read_units, spec)
        if services.journal is not None:
            columns = units.known_by or units.columns
            services.rows = await services.run_large(spec, trace_rows, spec.job, columns, None)
            await note_rows(services, services.rows)
        stage = await services.run_large(spec, self._make_stage, units)
        await stage.recall()
        await stage.run(None)
        return stage.findings

    @property
    def _is_unfinished(self) -> bool:
        """Whether units were left out, or one has failed and that is raised."""
        state = self.state
        is_raised = bool(state.failures) and self._spec.settings.errors == "raise"
        return state.halted or state.ended_by is not None or is_raised

    def _make_stage(self, units: Units) -> MapStage:
        findings = self._earlier_findings(units)
        stage = MapStage(
            self._spec, self._services, self.state, units, findings, breaker=self.breaker
        )
        stage.recalls_corrections = True
        for name, store in stage.findings.stores.items():
            store.expect(self.schemas.get(name))
        return stage

    def _earlier_findings(self, units: Units) -> MapFindings | None:
        """Return what an earlier run found of the part, so that only what failed is mapped.

        None if no run wrote it, or if it wrote the rows that a filter keeps, and no findings.
        """
        job = self._spec.job
        part = self._before
        if part is None:
            return None
        table = part.read()
        kinds = finding_types(job, self._spec.plan)
        stores: dict[str | None, FindingStore] = {}
        of_units: dict[str | None, NDArray[np.object_]] = {}
        statuses = part.read_statuses().columns
        for name, column, own in zip(job.names, statuses, part.columns, strict=True):
            status = self._reopen(_to_objects(column)[units.asked])
            of_units[name] = status
            found = units.asked[np.isin(status, FOUND)]
            store = FindingStore(name, kinds[name])
            store.add_named(found, table, own)
            stores[name] = store
        return MapFindings(
            units,
            stores,
            of_units,
            none_from_journal(of_units),
            only_list_type(list(kinds.values())),
        )

    def _reopen(self, statuses: NDArray[np.object_]) -> NDArray[np.object_]:
        """Return statuses by which what failed is asked again.

        What a person said is looked up in the journal anew: it may have been taken back.
        """
        is_open = statuses == "failed"
        if self._services.journal is not None:
            is_open |= statuses == CORRECTED
        return np.where(is_open, SKIPPED, statuses)

    @property
    def _before(self) -> WrittenPart | None:
        """The part as an earlier run has written it, if the findings of all rows stand in it."""
        part = self.placed.before
        job = self._spec.job
        if part is None or part.rows != len(job.frame) or job.verb == "filter":
            return None
        return part

    def _make_part(self, findings: MapFindings) -> NewPart:
        """Write the findings beside the rows."""
        job, placed = self._spec.job, self.placed
        failures = self.state.sorted_failures(job.names)
        of_rows = findings.row_statuses()
        table = self._table
        columns = []
        for name, store in findings.stores.items():
            table = _append(table, self._with_known_columns(name, store, findings))
            columns.append([] if store.schema is None else list(store.schema.names))
        status_columns = self._spec.plan.status_columns
        if status_columns:
            status = status_frame(of_rows, None, failures, job.frame.index)
            shown = shown_columns(status, status_columns)
            table = _append(table, _text_table(shown))
        if job.verb == "filter":
            table = _keep_rows(table, of_rows)
        return NewPart(
            number=placed.number,
            key=placed.input.key,
            rows=len(job.frame),
            table=table,
            statuses=_status_table(findings),
            failures=failures,
            columns=columns,
            counts=dict(Counter(of_rows.tolist())),
            corrections=placed.corrections,
        )

    def _with_known_columns(
        self, name: str | None, store: FindingStore, findings: MapFindings
    ) -> pa.Table:
        """Return a map's findings row by row, with all columns that it has given until now."""
        units = findings.units
        found = store.row_table(units.asked, units.answered_by)
        if findings.list_type is not None:
            label = findings.list_type.count_column
            counts = pc.list_value_length(found.column(0)).cast(pa.int64())
            return found.append_column(label, counts)
        if store.schema is None or store.is_typed:
            return found
        self.schemas[name] = store.schema
        wanted = store.named(store.schema.empty_table())
        rows = len(units)  # a table without columns has lost their number
        for field in wanted.schema:
            if field.name not in found.column_names:
                found = found.append_column(field, pa.nulls(rows, field.type))
        return found


def _to_objects(column: pa.ChunkedArray) -> NDArray[np.object_]:
    return np.array(column.to_pylist(), dtype=object)


def _append(table: pa.Table, other: pa.Table) -> pa.Table:
    """Put the columns of a second table beside those of the first."""
    for label in other.column_names:
        table = table.append_column(label, other.column(label))
    return table


def _text_table(frame: pd.DataFrame) -> pa.Table:
    columns: dict[str, pa.Array] = {}
    for label in frame.columns:
        columns[label] = pa.array(frame[label].astype(object), pa.string(), from_pandas=True)
    return pa.table(columns)


def _status_table(findings: MapFindings) -> pa.Table:
    """Return the status of each row, a column per map."""
    columns: dict[str, pa.Array] = {}
    for number, column in enumerate(findings.statuses.values()):
        of_rows = column[findings.units.answered_by]
        columns[str(number)] = pa.array(of_rows, pa.string()).dictionary_encode()
    return pa.table(columns)


def _keep_rows(table: pa.Table, statuses: NDArray[np.object_]) -> pa.Table:
    """Return the rows that a filter keeps: those that it has not refused, and that have content."""
    met = pc.fill_null(table.column(KEEP), True)  # noqa: FBT003 (a value)
    has_content = pa.array(statuses != EMPTY)
    return table.filter(pc.and_(met, has_content)).drop_columns([KEEP])


def _sum_usage(trace: Trace) -> Usage:
    total = NO_USAGE
    for node in trace.nodes:
        total += node.usage
    return total
