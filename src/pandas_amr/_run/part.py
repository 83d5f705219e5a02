"""One part of the input: mapped as a run of its own would be, and made into what its file holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pandas_amr._context.python_sessions import Converted
from pandas_amr._context.state import State
from pandas_amr._findings.map_findings import EMPTY, SKIPPED, MapFindings
from pandas_amr._findings.store import FOUND, FindingStore
from pandas_amr._journal.keys import fingerprint
from pandas_amr._map.mappers import describe_maps
from pandas_amr._map.stage import MapStage, make_breaker
from pandas_amr._plan.call import KEEP, finding_types
from pandas_amr._records.trace import Trace
from pandas_amr._records.usage import Usage
from pandas_amr._result.frames import status_frame
from pandas_amr._result.part_files import NewPart
from pandas_amr._run.pipeline import make_read_units
from pandas_amr._types.canonical import canonical_json
from pandas_amr._units.arrow_tables import frame_of
from pandas_amr._units.batches import MOST_BYTES, MOST_ROWS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pandas_amr._context.progress import Watch
    from pandas_amr._context.services import Services
    from pandas_amr._context.spec import Spec
    from pandas_amr._map.breaker import Breaker
    from pandas_amr._result.part_files import Part
    from pandas_amr._units.batches import InputPart
    from pandas_amr._units.units import Units

# Fields of the plan that the rows of a part depend on, beside the questions of the maps.
ROW_FIELDS = ("columns", "status", "on_empty", "segmentation", "group_columns", "context_rows")
SHARD_FIELDS = ("shard_size", "shard_tokens")  # if what is found of a unit depends on its shard


def digest_question(spec: Spec, services: Services) -> str:
    """Digest what the rows of a part depend on, beside the rows of the input."""
    units = make_read_units(spec)
    plan = spec.plan.plain()
    fields = list(ROW_FIELDS)
    if spec.job.callables or plan.get("keyed") == "shard":
        fields += SHARD_FIELDS
    question = {
        "maps": describe_maps(spec, services, units),
        "plan": {name: plan.get(name) for name in fields},
        "filter": spec.job.verb == "filter",
        "content": [str(spec.job.frame.columns[column]) for column in spec.job.columns],
    }
    return fingerprint(canonical_json(question).encode()).hex()


def has_few_rows(parts: Sequence[InputPart]) -> bool:
    """Tell whether parts can be in memory side by side: together they are no larger than one."""
    rows = sum(part.rows for part in parts)
    size = sum(part.table.nbytes for part in parts if part.table is not None)
    return rows <= MOST_ROWS and size <= MOST_BYTES


class PartRun:
    """Maps one part of the input.

    Args:
        spec: what the whole run was asked for.
        services: what it works with.
        number: the part's place among all parts.
        input_part: its rows.
        offset: how many rows of the input come before it.
        watch: is shown how far it is.
        earlier: what decided when to give up in the parts before.
        before: the same part as an earlier run has written it, with rows that failed.
        schemas: the columns that functions without a type gave in the parts before.
    """

    def __init__(
        self,
        spec: Spec,
        services: Services,
        number: int,
        input_part: InputPart,
        offset: int,
        watch: Watch,
        earlier: Breaker,
        before: Part | None,
        schemas: Mapping[str | None, pa.Schema],
    ) -> None:
        assert input_part.table is not None
        self.number = number
        self.input = input_part
        self.offset = offset
        self.state = State()
        self.breaker = make_breaker(spec, earlier)
        self.schemas = dict(schemas)
        self._table = input_part.table
        self._before = before
        self._whole = services
        frame = frame_of(self._table, offset)
        self._spec = replace(spec, job=replace(spec.job, frame=frame))
        self._services = replace(
            services,
            frame=Converted(frame),
            trace=Trace(began=services.trace.began),
            watch=watch,
            caches=[],
        )

    async def map(self) -> NewPart | None:
        """Map the part; None if a unit was not mapped, or has a failure that is raised."""
        spec, services, state = self._spec, self._services, self.state
        name = f"map-part-{self.number}"
        with self._whole.trace.node("map", id=name, units=self.input.rows) as node:
            units = await services.run_large(spec, make_read_units, spec)
            findings = await services.run_large(spec, self._earlier_findings, units)
            stage = await services.run_large(spec, self._make_stage, units, findings)
            await stage.recall()
            await stage.run(None)
            services.account_cached()
            node.usage = _sum_usage(services.trace)
            is_raised = bool(state.failures) and spec.settings.errors == "raise"
            if state.failures:
                node.status = "partial"
            if state.halted or state.ended_by is not None or is_raised:
                node.status = "cancelled" if state.ended_by is None else "failed"
                return None
            new: NewPart = await services.run_large(spec, self._make_part, stage.findings)
            return new

    def _make_stage(self, units: Units, findings: MapFindings | None) -> MapStage:
        stage = MapStage(
            self._spec, self._services, self.state, units, findings, breaker=self.breaker
        )
        for name, store in stage.findings.stores.items():
            store.expect(self.schemas.get(name))
        return stage

    def _earlier_findings(self, units: Units) -> MapFindings | None:
        """Return what an earlier run found of the part, so that only what failed is mapped.

        None if no run wrote it, or if it wrote the rows that a filter keeps, and no findings.
        """
        part, job = self._before, self._spec.job
        if part is None or part.rows != self.input.rows or job.verb == "filter":
            return None
        statuses, table = part.read_statuses(), part.read()
        kinds = finding_types(job, self._spec.plan)
        stores: dict[str | None, FindingStore] = {}
        of_units: dict[str | None, NDArray[np.object_]] = {}
        for number, name in enumerate(job.names):
            kind, columns = kinds[name], part.columns[number]
            store = FindingStore(name, kind)
            shown = store.named(pa.table({one: pa.nulls(0) for one in columns})).column_names
            status = np.array(statuses.column(number).to_pylist(), dtype=object)[units.asked]
            found = units.asked[np.isin(status, FOUND)]
            rows = table.select(shown).rename_columns(list(columns)).take(pa.array(found))
            store.add(found.tolist(), rows if kind is None else rows.cast(kind.arrow))
            stores[name] = store
            of_units[name] = np.where(status == "failed", SKIPPED, status)
        only = kinds[job.names[0]] if len(job.names) == 1 else None
        list_type = only if only is not None and only.item is not None else None
        return MapFindings(units, stores, of_units, list_type)

    def _make_part(self, findings: MapFindings) -> NewPart:
        """Write the findings beside the rows."""
        units, job = findings.units, self._spec.job
        table, columns = self._table, []
        for name, store in findings.stores.items():
            found = self._with_known_columns(name, store, findings)
            columns.append(_own_names(store))
            for label in found.column_names:
                table = table.append_column(label, found.column(label))
        statuses = {
            str(number): pa.array(column[units.answered_by], pa.string()).dictionary_encode()
            for number, column in enumerate(findings.statuses.values())
        }
        of_rows = findings.row_statuses()
        failures = self.state.sorted_failures(job.names)
        if self._spec.plan.status_columns:
            shown = status_frame(of_rows, failures, job.frame.index)
            for label, column in zip(self._spec.plan.status_columns, shown.columns, strict=True):
                values = pa.array(shown[column].astype(object), pa.string(), from_pandas=True)
                table = table.append_column(label, values)
        if job.verb == "filter":
            table = _keep_rows(table, of_rows)
        return NewPart(
            number=self.number,
            key=self.input.key,
            rows=self.input.rows,
            table=table,
            statuses=pa.table(statuses),
            failures=failures,
            columns=columns,
            counts=dict(Counter(of_rows.tolist())),
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
        for field in wanted.schema:
            if field.name not in found.column_names:
                found = found.append_column(field, pa.nulls(found.num_rows, field.type))
        return found


def _own_names(store: FindingStore) -> list[str]:
    """Return the columns of a map's findings as the map calls them."""
    return [] if store.schema is None else list(store.schema.names)


def _keep_rows(table: pa.Table, statuses: NDArray[np.object_]) -> pa.Table:
    """Return the rows that a filter keeps: those that it has not refused, and that have content."""
    met = pc.fill_null(table.column(KEEP), True)  # noqa: FBT003 (a value)
    has_content = pa.array(statuses != EMPTY)
    return table.filter(pc.and_(met, has_content)).drop_columns([KEEP])


def _sum_usage(trace: Trace) -> Usage:
    total = Usage()
    for node in trace.nodes:
        total += node.usage
    return total
