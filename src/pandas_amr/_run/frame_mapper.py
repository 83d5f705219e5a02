"""A map without its frame, which can be pickled: what engines run on their partitions."""

from __future__ import annotations

import contextlib
import copy
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import pandas as pd
import pyarrow as pa

from pandas_amr._agent.agent import Agent
from pandas_amr._context.settings import (
    LOCAL,
    NAMES,
    Settings,
    check_lm,
    current_settings,
    pack_arguments,
    unpack_arguments,
)
from pandas_amr._context.wiring import is_embedded, resolve_lm
from pandas_amr._findings.columns import add_findings
from pandas_amr._findings.store import FindingStore
from pandas_amr._plan.arguments import SETTINGS, check, read_map
from pandas_amr._plan.call import Call, named_finding_types
from pandas_amr._plan.redact import check_redacted
from pandas_amr._records.callers import is_awaited
from pandas_amr._records.pickles import CopiedHere
from pandas_amr._records.public import public
from pandas_amr._result.frames import shown_columns, status_frame
from pandas_amr._run.run import run_of
from pandas_amr._types.arrow import is_mixed
from pandas_amr._types.spark import add_arrow_fields, find_spark_schema
from pandas_amr._units.arrow_tables import frame_of_part
from pandas_amr._units.other_libraries import describe_parts
from pandas_amr.errors import UsageError
from pandas_amr.models.base import is_client
from pandas_amr.tools import as_tools

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

    from pandas_amr._context.spec import Spec
    from pandas_amr._plan.call import FindingTypes
    from pandas_amr._plan.plan import Plan
    from pandas_amr.models.base import LM

    Rows = TypeVar("Rows")  # a pandas frame, an Arrow record batch or a table

TABLES = (pa.RecordBatch, pa.Table)
# Settings that hold for a run as a whole, or name places of the machine where it was called.
OF_THE_DRIVER = frozenset(
    {"max_parallelism", "progress", "budget", "journal", "lease", "on_event", "telemetry", "trace"}
)
PANDAS_METADATA = b"pandas"


@public
@dataclass(frozen=True, eq=False, repr=False)
class FrameMapper(CopiedHere):
    """A map without its frame, which ``amr.mapper`` makes. Engines call it on their partitions.

    It is pickled with its plan and its model, but without a key.

    Attributes:
        plan: what is found, with the types of all columns.
        names: the names of the maps that run side by side; ``(None,)`` for a single map.
        map: functions and agents of the map; None if the plan says all.
        columns: the content columns; None for all.
        tools: what agents may call.
        lm: the model, or models by phase; None if no model is asked.
        settings: the settings that were in force when it was made. They hold wherever it runs.
    """

    plan: Plan
    names: tuple[str | None, ...]
    map: Any
    columns: Any
    tools: tuple[Any, ...]
    lm: Any
    settings: Mapping[str, Any]

    @overload
    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame: ...
    @overload
    def __call__(self, frame: object) -> Any: ...
    def __call__(self, frame: object) -> Any:
        """Map the rows of a partition: a frame gives a frame, Arrow data gives such data.

        Returns:
            The partition with the columns of ``meta``; rows and index are the same.

        Raises:
            UsageError: it is no partition, or does not fit; nothing was sent.
            RunStopped: as in ``map``.
        """
        _check_rows(frame)
        if is_awaited():
            raise UsageError(
                "A mapper waits for its result and cannot be awaited; nothing was sent. "
                "In async code: await asyncio.to_thread(mapper, frame)."
            )
        if isinstance(frame, pd.DataFrame):
            return self._map(frame)
        return self._map_table(frame)

    def batches(self, batches: Iterable[Rows]) -> Iterator[Rows]:
        """Map an iterator of partitions, one after the other: what Spark's ``mapInArrow`` calls.

        Args:
            batches: Arrow record batches, tables or pandas frames.

        Returns:
            The same partitions with the columns of the findings.

        Raises:
            UsageError: it is a single partition.
        """
        is_single = isinstance(batches, pd.DataFrame | pa.RecordBatch | pa.Table)
        if is_single or not isinstance(batches, Iterable):
            raise UsageError(
                f"batches() takes an iterator of partitions, not {type(batches).__name__}. "
                "A single partition: mapper(frame)."
            )
        return map(self, batches)

    def meta(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return what a partition becomes, without rows. Nothing is sent or run.

        Args:
            frame: a partition, or a frame without rows that has its columns.

        Raises:
            UsageError: the mapper does not fit its columns.
        """
        _check_pandas(frame)
        none = frame.iloc[:0]
        check(self._call(none))
        positions = np.empty(0, np.int64)
        columns: dict[Any, Any] = {}
        for name, kind in self._finding_types().items():
            columns |= FindingStore(name, kind).columns(positions, positions)
        whole = add_findings(none, pd.DataFrame(columns, index=none.index))
        names = self.plan.status_columns
        if names is None:
            return whole
        status = status_frame(np.empty(0, dtype=object), np.empty(0, dtype=bool), [], none.index)
        return add_findings(whole, shown_columns(status, names))

    def arrow_schema(self, partition: object = None) -> pa.Schema:
        """Return the Arrow schema of what a partition becomes. Nothing is sent or run.

        Choices are texts, numbers or bools there, or their JSON if they are of several types.

        Args:
            partition: a schema, or a partition that has it. None gives the new columns alone.

        Raises:
            UsageError: the mapper does not fit its columns.
        """
        if partition is None:
            return pa.schema(self._fields())
        known = _schema_of(partition)
        self.meta(known.empty_table().to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True))
        return pa.schema([*known, *self._fields()], metadata=_without_pandas(known.metadata))

    def spark_schema(self, frame: object) -> StructType:
        """Return the Spark schema of what a Spark frame becomes: its columns and the findings'.

        ``sdf.mapInArrow(mapper.batches, mapper.spark_schema(sdf))`` is the whole call. Types are
        those of ``arrow_schema``; a time without a zone is ``timestamp_ntz``. Nothing is sent or
        run, and no job is begun.

        Args:
            frame: a Spark DataFrame, or the schema of one.

        Raises:
            UsageError: the mapper does not fit its columns.
        """
        schema = find_spark_schema(frame)
        columns = pd.DataFrame(columns=schema.names)
        self.meta(columns)  # checks that the mapper fits
        return add_arrow_fields(schema, self._fields())

    def _map(self, frame: pd.DataFrame) -> pd.DataFrame:
        if not len(frame):
            return self.meta(frame)  # there is nothing to ask
        mapped: pd.DataFrame = run_of(self._call(frame), self.settings).result()
        return mapped

    def _map_table(self, table: Any) -> Any:
        """Map Arrow data; its own columns are handed on as they are."""
        schema = self.arrow_schema(table.schema)
        frame = frame_of_part(pa.table(table))
        added = self._map(frame).iloc[:, len(frame.columns) :]
        arrays = list(table.columns)
        for field, name in zip(self._fields(), added.columns, strict=True):
            arrays.append(_to_arrow(added[name], field.type))
        return type(table).from_arrays(arrays, schema=schema)

    def _call(self, frame: pd.DataFrame) -> Call:
        """Return the call of ``map`` that this is with a frame."""
        return Call(
            verb="map",
            frame=frame,
            columns=self.columns,
            map=self.map,
            tools=self.tools or None,
            plan=self.plan,
            lm=self.lm,
        )

    def _fields(self) -> list[pa.Field]:
        """Return the new columns as Arrow has them."""
        added: list[pa.Field] = []
        for kind in self._finding_types().values():
            assert kind is not None  # each map has a type
            for name, field in zip(kind.columns, kind.arrow, strict=True):
                added.append(field.with_name(name))
            if kind.count_column is not None:
                added.append(pa.field(kind.count_column, pa.int64()))
        added += [pa.field(name, pa.string()) for name in self.plan.status_columns or ()]
        return added

    def _finding_types(self) -> FindingTypes:
        return named_finding_types(self.names, self.plan)

    def __getstate__(self) -> dict[str, Any]:
        """Return what enters a pickle.

        Raises:
            UsageError: a part cannot be pickled, or holds a key.
        """
        state = {each.name: getattr(self, each.name) for each in fields(self)}
        settings = pack_arguments(self.settings, "settings")
        return pack_arguments(state, "mapper") | {"settings": settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        settings = unpack_arguments(state["settings"])
        self.__dict__.update(unpack_arguments(state), settings=settings)

    def __repr__(self) -> str:
        columns = ", ".join(field.name for field in self._fields())
        return f"<FrameMapper of {self._asked}: {columns}>"

    @property
    def _asked(self) -> str:
        """Who maps, for people."""
        lm = self.lm.get("map", "models") if isinstance(self.lm, dict) else self.lm
        return "functions" if lm is None else getattr(lm, "model", str(lm))


def mapper_of(call: Call) -> FrameMapper:
    """Make the mapper of a call of ``map`` without its frame.

    Raises:
        UsageError: an argument cannot be used.
        PlanError: the plan cannot be used.
    """
    known = read_map(call)
    if known.plan.axis == "columns":
        raise UsageError("A mapper maps the rows of partitions, and plan.axis is 'columns'.")
    tools, repl = as_tools(call.tools)
    columns = list(call.columns) if isinstance(call.columns, Iterator) else call.columns
    settings = current_settings()
    check_redacted(known.plan, settings.redact)
    lm = None
    if known.needs_model:
        lm = _fix_lms(settings.lm if call.lm is None else call.lm)
    return FrameMapper(
        plan=known.plan,
        names=known.names,
        map=_fix_agents(known.code),
        columns=columns,
        tools=tools if repl is None else (*tools, repl),
        lm=lm,
        settings=_settings_of(call, settings),
    )


def mapper_of_run(spec: Spec) -> FrameMapper:
    """Make the mapper of a run that is planned: what maps parts of its rows elsewhere.

    Unlike ``mapper_of`` it takes functions whose columns only a run can tell.
    """
    job, call = spec.job, spec.job.call
    assert call is not None
    lms: dict[str, LM | str] = {}
    for phase, lm in spec.lms.items():
        lms[phase] = LOCAL if is_embedded(lm) else _fix_lm(lm)
    return FrameMapper(
        plan=spec.plan,
        names=job.names,
        map=_fix_agents(call.map) if job.callables or job.map_agents else None,
        columns=[job.frame.columns[column] for column in job.columns],
        tools=job.tools if job.repl is None else (*job.tools, job.repl),
        lm=lms or None,
        settings=_settings_elsewhere(call, spec.settings),
    )


def _settings_elsewhere(call: Call, settings: Settings) -> dict[str, Any]:
    """Return the settings that hold where parts of a run are mapped."""
    known = _settings_of(call, settings)
    for name in OF_THE_DRIVER:
        known.pop(name, None)
    if settings.is_offline:  # be it by the environment of this process
        known["offline"] = True
    return known


def _settings_of(call: Call, settings: Settings) -> dict[str, Any]:
    """Return the settings that a call names, or that are not the defaults here."""
    defaults = Settings()
    known: dict[str, Any] = {}
    for name in NAMES:
        if name == "engine":  # who maps is already an engine's
            continue
        value = getattr(call, name) if name in SETTINGS else None
        if value is None:
            value = getattr(settings, name)
        if value != getattr(defaults, name):
            known[name] = value
    lm = known.pop("lm", None)  # the mapper has its own: this one is for calls that functions make
    if lm is not None and not is_client(lm):
        known["lm"] = lm
        with contextlib.suppress(UsageError):  # a name without a server here may have one there
            known["lm"] = _fix_lms(lm)
    return known


def _fix_lms(given: object) -> LM | str | dict[str, LM | str]:
    """Return the models that are meant here, so that another process means the same.

    Raises:
        UsageError: no model is meant.
        ModelConfigError: likewise.
    """
    if not isinstance(given, dict):
        return _fix_lm(given)
    check_lm(given)
    return {phase: _fix_lm(lm) for phase, lm in given.items()}


def _fix_lm(given: object) -> LM | str:
    named = given if given is not None else os.environ.get("AMR_MODEL")
    if named == LOCAL:
        return LOCAL  # each process starts its own
    lm = resolve_lm(named)
    address = os.environ.get("OPENAI_BASE_URL", "").strip()
    if lm.base_url is None and lm.client is None and address:
        return lm.replace(base_url=address)
    return lm


def _fix_agents(code: object) -> Any:
    """Return functions and agents of maps, the agents with the models that are meant here."""
    if isinstance(code, dict):
        return {name: _fix_agents(part) for name, part in code.items()}
    if not isinstance(code, Agent) or code.lm is None:
        return code
    agent = copy.copy(code)
    object.__setattr__(agent, "lm", _fix_lm(code.lm))
    return agent


def _check_rows(given: object) -> None:
    """Refuse what is no partition.

    Raises:
        UsageError: it is none; the message says what would be right.
    """
    if isinstance(given, pd.DataFrame | pa.RecordBatch | pa.Table):
        return
    parts = describe_parts(given)
    advice = f" For this one: {parts}." if parts else ""
    if isinstance(given, pd.Series):
        advice = " Did you mean series.to_frame()?"
    elif isinstance(given, Iterator | list | tuple | pa.RecordBatchReader):
        advice = " For an iterator of them: mapper.batches(iterator)."
    raise UsageError(
        "A mapper takes a pandas DataFrame, or an Arrow record batch or table, not "
        f"{type(given).__name__}.{advice}"
    )


def _check_pandas(given: object) -> None:
    """Refuse what is no pandas frame.

    Raises:
        UsageError: it is none; the message says what would be right.
    """
    _check_rows(given)
    if not isinstance(given, pd.DataFrame):
        raise UsageError("meta() takes a pandas frame; of Arrow data: mapper.arrow_schema(data).")


def _schema_of(partition: object) -> pa.Schema:
    """Return the Arrow schema of a partition.

    Raises:
        UsageError: it has none.
    """
    if isinstance(partition, pa.Schema):
        return partition
    _check_rows(partition)
    if isinstance(partition, TABLES):
        return partition.schema
    try:
        return pa.Schema.from_pandas(partition, preserve_index=False)
    except pa.ArrowException as error:
        raise UsageError(
            f"Arrow cannot hold this frame ({type(error).__name__}): a column has values of "
            "several types."
        ) from None


def _without_pandas(metadata: Mapping[bytes, bytes] | None) -> dict[bytes, bytes] | None:
    """Return a schema's metadata without what pandas says of its columns: there are more now."""
    kept = {key: value for key, value in (metadata or {}).items() if key != PANDAS_METADATA}
    return kept or None


def _to_arrow(column: pd.Series, kind: pa.DataType) -> pa.Array:
    """Return a new column as Arrow has it."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        choices = list(column.cat.categories)
        if is_mixed(choices):
            choices = [json.dumps(choice, ensure_ascii=False) for choice in choices]
        codes = column.cat.codes.to_numpy()
        return pa.array(choices, kind).take(pa.array(codes, mask=codes < 0))
    array = pa.array(column.array)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    return array.cast(kind)
