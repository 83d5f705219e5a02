"""Decode JSON objects strictly."""

from __future__ import annotations

from typing import Any


class RepeatedKey(ValueError):
    """An object names a key twice, so that it is not known which value was meant."""

    def __init__(self) -> None:
        super().__init__("an object in it names a key twice")


def make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of an object's pairs: an ``object_pairs_hook`` that refuses repeated keys.

    Raises:
        DoubledKey: a key is repeated.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        raise RepeatedKey
    return made
