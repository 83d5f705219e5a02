"""Maps that are no agents: a function of a shard's frame, and a pipeline that each row goes through by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from pandas_amr._agent.threads import called
from pandas_amr._columns import table_of
from pandas_amr._findings import ITEMS, Failure, FindingType, check_joinable
from pandas_amr._mappers import Mapped
from pandas_amr._schema import TEXT_FINDING
from pandas_amr._stopped import described
from pandas_amr._usage import Usage
from pandas_amr.engines.local import each
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

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pandas_amr._shards import Shard
    from pandas_amr._units import Units


@dataclass(frozen=True, slots=True)
class CallableMapper:
    """A function of the user's: a shard's frame in, a frame or a list of findings out. No model is involved."""

    name: str | None
    function: Callable[[pd.DataFrame], Any]
    kind: FindingType | None
    units: Units

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
        try:
            given = await called(self.function, rows)
            table = self._table(given, rows)
            if self.kind is None:
                check_joinable([*(part for _, part in found), table])
            found.append((positions, table))
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001 (the function is the user's; what it raises is that unit's failure)
            if len(positions) == 1:
                failures.append(Failure(positions[0], shard.number, "callable", _reason(error), 1, self.name))
                return
            middle = len(positions) // 2
            for half in (positions[:middle], positions[middle:]):
                await self._settle(shard, half, found, failures)

    def _table(self, given: Any, rows: pd.DataFrame) -> pa.Table:
        """What the function gave, as typed columns in the order of the shard's rows."""
        if isinstance(given, pd.Series):
            only = list(self.kind.model.model_fields) if self.kind else []
            given = given.to_frame(only[0] if len(only) == 1 else given.name if given.name is not None else "finding")
        if isinstance(given, pd.DataFrame):
            given = _aligned(given, rows)
            hidden = [name for name in given.columns if name in rows.columns and self.name is None]
            if hidden:
                raise ColumnError(f"{self._called()} gives {hidden[0]!r}, which would hide a column of the frame.")
            if self.kind is None:
                return pa.Table.from_pandas(given, preserve_index=False).replace_schema_metadata(None)
            given = given.astype(object).where(given.notna(), None).to_dict("records")
        if not isinstance(given, list) or len(given) != len(rows):
            size = f"{len(given)} findings" if isinstance(given, list) else type(given).__name__
            raise UsageError(f"{self._called()} gives a frame or a list, one finding a row: {len(rows)} rows, {size}.")
        records = [self._record(one) for one in given]
        return table_of(records, self.kind.arrow) if self.kind else _untyped(records)

    def _record(self, one: Any) -> dict[str, Any]:
        given = one.model_dump() if hasattr(one, "model_dump") else one
        if not isinstance(given, dict):
            only = list(self.kind.model.model_fields) if self.kind else ["finding"]
            if len(only) != 1:
                raise UsageError(f"{self._called()} gives dicts or records, not {type(one).__name__}.")
            given = {only[0]: given}
        return self.kind.valid(given) if self.kind else given

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
                failed[position] = Failure(position, shard.number, "callable", _reason(error), 1, self.name)

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
            given = {ITEMS: given.reset_index(drop=True).astype(object).where(given.notna(), None).to_dict("records")}
        elif isinstance(given, pd.Series):
            given = given.to_dict()
        elif hasattr(given, "model_dump"):
            given = given.model_dump()
        if given is None:
            raise InvalidOutput("the pipeline gave nothing: all of it failed, or it does not end with a reduce")
        if not isinstance(given, dict):
            fields = list(self.kind.model.model_fields) if self.kind else [TEXT_FINDING]
            if len(fields) != 1:
                raise InvalidOutput(f"the pipeline gave {type(given).__name__} for the fields {', '.join(fields)}")
            given = {fields[0]: given}
        return self.kind.valid(given) if self.kind else {str(name): value for name, value in given.items()}


def _untyped(records: list[dict[str, Any]]) -> pa.Table:
    """Records as Arrow finds them; one may have a key that the first has not."""
    names = dict.fromkeys(name for record in records for name in record)
    return pa.Table.from_pylist([names | record for record in records])


def _aligned(given: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The function's frame in the order of the shard's rows; refused where that order cannot be known."""
    if len(given) != len(rows):
        raise UsageError(f"map= gives one finding a row: {len(rows)} rows, {len(given)} findings.")
    if given.index.equals(rows.index):
        return given
    fresh = given.index.equals(pd.RangeIndex(len(rows)))
    same_labels = rows.index.is_unique and given.index.is_unique and bool(given.index.isin(rows.index).all())
    if fresh and not same_labels:
        return given
    if same_labels and not fresh:
        return given.reindex(rows.index)
    raise UsageError(
        "map= gives a frame whose rows cannot be told apart by its index. Give it the shard's: index=shard.index."
    )


def _reason(error: Exception) -> str:
    if type(error) is RunStopped and error.__cause__ is not None:
        return described(error.__cause__)
    return str(error) if isinstance(error, InvalidOutput) else described(error)
