"""Types of a finding's field: what a mapper's schemas say of each in advance, on every engine."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel


class Part(BaseModel):
    name: str
    size: int | None


NULLABLE: dict[str, tuple[Any, Any]] = {  # the type, and how an answer writes a value of it
    "int": (int | None, 1),
    "bool": (bool | None, True),
    "float": (float | None, 1.5),
    "text": (str | None, "a"),
    "choices": (Literal["a", "b"] | None, "b"),
    "numbers as choices": (Literal[1, 2] | None, 2),
    "choices of two kinds": (Literal["a", 1] | None, 1),
    "date": (dt.date | None, "2026-01-31"),
    "time without a zone": (dt.datetime | None, "2026-01-31T10:00:00"),
    "time with a zone": (AwareDatetime | None, "2026-01-31T10:00:00+02:00"),
    "duration": (dt.timedelta | None, "PT1H"),
    "decimal": (decimal.Decimal | None, "1.50"),
    "uuid": (uuid.UUID | None, "12345678-1234-5678-1234-567812345678"),
    "list": (list[int] | None, [1, 2]),
    "object": (Part | None, {"name": "a", "size": None}),
    "objects": (list[Part] | None, []),
    "dict": (dict[str, int] | None, {"a": 1}),
    "anything": (Any, {"a": [1, None]}),
}
