"""A tool's result as an agent reads it: text, whatever it is, and no more of it than a prompt can hold."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import enum
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from pandas_amr._records.raised import contained
from pandas_amr.models.openai.reply import whole_text

DEEPEST = 20  # levels that an agent is shown
MOST_VALUES = 100_000  # in one result
LONGEST_NUMBER = 10**4000  # Python writes no more digits than 4,300
# How objects of libraries that this module does not know say what they hold: frames, arrays, scalars, dates.
WAYS = ("to_csv", "to_pylist", "to_dicts", "tolist", "as_py", "item", "isoformat")


def as_text(value: Any) -> str:
    """A tool's result as an agent reads it: text as it is, a frame as CSV, all else as JSON.

    Example:
        >>> as_text({dt.date(2026, 1, 31): float("nan"), (1, 2): {3}})
        '{"2026-01-31": null, "(1, 2)": [3]}'
    """
    if isinstance(value, str):
        return str(whole_text(value))
    if isinstance(value, bytes | bytearray | memoryview):
        return _text_of_bytes(bytes(value))
    plain = _Plain().of(value)
    text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    return str(whole_text(text))


def cut_middle(text: str, most: int | None) -> str:
    """A text in at most so many characters: its beginning and its end, and how much is left out between them.

    Example:
        >>> print(cut_middle("a" * 50 + "b" * 50, 60))
        aaaaaaaaaaaaaa
        [72 characters left out here]
        bbbbbbbbbbbbbb
    """
    if most is None or len(text) <= most:
        return text
    kept = max(0, most - len(_cut_words(len(text))))
    head = kept // 2
    return text[:head] + _cut_words(len(text) - kept) + text[len(text) - (kept - head) :]


def _cut_words(count: int) -> str:
    return f"\n[{count:,} characters left out here]\n"


def _text_of_bytes(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def text_of(value: Any) -> str:
    """An object's own text; if it cannot be had, its type and why."""
    try:
        return str(value)
    except BaseException as error:  # noqa: BLE001 (an object of the user's, whose __str__ may do anything)
        return f"<{type(value).__name__}: its text raised {type(contained(error)).__name__}>"


@dataclass(slots=True)
class _Plain:
    """Makes JSON of a value: each object once on its way down, and not without end."""

    left: int = MOST_VALUES
    above: list[int] = field(default_factory=list)

    def of(self, value: Any) -> Any:
        """The value as JSON has it."""
        self.left -= 1
        if self.left < 0:
            return "..."
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, int | float) and not isinstance(value, enum.Enum):
            return _number(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return _text_of_bytes(bytes(value))
        if id(value) in self.above:
            return f"<{type(value).__name__} that holds itself>"
        if len(self.above) >= DEEPEST:
            return f"<{type(value).__name__}>"
        self.above.append(id(value))
        try:
            return self._of_object(value)
        except Exception:  # noqa: BLE001 (an object of the user's may raise whatever it is asked)
            return text_of(value)
        finally:
            self.above.pop()

    def _of_object(self, value: Any) -> Any:
        if isinstance(value, enum.Enum):
            return self.of(value.value)
        if isinstance(value, BaseModel):
            return self._of_model(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._of_pairs(
                (one.name, getattr(value, one.name)) for one in dataclasses.fields(value)
            )
        if isinstance(value, Mapping):
            return self._of_pairs(value.items())
        if isinstance(value, AbstractSet):
            return self._of_items(sorted(value, key=text_of))
        if isinstance(value, Sequence | Iterator) and not isinstance(value, range):
            return self._of_items(value)
        return self._of_foreign(value)

    def _of_model(self, value: BaseModel) -> Any:
        try:
            return self.of(value.model_dump(mode="json"))
        except Exception:  # noqa: BLE001 (of a type that pydantic cannot write)
            return self._of_pairs((name, getattr(value, name)) for name in type(value).model_fields)

    def _of_pairs(self, pairs: Any) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, one in pairs:
            if self.left < 0:
                made["..."] = "..."
                break
            name = _key(key)
            made[name if name not in made else f"{name} ({type(key).__name__})"] = self.of(one)
        return made

    def _of_items(self, values: Any) -> list[Any]:
        made = [self.of(one) for one in itertools.islice(values, max(0, self.left))]
        return made if self.left > 0 else [*made, "..."]

    def _of_foreign(self, value: Any) -> Any:
        """What an object says of itself, in the first way that it has; else its text."""
        for name in WAYS if not isinstance(value, type) else ():
            way = getattr(value, name, None)
            if not callable(way):
                continue
            try:
                said = way()
            except Exception:  # noqa: BLE001, S112 (another of its ways may do)
                continue
            if said is not value and type(said) is not type(value):
                return self.of(said)
        return text_of(value)


def _number(value: float) -> Any:
    if isinstance(value, int):
        plain = int(value)
        return plain if abs(plain) < LONGEST_NUMBER else f"a number of {plain.bit_length():,} bits"
    if math.isfinite(value):
        return float(value)
    return None if math.isnan(value) else str(float(value))


def _key(key: Any) -> str:
    """A key as JSON has it: a text."""
    if isinstance(key, str):
        return key
    if isinstance(key, dt.date | dt.time):
        return key.isoformat()
    if key is None or isinstance(key, bool):
        return json.dumps(key)
    return text_of(key)
