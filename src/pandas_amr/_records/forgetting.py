"""What in this process holds rows, and lets go of them when a journal forgets some."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_holders: list[Callable[[], None]] = []


def when_rows_are_forgotten(let_go: Callable[[], None]) -> Callable[[], None]:
    """Have a function called when rows are forgotten; it lets go of the rows that it knows."""
    _holders.append(let_go)
    return let_go


def let_go_of_rows() -> None:
    """Have everything in this process let go of rows."""
    for let_go in _holders:
        let_go()
