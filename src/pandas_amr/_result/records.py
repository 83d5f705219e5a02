"""The findings of a result as objects of the user's own types."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Generic, get_args, get_origin, overload

import numpy as np
import pandas as pd
import pyarrow as pa
from typing_extensions import TypeVar

from pandas_amr._findings.finding_type import FindingType
from pandas_amr._plan.plan import make_plan
from pandas_amr._plan.plan_types import as_finding
from pandas_amr._records.suggest import did_you_mean
from pandas_amr._result.frames import have_findings
from pandas_amr._types.arrow import field_types
from pandas_amr._types.python_values import annotations_of, build_record, find_choice, python_value
from pandas_amr._types.record import users_type
from pandas_amr._types.resolve import choices_of
from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from pydantic import BaseModel

    from pandas_amr._result.result import Result

Item = TypeVar("Item", default=Any)
Kind = TypeVar("Kind", default=Any)  # what finding= was: a type of records, or a list of one

LOCAL = "<locals>"  # in the qualified name of a class that a function defines

if TYPE_CHECKING:

    class Records(pd.Series[Any], Generic[Item]):
        """A Series whose values are records; pandas' own types have no room for them."""

        def __iter__(self) -> Iterator[Item]: ...
        def tolist(self) -> list[Item]: ...


@dataclass(frozen=True, slots=True)
class TypeName:
    """Where the type of a loaded result's findings is defined.

    Attributes:
        module: the name of the module.
        qualname: the name of the class in it; an empty text for a type that was made from a dict
            or a JSON schema, which the plan holds.
        many: whether a unit can hold none or many records.
    """

    module: str
    qualname: str
    many: bool

    def find(self) -> Any:
        """Import the class.

        Raises:
            UsageError: it is not where it was.
        """
        if LOCAL in self.qualname:
            raise self._error("a function defined it")
        try:
            module = importlib.import_module(self.module)
            kind = reduce(getattr, self.qualname.split("."), module)
        except (ImportError, AttributeError) as error:
            raise self._error(type(error).__name__) from None
        return list[kind] if self.many else kind  # type: ignore[valid-type]

    def _error(self, why: str) -> UsageError:
        name = self.qualname.rpartition(".")[-1]
        given = f"list[{name}]" if self.many else name
        return UsageError(
            f"The type of these records, {self.module}.{self.qualname}, cannot be imported "
            f"({why}). Say it when you load the result: amr.load(folder, finding={given})."
        )


def name_type(kind: Any) -> TypeName | None:
    """Say where the type of a map's findings is defined; None for a function without a type."""
    if kind is None or isinstance(kind, TypeName):
        return kind
    many = get_origin(kind) is list
    if many:
        [kind] = get_args(kind)
    own = users_type(kind)
    if own is None:
        return TypeName("", "", many)
    return TypeName(own.__module__, own.__qualname__, many)


class RecordsField:
    """``Result.records``: made at the first access, since a run may have millions of findings."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, result: None, owner: type) -> RecordsField: ...
    @overload
    def __get__(self, result: Result[Any, list[Item]], owner: type) -> Records[Item]: ...
    @overload
    def __get__(self, result: Result[Any, Kind], owner: type) -> Records[Kind]: ...
    def __get__(self, result: Result[Any, Any] | None, owner: type) -> Any:
        if result is None:
            return self
        values = vars(result)
        if self._name not in values:
            values[self._name] = make_records(result)
        return values[self._name]


def make_records(result: Result) -> pd.Series | pd.DataFrame:
    """Make an object of the user's own type of each finding.

    Raises:
        UsageError: there are no findings, or their type is not known.
    """
    if result.stages:
        raise UsageError("A recipe's stages have the records: result.stages[i].records.")
    findings: Any = result.findings
    if not isinstance(findings, pd.DataFrame):
        raise UsageError(
            "A result with out= has no records, which may be more than memory holds: read the "
            "columns that you need, result.findings.to_table(...)."
        )
    kinds = _read_types(result)
    if not kinds:
        raise UsageError(
            "There are no records: nothing was mapped. result.output is the whole answer."
        )
    columns: dict[str | None, Any] = {}
    for name, kind in kinds.items():
        is_spread = kind.item is not None and len(kinds) == 1
        needed = kind.item_columns if is_spread else kind.columns
        if not set(needed) <= set(findings.columns):
            raise UsageError("There are no records: the run ended before anything was mapped.")
        columns[name] = _records_of_map(findings, result.status, kind, is_spread=is_spread)
    if None in columns:
        return pd.Series(columns[None], index=findings.index, name="record", dtype=object)
    return pd.DataFrame(columns, index=findings.index, dtype=object)


def _read_types(result: Result) -> dict[str | None, FindingType]:
    """Return the type of each map's findings.

    Raises:
        UsageError: a function has none, or a type cannot be imported, or does not fit the findings.
    """
    kinds: dict[str | None, FindingType] = {}
    for name, known in (result.finding_types or {}).items():
        if known is None:
            argument = "finding=Model" if name is None else f"finding={{{name!r}: Model}}"
            raise UsageError(
                "There are no records of a function without a type; its findings are in "
                f"result.findings. Give the type in the call: {argument}."
            )
        kinds[name] = read_type(result, name, known)
    return kinds


def read_type(result: Result, name: str | None, known: Any) -> FindingType:
    """Return the type of a map's findings; a loaded result knows the name of it.

    Raises:
        UsageError: it cannot be imported, or does not fit the findings.
    """
    if not isinstance(known, TypeName):
        return FindingType.of(known, name)
    stored = _read_stored_type(result, name)
    if not known.qualname:
        return stored
    kind = FindingType.of(as_finding(known.find()), name)
    _check_same_fields(kind, stored)
    return kind


def _read_stored_type(result: Result, name: str | None) -> FindingType:
    """Return the type of a map's findings that the plan's JSON has."""
    planned = result.plan.finding
    kind = planned[name] if isinstance(planned, dict) else planned
    return FindingType.of(kind, name)


def replace_types(result: Result, finding: object) -> dict[str | None, Any]:
    """Return the types of a loaded result's findings: those that the user gives.

    Raises:
        UsageError: they are not the types of its findings.
    """
    known = result.finding_types or {}
    if not known:
        raise UsageError("load(finding=...) gives the type of findings, and this result has none.")
    given = make_plan({"finding": finding}).finding
    by_map = given if isinstance(given, dict) else dict.fromkeys(known, given)
    kinds: dict[str | None, Any] = {}
    for name, before in known.items():
        kinds[name] = by_map.get(name, before)
        if isinstance(before, TypeName) and kinds[name] is not before:
            kind = FindingType.of(kinds[name], name)
            _check_same_fields(kind, _read_stored_type(result, name))
    for name in by_map:
        if name in known:
            continue
        raise UsageError(
            f"load(finding=...) names the map {name!r}, which is not one of this result's."
            f"{did_you_mean(name, list(known))} They are: {', '.join(map(str, known))}."
        )
    return kinds


def _check_same_fields(kind: FindingType, stored: FindingType) -> None:
    """Check that a type is the one with which a loaded result was made.

    Raises:
        UsageError: its fields are others, or the choices of a field.
    """
    model = kind.item or kind.model
    before = stored.item or stored.model
    is_same_form = (kind.item is None) == (stored.item is None)
    have_same_columns = kind.arrow.equals(stored.arrow)
    if is_same_form and have_same_columns and _choices(model) == _choices(before):
        return
    raise UsageError(
        f"{model.__name__} is not the type of these findings: it has the fields "
        f"{_list_fields(model)}; the findings have {_list_fields(before)}, perhaps of other types."
    )


def _choices(model: type[BaseModel]) -> dict[str, frozenset[Any]]:
    """Return the choices of a model's fields that have some, by field."""
    choices: dict[str, frozenset[Any]] = {}
    for name, kind in field_types(model).items():
        choices[name] = frozenset(choices_of(kind) or ())
    return choices


def _list_fields(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)


def _records_of_map(
    findings: pd.DataFrame, status: pd.DataFrame | None, kind: FindingType, *, is_spread: bool
) -> NDArray[np.object_]:
    """Make the records of a map, one per row of the findings; None for a unit without a finding.

    Args:
        findings: the columns of all maps.
        status: the status of the rows; None if it is not known.
        kind: the type of the map's findings.
        is_spread: whether the rows are records and not units.
    """
    if kind.item is not None and not is_spread:
        [name] = kind.columns
        return _lists_of_records(findings[name], kind.item)
    model = kind.item or kind.model
    names = kind.item_columns or kind.columns
    columns: dict[str, list[Any]] = {}
    for name, (field, annotation) in zip(names, annotations_of(model).items(), strict=True):
        columns[field] = _python_column(findings[name], annotation)
    own = users_type(model) or model
    has_record = _has_record(findings, status, names, is_spread=is_spread)
    records = np.full(len(findings), None, dtype=object)
    for row in np.flatnonzero(has_record):
        fields = {field: column[row] for field, column in columns.items()}
        records[row] = _build(fields, own)
    return records


def _lists_of_records(column: pd.Series, model: type[BaseModel]) -> NDArray[np.object_]:
    """Make the records of a map whose units hold lists of them; None for a missing list."""
    own = users_type(model) or model
    lists = np.full(len(column), None, dtype=object)
    for row, items in enumerate(pa.array(column.array).to_pylist()):
        if items is None:
            continue
        records: list[Any] = []
        for item in items:
            fields = _python_fields(item, model)
            records.append(_build(fields, own))
        lists[row] = records
    return lists


def _has_record(
    findings: pd.DataFrame,
    status: pd.DataFrame | None,
    names: tuple[str, ...],
    *,
    is_spread: bool,
) -> NDArray[np.bool_]:
    """Tell which rows of the findings have a record of a map.

    A record may consist of missing values. It is told from a missing one by the status of the row,
    which is that of the worst of its maps.
    """
    if is_spread:
        return np.ones(len(findings), dtype=bool)
    has_record: NDArray[np.bool_] = findings[list(names)].notna().any(axis=1).to_numpy()
    if status is None:
        return has_record
    return has_record | have_findings(status)


def _python_column(column: pd.Series, annotation: object) -> list[Any]:
    """Convert a column of findings to values of the type of their field."""
    is_categorical = isinstance(column.dtype, pd.CategoricalDtype)
    if is_categorical and choices_of(annotation) is not None:
        values = [find_choice(choice, annotation) for choice in column.cat.categories]
        values.append(python_value(None, annotation))  # the code of a missing value is -1
        return [values[code] for code in column.cat.codes]
    plain = pa.array(column.array).to_pylist()
    return [python_value(value, annotation) for value in plain]


def _python_fields(values: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Convert the fields of a record that Arrow holds."""
    fields: dict[str, Any] = {}
    for name, annotation in annotations_of(model).items():
        fields[name] = python_value(values[name], annotation)
    return fields


def _build(fields: Mapping[str, Any], kind: Any) -> Any:
    """Make one object.

    Raises:
        UsageError: the type itself raises when an object is made.
    """
    try:
        return build_record(dict(fields), kind)
    except Exception as error:
        raise UsageError(
            f"No {kind.__name__} can be made of a finding that was valid: "
            f"what it does when it is made raised {type(error).__name__}."
        ) from error
