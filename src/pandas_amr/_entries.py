"""Findings in the journal: as JSON that a model could have said, so that each look-up checks them as an answer."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, RootModel
from pydantic_core import to_jsonable_python

from pandas_amr._canonical import canonical_json
from pandas_amr._columns import field_types, is_json_text
from pandas_amr._schema import asked_as, choices_of, without_none

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pandas_amr._findings import FindingType

Key = TypeVar("Key")
_AS_THEY_ARE = (str, int, float, bool)  # types whose values JSON has as they are
LISTS = frozenset({list, set, tuple, frozenset})


@dataclass(frozen=True, slots=True)
class Check:
    """Today's check of findings of one type.

    Attributes:
        made: whether a function of the user's made them, and not a model.
    """

    kind: FindingType
    made: bool = False

    def __call__(self, form: dict[str, Any]) -> dict[str, Any] | None:
        """Check a finding in the form that a model gives: a record as Arrow takes it if it fits, or None."""
        return self.kind.record(form, empty_texts=self.made, fits=False)[0]

    def is_stable(self, form: dict[str, Any], record: Mapping[str, Any]) -> bool:
        """Whether the form of a checked record is read back as that record: not if validators change it once more."""
        again = self(form)
        if again is None or again == record:
            return again is not None
        return canonical_json(json_form(again, self.kind.model)) == canonical_json(form)


# Writing


def encode(value: Any) -> str:
    """Write an answer as the journal keeps it."""
    return _ENCODER.encode(value)


def _encoded(value: Any) -> Any:
    """What JSON has no form for: code hands in dates, decimals and so on as they are."""
    return _scalar_form(value, type(value))


_ENCODER = json.JSONEncoder(default=_encoded, separators=(",", ":"))


def readable_form(record: Mapping[str, Any], check: Check, said: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """Find the JSON that is read back as a record: what was said, if it passes as it stands; else the record's own.

    None if neither is.
    """
    if said is not None and check(json.loads(encode(said))) is not None:
        return said
    form = json_form(record, check.kind.model)
    return form if check.is_stable(form, record) else None


# Reading


def read_findings(texts: Mapping[Key, str], check: Check, *, former: bool = False) -> dict[Key, dict[str, Any]]:
    """Read entries of the journal; what is damaged or does not pass today's check is left out.

    Those of the ``former`` format hold records that validators have seen already: what these would change now is left
    out, too.
    """
    known: dict[str, dict[str, Any] | None] = {}
    found: dict[Key, dict[str, Any]] = {}
    for key, text in texts.items():
        if text not in known:  # few findings of many are different ones
            known[text] = _read_former(text, check) if former else _read(text, check)
        record = known[text]
        if record is not None:
            found[key] = record
    fitting = check.kind.fit(list(found.values()))
    return {key: record for (key, record), fits in zip(found.items(), fitting, strict=True) if fits}


def _read(text: str, check: Check) -> dict[str, Any] | None:
    form = decode(text)
    return check(form) if isinstance(form, dict) else None


def _read_former(text: str, check: Check) -> dict[str, Any] | None:
    record = decode(text)
    if not isinstance(record, dict) or record.keys() != check.kind.model.model_fields.keys():
        return None
    try:
        form = json_form(record, check.kind.model)
    except (ValueError, RecursionError):  # a value of any shape, whose JSON is damaged
        return None
    return check(form) if check.is_stable(form, record) else None


def decode(text: str) -> Any:
    """Read JSON; None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


# The form that a model gives


def json_form(record: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Turn a record as Arrow takes it, or as the journal's first format wrote it, into what a model would have said.

    A value of another shape than its type's stays as it is: the check refuses it.

    Example:
        >>> class Visit(BaseModel):
        ...     day: dt.date
        ...     costs: dict[str, decimal.Decimal]
        >>> json_form({"day": dt.date(2026, 1, 31), "costs": [("fare", decimal.Decimal("1.500"))]}, Visit)
        {'day': '2026-01-31', 'costs': {'fare': '1.5'}}
    """
    form: dict[str, Any] = {}
    for name, alias, kind in _fields_of(model):
        if name in record:
            form[alias] = record[name] if kind in _AS_THEY_ARE else _form(record[name], kind)
    return form


@lru_cache(maxsize=256)
def _fields_of(model: type[BaseModel]) -> tuple[tuple[str, str, Any], ...]:
    """The model's fields, what each is asked as, and its type."""
    return tuple((name, asked_as(name, model.model_fields[name])[0], kind) for name, kind in field_types(model).items())


def _form(value: Any, kind: Any) -> Any:
    kind, _ = without_none(kind)
    if value is None:
        return None
    if isinstance(kind, type) and issubclass(kind, RootModel):
        return _form(value, kind.model_fields["root"].annotation)
    choices = choices_of(kind)
    if choices is not None:
        return _choice_form(value, choices)
    if is_json_text(kind):
        return json.loads(value) if isinstance(value, str) else value
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return json_form(value, kind) if isinstance(value, dict) else value
    if get_origin(kind) in LISTS and isinstance(value, list):
        inner = (get_args(kind) or (Any,))[0]
        return [_form(item, inner) for item in value]
    if get_origin(kind) is dict and isinstance(value, list):
        return _map_form(value, get_args(kind)[1])
    return _scalar_form(value, kind)


def _choice_form(value: Any, choices: tuple[Any, ...]) -> Any:
    """The choice that a column holds; of those of several types it holds texts, which may stand for two of them."""
    if not isinstance(value, str) or all(isinstance(choice, str) for choice in choices):
        return _scalar_form(value, type(value))
    meant = [choice for choice in choices if value in {str(choice), json.dumps(choice, default=str)}]
    return meant[0] if len(meant) == 1 else value


def _map_form(pairs: list[Any], kind: Any) -> Any:
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        return pairs
    return {str(key): _form(item, kind) for key, item in pairs}


def _scalar_form(value: Any, kind: Any) -> Any:
    """A single value. The first format wrote durations as microseconds, dates and decimals as texts of their own."""
    if kind is dt.timedelta and isinstance(value, int):
        value = dt.timedelta(microseconds=value)
    if isinstance(value, str):
        value = _parsed(value, kind)
    if isinstance(value, decimal.Decimal):
        return _digits(value)
    return value if isinstance(value, str | int | float) else to_jsonable_python(value)


def _parsed(text: str, kind: Any) -> Any:
    """The value that a text stands for in a column of a type; the text where it stands for none."""
    try:
        if kind is decimal.Decimal:
            return decimal.Decimal(text)
        return kind.fromisoformat(text) if kind in (dt.datetime, dt.date, dt.time) else text
    except (ValueError, decimal.InvalidOperation):
        return text


def _digits(value: decimal.Decimal) -> str:
    """A decimal without an exponent, and without zeros at its end: columns hold all with as many places."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
