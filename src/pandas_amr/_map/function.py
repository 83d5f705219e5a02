"""Maps without an agent: a function of a shard's frame, and a pipeline for each row."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import BaseModel

from pandas_amr._agent.threads import call_user_function
from pandas_amr._findings.finding_type import ITEMS, FindingType
from pandas_amr._findings.store import Failure, MapName, Reason, Record, check_joinable
from pandas_amr._map.breaker import Breaker
from pandas_amr._map.mapper import MappedShard
from pandas_amr._records.concurrency import run_concurrently
from pandas_amr._records.counts import counted
from pandas_amr._records.engine import in_thread
from pandas_amr._records.raised import describe_error
from pandas_amr._records.usage import Usage
from pandas_amr._types.arrow_values import make_table
from pandas_amr._types.schema import TEXT_FINDING
from pandas_amr._units.frames import as_frame, is_other_frame
from pandas_amr.errors import (
    BudgetExceeded,
    ColumnError,
    InvalidOutput,
    JournalError,
    ModelError,
    RunStopped,
    SandboxUnavailable,
    UsageError,
)
from pandas_amr.sandbox.guest.worker import UNIT, match_records, match_rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from pandas_amr._map.mapper import ShardCache
    from pandas_amr._units.redaction import Redaction
    from pandas_amr._units.shards import Shard
    from pandas_amr._units.units import Units

ARRAYS = (np.ndarray, pd.api.extensions.ExtensionArray, pd.Index)


class _Part(NamedTuple):
    """What a function has found of some units: a row of the table for each."""

    positions: tuple[int, ...]
    table: pa.Table


@dataclass(slots=True)
class _Progress:
    """What a function has found so far of a shard's units, in parts, and what failed."""

    parts: list[_Part] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FunctionMapper:
    """A function of the user's: a shard's frame in, a frame or a list of findings out, no model.

    Attributes:
        raises: whether a mistake of the function, such as findings that cannot be matched with
            rows, ends the call. It does if no model is asked for anything; else the units fail, and
            what was paid for is kept.
        breaker: decides whether to call a function again that has failed.
        redaction: what it would take out of a finding is not kept in the journal.
    """

    name: MapName
    function: Callable[[pd.DataFrame], Any]
    kind: FindingType | None
    units: Units
    raises: bool = True
    breaker: Breaker = field(default_factory=Breaker)
    redaction: Redaction | None = None

    @property
    def is_function(self) -> bool:
        """Whether a function of the user's makes the findings."""
        return True

    @property
    def reads_empty_units(self) -> bool:
        """Whether the function gets units without content, too: all that the user gave."""
        return True

    def unit_fingerprints(self, positions: Sequence[int], *, former: bool = False) -> list[bytes]:
        """Digest each unit's content."""
        return self.units.fingerprints(positions, former=former)

    def context_fingerprints(
        self, positions: Sequence[int], *, former: bool = False
    ) -> list[bytes]:
        """Digest what is shown beside a shard: nothing is."""
        del positions, former
        return []

    async def map_shard(self, shard: Shard, cache: ShardCache | None = None) -> MappedShard:
        """Call the function; if it fails, on halves, until the units that fail stand alone."""
        progress = _Progress()
        if not self.breaker.has_given_up(self.name):
            await self._call_on(shard, shard.positions, progress)
        positions: list[int] = []
        tables: list[pa.Table] = []
        for part in sorted(progress.parts, key=_first_position):
            positions += part.positions
            tables.append(part.table)
        mapped = MappedShard(
            shard=shard,
            map=self.name,
            positions=positions,
            table=self._join_tables(tables),
            repaired=frozenset(),
            failures=sorted(progress.failures, key=_position_of),
            usage=Usage(),
        )
        if cache is None:
            return mapped
        found = dict(zip(positions, mapped.table.to_pylist(), strict=True))
        if self.redaction is not None:
            found = await in_thread(_without_redacted, found, self.redaction)
        try:
            await cache.keep(found, {})
        except JournalError as error:
            return replace(mapped, ended_by=error)
        return mapped

    def _join_tables(self, tables: list[pa.Table]) -> pa.Table:
        if len(tables) == 1:
            return tables[0]
        if tables:
            return pa.concat_tables(tables, promote_options="permissive")
        schema = pa.schema([]) if self.kind is None else self.kind.arrow
        return schema.empty_table()

    async def _call_on(self, shard: Shard, positions: tuple[int, ...], progress: _Progress) -> None:
        """Call the function on some rows, and on their halves if it raises."""
        failure = await self._try_on(positions, progress)
        if failure is None:
            self.breaker.add_success(self.name)
            return
        reason, is_final = failure
        failures: dict[int, Reason] = dict.fromkeys(positions, ("callable", reason))
        goes_on = await self.breaker.may_go_on(self.name, shard.number, failures, is_final=is_final)
        if is_final or not goes_on:
            self._add_failures(shard, positions, reason, progress)
            return
        middle = len(positions) // 2
        for half in (positions[:middle], positions[middle:]):
            if self.breaker.has_given_up(self.name):
                self._add_failures(shard, half, reason, progress)
            else:
                await self._call_on(shard, half, progress)

    async def _try_on(
        self, positions: tuple[int, ...], progress: _Progress
    ) -> tuple[str, bool] | None:
        """Call the function on some rows.

        Returns:
            None if it has found something of each; else why not, and whether fewer rows would not
            help.
        """
        rows = self.units.rows(positions)
        index = rows.index.view()  # the same index, whatever the function does to the frame
        try:
            given = await call_user_function(self.function, rows)
            table = self._table(given, index)
            if self.kind is None:
                tables = [part.table for part in progress.parts]
                check_joinable([*tables, table])
            progress.parts.append(_Part(positions, table))
        except UsageError as error:
            if self.raises:
                raise
            return str(error), True
        except Exception as error:  # noqa: BLE001 (the function is the user's: the unit fails)
            return _reason(error), len(positions) == 1
        return None

    def _add_failures(
        self, shard: Shard, positions: tuple[int, ...], reason: str, progress: _Progress
    ) -> None:
        for position in positions:
            failure = Failure(position, shard.number, "callable", reason, 1, self.name)
            progress.failures.append(failure)

    def _table(self, given: Any, index: pd.Index) -> pa.Table:
        """What the function gave, as typed columns in the order of the shard's rows."""
        rows = len(index)
        if is_other_frame(given):
            given = as_frame(given)
        if isinstance(given, ARRAYS) and given.ndim == 1 and len(given) == rows:
            given = pd.Series(given, index=index)
        if isinstance(given, pd.Series | pd.DataFrame):
            frame = self._in_order(given, index)
            return self._of_frame(frame)
        if isinstance(given, list) and len(given) == rows:
            records = [self._record(finding) for finding in given]
            return self._of_records(self._records_in_order(records))
        raise self._count_error(given, rows)

    def _count_error(self, given: Any, rows: int) -> UsageError:
        """Make the error for what is not one finding per row."""
        advice = ""
        if isinstance(given, dict | str | bool | np.bool_ | int | float):
            advice = (
                " It gets a shard's rows as a frame, not one row: "
                "[f(row) for _, row in shard.iterrows()] gives one finding per row."
            )
        size = type(given).__name__
        if isinstance(given, (list, *ARRAYS)):
            size = counted(len(given), "finding")
        return UsageError(
            f"{self._called()} gives a frame or a list, one finding per row: "
            f"{counted(rows, 'row')}, {size}.{advice}"
        )

    def _of_frame(self, frame: pd.DataFrame) -> pa.Table:
        self._check_names(list(frame.columns))
        if self.kind is None:
            table = pa.Table.from_pandas(frame, preserve_index=False)
            return table.replace_schema_metadata(None)
        cells = frame.astype(object).where(frame.notna(), None)
        records: list[Any] = cells.to_dict("records")
        return self.kind.valid_table(records)

    def _of_records(self, records: list[Record]) -> pa.Table:
        if self.kind is not None:
            return self.kind.valid_table(records)
        self._check_names(_list_names(records))
        named: list[Record] = []
        for record in records:
            named.append({str(name): value for name, value in record.items()})
        return _make_untyped_table(named)

    def _in_order(self, given: pd.Series | pd.DataFrame, index: pd.Index) -> pd.DataFrame:
        """Put the function's frame into the order of the shard's rows, or refuse it."""
        if len(given) != len(index):
            raise UsageError(
                f"{self._called()} gives one finding per row: "
                f"{counted(len(index), 'row')}, {counted(len(given), 'finding')}."
            )
        units = None
        if isinstance(given, pd.DataFrame) and UNIT in given.columns and not self._has_unit:
            units, given = given[UNIT], given.drop(columns=UNIT)
        try:
            numbers = match_rows(given.index, index, units=units, name="shard")
        except ValueError as error:
            raise UsageError(f"{self._called()} {error}.") from None
        ordered = given.iloc[np.argsort(numbers)]
        if isinstance(ordered, pd.Series):
            return ordered.to_frame(self._series_name(ordered))
        return ordered

    def _series_name(self, given: pd.Series) -> Any:
        """What the one column of a series is called: as the type has it, or as the function."""
        fields = list(self.kind.model.model_fields) if self.kind else []
        if len(fields) == 1:
            return fields[0]
        if given.name is None:
            return "finding"
        return given.name

    def _records_in_order(self, records: list[Record]) -> list[dict[str, Any]]:
        """Put the function's findings into the order of the rows, without their numbers."""
        if self._has_unit or not any(UNIT in record for record in records):
            return records
        try:
            numbers = match_records(records, len(records), name="shard")
        except ValueError as error:
            raise UsageError(f"{self._called()} {error}.") from None
        ordered: list[Record] = [{}] * len(records)
        for number, record in zip(numbers, records, strict=True):
            fields = dict(record)
            fields.pop(UNIT, None)
            ordered[number] = fields
        return ordered

    @property
    def _has_unit(self) -> bool:
        """Whether the user's frame has a column `unit`: it is not the number of a row then."""
        return UNIT in self.units.frame.columns

    def _check_names(self, names: list[Any]) -> None:
        """Refuse findings without a name, with one name twice, or with that of a frame's column."""
        if not names:
            raise UsageError(
                f"{self._called()} gives no column: a frame or dicts with a name for each finding."
            )
        texts = {str(name) for name in names}  # by which columns of findings are called
        if len(texts) < len(names):
            raise ColumnError(f"{self._called()} gives two columns of one name.")
        if self.name is None:
            shown = names
        elif self.kind is not None:  # checked with the call
            shown = []
        elif len(names) == 1:  # as FindingStore.named has it
            shown = [self.name]
        else:
            shown = [f"{self.name}_{name}" for name in names]
        for name in shown:
            if name in self.units.frame.columns:
                raise ColumnError(
                    f"{self._called()} gives {name!r}, which would hide a column of the frame."
                )

    def _record(self, one: object) -> Record:
        if type(one) is dict:  # as most are
            return one
        if isinstance(one, BaseModel):
            return one.model_dump()
        if dataclasses.is_dataclass(one) and not isinstance(one, type):
            return dataclasses.asdict(one)
        if isinstance(one, dict):
            return one
        only = list(self.kind.model.model_fields) if self.kind else ["finding"]
        if len(only) != 1:
            raise UsageError(f"{self._called()} gives dicts or records, not {type(one).__name__}.")
        return {only[0]: one}

    def _called(self) -> str:
        name = getattr(self.function, "__name__", "the function")
        return f"map={name}"


def _without_redacted(found: dict[int, Record], redaction: Redaction) -> dict[int, Record]:
    """Leave out the findings that are not sent as they are: the function is called again."""
    return {
        position: record
        for position, record in found.items()
        if not redaction.changes_any(record.values(), f"a finding of row {position}")
    }


@dataclass(slots=True)
class _RowProgress:
    """What pipelines have found so far of a shard's units, and what ended the run."""

    found: dict[int, Record] = field(default_factory=dict)
    tables: list[pa.Table] = field(default_factory=list)
    failed: dict[int, Failure] = field(default_factory=dict)
    ended_by: RunStopped | None = None


@dataclass(frozen=True, slots=True)
class PipelineMapper:
    """A recipe of the user's: a frame of one row in, its finding out, several side by side.

    Its stages have keys of their own in the journal.

    Attributes:
        limit: how many rows go through it at once.
        needs_model: whether it may ask a model.
        breaker: decides whether further rows go through it.
    """

    name: MapName
    run_row: Callable[[pd.DataFrame, int], Awaitable[Any]]
    kind: FindingType | None
    units: Units
    limit: int
    needs_model: bool = False
    breaker: Breaker = field(default_factory=Breaker)

    @property
    def is_function(self) -> bool:
        """Whether a function of the user's makes the findings."""
        return True

    @property
    def reads_empty_units(self) -> bool:
        """Whether units without content go through it: not if it asks a model about them."""
        return not self.needs_model

    def unit_fingerprints(self, positions: Sequence[int], *, former: bool = False) -> list[bytes]:
        """Digest each unit's content."""
        return self.units.fingerprints(positions, former=former)

    def context_fingerprints(
        self, positions: Sequence[int], *, former: bool = False
    ) -> list[bytes]:
        """Digest what is shown beside a shard: nothing is."""
        del positions, former
        return []

    async def map_shard(self, shard: Shard, cache: ShardCache | None = None) -> MappedShard:
        """Have each unit's own frame go through the pipeline; each fails alone."""
        del cache
        progress = _RowProgress()

        async def map_row(position: int) -> None:
            if progress.ended_by is None and not self.breaker.has_given_up(self.name):
                await self._map_row(shard, position, progress)

        async for _ in run_concurrently(map_row, shard.positions, limit=self.limit):
            pass
        positions = sorted(progress.found)
        records = [progress.found[position] for position in positions]
        if self.kind is None:
            table = _make_untyped_table(records)
        else:
            table = make_table(records, self.kind.arrow)
        failures = [progress.failed[position] for position in sorted(progress.failed)]
        return MappedShard(
            shard=shard,
            map=self.name,
            positions=positions,
            table=table,
            repaired=frozenset(),
            failures=failures,
            usage=Usage(),
            ended_by=progress.ended_by,
        )

    async def _map_row(self, shard: Shard, position: int, progress: _RowProgress) -> None:
        try:
            row = self.units.rows([position])
            answer = await self.run_row(row, position)
            record = self._record(answer)
            if self.kind is None:
                table = _make_untyped_table([record])
                check_joinable([*progress.tables, table])
                progress.tables.append(table)
            progress.found[position] = record
            self.breaker.add_success(self.name)
        except (BudgetExceeded, SandboxUnavailable, JournalError) as error:
            progress.ended_by = progress.ended_by or error
        except Exception as error:  # noqa: BLE001 (whatever stops a row's pipeline is its failure)
            if isinstance(error, ModelError) and error.fatal:
                progress.ended_by = progress.ended_by or error
                return
            reason = _reason(error)
            failure = Failure(position, shard.number, "callable", reason, 1, self.name)
            progress.failed[position] = failure
            self.breaker.add_failure(self.name, position, position, "callable", reason)

    def _record(self, answer: object) -> Record:
        """Make the pipeline's answer a finding.

        Raises:
            InvalidOutput: there is no answer, or it does not fit the finding's type.
        """
        if answer is None:
            raise InvalidOutput(
                "the pipeline gave nothing: all of it failed, or it does not end with a reduce"
            )
        values = self._values(answer)
        if self.kind is not None:
            return self.kind.valid(values)
        return {str(name): value for name, value in values.items()}

    def _values(self, answer: object) -> dict[Any, Any]:
        if isinstance(answer, pd.DataFrame):
            table = answer.reset_index(drop=True).astype(object)
            cells = table.where(answer.notna(), None)
            return {ITEMS: cells.to_dict("records")}
        if isinstance(answer, pd.Series):
            return answer.to_dict()
        if isinstance(answer, BaseModel):
            return answer.model_dump()
        if isinstance(answer, dict):
            return answer
        fields = list(self.kind.model.model_fields) if self.kind else [TEXT_FINDING]
        if len(fields) != 1:
            got = type(answer).__name__
            raise InvalidOutput(f"the pipeline gave {got} for the fields {', '.join(fields)}")
        return {fields[0]: answer}


def _first_position(part: _Part) -> int:
    return part.positions[0]


def _position_of(failure: Failure) -> int:
    return failure.position


def _make_untyped_table(records: list[Record]) -> pa.Table:
    """Make a table of records with the types that Arrow finds; a later one may have more keys."""
    missing = dict.fromkeys(_list_names(records))
    return pa.Table.from_pylist([missing | record for record in records])


def _list_names(records: list[Record]) -> list[str]:
    """List the names in all records, each once, in order."""
    names: dict[str, None] = {}
    for record in records:
        names.update(dict.fromkeys(record))
    return list(names)


def _reason(error: Exception) -> str:
    if type(error) is RunStopped and error.__cause__ is not None:
        return describe_error(error.__cause__)
    if isinstance(error, InvalidOutput):
        return str(error)
    return describe_error(error)
