"""Findings: exactly one valid record per unit, kept as typed columns, written back by position."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import functools
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast, get_args, get_origin

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, RootModel, ValidationError

from pandas_amr._agent.dispatch import complaint
from pandas_amr._agent.loop import REPL_FORM, Submission
from pandas_amr._agent.prompts import shortened
from pandas_amr._types.arrow import (
    TEXT_LIKE,
    arrow_schema,
    arrow_type,
    check_fits,
    field_types,
    find_stray,
    is_mixed,
    key_text,
    plain,
    plain_record,
    table_of,
)
from pandas_amr._types.schema import (
    RESERVED,
    TEXT_FINDING,
    asked_as,
    choices_of,
    closed_object,
    json_schema,
    kept_schema,
    record_type,
)
from pandas_amr._types.violations import Leniency, find_violation, without_absent
from pandas_amr._units.cells import cell
from pandas_amr.errors import InvalidOutput, UsageError
from pandas_amr.sandbox.guest.worker import CELL_BYTES, find_large

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from pandas_amr._agent.loop import Answer

Who = Literal["model", "schema", "callable", "sandbox"]
FOUND = ("ok", "cached", "repaired")  # statuses of units that have a finding
ITEMS = "items"
TYPES = 64
_WRITTEN = (  # types whose values have one text
    str,
    bytes,
    bytearray,
    dt.date,
    dt.time,
    dt.timedelta,
    np.timedelta64,
    enum.Enum,
    pd.Period,
    pd.Interval,
    *TEXT_LIKE,
)
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
        model: checks a record. Where a unit holds none or many, its one field ``items`` is a list of records.
        columns: what each field is called in the frame.
        item: the type of one of many records, and None where a unit has exactly one.
        item_columns: what the fields of one of many are called.
    """

    model: type[BaseModel]
    columns: tuple[str, ...]
    item: type[BaseModel] | None = None
    item_columns: tuple[str, ...] = ()

    @classmethod
    @functools.lru_cache(
        TYPES
    )  # a call asks for it three times, and its schema takes longer than all else of a type
    def of(cls, kind: Any, name: str | None) -> FindingType:
        """The finding type of a map: a model, or a list of one."""
        if get_origin(kind) is not list:
            return cls(kind, column_names(name, list(kind.model_fields)))
        item = get_args(kind)[0]
        wrapper = record_type("Findings", {ITEMS: kind})
        return cls(
            wrapper,
            (ITEMS if name is None else name,),
            item,
            column_names(name, list(item.model_fields)),
        )

    @property
    def count_column(self) -> str | None:
        """What the number of a unit's records is called."""
        return f"{self.columns[0]}_count" if self.item else None

    @property
    def all_columns(self) -> tuple[str, ...]:
        """Every column that the findings add to the frame."""
        return self.columns + ((self.count_column,) if self.count_column else ())

    def __post_init__(self) -> None:
        asked = self.item or self.model
        if issubclass(asked, RootModel):
            raise UsageError(
                f"A finding has named fields, and {asked.__name__} has none: finding={{'value': {asked.__name__}}}."
            )
        if not asked.model_fields:
            raise UsageError(f"{asked.__name__} has no fields to find.")
        reserved = RESERVED & asked.model_fields.keys()
        if reserved:
            raise UsageError(
                f"A finding's field cannot be named {min(reserved)!r}: that is the unit's number."
            )
        _ = self.arrow, self.schema  # an unusable type is told now, not after the first answer

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of one finding's fields."""
        return json_schema(self.model)

    @cached_property
    def _checked_schema(self) -> dict[str, Any]:
        """The schema that answers are checked against, with what only this library reads."""
        return kept_schema(self.model)

    @cached_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of the fields."""
        if self.item is None:
            return arrow_schema(self.model)
        return pa.schema([pa.field(ITEMS, pa.list_(pa.struct(list(arrow_schema(self.item)))))])

    @cached_property
    def _struct(self) -> pa.StructType:
        return pa.struct(list(self.arrow))

    @cached_property
    def _asked_fields(self) -> tuple[tuple[tuple[str, ...], bool], ...]:
        """What each field may be called in an answer, and whether nothing may stand in for it."""
        return tuple(
            ((*asked_as(name, info), name), info.is_required() or info.default is not None)
            for name, info in self.model.model_fields.items()
        )

    def submission(self, *, alone: bool) -> Submission:
        """What an agent hands in: the flat fields of one unit, or a list over the units of a shard."""
        return self._submission_of_one if alone else self._submission_of_many

    @cached_property
    def _submission_of_one(self) -> Submission:
        return Submission("finding", self._checked_schema)

    @cached_property
    def _submission_of_many(self) -> Submission:
        numbered = {"unit": {"type": "integer"}, **self._checked_schema["properties"]}
        item = {**self._checked_schema, "properties": numbered, "required": list(numbered)}
        listed = {"type": "array", "items": item}
        return Submission("findings", closed_object({"findings": listed}))

    def record(
        self,
        given: Mapping[str, Any],
        *,
        coded: bool = False,
        empty_texts: bool = False,
        fits: bool = True,
    ) -> tuple[dict[str, Any] | None, str | None]:
        """The checked record as Arrow takes it, or what is wrong with it.

        A field that is left out is not filled from a default that could pass for an answer: only None may stand in.
        Keys that nobody asked for are left aside.

        Args:
            given: the finding as JSON, by field.
            coded: whether code made it: pandas has no dates, so that one may come as its midnight.
            empty_texts: whether a text may be empty.
            fits: whether Arrow is to try the record; who checks many has it try all of them at once.
        """
        missing = [
            (names[0], needed)
            for names, needed in self._asked_fields
            if given.keys().isdisjoint(names)
        ]
        left_out = [name for name, needed in missing if needed]
        if left_out:
            return None, f"without {', '.join(left_out)}"
        if len(missing) == len(self._asked_fields):
            return None, "without any of the fields"
        given = without_absent(dict(given), self._checked_schema)
        try:
            record = self.model.model_validate(given)
        except ValidationError as error:
            return None, self._submission_of_one.wire.find_unread(given) or complaint(error)
        except Exception as error:  # noqa: BLE001 (a validator of the user's raised what pydantic lets pass)
            return None, f"its validator raised {type(error).__name__}"
        stray = find_stray(record) if isinstance(record, self.model) else type(record).__name__
        if stray is not None:
            return None, f"its validator gave what the type does not take: {stray}"
        violation = self._violation(given, Leniency(empty_texts=empty_texts, coded=coded))
        if violation is not None:
            return None, violation
        try:
            held = plain_record(record)
            if fits:
                check_fits(held, self._struct)
        except UNFIT as error:
            return None, _unfit_words(error)
        return held, None

    def fit(self, records: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Tell which of many checked records fit the columns."""
        try:
            pa.array(records, type=self._struct)
        except UNFIT:
            return [self._fits(record) for record in records]
        return [True] * len(records)

    def _fits(self, record: Mapping[str, Any]) -> bool:
        try:
            check_fits(record, self._struct)
        except UNFIT:
            return False
        return True

    def _violation(self, given: Mapping[str, Any], leniency: Leniency) -> str | None:
        """What the schema forbids in the fields that are there, whichever of its names each has."""
        properties = self._checked_schema["properties"]
        for names, _ in self._asked_fields:
            name = next((one for one in names if one in given), None)
            if name is None:
                continue
            wrong = find_violation({names[0]: given[name]}, _only(names[0], properties), leniency)
            if wrong is not None:
                return wrong
        return None

    def valid(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The checked record of Python values, where no answer of a model is at hand that could be repaired.

        Raises:
            InvalidOutput: it is none.
        """
        said = {str(name): as_json(value) for name, value in given.items()}
        record, problem = self.record(said, coded=True, empty_texts=True)
        if record is None:
            raise InvalidOutput(problem or "invalid")
        return record


def _only(name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object that has one field."""
    return {"type": "object", "properties": {name: properties.get(name, {})}}


def _unfit_words(error: Exception) -> str:
    """Why a value does not go into its column, without the value."""
    if isinstance(error, UnicodeEncodeError):
        return "a text contains a lone surrogate and cannot be encoded as UTF-8"
    if isinstance(error, OverflowError) or "too large" in str(error):
        return "a value does not fit the column type (an integer beyond 64 bits, a time beyond the years 1 to 9999)"
    return f"a value does not fit the column type ({type(error).__name__})"


def check_held(values: Sequence[Any], kind: Any) -> None:
    """Check that a column holds values of a type.

    Raises:
        InvalidOutput: it cannot hold one of them.
    """
    try:
        pa.array([plain(value, kind) for value in values], type=arrow_type(kind))
    except UNFIT as error:
        raise InvalidOutput(_unfit_words(error)) from None


def as_json(value: Any) -> Any:
    """A value of a user's function in the JSON form in which a model would have given it.

    Example:
        >>> as_json({"day": pd.Timestamp("2026-01-31"), "price": decimal.Decimal("1.50"), "n": np.int64(3)})
        {'day': '2026-01-31T00:00:00', 'price': '1.50', 'n': 3}
    """
    if isinstance(value, BaseModel):
        return as_json(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return as_json(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {key_text(key): as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray | pd.Series):
        return [as_json(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted((as_json(inner) for inner in value), key=str)
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else float(value)
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    if isinstance(value, dt.datetime) and value.tzinfo is None:
        return value.isoformat()
    return _as_text(value)


def _as_text(value: Any) -> Any:
    """A single value in its JSON form.

    Raises:
        InvalidOutput: it has none; that an object can be printed makes no finding of it.
    """
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    form = cell(value)
    if isinstance(form, str) and not isinstance(value, _WRITTEN) and not hasattr(value, "as_py"):
        raise InvalidOutput(f"JSON has no form for a value of the type {type(value).__name__}")
    return form


@dataclass(slots=True)
class Checked:
    """What an answer holds for the units asked: accepted records, and problems, both by the unit's number.

    Attributes:
        said: of each accepted record, what the answer said.
    """

    accepted: dict[int, dict[str, Any]] = field(default_factory=dict)
    said: dict[int, dict[str, Any]] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)


def check_answer(answer: Answer, kind: FindingType, *, asked: Collection[int], of: int) -> Checked:
    """Match an answer's findings with the units ``asked``, a part of those numbered from 0 to ``of - 1``.

    An answer that names a number which does not exist *and* leaves one out may be shifted by a row: nothing of it is
    taken. Of an answer that was cut off, the findings before the cut are.
    """
    listed = answer.payload.get("findings") if isinstance(answer.payload, dict) else None
    if answer.cut_off and isinstance(listed, list):
        listed = listed[:-1]  # the last one may be half of what was meant
    if not isinstance(listed, list):
        problem = answer.problem or "no finding: the answer has no list `findings`"
        return Checked(problems=dict.fromkeys(asked, problem))
    by_unit: dict[int, list[Any]] = {}
    unknown: list[Any] = []
    for one in listed:
        said = one.get("unit") if isinstance(one, dict) else None
        number = unit_number(said)
        if number is not None and 0 <= number < of:
            by_unit.setdefault(number, []).append(one)
        else:
            unknown.append(said)
    missing = [number for number in asked if number not in by_unit]
    if unknown and missing:
        shown = ", ".join(repr(number)[:20] for number in unknown[:3])
        return Checked(
            problems=dict.fromkeys(asked, f"the answer names unit {shown}; units are 0 to {of - 1}")
        )
    checked = Checked(problems=dict.fromkeys(missing, answer.problem or "no finding"))
    for number in asked:
        found = by_unit.get(number, ())
        if len(found) > 1:
            checked.problems[number] = f"{len(found)} findings, not one"
        elif found:
            fields = {key: value for key, value in found[0].items() if key != "unit"}
            record, wrong = _checked_record(kind, fields, coded=answer.form == REPL_FORM)
            if record is None:
                checked.problems[number] = wrong or "invalid"
            else:
                checked.accepted[number] = record
                checked.said[number] = fields
    return checked


def _checked_record(
    kind: FindingType, fields: dict[str, Any], *, coded: bool
) -> tuple[dict[str, Any] | None, str | None]:
    """The checked record of an answer, or what is wrong with it; what no cell may hold is not looked into."""
    large = find_large(fields)
    if large is not None:
        return (
            None,
            f"{large[:100]}: it holds more than {CELL_BYTES >> 20} MB, and a cell takes no more",
        )
    record, problem = kind.record(fields, coded=coded)
    return record, shortened(problem) if problem else None


def unit_number(said: Any) -> int | None:
    """The number that an answer names a unit by; models write it as a text or a float, too.

    Example:
        >>> unit_number(3), unit_number("3"), unit_number(3.0), unit_number("03"), unit_number(True)
        (3, 3, 3, None, None)
    """
    if isinstance(said, bool):
        return None
    if isinstance(said, float) and said.is_integer():
        return int(said)
    if isinstance(said, str) and said.isascii() and said.isdigit() and str(int(said[:20])) == said:
        return int(said)
    return said if isinstance(said, int) else None


def check_alone(answer: Answer, kind: FindingType) -> Checked:
    """Check the flat finding of a unit that was asked alone; a list that holds it is read as one of a shard is."""
    if answer.problem is not None:
        return Checked(problems={0: answer.problem})
    payload, names = answer.payload, kind.schema["properties"].keys()
    if "findings" in payload and names.isdisjoint(payload):
        return check_answer(answer, kind, asked=(0,), of=1)
    record, problem = _checked_record(kind, payload, coded=False)
    if record is None:
        return Checked(problems={0: problem or "invalid"})
    return Checked(accepted={0: record}, said={0: payload})


class FindingStore:
    """One map's findings as they land, in any order; columns in the frame's order at the end.

    Joined by position alone: each row takes the finding of the unit that answers for it.
    """

    def __init__(self, name: str | None, kind: FindingType | None) -> None:
        self._name = name
        self._kind = kind
        self._positions: list[NDArray[np.int64]] = []
        self._tables: list[pa.Table] = []

    def copy(self) -> FindingStore:
        """A copy that can be added to."""
        store = FindingStore(self._name, self._kind)
        store._positions, store._tables = list(self._positions), list(self._tables)
        return store

    def add(self, positions: Sequence[int], table: pa.Table) -> None:
        """Keep the findings of some units, one row of ``table`` for each."""
        assert len(positions) == table.num_rows
        self._positions.append(np.asarray(positions, dtype=np.int64))
        self._tables.append(table)

    def clash(self, table: pa.Table) -> str | None:
        """Why a table cannot stand below those that are there; None where it can."""
        if (
            self._kind is not None
            or not self._tables
            or table.schema.equals(self._tables[-1].schema)
        ):
            return None
        try:
            check_joinable([*self._tables, table])
        except InvalidOutput as error:
            return str(error)
        return None

    def labels(self, table: pa.Table | None = None) -> list[str]:
        """What the columns are called in the frame, those of ``table`` among them."""
        if self._kind is not None:
            return list(self._kind.all_columns)
        tables = self._tables if table is None else [*self._tables, table]
        fields = dict.fromkeys(name for one in tables for name in one.column_names)
        names: list[str] = self.named(pa.table({name: pa.nulls(0) for name in fields})).column_names
        return names

    def named(self, table: pa.Table) -> pa.Table:
        """``table`` with its columns called as in the frame; those of a function without a type carry its name."""
        if self._kind is not None:
            return table.rename_columns(list(self._kind.columns))
        if self._name is None:
            return table
        names = table.column_names
        return table.rename_columns(
            [f"{self._name}_{name}" if len(names) > 1 else self._name for name in names]
        )

    def by_position(self) -> tuple[NDArray[np.int64], pa.Table]:
        """All findings, in the order of their units' positions, and these."""
        positions = np.concatenate([np.empty(0, np.int64), *self._positions])
        order = np.argsort(positions, kind="stable")
        return positions[order], self._joined().take(pa.array(order))

    def columns(self, asked: NDArray[np.int64], answered_by: NDArray[np.int64]) -> dict[str, Any]:
        """One typed array a field, one value a row of the frame; ``<NA>`` where there is no finding."""
        table = self.named(self._joined())
        row_of = np.full(len(asked), -1, dtype=np.int64)
        if self._positions:
            found = np.concatenate(self._positions)
            row_of[np.searchsorted(asked, found)] = np.arange(len(found))
        rows = row_of[answered_by]
        return self._arrays(table.take(pa.array(rows, mask=rows < 0)))

    def arrays(self, table: pa.Table) -> dict[str, Any]:
        """Convert some findings to the columns that all of them have in the frame."""
        return self._arrays(self.named(table))

    def _arrays(self, named: pa.Table) -> dict[str, Any]:
        kinds = (
            list(field_types(self._kind.model).values())
            if self._kind
            else [None] * named.num_columns
        )
        arrays = {
            name: array_of(column, kind)
            for name, column, kind in zip(named.column_names, named.columns, kinds, strict=True)
        }
        if self._kind is not None and self._kind.count_column is not None:
            arrays[self._kind.count_column] = array_of(
                pc.list_value_length(named.column(0)).cast(pa.int64())
            )
        return arrays

    def _joined(self) -> pa.Table:
        if self._tables:
            joined = pa.concat_tables(self._tables, promote_options="permissive")
            if self._kind is not None:
                return joined
            parts = sorted(
                range(len(self._tables)), key=lambda part: self._positions[part][:1].tolist()
            )
            return joined.select(
                list(dict.fromkeys(n for part in parts for n in self._tables[part].column_names))
            )
        return (self._kind.arrow if self._kind else pa.schema([])).empty_table()


def check_joinable(tables: Sequence[pa.Table]) -> None:
    """Check that what functions gave can stand in one column.

    Raises:
        InvalidOutput: the values are of types that have none in common.
    """
    try:
        pa.concat_tables(tables, promote_options="permissive")
    except UNFIT as error:
        raise InvalidOutput(
            f"its values are of other types than those before ({type(error).__name__})"
        ) from None


def column_names(name: str | None, fields: list[str]) -> tuple[str, ...]:
    """What a map's fields are called in the frame: a named map puts its name first.

    Example:
        >>> column_names("tone", ["finding"]), column_names("tone", ["label", "why"])
        (('tone',), ('tone_label', 'tone_why'))
    """
    if name is None:
        return tuple(fields)
    return (name,) if fields == [TEXT_FINDING] else tuple(f"{name}_{field}" for field in fields)


def items_frame(
    findings: pd.DataFrame, kind: FindingType
) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """One row a record, labelled by its unit, where a unit holds none or many; and each record's position."""
    assert kind.item is not None
    lists = pa.chunked_array([pa.array(findings[kind.columns[0]].array)]).combine_chunks()
    positions = pc.list_parent_indices(lists).to_numpy()
    records = pc.list_flatten(lists)
    columns = {
        name: array_of(pa.chunked_array([records.field(field)]), annotation)
        for name, (field, annotation) in zip(
            kind.item_columns, field_types(kind.item).items(), strict=True
        )
    }
    return pd.DataFrame(columns, index=findings.index[positions]), positions.astype(np.int64)


def array_of(column: pa.ChunkedArray, kind: Any = None) -> Any:
    """An Arrow column as the pandas array that users expect: choices as a category, all else Arrow-typed."""
    choices = choices_of(kind)
    if choices is None:
        return pd.array(column.combine_chunks(), dtype=pd.ArrowDtype(column.type))
    distinct = list(dict.fromkeys(choices))
    values = column.to_pylist()
    if not is_mixed(distinct):
        return pd.Categorical(values, categories=pd.Index(distinct))
    code_of = {json.dumps(choice, ensure_ascii=False): code for code, choice in enumerate(distinct)}
    codes = [-1 if value is None else code_of[value] for value in values]
    return pd.Categorical.from_codes(codes, categories=pd.Index(distinct, dtype=object))


def with_findings(frame: pd.DataFrame, findings: pd.DataFrame) -> pd.DataFrame:
    """``frame`` plus the findings' columns: a new frame, same index, same order."""
    added = findings
    if frame.columns.nlevels > 1:
        padded = [(name, *[""] * (frame.columns.nlevels - 1)) for name in findings.columns]
        added = findings.set_axis(
            pd.MultiIndex.from_tuples(padded, names=frame.columns.names), axis=1
        )
    elif findings.columns.name != frame.columns.name:
        added = findings.rename_axis(columns=cast("Any", frame.columns.name))
    joined = pd.concat([frame, added], axis=1) if len(added.columns) else frame.copy()
    joined.attrs = dict(frame.attrs)
    return joined


def values_array(values: Sequence[Any], kind: Any) -> Any:
    """Checked values as one typed array; None is ``<NA>``."""
    held = pa.array([plain(value, kind) for value in values], type=arrow_type(kind))
    return array_of(pa.chunked_array([held]), kind)


def records_frame(records: Iterable[BaseModel | None], model: type[BaseModel]) -> pd.DataFrame:
    """Checked records as a typed frame; None is a row of ``<NA>``."""
    none = dict.fromkeys(model.model_fields)
    table = table_of(
        (none if one is None else plain_record(one) for one in records), arrow_schema(model)
    )
    kinds = field_types(model)
    return pd.DataFrame({name: array_of(table.column(name), kind) for name, kind in kinds.items()})
