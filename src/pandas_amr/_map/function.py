"""Maps that are no agents: a function of a shard's frame, and a pipeline that each row goes through by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pandas_amr._agent.threads import called
from pandas_amr._findings.finding_type import ITEMS, FindingType
from pandas_amr._findings.store import Failure, check_joinable
from pandas_amr._map.agent import Mapped
from pandas_amr._records.concurrency import each
from pandas_amr._records.raised import described
from pandas_amr._records.usage import Usage
from pandas_amr._types.arrow import table_of
from pandas_amr._types.schema import TEXT_FINDING
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
    from collections.abc import Awaitable, Callable

    from pandas_amr._units.shards import Shard
    from pandas_amr._units.units import Units

ARRAYS = (np.ndarray, pd.api.extensions.ExtensionArray, pd.Index)


@dataclass(frozen=True, slots=True)
class CallableMapper:
    """A function of the user's: a shard's frame in, a frame or a list of findings out. No model is involved.

    Attributes:
        raises: whether a mistake of the function, such as findings that cannot be matched with rows, ends the call. It
            does if no model is asked for anything; else the units fail, and what was paid for is kept.
    """

    name: str | None
    function: Callable[[pd.DataFrame], Any]
    kind: FindingType | None
    units: Units
    raises: bool = True

    async def __call__(self, shard: Shard) -> Mapped:
        """Call the function; where it fails, on halves, until the units that fail stand alone."""
        found: list[tuple[tuple[int, ...], pa.Table]] = []
        failures: list[Failure] = []
        await self._settle(shard, shard.positions, found, failures)
        found.sort(key=lambda part: part[0][:1])
        return Mapped(
            shard=shard,
            map=self.name,
            positions=[position for part, _ in found for position in part],
            table=pa.concat_tables([table for _, table in found], promote_options="permissive")
            if found
            else (self.kind.arrow if self.kind else pa.schema([])).empty_table(),
            repaired=frozenset(),
            failures=sorted(failures, key=lambda failure: failure.position),
            usage=Usage(),
        )

    async def _settle(
        self,
        shard: Shard,
        positions: tuple[int, ...],
        found: list[tuple[tuple[int, ...], pa.Table]],
        failures: list[Failure],
    ) -> None:
        rows = self.units.rows(positions)
        index = rows.index.view()  # the same index, whatever the function does to the frame
        try:
            given = await called(self.function, rows)
            table = self._table(given, index)
            if self.kind is None:
                check_joinable([*(part for _, part in found), table])
            found.append((positions, table))
        except UsageError as error:
            if self.raises:
                raise
            failures += [
                Failure(position, shard.number, "callable", str(error), 1, self.name)
                for position in positions
            ]
        except Exception as error:  # noqa: BLE001 (the function is the user's; what it raises is that unit's failure)
            if len(positions) == 1:
                failures.append(
                    Failure(positions[0], shard.number, "callable", _reason(error), 1, self.name)
                )
                return
            middle = len(positions) // 2
            for half in (positions[:middle], positions[middle:]):
                await self._settle(shard, half, found, failures)

    def _table(self, given: Any, index: pd.Index) -> pa.Table:
        """What the function gave, as typed columns in the order of the shard's rows."""
        rows = len(index)
        if isinstance(given, ARRAYS) and given.ndim == 1 and len(given) == rows:
            given = pd.Series(given, index=index)
        if isinstance(given, pd.Series | pd.DataFrame):
            return self._of_frame(self._in_order(given, index))
        if isinstance(given, list) and len(given) == rows:
            return self._of_records(self._records_in_order([self._record(one) for one in given]))
        size = (
            f"{len(given)} findings" if isinstance(given, (list, *ARRAYS)) else type(given).__name__
        )
        raise UsageError(
            f"{self._called()} gives a frame or a list, one finding a row: {rows} rows, {size}."
        )

    def _of_frame(self, frame: pd.DataFrame) -> pa.Table:
        self._check_names(list(frame.columns))
        if self.kind is None:
            return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
        records: list[Any] = frame.astype(object).where(frame.notna(), None).to_dict("records")
        return table_of([self.kind.valid(one) for one in records], self.kind.arrow)

    def _of_records(self, records: list[dict[str, Any]]) -> pa.Table:
        if self.kind is not None:
            return table_of([self.kind.valid(one) for one in records], self.kind.arrow)
        self._check_names(list(dict.fromkeys(name for record in records for name in record)))
        return _untyped(
            [{str(name): value for name, value in record.items()} for record in records]
        )

    def _in_order(self, given: pd.Series | pd.DataFrame, index: pd.Index) -> pd.DataFrame:
        """The function's frame in the order of the shard's rows; refused if that order cannot be known."""
        if len(given) != len(index):
            raise UsageError(
                f"{self._called()} gives one finding a row: {len(index)} rows, {len(given)} findings."
            )
        units = None
        if isinstance(given, pd.DataFrame) and UNIT in given.columns and not self._has_unit:
            units, given = given[UNIT], given.drop(columns=UNIT)
        try:
            numbers = match_rows(given.index, index, units=units, name="shard")
        except ValueError as error:
            raise UsageError(f"{self._called()} {error}.") from None
        ordered = given.iloc[np.argsort(numbers)]
        return (
            ordered.to_frame(self._series_name(ordered))
            if isinstance(ordered, pd.Series)
            else ordered
        )

    def _series_name(self, given: pd.Series) -> Any:
        """What the one column of a series is called: as the type has it, or as the function."""
        fields = list(self.kind.model.model_fields) if self.kind else []
        if len(fields) == 1:
            return fields[0]
        return given.name if given.name is not None else "finding"

    def _records_in_order(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The function's findings in the order of the shard's rows, without the numbers that say it."""
        if self._has_unit:
            return records
        try:
            numbers = match_records(records, len(records), name="shard")
        except ValueError as error:
            raise UsageError(f"{self._called()} {error}.") from None
        ordered: list[dict[str, Any]] = [{}] * len(records)
        for number, record in zip(numbers, records, strict=True):
            ordered[number] = {name: value for name, value in record.items() if name != UNIT}
        return ordered

    @property
    def _has_unit(self) -> bool:
        """Whether the user's frame has a column `unit` of its own, which then is no number of a row."""
        return UNIT in self.units.frame.columns

    def _check_names(self, names: list[Any]) -> None:
        """Refuse findings without a name or with the same one, and those that would hide a column of the frame."""
        if not names:
            raise UsageError(
                f"{self._called()} gives no column: a frame or dicts with a name for each finding."
            )
        if len(set(map(str, names))) < len(names):  # columns of findings are called by texts
            raise ColumnError(f"{self._called()} gives two columns of one name.")
        if self.name is None:
            shown = names
        elif self.kind is not None:  # checked with the call
            shown = []
        else:  # as FindingStore.named has it
            shown = [f"{self.name}_{name}" for name in names] if len(names) > 1 else [self.name]
        for name in shown:
            if name in self.units.frame.columns:
                raise ColumnError(
                    f"{self._called()} gives {name!r}, which would hide a column of the frame."
                )

    def _record(self, one: Any) -> dict[str, Any]:
        given = one.model_dump() if hasattr(one, "model_dump") else one
        if isinstance(given, dict):
            return given
        only = list(self.kind.model.model_fields) if self.kind else ["finding"]
        if len(only) != 1:
            raise UsageError(f"{self._called()} gives dicts or records, not {type(one).__name__}.")
        return {only[0]: given}

    def _called(self) -> str:
        return f"map={getattr(self.function, '__name__', 'the function')}"


@dataclass(frozen=True, slots=True)
class UnitMapper:
    """A pipeline of the user's: a frame of one row in, its finding out, several at once; each fails alone."""

    name: str | None
    function: Callable[[pd.DataFrame, int], Awaitable[Any]]
    kind: FindingType | None
    units: Units
    limit: int

    async def __call__(self, shard: Shard) -> Mapped:
        """Have each unit's own frame go through the pipeline."""
        found: dict[int, dict[str, Any]] = {}
        tables: list[pa.Table] = []
        failed: dict[int, Failure] = {}
        ended: list[RunStopped] = []

        async def one(position: int) -> None:
            if ended:
                return
            try:
                record = self._record(await self.function(self.units.rows([position]), position))
                if self.kind is None:
                    check_joinable([*tables, _untyped([record])])
                    tables.append(_untyped([record]))
                found[position] = record
            except (BudgetExceeded, SandboxUnavailable, JournalError) as error:
                ended.append(error)
            except Exception as error:  # noqa: BLE001 (whatever stops a unit's pipeline is that unit's failure)
                if isinstance(error, ModelError) and error.stops_run:
                    ended.append(error)
                    return
                failed[position] = Failure(
                    position, shard.number, "callable", _reason(error), 1, self.name
                )

        async for _ in each(one, shard.positions, limit=self.limit):
            pass
        positions = sorted(found)
        records = [found[position] for position in positions]
        return Mapped(
            shard=shard,
            map=self.name,
            positions=positions,
            table=table_of(records, self.kind.arrow) if self.kind else _untyped(records),
            repaired=frozenset(),
            failures=[failed[position] for position in sorted(failed)],
            usage=Usage(),
            ended_by=ended[0] if ended else None,
        )

    def _record(self, given: Any) -> dict[str, Any]:
        """The pipeline's answer as a finding."""
        if isinstance(given, pd.DataFrame):
            given = {
                ITEMS: given.reset_index(drop=True)
                .astype(object)
                .where(given.notna(), None)
                .to_dict("records")
            }
        elif isinstance(given, pd.Series):
            given = given.to_dict()
        elif hasattr(given, "model_dump"):
            given = given.model_dump()
        if given is None:
            raise InvalidOutput(
                "the pipeline gave nothing: all of it failed, or it does not end with a reduce"
            )
        if not isinstance(given, dict):
            fields = list(self.kind.model.model_fields) if self.kind else [TEXT_FINDING]
            if len(fields) != 1:
                raise InvalidOutput(
                    f"the pipeline gave {type(given).__name__} for the fields {', '.join(fields)}"
                )
            given = {fields[0]: given}
        return (
            self.kind.valid(given)
            if self.kind
            else {str(name): value for name, value in given.items()}
        )


def _untyped(records: list[dict[str, Any]]) -> pa.Table:
    """Records as Arrow finds them; one may have a key that the first has not."""
    names = dict.fromkeys(name for record in records for name in record)
    return pa.Table.from_pylist([names | record for record in records])


def _reason(error: Exception) -> str:
    if type(error) is RunStopped and error.__cause__ is not None:
        return described(error.__cause__)
    return str(error) if isinstance(error, InvalidOutput) else described(error)
