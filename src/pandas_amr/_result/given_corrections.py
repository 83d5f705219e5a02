"""Corrections as people give them: rows by label, fields by name, values as they write them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel

from pandas_amr._findings.corrections import Correction
from pandas_amr._findings.finding_type import ITEMS, FindingType, as_json
from pandas_amr._findings.store import CORRECTED, FOUND
from pandas_amr._journal.entries import Check
from pandas_amr._records.suggest import closest_name
from pandas_amr._types.arrow_values import json_record
from pandas_amr.errors import InvalidOutput, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pandas_amr._findings.corrections import Corrections
    from pandas_amr._findings.map_findings import MapFindings

MOST_PROBLEMS = 5
SHAPE = 'override({label: {"field": value}})'


class RefusedCorrection(Exception):
    """A correction that is refused; its text says why."""


@dataclass(frozen=True)
class Correctable:
    """What can be corrected.

    Attributes:
        frame: the rows with their findings.
        findings: what was found.
        kinds: the type of each map's findings; None of a function without one.
        functions: the names of the maps that are functions of the user's.
        records: findings by map and unit, of the units that were loaded.
    """

    frame: pd.DataFrame
    findings: MapFindings
    kinds: Mapping[str | None, FindingType | None]
    functions: frozenset[str | None] = frozenset()
    records: dict[str | None, dict[int, dict[str, Any]]] = field(default_factory=dict)

    @cached_property
    def columns(self) -> dict[str, tuple[str | None, str]]:
        """The map, and its own name of the field, of each column that findings have."""
        columns: dict[str, tuple[str | None, str]] = {}
        for name, kind in self.kinds.items():
            if kind is None:
                continue
            for column, alias in kind.aliases.items():
                columns[column] = (name, alias)
        return columns

    def kind(self, name: str | None) -> FindingType:
        """Return the type of a map's findings.

        Raises:
            UsageError: it is a function without one.
        """
        kind = self.kinds[name]
        if kind is None:
            argument = "finding=Model" if name is None else f"finding={{{name!r}: Model}}"
            raise UsageError(
                "What a function without a type has found cannot be corrected: nothing says what "
                f"would be right. Give the type in the call: {argument}."
            )
        return kind

    def unit(self, position: int) -> int:
        """Return the position of the unit that answers for a row."""
        units = self.findings.units
        return int(units.asked[units.answered_by[position]])

    def status(self, name: str | None, unit: int) -> str:
        """Return the status of a unit of a map."""
        findings = self.findings
        place = np.searchsorted(findings.units.asked, unit)
        return str(findings.statuses[name][place])

    def load(self, units: Collection[int]) -> None:
        """Load the findings of some units, which are then looked at one by one."""
        for name, store in self.findings.stores.items():
            self.records[name] = store.records(units)

    def form(self, name: str | None, unit: int) -> dict[str, Any] | None:
        """Return the finding of a loaded unit in JSON; None if it has none."""
        record = self.records[name].get(unit)
        if record is None or self.status(name, unit) not in FOUND:
            return None
        kind = self.kind(name)
        return json_record(record, kind.model)


@dataclass(frozen=True)
class GivenCorrection:
    """What was given of one row: the fields of each map, or None for a correction taken back.

    Attributes:
        label: the row, as it was named.
        position: its position.
        fields: by map, the fields in JSON by the names that a model uses.
    """

    label: Any
    position: int
    fields: Mapping[str | None, Mapping[str, Any] | None]


@dataclass
class CorrectionReader:
    """Reads corrections, and collects what is wrong with them.

    Attributes:
        target: what is corrected.
        by: whether rows are named by label or by position.
        problems: what is wrong, in the order of the corrections.
    """

    target: Correctable
    by: str = "label"
    problems: list[str] = field(default_factory=list)

    def read_dict(self, given: Mapping[Any, Any]) -> list[GivenCorrection]:
        """Read corrections by label."""
        corrections: list[GivenCorrection] = []
        for label, value in given.items():
            try:
                position = self.find_position(label)
                fields = self._read_value(value)
            except RefusedCorrection as refusal:
                self.add_problem(label, str(refusal))
                continue
            corrections.append(GivenCorrection(label, position, fields))
        return corrections

    def add_problem(self, label: object, problem: str) -> None:
        """Add what is wrong with the correction of a row."""
        self.problems.append(f"{self.name_row(label)}: {problem}")

    def _raise_problems(self) -> None:
        """Raise what is wrong.

        Raises:
            UsageError: something is.
        """
        if not self.problems:
            return
        shown = "; ".join(self.problems[:MOST_PROBLEMS])
        more = len(self.problems) - MOST_PROBLEMS
        end = f"; and {more} more" if more > 0 else ""
        raise UsageError(f"Nothing was corrected. {shown}{end}.")

    # Rows

    def find_position(self, label: object) -> int:
        """Return the position of the row that a label names, or that is named by position."""
        index = self.target.frame.index
        if self.by == "position":
            return _check_position(label, len(index))
        if isinstance(index, pd.MultiIndex) and not _is_full_key(label, index.nlevels):
            raise RefusedCorrection(
                f"the rows have labels of {index.nlevels} levels: name one by a tuple of "
                f"{index.nlevels}, not {label!r}"
            )
        try:
            place: Any = index.get_loc(label)
        except (KeyError, TypeError, ValueError, pd.errors.InvalidIndexError):
            raise RefusedCorrection(_describe_unknown(label, index)) from None
        if isinstance(place, Integral):
            return int(place)
        positions = np.arange(len(index))[place]
        if len(positions) == 1:
            return int(positions[0])
        shown = ", ".join(map(str, positions[:MOST_PROBLEMS]))
        raise RefusedCorrection(
            f"the label {label!r} names {len(positions)} rows (at {shown}): name rows by position, "
            f'override({{{positions[0]}: ...}}, by="position")'
        )

    def name_row(self, label: object) -> str:
        """Name a row as it was named."""
        if self.by == "position":
            return f"the row at {label!r}"
        return f"row {label!r}"

    # Values

    def _read_value(self, value: object) -> dict[str | None, Mapping[str, Any] | None]:
        """Read what was given of a row, by map."""
        target = self.target
        if value is None:
            return dict.fromkeys(target.kinds)  # what is corrected of it is taken back
        if None in target.kinds:
            return {None: self._read_fields(None, value)}
        if not isinstance(value, Mapping):
            names = ", ".join(map(repr, target.kinds))
            raise RefusedCorrection(
                f"it takes a dict by the names of the maps ({names}) or of the columns, not a "
                f"{type(value).__name__}"
            )
        by_map: dict[str | None, Mapping[str, Any] | None] = {}
        for key, part in value.items():
            name, fields = self._read_part(key, part)
            earlier = by_map.get(name)
            if fields is not None and earlier is not None:
                fields = {**earlier, **fields}
            by_map[name] = fields
        return by_map

    def _read_part(self, key: Any, part: object) -> tuple[str | None, dict[str, Any] | None]:
        """Read what stands under the name of a map or of a column; return the map, and fields."""
        target = self.target
        is_map = key in target.kinds
        if is_map and part is None:
            return key, None
        if key in target.columns and not self._is_finding(key, part):
            name, alias = target.columns[key]
            return name, {alias: _as_json(part)}
        if is_map:
            return key, self._read_fields(key, part)
        names = map(str, target.kinds)
        suggestion = _suggest(key, [*names, *target.columns])
        raise RefusedCorrection(f"{key!r} is no map and no column of findings{suggestion}")

    def _is_finding(self, key: Any, part: object) -> bool:
        """Tell whether a value under a name that a map and its column share is a whole finding."""
        kind = self.target.kinds.get(key)
        if kind is None or not isinstance(part, Mapping) or not part:
            return False
        return all(kind.find_field(name) is not None for name in part)

    def _read_fields(self, name: str | None, value: object) -> dict[str, Any]:
        """Read the fields of one finding; a list is all records of a unit that can hold many."""
        kind = self.target.kind(name)
        if kind.item is not None and isinstance(value, list | tuple):
            return {ITEMS: _as_json(value)}
        is_object = dataclasses.is_dataclass(value) and not isinstance(value, type)
        if not is_object and not isinstance(value, Mapping | BaseModel):
            raise RefusedCorrection(
                f"it takes {_describe_shape(kind)}, not a value of the type {type(value).__name__}"
            )
        fields: dict[str, Any] = {}
        for key, part in _as_json(value).items():
            alias = _find_alias(kind, key)
            fields[alias] = part
        if not fields:
            raise RefusedCorrection(f"it names no field; it takes {_describe_shape(kind)}")
        return fields

    # Check

    def check(self, given: Sequence[GivenCorrection]) -> Corrections:
        """Check corrections, by map and unit; rows of one unit are corrected alike.

        Raises:
            UsageError: some do not fit; the message says of each what would be right.
        """
        units = [self.target.unit(row.position) for row in given]
        self.target.load(set(units))
        checked: dict[str | None, dict[int, Correction | None]] = {}
        label_of: dict[tuple[str | None, int], Any] = {}
        for row, unit in zip(given, units, strict=True):
            for name, fields in row.fields.items():
                of_map = checked.setdefault(name, {})
                try:
                    correction = self._check_one(name, unit, fields)
                    if unit in of_map:
                        self._check_alike(of_map[unit], correction, label_of[name, unit])
                except RefusedCorrection as refusal:
                    self.add_problem(row.label, str(refusal))
                    continue
                of_map[unit] = correction
                label_of[name, unit] = row.label
        self._raise_problems()
        return checked

    def _check_alike(self, first: Correction | None, second: Correction | None, label: Any) -> None:
        """Check that rows of one unit are corrected alike; ``label`` is that of the first."""
        if first is None or second is None:
            is_alike = first is second
        else:
            is_alike = first.record == second.record
        if not is_alike:
            raise RefusedCorrection(
                f"it has the same content as {self.name_row(label)}, and one finding stands for "
                "both: correct them alike"
            )

    def _check_taken_back(self, name: str | None, unit: int) -> None:
        """Check that a unit was corrected, and that it is known what was found before."""
        target = self.target
        if unit in target.findings.corrected.get(name, {}):
            return
        if target.status(name, unit) == CORRECTED:
            raise RefusedCorrection(
                "this result was loaded or unpickled, and does not know what was found before the "
                "correction; the same call knows it from its journal"
            )
        if len(target.kinds) == 1:
            raise RefusedCorrection("None takes a correction back, and it is not corrected")

    def _check_one(
        self, name: str | None, unit: int, fields: Mapping[str, Any] | None
    ) -> Correction | None:
        """Check a correction as a model's answer is checked."""
        target = self.target
        if fields is None:
            self._check_taken_back(name, unit)
            return None
        kind = target.kind(name)
        check = Check(kind, made=name in target.functions)
        before = target.form(name, unit)
        form = dict(fields) if before is None else {**before, **fields}
        record, problem = kind.record(form, coded=True, empty_texts=check.made)
        if record is None:
            raise RefusedCorrection(self._describe(name, unit, before, str(problem)))
        names = _names_of(kind, fields)
        if before is not None:
            corrected = {key: record[key] for key in names}
            record = target.records[name][unit] | corrected
        known_form = _find_form(record, check, form)
        return Correction(record, known_form, names)

    def _describe(
        self, name: str | None, unit: int, before: Mapping[str, Any] | None, problem: str
    ) -> str:
        whose = "" if name is None else f"{name}: "
        if before is None and problem.startswith("without "):
            status = self.target.status(name, unit)
            return (
                f"{whose}it is {status} and has no finding, so that its correction names all "
                f"fields; this one is {problem}"
            )
        return f"{whose}{problem}"


def _suggest(name: object, names: Sequence[str]) -> str:
    """Suggest the name that is meant, in brackets; an empty text if none is close."""
    closest = closest_name(name, names)
    if closest is None:
        return ""
    return f" (did you mean {closest!r}?)"


def _describe_unknown(label: object, index: pd.Index) -> str:
    """Say that no row has a label; if one has it as a text or as a number, say that."""
    problem = f"no row has the label {label!r}"
    for other in (str(label), _as_number(label)):
        is_another = other is not None and other != label
        if is_another and other in index:
            return f"{problem}, but one has {other!r}"
    return problem


def _as_number(label: object) -> int | None:
    try:
        return int(str(label))
    except ValueError:
        return None


def _is_full_key(label: object, levels: int) -> bool:
    return isinstance(label, tuple) and len(label) == levels


def _check_position(label: object, rows: int) -> int:
    if isinstance(label, bool | np.bool_) or not isinstance(label, Integral):
        raise RefusedCorrection("a position is a whole number, from 0")
    if not 0 <= int(label) < rows:
        raise RefusedCorrection(f"there are {rows} rows, from 0 to {rows - 1}")
    return int(label)


def _as_json(value: object) -> Any:
    try:
        return as_json(value)
    except InvalidOutput as error:
        raise RefusedCorrection(str(error)) from None


def _find_alias(kind: FindingType, name: object) -> str:
    """Return the name that a model uses for a field, by any of its names or by its column."""
    alias = kind.find_field(name) or kind.aliases.get(str(name))
    if alias is not None:
        return alias
    if kind.item is not None:
        raise RefusedCorrection(f"it takes {_describe_shape(kind)}")
    known = list(kind.aliases.values())
    raise RefusedCorrection(
        f"there is no field {name!r}{_suggest(name, known)}; the fields: {', '.join(known)}"
    )


def _describe_shape(kind: FindingType) -> str:
    """Describe what a correction is, by the first field."""
    if kind.item is not None:
        first = next(iter(kind.item.model_fields))
        return f"a list of all its records, such as [{{{first!r}: ...}}]"
    first = next(iter(kind.aliases.values()))
    return f"a dict of fields, such as {{{first!r}: ...}}"


def _names_of(kind: FindingType, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the model's own names of some fields."""
    names: list[str] = []
    aliases = kind.aliases.values()
    for name, alias in zip(kind.model.model_fields, aliases, strict=True):
        if alias in fields:
            names.append(name)
    return tuple(names)


def _find_form(
    record: Mapping[str, Any], check: Check, given: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return JSON that is read as a record again; None if none is."""
    model = check.kind.model
    written = json_record(record, model)
    for form in (written, dict(given)):
        plain: dict[str, Any] = json.loads(json.dumps(form))
        read = check(plain)
        if read is not None and json_record(read, model) == written:
            return plain
    return None
