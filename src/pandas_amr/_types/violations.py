"""Check JSON against a JSON schema: types, choices, formats.

Pydantic would convert values of other types silently. It checks ranges, lengths and the user's own
patterns; this module does not. It also checks what no type states: a text is not empty, a number is
finite.
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
    Schema,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LARGEST_EXACT = 2**53  # beyond it, a float stands for several whole numbers
MIDNIGHT = "T00:00:00"
EMPTY = "is empty; a text has at least 1 character"
_CONTAINERS = (dict, list)  # the values of JSON that hold others

_DATE = r"\d{4}-\d{2}-\d{2}"
_TIME = r"\d{2}:\d{2}:\d{2}(\.\d{1,6})?"
_UUID_FORMATS = ("uuid", "uuid1", "uuid3", "uuid4", "uuid5")
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
    **dict.fromkeys(_UUID_FORMATS, _UUID),
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
    """What is allowed that a model may not write.

    Attributes:
        empty_texts: a text may be empty, as it may be from a user's function.
        coded: code made the value. Pandas has no dates, so a date may be given as its midnight.
    """

    empty_texts: bool = False
    coded: bool = False


STRICT = Leniency()


def find_violation(value: object, schema: Schema, leniency: Leniency = STRICT) -> str | None:
    """Return what in a JSON value violates its schema, without quoting the value; None if nothing.

    Args:
        value: JSON, as Python has it.
        schema: a schema of this library (``stored_schema``).
        leniency: what is allowed nevertheless.

    Example:
        >>> find_violation({"n": "3"}, {"type": "object", "properties": {"n": {"type": "integer"}}})
        'n: should be an integer'
    """
    parts = schema.get("anyOf", schema.get("oneOf"))
    if parts is not None:
        return _violation_of_all(value, parts, leniency)
    if "enum" in schema:
        return _violation_of_choices(value, schema["enum"])
    if "const" in schema:
        return _violation_of_choices(value, [schema["const"]])
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


def drop_absent(value: Any, schema: Schema) -> Any:
    """Return a JSON value without the keys whose null means that they are left out."""
    if not isinstance(value, _CONTAINERS):
        return value
    for part in schema.get("anyOf", ()):
        value = drop_absent(value, part)
    if isinstance(value, list):
        return _items_without_absent(value, schema)
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    if not isinstance(others, dict):
        others = {}
    present: dict[str, Any] = {}
    for name, inner in value.items():
        part = properties.get(name, others)
        if isinstance(inner, _CONTAINERS):
            present[name] = drop_absent(inner, part)
        elif inner is not None or part.get(OPTIONAL) != ABSENT:
            present[name] = inner
    return present


def _items_without_absent(items: list[Any], schema: Schema) -> list[Any]:
    places, others = schema.get("prefixItems", []), schema.get("items", {})
    kept: list[Any] = []
    for number, item in enumerate(items):
        part = places[number] if number < len(places) else others
        kept.append(drop_absent(item, part or {}))
    return kept


def describe_format(schema: Schema) -> str | None:
    """Describe how a text must be written; None if in any way.

    Known patterns and formats are described in words, others are quoted.

    Example:
        >>> describe_format({"type": "string", "format": "date"})
        'a date such as 2026-01-31'
        >>> describe_format({"type": "string", "pattern": "^x"})
        'matching ^x'
    """
    pattern, format_ = schema.get("pattern"), schema.get("format")
    known = _PATTERNS.get(pattern or "") or _FORMATS.get(format_ or "")
    if known is not None:
        return known[1]
    if schema.get("contentMediaType") == "application/json":
        return "JSON text"
    words: list[str] = []
    if pattern:
        words.append(f"matching {pattern}")
    if format_:
        words.append(f"format {format_}")
    return "; ".join(words) or None


def _violation_of_all(value: object, parts: list[Schema], leniency: Leniency) -> str | None:
    """Return what violates all of several types; if all but one are null, what violates that."""
    violations: list[str] = []
    for part in parts:
        violation = find_violation(value, part, leniency)
        if violation is None:
            return None
        if part.get("type") != "null":
            violations.append(violation)
    if len(violations) == 1:
        return violations[0]
    return "has none of the types that the field takes"


def _violation_of_choices(value: object, choices: list[Any]) -> str | None:
    if any(_is_same(value, choice) for choice in choices):
        return None
    return "is not one of the choices"


def _violation_of_object(value: object, schema: Schema, leniency: Leniency) -> str | None:
    if not isinstance(value, dict):
        return "should be an object"
    checked: set[str] = set()
    for name, part in schema.get("properties", {}).items():
        # Pydantic has checked whether the type allows its name in place of its alias.
        key = name if name in value else part.get(NAME, name)
        checked.add(key)
        if key not in value:
            if find_violation(None, part) is None:
                continue  # what may be null may be left out
            return f"{name}: is missing"
        violation = find_violation(value[key], part, leniency)
        if violation is not None:
            return add_place(name, violation)
    others = schema.get("additionalProperties", True)
    part = others if isinstance(others, dict) else {}
    for name in value.keys() - checked:
        violation = find_violation(value[name], part, leniency)
        if violation is not None:
            # The key comes from the model, and may be a cell's text: it is not quoted.
            return add_place("a value", violation)
    return None


def _violation_of_array(value: object, schema: Schema, leniency: Leniency) -> str | None:
    if not isinstance(value, list):
        return "should be a list"
    places, others = schema.get("prefixItems", []), schema.get("items", {})
    if len(value) < len(places):
        return f"should have {len(places)} items"
    for number, item in enumerate(value):
        part = places[number] if number < len(places) else others
        if not isinstance(part, dict):
            continue
        violation = find_violation(item, part, leniency)
        if violation is not None:
            return add_place(str(number), violation)
    if schema.get("uniqueItems") and _has_repeated_item(value):
        return "holds an item twice"
    return None


def _has_repeated_item(items: list[Any]) -> bool:
    for number, item in enumerate(items):
        if any(_is_same(item, other) for other in items[:number]):
            return True
    return False


def add_place(place: str, violation: str) -> str:
    """Add the place around a violation: ``place.city: is empty``."""
    inner, colon, rest = violation.partition(": ")
    if colon:
        return f"{place}.{inner}{colon}{rest}"
    return f"{place}: {violation}"


def _violation_of_text(value: object, schema: Schema, leniency: Leniency) -> str | None:
    format_ = schema.get("format", "")
    known = _PATTERNS.get(schema.get("pattern", "")) or _FORMATS.get(format_)
    if known is not None:
        form, words = known
        if leniency.coded and format_ == "date" and isinstance(value, str):
            value = value.removesuffix(MIDNIGHT)
        if isinstance(value, str) and form.fullmatch(value):
            return None
        return f"should be {words}"
    if not isinstance(value, str):
        return "should be a text"
    return _violation_of_any(value, leniency)


def _violation_of_any(value: object, leniency: Leniency) -> str | None:
    """Return what violates every schema: an empty text, a number that is not finite."""
    if isinstance(value, str):
        return None if leniency.empty_texts or value.strip() else EMPTY
    if isinstance(value, float):
        return None if math.isfinite(value) else "holds a number that is not finite"
    parts: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        parts = (("a value", part) for part in value.values())
    elif isinstance(value, list):
        parts = ((str(number), part) for number, part in enumerate(value))
    for place, part in parts:
        violation = _violation_of_any(part, leniency)
        if violation is not None:
            return add_place(place, violation)
    return None


def _violation_of_number(value: object, schema: Schema) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "should be a number"
    if isinstance(value, float):
        is_allowed = math.isfinite(value) or schema.get(NON_FINITE)
        return None if is_allowed else "should be a finite number"
    return None if _is_exact(value) else "has more digits than a float holds"


def _violation_of_integer(value: object, schema: Schema) -> str | None:
    del schema
    if isinstance(value, int) and not isinstance(value, bool):
        return None
    if not isinstance(value, float) or not value.is_integer():
        return "should be an integer"
    if is_exact_whole(value):
        return None
    return "should be an integer with all its digits, which a float does not hold"


def is_exact_whole(value: float) -> bool:
    """Tell whether a number is a whole one, and if it is a float, a single one: none beside it.

    Example:
        >>> [is_exact_whole(value) for value in (3.0, 3.5, 2**53 + 1, float(2**53))]
        [True, False, True, False]
    """
    if isinstance(value, int):
        return True
    return value.is_integer() and abs(value) < LARGEST_EXACT


def _violation_of_bool(value: object, schema: Schema) -> str | None:
    del schema
    return None if isinstance(value, bool) else "should be true or false"


def _violation_of_null(value: object, schema: Schema) -> str | None:
    del schema
    return None if value is None else "should be null"


_SCALARS: dict[str, Callable[[Any, Schema], str | None]] = {
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


def _is_same(one: object, other: object) -> bool:
    """Tell whether two JSON values are equal; in JSON, unlike in Python, true is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
