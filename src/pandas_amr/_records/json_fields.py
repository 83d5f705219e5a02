"""Read decoded JSON of unknown shape: what a server sends may lack anything."""

from __future__ import annotations

from typing import Any


def get_field(value: object, name: str) -> Any:
    """Give a field of an object; None if it is missing, or the value is not an object."""
    return value.get(name) if isinstance(value, dict) else None


def get_list(value: object) -> list[Any]:
    """Give the value if it is a list, else an empty list."""
    return value if isinstance(value, list) else []


def get_text(value: object) -> str | None:
    """Give the value if it is a text that is not empty, else None."""
    return value if isinstance(value, str) and value else None
