"""The type of a finding: its fields, its columns, and the check of one record."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import functools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args, get_origin

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import BaseModel, RootModel, ValidationError

from pandas_amr._agent.dispatch import complaint
from pandas_amr._agent.expressions import FINDINGS, UNIT
from pandas_amr._agent.submission import Submission
from pandas_amr._types.arrow import (
    DECIMAL_DIGITS,
    DECIMAL_PLACES,
    TEXT_LIKE,
    arrow_schema,
    arrow_type,
)
from pandas_amr._types.arrow_values import (
    arrow_record,
    check_fits,
    json_key,
    make_table,
    plain,
)
from pandas_amr._types.record import record_type
from pandas_amr._types.schema import (
    RESERVED,
    TEXT_FINDING,
    Schema,
    accepted_names,
    json_schema,
    object_schema,
    stored_schema,
)
from pandas_amr._types.type_check import (
    MERGED_KEY,
    are_of_types,
    find_merged_key,
    find_mistyped_field,
    is_flat,
    list_unchecked_types,
)
from pandas_amr._types.violations import Leniency, add_place, drop_absent, find_violation
from pandas_amr._units.cells import cell
from pandas_amr.errors import InvalidOutput, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ITEMS = "items"
TYPES = 64
WRITTEN = (  # types whose values are written as texts
    str,
    bytes,
    bytearray,
    dt.date,
    dt.time,
    dt.timedelta,
    np.timedelta64,
    enum.Enum,
    pa.Scalar,
    pd.Period,
    pd.Interval,
    *TEXT_LIKE,
)
UNFIT = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError)


@dataclass(frozen=True)
class FindingType:
    """The type of a finding: the pydantic model, and what follows from it.

    Attributes:
        model: checks a record. If a unit can hold none or many, its one field ``items`` is a list
            of records.
        columns: the names of the fields in the frame.
        item: the type of one of many records; None if a unit has exactly one.
        item_columns: the names of the fields of one of many records.
    """

    model: type[BaseModel]
    columns: tuple[str, ...]
    item: type[BaseModel] | None = None
    item_columns: tuple[str, ...] = ()

    @classmethod
    @functools.lru_cache(TYPES)  # a call needs it three times, and its schema takes long
    def of(cls, kind: Any, name: str | None) -> FindingType:
        """Make the finding type of a map from a model, or from a list of one."""
        if get_origin(kind) is not list:
            return cls(kind, column_names(name, list(kind.model_fields)))
        item = get_args(kind)[0]
        wrapper = record_type("Findings", {ITEMS: kind})
        columns = (ITEMS if name is None else name,)
        return cls(wrapper, columns, item, column_names(name, list(item.model_fields)))

    @property
    def count_column(self) -> str | None:
        """The name of the column with the number of a unit's records, if it can hold many."""
        return f"{self.columns[0]}_count" if self.item else None

    @property
    def all_columns(self) -> tuple[str, ...]:
        """Every column that the findings add to the frame."""
        if self.count_column is None:
            return self.columns
        return (*self.columns, self.count_column)

    def __post_init__(self) -> None:
        record = self.item or self.model
        name = record.__name__
        if issubclass(record, RootModel):
            raise UsageError(
                f"A finding has named fields, and {name} has none. Name one: "
                f"finding={{'value': {name}}}."
            )
        if not record.model_fields:
            raise UsageError(f"{name} has no fields to find.")
        reserved = RESERVED & record.model_fields.keys()
        if reserved:
            raise UsageError(
                f"A finding's field cannot be named {min(reserved)!r}: that is the unit's number."
            )
        _ = self.arrow, self.schema  # so that an unusable type fails before the first request

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of one finding's fields."""
        return json_schema(self.model)

    @cached_property
    def _checked_schema(self) -> dict[str, Any]:
        """The schema that answers are checked against: with marks that are only for this check."""
        return stored_schema(self.model)

    @cached_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema of the fields."""
        if self.item is None:
            return arrow_schema(self.model)
        item = pa.struct(list(arrow_schema(self.item)))
        return pa.schema([pa.field(ITEMS, pa.list_(item))])

    @cached_property
    def _struct(self) -> pa.StructType:
        return pa.struct(list(self.arrow))

    @cached_property
    def _fields(self) -> tuple[_Field, ...]:
        fields: list[_Field] = []
        properties = self._checked_schema["properties"]
        for name, info in self.model.model_fields.items():
            needed = info.is_required() or info.default is not None
            names = (*accepted_names(name, info), name)
            fields.append(_Field(names, needed, properties.get(names[0], {})))
        return tuple(fields)

    @cached_property
    def _first_names(self) -> frozenset[str]:
        """The names by which models give the fields."""
        return frozenset(field.names[0] for field in self._fields)

    @cached_property
    def _is_flat(self) -> bool:
        """Whether each field is a single value of JSON, and pydantic's own checks are its only."""
        return is_flat(self.model)

    @cached_property
    def _unchecked_types(self) -> dict[str, frozenset[type]] | None:
        """The types whose values each field takes as they are; None if one is checked further."""
        return list_unchecked_types(self.model, self._checked_schema["properties"])

    def submission(self, *, alone: bool) -> Submission:
        """Return what an agent submits: one unit's fields, or a list over the units of a shard."""
        if alone:
            return self._submission_of_one
        return self._submission_of_many

    @cached_property
    def _submission_of_one(self) -> Submission:
        return Submission("finding", self._checked_schema)

    @cached_property
    def _submission_of_many(self) -> Submission:
        numbered = {UNIT: {"type": "integer"}, **self._checked_schema["properties"]}
        item = {**self._checked_schema, "properties": numbered, "required": list(numbered)}
        listed = {"type": "array", "items": item}
        return Submission(FINDINGS, object_schema({FINDINGS: listed}))

    def record(
        self,
        given: Mapping[str, Any],
        *,
        coded: bool = False,
        empty_texts: bool = False,
        fits: bool = True,
    ) -> tuple[dict[str, Any] | None, str | None]:
        """Check a finding.

        A field that is left out is not filled with a default that could pass for an answer: only
        with None. Unknown keys are ignored.

        Args:
            given: the finding as JSON, by field.
            coded: whether code made it: pandas has no dates, so a date may come as its midnight.
            empty_texts: whether a text may be empty.
            fits: whether to check that Arrow can hold the record; ``find_fitting`` checks many at
                once.

        Returns:
            The record as Arrow takes it, or None and the problem.
        """
        problem = self._find_missing(given)
        if problem is not None:
            return None, problem
        given = dict(given)
        if not self._is_flat:
            given = drop_absent(given, self._checked_schema)
        record, problem = self._validate(given)
        if problem is not None:
            return None, problem
        problem = self._find_violation(given, Leniency(empty_texts=empty_texts, coded=coded))
        problem = problem or self._find_stray(record)
        if problem is not None:
            return None, problem
        if not self._is_flat:
            merged = find_merged_key(given, self.model)
            if merged is not None:
                return None, f"{merged}: {MERGED_KEY}"
        try:
            values = arrow_record(record)
            if fits:
                check_fits(values, self._struct)
        except UNFIT as error:
            return None, _describe_misfit(error)
        return values, None

    def _find_missing(self, given: Mapping[str, Any]) -> str | None:
        """Describe the fields that are missing and needed, or that all are missing."""
        if self._first_names <= given.keys():  # as most records are
            return None
        missing = [field for field in self._fields if given.keys().isdisjoint(field.names)]
        needed = [field.names[0] for field in missing if field.needed]
        if needed:
            return f"without {', '.join(needed)}"
        if len(missing) == len(self._fields):
            return "without any of the fields"
        return None

    def _validate(self, given: Mapping[str, Any]) -> tuple[Any, str | None]:
        """Validate by the pydantic model; return the record, or None and the problem.

        A user's validator may return anything in the place of the record, None as well.
        """
        try:
            record = self.model.model_validate(given)
        except ValidationError as error:
            return None, self._submission_of_one.wire.find_unread(given) or complaint(error)
        except Exception as error:  # noqa: BLE001 (a user's validator may raise what pydantic does not catch)
            return None, f"its validator raised {type(error).__name__}"
        return record, None

    def _find_stray(self, record: object) -> str | None:
        """Describe what a user's validator returned that is not of the type; it may be anything."""
        if self._is_flat:
            return None
        stray: str | None = type(record).__name__
        if isinstance(record, self.model):
            stray = find_mistyped_field(record)
        if stray is None:
            return None
        return f"its validator gave what the type does not take: {stray}"

    def _find_violation(self, given: Mapping[str, Any], leniency: Leniency) -> str | None:
        """Describe what the schema forbids in the fields that are there, by any of their names."""
        for field in self._fields:
            for name in field.names:
                if name not in given:
                    continue
                violation = find_violation(given[name], field.schema, leniency)
                if violation is not None:
                    return add_place(field.names[0], violation)
                break
        return None

    def accepts(self, alias: str, value: object) -> bool:
        """Tell whether the schema of a field takes a value of JSON as it is."""
        leniency = Leniency(empty_texts=True, coded=True)
        return self._find_violation({alias: value}, leniency) is None

    def find_field(self, name: object) -> str | None:
        """Return the name that a model uses for a field, by any of its names; None if unknown."""
        for field in self._fields:
            if name in field.names:
                return field.names[0]
        return None

    @cached_property
    def aliases(self) -> dict[str, str]:
        """The name that a model uses for each field, by its column in the frame."""
        aliases = [field.names[0] for field in self._fields]
        return dict(zip(self.columns, aliases, strict=True))

    def find_fitting(self, records: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Tell for each of many checked records whether Arrow can hold it."""
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

    def valid(self, given: Mapping[str, Any], *, fits: bool = True) -> dict[str, Any]:
        """Check a finding of Python values, which a function of the user's made.

        Args:
            given: the finding, by field.
            fits: whether to check that Arrow can hold it, as in ``record``.

        Raises:
            InvalidOutput: it is not valid.
        """
        form = {str(name): as_json(value) for name, value in given.items()}
        record, problem = self.record(form, coded=True, empty_texts=True, fits=fits)
        if record is None:
            raise InvalidOutput(problem or "invalid")
        return record

    def valid_table(self, given: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Check findings of Python values, as ``valid`` does; return them as a table.

        Raises:
            InvalidOutput: one is not valid.
        """
        try:
            records = given
            if not self._need_no_check(given):
                records = [self.valid(finding, fits=False) for finding in given]
            return make_table(records, self.arrow)
        except (InvalidOutput, *UNFIT):
            for finding in given:  # so that of several problems the first one is raised
                self.valid(finding)
            raise

    def _need_no_check(self, given: Sequence[Mapping[str, Any]]) -> bool:
        """Tell whether findings of Python values are records that Arrow takes as they are."""
        kinds = self._unchecked_types
        if kinds is None or any(finding.keys() != kinds.keys() for finding in given):
            return False
        return all(
            are_of_types([finding[name] for finding in given], kinds[name]) for name in kinds
        )


@dataclass(frozen=True, slots=True)
class _Field:
    """The names that a field may have in an answer, whether it must be there, and its schema."""

    names: tuple[str, ...]
    needed: bool
    schema: Schema


def column_names(name: str | None, fields: list[str]) -> tuple[str, ...]:
    """Name the columns of a map's fields; those of a named map begin with its name.

    Example:
        >>> column_names("tone", ["finding"]), column_names("tone", ["label", "why"])
        (('tone',), ('tone_label', 'tone_why'))
    """
    if name is None:
        return tuple(fields)
    if fields == [TEXT_FINDING]:
        return (name,)
    return tuple(f"{name}_{field}" for field in fields)


def _describe_misfit(error: Exception) -> str:
    """Describe why a value does not fit its column, without the value."""
    if isinstance(error, UnicodeEncodeError):
        return "a text contains a lone surrogate and cannot be encoded as UTF-8"
    if isinstance(error, OverflowError) or "too large" in str(error):
        return (
            "a value does not fit the column type (an integer beyond 64 bits, a time beyond the "
            "years 1 to 9999)"
        )
    if "decimal" in str(error).lower():
        return (
            f"a decimal does not fit the column type (up to {DECIMAL_DIGITS - DECIMAL_PLACES} "
            f"digits before the point, {DECIMAL_PLACES} after it)"
        )
    if "representable" in str(error):
        return "a whole number beyond 2**53 does not fit a column that takes fractions, too"
    return f"a value does not fit the column type ({type(error).__name__})"


def check_column_values(values: Sequence[Any], kind: object) -> None:
    """Check that a column can hold values of a type.

    Raises:
        InvalidOutput: it cannot hold one of them.
    """
    try:
        plain_values = [plain(value, kind) for value in values]
        pa.array(plain_values, type=arrow_type(kind))
    except UNFIT as error:
        raise InvalidOutput(_describe_misfit(error)) from None


def as_json(value: object) -> Any:
    """Convert a value of a user's function to the JSON form that a model would give it.

    Raises:
        InvalidOutput: JSON has no form for it.

    Example:
        >>> as_json({"day": pd.Timestamp("2026-01-31"), "price": decimal.Decimal("1.50")})
        {'day': '2026-01-31T00:00:00', 'price': '1.50'}
    """
    if value is None or type(value) in (str, int, bool):  # as most values are
        return value
    if isinstance(value, BaseModel):
        return as_json(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return as_json(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {json_key(key): as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray | pd.Series):
        return [as_json(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted((as_json(inner) for inner in value), key=str)
    return _scalar_as_json(value)


def _scalar_as_json(value: object) -> Any:
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else float(value)
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    if isinstance(value, dt.datetime) and value.tzinfo is None:
        return value.isoformat()
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    form = cell(value)
    # Any object can be printed; that does not make a finding of it.
    if isinstance(form, str) and not isinstance(value, WRITTEN):
        raise InvalidOutput(f"JSON has no form for a value of the type {type(value).__name__}")
    return form


def only_list_type(kinds: Sequence[FindingType | None]) -> FindingType | None:
    """Return the type of a finding, if a unit holds none or many and nothing else is found."""
    if len(kinds) > 1 or kinds[0] is None or kinds[0].item is None:
        return None
    return kinds[0]
