"""Convert any result of a tool to text that fits into a prompt."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import enum
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from pandas_amr._records.raised import as_ordinary_error
from pandas_amr.models.openai.reply import replace_lone_surrogates

DEEPEST = 20  # levels that an agent sees
MOST_VALUES = 100_000  # in one result
LONGEST_NUMBER = 10**4000  # Python writes at most 4,300 digits
# Methods by which frames, arrays, scalars and dates of other libraries say what they hold.
CONVERTERS = ("to_csv", "to_pylist", "to_dicts", "tolist", "as_py", "item", "isoformat")


def as_text(value: object) -> str:
    """Convert a tool's result to text: a frame to CSV, a text unchanged, all else to JSON.

    Example:
        >>> as_text({dt.date(2026, 1, 31): float("nan"), (1, 2): {3}})
        '{"2026-01-31": null, "(1, 2)": [3]}'
    """
    if isinstance(value, str):
        # A subclass, such as an Enum, may have methods of its own.
        return str(replace_lone_surrogates(str.__str__(value)))
    if isinstance(value, bytes | bytearray | memoryview):
        return _text_of_bytes(bytes(value))
    plain = _PlainConverter().convert(value)
    text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    return str(replace_lone_surrogates(text))


def _text_of_bytes(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def text_of(value: object) -> str:
    """Return an object's text; if its ``__str__`` raises, its type and the error's."""
    try:
        return str(value)
    except BaseException as error:  # noqa: BLE001 (a user's __str__ may do anything)
        raised = type(as_ordinary_error(error)).__name__
        return f"<{type(value).__name__}: its text raised {raised}>"


@dataclass(slots=True)
class _PlainConverter:
    """Converts a value to what JSON can hold.

    An object within itself is named and not entered again. Depth and number of values are limited.
    """

    left: int = MOST_VALUES
    parents: list[int] = field(default_factory=list)

    def convert(self, value: object) -> Any:
        """Return the value as JSON can hold it."""
        self.left -= 1
        if self.left < 0:
            return "..."
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, int | float) and not isinstance(value, enum.Enum):
            return _number(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return _text_of_bytes(bytes(value))
        return self._convert_once(value)

    def _convert_once(self, value: object) -> Any:
        """Convert an object that may hold others, unless it is within itself."""
        if id(value) in self.parents:
            return f"<{type(value).__name__} that holds itself>"
        if len(self.parents) >= DEEPEST:
            return f"<{type(value).__name__}>"
        self.parents.append(id(value))
        try:
            return self._convert_object(value)
        except Exception:  # noqa: BLE001 (an object of the user's: anything may raise)
            return text_of(value)
        finally:
            self.parents.pop()

    def _convert_object(self, value: object) -> Any:
        if isinstance(value, enum.Enum):
            return self.convert(value.value)
        if isinstance(value, BaseModel):
            return self._convert_model(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [part.name for part in dataclasses.fields(value)]
            return self._convert_pairs((name, getattr(value, name)) for name in names)
        if isinstance(value, Mapping):
            return self._convert_pairs(value.items())
        if isinstance(value, AbstractSet):
            return self._convert_items(sorted(value, key=text_of))
        if isinstance(value, Sequence | Iterator) and not isinstance(value, range):
            return self._convert_items(value)
        return text_of(value) if isinstance(value, type) else self._convert_foreign(value)

    def _convert_model(self, value: BaseModel) -> Any:
        try:
            return self.convert(value.model_dump(mode="json"))
        except Exception:  # noqa: BLE001 (a type that pydantic cannot write)
            names = type(value).model_fields
            return self._convert_pairs((name, getattr(value, name)) for name in names)

    def _convert_pairs(self, pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
        converted: dict[str, Any] = {}
        for key, value in pairs:
            if self.left < 0:
                converted["..."] = "..."
                break
            name = _key(key)
            if name in converted:
                name = f"{name} ({type(key).__name__})"
            converted[name] = self.convert(value)
        return converted

    def _convert_items(self, values: Iterable[Any]) -> list[Any]:
        items = itertools.islice(values, max(0, self.left))
        converted = [self.convert(item) for item in items]
        return converted if self.left > 0 else [*converted, "..."]

    def _convert_foreign(self, value: Any) -> Any:
        """Convert an object by the first of its own methods that works; else return its text."""
        if _is_time_of_numpy(value):  # its methods give nanoseconds as numbers
            return self._convert_items(value) if value.ndim else text_of(value)
        for name in CONVERTERS:
            method = getattr(value, name, None)
            if not callable(method):
                continue
            try:
                converted = method()
            except Exception:  # noqa: BLE001, S112 (another method may work)
                continue
            if converted is not value and type(converted) is not type(value):
                return self.convert(converted)
        return text_of(value)


def _is_time_of_numpy(value: object) -> bool:
    """Tell whether an object is a time, a duration or an array of such of numpy's."""
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    return kind in ("m", "M") and type(value).__module__ == "numpy"


def _number(value: float) -> Any:
    if isinstance(value, int):
        plain = int(value)
        return plain if abs(plain) < LONGEST_NUMBER else f"a number of {plain.bit_length():,} bits"
    if math.isfinite(value):
        return float(value)
    return None if math.isnan(value) else str(float(value))


def _key(key: object) -> str:
    """Return a key as the text that JSON wants."""
    if isinstance(key, str):
        return key
    if isinstance(key, dt.date | dt.time):
        return key.isoformat()
    if key is None or isinstance(key, bool):
        return json.dumps(key)
    return text_of(key)
