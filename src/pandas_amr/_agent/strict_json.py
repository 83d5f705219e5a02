"""Decode the JSON of a model strictly."""

from __future__ import annotations

import json
from typing import Any

from pandas_amr._types.json_text import make_object
from pandas_amr.models.openai.reply import is_too_deep


class TooDeep(ValueError):
    """A model's JSON is nested deeper than any answer: the model did not stop."""

    def __init__(self) -> None:
        super().__init__("it is nested too deeply")


def _whole_number(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # more digits than Python reads
        return float(digits)


DECODER = json.JSONDecoder(object_pairs_hook=make_object, parse_int=_whole_number)


def loads(text: str) -> Any:
    """Decode JSON and refuse doubled keys; ``json.loads`` would keep the last one in silence.

    An integer with more digits than Python reads becomes infinite: no field accepts it, and the
    other findings of the answer can still be used.

    Raises:
        DoubledKey: an object names a key twice.
        TooDeep: it is nested deeper than any answer.
        ValueError: it is not JSON.

    Example:
        >>> loads('{"unit": 0}')
        {'unit': 0}
    """
    try:
        value = DECODER.decode(text)
    except RecursionError:
        raise TooDeep from None
    if is_too_deep(value):
        raise TooDeep
    return value
