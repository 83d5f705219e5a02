"""Convert findings and labels to the form in which they are compared."""

from __future__ import annotations

import functools
import json
from decimal import Decimal
from typing import Any, get_args, get_origin

from pandas_amr._types.arrow import LIST_TYPES, is_json_text
from pandas_amr._types.resolve import choices_of, object_fields, without_none
from pandas_amr._units.cells import cell

UNKNOWN: Any = object  # the type of a field whose type nobody knows


def plain_value(value: object) -> Any:
    """Return a cell as it is shown: as a model reads it, but a decimal stays a number."""
    if isinstance(value, Decimal) and not value.is_nan():
        return value
    return cell(value)


def make_comparable(value: Any, kind: Any, *, lenient: bool) -> Any:
    """Convert a plain value to a form in which ``is_same`` tells what differs.

    The pairs of a map become a dict, and JSON text the value that it holds, at every depth.

    Args:
        value: as ``plain_value`` gives it.
        kind: the type of its field; ``UNKNOWN`` if nobody knows.
        lenient: whether texts are equal but for case and spaces. Never so are keys, what JSON text
            holds, and choices of which two would be equal.

    Example:
        >>> make_comparable([["Seller", " Buyer "]], dict[str, str], lenient=True)
        {'Seller': 'buyer'}
    """
    kind, _ = without_none(kind)
    if value is None or isinstance(value, int | float | Decimal):
        return value
    if is_json_text(kind):
        return _read_json(value)
    if isinstance(value, str):
        is_folded = lenient and not _differ_by_case(choices_of(kind))
        return _fold(value) if is_folded else value
    if isinstance(value, dict):
        return _convert_dict(value, kind, lenient=lenient)
    if get_origin(kind) is dict and _are_pairs(value):
        return _convert_dict(dict(value), kind, lenient=lenient)
    if isinstance(value, list):
        inner = _read_item_type(kind)
        return [make_comparable(item, inner, lenient=lenient) for item in value]
    return value


def _read_json(value: Any) -> Any:
    """Read JSON text; a label may be the value itself."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_constant=str)  # NaN would not equal itself
    except ValueError:
        return value


def _convert_dict(values: dict[str, Any], kind: Any, *, lenient: bool) -> dict[str, Any]:
    fields = object_fields(kind) or {}
    other = get_args(kind)[1] if get_origin(kind) is dict else UNKNOWN
    converted: dict[str, Any] = {}
    for name, value in values.items():
        converted[name] = make_comparable(value, fields.get(name, other), lenient=lenient)
    return converted


def _are_pairs(value: Any) -> bool:
    """Tell whether a value is a list of pairs, as Arrow gives a map."""
    if not isinstance(value, list):
        return False
    return all(isinstance(pair, list) and len(pair) == 2 for pair in value)


def _read_item_type(kind: Any) -> Any:
    if get_origin(kind) in LIST_TYPES:
        return get_args(kind)[0]
    return UNKNOWN


@functools.lru_cache(maxsize=256)
def _differ_by_case(choices: tuple[Any, ...] | None) -> bool:
    """Tell whether two of some choices would be the same but for case and spaces."""
    folded = {_fold(str(choice)) for choice in choices or ()}
    return len(folded) < len(set(choices or ()))


def _fold(text: str) -> str:
    return " ".join(text.split()).casefold()
