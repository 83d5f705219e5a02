"""Corrections as a frame or a Series gives them: a file that was edited, the rows of a review."""

from __future__ import annotations

import ast
import contextlib
import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pandas_amr._findings.finding_type import ITEMS, FindingType, as_json
from pandas_amr._records.suggest import did_you_mean
from pandas_amr._result.compare import is_number
from pandas_amr._result.given_corrections import GivenCorrection, RefusedCorrection
from pandas_amr._result.review import DOUBT_COLUMN, WHY_COLUMN
from pandas_amr._types.violations import is_exact_whole
from pandas_amr._units.cells import cell
from pandas_amr.errors import InvalidOutput, UsageError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pandas_amr._result.given_corrections import Correctable, CorrectionReader

TRUTHS = {"true": True, "false": False}
# What pandas.read_csv makes a column of bools of.
TEXTS_OF_TRUTHS = {True: ("True", "true", "TRUE"), False: ("False", "false", "FALSE")}


def read_frame(reader: CorrectionReader, given: pd.DataFrame | pd.Series) -> list[GivenCorrection]:
    """Read the corrections that a frame gives: its cells that differ from what was found.

    A missing cell is no correction. Columns of the result's own frame that are no findings are not
    read, but must be those of the row: else the labels were lost on the way.

    Raises:
        UsageError: a column is unknown, or the rows are others.
    """
    target = reader.target
    frame = _name_columns(reader, given)
    _check_columns(reader, frame)
    places = _find_places(reader, frame)
    _check_same_rows(reader, frame, places)
    target.load({target.unit(place) for place in places.values()})
    if len(target.kinds) > 1:
        return _read_cells(reader, frame, places)
    [(name, kind)] = target.kinds.items()
    if kind is not None and kind.item is not None:
        of_items = FindingType.of(kind.item, name)
        if any(column in frame.columns for column in of_items.columns):
            return _read_records(reader, frame, places, name, of_items)
    return _read_cells(reader, frame, places)


def _name_columns(reader: CorrectionReader, given: pd.DataFrame | pd.Series) -> pd.DataFrame:
    """Return a frame whose columns have one level, of whatever was given.

    Raises:
        UsageError: a Series has not the name of a column of findings.
    """
    columns = list(reader.target.columns)
    if isinstance(given, pd.Series):
        name = given.name
        if name not in columns and len(columns) == 1:
            name = columns[0]
        if name not in columns:
            raise UsageError(
                f"A Series of corrections has the name of a column of findings "
                f"({', '.join(columns)}), not {name!r}.{did_you_mean(name or '', columns)}"
            )
        return given.to_frame(name)
    return given.set_axis([_upper_label(label) for label in given.columns], axis=1)


def _upper_label(label: Hashable) -> Hashable:
    """Return the name of a column beside columns of several levels."""
    if isinstance(label, tuple) and not any(label[1:]):
        label = label[0]
    return label


def _check_columns(reader: CorrectionReader, frame: pd.DataFrame) -> None:
    """Check that all columns are known.

    Raises:
        UsageError: one is not, or none is one of findings.
    """
    target = reader.target
    findings = set(target.columns)
    for kind in target.kinds.values():
        if kind is not None:
            findings.update(kind.item_columns)
    of_frame = map(_upper_label, target.frame.columns)
    known = {*of_frame, *findings, DOUBT_COLUMN, WHY_COLUMN}
    names = sorted(map(str, findings))
    listed = ", ".join(names)
    if not frame.columns.is_unique:
        doubled = frame.columns[frame.columns.duplicated()][0]
        raise UsageError(f"The corrections have the column {doubled!r} twice.")
    for column in frame.columns:
        if column in known:
            continue
        if str(column).startswith("Unnamed:"):
            raise UsageError(
                f"The corrections have a column {column!r}: these are the labels of the rows. Read "
                "the file with them as the index: pd.read_csv(path, index_col=0)."
            )
        raise UsageError(
            f"The corrections have a column {column!r}, which is none of the result's. Findings "
            f"stand in {listed}.{did_you_mean(column, names)}"
        )
    if not findings.intersection(frame.columns):
        raise UsageError(f"The corrections have no column of findings ({listed}).")


def _find_places(reader: CorrectionReader, frame: pd.DataFrame) -> dict[int, int]:
    """Return the position of the row that each row of the corrections is about."""
    places: dict[int, int] = {}
    for row, label in enumerate(frame.index.tolist()):
        try:
            places[row] = reader.find_position(label)
        except RefusedCorrection as refusal:
            reader.add_problem(label, str(refusal))
    return places


def _check_same_rows(reader: CorrectionReader, frame: pd.DataFrame, places: dict[int, int]) -> None:
    """Check that the texts beside the corrections are those of the rows that the labels name.

    Raises:
        UsageError: they are not.
    """
    labels = [_upper_label(label) for label in reader.target.frame.columns]
    own = reader.target.frame.set_axis(labels, axis=1)
    if not own.columns.is_unique:
        return
    for column in own.columns:
        if column in reader.target.columns or column not in frame.columns:
            continue
        texts = own[column].tolist()
        others = frame[column].tolist()
        for row, place in places.items():
            if not _are_other_texts(texts[place], others[row]):
                continue
            name = reader.name_row(frame.index[row])
            raise UsageError(
                f"Nothing was corrected. {column!r} of {name} is "
                "another one in the corrections than in the result: the labels may have been "
                "lost in a file. Read it with them as the index: "
                "pd.read_csv(path, index_col=0)."
            )


def _are_other_texts(first: object, second: object) -> bool:
    """Tell whether two cells are texts of different words."""
    if not isinstance(first, str) or not isinstance(second, str):
        return False
    return first.split() != second.split()


# Cells


def _read_cells(
    reader: CorrectionReader, frame: pd.DataFrame, places: dict[int, int]
) -> list[GivenCorrection]:
    """Read the cells of each row that differ from what was found; rows without any are left out."""
    target = reader.target
    fields: dict[int, dict[str | None, dict[str, Any]]] = {}
    for column, (name, alias) in target.columns.items():
        if column not in frame.columns:
            continue
        values = frame[column].tolist()
        shown = target.frame[column].tolist()
        for row, place in places.items():
            try:
                form, is_new = _read_cell(target, column, values[row], shown[place], place)
            except InvalidOutput as error:
                reader.add_problem(frame.index[row], f"{column}: {error}")
                continue
            if is_new:
                of_row = fields.setdefault(row, {})
                of_row.setdefault(name, {})[alias] = form
    return [GivenCorrection(frame.index[row], places[row], fields[row]) for row in sorted(fields)]


def _read_cell(
    target: Correctable, column: str, value: object, shown: object, place: int
) -> tuple[Any, bool]:
    """Return the JSON of a cell, and whether it differs from what was found, which is ``shown``.

    Raises:
        InvalidOutput: JSON has no form for it.
    """
    if _is_missing(value):
        return None, False
    name, alias = target.columns[column]
    found = target.form(name, target.unit(place))
    if found is not None and _is_written_as(shown, value):
        return None, False
    kind = target.kind(name)
    form = choose_value(kind, alias, value)
    return form, found is None or _differs(kind, found, alias, form)


def _is_written_as(cell: object, value: object) -> bool:
    """Tell whether a value is a cell, or what a file has for it: of a list, numpy's text.

    A column of whole numbers with holes holds floats, which do not have all digits of large ones.
    A column of texts is one of bools if all of them say so.
    """
    if isinstance(cell, int) and isinstance(value, float):
        return float(cell) == value
    if isinstance(cell, str) and isinstance(value, bool):
        return cell in TEXTS_OF_TRUTHS[value]
    text = str(value)
    if text == str(cell):
        return True
    if not isinstance(cell, list | np.ndarray):
        return False
    padded = np.array([*cell, None], dtype=object)  # else lists of one length became a matrix
    return text == str(padded[:-1])


def _is_missing(value: object) -> bool:
    """Tell whether a cell is empty; the form of a value of no known kind says that it is not."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, list | tuple | dict | set | np.ndarray):
        return False
    return cell(value) is None


def _differs(kind: FindingType, form: dict[str, Any], alias: str, value: object) -> bool:
    """Tell whether a value makes another finding of one."""
    changed = {**form, alias: value}
    before, _ = kind.record(form, coded=True, empty_texts=True)
    after, _ = kind.record(changed, coded=True, empty_texts=True)
    return before is None or before != after


def choose_value(kind: FindingType, alias: str, value: Any) -> Any:
    """Return the JSON of a cell that its field takes: a file has texts for what it cannot hold.

    If the field takes none, it is the cell as it is, and the check says what is wrong.

    Raises:
        InvalidOutput: JSON has no form for it.
    """
    candidates = _read_candidates(value)
    for candidate in candidates:
        if kind.accepts(alias, candidate):
            return candidate
    return candidates[0]


def _read_candidates(value: Any) -> list[Any]:
    """Return what a cell may stand for, in JSON.

    Example:
        >>> _read_candidates("true"), _read_candidates(3.0), _read_candidates("['a', 'b']")
        (['true', True], [3.0, 3, '3'], ["['a', 'b']", ['a', 'b']])
        >>> _read_candidates(True)
        [True, 'True', 'true', 'TRUE']
    """
    form = as_json(value)
    if isinstance(form, str):
        truth = TRUTHS.get(form.strip().casefold())
        if truth is not None:
            return [form, truth]
        return [form, *_parse_text(form)]
    if isinstance(form, bool):
        return [form, *TEXTS_OF_TRUTHS[form]]
    candidates = [form]
    if is_number(form):
        number = int(form) if is_exact_whole(form) else form
        if not isinstance(form, int):
            candidates.append(number)
        candidates.append(str(number))
        if form in {0, 1}:
            candidates.append(bool(form))
    return candidates


def _parse_text(text: str) -> list[Any]:
    """Return what a text stands for: a time, JSON, or a literal of Python."""
    meanings: list[Any] = []
    stripped = text.strip()
    with contextlib.suppress(ValueError):
        moment = dt.datetime.fromisoformat(stripped)
        meanings.append(moment.isoformat())
    for parse in (json.loads, ast.literal_eval):
        try:
            parsed = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(parsed, str):
            continue
        # A text such as "['a' 'b']", which numpy writes, is another list to Python.
        if parse is ast.literal_eval and repr(parsed) != stripped:
            continue
        with contextlib.suppress(InvalidOutput):
            meanings.append(as_json(parsed))
    return meanings


# Records


def _read_records(
    reader: CorrectionReader,
    frame: pd.DataFrame,
    places: dict[int, int],
    name: str | None,
    kind: FindingType,
) -> list[GivenCorrection]:
    """Read all records of each row that is there; those that are as they were found are left out.

    Args:
        reader: collects what is wrong.
        frame: one row per record, with the label of its unit.
        places: the position of each row's unit.
        name: the map's name.
        kind: the type of one record.
    """
    records: dict[int, list[dict[str, Any]]] = {}
    label_of: dict[int, Any] = {}
    for row, place in places.items():
        label = frame.index[row]
        label_of.setdefault(place, label)
        try:
            record = _read_record(frame, row, kind)
        except InvalidOutput as error:
            reader.add_problem(label, str(error))
            continue
        of_place = records.setdefault(place, [])
        if record:
            of_place.append(record)
    corrections: list[GivenCorrection] = []
    for place, listed in records.items():
        if _are_other_records(reader.target, name, place, listed):
            fields = {name: {ITEMS: listed}}
            corrections.append(GivenCorrection(label_of[place], place, fields))
    return corrections


def _are_other_records(
    target: Correctable, name: str | None, place: int, records: list[dict[str, Any]]
) -> bool:
    """Tell whether records are others than those that were found of a row."""
    found = target.form(name, target.unit(place))
    if found is None:
        return True
    return _differs(target.kind(name), found, ITEMS, records)


def _read_record(frame: pd.DataFrame, row: int, kind: FindingType) -> dict[str, Any]:
    """Read one record, without the fields that are missing."""
    record: dict[str, Any] = {}
    for column, alias in kind.aliases.items():
        if column not in frame.columns:
            continue
        value = frame[column].iloc[row]
        if not _is_missing(value):
            record[alias] = choose_value(kind, alias, value)
    return record
