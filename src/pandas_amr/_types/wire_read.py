"""Answers in the form in which they were asked for, read back as their own schema has them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pandas_amr._types.schema import NAME
from pandas_amr._types.violations import Leniency, at_place, find_violation
from pandas_amr._types.wire_shapes import AS_TEXT, WRAPPED, is_map

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

KEY, VALUE = "key", "value"  # of an entry of a dict
ENTRIES = "entries"  # where a dict stands beside lists: the one field of the object that holds its entries
JSON = (
    "json"  # where any value is taken: the one field of the object that holds a list or an object
)
FITTING = Leniency(empty_texts=True)


def read_value(value: Any, shape: Mapping[str, Any]) -> Any:
    """A value as its schema has it; what is in that form already, or cannot be read, stays."""
    if shape.get(AS_TEXT):
        return _decoded(value) if isinstance(value, str) else value
    if "anyOf" in shape:
        return _read_one_of(value, shape["anyOf"])
    if is_map(shape):
        return _read_map(value, shape)
    kind = shape.get("type")
    if kind == "object" and isinstance(value, dict):
        return _read_object(value, shape)
    if kind == "array" and isinstance(value, list):
        return [read_value(one, part) for one, part in _items(value, shape)]
    return _read_any(value) if kind is None else value


def find_unread(value: Any, shape: Mapping[str, Any]) -> str | None:
    """Say which dict could not be read, with its place and without its keys, which may be a cell's text.

    Example:
        >>> twice = [{"key": "a", "value": 1}, {"key": "a", "value": 2}]
        >>> find_unread(twice, {"type": "object", "additionalProperties": {"type": "integer"}})
        'names a key twice'
    """
    if shape.get(AS_TEXT) or value is None:
        return None
    if "anyOf" in shape:
        parts = [part for part in shape["anyOf"] if part.get("type") != "null"]
        return find_unread(value, parts[0]) if len(parts) == 1 else None
    if is_map(shape) and isinstance(value, list):
        return _unread_list(value)
    for place, one, part in _places(value, shape):
        wrong = find_unread(one, part)
        if wrong is not None:
            return at_place(place, wrong)
    return None


def _unread_list(value: list[Any]) -> str:
    if _are_entries(value):
        return "names a key twice"
    return f'should be a dictionary, as a list of objects with "{KEY}" and "{VALUE}" and nothing beside them'


def _read_object(value: dict[str, Any], shape: Mapping[str, Any]) -> dict[str, Any]:
    """An object; a field may be called by its own name where it is asked for by an alias."""
    parts = dict(shape["properties"])
    for name, part in shape["properties"].items():
        parts.setdefault(part.get(NAME, name), part)
    return {
        name: read_value(one, parts[name]) if name in parts else one for name, one in value.items()
    }


def _read_any(value: Any) -> Any:
    """Any value; a list or an object may be JSON text in an object of its own."""
    if not isinstance(value, dict) or value.keys() != {JSON} or not isinstance(value[JSON], str):
        return value
    nested = _decoded(value[JSON])
    return nested if isinstance(nested, dict | list) else value


def _read_one_of(value: Any, shapes: Sequence[Mapping[str, Any]]) -> Any:
    """A value as the first of several types has it that takes it, before all one that knows all its keys."""
    if not isinstance(value, dict | list):
        return value
    fitting: list[Any] = []
    for shape in shapes:
        read = read_value(value, shape)
        if find_violation(read, shape, FITTING) is not None:
            continue
        if (
            not isinstance(read, dict)
            or is_map(shape)
            or read.keys() <= shape.get("properties", {}).keys()
        ):
            return read
        fitting.append(read)
    return fitting[0] if fitting else value


def _read_map(value: Any, shape: Mapping[str, Any]) -> Any:
    """A dict out of the list of its entries. With a key twice it stays a list: nobody can tell which one was meant."""
    entries = value
    if shape.get(WRAPPED):
        is_wrapped = (
            isinstance(value, dict) and value.keys() == {ENTRIES} and _are_entries(value[ENTRIES])
        )
        entries = value[ENTRIES] if is_wrapped else None  # a list is one of the lists beside it
    inner = shape["additionalProperties"]
    if _are_entries(entries):
        made = {_key_of(entry[KEY]): read_value(entry[VALUE], inner) for entry in entries}
        return made if len(made) == len(entries) else value
    if isinstance(value, dict):
        return {key: read_value(one, inner) for key, one in value.items()}
    return value


def _are_entries(value: Any) -> bool:
    """Whether a value is a list of keys and values."""
    return isinstance(value, list) and all(_is_entry(one) for one in value)


def _is_entry(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {KEY, VALUE}:
        return False
    return isinstance(value[KEY], str | int | float)


def _key_of(key: Any) -> str:
    """A key as JSON has it; models write numbers as numbers."""
    return key if isinstance(key, str) else json.dumps(key)


def _decoded(text: str) -> Any:
    """The value of a JSON text; what is none, or names a key twice, is a text of its own."""
    try:
        return json.loads(text, object_pairs_hook=_object_of)
    except (ValueError, RecursionError):
        return text


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("an object names a key twice")
    return made


def _places(value: Any, shape: Mapping[str, Any]) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """The parts of a value, each with its place and its shape."""
    if isinstance(value, list) and shape.get("type") == "array":
        for number, (one, part) in enumerate(_items(value, shape)):
            yield str(number), one, part
    if not isinstance(value, dict):
        return
    for name, one in value.items():
        if is_map(shape):
            yield "a value", one, shape["additionalProperties"]
        elif name in shape.get("properties", {}):
            yield name, one, shape["properties"][name]


def _items(value: list[Any], shape: Mapping[str, Any]) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """The items of a list, each with its shape; of a tuple by its place."""
    first = shape.get("prefixItems", [])
    for number, one in enumerate(value):
        yield one, first[number] if number < len(first) else shape["items"]
