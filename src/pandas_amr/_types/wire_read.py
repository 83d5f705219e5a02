"""Read answers from the form in which they were asked for into the form of their own schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pandas_amr._types.json_text import make_object
from pandas_amr._types.schema import NAME
from pandas_amr._types.violations import Leniency, add_place, find_violation
from pandas_amr._types.wire_shapes import AS_TEXT, WRAPPED, is_map

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pandas_amr._types.schema import Schema

KEY, VALUE = "key", "value"  # of an entry of a dict
# If a dict is an alternative to a list, it is an object with this one field, which has its entries.
ENTRIES = "entries"
# If any value is allowed, a list or an object is JSON text in an object with this one field.
JSON = "json"
LENIENT = Leniency(empty_texts=True)


def read_value(value: object, shape: Schema) -> Any:
    """Read a value. One that is in the form of its schema already, or cannot be read, stays."""
    if shape.get(AS_TEXT):
        if isinstance(value, str):
            return _decode(value)
        return value
    if "anyOf" in shape:
        return _read_one_of(value, shape["anyOf"])
    if is_map(shape):
        return _read_map(value, shape)
    kind = shape.get("type")
    if kind == "object" and isinstance(value, dict):
        return _read_object(value, shape)
    if kind == "array" and isinstance(value, list):
        return [read_value(item, part) for item, part in _items(value, shape)]
    if kind is None:
        return _read_any(value)
    return value


def find_unread(value: object, shape: Schema) -> str | None:
    """Return which dict could not be read, by its place; None if all were.

    Keys are not quoted: they may be a cell's text.

    Example:
        >>> twice = [{"key": "a", "value": 1}, {"key": "a", "value": 2}]
        >>> find_unread(twice, {"type": "object", "additionalProperties": {"type": "integer"}})
        'names a key twice'
    """
    if shape.get(AS_TEXT) or value is None:
        return None
    if "anyOf" in shape:
        parts = [part for part in shape["anyOf"] if part.get("type") != "null"]
        if len(parts) == 1:
            return find_unread(value, parts[0])
        return None
    if is_map(shape) and isinstance(value, list):
        return _unread_list(value)
    for place, inner, part in _places(value, shape):
        problem = find_unread(inner, part)
        if problem is not None:
            return add_place(place, problem)
    return None


def _unread_list(value: list[Any]) -> str:
    if _are_entries(value):
        return "names a key twice"
    return (
        f'should be a dictionary, as a list of objects with "{KEY}" and "{VALUE}" and nothing else'
    )


def _read_object(value: dict[str, Any], shape: Schema) -> dict[str, Any]:
    """Read an object. A field that has an alias may be called by its name, too."""
    parts = dict(shape["properties"])
    for name, part in shape["properties"].items():
        parts.setdefault(part.get(NAME, name), part)
    read: dict[str, Any] = {}
    for name, inner in value.items():
        read[name] = inner
        if name in parts:
            read[name] = read_value(inner, parts[name])
    return read


def _read_any(value: object) -> Any:
    """Read a value of any type; a list or an object may be JSON text in an object."""
    if not isinstance(value, dict) or value.keys() != {JSON} or not isinstance(value[JSON], str):
        return value
    nested = _decode(value[JSON])
    return nested if isinstance(nested, dict | list) else value


def _read_one_of(value: object, shapes: Sequence[Schema]) -> Any:
    """Read a value by the first shape that it fits, preferably one that has all its keys."""
    if not isinstance(value, dict | list):
        return value
    second_best: list[Any] = []
    for shape in shapes:
        read = read_value(value, shape)
        if find_violation(read, shape, LENIENT) is not None:
            continue
        if not isinstance(read, dict) or is_map(shape):
            return read
        if read.keys() <= shape.get("properties", {}).keys():
            return read
        second_best.append(read)
    if second_best:
        return second_best[0]
    return value


def _read_map(value: Any, shape: Schema) -> Any:
    """Read a dict from the list of its entries. With a repeated key it stays a list."""
    entries = value
    if shape.get(WRAPPED):
        # An unwrapped list is a value of one of the other types.
        is_wrapped = isinstance(value, dict) and value.keys() == {ENTRIES}
        entries = value[ENTRIES] if is_wrapped else None
    part = shape["additionalProperties"]
    if _are_entries(entries):
        made = {_key_of(entry[KEY]): read_value(entry[VALUE], part) for entry in entries}
        return made if len(made) == len(entries) else value
    if isinstance(value, dict):
        return {key: read_value(inner, part) for key, inner in value.items()}
    return value


def _are_entries(value: object) -> bool:
    """Tell whether a value is a list of keys and values."""
    return isinstance(value, list) and all(_is_entry(entry) for entry in value)


def _is_entry(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() != {KEY, VALUE}:
        return False
    return isinstance(value[KEY], str | int | float)


def _key_of(key: object) -> str:
    """Return a key as JSON has it; models write numbers as numbers."""
    if isinstance(key, str):
        return key
    return json.dumps(key)


def _decode(text: str) -> Any:
    """Return the value of a JSON text; the text itself if it is not JSON, or repeats a key."""
    try:
        return json.loads(text, object_pairs_hook=make_object)
    except (ValueError, RecursionError):
        return text


def _places(value: object, shape: Schema) -> Iterator[tuple[str, Any, Schema]]:
    """Yield the parts of a value, each with its place and its shape."""
    if isinstance(value, list) and shape.get("type") == "array":
        for number, (item, part) in enumerate(_items(value, shape)):
            yield str(number), item, part
    if not isinstance(value, dict):
        return
    for name, inner in value.items():
        if is_map(shape):
            yield "a value", inner, shape["additionalProperties"]
        elif name in shape.get("properties", {}):
            yield name, inner, shape["properties"][name]


def _items(value: list[Any], shape: Schema) -> Iterator[tuple[Any, Schema]]:
    """Yield the items of a list, each with its shape; those of a tuple by their places."""
    places = shape.get("prefixItems", [])
    for number, item in enumerate(value):
        yield item, places[number] if number < len(places) else shape["items"]
