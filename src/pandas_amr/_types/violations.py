"""Check JSON against a JSON schema: pydantic would convert in silence what is of another type than was asked for.

Ranges, lengths and the user's own patterns are pydantic's to check; here are types, choices, formats, and what no type
says of an answer: a text is not empty, a number is finite.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pandas_amr._types.schema import (
    ABSENT,
    DATETIME_PATTERN,
    DECIMAL_PATTERN,
    NAME,
    NON_FINITE,
    OPTIONAL,
    TIME_PATTERN,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MIDNIGHT = "T00:00:00"
EMPTY = "is empty; a text has at least 1 character"

_DATE = r"\d{4}-\d{2}-\d{2}"
_TIME = r"\d{2}:\d{2}:\d{2}(\.\d{1,6})?"
_UUID = (re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"), "a UUID")
_FORMATS = {
    "date": (re.compile(_DATE), "a date such as 2026-01-31"),
    "date-time": (
        re.compile(rf"{_DATE}[Tt ]{_TIME}([Zz]|[+-]\d{{2}}:\d{{2}})"),
        "a date and time with its zone, such as 2026-01-31T12:00:00+01:00",
    ),
    "time": (re.compile(_TIME), "a time of day without a zone, such as 12:00:00"),
    "duration": (
        re.compile(r"-?P(?=[\dT])(\d+W)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+(\.\d{1,6})?S)?)?"),
        "a duration in weeks, days, hours, minutes and seconds, such as P1DT2H",
    ),
    **dict.fromkeys(("uuid", "uuid1", "uuid3", "uuid4", "uuid5"), _UUID),
}
_PATTERNS = {
    DATETIME_PATTERN: (
        re.compile(DATETIME_PATTERN),
        "a date and time without a zone, such as 2026-01-31T12:00:00",
    ),
    TIME_PATTERN: (re.compile(TIME_PATTERN), "a time of day without a zone, such as 12:00:00"),
    DECIMAL_PATTERN: (re.compile(DECIMAL_PATTERN), "a number written as a text, such as 12.50"),
}


@dataclass(frozen=True, slots=True)
class Leniency:
    """What is let pass that a model is not to write.

    Attributes:
        empty_texts: a text may be empty, as one of a user's own function may.
        coded: code made the value: pandas has no dates, so that one may come as its midnight.
    """

    empty_texts: bool = False
    coded: bool = False


STRICT = Leniency()


def find_violation(
    value: Any, schema: Mapping[str, Any], leniency: Leniency = STRICT
) -> str | None:
    """Say what in a JSON value its schema forbids; None if nothing. The value itself is not quoted.

    Args:
        value: JSON, as Python has it.
        schema: a schema of this library's (``kept_schema``).
        leniency: what is let pass.

    Example:
        >>> find_violation({"n": "3"}, {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
        'n: should be an integer'
    """
    parts = schema.get("anyOf", schema.get("oneOf"))
    if parts is not None:
        return _violation_of_all(value, parts, leniency)
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if choices is not None:
        return (
            None
            if any(_is_same(value, choice) for choice in choices)
            else "is not one of the choices"
        )
    match schema.get("type"):
        case "object":
            return _violation_of_object(value, schema, leniency)
        case "array":
            return _violation_of_array(value, schema, leniency)
        case "string":
            return _violation_of_text(value, schema, leniency)
        case "number" | "integer" | "boolean" | "null" as kind:
            return _SCALARS[kind](value, schema)
    return _violation_of_any(value, leniency)


def without_absent(value: Any, schema: Mapping[str, Any]) -> Any:
    """A JSON value without the keys that its schema asks for and its type need not have, where null stands for them."""
    if not isinstance(value, dict | list):
        return value
    for part in schema.get("anyOf", ()):
        value = without_absent(value, part)
    if isinstance(value, list):
        first, items = schema.get("prefixItems", []), schema.get("items", {})
        return [
            without_absent(one, (first[n] if n < len(first) else items) or {})
            for n, one in enumerate(value)
        ]
    parts, others = schema.get("properties", {}), schema.get("additionalProperties")
    there: dict[str, Any] = {}
    for name, one in value.items():
        part = parts.get(name, others if isinstance(others, dict) else {})
        if one is not None or part.get(OPTIONAL) != ABSENT:
            there[name] = without_absent(one, part)
    return there


def form_words(schema: Mapping[str, Any]) -> str | None:
    """Say how a text is to be written, in words if they are known, else by its pattern or format; None if anyhow.

    Example:
        >>> form_words({"type": "string", "format": "date"}), form_words({"type": "string", "pattern": "^x"})
        ('a date such as 2026-01-31', 'matching ^x')
    """
    pattern, format_ = schema.get("pattern"), schema.get("format")
    known = _PATTERNS.get(pattern or "") or _FORMATS.get(format_ or "")
    if known is not None:
        return known[1]
    if schema.get("contentMediaType") == "application/json":
        return "JSON text"
    words = [f"matching {pattern}"] if pattern else []
    return "; ".join([*words, *([f"format {format_}"] if format_ else [])]) or None


def _violation_of_all(value: Any, parts: list[Mapping[str, Any]], leniency: Leniency) -> str | None:
    """What keeps a value from all of several types; of a type that may be null, the other one says it."""
    found = [find_violation(value, part, leniency) for part in parts]
    if None in found:
        return None
    told = [one for one, part in zip(found, parts, strict=True) if part.get("type") != "null"]
    return told[0] if len(told) == 1 else "is of none of the types that the field takes"


def _violation_of_object(value: Any, schema: Mapping[str, Any], leniency: Leniency) -> str | None:
    if not isinstance(value, dict):
        return "should be an object"
    properties = schema.get("properties", {})
    read: set[str] = set()
    for name, part in properties.items():
        key = (
            name if name in value else part.get(NAME, name)
        )  # which a type may take, too: pydantic has seen to that
        read.add(key)
        if key not in value:
            if find_violation(None, part) is None:
                continue  # what may be null may be left out
            return f"{name}: is missing"
        if (wrong := find_violation(value[key], part, leniency)) is not None:
            return at_place(name, wrong)
    others = schema.get("additionalProperties", True)
    for name in value.keys() - read:
        part = others if isinstance(others, dict) else {}
        if (wrong := find_violation(value[name], part, leniency)) is not None:
            return at_place(
                "a value", wrong
            )  # its key is the model's word, and may be a cell's text
    return None


def _violation_of_array(value: Any, schema: Mapping[str, Any], leniency: Leniency) -> str | None:
    if not isinstance(value, list):
        return "should be a list"
    first = schema.get("prefixItems", [])
    if len(value) < len(first):
        return f"should have {len(first)} items"
    for number, item in enumerate(value):
        part = first[number] if number < len(first) else schema.get("items", {})
        if isinstance(part, dict) and (wrong := find_violation(item, part, leniency)) is not None:
            return at_place(str(number), wrong)
    if schema.get("uniqueItems") and any(
        _is_same(one, other) for n, one in enumerate(value) for other in value[:n]
    ):
        return "holds an item twice"
    return None


def at_place(place: str, wrong: str) -> str:
    """A violation inside of something, with its place: ``place.city: is empty``."""
    inner, colon, rest = wrong.partition(": ")
    return f"{place}.{inner}{colon}{rest}" if colon else f"{place}: {wrong}"


def _violation_of_text(value: Any, schema: Mapping[str, Any], leniency: Leniency) -> str | None:
    format_ = schema.get("format", "")
    known = _PATTERNS.get(schema.get("pattern", "")) or _FORMATS.get(format_)
    if known is not None:
        form, what = known
        if leniency.coded and format_ == "date" and isinstance(value, str):
            value = value.removesuffix(MIDNIGHT)
        return None if isinstance(value, str) and form.fullmatch(value) else f"should be {what}"
    if not isinstance(value, str):
        return "should be a text"
    return _violation_of_any(value, leniency)


def _violation_of_any(value: Any, leniency: Leniency) -> str | None:
    """What no value may be, whatever its shape: a text that is empty, a number that is not finite."""
    if isinstance(value, str):
        return None if leniency.empty_texts or value.strip() else EMPTY
    if isinstance(value, float):
        return None if math.isfinite(value) else "holds a number that is not finite"
    if isinstance(value, dict):
        found = (_violation_of_any(one, leniency) for one in value.values())
        return next((at_place("a value", wrong) for wrong in found if wrong is not None), None)
    if isinstance(value, list):
        numbered = ((n, _violation_of_any(one, leniency)) for n, one in enumerate(value))
        return next((at_place(str(n), wrong) for n, wrong in numbered if wrong is not None), None)
    return None


def _violation_of_number(value: Any, schema: Mapping[str, Any]) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "should be a number"
    if isinstance(value, float):
        return (
            None if math.isfinite(value) or schema.get(NON_FINITE) else "should be a finite number"
        )
    return None if _is_exact(value) else "has more digits than a float holds"


def _violation_of_integer(value: Any, schema: Mapping[str, Any]) -> str | None:
    del schema
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return None if whole and not isinstance(value, bool) else "should be an integer"


def _violation_of_bool(value: Any, schema: Mapping[str, Any]) -> str | None:
    del schema
    return None if isinstance(value, bool) else "should be true or false"


def _violation_of_null(value: Any, schema: Mapping[str, Any]) -> str | None:
    del schema
    return None if value is None else "should be null"


_SCALARS: dict[str, Callable[[Any, Mapping[str, Any]], str | None]] = {
    "number": _violation_of_number,
    "integer": _violation_of_integer,
    "boolean": _violation_of_bool,
    "null": _violation_of_null,
}


def _is_exact(value: int) -> bool:
    try:
        return int(float(value)) == value
    except OverflowError:
        return False


def _is_same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same: to JSON, unlike Python, true is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
