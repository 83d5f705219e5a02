"""Findings: exactly one valid record per unit, kept as typed columns, written back by position."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import BaseModel, ValidationError

from pandas_amr._agent.dispatch import complaint
from pandas_amr._agent.loop import Submission
from pandas_amr._columns import arrow_schema, field_types, plain_record, table_of
from pandas_amr._schema import RESERVED, choices_of, json_schema
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

Who = Literal["model", "schema", "callable"]
UNFIT = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError)


@dataclass(frozen=True, slots=True)
class Failure:
    """A unit without a finding: which, who failed, why, and in how many requests it was asked."""

    position: int
    shard: int
    who: Who
    reason: str
    attempts: int
    map: str | None = None


@dataclass(frozen=True)
class FindingType:
    """What one finding is: the pydantic model, and what follows from it.

    Attributes:
        model: checks a record.
        columns: what each field is called in the frame.
    """

    model: type[BaseModel]
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.model.model_fields:
            raise UsageError(f"{self.model.__name__} has no fields to find.")
        reserved = RESERVED & self.model.model_fields.keys()
        if reserved:
            raise UsageError(f"A finding's field cannot be named {min(reserved)!r}: that is the unit's number.")
        _ = self.schema, self.arrow  # an unusable type is told now, not after the first answer

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of one finding's fields."""
        return json_schema(self.model)

    @cached_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of the fields."""
        return arrow_schema(self.model)

    def submission(self, *, alone: bool) -> Submission:
        """What an agent hands in: the flat fields of one unit, or a list over the units of a shard."""
        if alone:
            return Submission("finding", self.schema)
        numbered = {"unit": {"type": "integer"}, **self.schema["properties"]}
        item = {**self.schema, "properties": numbered, "required": list(numbered)}
        listed = {"type": "array", "items": item}
        return Submission(
            "findings",
            {
                "type": "object",
                "properties": {"findings": listed},
                "required": ["findings"],
                "additionalProperties": False,
            },
        )

    def record(self, given: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str | None]:
        """The checked record as Arrow takes it, or what is wrong with it.

        A field that is left out is not filled from a default that could pass for an answer: only None may stand in.
        """
        fields = self.model.model_fields
        by_alias = {name: info.alias or name for name, info in fields.items()}
        left_out = [
            alias
            for name, alias in by_alias.items()
            if alias not in given
            and name not in given
            and (fields[name].is_required() or fields[name].default is not None)
        ]
        if left_out:
            return None, f"without {', '.join(left_out)}"
        if not any(alias in given or name in given for name, alias in by_alias.items()):
            return None, "without any of the fields"
        try:
            record = plain_record(self.model.model_validate(given))
        except ValidationError as error:
            return None, complaint(error)
        try:
            table_of([record], self.arrow)
        except UNFIT as error:
            return None, f"a value fits its column not ({type(error).__name__})"
        return record, None


@dataclass(slots=True)
class Checked:
    """What an answer holds for the units asked: accepted records, and problems, both by the unit's number."""

    accepted: dict[int, dict[str, Any]] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)


def check_answer(payload: Any, kind: FindingType, *, asked: Collection[int], of: int) -> Checked:
    """Match an answer's findings with the units ``asked``, a part of those numbered from 0 to ``of - 1``.

    An answer that names a number which does not exist *and* leaves one out may be shifted by a row: nothing of it is
    taken.
    """
    listed = payload.get("findings") if isinstance(payload, dict) else None
    if not isinstance(listed, list):
        return Checked(problems=dict.fromkeys(asked, "no finding: the answer has no list `findings`"))
    by_unit: dict[int, list[Any]] = {}
    unknown: list[Any] = []
    for one in listed:
        number = one.get("unit") if isinstance(one, dict) else None
        if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < of:
            by_unit.setdefault(number, []).append(one)
        else:
            unknown.append(number)
    missing = [number for number in asked if number not in by_unit]
    if unknown and missing:
        shown = ", ".join(repr(number)[:20] for number in unknown[:3])
        return Checked(problems=dict.fromkeys(asked, f"the answer names unit {shown}; units are 0 to {of - 1}"))
    checked = Checked(problems=dict.fromkeys(missing, "no finding"))
    for number in asked:
        found = by_unit.get(number, ())
        if len(found) > 1:
            checked.problems[number] = f"{len(found)} findings, not one"
        elif found:
            record, problem = kind.record({key: value for key, value in found[0].items() if key != "unit"})
            if record is None:
                checked.problems[number] = problem or "invalid"
            else:
                checked.accepted[number] = record
    return checked


def check_alone(payload: Any, kind: FindingType) -> Checked:
    """Check the flat finding of a unit that was asked alone."""
    if not isinstance(payload, dict):
        return Checked(problems={0: "no finding"})
    record, problem = kind.record(payload)
    return Checked(problems={0: problem or "invalid"}) if record is None else Checked(accepted={0: record})


class FindingStore:
    """One map's findings as they land, in any order; columns in the frame's order at the end.

    Joined by position alone: each row takes the finding of the unit that answers for it.
    """

    def __init__(self, name: str | None, kind: FindingType | None) -> None:
        self._name = name
        self._kind = kind
        self._positions: list[NDArray[np.int64]] = []
        self._tables: list[pa.Table] = []

    def add(self, positions: Sequence[int], table: pa.Table) -> None:
        """Keep the findings of some units, one row of ``table`` for each."""
        assert len(positions) == table.num_rows
        self._positions.append(np.asarray(positions, dtype=np.int64))
        self._tables.append(table)

    def named(self, table: pa.Table) -> pa.Table:
        """``table`` with its columns called as in the frame; those of a function without a type carry its name."""
        if self._kind is not None:
            return table.rename_columns(list(self._kind.columns))
        if self._name is None:
            return table
        names = table.column_names
        return table.rename_columns([f"{self._name}_{name}" if len(names) > 1 else self._name for name in names])

    def columns(self, asked: NDArray[np.int64], answered_by: NDArray[np.int64]) -> dict[str, Any]:
        """One typed array a field, one value a row of the frame; ``<NA>`` where there is no finding."""
        table = self.named(self._joined())
        row_of = np.full(len(asked), -1, dtype=np.int64)
        if self._positions:
            found = np.concatenate(self._positions)
            row_of[np.searchsorted(asked, found)] = np.arange(len(found))
        rows = row_of[answered_by]
        taken = table.take(pa.array(rows, mask=rows < 0))
        kinds = list(field_types(self._kind.model).values()) if self._kind else [None] * table.num_columns
        return {
            name: array_of(column, kind)
            for name, column, kind in zip(taken.column_names, taken.columns, kinds, strict=True)
        }

    def _joined(self) -> pa.Table:
        if self._tables:
            return pa.concat_tables(self._tables, promote_options="permissive")
        return (self._kind.arrow if self._kind else pa.schema([])).empty_table()


def array_of(column: pa.ChunkedArray, kind: Any = None) -> Any:
    """An Arrow column as the pandas array that users expect: choices as a category, all else Arrow-typed."""
    choices = choices_of(kind)
    if choices is not None:
        return pd.Categorical(
            column.to_pylist(), categories=pd.Index(list(dict.fromkeys(c for c in choices if c is not None)))
        )
    return pd.array(column.combine_chunks(), dtype=pd.ArrowDtype(column.type))


def with_findings(frame: pd.DataFrame, findings: pd.DataFrame) -> pd.DataFrame:
    """``frame`` plus the findings' columns: a new frame, same index, same order."""
    added = findings
    if frame.columns.nlevels > 1:
        padded = [(name, *[""] * (frame.columns.nlevels - 1)) for name in findings.columns]
        added = findings.set_axis(pd.MultiIndex.from_tuples(padded, names=frame.columns.names), axis=1)
    else:
        added = findings.rename_axis(columns=cast("Any", frame.columns.name))
    joined = pd.concat([frame, added], axis=1) if len(added.columns) else frame.copy()
    joined.attrs = dict(frame.attrs)
    return joined


def records_frame(records: Iterable[BaseModel | None], model: type[BaseModel]) -> pd.DataFrame:
    """Checked records as a typed frame; None is a row of ``<NA>``."""
    none = dict.fromkeys(model.model_fields)
    table = table_of((none if one is None else plain_record(one) for one in records), arrow_schema(model))
    kinds = field_types(model)
    return pd.DataFrame({name: array_of(table.column(name), kind) for name, kind in kinds.items()})
